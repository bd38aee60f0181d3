#include "tensorrt_plugin.hpp"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <stdexcept>
#include <string_view>

namespace maskring {
namespace {

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using Severity = nvinfer1::ILogger::Severity;

// Where TensorRT's loggers are found. The plugin interface hands it over once per library, through setLoggerFinder:
// the only thing that this library keeps outside its objects.
std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

constexpr std::int32_t OK = 0;
constexpr std::int32_t FAILED = -1;

// A compute capability that every kernel accepts: what plans are made for while no device is there to be asked.
constexpr int ANY_SM = 1000;

// Something the user can mend: "problem; remedy" without a final full stop.
struct Refusal : std::runtime_error {
    using std::runtime_error::runtime_error;
};

nvinfer1::ILogger* current_logger() noexcept {
    try {
        nvinfer1::ILoggerFinder* const finder = logger_finder.load();
        return finder == nullptr ? nullptr : finder->findLogger();
    } catch (...) {
        return nullptr;
    }
}

// To TensorRT's log, or where there is none to stderr: no sentence is ever lost.
void report(Severity severity, char const* sentence) noexcept {
    char line[1024];
    std::snprintf(line, sizeof(line), "maskring::WindowedAffinity: %s.", sentence);
    if (nvinfer1::ILogger* const logger = current_logger())
        logger->log(severity, line);
    else
        std::fprintf(stderr, "%s\n", line);
}

// Runs the body of a virtual function: nothing is thrown at TensorRT, and every failure leaves its sentence in the log.
template <typename Result, typename Body>
Result guarded(Result failure, Body&& body) noexcept {
    try {
        return body();
    } catch (Refusal const& refusal) {
        report(Severity::kERROR, refusal.what());
    } catch (std::exception const& error) {
        report(Severity::kINTERNAL_ERROR, error.what());
    } catch (...) {
        report(Severity::kINTERNAL_ERROR, "unknown exception");
    }
    return failure;
}

// ---- the shapes and types of the inputs -----------------------------------------------------------------------

enum Extent { BATCH, SLOTS, CHANNELS, LABELS, HEIGHT, WIDTH, COORDINATES, EXTENTS };

struct InputRule {
    char const* name;
    char const* shape;
    int rank;
    Extent extents[5];
};

constexpr InputRule INPUTS[] = {
    {"query", "[B, C, H, W]", 4, {BATCH, CHANNELS, HEIGHT, WIDTH}},
    {"keys", "[B, N, C, H, W]", 5, {BATCH, SLOTS, CHANNELS, HEIGHT, WIDTH}},
    {"values", "[B, N, O, H, W]", 5, {BATCH, SLOTS, LABELS, HEIGHT, WIDTH}},
    {"dilation", "[B, N]", 2, {BATCH, SLOTS}},
    {"offsets", "[B, N, 2, H, W]", 5, {BATCH, SLOTS, COORDINATES, HEIGHT, WIDTH}},
};
constexpr std::int32_t FLOAT_INPUTS = 3;  // query, keys, values
constexpr std::int32_t WITHOUT_OFFSETS = 4;
constexpr std::int32_t WITH_OFFSETS = 5;

constexpr std::int64_t UNKNOWN = -1;
using Extents = std::array<std::int64_t, EXTENTS>;

void check_count(std::int32_t inputs, std::int32_t outputs) {
    if (inputs != WITHOUT_OFFSETS && inputs != WITH_OFFSETS)
        throw Refusal("the node has " + std::to_string(inputs) + " inputs; give it query, keys, values, dilation and, "
                      "if windows are moved, offsets");
    if (outputs != 1) throw Refusal("the node has " + std::to_string(outputs) + " outputs; give it exactly one");
}

char const* name_of(DataType type) {
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

// `type_of(i)` gives the type of input i.
template <typename TypeOf>
void check_types(std::int32_t count, TypeOf&& type_of) {
    for (std::int32_t i = 0; i < count; ++i) {
        DataType const type = type_of(i);
        std::string const found = std::string(INPUTS[i].name) + " is " + name_of(type);
        if (i >= FLOAT_INPUTS && type != DataType::kINT32) throw Refusal(found + "; cast it to int32");
        if (i < FLOAT_INPUTS && !is_float(type)) throw Refusal(found + "; cast it to float32 or float16");
        if (i < FLOAT_INPUTS && type != type_of(0))
            throw Refusal(found + " and query is " + name_of(type_of(0)) + "; cast both to one type");
    }
}

// The extents that all inputs agree on. `rank_of(i)` gives the rank of input i, `extent_of(i, axis)` one of its extents,
// UNKNOWN (or any negative number) where it is not known yet.
template <typename RankOf, typename ExtentOf>
Extents agreed_extents(std::int32_t count, RankOf&& rank_of, ExtentOf&& extent_of) {
    Extents extents;
    extents.fill(UNKNOWN);
    extents[COORDINATES] = 2;
    for (std::int32_t i = 0; i < count; ++i) {
        InputRule const& rule = INPUTS[i];
        if (rank_of(i) != rule.rank)
            throw Refusal(std::string(rule.name) + " has " + std::to_string(rank_of(i)) + " dimensions; give it the " +
                          std::to_string(rule.rank) + " of " + rule.shape);
        for (int axis = 0; axis < rule.rank; ++axis) {
            std::int64_t const found = extent_of(i, axis);
            std::int64_t& agreed = extents[rule.extents[axis]];
            if (found < 0) continue;
            if (found > std::numeric_limits<std::int32_t>::max())
                throw Refusal(std::string(rule.name) + " has more than 2^31 elements along one axis; use smaller frames");
            if (agreed != UNKNOWN && agreed != found)
                throw Refusal(std::string(rule.name) + " has " + std::to_string(found) + " along axis " +
                              std::to_string(axis) + " where " + std::to_string(agreed) + " is expected; give it " +
                              rule.shape + " with the extents of the other inputs");
            agreed = found;
        }
    }
    return extents;
}

// The problem of these extents. What is not known yet gets the smallest extent that kernels take, so that the rest can
// be judged.
AffinityProblem make_problem(AffinityAttributes attributes, Extents const& extents, DataType type, bool offsets) {
    static constexpr std::int32_t GIVEN = 0;  // kernels are chosen by whether there are offsets, not by what they hold
    auto const known = [&](Extent extent, std::int32_t least) {
        return extents[extent] < 0 ? least : static_cast<std::int32_t>(extents[extent]);
    };
    AffinityProblem problem{};
    problem.type = type == DataType::kHALF ? ElementType::float16 : ElementType::float32;
    problem.batch = known(BATCH, 1);
    problem.slots = known(SLOTS, 1);
    problem.channels = known(CHANNELS, 8);
    problem.labels = known(LABELS, 1);
    problem.height = known(HEIGHT, 1);
    problem.width = known(WIDTH, 1);
    problem.radius = attributes.radius;
    problem.scale = attributes.scale;
    problem.offsets = offsets ? &GIVEN : nullptr;
    return problem;
}

// Refuses what no kernel computes, in the kernels' own words.
void check_computable(AffinityProblem const& problem, int sm) {
    char const* reason = "no kernel computes this; export another model";
    if (choose_configuration(problem, sm, &reason) < 0) throw Refusal(reason);
}

// ---- the device -----------------------------------------------------------------------------------------------

cudaError_t ask_compute_capability(int* sm) {
    int device = 0, major = 0, minor = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (error == cudaSuccess) *sm = 10 * major + minor;
    return error;
}

// For plans: the current device, or any where there is none.
int compute_capability_or_any() {
    int sm = ANY_SM;
    ask_compute_capability(&sm);
    return sm;
}

int compute_capability() {
    int sm = 0;
    cudaError_t const error = ask_compute_capability(&sm);
    if (error != cudaSuccess)
        throw Refusal(std::string("the CUDA device cannot be asked what it is (") + cudaGetErrorString(error) +
                      "); check the NVIDIA driver with nvidia-smi");
    return sm;
}

// ---- attributes ------------------------------------------------------------------------------------------------

std::string text(float value) {
    char digits[32];
    auto const end = std::to_chars(digits, digits + sizeof(digits), value);
    return {digits, end.ptr};
}

std::int64_t integer(PluginField const& field) {
    bool const one = field.data != nullptr && field.length == 1;
    if (one && field.type == PluginFieldType::kINT32) return *static_cast<std::int32_t const*>(field.data);
    if (one && field.type == PluginFieldType::kINT64) return *static_cast<std::int64_t const*>(field.data);
    throw Refusal(std::string("attribute ") + field.name + " is not one integer; export the model again");
}

double real(PluginField const& field) {
    bool const one = field.data != nullptr && field.length == 1;
    if (one && field.type == PluginFieldType::kFLOAT32) return *static_cast<float const*>(field.data);
    if (one && field.type == PluginFieldType::kFLOAT64) return *static_cast<double const*>(field.data);
    throw Refusal(std::string("attribute ") + field.name + " is not one real number; export the model again");
}

void check_fingerprint(PluginField const& field) {
    std::string_view const built = field.data == nullptr || field.type != PluginFieldType::kCHAR || field.length < 0
                                       ? std::string_view()
                                       : std::string_view(static_cast<char const*>(field.data), field.length);
    if (built != kernels_fingerprint())
        throw Refusal("the engine was built with kernels " + std::string(built) + " and this library holds " +
                      kernels_fingerprint() + "; build the engine again, or load the library it was built with");
}

std::int32_t checked_radius(std::int64_t radius) {
    // Judged by the kernels; what does not fit their type is judged as the nearest number that does.
    using Limits = std::numeric_limits<std::int32_t>;
    auto const value = static_cast<std::int32_t>(std::clamp<std::int64_t>(radius, Limits::min(), Limits::max()));
    Extents unknown;
    unknown.fill(UNKNOWN);
    check_computable(make_problem({value, 1.f}, unknown, DataType::kFLOAT, false), ANY_SM);
    return value;
}

float checked_scale(double scale) {
    auto const value = static_cast<float>(scale);
    if (!std::isfinite(value) || value < 0)
        throw Refusal("scale is " + text(value) + "; export with one that is finite and not negative");
    return value;
}

AffinityAttributes read_attributes(nvinfer1::PluginFieldCollection const* fields) {
    if (fields == nullptr) throw Refusal("the node has no attributes; give it radius and scale");
    bool has_radius = false, has_scale = false;
    AffinityAttributes attributes{};
    for (std::int32_t i = 0; i < fields->nbFields; ++i) {
        PluginField const& field = fields->fields[i];
        std::string_view const name = field.name == nullptr ? "" : field.name;
        if (name == "radius") {
            attributes.radius = checked_radius(integer(field));
            has_radius = true;
        } else if (name == "scale") {
            attributes.scale = checked_scale(real(field));
            has_scale = true;
        } else if (name == "top_k") {
            if (integer(field) != 0)
                throw Refusal("top_k is " + std::to_string(integer(field)) + " and the CUDA kernels keep all logits; "
                              "export with top_k 0, or run the model through the ONNX function body");
        } else if (name == "kernels") {
            check_fingerprint(field);
        } else {
            throw Refusal("there is no attribute " + std::string(name) + "; give the node radius, scale and top_k only");
        }
    }
    if (!has_radius) throw Refusal("attribute radius is missing; export the model again");
    if (!has_scale) throw Refusal("attribute scale is missing; export the model again");
    return attributes;
}

std::size_t largest_workspace(AffinityProblem const& problem, int sm) {
    std::int64_t most = 0;
    for (int row = 0; row < configuration_count(); ++row)
        if (can_run(row, problem, sm, nullptr)) most = std::max(most, workspace_bytes(row, problem));
    return static_cast<std::size_t>(most);
}

}  // namespace

std::string kernels_fingerprint() {
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    auto const add = [&](std::string_view part) {
        for (unsigned char c : part) hash = (hash ^ c) * 0x100000001b3u;
        hash = (hash ^ 0xffu) * 0x100000001b3u;
    };
    for (int row = 0; row < configuration_count(); ++row) add(configuration_name(row));
    char digits[16 + 1];
    std::snprintf(digits, sizeof(digits), "%016llx", static_cast<unsigned long long>(hash));
    return std::string(MASKRING_VERSION "-") + digits;
}

// ---- the plugin ------------------------------------------------------------------------------------------------

WindowedAffinityPlugin::WindowedAffinityPlugin(AffinityAttributes attributes)
    : attributes_(attributes),
      fingerprint_(kernels_fingerprint()),
      // Shapes and formats are added by TensorRT; the scale is a factor like any other.
      timing_id_("radius=" + std::to_string(attributes.radius) + " kernels=" + fingerprint_),
      metadata_("radius=" + std::to_string(attributes.radius) + " scale=" + text(attributes.scale) +
                " top_k=0 kernels=" + fingerprint_),
      fields_{PluginField("radius", &attributes_.radius, PluginFieldType::kINT32, 1),
              PluginField("scale", &attributes_.scale, PluginFieldType::kFLOAT32, 1),
              PluginField("top_k", &top_k_, PluginFieldType::kINT32, 1),
              PluginField("kernels", fingerprint_.data(), PluginFieldType::kCHAR,
                          static_cast<std::int32_t>(fingerprint_.size()))},
      field_collection_{static_cast<std::int32_t>(fields_.size()), fields_.data()} {}

nvinfer1::IPluginCapability* WindowedAffinityPlugin::getCapabilityInterface(
    nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
        case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
        case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
        case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

nvinfer1::IPluginV3* WindowedAffinityPlugin::clone() noexcept {
    return guarded<nvinfer1::IPluginV3*>(nullptr, [&] {
        auto copy = std::make_unique<WindowedAffinityPlugin>(attributes_);
        copy->tactics_ = tactics_;
        copy->tactic_ = tactic_;
        return copy.release();
    });
}

nvinfer1::AsciiChar const* WindowedAffinityPlugin::getPluginName() const noexcept { return PLUGIN_NAME; }
nvinfer1::AsciiChar const* WindowedAffinityPlugin::getPluginVersion() const noexcept { return PLUGIN_VERSION; }
nvinfer1::AsciiChar const* WindowedAffinityPlugin::getPluginNamespace() const noexcept { return PLUGIN_NAMESPACE; }

std::int32_t WindowedAffinityPlugin::getNbOutputs() const noexcept { return 1; }

std::int32_t WindowedAffinityPlugin::getOutputDataTypes(DataType* outputTypes, std::int32_t nbOutputs,
                                                        DataType const* inputTypes,
                                                        std::int32_t nbInputs) const noexcept {
    return guarded(FAILED, [&] {
        check_count(nbInputs, nbOutputs);
        check_types(nbInputs, [&](std::int32_t i) { return inputTypes[i]; });
        outputTypes[0] = inputTypes[0];
        return OK;
    });
}

std::int32_t WindowedAffinityPlugin::getOutputShapes(nvinfer1::DimsExprs const* inputs, std::int32_t nbInputs,
                                                     nvinfer1::DimsExprs const*, std::int32_t,
                                                     nvinfer1::DimsExprs* outputs, std::int32_t nbOutputs,
                                                     nvinfer1::IExprBuilder&) noexcept {
    return guarded(FAILED, [&] {
        check_count(nbInputs, nbOutputs);
        Extents const extents = agreed_extents(
            nbInputs, [&](std::int32_t i) { return inputs[i].nbDims; },
            [&](std::int32_t i, int axis) {
                nvinfer1::IDimensionExpr const* const extent = inputs[i].d[axis];
                return extent->isConstant() ? extent->getConstantValue() : UNKNOWN;
            });
        check_computable(make_problem(attributes_, extents, DataType::kFLOAT, nbInputs == WITH_OFFSETS), ANY_SM);
        auto const& query = inputs[0];
        auto const& values = inputs[2];
        outputs[0].nbDims = 4;
        outputs[0].d[0] = query.d[0];
        outputs[0].d[1] = values.d[2];
        outputs[0].d[2] = query.d[2];
        outputs[0].d[3] = query.d[3];
        return OK;
    });
}

bool WindowedAffinityPlugin::supportsFormatCombination(std::int32_t pos,
                                                       nvinfer1::DynamicPluginTensorDesc const* inOut,
                                                       std::int32_t nbInputs, std::int32_t nbOutputs) noexcept {
    // A question, not an error: nothing is reported, TensorRT says what it could not place.
    if (nbOutputs != 1 || (nbInputs != WITHOUT_OFFSETS && nbInputs != WITH_OFFSETS)) return false;
    if (pos < 0 || pos >= nbInputs + nbOutputs) return false;
    nvinfer1::PluginTensorDesc const& tensor = inOut[pos].desc;
    if (tensor.format != nvinfer1::TensorFormat::kLINEAR) return false;
    if (pos == 0) return is_float(tensor.type);
    bool const integers = pos >= FLOAT_INPUTS && pos < nbInputs;
    return tensor.type == (integers ? DataType::kINT32 : inOut[0].desc.type);
}

std::int32_t WindowedAffinityPlugin::configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, std::int32_t nbInputs,
                                                     nvinfer1::DynamicPluginTensorDesc const*,
                                                     std::int32_t nbOutputs) noexcept {
    return guarded(FAILED, [&] {
        tactics_.clear();
        check_count(nbInputs, nbOutputs);
        check_types(nbInputs, [&](std::int32_t i) { return in[i].desc.type; });
        bool const offsets = nbInputs == WITH_OFFSETS;
        auto const bound = [&](nvinfer1::Dims const& (*dims_of)(nvinfer1::DynamicPluginTensorDesc const&)) {
            Extents const extents = agreed_extents(
                nbInputs, [&](std::int32_t i) { return dims_of(in[i]).nbDims; },
                [&](std::int32_t i, int axis) { return dims_of(in[i]).d[axis]; });
            return make_problem(attributes_, extents, in[0].desc.type, offsets);
        };
        auto const least = bound([](auto const& tensor) -> nvinfer1::Dims const& { return tensor.min; });
        auto const most = bound([](auto const& tensor) -> nvinfer1::Dims const& { return tensor.max; });
        int const sm = compute_capability_or_any();
        check_computable(least, sm);
        check_computable(most, sm);
        for (int row = 0; row < configuration_count(); ++row)
            if (can_run(row, least, sm, nullptr) && can_run(row, most, sm, nullptr)) tactics_.push_back(row + 1);
        return OK;
    });
}

std::size_t WindowedAffinityPlugin::getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs,
                                                     std::int32_t nbInputs, nvinfer1::DynamicPluginTensorDesc const*,
                                                     std::int32_t nbOutputs) const noexcept {
    return guarded(std::size_t{0}, [&] {
        check_count(nbInputs, nbOutputs);
        Extents const extents = agreed_extents(
            nbInputs, [&](std::int32_t i) { return inputs[i].max.nbDims; },
            [&](std::int32_t i, int axis) { return inputs[i].max.d[axis]; });
        auto const most = make_problem(attributes_, extents, inputs[0].desc.type, nbInputs == WITH_OFFSETS);
        return largest_workspace(most, compute_capability_or_any());
    });
}

std::int32_t WindowedAffinityPlugin::getNbTactics() noexcept { return static_cast<std::int32_t>(tactics_.size()); }

std::int32_t WindowedAffinityPlugin::getValidTactics(std::int32_t* tactics, std::int32_t nbTactics) noexcept {
    if (nbTactics != getNbTactics()) return FAILED;
    std::copy(tactics_.begin(), tactics_.end(), tactics);
    return OK;
}

char const* WindowedAffinityPlugin::getTimingCacheID() noexcept { return timing_id_.c_str(); }
char const* WindowedAffinityPlugin::getMetadataString() noexcept { return metadata_.c_str(); }

std::int32_t WindowedAffinityPlugin::setTactic(std::int32_t tactic) noexcept {
    return guarded(FAILED, [&] {
        if (tactic < 0 || tactic > configuration_count())
            throw Refusal("the engine asks for kernel " + std::to_string(tactic) + " and this library has " +
                          std::to_string(configuration_count()) + "; build the engine again");
        tactic_ = tactic;
        return OK;
    });
}

AffinityProblem WindowedAffinityPlugin::problem_of(nvinfer1::PluginTensorDesc const* in, std::int32_t count) const {
    Extents const extents = agreed_extents(
        count, [&](std::int32_t i) { return in[i].dims.nbDims; },
        [&](std::int32_t i, int axis) { return in[i].dims.d[axis]; });
    return make_problem(attributes_, extents, in[0].type, count == WITH_OFFSETS);
}

// The kernel that TensorRT chose, or where it chose none the one that is expected to be fastest.
int WindowedAffinityPlugin::row_for(AffinityProblem const& problem) const {
    char const* reason = "no kernel computes this; export another model";
    int const row = tactic_ == 0 ? choose_configuration(problem, sm_, &reason) : tactic_ - 1;
    if (row < 0 || !can_run(row, problem, sm_, &reason)) throw Refusal(reason);
    return row;
}

std::int32_t WindowedAffinityPlugin::onShapeChange(nvinfer1::PluginTensorDesc const* in, std::int32_t nbInputs,
                                                   nvinfer1::PluginTensorDesc const* out,
                                                   std::int32_t nbOutputs) noexcept {
    return guarded(FAILED, [&] {
        inputs_ = 0;
        check_count(nbInputs, nbOutputs);
        check_types(nbInputs, [&](std::int32_t i) { return in[i].type; });
        if (out[0].type != in[0].type)
            throw Refusal(std::string("the output is ") + name_of(out[0].type) + " and query is " +
                          name_of(in[0].type) + "; build the engine again");
        AffinityProblem const problem = problem_of(in, nbInputs);
        sm_ = compute_capability();
        row_for(problem);
        inputs_ = nbInputs;
        return OK;
    });
}

std::int32_t WindowedAffinityPlugin::enqueue(nvinfer1::PluginTensorDesc const* inputDesc,
                                             nvinfer1::PluginTensorDesc const*, void const* const* inputs,
                                             void* const* outputs, void* workspace, cudaStream_t stream) noexcept {
    return guarded(FAILED, [&] {
        if (inputs_ == 0) throw std::logic_error("enqueue without a successful onShapeChange");
        AffinityProblem problem = problem_of(inputDesc, inputs_);
        problem.query = inputs[0];
        problem.keys = inputs[1];
        problem.values = inputs[2];
        problem.dilation = static_cast<std::int32_t const*>(inputs[3]);
        problem.offsets = inputs_ == WITH_OFFSETS ? static_cast<std::int32_t const*>(inputs[4]) : nullptr;
        problem.out = outputs[0];
        problem.workspace = workspace;
        int const row = row_for(problem);
        int const error = launch(row, problem, stream);
        if (error != cudaSuccess)
            throw Refusal(std::string("kernel ") + configuration_name(row) + " failed (" +
                          cudaGetErrorString(static_cast<cudaError_t>(error)) +
                          "); look for an earlier CUDA error on this device, and check with compute-sanitizer");
        return OK;
    });
}

nvinfer1::IPluginV3* WindowedAffinityPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
    return clone();
}

nvinfer1::PluginFieldCollection const* WindowedAffinityPlugin::getFieldsToSerialize() noexcept {
    return &field_collection_;
}

// ---- the creator -----------------------------------------------------------------------------------------------

WindowedAffinityCreator::WindowedAffinityCreator()
    : fields_{PluginField("radius", nullptr, PluginFieldType::kINT32, 1),
              PluginField("scale", nullptr, PluginFieldType::kFLOAT32, 1),
              PluginField("top_k", nullptr, PluginFieldType::kINT32, 1)},
      field_collection_{static_cast<std::int32_t>(fields_.size()), fields_.data()} {}

nvinfer1::IPluginV3* WindowedAffinityCreator::createPlugin(nvinfer1::AsciiChar const*,
                                                           nvinfer1::PluginFieldCollection const* fc,
                                                           nvinfer1::TensorRTPhase) noexcept {
    return guarded<nvinfer1::IPluginV3*>(nullptr, [&] { return new WindowedAffinityPlugin(read_attributes(fc)); });
}

nvinfer1::PluginFieldCollection const* WindowedAffinityCreator::getFieldNames() noexcept { return &field_collection_; }
nvinfer1::AsciiChar const* WindowedAffinityCreator::getPluginName() const noexcept { return PLUGIN_NAME; }
nvinfer1::AsciiChar const* WindowedAffinityCreator::getPluginVersion() const noexcept { return PLUGIN_VERSION; }
nvinfer1::AsciiChar const* WindowedAffinityCreator::getPluginNamespace() const noexcept { return PLUGIN_NAMESPACE; }

}  // namespace maskring

#define MASKRING_EXPORT extern "C" __attribute__((visibility("default")))

MASKRING_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& nbCreators) {
    static maskring::WindowedAffinityCreator creator;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
    nbCreators = 1;
    return creators;
}

MASKRING_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { maskring::logger_finder.store(finder); }

MASKRING_EXPORT std::int32_t maskring_tensorrt_major() { return NV_TENSORRT_MAJOR; }

// ---- programs that open this library and call nothing in it ----------------------------------------------------

namespace maskring {
namespace {

bool register_in_loaded_tensorrt() {
    std::string const name = "libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR);
    void* const tensorrt = dlopen(name.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (tensorrt == nullptr) return false;
    auto const get = reinterpret_cast<nvinfer1::IPluginRegistry* (*)()>(dlsym(tensorrt, "getPluginRegistry"));
    Dl_info self{};
    return get != nullptr && dladdr(&logger_finder, &self) != 0 && get()->loadLibrary(self.dli_fname) != nullptr;
}

// Triton's option plugins= does no more than dlopen. Not unless asked: who hands the library to TensorRT's registry,
// as most programs do, would find the plugin's name taken.
__attribute__((constructor)) void register_when_preloaded() {
    if (std::getenv("MASKRING_PRELOAD") != nullptr && !register_in_loaded_tensorrt())
        report(Severity::kERROR, "MASKRING_PRELOAD is set and this process has no TensorRT that takes the plugin; "
                                 "build the library with the headers of that TensorRT, and open it after libnvinfer");
}

}  // namespace
}  // namespace maskring
