// Choosing an instruction set, cutting the frame into rectangles, and the threads that work on them.
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
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
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

constexpr int kMostColumns = 256;  // a wider packed key row would leave the cache
static_assert(kMostColumns % kBlock == 0);
constexpr int kMostRows = 24;
constexpr int kRectanglesPerThread = 4;

struct AlignedDelete {
  void operator()(float* p) const { ::operator delete[](p, std::align_val_t(64)); }
};
using Buffer = std::unique_ptr<float[], AlignedDelete>;

Buffer make_buffer(size_t floats) {
  return Buffer(static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t(64))));
}

// Rectangles of at most `rows` x `columns` that cover all frames.
std::vector<Rectangle> cut(const Problem& p, int rows, int columns) {
  std::vector<Rectangle> list;
  for (int b = 0; b < p.batch; ++b)
    for (int y = 0; y < p.height; y += rows)
      for (int x = 0; x < p.width; x += columns)
        list.push_back({b, y, x, std::min(rows, p.height - y), std::min(columns, p.width - x)});
  return list;
}

std::vector<Rectangle> rectangles(const Problem& p, int threads) {
  const int columns = std::min(p.width, kMostColumns), across = (p.width + columns - 1) / columns;
  // Tall rectangles pack each key row for many queries; enough of them keep all threads busy to the end.
  const long long wanted = static_cast<long long>(p.batch) * across * p.height / (kRectanglesPerThread * threads);
  return cut(p, static_cast<int>(std::clamp<long long>((wanted + 3) / 4 * 4, 4, kMostRows)), columns);
}

size_t fused_scratch(const Problem& p, const Kernel& kernel) {
  return kernel.fused_scratch(p, std::min(kMostRows, p.height), std::min(p.width, kMostColumns));
}

// [images, depth, plane] -> f32 [images, plane, depth]
template <typename T>
Buffer channels_last(const void* from, int images, int depth, size_t plane, int threads) {
  Buffer to = make_buffer(static_cast<size_t>(images) * depth * plane + 1);
  parallel(images, threads, [&](int image, int) {
    const T* in = static_cast<const T*>(from) + image * depth * plane;
    float* out = to.get() + image * depth * plane;
    for (int c = 0; c < depth; ++c)
      for (size_t i = 0; i < plane; ++i) out[i * depth + c] = widen(in[c * plane + i]);
  });
  return to;
}

// Copy one image row into the order of residues (see RowCopies), its pixels `step` floats apart.
template <typename T>
void copy_row(const T* from, int width, int dilation, float* to, size_t step) {
  for (int residue = 0; residue < std::min(dilation, width); ++residue)
    for (int x = residue; x < width; x += std::min(dilation, width), to += step) *to = widen(from[x]);
}

template <typename T>
void copy_rows(const Problem& p, int slot, const RowCopies& to, int threads) {
  const size_t plane = static_cast<size_t>(p.height) * p.width;
  parallel(p.batch * p.height, threads, [&](int row, int) {
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

// For each frame of [B * N] the offset that its queries share, if they do; frames that are not read count as such.
std::vector<Shift> shifts(const Problem& p) {
  const size_t plane = static_cast<size_t>(p.height) * p.width;
  std::vector<Shift> list;
  for (int image = 0; image < p.batch * p.slots; ++image) {
    const int32_t *down = p.offsets + image * 2 * plane, *across = down + plane;
    const auto differs = [](const int32_t* map, size_t count) {
      return std::any_of(map, map + count, [first = *map](int32_t offset) { return offset != first; });
    };
    const bool read = p.dilation[image] > 0;
    list.push_back({down[0], across[0], !read || !(differs(down, plane) || differs(across, plane))});
  }
  return list;
}

template <typename T>
void write_means(const Problem& p, const Sums& sums, int threads) {
  const size_t plane = static_cast<size_t>(p.height) * p.width;
  parallel(p.batch * p.labels, threads, [&](int map, int) {
    const float *maximum = sums.maximum + map / p.labels * plane, *sum = sums.sum + map / p.labels * plane;
    for (size_t i = 0; i < plane; ++i)
      narrow(maximum[i] > kNothing ? sums.weighted[map * plane + i] / sum[i] : 0.f,
             static_cast<T*>(p.out) + map * plane + i);
  });
}

// Frames whose windows are all shifted alike take the fast path; the others follow slot by slot.
void compute_with_offsets(const Problem& p, const Kernel& kernel, int threads) {
  const size_t plane = static_cast<size_t>(p.height) * p.width, pixels = p.batch * plane;
  const std::vector<Shift> list = shifts(p);
  const size_t stride = ((p.width + 15) / 16 | 1) * 16;  // channels must not all fall into the same sets of a cache
  const size_t floats = std::max(kernel.clustered_scratch(p), fused_scratch(p, kernel));
  std::vector<Buffer> scratch;
  for (int t = 0; t < threads; ++t) scratch.push_back(make_buffer(floats));
  const Buffer maximum = make_buffer(pixels), sum = make_buffer(pixels), weighted = make_buffer(pixels * p.labels + 1);
  const Sums sums{maximum.get(), sum.get(), weighted.get()};
  const Buffer keys = make_buffer(p.batch * p.height * p.channels * stride), values = make_buffer(pixels * p.labels + 1);
  const RowCopies copies{keys.get(), values.get(), stride};

  const std::vector<Rectangle> work = rectangles(p, threads);
  parallel(static_cast<int>(work.size()), threads,
           [&](int i, int t) { kernel.shifted(p, work[i], list.data(), sums, scratch[t].get()); });
  // The same tiles for any number of threads: which queries share a cluster decides how their sums are rounded.
  const std::vector<Rectangle> tiles = cut(p, kTileSide, kTileSide);
  for (int slot = 0; slot < p.slots; ++slot) {
    const auto shared = [&](int batch) { return list[batch * p.slots + slot].whole_frame; };
    std::vector<Rectangle> left;
    for (const Rectangle& tile : tiles)
      if (!shared(tile.batch)) left.push_back(tile);
    if (left.empty()) continue;
    (p.storage == Storage::f32 ? copy_rows<float> : copy_rows<uint16_t>)(p, slot, copies, threads);
    parallel(static_cast<int>(left.size()), threads,
             [&](int i, int t) { kernel.clustered(p, left[i], slot, copies, sums, scratch[t].get()); });
  }
  (p.storage == Storage::f32 ? write_means<float> : write_means<uint16_t>)(p, sums, threads);
}

void compute_fused(const Problem& p, const Kernel& kernel, int threads) {
  std::vector<Buffer> scratch;
  for (int t = 0; t < threads; ++t) scratch.push_back(make_buffer(fused_scratch(p, kernel)));
  const std::vector<Rectangle> work = rectangles(p, threads);
  const SettledQueries known = settled_queries(p, threads);
  parallel(static_cast<int>(work.size()), threads,
           [&](int i, int t) { kernel.fused(p, work[i], known.view(), scratch[t].get()); });
}

void compute_gathered(const Problem& p, const Kernel& kernel, int threads) {
  std::vector<Buffer> scratch;
  for (int t = 0; t < threads; ++t) scratch.push_back(make_buffer(kernel.gathered_scratch(p)));
  const size_t plane = static_cast<size_t>(p.height) * p.width;
  const int images = p.batch * p.slots;
  const auto copy = p.storage == Storage::f32 ? channels_last<float> : channels_last<uint16_t>;
  const Buffer keys = copy(p.keys, images, p.channels, plane, threads);
  const Buffer values = copy(p.values, images, p.labels, plane, threads);
  const std::vector<Rectangle> work = rectangles(p, threads);
  parallel(static_cast<int>(work.size()), threads,
           [&](int i, int t) { kernel.gathered(p, work[i], keys.get(), values.get(), scratch[t].get()); });
}

}  // namespace

// Each way takes all its memory before its first thread starts: work cannot fail.
void compute(const Problem& p, const Kernel& kernel, int threads) {
  if (p.top_k > 0) return compute_gathered(p, kernel, threads);
  p.offsets ? compute_with_offsets(p, kernel, threads) : compute_fused(p, kernel, threads);
}

}  // namespace maskring
