// Severities from the measured quantities: 0 for an absent effect, else 1 to 100.
#pragma once

#include "fog/fog.h"
#include "noise/noise.h"
#include "rain/rain.h"
#include "shake/shake.h"

namespace rirf {

// What a truth says of an effect that is not there.
RIRF_HD void neutral(rirf_truth *truth) {
    truth->transmission_mean = 1.0;
    truth->direction_deg = 0.0;
    truth->blur_length_px = 0.0;
    truth->energy = 1.0;
    truth->rms_px = 0.0;
    truth->coverage = 0.0;
    truth->variance = 0.0;
    for (int i = 0; i < 4; ++i) truth->severity[i] = 0.0;
}

RIRF_HD void score(uint32_t present, rirf_truth *truth) {
    truth->severity[0] =
        (present & RIRF_FOG) != 0 ? fog_severity(truth->transmission_mean) : 0.0;
    truth->severity[1] = (present & RIRF_SHAKE) != 0 ? shake_severity(truth->rms_px) : 0.0;
    truth->severity[2] = (present & RIRF_RAIN) != 0 ? rain_severity(truth->coverage) : 0.0;
    truth->severity[3] = (present & RIRF_NOISE) != 0 ? noise_severity(truth->variance) : 0.0;
}

}  // namespace rirf
