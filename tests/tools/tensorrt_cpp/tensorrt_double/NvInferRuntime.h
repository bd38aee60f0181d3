// What the plugin and its tests use of TensorRT's interface, and nothing else: lets the tests run where NVIDIA's headers
// are not at hand. Only names and signatures matter here; the numbers of the enumerations are those of TensorRT.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#define NV_TENSORRT_MAJOR 11

namespace nvinfer1 {

using AsciiChar = char;

enum class DataType : std::int32_t { kFLOAT, kHALF, kINT8, kINT32, kBOOL, kUINT8, kFP8, kBF16, kINT64, kINT4 };
enum class TensorFormat : std::int32_t { kLINEAR = 0 };
enum class TensorRTPhase : std::int32_t { kBUILD = 0, kRUNTIME = 1 };
enum class PluginCapabilityType : std::int32_t { kCORE = 0, kBUILD = 1, kRUNTIME = 2 };
enum class PluginFieldType : std::int32_t {
    kFLOAT32 = 1,
    kFLOAT64 = 2,
    kINT32 = 5,
    kCHAR = 6,
    kUNKNOWN = 8,
    kINT64 = 10
};
enum class DimensionOperation : std::int32_t { kSUM = 0 };

struct InterfaceInfo {
    const AsciiChar* kind;
    std::int32_t major;
    std::int32_t minor;
};

class IVersionedInterface {
public:
    virtual InterfaceInfo getInterfaceInfo() const noexcept = 0;
    virtual ~IVersionedInterface() noexcept = default;
};

// ---- tensors

struct Dims {
    std::int32_t nbDims;
    std::int64_t d[8];
};

struct PluginTensorDesc {
    Dims dims;
    DataType type;
    TensorFormat format;
    float scale;
};

struct DynamicPluginTensorDesc {
    PluginTensorDesc desc;
    Dims min;
    Dims max;
    Dims opt;
};

class IDimensionExpr;

namespace apiv {

class VDimensionExpr {
public:
    virtual ~VDimensionExpr() noexcept = default;
    virtual bool isConstant() const = 0;
    virtual std::int64_t getConstantValue() const = 0;
    virtual bool isSizeTensor() const = 0;
};

class VExprBuilder {
public:
    virtual ~VExprBuilder() noexcept = default;
    virtual const IDimensionExpr* constant(std::int64_t value) = 0;
    virtual const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&, const IDimensionExpr&) = 0;
    virtual const IDimensionExpr* declareSizeTensor(std::int32_t, const IDimensionExpr&, const IDimensionExpr&) = 0;
};

}  // namespace apiv

class IDimensionExpr {
public:
    bool isConstant() const noexcept { return mImpl->isConstant(); }
    std::int64_t getConstantValue() const noexcept { return mImpl->getConstantValue(); }

protected:
    apiv::VDimensionExpr* mImpl;
    virtual ~IDimensionExpr() noexcept = default;
};

class IExprBuilder {
protected:
    apiv::VExprBuilder* mImpl;
    virtual ~IExprBuilder() noexcept = default;
};

struct DimsExprs {
    std::int32_t nbDims;
    const IDimensionExpr* d[8];
};

// ---- loggers

class ILogger : public IVersionedInterface {
public:
    enum class Severity : std::int32_t { kINTERNAL_ERROR = 0, kERROR = 1, kWARNING = 2, kINFO = 3, kVERBOSE = 4 };
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"ILogger", 1, 0}; }
    virtual void log(Severity severity, const AsciiChar* msg) noexcept = 0;
};

class ILoggerFinder : public IVersionedInterface {
public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"ILoggerFinder", 1, 0}; }
    virtual ILogger* findLogger() = 0;
};

// ---- plugins

struct PluginField {
    const AsciiChar* name;
    const void* data;
    PluginFieldType type;
    std::int32_t length;
    PluginField(const AsciiChar* name_, const void* data_, PluginFieldType type_, std::int32_t length_) noexcept
        : name(name_), data(data_), type(type_), length(length_) {}
};

struct PluginFieldCollection {
    std::int32_t nbFields{};
    const PluginField* fields{};
};

class IPluginResourceContext;

class IPluginCapability : public IVersionedInterface {};

class IPluginV3 : public IVersionedInterface {
public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN", 1, 0}; }
    virtual IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept = 0;
    virtual IPluginV3* clone() noexcept = 0;
};

class IPluginV3OneCore : public IPluginCapability {
public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_CORE", 1, 0}; }
    virtual const AsciiChar* getPluginName() const noexcept = 0;
    virtual const AsciiChar* getPluginVersion() const noexcept = 0;
    virtual const AsciiChar* getPluginNamespace() const noexcept = 0;
};

class IPluginV3OneBuild : public IPluginCapability {
public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_BUILD", 1, 0}; }
    virtual std::int32_t configurePlugin(const DynamicPluginTensorDesc*, std::int32_t, const DynamicPluginTensorDesc*,
                                         std::int32_t) noexcept = 0;
    virtual std::int32_t getOutputDataTypes(DataType*, std::int32_t, const DataType*, std::int32_t) const noexcept = 0;
    virtual std::int32_t getOutputShapes(const DimsExprs*, std::int32_t, const DimsExprs*, std::int32_t, DimsExprs*,
                                         std::int32_t, IExprBuilder&) noexcept = 0;
    virtual bool supportsFormatCombination(std::int32_t, const DynamicPluginTensorDesc*, std::int32_t,
                                           std::int32_t) noexcept = 0;
    virtual std::int32_t getNbOutputs() const noexcept = 0;
    virtual std::size_t getWorkspaceSize(const DynamicPluginTensorDesc*, std::int32_t, const DynamicPluginTensorDesc*,
                                         std::int32_t) const noexcept = 0;
    virtual std::int32_t getValidTactics(std::int32_t*, std::int32_t) noexcept = 0;
    virtual std::int32_t getNbTactics() noexcept = 0;
    virtual const char* getTimingCacheID() noexcept = 0;
    virtual const char* getMetadataString() noexcept = 0;
};

class IPluginV3OneRuntime : public IPluginCapability {
public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN_V3ONE_RUNTIME", 1, 0}; }
    virtual std::int32_t setTactic(std::int32_t) noexcept = 0;
    virtual std::int32_t onShapeChange(const PluginTensorDesc*, std::int32_t, const PluginTensorDesc*,
                                       std::int32_t) noexcept = 0;
    virtual std::int32_t enqueue(const PluginTensorDesc*, const PluginTensorDesc*, const void* const*, void* const*,
                                 void*, cudaStream_t) noexcept = 0;
    virtual IPluginV3* attachToContext(IPluginResourceContext*) noexcept = 0;
    virtual const PluginFieldCollection* getFieldsToSerialize() noexcept = 0;
};

class IPluginCreatorInterface : public IVersionedInterface {};

class IPluginCreatorV3One : public IPluginCreatorInterface {
public:
    InterfaceInfo getInterfaceInfo() const noexcept override { return {"PLUGIN CREATOR_V3ONE", 1, 0}; }
    virtual IPluginV3* createPlugin(const AsciiChar*, const PluginFieldCollection*, TensorRTPhase) noexcept = 0;
    virtual const PluginFieldCollection* getFieldNames() noexcept = 0;
    virtual const AsciiChar* getPluginName() const noexcept = 0;
    virtual const AsciiChar* getPluginVersion() const noexcept = 0;
    virtual const AsciiChar* getPluginNamespace() const noexcept = 0;
};

class IPluginRegistry {
public:
    using PluginLibraryHandle = void*;
    virtual PluginLibraryHandle loadLibrary(const AsciiChar* pluginPath) noexcept = 0;

protected:
    virtual ~IPluginRegistry() noexcept = default;
};

}  // namespace nvinfer1
