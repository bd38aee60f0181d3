// What every instruction set's kernel is given, and the table through which one is chosen.
#pragma once

#include <cstddef>
#include <cstdint>

namespace maskring {

constexpr float kNothing = -1e38f;  // running maximum of a pixel that has met no valid logit

enum class Storage { f32, f16 };

// Shapes as in reference.py; all arrays are dense and row-major.
struct Problem {
  int batch, slots, channels, labels, height, width;
  int radius, top_k;
  float scale;
  Storage storage;           // of query, keys, values and out
  const void* query;         // [B, C, H, W]
  const void* keys;          // [B, N, C, H, W]
  const void* values;        // [B, N, O, H, W]
  const int32_t* dilation;   // [B, N]
  const int32_t* offsets;    // [B, N, 2, H, W] or null
  void* out;                 // [B, O, H, W]
};

// A rectangle of query pixels of one batch element: the unit of work of a thread.
struct Rectangle {
  int batch, top, left, rows, columns;
};

constexpr int kBlock = 16;  // neighbours in a row that are settled together; a multiple of every kernel's LANES

// Which queries need no keys, since all labels in their reach are equal; and where these labels stand.
struct Settled {
  const int* slot;        // [B] the first one that is read, N when there is none
  const uint8_t* blocks;  // [B, H, ceil(W / kBlock)] 1 = settled
};

// The softmax of every query between two frames of memory, and the labels weighted by it so far.
struct Sums {
  float* maximum;   // [B, H, W]
  float* sum;       // [B, H, W]
  float* weighted;  // [B, O, H, W]
};

// The offset that all queries share in one frame of memory; `whole_frame` says whether they do.
struct Shift {
  int32_t y = 0, x = 0;
  bool whole_frame = true;
};

// Keys and values of one slot as the clustered path reads them: row by row in f32, so that neighbouring columns are
// contiguous in each channel. The columns of a row stand in the order of their residues modulo the frame's dilation:
// those that one window may hold are neighbours.
struct RowCopies {
  float* keys;    // [B, H, C, stride]
  float* values;  // [B, H, W, O]
  size_t stride;
};

// Where the columns x = residue (modulo dilation) begin in such a row; 0 <= residue < width.
static inline size_t residue_begin(int width, int dilation, int residue) {
  const int whole = width / dilation, rest = width % dilation;
  return static_cast<size_t>(residue) * whole + (residue < rest ? residue : rest);
}

// Of a query's window: its centre is pixel (y * dilation + y_residue, x * dilation + x_residue) of the frame.
struct Centre {
  int y, x, y_residue, x_residue;
  int query;  // the query's own pixel, row * width + column
};

// Queries that share a vector: centres[first .. first + count), all of one residue class.
struct Cluster {
  int first, count, y_residue, x_residue;
};

constexpr int kTileSide = 32;  // of the rectangles of the clustered path: their keys fit into a core's cache
constexpr int kTileQueries = kTileSide * kTileSide;

// Gather the queries of a tile into clusters of at most `lanes`, for the windows in frame `image` of [B * N]. Queries
// whose windows hold no pixel of the frame are left out. Returns the number of clusters.
int arrange(const Problem& p, const Rectangle& tile, int image, int lanes, Centre* centres, Cluster* clusters);

// One instruction set's implementation. `scratch` is 64-byte aligned and holds at least *_scratch floats.
struct Kernel {
  const char* name;
  // Windows centred on their own pixel, all logits kept: the fast path.
  void (*fused)(const Problem&, const Rectangle&, const Settled&, float* scratch);
  size_t (*fused_scratch)(const Problem&, int rows, int columns);
  // The frames whose windows are shifted alike, all logits kept; starts the sums. Scratch as `fused`.
  void (*shifted)(const Problem&, const Rectangle&, const Shift*, const Sums&, float* scratch);
  // Windows centred anywhere, all logits kept: adds one slot to the sums.
  void (*clustered)(const Problem&, const Rectangle&, int slot, const RowCopies&, const Sums&, float* scratch);
  size_t (*clustered_scratch)(const Problem&);
  // Any offsets, any top_k. Reads copies of keys and values with their channels last, in f32.
  void (*gathered)(const Problem&, const Rectangle&, const float* keys, const float* values, float* scratch);
  size_t (*gathered_scratch)(const Problem&);
};

// The sets this library was compiled for that this processor has, best first.
struct KernelList {
  const Kernel* kernels[4];
  int count;
};
KernelList available_kernels();

// The k-th largest of n numbers, which are reordered; 1 <= k <= n.
float kth_largest(float* numbers, int n, int k);

void compute(const Problem& problem, const Kernel& kernel, int threads);

}  // namespace maskring
