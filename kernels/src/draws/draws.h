// Scalar parameters of a recipe: each at a numbered slot of its stage's parameter stream, in double
// precision, as rirf.degradation.draws computes them.
#pragma once

#include "common/philox.h"
#include "rirf_kernels.h"

namespace rirf {

RIRF_HD double draw_uniform(uint64_t seed, uint32_t stage, uint32_t slot, double low, double high) {
    const double u = uniform_at({seed, stage, STREAM_PARAMETERS}, slot);
    return low + (high - low) * u;
}

RIRF_HD int32_t draw_integer(uint64_t seed, uint32_t stage, uint32_t slot, int32_t low,
                             int32_t high) {
    const double u = uniform_at({seed, stage, STREAM_PARAMETERS}, slot);
    const int32_t value = low + static_cast<int32_t>(u * (high - low + 1));
    return value < high ? value : high;
}

// Every parameter of every effect is drawn; presence decides which are used.
RIRF_HD void sample_recipe(uint64_t seed, rirf_recipe *recipe) {
    uint32_t present = 0;
    for (uint32_t slot = 0; slot < 4; ++slot) {
        const bool drawn = uniform_at({seed, STAGE_PRESENCE, STREAM_PARAMETERS}, slot) < 0.5f;
        present |= drawn ? 1u << slot : 0u;
    }
    recipe->seed = seed;
    recipe->present = present;
    for (uint32_t channel = 0; channel < 3; ++channel) {
        recipe->light[channel] = draw_uniform(seed, STAGE_FOG, channel, 0.7, 1.0);
    }
    recipe->beta = draw_uniform(seed, STAGE_FOG, 3, 0.8, 3.0);
    recipe->steps = draw_integer(seed, STAGE_SHAKE, 0, 8, 64);
    recipe->step_px = draw_uniform(seed, STAGE_SHAKE, 1, 0.8, 3.2);
    recipe->density = draw_uniform(seed, STAGE_RAIN, 0, 5e-4, 1e-2);
    recipe->slant_deg = draw_uniform(seed, STAGE_RAIN, 1, -30.0, 30.0);
    recipe->length_px = draw_uniform(seed, STAGE_RAIN, 2, 15.0, 60.0);
    recipe->width_px = draw_uniform(seed, STAGE_RAIN, 3, 1.0, 3.0);
    recipe->opacity = draw_uniform(seed, STAGE_RAIN, 4, 0.4, 0.9);
    recipe->gain = draw_uniform(seed, STAGE_NOISE, 0, 0.0, 0.3);
    recipe->offset = draw_uniform(seed, STAGE_NOISE, 1, -20.0, 20.0);
}

}  // namespace rirf
