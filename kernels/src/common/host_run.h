// The host run: what CUDA's launches are when the .cu drivers are compiled as C++. Blocks follow each
// other on the calling thread. Threads of a block that wait for each other are fibers, each with a
// stack of its own, so that barriers mean what they mean on a GPU: a driver that reads what another
// thread has not written yet, or in which some threads never arrive, fails here too.
#pragma once

#include <ucontext.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

struct rirf_index {
    unsigned x = 0, y = 0;
};
inline thread_local rirf_index blockIdx, threadIdx, blockDim, gridDim;

namespace rirf {
namespace cuda {

class Fibers {
public:
    // Runs body() once for each thread of the current block.
    void run(unsigned threads, const std::function<void()> &body) {
        body_ = &body;
        if (stacks_.size() < threads) stacks_.resize(threads);
        contexts_.resize(threads);
        done_.assign(threads, false);
        for (unsigned i = 0; i < threads; ++i) {
            stacks_[i].resize(STACK);
            getcontext(&contexts_[i]);
            contexts_[i].uc_stack.ss_sp = stacks_[i].data();
            contexts_[i].uc_stack.ss_size = STACK;
            contexts_[i].uc_link = &main_;
            makecontext(&contexts_[i], &Fibers::enter, 0);
        }
        for (unsigned left = threads; left > 0;) {
            unsigned ended = 0;
            for (unsigned i = 0; i < threads; ++i) {
                if (done_[i]) continue;
                threadIdx.x = current_ = i;
                swapcontext(&main_, &contexts_[i]);
                ended += done_[i] ? 1 : 0;
            }
            if (ended != 0 && ended != left) {
                std::fputs("host run: threads of a block left while others wait\n", stderr);
                std::abort();
            }
            left -= ended;
        }
    }

    // A barrier: every other thread of the block runs up to here.
    void wait() { swapcontext(&contexts_[current_], &main_); }

    static Fibers &here() {
        static thread_local Fibers fibers;
        return fibers;
    }

private:
    static constexpr size_t STACK = 64 * 1024;

    static void enter() {
        Fibers &fibers = here();
        (*fibers.body_)();
        fibers.done_[fibers.current_] = true;
    }

    ucontext_t main_ = {};
    std::vector<ucontext_t> contexts_;
    std::vector<std::vector<char>> stacks_;
    std::vector<bool> done_;
    const std::function<void()> *body_ = nullptr;
    unsigned current_ = 0;
};

}  // namespace cuda
}  // namespace rirf
