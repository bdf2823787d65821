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

// A row with `radius` mirrored numbers on each side.
void mirror_row(int64_t width, int64_t radius, float *padded) {
    for (int64_t k = 1; k <= radius; ++k) {
        padded[radius - k] = padded[radius + mirrored(-k, width)];
        padded[radius + width - 1 + k] = padded[radius + mirrored(width - 1 + k, width)];
    }
}

}  // namespace

bool prior_into(uint64_t seed, int64_t height, int64_t width, float *out, int threads) {
    Geometry geometry;
    sample_geometry(seed, &geometry);
    const double sigma = blur_sigma(height);
    const int64_t radius = blur_radius(sigma), taps = 2 * radius + 1;
    // The cubic's basis: what each column of the grid contributes to each pixel of a row.
    float *weights = scratch<float>(SLOT_TAPS, taps + RELIEF_COLUMNS * width);
    float *across = scratch<float>(SLOT_BLUR, height * width);
    if (weights == nullptr || across == nullptr) return false;
    gaussian(sigma, radius, weights);
    float *basis = weights + taps;
    for (int64_t i = 0; i < RELIEF_COLUMNS * width; ++i) basis[i] = 0.0f;
    for (int64_t x = 0; x < width; ++x) {
        const Cubic cubic = cubic_at(x, width, RELIEF_COLUMNS);
        for (int k = 0; k < 4; ++k) basis[cubic.cell[k] * width + x] += cubic.weight[k];
    }
    const float *basis_rows[RELIEF_COLUMNS];
    for (int c = 0; c < RELIEF_COLUMNS; ++c) basis_rows[c] = basis + c * width;

    std::atomic<bool> failed{false};
    for_rows(threads, height, [&](int64_t first, int64_t last) {
        float *row = scratch<float>(SLOT_ROW_MAP, width + 2 * radius);
        const float **source = scratch<const float *>(SLOT_ROW_TAPS, taps);
        if (row == nullptr || source == nullptr) {
            failed = true;
            return;
        }
        for (int64_t k = 0; k < taps; ++k) source[k] = row + k;
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
            float *inside = row + radius;
            rows().taps(width, RELIEF_COLUMNS, basis_rows, column, inside);
            for (int64_t x = 0; x < width; ++x) {
                inside[x] = sharp_depth(plane, share, geometry.relief, inside[x]);
            }
            mirror_row(width, radius, row);
            rows().taps(width, taps, source, weights, across + y * width);
        }
    });
    for_rows(threads, height, [&](int64_t first, int64_t last) {
        const float **source = scratch<const float *>(SLOT_ROW_TAPS, taps);
        if (source == nullptr) {
            failed = true;
            return;
        }
        for (int64_t y = first; y < last; ++y) {
            for (int64_t k = 0; k < taps; ++k) {
                source[k] = across + mirrored(y + k - radius, height) * width;
            }
            float *to = out + y * width;
            rows().taps(width, taps, source, weights, to);
            for (int64_t x = 0; x < width; ++x) to[x] = prior_of(to[x]);
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
