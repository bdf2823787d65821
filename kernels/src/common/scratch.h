// Scratch memory that a thread keeps between calls and that only grows: no allocation in the steady
// state. Each purpose has its slot, so that two users of one thread never meet.
#pragma once

#include <cstddef>
#include <cstdint>

namespace rirf {

enum Slot {
    SLOT_IMAGE,   // one image, padded, for the convolution
    SLOT_PRIOR,   // a map
    SLOT_BLUR,    // maps between the passes of a blur
    SLOT_MIRROR,  // indices of mirrored rows and columns
    SLOT_HITS,    // bits of the rain seeds
    SLOT_STAMP,   // one streak
    SLOT_SUMS,    // one number a row
    SLOT_TAPS,    // kernel taps
    SLOT_ROW_IN,  // rows of the thread at work
    SLOT_ROW_OUT,
    SLOT_ROW_MAP,
    SLOT_ROW_FIELD,
    SLOT_ROW_TAPS,
    SLOT_COUNT
};

// 64-byte aligned memory of at least `bytes`, contents undefined; nullptr when there is none.
void *scratch_bytes(Slot slot, size_t bytes);
void release_scratch();

template <typename T>
T *scratch(Slot slot, int64_t count) {
    return static_cast<T *>(scratch_bytes(slot, static_cast<size_t>(count) * sizeof(T)));
}

}  // namespace rirf
