// Rain in launches: the stamp of each image, then its seeds, each of which is splatted where it is
// found, then whatever is done with the mask.
#pragma once

#include "common/launch.cuh"
#include "common/workspace.cuh"
#include "rain/rain.h"

namespace rirf {
namespace cuda {

// Sums of streaks, not saturated yet, into `mask`, dense (batch, height, width). Images whose recipe
// has none of the effects in `needed` are left at zero. `stamp` is workspace.
rirf_status splat_rain(const rirf_recipe *recipes, uint32_t needed, int64_t batch, int64_t height,
                       int64_t width, float *stamp, float *mask, void *stream);

// Saturates a thread's four mask values; returns how many of the first `count` lie above 0.1.
RIRF_DEVICE double saturate_quad(int64_t count, float *mask) {
    int covered = 0;
    for (int64_t k = 0; k < count; ++k) {
        mask[k] = at_most(mask[k], 1.0f);
        covered += mask[k] > COVERAGE_THRESHOLD ? 1 : 0;
    }
    return covered;
}

RIRF_DEVICE void streak_quad(const rirf_recipe &recipe, const float *mask, float *value) {
    const float opacity = static_cast<float>(recipe.opacity);
    for (int c = 0; c < 3; ++c) {
        const float colour = static_cast<float>(recipe.light[c]);
        for (int k = 0; k < QUAD; ++k) value[3 * k + c] += opacity * mask[k] * colour;
    }
}

}  // namespace cuda
}  // namespace rirf
