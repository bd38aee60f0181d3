// The fast path: windows centred on their own pixel, or with one offset shared by all queries. Online softmax.
//
// LANES neighbouring queries of a row (a strip) share a vector. A window step is then one unaligned load of keys, and
// no lane computes a pair outside its window. If each load served one multiplication, loads would limit the speed. So
// up to GROUP query rows whose windows contain the same key row share each load, and GROUP * (ACCUMULATORS / GROUP)
// sums stay in registers during the loop over channels.
//
// A rectangle of queries visits the key rows in its windows one after another. Each key row is packed once, channel by
// channel and padded with zeros beyond the frame. The packed row stays in the cache while all strips use it.

// The state of one strip: per query row r and lane, in the order [r][...][LANES].
struct Strip {
    float *query, *maximum, *sum, *weighted;  // [r][C], [r], [r], [r][O]
};

// A packed key row with its values, from the first window step of a strip on.
struct KeyRow {
    const float *keys, *values;  // [C][stride], [O][stride]
    int stride, dilation, steps;
    const float* mask;  // [steps][LANES] added to the logits; null if the whole window lies inside the frame
};

// logits[i][j] = sum over c of query[i][c] * keys[c][j * dilation], for ROWS query rows and STEPS window steps.
template <int ROWS, int STEPS>
[[gnu::noinline]] void dot_block(const float* const* query, const float* keys, const KeyRow& row, int channels,
                                 float* logits, int logit_stride) {
    Vec sums[ROWS][STEPS] = {};
    for (int c = 0; c < channels; ++c, keys += row.stride) {
        Vec q[ROWS];
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) q[i] = load(query[i] + c * LANES);
#pragma GCC unroll 32
        for (int j = 0; j < STEPS; ++j) {
            Vec k = load_unaligned(keys + j * row.dilation);
            KEEP_IN_REGISTER(k);
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i) sums[i][j] += q[i] * k;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
#pragma GCC unroll 32
        for (int j = 0; j < STEPS; ++j) store(logits + i * logit_stride + j * LANES, sums[i][j]);
}

// All window steps, in blocks of nearly equal size, because a small last block would leave multipliers idle.
template <int ROWS, int STEPS = ACCUMULATORS / ROWS>
void dot_rows(const float* const* query, const KeyRow& row, int channels, int first, float* logits, int logit_stride) {
    constexpr int MAX_STEPS = ACCUMULATORS / ROWS;
    const int left = row.steps - first, blocks = (left + MAX_STEPS - 1) / MAX_STEPS;
    if constexpr (STEPS > 1)
        if ((left + blocks - 1) / blocks < STEPS)
            return dot_rows<ROWS, STEPS - 1>(query, row, channels, first, logits, logit_stride);
    int j = first;
    for (; j + STEPS <= row.steps; j += STEPS)
        dot_block<ROWS, STEPS>(query, row.keys + j * row.dilation, row, channels, logits + j * LANES, logit_stride);
    if constexpr (STEPS > 1)
        if (j < row.steps) dot_rows<ROWS>(query, row, channels, j, logits, logit_stride);
}

// Online softmax of one query row: turns its logits into weights relative to the new maximum, rescales earlier sums.
inline void update_softmax(float* logits, const KeyRow& row, Strip strip, int r, int labels) {
    if (row.mask)
        for (int j = 0; j < row.steps; ++j)
            store(logits + j * LANES, load(logits + j * LANES) + load(row.mask + j * LANES));
    Vec largest = load(logits);
    for (int j = 1; j < row.steps; ++j) largest = max_of(largest, load(logits + j * LANES));
    const Vec old_maximum = load(strip.maximum + r * LANES), maximum = max_of(old_maximum, largest);
    const Vec rescale = exp2_nonpositive(old_maximum - maximum);
    store(strip.maximum + r * LANES, maximum);
    float* weighted = strip.weighted + static_cast<size_t>(r) * labels * LANES;
    for (int o = 0; o < labels; ++o) store(weighted + o * LANES, load(weighted + o * LANES) * rescale);
    Vec sum = load(strip.sum + r * LANES) * rescale;
    for (int j = 0; j < row.steps; ++j) {
        const Vec weight = exp2_nonpositive(load(logits + j * LANES) - maximum);
        store(logits + j * LANES, weight);
        sum += weight;
    }
    store(strip.sum + r * LANES, sum);
}

// Adds one key row to ROWS query rows of a strip.
template <int ROWS>
[[gnu::noinline]] void add_key_row(const int* rows, const KeyRow& row, Strip strip, int channels, int labels,
                                   float* logits) {
    const float* query[ROWS];
    float* weighted[ROWS];
    for (int i = 0; i < ROWS; ++i) {
        query[i] = strip.query + static_cast<size_t>(rows[i]) * channels * LANES;
        weighted[i] = strip.weighted + static_cast<size_t>(rows[i]) * labels * LANES;
    }
    const int logit_stride = row.steps * LANES;
    dot_rows<ROWS>(query, row, channels, 0, logits, logit_stride);
    for (int i = 0; i < ROWS; ++i) update_softmax(logits + i * logit_stride, row, strip, rows[i], labels);
    const float* values = row.values;
    for (int o = 0; o < labels; ++o, values += row.stride) {
        Vec sums[ROWS];
        for (int i = 0; i < ROWS; ++i) sums[i] = load(weighted[i] + o * LANES);
        for (int j = 0; j < row.steps; ++j) {
            Vec value = load_unaligned(values + j * row.dilation);
            KEEP_IN_REGISTER(value);
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; ++i) sums[i] += load(logits + i * logit_stride + j * LANES) * value;
        }
        for (int i = 0; i < ROWS; ++i) store(weighted[i] + o * LANES, sums[i]);
    }
}

// Adds a key row to query rows in groups of nearly equal size, because a single last row would be limited by loads.
void add_key_row_to(const int* rows, int count, const KeyRow& row, Strip strip, const Problem& p, float* logits) {
    for (int size; count > 0; count -= size, rows += size) {
        const int groups = (count + GROUP - 1) / GROUP;
        size = (count + groups - 1) / groups;
        switch (size) {
            case 1: add_key_row<1>(rows, row, strip, p.channels, p.labels, logits); break;
            case 2: add_key_row<2>(rows, row, strip, p.channels, p.labels, logits); break;
#if GROUP >= 4
            case 3: add_key_row<3>(rows, row, strip, p.channels, p.labels, logits); break;
            case 4: add_key_row<4>(rows, row, strip, p.channels, p.labels, logits); break;
#endif
        }
    }
}

// Copies `stride` pixels, from column `left` on, of one row of `depth` planes to float32, with zeros outside the frame.
// Prefetches the next row, which hardware does not foresee because the planes lie too far apart.
template <typename T>
void pack(const T* from, size_t plane, int depth, int width, int left, float* to, int stride) {
    const int begin = min_int(max_int(0, -left), stride);
    const int end = max_int(min_int(stride, width - left), begin);
    for (int c = 0; c < depth; ++c, from += plane, to += stride) {
        for (int i = begin; i < end; i += 64 / static_cast<int>(sizeof(T)))
            __builtin_prefetch(from + width + left + i, 0, 2);
        for (int i = 0; i < begin; ++i) to[i] = 0.f;
        for (int i = begin; i < end; ++i) to[i] = widen(from[left + i]);
        for (int i = end; i < stride; ++i) to[i] = 0.f;
    }
}

// The layout of the scratch buffer for one rectangle.
struct Workspace {
    size_t per_query, per_row, per_weighted;  // floats of one strip
    float *query, *maximum, *sum, *weighted, *logits, *mask, *packed;

    Workspace(const Problem& p, int rows, int strips, float* scratch) {
        per_row = static_cast<size_t>(rows) * LANES;
        per_query = per_row * p.channels, per_weighted = per_row * p.labels;
        const size_t window = static_cast<size_t>(2 * p.radius + 1) * LANES;
        float* next = scratch;
        auto take = [&next](size_t floats) {
            float* at = next;
            next += round_up(floats, 16);
            return at;
        };
        query = take(per_query * strips), maximum = take(per_row * strips), sum = take(per_row * strips);
        weighted = take(per_weighted * strips), logits = take(window * GROUP), mask = take(window);
        packed = next;
    }

    Strip strip(int s) const {
        return {query + per_query * s, maximum + per_row * s, sum + per_row * s, weighted + per_weighted * s};
    }
};

// Width of the packed row for the windows of columns [left, left + columns), and its first column. It extends at most
// LANES - 1 pixels beyond the frame, where a strip ends. 0 if all windows lie outside the frame.
inline int packed_stride(const Problem& p, long long left, int columns, int dilation, int* packed_left) {
    const long long reach = static_cast<long long>(p.radius) * dilation;
    const long long begin = left - reach, end = left + columns + reach;
    if (begin >= p.width || end <= 0) return 0;
    *packed_left = static_cast<int>(begin < 1 - LANES ? 1 - LANES : begin);
    const int stop = static_cast<int>(end > p.width + LANES - 1 ? p.width + LANES - 1 : end);
    return static_cast<int>(round_up(static_cast<size_t>(stop - *packed_left), 16));
}

// Whether one row of a strip lies in a uniform block.
inline bool is_uniform(const Problem& p, const UniformBlocks* uniform, const Rectangle& area, int s, int r) {
    if (uniform == nullptr) return false;
    const size_t row = static_cast<size_t>(area.batch) * p.height + area.top + r;
    return uniform->uniform[row * ((p.width + BLOCK_WIDTH - 1) / BLOCK_WIDTH) + (area.left + s * LANES) / BLOCK_WIDTH];
}

template <typename T>
void load_queries(const Problem& p, const Rectangle& area, int strips, const Workspace& space) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    const T* image = static_cast<const T*>(p.query) + area.batch * p.channels * plane;
    const float factor = p.scale * LOG2_E;  // the softmax uses powers of two
    for (int s = 0; s < strips; ++s)
        for (int r = 0; r < area.rows; ++r) {
            float* to = space.strip(s).query + static_cast<size_t>(r) * p.channels * LANES;
            const T* row = image + static_cast<size_t>(area.top + r) * p.width;
            pack(row, plane, p.channels, p.width, area.left + s * LANES, to, LANES);
            for (int i = 0; i < p.channels * LANES; ++i) to[i] *= factor;
        }
    for (size_t i = 0; i < space.per_row * strips; ++i) space.maximum[i] = NO_LOGIT, space.sum[i] = 0.f;
    for (size_t i = 0; i < space.per_weighted * strips; ++i) space.weighted[i] = 0.f;
}

inline int floor_division(int a, int b) { return a / b - (a % b < 0); }

// Restricts a packed row to the window steps that some lane of the strip at column x can use; possibly none.
KeyRow window_of(KeyRow row, int x, int packed_left, const Problem& p, float* mask) {
    const int first = -min_int(p.radius, floor_division(x + LANES - 1, row.dilation));
    const int last = min_int(p.radius, floor_division(p.width - 1 - x, row.dilation));
    row.steps = last - first + 1;
    if (row.steps <= 0) return row;
    const int from = x + first * row.dilation;
    row.keys += from - packed_left, row.values += from - packed_left;
    row.mask = nullptr;
    if (from >= 0 && x + LANES - 1 + last * row.dilation < p.width) return row;
    for (int j = 0; j < row.steps; ++j)
        for (int lane = 0; lane < LANES; ++lane) {
            const int at = from + j * row.dilation + lane;
            mask[j * LANES + lane] = at >= 0 && at < p.width ? 0.f : MASK_VALUE;
        }
    row.mask = mask;
    return row;
}

// `uniform` is null if windows are not centred on their own pixels.
template <typename T>
void add_slot(const Problem& p, const Rectangle& area, int strips, int slot, SharedOffset shift,
              const UniformBlocks* uniform, const Workspace& space) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    const size_t image = static_cast<size_t>(area.batch) * p.slots + slot;
    const int dilation = p.dilation[image];
    if (dilation <= 0) return;
    const long long reach = static_cast<long long>(p.radius) * dilation;
    const long long top = static_cast<long long>(area.top) + shift.y, bottom = top + area.rows - 1;
    const long long left = static_cast<long long>(area.left) + shift.x;
    int packed_left;
    const int stride = packed_stride(p, left, strips * LANES, dilation, &packed_left);
    if (stride == 0) return;
    float *keys = space.packed, *values = keys + static_cast<size_t>(p.channels) * stride;
    const long long first = top - reach < 0 ? 0 : top - reach;
    const long long last = bottom + reach >= p.height ? p.height - 1 : bottom + reach;
    for (long long y = first; y <= last; ++y) {
        int rows[MAX_ROWS], count = 0;
        for (int r = 0; r < area.rows; ++r) {
            const long long away = y > top + r ? y - top - r : top + r - y;
            if (away <= reach && away % dilation == 0) rows[count++] = r;
        }
        const size_t row_start = static_cast<size_t>(y) * p.width;
        const T* key_row = static_cast<const T*>(p.keys) + image * p.channels * plane + row_start;
        const T* value_row = static_cast<const T*>(p.values) + image * p.labels * plane + row_start;
        const KeyRow packed{keys, values, stride, dilation, 0, nullptr};
        bool is_packed = false;
        for (int s = 0; s < strips; ++s) {
            int active[MAX_ROWS], active_count = 0;
            for (int i = 0; i < count; ++i)
                if (!is_uniform(p, uniform, area, s, rows[i])) active[active_count++] = rows[i];
            if (active_count == 0) continue;
            if (!is_packed) {
                pack(key_row, plane, p.channels, p.width, packed_left, keys, stride);
                pack(value_row, plane, p.labels, p.width, packed_left, values, stride);
                is_packed = true;
            }
            const KeyRow row = window_of(packed, static_cast<int>(left) + s * LANES, packed_left, p, space.mask);
            if (row.steps > 0) add_key_row_to(active, active_count, row, space.strip(s), p, space.logits);
        }
    }
}

template <typename T>
void write_result(const Problem& p, const Rectangle& area, int strips, const UniformBlocks& uniform,
                  const Workspace& space) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    T* image = static_cast<T*>(p.out) + area.batch * p.labels * plane;
    const size_t first = static_cast<size_t>(area.batch) * p.slots + uniform.first_slot[area.batch];
    const T* labels = static_cast<const T*>(p.values) + first * p.labels * plane;
    for (int s = 0; s < strips; ++s) {
        const Strip strip = space.strip(s);
        const int x = area.left + s * LANES, columns = min_int(LANES, p.width - x);
        for (int r = 0; r < area.rows; ++r)
            for (int o = 0; o < p.labels; ++o) {
                const float* weighted = strip.weighted + (static_cast<size_t>(r) * p.labels + o) * LANES;
                const size_t at = o * plane + static_cast<size_t>(area.top + r) * p.width + x;
                T* to = image + at;
                if (is_uniform(p, &uniform, area, s, r)) {
                    for (int i = 0; i < columns; ++i) to[i] = labels[at + i];
                    continue;
                }
                for (int i = 0; i < columns; ++i) {
                    const bool reached = strip.maximum[r * LANES + i] > NO_LOGIT;
                    narrow(reached ? weighted[i] / strip.sum[r * LANES + i] : 0.f, to + i);
                }
            }
    }
}

void write_sums(const Problem& p, const Rectangle& area, int strips, const Workspace& space, const Sums& sums) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    for (int s = 0; s < strips; ++s) {
        const Strip strip = space.strip(s);
        const int x = area.left + s * LANES, columns = min_int(LANES, p.width - x);
        for (int r = 0; r < area.rows; ++r) {
            const size_t at = static_cast<size_t>(area.top + r) * p.width + x, here = area.batch * plane + at;
            for (int i = 0; i < columns; ++i) {
                sums.maximum[here + i] = strip.maximum[r * LANES + i], sums.sum[here + i] = strip.sum[r * LANES + i];
                for (int o = 0; o < p.labels; ++o)
                    sums.weighted[(static_cast<size_t>(area.batch) * p.labels + o) * plane + at + i] =
                        strip.weighted[(static_cast<size_t>(r) * p.labels + o) * LANES + i];
            }
        }
    }
}

template <typename T>
void run_dense_window_as(const Problem& p, const Rectangle& area, const UniformBlocks& uniform, float* scratch) {
    const int strips = (area.columns + LANES - 1) / LANES;
    const Workspace space(p, area.rows, strips, scratch);
    load_queries<T>(p, area, strips, space);
    for (int slot = 0; slot < p.slots; ++slot) add_slot<T>(p, area, strips, slot, SharedOffset{}, &uniform, space);
    write_result<T>(p, area, strips, uniform, space);
}

void run_dense_window(const Problem& p, const Rectangle& area, const UniformBlocks& uniform, float* scratch) {
    p.storage == Storage::f32 ? run_dense_window_as<float>(p, area, uniform, scratch)
                              : run_dense_window_as<uint16_t>(p, area, uniform, scratch);
}

template <typename T>
void run_shared_offsets_as(const Problem& p, const Rectangle& area, const SharedOffset* shared_offsets,
                           const Sums& sums, float* scratch) {
    const int strips = (area.columns + LANES - 1) / LANES;
    const Workspace space(p, area.rows, strips, scratch);
    load_queries<T>(p, area, strips, space);
    for (int slot = 0; slot < p.slots; ++slot) {
        const SharedOffset& shift = shared_offsets[area.batch * p.slots + slot];
        if (shift.is_shared) add_slot<T>(p, area, strips, slot, shift, nullptr, space);
    }
    write_sums(p, area, strips, space, sums);
}

void run_shared_offsets(const Problem& p, const Rectangle& area, const SharedOffset* shared_offsets, const Sums& sums,
                        float* scratch) {
    p.storage == Storage::f32 ? run_shared_offsets_as<float>(p, area, shared_offsets, sums, scratch)
                              : run_shared_offsets_as<uint16_t>(p, area, shared_offsets, sums, scratch);
}

size_t dense_window_scratch(const Problem& p, int rows, int columns) {
    const size_t strips = static_cast<size_t>((columns + LANES - 1) / LANES);
    const size_t state = strips * rows * LANES * (p.channels + p.labels + 2);
    const size_t window = static_cast<size_t>(2 * p.radius + 1) * LANES * (GROUP + 1);
    long long reach = 0;
    for (int i = 0; i < p.batch * p.slots; ++i) {
        const long long here = static_cast<long long>(p.radius) * max_int(p.dilation[i], 0);
        if (here > reach) reach = here;
    }
    const long long needed = static_cast<long long>(strips) * LANES + 2 * reach, limit = p.width + 2 * LANES;
    const size_t stride = round_up(static_cast<size_t>(needed < limit ? needed : limit), 16);
    return state + window + (p.channels + p.labels) * stride + 16 * 7;  // 7 parts, each rounded up
}
