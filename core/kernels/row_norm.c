/* row_norm.c - layer and RMS normalisation: every row of x [rows][c] by its own statistics, each row read from the cache after the first
 * pass.
 *
 *     y = (x - mean) * inv * scale + shift          inv = 1 / sqrt(mean((x - mean)^2) + eps)         RMS: mean = 0
 *
 * Gradient, with n = (x - mean) * inv and g = dy * scale:
 *
 *     dx = inv * (g - mean(g) - n * mean(g * n))    dscale += dy * n     dshift += dy                RMS: without mean(g)
 *
 * Sums run over KLANES partial sums, lane j mod KLANES taking element j, then over the lanes as vec_across_sum has it: a row's result
 * depends on the row alone. */
#include "vmath.h"

/* The last elements of a row; the lanes beyond it are 0. */
static vec load_end(const real *x, int64_t count)
{
    real line[KLANES] = { 0 };
    for (int64_t i = 0; i < count; i++) line[i] = x[i];
    return vec_load(line);
}

static real row_mean(int64_t c, const real *x)
{
    vec sum = { 0 };
    int64_t j = 0;
    for (; j + KLANES <= c; j += KLANES) sum += vec_load(x + j);
    if (j < c) sum += load_end(x + j, c - j);
    return vec_across_sum(sum)[0] / (real)c;
}

static real row_squares(int64_t c, const real *x, real mean)
{
    vec sum = { 0 };
    int64_t j = 0;
    for (; j + KLANES <= c; j += KLANES) {
        const vec d = vec_load(x + j) - mean;
        sum += d * d;
    }
    real rest[KLANES] = { 0 };
    for (int64_t i = 0; j + i < c; i++) rest[i] = x[j + i] - mean;
    const vec d = vec_load(rest);
    return vec_across_sum(sum + d * d)[0] / (real)c;
}

void K(row_norm)(int64_t rows, int64_t c, bool center, double eps, const void *xv, const void *scale, const void *shift, void *yv,
                 void *mean, void *inv)
{
    const real *const a = (const real *)scale, *const b = (const real *)shift;
    for (int64_t i = 0; i < rows; i++) {
        const real *restrict x = (const real *)xv + i * c;
        real *restrict y = (real *)yv + i * c;
        const real m = center ? row_mean(c, x) : 0;
        const real by = (real)(1 / sqrt((double)row_squares(c, x, m) + eps));
        if (center) ((real *)mean)[i] = m;
        ((real *)inv)[i] = by;
        for (int64_t j = 0; j < c; j++) y[j] = (x[j] - m) * by * a[j] + b[j];
    }
}

void K(row_norm_grad)(int64_t rows, int64_t c, bool center, const void *dyv, const void *xv, const void *scale, const void *mean,
                      const void *inv, void *dxv, void *dscale, void *dshift)
{
    const real *restrict a = (const real *)scale;
    real *restrict da = (real *)dscale, *restrict db = (real *)dshift;
    for (int64_t i = 0; i < rows; i++) {
        const real *restrict x = (const real *)xv + i * c, *restrict dy = (const real *)dyv + i * c;
        real *restrict dx = (real *)dxv + i * c;
        const real m = center ? ((const real *)mean)[i] : 0, by = ((const real *)inv)[i];
        vec sum = { 0 }, dot = { 0 };
        int64_t j = 0;
        for (; j + KLANES <= c; j += KLANES) {
            const vec d = vec_load(dy + j), n = (vec_load(x + j) - m) * by, g = d * vec_load(a + j);
            sum += g;
            dot += g * n;
            vec_store(da + j, vec_load(da + j) + d * n);
            vec_store(db + j, vec_load(db + j) + d);
        }
        real rest[2][KLANES] = { { 0 } };
        for (int64_t l = 0; j + l < c; l++) {
            const real d = dy[j + l], n = (x[j + l] - m) * by, g = d * a[j + l];
            rest[0][l] = g;
            rest[1][l] = g * n;
            da[j + l] += d * n;
            db[j + l] += d;
        }
        const real p = center ? vec_across_sum(sum + vec_load(rest[0]))[0] / (real)c : 0,
                   q = vec_across_sum(dot + vec_load(rest[1]))[0] / (real)c;
        for (j = 0; j < c; j++) dx[j] = by * (dy[j] * a[j] - p - (x[j] - m) * by * q);
    }
}

void K(channel_grad)(int64_t rows, int64_t c, const void *dyv, const void *xv, const void *mean, const void *scale, const void *p,
                     const void *q, void *dxv)
{
    const real *restrict m = (const real *)mean, *restrict a = (const real *)scale, *restrict b = (const real *)p,
                         *restrict d = (const real *)q;
    for (int64_t i = 0; i < rows; i++) {
        const real *restrict x = (const real *)xv + i * c, *restrict dy = (const real *)dyv + i * c;
        real *restrict dx = (real *)dxv + i * c;
        for (int64_t j = 0; j < c; j++) dx[j] = a[j] * dy[j] - b[j] - (x[j] - m[j]) * d[j];
    }
}
