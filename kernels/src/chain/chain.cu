// The whole chain on CUDA. Rain, noise and the clip pass over the frame once; so does fog, unless the
// frame is shaken: a blur needs its neighbours, so those frames are fogged into the workspace first.
// Which effects an image has is known on the device only: launches go over the batch, and the threads
// of images without the effect leave.
#include "common/calls.h"
#include "common/workspace.cuh"
#include "depth/depth.cuh"
#include "fog/fog.cuh"
#include "noise/noise.cuh"
#include "rain/rain.cuh"
#include "severity/severity.h"
#include "shake/shake.cuh"

namespace rirf {
namespace cuda {

struct Stages {
    Image fog, shake, rain, noise;
    Map transmission, mask;
};

RIRF_KERNEL begin_kernel(const rirf_recipe *recipes, int64_t count, rirf_truth *truth) {
    const int64_t index = work_item();
    if (index >= count) return;
    neutral(&truth[index]);
    // A mean is added up from nothing.
    if ((recipes[index].present & RIRF_FOG) != 0) truth[index].transmission_mean = 0.0;
}

RIRF_KERNEL end_kernel(const rirf_recipe *recipes, int64_t count, double pixels,
                       rirf_truth *truth) {
    const int64_t index = work_item();
    if (index >= count) return;
    truth[index].coverage /= pixels;  // a count so far, which is exact
    score(recipes[index].present, &truth[index]);
}

// Where the prior comes from: a map of the caller's, or without one the sampled rows.
struct Near {
    Map map;
    PriorRows rows;
};

// Fogs four pixels, if there is fog, and adds their transmission up. The whole block calls it.
RIRF_DEVICE void fog_step(const rirf_recipe &recipe, const Near &near, const Stages &stages,
                          int64_t index, int64_t first, int64_t count, const rirf_image &image,
                          float *value, rirf_truth *truth) {
    float t[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    if ((recipe.present & RIRF_FOG) != 0) {
        float sum = 0.0f;
        if (count > 0) {
            if (near.map.view.data != nullptr) {
                load(near.map, index, first, count, t);
            } else {
                prior_quad(near.rows, index, image.height, image.width, first, count, t);
            }
            sum = transmit(recipe, count, t);
            scatter_quad(recipe, t, value);
            store(stages.fog, index, first, count, value);
        }
        const double pixels = static_cast<double>(image.height * image.width);
        add_block(sum, 1.0 / pixels, &truth->transmission_mean);
    }
    if (count > 0) store(stages.transmission, index, first, count, t);
}

// For shaken frames: fogged, into the workspace. Without fog the blur reads them where they are.
RIRF_KERNEL before_shake_kernel(Image image, const rirf_recipe *recipes, Near near, Stages stages,
                                Image fogged, rirf_truth *truths) {
    const int64_t index = image_item(), first = work_item() * QUAD;
    const rirf_recipe &recipe = recipes[index];
    if ((recipe.present & RIRF_SHAKE) == 0) return;
    const bool in_fog = (recipe.present & RIRF_FOG) != 0;
    const int64_t count = quad_count(first, image.view.height * image.view.width);
    float value[12] = {};
    if (count > 0 && in_fog) load(image, index, first, count, value);
    fog_step(recipe, near, stages, index, first, count, image.view, value, &truths[index]);
    if (count > 0 && in_fog) store(fogged, index, first, count, value);
}

// Everything but the blur. A shaken frame lies in `out` already, blurred.
RIRF_KERNEL finish_kernel(Image image, const rirf_recipe *recipes, Near near,
                          const uint32_t *streaks, int64_t pitch, Stages stages, Image out,
                          rirf_truth *truths) {
    const int64_t index = image_item(), first = work_item() * QUAD;
    const rirf_recipe &recipe = recipes[index];
    rirf_truth &truth = truths[index];
    const int64_t pixels = image.view.height * image.view.width;
    const int64_t count = quad_count(first, pixels);
    float value[12] = {};
    if ((recipe.present & RIRF_SHAKE) != 0) {
        if (count > 0) {
            load(out, index, first, count, value);
            store(stages.shake, index, first, count, value);
        }
    } else {
        if (count > 0) load(image, index, first, count, value);
        fog_step(recipe, near, stages, index, first, count, image.view, value, &truth);
    }
    float m[4] = {};
    if ((recipe.present & RIRF_RAIN) != 0) {
        float covered = 0.0f;
        if (count > 0) {
            covered = mask_quad(streaks + index * pitch + first, count, m);
            streak_quad(recipe, m, value);
            store(stages.rain, index, first, count, value);
        }
        add_block(covered, 1.0, &truth.coverage);
    }
    if (count > 0) store(stages.mask, index, first, count, m);
    if ((recipe.present & RIRF_NOISE) != 0) {
        float sum = 0.0f;
        if (count > 0) {
            sum = noise_quad(recipe, first, count, true, value);
            store(stages.noise, index, first, count, value);
        }
        add_block(sum, 1.0 / (3.0 * static_cast<double>(pixels)), &truth.variance);
    }
    RIRF_UNROLL
    for (int i = 0; i < 12; ++i) value[i] = clamp(value[i], 0.0f, 1.0f);
    if (count > 0) store(out, index, first, count, value);
}

// The workspace's fogged frames, plane by plane.
static rirf_image fogged_image(const Workspace &w, const rirf_image &like) {
    return {w.fogged,   like.batch, like.height, like.width, 3 * w.pitch,
            like.width, 1,          w.pitch};
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" rirf_status rirf_cuda_degrade(const rirf_image *image, const rirf_recipe *recipes,
                                         const rirf_map *prior, const rirf_image *out,
                                         const rirf_record *record, rirf_truth *truth,
                                         void *workspace, size_t workspace_bytes, void *stream) {
    RIRF_TRY(check_degrade(image, prior, out, record));
    const rirf_record kept = record == nullptr ? rirf_record{} : *record;
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    const int64_t batch = image->batch, height = image->height, width = image->width;
    cuda::Workspace w;
    RIRF_TRY(cuda::divide_checked(workspace, workspace_bytes, batch, height, width, &w));
    if (truth == nullptr) truth = w.truth;
    float *const psf = kept.psf == nullptr ? w.psf : kept.psf;

    const cuda::Grid images = {batch, 1}, quads = cuda::quads(height * width, batch);
    const cuda::Image from = cuda::image_of(*image), to = cuda::image_of(*out);
    const cuda::Stages stages = {
        cuda::image_of(kept.fog),         cuda::image_of(kept.shake), cuda::image_of(kept.rain),
        cuda::image_of(kept.noise),       cuda::map_of(kept.transmission),
        cuda::map_of(kept.mask)};
    RIRF_TRY(cuda::launch(cuda::begin_kernel, images, stream, recipes, batch, truth));
    RIRF_TRY(cuda::make_kernels(recipes, RIRF_SHAKE, batch, psf, w.segments, truth, stream));
    cuda::Near near = {cuda::map_of(prior == nullptr ? rirf_map{} : *prior),
                       cuda::prior_rows(w.prior)};
    if (prior == nullptr) {
        RIRF_TRY(cuda::sample_prior(recipes, RIRF_FOG, batch, height, width, w.prior, stream));
    }
    const rirf_image fogged = cuda::fogged_image(w, *image);
    RIRF_TRY(cuda::launch(cuda::before_shake_kernel, quads, stream, from, recipes, near, stages,
                          cuda::image_of(fogged), truth));
    RIRF_TRY(cuda::convolve(*image, fogged, w.segments, recipes, RIRF_SHAKE, *out, stream));
    RIRF_TRY(cuda::splat_rain(recipes, RIRF_RAIN, batch, height, width, w, stream));
    RIRF_TRY(cuda::launch(cuda::finish_kernel, quads, stream, from, recipes, near, w.streaks,
                          w.pitch, stages, to, truth));
    return cuda::launch(cuda::end_kernel, images, stream, recipes, batch,
                        static_cast<double>(height * width), truth);
}
