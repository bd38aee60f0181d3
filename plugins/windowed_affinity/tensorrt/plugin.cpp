#include "tensorrt/plugin.hpp"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>

namespace maskring {
namespace {

using nvinfer1::DataType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using Severity = nvinfer1::ILogger::Severity;

// TensorRT passes this once per library, through setLoggerFinder. It is the library's only global state.
std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

constexpr std::int32_t OK = 0;
constexpr std::int32_t FAILED = -1;

nvinfer1::ILogger* current_logger() noexcept {
    try {
        nvinfer1::ILoggerFinder* const finder = logger_finder.load();
        return finder == nullptr ? nullptr : finder->findLogger();
    } catch (...) {
        return nullptr;
    }
}

// Writes to TensorRT's log, or to stderr if there is no logger.
void report(Severity severity, const char* message) noexcept {
    char line[1024];
    std::snprintf(line, sizeof(line), "maskring::WindowedAffinity: %s.", message);
    if (nvinfer1::ILogger* const logger = current_logger())
        logger->log(severity, line);
    else
        std::fprintf(stderr, "%s\n", line);
}

// Runs the body of a virtual function. TensorRT's interface must not throw, so every exception is logged instead.
template <typename Result, typename Body>
Result guarded(Result failure, Body&& body) noexcept {
    try {
        return body();
    } catch (const UserError& error) {
        report(Severity::kERROR, error.what());
    } catch (const std::exception& error) {
        report(Severity::kINTERNAL_ERROR, error.what());
    } catch (...) {
        report(Severity::kINTERNAL_ERROR, "unknown exception");
    }
    return failure;
}

std::size_t largest_workspace(const AffinityProblem& problem, int sm) {
    std::int64_t largest = 0;
    for (int row = 0; row < configuration_count(); ++row)
        if (can_run(row, problem, sm, nullptr)) largest = std::max(largest, workspace_bytes(row, problem));
    return static_cast<std::size_t>(largest);
}

}  // namespace

// ---- the plugin ------------------------------------------------------------------------------------------------

WindowedAffinityPlugin::WindowedAffinityPlugin(AffinityAttributes attributes)
    : attributes_(attributes),
      fingerprint_(kernels_fingerprint()),
      // TensorRT adds shapes and formats to this key. The scale does not affect speed.
      timing_id_("radius=" + std::to_string(attributes.radius) + " kernels=" + fingerprint_),
      metadata_("radius=" + std::to_string(attributes.radius) + " scale=" + decimal(attributes.scale) +
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
    return guarded<nvinfer1::IPluginV3*>(nullptr, [&] { return new WindowedAffinityPlugin(attributes_); });
}

const nvinfer1::AsciiChar* WindowedAffinityPlugin::getPluginName() const noexcept { return PLUGIN_NAME; }
const nvinfer1::AsciiChar* WindowedAffinityPlugin::getPluginVersion() const noexcept { return PLUGIN_VERSION; }
const nvinfer1::AsciiChar* WindowedAffinityPlugin::getPluginNamespace() const noexcept { return PLUGIN_NAMESPACE; }

std::int32_t WindowedAffinityPlugin::getNbOutputs() const noexcept { return 1; }

std::int32_t WindowedAffinityPlugin::getOutputDataTypes(DataType* outputTypes, std::int32_t nbOutputs,
                                                        const DataType* inputTypes,
                                                        std::int32_t nbInputs) const noexcept {
    return guarded(FAILED, [&] {
        check_counts(nbInputs, nbOutputs);
        check_types(nbInputs, [&](std::int32_t i) { return inputTypes[i]; });
        outputTypes[0] = inputTypes[0];
        return OK;
    });
}

std::int32_t WindowedAffinityPlugin::getOutputShapes(const nvinfer1::DimsExprs* inputs, std::int32_t nbInputs,
                                                     const nvinfer1::DimsExprs*, std::int32_t,
                                                     nvinfer1::DimsExprs* outputs, std::int32_t nbOutputs,
                                                     nvinfer1::IExprBuilder&) noexcept {
    return guarded(FAILED, [&] {
        check_counts(nbInputs, nbOutputs);
        const DimensionSizes sizes = common_sizes(
            nbInputs, [&](std::int32_t i) { return inputs[i].nbDims; },
            [&](std::int32_t i, int axis) {
                const nvinfer1::IDimensionExpr* const extent = inputs[i].d[axis];
                return extent->isConstant() ? extent->getConstantValue() : UNKNOWN_SIZE;
            });
        check_supported(make_problem(attributes_, sizes, DataType::kFLOAT, nbInputs == INPUTS_WITH_OFFSETS), ANY_SM);
        const auto& query = inputs[0];
        const auto& values = inputs[2];
        outputs[0].nbDims = 4;
        outputs[0].d[0] = query.d[0];
        outputs[0].d[1] = values.d[2];
        outputs[0].d[2] = query.d[2];
        outputs[0].d[3] = query.d[3];
        return OK;
    });
}

bool WindowedAffinityPlugin::supportsFormatCombination(std::int32_t pos, const nvinfer1::DynamicPluginTensorDesc* inOut,
                                                       std::int32_t nbInputs, std::int32_t nbOutputs) noexcept {
    // TensorRT tries combinations here, so an unsupported one is not an error and is not logged.
    if (nbOutputs != 1 || (nbInputs != INPUTS_WITHOUT_OFFSETS && nbInputs != INPUTS_WITH_OFFSETS)) return false;
    if (pos < 0 || pos >= nbInputs + nbOutputs) return false;
    const nvinfer1::PluginTensorDesc& tensor = inOut[pos].desc;
    if (tensor.format != nvinfer1::TensorFormat::kLINEAR) return false;
    if (pos == 0) return is_float(tensor.type);
    const bool integers = pos < nbInputs && is_integer_input(pos);
    return tensor.type == (integers ? DataType::kINT32 : inOut[0].desc.type);
}

std::int32_t WindowedAffinityPlugin::configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, std::int32_t nbInputs,
                                                     const nvinfer1::DynamicPluginTensorDesc*,
                                                     std::int32_t nbOutputs) noexcept {
    return guarded(FAILED, [&] {
        check_counts(nbInputs, nbOutputs);
        check_types(nbInputs, [&](std::int32_t i) { return in[i].desc.type; });
        const bool offsets = nbInputs == INPUTS_WITH_OFFSETS;
        const auto problem_at = [&](const nvinfer1::Dims& (*dims_of)(const nvinfer1::DynamicPluginTensorDesc&)) {
            const DimensionSizes sizes = common_sizes(
                nbInputs, [&](std::int32_t i) { return dims_of(in[i]).nbDims; },
                [&](std::int32_t i, int axis) { return dims_of(in[i]).d[axis]; });
            return make_problem(attributes_, sizes, in[0].desc.type, offsets);
        };
        const auto smallest = problem_at([](const auto& tensor) -> const nvinfer1::Dims& { return tensor.min; });
        const auto largest = problem_at([](const auto& tensor) -> const nvinfer1::Dims& { return tensor.max; });
        const int sm = compute_capability_or_any();
        check_supported(smallest, sm);
        check_supported(largest, sm);
        return OK;
    });
}

std::size_t WindowedAffinityPlugin::getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs,
                                                     std::int32_t nbInputs, const nvinfer1::DynamicPluginTensorDesc*,
                                                     std::int32_t nbOutputs) const noexcept {
    return guarded(std::size_t{0}, [&] {
        check_counts(nbInputs, nbOutputs);
        const DimensionSizes sizes = common_sizes(
            nbInputs, [&](std::int32_t i) { return inputs[i].max.nbDims; },
            [&](std::int32_t i, int axis) { return inputs[i].max.d[axis]; });
        const auto largest = make_problem(attributes_, sizes, inputs[0].desc.type, nbInputs == INPUTS_WITH_OFFSETS);
        return largest_workspace(largest, compute_capability_or_any());
    });
}

// The dispatch table chooses by shape when a context runs. TensorRT would time tactics on inputs that it makes up: steps of
// 0 make each kernel free, and wild ones make the slowest look best.
std::int32_t WindowedAffinityPlugin::getNbTactics() noexcept { return 0; }

std::int32_t WindowedAffinityPlugin::getValidTactics(std::int32_t*, std::int32_t nbTactics) noexcept {
    return nbTactics == 0 ? OK : FAILED;
}

const char* WindowedAffinityPlugin::getTimingCacheID() noexcept { return timing_id_.c_str(); }
const char* WindowedAffinityPlugin::getMetadataString() noexcept { return metadata_.c_str(); }

std::int32_t WindowedAffinityPlugin::setTactic(std::int32_t tactic) noexcept {
    return guarded(FAILED, [&] {
        if (tactic != 0)
            throw UserError("the engine stores a choice of kernel (" + std::to_string(tactic) +
                            "), which this library makes itself; rebuild the engine");
        return OK;
    });
}

AffinityProblem WindowedAffinityPlugin::problem_of(const nvinfer1::PluginTensorDesc* in, std::int32_t count) const {
    const DimensionSizes sizes = common_sizes(
        count, [&](std::int32_t i) { return in[i].dims.nbDims; },
        [&](std::int32_t i, int axis) { return in[i].dims.d[axis]; });
    return make_problem(attributes_, sizes, in[0].type, count == INPUTS_WITH_OFFSETS);
}

// The kernel that the dispatch table expects to be fastest.
int WindowedAffinityPlugin::row_for(const AffinityProblem& problem) const {
    const char* reason = "no kernel supports this problem; export another model";
    const int row = choose_configuration(problem, sm_, &reason);
    if (row < 0) throw UserError(reason);
    return row;
}

std::int32_t WindowedAffinityPlugin::onShapeChange(const nvinfer1::PluginTensorDesc* in, std::int32_t nbInputs,
                                                   const nvinfer1::PluginTensorDesc* out,
                                                   std::int32_t nbOutputs) noexcept {
    return guarded(FAILED, [&] {
        inputs_ = 0;
        check_counts(nbInputs, nbOutputs);
        check_types(nbInputs, [&](std::int32_t i) { return in[i].type; });
        if (out[0].type != in[0].type)
            throw UserError(std::string("the output is ") + type_name(out[0].type) + " but query is " +
                            type_name(in[0].type) + "; rebuild the engine");
        const AffinityProblem problem = problem_of(in, nbInputs);
        sm_ = compute_capability();
        row_for(problem);
        inputs_ = nbInputs;
        return OK;
    });
}

std::int32_t WindowedAffinityPlugin::enqueue(const nvinfer1::PluginTensorDesc* inputDesc,
                                             const nvinfer1::PluginTensorDesc*, const void* const* inputs,
                                             void* const* outputs, void* workspace, cudaStream_t stream) noexcept {
    return guarded(FAILED, [&] {
        if (inputs_ == 0) throw std::logic_error("enqueue without a successful onShapeChange");
        AffinityProblem problem = problem_of(inputDesc, inputs_);
        problem.query = inputs[0];
        problem.keys = inputs[1];
        problem.values = inputs[2];
        problem.dilation = static_cast<const std::int32_t*>(inputs[3]);
        problem.offsets = inputs_ == INPUTS_WITH_OFFSETS ? static_cast<const std::int32_t*>(inputs[4]) : nullptr;
        problem.out = outputs[0];
        problem.workspace = workspace;
        const int row = row_for(problem);
        const int error = launch(row, problem, stream);
        if (error != cudaSuccess)
            throw UserError(std::string("kernel ") + configuration_name(row) + " failed (" +
                            cudaGetErrorString(static_cast<cudaError_t>(error)) +
                            "); look for an earlier CUDA error on this device, and run compute-sanitizer");
        return OK;
    });
}

nvinfer1::IPluginV3* WindowedAffinityPlugin::attachToContext(nvinfer1::IPluginResourceContext*) noexcept {
    return clone();
}

const nvinfer1::PluginFieldCollection* WindowedAffinityPlugin::getFieldsToSerialize() noexcept {
    return &field_collection_;
}

// ---- the creator -----------------------------------------------------------------------------------------------

WindowedAffinityCreator::WindowedAffinityCreator()
    : fields_{PluginField("radius", nullptr, PluginFieldType::kINT32, 1),
              PluginField("scale", nullptr, PluginFieldType::kFLOAT32, 1),
              PluginField("top_k", nullptr, PluginFieldType::kINT32, 1)},
      field_collection_{static_cast<std::int32_t>(fields_.size()), fields_.data()} {}

nvinfer1::IPluginV3* WindowedAffinityCreator::createPlugin(const nvinfer1::AsciiChar*,
                                                           const nvinfer1::PluginFieldCollection* fc,
                                                           nvinfer1::TensorRTPhase) noexcept {
    return guarded<nvinfer1::IPluginV3*>(nullptr, [&] { return new WindowedAffinityPlugin(read_attributes(fc)); });
}

const nvinfer1::PluginFieldCollection* WindowedAffinityCreator::getFieldNames() noexcept { return &field_collection_; }
const nvinfer1::AsciiChar* WindowedAffinityCreator::getPluginName() const noexcept { return PLUGIN_NAME; }
const nvinfer1::AsciiChar* WindowedAffinityCreator::getPluginVersion() const noexcept { return PLUGIN_VERSION; }
const nvinfer1::AsciiChar* WindowedAffinityCreator::getPluginNamespace() const noexcept { return PLUGIN_NAMESPACE; }

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

MASKRING_EXPORT std::int32_t maskring_cuda_runtime() { return CUDART_VERSION; }

// ---- programs that only dlopen this library ---------------------------------------------------------------------

namespace maskring {
namespace {

bool register_in_loaded_tensorrt() {
    const std::string name = "libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR);
    void* const tensorrt = dlopen(name.c_str(), RTLD_LAZY | RTLD_NOLOAD);
    if (tensorrt == nullptr) return false;
    const auto get = reinterpret_cast<nvinfer1::IPluginRegistry* (*)()>(dlsym(tensorrt, "getPluginRegistry"));
    Dl_info self{};
    return get != nullptr && dladdr(&logger_finder, &self) != 0 && get()->loadLibrary(self.dli_fname) != nullptr;
}

// For Triton, whose option plugins= only calls dlopen. Most programs load the library through TensorRT's registry;
// there, registering here as well would fail because the name is taken. Hence only if MASKRING_PRELOAD is set.
__attribute__((constructor)) void register_when_preloaded() {
    if (std::getenv("MASKRING_PRELOAD") != nullptr && !register_in_loaded_tensorrt())
        report(Severity::kERROR,
               "MASKRING_PRELOAD is set but no TensorRT in this process accepts the plugin; "
               "build the library with the headers of that TensorRT, and load it after libnvinfer");
}

}  // namespace
}  // namespace maskring
