/* linear.c - the dense layer's arithmetic: a product with bias and activation in one pass. */
#include "fused_activation.h"
#include "product.h"

enum { ACTIVATION };

static bp_status linear_infer(bp_call *call)
{
    const bp_meta *x = &call->in[0]->m, *w = &call->in[1]->m;
    char tx[200], tw[200];
    BP_TRY(bp_need_ndim(call, 1, 2, "[in][out]"));
    if (x->ndim == 0 || x->shape[x->ndim - 1] != w->shape[0])
        return bp_op_fail(call, BP_EINVAL,
                          "x is %s and w is %s: the last size of x must be w's first, %lld; flatten x, or build the layer for %lld inputs",
                          bp_shape_text(x->ndim, x->shape, tx), bp_shape_text(w->ndim, w->shape, tw), (long long)w->shape[0],
                          (long long)(x->ndim ? x->shape[x->ndim - 1] : 1));
    if (call->in[2]) BP_TRY(bp_need_shape(call, 2, 1, &w->shape[1]));
    bp_out(call, 0, x->dtype, x->ndim, x->shape);
    call->meta[0].shape[x->ndim - 1] = w->shape[1];
    bp_shape_strides(x->ndim, call->meta[0].shape, call->meta[0].stride);
    return BP_OK;
}

static int64_t rows_of(const bp_tensor *t)
{
    int64_t rows = 1;
    for (int d = 0; d < t->m.ndim - 1; d++) rows *= t->m.shape[d];
    return rows;
}

static bp_status linear_run(bp_call *call)
{
    const bp_tensor *x = call->in[0], *w = call->in[1], *b = call->in[2], *y = call->out[0];
    const int64_t in = w->m.shape[0], out = w->m.shape[1];
    bp_product p;
    p.dtype = y->m.dtype;
    p.ndim = 0;
    p.mask = NULL;
    p.sum = NULL;
    p.one = (bp_gemm){ .m = rows_of(x),
                       .n = out,
                       .k = in,
                       .a = bp_data(x),
                       .a_row = in,
                       .a_col = 1,
                       .b = bp_data(w),
                       .b_row = out,
                       .b_col = 1,
                       .c = bp_data(y),
                       .c_row = out,
                       .bias = b ? bp_data(b) : NULL,
                       .act = (bp_act)call->args[ACTIVATION].as.i };
    return bp__product(call->ctx, &p);
}

static bp_tensor *transposed(bp_grad *g, bp_tensor *t)
{
    const int64_t swapped[2] = { 1, 0 };
    bp_arg order = bp_list(2, swapped);
    return bp_g(g, &bp__op_permute, 1, &order, 1, t);
}

static bp_tensor *as_rows(bp_grad *g, bp_tensor *t)
{
    if (!t || t->m.ndim == 2) return t;
    const int64_t shape[2] = { rows_of(t), t->m.shape[t->m.ndim - 1] };
    bp_arg to = bp_list(2, shape);
    return bp_g(g, &bp__op_reshape, 1, &to, 1, t);
}

/* dz = dy where y > 0;  dx = dz * w^T;  dw = x^T * dz;  db = sum of dz's rows */
static void linear_gradient(bp_grad *g)
{
    bp_tensor *dz = g->dout[0];
    if (g->args[ACTIVATION].as.i == BP_ACT_RELU) dz = G2(g, relu_grad, dz, g->out[0]);
    if (g->want[0]) bp_grad_set(g, 0, G2(g, matmul, dz, transposed(g, g->in[1])));
    dz = as_rows(g, dz);
    if (g->want[1]) bp_grad_set(g, 1, G2(g, matmul, transposed(g, as_rows(g, g->in[0])), dz));
    if (g->n_in > 2 && g->in[2] && g->want[2]) {
        const int64_t rows = 0;
        bp_arg axis = bp_list(1, &rows);
        bp_grad_set(g, 2, bp_g(g, &bp__op_sum, 1, &axis, 1, dz));
    }
}

const bp_op bp__op_linear = {
    .name = "linear",
    .group = "layers",
    .summary = "x times w, plus b, then the activation: what a dense layer computes",
    .detail = "y = activation(x * w + b)\n"
              "All dimensions of x but the last count as rows. Bias and activation are applied while the product is still in registers.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[..][in] values" },
            { "w", 0, "[in][out] weights" },
            { "b", BP_IN_OPTIONAL, "[out] bias" },
            { 0 },
        },
    .options =
        (const bp_option[]){ BP_FUSED_ACTIVATION_OPTION, { 0 } },
    .n_out = 1,
    .outputs = "y: [..][out]",
    .flags = BP_OP_KINKED,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 3,
    .needs_out = 1,
    .infer = linear_infer,
    .run = linear_run,
    .gradient = linear_gradient,
    .cases =
        (const bp_case[]){
            { "4x3 3x2 2", "", 0, 0, 0 },
            { "4x3 3x2", "", 0, 0, 0 },
            { "1x1 1x1 1", "", 0, 0, 0 },
            { "3 3x5 5", "", 0, 0, 0 },
            { "2x3x4 4x3 3", "activation=relu", 0, 0, 0 },
            { "5x4' 4x3' 3'", "activation=relu", 0, 0, 0 },
            { "0x3 3x2 2", "activation=relu", 0, 0, 0 },
            { 0 },
        },
};
