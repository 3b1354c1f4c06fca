/* gradient.c - how an op's gradient applies other ops. The first failure is kept in g->status and everything after it does nothing, so a
 * gradient reads as its formula. */
#include "../base/memory.h"
#include "op.h"

enum { MAX_GRAD_INPUTS = 8 };

static bp_tensor *keep(bp_grad *g, bp_tensor *t)
{
    if (g->status == BP_OK) g->status = bp_mem_grow(g->ctx, &g->temps, sizeof *g->temps, &g->cap_temps, g->n_temps + 1);
    if (g->status != BP_OK) {
        bp_tensor_release(t);
        return NULL;
    }
    g->temps[g->n_temps++] = t;
    return t;
}

static bp_tensor *apply_v(bp_grad *g, int which, const bp_op *op, int n_args, const bp_arg *args, int n_in, va_list ap)
{
    bp_tensor *in[MAX_GRAD_INPUTS], *out[BP_MAX_OUT] = { NULL };
    for (int i = 0; i < n_in; i++) {
        in[i] = va_arg(ap, bp_tensor *);
        /* NULL stands for an optional input left out, unless a failure made it */
        if (g->status != BP_OK) return NULL;
    }
    g->status = bp_apply(g->ctx, op, n_in, in, n_args, args, out);
    if (g->status != BP_OK) return NULL;
    for (int i = 0; i < op->n_out; i++)
        if (i != which) bp_tensor_release(out[i]);
    return keep(g, out[which]);
}

bp_tensor *bp_g(bp_grad *g, const bp_op *op, int n_args, const bp_arg *args, int n_in, ...)
{
    va_list ap;
    va_start(ap, n_in);
    bp_tensor *t = apply_v(g, 0, op, n_args, args, n_in, ap);
    va_end(ap);
    return t;
}

bp_tensor *bp_g_out(bp_grad *g, int which, const bp_op *op, int n_args, const bp_arg *args, int n_in, ...)
{
    va_list ap;
    va_start(ap, n_in);
    bp_tensor *t = apply_v(g, which, op, n_args, args, n_in, ap);
    va_end(ap);
    return t;
}

void bp_g_all(bp_grad *g, const bp_op *op, int n_args, const bp_arg *args, int n_in, bp_tensor *const *in, bp_tensor **outs)
{
    bp_tensor *out[BP_MAX_OUT] = { NULL };
    for (int i = 0; i < op->n_out; i++) outs[i] = NULL;
    if (g->status == BP_OK) g->status = bp_apply(g->ctx, op, n_in, in, n_args, args, out);
    if (g->status != BP_OK) return;
    for (int i = 0; i < op->n_out; i++) outs[i] = keep(g, out[i]);
}

bp_tensor *bp_g_number(bp_grad *g, bp_tensor *like, double value)
{
    bp_tensor *t = NULL;
    if (g->status != BP_OK) return NULL;
    /* a constant of the program, not a value that a replay computes: made outside an open capture */
    bool paused = bp_pause_capture(g->ctx, true);
    g->status = bp_tensor_scalar(g->ctx, like->m.dtype, value, &t);
    bp_pause_capture(g->ctx, paused);
    if (g->status != BP_OK) return NULL;
    t->storage->constant = true;
    return keep(g, t);
}

bp_tensor *bp_g_unbroadcast(bp_grad *g, bp_tensor *t, bp_tensor *like)
{
    if (g->status != BP_OK || !t || bp_shape_equal(t->m.ndim, t->m.shape, like->m.ndim, like->m.shape)) return t;
    bp_arg shape = bp_list(like->m.ndim, like->m.shape);
    return bp_g(g, &bp__op_sum_to, 1, &shape, 1, t);
}

void bp_grad_set(bp_grad *g, int i, bp_tensor *t)
{
    if (g->status == BP_OK) g->din[i] = t;
}
