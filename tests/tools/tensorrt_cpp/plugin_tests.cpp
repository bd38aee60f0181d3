// Calls every virtual function of the plugin as TensorRT does, without TensorRT, CUDA or a GPU. Built against
// NVIDIA's headers where they are at hand, and against tensorrt_double/ everywhere.
//
// `plugin_tests NAME` runs one TEST; the exit status says whether it held.
#include <atomic>
#include <cstdlib>
#include <limits>
#include <new>
#include <thread>

#include "calls.hpp"
#include "cuda_double.hpp"
#include "launch_double.hpp"
#include "tensorrt/plugin.hpp"

using namespace calls;
using launch_double::last_launch;
using launch_double::Row;

namespace {

std::atomic<std::size_t> allocations{0};

// ---- what TensorRT hands to a plugin ---------------------------------------------------------------------------

class RecordingLogger final : public ILogger {
public:
    void log(Severity severity, const AsciiChar* message) noexcept override {
        severities.push_back(severity);
        lines.emplace_back(message);
    }
    std::vector<Severity> severities;
    std::vector<std::string> lines;
};

class Finder final : public ILoggerFinder {
public:
    ILogger* findLogger() override {
        if (fails) throw std::runtime_error("no logger for you");
        return &logger;
    }
    RecordingLogger logger;
    bool fails = false;
};

Finder& finder() {
    static Finder one;
    return one;
}

// The last sentence that was logged; none is left for the next question.
std::string said() {
    auto& lines = finder().logger.lines;
    std::string const last = lines.empty() ? "" : lines.back();
    lines.clear();
    return last;
}

// Checks that the last log line contains every one of the given parts.
#define CHECK_SAYS(...) check_says(__LINE__, {__VA_ARGS__})

void check_says(int line, std::initializer_list<std::string> parts) {
    const std::string message = said();
    for (const std::string& part : parts)
        if (!contains(message, part))
            throw std::runtime_error("line " + std::to_string(line) + ": \"" + message + "\" does not say \"" + part +
                                     "\"");
    CHECK(contains(message, "maskring::WindowedAffinity: ") && message.back() == '.');
}

// ---- the plugin under test -------------------------------------------------------------------------------------

IPluginCreatorV3One& creator() {
    std::int32_t count = 0;
    const auto creators = getCreators(count);
    CHECK(count == 1);
    return static_cast<IPluginCreatorV3One&>(*creators[0]);
}

IPluginV3* create(Fields& fields, TensorRTPhase phase = TensorRTPhase::kBUILD) {
    const PluginFieldCollection collection = fields.collection();
    return creator().createPlugin("memory_read", &collection, phase);
}

struct Plugin : AskedPlugin {
    using AskedPlugin::AskedPlugin;
    explicit Plugin(std::int32_t radius = 12) : AskedPlugin(of_radius(radius)) {}

    static IPluginV3* of_radius(std::int32_t radius) {
        Fields fields;
        fields.radius = radius;
        return create(fields);
    }
};

// ---- core ------------------------------------------------------------------------------------------------------

TEST(names_are_those_of_the_operator) {
    Plugin plugin;
    for (const char* name : {plugin.core->getPluginName(), creator().getPluginName()})
        CHECK(std::string(name) == "WindowedAffinity");
    for (const char* version : {plugin.core->getPluginVersion(), creator().getPluginVersion()})
        CHECK(std::string(version) == "1");
    for (const char* space : {plugin.core->getPluginNamespace(), creator().getPluginNamespace()})
        CHECK(std::string(space) == "maskring");
    CHECK(plugin.build->getNbOutputs() == 1);
    CHECK(plugin.object->getCapabilityInterface(static_cast<PluginCapabilityType>(7)) == nullptr);
}

TEST(the_library_names_its_tensorrt) { CHECK(maskring_tensorrt_major() == NV_TENSORRT_MAJOR); }

TEST(the_library_names_its_cuda) { CHECK(maskring_cuda_runtime() >= 12000); }

// ---- types and formats -----------------------------------------------------------------------------------------

TEST(output_has_the_type_of_the_query) {
    Plugin plugin;
    for (DataType type : {DataType::kFLOAT, DataType::kHALF}) {
        for (bool offsets : {false, true}) {
            DataType result = DataType::kBOOL;
            CHECK(plugin.types({.type = type, .offsets = offsets}, result) == 0);
            CHECK(result == type);
        }
    }
    CHECK(said().empty());
}

TEST(wrong_types_are_named) {
    Plugin plugin;
    DataType result;
    CHECK(plugin.types({.type = DataType::kINT8}, result) != 0);
    CHECK_SAYS("query is int8", "cast it to float32 or float16");
    CHECK(plugin.types({.retype = [](auto& types) { types[1] = DataType::kHALF; }}, result) != 0);
    CHECK_SAYS("keys is float16", "query is float32", "; cast both");
    CHECK(plugin.types({.retype = [](auto& types) { types[3] = DataType::kINT64; }}, result) != 0);
    CHECK_SAYS("dilation is int64", "cast it to int32");
    CHECK(plugin.types({.offsets = true, .retype = [](auto& types) { types[4] = DataType::kFLOAT; }}, result) != 0);
    CHECK_SAYS("offsets is float32", "cast it to int32");
    CHECK(plugin.types({.retype = [](auto& types) { types.pop_back(); }}, result) != 0);
    CHECK_SAYS("3 inputs", "query, keys, values, dilation");
    const DataType types[] = {DataType::kFLOAT, DataType::kFLOAT, DataType::kFLOAT, DataType::kINT32};
    DataType two[2];
    CHECK(plugin.build->getOutputDataTypes(two, 2, types, 4) != 0);
    CHECK_SAYS("2 outputs", "exactly one");
}

// Every type and format at every position, with what is allowed before it.
TEST(format_combinations_are_the_expected_ones) {
    Plugin plugin;
    int supported = 0;
    for (bool offsets : {false, true}) {
        for (DataType type : {DataType::kFLOAT, DataType::kHALF}) {
            const Call call{.type = type, .offsets = offsets};
            auto tensors = profile(call, call);
            tensors.push_back({call.output(), {}, {}, {}});
            const auto inputs = static_cast<std::int32_t>(tensors.size()) - 1;
            for (std::int32_t pos = 0; pos <= inputs; ++pos) {
                const DataType expected = tensors[pos].desc.type;
                for (int kind = 0; kind <= static_cast<int>(DataType::kINT4); ++kind) {
                    for (int format = 0; format < 13; ++format) {
                        tensors[pos].desc.type = static_cast<DataType>(kind);
                        tensors[pos].desc.format = static_cast<TensorFormat>(format);
                        const bool linear = tensors[pos].desc.format == TensorFormat::kLINEAR;
                        const bool fits = tensors[pos].desc.type == expected ||
                                          (pos == 0 && (kind == int(DataType::kFLOAT) || kind == int(DataType::kHALF)));
                        const bool answer = plugin.build->supportsFormatCombination(pos, tensors.data(), inputs, 1);
                        CHECK(answer == (linear && fits));
                        supported += answer;
                    }
                }
                tensors[pos].desc.type = expected;
                tensors[pos].desc.format = TensorFormat::kLINEAR;
            }
        }
    }
    // Per type: two at the query, one at each other position.
    CHECK(supported == 2 * (2 + 4) + 2 * (2 + 5));
    CHECK(said().empty());
}

TEST(format_questions_about_other_signatures_are_answered_no) {
    Plugin plugin;
    const Call call{.offsets = true};
    auto tensors = profile(call, call);
    tensors.resize(8, {call.output(), {}, {}, {}});
    CHECK(!plugin.build->supportsFormatCombination(0, tensors.data(), 3, 1));
    CHECK(!plugin.build->supportsFormatCombination(0, tensors.data(), 6, 1));
    CHECK(!plugin.build->supportsFormatCombination(0, tensors.data(), 4, 2));
    CHECK(!plugin.build->supportsFormatCombination(-1, tensors.data(), 5, 1));
    CHECK(!plugin.build->supportsFormatCombination(6, tensors.data(), 5, 1));
}

// ---- shapes ----------------------------------------------------------------------------------------------------

TEST(output_shape_is_made_of_the_inputs_extents) {
    Plugin plugin;
    for (std::int64_t extent : {30, -1}) {
        for (bool offsets : {false, true}) {
            Shapes shapes({.height = extent, .width = extent, .labels = extent, .batch = extent, .offsets = offsets});
            CHECK(shapes.ask(plugin) == 0);
            CHECK(shapes.output.nbDims == 4);
            CHECK(shapes.output.d[0] == shapes.inputs[0].d[0]);
            CHECK(shapes.output.d[1] == shapes.inputs[2].d[2]);
            CHECK(shapes.output.d[2] == shapes.inputs[0].d[2]);
            CHECK(shapes.output.d[3] == shapes.inputs[0].d[3]);
        }
    }
    CHECK(said().empty());
}

TEST(wrong_shapes_are_named) {
    Plugin plugin;
    CHECK(Shapes({.bend = [](auto& all) { all[0].pop_back(); }}).ask(plugin) != 0);
    CHECK_SAYS("query has 3 dimensions", "[B, C, H, W]");
    CHECK(Shapes({.bend = [](auto& all) { all[3].push_back(1); }}).ask(plugin) != 0);
    CHECK_SAYS("dilation has 3 dimensions", "[B, N]");
    CHECK(Shapes({.bend = [](auto& all) { all[1][2] = 32; }}).ask(plugin) != 0);
    CHECK_SAYS("keys", "32 along axis 2", "64", "[B, N, C, H, W]");
    CHECK(Shapes({.bend = [](auto& all) { all[2][1] = 4; }}).ask(plugin) != 0);
    CHECK_SAYS("values", "4 along axis 1", "5");
    CHECK(Shapes({.bend = [](auto& all) { all[3][1] = 4; }}).ask(plugin) != 0);
    CHECK_SAYS("dilation", "4 along axis 1", "5");
    CHECK(Shapes({.offsets = true, .bend = [](auto& all) { all[4][2] = 3; }}).ask(plugin) != 0);
    CHECK_SAYS("offsets", "3 along axis 2", "2");
    CHECK(Shapes({.bend = [](auto& all) { all.pop_back(); }}).ask(plugin) != 0);
    CHECK_SAYS("3 inputs");
    CHECK(Shapes({.width = std::int64_t{1} << 40}).ask(plugin) != 0);
    CHECK_SAYS("more than 2^31 elements", "smaller frames");
}

TEST(what_kernels_cannot_compute_is_refused_before_the_build) {
    Plugin plugin;
    CHECK(Shapes({.height = -1, .channels = 12}).ask(plugin) != 0);
    CHECK_SAYS("channels", "pad them");
    CHECK(Shapes({.width = -1, .labels = 33}).ask(plugin) != 0);
    CHECK_SAYS("labels", "track fewer objects");
    CHECK(Shapes({.slots = 17}).ask(plugin) != 0);
    CHECK_SAYS("slots", "memory policy");
}

// ---- the choice of kernels, and workspace ----------------------------------------------------------------------

TEST(tensorrt_is_offered_no_choice) {
    Plugin plugin;
    for (DataType type : {DataType::kFLOAT, DataType::kHALF}) {
        CHECK(plugin.configure({.width = 32, .type = type}, {.width = 65, .type = type}) == 0);
        CHECK(plugin.tactics().empty());
    }
    std::int32_t some[2];
    CHECK(plugin.build->getValidTactics(some, 2) != 0);
}

TEST(a_profile_needs_a_kernel_of_the_device) {
    Plugin plugin;
    const Call half{.type = DataType::kHALF};
    cuda_double::compute_capability = 75;
    CHECK(plugin.configure(half, half) == 0);
    cuda_double::compute_capability = 70;
    CHECK(plugin.configure(half, half) != 0);
    CHECK_SAYS("the GPU is too old; use a newer one");
    cuda_double::compute_capability = 0;  // no device: plans are made for any
    CHECK(plugin.configure(half, half) == 0);
}

TEST(a_profile_beyond_the_kernels_is_refused) {
    Plugin plugin;
    CHECK(plugin.configure({.labels = 2}, {.labels = 33}) != 0);
    CHECK_SAYS("labels", "track fewer objects");
    CHECK(plugin.configure({.height = 0}, {}) != 0);
    CHECK_SAYS("a tensor is empty");
    CHECK(plugin.configure({.retype = [](auto& types) { types[0] = DataType::kBF16; }},
                           {.retype = [](auto& types) { types[0] = DataType::kBF16; }}) != 0);
    CHECK_SAYS("query is bfloat16");
    CHECK(plugin.configure({.height = -1, .width = -1}, {.height = -1, .width = -1}) == 0);  // not known yet
}

TEST(workspace_is_the_largest_that_any_kernel_needs) {
    Plugin plugin;
    CHECK(plugin.workspace({.height = 120, .width = 130, .batch = 2, .type = DataType::kHALF}) == 4 * 2 * 120 * 130);
    CHECK(plugin.workspace({.height = 120, .width = 130}) == 0);
    CHECK(plugin.workspace({.type = DataType::kHALF, .offsets = true}) == 0);
    cuda_double::compute_capability = 75;
    CHECK(plugin.workspace({.type = DataType::kHALF}) == 0);
    CHECK(said().empty());
}

TEST(timing_cache_id_names_what_shapes_do_not_tell) {
    Fields fields;
    fields.scale = 0.5f;
    Plugin six(6), twelve(12), other_scale(create(fields));
    CHECK(std::string(six.build->getTimingCacheID()) != twelve.build->getTimingCacheID());
    CHECK(std::string(other_scale.build->getTimingCacheID()) == twelve.build->getTimingCacheID());
    CHECK(contains(twelve.build->getTimingCacheID(), maskring::kernels_fingerprint()));
    CHECK(contains(twelve.build->getMetadataString(), "radius=12 scale=0.125 top_k=0"));
}

// ---- execution -------------------------------------------------------------------------------------------------

TEST(enqueue_launches_what_it_was_given) {
    Plugin plugin;
    const auto stream = reinterpret_cast<cudaStream_t>(std::uintptr_t{0x1234});
    for (bool offsets : {false, true}) {
        const Call call{
            .height = 31, .width = 70, .labels = 4, .slots = 2, .channels = 16, .batch = 3, .offsets = offsets};
        CHECK(plugin.prepare(call) == 0);
        CHECK(plugin.enqueue(call, stream) == 0);
        const auto& problem = last_launch->problem;
        CHECK(last_launch->row == Row::ANY_F32 && last_launch->stream == stream);
        CHECK(problem.type == maskring::ElementType::float32);
        CHECK(problem.batch == 3 && problem.slots == 2 && problem.channels == 16 && problem.labels == 4);
        CHECK(problem.height == 31 && problem.width == 70 && problem.radius == 12 && problem.scale == 0.125f);
        CHECK(problem.query == &plugin.memory[0] && problem.keys == &plugin.memory[1]);
        CHECK(problem.values == &plugin.memory[2] && static_cast<const void*>(problem.dilation) == &plugin.memory[3]);
        CHECK(static_cast<const void*>(problem.offsets) == (offsets ? &plugin.memory[4] : nullptr));
        CHECK(problem.out == &plugin.memory[5] && problem.workspace == &plugin.memory[6]);
    }
    CHECK(said().empty());
}

TEST(enqueue_allocates_nothing) {
    Plugin plugin;
    const Call call{.offsets = true};
    CHECK(plugin.prepare(call) == 0);
    const auto in = call.inputs();
    const PluginTensorDesc out = call.output();
    const void* inputs[] = {&plugin.memory[0], &plugin.memory[1], &plugin.memory[2], &plugin.memory[3],
                            &plugin.memory[4]};
    void* outputs[] = {&plugin.memory[5]};
    std::size_t const before = allocations;
    CHECK(plugin.runtime->enqueue(in.data(), &out, inputs, outputs, nullptr, nullptr) == 0);
    CHECK(allocations == before);
}

TEST(the_table_chooses_by_shape_and_device) {
    Plugin plugin;
    const Call half{.type = DataType::kHALF}, moved{.type = DataType::kHALF, .offsets = true};
    CHECK(plugin.runtime->setTactic(0) == 0);  // TensorRT's word for no choice
    CHECK(plugin.prepare(half) == 0 && plugin.enqueue(half) == 0);
    CHECK(last_launch->row == Row::TENSOR_CORES);
    CHECK(last_launch->problem.type == maskring::ElementType::float16);
    CHECK(plugin.prepare(moved) == 0 && plugin.enqueue(moved) == 0);
    CHECK(last_launch->row == Row::ANY_F16);
    cuda_double::compute_capability = 75;
    CHECK(plugin.prepare(half) == 0 && plugin.enqueue(half) == 0);
    CHECK(last_launch->row == Row::ANY_F16);
}

TEST(a_stored_choice_is_refused) {
    Plugin plugin;
    for (std::int32_t tactic : {Row::TENSOR_CORES + 1, Row::ROWS + 1, -1}) {
        CHECK(plugin.runtime->setTactic(tactic) != 0);
        CHECK_SAYS(std::to_string(tactic), "rebuild the engine");
    }
}

TEST(enqueue_without_a_shape_is_refused) {
    Plugin plugin;
    last_launch.reset();
    CHECK(plugin.enqueue({}) != 0);
    CHECK_SAYS("enqueue without a successful onShapeChange");
    CHECK(finder().logger.severities.back() == ILogger::Severity::kINTERNAL_ERROR);
    CHECK(!last_launch);
}

TEST(a_refused_shape_leaves_nothing_to_run) {
    Plugin plugin;
    CHECK(plugin.prepare({}) == 0);
    CHECK(plugin.prepare({.labels = 40}) != 0);
    said();
    last_launch.reset();
    CHECK(plugin.enqueue({}) != 0);
    CHECK_SAYS("enqueue without a successful onShapeChange");
    CHECK(!last_launch);
}

TEST(wrong_shapes_at_run_time_are_named) {
    Plugin plugin;
    CHECK(plugin.prepare({.bend = [](auto& all) { all[2][3] = 31; }}) != 0);
    CHECK_SAYS("values", "31 along axis 3", "30");
    CHECK(finder().logger.severities.back() == ILogger::Severity::kERROR);
    CHECK(plugin.prepare({.height = 0}) != 0);
    CHECK_SAYS("a tensor is empty");
    CHECK(plugin.prepare({.labels = 40}) != 0);
    CHECK_SAYS("labels", "track fewer objects");
    CHECK(plugin.prepare({.retype = [](auto& types) { types[2] = DataType::kHALF; }}) != 0);
    CHECK_SAYS("values is float16", "query is float32");
    const Call call;
    const auto in = call.inputs();
    PluginTensorDesc out = call.output();
    out.type = DataType::kHALF;
    CHECK(plugin.runtime->onShapeChange(in.data(), 4, &out, 1) != 0);
    CHECK_SAYS("output is float16", "query is float32");
}

TEST(no_device_is_said) {
    Plugin plugin;
    cuda_double::compute_capability = 0;
    CHECK(plugin.prepare({}) != 0);
    CHECK_SAYS("CUDA device", "(no device is there)", "nvidia-smi");
}

TEST(a_failed_launch_is_said) {
    Plugin plugin;
    CHECK(plugin.prepare({}) == 0);
    launch_double::launch_error = 700;
    CHECK(plugin.enqueue({}) != 0);
    CHECK_SAYS("kernel any f32", "(something failed)", "earlier CUDA error");
}

TEST(a_logger_that_fails_does_no_harm) {
    finder().fails = true;
    CHECK(Plugin().runtime->setTactic(99) != 0);
    finder().fails = false;
    setLoggerFinder(nullptr);
    CHECK(Plugin().runtime->setTactic(99) != 0);  // goes to stderr
    CHECK(finder().logger.lines.empty());
}

TEST(contexts_share_nothing) {
    Plugin original;
    std::vector<std::thread> threads;
    std::vector<int> failures(8, 0);
    std::vector<std::unique_ptr<Plugin>> contexts;
    for (int i = 0; i < 8; ++i)
        contexts.push_back(std::make_unique<Plugin>(original.runtime->attachToContext(nullptr)));
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
            Call const call{.height = 10 + i, .width = 20 + i};
            failures[i] += contexts[i]->prepare(call) != 0;
            for (int repeat = 0; repeat < 100; ++repeat) {
                failures[i] += contexts[i]->enqueue(call) != 0;
                failures[i] +=
                    last_launch->problem.height != 10 + i || last_launch->problem.out != &contexts[i]->memory[5];
            }
        });
    }
    for (auto& thread : threads) thread.join();
    CHECK(failures == std::vector<int>(8, 0));
}

// ---- copies and serialization ----------------------------------------------------------------------------------

TEST(clones_live_on_their_own) {
    auto original = std::make_unique<Plugin>(6);
    CHECK(original->configure({}, {}) == 0);
    Plugin copy(original->object->clone());
    std::string const metadata = original->build->getMetadataString();
    original.reset();
    CHECK(metadata == copy.build->getMetadataString());
    CHECK(copy.prepare({}) == 0 && copy.enqueue({}) == 0);
    CHECK(last_launch->row == Row::ANY_F32 && last_launch->problem.radius == 6);
}

TEST(serialized_fields_make_the_same_plugin) {
    for (TensorRTPhase phase : {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME}) {
        Fields fields;
        fields.radius = 7;
        fields.scale = 0.3f;
        Plugin plugin(create(fields));
        const Plugin copy(plugin.object->clone());
        Plugin again(creator().createPlugin("engine", copy.runtime->getFieldsToSerialize(), phase));
        CHECK(std::string(plugin.build->getMetadataString()) == again.build->getMetadataString());
        CHECK(again.prepare({}) == 0 && again.enqueue({}) == 0);
        CHECK(last_launch->problem.radius == 7 && last_launch->problem.scale == 0.3f);
    }
}

TEST(an_engine_of_other_kernels_is_refused) {
    Plugin plugin;
    const auto* serialized = plugin.runtime->getFieldsToSerialize();
    std::vector<PluginField> fields(serialized->fields, serialized->fields + serialized->nbFields);
    CHECK(fields.size() == 4 && std::string(fields[3].name) == "kernels");
    std::string other(static_cast<const char*>(fields[3].data), fields[3].length);
    CHECK(other == maskring::kernels_fingerprint());
    other.back() = other.back() == '0' ? '1' : '0';
    fields[3].data = other.data();
    const PluginFieldCollection changed{4, fields.data()};
    CHECK(creator().createPlugin("engine", &changed, TensorRTPhase::kRUNTIME) == nullptr);
    CHECK_SAYS(other, maskring::kernels_fingerprint(), "rebuild the engine");
    fields[3].type = PluginFieldType::kINT32;
    CHECK(creator().createPlugin("engine", &changed, TensorRTPhase::kRUNTIME) == nullptr);
    CHECK_SAYS(maskring::kernels_fingerprint(), "rebuild the engine");
}

TEST(another_table_is_another_fingerprint) {
    std::string const before = maskring::kernels_fingerprint();
    launch_double::names[Row::ANY_F16] = "some f16";
    std::string const renamed = maskring::kernels_fingerprint();
    launch_double::names[Row::ANY_F16] = "any f16";
    std::swap(launch_double::names[0], launch_double::names[1]);
    std::string const reordered = maskring::kernels_fingerprint();
    CHECK(before != renamed && before != reordered && renamed != reordered);
    launch_double::names[2] = "ab", launch_double::names[3] = "c";
    std::string const apart = maskring::kernels_fingerprint();
    launch_double::names[2] = "a", launch_double::names[3] = "bc";
    CHECK(apart != maskring::kernels_fingerprint());
    CHECK(before.rfind(MASKRING_VERSION "-", 0) == 0);
}

// ---- the creator -----------------------------------------------------------------------------------------------

TEST(the_creator_lists_the_attributes_of_the_node) {
    const auto* names = creator().getFieldNames();
    CHECK(names->nbFields == 3);
    CHECK(std::string(names->fields[0].name) == "radius" && names->fields[0].type == PluginFieldType::kINT32);
    CHECK(std::string(names->fields[1].name) == "scale" && names->fields[1].type == PluginFieldType::kFLOAT32);
    CHECK(std::string(names->fields[2].name) == "top_k" && names->fields[2].type == PluginFieldType::kINT32);
}

TEST(attributes_may_be_wide_and_top_k_may_be_missing) {
    std::int64_t const radius = 9;
    const double scale = 0.25;
    const PluginField wide[] = {{"scale", &scale, PluginFieldType::kFLOAT64, 1},
                                {"radius", &radius, PluginFieldType::kINT64, 1}};
    const PluginFieldCollection collection{2, wide};
    Plugin plugin(creator().createPlugin("memory_read", &collection, TensorRTPhase::kBUILD));
    CHECK(contains(plugin.build->getMetadataString(), "radius=9 scale=0.25 top_k=0"));
}

TEST(bad_attributes_are_named) {
    const auto refused = [](const std::function<void(Fields&)>& spoil) {
        Fields fields;
        spoil(fields);
        return create(fields) == nullptr;
    };
    for (std::int32_t radius : {-1, 17, std::numeric_limits<std::int32_t>::max()}) {
        CHECK(refused([&](Fields& fields) { fields.radius = radius; }));
        CHECK_SAYS("radius", "use a smaller one");
    }
    std::int64_t const huge = (std::int64_t{1} << 32) + 6;  // 6, if it were cut to 32 bits
    CHECK(refused([&](Fields& f) { f.list[0] = {"radius", &huge, PluginFieldType::kINT64, 1}; }));
    CHECK_SAYS("radius", "use a smaller one");
    CHECK(refused([](Fields& f) { f.list[0].type = PluginFieldType::kFLOAT32; }));
    CHECK_SAYS("attribute radius", "integer", "export the model again");
    CHECK(refused([](Fields& f) { f.list[0].length = 2; }));
    CHECK_SAYS("attribute radius", "integer", "export the model again");
    CHECK(refused([](Fields& f) { f.list[0].data = nullptr; }));
    CHECK_SAYS("attribute radius", "integer", "export the model again");
    CHECK(refused([](Fields& f) { f.list[1].type = PluginFieldType::kINT32; }));
    CHECK_SAYS("attribute scale", "real number", "export the model again");
    CHECK(refused([](Fields& f) { f.scale = std::numeric_limits<float>::quiet_NaN(); }));
    CHECK_SAYS("scale is nan", "finite");
    CHECK(refused([](Fields& f) { f.scale = -0.5f; }));
    CHECK_SAYS("scale is -0.5");
    CHECK(refused([](Fields& f) { f.top_k = 10; }));
    CHECK_SAYS("top_k is 10", "export with top_k 0");
    CHECK(refused([](Fields& f) { f.list.erase(f.list.begin()); }));
    CHECK_SAYS("attribute radius is missing");
    CHECK(refused([](Fields& f) { f.list.erase(f.list.begin() + 1); }));
    CHECK_SAYS("attribute scale is missing");
    CHECK(refused([](Fields& f) { f.list.push_back({"radious", &f.radius, PluginFieldType::kINT32, 1}); }));
    CHECK_SAYS("attribute radious");
    CHECK(creator().createPlugin("memory_read", nullptr, TensorRTPhase::kBUILD) == nullptr);
    CHECK_SAYS("the node has no attributes");
}

}  // namespace

// Counts what the plugin allocates.
void* operator new(std::size_t size) {
    ++allocations;
    if (void* const memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

int main(int count, char** arguments) {
    if (count != 2 || tests().count(arguments[1]) == 0) {
        std::fputs("usage: plugin_tests NAME\n", stderr);
        return 2;
    }
    setLoggerFinder(&finder());
    try {
        tests()[arguments[1]]();
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    return 0;
}
