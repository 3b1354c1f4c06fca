/* convolution.h - one two-dimensional convolution or a gradient of it, for any op: which algorithm, and how the work is cut over the
 * threads. */
#ifndef BP_CONVOLUTION_H
#define BP_CONVOLUTION_H

#include "op.h"

typedef enum bp_conv_algorithm { BP_CONV_AUTO, BP_CONV_DIRECT, BP_CONV_WINOGRAD } bp_conv_algorithm;
static const char *const bp_conv_algorithms[] = { "auto", "direct", "winograd", NULL }; /* in the order of bp_conv_algorithm */

typedef struct bp_convolution {
    bp_conv_shape s;
    bp_dtype dtype;
    bp_conv_algorithm algorithm;   /* BP_CONV_WINOGRAD only where bp__winograd_fits */
    const void *x, *w, *dy, *bias; /* those that the direction reads; bias may be NULL */
    bp_act act;
    void *out; /* y, dx or dw */
} bp_convolution;

/* Each fails only for want of scratch. */
bp_status bp__conv_forward(bp_ctx *ctx, const bp_convolution *c);
bp_status bp__conv_grad_input(bp_ctx *ctx, const bp_convolution *c);
bp_status bp__conv_grad_weight(bp_ctx *ctx, const bp_convolution *c);

/* A 3x3 kernel with stride and dilation 1. */
static inline bool bp__winograd_fits(const bp_conv_shape *s)
{
    return s->kh == 3 && s->kw == 3 && s->sh == 1 && s->sw == 1 && s->dh == 1 && s->dw == 1;
}

#endif
