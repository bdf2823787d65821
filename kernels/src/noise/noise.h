// Noise: signal-dependent Gaussian, sigma(x) = |k x + b|. Source: R&R, appendix A.2.
#pragma once

#include "common/philox.h"

namespace rirf {

// Standard deviation in units of [0, 1]; `offset` is b / 255.
RIRF_HD float noise_sigma(float value, float gain, float offset) {
    return fabsf(gain * clamp(value, 0.0f, 1.0f) + offset);
}

// clip(v / 0.05 * 99 + 1, 1, 100), v the mean variance.
RIRF_HD double noise_severity(double variance) {
    return clamp(variance / 0.05 * 99.0 + 1.0, 1.0, 100.0);
}

}  // namespace rirf
