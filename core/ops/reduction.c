/* reduction.c - cutting a reduction into passes and chunks, and the loops for integers.
 *
 * Neighbouring dimensions that are all reduced, or all kept, count as one. Each pass reduces the last such group, [outer][r][inner] to
 * [outer][inner], until none is left. A pass whose r * inner is large is cut into blocks of rows and pieces of columns; the blocks'
 * results are combined in order by one more pass. All of it depends on the shape alone. */
#include "reduction.h"

#include "../base/memory.h"
#include "elementwise.h"

#include <string.h>

/* ---- loops for integers and truth; T is the input's type, R the result's ---- */

#define LOOP(name, T, R, identity, combine)                                                          \
    static void name(int64_t outer, int64_t r, int64_t inner, int64_t row, const void *x_, void *y_) \
    {                                                                                                \
        const T *at = (const T *)x_;                                                                 \
        R *y = (R *)y_;                                                                              \
        for (int64_t o = 0; o < outer; o++, y += inner) {                                            \
            for (int64_t j = 0; j < inner; j++) y[j] = identity;                                     \
            for (int64_t i = 0; i < r; i++, at += row)                                               \
                for (int64_t j = 0; j < inner; j++) {                                                \
                    const R a = y[j];                                                                \
                    const T x = at[j];                                                               \
                    y[j] = (R)(combine);                                                             \
                }                                                                                    \
        }                                                                                            \
    }
#define INTEGERS(suffix, T, LEAST, MOST)                         \
    LOOP(sum_##suffix, T, int64_t, 0, (uint64_t)a + (uint64_t)x) \
    LOOP(prod_##suffix, T, int64_t, 1, (uint64_t)a *(uint64_t)x) \
    LOOP(max_##suffix, T, T, LEAST, x > a ? x : a)               \
    LOOP(min_##suffix, T, T, MOST, x < a ? x : a)
INTEGERS(i32, int32_t, INT32_MIN, INT32_MAX)
INTEGERS(i64, int64_t, INT64_MIN, INT64_MAX)
INTEGERS(u8, uint8_t, 0, UINT8_MAX)
#define TRUTH(suffix, T)                            \
    LOOP(any_##suffix, T, uint8_t, 0, a | (x != 0)) \
    LOOP(all_##suffix, T, uint8_t, 1, a &(x != 0))
TRUTH(f32, float)
TRUTH(f64, double)
TRUTH(i32, int32_t)
TRUTH(i64, int64_t)
TRUTH(u8, uint8_t)

bp_dtype bp__reduced_dtype(bp_reduce_kind kind, bp_dtype dtype)
{
    if (kind == BP_REDUCE_ANY || kind == BP_REDUCE_ALL) return BP_BOOL;
    if ((kind == BP_REDUCE_SUM || kind == BP_REDUCE_PROD) && !bp_is_float(dtype)) return BP_I64;
    return dtype;
}

static bp_reduce_fn *loop_for(const bp_ctx *ctx, bp_reduce_kind kind, bp_dtype dtype)
{
    static bp_reduce_fn *const loops[][BP_DTYPE_COUNT] = {
        [BP_REDUCE_SUM] = { [BP_I32] = sum_i32, [BP_I64] = sum_i64, [BP_U8] = sum_u8, [BP_BOOL] = sum_u8 },
        [BP_REDUCE_PROD] = { [BP_I32] = prod_i32, [BP_I64] = prod_i64, [BP_U8] = prod_u8, [BP_BOOL] = prod_u8 },
        [BP_REDUCE_MAX] = { [BP_I32] = max_i32, [BP_I64] = max_i64, [BP_U8] = max_u8, [BP_BOOL] = max_u8 },
        [BP_REDUCE_MIN] = { [BP_I32] = min_i32, [BP_I64] = min_i64, [BP_U8] = min_u8, [BP_BOOL] = min_u8 },
        [BP_REDUCE_ANY] = { any_f32, any_f64, any_i32, any_i64, any_u8, any_u8 },
        [BP_REDUCE_ALL] = { all_f32, all_f64, all_i32, all_i64, all_u8, all_u8 },
    };
    if (loops[kind][dtype]) return loops[kind][dtype];
    const bp_kernels *k = bp_kernels_of(ctx, dtype);
    switch (kind) {
    case BP_REDUCE_SUM: return k->reduce_sum;
    case BP_REDUCE_PROD: return k->reduce_prod;
    case BP_REDUCE_MAX: return k->reduce_max;
    default: return k->reduce_min;
    }
}

bp_reduction bp__reduction(const bp_ctx *ctx, bp_reduce_kind kind, bp_dtype dtype)
{
    return (bp_reduction){ loop_for(ctx, kind, dtype), loop_for(ctx, kind, bp__reduced_dtype(kind, dtype)) };
}

/* ---- passes ---- */

enum { PIECE = 512 }; /* columns in a chunk of a wide pass */

typedef struct pass {
    int64_t outer, r, inner;
    int64_t outers;        /* per chunk; 1 when a slab is cut further */
    int64_t blocks, block; /* of rows; block is the length of each but the last */
    int64_t pieces, piece; /* of columns */
    bp_reduce_fn *fn;
    size_t x_size, y_size;
    const char *x;
    char *y; /* [outer][blocks][inner] */
} pass;

static void cut(pass *p)
{
    p->blocks = p->pieces = 1;
    p->block = p->r;
    p->piece = p->inner;
    const int64_t slab = p->r * p->inner;
    p->outers = slab > BP_ELEMENT_GRAIN ? 1 : slab > 0 ? BP_ELEMENT_GRAIN / slab : p->outer;
    if (slab <= 2 * BP_ELEMENT_GRAIN) return;
    if (p->inner > PIECE) {
        p->piece = PIECE;
        p->pieces = (p->inner + PIECE - 1) / PIECE;
    }
    const int64_t rows = BP_ELEMENT_GRAIN / p->piece;
    if (p->r >= 2 * rows) {
        p->block = rows;
        p->blocks = (p->r + rows - 1) / rows;
    }
}

static int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

static void run_chunk(void *arg, int64_t number, int worker)
{
    const pass *p = (const pass *)arg;
    const int64_t per_outer = p->blocks * p->pieces, o = number / per_outer * p->outers;
    const int64_t i = number % per_outer / p->pieces * p->block, j = number % p->pieces * p->piece;
    const int64_t outer = lesser(p->outers, p->outer - o), rows = lesser(p->block, p->r - i), columns = lesser(p->piece, p->inner - j);
    const char *x = p->x + (size_t)((o * p->r + i) * p->inner + j) * p->x_size;
    char *y = p->y + (size_t)((o * p->blocks + (p->block ? i / p->block : 0)) * p->inner + j) * p->y_size;
    (void)worker;
    p->fn(outer, rows, columns, p->inner, x, y);
}

static void run_pass(bp_ctx *ctx, pass *p)
{
    if (p->outer * p->inner == 0) return;
    bp_parallel(ctx, bp_chunks(p->outer, p->outers) * p->blocks * p->pieces, run_chunk, p);
}

/* The passes that reduce the marked dimensions of a shape; returns their number, at least 1. */
static int plan_passes(int ndim, const int64_t *shape, const bool *over, pass *passes)
{
    int64_t size[BP_MAX_DIMS];
    bool reduced[BP_MAX_DIMS];
    int groups = 0, n = 0;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == 1) continue;
        if (groups > 0 && reduced[groups - 1] == over[i])
            size[groups - 1] *= shape[i];
        else
            size[groups] = shape[i], reduced[groups++] = over[i];
    }
    for (int at = groups - 1; at >= 0; at--) {
        if (!reduced[at]) continue;
        pass *p = &passes[n++];
        p->outer = p->inner = 1;
        p->r = size[at];
        for (int i = 0; i < at; i++) p->outer *= size[i];
        for (int i = at + 1; i < groups; i++) p->inner *= reduced[i] ? 1 : size[i];
    }
    if (n == 0) { /* nothing but sizes of 1: one row, each element its own column */
        passes[n++] = (pass){ .outer = 1, .r = 1, .inner = bp_shape_count(ndim, shape) };
    }
    return n;
}

bp_status bp__reduce(bp_call *call, bp_reduce_kind kind, const bool *over)
{
    const bp_tensor *x = call->in[0], *y = call->out[0];
    const bp_reduction f = bp__reduction(call->ctx, kind, x->m.dtype);
    const size_t y_size = bp_dtype_size(y->m.dtype);
    pass passes[BP_MAX_DIMS];
    const int n = plan_passes(x->m.ndim, x->m.shape, over, passes);
    const pass *only = &passes[0];
    if (n == 1 && only->outer * only->r * only->inner <= BP_ELEMENT_GRAIN) { /* a single chunk, as cut would have it */
        if (only->outer * only->inner > 0) f.first(only->outer, only->r, only->inner, only->inner, bp_data(x), bp_data(y));
        return BP_OK;
    }
    size_t between = 0, parts = 0; /* largest result between two passes, and of blocks within one */
    for (int i = 0; i < n; i++) {
        pass *p = &passes[i];
        cut(p);
        const size_t bytes = (size_t)(p->outer * p->inner) * y_size;
        if (i < n - 1 && bytes > between) between = bytes;
        if (p->blocks > 1 && bytes * (size_t)p->blocks > parts) parts = bytes * (size_t)p->blocks;
    }
    between = (between + 63) & ~(size_t)63;
    char *scratch = NULL;
    if (between + parts > 0 && !(scratch = (char *)bp__scratch(call->ctx, 2 * between + parts))) return BP_ENOMEM;
    const char *from = bp_data(x);
    for (int i = 0; i < n; i++) {
        pass *p = &passes[i];
        char *to = i == n - 1 ? bp_data(y) : scratch + (i & 1 ? between : 0);
        p->fn = i == 0 ? f.first : f.next;
        p->x_size = i == 0 ? bp_dtype_size(x->m.dtype) : y_size;
        p->y_size = y_size;
        p->x = from;
        p->y = p->blocks > 1 ? scratch + 2 * between : to;
        run_pass(call->ctx, p);
        if (p->blocks > 1) {
            pass last = { .outer = p->outer,
                          .r = p->blocks,
                          .inner = p->inner,
                          .outers = 1,
                          .blocks = 1,
                          .block = p->blocks,
                          .pieces = 1,
                          .piece = p->inner,
                          .fn = f.next,
                          .x_size = y_size,
                          .y_size = y_size,
                          .x = p->y,
                          .y = to };
            run_pass(call->ctx, &last);
        }
        from = to;
    }
    return BP_OK;
}

/* ---- rows that are summed while another op reads them ---- */

bp_status bp__row_sum_start(bp_ctx *ctx, bp_dtype dtype, int64_t rows, int64_t n, const void *x, void *y, bp_row_sum *sum)
{
    pass p = { .outer = 1, .r = rows, .inner = n };
    cut(&p);
    *sum = (bp_row_sum){ .rows = rows,
                         .n = n,
                         .block = p.block,
                         .blocks = p.blocks,
                         .piece = p.piece,
                         .pieces = p.pieces,
                         .size = bp_dtype_size(dtype),
                         .fn = bp__reduction(ctx, BP_REDUCE_SUM, dtype).first,
                         .x = (const char *)x,
                         .y = (char *)y,
                         .parts = (char *)y };
    if (p.blocks > 1) sum->parts = (char *)bp__scratch_beside(ctx, (size_t)(p.blocks * n) * sum->size);
    return sum->parts ? BP_OK : BP_ENOMEM;
}

typedef struct summing {
    const bp_row_sum *sum;
    int64_t chunks;
    bp_chunk_fn *fn;
    void *arg;
} summing;

static void summing_chunk(void *arg, int64_t chunk, int worker)
{
    const summing *s = (const summing *)arg;
    const bp_row_sum *sum = s->sum;
    const int64_t all = sum->blocks * sum->pieces;
    if (s->fn) s->fn(s->arg, chunk, worker);
    for (int64_t k = all * chunk / s->chunks; k < all * (chunk + 1) / s->chunks; k++) {
        const int64_t b = k / sum->pieces, i = b * sum->block, j = k % sum->pieces * sum->piece;
        sum->fn(1, lesser(sum->block, sum->rows - i), lesser(sum->piece, sum->n - j), sum->n, sum->x + (size_t)(i * sum->n + j) * sum->size,
                sum->parts + (size_t)(b * sum->n + j) * sum->size);
    }
}

void bp__parallel_summing(bp_ctx *ctx, const bp_row_sum *sum, int64_t chunks, bp_chunk_fn *fn, void *arg)
{
    if (!sum) {
        if (fn) bp_parallel(ctx, chunks, fn, arg);
        return;
    }
    summing s = { sum, chunks, fn, arg };
    bp_parallel(ctx, chunks, summing_chunk, &s);
    if (sum->blocks > 1) sum->fn(1, sum->blocks, sum->n, sum->n, sum->parts, sum->y);
}

bp_status bp__axes(bp_ctx *ctx, const char *who, const bp_arg *axes, int ndim, bool *over)
{
    for (int i = 0; i < ndim; i++) over[i] = axes->count == 0;
    for (int k = 0; k < axes->count; k++) {
        int axis;
        BP_TRY(bp_shape_axis(ctx, who, axes->as.list[k], ndim, &axis));
        if (over[axis]) return bp_fail(ctx, BP_EINVAL, "%s: dimension %d is named twice in axes", who, axis + ctx->base);
        over[axis] = true;
    }
    return BP_OK;
}
