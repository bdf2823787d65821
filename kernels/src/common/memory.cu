#include "common/memory.cuh"

#include <cstdlib>

#include "common/launch.cuh"

namespace rirf {
namespace cuda {

#if defined(__CUDACC__)

static rirf_status checked(cudaError_t error, const char *what) {
    if (error == cudaSuccess) return RIRF_OK;
    return fail(error == cudaErrorMemoryAllocation ? RIRF_NO_MEMORY : RIRF_CUDA_FAILED,
                "%s failed: %s", what, cudaGetErrorString(error));
}

int device_count() {
    int count = 0;
    if (checked(cudaGetDeviceCount(&count), "looking for CUDA devices") != RIRF_OK) return 0;
    if (count == 0) fail(RIRF_CUDA_FAILED, "there is no CUDA device");
    return count;
}

int current_device() {
    int device = -1;
    return cudaGetDevice(&device) == cudaSuccess ? device : -1;
}

rirf_status allocate(size_t bytes, void **memory) {
    return checked(cudaMalloc(memory, bytes), "allocating device memory");
}

void release(void *memory) { cudaFree(memory); }

rirf_status upload(void *device, const void *host, size_t bytes, void *stream) {
    return checked(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice,
                                   static_cast<cudaStream_t>(stream)),
                   "copying to the device");
}

rirf_status download(void *host, const void *device, size_t bytes, void *stream) {
    return checked(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost,
                                   static_cast<cudaStream_t>(stream)),
                   "copying from the device");
}

rirf_status wait(void *stream) {
    return checked(cudaStreamSynchronize(static_cast<cudaStream_t>(stream)), "waiting for a stream");
}

#else

int device_count() { return 1; }

int current_device() { return 0; }

rirf_status allocate(size_t bytes, void **memory) {
    *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256 + 256);
    return *memory == nullptr ? fail(RIRF_NO_MEMORY, "out of memory") : RIRF_OK;
}

void release(void *memory) { std::free(memory); }

rirf_status upload(void *device, const void *host, size_t bytes, void *) {
    memcpy(device, host, bytes);
    return RIRF_OK;
}

rirf_status download(void *host, const void *device, size_t bytes, void *) {
    memcpy(host, device, bytes);
    return RIRF_OK;
}

rirf_status wait(void *) { return RIRF_OK; }

#endif

}  // namespace cuda
}  // namespace rirf
