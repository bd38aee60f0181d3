// Queries that no similarity can change: all labels within their reach are the same, and so is any mean of them.
//
// Objects cover a part of a frame. Everywhere else windows hold background alone, in every frame of memory, and the
// keys there need not be looked at.
#include "uniform_blocks.hpp"

#include <algorithm>

#include "parallel.hpp"

namespace maskring {
namespace {

// How many pixels of [0, y) x [0, x) have labels that differ from those left of them or above.
class Borders {
 public:
  explicit Borders(const Problem& p)
      : height_(p.height), width_(p.width), differs_(static_cast<size_t>(height_) * width_),
        sums_(static_cast<size_t>(height_ + 1) * (width_ + 1)) {}

  template <typename T>
  void count(const T* values, int labels) {
    std::fill(differs_.begin(), differs_.end(), 0);
    for (int row = 0; row < labels * height_; ++row, values += width_) {
      const int y = row % height_;
      uint8_t* differs = &differs_[static_cast<size_t>(y) * width_];
      for (int x = 1; x < width_; ++x) differs[x] |= values[x] != values[x - 1];
      if (y > 0)
        for (int x = 0; x < width_; ++x) differs[x] |= values[x] != values[x - width_];
    }
    const uint8_t* differs = differs_.data();
    int32_t* above = sums_.data();
    for (int y = 0; y < height_; ++y, above += width_ + 1) {
      int32_t in_row = 0;
      for (int x = 0; x < width_; ++x) above[width_ + 2 + x] = above[x + 1] + (in_row += *differs++);
    }
  }

  bool none_in(long long top, long long bottom, long long left, long long right) const {
    return at(bottom, right) - at(top, right) == at(bottom, left) - at(top, left);
  }

 private:
  int32_t at(long long y, long long x) const { return sums_[y * (width_ + 1) + x]; }

  int height_, width_;
  std::vector<uint8_t> differs_;  // [H, W]
  std::vector<int32_t> sums_;     // [H + 1, W + 1]
};

// For the blocks of one frame of memory: whether the labels in their reach are equal, to each other and to those that
// the frame `first` has there.
template <typename T>
void compare(const Problem& p, int image, int first, Borders& borders, uint8_t* equal) {
  const size_t plane = static_cast<size_t>(p.height) * p.width;
  const T* values = static_cast<const T*>(p.values) + static_cast<size_t>(image) * p.labels * plane;
  const T* others = static_cast<const T*>(p.values) + static_cast<size_t>(first) * p.labels * plane;
  borders.count(values, p.labels);
  const long long reach = static_cast<long long>(p.radius) * p.dilation[image];
  for (int y = 0; y < p.height; ++y) {
    const long long top = std::max(0LL, y - reach), bottom = std::min<long long>(p.height, y + reach + 1);
    for (int x = 0; x < p.width; x += kBlock) {
      const long long left = std::max(0LL, x - reach), right = std::min<long long>(p.width, x + kBlock + reach);
      bool same = borders.none_in(top, bottom, left, right);
      const size_t at = static_cast<size_t>(y) * p.width + x;
      for (int o = 0; o < p.labels && same; ++o) same = values[o * plane + at] == others[o * plane + at];
      *equal++ = same;
    }
  }
}

}  // namespace

SettledQueries settled_queries(const Problem& p, int threads) {
  const size_t blocks = static_cast<size_t>(p.height) * ((p.width + kBlock - 1) / kBlock);
  SettledQueries found{std::vector<int>(p.batch), std::vector<uint8_t>(p.batch * blocks)};
  for (int b = 0; b < p.batch; ++b) {
    const int32_t* dilation = p.dilation + b * p.slots;
    while (found.slot[b] < p.slots && dilation[found.slot[b]] <= 0) ++found.slot[b];
  }
  std::vector<uint8_t> equal(static_cast<size_t>(p.batch) * p.slots * blocks, 1);  // frames that are not read: to any
  const int images = p.batch * p.slots;
  std::vector<Borders> borders(std::min(threads, images), Borders(p));  // one for each thread that has work
  parallel(images, threads, [&](int image, int t) {
    if (p.dilation[image] <= 0) return;
    const int first = image / p.slots * p.slots + found.slot[image / p.slots];
    (p.storage == Storage::f32 ? compare<float> : compare<uint16_t>)(p, image, first, borders[t],
                                                                     equal.data() + image * blocks);
  });
  for (int b = 0; b < p.batch; ++b) {
    uint8_t* to = found.blocks.data() + b * blocks;
    std::fill_n(to, blocks, found.slot[b] < p.slots);
    for (int slot = 0; slot < p.slots; ++slot) {
      const uint8_t* from = equal.data() + (static_cast<size_t>(b) * p.slots + slot) * blocks;
      for (size_t i = 0; i < blocks; ++i) to[i] &= from[i];
    }
  }
  return found;
}

}  // namespace maskring
