// Random images, recipes and layouts through every function, several callers at once, each with
// several threads: every result must be to the bit what one thread gives. For the sanitizers.
//   stress ROUNDS [SEED]
#include <atomic>
#include <thread>

#include "views.h"

using namespace test;

namespace {

std::atomic<int> failures{0};

void expect(bool good, const char *what, uint64_t round) {
    if (good) return;
    ++failures;
    std::fprintf(stderr, "round %llu: %s: %s\n", static_cast<unsigned long long>(round), what,
                 rirf_last_error());
}

template <typename T>
bool equal(const std::vector<T> &a, const std::vector<T> &b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// Everything that one number of threads gives, as dense values.
struct Results {
    std::vector<std::vector<float>> values;
    std::vector<rirf_truth> truth;
    std::vector<double> means;

    bool operator==(const Results &other) const {
        if (values.size() != other.values.size()) return false;
        for (size_t i = 0; i < values.size(); ++i) {
            if (!equal(values[i], other.values[i])) return false;
        }
        return equal(truth, other.truth) && equal(means, other.means);
    }
};

Results run(Random random, const Image &image, const Map &prior, Size size,
            const std::vector<rirf_recipe> &r, bool with_prior, int threads, uint64_t round) {
    const auto count = static_cast<size_t>(size.batch);
    Results results;
    results.truth.resize(count);
    results.means.assign(5 * count, 0.0);
    double *means = results.means.data();
    std::vector<float> psf(count * RIRF_PSF_AREA);
    Image out(random, size), shaken(random, size);
    Map transmission(random, size), mask(random, size);
    rirf_record record = {};
    record.transmission = transmission.view;
    record.mask = mask.view;
    record.shake = shaken.view;
    record.psf = psf.data();
    expect(rirf_degrade(&image.view, r.data(), with_prior ? &prior.view : nullptr, &out.view, &record,
                        results.truth.data(), threads) == RIRF_OK,
           "degrade", round);
    for (Memory *memory : {static_cast<Memory *>(&out), static_cast<Memory *>(&transmission),
                           static_cast<Memory *>(&mask)}) {
        results.values.push_back(memory->dense());
    }
    results.values.push_back(psf);
    const auto keep = [&](rirf_status status, const char *what, Memory &memory) {
        expect(status == RIRF_OK, what, round);
        results.values.push_back(memory.dense());
    };
    keep(rirf_prior(r.data(), &mask.view, threads), "prior", mask);
    keep(rirf_fog(&image.view, &prior.view, r.data(), &out.view, nullptr, means, threads), "fog", out);
    double light[3 * 4];
    for (double &value : light) value = 0.8;
    keep(rirf_fog_invert(&out.view, &prior.view, light, 0.1, &out.view, threads), "fog_invert", out);
    keep(rirf_shake(&image.view, psf.data(), &out.view, threads), "shake", out);
    keep(rirf_rain_mask(r.data(), &mask.view, means + count, threads), "rain_mask", mask);
    keep(rirf_rain(&out.view, r.data(), &out.view, nullptr, nullptr, threads), "rain", out);
    keep(rirf_noise(&out.view, r.data(), &out.view, means + 2 * count, threads), "noise", out);
    expect(rirf_map_means(&mask.view, means + 3 * count, threads) == RIRF_OK, "means", round);
    expect(rirf_map_coverage(&mask.view, 0.1, means + 4 * count, threads) == RIRF_OK, "coverage",
           round);
    return results;
}

void one_round(uint64_t seed, uint64_t round) {
    Random random(seed * 1000003u + round);
    const Size size = {random.whole(1, 4), random.whole(1, 70), random.whole(1, 70)};
    Image image(random, size);
    Map prior(random, size);
    fill(random, image);
    fill(random, prior, 0.0, 1.0);
    const std::vector<rirf_recipe> r = recipes(random, size.batch);
    const bool with_prior = random.chance(0.5);
    const Results alone = run(random, image, prior, size, r, with_prior, 1, round);
    for (int threads : {2, 3, 7}) {
        // The outputs lie in memory otherwise each time, which must not matter either.
        random.bits();
        const Results together = run(random, image, prior, size, r, with_prior, threads, round);
        expect(alone == together, "results depend on the number of threads", round);
    }
    if (random.chance(0.1)) rirf_release_scratch();
}

}  // namespace

int main(int argc, char **argv) {
    const uint64_t rounds = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20;
    const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1;
    std::atomic<uint64_t> next{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i) {
        callers.emplace_back([&] {
            for (uint64_t round = next++; round < rounds; round = next++) one_round(seed, round);
        });
    }
    for (std::thread &caller : callers) caller.join();
    std::printf("%llu rounds, %d failures, %s\n", static_cast<unsigned long long>(rounds),
                failures.load(), rirf_isa());
    return failures == 0 ? 0 : 1;
}
