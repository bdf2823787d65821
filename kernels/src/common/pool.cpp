#include "common/pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace rirf {
namespace {

struct Job {
    void (*body)(void *, int64_t);
    void *context;
    int64_t count;
    std::atomic<int64_t> next{0};
    int helpers;      // workers that may still join; guarded by the pool's mutex
    int running = 0;  // workers inside; guarded by the pool's mutex

    void work() {
        for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) body(context, i);
    }
};

class Pool {
public:
    void run(int threads, Job *job) {
        try {
            std::lock_guard<std::mutex> lock(mutex_);
            jobs_.push_back(job);
            while (workers_ < threads - 1) {
                std::thread([this] { serve(); }).detach();
                ++workers_;
            }
        } catch (const std::exception &) {
            // No memory or no more threads: the caller goes on with the workers there are.
        }
        wake_.notify_all();
        job->work();
        std::unique_lock<std::mutex> lock(mutex_);
        for (size_t i = 0; i < jobs_.size(); ++i) {
            if (jobs_[i] == job) {
                jobs_.erase(jobs_.begin() + static_cast<std::ptrdiff_t>(i));
                break;
            }
        }
        done_.wait(lock, [job] { return job->running == 0; });
    }

private:
    Job *open_job() {
        for (Job *job : jobs_) {
            if (job->helpers > 0 && job->next.load() < job->count) return job;
        }
        return nullptr;
    }

    void serve() {
        std::unique_lock<std::mutex> lock(mutex_);
        for (;;) {
            Job *job = nullptr;
            wake_.wait(lock, [&] { return (job = open_job()) != nullptr; });
            --job->helpers;
            ++job->running;
            lock.unlock();
            job->work();
            lock.lock();
            if (--job->running == 0) done_.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_, done_;
    std::vector<Job *> jobs_;
    int workers_ = 0;
};

// More would only wait: a caller's number is a wish, and must not exhaust the machine.
constexpr int THREADS_MAX = 256;

// Never deleted: workers wait on it until the process ends. A child of a fork has none of its
// threads and perhaps a locked mutex, so it makes its own.
std::atomic<Pool *> current{nullptr};

// nullptr when there is no memory for one.
Pool *pool() {
    Pool *found = current.load();
    if (found != nullptr) return found;
#if !defined(_WIN32)
    static std::atomic<bool> registered{false};
    if (!registered.exchange(true)) {
        pthread_atfork(nullptr, nullptr, [] { current.store(nullptr); });
    }
#endif
    Pool *made = new (std::nothrow) Pool;
    if (current.compare_exchange_strong(found, made)) return made;
    delete made;
    return found;
}

}  // namespace

int thread_count(int requested) {
    if (requested > 0) return requested < THREADS_MAX ? requested : THREADS_MAX;
#if defined(__linux__)
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) {
        return std::min(CPU_COUNT(&allowed), THREADS_MAX);
    }
#endif
    const unsigned found = std::thread::hardware_concurrency();
    return std::clamp(static_cast<int>(found), 1, THREADS_MAX);
}

void run_parallel(int threads, int64_t count, void (*body)(void *, int64_t), void *context) {
    Job job;
    job.body = body;
    job.context = context;
    job.count = count;
    threads = static_cast<int>(std::min<int64_t>(threads, count));
    job.helpers = threads - 1;
    Pool *found = pool();
    if (found == nullptr) {
        job.work();
    } else {
        found->run(threads, &job);
    }
}

}  // namespace rirf
