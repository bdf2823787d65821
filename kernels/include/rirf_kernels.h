/* rirf_kernels: the degradation model of rirf and the runtime's frame operations, on the CPU and on
 * CUDA, behind a C interface. Knows nothing of networks, bundles or Python.
 *
 * Images are float32 RGB in [0, 1], any strides. Functions take views of the caller's memory, keep
 * nothing of them, and allocate nothing the caller sees. A CPU function may be called from several
 * threads at once; its result does not depend on the number of threads. Every function returns a
 * status; rirf_last_error() says, for the calling thread, which argument was wrong and how.
 *
 * The physics is R&R (arXiv 2604.09511), Eq. 1 and appendix A.2, as docs/degradation.md fixes it.
 */
#ifndef RIRF_KERNELS_H
#define RIRF_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define RIRF_API __declspec(dllexport)
#else
#define RIRF_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Raised by one whenever a structure or a signature changes. */
#define RIRF_KERNELS_ABI 1
/* Side of a point-spread function, in pixels. */
#define RIRF_PSF_SIZE 31
#define RIRF_PSF_AREA (RIRF_PSF_SIZE * RIRF_PSF_SIZE)

typedef enum rirf_status {
    RIRF_OK = 0,
    RIRF_NULL_POINTER = 1, /* a required pointer is NULL */
    RIRF_BAD_SHAPE = 2,    /* a size is out of range, or two arguments disagree */
    RIRF_BAD_STRIDE = 3,   /* a view that is written to overlaps itself, or a layout is not offered */
    RIRF_BAD_VALUE = 4,    /* a parameter is out of range */
    RIRF_ALIASED = 5,      /* input and output share memory where they must not */
    RIRF_NO_MEMORY = 6,    /* scratch memory could not be allocated */
    RIRF_SMALL_WORKSPACE = 7, /* CUDA: the workspace is smaller than its size function says */
    RIRF_CUDA_FAILED = 8   /* CUDA: a launch failed; the text names the error */
} rirf_status;

/* A batch of float32 RGB images; strides in elements, may be negative. One image: batch 1. */
typedef struct rirf_image {
    float *data;
    int64_t batch, height, width;
    int64_t stride_batch, stride_row, stride_column, stride_channel;
} rirf_image;

/* A batch of float32 maps of one channel. */
typedef struct rirf_map {
    float *data;
    int64_t batch, height, width;
    int64_t stride_batch, stride_row, stride_column;
} rirf_map;

enum { RIRF_FOG = 1, RIRF_SHAKE = 2, RIRF_RAIN = 4, RIRF_NOISE = 8 };

/* What is done to one image. A field of an absent effect is not read. 112 bytes. */
typedef struct rirf_recipe {
    uint64_t seed;    /* key of every random number */
    uint32_t present; /* RIRF_FOG | RIRF_SHAKE | RIRF_RAIN | RIRF_NOISE */
    int32_t steps;    /* of the random walk, 1 to 4096 */
    double light[3];  /* atmospheric light A (R, G, B) in [0, 1]; also the colour of rain */
    double beta;      /* fog density exponent, > 0 */
    double step_px;   /* standard deviation of a walk's step along each axis, pixels, >= 0 */
    double density;   /* rain seeds a pixel, in [0, 1] */
    double slant_deg; /* from the vertical, positive leans right going down, -90 to 90 */
    double length_px, width_px; /* of a streak, > 0 */
    double opacity;   /* in [0, 1] */
    double gain;      /* noise: sigma(x) = |gain x + offset|, x and sigma in 0..255 */
    double offset;
} rirf_recipe;

/* What came of it, as the truth a diagnosis is judged by. Neutral for an absent effect. 88 bytes. */
typedef struct rirf_truth {
    double transmission_mean;
    double direction_deg, blur_length_px, energy, rms_px; /* second moments of the kernel */
    double coverage;    /* share of pixels with M > 0.1 */
    double variance;    /* mean normalised noise variance */
    double severity[4]; /* fog, shake, rain, noise: 0 when absent, else 1 to 100 */
} rirf_truth;

/* Intermediate results; a view whose data is NULL is not written. */
typedef struct rirf_record {
    rirf_image fog, shake, rain, noise; /* after each stage that is present, not clipped */
    rirf_map transmission;              /* 1 without fog */
    rirf_map mask;                      /* streak mask, 0 without rain */
    float *psf;                         /* (batch, 31, 31) contiguous; zeros without shake */
} rirf_record;

/* A uint8 BGR picture as cameras and OpenCV have it; strides in bytes, may be negative. */
typedef struct rirf_frame {
    uint8_t *data;
    int64_t height, width;
    int64_t stride_row, stride_column, stride_channel;
} rirf_frame;

enum { RIRF_FLOAT32 = 0, RIRF_FLOAT16 = 1 };

/* Three planes R, G, B of one type, as networks take them; strides in elements. */
typedef struct rirf_planes {
    void *data;
    int64_t type; /* RIRF_FLOAT32 or RIRF_FLOAT16 */
    int64_t height, width;
    int64_t stride_plane, stride_row, stride_column;
} rirf_planes;

/* A diagnosis as the re-degradation residual takes it. Tables are (256, 3) contiguous, R, G, B, for
 * the level a pixel has after fog and shake, before rain and noise. */
typedef struct rirf_model {
    double light[3];             /* atmospheric light A in [0, 1] */
    const float *psf;            /* (31, 31) contiguous, or NULL without shake */
    const float *shift;          /* what rain and noise add to a level in the mean */
    const float *variance;       /* of one pixel */
    const float *block_variance; /* of the mean of a block of 8 x 8 such pixels */
} rirf_model;

/* Means over pixels (or whole blocks of 8 x 8) and channels, in squares of [0, 1] units. */
typedef struct rirf_moments {
    double square;         /* of the residual */
    double variance;       /* what the model expects of it */
    double block_square;   /* of the residual's block means */
    double block_variance; /* what the model expects of them */
} rirf_moments;

/* ---- general ---- */

/* RIRF_KERNELS_ABI of the library that is loaded. */
RIRF_API int rirf_abi(void);
/* Instruction set in use: "baseline", "x86-64-v3" (AVX2, FMA) or "x86-64-v4" (AVX-512). The
 * environment variable RIRF_KERNELS_ISA, read at the first call, may name a lower one. */
RIRF_API const char *rirf_isa(void);
/* Why the last call of this thread failed: argument, got, expected. Valid until the next call. */
RIRF_API const char *rirf_last_error(void);
/* Frees the scratch memory that the calling thread keeps between calls. */
RIRF_API void rirf_release_scratch(void);

/* ---- random numbers: Philox 4x32-10, key = seed, counter = (index / 4, stage, stream) ---- */

RIRF_API rirf_status rirf_words(uint64_t seed, uint32_t stage, uint32_t stream, uint64_t first,
                                int64_t count, uint32_t *out);
RIRF_API rirf_status rirf_uniforms(uint64_t seed, uint32_t stage, uint32_t stream, uint64_t first,
                                   int64_t count, float *out);
RIRF_API rirf_status rirf_normals(uint64_t seed, uint32_t stage, uint32_t stream, uint64_t first,
                                  int64_t count, float *out);
/* Draws presence and every parameter of a recipe from its seed. */
RIRF_API rirf_status rirf_sample(const uint64_t *seeds, int64_t count, rirf_recipe *recipes);

/* ---- effects; `recipes` has one entry an image, `threads` 0 means all the process may use ---- */

/* The sampled street-like depth prior t0 of each recipe's seed. */
RIRF_API rirf_status rirf_prior(const rirf_recipe *recipes, const rirf_map *prior, int threads);

/* t = clamp(prior^beta, 0.05, 1), out = image t + A (1 - t). `transmission` (written) and `means`
 * (batch) may be NULL; `out` may be `image`. */
RIRF_API rirf_status rirf_fog(const rirf_image *image, const rirf_map *prior,
                              const rirf_recipe *recipes, const rirf_image *out,
                              const rirf_map *transmission, double *means, int threads);
/* Clean estimate clip((image - A (1 - t)) / max(t, floor), 0, 1). `light` is (batch, 3). `out` may
 * be `image`. */
RIRF_API rirf_status rirf_fog_invert(const rirf_image *image, const rirf_map *transmission,
                                     const double *light, double floor, const rirf_image *out,
                                     int threads);

/* Point-spread functions (count, 31, 31) and, in the shake fields of `truth` (may be NULL), their
 * moments. */
RIRF_API rirf_status rirf_shake_kernels(const rirf_recipe *recipes, int64_t count, float *psf,
                                        rirf_truth *truth);
/* Convolution with psf (batch, 31, 31), mirrored borders; only non-zero taps cost. `out` must not
 * share memory with `image`. */
RIRF_API rirf_status rirf_shake(const rirf_image *image, const float *psf, const rirf_image *out,
                                int threads);

/* Streak mask M in [0, 1] and its coverage (may be NULL). */
RIRF_API rirf_status rirf_rain_mask(const rirf_recipe *recipes, const rirf_map *mask,
                                    double *coverage, int threads);
/* out = image + opacity M A. `mask` (written) and `coverage` may be NULL; `out` may be `image`. */
RIRF_API rirf_status rirf_rain(const rirf_image *image, const rirf_recipe *recipes,
                               const rirf_image *out, const rirf_map *mask, double *coverage,
                               int threads);

/* out = image + n sigma(image). `variances` (batch) may be NULL; `out` may be `image`. */
RIRF_API rirf_status rirf_noise(const rirf_image *image, const rirf_recipe *recipes,
                                const rirf_image *out, double *variances, int threads);

/* The chain: fog, shake, rain, noise, clip to [0, 1]; absent effects cost nothing. `prior` NULL:
 * the sampled geometry. `record` and `truth` (batch) may be NULL. `out` must not share memory with
 * `image`. */
RIRF_API rirf_status rirf_degrade(const rirf_image *image, const rirf_recipe *recipes,
                                  const rirf_map *prior, const rirf_image *out,
                                  const rirf_record *record, rirf_truth *truth, int threads);

/* ---- severity reductions ---- */

/* Mean of each map, the t_mean of a transmission. */
RIRF_API rirf_status rirf_map_means(const rirf_map *map, double *means, int threads);
/* Share of each map above a threshold, the coverage of a mask at 0.1. */
RIRF_API rirf_status rirf_map_coverage(const rirf_map *map, double threshold, double *coverage,
                                       int threads);
/* Mean of sigma(x)^2 over each image for its recipe's gain and offset. */
RIRF_API rirf_status rirf_noise_variances(const rirf_image *image, const rirf_recipe *recipes,
                                          double *variances, int threads);
/* Fills severity[4] of each truth from its other fields and the recipe's presence. */
RIRF_API rirf_status rirf_severities(const rirf_recipe *recipes, int64_t count, rirf_truth *truth);

/* ---- frames, for the runtime ---- */

/* Levels over 255 as planes. Planes larger than the frame are filled by mirroring it at its bottom
 * and right edges, edge pixels not repeated, as often as it takes. */
RIRF_API rirf_status rirf_frame_to_planes(const rirf_frame *frame, const rirf_planes *planes,
                                          int threads);
/* Planes, clipped to [0, 1] and rounded to the nearest level, a half up, as a frame; NaN is black.
 * Planes may be larger than the frame: what lies beyond it at the bottom and right is left out. */
RIRF_API rirf_status rirf_planes_to_frame(const rirf_planes *planes, const rirf_frame *frame,
                                          int threads);
/* sums += clip(tile, 0, 1) row_weights column_weights, for float32 `sums` (a window of a frame's
 * planes) with as many weights as rows and columns. The tile may be larger, as above. */
RIRF_API rirf_status rirf_blend_tile(const rirf_planes *tile, const float *row_weights,
                                     const float *column_weights, const rirf_planes *sums,
                                     int threads);
/* The re-degradation residual: degrades `restored` with a model and compares it with `frame`, which
 * came in; at least 8 x 8 pixels. With y and J the two frames over 255, t the transmission (one
 * map, in [0, 1]), A the light, k the psf, for each channel:
 *   x = k * (t (J - A) + A), borders mirrored;
 *   i = 255 x to the nearest level;
 *   r = y - x - shift[i].
 * Nothing of a frame's size is stored. */
RIRF_API rirf_status rirf_residual(const rirf_frame *frame, const rirf_frame *restored,
                                   const rirf_map *transmission, const rirf_model *model,
                                   rirf_moments *moments, int threads);

#ifdef __cplusplus
}
#endif

#endif /* RIRF_KERNELS_H */
