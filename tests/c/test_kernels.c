/* test_kernels.c - every table of kernels that this machine runs against the plain f64 loops, on random shapes, and the rule that a result
 * does not depend, bit for bit, on how a caller cut the work. Each output stands between sentinels that must survive. */
#include "plain.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const bp_kernels *kernels; /* under test */
static bool f64;
static const char *title;
static long passed, failed;
static double eps;

static void check(bool ok, const char *format, ...)
{
    if (ok) {
        passed++;
        return;
    }
    if (++failed > 40) return;
    va_list args;
    va_start(args, format);
    printf("FAIL %s: ", title);
    vprintf(format, args);
    printf("\n");
    va_end(args);
}

/* ---- random numbers ---- */

static uint64_t state = 88172645463325252u;
static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}
static int64_t between(int64_t low, int64_t high) { return low + (int64_t)(draw() % (uint64_t)(high - low + 1)); }
static bool chance(int percent) { return between(0, 99) < percent; }
/* One of the numbers around which code changes its way, or any up to most. */
static int64_t size_up_to(int64_t most)
{
    static const int64_t edges[] = { 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 128 };
    const int64_t n = chance(60) ? edges[draw() % (sizeof edges / sizeof *edges)] : between(1, most);
    return n < most ? n : most;
}
/* A float, so that every table sees the same number. */
static double value(void) { return (double)(float)((double)(draw() >> 11) * 0x1p-52 - 1); }

/* ---- arrays: the same numbers as double and in the dtype under test ---- */

enum { GUARD = 64 };
#define SENTINEL (-12345.0)

typedef struct array {
    int64_t n;
    double *plain;
    char *block; /* GUARD elements, n elements, GUARD elements */
    void *real;
} array;

static void *allocate(size_t n)
{
    void *p = malloc(n ? n : 1);
    if (!p) {
        printf("out of memory\n");
        exit(2);
    }
    return p;
}
static size_t real_size(void) { return f64 ? sizeof(double) : sizeof(float); }
static double get(const void *p, int64_t i) { return f64 ? ((const double *)p)[i] : (double)((const float *)p)[i]; }
static void set(void *p, int64_t i, double x)
{
    if (f64)
        ((double *)p)[i] = x;
    else
        ((float *)p)[i] = (float)x;
}
static array make(int64_t n)
{
    array a = { n, (double *)allocate((size_t)n * sizeof(double)), (char *)allocate((size_t)(n + 2 * GUARD) * real_size()), NULL };
    a.real = a.block + GUARD * real_size();
    for (int64_t i = 0; i < n + 2 * GUARD; i++) set(a.block, i, SENTINEL);
    for (int64_t i = 0; i < n; i++) set(a.real, i, a.plain[i] = value());
    return a;
}
static void drop(array *a)
{
    bool whole = true;
    for (int64_t i = 0; i < GUARD; i++) whole = whole && get(a->block, i) == SENTINEL && get(a->block, GUARD + a->n + i) == SENTINEL;
    check(whole, "wrote beside an array of %ld", (long)a->n);
    free(a->plain);
    free(a->block);
}
static array copy_of(const array *a)
{
    array b = make(a->n);
    memcpy(b.plain, a->plain, (size_t)a->n * sizeof(double));
    memcpy(b.real, a->real, (size_t)a->n * real_size());
    return b;
}
static bool same_bits(const array *a, const array *b) { return memcmp(a->real, b->real, (size_t)a->n * real_size()) == 0; }
/* The greatest |found - plain|, in units of allowed. */
static double worst(const array *a, double allowed)
{
    double most = 0;
    for (int64_t i = 0; i < a->n; i++) {
        const double x = get(a->real, i), y = a->plain[i];
        const double off = x == y || (isnan(x) && isnan(y)) ? 0 : fabs(x - y) / allowed;
        if (!(off <= most)) most = off;
    }
    return most;
}
static char *scratch_of(size_t n)
{
    char *p = (char *)aligned_alloc(64, (n + 127) / 64 * 64);
    if (!p) exit(2);
    memset(p, 0x7f, (n + 127) / 64 * 64); /* large finite numbers: what is used without being written shows */
    return p;
}
static void scratch_drop(char *p, size_t n)
{
    bool whole = true;
    for (size_t i = n; i < (n + 127) / 64 * 64; i++) whole = whole && p[i] == 0x7f;
    check(whole, "wrote beyond its scratch of %zu", n);
    free(p);
}

/* ---- gemm ---- */

static void *at(void *p, int64_t i) { return (char *)p + (size_t)i * real_size(); }

static int small_products;

/* Parts that share copies of the operands, made a few steps at a time and in any order, give the bits of the whole. */
static int copies_made[2];
static void test_copies(const bp_gemm *whole, const array *before, const array *c)
{
    array pieces = copy_of(before);
    const int64_t rows = 12 * between(1, 1 + whole->m / 12), cols = 64 * between(1, 1 + whole->n / 64), depth = between(1, 100);
    const size_t own = kernels->gemm_scratch(whole);
    char *const scratch = scratch_of(own), *copy[2];
    size_t bytes[2];
    for (int right = 0; right < 2; right++) {
        bytes[right] = chance(80) ? kernels->gemm_copy_size(whole, right) : 0;
        copy[right] = scratch_of(bytes[right]);
        copies_made[right] += bytes[right] > 0;
    }
    const int64_t size = (int64_t)real_size();
    for (int pass = 0; pass < 2; pass++) /* make the copies, then multiply */
        for (int64_t i = 0; i < whole->m; i += rows)
            for (int64_t j = 0; j < whole->n; j += cols) {
                bp_gemm part = *whole;
                part.m = whole->m - i < rows ? whole->m - i : rows, part.n = whole->n - j < cols ? whole->n - j : cols;
                part.a = at((void *)(uintptr_t)whole->a, i * whole->a_row), part.b = at((void *)(uintptr_t)whole->b, j * whole->b_col);
                part.c = at(pieces.real, i * whole->c_row + j);
                if (whole->bias) part.bias = at((void *)(uintptr_t)whole->bias, j);
                char *const a_copy = copy[0] + i * whole->k * size, *const b_copy = copy[1] + j * whole->k * size;
                for (int64_t p = (whole->k - 1) / depth * depth; p >= 0 && pass == 0; p -= depth) {
                    const int64_t count = whole->k - p < depth ? whole->k - p : depth;
                    if (bytes[0] && j == 0) kernels->gemm_copy(&part, false, a_copy, p, count);
                    if (bytes[1] && i == 0) kernels->gemm_copy(&part, true, b_copy, p, count);
                }
                part.a_copy = bytes[0] ? a_copy : NULL, part.b_copy = bytes[1] ? b_copy : NULL;
                if (pass == 1) kernels->gemm(&part, scratch);
            }
    check(same_bits(c, &pieces), "gemm %ldx%ldx%ld a %ld,%ld b %ld,%ld: parts of %ldx%ld with copies of%s%s differ", (long)whole->m,
          (long)whole->k, (long)whole->n, (long)whole->a_row, (long)whole->a_col, (long)whole->b_row, (long)whole->b_col, (long)rows,
          (long)cols, bytes[0] ? " a" : "", bytes[1] ? " b" : "");
    scratch_drop(scratch, own), scratch_drop(copy[0], bytes[0]), scratch_drop(copy[1], bytes[1]);
    drop(&pieces);
}

static void test_gemm(void)
{
    const int64_t m = chance(8) ? between(190, 420) : size_up_to(150),
                  n = m == 1 && chance(40) ? between(200, 5000)
                      : chance(20)         ? size_up_to(800)
                                           : size_up_to(140),
                  k = chance(5)    ? 0
                      : chance(15) ? between(300, 900)
                                   : size_up_to(140);
    const bool a_turned = chance(40), b_turned = chance(40);
    const int64_t a_step = chance(20) ? 2 : 1, b_step = chance(20) ? 2 : 1; /* no unit stride */
    const int64_t gap = chance(50) ? 0 : chance(20) ? 1024 : between(0, 9);
    bp_gemm g = { .m = m, .n = n, .k = k, .act = chance(30) ? BP_ACT_RELU : BP_ACT_NONE, .accumulate = chance(30) };
    g.a_row = a_turned ? a_step : k * a_step + gap;
    g.a_col = a_turned ? m * a_step + gap : a_step;
    g.b_row = b_turned ? b_step : n * b_step + gap;
    g.b_col = b_turned ? k * b_step + gap : b_step;
    g.c_row = n + (chance(50) ? 0 : between(0, 5));
    array a = make((m - 1) * g.a_row + (k ? (k - 1) * g.a_col + 1 : 1)), b = make((k ? (k - 1) * g.b_row : 0) + (n - 1) * g.b_col + 1);
    array bias = make(n), c = make(m * g.c_row);
    array pieces = copy_of(&c), before = copy_of(&c);
    const bool biased = chance(50);

    bp_gemm p = g;
    p.a = a.plain, p.b = b.plain, p.c = c.plain, p.bias = biased ? bias.plain : NULL;
    plain_gemm(&p);
    g.a = a.real, g.b = b.real, g.c = c.real, g.bias = biased ? bias.real : NULL;
    const size_t bytes = kernels->gemm_scratch(&g);
    char *scratch = scratch_of(bytes);
    kernels->gemm(&g, scratch);
    const double off = worst(&c, eps * ((double)k + 4));
    check(off <= 1, "gemm %ldx%ldx%ld a %ld,%ld b %ld,%ld%s%s: off by %g times the bound", (long)m, (long)k, (long)n, (long)g.a_row,
          (long)g.a_col, (long)g.b_row, (long)g.b_col, g.accumulate ? " +=" : "", biased ? " bias" : "", off);

    for (int64_t i = 0, rows; i < m; i += rows) {
        rows = chance(30) ? 1 : between(1, m - i);
        for (int64_t j = 0, cols; j < n; j += cols) {
            cols = chance(30) ? 1 : between(1, n - j);
            bp_gemm part = g;
            part.m = rows, part.n = cols;
            part.a = at(a.real, i * g.a_row), part.b = at(b.real, j * g.b_col), part.c = at(pieces.real, i * g.c_row + j);
            if (biased) part.bias = at(bias.real, j);
            check(kernels->gemm_scratch(&part) <= bytes, "gemm: a part wants more scratch than the whole");
            kernels->gemm(&part, scratch);
        }
    }
    check(same_bits(&c, &pieces), "gemm %ldx%ldx%ld a %ld,%ld b %ld,%ld: bits depend on the cut", (long)m, (long)k, (long)n, (long)g.a_row,
          (long)g.a_col, (long)g.b_row, (long)g.b_col);
    test_copies(&g, &before, &c);
    scratch_drop(scratch, bytes);
    drop(&a), drop(&b), drop(&bias), drop(&c), drop(&pieces), drop(&before);
}

/* Small products, and single columns of any length, against one element at a time. */
static void test_gemm_small(void)
{
    const bool column = chance(40), turned = column && chance(30), bad = chance(10);
    const int64_t m = column ? size_up_to(300) : size_up_to(70), n = column ? 1 : size_up_to(70);
    const int64_t k = column && chance(20) ? between(300, 1000) : chance(3) ? 0 : size_up_to(140);
    const int64_t gap = chance(50) ? 0 : between(0, 9);
    bp_gemm g = { .m = m, .n = n, .k = k, .act = chance(30) ? BP_ACT_RELU : BP_ACT_NONE, .accumulate = chance(30) };
    g.a_row = turned || (!column && chance(30)) ? 1 : k + gap;
    g.a_col = g.a_row == 1 && (turned || k + gap != 1) ? m + gap : 1;
    g.b_row = n + gap;
    g.b_col = 1;
    g.c_row = n + (column || chance(50) ? 0 : between(0, 5));
    array a = make((m - 1) * g.a_row + (k ? (k - 1) * g.a_col : 0) + 1), b = make((k ? (k - 1) * g.b_row : 0) + n);
    array bias = make(n), c = make(m * g.c_row), single = copy_of(&c);
    if (bad) {
        set(a.real, between(0, a.n - 1), -0.0);
        if (chance(50)) /* not both: which NaN survives is nobody's promise */
            set(a.real, between(0, a.n - 1), NAN);
        else
            set(b.real, between(0, b.n - 1), INFINITY);
    }
    g.a = a.real, g.b = b.real, g.c = c.real, g.bias = chance(50) ? bias.real : NULL;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            bp_gemm one = g;
            one.m = one.n = 1;
            one.a = at(a.real, i * g.a_row), one.b = at(b.real, j), one.c = at(single.real, i * g.c_row + j);
            if (g.bias) one.bias = at(bias.real, j);
            kernels->gemm(&one, NULL);
        }
    const bool small = kernels->gemm_small(&g);
    if (!small) {
        const size_t bytes = kernels->gemm_scratch(&g);
        char *scratch = scratch_of(bytes);
        kernels->gemm(&g, scratch);
        scratch_drop(scratch, bytes);
    }
    small_products += small;
    check(same_bits(&c, &single), "gemm of %ldx%ldx%ld a %ld,%ld%s%s: bits differ from element by element", (long)m, (long)k, (long)n,
          (long)g.a_row, (long)g.a_col, small ? " small" : "", bad ? " with NaN" : "");
    drop(&a), drop(&b), drop(&bias), drop(&c), drop(&single);
}

/* A product of k = 1 with relu, or dropout after it, undone, against the two; y may lie where the result goes. */
static void test_outer_masked(void)
{
    const int64_t m = size_up_to(70), n = size_up_to(140), step = chance(50) ? 1 : between(1, 5);
    const double scale = chance(50) ? 1 : 1 / (1 - 0.3);
    const bool over = chance(50);
    array a = make((m - 1) * step + 1), b = make(n), y = make(m * n), t = make(m * n), c = make(m * n), u = make(m * n);
    for (int64_t i = 0; i < y.n; i++)
        if (chance(30)) set(y.real, i, chance(50) ? 0 : -0.0);
    if (chance(20)) set(a.real, 0, NAN), set(b.real, n - 1, -0.0);
    bp_gemm g = { .m = m, .n = n, .k = 1, .a = a.real, .a_row = step, .a_col = 1, .b = b.real, .b_row = n, .b_col = 1, .c_row = n };
    g.c = t.real;
    const size_t bytes = kernels->gemm_scratch(&g);
    char *scratch = scratch_of(bytes);
    kernels->gemm(&g, scratch);
    scratch_drop(scratch, bytes);
    kernels->binary[scale == 1 ? BP_BINARY_relu_grad : BP_BINARY_relu_dropout_grad](m * n, t.real, 1, y.real, 1, u.real, 1, scale);
    g.c = over ? y.real : c.real;
    kernels->gemm_outer_masked(&g, y.real, scale);
    check(same_bits(over ? &y : &c, &u), "outer product of %ld and %ld, masked%s: other bits than the two steps", (long)m, (long)n,
          over ? ", over y" : "");
    drop(&a), drop(&b), drop(&y), drop(&t), drop(&c), drop(&u);
}

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

/* ---- a number that must go through ---- */

static void test_nan(void)
{
    array a = make(7 * 20), b = make(20 * 19), c = make(7 * 19);
    set(a.real, 3 * 20 + 5, NAN);
    const bp_gemm g = { .m = 7,
                        .n = 19,
                        .k = 20,
                        .a = a.real,
                        .a_row = 20,
                        .a_col = 1,
                        .b = b.real,
                        .b_row = 19,
                        .b_col = 1,
                        .c = c.real,
                        .c_row = 19,
                        .act = BP_ACT_RELU };
    const size_t bytes = kernels->gemm_scratch(&g);
    char *scratch = scratch_of(bytes);
    kernels->gemm(&g, scratch);
    bool right = true;
    for (int64_t i = 0; i < c.n; i++) right = right && isnan(get(c.real, i)) == (i / 19 == 3);
    check(right, "gemm with relu: NaN stays in its row and is not hidden");
    scratch_drop(scratch, bytes);
    drop(&a), drop(&b), drop(&c);
}

static void test_table(const bp_kernels *table, bool is_f64, const char *name)
{
    if (!table) {
        printf("skipped %s: this machine or build lacks it\n", name);
        return;
    }
    kernels = table;
    f64 = is_f64;
    title = name;
    eps = is_f64 ? 0x1p-52 : 0x1p-23;
    const long before = passed + failed;
    state = 88172645463325252u;
    test_nan();
    copies_made[0] = copies_made[1] = 0;
    for (int i = 0; i < 300; i++) test_gemm();
    small_products = 0;
    for (int i = 0; i < 1000; i++) test_gemm_small();
    check(small_products > 100, "%d of the products were small", small_products);
    for (int i = 0; i < 300; i++) test_outer_masked();

    check(copies_made[0] > 3 && copies_made[1] > 10, "%d copies of A and %d of B were shared", copies_made[0], copies_made[1]);
    state = 88172645463325252u; /* the shapes that follow do not depend on those before */
    planar_gathers = planar_sums = 0;
    for (int i = 0; i < 400; i++) test_conv2d();
    for (int i = 0; i < 300; i++) test_conv2d_across();
    check(kernels->lanes < 4 || (planar_gathers > 10 && planar_sums > 5), "%d and %d of the shapes went by planes", planar_gathers,
          planar_sums);
    for (int i = 0; i < 200; i++) test_pool2d();
    for (int i = 0; i < 200; i++) test_softmax();
    printf("%s: %ld checks\n", name, passed + failed - before);
}

int main(void)
{
    test_table(bp_kernels_f32("baseline"), false, "f32 baseline");
    test_table(bp_kernels_f32("avx2"), false, "f32 avx2");
    test_table(bp_kernels_f32("avx512"), false, "f32 avx512");
    test_table(bp_kernels_f64(), true, "f64");
    check(bp_kernels_f32("nonesuch") == NULL && bp_kernels_f32(NULL) != NULL, "selection by name");
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed ? 1 : 0;
}
