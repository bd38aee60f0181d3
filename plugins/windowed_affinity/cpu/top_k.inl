// The general path, used for top_k: one query at a time, with any offsets.
//
// Keys and values have their channels last, so that a candidate is one contiguous vector.

inline float dot(const float* a, const float* b, int n) {
    Vec sums[2] = {};
    int i = 0;
    for (; i + 2 * LANES <= n; i += 2 * LANES) {
        sums[0] += load_unaligned(a + i) * load_unaligned(b + i);
        sums[1] += load_unaligned(a + i + LANES) * load_unaligned(b + i + LANES);
    }
    const Vec both = sums[0] + sums[1];
    float total = 0.f;
    for (int lane = 0; lane < LANES; ++lane) total += both[lane];
    for (; i < n; ++i) total += a[i] * b[i];
    return total;
}

// The candidates of one query: logits, and the pixel of [B * N * H * W] that each belongs to.
struct Candidates {
    float* logits;
    float* copy;  // scratch for the k-th largest
    int64_t* pixels;
    int count;
};

void find_candidates(const Problem& p, int batch, int y, int x, const float* query, const float* keys,
                     Candidates& candidates) {
    const int64_t plane = static_cast<int64_t>(p.height) * p.width;
    candidates.count = 0;
    for (int slot = 0; slot < p.slots; ++slot) {
        const int64_t image = static_cast<int64_t>(batch) * p.slots + slot, dilation = p.dilation[image];
        if (dilation <= 0) continue;
        int64_t centre_y = y, centre_x = x;
        if (p.offsets) {
            const int32_t* offset = p.offsets + image * 2 * plane + static_cast<int64_t>(y) * p.width + x;
            centre_y += offset[0], centre_x += offset[plane];
        }
        for (int dy = -p.radius; dy <= p.radius; ++dy) {
            const int64_t key_y = centre_y + dy * dilation;
            if (key_y < 0 || key_y >= p.height) continue;
            for (int dx = -p.radius; dx <= p.radius; ++dx) {
                const int64_t key_x = centre_x + dx * dilation;
                if (key_x < 0 || key_x >= p.width) continue;
                const int64_t pixel = image * plane + key_y * p.width + key_x;
                candidates.pixels[candidates.count] = pixel;
                candidates.logits[candidates.count++] = dot(query, keys + pixel * p.channels, p.channels);
            }
        }
    }
}

// Turns inner products into weights that sum to 1; weights below the k-th largest become 0. The selection precedes the
// scale, so that rounding cannot break ties.
void softmax(Candidates& candidates, int top_k, float scale) {
    float threshold = NO_LOGIT;
    if (top_k > 0 && top_k < candidates.count) {
        for (int i = 0; i < candidates.count; ++i) candidates.copy[i] = candidates.logits[i];
        threshold = kth_largest(candidates.copy, candidates.count, top_k);
    }
    const float factor = scale * LOG2_E;  // the softmax uses powers of two
    float largest = candidates.logits[0];
    for (int i = 1; i < candidates.count; ++i)
        largest = candidates.logits[i] > largest ? candidates.logits[i] : largest;
    const int padded = static_cast<int>(round_up(candidates.count, LANES));
    for (int i = candidates.count; i < padded; ++i) candidates.logits[i] = MASK_VALUE;
    Vec sums = {};
    for (int i = 0; i < padded; i += LANES) {
        const Vec product = load(candidates.logits + i);
        const Vec weight = product >= splat(threshold) ? exp2_nonpositive((product - largest) * factor) : Vec{};
        store(candidates.logits + i, weight);
        sums += weight;
    }
    float total = 0.f;
    for (int lane = 0; lane < LANES; ++lane) total += sums[lane];
    for (int i = 0; i < candidates.count; ++i) candidates.logits[i] /= total;
}

template <typename T>
void run_top_k_as(const Problem& p, const Rectangle& area, const float* keys, const float* values, float* scratch) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    const size_t capacity = round_up(static_cast<size_t>(p.slots) * (2 * p.radius + 1) * (2 * p.radius + 1), 16);
    float* query = scratch;
    float* sums = query + round_up(p.channels, 16);
    Candidates candidates;
    candidates.logits = sums + round_up(p.labels, 16);
    candidates.copy = candidates.logits + capacity;
    candidates.pixels = reinterpret_cast<int64_t*>(candidates.copy + capacity);
    for (int y = area.top; y < area.top + area.rows; ++y)
        for (int x = area.left; x < area.left + area.columns; ++x) {
            const size_t at = static_cast<size_t>(y) * p.width + x;
            const T* from = static_cast<const T*>(p.query) + area.batch * p.channels * plane + at;
            for (int c = 0; c < p.channels; ++c) query[c] = widen(from[c * plane]);
            find_candidates(p, area.batch, y, x, query, keys, candidates);
            for (int o = 0; o < p.labels; ++o) sums[o] = 0.f;
            if (candidates.count > 0) {
                softmax(candidates, p.top_k, p.scale);
                for (int i = 0; i < candidates.count; ++i)
                    for (int o = 0; o < p.labels; ++o)
                        sums[o] += candidates.logits[i] * values[candidates.pixels[i] * p.labels + o];
            }
            T* to = static_cast<T*>(p.out) + area.batch * p.labels * plane + at;
            for (int o = 0; o < p.labels; ++o) narrow(sums[o], to + o * plane);
        }
}

void run_top_k(const Problem& p, const Rectangle& area, const float* keys, const float* values, float* scratch) {
    p.storage == Storage::f32 ? run_top_k_as<float>(p, area, keys, values, scratch)
                              : run_top_k_as<uint16_t>(p, area, keys, values, scratch);
}

size_t top_k_scratch(const Problem& p) {
    const size_t capacity = round_up(static_cast<size_t>(p.slots) * (2 * p.radius + 1) * (2 * p.radius + 1), 16);
    return round_up(p.channels, 16) + round_up(p.labels, 16) + capacity * 4;  // an int64 pixel takes two floats
}
