#include "launch_double.hpp"

namespace maskring {
namespace {

using launch_double::Row;

const char* problem_of(int row, const AffinityProblem& p, int sm) {
    if (row < 0 || row >= launch_double::ROWS) return "there is no such kernel; build the engine again";
    if (sm < 75) return "the GPU is too old; use a newer one";
    if (p.batch < 1 || p.height < 1 || p.width < 1) return "a tensor is empty; give at least one pixel";
    if (p.channels % 8 != 0 || p.channels < 8 || p.channels > 256)
        return "the features do not have a multiple of 8 up to 256 channels; pad them";
    if (p.labels < 1 || p.labels > 32) return "there are not 1 to 32 labels; track fewer objects";
    if (p.slots < 1 || p.slots > 16) return "there are not 1 to 16 slots; use another memory policy";
    if (p.radius < 0 || p.radius > 16) return "the radius is not 0 to 16; use a smaller one";
    const bool half = row == Row::TENSOR_CORES || row == Row::ANY_F16;
    if (half != (p.type == ElementType::float16)) return "the kernel is for the other type; use another kernel";
    if (row == Row::TENSOR_CORES && (sm < 80 || p.radius != 12 || p.offsets != nullptr))
        return "the tensor cores do not compute this; use another kernel";
    if (row == Row::NARROW_F32 && p.width > launch_double::NARROW_WIDTH)
        return "the frame is too wide; use another kernel";
    return nullptr;
}

}  // namespace

int configuration_count() noexcept { return launch_double::ROWS; }

const char* configuration_name(int row) noexcept {
    return row >= 0 && row < launch_double::ROWS ? launch_double::names[row] : "unknown";
}

bool can_run(int row, const AffinityProblem& problem, int sm, const char** reason) noexcept {
    const char* const why_not = problem_of(row, problem, sm);
    if (why_not != nullptr && reason != nullptr) *reason = why_not;
    return why_not == nullptr;
}

int choose_configuration(const AffinityProblem& problem, int sm, const char** reason) noexcept {
    for (int row = 0; row < launch_double::ROWS; ++row)
        if (can_run(row, problem, sm, nullptr)) return row;
    can_run(problem.type == ElementType::float16 ? Row::ANY_F16 : Row::ANY_F32, problem, sm, reason);
    return -1;
}

bool is_supported(const AffinityProblem& problem, int sm, const char** reason) noexcept {
    return choose_configuration(problem, sm, reason) >= 0;
}

std::int64_t workspace_bytes(int row, const AffinityProblem& p) noexcept {
    return row == Row::TENSOR_CORES ? launch_double::WORKSPACE_PER_PIXEL * p.batch * p.height * p.width : 0;
}

int launch(int row, const AffinityProblem& problem, CUstream_st* stream) noexcept {
    launch_double::last_launch = launch_double::Launch{row, problem, stream};
    return launch_double::launch_error;
}

}  // namespace maskring
