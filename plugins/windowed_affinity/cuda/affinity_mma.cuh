// Windowed memory affinity on tensor cores, for sm_80 and newer: float16 in memory, float32 sums.
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
//
// Slots with dilation 1 come first. With dilation d, only every d-th key row is in the window of a query row. So the
// CTA reassigns its queries, one row of 16 to each warp, and a warp computes only the key rows that it needs.
#pragma once

#include "shapes.hpp"
#include "tensor_core.cuh"

namespace maskring::mma {

constexpr float NO_LOGIT = -1e30f;  // initial maximum; -inf would give NaN as -inf - -inf

// The CTA's position in its loop over slots, column passes and key rows. Step 1 needs one pass; wider steps have wider
// windows and take WARP_COLUMNS per pass.
template <typename S>
struct Walk {
    const AffinityProblem& problem;
    int batch, tile_y, tile_x;
    int slot = -1, step = 0;
    int row = 0, left = 0;  // first key row and column of the stage
    bool fresh = true;      // first stage of a pass

    __device__ __forceinline__ int reach() const { return S::DILATED ? S::RADIUS * step : S::RADIUS; }
    __device__ __forceinline__ int row_begin() const { return max(0, tile_y - reach()); }
    __device__ __forceinline__ int row_end() const { return min(problem.height, tile_y + S::TILE_Y + reach()); }
    __device__ __forceinline__ int left_end() const {
        return min(problem.width, S::DILATED ? tile_x + S::TILE_X + reach() : first_column(tile_x) + 1);
    }
    // Key rows of a stage: equally many of each residue modulo the step, so that all warps have the same work.
    __device__ __forceinline__ int stage_rows() const {
        if (S::STAGE_ROWS == 6 && (step == 4 || step == 5)) return step;
        return S::STAGE_ROWS == 4 && step == 3 ? 3 : S::STAGE_ROWS;
    }

    // First column of the windows of a block at `x`, rounded down to a multiple of 8.
    __device__ __forceinline__ int first_column(int x) const { return (x - reach()) & ~(KEYS - 1); }

    // Moves to the next stage; false after the last one.
    __device__ __forceinline__ bool advance() {
        row += stage_rows();
        fresh = row >= row_end();
        if (!fresh) return true;
        left += S::WARP_COLUMNS;
        row = row_begin();
        return left < left_end() || next_slot();
    }

    __device__ __forceinline__ bool next_slot() {
        do {
            if (++slot >= problem.slots) return false;
            step = step_of_slot(problem, batch, slot);
        } while (S::DILATED ? step < 2 : step != 1);
        row = row_begin();
        left = first_column(tile_x);
        while (left + S::COLUMNS <= 0) left += S::WARP_COLUMNS;  // skip passes left of the frame
        return true;
    }
};

// Copies eight neighbouring halves of a map to shared memory, HALVES at a time, with zeros outside the frame. All are
// zero if the row does not exist.
template <int HALVES>
__device__ __forceinline__ void copy_eight(__half* shared, const __half* __restrict__ row, int x, int width,
                                           bool exists) {
#pragma unroll
    for (int i = 0; i < 8; i += HALVES) {
        const bool inside = exists && x + i >= 0 && x + i < width;
        if constexpr (HALVES == 1)
            shared[i] = inside ? row[x + i] : __half(0.f);
        else
            copy_async<2 * HALVES>(shared + i, row + (inside ? x + i : 0), inside);
    }
}

// Starts to copy keys and labels of the walk's rows into a stage.
template <typename S, int HALVES>
__device__ __forceinline__ void fill_by(__half* stage, const Walk<S>& walk, const AffinityProblem& problem) {
    constexpr int PIECES = S::COLUMNS / 8, LANES = PIECES <= 4 ? 4 : 8;  // pieces of a row, threads per row
    constexpr int AT_ONCE = S::THREADS / LANES;                          // rows
    static_assert(PIECES <= 8 && S::CHANNELS % AT_ONCE == 0);
    const int piece = threadIdx.x % LANES, first = threadIdx.x / LANES;
    if (piece >= PIECES) return;
    const size_t plane = size_t(problem.height) * problem.width;
    const size_t map = size_t(walk.batch) * problem.slots + walk.slot;
    const size_t here = first * plane + size_t(walk.row) * problem.width;
    const __half* keys = static_cast<const __half*>(problem.keys) + map * S::CHANNELS * plane + here;
    const __half* values = static_cast<const __half*>(problem.values) + map * problem.labels * plane + here;
    __half* shared = stage + first * S::PITCH + 8 * piece;
    const int x = walk.left + 8 * piece;
#pragma unroll
    for (int i = 0; i < S::STAGE_ROWS; ++i) {
        const bool exists = walk.row + i < walk.row_end();
        if (S::DILATED && (!exists || i >= walk.stage_rows())) break;  // these rows are not read
#pragma unroll
        for (int c = 0; c < S::CHANNELS; c += AT_ONCE)
            copy_eight<HALVES>(shared + c * S::PITCH, keys + c * plane, x, problem.width, exists);
#pragma unroll
        for (int label = 0; label < S::LABEL_ROWS; label += AT_ONCE)
            if (first + label < problem.labels)
                copy_eight<HALVES>(shared + (S::CHANNELS + label) * S::PITCH, values + label * plane, x, problem.width,
                                   exists);
        if (walk.row + i + 1 < walk.row_end()) {  // skipped copies need valid addresses, too
            keys += problem.width;
            values += problem.width;
        }
        shared += S::MAP_ROWS * S::PITCH;
    }
}

// Rows start at multiples of the width, so the width decides how many halves can be copied at once.
template <typename S>
__device__ __forceinline__ void fill(__half* stage, const Walk<S>& walk, const AffinityProblem& problem) {
    if (problem.width % 8 == 0)
        fill_by<S, 8>(stage, walk, problem);
    else if (problem.width % 2 == 0)
        fill_by<S, 2>(stage, walk, problem);
    else
        fill_by<S, 1>(stage, walk, problem);
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
    int y, x;                                 // of the block
    int lane;

    __device__ __forceinline__ int query_y(int half) const { return y + (lane / 4 + 8 * half) / S::BLOCK_X; }
    __device__ __forceinline__ int query_x(int half) const { return x + (lane / 4 + 8 * half) % S::BLOCK_X; }

    __device__ __forceinline__ void load(const __half* __restrict__ query, int height, int width) {
        const size_t plane = size_t(height) * width;
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            const int at_y = query_y(r % 2), at_x = query_x(r % 2);
            const bool inside = at_y < height && at_x < width;
            const __half* pixel = query + (inside ? size_t(at_y) * width + at_x : 0);
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
    __device__ __forceinline__ unsigned pairs_in_x(int first_key, int step, int width) const {
        unsigned pairs = 0;
#pragma unroll
        for (int tile = 0; tile < S::KEY_TILES; ++tile) {
#pragma unroll
            for (int element = 0; element < 4; ++element) {
                const int key_x = first_key + KEYS * tile + 2 * (lane % 4) + element % 2;
                const int distance = key_x - query_x(element / 2);
                const int reach = S::DILATED ? S::RADIUS * step : S::RADIUS;
                const bool valid =
                    abs(distance) <= reach && (!S::DILATED || distance % step == 0) && key_x >= 0 && key_x < width;
                pairs |= unsigned(valid) << (4 * tile + element);
            }
        }
        return pairs;
    }

    // The bits of the queries whose window (of step 1) contains a key row.
    __device__ __forceinline__ unsigned pairs_in_y(int key_y) const {
        unsigned pairs = 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (abs(key_y - query_y(half)) <= S::RADIUS) pairs |= 0x33333333u << (2 * half);
        }
        return pairs;
    }
};

// One number for each query and key of the rows computed together: inner products, then weights.
template <typename S>
using Pairs = Accumulator[S::ROWS_AT_ONCE][S::KEY_TILES];

// Inner products of the queries with the keys of these rows; -inf for masked pairs.
template <typename S>
__device__ __forceinline__ void multiply_keys(Pairs<S>& pairs, const Queries<S>& queries, const __half* keys,
                                              const unsigned (&valid_pairs)[S::ROWS_AT_ONCE]) {
    const __half* channel = keys + queries.lane * S::PITCH;  // ldmatrix: the lane names a channel
#pragma unroll
    for (int row = 0; row < S::ROWS_AT_ONCE; ++row)
#pragma unroll
        for (int tile = 0; tile < S::KEY_TILES; ++tile)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                pairs[row][tile].v[i] = valid_pairs[row] >> (4 * tile + i) & 1 ? 0.f : -INFINITY;
#pragma unroll
    for (int c = 0; c < S::CHANNELS; c += 32) {
#pragma unroll
        for (int row = 0; row < S::ROWS_AT_ONCE; ++row) {
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
    for (int row = 0; row < S::ROWS_AT_ONCE; ++row)
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
    for (int row = 0; row < S::ROWS_AT_ONCE; ++row)
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

// Divides by the sum of weights, which the row of ones has accumulated, and writes the result.
template <typename S>
__device__ __forceinline__ void write_out(const Queries<S>& queries, const AffinityProblem& problem, int batch) {
    const size_t plane = size_t(problem.height) * problem.width;
    __half* out = static_cast<__half*>(problem.out) + size_t(batch) * problem.labels * plane;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        float sum = 0.f;
#pragma unroll
        for (int tile = 0; tile < S::LABEL_TILES; ++tile) {
            const float* pair = queries.labels[tile].v + 2 * half;
            if (tile == problem.labels / 8) sum = problem.labels % 2 == 0 ? pair[0] : pair[1];
        }
        const int owner = (queries.lane & ~3) | (problem.labels % 8 / 2);
        sum = __shfl_sync(0xffffffffu, sum, owner);
        const float inverse = sum > 0.f ? 1.f / sum : 0.f;
        const int y = queries.query_y(half), x = queries.query_x(half);
        if (y >= problem.height || x >= problem.width) continue;
#pragma unroll
        for (int tile = 0; tile < S::LABEL_TILES; ++tile) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                const int label = 8 * tile + 2 * (queries.lane % 4) + i;
                if (label >= problem.labels) continue;
                out[label * plane + size_t(y) * problem.width + x] =
                    __float2half_rn(queries.labels[tile].v[2 * half + i] * inverse);
            }
        }
    }
}

// Adds some key rows of a stage. `keys` points to the warp's first key column.
template <typename S>
__device__ __forceinline__ void add_key_rows(Queries<S>& queries, const __half* keys,
                                             const unsigned (&valid_pairs)[S::ROWS_AT_ONCE], float scale) {
    Pairs<S> pairs;
    multiply_keys<S>(pairs, queries, keys, valid_pairs);
    update_softmax<S>(pairs, queries, scale);
#pragma unroll
    for (int row = 0; row < S::ROWS_AT_ONCE; ++row)
        multiply_labels<S>(queries, pairs[row], keys + (row * S::MAP_ROWS + S::CHANNELS) * S::PITCH);
}

// Adds a stage of step 1.
template <typename S>
__device__ __forceinline__ void add_dense_stage(Queries<S>& queries, const __half* keys, const Walk<S>& current,
                                                unsigned pairs_in_x, float scale) {
    const bool near =
        current.row + S::STAGE_ROWS > queries.y - S::RADIUS && current.row < queries.y + S::BLOCK_Y + S::RADIUS;
    if (!near) return;
    unsigned valid_pairs[S::ROWS_AT_ONCE];
#pragma unroll
    for (int i = 0; i < S::ROWS_AT_ONCE; ++i)
        valid_pairs[i] = current.row + i < current.row_end() ? pairs_in_x & queries.pairs_in_y(current.row + i) : 0;
    add_key_rows<S>(queries, keys, valid_pairs, scale);
}

// Adds a stage of a wider step: the rows whose distance from the queries' row is a multiple of the step. `row` is the
// first of them, relative to the stage; it is updated for the next stage.
template <typename S>
__device__ __forceinline__ void add_dilated_stage(Queries<S>& queries, const __half* keys, const Walk<S>& current,
                                                  int& row, unsigned pairs_in_x, float scale) {
    const int above = current.row - queries.y, rows = current.stage_rows();
#pragma unroll 1
    for (; row < rows; row += current.step)
        if (abs(above + row) <= current.reach() && current.row + row < current.row_end())
            add_key_rows<S>(queries, keys + row * S::MAP_ROWS * S::PITCH, {pairs_in_x}, scale);
    row -= rows;
}

// Adds all slots of the shape, from the walk's first stage on.
template <typename S>
__device__ __forceinline__ void add_slots(Queries<S>& queries, Walk<S>& next, __half* stages,
                                          const AffinityProblem& problem) {
    const float scale = problem.scale * LOG2_E;
    const bool idle = queries.x >= problem.width || queries.y >= problem.height;
    fill_constant_rows<S>(stages, problem.labels);
    fill(stages, next, problem);
    close_copies();
    int offset = 0;  // of the warp's first key column within the stage
    int row = 0;     // first row of the stage that the warp needs, for wider steps
    unsigned pairs_in_x = 0;
    bool more = true;
    for (int buffer = 0; more; buffer ^= 1) {
        const Walk<S> current = next;
        more = next.advance();
        if (more) fill(stages + (buffer ^ 1) * S::STAGE_HALVES, next, problem);
        close_copies();
        await_copies<1>();
        __syncthreads();  // the stage is complete

        if (current.fresh) {
            offset = current.first_column(queries.x) - current.first_column(current.tile_x);
            pairs_in_x = queries.pairs_in_x(current.left + offset, current.step, problem.width);
            if (S::DILATED) {
                const int residue = (queries.y - current.row) % current.step;
                row = residue < 0 ? residue + current.step : residue;
            }
        }
        const __half* keys = stages + buffer * S::STAGE_HALVES + offset;
        if (!idle) {
            if constexpr (S::DILATED)
                add_dilated_stage<S>(queries, keys, current, row, pairs_in_x, scale);
            else
                add_dense_stage<S>(queries, keys, current, pairs_in_x, scale);
        }
        __syncthreads();  // the stage may be filled again
    }
    await_copies<0>();
}

// Assigns queries to the warp by the shape, and loads them.
template <typename S>
__device__ __forceinline__ Queries<S> assign_queries(const Walk<S>& walk, const AffinityProblem& problem) {
    const int warp = threadIdx.x / WARP;
    Queries<S> queries;
    queries.lane = threadIdx.x % WARP;
    queries.y = walk.tile_y + warp / S::WARPS_X * S::BLOCK_Y;
    queries.x = walk.tile_x + warp % S::WARPS_X * S::BLOCK_X;
    queries.load(
        static_cast<const __half*>(problem.query) + size_t(walk.batch) * S::CHANNELS * problem.height * problem.width,
        problem.height, problem.width);
    return queries;
}

// Writes the queries' softmax state to shared memory or reads it from there, by their place in the CTA's tile.
template <typename S, bool WRITE>
__device__ __forceinline__ void move_states(float* states, Queries<S>& queries, int tile_y, int tile_x) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int place = (queries.query_y(half) - tile_y) * S::TILE_X + queries.query_x(half) - tile_x;
        float* state = states + place * S::STATE_FLOATS;
#pragma unroll
        for (int tile = 0; tile < S::LABEL_TILES; ++tile) {
#pragma unroll
            for (int i = 0; i < 2; ++i) {
                float& sum = queries.labels[tile].v[2 * half + i];
                float& moved = state[8 * tile + 2 * (queries.lane % 4) + i];
                if (WRITE)
                    moved = sum;
                else
                    sum = moved;
            }
        }
        if (!WRITE)
            queries.largest[half] = state[S::LABEL_ROWS];
        else if (queries.lane % 4 == 0)
            state[S::LABEL_ROWS] = queries.largest[half];
    }
}

// CTAs per SM: as many as registers allow without spilling. On sm_100 two would spill, and a frame has only about one
// CTA per SM.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000 && __CUDA_ARCH__ < 1100
template <typename S>
constexpr int CTAS_OF_SM = 1;
#else
template <typename S>
constexpr int CTAS_OF_SM = S::LABEL_TILES > 2 && S::RADIUS > 6 ? 1 : 2;
#endif

// Grid: columns / TILE_X, rows / TILE_Y, batch.
template <typename S>
__global__ void __launch_bounds__(S::THREADS, CTAS_OF_SM<S>) affinity(const AffinityProblem problem) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800  // older GPUs get an empty kernel, which dispatch never launches
    using Wide = Shape<S::RADIUS, S::CHANNELS, S::LABEL_TILES, true>;
    static_assert(Wide::TILE_X == S::TILE_X && Wide::TILE_Y == S::TILE_Y && Wide::THREADS == S::THREADS);
    __half* stages = reinterpret_cast<__half*>(dynamic_shared());
    float* states = reinterpret_cast<float*>(dynamic_shared());
    const int batch = blockIdx.z, tile_y = blockIdx.y * S::TILE_Y, tile_x = blockIdx.x * S::TILE_X;

    Walk<S> dense{problem, batch, tile_y, tile_x};
    const bool any_dense = dense.next_slot();
    if (any_dense) {
        Queries<S> queries = assign_queries(dense, problem);
        add_slots(queries, dense, stages, problem);
        if (!Walk<Wide>{problem, batch, tile_y, tile_x}.next_slot()) {
            write_out(queries, problem, batch);
            return;
        }
        move_states<S, true>(states, queries, tile_y, tile_x);
        __syncthreads();  // all states are written
    }
    // Created only here, to save registers during the first walk.
    Walk<Wide> wide{problem, batch, tile_y, tile_x};
    Queries<Wide> queries = assign_queries(wide, problem);
    if (any_dense) {
        move_states<Wide, false>(states, queries, tile_y, tile_x);
        __syncthreads();  // and read
    }
    if (wide.next_slot()) add_slots(queries, wide, stages, problem);
    write_out(queries, problem, batch);
#endif
}

}  // namespace maskring::mma
