/* depthwise_conv2d.c - two-dimensional convolution of every channel by itself, and its two gradients.
 *
 * As with conv2d the three are one bilinear form seen from three sides, so each is the gradient of the others:
 *     y  = depthwise(x, w)    dx = grad_input(dy, w)    dw = grad_weight(x, dy) */
#include "../base/memory.h"
#include "../base/pool.h"
#include "product.h"
#include "window.h"

#include <string.h>

static const char *const activations[] = { "none", "relu", NULL }; /* in the order of bp_act */

enum { MOST_PARTS = 16 };

/* Options by place. The forward has its activation last; the gradients the size that they cannot see from their inputs. */
enum { STRIDE, PADDING, DILATION, LAST };

#define STRIDE_OPTION                                                                         \
    {                                                                                         \
        .name = "stride", .kind = BP_OPT_INTS, .def = 1, .min = 1, .max = 65536, .length = 2, \
        .help = "step from one window to the next: rows, columns"                             \
    }
#define DILATION_OPTION                                                                         \
    {                                                                                           \
        .name = "dilation", .kind = BP_OPT_INTS, .def = 1, .min = 1, .max = 65536, .length = 2, \
        .help = "distance between neighbouring taps of the kernel: rows, columns"               \
    }
#define SIZE_OPTION(text)                                                                                      \
    {                                                                                                          \
        .name = "size", .kind = BP_OPT_INTS, .min = 0, .max = 1e9, .length = 2, .required = true, .help = text \
    }

/* The geometry from the shape of x [n][h][w][c], that of w [kh][kw][c][m], and the options. Fails where no window fits. */
static bp_status geometry(bp_call *call, const int64_t x[4], const int64_t w[4], bp_conv_shape *s)
{
    const int64_t *stride = call->args[STRIDE].as.list, *dilation = call->args[DILATION].as.list;
    const bp_padding padding = (bp_padding)call->args[PADDING].as.i;
    char tx[200], tw[200];
    bp_shape_text(4, x, tx);
    bp_shape_text(4, w, tw);
    if (x[3] != w[2])
        return bp_op_fail(call, BP_EINVAL,
                          "images %s have %lld channels and weights %s take %lld; images are [n][h][w][channels], weights "
                          "[kh][kw][channels][multiplier]",
                          tx, (long long)x[3], tw, (long long)w[2]);
    if (w[0] < 1 || w[1] < 1 || w[2] < 1 || w[3] < 1)
        return bp_op_fail(call, BP_EINVAL, "weights %s are empty; every size must be at least 1", tw);
    *s = (bp_conv_shape){ .n = x[0],
                          .h = x[1],
                          .w = x[2],
                          .c = x[3],
                          .oc = w[2] * w[3],
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

static bp_status forward_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][h][w][channels]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[kh][kw][channels][multiplier]"));
    return geometry(call, call->in[0]->m.shape, call->in[1]->m.shape, s);
}

static bp_status grad_input_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][oh][ow][channels * multiplier]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[kh][kw][channels][multiplier]"));
    const int64_t *dy = call->in[0]->m.shape, *w = call->in[1]->m.shape, *size = call->args[LAST].as.list;
    const int64_t x[4] = { dy[0], size[0], size[1], w[2] };
    BP_TRY(geometry(call, x, w, s));
    return bp_need_shape4(call, 0, s->n, s->oh, s->ow, s->oc);
}

static bp_status grad_weight_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][h][w][channels]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[n][oh][ow][channels * multiplier]"));
    const int64_t *x = call->in[0]->m.shape, *dy = call->in[1]->m.shape, *size = call->args[LAST].as.list;
    const int64_t w[4] = { size[0], size[1], x[3], x[3] > 0 ? dy[3] / x[3] : 0 };
    BP_TRY(geometry(call, x, w, s));
    return bp_need_shape4(call, 1, s->n, s->oh, s->ow, s->oc);
}

static bp_status forward_infer(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(forward_geometry(call, &s));
    if (call->in[2]) BP_TRY(bp_need_shape(call, 2, 1, &s.oc));
    bp_out4(call, 0, call->in[0]->m.dtype, s.n, s.oh, s.ow, s.oc);
    return BP_OK;
}

static bp_status grad_input_infer(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(grad_input_geometry(call, &s));
    bp_out4(call, 0, call->in[0]->m.dtype, s.n, s.h, s.w, s.c);
    return BP_OK;
}

static bp_status grad_weight_infer(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(grad_weight_geometry(call, &s));
    bp_out4(call, 0, call->in[0]->m.dtype, s.kh, s.kw, s.c, s.oc / s.c);
    return BP_OK;
}

/* ---- running ---- */

typedef struct job {
    const bp_kernels *kernels;
    bp_conv_shape s;
    const char *x, *w, *dy, *bias; /* those that the direction needs */
    char *out;
    bp_act act;
    int64_t rows, all_rows; /* per chunk; of all */
    int64_t images, size;   /* per chunk; bytes of an element */
    char *scratch;
    size_t scratch_bytes;
} job;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Multiply-adds of n images, or what moving their pixels is worth in those. */
static double work_of(const bp_conv_shape *s, int64_t n)
{
    const double pixels = (double)(s->h * s->w * s->c + s->oh * s->ow * s->oc) * (BP_WORK_GRAIN / BP_MEMORY_GRAIN);
    const double sums = (double)s->oh * (double)s->ow * (double)s->oc * (double)s->kh * (double)s->kw;
    return (double)n * (sums > pixels ? sums : pixels) + 1;
}

static bp_status new_job(bp_call *call, const bp_conv_shape *s, size_t extra, job *j)
{
    const bp_dtype dtype = call->out[0]->m.dtype;
    *j = (job){ .kernels = bp_kernels_of(call->ctx, dtype), .s = *s, .size = (int64_t)bp_dtype_size(dtype), .out = bp_data(call->out[0]) };
    j->scratch_bytes = bp__lines(j->kernels->depthwise_scratch(s));
    j->scratch = (char *)bp__scratch(call->ctx, j->scratch_bytes * (size_t)bp_threads(call->ctx) + extra + 64);
    return j->scratch ? BP_OK : BP_ENOMEM;
}

static void cut_rows(job *j, int64_t per_image)
{
    j->all_rows = j->s.n * per_image;
    j->rows = (int64_t)((double)per_image * BP_WORK_GRAIN / work_of(&j->s, 1)) + 1;
}

static void forward_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    j->kernels->depthwise_forward(&j->s, j->x, j->w, j->bias, j->act, j->out, chunk * j->rows, smaller((chunk + 1) * j->rows, j->all_rows),
                                  j->scratch + (size_t)worker * j->scratch_bytes);
}

static bp_status forward_run(bp_call *call)
{
    bp_conv_shape s;
    job j;
    BP_TRY(forward_geometry(call, &s));
    if (bp_count(call->out[0]) == 0) return BP_OK;
    BP_TRY(new_job(call, &s, 0, &j));
    j.x = bp_data(call->in[0]);
    j.w = bp_data(call->in[1]);
    j.bias = call->in[2] ? bp_data(call->in[2]) : NULL;
    j.act = (bp_act)call->args[LAST].as.i;
    cut_rows(&j, s.oh);
    bp_parallel(call->ctx, bp_chunks(j.all_rows, j.rows), forward_chunk, &j);
    return BP_OK;
}

static void grad_input_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    j->kernels->depthwise_grad_input(&j->s, j->dy, j->w, j->out, chunk * j->rows, smaller((chunk + 1) * j->rows, j->all_rows),
                                     j->scratch + (size_t)worker * j->scratch_bytes);
}

static bp_status grad_input_run(bp_call *call)
{
    bp_conv_shape s;
    job j;
    BP_TRY(grad_input_geometry(call, &s));
    if (bp_count(call->out[0]) == 0) return BP_OK;
    BP_TRY(new_job(call, &s, 0, &j));
    j.dy = bp_data(call->in[0]);
    j.w = bp_data(call->in[1]);
    cut_rows(&j, s.h);
    bp_parallel(call->ctx, bp_chunks(j.all_rows, j.rows), grad_input_chunk, &j);
    return BP_OK;
}

/* A sum over all pixels of all images, taken in parts of whole images. */
static void grad_weight_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const int64_t n = j->s.kh * j->s.kw * j->s.oc;
    char *part = j->out + chunk * n * j->size;
    memset(part, 0, (size_t)(n * j->size));
    j->kernels->depthwise_grad_weight(&j->s, j->x, j->dy, part, chunk * j->images, smaller((chunk + 1) * j->images, j->s.n),
                                      j->scratch + (size_t)worker * j->scratch_bytes);
}

static bp_status grad_weight_run(bp_call *call)
{
    bp_conv_shape s;
    job j;
    BP_TRY(grad_weight_geometry(call, &s));
    const int64_t n = bp_count(call->out[0]), bytes = n * (int64_t)bp_dtype_size(call->out[0]->m.dtype);
    int64_t parts = smaller(MOST_PARTS, (int64_t)(work_of(&s, s.n) / BP_WORK_GRAIN) + 1), images = (s.n + parts - 1) / parts;
    parts = s.n > 0 ? bp_chunks(s.n, images) : 1; /* no images: the sum of nothing */
    BP_TRY(new_job(call, &s, parts > 1 ? (size_t)(parts * bytes) : 0, &j));
    j.x = bp_data(call->in[0]);
    j.dy = bp_data(call->in[1]);
    j.images = images;
    void *dw = j.out;
    if (parts > 1) j.out = j.scratch + j.scratch_bytes * (size_t)bp_threads(call->ctx);
    bp_parallel(call->ctx, parts, grad_weight_chunk, &j);
    if (parts > 1) bp__sum_parts(call->ctx, call->out[0]->m.dtype, parts, n, j.out, dw);
    return BP_OK;
}

/* ---- gradients ---- */

/* The options of the call with `size` in the last place; without one, those of a plain forward. */
static void options_with(const bp_grad *g, const int64_t *size, bp_arg args[LAST + 1])
{
    for (int i = 0; i < LAST; i++) args[i] = g->args[i];
    args[LAST] = size ? bp_list(2, size) : bp_default();
}

static bp_tensor *forward(bp_grad *g, bp_tensor *x, bp_tensor *w)
{
    bp_arg args[LAST + 1];
    options_with(g, NULL, args);
    return bp_g(g, &bp__op_depthwise_conv2d, LAST + 1, args, 3, x, w, (bp_tensor *)NULL);
}

/* like_x: a tensor with the height and width of the input. */
static bp_tensor *grad_input(bp_grad *g, bp_tensor *dy, bp_tensor *w, const bp_tensor *like_x)
{
    bp_arg args[LAST + 1];
    options_with(g, like_x->m.shape + 1, args);
    return bp_g(g, &bp__op_depthwise_conv2d_grad_input, LAST + 1, args, 2, dy, w);
}

static bp_tensor *grad_weight(bp_grad *g, bp_tensor *x, bp_tensor *dy, const bp_tensor *like_w)
{
    bp_arg args[LAST + 1];
    options_with(g, like_w->m.shape, args);
    return bp_g(g, &bp__op_depthwise_conv2d_grad_weight, LAST + 1, args, 2, x, dy);
}

static void forward_gradient(bp_grad *g)
{
    bp_tensor *dz = g->dout[0];
    if (g->args[LAST].as.i == BP_ACT_RELU) dz = G2(g, relu_grad, dz, g->out[0]);
    if (g->want[0]) bp_grad_set(g, 0, grad_input(g, dz, g->in[1], g->in[0]));
    if (g->want[1]) bp_grad_set(g, 1, grad_weight(g, g->in[0], dz, g->in[1]));
    if (g->n_in > 2 && g->in[2] && g->want[2]) {
        const int64_t pixels[3] = { 0, 1, 2 };
        bp_arg axes = bp_list(3, pixels);
        bp_grad_set(g, 2, bp_g(g, &bp__op_sum, 1, &axes, 1, dz));
    }
}

static void grad_input_gradient(bp_grad *g)
{
    bp_tensor *e = g->dout[0];
    if (g->want[0]) bp_grad_set(g, 0, forward(g, e, g->in[1]));
    if (g->want[1]) bp_grad_set(g, 1, grad_weight(g, e, g->in[0], g->in[1]));
}

static void grad_weight_gradient(bp_grad *g)
{
    bp_tensor *e = g->dout[0];
    if (g->want[0]) bp_grad_set(g, 0, grad_input(g, g->in[1], e, g->in[0]));
    if (g->want[1]) bp_grad_set(g, 1, forward(g, g->in[0], e));
}

/* ---- rows ---- */

const bp_op bp__op_depthwise_conv2d = {
    .name = "depthwise_conv2d",
    .group = "layers",
    .summary = "slides a kernel of its own over every channel of images",
    .detail = "y[n, i, j, c*m + q] = activation(b[c*m + q] + sum over a, b of x[n, i*stride - before + a*dilation, j*stride - before + "
              "b*dilation, c] * w[a, b, c, q]), m the multiplier\n"
              "Sizes and padding are those of conv2d.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][channels] images" },
            { "w", 0, "[kh][kw][channels][multiplier] weights" },
            { "b", BP_IN_OPTIONAL, "[channels * multiplier] bias" },
            { 0 },
        },
    .options =
        (const bp_option[]){
            STRIDE_OPTION,
            BP_PADDING_OPTION,
            DILATION_OPTION,
            { .name = "activation",
              .kind = BP_OPT_CHOICE,
              .def = BP_ACT_NONE,
              .min = 0,
              .max = 1,
              .choices = activations,
              .help = "applied to the result before it is stored; other activations are ops of their own" },
            { 0 },
        },
    .n_out = 1,
    .outputs = "y: [n][oh][ow][channels * multiplier]",
    .flags = BP_OP_KINKED,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 3,
    .needs_out = 1,
    .infer = forward_infer,
    .run = forward_run,
    .gradient = forward_gradient,
    .cases =
        (const bp_case[]){
            { "2x5x6x3 3x3x3x1 3", "", 0, 0, 0 },
            { "1x1x1x1 1x1x1x1 1", "", 0, 0, 0 },
            { "2x5x6x2 3x2x2x3", "padding=same", 0, 0, 0 },
            { "2x7x6x2' 3x3x2x1' 2", "stride=2,3 padding=same", 0, 0, 0 },
            { "1x9x8x2 3x3x2x2 4", "dilation=2,3 stride=2", 0, 0, 0 },
            { "2x4x4x2 3x3x2x1 2", "padding=same activation=relu", 0, 0, 0 },
            { "1x2x3x2 5x5x2x1", "padding=same dilation=2", 0, 0, 0 },
            { "0x4x4x2 3x3x2x2 4", "", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_depthwise_conv2d_grad_input = {
    .name = "depthwise_conv2d_grad_input",
    .group = "layers",
    .summary = "gradient of depthwise_conv2d with respect to its images",
    .detail = "dx[n, i*stride - before + a*dilation, j*stride - before + b*dilation, c] += dy[n, i, j, c*m + q] * w[a, b, c, q]",
    .inputs =
        (const bp_input[]){
            { "dy", 0, "[n][oh][ow][channels * multiplier] gradient of the result" },
            { "w", 0, "[kh][kw][channels][multiplier] weights" },
            { 0 },
        },
    .options =
        (const bp_option[]){
            STRIDE_OPTION,
            BP_PADDING_OPTION,
            DILATION_OPTION,
            SIZE_OPTION("height and width of the images, which dy does not tell"),
            { 0 },
        },
    .n_out = 1,
    .outputs = "dx: [n][h][w][channels]",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 3,
    .infer = grad_input_infer,
    .run = grad_input_run,
    .gradient = grad_input_gradient,
    .cases =
        (const bp_case[]){
            { "2x3x4x3 3x3x3x1", "size=5,6", 0, 0, 0 },
            { "1x1x1x1 1x1x1x1", "size=1,1", 0, 0, 0 },
            { "2x4x2x4' 3x3x2x2", "size=7,6 stride=2,3 padding=same", 0, 0, 0 },
            { "1x3x1x2 3x3x2x1", "size=9,8 dilation=2,3 stride=2", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_depthwise_conv2d_grad_weight = {
    .name = "depthwise_conv2d_grad_weight",
    .group = "layers",
    .summary = "gradient of depthwise_conv2d with respect to its weights",
    .detail = "dw[a, b, c, q] = sum over n, i, j of x[n, i*stride - before + a*dilation, j*stride - before + b*dilation, c] * dy[n, i, j, "
              "c*m + q]\n"
              "The images are summed in a number of parts that depends on the shapes alone.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][channels] images" },
            { "dy", 0, "[n][oh][ow][channels * multiplier] gradient of the result" },
            { 0 },
        },
    .options =
        (const bp_option[]){
            STRIDE_OPTION,
            BP_PADDING_OPTION,
            DILATION_OPTION,
            SIZE_OPTION("height and width of the kernel, which x and dy do not tell"),
            { 0 },
        },
    .n_out = 1,
    .outputs = "dw: [kh][kw][channels][multiplier]",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 3,
    .infer = grad_weight_infer,
    .run = grad_weight_run,
    .gradient = grad_weight_gradient,
    .cases =
        (const bp_case[]){
            { "2x5x6x3 2x3x4x3", "size=3,3", 0, 0, 0 },
            { "1x1x1x1 1x1x1x1", "size=1,1", 0, 0, 0 },
            { "2x7x6x2 2x4x2x4'", "size=3,3 stride=2,3 padding=same", 0, 0, 0 },
            { "1x9x8x2' 1x3x1x2", "size=3,3 dilation=2,3 stride=2", 0, 0, 0 },
            { 0 },
        },
};
