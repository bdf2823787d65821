#include "rain/rain.h"

#include <atomic>

#include "common/rows.h"
#include "common/calls.h"
#include "rain/rain_rows.h"

namespace rirf {

bool Shower::prepare(uint64_t seed, double density, const Streak &streak, int64_t frame_height,
                     int64_t frame_width, int threads) {
    height = frame_height;
    width = frame_width;
    reach_y = streak.reach_y;
    reach_x = streak.reach_x;
    grid_columns = width + 2 * reach_x;
    const int64_t stamp_rows = 2 * reach_y + 1, stamp_columns = 2 * reach_x + 1;
    groups = (grid_columns * (height + 2 * reach_y) + 63) / 64;
    bits = scratch<uint64_t>(SLOT_HITS, groups);
    stamp = static_cast<float *>(scratch_bytes(
        SLOT_STAMP, static_cast<size_t>(stamp_rows) *
                        (static_cast<size_t>(stamp_columns) * sizeof(float) + 2 * sizeof(int32_t))));
    if (bits == nullptr || stamp == nullptr) return false;
    extent = reinterpret_cast<int32_t *>(stamp + stamp_rows * stamp_columns);
    for (int64_t row = 0; row < stamp_rows; ++row) {
        int32_t first = static_cast<int32_t>(stamp_columns), last = 0;
        for (int64_t column = 0; column < stamp_columns; ++column) {
            const float value = streak_at(streak, static_cast<int32_t>(row - reach_y),
                                          static_cast<int32_t>(column - reach_x));
            stamp[row * stamp_columns + column] = value;
            if (value != 0.0f) {
                if (last == 0) first = static_cast<int32_t>(column);
                last = static_cast<int32_t>(column) + 1;
            }
        }
        extent[2 * row] = first;
        extent[2 * row + 1] = last;
    }
    const Address address = {seed, STAGE_RAIN, STREAM_FIELD};
    const uint32_t threshold = seed_threshold(density);
    constexpr int64_t CHUNK = 256;
    parallel(threads, (groups + CHUNK - 1) / CHUNK, [&](int64_t chunk) {
        const int64_t first = chunk * CHUNK;
        const int64_t count = groups - first < CHUNK ? groups - first : CHUNK;
        rows().hits(address, static_cast<uint64_t>(first), count, threshold, bits + first);
    });
    return true;
}

void Shower::row(int64_t y, float *mask) const {
    for (int64_t x = 0; x < width; ++x) mask[x] = 0.0f;
    const int64_t stamp_columns = 2 * reach_x + 1;
    // A seed in grid row s stands reach_y rows above its place in the frame: its stamp's row
    // y - s + 2 reach_y falls on y.
    for (int64_t s = y; s <= y + 2 * reach_y; ++s) {
        const int64_t stamp_row = y - s + 2 * reach_y;
        const int64_t first = extent[2 * stamp_row], last = extent[2 * stamp_row + 1];
        if (first >= last) continue;
        const float *value = stamp + stamp_row * stamp_columns;
        const int64_t begin = s * grid_columns, end = begin + grid_columns;
        for (int64_t group = begin / 64; group * 64 < end; ++group) {
            uint64_t word = bits[group];
            if (group * 64 < begin) word &= ~uint64_t{0} << (begin - group * 64);
            if (end - group * 64 < 64) word &= (uint64_t{1} << (end - group * 64)) - 1;
            while (word != 0) {
                const int64_t column = group * 64 + __builtin_ctzll(word) - begin;
                word &= word - 1;
                // Column c of the stamp falls on pixel column - 2 reach_x + c.
                const int64_t shift = column - 2 * reach_x;
                const int64_t from = first + shift < 0 ? -shift : first;
                const int64_t to = last + shift > width ? width - shift : last;
                for (int64_t c = from; c < to; ++c) mask[shift + c] += value[c];
            }
        }
    }
}

namespace {

// The mask of every image, row by row: each(index, y, mask row, scratch rows of the thread).
template <typename Each>
rirf_status shower_rows(const rirf_recipe *recipes, int64_t batch, int64_t height, int64_t width,
                        double *coverage, int threads, Each each) {
    std::atomic<bool> failed{false};
    for_images(thread_count(threads), batch, [&](int64_t index, int inner) {
        const rirf_recipe &recipe = recipes[index];
        Shower shower;
        const Streak streak = streak_of(recipe.slant_deg, recipe.length_px, recipe.width_px);
        int64_t *covered = scratch<int64_t>(SLOT_SUMS, height);
        if (covered == nullptr ||
            !shower.prepare(recipe.seed, recipe.density, streak, height, width, inner)) {
            failed = true;
            return;
        }
        for_rows(inner, height, [&](int64_t first, int64_t last) {
            float *mask = scratch<float>(SLOT_ROW_MAP, width);
            float *in = scratch<float>(SLOT_ROW_IN, 3 * width);
            float *to = scratch<float>(SLOT_ROW_OUT, 3 * width);
            if (mask == nullptr || in == nullptr || to == nullptr) {
                failed = true;
                return;
            }
            for (int64_t y = first; y < last; ++y) {
                shower.row(y, mask);
                covered[y] = rows().saturate(width, mask, COVERAGE_THRESHOLD);
                each(index, y, mask, in, to);
            }
        });
        if (coverage != nullptr) {
            int64_t total = 0;
            for (int64_t y = 0; y < height; ++y) total += covered[y];
            coverage[index] = static_cast<double>(total) / static_cast<double>(height * width);
        }
    });
    return failed ? fail(RIRF_NO_MEMORY, "rain: no memory for the seeds") : RIRF_OK;
}

}  // namespace
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_rain_mask(const rirf_recipe *recipes, const rirf_map *mask, double *coverage,
                           int threads) {
    RIRF_TRY(check_map("mask", mask, true));
    RIRF_TRY(check_recipes(recipes, mask->batch, RIRF_RAIN));
    return shower_rows(recipes, mask->batch, mask->height, mask->width, coverage, threads,
                       [&](int64_t index, int64_t y, const float *row, float *, float *) {
                           write_row(*mask, index, y, row);
                       });
}

rirf_status rirf_rain(const rirf_image *image, const rirf_recipe *recipes, const rirf_image *out,
                      const rirf_map *mask, double *coverage, int threads) {
    RIRF_TRY(check_in_place(image, out, "mask", mask, true));
    RIRF_TRY(check_recipes(recipes, image->batch, RIRF_RAIN));
    return shower_rows(
        recipes, image->batch, image->height, image->width, coverage, threads,
        [&](int64_t index, int64_t y, const float *row, float *in, float *to) {
            if (mask != nullptr) write_row(*mask, index, y, row);
            float colour[3];
            for (int c = 0; c < 3; ++c) colour[c] = static_cast<float>(recipes[index].light[c]);
            float *target = target_row(*out, index, y, to);
            rows().streaks(image->width, read_row(*image, index, y, in), row,
                           static_cast<float>(recipes[index].opacity), colour, target);
            write_row(*out, index, y, target);
        });
}

}  // extern "C"
