#include "fog/fog.cuh"

#include "common/calls.h"
#include "common/workspace.cuh"

namespace rirf {
namespace cuda {

RIRF_KERNEL fog_kernel(Image image, Map prior, const rirf_recipe *recipes, Image out,
                       Map transmission, double *means) {
    const int64_t index = image_item(), first = work_item() * QUAD;
    const int64_t pixels = image.view.height * image.view.width;
    const int64_t count = quad_count(first, pixels);
    float sum = 0.0f;
    if (count > 0) {
        const rirf_recipe &recipe = recipes[index];
        float t[4] = {}, value[12] = {};
        load(prior, index, first, count, t);
        sum = transmit(recipe, count, t);
        store(transmission, index, first, count, t);
        load(image, index, first, count, value);
        scatter_quad(recipe, t, value);
        store(out, index, first, count, value);
    }
    if (means != nullptr) add_block(sum, 1.0 / static_cast<double>(pixels), &means[index]);
}

RIRF_KERNEL fog_invert_kernel(Image image, Map transmission, const double *light, float floor,
                              Image out) {
    const int64_t index = image_item(), first = work_item() * QUAD;
    const int64_t count = quad_count(first, image.view.height * image.view.width);
    if (count == 0) return;
    float t[4] = {1.0f, 1.0f, 1.0f, 1.0f}, value[12] = {};
    load(transmission, index, first, count, t);
    load(image, index, first, count, value);
    RIRF_UNROLL
    for (int c = 0; c < 3; ++c) {
        const float colour = static_cast<float>(light[3 * index + c]);
        RIRF_UNROLL
        for (int k = 0; k < QUAD; ++k) {
            value[3 * k + c] = unscatter(value[3 * k + c], t[k], colour, floor);
        }
    }
    store(out, index, first, count, value);
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_cuda_fog(const rirf_image *image, const rirf_map *prior,
                          const rirf_recipe *recipes, const rirf_image *out,
                          const rirf_map *transmission, double *means, void *stream) {
    RIRF_TRY(check_fog(image, prior, out, transmission));
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    RIRF_TRY(cuda::check_batch(image->batch, image->height, image->width));
    if (means != nullptr) {
        RIRF_TRY(cuda::clear(means, static_cast<size_t>(image->batch) * sizeof(double), stream));
    }
    return cuda::launch(cuda::fog_kernel, cuda::quads(image->height * image->width, image->batch),
                        stream, cuda::image_of(*image), cuda::map_of(*prior), recipes,
                        cuda::image_of(*out),
                        cuda::map_of(transmission == nullptr ? rirf_map{} : *transmission), means);
}

rirf_status rirf_cuda_fog_invert(const rirf_image *image, const rirf_map *transmission,
                                 const double *light, double floor, const rirf_image *out,
                                 void *stream) {
    RIRF_TRY(check_fog_invert(image, transmission, light, floor, out));
    RIRF_TRY(cuda::check_batch(image->batch, image->height, image->width));
    return cuda::launch(cuda::fog_invert_kernel,
                        cuda::quads(image->height * image->width, image->batch), stream,
                        cuda::image_of(*image), cuda::map_of(*transmission), light,
                        static_cast<float>(floor), cuda::image_of(*out));
}

}  // extern "C"
