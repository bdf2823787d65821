#include "rain/rain.cuh"

#include "common/view.h"

namespace rirf {
namespace cuda {

// The streak of a recipe, its window cut to what the workspace holds.
RIRF_DEVICE Streak bounded_streak(const rirf_recipe &recipe) {
    Streak s = streak_of(recipe.slant_deg, recipe.length_px, recipe.width_px);
    const int32_t reach = RIRF_CUDA_STREAK_REACH;
    s.reach_y = s.reach_y < 0 ? 0 : (s.reach_y > reach ? reach : s.reach_y);
    s.reach_x = s.reach_x < 0 ? 0 : (s.reach_x > reach ? reach : s.reach_x);
    return s;
}

RIRF_KERNEL stamp_kernel(const rirf_recipe *recipes, uint32_t needed, float *stamps) {
    const int64_t index = image_item(), item = work_item();
    const rirf_recipe &recipe = recipes[index];
    if ((recipe.present & needed) != needed) return;
    const Streak s = bounded_streak(recipe);
    const int64_t columns = 2 * s.reach_x + 1;
    if (item >= columns * (2 * s.reach_y + 1)) return;
    const int32_t row = static_cast<int32_t>(item / columns) - s.reach_y;
    const int32_t column = static_cast<int32_t>(item % columns) - s.reach_x;
    stamps[index * STREAK_SIDE * STREAK_SIDE + item] = streak_at(s, row, column);
}

// One Philox block, four seeds, a thread. Sums are exact, so that their order does not matter.
RIRF_KERNEL seed_kernel(const rirf_recipe *recipes, uint32_t needed, const float *stamps,
                        int64_t height, int64_t width, float *masks) {
    const int64_t index = image_item(), block = work_item();
    const rirf_recipe &recipe = recipes[index];
    // The whole warp leaves, or none of it: all its threads have the same image.
    if ((recipe.present & needed) != needed) return;
    const Streak s = bounded_streak(recipe);
    const int64_t grid_columns = width + 2 * s.reach_x;
    const int64_t cells = grid_columns * (height + 2 * s.reach_y);
    const int64_t columns = 2 * s.reach_x + 1, window = columns * (2 * s.reach_y + 1);
    const float *stamp = stamps + index * STREAK_SIDE * STREAK_SIDE;
    float *mask = masks + index * height * width;
    const uint32_t threshold = seed_threshold(recipe.density);
    const Words words =
        philox({recipe.seed, STAGE_RAIN, STREAM_FIELD}, static_cast<uint64_t>(block));
    const uint32_t word[4] = {words.w0, words.w1, words.w2, words.w3};
    for (int k = 0; k < 4; ++k) {
        const int64_t cell = 4 * block + k;
        const bool hit = cell < cells && (word[k] >> 8) < threshold;
        share_hits(hit, cell, [&](int64_t seed, int helper, int helpers) {
            // The stamp's window lies two reaches up and left of the seed's place on its grid.
            const int64_t top = seed / grid_columns - 2 * s.reach_y;
            const int64_t left = seed % grid_columns - 2 * s.reach_x;
            for (int64_t i = helper; i < window; i += helpers) {
                const float value = stamp[i];
                const int64_t y = top + i / columns, x = left + i % columns;
                if (value != 0.0f && y >= 0 && y < height && x >= 0 && x < width) {
                    add_to(&mask[y * width + x], value);
                }
            }
        });
    }
}

RIRF_KERNEL rain_kernel(Image image, const float *masks, const rirf_recipe *recipes, Image out,
                        Map mask, double *coverage) {
    const int64_t index = image_item(), first = work_item() * QUAD;
    // Without an image, only the mask is wanted.
    const bool wet = image.view.data != nullptr;
    const int64_t height = wet ? image.view.height : mask.view.height;
    const int64_t width = wet ? image.view.width : mask.view.width;
    const int64_t pixels = height * width;
    const int64_t count = quad_count(first, pixels);
    double covered = 0.0;
    if (count > 0) {
        float m[4] = {};
        for (int64_t k = 0; k < count; ++k) m[k] = masks[index * pixels + first + k];
        covered = saturate_quad(count, m);
        store(mask, index, first, count, m);
        if (wet) {
            float value[12] = {};
            load(image, index, first, count, value);
            streak_quad(recipes[index], m, value);
            store(out, index, first, count, value);
        }
    }
    if (coverage != nullptr) add_up(covered / static_cast<double>(pixels), &coverage[index]);
}

rirf_status splat_rain(const rirf_recipe *recipes, uint32_t needed, int64_t batch, int64_t height,
                       int64_t width, float *stamp, float *mask, void *stream) {
    const auto pixels = static_cast<size_t>(batch * height * width);
    RIRF_TRY(clear(mask, pixels * sizeof(float), stream));
    RIRF_TRY(launch(stamp_kernel, {STREAK_SIDE * STREAK_SIDE, batch}, stream, recipes, needed,
                    stamp));
    // As many seeds as the widest streak may need; a recipe's own grid is smaller.
    const int64_t reach = RIRF_CUDA_STREAK_REACH;
    const int64_t cells = (height + 2 * reach) * (width + 2 * reach);
    return launch(seed_kernel, {(cells + 3) / 4, batch}, stream, recipes, needed,
                  static_cast<const float *>(stamp), height, width, mask);
}

static rirf_status run_rain(const rirf_image &image, const rirf_recipe *recipes,
                            const rirf_image &out, const rirf_map &mask, double *coverage,
                            void *base, size_t bytes, void *stream) {
    const bool wet = image.data != nullptr;
    const int64_t batch = wet ? image.batch : mask.batch;
    const int64_t height = wet ? image.height : mask.height;
    const int64_t width = wet ? image.width : mask.width;
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    Workspace w;
    RIRF_TRY(divide_checked(base, bytes, batch, height, width, &w));
    if (coverage != nullptr) {
        RIRF_TRY(clear(coverage, static_cast<size_t>(batch) * sizeof(double), stream));
    }
    RIRF_TRY(splat_rain(recipes, 0, batch, height, width, w.stamp, w.map, stream));
    return launch(rain_kernel, quads(height * width, batch), stream, image_of(image),
                  static_cast<const float *>(w.map), recipes, image_of(out), map_of(mask), coverage);
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_cuda_rain_mask(const rirf_recipe *recipes, const rirf_map *mask, double *coverage,
                                void *workspace, size_t workspace_bytes, void *stream) {
    RIRF_TRY(check_map("mask", mask, true));
    return cuda::run_rain(rirf_image{}, recipes, rirf_image{}, *mask, coverage, workspace,
                          workspace_bytes, stream);
}

rirf_status rirf_cuda_rain(const rirf_image *image, const rirf_recipe *recipes,
                           const rirf_image *out, const rirf_map *mask, double *coverage,
                           void *workspace, size_t workspace_bytes, void *stream) {
    RIRF_TRY(check_image("image", image, false));
    RIRF_TRY(check_image("out", out, true));
    RIRF_TRY(check_like("out", out, "image", image));
    RIRF_TRY(check_same_or_apart("out", out, "image", image));
    if (mask != nullptr) {
        RIRF_TRY(check_map("mask", mask, true));
        RIRF_TRY(check_like("mask", mask, "image", image));
    }
    return cuda::run_rain(*image, recipes, *out, mask == nullptr ? rirf_map{} : *mask, coverage,
                          workspace, workspace_bytes, stream);
}

}  // extern "C"
