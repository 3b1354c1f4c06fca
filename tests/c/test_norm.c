/* test_norm.c - layer, RMS and group normalisation against plain loops in f64, in every build of the kernels. */
#include "layers.h"

static const double eps = 1e-3;

/* Statistics, y and gradients of one set of `count` elements that lie at x[at(i)], with scale and shift at index channel(i). */
typedef struct one {
    const double *x, *dy, *scale, *shift;
    double *y, *dx, *dscale, *dshift;
} one;

static void normalise(const one *o, bool center, int64_t count, const int64_t *at, const int64_t *channel, double *mean, double *inv)
{
    double m = 0, squares = 0, sum = 0, dot = 0;
    for (int64_t i = 0; center && i < count; i++) m += o->x[at[i]] / (double)count;
    for (int64_t i = 0; i < count; i++) squares += pow(o->x[at[i]] - m, 2) / (double)count;
    *mean = m;
    *inv = 1 / sqrt(squares + eps);
    for (int64_t i = 0; i < count; i++) {
        const double n = (o->x[at[i]] - m) * *inv, a = o->scale ? o->scale[channel[i]] : 1, g = o->dy[at[i]] * a;
        o->y[at[i]] = n * a + (o->shift ? o->shift[channel[i]] : 0);
        sum += g;
        dot += g * n;
        o->dscale[channel[i]] += o->dy[at[i]] * n;
        o->dshift[channel[i]] += o->dy[at[i]];
    }
    for (int64_t i = 0; i < count; i++) {
        const double n = (o->x[at[i]] - m) * *inv, g = o->dy[at[i]] * (o->scale ? o->scale[channel[i]] : 1);
        o->dx[at[i]] = *inv * (g - (center ? sum / (double)count : 0) - n * dot / (double)count);
    }
}

/* groups 0: rows of c; else c channels in groups over `rows` pixels of each of n samples. */
static void test_shape(bp_ctx *ctx, int64_t n, int64_t rows, int64_t c, int64_t groups, bool center, bool plainly)
{
    const int64_t sets = groups ? n * groups : n * rows, count = n * rows * c / sets;
    plain x = groups ? RANDOM(n, rows, c) : RANDOM(n * rows, c), dy = groups ? RANDOM(n, rows, c) : RANDOM(n * rows, c);
    plain scale = RANDOM(c), shift = RANDOM(c), mean = groups ? RANDOM(n, groups) : RANDOM(n * rows);
    plain inv = mean;
    double *away = (double *)x.v; /* far from zero, where sums of squares would cancel */
    for (int64_t i = 0; center && i < n * rows * c; i++) away[i] += 16;
    const one o = { .x = x.v,
                    .dy = dy.v,
                    .scale = plainly ? NULL : scale.v,
                    .shift = plainly || !center ? NULL : shift.v,
                    .y = zeros(n * rows * c),
                    .dx = zeros(n * rows * c),
                    .dscale = zeros(c),
                    .dshift = zeros(c) };
    double *means = zeros(sets), *invs = zeros(sets);
    int64_t *at = (int64_t *)malloc((size_t)count * sizeof *at), *channel = (int64_t *)malloc((size_t)count * sizeof *channel);
    if (!at || !channel) abort();
    for (int64_t s = 0; s < sets; s++) {
        for (int64_t i = 0; i < count; i++) {
            const int64_t width = groups ? c / groups : c;
            channel[i] = groups ? s % groups * width + i % width : i;
            at[i] = groups ? (s / groups * rows + i / width) * c + channel[i] : s * c + i;
        }
        normalise(&o, center, count, at, channel, &means[s], &invs[s]);
    }
    mean.v = means, inv.v = invs;
    if (plainly) scale.v = shift.v = NULL;
    trial forward = { .op = "layer_norm",
                      .n_in = 3,
                      .in = { x, scale, shift },
                      .n_args = 2,
                      .args = { bp_int(1), bp_float(eps) },
                      .out = { o.y, means, invs },
                      .tolerance = 1e-4 };
    trial back = { .op = "layer_norm_grad",
                   .n_in = 5,
                   .in = { dy, x, scale, mean, inv },
                   .n_args = 2,
                   .args = { bp_int(1), bp_float(eps) },
                   .out = { o.dx, o.dscale, o.dshift },
                   .tolerance = 1e-4 };
    if (groups) {
        forward.op = "group_norm", back.op = "group_norm_grad";
        forward.args[0] = back.args[0] = bp_int(groups);
    } else if (!center) {
        forward.op = "rms_norm", back.op = "rms_norm_grad";
        forward.n_in = 2, back.n_in = 4;
        forward.out[1] = invs, forward.out[2] = NULL;
        back.in[3] = inv, back.out[2] = NULL;
    }
    judge(ctx, &forward);
    judge(ctx, &back);
    free(at);
    free(channel);
    free_numbers();
}

int main(void)
{
    static const int64_t rows[][2] = { { 1, 1 }, { 5, 3 }, { 700, 1 }, { 900, 40 }, { 130, 256 }, { 3, 3000 }, { 2, 20000 } };
    static const int64_t maps[][4] = { { 2, 1, 4, 2 },   { 3, 25, 6, 3 },  { 1, 700, 5, 1 },
                                       { 4, 9, 64, 64 }, { 9, 49, 96, 8 }, { 2, 4000, 16, 4 } };
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    for (int plainly = 0; plainly < 2; plainly++) {
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
            for (int center = 0; center < 2; center++) test_shape(ctx, rows[i][0], 1, rows[i][1], 0, center != 0, plainly != 0);
        for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
            test_shape(ctx, maps[i][0], maps[i][1], maps[i][2], maps[i][3], true, plainly != 0);
    }
    trial t = { .op = "layer_norm", .n_in = 2, .in = { RANDOM(4, 3), RANDOM(4) } };
    refuse(ctx, &t, "'scale'|[4]|[3]");
    t = (trial){ .op = "rms_norm", .n_in = 1, .in = { RANDOM(4) }, .n_args = 1, .args = { bp_int(2) } };
    refuse(ctx, &t, "[4]|2 dimensions");
    t = (trial){ .op = "group_norm", .n_in = 1, .in = { RANDOM(4, 3) }, .n_args = 1, .args = { bp_int(2) } };
    refuse(ctx, &t, "[4x3]|3 channels|2 equal groups");
    t = (trial){ .op = "group_norm", .n_in = 1, .in = { RANDOM(4) }, .n_args = 1, .args = { bp_int(2) } };
    refuse(ctx, &t, "[4]|[batch]...[channels]");
    free_numbers();
    close_counting(ctx, &c);
    return report();
}
