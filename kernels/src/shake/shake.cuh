// Shake in launches: the kernel of each image and its parts, then the convolution.
#pragma once

#include "common/launch.cuh"
#include "common/workspace.cuh"
#include "shake/shake.h"

namespace rirf {
namespace cuda {

// Kernels and segments of the recipes that have the effects in `needed`; of others, no segments.
// Zeros go to `psf` for those. Moments go to `truth` if it is there.
rirf_status make_kernels(const rirf_recipe *recipes, uint32_t needed, int64_t count, float *psf,
                         Segments *segments, rirf_truth *truth, void *stream);

// Convolves the images of a batch whose recipe has the effects in `needed` (all of them when
// `recipes` is NULL). An image in fog is read from `fogged`, if there is such a thing. `out` must be
// neither of them.
rirf_status convolve(const rirf_image &image, const rirf_image &fogged, const Segments *segments,
                     const rirf_recipe *recipes, uint32_t needed, const rirf_image &out,
                     void *stream);

}  // namespace cuda
}  // namespace rirf
