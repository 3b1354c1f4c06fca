/* conv2d.c - two-dimensional convolution over images [n][h][w][c], and its two gradients: see conv_sides.h. */
#include "conv2d.h"
#include "fused_activation.h"
#include "fusing.h"

enum { ALGORITHM = BP_CONV2D_ALGORITHM, OPTIONS = BP_CONV2D_MORE };

#define OPTIONS_WITH(...) \
    (const bp_option[]) { BP_CONV2D_OPTIONS(__VA_ARGS__), { 0 } }

static bp_status geometry(bp_call *call, const int64_t x[4], const int64_t w[4], bp_conv_shape *s)
{
    BP_TRY(bp__conv_geometry(call, x, w, false, s));
    if (call->args[ALGORITHM].as.i == BP_CONV_WINOGRAD && !bp__winograd_fits(s))
        return bp_op_fail(call, BP_EINVAL,
                          "algorithm \"winograd\" needs a 3x3 kernel with stride 1 and dilation 1; here the kernel is %lldx%lld, stride "
                          "%lld,%lld, dilation %lld,%lld; leave the algorithm \"auto\"",
                          (long long)s->kh, (long long)s->kw, (long long)s->sh, (long long)s->sw, (long long)s->dh, (long long)s->dw);
    return BP_OK;
}

/* Inputs of a call that is only asked about have no values yet. */
static const void *data_of(const bp_tensor *t) { return t && t->storage ? bp_data(t) : NULL; }

static bp_convolution convolution_of(const bp_call *call, const bp_conv_shape *s)
{
    return (bp_convolution){ .s = *s, .dtype = call->in[0]->m.dtype, .algorithm = (bp_conv_algorithm)call->args[ALGORITHM].as.i };
}

/* ---- forward ---- */

static bp_status conv2d_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][h][w][channels]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[kh][kw][in][out]"));
    return geometry(call, call->in[0]->m.shape, call->in[1]->m.shape, s);
}

static bp_status conv2d_infer(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(conv2d_geometry(call, &s));
    if (call->in[2]) BP_TRY(bp_need_shape(call, 2, 1, &s.oc));
    bp_out4(call, 0, call->in[0]->m.dtype, s.n, s.oh, s.ow, s.oc);
    return BP_OK;
}

bp_status bp__conv2d_of(bp_call *call, bp_convolution *c)
{
    bp_conv_shape s;
    BP_TRY(conv2d_geometry(call, &s));
    *c = convolution_of(call, &s);
    c->x = data_of(call->in[0]);
    c->w = data_of(call->in[1]);
    c->bias = data_of(call->in[2]);
    c->act = (bp_act)call->args[BP_CONV_OWN].as.i;
    return BP_OK;
}

static bp_status conv2d_run(bp_call *call)
{
    bp_convolution c;
    BP_TRY(bp__conv2d_of(call, &c));
    c.out = bp_data(call->out[0]);
    return bp__conv_forward(call->ctx, &c);
}

/* ---- gradient with respect to the input ---- */

static bp_status grad_input_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][oh][ow][out]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[kh][kw][in][out]"));
    const int64_t *dy = call->in[0]->m.shape, *w = call->in[1]->m.shape, *size = call->args[BP_CONV_OWN].as.list;
    const int64_t x[4] = { dy[0], size[0], size[1], w[2] };
    BP_TRY(geometry(call, x, w, s));
    return bp_need_shape4(call, 0, s->n, s->oh, s->ow, s->oc);
}

static bp_status grad_input_infer(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(grad_input_geometry(call, &s));
    if (call->n_in > 2 && call->in[2]) BP_TRY(bp_need_shape4(call, 2, s.n, s.h, s.w, s.c));
    bp_out4(call, 0, call->in[0]->m.dtype, s.n, s.h, s.w, s.c);
    return BP_OK;
}

bp_status bp__conv2d_grad_input_of(bp_call *call, bp_convolution *c)
{
    bp_conv_shape s;
    BP_TRY(grad_input_geometry(call, &s));
    *c = convolution_of(call, &s);
    c->dy = data_of(call->in[0]);
    c->w = data_of(call->in[1]);
    return BP_OK;
}

static bp_status grad_input_run(bp_call *call)
{
    bp_convolution c;
    BP_TRY(bp__conv2d_grad_input_of(call, &c));
    c.out = bp_data(call->out[0]);
    bp_relu_mask mask;
    if (call->n_in > 2 && call->in[2]) {
        mask = bp__relu_mask(call, call->in[2], call->args[OPTIONS].as.f);
        c.mask = &mask;
    }
    return bp__conv_grad_input(call->ctx, &c);
}

bool bp__conv2d_mask_pays(bp_call *call)
{
    bp_convolution c;
    return bp__conv2d_grad_input_of(call, &c) == BP_OK && bp__conv_mask_pays(bp_kernels_of(call->ctx, c.dtype), &c);
}

/* ---- gradient with respect to the weights ---- */

static bp_status grad_weight_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][h][w][in]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[n][oh][ow][out]"));
    const int64_t *x = call->in[0]->m.shape, *dy = call->in[1]->m.shape, *size = call->args[BP_CONV_OWN].as.list;
    const int64_t w[4] = { size[0], size[1], x[3], dy[3] };
    BP_TRY(geometry(call, x, w, s));
    return bp_need_shape4(call, 1, s->n, s->oh, s->ow, s->oc);
}

static bp_status grad_weight_infer(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(grad_weight_geometry(call, &s));
    bp_out4(call, 0, call->in[0]->m.dtype, s.kh, s.kw, s.c, s.oc);
    if (call->n_out > 1) bp_out(call, 1, call->in[0]->m.dtype, 1, &s.oc);
    return BP_OK;
}

static bp_status grad_weight_run(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(grad_weight_geometry(call, &s));
    bp_convolution c = convolution_of(call, &s);
    c.x = bp_data(call->in[0]);
    c.dy = bp_data(call->in[1]);
    c.out = bp_data(call->out[0]);
    bp_row_sum sum;
    if (call->n_out > 1) BP_TRY(bp__row_sum_start(call->ctx, c.dtype, s.n * s.oh * s.ow, s.oc, c.dy, bp_data(call->out[1]), &sum));
    if (call->n_out > 1) c.sum = &sum;
    return bp__conv_grad_weight(call->ctx, &c);
}

/* ---- gradients ---- */

static const bp_conv_sides sides = { &bp__op_conv2d, &bp__op_conv2d_grad_input, &bp__op_conv2d_grad_weight, &bp__op_conv2d_grad_weight_bias,
                                     OPTIONS };
static void conv2d_gradient(bp_grad *g) { bp__conv_forward_gradient(g, &sides); }
static void grad_input_gradient(bp_grad *g) { bp__conv_grad_input_gradient(g, &sides); }
static void grad_weight_gradient(bp_grad *g) { bp__conv_grad_weight_gradient(g, &sides); }

/* ---- rows ---- */

const bp_op bp__op_conv2d = {
    .name = "conv2d",
    .group = "layers",
    .summary = "slides a kernel over images: what a convolutional layer computes",
    .detail =
        "y[n, i, j, o] = activation(b[o] + sum over a, b, c of x[n, i*stride - before + a*dilation, j*stride - before + b*dilation, c] * "
        "w[a, b, c, o])\n"
        "The kernel is not flipped (a cross-correlation, as in every framework). Positions outside the image count as zero. The result has "
        "(size - (kernel-1)*dilation - 1) / stride + 1 rows, rounded down, with padding \"valid\" and size / stride rows, rounded up, "
        "with \"same\"; "
        "columns alike. Where \"same\" has an odd number of zeros to add, the odd one comes after (TensorFlow's rule).\n"
        "Algorithm: \"winograd\" computes 4x4 results of a 3x3 kernel at a time from 36 products per pair of channels instead of 144, "
        "F(4x4, 3x3): results, input gradients and weight gradients alike. \"auto\" takes it for f32 where a model of the time, by the "
        "sizes of image and channels alone, says that it is faster: from 8 channels in and out and some 6x6 results on; never in f64. "
        "It rounds otherwise: greatest error in f32 against the sum in f64, divided by the greatest result, of numbers in -1..1 (4 "
        "images, AVX2),\n\n"
        "| images, channels | y: winograd | y: direct | dx: winograd | dx: direct | dw: winograd | dw: direct |\n"
        "|--|--|--|--|--|--|--|\n"
        "| 24x24, 32 to 64 | 1.2e-6 | 6.5e-7 | 1.7e-6 | 5.7e-7 | 7.9e-7 | 4.3e-7 |\n"
        "| 32x32, 16 to 16 | 8.4e-7 | 4.6e-7 | 1.2e-6 | 4.3e-7 | 1.1e-6 | 3.5e-7 |\n"
        "| 8x8, 64 to 64 | 1.4e-6 | 3.8e-7 | 1.2e-6 | 4.5e-7 | 6.9e-7 | 2.0e-7 |\n"
        "| 8x8, 128 to 256 | 1.7e-6 | 4.2e-7 | 2.6e-6 | 3.4e-7 | 7.2e-7 | 1.9e-7 |\n\n"
        "A NaN or infinity in an image spreads over the tile it is transformed with. Say \"direct\" where that or the last bits matter.\n"
        "The zeros beside an image are numbers in the direct sum, too: what is not finite meets them as NaN, an infinite weight at the "
        "edge of the result, and in the gradient of the weights of few features a pixel.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][in] images, channels last" },
            { "w", 0, "[kh][kw][in][out] weights" },
            { "b", BP_IN_OPTIONAL, "[out] bias" },
            { 0 },
        },
    .options =
        OPTIONS_WITH(BP_FUSED_ACTIVATION_OPTION),
    .n_out = 1,
    .outputs = "y: [n][oh][ow][out]",
    .flags = BP_OP_KINKED,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 3,
    .needs_out = 1,
    .infer = conv2d_infer,
    .run = conv2d_run,
    .gradient = conv2d_gradient,
    .cases =
        (const bp_case[]){
            { "2x5x6x3 3x3x3x4 4", "", 0, 0, 0 },
            { "1x1x1x1 1x1x1x1 1", "", 0, 0, 0 },
            { "2x5x6x2 3x2x2x3", "padding=same", 0, 0, 0 },
            { "2x7x6x2' 3x3x2x3' 3", "stride=2,3 padding=same", 0, 0, 0 },
            { "1x9x8x2 3x3x2x2 2", "dilation=2,3 stride=2", 0, 0, 0 },
            { "2x4x4x1 3x3x1x2 2", "padding=same activation=relu", 0, 0, 0 },
            { "1x2x3x2 5x5x2x1", "padding=same dilation=2", 0, 0, 0 },
            { "0x4x4x2 3x3x2x2 2", "", 0, 0, 0 },
            { "2x5x6x3 3x3x3x4 4", "algorithm=winograd", 0, 0, 0 },
            { "1x6x3x2 3x3x2x3 3", "algorithm=winograd padding=same activation=relu", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_conv2d_grad_input = {
    .name = "conv2d_grad_input",
    .group = "layers",
    .summary = "gradient of conv2d with respect to its images: what a transposed convolution computes",
    .detail = "dx[n, i*stride - before + a*dilation, j*stride - before + b*dilation, c] += dy[n, i, j, o] * w[a, b, c, o]",
    .inputs =
        (const bp_input[]){
            { "dy", 0, "[n][oh][ow][out] gradient of conv2d's result" },
            { "w", 0, "[kh][kw][in][out] weights" },
            BP_RELU_MASK_INPUT("[n][h][w][in]"),
            { 0 },
        },
    .options =
        (const bp_option[]){
            BP_CONV2D_OPTIONS(BP_SIZE_OPTION("height and width of the images, which dy does not tell")),
            BP_RELU_MASK_OPTION,
            { 0 },
        },
    .n_out = 1,
    .outputs = "dx: [n][h][w][in]",
    .flags = BP_OP_INTERNAL | BP_OP_KINKED,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 7,
    .over = { 1 << 2 },
    .infer = grad_input_infer,
    .run = grad_input_run,
    .gradient = grad_input_gradient,
    .cases =
        (const bp_case[]){
            { "2x3x4x4 3x3x3x4", "size=5,6", 0, 0, 0 },
            { "1x1x1x1 1x1x1x1", "size=1,1", 0, 0, 0 },
            { "2x4x2x3' 3x3x2x3", "size=7,6 stride=2,3 padding=same", 0, 0, 0 },
            { "1x3x1x2 3x3x2x2", "size=9,8 dilation=2,3 stride=2", 0, 0, 0 },
            { "1x3x4x4 3x3x3x4", "size=5,6 algorithm=winograd", 0, 0, 0 },
            { "2x3x4x4 3x3x3x4 2x5x6x3", "size=5,6", 0, 0, 0 },
            { "1x3x4x4 3x3x3x4 1x5x6x3", "size=5,6 algorithm=winograd p=0.25", 0, 0, 0 },
            { "2x3x4x4' 1x1x3x4 2x3x4x3'", "size=3,4 p=0.5", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_conv2d_grad_weight = {
    .name = "conv2d_grad_weight",
    .group = "layers",
    .summary = "gradient of conv2d with respect to its weights",
    .detail =
        "dw[a, b, c, o] = sum over n, i, j of x[n, i*stride - before + a*dilation, j*stride - before + b*dilation, c] * dy[n, i, j, o]\n"
        "The images are summed in a number of parts that depends on the shapes alone, so that the bits do not depend on the number of "
        "threads.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][in] images" },
            { "dy", 0, "[n][oh][ow][out] gradient of conv2d's result" },
            { 0 },
        },
    .options =
        OPTIONS_WITH(BP_SIZE_OPTION("height and width of the kernel, which x and dy do not tell")),
    .n_out = 1,
    .outputs = "dw: [kh][kw][in][out]",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 3,
    .infer = grad_weight_infer,
    .run = grad_weight_run,
    .gradient = grad_weight_gradient,
    .cases =
        (const bp_case[]){
            { "2x5x6x3 2x3x4x4", "size=3,3", 0, 0, 0 },
            { "1x1x1x1 1x1x1x1", "size=1,1", 0, 0, 0 },
            { "2x7x6x2 2x4x2x3'", "size=3,3 stride=2,3 padding=same", 0, 0, 0 },
            { "1x9x8x2' 1x3x1x2", "size=3,3 dilation=2,3 stride=2", 0, 0, 0 },
            { "1x5x6x3 1x5x6x2", "size=3,3 padding=same algorithm=winograd", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_conv2d_grad_weight_bias = {
    .name = "conv2d_grad_weight_bias",
    .group = "layers",
    .summary = "gradients of conv2d with respect to its weights and its bias",
    .detail = "dw as conv2d_grad_weight gives it, db[o] = sum over n, i, j of dy[n, i, j, o] as sum does, while dy is in a cache.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][in] images" },
            { "dy", 0, "[n][oh][ow][out] gradient of conv2d's result" },
            { 0 },
        },
    .options =
        OPTIONS_WITH(BP_SIZE_OPTION("height and width of the kernel, which x and dy do not tell")),
    .n_out = 2,
    .outputs = "dw: [kh][kw][in][out]; db: [out]",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 3,
    .infer = grad_weight_infer,
    .run = grad_weight_run,
    .gradient = grad_weight_gradient,
    .cases =
        (const bp_case[]){
            { "2x5x6x3 2x3x4x4", "size=3,3", 0, 0, 0 },
            { "1x1x1x1 1x1x1x1", "size=1,1", 0, 0, 0 },
            { "2x7x6x2 2x4x2x3'", "size=3,3 stride=2,3 padding=same", 0, 0, 0 },
            { "1x9x8x2' 1x3x1x2", "size=3,3 dilation=2,3 stride=2", 0, 0, 0 },
            { "1x5x6x3 1x5x6x2", "size=3,3 padding=same algorithm=winograd", 0, 0, 0 },
            { 0 },
        },
};
