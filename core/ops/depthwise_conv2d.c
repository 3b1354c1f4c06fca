/* depthwise_conv2d.c - two-dimensional convolution of every channel by itself, and its two gradients: see conv_sides.h. */
#include "../base/memory.h"
#include "../base/pool.h"
#include "../base/whole.h"
#include "conv_sides.h"
#include "fused_activation.h"
#include "fusing.h"
#include "product.h"
#include "relu_mask.h"

enum { MOST_PARTS = 16 };

static bp_status forward_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][h][w][channels]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[kh][kw][channels][multiplier]"));
    return bp__conv_geometry(call, call->in[0]->m.shape, call->in[1]->m.shape, true, s);
}

static bp_status grad_input_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][oh][ow][channels * multiplier]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[kh][kw][channels][multiplier]"));
    const int64_t *dy = call->in[0]->m.shape, *w = call->in[1]->m.shape, *size = call->args[BP_CONV_OWN].as.list;
    const int64_t x[4] = { dy[0], size[0], size[1], w[2] };
    BP_TRY(bp__conv_geometry(call, x, w, true, s));
    return bp_need_shape4(call, 0, s->n, s->oh, s->ow, s->oc);
}

static bp_status grad_weight_geometry(bp_call *call, bp_conv_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][h][w][channels]"));
    BP_TRY(bp_need_ndim(call, 1, 4, "[n][oh][ow][channels * multiplier]"));
    const int64_t *x = call->in[0]->m.shape, *dy = call->in[1]->m.shape, *size = call->args[BP_CONV_OWN].as.list;
    const int64_t w[4] = { size[0], size[1], x[3], x[3] > 0 ? dy[3] / x[3] : 0 };
    BP_TRY(bp__conv_geometry(call, x, w, true, s));
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
    if (call->n_in > 2 && call->in[2]) BP_TRY(bp_need_shape4(call, 2, s.n, s.h, s.w, s.c));
    bp_out4(call, 0, call->in[0]->m.dtype, s.n, s.h, s.w, s.c);
    return BP_OK;
}

static bp_status grad_weight_infer(bp_call *call)
{
    bp_conv_shape s;
    BP_TRY(grad_weight_geometry(call, &s));
    bp_out4(call, 0, call->in[0]->m.dtype, s.kh, s.kw, s.c, s.oc / s.c);
    if (call->n_out > 1) bp_out(call, 1, call->in[0]->m.dtype, 1, &s.oc);
    return BP_OK;
}

/* ---- running ---- */

typedef struct job {
    const bp_kernels *kernels;
    bp_conv_shape s;
    const char *x, *w, *dy, *bias; /* those that the direction needs */
    char *out;
    bp_act act;
    int64_t rows, all_rows;   /* per chunk; of all */
    int64_t size;             /* bytes of an element */
    const bp_relu_mask *mask; /* undone on dx, or NULL */
    char *scratch;
    size_t scratch_bytes, masked_bytes; /* per worker: all, and rows of dx that are to be masked, at its beginning */
} job;

/* Multiply-adds of n images, or what moving their pixels is worth in those. */
static double work_of(const bp_conv_shape *s, int64_t n)
{
    const double pixels = (double)(s->h * s->w * s->c + s->oh * s->ow * s->oc) * (BP_WORK_GRAIN / BP_MEMORY_GRAIN);
    const double sums = (double)s->oh * (double)s->ow * (double)s->oc * (double)s->kh * (double)s->kw;
    return (double)n * (sums > pixels ? sums : pixels) + 1;
}

static bp_status new_job(bp_call *call, const bp_conv_shape *s, size_t masked, size_t extra, job *j)
{
    const bp_dtype dtype = call->out[0]->m.dtype;
    *j = (job){ .kernels = bp_kernels_of(call->ctx, dtype), .s = *s, .size = (int64_t)bp_dtype_size(dtype), .out = bp_data(call->out[0]) };
    j->masked_bytes = bp__lines(masked);
    j->scratch_bytes = j->masked_bytes + bp__lines(j->kernels->depthwise_scratch(s));
    j->scratch = (char *)bp__scratch(call->ctx, j->scratch_bytes * (size_t)bp_threads(call->ctx) + extra + 64);
    return j->scratch ? BP_OK : BP_ENOMEM;
}

static int64_t rows_each(const bp_conv_shape *s, int64_t per_image)
{
    return (int64_t)((double)per_image * BP_WORK_GRAIN / work_of(s, 1)) + 1;
}

static void cut_rows(job *j, int64_t per_image)
{
    j->all_rows = j->s.n * per_image;
    j->rows = rows_each(&j->s, per_image);
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
    BP_TRY(new_job(call, &s, 0, 0, &j));
    j.x = bp_data(call->in[0]);
    j.w = bp_data(call->in[1]);
    j.bias = call->in[2] ? bp_data(call->in[2]) : NULL;
    j.act = (bp_act)call->args[BP_CONV_OWN].as.i;
    cut_rows(&j, s.oh);
    bp_parallel(call->ctx, bp_chunks(j.all_rows, j.rows), forward_chunk, &j);
    return BP_OK;
}

static void grad_input_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const int64_t first = chunk * j->rows, last = smaller(first + j->rows, j->all_rows), row = j->s.w * j->s.c;
    char *const scratch = j->scratch + (size_t)worker * j->scratch_bytes;
    char *const to = j->mask ? scratch : j->out + first * row * j->size;
    j->kernels->depthwise_grad_input(&j->s, j->dy, j->w, to, first, last, scratch + j->masked_bytes);
    if (j->mask) bp__undo_relu(j->mask, to, first * row, (last - first) * row, j->out);
}

static bp_status grad_input_run(bp_call *call)
{
    bp_conv_shape s;
    job j;
    BP_TRY(grad_input_geometry(call, &s));
    if (bp_count(call->out[0]) == 0) return BP_OK;
    const bool masked = call->n_in > 2 && call->in[2];
    const int64_t rows = smaller(rows_each(&s, s.h), s.n * s.h);
    BP_TRY(new_job(call, &s, masked ? (size_t)(rows * s.w * s.c) * bp_dtype_size(call->out[0]->m.dtype) : 0, 0, &j));
    j.dy = bp_data(call->in[0]);
    j.w = bp_data(call->in[1]);
    bp_relu_mask mask;
    if (masked) {
        mask = bp__relu_mask(call, call->in[2], call->args[BP_CONV_MORE].as.f);
        j.mask = &mask;
    }
    cut_rows(&j, s.h);
    bp_parallel(call->ctx, bp_chunks(j.all_rows, j.rows), grad_input_chunk, &j);
    return BP_OK;
}

bool bp__depthwise_mask_pays(bp_call *call)
{
    bp_conv_shape s;
    if (grad_input_geometry(call, &s) != BP_OK || call->in[0]->m.dtype != BP_F32) return false;
    return (double)(s.n * s.h) * (double)(s.w * s.c) >= 4.0 * BP_MEMORY_GRAIN;
}

/* A sum over all pixels of all images, taken in parts of some rows. */
static void grad_weight_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const int64_t n = j->s.kh * j->s.kw * j->s.oc;
    j->kernels->depthwise_grad_weight(&j->s, j->x, j->dy, j->out + chunk * n * j->size, chunk * j->rows,
                                      smaller((chunk + 1) * j->rows, j->all_rows), j->scratch + (size_t)worker * j->scratch_bytes);
}

static bp_status grad_weight_run(bp_call *call)
{
    bp_conv_shape s;
    job j;
    BP_TRY(grad_weight_geometry(call, &s));
    const int64_t n = bp_count(call->out[0]), bytes = n * (int64_t)bp_dtype_size(call->out[0]->m.dtype), all = s.n * s.oh;
    const int64_t most = smaller(MOST_PARTS, (int64_t)(work_of(&s, s.n) / BP_WORK_GRAIN) + 1), rows = (all + most - 1) / most;
    const int64_t parts = all > 0 ? bp_chunks(all, rows) : 1; /* no rows: the sum of nothing */
    BP_TRY(new_job(call, &s, 0, parts > 1 ? (size_t)(parts * bytes) : 0, &j));
    j.x = bp_data(call->in[0]);
    j.dy = bp_data(call->in[1]);
    j.rows = rows;
    j.all_rows = all;
    void *dw = j.out;
    if (parts > 1) j.out = j.scratch + j.scratch_bytes * (size_t)bp_threads(call->ctx);
    bp_row_sum sum;
    if (call->n_out > 1) BP_TRY(bp__row_sum_start(call->ctx, call->out[1]->m.dtype, all * s.ow, s.oc, j.dy, bp_data(call->out[1]), &sum));
    bp__parallel_summing(call->ctx, call->n_out > 1 ? &sum : NULL, parts, grad_weight_chunk, &j);
    if (parts > 1) bp__sum_parts(call->ctx, call->out[0]->m.dtype, parts, n, j.out, dw);
    return BP_OK;
}

/* ---- gradients ---- */

static const bp_conv_sides sides = { &bp__op_depthwise_conv2d, &bp__op_depthwise_conv2d_grad_input, &bp__op_depthwise_conv2d_grad_weight,
                                     &bp__op_depthwise_conv2d_grad_weight_bias, BP_CONV_MORE };
static void forward_gradient(bp_grad *g) { bp__conv_forward_gradient(g, &sides); }
static void grad_input_gradient(bp_grad *g) { bp__conv_grad_input_gradient(g, &sides); }
static void grad_weight_gradient(bp_grad *g) { bp__conv_grad_weight_gradient(g, &sides); }

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
        (const bp_option[]){ BP_CONV_OPTIONS(BP_FUSED_ACTIVATION_OPTION), { 0 } },
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
            BP_RELU_MASK_INPUT("[n][h][w][channels]"),
            { 0 },
        },
    .options =
        (const bp_option[]){
            BP_CONV_OPTIONS(BP_SIZE_OPTION("height and width of the images, which dy does not tell")),
            BP_RELU_MASK_OPTION,
            { 0 },
        },
    .n_out = 1,
    .outputs = "dx: [n][h][w][channels]",
    .flags = BP_OP_INTERNAL | BP_OP_KINKED,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 7,
    .over = { 1 << 2 },
    .infer = grad_input_infer,
    .run = grad_input_run,
    .gradient = grad_input_gradient,
    .cases =
        (const bp_case[]){
            { "2x3x4x3 3x3x3x1", "size=5,6", 0, 0, 0 },
            { "1x1x1x1 1x1x1x1", "size=1,1", 0, 0, 0 },
            { "2x4x2x4' 3x3x2x2", "size=7,6 stride=2,3 padding=same", 0, 0, 0 },
            { "1x3x1x2 3x3x2x1", "size=9,8 dilation=2,3 stride=2", 0, 0, 0 },
            { "2x3x4x3 3x3x3x1 2x5x6x3", "size=5,6", 0, 0, 0 },
            { "2x4x2x4' 3x3x2x2 2x7x6x2'", "size=7,6 stride=2,3 padding=same p=0.25", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_depthwise_conv2d_grad_weight = {
    .name = "depthwise_conv2d_grad_weight",
    .group = "layers",
    .summary = "gradient of depthwise_conv2d with respect to its weights",
    .detail = "dw[a, b, c, q] = sum over n, i, j of x[n, i*stride - before + a*dilation, j*stride - before + b*dilation, c] * dy[n, i, j, "
              "c*m + q]\n"
              "The rows of all images are summed in a number of parts that depends on the shapes alone.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][channels] images" },
            { "dy", 0, "[n][oh][ow][channels * multiplier] gradient of the result" },
            { 0 },
        },
    .options =
        (const bp_option[]){ BP_CONV_OPTIONS(BP_SIZE_OPTION("height and width of the kernel, which x and dy do not tell")), { 0 } },
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

const bp_op bp__op_depthwise_conv2d_grad_weight_bias = {
    .name = "depthwise_conv2d_grad_weight_bias",
    .group = "layers",
    .summary = "gradients of depthwise_conv2d with respect to its weights and its bias",
    .detail = "dw as depthwise_conv2d_grad_weight gives it, db[o] = sum over n, i, j of dy[n, i, j, o] as sum does, while dy is in a "
              "cache.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][channels] images" },
            { "dy", 0, "[n][oh][ow][channels * multiplier] gradient of the result" },
            { 0 },
        },
    .options =
        (const bp_option[]){ BP_CONV_OPTIONS(BP_SIZE_OPTION("height and width of the kernel, which x and dy do not tell")), { 0 } },
    .n_out = 2,
    .outputs = "dw: [kh][kw][channels][multiplier]; db: [channels * multiplier]",
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
