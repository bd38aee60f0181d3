// The kernels of one instruction set. The including file defines:
//   KERNEL, KERNEL_NAME  the table entry and its name
//   LANES                floats in a vector
//   GROUP                query rows that share each load of a key
//   ACCUMULATORS         vector registers for sums; the others hold GROUP queries and one key
#include <cstddef>
#include <cstdint>

#include "problem.hpp"

namespace maskring {
namespace {

constexpr int MAX_ROWS = 64;  // of a rectangle
static_assert(BLOCK_WIDTH % LANES == 0);

#include "simd.inl"

#include "half.inl"

#include "dense_window.inl"

#include "per_query_offset.inl"

#include "top_k.inl"

}  // namespace

extern const Kernel KERNEL;
const Kernel KERNEL{KERNEL_NAME,        run_dense_window,      dense_window_scratch,
                    run_shared_offsets, run_per_query_offsets, per_query_offset_scratch,
                    run_top_k,          top_k_scratch};

}  // namespace maskring
