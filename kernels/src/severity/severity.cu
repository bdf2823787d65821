#include "severity/severity.h"

#include "common/launch.cuh"
#include "common/view.h"
#include "common/workspace.cuh"

namespace rirf {
namespace cuda {

// Mean of each map, or the share of it above a threshold.
RIRF_KERNEL average_kernel(Map map, bool count_above, float threshold, double *out) {
    const int64_t index = image_item(), first = work_item() * QUAD;
    const int64_t pixels = map.view.height * map.view.width;
    const int64_t count = quad_count(first, pixels);
    float value[4] = {}, sum = 0.0f;
    if (count > 0) load(map, index, first, count, value);
    RIRF_UNROLL
    for (int k = 0; k < QUAD; ++k) {
        const float part = count_above ? (value[k] > threshold ? 1.0f : 0.0f) : value[k];
        sum += k < count ? part : 0.0f;
    }
    add_block(sum, count_above ? 1.0 : 1.0 / static_cast<double>(pixels), &out[index]);
}

RIRF_KERNEL score_kernel(const rirf_recipe *recipes, int64_t count, rirf_truth *truth) {
    const int64_t index = work_item();
    if (index < count) score(recipes[index].present, &truth[index]);
}

static rirf_status average(const rirf_map *map, bool count_above, double threshold, double *out,
                           void *stream) {
    RIRF_TRY(check_map("map", map, false));
    if (out == nullptr) return fail(RIRF_NULL_POINTER, "out: got NULL");
    RIRF_TRY(check_batch(map->batch, map->height, map->width));
    RIRF_TRY(clear(out, static_cast<size_t>(map->batch) * sizeof(double), stream));
    const int64_t pixels = map->height * map->width;
    RIRF_TRY(launch(average_kernel, quads(pixels, map->batch), stream, map_of(*map), count_above,
                    static_cast<float>(threshold), out));
    return count_above ? divide_each(out, map->batch, static_cast<double>(pixels), stream) : RIRF_OK;
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_cuda_map_means(const rirf_map *map, double *means, void *stream) {
    return cuda::average(map, false, 0.0, means, stream);
}

rirf_status rirf_cuda_map_coverage(const rirf_map *map, double threshold, double *coverage,
                                   void *stream) {
    return cuda::average(map, true, threshold, coverage, stream);
}

rirf_status rirf_cuda_severities(const rirf_recipe *recipes, int64_t count, rirf_truth *truth,
                                 void *stream) {
    RIRF_TRY(check_count(count));
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    if (truth == nullptr) return fail(RIRF_NULL_POINTER, "truth: got NULL");
    return cuda::launch(cuda::score_kernel, {count, 1}, stream, recipes, count, truth);
}

}  // extern "C"
