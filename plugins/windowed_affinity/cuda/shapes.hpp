// Sizes of the kernels in plain C++, for the kernels, the dispatch table and the benchmarks.
#pragma once

namespace maskring {

constexpr int WARP = 32;

// Launch parameters of a row, and the queries of a CTA and (on tensor cores) of a warp.
struct Sizes {
    int threads;
    int shared_bytes;
    int tile_x, tile_y;    // query pixels of a CTA
    int columns;           // of a key row that a CTA stages at step 1
    int block_x, block_y;  // query pixels of a warp
    int key_tiles;         // of 8 keys, in a row of a warp's windows; 0 without tensor cores
};

namespace simt {

constexpr int ROWS = 4;         // query rows of a thread
constexpr int STEPS = 7;        // window steps whose sums a thread builds at a time
constexpr int ROW_GROUPS = 2;   // warps beside each other in y
constexpr int STEP_GROUPS = 2;  // warps that share query rows
constexpr int TILE_X = WARP;
constexpr int TILE_Y = ROWS * ROW_GROUPS;
constexpr int THREADS = WARP * ROW_GROUPS * STEP_GROUPS;
constexpr int MAX_LABELS = 12;      // labels of a CTA; more are split over CTAs
constexpr int STAGE_FLOATS = 4096;  // key row, channels by columns
constexpr int MAX_COLUMNS = STAGE_FLOATS / MAX_LABELS;

constexpr int SUM_FLOATS = STEP_GROUPS * MAX_LABELS * TILE_Y * TILE_X;
constexpr int SHARED_BYTES = 4 * (STAGE_FLOATS + SUM_FLOATS);
static_assert(SHARED_BYTES <= 48 * 1024, "more needs an opt-in");

// Blocks of STEPS that one warp takes of a window of that radius.
template <int RADIUS>
constexpr int BLOCKS = (2 * RADIUS + STEPS * STEP_GROUPS) / (STEPS * STEP_GROUPS);

constexpr int WIDEST = 13;  // radius that two blocks hold; wider windows take two passes

template <int RADIUS>
constexpr Sizes SIZES = {THREADS, SHARED_BYTES, TILE_X, TILE_Y, TILE_X + STEPS* STEP_GROUPS* BLOCKS<RADIUS> - 1,
                         TILE_X,  ROWS,         0};

}  // namespace simt

namespace gather {

constexpr int WARPS = 4;  // share the window rows of 32 pixels
constexpr int THREADS = WARP * WARPS;
constexpr int MAX_LABELS = 32;

constexpr int SHARED_BYTES = 4 * WARPS * WARP * (MAX_LABELS + 2);
constexpr Sizes SIZES = {THREADS, SHARED_BYTES, WARP, 1, 0, WARP, 1, 0};

}  // namespace gather

namespace mma {

constexpr int QUERIES = 16;  // of a warp: the rows of an MMA
constexpr int KEYS = 8;      // of one MMA: its columns

constexpr int round_up(int x, int to) { return (x + to - 1) / to * to; }

// Sizes that follow from a row of the dispatch table. They fit every radius up to MAX_RADIUS.
template <int MAX_RADIUS_, int CHANNELS_, int LABEL_TILES_>
struct Shape {
    static constexpr int MAX_RADIUS = MAX_RADIUS_, CHANNELS = CHANNELS_;
    static constexpr int LABEL_TILES = LABEL_TILES_;  // of 8 labels, the row of ones included
    static constexpr int LABEL_ROWS = LABEL_TILES * 8;

    // Queries of a warp. Windows of 4 x 4 fit 2, 3, 4 and 5 key tiles a row at radii up to 4, 8, 12 and 16; 2 x 8 fit 3
    // at radii up to 8 and 5 up to 16, too, with fewer key rows.
    static constexpr int BLOCK_X = MAX_RADIUS % 8 == 0 ? 8 : 4, BLOCK_Y = QUERIES / BLOCK_X;
    static constexpr int WARPS_X = 16 / BLOCK_X, WARPS_Y = 8 / BLOCK_Y;
    static constexpr int WARPS = WARPS_X * WARPS_Y, THREADS = WARPS * WARP;
    static constexpr int TILE_X = WARPS_X * BLOCK_X, TILE_Y = WARPS_Y * BLOCK_Y;

    // Key tiles that hold one row of a block's windows of any radius, wherever (at multiples of BLOCK_X) it begins.
    static constexpr int key_tiles() {
        int most = 0;
        for (int radius = 0; radius <= MAX_RADIUS; ++radius) {
            for (int x = 1024; x < 1024 + KEYS; x += BLOCK_X) {
                const int offset = (x - radius) % KEYS, tiles = round_up(offset + BLOCK_X + 2 * radius, KEYS) / KEYS;
                if (tiles > most) most = tiles;
            }
        }
        return most;
    }
    static constexpr int KEY_TILES = key_tiles();
    static constexpr int COLUMNS = round_up(TILE_X - BLOCK_X, KEYS) + KEY_TILES * KEYS;  // of the CTA

    // An odd number of 16-byte pieces: eight rows then lie in different banks, as ldmatrix wants them.
    static constexpr int PITCH = (COLUMNS / 8 % 2 == 1 ? COLUMNS : COLUMNS + 8);
    static constexpr int MAP_ROWS = CHANNELS + LABEL_ROWS;
    static constexpr int STAGE_ROWS = 2;  // key rows between two barriers, which a warp computes together
    static constexpr int STAGE_HALVES = STAGE_ROWS * MAP_ROWS * PITCH;

    static constexpr int shared_bytes() { return 2 * STAGE_HALVES * 2; }
    static_assert(2 * STAGE_HALVES * 2 <= 48 * 1024, "more needs an opt-in");
    static_assert(4 * KEY_TILES <= 32, "a lane's pairs of one key row are bits of one word");
};

template <typename S>
constexpr Sizes SIZES = {S::THREADS, S::shared_bytes(), S::TILE_X,  S::TILE_Y,
                         S::COLUMNS, S::BLOCK_X,        S::BLOCK_Y, S::KEY_TILES};

}  // namespace mma

}  // namespace maskring
