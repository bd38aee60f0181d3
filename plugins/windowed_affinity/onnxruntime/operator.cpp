// Registers maskring::WindowedAffinity with onnxruntime, for its CPU provider and, if built with CUDA, for CUDA.
#include "operator.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

#include "cpu/problem.hpp"

namespace maskring::ort {
namespace {

#ifdef MASKRING_ON_CPU  // tests execute the operator of the CUDA provider on a CPU
constexpr const char *CPU_PROVIDER = "CUDAExecutionProvider", *CUDA_PROVIDER = "CPUExecutionProvider";
#else
constexpr const char *CPU_PROVIDER = "CPUExecutionProvider", *CUDA_PROVIDER = "CUDAExecutionProvider";
#endif

constexpr char DOMAIN_NAME[] = "maskring";
constexpr char OPERATOR_NAME[] = "WindowedAffinity";
constexpr std::size_t INPUTS = 5;
constexpr std::size_t OFFSETS = 4;  // the optional input
constexpr std::size_t FLOAT_INPUTS = 3;

// Session option: threads that the CPU kernel uses of the session's pool, for which onnxruntime has no query.
constexpr char THREADS_ENTRY[] = "maskring.threads";
constexpr int MAX_THREADS = 1024;

// ---- errors -----------------------------------------------------------------------------------------------------

// A status of onnxruntime on its way through C++.
struct StatusError {
    Status* status;
};

template <typename Body>
Status* guarded(Table api, const Body& body) noexcept {
    const auto status = [&](Code code, const std::string& message) {
        return CreateStatus::call(api, code, (std::string("maskring::WindowedAffinity: ") + message).c_str());
    };
    try {
        body();
        return nullptr;
    } catch (const StatusError& error) {
        return error.status;
    } catch (const OperatorError& error) {
        return status(INVALID_ARGUMENT, error.what());
    } catch (const std::bad_alloc&) {
        return status(RUNTIME_EXCEPTION, "out of memory; use smaller frames, fewer objects or fewer threads");
    } catch (const std::exception& error) {
        return status(RUNTIME_EXCEPTION, error.what());
    }
}

// ---- inputs -----------------------------------------------------------------------------------------------------

struct InputRule {
    const char* name;
    const char* axes;  // one letter each; equal letters have equal sizes, and a digit is the size itself
};
constexpr InputRule RULES[INPUTS] = {
    {"query", "BCHW"}, {"keys", "BNCHW"}, {"values", "BNOHW"}, {"dilation", "BN"}, {"offsets", "BN2HW"}};

struct Tensor {
    void* data = nullptr;
    std::vector<std::int64_t> sizes;
};

Tensor tensor_of(Table api, const Value* value) {
    Tensor tensor;
    TensorInfo* info = nullptr;
    check(api, GetTensorTypeAndShape::call(api, value, &info));
    const std::unique_ptr<TensorInfo, void (*)(TensorInfo*)> owner(
        info, reinterpret_cast<void (*)(TensorInfo*)>(api[ReleaseTensorTypeAndShapeInfo::PLACE]));
    std::size_t rank = 0;
    check(api, GetDimensionsCount::call(api, info, &rank));
    tensor.sizes.resize(rank);
    check(api, GetDimensions::call(api, info, tensor.sizes.data(), rank));
    check(api, GetTensorMutableData::call(api, const_cast<Value*>(value), &tensor.data));
    return tensor;
}

std::string text_of(const std::vector<std::int64_t>& sizes) {
    std::string text;
    for (const std::int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
    return "[" + text + "]";
}

std::string text_of(const InputRule& rule) {
    std::string text;
    for (const char* axis = rule.axes; *axis; ++axis) text += (text.empty() ? "" : ", ") + std::string(1, *axis);
    return "[" + text + "]";
}

// Adds the sizes of one input to those known by letter.
void add_sizes(const InputRule& rule, const std::vector<std::int64_t>& sizes, std::map<char, int>& known) {
    const std::string axes = rule.axes;
    const auto refuse = [&](const std::string& reason) {
        throw OperatorError(std::string(rule.name) + " is " + text_of(sizes) + " but must be " + text_of(rule) +
                            reason + "; pass tensors of one memory and one frame");
    };
    if (sizes.size() != axes.size()) refuse("");
    for (std::size_t i = 0; i < axes.size(); ++i) {
        const char axis = axes[i];
        if (sizes[i] > std::numeric_limits<int>::max()) refuse(" with sizes below 2^31");
        const int size = static_cast<int>(sizes[i]);
        const int expected = axis == '2' ? 2 : known.try_emplace(axis, size).first->second;
        if (size != expected) refuse(std::string(" with ") + axis + " = " + std::to_string(expected));
    }
}

Call call_of(Table api, Context* context) {
    std::size_t given = 0;
    check(api, KernelContext_GetInputCount::call(api, context, &given));
    std::map<char, int> size;
    void* data[INPUTS] = {};
    for (std::size_t i = 0; i < std::min(given, INPUTS); ++i) {
        const Value* value = nullptr;
        check(api, KernelContext_GetInput::call(api, context, i, &value));
        if (value == nullptr && i == OFFSETS) continue;
        const Tensor tensor = tensor_of(api, value);
        add_sizes(RULES[i], tensor.sizes, size);
        data[i] = tensor.data;
    }
    if (size['C'] == 0 || size['H'] == 0 || size['W'] == 0)
        throw OperatorError("query has no channel or no pixel; pass the features of a frame");
    const std::int64_t sizes[] = {size['B'], size['O'], size['H'], size['W']};
    Value* out = nullptr;
    check(api, KernelContext_GetOutput::call(api, context, 0, sizes, 4, &out));
    return {size['B'],
            size['N'],
            size['C'],
            size['O'],
            size['H'],
            size['W'],
            data[0],
            data[1],
            data[2],
            static_cast<const std::int32_t*>(data[3]),
            static_cast<const std::int32_t*>(data[OFFSETS]),
            tensor_of(api, out).data};
}

// ---- kernels ----------------------------------------------------------------------------------------------------

struct Operator : CustomOp {
    int element_type = FLOAT;
    bool on_gpu = false;
    int threads = 1;
};

struct Kernel {
    Table api;
    Attributes attributes;
    int element_type;
    bool on_gpu;
    int threads;
};

// The attribute, or 0 where the node has none.
int integer(Table api, const KernelInfo* info, const char* name) {
    std::int64_t value = 0;
    if (Status* absent = KernelInfoGetAttribute_int64::call(api, info, name, &value)) {
        ReleaseStatus::call(api, absent);
        return 0;
    }
    if (value < 0 || value > std::numeric_limits<int>::max())
        throw OperatorError(std::string(name) + " is " + std::to_string(value) + "; export the model again");
    return static_cast<int>(value);
}

Attributes attributes_of(Table api, const KernelInfo* info) {
    Attributes attributes{};
    attributes.radius = integer(api, info, "radius");
    attributes.top_k = integer(api, info, "top_k");
    check(api, KernelInfoGetAttribute_float::call(api, info, "scale", &attributes.scale));
    if (!(attributes.scale >= 0 && std::isfinite(attributes.scale)))
        throw OperatorError("scale is negative or not finite; export the model again");
    return attributes;
}

Status* create_kernel(const CustomOp* op, Table api, const KernelInfo* info, void** kernel) {
    return guarded(api, [&] {
        const auto& self = static_cast<const Operator&>(*op);
        const Attributes attributes = attributes_of(api, info);
#ifdef MASKRING_WITH_CUDA
        if (self.on_gpu) check_on_gpu(attributes);
#endif
        *kernel = new Kernel{api, attributes, self.element_type, self.on_gpu, self.threads};
    });
}

void destroy_kernel(void* kernel) { delete static_cast<Kernel*>(kernel); }

// The threads of the session that runs a kernel.
struct Pool {
    Table api;
    const Context* context;
};

void run_on_pool(void* pool, int count, void (*task)(void*, std::size_t), void* argument) {
    const auto& [api, context] = *static_cast<const Pool*>(pool);
    Status* status = KernelContext_ParallelFor::call(api, context, task, static_cast<std::size_t>(count), 0, argument);
    if (status == nullptr) return;
    ReleaseStatus::call(api, status);
    task(argument, 0);  // one thread does all the work that is left
}

void compute_on_cpu(const Kernel& kernel, Context* context, const Call& call) {
    Problem p{};
    p.batch = call.batch, p.slots = call.slots, p.channels = call.channels, p.labels = call.labels;
    p.height = call.height, p.width = call.width;
    p.radius = kernel.attributes.radius, p.top_k = kernel.attributes.top_k, p.scale = kernel.attributes.scale;
    p.storage = kernel.element_type == FLOAT ? Storage::f32 : Storage::f16;
    p.query = call.query, p.keys = call.keys, p.values = call.values;
    p.dilation = call.dilation, p.offsets = call.offsets;
    p.out = call.out;
    Pool pool{kernel.api, context};
    compute(p, *available_kernels().kernels[0], {kernel.threads, run_on_pool, &pool});
}

Status* compute_kernel(void* kernel, Context* context) {
    const Kernel& self = *static_cast<const Kernel*>(kernel);
    return guarded(self.api, [&] {
        const Call call = call_of(self.api, context);
        if (!self.on_gpu) return compute_on_cpu(self, context, call);
#ifdef MASKRING_WITH_CUDA
        void* stream = nullptr;
        check(self.api, KernelContext_GetGPUComputeStream::call(self.api, context, &stream));
        compute_on_gpu(self.attributes, self.element_type, call, stream);
#endif
    });
}

// ---- registration -----------------------------------------------------------------------------------------------

Operator make_operator(int element_type, bool on_gpu, int threads) {
    Operator op;
    op.name = [](const CustomOp*) { return OPERATOR_NAME; };
    op.provider = [](const CustomOp* self) -> const char* {
        return static_cast<const Operator*>(self)->on_gpu ? CUDA_PROVIDER : CPU_PROVIDER;
    };
    op.input_count = [](const CustomOp*) { return INPUTS; };
    op.input_type = [](const CustomOp* self, std::size_t i) {
        return i < FLOAT_INPUTS ? static_cast<const Operator*>(self)->element_type : static_cast<int>(INT32);
    };
    op.input_characteristic = [](const CustomOp*, std::size_t i) -> int { return i == OFFSETS ? OPTIONAL : REQUIRED; };
    op.input_memory_type = [](const CustomOp*, std::size_t) { return 0; };
    op.output_count = [](const CustomOp*) -> std::size_t { return 1; };
    op.output_type = [](const CustomOp* self, std::size_t) { return static_cast<const Operator*>(self)->element_type; };
    op.output_characteristic = [](const CustomOp*, std::size_t) -> int { return REQUIRED; };
    op.create_kernel_v2 = create_kernel;
    op.compute_v2 = compute_kernel;
    op.destroy_kernel = destroy_kernel;
    op.element_type = element_type, op.on_gpu = on_gpu, op.threads = threads;
    return op;
}

int usable_cores() {
#ifdef __linux__
    cpu_set_t cores;
    if (sched_getaffinity(0, sizeof cores, &cores) == 0) return std::max(1, CPU_COUNT(&cores));
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

int threads_of(Table api, const SessionOptions* options) {
    int has = 0;
    check(api, HasSessionConfigEntry::call(api, options, THREADS_ENTRY, &has));
    if (!has) return std::min(usable_cores(), MAX_THREADS);
    char text[16] = "";
    std::size_t size = sizeof text;
    check(api, GetSessionConfigEntry::call(api, options, THREADS_ENTRY, text, &size));
    const long threads = std::strtol(text, nullptr, 10);
    if (threads < 1 || threads > MAX_THREADS)
        throw OperatorError(std::string(THREADS_ENTRY) + " is " + text + "; set it to 1 to " +
                            std::to_string(MAX_THREADS));
    return static_cast<int>(threads);
}

// Operators for sessions that use that many threads, and their domain. They live as long as the process, because no
// call says when the last session is gone.
struct Registered {
    std::vector<Operator> operators;
    Domain* domain = nullptr;
};

Domain* domain_for(Table api, int threads) {
    static std::mutex mutex;
    static auto* const domains = new std::map<std::pair<Table, int>, Registered>;
    const std::lock_guard lock(mutex);
    Registered& registered = (*domains)[{api, threads}];
    if (registered.domain != nullptr) return registered.domain;
    registered.operators = {make_operator(FLOAT, false, threads), make_operator(FLOAT16, false, threads)};
#ifdef MASKRING_WITH_CUDA
    registered.operators.push_back(make_operator(FLOAT, true, threads));
    registered.operators.push_back(make_operator(FLOAT16, true, threads));
#endif
    Domain* domain = nullptr;
    check(api, CreateCustomOpDomain::call(api, DOMAIN_NAME, &domain));
    for (const Operator& op : registered.operators) check(api, CustomOpDomain_Add::call(api, domain, &op));
    return registered.domain = domain;
}

}  // namespace

void check(Table, Status* status) {
    if (status != nullptr) throw StatusError{status};
}

}  // namespace maskring::ort

#define MASKRING_EXPORT extern "C" __attribute__((visibility("default")))

// The function that onnxruntime calls in a library of operators.
MASKRING_EXPORT maskring::ort::Status* RegisterCustomOps(maskring::ort::SessionOptions* options,
                                                         const maskring::ort::ApiBase* base) {
    using namespace maskring::ort;
    const Table api = base->get_api(API_VERSION);
    if (api == nullptr) {
        // Statuses have been created the same way since the first version.
        const std::string message = std::string("maskring's operators need onnxruntime 1.17 or newer, not ") +
                                    base->version_string() + "; run pip install --upgrade onnxruntime";
        const Table first = base->get_api(1);
        return first == nullptr ? nullptr : CreateStatus::call(first, INVALID_ARGUMENT, message.c_str());
    }
    return guarded(
        api, [&] { check(api, AddCustomOpDomain::call(api, options, domain_for(api, threads_of(api, options)))); });
}

// Whether the operators of the CUDA provider are in this library.
MASKRING_EXPORT int maskring_onnxruntime_has_cuda() {
#ifdef MASKRING_WITH_CUDA
    return 1;
#else
    return 0;
#endif
}
