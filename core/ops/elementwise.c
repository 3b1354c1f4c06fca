/* elementwise.c - walking and cutting for elementwise ops.
 *
 * Few elements that all lie side by side, or are one number for all, go through in a single run: for small nets the preparations of the
 * general way would cost more than the arithmetic.
 *
 * Else bp_walk merges the dimensions that all operands step through evenly into one inner run. A long inner run is cut into pieces, short
 * runs are bundled; both by shape alone. Very short runs (an image plus a number per channel) would spend their time between calls: there
 * several runs are made one by copying the operand that is not laid out like the output into a buffer. Copies whose runs lie side by side
 * on both ends take all runs of a dimension in one call. */
#include "elementwise.h"

#include <string.h>

void bp__spread(bp_ctx *ctx, int64_t elements, int64_t chunks, bp_chunk_fn *fn, void *arg)
{
    if (elements >= BP_ELEMENT_GRAIN)
        bp_parallel(ctx, chunks, fn, arg);
    else
        for (int64_t i = 0; i < chunks; i++) fn(arg, i, 0);
}

enum { SHORT = 64, BUFFER = 512 }; /* a run shorter than SHORT is worth packing; elements in a buffer */

typedef struct job {
    bp_walk walk;
    char *base[BP_WALK_MAX];
    int64_t size[BP_WALK_MAX]; /* of an element, in bytes */
    int64_t pieces;            /* per run */
    int64_t piece;             /* elements in each but the last */
    int64_t runs;              /* per chunk; 1 when a run has several pieces */
    int64_t together;          /* runs made one, at most; 1: no packing */
    bool follows[BP_WALK_MAX]; /* operand k's runs lie one after the other, as the packed run's elements must */
    bool copies;               /* runs of bytes, for which fn is not asked */
    bp_run_fn *fn;
    const void *arg;
} job;

/* Packing costs a copy of an operand, or next to nothing when all its runs are the same. */
static bool packable(job *j)
{
    const bp_walk *w = &j->walk;
    const int last = w->ndim - 1;
    int64_t short_enough = SHORT;
    if (last < 0 || w->shape[last] < 4) return false;
    for (int k = 0; k < w->n; k++) {
        j->follows[k] = w->inner_stride[k] == 1 && w->stride[k][last] == w->inner;
        if (!j->follows[k] && w->stride[k][last] != 0) short_enough = SHORT / 4;
    }
    return j->follows[0] && w->inner < short_enough;
}

/* to[r][i] = from[r * outer + i * inner], runs of n elements */
#define PACK(T)                        \
    for (int64_t r = 0; r < runs; r++) \
        for (int64_t i = 0; i < n; i++) ((T *)to)[r * n + i] = ((const T *)(const void *)from)[r * outer + i * inner];
static void pack(int64_t runs, int64_t n, const char *from, int64_t outer, int64_t inner, int64_t size, uint64_t *to)
{
    if (size == 4) {
        PACK(uint32_t)
    } else if (size == 8) {
        PACK(uint64_t)
    } else
        PACK(uint8_t)
}

/* Several runs beginning at p as one. Where every run of an operand is the same the buffer is filled once, when `fresh`, for as many runs
 * as there can be. */
static void run_together(const job *j, char *const *p, int64_t runs, bool fresh, uint64_t buffer[][BUFFER])
{
    static const int64_t side_by_side[BP_WALK_MAX] = { 1, 1, 1, 1 };
    const bp_walk *w = &j->walk;
    char *from[BP_WALK_MAX];
    for (int k = 0; k < w->n; k++) {
        const int64_t outer = w->stride[k][w->ndim - 1];
        from[k] = j->follows[k] ? p[k] : (char *)buffer[k - 1];
        if (!j->follows[k] && (outer != 0 || fresh))
            pack(outer != 0 ? runs : j->together, w->inner, p[k], outer, w->inner_stride[k], j->size[k], buffer[k - 1]);
    }
    j->fn(runs * w->inner, from, side_by_side, j->arg);
}

static void copy_runs(const job *j, char *const *p, int64_t runs, int64_t n)
{
    const bp_walk *w = &j->walk;
    const int64_t size = j->size[0], to = w->stride[0][w->ndim - 1] * size, from = w->stride[1][w->ndim - 1] * size;
    for (int64_t r = 0; r < runs; r++) memcpy(p[0] + r * to, p[1] + r * from, (size_t)(n * size));
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const bp_walk *w = &j->walk;
    const int last = w->ndim - 1;
    const int64_t begin = number % j->pieces * j->piece, n = least(j->piece, w->inner - begin);
    int64_t run = number / j->pieces * j->runs, stop = least(run + j->runs, w->outer);
    int64_t index[BP_MAX_DIMS] = { 0 }, at[BP_WALK_MAX];
    char *p[BP_WALK_MAX];
    uint64_t buffer[BP_WALK_MAX - 1][BUFFER];
    bool fresh = true;
    (void)worker;
    bp_walk_at(w, run, at);
    for (int k = 0; k < w->n; k++) p[k] = j->base[k] + (at[k] + begin * w->inner_stride[k]) * j->size[k];
    for (int64_t i = last, rest = run; i >= 0; i--) {
        index[i] = rest % w->shape[i];
        rest /= w->shape[i];
    }
    while (run < stop) {
        const int64_t runs = j->together == 1 ? 1 : least(least(j->together, w->shape[last] - index[last]), stop - run);
        if (j->copies)
            copy_runs(j, p, runs, n);
        else if (j->together == 1)
            j->fn(n, p, w->inner_stride, j->arg);
        else
            run_together(j, p, runs, fresh, buffer);
        run += runs;
        fresh = false;
        for (int i = last; i >= 0 && run < stop; i--) { /* the next run, like the digits of a counter */
            const int64_t steps = i == last ? runs : 1, back = index[i] + steps == w->shape[i] ? w->shape[i] : 0;
            index[i] += steps - back;
            for (int k = 0; k < w->n; k++) p[k] += (steps - back) * w->stride[k][i] * j->size[k];
            if (!back) break;
            fresh = true;
        }
    }
}

/* The one stride with which t goes along n elements that lie side by side: 1, or 0 when it is the same element throughout; -1: neither. */
static int64_t even_stride(const bp_tensor *t, int64_t n)
{
    int64_t count = 1;
    bool same = true, side_by_side = true;
    for (int i = t->m.ndim - 1; i >= 0; i--) {
        if (t->m.shape[i] == 1) continue;
        same = same && t->m.stride[i] == 0;
        side_by_side = side_by_side && t->m.stride[i] == count;
        count *= t->m.shape[i];
    }
    return same ? 0 : side_by_side && count == n ? 1 : -1;
}

/* Whether everything was done in one run. */
static bool run_at_once(bp_tensor *out, int n_in, bp_tensor *const *in, bp_run_fn *fn, const void *arg)
{
    char *p[BP_WALK_MAX];
    int64_t s[BP_WALK_MAX];
    const int64_t n = bp_count(out);
    if (n > BP_ELEMENT_GRAIN) return false;
    for (int k = 0; k <= n_in; k++) {
        const bp_tensor *t = k ? in[k - 1] : out;
        s[k] = even_stride(t, n);
        if (s[k] < 0) return false;
        p[k] = bp_data(t);
    }
    fn(n, p, s, arg);
    return true;
}

static void walk_over(bp_tensor *out, int n_in, bp_tensor *const *in, bp_run_fn *fn, const void *arg, bool copies)
{
    job j;
    int64_t strides[BP_WALK_MAX][BP_MAX_DIMS];
    const int64_t *stride[BP_WALK_MAX];
    if (bp_count(out) == 0 || run_at_once(out, n_in, in, fn, arg)) return;
    for (int k = 0; k <= n_in; k++) {
        const bp_tensor *t = k ? in[k - 1] : out;
        const int missing = out->m.ndim - t->m.ndim;
        for (int i = 0; i < out->m.ndim; i++) strides[k][i] = i < missing || t->m.shape[i - missing] == 1 ? 0 : t->m.stride[i - missing];
        stride[k] = strides[k];
        j.base[k] = bp_data(t);
        j.size[k] = (int64_t)bp_dtype_size(t->m.dtype);
    }
    bp_walk_init(&j.walk, out->m.ndim, out->m.shape, n_in + 1, stride);
    j.fn = fn;
    j.arg = arg;
    j.pieces = bp_chunks(j.walk.inner, BP_ELEMENT_GRAIN);
    j.piece = j.pieces > 1 ? BP_ELEMENT_GRAIN : j.walk.inner;
    j.runs = j.pieces > 1 || j.walk.inner > BP_ELEMENT_GRAIN / 2 ? 1 : BP_ELEMENT_GRAIN / j.walk.inner;
    j.copies = copies && j.walk.ndim > 0 && j.pieces == 1 && j.walk.inner_stride[0] == 1 && j.walk.inner_stride[1] == 1;
    j.together = j.copies ? j.runs : packable(&j) ? BUFFER / j.walk.inner : 1;
    bp_parallel(out->ctx, bp_chunks(j.walk.outer, j.runs) * j.pieces, chunk, &j);
}

void bp__elementwise(bp_tensor *out, int n_in, bp_tensor *const *in, bp_run_fn *fn, const void *arg)
{
    walk_over(out, n_in, in, fn, arg, false);
}

/* ---- copying ---- */

#define COPY(name, T)                                                              \
    static void name(int64_t n, char *const *p, const int64_t *s, const void *arg) \
    {                                                                              \
        T *y = (T *)(void *)p[0];                                                  \
        const T *x = (const T *)(const void *)p[1];                                \
        (void)arg;                                                                 \
        if (s[0] == 1 && s[1] == 1)                                                \
            for (int64_t i = 0; i < n; i++) y[i] = x[i];                           \
        else                                                                       \
            for (int64_t i = 0; i < n; i++) y[i * s[0]] = x[i * s[1]];             \
    }
COPY(copy_1, uint8_t)
COPY(copy_4, uint32_t)
COPY(copy_8, uint64_t)

void bp__copy(bp_tensor *out, bp_tensor *in)
{
    const size_t size = bp_dtype_size(in->m.dtype);
    walk_over(out, 1, &in, size == 1 ? copy_1 : size == 4 ? copy_4 : copy_8, NULL, true);
}

/* ---- kernels as run functions ---- */

typedef struct kernel_call {
    bp_unary_fn *unary;
    bp_binary_fn *binary;
    bp_compare_fn *compare;
    double p;
} kernel_call;

static void unary_run(int64_t n, char *const *p, const int64_t *s, const void *arg)
{
    const kernel_call *k = (const kernel_call *)arg;
    k->unary(n, p[1], s[1], p[0], s[0], k->p);
}
static void binary_run(int64_t n, char *const *p, const int64_t *s, const void *arg)
{
    const kernel_call *k = (const kernel_call *)arg;
    k->binary(n, p[1], s[1], p[2], s[2], p[0], s[0], k->p);
}
static void compare_run(int64_t n, char *const *p, const int64_t *s, const void *arg)
{
    const kernel_call *k = (const kernel_call *)arg;
    k->compare(n, p[1], s[1], p[2], s[2], (uint8_t *)p[0], s[0]);
}

void bp__run_unary(bp_call *call, bp_unary_id kernel, double p)
{
    kernel_call k = { .unary = bp_kernels_of(call->ctx, call->in[0]->m.dtype)->unary[kernel], .p = p };
    bp__elementwise(call->out[0], 1, call->in, unary_run, &k);
}

void bp__run_binary(bp_call *call, bp_binary_id kernel, double p)
{
    kernel_call k = { .binary = bp_kernels_of(call->ctx, call->in[0]->m.dtype)->binary[kernel], .p = p };
    bp__elementwise(call->out[0], 2, call->in, binary_run, &k);
}

void bp__run_compare(bp_call *call, bp_compare_id kernel)
{
    kernel_call k = { .compare = bp_kernels_of(call->ctx, call->in[0]->m.dtype)->compare[kernel] };
    bp__elementwise(call->out[0], 2, call->in, compare_run, &k);
}
