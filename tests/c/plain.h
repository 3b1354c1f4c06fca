/* plain.h - the heavy kernels as the shortest loops that can be read against their definition, in f64: the oracle of test_kernels.c.
 * Nothing here is shared with what it checks. */
#ifndef BP_TEST_PLAIN_H
#define BP_TEST_PLAIN_H

#include "kernels/kernels.h"

#include <math.h>

/* C (+)= A B, + bias, then relu; c has g->c_row elements per row. */
static inline void plain_gemm(const bp_gemm *g)
{
    const double *a = (const double *)g->a, *b = (const double *)g->b, *bias = (const double *)g->bias;
    double *c = (double *)g->c;
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t j = 0; j < g->n; j++) {
            double s = g->accumulate ? c[i * g->c_row + j] : 0;
            for (int64_t p = 0; p < g->k; p++) s += a[i * g->a_row + p * g->a_col] * b[p * g->b_row + j * g->b_col];
            if (bias) s += bias[j];
            c[i * g->c_row + j] = g->act == BP_ACT_RELU && s < 0 ? 0 : s;
        }
}

/* Index of x[n][i][j][c], or -1 outside the image. */
static inline int64_t plain_at(int64_t h, int64_t w, int64_t c, int64_t n, int64_t i, int64_t j, int64_t ch)
{
    return i < 0 || i >= h || j < 0 || j >= w ? -1 : ((n * h + i) * w + j) * c + ch;
}

/* Calls visit(x index, w index, y index) for every product in the definition of a convolution. */
#define PLAIN_CONV(s, visit)                                                                                           \
    for (int64_t n = 0; n < (s)->n; n++)                                                                               \
        for (int64_t i = 0; i < (s)->oh; i++)                                                                          \
            for (int64_t j = 0; j < (s)->ow; j++)                                                                      \
                for (int64_t a = 0; a < (s)->kh; a++)                                                                  \
                    for (int64_t b = 0; b < (s)->kw; b++)                                                              \
                        for (int64_t c = 0; c < (s)->c; c++) {                                                         \
                            int64_t xi = plain_at((s)->h, (s)->w, (s)->c, n, i * (s)->sh - (s)->ph + a * (s)->dh,      \
                                                  j * (s)->sw - (s)->pw + b * (s)->dw, c);                             \
                            for (int64_t o = 0; xi >= 0 && o < (s)->oc; o++) {                                         \
                                int64_t wi = ((a * (s)->kw + b) * (s)->c + c) * (s)->oc + o;                           \
                                int64_t yi = ((n * (s)->oh + i) * (s)->ow + j) * (s)->oc + o;                          \
                                visit;                                                                                 \
                            }                                                                                          \
                        }

static inline void plain_conv2d(const bp_conv_shape *s, const double *x, const double *w, const double *bias, bp_act act, double *y)
{
    const int64_t size = s->n * s->oh * s->ow * s->oc;
    for (int64_t i = 0; i < size; i++) y[i] = bias ? bias[i % s->oc] : 0;
    PLAIN_CONV(s, y[yi] += x[xi] * w[wi])
    for (int64_t i = 0; i < size; i++) y[i] = act == BP_ACT_RELU && y[i] < 0 ? 0 : y[i];
}

static inline void plain_conv2d_grad_input(const bp_conv_shape *s, const double *dy, const double *w, double *dx)
{
    for (int64_t i = 0; i < s->n * s->h * s->w * s->c; i++) dx[i] = 0;
    PLAIN_CONV(s, dx[xi] += dy[yi] * w[wi])
}

static inline void plain_conv2d_grad_weight(const bp_conv_shape *s, const double *x, const double *dy, double *dw)
{
    PLAIN_CONV(s, dw[wi] += x[xi] * dy[yi])
}

/* Both poolings and both gradients at once: y and argmax or average, then the gradients of dy. */
static inline void plain_pool2d(const bp_pool_shape *s, const double *x, const double *dy, bool count_padding, double *max, uint8_t *argmax,
                                double *max_dx, double *avg, double *avg_dx)
{
    for (int64_t i = 0; i < s->n * s->h * s->w * s->c; i++) max_dx[i] = avg_dx[i] = 0;
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t i = 0; i < s->oh; i++)
            for (int64_t j = 0; j < s->ow; j++)
                for (int64_t c = 0; c < s->c; c++) {
                    const int64_t at = ((n * s->oh + i) * s->ow + j) * s->c + c;
                    int64_t inside = 0, best = -1;
                    double sum = 0;
                    max[at] = -INFINITY;
                    argmax[at] = 0;
                    for (int64_t tap = 0; tap < s->kh * s->kw; tap++) {
                        const int64_t xi = plain_at(s->h, s->w, s->c, n, i * s->sh - s->ph + tap / s->kw, j * s->sw - s->pw + tap % s->kw,
                                                    c);
                        if (xi < 0) continue;
                        if (inside == 0 || x[xi] > max[at] || isnan(x[xi])) max[at] = x[xi], argmax[at] = (uint8_t)tap, best = xi;
                        sum += x[xi];
                        inside++;
                    }
                    const double by = count_padding ? (double)(s->kh * s->kw) : inside ? (double)inside : 1;
                    avg[at] = sum / by;
                    if (best >= 0) max_dx[best] += dy[at];
                    for (int64_t tap = 0; tap < s->kh * s->kw; tap++) {
                        const int64_t xi = plain_at(s->h, s->w, s->c, n, i * s->sh - s->ph + tap / s->kw, j * s->sw - s->pw + tap % s->kw,
                                                    c);
                        if (xi >= 0) avg_dx[xi] += dy[at] / by;
                    }
                }
}

/* One row: softmax and its logarithm, returns log(sum exp(x)). */
static inline double plain_softmax(int64_t n, const double *x, double *y, double *log_y)
{
    double m = x[0], s = 0;
    for (int64_t j = 1; j < n; j++) m = x[j] > m ? x[j] : m;
    for (int64_t j = 0; j < n; j++) s += exp(x[j] - m);
    for (int64_t j = 0; j < n; j++) {
        y[j] = exp(x[j] - m) / s;
        log_y[j] = x[j] - m - log(s);
    }
    return m + log(s);
}

#endif
