// Compares plugins/windowed_affinity/onnxruntime/abi.hpp with onnxruntime's own header; it compiles where they agree.
#include <onnxruntime_c_api.h>

#include <cstddef>
#include <type_traits>

#include "onnxruntime/abi.hpp"

namespace ort = maskring::ort;

static_assert(ORT_API_VERSION >= ort::API_VERSION);

#define SAME_PLACE(name) static_assert(offsetof(OrtApi, name) == ort::name::PLACE * sizeof(void*))
SAME_PLACE(CreateStatus);
SAME_PLACE(GetTensorMutableData);
SAME_PLACE(GetDimensionsCount);
SAME_PLACE(GetDimensions);
SAME_PLACE(GetTensorTypeAndShape);
SAME_PLACE(CreateCustomOpDomain);
SAME_PLACE(CustomOpDomain_Add);
SAME_PLACE(AddCustomOpDomain);
SAME_PLACE(KernelInfoGetAttribute_float);
SAME_PLACE(KernelInfoGetAttribute_int64);
SAME_PLACE(KernelContext_GetInputCount);
SAME_PLACE(KernelContext_GetInput);
SAME_PLACE(KernelContext_GetOutput);
SAME_PLACE(ReleaseStatus);
SAME_PLACE(ReleaseTensorTypeAndShapeInfo);
SAME_PLACE(KernelContext_GetGPUComputeStream);
SAME_PLACE(HasSessionConfigEntry);
SAME_PLACE(GetSessionConfigEntry);
SAME_PLACE(KernelContext_ParallelFor);

#define SAME_FIELD(theirs, ours) static_assert(offsetof(OrtCustomOp, theirs) == offsetof(ort::CustomOp, ours))
SAME_FIELD(version, version);
SAME_FIELD(CreateKernel, create_kernel);
SAME_FIELD(GetName, name);
SAME_FIELD(GetExecutionProviderType, provider);
SAME_FIELD(GetInputType, input_type);
SAME_FIELD(GetInputTypeCount, input_count);
SAME_FIELD(GetOutputType, output_type);
SAME_FIELD(GetOutputTypeCount, output_count);
SAME_FIELD(KernelCompute, compute);
SAME_FIELD(KernelDestroy, destroy_kernel);
SAME_FIELD(GetInputCharacteristic, input_characteristic);
SAME_FIELD(GetOutputCharacteristic, output_characteristic);
SAME_FIELD(GetInputMemoryType, input_memory_type);
SAME_FIELD(GetVariadicInputMinArity, variadic);
SAME_FIELD(CreateKernelV2, create_kernel_v2);
SAME_FIELD(KernelComputeV2, compute_v2);
SAME_FIELD(InferOutputShapeFn, infer_shape);
SAME_FIELD(GetStartVersion, start_version);
SAME_FIELD(GetEndVersion, end_version);

static_assert(ort::FLOAT == +ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT);
static_assert(ort::FLOAT16 == +ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16);
static_assert(ort::INT32 == +ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32);
static_assert(ort::REQUIRED == +INPUT_OUTPUT_REQUIRED && ort::OPTIONAL == +INPUT_OUTPUT_OPTIONAL);
static_assert(ort::INVALID_ARGUMENT == +ORT_INVALID_ARGUMENT);
static_assert(ort::RUNTIME_EXCEPTION == +ORT_RUNTIME_EXCEPTION);
static_assert(offsetof(OrtApiBase, GetApi) == offsetof(ort::ApiBase, get_api));
static_assert(offsetof(OrtApiBase, GetVersionString) == offsetof(ort::ApiBase, version_string));
