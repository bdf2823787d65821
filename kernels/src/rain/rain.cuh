// Rain in launches: each image's streak as a list of pixels, then its seeds, each of which is
// splatted where it is found, then whatever is done with the sums.
#pragma once

#include "common/launch.cuh"
#include "common/workspace.cuh"
#include "rain/rain.h"

namespace rirf {
namespace cuda {

// Sums of streaks into the workspace, for images whose recipe has the effects in `needed`; zero for
// others.
rirf_status splat_rain(const rirf_recipe *recipes, uint32_t needed, int64_t batch, int64_t height,
                       int64_t width, const Workspace &workspace, void *stream);

// Reads four sums, saturates them to the mask, and returns how many of the first `count` lie above
// 0.1. Sums begin at a multiple of four of every image, and there is room for whole quads.
RIRF_DEVICE float mask_quad(const uint32_t *streaks, int64_t count, float *mask) {
    float covered = 0.0f;
    RIRF_UNROLL
    for (int k = 0; k < QUAD; ++k) {
        mask[k] = at_most(static_cast<float>(streaks[k]) * (1.0f / 65536.0f), 1.0f);
        covered += k < count && mask[k] > COVERAGE_THRESHOLD ? 1.0f : 0.0f;
    }
    return covered;
}

RIRF_DEVICE void streak_quad(const rirf_recipe &recipe, const float *mask, float *value) {
    const float opacity = static_cast<float>(recipe.opacity);
    RIRF_UNROLL
    for (int c = 0; c < 3; ++c) {
        const float colour = static_cast<float>(recipe.light[c]);
        RIRF_UNROLL
        for (int k = 0; k < QUAD; ++k) value[3 * k + c] += opacity * mask[k] * colour;
    }
}

}  // namespace cuda
}  // namespace rirf
