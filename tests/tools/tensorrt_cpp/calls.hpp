// The calls of windowed memory affinity as TensorRT describes them to a plugin, and a plugin asked as TensorRT asks it.
#pragma once

#include <NvInferRuntime.h>

#include <cstdint>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace calls {

using namespace nvinfer1;

// ---- a frame for tests -----------------------------------------------------------------------------------------

inline std::map<std::string, void (*)()>& tests() {
    static std::map<std::string, void (*)()> all;
    return all;
}

struct Registered {
    Registered(const char* name, void (*body)()) { tests()[name] = body; }
};

#define TEST(name)                                          \
    void name();                                            \
    calls::Registered const registered_##name(#name, name); \
    void name()

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

#define CHECK(condition)                                                                                        \
    do {                                                                                                        \
        if (!(condition))                                                                                       \
            throw std::runtime_error(std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " #condition); \
    } while (false)

// ---- what TensorRT hands to a plugin ---------------------------------------------------------------------------

class FakeExtent final : public IDimensionExpr {
public:
    explicit FakeExtent(std::int64_t value) : value_(value) { mImpl = &value_; }

private:
    struct Value final : apiv::VDimensionExpr {
        explicit Value(std::int64_t given) : value(given) {}
        bool isConstant() const override { return value >= 0; }
        std::int64_t getConstantValue() const override {
            CHECK(value >= 0);  // TensorRT forbids the question
            return value;
        }
        bool isSizeTensor() const override { return false; }
        std::int64_t value;
    };
    Value value_;
};

// The output's extents are those of inputs: nothing is ever built.
class FakeBuilder final : public IExprBuilder {
public:
    FakeBuilder() { mImpl = &refusal_; }

private:
    struct Refusal final : apiv::VExprBuilder {
        const IDimensionExpr* constant(std::int64_t) override { return nullptr; }
        const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&, const IDimensionExpr&) override {
            return nullptr;
        }
        const IDimensionExpr* declareSizeTensor(std::int32_t, const IDimensionExpr&, const IDimensionExpr&) override {
            return nullptr;
        }
    };
    Refusal refusal_;
};

using Shape = std::vector<std::int64_t>;

inline Dims dims(const Shape& shape) {
    Dims result{};
    result.nbDims = static_cast<std::int32_t>(shape.size());
    for (std::size_t i = 0; i < shape.size(); ++i) result.d[i] = shape[i];
    return result;
}

// A call of the operator. -1 stands for an extent that is not known.
struct Call {
    std::int64_t height = 30, width = 40, labels = 3, slots = 5, channels = 64, batch = 1;
    DataType type = DataType::kFLOAT;
    bool offsets = false;
    // What a test breaks afterwards.
    std::function<void(std::vector<Shape>&)> bend = [](std::vector<Shape>&) {};
    std::function<void(std::vector<DataType>&)> retype = [](std::vector<DataType>&) {};

    std::vector<Shape> shapes() const {
        std::vector<Shape> all{{batch, channels, height, width},
                               {batch, slots, channels, height, width},
                               {batch, slots, labels, height, width},
                               {batch, slots}};
        if (offsets) all.push_back({batch, slots, 2, height, width});
        bend(all);
        return all;
    }
    std::vector<DataType> types() const {
        std::vector<DataType> all{type, type, type, DataType::kINT32};
        if (offsets) all.push_back(DataType::kINT32);
        retype(all);
        return all;
    }
    std::vector<PluginTensorDesc> inputs() const {
        const auto all = shapes();
        const auto kinds = types();
        std::vector<PluginTensorDesc> result;
        for (std::size_t i = 0; i < all.size(); ++i)
            result.push_back({dims(all[i]), kinds[i], TensorFormat::kLINEAR, 1.f});
        return result;
    }
    PluginTensorDesc output() const { return {dims({batch, labels, height, width}), type, TensorFormat::kLINEAR, 1.f}; }
};

// The bounds of an optimization profile.
inline std::vector<DynamicPluginTensorDesc> profile(const Call& least, const Call& most) {
    const auto low = least.inputs();
    const auto high = most.inputs();
    std::vector<DynamicPluginTensorDesc> result;
    for (std::size_t i = 0; i < low.size(); ++i) result.push_back({high[i], low[i].dims, high[i].dims, high[i].dims});
    return result;
}

struct Fields {
    Fields() = default;
    Fields(const Fields&) = delete;  // the list points into the object

    std::int32_t radius = 12;
    float scale = 0.125f;
    std::int32_t top_k = 0;
    std::vector<PluginField> list{{"radius", &radius, PluginFieldType::kINT32, 1},
                                  {"scale", &scale, PluginFieldType::kFLOAT32, 1},
                                  {"top_k", &top_k, PluginFieldType::kINT32, 1}};
    PluginFieldCollection collection() { return {static_cast<std::int32_t>(list.size()), list.data()}; }
};

// ---- the plugin, asked -----------------------------------------------------------------------------------------

struct AskedPlugin {
    explicit AskedPlugin(IPluginV3* given) : object(given) {
        CHECK(object != nullptr);
        core = static_cast<IPluginV3OneCore*>(object->getCapabilityInterface(PluginCapabilityType::kCORE));
        build = static_cast<IPluginV3OneBuild*>(object->getCapabilityInterface(PluginCapabilityType::kBUILD));
        runtime = static_cast<IPluginV3OneRuntime*>(object->getCapabilityInterface(PluginCapabilityType::kRUNTIME));
        CHECK(core != nullptr && build != nullptr && runtime != nullptr);
    }
    std::int32_t configure(const Call& least, const Call& most) {
        const auto in = profile(least, most);
        const DynamicPluginTensorDesc out{most.output(), least.output().dims, most.output().dims, most.output().dims};
        return build->configurePlugin(in.data(), static_cast<std::int32_t>(in.size()), &out, 1);
    }
    std::vector<std::int32_t> tactics() {
        std::vector<std::int32_t> result(static_cast<std::size_t>(build->getNbTactics()));
        CHECK(build->getValidTactics(result.data(), build->getNbTactics()) == 0);
        return result;
    }
    std::size_t workspace(const Call& most) {
        Call least = most;
        least.height = least.width = 1;
        const auto in = profile(least, most);
        const DynamicPluginTensorDesc out{most.output(), {}, {}, {}};
        return build->getWorkspaceSize(in.data(), static_cast<std::int32_t>(in.size()), &out, 1);
    }
    std::int32_t types(const Call& call, DataType& result) {
        const auto in = call.types();
        return build->getOutputDataTypes(&result, 1, in.data(), static_cast<std::int32_t>(in.size()));
    }
    std::int32_t prepare(const Call& call) {
        const auto in = call.inputs();
        const PluginTensorDesc out = call.output();
        return runtime->onShapeChange(in.data(), static_cast<std::int32_t>(in.size()), &out, 1);
    }
    std::int32_t enqueue(const Call& call, cudaStream_t stream = nullptr) {
        const auto in = call.inputs();
        const PluginTensorDesc out = call.output();
        const void* inputs[] = {&memory[0], &memory[1], &memory[2], &memory[3], &memory[4]};
        void* outputs[] = {&memory[5]};
        return runtime->enqueue(in.data(), &out, inputs, outputs, &memory[6], stream);
    }

    std::unique_ptr<IPluginV3> object;
    IPluginV3OneCore* core;
    IPluginV3OneBuild* build;
    IPluginV3OneRuntime* runtime;
    char memory[7];  // addresses for enqueue
};

struct Shapes {
    explicit Shapes(const Call& call) {
        for (const Shape& shape : call.shapes()) {
            DimsExprs exprs{};
            exprs.nbDims = static_cast<std::int32_t>(shape.size());
            for (std::size_t axis = 0; axis < shape.size(); ++axis) {
                extents.push_back(std::make_unique<FakeExtent>(shape[axis]));
                exprs.d[axis] = extents.back().get();
            }
            inputs.push_back(exprs);
        }
    }
    std::int32_t ask(AskedPlugin& plugin) {
        FakeBuilder builder;
        return plugin.build->getOutputShapes(inputs.data(), static_cast<std::int32_t>(inputs.size()), nullptr, 0,
                                             &output, 1, builder);
    }
    std::vector<std::unique_ptr<FakeExtent>> extents;
    std::vector<DimsExprs> inputs;
    DimsExprs output{};
};

}  // namespace calls
