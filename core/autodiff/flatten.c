/* flatten.c - parameters in one block, their gradients in another, and keeping them there. */
#include "tape.h"

#include "../base/memory.h"

#include <string.h>

enum { ALIGN_BYTES = 64 };

static bp_status check(bp_ctx *ctx, int n, bp_tensor *const *tensors)
{
    if (n < 1) return bp_fail(ctx, BP_EINVAL, "parameters: none are given; the net has no trainable parameters");
    for (int i = 0; i < n; i++) {
        const bp_tensor *t = tensors[i];
        if (!bp_is_float(t->m.dtype) || t->m.dtype != tensors[0]->m.dtype)
            return bp_fail(ctx, BP_EINVAL, "parameters: number %d is %s, the first is %s; all must be of one floating-point dtype", i + 1,
                           bp_dtype_name(t->m.dtype), bp_dtype_name(tensors[0]->m.dtype));
        if (t->var && !t->var->leaf) return bp_fail(ctx, BP_EINVAL, "parameters: number %d is the result of an op, not a leaf", i + 1);
        for (int k = 0; k < i; k++)
            if (tensors[k] == t) return bp_fail(ctx, BP_EINVAL, "parameters: number %d and %d are the same tensor", k + 1, i + 1);
    }
    return BP_OK;
}

static bp_status zero_block(bp_ctx *ctx, bp_dtype dtype, int64_t count, bp_tensor **out)
{
    BP_TRY(bp_tensor_new(ctx, dtype, 1, &count, out));
    memset(bp_data(*out), 0, (size_t)count * bp_dtype_size(dtype));
    return BP_OK;
}

static bp_status move_into(bp_tensor *t, bp_tensor *data, bp_tensor *grad, int64_t offset)
{
    bp_tensor *value, *g;
    bp_meta m;
    bp_meta_set(&m, t->m.dtype, t->m.ndim, t->m.shape);
    m.offset = offset;
    BP_TRY(bp_tensor_over(t->ctx, &m, grad->storage, &g));
    if (bp_tensor_over(t->ctx, &m, data->storage, &value) != BP_OK) {
        bp_tensor_release(g);
        return BP_ENOMEM;
    }
    bp_tensor_convert(t, value);
    bp_tensor_release(value);
    bool reached = t->var && t->var->grad && !bp_grad_is_zero(t->var);
    if (reached) bp_tensor_convert(t->var->grad, g);
    bp_status status = bp_tensor_set_grad(t, g);
    bp_tensor_release(g);
    if (status == BP_OK) bp_grad_declare(t->var, !reached);
    if (status == BP_OK) bp_tensor_rebind(t, data->storage, offset);
    return status;
}

bp_status bp_flatten(bp_ctx *ctx, int n, bp_tensor *const *tensors, bp_tensor **data, bp_tensor **grad)
{
    *data = *grad = NULL;
    BP_TRY(check(ctx, n, tensors));
    bp_dtype dtype = tensors[0]->m.dtype;
    int64_t align = (int64_t)(ALIGN_BYTES / bp_dtype_size(dtype)), total = 0;
    for (int i = 0; i < n; i++) total += (bp_count(tensors[i]) + align - 1) / align * align;
    bool paused = bp_pause_capture(ctx, true);
    bp_status status = zero_block(ctx, dtype, total, data);
    if (status == BP_OK) status = zero_block(ctx, dtype, total, grad);
    int64_t offset = 0;
    for (int i = 0; i < n && status == BP_OK; i++) {
        status = move_into(tensors[i], *data, *grad, offset);
        offset += (bp_count(tensors[i]) + align - 1) / align * align;
    }
    bp_pause_capture(ctx, paused);
    if (status != BP_OK) {
        bp_tensor_release(*data);
        bp_tensor_release(*grad);
        *data = *grad = NULL;
    }
    return status;
}

/* ---- gradients back into the block -------------------------------------------------------------------------------- */

static bp_status write_zeros(bp_tensor *part)
{
    bp_arg args[3] = { bp_list(part->m.ndim, part->m.shape), bp_float(0), bp_int(part->m.dtype) };
    return bp_apply(part->ctx, &bp__op_full, 0, NULL, 3, args, &part);
}

/* part: where t's gradient belongs. */
static bp_status gather_grad(bp_tensor *t, bp_tensor *part, int *reached)
{
    bp_var *v = t->var;
    if (!v) return write_zeros(part);
    bool zero = !v->grad || bp_grad_is_zero(v);
    if (!zero) ++*reached;
    if (v->grad && v->grad->storage == part->storage && v->grad->m.offset == part->m.offset && bp_tensor_is_contiguous(v->grad))
        BP_TRY(bp_settle_grad(t));
    else {
        BP_TRY(zero ? write_zeros(part) : bp_apply(t->ctx, &bp__op_copy, 1, &v->grad, 0, NULL, &part));
        BP_TRY(bp_tensor_set_grad(t, part));
    }
    bp_grad_declare(v, zero);
    v->zeroed = 0;
    return BP_OK;
}

static bp_status gather_all(int n, bp_tensor *const *tensors, bp_tensor *grad, int *reached)
{
    for (int i = 0; i < n; i++) {
        bp_tensor *t = tensors[i], *part;
        bp_meta m;
        bp_meta_set(&m, t->m.dtype, t->m.ndim, t->m.shape);
        m.offset = t->m.offset;
        if (t->m.dtype != grad->m.dtype || m.offset + bp_count(t) > bp_count(grad))
            return bp_fail(t->ctx, BP_EINVAL, "parameters: number %d does not lie in the block of these gradients", i + 1);
        BP_TRY(bp_tensor_over(t->ctx, &m, grad->storage, &part));
        bp_status status = gather_grad(t, part, reached);
        bp_tensor_release(part);
        BP_TRY(status);
    }
    return BP_OK;
}

bp_status bp_gather_grads(int n, bp_tensor *const *tensors, bp_tensor *grad, int *reached)
{
    *reached = 0;
    bool enabled = bp_set_grad_enabled(grad->ctx, false);
    bp_status status = gather_all(n, tensors, grad, reached);
    bp_set_grad_enabled(grad->ctx, enabled);
    return status;
}
