#include "common/view.h"

#include <cstdlib>

#include "shake/shake.h"

namespace rirf {
namespace {

// Bytes a view spans: [low, high).
struct Extent {
    uintptr_t low, high;
};

Extent extent(const rirf_image &image) {
    const int64_t size[4] = {image.batch, image.height, image.width, 3};
    const int64_t stride[4] = {image.stride_batch, image.stride_row, image.stride_column,
                               image.stride_channel};
    int64_t low = 0, high = 0;
    for (int axis = 0; axis < 4; ++axis) {
        const int64_t reach = (size[axis] - 1) * stride[axis];
        (reach < 0 ? low : high) += reach;
    }
    const auto base = reinterpret_cast<uintptr_t>(image.data);
    const auto bytes = static_cast<int64_t>(sizeof(float));
    return {base + static_cast<uintptr_t>(low * bytes),
            base + static_cast<uintptr_t>((high + 1) * bytes)};
}

// Whether no two elements share an address: sorted by stride, each step jumps over all of the
// smaller ones. Stricter than necessary only for layouts nobody uses.
bool apart(int axes, const int64_t *size, const int64_t *stride) {
    bool done[4] = {};
    int64_t reach = 0;
    for (int round = 0; round < axes; ++round) {
        int smallest = -1;
        for (int axis = 0; axis < axes; ++axis) {
            if (done[axis]) continue;
            const bool smaller =
                smallest < 0 || std::llabs(stride[axis]) < std::llabs(stride[smallest]);
            if (size[axis] == 1) {
                done[axis] = true;  // its stride is never used
            } else if (smaller) {
                smallest = axis;
            }
        }
        if (smallest < 0) break;
        const int64_t step = std::llabs(stride[smallest]);
        if (step <= reach) return false;
        reach += (size[smallest] - 1) * step;
        done[smallest] = true;
    }
    return true;
}

rirf_status check_sizes(const char *name, const void *view, const void *data, int64_t batch,
                        int64_t height, int64_t width) {
    if (view == nullptr) return fail(RIRF_NULL_POINTER, "%s: got NULL, expected a view", name);
    if (data == nullptr) {
        return fail(RIRF_NULL_POINTER, "%s: its data is NULL, expected float32 values", name);
    }
    const bool good = batch >= 1 && height >= 1 && width >= 1 && batch <= SIDE_MAX &&
                      height <= SIDE_MAX && width <= SIDE_MAX;
    if (!good) {
        return fail(RIRF_BAD_SHAPE,
                    "%s: got a batch of %lld and %lld x %lld pixels, expected sizes from 1 to %lld",
                    name, static_cast<long long>(batch), static_cast<long long>(height),
                    static_cast<long long>(width), static_cast<long long>(SIDE_MAX));
    }
    return RIRF_OK;
}

rirf_status check_agree(const char *name, int64_t batch, int64_t height, int64_t width,
                        const char *as_name, const rirf_image *as) {
    if (batch == as->batch && height == as->height && width == as->width) return RIRF_OK;
    return fail(RIRF_BAD_SHAPE,
                "%s: got a batch of %lld and %lld x %lld pixels, expected %lld and %lld x %lld as "
                "in %s",
                name, static_cast<long long>(batch), static_cast<long long>(height),
                static_cast<long long>(width), static_cast<long long>(as->batch),
                static_cast<long long>(as->height), static_cast<long long>(as->width), as_name);
}

rirf_status check_range(int64_t index, const char *field, double value, double low, double high,
                        bool open_low = false) {
    if (value >= low && value <= high && !(open_low && value == low)) return RIRF_OK;
    return fail(RIRF_BAD_VALUE, "recipes[%lld].%s: got %g, expected a number in %s%g, %g]",
                static_cast<long long>(index), field, value, open_low ? "(" : "[", low, high);
}

constexpr uint32_t ALL_EFFECTS = RIRF_FOG | RIRF_SHAKE | RIRF_RAIN | RIRF_NOISE;

rirf_status check_recipe(const rirf_recipe &r, int64_t i, uint32_t effects) {
    if ((effects & (RIRF_FOG | RIRF_RAIN)) != 0) {
        for (double light : r.light) RIRF_TRY(check_range(i, "light", light, 0.0, 1.0));
    }
    if ((effects & RIRF_FOG) != 0) RIRF_TRY(check_range(i, "beta", r.beta, 0.0, 100.0, true));
    if ((effects & RIRF_SHAKE) != 0) {
        RIRF_TRY(check_range(i, "steps", r.steps, 1, WALK_STEPS_MAX));
        RIRF_TRY(check_range(i, "step_px", r.step_px, 0.0, 1000.0));
    }
    if ((effects & RIRF_RAIN) != 0) {
        RIRF_TRY(check_range(i, "density", r.density, 0.0, 1.0));
        RIRF_TRY(check_range(i, "slant_deg", r.slant_deg, -90.0, 90.0));
        RIRF_TRY(check_range(i, "length_px", r.length_px, 0.0, 1000.0, true));
        RIRF_TRY(check_range(i, "width_px", r.width_px, 0.0, 100.0, true));
        RIRF_TRY(check_range(i, "opacity", r.opacity, 0.0, 1.0));
    }
    if ((effects & RIRF_NOISE) != 0) {
        RIRF_TRY(check_range(i, "gain", r.gain, -10.0, 10.0));
        RIRF_TRY(check_range(i, "offset", r.offset, -255.0, 255.0));
    }
    return RIRF_OK;
}

}  // namespace

rirf_status check_image(const char *name, const rirf_image *image, bool written) {
    RIRF_TRY(check_sizes(name, image, image ? image->data : nullptr, image ? image->batch : 0,
                         image ? image->height : 0, image ? image->width : 0));
    const int64_t size[4] = {image->batch, image->height, image->width, 3};
    const int64_t stride[4] = {image->stride_batch, image->stride_row, image->stride_column,
                               image->stride_channel};
    if (written && !apart(4, size, stride)) {
        return fail(RIRF_BAD_STRIDE,
                    "%s: got strides %lld, %lld, %lld, %lld (batch, row, column, channel), in which "
                    "elements share memory; expected one place for each",
                    name, static_cast<long long>(stride[0]), static_cast<long long>(stride[1]),
                    static_cast<long long>(stride[2]), static_cast<long long>(stride[3]));
    }
    return RIRF_OK;
}

rirf_status check_map(const char *name, const rirf_map *map, bool written) {
    RIRF_TRY(check_sizes(name, map, map ? map->data : nullptr, map ? map->batch : 0,
                         map ? map->height : 0, map ? map->width : 0));
    const int64_t size[3] = {map->batch, map->height, map->width};
    const int64_t stride[3] = {map->stride_batch, map->stride_row, map->stride_column};
    if (written && !apart(3, size, stride)) {
        return fail(RIRF_BAD_STRIDE,
                    "%s: got strides %lld, %lld, %lld (batch, row, column), in which elements share "
                    "memory; expected one place for each",
                    name, static_cast<long long>(stride[0]), static_cast<long long>(stride[1]),
                    static_cast<long long>(stride[2]));
    }
    return RIRF_OK;
}

rirf_status check_like(const char *name, const rirf_image *image, const char *as_name,
                       const rirf_image *as) {
    return check_agree(name, image->batch, image->height, image->width, as_name, as);
}

rirf_status check_like(const char *name, const rirf_map *map, const char *as_name,
                       const rirf_image *as) {
    return check_agree(name, map->batch, map->height, map->width, as_name, as);
}

rirf_status check_apart(const char *name, const rirf_image *image, const char *other_name,
                        const rirf_image *other) {
    const Extent a = extent(*image), b = extent(*other);
    if (a.low >= b.high || b.low >= a.high) return RIRF_OK;
    return fail(RIRF_ALIASED, "%s: shares memory with %s, expected memory of its own", name,
                other_name);
}

rirf_status check_same_or_apart(const char *name, const rirf_image *image, const char *other_name,
                                const rirf_image *other) {
    const bool same = image->data == other->data && image->stride_row == other->stride_row &&
                      image->stride_column == other->stride_column &&
                      image->stride_channel == other->stride_channel &&
                      (image->batch == 1 || image->stride_batch == other->stride_batch);
    if (same) return RIRF_OK;
    const Extent a = extent(*image), b = extent(*other);
    if (a.low >= b.high || b.low >= a.high) return RIRF_OK;
    return fail(RIRF_ALIASED,
                "%s: shares memory with %s without being the same view; expected the same view or "
                "memory of its own",
                name, other_name);
}

rirf_status check_recipes(const rirf_recipe *recipes, int64_t count, uint32_t effects) {
    if (recipes == nullptr) {
        return fail(RIRF_NULL_POINTER, "recipes: got NULL, expected one recipe for each image");
    }
    for (int64_t i = 0; i < count; ++i) RIRF_TRY(check_recipe(recipes[i], i, effects));
    return RIRF_OK;
}

rirf_status check_present(const rirf_recipe *recipes, int64_t count) {
    if (recipes == nullptr) {
        return fail(RIRF_NULL_POINTER, "recipes: got NULL, expected one recipe for each image");
    }
    for (int64_t i = 0; i < count; ++i) {
        if ((recipes[i].present & ~ALL_EFFECTS) != 0) {
            return fail(RIRF_BAD_VALUE,
                        "recipes[%lld].present: got %u, expected a sum of RIRF_FOG (1), RIRF_SHAKE "
                        "(2), RIRF_RAIN (4), RIRF_NOISE (8)",
                        static_cast<long long>(i), recipes[i].present);
        }
        RIRF_TRY(check_recipe(recipes[i], i, recipes[i].present));
    }
    return RIRF_OK;
}

}  // namespace rirf
