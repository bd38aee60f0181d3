// Random and extreme problems through every instruction set of the CPU kernels, each array in a block of its own, so
// that AddressSanitizer sees one element too far. Prints how many ran.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "problem.hpp"

using namespace maskring;

namespace {

std::mt19937 rng;

int among(std::initializer_list<int> list) { return list.begin()[rng() % list.size()]; }

std::vector<unsigned char> noise(const Problem& p, size_t count) {
    std::vector<unsigned char> bytes(count * (p.storage == Storage::f32 ? 4 : 2));
    for (size_t i = 0; i < count; ++i) {
        const float value = static_cast<float>(static_cast<int>(rng() % 2001) - 1000) / 500.f;
        if (p.storage == Storage::f32)
            reinterpret_cast<float*>(bytes.data())[i] = value;
        else
            reinterpret_cast<uint16_t*>(bytes.data())[i] = static_cast<uint16_t>(rng() % 0x4400);  // 0 to 4
    }
    return bytes;
}

void one_case() {
    Problem p{};
    p.batch = among({1, 1, 2}), p.slots = among({0, 1, 2, 5}), p.channels = among({1, 3, 8, 17});
    p.labels = among({0, 1, 2, 7, 19}), p.height = among({1, 2, 5, 9, 33}), p.width = among({1, 3, 8, 16, 31, 70});
    p.radius = among({0, 1, 2, 6}), p.top_k = among({0, 0, 0, 1, 5, 1000});
    p.shares = rng() % 2, p.scale = 0.125f, p.storage = rng() % 2 ? Storage::f32 : Storage::f16;
    const size_t plane = static_cast<size_t>(p.height) * p.width, images = static_cast<size_t>(p.batch) * p.slots;
    const auto query = noise(p, p.batch * p.channels * plane), keys = noise(p, images * p.channels * plane);
    auto values = noise(p, images * p.labels * plane);
    if (rng() % 2) std::fill(values.begin(), values.end() - (rng() % 2 && !values.empty() ? 4 : 0), 0);  // labels alike
    auto out = noise(p, p.batch * p.labels * plane);
    std::vector<int32_t> dilation(images), offsets(images * 2 * plane);
    constexpr int most = std::numeric_limits<int32_t>::max(), least = std::numeric_limits<int32_t>::min();
    for (int32_t& d : dilation) d = among({0, 1, 1, 2, 3, 100, most, -1, least});
    const bool alike = rng() % 3 == 0;
    for (int32_t& o : offsets) o = alike ? 3 : among({0, 0, 1, -2, 7, -40, 100000, most, least});
    p.query = query.data(), p.keys = keys.data(), p.values = values.data(), p.dilation = dilation.data();
    p.offsets = rng() % 2 ? offsets.data() : nullptr, p.out = out.data();
    const KernelList list = available_kernels();
    for (int k = 0; k < list.count; ++k) compute(p, *list.kernels[k], {among({1, 2, 3})});
}

}  // namespace

int main(int, char** argv) {
    rng.seed(static_cast<unsigned>(std::atoi(argv[1])));
    const int cases = std::atoi(argv[2]);
    for (int i = 0; i < cases; ++i) one_case();
    std::printf("%d cases\n", cases);
}
