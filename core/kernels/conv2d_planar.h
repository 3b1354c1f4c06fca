/* conv2d_planar.h - inside the kernels: what conv2d.c leaves to conv2d_planar.c, and when. */
#ifndef BP_CONV2D_PLANAR_H
#define BP_CONV2D_PLANAR_H

#include "kernel.h"

/* The time of a row of the result, in multiply-adds of a vector, where it goes that way. */
double K(conv2d_planar_cost)(const bp_conv_shape *s, bool gradient);

size_t K(conv2d_planar_scratch)(const bp_conv_shape *s);

/* The forward pass (x to y) or the input gradient (dy to dx) of the images n0..n1-1. */
void K(conv2d_planar_gather)(const bp_conv_shape *s, bool gradient, const real *from, const real *w, const real *bias, bp_act act, real *to,
                             int64_t n0, int64_t n1, void *scratch);
/* dw += what the images n0..n1-1 add. */
void K(conv2d_planar_sum)(const bp_conv_shape *s, const real *x, const real *dy, real *dw, int64_t n0, int64_t n1, void *scratch);

#endif
