// The plugin library in the plugin registry of NVIDIA's own binaries (TensorRT lean, TensorRT-RTX): found by name,
// created, asked by real interface calls. With the real kernels' dispatch table, without a GPU.
//
// `registry_tests TENSORRT_LIBRARY PLUGIN_LIBRARY NAME` runs one TEST; what the plugin reports goes to stderr.
#include <dlfcn.h>

#include "calls.hpp"

using namespace calls;

namespace {

IPluginRegistry* registry = nullptr;
const char* plugin_library = nullptr;

IPluginCreatorV3One& creator() {
    static IPluginRegistry::PluginLibraryHandle const handle = registry->loadLibrary(plugin_library);
    CHECK(handle != nullptr);
    IPluginCreatorInterface* const found = registry->getCreator("WindowedAffinity", "1", "maskring");
    CHECK(found != nullptr && std::string(found->getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE");
    return static_cast<IPluginCreatorV3One&>(*found);
}

IPluginV3* create(std::int32_t radius = 12, float scale = 0.125f) {
    Fields fields;
    fields.radius = radius;
    fields.scale = scale;
    const PluginFieldCollection collection = fields.collection();
    return creator().createPlugin("memory_read", &collection, TensorRTPhase::kBUILD);
}

TEST(types_and_formats) {
    AskedPlugin plugin(create());
    for (DataType type : {DataType::kFLOAT, DataType::kHALF}) {
        const Call call{.type = type};
        DataType result = DataType::kBOOL;
        CHECK(plugin.types(call, result) == 0 && result == type);
        auto tensors = profile(call, call);
        tensors.push_back({call.output(), {}, {}, {}});
        for (std::int32_t pos = 0; pos <= 4; ++pos) {
            CHECK(plugin.build->supportsFormatCombination(pos, tensors.data(), 4, 1));
            tensors[pos].desc.format = TensorFormat::kCHW32;
            CHECK(!plugin.build->supportsFormatCombination(pos, tensors.data(), 4, 1));
            tensors[pos].desc.format = TensorFormat::kLINEAR;
        }
    }
}

TEST(shapes) {
    AskedPlugin plugin(create());
    Shapes shapes({.height = -1, .width = -1, .labels = -1});
    CHECK(shapes.ask(plugin) == 0 && shapes.output.nbDims == 4);
    CHECK(shapes.output.d[0] == shapes.inputs[0].d[0] && shapes.output.d[1] == shapes.inputs[2].d[2]);
    CHECK(shapes.output.d[2] == shapes.inputs[0].d[2] && shapes.output.d[3] == shapes.inputs[0].d[3]);
}

TEST(profiles_and_workspace) {
    for (std::int32_t radius : {6, 12, 9}) {
        AskedPlugin plugin(create(radius));
        for (DataType type : {DataType::kFLOAT, DataType::kHALF}) {
            for (bool offsets : {false, true}) {
                const Call least{.height = 1, .width = 1, .labels = 1, .type = type, .offsets = offsets};
                const Call most{.height = 270, .width = 480, .labels = 32, .type = type, .offsets = offsets};
                CHECK(plugin.configure(least, most) == 0);
                CHECK(plugin.tactics().empty() && plugin.runtime->setTactic(0) == 0);
                // Only the kernels for tensor cores need any.
                CHECK((plugin.workspace(most) > 0) == (type == DataType::kHALF && !offsets));
            }
        }
    }
}

TEST(serialized_fields_make_the_same_plugin) {
    AskedPlugin plugin(create(7, 0.3f));
    for (TensorRTPhase phase : {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME}) {
        AskedPlugin again(creator().createPlugin("engine", plugin.runtime->getFieldsToSerialize(), phase));
        const AskedPlugin copy(again.object->clone());
        CHECK(std::string(plugin.build->getMetadataString()) == copy.build->getMetadataString());
        CHECK(contains(copy.build->getMetadataString(), "radius=7 scale=0.3 top_k=0 kernels="));
        CHECK(std::string(plugin.build->getTimingCacheID()) == copy.build->getTimingCacheID());
    }
}

// The sentences of these are read by the caller.
TEST(refuses_a_radius) { CHECK(create(17) == nullptr); }

TEST(refuses_a_type) {
    DataType result;
    CHECK(AskedPlugin(create()).types({.type = DataType::kINT8}, result) != 0);
}

TEST(refuses_a_rank) {
    AskedPlugin plugin(create());
    CHECK(Shapes({.bend = [](auto& all) { all[0].pop_back(); }}).ask(plugin) != 0);
}

TEST(refuses_channels) {
    AskedPlugin plugin(create());
    CHECK(Shapes({.channels = 12}).ask(plugin) != 0);
}

TEST(refuses_labels) {
    AskedPlugin plugin(create());
    CHECK(plugin.configure({.labels = 2}, {.labels = 33}) != 0);
}

TEST(refuses_to_run_without_a_device) { CHECK(AskedPlugin(create()).prepare({}) != 0); }

}  // namespace

int main(int count, char** arguments) {
    if (count != 4 || tests().count(arguments[3]) == 0) {
        std::fputs("usage: registry_tests TENSORRT_LIBRARY PLUGIN_LIBRARY NAME\n", stderr);
        return 2;
    }
    try {
        void* const tensorrt = dlopen(arguments[1], RTLD_NOW);
        CHECK(tensorrt != nullptr);
        const auto get = reinterpret_cast<IPluginRegistry* (*)()>(dlsym(tensorrt, "getPluginRegistry"));
        CHECK(get != nullptr);
        registry = get();
        plugin_library = arguments[2];
        tests()[arguments[3]]();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
