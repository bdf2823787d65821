// Calls the C interface with random arguments, good and bad. A good call succeeds, whatever the pixels
// hold; a bad one gives a status and a text that names the argument, and leaves the outputs as they
// were. For the address and undefined-behaviour sanitizers.
//   fuzz CASES [SEED]
#include <cmath>
#include <functional>
#include <string>

#include "views.h"

using namespace test;

namespace {

constexpr double NOT_A_NUMBER = std::numeric_limits<double>::quiet_NaN();
constexpr double INFINITE = std::numeric_limits<double>::infinity();
constexpr int64_t LEAST = std::numeric_limits<int64_t>::min();
constexpr int64_t MOST = std::numeric_limits<int64_t>::max();

int failures = 0;

// An argument of a call: what it is, and the ways in which it can be spoilt.
struct Argument {
    std::string name;
    std::function<void(Random &)> spoil;
};

struct Call {
    std::string name;
    std::vector<Argument> arguments;
    std::function<rirf_status()> run;
};

void nasty(Random &random, Memory &memory) {
    memory.each([&](float &value) {
        if (!random.chance(0.1)) return;
        value = random.one_of<float>({static_cast<float>(NOT_A_NUMBER), static_cast<float>(INFINITE),
                                      -static_cast<float>(INFINITE), 3.4e38f, -3.4e38f, 1e-40f, -0.0f,
                                      -1.0f, 2.0f});
    });
}

// All that a call may take, with memory behind it.
struct World {
    Random random;
    Size size;
    Image image, out, fog, shake, rain, noise;
    Map prior, transmission, mask;
    std::vector<rirf_recipe> recipes;
    std::vector<rirf_truth> truth;
    std::vector<float> psf;
    std::vector<double> light, means;
    std::vector<uint64_t> seeds;
    std::vector<float> numbers;
    // What is handed over; spoiling changes these.
    rirf_image image_view, out_view;
    rirf_map prior_view, transmission_view, mask_view;
    const rirf_image *image_at = &image_view, *out_at = &out_view;
    const rirf_map *prior_at = &prior_view, *transmission_at = &transmission_view;
    const rirf_map *mask_at = &mask_view;
    rirf_record record = {};
    const rirf_recipe *recipes_at;
    float *psf_at;
    const double *light_at;
    double *means_at;
    double floor, threshold;
    int64_t count;
    int threads;
    bool is_aliased = false;

    explicit World(uint64_t seed)
        : random(seed),
          size{random.whole(1, 3), random.whole(1, 33), random.whole(1, 33)},
          image(random, size),
          out(random, size),
          fog(random, size),
          shake(random, size),
          rain(random, size),
          noise(random, size),
          prior(random, size),
          transmission(random, size),
          mask(random, size),
          recipes(test::recipes(random, size.batch)),
          truth(recipes.size()),
          psf(recipes.size() * RIRF_PSF_AREA),
          light(3 * recipes.size()),
          means(recipes.size()),
          seeds(recipes.size(), 5),
          numbers(static_cast<size_t>(random.whole(1, 300))),
          image_view(image.view),
          out_view(out.view),
          prior_view(prior.view),
          transmission_view(transmission.view),
          mask_view(mask.view),
          recipes_at(recipes.data()),
          psf_at(psf.data()),
          light_at(light.data()),
          means_at(means.data()),
          floor(random.real(0.01, 1.0)),
          threshold(random.one_of<double>({0.1, 0.0, -1.0, NOT_A_NUMBER, INFINITE})),
          count(size.batch),
          threads(static_cast<int>(random.one_of<int64_t>({-2147483648, -1, 0, 1, 2, 5, 2147483647}))) {
        fill(random, image);
        fill(random, prior);
        fill(random, transmission);
        fill(random, out);
        for (float &value : psf) value = random.chance(0.05) ? 0.2f : 0.0f;
        for (double &value : light) value = random.real(0.0, 1.0);
        if (random.chance(0.3)) {
            nasty(random, image);
            nasty(random, prior);
            light[0] = random.one_of<double>({NOT_A_NUMBER, INFINITE, 1e300});
            psf[0] = random.one_of<float>({static_cast<float>(NOT_A_NUMBER), 3e38f});
        }
        if (random.chance(0.1)) {  // an input may repeat its elements
            image_view.stride_batch = image_view.stride_channel = 0;
            prior_view.stride_column = 0;
        }
        record.fog = fog.view;
        record.shake = shake.view;
        record.rain = rain.view;
        record.noise = noise.view;
        record.transmission = transmission.view;
        record.mask = mask.view;
        record.psf = psf.data();
        if (random.chance(0.3)) record = {};
    }

    // The memory that a failed call must leave alone.
    std::vector<std::vector<float>> state() const {
        return {out.values, fog.values, shake.values, rain.values, noise.values, transmission.values,
                mask.values, psf, numbers};
    }
};

// Sizes and strides of a view as lists, for images and maps alike.
std::vector<int64_t *> sizes_of(rirf_image &v) { return {&v.batch, &v.height, &v.width}; }
std::vector<int64_t *> sizes_of(rirf_map &v) { return {&v.batch, &v.height, &v.width}; }
std::vector<int64_t *> strides_of(rirf_image &v) {
    return {&v.stride_batch, &v.stride_row, &v.stride_column, &v.stride_channel};
}
std::vector<int64_t *> strides_of(rirf_map &v) {
    return {&v.stride_batch, &v.stride_row, &v.stride_column};
}

template <typename View>
void spoil_view(Random &random, View &view, bool written) {
    std::vector<int64_t *> sizes = sizes_of(view), strides = strides_of(view);
    std::vector<int64_t *> used;
    for (size_t i = 0; i < strides.size(); ++i) {
        if (i >= sizes.size() || *sizes[i] > 1) used.push_back(strides[i]);
    }
    switch (random.whole(0, used.empty() ? 3 : (written ? 5 : 4))) {
        case 0:
            view.data = nullptr;
            break;
        case 1:
            *random.one_of(sizes) =
                random.one_of<int64_t>({0, -1, LEAST, MOST, (int64_t{1} << 24) + 1, -MOST});
            break;
        case 2:
            view.data = reinterpret_cast<float *>(reinterpret_cast<uintptr_t>(view.data) + 1);
            break;
        case 3:
            view.height = 0;
            break;
        case 4:
            *random.one_of(used) = random.one_of<int64_t>({LEAST, MOST, -MOST, MOST / 2});
            break;
        default:
            *random.one_of(used) = 0;
    }
}

Argument recipe_argument(World &w, uint32_t effects, bool by_presence) {
    return {"recipes", [&w, effects, by_presence](Random &random) {
                if (random.chance(0.2)) {
                    w.recipes_at = nullptr;
                    return;
                }
                rirf_recipe &r = w.recipes[static_cast<size_t>(random.whole(0, w.size.batch - 1))];
                if (by_presence && random.chance(0.1)) {
                    r.present = static_cast<uint32_t>(random.whole(16, 0xFFFFFFFF));
                    return;
                }
                // One effect that is read, and one field of it.
                std::vector<uint32_t> bits;
                for (uint32_t bit : {1u, 2u, 4u, 8u}) {
                    if ((effects & bit) != 0) bits.push_back(bit);
                }
                const uint32_t effect = random.one_of(bits);
                r.present = effect;
                const double wild =
                    random.one_of<double>({NOT_A_NUMBER, INFINITE, -INFINITE, 1e308, -1e308, -1e5, 1e5});
                std::vector<double *> fields;
                if (effect == RIRF_FOG) fields = {&r.beta, &r.light[0], &r.light[2]};
                if (effect == RIRF_RAIN) {
                    fields = {&r.density,  &r.slant_deg, &r.length_px,
                              &r.width_px, &r.opacity,   &r.light[1]};
                }
                if (effect == RIRF_NOISE) fields = {&r.gain, &r.offset};
                if (effect == RIRF_SHAKE) {
                    if (random.chance(0.5)) {
                        r.steps = static_cast<int32_t>(
                            random.one_of<int64_t>({0, -1, 4097, -2147483648, 2147483647}));
                        return;
                    }
                    fields = {&r.step_px};
                }
                *random.one_of(fields) = wild;
            }};
}

template <typename View>
Argument view_argument(const char *name, View &view, const View *&at, bool written) {
    return {name, [&view, &at, written](Random &random) {
                if (random.chance(0.1)) {
                    at = nullptr;
                } else {
                    spoil_view(random, view, written);
                }
            }};
}

Argument smaller(const char *name, std::function<void()> shrink) {
    return {name, [shrink](Random &) { shrink(); }};
}

std::vector<Call> calls(World &w) {
    const Argument image = view_argument("image", w.image_view, w.image_at, false);
    const Argument out = view_argument("out", w.out_view, w.out_at, true);
    const Argument prior = view_argument("prior", w.prior_view, w.prior_at, false);
    const Argument mismatch = smaller("out", [&w] { ++w.out_view.width; });
    const Argument aliased = {"out", [&w](Random &random) {
                                  // The same memory, but not the same view.
                                  w.is_aliased = true;
                                  w.out_view = w.image.view;
                                  w.image_view = w.image.view;
                                  const int64_t step = w.out_view.stride_channel;
                                  w.out_view.data += random.chance(0.5) ? step : -step;
                              }};
    const Argument transmission = {"transmission", [&w](Random &random) {
                                       spoil_view(random, w.transmission_view, true);
                                   }};
    const Argument mask = {"mask", [&w](Random &random) { spoil_view(random, w.mask_view, true); }};
    const Argument count = smaller("count", [&w] { w.count = -1; });
    const Argument psf = smaller("psf", [&w] { w.psf_at = nullptr; });
    return {
        {"degrade",
         {image, out, mismatch, aliased, recipe_argument(w, 15, true),
          {"prior", [&w](Random &random) { spoil_view(random, w.prior_view, false); }},
          {"record.fog",
           [&w](Random &) {
               w.record = {};
               w.record.fog = w.out_view;
           }},
          {"record.mask",
           [&w](Random &random) {
               w.record.mask = w.mask.view;
               do {
                   spoil_view(random, w.record.mask, true);
               } while (w.record.mask.data == nullptr);  // which means: not wanted
           }}},
         [&w] {
             return rirf_degrade(w.image_at, w.recipes_at, w.prior_at, w.out_at, &w.record,
                                 w.truth.data(), w.threads);
         }},
        {"prior",
         {view_argument("prior", w.mask_view, w.mask_at, true),
          smaller("recipes", [&w] { w.recipes_at = nullptr; })},
         [&w] { return rirf_prior(w.recipes_at, w.mask_at, w.threads); }},
        {"fog",
         {image, out, prior, mismatch, transmission, aliased, recipe_argument(w, RIRF_FOG, false)},
         [&w] {
             return rirf_fog(w.image_at, w.prior_at, w.recipes_at, w.out_at, w.transmission_at,
                             w.means_at, w.threads);
         }},
        {"fog_invert",
         {image, out, mismatch, view_argument("transmission", w.prior_view, w.prior_at, false),
          smaller("light", [&w] { w.light_at = nullptr; }),
          {"floor",
           [&w](Random &random) {
               w.floor = random.one_of<double>({0.0, -1.0, 1.5, NOT_A_NUMBER, INFINITE});
           }}},
         [&w] {
             return rirf_fog_invert(w.image_at, w.prior_at, w.light_at, w.floor, w.out_at, w.threads);
         }},
        {"shake_kernels",
         {count, psf, recipe_argument(w, RIRF_SHAKE, false)},
         [&w] { return rirf_shake_kernels(w.recipes_at, w.count, w.psf_at, w.truth.data()); }},
        {"shake",
         {image, out, mismatch, aliased, psf},
         [&w] { return rirf_shake(w.image_at, w.psf_at, w.out_at, w.threads); }},
        {"rain_mask",
         {view_argument("mask", w.mask_view, w.mask_at, true), recipe_argument(w, RIRF_RAIN, false)},
         [&w] { return rirf_rain_mask(w.recipes_at, w.mask_at, w.means_at, w.threads); }},
        {"rain",
         {image, out, mismatch, mask, aliased, recipe_argument(w, RIRF_RAIN, false)},
         [&w] {
             return rirf_rain(w.image_at, w.recipes_at, w.out_at, w.mask_at, w.means_at, w.threads);
         }},
        {"noise",
         {image, out, mismatch, aliased, recipe_argument(w, RIRF_NOISE, false)},
         [&w] { return rirf_noise(w.image_at, w.recipes_at, w.out_at, w.means_at, w.threads); }},
        {"noise_variances",
         {image, recipe_argument(w, RIRF_NOISE, false),
          smaller("variances", [&w] { w.means_at = nullptr; })},
         [&w] { return rirf_noise_variances(w.image_at, w.recipes_at, w.means_at, w.threads); }},
        {"map_means",
         {view_argument("map", w.prior_view, w.prior_at, false),
          smaller("out", [&w] { w.means_at = nullptr; })},
         [&w] { return rirf_map_means(w.prior_at, w.means_at, w.threads); }},
        {"map_coverage",
         {view_argument("map", w.prior_view, w.prior_at, false)},
         [&w] { return rirf_map_coverage(w.prior_at, w.threshold, w.means_at, w.threads); }},
        {"severities",
         {count, smaller("recipes", [&w] { w.recipes_at = nullptr; })},
         [&w] { return rirf_severities(w.recipes_at, w.count, w.truth.data()); }},
        {"sample", {count}, [&w] { return rirf_sample(w.seeds.data(), w.count, w.recipes.data()); }},
        {"normals",
         {count},
         [&w] {
             const auto all = static_cast<int64_t>(w.numbers.size());
             return rirf_normals(w.seeds[0], 1, 2, w.random.bits(), w.count < 0 ? w.count : all,
                                 w.numbers.data());
         }},
        {"uniforms",
         {count},
         [&w] {
             const auto all = static_cast<int64_t>(w.numbers.size());
             return rirf_uniforms(w.seeds[0], 1, 2, w.random.bits(), w.count < 0 ? w.count : all,
                                  w.numbers.data());
         }},
    };
}

void complain(uint64_t number, const Call &call, const std::string &spoilt, const char *what) {
    ++failures;
    std::fprintf(stderr, "case %llu, %s, %s spoilt: %s: %s\n", static_cast<unsigned long long>(number),
                 call.name.c_str(), spoilt.empty() ? "nothing" : spoilt.c_str(), what,
                 rirf_last_error());
}

// Bit patterns, because NaN is not equal to itself.
bool same(const std::vector<std::vector<float>> &a, const std::vector<std::vector<float>> &b) {
    for (size_t i = 0; i < a.size(); ++i) {
        if (std::memcmp(a[i].data(), b[i].data(), a[i].size() * sizeof(float)) != 0) return false;
    }
    return true;
}

bool one_case(uint64_t number) {
    World world(number);
    std::vector<Call> all = calls(world);
    Random &random = world.random;
    const Call &call = all[number % all.size()];
    std::string spoilt;
    if (random.chance(0.6)) {
        const Argument &argument = random.one_of(call.arguments);
        argument.spoil(random);
        spoilt = argument.name;
    }
    const std::vector<std::vector<float>> before = world.state();
    const rirf_status status = call.run();
    if (spoilt.empty()) {
        if (status != RIRF_OK) complain(number, call, spoilt, "a good call failed");
        return false;
    }
    const std::string text = rirf_last_error();
    const bool named = text.find(spoilt) != std::string::npos;
    if (status == RIRF_OK) {
        complain(number, call, spoilt, "a bad call succeeded");
    } else if (!named) {
        complain(number, call, spoilt, "the text does not name the argument");
    } else if (world.is_aliased && status != RIRF_ALIASED) {
        complain(number, call, spoilt, "expected the status of shared memory");
    } else if (!same(before, world.state())) {
        complain(number, call, spoilt, "a failed call wrote something");
    }
    return true;
}

}  // namespace

int main(int argc, char **argv) {
    const uint64_t cases = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 5000;
    const uint64_t seed = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 0;
    uint64_t bad = 0;
    for (uint64_t number = 0; number < cases; ++number) bad += one_case(seed * cases + number) ? 1 : 0;
    std::printf("%llu cases, %llu of them bad, %d failures\n", static_cast<unsigned long long>(cases),
                static_cast<unsigned long long>(bad), failures);
    return failures == 0 ? 0 : 1;
}
