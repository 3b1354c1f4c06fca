/* backward.c - walking back.
 *
 * Nodes wait in a heap ordered by birth, youngest first. A node is older than everything made from its results, so when it is taken out,
 * all of its results' gradients have arrived. Gradients are written in ops: with create_graph the walk is itself on the tape. */
#include "tape.h"

#include "../base/memory.h"

#include <string.h>

typedef struct walk {
    bp_ctx *ctx;
    bp_node **heap;
    int64_t n, cap;
    bp_backward_options options;
    /* bp_gradients: whose gradient is asked for, and what was gathered; NULL wrt: every leaf's grad */
    int n_wrt;
    bp_tensor *const *wrt;
    bp_tensor **found;
} walk;

static bp_status push(walk *w, bp_node *n)
{
    BP_TRY(bp_mem_grow(w->ctx, &w->heap, sizeof *w->heap, &w->cap, w->n + 1));
    int64_t i = w->n++;
    while (i > 0 && w->heap[(i - 1) / 2]->serial < n->serial) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = n;
    n->queued = true;
    n->refs++;
    return BP_OK;
}

static bp_node *pop(walk *w)
{
    bp_node *top = w->heap[0], *last = w->heap[--w->n];
    int64_t i = 0;
    for (;;) {
        int64_t k = 2 * i + 1;
        if (k >= w->n) break;
        if (k + 1 < w->n && w->heap[k + 1]->serial > w->heap[k]->serial) k++;
        if (w->heap[k]->serial <= last->serial) break;
        w->heap[i] = w->heap[k];
        i = k;
    }
    w->heap[i] = last;
    top->queued = false;
    return top;
}

/* Nobody but us sees it or its memory. */
static bool sole(const bp_tensor *t) { return t->refs == 1 && t->storage->refs == 1 && !t->var && bp_tensor_is_contiguous(t); }

static bool is_noted(const bp_ctx *ctx) { return ctx->capture_id && !ctx->paused; }

/* *sum += g; g stays the caller's. A plan writes the sum over an operand by itself, and rewrites what is written once more easily. */
static bp_status gather(walk *w, bp_tensor **sum, bp_tensor *g)
{
    if (!*sum) {
        *sum = bp_tensor_retain(g);
        return BP_OK;
    }
    bp_tensor *in[2] = { *sum, g }, *out = NULL;
    if (!w->options.create_graph && !is_noted(w->ctx) && sole(*sum)) out = *sum;
    BP_TRY(bp_apply(w->ctx, &bp__op_add, 2, in, 0, NULL, &out));
    if (out != *sum) {
        bp_tensor_release(*sum);
        *sum = out;
    }
    return BP_OK;
}

static bp_status zeros_like(bp_tensor *t, bp_tensor **out)
{
    bp_arg args[3] = { bp_list(t->m.ndim, t->m.shape), bp_float(0), bp_int(t->m.dtype) };
    *out = NULL;
    return bp_apply(t->ctx, &bp__op_full, 0, NULL, 3, args, out);
}

/* grad += g where grad has a history or may be somebody else's tensor: a new tensor takes its place, with a history under create_graph. */
static bp_status add_shared(walk *w, bp_var *v, bp_tensor *g)
{
    bp_tensor *in[2] = { v->grad, g }, *sum = NULL;
    BP_TRY(bp_apply(w->ctx, &bp__op_add, 2, in, 0, NULL, &sum));
    bp_tensor_release(v->grad);
    v->grad = sum;
    v->grad_shared = w->options.create_graph;
    return BP_OK;
}

/* A leaf's grad += g. While a capture is open the grad itself must outlive the replays, and what a replay does must not depend on whether
 * it was zero before the capture began. */
static bp_status gather_leaf(walk *w, bp_var *v, bp_tensor *g)
{
    bp_ctx *ctx = w->ctx;
    bool capturing = is_noted(ctx);
    if (w->options.create_graph && capturing)
        return bp_fail(ctx, BP_ESTATE,
                       "backward: create_graph inside a captured function cannot leave its result in .grad; "
                       "use bp.grad for a gradient that is differentiated again");
    if (v->grad && (v->grad_shared || (w->options.create_graph && v->grad->var))) return add_shared(w, v, g);
    if (!v->grad) {
        if (w->options.create_graph || (!capturing && sole(g))) {
            v->grad = bp_tensor_retain(g);
            v->grad_shared = w->options.create_graph;
            return BP_OK;
        }
        bool old = bp_pause_capture(ctx, true);
        bp_status status = zeros_like(g, &v->grad);
        bp_pause_capture(ctx, old);
        BP_TRY(status);
        bp_grad_declare(v, true);
        v->zeroed = 0;
    }
    bool grad_enabled = bp_set_grad_enabled(ctx, false);
    bp_tensor *out = v->grad, *in[2] = { v->grad, g };
    bool overwrite = bp_grad_is_zero(v) && (!capturing || v->zeroed == ctx->capture_id);
    bp_status status = overwrite ? bp_apply(ctx, &bp__op_copy, 1, &g, 0, NULL, &out) : bp_apply(ctx, &bp__op_add, 2, in, 0, NULL, &out);
    bp_set_grad_enabled(ctx, grad_enabled);
    if (status == BP_OK) v->grad_zero = false;
    return status;
}

/* Gradient g has arrived for what v stands for. */
static bp_status deliver(walk *w, bp_var *v, bp_tensor *g)
{
    for (int i = 0; i < w->n_wrt; i++)
        if (w->wrt[i]->var == v) BP_TRY(gather(w, &w->found[i], g));
    if (v->node) {
        if (!v->node->queued) BP_TRY(push(w, v->node));
        BP_TRY(gather(w, &v->node->dout[v->slot], g));
        return !w->wrt && v->retain ? gather_leaf(w, v, g) : BP_OK;
    }
    return w->wrt ? BP_OK : gather_leaf(w, v, g);
}

/* The kept values are those of the forward. */
static bp_status check_kept(const bp_node *n)
{
    if (n->used)
        return bp_fail(n->ctx, BP_ESTATE,
                       "backward: the history of '%s' was already used up by an earlier backward; "
                       "pass retain_graph = true to the first one, or compute the value anew",
                       n->op->name);
    for (int i = 0; i < n->n_in + n->n_out; i++) {
        const bp_tensor *t = i < n->n_in ? n->in[i] : n->out[i - n->n_in];
        if (t && t->storage && t->storage->version != n->version[i]) {
            char text[200];
            return bp_fail(n->ctx, BP_ESTATE,
                           "backward: a value %s that '%s' kept for its gradient was changed in place afterwards; "
                           "use the form without '_', or change it after backward",
                           bp_shape_text(t->m.ndim, t->m.shape, text), n->op->name);
        }
    }
    return BP_OK;
}

static void run_gradient(const bp_node *n, bp_grad *g)
{
    bp_ctx *ctx = n->ctx;
    const char *where = ctx->where;
    const void *gradient_of = ctx->gradient_of;
    if (ctx->keep_where) {
        ctx->where = n->where ? n->where : "";
        ctx->gradient_of = n->op;
    }
    n->op->gradient(g);
    ctx->where = where;
    ctx->gradient_of = gradient_of;
}

static bool same_look(const bp_tensor *a, const bp_tensor *b)
{
    return bp_shape_equal(a->m.ndim, a->m.shape, b->m.ndim, b->m.shape) && a->m.dtype == b->m.dtype;
}

/* The gradients of n's results are whole: those who asked see them, and may put others in their place. */
static bp_status run_hooks(bp_node *n)
{
    bp_ctx *ctx = n->ctx;
    bp_status status = BP_OK;
    for (bp_grad_hook *h = n->hooks; h && status == BP_OK; h = h->next) {
        bp_tensor *grad = n->dout[h->slot], *other = NULL;
        if (!grad) continue;
        ctx->in_grad_hook = true;
        status = h->fn(h->ud, grad, &other);
        ctx->in_grad_hook = false;
        if (status == BP_OK && other && !same_look(other, grad)) {
            char have[200], need[200];
            status = bp_fail(ctx, BP_EINVAL, "on_grad: the gradient that takes the place of another is %s %s; %s %s is expected",
                             bp_dtype_name(other->m.dtype), bp_shape_text(other->m.ndim, other->m.shape, have),
                             bp_dtype_name(grad->m.dtype), bp_shape_text(grad->m.ndim, grad->m.shape, need));
        }
        if (other) {
            bp_tensor_release(status == BP_OK ? grad : other);
            if (status == BP_OK) n->dout[h->slot] = other;
        }
    }
    return status;
}

/* Runs one node's gradient and hands on what comes out. */
static bp_status run_node(walk *w, bp_node *n)
{
    bp_ctx *ctx = w->ctx;
    BP_TRY(check_kept(n));
    if (n->hooks) BP_TRY(run_hooks(n));
    bp_grad g;
    memset(&g, 0, sizeof g);
    g.ctx = ctx;
    g.op = n->op;
    g.n_in = n->n_in;
    g.n_out = n->n_out;
    g.in = n->in;
    g.args = n->args;
    size_t bytes = (size_t)n->n_in * (sizeof(bp_tensor *) + sizeof(bool));
    g.din = (bp_tensor **)bp_mem_zeroed(ctx, bytes);
    if (!g.din) return BP_ENOMEM;
    bool *want = (bool *)(g.din + n->n_in);
    for (int i = 0; i < n->n_in; i++) want[i] = n->in[i] && n->in[i]->var;
    g.want = want;
    for (int i = 0; i < n->n_out; i++) {
        g.out[i] = n->out[i];
        g.dout[i] = n->dout[i];
        n->dout[i] = NULL;
        if (w->options.create_graph && bp_is_float(n->out[i]->m.dtype)) { /* the kept result, with its history for the time of this call */
            bp_var *v = (bp_var *)bp_mem_zeroed(ctx, sizeof *v);
            if (!v)
                g.status = BP_ENOMEM;
            else {
                v->ctx = ctx;
                v->refs = 1;
                v->node = n;
                v->slot = i;
                n->refs++;
                g.out[i]->var = v;
            }
        }
    }
    if (g.status == BP_OK) run_gradient(n, &g);
    for (int i = 0; i < n->n_out; i++) {
        if (g.out[i]->var) {
            bp_var_release(g.out[i]->var);
            g.out[i]->var = NULL;
        }
    }
    for (int i = 0; i < n->n_in; i++)
        if (g.din[i]) bp_tensor_retain(g.din[i]);
    for (int64_t i = 0; i < g.n_temps; i++) bp_tensor_release(g.temps[i]);
    bp_mem_free(ctx, g.temps, (size_t)g.cap_temps * sizeof *g.temps);
    for (int i = 0; i < n->n_out; i++) bp_tensor_release(g.dout[i]);
    for (int i = 0; i < n->n_in; i++) {
        bp_tensor *d = g.din[i];
        if (d && want[i] && g.status == BP_OK) {
            if (!bp_shape_equal(d->m.ndim, d->m.shape, n->in[i]->m.ndim, n->in[i]->m.shape) || d->m.dtype != n->in[i]->m.dtype) {
                char have[200], need[200];
                g.status = bp_fail(ctx, BP_EINVAL, "backward: the gradient of '%s' for input %d is %s %s, but the input is %s %s",
                                   n->op->name, i + 1, bp_dtype_name(d->m.dtype), bp_shape_text(d->m.ndim, d->m.shape, have),
                                   bp_dtype_name(n->in[i]->m.dtype), bp_shape_text(n->in[i]->m.ndim, n->in[i]->m.shape, need));
            } else
                g.status = deliver(w, n->in[i]->var, d);
        }
        bp_tensor_release(d);
    }
    bp_mem_free(ctx, g.din, bytes);
    if (g.status == BP_OK && !w->options.retain_graph) {
        bp_node_clear(n);
        bp_node_unhook(n);
        n->used = true;
    }
    return g.status;
}

static bp_status run(walk *w, bp_tensor *t, bp_tensor *seed)
{
    bp_ctx *ctx = w->ctx;
    bp_tensor *one = NULL;
    if (ctx->in_grad_hook)
        return bp_fail(ctx, BP_ESTATE,
                       "backward: another backward is running, and this is one of its hooks; keep "
                       "what is needed and call backward afterwards");
    if (!t->var)
        return bp_fail(
            ctx, BP_ESTATE,
            "backward: this value depends on nothing that requires a gradient; call requires_grad_() on a leaf (or use parameters), "
            "and compute it outside bp.no_grad");
    if (seed) {
        char a[200], b[200];
        if (!bp_shape_equal(seed->m.ndim, seed->m.shape, t->m.ndim, t->m.shape) || seed->m.dtype != t->m.dtype)
            return bp_fail(ctx, BP_EINVAL, "backward: the gradient given is %s %s, but the value is %s %s", bp_dtype_name(seed->m.dtype),
                           bp_shape_text(seed->m.ndim, seed->m.shape, a), bp_dtype_name(t->m.dtype),
                           bp_shape_text(t->m.ndim, t->m.shape, b));
        one = bp_tensor_retain(seed);
    } else {
        char a[200];
        if (bp_count(t) != 1)
            return bp_fail(ctx, BP_EINVAL,
                           "backward: a value of shape %s is not a single number; reduce it (sum, mean) or pass its gradient",
                           bp_shape_text(t->m.ndim, t->m.shape, a));
        bp_arg args[3] = { bp_list(t->m.ndim, t->m.shape), bp_float(1), bp_int(t->m.dtype) };
        BP_TRY(bp_apply(ctx, &bp__op_full, 0, NULL, 3, args, &one));
    }
    if (w->options.create_graph) w->options.retain_graph = true;
    bool grad_enabled = bp_set_grad_enabled(ctx, w->options.create_graph);
    bp_status status = deliver(w, t->var, one);
    bp_tensor_release(one);
    while (w->n > 0) {
        bp_node *n = pop(w);
        if (status == BP_OK) status = run_node(w, n);
        for (int i = 0; i < n->n_out; i++) { /* left over after a failure */
            bp_tensor_release(n->dout[i]);
            n->dout[i] = NULL;
        }
        bp_node_release(n);
    }
    bp_set_grad_enabled(ctx, grad_enabled);
    bp_mem_free(ctx, w->heap, (size_t)w->cap * sizeof *w->heap);
    return status;
}

bp_status bp_backward(bp_tensor *t, bp_tensor *seed, const bp_backward_options *options)
{
    walk w;
    memset(&w, 0, sizeof w);
    w.ctx = t->ctx;
    if (options) w.options = *options;
    return run(&w, t, seed);
}

bp_status bp_gradients(bp_tensor *t, bp_tensor *seed, int n, bp_tensor *const *wrt, const bp_backward_options *options, bp_tensor **grads)
{
    walk w;
    memset(&w, 0, sizeof w);
    w.ctx = t->ctx;
    if (options) w.options = *options;
    w.n_wrt = n;
    w.wrt = wrt;
    w.found = grads;
    for (int i = 0; i < n; i++) {
        grads[i] = NULL;
        if (!wrt[i]->var)
            return bp_fail(w.ctx, BP_ESTATE, "gradients: tensor %d does not require a gradient; call requires_grad_() before computing",
                           i + 1);
    }
    bp_status status = run(&w, t, seed);
    if (status != BP_OK)
        for (int i = 0; i < n; i++) {
            bp_tensor_release(grads[i]);
            grads[i] = NULL;
        }
    return status;
}

/* ---- what a user sees of it on a tensor ---- */

bp_status bp_tensor_set_requires_grad(bp_tensor *t, bool wanted)
{
    if (wanted) {
        if (!bp_is_float(t->m.dtype))
            return bp_fail(t->ctx, BP_EINVAL, "requires_grad: a tensor of %s has no gradient; cast it to f32 or f64",
                           bp_dtype_name(t->m.dtype));
        bp_var *v;
        return bp_var_of(t, &v);
    }
    if (t->var && !t->var->leaf) return bp_fail(t->ctx, BP_ESTATE, "requires_grad: the result of an op has a history; detach() it instead");
    if (t->var) bp_var_release(t->var);
    t->var = NULL;
    return BP_OK;
}

bool bp_tensor_requires_grad(const bp_tensor *t) { return t->var != NULL; }
bp_tensor *bp_tensor_grad(bp_tensor *t) { return t->var ? t->var->grad : NULL; }

bp_status bp_tensor_set_grad(bp_tensor *t, bp_tensor *grad)
{
    bp_var *v;
    char a[200], b[200];
    if (!grad && !t->var) return BP_OK;
    if (!bp_is_float(t->m.dtype)) return bp_fail(t->ctx, BP_EINVAL, "grad: a tensor of %s has no gradient", bp_dtype_name(t->m.dtype));
    if (grad && (!bp_shape_equal(t->m.ndim, t->m.shape, grad->m.ndim, grad->m.shape) || t->m.dtype != grad->m.dtype))
        return bp_fail(t->ctx, BP_EINVAL, "grad: %s %s does not fit a tensor of %s %s", bp_dtype_name(grad->m.dtype),
                       bp_shape_text(grad->m.ndim, grad->m.shape, a), bp_dtype_name(t->m.dtype), bp_shape_text(t->m.ndim, t->m.shape, b));
    BP_TRY(bp_var_of(t, &v));
    if (grad) bp_tensor_retain(grad);
    bp_tensor_release(v->grad);
    v->grad = grad;
    v->grad_zero = v->grad_shared = false;
    return BP_OK;
}

bp_status bp_tensor_retain_grad(bp_tensor *t)
{
    if (!t->var) return bp_fail(t->ctx, BP_ESTATE, "retain_grad: no gradient flows through this tensor");
    t->var->retain = true;
    return BP_OK;
}

bp_status bp_tensor_on_grad(bp_tensor *t, bp_grad_fn *fn, void *ud, void (*release)(void *ud))
{
    bp_node *n = t->var ? t->var->node : NULL;
    if (!n)
        return bp_fail(t->ctx, BP_ESTATE,
                       t->var ? "on_grad: the tensor is no result of an op; its gradient gathers in .grad"
                              : "on_grad: no gradient flows through this tensor");
    bp_grad_hook *h = (bp_grad_hook *)bp_mem_zeroed(t->ctx, sizeof *h), **last = &n->hooks;
    if (!h) return BP_ENOMEM;
    *h = (bp_grad_hook){ NULL, t->var->slot, fn, ud, release };
    while (*last) last = &(*last)->next;
    *last = h;
    return BP_OK;
}

static bp_status fill_zero(bp_tensor *grad)
{
    bp_arg args[3] = { bp_list(grad->m.ndim, grad->m.shape), bp_float(0), bp_int(grad->m.dtype) };
    return bp_apply(grad->ctx, &bp__op_full, 0, NULL, 3, args, &grad);
}

bp_status bp_tensor_zero_grad(bp_tensor *t)
{
    bp_var *v = t->var;
    bp_ctx *ctx = t->ctx;
    if (!v) return BP_OK;
    bool capturing = is_noted(ctx);
    if (v->grad_shared) {
        bp_tensor_release(v->grad);
        v->grad = NULL;
        v->grad_shared = false;
    }
    if (!v->grad) {
        if (!capturing) return BP_OK;
        bool old = bp_pause_capture(ctx, true); /* the grad must outlive the replays */
        bp_status status = zeros_like(t, &v->grad);
        bp_pause_capture(ctx, old);
        BP_TRY(status);
    } else if (!capturing)
        BP_TRY(fill_zero(v->grad));
    if (capturing && !v->listed) {
        v->listed = true;
        v->next_zeroed = (bp_var *)ctx->zeroed;
        ctx->zeroed = bp_var_retain(v);
    }
    bp_grad_declare(v, true);
    v->zeroed = capturing ? ctx->capture_id : 0;
    return BP_OK;
}

bp_status bp_settle_zeroed(bp_ctx *ctx, bool fill)
{
    bp_status status = BP_OK;
    while (ctx->zeroed) {
        bp_var *v = (bp_var *)ctx->zeroed;
        ctx->zeroed = v->next_zeroed;
        v->next_zeroed = NULL;
        v->listed = false;
        if (fill && status == BP_OK && v->grad && v->grad_zero && v->zeroed == ctx->capture_id) {
            status = fill_zero(v->grad);
            v->zeroed = status == BP_OK ? 0 : v->zeroed;
            v->zero_at = ctx->replays;
        }
        bp_var_release(v);
    }
    return status;
}

bp_status bp_settle_grad(bp_tensor *t)
{
    bp_var *v = t->var;
    if (!v || !v->grad || !v->grad_zero || !v->zeroed) return BP_OK;
    BP_TRY(fill_zero(v->grad));
    v->grad_zero = false;
    return BP_OK;
}

bp_status bp_tensor_detach(bp_tensor *t, bp_tensor **out) { return bp_tensor_alias(t, out); }
