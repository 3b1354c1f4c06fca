/* softsign.c - y = x / (1 + |x|): the worked example of docs/design.md. */
#include "op.h"

#include <math.h>

static bp_status run(bp_call *c)
{
    int64_t n = bp_count(c->in[0]);
    const void *x = bp_data(c->in[0]);
    void *y = bp_data(c->out[0]);
    if (c->in[0]->m.dtype == BP_F64)
        for (int64_t i = 0; i < n; i++) ((double *)y)[i] = ((const double *)x)[i] / (1 + fabs(((const double *)x)[i]));
    else
        for (int64_t i = 0; i < n; i++) ((float *)y)[i] = ((const float *)x)[i] / (1 + fabsf(((const float *)x)[i]));
    return BP_OK;
}

/* dx = dy / (1 + |x|)^2 */
static void gradient(bp_grad *g)
{
    bp_tensor *x = g->in[0];
    bp_tensor *below = G2(g, add, G1(g, abs, x), bp_g_number(g, x, 1));
    bp_grad_set(g, 0, G2(g, div, g->dout[0], G1(g, square, below)));
}

static const bp_input inputs[] = { { "x", 0, "any shape" }, { NULL } };

static const bp_case cases[] = {
    { .inputs = "2x3" },
    { .inputs = "3x2'" }, /* a view with gaps */
    { .inputs = "s" },    /* a single number */
    { .inputs = "1x0x2" },
    { NULL },
};

const bp_op bp__op_softsign = {
    .name = "softsign",
    .group = "activations",
    .summary = "Softsign: x / (1 + |x|).",
    .detail = "Approaches -1 and 1 like 1/x, slower than tanh. The gradient is dy / (1 + |x|)^2.",
    .inputs = inputs,
    .n_out = 1,
    .outputs = "y, of the shape of x",
    .flags = BP_OP_METHOD | BP_OP_INPLACE | BP_OP_KINKED,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1,
    .infer = bp_infer_same,
    .run = run,
    .gradient = gradient,
    .cases = cases,
};
