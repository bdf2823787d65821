// What a .cu driver needs: launches on the caller's stream, barriers, sums, views without checks.
//
// Compiled by nvcc this is CUDA. Compiled as C++ with RIRF_HOST_RUN, a launch is a loop over blocks
// and threads, and the same drivers run on the CPU: slow, and no measurement of a GPU, but every
// index, border, bound and barrier of theirs is tested on machines without one.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/error.h"
#include "common/platform.h"
#include "rirf_kernels_cuda.h"

#if defined(__CUDACC__)
#include <cuda_runtime.h>
#define RIRF_KERNEL static __global__ void
#define RIRF_DEVICE static __device__ __forceinline__
#define RIRF_SHARED __shared__
#define RIRF_UNROLL _Pragma("unroll")
#else
#include "common/host_run.h"
#define RIRF_KERNEL static void
#define RIRF_DEVICE static inline
#define RIRF_SHARED static thread_local
#define RIRF_UNROLL
struct alignas(16) float4 {
    float x, y, z, w;
};
#endif

namespace rirf {
namespace cuda {

constexpr int THREADS = 256;
// A grid's second axis has at most this many blocks: a larger batch goes in several calls.
constexpr int64_t BATCH_MAX = 65535;
// Pixels are counted in 31 bits on the device, where 64-bit divisions are slow.
constexpr int64_t PIXELS_MAX = (int64_t{1} << 31) - 1;

// How much to start: along x, `work` items or blocks; along y, images.
struct Grid {
    int64_t work, images;
};

template <typename T>
struct Same {
    using type = T;
};

// Starts `grid` blocks of `threads` threads. `waits` says whether they wait for each other.
template <typename... Parameters>
rirf_status launch_grid(void (*kernel)(Parameters...), Grid grid, int threads, bool waits,
                        void *stream, Parameters... values) {
    if (grid.work < 1 || grid.images < 1) return RIRF_OK;
    if (grid.work > PIXELS_MAX || grid.images > BATCH_MAX) {
        return fail(RIRF_BAD_SHAPE, "got %lld x %lld blocks, expected at most %lld x %lld",
                    static_cast<long long>(grid.work), static_cast<long long>(grid.images),
                    static_cast<long long>(PIXELS_MAX), static_cast<long long>(BATCH_MAX));
    }
    const auto blocks = static_cast<unsigned>(grid.work);
    const auto images = static_cast<unsigned>(grid.images);
#if defined(__CUDACC__)
    (void)waits;
    void *pointers[] = {static_cast<void *>(&values)...};
    const cudaError_t error = cudaLaunchKernel(
        reinterpret_cast<const void *>(kernel), dim3(blocks, images),
        dim3(static_cast<unsigned>(threads)), pointers, 0, static_cast<cudaStream_t>(stream));
    if (error == cudaSuccess) return RIRF_OK;
    cudaGetLastError();  // or the next one to ask would take it for theirs
    return fail(RIRF_CUDA_FAILED, "a kernel could not be started: %s", cudaGetErrorString(error));
#else
    (void)stream;
    gridDim = {blocks, images};
    blockDim = {static_cast<unsigned>(threads), 1};
    for (blockIdx.y = 0; blockIdx.y < images; ++blockIdx.y) {
        for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x) {
            if (waits) {
                Fibers::here().run(blockDim.x, [&] { kernel(values...); });
                continue;
            }
            for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x) kernel(values...);
        }
    }
    return RIRF_OK;
#endif
}

// A thread for each of grid.work items.
template <typename... Parameters>
rirf_status launch(void (*kernel)(Parameters...), Grid grid, void *stream,
                   typename Same<Parameters>::type... values) {
    const Grid blocks = {(grid.work + THREADS - 1) / THREADS, grid.images};
    return launch_grid<Parameters...>(kernel, blocks, THREADS, false, stream, values...);
}

// grid.work blocks whose threads share memory and wait for each other by barrier().
template <typename... Parameters>
rirf_status launch_blocks(void (*kernel)(Parameters...), Grid grid, int threads, void *stream,
                          typename Same<Parameters>::type... values) {
    return launch_grid<Parameters...>(kernel, grid, threads, true, stream, values...);
}

// Sets device memory to zero, in the order of the stream.
inline rirf_status clear(void *memory, size_t bytes, void *stream) {
#if defined(__CUDACC__)
    const cudaError_t error = cudaMemsetAsync(memory, 0, bytes, static_cast<cudaStream_t>(stream));
    if (error == cudaSuccess) return RIRF_OK;
    cudaGetLastError();
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

RIRF_DEVICE int32_t thread_item() { return static_cast<int32_t>(threadIdx.x); }
RIRF_DEVICE int32_t block_threads() { return static_cast<int32_t>(blockDim.x); }

RIRF_DEVICE void barrier() {
#if defined(__CUDACC__)
    __syncthreads();
#else
    Fibers::here().wait();
#endif
}

// Adds value * scale, summed over the block, to a total in memory. Every thread of a block of THREADS
// gets here, so one without work adds zero. What a block adds is a multiple of 2^-44: such sums are
// exact below 512, so that they do not depend on the order of the blocks.
RIRF_DEVICE void add_block(float value, double scale, double *total) {
    constexpr double FINE = 17592186044416.0;  // 2^44
#if defined(__CUDACC__)
    __shared__ float parts[THREADS / 32];
    for (int lane = 16; lane > 0; lane /= 2) value += __shfl_down_sync(0xffffffffu, value, lane);
    __syncthreads();  // a sum before this one has been read
    if ((threadIdx.x & 31u) == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x != 0) return;
    double sum = 0.0;
    for (int warp = 0; warp < THREADS / 32; ++warp) sum += parts[warp];
    atomicAdd(total, rint(sum * scale * FINE) / FINE);
#else
    *total += rint(static_cast<double>(value) * scale * FINE) / FINE;
#endif
}

// A thread's share of the same, for kernels with few threads or doubles to add.
RIRF_DEVICE void add_up(double value, double *total) {
#if defined(__CUDACC__)
    for (int lane = 16; lane > 0; lane /= 2) value += __shfl_down_sync(0xffffffffu, value, lane);
    if ((threadIdx.x & 31u) == 0) atomicAdd(total, value);
#else
    *total += value;
#endif
}

template <typename Whole>
RIRF_DEVICE Whole add_to(Whole *total, Whole value) {
#if defined(__CUDACC__)
    return atomicAdd(total, value);
#else
    const Whole before = *total;
    *total += value;
    return before;
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

// A view with what the host found out about its layout: LINE, pixels one behind the other; PLANES,
// the same channel by channel; else any strides. `vectors`: four of them are aligned vectors.
enum Order : int32_t { ORDER_ANY, ORDER_LINE, ORDER_PLANES };

struct Image {
    rirf_image view;
    Order order;
    bool vectors;
};

struct Map {
    rirf_map view;
    Order order;
    bool vectors;
};

inline bool aligned(const float *data, int64_t batch, int64_t stride_batch) {
    return (batch == 1 || stride_batch % 4 == 0) && reinterpret_cast<uintptr_t>(data) % 16 == 0;
}

inline Image image_of(const rirf_image &view) {
    const bool rows_follow = view.height == 1;
    Image image = {view, ORDER_ANY, aligned(view.data, view.batch, view.stride_batch)};
    if (view.stride_channel == 1 && view.stride_column == 3 &&
        (rows_follow || view.stride_row == 3 * view.width)) {
        image.order = ORDER_LINE;
    } else if (view.stride_column == 1 && (rows_follow || view.stride_row == view.width)) {
        image.order = ORDER_PLANES;
        image.vectors = image.vectors && view.stride_channel % 4 == 0;
    }
    return image;
}

inline Map map_of(const rirf_map &view) {
    const bool line = view.stride_column == 1 && (view.height == 1 || view.stride_row == view.width);
    return {view, line ? ORDER_LINE : ORDER_ANY,
            aligned(view.data, view.batch, view.stride_batch)};
}

// Row and column of a pixel.
struct Place {
    int32_t row, column;
};

RIRF_DEVICE Place place_of(int64_t pixel, int64_t width) {
    const uint32_t row = static_cast<uint32_t>(pixel) / static_cast<uint32_t>(width);
    const uint32_t column = static_cast<uint32_t>(pixel) - row * static_cast<uint32_t>(width);
    return {static_cast<int32_t>(row), static_cast<int32_t>(column)};
}

RIRF_DEVICE float *pixel_at(const rirf_image &image, int64_t index, int64_t pixel) {
    const Place at = place_of(pixel, image.width);
    return image.data + index * image.stride_batch + at.row * image.stride_row +
           at.column * image.stride_column;
}

RIRF_DEVICE float *pixel_at(const rirf_map &map, int64_t index, int64_t pixel) {
    const Place at = place_of(pixel, map.width);
    return map.data + index * map.stride_batch + at.row * map.stride_row +
           at.column * map.stride_column;
}

RIRF_DEVICE float4 read_vector(const float *from) { return *reinterpret_cast<const float4 *>(from); }

RIRF_DEVICE void read_vector(const float *from, float *to) {
    const float4 v = read_vector(from);
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
    to[3] = v.w;
}

RIRF_DEVICE void write_vector(float *to, float a, float b, float c, float d) {
    float4 v;
    v.x = a;
    v.y = b;
    v.z = c;
    v.w = d;
    *reinterpret_cast<float4 *>(to) = v;
}

// Reads `count` (1 to 4) pixels from `first` on into value[12]; the rest stays as it is.
RIRF_DEVICE void load(const Image &image, int64_t index, int64_t first, int64_t count,
                      float *value) {
    const float *base = image.view.data + index * image.view.stride_batch;
    const int64_t channel = image.view.stride_channel;
    if (image.vectors && count == QUAD && image.order == ORDER_LINE) {
        RIRF_UNROLL
        for (int k = 0; k < 12; k += 4) read_vector(base + 3 * first + k, value + k);
    } else if (image.vectors && count == QUAD && image.order == ORDER_PLANES) {
        RIRF_UNROLL
        for (int c = 0; c < 3; ++c) {
            const float4 v = read_vector(base + c * channel + first);
            value[c] = v.x;
            value[3 + c] = v.y;
            value[6 + c] = v.z;
            value[9 + c] = v.w;
        }
    } else {
        RIRF_UNROLL
        for (int k = 0; k < QUAD; ++k) {
            if (k >= count) break;
            const float *from = image.order == ORDER_LINE     ? base + 3 * (first + k)
                                : image.order == ORDER_PLANES ? base + first + k
                                                              : pixel_at(image.view, index, first + k);
            RIRF_UNROLL
            for (int c = 0; c < 3; ++c) value[3 * k + c] = from[c * channel];
        }
    }
}

RIRF_DEVICE void load(const Map &map, int64_t index, int64_t first, int64_t count, float *value) {
    const float *base = map.view.data + index * map.view.stride_batch + first;
    if (map.vectors && count == QUAD && map.order == ORDER_LINE) {
        read_vector(base, value);
        return;
    }
    RIRF_UNROLL
    for (int k = 0; k < QUAD; ++k) {
        if (k >= count) break;
        value[k] = map.order == ORDER_LINE ? base[k] : *pixel_at(map.view, index, first + k);
    }
}

RIRF_DEVICE void store(const Image &image, int64_t index, int64_t first, int64_t count,
                       const float *value) {
    if (image.view.data == nullptr) return;
    float *base = image.view.data + index * image.view.stride_batch;
    const int64_t channel = image.view.stride_channel;
    if (image.vectors && count == QUAD && image.order == ORDER_LINE) {
        RIRF_UNROLL
        for (int k = 0; k < 12; k += 4) {
            write_vector(base + 3 * first + k, value[k], value[k + 1], value[k + 2], value[k + 3]);
        }
    } else if (image.vectors && count == QUAD && image.order == ORDER_PLANES) {
        RIRF_UNROLL
        for (int c = 0; c < 3; ++c) {
            write_vector(base + c * channel + first, value[c], value[3 + c], value[6 + c],
                         value[9 + c]);
        }
    } else {
        RIRF_UNROLL
        for (int k = 0; k < QUAD; ++k) {
            if (k >= count) break;
            float *to = image.order == ORDER_LINE     ? base + 3 * (first + k)
                        : image.order == ORDER_PLANES ? base + first + k
                                                      : pixel_at(image.view, index, first + k);
            RIRF_UNROLL
            for (int c = 0; c < 3; ++c) to[c * channel] = value[3 * k + c];
        }
    }
}

RIRF_DEVICE void store(const Map &map, int64_t index, int64_t first, int64_t count,
                       const float *value) {
    if (map.view.data == nullptr) return;
    float *base = map.view.data + index * map.view.stride_batch + first;
    if (map.vectors && count == QUAD && map.order == ORDER_LINE) {
        write_vector(base, value[0], value[1], value[2], value[3]);
        return;
    }
    RIRF_UNROLL
    for (int k = 0; k < QUAD; ++k) {
        if (k >= count) break;
        *(map.order == ORDER_LINE ? base + k : pixel_at(map.view, index, first + k)) = value[k];
    }
}

// How many pixels of a thread's four lie in the image.
RIRF_DEVICE int64_t quad_count(int64_t first, int64_t pixels) {
    const int64_t left = pixels - first;
    return left >= QUAD ? QUAD : (left > 0 ? left : 0);
}

inline Grid quads(int64_t pixels, int64_t images) { return {(pixels + QUAD - 1) / QUAD, images}; }

}  // namespace cuda
}  // namespace rirf
