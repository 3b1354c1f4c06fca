/* test_kernels.c - convolutions, pooling and softmax of every table of kernels against the plain f64 loops, on random shapes, and the rule
 * that a result does not depend, bit for bit, on how a caller cut the work. Products have test_gemm.c. */
#include "tables.h"

/* ---- convolution ---- */

/* Output size and zeros before; sometimes as "same", sometimes with pixels left over, sometimes more zeros than the kernel reaches. */
static void place(int64_t size, int64_t taps, int64_t stride, int64_t dilation, int64_t *before, int64_t *out)
{
    const int64_t reach = (taps - 1) * dilation + 1;
    *before = chance(40) ? 0 : between(0, reach);
    const int64_t after = chance(40) ? 0 : between(0, reach), room = size + *before + after;
    *out = room < reach ? 0 : (room - reach) / stride + 1;
}

static int planar_gathers, planar_sums; /* shapes that went by planes */

static void test_conv2d(void)
{
    static const int64_t kernel_sizes[] = { 1, 2, 3, 3, 3, 4, 5, 5, 7 };
    const bool wide = chance(20);
    bp_conv_shape s = { .n = chance(5) ? 0 : between(1, 5),
                        .h = between(1, 14),
                        .w = between(1, 14),
                        .c = chance(70) ? between(1, 9) : size_up_to(70),
                        .oc = chance(60) ? between(1, 20) : size_up_to(70) };
    if (wide) { /* rows of several vectors, few features */
        s.n = between(1, 2), s.h = between(8, 30), s.w = between(16, 40), s.oc = between(1, 9);
        if (chance(30)) s.c = between(1, 4), s.oc = between(1, 40);
    }
    do {
        s.kh = kernel_sizes[draw() % 9], s.kw = kernel_sizes[draw() % 9];
        s.sh = chance(50) ? 1 : between(1, 4), s.sw = chance(50) ? 1 : between(1, 4);
        s.dh = chance(60) ? 1 : between(1, 4), s.dw = chance(60) ? 1 : between(1, 4);
        place(s.h, s.kh, s.sh, s.dh, &s.ph, &s.oh);
        place(s.w, s.kw, s.sw, s.dw, &s.pw, &s.ow);
    } while (s.oh == 0 || s.ow == 0);
    char shape[200];
    snprintf(shape, sizeof shape, "x %ldx%ldx%ldx%ld w %ldx%ld y %ldx%ldx%ld stride %ld,%ld dilation %ld,%ld before %ld,%ld", (long)s.n,
             (long)s.h, (long)s.w, (long)s.c, (long)s.kh, (long)s.kw, (long)s.oh, (long)s.ow, (long)s.oc, (long)s.sh, (long)s.sw,
             (long)s.dh, (long)s.dw, (long)s.ph, (long)s.pw);

    array x = make(s.n * s.h * s.w * s.c), w = make(s.kh * s.kw * s.c * s.oc), bias = make(s.oc), y = make(s.n * s.oh * s.ow * s.oc);
    array dy = make(y.n), dx = make(x.n), dw = make(w.n);
    array y2 = copy_of(&y), dx2 = copy_of(&dx), dw2 = copy_of(&dw);
    const bp_act act = chance(40) ? BP_ACT_RELU : BP_ACT_NONE;
    const bool biased = chance(50);
    const void *real_bias = biased ? bias.real : NULL;
    const size_t bytes = kernels->conv2d_scratch(&s);
    char *scratch = scratch_of(bytes);
    planar_gathers += kernels->conv2d_planar_gathers(&s, false) + kernels->conv2d_planar_gathers(&s, true);
    planar_sums += kernels->conv2d_planar_sums(&s);

    plain_conv2d(&s, x.plain, w.plain, biased ? bias.plain : NULL, act, y.plain);
    kernels->conv2d_forward(&s, x.real, w.real, real_bias, act, y.real, 0, s.n, scratch);
    double off = worst(&y, eps * (double)(s.kh * s.kw * s.c + 4));
    check(off <= 1, "conv2d %s: off by %g times the bound", shape, off);

    plain_conv2d_grad_input(&s, dy.plain, w.plain, dx.plain);
    kernels->conv2d_grad_input(&s, dy.real, w.real, dx.real, 0, s.n, scratch);
    off = worst(&dx, eps * (double)(s.kh * s.kw * s.oc + 4));
    check(off <= 1, "conv2d_grad_input %s: off by %g times the bound", shape, off);

    plain_conv2d_grad_weight(&s, x.plain, dy.plain, dw.plain);
    kernels->conv2d_grad_weight(&s, x.real, dy.real, dw.real, 0, s.n, 0, s.oc, scratch);
    off = worst(&dw, eps * (double)(s.n * s.oh * s.ow + 4));
    check(off <= 1, "conv2d_grad_weight %s: off by %g times the bound", shape, off);

    for (int64_t n = 0, images; n < s.n; n += images) {
        images = between(1, s.n - n);
        kernels->conv2d_forward(&s, x.real, w.real, real_bias, act, y2.real, n, n + images, scratch);
        kernels->conv2d_grad_input(&s, dy.real, w.real, dx2.real, n, n + images, scratch);
        const int64_t lanes = kernels->lanes, some = kernels->conv2d_planar_sums(&s) ? 0 : between(0, s.oc) / lanes * lanes;
        if (some > 0) kernels->conv2d_grad_weight(&s, x.real, dy.real, dw2.real, n, n + images, 0, some, scratch);
        kernels->conv2d_grad_weight(&s, x.real, dy.real, dw2.real, n, n + images, some, s.oc, scratch);
    }
    check(same_bits(&y, &y2) && same_bits(&dx, &dx2) && same_bits(&dw, &dw2), "conv2d %s: bits depend on the cut", shape);
    scratch_drop(scratch, bytes);
    drop(&x), drop(&w), drop(&bias), drop(&y), drop(&dy), drop(&dx), drop(&dw), drop(&y2), drop(&dx2), drop(&dw2);
}

/* A lane for each image, whether that pays or not: against the plain sums, and cut by images and rows. */
static void test_conv2d_across(void)
{
    const int64_t lanes = kernels->lanes;
    bp_conv_shape s = { .n = between(1, 2 * lanes + 1),
                        .h = between(1, 11),
                        .w = between(1, 11),
                        .c = between(1, 10),
                        .oc = between(1, chance(80) ? 13 : 30) };
    do {
        s.kh = between(1, 5), s.kw = between(1, 5);
        s.sh = chance(50) ? 1 : between(1, 4), s.sw = chance(50) ? 1 : between(1, 4);
        s.dh = chance(60) ? 1 : between(1, 3), s.dw = chance(60) ? 1 : between(1, 3);
        place(s.h, s.kh, s.sh, s.dh, &s.ph, &s.oh);
        place(s.w, s.kw, s.sw, s.dw, &s.pw, &s.ow);
    } while (s.oh == 0 || s.ow == 0);
    char shape[200];
    snprintf(shape, sizeof shape, "x %ldx%ldx%ldx%ld w %ldx%ld y %ldx%ldx%ld stride %ld,%ld dilation %ld,%ld before %ld,%ld", (long)s.n,
             (long)s.h, (long)s.w, (long)s.c, (long)s.kh, (long)s.kw, (long)s.oh, (long)s.ow, (long)s.oc, (long)s.sh, (long)s.sw,
             (long)s.dh, (long)s.dw, (long)s.ph, (long)s.pw);
    array x = make(s.n * s.h * s.w * s.c), w = make(s.kh * s.kw * s.c * s.oc), bias = make(s.oc), y = make(s.n * s.oh * s.ow * s.oc);
    array dy = make(y.n), dx = make(x.n), dw = make(w.n), y2 = copy_of(&y), dx2 = copy_of(&dx);
    const bp_act act = chance(40) ? BP_ACT_RELU : BP_ACT_NONE;
    const bool biased = chance(50), gradient = s.sh == 1 && s.sw == 1;
    const void *real_bias = biased ? bias.real : NULL;
    const int64_t x_image = s.h * s.w * s.c, y_image = s.oh * s.ow * s.oc;
    const size_t bytes = kernels->conv2d_across_scratch(&s);
    char *scratch = scratch_of(bytes);

    plain_conv2d(&s, x.plain, w.plain, biased ? bias.plain : NULL, act, y.plain);
    kernels->conv2d_across_gather(&s, false, x.real, w.real, real_bias, act, y.real, s.n, y_image, 0, s.oh, scratch);
    double off = worst(&y, eps * (double)(s.kh * s.kw * s.c + 4));
    check(off <= 1, "conv2d across %s: off by %g times the bound", shape, off);
    if (gradient) {
        plain_conv2d_grad_input(&s, dy.plain, w.plain, dx.plain);
        kernels->conv2d_across_gather(&s, true, dy.real, w.real, NULL, BP_ACT_NONE, dx.real, s.n, x_image, 0, s.h, scratch);
        off = worst(&dx, eps * (double)(s.kh * s.kw * s.oc + 4));
        check(off <= 1, "conv2d_grad_input across %s: off by %g times the bound", shape, off);
    }
    plain_conv2d_grad_weight(&s, x.plain, dy.plain, dw.plain);
    kernels->conv2d_across_sum(&s, x.real, dy.real, dw.real, s.n, scratch);
    off = worst(&dw, eps * (double)(s.n * s.oh * s.ow + 4));
    check(off <= 1, "conv2d_grad_weight across %s: off by %g times the bound", shape, off);

    for (int64_t n = 0, images; n < s.n; n += images) {
        images = between(1, s.n - n);
        for (int64_t i = 0, rows; i < s.oh; i += rows) {
            rows = between(1, s.oh - i);
            kernels->conv2d_across_gather(&s, false, at(x.real, n * x_image), w.real, real_bias, act,
                                          at(y2.real, n * y_image + i * s.ow * s.oc), images, y_image, i, i + rows, scratch);
        }
        for (int64_t i = 0, rows; i < s.h && gradient; i += rows) {
            rows = between(1, s.h - i);
            kernels->conv2d_across_gather(&s, true, at(dy.real, n * y_image), w.real, NULL, BP_ACT_NONE,
                                          at(dx2.real, n * x_image + i * s.w * s.c), images, x_image, i, i + rows, scratch);
        }
    }
    check(same_bits(&y, &y2) && (!gradient || same_bits(&dx, &dx2)), "conv2d across %s: bits depend on the cut", shape);
    scratch_drop(scratch, bytes);
    const size_t other = kernels->conv2d_scratch(&s);
    scratch = scratch_of(other);
    kernels->conv2d_forward(&s, x.real, w.real, real_bias, act, y2.real, 0, s.n, scratch);
    check(same_bits(&y, &y2), "conv2d across %s: other bits than one image after the other", shape);
    scratch_drop(scratch, other);
    drop(&x), drop(&w), drop(&bias), drop(&y), drop(&dy), drop(&dx), drop(&dw), drop(&y2), drop(&dx2);
}

/* ---- pooling ---- */

static void test_pool2d(void)
{
    bp_pool_shape s = {
        .n = chance(5) ? 0 : between(1, 3), .h = between(1, 12), .w = between(1, 12), .c = chance(50) ? between(1, 20) : size_up_to(70)
    };
    do {
        s.kh = between(1, 4), s.kw = between(1, 4), s.sh = between(1, 4), s.sw = between(1, 4);
        place(s.h, s.kh, s.sh, 1, &s.ph, &s.oh);
        place(s.w, s.kw, s.sw, 1, &s.pw, &s.ow);
    } while (s.oh == 0 || s.ow == 0);
    if (chance(40)) { /* windows side by side, the last ones perhaps cut off */
        s.sh = s.kh, s.sw = s.kw, s.ph = s.pw = 0;
        s.oh = chance(50) || s.h < s.kh ? (s.h + s.sh - 1) / s.sh : s.h / s.sh;
        s.ow = chance(50) || s.w < s.kw ? (s.w + s.sw - 1) / s.sw : s.w / s.sw;
    }
    array x = make(s.n * s.h * s.w * s.c), dy = make(s.n * s.oh * s.ow * s.c), max = make(dy.n), avg = make(dy.n), dmax = make(x.n),
          davg = make(x.n);
    for (int64_t i = 0; i < x.n; i++) /* ties, and now and then NaN or -inf */
        set(x.real, i, x.plain[i] = chance(1) ? (chance(50) ? (double)NAN : -(double)INFINITY) : (double)between(-4, 4));
    const bool count_padding = chance(50);
    uint8_t *plain_arg = (uint8_t *)allocate((size_t)max.n), *arg = (uint8_t *)allocate((size_t)max.n);
    memset(arg, 255, (size_t)max.n);
    plain_pool2d(&s, x.plain, dy.plain, count_padding, max.plain, plain_arg, dmax.plain, avg.plain, davg.plain);

    const int64_t cut = between(0, s.n); /* the later images first: whatever the others write too far stays to be seen */
    kernels->max_pool2d(&s, x.real, max.real, arg, cut, s.n);
    kernels->max_pool2d(&s, x.real, max.real, arg, 0, cut);
    kernels->max_pool2d_grad(&s, dy.real, arg, dmax.real, cut, s.n);
    kernels->max_pool2d_grad(&s, dy.real, arg, dmax.real, 0, cut);
    kernels->avg_pool2d(&s, x.real, avg.real, count_padding, 0, cut);
    kernels->avg_pool2d(&s, x.real, avg.real, count_padding, cut, s.n);
    kernels->avg_pool2d_grad(&s, dy.real, davg.real, count_padding, 0, cut);
    kernels->avg_pool2d_grad(&s, dy.real, davg.real, count_padding, cut, s.n);
    char shape[160];
    snprintf(shape, sizeof shape, "x %ldx%ldx%ldx%ld window %ldx%ld stride %ld,%ld before %ld,%ld", (long)s.n, (long)s.h, (long)s.w,
             (long)s.c, (long)s.kh, (long)s.kw, (long)s.sh, (long)s.sw, (long)s.ph, (long)s.pw);
    check(worst(&max, 1) == 0, "max_pool2d %s", shape);
    check(memcmp(arg, plain_arg, (size_t)max.n) == 0, "max_pool2d argmax %s", shape);
    check(worst(&dmax, eps * 20) <= 1, "max_pool2d_grad %s: %g", shape, worst(&dmax, eps * 20));
    check(worst(&avg, eps * 40) <= 1, "avg_pool2d %s: %g", shape, worst(&avg, eps * 40));
    check(worst(&davg, eps * 20) <= 1, "avg_pool2d_grad %s: %g", shape, worst(&davg, eps * 20));
    memset(max.real, 0, (size_t)max.n * real_size());
    kernels->max_pool2d(&s, x.real, max.real, NULL, 0, s.n);
    check(worst(&max, 1) == 0, "max_pool2d without argmax %s", shape);
    free(arg), free(plain_arg);
    drop(&x), drop(&dy), drop(&max), drop(&avg), drop(&dmax), drop(&davg);
}

/* ---- softmax ---- */

static void test_softmax(void)
{
    const int64_t rows = chance(5) ? 0 : between(1, 20), n = size_up_to(140);
    const double spread = chance(20) ? 300 : chance(50) ? 20 : 1;
    array x = make(rows * n), dy = make(x.n), y = make(x.n), log_y = make(x.n), dx = make(x.n), log_dx = make(x.n), ce_dx = make(x.n);
    array loss = make(rows), scale = make(rows), rows_y = make(x.n);
    int64_t *label = (int64_t *)allocate((size_t)rows * sizeof(int64_t));
    for (int64_t i = 0; i < x.n; i++) set(x.real, i, x.plain[i] = (double)(float)(x.plain[i] * spread));
    for (int64_t i = 0; i < rows; i++) {
        double *yi = y.plain + i * n, *li = log_y.plain + i * n;
        label[i] = between(0, n - 1);
        loss.plain[i] = plain_softmax(n, x.plain + i * n, yi, li) - x.plain[i * n + label[i]];
        for (int64_t j = 0; j < n; j++) ce_dx.plain[i * n + j] = scale.plain[i] * (yi[j] - (j == label[i]));
    }
    kernels->softmax(rows, n, x.real, y.real);
    kernels->log_softmax(rows, n, x.real, log_y.real);
    kernels->cross_entropy(rows, n, x.real, label, loss.real);
    kernels->cross_entropy_grad(rows, n, x.real, label, scale.real, ce_dx.real);
    for (int64_t i = 0; i < rows; i++) kernels->softmax(1, n, at(x.real, i * n), at(rows_y.real, i * n));
    check(worst(&y, eps * (double)(n + 8)) <= 1, "softmax %ldx%ld: %g", (long)rows, (long)n, worst(&y, eps * (double)(n + 8)));
    check(same_bits(&y, &rows_y), "softmax %ldx%ld: bits depend on the cut", (long)rows, (long)n);
    check(worst(&log_y, eps * (spread * 4 + 8)) <= 1, "log_softmax %ldx%ld: %g", (long)rows, (long)n,
          worst(&log_y, eps * (spread * 4 + 8)));
    check(worst(&loss, eps * (spread * 4 + 8)) <= 1, "cross_entropy %ldx%ld: %g", (long)rows, (long)n,
          worst(&loss, eps * (spread * 4 + 8)));
    check(worst(&ce_dx, eps * (double)(n + 8)) <= 1, "cross_entropy_grad %ldx%ld: %g", (long)rows, (long)n,
          worst(&ce_dx, eps * (double)(n + 8)));

    for (int64_t i = 0; i < rows; i++) { /* from what was stored, as an op does */
        double s = 0, t = 0;
        for (int64_t j = i * n; j < (i + 1) * n; j++) {
            s += dy.plain[j] * get(y.real, j);
            t += dy.plain[j];
        }
        for (int64_t j = i * n; j < (i + 1) * n; j++) {
            dx.plain[j] = get(y.real, j) * (dy.plain[j] - s);
            log_dx.plain[j] = dy.plain[j] - exp(get(log_y.real, j)) * t;
        }
    }
    kernels->softmax_grad(rows, n, dy.real, y.real, dx.real);
    kernels->log_softmax_grad(rows, n, dy.real, log_y.real, log_dx.real);
    check(worst(&dx, eps * (double)(n + 8)) <= 1, "softmax_grad %ldx%ld: %g", (long)rows, (long)n, worst(&dx, eps * (double)(n + 8)));
    check(worst(&log_dx, eps * (double)(2 * n + 8)) <= 1, "log_softmax_grad %ldx%ld: %g", (long)rows, (long)n,
          worst(&log_dx, eps * (double)(2 * n + 8)));
    free(label);
    drop(&x), drop(&dy), drop(&y), drop(&log_y), drop(&dx), drop(&log_dx), drop(&ce_dx), drop(&loss), drop(&scale), drop(&rows_y);
}

static void test_all(void)
{
    planar_gathers = planar_sums = 0;
    for (int i = 0; i < 400; i++) test_conv2d();
    check(kernels->lanes < 4 || (planar_gathers > 10 && planar_sums > 5), "%d and %d of the shapes went by planes", planar_gathers,
          planar_sums);
    for (int i = 0; i < 300; i++) test_conv2d_across();
    for (int i = 0; i < 200; i++) test_pool2d();
    for (int i = 0; i < 200; i++) test_softmax();
}

int main(void)
{
    check(bp_kernels_f32("nonesuch") == NULL && bp_kernels_f32(NULL) != NULL, "selection by name");
    return over_tables(test_all);
}
