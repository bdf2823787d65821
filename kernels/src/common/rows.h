// The inner loops of the CPU drivers: a row (or a run of numbers) at a time over plain pointers. They
// are compiled once for each instruction set, and rows() picks a table at the first call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/philox.h"

namespace rirf {

struct Rows {
    const char *name;
    // Words of blocks first .. first + blocks - 1, 4 * blocks numbers.
    void (*words)(Address address, uint64_t first, int64_t blocks, uint32_t *out);
    // Standard normals of the same blocks.
    void (*normals)(Address address, uint64_t first, int64_t blocks, float *out);
    // One bit a word, set where the word's upper 24 bits lie below the threshold: words 64 * first ..
    // 64 * (first + count) - 1 of the stream, `count` groups of 64 bits.
    void (*hits)(Address address, uint64_t first, int64_t count, uint32_t threshold, uint64_t *bits);
    // t = clamp(prior^beta): n numbers; returns their sum.
    double (*transmission)(int64_t n, const float *prior, float beta, float *t);
    // RGB interleaved, n pixels.
    void (*scatter)(int64_t n, const float *rgb, const float *t, const float *light, float *out);
    void (*unscatter)(int64_t n, const float *rgb, const float *t, const float *light, float floor,
                      float *out);
    // out[i] = sum over k of weight[k] * source[k][i], i < n. Sources may be unaligned.
    void (*taps)(int64_t n, int64_t taps, const float *const *source, const float *weight,
                 float *out);
    // RGB + layer * colour, n pixels.
    void (*streaks)(int64_t n, const float *rgb, const float *mask, float opacity,
                    const float *colour, float *out);
    // Saturates a mask row at 1; returns how many lie above the threshold.
    int64_t (*saturate)(int64_t n, float *mask, float threshold);
    // Adds field * sigma(value) to n numbers; returns the sum of sigma^2.
    double (*noise)(int64_t n, const float *in, const float *field, float gain, float offset,
                    float *out);
    double (*variance)(int64_t n, const float *in, float gain, float offset);
    // Clips n numbers to [0, 1].
    void (*clip)(int64_t n, const float *in, float *out);
    double (*sum)(int64_t n, const float *in);
    int64_t (*count_above)(int64_t n, const float *in, float threshold);

    // Frames: n pixels of interleaved BGR, planes in the order R, G, B.
    void (*levels_to_floats)(int64_t n, const uint8_t *bgr, float *const *rgb);
    void (*levels_to_halves)(int64_t n, const uint8_t *bgr, uint16_t *const *rgb);
    void (*floats_to_levels)(int64_t n, const float *const *rgb, uint8_t *bgr);
    void (*halves_to_levels)(int64_t n, const uint16_t *const *rgb, uint8_t *bgr);
    // sums += clip(values, 0, 1) * row * columns, n numbers, rounded after each operation.
    void (*blend_floats)(int64_t n, const float *values, float row, const float *columns,
                         float *sums);
    void (*blend_halves)(int64_t n, const uint16_t *values, float row, const float *columns,
                         float *sums);
    // Fog over restored levels.
    void (*refog)(int64_t n, const uint8_t *bgr, const float *t, const float *light,
                  float *const *rgb);
    // What a frame differs by from `rgb` and the shift (3, 256) of its levels: added to `sums`,
    // three rows of n numbers; levels counted in `counts` (3, RESIDUAL_TABLES, 256). Returns the sum
    // of squares.
    double (*residual)(int64_t n, const uint8_t *bgr, const float *const *rgb, const float *shift,
                       float *const *sums, uint32_t *counts);
};

const Rows &rows();

}  // namespace rirf
