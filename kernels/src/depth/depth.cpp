#include "depth/depth.h"

#include <atomic>

#include "common/rows.h"
#include "common/scratch.h"
#include "depth/depth_rows.h"
#include "shake/shake.h"

namespace rirf {
namespace {

// Gaussian weights of a blur, sum 1.
void gaussian(double sigma, int64_t radius, float *weight) {
    double total = 0.0;
    for (int64_t k = -radius; k <= radius; ++k) {
        total += std::exp(-0.5 * static_cast<double>(k * k) / (sigma * sigma));
    }
    for (int64_t k = -radius; k <= radius; ++k) {
        const double value = std::exp(-0.5 * static_cast<double>(k * k) / (sigma * sigma));
        weight[k + radius] = static_cast<float>(value / total);
    }
}

}  // namespace

bool prior_into(uint64_t seed, int64_t height, int64_t width, float *out, int threads) {
    Geometry geometry;
    sample_geometry(seed, &geometry);
    const double sigma = blur_sigma(height);
    const int64_t spacing = blur_spacing(sigma);
    const Coarse across(width, blur_radius(sigma), spacing);
    const Coarse down(height, blur_radius(sigma), spacing);
    // A row as `spacing` interleaved phases: the blur at a coarse point then reads runs of numbers.
    const int64_t phase_size = (across.reach() + spacing - 1) / spacing;

    float *weights = scratch<float>(SLOT_TAPS, across.taps + RELIEF_COLUMNS * width);
    float *blurred = scratch<float>(SLOT_BLUR, (height + down.points) * across.points);
    int64_t *mirror = scratch<int64_t>(SLOT_MIRROR, across.reach() + down.reach());
    if (weights == nullptr || blurred == nullptr || mirror == nullptr) return false;
    gaussian(sigma, across.radius, weights);
    // The cubic's basis: what each column of the grid contributes to each pixel of a row.
    float *basis = weights + across.taps;
    for (int64_t i = 0; i < RELIEF_COLUMNS * width; ++i) basis[i] = 0.0f;
    for (int64_t x = 0; x < width; ++x) {
        const Cubic cubic = cubic_at(x, width, RELIEF_COLUMNS);
        for (int k = 0; k < 4; ++k) basis[cubic.cell[k] * width + x] += cubic.weight[k];
    }
    const float *basis_rows[RELIEF_COLUMNS];
    for (int c = 0; c < RELIEF_COLUMNS; ++c) basis_rows[c] = basis + c * width;
    for (int64_t i = 0; i < across.reach(); ++i) mirror[i] = mirrored(i - across.margin(), width);
    int64_t *mirror_down = mirror + across.reach();
    for (int64_t i = 0; i < down.reach(); ++i) {
        mirror_down[i] = mirrored(i - down.margin(), height);
    }

    std::atomic<bool> failed{false};
    // Every row's sharp depth, blurred across.
    for_rows(threads, height, [&](int64_t first, int64_t last) {
        float *row = scratch<float>(SLOT_ROW_MAP, width + spacing * phase_size);
        const float **source = scratch<const float *>(SLOT_ROW_TAPS, across.taps);
        if (row == nullptr || source == nullptr) {
            failed = true;
            return;
        }
        float *phases = row + width;
        for (int64_t k = 0; k < across.taps; ++k) {
            source[k] = phases + k % spacing * phase_size + k / spacing;
        }
        for (int64_t y = first; y < last; ++y) {
            const Cubic cubic = cubic_at(y, height, RELIEF_ROWS);
            float column[RELIEF_COLUMNS] = {};
            for (int k = 0; k < 4; ++k) {
                for (int c = 0; c < RELIEF_COLUMNS; ++c) {
                    column[c] +=
                        cubic.weight[k] * geometry.field[cubic.cell[k] * RELIEF_COLUMNS + c];
                }
            }
            float plane, share;
            ground_at(geometry, y, height, &plane, &share);
            rows().taps(width, RELIEF_COLUMNS, basis_rows, column, row);
            for (int64_t x = 0; x < width; ++x) {
                row[x] = sharp_depth(plane, share, geometry.relief, row[x]);
            }
            for (int64_t phase = 0; phase < spacing; ++phase) {
                float *to = phases + phase * phase_size;
                for (int64_t i = phase; i < across.reach(); i += spacing) *to++ = row[mirror[i]];
            }
            rows().taps(across.points, across.taps, source, weights, blurred + y * across.points);
        }
    });
    // The coarse rows, blurred downwards.
    float *coarse = blurred + height * across.points;
    for_rows(threads, down.points, [&](int64_t first, int64_t last) {
        const float **source = scratch<const float *>(SLOT_ROW_TAPS, down.taps);
        if (source == nullptr) {
            failed = true;
            return;
        }
        for (int64_t i = first; i < last; ++i) {
            for (int64_t k = 0; k < down.taps; ++k) {
                source[k] = blurred + mirror_down[i * spacing + k] * across.points;
            }
            rows().taps(across.points, down.taps, source, weights, coarse + i * across.points);
        }
    });
    // Back to every pixel.
    for_rows(threads, height, [&](int64_t first, int64_t last) {
        float *row = scratch<float>(SLOT_ROW_MAP, 2 * across.points);
        if (row == nullptr) {
            failed = true;
            return;
        }
        float *phase_row = row + across.points;
        const float *source[POINTS];
        float weight[POINTS];
        for (int64_t y = first; y < last; ++y) {
            lagrange(static_cast<double>(y % spacing) / static_cast<double>(spacing), weight);
            for (int64_t k = 0; k < POINTS; ++k) {
                source[k] = coarse + (y / spacing + k) * across.points;
            }
            rows().taps(across.points, POINTS, source, weight, row);
            for (int64_t k = 0; k < POINTS; ++k) source[k] = row + k;
            float *to = out + y * width;
            for (int64_t phase = 0; phase < spacing; ++phase) {
                lagrange(static_cast<double>(phase) / static_cast<double>(spacing), weight);
                rows().taps(across.points - POINTS + 1, POINTS, source, weight, phase_row);
                const float *from = phase_row;
                for (int64_t x = phase; x < width; x += spacing) to[x] = prior_of(*from++);
            }
        }
    });
    return !failed;
}

}  // namespace rirf

using namespace rirf;

extern "C" rirf_status rirf_prior(const rirf_recipe *recipes, const rirf_map *prior, int threads) {
    RIRF_TRY(check_map("prior", prior, true));
    RIRF_TRY(check_recipes(recipes, prior->batch, 0));
    std::atomic<bool> failed{false};
    for_images(thread_count(threads), prior->batch, [&](int64_t index, int inner) {
        const int64_t height = prior->height, width = prior->width;
        const bool direct = prior->stride_column == 1 && prior->stride_row == width;
        float *map = direct ? row_start(*prior, index, 0)
                            : scratch<float>(SLOT_PRIOR, height * width);
        if (map == nullptr || !prior_into(recipes[index].seed, height, width, map, inner)) {
            failed = true;
            return;
        }
        for (int64_t y = 0; y < height && !direct; ++y) {
            write_row(*prior, index, y, map + y * width);
        }
    });
    return failed ? fail(RIRF_NO_MEMORY, "prior: no memory for the blur") : RIRF_OK;
}
