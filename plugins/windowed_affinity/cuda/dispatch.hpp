// A row of the dispatch table: the problems a kernel supports and how to launch it.
#pragma once

#include "launch.hpp"
#include "shapes.hpp"

namespace maskring {

// Families of kernels. Each has one predicate in dispatch.cpp.
enum class Family { mma, simt, gather };

struct KernelConfiguration {
    const char* name;
    Family family;
    ElementType type;
    int radius;    // the largest on tensor cores, else the only one; 0 = any
    int channels;  // 0 = any
    int labels;    // the most
    Sizes sizes;
    int (*launch)(const AffinityProblem& problem, CUstream_st* stream);  // returns a cudaError_t
};

// Row `index` of the table.
const KernelConfiguration& configuration(int index) noexcept;

// Defined in mma.cu, simt.cu and gather.cu.
template <int MAX_RADIUS, int CHANNELS, int LABEL_TILES>
int launch_mma(const AffinityProblem& problem, CUstream_st* stream);
template <ElementType TYPE, int RADIUS>
int launch_simt(const AffinityProblem& problem, CUstream_st* stream);
template <ElementType TYPE>
int launch_gather(const AffinityProblem& problem, CUstream_st* stream);

}  // namespace maskring
