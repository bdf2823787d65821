#include "shake/shake.cuh"

#include "common/view.h"

namespace rirf {
namespace cuda {

RIRF_DEVICE void collect(const float *psf, Taps *taps) {
    const int32_t middle = RIRF_PSF_SIZE / 2;
    int32_t count = 0;
    for (int32_t i = 0; i < RIRF_PSF_AREA; ++i) {
        if (psf[i] == 0.0f) continue;
        taps->row[count] = static_cast<int16_t>(i / RIRF_PSF_SIZE - middle);
        taps->column[count] = static_cast<int16_t>(i % RIRF_PSF_SIZE - middle);
        taps->weight[count++] = psf[i];
    }
    taps->count = count;
}

// One thread an image: a walk is a sequence.
RIRF_KERNEL kernel_kernel(const rirf_recipe *recipes, uint32_t needed, int64_t count, float *psfs,
                          Taps *taps, rirf_truth *truth) {
    const int64_t index = work_item();
    if (index >= count) return;
    const rirf_recipe &recipe = recipes[index];
    float *psf = psfs + index * RIRF_PSF_AREA;
    if ((recipe.present & needed) != needed) {
        for (int i = 0; i < RIRF_PSF_AREA; ++i) psf[i] = 0.0f;
        if (taps != nullptr) taps[index].count = 0;
        return;
    }
    const int32_t steps = recipe.steps < 1 ? 1 : recipe.steps;
    shake_kernel(recipe.seed, steps < WALK_STEPS_MAX ? steps : WALK_STEPS_MAX, recipe.step_px, psf);
    if (taps != nullptr) collect(psf, &taps[index]);
    if (truth == nullptr) return;
    const Moments m = shake_moments(psf);
    truth[index].direction_deg = m.direction_deg;
    truth[index].blur_length_px = m.length_px;
    truth[index].energy = m.energy;
    truth[index].rms_px = m.rms_px;
    truth[index].severity[1] = shake_severity(m.rms_px);
}

RIRF_KERNEL taps_kernel(const float *psfs, int64_t count, Taps *taps) {
    const int64_t index = work_item();
    if (index < count) collect(psfs + index * RIRF_PSF_AREA, &taps[index]);
}

// One value a thread; neighbours in a row read neighbours, tap by tap.
RIRF_KERNEL convolve_kernel(rirf_image image, const Taps *all_taps, const rirf_recipe *recipes,
                            uint32_t needed, rirf_image out) {
    const int64_t index = image_item(), item = work_item();
    const int64_t height = image.height, width = image.width;
    if (item >= 3 * height * width) return;
    if (recipes != nullptr && (recipes[index].present & needed) != needed) return;
    const int64_t y = item / (3 * width), rest = item - y * 3 * width;
    const int64_t x = rest / 3, channel = rest - 3 * x;
    const Taps &taps = all_taps[index];
    const float *base = image.data + index * image.stride_batch + channel * image.stride_channel;
    float total = 0.0f;
    for (int32_t k = 0; k < taps.count; ++k) {
        const int64_t row = mirrored(y - taps.row[k], height);
        const int64_t column = mirrored(x - taps.column[k], width);
        total += base[row * image.stride_row + column * image.stride_column] * taps.weight[k];
    }
    out.data[index * out.stride_batch + y * out.stride_row + x * out.stride_column +
             channel * out.stride_channel] = total;
}

rirf_status convolve(const rirf_image &image, const Taps *taps, const rirf_recipe *recipes,
                     uint32_t needed, const rirf_image &out, void *stream) {
    return launch(convolve_kernel, {3 * image.height * image.width, image.batch}, stream, image,
                  taps, recipes, needed, out);
}

rirf_status make_kernels(const rirf_recipe *recipes, uint32_t needed, int64_t count, float *psf,
                         Taps *taps, rirf_truth *truth, void *stream) {
    return launch(kernel_kernel, {count, 1}, stream, recipes, needed, count, psf, taps, truth);
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_cuda_shake_kernels(const rirf_recipe *recipes, int64_t count, float *psf,
                                    rirf_truth *truth, void *stream) {
    RIRF_TRY(check_count(count));
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    if (psf == nullptr) return fail(RIRF_NULL_POINTER, "psf: got NULL");
    return cuda::make_kernels(recipes, 0, count, psf, nullptr, truth, stream);
}

rirf_status rirf_cuda_shake(const rirf_image *image, const float *psf, const rirf_image *out,
                            void *workspace, size_t workspace_bytes, void *stream) {
    RIRF_TRY(check_image("image", image, false));
    RIRF_TRY(check_image("out", out, true));
    RIRF_TRY(check_like("out", out, "image", image));
    const Used used[] = {{"image", layout_of(*image), false}, {"out", layout_of(*out), true}};
    RIRF_TRY(check_apart(used, 2));
    if (psf == nullptr) return fail(RIRF_NULL_POINTER, "psf: got NULL");
    cuda::Workspace w;
    RIRF_TRY(cuda::divide_checked(workspace, workspace_bytes, image->batch, image->height,
                                  image->width, &w));
    RIRF_TRY(cuda::launch(cuda::taps_kernel, {image->batch, 1}, stream, psf, image->batch, w.taps));
    return cuda::convolve(*image, w.taps, nullptr, 0, *out, stream);
}

}  // extern "C"
