/* shape.h - sizes, strides, broadcasting. All products are checked. */
#ifndef BP_SHAPE_H
#define BP_SHAPE_H

#include "../base/context.h"

/* What a tensor looks like; strides and offset in elements. */
typedef struct bp_meta {
    bp_dtype dtype;
    int ndim;
    int64_t shape[BP_MAX_DIMS];
    int64_t stride[BP_MAX_DIMS];
    int64_t offset;
} bp_meta;

/* Product of the shape; -1 when it does not fit in 2^62. */
int64_t bp_shape_count(int ndim, const int64_t *shape);
/* Row-major strides. */
void bp_shape_strides(int ndim, const int64_t *shape, int64_t *stride);
bool bp_shape_equal(int na, const int64_t *a, int nb, const int64_t *b);
/* NumPy's rule. BP_EINVAL naming both shapes. `who` is the op's name. */
bp_status bp_shape_broadcast(bp_ctx *ctx, const char *who, int na, const int64_t *a, int nb, const int64_t *b, int *n, int64_t *out);
/* "[2x3]", "[]" for 0-d, into buf (size >= 200); returns buf. */
const char *bp_shape_text(int ndim, const int64_t *shape, char *buf);
/* Axis (negative from the end) into 0..ndim-1. */
bp_status bp_shape_axis(bp_ctx *ctx, const char *who, int64_t axis, int ndim, int *out);
/* dst: dtype, shape, row-major strides, offset 0. */
void bp_meta_set(bp_meta *dst, bp_dtype dtype, int ndim, const int64_t *shape);

/* Walks up to BP_WALK_MAX tensors of one (broadcast) shape together. Dimensions are sorted and merged so that the inner run is as long as
 * can be. */
#define BP_WALK_MAX 4
typedef struct bp_walk {
    int n, ndim;   /* operands; outer dimensions left after merging, the inner one excluded */
    int64_t inner; /* length of the inner run */
    int64_t inner_stride[BP_WALK_MAX];
    int64_t outer; /* number of runs */
    int64_t shape[BP_MAX_DIMS], stride[BP_WALK_MAX][BP_MAX_DIMS];
} bp_walk;
/* strides[k] are operand k's strides over `shape` (0 where broadcast). */
void bp_walk_init(bp_walk *w, int ndim, const int64_t *shape, int n, const int64_t *const *strides);
/* Element offsets of run number `run` of each operand. */
void bp_walk_at(const bp_walk *w, int64_t run, int64_t *offset);

#endif
