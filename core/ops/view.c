/* view.c - other looks at the same elements: they share the storage of x and move nothing. */
#include "op.h"

#include <string.h>

static const bp_input x_input[] = { { "x", 0, "values of any shape" }, { 0 } };

static bp_status axis_of(bp_call *call, int ndim, int *axis)
{
    return bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, ndim, axis);
}

/* The result is x but for what infer changes. */
static bp_meta *like_x(bp_call *call)
{
    call->meta[0] = call->in[0]->m;
    return &call->meta[0];
}

static void remove_dim(bp_meta *m, int axis)
{
    m->ndim--;
    for (int i = axis; i < m->ndim; i++) m->shape[i] = m->shape[i + 1], m->stride[i] = m->stride[i + 1];
}

static void to_shape(bp_grad *g, const bp_op *op)
{
    const bp_arg shape = bp_list(g->in[0]->m.ndim, g->in[0]->m.shape);
    bp_grad_set(g, 0, bp_g(g, op, 1, &shape, 1, g->dout[0]));
}
static void reshape_back(bp_grad *g) { to_shape(g, &bp__op_reshape); }
static void sum_back(bp_grad *g) { to_shape(g, &bp__op_sum_to); }

#define ROW(NAME, SUMMARY, DETAIL, OPTIONS, OUTPUTS, FLAGS, GRADIENT, CASES) \
    const bp_op bp__op_##NAME = {                                            \
        .name = #NAME,                                                       \
        .group = "shape",                                                    \
        .summary = SUMMARY,                                                  \
        .detail = DETAIL,                                                    \
        .inputs = x_input,                                                   \
        .options = OPTIONS,                                                  \
        .n_out = 1,                                                          \
        .outputs = OUTPUTS,                                                  \
        .flags = BP_OP_VIEW | BP_OP_METHOD | (FLAGS),                        \
        .promote = BP_PROMOTE_NONE,                                          \
        .infer = NAME##_infer,                                               \
        .gradient = GRADIENT,                                                \
        .cases = CASES,                                                      \
    };

/* ---- reshape ---- */

static bp_status reshape_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    const bp_arg *to = &call->args[0];
    int64_t shape[BP_MAX_DIMS], known = 1;
    int open = -1;
    char from[200], text[200];
    for (int i = 0; i < to->count; i++) {
        shape[i] = to->as.list[i];
        if (shape[i] == -1 && open >= 0)
            return bp_op_fail(call, BP_EINVAL, "shape has -1 in two places; one size at most can be worked out");
        if (shape[i] == -1)
            open = i;
        else if (__builtin_mul_overflow(known, shape[i], &known))
            known = -1;
    }
    const int64_t count = bp_shape_count(x->ndim, x->shape);
    if (open >= 0 && known > 0 && count % known == 0)
        shape[open] = count / known, known = count;
    else if (open >= 0)
        known = -1;
    if (known != count)
        return bp_op_fail(call, BP_EINVAL, "'x' has shape %s, %lld elements, which do not fill shape %s",
                          bp_shape_text(x->ndim, x->shape, from), (long long)count, bp_shape_text(to->count, to->as.list, text));
    bp_meta_set(&call->meta[0], x->dtype, to->count, shape);
    call->meta[0].offset = x->offset;
    return BP_OK;
}

static const bp_option reshape_options[] = {
    { .name = "shape",
      .kind = BP_OPT_INTS,
      .min = -1,
      .max = 0x1p62,
      .required = true,
      .help = "of the result; one size may be -1 and is worked out" },
    { 0 },
};
static const bp_case reshape_cases[] = {
    { "2x6", "shape=3,4", 0, 0, 0 }, { "2x3x4", "shape=2,-1", 0, 0, 0 }, { "1", "shape=1,1,1", 0, 0, 0 },
    { "4x3'", "shape=-1", 0, 0, 0 }, { "0x3", "shape=3,0", 0, 0, 0 },    { 0 },
};
ROW(reshape, "the same elements in another shape",
    "Elements keep their row-major order. The result shares x's memory when x lies in that order without gaps, else it is a copy.",
    reshape_options, "y: shape", 0, reshape_back, reshape_cases)

/* PyTorch's name for it. */
static bp_status view_infer(bp_call *call) { return reshape_infer(call); }
ROW(view, "another shape over the same elements: the same as reshape", "Takes a copy where the strides do not allow it.", reshape_options,
    "y: shape", 0, reshape_back, reshape_cases)

/* ---- permute ---- */

static bp_status permutation(bp_ctx *ctx, const bp_arg *axes, int ndim, int *from)
{
    bool seen[BP_MAX_DIMS] = { false };
    if (axes->count && axes->count != ndim)
        return bp_fail(ctx, BP_EINVAL, "permute: axes has %d entries for a tensor of %d dimensions; each dimension must come once",
                       axes->count, ndim);
    for (int i = 0; i < ndim; i++) {
        from[i] = ndim - 1 - i;
        if (axes->count) BP_TRY(bp_shape_axis(ctx, "permute", axes->as.list[i], ndim, &from[i]));
        if (seen[from[i]]) return bp_fail(ctx, BP_EINVAL, "permute: dimension %d is named twice in axes", from[i] + ctx->base);
        seen[from[i]] = true;
    }
    return BP_OK;
}

static bp_status permute_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    bp_meta *y = like_x(call);
    int from[BP_MAX_DIMS];
    BP_TRY(permutation(call->ctx, &call->args[0], x->ndim, from));
    for (int i = 0; i < x->ndim; i++) y->shape[i] = x->shape[from[i]], y->stride[i] = x->stride[from[i]];
    return BP_OK;
}

static void permute_gradient(bp_grad *g)
{
    const int ndim = g->in[0]->m.ndim;
    int from[BP_MAX_DIMS];
    int64_t back[BP_MAX_DIMS];
    if (g->status == BP_OK) g->status = permutation(g->ctx, &g->args[0], ndim, from);
    if (g->status != BP_OK) return;
    for (int i = 0; i < ndim; i++) back[from[i]] = i;
    const bp_arg axes = bp_list(ndim, back);
    bp_grad_set(g, 0, bp_g(g, &bp__op_permute, 1, &axes, 1, g->dout[0]));
}

static const bp_option permute_options[] = {
    { .name = "axes", .kind = BP_OPT_AXES, .min = 1, .max = 0, .help = "the dimensions of x in their new order; left out: reversed" },
    { 0 },
};
static const bp_case permute_cases[] = {
    { "2x3x4", "axes=2,0,1", 0, 0, 0 },
    { "2x3", "", 0, 0, 0 },
    { "1x3'", "axes=-1,0", 0, 0, 0 },
    { "s", "", 0, 0, 0 },
    { "0x3", "", 0, 0, 0 },
    { 0 },
};
ROW(permute, "the dimensions in another order",
    "y[i, j, ...] = x with its dimensions rearranged: dimension k of y is dimension axes[k] of x.", permute_options,
    "y: the sizes of x, reordered", BP_OP_STRIDED, permute_gradient, permute_cases)

/* ---- slice and select ---- */

static bp_status slice_infer(bp_call *call)
{
    bp_meta *y = like_x(call);
    int axis;
    BP_TRY(axis_of(call, y->ndim, &axis));
    const int64_t n = y->shape[axis], step = call->args[3].as.i;
    int64_t start = call->args[1].as.i, stop = call->args[2].as.i;
    start += start < 0 ? n : 0;
    stop += stop < 0 ? n + 1 : 0;
    if (start < 0 || start > n || stop < start || stop > n) {
        char text[200];
        return bp_op_fail(
            call, BP_EINVAL,
            "elements %lld up to %lld of dimension %d, which has %lld, of shape %s; start must not exceed stop, nor stop the size",
            (long long)(start + call->ctx->base), (long long)(stop - 1 + call->ctx->base), axis + call->ctx->base, (long long)n,
            bp_shape_text(y->ndim, y->shape, text));
    }
    y->shape[axis] = (stop - start + step - 1) / step;
    if (y->shape[axis] > 0) y->offset += start * y->stride[axis];
    y->stride[axis] *= step;
    return BP_OK;
}

/* dx: zeros of x's shape with dy at the positions that the slice took */
static void scatter_back(bp_grad *g, bp_tensor *dy, int64_t start, int64_t step)
{
    int axis;
    if (g->status == BP_OK) g->status = bp_shape_axis(g->ctx, g->op->name, g->args[0].as.i, g->in[0]->m.ndim, &axis);
    if (g->status != BP_OK) return;
    const int64_t n = g->in[0]->m.shape[axis];
    const bp_arg args[4] = { bp_int(axis), bp_int(start + (start < 0 ? n : 0)), bp_int(step), bp_int(n) };
    bp_grad_set(g, 0, bp_g(g, &bp__op_slice_grad, 4, args, 1, dy));
}
static void slice_gradient(bp_grad *g) { scatter_back(g, g->dout[0], g->args[1].as.i, g->args[3].as.i); }

static const bp_option slice_options[] = {
    { .name = "axis", .kind = BP_OPT_AXIS, .min = 1, .max = 0, .required = true, .help = "the dimension to take a part of" },
    { .name = "start", .kind = BP_OPT_INDEX, .def = 0, .min = 1, .max = 0, .help = "the first position; negative counts from the end" },
    { .name = "stop",
      .kind = BP_OPT_INT,
      .def = -1,
      .min = 1,
      .max = 0,
      .help = "elements before the end of the part: counted from 1, the last position taken; negative counts from the end, -1: all" },
    { .name = "step", .kind = BP_OPT_INT, .def = 1, .min = 1, .max = 0x1p62, .help = "take every step-th" },
    { 0 },
};
static const bp_case slice_cases[] = {
    { "5x3", "axis=0 start=1 stop=4", 0, 0, 0 },    { "2x6x3'", "axis=1 step=2", 0, 0, 0 },    { "1x1", "axis=1", 0, 0, 0 },
    { "4x5", "axis=-1 start=-3 stop=-2", 0, 0, 0 }, { "4", "axis=0 start=2 stop=2", 0, 0, 0 }, { 0 },
};
ROW(slice, "a part of one dimension", "y[.., i, ..] = x[.., start + i step, ..]", slice_options, "y: like x, but shorter along axis",
    BP_OP_STRIDED, slice_gradient, slice_cases)

static bp_status select_infer(bp_call *call)
{
    bp_meta *y = like_x(call);
    int axis;
    BP_TRY(axis_of(call, y->ndim, &axis));
    const int64_t n = y->shape[axis], given = call->args[1].as.i, index = given + (given < 0 ? n : 0);
    if (index < 0 || index >= n)
        return bp_op_fail(call, BP_EINVAL, "index %lld lies outside dimension %d, which has %lld elements",
                          (long long)(given < 0 ? given : given + call->ctx->base), axis + call->ctx->base, (long long)n);
    y->offset += index * y->stride[axis];
    remove_dim(y, axis);
    return BP_OK;
}

static void select_gradient(bp_grad *g)
{
    bp_arg axis = g->args[0]; /* the removed dimension, back with size 1 */
    scatter_back(g, bp_g(g, &bp__op_unsqueeze, 1, &axis, 1, g->dout[0]), g->args[1].as.i, 1);
}

static const bp_option select_options[] = {
    { .name = "axis", .kind = BP_OPT_AXIS, .min = 1, .max = 0, .required = true, .help = "the dimension to choose from" },
    { .name = "index", .kind = BP_OPT_INDEX, .min = 1, .max = 0, .required = true, .help = "the position; negative counts from the end" },
    { 0 },
};
static const bp_case select_cases[] = {
    { "2x3", "axis=0 index=1", 0, 0, 0 },
    { "2x3x4'", "axis=1 index=-1", 0, 0, 0 },
    { "1", "axis=0 index=0", 0, 0, 0 },
    { "2x3", "axis=-1 index=2", 0, 0, 0 },
    { 0 },
};
ROW(select, "one position of one dimension, which goes", "y[.., ..] = x[.., index, ..]", select_options, "y: x without the dimension",
    BP_OP_STRIDED, select_gradient, select_cases)

/* ---- expand ---- */

static bp_status expand_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    const bp_arg *to = &call->args[0];
    const int missing = to->count - x->ndim;
    bp_meta *y = like_x(call);
    bool fits = missing >= 0;
    y->ndim = to->count;
    for (int i = 0; i < to->count && fits; i++) {
        const int64_t old = i < missing ? 1 : x->shape[i - missing], size = to->as.list[i] == -1 ? old : to->as.list[i];
        fits = (old == size || old == 1) && !(i < missing && to->as.list[i] == -1);
        y->shape[i] = size;
        y->stride[i] = i < missing || old != size ? 0 : x->stride[i - missing];
    }
    if (fits && bp_shape_count(y->ndim, y->shape) >= 0) return BP_OK;
    char from[200], text[200];
    return bp_op_fail(call, BP_EINVAL, "'x' has shape %s, which does not broadcast to %s: counted from the right, sizes must be equal or 1",
                      bp_shape_text(x->ndim, x->shape, from), bp_shape_text(to->count, to->as.list, text));
}

static const bp_option expand_options[] = {
    { .name = "shape", .kind = BP_OPT_INTS, .min = -1, .max = 0x1p62, .required = true, .help = "to broadcast to; -1 keeps a size" },
    { 0 },
};
static const bp_case expand_cases[] = {
    { "3", "shape=2,3", 0, 0, 0 },
    { "2x1x3'", "shape=2,4,3", 0, 0, 0 },
    { "s", "shape=2,2", 0, 0, 0 },
    { "1", "shape=1", 0, 0, 0 },
    { "2x1", "shape=3,-1,2", 0, 0, 0 },
    { "1x3", "shape=0,3", 0, 0, 0 },
    { 0 },
};
ROW(expand, "dimensions of size 1 repeated",
    "Broadcasts x to shape as an operand would be. Repeated elements are the same memory, so the result cannot be written to.",
    expand_options, "y: shape", BP_OP_STRIDED, sum_back, expand_cases)

/* ---- squeeze and unsqueeze ---- */

static bp_status squeeze_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m;
    const bp_arg *axes = &call->args[0];
    bp_meta *y = like_x(call);
    bool drop[BP_MAX_DIMS] = { false };
    for (int k = 0; k < axes->count; k++) {
        int axis;
        BP_TRY(bp_shape_axis(call->ctx, "squeeze", axes->as.list[k], x->ndim, &axis));
        if (x->shape[axis] != 1) {
            char text[200];
            return bp_op_fail(call, BP_EINVAL, "dimension %d of shape %s does not have size 1; select takes one position out of it",
                              axis + call->ctx->base, bp_shape_text(x->ndim, x->shape, text));
        }
        drop[axis] = true;
    }
    for (int i = x->ndim - 1; i >= 0; i--)
        if (drop[i] || (axes->count == 0 && x->shape[i] == 1)) remove_dim(y, i);
    return BP_OK;
}

static const bp_option squeeze_options[] = {
    { .name = "axes", .kind = BP_OPT_AXES, .min = 1, .max = 0, .help = "dimensions of size 1; left out: all of them" },
    { 0 },
};
static const bp_case squeeze_cases[] = {
    { "1x3x1", "", 0, 0, 0 }, { "1x3x1'", "axes=2", 0, 0, 0 }, { "1", "axes=0", 0, 0, 0 }, { "1x0", "axes=0", 0, 0, 0 }, { 0 },
};
ROW(squeeze, "dimensions of size 1 left out", "The elements stay the same.", squeeze_options, "y: x without those dimensions",
    BP_OP_STRIDED, reshape_back, squeeze_cases)

static bp_status unsqueeze_infer(bp_call *call)
{
    bp_meta *y = like_x(call);
    int axis;
    if (y->ndim == BP_MAX_DIMS) return bp_op_fail(call, BP_EINVAL, "'x' has %d dimensions already, the most there can be", BP_MAX_DIMS);
    BP_TRY(axis_of(call, y->ndim + 1, &axis));
    for (int i = y->ndim; i > axis; i--) y->shape[i] = y->shape[i - 1], y->stride[i] = y->stride[i - 1];
    y->ndim++;
    y->shape[axis] = 1;
    y->stride[axis] = axis + 1 < y->ndim ? y->stride[axis + 1] * y->shape[axis + 1] : 1;
    return BP_OK;
}

static const bp_option unsqueeze_options[] = {
    { .name = "axis",
      .kind = BP_OPT_AXIS,
      .min = 1,
      .max = 0,
      .required = true,
      .help = "where the new dimension stands in the result; -1: last" },
    { 0 },
};
static const bp_case unsqueeze_cases[] = {
    { "2x3", "axis=1", 0, 0, 0 }, { "3'", "axis=-1", 0, 0, 0 }, { "s", "axis=0", 0, 0, 0 }, { "0x2", "axis=0", 0, 0, 0 }, { 0 },
};
ROW(unsqueeze, "a new dimension of size 1", "The elements stay the same.", unsqueeze_options, "y: x with one dimension more", BP_OP_STRIDED,
    reshape_back, unsqueeze_cases)
