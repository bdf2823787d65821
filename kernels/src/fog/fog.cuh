// Fog on a thread's four pixels.
#pragma once

#include "common/launch.cuh"
#include "fog/fog.h"

namespace rirf {
namespace cuda {

// Turns four priors into transmissions and returns the sum of the first `count`.
RIRF_DEVICE float transmit(const rirf_recipe &recipe, int64_t count, float *t) {
    const float beta = static_cast<float>(recipe.beta);
    float sum = 0.0f;
    RIRF_UNROLL
    for (int k = 0; k < QUAD; ++k) {
        t[k] = transmission_of(t[k], beta);
        sum += k < count ? t[k] : 0.0f;
    }
    return sum;
}

RIRF_DEVICE void scatter_quad(const rirf_recipe &recipe, const float *t, float *value) {
    RIRF_UNROLL
    for (int c = 0; c < 3; ++c) {
        const float light = static_cast<float>(recipe.light[c]);
        RIRF_UNROLL
        for (int k = 0; k < QUAD; ++k) value[3 * k + c] = scatter(value[3 * k + c], t[k], light);
    }
}

}  // namespace cuda
}  // namespace rirf
