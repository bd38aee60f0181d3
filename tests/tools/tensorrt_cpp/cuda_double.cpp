#include "cuda_double.hpp"

#include <cuda_runtime_api.h>

extern "C" {

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cuda_double::compute_capability == 0 ? cudaErrorNoDevice : cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    const int sm = cuda_double::compute_capability;
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? sm / 10 : sm % 10;
    return cudaSuccess;
}

const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorNoDevice ? "no device is there" : "something failed";
}

}  // extern "C"
