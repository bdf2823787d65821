#include "shake/shake.h"

#include <atomic>

#include "common/calls.h"
#include "common/rows.h"
#include "shake/shake_rows.h"

namespace rirf {

bool Convolution::prepare(const float *psf, int64_t image_height, int64_t image_width) {
    height = image_height;
    width = image_width;
    taps = 0;
    margin = 0;
    const int32_t middle = RIRF_PSF_SIZE / 2;
    for (int32_t i = 0; i < RIRF_PSF_AREA; ++i) {
        if (psf[i] == 0.0f) continue;
        const Offset found = {i / RIRF_PSF_SIZE - middle, i % RIRF_PSF_SIZE - middle};
        const int32_t reach = found.column < 0 ? -found.column : found.column;
        margin = reach > margin ? reach : margin;
        offset[taps] = found;
        weight[taps++] = psf[i];
    }
    pitch = 3 * (width + 2 * margin);
    padded = scratch<float>(SLOT_IMAGE, height * pitch);
    return padded != nullptr;
}

void Convolution::finish(int64_t y) const {
    float *row = interior(y);
    for (int64_t k = 1; k <= margin; ++k) {
        memcpy(row - 3 * k, row + 3 * mirrored(-k, width), 3 * sizeof(float));
        memcpy(row + 3 * (width - 1 + k), row + 3 * mirrored(width - 1 + k, width),
               3 * sizeof(float));
    }
}

void Convolution::row(int64_t y, const float **source, float *out) const {
    // A convolution reads against the direction of the kernel.
    for (int64_t k = 0; k < taps; ++k) {
        source[k] = interior(mirrored(y - offset[k].row, height)) - 3 * int64_t{offset[k].column};
    }
    rows().taps(3 * width, taps, source, weight, out);
}

}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_shake_kernels(const rirf_recipe *recipes, int64_t count, float *psf,
                               rirf_truth *truth) {
    RIRF_TRY(check_count(count));
    if (psf == nullptr) return fail(RIRF_NULL_POINTER, "psf: got NULL");
    RIRF_TRY(check_recipes(recipes, count, RIRF_SHAKE));
    for (int64_t i = 0; i < count; ++i) {
        float *kernel = psf + i * RIRF_PSF_AREA;
        shake_kernel(recipes[i].seed, recipes[i].steps, recipes[i].step_px, kernel);
        if (truth == nullptr) continue;
        const Moments m = shake_moments(kernel);
        truth[i].direction_deg = m.direction_deg;
        truth[i].blur_length_px = m.length_px;
        truth[i].energy = m.energy;
        truth[i].rms_px = m.rms_px;
        truth[i].severity[1] = shake_severity(m.rms_px);
    }
    return RIRF_OK;
}

rirf_status rirf_shake(const rirf_image *image, const float *psf, const rirf_image *out,
                       int threads) {
    RIRF_TRY(check_shake(image, psf, out));
    const int64_t height = image->height, width = image->width;
    std::atomic<bool> failed{false};
    for_images(thread_count(threads), image->batch, [&](int64_t index, int inner) {
        Convolution blur;
        if (!blur.prepare(psf + index * RIRF_PSF_AREA, height, width)) {
            failed = true;
            return;
        }
        for_rows(inner, height, [&](int64_t first, int64_t last) {
            for (int64_t y = first; y < last; ++y) {
                const float *from = read_row(*image, index, y, blur.interior(y));
                if (from != blur.interior(y)) {
                    memcpy(blur.interior(y), from, static_cast<size_t>(3 * width) * sizeof(float));
                }
                blur.finish(y);
            }
        });
        for_rows(inner, height, [&](int64_t first, int64_t last) {
            const float **source = scratch<const float *>(SLOT_ROW_TAPS, RIRF_PSF_AREA);
            float *to = scratch<float>(SLOT_ROW_OUT, 3 * width);
            if (source == nullptr || to == nullptr) {
                failed = true;
                return;
            }
            for (int64_t y = first; y < last; ++y) {
                float *target = target_row(*out, index, y, to);
                blur.row(y, source, target);
                write_row(*out, index, y, target);
            }
        });
    });
    return failed ? fail(RIRF_NO_MEMORY, "shake: no memory for a padded copy") : RIRF_OK;
}

}  // extern "C"
