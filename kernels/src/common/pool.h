// A pool of threads that live as long as the process. A caller works on its own job too, so a call
// makes progress even when every worker is busy with somebody else's; a fork starts with a new pool.
#pragma once

#include <cstdint>

namespace rirf {

// Threads to use for a request: 0 or less means as many as the process may run on; 256 at most.
int thread_count(int requested);

// Runs body(context, i) for i in [0, count) on up to `threads` threads and returns when all are done.
void run_parallel(int threads, int64_t count, void (*body)(void *, int64_t), void *context);

template <typename Body>
void parallel(int threads, int64_t count, Body &&body) {
    if (threads <= 1 || count <= 1) {
        for (int64_t i = 0; i < count; ++i) body(i);
        return;
    }
    run_parallel(
        threads, count,
        [](void *context, int64_t i) { (*static_cast<Body *>(context))(i); },
        const_cast<void *>(static_cast<const void *>(&body)));
}

}  // namespace rirf
