// Instantiates and launches the kernel with an offset per query.
#include "affinity_gather.cuh"
#include "dispatch.hpp"

namespace maskring {

template <ElementType TYPE>
int launch_gather(const AffinityProblem& problem, CUstream_st* stream) {
    const int pixels = problem.height * problem.width;
    const dim3 grid((pixels + WARP - 1) / WARP, 1, problem.batch);
    AffinityProblem copy = problem;
    void* arguments[] = {&copy};
    return cudaLaunchKernel(gather::affinity<element_t<TYPE>>, grid, dim3(gather::THREADS), arguments,
                            gather::SHARED_BYTES, stream);
}

template int launch_gather<ElementType::float32>(const AffinityProblem&, CUstream_st*);
template int launch_gather<ElementType::float16>(const AffinityProblem&, CUstream_st*);

}  // namespace maskring
