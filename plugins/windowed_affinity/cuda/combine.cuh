// Adds the partial results of all groups of slots and divides by the sum of weights.
#pragma once

#include "phases.cuh"

namespace maskring::mma {

constexpr int COMBINE_THREADS = 128;

// Grid: pixels / COMBINE_THREADS, labels / COMBINED_LABELS, batch.
__global__ void __launch_bounds__(COMBINE_THREADS) combine(const AffinityProblem problem, const Workspace workspace) {
    const size_t plane = size_t(problem.height) * problem.width;
    const size_t pixel = size_t(blockIdx.x) * COMBINE_THREADS + threadIdx.x;
    const int batch = blockIdx.z, first_label = COMBINED_LABELS * blockIdx.y;
    if (pixel >= plane) return;
    const size_t maps = size_t(batch) * problem.slots;
    unsigned groups = 0;
    float largest = NO_LOGIT;
    for (int slot = 0; slot < problem.slots; ++slot) {
        if (group_of(problem, workspace, batch, slot) == 0) continue;
        groups |= 1u << slot;
        largest = fmaxf(largest, workspace.largest[(maps + slot) * plane + pixel]);
    }
    float total = 0.f, sums[COMBINED_LABELS] = {};
    for (int slot = 0; slot < problem.slots; ++slot) {
        if (!(groups >> slot & 1)) continue;
        const size_t at = (maps + slot) * plane + pixel;
        const float factor = exp2_approx((workspace.largest[at] - largest) * (problem.scale * LOG2_E));
        const float* of_group = workspace.sums + at * workspace.label_rows;
        total += factor * of_group[problem.labels];
#pragma unroll
        for (int i = 0; i < COMBINED_LABELS; ++i) sums[i] += factor * of_group[first_label + i];
    }
    const float inverse = total > 0.f ? 1.f / total : 0.f;
    __half* out = static_cast<__half*>(problem.out) + (size_t(batch) * problem.labels + first_label) * plane + pixel;
#pragma unroll
    for (int i = 0; i < COMBINED_LABELS; ++i)
        if (first_label + i < problem.labels) out[i * plane] = __float2half_rn(sums[i] * inverse);
}

}  // namespace maskring::mma
