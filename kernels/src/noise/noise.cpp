#include "noise/noise.h"

#include <atomic>

#include "common/calls.h"
#include "noise/noise_rows.h"

namespace rirf {
namespace {

// Runs row(index, y, buffers) over a batch and averages what it returns over each image.
template <typename Row>
rirf_status mean_over_rows(const rirf_image &image, double *means, int threads, Row row) {
    const int64_t height = image.height, width = image.width;
    std::atomic<bool> failed{false};
    for_images(thread_count(threads), image.batch, [&](int64_t index, int inner) {
        double *sums = scratch<double>(SLOT_SUMS, height);
        if (sums == nullptr) {
            failed = true;
            return;
        }
        for_rows(inner, height, [&](int64_t first, int64_t last) {
            float *field = scratch<float>(SLOT_ROW_FIELD, field_room(width));
            float *in = scratch<float>(SLOT_ROW_IN, 3 * width);
            float *to = scratch<float>(SLOT_ROW_OUT, 3 * width);
            if (field == nullptr || in == nullptr || to == nullptr) {
                failed = true;
                return;
            }
            for (int64_t y = first; y < last; ++y) sums[y] = row(index, y, field, in, to);
        });
        if (means != nullptr) {
            double total = 0.0;
            for (int64_t y = 0; y < height; ++y) total += sums[y];
            means[index] = total / static_cast<double>(3 * height * width);
        }
    });
    return failed ? fail(RIRF_NO_MEMORY, "noise: no memory for a row") : RIRF_OK;
}

}  // namespace
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_noise(const rirf_image *image, const rirf_recipe *recipes, const rirf_image *out,
                       double *variances, int threads) {
    RIRF_TRY(check_in_place(image, out));
    RIRF_TRY(check_recipes(recipes, image->batch, RIRF_NOISE));
    return mean_over_rows(
        *image, variances, threads,
        [&](int64_t index, int64_t y, float *buffer, float *in, float *to) {
            const rirf_recipe &recipe = recipes[index];
            const float *field = field_row(recipe.seed, y, image->width, buffer);
            float *target = target_row(*out, index, y, to);
            const double sum = rows().noise(
                3 * image->width, read_row(*image, index, y, in), field,
                static_cast<float>(recipe.gain), static_cast<float>(recipe.offset / 255.0), target);
            write_row(*out, index, y, target);
            return sum;
        });
}

rirf_status rirf_noise_variances(const rirf_image *image, const rirf_recipe *recipes,
                                 double *variances, int threads) {
    RIRF_TRY(check_image("image", image, false));
    RIRF_TRY(check_recipes(recipes, image->batch, RIRF_NOISE));
    if (variances == nullptr) return fail(RIRF_NULL_POINTER, "variances: got NULL");
    return mean_over_rows(*image, variances, threads,
                          [&](int64_t index, int64_t y, float *, float *in, float *) {
                              const rirf_recipe &recipe = recipes[index];
                              return rows().variance(3 * image->width,
                                                     read_row(*image, index, y, in),
                                                     static_cast<float>(recipe.gain),
                                                     static_cast<float>(recipe.offset / 255.0));
                          });
}

}  // extern "C"
