#include "frame/frame.h"

#include <atomic>

#include "common/rows.h"
#include "common/scratch.h"
#include "common/view.h"
#include "frame/checks.h"
#include "shake/shake.h"

namespace rirf {
namespace {

bool interleaved(const rirf_frame &frame) {
    return frame.stride_channel == 1 && (frame.stride_column == 3 || frame.width == 1);
}

uint8_t *pixel(const rirf_frame &frame, int64_t y, int64_t x) {
    return frame.data + y * frame.stride_row + x * frame.stride_column;
}

// Pixels [x, x + n) of a row, interleaved: where they lie if they already are, else in `buffer`.
const uint8_t *read_pixels(const rirf_frame &frame, int64_t y, int64_t x, int64_t n,
                           uint8_t *buffer) {
    const uint8_t *from = pixel(frame, y, x);
    if (interleaved(frame)) return from;
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t c = 0; c < 3; ++c) {
            buffer[3 * i + c] = from[i * frame.stride_column + c * frame.stride_channel];
        }
    }
    return buffer;
}

template <typename Number>
Number *plane_row(const rirf_planes &planes, int64_t plane, int64_t y) {
    return static_cast<Number *>(planes.data) + plane * planes.stride_plane +
           y * planes.stride_row;
}

// The first n numbers of a row of each plane: in place if they lie side by side, else in `buffer`.
template <typename Number>
void read_planes(const rirf_planes &planes, int64_t y, int64_t n, Number *buffer,
                 const Number **row) {
    for (int64_t c = 0; c < 3; ++c) {
        const Number *from = plane_row<Number>(planes, c, y);
        row[c] = from;
        if (planes.stride_column == 1) continue;
        for (int64_t x = 0; x < n; ++x) buffer[c * n + x] = from[x * planes.stride_column];
        row[c] = buffer + c * n;
    }
}

void convert(int64_t n, const uint8_t *bgr, float *const *rgb) {
    rows().levels_to_floats(n, bgr, rgb);
}
void convert(int64_t n, const uint8_t *bgr, uint16_t *const *rgb) {
    rows().levels_to_halves(n, bgr, rgb);
}
void convert(int64_t n, const float *const *rgb, uint8_t *bgr) {
    rows().floats_to_levels(n, rgb, bgr);
}
void convert(int64_t n, const uint16_t *const *rgb, uint8_t *bgr) {
    rows().halves_to_levels(n, rgb, bgr);
}
void blend(int64_t n, const float *values, float row, const float *columns, float *sums) {
    rows().blend_floats(n, values, row, columns, sums);
}
void blend(int64_t n, const uint16_t *values, float row, const float *columns, float *sums) {
    rows().blend_halves(n, values, row, columns, sums);
}

template <typename Number>
rirf_status to_planes(const rirf_frame &frame, const rirf_planes &planes, int threads) {
    const int64_t width = planes.width;
    std::atomic<bool> failed{false};
    for_rows(thread_count(threads), planes.height, [&](int64_t first, int64_t last) {
        uint8_t *in = scratch<uint8_t>(SLOT_ROW_IN, 3 * frame.width);
        Number *buffer = scratch<Number>(SLOT_ROW_OUT, 3 * width);
        if (in == nullptr || buffer == nullptr) {
            failed = true;
            return;
        }
        for (int64_t y = first; y < last; ++y) {
            Number *row[3];
            for (int64_t c = 0; c < 3; ++c) {
                row[c] = planes.stride_column == 1 ? plane_row<Number>(planes, c, y)
                                                   : buffer + c * width;
            }
            const int64_t from = mirrored(y, frame.height);
            convert(frame.width, read_pixels(frame, from, 0, frame.width, in), row);
            for (int64_t c = 0; c < 3; ++c) {
                for (int64_t x = frame.width; x < width; ++x) {
                    row[c][x] = row[c][mirrored(x, frame.width)];
                }
                if (planes.stride_column == 1) continue;
                Number *to = plane_row<Number>(planes, c, y);
                for (int64_t x = 0; x < width; ++x) to[x * planes.stride_column] = row[c][x];
            }
        }
    });
    return failed ? fail(RIRF_NO_MEMORY, "frame_to_planes: no memory for a row") : RIRF_OK;
}

template <typename Number>
rirf_status to_frame(const rirf_planes &planes, const rirf_frame &frame, int threads) {
    const int64_t width = frame.width;
    std::atomic<bool> failed{false};
    for_rows(thread_count(threads), frame.height, [&](int64_t first, int64_t last) {
        Number *buffer = scratch<Number>(SLOT_ROW_IN, 3 * width);
        uint8_t *out = scratch<uint8_t>(SLOT_ROW_OUT, 3 * width);
        if (buffer == nullptr || out == nullptr) {
            failed = true;
            return;
        }
        for (int64_t y = first; y < last; ++y) {
            const Number *row[3];
            read_planes(planes, y, width, buffer, row);
            uint8_t *to = pixel(frame, y, 0);
            if (interleaved(frame)) {
                convert(width, row, to);
                continue;
            }
            convert(width, row, out);
            for (int64_t x = 0; x < width; ++x) {
                for (int64_t c = 0; c < 3; ++c) {
                    to[x * frame.stride_column + c * frame.stride_channel] = out[3 * x + c];
                }
            }
        }
    });
    return failed ? fail(RIRF_NO_MEMORY, "planes_to_frame: no memory for a row") : RIRF_OK;
}

template <typename Number>
rirf_status blend_rows(const rirf_planes &tile, const float *row_weights,
                       const float *column_weights, const rirf_planes &sums, int threads) {
    const int64_t width = sums.width;
    std::atomic<bool> failed{false};
    for_rows(thread_count(threads), sums.height, [&](int64_t first, int64_t last) {
        Number *in = scratch<Number>(SLOT_ROW_IN, 3 * width);
        float *out = scratch<float>(SLOT_ROW_OUT, width);
        if (in == nullptr || out == nullptr) {
            failed = true;
            return;
        }
        for (int64_t y = first; y < last; ++y) {
            const Number *row[3];
            read_planes(tile, y, width, in, row);
            for (int64_t c = 0; c < 3; ++c) {
                float *to = plane_row<float>(sums, c, y);
                if (sums.stride_column == 1) {
                    blend(width, row[c], row_weights[y], column_weights, to);
                    continue;
                }
                for (int64_t x = 0; x < width; ++x) out[x] = to[x * sums.stride_column];
                blend(width, row[c], row_weights[y], column_weights, out);
                for (int64_t x = 0; x < width; ++x) to[x * sums.stride_column] = out[x];
            }
        }
    });
    return failed ? fail(RIRF_NO_MEMORY, "blend_tile: no memory for a row") : RIRF_OK;
}

// Tiles of the residual: small enough that a tile with its surroundings stays in the second-level
// cache, whole blocks, and the same for any number of threads.
constexpr int64_t TILE_ROWS = 32, TILE_COLUMNS = 256;

// The taps of a kernel that are not zero; without a kernel none, which stands for "as it is".
struct Taps {
    int64_t count = 0, reach_rows = 0, reach_columns = 0;
    int64_t row[RIRF_PSF_AREA], column[RIRF_PSF_AREA];
    float weight[RIRF_PSF_AREA];

    explicit Taps(const float *psf) {
        const int64_t middle = RIRF_PSF_SIZE / 2;
        for (int64_t i = 0; psf != nullptr && i < RIRF_PSF_AREA; ++i) {
            if (psf[i] == 0.0f) continue;
            // A convolution reads against the direction of the kernel.
            row[count] = middle - i / RIRF_PSF_SIZE;
            column[count] = middle - i % RIRF_PSF_SIZE;
            const int64_t down = row[count] < 0 ? -row[count] : row[count];
            const int64_t right = column[count] < 0 ? -column[count] : column[count];
            reach_rows = down > reach_rows ? down : reach_rows;
            reach_columns = right > reach_columns ? right : reach_columns;
            weight[count++] = psf[i];
        }
    }
};

struct Residual {
    const rirf_frame &frame, &restored;
    const rirf_map &transmission;
    const rirf_model &model;
    Taps taps;
    float light[3];
    float shift[3 * LEVELS];  // channel by channel
    int64_t pitch, plane;     // numbers in a row and in a plane of a tile with its surroundings

    Residual(const rirf_frame &frame_in, const rirf_frame &restored_in, const rirf_map &map,
             const rirf_model &model_in)
        : frame(frame_in), restored(restored_in), transmission(map), model(model_in),
          taps(model_in.psf) {
        for (int64_t c = 0; c < 3; ++c) {
            light[c] = static_cast<float>(model.light[c]);
            for (int64_t i = 0; i < LEVELS; ++i) shift[c * LEVELS + i] = model.shift[3 * i + c];
        }
        pitch = TILE_COLUMNS + 2 * taps.reach_columns;
        plane = pitch * (TILE_ROWS + 2 * taps.reach_rows);
    }

    // Sums over the tile at (top, left); false when there is no memory.
    bool tile(int64_t top, int64_t left, rirf_moments *sums) const;

private:
    void surroundings(int64_t top, int64_t rows_in, int64_t left, int64_t columns,
                      float *planes) const;
};

// The fogged frame around a tile, mirrored out where it ends.
void Residual::surroundings(int64_t top, int64_t rows_in, int64_t left, int64_t columns,
                            float *planes) const {
    const int64_t reach = taps.reach_columns;
    const int64_t first = left - reach < 0 ? 0 : left - reach;
    const int64_t end = left + columns + reach;
    const int64_t last = end < frame.width ? end : frame.width;
    uint8_t bytes[3 * (TILE_COLUMNS + RIRF_PSF_SIZE)];
    float map[TILE_COLUMNS + RIRF_PSF_SIZE];
    for (int64_t k = 0; k < rows_in + 2 * taps.reach_rows; ++k) {
        const int64_t y = mirrored(top - taps.reach_rows + k, frame.height);
        const float *t = row_start(transmission, 0, y) + first * transmission.stride_column;
        if (transmission.stride_column != 1) {
            for (int64_t i = 0; i < last - first; ++i) map[i] = t[i * transmission.stride_column];
            t = map;
        }
        float *row[3], *inside[3];
        for (int64_t c = 0; c < 3; ++c) {
            // row[c][x] belongs to column x of the frame, less the tile's first.
            row[c] = planes + c * plane + k * pitch + reach;
            inside[c] = row[c] + (first - left);
        }
        rows().refog(last - first, read_pixels(restored, y, first, last - first, bytes), t, light,
                     inside);
        for (int64_t c = 0; c < 3; ++c) {
            for (int64_t x = -reach; x < first - left; ++x) {
                row[c][x] = row[c][mirrored(left + x, frame.width) - left];
            }
            for (int64_t x = last - left; x < columns + reach; ++x) {
                row[c][x] = row[c][mirrored(left + x, frame.width) - left];
            }
        }
    }
}

bool Residual::tile(int64_t top, int64_t left, rirf_moments *sums) const {
    const int64_t height = frame.height - top < TILE_ROWS ? frame.height - top : TILE_ROWS;
    const int64_t width = frame.width - left < TILE_COLUMNS ? frame.width - left : TILE_COLUMNS;
    float *planes = scratch<float>(SLOT_IMAGE, 3 * plane);
    float *blurred = scratch<float>(SLOT_ROW_OUT, 3 * TILE_COLUMNS);
    const float **source = scratch<const float *>(SLOT_ROW_TAPS, RIRF_PSF_AREA);
    uint32_t *counts = scratch<uint32_t>(SLOT_HITS, 3 * RESIDUAL_TABLES * LEVELS);
    if (planes == nullptr || blurred == nullptr || source == nullptr || counts == nullptr) {
        return false;
    }
    surroundings(top, height, left, width, planes);
    for (int64_t i = 0; i < 3 * RESIDUAL_TABLES * LEVELS; ++i) counts[i] = 0;
    uint8_t bytes[3 * TILE_COLUMNS];
    float columns[3][TILE_COLUMNS] = {};
    float *column_sums[3] = {columns[0], columns[1], columns[2]};
    *sums = {};
    for (int64_t y = 0; y < height; ++y) {
        const float *again[3];
        for (int64_t c = 0; c < 3; ++c) {
            const float *at =
                planes + c * plane + (y + taps.reach_rows) * pitch + taps.reach_columns;
            again[c] = at;
            if (taps.count == 0) continue;
            for (int64_t k = 0; k < taps.count; ++k) {
                source[k] = at + taps.row[k] * pitch + taps.column[k];
            }
            rows().taps(width, taps.count, source, taps.weight, blurred + c * TILE_COLUMNS);
            again[c] = blurred + c * TILE_COLUMNS;
        }
        sums->square += rows().residual(width, read_pixels(frame, top + y, left, width, bytes),
                                        again, shift, column_sums, counts);
        if ((y + 1) % RESIDUAL_BLOCK != 0) continue;
        // A row of whole blocks is complete.
        for (int64_t c = 0; c < 3; ++c) {
            for (int64_t x = 0; x + RESIDUAL_BLOCK <= width; x += RESIDUAL_BLOCK) {
                double mean = 0.0;
                for (int64_t i = 0; i < RESIDUAL_BLOCK; ++i) {
                    mean += static_cast<double>(columns[c][x + i]);
                }
                mean /= static_cast<double>(RESIDUAL_BLOCK * RESIDUAL_BLOCK);
                sums->block_square += mean * mean;
            }
            for (float &value : columns[c]) value = 0.0f;
        }
    }
    for (int64_t c = 0; c < 3; ++c) {
        for (int64_t i = 0; i < LEVELS; ++i) {
            uint32_t count = 0;
            for (int64_t k = 0; k < RESIDUAL_TABLES; ++k) {
                count += counts[(c * RESIDUAL_TABLES + k) * LEVELS + i];
            }
            sums->variance += count * static_cast<double>(model.variance[3 * i + c]);
            sums->block_variance += count * static_cast<double>(model.block_variance[3 * i + c]);
        }
    }
    return true;
}

rirf_status check_psf(const float *psf) {
    bool any = psf == nullptr;
    for (int64_t i = 0; !any && i < RIRF_PSF_AREA; ++i) any = psf[i] != 0.0f;
    return any ? RIRF_OK
               : fail(RIRF_BAD_VALUE, "model.psf: is all zeros, expected a kernel of sum 1");
}

}  // namespace
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_frame_to_planes(const rirf_frame *frame, const rirf_planes *planes, int threads) {
    RIRF_TRY(check_to_planes(frame, planes));
    return planes->type == RIRF_FLOAT16 ? to_planes<uint16_t>(*frame, *planes, threads)
                                        : to_planes<float>(*frame, *planes, threads);
}

rirf_status rirf_planes_to_frame(const rirf_planes *planes, const rirf_frame *frame, int threads) {
    RIRF_TRY(check_to_frame(planes, frame));
    return planes->type == RIRF_FLOAT16 ? to_frame<uint16_t>(*planes, *frame, threads)
                                        : to_frame<float>(*planes, *frame, threads);
}

rirf_status rirf_blend_tile(const rirf_planes *tile, const float *row_weights,
                            const float *column_weights, const rirf_planes *sums, int threads) {
    RIRF_TRY(check_blend(tile, row_weights, column_weights, sums));
    return tile->type == RIRF_FLOAT16
               ? blend_rows<uint16_t>(*tile, row_weights, column_weights, *sums, threads)
               : blend_rows<float>(*tile, row_weights, column_weights, *sums, threads);
}

rirf_status rirf_residual(const rirf_frame *frame, const rirf_frame *restored,
                          const rirf_map *transmission, const rirf_model *model,
                          rirf_moments *moments, int threads) {
    RIRF_TRY(check_residual(frame, restored, transmission, model, moments));
    RIRF_TRY(check_psf(model->psf));

    const Residual residual(*frame, *restored, *transmission, *model);
    const int64_t down = (frame->height + TILE_ROWS - 1) / TILE_ROWS;
    const int64_t across = (frame->width + TILE_COLUMNS - 1) / TILE_COLUMNS;
    rirf_moments *parts = scratch<rirf_moments>(SLOT_SUMS, down * across);
    std::atomic<bool> failed{parts == nullptr};
    if (!failed) {
        parallel(thread_count(threads), down * across, [&](int64_t index) {
            const int64_t top = index / across * TILE_ROWS, left = index % across * TILE_COLUMNS;
            if (!residual.tile(top, left, parts + index)) failed = true;
        });
    }
    if (failed) return fail(RIRF_NO_MEMORY, "residual: no memory for a tile");
    rirf_moments total = {};
    for (int64_t i = 0; i < down * across; ++i) {
        total.square += parts[i].square;
        total.variance += parts[i].variance;
        total.block_square += parts[i].block_square;
        total.block_variance += parts[i].block_variance;
    }
    const double numbers = 3.0 * static_cast<double>(frame->height * frame->width);
    const double blocks = 3.0 * static_cast<double>((frame->height / RESIDUAL_BLOCK) *
                                                    (frame->width / RESIDUAL_BLOCK));
    moments->square = total.square / numbers;
    moments->variance = total.variance / numbers;
    moments->block_square = total.block_square / blocks;
    moments->block_variance = total.block_variance / numbers;
    return RIRF_OK;
}

}  // extern "C"
