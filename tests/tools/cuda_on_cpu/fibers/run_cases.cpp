// Runs problems from a file through a row of the dispatch table: run_cases IN OUT.
//
// IN holds, for each problem, the 12 words of Header and then query, keys, values, dilation, offsets (when there are
// any); OUT receives the results one after the other, standard output the names of the rows that ran; row -1 stands for
// the one that dispatch chooses. Each tensor gets a heap block of its own, so that
// AddressSanitizer sees an access beyond it.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include "launch.hpp"

namespace {

struct Header {
    std::int32_t configuration, sm, type, batch, slots, channels, labels, height, width, radius, has_offsets;
    float scale;
};

[[noreturn]] void fail(const char* what, const char* detail) {
    std::fprintf(stderr, "run_cases: %s: %s\n", what, detail);
    std::exit(2);
}

// cudaMalloc's alignment; the exact size, so that nothing lies between the end and the sanitizer's red zone.
std::shared_ptr<void> allocate(std::size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 256, bytes) != 0) fail("no memory", "for a tensor");
    return {memory, std::free};
}

std::shared_ptr<void> read_tensor(std::FILE* file, std::size_t bytes) {
    auto memory = allocate(bytes);
    if (std::fread(memory.get(), 1, bytes, file) != bytes) fail("the file ends", "in a tensor");
    return memory;
}

void run(const Header& h, std::FILE* in, std::FILE* out) {
    const std::size_t size = h.type == 0 ? 4 : 2, plane = std::size_t(h.height) * h.width;
    const std::size_t frame = h.batch * plane, memory = frame * h.slots;
    const auto query = read_tensor(in, size * frame * h.channels);
    const auto keys = read_tensor(in, size * memory * h.channels);
    const auto values = read_tensor(in, size * memory * h.labels);
    const auto dilation = read_tensor(in, std::size_t(4) * h.batch * h.slots);
    const auto offsets = h.has_offsets ? read_tensor(in, 8 * memory) : nullptr;
    const auto result = allocate(size * frame * h.labels);

    maskring::AffinityProblem problem{};
    problem.type = maskring::ElementType(h.type);
    problem.batch = h.batch;
    problem.slots = h.slots;
    problem.channels = h.channels;
    problem.labels = h.labels;
    problem.height = h.height;
    problem.width = h.width;
    problem.radius = h.radius;
    problem.scale = h.scale;
    problem.query = query.get();
    problem.keys = keys.get();
    problem.values = values.get();
    problem.dilation = static_cast<const std::int32_t*>(dilation.get());
    problem.offsets = static_cast<const std::int32_t*>(offsets.get());
    problem.out = result.get();

    const char* reason = "";
    int row = h.configuration;
    if (row < 0) row = maskring::choose_configuration(problem, h.sm, &reason);
    const char* name = maskring::configuration_name(row);
    if (!maskring::can_run(row, problem, h.sm, row < 0 ? nullptr : &reason)) fail(name, reason);
    const auto bytes = maskring::workspace_bytes(row, problem);
    const auto workspace = allocate(bytes > 0 ? bytes : 1);
    problem.workspace = workspace.get();
    if (maskring::launch(row, problem, nullptr) != 0) fail(name, "the launch failed");
    std::puts(name);
    std::fwrite(result.get(), 1, size * frame * h.labels, out);
}

}  // namespace

int main(int count, char** arguments) {
    if (count == 2) {  // the table, for the tests
        for (int i = 0; i < maskring::configuration_count(); ++i) std::puts(maskring::configuration_name(i));
        return 0;
    }
    if (count != 3) fail("usage", "run_cases IN OUT");
    std::FILE* in = std::fopen(arguments[1], "rb");
    std::FILE* out = std::fopen(arguments[2], "wb");
    if (in == nullptr || out == nullptr) fail("cannot open", arguments[in == nullptr ? 1 : 2]);
    Header header;
    while (std::fread(&header, sizeof(header), 1, in) == 1) run(header, in, out);
    return std::fclose(out) == 0 ? 0 : 2;
}
