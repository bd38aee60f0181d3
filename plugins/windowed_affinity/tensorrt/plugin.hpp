// The TensorRT plugin `WindowedAffinity`, version 1, namespace `maskring`. See docs/plugin.md.
//
// It chooses a kernel and serializes its attributes; problem_checks.hpp checks the inputs and cuda/launch.hpp runs the
// kernel. A build works with one major version of TensorRT, because TensorRT 11 changed the logger's binary interface.
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "tensorrt/problem_checks.hpp"

namespace maskring {

inline constexpr char PLUGIN_NAME[] = "WindowedAffinity";
inline constexpr char PLUGIN_VERSION[] = "1";
inline constexpr char PLUGIN_NAMESPACE[] = "maskring";

// A node of a network, an engine or an execution context. Objects share no state; TensorRT uses each from one thread
// at a time.
class WindowedAffinityPlugin final : public nvinfer1::IPluginV3,
                                     public nvinfer1::IPluginV3OneCore,
                                     public nvinfer1::IPluginV3OneBuild,
                                     public nvinfer1::IPluginV3OneRuntime {
public:
    explicit WindowedAffinityPlugin(AffinityAttributes attributes);
    WindowedAffinityPlugin(const WindowedAffinityPlugin&) = delete;
    WindowedAffinityPlugin& operator=(const WindowedAffinityPlugin&) = delete;

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    const nvinfer1::AsciiChar* getPluginName() const noexcept override;
    const nvinfer1::AsciiChar* getPluginVersion() const noexcept override;
    const nvinfer1::AsciiChar* getPluginNamespace() const noexcept override;

    std::int32_t getNbOutputs() const noexcept override;
    std::int32_t getOutputDataTypes(nvinfer1::DataType* outputTypes, std::int32_t nbOutputs,
                                    const nvinfer1::DataType* inputTypes,
                                    std::int32_t nbInputs) const noexcept override;
    std::int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, std::int32_t nbInputs,
                                 const nvinfer1::DimsExprs* shapeInputs, std::int32_t nbShapeInputs,
                                 nvinfer1::DimsExprs* outputs, std::int32_t nbOutputs,
                                 nvinfer1::IExprBuilder& exprBuilder) noexcept override;
    bool supportsFormatCombination(std::int32_t pos, const nvinfer1::DynamicPluginTensorDesc* inOut,
                                   std::int32_t nbInputs, std::int32_t nbOutputs) noexcept override;
    std::int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* in, std::int32_t nbInputs,
                                 const nvinfer1::DynamicPluginTensorDesc* out,
                                 std::int32_t nbOutputs) noexcept override;
    std::size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, std::int32_t nbInputs,
                                 const nvinfer1::DynamicPluginTensorDesc* outputs,
                                 std::int32_t nbOutputs) const noexcept override;
    std::int32_t getNbTactics() noexcept override;
    std::int32_t getValidTactics(std::int32_t* tactics, std::int32_t nbTactics) noexcept override;
    const char* getTimingCacheID() noexcept override;
    const char* getMetadataString() noexcept override;

    std::int32_t setTactic(std::int32_t tactic) noexcept override;
    std::int32_t onShapeChange(const nvinfer1::PluginTensorDesc* in, std::int32_t nbInputs,
                               const nvinfer1::PluginTensorDesc* out, std::int32_t nbOutputs) noexcept override;
    std::int32_t enqueue(const nvinfer1::PluginTensorDesc* inputDesc, const nvinfer1::PluginTensorDesc* outputDesc,
                         const void* const* inputs, void* const* outputs, void* workspace,
                         cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

private:
    AffinityProblem problem_of(const nvinfer1::PluginTensorDesc* in, std::int32_t count) const;
    int row_for(const AffinityProblem& problem) const;

    const AffinityAttributes attributes_;
    const std::string fingerprint_;
    const std::string timing_id_;
    const std::string metadata_;
    std::int32_t const top_k_ = 0;                 // serialized so that the engine stores every attribute
    std::array<nvinfer1::PluginField, 4> fields_;  // these point into this object
    nvinfer1::PluginFieldCollection field_collection_;

    std::int32_t inputs_ = 0;  // 4, or 5 with offsets; 0 = no valid shapes yet
    int sm_ = 0;               // compute capability of the device that onShapeChange ran on
};

class WindowedAffinityCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    WindowedAffinityCreator();

    nvinfer1::IPluginV3* createPlugin(const nvinfer1::AsciiChar* name, const nvinfer1::PluginFieldCollection* fc,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override;
    const nvinfer1::AsciiChar* getPluginName() const noexcept override;
    const nvinfer1::AsciiChar* getPluginVersion() const noexcept override;
    const nvinfer1::AsciiChar* getPluginNamespace() const noexcept override;

private:
    const std::array<nvinfer1::PluginField, 3> fields_;
    const nvinfer1::PluginFieldCollection field_collection_;
};

}  // namespace maskring

// TensorRT looks these up in a plugin library.
extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& nbCreators);
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
// maskring.plugins.load() looks this up: the major version of TensorRT that the library was built for.
extern "C" std::int32_t maskring_tensorrt_major();
// maskring.plugins.cuda_runtime() looks this up: the version of the CUDA runtime inside, 13000 for 13.0.
extern "C" std::int32_t maskring_cuda_runtime();
