// A device for the few questions that the plugin asks the CUDA runtime.
#pragma once

namespace cuda_double {

inline int compute_capability = 86;  // 0 = there is no device

}  // namespace cuda_double
