// The dispatch table: all compiled kernels, fastest first, and the problems each supports.
#include "dispatch.hpp"
#include "workspace.hpp"

#include <cstdlib>
#include <cstring>

namespace maskring {
namespace {

constexpr auto F32 = ElementType::float32;
constexpr auto F16 = ElementType::float16;

// The first row that supports a problem is used.
constexpr KernelConfiguration TABLE[] = {
    {"mma f16 r4 c64 o7", Family::mma, F16, 4, 64, 7, mma::SIZES<mma::Shape<4, 64, 1>>, launch_mma<4, 64, 1>},
    {"mma f16 r4 c64 o15", Family::mma, F16, 4, 64, 15, mma::SIZES<mma::Shape<4, 64, 2>>, launch_mma<4, 64, 2>},
    {"mma f16 r4 c64", Family::mma, F16, 4, 64, 32, mma::SIZES<mma::Shape<4, 64, 5>>, launch_mma<4, 64, 5>},
    {"mma f16 r8 c64 o7", Family::mma, F16, 8, 64, 7, mma::SIZES<mma::Shape<8, 64, 1>>, launch_mma<8, 64, 1>},
    {"mma f16 r8 c64 o15", Family::mma, F16, 8, 64, 15, mma::SIZES<mma::Shape<8, 64, 2>>, launch_mma<8, 64, 2>},
    {"mma f16 r8 c64", Family::mma, F16, 8, 64, 32, mma::SIZES<mma::Shape<8, 64, 5>>, launch_mma<8, 64, 5>},
    {"mma f16 r12 c64 o7", Family::mma, F16, 12, 64, 7, mma::SIZES<mma::Shape<12, 64, 1>>, launch_mma<12, 64, 1>},
    {"mma f16 r12 c64 o15", Family::mma, F16, 12, 64, 15, mma::SIZES<mma::Shape<12, 64, 2>>, launch_mma<12, 64, 2>},
    {"mma f16 r12 c64", Family::mma, F16, 12, 64, 32, mma::SIZES<mma::Shape<12, 64, 5>>, launch_mma<12, 64, 5>},
    {"mma f16 r16 c64 o7", Family::mma, F16, 16, 64, 7, mma::SIZES<mma::Shape<16, 64, 1>>, launch_mma<16, 64, 1>},
    {"mma f16 r16 c64 o15", Family::mma, F16, 16, 64, 15, mma::SIZES<mma::Shape<16, 64, 2>>, launch_mma<16, 64, 2>},
    {"mma f16 r16 c64", Family::mma, F16, 16, 64, 32, mma::SIZES<mma::Shape<16, 64, 5>>, launch_mma<16, 64, 5>},
    {"simt f32 r6", Family::simt, F32, 6, 0, 32, simt::SIZES<6>, launch_simt<F32, 6>},
    {"simt f32 r12", Family::simt, F32, 12, 0, 32, simt::SIZES<12>, launch_simt<F32, 12>},
    {"simt f32", Family::simt, F32, 0, 0, 32, simt::SIZES<simt::WIDEST>, launch_simt<F32, 0>},
    {"simt f16 r6", Family::simt, F16, 6, 0, 32, simt::SIZES<6>, launch_simt<F16, 6>},
    {"simt f16 r12", Family::simt, F16, 12, 0, 32, simt::SIZES<12>, launch_simt<F16, 12>},
    {"simt f16", Family::simt, F16, 0, 0, 32, simt::SIZES<simt::WIDEST>, launch_simt<F16, 0>},
    {"gather f32", Family::gather, F32, 0, 0, 32, gather::SIZES, launch_gather<F32>},
    {"gather f16", Family::gather, F16, 0, 0, 32, gather::SIZES, launch_gather<F16>},
};
constexpr int ROWS = sizeof(TABLE) / sizeof(TABLE[0]);

// Environment variable with the name of the row to use, for measurements.
constexpr char OVERRIDE[] = "MASKRING_KERNEL";

// Why a kernel does not support a problem, as "problem; remedy"; null if it does.
using Reason = const char*;

// Limits of all kernels.
Reason problem_of_any(const AffinityProblem& p, int sm) {
    const auto within = [](int value, int least, int most) { return value >= least && value <= most; };
    if (sm < 75) return "this GPU is older than compute capability 7.5; use a newer one or the ONNX function body";
    if (p.type != F32 && p.type != F16) return "the tensors are neither float32 nor float16; cast them to one of these";
    if (p.batch < 1 || p.height < 1 || p.width < 1) return "a tensor is empty; give at least one frame and one pixel";
    if (!within(p.slots, 1, 16)) return "the number of slots is not 1 to 16; export with another memory policy";
    if (!within(p.channels, 8, 256) || p.channels % 8 != 0)
        return "the number of channels is not a multiple of 8 up to 256; pad the features with zero channels";
    if (!within(p.labels, 1, 32)) return "the number of labels is not 1 to 32; track fewer objects at a time";
    if (!within(p.radius, 0, 16)) return "the radius is not 0 to 16; export with a smaller radius";
    const std::int64_t plane = std::int64_t(p.height) * p.width;
    if (plane * (p.channels > p.labels ? p.channels : p.labels) > INT32_MAX)
        return "a feature map has more than 2^31 elements; use smaller frames";
    if (p.height > 8 * 65535 || p.batch > 16384)
        return "the frame is too high or the batch too large for one launch; reduce the height or the batch size";
    return nullptr;
}

// Limits of a row's own sizes and type.
Reason problem_of_row(const KernelConfiguration& row, const AffinityProblem& p) {
    if (row.type != p.type)
        return row.type == F32 ? "this kernel takes float32 but the tensors are float16; use a float16 kernel"
                               : "this kernel takes float16 but the tensors are float32; use a float32 kernel";
    if (row.family == Family::mma && p.radius > row.radius)
        return "this kernel was compiled for a smaller radius; use one for a larger one";
    if (row.family != Family::mma && row.radius != 0 && row.radius != p.radius)
        return "this kernel was compiled for another radius; use the one for any radius";
    if (row.channels != 0 && row.channels != p.channels)
        return "this kernel was compiled for another number of channels; use a simt kernel";
    if (p.labels > row.labels) return "this kernel was compiled for fewer labels; use the one for 32 labels";
    return nullptr;
}

Reason problem_of_simt(const AffinityProblem& p, int) {
    if (p.offsets != nullptr) return "this kernel does not support offsets; use a gather kernel";
    return nullptr;
}

Reason problem_of_mma(const AffinityProblem& p, int sm) {
    if (sm < 80) return "this kernel needs compute capability 8.0; use a simt kernel";
    if (!(p.scale > 0)) return "this kernel needs a positive scale; use a simt kernel";
    // Its initial maximum is -1e30, whose product with scale and log2(e) must be a float.
    if (p.scale > 2e8f) return "this kernel needs a scale of at most 2e8; use a simt kernel";
    return problem_of_simt(p, sm);
}

Reason problem_of_gather(const AffinityProblem&, int) { return nullptr; }

Reason problem_of(const KernelConfiguration& row, const AffinityProblem& p, int sm) {
    if (Reason reason = problem_of_any(p, sm)) return reason;
    if (Reason reason = problem_of_row(row, p)) return reason;
    switch (row.family) {
        case Family::mma: return problem_of_mma(p, sm);
        case Family::simt: return problem_of_simt(p, sm);
        case Family::gather: return problem_of_gather(p, sm);
    }
    return "the kernel's family is unknown; rebuild the library";
}

bool is_valid(int configuration) { return configuration >= 0 && configuration < ROWS; }

// Stores `problem` in `*reason` if both are not null; returns whether `problem` is null.
bool supported_unless(Reason problem, const char** reason) {
    if (problem != nullptr && reason != nullptr) *reason = problem;
    return problem == nullptr;
}

int first_that_runs(const AffinityProblem& problem, int sm, const char** reason) {
    for (int i = 0; i < ROWS; ++i)
        if (problem_of(TABLE[i], problem, sm) == nullptr) return i;
    // The last row of each type is the most general one, so its reason holds for all rows.
    supported_unless(problem_of(TABLE[problem.type == F16 ? ROWS - 1 : ROWS - 2], problem, sm), reason);
    return -1;
}

}  // namespace

const KernelConfiguration& configuration(int index) noexcept { return TABLE[index]; }

int configuration_count() noexcept { return ROWS; }

const char* configuration_name(int configuration) noexcept {
    return is_valid(configuration) ? TABLE[configuration].name : "unknown";
}

bool can_run(int configuration, const AffinityProblem& problem, int sm, const char** reason) noexcept {
    if (!is_valid(configuration))
        return supported_unless("this library has no such kernel; rebuild the engine", reason);
    return supported_unless(problem_of(TABLE[configuration], problem, sm), reason);
}

bool is_supported(const AffinityProblem& problem, int sm, const char** reason) noexcept {
    return first_that_runs(problem, sm, reason) >= 0;
}

int choose_configuration(const AffinityProblem& problem, int sm, const char** reason) noexcept {
    if (const char* name = std::getenv(OVERRIDE)) {
        for (int i = 0; i < ROWS; ++i)
            if (std::strcmp(TABLE[i].name, name) == 0) return can_run(i, problem, sm, reason) ? i : -1;
        supported_unless("MASKRING_KERNEL names no kernel of this library; unset it or use a name from docs/kernels.md",
                         reason);
        return -1;
    }
    return first_that_runs(problem, sm, reason);
}

std::int64_t workspace_bytes(int configuration, const AffinityProblem& problem) noexcept {
    if (!is_valid(configuration) || TABLE[configuration].family != Family::mma) return 0;
    return mma::phases_bytes(problem) + mma::partials_bytes(problem, mma::round_up(TABLE[configuration].labels + 1, 8));
}

int launch(int configuration, const AffinityProblem& problem, CUstream_st* stream) noexcept {
    constexpr int INVALID_VALUE = 1;  // cudaErrorInvalidValue
    if (!is_valid(configuration)) return INVALID_VALUE;
    if (problem.workspace == nullptr && workspace_bytes(configuration, problem) > 0) return INVALID_VALUE;
    return TABLE[configuration].launch(problem, stream);
}

}  // namespace maskring
