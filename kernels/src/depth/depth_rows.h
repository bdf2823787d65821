// The geometric prior as a contiguous map, for the other CPU drivers.
#pragma once

#include "common/view.h"

namespace rirf {

// Writes t0 (height, width) for a seed, row by row from `out`; false when memory ran out.
bool prior_into(uint64_t seed, int64_t height, int64_t width, float *out, int threads);

}  // namespace rirf
