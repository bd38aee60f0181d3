// The operator on CUDA's stream of onnxruntime: checks, and the launch of a kernel.
#include <cuda_runtime_api.h>

#include "cuda/dispatch.hpp"
#include "operator.hpp"

namespace maskring::ort {
namespace {

constexpr std::uintptr_t ALIGNMENT = 16;

[[noreturn]] void refuse(cudaError_t error, const char* what) {
    throw OperatorError(std::string(what) + " (" + cudaGetErrorString(error) +
                        "); look for an earlier CUDA error in this process, and check the GPU with nvidia-smi");
}

// Compute capability of the current GPU, 86 for 8.6.
int compute_capability() {
    int device = 0, major = 0, minor = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (error != cudaSuccess) refuse(error, "the GPU cannot be queried");
    return 10 * major + minor;
}

void check_alignment(const AffinityProblem& p) {
    const std::pair<const char*, const void*> tensors[] = {{"query", p.query},     {"keys", p.keys},
                                                           {"values", p.values},   {"dilation", p.dilation},
                                                           {"offsets", p.offsets}, {"the output", p.out}};
    for (const auto& [name, address] : tensors)
        if (reinterpret_cast<std::uintptr_t>(address) % ALIGNMENT != 0)
            throw OperatorError(std::string(name) +
                                " does not begin at a multiple of 16 bytes; bind an aligned address");
}

}  // namespace

void check_on_gpu(const Attributes& attributes) {
    if (attributes.top_k > 0)
        throw OperatorError("top_k is " + std::to_string(attributes.top_k) +
                            ", which CUDA kernels do not support; export with --top-k 0, or run on the CPU");
}

void compute_on_gpu(const Attributes& attributes, int element_type, const Call& call, void* stream) {
    AffinityProblem p{};
    p.type = element_type == FLOAT ? maskring::ElementType::float32 : maskring::ElementType::float16;
    p.batch = call.batch, p.slots = call.slots, p.channels = call.channels, p.labels = call.labels;
    p.height = call.height, p.width = call.width;
    p.radius = attributes.radius, p.scale = attributes.scale;
    p.query = call.query, p.keys = call.keys, p.values = call.values;
    p.dilation = call.dilation, p.offsets = call.offsets;
    p.out = call.out;
    check_alignment(p);
    const char* reason = nullptr;
    const int row = choose_configuration(p, compute_capability(), &reason);
    if (row < 0) throw OperatorError(reason);
    const auto error = static_cast<cudaError_t>(launch(row, p, static_cast<CUstream_st*>(stream)));
    if (error != cudaSuccess) refuse(error, (std::string("kernel ") + configuration_name(row) + " failed").c_str());
}

}  // namespace maskring::ort
