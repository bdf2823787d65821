#include "common/view.h"

#include <cstdlib>

#include "shake/shake.h"

namespace rirf {
namespace {

// Bytes a view spans: [low, high).
struct Extent {
    uintptr_t low, high;
};

Extent extent(const Layout &view) {
    int64_t low = 0, high = 0;
    for (int axis = 0; axis < 4; ++axis) {
        const int64_t reach = (view.size[axis] - 1) * view.stride[axis];
        (reach < 0 ? low : high) += reach;
    }
    const auto bytes = static_cast<int64_t>(sizeof(float));
    return {view.data + static_cast<uintptr_t>(low * bytes),
            view.data + static_cast<uintptr_t>((high + 1) * bytes)};
}

// An axis along which two views may be shifted against each other by low to high steps.
struct Shift {
    int64_t step, low, high;
};

// Whether some number of steps along each axis leads over `distance`. Steps are in order of length,
// each jumping over the reach of all the smaller ones: what is left after an axis must lie within
// their reach, so there are two numbers of steps to try.
bool reachable(int axes, const Shift *shift, int64_t distance) {
    if (axes == 0) return distance == 0;
    const Shift &last = shift[axes - 1];
    const int64_t down = distance / last.step - (distance % last.step < 0 ? 1 : 0);
    for (int64_t count = down; count <= down + 1; ++count) {
        if (count >= last.low && count <= last.high &&
            reachable(axes - 1, shift, distance - count * last.step)) {
            return true;
        }
    }
    return false;
}

// Whether two views share an element: exact for equal strides (slices of one array), else whether
// the memory between their first and last elements overlaps.
bool overlap(const Layout &a, const Layout &b) {
    const Extent x = extent(a), y = extent(b);
    if (x.low >= y.high || y.low >= x.high) return false;
    int64_t size[4], stride[4];
    Shift shift[4];
    int axes = 0;
    for (int axis = 0; axis < 4; ++axis) {
        const int64_t m = a.size[axis], n = b.size[axis];
        if (m == 1 && n == 1) continue;
        if (m > 1 && n > 1 && a.stride[axis] != b.stride[axis]) return true;
        const int64_t step = m > 1 ? a.stride[axis] : b.stride[axis];
        size[axes] = m > n ? m : n;
        stride[axes] = step;
        const Shift found = step < 0 ? Shift{-step, 1 - m, n - 1} : Shift{step, 1 - n, m - 1};
        int at = axes++;
        for (; at > 0 && shift[at - 1].step > found.step; --at) shift[at] = shift[at - 1];
        shift[at] = found;
    }
    if (!apart(axes, size, stride)) return true;
    const auto distance = static_cast<int64_t>(b.data - a.data);
    const auto bytes = static_cast<int64_t>(sizeof(float));
    return distance % bytes != 0 || reachable(axes, shift, distance / bytes);
}

}  // namespace

Layout layout_of(const rirf_image &image) {
    return {reinterpret_cast<uintptr_t>(image.data),
            {image.batch, image.height, image.width, 3},
            {image.stride_batch, image.stride_row, image.stride_column, image.stride_channel}};
}

Layout layout_of(const rirf_map &map) {
    return {reinterpret_cast<uintptr_t>(map.data),
            {map.batch, map.height, map.width, 1},
            {map.stride_batch, map.stride_row, map.stride_column, 0}};
}

Layout layout_of(const float *run, int64_t count) {
    return {reinterpret_cast<uintptr_t>(run), {count, 1, 1, 1}, {1, 0, 0, 0}};
}

// Sorted by stride, each step jumps over all of the smaller ones. Stricter than necessary only for
// layouts nobody uses.
bool apart(int axes, const int64_t *size, const int64_t *stride) {
    bool done[4] = {};
    int64_t reach = 0;
    for (int round = 0; round < axes; ++round) {
        int smallest = -1;
        for (int axis = 0; axis < axes; ++axis) {
            if (size[axis] == 1) done[axis] = true;  // its stride is never used
            if (done[axis]) continue;
            if (smallest < 0 || std::llabs(stride[axis]) < std::llabs(stride[smallest])) {
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

namespace {

// Largest distance between the first and the last element of an axis: distances in bytes, added up
// over the axes, stay inside 64 bits.
constexpr int64_t REACH_MAX = int64_t{1} << 58;

rirf_status check_strides(const char *name, const Layout &view) {
    if (view.data % alignof(float) != 0) {
        return fail(RIRF_BAD_STRIDE, "%s: its data lies at an address that is no multiple of %d", name,
                    static_cast<int>(alignof(float)));
    }
    for (int axis = 0; axis < 4; ++axis) {
        if (view.size[axis] == 1) continue;
        const int64_t most = REACH_MAX / (view.size[axis] - 1);
        if (view.stride[axis] <= most && view.stride[axis] >= -most) continue;
        return fail(RIRF_BAD_STRIDE, "%s: got a stride of %lld, expected at most %lld either way", name,
                    static_cast<long long>(view.stride[axis]), static_cast<long long>(most));
    }
    return RIRF_OK;
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
    const Layout view = layout_of(*image);
    const int64_t *const stride = view.stride;
    RIRF_TRY(check_strides(name, view));
    if (written && !apart(4, view.size, stride)) {
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
    const Layout view = layout_of(*map);
    const int64_t *const stride = view.stride;
    RIRF_TRY(check_strides(name, view));
    if (written && !apart(3, view.size, stride)) {
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

rirf_status check_apart(const Used *used, int count) {
    for (int i = 0; i < count; ++i) {
        for (int k = 0; k < i; ++k) {
            if (!used[i].written && !used[k].written) continue;
            if (used[i].layout.data == 0 || used[k].layout.data == 0) continue;
            if (!overlap(used[i].layout, used[k].layout)) continue;
            return fail(RIRF_ALIASED, "%s: shares memory with %s, expected memory of its own",
                        used[i].name, used[k].name);
        }
    }
    return RIRF_OK;
}

rirf_status check_same_or_apart(const char *name, const rirf_image *image, const char *other_name,
                                const rirf_image *other) {
    const bool same = image->data == other->data && image->stride_row == other->stride_row &&
                      image->stride_column == other->stride_column &&
                      image->stride_channel == other->stride_channel &&
                      (image->batch == 1 || image->stride_batch == other->stride_batch);
    if (same || !overlap(layout_of(*image), layout_of(*other))) return RIRF_OK;
    return fail(RIRF_ALIASED,
                "%s: shares memory with %s without being the same view; expected the same view or "
                "memory of its own",
                name, other_name);
}

rirf_status check_count(int64_t count) {
    if (count >= 0) return RIRF_OK;
    return fail(RIRF_BAD_SHAPE, "count: got %lld, expected 0 or more",
                static_cast<long long>(count));
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
