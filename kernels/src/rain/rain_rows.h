// The rain mask, a row at a time, for the CPU drivers.
#pragma once

#include "common/scratch.h"
#include "rain/rain.h"

namespace rirf {

// The seeds of a frame as bits, and the streak that each of them stamps. Seeds lie on a grid that
// reaches half a streak beyond the frame; the number of a seed is its place on that grid.
struct Shower {
    int64_t height = 0, width = 0;
    int64_t grid_columns = 0;       // of the seed grid
    int64_t groups = 0;             // of 64 seeds
    int64_t reach_y = 0, reach_x = 0;
    uint64_t *bits = nullptr;       // seed i is bit i % 64 of group i / 64
    float *stamp = nullptr;         // (2 reach_y + 1, 2 reach_x + 1)
    int32_t *extent = nullptr;      // first and one past the last non-zero column of each stamp row

    // Takes memory from the calling thread's scratch and draws the seeds; false when there is none.
    bool prepare(uint64_t seed, double density, const Streak &streak, int64_t frame_height,
                 int64_t frame_width, int threads);
    // Sums the streaks that cross row y, before saturation.
    void row(int64_t y, float *mask) const;
};

}  // namespace rirf
