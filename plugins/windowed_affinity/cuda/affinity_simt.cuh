// Windowed memory affinity on CUDA cores, float32 or float16 in memory, float32 inside.
//
// A CTA computes 8 x 32 queries. The key rows of their windows stream through shared memory, each read once per slot.
// A lane is a column. A thread holds 4 query rows, so each shared load of a key serves 4 multiply-adds, and 7 window
// steps at a time, so each load of a query serves 7. Two warps share the query rows and compute different steps, which
// doubles the number of warps (a 120 x 120 frame has few). Each has its own softmax; they are merged at the end. Sums
// of weighted labels are in shared memory, because they are used once per key row and would not fit into registers.
#pragma once

#include "device.cuh"
#include "shapes.hpp"

namespace maskring::simt {

// The part of a key row in shared memory, and the window steps that it serves.
struct Stage {
    int step;     // between window positions
    int first;    // window step of the leftmost column
    int steps;    // window steps served from there on
    int left;     // frame column of the leftmost staged column
    int columns;  // staged

    // Column that lane 0 of the tile reads for step first + i. Steps that are not served read the last one.
    template <bool UNIT>
    __device__ __forceinline__ int column(int i) const {
        return UNIT ? i : min(i, steps - 1) * step;
    }
};

// Loads channels [0, count) of one row of a map, from column stage.left on, with zeros outside the frame.
template <typename T>
__device__ void load_stage(float* shared, const T* __restrict__ row, int count, const Stage& stage,
                           const AffinityProblem& problem) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const size_t plane = size_t(problem.height) * problem.width;
    for (int c = warp; c < count; c += THREADS / WARP) {
        for (int column = lane; column < stage.columns; column += WARP) {
            const int x = stage.left + column;
            const bool inside = x >= 0 && x < problem.width;
            shared[c * stage.columns + column] = inside ? to_float(row[c * plane + x]) : 0.f;
        }
    }
}

// The state of one warp: inner products with the current key row, later their weights; the softmax of each query row.
template <int BLOCKS>
struct Warp {
    float dot[BLOCKS][ROWS][STEPS];
    RunningSoftmax softmax[ROWS];
    float rescale[ROWS];
    bool active[ROWS];  // whether the key row is in the window of the query row
    int step_group, row_group, lane;

    // Index of a sum among the steps of a stage.
    __device__ __forceinline__ int step_index(int block, int i) const {
        return (block * STEP_GROUPS + step_group) * STEPS + i;
    }
};

template <typename T, int BLOCKS, bool UNIT>
__device__ __forceinline__ void add_products(Warp<BLOCKS>& warp, const T* __restrict__ const (&query)[ROWS],
                                             const float* shared, int channels, const Stage& stage, size_t plane) {
    const T* pixel[ROWS];
#pragma unroll
    for (int row = 0; row < ROWS; ++row) pixel[row] = query[row];
#pragma unroll 4
    for (int c = 0; c < channels; ++c) {
        float q[ROWS];
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
            q[row] = to_float(*pixel[row]);
            pixel[row] += plane;
        }
        const float* keys = shared + c * stage.columns + warp.lane;
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
#pragma unroll
            for (int i = 0; i < STEPS; ++i) {
                const float key = keys[stage.column<UNIT>(warp.step_index(block, i))];
#pragma unroll
                for (int row = 0; row < ROWS; ++row) warp.dot[block][row][i] += q[row] * key;
            }
        }
    }
}

// Online softmax: turns inner products into weights and updates the softmax of each row.
template <int BLOCKS>
__device__ __forceinline__ void update_softmax(Warp<BLOCKS>& warp, const Stage& stage, int x, int radius, int width,
                                               float scale) {
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
        warp.rescale[row] = 1.f;
        if (!warp.active[row]) continue;
        float largest = -INFINITY;
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
#pragma unroll
            for (int i = 0; i < STEPS; ++i) {
                const int index = warp.step_index(block, i);
                const int step = stage.first + index - radius;
                const int key_x = x + step * stage.step;
                const bool valid = index < stage.steps && step <= radius && key_x >= 0 && key_x < width;
                float& logit = warp.dot[block][row][i];
                logit = valid ? logit * scale : -INFINITY;
                largest = fmaxf(largest, logit);
            }
        }
        warp.rescale[row] = warp.softmax[row].raise_to(largest);
        const float reference = fmaxf(warp.softmax[row].largest, -1e38f);  // -inf - -inf would be NaN
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
#pragma unroll
            for (int i = 0; i < STEPS; ++i) {
                float& weight = warp.dot[block][row][i];
                weight = exp2_approx(weight - reference);
                warp.softmax[row].sum += weight;
            }
        }
    }
}

template <int BLOCKS, bool UNIT>
__device__ __forceinline__ void add_labels(const Warp<BLOCKS>& warp, float* sums, const float* shared, int labels,
                                           const Stage& stage) {
    for (int label = 0; label < labels; ++label) {
        float total[ROWS] = {};
#pragma unroll
        for (int block = 0; block < BLOCKS; ++block) {
#pragma unroll
            for (int i = 0; i < STEPS; ++i) {
                const int column = stage.column<UNIT>(warp.step_index(block, i));
                const float value = shared[label * stage.columns + warp.lane + column];
#pragma unroll
                for (int row = 0; row < ROWS; ++row) total[row] += warp.dot[block][row][i] * value;
            }
        }
#pragma unroll
        for (int row = 0; row < ROWS; ++row) {
            if (!warp.active[row]) continue;  // its weights were not computed
            float& sum = sums[(label * TILE_Y + warp.row_group * ROWS + row) * TILE_X + warp.lane];
            sum = sum * warp.rescale[row] + total[row];
        }
    }
}

// Merges the warps that took different steps of the same queries, and writes the result.
template <typename T, int BLOCKS>
__device__ void write_out(const Warp<BLOCKS>& warp, const float* sums, float* shared, T* __restrict__ out, int labels,
                          int y, int x, const AffinityProblem& problem) {
    __syncthreads();  // the stage is free
#pragma unroll
    for (int row = 0; row < ROWS; ++row) {
        float* state = shared + 2 * ((warp.step_group * TILE_Y + warp.row_group * ROWS + row) * TILE_X + warp.lane);
        state[0] = warp.softmax[row].largest;
        state[1] = warp.softmax[row].sum;
    }
    __syncthreads();
    for (int row = warp.step_group; row < ROWS; row += STEP_GROUPS) {
        const int local = warp.row_group * ROWS + row;
        if (y + row >= problem.height || x >= problem.width) continue;
        float largest = -1e38f, sum = 0.f, factor[STEP_GROUPS];
        for (int group = 0; group < STEP_GROUPS; ++group)
            largest = fmaxf(largest, shared[2 * ((group * TILE_Y + local) * TILE_X + warp.lane)]);
#pragma unroll
        for (int group = 0; group < STEP_GROUPS; ++group) {
            const float* state = shared + 2 * ((group * TILE_Y + local) * TILE_X + warp.lane);
            factor[group] = exp2_approx(state[0] - largest);
            sum += factor[group] * state[1];
        }
        const float inverse = sum > 0.f ? 1.f / sum : 0.f;
        for (int label = 0; label < labels; ++label) {
            float total = 0.f;
#pragma unroll
            for (int group = 0; group < STEP_GROUPS; ++group)
                total += factor[group] * sums[((group * MAX_LABELS + label) * TILE_Y + local) * TILE_X + warp.lane];
            out[(size_t(label) * problem.height + y + row) * problem.width + x] = from_float<T>(total * inverse);
        }
    }
}

// Adds one key row of one slot: as many channels at a time as the stage holds, then the labels.
template <typename T, int BLOCKS, bool UNIT>
__device__ __forceinline__ void read_row(Warp<BLOCKS>& warp, float* sums, float* shared, const Stage& stage,
                                         const T* __restrict__ const (&query)[ROWS], const T* __restrict__ keys,
                                         const T* __restrict__ values, int labels, int x, int radius,
                                         const AffinityProblem& problem) {
    const size_t plane = size_t(problem.height) * problem.width;
    const bool any = warp.active[0] || warp.active[1] || warp.active[2] || warp.active[3];
#pragma unroll
    for (int block = 0; block < BLOCKS; ++block)
#pragma unroll
        for (int row = 0; row < ROWS; ++row)
#pragma unroll
            for (int i = 0; i < STEPS; ++i) warp.dot[block][row][i] = 0.f;

    const int at_once = STAGE_FLOATS / stage.columns / 8 * 8;
    for (int c = 0; c < problem.channels; c += at_once) {
        const int count = min(at_once, problem.channels - c);
        __syncthreads();  // the stage may still be read
        load_stage(shared, keys + c * plane, count, stage, problem);
        __syncthreads();
        if (!any) continue;
        const T* part[ROWS];
#pragma unroll
        for (int row = 0; row < ROWS; ++row) part[row] = query[row] + c * plane;
        add_products<T, BLOCKS, UNIT>(warp, part, shared, count, stage, plane);
    }
    if (any) update_softmax(warp, stage, x, radius, problem.width, problem.scale * LOG2_E);
    __syncthreads();
    load_stage(shared, values, labels, stage, problem);
    __syncthreads();
    if (any) add_labels<BLOCKS, UNIT>(warp, sums, shared, labels, stage);
}

// RADIUS is the problem's radius, or 0 for any radius; those above 13 take two passes over each key row.
// Grid: columns / 32, rows / 8, batch * label groups.
template <typename T, int RADIUS>
__global__ void __launch_bounds__(THREADS, 2) affinity(const AffinityProblem problem, int label_groups) {
    constexpr int BLOCKS = simt::BLOCKS<(RADIUS > 0 ? RADIUS : WIDEST)>;
    constexpr int WINDOW_STEPS = BLOCKS * STEP_GROUPS * STEPS;  // of one pass
    static_assert(TILE_X + WINDOW_STEPS - 1 <= MAX_COLUMNS);
    static_assert(2 * STEP_GROUPS * TILE_Y * TILE_X <= STAGE_FLOATS);
    const int radius = RADIUS > 0 ? RADIUS : problem.radius;
    const int height = problem.height, width = problem.width;
    const size_t plane = size_t(height) * width;
    const int batch = blockIdx.z / label_groups, group = blockIdx.z % label_groups;
    const int first_label = problem.labels * group / label_groups;
    const int labels = problem.labels * (group + 1) / label_groups - first_label;

    float* shared = reinterpret_cast<float*>(dynamic_shared());
    Warp<BLOCKS> warp;
    warp.lane = threadIdx.x % WARP;
    warp.step_group = threadIdx.x / WARP % STEP_GROUPS;
    warp.row_group = threadIdx.x / WARP / STEP_GROUPS;
    float* sums = shared + STAGE_FLOATS + warp.step_group * MAX_LABELS * TILE_Y * TILE_X;
    for (int label = 0; label < labels; ++label)
        for (int row = 0; row < ROWS; ++row)
            sums[(label * TILE_Y + warp.row_group * ROWS + row) * TILE_X + warp.lane] = 0.f;

    const int tile_y = blockIdx.y * TILE_Y, tile_x = blockIdx.x * TILE_X;
    const int y = tile_y + warp.row_group * ROWS, x = tile_x + warp.lane;
    const T* __restrict__ query[ROWS];
#pragma unroll
    for (int row = 0; row < ROWS; ++row)
        query[row] = static_cast<const T*>(problem.query) + batch * problem.channels * plane +
                     size_t(min(y + row, height - 1)) * width + min(x, width - 1);

    for (int slot = 0; slot < problem.slots; ++slot) {
        const int step = step_of_slot(problem, batch, slot);
        if (step == 0) continue;
        const size_t map = size_t(batch) * problem.slots + slot;
        const T* keys = static_cast<const T*>(problem.keys) + map * problem.channels * plane;
        const T* values = static_cast<const T*>(problem.values) + (map * problem.labels + first_label) * plane;
        // With narrow steps, neighbouring query rows share key rows; with wide ones, each visits its own.
        const bool narrow = step <= TILE_Y;
        const int key_rows = narrow ? TILE_Y + 2 * radius * step : TILE_Y * (2 * radius + 1);
        const int steps = min(WINDOW_STEPS, (MAX_COLUMNS - TILE_X) / step + 1);
        for (int i = 0; i < key_rows; ++i) {
            const int key_y = tile_y + (narrow ? i - radius * step : i % TILE_Y + (i / TILE_Y - radius) * step);
            if (key_y < 0 || key_y >= height) continue;
#pragma unroll
            for (int row = 0; row < ROWS; ++row) {
                const int distance = key_y - y - row;
                warp.active[row] = y + row < height && distance % step == 0 && abs(distance) <= radius * step &&
                                   (narrow || (y + row - tile_y) == i % TILE_Y);
            }
            for (int first = 0; first <= 2 * radius; first += steps) {
                const Stage stage{step, first, steps, tile_x + (first - radius) * step, TILE_X + (steps - 1) * step};
                if (step == 1)
                    read_row<T, BLOCKS, true>(warp, sums, shared, stage, query, keys + key_y * width,
                                              values + key_y * width, labels, x, radius, problem);
                else
                    read_row<T, BLOCKS, false>(warp, sums, shared, stage, query, keys + key_y * width,
                                               values + key_y * width, labels, x, radius, problem);
            }
        }
    }
    T* out = static_cast<T*>(problem.out) + (size_t(batch) * problem.labels + first_label) * plane;
    write_out(warp, shared + STAGE_FLOATS, shared, out, labels, y, x, problem);
}

}  // namespace maskring::simt
