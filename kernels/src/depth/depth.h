// The sampled street-like depth prior: horizon, ground plane, smooth relief; t0 = 1 - 0.8 depth.
// The blur that softens the horizon is separable and left to the drivers.
#pragma once

#include "draws/draws.h"

namespace rirf {

constexpr int32_t RELIEF_ROWS = 6, RELIEF_COLUMNS = 8;
constexpr double HORIZON_BLUR = 0.06;  // standard deviation as a share of the height

struct Geometry {
    double horizon, steepness;
    float relief;
    float field[RELIEF_ROWS * RELIEF_COLUMNS];
};

RIRF_HD void sample_ground(uint64_t seed, Geometry *g) {
    g->horizon = draw_uniform(seed, STAGE_DEPTH, 0, 0.2, 0.55);
    g->steepness = draw_uniform(seed, STAGE_DEPTH, 1, 4.0, 12.0);
    g->relief = static_cast<float>(draw_uniform(seed, STAGE_DEPTH, 2, 0.2, 0.8));
}

RIRF_HD float relief_at(uint64_t seed, uint32_t cell) {
    return uniform_at({seed, STAGE_DEPTH, STREAM_FIELD}, cell);
}

RIRF_HD void sample_geometry(uint64_t seed, Geometry *g) {
    sample_ground(seed, g);
    for (uint32_t i = 0; i < RELIEF_ROWS * RELIEF_COLUMNS; ++i) g->field[i] = relief_at(seed, i);
}

// Keys' cubic kernel with a = -0.75, at distance d >= 0.
RIRF_HD float cubic_weight(float d) {
    const float a = -0.75f;
    return d <= 1.0f ? ((a + 2.0f) * d - (a + 3.0f)) * d * d + 1.0f
                     : ((a * d - 5.0f * a) * d + 8.0f * a) * d - 4.0f * a;
}

// Cubic interpolation of a grid of `cells` enlarged to `size`, pixel centres aligned, edges repeated:
// the four cells and weights of one pixel.
struct Cubic {
    int32_t cell[4];
    float weight[4];
};

RIRF_HD Cubic cubic_at(int64_t pixel, int64_t size, int32_t cells) {
    const double scale = static_cast<double>(cells) / static_cast<double>(size);
    const float place = static_cast<float>((static_cast<double>(pixel) + 0.5) * scale - 0.5);
    const float corner = floorf(place);
    const float x = place - corner;
    Cubic c;
    c.weight[0] = cubic_weight(1.0f + x);
    c.weight[1] = cubic_weight(x);
    c.weight[2] = cubic_weight(1.0f - x);
    c.weight[3] = 1.0f - c.weight[0] - c.weight[1] - c.weight[2];
    for (int32_t k = 0; k < 4; ++k) {
        const int32_t at = static_cast<int32_t>(corner) - 1 + k;
        c.cell[k] = at < 0 ? 0 : (at >= cells ? cells - 1 : at);
    }
    return c;
}

// Relative depth of the ground plane at a row (1 at and above the horizon), and the relief's share
// there: shapes stand tall in front of the sky and flat on the ground.
RIRF_HD void ground_at(const Geometry &g, int64_t row, int64_t height, float *plane, float *share) {
    const float centre = (static_cast<float>(row) + 0.5f) / static_cast<float>(height);
    const double span = 1.0 - g.horizon;
    const float below = clamp((centre - static_cast<float>(g.horizon)) /
                                  static_cast<float>(span > 1e-3 ? span : 1e-3),
                              0.0f, 1.0f);
    *plane = 1.0f / (1.0f + static_cast<float>(g.steepness) * below);
    const bool above = (static_cast<double>(row) + 0.5) / static_cast<double>(height) < g.horizon;
    *share = above ? 1.0f : 0.35f;
}

RIRF_HD float sharp_depth(float plane, float share, float relief, float field) {
    return plane * (1.0f - relief * (clamp(field, 0.0f, 1.0f) * share));
}

RIRF_HD float prior_of(float depth) { return 1.0f - 0.8f * clamp(depth, 0.0f, 1.0f); }

// Radius and standard deviation of the blur.
RIRF_HD double blur_sigma(int64_t height) {
    const double sigma = static_cast<double>(height) * HORIZON_BLUR;
    return sigma > 0.5 ? sigma : 0.5;
}

RIRF_HD int64_t blur_radius(double sigma) {
    const int64_t size = static_cast<int64_t>(rint(sigma * 8.0 + 1.0)) | 1;
    return size / 2;
}

// Pixels from one point of the coarse grid (see Coarse) to the next.
RIRF_HD int64_t blur_spacing(double sigma) {
    return sigma < 14.0 ? 1 : static_cast<int64_t>(sigma / 7.0);
}

// Points of the six-point Lagrange interpolation, of which POINTS_BEFORE lie at or left of a place.
constexpr int64_t POINTS = 6, POINTS_BEFORE = 3;

// Weights of the points -2 .. 3 at a place in [0, 1) between the points 0 and 1.
RIRF_HD void lagrange(double place, float *weight) {
    for (int64_t i = 0; i < POINTS; ++i) {
        double value = 1.0;
        for (int64_t k = 0; k < POINTS; ++k) {
            if (k == i) continue;
            const double at = static_cast<double>(k - POINTS_BEFORE + 1);
            value *= (place - at) / static_cast<double>(i - k);
        }
        weight[i] = static_cast<float>(value);
    }
}

// The blurred depth on a coarse grid, from which the full one is interpolated: a blur of standard
// deviation sigma leaves nothing between points sigma / 7 apart that six points do not tell within
// 1e-6, and the blur costs a fraction of what it would at every pixel.
struct Coarse {
    int64_t size, step, radius, taps;
    int64_t points;  // from POINTS_BEFORE - 1 steps before the first pixel to behind the last

    Coarse(int64_t pixels, int64_t blur_radius, int64_t spacing)
        : size(pixels),
          step(spacing),
          radius(blur_radius),
          taps(2 * blur_radius + 1),
          points((pixels - 1 + spacing - 1) / spacing + POINTS) {}

    int64_t margin() const { return (POINTS_BEFORE - 1) * step + radius; }
    // Pixels that the blur of all points reads, mirrored ones included.
    int64_t reach() const { return (points - 1) * step + taps; }
};

}  // namespace rirf
