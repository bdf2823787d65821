// Shake in launches: the kernel of each image and its taps, then the convolution.
#pragma once

#include "common/launch.cuh"
#include "common/workspace.cuh"
#include "shake/shake.h"

namespace rirf {
namespace cuda {

// Convolves the images of a batch whose recipe has the effects in `needed` (all of them when
// `recipes` is NULL) with the taps of each. `out` must not be `image`.
rirf_status convolve(const rirf_image &image, const Taps *taps, const rirf_recipe *recipes,
                     uint32_t needed, const rirf_image &out, void *stream);

// Kernels and taps of the recipes that have the effects in `needed`; of others, no taps. Zeros go to
// `psf` for those. Moments go to `truth` if it is there.
rirf_status make_kernels(const rirf_recipe *recipes, uint32_t needed, int64_t count, float *psf,
                         Taps *taps, rirf_truth *truth, void *stream);

}  // namespace cuda
}  // namespace rirf
