#include "rain/rain.cuh"

#include "common/calls.h"

namespace rirf {
namespace cuda {

// Philox blocks that a thread looks at for seeds.
constexpr int64_t BLOCKS_A_THREAD = 4;

// A block an image: the pixels of its streak. Their order does not matter.
RIRF_KERNEL cells_kernel(const rirf_recipe *recipes, uint32_t needed, Shower *showers,
                         Cell *all_cells) {
    RIRF_SHARED unsigned count;
    const auto index = static_cast<int64_t>(blockIdx.x);
    const rirf_recipe &recipe = recipes[index];
    const int32_t thread = thread_item();
    // All of it false for NaN, which has no place among whole numbers.
    const bool sound = (recipe.present & needed) == needed && fabs(recipe.slant_deg) <= 90.0 &&
                       recipe.length_px > 0.0 && recipe.length_px <= 1000.0 &&
                       recipe.width_px > 0.0 && recipe.width_px <= 100.0;
    if (thread == 0) {
        count = 0;
        showers[index].cells = 0;
    }
    if (!sound) return;
    const Streak s = streak_of(recipe.slant_deg, recipe.length_px, recipe.width_px);
    if (s.reach_y > RIRF_CUDA_STREAK_REACH || s.reach_x > RIRF_CUDA_STREAK_REACH) return;
    const int32_t columns = 2 * s.reach_x + 1, window = columns * (2 * s.reach_y + 1);
    Cell *cells = all_cells + index * STREAK_CELLS;
    barrier();
    for (int32_t i = thread; i < window; i += block_threads()) {
        const int32_t row = i / columns - s.reach_y, column = i % columns - s.reach_x;
        const float value = streak_at(s, row, column);
        if (value == 0.0f) continue;
        const unsigned at = add_to(&count, 1u);
        cells[at] = {static_cast<int16_t>(row), static_cast<int16_t>(column),
                     static_cast<uint32_t>(value * 65536.0f)};
    }
    barrier();
    if (thread != 0) return;
    showers[index] = {count, seed_threshold(recipe.density), s.reach_y, s.reach_x};
}

// A Philox block, four seeds, at a time; a warp adds the streak of each hit. Whole numbers: their sum
// does not depend on the order, and a pixel gets STREAK_CELLS times 2^16 at most, which fits.
RIRF_KERNEL seed_kernel(const rirf_recipe *recipes, const Shower *showers, const Cell *all_cells,
                        int32_t height, int32_t width, int64_t pitch, uint32_t *all_sums) {
    const int64_t index = image_item();
    const Shower shower = showers[index];
    if (shower.cells == 0) return;
    const Cell *cells = all_cells + index * STREAK_CELLS;
    uint32_t *sums = all_sums + index * pitch;
    const int64_t columns = width + 2 * int64_t{shower.reach_x};
    const int64_t seeds = columns * (height + 2 * int64_t{shower.reach_y});
    const Address address = {recipes[index].seed, STAGE_RAIN, STREAM_FIELD};
    const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
    // All threads of a warp go round equally often, since they meet at every hit.
    for (int64_t start = static_cast<int64_t>(blockIdx.x) * blockDim.x; 4 * start < seeds;
         start += stride) {
        const int64_t block = start + thread_item();
        const Words words = philox(address, static_cast<uint64_t>(block));
        const uint32_t word[4] = {words.w0, words.w1, words.w2, words.w3};
        RIRF_UNROLL
        for (int k = 0; k < 4; ++k) {
            const bool hit = 4 * block + k < seeds && (word[k] >> 8) < shower.threshold;
            share_hits(hit, 4 * block + k, [&](int64_t seed, int helper, int helpers) {
                // Seeds lie on a grid that begins a reach above and left of the frame.
                const auto y = static_cast<int32_t>(seed / columns) - shower.reach_y;
                const auto x = static_cast<int32_t>(seed % columns) - shower.reach_x;
                for (uint32_t i = static_cast<uint32_t>(helper); i < shower.cells;
                     i += static_cast<uint32_t>(helpers)) {
                    const Cell cell = cells[i];
                    const int32_t row = y + cell.row, column = x + cell.column;
                    if (row < 0 || row >= height || column < 0 || column >= width) continue;
                    add_to(&sums[static_cast<int64_t>(row) * width + column], cell.value);
                }
            });
        }
    }
}

RIRF_KERNEL rain_kernel(Image image, const uint32_t *streaks, int64_t pitch,
                        const rirf_recipe *recipes, Image out, Map mask, double *coverage) {
    const int64_t index = image_item(), first = work_item() * QUAD;
    // Without an image, only the mask is wanted.
    const bool wet = image.view.data != nullptr;
    const int64_t height = wet ? image.view.height : mask.view.height;
    const int64_t width = wet ? image.view.width : mask.view.width;
    const int64_t pixels = height * width;
    const int64_t count = quad_count(first, pixels);
    float covered = 0.0f;
    if (count > 0) {
        float m[4];
        covered = mask_quad(streaks + index * pitch + first, count, m);
        store(mask, index, first, count, m);
        if (wet) {
            float value[12] = {};
            load(image, index, first, count, value);
            streak_quad(recipes[index], m, value);
            store(out, index, first, count, value);
        }
    }
    if (coverage != nullptr) add_block(covered, 1.0, &coverage[index]);
}

rirf_status splat_rain(const rirf_recipe *recipes, uint32_t needed, int64_t batch, int64_t height,
                       int64_t width, const Workspace &workspace, void *stream) {
    const auto numbers = static_cast<size_t>(batch * workspace.pitch);
    RIRF_TRY(clear(workspace.streaks, numbers * sizeof(uint32_t), stream));
    RIRF_TRY(launch_blocks(cells_kernel, {batch, 1}, THREADS, stream, recipes, needed,
                           workspace.shower, workspace.cells));
    // For a grid of seeds of about the usual size; threads go round again for a larger one.
    const int64_t seeds = (height + 64) * (width + 64);
    const int64_t threads = (seeds + 4 * BLOCKS_A_THREAD - 1) / (4 * BLOCKS_A_THREAD);
    return launch(seed_kernel, {threads, batch}, stream, recipes, workspace.shower, workspace.cells,
                  static_cast<int32_t>(height), static_cast<int32_t>(width), workspace.pitch,
                  workspace.streaks);
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
    RIRF_TRY(splat_rain(recipes, 0, batch, height, width, w, stream));
    RIRF_TRY(launch(rain_kernel, quads(height * width, batch), stream, image_of(image), w.streaks,
                  w.pitch, recipes, image_of(out), map_of(mask), coverage));
    if (coverage == nullptr) return RIRF_OK;
    return divide_each(coverage, batch, static_cast<double>(height * width), stream);
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
    RIRF_TRY(check_in_place(image, out, "mask", mask, true));
    return cuda::run_rain(*image, recipes, *out, mask == nullptr ? rirf_map{} : *mask, coverage,
                          workspace, workspace_bytes, stream);
}

}  // extern "C"
