/* activation.c - activation functions and their gradients. NAME_grad(dy, saved) is one pass over memory and is differentiable itself:
 * with h = dy * f'(saved), a second gradient asks for dh/d(dy) = f'(saved), which is NAME_grad again, and dh/d(saved) = dy * f''. */
#include "elementwise.h"

#include <math.h>

static const bp_input x_input[] = { { "x", 0, "values of any shape" }, { 0 } };
static const bp_input grad_inputs[] = { { "dy", 0, "gradient of the activation's result" },
                                        { "saved", 0, "its input or output, see the equation" },
                                        { 0 } };
static const bp_case one_input[] = {
    { "2x3", "", 0, 0, 0 }, { "s", "", 0, 0, 0 }, { "1", "", 0, 0, 0 }, { "3x1x4'", "", 0, 0, 0 }, { "0x3", "", 0, 0, 0 }, { 0 },
};
static const bp_case two_inputs[] = { { "2x3 2x3", "", 0, 0, 0 }, { "1 1", "", 0, 0, 0 }, { "3x1x4' 3x1x4'", "", 0, 0, 0 }, { 0 } };
/* outputs of sigmoid and tanh lie here */
static const bp_case two_fractions[] = {
    { "2x3 2x3", "", 0.1, 0.9, 0 },
    { "1 1", "", 0.1, 0.9, 0 },
    { "3x1x4' 3x1x4'", "", 0.1, 0.9, 0 },
    { 0 },
};

static bp_status grad_infer(bp_call *call)
{
    BP_TRY(bp_need_shape(call, 0, call->in[1]->m.ndim, call->in[1]->m.shape));
    return bp_infer_same(call);
}

/* dx = NAME_grad(dy, saved) with the options of the forward call */
static void through(bp_grad *g, const bp_op *grad_op, bp_tensor *saved)
{
    bp_grad_set(g, 0, bp_g(g, grad_op, g->op->options != NULL, g->args, 2, g->dout[0], saved));
}
/* The gradient of h = NAME_grad(dy, saved): to dy at once, to saved as dh * dy * second, when that is asked for. */
static void through_grad(bp_grad *g) { through(g, g->op, g->in[1]); }
static bp_tensor *dh_dy(bp_grad *g) { return G2(g, mul, g->dout[0], g->in[0]); }

/* ---- second derivatives; s = saved ---- */

static void relu_grad_gradient(bp_grad *g) { through_grad(g); }
static void leaky_relu_grad_gradient(bp_grad *g) { through_grad(g); }

/* y' = y + alpha for y <= 0, so y'' follows y itself */
static void elu_grad_gradient(bp_grad *g)
{
    through_grad(g);
    if (!g->want[1]) return;
    bp_tensor *bent = G2(g, le, g->in[1], bp_g_number(g, g->in[1], 0));
    bp_grad_set(g, 1, G3(g, where, bent, dh_dy(g), bp_g_number(g, g->in[1], 0)));
}

/* exact: f'' = phi(x) (2 - x^2). With u = 2k(x + c x^3), w = u' and q = sigmoid(u), the approximation is x q:
 * f'' = 2 q' + x q'', q' = q (1-q) w, q'' = q' (1-2q) w + q (1-q) w', w = 2k (1 + 3c x^2), w' = 12 k c x */
static void gelu_grad_gradient(bp_grad *g)
{
    through_grad(g);
    if (!g->want[1]) return;
    bp_tensor *x = g->in[1], *xx = G1(g, square, x), *second;
    if (!g->args[0].as.i) {
        bp_tensor *density = bp__g_times(g, G1(g, exp, bp__g_times(g, xx, -0.5)), 0.5 * M_SQRT1_2 * M_2_SQRTPI);
        second = G2(g, mul, density, bp__g_plus(g, G1(g, neg, xx), 2));
    } else {
        const double k = M_SQRT1_2 * M_2_SQRTPI, c = 0.044715;
        bp_tensor *q = G1(g, sigmoid, G2(g, mul, bp__g_times(g, x, 2 * k), bp__g_plus(g, bp__g_times(g, xx, c), 1)));
        bp_tensor *qq = G2(g, sub, q, G1(g, square, q)), *w = bp__g_plus(g, bp__g_times(g, xx, 6 * k * c), 2 * k);
        bp_tensor *q1 = G2(g, mul, qq, w), *slope = bp__g_plus(g, bp__g_times(g, q, -2), 1);
        bp_tensor *q2 = G2(g, add, G2(g, mul, G2(g, mul, q1, slope), w), G2(g, mul, qq, bp__g_times(g, x, 12 * k * c)));
        second = G2(g, add, bp__g_times(g, q1, 2), G2(g, mul, x, q2));
    }
    bp_grad_set(g, 1, G2(g, mul, dh_dy(g), second));
}

/* with q = sigmoid(x): f'' = q (1-q) (2 + x (1-2q)) */
static void silu_grad_gradient(bp_grad *g)
{
    through_grad(g);
    if (!g->want[1]) return;
    bp_tensor *q = G1(g, sigmoid, g->in[1]), *slope = bp__g_plus(g, bp__g_times(g, q, -2), 1);
    bp_grad_set(g, 1, G2(g, mul, G2(g, sigmoid_grad, dh_dy(g), q), bp__g_plus(g, G2(g, mul, g->in[1], slope), 2)));
}

/* h = dy y (1-y) */
static void sigmoid_grad_gradient(bp_grad *g)
{
    through_grad(g);
    if (g->want[1]) bp_grad_set(g, 1, G2(g, mul, dh_dy(g), bp__g_plus(g, bp__g_times(g, g->in[1], -2), 1)));
}
/* h = dy (1 - y^2) */
static void tanh_grad_gradient(bp_grad *g)
{
    through_grad(g);
    if (g->want[1]) bp_grad_set(g, 1, G2(g, mul, dh_dy(g), bp__g_times(g, g->in[1], -2)));
}
/* h = dy sigmoid(x) */
static void softplus_grad_gradient(bp_grad *g)
{
    through_grad(g);
    if (g->want[1]) bp_grad_set(g, 1, G2(g, sigmoid_grad, dh_dy(g), G1(g, sigmoid, g->in[1])));
}

/* h = dy (t + x t') with t = tanh(softplus(x)), s = sigmoid(x), t' = (1 - t^2) s: dh/dx = dy (2 t' + x t''), t'' = t' (1 - s - 2 t s) */
static void mish_grad_gradient(bp_grad *g)
{
    through_grad(g);
    if (!g->want[1]) return;
    bp_tensor *x = g->in[1], *t = G1(g, tanh, G1(g, softplus, x)), *s = G1(g, sigmoid, x);
    bp_tensor *t1 = G2(g, mul, bp__g_plus(g, G1(g, neg, G1(g, square, t)), 1), s);
    bp_tensor *bend = bp__g_plus(g, G1(g, neg, G2(g, add, s, bp__g_times(g, G2(g, mul, t, s), 2))), 1);
    bp_tensor *second = G2(g, add, bp__g_times(g, t1, 2), G2(g, mul, x, G2(g, mul, t1, bend)));
    bp_grad_set(g, 1, G2(g, mul, dh_dy(g), second));
}

/* ---- rows ---- */

/* An activation and its gradient op. SAVED is g->in[0] or g->out[0]; READS_IN and READS_OUT say the same to the tape. PARAMETER is the
 * kernel's p, KERNEL which kernel serves. */
#define ACTIVATION(NAME, SUMMARY, DETAIL, GRAD_DETAIL, OPTIONS, KERNEL, PARAMETER, READS_IN, READS_OUT, FLAGS, CASES, GRAD_CASES) \
    static bp_status NAME##_run(bp_call *call)                                                                                    \
    {                                                                                                                             \
        bp__run_unary(call, KERNEL(BP_UNARY_, NAME, ), PARAMETER);                                                                \
        return BP_OK;                                                                                                             \
    }                                                                                                                             \
    static bp_status NAME##_grad_run(bp_call *call)                                                                               \
    {                                                                                                                             \
        bp__run_binary(call, KERNEL(BP_BINARY_, NAME, _grad), PARAMETER);                                                         \
        return BP_OK;                                                                                                             \
    }                                                                                                                             \
    static void NAME##_gradient(bp_grad *g) { through(g, &bp__op_##NAME##_grad, (READS_IN) ? g->in[0] : g->out[0]); }             \
    const bp_op bp__op_##NAME = {                                                                                                 \
        .name = #NAME,                                                                                                            \
        .group = "activations",                                                                                                   \
        .summary = SUMMARY,                                                                                                       \
        .detail = DETAIL,                                                                                                         \
        .inputs = x_input,                                                                                                        \
        .options = OPTIONS,                                                                                                       \
        .n_out = 1,                                                                                                               \
        .outputs = "y: like x",                                                                                                   \
        .flags = BP_OP_STRIDED | BP_OP_INPLACE | BP_OP_METHOD | (FLAGS),                                                          \
        .promote = BP_PROMOTE_FLOAT,                                                                                              \
        .needs_in = READS_IN,                                                                                                     \
        .needs_out = READS_OUT,                                                                                                   \
        .infer = bp_infer_same,                                                                                                   \
        .run = NAME##_run,                                                                                                        \
        .gradient = NAME##_gradient,                                                                                              \
        .cases = CASES,                                                                                                           \
    };                                                                                                                            \
    const bp_op bp__op_##NAME##_grad = {                                                                                          \
        .name = #NAME "_grad",                                                                                                    \
        .group = "activations",                                                                                                   \
        .summary = "gradient of " #NAME,                                                                                          \
        .detail = GRAD_DETAIL,                                                                                                    \
        .inputs = grad_inputs,                                                                                                    \
        .options = OPTIONS,                                                                                                       \
        .n_out = 1,                                                                                                               \
        .outputs = "dx: like dy",                                                                                                 \
        .flags = BP_OP_STRIDED | BP_OP_INTERNAL | (FLAGS),                                                                        \
        .promote = BP_PROMOTE_FLOAT,                                                                                              \
        .needs_in = 3,                                                                                                            \
        .over = { 3 },                                                                                                            \
        .infer = grad_infer,                                                                                                      \
        .run = NAME##_grad_run,                                                                                                   \
        .gradient = NAME##_grad_gradient,                                                                                         \
        .cases = GRAD_CASES,                                                                                                      \
    };
#define OF_NAME(prefix, name, suffix) prefix##name##suffix

ACTIVATION(relu, "what is positive, else 0", "y = max(x, 0); NaN stays. The gradient at 0 is 0.", "dx = dy where y > 0, else 0; saved is y",
           NULL, OF_NAME, 0, 0, 1, BP_OP_KINKED, one_input, two_inputs)

static const bp_option leaky_relu_options[] = {
    { .name = "slope", .kind = BP_OPT_FLOAT, .def = 0.01, .min = 1, .max = 0, .help = "of the negative side" },
    { 0 },
};
static const bp_case leaky_relu_cases[] = {
    { "2x3", "", 0, 0, 0 }, { "s", "slope=0.2", 0, 0, 0 },
    { "1", "", 0, 0, 0 },   { "3x1x4'", "slope=0.3", 0, 0, 0 },
    { "0x3", "", 0, 0, 0 }, { 0 },
};
ACTIVATION(leaky_relu, "what is positive, and a fraction of what is negative", "y = x for x > 0, else slope x. The gradient at 0 is slope.",
           "dx = dy where x > 0, else slope dy; saved is x", leaky_relu_options, OF_NAME, call->args[0].as.f, 1, 0, BP_OP_KINKED,
           leaky_relu_cases, two_inputs)

static const bp_option elu_options[] = {
    { .name = "alpha", .kind = BP_OPT_FLOAT, .def = 1, .min = 0, .max = 1e300, .help = "how far the negative side goes down" },
    { 0 },
};
static const bp_case elu_cases[] = {
    { "2x3", "", 0, 0, 0 },           { "s", "alpha=0.5", 0, 0, 0 }, { "1", "", 0, 0, 0 },
    { "3x1x4'", "alpha=2", 0, 0, 0 }, { "0x3", "", 0, 0, 0 },        { 0 },
};
ACTIVATION(elu, "what is positive, and an exponential approach to -alpha below",
           "y = x for x > 0, else alpha (exp(x) - 1). Clevert, Unterthiner and Hochreiter, ICLR 2016.",
           "dx = dy where y > 0, else dy (y + alpha); saved is y", elu_options, OF_NAME, call->args[0].as.f, 0, 1, BP_OP_KINKED, elu_cases,
           two_inputs)

static const bp_option gelu_options[] = {
    { .name = "approximate",
      .kind = BP_OPT_BOOL,
      .def = 0,
      .min = 1,
      .max = 0,
      .help = "use the formula with tanh instead of the exact one" },
    { 0 },
};
static const bp_case gelu_cases[] = {
    { "2x3", "", 0, 0, 0 }, { "s", "approximate=1", 0, 0, 0 },
    { "1", "", 0, 0, 0 },   { "3x1x4'", "approximate=1", 0, 0, 0 },
    { "0x3", "", 0, 0, 0 }, { 0 },
};
static const bp_case gelu_grad_cases[] = {
    { "2x3 2x3", "", 0, 0, 0 },
    { "1 1", "approximate=1", 0, 0, 0 },
    { "3x1x4' 3x1x4'", "approximate=1", 0, 0, 0 },
    { 0 },
};
#define OF_GELU(prefix, name, suffix) (call->args[0].as.i ? prefix##gelu_tanh##suffix : prefix##gelu##suffix)
ACTIVATION(gelu, "x weighted by the chance that a normal number is smaller",
           "y = x Phi(x) = x (1 + erf(x / sqrt 2)) / 2, or with approximate\n"
           "y = x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2. Hendrycks and Gimpel, 2016.",
           "dx = dy (Phi(x) + x phi(x)), or the derivative of the approximation; saved is x", gelu_options, OF_GELU, 0, 1, 0, 0, gelu_cases,
           gelu_grad_cases)

ACTIVATION(silu, "x times its sigmoid, also called swish", "y = x / (1 + exp(-x)). Ramachandran, Zoph and Le, 2017.",
           "dx = dy q (1 + x (1 - q)), q = sigmoid(x); saved is x", NULL, OF_NAME, 0, 1, 0, 0, one_input, two_inputs)
ACTIVATION(sigmoid, "the logistic function", "y = 1 / (1 + exp(-x))", "dx = dy y (1 - y); saved is y", NULL, OF_NAME, 0, 0, 1, 0, one_input,
           two_fractions)
ACTIVATION(tanh, "the hyperbolic tangent", "y = (exp(x) - exp(-x)) / (exp(x) + exp(-x))", "dx = dy (1 - y^2); saved is y", NULL, OF_NAME, 0,
           0, 1, 0, one_input, two_fractions)
ACTIVATION(softplus, "a smooth relu", "y = log(1 + exp(x))", "dx = dy sigmoid(x); saved is x", NULL, OF_NAME, 0, 1, 0, 0, one_input,
           two_inputs)

ACTIVATION(mish, "a smooth relu that dips below 0", "y = x tanh(log(1 + exp(x))). Misra, \"Mish\", 2019.",
           "dx = dy (t + x (1 - t^2) sigmoid(x)) with t = tanh(log(1 + exp(x))); saved is x", NULL, OF_NAME, 0, 1, 0, 0, one_input,
           two_inputs)
