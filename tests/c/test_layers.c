/* test_layers.c - products, convolution, pooling, batch normalisation, losses and images against the loops of their definitions in f64. */
#include "layers.h"
#include "plain.h"

/* ---- matmul and linear ---- */

/* Element (i, j) of matrix number `batch` of p, where p's batch dimensions are broadcast to `batches`. */
static double element(const plain *p, sizes batches, int64_t batch, int64_t i, int64_t j)
{
    int64_t at = 0, step = p->shape[p->ndim - 1] * p->shape[p->ndim - 2];
    for (int d = batches.n - 1; d >= 0; d--) {
        int own = d - (batches.n - (p->ndim - 2));
        if (own >= 0) {
            at += p->shape[own] == 1 ? 0 : batch % batches.at[d] * step;
            step *= p->shape[own];
        }
        batch /= batches.at[d];
    }
    return p->v[at + i * p->shape[p->ndim - 1] + j];
}

/* y[batch][m][n] for operands of at least two dimensions. */
static double *plain_matmul(const plain *a, const plain *b, sizes batches)
{
    int64_t m = a->shape[a->ndim - 2], k = a->shape[a->ndim - 1], n = b->shape[b->ndim - 1], all = product(batches);
    double *y = zeros(all * m * n);
    for (int64_t q = 0; q < all; q++)
        for (int64_t i = 0; i < m; i++)
            for (int64_t p = 0; p < k; p++) {
                const double x = element(a, batches, q, i, p);
                for (int64_t j = 0; j < n; j++) y[(q * m + i) * n + j] += x * element(b, batches, q, p, j);
            }
    return y;
}

static void try_matmul(bp_ctx *ctx, plain a, plain b, sizes batches)
{
    const double *y = plain_matmul(&a, &b, batches);
    for (int flips = 0; flips < 4; flips++) {
        a.flipped = flips & 1;
        b.flipped = flips & 2;
        trial t = { .op = "matmul", .n_in = 2, .in = { a, b }, .out = { y } };
        judge(ctx, &t);
    }
    free_numbers();
}

static void test_matmul(bp_ctx *ctx)
{
    static const int64_t cases[][3] = {
        { 1, 1, 1 }, { 3, 5, 7 },   { 1, 300, 17 },   { 65, 1, 130 },    { 0, 4, 3 },     { 4, 0, 3 },
        { 4, 3, 0 }, { 33, 64, 1 }, { 128, 784, 70 }, { 300, 200, 257 }, { 7, 90000, 9 }, { 17, 20000, 40 }
    };
    for (size_t s = 0; s < sizeof cases / sizeof *cases; s++) {
        const int64_t m = cases[s][0], k = cases[s][1], n = cases[s][2];
        try_matmul(ctx, RANDOM(m, k), RANDOM(k, n), NO_SIZES);
    }
    try_matmul(ctx, RANDOM(50, 7, 9), RANDOM(50, 9, 11), SIZES(50));
    try_matmul(ctx, RANDOM(50, 7, 9), RANDOM(9, 11), SIZES(50));
    try_matmul(ctx, RANDOM(7, 9), RANDOM(50, 9, 11), SIZES(50));
    try_matmul(ctx, RANDOM(4, 1, 7, 9), RANDOM(1, 6, 9, 5), SIZES(4, 6));
    try_matmul(ctx, RANDOM(3, 4, 1, 9), RANDOM(9, 5), SIZES(3, 4));
    try_matmul(ctx, RANDOM(6, 100, 200), RANDOM(6, 200, 100), SIZES(6));
    try_matmul(ctx, RANDOM(0, 3, 2), RANDOM(2, 2), SIZES(0));

    /* vectors */
    plain a = RANDOM(40), b = RANDOM(40), matrix = RANDOM(40, 6);
    double *dot = zeros(1), *row = zeros(6);
    for (int i = 0; i < 40; i++) {
        dot[0] += a.v[i] * b.v[i];
        for (int j = 0; j < 6; j++) row[j] += a.v[i] * matrix.v[i * 6 + j];
    }
    trial t = { .op = "matmul", .n_in = 2, .in = { a, b }, .out = { dot } };
    judge(ctx, &t);
    t = (trial){ .op = "matmul", .n_in = 2, .in = { a, matrix }, .out = { row } };
    judge(ctx, &t);
    free_numbers();
    t = (trial){ .op = "matmul", .n_in = 2, .in = { RANDOM(2, 3), RANDOM(4, 5) } };
    refuse(ctx, &t, "matmul|[2x3]|[4x5]|transpose");
    t = (trial){ .op = "matmul", .n_in = 2, .in = { RANDOM(2, 3, 4), RANDOM(3, 4, 5) } };
    refuse(ctx, &t, "matmul|[2x3x4]|[3x4x5]|equal or 1");
    t = (trial){ .op = "matmul", .n_in = 2, .in = { { .v = zeros(1) }, RANDOM(4) } };
    refuse(ctx, &t, "[]|[4]|mul");
    free_numbers();
}

static void test_linear(bp_ctx *ctx)
{
    static const int64_t cases[][3] = { { 1, 1, 1 },      { 32, 10, 32 },   { 0, 3, 4 },       { 5, 0, 4 },      { 128, 784, 512 },
                                        { 3, 700, 1000 }, { 1, 9000, 128 }, { 1, 2000, 1000 }, { 1, 700, 3000 }, { 1, 30000, 10 },
                                        { 1, 103000, 3 }, { 1, 40000, 7 },  { 4, 2000, 300 } };
    for (size_t s = 0; s < sizeof cases / sizeof *cases; s++)
        for (int act = 0; act < 2; act++)
            for (int biased = 0; biased < 2; biased++) {
                const int64_t m = cases[s][0], k = cases[s][1], n = cases[s][2];
                plain x = RANDOM(m, k), w = RANDOM(k, n), b = RANDOM(n);
                double *y = zeros(m * n);
                plain_gemm(&(bp_gemm){ .m = m,
                                       .n = n,
                                       .k = k,
                                       .a = x.v,
                                       .a_row = k,
                                       .a_col = 1,
                                       .b = w.v,
                                       .b_row = n,
                                       .b_col = 1,
                                       .c = y,
                                       .c_row = n,
                                       .bias = biased ? b.v : NULL,
                                       .act = (bp_act)act });
                trial t = { .op = "linear", .n_in = 3, .in = { x, w }, .n_args = 1, .args = { bp_int(act) }, .out = { y } };
                if (biased) t.in[2] = b;
                judge(ctx, &t);
                x.ndim = 3;
                x.shape[0] = 1, x.shape[1] = m, x.shape[2] = k;
                t.in[0] = x;
                judge(ctx, &t);
                free_numbers();
            }
    trial t = { .op = "linear", .n_in = 2, .in = { RANDOM(4, 3), RANDOM(5, 2) } };
    refuse(ctx, &t, "linear|[4x3]|[5x2]|flatten");
    t = (trial){ .op = "linear", .n_in = 3, .in = { RANDOM(4, 3), RANDOM(3, 2), RANDOM(3) } };
    refuse(ctx, &t, "'b'|[3]|[2]");
    free_numbers();
}

/* ---- conv2d and pooling ---- */

static int64_t windows(int64_t size, int64_t span, int64_t stride, int same_padding, int64_t *before)
{
    int64_t n = same_padding ? (size + stride - 1) / stride : (size - span) / stride + 1, total = (n - 1) * stride + span - size;
    *before = same_padding && total > 0 ? total / 2 : 0;
    return n;
}

static void test_conv2d(bp_ctx *ctx)
{
    /* n h w c  kh kw oc  sh sw  dh dw  same */
    static const int64_t cases[][12] = {
        { 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0 },
        { 2, 5, 6, 3, 3, 3, 4, 1, 1, 1, 1, 0 },
        { 3, 9, 7, 2, 3, 2, 5, 2, 3, 1, 1, 1 },
        { 2, 11, 12, 3, 3, 3, 2, 1, 2, 2, 3, 0 },
        { 1, 3, 3, 2, 5, 5, 3, 1, 1, 2, 1, 1 },
        { 40, 12, 12, 8, 3, 3, 16, 1, 1, 1, 1, 0 },
        { 1, 64, 60, 16, 3, 3, 32, 1, 1, 1, 1, 1 },
        { 2, 61, 50, 16, 5, 5, 16, 2, 1, 1, 2, 1 },
        { 70, 28, 28, 1, 3, 3, 8, 1, 1, 1, 1, 0 },
        { 0, 5, 6, 3, 3, 3, 4, 1, 1, 1, 1, 0 },
        { 2, 0, 6, 3, 3, 3, 4, 1, 1, 1, 1, 1 },
        { 5, 4, 4, 40, 1, 1, 33, 3, 3, 1, 1, 0 },
        /* a piece of one of these images has a longer pass than the whole image */
        { 2, 13, 31, 8, 5, 1, 17, 1, 1, 1, 1, 1 },
        { 2, 13, 31, 8, 5, 3, 17, 1, 1, 1, 1, 1 },
        { 4, 17, 38, 9, 2, 3, 17, 1, 1, 2, 1, 1 },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const int64_t *z = cases[k];
        bp_conv_shape s = {
            .n = z[0], .h = z[1], .w = z[2], .c = z[3], .kh = z[4], .kw = z[5], .oc = z[6], .sh = z[7], .sw = z[8], .dh = z[9], .dw = z[10]
        };
        s.oh = windows(s.h, (s.kh - 1) * s.dh + 1, s.sh, z[11] != 0, &s.ph);
        s.ow = windows(s.w, (s.kw - 1) * s.dw + 1, s.sw, z[11] != 0, &s.pw);
        plain x = RANDOM(s.n, s.h, s.w, s.c), w = RANDOM(s.kh, s.kw, s.c, s.oc), b = RANDOM(s.oc), dy = RANDOM(s.n, s.oh, s.ow, s.oc);
        double *y = zeros(s.n * s.oh * s.ow * s.oc), *dx = zeros(s.n * s.h * s.w * s.c), *dw = zeros(s.kh * s.kw * s.c * s.oc);
        bp_arg stride = bp_list(2, &z[7]), dilation = bp_list(2, &z[9]), padding = bp_int(z[11]);
        for (int act = 0; act < 2; act++) {
            plain_conv2d(&s, x.v, w.v, act ? b.v : NULL, (bp_act)act, y);
            trial t = {
                .op = "conv2d", .n_in = 3, .in = { x, w }, .n_args = 4, .args = { stride, padding, dilation, bp_int(act) }, .out = { y }
            };
            if (act) t.in[2] = b;
            judge(ctx, &t);
        }
        plain_conv2d_grad_input(&s, dy.v, w.v, dx);
        trial t = { .op = "conv2d_grad_input",
                    .n_in = 2,
                    .in = { dy, w },
                    .n_args = 4,
                    .args = { stride, padding, dilation, bp_list(2, &z[1]) },
                    .out = { dx } };
        judge(ctx, &t);
        plain_conv2d_grad_weight(&s, x.v, dy.v, dw);
        t = (trial){ .op = "conv2d_grad_weight",
                     .n_in = 2,
                     .in = { x, dy },
                     .n_args = 4,
                     .args = { stride, padding, dilation, bp_list(2, &z[4]) },
                     .out = { dw } };
        judge(ctx, &t);
        free_numbers();
    }
    trial t = { .op = "conv2d", .n_in = 2, .in = { RANDOM(2, 8, 8, 3), RANDOM(3, 3, 4, 5) } };
    refuse(ctx, &t, "conv2d|[2x8x8x3]|[3x3x4x5]|3 channels|take 4");
    t = (trial){ .op = "conv2d", .n_in = 2, .in = { RANDOM(2, 4, 4, 3), RANDOM(5, 5, 3, 2) } };
    refuse(ctx, &t, "5x5|[2x4x4x3]|same");
    t = (trial){ .op = "conv2d", .n_in = 2, .in = { RANDOM(2, 4, 3), RANDOM(3, 3, 3, 2) } };
    refuse(ctx, &t, "'x'|[2x4x3]|[n][h][w]");
    t = (trial){ .op = "conv2d", .n_in = 2, .in = { RANDOM(2, 4, 4, 3), RANDOM(3, 3, 3, 2) }, .n_args = 1, .args = { bp_int(0) } };
    t.args[0] = list(SIZES(0));
    refuse(ctx, &t, "stride|0");
    t = (trial){ .op = "conv2d_grad_input", .n_in = 2, .in = { RANDOM(2, 4, 4, 2), RANDOM(3, 3, 3, 2) }, .n_args = 4 };
    t.args[3] = list(SIZES(9, 9));
    refuse(ctx, &t, "'dy'|[2x4x4x2]|[2x7x7x2]");
    free_numbers();
}

static void test_pool2d(bp_ctx *ctx)
{
    /* n h w c  kh kw  sh sw  same */
    static const int64_t cases[][9] = {
        { 1, 1, 1, 1, 1, 1, 1, 1, 0 },    { 2, 6, 8, 3, 2, 2, 2, 2, 0 },  { 3, 7, 5, 2, 3, 2, 2, 1, 1 },     { 2, 7, 7, 20, 3, 3, 1, 1, 0 },
        { 90, 24, 24, 8, 2, 2, 2, 2, 0 }, { 0, 6, 6, 3, 2, 2, 2, 2, 0 },  { 2, 17, 16, 1, 16, 16, 1, 1, 1 }, { 2, 0, 4, 3, 2, 2, 2, 2, 1 },
        { 3, 7, 8, 20, 3, 3, 3, 3, 1 },   { 2, 7, 9, 35, 2, 2, 2, 2, 0 }, { 2, 6, 9, 16, 2, 3, 2, 3, 0 },    { 2, 9, 9, 21, 2, 2, 3, 3, 0 },
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        const int64_t *z = cases[k];
        bp_pool_shape s = { .n = z[0], .h = z[1], .w = z[2], .c = z[3], .kh = z[4], .kw = z[5], .sh = z[6], .sw = z[7] };
        s.oh = windows(s.h, s.kh, s.sh, z[8] != 0, &s.ph);
        s.ow = windows(s.w, s.kw, s.sw, z[8] != 0, &s.pw);
        const int64_t n_in = s.n * s.h * s.w * s.c, n_out = s.n * s.oh * s.ow * s.c;
        plain x = RANDOM(s.n, s.h, s.w, s.c), dy = RANDOM(s.n, s.oh, s.ow, s.c);
        double *max = zeros(n_out), *winner = zeros(n_out), *max_dx = zeros(n_in), *avg = zeros(n_out), *avg_dx = zeros(n_in);
        uint8_t *argmax = (uint8_t *)zeros(n_out);
        plain_pool2d(&s, x.v, dy.v, false, max, argmax, max_dx, avg, avg_dx);
        for (int64_t i = 0; i < n_out; i++) winner[i] = argmax[i];
        bp_arg args[4] = { bp_list(2, &z[4]), bp_list(2, &z[6]), bp_int(z[8]), bp_list(2, &z[1]) };
        trial t = {
            .op = "max_pool2d", .n_in = 1, .in = { x }, .n_args = 3, .args = { args[0], args[1], args[2] }, .out = { max, winner }
        };
        judge(ctx, &t);
        t.op = "avg_pool2d";
        t.out[0] = avg, t.out[1] = NULL;
        judge(ctx, &t);
        plain won = dy;
        won.v = winner;
        won.dtype = BP_U8;
        t = (trial){ .op = "max_pool2d_grad",
                     .n_in = 2,
                     .in = { dy, won },
                     .n_args = 4,
                     .args = { args[0], args[1], args[2], args[3] },
                     .out = { max_dx } };
        judge(ctx, &t);
        t = (trial){ .op = "max_pool2d_take",
                     .n_in = 2,
                     .in = { x, won },
                     .n_args = 4,
                     .args = { args[0], args[1], args[2], args[3] },
                     .out = { max } };
        judge(ctx, &t);
        t = (trial){
            .op = "avg_pool2d_grad", .n_in = 1, .in = { dy }, .n_args = 4, .args = { args[0], args[1], args[2], args[3] }, .out = { avg_dx }
        };
        judge(ctx, &t);
        if (n_out > 0) { /* a winner that cannot be is refused, not followed */
            winner[n_out - 1] = 255;
            t = (trial){
                .op = "max_pool2d_grad", .n_in = 2, .in = { dy, won }, .n_args = 4, .args = { args[0], args[1], args[2], args[3] }
            };
            refuse(ctx, &t, "argmax|max_pool2d");
        }
        free_numbers();
    }
    trial t = { .op = "max_pool2d", .n_in = 1, .in = { RANDOM(2, 3, 3, 1) }, .n_args = 1, .args = { list(SIZES(4)) } };
    refuse(ctx, &t, "4x4|[2x3x3x1]|same");
    t = (trial){ .op = "max_pool2d", .n_in = 1, .in = { RANDOM(1, 20, 20, 1) }, .n_args = 1, .args = { list(SIZES(17)) } };
    refuse(ctx, &t, "17x17|256|global");
    free_numbers();
}

/* ---- batch_norm ---- */

static void test_batch_norm(bp_ctx *ctx)
{
    static const int64_t cases[][2] = { { 2, 1 }, { 5, 3 }, { 700, 1 }, { 5000, 7 }, { 900, 40 }, { 3000, 100 }, { 40000, 2 }, { 3, 300 } };
    const double decay = 0.75, eps = 1e-3;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int plainly = 0; plainly < 2; plainly++) {
            const int64_t rows = cases[k][0], c = cases[k][1];
            plain x = RANDOM(rows, c), dy = RANDOM(rows, c), scale = RANDOM(c), shift = RANDOM(c), run_mean = RANDOM(c),
                  run_var = RANDOM(c);
            double *away = (double *)x.v; /* far from zero, where sums of squares would cancel */
            for (int64_t i = 0; i < rows * c; i++) away[i] += 64;
            double *y = zeros(rows * c), *dx = zeros(rows * c), *mean = zeros(c), *inv = zeros(c), *new_mean = zeros(c),
                   *new_var = zeros(c);
            double *dscale = zeros(c), *dshift = zeros(c), *eval = zeros(rows * c), *var = zeros(c);
            for (int64_t j = 0; j < c; j++) {
                const double a = plainly ? 1 : scale.v[j], b = plainly ? 0 : shift.v[j];
                double squares = 0, dot = 0;
                for (int64_t r = 0; r < rows; r++) mean[j] += x.v[r * c + j] / (double)rows;
                for (int64_t r = 0; r < rows; r++) squares += pow(x.v[r * c + j] - mean[j], 2);
                inv[j] = 1 / sqrt(squares / (double)rows + eps);
                new_mean[j] = decay * run_mean.v[j] + (1 - decay) * mean[j];
                new_var[j] = decay * run_var.v[j] + (1 - decay) * squares / (double)(rows - 1);
                var[j] = 0.5 + fabs(run_var.v[j]);
                for (int64_t r = 0; r < rows; r++) {
                    const double n = (x.v[r * c + j] - mean[j]) * inv[j];
                    y[r * c + j] = n * a + b;
                    eval[r * c + j] = (x.v[r * c + j] - mean[j]) / sqrt(var[j] + eps) * a + b;
                    dshift[j] += dy.v[r * c + j];
                    dot += dy.v[r * c + j] * n;
                }
                dscale[j] = dot;
                for (int64_t r = 0; r < rows; r++) {
                    const double n = (x.v[r * c + j] - mean[j]) * inv[j];
                    dx[r * c + j] = a * inv[j] * (dy.v[r * c + j] - dshift[j] / (double)rows - n * dot / (double)rows);
                }
            }
            plain m = scale, i = scale, v = scale;
            m.v = mean, i.v = inv, v.v = var;
            trial t = { .op = "batch_norm",
                        .n_in = 5,
                        .in = { x, scale, shift, run_mean, run_var },
                        .n_args = 2,
                        .args = { bp_float(decay), bp_float(eps) },
                        .out = { y, mean, inv },
                        .after = { NULL, NULL, NULL, new_mean, new_var },
                        .tolerance = 1e-4 };
            if (plainly) t.in[1].v = t.in[2].v = NULL;
            judge(ctx, &t);
            t = (trial){
                .op = "batch_norm_grad", .n_in = 5, .in = { dy, x, scale, m, i }, .out = { dx, dscale, dshift }, .tolerance = 1e-4
            };
            if (plainly) t.in[2].v = NULL;
            judge(ctx, &t);
            t = (trial){ .op = "batch_norm_inference",
                         .n_in = 5,
                         .in = { x, scale, shift, m, v },
                         .n_args = 1,
                         .args = { bp_float(eps) },
                         .out = { eval },
                         .tolerance = 1e-4 };
            if (plainly) t.in[1].v = t.in[2].v = NULL;
            judge(ctx, &t);
            free_numbers();
        }
    /* no rows: nothing to normalise, nothing learned */
    plain mean = RANDOM(3), var = RANDOM(3);
    trial t = { .op = "batch_norm",
                .n_in = 5,
                .in = { RANDOM(0, 3), RANDOM(3), RANDOM(3), mean, var },
                .after = { NULL, NULL, NULL, mean.v, var.v },
                .out = { zeros(0) } };
    judge(ctx, &t);
    t = (trial){ .op = "batch_norm", .n_in = 1, .in = { RANDOM(1, 3) } };
    refuse(ctx, &t, "batch_norm|[1x3]|two rows");
    t = (trial){ .op = "batch_norm", .n_in = 2, .in = { RANDOM(4, 3), RANDOM(4) } };
    refuse(ctx, &t, "'scale'|[4]|[3]");
    t = (trial){ .op = "batch_norm", .n_in = 4, .in = { RANDOM(4, 3), RANDOM(3), RANDOM(3), RANDOM(3) } };
    refuse(ctx, &t, "running_mean|running_var");
    free_numbers();
}

/* The gradient that backward takes is the fused one; with create_graph it is spelled out in simpler ops. */
static void test_batch_norm_backward(bp_ctx *ctx)
{
    for (int plainly = 0; plainly < 2; plainly++) {
        bp_tensor *in[5] = { NULL }, *out[BP_MAX_OUT] = { NULL }, *grads[2][3] = { { NULL } }, *seed;
        plain p[3] = { RANDOM(6, 5, 4), RANDOM(4), RANDOM(4) }, dy = RANDOM(6, 5, 4);
        const int n = plainly ? 1 : 3;
        for (int i = 0; i < n; i++) {
            in[i] = tensor_of(ctx, &p[i], BP_F64);
            OK(bp_tensor_set_requires_grad(in[i], true));
        }
        seed = tensor_of(ctx, &dy, BP_F64);
        OK(bp_apply(ctx, &bp__op_batch_norm, 5, in, 0, NULL, out));
        for (int create = 0; create < 2; create++) {
            bp_backward_options options = { true, create != 0 };
            OK(bp_gradients(out[0], seed, n, in, &options, grads[create]));
        }
        for (int i = 0; i < n; i++) {
            double fused[120], spelled[120], worst = 0;
            const int64_t count = bp_tensor_count(in[i]);
            CHECK(grads[0][i] && grads[1][i], "batch_norm: input %d has no gradient", i);
            OK(bp_tensor_read(grads[0][i], BP_F64, fused, count));
            OK(bp_tensor_read(grads[1][i], BP_F64, spelled, count));
            for (int64_t k = 0; k < count; k++) worst = fmax(worst, fabs(fused[k] - spelled[k]));
            CHECK(worst < 1e-12, "batch_norm: the two gradients of input %d differ by %g", i, worst);
            bp_tensor_release(grads[0][i]);
            bp_tensor_release(grads[1][i]);
        }
        for (int i = 0; i < 5; i++) bp_tensor_release(in[i]);
        for (int i = 0; i < 3; i++) bp_tensor_release(out[i]);
        bp_tensor_release(seed);
    }
    free_numbers();
}

/* ---- losses ---- */

static void test_cross_entropy(bp_ctx *ctx)
{
    static const int64_t cases[][2] = { { 1, 1 }, { 4, 5 }, { 0, 3 }, { 700, 10 }, { 33, 1000 }, { 2, 9000 } };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int smooth = 0; smooth < 2; smooth++) {
            const int64_t rows = cases[k][0], n = cases[k][1];
            const double s = smooth ? 0.25 : 0;
            plain x = RANDOM(rows, n), dloss = RANDOM(rows),
                  labels = { .v = zeros(rows), .ndim = 1, .shape = { rows }, .dtype = smooth ? BP_I32 : BP_I64 };
            plain soft = RANDOM(rows, n);
            double *label = (double *)labels.v, *logits = (double *)x.v;
            double *loss = zeros(rows), *dx = zeros(rows * n), *soft_loss = zeros(rows), *p = zeros(n), *logs = zeros(n);
            for (int64_t i = 0; i < rows; i++) {
                label[i] = floor(fabs(number()) * 0.999999 * (double)n);
                if (rows > 3 && i % 3 == 1) label[i] = -7;
                for (int64_t j = 0; j < n; j++) logits[i * n + j] *= 8; /* and one row that only a shifted exponential survives */
                if (i == 2) logits[i * n] = 1000;
                plain_softmax(n, x.v + i * n, p, logs);
                for (int64_t j = 0; j < n; j++) {
                    const double target = (j == (int64_t)label[i] ? 1 - s : 0) + s / (double)n;
                    soft_loss[i] -= soft.v[i * n + j] * logs[j];
                    if (label[i] < 0) continue;
                    loss[i] -= target * logs[j];
                    dx[i * n + j] = dloss.v[i] * (p[j] - target);
                }
            }
            trial t = {
                .op = "cross_entropy", .n_in = 2, .in = { x, labels }, .n_args = 2, .args = { bp_float(s), bp_int(-7) }, .out = { loss }
            };
            judge(ctx, &t);
            t = (trial){ .op = "cross_entropy_grad",
                         .n_in = 3,
                         .in = { x, labels, dloss },
                         .n_args = 2,
                         .args = { bp_float(s), bp_int(-7) },
                         .out = { dx } };
            judge(ctx, &t);
            t = (trial){ .op = "soft_cross_entropy", .n_in = 2, .in = { x, soft }, .out = { soft_loss } };
            judge(ctx, &t);
            free_numbers();
        }
    plain labels = { .v = same(2, 3), .ndim = 1, .shape = { 2 }, .dtype = BP_I64 };
    trial t = { .op = "cross_entropy", .n_in = 2, .in = { RANDOM(2, 3), labels } };
    refuse(ctx, &t, "label 3|row 0|0..2|3 classes");
    labels.v = same(2, -1);
    t.in[1] = labels;
    refuse(ctx, &t, "label -1|0..2");
    t = (trial){ .op = "cross_entropy", .n_in = 2, .in = { RANDOM(4, 3), labels } };
    refuse(ctx, &t, "[4x3]|[2]|squeeze");
    t = (trial){ .op = "cross_entropy", .n_in = 2, .in = { RANDOM(2, 3), RANDOM(2) } };
    refuse(ctx, &t, "labels|integer");
    t = (trial){ .op = "soft_cross_entropy", .n_in = 2, .in = { RANDOM(4, 3), RANDOM(4, 1) } };
    refuse(ctx, &t, "[4x3]|[4x1]|same shape");
    free_numbers();
}

static void test_binary_cross_entropy(bp_ctx *ctx)
{
    static const int64_t cases[] = { 1, 0, 37, 30000 };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int weighted = 0; weighted < 2; weighted++) {
            const double w = weighted ? 2.5 : 1;
            const int64_t n = cases[k];
            plain x = RANDOM(n), target = RANDOM(n);
            double *y = zeros(n), *logit = (double *)x.v, *t01 = (double *)target.v;
            for (int64_t i = 0; i < n; i++) {
                logit[i] *= i % 5 == 0 ? 512 : 4;
                t01[i] = fabs(t01[i]);
                const double a = logit[i], soft = log1p(exp(-fabs(a))) + (a < 0 ? -a : 0);
                y[i] = (1 - t01[i]) * a + (1 + (w - 1) * t01[i]) * soft;
            }
            trial t = { .op = "binary_cross_entropy", .n_in = 2, .in = { x, target }, .n_args = 1, .args = { bp_float(w) }, .out = { y } };
            judge(ctx, &t);
            free_numbers();
        }
    trial t = { .op = "binary_cross_entropy", .n_in = 2, .in = { RANDOM(4, 1), RANDOM(4) } };
    refuse(ctx, &t, "[4x1]|[4]|same shape");
    free_numbers();
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    test_matmul(ctx);
    test_linear(ctx);
    test_conv2d(ctx);
    test_pool2d(ctx);
    test_batch_norm(ctx);
    test_batch_norm_backward(ctx);
    test_cross_entropy(ctx);
    test_binary_cross_entropy(ctx);
    close_counting(ctx, &c);
    return report();
}
