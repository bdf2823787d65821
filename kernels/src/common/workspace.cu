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
    const int64_t pixels = batch * height * width;
    Workspace w = {};
    w.image = static_cast<float *>(part(3 * pixels, sizeof(float)));
    w.map = static_cast<float *>(part(pixels, sizeof(float)));
    w.blurred = static_cast<float *>(part(pixels, sizeof(float)));
    w.near = static_cast<float *>(part(pixels, sizeof(float)));
    w.psf = static_cast<float *>(part(batch * RIRF_PSF_AREA, sizeof(float)));
    w.taps = static_cast<Taps *>(part(batch, sizeof(Taps)));
    w.stamp = static_cast<float *>(part(batch * STREAK_SIDE * STREAK_SIDE, sizeof(float)));
    w.geometry = static_cast<Geometry *>(part(batch, sizeof(Geometry)));
    w.gaussian =
        static_cast<float *>(part(2 * blur_radius(blur_sigma(height)) + 1, sizeof(float)));
    w.truth = static_cast<rirf_truth *>(part(batch, sizeof(rirf_truth)));
    w.bytes = used;
    return w;
}

rirf_status check_batch(int64_t batch, int64_t height, int64_t width) {
    if (batch > BATCH_MAX) {
        return fail(RIRF_BAD_SHAPE, "image: got a batch of %lld, expected at most %lld on CUDA",
                    static_cast<long long>(batch), static_cast<long long>(BATCH_MAX));
    }
    // A launch counts its blocks in 31 bits, and a thread takes one pixel of a kernel at least.
    if (height * width > (int64_t{1} << 38)) {
        return fail(RIRF_BAD_SHAPE, "image: got %lld x %lld pixels, expected at most 2^38 in all",
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
