/* watch.c - see watch.h. */
#include "watch.h"

#include "../base/memory.h"
#include "../tensor/tensor.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bp_status bp_watch_look(bp_tensor *t, const char *name, bp_watched *out)
{
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", name);
    out->meta = t->m;
    out->first = -1;
    out->min = INFINITY;
    out->max = -INFINITY;
    int64_t n = bp_count(t);
    if (n == 0) return BP_OK;
    double *values = (double *)bp_mem_new(t->ctx, (size_t)n * sizeof *values);
    if (!values) return BP_ENOMEM;
    bp_status status = bp_tensor_read(t, BP_F64, values, n);
    for (int64_t i = 0; i < n && status == BP_OK; i++) {
        if (isfinite(values[i])) {
            if (values[i] < out->min) out->min = values[i];
            if (values[i] > out->max) out->max = values[i];
            continue;
        }
        if (out->first < 0) out->first = i;
        if (isnan(values[i]))
            out->nans++;
        else
            out->infinities++;
    }
    bp_mem_free(t->ctx, values, (size_t)n * sizeof *values);
    return status;
}

static bool is_bad(const bp_watched *w) { return w->nans || w->infinities; }

static const bp_input *declared(const bp_op *op, int i)
{
    const bp_input *d = op->inputs;
    for (int k = 0; k < i && d->name && !(d->flags & BP_IN_VARIADIC); k++) d++;
    return d;
}

static bp_status before(void *ud, bp_call *c)
{
    bp_watch *w = (bp_watch *)ud;
    bool any = false;
    w->clean = true;
    w->n_before = 0;
    if (c->op->flags & BP_OP_VIEW) w->clean = false;
    for (int i = 0; i < c->n_in && w->clean; i++) {
        bp_watched seen;
        if (!c->in[i] || !c->in[i]->storage || !bp_is_float(c->in[i]->m.dtype)) continue;
        BP_TRY(bp_watch_look(c->in[i], declared(c->op, i)->name, &seen));
        any = true;
        if (is_bad(&seen)) w->clean = false;
        if (w->n_before < BP_WATCH_INPUTS) w->before[w->n_before++] = seen;
    }
    if (!any) w->clean = false;
    return BP_OK;
}

static void note(bp_watch *w, const bp_call *c, const bp_watched *out)
{
    if (w->n == BP_WATCH_BIRTHS) return;
    bp_birth *b = &w->births[w->n++];
    b->op = c->op;
    b->gradient_of = (const bp_op *)c->ctx->gradient_of;
    snprintf(b->where, sizeof b->where, "%s", c->ctx->where ? c->ctx->where : "");
    b->out = *out;
    b->n_in = w->n_before;
    memcpy(b->in, w->before, (size_t)w->n_before * sizeof *w->before);
}

static bp_status after(void *ud, bp_call *c)
{
    bp_watch *w = (bp_watch *)ud;
    if (!w->clean) return BP_OK;
    for (int i = 0; i < c->n_out + c->n_in; i++) {
        bp_tensor *t = i < c->n_out ? c->out[i] : c->in[i - c->n_out];
        bp_watched seen;
        if (!t || !t->storage || !bp_is_float(t->m.dtype)) continue;
        if (i >= c->n_out && !(declared(c->op, i - c->n_out)->flags & BP_IN_MUTATED)) continue;
        BP_TRY(bp_watch_look(t, i < c->n_out ? "result" : declared(c->op, i - c->n_out)->name, &seen));
        if (!is_bad(&seen)) continue;
        note(w, c, &seen);
        break;
    }
    return BP_OK;
}

void bp_watch_open(bp_ctx *ctx, bp_watch *w)
{
    memset(w, 0, sizeof *w);
    w->ctx = ctx;
    w->listener = (bp_listener){ .before = before, .after = after, .ud = w };
    w->kept = ctx->keep_where;
    ctx->keep_where = true;
    bp_listen(ctx, &w->listener);
}

void bp_watch_close(bp_watch *w)
{
    if (!w->ctx) return;
    bp_unlisten(w->ctx, &w->listener);
    w->ctx->keep_where = w->kept;
    w->ctx = NULL;
}
