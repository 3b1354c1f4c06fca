/* batch_norm.c - sums down the columns of x [rows][c], and the elementwise passes that use them.
 *
 * Few channels would leave vectors half empty, so u rows of c < WIDE channels are seen as one row of u*c columns, and the u sums of a
 * channel are added at the end. Rows that are left over are added to the first u. Columns that do not come out as vectors are summed in a
 * vector that overlaps the one before. The order of every sum is a function of rows and c.
 *
 * What follows the normalisation, an addend and relu, is done in the same passes, with the arithmetic of the ops it stands for. The way
 * back finds where relu let through by computing its operand again, (x - mean) * scale + shift, to the same bits; with an addend it looks
 * at the result. */
#include "vmath.h"

enum { WIDE = 64, VECS = 4 };

static inline int64_t fold_of(int64_t c) { return c < WIDE ? WIDE / c : 1; }
static inline int64_t width_of(int64_t c) { return c < WIDE ? WIDE : c; }

size_t K(batch_norm_scratch)(int64_t c) { return (size_t)(5 * width_of(c)) * sizeof(real); }

/* SUM_X: s = sum x.  SUM_SQUARES: s = sum (x - mean)^2.  The others: s = sum g, t = sum g * (x - mean), where
 * SUM_DY: g = dy.  SUM_RELU: g = dy where (x - mean) * scale + shift > 0.  SUM_BLOCK: g = dy (+ more) where y > 0, stored in dz. */
typedef enum sum_kind { SUM_X, SUM_SQUARES, SUM_DY, SUM_RELU, SUM_BLOCK } sum_kind;

typedef struct columns {
    const real *x, *dy, *more, *y; /* [rows][c]; more: may be NULL */
    real *dz;                      /* [rows][c]; may be dy or more */
    const real *mean, *scale, *shift;
    real *s, *t;
} columns;

/* Columns j .. j + vecs*KLANES - 1, summed in registers. The first `skip` of them belong to another block, which writes their dz. */
static inline __attribute__((always_inline)) void sum_block(sum_kind kind, bool more, int vecs, int64_t rows, int64_t c, const columns *k,
                                                            int64_t j, int64_t skip)
{
    vec a[VECS], b[VECS], m[VECS];
    for (int v = 0; v < vecs; v++) {
        a[v] = b[v] = (vec){ 0 };
        m[v] = kind == SUM_X ? (vec){ 0 } : vec_load(k->mean + j + v * KLANES);
    }
    for (int64_t r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) {
            const int64_t column = j + v * KLANES, at = r * c + column;
            const vec x = vec_load(k->x + at);
            if (kind == SUM_X) {
                a[v] += x;
                continue;
            }
            const vec d = x - m[v];
            if (kind == SUM_SQUARES) {
                a[v] += d * d;
                continue;
            }
            vec g = vec_load(k->dy + at);
            if (kind == SUM_RELU) g = vec_keep(d * vec_load(k->scale + column) + vec_load(k->shift + column) > 0, g);
            if (kind == SUM_BLOCK) {
                if (more) g += vec_load(k->more + at);
                g = vec_keep(vec_load(k->y + at) > 0, g);
                if (skip == 0)
                    vec_store(k->dz + at, g);
                else
                    for (int64_t l = skip; l < KLANES; l++) k->dz[at + l] = g[l];
            }
            a[v] += g;
            b[v] += g * d;
        }
    for (int v = 0; v < vecs; v++) {
        vec_store(k->s + j + v * KLANES, a[v]);
        if (kind >= SUM_DY) vec_store(k->t + j + v * KLANES, b[v]);
    }
}

/* Element `at` of the arrays, in column j. */
static inline __attribute__((always_inline)) void sum_element(sum_kind kind, bool more, const columns *k, int64_t at, int64_t j)
{
    const real x = k->x[at];
    if (kind == SUM_X) {
        k->s[j] += x;
        return;
    }
    const real d = x - k->mean[j];
    if (kind == SUM_SQUARES) {
        k->s[j] += d * d;
        return;
    }
    real g = k->dy[at];
    if (kind == SUM_RELU) g = d * k->scale[j] + k->shift[j] > 0 ? g : 0;
    if (kind == SUM_BLOCK) {
        if (more) g += k->more[at];
        g = k->y[at] > 0 ? g : 0;
        k->dz[at] = g;
    }
    k->s[j] += g;
    k->t[j] += g * d;
}

/* c is at least KLANES */
static inline __attribute__((always_inline)) void sum_columns(sum_kind kind, bool more, int64_t rows, int64_t c, const columns *k)
{
    const int64_t whole = c / KLANES * KLANES;
    int64_t j = 0;
    if (whole < c) sum_block(kind, more, 1, rows, c, k, c - KLANES, whole - (c - KLANES)); /* first: dz may lie where dy does */
    for (; j + VECS * KLANES <= whole; j += VECS * KLANES) sum_block(kind, more, VECS, rows, c, k, j, 0);
    for (; j + 2 * KLANES <= whole; j += 2 * KLANES) sum_block(kind, more, 2, rows, c, k, j, 0);
    for (; j < whole; j += KLANES) sum_block(kind, more, 1, rows, c, k, j, 0);
}

/* The same with u rows side by side: the arrays per channel hold u copies. sums[j] and dots[j] receive the channels' totals. */
static inline __attribute__((always_inline)) void sum_channels(sum_kind kind, bool more, int64_t rows, int64_t c, const columns *k,
                                                               double *sums, double *dots)
{
    const int64_t u = fold_of(c), whole = rows / u;
    sum_columns(kind, more, whole, u * c, k);
    for (int64_t i = whole * u * c; i < rows * c; i++) sum_element(kind, more, k, i, i - whole * u * c);
    for (int64_t j = 0; j < c; j++) {
        double a = 0, b = 0;
        for (int64_t i = 0; i < u; i++) {
            a += (double)k->s[i * c + j];
            if (kind >= SUM_DY) b += (double)k->t[i * c + j];
        }
        sums[j] = a;
        if (kind >= SUM_DY) dots[j] = b;
    }
}

/* u copies of an array of c, in `wide`, where there are few channels; else the array itself. */
static const real *widened(int64_t c, const void *from, real *wide)
{
    const int64_t u = fold_of(c);
    const real *v = (const real *)from;
    if (u == 1 || !v) return v;
    for (int64_t k = 0; k < u; k++)
        for (int64_t j = 0; j < c; j++) wide[k * c + j] = v[j];
    return wide;
}

void K(batch_norm_stats)(int64_t rows, int64_t c, const void *x, double *mean, double *squares, void *scratch)
{
    real *s = (real *)scratch, *m = s + width_of(c);
    const columns k = { .x = (const real *)x, .mean = m, .s = s };
    const int64_t u = fold_of(c);
    sum_channels(SUM_X, false, rows, c, &k, mean, mean);
    for (int64_t j = 0; j < c; j++) {
        mean[j] /= (double)rows;
        for (int64_t i = 0; i < u; i++) m[i * c + j] = (real)mean[j];
    }
    sum_channels(SUM_SQUARES, false, rows, c, &k, squares, squares);
}

void K(batch_norm_sums)(int64_t rows, int64_t c, const void *dy, const void *x, const void *mean, const void *scale, const void *shift,
                        double *sum, double *dot, void *scratch)
{
    real *s = (real *)scratch, *t = s + width_of(c), *wide = t + width_of(c);
    const columns k = { .x = (const real *)x,
                        .dy = (const real *)dy,
                        .mean = widened(c, mean, wide),
                        .scale = widened(c, scale, wide + width_of(c)),
                        .shift = widened(c, shift, wide + 2 * width_of(c)),
                        .s = s,
                        .t = t };
    if (shift)
        sum_channels(SUM_RELU, false, rows, c, &k, sum, dot);
    else
        sum_channels(SUM_DY, false, rows, c, &k, sum, dot);
}

void K(batch_norm_block_sums)(int64_t rows, int64_t c, const void *dy, const void *more, const void *y, const void *x, const void *mean,
                              void *dz, double *sum, double *dot, void *scratch)
{
    real *s = (real *)scratch, *t = s + width_of(c);
    const columns k = { .x = (const real *)x,
                        .dy = (const real *)dy,
                        .more = (const real *)more,
                        .y = (const real *)y,
                        .dz = (real *)dz,
                        .mean = widened(c, mean, t + width_of(c)),
                        .s = s,
                        .t = t };
    if (more)
        sum_channels(SUM_BLOCK, true, rows, c, &k, sum, dot);
    else
        sum_channels(SUM_BLOCK, false, rows, c, &k, sum, dot);
}

/* ---- elementwise passes; results may lie where x, dy or the addend do ---- */

static inline __attribute__((always_inline)) void apply(bool more, bp_act act, int64_t n, int64_t width, const real *x, const real *m,
                                                        const real *a, const real *b, const real *addend, real *y)
{
    for (int64_t i = 0; i < n; i += width) {
        const int64_t w = n - i < width ? n - i : width;
#pragma GCC ivdep
        for (int64_t j = 0; j < w; j++) {
            real v = (x[i + j] - m[j]) * a[j] + b[j];
            if (more) v += addend[i + j];
            y[i + j] = act == BP_ACT_RELU && v <= 0 ? 0 : v; /* NaN stays */
        }
    }
}

void K(batch_norm_apply)(int64_t rows, int64_t c, const void *x, const void *mean, const void *scale, const void *shift, const void *addend,
                         bp_act act, void *y)
{
    real wide[3][WIDE];
    const real *m = widened(c, mean, wide[0]), *a = widened(c, scale, wide[1]), *b = widened(c, shift, wide[2]);
    const int64_t n = rows * c, width = fold_of(c) * c;
#define APPLY(more, act) apply(more, act, n, width, (const real *)x, m, a, b, (const real *)addend, (real *)y)
    if (act == BP_ACT_RELU) {
        if (addend)
            APPLY(true, BP_ACT_RELU);
        else
            APPLY(false, BP_ACT_RELU);
    } else if (addend)
        APPLY(true, BP_ACT_NONE);
    else
        APPLY(false, BP_ACT_NONE);
#undef APPLY
}

static inline __attribute__((always_inline)) void grad(bool relu, int64_t n, int64_t width, const real *dy, const real *x, const real *m,
                                                       const real *a, const real *b, const real *p, const real *q, real *dx)
{
    for (int64_t i = 0; i < n; i += width) {
        const int64_t w = n - i < width ? n - i : width;
#pragma GCC ivdep
        for (int64_t j = 0; j < w; j++) {
            const real d = x[i + j] - m[j], g = !relu || d * a[j] + b[j] > 0 ? dy[i + j] : 0;
            dx[i + j] = a[j] * (g - p[j] - d * q[j]);
        }
    }
}

void K(batch_norm_grad)(int64_t rows, int64_t c, const void *dy, const void *x, const void *mean, const void *scale, const void *shift,
                        const void *p, const void *q, void *dx)
{
    real wide[5][WIDE];
    const real *m = widened(c, mean, wide[0]), *a = widened(c, scale, wide[1]), *b = widened(c, shift, wide[2]);
    const real *pw = widened(c, p, wide[3]), *qw = widened(c, q, wide[4]);
    const int64_t n = rows * c, width = fold_of(c) * c;
    if (shift)
        grad(true, n, width, (const real *)dy, (const real *)x, m, a, b, pw, qw, (real *)dx);
    else
        grad(false, n, width, (const real *)dy, (const real *)x, m, a, b, pw, qw, (real *)dx);
}
