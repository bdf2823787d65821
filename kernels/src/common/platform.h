// What lets one header serve the C++ compiler and nvcc. Math headers have internal linkage, because
// they are compiled several times for different instruction sets and must never be merged.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define RIRF_HD static __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define RIRF_HD static inline __attribute__((always_inline))
#else
#define RIRF_HD static inline
#endif

namespace rirf {

RIRF_HD uint32_t float_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

RIRF_HD float bits_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// Ternaries instead of fmin/fmax: they become one instruction, and NaN cannot reach them (images are
// checked to lie in [0, 1] at the SDK's border).
RIRF_HD float at_most(float value, float high) { return value < high ? value : high; }
RIRF_HD float at_least(float value, float low) { return value > low ? value : low; }
RIRF_HD float clamp(float value, float low, float high) { return at_most(at_least(value, low), high); }
RIRF_HD double clamp(double value, double low, double high) {
    return value < low ? low : (value > high ? high : value);
}

}  // namespace rirf
