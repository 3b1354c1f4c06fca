/* index.c - choosing elements by position, by label and by mask. Positions in tensors count from ctx->base. */
#include "elementwise.h"

#include "../base/memory.h"

#include <string.h>

/* ---- shared ---- */

static bp_status axis_of(bp_call *call, const bp_meta *x, int *axis)
{
    return bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->ndim, axis);
}

/* bool is a mask, not a position. */
static bp_status need_positions(bp_call *call, int i)
{
    if (call->in[i]->m.dtype != BP_BOOL) return BP_OK;
    return bp_op_fail(call, BP_EINVAL, "'%s' is bool; positions are integers (masked_select chooses by a mask)", call->op->inputs[i].name);
}

/* The positions in in[i], from 0, in scratch. */
static bp_status positions(bp_call *call, int i, const char *what, int64_t limit, int64_t **out)
{
    *out = (int64_t *)bp__scratch(call->ctx, (size_t)bp_count(call->in[i]) * sizeof **out);
    return *out ? bp_read_indices(call, call->in[i], what, limit, *out) : BP_ENOMEM;
}

/* One side of a move is [outer][n][inner], the other [outer][count][inner]. */
typedef struct job {
    bp_ctx *ctx;
    bp_dtype dtype;
    int64_t outer, n, count, inner;
    const int64_t *index;       /* [count], or [outer][count][inner] for gather */
    int64_t per, piece, pieces; /* rows per chunk; columns per chunk, chunks per row */
    const char *from;
    char *to;
} job;

static void sizes(job *j, const bp_meta *x, int axis)
{
    j->outer = j->inner = 1;
    j->n = x->shape[axis];
    for (int i = 0; i < axis; i++) j->outer *= x->shape[i];
    for (int i = axis + 1; i < x->ndim; i++) j->inner *= x->shape[i];
}

static const bp_option axis_options[] = {
    { .name = "axis", .kind = BP_OPT_AXIS, .def = 0, .min = 1, .max = 0, .help = "the dimension to choose along" },
    { 0 },
};
static const bp_option grad_options[] = {
    { .name = "axis", .kind = BP_OPT_AXIS, .def = 0, .min = 1, .max = 0, .help = "the dimension that was chosen along" },
    { .name = "size", .kind = BP_OPT_INT, .min = 0, .max = 0x1p62, .required = true, .help = "of that dimension in dx" },
    { 0 },
};
static const bp_input choose_inputs[] = { { "x", 0, "values" }, { "index", BP_IN_INDEX, "positions along axis" }, { 0 } };
static const bp_input grad_inputs[] = { { "dy", 0, "gradient of the result" }, { "index", BP_IN_INDEX, "positions along axis" }, { 0 } };

/* dx through NAME_grad with the axis, its size in x, and the index */
static void through(bp_grad *g, const bp_op *op)
{
    int axis;
    if (g->status == BP_OK) g->status = bp_shape_axis(g->ctx, g->op->name, g->args[0].as.i, g->in[0]->m.ndim, &axis);
    if (g->status != BP_OK) return;
    const bp_arg args[2] = { bp_int(axis), bp_int(g->in[0]->m.shape[axis]) };
    bp_grad_set(g, 0, bp_g(g, op, 2, args, 2, g->dout[0], g->in[1]));
}
static void back(bp_grad *g, const bp_op *op) { bp_grad_set(g, 0, bp_g(g, op, 1, g->args, 2, g->dout[0], g->in[1])); }

/* ---- take ---- */

static bp_status take_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m, *index = &call->in[1]->m;
    int64_t shape[2 * BP_MAX_DIMS];
    int axis, ndim = 0;
    BP_TRY(need_positions(call, 1));
    BP_TRY(axis_of(call, x, &axis));
    for (int i = 0; i < axis; i++) shape[ndim++] = x->shape[i];
    for (int i = 0; i < index->ndim; i++) shape[ndim++] = index->shape[i];
    for (int i = axis + 1; i < x->ndim; i++) shape[ndim++] = x->shape[i];
    char a[200], b[200];
    if (ndim > BP_MAX_DIMS || bp_shape_count(ndim, shape) < 0)
        return bp_op_fail(call, BP_EINVAL,
                          "'x' of shape %s and 'index' of shape %s give a result too large: at most %d dimensions are possible",
                          bp_shape_text(x->ndim, x->shape, a), bp_shape_text(index->ndim, index->shape, b), BP_MAX_DIMS);
    bp_out(call, 0, x->dtype, ndim, shape);
    return BP_OK;
}

enum { FEW_BYTES = 64 }; /* of a row, that are moved before a call of memcpy has begun */

static void take_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t first = number * j->per, rows = j->outer * j->count, end = rows - first < j->per ? rows : first + j->per;
    const size_t size = bp_dtype_size(j->dtype), row = (size_t)j->inner * size;
    const char *block = j->from + (size_t)(first / j->count * j->n) * row; /* what index counts from */
    int64_t at = first % j->count;
    (void)worker;
    for (int64_t i = first; i < end; i++, at++) {
        if (at == j->count) at = 0, block += (size_t)j->n * row;
        const char *from = block + (size_t)j->index[at] * row;
        char *to = j->to + (size_t)i * row;
        if (row > FEW_BYTES || row % 4 != 0)
            memcpy(to, from, row);
        else {
            for (size_t b = row & 4; b < row; b += 8) {
                memcpy(to + b, from + b, 8);
                __asm__("" : "+r"(b)); /* or else the loop becomes that call */
            }
            if (row & 4) memcpy(to, from, 4);
        }
    }
}

static bp_status take_run(bp_call *call)
{
    const bp_tensor *x = call->in[0];
    job j = { .ctx = call->ctx, .dtype = x->m.dtype, .count = bp_count(call->in[1]), .from = bp_data(x), .to = bp_data(call->out[0]) };
    int64_t *index;
    int axis;
    BP_TRY(axis_of(call, &x->m, &axis));
    sizes(&j, &x->m, axis);
    BP_TRY(positions(call, 1, "index", j.n, &index));
    if (bp_count(call->out[0]) == 0) return BP_OK;
    j.index = index;
    j.per = j.inner >= BP_ELEMENT_GRAIN ? 1 : BP_ELEMENT_GRAIN / j.inner;
    bp_parallel(call->ctx, bp_chunks(j.outer * j.count, j.per), take_chunk, &j);
    return BP_OK;
}

static void take_gradient(bp_grad *g) { through(g, &bp__op_take_grad); }

const bp_op bp__op_take = {
    .name = "take",
    .group = "indexing",
    .summary = "the slices of a dimension at given positions: rows, batches, embeddings",
    .detail = "y[.., i.., ..] = x[.., index[i..], ..]. Positions may repeat; their gradients add up in the order of the index.",
    .inputs = choose_inputs,
    .options = axis_options,
    .n_out = 1,
    .outputs = "y: x.shape before axis, then index.shape, then x.shape after axis",
    .flags = BP_OP_METHOD,
    .promote = BP_PROMOTE_NONE,
    .needs_in = 2,
    .infer = take_infer,
    .run = take_run,
    .gradient = take_gradient,
    .cases = (const bp_case[]){ { "4x3 i64:5<4", "", 0, 0, 0 },
                                { "2x5x3' i64:2x2<5", "axis=1", 0, 0, 0 },
                                { "1 i32:1<1", "", 0, 0, 0 },
                                { "3x4 i64:0<4", "axis=-1", 0, 0, 0 },
                                { "3x4 u8:s<4", "axis=1", 0, 0, 0 },
                                { 0 } },
};

/* dy is x.shape before axis, index.shape, x.shape after axis. */
static bp_status take_grad_infer(bp_call *call)
{
    const bp_meta *dy = &call->in[0]->m, *index = &call->in[1]->m;
    int64_t shape[BP_MAX_DIMS + 1];
    int ndim = 0, axis = 0;
    BP_TRY(need_positions(call, 1));
    bool fits = dy->ndim >= index->ndim && dy->ndim - index->ndim < BP_MAX_DIMS;
    if (fits) BP_TRY(bp_shape_axis(call->ctx, "take_grad", call->args[0].as.i, dy->ndim - index->ndim + 1, &axis));
    for (int i = 0; i < index->ndim && fits; i++) fits = dy->shape[axis + i] == index->shape[i];
    if (!fits) {
        char a[200], b[200];
        return bp_op_fail(call, BP_EINVAL, "'dy' has shape %s, in which the shape of 'index', %s, must stand at axis",
                          bp_shape_text(dy->ndim, dy->shape, a), bp_shape_text(index->ndim, index->shape, b));
    }
    for (int i = 0; i < axis; i++) shape[ndim++] = dy->shape[i];
    shape[ndim++] = call->args[1].as.i;
    for (int i = axis + index->ndim; i < dy->ndim; i++) shape[ndim++] = dy->shape[i];
    if (bp_shape_count(ndim, shape) < 0) {
        char a[200];
        return bp_op_fail(call, BP_EINVAL, "shape %s has more elements than can be addressed", bp_shape_text(ndim, shape, a));
    }
    bp_out(call, 0, dy->dtype, ndim, shape);
    return BP_OK;
}

/* One piece of columns of one outer slab: every index entry in order, so that sums do not depend on the cut. */
static void take_grad_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const bp_kernels *k = bp_kernels_of(j->ctx, j->dtype);
    const int64_t o = number / j->pieces, column = number % j->pieces * j->piece,
                  columns = j->inner - column < j->piece ? j->inner - column : j->piece;
    const size_t size = bp_dtype_size(j->dtype);
    (void)worker;
    for (int64_t i = 0; i < j->n; i++) memset(j->to + (size_t)((o * j->n + i) * j->inner + column) * size, 0, (size_t)columns * size);
    for (int64_t i = 0; i < j->count; i++)
        k->axpy(columns, 1, j->from + (size_t)((o * j->count + i) * j->inner + column) * size,
                j->to + (size_t)((o * j->n + j->index[i]) * j->inner + column) * size);
}

static bp_status take_grad_run(bp_call *call)
{
    bp_tensor *dx = call->out[0];
    job j = { .ctx = call->ctx, .dtype = dx->m.dtype, .count = bp_count(call->in[1]), .from = bp_data(call->in[0]), .to = bp_data(dx) };
    int64_t *index;
    int axis;
    BP_TRY(axis_of(call, &dx->m, &axis));
    sizes(&j, &dx->m, axis);
    BP_TRY(positions(call, 1, "index", j.n, &index));
    if (bp_count(dx) == 0) return BP_OK;
    j.index = index;
    j.piece = j.inner < 64 ? j.inner : 64;
    j.pieces = (j.inner + j.piece - 1) / j.piece;
    bp__spread(call->ctx, bp_count(dx) + bp_count(call->in[0]), j.outer * j.pieces, take_grad_chunk, &j);
    return BP_OK;
}

static void take_grad_gradient(bp_grad *g) { back(g, &bp__op_take); }

const bp_op bp__op_take_grad = {
    .name = "take_grad",
    .group = "indexing",
    .summary = "gradient of take: slices added up where they were taken from",
    .detail = "dx[.., p, ..] = sum of dy[.., i.., ..] over all index[i..] = p",
    .inputs = grad_inputs,
    .options = grad_options,
    .n_out = 1,
    .outputs = "dx: the shape of take's x",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 2,
    .infer = take_grad_infer,
    .run = take_grad_run,
    .gradient = take_grad_gradient,
    .cases = (const bp_case[]){ { "5x3 i64:5<4", "size=4", 0, 0, 0 },
                                { "2x2x2x3' i64:2x2<5", "axis=1 size=5", 0, 0, 0 },
                                { "1 i32:1<1", "size=1", 0, 0, 0 },
                                { "3x0 i64:0<4", "axis=-1 size=4", 0, 0, 0 },
                                { 0 } },
};

/* ---- gather ---- */

/* in[1] has the shape of in[0] but for the size along axis. */
static bp_status gather_shape(bp_call *call, int64_t *shape, int *axis)
{
    const bp_meta *x = &call->in[0]->m, *index = &call->in[1]->m;
    BP_TRY(need_positions(call, 1));
    BP_TRY(axis_of(call, x, axis));
    bool fits = x->ndim == index->ndim;
    for (int i = 0; i < x->ndim && fits; i++) fits = i == *axis || x->shape[i] == index->shape[i];
    if (!fits) {
        char a[200], b[200];
        return bp_op_fail(call, BP_EINVAL, "'%s' has shape %s and 'index' %s; all sizes but that of dimension %d must be equal",
                          call->op->inputs[0].name, bp_shape_text(x->ndim, x->shape, a), bp_shape_text(index->ndim, index->shape, b),
                          *axis + call->ctx->base);
    }
    memcpy(shape, index->shape, sizeof(int64_t) * (size_t)index->ndim);
    return BP_OK;
}

static bp_status gather_infer(bp_call *call)
{
    int64_t shape[BP_MAX_DIMS];
    int axis;
    BP_TRY(gather_shape(call, shape, &axis));
    bp_out(call, 0, call->in[0]->m.dtype, call->in[0]->m.ndim, shape);
    return BP_OK;
}

/* Element e of [outer][count][inner], and the place in [outer][n][inner] that its index names. */
static inline int64_t place(const job *j, int64_t e) { return (e / (j->count * j->inner) * j->n + j->index[e]) * j->inner + e % j->inner; }

#define GATHER(name, T)                                                                                                                 \
    static void name(void *arg, int64_t number, int worker)                                                                             \
    {                                                                                                                                   \
        const job *j = (const job *)arg;                                                                                                \
        const int64_t first = number * j->per, all = j->outer * j->count * j->inner, end = all - first < j->per ? all : first + j->per; \
        (void)worker;                                                                                                                   \
        for (int64_t e = first; e < end; e++) ((T *)(void *)j->to)[e] = ((const T *)(const void *)j->from)[place(j, e)];                \
    }
GATHER(gather_1, uint8_t)
GATHER(gather_4, uint32_t)
GATHER(gather_8, uint64_t)

static bp_status gather_run(bp_call *call)
{
    const bp_tensor *x = call->in[0];
    const size_t size = bp_dtype_size(x->m.dtype);
    job j = { .ctx = call->ctx, .dtype = x->m.dtype, .per = BP_ELEMENT_GRAIN, .from = bp_data(x), .to = bp_data(call->out[0]) };
    int64_t *index;
    int axis;
    BP_TRY(axis_of(call, &x->m, &axis));
    sizes(&j, &x->m, axis);
    BP_TRY(positions(call, 1, "index", j.n, &index));
    j.index = index;
    j.count = call->in[1]->m.shape[axis];
    bp_parallel(call->ctx, bp_chunks(j.outer * j.count * j.inner, j.per), size == 1 ? gather_1 : size == 4 ? gather_4 : gather_8, &j);
    return BP_OK;
}

static void gather_gradient(bp_grad *g) { through(g, &bp__op_gather_grad); }

const bp_op bp__op_gather = {
    .name = "gather",
    .group = "indexing",
    .summary = "one element per position of an index that lies beside x",
    .detail = "y[i, k, j] = x[i, index[i, k, j], j] for the middle dimension, and so for any other.",
    .inputs = choose_inputs,
    .options = axis_options,
    .n_out = 1,
    .outputs = "y: the shape of index",
    .flags = BP_OP_METHOD,
    .promote = BP_PROMOTE_NONE,
    .needs_in = 2,
    .infer = gather_infer,
    .run = gather_run,
    .gradient = gather_gradient,
    .cases = (const bp_case[]){ { "4x3 i64:2x3<4", "", 0, 0, 0 },
                                { "2x5x3' i64:2x7x3<5", "axis=1", 0, 0, 0 },
                                { "1 i32:1<1", "", 0, 0, 0 },
                                { "3x4 i64:3x0<4", "axis=-1", 0, 0, 0 },
                                { 0 } },
};

static bp_status gather_grad_infer(bp_call *call)
{
    int64_t shape[BP_MAX_DIMS];
    int axis;
    BP_TRY(gather_shape(call, shape, &axis));
    BP_TRY(bp_need_shape(call, 0, call->in[1]->m.ndim, call->in[1]->m.shape));
    shape[axis] = call->args[1].as.i;
    if (bp_shape_count(call->in[0]->m.ndim, shape) < 0)
        return bp_op_fail(call, BP_EINVAL, "size %lld is too large", (long long)shape[axis]);
    bp_out(call, 0, call->in[0]->m.dtype, call->in[0]->m.ndim, shape);
    return BP_OK;
}

/* One outer slab, its elements in order. */
static void gather_grad_chunk(void *arg, int64_t o, int worker)
{
    const job *j = (const job *)arg;
    const size_t size = bp_dtype_size(j->dtype), slab = (size_t)(j->n * j->inner) * size;
    (void)worker;
    memset(j->to + (size_t)o * slab, 0, slab);
    for (int64_t e = o * j->count * j->inner; e < (o + 1) * j->count * j->inner; e++) {
        if (j->dtype == BP_F32)
            ((float *)(void *)j->to)[place(j, e)] += ((const float *)(const void *)j->from)[e];
        else
            ((double *)(void *)j->to)[place(j, e)] += ((const double *)(const void *)j->from)[e];
    }
}

static bp_status gather_grad_run(bp_call *call)
{
    bp_tensor *dx = call->out[0];
    job j = { .ctx = call->ctx, .dtype = dx->m.dtype, .from = bp_data(call->in[0]), .to = bp_data(dx) };
    int64_t *index;
    int axis;
    BP_TRY(axis_of(call, &dx->m, &axis));
    sizes(&j, &dx->m, axis);
    BP_TRY(positions(call, 1, "index", j.n, &index));
    j.index = index;
    j.count = call->in[1]->m.shape[axis];
    bp__spread(call->ctx, bp_count(dx) + bp_count(call->in[0]), j.outer, gather_grad_chunk, &j);
    return BP_OK;
}

static void gather_grad_gradient(bp_grad *g) { back(g, &bp__op_gather); }

const bp_op bp__op_gather_grad = {
    .name = "gather_grad",
    .group = "indexing",
    .summary = "gradient of gather: elements added up where they were taken from",
    .detail = "dx[i, p, j] = sum of dy[i, k, j] over all index[i, k, j] = p",
    .inputs = grad_inputs,
    .options = grad_options,
    .n_out = 1,
    .outputs = "dx: the shape of gather's x",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 2,
    .infer = gather_grad_infer,
    .run = gather_grad_run,
    .gradient = gather_grad_gradient,
    .cases = (const bp_case[]){ { "2x3 i64:2x3<4", "size=4", 0, 0, 0 },
                                { "2x7x3' i64:2x7x3<5", "axis=1 size=5", 0, 0, 0 },
                                { "1 i32:1<1", "size=1", 0, 0, 0 },
                                { 0 } },
};
