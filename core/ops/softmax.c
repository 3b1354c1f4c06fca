/* softmax.c - softmax and its logarithm along a dimension, and their gradients.
 *
 * The kernels take rows side by side. Along another dimension than the last, chunks of columns are transposed into scratch, treated as
 * rows, and transposed back. */
#include "elementwise.h"

#include "../base/memory.h"

/* ---- running ---- */

typedef void rows_fn(int64_t rows, int64_t n, const void *x, void *y);
typedef void pair_rows_fn(int64_t rows, int64_t n, const void *dy, const void *y, void *dx);

enum { COLUMNS = 16 }; /* transposed at a time: a cache line of floats from each row */

typedef struct job {
    rows_fn *one;      /* of in[0], or */
    pair_rows_fn *two; /* of in[0] and in[1] */
    int64_t n, inner;  /* tensors are [outer][n][inner] */
    int64_t rows, per; /* inner == 1: rows in all, and per chunk */
    int64_t pieces;    /* else: of COLUMNS columns each per slab */
    size_t size;
    const char *in[2];
    char *out, *scratch; /* three arrays of COLUMNS rows per worker */
} job;

static void kernel(const job *j, int64_t rows, const char *a, const char *b, char *y)
{
    if (j->one)
        j->one(rows, j->n, a, y);
    else
        j->two(rows, j->n, a, b, y);
}

static void rows_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t first = number * j->per, rows = j->rows - first < j->per ? j->rows - first : j->per;
    const size_t at = (size_t)(first * j->n) * j->size;
    (void)worker;
    kernel(j, rows, j->in[0] + at, j->in[1] ? j->in[1] + at : NULL, j->out + at);
}

/* to[k][i] = from[i][k] for i < n, k < m; rows of from are from_row apart, those of to to_row */
#define TRANSPOSE(T)                \
    for (int64_t i = 0; i < n; i++) \
        for (int64_t k = 0; k < m; k++) ((T *)(void *)to)[k * to_row + i] = ((const T *)(const void *)from)[i * from_row + k];
static void transpose(int64_t n, int64_t m, const char *from, int64_t from_row, char *to, int64_t to_row, size_t size)
{
    if (size == sizeof(float)) {
        TRANSPOSE(float)
    } else
        TRANSPOSE(double)
}

static void columns_chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const int64_t column = number % j->pieces * COLUMNS, columns = j->inner - column < COLUMNS ? j->inner - column : COLUMNS;
    const size_t at = (size_t)(number / j->pieces * j->n * j->inner + column) * j->size, part = (size_t)(COLUMNS * j->n) * j->size;
    char *rows = j->scratch + 3 * part * (size_t)worker;
    for (int k = 0; k < 2 && j->in[k]; k++) transpose(j->n, columns, j->in[k] + at, j->inner, rows + part * (size_t)k, j->n, j->size);
    kernel(j, columns, rows, rows + part, rows + 2 * part);
    transpose(columns, j->n, rows + 2 * part, j->n, j->out + at, j->inner, j->size);
}

static bp_status along_axis(bp_call *call, rows_fn *one, pair_rows_fn *two)
{
    const bp_meta *x = &call->in[0]->m;
    int axis;
    int64_t outer = 1;
    BP_TRY(bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->ndim, &axis));
    job j = { .one = one, .two = two, .n = x->shape[axis], .inner = 1, .size = bp_dtype_size(x->dtype), .out = bp_data(call->out[0]) };
    for (int i = 0; i < axis; i++) outer *= x->shape[i];
    for (int i = axis + 1; i < x->ndim; i++) j.inner *= x->shape[i];
    for (int i = 0; i < call->n_in; i++) j.in[i] = bp_data(call->in[i]);
    if (outer * j.n * j.inner == 0) return BP_OK;
    if (j.inner == 1) {
        j.rows = outer;
        j.per = j.n >= BP_ELEMENT_GRAIN / 4 ? 1 : BP_ELEMENT_GRAIN / 4 / j.n;
        bp_parallel(call->ctx, bp_chunks(outer, j.per), rows_chunk, &j);
        return BP_OK;
    }
    j.pieces = (j.inner + COLUMNS - 1) / COLUMNS;
    j.scratch = (char *)bp__scratch(call->ctx, 3 * (size_t)(COLUMNS * j.n) * j.size * (size_t)bp_threads(call->ctx));
    if (!j.scratch) return BP_ENOMEM;
    bp__spread(call->ctx, bp_count(call->in[0]), outer * j.pieces, columns_chunk, &j);
    return BP_OK;
}

static const bp_kernels *kernels(const bp_call *call) { return bp_kernels_of(call->ctx, call->in[0]->m.dtype); }
static bp_status softmax_run(bp_call *call) { return along_axis(call, kernels(call)->softmax, NULL); }
static bp_status log_softmax_run(bp_call *call) { return along_axis(call, kernels(call)->log_softmax, NULL); }
static bp_status softmax_grad_run(bp_call *call) { return along_axis(call, NULL, kernels(call)->softmax_grad); }
static bp_status log_softmax_grad_run(bp_call *call) { return along_axis(call, NULL, kernels(call)->log_softmax_grad); }

static bp_status infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    int axis;
    BP_TRY(bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, x->ndim, &axis));
    if (call->n_in == 2) BP_TRY(bp_need_shape(call, 1, x->ndim, x->shape));
    return bp_infer_same(call);
}

/* ---- gradients ---- */

/* sum of t along the axis, which stays with size 1 */
static bp_tensor *sum_along(bp_grad *g, bp_tensor *t)
{
    bp_arg args[2] = { bp_list(1, &g->args[0].as.i), bp_int(1) };
    return bp_g(g, &bp__op_sum, 2, args, 1, t);
}

static void softmax_gradient(bp_grad *g) { bp_grad_set(g, 0, bp_g(g, &bp__op_softmax_grad, 1, g->args, 2, g->dout[0], g->out[0])); }
static void log_softmax_gradient(bp_grad *g) { bp_grad_set(g, 0, bp_g(g, &bp__op_log_softmax_grad, 1, g->args, 2, g->dout[0], g->out[0])); }

/* dx = y (dy - sum(dy y)): with h the gradient of dx, to dy the same again, to y  h (dy - sum(dy y)) - dy sum(h y) */
static void softmax_grad_gradient(bp_grad *g)
{
    bp_tensor *h = g->dout[0], *dy = g->in[0], *y = g->in[1];
    if (g->want[0]) bp_grad_set(g, 0, bp_g(g, &bp__op_softmax_grad, 1, g->args, 2, h, y));
    if (!g->want[1]) return;
    bp_tensor *centred = G2(g, sub, dy, sum_along(g, G2(g, mul, dy, y)));
    bp_grad_set(g, 1, G2(g, sub, G2(g, mul, h, centred), G2(g, mul, dy, sum_along(g, G2(g, mul, h, y)))));
}

/* dx = dy - exp(y) sum(dy): to dy  h - sum(h exp(y)), to y  -h exp(y) sum(dy) */
static void log_softmax_grad_gradient(bp_grad *g)
{
    bp_tensor *h = g->dout[0], *dy = g->in[0], *weighted = G2(g, mul, h, G1(g, exp, g->in[1]));
    if (g->want[0]) bp_grad_set(g, 0, G2(g, sub, h, sum_along(g, weighted)));
    if (g->want[1]) bp_grad_set(g, 1, G1(g, neg, G2(g, mul, weighted, sum_along(g, dy))));
}

/* ---- rows ---- */

static const bp_input x_input[] = { { "x", 0, "values of any shape" }, { 0 } };
static const bp_input grad_inputs[] = { { "dy", 0, "gradient of the result" }, { "y", 0, "the result" }, { 0 } };
static const bp_option options[] = {
    { .name = "axis", .kind = BP_OPT_AXIS, .def = -1, .min = 1, .max = 0, .help = "the dimension whose elements belong together" },
    { 0 },
};
static const bp_case one_input[] = {
    { "2x3", "", 0, 0, 0 },
    { "1", "", 0, 0, 0 },
    { "2x3x4'", "axis=1", 0, 0, 0 },
    { "3x20", "axis=0", 0, 0, 0 },
    { "4x1", "", 0, 0, 0 },
    { "0x3", "", 0, 0, 0 },
    { 0 },
};
static const bp_case two_inputs[] = {
    { "2x3 2x3", "", 0, 0, 0 }, { "1 1", "", 0, 0, 0 }, { "2x3x4' 2x3x4'", "axis=1", 0, 0, 0 }, { "3x20 3x20", "axis=0", 0, 0, 0 }, { 0 },
};

#define ROW(NAME, SUMMARY, DETAIL, INPUTS, OUTPUTS, FLAGS, NEEDS_IN, NEEDS_OUT, CASES) \
    const bp_op bp__op_##NAME = {                                                      \
        .name = #NAME,                                                                 \
        .group = "activations",                                                        \
        .summary = SUMMARY,                                                            \
        .detail = DETAIL,                                                              \
        .inputs = INPUTS,                                                              \
        .options = options,                                                            \
        .n_out = 1,                                                                    \
        .outputs = OUTPUTS,                                                            \
        .flags = FLAGS,                                                                \
        .promote = BP_PROMOTE_FLOAT,                                                   \
        .needs_in = NEEDS_IN,                                                          \
        .needs_out = NEEDS_OUT,                                                        \
        .infer = infer,                                                                \
        .run = NAME##_run,                                                             \
        .gradient = NAME##_gradient,                                                   \
        .cases = CASES,                                                                \
    };
ROW(softmax, "exponentials that add up to 1 along a dimension", "y_i = exp(x_i - m) / sum_j exp(x_j - m), m the greatest of the x_j",
    x_input, "y: like x", BP_OP_METHOD, 0, 1, one_input)
ROW(log_softmax, "the logarithm of softmax", "y_i = x_i - m - log(sum_j exp(x_j - m)), m the greatest of the x_j", x_input, "y: like x",
    BP_OP_METHOD, 0, 1, one_input)
ROW(softmax_grad, "gradient of softmax", "dx = y (dy - sum(dy y))", grad_inputs, "dx: like dy", BP_OP_INTERNAL, 3, 0, two_inputs)
ROW(log_softmax_grad, "gradient of log_softmax", "dx = dy - exp(y) sum(dy)", grad_inputs, "dx: like dy", BP_OP_INTERNAL, 3, 0, two_inputs)
