/* pool2d.c - 2-d pooling, NHWC.
 *
 *     max     y[i][j][c] = max over taps (a,b) inside the image of x[i*sh - ph + a][j*sw - pw + b][c];  argmax = a*kw + b of the first
 *             greatest. NaN wins, as it does in every reduction here.
 *     average y[i][j][c] = sum over the same taps / (kh*kw, or the number of taps inside)
 *
 * Channels are the vectors. The maximum keeps value and tap in registers over all taps; its last vector overlaps the one before, which
 * is harmless since it stores the same again. The gradients add into a cleared image, output pixels in order. */
#include "vmath.h"

#include <string.h>

typedef uint8_t bytes __attribute__((vector_size(KLANES), aligned(1), may_alias));

/* The taps of output position t that fall inside. */
typedef struct window {
    int64_t low, high; /* taps low..high-1 */
    int64_t at;        /* input position of tap 0, perhaps negative */
} window;

static window window_of(int64_t t, int64_t stride, int64_t before, int64_t taps, int64_t size)
{
    window w = { 0, taps, t * stride - before };
    if (w.at < 0) w.low = -w.at < taps ? -w.at : taps;
    if (w.at + taps > size) w.high = size - w.at;
    if (w.high < w.low) w.high = w.low;
    return w;
}

/* One output pixel with c >= KLANES. x is where tap (0,0) of channel 0 would be. */
static void max_vectors(const bp_pool_shape *s, const window *row, const window *col, const real *x, real *y, uint8_t *argmax)
{
    for (int64_t c = 0; c < s->c; c += KLANES) {
        if (c + KLANES > s->c) c = s->c - KLANES;
        vec best = vec_load(x + (row->low * s->w + col->low) * s->c + c);
        vec_i tap = (lane_int)(row->low * s->kw + col->low) + (vec_i){ 0 };
        for (int64_t a = row->low; a < row->high; a++)
            for (int64_t b = col->low; b < col->high; b++) {
                const vec v = vec_load(x + (a * s->w + b) * s->c + c);
                const vec_i take = (v > best) | (v != v);
                best = vec_select(take, v, best);
                tap = (tap & ~take) | (take & ((lane_int)(a * s->kw + b) + (vec_i){ 0 }));
            }
        vec_store(y + c, best);
        if (argmax) *(bytes *)(argmax + c) = __builtin_convertvector(tap, bytes);
    }
}

/* The same for a few channels. */
static void max_scalars(const bp_pool_shape *s, const window *row, const window *col, const real *x, real *y, uint8_t *argmax)
{
    for (int64_t c = 0; c < s->c; c++) {
        real best = x[(row->low * s->w + col->low) * s->c + c];
        int64_t tap = row->low * s->kw + col->low;
        for (int64_t a = row->low; a < row->high; a++)
            for (int64_t b = col->low; b < col->high; b++) {
                const real v = x[(a * s->w + b) * s->c + c];
                if (v > best || v != v) {
                    best = v;
                    tap = a * s->kw + b;
                }
            }
        y[c] = best;
        if (argmax) argmax[c] = (uint8_t)tap;
    }
}

void K(max_pool2d)(const bp_pool_shape *s, const void *x, void *y, uint8_t *argmax, int64_t n0, int64_t n1)
{
    for (int64_t n = n0; n < n1; n++)
        for (int64_t i = 0; i < s->oh; i++) {
            const window row = window_of(i, s->sh, s->ph, s->kh, s->h);
            for (int64_t j = 0; j < s->ow; j++) {
                const window col = window_of(j, s->sw, s->pw, s->kw, s->w);
                const int64_t at = ((n * s->oh + i) * s->ow + j) * s->c;
                const real *from = (const real *)x + ((n * s->h + row.at) * s->w + col.at) * s->c;
                real *to = (real *)y + at;
                uint8_t *arg = argmax ? argmax + at : NULL;
                if (row.low == row.high || col.low == col.high) {
                    for (int64_t c = 0; c < s->c; c++) to[c] = -VEC_INF;
                    if (arg) memset(arg, 0, (size_t)s->c);
                } else if (s->c >= KLANES)
                    max_vectors(s, &row, &col, from, to, arg);
                else
                    max_scalars(s, &row, &col, from, to, arg);
            }
        }
}

void K(max_pool2d_grad)(const bp_pool_shape *s, const void *dy, const uint8_t *argmax, void *dx, int64_t n0, int64_t n1)
{
    int64_t tap_at[256]; /* where a tap lies, from tap 0 */
    for (int64_t tap = 0; tap < s->kh * s->kw && tap < 256; tap++) tap_at[tap] = (tap / s->kw * s->w + tap % s->kw) * s->c;

    const int64_t image = s->h * s->w * s->c;
    memset((real *)dx + n0 * image, 0, (size_t)((n1 - n0) * image) * sizeof(real));
    for (int64_t n = n0; n < n1; n++)
        for (int64_t i = 0; i < s->oh; i++) {
            const window row = window_of(i, s->sh, s->ph, s->kh, s->h);
            for (int64_t j = 0; j < s->ow; j++) {
                const window col = window_of(j, s->sw, s->pw, s->kw, s->w);
                if (row.low == row.high || col.low == col.high) continue;
                const int64_t at = ((n * s->oh + i) * s->ow + j) * s->c;
                real *to = (real *)dx + ((n * s->h + row.at) * s->w + col.at) * s->c;
                for (int64_t c = 0; c < s->c; c++) to[tap_at[argmax[at + c]] + c] += ((const real *)dy)[at + c];
            }
        }
}

/* What the sum of a window is divided by. */
static real divisor(const bp_pool_shape *s, const window *row, const window *col, bool count_padding)
{
    const int64_t inside = (row->high - row->low) * (col->high - col->low);
    return (real)(count_padding ? s->kh * s->kw : inside > 0 ? inside : 1);
}

void K(avg_pool2d)(const bp_pool_shape *s, const void *x, void *y, bool count_padding, int64_t n0, int64_t n1)
{
    for (int64_t n = n0; n < n1; n++)
        for (int64_t i = 0; i < s->oh; i++) {
            const window row = window_of(i, s->sh, s->ph, s->kh, s->h);
            for (int64_t j = 0; j < s->ow; j++) {
                const window col = window_of(j, s->sw, s->pw, s->kw, s->w);
                real *restrict to = (real *)y + ((n * s->oh + i) * s->ow + j) * s->c;
                memset(to, 0, (size_t)s->c * sizeof(real));
                for (int64_t a = row.low; a < row.high; a++)
                    for (int64_t b = col.low; b < col.high; b++) {
                        const real *restrict from = (const real *)x + ((n * s->h + row.at + a) * s->w + col.at + b) * s->c;
                        for (int64_t c = 0; c < s->c; c++) to[c] += from[c];
                    }
                const real by = divisor(s, &row, &col, count_padding);
                for (int64_t c = 0; c < s->c; c++) to[c] /= by;
            }
        }
}

void K(avg_pool2d_grad)(const bp_pool_shape *s, const void *dy, void *dx, bool count_padding, int64_t n0, int64_t n1)
{
    const int64_t image = s->h * s->w * s->c;
    memset((real *)dx + n0 * image, 0, (size_t)((n1 - n0) * image) * sizeof(real));
    for (int64_t n = n0; n < n1; n++)
        for (int64_t i = 0; i < s->oh; i++) {
            const window row = window_of(i, s->sh, s->ph, s->kh, s->h);
            for (int64_t j = 0; j < s->ow; j++) {
                const window col = window_of(j, s->sw, s->pw, s->kw, s->w);
                const real *restrict from = (const real *)dy + ((n * s->oh + i) * s->ow + j) * s->c;
                const real by = divisor(s, &row, &col, count_padding);
                for (int64_t a = row.low; a < row.high; a++)
                    for (int64_t b = col.low; b < col.high; b++) {
                        real *restrict to = (real *)dx + ((n * s->h + row.at + a) * s->w + col.at + b) * s->c;
                        for (int64_t c = 0; c < s->c; c++) to[c] += from[c] / by;
                    }
            }
        }
}
