// Instantiates and launches the tensor-core kernel.
#include "affinity_mma.cuh"
#include "dispatch.hpp"

namespace maskring {

template <int RADIUS, int CHANNELS, int LABEL_TILES>
int launch_mma(const AffinityProblem& problem, CUstream_st* stream) {
    using Shape = mma::Shape<RADIUS, CHANNELS, LABEL_TILES>;
    const dim3 grid((problem.width + Shape::TILE_X - 1) / Shape::TILE_X,
                    (problem.height + Shape::TILE_Y - 1) / Shape::TILE_Y, problem.batch);
    AffinityProblem copy = problem;
    void* arguments[] = {&copy};
    return cudaLaunchKernel(mma::affinity<Shape>, grid, dim3(Shape::THREADS), arguments, Shape::shared_bytes(), stream);
}

template int launch_mma<6, 64, 1>(const AffinityProblem&, CUstream_st*);
template int launch_mma<6, 64, 2>(const AffinityProblem&, CUstream_st*);
template int launch_mma<6, 64, 5>(const AffinityProblem&, CUstream_st*);
template int launch_mma<12, 64, 1>(const AffinityProblem&, CUstream_st*);
template int launch_mma<12, 64, 2>(const AffinityProblem&, CUstream_st*);
template int launch_mma<12, 64, 5>(const AffinityProblem&, CUstream_st*);

}  // namespace maskring
