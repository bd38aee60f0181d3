// Instantiates and launches the tensor-core kernels.
#include "affinity_mma.cuh"
#include "combine.cuh"
#include "dispatch.hpp"

namespace maskring {
namespace mma {

constexpr int PIECES_OF_A_THREAD = 4;   // when a slot is rearranged
constexpr int CTAS_OF_A_PROCESSOR = 8;  // that a launch has at least, if there are slots enough

cudaError_t processors(int* count) {
    int device = 0;
    const cudaError_t error = cudaGetDevice(&device);
    return error != cudaSuccess ? error : cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

// Tiles of the step whose phases have most.
template <typename S>
int most_tiles(const AffinityProblem& p) {
    int most = 0;
    for (int step = 1; step <= MAX_STEP; ++step) {
        const int tiles = step * step * divide_up(divide_up(p.width, step), S::TILE_X) *
                          divide_up(phase_rows(p.height, step), S::TILE_Y);
        if (tiles > most) most = tiles;
    }
    return most;
}

// The most slots of a group, so that groups are few but all processors have work.
template <typename S>
int slots_at_once(const AffinityProblem& p, int processors) {
    const std::int64_t tiles = std::int64_t(divide_up(p.width, S::TILE_X)) * divide_up(p.height, S::TILE_Y);
    const std::int64_t slots = tiles * p.slots * p.batch / (std::int64_t(CTAS_OF_A_PROCESSOR) * processors);
    return slots < 1 ? 1 : slots > p.slots ? p.slots : int(slots);
}

template <typename... Arguments>
cudaError_t start(void (*kernel)(Arguments...), dim3 grid, int threads, int shared_bytes, CUstream_st* stream,
                  Arguments... arguments) {
    void* pointers[] = {&arguments...};
    return cudaLaunchKernel(kernel, grid, dim3(threads), pointers, shared_bytes, stream);
}

}  // namespace mma

template <int MAX_RADIUS, int CHANNELS, int LABEL_TILES>
int launch_mma(const AffinityProblem& problem, CUstream_st* stream) {
    using namespace mma;
    using S = Shape<MAX_RADIUS, CHANNELS, LABEL_TILES>;
    int count = 0;
    Workspace workspace = workspace_of(problem, S::LABEL_ROWS);
    cudaError_t error = processors(&count);
    if (error != cudaSuccess) return error;
    workspace.slots_at_once = slots_at_once<S>(problem, count);
    const auto slots = unsigned(problem.slots), batch = unsigned(problem.batch);
    const std::int64_t pixels = std::int64_t(problem.height) * problem.width;
    const std::int64_t pieces = workspace.slot_pixels * (problem.channels + problem.labels) / PIECE;
    const std::int64_t per_cta = ARRANGE_THREADS * PIECES_OF_A_THREAD;
    error = start(arrange, dim3(unsigned((pieces + per_cta - 1) / per_cta), slots, batch), ARRANGE_THREADS, 0, stream,
                  problem, workspace);
    if (error != cudaSuccess) return error;
    // Shared memory, not registers, limits how many CTAs an SM holds: the cache beside it may shrink.
    void (*const kernel)(AffinityProblem, Workspace) = affinity<S>;
    error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributePreferredSharedMemoryCarveout,
                                 cudaSharedmemCarveoutMaxShared);
    if (error != cudaSuccess) return error;
    error = start(kernel, dim3(unsigned(most_tiles<S>(problem)), slots, batch), S::THREADS, S::shared_bytes(), stream,
                  problem, workspace);
    if (error != cudaSuccess) return error;
    const dim3 grid(unsigned((pixels + COMBINE_THREADS - 1) / COMBINE_THREADS),
                    unsigned(divide_up(problem.labels, COMBINED_LABELS)), batch);
    return start(combine, grid, COMBINE_THREADS, 0, stream, problem, workspace);
}

template int launch_mma<4, 64, 1>(const AffinityProblem&, CUstream_st*);
template int launch_mma<4, 64, 2>(const AffinityProblem&, CUstream_st*);
template int launch_mma<4, 64, 5>(const AffinityProblem&, CUstream_st*);
template int launch_mma<8, 64, 1>(const AffinityProblem&, CUstream_st*);
template int launch_mma<8, 64, 2>(const AffinityProblem&, CUstream_st*);
template int launch_mma<8, 64, 5>(const AffinityProblem&, CUstream_st*);
template int launch_mma<12, 64, 1>(const AffinityProblem&, CUstream_st*);
template int launch_mma<12, 64, 2>(const AffinityProblem&, CUstream_st*);
template int launch_mma<12, 64, 5>(const AffinityProblem&, CUstream_st*);
template int launch_mma<16, 64, 1>(const AffinityProblem&, CUstream_st*);
template int launch_mma<16, 64, 2>(const AffinityProblem&, CUstream_st*);
template int launch_mma<16, 64, 5>(const AffinityProblem&, CUstream_st*);

}  // namespace maskring
