// The interface of the CUDA kernels: a problem, a choice of kernel, a launch. It uses no TensorRT and no CUDA headers.
#pragma once

#include <cstdint>

struct CUstream_st;  // cudaStream_t without the toolkit's headers

namespace maskring {

enum class ElementType : std::int32_t { float32 = 0, float16 = 1 };

// One call of the operator. All tensors are dense, row-major, on one device and aligned to 16 bytes.
struct AffinityProblem {
    ElementType type;              // of query, keys, values and out
    std::int32_t batch;            // B
    std::int32_t slots;            // N, 1 to 16
    std::int32_t channels;         // C, a multiple of 8 up to 256
    std::int32_t labels;           // O, 1 to 32
    std::int32_t height;           // H
    std::int32_t width;            // W
    std::int32_t radius;           // 0 to 16
    float scale;                   // of the inner products
    const void* query;             // [B, C, H, W]
    const void* keys;              // [B, N, C, H, W]
    const void* values;            // [B, N, O, H, W]
    const std::int32_t* dilation;  // [B, N]; 0 = empty slot
    const std::int32_t* offsets;   // [B, N, 2, H, W] (dy, dx), or null
    void* out;                     // [B, O, H, W]
    void* workspace;               // workspace_bytes() bytes, aligned to 256; may be null if 0
};

// A row of the dispatch table.
struct KernelConfiguration;

// Number of rows.
int configuration_count() noexcept;

// Name of a row, for logs ("simt f32 r12", "mma f16 r8 c64").
const char* configuration_name(int configuration) noexcept;

// Whether row `configuration` supports `problem` on compute capability `sm` (86 = 8.6). If not, `*reason` (unless null)
// points to a static string "problem; remedy". Of the pointers in `problem`, only `offsets` matters: null or not.
bool can_run(int configuration, const AffinityProblem& problem, int sm, const char** reason) noexcept;

// Whether some row supports `problem` on `sm` (`*reason` as above).
bool is_supported(const AffinityProblem& problem, int sm, const char** reason) noexcept;

// The row expected to be fastest for `problem` on `sm`, or -1 if none supports it (`*reason` as above). The environment
// variable MASKRING_KERNEL overrides the choice with a row's name.
int choose_configuration(const AffinityProblem& problem, int sm, const char** reason) noexcept;

// Scratch memory that row `configuration` needs for `problem`.
std::int64_t workspace_bytes(int configuration, const AffinityProblem& problem) noexcept;

// Launches one kernel or several on `stream`; returns a cudaError_t as int (0 = success). Thread-safe.
int launch(int configuration, const AffinityProblem& problem, CUstream_st* stream) noexcept;

}  // namespace maskring
