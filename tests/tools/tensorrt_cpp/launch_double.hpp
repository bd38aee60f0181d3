// Kernels that compute nothing, for tests of the plugin: a dispatch table whose every limit is known, and a record of
// what was launched.
#pragma once

#include <cstdint>
#include <optional>

#include "cuda/launch.hpp"

namespace launch_double {

// The table's rows.
enum Row { TENSOR_CORES = 0, ANY_F32 = 1, ANY_F16 = 2, NARROW_F32 = 3, ROWS = 4 };

constexpr int NARROW_WIDTH = 64;                 // NARROW_F32 takes frames up to this width
constexpr std::int64_t WORKSPACE_PER_PIXEL = 4;  // bytes, of TENSOR_CORES

struct Launch {
    int row;
    maskring::AffinityProblem problem;
    CUstream_st* stream;
};

inline thread_local std::optional<Launch> last_launch;
inline const char* names[ROWS] = {"tensor cores", "any f32", "any f16", "narrow f32"};
inline int launch_error = 0;  // what the next launches return

}  // namespace launch_double
