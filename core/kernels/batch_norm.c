/* batch_norm.c - sums down the columns of x [rows][c], and the elementwise passes that use them.
 *
 * Few channels would leave vectors half empty, so u rows of c < NARROW channels are seen as one row of u*c columns, and the u sums of a
 * channel are added at the end. Rows that are left over are added to the first u. The order of every sum is a function of rows and c. */
#include "kernel.h"

enum { NARROW = 32, WIDE = 64, VECS = 4 };

static inline int64_t fold_of(int64_t c) { return c < NARROW ? WIDE / c : 1; }
static inline int64_t width_of(int64_t c) { return c < WIDE ? WIDE : c; }

size_t K(batch_norm_scratch)(int64_t c) { return (size_t)(3 * width_of(c)) * sizeof(real); }

typedef enum sum_kind { SUM_X, SUM_SQUARES, SUM_DY } sum_kind;

/* Columns j .. j + vecs*KLANES - 1, summed in registers.
 * SUM_X: s = sum x.  SUM_SQUARES: s = sum (x - mean)^2.  SUM_DY: s = sum dy, t = sum dy * (x - mean). */
static inline __attribute__((always_inline)) void sum_block(sum_kind kind, int vecs, int64_t rows, int64_t c, const real *dy, const real *x,
                                                            const real *mean, real *s, real *t)
{
    vec a[VECS], b[VECS], m[VECS];
    for (int v = 0; v < vecs; v++) {
        a[v] = b[v] = (vec){ 0 };
        m[v] = kind == SUM_X ? (vec){ 0 } : vec_load(mean + v * KLANES);
    }
    for (int64_t r = 0; r < rows; r++)
        for (int v = 0; v < vecs; v++) {
            vec value = vec_load(x + r * c + v * KLANES);
            if (kind == SUM_X) {
                a[v] += value;
            } else if (kind == SUM_SQUARES) {
                vec d = value - m[v];
                a[v] += d * d;
            } else {
                vec g = vec_load(dy + r * c + v * KLANES);
                a[v] += g;
                b[v] += g * (value - m[v]);
            }
        }
    for (int v = 0; v < vecs; v++) {
        vec_store(s + v * KLANES, a[v]);
        if (kind == SUM_DY) vec_store(t + v * KLANES, b[v]);
    }
}

static inline __attribute__((always_inline)) void sum_element(sum_kind kind, real dy, real x, real mean, real *s, real *t)
{
    if (kind == SUM_X) {
        *s += x;
    } else if (kind == SUM_SQUARES) {
        real d = x - mean;
        *s += d * d;
    } else {
        *s += dy;
        *t += dy * (x - mean);
    }
}

static inline __attribute__((always_inline)) void sum_columns(sum_kind kind, int64_t rows, int64_t c, const real *dy, const real *x,
                                                              const real *mean, real *s, real *t)
{
    int64_t j = 0;
    for (; j + VECS * KLANES <= c; j += VECS * KLANES) sum_block(kind, VECS, rows, c, dy + j, x + j, mean + j, s + j, t + j);
    for (; j + KLANES <= c; j += KLANES) sum_block(kind, 1, rows, c, dy + j, x + j, mean + j, s + j, t + j);
    for (; j < c; j++) {
        s[j] = 0;
        if (kind == SUM_DY) t[j] = 0;
        for (int64_t r = 0; r < rows; r++) sum_element(kind, dy[r * c + j], x[r * c + j], mean[j], s + j, t + j);
    }
}

/* The same with u rows side by side. mean holds u copies of the channels' means; sums[j] and dots[j] receive the channels' totals. */
static inline __attribute__((always_inline)) void sum_channels(sum_kind kind, int64_t rows, int64_t c, const real *dy, const real *x,
                                                               const real *mean, real *s, real *t, double *sums, double *dots)
{
    const int64_t u = fold_of(c), whole = rows / u;
    sum_columns(kind, whole, u * c, dy, x, mean, s, t);
    for (int64_t i = whole * u * c; i < rows * c; i++) {
        int64_t j = i - whole * u * c;
        sum_element(kind, dy[i], x[i], mean[j], s + j, t + j);
    }
    for (int64_t j = 0; j < c; j++) {
        double a = 0, b = 0;
        for (int64_t k = 0; k < u; k++) {
            a += (double)s[k * c + j];
            if (kind == SUM_DY) b += (double)t[k * c + j];
        }
        sums[j] = a;
        if (kind == SUM_DY) dots[j] = b;
    }
}

void K(batch_norm_stats)(int64_t rows, int64_t c, const void *xv, double *mean, double *squares, void *scratch)
{
    const real *x = (const real *)xv;
    real *s = (real *)scratch, *m = s + width_of(c);
    const int64_t u = fold_of(c);
    sum_channels(SUM_X, rows, c, x, x, m, s, s, mean, mean);
    for (int64_t j = 0; j < c; j++) {
        mean[j] /= (double)rows;
        for (int64_t k = 0; k < u; k++) m[k * c + j] = (real)mean[j];
    }
    sum_channels(SUM_SQUARES, rows, c, x, x, m, s, s, squares, squares);
}

void K(batch_norm_sums)(int64_t rows, int64_t c, const void *dy, const void *x, const void *mean, double *sum, double *dot, void *scratch)
{
    real *s = (real *)scratch, *t = s + width_of(c), *m = t + width_of(c);
    for (int64_t k = 0; k < fold_of(c); k++)
        for (int64_t j = 0; j < c; j++) m[k * c + j] = ((const real *)mean)[j];
    sum_channels(SUM_DY, rows, c, (const real *)dy, (const real *)x, m, s, t, sum, dot);
}

/* u copies of an array of c, in `wide`, where there are few channels; else the array itself. */
static const real *widened(int64_t c, const void *from, real *wide)
{
    const int64_t u = fold_of(c);
    const real *v = (const real *)from;
    if (u == 1) return v;
    for (int64_t k = 0; k < u; k++)
        for (int64_t j = 0; j < c; j++) wide[k * c + j] = v[j];
    return wide;
}

void K(batch_norm_apply)(int64_t rows, int64_t c, const void *xv, const void *mean, const void *scale, const void *shift, void *yv)
{
    real wide[3][WIDE];
    const real *m = widened(c, mean, wide[0]), *a = widened(c, scale, wide[1]), *b = widened(c, shift, wide[2]);
    const real *x = (const real *)xv;
    real *y = (real *)yv;
    const int64_t width = fold_of(c) * c, n = rows * c;
    for (int64_t i = 0; i < n; i += width) {
        const int64_t w = n - i < width ? n - i : width;
#pragma GCC ivdep
        for (int64_t j = 0; j < w; j++) y[i + j] = (x[i + j] - m[j]) * a[j] + b[j];
    }
}

void K(batch_norm_grad)(int64_t rows, int64_t c, const void *dyv, const void *xv, const void *mean, const void *scale, const void *p,
                        const void *q, void *dxv)
{
    real wide[4][WIDE];
    const real *m = widened(c, mean, wide[0]), *a = widened(c, scale, wide[1]), *pw = widened(c, p, wide[2]), *qw = widened(c, q, wide[3]);
    const real *x = (const real *)xv, *dy = (const real *)dyv;
    real *dx = (real *)dxv;
    const int64_t width = fold_of(c) * c, n = rows * c;
    for (int64_t i = 0; i < n; i += width) {
        const int64_t w = n - i < width ? n - i : width;
#pragma GCC ivdep
        for (int64_t j = 0; j < w; j++) dx[i + j] = a[j] * (dy[i + j] - pw[j] - (x[i + j] - m[j]) * qw[j]);
    }
}
