/* tape.c - noting what passes the door, and the vars and nodes that hold the notes. */
#include "tape.h"

#include "../base/memory.h"

#include <string.h>

typedef struct tape {
    bp_listener listener;
} tape;

/* ---- vars ---- */

static bp_status var_new(bp_ctx *ctx, bp_var **out)
{
    bp_var *v = (bp_var *)bp_mem_zeroed(ctx, sizeof *v);
    if (!v) return BP_ENOMEM;
    v->ctx = ctx;
    v->refs = 1;
    *out = v;
    return BP_OK;
}

bp_var *bp_var_retain(bp_var *v)
{
    v->refs++;
    return v;
}

void bp_var_release(void *var)
{
    bp_var *v = (bp_var *)var;
    if (!v || --v->refs > 0) return;
    bp_node *n = v->node;
    bp_tensor_release(v->grad);
    bp_mem_free(v->ctx, v, sizeof *v);
    if (n) bp_node_release(n);
}

bp_status bp_var_of(bp_tensor *t, bp_var **out)
{
    if (!t->var) {
        BP_TRY(var_new(t->ctx, &t->var));
        t->var->leaf = true;
    }
    *out = t->var;
    return BP_OK;
}

/* ---- nodes ---- */

void bp_node_clear(bp_node *n)
{
    for (int i = 0; i < n->n_in; i++) {
        bp_tensor_release(n->in[i]);
        n->in[i] = NULL;
    }
    for (int i = 0; i < n->n_out; i++) {
        bp_tensor_release(n->out[i]);
        bp_tensor_release(n->dout[i]);
        n->out[i] = n->dout[i] = NULL;
    }
}

void bp_node_unhook(bp_node *n)
{
    while (n->hooks) {
        bp_grad_hook *h = n->hooks;
        n->hooks = h->next;
        if (h->release) h->release(h->ud);
        bp_mem_free(n->ctx, h, sizeof *h);
    }
}

static size_t node_bytes(int n_in, int n_out)
{
    return sizeof(bp_node) + (size_t)n_in * sizeof(bp_tensor *) + (size_t)(n_in + n_out) * sizeof(uint64_t);
}

/* A long chain (a loop of a million steps) must not recurse as deep as it is long: nodes whose last reference goes are queued, and the
 * outermost call frees them. */
void bp_node_release(bp_node *n)
{
    if (--n->refs > 0) return;
    bp_ctx *ctx = n->ctx;
    bp_node **queue = (bp_node **)&ctx->dying;
    n->next = *queue;
    *queue = n;
    if (ctx->freeing) return;
    ctx->freeing = true;
    while (*queue) {
        bp_node *dead = *queue;
        *queue = dead->next;
        bp_node_clear(dead);
        if (dead->where) bp_mem_free(ctx, dead->where, strlen(dead->where) + 1);
        bp_node_unhook(dead);
        bp_mem_free(ctx, dead, node_bytes(dead->n_in, dead->n_out));
    }
    ctx->freeing = false;
}

/* What the node keeps of a tensor: all of it, or its look and its var. */
static bp_status keep(bp_tensor *t, bool value, bool history, bp_tensor **out, uint64_t *version)
{
    BP_TRY(bp_tensor_over(t->ctx, &t->m, value ? t->storage : NULL, out));
    *version = t->storage->version;
    if (history && t->var) (*out)->var = bp_var_retain(t->var);
    return BP_OK;
}

static bool needs(unsigned mask, int i) { return mask == BP_NEEDS_ALL || (i < 32 && mask >> i & 1); }

/* ---- the listener ---- */

static bool tracked(const bp_call *c)
{
    if (!c->ctx->grad_enabled) return false;
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i] && c->in[i]->var) return true;
    return false;
}

/* Refuses what the tape could not describe truthfully: a tracked write into something that others see through another tensor. */
static bp_status before(void *ud, bp_call *c)
{
    (void)ud;
    if (!c->ctx->grad_enabled) return BP_OK;
    bool any = tracked(c) && !(c->op->flags & BP_OP_NO_GRADIENT);
    for (int i = 0; i < c->n_out; i++) {
        bp_tensor *t = c->out[i];
        if (!c->given[i] || !(any || t->var)) continue;
        if (t->var && t->var->leaf)
            return bp_op_fail(c, BP_ESTATE,
                              "in place on a tensor that requires a gradient would lose the value it is taken at; "
                              "use the form without '_', or bp.no_grad to set it");
        if (t->storage->refs > 1)
            return bp_op_fail(c, BP_ESTATE,
                              "in place on memory that another tensor or the pending backward shares; "
                              "use the form without '_' (or where, concat, stack)");
        for (int k = 0; k < c->n_in; k++)
            if (c->in[k] && c->in[k]->storage == t->storage && needs(c->op->needs_in, k))
                return bp_op_fail(c, BP_ESTATE, "its gradient needs the value that in place would overwrite; use the form without '_'");
    }
    int i = 0;
    for (const bp_input *d = c->op->inputs; d->name && i < c->n_in; i++, d += !(d->flags & BP_IN_VARIADIC))
        if ((d->flags & BP_IN_MUTATED) && c->in[i] && c->in[i]->var)
            return bp_op_fail(c, BP_ESTATE, "'%s' requires a gradient and is updated in place; do it inside bp.no_grad", d->name);
    return BP_OK;
}

static bp_status after(void *ud, bp_call *c)
{
    (void)ud;
    if (!tracked(c) || (c->op->flags & BP_OP_NO_GRADIENT)) return BP_OK;
    if (!c->op->gradient) return bp_op_fail(c, BP_ESTATE, "has no gradient, but an input requires one; detach it first");
    bp_ctx *ctx = c->ctx;
    bp_node *n = (bp_node *)bp_mem_zeroed(ctx, node_bytes(c->n_in, c->n_out));
    if (!n) return BP_ENOMEM;
    n->ctx = ctx;
    n->refs = 1;
    n->serial = ctx->serial++;
    n->op = c->op;
    n->n_in = c->n_in;
    n->n_out = c->n_out;
    n->in = (bp_tensor **)(n + 1);
    n->version = (uint64_t *)(n->in + c->n_in);
    memcpy(n->args, c->args, sizeof n->args);
    bp_status status = BP_OK;
    if (ctx->keep_where && ctx->where && !(n->where = bp_mem_string(ctx, ctx->where))) status = BP_ENOMEM;
    for (int i = 0; i < c->n_in && status == BP_OK; i++)
        if (c->in[i]) status = keep(c->in[i], needs(c->op->needs_in, i), true, &n->in[i], &n->version[i]);
    for (int i = 0; i < c->n_out && status == BP_OK; i++)
        status = keep(c->out[i], needs(c->op->needs_out, i), false, &n->out[i], &n->version[c->n_in + i]);
    for (int i = 0; i < c->n_out - c->op->n_kept && status == BP_OK; i++) {
        if (!bp_is_float(c->out[i]->m.dtype)) continue;
        bp_var *v;
        if ((status = var_new(ctx, &v)) != BP_OK) break;
        v->node = n;
        v->slot = i;
        n->refs++;
        bp_var_release(c->out[i]->var);
        c->out[i]->var = v;
    }
    bp_node_release(n);
    return status;
}

bp_status bp_tape_open(bp_ctx *ctx)
{
    tape *t = (tape *)bp_mem_zeroed(ctx, sizeof *t);
    if (!t) return BP_ENOMEM;
    t->listener.before = before;
    t->listener.after = after;
    ctx->tape = t;
    ctx->var_release = bp_var_release;
    bp_listen(ctx, &t->listener);
    return BP_OK;
}

void bp_tape_close(bp_ctx *ctx)
{
    tape *t = (tape *)ctx->tape;
    if (!t) return;
    bp_unlisten(ctx, &t->listener);
    bp_mem_free(ctx, t, sizeof *t);
    ctx->tape = NULL;
}
