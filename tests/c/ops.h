/* ops.h - short ways to make tensors and apply ops, for the tests of forward values. A failure prints the message and ends the test. */
#ifndef OPS_H
#define OPS_H

#include "check.h"

#include "../../core/ops/op.h"

#include <math.h>

/* The context of the test, and the tensors made so far, released by sweep(). */
static bp_ctx *ctx;
static bp_tensor *kept[4096];
static int n_kept;

static inline bp_tensor *keep(bp_tensor *t)
{
    if (n_kept == 4096) abort();
    return kept[n_kept++] = t;
}
static inline void sweep(void)
{
    while (n_kept > 0) bp_tensor_release(kept[--n_kept]);
}

/* A shape written as numbers: SHAPE(2, 3); S0 for 0-d. */
typedef struct dims {
    int n;
    int64_t at[BP_MAX_DIMS];
} dims;
#define SHAPE(...) ((dims){ (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), { __VA_ARGS__ } })
#define S0 ((dims){ 0, { 0 } })
static inline bp_arg list_of(dims d) { return bp_list(d.n, d.at); }
static inline int64_t count_of(dims d)
{
    int64_t n = 1;
    for (int i = 0; i < d.n; i++) n *= d.at[i];
    return n;
}

/* Inputs, options and numbers written in place: TENSORS(x, y), ARGS(bp_int(1)), NUMBERS(1, 2.5). */
typedef struct tensors {
    int n;
    bp_tensor *t[8];
} tensors;
typedef struct args {
    int n;
    bp_arg a[BP_MAX_ARGS];
} args;
typedef struct numbers {
    int n;
    double v[40];
} numbers;
#define COUNT(T, ...) (int)(sizeof((T[]){ __VA_ARGS__ }) / sizeof(T))
#define TENSORS(...) ((tensors){ COUNT(bp_tensor *, __VA_ARGS__), { __VA_ARGS__ } })
#define ARGS(...) ((args){ COUNT(bp_arg, __VA_ARGS__), { __VA_ARGS__ } })
#define NUMBERS(...) ((numbers){ COUNT(double, __VA_ARGS__), { __VA_ARGS__ } })
#define NO_TENSORS ((tensors){ 0, { NULL } })
#define NO_ARGS ((args){ 0, { { 0, 0, { 0 } } } })

/* Output `which` of an op; ends the program when it fails. */
static inline bp_tensor *apply_out(int which, const char *name, tensors in, args with)
{
    const bp_op *op = bp_op_find(name);
    bp_tensor *out[BP_MAX_OUT] = { NULL };
    if (!op || bp_apply(ctx, op, in.n, in.t, with.n, with.a, out) != BP_OK) {
        printf("%s: %s\n", name, op ? bp_message(ctx) : "no such op");
        exit(2);
    }
    for (int i = 0; i < op->n_out; i++) keep(out[i]);
    return out[which];
}
static inline bp_tensor *apply(const char *name, tensors in, args with) { return apply_out(0, name, in, with); }

static inline double noise(int64_t i) { return sin((double)i * 12.9898 + 1) * 2; }

/* Elements noise(0), noise(1), ..., as whole numbers -4..4 in integer dtypes (0..8 in u8). */
static inline bp_tensor *tensor(bp_dtype dtype, dims d)
{
    bp_tensor *t;
    const int64_t n = count_of(d);
    double *v = (double *)malloc((size_t)n * sizeof *v + 1);
    if (!v || bp_tensor_new(ctx, dtype, d.n, d.at, &t) != BP_OK) exit(2);
    for (int64_t i = 0; i < n; i++) {
        v[i] = noise(i + 31 * d.n);
        if (dtype != BP_F32 && dtype != BP_F64) v[i] = floor(v[i] * 2.2) + (dtype == BP_U8 ? 4 : 0);
        if (dtype == BP_BOOL) v[i] = v[i] > 0;
    }
    if (bp_tensor_write(t, BP_F64, v, n) != BP_OK) exit(2);
    free(v);
    return keep(t);
}
static inline bp_tensor *from_values(bp_dtype dtype, dims d, const double *v)
{
    bp_tensor *t;
    if (bp_tensor_new(ctx, dtype, d.n, d.at, &t) != BP_OK || bp_tensor_write(t, BP_F64, v, count_of(d)) != BP_OK) exit(2);
    return keep(t);
}
static inline bp_tensor *values_of(bp_dtype dtype, numbers v) { return from_values(dtype, SHAPE(v.n), v.v); }
#define VALUES(dtype, ...) values_of(dtype, NUMBERS(__VA_ARGS__))

/* The same shape, but every second element of a larger tensor, with its dimensions stored in reverse order. */
static inline bp_tensor *gappy(bp_dtype dtype, dims d)
{
    dims wide = d;
    for (int i = 0; i < d.n; i++) wide.at[i] = d.at[d.n - 1 - i] * (i == 0 ? 2 : 1);
    bp_tensor *t = tensor(dtype, wide);
    if (d.n == 0) return t;
    t = apply("slice", TENSORS(t), ARGS(bp_int(0), bp_default(), bp_default(), bp_int(2)));
    return apply("permute", TENSORS(t), NO_ARGS);
}

/* All elements, row-major, as f64; free it. */
static inline double *values(bp_tensor *t)
{
    const int64_t n = bp_tensor_count(t);
    double *v = (double *)malloc((size_t)n * sizeof *v + 1);
    if (!v || bp_tensor_read(t, BP_F64, v, n) != BP_OK) exit(2);
    return v;
}

static inline bool shape_is(bp_tensor *t, dims d)
{
    return bp_tensor_ndim(t) == d.n && memcmp(bp_tensor_shape(t), d.at, sizeof(int64_t) * (size_t)d.n) == 0;
}

static inline bool same_number(double a, double b, double tolerance)
{
    if (a != a || b != b) return a != a && b != b;
    return a == b || fabs(a - b) <= tolerance * (fabs(b) > 1 ? fabs(b) : 1);
}

/* t holds exactly want (n numbers), or nearly. */
static inline void check_values(const char *what, bp_tensor *t, int64_t n, const double *want, double tolerance)
{
    double *got = values(t);
    int64_t bad = -1;
    if (bp_tensor_count(t) == n)
        for (int64_t i = n - 1; i >= 0; i--)
            if (!same_number(got[i], want[i], tolerance)) bad = i;
    CHECK(bp_tensor_count(t) == n, "%s: %lld elements, not %lld", what, (long long)bp_tensor_count(t), (long long)n);
    CHECK(bad < 0, "%s: element %lld is %.17g, not %.17g", what, (long long)bad, got[bad < 0 ? 0 : bad], want[bad < 0 ? 0 : bad]);
    free(got);
}
static inline void check_numbers(const char *what, bp_tensor *t, numbers want) { check_values(what, t, want.n, want.v, 0); }
#define CHECK_VALUES(what, t, ...) check_numbers(what, t, NUMBERS(__VA_ARGS__))

/* The op refuses, with this status, and its message holds all the words (separated by |). */
static inline void check_refused(const char *name, bp_status status, const char *words, tensors in, args with)
{
    bp_tensor *out[BP_MAX_OUT] = { NULL };
    bp_status got = bp_apply(ctx, bp_op_find(name), in.n, in.t, with.n, with.a, out);
    CHECK(got == status, "%s: status %s, not %s", name, bp_status_name(got), bp_status_name(status));
    for (int i = 0; i < BP_MAX_OUT; i++) bp_tensor_release(out[i]);
    if (got == BP_OK) return;
    char copy[400];
    snprintf(copy, sizeof copy, "%s", words);
    for (char *word = strtok(copy, "|"); word; word = strtok(NULL, "|"))
        CHECK(strstr(bp_message(ctx), word) != NULL, "'%s' does not say '%s'", bp_message(ctx), word);
}

/* The bits of f(...) with 1, 2 and 5 threads are the same. */
static inline void check_threads(const char *name, tensors in, args with)
{
    const int before = bp_threads(ctx);
    bp_tensor *first = NULL;
    for (int i = 0; i < 3; i++) {
        bp_set_threads(ctx, i == 0 ? 1 : i == 1 ? 2 : 5);
        bp_tensor *y = apply(name, in, with);
        if (!first) first = y;
        CHECK(memcmp(bp_tensor_data(first), bp_tensor_data(y), (size_t)bp_tensor_count(y) * bp_dtype_size(bp_tensor_dtype(y))) == 0,
              "%s: other bits with %d threads", name, bp_threads(ctx));
    }
    bp_set_threads(ctx, before);
}

#endif
