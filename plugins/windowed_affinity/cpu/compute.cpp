// Choosing an instruction set, cutting the frame into rectangles, and the threads that work on them.
#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <new>
#include <thread>
#include <vector>

#include "problem.hpp"

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
constexpr int kMostRows = 24;
constexpr int kRectanglesPerThread = 4;

struct AlignedDelete {
  void operator()(float* p) const { ::operator delete[](p, std::align_val_t(64)); }
};
using Buffer = std::unique_ptr<float[], AlignedDelete>;

Buffer make_buffer(size_t floats) {
  return Buffer(static_cast<float*>(::operator new[](floats * sizeof(float), std::align_val_t(64))));
}

std::vector<Rectangle> rectangles(const Problem& p, int threads) {
  const int columns = std::min(p.width, kMostColumns), across = (p.width + columns - 1) / columns;
  // Tall rectangles pack each key row for many queries; enough of them keep all threads busy to the end.
  const long long wanted = static_cast<long long>(p.batch) * across * p.height / (kRectanglesPerThread * threads);
  const int rows = static_cast<int>(std::clamp<long long>((wanted + 3) / 4 * 4, 4, kMostRows));
  std::vector<Rectangle> list;
  for (int b = 0; b < p.batch; ++b)
    for (int y = 0; y < p.height; y += rows)
      for (int x = 0; x < p.width; x += columns)
        list.push_back({b, y, x, std::min(rows, p.height - y), std::min(columns, p.width - x)});
  return list;
}

// Run `work(index, thread)` for all indices on `threads` threads, this one included; work must not throw.
template <typename Work>
void parallel(int count, int threads, const Work& work) {
  std::atomic<int> next{0};
  const auto loop = [&](int thread) {
    for (int i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) work(i, thread);
  };
  std::vector<std::thread> helpers;
  try {
    for (int t = 1; t < std::min(threads, count); ++t) helpers.emplace_back(loop, t);
  } catch (const std::system_error&) {
    // The system gives no more threads: those there are share the work.
  }
  loop(0);
  for (std::thread& helper : helpers) helper.join();
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

Buffer channels_last(Storage storage, const void* from, int images, int depth, size_t plane, int threads) {
  return storage == Storage::f32 ? channels_last<float>(from, images, depth, plane, threads)
                                 : channels_last<uint16_t>(from, images, depth, plane, threads);
}

}  // namespace

void compute(const Problem& p, const Kernel& kernel, int threads) {
  const std::vector<Rectangle> work = rectangles(p, threads);
  const bool general = p.offsets || p.top_k > 0;
  const int columns = std::min(p.width, kMostColumns);
  const size_t floats =
      general ? kernel.gathered_scratch(p) : kernel.fused_scratch(p, std::min(kMostRows, p.height), columns);
  // All memory is taken before the first thread starts: work cannot fail.
  std::vector<Buffer> scratch;
  for (int t = 0; t < threads; ++t) scratch.push_back(make_buffer(floats));
  const int count = static_cast<int>(work.size());
  if (!general)
    return parallel(count, threads, [&](int i, int t) { kernel.fused(p, work[i], scratch[t].get()); });
  const size_t plane = static_cast<size_t>(p.height) * p.width;
  const int images = p.batch * p.slots;
  const Buffer keys = channels_last(p.storage, p.keys, images, p.channels, plane, threads);
  const Buffer values = channels_last(p.storage, p.values, images, p.labels, plane, threads);
  parallel(count, threads,
           [&](int i, int t) { kernel.gathered(p, work[i], keys.get(), values.get(), scratch[t].get()); });
}

}  // namespace maskring
