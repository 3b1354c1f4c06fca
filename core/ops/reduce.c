/* reduce.c - sums, means, products, extremes and truth over dimensions. */
#include "elementwise.h"
#include "reduction.h"

#include <string.h>

/* ---- shapes ---- */

static bp_status reduced_shape(bp_call *call, bp_dtype dtype)
{
    const bp_meta *x = &call->in[0]->m;
    bool over[BP_MAX_DIMS];
    int64_t shape[BP_MAX_DIMS];
    int ndim = 0;
    BP_TRY(bp__axes(call->ctx, call->op->name, &call->args[0], x->ndim, over));
    for (int i = 0; i < x->ndim; i++)
        if (!over[i] || call->args[1].as.i) shape[ndim++] = over[i] ? 1 : x->shape[i];
    bp_out(call, 0, dtype, ndim, shape);
    return BP_OK;
}

/* An extreme of nothing does not exist. */
static bp_status extreme_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    BP_TRY(reduced_shape(call, x->dtype));
    if (bp_shape_count(x->ndim, x->shape) == 0 && bp_shape_count(call->meta[0].ndim, call->meta[0].shape) > 0) {
        char text[200];
        return bp_op_fail(call, BP_EINVAL, "'x' has shape %s: among no elements there is none to choose; leave empty tensors out",
                          bp_shape_text(x->ndim, x->shape, text));
    }
    return BP_OK;
}

static bp_status reduce_run(bp_call *call, bp_reduce_kind kind)
{
    bool over[BP_MAX_DIMS];
    BP_TRY(bp__axes(call->ctx, call->op->name, &call->args[0], call->in[0]->m.ndim, over));
    return bp__reduce(call, kind, over);
}

#define INFER_AND_RUN(name, kind)                                                                                               \
    static bp_status name##_infer(bp_call *call) { return reduced_shape(call, bp__reduced_dtype(kind, call->in[0]->m.dtype)); } \
    static bp_status name##_run(bp_call *call) { return reduce_run(call, kind); }
INFER_AND_RUN(sum, BP_REDUCE_SUM)
INFER_AND_RUN(prod, BP_REDUCE_PROD)
INFER_AND_RUN(any, BP_REDUCE_ANY)
INFER_AND_RUN(all, BP_REDUCE_ALL)
static bp_status max_run(bp_call *call) { return reduce_run(call, BP_REDUCE_MAX); }
static bp_status min_run(bp_call *call) { return reduce_run(call, BP_REDUCE_MIN); }
static bp_status mean_infer(bp_call *call) { return reduced_shape(call, call->in[0]->m.dtype); }

static bp_status mean_run(bp_call *call)
{
    bp_tensor *y = call->out[0];
    BP_TRY(reduce_run(call, BP_REDUCE_SUM));
    if (bp_count(y) == 0) return BP_OK;
    const double terms = (double)(bp_count(call->in[0]) / bp_count(y));
    const float terms_f32 = (float)terms;
    bp_kernels_of(call->ctx, y->m.dtype)
        ->binary[BP_BINARY_div](bp_count(y), bp_data(y), 1, y->m.dtype == BP_F32 ? (const void *)&terms_f32 : &terms, 0, bp_data(y), 1, 0);
    return BP_OK;
}

/* ---- gradients ---- */

/* t, which has the shape of the result, with the reduced dimensions back as sizes of 1. */
static bp_tensor *kept(bp_grad *g, bp_tensor *t)
{
    const bp_meta *x = &g->in[0]->m;
    bool over[BP_MAX_DIMS];
    if (g->status == BP_OK) g->status = bp__axes(g->ctx, g->op->name, &g->args[0], x->ndim, over);
    if (g->status != BP_OK) return NULL;
    bp_arg shape = bp_list(x->ndim, x->shape);
    for (int i = 0; i < x->ndim; i++)
        if (over[i]) shape.as.list[i] = 1;
    return bp_g(g, &bp__op_reshape, 1, &shape, 1, t);
}
/* The same sum as the forward call's, with the reduced dimensions kept. */
static bp_tensor *sum_kept(bp_grad *g, bp_tensor *t)
{
    const bp_arg args[2] = { g->args[0], bp_int(1) };
    return bp_g(g, &bp__op_sum, 2, args, 1, t);
}
static bp_tensor *expanded(bp_grad *g, bp_tensor *t)
{
    bp_arg shape = bp_list(g->in[0]->m.ndim, g->in[0]->m.shape);
    return bp_g(g, &bp__op_expand, 1, &shape, 1, t);
}

static void sum_gradient(bp_grad *g) { bp_grad_set(g, 0, expanded(g, kept(g, g->dout[0]))); }

static void mean_gradient(bp_grad *g)
{
    const double x = (double)bp_count(g->in[0]), y = (double)bp_count(g->dout[0]);
    bp_grad_set(g, 0, expanded(g, kept(g, bp__g_times(g, g->dout[0], x > 0 ? y / x : 0))));
}

/* dx_i = dy times the product of the others: y / x_i, but where a single zero made y zero, the product of the rest. */
static void prod_gradient(bp_grad *g)
{
    bp_tensor *x = g->in[0], *zero = bp_g_number(g, x, 0), *one = bp_g_number(g, x, 1);
    bp_tensor *is_zero = G2(g, eq, x, zero), *others = G3(g, where, is_zero, one, x);
    const bp_arg args[2] = { g->args[0], bp_int(1) };
    bp_tensor *rest = bp_g(g, &bp__op_prod, 2, args, 1, others), *zeros = sum_kept(g, G3(g, where, is_zero, one, zero));
    bp_tensor *at_zero = G3(g, where, G2(g, eq, zeros, one), rest, zero),
              *elsewhere = G3(g, where, G2(g, eq, zeros, zero), G2(g, div, rest, others), zero);
    bp_grad_set(g, 0, G2(g, mul, kept(g, g->dout[0]), G3(g, where, is_zero, at_zero, elsewhere)));
}

static void extreme_gradient(bp_grad *g)
{
    bp_tensor *x = g->in[0], *wins = G3(g, where, G2(g, eq, x, kept(g, g->out[0])), bp_g_number(g, x, 1), bp_g_number(g, x, 0));
    bp_grad_set(g, 0, G2(g, mul, wins, G2(g, div, kept(g, g->dout[0]), sum_kept(g, wins))));
}

/* ---- rows ---- */

static const bp_input x_input[] = { { "x", 0, "values of any shape" }, { 0 } };
static const bp_option reduce_options[] = {
    { .name = "axes", .kind = BP_OPT_AXES, .min = 1, .max = 0, .help = "the dimensions to reduce; left out: all" },
    { .name = "keepdims", .kind = BP_OPT_BOOL, .min = 1, .max = 0, .help = "keep reduced dimensions with size 1" },
    { 0 },
};
#define SHARED_CASES                                                                                                                    \
    { "2x3", "", 0, 0, 0 }, { "2x3", "axes=1", 0, 0, 0 }, { "2x3x4", "axes=0,2", 0, 0, 0 }, { "2x3x4'", "axes=1 keepdims=1", 0, 0, 0 }, \
        { "1x1", "axes=-1", 0, 0, 0 }, { "s", "", 0, 0, 0 },                                                                            \
    {                                                                                                                                   \
        "5x1x2", "axes=1,2 keepdims=1", 0, 0, 0                                                                                         \
    }
static const bp_case of_some[] = { SHARED_CASES, { 0 } };
static const bp_case of_none_too[] = { SHARED_CASES, { "0x3", "axes=0", 0, 0, 0 }, { "0x3", "axes=1", 0, 0, 0 }, { 0 } };
static const bp_case of_truth[] = {
    { "bool:2x3", "axes=1", 0, 0, 0 }, { "2x3x4'", "axes=0,2 keepdims=1", 0, 0, 0 }, { "i64:4<2", "", 0, 0, 0 }, { 0 }
};

#define ROW(NAME, SUMMARY, DETAIL, OUTPUTS, FLAGS, PROMOTE, NEEDS_IN, NEEDS_OUT, INFER, GRADIENT, CASES) \
    const bp_op bp__op_##NAME = {                                                                        \
        .name = #NAME,                                                                                   \
        .group = "reductions",                                                                           \
        .summary = SUMMARY,                                                                              \
        .detail = DETAIL,                                                                                \
        .inputs = x_input,                                                                               \
        .options = reduce_options,                                                                       \
        .n_out = 1,                                                                                      \
        .outputs = OUTPUTS,                                                                              \
        .flags = BP_OP_METHOD | (FLAGS),                                                                 \
        .promote = PROMOTE,                                                                              \
        .needs_in = NEEDS_IN,                                                                            \
        .needs_out = NEEDS_OUT,                                                                          \
        .infer = INFER,                                                                                  \
        .run = NAME##_run,                                                                               \
        .gradient = GRADIENT,                                                                            \
        .cases = CASES,                                                                                  \
    };
ROW(sum, "the sum over dimensions",
    "y = sum of x. Integers and bool are summed in i64. A sum of floats is cut into blocks by its shape: its error hardly grows with its\n"
    "length, and its bits depend on the shape alone. The sum of nothing is 0.",
    "y: x without the dimensions in axes", 0, BP_PROMOTE_NONE, 0, 0, sum_infer, sum_gradient, of_none_too)
ROW(mean, "the mean over dimensions", "y = sum of x / number of terms. Integers and bool give f32. The mean of nothing is NaN.",
    "y: x without the dimensions in axes", 0, BP_PROMOTE_FLOAT, 0, 0, mean_infer, mean_gradient, of_some)
ROW(prod, "the product over dimensions",
    "y = product of x; integers and bool in i64. The product of nothing is 1. The gradient is exact where x holds zeros; second\n"
    "derivatives are where it holds none.",
    "y: x without the dimensions in axes", 0, BP_PROMOTE_NONE, 1, 0, prod_infer, prod_gradient, of_none_too)
ROW(max, "the greatest element over dimensions",
    "y = max of x; NaN wins. Equal ones share the gradient. The maximum of nothing is an error.", "y: x without the dimensions in axes",
    BP_OP_KINKED, BP_PROMOTE_NONE, 1, 1, extreme_infer, extreme_gradient, of_some)
ROW(min, "the least element over dimensions", "y = min of x; NaN wins. Equal ones share the gradient. The minimum of nothing is an error.",
    "y: x without the dimensions in axes", BP_OP_KINKED, BP_PROMOTE_NONE, 1, 1, extreme_infer, extreme_gradient, of_some)
ROW(any, "whether any element is not zero", "y = x_1 or x_2 or ...; of nothing: false.", "y: bool, x without the dimensions in axes",
    BP_OP_NO_GRADIENT, BP_PROMOTE_NONE, 0, 0, any_infer, NULL, of_truth)
ROW(all, "whether no element is zero", "y = x_1 and x_2 and ...; of nothing: true.", "y: bool, x without the dimensions in axes",
    BP_OP_NO_GRADIENT, BP_PROMOTE_NONE, 0, 0, all_infer, NULL, of_truth)

/* ---- sum_to ---- */

static bp_status sum_to_axes(bp_call *call, bool *over)
{
    const bp_meta *x = &call->in[0]->m;
    const bp_arg *to = &call->args[0];
    const int missing = x->ndim - to->count;
    bool fits = missing >= 0;
    for (int i = 0; i < x->ndim && fits; i++) {
        over[i] = i < missing || to->as.list[i - missing] != x->shape[i];
        if (i >= missing && over[i]) fits = to->as.list[i - missing] == 1;
    }
    if (fits) return BP_OK;
    char from[200], text[200];
    return bp_op_fail(call, BP_EINVAL, "'x' has shape %s, which shape %s does not broadcast to", bp_shape_text(x->ndim, x->shape, from),
                      bp_shape_text(to->count, to->as.list, text));
}

static bp_status sum_to_infer(bp_call *call)
{
    bool over[BP_MAX_DIMS];
    BP_TRY(sum_to_axes(call, over));
    bp_out(call, 0, bp__reduced_dtype(BP_REDUCE_SUM, call->in[0]->m.dtype), call->args[0].count, call->args[0].as.list);
    return BP_OK;
}

static bp_status sum_to_run(bp_call *call)
{
    bool over[BP_MAX_DIMS];
    BP_TRY(sum_to_axes(call, over));
    return bp__reduce(call, BP_REDUCE_SUM, over);
}

static void sum_to_gradient(bp_grad *g) { bp_grad_set(g, 0, expanded(g, g->dout[0])); }

const bp_op bp__op_sum_to = {
    .name = "sum_to",
    .group = "reductions",
    .summary = "the sum over what broadcasting a shape to x's would repeat",
    .detail = "The gradient of broadcasting: y[j] is the sum of all x[i] that broadcasting would have taken from y[j].",
    .inputs = x_input,
    .options = (const bp_option[]){ { .name = "shape",
                                      .kind = BP_OPT_INTS,
                                      .min = 0,
                                      .max = 0x1p62,
                                      .required = true,
                                      .help = "of the result; it must broadcast to x's" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: shape",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_NONE,
    .infer = sum_to_infer,
    .run = sum_to_run,
    .gradient = sum_to_gradient,
    .cases = (const bp_case[]){ { "2x3", "shape=3", 0, 0, 0 },
                                { "2x3x4'", "shape=3,1", 0, 0, 0 },
                                { "2x3x4", "shape=2,1,4", 0, 0, 0 },
                                { "2x1", "shape=2,1", 0, 0, 0 },
                                { "0x3", "shape=1,3", 0, 0, 0 },
                                { 0 } },
};
