// The noise field of an image row, for the CPU drivers.
#pragma once

#include "common/rows.h"
#include "common/scratch.h"

namespace rirf {

// Normals are made in whole blocks of four: room for one more block at either end of a row.
inline int64_t field_room(int64_t width) { return 3 * width + 8; }

// The normals of row y of a (height, width, 3) image, numbered in row, column, channel order.
// `buffer` has field_room(width) numbers; the row starts at the returned pointer.
inline const float *field_row(uint64_t seed, int64_t y, int64_t width, float *buffer) {
    const uint64_t first = static_cast<uint64_t>(y) * static_cast<uint64_t>(3 * width);
    const int64_t skip = static_cast<int64_t>(first & 3u);
    rows().normals({seed, STAGE_NOISE, STREAM_FIELD}, first >> 2, (skip + 3 * width + 3) / 4, buffer);
    return buffer + skip;
}

}  // namespace rirf
