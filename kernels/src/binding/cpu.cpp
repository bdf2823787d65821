// rirf_kernels._cpu: the C interface for arrays in CPU memory. Shapes of outputs are settled in
// rirf_kernels/_api.py; here everything is checked again, because the pointers are real.
#include "binding/views.h"

namespace rirf::binding {
namespace {

constexpr int CPU = nb::device::cpu::value;

// Calls a function of the C interface without the GIL.
template <typename Call>
void without_gil(Call call) {
    rirf_status status;
    {
        nb::gil_scoped_release release;
        status = call();
    }
    raise(status);
}

void words(uint64_t seed, uint32_t stage, uint32_t stream, uint64_t first, nb::handle out) {
    Arguments args(CPU);
    int64_t count = 0;
    uint32_t *to = args.run<uint32_t>("out", out, -1, true, &count);
    without_gil([&] { return rirf_words(seed, stage, stream, first, count, to); });
}

void uniforms(uint64_t seed, uint32_t stage, uint32_t stream, uint64_t first, nb::handle out) {
    Arguments args(CPU);
    int64_t count = 0;
    float *to = args.run<float>("out", out, -1, true, &count);
    without_gil([&] { return rirf_uniforms(seed, stage, stream, first, count, to); });
}

void normals(uint64_t seed, uint32_t stage, uint32_t stream, uint64_t first, nb::handle out) {
    Arguments args(CPU);
    int64_t count = 0;
    float *to = args.run<float>("out", out, -1, true, &count);
    without_gil([&] { return rirf_normals(seed, stage, stream, first, count, to); });
}

void sample(nb::handle seeds, nb::handle recipes) {
    Arguments args(CPU);
    int64_t count = 0;
    const uint64_t *keys = args.run<uint64_t>("seeds", seeds, -1, false, &count);
    rirf_recipe *to = args.structures<rirf_recipe>("recipes", recipes, count, true);
    without_gil([&] { return rirf_sample(keys, count, to); });
}

void prior(nb::handle recipes, nb::handle out, int threads) {
    Arguments args(CPU);
    const rirf_map to = args.map("out", out, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, to.batch, false);
    without_gil([&] { return rirf_prior(r, &to, threads); });
}

void fog(nb::handle image, nb::handle prior, nb::handle recipes, nb::handle out,
         nb::handle transmission, nb::handle means, int threads) {
    Arguments args(CPU);
    const rirf_image from = args.image("image", image, false);
    const rirf_map near = args.map("prior", prior, false);
    const rirf_image to = args.image("out", out, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, from.batch, false);
    rirf_map t = {};
    if (!transmission.is_none()) t = args.map("transmission", transmission, true);
    double *m = means.is_none() ? nullptr : args.run<double>("means", means, from.batch, true);
    without_gil([&] {
        return rirf_fog(&from, &near, r, &to, transmission.is_none() ? nullptr : &t, m, threads);
    });
}

void fog_invert(nb::handle image, nb::handle transmission, nb::handle light, double floor,
                nb::handle out, int threads) {
    Arguments args(CPU);
    const rirf_image from = args.image("image", image, false);
    const rirf_map t = args.map("transmission", transmission, false);
    const rirf_image to = args.image("out", out, true);
    const double *colour = args.run<double>("light", light, 3 * from.batch, false, nullptr, {3});
    without_gil([&] { return rirf_fog_invert(&from, &t, colour, floor, &to, threads); });
}

void shake_kernels(nb::handle recipes, nb::handle psf, nb::handle truth) {
    Arguments args(CPU);
    int64_t count = 0;
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, -1, false, &count);
    float *to = args.psf("psf", psf, count, true);
    rirf_truth *t = args.structures<rirf_truth>("truth", truth, count, true);
    without_gil([&] { return rirf_shake_kernels(r, count, to, t); });
}

void shake(nb::handle image, nb::handle psf, nb::handle out, int threads) {
    Arguments args(CPU);
    const rirf_image from = args.image("image", image, false);
    const rirf_image to = args.image("out", out, true);
    const float *kernels = args.psf("psf", psf, from.batch, false);
    without_gil([&] { return rirf_shake(&from, kernels, &to, threads); });
}

void rain_mask(nb::handle recipes, nb::handle mask, nb::handle coverage, int threads) {
    Arguments args(CPU);
    const rirf_map to = args.map("mask", mask, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, to.batch, false);
    double *c = coverage.is_none() ? nullptr : args.run<double>("coverage", coverage, to.batch, true);
    without_gil([&] { return rirf_rain_mask(r, &to, c, threads); });
}

void rain(nb::handle image, nb::handle recipes, nb::handle out, nb::handle mask,
          nb::handle coverage, int threads) {
    Arguments args(CPU);
    const rirf_image from = args.image("image", image, false);
    const rirf_image to = args.image("out", out, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, from.batch, false);
    rirf_map m = {};
    if (!mask.is_none()) m = args.map("mask", mask, true);
    double *c =
        coverage.is_none() ? nullptr : args.run<double>("coverage", coverage, from.batch, true);
    without_gil([&] {
        return rirf_rain(&from, r, &to, mask.is_none() ? nullptr : &m, c, threads);
    });
}

void noise(nb::handle image, nb::handle recipes, nb::handle out, nb::handle variances,
           int threads) {
    Arguments args(CPU);
    const rirf_image from = args.image("image", image, false);
    const rirf_image to = args.image("out", out, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, from.batch, false);
    double *v =
        variances.is_none() ? nullptr : args.run<double>("variances", variances, from.batch, true);
    without_gil([&] { return rirf_noise(&from, r, &to, v, threads); });
}

void noise_variances(nb::handle image, nb::handle recipes, nb::handle variances, int threads) {
    Arguments args(CPU);
    const rirf_image from = args.image("image", image, false);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, from.batch, false);
    double *v = args.run<double>("variances", variances, from.batch, true);
    without_gil([&] { return rirf_noise_variances(&from, r, v, threads); });
}

void degrade(nb::handle image, nb::handle recipes, nb::handle prior, nb::handle out,
             nb::dict stages, nb::handle transmission, nb::handle mask, nb::handle psf,
             nb::handle truth, int threads) {
    Arguments args(CPU);
    const rirf_image from = args.image("image", image, false);
    const rirf_image to = args.image("out", out, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, from.batch, false);
    rirf_map near = {};
    if (!prior.is_none()) near = args.map("prior", prior, false);
    rirf_record record = {};
    args.stages(stages, &record);
    if (!transmission.is_none()) record.transmission = args.map("transmission", transmission, true);
    if (!mask.is_none()) record.mask = args.map("mask", mask, true);
    if (!psf.is_none()) {
        record.psf = args.psf("psf", psf, from.batch, true);
    }
    rirf_truth *t =
        truth.is_none() ? nullptr : args.structures<rirf_truth>("truth", truth, from.batch, true);
    without_gil([&] {
        return rirf_degrade(&from, r, prior.is_none() ? nullptr : &near, &to, &record, t, threads);
    });
}

void map_means(nb::handle map, nb::handle out, int threads) {
    Arguments args(CPU);
    const rirf_map from = args.map("map", map, false);
    double *to = args.run<double>("out", out, from.batch, true);
    without_gil([&] { return rirf_map_means(&from, to, threads); });
}

void map_coverage(nb::handle map, double threshold, nb::handle out, int threads) {
    Arguments args(CPU);
    const rirf_map from = args.map("map", map, false);
    double *to = args.run<double>("out", out, from.batch, true);
    without_gil([&] { return rirf_map_coverage(&from, threshold, to, threads); });
}

void severities(nb::handle recipes, nb::handle truth) {
    Arguments args(CPU);
    int64_t count = 0;
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, -1, false, &count);
    rirf_truth *t = args.structures<rirf_truth>("truth", truth, count, true);
    without_gil([&] { return rirf_severities(r, count, t); });
}

void frame_to_planes(nb::handle frame, nb::handle out, int threads) {
    Arguments args(CPU);
    const rirf_frame from = args.frame("frame", frame, false);
    const rirf_planes to = args.planes("out", out, true);
    without_gil([&] { return rirf_frame_to_planes(&from, &to, threads); });
}

void planes_to_frame(nb::handle planes, nb::handle out, int threads) {
    Arguments args(CPU);
    const rirf_planes from = args.planes("planes", planes, false);
    const rirf_frame to = args.frame("out", out, true);
    without_gil([&] { return rirf_planes_to_frame(&from, &to, threads); });
}

void blend_tile(nb::handle tile, nb::handle row_weights, nb::handle column_weights,
                nb::handle sums, int threads) {
    Arguments args(CPU);
    const rirf_planes from = args.planes("tile", tile, false);
    const rirf_planes to = args.planes("sums", sums, true, false);
    const float *rows = args.run<float>("row_weights", row_weights, to.height, false);
    const float *columns = args.run<float>("column_weights", column_weights, to.width, false);
    without_gil([&] { return rirf_blend_tile(&from, rows, columns, &to, threads); });
}

void residual(nb::handle frame, nb::handle restored, nb::handle transmission, nb::handle light,
              nb::handle psf, nb::handle shift, nb::handle variance, nb::handle block_variance,
              nb::handle out, int threads) {
    Arguments args(CPU);
    const rirf_frame before = args.frame("frame", frame, false);
    const rirf_frame after = args.frame("restored", restored, false);
    const rirf_map t = args.map("transmission", transmission, false);
    const double *colour = args.run<double>("light", light, 3, false);
    constexpr int64_t entries = 3 * 256;
    rirf_model model = {};
    for (int c = 0; c < 3; ++c) model.light[c] = colour[c];
    if (!psf.is_none()) model.psf = args.psf("psf", psf, 1, false);
    model.shift = args.run<float>("shift", shift, entries, false);
    model.variance = args.run<float>("variance", variance, entries, false);
    model.block_variance = args.run<float>("block_variance", block_variance, entries, false);
    double *to = args.run<double>("out", out, 4, true);
    rirf_moments moments = {};
    without_gil([&] { return rirf_residual(&before, &after, &t, &model, &moments, threads); });
    to[0] = moments.square;
    to[1] = moments.variance;
    to[2] = moments.block_square;
    to[3] = moments.block_variance;
}

}  // namespace

NB_MODULE(_cpu, m) {
    using nb::arg;
    m.doc() = "Degradation kernels for arrays in CPU memory; use them through rirf_kernels.";
    m.def("abi", &rirf_abi);
    m.def("isa", [] { return std::string(rirf_isa()); });
    m.def("release_scratch", &rirf_release_scratch);
    m.def("words", &words, arg("seed"), arg("stage"), arg("stream"), arg("first"), arg("out"));
    m.def("uniforms", &uniforms, arg("seed"), arg("stage"), arg("stream"), arg("first"), arg("out"));
    m.def("normals", &normals, arg("seed"), arg("stage"), arg("stream"), arg("first"), arg("out"));
    m.def("sample", &sample, arg("seeds"), arg("recipes"));
    m.def("prior", &prior, arg("recipes"), arg("out"), arg("threads"));
    m.def("fog", &fog, arg("image"), arg("prior"), arg("recipes"), arg("out"),
          arg("transmission").none(), arg("means").none(), arg("threads"));
    m.def("fog_invert", &fog_invert, arg("image"), arg("transmission"), arg("light"), arg("floor"),
          arg("out"), arg("threads"));
    m.def("shake_kernels", &shake_kernels, arg("recipes"), arg("psf"), arg("truth"));
    m.def("shake", &shake, arg("image"), arg("psf"), arg("out"), arg("threads"));
    m.def("rain_mask", &rain_mask, arg("recipes"), arg("mask"), arg("coverage").none(),
          arg("threads"));
    m.def("rain", &rain, arg("image"), arg("recipes"), arg("out"), arg("mask").none(),
          arg("coverage").none(), arg("threads"));
    m.def("noise", &noise, arg("image"), arg("recipes"), arg("out"), arg("variances").none(),
          arg("threads"));
    m.def("noise_variances", &noise_variances, arg("image"), arg("recipes"), arg("variances"),
          arg("threads"));
    m.def("degrade", &degrade, arg("image"), arg("recipes"), arg("prior").none(), arg("out"),
          arg("stages"), arg("transmission").none(), arg("mask").none(), arg("psf").none(),
          arg("truth").none(), arg("threads"));
    m.def("map_means", &map_means, arg("map"), arg("out"), arg("threads"));
    m.def("map_coverage", &map_coverage, arg("map"), arg("threshold"), arg("out"), arg("threads"));
    m.def("severities", &severities, arg("recipes"), arg("truth"));
    m.def("frame_to_planes", &frame_to_planes, arg("frame").none(), arg("out"), arg("threads"));
    m.def("planes_to_frame", &planes_to_frame, arg("planes").none(), arg("out"), arg("threads"));
    m.def("blend_tile", &blend_tile, arg("tile").none(), arg("row_weights").none(),
          arg("column_weights").none(), arg("sums").none(), arg("threads"));
    m.def("residual", &residual, arg("frame").none(), arg("restored").none(),
          arg("transmission").none(), arg("light"), arg("psf").none(), arg("shift").none(),
          arg("variance").none(), arg("block_variance").none(), arg("out"), arg("threads"));
}

}  // namespace rirf::binding
