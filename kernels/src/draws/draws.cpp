#include "draws/draws.h"

#include "common/rows.h"
#include "common/view.h"

namespace rirf {
namespace {

// Runs `blocks_of` (words or normals) over whole blocks and copies the asked-for part.
template <typename T, typename Blocks>
void aligned(uint64_t first, int64_t count, T *out, Blocks blocks_of) {
    constexpr int64_t CHUNK = 256;
    T buffer[4 * CHUNK];
    uint64_t block = first >> 2;
    int64_t skip = static_cast<int64_t>(first & 3u);
    while (count > 0) {
        const int64_t wanted = (skip + count + 3) / 4;
        const int64_t blocks = wanted < CHUNK ? wanted : CHUNK;
        blocks_of(block, blocks, buffer);
        const int64_t taken = 4 * blocks - skip < count ? 4 * blocks - skip : count;
        memcpy(out, buffer + skip, static_cast<size_t>(taken) * sizeof(T));
        out += taken;
        count -= taken;
        block += static_cast<uint64_t>(blocks);
        skip = 0;
    }
}

rirf_status check_run(const void *out, int64_t count) {
    RIRF_TRY(check_count(count));
    if (out == nullptr && count > 0) return fail(RIRF_NULL_POINTER, "out: got NULL");
    return RIRF_OK;
}

}  // namespace
}  // namespace rirf

using namespace rirf;

extern "C" {

int rirf_abi(void) { return RIRF_KERNELS_ABI; }

const char *rirf_isa(void) { return rows().name; }

rirf_status rirf_words(uint64_t seed, uint32_t stage, uint32_t stream, uint64_t first,
                       int64_t count, uint32_t *out) {
    RIRF_TRY(check_run(out, count));
    const Address address = {seed, stage, stream};
    aligned(first, count, out, [&](uint64_t block, int64_t blocks, uint32_t *to) {
        rows().words(address, block, blocks, to);
    });
    return RIRF_OK;
}

rirf_status rirf_uniforms(uint64_t seed, uint32_t stage, uint32_t stream, uint64_t first,
                          int64_t count, float *out) {
    RIRF_TRY(check_run(out, count));
    const Address address = {seed, stage, stream};
    aligned(first, count, out, [&](uint64_t block, int64_t blocks, float *to) {
        uint32_t words[1024];
        rows().words(address, block, blocks, words);
        for (int64_t i = 0; i < 4 * blocks; ++i) to[i] = uniform_of(words[i]);
    });
    return RIRF_OK;
}

rirf_status rirf_normals(uint64_t seed, uint32_t stage, uint32_t stream, uint64_t first,
                         int64_t count, float *out) {
    RIRF_TRY(check_run(out, count));
    const Address address = {seed, stage, stream};
    aligned(first, count, out, [&](uint64_t block, int64_t blocks, float *to) {
        rows().normals(address, block, blocks, to);
    });
    return RIRF_OK;
}

rirf_status rirf_sample(const uint64_t *seeds, int64_t count, rirf_recipe *recipes) {
    RIRF_TRY(check_count(count));
    if (seeds == nullptr) return fail(RIRF_NULL_POINTER, "seeds: got NULL");
    if (recipes == nullptr) return fail(RIRF_NULL_POINTER, "recipes: got NULL");
    for (int64_t i = 0; i < count; ++i) sample_recipe(seeds[i], &recipes[i]);
    return RIRF_OK;
}

}  // extern "C"
