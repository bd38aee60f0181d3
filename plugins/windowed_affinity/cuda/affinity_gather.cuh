// Windowed memory affinity with an offset per query. Runs every problem, with or without offsets.
//
// Two queries need not have a key in common, so nothing is staged in shared memory. A lane is a query and reads its
// keys through the caches; smooth offsets keep the loads of a warp close together. The warps of a CTA take different
// rows of the same windows.
#pragma once

#include "device.cuh"
#include "shapes.hpp"

namespace maskring::gather {

template <typename T>
struct Pixel {
    const T* query;  // channels a plane apart
    RunningSoftmax softmax;
    float sums[MAX_LABELS];

    __device__ __forceinline__ void read(const T* __restrict__ key, const T* __restrict__ value, size_t plane,
                                         int channels, int labels, float scale) {
        float dot = 0.f;
#pragma unroll 4
        for (int c = 0; c < channels; ++c) dot += to_float(query[c * plane]) * to_float(key[c * plane]);
        const float logit = dot * scale;
        const float rescale = softmax.raise_to(logit);
        const float weight = exp2_approx(logit - softmax.largest);
        softmax.sum += weight;
#pragma unroll
        for (int label = 0; label < MAX_LABELS; ++label)
            if (label < labels) sums[label] = sums[label] * rescale + weight * to_float(value[label * plane]);
    }
};

// Merges the warps that took different rows of the windows, and writes the result.
template <typename T>
__device__ void write_out(const Pixel<T>& pixel, bool inside, T* __restrict__ out, size_t plane, int labels) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    float* shared = reinterpret_cast<float*>(dynamic_shared());
    float* states = shared + WARPS * MAX_LABELS * WARP;
    states[(2 * warp) * WARP + lane] = pixel.softmax.largest;
    states[(2 * warp + 1) * WARP + lane] = pixel.softmax.sum;
#pragma unroll
    for (int label = 0; label < MAX_LABELS; ++label)
        if (label < labels) shared[(warp * MAX_LABELS + label) * WARP + lane] = pixel.sums[label];
    __syncthreads();
    if (!inside) return;
    float largest = -1e38f, sum = 0.f, factor[WARPS];
#pragma unroll
    for (int i = 0; i < WARPS; ++i) largest = fmaxf(largest, states[(2 * i) * WARP + lane]);
#pragma unroll
    for (int i = 0; i < WARPS; ++i) {
        factor[i] = exp2_approx(states[(2 * i) * WARP + lane] - largest);
        sum += factor[i] * states[(2 * i + 1) * WARP + lane];
    }
    const float inverse = sum > 0.f ? 1.f / sum : 0.f;
    for (int label = warp; label < labels; label += WARPS) {
        float total = 0.f;
#pragma unroll
        for (int i = 0; i < WARPS; ++i) total += factor[i] * shared[(i * MAX_LABELS + label) * WARP + lane];
        out[label * plane] = from_float<T>(total * inverse);
    }
}

// Grid: pixels / 32, 1, batch.
template <typename T>
__global__ void __launch_bounds__(THREADS, 3) affinity(const AffinityProblem problem) {
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int height = problem.height, width = problem.width, radius = problem.radius, batch = blockIdx.z;
    const size_t plane = size_t(height) * width;
    const int index = blockIdx.x * WARP + lane;
    const bool inside = index < height * width;
    const int y = index / width, x = index % width;

    Pixel<T> pixel;
    pixel.query = static_cast<const T*>(problem.query) + batch * problem.channels * plane + index;
#pragma unroll
    for (int label = 0; label < MAX_LABELS; ++label) pixel.sums[label] = 0.f;
    for (int slot = 0; inside && slot < problem.slots; ++slot) {
        const size_t map = size_t(batch) * problem.slots + slot;
        // Not clamped: from a centre outside the frame, even a step longer than the frame may lead into it.
        const int step = problem.dilation[map];
        if (step <= 0) continue;
        const T* keys = static_cast<const T*>(problem.keys) + map * problem.channels * plane;
        const T* values = static_cast<const T*>(problem.values) + map * problem.labels * plane;
        // 64 bits, because offsets may be so large that a 32-bit sum would wrap back into the frame.
        long long centre_y = y, centre_x = x;
        if (problem.offsets != nullptr) {
            centre_y += problem.offsets[2 * map * plane + index];
            centre_x += problem.offsets[(2 * map + 1) * plane + index];
        }
        for (int i = warp; i <= 2 * radius; i += WARPS) {
            const long long key_y = centre_y + (long long)(i - radius) * step;
            if (key_y < 0 || key_y >= height) continue;
            for (int j = -radius; j <= radius; ++j) {
                const long long key_x = centre_x + (long long)j * step;
                if (key_x < 0 || key_x >= width) continue;
                const size_t at = size_t(key_y) * width + key_x;
                pixel.read(keys + at, values + at, plane, problem.channels, problem.labels, problem.scale * LOG2_E);
            }
        }
    }
    T* out = static_cast<T*>(problem.out) + size_t(batch) * problem.labels * plane + index;
    write_out(pixel, inside, out, plane, problem.labels);
}

}  // namespace maskring::gather
