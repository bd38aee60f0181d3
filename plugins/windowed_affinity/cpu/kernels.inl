// The kernels for one instruction set. The including file sets:
//   KERNEL        the name of its table entry
//   LANES         floats in a vector
//   GROUP         query rows that share a key row in registers
//   ACCUMULATORS  vector registers for sums; the rest holds GROUP queries and one key
#include <cstddef>
#include <cstdint>

#include "problem.hpp"

namespace maskring {
namespace {

constexpr int kMostRows = 64;  // of a rectangle
static_assert(kBlock % LANES == 0);

#include "simd.inl"

#include "half.inl"

#include "dense_window.inl"

#include "per_query_offset.inl"

#include "top_k.inl"

}  // namespace

extern const Kernel KERNEL;
const Kernel KERNEL{KERNEL_NAME, fused, fused_scratch, shifted, clustered, clustered_scratch, gathered, gathered_scratch};

}  // namespace maskring
