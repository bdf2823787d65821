// Rain: sparse seeds, each stamping one slanted streak; stamps add up and saturate at 1. Source:
// R&R, appendix A.2. Stamp values are multiples of 2^-16, so that float32 sums are exact in any
// order: a sum beyond 256 may round, but it saturates at 1 all the same.
#pragma once

#include "common/philox.h"

namespace rirf {

constexpr float COVERAGE_THRESHOLD = 0.1f;

struct Streak {
    double along_x, along_y;          // unit vector along the streak, rows growing downwards
    double half_length, half_width;   // pixels
    double fade;                      // pixels over which each end fades out
    int32_t reach_y, reach_x;         // half the stamp's window
};

// a b + c d with every step rounded: contracted into one, it would differ in its last bit between
// machines, and the mask with it now and then. (Host code is compiled without contraction.)
RIRF_HD double sum_of_products(double a, double b, double c, double d) {
#if defined(__CUDA_ARCH__)
    return __dadd_rn(__dmul_rn(a, b), __dmul_rn(c, d));
#else
    return a * b + c * d;
#endif
}

RIRF_HD Streak streak_of(double slant_deg, double length_px, double width_px) {
    const double angle = slant_deg * (3.14159265358979323846 / 180.0);
    Streak s;
    s.along_x = sin(angle);
    s.along_y = cos(angle);
    s.half_length = length_px / 2;
    s.half_width = width_px / 2;
    s.fade = 0.25 * length_px;
    const double slope = fabs(s.along_x);
    const double down = sum_of_products(s.half_length, s.along_y, s.half_width, slope);
    const double across = sum_of_products(s.half_length, slope, s.half_width, s.along_y);
    s.reach_y = static_cast<int32_t>(ceil(down + 1));
    s.reach_x = static_cast<int32_t>(ceil(across + 1));
    return s;
}

// The stamp's value at (row, column) from its centre.
RIRF_HD float streak_at(const Streak &s, int32_t row, int32_t column) {
    const double along = fabs(sum_of_products(column, s.along_x, row, s.along_y));
    const double across = fabs(sum_of_products(column, s.along_y, -row, s.along_x));
    const double profile = clamp((s.half_length - along) / s.fade, 0.0, 1.0);
    const double value = static_cast<double>(
        static_cast<float>(profile * clamp(s.half_width + 0.5 - across, 0.0, 1.0)));
    return static_cast<float>(rint(value * 65536.0) / 65536.0);
}

// A seed is a word whose uniform number is below the density: w >> 8 below this whole number.
RIRF_HD uint32_t seed_threshold(double density) {
    const double scaled = static_cast<double>(static_cast<float>(density)) * 16777216.0;
    return static_cast<uint32_t>(ceil(clamp(scaled, 0.0, 16777216.0)));
}

// coverage * 99 + 1.
RIRF_HD double rain_severity(double coverage) {
    return clamp(coverage * 99.0 + 1.0, 1.0, 100.0);
}

}  // namespace rirf
