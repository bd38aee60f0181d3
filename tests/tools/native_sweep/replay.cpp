// Problems from standard input through every instruction set of the CPU kernels; results go to standard output. So
// the kernels of another processor can be compared with the reference: tests/plugins/test_other_processors.py.
//
// In: how many problems; for each the 9 int32 of `read_problem`, the scale, then the arrays of Problem without gaps.
// Out: for each problem how many kernels there are; for each of them its name (16 bytes), then the result.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "problem.hpp"

using namespace maskring;

namespace {

using Bytes = std::vector<unsigned char>;

template <typename T>
T read_one() {
    T value;
    if (std::fread(&value, sizeof value, 1, stdin) != 1) std::exit(1);
    return value;
}

Bytes read_bytes(size_t count) {
    Bytes bytes(count);
    if (count && std::fread(bytes.data(), count, 1, stdin) != 1) std::exit(1);
    return bytes;
}

void one_problem() {
    Problem p{};
    for (int* number : {&p.batch, &p.slots, &p.channels, &p.labels, &p.height, &p.width, &p.radius, &p.top_k})
        *number = read_one<int32_t>();
    const int flags = read_one<int32_t>();  // 1: float32, 2: with offsets
    p.scale = read_one<float>();
    p.storage = flags & 1 ? Storage::f32 : Storage::f16;
    const size_t size = flags & 1 ? 4 : 2, plane = static_cast<size_t>(p.height) * p.width;
    const size_t images = static_cast<size_t>(p.batch) * p.slots;
    const Bytes query = read_bytes(p.batch * p.channels * plane * size);
    const Bytes keys = read_bytes(images * p.channels * plane * size);
    const Bytes values = read_bytes(images * p.labels * plane * size);
    const Bytes dilation = read_bytes(images * 4), offsets = read_bytes(flags & 2 ? images * 2 * plane * 4 : 0);
    Bytes out(p.batch * p.labels * plane * size);
    p.query = query.data(), p.keys = keys.data(), p.values = values.data(), p.out = out.data();
    p.dilation = reinterpret_cast<const int32_t*>(dilation.data());
    p.offsets = flags & 2 ? reinterpret_cast<const int32_t*>(offsets.data()) : nullptr;
    const KernelList list = available_kernels();
    std::fwrite(&list.count, 4, 1, stdout);
    for (int k = 0; k < list.count; ++k) {
        char name[16] = "";
        std::strncpy(name, list.kernels[k]->name, sizeof name - 1);
        compute(p, *list.kernels[k], {1 + k % 2});
        std::fwrite(name, sizeof name, 1, stdout);
        std::fwrite(out.data(), 1, out.size(), stdout);
    }
}

}  // namespace

int main() {
    const int problems = read_one<int32_t>();
    for (int i = 0; i < problems; ++i) one_problem();
}
