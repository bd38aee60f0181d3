// Instantiates and launches the CUDA-core kernel.
#include "affinity_simt.cuh"
#include "dispatch.hpp"

namespace maskring {

template <ElementType TYPE, int RADIUS>
int launch_simt(const AffinityProblem& problem, CUstream_st* stream) {
    int label_groups = (problem.labels + simt::MAX_LABELS - 1) / simt::MAX_LABELS;
    const dim3 grid((problem.width + simt::TILE_X - 1) / simt::TILE_X,
                    (problem.height + simt::TILE_Y - 1) / simt::TILE_Y, problem.batch * label_groups);
    AffinityProblem copy = problem;
    void* arguments[] = {&copy, &label_groups};
    return cudaLaunchKernel(simt::affinity<element_t<TYPE>, RADIUS>, grid, dim3(simt::THREADS), arguments,
                            simt::SHARED_BYTES, stream);
}

template int launch_simt<ElementType::float32, 6>(const AffinityProblem&, CUstream_st*);
template int launch_simt<ElementType::float32, 12>(const AffinityProblem&, CUstream_st*);
template int launch_simt<ElementType::float32, 0>(const AffinityProblem&, CUstream_st*);
template int launch_simt<ElementType::float16, 6>(const AffinityProblem&, CUstream_st*);
template int launch_simt<ElementType::float16, 12>(const AffinityProblem&, CUstream_st*);
template int launch_simt<ElementType::float16, 0>(const AffinityProblem&, CUstream_st*);

}  // namespace maskring
