// The checks of frames and planes that a caller hands over; `name` is the argument's in messages.
#pragma once

#include "common/view.h"

namespace rirf {

// Bytes a view spans, [low, high), from sizes and strides in elements.
struct Span {
    uintptr_t low, high;
};

inline Span span(const void *data, int64_t bytes, const int64_t *size, const int64_t *stride) {
    int64_t low = 0, high = 0;
    for (int axis = 0; axis < 3; ++axis) {
        const int64_t reach = (size[axis] - 1) * stride[axis];
        (reach < 0 ? low : high) += reach;
    }
    const auto base = reinterpret_cast<uintptr_t>(data);
    return {base + static_cast<uintptr_t>(low * bytes),
            base + static_cast<uintptr_t>((high + 1) * bytes)};
}

struct Axes {
    int64_t size[3], stride[3];
};

inline Axes axes(const rirf_frame &frame) {
    return {{frame.height, frame.width, 3},
            {frame.stride_row, frame.stride_column, frame.stride_channel}};
}

inline Axes axes(const rirf_planes &planes) {
    return {{3, planes.height, planes.width},
            {planes.stride_plane, planes.stride_row, planes.stride_column}};
}

inline int64_t bytes_of(const rirf_frame &) { return 1; }
inline int64_t bytes_of(const rirf_planes &planes) { return planes.type == RIRF_FLOAT16 ? 2 : 4; }

// `what` says what the data are, `layout` in which order strides are told.
template <typename View>
rirf_status check_view(const char *name, const View *view, bool written, const char *what,
                       const char *layout) {
    if (view == nullptr) return fail(RIRF_NULL_POINTER, "%s: got NULL, expected a view", name);
    if (view->data == nullptr) {
        return fail(RIRF_NULL_POINTER, "%s: its data is NULL, expected %s values", name, what);
    }
    if (view->height < 1 || view->width < 1 || view->height > SIDE_MAX || view->width > SIDE_MAX) {
        return fail(RIRF_BAD_SHAPE, "%s: got %lld x %lld pixels, expected sides from 1 to %lld",
                    name, static_cast<long long>(view->height), static_cast<long long>(view->width),
                    static_cast<long long>(SIDE_MAX));
    }
    const Axes a = axes(*view);
    if (written && !apart(3, a.size, a.stride)) {
        return fail(RIRF_BAD_STRIDE,
                    "%s: got strides %lld, %lld, %lld (%s), in which elements share memory; "
                    "expected one place for each",
                    name, static_cast<long long>(a.stride[0]), static_cast<long long>(a.stride[1]),
                    static_cast<long long>(a.stride[2]), layout);
    }
    return RIRF_OK;
}

inline rirf_status check_frame(const char *name, const rirf_frame *frame, bool written) {
    return check_view(name, frame, written, "uint8", "row, column, channel");
}

inline rirf_status check_planes(const char *name, const rirf_planes *planes, bool written) {
    if (planes != nullptr && planes->type != RIRF_FLOAT32 && planes->type != RIRF_FLOAT16) {
        return fail(RIRF_BAD_VALUE,
                    "%s: got the type %lld, expected RIRF_FLOAT32 (0) or RIRF_FLOAT16 (1)", name,
                    static_cast<long long>(planes->type));
    }
    return check_view(name, planes, written, "float32 or float16", "plane, row, column");
}

// Fails when the memory that two views span overlaps.
template <typename View, typename Other>
rirf_status check_apart(const char *name, const View *view, const char *other_name,
                        const Other *other) {
    const Axes mine = axes(*view), theirs = axes(*other);
    const Span a = span(view->data, bytes_of(*view), mine.size, mine.stride);
    const Span b = span(other->data, bytes_of(*other), theirs.size, theirs.stride);
    if (a.low >= b.high || b.low >= a.high) return RIRF_OK;
    return fail(RIRF_ALIASED, "%s: shares memory with %s, expected memory of its own", name,
                other_name);
}

template <typename View, typename Other>
rirf_status check_covers(const char *name, const View *view, const char *other_name,
                         const Other *other) {
    if (view->height >= other->height && view->width >= other->width) return RIRF_OK;
    return fail(RIRF_BAD_SHAPE,
                "%s: got %lld x %lld pixels, expected at least %lld x %lld as in %s", name,
                static_cast<long long>(view->height), static_cast<long long>(view->width),
                static_cast<long long>(other->height), static_cast<long long>(other->width),
                other_name);
}

template <typename Other>
rirf_status check_equal(const char *name, int64_t height, int64_t width, const char *other_name,
                        const Other *other) {
    if (height == other->height && width == other->width) return RIRF_OK;
    return fail(RIRF_BAD_SHAPE, "%s: got %lld x %lld pixels, expected %lld x %lld as in %s", name,
                static_cast<long long>(height), static_cast<long long>(width),
                static_cast<long long>(other->height), static_cast<long long>(other->width),
                other_name);
}

}  // namespace rirf
