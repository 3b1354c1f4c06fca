/* embedding.c - rows of a table of weights, chosen by number.
 *
 * take along the first dimension, and two things more: the row at padding_index reads as zeros and gets no gradient, and the gradient
 * adds up only the rows that were used. */
#include "../base/memory.h"
#include "../base/pool.h"
#include "op.h"
#include "product.h"

#include <string.h>

enum { IDS, WEIGHTS };
enum { G_DY, G_IDS, G_ROWS }; /* inputs of the gradient */
enum { PADDING, VOCAB };      /* options; VOCAB of the gradient alone */

typedef struct job {
    const bp_kernels *kernels;
    int64_t count, dim, size, vocab, padding; /* padding: row from 0, -1: none */
    const int64_t *ids;
    const char *from;
    char *to;
    int64_t per;       /* rows, or columns, of a chunk */
    const bp_meta *dy; /* how the gradient lies, [..][dim] */
    int64_t *rows;     /* see the gradient */
} job;

static int64_t padding_row(const bp_call *call) { return call->args[PADDING].set ? call->args[PADDING].as.i : -1; }

static bp_status check_padding(bp_call *call, int64_t vocab)
{
    const int64_t row = padding_row(call), base = call->ctx->base;
    if (call->args[PADDING].set && (row < 0 || row >= vocab))
        return bp_op_fail(call, BP_EINVAL, "padding_index is %lld; a row of the weights, %lld to %lld, is expected",
                          (long long)(row + base), (long long)base, (long long)(vocab - 1 + base));
    return BP_OK;
}

/* One bit for each row, behind the ids in the scratch memory. */
static size_t seen_words(int64_t vocab) { return (size_t)(vocab + 63) / 64; }

static bp_status read_ids(bp_call *call, const bp_tensor *ids, int64_t vocab, job *j)
{
    j->count = bp_count(ids);
    int64_t *to = (int64_t *)bp__scratch(call->ctx, ((size_t)j->count + seen_words(vocab)) * sizeof *to);
    if (!to) return BP_ENOMEM;
    j->ids = to;
    j->vocab = vocab;
    j->padding = padding_row(call);
    return bp_read_indices(call, ids, "id", vocab, to);
}

/* ---- forward ---- */

static bp_status embedding_infer(bp_call *call)
{
    const bp_meta *ids = &call->in[IDS]->m, *w = &call->in[WEIGHTS]->m;
    int64_t shape[BP_MAX_DIMS];
    BP_TRY(bp_need_ndim(call, WEIGHTS, 2, "[vocab][dim]"));
    BP_TRY(check_padding(call, w->shape[0]));
    if (ids->dtype == BP_BOOL) return bp_op_fail(call, BP_EINVAL, "'ids' is bool; positions of rows are integers");
    if (ids->ndim == BP_MAX_DIMS)
        return bp_op_fail(call, BP_EINVAL, "'ids' has %d dimensions; the result would have one more", BP_MAX_DIMS);
    memcpy(shape, ids->shape, sizeof *shape * (size_t)ids->ndim);
    shape[ids->ndim] = w->shape[1];
    bp_out(call, 0, w->dtype, ids->ndim + 1, shape);
    return BP_OK;
}

static void read_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t first = number * j->per, end = first + j->per < j->count ? first + j->per : j->count;
    const size_t row = (size_t)(j->dim * j->size);
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        char *to = j->to + (size_t)i * row;
        if (j->ids[i] == j->padding)
            memset(to, 0, row);
        else
            memcpy(to, j->from + (size_t)j->ids[i] * row, row);
    }
}

static bp_status embedding_run(bp_call *call)
{
    const bp_tensor *w = call->in[WEIGHTS];
    job j = { .dim = w->m.shape[1], .size = (int64_t)bp_dtype_size(w->m.dtype), .from = bp_data(w), .to = bp_data(call->out[0]) };
    BP_TRY(read_ids(call, call->in[IDS], w->m.shape[0], &j));
    j.per = BP_MEMORY_GRAIN / (j.dim + 1) + 1;
    bp_parallel(call->ctx, bp_chunks(j.count, j.per), read_chunk, &j);
    return BP_OK;
}

static void embedding_gradient(bp_grad *g)
{
    bp_arg args[2] = { g->args[PADDING], bp_int(g->in[WEIGHTS]->m.shape[0]) };
    bp_grad_set(g, WEIGHTS, bp_g(g, &bp__op_embedding_grad, 2, args, 2, g->dout[0], g->in[IDS]));
}

#define PADDING_OPTION                                                                                                   \
    { .name = "padding_index", .kind = BP_OPT_INDEX, .def = -1, .min = 1, .max = 0,                                      \
      .help = "an id that stands for nothing: it reads as zeros, and its row gets no gradient; default none" }
#define IDS_INPUT { "ids", BP_IN_INDEX, "[..] positions of rows" }

const bp_op bp__op_embedding = {
    .name = "embedding",
    .group = "indexing",
    .summary = "rows of a table of weights, chosen by number",
    .detail = "y[.., :] = weights[ids[..], :], zeros where ids is padding_index.\n"
              "Ids may repeat; their gradients add up in the order of ids.",
    .inputs = (const bp_input[]){ IDS_INPUT, { "weights", 0, "[vocab][dim] one row for each id" }, { 0 } },
    .options = (const bp_option[]){ PADDING_OPTION, { 0 } },
    .n_out = 1,
    .outputs = "y: [..][dim]",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << IDS,
    .infer = embedding_infer,
    .run = embedding_run,
    .gradient = embedding_gradient,
    .cases = (const bp_case[]){ { "i64:2x3<4 4x3", "", 0, 0, 0 },
                                { "i32:5<2 4x2'", "padding_index=1", 0, 0, 0 },
                                { "u8:s<3 3x1", "", 0, 0, 0 },
                                { "i64:0x2<4 4x3", "padding_index=0", 0, 0, 0 },
                                { 0 } },
};

/* ---- gradient ----
 *
 * A table is large and a batch uses few of its rows, so a plan keeps a list of them from one replay to the next (plan/rows.c):
 *     rows[0]  how many rows of dw may hold something, -1: not known, any may; rows[1..rows[0]]  which, from 0, each once
 * On entry the list speaks of what dw holds, and only that is cleared; on return it speaks of what was added up. */

static bp_status rows_infer(bp_call *call, const bp_meta *ids, int64_t vocab)
{
    const bp_tensor *rows = call->in[G_ROWS];
    if (!rows) return BP_OK;
    const int64_t count = bp_shape_count(ids->ndim, ids->shape), least = 1 + (count < vocab ? count : vocab);
    char t[200];
    if (rows->m.dtype != BP_I64 || rows->m.ndim != 1 || rows->m.shape[0] < least || !bp_tensor_is_contiguous(rows))
        return bp_op_fail(call, BP_EINVAL, "'rows' is %s %s; i64 [%lld] without gaps, room for every row that may be used, is expected",
                          bp_dtype_name(rows->m.dtype), bp_shape_text(rows->m.ndim, rows->m.shape, t), (long long)least);
    if (!call->given[0])
        return bp_op_fail(call, BP_EINVAL, "'rows' speaks of what dw holds, but dw is not given; give it, or leave 'rows' out");
    return BP_OK;
}

static bp_status embedding_grad_infer(bp_call *call)
{
    const bp_meta *dy = &call->in[G_DY]->m, *ids = &call->in[G_IDS]->m;
    const int64_t vocab = call->args[VOCAB].as.i;
    if (dy->ndim != ids->ndim + 1 || !bp_shape_equal(ids->ndim, ids->shape, ids->ndim, dy->shape)) {
        char a[200], b[200];
        return bp_op_fail(call, BP_EINVAL, "'dy' is %s and 'ids' %s; dy must be ids and one dimension more",
                          bp_shape_text(dy->ndim, dy->shape, a), bp_shape_text(ids->ndim, ids->shape, b));
    }
    BP_TRY(check_padding(call, vocab));
    const int64_t shape[2] = { vocab, dy->shape[ids->ndim] };
    if (bp_shape_count(2, shape) < 0) return bp_op_fail(call, BP_EINVAL, "vocab %lld is too large", (long long)vocab);
    if (call->given[0] && !bp_tensor_is_contiguous(call->out[0]))
        return bp_op_fail(call, BP_EINVAL, "dw is a view with gaps; give a tensor without");
    bp_out(call, 0, dy->dtype, 2, shape);
    return rows_infer(call, ids, vocab);
}

static void clear_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t all = j->vocab * j->dim, first = number * BP_MEMORY_GRAIN;
    const int64_t n = all - first < BP_MEMORY_GRAIN ? all - first : BP_MEMORY_GRAIN;
    (void)worker;
    memset(j->to + first * j->size, 0, (size_t)(n * j->size));
}

static void clear_rows(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t first = number * j->per, end = first + j->per < j->rows[0] ? first + j->per : j->rows[0];
    const size_t row = (size_t)(j->dim * j->size);
    (void)worker;
    for (int64_t i = first; i < end; i++) memset(j->to + (size_t)j->rows[1 + i] * row, 0, row);
}

/* Rows lie anywhere: the one that is met AHEAD rows later is sent for. */
enum { AHEAD = 6 };
static inline void ask_for(const char *row, int64_t bytes)
{
    for (int64_t i = 0; i < bytes && i < 1024; i += 64) __builtin_prefetch(row + i, 1);
}

/* Some columns of every row: all ids in order, so that a sum does not depend on the cut. dy may repeat its rows or lie otherwise. */
static void add_chunk(void *arg, int64_t number, int worker)
{
    enum { MOST = 64 };
    const job *j = (const job *)arg;
    const bp_meta *m = j->dy;
    const int outer = m->ndim - 1;
    const int64_t column = number * j->per, columns = j->dim - column < j->per ? j->dim - column : j->per;
    const int64_t apart = m->stride[outer];
    const char *from = j->from + column * apart * j->size;
    char *to = j->to + column * j->size;
    int64_t at[BP_MAX_DIMS] = { 0 };
    double few[MOST];
    (void)worker;
    for (int64_t i = 0; i < j->count; i++) {
        if (i + AHEAD < j->count) ask_for(to + j->ids[i + AHEAD] * j->dim * j->size, columns * j->size);
        if (j->ids[i] != j->padding) {
            char *row = to + j->ids[i] * j->dim * j->size;
            for (int64_t k = 0; k < columns; k += MOST) {
                const int64_t n = apart == 1 ? columns : columns - k < MOST ? columns - k : MOST;
                const char *x = from + k * apart * j->size;
                if (apart != 1) {
                    bp_convert_run(m->dtype, m->dtype, n, x, apart, few, 1);
                    x = (const char *)few;
                }
                j->kernels->axpy(n, 1, x, row + k * j->size);
                if (apart == 1) break;
            }
        }
        for (int d = outer - 1; d >= 0; d--) { /* the next row of dy */
            from += m->stride[d] * j->size;
            if (++at[d] < m->shape[d]) break;
            from -= m->shape[d] * m->stride[d] * j->size;
            at[d] = 0;
        }
    }
}

/* What dw holds becomes zero. */
static bp_status clear(bp_call *call, job *j)
{
    const int64_t n = j->rows ? j->rows[0] : -1;
    if (n < 0 || 2 * n > j->vocab) {
        bp_parallel(call->ctx, bp_chunks(j->vocab * j->dim, BP_MEMORY_GRAIN), clear_chunk, j);
        return BP_OK;
    }
    if (n >= call->in[G_ROWS]->m.shape[0])
        return bp_op_fail(call, BP_EINVAL, "'rows' speaks of %lld rows, more than it names", (long long)n);
    for (int64_t i = 1; i <= n; i++)
        if (j->rows[i] < 0 || j->rows[i] >= j->vocab)
            return bp_op_fail(call, BP_EINVAL, "'rows' names row %lld of %lld", (long long)j->rows[i], (long long)j->vocab);
    j->per = BP_MEMORY_GRAIN / (j->dim + 1) + 1;
    bp_parallel(call->ctx, bp_chunks(n, j->per), clear_rows, j);
    return BP_OK;
}

static void note_rows(const job *j)
{
    uint64_t *seen = (uint64_t *)(uintptr_t)(j->ids + j->count);
    int64_t n = 0;
    memset(seen, 0, seen_words(j->vocab) * sizeof *seen);
    for (int64_t i = 0; i < j->count; i++) {
        const int64_t row = j->ids[i];
        const uint64_t bit = (uint64_t)1 << (row & 63);
        if (seen[row >> 6] & bit) continue;
        seen[row >> 6] |= bit;
        j->rows[++n] = row;
    }
    j->rows[0] = n;
}

static bp_status embedding_grad_run(bp_call *call)
{
    const bp_tensor *dy = call->in[G_DY], *dw = call->out[0];
    job j = { .kernels = bp_kernels_of(call->ctx, dw->m.dtype),
              .dim = dw->m.shape[1],
              .size = (int64_t)bp_dtype_size(dw->m.dtype),
              .from = bp_data(dy),
              .to = bp_data(dw),
              .dy = &dy->m,
              .rows = call->in[G_ROWS] ? (int64_t *)(void *)bp_data(call->in[G_ROWS]) : NULL };
    BP_TRY(read_ids(call, call->in[G_IDS], dw->m.shape[0], &j));
    BP_TRY(clear(call, &j));
    j.per = j.count * j.dim < BP_MEMORY_GRAIN ? j.dim : 64;
    bp_parallel(call->ctx, bp_chunks(j.dim, j.per), add_chunk, &j);
    if (j.rows) note_rows(&j);
    return BP_OK;
}

static void embedding_grad_gradient(bp_grad *g) { bp_grad_set(g, 0, bp_g(g, &bp__op_embedding, 1, g->args, 2, g->in[G_IDS], g->dout[0])); }

const bp_op bp__op_embedding_grad = {
    .name = "embedding_grad",
    .group = "indexing",
    .summary = "gradient of embedding: rows added up where they were taken from",
    .detail = "dw[p, :] = sum of dy[.., :] over all ids[..] = p, zero at padding_index\n"
              "A plan gives rows too: how many rows of the memory of dw hold something (-1: not known), and their numbers from 0. Only "
              "these are cleared, and rows is left to speak of what dw holds then.",
    .inputs = (const bp_input[]){ { "dy", 0, "[..][dim] gradient of the result" },
                                  IDS_INPUT,
                                  { "rows", BP_IN_OPTIONAL | BP_IN_RAW | BP_IN_MUTATED, "i64 [1 + n] count and numbers; see above" },
                                  { 0 } },
    .options = (const bp_option[]){ PADDING_OPTION,
                                    { .name = "vocab", .kind = BP_OPT_INT, .min = 0, .max = 0x1p62, .required = true,
                                      .help = "rows of the weights" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "dw: [vocab][dim]",
    .flags = BP_OP_INTERNAL | BP_OP_STRIDED,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 2,
    .infer = embedding_grad_infer,
    .run = embedding_grad_run,
    .gradient = embedding_grad_gradient,
    .cases = (const bp_case[]){ { "2x3x2 i64:2x3<4", "vocab=4", 0, 0, 0 },
                                { "5x2' i32:5<2", "padding_index=1 vocab=3", 0, 0, 0 },
                                { "3 i64:s<2", "vocab=2", 0, 0, 0 },
                                { 0 } },
};
