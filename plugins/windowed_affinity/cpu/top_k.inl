// The general path: a pixel at a time, wherever its windows lie, with or without top_k.
//
// Keys and values come with their channels last, so that a candidate is one contiguous vector.

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

// The candidates of one pixel: logits, and the pixel of [B * N * H * W] each comes from.
struct Candidates {
  float* logits;
  float* copy;  // for the selection of the k-th largest
  int64_t* pixels;
  int count;
};

void find_candidates(const Problem& p, int batch, int y, int x, const float* query, const float* keys,
                     Candidates& found) {
  const int64_t plane = static_cast<int64_t>(p.height) * p.width;
  found.count = 0;
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
        found.pixels[found.count] = pixel;
        found.logits[found.count++] = dot(query, keys + pixel * p.channels, p.channels);
      }
    }
  }
}

// Inner products -> weights that sum to one, those below the k-th largest 0. The selection comes before the
// scale, so that ties between candidates stay ties.
void softmax(Candidates& found, int top_k, float scale) {
  float floor = kNothing;
  if (top_k > 0 && top_k < found.count) {
    for (int i = 0; i < found.count; ++i) found.copy[i] = found.logits[i];
    floor = kth_largest(found.copy, found.count, top_k);
  }
  const float factor = scale * kLog2E;  // the softmax runs on powers of two
  float top = found.logits[0];
  for (int i = 1; i < found.count; ++i) top = found.logits[i] > top ? found.logits[i] : top;
  const int padded = static_cast<int>(round_up(found.count, LANES));
  for (int i = found.count; i < padded; ++i) found.logits[i] = kHidden;
  Vec sums = {};
  for (int i = 0; i < padded; i += LANES) {
    const Vec product = load(found.logits + i);
    const Vec weight = product >= splat(floor) ? exp2_nonpositive((product - top) * factor) : Vec{};
    store(found.logits + i, weight);
    sums += weight;
  }
  float total = 0.f;
  for (int lane = 0; lane < LANES; ++lane) total += sums[lane];
  for (int i = 0; i < found.count; ++i) found.logits[i] /= total;
}

template <typename T>
void gathered_as(const Problem& p, const Rectangle& area, const float* keys, const float* values,
                 float* scratch) {
  const size_t plane = static_cast<size_t>(p.height) * p.width;
  const size_t most = round_up(static_cast<size_t>(p.slots) * (2 * p.radius + 1) * (2 * p.radius + 1), 16);
  float* query = scratch;
  float* sums = query + round_up(p.channels, 16);
  Candidates found;
  found.logits = sums + round_up(p.labels, 16);
  found.copy = found.logits + most;
  found.pixels = reinterpret_cast<int64_t*>(found.copy + most);
  for (int y = area.top; y < area.top + area.rows; ++y)
    for (int x = area.left; x < area.left + area.columns; ++x) {
      const size_t at = static_cast<size_t>(y) * p.width + x;
      const T* from = static_cast<const T*>(p.query) + area.batch * p.channels * plane + at;
      for (int c = 0; c < p.channels; ++c) query[c] = widen(from[c * plane]);
      find_candidates(p, area.batch, y, x, query, keys, found);
      for (int o = 0; o < p.labels; ++o) sums[o] = 0.f;
      if (found.count > 0) {
        softmax(found, p.top_k, p.scale);
        for (int i = 0; i < found.count; ++i)
          for (int o = 0; o < p.labels; ++o) sums[o] += found.logits[i] * values[found.pixels[i] * p.labels + o];
      }
      T* to = static_cast<T*>(p.out) + area.batch * p.labels * plane + at;
      for (int o = 0; o < p.labels; ++o) narrow(sums[o], to + o * plane);
    }
}

void gathered(const Problem& p, const Rectangle& area, const float* keys, const float* values, float* scratch) {
  p.storage == Storage::f32 ? gathered_as<float>(p, area, keys, values, scratch)
                            : gathered_as<uint16_t>(p, area, keys, values, scratch);
}

size_t gathered_scratch(const Problem& p) {
  const size_t most = round_up(static_cast<size_t>(p.slots) * (2 * p.radius + 1) * (2 * p.radius + 1), 16);
  return round_up(p.channels, 16) + round_up(p.labels, 16) + most * 4;  // a pixel's index takes two floats
}
