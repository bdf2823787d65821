// Fog on a thread's four pixels.
#pragma once

#include "common/launch.cuh"
#include "fog/fog.h"

namespace rirf {
namespace cuda {

// Turns four priors into transmissions and returns the sum of the first `count`.
RIRF_DEVICE double transmit(const rirf_recipe &recipe, int64_t count, float *t) {
    const float beta = static_cast<float>(recipe.beta);
    float sum = 0.0f;
    for (int64_t k = 0; k < count; ++k) {
        t[k] = transmission_of(t[k], beta);
        sum += t[k];
    }
    return static_cast<double>(sum);
}

RIRF_DEVICE void scatter_quad(const rirf_recipe &recipe, const float *t, float *value) {
    for (int c = 0; c < 3; ++c) {
        const float light = static_cast<float>(recipe.light[c]);
        for (int k = 0; k < QUAD; ++k) value[3 * k + c] = scatter(value[3 * k + c], t[k], light);
    }
}

}  // namespace cuda
}  // namespace rirf
