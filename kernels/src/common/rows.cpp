// Compiled several times, see CMakeLists.txt: RIRF_ROWS names the table, RIRF_ISA what it is for.
// Nothing here may have external linkage but the table, and no library template is used: a function
// compiled for AVX-512 and merged by the linker with its baseline twin would crash an older machine.
#include "common/rows.h"

#include "fog/fog.h"
#include "noise/noise.h"
#include "rain/rain.h"

namespace rirf {
namespace {

// Numbers a loop works on at a time where it needs a buffer on the stack.
constexpr int64_t BLOCK = 64;
// Lanes of partial sums: enough for the widest vectors, and the same everywhere.
constexpr int64_t LANES = 16;

// Philox on a block of counters, lane by lane, so that the compiler can use vectors.
void philox_lanes(Address address, uint64_t first, uint32_t *c0, uint32_t *c1, uint32_t *c2,
                  uint32_t *c3) {
    for (int64_t i = 0; i < BLOCK; ++i) {
        const Words w = philox(address, first + static_cast<uint64_t>(i));
        c0[i] = w.w0;
        c1[i] = w.w1;
        c2[i] = w.w2;
        c3[i] = w.w3;
    }
}

void words(Address address, uint64_t first, int64_t blocks, uint32_t *out) {
    alignas(64) uint32_t c0[BLOCK], c1[BLOCK], c2[BLOCK], c3[BLOCK];
    for (int64_t start = 0; start < blocks; start += BLOCK) {
        philox_lanes(address, first + static_cast<uint64_t>(start), c0, c1, c2, c3);
        const int64_t size = blocks - start < BLOCK ? blocks - start : BLOCK;
        uint32_t *to = out + 4 * start;
        for (int64_t i = 0; i < size; ++i) {
            to[4 * i] = c0[i];
            to[4 * i + 1] = c1[i];
            to[4 * i + 2] = c2[i];
            to[4 * i + 3] = c3[i];
        }
    }
}

void normals(Address address, uint64_t first, int64_t blocks, float *out) {
    alignas(64) uint32_t c0[BLOCK], c1[BLOCK], c2[BLOCK], c3[BLOCK];
    alignas(64) float n0[BLOCK], n1[BLOCK], n2[BLOCK], n3[BLOCK];
    for (int64_t start = 0; start < blocks; start += BLOCK) {
        philox_lanes(address, first + static_cast<uint64_t>(start), c0, c1, c2, c3);
        for (int64_t i = 0; i < BLOCK; ++i) normal_pair(c0[i], c1[i], &n0[i], &n1[i]);
        for (int64_t i = 0; i < BLOCK; ++i) normal_pair(c2[i], c3[i], &n2[i], &n3[i]);
        const int64_t size = blocks - start < BLOCK ? blocks - start : BLOCK;
        float *to = out + 4 * start;
        for (int64_t i = 0; i < size; ++i) {
            to[4 * i] = n0[i];
            to[4 * i + 1] = n1[i];
            to[4 * i + 2] = n2[i];
            to[4 * i + 3] = n3[i];
        }
    }
}

void hits(Address address, uint64_t first, int64_t count, uint32_t threshold, uint64_t *bits) {
    // 64 counters hold 256 words, four groups of bits.
    alignas(64) uint32_t c[4][BLOCK];
    alignas(64) uint32_t nibble[BLOCK];
    for (int64_t group = 0; group < count; group += 4) {
        philox_lanes(address, (first + static_cast<uint64_t>(group)) * 16, c[0], c[1], c[2], c[3]);
        for (int64_t i = 0; i < BLOCK; ++i) {
            nibble[i] = ((c[0][i] >> 8) < threshold ? 1u : 0u) |
                        ((c[1][i] >> 8) < threshold ? 2u : 0u) |
                        ((c[2][i] >> 8) < threshold ? 4u : 0u) |
                        ((c[3][i] >> 8) < threshold ? 8u : 0u);
        }
        const int64_t size = count - group < 4 ? count - group : 4;
        for (int64_t g = 0; g < size; ++g) {
            uint64_t word = 0;
            for (int64_t i = 0; i < 16; ++i) {
                word |= static_cast<uint64_t>(nibble[16 * g + i]) << (4 * i);
            }
            bits[group + g] = word;
        }
    }
}

double add_up(const float *lanes) {
    double total = 0.0;
    for (int64_t i = 0; i < LANES; ++i) total += static_cast<double>(lanes[i]);
    return total;
}

double sum(int64_t n, const float *in) {
    double total = 0.0;
    int64_t i = 0;
    // Float lanes over a short run, then doubles: exact enough, and the loop stays in vectors.
    while (i + LANES <= n) {
        const int64_t stop = i + BLOCK * LANES < n ? i + BLOCK * LANES : n;
        alignas(64) float lanes[LANES] = {};
        for (; i + LANES <= stop; i += LANES) {
            for (int64_t k = 0; k < LANES; ++k) lanes[k] += in[i + k];
        }
        total += add_up(lanes);
    }
    for (; i < n; ++i) total += static_cast<double>(in[i]);
    return total;
}

int64_t count_above(int64_t n, const float *in, float threshold) {
    int64_t total = 0;
    int32_t part = 0;
    for (int64_t start = 0; start < n; start += 4096) {
        const int64_t stop = start + 4096 < n ? start + 4096 : n;
        part = 0;
        for (int64_t i = start; i < stop; ++i) part += in[i] > threshold ? 1 : 0;
        total += part;
    }
    return total;
}

double transmission(int64_t n, const float *prior, float beta, float *t) {
    for (int64_t i = 0; i < n; ++i) t[i] = transmission_of(prior[i], beta);
    return sum(n, t);
}

void scatter_row(int64_t n, const float *rgb, const float *t, const float *light, float *out) {
    const float red = light[0], green = light[1], blue = light[2];
    for (int64_t i = 0; i < n; ++i) {
        out[3 * i] = scatter(rgb[3 * i], t[i], red);
        out[3 * i + 1] = scatter(rgb[3 * i + 1], t[i], green);
        out[3 * i + 2] = scatter(rgb[3 * i + 2], t[i], blue);
    }
}

void unscatter_row(int64_t n, const float *rgb, const float *t, const float *light, float floor,
                   float *out) {
    const float red = light[0], green = light[1], blue = light[2];
    for (int64_t i = 0; i < n; ++i) {
        out[3 * i] = unscatter(rgb[3 * i], t[i], red, floor);
        out[3 * i + 1] = unscatter(rgb[3 * i + 1], t[i], green, floor);
        out[3 * i + 2] = unscatter(rgb[3 * i + 2], t[i], blue, floor);
    }
}

#if defined(__GNUC__)
#if defined(__AVX512F__)
constexpr int64_t WIDTH = 16;
#elif defined(__AVX__)
constexpr int64_t WIDTH = 8;
#else
constexpr int64_t WIDTH = 4;
#endif
typedef float Vector __attribute__((vector_size(WIDTH * sizeof(float))));

inline __attribute__((always_inline)) Vector load(const float *from) {
    Vector value;
    memcpy(&value, from, sizeof value);
    return value;
}

// COUNT vectors of output stay in registers while all taps pass by.
template <int64_t COUNT>
inline __attribute__((always_inline)) void tap_block(int64_t taps, const float *const *source,
                                                     const float *weight, int64_t at, float *out) {
    Vector total[COUNT] = {};
    for (int64_t k = 0; k < taps; ++k) {
        const float *from = source[k] + at;
        const float w = weight[k];
        for (int64_t v = 0; v < COUNT; ++v) total[v] += load(from + v * WIDTH) * w;
    }
    memcpy(out + at, total, sizeof total);
}

void tap_row(int64_t n, int64_t taps, const float *const *source, const float *weight, float *out) {
    int64_t at = 0;
    for (; at + 8 * WIDTH <= n; at += 8 * WIDTH) tap_block<8>(taps, source, weight, at, out);
    for (; at + 2 * WIDTH <= n; at += 2 * WIDTH) tap_block<2>(taps, source, weight, at, out);
    for (; at + WIDTH <= n; at += WIDTH) tap_block<1>(taps, source, weight, at, out);
    // The rest: once more the last whole vector, shifted to the end; a number depends on its own
    // taps only, so what is computed twice comes out the same.
    if (at < n && n >= WIDTH) {
        tap_block<1>(taps, source, weight, n - WIDTH, out);
        return;
    }
    for (; at < n; ++at) {
        float total = 0.0f;
        for (int64_t k = 0; k < taps; ++k) total += source[k][at] * weight[k];
        out[at] = total;
    }
}
#else
void tap_row(int64_t n, int64_t taps, const float *const *source, const float *weight, float *out) {
    for (int64_t i = 0; i < n; ++i) out[i] = 0.0f;
    for (int64_t k = 0; k < taps; ++k) {
        const float *from = source[k];
        const float w = weight[k];
        for (int64_t i = 0; i < n; ++i) out[i] += from[i] * w;
    }
}
#endif

void streak_row(int64_t n, const float *rgb, const float *mask, float opacity, const float *colour,
                float *out) {
    const float red = colour[0], green = colour[1], blue = colour[2];
    for (int64_t i = 0; i < n; ++i) {
        const float layer = opacity * mask[i];
        out[3 * i] = rgb[3 * i] + layer * red;
        out[3 * i + 1] = rgb[3 * i + 1] + layer * green;
        out[3 * i + 2] = rgb[3 * i + 2] + layer * blue;
    }
}

int64_t saturate(int64_t n, float *mask, float threshold) {
    for (int64_t i = 0; i < n; ++i) mask[i] = at_most(mask[i], 1.0f);
    return count_above(n, mask, threshold);
}

double variance_row(int64_t n, const float *in, float gain, float offset) {
    double total = 0.0;
    int64_t i = 0;
    while (i + LANES <= n) {
        const int64_t stop = i + BLOCK * LANES < n ? i + BLOCK * LANES : n;
        alignas(64) float lanes[LANES] = {};
        for (; i + LANES <= stop; i += LANES) {
            for (int64_t k = 0; k < LANES; ++k) {
                const float sigma = noise_sigma(in[i + k], gain, offset);
                lanes[k] += sigma * sigma;
            }
        }
        total += add_up(lanes);
    }
    for (; i < n; ++i) {
        const float sigma = noise_sigma(in[i], gain, offset);
        total += static_cast<double>(sigma * sigma);
    }
    return total;
}

double noise_row(int64_t n, const float *in, const float *field, float gain, float offset,
                 float *out) {
    // The variance is taken first: `out` may be `in`, and the row stays in the first-level cache.
    const double total = variance_row(n, in, gain, offset);
    for (int64_t i = 0; i < n; ++i) {
        out[i] = in[i] + field[i] * noise_sigma(in[i], gain, offset);
    }
    return total;
}

void clip_row(int64_t n, const float *in, float *out) {
    for (int64_t i = 0; i < n; ++i) out[i] = clamp(in[i], 0.0f, 1.0f);
}

}  // namespace
}  // namespace rirf

#include "frame/frame_rows.h"

namespace rirf {

extern const Rows RIRF_ROWS;
const Rows RIRF_ROWS = {RIRF_ISA,      words,     normals,     hits,         transmission,
                        scatter_row,   unscatter_row, tap_row, streak_row,   saturate,
                        noise_row,     variance_row,  clip_row, sum,         count_above,
                        bytes_to_planes<float>, bytes_to_planes<uint16_t>, planes_to_bytes<float>,
                        planes_to_bytes<uint16_t>, blend<float>, blend<uint16_t>, refog, residual};

}  // namespace rirf
