#include "common/error.h"

#include <cstdarg>
#include <cstdio>

namespace rirf {
namespace {
thread_local char last_error[512] = "no error";
}

rirf_status fail(rirf_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

}  // namespace rirf

extern "C" const char *rirf_last_error(void) { return rirf::last_error; }
