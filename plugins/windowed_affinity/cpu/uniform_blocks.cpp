// Finds queries that need no keys: where all labels in reach are equal, every weighted mean of them is the same. Where
// only one label is in reach, with whatever weights, its share is 1.
//
// Objects cover a small part of a frame. Elsewhere, windows contain only background in every slot.
#include "uniform_blocks.hpp"

#include <algorithm>

#include "parallel.hpp"

namespace maskring {
namespace {

// Whether two values count as equal. For shares it only matters which labels have a weight at all.
template <typename T>
bool alike(T a, T b, bool shares) {
    return shares ? (a != 0) == (b != 0) : a == b;
}

// Counts label edges in rectangles of one frame. An edge is a pixel whose labels differ from the pixel to its left or
// above it. Stored as an integral image.
class LabelEdges {
public:
    explicit LabelEdges(const Problem& p)
        : height_(p.height),
          width_(p.width),
          is_edge_(static_cast<size_t>(height_) * width_),
          sums_(static_cast<size_t>(height_ + 1) * (width_ + 1)) {}

    template <typename T>
    void count(const T* values, int labels, bool shares) {
        std::fill(is_edge_.begin(), is_edge_.end(), 0);
        for (int row = 0; row < labels * height_; ++row, values += width_) {
            const int y = row % height_;
            uint8_t* is_edge = &is_edge_[static_cast<size_t>(y) * width_];
            for (int x = 1; x < width_; ++x) is_edge[x] |= !alike(values[x], values[x - 1], shares);
            if (y > 0)
                for (int x = 0; x < width_; ++x) is_edge[x] |= !alike(values[x], values[x - width_], shares);
        }
        const uint8_t* is_edge = is_edge_.data();
        int32_t* above = sums_.data();
        for (int y = 0; y < height_; ++y, above += width_ + 1) {
            int32_t in_row = 0;
            for (int x = 0; x < width_; ++x) above[width_ + 2 + x] = above[x + 1] + (in_row += *is_edge++);
        }
    }

    // Whether rows [top, bottom) and columns [left, right) contain no edge.
    bool none_in(long long top, long long bottom, long long left, long long right) const {
        return at(bottom, right) - at(top, right) == at(bottom, left) - at(top, left);
    }

private:
    int32_t at(long long y, long long x) const { return sums_[y * (width_ + 1) + x]; }

    int height_, width_;
    std::vector<uint8_t> is_edge_;  // [H, W]
    std::vector<int32_t> sums_;     // [H + 1, W + 1] edges in [0, y) x [0, x)
};

// For each block of slot image `image`: whether the labels in its reach are equal, and equal to those at the same place
// in slot image `first`.
template <typename T>
void compare(const Problem& p, int image, int first, LabelEdges& edges, uint8_t* equal) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    const T* values = static_cast<const T*>(p.values) + static_cast<size_t>(image) * p.labels * plane;
    const T* others = static_cast<const T*>(p.values) + static_cast<size_t>(first) * p.labels * plane;
    edges.count(values, p.labels, p.shares);
    const long long reach = static_cast<long long>(p.radius) * p.dilation[image];
    for (int y = 0; y < p.height; ++y) {
        const long long top = std::max(0LL, y - reach), bottom = std::min<long long>(p.height, y + reach + 1);
        for (int x = 0; x < p.width; x += BLOCK_WIDTH) {
            const long long left = std::max(0LL, x - reach);
            const long long right = std::min<long long>(p.width, x + BLOCK_WIDTH + reach);
            bool same = edges.none_in(top, bottom, left, right);
            const size_t at = static_cast<size_t>(y) * p.width + x;
            int weighted = 0;
            for (int o = 0; o < p.labels && same; ++o) {
                same = alike(values[o * plane + at], others[o * plane + at], p.shares);
                weighted += values[o * plane + at] != 0;
            }
            *equal++ = same && (!p.shares || weighted <= 1);
        }
    }
}

}  // namespace

UniformBlockMap find_uniform_blocks(const Problem& p, const Workers& workers) {
    const size_t blocks = static_cast<size_t>(p.height) * ((p.width + BLOCK_WIDTH - 1) / BLOCK_WIDTH);
    UniformBlockMap map{std::vector<int>(p.batch), std::vector<uint8_t>(p.batch * blocks)};
    for (int b = 0; b < p.batch; ++b) {
        const int32_t* dilation = p.dilation + b * p.slots;
        while (map.first_slot[b] < p.slots && dilation[map.first_slot[b]] <= 0) ++map.first_slot[b];
    }
    std::vector<uint8_t> equal(static_cast<size_t>(p.batch) * p.slots * blocks, 1);  // stays 1 for empty slots
    const int images = p.batch * p.slots;
    std::vector<LabelEdges> edges(std::min(workers.count, images), LabelEdges(p));  // one per thread that has work
    parallel(images, workers, [&](int image, int t) {
        if (p.dilation[image] <= 0) return;
        const int first = image / p.slots * p.slots + map.first_slot[image / p.slots];
        (p.storage == Storage::f32 ? compare<float> : compare<uint16_t>)(p, image, first, edges[t],
                                                                         equal.data() + image * blocks);
    });
    for (int b = 0; b < p.batch; ++b) {
        uint8_t* uniform = map.uniform.data() + b * blocks;
        std::fill_n(uniform, blocks, map.first_slot[b] < p.slots);
        for (int slot = 0; slot < p.slots; ++slot) {
            const uint8_t* in_slot = equal.data() + (static_cast<size_t>(b) * p.slots + slot) * blocks;
            for (size_t i = 0; i < blocks; ++i) uniform[i] &= in_slot[i];
        }
    }
    return map;
}

}  // namespace maskring
