// Which queries of a tile share a vector: those whose window centres lie close together.
#include <algorithm>

#include "problem.hpp"

namespace maskring {

namespace {

// floor(a / b) and its rest for b > 0.
struct Division {
  int64_t quotient, rest;
};
Division divide(int64_t a, int64_t b) {
  const int64_t quotient = a / b - (a % b < 0);
  return {quotient, a - quotient * b};
}

bool below(const Centre& a, const Centre& b) { return a.y != b.y ? a.y < b.y : a.x < b.x; }
bool before(const Centre& a, const Centre& b) { return a.x != b.x ? a.x < b.x : a.y < b.y; }

// Cut centres across their longer extent again and again, until each part fits into a vector.
class Cutter {
 public:
  Cutter(const Centre* all, int lanes, Cluster* clusters) : all_(all), lanes_(lanes), clusters_(clusters) {}

  void cut(Centre* first, Centre* last) {
    const int count = static_cast<int>(last - first), parts = (count + lanes_ - 1) / lanes_;
    if (parts <= 1) {
      clusters_[found_++] = {static_cast<int>(first - all_), count, first->y_residue, first->x_residue};
      return;
    }
    const auto [left, right] = std::minmax_element(first, last, before);
    const auto [top, bottom] = std::minmax_element(first, last, below);
    const bool wide = right->x - left->x > bottom->y - top->y;
    // Shares in proportion to the parts: all vectors are filled about equally.
    Centre* middle = first + (static_cast<int64_t>(count) * (parts / 2) + parts - 1) / parts;
    std::nth_element(first, middle, last, wide ? before : below);
    cut(first, middle);
    cut(middle, last);
  }

  int found() const { return found_; }

 private:
  const Centre* all_;
  int lanes_;
  Cluster* clusters_;
  int found_ = 0;
};

// Window centres of a tile whose windows may hold a pixel of the frame; returns how many.
int find_centres(const Problem& p, const Rectangle& tile, int image, Centre* centres) {
  const int64_t plane = static_cast<int64_t>(p.height) * p.width, dilation = p.dilation[image];
  const int64_t reach = p.radius * dilation;
  const int32_t* offsets = p.offsets + image * 2 * plane;
  int count = 0;
  for (int row = 0; row < tile.rows; ++row)
    for (int column = 0; column < tile.columns; ++column) {
      const int64_t at = static_cast<int64_t>(tile.top + row) * p.width + tile.left + column;
      const int64_t y = int64_t{tile.top} + row + offsets[at];
      const int64_t x = int64_t{tile.left} + column + offsets[plane + at];
      if (y < -reach || y >= p.height + reach || x < -reach || x >= p.width + reach) continue;
      const Division down = divide(y, dilation), across = divide(x, dilation);
      if (down.rest >= p.height || across.rest >= p.width) continue;
      centres[count++] = {static_cast<int>(down.quotient), static_cast<int>(across.quotient),
                          static_cast<int>(down.rest), static_cast<int>(across.rest), static_cast<int>(at)};
    }
  return count;
}

bool same_class(const Centre& a, const Centre& b) {
  return a.y_residue == b.y_residue && a.x_residue == b.x_residue;
}

}  // namespace

int arrange(const Problem& p, const Rectangle& tile, int image, int lanes, Centre* centres, Cluster* clusters) {
  if (p.dilation[image] <= 0) return 0;
  Centre* const end = centres + find_centres(p, tile, image, centres);
  if (p.dilation[image] > 1)  // windows meet only within a residue class
    std::sort(centres, end, [](const Centre& a, const Centre& b) {
      return a.y_residue != b.y_residue ? a.y_residue < b.y_residue : a.x_residue < b.x_residue;
    });
  Cutter cutter(centres, lanes, clusters);
  for (Centre* first = centres; first != end;) {
    Centre* last = first + 1;
    while (last != end && same_class(*first, *last)) ++last;
    cutter.cut(first, last);
    first = last;
  }
  return cutter.found();
}

}  // namespace maskring
