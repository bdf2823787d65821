#include "draws/draws.h"

#include "common/launch.cuh"
#include "common/view.h"
#include "noise/noise.cuh"

namespace rirf {
namespace cuda {

RIRF_KERNEL word_kernel(Address address, uint64_t first, int64_t count, uint32_t *out) {
    const int64_t i = work_item();
    if (i < count) out[i] = word_at(address, first + static_cast<uint64_t>(i));
}

RIRF_KERNEL normal_kernel(Address address, uint64_t first, int64_t count, float *out) {
    const int64_t i = work_item();
    if (i >= count) return;
    const uint64_t index = first + static_cast<uint64_t>(i);
    float n[4];
    normal_block(address, index >> 2, n);
    out[i] = n[index & 3u];
}

RIRF_KERNEL sample_kernel(const uint64_t *seeds, int64_t count, rirf_recipe *recipes) {
    const int64_t i = work_item();
    if (i < count) sample_recipe(seeds[i], &recipes[i]);
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_cuda_words(uint64_t seed, uint32_t stage, uint32_t stream_number, uint64_t first,
                            int64_t count, uint32_t *out, void *stream) {
    RIRF_TRY(check_count(count));
    if (out == nullptr) return fail(RIRF_NULL_POINTER, "out: got NULL");
    const Address address = {seed, stage, stream_number};
    return cuda::launch(cuda::word_kernel, {count, 1}, stream, address, first, count, out);
}

rirf_status rirf_cuda_normals(uint64_t seed, uint32_t stage, uint32_t stream_number, uint64_t first,
                              int64_t count, float *out, void *stream) {
    RIRF_TRY(check_count(count));
    if (out == nullptr) return fail(RIRF_NULL_POINTER, "out: got NULL");
    const Address address = {seed, stage, stream_number};
    return cuda::launch(cuda::normal_kernel, {count, 1}, stream, address, first, count, out);
}

rirf_status rirf_cuda_sample(const uint64_t *seeds, int64_t count, rirf_recipe *recipes,
                             void *stream) {
    RIRF_TRY(check_count(count));
    if (seeds == nullptr) return fail(RIRF_NULL_POINTER, "seeds: got NULL");
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    return cuda::launch(cuda::sample_kernel, {count, 1}, stream, seeds, count, recipes);
}

}  // extern "C"
