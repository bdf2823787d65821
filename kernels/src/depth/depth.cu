#include "depth/depth.cuh"

#include "common/view.h"
#include "depth/depth.h"
#include "shake/shake.h"

namespace rirf {
namespace cuda {

RIRF_DEVICE double bell(int64_t offset, double sigma) {
    const double place = static_cast<double>(offset) / sigma;
    return exp(-0.5 * place * place);
}

// Every thread adds up all weights for itself: there are a few hundred, once a batch.
RIRF_KERNEL gaussian_kernel(double sigma, int64_t radius, float *weight) {
    const int64_t item = work_item();
    if (item > 2 * radius) return;
    double total = 0.0;
    for (int64_t k = -radius; k <= radius; ++k) total += bell(k, sigma);
    weight[item] = static_cast<float>(bell(item - radius, sigma) / total);
}

RIRF_KERNEL geometry_kernel(const rirf_recipe *recipes, int64_t count, Geometry *geometry) {
    const int64_t index = work_item();
    if (index < count) sample_geometry(recipes[index].seed, &geometry[index]);
}

// Depth with its sharp horizon.
RIRF_KERNEL sharp_kernel(const rirf_recipe *recipes, uint32_t needed, const Geometry *geometries,
                         int64_t height, int64_t width, float *depth) {
    const int64_t index = image_item(), item = work_item();
    if (item >= height * width || (recipes[index].present & needed) != needed) return;
    const Geometry &geometry = geometries[index];
    const int64_t y = item / width, x = item - y * width;
    const Cubic down = cubic_at(y, height, RELIEF_ROWS);
    const Cubic across = cubic_at(x, width, RELIEF_COLUMNS);
    float field = 0.0f;
    for (int c = 0; c < 4; ++c) {
        float column = 0.0f;
        for (int r = 0; r < 4; ++r) {
            column += down.weight[r] * geometry.field[down.cell[r] * RELIEF_COLUMNS + across.cell[c]];
        }
        field += across.weight[c] * column;
    }
    float plane, share;
    ground_at(geometry, y, height, &plane, &share);
    depth[index * height * width + item] = sharp_depth(plane, share, geometry.relief, field);
}

RIRF_KERNEL across_kernel(const rirf_recipe *recipes, uint32_t needed, const float *depth,
                          int64_t height, int64_t width, const float *weight, int64_t radius,
                          float *blurred) {
    const int64_t index = image_item(), item = work_item();
    if (item >= height * width || (recipes[index].present & needed) != needed) return;
    const int64_t y = item / width, x = item - y * width;
    const float *row = depth + (index * height + y) * width;
    float total = 0.0f;
    for (int64_t k = -radius; k <= radius; ++k) {
        total += row[mirrored(x + k, width)] * weight[k + radius];
    }
    blurred[index * height * width + item] = total;
}

RIRF_KERNEL down_kernel(const rirf_recipe *recipes, uint32_t needed, const float *blurred,
                        const float *weight, int64_t radius, rirf_map prior) {
    const int64_t index = image_item(), item = work_item();
    const int64_t height = prior.height, width = prior.width;
    if (item >= height * width || (recipes[index].present & needed) != needed) return;
    const int64_t y = item / width, x = item - y * width;
    const float *column = blurred + index * height * width + x;
    float total = 0.0f;
    for (int64_t k = -radius; k <= radius; ++k) {
        total += column[mirrored(y + k, height) * width] * weight[k + radius];
    }
    *pixel_at(prior, index, item) = prior_of(total);
}

rirf_status sample_prior(const rirf_recipe *recipes, uint32_t needed, const rirf_map &prior,
                         const Workspace &workspace, void *stream) {
    const int64_t height = prior.height, width = prior.width;
    const double sigma = blur_sigma(height);
    const int64_t radius = blur_radius(sigma);
    const Grid pixels = {height * width, prior.batch};
    RIRF_TRY(launch(gaussian_kernel, {2 * radius + 1, 1}, stream, sigma, radius,
                    workspace.gaussian));
    RIRF_TRY(launch(geometry_kernel, {prior.batch, 1}, stream, recipes, prior.batch,
                    workspace.geometry));
    RIRF_TRY(launch(sharp_kernel, pixels, stream, recipes, needed,
                    static_cast<const Geometry *>(workspace.geometry), height, width,
                    workspace.map));
    RIRF_TRY(launch(across_kernel, pixels, stream, recipes, needed,
                    static_cast<const float *>(workspace.map), height, width,
                    static_cast<const float *>(workspace.gaussian), radius, workspace.blurred));
    return launch(down_kernel, pixels, stream, recipes, needed,
                  static_cast<const float *>(workspace.blurred),
                  static_cast<const float *>(workspace.gaussian), radius, prior);
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" rirf_status rirf_cuda_prior(const rirf_recipe *recipes, const rirf_map *prior,
                                       void *workspace, size_t workspace_bytes, void *stream) {
    RIRF_TRY(check_map("prior", prior, true));
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    cuda::Workspace w;
    RIRF_TRY(cuda::divide_checked(workspace, workspace_bytes, prior->batch, prior->height,
                                  prior->width, &w));
    return cuda::sample_prior(recipes, 0, *prior, w, stream);
}
