// One piece of the caller's device memory, divided into the parts that the drivers need.
#pragma once

#include "common/launch.cuh"
#include "depth/depth.h"

namespace rirf {
namespace cuda {

constexpr int32_t STREAK_SIDE = 2 * RIRF_CUDA_STREAK_REACH + 1;

// The taps of one kernel that are not zero, in the order of the kernel.
struct Taps {
    int32_t count;
    int16_t row[RIRF_PSF_AREA], column[RIRF_PSF_AREA];
    float weight[RIRF_PSF_AREA];
};

struct Workspace {
    float *image;        // (batch, height, width, 3): the fogged frames that are to be blurred
    float *map;          // (batch, height, width): sharp depth, later the rain's mask
    float *blurred;      // (batch, height, width): depth blurred across
    float *near;         // (batch, height, width): the prior
    float *psf;          // (batch, 31, 31)
    Taps *taps;          // (batch)
    float *stamp;        // (batch, STREAK_SIDE, STREAK_SIDE)
    Geometry *geometry;  // (batch)
    float *gaussian;     // weights of the horizon's blur
    rirf_truth *truth;   // (batch): for sums, when the caller wants no truth
    size_t bytes;        // that all of it takes
};

// Divides memory at `base`; with NULL only the size is of interest.
Workspace divide(void *base, int64_t batch, int64_t height, int64_t width);

// Checks a workspace against what a batch needs and divides it.
rirf_status divide_checked(void *base, size_t bytes, int64_t batch, int64_t height, int64_t width,
                           Workspace *workspace);

// What all functions ask of a batch beyond what their views say.
rirf_status check_batch(int64_t batch, int64_t height, int64_t width);

}  // namespace cuda
}  // namespace rirf
