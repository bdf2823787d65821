// rirf_kernels._cuda: the CUDA half for arrays in device memory; use it through rirf_kernels.cuda.
// Streams are addresses. Nothing here waits but `wait`.
#include "binding/views.h"
#include "common/memory.cuh"
#include "rirf_kernels_cuda.h"

namespace rirf::binding {
namespace {

#if defined(RIRF_HOST_RUN)
constexpr int DEVICE = nb::device::cpu::value;
#else
constexpr int DEVICE = nb::device::cuda::value;
#endif

void *stream_of(uintptr_t stream) { return reinterpret_cast<void *>(stream); }

// Work memory: bytes, as long as the caller likes.
struct Space {
    void *data = nullptr;
    size_t bytes = 0;
};

Space space_of(Arguments &args, nb::handle workspace) {
    int64_t bytes = 0;
    Space space;
    space.data = args.run<uint8_t>("workspace", workspace, -1, true, &bytes);
    space.bytes = static_cast<size_t>(bytes);
    return space;
}

double *doubles(Arguments &args, const char *name, nb::handle value, int64_t count) {
    return value.is_none() ? nullptr : args.run<double>(name, value, count, true);
}

size_t workspace_bytes(int64_t batch, int64_t height, int64_t width) {
    size_t bytes = 0;
    raise(rirf_cuda_workspace(batch, height, width, &bytes));
    return bytes;
}

void check_recipes(nb::handle recipes) {
    Arguments args(nb::device::cpu::value);
    int64_t count = 0;
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, -1, false, &count);
    raise(rirf_cuda_check_recipes(r, count));
}

void words(uint64_t seed, uint32_t stage, uint32_t stream_number, uint64_t first, nb::handle out,
           uintptr_t stream) {
    Arguments args(DEVICE);
    int64_t count = 0;
    uint32_t *to = args.run<uint32_t>("out", out, -1, true, &count);
    raise(rirf_cuda_words(seed, stage, stream_number, first, count, to, stream_of(stream)));
}

void normals(uint64_t seed, uint32_t stage, uint32_t stream_number, uint64_t first, nb::handle out,
             uintptr_t stream) {
    Arguments args(DEVICE);
    int64_t count = 0;
    float *to = args.run<float>("out", out, -1, true, &count);
    raise(rirf_cuda_normals(seed, stage, stream_number, first, count, to, stream_of(stream)));
}

void sample(nb::handle seeds, nb::handle recipes, uintptr_t stream) {
    Arguments args(DEVICE);
    int64_t bytes = 0;
    // Seeds as bytes: torch has hardly any unsigned 64-bit numbers.
    const uint8_t *keys = args.run<uint8_t>("seeds", seeds, -1, false, &bytes);
    if (bytes % 8 != 0 || reinterpret_cast<uintptr_t>(keys) % 8 != 0) {
        throw nb::value_error("seeds: expected whole 8-byte numbers at a multiple of 8");
    }
    rirf_recipe *to = args.structures<rirf_recipe>("recipes", recipes, bytes / 8, true);
    raise(rirf_cuda_sample(reinterpret_cast<const uint64_t *>(keys), bytes / 8, to,
                           stream_of(stream)));
}

void prior(nb::handle recipes, nb::handle out, nb::handle workspace, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_map to = args.map("out", out, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, to.batch, false);
    const Space space = space_of(args, workspace);
    raise(rirf_cuda_prior(r, &to, space.data, space.bytes, stream_of(stream)));
}

void fog(nb::handle image, nb::handle prior, nb::handle recipes, nb::handle out,
         nb::handle transmission, nb::handle means, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_image from = args.image("image", image, false);
    const rirf_map near = args.map("prior", prior, false);
    const rirf_image to = args.image("out", out, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, from.batch, false);
    rirf_map t = {};
    if (!transmission.is_none()) t = args.map("transmission", transmission, true);
    double *m = doubles(args, "means", means, from.batch);
    raise(rirf_cuda_fog(&from, &near, r, &to, transmission.is_none() ? nullptr : &t, m,
                        stream_of(stream)));
}

void fog_invert(nb::handle image, nb::handle transmission, nb::handle light, double floor,
                nb::handle out, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_image from = args.image("image", image, false);
    const rirf_map t = args.map("transmission", transmission, false);
    const rirf_image to = args.image("out", out, true);
    const double *colour = args.run<double>("light", light, 3 * from.batch, false);
    raise(rirf_cuda_fog_invert(&from, &t, colour, floor, &to, stream_of(stream)));
}

void shake_kernels(nb::handle recipes, nb::handle psf, nb::handle truth, uintptr_t stream) {
    Arguments args(DEVICE);
    int64_t count = 0;
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, -1, false, &count);
    float *to = args.psf("psf", psf, count, true);
    rirf_truth *t =
        truth.is_none() ? nullptr : args.structures<rirf_truth>("truth", truth, count, true);
    raise(rirf_cuda_shake_kernels(r, count, to, t, stream_of(stream)));
}

void shake(nb::handle image, nb::handle psf, nb::handle out, nb::handle workspace,
           uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_image from = args.image("image", image, false);
    const rirf_image to = args.image("out", out, true);
    const float *kernels = args.psf("psf", psf, from.batch, false);
    const Space space = space_of(args, workspace);
    raise(rirf_cuda_shake(&from, kernels, &to, space.data, space.bytes, stream_of(stream)));
}

void rain_mask(nb::handle recipes, nb::handle mask, nb::handle coverage, nb::handle workspace,
               uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_map to = args.map("mask", mask, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, to.batch, false);
    double *c = doubles(args, "coverage", coverage, to.batch);
    const Space space = space_of(args, workspace);
    raise(rirf_cuda_rain_mask(r, &to, c, space.data, space.bytes, stream_of(stream)));
}

void rain(nb::handle image, nb::handle recipes, nb::handle out, nb::handle mask,
          nb::handle coverage, nb::handle workspace, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_image from = args.image("image", image, false);
    const rirf_image to = args.image("out", out, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, from.batch, false);
    rirf_map m = {};
    if (!mask.is_none()) m = args.map("mask", mask, true);
    double *c = doubles(args, "coverage", coverage, from.batch);
    const Space space = space_of(args, workspace);
    raise(rirf_cuda_rain(&from, r, &to, mask.is_none() ? nullptr : &m, c, space.data, space.bytes,
                         stream_of(stream)));
}

void noise(nb::handle image, nb::handle recipes, nb::handle out, nb::handle variances,
           uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_image from = args.image("image", image, false);
    const rirf_image to = args.image("out", out, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, from.batch, false);
    double *v = doubles(args, "variances", variances, from.batch);
    raise(rirf_cuda_noise(&from, r, &to, v, stream_of(stream)));
}

void noise_variances(nb::handle image, nb::handle recipes, nb::handle variances,
                     uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_image from = args.image("image", image, false);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, from.batch, false);
    double *v = args.run<double>("variances", variances, from.batch, true);
    raise(rirf_cuda_noise_variances(&from, r, v, stream_of(stream)));
}

void degrade(nb::handle image, nb::handle recipes, nb::handle prior, nb::handle out,
             nb::dict stages, nb::handle transmission, nb::handle mask, nb::handle psf,
             nb::handle truth, nb::handle workspace, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_image from = args.image("image", image, false);
    const rirf_image to = args.image("out", out, true);
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, from.batch, false);
    rirf_map near = {};
    if (!prior.is_none()) near = args.map("prior", prior, false);
    rirf_record record = {};
    args.stages(stages, &record);
    if (!transmission.is_none()) record.transmission = args.map("transmission", transmission, true);
    if (!mask.is_none()) record.mask = args.map("mask", mask, true);
    if (!psf.is_none()) record.psf = args.psf("psf", psf, from.batch, true);
    rirf_truth *t =
        truth.is_none() ? nullptr : args.structures<rirf_truth>("truth", truth, from.batch, true);
    const Space space = space_of(args, workspace);
    raise(rirf_cuda_degrade(&from, r, prior.is_none() ? nullptr : &near, &to, &record, t,
                            space.data, space.bytes, stream_of(stream)));
}

void map_means(nb::handle map, nb::handle out, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_map from = args.map("map", map, false);
    double *to = args.run<double>("out", out, from.batch, true);
    raise(rirf_cuda_map_means(&from, to, stream_of(stream)));
}

void map_coverage(nb::handle map, double threshold, nb::handle out, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_map from = args.map("map", map, false);
    double *to = args.run<double>("out", out, from.batch, true);
    raise(rirf_cuda_map_coverage(&from, threshold, to, stream_of(stream)));
}

void severities(nb::handle recipes, nb::handle truth, uintptr_t stream) {
    Arguments args(DEVICE);
    int64_t count = 0;
    const rirf_recipe *r = args.structures<rirf_recipe>("recipes", recipes, -1, false, &count);
    rirf_truth *t = args.structures<rirf_truth>("truth", truth, count, true);
    raise(rirf_cuda_severities(r, count, t, stream_of(stream)));
}

void frame_to_planes(nb::handle frame, nb::handle out, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_frame from = args.frame("frame", frame, false);
    const rirf_planes to = args.planes("out", out, true);
    raise(rirf_cuda_frame_to_planes(&from, &to, stream_of(stream)));
}

void planes_to_frame(nb::handle planes, nb::handle out, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_planes from = args.planes("planes", planes, false);
    const rirf_frame to = args.frame("out", out, true);
    raise(rirf_cuda_planes_to_frame(&from, &to, stream_of(stream)));
}

void blend_tile(nb::handle tile, nb::handle row_weights, nb::handle column_weights,
                nb::handle sums, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_planes from = args.planes("tile", tile, false);
    const rirf_planes to = args.planes("sums", sums, true, false);
    const float *rows = args.run<float>("row_weights", row_weights, to.height, false);
    const float *columns = args.run<float>("column_weights", column_weights, to.width, false);
    raise(rirf_cuda_blend_tile(&from, rows, columns, &to, stream_of(stream)));
}

void residual(nb::handle frame, nb::handle restored, nb::handle transmission, double red,
              double green, double blue, nb::handle psf, nb::handle shift, nb::handle variance,
              nb::handle block_variance, nb::handle out, uintptr_t stream) {
    Arguments args(DEVICE);
    const rirf_frame before = args.frame("frame", frame, false);
    const rirf_frame after = args.frame("restored", restored, false);
    const rirf_map t = args.map("transmission", transmission, false);
    rirf_model model = {};
    model.light[0] = red;
    model.light[1] = green;
    model.light[2] = blue;
    if (!psf.is_none()) model.psf = args.psf("psf", psf, 1, false);
    model.shift = args.run<float>("shift", shift, 3 * 256, false);
    model.variance = args.run<float>("variance", variance, 3 * 256, false);
    model.block_variance = args.run<float>("block_variance", block_variance, 3 * 256, false);
    double *moments = args.run<double>("out", out, 4, true);
    static_assert(sizeof(rirf_moments) == 4 * sizeof(double));
    raise(rirf_cuda_residual(&before, &after, &t, &model,
                             reinterpret_cast<rirf_moments *>(moments), stream_of(stream)));
}

uintptr_t allocate(size_t bytes) {
    void *memory = nullptr;
    raise(cuda::allocate(bytes, &memory));
    return reinterpret_cast<uintptr_t>(memory);
}

void upload(uintptr_t device, nb::handle host, uintptr_t stream) {
    Arguments args(nb::device::cpu::value);
    int64_t bytes = 0;
    const uint8_t *from = args.run<uint8_t>("host", host, -1, false, &bytes);
    raise(cuda::upload(reinterpret_cast<void *>(device), from, static_cast<size_t>(bytes),
                       stream_of(stream)));
}

void download(nb::handle host, uintptr_t device, uintptr_t stream) {
    Arguments args(nb::device::cpu::value);
    int64_t bytes = 0;
    uint8_t *to = args.run<uint8_t>("host", host, -1, true, &bytes);
    raise(cuda::download(to, reinterpret_cast<const void *>(device), static_cast<size_t>(bytes),
                         stream_of(stream)));
}

void wait(uintptr_t stream) {
    rirf_status status;
    {
        nb::gil_scoped_release release;
        status = cuda::wait(stream_of(stream));
    }
    raise(status);
}

}  // namespace

NB_MODULE(_cuda, m) {
    using nb::arg;
    m.doc() = "Degradation kernels for arrays in CUDA memory; use them through rirf_kernels.cuda.";
    m.def("architectures", [] { return std::string(rirf_cuda_architectures()); });
    m.def("device_count", &cuda::device_count);
    m.def("last_error", [] { return std::string(rirf_last_error()); });
    m.def("allocate", &allocate, arg("bytes"));
    m.def("release", [](uintptr_t memory) { cuda::release(reinterpret_cast<void *>(memory)); },
          arg("memory"));
    m.def("upload", &upload, arg("device"), arg("host"), arg("stream"));
    m.def("download", &download, arg("host"), arg("device"), arg("stream"));
    m.def("wait", &wait, arg("stream"));
    m.def("workspace_bytes", &workspace_bytes, arg("batch"), arg("height"), arg("width"));
    m.def("check_recipes", &check_recipes, arg("recipes"));
    m.def("words", &words, arg("seed"), arg("stage"), arg("stream_number"), arg("first"),
          arg("out"), arg("stream"));
    m.def("normals", &normals, arg("seed"), arg("stage"), arg("stream_number"), arg("first"),
          arg("out"), arg("stream"));
    m.def("sample", &sample, arg("seeds"), arg("recipes"), arg("stream"));
    m.def("prior", &prior, arg("recipes"), arg("out"), arg("workspace"), arg("stream"));
    m.def("fog", &fog, arg("image"), arg("prior"), arg("recipes"), arg("out"),
          arg("transmission").none(), arg("means").none(), arg("stream"));
    m.def("fog_invert", &fog_invert, arg("image"), arg("transmission"), arg("light"), arg("floor"),
          arg("out"), arg("stream"));
    m.def("shake_kernels", &shake_kernels, arg("recipes"), arg("psf"), arg("truth").none(),
          arg("stream"));
    m.def("shake", &shake, arg("image"), arg("psf"), arg("out"), arg("workspace"), arg("stream"));
    m.def("rain_mask", &rain_mask, arg("recipes"), arg("mask"), arg("coverage").none(),
          arg("workspace"), arg("stream"));
    m.def("rain", &rain, arg("image"), arg("recipes"), arg("out"), arg("mask").none(),
          arg("coverage").none(), arg("workspace"), arg("stream"));
    m.def("noise", &noise, arg("image"), arg("recipes"), arg("out"), arg("variances").none(),
          arg("stream"));
    m.def("noise_variances", &noise_variances, arg("image"), arg("recipes"), arg("variances"),
          arg("stream"));
    m.def("degrade", &degrade, arg("image"), arg("recipes"), arg("prior").none(), arg("out"),
          arg("stages"), arg("transmission").none(), arg("mask").none(), arg("psf").none(),
          arg("truth").none(), arg("workspace"), arg("stream"));
    m.def("map_means", &map_means, arg("map"), arg("out"), arg("stream"));
    m.def("map_coverage", &map_coverage, arg("map"), arg("threshold"), arg("out"), arg("stream"));
    m.def("severities", &severities, arg("recipes"), arg("truth"), arg("stream"));
    m.def("frame_to_planes", &frame_to_planes, arg("frame"), arg("out"), arg("stream"));
    m.def("planes_to_frame", &planes_to_frame, arg("planes"), arg("out"), arg("stream"));
    m.def("blend_tile", &blend_tile, arg("tile"), arg("row_weights"), arg("column_weights"),
          arg("sums"), arg("stream"));
    m.def("residual", &residual, arg("frame"), arg("restored"), arg("transmission"), arg("red"),
          arg("green"), arg("blue"), arg("psf").none(), arg("shift"), arg("variance"),
          arg("block_variance"), arg("out"), arg("stream"));
}

}  // namespace rirf::binding
