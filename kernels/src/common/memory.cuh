// Device memory and streams, for callers without a library of their own for it: the Python module's
// helpers. The drivers never come here.
#pragma once

#include <cstddef>

#include "rirf_kernels.h"

namespace rirf {
namespace cuda {

// Number of devices; with none, the reason stands in rirf_last_error().
int device_count();
// The calling thread's device, -1 when there is none.
int current_device();
rirf_status allocate(size_t bytes, void **memory);
void release(void *memory);
rirf_status upload(void *device, const void *host, size_t bytes, void *stream);
rirf_status download(void *host, const void *device, size_t bytes, void *stream);
// Waits until the stream's work is done.
rirf_status wait(void *stream);

}  // namespace cuda
}  // namespace rirf
