// Counts every allocation of the process, and shows that a call whose buffers the caller gives makes
// none once the threads have their scratch memory. Needs glibc, whose allocator can be wrapped.
#include <atomic>
#include <functional>

#include "views.h"

extern "C" {
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static std::atomic<int64_t> allocations{0};

void *malloc(size_t size) {
    ++allocations;
    return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
    ++allocations;
    return __libc_calloc(count, size);
}
void *realloc(void *old, size_t size) {
    ++allocations;
    return __libc_realloc(old, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
    ++allocations;
    return __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size) {
    ++allocations;
    *out = __libc_memalign(alignment, size);
    return *out == nullptr ? 12 : 0;
}
}

using namespace test;

static int64_t counted(const std::function<rirf_status()> &call) {
    const int64_t before = allocations;
    if (call() != RIRF_OK) {
        std::fprintf(stderr, "%s\n", rirf_last_error());
        std::exit(1);
    }
    return allocations - before;
}

int main() {
    Random random(1);
    const Size size = {2, 120, 77};
    Image image(random, size), out(random, size), fog(random, size), noisy(random, size);
    Map prior(random, size), transmission(random, size), mask(random, size);
    fill(random, image);
    fill(random, prior, 0.2, 1.0);
    std::vector<rirf_recipe> r = recipes(random, size.batch);
    for (rirf_recipe &recipe : r) recipe.present = 15;
    std::vector<rirf_truth> truth(r.size());
    std::vector<float> psf(r.size() * RIRF_PSF_AREA), numbers(1001);
    std::vector<uint32_t> words(1001);
    double means[2], light[6] = {1, 1, 1, 1, 1, 1};
    rirf_record record = {};
    record.fog = fog.view;
    record.noise = noisy.view;
    record.transmission = transmission.view;
    record.mask = mask.view;
    record.psf = psf.data();

    int threads = 1;
    struct Named {
        const char *name;
        std::function<rirf_status()> call;
    };
    const std::vector<Named> calls = {
        {"degrade",
         [&] {
             return rirf_degrade(&image.view, r.data(), nullptr, &out.view, &record, truth.data(),
                                 threads);
         }},
        {"degrade_with_prior",
         [&] {
             return rirf_degrade(&image.view, r.data(), &prior.view, &out.view, nullptr, nullptr,
                                 threads);
         }},
        {"prior", [&] { return rirf_prior(r.data(), &transmission.view, threads); }},
        {"fog",
         [&] {
             return rirf_fog(&image.view, &prior.view, r.data(), &out.view, &transmission.view, means,
                             threads);
         }},
        {"fog_invert",
         [&] {
             return rirf_fog_invert(&image.view, &prior.view, light, 0.1, &out.view, threads);
         }},
        {"shake_kernels",
         [&] { return rirf_shake_kernels(r.data(), 2, psf.data(), truth.data()); }},
        {"shake", [&] { return rirf_shake(&image.view, psf.data(), &out.view, threads); }},
        {"rain_mask", [&] { return rirf_rain_mask(r.data(), &mask.view, means, threads); }},
        {"rain",
         [&] {
             return rirf_rain(&image.view, r.data(), &out.view, &mask.view, means, threads);
         }},
        {"noise", [&] { return rirf_noise(&image.view, r.data(), &out.view, means, threads); }},
        {"noise_variances",
         [&] { return rirf_noise_variances(&image.view, r.data(), means, threads); }},
        {"map_means", [&] { return rirf_map_means(&mask.view, means, threads); }},
        {"map_coverage", [&] { return rirf_map_coverage(&mask.view, 0.1, means, threads); }},
        {"severities", [&] { return rirf_severities(r.data(), 2, truth.data()); }},
        {"words", [&] { return rirf_words(1, 2, 3, 5, 1001, words.data()); }},
        {"normals", [&] { return rirf_normals(1, 2, 3, 5, 1001, numbers.data()); }},
    };
    // name, first call, second call, another after the scratch memory was given back
    for (const Named &named : calls) {
        rirf_release_scratch();
        const int64_t first = counted(named.call), second = counted(named.call);
        rirf_release_scratch();
        const int64_t released = counted(named.call);
        std::printf("%s %lld %lld %lld\n", named.name, static_cast<long long>(first),
                    static_cast<long long>(second), static_cast<long long>(released));
    }
    // Workers take jobs as they come, so one may first see an image at any call: what counts is that
    // the number of allocations does not grow with the number of calls.
    threads = 3;
    int64_t total = 0;
    for (int i = 0; i < 300; ++i) total += counted(calls[0].call);
    std::printf("threads %d %lld\n", threads, static_cast<long long>(total));
    return 0;
}
