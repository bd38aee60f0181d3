// TensorRT's view of windowed memory affinity: plugin `WindowedAffinity`, version 1, namespace `maskring`.
//
// Types, shapes, choice of kernel and serialization are decided here; kernels/launch.hpp computes. docs/plugin.md
// explains the rules. One build serves one major version of TensorRT (the logger's binary interface changed in 11).
#pragma once

#include <NvInferRuntime.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/launch.hpp"

namespace maskring {

inline constexpr char PLUGIN_NAME[] = "WindowedAffinity";
inline constexpr char PLUGIN_VERSION[] = "1";
inline constexpr char PLUGIN_NAMESPACE[] = "maskring";

// What a node of the graph says about itself.
struct AffinityAttributes {
    std::int32_t radius;
    float scale;
};

// The release of this library and a hash of its dispatch table. Tactics in engines and timing caches are rows of that
// table, so neither may be used with another one.
std::string kernels_fingerprint();

// A node of a network, an engine or an execution context. Objects share nothing; each belongs to one thread at a
// time, as TensorRT demands.
class WindowedAffinityPlugin final : public nvinfer1::IPluginV3,
                                     public nvinfer1::IPluginV3OneCore,
                                     public nvinfer1::IPluginV3OneBuild,
                                     public nvinfer1::IPluginV3OneRuntime {
public:
    explicit WindowedAffinityPlugin(AffinityAttributes attributes);
    WindowedAffinityPlugin(WindowedAffinityPlugin const&) = delete;
    WindowedAffinityPlugin& operator=(WindowedAffinityPlugin const&) = delete;

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;
    nvinfer1::IPluginV3* clone() noexcept override;

    nvinfer1::AsciiChar const* getPluginName() const noexcept override;
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override;
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override;

    std::int32_t getNbOutputs() const noexcept override;
    std::int32_t getOutputDataTypes(nvinfer1::DataType* outputTypes, std::int32_t nbOutputs,
                                    nvinfer1::DataType const* inputTypes, std::int32_t nbInputs) const noexcept override;
    std::int32_t getOutputShapes(nvinfer1::DimsExprs const* inputs, std::int32_t nbInputs,
                                 nvinfer1::DimsExprs const* shapeInputs, std::int32_t nbShapeInputs,
                                 nvinfer1::DimsExprs* outputs, std::int32_t nbOutputs,
                                 nvinfer1::IExprBuilder& exprBuilder) noexcept override;
    bool supportsFormatCombination(std::int32_t pos, nvinfer1::DynamicPluginTensorDesc const* inOut,
                                   std::int32_t nbInputs, std::int32_t nbOutputs) noexcept override;
    std::int32_t configurePlugin(nvinfer1::DynamicPluginTensorDesc const* in, std::int32_t nbInputs,
                                 nvinfer1::DynamicPluginTensorDesc const* out, std::int32_t nbOutputs) noexcept override;
    std::size_t getWorkspaceSize(nvinfer1::DynamicPluginTensorDesc const* inputs, std::int32_t nbInputs,
                                 nvinfer1::DynamicPluginTensorDesc const* outputs,
                                 std::int32_t nbOutputs) const noexcept override;
    std::int32_t getNbTactics() noexcept override;
    std::int32_t getValidTactics(std::int32_t* tactics, std::int32_t nbTactics) noexcept override;
    char const* getTimingCacheID() noexcept override;
    char const* getMetadataString() noexcept override;

    std::int32_t setTactic(std::int32_t tactic) noexcept override;
    std::int32_t onShapeChange(nvinfer1::PluginTensorDesc const* in, std::int32_t nbInputs,
                               nvinfer1::PluginTensorDesc const* out, std::int32_t nbOutputs) noexcept override;
    std::int32_t enqueue(nvinfer1::PluginTensorDesc const* inputDesc, nvinfer1::PluginTensorDesc const* outputDesc,
                         void const* const* inputs, void* const* outputs, void* workspace,
                         cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext* context) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldsToSerialize() noexcept override;

private:
    AffinityProblem problem_of(nvinfer1::PluginTensorDesc const* in, std::int32_t count) const;
    int row_for(AffinityProblem const& problem) const;

    AffinityAttributes const attributes_;
    std::string const fingerprint_;
    std::string const timing_id_;
    std::string const metadata_;
    std::int32_t const top_k_ = 0;                // serialized, so that what an engine holds is complete
    std::array<nvinfer1::PluginField, 4> fields_;  // point into this object
    nvinfer1::PluginFieldCollection field_collection_;

    std::vector<std::int32_t> tactics_;  // for what configurePlugin last saw
    std::int32_t tactic_ = 0;            // row + 1; 0 = choose by shape
    std::int32_t inputs_ = 0;            // 4, or 5 with offsets; 0 = no shapes seen yet
    int sm_ = 0;                         // of the device that onShapeChange ran on
};

class WindowedAffinityCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    WindowedAffinityCreator();

    nvinfer1::IPluginV3* createPlugin(nvinfer1::AsciiChar const* name, nvinfer1::PluginFieldCollection const* fc,
                                      nvinfer1::TensorRTPhase phase) noexcept override;
    nvinfer1::PluginFieldCollection const* getFieldNames() noexcept override;
    nvinfer1::AsciiChar const* getPluginName() const noexcept override;
    nvinfer1::AsciiChar const* getPluginVersion() const noexcept override;
    nvinfer1::AsciiChar const* getPluginNamespace() const noexcept override;

private:
    std::array<nvinfer1::PluginField, 3> const fields_;
    nvinfer1::PluginFieldCollection const field_collection_;
};

}  // namespace maskring

// What TensorRT looks up in a plugin library.
extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(std::int32_t& nbCreators);
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);
// What maskring.plugins.load() looks up: the major version of TensorRT that this library was built for.
extern "C" std::int32_t maskring_tensorrt_major();
