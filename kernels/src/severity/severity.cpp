#include "severity/severity.h"

#include <atomic>

#include "common/rows.h"
#include "common/scratch.h"
#include "common/view.h"

namespace rirf {
namespace {

// Averages row(values, n) over each map.
template <typename Row>
rirf_status average(const rirf_map *map, double *out, int threads, Row row) {
    RIRF_TRY(check_map("map", map, false));
    if (out == nullptr) return fail(RIRF_NULL_POINTER, "out: got NULL");
    const int64_t height = map->height, width = map->width;
    std::atomic<bool> failed{false};
    for_images(thread_count(threads), map->batch, [&](int64_t index, int inner) {
        double *sums = scratch<double>(SLOT_SUMS, height);
        if (sums == nullptr) {
            failed = true;
            return;
        }
        for_rows(inner, height, [&](int64_t first, int64_t last) {
            float *buffer = scratch<float>(SLOT_ROW_MAP, width);
            if (buffer == nullptr) {
                failed = true;
                return;
            }
            for (int64_t y = first; y < last; ++y) {
                sums[y] = row(read_row(*map, index, y, buffer), width);
            }
        });
        double total = 0.0;
        for (int64_t y = 0; y < height && !failed; ++y) total += sums[y];
        out[index] = total / static_cast<double>(height * width);
    });
    return failed ? fail(RIRF_NO_MEMORY, "map: no memory for a row") : RIRF_OK;
}

}  // namespace
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_map_means(const rirf_map *map, double *means, int threads) {
    return average(map, means, threads,
                   [](const float *values, int64_t n) { return rows().sum(n, values); });
}

rirf_status rirf_map_coverage(const rirf_map *map, double threshold, double *coverage,
                              int threads) {
    return average(map, coverage, threads, [threshold](const float *values, int64_t n) {
        return static_cast<double>(
            rows().count_above(n, values, static_cast<float>(threshold)));
    });
}

rirf_status rirf_severities(const rirf_recipe *recipes, int64_t count, rirf_truth *truth) {
    RIRF_TRY(check_count(count));
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    if (truth == nullptr) return fail(RIRF_NULL_POINTER, "truth: got NULL");
    for (int64_t i = 0; i < count; ++i) score(recipes[i].present, &truth[i]);
    return RIRF_OK;
}

}  // extern "C"
