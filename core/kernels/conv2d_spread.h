/* conv2d_spread.h - inside the kernels: what conv2d.c leaves to conv2d_spread.c, and when. */
#ifndef BP_CONV2D_SPREAD_H
#define BP_CONV2D_SPREAD_H

#include "kernel.h"

/* Rows of taps whose products with some pixels of dy are in the first-level cache at a time: all or one. */
enum { SPREAD_PIXELS = 48, SPREAD_BYTES = 32 * 1024 };
static inline int64_t conv_spread_taps(const bp_conv_shape *s)
{
    return s->kh * s->kw * s->c * SPREAD_PIXELS * (int64_t)sizeof(real) <= SPREAD_BYTES ? s->kh : 1;
}

/* The time of a row of dx, in multiply-adds of a vector. Tiles of a single vector run at three fifths of the speed of others; to add a run
 * takes as long as 18 multiply-adds, and 6 for each of its vectors. The height of the image has no say: it may be cut. */
static inline double conv_vectors(int64_t n) { return (double)((n + KLANES - 1) / KLANES); }
static inline double conv_spread_cost(const bp_conv_shape *s)
{
    const int64_t taps = conv_spread_taps(s);
    const double products = conv_vectors(taps * s->kw * s->c) / (double)taps * (double)s->oc;
    const double runs = s->dw == 1 ? 18 + 6 * conv_vectors(s->kw * s->c) : (double)s->kw * (18 + 6 * conv_vectors(s->c));
    return (double)s->kh / (double)s->sh * (double)s->ow * (products + runs);
}
static inline double conv_gather_cost(const bp_conv_shape *s)
{
    const double vectors = s->c <= KLANES ? 1 / 0.6 : conv_vectors(s->c);
    return (double)s->kh / (double)s->sh * (double)(s->w * s->kw) / (double)s->sw * (double)s->oc * vectors;
}
static inline bool conv_spreads(const bp_conv_shape *s) { return conv_spread_cost(s) < conv_gather_cost(s); }

size_t K(conv2d_spread_scratch)(const bp_conv_shape *s);
void K(conv2d_spread_grad_input)(const bp_conv_shape *s, const real *dy, const real *w, real *dx, int64_t n0, int64_t n1, void *scratch);

#endif
