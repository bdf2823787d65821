// Statuses and the text of the last error, one for each thread.
#pragma once

#include "rirf_kernels.h"

namespace rirf {

// Stores a formatted message and returns the status, so that a check reads `return fail(...)`.
__attribute__((format(printf, 2, 3))) rirf_status fail(rirf_status status, const char *format, ...);

}  // namespace rirf
