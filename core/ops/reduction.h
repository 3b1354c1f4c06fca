/* reduction.h - reducing any set of dimensions of a contiguous tensor. */
#ifndef BP_REDUCTION_H
#define BP_REDUCTION_H

#include "../base/pool.h"
#include "op.h"

/* As the kernels: x is [outer][r] rows of `inner` elements, `row` apart; y is [outer][inner]. */
typedef void bp_reduce_fn(int64_t outer, int64_t r, int64_t inner, int64_t row, const void *x, void *y);

/* What a reduction does in the first pass, and in later ones, which combine results: elements of the output's dtype. */
typedef struct bp_reduction {
    bp_reduce_fn *first, *next;
} bp_reduction;

typedef enum bp_reduce_kind { BP_REDUCE_SUM, BP_REDUCE_PROD, BP_REDUCE_MAX, BP_REDUCE_MIN, BP_REDUCE_ANY, BP_REDUCE_ALL } bp_reduce_kind;

/* The functions for a kind and an input dtype, and the dtype of the result: i64 for sums and products of integers, bool for any and all,
 * else the input's. */
bp_reduction bp__reduction(const bp_ctx *ctx, bp_reduce_kind kind, bp_dtype dtype);
bp_dtype bp__reduced_dtype(bp_reduce_kind kind, bp_dtype dtype);

/* out[0] = in[0] (contiguous) reduced over the dimensions marked in over[0..ndim-1]. BP_ENOMEM for want of scratch. */
bp_status bp__reduce(bp_call *call, bp_reduce_kind kind, const bool *over);

/* The sum of the rows of x [rows][n], f32 or f64, for an op that goes through x anyway: its chunks sum what they have read, which is still
 * in a cache then. The bits are those of bp__reduce over all dimensions but the last, whatever the number of chunks. */
typedef struct bp_row_sum {
    int64_t rows, n, block, blocks, piece, pieces; /* blocks of rows, pieces of columns */
    size_t size;                                   /* of an element */
    bp_reduce_fn *fn;
    const char *x;
    char *y, *parts; /* [blocks][n], or y */
} bp_row_sum;

/* Takes bp__scratch_beside. */
bp_status bp__row_sum_start(bp_ctx *ctx, bp_dtype dtype, int64_t rows, int64_t n, const void *x, void *y, bp_row_sum *sum);
/* bp_parallel, where every chunk also takes its share of the sum. sum NULL: there is none; fn NULL: nothing else. */
void bp__parallel_summing(bp_ctx *ctx, const bp_row_sum *sum, int64_t chunks, bp_chunk_fn *fn, void *arg);

/* Marks the dimensions of an AXES option (empty: all); BP_EINVAL for one that does not exist or comes twice. */
bp_status bp__axes(bp_ctx *ctx, const char *who, const bp_arg *axes, int ndim, bool *over);

#endif
