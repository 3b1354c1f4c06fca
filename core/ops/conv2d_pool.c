/* conv2d_pool.c - conv2d with the pooling after it: the convolution's result stays in a cache, see conv_pieces.h. */
#include "conv2d.h"
#include "conv_pieces.h"
#include "fused_activation.h"
#include "fusing.h"
#include "pool2d.h"

/* Options by place: those of conv2d, then those of the pooling. */
enum { POOL = BP_CONV2D_MORE };

static bp_status geometry(bp_call *call, bp_convolution *c, bp_pool_shape *p)
{
    BP_TRY(bp__conv2d_of(call, c));
    const int64_t y[4] = { c->s.n, c->s.oh, c->s.ow, c->s.oc };
    return bp__pool_geometry(call, call->args + POOL, y, p);
}

static bp_status infer(bp_call *call)
{
    bp_convolution c;
    bp_pool_shape p;
    BP_TRY(geometry(call, &c, &p));
    if (call->in[2]) BP_TRY(bp_need_shape(call, 2, 1, &c.s.oc));
    bp_out4(call, 0, call->in[0]->m.dtype, p.n, p.oh, p.ow, p.c);
    if (call->n_out < 2) return BP_OK;
    BP_TRY(bp__pool_check_taps(call, &p));
    bp_out4(call, 1, BP_U8, p.n, p.oh, p.ow, p.c);
    return BP_OK;
}

typedef struct pooling {
    bp_conv_reader reader; /* first */
    const bp_kernels *kernels;
    bp_pool_shape s;
    int64_t size;
    char *out;
    uint8_t *winners; /* NULL: the mean */
} pooling;

static void pool(const bp_conv_reader *r, const void *rows, int64_t height, int64_t first, int64_t images, int64_t w0, int64_t w1)
{
    const pooling *p = (const pooling *)r;
    const int64_t at = (first * p->s.oh + w0) * p->s.ow * p->s.c;
    bp_pool_shape s = p->s;
    s.h = height;
    s.oh = w1 - w0;
    if (p->winners)
        p->kernels->max_pool2d(&s, rows, p->out + at * p->size, p->winners + at, 0, images);
    else
        p->kernels->avg_pool2d(&s, rows, p->out + at * p->size, false, 0, images);
}

static pooling pooling_of(const bp_call *call, const bp_pool_shape *s)
{
    const bp_dtype dtype = call->in[0]->m.dtype;
    return (pooling){ .reader = { .windows = s->oh, .size = s->kh, .stride = s->sh, .before = s->ph, .read = pool },
                      .kernels = bp_kernels_of(call->ctx, dtype),
                      .s = *s,
                      .size = (int64_t)bp_dtype_size(dtype) };
}

bool bp__conv2d_pool_pays(bp_call *call)
{
    bp_convolution c;
    bp_pool_shape s;
    if (geometry(call, &c, &s) != BP_OK) return false;
    const pooling p = pooling_of(call, &s);
    return bp__conv_pieces_pay(p.kernels, &c, BP_CONV_FORWARD, &p.reader);
}

static bp_status run(bp_call *call)
{
    bp_convolution c;
    bp_pool_shape s;
    BP_TRY(geometry(call, &c, &s));
    pooling p = pooling_of(call, &s);
    p.out = (char *)bp_data(call->out[0]);
    p.winners = call->n_out > 1 ? (uint8_t *)bp_data(call->out[1]) : NULL;
    return bp__conv_in_pieces(call->ctx, &c, BP_CONV_FORWARD, &p.reader);
}

/* clang-format off */
static const bp_option options[] = {
    BP_CONV2D_OPTIONS(BP_FUSED_ACTIVATION_OPTION),
    BP_POOL_SIZE_OPTION("pool_"),
    BP_POOL_STRIDE_OPTION("pool_"),
    { .name = "pool_padding", .kind = BP_OPT_CHOICE, .def = BP_PADDING_VALID, .min = 0, .max = 1, .choices = bp_paddings,
      .help = "as padding, for the windows" },
    { 0 },
};
/* clang-format on */

static const bp_input inputs[] = {
    { "x", 0, "[n][h][w][in] images, channels last" },
    { "w", 0, "[kh][kw][in][out] weights" },
    { "b", BP_IN_OPTIONAL, "[out] bias" },
    { 0 },
};

static const bp_case cases[] = {
    { "2x5x6x3 3x3x3x4 4", "", 0, 0, 0 },
    { "1x1x1x1 1x1x1x1 1", "pool_size=1", 0, 0, 0 },
    { "2x9x6x2' 3x2x2x3", "padding=same pool_size=3,2 pool_stride=2,1 pool_padding=same activation=relu", 0, 0, 0 },
    { "1x9x8x2 3x3x2x2 2", "dilation=2,3 stride=2 pool_size=1,2 pool_padding=same", 0, 0, 0 },
    { "1x8x7x2 3x3x2x3 3", "algorithm=winograd padding=same activation=relu", 0, 0, 0 },
    { "0x4x4x2 3x3x2x2 2", "", 0, 0, 0 },
    { 0 },
};

const bp_op bp__op_conv2d_max_pool2d = {
    .name = "conv2d_max_pool2d",
    .group = "layers",
    .summary = "conv2d and max_pool2d in one: what a plan makes of them",
    .detail = "(y, argmax) = max_pool2d(conv2d(x, w, b)), to the bits of the two. What lies between is never stored.",
    .inputs = inputs,
    .options = options,
    .n_out = 2,
    .outputs = "y: [n][oh][ow][out]; argmax: u8 [n][oh][ow][out]",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .infer = infer,
    .run = run,
    .cases = cases,
};

const bp_op bp__op_conv2d_avg_pool2d = {
    .name = "conv2d_avg_pool2d",
    .group = "layers",
    .summary = "conv2d and avg_pool2d in one: what a plan makes of them",
    .detail = "y = avg_pool2d(conv2d(x, w, b)), to the bits of the two. What lies between is never stored.",
    .inputs = inputs,
    .options = options,
    .n_out = 1,
    .outputs = "y: [n][oh][ow][out]",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .infer = infer,
    .run = run,
    .cases = cases,
};
