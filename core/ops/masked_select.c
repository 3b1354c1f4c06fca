/* masked_select.c - the elements where a mask holds. How many there are is known only from the values. */
#include "elementwise.h"

#include <string.h>

static bp_status masked_select_infer(bp_call *call)
{
    const bp_tensor *mask = call->in[1];
    int64_t count = 0;
    if (mask->m.dtype != BP_BOOL)
        return bp_op_fail(call, BP_EINVAL, "'mask' is %s; bool is expected: compare first, for instance x:gt(0)",
                          bp_dtype_name(mask->m.dtype));
    BP_TRY(bp_need_shape(call, 1, call->in[0]->m.ndim, call->in[0]->m.shape));
    if (call->ctx->capture_id)
        return bp_op_fail(call, BP_ESTATE,
                          "the result's size depends on values, which a captured step cannot follow; multiply by the mask or use where");
    const uint8_t *m = (const uint8_t *)bp_data(mask);
    for (int64_t i = 0, n = bp_count(mask); i < n; i++) count += m[i] != 0;
    bp_out(call, 0, call->in[0]->m.dtype, 1, &count);
    return BP_OK;
}

static bp_status masked_select_run(bp_call *call)
{
    const uint8_t *m = (const uint8_t *)bp_data(call->in[1]);
    const size_t size = bp_dtype_size(call->in[0]->m.dtype);
    const char *x = bp_data(call->in[0]);
    char *y = bp_data(call->out[0]);
    for (int64_t i = 0, n = bp_count(call->in[1]); i < n; i++)
        if (m[i]) {
            memcpy(y, x + (size_t)i * size, size);
            y += size;
        }
    return BP_OK;
}

/* Element i of x, if chosen, is number (mask[0] + .. + mask[i]) of y. */
static void masked_select_gradient(bp_grad *g)
{
    const int64_t flat = -1, chosen = bp_count(g->dout[0]);
    if (chosen == 0) return;
    const bp_arg whole = bp_list(1, &flat), axis = bp_int(0), shape = bp_list(g->in[0]->m.ndim, g->in[0]->m.shape);
    const bp_arg bounds[2] = { bp_float(g->ctx->base), bp_float((double)(chosen - 1 + g->ctx->base)) };
    bp_tensor *number = bp_g(g, &bp__op_cumsum, 1, &axis, 1, bp_g(g, &bp__op_reshape, 1, &whole, 1, g->in[1]));
    bp_tensor *place = bp_g(g, &bp__op_clamp, 2, bounds, 1, bp__g_plus(g, number, g->ctx->base - 1));
    bp_tensor *spread = bp_g(g, &bp__op_reshape, 1, &shape, 1, bp_g(g, &bp__op_take, 1, &axis, 2, g->dout[0], place));
    bp_grad_set(g, 0, G3(g, where, g->in[1], spread, bp_g_number(g, spread, 0)));
}

const bp_op bp__op_masked_select = {
    .name = "masked_select",
    .group = "indexing",
    .summary = "the elements where a mask holds, as one dimension",
    .detail = "In row-major order. The size of the result depends on values, so it cannot be part of a captured step.",
    .inputs = (const bp_input[]){ { "x", 0, "values of any shape" }, { "mask", 0, "bool, the same shape" }, { 0 } },
    .n_out = 1,
    .outputs = "y: [how many hold]",
    .flags = BP_OP_METHOD,
    .promote = BP_PROMOTE_NONE,
    .needs_in = 2,
    .infer = masked_select_infer,
    .run = masked_select_run,
    .gradient = masked_select_gradient,
    .cases = (const bp_case[]){ { "2x3 bool:2x3", "", 0, 0, 0 },
                                { "4x5' bool:4x5", "", 0, 0, 0 },
                                { "1 bool:1", "", 0, 0, 0 },
                                { "0 bool:0", "", 0, 0, 0 },
                                { 0 } },
};
