#include <cstdlib>
#include <cstring>

#include "common/rows.h"

namespace rirf {

extern const Rows rows_baseline;
#if defined(RIRF_X86_64_LEVELS)
extern const Rows rows_v3;
extern const Rows rows_v4;
#endif

namespace {

const Rows *choose() {
#if defined(RIRF_X86_64_LEVELS)
    __builtin_cpu_init();
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2");
    const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
    const char *wanted = std::getenv("RIRF_KERNELS_ISA");
    const Rows *best = v4 ? &rows_v4 : (v3 ? &rows_v3 : &rows_baseline);
    if (wanted == nullptr) return best;
    // Only downwards: a name the machine cannot run, or does not know, leaves the best.
    if (std::strcmp(wanted, rows_baseline.name) == 0) return &rows_baseline;
    if (std::strcmp(wanted, rows_v3.name) == 0 && v3) return &rows_v3;
    return best;
#else
    return &rows_baseline;
#endif
}

}  // namespace

const Rows &rows() {
    static const Rows *const chosen = choose();
    return *chosen;
}

}  // namespace rirf
