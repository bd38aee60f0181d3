// The part of onnxruntime's C interface that a custom operator needs.
//
// onnxruntime's Python packages come without headers, so the interface is declared here. It is a table of functions
// that only ever grows at its end: an entry is told by its place, in every version. tests/tools/onnxruntime_cpp/
// abi_check.cpp compares places and layouts with onnxruntime's own header, where there is one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace maskring::ort {

// The version of the interface that is asked for, that of onnxruntime 1.17. Later versions serve it unchanged.
constexpr std::uint32_t API_VERSION = 17;

// Objects of onnxruntime; only pointers to them are passed around.
struct Status;
struct SessionOptions;
struct Domain;
struct KernelInfo;
struct Context;
struct Value;
struct TensorInfo;

using Table = void (*const*)();

struct ApiBase {
    Table (*get_api)(std::uint32_t version);  // null if that version is not served
    const char* (*version_string)();
};

// The function at one place of the table.
template <std::size_t AT, typename Signature>
struct Entry;

template <std::size_t AT, typename Result, typename... Arguments>
struct Entry<AT, Result(Arguments...)> {
    static constexpr std::size_t PLACE = AT;
    static Result call(Table table, Arguments... arguments) {
        return reinterpret_cast<Result (*)(Arguments...)>(table[AT])(arguments...);
    }
};

// Functions that return a status return null for success; the caller releases any other.
using CreateStatus = Entry<0, Status*(int code, const char* message)>;
using GetTensorMutableData = Entry<51, Status*(Value*, void** data)>;
using GetDimensionsCount = Entry<61, Status*(const TensorInfo*, std::size_t* count)>;
using GetDimensions = Entry<62, Status*(const TensorInfo*, std::int64_t* sizes, std::size_t count)>;
using GetTensorTypeAndShape = Entry<65, Status*(const Value*, TensorInfo**)>;
using CreateCustomOpDomain = Entry<26, Status*(const char* name, Domain**)>;
using CustomOpDomain_Add = Entry<27, Status*(Domain*, const struct CustomOp*)>;
using AddCustomOpDomain = Entry<28, Status*(SessionOptions*, Domain*)>;
using KernelInfoGetAttribute_float = Entry<85, Status*(const KernelInfo*, const char* name, float*)>;
using KernelInfoGetAttribute_int64 = Entry<86, Status*(const KernelInfo*, const char* name, std::int64_t*)>;
using KernelContext_GetInputCount = Entry<88, Status*(const Context*, std::size_t*)>;
using KernelContext_GetInput = Entry<90, Status*(const Context*, std::size_t, const Value**)>;
using KernelContext_GetOutput =
    Entry<91, Status*(Context*, std::size_t, const std::int64_t* sizes, std::size_t rank, Value**)>;
using ReleaseStatus = Entry<93, void(Status*)>;
using ReleaseTensorTypeAndShapeInfo = Entry<99, void(TensorInfo*)>;
using KernelContext_GetGPUComputeStream = Entry<193, Status*(const Context*, void** stream)>;
using HasSessionConfigEntry = Entry<237, Status*(const SessionOptions*, const char* key, int* has)>;
// `text` may be null to ask for the size, which includes the closing zero.
using GetSessionConfigEntry =
    Entry<238, Status*(const SessionOptions*, const char* key, char* text, std::size_t* size)>;
using KernelContext_ParallelFor = Entry<274, Status*(const Context*, void (*)(void* user, std::size_t index),
                                                     std::size_t count, std::size_t batches, void* user)>;

enum Code : int { INVALID_ARGUMENT = 2, RUNTIME_EXCEPTION = 6 };
enum ElementType : int { FLOAT = 1, INT32 = 6, FLOAT16 = 10 };
enum Characteristic : int { REQUIRED = 0, OPTIONAL = 1 };

// What onnxruntime asks of an operator. Fields behind `version` 17 are not read.
struct CustomOp {
    std::uint32_t version = API_VERSION;
    void* (*create_kernel)(const CustomOp*, Table, const KernelInfo*) = nullptr;  // replaced by create_kernel_v2
    const char* (*name)(const CustomOp*) = nullptr;
    const char* (*provider)(const CustomOp*) = nullptr;
    int (*input_type)(const CustomOp*, std::size_t) = nullptr;
    std::size_t (*input_count)(const CustomOp*) = nullptr;
    int (*output_type)(const CustomOp*, std::size_t) = nullptr;
    std::size_t (*output_count)(const CustomOp*) = nullptr;
    void (*compute)(void* kernel, Context*) = nullptr;  // replaced by compute_v2
    void (*destroy_kernel)(void* kernel) = nullptr;
    int (*input_characteristic)(const CustomOp*, std::size_t) = nullptr;
    int (*output_characteristic)(const CustomOp*, std::size_t) = nullptr;
    int (*input_memory_type)(const CustomOp*, std::size_t) = nullptr;
    int (*variadic[4])(const CustomOp*) = {};
    Status* (*create_kernel_v2)(const CustomOp*, Table, const KernelInfo*, void** kernel) = nullptr;
    Status* (*compute_v2)(void* kernel, Context*) = nullptr;
    Status* (*infer_shape)(const CustomOp*, void*) = nullptr;
    int (*start_version)(const CustomOp*) = nullptr;
    int (*end_version)(const CustomOp*) = nullptr;
    void* later_versions[4] = {};
};

}  // namespace maskring::ort
