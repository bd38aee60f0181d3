// Runs problems through the plugin, from the creator to enqueue, with the real kernels: on a GPU, or executed as C++
// where MASKRING_ON_CPU is defined.
//
//   plugin_values IN OUT [REPLAYS]   prints each problem's row and milliseconds of a replay of its captured graph
//   plugin_values --list             prints the names of all rows
//
// Files are those of tests/tools/cuda_on_cpu/fibers/run_cases.cpp. A problem's row is selected through MASKRING_KERNEL.
#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "calls.hpp"
#include "tensorrt/plugin.hpp"
#ifdef MASKRING_ON_CPU
#include "cuda_double.hpp"
#endif

using namespace calls;

namespace {

struct Header {
    std::int32_t row, sm, type, batch, slots, channels, labels, height, width, radius, has_offsets;
    float scale;
};

void require(cudaError_t error) {
    if (error != cudaSuccess) throw std::runtime_error(cudaGetErrorString(error));
}

// Memory of the GPU.
using Memory = std::unique_ptr<void, decltype(&cudaFree)>;

Memory allocate(std::size_t bytes) {
    void* memory = nullptr;
    require(cudaMalloc(&memory, bytes));
    return {memory, cudaFree};
}

Memory read(std::FILE* in, std::size_t bytes) {
    std::vector<char> content(bytes);
    CHECK(std::fread(content.data(), 1, bytes, in) == bytes);
    Memory memory = allocate(bytes);
    require(cudaMemcpy(memory.get(), content.data(), bytes, cudaMemcpyHostToDevice));
    return memory;
}

std::vector<char> content_of(const Memory& memory, std::size_t bytes) {
    std::vector<char> content(bytes);
    require(cudaMemcpy(content.data(), memory.get(), bytes, cudaMemcpyDeviceToHost));
    return content;
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

// Captures what `start` starts, and replays it.
class Graph {
public:
    template <typename Start>
    Graph(cudaStream_t stream, Start&& start) : stream_(stream) {
        cudaGraph_t graph = nullptr;
        require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        start();
        require(cudaStreamEndCapture(stream, &graph));
        const cudaError_t error = cudaGraphInstantiate(&executable_, graph, 0);
        cudaGraphDestroy(graph);
        require(error);
    }
    ~Graph() { cudaGraphExecDestroy(executable_); }
    Graph(const Graph&) = delete;

    // Milliseconds of one of `times` replays.
    double replay(int times) {
        const auto begin = std::chrono::steady_clock::now();
        for (int i = 0; i < times; ++i) require(cudaGraphLaunch(executable_, stream_));
        require(cudaStreamSynchronize(stream_));
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count() / times;
    }

private:
    cudaStream_t stream_;
    cudaGraphExec_t executable_ = nullptr;
};

void run(const Header& h, int replays, std::FILE* in, std::FILE* out) {
#ifdef MASKRING_ON_CPU
    cuda_double::compute_capability = h.sm;
#endif
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
        memory.push_back(read(in, bytes_of(tensor)));
        inputs.push_back(memory.back().get());
    }
    const Memory made = allocate(bytes_of(result));
    const Memory workspace = allocate(plugin.workspace(call) + 1);
    void* outputs[] = {made.get()};
    cudaStream_t stream = nullptr;
    require(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    const auto enqueue = [&] {
        const auto code =
            plugin.runtime->enqueue(described.data(), &result, inputs.data(), outputs, workspace.get(), stream);
        CHECK(code == 0);
    };
    enqueue();
    require(cudaStreamSynchronize(stream));
    const auto content = content_of(made, bytes_of(result));
    require(cudaMemset(made.get(), 0xFF, bytes_of(result)));
    require(cudaDeviceSynchronize());
    const double ms = Graph(stream, enqueue).replay(replays);
    CHECK(content_of(made, bytes_of(result)) == content);  // a captured graph gives the same bits
    require(cudaStreamDestroy(stream));
    std::printf("%s %.4f\n", h.row < 0 ? "chosen" : maskring::configuration_name(h.row), ms);
    std::fwrite(content.data(), 1, content.size(), out);
}

}  // namespace

int main(int count, char** arguments) {
    if (count == 2 && std::strcmp(arguments[1], "--list") == 0) {
        for (int row = 0; row < maskring::configuration_count(); ++row) std::puts(maskring::configuration_name(row));
        return 0;
    }
    const bool named = count == 3 || count == 4;
    std::FILE* const in = named ? std::fopen(arguments[1], "rb") : nullptr;
    std::FILE* const out = named ? std::fopen(arguments[2], "wb") : nullptr;
    const int replays = count == 4 ? std::atoi(arguments[3]) : 1;
    if (in == nullptr || out == nullptr || replays < 1) {
        std::fputs("usage: plugin_values IN OUT [REPLAYS]\n", stderr);
        return 2;
    }
    try {
        Header header;
        while (std::fread(&header, sizeof(header), 1, in) == 1) run(header, replays, in, out);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
    std::fclose(in);
    return std::fclose(out) == 0 ? 0 : 2;
}
