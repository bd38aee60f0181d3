// The operator on CUDA's stream of onnxruntime: checks, and the launch of a kernel.
#include <cuda_runtime_api.h>

#include <limits>
#include <map>
#include <mutex>

#include "cuda/dispatch.hpp"
#include "operator.hpp"

namespace maskring::ort {
namespace {

constexpr std::uintptr_t ALIGNMENT = 16;

[[noreturn]] void refuse(cudaError_t error, const char* what) {
    throw OperatorError(std::string(what) + " (" + cudaGetErrorString(error) +
                        "); look for an earlier CUDA error in this process, and check the GPU with nvidia-smi");
}

void require(cudaError_t error, const char* what) {
    if (error != cudaSuccess) refuse(error, what);
}

int current_device() {
    int device = 0;
    require(cudaGetDevice(&device), "the GPU cannot be queried");
    return device;
}

// Compute capability, 86 for 8.6.
int compute_capability(int device) {
    int major = 0, minor = 0;
    require(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "the GPU cannot be queried");
    require(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "the GPU cannot be queried");
    return 10 * major + minor;
}

constexpr char NO_WORKSPACE[] = "the GPU has no memory for the kernels' workspace";

// Where a GPU's workspaces come from. Pools live as long as the process and keep what is given back to them, so that
// only the first calls of a size allocate.
cudaMemPool_t pool_of(int device) {
    static std::mutex mutex;
    static auto* const pools = new std::map<int, cudaMemPool_t>;
    const std::lock_guard lock(mutex);
    if (const auto found = pools->find(device); found != pools->end()) return found->second;
    cudaMemPoolProps properties{};
    properties.allocType = cudaMemAllocationTypePinned;
    properties.location.type = cudaMemLocationTypeDevice;
    properties.location.id = device;
    cudaMemPool_t pool = nullptr;
    const cudaError_t error = cudaMemPoolCreate(&pool, &properties);
    if (error == cudaErrorNotSupported)
        throw OperatorError(
            "the driver of this GPU has no memory pools, from which the kernel takes its workspace; "
            "set MASKRING_KERNEL=\"simt f16\", a kernel without workspace");
    require(error, NO_WORKSPACE);
    std::uint64_t kept = std::numeric_limits<std::uint64_t>::max();
    require(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept), NO_WORKSPACE);
    return (*pools)[device] = pool;
}

// Scratch memory in the order of a stream: it may go once the kernels that use it are queued.
class StreamMemory {
public:
    StreamMemory(std::int64_t bytes, int device, cudaStream_t stream) : stream_(stream) {
        if (bytes == 0) return;
        require(cudaMallocFromPoolAsync(&address_, static_cast<std::size_t>(bytes), pool_of(device), stream),
                NO_WORKSPACE);
    }
    ~StreamMemory() {
        if (address_ != nullptr) cudaFreeAsync(address_, stream_);
    }
    StreamMemory(const StreamMemory&) = delete;
    StreamMemory& operator=(const StreamMemory&) = delete;
    void* address() const { return address_; }

private:
    void* address_ = nullptr;
    cudaStream_t stream_;
};

void check_alignment(const AffinityProblem& p) {
    const std::pair<const char*, const void*> tensors[] = {{"query", p.query},     {"keys", p.keys},
                                                           {"values", p.values},   {"dilation", p.dilation},
                                                           {"offsets", p.offsets}, {"the output", p.out}};
    for (const auto& [name, address] : tensors)
        if (reinterpret_cast<std::uintptr_t>(address) % ALIGNMENT != 0)
            throw OperatorError(std::string(name) +
                                " does not begin at a multiple of 16 bytes; bind an aligned address");
}

}  // namespace

void check_on_gpu(const Attributes& attributes) {
    if (attributes.top_k > 0)
        throw OperatorError("top_k is " + std::to_string(attributes.top_k) +
                            ", which CUDA kernels do not support; export with --top-k 0, or run on the CPU");
}

void compute_on_gpu(const Attributes& attributes, int element_type, const Call& call, void* stream) {
    AffinityProblem p{};
    p.type = element_type == FLOAT ? maskring::ElementType::float32 : maskring::ElementType::float16;
    p.batch = call.batch, p.slots = call.slots, p.channels = call.channels, p.labels = call.labels;
    p.height = call.height, p.width = call.width;
    p.radius = attributes.radius, p.scale = attributes.scale;
    p.query = call.query, p.keys = call.keys, p.values = call.values;
    p.dilation = call.dilation, p.offsets = call.offsets;
    p.out = call.out;
    check_alignment(p);
    const char* reason = nullptr;
    const int device = current_device(), row = choose_configuration(p, compute_capability(device), &reason);
    if (row < 0) throw OperatorError(reason);
    const StreamMemory workspace(workspace_bytes(row, p), device, static_cast<cudaStream_t>(stream));
    p.workspace = workspace.address();
    const auto error = static_cast<cudaError_t>(launch(row, p, static_cast<CUstream_st*>(stream)));
    if (error != cudaSuccess) refuse(error, (std::string("kernel ") + configuration_name(row) + " failed").c_str());
}

}  // namespace maskring::ort
