// Rows of strided images and maps, and the checks of what a caller hands over.
#pragma once

#include <cstring>

#include "common/error.h"
#include "common/pool.h"
#include "rirf_kernels.h"

namespace rirf {

// Largest side: products of sizes stay far inside 64 bits.
constexpr int64_t SIDE_MAX = int64_t{1} << 24;

inline bool interleaved(const rirf_image &image) {
    return image.stride_channel == 1 && (image.stride_column == 3 || image.width == 1);
}

inline float *row_start(const rirf_image &image, int64_t index, int64_t row) {
    return image.data + index * image.stride_batch + row * image.stride_row;
}

inline float *row_start(const rirf_map &map, int64_t index, int64_t row) {
    return map.data + index * map.stride_batch + row * map.stride_row;
}

// An image row as interleaved RGB: where it lies if it already is, else a copy in `buffer`.
inline const float *read_row(const rirf_image &image, int64_t index, int64_t row, float *buffer) {
    const float *from = row_start(image, index, row);
    if (interleaved(image)) return from;
    for (int64_t x = 0; x < image.width; ++x) {
        for (int64_t c = 0; c < 3; ++c) {
            buffer[3 * x + c] = from[x * image.stride_column + c * image.stride_channel];
        }
    }
    return buffer;
}

inline const float *read_row(const rirf_map &map, int64_t index, int64_t row, float *buffer) {
    const float *from = row_start(map, index, row);
    if (map.stride_column == 1) return from;
    for (int64_t x = 0; x < map.width; ++x) buffer[x] = from[x * map.stride_column];
    return buffer;
}

// Where to compute a row: the image itself if its rows are interleaved, else `buffer`.
inline float *target_row(const rirf_image &image, int64_t index, int64_t row, float *buffer) {
    return interleaved(image) ? row_start(image, index, row) : buffer;
}

inline float *target_row(const rirf_map &map, int64_t index, int64_t row, float *buffer) {
    return map.stride_column == 1 ? row_start(map, index, row) : buffer;
}

// Puts a computed row in its place, unless it was computed there.
inline void write_row(const rirf_image &image, int64_t index, int64_t row, const float *values) {
    float *to = row_start(image, index, row);
    if (to == values) return;
    if (interleaved(image)) {
        memcpy(to, values, static_cast<size_t>(image.width) * 3 * sizeof(float));
        return;
    }
    for (int64_t x = 0; x < image.width; ++x) {
        for (int64_t c = 0; c < 3; ++c) {
            to[x * image.stride_column + c * image.stride_channel] = values[3 * x + c];
        }
    }
}

inline void write_row(const rirf_map &map, int64_t index, int64_t row, const float *values) {
    float *to = row_start(map, index, row);
    if (to == values) return;
    if (map.stride_column == 1) {
        memcpy(to, values, static_cast<size_t>(map.width) * sizeof(float));
        return;
    }
    for (int64_t x = 0; x < map.width; ++x) to[x * map.stride_column] = values[x];
}

// Whether no two elements of a view share an address.
bool apart(int axes, const int64_t *size, const int64_t *stride);

// The checks: `name` is the argument's name in the message.
rirf_status check_image(const char *name, const rirf_image *image, bool written);
rirf_status check_map(const char *name, const rirf_map *map, bool written);
rirf_status check_like(const char *name, const rirf_image *image, const char *as_name,
                       const rirf_image *as);
rirf_status check_like(const char *name, const rirf_map *map, const char *as_name,
                       const rirf_image *as);
// Where the elements of an image, a map or a run of numbers lie; an axis it lacks has size 1.
struct Layout {
    uintptr_t data;
    int64_t size[4], stride[4];
};
Layout layout_of(const rirf_image &image);
Layout layout_of(const rirf_map &map);
Layout layout_of(const float *run, int64_t count);
// A view that a call uses, by its name in messages; without data it does not count.
struct Used {
    const char *name;
    Layout layout;
    bool written;
};
// Fails when a view that is written to shares an element with another.
rirf_status check_apart(const Used *used, int count);
// Fails when a written view overlaps an input other than by being the very same view.
rirf_status check_same_or_apart(const char *name, const rirf_image *image, const char *other_name,
                                const rirf_image *other);
// How many recipes, truths or numbers a run holds.
rirf_status check_count(int64_t count);
// Ranges of the fields that an effect reads: of the given effects, or of those that are present.
rirf_status check_recipes(const rirf_recipe *recipes, int64_t count, uint32_t effects);
rirf_status check_present(const rirf_recipe *recipes, int64_t count);

constexpr int64_t ROW_BLOCK = 16;

// Spreads a batch over threads: whole images when there are enough of them, else rows of each.
// Calls image(index, threads) for each; the result may not depend on `threads`.
template <typename Body>
void for_images(int threads, int64_t batch, Body &&image) {
    if (batch >= threads) {
        parallel(threads, batch, [&](int64_t index) { image(index, 1); });
    } else {
        for (int64_t index = 0; index < batch; ++index) image(index, threads);
    }
}

// Calls rows(first, last) for blocks of rows.
template <typename Body>
void for_rows(int threads, int64_t height, Body &&rows) {
    if (threads <= 1) {
        rows(int64_t{0}, height);
        return;
    }
    parallel(threads, (height + ROW_BLOCK - 1) / ROW_BLOCK, [&](int64_t block) {
        const int64_t first = block * ROW_BLOCK;
        rows(first, first + ROW_BLOCK < height ? first + ROW_BLOCK : height);
    });
}

}  // namespace rirf

#define RIRF_TRY(expression)                                   \
    do {                                                       \
        const rirf_status rirf_tried = (expression);           \
        if (rirf_tried != RIRF_OK) return rirf_tried;          \
    } while (0)
