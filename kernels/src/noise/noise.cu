#include "noise/noise.cuh"

#include "common/calls.h"
#include "common/workspace.cuh"

namespace rirf {
namespace cuda {

// Without `out`, only the variances are measured.
RIRF_KERNEL noise_kernel(Image image, const rirf_recipe *recipes, Image out, double *variances) {
    const int64_t index = image_item(), first = work_item() * QUAD;
    const int64_t pixels = image.view.height * image.view.width;
    const int64_t count = quad_count(first, pixels);
    float sum = 0.0f;
    if (count > 0) {
        const bool add = out.view.data != nullptr;
        float value[12] = {};
        load(image, index, first, count, value);
        sum = noise_quad(recipes[index], first, count, add, value);
        store(out, index, first, count, value);
    }
    if (variances != nullptr) {
        add_block(sum, 1.0 / (3.0 * static_cast<double>(pixels)), &variances[index]);
    }
}

static rirf_status run_noise(const rirf_image &image, const rirf_recipe *recipes,
                             const rirf_image &out, double *variances, void *stream) {
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    RIRF_TRY(check_batch(image.batch, image.height, image.width));
    if (variances != nullptr) {
        RIRF_TRY(clear(variances, static_cast<size_t>(image.batch) * sizeof(double), stream));
    }
    return launch(noise_kernel, quads(image.height * image.width, image.batch), stream,
                  image_of(image), recipes, image_of(out), variances);
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_cuda_noise(const rirf_image *image, const rirf_recipe *recipes,
                            const rirf_image *out, double *variances, void *stream) {
    RIRF_TRY(check_in_place(image, out));
    return cuda::run_noise(*image, recipes, *out, variances, stream);
}

rirf_status rirf_cuda_noise_variances(const rirf_image *image, const rirf_recipe *recipes,
                                      double *variances, void *stream) {
    RIRF_TRY(check_image("image", image, false));
    if (variances == nullptr) return fail(RIRF_NULL_POINTER, "variances: got NULL");
    return cuda::run_noise(*image, recipes, rirf_image{}, variances, stream);
}

}  // extern "C"
