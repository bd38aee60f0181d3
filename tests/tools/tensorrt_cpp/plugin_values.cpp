// Runs problems through the plugin, from the creator to enqueue, with the real kernels executed as C++:
// plugin_values IN OUT, or plugin_values --list for the names of the kernels. Files and output are those of
// tests/cuda_on_cpu/fibers/run_cases.cpp; a problem's row is selected through MASKRING_KERNEL.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "calls.hpp"
#include "cuda_double.hpp"
#include "tensorrt/plugin.hpp"

using namespace calls;

namespace {

struct Header {
    std::int32_t row, sm, type, batch, slots, channels, labels, height, width, radius, has_offsets;
    float scale;
};

// A heap block of exactly that size, so that AddressSanitizer sees an access beyond it.
using Memory = std::unique_ptr<void, decltype(&std::free)>;

Memory allocate(std::size_t bytes) {
    void* memory = nullptr;
    CHECK(posix_memalign(&memory, 256, bytes) == 0);
    return {memory, std::free};
}

std::size_t bytes_of(const PluginTensorDesc& tensor) {
    std::size_t bytes = tensor.type == DataType::kHALF ? 2 : 4;
    for (int axis = 0; axis < tensor.dims.nbDims; ++axis) bytes *= static_cast<std::size_t>(tensor.dims.d[axis]);
    return bytes;
}

// As TensorRT goes about it: plan, serialize, deserialize, attach to a context, run.
IPluginV3* planned_and_attached(const Header& h, const Call& call) {
    std::int32_t count = 0;
    auto& creator = static_cast<IPluginCreatorV3One&>(*getCreators(count)[0]);
    Fields fields;
    fields.radius = h.radius;
    fields.scale = h.scale;
    const PluginFieldCollection attributes = fields.collection();
    AskedPlugin planned(creator.createPlugin("read", &attributes, TensorRTPhase::kBUILD));
    CHECK(planned.configure(call, call) == 0);
    AskedPlugin engine(creator.createPlugin("read", planned.runtime->getFieldsToSerialize(), TensorRTPhase::kRUNTIME));
    CHECK(engine.runtime->setTactic(0) == 0);
    return engine.runtime->attachToContext(nullptr);
}

void run(const Header& h, std::FILE* in, std::FILE* out) {
    cuda_double::compute_capability = h.sm;
    if (h.row < 0)
        unsetenv("MASKRING_KERNEL");
    else
        setenv("MASKRING_KERNEL", maskring::configuration_name(h.row), 1);
    const Call call{.height = h.height,
                    .width = h.width,
                    .labels = h.labels,
                    .slots = h.slots,
                    .channels = h.channels,
                    .batch = h.batch,
                    .type = h.type == 0 ? DataType::kFLOAT : DataType::kHALF,
                    .offsets = h.has_offsets != 0};
    AskedPlugin plugin(planned_and_attached(h, call));
    CHECK(plugin.prepare(call) == 0);
    const auto described = call.inputs();
    const PluginTensorDesc result = call.output();
    std::vector<Memory> memory;
    std::vector<const void*> inputs;
    for (const PluginTensorDesc& tensor : described) {
        memory.push_back(allocate(bytes_of(tensor)));
        inputs.push_back(memory.back().get());
        CHECK(std::fread(memory.back().get(), 1, bytes_of(tensor), in) == bytes_of(tensor));
    }
    const Memory made = allocate(bytes_of(result));
    const Memory workspace = allocate(plugin.workspace(call) + 1);
    void* outputs[] = {made.get()};
    CHECK(plugin.runtime->enqueue(described.data(), &result, inputs.data(), outputs, workspace.get(), nullptr) == 0);
    std::puts(h.row < 0 ? "chosen" : maskring::configuration_name(h.row));
    std::fwrite(made.get(), 1, bytes_of(result), out);
}

}  // namespace

int main(int count, char** arguments) {
    if (count == 2 && std::strcmp(arguments[1], "--list") == 0) {
        for (int row = 0; row < maskring::configuration_count(); ++row) std::puts(maskring::configuration_name(row));
        return 0;
    }
    std::FILE* const in = count == 3 ? std::fopen(arguments[1], "rb") : nullptr;
    std::FILE* const out = count == 3 ? std::fopen(arguments[2], "wb") : nullptr;
    if (in == nullptr || out == nullptr) {
        std::fputs("usage: plugin_values IN OUT\n", stderr);
        return 2;
    }
    try {
        Header header;
        while (std::fread(&header, sizeof(header), 1, in) == 1) run(header, in, out);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    std::fclose(in);
    return std::fclose(out) == 0 ? 0 : 2;
}
