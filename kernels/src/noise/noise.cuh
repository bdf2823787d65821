// Noise on a thread's four pixels: twelve values are exactly three Philox blocks.
#pragma once

#include "common/launch.cuh"
#include "noise/noise.h"

namespace rirf {
namespace cuda {

// normal_pair() of philox.h with the GPU's own square root, sine and cosine, which take a fraction of
// the time; without them noise would wait for arithmetic instead of memory. Off by 3e-6 at most: in a
// picture, 3e-6 sigma.
RIRF_DEVICE void fast_normal_pair(uint32_t w0, uint32_t w1, float *first, float *second) {
#if defined(__CUDA_ARCH__)
    const float u1 = static_cast<float>(static_cast<int32_t>((w0 >> 8) + 1u)) *
                     5.9604644775390625e-08f;
    float radius;
    asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(radius) : "f"(-2.0f * log_natural(u1)));
    // A turn less half a turn: sine and cosine are exact to 2^-21 between -pi and pi.
    const float angle =
        static_cast<float>(static_cast<int32_t>(w1 >> 8) - (1 << 23)) * 3.7450702829238e-07f;
    *first = -radius * __cosf(angle);
    *second = -radius * __sinf(angle);
#else
    normal_pair(w0, w1, first, second);
#endif
}

RIRF_DEVICE void normal_block(Address address, uint64_t block, float *n) {
    const Words words = philox(address, block);
    fast_normal_pair(words.w0, words.w1, &n[0], &n[1]);
    fast_normal_pair(words.w2, words.w3, &n[2], &n[3]);
}

// Adds noise to four pixels, `first` being a multiple of four, if `add`; returns the sum of sigma^2
// over the first `count` of them.
RIRF_DEVICE float noise_quad(const rirf_recipe &recipe, int64_t first, int64_t count, bool add,
                             float *value) {
    const float gain = static_cast<float>(recipe.gain);
    // As a float: doubles are slow on most GPUs.
    const float offset = static_cast<float>(recipe.offset) / 255.0f;
    const Address address = {recipe.seed, STAGE_NOISE, STREAM_FIELD};
    const uint64_t block = static_cast<uint64_t>(first) / 4 * 3;
    float sum = 0.0f;
    RIRF_UNROLL
    for (int b = 0; b < 3; ++b) {
        float n[4] = {};
        if (add) normal_block(address, block + static_cast<uint64_t>(b), n);
        RIRF_UNROLL
        for (int k = 0; k < 4; ++k) {
            const int i = 4 * b + k;
            const float sigma = noise_sigma(value[i], gain, offset);
            sum += i < 3 * count ? sigma * sigma : 0.0f;
            value[i] += n[k] * sigma;
        }
    }
    return sum;
}

}  // namespace cuda
}  // namespace rirf
