/* softmax.c - over rows of n, contiguous, with their gradients, and cross-entropy of integer labels from logits.
 *
 *     softmax      y_j = e_j / s                  with m = max x, e_j = exp(x_j - m), s = sum of e_j
 *     log_softmax  y_j = (x_j - m) - log s
 *     cross_entropy    = log s - (x_label - m)
 *
 * Subtracting the maximum keeps every exponent at or below zero, so that s lies in 1..n. A row with NaN or +inf is NaN throughout.
 * Sums run over KLANES partial sums, lane j mod KLANES taking element j, and then over the lanes as vec_across_sum has it; a row's end is
 * padded with what does not count, so the sum depends on the row alone. */
#include "vmath.h"

#include <string.h>

/* The last elements of a row, the lanes beyond it filled. */
static vec load_end(const real *x, int64_t count, real filler)
{
    real line[KLANES];
    for (int i = 0; i < KLANES; i++) line[i] = i < count ? x[i] : filler;
    return vec_load(line);
}

static vec load_some(const real *x, int64_t left, real filler) { return left >= KLANES ? vec_load(x) : load_end(x, left, filler); }

static void store_some(real *y, vec v, int64_t left)
{
    if (left >= KLANES)
        vec_store(y, v);
    else
        memcpy(y, &v, (size_t)left * sizeof(real));
}

/* NaN if there is one. */
static real row_max(int64_t n, const real *x)
{
    const real least = -VEC_INF;
    vec most = vec_set(least);
    for (int64_t j = 0; j < n; j += KLANES) most = vec_max(load_some(x + j, n - j, least), most);
    return vec_across_max(most)[0];
}

/* The sum of exp(x - m); the terms are written to e unless it is NULL. */
static real exp_sum(int64_t n, const real *x, real m, real *e)
{
    vec sum = { 0 };
    for (int64_t j = 0; j < n; j += KLANES) {
        const vec v = vec_exp_below(load_some(x + j, n - j, -VEC_INF) - m);
        sum += v;
        if (e) store_some(e + j, v, n - j);
    }
    return vec_across_sum(sum)[0];
}

static real log_of(real x) { return sizeof(real) == sizeof(double) ? (real)log((double)x) : (real)logf((float)x); }

void K(softmax)(int64_t rows, int64_t n, const void *x, void *y)
{
    for (int64_t i = 0; i < rows; i++) {
        const real *from = (const real *)x + i * n;
        real *to = (real *)y + i * n;
        const real s = exp_sum(n, from, row_max(n, from), to);
        for (int64_t j = 0; j < n; j++) to[j] /= s;
    }
}

void K(log_softmax)(int64_t rows, int64_t n, const void *x, void *y)
{
    for (int64_t i = 0; i < rows; i++) {
        const real *from = (const real *)x + i * n;
        real *to = (real *)y + i * n;
        const real m = row_max(n, from), log_s = log_of(exp_sum(n, from, m, NULL));
        for (int64_t j = 0; j < n; j++) to[j] = (from[j] - m) - log_s;
    }
}

void K(softmax_grad)(int64_t rows, int64_t n, const void *dy, const void *y, void *dx)
{
    for (int64_t i = 0; i < rows; i++) {
        const real *d = (const real *)dy + i * n, *out = (const real *)y + i * n;
        real *to = (real *)dx + i * n;
        vec sum = { 0 };
        for (int64_t j = 0; j < n; j += KLANES) sum += load_some(d + j, n - j, 0) * load_some(out + j, n - j, 0);
        const real s = vec_across_sum(sum)[0];
        for (int64_t j = 0; j < n; j++) to[j] = out[j] * (d[j] - s);
    }
}

void K(log_softmax_grad)(int64_t rows, int64_t n, const void *dy, const void *y, void *dx)
{
    for (int64_t i = 0; i < rows; i++) {
        const real *d = (const real *)dy + i * n, *out = (const real *)y + i * n;
        real *to = (real *)dx + i * n;
        vec sum = { 0 };
        for (int64_t j = 0; j < n; j += KLANES) sum += load_some(d + j, n - j, 0);
        const real s = vec_across_sum(sum)[0];
        for (int64_t j = 0; j < n; j += KLANES)
            store_some(to + j, load_some(d + j, n - j, 0) - vec_exp(load_some(out + j, n - j, 0)) * s, n - j);
    }
}

void K(cross_entropy)(int64_t rows, int64_t n, const void *x, const int64_t *label, void *loss)
{
    for (int64_t i = 0; i < rows; i++) {
        const real *from = (const real *)x + i * n;
        const real m = row_max(n, from);
        ((real *)loss)[i] = log_of(exp_sum(n, from, m, NULL)) - (from[label[i]] - m);
    }
}

void K(cross_entropy_grad)(int64_t rows, int64_t n, const void *x, const int64_t *label, const void *scale, void *dx)
{
    for (int64_t i = 0; i < rows; i++) {
        const real *from = (const real *)x + i * n;
        real *to = (real *)dx + i * n;
        const int64_t right = label[i];
        const real s = exp_sum(n, from, row_max(n, from), to), by = ((const real *)scale)[i];
        for (int64_t j = 0; j < n; j++) to[j] = by * (to[j] / s - (real)(j == right));
    }
}
