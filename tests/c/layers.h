/* layers.h - what the tests of the heavy ops share: one call judged against an oracle in f64, in both dtypes, with one, two and three
 * threads whose bits must agree. */
#ifndef LAYERS_H
#define LAYERS_H

#include "../../core/ops/op.h"
#include "check.h"

#include <math.h>

enum { TRIAL_MAX_IN = 7, TRIAL_MAX_ARGS = 8 };

#define OK(call) CHECK((call) == BP_OK, "%s", bp_message(ctx))

/* ---- plain numbers; freed together ---- */

static double *taken[4096];
static int n_taken;

static inline double *zeros(int64_t n)
{
    double *v = (double *)calloc((size_t)n + 1, sizeof *v);
    if (!v || n_taken == (int)(sizeof taken / sizeof *taken)) exit(2);
    taken[n_taken++] = v;
    return v;
}

static inline void free_numbers(void)
{
    while (n_taken > 0) free(taken[--n_taken]);
}

static uint64_t numbers_state = 12345;

static inline double number(void)
{
    numbers_state = numbers_state * 6364136223846793005u + 1442695040888963407u;
    return ((double)(numbers_state >> 33) / (double)(1u << 31) * 2 - 1);
}

/* Multiples of 1/64 in [-1, 1]: exact in f32, so that both dtypes and the oracle begin with the same numbers. */
static inline double *numbers(int64_t n)
{
    double *v = zeros(n);
    for (int64_t i = 0; i < n; i++) v[i] = floor(number() * 64) / 64;
    return v;
}

static inline double *same(int64_t n, double value)
{
    double *v = zeros(n);
    for (int64_t i = 0; i < n; i++) v[i] = value;
    return v;
}

static inline double *copied(int64_t n, const double *from)
{
    double *v = zeros(n);
    for (int64_t i = 0; i < n; i++) v[i] = from[i];
    return v;
}

/* ---- trials ---- */

/* A short list of sizes, passed by value. */
typedef struct sizes {
    int n;
    int64_t at[BP_MAX_DIMS];
} sizes;
#define SIZES(...) ((sizes){ (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), { __VA_ARGS__ } })
#define NO_SIZES ((sizes){ 0, { 0 } })

static inline int64_t product(sizes s)
{
    int64_t n = 1;
    for (int i = 0; i < s.n; i++) n *= s.at[i];
    return n;
}

static inline bp_arg list(sizes s) { return bp_list(s.n, s.at); }

typedef struct plain {
    const double *v; /* NULL: the input is left out */
    int ndim;
    int64_t shape[BP_MAX_DIMS];
    bp_dtype dtype; /* BP_F32 stands for the dtype under test */
    bool flipped;   /* handed in as a view whose last two dimensions are swapped in memory */
} plain;

static inline plain random_plain(sizes s)
{
    plain p = { .v = numbers(product(s)), .ndim = s.n };
    memcpy(p.shape, s.at, sizeof p.shape);
    return p;
}
#define RANDOM(...) random_plain(SIZES(__VA_ARGS__))

typedef struct trial {
    const char *op;
    int n_in;
    plain in[TRIAL_MAX_IN];
    int n_args;
    bp_arg args[TRIAL_MAX_ARGS];
    const double *out[BP_MAX_OUT];     /* expected; NULL: not looked at */
    const double *after[TRIAL_MAX_IN]; /* what an input holds afterwards */
    double tolerance;                  /* of f32, relative to the greatest expected value; 0: 1e-5 */
} trial;

static inline bp_tensor *tensor_of(bp_ctx *ctx, const plain *p, bp_dtype real)
{
    bp_tensor *t = NULL, *view = NULL;
    bp_dtype dtype = p->dtype == BP_F32 ? real : p->dtype;
    int64_t shape[BP_MAX_DIMS];
    memcpy(shape, p->shape, sizeof shape);
    int64_t rows = p->flipped ? shape[p->ndim - 2] : 1, columns = p->flipped ? shape[p->ndim - 1] : 1;
    if (p->flipped) shape[p->ndim - 2] = columns, shape[p->ndim - 1] = rows;
    OK(bp_tensor_new(ctx, dtype, p->ndim, shape, &t));
    int64_t n = bp_tensor_count(t);
    if (!p->flipped) {
        OK(bp_tensor_write(t, BP_F64, p->v, n));
        return t;
    }
    double *v = (double *)malloc((size_t)(n + 1) * sizeof *v);
    if (!v) exit(2);
    for (int64_t i = 0; i < n; i++) {
        int64_t matrix = i / (rows * columns), r = i / columns % rows, c = i % columns;
        v[matrix * rows * columns + c * rows + r] = p->v[i];
    }
    OK(bp_tensor_write(t, BP_F64, v, n));
    free(v);
    bp_meta m = t->m;
    memcpy(m.shape, p->shape, sizeof m.shape);
    m.stride[p->ndim - 2] = 1;
    m.stride[p->ndim - 1] = rows;
    OK(bp_tensor_over(ctx, &m, t->storage, &view));
    bp_tensor_release(t);
    return view;
}

/* The greatest distance in units of the tolerance; NaN and infinities must be the same. */
static inline void compare(const char *what, const trial *t, bp_tensor *got, const double *expected, bool f32)
{
    bp_ctx *ctx = bp_tensor_ctx(got);
    int64_t n = bp_tensor_count(got), worst = 0;
    double *v = (double *)malloc((size_t)(n + 1) * sizeof *v), greatest = 1, most = -1;
    if (!v) exit(2);
    OK(bp_tensor_read(got, BP_F64, v, n));
    for (int64_t i = 0; i < n; i++)
        if (isfinite(expected[i]) && fabs(expected[i]) > greatest) greatest = fabs(expected[i]);
    const double tolerance = (f32 ? t->tolerance > 0 ? t->tolerance : 1e-5 : 1e-11) * greatest;
    for (int64_t i = 0; i < n; i++) {
        double away = isnan(v[i]) && isnan(expected[i]) ? 0 : v[i] == expected[i] ? 0 : fabs(v[i] - expected[i]);
        if (!isnan(most) && !(away <= most)) most = away, worst = i;
    }
    CHECK(most <= tolerance, "%s %s (%s): element %lld is %.17g instead of %.17g", t->op, what, f32 ? "f32" : "f64", (long long)worst,
          v[worst], expected[worst]);
    free(v);
}

static inline void same_bits(const char *what, const trial *t, bp_tensor *a, bp_tensor *b, int threads)
{
    size_t bytes = (size_t)bp_tensor_count(a) * bp_dtype_size(bp_tensor_dtype(a));
    CHECK(memcmp(bp_tensor_data(a), bp_tensor_data(b), bytes) == 0, "%s %s: other bits with %d threads", t->op, what, threads);
}

static inline void judge(bp_ctx *ctx, const trial *t)
{
    const bp_op *op = bp_op_find(t->op);
    CHECK(op, "there is no op %s", t->op);
    if (!op) return;
    for (int f32 = 0; f32 < 2; f32++) {
        bp_tensor *in[4][TRIAL_MAX_IN] = { { NULL } }, *out[4][BP_MAX_OUT] = { { NULL } };
        for (int threads = 1; threads <= 3; threads++) {
            OK(bp_set_threads(ctx, threads));
            for (int i = 0; i < t->n_in; i++)
                if (t->in[i].v) in[threads][i] = tensor_of(ctx, &t->in[i], f32 ? BP_F32 : BP_F64);
            bp_status status = bp_apply(ctx, op, t->n_in, in[threads], t->n_args, t->args, out[threads]);
            CHECK(status == BP_OK, "%s", bp_message(ctx));
            if (status != BP_OK) continue;
            for (int i = 0; i < op->n_out; i++) {
                if (t->out[i] && threads == 1)
                    compare(op->n_out > 1 ? i == 0 ? "out 0" : "further out" : "out", t, out[1][i], t->out[i], f32);
                if (threads > 1 && out[1][i]) same_bits("out", t, out[1][i], out[threads][i], threads);
            }
            for (int i = 0; i < t->n_in; i++) {
                if (!t->after[i]) continue;
                if (threads == 1)
                    compare(op->inputs[i].name, t, in[1][i], t->after[i], f32);
                else
                    same_bits(op->inputs[i].name, t, in[1][i], in[threads][i], threads);
            }
        }
        for (int threads = 1; threads <= 3; threads++) {
            for (int i = 0; i < TRIAL_MAX_IN; i++) bp_tensor_release(in[threads][i]);
            for (int i = 0; i < BP_MAX_OUT; i++) bp_tensor_release(out[threads][i]);
        }
    }
}

/* The call fails with BP_EINVAL and a message that holds each of the words, separated by '|'. */
static inline void refuse(bp_ctx *ctx, const trial *t, const char *words)
{
    bp_tensor *in[TRIAL_MAX_IN] = { NULL }, *out[BP_MAX_OUT] = { NULL };
    for (int i = 0; i < t->n_in; i++)
        if (t->in[i].v) in[i] = tensor_of(ctx, &t->in[i], BP_F32);
    bp_status status = bp_apply(ctx, bp_op_find(t->op), t->n_in, in, t->n_args, t->args, out);
    CHECK(status == BP_EINVAL, "%s: %s where '%s' is expected", t->op, bp_status_name(status), words);
    for (const char *w = words; status == BP_EINVAL && *w;) {
        size_t n = strcspn(w, "|");
        char word[200];
        snprintf(word, sizeof word, "%.*s", (int)n, w);
        CHECK(strstr(bp_message(ctx), word), "'%s' is not in: %s", word, bp_message(ctx));
        w += n + (w[n] == '|');
    }
    for (int i = 0; i < TRIAL_MAX_IN; i++) bp_tensor_release(in[i]);
    for (int i = 0; i < BP_MAX_OUT; i++) bp_tensor_release(out[i]);
}

#endif
