// Windowed memory affinity on tensor cores, for sm_80 and newer: float16 in memory, float32 sums.
//
// Three kernels run in this order. phases.cuh rearranges slots whose step is not 1 into frames in which it is 1. The
// kernel below computes all slots that way and leaves partial sums in the workspace. combine.cuh adds them up.
//
// A warp computes 16 neighbouring queries, the rows of an MMA, as 4 x 4 or 2 x 8 pixels. It visits the union of their
// windows two key rows at a time: inner products of 16 queries with 8 keys at a time (QK^T), a softmax in registers,
// and a second product of the weights with the labels (PV), as in FlashAttention-2. Masked pairs start from -inf
// instead of 0. A row of ones below the labels makes PV compute the sum of weights, too.
//
// Maps stay in the operator's layout, channel by channel. Keys are the right operand of QK^T, which ldmatrix.trans
// reads from rows of channels; labels are the right operand of PV, which ldmatrix reads from rows of labels. Both need 8
// neighbouring pixels at an aligned address, so key columns start at a multiple of 8. The shapes of the query block are
// those that waste least that way (docs/kernels.md).
//
// The warps of a CTA share a halo. Key rows stream through two buffers in shared memory: cp.async fills one while the
// other is read.
#pragma once

#include "phases.cuh"
#include "tensor_core.cuh"

namespace maskring::mma {

// The CTA's way through slots and key rows. Rows and columns are those of its phase, in which the step is 1.
template <typename S>
struct Walk {
    const AffinityProblem& problem;
    const Workspace& workspace;
    Phase phase;
    int tile_y, tile_x;
    unsigned group;               // slots still to come, one bit for each
    int row = 0;                  // first key row of the stage
    const __half *keys, *values;  // of the slot

    __device__ __forceinline__ int row_begin() const { return max(0, tile_y - problem.radius); }
    __device__ __forceinline__ int row_end() const { return min(phase.height, tile_y + S::TILE_Y + problem.radius); }
    // First column of the windows of a block at `x`, rounded down to a multiple of 8.
    __device__ __forceinline__ int first_column(int x) const { return (x - problem.radius) & ~(KEYS - 1); }

    // Moves to the next stage; false after the last one.
    __device__ __forceinline__ bool advance() {
        row += S::STAGE_ROWS;
        return row < row_end() || next_slot();
    }

    __device__ __forceinline__ bool next_slot() {
        if (group == 0) return false;
        int slot = 0;
        while (!(group >> slot & 1)) ++slot;
        group ^= 1u << slot;
        row = row_begin();
        phase.maps_of(problem, workspace, slot, keys, values);
        return true;
    }
};

// Starts to copy keys and labels of the walk's rows into a stage, with zeros outside the frame.
template <typename S>
__device__ __forceinline__ void fill(__half* stage, const Walk<S>& walk, int labels) {
    constexpr int PIECES = S::COLUMNS / 8, LANES = PIECES <= 4 ? 4 : 8;  // pieces of a row, threads per row
    constexpr int AT_ONCE = S::THREADS / LANES;                          // rows
    static_assert(PIECES <= 8 && S::CHANNELS % AT_ONCE == 0);
    const int piece = threadIdx.x % LANES, first = threadIdx.x / LANES;
    if (piece >= PIECES) return;
    const unsigned plane = walk.phase.plane;
    const int x = walk.first_column(walk.tile_x) + 8 * piece;
    const bool in_x = x >= 0 && x < walk.phase.pitch;
    const unsigned here = first * plane + walk.row * walk.phase.pitch + (in_x ? x : 0);
    const __half *keys = walk.keys + here, *values = walk.values + here;
    __half* shared = stage + first * S::PITCH + 8 * piece;
#pragma unroll
    for (int i = 0; i < S::STAGE_ROWS; ++i) {
        const bool inside = in_x && walk.row + i < walk.row_end();
#pragma unroll
        for (int c = 0; c < S::CHANNELS; c += AT_ONCE) copy_async<16>(shared + c * S::PITCH, keys + c * plane, inside);
#pragma unroll
        for (int label = 0; label < S::LABEL_ROWS; label += AT_ONCE)
            if (first + label < labels)
                copy_async<16>(shared + (S::CHANNELS + label) * S::PITCH, values + label * plane, inside);
        if (walk.row + i + 1 < walk.row_end()) {  // skipped copies need valid addresses, too
            keys += walk.phase.pitch;
            values += walk.phase.pitch;
        }
        shared += S::MAP_ROWS * S::PITCH;
    }
}

// Below the labels of each key row: a row of ones, then zeros. Copies do not overwrite them.
template <typename S>
__device__ __forceinline__ void fill_constant_rows(__half* stages, int labels) {
    const int constant = S::LABEL_ROWS - labels;
    for (int i = threadIdx.x; i < 2 * S::STAGE_ROWS * constant * S::PITCH; i += S::THREADS) {
        const int column = i % S::PITCH, label = labels + i / S::PITCH % constant, row = i / S::PITCH / constant;
        stages[(row * S::MAP_ROWS + S::CHANNELS + label) * S::PITCH + column] = __half(label == labels ? 1.f : 0.f);
    }
}

// The queries of a warp, in registers.
template <typename S>
struct Queries {
    FragmentA features[S::CHANNELS / 16];
    Accumulator labels[S::LABEL_TILES];       // sums of weighted labels
    float largest[2] = {NO_LOGIT, NO_LOGIT};  // inner products of queries lane / 4 and lane / 4 + 8
    int y, x;                                 // of the block, in the phase
    int lane;

    __device__ __forceinline__ int query_y(int half) const { return y + (lane / 4 + 8 * half) / S::BLOCK_X; }
    __device__ __forceinline__ int query_x(int half) const { return x + (lane / 4 + 8 * half) % S::BLOCK_X; }

    __device__ __forceinline__ void load(const AffinityProblem& problem, const Phase& phase) {
        const size_t plane = size_t(problem.height) * problem.width;
        const __half* query = static_cast<const __half*>(problem.query) + phase.batch * S::CHANNELS * plane;
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const int at_y = query_y(r % 2), at_x = query_x(r % 2);
            const bool inside = phase.contains(at_y, at_x);
            const __half* pixel = query + (inside ? phase.pixel(problem, at_y, at_x) : 0);
#pragma unroll
            for (int k = 0; k < S::CHANNELS / 16; ++k) {
                const int c = 16 * k + 2 * (lane % 4) + 8 * (r / 2);
                const float low = inside ? __half2float(pixel[c * plane]) : 0.f;
                const float high = inside ? __half2float(pixel[(c + 1) * plane]) : 0.f;
                features[k].r[r] = pack_halves(low, high);
            }
        }
#pragma unroll
        for (int tile = 0; tile < S::LABEL_TILES; ++tile) labels[tile] = Accumulator{};
    }

    // Whether each of the lane's pairs is inside window and frame in x: bit 4 * tile + element.
    __device__ __forceinline__ unsigned pairs_in_x(int first_key, int radius, int width) const {
        unsigned pairs = 0;
#pragma unroll
        for (int tile = 0; tile < S::KEY_TILES; ++tile) {
#pragma unroll
            for (int element = 0; element < 4; ++element) {
                const int key_x = first_key + KEYS * tile + 2 * (lane % 4) + element % 2;
                const bool valid = abs(key_x - query_x(element / 2)) <= radius && key_x >= 0 && key_x < width;
                pairs |= unsigned(valid) << (4 * tile + element);
            }
        }
        return pairs;
    }

    // The bits of the queries whose window contains a key row.
    __device__ __forceinline__ unsigned pairs_in_y(int key_y, int radius) const {
        unsigned pairs = 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (abs(key_y - query_y(half)) <= radius) pairs |= 0x33333333u << (2 * half);
        }
        return pairs;
    }
};

// One number for each query and key of the rows computed together: inner products, then weights.
template <typename S>
using Pairs = Accumulator[S::STAGE_ROWS][S::KEY_TILES];

// Inner products of the queries with the keys of these rows; -inf for masked pairs.
template <typename S>
__device__ __forceinline__ void multiply_keys(Pairs<S>& pairs, const Queries<S>& queries, const __half* keys,
                                              const unsigned (&valid_pairs)[S::STAGE_ROWS]) {
    const __half* channel = keys + queries.lane * S::PITCH;  // ldmatrix: the lane names a channel
#pragma unroll
    for (int row = 0; row < S::STAGE_ROWS; ++row)
#pragma unroll
        for (int tile = 0; tile < S::KEY_TILES; ++tile)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                pairs[row][tile].v[i] = valid_pairs[row] >> (4 * tile + i) & 1 ? 0.f : -INFINITY;
#pragma unroll
    for (int c = 0; c < S::CHANNELS; c += 32) {
#pragma unroll
        for (int row = 0; row < S::STAGE_ROWS; ++row) {
#pragma unroll
            for (int tile = 0; tile < S::KEY_TILES; ++tile) {
                FragmentB first, second;
                load_matrices_transposed(first, second, channel + (row * S::MAP_ROWS + c) * S::PITCH + KEYS * tile);
                multiply_add(pairs[row][tile], queries.features[c / 16], first);
                multiply_add(pairs[row][tile], queries.features[c / 16 + 1], second);
            }
        }
    }
}

// Online softmax: turns inner products into weights exp2(scale * (product - largest)), rescales earlier sums.
template <typename S>
__device__ __forceinline__ void update_softmax(Pairs<S>& pairs, Queries<S>& queries, float scale) {
    float largest[2] = {queries.largest[0], queries.largest[1]};
#pragma unroll
    for (int row = 0; row < S::STAGE_ROWS; ++row)
#pragma unroll
        for (int tile = 0; tile < S::KEY_TILES; ++tile)
#pragma unroll
            for (int i = 0; i < 4; ++i) largest[i / 2] = fmaxf(largest[i / 2], pairs[row][tile].v[i]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {  // the four lanes of a quad share a query
        largest[half] = fmaxf(largest[half], __shfl_xor_sync(0xffffffffu, largest[half], 1));
        largest[half] = fmaxf(largest[half], __shfl_xor_sync(0xffffffffu, largest[half], 2));
    }
    const bool has_grown = largest[0] > queries.largest[0] || largest[1] > queries.largest[1];
    if (__any_sync(0xffffffffu, has_grown)) {  // seldom, after the first rows
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const float factor = exp2_approx((queries.largest[half] - largest[half]) * scale);
            queries.largest[half] = largest[half];
#pragma unroll
            for (int tile = 0; tile < S::LABEL_TILES; ++tile) {
                queries.labels[tile].v[2 * half] *= factor;
                queries.labels[tile].v[2 * half + 1] *= factor;
            }
        }
    }
    const float reference[2] = {largest[0] * scale, largest[1] * scale};
#pragma unroll
    for (int row = 0; row < S::STAGE_ROWS; ++row)
#pragma unroll
        for (int tile = 0; tile < S::KEY_TILES; ++tile)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                pairs[row][tile].v[i] = exp2_approx(fmaf(pairs[row][tile].v[i], scale, -reference[i / 2]));
}

// Adds the weighted labels of one key row, sixteen keys at a time. An odd last tile is paired with one of weight 0.
template <typename S>
__device__ __forceinline__ void multiply_labels(Queries<S>& queries, const Accumulator (&weights)[S::KEY_TILES],
                                                const __half* values) {
    const int matrix = queries.lane / 8;  // ldmatrix: the lane names a label and a group of eight keys
#pragma unroll
    for (int tile = 0; tile < S::KEY_TILES; tile += 2) {
        const bool both = tile + 1 < S::KEY_TILES;
        const Accumulator& low = weights[tile];
        FragmentA a{{pack_halves(low.v[0], low.v[1]), pack_halves(low.v[2], low.v[3]), 0u, 0u}};
        if (both) {
            const Accumulator& high = weights[both ? tile + 1 : tile];
            a.r[2] = pack_halves(high.v[0], high.v[1]);
            a.r[3] = pack_halves(high.v[2], high.v[3]);
        }
        const __half* keys = values + KEYS * (tile + (both ? matrix % 2 : 0));
#pragma unroll
        for (int label = 0; label < S::LABEL_TILES; label += 2) {
            const bool pair = label + 1 < S::LABEL_TILES;
            const int row = 8 * (label + (pair ? matrix / 2 : 0)) + queries.lane % 8;
            FragmentB first, second;
            load_matrices(first, second, keys + row * S::PITCH);
            multiply_add(queries.labels[label], a, first);
            if (pair) multiply_add(queries.labels[pair ? label + 1 : label], a, second);
        }
    }
}

// Writes the queries' sums and their largest inner products, those of the group that begins at `slot`.
template <typename S>
__device__ __forceinline__ void write_partial(const Queries<S>& queries, const AffinityProblem& problem,
                                              const Workspace& workspace, const Phase& phase, int slot) {
    const size_t plane = size_t(problem.height) * problem.width;
    const size_t map = (size_t(phase.batch) * problem.slots + slot) * plane;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int y = queries.query_y(half), x = queries.query_x(half);
        if (!phase.contains(y, x)) continue;
        const size_t pixel = map + phase.pixel(problem, y, x);
        float* sums = workspace.sums + pixel * S::LABEL_ROWS + 2 * (queries.lane % 4);
#pragma unroll
        for (int tile = 0; tile < S::LABEL_TILES; ++tile) {
            sums[8 * tile] = queries.labels[tile].v[2 * half];
            sums[8 * tile + 1] = queries.labels[tile].v[2 * half + 1];
        }
        if (queries.lane % 4 == 0) workspace.largest[pixel] = queries.largest[half];
    }
}

// Adds the key rows of a stage. `keys` points to the warp's first key column.
template <typename S>
__device__ __forceinline__ void add_stage(Queries<S>& queries, const __half* keys, int row, int row_end, int radius,
                                          unsigned pairs_in_x, float scale) {
    const bool near = row + S::STAGE_ROWS > queries.y - radius && row < queries.y + S::BLOCK_Y + radius;
    if (!near) return;
    unsigned valid_pairs[S::STAGE_ROWS];
#pragma unroll
    for (int i = 0; i < S::STAGE_ROWS; ++i)
        valid_pairs[i] = row + i < row_end ? pairs_in_x & queries.pairs_in_y(row + i, radius) : 0;
    Pairs<S> pairs;
    multiply_keys<S>(pairs, queries, keys, valid_pairs);
    update_softmax<S>(pairs, queries, scale);
#pragma unroll
    for (int i = 0; i < S::STAGE_ROWS; ++i)
        multiply_labels<S>(queries, pairs[i], keys + (i * S::MAP_ROWS + S::CHANNELS) * S::PITCH);
}

// CTAs per SM: as many as registers allow without spilling.
#if !defined(__CUDA_ARCH__)
constexpr int ARCHITECTURE = 0;
#else
constexpr int ARCHITECTURE = __CUDA_ARCH__;
#endif
template <typename S>
constexpr bool IS_LARGE = S::MAX_RADIUS > 12 || (S::LABEL_TILES > 2 && S::MAX_RADIUS > 8) ||
                          (ARCHITECTURE >= 1000 && ARCHITECTURE < 1100) ||
                          ((ARCHITECTURE == 900 || ARCHITECTURE == 1100) && (S::MAX_RADIUS > 8 || S::LABEL_TILES > 2));
template <typename S>
constexpr int CTAS_OF_SM = IS_LARGE<S> ? 1 : 2;

// Grid: tiles of all phases (of the step that has most), slots, batch. A CTA computes one tile for the group of slots
// that begins at its slot.
template <typename S>
__global__ void __launch_bounds__(S::THREADS, CTAS_OF_SM<S>)
    affinity(const AffinityProblem problem, const Workspace workspace) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800  // older GPUs get an empty kernel, which dispatch never launches
    const int batch = blockIdx.z, first_slot = blockIdx.y;
    const int step = step_of_slot(problem, batch, first_slot);
    const unsigned group = group_of(problem, workspace, batch, first_slot);
    if (group == 0 || step > MAX_STEP) return;
    const Tiles tiles(problem, S::TILE_X, S::TILE_Y, step);
    const int index = blockIdx.x / tiles.per_phase, tile = blockIdx.x % tiles.per_phase;
    if (index >= step * step) return;
    const Phase phase(problem, batch, step, index);
    Walk<S> next{problem, workspace, phase, tile / tiles.in_x * S::TILE_Y, tile % tiles.in_x * S::TILE_X, group};
    if (!phase.contains(next.tile_y, next.tile_x)) return;

    __half* stages = reinterpret_cast<__half*>(dynamic_shared());
    const int warp = threadIdx.x / WARP;
    Queries<S> queries;
    queries.lane = threadIdx.x % WARP;
    queries.y = next.tile_y + warp / S::WARPS_X * S::BLOCK_Y;
    queries.x = next.tile_x + warp % S::WARPS_X * S::BLOCK_X;
    queries.load(problem, phase);
    const bool idle = !phase.contains(queries.y, queries.x);
    const int offset = next.first_column(queries.x) - next.first_column(next.tile_x);  // of the warp's key columns
    unsigned pairs_in_x = 0;

    next.next_slot();
    fill_constant_rows<S>(stages, problem.labels);
    fill<S>(stages, next, problem.labels);
    close_copies();
    bool more = true, first = true;
    for (int buffer = 0; more; buffer ^= 1) {
        const int row = next.row;
        more = next.advance();
        if (more) fill<S>(stages + (buffer ^ 1) * S::STAGE_HALVES, next, problem.labels);
        close_copies();
        await_copies<1>();
        __syncthreads();  // the stage is complete
        if (first) {      // before the loop, the compiler would move it into each stage to save a register
            pairs_in_x = queries.pairs_in_x(next.first_column(queries.x), problem.radius, phase.width);
            first = false;
        }
        if (!idle)
            add_stage<S>(queries, stages + buffer * S::STAGE_HALVES + offset, row, next.row_end(), problem.radius,
                         pairs_in_x, problem.scale * LOG2_E);
        __syncthreads();  // the stage may be filled again
    }
    await_copies<0>();
    write_partial<S>(queries, problem, workspace, phase, first_slot);
#endif
}

}  // namespace maskring::mma
