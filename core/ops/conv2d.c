/* conv2d.c - two-dimensional convolution over images [n][h][w][c], and its two gradients.
 *
 * The three are one bilinear form seen from three sides, so each is the gradient of the others:
 *     y  = conv2d(x, w)    dx = conv2d_grad_input(dy, w)    dw = conv2d_grad_weight(x, dy)
 * and their gradients of any order are again these three. */
#include "../base/memory.h"
#include "../base/pool.h"
#include "product.h"
#include "window.h"

#include <string.h>

static const char *const activations[] = { "none", "relu", NULL }; /* in the order of bp_act */

enum { MOST_CHUNKS = 32, MOST_PARTS = 16, MOST_PART_BYTES = 1 << 26 };

/* Options by place. conv2d has its activation last; the gradients have the size they cannot see from their inputs there. */
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

/* The whole geometry from the shape of x [n][h][w][c], that of w [kh][kw][c][oc], and the options. Fails where no window fits. */
static bp_status geometry(bp_call *call, const int64_t x[4], const int64_t w[4], bp_conv_shape *s)
{
    const int64_t *stride = call->args[STRIDE].as.list, *dilation = call->args[DILATION].as.list;
    const bp_padding padding = (bp_padding)call->args[PADDING].as.i;
    char tx[200], tw[200];
    bp_shape_text(4, x, tx);
    bp_shape_text(4, w, tw);
    if (x[3] != w[2])
        return bp_op_fail(
            call, BP_EINVAL,
            "images %s have %lld channels and weights %s take %lld; images are [n][h][w][channels], weights [kh][kw][in][out]", tx,
            (long long)x[3], tw, (long long)w[2]);
    if (w[0] < 1 || w[1] < 1 || w[2] < 1 || w[3] < 1)
        return bp_op_fail(call, BP_EINVAL, "weights %s are empty; every size must be at least 1", tw);
    *s = (bp_conv_shape){ .n = x[0],
                          .h = x[1],
                          .w = x[2],
                          .c = x[3],
                          .oc = w[3],
                          .kh = w[0],
                          .kw = w[1],
                          .sh = stride[0],
                          .sw = stride[1],
                          .dh = dilation[0],
                          .dw = dilation[1] };
    s->oh = bp_windows(s->h, s->kh, s->sh, s->dh, padding, &s->ph);
    s->ow = bp_windows(s->w, s->kw, s->sw, s->dw, padding, &s->pw);
    if (s->oh < 0 || s->ow < 0)
        return bp_op_fail(
            call, BP_EINVAL,
            "a window of %lldx%lld does not fit into images %s with weights %s; use padding=\"same\", a smaller kernel, or pool less "
            "before",
            (long long)((s->kh - 1) * s->dh + 1), (long long)((s->kw - 1) * s->dw + 1), tx, tw);
    return BP_OK;
}

/* ---- how the work is cut ---- */

typedef struct job {
    const bp_kernels *kernels;
    bp_conv_shape s;
    const char *x, *w, *dy, *bias; /* those that the direction needs */
    char *out;
    bp_act act;
    int64_t images; /* per chunk */
    int64_t rows;   /* output rows per chunk; s.oh: whole images */
    int64_t size;   /* bytes of an element */
    char *scratch;
    size_t scratch_bytes;
} job;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static double work_per_image(const bp_conv_shape *s)
{
    return (double)s->oh * (double)s->ow * (double)s->oc * (double)s->kh * (double)s->kw * (double)s->c + 1;
}

/* Whole images: at least a grain of work, and not more chunks than many threads can use, since each copies the weights into the order it
 * wants. */
static int64_t images_per_chunk(const bp_conv_shape *s)
{
    double work = work_per_image(s);
    int64_t grain = work >= BP_WORK_GRAIN ? 1 : (int64_t)(BP_WORK_GRAIN / work), even = (s->n + MOST_CHUNKS - 1) / MOST_CHUNKS;
    return grain > even ? grain : even;
}

/* Scratch for every worker and `extra` bytes after it. */
static bp_status take_scratch(bp_ctx *ctx, job *j, size_t extra)
{
    j->scratch_bytes = bp__lines(j->kernels->conv2d_scratch(&j->s));
    j->scratch = (char *)bp__scratch(ctx, j->scratch_bytes * (size_t)bp_threads(ctx) + extra + 64);
    return j->scratch ? BP_OK : BP_ENOMEM;
}

static job new_job(bp_call *call, const bp_conv_shape *s)
{
    bp_dtype dtype = call->out[0]->m.dtype;
    return (job){ .kernels = bp_kernels_of(call->ctx, dtype),
                  .s = *s,
                  .rows = s->oh,
                  .images = images_per_chunk(s),
                  .size = (int64_t)bp_dtype_size(dtype),
                  .out = bp_data(call->out[0]) };
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

/* Output rows i0..i1-1 of image k are a smaller convolution: over the input rows from their first tap on. */
static void forward_rows(const job *j, int64_t k, int64_t i0, int64_t i1, void *scratch)
{
    bp_conv_shape s = j->s;
    int64_t first = i0 * s.sh - s.ph, skip = first > 0 ? smaller(first, s.h) : 0;
    s.n = 1;
    s.oh = i1 - i0;
    s.h -= skip;
    s.ph = skip - first;
    j->kernels->conv2d_forward(&s, j->x + (k * j->s.h + skip) * s.w * s.c * j->size, j->w, j->bias, j->act,
                               j->out + (k * j->s.oh + i0) * s.ow * s.oc * j->size, 0, 1, scratch);
}

static void forward_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    void *scratch = j->scratch + (size_t)worker * j->scratch_bytes;
    if (j->rows == j->s.oh) {
        int64_t first = chunk * j->images;
        j->kernels->conv2d_forward(&j->s, j->x, j->w, j->bias, j->act, j->out, first, smaller(first + j->images, j->s.n), scratch);
    } else {
        int64_t per_image = bp_chunks(j->s.oh, j->rows), i0 = chunk % per_image * j->rows;
        forward_rows(j, chunk / per_image, i0, smaller(i0 + j->rows, j->s.oh), scratch);
    }
}

static bp_status conv2d_run(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(conv2d_geometry(call, &s));
    if (bp_count(call->out[0]) == 0) return BP_OK;
    job j = new_job(call, &s);
    j.x = bp_data(call->in[0]);
    j.w = bp_data(call->in[1]);
    j.bias = call->in[2] ? bp_data(call->in[2]) : NULL;
    j.act = (bp_act)call->args[LAST].as.i;
    BP_TRY(take_scratch(call->ctx, &j, 0));
    int64_t chunks = bp_chunks(s.n, j.images);
    double work = work_per_image(&s);
    if (s.n < 8 && work >= 4.0 * BP_WORK_GRAIN) { /* few large images: cut each by rows */
        int64_t pieces = smaller(s.oh, (int64_t)(work / (2.0 * BP_WORK_GRAIN)));
        j.rows = (s.oh + pieces - 1) / pieces;
        chunks = s.n * bp_chunks(s.oh, j.rows);
    }
    bp_parallel(call->ctx, chunks, forward_chunk, &j);
    return BP_OK;
}

/* ---- gradient with respect to the input ---- */

static bp_status grad_input_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][oh][ow][out]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[kh][kw][in][out]"));
    const int64_t *dy = call->in[0]->m.shape, *w = call->in[1]->m.shape, *size = call->args[LAST].as.list;
    const int64_t x[4] = { dy[0], size[0], size[1], w[2] };
    BP_TRY(geometry(call, x, w, s));
    return bp_need_shape4(call, 0, s->n, s->oh, s->ow, s->oc);
}

static bp_status grad_input_infer(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(grad_input_geometry(call, &s));
    bp_out4(call, 0, call->in[0]->m.dtype, s.n, s.h, s.w, s.c);
    return BP_OK;
}

static void grad_input_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    int64_t first = chunk * j->images;
    j->kernels->conv2d_grad_input(&j->s, j->dy, j->w, j->out, first, smaller(first + j->images, j->s.n),
                                  j->scratch + (size_t)worker * j->scratch_bytes);
}

static bp_status grad_input_run(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(grad_input_geometry(call, &s));
    if (bp_count(call->out[0]) == 0) return BP_OK;
    job j = new_job(call, &s);
    j.dy = bp_data(call->in[0]);
    j.w = bp_data(call->in[1]);
    BP_TRY(take_scratch(call->ctx, &j, 0));
    bp_parallel(call->ctx, bp_chunks(s.n, j.images), grad_input_chunk, &j);
    return BP_OK;
}

/* ---- gradient with respect to the weights: a sum over all pixels of all images, taken in parts of whole images ---- */

static bp_status grad_weight_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][h][w][in]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[n][oh][ow][out]"));
    const int64_t *x = call->in[0]->m.shape, *dy = call->in[1]->m.shape, *size = call->args[LAST].as.list;
    const int64_t w[4] = { size[0], size[1], x[3], dy[3] };
    BP_TRY(geometry(call, x, w, s));
    return bp_need_shape4(call, 1, s->n, s->oh, s->ow, s->oc);
}

static bp_status grad_weight_infer(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(grad_weight_geometry(call, &s));
    bp_out4(call, 0, call->in[0]->m.dtype, s.kh, s.kw, s.c, s.oc);
    return BP_OK;
}

static void grad_weight_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    int64_t first = chunk * j->images, n = j->s.kh * j->s.kw * j->s.c * j->s.oc;
    char *part = j->out + chunk * n * j->size;
    memset(part, 0, (size_t)(n * j->size));
    j->kernels->conv2d_grad_weight(&j->s, j->x, j->dy, part, first, smaller(first + j->images, j->s.n),
                                   j->scratch + (size_t)worker * j->scratch_bytes);
}

static bp_status grad_weight_run(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(grad_weight_geometry(call, &s));
    job j = new_job(call, &s);
    j.x = bp_data(call->in[0]);
    j.dy = bp_data(call->in[1]);
    const int64_t n = bp_count(call->out[0]), bytes = n * j.size;
    int64_t most = smaller(MOST_PARTS, 1 + MOST_PART_BYTES / bytes);
    int64_t parts = smaller(bp_chunks(s.n, j.images), most);
    if (parts < 1) parts = 1; /* no images: the sum of nothing */
    j.images = (s.n + parts - 1) / parts;
    if (j.images > 0) parts = bp_chunks(s.n, j.images);
    BP_TRY(take_scratch(call->ctx, &j, parts > 1 ? (size_t)(parts * bytes) : 0));
    void *dw = j.out;
    if (parts > 1) j.out = j.scratch + j.scratch_bytes * (size_t)bp_threads(call->ctx);
    bp_parallel(call->ctx, parts, grad_weight_chunk, &j);
    if (parts > 1) bp__sum_parts(call->ctx, call->out[0]->m.dtype, parts, n, j.out, dw);
    return BP_OK;
}

/* ---- gradients ---- */

/* The options of the call with `size` in the last place; without one, those of a plain conv2d. */
static void options_with(const bp_grad *g, const int64_t *size, bp_arg args[LAST + 1])
{
    for (int i = 0; i < LAST; i++) args[i] = g->args[i];
    args[LAST] = size ? bp_list(2, size) : bp_default();
}

static bp_tensor *forward(bp_grad *g, bp_tensor *x, bp_tensor *w)
{
    bp_arg args[LAST + 1];
    options_with(g, NULL, args);
    return bp_g(g, &bp__op_conv2d, LAST + 1, args, 3, x, w, (bp_tensor *)NULL);
}

/* like_x: a tensor with the height and width of the input. */
static bp_tensor *grad_input(bp_grad *g, bp_tensor *dy, bp_tensor *w, const bp_tensor *like_x)
{
    bp_arg args[LAST + 1];
    options_with(g, like_x->m.shape + 1, args);
    return bp_g(g, &bp__op_conv2d_grad_input, LAST + 1, args, 2, dy, w);
}

static bp_tensor *grad_weight(bp_grad *g, bp_tensor *x, bp_tensor *dy, const bp_tensor *like_w)
{
    bp_arg args[LAST + 1];
    options_with(g, like_w->m.shape, args);
    return bp_g(g, &bp__op_conv2d_grad_weight, LAST + 1, args, 2, x, dy);
}

static void conv2d_gradient(bp_grad *g)
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

/* dx = grad_input(dy, w): with the gradient e of dx, d(dy) = conv2d(e, w) and dw = grad_weight(e, dy). */
static void grad_input_gradient(bp_grad *g)
{
    bp_tensor *e = g->dout[0];
    if (g->want[0]) bp_grad_set(g, 0, forward(g, e, g->in[1]));
    if (g->want[1]) bp_grad_set(g, 1, grad_weight(g, e, g->in[0], g->in[1]));
}

/* dw = grad_weight(x, dy): with the gradient e of dw, dx = grad_input(dy, e) and d(dy) = conv2d(x, e). */
static void grad_weight_gradient(bp_grad *g)
{
    bp_tensor *e = g->dout[0];
    if (g->want[0]) bp_grad_set(g, 0, grad_input(g, g->in[1], e, g->in[0]));
    if (g->want[1]) bp_grad_set(g, 1, forward(g, g->in[0], e));
}

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
        "columns alike. Where \"same\" has an odd number of zeros to add, the odd one comes after (TensorFlow's rule).",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][in] images, channels last" },
            { "w", 0, "[kh][kw][in][out] weights" },
            { "b", BP_IN_OPTIONAL, "[out] bias" },
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
    .outputs = "dx: [n][h][w][in]",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 3,
    .infer = grad_input_infer,
    .run = grad_input_run,
    .gradient = grad_input_gradient,
    .cases =
        (const bp_case[]){
            { "2x3x4x4 3x3x3x4", "size=5,6", 0, 0, 0 },
            { "1x1x1x1 1x1x1x1", "size=1,1", 0, 0, 0 },
            { "2x4x2x3' 3x3x2x3", "size=7,6 stride=2,3 padding=same", 0, 0, 0 },
            { "1x3x1x2 3x3x2x2", "size=9,8 dilation=2,3 stride=2", 0, 0, 0 },
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
        (const bp_option[]){
            STRIDE_OPTION,
            BP_PADDING_OPTION,
            DILATION_OPTION,
            SIZE_OPTION("height and width of the kernel, which x and dy do not tell"),
            { 0 },
        },
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
            { 0 },
        },
};
