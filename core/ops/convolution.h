/* convolution.h - one two-dimensional convolution or a gradient of it, for any op: which algorithm, and how the work is cut over the
 * threads. */
#ifndef BP_CONVOLUTION_H
#define BP_CONVOLUTION_H

#include "op.h"
#include "reduction.h"
#include "relu_mask.h"

typedef enum bp_conv_algorithm { BP_CONV_AUTO, BP_CONV_DIRECT, BP_CONV_WINOGRAD } bp_conv_algorithm;
static const char *const bp_conv_algorithms[] = { "auto", "direct", "winograd", NULL }; /* in the order of bp_conv_algorithm */

typedef struct bp_convolution {
    bp_conv_shape s;
    bp_dtype dtype;
    bp_conv_algorithm algorithm;   /* BP_CONV_WINOGRAD only where bp__winograd_fits */
    const void *x, *w, *dy, *bias; /* those that the direction reads; bias may be NULL */
    bp_act act;
    void *out;                /* y, dx or dw */
    const bp_relu_mask *mask; /* undone on dx, or NULL */
    const bp_row_sum *sum;    /* of dy, taken while dw is computed, or NULL */
} bp_convolution;

typedef enum bp_conv_direction { BP_CONV_FORWARD, BP_CONV_GRAD_INPUT, BP_CONV_GRAD_WEIGHT } bp_conv_direction;

/* Which way it goes, by shape alone: as a matrix product over all pixels (1x1, stride 1), else by Winograd's algorithm or directly. */
static inline bool bp__conv_is_product(const bp_conv_shape *s) { return s->kh == 1 && s->kw == 1 && s->sh == 1 && s->sw == 1; }
bool bp__conv_by_winograd(const bp_kernels *kernels, const bp_convolution *c, bp_conv_direction d);
/* Directly, with a lane for each image. The sum of an element of y runs over taps, then channels, as it does otherwise; so does that of dx,
 * where a smaller batch may go by spreading, which adds sums of taps. */
bool bp__conv_across(const bp_kernels *kernels, const bp_convolution *c, bp_conv_direction d);

/* So many images of a chunk, groups of as many as there are lanes, for at most so many chunks. */
int64_t bp__conv_across_images(const bp_kernels *kernels, const bp_conv_shape *s, int64_t most);

/* Whether a mask is likely undone faster with the gradient of the input than afterwards; c->mask is not looked at. */
bool bp__conv_mask_pays(const bp_kernels *kernels, const bp_convolution *c);

/* Rows r0..r1-1 of y of one image are a smaller convolution, over the rows of x from their first tap on. Those of dx are its gradient, of
 * the rows of dy that have a tap there. *skip: so many rows of x or dy come before. */
bp_conv_shape bp__conv_rows(const bp_conv_shape *whole, bool gradient, int64_t r0, int64_t r1, int64_t *skip);

/* Each fails only for want of scratch. */
bp_status bp__conv_forward(bp_ctx *ctx, const bp_convolution *c);
bp_status bp__conv_grad_input(bp_ctx *ctx, const bp_convolution *c);
bp_status bp__conv_grad_weight(bp_ctx *ctx, const bp_convolution *c);

/* Winograd's way: of so few tiles all are taken for a part of the columns; weights are transformed so many steps at a time. */
enum { BP_CONV_FEW_TILES = 64, BP_CONV_WEIGHT_STEP = 16 };

/* A 3x3 kernel with stride and dilation 1. */
static inline bool bp__winograd_fits(const bp_conv_shape *s)
{
    return s->kh == 3 && s->kw == 3 && s->sh == 1 && s->sw == 1 && s->dh == 1 && s->dw == 1;
}

#endif
