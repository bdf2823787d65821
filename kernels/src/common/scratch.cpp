#include "common/scratch.h"

#include <cstdint>
#include <cstdlib>

#include "rirf_kernels.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace rirf {
namespace {

// Lets the address sanitizer see a step beyond what was asked for, though the memory goes on.
void allow_only([[maybe_unused]] void *memory, [[maybe_unused]] size_t bytes,
                [[maybe_unused]] size_t size) {
#if defined(__SANITIZE_ADDRESS__)
    if (memory == nullptr) return;
    ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
    ASAN_POISON_MEMORY_REGION(static_cast<char *>(memory) + bytes, size - bytes);
#endif
}

struct Store {
    void *memory[SLOT_COUNT] = {};
    size_t size[SLOT_COUNT] = {};

    ~Store() { clear(); }

    void clear() {
        for (int slot = 0; slot < SLOT_COUNT; ++slot) {
            std::free(memory[slot]);
            memory[slot] = nullptr;
            size[slot] = 0;
        }
    }
};

thread_local Store store;

}  // namespace

void *scratch_bytes(Slot slot, size_t bytes) {
    if (bytes > store.size[slot] || store.memory[slot] == nullptr) {
        std::free(store.memory[slot]);
        const size_t rounded = (bytes + 63) / 64 * 64 + 64;
        store.memory[slot] = std::aligned_alloc(64, rounded);
        store.size[slot] = store.memory[slot] == nullptr ? 0 : rounded;
    }
    allow_only(store.memory[slot], bytes, store.size[slot]);
    return store.memory[slot];
}

void release_scratch() { store.clear(); }

}  // namespace rirf

extern "C" void rirf_release_scratch(void) { rirf::release_scratch(); }
