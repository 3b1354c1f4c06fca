/* conv_sides.c - geometry and gradients of convolutions, see conv_sides.h. */
#include "conv_sides.h"

#include "relu_mask.h"

bp_status bp__conv_geometry(bp_call *call, const int64_t x[4], const int64_t w[4], bool depthwise, bp_conv_shape *s)
{
    const int64_t *stride = call->args[BP_CONV_STRIDE].as.list, *dilation = call->args[BP_CONV_DILATION].as.list;
    const bp_padding padding = (bp_padding)call->args[BP_CONV_PADDING].as.i;
    char tx[200], tw[200];
    bp_shape_text(4, x, tx);
    bp_shape_text(4, w, tw);
    if (x[3] != w[2])
        return bp_op_fail(call, BP_EINVAL,
                          "images %s have %lld channels and weights %s take %lld; images are [n][h][w][channels], weights %s", tx,
                          (long long)x[3], tw, (long long)w[2], depthwise ? "[kh][kw][channels][multiplier]" : "[kh][kw][in][out]");
    if (w[0] < 1 || w[1] < 1 || w[2] < 1 || w[3] < 1)
        return bp_op_fail(call, BP_EINVAL, "weights %s are empty; every size must be at least 1", tw);
    *s = (bp_conv_shape){ .n = x[0],
                          .h = x[1],
                          .w = x[2],
                          .c = x[3],
                          .oc = depthwise ? w[2] * w[3] : w[3],
                          .kh = w[0],
                          .kw = w[1],
                          .sh = stride[0],
                          .sw = stride[1],
                          .dh = dilation[0],
                          .dw = dilation[1] };
    s->oh = bp_windows(s->h, s->kh, s->sh, s->dh, padding, &s->ph);
    s->ow = bp_windows(s->w, s->kw, s->sw, s->dw, padding, &s->pw);
    if (s->oh < 0 || s->ow < 0)
        return bp_op_fail(call, BP_EINVAL,
                          "a window of %lldx%lld does not fit into images %s with weights %s; use padding=\"same\", a smaller kernel, or "
                          "pool less before",
                          (long long)((s->kh - 1) * s->dh + 1), (long long)((s->kw - 1) * s->dw + 1), tx, tw);
    return BP_OK;
}

/* The options of the call with `size` in the place that differs; without one, those of a plain forward side. */
static void options_with(const bp_grad *g, const bp_conv_sides *sides, const int64_t *size, bp_arg args[BP_MAX_ARGS])
{
    for (int i = 0; i < sides->options; i++) args[i] = g->args[i];
    args[BP_CONV_OWN] = size ? bp_list(2, size) : bp_default();
}

static bp_tensor *forward(bp_grad *g, const bp_conv_sides *sides, bp_tensor *x, bp_tensor *w, bp_tensor *bias)
{
    bp_arg args[BP_MAX_ARGS];
    options_with(g, sides, NULL, args);
    return bp_g(g, sides->forward, sides->options, args, 3, x, w, bias);
}

/* like_x: a tensor with the height and width of the input. */
static bp_tensor *grad_input(bp_grad *g, const bp_conv_sides *sides, bp_tensor *dy, bp_tensor *w, const bp_tensor *like_x)
{
    bp_arg args[BP_MAX_ARGS];
    options_with(g, sides, like_x->m.shape + 1, args);
    return bp_g(g, sides->grad_input, sides->options, args, 2, dy, w);
}

static bp_tensor *grad_weight(bp_grad *g, const bp_conv_sides *sides, bp_tensor *x, bp_tensor *dy, const bp_tensor *like_w)
{
    bp_arg args[BP_MAX_ARGS];
    options_with(g, sides, like_w->m.shape, args);
    return bp_g(g, sides->grad_weight, sides->options, args, 2, x, dy);
}

/* dw and db, which read the same dy. */
static void grad_weight_bias(bp_grad *g, const bp_conv_sides *sides, bp_tensor *dz)
{
    bp_arg args[BP_MAX_ARGS];
    bp_tensor *in[2] = { g->in[0], dz }, *out[2];
    options_with(g, sides, g->in[1]->m.shape, args);
    bp_g_all(g, sides->grad_weight_bias, sides->options, args, 2, in, out);
    bp_grad_set(g, 1, out[0]);
    bp_grad_set(g, 2, out[1]);
}

/* With the bias b: db is the sum of dz over all pixels. */
void bp__conv_forward_gradient(bp_grad *g, const bp_conv_sides *sides)
{
    bp_tensor *dz = g->dout[0];
    if (g->args[BP_CONV_OWN].as.i == BP_ACT_RELU) dz = G2(g, relu_grad, dz, g->out[0]);
    if (g->want[0]) bp_grad_set(g, 0, grad_input(g, sides, dz, g->in[1], g->in[0]));
    const bool bias = g->n_in > 2 && g->in[2] && g->want[2];
    if (g->want[1] && bias) {
        grad_weight_bias(g, sides, dz);
    } else if (g->want[1]) {
        bp_grad_set(g, 1, grad_weight(g, sides, g->in[0], dz, g->in[1]));
    } else if (bias) {
        const int64_t pixels[3] = { 0, 1, 2 };
        bp_arg axes = bp_list(3, pixels);
        bp_grad_set(g, 2, bp_g(g, &bp__op_sum, 1, &axes, 1, dz));
    }
}

/* dx = grad_input(dy, w), perhaps with a relu undone: with the gradient e of dx, through the same relu, d(dy) = forward(e, w) and dw =
 * grad_weight(e, dy). */
void bp__conv_grad_input_gradient(bp_grad *g, const bp_conv_sides *sides)
{
    bp_tensor *e = bp__g_undo_relu(g, g->dout[0], g->n_in > 2 ? g->in[2] : NULL, g->args[sides->options].as.f);
    if (g->want[0]) bp_grad_set(g, 0, forward(g, sides, e, g->in[1], NULL));
    if (g->want[1]) bp_grad_set(g, 1, grad_weight(g, sides, e, g->in[0], g->in[1]));
}

/* dw = grad_weight(x, dy), perhaps with db = sum of dy: with the gradients e of dw and f of db, dx = grad_input(dy, e) and
 * d(dy) = forward(x, e) + f. */
void bp__conv_grad_weight_gradient(bp_grad *g, const bp_conv_sides *sides)
{
    bp_tensor *e = g->dout[0], *f = g->n_out > 1 ? g->dout[1] : NULL;
    if (e && g->want[0]) bp_grad_set(g, 0, grad_input(g, sides, g->in[1], e, g->in[0]));
    if (!g->want[1]) return;
    bp_tensor *d = e ? forward(g, sides, g->in[0], e, f) : NULL;
    if (!e && f) {
        const bp_arg shape = bp_list(g->in[1]->m.ndim, g->in[1]->m.shape);
        d = bp_g(g, &bp__op_expand, 1, &shape, 1, f);
    }
    bp_grad_set(g, 1, d);
}
