#include "frame/frame.h"

#include "common/launch.cuh"
#include "frame/checks.h"
#include "shake/shake.h"

namespace rirf {
namespace cuda {

RIRF_DEVICE const uint8_t *level_at(const rirf_frame &frame, int64_t y, int64_t x, int channel) {
    // Frames are BGR, planes RGB.
    return frame.data + y * frame.stride_row + x * frame.stride_column +
           (2 - channel) * frame.stride_channel;
}

RIRF_DEVICE int64_t place_in(const rirf_planes &planes, int plane, int64_t y, int64_t x) {
    return plane * planes.stride_plane + y * planes.stride_row + x * planes.stride_column;
}

RIRF_DEVICE float read_plane(const rirf_planes &planes, int plane, int64_t y, int64_t x) {
    const int64_t place = place_in(planes, plane, y, x);
    return planes.type == RIRF_FLOAT16
               ? float_of_half(static_cast<const uint16_t *>(planes.data)[place])
               : static_cast<const float *>(planes.data)[place];
}

// A pixel of the planes a thread; neighbours in a row write neighbours.
RIRF_KERNEL to_planes_kernel(rirf_frame frame, rirf_planes planes) {
    const int64_t item = work_item();
    if (item >= planes.height * planes.width) return;
    const int64_t y = item / planes.width, x = item - y * planes.width;
    const int64_t row = mirrored(y, frame.height), column = mirrored(x, frame.width);
    for (int plane = 0; plane < 3; ++plane) {
        const float share = share_of(*level_at(frame, row, column, plane));
        const int64_t place = place_in(planes, plane, y, x);
        if (planes.type == RIRF_FLOAT16) {
            static_cast<uint16_t *>(planes.data)[place] = half_of_share(share);
        } else {
            static_cast<float *>(planes.data)[place] = share;
        }
    }
}

RIRF_KERNEL to_frame_kernel(rirf_planes planes, rirf_frame frame) {
    const int64_t item = work_item();
    if (item >= frame.height * frame.width) return;
    const int64_t y = item / frame.width, x = item - y * frame.width;
    for (int plane = 0; plane < 3; ++plane) {
        *const_cast<uint8_t *>(level_at(frame, y, x, plane)) =
            static_cast<uint8_t>(level_of(read_plane(planes, plane, y, x)));
    }
}

RIRF_KERNEL blend_kernel(rirf_planes tile, const float *row_weights, const float *column_weights,
                         rirf_planes sums) {
    const int64_t item = work_item();
    if (item >= sums.height * sums.width) return;
    const int64_t y = item / sums.width, x = item - y * sums.width;
    for (int plane = 0; plane < 3; ++plane) {
        const float value = clamp(read_plane(tile, plane, y, x), 0.0f, 1.0f);
        static_cast<float *>(sums.data)[place_in(sums, plane, y, x)] +=
            value * row_weights[y] * column_weights[x];
    }
}

// A block of 8 x 8 pixels a thread, so that its mean needs nobody else. The blocks at the right and
// bottom edge may be cut; they count for the pixels, not for the block means.
RIRF_KERNEL residual_kernel(rirf_frame frame, rirf_frame restored, rirf_map transmission,
                            rirf_model model, rirf_moments *moments) {
    const int64_t height = frame.height, width = frame.width;
    const int64_t across = (width + RESIDUAL_BLOCK - 1) / RESIDUAL_BLOCK;
    const int64_t down = (height + RESIDUAL_BLOCK - 1) / RESIDUAL_BLOCK;
    const int64_t item = work_item();
    double square = 0.0, variance = 0.0, block_square = 0.0, block_variance = 0.0;
    if (item < across * down) {
        const int64_t top = item / across * RESIDUAL_BLOCK, left = item % across * RESIDUAL_BLOCK;
        const int64_t bottom = top + RESIDUAL_BLOCK < height ? top + RESIDUAL_BLOCK : height;
        const int64_t right = left + RESIDUAL_BLOCK < width ? left + RESIDUAL_BLOCK : width;
        const bool whole = top + RESIDUAL_BLOCK <= height && left + RESIDUAL_BLOCK <= width;
        for (int c = 0; c < 3; ++c) {
            const float light = static_cast<float>(model.light[c]);
            double sum = 0.0;
            for (int64_t y = top; y < bottom; ++y) {
                for (int64_t x = left; x < right; ++x) {
                    float again = 0.0f;
                    if (model.psf == nullptr) {
                        const float t = transmission.data[y * transmission.stride_row +
                                                          x * transmission.stride_column];
                        again = refogged(*level_at(restored, y, x, c), t, light);
                    } else {
                        const int32_t middle = RIRF_PSF_SIZE / 2;
                        for (int32_t k = 0; k < RIRF_PSF_AREA; ++k) {
                            const float weight = model.psf[k];
                            if (weight == 0.0f) continue;
                            const int64_t row =
                                mirrored(y - k / RIRF_PSF_SIZE + middle, height);
                            const int64_t column = mirrored(x - k % RIRF_PSF_SIZE + middle, width);
                            const float t = transmission.data[row * transmission.stride_row +
                                                              column * transmission.stride_column];
                            again += weight * refogged(*level_at(restored, row, column, c), t, light);
                        }
                    }
                    const int32_t level = level_of(again);
                    const float r = share_of(*level_at(frame, y, x, c)) - again -
                                    model.shift[3 * level + c];
                    square += static_cast<double>(r) * static_cast<double>(r);
                    variance += static_cast<double>(model.variance[3 * level + c]);
                    block_variance += static_cast<double>(model.block_variance[3 * level + c]);
                    sum += static_cast<double>(r);
                }
            }
            const double mean = sum / static_cast<double>(RESIDUAL_BLOCK * RESIDUAL_BLOCK);
            if (whole) block_square += mean * mean;
        }
    }
    const double pixels = 3.0 * static_cast<double>(height * width);
    const double blocks =
        3.0 * static_cast<double>((height / RESIDUAL_BLOCK) * (width / RESIDUAL_BLOCK));
    add_up(square / pixels, &moments->square);
    add_up(variance / pixels, &moments->variance);
    add_up(block_square / blocks, &moments->block_square);
    add_up(block_variance / pixels, &moments->block_variance);
}

}  // namespace cuda
}  // namespace rirf

using namespace rirf;

extern "C" {

rirf_status rirf_cuda_frame_to_planes(const rirf_frame *frame, const rirf_planes *planes,
                                      void *stream) {
    RIRF_TRY(check_to_planes(frame, planes));
    return cuda::launch(cuda::to_planes_kernel, {planes->height * planes->width, 1}, stream, *frame,
                        *planes);
}

rirf_status rirf_cuda_planes_to_frame(const rirf_planes *planes, const rirf_frame *frame,
                                      void *stream) {
    RIRF_TRY(check_to_frame(planes, frame));
    return cuda::launch(cuda::to_frame_kernel, {frame->height * frame->width, 1}, stream, *planes,
                        *frame);
}

rirf_status rirf_cuda_blend_tile(const rirf_planes *tile, const float *row_weights,
                                 const float *column_weights, const rirf_planes *sums,
                                 void *stream) {
    RIRF_TRY(check_blend(tile, row_weights, column_weights, sums));
    return cuda::launch(cuda::blend_kernel, {sums->height * sums->width, 1}, stream, *tile,
                        row_weights, column_weights, *sums);
}

rirf_status rirf_cuda_residual(const rirf_frame *frame, const rirf_frame *restored,
                               const rirf_map *transmission, const rirf_model *model,
                               rirf_moments *moments, void *stream) {
    RIRF_TRY(check_residual(frame, restored, transmission, model, moments));
    RIRF_TRY(cuda::clear(moments, sizeof(rirf_moments), stream));
    const int64_t blocks = ((frame->height + RESIDUAL_BLOCK - 1) / RESIDUAL_BLOCK) *
                           ((frame->width + RESIDUAL_BLOCK - 1) / RESIDUAL_BLOCK);
    return cuda::launch(cuda::residual_kernel, {blocks, 1}, stream, *frame, *restored,
                        *transmission, *model, moments);
}

}  // extern "C"
