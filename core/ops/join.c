/* join.c - tensors put together, apart and round: all of it copies between views. */
#include "elementwise.h"

#include <string.h>

/* A view of count positions of one dimension, every step-th from start; on the stack, for copying into or out of. */
static bp_tensor part(const bp_tensor *t, int axis, int64_t start, int64_t count, int64_t step)
{
    bp_tensor v = *t;
    v.m.shape[axis] = count;
    v.m.offset += start * v.m.stride[axis];
    v.m.stride[axis] *= step;
    return v;
}

static bp_status axis_of(bp_call *call, int ndim, int *axis)
{
    return bp_shape_axis(call->ctx, call->op->name, call->args[0].as.i, ndim, axis);
}

static bp_status need_dtype(bp_call *call, int i)
{
    const bp_dtype first = call->in[0]->m.dtype, dtype = call->in[i]->m.dtype;
    if (dtype == first) return BP_OK;
    return bp_op_fail(call, BP_EINVAL, "tensor %d is %s but the first is %s; cast one of them", i + 1, bp_dtype_name(dtype),
                      bp_dtype_name(first));
}

static const bp_input tensors[] = { { "tensors", BP_IN_VARIADIC, "one or more, of one dtype" }, { 0 } };

/* ---- concat ---- */

static bp_status concat_infer(bp_call *call)
{
    bp_meta m = call->in[0]->m;
    int axis;
    BP_TRY(axis_of(call, m.ndim, &axis));
    for (int i = 1; i < call->n_in; i++) {
        const bp_meta *t = &call->in[i]->m;
        BP_TRY(need_dtype(call, i));
        bool fits = t->ndim == m.ndim;
        for (int k = 0; k < m.ndim && fits; k++) fits = k == axis || t->shape[k] == m.shape[k];
        if (!fits) {
            char a[200], b[200];
            return bp_op_fail(call, BP_EINVAL, "tensor %d has shape %s and the first %s; all sizes but that of dimension %d must be equal",
                              i + 1, bp_shape_text(t->ndim, t->shape, a), bp_shape_text(m.ndim, call->in[0]->m.shape, b),
                              axis + call->ctx->base);
        }
        m.shape[axis] += t->shape[axis];
    }
    bp_out(call, 0, m.dtype, m.ndim, m.shape);
    return BP_OK;
}

static bp_status concat_run(bp_call *call)
{
    int axis;
    int64_t at = 0;
    BP_TRY(axis_of(call, call->in[0]->m.ndim, &axis));
    for (int i = 0; i < call->n_in; i++) {
        const int64_t n = call->in[i]->m.shape[axis];
        bp_tensor to = part(call->out[0], axis, at, n, 1);
        bp__copy(&to, call->in[i]);
        at += n;
    }
    return BP_OK;
}

static void concat_gradient(bp_grad *g)
{
    int axis;
    int64_t at = 0;
    if (g->status == BP_OK) g->status = bp_shape_axis(g->ctx, "concat", g->args[0].as.i, g->in[0]->m.ndim, &axis);
    for (int i = 0; i < g->n_in && g->status == BP_OK; i++) {
        const int64_t n = g->in[i]->m.shape[axis];
        const bp_arg args[3] = { bp_int(axis), bp_int(at), bp_int(at + n) };
        if (g->want[i]) bp_grad_set(g, i, bp_g(g, &bp__op_slice, 3, args, 1, g->dout[0]));
        at += n;
    }
}

const bp_op bp__op_concat = {
    .name = "concat",
    .group = "shape",
    .summary = "tensors one after the other along a dimension",
    .detail = "All sizes but that of the dimension are equal; its sizes add up.",
    .inputs = tensors,
    .options = (const bp_option[]){ { .name = "axis",
                                      .kind = BP_OPT_AXIS,
                                      .def = 0,
                                      .min = 1,
                                      .max = 0,
                                      .help = "the dimension to join along" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: like the inputs, longer along axis",
    .flags = BP_OP_STRIDED,
    .promote = BP_PROMOTE_NONE,
    .infer = concat_infer,
    .run = concat_run,
    .gradient = concat_gradient,
    .cases = (const bp_case[]){ { "2x3 4x3", "", 0, 0, 0 },
                                { "2x3 2x1 2x2'", "axis=1", 0, 0, 0 },
                                { "1", "", 0, 0, 0 },
                                { "2x0x3 2x2x3'", "axis=-2", 0, 0, 0 },
                                { 0 } },
};

/* ---- stack ---- */

static bp_status stack_infer(bp_call *call)
{
    const bp_meta *first = &call->in[0]->m;
    int64_t shape[BP_MAX_DIMS + 1];
    int axis;
    if (first->ndim == BP_MAX_DIMS)
        return bp_op_fail(call, BP_EINVAL, "the tensors have %d dimensions already, the most there can be", BP_MAX_DIMS);
    BP_TRY(axis_of(call, first->ndim + 1, &axis));
    for (int i = 1; i < call->n_in; i++) {
        const bp_meta *t = &call->in[i]->m;
        BP_TRY(need_dtype(call, i));
        if (!bp_shape_equal(t->ndim, t->shape, first->ndim, first->shape)) {
            char a[200], b[200];
            return bp_op_fail(call, BP_EINVAL, "tensor %d has shape %s and the first %s; equal shapes are expected", i + 1,
                              bp_shape_text(t->ndim, t->shape, a), bp_shape_text(first->ndim, first->shape, b));
        }
    }
    for (int i = 0; i <= first->ndim; i++) shape[i] = i == axis ? call->n_in : first->shape[i - (i > axis)];
    bp_out(call, 0, first->dtype, first->ndim + 1, shape);
    return BP_OK;
}

static bp_status stack_run(bp_call *call)
{
    int axis;
    BP_TRY(axis_of(call, call->out[0]->m.ndim, &axis));
    for (int i = 0; i < call->n_in; i++) {
        bp_tensor to = part(call->out[0], axis, i, 1, 1);
        to.m.ndim--;
        for (int k = axis; k < to.m.ndim; k++) to.m.shape[k] = to.m.shape[k + 1], to.m.stride[k] = to.m.stride[k + 1];
        bp__copy(&to, call->in[i]);
    }
    return BP_OK;
}

static void stack_gradient(bp_grad *g)
{
    for (int i = 0; i < g->n_in; i++) {
        const bp_arg args[2] = { bp_int(g->args[0].as.i), bp_int(i) };
        if (g->want[i]) bp_grad_set(g, i, bp_g(g, &bp__op_select, 2, args, 1, g->dout[0]));
    }
}

const bp_op bp__op_stack = {
    .name = "stack",
    .group = "shape",
    .summary = "tensors of one shape beside each other along a new dimension",
    .detail = "y[.., i, ..] = tensor i",
    .inputs = tensors,
    .options = (const bp_option[]){ { .name = "axis",
                                      .kind = BP_OPT_AXIS,
                                      .def = 0,
                                      .min = 1,
                                      .max = 0,
                                      .help = "where the new dimension stands in the result" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: one dimension more, its size the number of tensors",
    .flags = BP_OP_STRIDED,
    .promote = BP_PROMOTE_NONE,
    .infer = stack_infer,
    .run = stack_run,
    .gradient = stack_gradient,
    .cases = (const bp_case[]){ { "2x3 2x3", "", 0, 0, 0 },
                                { "2x3 2x3' 2x3", "axis=1", 0, 0, 0 },
                                { "s s", "", 0, 0, 0 },
                                { "1", "axis=-1", 0, 0, 0 },
                                { "0x2 0x2", "axis=1", 0, 0, 0 },
                                { 0 } },
};

/* ---- slice_grad ---- */

static bp_status slice_grad_infer(bp_call *call)
{
    bp_meta m = call->in[0]->m;
    int axis;
    BP_TRY(axis_of(call, m.ndim, &axis));
    const int64_t start = call->args[1].as.i, step = call->args[2].as.i, size = call->args[3].as.i, n = m.shape[axis];
    if (start < 0 || (n > 0 && (start >= size || n - 1 > (size - 1 - start) / step)))
        return bp_op_fail(call, BP_EINVAL, "%lld positions from %lld on in steps of %lld do not lie within a size of %lld", (long long)n,
                          (long long)(start + call->ctx->base), (long long)step, (long long)size);
    m.shape[axis] = size;
    if (bp_shape_count(m.ndim, m.shape) < 0) {
        char text[200];
        return bp_op_fail(call, BP_EINVAL, "shape %s has more elements than can be addressed", bp_shape_text(m.ndim, m.shape, text));
    }
    bp_out(call, 0, m.dtype, m.ndim, m.shape);
    return BP_OK;
}

/* dx is [outer][size] runs of `bytes`, dy [outer][n]; run start + i step of dx is run i of dy, the others are zero. */
typedef struct spreading {
    const char *dy;
    char *dx;
    int64_t runs, per, size, n, start, step; /* runs of dx in all and per chunk */
    size_t bytes;
} spreading;

static void spread_chunk(void *arg, int64_t number, int worker)
{
    const spreading *s = (const spreading *)arg;
    (void)worker;
    int64_t run = number * s->per, outer = run / s->size, at = run % s->size;
    const int64_t stop = run + s->per < s->runs ? run + s->per : s->runs;
    int64_t i = at <= s->start ? 0 : (at - s->start + s->step - 1) / s->step; /* the next run of dy */
    while (run < stop) {
        int64_t zeros = (i < s->n ? s->start + i * s->step : s->size) - at;
        if (zeros > stop - run) zeros = stop - run;
        memset(s->dx + (size_t)run * s->bytes, 0, (size_t)zeros * s->bytes);
        run += zeros;
        at += zeros;
        if (at < s->size && run < stop) {
            memcpy(s->dx + (size_t)run * s->bytes, s->dy + (size_t)(outer * s->n + i) * s->bytes, s->bytes);
            run++, at++, i++;
        }
        if (at == s->size) outer++, at = i = 0;
    }
}

static bp_status slice_grad_run(bp_call *call)
{
    const bp_tensor *dx = call->out[0], *dy = call->in[0];
    int axis;
    BP_TRY(axis_of(call, dx->m.ndim, &axis));
    int64_t inner = 1;
    for (int k = axis + 1; k < dx->m.ndim; k++) inner *= dx->m.shape[k];
    if (bp_count(dx) == 0) return BP_OK;
    spreading s = { .dy = bp_data(dy),
                    .dx = bp_data(dx),
                    .runs = bp_count(dx) / inner,
                    .per = BP_ELEMENT_GRAIN / inner + 1,
                    .size = dx->m.shape[axis],
                    .n = dy->m.shape[axis],
                    .start = call->args[1].as.i,
                    .step = call->args[2].as.i,
                    .bytes = (size_t)inner * bp_dtype_size(dx->m.dtype) };
    bp_parallel(call->ctx, bp_chunks(s.runs, s.per), spread_chunk, &s);
    return BP_OK;
}

static void slice_grad_gradient(bp_grad *g)
{
    int axis;
    if (g->status == BP_OK) g->status = bp_shape_axis(g->ctx, "slice_grad", g->args[0].as.i, g->in[0]->m.ndim, &axis);
    if (g->status != BP_OK) return;
    const int64_t n = g->in[0]->m.shape[axis], start = n ? g->args[1].as.i : 0, step = g->args[2].as.i;
    const bp_arg args[4] = { bp_int(axis), bp_int(start), bp_int(n ? start + (n - 1) * step + 1 : 0), bp_int(step) };
    bp_grad_set(g, 0, bp_g(g, &bp__op_slice, 4, args, 1, g->dout[0]));
}

const bp_op bp__op_slice_grad = {
    .name = "slice_grad",
    .group = "shape",
    .summary = "gradient of slice: zeros with dy at the positions that the slice took",
    .detail = "dx[.., start + i step, ..] = dy[.., i, ..], elsewhere 0",
    .inputs = (const bp_input[]){ { "dy", 0, "gradient of the slice" }, { 0 } },
    .options = (const bp_option
                    []){ { .name = "axis", .kind = BP_OPT_AXIS, .min = 1, .max = 0, .required = true, .help = "the dimension" },
                         { .name = "start", .kind = BP_OPT_INDEX, .def = 0, .min = 0, .max = 0x1p62, .help = "the first position" },
                         { .name = "step", .kind = BP_OPT_INT, .def = 1, .min = 1, .max = 0x1p62, .help = "from one position to the next" },
                         { .name = "size",
                           .kind = BP_OPT_INT,
                           .min = 0,
                           .max = 0x1p62,
                           .required = true,
                           .help = "of the dimension in dx" },
                         { 0 } },
    .n_out = 1,
    .outputs = "dx: like dy, of `size` along axis",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_NONE,
    .infer = slice_grad_infer,
    .run = slice_grad_run,
    .gradient = slice_grad_gradient,
    .cases = (const bp_case[]){ { "3x2", "axis=0 start=1 size=5", 0, 0, 0 },
                                { "2x3x2'", "axis=1 step=2 size=6", 0, 0, 0 },
                                { "1", "axis=0 size=1", 0, 0, 0 },
                                { "0x2", "axis=0 size=3", 0, 0, 0 },
                                { 0 } },
};

/* ---- flip ---- */

static bp_status flip_infer(bp_call *call)
{
    for (int k = 0; k < call->args[0].count; k++) {
        int axis;
        BP_TRY(bp_shape_axis(call->ctx, "flip", call->args[0].as.list[k], call->in[0]->m.ndim, &axis));
    }
    return bp_infer_same(call);
}

static bp_status flip_run(bp_call *call)
{
    const bp_arg *axes = &call->args[0];
    bp_tensor from = *call->in[0];
    bool turned[BP_MAX_DIMS] = { false };
    for (int k = 0; k < axes->count; k++) {
        int axis;
        BP_TRY(bp_shape_axis(call->ctx, "flip", axes->as.list[k], from.m.ndim, &axis));
        turned[axis] = true;
    }
    if (bp_count(&from) == 0) return BP_OK;
    for (int i = 0; i < from.m.ndim; i++)
        if (turned[i] || axes->count == 0) from = part(&from, i, from.m.shape[i] - 1, from.m.shape[i], -1);
    bp__copy(call->out[0], &from);
    return BP_OK;
}

static void flip_gradient(bp_grad *g) { bp_grad_set(g, 0, bp_g(g, &bp__op_flip, 1, g->args, 1, g->dout[0])); }

const bp_op bp__op_flip = {
    .name = "flip",
    .group = "shape",
    .summary = "dimensions turned round",
    .detail = "y[.., i, ..] = x[.., n - 1 - i, ..], i counted from 0",
    .inputs = (const bp_input[]){ { "x", 0, "values of any shape" }, { 0 } },
    .options = (const bp_option[]){ { .name = "axes",
                                      .kind = BP_OPT_AXES,
                                      .min = 1,
                                      .max = 0,
                                      .help = "the dimensions to turn; left out: all" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: like x",
    .flags = BP_OP_STRIDED | BP_OP_METHOD,
    .promote = BP_PROMOTE_NONE,
    .infer = flip_infer,
    .run = flip_run,
    .gradient = flip_gradient,
    .cases = (const bp_case[]){ { "2x3", "axes=1", 0, 0, 0 },
                                { "2x3x4'", "", 0, 0, 0 },
                                { "1", "axes=0", 0, 0, 0 },
                                { "2x3x2", "axes=0,-1", 0, 0, 0 },
                                { "0x3", "axes=0", 0, 0, 0 },
                                { 0 } },
};
