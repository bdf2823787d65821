#include "common/calls.h"

namespace rirf {

rirf_status check_in_place(const rirf_image *image, const rirf_image *out) {
    RIRF_TRY(check_image("image", image, false));
    RIRF_TRY(check_image("out", out, true));
    RIRF_TRY(check_like("out", out, "image", image));
    return check_same_or_apart("out", out, "image", image);
}

rirf_status check_in_place(const rirf_image *image, const rirf_image *out, const char *name,
                           const rirf_map *map, bool written) {
    RIRF_TRY(check_in_place(image, out));
    if (map == nullptr && written) return RIRF_OK;
    RIRF_TRY(check_map(name, map, written));
    RIRF_TRY(check_like(name, map, "image", image));
    const Used read[] = {{"image", layout_of(*image), false}, {name, layout_of(*map), written}};
    RIRF_TRY(check_apart(read, 2));
    const Used results[] = {read[1], {"out", layout_of(*out), true}};
    return check_apart(results, 2);
}

rirf_status check_fog(const rirf_image *image, const rirf_map *prior, const rirf_image *out,
                      const rirf_map *transmission) {
    RIRF_TRY(check_in_place(image, out, "prior", prior, false));
    RIRF_TRY(check_in_place(image, out, "transmission", transmission, true));
    if (transmission == nullptr) return RIRF_OK;
    const Used used[] = {{"prior", layout_of(*prior), false},
                         {"transmission", layout_of(*transmission), true}};
    return check_apart(used, 2);
}

rirf_status check_fog_invert(const rirf_image *image, const rirf_map *transmission,
                             const double *light, double floor, const rirf_image *out) {
    RIRF_TRY(check_in_place(image, out, "transmission", transmission, false));
    if (light == nullptr) return fail(RIRF_NULL_POINTER, "light: got NULL");
    if (floor > 0.0 && floor <= 1.0) return RIRF_OK;
    return fail(RIRF_BAD_VALUE, "floor: got %g, expected a number in (0, 1]", floor);
}

rirf_status check_shake(const rirf_image *image, const float *psf, const rirf_image *out) {
    RIRF_TRY(check_image("image", image, false));
    RIRF_TRY(check_image("out", out, true));
    RIRF_TRY(check_like("out", out, "image", image));
    if (psf == nullptr) return fail(RIRF_NULL_POINTER, "psf: got NULL");
    const Used used[] = {{"image", layout_of(*image), false},
                         {"psf", layout_of(psf, image->batch * RIRF_PSF_AREA), false},
                         {"out", layout_of(*out), true}};
    return check_apart(used, 3);
}

namespace {

rirf_status check_record(const rirf_record &record, const rirf_image *image) {
    const struct {
        const char *name;
        const rirf_image *view;
    } stages[] = {{"record.fog", &record.fog},
                  {"record.shake", &record.shake},
                  {"record.rain", &record.rain},
                  {"record.noise", &record.noise}};
    for (const auto &stage : stages) {
        if (stage.view->data == nullptr) continue;
        RIRF_TRY(check_image(stage.name, stage.view, true));
        RIRF_TRY(check_like(stage.name, stage.view, "image", image));
    }
    const struct {
        const char *name;
        const rirf_map *view;
    } maps[] = {{"record.transmission", &record.transmission}, {"record.mask", &record.mask}};
    for (const auto &map : maps) {
        if (map.view->data == nullptr) continue;
        RIRF_TRY(check_map(map.name, map.view, true));
        RIRF_TRY(check_like(map.name, map.view, "image", image));
    }
    return RIRF_OK;
}

}  // namespace

rirf_status check_degrade(const rirf_image *image, const rirf_map *prior, const rirf_image *out,
                          const rirf_record *record) {
    RIRF_TRY(check_image("image", image, false));
    RIRF_TRY(check_image("out", out, true));
    RIRF_TRY(check_like("out", out, "image", image));
    if (prior != nullptr) {
        RIRF_TRY(check_map("prior", prior, false));
        RIRF_TRY(check_like("prior", prior, "image", image));
    }
    const rirf_record kept = record != nullptr ? *record : rirf_record{};
    RIRF_TRY(check_record(kept, image));
    const Used used[] = {
        {"image", layout_of(*image), false},
        {"prior", layout_of(prior != nullptr ? *prior : rirf_map{}), false},
        {"out", layout_of(*out), true},
        {"record.fog", layout_of(kept.fog), true},
        {"record.shake", layout_of(kept.shake), true},
        {"record.rain", layout_of(kept.rain), true},
        {"record.noise", layout_of(kept.noise), true},
        {"record.transmission", layout_of(kept.transmission), true},
        {"record.mask", layout_of(kept.mask), true},
        {"record.psf", layout_of(kept.psf, image->batch * RIRF_PSF_AREA), true},
    };
    return check_apart(used, static_cast<int>(sizeof used / sizeof used[0]));
}

}  // namespace rirf
