// Shake: motion blur by a random-walk point-spread function. Source: R&R, appendix A.2.
#pragma once

#include "common/philox.h"
#include "rirf_kernels.h"

namespace rirf {

constexpr int32_t WALK_STEPS_MAX = 4096;
constexpr double PSF_RADIUS = (RIRF_PSF_SIZE - 1) / 2;
// Points splatted for one step of the walk, so that long steps leave no gaps.
constexpr int32_t WALK_SUBSTEPS = 4;
// Standard deviation of the temporal weights as a share of the exposure.
constexpr double EXPOSURE_SIGMA = 0.25;

struct Moments {
    double direction_deg, length_px, energy, rms_px;
};

// Weight of a moment of the exposure, which lasts from 0 to 1.
RIRF_HD double exposure_weight(double time) {
    const double place = (time - 0.5) / EXPOSURE_SIGMA;
    return exp(-0.5 * place * place);
}

// Calls visit(x, y, weight) for the walk's points in order, weights not yet normalised.
template <typename Visit>
RIRF_HD void walk(uint64_t seed, int32_t steps, double step_px, Visit visit) {
    const Address address = {seed, STAGE_SHAKE, STREAM_FIELD};
    double x = 0.0, y = 0.0;
    for (int32_t step = 0; step <= steps; ++step) {
        double next_x = x, next_y = y;
        if (step < steps) {
            next_x = x + normal_at(address, 2 * static_cast<uint64_t>(step)) * step_px;
            next_y = y + normal_at(address, 2 * static_cast<uint64_t>(step) + 1) * step_px;
        }
        const int32_t points = step < steps ? WALK_SUBSTEPS : 1;
        for (int32_t k = 0; k < points; ++k) {
            const double share = static_cast<double>(k) / WALK_SUBSTEPS;
            visit(x + (next_x - x) * share, y + (next_y - y) * share,
                  exposure_weight((step + share) / steps));
        }
        x = next_x;
        y = next_y;
    }
}

// The kernel, (31, 31) row by row, sum 1, centroid in the middle. A walk that would leave it is
// shrunk about its centroid. The walk is replayed three times instead of being stored.
RIRF_HD void shake_kernel(uint64_t seed, int32_t steps, double step_px, float *psf) {
    double mass = 0.0, mean_x = 0.0, mean_y = 0.0;
    walk(seed, steps, step_px, [&](double x, double y, double weight) {
        mass += weight;
        mean_x += weight * x;
        mean_y += weight * y;
    });
    mean_x /= mass;
    mean_y /= mass;
    double reach = 0.0;
    walk(seed, steps, step_px, [&](double x, double y, double) {
        const double far_x = fabs(x - mean_x), far_y = fabs(y - mean_y);
        const double far = far_x > far_y ? far_x : far_y;
        reach = far > reach ? far : reach;
    });
    // One pixel is left free, because bilinear splatting touches the next pixel too.
    const double shrink = reach > PSF_RADIUS - 1 ? (PSF_RADIUS - 1) / reach : 1.0;
    double grid[RIRF_PSF_AREA];
    for (int32_t i = 0; i < RIRF_PSF_AREA; ++i) grid[i] = 0.0;
    walk(seed, steps, step_px, [&](double x, double y, double weight) {
        const double px = (x - mean_x) * shrink + PSF_RADIUS;
        const double py = (y - mean_y) * shrink + PSF_RADIUS;
        const int32_t column = static_cast<int32_t>(floor(px)), row = static_cast<int32_t>(floor(py));
        const double fx = px - column, fy = py - row;
        double *corner = grid + row * RIRF_PSF_SIZE + column;
        corner[0] += weight * (1 - fx) * (1 - fy);
        corner[1] += weight * fx * (1 - fy);
        corner[RIRF_PSF_SIZE] += weight * (1 - fx) * fy;
        corner[RIRF_PSF_SIZE + 1] += weight * fx * fy;
    });
    double total = 0.0;
    for (int32_t i = 0; i < RIRF_PSF_AREA; ++i) total += grid[i];
    for (int32_t i = 0; i < RIRF_PSF_AREA; ++i) psf[i] = static_cast<float>(grid[i] / total);
}

// From the second moments about the centroid and the sum of squares: direction of the first
// eigenvector (counter-clockwise on the screen, [0, 180)), length sqrt(lambda_1), energy ||k||_2,
// r_rms = sqrt(lambda_1 + lambda_2).
RIRF_HD Moments moments_of(double mxx, double myy, double mxy, double square) {
    const double centre = (mxx + myy) / 2, spread = hypot((mxx - myy) / 2, mxy);
    // Image rows grow downwards: the minus sign makes the angle counter-clockwise on the screen.
    double direction = 0.5 * atan2(-2 * mxy, mxx - myy) * (180.0 / 3.14159265358979323846);
    direction = direction < 0.0 ? direction + 180.0 : direction;
    Moments m;
    m.direction_deg = direction < 180.0 ? direction : 0.0;
    m.length_px = centre + spread > 0.0 ? sqrt(centre + spread) : 0.0;
    m.energy = sqrt(square);
    m.rms_px = mxx + myy > 0.0 ? sqrt(mxx + myy) : 0.0;
    return m;
}

RIRF_HD Moments shake_moments(const float *psf) {
    double mass = 0.0, mean_x = 0.0, mean_y = 0.0, square = 0.0;
    for (int32_t i = 0; i < RIRF_PSF_AREA; ++i) {
        const double k = psf[i];
        mass += k;
        mean_x += k * (i % RIRF_PSF_SIZE);
        mean_y += k * (i / RIRF_PSF_SIZE);
        square += k * k;
    }
    mean_x /= mass;
    mean_y /= mass;
    double mxx = 0.0, myy = 0.0, mxy = 0.0;
    for (int32_t i = 0; i < RIRF_PSF_AREA; ++i) {
        const double k = psf[i];
        const double dx = i % RIRF_PSF_SIZE - mean_x, dy = i / RIRF_PSF_SIZE - mean_y;
        mxx += k * dx * dx;
        myy += k * dy * dy;
        mxy += k * dx * dy;
    }
    return moments_of(mxx / mass, myy / mass, mxy / mass, square);
}

// clip(r_rms / 15 * 99 + 1, 1, 100).
RIRF_HD double shake_severity(double rms_px) {
    return clamp(rms_px / PSF_RADIUS * 99.0 + 1.0, 1.0, 100.0);
}

// Mirrors an index into [0, size) without repeating the edge, however far outside it lies.
RIRF_HD int64_t mirrored(int64_t index, int64_t size) {
    if (index >= 0 && index < size) return index;
    if (size == 1) return 0;
    const int64_t period = 2 * (size - 1);
    index %= period;
    if (index < 0) index += period;
    return index < size ? index : period - index;
}

}  // namespace rirf
