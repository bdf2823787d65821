// One piece of the caller's device memory, divided into the parts that the drivers need.
#pragma once

#include "common/launch.cuh"
#include "depth/depth.h"

namespace rirf {
namespace cuda {

// The sampled prior: tables for a size, and what is made for each image.
struct PriorSpace {
    int32_t spacing, taps, margin;
    int32_t points_across, points_down, reach_across, reach_down;
    float *gaussian;         // (taps)
    float *lagrange;         // (spacing, 8)
    float *cubic;            // (width, 4)
    uint32_t *cells;         // (width), four a number
    int32_t *mirror_across;  // (reach_across)
    int32_t *mirror_down;    // (reach_down)
    Geometry *geometry;      // (batch)
    float *blurred;          // (batch, height, points_across)
    float *coarse;           // (batch, points_down, points_across)
};

// The parts of a kernel that are not zero: of each row, runs of four weights that begin at a multiple
// of four columns.
constexpr int32_t SEGMENTS_MAX = RIRF_PSF_SIZE * 8;

struct alignas(16) Segments {
    float weight[4 * SEGMENTS_MAX];
    int32_t offset[SEGMENTS_MAX];  // of the values it reads, in a tile of the blur
    int32_t count, unused[3];
};

// A pixel of a streak, from its middle, in units of 2^-16.
struct Cell {
    int16_t row, column;
    uint32_t value;
};

constexpr int32_t STREAK_SIDE = 2 * RIRF_CUDA_STREAK_REACH + 1;
constexpr int32_t STREAK_CELLS = STREAK_SIDE * STREAK_SIDE;

// What a recipe's rain comes to; no cells, no rain.
struct Shower {
    uint32_t cells, threshold;
    int32_t reach_y, reach_x;
};

struct Workspace {
    PriorSpace prior;
    float *fogged;       // (batch, 3, pitch): fogged frames that are to be blurred
    uint32_t *streaks;   // (batch, pitch): sums of streaks, in units of 2^-16
    int64_t pitch;       // pixels of an image, rounded up to a multiple of four
    float *psf;          // (batch, 31, 31)
    Segments *segments;  // (batch)
    Shower *shower;      // (batch)
    Cell *cells;         // (batch, STREAK_CELLS)
    rirf_truth *truth;   // (batch): for sums, when the caller wants no truth
    size_t bytes;        // that all of it takes
};

// Divides memory at `base`; with NULL only the size is of interest.
Workspace divide(void *base, int64_t batch, int64_t height, int64_t width);

// Checks a workspace against what a batch needs and divides it.
rirf_status divide_checked(void *base, size_t bytes, int64_t batch, int64_t height, int64_t width,
                           Workspace *workspace);

// Divides numbers in device memory: counts, which are exact, become shares as on the CPU.
rirf_status divide_each(double *values, int64_t count, double divisor, void *stream);

// What all functions ask of a batch beyond what their views say.
rirf_status check_batch(int64_t batch, int64_t height, int64_t width);

}  // namespace cuda
}  // namespace rirf
