// Row loops of the frame operations. Included by rows.cpp alone, once for each instruction set:
// everything here has internal linkage. Expects its sum().
#pragma once

#include "frame/frame.h"

#if defined(__SSSE3__)
#include <immintrin.h>
#endif

namespace rirf {
namespace {

// Pixels a loop works on at a time: its planes stay in the first-level cache.
constexpr int64_t CHUNK = 256;

struct Bytes {
    alignas(64) uint8_t plane[3][CHUNK];
};

#if defined(__SSSE3__)
// Shuffles between 16 interleaved pixels (3 vectors) and 3 planes; 0x80 makes a zero.
struct Shuffles {
    alignas(16) uint8_t split[3][3][16] = {};  // plane, vector
    alignas(16) uint8_t merge[3][3][16] = {};  // vector, plane

    constexpr Shuffles() {
        for (int c = 0; c < 3; ++c) {
            for (int v = 0; v < 3; ++v) {
                for (int i = 0; i < 16; ++i) {
                    const int byte = 3 * i + c, at = 16 * v + i;
                    split[c][v][i] = static_cast<uint8_t>(byte / 16 == v ? byte % 16 : 0x80);
                    merge[v][c][i] = static_cast<uint8_t>(at % 3 == c ? at / 3 : 0x80);
                }
            }
        }
    }
};
constexpr Shuffles SHUFFLES;

inline __m128i bytes_at(const uint8_t *from) {
    return _mm_loadu_si128(reinterpret_cast<const __m128i *>(from));
}

inline __m128i gathered(const __m128i *from, const uint8_t (*mask)[16]) {
    return _mm_or_si128(_mm_or_si128(_mm_shuffle_epi8(from[0], bytes_at(mask[0])),
                                     _mm_shuffle_epi8(from[1], bytes_at(mask[1]))),
                        _mm_shuffle_epi8(from[2], bytes_at(mask[2])));
}
#endif

// Interleaved bytes to planes, in their order; n <= CHUNK.
inline void split_bytes(int64_t n, const uint8_t *from, Bytes *to) {
    int64_t i = 0;
#if defined(__SSSE3__)
    for (; i + 16 <= n; i += 16) {
        const uint8_t *at = from + 3 * i;
        const __m128i pixels[3] = {bytes_at(at), bytes_at(at + 16), bytes_at(at + 32)};
        for (int c = 0; c < 3; ++c) {
            _mm_store_si128(reinterpret_cast<__m128i *>(to->plane[c] + i),
                            gathered(pixels, SHUFFLES.split[c]));
        }
    }
#endif
    for (; i < n; ++i) {
        for (int c = 0; c < 3; ++c) to->plane[c][i] = from[3 * i + c];
    }
}

inline void merge_bytes(int64_t n, const Bytes &from, uint8_t *to) {
    int64_t i = 0;
#if defined(__SSSE3__)
    for (; i + 16 <= n; i += 16) {
        const __m128i planes[3] = {bytes_at(from.plane[0] + i), bytes_at(from.plane[1] + i),
                                   bytes_at(from.plane[2] + i)};
        for (int v = 0; v < 3; ++v) {
            _mm_storeu_si128(reinterpret_cast<__m128i *>(to + 3 * i + 16 * v),
                             gathered(planes, SHUFFLES.merge[v]));
        }
    }
#endif
    for (; i < n; ++i) {
        for (int c = 0; c < 3; ++c) to[3 * i + c] = from.plane[c][i];
    }
}

inline int64_t chunk_of(int64_t n, int64_t start) { return n - start < CHUNK ? n - start : CHUNK; }

inline void shares(int64_t n, const uint8_t *levels, float *out) {
    for (int64_t i = 0; i < n; ++i) out[i] = share_of(levels[i]);
}

inline void shares(int64_t n, const uint8_t *levels, uint16_t *out) {
    int64_t i = 0;
#if defined(__F16C__) && defined(__AVX2__)
    for (; i + 8 <= n; i += 8) {
        const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(levels + i));
        const __m256 value = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight)),
                                           _mm256_set1_ps(1.0f / 255.0f));
        _mm_storeu_si128(reinterpret_cast<__m128i *>(out + i),
                         _mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
    }
#endif
    for (; i < n; ++i) out[i] = half_of_share(share_of(levels[i]));
}

inline const float *floats(int64_t, const float *from, float *) { return from; }

inline const float *floats(int64_t n, const uint16_t *from, float *buffer) {
    int64_t i = 0;
#if defined(__F16C__)
    for (; i + 8 <= n; i += 8) {
        _mm256_storeu_ps(buffer + i, _mm256_cvtph_ps(bytes_at(
                                         reinterpret_cast<const uint8_t *>(from + i))));
    }
#endif
    for (; i < n; ++i) buffer[i] = float_of_half(from[i]);
    return buffer;
}

template <typename Number>
void bytes_to_planes(int64_t n, const uint8_t *bgr, Number *const *rgb) {
    Bytes bytes;
    for (int64_t start = 0; start < n; start += CHUNK) {
        const int64_t size = chunk_of(n, start);
        split_bytes(size, bgr + 3 * start, &bytes);
        for (int c = 0; c < 3; ++c) shares(size, bytes.plane[2 - c], rgb[c] + start);
    }
}

template <typename Number>
void planes_to_bytes(int64_t n, const Number *const *rgb, uint8_t *bgr) {
    Bytes bytes;
    alignas(64) float buffer[CHUNK];
    for (int64_t start = 0; start < n; start += CHUNK) {
        const int64_t size = chunk_of(n, start);
        for (int c = 0; c < 3; ++c) {
            const float *from = floats(size, rgb[c] + start, buffer);
            uint8_t *to = bytes.plane[2 - c];
            for (int64_t i = 0; i < size; ++i) to[i] = static_cast<uint8_t>(level_of(from[i]));
        }
        merge_bytes(size, bytes, bgr + 3 * start);
    }
}

// Apart from the sum that follows it, so that the two are never contracted into one rounding.
__attribute__((noinline)) void weigh(int64_t n, const float *values, float row,
                                     const float *columns, float *out) {
    for (int64_t i = 0; i < n; ++i) out[i] = clamp(values[i], 0.0f, 1.0f) * row * columns[i];
}

template <typename Number>
void blend(int64_t n, const Number *values, float row, const float *columns, float *sums) {
    alignas(64) float buffer[CHUNK], weighed[CHUNK];
    for (int64_t start = 0; start < n; start += CHUNK) {
        const int64_t size = chunk_of(n, start);
        weigh(size, floats(size, values + start, buffer), row, columns + start, weighed);
        for (int64_t i = 0; i < size; ++i) sums[start + i] += weighed[i];
    }
}

void refog(int64_t n, const uint8_t *bgr, const float *t, const float *light, float *const *rgb) {
    Bytes bytes;
    for (int64_t start = 0; start < n; start += CHUNK) {
        const int64_t size = chunk_of(n, start);
        split_bytes(size, bgr + 3 * start, &bytes);
        for (int c = 0; c < 3; ++c) {
            const uint8_t *from = bytes.plane[2 - c];
            const float *near = t + start;
            float *to = rgb[c] + start;
            const float colour = light[c];
            for (int64_t i = 0; i < size; ++i) to[i] = refogged(from[i], near[i], colour);
        }
    }
}

double residual(int64_t n, const uint8_t *bgr, const float *const *rgb, const float *shift,
                float *const *sums, uint32_t *counts) {
    Bytes bytes;
    alignas(64) int32_t level[CHUNK];
    alignas(64) float expected[CHUNK];
    alignas(64) float square[CHUNK];
    double total = 0.0;
    for (int64_t start = 0; start < n; start += CHUNK) {
        const int64_t size = chunk_of(n, start);
        split_bytes(size, bgr + 3 * start, &bytes);
        for (int c = 0; c < 3; ++c) {
            const float *again = rgb[c] + start;
            const float *table = shift + c * LEVELS;
            uint32_t *count = counts + c * RESIDUAL_TABLES * LEVELS;
            for (int64_t i = 0; i < size; ++i) level[i] = level_of(again[i]);
            // Neighbours mostly share a level: counting them in turn in several tables, no count
            // waits for the one before.
            for (int64_t i = 0; i < size; ++i) {
                ++count[(i % RESIDUAL_TABLES) * LEVELS + level[i]];
                expected[i] = table[level[i]];
            }
            const uint8_t *seen = bytes.plane[2 - c];
            float *to = sums[c] + start;
            for (int64_t i = 0; i < size; ++i) {
                const float r = share_of(seen[i]) - again[i] - expected[i];
                to[i] += r;
                square[i] = r * r;
            }
            total += sum(size, square);
        }
    }
    return total;
}

}  // namespace
}  // namespace rirf
