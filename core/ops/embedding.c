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
enum { PADDING, VOCAB }; /* options; VOCAB of the gradient alone */

typedef struct job {
    const bp_kernels *kernels;
    int64_t count, dim, size, vocab, padding; /* padding: row from 0, -1: none */
    const int64_t *ids;
    const char *from;
    char *to;
    int64_t per; /* rows, or columns, of a chunk */
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

static bp_status read_ids(bp_call *call, const bp_tensor *ids, int64_t vocab, job *j)
{
    int64_t *to = (int64_t *)bp__scratch(call->ctx, (size_t)bp_count(ids) * sizeof *to);
    if (!to) return BP_ENOMEM;
    j->ids = to;
    j->count = bp_count(ids);
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

/* ---- gradient ---- */

static bp_status embedding_grad_infer(bp_call *call)
{
    const bp_meta *dy = &call->in[0]->m, *ids = &call->in[1]->m;
    const int64_t vocab = call->args[VOCAB].as.i;
    if (dy->ndim != ids->ndim + 1 || !bp_shape_equal(ids->ndim, ids->shape, ids->ndim, dy->shape)) {
        char a[200], b[200];
        return bp_op_fail(call, BP_EINVAL, "'dy' is %s and 'ids' %s; dy must be ids and one dimension more",
                          bp_shape_text(dy->ndim, dy->shape, a), bp_shape_text(ids->ndim, ids->shape, b));
    }
    BP_TRY(check_padding(call, vocab));
    const int64_t shape[2] = { vocab, dy->shape[ids->ndim] };
    if (bp_shape_count(2, shape) < 0) return bp_op_fail(call, BP_EINVAL, "vocab %lld is too large", (long long)vocab);
    bp_out(call, 0, dy->dtype, 2, shape);
    return BP_OK;
}

static void clear_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t all = j->vocab * j->dim, first = number * BP_MEMORY_GRAIN;
    const int64_t n = all - first < BP_MEMORY_GRAIN ? all - first : BP_MEMORY_GRAIN;
    (void)worker;
    memset(j->to + first * j->size, 0, (size_t)(n * j->size));
}

/* Some columns of every row: all ids in order, so that a sum does not depend on the cut. */
static void add_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t column = number * j->per, columns = j->dim - column < j->per ? j->dim - column : j->per;
    (void)worker;
    for (int64_t i = 0; i < j->count; i++)
        if (j->ids[i] != j->padding)
            j->kernels->axpy(columns, 1, j->from + (i * j->dim + column) * j->size, j->to + (j->ids[i] * j->dim + column) * j->size);
}

static bp_status embedding_grad_run(bp_call *call)
{
    const bp_tensor *dy = call->in[0], *dw = call->out[0];
    job j = { .kernels = bp_kernels_of(call->ctx, dw->m.dtype),
              .dim = dw->m.shape[1],
              .size = (int64_t)bp_dtype_size(dw->m.dtype),
              .from = bp_data(dy),
              .to = bp_data(dw) };
    BP_TRY(read_ids(call, call->in[1], dw->m.shape[0], &j));
    bp_parallel(call->ctx, bp_chunks(j.vocab * j.dim, BP_MEMORY_GRAIN), clear_chunk, &j);
    j.per = j.count * j.dim < BP_MEMORY_GRAIN ? j.dim : 64;
    bp_parallel(call->ctx, bp_chunks(j.dim, j.per), add_chunk, &j);
    return BP_OK;
}

static void embedding_grad_gradient(bp_grad *g) { bp_grad_set(g, 0, bp_g(g, &bp__op_embedding, 1, g->args, 2, g->in[1], g->dout[0])); }

const bp_op bp__op_embedding_grad = {
    .name = "embedding_grad",
    .group = "indexing",
    .summary = "gradient of embedding: rows added up where they were taken from",
    .detail = "dw[p, :] = sum of dy[.., :] over all ids[..] = p, zero at padding_index",
    .inputs = (const bp_input[]){ { "dy", 0, "[..][dim] gradient of the result" }, IDS_INPUT, { 0 } },
    .options = (const bp_option[]){ PADDING_OPTION,
                                    { .name = "vocab", .kind = BP_OPT_INT, .min = 0, .max = 0x1p62, .required = true,
                                      .help = "rows of the weights" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "dw: [vocab][dim]",
    .flags = BP_OP_INTERNAL,
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
