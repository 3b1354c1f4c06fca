/* product.h - matrix products over the pool, and sums of partial results.
 *
 * Work is cut by shape alone. Rows and columns of a result may be cut anywhere: an element's sum runs over k in the same order wherever the
 * cut lies. A long reduction is cut into parts whose number depends on the shape; each part has its own buffer, and the buffers are
 * added in order. */
#ifndef BP_PRODUCT_H
#define BP_PRODUCT_H

#include "../kernels/kernels.h"
#include "../tensor/tensor.h"
#include "reduction.h"
#include "relu_mask.h"

/* Multiply-adds worth handing to a thread: about 20 us of one core. */
#define BP_WORK_GRAIN (1 << 20)
/* The same for elements that are read and written once. */
#define BP_MEMORY_GRAIN (1 << 14)

/* C = A * B for every index of a (broadcast) batch. `one` describes the product at batch index 0. C is row-major: the next product's result
 * begins one.m * one.c_row elements further. */
typedef struct bp_product {
    bp_dtype dtype;
    bp_gemm one;
    int ndim; /* of the batch; 0: a single product */
    int64_t shape[BP_MAX_DIMS];
    int64_t a_stride[BP_MAX_DIMS], b_stride[BP_MAX_DIMS];
    const bp_relu_mask *mask; /* undone on C, whose rows then have no gaps; NULL: none */
    const bp_row_sum *sum;    /* of the rows of B, taken on the way; NULL: none */
} bp_product;

/* Fails only for want of scratch. Uses bp__scratch. */
bp_status bp__product(bp_ctx *ctx, const bp_product *product);

/* Whether the mask is likely done faster on the way than afterwards: C is larger than what a cache keeps. */
bool bp__product_mask_pays(const bp_product *product);

/* dst[i] = parts[0][i] + parts[1][i] + ..., in that order; count >= 1, n elements each. */
void bp__sum_parts(bp_ctx *ctx, bp_dtype dtype, int64_t count, int64_t n, const void *parts, void *dst);

/* Bytes rounded up so that what follows begins on a cache line. */
static inline size_t bp__lines(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

#endif
