#include "tensorrt/problem_checks.hpp"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <limits>
#include <string_view>

namespace maskring {

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

namespace {

struct InputRule {
    const char* name;
    const char* shape;
    int rank;
    Dimension dimensions[5];
};

constexpr InputRule INPUTS[] = {
    {"query", "[B, C, H, W]", 4, {BATCH, CHANNELS, HEIGHT, WIDTH}},
    {"keys", "[B, N, C, H, W]", 5, {BATCH, SLOTS, CHANNELS, HEIGHT, WIDTH}},
    {"values", "[B, N, O, H, W]", 5, {BATCH, SLOTS, LABELS, HEIGHT, WIDTH}},
    {"dilation", "[B, N]", 2, {BATCH, SLOTS}},
    {"offsets", "[B, N, 2, H, W]", 5, {BATCH, SLOTS, COORDINATES, HEIGHT, WIDTH}},
};
constexpr std::int32_t FLOAT_INPUTS = 3;  // query, keys, values

}  // namespace

void check_counts(std::int32_t inputs, std::int32_t outputs) {
    if (inputs != INPUTS_WITHOUT_OFFSETS && inputs != INPUTS_WITH_OFFSETS)
        throw UserError("the node has " + std::to_string(inputs) +
                        " inputs; give it query, keys, values, dilation and optionally offsets");
    if (outputs != 1) throw UserError("the node has " + std::to_string(outputs) + " outputs; give it exactly one");
}

// ---- types ------------------------------------------------------------------------------------------------------

const char* type_name(DataType type) {
    switch (type) {
        case DataType::kFLOAT: return "float32";
        case DataType::kHALF: return "float16";
        case DataType::kINT32: return "int32";
        case DataType::kINT8: return "int8";
        case DataType::kINT64: return "int64";
        case DataType::kBOOL: return "bool";
        case DataType::kBF16: return "bfloat16";
        default: return "of another type";
    }
}

bool is_float(DataType type) { return type == DataType::kFLOAT || type == DataType::kHALF; }

bool is_integer_input(std::int32_t index) { return index >= FLOAT_INPUTS; }

void check_types(std::int32_t count, const std::function<DataType(std::int32_t)>& type_of) {
    for (std::int32_t i = 0; i < count; ++i) {
        const DataType type = type_of(i);
        const std::string problem = std::string(INPUTS[i].name) + " is " + type_name(type);
        if (is_integer_input(i)) {
            if (type != DataType::kINT32) throw UserError(problem + "; cast it to int32");
            continue;
        }
        if (!is_float(type)) throw UserError(problem + "; cast it to float32 or float16");
        if (type != type_of(0))
            throw UserError(problem + " but query is " + type_name(type_of(0)) + "; cast both to the same type");
    }
}

// ---- shapes -----------------------------------------------------------------------------------------------------

DimensionSizes common_sizes(std::int32_t count, const std::function<std::int32_t(std::int32_t)>& rank_of,
                            const std::function<std::int64_t(std::int32_t, int)>& size_of) {
    DimensionSizes sizes;
    sizes.fill(UNKNOWN_SIZE);
    sizes[COORDINATES] = 2;
    for (std::int32_t i = 0; i < count; ++i) {
        const InputRule& rule = INPUTS[i];
        if (rank_of(i) != rule.rank)
            throw UserError(std::string(rule.name) + " has " + std::to_string(rank_of(i)) +
                            " dimensions; give it the shape " + rule.shape);
        for (int axis = 0; axis < rule.rank; ++axis) {
            const std::int64_t size = size_of(i, axis);
            std::int64_t& common = sizes[rule.dimensions[axis]];
            if (size < 0) continue;
            if (size > std::numeric_limits<std::int32_t>::max())
                throw UserError(std::string(rule.name) + " has more than 2^31 elements along axis " +
                                std::to_string(axis) + "; use smaller frames");
            if (common != UNKNOWN_SIZE && common != size)
                throw UserError(std::string(rule.name) + " has size " + std::to_string(size) + " along axis " +
                                std::to_string(axis) + ", where " + std::to_string(common) +
                                " is expected; give it the shape " + rule.shape +
                                " with the sizes of the other inputs");
            common = size;
        }
    }
    return sizes;
}

AffinityProblem make_problem(AffinityAttributes attributes, const DimensionSizes& sizes, DataType type, bool offsets) {
    static constexpr std::int32_t PRESENT = 0;  // the kernels only check here whether offsets is null
    const auto size_or = [&](Dimension dimension, std::int32_t smallest) {
        return sizes[dimension] < 0 ? smallest : static_cast<std::int32_t>(sizes[dimension]);
    };
    AffinityProblem problem{};
    problem.type = type == DataType::kHALF ? ElementType::float16 : ElementType::float32;
    problem.batch = size_or(BATCH, 1);
    problem.slots = size_or(SLOTS, 1);
    problem.channels = size_or(CHANNELS, 8);
    problem.labels = size_or(LABELS, 1);
    problem.height = size_or(HEIGHT, 1);
    problem.width = size_or(WIDTH, 1);
    problem.radius = attributes.radius;
    problem.scale = attributes.scale;
    problem.offsets = offsets ? &PRESENT : nullptr;
    return problem;
}

void check_supported(const AffinityProblem& problem, int sm) {
    const char* reason = "no kernel supports this problem; export another model";
    if (!is_supported(problem, sm, &reason)) throw UserError(reason);
}

// ---- the device -------------------------------------------------------------------------------------------------

namespace {

cudaError_t query_compute_capability(int* sm) {
    int device = 0, major = 0, minor = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (error == cudaSuccess) *sm = 10 * major + minor;
    return error;
}

}  // namespace

int compute_capability() {
    int sm = 0;
    const cudaError_t error = query_compute_capability(&sm);
    if (error != cudaSuccess)
        throw UserError(std::string("the CUDA device cannot be queried (") + cudaGetErrorString(error) +
                        "); check the NVIDIA driver with nvidia-smi");
    return sm;
}

int compute_capability_or_any() {
    int sm = ANY_SM;
    query_compute_capability(&sm);
    return sm;
}

// ---- attributes -------------------------------------------------------------------------------------------------

namespace {

std::int64_t integer(const PluginField& field) {
    const bool single = field.data != nullptr && field.length == 1;
    if (single && field.type == PluginFieldType::kINT32) return *static_cast<const std::int32_t*>(field.data);
    if (single && field.type == PluginFieldType::kINT64) return *static_cast<const std::int64_t*>(field.data);
    throw UserError(std::string("attribute ") + field.name + " is not a single integer; export the model again");
}

double real(const PluginField& field) {
    const bool single = field.data != nullptr && field.length == 1;
    if (single && field.type == PluginFieldType::kFLOAT32) return *static_cast<const float*>(field.data);
    if (single && field.type == PluginFieldType::kFLOAT64) return *static_cast<const double*>(field.data);
    throw UserError(std::string("attribute ") + field.name + " is not a single real number; export the model again");
}

void check_fingerprint(const PluginField& field) {
    const bool readable = field.data != nullptr && field.type == PluginFieldType::kCHAR && field.length >= 0;
    const std::string_view built =
        readable ? std::string_view(static_cast<const char*>(field.data), field.length) : std::string_view();
    if (built != kernels_fingerprint())
        throw UserError("the engine was built with kernels " + std::string(built) + " but this library has " +
                        kernels_fingerprint() + "; rebuild the engine, or load the library it was built with");
}

std::int32_t checked_radius(std::int64_t radius) {
    // The kernels check the range; a value that does not fit their type is replaced by the nearest one that does.
    using Limits = std::numeric_limits<std::int32_t>;
    const auto value = static_cast<std::int32_t>(std::clamp<std::int64_t>(radius, Limits::min(), Limits::max()));
    DimensionSizes unknown;
    unknown.fill(UNKNOWN_SIZE);
    check_supported(make_problem({value, 1.f}, unknown, DataType::kFLOAT, false), ANY_SM);
    return value;
}

float checked_scale(double scale) {
    const auto value = static_cast<float>(scale);
    if (!std::isfinite(value) || value < 0)
        throw UserError("scale is " + decimal(value) + "; export with a finite scale that is not negative");
    return value;
}

void check_top_k(std::int64_t top_k) {
    if (top_k != 0)
        throw UserError("top_k is " + std::to_string(top_k) +
                        " but the CUDA kernels always use all logits; export with top_k 0, or run the model through "
                        "the ONNX function body");
}

}  // namespace

AffinityAttributes read_attributes(const nvinfer1::PluginFieldCollection* fields) {
    if (fields == nullptr) throw UserError("the node has no attributes; give it radius and scale");
    bool has_radius = false, has_scale = false;
    AffinityAttributes attributes{};
    for (std::int32_t i = 0; i < fields->nbFields; ++i) {
        const PluginField& field = fields->fields[i];
        const std::string_view name = field.name == nullptr ? "" : field.name;
        if (name == "radius") {
            attributes.radius = checked_radius(integer(field));
            has_radius = true;
        } else if (name == "scale") {
            attributes.scale = checked_scale(real(field));
            has_scale = true;
        } else if (name == "top_k") {
            check_top_k(integer(field));
        } else if (name == "kernels") {
            check_fingerprint(field);
        } else {
            throw UserError("the node has an unknown attribute " + std::string(name) +
                            "; give it radius, scale and top_k only");
        }
    }
    if (!has_radius) throw UserError("attribute radius is missing; export the model again");
    if (!has_scale) throw UserError("attribute scale is missing; export the model again");
    return attributes;
}

std::string decimal(float value) {
    char digits[32];
    const auto end = std::to_chars(digits, digits + sizeof(digits), value);
    return {digits, end.ptr};
}

std::string kernels_fingerprint() {
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    const auto add = [&](std::string_view part) {
        for (unsigned char c : part) hash = (hash ^ c) * 0x100000001b3u;
        hash = (hash ^ 0xffu) * 0x100000001b3u;
    };
    add("chosen by shape");  // earlier libraries left the choice to TensorRT
    // An engine also stores how large a workspace it gives.
    const AffinityProblem typical{ElementType::float16, 1, 5, 64, 11, 120, 214, 6, 1.f, {}, {}, {}, {}, {}, {}, {}};
    for (int row = 0; row < configuration_count(); ++row) {
        add(configuration_name(row));
        add(std::to_string(workspace_bytes(row, typical)));
    }
    char digits[16 + 1];
    std::snprintf(digits, sizeof(digits), "%016llx", static_cast<unsigned long long>(hash));
    return std::string(MASKRING_VERSION "-") + digits;
}

}  // namespace maskring
