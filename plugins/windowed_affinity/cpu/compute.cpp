// Chooses an instruction set, splits the frame into rectangles and computes them on threads.
#include <algorithm>
#include <functional>
#include <memory>
#include <new>
#include <vector>

#include "parallel.hpp"
#include "uniform_blocks.hpp"

namespace maskring {

extern const Kernel kernel_portable;
#if defined(__x86_64__)
extern const Kernel kernel_avx512, kernel_avx2;
#elif defined(__aarch64__)
extern const Kernel kernel_neon;
#endif

KernelList available_kernels() {
    KernelList list{{}, 0};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        list.kernels[list.count++] = &kernel_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) list.kernels[list.count++] = &kernel_avx2;
#elif defined(__aarch64__)
    list.kernels[list.count++] = &kernel_neon;
#endif
    list.kernels[list.count++] = &kernel_portable;
    return list;
}

float kth_largest(float* numbers, int n, int k) {
    std::nth_element(numbers, numbers + (k - 1), numbers + n, std::greater<>());
    return numbers[k - 1];
}

namespace {

#include "half.inl"

constexpr int MAX_COLUMNS = 256;  // so that a packed key row fits into the cache
static_assert(MAX_COLUMNS % BLOCK_WIDTH == 0);
constexpr int MAX_ROWS = 24;
constexpr int RECTANGLES_PER_THREAD = 4;

struct AlignedDelete {
    void operator()(float* p) const { ::operator delete[](p, std::align_val_t(64)); }
};
using Buffer = std::unique_ptr<float[], AlignedDelete>;

Buffer make_buffer(size_t floats) {
    return Buffer(static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t(64))));
}

// Rectangles of at most `rows` x `columns` that cover all frames.
std::vector<Rectangle> split(const Problem& p, int rows, int columns) {
    std::vector<Rectangle> list;
    for (int b = 0; b < p.batch; ++b)
        for (int y = 0; y < p.height; y += rows)
            for (int x = 0; x < p.width; x += columns)
                list.push_back({b, y, x, std::min(rows, p.height - y), std::min(columns, p.width - x)});
    return list;
}

std::vector<Rectangle> make_rectangles(const Problem& p, const Workers& workers) {
    const int columns = std::min(p.width, MAX_COLUMNS), across = (p.width + columns - 1) / columns;
    // High rectangles reuse each packed key row more often; several per thread balance the load.
    const long long rows =
        static_cast<long long>(p.batch) * across * p.height / (RECTANGLES_PER_THREAD * workers.count);
    return split(p, static_cast<int>(std::clamp<long long>((rows + 3) / 4 * 4, 4, MAX_ROWS)), columns);
}

size_t dense_window_scratch(const Problem& p, const Kernel& kernel) {
    return kernel.dense_window_scratch(p, std::min(MAX_ROWS, p.height), std::min(p.width, MAX_COLUMNS));
}

// [images, depth, plane] -> f32 [images, plane, depth]
template <typename T>
Buffer channels_last(const void* from, int images, int depth, size_t plane, const Workers& workers) {
    Buffer to = make_buffer(static_cast<size_t>(images) * depth * plane + 1);
    parallel(images, workers, [&](int image, int) {
        const T* in = static_cast<const T*>(from) + image * depth * plane;
        float* out = to.get() + image * depth * plane;
        for (int c = 0; c < depth; ++c)
            for (size_t i = 0; i < plane; ++i) out[i * depth + c] = widen(in[c * plane + i]);
    });
    return to;
}

// Copies one row of a map with its columns sorted by residue (see RowCopies), `step` floats apart.
template <typename T>
void copy_row(const T* from, int width, int dilation, float* to, size_t step) {
    for (int residue = 0; residue < std::min(dilation, width); ++residue)
        for (int x = residue; x < width; x += std::min(dilation, width), to += step) *to = widen(from[x]);
}

template <typename T>
void copy_rows(const Problem& p, int slot, const RowCopies& to, const Workers& workers) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    parallel(p.batch * p.height, workers, [&](int row, int) {
        const int image = row / p.height * p.slots + slot, dilation = p.dilation[image];
        const size_t begin = static_cast<size_t>(row % p.height) * p.width;
        if (dilation <= 0) return;
        const T* keys = static_cast<const T*>(p.keys) + image * p.channels * plane + begin;
        float* keys_to = to.keys + static_cast<size_t>(row) * p.channels * to.stride;
        for (int c = 0; c < p.channels; ++c) copy_row(keys + c * plane, p.width, dilation, keys_to + c * to.stride, 1);
        const T* values = static_cast<const T*>(p.values) + image * p.labels * plane + begin;
        float* values_to = to.values + static_cast<size_t>(row) * p.width * p.labels;
        for (int o = 0; o < p.labels; ++o) copy_row(values + o * plane, p.width, dilation, values_to + o, p.labels);
    });
}

// For each slot image of [B * N]: its offset, if all queries share it. Empty slots count as shared.
std::vector<SharedOffset> find_shared_offsets(const Problem& p) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    std::vector<SharedOffset> list;
    for (int image = 0; image < p.batch * p.slots; ++image) {
        const int32_t *down = p.offsets + image * 2 * plane, *across = down + plane;
        const auto differs = [](const int32_t* map, size_t count) {
            return std::any_of(map, map + count, [first = *map](int32_t offset) { return offset != first; });
        };
        const bool is_empty = p.dilation[image] <= 0;
        list.push_back({down[0], across[0], is_empty || !(differs(down, plane) || differs(across, plane))});
    }
    return list;
}

template <typename T>
void write_means(const Problem& p, const Sums& sums, const Workers& workers) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    parallel(p.batch * p.labels, workers, [&](int map, int) {
        const float *maximum = sums.maximum + map / p.labels * plane, *sum = sums.sum + map / p.labels * plane;
        for (size_t i = 0; i < plane; ++i)
            narrow(maximum[i] > NO_LOGIT ? sums.weighted[map * plane + i] / sum[i] : 0.f,
                   static_cast<T*>(p.out) + map * plane + i);
    });
}

// Slots with a shared offset take the fast path first; the others follow one by one.
void compute_with_offsets(const Problem& p, const Kernel& kernel, const Workers& workers) {
    const size_t plane = static_cast<size_t>(p.height) * p.width, pixels = p.batch * plane;
    const std::vector<SharedOffset> offsets = find_shared_offsets(p);
    const size_t stride = ((p.width + 15) / 16 | 1) * 16;  // odd, so that channels map to different cache sets
    const size_t floats = std::max(kernel.per_query_offset_scratch(p), dense_window_scratch(p, kernel));
    std::vector<Buffer> scratch;
    for (int t = 0; t < workers.count; ++t) scratch.push_back(make_buffer(floats));
    const Buffer maximum = make_buffer(pixels), sum = make_buffer(pixels),
                 weighted = make_buffer(pixels * p.labels + 1);
    const Sums sums{maximum.get(), sum.get(), weighted.get()};
    const Buffer keys = make_buffer(p.batch * p.height * p.channels * stride),
                 values = make_buffer(pixels * p.labels + 1);
    const RowCopies copies{keys.get(), values.get(), stride};

    const std::vector<Rectangle> rectangles = make_rectangles(p, workers);
    parallel(static_cast<int>(rectangles.size()), workers,
             [&](int i, int t) { kernel.shared_offset(p, rectangles[i], offsets.data(), sums, scratch[t].get()); });
    // The same tiles for any number of threads, because the clusters of a tile decide how sums are rounded.
    const std::vector<Rectangle> tiles = split(p, TILE_SIDE, TILE_SIDE);
    for (int slot = 0; slot < p.slots; ++slot) {
        const auto shared = [&](int batch) { return offsets[batch * p.slots + slot].is_shared; };
        std::vector<Rectangle> remaining;
        for (const Rectangle& tile : tiles)
            if (!shared(tile.batch)) remaining.push_back(tile);
        if (remaining.empty()) continue;
        (p.storage == Storage::f32 ? copy_rows<float> : copy_rows<uint16_t>)(p, slot, copies, workers);
        parallel(static_cast<int>(remaining.size()), workers,
                 [&](int i, int t) { kernel.per_query_offset(p, remaining[i], slot, copies, sums, scratch[t].get()); });
    }
    (p.storage == Storage::f32 ? write_means<float> : write_means<uint16_t>)(p, sums, workers);
}

void compute_dense_window(const Problem& p, const Kernel& kernel, const Workers& workers) {
    std::vector<Buffer> scratch;
    for (int t = 0; t < workers.count; ++t) scratch.push_back(make_buffer(dense_window_scratch(p, kernel)));
    const std::vector<Rectangle> rectangles = make_rectangles(p, workers);
    const UniformBlockMap uniform = find_uniform_blocks(p, workers);
    parallel(static_cast<int>(rectangles.size()), workers,
             [&](int i, int t) { kernel.dense_window(p, rectangles[i], uniform.view(), scratch[t].get()); });
}

void compute_top_k(const Problem& p, const Kernel& kernel, const Workers& workers) {
    std::vector<Buffer> scratch;
    for (int t = 0; t < workers.count; ++t) scratch.push_back(make_buffer(kernel.top_k_scratch(p)));
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    const int images = p.batch * p.slots;
    const auto copy = p.storage == Storage::f32 ? channels_last<float> : channels_last<uint16_t>;
    const Buffer keys = copy(p.keys, images, p.channels, plane, workers);
    const Buffer values = copy(p.values, images, p.labels, plane, workers);
    const std::vector<Rectangle> rectangles = make_rectangles(p, workers);
    parallel(static_cast<int>(rectangles.size()), workers,
             [&](int i, int t) { kernel.top_k(p, rectangles[i], keys.get(), values.get(), scratch[t].get()); });
}

// Divides the result of each pixel by its sum over labels.
template <typename T>
void divide_by_sum(const Problem& p, const Workers& workers) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    parallel(p.batch * p.height, workers, [&](int row, int) {
        T* out = static_cast<T*>(p.out) + static_cast<size_t>(row / p.height) * p.labels * plane +
                 static_cast<size_t>(row % p.height) * p.width;
        for (int x = 0; x < p.width; ++x) {
            float sum = 0.f;
            for (int o = 0; o < p.labels; ++o) sum += widen(out[o * plane + x]);
            if (sum <= 0.f) continue;
            for (int o = 0; o < p.labels; ++o) narrow(widen(out[o * plane + x]) / sum, out + o * plane + x);
        }
    });
}

}  // namespace

// Each path allocates all its memory before it starts threads, so that no thread can fail.
void compute(const Problem& p, const Kernel& kernel, const Workers& workers) {
    (p.top_k > 0 ? compute_top_k : p.offsets ? compute_with_offsets : compute_dense_window)(p, kernel, workers);
    if (p.shares) (p.storage == Storage::f32 ? divide_by_sum<float> : divide_by_sum<uint16_t>)(p, workers);
}

}  // namespace maskring
