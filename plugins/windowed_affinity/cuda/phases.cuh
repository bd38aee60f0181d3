// Rearranges slots of the memory into phases, frames in which the window's step is 1 (workspace.hpp).
#pragma once

#include "device.cuh"
#include "workspace.hpp"

namespace maskring::mma {

constexpr float NO_LOGIT = -1e30f;  // initial maximum; -inf would give NaN as -inf - -inf
constexpr int ARRANGE_THREADS = 256;
constexpr int PIECE = 8;            // neighbouring pixels that are copied together
constexpr int COMBINED_LABELS = 8;  // of a thread that adds up labels without tensor cores

// Tiles of a step's phases.
struct Tiles {
    int in_x, per_phase;

    __device__ __forceinline__ Tiles(const AffinityProblem& problem, int tile_x, int tile_y, int step)
        : in_x(divide_up(divide_up(problem.width, step), tile_x)),
          per_phase(in_x * divide_up(phase_rows(problem.height, step), tile_y)) {}
};

// One phase of the slots with a step: pixels y + i * step, x + j * step of the frame.
struct Phase {
    int batch, step, index;
    int y, x;
    int height, width, pitch;
    unsigned plane;

    __device__ __forceinline__ Phase(const AffinityProblem& problem, int batch, int step, int index)
        : batch(batch),
          step(step),
          index(index),
          y(index / step),
          x(index % step),
          height(divide_up(problem.height - y, step)),
          width(divide_up(problem.width - x, step)),
          pitch(phase_pitch(problem.width, step)),
          plane(phase_rows(problem.height, step) * pitch) {}

    __device__ __forceinline__ bool contains(int row, int column) const { return row < height && column < width; }

    // Index of a pixel in the frame.
    __device__ __forceinline__ size_t pixel(const AffinityProblem& problem, int row, int column) const {
        return size_t(y + row * step) * problem.width + x + column * step;
    }

    // The phase's keys and labels in a slot.
    __device__ __forceinline__ void maps_of(const AffinityProblem& problem, const Workspace& workspace, int slot,
                                            const __half*& keys, const __half*& values) const {
        const size_t map = size_t(batch) * problem.slots + slot, maps = problem.channels + problem.labels;
        if (is_direct(problem.width, step)) {
            keys = static_cast<const __half*>(problem.keys) + map * problem.channels * plane;
            values = static_cast<const __half*>(problem.values) + map * problem.labels * plane;
        } else {
            keys = static_cast<const __half*>(workspace.phases) +
                   (map * workspace.slot_pixels + size_t(index) * plane) * maps;
            values = keys + size_t(problem.channels) * plane;
        }
    }
};

// The slots of the group that begins at `slot`, one bit for each; 0 if none begins there. Up to slots_at_once slots with
// the same step are one group.
__device__ __forceinline__ unsigned group_of(const AffinityProblem& problem, const Workspace& workspace, int batch,
                                             int slot) {
    const int step = step_of_slot(problem, batch, slot);
    if (step == 0) return 0;
    if (step > MAX_STEP) return 1u << slot;
    int before = 0;
    for (int other = 0; other < slot; ++other) before += step_of_slot(problem, batch, other) == step;
    if (before % workspace.slots_at_once != 0) return 0;
    unsigned group = 0;
    int room = workspace.slots_at_once;
    for (int other = slot; other < problem.slots && room > 0; ++other) {
        if (step_of_slot(problem, batch, other) != step) continue;
        group |= 1u << other;
        --room;
    }
    return group;
}

// Copies some pieces of a slot to their phases. `thread` is one of `threads`.
__device__ __forceinline__ void arrange_slot(const AffinityProblem& problem, const Workspace& workspace, int batch,
                                             int slot, int step, unsigned thread, unsigned threads) {
    const size_t map = size_t(batch) * problem.slots + slot, plane = size_t(problem.height) * problem.width;
    const int maps = problem.channels + problem.labels;
    const __half* keys = static_cast<const __half*>(problem.keys) + map * problem.channels * plane;
    const __half* values = static_cast<const __half*>(problem.values) + map * problem.labels * plane;
    const unsigned pitch = phase_pitch(problem.width, step), pieces = pitch / PIECE;
    const size_t phase_plane = size_t(phase_rows(problem.height, step)) * pitch;
    const unsigned all = unsigned(maps) * problem.height * step * pieces;
#pragma unroll 1
    for (unsigned i = thread; i < all; i += threads) {
        const unsigned piece = i % pieces, phase_x = i / pieces % step, row = i / pieces / step;
        const unsigned y = row % problem.height, of = row / problem.height;  // row and map
        const __half* from =
            (int(of) < problem.channels ? keys + of * plane : values + (of - problem.channels) * plane) +
            size_t(y) * problem.width;
        __align__(16) __half copied[PIECE];
#pragma unroll
        for (int j = 0; j < PIECE; ++j) {
            const unsigned x = phase_x + (PIECE * piece + j) * step;
            copied[j] = int(x) < problem.width ? from[x] : __half(0.f);
        }
        const unsigned index = y % step * step + phase_x;
        __half* to = static_cast<__half*>(workspace.phases) +
                     (map * workspace.slot_pixels + index * phase_plane) * maps + of * phase_plane +
                     size_t(y / step) * pitch + PIECE * piece;
        *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(copied);
    }
}

// The partial result of one query in a slot whose step is wider than MAX_STEP, of COMBINED_LABELS labels.
__device__ __forceinline__ void read_window(const AffinityProblem& problem, const Workspace& workspace, int batch,
                                            int slot, int step, int pixel, int first_label) {
    const size_t map = size_t(batch) * problem.slots + slot, plane = size_t(problem.height) * problem.width;
    const __half* query = static_cast<const __half*>(problem.query) + size_t(batch) * problem.channels * plane + pixel;
    const __half* keys = static_cast<const __half*>(problem.keys) + map * problem.channels * plane;
    const __half* values = static_cast<const __half*>(problem.values) + map * problem.labels * plane;
    const int y = pixel / problem.width, x = pixel % problem.width, reach = problem.radius * step;
    const float scale = problem.scale * LOG2_E;
    float largest = NO_LOGIT, sums[COMBINED_LABELS] = {};
    for (int key_y = y - min(y / step * step, reach); key_y < min(problem.height, y + reach + 1); key_y += step) {
        for (int key_x = x - min(x / step * step, reach); key_x < min(problem.width, x + reach + 1); key_x += step) {
            const size_t at = size_t(key_y) * problem.width + key_x;
            float product = 0.f;
#pragma unroll 2
            for (int c = 0; c < problem.channels; ++c)
                product += to_float(query[c * plane]) * to_float(keys[c * plane + at]);
            const float rescale = product > largest ? exp2_approx((largest - product) * scale) : 1.f;
            largest = fmaxf(largest, product);
            const float weight = exp2_approx((product - largest) * scale);
#pragma unroll
            for (int i = 0; i < COMBINED_LABELS; ++i) {
                const int label = first_label + i;
                float value = label == problem.labels ? 1.f : 0.f;
                if (label < problem.labels) value = to_float(values[label * plane + at]);
                sums[i] = sums[i] * rescale + weight * value;
            }
        }
    }
    const size_t to = map * plane + pixel;
    if (first_label == 0) workspace.largest[to] = largest;
#pragma unroll
    for (int i = 0; i < COMBINED_LABELS; ++i) workspace.sums[to * workspace.label_rows + first_label + i] = sums[i];
}

// Prepares each slot that the main kernel cannot read where it is. Grid: any, slots, batch.
__global__ void __launch_bounds__(ARRANGE_THREADS, 2)
    arrange(const AffinityProblem problem, const Workspace workspace) {
    const int slot = blockIdx.y, batch = blockIdx.z, step = step_of_slot(problem, batch, slot);
    const unsigned thread = blockIdx.x * ARRANGE_THREADS + threadIdx.x, threads = gridDim.x * ARRANGE_THREADS;
    if (step == 0 || is_direct(problem.width, step)) return;
    if (step <= MAX_STEP) {
        arrange_slot(problem, workspace, batch, slot, step, thread, threads);
        return;
    }
    const unsigned plane = problem.height * problem.width;
    for (unsigned i = thread; i < plane * (workspace.label_rows / COMBINED_LABELS); i += threads)
        read_window(problem, workspace, batch, slot, step, int(i % plane), COMBINED_LABELS * int(i / plane));
}

}  // namespace maskring::mma
