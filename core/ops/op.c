/* op.c - the table of ops by name, and what infer and run functions share. */
#include "op.h"

#include "../base/memory.h"
#include "../base/random.h"

#include <stdio.h>
#include <string.h>

static const bp_op *const table[] = {
#define OP(name) &bp__op_##name,
#include "ops.def"
#undef OP
    NULL
};

const bp_op *bp_op_at(int index) { return index >= 0 && index < (int)(sizeof table / sizeof *table) ? table[index] : NULL; }

const bp_op *bp_op_find(const char *name)
{
    for (const bp_op *const *op = table; *op; op++)
        if (strcmp((*op)->name, name) == 0) return *op;
    return NULL;
}

const char *bp_op_name(const bp_op *op) { return op->name; }

bp_status bp_op_fail(bp_call *call, bp_status status, const char *format, ...)
{
    char text[900];
    va_list ap;
    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    return bp_fail(call->ctx, status, "%s: %s", call->op->name, text);
}

void bp_out(bp_call *call, int i, bp_dtype dtype, int ndim, const int64_t *shape) { bp_meta_set(&call->meta[i], dtype, ndim, shape); }

bp_status bp_infer_same(bp_call *call)
{
    const bp_meta *m = &call->in[0]->m;
    bp_out(call, 0, m->dtype, m->ndim, m->shape);
    return BP_OK;
}

bp_status bp_infer_broadcast(bp_call *call)
{
    const bp_meta *first = &call->in[0]->m;
    int ndim = first->ndim;
    int64_t shape[BP_MAX_DIMS];
    memcpy(shape, first->shape, sizeof shape);
    for (int i = 1; i < call->n_in; i++)
        if (call->in[i])
            BP_TRY(bp_shape_broadcast(call->ctx, call->op->name, ndim, shape, call->in[i]->m.ndim, call->in[i]->m.shape, &ndim, shape));
    bp_out(call, 0, first->dtype, ndim, shape);
    return BP_OK;
}

bp_status bp_need_ndim(bp_call *call, int i, int ndim, const char *shape)
{
    char text[200];
    const bp_meta *m = &call->in[i]->m;
    if (m->ndim == ndim) return BP_OK;
    return bp_op_fail(call, BP_EINVAL, "'%s' has shape %s; %d dimensions %s are expected", call->op->inputs[i].name,
                      bp_shape_text(m->ndim, m->shape, text), ndim, shape);
}

bp_status bp_need_shape(bp_call *call, int i, int ndim, const int64_t *shape)
{
    char got[200], want[200];
    const bp_meta *m = &call->in[i]->m;
    if (bp_shape_equal(m->ndim, m->shape, ndim, shape)) return BP_OK;
    return bp_op_fail(call, BP_EINVAL, "'%s' has shape %s; %s is expected", call->op->inputs[i].name, bp_shape_text(m->ndim, m->shape, got),
                      bp_shape_text(ndim, shape, want));
}

void bp_integer_values(const bp_tensor *t, int64_t *dst)
{
    if (t->m.dtype == BP_I64 && bp_tensor_is_contiguous(t)) {
        memcpy(dst, bp_data(t), (size_t)bp_count(t) * sizeof *dst);
        return;
    }
    bp_storage s;
    bp_tensor view;
    memset(&s, 0, sizeof s);
    memset(&view, 0, sizeof view);
    s.data = dst;
    view.storage = &s;
    bp_meta_set(&view.m, BP_I64, t->m.ndim, t->m.shape);
    bp_tensor_convert(t, &view);
}

bp_status bp_read_indices(bp_call *call, const bp_tensor *t, const char *what, int64_t limit, int64_t *dst)
{
    int64_t n = bp_count(t), base = call->ctx->base;
    bp_integer_values(t, dst);
    for (int64_t i = 0; i < n; i++) {
        if ((uint64_t)dst[i] - (uint64_t)base >= (uint64_t)limit)
            return bp_op_fail(call, BP_EINVAL, "%s %lld in row %lld lies outside %lld..%lld; %ss count from %lld", what, (long long)dst[i],
                              (long long)(i + base), (long long)base, (long long)(limit - 1 + base), what, (long long)base);
        dst[i] -= base;
    }
    return BP_OK;
}

/* ---- random streams ---- */

void bp_draw(bp_tensor *state, uint64_t *key, uint64_t *step)
{
    int64_t *s = (int64_t *)(void *)bp_data(state);
    *key = (uint64_t)s[0];
    *step = (uint64_t)s[1]++;
}

bp_status bp_stream_state(bp_ctx *ctx, int stream, bp_tensor **state)
{
    *state = ctx->streams[stream];
    return BP_OK;
}

void bp_seed(bp_ctx *ctx, uint64_t seed)
{
    for (int i = 0; i < BP_STREAM_COUNT; i++) {
        int64_t *s = (int64_t *)(void *)bp_data(ctx->streams[i]);
        s[0] = (int64_t)bp_stream_key(seed, i);
        s[1] = 0;
        bp_tensor_touched(ctx->streams[i]);
    }
}

bp_status bp__streams_open(bp_ctx *ctx, uint64_t seed)
{
    int64_t two = 2;
    for (int i = 0; i < BP_STREAM_COUNT; i++) BP_TRY(bp_tensor_new(ctx, BP_I64, 1, &two, &ctx->streams[i]));
    bp_seed(ctx, seed);
    return BP_OK;
}

void bp__streams_close(bp_ctx *ctx)
{
    for (int i = 0; i < BP_STREAM_COUNT; i++) bp_tensor_release(ctx->streams[i]);
}
