/* select.c - the tables that this build has, best last, and which of them this machine can run. */
#include "kernels.h"

#include <string.h>

extern const bp_kernels bp__kernels_f32_baseline, bp__kernels_f64;
#if defined(__x86_64__)
extern const bp_kernels bp__kernels_f32_avx2, bp__kernels_f32_avx512;
#endif

/* What -march=x86-64-v3 and -v4 ask for; clang knows the features by their own names only. */
#if defined(__x86_64__) && defined(__clang__)
#define RUNS_V3                                                                                                                   \
    (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2"))
#define RUNS_V4                                                                                                             \
    (RUNS_V3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") && \
     __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
#elif defined(__x86_64__)
#define RUNS_V3 __builtin_cpu_supports("x86-64-v3")
#define RUNS_V4 __builtin_cpu_supports("x86-64-v4")
#endif

const bp_kernels *bp_kernels_f32(const char *isa)
{
    const bp_kernels *tables[3];
    int count = 0;
    tables[count++] = &bp__kernels_f32_baseline;
#if defined(__x86_64__)
    if (RUNS_V3) tables[count++] = &bp__kernels_f32_avx2;
    if (RUNS_V4) tables[count++] = &bp__kernels_f32_avx512;
#endif
    if (!isa) return tables[count - 1];
    for (int i = 0; i < count; i++)
        if (strcmp(tables[i]->isa, isa) == 0) return tables[i];
    return NULL;
}

const bp_kernels *bp_kernels_f64(void) { return &bp__kernels_f64; }
