#include "common/workspace.cuh"

#include "common/view.h"
#include "rain/rain.h"

namespace rirf {
namespace cuda {

Workspace divide(void *base, int64_t batch, int64_t height, int64_t width) {
    size_t used = 0;
    const auto part = [&](int64_t count, size_t size) {
        char *const start = static_cast<char *>(base) + used;
        used += (static_cast<size_t>(count) * size + 255) / 256 * 256;
        return base == nullptr ? nullptr : static_cast<void *>(start);
    };
    Workspace w = {};
    const double sigma = blur_sigma(height);
    const int64_t spacing = blur_spacing(sigma);
    const Coarse across(width, blur_radius(sigma), spacing);
    const Coarse down(height, blur_radius(sigma), spacing);
    PriorSpace &p = w.prior;
    p.spacing = static_cast<int32_t>(spacing);
    p.taps = static_cast<int32_t>(across.taps);
    p.margin = static_cast<int32_t>(across.margin());
    p.points_across = static_cast<int32_t>(across.points);
    p.points_down = static_cast<int32_t>(down.points);
    p.reach_across = static_cast<int32_t>(across.reach());
    p.reach_down = static_cast<int32_t>(down.reach());
    p.gaussian = static_cast<float *>(part(p.taps, sizeof(float)));
    p.lagrange = static_cast<float *>(part(8 * spacing, sizeof(float)));
    p.cubic = static_cast<float *>(part(4 * width, sizeof(float)));
    p.cells = static_cast<uint32_t *>(part(width, sizeof(uint32_t)));
    p.mirror_across = static_cast<int32_t *>(part(p.reach_across, sizeof(int32_t)));
    p.mirror_down = static_cast<int32_t *>(part(p.reach_down, sizeof(int32_t)));
    p.geometry = static_cast<Geometry *>(part(batch, sizeof(Geometry)));
    p.blurred = static_cast<float *>(part(batch * height * across.points, sizeof(float)));
    p.coarse = static_cast<float *>(part(batch * down.points * across.points, sizeof(float)));
    w.pitch = (height * width + QUAD - 1) / QUAD * QUAD;
    w.fogged = static_cast<float *>(part(batch * 3 * w.pitch, sizeof(float)));
    w.streaks = static_cast<uint32_t *>(part(batch * w.pitch, sizeof(uint32_t)));
    w.psf = static_cast<float *>(part(batch * RIRF_PSF_AREA, sizeof(float)));
    w.segments = static_cast<Segments *>(part(batch, sizeof(Segments)));
    w.shower = static_cast<Shower *>(part(batch, sizeof(Shower)));
    w.cells = static_cast<Cell *>(part(batch * STREAK_CELLS, sizeof(Cell)));
    w.truth = static_cast<rirf_truth *>(part(batch, sizeof(rirf_truth)));
    w.bytes = used;
    return w;
}

RIRF_KERNEL divide_kernel(double *values, int64_t count, double divisor) {
    const int64_t item = work_item();
    if (item < count) values[item] /= divisor;
}

rirf_status divide_each(double *values, int64_t count, double divisor, void *stream) {
    return launch(divide_kernel, {count, 1}, stream, values, count, divisor);
}

rirf_status check_batch(int64_t batch, int64_t height, int64_t width) {
    if (batch > BATCH_MAX) {
        return fail(RIRF_BAD_SHAPE, "image: got a batch of %lld, expected at most %lld on CUDA",
                    static_cast<long long>(batch), static_cast<long long>(BATCH_MAX));
    }
    if (height * width > PIXELS_MAX) {
        return fail(RIRF_BAD_SHAPE, "image: got %lld x %lld pixels, expected less than 2^31 in all",
                    static_cast<long long>(height), static_cast<long long>(width));
    }
    return RIRF_OK;
}

rirf_status divide_checked(void *base, size_t bytes, int64_t batch, int64_t height, int64_t width,
                           Workspace *workspace) {
    RIRF_TRY(check_batch(batch, height, width));
    if (base == nullptr) return fail(RIRF_NULL_POINTER, "workspace: got NULL");
    if (reinterpret_cast<uintptr_t>(base) % 256 != 0) {
        return fail(RIRF_BAD_STRIDE, "workspace: is not aligned to 256 bytes, as CUDA's memory is");
    }
    *workspace = divide(base, batch, height, width);
    if (bytes >= workspace->bytes) return RIRF_OK;
    return fail(RIRF_SMALL_WORKSPACE,
                "workspace: got %llu bytes, expected at least %llu for a batch of %lld and %lld x "
                "%lld pixels (rirf_cuda_workspace)",
                static_cast<unsigned long long>(bytes),
                static_cast<unsigned long long>(workspace->bytes), static_cast<long long>(batch),
                static_cast<long long>(height), static_cast<long long>(width));
}

}  // namespace cuda
}  // namespace rirf

#if !defined(RIRF_CUDA_ARCHITECTURES)
#define RIRF_CUDA_ARCHITECTURES ""
#endif

using namespace rirf;

extern "C" {

const char *rirf_cuda_architectures(void) { return RIRF_CUDA_ARCHITECTURES; }

rirf_status rirf_cuda_check_recipes(const rirf_recipe *recipes, int64_t count) {
    RIRF_TRY(check_present(recipes, count));
    for (int64_t i = 0; i < count; ++i) {
        if ((recipes[i].present & RIRF_RAIN) == 0) continue;
        const Streak s = streak_of(recipes[i].slant_deg, recipes[i].length_px, recipes[i].width_px);
        if (s.reach_y <= RIRF_CUDA_STREAK_REACH && s.reach_x <= RIRF_CUDA_STREAK_REACH) continue;
        return fail(RIRF_BAD_VALUE,
                    "recipes[%lld].length_px: a streak of %g x %g px reaches further than %d px "
                    "from its middle, which CUDA does not offer; use the CPU's kernels",
                    static_cast<long long>(i), recipes[i].length_px, recipes[i].width_px,
                    RIRF_CUDA_STREAK_REACH);
    }
    return RIRF_OK;
}

rirf_status rirf_cuda_workspace(int64_t batch, int64_t height, int64_t width, size_t *bytes) {
    if (bytes == nullptr) return fail(RIRF_NULL_POINTER, "bytes: got NULL");
    if (batch < 1 || height < 1 || width < 1 || height > SIDE_MAX || width > SIDE_MAX) {
        return fail(RIRF_BAD_SHAPE,
                    "got a batch of %lld and %lld x %lld pixels, expected sizes from 1 to %lld",
                    static_cast<long long>(batch), static_cast<long long>(height),
                    static_cast<long long>(width), static_cast<long long>(SIDE_MAX));
    }
    RIRF_TRY(cuda::check_batch(batch, height, width));
    *bytes = cuda::divide(nullptr, batch, height, width).bytes;
    return RIRF_OK;
}

}  // extern "C"
