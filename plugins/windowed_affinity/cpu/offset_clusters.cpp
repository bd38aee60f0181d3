// Groups queries with offsets of their own into clusters that share a vector: their window centres lie close together.
#include <algorithm>

#include "problem.hpp"

namespace maskring {

namespace {

// Floor division, for b > 0.
struct Division {
    int64_t quotient, remainder;
};
Division divide(int64_t a, int64_t b) {
    const int64_t quotient = a / b - (a % b < 0);
    return {quotient, a - quotient * b};
}

bool is_above(const Centre& a, const Centre& b) { return a.y != b.y ? a.y < b.y : a.x < b.x; }
bool is_left_of(const Centre& a, const Centre& b) { return a.x != b.x ? a.x < b.x : a.y < b.y; }

// Halves a set of centres along its longer side, recursively, until each part fits into a vector.
class Bisection {
public:
    Bisection(const Centre* all, int lanes, Cluster* clusters) : all_(all), lanes_(lanes), clusters_(clusters) {}

    void split(Centre* first, Centre* last) {
        const int count = static_cast<int>(last - first), parts = (count + lanes_ - 1) / lanes_;
        if (parts <= 1) {
            clusters_[count_++] = {static_cast<int>(first - all_), count, first->y_residue, first->x_residue};
            return;
        }
        const auto [left, right] = std::minmax_element(first, last, is_left_of);
        const auto [top, bottom] = std::minmax_element(first, last, is_above);
        const bool wide = right->x - left->x > bottom->y - top->y;
        // In proportion to the number of vectors on each side, so that all are filled about equally.
        Centre* middle = first + (static_cast<int64_t>(count) * (parts / 2) + parts - 1) / parts;
        std::nth_element(first, middle, last, wide ? is_left_of : is_above);
        split(first, middle);
        split(middle, last);
    }

    int count() const { return count_; }

private:
    const Centre* all_;
    int lanes_;
    Cluster* clusters_;
    int count_ = 0;
};

// Window centres of a tile, without those whose window cannot contain a pixel of the frame. Returns their number.
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
            if (down.remainder >= p.height || across.remainder >= p.width) continue;
            centres[count++] = {static_cast<int>(down.quotient), static_cast<int>(across.quotient),
                                static_cast<int>(down.remainder), static_cast<int>(across.remainder),
                                static_cast<int>(at)};
        }
    return count;
}

bool same_residues(const Centre& a, const Centre& b) {
    return a.y_residue == b.y_residue && a.x_residue == b.x_residue;
}

}  // namespace

int cluster_queries(const Problem& p, const Rectangle& tile, int image, int lanes, Centre* centres, Cluster* clusters) {
    if (p.dilation[image] <= 0) return 0;
    Centre* const end = centres + find_centres(p, tile, image, centres);
    if (p.dilation[image] > 1)  // windows overlap only if their centres have the same residues
        std::sort(centres, end, [](const Centre& a, const Centre& b) {
            return a.y_residue != b.y_residue ? a.y_residue < b.y_residue : a.x_residue < b.x_residue;
        });
    Bisection bisection(centres, lanes, clusters);
    for (Centre* first = centres; first != end;) {
        Centre* last = first + 1;
        while (last != end && same_residues(*first, *last)) ++last;
        bisection.split(first, last);
        first = last;
    }
    return bisection.count();
}

}  // namespace maskring
