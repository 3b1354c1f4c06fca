/* test_winograd.c - Winograd's convolution against the plain sum in f64 on random shapes, the bits of any cut, and how large its error is
 * beside that of the direct kernels: a table is printed, its bounds are checked. */
#include "plain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long passed, failed;
static const char *title;

static void check(bool right, const char *what, const bp_conv_shape *s, double number)
{
    if (right) {
        passed++;
        return;
    }
    failed++;
    printf("not ok: %s: %s, x %ldx%ldx%ldx%ld y %ldx%ldx%ld before %ld,%ld: %g\n", title, what, (long)s->n, (long)s->h, (long)s->w,
           (long)s->c, (long)s->oh, (long)s->ow, (long)s->oc, (long)s->ph, (long)s->pw, number);
}

static uint64_t state;
static uint64_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}
static int64_t between(int64_t low, int64_t high) { return low + (int64_t)((draw() >> 16) % (uint64_t)(high - low + 1)); }
static bool chance(int percent) { return between(0, 99) < percent; }

/* ---- numbers in f64 and in the dtype under test, with guards around the latter ---- */

enum { GUARD = 64 };
static bool f64;
static size_t real_size(void) { return f64 ? sizeof(double) : sizeof(float); }
static double get(const void *p, int64_t i) { return f64 ? ((const double *)p)[i] : (double)((const float *)p)[i]; }
static void set(void *p, int64_t i, double x)
{
    if (f64)
        ((double *)p)[i] = x;
    else
        ((float *)p)[i] = (float)x;
}
static void *allocate(size_t n)
{
    void *p = aligned_alloc(64, (n + 127) / 64 * 64);
    if (!p) exit(2);
    memset(p, 0x7f, (n + 127) / 64 * 64); /* large finite numbers: what is used without being written shows */
    return p;
}
typedef struct array {
    int64_t n;
    double *plain;
    char *block;
    void *real;
} array;
static array make(int64_t n)
{
    array a = { n, (double *)allocate((size_t)n * sizeof(double)), (char *)allocate((size_t)(n + 2 * GUARD) * real_size()), NULL };
    a.real = a.block + GUARD * real_size();
    for (int64_t i = 0; i < n; i++) set(a.real, i, a.plain[i] = (double)(float)((double)(draw() >> 11) * 0x1p-52 - 1));
    return a;
}
static bool guarded(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != 0x7f) return false;
    return true;
}
static void drop(array *a, const bp_conv_shape *s)
{
    const size_t guard = GUARD * real_size();
    check(guarded(a->block, guard) && guarded(a->block + guard + (size_t)a->n * real_size(), guard), "wrote beside an array", s, 0);
    free(a->plain), free(a->block);
}
/* The greatest |found - plain| in units of the greatest |plain|. */
static double error_of(const array *a)
{
    double most = 0, size = 0;
    for (int64_t i = 0; i < a->n; i++) {
        const double off = fabs(get(a->real, i) - a->plain[i]);
        if (!(off <= most)) most = off;
        if (fabs(a->plain[i]) > size) size = fabs(a->plain[i]);
    }
    return most == 0 ? 0 : size > 0 ? most / size : most;
}

/* ---- one problem ---- */

static const bp_kernels *kernels;

typedef struct problem {
    bp_conv_shape s;
    array x, w, bias, y, dy, dx, dw;
    bool biased;
    bp_act act;
    char *scratch, *u;
    size_t scratch_bytes, u_bytes;
} problem;

static problem problem_of(bp_conv_shape s, bool biased, bp_act act)
{
    problem p = { .s = s, .biased = biased, .act = act };
    p.x = make(s.n * s.h * s.w * s.c), p.w = make(9 * s.c * s.oc), p.bias = make(s.oc);
    p.y = make(s.n * s.oh * s.ow * s.oc), p.dy = make(p.y.n), p.dx = make(p.x.n), p.dw = make(p.w.n);
    p.scratch_bytes = kernels->winograd_scratch(&s), p.u_bytes = kernels->winograd_weights_size(&s);
    const size_t direct = kernels->conv2d_scratch(&s);
    p.scratch = (char *)allocate(p.scratch_bytes > direct ? p.scratch_bytes : direct);
    p.u = (char *)allocate(p.u_bytes + 64);
    plain_conv2d(&s, p.x.plain, p.w.plain, biased ? p.bias.plain : NULL, act, p.y.plain);
    plain_conv2d_grad_input(&s, p.dy.plain, p.w.plain, p.dx.plain);
    memset(p.dw.plain, 0, (size_t)p.dw.n * sizeof(double));
    plain_conv2d_grad_weight(&s, p.x.plain, p.dy.plain, p.dw.plain);
    return p;
}

static void end(problem *p)
{
    const bp_conv_shape *s = &p->s;
    check(guarded(p->u + p->u_bytes, 64), "wrote beyond the transformed weights", s, 0);
    drop(&p->x, s), drop(&p->w, s), drop(&p->bias, s), drop(&p->y, s), drop(&p->dy, s), drop(&p->dx, s), drop(&p->dw, s);
    free(p->scratch), free(p->u);
}

static int64_t tiles_of(int64_t n, int64_t h, int64_t w) { return n * ((h + 3) / 4) * ((w + 3) / 4); }
static const void *bias_of(const problem *p) { return p->biased ? p->bias.real : NULL; }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* In pieces of `piece` tiles and of 16 channels, of 32 columns where piece is odd; the last first. */
static void forward(problem *p, int64_t piece)
{
    const bp_conv_shape *s = &p->s;
    const int64_t tiles = tiles_of(s->n, s->oh, s->ow), columns = piece % 2 ? 32 : 1000;
    for (int64_t j = (s->oc - 1) / columns * columns; j >= 0; j -= columns) {
        const int64_t end = least(j + columns, s->oc);
        for (int64_t k = 0; k < s->c; k += 16)
            kernels->winograd_weights(s, false, p->w.real, p->u, k, least(k + 16, s->c), j, end, p->scratch);
        for (int64_t t = (tiles - 1) / piece * piece; t >= 0 && tiles > 0; t -= piece)
            kernels->winograd_forward(s, p->x.real, p->u, bias_of(p), p->act, p->y.real, t, least(t + piece, tiles), j, end, p->scratch);
    }
}
static void grad_input(problem *p, int64_t piece)
{
    const bp_conv_shape *s = &p->s;
    const int64_t tiles = tiles_of(s->n, s->h, s->w), columns = piece % 2 ? 32 : 1000;
    for (int64_t j = (s->c - 1) / columns * columns; j >= 0; j -= columns) {
        const int64_t end = least(j + columns, s->c);
        for (int64_t k = 0; k < s->oc; k += 16)
            kernels->winograd_weights(s, true, p->w.real, p->u, k, least(k + 16, s->oc), j, end, p->scratch);
        for (int64_t t = (tiles - 1) / piece * piece; t >= 0 && tiles > 0; t -= piece)
            kernels->winograd_grad_input(s, p->dy.real, p->u, p->dx.real, t, least(t + piece, tiles), j, end, p->scratch);
    }
}
static void grad_weight(problem *p)
{
    const bp_conv_shape *s = &p->s;
    kernels->winograd_grad_weight(s, p->x.real, p->dy.real, p->dw.real, 0, tiles_of(s->n, s->oh, s->ow), p->scratch);
}

static bool same_after(array *a, const void *before) { return memcmp(a->real, before, (size_t)a->n * real_size()) == 0; }

static void random_shape(double eps)
{
    bp_conv_shape s = { .n = chance(3) ? 0 : between(1, 3),
                        .h = between(1, 15),
                        .w = between(1, 15),
                        .c = chance(50) ? between(1, 20) : between(1, 70),
                        .oc = chance(50) ? between(1, 20) : between(1, 70),
                        .kh = 3,
                        .kw = 3,
                        .sh = 1,
                        .sw = 1,
                        .dh = 1,
                        .dw = 1,
                        .ph = between(0, 3),
                        .pw = between(0, 3) };
    if (chance(2)) s.c = between(300, 700), s.h = s.w = between(1, 5); /* several passes */
    s.oh = s.h + s.ph + between(0, 3) - 2;
    s.ow = s.w + s.pw + between(0, 3) - 2;
    if (s.oh < 1) s.oh = 1;
    if (s.ow < 1) s.ow = 1;
    problem p = problem_of(s, chance(50), chance(30) ? BP_ACT_RELU : BP_ACT_NONE);
    /* The error of the sums, of their magnitude: about the root of their length times eps, and some more for the transforms. */
    forward(&p, 1 << 20);
    double off = error_of(&p.y) / eps;
    check(off < 40, "forward is off, in eps", &s, off);
    grad_input(&p, 1 << 20);
    off = error_of(&p.dx) / eps;
    check(off < 40, "grad_input is off, in eps", &s, off);
    grad_weight(&p);
    off = error_of(&p.dw) / eps;
    check(off < 60, "grad_weight is off, in eps", &s, off);

    void *y = allocate((size_t)p.y.n * real_size()), *dx = allocate((size_t)p.dx.n * real_size());
    memcpy(y, p.y.real, (size_t)p.y.n * real_size());
    memcpy(dx, p.dx.real, (size_t)p.dx.n * real_size());
    const int64_t piece = between(1, 30);
    forward(&p, piece);
    grad_input(&p, piece);
    check(same_after(&p.y, y) && same_after(&p.dx, dx), "bits depend on the cut, at tiles", &s, (double)piece);
    free(y), free(dx);
    end(&p);
}

/* ---- how large the error is: Winograd's beside the direct kernels', of numbers in -1..1 ---- */

static void table_row(int64_t size, int64_t c, int64_t oc, double bound)
{
    const bp_conv_shape s = { 4, size, size, c, size, size, oc, 3, 3, 1, 1, 1, 1, 1, 1 };
    problem p = problem_of(s, false, BP_ACT_NONE);
    double found[6];
    forward(&p, 1 << 20), grad_input(&p, 1 << 20), grad_weight(&p);
    found[1] = error_of(&p.y), found[3] = error_of(&p.dx), found[5] = error_of(&p.dw);
    kernels->conv2d_forward(&s, p.x.real, p.w.real, NULL, BP_ACT_NONE, p.y.real, 0, s.n, p.scratch);
    kernels->conv2d_grad_input(&s, p.dy.real, p.w.real, p.dx.real, 0, s.n, p.scratch);
    memset(p.dw.real, 0, (size_t)p.dw.n * real_size());
    kernels->conv2d_grad_weight(&s, p.x.real, p.dy.real, p.dw.real, 0, s.n, 0, s.oc, p.scratch);
    found[0] = error_of(&p.y), found[2] = error_of(&p.dx), found[4] = error_of(&p.dw);
    printf("%-13s %2ldx%-2ld %3ld -> %-3ld  y %.1e direct %.1e   dx %.1e direct %.1e   dw %.1e direct %.1e\n", title, (long)size,
           (long)size, (long)c, (long)oc, found[1], found[0], found[3], found[2], found[5], found[4]);
    for (int i = 1; i < 6; i += 2) check(found[i] < bound, "greatest error, of the greatest result", &s, found[i]);
    end(&p);
}

static void test_table(const bp_kernels *table, bool is_f64, const char *name)
{
    if (!table) {
        printf("skipped %s: this machine or build lacks it\n", name);
        return;
    }
    kernels = table, f64 = is_f64, title = name;
    state = 88172645463325252u;
    for (int i = 0; i < 350; i++) random_shape(is_f64 ? 0x1p-52 : 0x1p-23);
    const double bound = is_f64 ? 1e-14 : 1e-5;
    table_row(24, 32, 64, bound);
    table_row(32, 16, 16, bound);
    table_row(8, 64, 64, bound);
    table_row(8, 128, 256, bound);
}

int main(void)
{
    printf("greatest error of Winograd's and the direct convolution, divided by the greatest result, numbers in -1..1, 4 images:\n");
    test_table(bp_kernels_f32("baseline"), false, "f32 baseline");
    test_table(bp_kernels_f32("avx2"), false, "f32 avx2");
    test_table(bp_kernels_f32("avx512"), false, "f32 avx512");
    test_table(bp_kernels_f64(), true, "f64");
    printf("%ld passed, %ld failed\n", passed, failed);
    return failed ? 1 : 0;
}
