// One call of the operator, and the table of kernels, one per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

namespace maskring {

constexpr float NO_LOGIT = -1e38f;  // running maximum of a query before its first valid logit

enum class Storage { f32, f16 };

// Shapes as in reference.py; all arrays are dense and row-major.
struct Problem {
    int batch, slots, channels, labels, height, width;
    int radius, top_k;
    bool shares;  // divide the result by its sum over labels, where that is not 0
    float scale;
    Storage storage;          // of query, keys, values and out
    const void* query;        // [B, C, H, W]
    const void* keys;         // [B, N, C, H, W]
    const void* values;       // [B, N, O, H, W]
    const int32_t* dilation;  // [B, N]
    const int32_t* offsets;   // [B, N, 2, H, W] or null
    void* out;                // [B, O, H, W]
};

// A rectangle of query pixels of one batch element. Threads take one rectangle at a time.
struct Rectangle {
    int batch, top, left, rows, columns;
};

constexpr int BLOCK_WIDTH = 16;  // pixels in a block of UniformBlocks; a multiple of every kernel's LANES

// Blocks of queries whose windows contain the same labels everywhere; for shares, the same single label, with any weights.
// See uniform_blocks.cpp.
struct UniformBlocks {
    const int* first_slot;   // [B] the first non-empty slot, N if all are empty
    const uint8_t* uniform;  // [B, H, ceil(W / BLOCK_WIDTH)] 1 = uniform
};

// State of every query's softmax between two slots.
struct Sums {
    float* maximum;   // [B, H, W] largest logit
    float* sum;       // [B, H, W] sum of weights
    float* weighted;  // [B, O, H, W] sum of weighted labels
};

// The offset of a slot's windows, if `is_shared` by all queries.
struct SharedOffset {
    int32_t y = 0, x = 0;
    bool is_shared = true;
};

// Keys and values of one slot in float32, copied for queries with offsets of their own. Channels of a row are
// contiguous. The columns of a row are sorted by their residue modulo the slot's dilation, so that the columns of a
// window are neighbours.
struct RowCopies {
    float* keys;    // [B, H, C, stride]
    float* values;  // [B, H, W, O]
    size_t stride;
};

// Index in such a row of the first column with x % dilation == residue; 0 <= residue < width.
static inline size_t residue_begin(int width, int dilation, int residue) {
    const int quotient = width / dilation, remainder = width % dilation;
    return static_cast<size_t>(residue) * quotient + (residue < remainder ? residue : remainder);
}

// The centre of a query's window: pixel (y * dilation + y_residue, x * dilation + x_residue) of the frame.
struct Centre {
    int y, x, y_residue, x_residue;
    int query;  // the query's own pixel, row * width + column
};

// Queries that share a vector: centres[first .. first + count), all with the same residues.
struct Cluster {
    int first, count, y_residue, x_residue;
};

constexpr int TILE_SIDE = 32;  // tiles of queries that are clustered; the keys of their windows fit into a core's cache
constexpr int TILE_QUERIES = TILE_SIDE * TILE_SIDE;

// Group the queries of a tile into clusters of at most `lanes`, by their windows in slot image `image` of [B * N].
// Queries whose window lies outside the frame are dropped. Returns the number of clusters.
int cluster_queries(const Problem& p, const Rectangle& tile, int image, int lanes, Centre* centres, Cluster* clusters);

// The kernels of one instruction set. `scratch` is 64-byte aligned and holds at least as many floats as *_scratch says.
struct Kernel {
    const char* name;
    // Windows centred on their own pixel, all logits: the fast path.
    void (*dense_window)(const Problem&, const Rectangle&, const UniformBlocks&, float* scratch);
    size_t (*dense_window_scratch)(const Problem&, int rows, int columns);
    // The slots with a shared offset, all logits; initializes the sums. Uses the scratch of dense_window.
    void (*shared_offset)(const Problem&, const Rectangle&, const SharedOffset*, const Sums&, float* scratch);
    // One slot with an offset per query, all logits; adds to the sums.
    void (*per_query_offset)(const Problem&, const Rectangle&, int slot, const RowCopies&, const Sums&, float* scratch);
    size_t (*per_query_offset_scratch)(const Problem&);
    // Any offsets, any top_k. Reads float32 copies of keys and values, channels last.
    void (*top_k)(const Problem&, const Rectangle&, const float* keys, const float* values, float* scratch);
    size_t (*top_k_scratch)(const Problem&);
};

// The instruction sets that this library was compiled for and this processor has, best first.
struct KernelList {
    const Kernel* kernels[4];
    int count;
};
KernelList available_kernels();

// The k-th largest of n numbers, 1 <= k <= n. Reorders the numbers.
float kth_largest(float* numbers, int n, int k);

// Threads that share a call's work: new ones, or those of a pool.
struct Workers {
    int count;  // at most
    // Calls task(argument, i) for all i below `tasks`, at the same time where the pool can; null: start threads.
    void (*run)(void* pool, int tasks, void (*task)(void* argument, std::size_t i), void* argument) = nullptr;
    void* pool = nullptr;
};

void compute(const Problem& problem, const Kernel& kernel, const Workers& workers);

}  // namespace maskring
