/* shape.c - sizes, strides, broadcasting, and walking several tensors of one shape together. */
#include "shape.h"

#include <stdio.h>
#include <string.h>

int64_t bp_shape_count(int ndim, const int64_t *shape)
{
    int64_t n = 1;
    bool zero = false;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] < 0) return -1;
        if (shape[i] == 0)
            zero = true;
        else if (__builtin_mul_overflow(n, shape[i], &n) || n > (int64_t)1 << 59)
            return -1;
    }
    return zero ? 0 : n;
}

void bp_shape_strides(int ndim, const int64_t *shape, int64_t *stride)
{
    int64_t s = 1;
    for (int i = ndim - 1; i >= 0; i--) {
        stride[i] = s;
        s = (int64_t)((uint64_t)s * (uint64_t)(shape[i] > 0 ? shape[i] : 1)); /* a shape too large is refused by whoever counts it */
    }
}

bool bp_shape_equal(int na, const int64_t *a, int nb, const int64_t *b) { return na == nb && memcmp(a, b, sizeof *a * (size_t)na) == 0; }

const char *bp_shape_text(int ndim, const int64_t *shape, char *buf)
{
    char *p = buf;
    *p++ = '[';
    for (int i = 0; i < ndim; i++) p += sprintf(p, i ? "x%lld" : "%lld", (long long)shape[i]);
    strcpy(p, "]");
    return buf;
}

bp_status bp_shape_broadcast(bp_ctx *ctx, const char *who, int na, const int64_t *a, int nb, const int64_t *b, int *n, int64_t *out)
{
    int ndim = na > nb ? na : nb;
    int64_t result[BP_MAX_DIMS];
    for (int i = 0; i < ndim; i++) {
        int64_t da = i < ndim - na ? 1 : a[i - (ndim - na)];
        int64_t db = i < ndim - nb ? 1 : b[i - (ndim - nb)];
        if (da != db && da != 1 && db != 1) {
            char ta[200], tb[200];
            return bp_fail(ctx, BP_EINVAL,
                           "%s: shapes %s and %s do not fit together; counted from the right, sizes must be equal or 1, but %lld meets "
                           "%lld; reshape or unsqueeze one of them",
                           who, bp_shape_text(na, a, ta), bp_shape_text(nb, b, tb), (long long)da, (long long)db);
        }
        result[i] = da == 1 ? db : da;
    }
    memcpy(out, result, sizeof *out * (size_t)ndim);
    *n = ndim;
    return BP_OK;
}

bp_status bp_shape_axis(bp_ctx *ctx, const char *who, int64_t axis, int ndim, int *out)
{
    int64_t a = axis < 0 ? axis + ndim : axis;
    if (a < 0 || a >= ndim)
        return bp_fail(ctx, BP_EINVAL, "%s: dimension %lld of a tensor with %d; %d to %d or %d to -1 is expected", who,
                       (long long)(axis < 0 ? axis : axis + ctx->base), ndim, ctx->base, ndim - 1 + ctx->base, -ndim);
    *out = (int)a;
    return BP_OK;
}

void bp_meta_set(bp_meta *dst, bp_dtype dtype, int ndim, const int64_t *shape)
{
    dst->dtype = dtype;
    dst->ndim = ndim;
    if (ndim) memcpy(dst->shape, shape, sizeof *shape * (size_t)ndim);
    bp_shape_strides(ndim, dst->shape, dst->stride);
    dst->offset = 0;
}

/* Dimensions of size 1 are dropped; neighbours i, i+1 merge when for every operand stride[i] == stride[i+1] * shape[i+1]. */
void bp_walk_init(bp_walk *w, int ndim, const int64_t *shape, int n, const int64_t *const *strides)
{
    w->n = n;
    int d = 0;
    for (int i = 0; i < ndim; i++) {
        if (shape[i] == 1) continue;
        bool merge = d > 0;
        for (int k = 0; k < n && merge; k++) merge = w->stride[k][d - 1] == strides[k][i] * shape[i];
        if (merge) {
            w->shape[d - 1] *= shape[i];
            for (int k = 0; k < n; k++) w->stride[k][d - 1] = strides[k][i];
            continue;
        }
        w->shape[d] = shape[i];
        for (int k = 0; k < n; k++) w->stride[k][d] = strides[k][i];
        d++;
    }
    if (d == 0) {
        w->shape[0] = 1;
        for (int k = 0; k < n; k++) w->stride[k][0] = 0;
        d = 1;
    }
    w->ndim = d - 1;
    w->inner = w->shape[d - 1];
    for (int k = 0; k < n; k++) w->inner_stride[k] = w->stride[k][d - 1];
    w->outer = 1;
    for (int i = 0; i < d - 1; i++) w->outer *= w->shape[i];
}

void bp_walk_at(const bp_walk *w, int64_t run, int64_t *offset)
{
    for (int k = 0; k < w->n; k++) offset[k] = 0;
    for (int i = w->ndim - 1; i >= 0; i--) {
        int64_t at = run % w->shape[i];
        run /= w->shape[i];
        for (int k = 0; k < w->n; k++) offset[k] += at * w->stride[k][i];
    }
}
