#include "fog/fog.h"

#include <atomic>

#include "common/calls.h"
#include "common/rows.h"
#include "common/scratch.h"

using namespace rirf;

extern "C" {

rirf_status rirf_fog(const rirf_image *image, const rirf_map *prior, const rirf_recipe *recipes,
                     const rirf_image *out, const rirf_map *transmission, double *means,
                     int threads) {
    RIRF_TRY(check_fog(image, prior, out, transmission));
    RIRF_TRY(check_recipes(recipes, image->batch, RIRF_FOG));
    const int64_t height = image->height, width = image->width;
    std::atomic<bool> failed{false};
    for_images(thread_count(threads), image->batch, [&](int64_t index, int inner) {
        const rirf_recipe &recipe = recipes[index];
        float light[3];
        for (int c = 0; c < 3; ++c) light[c] = static_cast<float>(recipe.light[c]);
        const float beta = static_cast<float>(recipe.beta);
        double *sums = scratch<double>(SLOT_SUMS, height);
        if (sums == nullptr) {
            failed = true;
            return;
        }
        for_rows(inner, height, [&](int64_t first, int64_t last) {
            float *map = scratch<float>(SLOT_ROW_MAP, 2 * width);
            float *in = scratch<float>(SLOT_ROW_IN, 3 * width);
            float *to = scratch<float>(SLOT_ROW_OUT, 3 * width);
            if (map == nullptr || in == nullptr || to == nullptr) {
                failed = true;
                return;
            }
            for (int64_t y = first; y < last; ++y) {
                const float *near = read_row(*prior, index, y, map + width);
                float *t = transmission == nullptr ? map : target_row(*transmission, index, y, map);
                sums[y] = rows().transmission(width, near, beta, t);
                if (transmission != nullptr) write_row(*transmission, index, y, t);
                float *target = target_row(*out, index, y, to);
                rows().scatter(width, read_row(*image, index, y, in), t, light, target);
                write_row(*out, index, y, target);
            }
        });
        if (means != nullptr) {
            double total = 0.0;
            for (int64_t y = 0; y < height; ++y) total += sums[y];
            means[index] = total / static_cast<double>(height * width);
        }
    });
    return failed ? fail(RIRF_NO_MEMORY, "fog: no memory for a row") : RIRF_OK;
}

rirf_status rirf_fog_invert(const rirf_image *image, const rirf_map *transmission,
                            const double *light, double floor, const rirf_image *out, int threads) {
    RIRF_TRY(check_fog_invert(image, transmission, light, floor, out));
    const int64_t height = image->height, width = image->width;
    std::atomic<bool> failed{false};
    for_images(thread_count(threads), image->batch, [&](int64_t index, int inner) {
        float colour[3];
        for (int c = 0; c < 3; ++c) colour[c] = static_cast<float>(light[3 * index + c]);
        for_rows(inner, height, [&](int64_t first, int64_t last) {
            float *map = scratch<float>(SLOT_ROW_MAP, width);
            float *in = scratch<float>(SLOT_ROW_IN, 3 * width);
            float *to = scratch<float>(SLOT_ROW_OUT, 3 * width);
            if (map == nullptr || in == nullptr || to == nullptr) {
                failed = true;
                return;
            }
            for (int64_t y = first; y < last; ++y) {
                float *target = target_row(*out, index, y, to);
                rows().unscatter(width, read_row(*image, index, y, in),
                                 read_row(*transmission, index, y, map), colour,
                                 static_cast<float>(floor), target);
                write_row(*out, index, y, target);
            }
        });
    });
    return failed ? fail(RIRF_NO_MEMORY, "fog_invert: no memory for a row") : RIRF_OK;
}

}  // extern "C"
