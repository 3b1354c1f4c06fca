/* test_depthwise.c - depthwise_conv2d and its gradients against plain sums, in both dtypes, for any number of threads. */
#include "layers.h"

/* Calls visit(x index, w index, y index) for every product in the definition. */
#define EACH(s, m, visit)                                                                                               \
    for (int64_t n = 0; n < (s).n; n++)                                                                                 \
        for (int64_t i = 0; i < (s).oh; i++)                                                                            \
            for (int64_t j = 0; j < (s).ow; j++)                                                                        \
                for (int64_t a = 0; a < (s).kh; a++)                                                                    \
                    for (int64_t b = 0; b < (s).kw; b++) {                                                              \
                        const int64_t h = i * (s).sh - (s).ph + a * (s).dh, v = j * (s).sw - (s).pw + b * (s).dw;       \
                        for (int64_t o = 0; h >= 0 && h < (s).h && v >= 0 && v < (s).w && o < (s).c * (m); o++) {       \
                            const int64_t xi = ((n * (s).h + h) * (s).w + v) * (s).c + o / (m);                         \
                            const int64_t wi = (a * (s).kw + b) * (s).c * (m) + o, yi = ((n * (s).oh + i) * (s).ow + j) * (s).c * (m) + o; \
                            visit;                                                                                      \
                        }                                                                                               \
                    }

static int64_t windows(int64_t size, int64_t span, int64_t stride, bool same_padding, int64_t *before)
{
    int64_t n = same_padding ? (size + stride - 1) / stride : (size - span) / stride + 1, total = (n - 1) * stride + span - size;
    *before = same_padding && total > 0 ? total / 2 : 0;
    return n;
}

/* z: n h w c  kh kw m  sh sw  dh dw  same */
static void try(bp_ctx *ctx, const int64_t z[12], bool wild)
{
    const int64_t m = z[6];
    bp_conv_shape s = {
        .n = z[0], .h = z[1], .w = z[2], .c = z[3], .kh = z[4], .kw = z[5], .sh = z[7], .sw = z[8], .dh = z[9], .dw = z[10]
    };
    s.oh = windows(s.h, (s.kh - 1) * s.dh + 1, s.sh, z[11] != 0, &s.ph);
    s.ow = windows(s.w, (s.kw - 1) * s.dw + 1, s.sw, z[11] != 0, &s.pw);
    s.oc = s.c * m;
    const int64_t size = s.n * s.oh * s.ow * s.oc;
    plain x = RANDOM(s.n, s.h, s.w, s.c), w = RANDOM(s.kh, s.kw, s.c, m), bias = RANDOM(s.oc), dy = RANDOM(s.n, s.oh, s.ow, s.oc);
    if (wild) { /* one of a kind in each operand: what meets it becomes NaN or infinite, and nothing else */
        if (size > 0) ((double *)(uintptr_t)x.v)[s.n * s.h * s.w * s.c / 2] = NAN;
        if (size > 0) ((double *)(uintptr_t)dy.v)[size / 3] = INFINITY;
        ((double *)(uintptr_t)w.v)[s.kh * s.kw * s.oc / 2] = INFINITY;
    }
    double *dx = zeros(s.n * s.h * s.w * s.c), *dw = zeros(s.kh * s.kw * s.oc);
    const bp_arg stride = bp_list(2, &z[7]), dilation = bp_list(2, &z[9]), padding = bp_int(z[11]);
    for (int act = 0; act < 2; act++) {
        double *y = zeros(size);
        for (int64_t i = 0; i < size; i++) y[i] = act ? bias.v[i % s.oc] : 0;
        EACH(s, m, y[yi] += x.v[xi] * w.v[wi])
        for (int64_t i = 0; i < size; i++) y[i] = act && y[i] < 0 ? 0 : y[i];
        trial t = { .op = "depthwise_conv2d",
                    .n_in = 3,
                    .in = { x, w },
                    .n_args = 4,
                    .args = { stride, padding, dilation, bp_int(act) },
                    .out = { y } };
        if (act) t.in[2] = bias;
        judge(ctx, &t);
    }
    EACH(s, m, dx[xi] += dy.v[yi] * w.v[wi])
    trial t = { .op = "depthwise_conv2d_grad_input",
                .n_in = 2,
                .in = { dy, w },
                .n_args = 4,
                .args = { stride, padding, dilation, bp_list(2, &z[1]) },
                .out = { dx } };
    judge(ctx, &t);
    EACH(s, m, dw[wi] += x.v[xi] * dy.v[yi])
    t = (trial){ .op = "depthwise_conv2d_grad_weight",
                 .n_in = 2,
                 .in = { x, dy },
                 .n_args = 4,
                 .args = { stride, padding, dilation, bp_list(2, &z[4]) },
                 .out = { dw } };
    judge(ctx, &t);
    free_numbers();
}

static int64_t pick(int64_t low, int64_t high) { return low + (int64_t)((number() + 1) / 2 * (double)(high - low + 1)); }

/* Any sizes whose window fits; channels around those of a vector, rows around those of a block. */
static void try_anything(bp_ctx *ctx, bool wild)
{
    static const int64_t channels[] = { 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 33, 48 };
    const int64_t c = channels[pick(0, 12)], m = pick(0, 2) ? 1 : pick(1, 20), same = pick(0, 1);
    int64_t z[12] = { pick(0, 3), pick(1, 12), pick(1, 20), c,          pick(1, 5), pick(1, 7),
                      m,          pick(1, 3),  pick(1, 4),  pick(1, 2), pick(1, 3), same };
    if (pick(0, 1)) z[5] = 3, z[8] = z[10] = 1;
    if (!same) z[1] += (z[4] - 1) * z[9], z[2] += (z[5] - 1) * z[10];
    try(ctx, z, wild);
}

static void test(bp_ctx *ctx)
{
    static const int64_t cases[][12] = {
        { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0 },    { 2, 5, 6, 3, 3, 3, 2, 1, 1, 1, 1, 0 },    { 3, 9, 7, 2, 3, 2, 1, 2, 3, 1, 1, 1 },
        { 2, 11, 12, 19, 3, 3, 1, 1, 2, 2, 3, 0 }, { 1, 3, 3, 20, 5, 5, 1, 1, 1, 2, 1, 1 },   { 40, 12, 12, 32, 3, 3, 1, 1, 1, 1, 1, 0 },
        { 1, 64, 60, 40, 3, 3, 1, 1, 1, 1, 1, 1 }, { 2, 61, 50, 17, 5, 5, 1, 2, 1, 1, 2, 1 }, { 70, 28, 28, 1, 3, 3, 8, 1, 1, 1, 1, 0 },
        { 0, 5, 6, 3, 3, 3, 4, 1, 1, 1, 1, 0 },    { 5, 14, 14, 64, 3, 3, 1, 2, 2, 1, 1, 1 }, { 5, 4, 4, 40, 1, 1, 3, 3, 3, 1, 1, 0 },
        { 2, 7, 7, 33, 3, 3, 1, 1, 1, 1, 1, 1 },   { 2, 1, 100, 24, 1, 9, 1, 1, 1, 1, 2, 1 }, { 3, 2, 2, 16, 4, 4, 1, 1, 1, 1, 1, 1 },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) try(ctx, cases[k], false);
    for (int k = 0; k < 300; k++) try_anything(ctx, k % 4 == 0);
    trial t = { .op = "depthwise_conv2d", .n_in = 2, .in = { RANDOM(2, 8, 8, 3), RANDOM(3, 3, 4, 1) } };
    refuse(ctx, &t, "depthwise_conv2d|[2x8x8x3]|[3x3x4x1]|3 channels|take 4|multiplier");
    t = (trial){ .op = "depthwise_conv2d", .n_in = 2, .in = { RANDOM(2, 4, 4, 3), RANDOM(5, 5, 3, 1) } };
    refuse(ctx, &t, "5x5|[2x4x4x3]|same");
    t = (trial){ .op = "depthwise_conv2d", .n_in = 3, .in = { RANDOM(2, 4, 4, 3), RANDOM(3, 3, 3, 2), RANDOM(3) } };
    refuse(ctx, &t, "'b'|[3]|[6]");
    t = (trial){ .op = "depthwise_conv2d_grad_input", .n_in = 2, .in = { RANDOM(2, 4, 4, 2), RANDOM(3, 3, 2, 1) }, .n_args = 4 };
    t.args[3] = list(SIZES(9, 9));
    refuse(ctx, &t, "'dy'|[2x4x4x2]|[2x7x7x2]");
    free_numbers();
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    test(ctx);
    close_counting(ctx, &c);
    return report();
}
