/* pool2d.c - the greatest or the mean of every window of an image [n][h][w][c].
 *
 * Max pooling stores the tap that won (one byte per result), so its gradient needs no values. Scattering to the winners and picking at the
 * winners are each other's gradient. Average pooling is linear; its gradient and itself likewise. */
#include "pool2d.h"
#include "../base/pool.h"
#include "product.h"

#include <string.h>

/* Options by place; the gradients have the size of the image after them. */
enum { SIZE, STRIDE, PADDING, IMAGE };

#define IMAGE_OPTION                                                                               \
    {                                                                                              \
        .name = "image", .kind = BP_OPT_INTS, .min = 0, .max = 1e9, .length = 2, .required = true, \
        .help = "height and width of the pooled images"                                            \
    }

bp_status bp__pool_geometry(bp_call *call, const bp_arg options[3], const int64_t x[4], bp_pool_shape *s)
{
    const int64_t *size = options[SIZE].as.list, *stride = options[STRIDE].as.list;
    const bp_padding padding = (bp_padding)options[PADDING].as.i;
    char text[200];
    *s = (bp_pool_shape){ .n = x[0],
                          .h = x[1],
                          .w = x[2],
                          .c = x[3],
                          .kh = size[0],
                          .kw = size[1],
                          .sh = stride[0] ? stride[0] : size[0],
                          .sw = stride[1] ? stride[1] : size[1] };
    s->oh = bp_windows(s->h, s->kh, s->sh, 1, padding, &s->ph);
    s->ow = bp_windows(s->w, s->kw, s->sw, 1, padding, &s->pw);
    if (s->oh < 0 || s->ow < 0)
        return bp_op_fail(call, BP_EINVAL,
                          "a window of %lldx%lld does not fit into images %s; use padding=\"same\", a smaller size, or pool less before",
                          (long long)s->kh, (long long)s->kw, bp_shape_text(4, x, text));
    return BP_OK;
}

/* The byte that names the winner has room for 256 taps. */
bp_status bp__pool_check_taps(bp_call *call, const bp_pool_shape *s)
{
    if (s->kh * s->kw <= 256) return BP_OK;
    return bp_op_fail(call, BP_EINVAL,
                      "a window of %lldx%lld has more than 256 elements; pool twice, or take max over the axes for global pooling",
                      (long long)s->kh, (long long)s->kw);
}

static bp_status pooled_geometry(bp_call *call, bp_pool_shape *s)
{
    BP_TRY(bp_need_ndim(call, 0, 4, "[n][h][w][channels]"));
    return bp__pool_geometry(call, call->args, call->in[0]->m.shape, s);
}

/* For the gradients: in[i] has the shape of the result, the image's size is an option. */
static bp_status unpooled_geometry(bp_call *call, int i, bp_pool_shape *s)
{
    BP_TRY(bp_need_ndim(call, i, 4, "[n][oh][ow][channels]"));
    const int64_t *dy = call->in[i]->m.shape, *image = call->args[IMAGE].as.list;
    const int64_t x[4] = { dy[0], image[0], image[1], dy[3] };
    BP_TRY(bp__pool_geometry(call, call->args, x, s));
    return bp_need_shape4(call, i, s->n, s->oh, s->ow, s->c);
}

/* ---- chunks of whole images ---- */

typedef struct job {
    const bp_kernels *kernels;
    bp_pool_shape s;
    int64_t images, size;
    const void *in;
    void *out;
    uint8_t *argmax;
} job;

/* Windows that tile the image row by row make each row of windows an image of its own, so that one image can be cut. */
static bp_pool_shape rows_apart(bp_pool_shape s)
{
    if (s.ph == 0 && s.sh == s.kh && s.h == s.oh * s.kh) s.n *= s.oh, s.h = s.kh, s.oh = 1;
    return s;
}

static void run_job(bp_call *call, const bp_pool_shape *whole, bp_chunk_fn *chunk, uint8_t *argmax)
{
    const bp_pool_shape apart = rows_apart(*whole), *s = &apart;
    bp_dtype dtype = call->out[0]->m.dtype;
    job j = { bp_kernels_of(call->ctx, dtype), *s, 1, (int64_t)bp_dtype_size(dtype), bp_data(call->in[0]), bp_data(call->out[0]), argmax };
    int64_t per_image = s->h * s->w * s->c + s->oh * s->ow * s->c;
    if (bp_count(call->out[0]) == 0) return;
    if (per_image < BP_MEMORY_GRAIN) j.images = BP_MEMORY_GRAIN / (per_image + 1) + 1;
    bp_parallel(call->ctx, bp_chunks(s->n, j.images), chunk, &j);
}

static int64_t end_of(const job *j, int64_t chunk) { return (chunk + 1) * j->images < j->s.n ? (chunk + 1) * j->images : j->s.n; }

static void max_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    j->kernels->max_pool2d(&j->s, j->in, j->out, j->argmax, chunk * j->images, end_of(j, chunk));
}

static void max_grad_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    j->kernels->max_pool2d_grad(&j->s, j->in, j->argmax, j->out, chunk * j->images, end_of(j, chunk));
}

static void avg_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    j->kernels->avg_pool2d(&j->s, j->in, j->out, false, chunk * j->images, end_of(j, chunk));
}

static void avg_grad_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    j->kernels->avg_pool2d_grad(&j->s, j->in, j->out, false, chunk * j->images, end_of(j, chunk));
}

/* y[n][i][j][c] = x at the winning tap: gradients of gradients only, so a plain loop. */
static void take_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    const bp_pool_shape *s = &j->s;
    const int64_t per_row = s->ow * s->c, first = chunk * j->images * s->oh * per_row, last = end_of(j, chunk) * s->oh * per_row;
    for (int64_t at = first; at < last; at++) {
        int64_t c = at % s->c, column = at / s->c % s->ow, row = at / per_row % s->oh, n = at / per_row / s->oh, tap = j->argmax[at];
        int64_t h = row * s->sh - s->ph + tap / s->kw, w = column * s->sw - s->pw + tap % s->kw;
        memcpy((char *)j->out + at * j->size, (const char *)j->in + (((n * s->h + h) * s->w + w) * s->c + c) * j->size, (size_t)j->size);
    }
}

/* ---- infer and run ---- */

static bp_status pool_infer(bp_call *call)
{
    bp_pool_shape s;
    BP_TRY(pooled_geometry(call, &s));
    const int64_t shape[] = { s.n, s.oh, s.ow, s.c };
    bp_out(call, 0, call->in[0]->m.dtype, 4, shape);
    if (call->n_out > 1) {
        BP_TRY(bp__pool_check_taps(call, &s));
        bp_out(call, 1, BP_U8, 4, shape);
    }
    return BP_OK;
}

static bp_status max_run(bp_call *call)
{
    bp_pool_shape s;
    BP_TRY(pooled_geometry(call, &s));
    run_job(call, &s, max_chunk, (uint8_t *)bp_data(call->out[1]));
    return BP_OK;
}

static bp_status avg_run(bp_call *call)
{
    bp_pool_shape s;
    BP_TRY(pooled_geometry(call, &s));
    run_job(call, &s, avg_chunk, NULL);
    return BP_OK;
}

/* The kernels trust the stored winners, so they are checked before: u8, of the result's shape, and each a tap of its window that lies
 * inside the image. A window wholly inside needs one comparison per byte. */
static bp_status check_argmax(bp_call *call, const bp_pool_shape *s)
{
    const bp_tensor *t = call->in[1];
    if (t->m.dtype != BP_U8)
        return bp_op_fail(call, BP_EINVAL, "'argmax' is %s; the second result of max_pool2d, u8, is expected", bp_dtype_name(t->m.dtype));
    return bp_need_shape4(call, 1, s->n, s->oh, s->ow, s->c);
}

static bool winners_inside(const bp_pool_shape *s, int64_t top, int64_t left, const uint8_t *winner)
{
    const int64_t taps = s->kh * s->kw;
    const bool inside = top >= 0 && top + s->kh <= s->h && left >= 0 && left + s->kw <= s->w;
    uint8_t greatest = 0;
    for (int64_t c = 0; c < s->c; c++) greatest = winner[c] > greatest ? winner[c] : greatest;
    if (inside || greatest >= taps) return greatest < taps;
    for (int64_t c = 0; c < s->c; c++) {
        int64_t h = top + winner[c] / s->kw, w = left + winner[c] % s->kw;
        if (h < 0 || h >= s->h || w < 0 || w >= s->w) return false;
    }
    return true;
}

typedef struct judgement {
    const bp_kernels *kernels;
    const bp_pool_shape *s;
    const uint8_t *winners;
    bool wrong; /* set by whoever finds one */
} judgement;

/* Every window lies inside: one comparison per byte. */
static bool all_inside(const bp_pool_shape *s)
{
    return s->ph == 0 && s->pw == 0 && (s->oh - 1) * s->sh + s->kh <= s->h && (s->ow - 1) * s->sw + s->kw <= s->w;
}

static void winners_chunk(void *arg, int64_t n, int worker)
{
    judgement *g = (judgement *)arg;
    const bp_pool_shape *s = g->s;
    const int64_t count = s->oh * s->ow * s->c;
    const uint8_t *winner = g->winners + n * count;
    (void)worker;
    if (all_inside(s)) {
        if (count > 0 && g->kernels->greatest_byte(count, winner) >= s->kh * s->kw) __atomic_store_n(&g->wrong, true, __ATOMIC_RELAXED);
        return;
    }
    for (int64_t i = 0; i < s->oh; i++)
        for (int64_t j = 0; j < s->ow; j++, winner += s->c)
            if (!winners_inside(s, i * s->sh - s->ph, j * s->sw - s->pw, winner)) __atomic_store_n(&g->wrong, true, __ATOMIC_RELAXED);
}

static bp_status check_winners(bp_call *call, const bp_pool_shape *s)
{
    const uint8_t *winner = (const uint8_t *)bp_data(call->in[1]);
    judgement g = { bp_kernels_of(call->ctx, call->in[0]->m.dtype), s, winner, false };
    if (bp_count(call->in[1]) >= BP_MEMORY_GRAIN)
        bp_parallel(call->ctx, s->n, winners_chunk, &g);
    else
        for (int64_t n = 0; n < s->n; n++) winners_chunk(&g, n, 0);
    if (!g.wrong) return BP_OK;
    for (int64_t n = 0; n < s->n; n++) /* again, for the message */
        for (int64_t i = 0; i < s->oh; i++)
            for (int64_t j = 0; j < s->ow; j++, winner += s->c)
                if (!winners_inside(s, i * s->sh - s->ph, j * s->sw - s->pw, winner))
                    return bp_op_fail(call, BP_EINVAL,
                                      "'argmax' names an element outside the window at row %lld, column %lld of image %lld; it must come "
                                      "from max_pool2d with the same options",
                                      (long long)i, (long long)j, (long long)n);
    return BP_OK;
}

static bp_status max_grad_infer(bp_call *call)
{
    bp_pool_shape s;
    BP_TRY(unpooled_geometry(call, 0, &s));
    BP_TRY(bp__pool_check_taps(call, &s));
    BP_TRY(check_argmax(call, &s));
    bp_out4(call, 0, call->in[0]->m.dtype, s.n, s.h, s.w, s.c);
    return BP_OK;
}

static bp_status max_grad_run(bp_call *call)
{
    bp_pool_shape s;
    BP_TRY(unpooled_geometry(call, 0, &s));
    BP_TRY(check_winners(call, &s));
    run_job(call, &s, max_grad_chunk, (uint8_t *)bp_data(call->in[1]));
    return BP_OK;
}

static bp_status take_infer(bp_call *call)
{
    bp_pool_shape s;
    BP_TRY(unpooled_geometry(call, 1, &s));
    BP_TRY(bp__pool_check_taps(call, &s));
    BP_TRY(check_argmax(call, &s));
    BP_TRY(bp_need_shape4(call, 0, s.n, s.h, s.w, s.c));
    bp_out(call, 0, call->in[0]->m.dtype, 4, call->in[1]->m.shape);
    return BP_OK;
}

static bp_status take_run(bp_call *call)
{
    bp_pool_shape s;
    BP_TRY(unpooled_geometry(call, 1, &s));
    BP_TRY(check_winners(call, &s));
    run_job(call, &s, take_chunk, (uint8_t *)bp_data(call->in[1]));
    return BP_OK;
}

static bp_status avg_grad_infer(bp_call *call)
{
    bp_pool_shape s;
    BP_TRY(unpooled_geometry(call, 0, &s));
    bp_out4(call, 0, call->in[0]->m.dtype, s.n, s.h, s.w, s.c);
    return BP_OK;
}

static bp_status avg_grad_run(bp_call *call)
{
    bp_pool_shape s;
    BP_TRY(unpooled_geometry(call, 0, &s));
    run_job(call, &s, avg_grad_chunk, NULL);
    return BP_OK;
}

/* ---- gradients ---- */

/* The options of the call, with the size of the image for those that want it. */
static void options_with(const bp_grad *g, const int64_t *image, bp_arg args[IMAGE + 1])
{
    for (int i = 0; i < IMAGE; i++) args[i] = g->args[i];
    args[IMAGE] = bp_list(2, image);
}

static void max_gradient(bp_grad *g)
{
    bp_arg args[IMAGE + 1];
    options_with(g, g->in[0]->m.shape + 1, args);
    if (g->dout[0]) bp_grad_set(g, 0, bp_g(g, &bp__op_max_pool2d_grad, IMAGE + 1, args, 2, g->dout[0], g->out[1]));
}

static void max_grad_gradient(bp_grad *g)
{
    bp_grad_set(g, 0, bp_g(g, &bp__op_max_pool2d_take, IMAGE + 1, g->args, 2, g->dout[0], g->in[1]));
}

static void take_gradient(bp_grad *g) { bp_grad_set(g, 0, bp_g(g, &bp__op_max_pool2d_grad, IMAGE + 1, g->args, 2, g->dout[0], g->in[1])); }

static void avg_gradient(bp_grad *g)
{
    bp_arg args[IMAGE + 1];
    options_with(g, g->in[0]->m.shape + 1, args);
    bp_grad_set(g, 0, bp_g(g, &bp__op_avg_pool2d_grad, IMAGE + 1, args, 1, g->dout[0]));
}

static void avg_grad_gradient(bp_grad *g) { bp_grad_set(g, 0, bp_g(g, &bp__op_avg_pool2d, IMAGE, g->args, 1, g->dout[0])); }

/* ---- rows ---- */

static const bp_input image_input[] = { { "x", 0, "[n][h][w][c] images, channels last" }, { 0 } };
static const bp_option pool_options[] = { BP_POOL_SIZE_OPTION(""), BP_POOL_STRIDE_OPTION(""), BP_PADDING_OPTION, { 0 } };
static const bp_option unpool_options[] = { BP_POOL_SIZE_OPTION(""), BP_POOL_STRIDE_OPTION(""), BP_PADDING_OPTION, IMAGE_OPTION, { 0 } };

const bp_op bp__op_max_pool2d = {
    .name = "max_pool2d",
    .group = "layers",
    .summary = "the greatest element of every window of an image, channel by channel",
    .detail =
        "y[n, i, j, c] = max over a, b of x[n, i*stride - before + a, j*stride - before + b, c]\n"
        "Positions outside the image never win. Of equal elements the first wins (row by row) and alone receives the gradient; NaN wins. "
        "The second result tells who won: row of the window times its width plus column, counted from 0.",
    .inputs = image_input,
    .options = pool_options,
    .n_out = 2,
    .outputs = "y: [n][oh][ow][c]; argmax: u8 [n][oh][ow][c]",
    .flags = BP_OP_KINKED,
    .promote = BP_PROMOTE_FLOAT,
    .needs_out = 2,
    .infer = pool_infer,
    .run = max_run,
    .gradient = max_gradient,
    .cases =
        (const bp_case[]){
            { "2x4x6x3", "", 0, 0, 0 },
            { "1x1x1x1", "size=1", 0, 0, 0 },
            { "2x5x7x2'", "size=3,2 stride=2", 0, 0, 0 },
            { "1x5x5x2", "size=3 stride=1 padding=same", 0, 0, 0 },
            { "2x5x4x1", "size=2,3 padding=same", 0, 0, 0 },
            { "0x4x4x2", "", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_max_pool2d_grad = {
    .name = "max_pool2d_grad",
    .group = "layers",
    .summary = "gradient of max_pool2d: adds every element of dy to the place that won",
    .inputs =
        (const bp_input[]){
            { "dy", 0, "[n][oh][ow][c] gradient of max_pool2d's result" },
            { "argmax", BP_IN_INDEX, "[n][oh][ow][c] u8, the winners, taps counted from 0" },
            { 0 },
        },
    .options = unpool_options,
    .n_out = 1,
    .outputs = "dx: [n][h][w][c]",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 2,
    .infer = max_grad_infer,
    .run = max_grad_run,
    .gradient = max_grad_gradient,
    .cases =
        (const bp_case[]){
            { "2x2x3x3 u8:2x2x3x3<4", "image=4,6", 0, 0, 0 },
            { "1x1x1x1 u8:1x1x1x1<1", "size=1 image=1,1", 0, 0, 0 },
            { "2x2x3x2' u8:2x2x3x2<6", "size=3,2 stride=2 image=5,7", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_max_pool2d_take = {
    .name = "max_pool2d_take",
    .group = "layers",
    .summary = "picks the elements of x at the places that won a max_pool2d",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[n][h][w][c]" },
            { "argmax", BP_IN_INDEX, "[n][oh][ow][c] u8, the winners, taps counted from 0" },
            { 0 },
        },
    .options = unpool_options,
    .n_out = 1,
    .outputs = "y: [n][oh][ow][c]",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 2,
    .infer = take_infer,
    .run = take_run,
    .gradient = take_gradient,
    .cases =
        (const bp_case[]){
            { "2x4x6x3 u8:2x2x3x3<4", "image=4,6", 0, 0, 0 },
            { "1x1x1x1 u8:1x1x1x1<1", "size=1 image=1,1", 0, 0, 0 },
            { "2x5x7x2' u8:2x2x3x2<6", "size=3,2 stride=2 image=5,7", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_avg_pool2d = {
    .name = "avg_pool2d",
    .group = "layers",
    .summary = "the mean of every window of an image, channel by channel",
    .detail = "y[n, i, j, c] = mean over a, b of x[n, i*stride - before + a, j*stride - before + b, c]\n"
              "Positions outside the image are left out of the mean, as in Keras.",
    .inputs = image_input,
    .options = pool_options,
    .n_out = 1,
    .outputs = "y: [n][oh][ow][c]",
    .promote = BP_PROMOTE_FLOAT,
    .infer = pool_infer,
    .run = avg_run,
    .gradient = avg_gradient,
    .cases =
        (const bp_case[]){
            { "2x4x6x3", "", 0, 0, 0 },
            { "1x1x1x1", "size=1", 0, 0, 0 },
            { "2x5x7x2'", "size=3,2 stride=2", 0, 0, 0 },
            { "1x5x5x2", "size=3 stride=1 padding=same", 0, 0, 0 },
            { "0x4x4x2", "", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_avg_pool2d_grad = {
    .name = "avg_pool2d_grad",
    .group = "layers",
    .summary = "gradient of avg_pool2d: every element of dy shared out among its window",
    .inputs = (const bp_input[]){ { "dy", 0, "[n][oh][ow][c] gradient of avg_pool2d's result" }, { 0 } },
    .options = unpool_options,
    .n_out = 1,
    .outputs = "dx: [n][h][w][c]",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .infer = avg_grad_infer,
    .run = avg_grad_run,
    .gradient = avg_grad_gradient,
    .cases =
        (const bp_case[]){
            { "2x2x3x3", "image=4,6", 0, 0, 0 },
            { "1x1x1x1", "size=1 image=1,1", 0, 0, 0 },
            { "2x2x3x2'", "size=3,2 stride=2 image=5,7", 0, 0, 0 },
            { 0 },
        },
};
