// The sparse convolution, a row at a time, for the CPU drivers.
#pragma once

#include "common/scratch.h"
#include "shake/shake.h"

namespace rirf {

// A padded copy of an image (mirrored columns on both sides; rows are mirrored by address) and the
// taps of a kernel that are not zero.
struct Convolution {
    int64_t height = 0, width = 0;
    int64_t margin = 0;       // columns added on each side
    int64_t pitch = 0;        // numbers in a padded row
    float *padded = nullptr;  // (height, pitch)
    int64_t taps = 0;
    struct Offset {
        int32_t row, column;
    };
    Offset offset[RIRF_PSF_AREA];
    float weight[RIRF_PSF_AREA];

    // Collects the taps and takes memory from the calling thread's scratch; false when there is none.
    bool prepare(const float *psf, int64_t image_height, int64_t image_width);
    // Where row y of the image is to be written, 3 * width numbers, before finish(y).
    float *interior(int64_t y) const { return padded + y * pitch + 3 * margin; }
    void finish(int64_t y) const;
    // One row of the result. `source` holds `taps` pointers.
    void row(int64_t y, const float **source, float *out) const;
};

}  // namespace rirf
