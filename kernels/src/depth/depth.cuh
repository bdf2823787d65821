// The sampled depth prior on the device: rows in which every `spacing`-th column is there, and the
// interpolation between them, so that a prior of full size is never stored.
#pragma once

#include "common/launch.cuh"
#include "common/workspace.cuh"

namespace rirf {
namespace cuda {

// Samples the priors of the recipes that have the effects in `needed` into the workspace.
rirf_status sample_prior(const rirf_recipe *recipes, uint32_t needed, int64_t batch, int64_t height,
                         int64_t width, const PriorSpace &space, void *stream);

// What a thread needs to read a sampled prior.
struct PriorRows {
    const float *rows;      // (batch, height, points)
    const float *lagrange;  // (spacing, 8), six of them used
    int32_t points, spacing;
};

inline PriorRows prior_rows(const PriorSpace &space) {
    return {space.blurred, space.lagrange, space.points_across, space.spacing};
}

// The prior of `count` pixels from `first` on.
RIRF_DEVICE void prior_quad(const PriorRows &prior, int64_t index, int64_t height, int64_t width,
                            int64_t first, int64_t count, float *near) {
    Place at = place_of(first, width);
    const float *row = prior.rows + (index * height + at.row) * prior.points;
    int32_t point = at.column / prior.spacing, phase = at.column - point * prior.spacing;
    RIRF_UNROLL
    for (int k = 0; k < QUAD; ++k) {
        if (k >= count) break;
        const float *weight = prior.lagrange + 8 * phase;
        float depth = 0.0f;
        RIRF_UNROLL
        for (int j = 0; j < POINTS; ++j) depth += row[point + j] * weight[j];
        near[k] = prior_of(depth);
        if (++phase == prior.spacing) {
            phase = 0;
            ++point;
        }
        if (++at.column == width) {  // the quad goes on in the next row
            at.column = point = phase = 0;
            row += prior.points;
        }
    }
}

}  // namespace cuda
}  // namespace rirf
