// Frame operations of the runtime: levels (uint8) and shares ([0, 1]), half precision without
// hardware for it, re-degradation. Formulas are chosen so that a compiler that contracts a product
// and a sum into one instruction changes no bit of a conversion.
#pragma once

#include "common/platform.h"

namespace rirf {

constexpr int32_t LEVELS = 256;
// Side of the blocks whose means are the residual's coarse scale.
constexpr int64_t RESIDUAL_BLOCK = 8;
// Tables that the residual counts levels in, to be added up.
constexpr int64_t RESIDUAL_TABLES = 4;

RIRF_HD float share_of(uint8_t level) { return static_cast<float>(level) * (1.0f / 255.0f); }

// 255 x, rounded once: 256 x is exact, so contraction or not, there is one rounding.
RIRF_HD float times_255(float x) { return x * 256.0f - x; }

// x clipped to [0, 1] as a level, a half up. NaN counts as 0.
RIRF_HD int32_t level_of(float x) {
    return static_cast<int32_t>(times_255(clamp(x, 0.0f, 1.0f)) + 0.5f);
}

// Nearest half (ties to even) of 0 or of a value in [2^-14, 2]: where a share of a level lies.
RIRF_HD uint16_t half_of_share(float value) {
    const uint32_t bits = float_bits(value);
    // Rounds at bit 13, then moves the exponent's origin from 127 to 15.
    const uint32_t rounded = (bits + 0xfffu + ((bits >> 13) & 1u)) >> 13;
    return static_cast<uint16_t>(bits == 0 ? 0u : rounded - ((127u - 15u) << 10));
}

// Any half as a float, exactly. The product puts the exponent's origin right, of subnormals too.
RIRF_HD float float_of_half(uint16_t half) {
    const uint32_t bits = (half & 0x7fffu) * 0x2000u;
    const uint32_t sign = (half & 0x8000u) * 0x10000u;
    const uint32_t finite = float_bits(bits_float(bits) * 5.192296858534828e33f);  // 2^112
    const bool special = (half & 0x7c00u) == 0x7c00u;  // infinity, NaN
    return bits_float(sign | (special ? bits | 0x7f800000u : finite));
}

// Fog over a restored level: t (J - A) + A.
RIRF_HD float refogged(uint8_t level, float t, float light) {
    return t * (share_of(level) - light) + light;
}

}  // namespace rirf
