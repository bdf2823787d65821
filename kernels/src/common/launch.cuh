// What a .cu driver needs: launches on the caller's stream, sums and atomics, views without checks.
//
// Compiled by nvcc this is CUDA. Compiled as C++ with RIRF_HOST_RUN, a launch is a loop over blocks
// and threads, and the same drivers run on the CPU: slow, and no measurement of a GPU, but every
// index, border and bound of theirs is tested on machines without one. Kernels therefore never wait
// for each other inside a launch (no __syncthreads); what threads share, they add up.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/error.h"
#include "rirf_kernels_cuda.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define RIRF_KERNEL static __global__ void
#define RIRF_DEVICE static __device__ __forceinline__
#else
#define RIRF_KERNEL static void
#define RIRF_DEVICE static inline
struct rirf_index {
    unsigned x = 0, y = 0;
};
static thread_local rirf_index blockIdx, threadIdx, blockDim, gridDim;
#endif

namespace rirf {
namespace cuda {

constexpr int THREADS = 256;
// A grid's second axis has at most this many blocks: a larger batch goes in several calls.
constexpr int64_t BATCH_MAX = 65535;

// Blocks along x for `work` items of a thread each; y counts images.
struct Grid {
    int64_t work, images;
};

template <typename... Parameters, typename... Values>
rirf_status launch(void (*kernel)(Parameters...), Grid grid, void *stream, Values... values) {
    if (grid.work < 1 || grid.images < 1) return RIRF_OK;
    const auto blocks = static_cast<unsigned>((grid.work + THREADS - 1) / THREADS);
    const auto images = static_cast<unsigned>(grid.images);
#if defined(__CUDACC__)
    kernel<<<dim3(blocks, images), THREADS, 0, static_cast<cudaStream_t>(stream)>>>(values...);
    const cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess) return RIRF_OK;
    return fail(RIRF_CUDA_FAILED, "a kernel could not be started: %s", cudaGetErrorString(error));
#else
    (void)stream;
    gridDim = {blocks, images};
    blockDim = {THREADS, 1};
    for (blockIdx.y = 0; blockIdx.y < images; ++blockIdx.y) {
        for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
            for (threadIdx.x = 0; threadIdx.x < THREADS; ++threadIdx.x) kernel(values...);
        }
    }
    return RIRF_OK;
#endif
}

// Sets device memory to zero, in the order of the stream.
inline rirf_status clear(void *memory, size_t bytes, void *stream) {
#if defined(__CUDACC__)
    const cudaError_t error = cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream));
    if (error == cudaSuccess) return RIRF_OK;
    return fail(RIRF_CUDA_FAILED, "memory could not be cleared: %s", cudaGetErrorString(error));
#else
    (void)stream;
    memset(memory, 0, bytes);
    return RIRF_OK;
#endif
}

RIRF_DEVICE int64_t work_item() {
    return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}

// The image (or map) that a thread works on.
RIRF_DEVICE int64_t image_item() { return blockIdx.y; }

// Adds a thread's share to a total in memory; one atomic a warp. Every thread of the warp must get
// here, so a thread without work adds zero.
RIRF_DEVICE void add_up(double value, double *total) {
#if defined(__CUDACC__)
    for (int lane = 16; lane > 0; lane /= 2) value += __shfl_down_sync(0xffffffffu, value, lane);
    if ((threadIdx.x & 31u) == 0) atomicAdd(total, value);
#else
    *total += value;
#endif
}

RIRF_DEVICE void add_to(float *total, float value) {
#if defined(__CUDACC__)
    atomicAdd(total, value);
#else
    *total += value;
#endif
}

// Calls visit(seed's lane value, helper, helpers) for each lane of the warp whose `hit` is set, with
// all lanes helping: the work on a hit is shared out instead of being one lane's.
template <typename Visit>
RIRF_DEVICE void share_hits(bool hit, int64_t value, Visit visit) {
#if defined(__CUDACC__)
    unsigned waiting = __ballot_sync(0xffffffffu, hit);
    while (waiting != 0) {
        const int lane = __ffs(static_cast<int>(waiting)) - 1;
        waiting &= waiting - 1;
        const auto low = __shfl_sync(0xffffffffu, static_cast<unsigned>(value), lane);
        const auto high = __shfl_sync(0xffffffffu, static_cast<unsigned>(value >> 32), lane);
        visit(static_cast<int64_t>((static_cast<uint64_t>(high) << 32) | low),
              static_cast<int>(threadIdx.x & 31u), 32);
    }
#else
    if (hit) visit(value, 0, 1);
#endif
}

// Four neighbouring pixels, numbered row by row; a thread's portion. Twelve values are three float4,
// and exactly three Philox blocks.
constexpr int64_t QUAD = 4;

// A view with what the host found out: whether its pixels lie one behind the other, aligned, so that
// four of them are three (or, of a map, one) aligned vectors.
struct Image {
    rirf_image view;
    bool dense;
};

struct Map {
    rirf_map view;
    bool dense;
};

inline Image image_of(const rirf_image &view) {
    const bool packed = view.stride_channel == 1 && (view.stride_column == 3 || view.width == 1) &&
                        (view.stride_row == 3 * view.width || view.height == 1) &&
                        (view.batch == 1 || view.stride_batch % 4 == 0) &&
                        reinterpret_cast<uintptr_t>(view.data) % 16 == 0;
    return {view, packed};
}

inline Map map_of(const rirf_map &view) {
    const bool packed = (view.stride_column == 1 || view.width == 1) &&
                        (view.stride_row == view.width || view.height == 1) &&
                        (view.batch == 1 || view.stride_batch % 4 == 0) &&
                        reinterpret_cast<uintptr_t>(view.data) % 16 == 0;
    return {view, packed};
}

RIRF_DEVICE float *pixel_at(const rirf_image &image, int64_t index, int64_t pixel) {
    const int64_t row = pixel / image.width, column = pixel - row * image.width;
    return image.data + index * image.stride_batch + row * image.stride_row +
           column * image.stride_column;
}

RIRF_DEVICE float *pixel_at(const rirf_map &map, int64_t index, int64_t pixel) {
    const int64_t row = pixel / map.width, column = pixel - row * map.width;
    return map.data + index * map.stride_batch + row * map.stride_row + column * map.stride_column;
}

// 16 bytes at once.
RIRF_DEVICE void copy_vector(float *to, const float *from) {
#if defined(__CUDACC__)
    *reinterpret_cast<float4 *>(to) = *reinterpret_cast<const float4 *>(from);
#else
    memcpy(to, from, 16);
#endif
}

// Reads `count` (1 to 4) pixels from `first` on into value[12].
RIRF_DEVICE void load(const Image &image, int64_t index, int64_t first, int64_t count,
                      float *value) {
    if (image.dense && count == QUAD) {
        const float *from = image.view.data + index * image.view.stride_batch + 3 * first;
        for (int k = 0; k < 12; k += 4) copy_vector(value + k, from + k);
        return;
    }
    for (int64_t k = 0; k < count; ++k) {
        const float *from = pixel_at(image.view, index, first + k);
        for (int c = 0; c < 3; ++c) value[3 * k + c] = from[c * image.view.stride_channel];
    }
}

RIRF_DEVICE void load(const Map &map, int64_t index, int64_t first, int64_t count, float *value) {
    if (map.dense && count == QUAD) {
        copy_vector(value, map.view.data + index * map.view.stride_batch + first);
        return;
    }
    for (int64_t k = 0; k < count; ++k) value[k] = *pixel_at(map.view, index, first + k);
}

RIRF_DEVICE void store(const Image &image, int64_t index, int64_t first, int64_t count,
                       const float *value) {
    if (image.view.data == nullptr) return;
    if (image.dense && count == QUAD) {
        float *to = image.view.data + index * image.view.stride_batch + 3 * first;
        for (int k = 0; k < 12; k += 4) copy_vector(to + k, value + k);
        return;
    }
    for (int64_t k = 0; k < count; ++k) {
        float *to = pixel_at(image.view, index, first + k);
        for (int c = 0; c < 3; ++c) to[c * image.view.stride_channel] = value[3 * k + c];
    }
}

RIRF_DEVICE void store(const Map &map, int64_t index, int64_t first, int64_t count,
                       const float *value) {
    if (map.view.data == nullptr) return;
    if (map.dense && count == QUAD) {
        copy_vector(map.view.data + index * map.view.stride_batch + first, value);
        return;
    }
    for (int64_t k = 0; k < count; ++k) *pixel_at(map.view, index, first + k) = value[k];
}

// How many pixels of a thread's four lie in the image.
RIRF_DEVICE int64_t quad_count(int64_t first, int64_t pixels) {
    const int64_t left = pixels - first;
    return left >= QUAD ? QUAD : (left > 0 ? left : 0);
}

inline Grid quads(int64_t pixels, int64_t images) { return {(pixels + QUAD - 1) / QUAD, images}; }

}  // namespace cuda
}  // namespace rirf
