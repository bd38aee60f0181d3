// The roof of the tensor-core kernels: mma.sync on registers alone. gpu_day_pack.py links it into the library.
#include <cuda_runtime_api.h>

#include "tensor_core.cuh"

namespace {

using namespace maskring;

constexpr int THREADS = 256, CTAS_OF_A_PROCESSOR = 4;
constexpr int CHAINS = 8;  // of a warp, independent of each other

__global__ void __launch_bounds__(THREADS) multiply(float* out, int rounds) {
    constexpr unsigned ONES = 0x3c003c00;  // two halves
    const FragmentA a{{ONES, ONES, ONES, ONES}};
    const FragmentB b{{ONES, ONES}};
    Accumulator sums[CHAINS] = {};
    for (int round = 0; round < rounds; ++round) {
#pragma unroll
        for (int chain = 0; chain < CHAINS; ++chain) multiply_add(sums[chain], a, b);
    }
    float total = 0.f;
#pragma unroll
    for (int chain = 0; chain < CHAINS; ++chain) total += sums[chain].v[0];
    out[blockIdx.x * THREADS + threadIdx.x] = total;  // or the compiler would drop all of it
}

}  // namespace

// CTAs of a launch; `out` of maskring_roof_launch holds 256 floats of each. 0 if the GPU cannot be queried.
extern "C" int maskring_roof_ctas() {
    int device = 0, processors = 0;
    if (cudaGetDevice(&device) != cudaSuccess) return 0;
    if (cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) return 0;
    return CTAS_OF_A_PROCESSOR * processors;
}

// Floating-point operations of a launch.
extern "C" double maskring_roof_operations(int rounds) {
    return 2. * 16 * 8 * 16 * CHAINS * rounds * (THREADS / 32.) * maskring_roof_ctas();
}

extern "C" int maskring_roof_launch(float* out, int rounds, cudaStream_t stream) {
    multiply<<<maskring_roof_ctas(), THREADS, 0, stream>>>(out, rounds);
    return cudaGetLastError();
}
