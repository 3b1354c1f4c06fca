/* tables.h - for tests of kernels: every table of them that this machine runs, random numbers, and arrays that hold the same numbers as
 * double and in the dtype under test. Each array stands between sentinels that must survive. */
#ifndef BP_TEST_TABLES_H
#define BP_TEST_TABLES_H

#include "plain.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const bp_kernels *kernels; /* under test */
static bool f64;
static const char *title;
static long passed, failed;
static double eps;

static inline void check(bool ok, const char *format, ...)
{
    if (ok) {
        passed++;
        return;
    }
    if (++failed > 40) return;
    va_list args;
    va_start(args, format);
    printf("FAIL %s: ", title);
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

/* ---- random numbers ---- */

#define SEED 88172645463325252u

static uint64_t state = SEED;
static inline uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}
static inline int64_t between(int64_t low, int64_t high) { return low + (int64_t)(draw() % (uint64_t)(high - low + 1)); }
static inline bool chance(int percent) { return between(0, 99) < percent; }
/* One of the numbers around which code changes its way, or any up to most. */
static inline int64_t size_up_to(int64_t most)
{
    static const int64_t edges[] = { 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 128 };
    const int64_t n = chance(60) ? edges[draw() % (sizeof edges / sizeof *edges)] : between(1, most);
    return n < most ? n : most;
}
/* A float, so that every table sees the same number. */
static inline double value(void) { return (double)(float)((double)(draw() >> 11) * 0x1p-52 - 1); }

/* ---- arrays: the same numbers as double and in the dtype under test ---- */

enum { GUARD = 64 };
#define SENTINEL (-12345.0)

typedef struct array {
    int64_t n;
    double *plain;
    char *block; /* GUARD elements, n elements, GUARD elements */
    void *real;
} array;

static inline void *allocate(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p) {
        printf("out of memory\n");
        exit(2);
    }
    return p;
}
static inline size_t real_size(void) { return f64 ? sizeof(double) : sizeof(float); }
static inline double get(const void *p, int64_t i) { return f64 ? ((const double *)p)[i] : (double)((const float *)p)[i]; }
static inline void set(void *p, int64_t i, double x)
{
    if (f64)
        ((double *)p)[i] = x;
    else
        ((float *)p)[i] = (float)x;
}
static inline array make(int64_t n)
{
    array a = { n, (double *)allocate((size_t)n * sizeof(double)), (char *)allocate((size_t)(n + 2 * GUARD) * real_size()), NULL };
    a.real = a.block + GUARD * real_size();
    for (int64_t i = 0; i < n + 2 * GUARD; i++) set(a.block, i, SENTINEL);
    for (int64_t i = 0; i < n; i++) set(a.real, i, a.plain[i] = value());
    return a;
}
static inline void drop(array *a)
{
    bool whole = true;
    for (int64_t i = 0; i < GUARD; i++) whole = whole && get(a->block, i) == SENTINEL && get(a->block, GUARD + a->n + i) == SENTINEL;
    check(whole, "wrote beside an array of %ld", (long)a->n);
    free(a->plain);
    free(a->block);
}
static inline array copy_of(const array *a)
{
    array b = make(a->n);
    memcpy(b.plain, a->plain, (size_t)a->n * sizeof(double));
    memcpy(b.real, a->real, (size_t)a->n * real_size());
    return b;
}
static inline bool same_bits(const array *a, const array *b) { return memcmp(a->real, b->real, (size_t)a->n * real_size()) == 0; }
/* The greatest |found - plain|, in units of allowed. */
static inline double worst(const array *a, double allowed)
{
    double most = 0;
    for (int64_t i = 0; i < a->n; i++) {
        const double x = get(a->real, i), y = a->plain[i];
        const double off = x == y || (isnan(x) && isnan(y)) ? 0 : fabs(x - y) / allowed;
        if (!(off <= most)) most = off;
    }
    return most;
}
static inline char *scratch_of(size_t n)
{
    char *p = (char *)aligned_alloc(64, (n + 127) / 64 * 64);
    if (!p) exit(2);
    memset(p, 0x7f, (n + 127) / 64 * 64); /* large finite numbers: what is used without being written shows */
    return p;
}
static inline void scratch_drop(char *p, size_t n)
{
    bool whole = true;
    for (size_t i = n; i < (n + 127) / 64 * 64; i++) whole = whole && p[i] == 0x7f;
    check(whole, "wrote beyond its scratch of %zu", n);
    free(p);
}

static inline void *at(void *p, int64_t i) { return (char *)p + (size_t)i * real_size(); }

/* ---- over the tables ---- */

static inline void over_table(const bp_kernels *table, bool is_f64, const char *name, void (*test)(void))
{
    if (!table) {
        printf("skipped %s: this machine or build lacks it\n", name);
        return;
    }
    kernels = table;
    f64 = is_f64;
    title = name;
    eps = is_f64 ? 0x1p-52 : 0x1p-23;
    state = SEED;
    const long before = passed + failed;
    test();
    printf("%s: %ld checks\n", name, passed + failed - before);
}

static inline int over_tables(void (*test)(void))
{
    over_table(bp_kernels_f32("baseline"), false, "f32 baseline", test);
    over_table(bp_kernels_f32("avx2"), false, "f32 avx2", test);
    over_table(bp_kernels_f32("avx512"), false, "f32 avx512", test);
    over_table(bp_kernels_f64(), true, "f64", test);
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed ? 1 : 0;
}

#endif
