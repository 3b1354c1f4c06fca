/* elementwise.c - walking and cutting for elementwise ops.
 *
 * bp_walk merges the dimensions that all operands step through evenly into one inner run. A long inner run is cut into pieces, short runs are
 * bundled; both by shape alone. */
#include "elementwise.h"

void bp__spread(bp_ctx *ctx, int64_t elements, int64_t chunks, bp_chunk_fn *fn, void *arg)
{
    if (elements >= BP_ELEMENT_GRAIN) bp_parallel(ctx, chunks, fn, arg);
    else
        for (int64_t i = 0; i < chunks; i++) fn(arg, i, 0);
}

typedef struct job {
    bp_walk walk;
    char *base[BP_WALK_MAX];
    int64_t size[BP_WALK_MAX]; /* of an element, in bytes */
    int64_t pieces;            /* per run */
    int64_t piece;             /* elements in each but the last */
    int64_t runs;              /* per chunk; 1 when a run has several pieces */
    bp_run_fn *fn;
    const void *arg;
} job;

static void chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const bp_walk *w = &j->walk;
    int64_t run = number / j->pieces * j->runs, stop = run + j->runs < w->outer ? run + j->runs : w->outer;
    int64_t begin = number % j->pieces * j->piece, n = w->inner - begin < j->piece ? w->inner - begin : j->piece;
    int64_t index[BP_MAX_DIMS] = { 0 }, at[BP_WALK_MAX];
    char *p[BP_WALK_MAX];
    (void)worker;
    bp_walk_at(w, run, at);
    for (int k = 0; k < w->n; k++) p[k] = j->base[k] + (at[k] + begin * w->inner_stride[k]) * j->size[k];
    for (int64_t i = w->ndim - 1, rest = run; i >= 0; i--) {
        index[i] = rest % w->shape[i];
        rest /= w->shape[i];
    }
    for (;;) {
        j->fn(n, p, w->inner_stride, j->arg);
        if (++run == stop) return;
        for (int i = w->ndim - 1; i >= 0; i--) { /* the next run, like the digits of a counter */
            const int64_t steps = ++index[i] < w->shape[i] ? 1 : 1 - w->shape[i];
            for (int k = 0; k < w->n; k++) p[k] += steps * w->stride[k][i] * j->size[k];
            if (steps == 1) break;
            index[i] = 0;
        }
    }
}

void bp__elementwise(bp_tensor *out, int n_in, bp_tensor *const *in, bp_run_fn *fn, const void *arg)
{
    job j;
    int64_t strides[BP_WALK_MAX][BP_MAX_DIMS];
    const int64_t *stride[BP_WALK_MAX];
    if (bp_count(out) == 0) return;
    for (int k = 0; k <= n_in; k++) {
        const bp_tensor *t = k ? in[k - 1] : out;
        const int missing = out->m.ndim - t->m.ndim;
        for (int i = 0; i < out->m.ndim; i++)
            strides[k][i] = i < missing || t->m.shape[i - missing] == 1 ? 0 : t->m.stride[i - missing];
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
    bp_parallel(out->ctx, bp_chunks(j.walk.outer, j.runs) * j.pieces, chunk, &j);
}

/* ---- copying ---- */

#define COPY(name, T)                                                                                                  \
    static void name(int64_t n, char *const *p, const int64_t *s, const void *arg)                                     \
    {                                                                                                                  \
        T *y = (T *)(void *)p[0];                                                                                      \
        const T *x = (const T *)(const void *)p[1];                                                                    \
        (void)arg;                                                                                                     \
        if (s[0] == 1 && s[1] == 1)                                                                                    \
            for (int64_t i = 0; i < n; i++) y[i] = x[i];                                                               \
        else                                                                                                           \
            for (int64_t i = 0; i < n; i++) y[i * s[0]] = x[i * s[1]];                                                 \
    }
COPY(copy_1, uint8_t)
COPY(copy_4, uint32_t)
COPY(copy_8, uint64_t)

void bp__copy(bp_tensor *out, bp_tensor *in)
{
    const size_t size = bp_dtype_size(in->m.dtype);
    bp__elementwise(out, 1, &in, size == 1 ? copy_1 : size == 4 ? copy_4 : copy_8, NULL);
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
