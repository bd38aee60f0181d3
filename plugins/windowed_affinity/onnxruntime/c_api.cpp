// The C interface of the CUDA kernels, for programs that load them at run time (cuda_op.py). It is compiled into
// libmaskring_onnxruntime.so. Functions mean what those of launch.hpp of the same name do.
#include <cuda_runtime_api.h>

#include "cuda/launch.hpp"

#define MASKRING_EXPORT extern "C" __attribute__((visibility("default")))

using maskring::AffinityProblem;

// Size of an AffinityProblem, for callers that declare it in another language.
MASKRING_EXPORT int maskring_cuda_problem_bytes() { return int(sizeof(AffinityProblem)); }

// Version of the CUDA runtime inside, 13000 for 13.0. A driver must know the same major version or a newer one.
MASKRING_EXPORT int maskring_cuda_runtime() { return CUDART_VERSION; }

MASKRING_EXPORT int maskring_cuda_rows() { return maskring::configuration_count(); }

MASKRING_EXPORT const char* maskring_cuda_row_name(int row) { return maskring::configuration_name(row); }

MASKRING_EXPORT int maskring_cuda_can_run(int row, const AffinityProblem* problem, int sm, const char** reason) {
    return maskring::can_run(row, *problem, sm, reason);
}

MASKRING_EXPORT int maskring_cuda_choose(const AffinityProblem* problem, int sm, const char** reason) {
    return maskring::choose_configuration(*problem, sm, reason);
}

MASKRING_EXPORT std::int64_t maskring_cuda_workspace_bytes(int row, const AffinityProblem* problem) {
    return maskring::workspace_bytes(row, *problem);
}

MASKRING_EXPORT int maskring_cuda_launch(int row, const AffinityProblem* problem, void* stream) {
    return maskring::launch(row, *problem, static_cast<CUstream_st*>(stream));
}

MASKRING_EXPORT const char* maskring_cuda_error(int error) {
    return cudaGetErrorString(static_cast<cudaError_t>(error));
}
