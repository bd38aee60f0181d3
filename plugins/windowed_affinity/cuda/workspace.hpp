// Scratch memory of the tensor-core kernels, in plain C++ for the dispatch table and the benchmarks.
//
// With step d, a query and the keys of its window agree in y modulo d and in x modulo d. So a slot consists of d * d
// frames in which the step is 1, its phases. The workspace holds copies of them whose rows are padded to a multiple of 8
// pixels. Slots of step 1 need a copy only if their width is no such multiple. Slots with steps above MAX_STEP are not
// copied: their windows contain few pixels of a frame.
#pragma once

#include "launch.hpp"
#include "shapes.hpp"

#if defined(__CUDACC__)
#define MASKRING_HOST_DEVICE __host__ __device__
#else
#define MASKRING_HOST_DEVICE
#endif

namespace maskring::mma {

constexpr int MAX_STEP = 8;

MASKRING_HOST_DEVICE constexpr int divide_up(int x, int by) { return (x + by - 1) / by; }

// Rows of a phase, and pixels between two of them.
MASKRING_HOST_DEVICE constexpr int phase_rows(int height, int step) { return divide_up(height, step); }
MASKRING_HOST_DEVICE constexpr int phase_pitch(int width, int step) { return 8 * divide_up(divide_up(width, step), 8); }

// Whether a slot is read where it is.
MASKRING_HOST_DEVICE constexpr bool is_direct(int width, int step) { return step == 1 && width % 8 == 0; }

// Parts of the workspace. A group of slots with the same step shares one partial result.
struct Workspace {
    void* phases;    // [B, N], each slot_pixels of all maps: phase by phase, keys and labels of each
    float* sums;     // [B, N, H, W, label_rows], weighted labels and weights of the group that begins at a slot
    float* largest;  // [B, N, H, W], the largest inner product
    std::int64_t slot_pixels;  // of one map
    int label_rows;            // a multiple of 8
    int slots_at_once;         // the most slots of a group
};

// The most pixels that the phases of a slot take. Step 1 takes fewest. A larger frame never takes fewer pixels, so the
// workspace of a profile's largest shapes is enough for all.
inline std::int64_t most_pixels(const AffinityProblem& p) {
    std::int64_t most = 0;
    for (int step = 2; step <= MAX_STEP; ++step) {
        const std::int64_t pixels = std::int64_t(step) * step * phase_rows(p.height, step) * phase_pitch(p.width, step);
        if (pixels > most) most = pixels;
    }
    return most;
}

// Size of the phases of all slots, a multiple of 16.
inline std::int64_t phases_bytes(const AffinityProblem& p) {
    return 2 * std::int64_t(p.batch) * p.slots * most_pixels(p) * (p.channels + p.labels);
}

inline std::int64_t partials_bytes(const AffinityProblem& p, int label_rows) {
    return 4 * std::int64_t(p.batch) * p.slots * p.height * p.width * (label_rows + 1);
}

// The parts of the workspace at `p.workspace`; slots_at_once is left to the launcher.
inline Workspace workspace_of(const AffinityProblem& p, int label_rows) {
    Workspace w{};
    w.phases = p.workspace;
    w.sums = reinterpret_cast<float*>(static_cast<char*>(p.workspace) + phases_bytes(p));
    w.largest = w.sums + std::int64_t(p.batch) * p.slots * p.height * p.width * label_rows;
    w.slot_pixels = most_pixels(p);
    w.label_rows = label_rows;
    return w;
}

}  // namespace maskring::mma
