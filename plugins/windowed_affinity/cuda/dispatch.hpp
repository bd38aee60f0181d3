// One row of the dispatch table: what a kernel is for, and how it is started. Shared by dispatch.cpp and the .cu files.
#pragma once

#include "launch.hpp"
#include "shapes.hpp"

namespace maskring {

// Kernels by what they need of the problem; each has one predicate in dispatch.cpp.
enum class Family { mma, simt, gather };

struct KernelConfiguration {
    const char* name;
    Family family;
    ElementType type;
    int radius;    // 0 = any
    int channels;  // 0 = any
    int labels;    // the most
    Sizes sizes;
    int (*launch)(const AffinityProblem& problem, CUstream_st* stream);  // returns a cudaError_t
};

// Row `index` of the table.
const KernelConfiguration& configuration(int index) noexcept;

// Defined in mma.cu, simt.cu and gather.cu.
template <int RADIUS, int CHANNELS, int LABEL_TILES>
int launch_mma(const AffinityProblem& problem, CUstream_st* stream);
template <ElementType TYPE, int RADIUS>
int launch_simt(const AffinityProblem& problem, CUstream_st* stream);
template <ElementType TYPE>
int launch_gather(const AffinityProblem& problem, CUstream_st* stream);

}  // namespace maskring
