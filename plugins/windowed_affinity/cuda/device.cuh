// Small device functions that all kernels share. Everything that is not C++ is behind a function of this file or of
// tensor_core.cuh; tests/tools/cuda_on_cpu/fibers implements these functions in C++ (MASKRING_ON_CPU).
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "launch.hpp"
#include "shapes.hpp"

namespace maskring {

constexpr float LOG2_E = 1.4426950408889634f;

#ifdef MASKRING_ON_CPU
inline float exp2_approx(float x) { return std::exp2(x); }
inline unsigned char* dynamic_shared() { return cuda_on_cpu::dynamic_shared(); }
#else
// One MUFU.EX2: 2^x within 2 ulp, results below 2^-126 flushed to 0, -inf gives 0.
__device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ unsigned char* dynamic_shared() {
    extern __shared__ __align__(128) unsigned char maskring_shared[];
    return maskring_shared;
}
#endif

template <ElementType TYPE>
struct Element {
    using type = float;
};
template <>
struct Element<ElementType::float16> {
    using type = __half;
};
template <ElementType TYPE>
using element_t = typename Element<TYPE>::type;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

template <typename T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
    return __float2half_rn(x);
}

// State of an online softmax: the largest logit so far (in powers of two) and the sum of weights.
struct RunningSoftmax {
    float largest = -INFINITY;
    float sum = 0.f;

    // Includes a new logit; returns the factor for the weights so far.
    __device__ __forceinline__ float raise_to(float logit) {
        if (!(logit > largest)) return 1.f;
        const float factor = exp2_approx(largest - logit);
        largest = logit;
        sum *= factor;
        return factor;
    }
};

// A slot's step between window positions, 0 if it is empty. Clamped to the frame's size, from where on the window
// contains only its centre, so that products of steps fit into an int.
__device__ __forceinline__ int step_of_slot(const AffinityProblem& problem, int batch, int slot) {
    const int dilation = problem.dilation[batch * problem.slots + slot];
    return max(0, min(dilation, max(problem.height, problem.width)));
}

}  // namespace maskring
