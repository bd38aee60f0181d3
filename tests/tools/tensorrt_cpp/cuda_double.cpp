#include "cuda_double.hpp"

#include <cuda_runtime_api.h>

#include <cstdlib>

extern "C" {

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cuda_double::compute_capability == 0 ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const int sm = cuda_double::compute_capability;
    *value = attribute == cudaDevAttrMultiProcessorCount      ? 1
             : attribute == cudaDevAttrComputeCapabilityMajor ? sm / 10
                                                              : sm % 10;
    return cudaSuccess;
}

// Memory of the device is memory of the process, and streams run at once.
cudaError_t cudaMemPoolCreate(cudaMemPool_t*, const cudaMemPoolProps*) { return cudaSuccess; }
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }

cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t, cudaStream_t) {
    *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *memory == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t) {
    std::free(memory);
    return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorNoDevice ? "no device is there" : "something failed";
}

}  // extern "C"
