// The operator between onnxruntime and the kernels: its attributes, its inputs, and how an error is told.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "abi.hpp"

namespace maskring::ort {

// An error as "problem; remedy".
struct OperatorError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct Attributes {
    int radius, top_k;
    float scale;
};

// Sizes and addresses of one call, with shapes as in reference.py.
struct Call {
    int batch, slots, channels, labels, height, width;
    const void *query, *keys, *values;
    const std::int32_t *dilation, *offsets;  // offsets may be null
    void* out;
};

// Raises what `status` says unless it is null.
void check(Table api, Status* status);

#ifdef MASKRING_WITH_CUDA
// Refuses attributes that no CUDA kernel supports.
void check_on_gpu(const Attributes& attributes);

// Starts the kernel on a CUDA stream; the addresses are those of the current GPU.
void compute_on_gpu(const Attributes& attributes, int element_type, const Call& call, void* stream);
#endif

}  // namespace maskring::ort
