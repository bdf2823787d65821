// Fog: I = J t + A (1 - t), t = clamp(t0^beta, 0.05, 1). Source: R&R, appendix A.2.
#pragma once

#include "common/math.h"

namespace rirf {

constexpr float TRANSMISSION_FLOOR = 0.05f;

RIRF_HD float transmission_of(float prior, float beta) {
    // 0^beta is 0 for the smallest beta too, where power_of_share makes of it what it makes of 2^-126.
    const float t = clamp(power_of_share(prior, beta), TRANSMISSION_FLOOR, 1.0f);
    return prior > 0.0f ? t : TRANSMISSION_FLOOR;
}

RIRF_HD float scatter(float value, float t, float light) { return value * t + light * (1.0f - t); }

// The clean estimate; `floor` keeps thick fog from being divided by next to nothing.
RIRF_HD float unscatter(float value, float t, float light, float floor) {
    return clamp((value - light * (1.0f - t)) / at_least(t, floor), 0.0f, 1.0f);
}

// (1 - t_mean) / 0.95 * 99 + 1.
RIRF_HD double fog_severity(double transmission_mean) {
    return clamp((1.0 - transmission_mean) / 0.95 * 99.0 + 1.0, 1.0, 100.0);
}

}  // namespace rirf
