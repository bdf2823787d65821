// Noise on a thread's four pixels: twelve values are exactly three Philox blocks.
#pragma once

#include "common/launch.cuh"
#include "noise/noise.h"

namespace rirf {
namespace cuda {

// Sum of sigma^2 over the first `count` pixels.
RIRF_DEVICE double variance_quad(const rirf_recipe &recipe, int64_t count, const float *value) {
    const float gain = static_cast<float>(recipe.gain);
    const float offset = static_cast<float>(recipe.offset / 255.0);
    float sum = 0.0f;
    for (int64_t i = 0; i < 3 * count; ++i) {
        const float sigma = noise_sigma(value[i], gain, offset);
        sum += sigma * sigma;
    }
    return static_cast<double>(sum);
}

// Adds noise to four pixels, `first` being a multiple of four.
RIRF_DEVICE void noise_quad(const rirf_recipe &recipe, int64_t first, float *value) {
    const float gain = static_cast<float>(recipe.gain);
    const float offset = static_cast<float>(recipe.offset / 255.0);
    const Address address = {recipe.seed, STAGE_NOISE, STREAM_FIELD};
    const uint64_t block = static_cast<uint64_t>(first) / 4 * 3;
    for (int b = 0; b < 3; ++b) {
        const Words words = philox(address, block + static_cast<uint64_t>(b));
        float n[4];
        normal_pair(words.w0, words.w1, &n[0], &n[1]);
        normal_pair(words.w2, words.w3, &n[2], &n[3]);
        for (int k = 0; k < 4; ++k) {
            float &v = value[4 * b + k];
            v = v + n[k] * noise_sigma(v, gain, offset);
        }
    }
}

}  // namespace cuda
}  // namespace rirf
