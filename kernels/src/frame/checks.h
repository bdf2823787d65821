// The checks of frames and planes that a caller hands over; `name` is the argument's in messages.
#pragma once

#include "common/view.h"
#include "frame/frame.h"

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

// What each call asks, on the CPU and on CUDA alike.
inline rirf_status check_to_planes(const rirf_frame *frame, const rirf_planes *planes) {
    RIRF_TRY(check_frame("frame", frame, false));
    RIRF_TRY(check_planes("planes", planes, true));
    RIRF_TRY(check_covers("planes", planes, "frame", frame));
    return check_apart("planes", planes, "frame", frame);
}

inline rirf_status check_to_frame(const rirf_planes *planes, const rirf_frame *frame) {
    RIRF_TRY(check_planes("planes", planes, false));
    RIRF_TRY(check_frame("frame", frame, true));
    RIRF_TRY(check_covers("planes", planes, "frame", frame));
    return check_apart("frame", frame, "planes", planes);
}

inline rirf_status check_blend(const rirf_planes *tile, const float *row_weights,
                               const float *column_weights, const rirf_planes *sums) {
    RIRF_TRY(check_planes("tile", tile, false));
    RIRF_TRY(check_planes("sums", sums, true));
    if (sums->type != RIRF_FLOAT32) {
        return fail(RIRF_BAD_VALUE, "sums: got RIRF_FLOAT16, expected RIRF_FLOAT32");
    }
    RIRF_TRY(check_covers("tile", tile, "sums", sums));
    RIRF_TRY(check_apart("sums", sums, "tile", tile));
    if (row_weights == nullptr) return fail(RIRF_NULL_POINTER, "row_weights: got NULL");
    if (column_weights == nullptr) return fail(RIRF_NULL_POINTER, "column_weights: got NULL");
    return RIRF_OK;
}

// Addresses only: on CUDA, psf and tables lie where the host cannot look.
inline rirf_status check_model(const rirf_model *model) {
    if (model == nullptr) return fail(RIRF_NULL_POINTER, "model: got NULL");
    for (double light : model->light) {
        if (!(light >= 0.0 && light <= 1.0)) {
            return fail(RIRF_BAD_VALUE, "model.light: got %g, expected numbers in [0, 1]", light);
        }
    }
    if (model->shift == nullptr) return fail(RIRF_NULL_POINTER, "model.shift: got NULL");
    if (model->variance == nullptr) return fail(RIRF_NULL_POINTER, "model.variance: got NULL");
    if (model->block_variance == nullptr) {
        return fail(RIRF_NULL_POINTER, "model.block_variance: got NULL");
    }
    return RIRF_OK;
}

inline rirf_status check_residual(const rirf_frame *frame, const rirf_frame *restored,
                                  const rirf_map *transmission, const rirf_model *model,
                                  const rirf_moments *moments) {
    RIRF_TRY(check_frame("frame", frame, false));
    RIRF_TRY(check_frame("restored", restored, false));
    RIRF_TRY(check_map("transmission", transmission, false));
    if (frame->height < RESIDUAL_BLOCK || frame->width < RESIDUAL_BLOCK) {
        return fail(RIRF_BAD_SHAPE, "frame: got %lld x %lld pixels, expected at least 8 x 8",
                    static_cast<long long>(frame->height), static_cast<long long>(frame->width));
    }
    RIRF_TRY(check_equal("restored", restored->height, restored->width, "frame", frame));
    if (transmission->batch != 1) {
        return fail(RIRF_BAD_SHAPE, "transmission: got a batch of %lld, expected one map",
                    static_cast<long long>(transmission->batch));
    }
    RIRF_TRY(
        check_equal("transmission", transmission->height, transmission->width, "frame", frame));
    RIRF_TRY(check_model(model));
    if (moments == nullptr) return fail(RIRF_NULL_POINTER, "moments: got NULL");
    return RIRF_OK;
}

}  // namespace rirf
