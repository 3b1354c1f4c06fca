/* conv2d_few.h - inside the kernels: what conv2d.c leaves to conv2d_few.c. */
#ifndef BP_CONV2D_FEW_H
#define BP_CONV2D_FEW_H

#include "kernel.h"

/* Fewer channels than lanes. */
static inline bool few_channels(const bp_conv_shape *s) { return s->c < KLANES; }
size_t K(conv2d_few_scratch)(const bp_conv_shape *s);
void K(conv2d_few_grad_input)(const bp_conv_shape *s, const real *dy, const real *w, real *dx, int64_t n0, int64_t n1, void *scratch);

#endif
