/* The same operations as rirf_kernels.h on CUDA devices, in librirf_kernels_cuda.
 *
 * All data lies in memory of the current device: images, maps, and also seeds, recipes, truths and
 * means. Each call puts its work into the caller's stream (a cudaStream_t; NULL is the default one)
 * and returns: it never waits, never allocates, and may be captured in a CUDA graph. Seeds and
 * recipes are read when the work runs, so that a graph that is replayed draws anew.
 *
 * A recipe in device memory cannot be checked without waiting for it: give only what rirf_sample or
 * rirf_cuda_sample drew, or what rirf_check_recipes passed. Values out of range never reach outside
 * the arrays, but what they do to a picture is not defined.
 */
#ifndef RIRF_KERNELS_CUDA_H
#define RIRF_KERNELS_CUDA_H

#include "rirf_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Half the largest window of a streak: length and width of rain on CUDA may add up to 2 * 64 - 4
 * pixels. The sampled ranges stay at half of it. */
#define RIRF_CUDA_STREAK_REACH 64

/* Compute capabilities the library was compiled for, such as "80 90 120"; PTX is there for the last,
 * from which drivers make code for newer devices. */
RIRF_API const char *rirf_cuda_architectures(void);
/* Checks recipes in HOST memory before they go to the device. */
RIRF_API rirf_status rirf_cuda_check_recipes(const rirf_recipe *recipes, int64_t count);
/* Bytes of workspace that any call on a batch of this size needs at most. The memory need not be
 * cleared; calls that run at the same time need one each. */
RIRF_API rirf_status rirf_cuda_workspace(int64_t batch, int64_t height, int64_t width,
                                         size_t *bytes);

RIRF_API rirf_status rirf_cuda_words(uint64_t seed, uint32_t stage, uint32_t stream_number,
                                     uint64_t first, int64_t count, uint32_t *out, void *stream);
RIRF_API rirf_status rirf_cuda_normals(uint64_t seed, uint32_t stage, uint32_t stream_number,
                                       uint64_t first, int64_t count, float *out, void *stream);
RIRF_API rirf_status rirf_cuda_sample(const uint64_t *seeds, int64_t count, rirf_recipe *recipes,
                                      void *stream);

RIRF_API rirf_status rirf_cuda_prior(const rirf_recipe *recipes, const rirf_map *prior,
                                     void *workspace, size_t workspace_bytes, void *stream);
RIRF_API rirf_status rirf_cuda_fog(const rirf_image *image, const rirf_map *prior,
                                   const rirf_recipe *recipes, const rirf_image *out,
                                   const rirf_map *transmission, double *means, void *stream);
RIRF_API rirf_status rirf_cuda_fog_invert(const rirf_image *image, const rirf_map *transmission,
                                          const double *light, double floor, const rirf_image *out,
                                          void *stream);
RIRF_API rirf_status rirf_cuda_shake_kernels(const rirf_recipe *recipes, int64_t count, float *psf,
                                             rirf_truth *truth, void *stream);
RIRF_API rirf_status rirf_cuda_shake(const rirf_image *image, const float *psf,
                                     const rirf_image *out, void *workspace, size_t workspace_bytes,
                                     void *stream);
RIRF_API rirf_status rirf_cuda_rain_mask(const rirf_recipe *recipes, const rirf_map *mask,
                                         double *coverage, void *workspace, size_t workspace_bytes,
                                         void *stream);
RIRF_API rirf_status rirf_cuda_rain(const rirf_image *image, const rirf_recipe *recipes,
                                    const rirf_image *out, const rirf_map *mask, double *coverage,
                                    void *workspace, size_t workspace_bytes, void *stream);
RIRF_API rirf_status rirf_cuda_noise(const rirf_image *image, const rirf_recipe *recipes,
                                     const rirf_image *out, double *variances, void *stream);
RIRF_API rirf_status rirf_cuda_degrade(const rirf_image *image, const rirf_recipe *recipes,
                                       const rirf_map *prior, const rirf_image *out,
                                       const rirf_record *record, rirf_truth *truth,
                                       void *workspace, size_t workspace_bytes, void *stream);

RIRF_API rirf_status rirf_cuda_map_means(const rirf_map *map, double *means, void *stream);
RIRF_API rirf_status rirf_cuda_map_coverage(const rirf_map *map, double threshold, double *coverage,
                                            void *stream);
RIRF_API rirf_status rirf_cuda_noise_variances(const rirf_image *image, const rirf_recipe *recipes,
                                               double *variances, void *stream);
RIRF_API rirf_status rirf_cuda_severities(const rirf_recipe *recipes, int64_t count,
                                          rirf_truth *truth, void *stream);

/* Frames, for the runtime; see rirf_kernels.h. */
RIRF_API rirf_status rirf_cuda_frame_to_planes(const rirf_frame *frame, const rirf_planes *planes,
                                               void *stream);
RIRF_API rirf_status rirf_cuda_planes_to_frame(const rirf_planes *planes, const rirf_frame *frame,
                                               void *stream);
RIRF_API rirf_status rirf_cuda_blend_tile(const rirf_planes *tile, const float *row_weights,
                                          const float *column_weights, const rirf_planes *sums,
                                          void *stream);
/* `model` itself lies in host memory, its tables and psf and `moments` on the device. */
RIRF_API rirf_status rirf_cuda_residual(const rirf_frame *frame, const rirf_frame *restored,
                                        const rirf_map *transmission, const rirf_model *model,
                                        rirf_moments *moments, void *stream);

#ifdef __cplusplus
}
#endif

#endif /* RIRF_KERNELS_CUDA_H */
