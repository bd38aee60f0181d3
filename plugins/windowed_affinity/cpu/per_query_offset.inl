// Windows with an offset per query. The lanes of a vector are queries whose windows nearly coincide.
//
// Neighbouring queries may read distant keys here, so one shifted load cannot serve them all. Instead,
// `cluster_queries` (offset_clusters.cpp) groups up to LANES queries of a tile whose window centres lie close together.
// A cluster visits the union of its windows. Each key is broadcast to all lanes, which is part of the multiply-add and
// never crosses a cache line; lanes whose own window does not contain the key mask the logit. A compact cluster of
// 4 x 4 queries wastes a quarter of the work at radius 12.

// Queries of a cluster with their windows and running sums, each array [...][LANES].
struct Lanes {
    float* query;  // [C]
    Vec maximum, sum;
    float* weighted;           // [O]
    IntVec centre_y, first_x;  // window's centre row, window's first column
    int top, bottom;           // smallest and largest centre_y
    int left, right;           // first and last column of the union of windows
};

// A key row: `keys` [C][stride] and `values` [W][O], from the first column of the cluster's residue class on.
struct SourceRow {
    const float *keys, *values;
    size_t stride;
};

constexpr int RUN_COLUMNS = 2 * ACCUMULATORS;  // key columns per update of the softmax
constexpr int UNREACHABLE = INT32_MAX / 2;     // first column for lanes whose window does not contain the row

// logits[j] = <query, key of column j> for STEPS columns.
template <int STEPS>
[[gnu::noinline]] void dot_columns(const float* query, const float* keys, size_t stride, int channels, float* logits) {
    Vec sums[STEPS] = {};
    for (int c = 0; c < channels; ++c, keys += stride) {
        const Vec q = load(query + c * LANES);
#pragma GCC unroll 32
        for (int j = 0; j < STEPS; ++j) sums[j] += q * splat(keys[j]);
    }
#pragma GCC unroll 32
    for (int j = 0; j < STEPS; ++j) store(logits + j * LANES, sums[j]);
}

template <int STEPS = ACCUMULATORS>
void dot_up_to(int steps, const float* query, const float* keys, size_t stride, int channels, float* logits) {
    if constexpr (STEPS > 1)
        if (steps < STEPS) return dot_up_to<STEPS - 1>(steps, query, keys, stride, channels, logits);
    dot_columns<STEPS>(query, keys, stride, channels, logits);
}

// Adds LABELS label channels of a run, from channel `first` on.
template <int LABELS>
inline void add_labels(const float* weights, int count, const float* values, int labels, int first, float* weighted) {
    Vec sums[LABELS];
    for (int o = 0; o < LABELS; ++o) sums[o] = load(weighted + (first + o) * LANES);
    values += first;
    for (int j = 0; j < count; ++j, values += labels) {
        const Vec weight = load(weights + j * LANES);
#pragma GCC unroll 4
        for (int o = 0; o < LABELS; ++o) sums[o] += weight * splat(values[o]);
    }
    for (int o = 0; o < LABELS; ++o) store(weighted + (first + o) * LANES, sums[o]);
}

// Online softmax of a run of key columns: masks logits outside the lanes' windows, turns the others into weights
// relative to the new maximum, rescales earlier sums and adds the labels. `first_x` is UNREACHABLE in lanes whose
// window does not contain the row.
void update_softmax_of_run(float* logits, int x, int count, IntVec first_x, int window, const float* values, int labels,
                           Lanes& lanes) {
    Vec largest = splat(MASK_VALUE);
    for (int j = 0; j < count; ++j) {
        const IntVec step = (x + j) - first_x;
        const IntVec inside = (step >= 0) & (step < window);
        const Vec logit = inside ? load(logits + j * LANES) : splat(MASK_VALUE);
        store(logits + j * LANES, logit);
        largest = max_of(largest, logit);
    }
    const Vec maximum = max_of(lanes.maximum, largest), rescale = exp2_nonpositive(lanes.maximum - maximum);
    lanes.maximum = maximum;
    for (int o = 0; o < labels; ++o) store(lanes.weighted + o * LANES, load(lanes.weighted + o * LANES) * rescale);
    Vec sum = lanes.sum * rescale;
    for (int j = 0; j < count; ++j) {
        const Vec weight = exp2_nonpositive(load(logits + j * LANES) - maximum);
        store(logits + j * LANES, weight);
        sum += weight;
    }
    lanes.sum = sum;
    int o = 0;
    for (; o + 4 <= labels; o += 4) add_labels<4>(logits, count, values, labels, o, lanes.weighted);
    switch (labels - o) {
        case 3: add_labels<3>(logits, count, values, labels, o, lanes.weighted); break;
        case 2: add_labels<2>(logits, count, values, labels, o, lanes.weighted); break;
        case 1: add_labels<1>(logits, count, values, labels, o, lanes.weighted); break;
    }
}

// The columns of row y in the cluster's windows. At the top and bottom of their union, some do not contain the row.
void columns_in_row(const Lanes& lanes, int y, int radius, IntVec* first_x, int* left, int* right) {
    *first_x = lanes.first_x, *left = lanes.left, *right = lanes.right;
    if (y >= lanes.bottom - radius && y <= lanes.top + radius) return;
    const IntVec distance = y - lanes.centre_y;
    const IntVec contains_row = (distance >= -radius) & (distance <= radius);
    *first_x = contains_row ? lanes.first_x : UNREACHABLE - IntVec{};
    *left = UNREACHABLE, *right = -UNREACHABLE;
    for (int lane = 0; lane < LANES; ++lane) {
        const int first = (*first_x)[lane];
        if (first == UNREACHABLE) continue;
        *left = min_int(*left, first), *right = max_int(*right, first + 2 * radius);
    }
}

// Adds one slot to the sums of a cluster.
void add_windows(const Problem& p, const Cluster& cluster, const RowCopies& copies, int batch, int dilation,
                 Lanes& lanes, float* logits) {
    const int rows = (p.height - 1 - cluster.y_residue) / dilation + 1;
    const int columns = (p.width - 1 - cluster.x_residue) / dilation + 1;
    const size_t first_column = residue_begin(p.width, dilation, cluster.x_residue);
    const int last_row = min_int(rows - 1, lanes.bottom + p.radius);
    for (int y = max_int(0, lanes.top - p.radius); y <= last_row; ++y) {
        IntVec first_x;
        int left, right;
        columns_in_row(lanes, y, p.radius, &first_x, &left, &right);
        left = max_int(0, left), right = min_int(columns - 1, right);
        const size_t row =
            static_cast<size_t>(batch) * p.height + cluster.y_residue + static_cast<size_t>(y) * dilation;
        const SourceRow source{copies.keys + row * p.channels * copies.stride + first_column,
                               copies.values + (row * p.width + first_column) * p.labels, copies.stride};
        for (int x = left; x <= right;) {
            // Blocks of nearly equal size, because a small last block would leave multipliers idle.
            const int blocks = (right - x + ACCUMULATORS) / ACCUMULATORS;
            const int run = blocks > 2 ? RUN_COLUMNS : right - x + 1, half = blocks > 1 ? (run + 1) / 2 : run;
            dot_up_to(half, lanes.query, source.keys + x, source.stride, p.channels, logits);
            if (run > half)
                dot_up_to(run - half, lanes.query, source.keys + x + half, source.stride, p.channels,
                          logits + half * LANES);
            update_softmax_of_run(logits, x, run, first_x, 2 * p.radius + 1,
                                  source.values + static_cast<size_t>(x) * p.labels, p.labels, lanes);
            x += run;
        }
    }
}

// The layout of the scratch buffer for one tile.
struct TileSpace {
    float *query, *weighted, *logits;  // of a cluster
    Centre* centres;
    Cluster* clusters;

    TileSpace(const Problem& p, float* scratch) {
        float* next = scratch;
        auto take = [&next](size_t floats) {
            float* at = next;
            next += round_up(floats, 16);
            return at;
        };
        query = take(static_cast<size_t>(p.channels) * LANES), weighted = take(static_cast<size_t>(p.labels) * LANES);
        logits = take(RUN_COLUMNS * LANES);
        centres = reinterpret_cast<Centre*>(take(TILE_QUERIES * sizeof(Centre) / sizeof(float)));
        clusters = reinterpret_cast<Cluster*>(take(TILE_QUERIES * sizeof(Cluster) / sizeof(float)));
    }
};

size_t per_query_offset_scratch(const Problem& p) {
    const size_t arranged = TILE_QUERIES * (sizeof(Centre) + sizeof(Cluster)) / sizeof(float);
    return arranged + static_cast<size_t>(p.channels + p.labels + RUN_COLUMNS) * LANES +
           16 * 5;  // 5 parts, each rounded up
}

// Loads a cluster's queries and their sums into lanes. Lanes without a query repeat the last one.
template <typename T>
void gather_lanes(const Problem& p, const Centre* centres, int count, int batch, const Sums& sums, Lanes& lanes) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    int pixels[LANES];
    lanes.top = lanes.left = UNREACHABLE, lanes.bottom = lanes.right = -UNREACHABLE;
    for (int lane = 0; lane < LANES; ++lane) {
        const Centre& centre = centres[min_int(lane, count - 1)];
        pixels[lane] = centre.query;
        lanes.centre_y[lane] = centre.y, lanes.first_x[lane] = centre.x - p.radius;
        lanes.top = min_int(lanes.top, centre.y), lanes.bottom = max_int(lanes.bottom, centre.y);
        lanes.left = min_int(lanes.left, centre.x - p.radius);
        lanes.right = max_int(lanes.right, centre.x + p.radius);
        lanes.maximum[lane] = sums.maximum[batch * plane + centre.query];
        lanes.sum[lane] = sums.sum[batch * plane + centre.query];
    }
    const T* query = static_cast<const T*>(p.query) + batch * p.channels * plane;
    const float factor = p.scale * LOG2_E;  // the softmax uses powers of two
    for (int c = 0; c < p.channels; ++c, query += plane)
        for (int lane = 0; lane < LANES; ++lane) lanes.query[c * LANES + lane] = widen(query[pixels[lane]]) * factor;
    const float* weighted = sums.weighted + batch * p.labels * plane;
    for (int o = 0; o < p.labels; ++o, weighted += plane)
        for (int lane = 0; lane < LANES; ++lane) lanes.weighted[o * LANES + lane] = weighted[pixels[lane]];
}

void scatter_lanes(const Problem& p, const Centre* centres, int count, int batch, const Lanes& lanes,
                   const Sums& sums) {
    const size_t plane = static_cast<size_t>(p.height) * p.width;
    for (int lane = 0; lane < count; ++lane) {
        const size_t at = batch * plane + centres[lane].query;
        sums.maximum[at] = lanes.maximum[lane], sums.sum[at] = lanes.sum[lane];
        for (int o = 0; o < p.labels; ++o)
            sums.weighted[(static_cast<size_t>(batch) * p.labels + o) * plane + centres[lane].query] =
                lanes.weighted[o * LANES + lane];
    }
}

void run_per_query_offsets(const Problem& p, const Rectangle& tile, int slot, const RowCopies& copies, const Sums& sums,
                           float* scratch) {
    const TileSpace space(p, scratch);
    const int image = tile.batch * p.slots + slot;
    const int clusters = cluster_queries(p, tile, image, LANES, space.centres, space.clusters);
    const auto gather = p.storage == Storage::f32 ? gather_lanes<float> : gather_lanes<uint16_t>;
    Lanes lanes;
    lanes.query = space.query, lanes.weighted = space.weighted;
    for (const Cluster* cluster = space.clusters; cluster < space.clusters + clusters; ++cluster) {
        const Centre* centres = space.centres + cluster->first;
        gather(p, centres, cluster->count, tile.batch, sums, lanes);
        add_windows(p, *cluster, copies, tile.batch, p.dilation[image], lanes, space.logits);
        scatter_lanes(p, centres, cluster->count, tile.batch, lanes, sums);
    }
}
