// Checks what TensorRT passes to the plugin: types, shapes and attributes of the node, and the device it runs on.
//
// Every check throws a UserError that names the input and the remedy.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>

#include "cuda/launch.hpp"

namespace maskring {

// An error that the user can fix. The message has the form "problem; remedy", without a final full stop.
struct UserError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// Attributes of the node.
struct AffinityAttributes {
    std::int32_t radius;
    float scale;
};

// Inputs of the node: query, keys, values, dilation, and optionally offsets.
inline constexpr std::int32_t INPUTS_WITHOUT_OFFSETS = 4;
inline constexpr std::int32_t INPUTS_WITH_OFFSETS = 5;

void check_counts(std::int32_t inputs, std::int32_t outputs);

// ---- types ------------------------------------------------------------------------------------------------------

const char* type_name(nvinfer1::DataType type);
bool is_float(nvinfer1::DataType type);

// Whether input `index` holds integers (dilation, offsets).
bool is_integer_input(std::int32_t index);

// `type_of(i)` returns the type of input i.
void check_types(std::int32_t count, const std::function<nvinfer1::DataType(std::int32_t)>& type_of);

// ---- shapes -----------------------------------------------------------------------------------------------------

enum Dimension { BATCH, SLOTS, CHANNELS, LABELS, HEIGHT, WIDTH, COORDINATES, DIMENSIONS };

inline constexpr std::int64_t UNKNOWN_SIZE = -1;  // a dynamic dimension at build time
using DimensionSizes = std::array<std::int64_t, DIMENSIONS>;

// The sizes that all inputs agree on. `rank_of(i)` returns the rank of input i, `size_of(i, axis)` its size along an
// axis, or any negative number if that is unknown.
DimensionSizes common_sizes(std::int32_t count, const std::function<std::int32_t(std::int32_t)>& rank_of,
                            const std::function<std::int64_t(std::int32_t, int)>& size_of);

// The kernels' problem of these sizes, without tensors. Unknown sizes become the smallest that the kernels support, so
// that the known ones can be checked.
AffinityProblem make_problem(AffinityAttributes attributes, const DimensionSizes& sizes, nvinfer1::DataType type,
                             bool offsets);

// Throws the kernels' own explanation if no kernel supports the problem on compute capability `sm`.
void check_supported(const AffinityProblem& problem, int sm);

// ---- the device -------------------------------------------------------------------------------------------------

// A compute capability that every kernel accepts, for builds on a machine without a GPU.
inline constexpr int ANY_SM = 1000;

// Compute capability of the current device (86 = 8.6).
int compute_capability();

// The same, or ANY_SM without a device.
int compute_capability_or_any();

// ---- attributes -------------------------------------------------------------------------------------------------

AffinityAttributes read_attributes(const nvinfer1::PluginFieldCollection* fields);

// The shortest decimal that reads back as `value`.
std::string decimal(float value);

// The library's version and a hash of its dispatch table and of who chooses the row. Timing caches store how fast the
// chosen kernel is, so they are valid only for a library with the same fingerprint.
std::string kernels_fingerprint();

}  // namespace maskring
