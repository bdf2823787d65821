// What a call asks of its images and maps, on the CPU and on CUDA alike. Recipes are checked by the
// CPU's drivers themselves: on CUDA they lie where the host cannot look.
#pragma once

#include "common/view.h"

namespace rirf {

// An image, a result like it that may be the very same view, and nothing else that overlaps.
rirf_status check_in_place(const rirf_image *image, const rirf_image *out);
// The same with a map that is read, or (if it is not NULL) written.
rirf_status check_in_place(const rirf_image *image, const rirf_image *out, const char *name,
                           const rirf_map *map, bool written);
rirf_status check_fog(const rirf_image *image, const rirf_map *prior, const rirf_image *out,
                      const rirf_map *transmission);
rirf_status check_fog_invert(const rirf_image *image, const rirf_map *transmission,
                             const double *light, double floor, const rirf_image *out);
rirf_status check_shake(const rirf_image *image, const float *psf, const rirf_image *out);
// `record` may be NULL, and its views without data.
rirf_status check_degrade(const rirf_image *image, const rirf_map *prior, const rirf_image *out,
                          const rirf_record *record);

}  // namespace rirf
