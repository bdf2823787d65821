// Elementary functions as short polynomials without branches or tables, so that a loop over them
// becomes vector code and the CPU and the GPU compute alike. Coefficients: weighted least squares on
// Chebyshev nodes, iterated towards the smallest largest error (given at each function).
#pragma once

#include "common/platform.h"

namespace rirf {

// Splits a positive, normal x into mantissa in [sqrt(1/2), sqrt(2)) and exponent.
RIRF_HD float split(float x, int32_t *exponent) {
    const uint32_t bits = float_bits(x);
    // 0x3f3504f3 is sqrt(1/2): subtracting it moves the border between two exponents there.
    const int32_t e = static_cast<int32_t>(bits - 0x3f3504f3u) >> 23;
    *exponent = e;
    return bits_float(bits - (static_cast<uint32_t>(e) << 23));
}

// ln of a mantissa in [sqrt(1/2), sqrt(2)), relative error below 1.2e-7: it stays relative at 1,
// where Box-Muller takes a square root of it.
RIRF_HD float log_mantissa(float m) {
    const float f = m - 1.0f;
    float p = -0.07859456539154053f;
    p = p * f + 0.1288158893585205f;
    p = p * f - 0.1312878429889679f;
    p = p * f + 0.1418120115995407f;
    p = p * f - 0.16624552011489868f;
    p = p * f + 0.2000228613615036f;
    p = p * f - 0.25000810623168945f;
    p = p * f + 0.33333316445350647f;
    const float square = f * f;
    return (p * square * f - 0.5f * square) + f;
}

// Natural logarithm of a positive, normal float.
RIRF_HD float log_natural(float x) {
    int32_t e;
    const float m = split(x, &e);
    return static_cast<float>(e) * 0.6931471805599453f + log_mantissa(m);
}

// 2^x for x in [-126, 0], relative error below 1e-7.
RIRF_HD float exp2_negative(float x) {
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const float shifted = x + 12582912.0f;
    const float whole = shifted - 12582912.0f;
    const float r = x - whole;
    float p = 0.00015478012210223824f;
    p = p * r + 0.001340043148957193f;
    p = p * r + 0.009617994539439678f;
    p = p * r + 0.05550327152013779f;
    p = p * r + 0.24022652208805084f;
    p = p * r + 0.6931471824645996f;
    p = p * r + 1.0f;
    const int32_t e = static_cast<int32_t>(whole);
    return p * bits_float(static_cast<uint32_t>(e + 127) << 23);
}

// base^exponent for base in [0, 1] and exponent >= 0; values below 2^-126 count as 2^-126.
RIRF_HD float power_of_share(float base, float exponent) {
    int32_t e;
    const float m = split(at_least(base, 1.17549435e-38f), &e);
    const float log2 = log_mantissa(m) * 1.4426950408889634f + static_cast<float>(e);
    return exp2_negative(clamp(log2 * exponent, -126.0f, 0.0f));
}

// cos and sin of 2 pi n / 2^24, n in [0, 2^24), absolute error below 1.2e-7. The range is reduced in
// whole numbers, without rounding.
RIRF_HD void turn(uint32_t n, float *cosine, float *sine) {
    const uint32_t quadrant = (n + (1u << 21)) >> 22;
    const int32_t rest = static_cast<int32_t>(n - (quadrant << 22));
    const float r = static_cast<float>(rest) * 5.9604644775390625e-08f;  // 2^-24
    const float z = r * r;
    float s = -75.40206909179688f;
    s = s * z + 81.5925521850586f;
    s = s * z - 41.3416633605957f;
    s = s * z + 6.2831854820251465f;
    s = s * r;
    float c = -83.59261322021484f;
    c = c * z + 64.92124938964844f;
    c = c * z - 19.739152908325195f;
    c = c * z + 1.0f;
    const bool swapped = (quadrant & 1u) != 0;
    const float x = swapped ? s : c;
    const float y = swapped ? c : s;
    *cosine = ((quadrant + 1u) & 2u) != 0 ? -x : x;
    *sine = (quadrant & 2u) != 0 ? -y : y;
}

}  // namespace rirf
