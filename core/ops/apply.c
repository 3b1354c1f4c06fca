/* apply.c - the one door. Everything that computes comes through bp_apply:
 *   inputs checked and prepared (dtype, layout) -> options completed -> shapes inferred -> listeners asked -> outputs made -> run
 *   -> listeners told.
 * The door knows neither tape nor plan: both are listeners. Preparing an input applies an op itself (cast, contiguous), so that is seen
 * as well. */
#include "../base/float_mode.h"
#include "../base/memory.h"
#include "op.h"

#include <string.h>

enum { INLINE_INPUTS = 8 };

static const bp_input *input_of(const bp_op *op, int i)
{
    const bp_input *d = op->inputs;
    for (int k = 0; k < i && d->name; k++, d++)
        if (d->flags & BP_IN_VARIADIC) return d;
    return d->name ? d : NULL;
}

static bp_status check_inputs(bp_call *c)
{
    int i = 0, declared = 0;
    bool variadic = false;
    for (const bp_input *d = c->op->inputs; d->name; d++, declared++) variadic = d->flags & BP_IN_VARIADIC;
    if (c->n_in > declared && !variadic) return bp_op_fail(c, BP_EINVAL, "%d inputs; at most %d are expected", c->n_in, declared);
    for (i = 0; i < c->n_in || i < declared; i++) {
        const bp_input *d = input_of(c->op, i);
        bp_tensor *t = i < c->n_in ? c->in[i] : NULL;
        if (!t) {
            if (!(d->flags & BP_IN_OPTIONAL)) return bp_op_fail(c, BP_EINVAL, "input '%s' is missing; it is %s", d->name, d->help);
            continue;
        }
        if (t->ctx != c->ctx) return bp_op_fail(c, BP_EINVAL, "input '%s' belongs to another context", d->name);
        if (!t->storage) return bp_op_fail(c, BP_ESTATE, "the value of '%s' was not kept for backward", d->name);
        if ((d->flags & BP_IN_INDEX) && bp_is_float(t->m.dtype))
            return bp_op_fail(c, BP_EINVAL, "'%s' holds positions and must be of an integer dtype, not %s; cast it to i64 first", d->name,
                              bp_dtype_name(t->m.dtype));
    }
    return BP_OK;
}

static bp_status complete_args(bp_call *c, int n_args, const bp_arg *args)
{
    int i = 0;
    for (const bp_option *o = c->op->options; o && o->name; o++, i++) {
        bp_arg *a = &c->args[i];
        if (i < n_args && args[i].set)
            *a = args[i];
        else if (o->required)
            return bp_op_fail(c, BP_EINVAL, "option '%s' is missing; it is %s", o->name, o->help);
        else {
            memset(a, 0, sizeof *a);
            switch (o->kind) {
            case BP_OPT_FLOAT:
                a->as.f = o->def;
                a->count = 1;
                break;
            case BP_OPT_AXES:
            case BP_OPT_INDICES:
            case BP_OPT_INTS:
                a->count = o->length;
                for (int k = 0; k < o->length; k++) a->as.list[k] = (int64_t)o->def;
                break;
            default:
                a->as.i = (int64_t)o->def;
                a->count = 1;
                break;
            }
            continue;
        }
        bool list = o->kind == BP_OPT_AXES || o->kind == BP_OPT_INDICES || o->kind == BP_OPT_INTS;
        if (list && o->length > 1 && a->count == 1) {
            for (int k = 1; k < o->length; k++) a->as.list[k] = a->as.list[0];
            a->count = o->length;
        }
        if (list && o->length && a->count != o->length)
            return bp_op_fail(c, BP_EINVAL, "option '%s' has %d numbers; %d (or one for all) are expected", o->name, a->count, o->length);
        if (o->min > o->max) continue;
        for (int k = 0; k < (list ? a->count : 1); k++) {
            double v = o->kind == BP_OPT_FLOAT ? a->as.f : (double)(list ? a->as.list[k] : a->as.i);
            if (!(v >= o->min && v <= o->max)) {
                if (o->max >= 1e300) return bp_op_fail(c, BP_EINVAL, "option '%s' is %g; %g or more is expected", o->name, v, o->min);
                return bp_op_fail(c, BP_EINVAL, "option '%s' is %g; %g to %g is expected", o->name, v, o->min, o->max);
            }
        }
    }
    if (n_args > i) return bp_op_fail(c, BP_EINVAL, "%d options; at most %d are expected", n_args, i);
    return BP_OK;
}

/* The dtype that the promoted inputs take; -1: nothing to promote. */
static int promoted(const bp_call *c)
{
    int widest = -1;
    for (int i = 0; i < c->n_in; i++) {
        const bp_input *d = input_of(c->op, i);
        if (!c->in[i] || (d->flags & (BP_IN_INDEX | BP_IN_STREAM | BP_IN_RAW))) continue;
        int t = c->in[i]->m.dtype;
        static const int rank[BP_DTYPE_COUNT] = { [BP_BOOL] = 0, [BP_U8] = 1, [BP_I32] = 2, [BP_I64] = 3, [BP_F32] = 4, [BP_F64] = 5 };
        if (widest < 0 || rank[t] > rank[widest]) widest = t;
    }
    if (widest < 0) return -1;
    if (c->op->promote == BP_PROMOTE_FLOAT) return bp_is_float((bp_dtype)widest) ? widest : BP_F32;
    return widest == BP_U8 || widest == BP_BOOL ? BP_I32 : widest;
}

/* c->in[i] is replaced by what a preparing op made of it; owned[i] says that we hold that reference. */
static bp_status prepare(bp_call *c, int i, const bp_op *op, int n_args, const bp_arg *args, bool *owned)
{
    bp_tensor *out = NULL;
    BP_TRY(bp_apply(c->ctx, op, 1, &c->in[i], n_args, args, &out));
    if (owned[i]) bp_tensor_release(c->in[i]);
    c->in[i] = out;
    owned[i] = true;
    return BP_OK;
}

static bp_status prepare_inputs(bp_call *c, bool *owned)
{
    const bp_op *op = c->op;
    int dtype = op->promote == BP_PROMOTE_NONE ? -1 : promoted(c);
    for (int i = 0; i < c->n_in; i++) {
        const bp_input *d = input_of(op, i);
        if (d->flags & BP_IN_STREAM && !c->in[i]) BP_TRY(bp_stream_state(c->ctx, op->stream, &c->in[i]));
        if (!c->in[i] || (d->flags & (BP_IN_RAW | BP_IN_STREAM))) continue;
        if (dtype >= 0 && !(d->flags & BP_IN_INDEX) && c->in[i]->m.dtype != (bp_dtype)dtype) {
            if (d->flags & BP_IN_MUTATED)
                return bp_op_fail(c, BP_EINVAL, "'%s' is %s but the others are %s; tensors updated in place must have one dtype", d->name,
                                  bp_dtype_name(c->in[i]->m.dtype), bp_dtype_name((bp_dtype)dtype));
            bp_arg to = bp_int(dtype);
            BP_TRY(prepare(c, i, &bp__op_cast, 1, &to, owned));
        }
        if (!(op->flags & BP_OP_STRIDED) && !bp_tensor_is_contiguous(c->in[i])) {
            if (d->flags & BP_IN_MUTATED)
                return bp_op_fail(c, BP_EINVAL, "'%s' is a view with gaps and cannot be updated in place; update its base", d->name);
            BP_TRY(prepare(c, i, &bp__op_contiguous, 0, NULL, owned));
        }
    }
    return BP_OK;
}

/* The same elements in the same order. */
static bool same_place(const bp_tensor *a, const bp_tensor *b)
{
    return bp_data(a) == bp_data(b) && a->m.dtype == b->m.dtype && bp_shape_equal(a->m.ndim, a->m.shape, b->m.ndim, b->m.shape) &&
           memcmp(a->m.stride, b->m.stride, sizeof(int64_t) * (size_t)a->m.ndim) == 0;
}

static bool repeats_elements(const bp_tensor *t)
{
    for (int i = 0; i < t->m.ndim; i++)
        if (t->m.shape[i] > 1 && t->m.stride[i] == 0) return true;
    return false;
}

/* A given output looks as inferred, and no other input overlaps it. */
static bp_status check_given(bp_call *c, int i)
{
    bp_tensor *t = c->out[i];
    const bp_meta *m = &c->meta[i];
    char want[200], got[200];
    if (c->op->flags & BP_OP_VIEW) return bp_op_fail(c, BP_EINVAL, "a view cannot be written into a given tensor; copy it instead");
    if (t->ctx != c->ctx || !t->storage) return bp_op_fail(c, BP_EINVAL, "the output given has no memory in this context");
    if (t->m.dtype != m->dtype)
        return bp_op_fail(c, BP_EINVAL, "the result is %s and cannot be written in place into a tensor of %s; cast first",
                          bp_dtype_name(m->dtype), bp_dtype_name(t->m.dtype));
    if (!bp_shape_equal(t->m.ndim, t->m.shape, m->ndim, m->shape))
        return bp_op_fail(c, BP_EINVAL, "the result has shape %s and cannot be written in place into %s",
                          bp_shape_text(m->ndim, m->shape, want), bp_shape_text(t->m.ndim, t->m.shape, got));
    if (!(c->op->flags & BP_OP_STRIDED) && !bp_tensor_is_contiguous(t))
        return bp_op_fail(c, BP_EINVAL, "the result cannot be written in place into a view with gaps; assign it with t[...] = value");
    if (repeats_elements(t)) return bp_op_fail(c, BP_EINVAL, "an expanded tensor shares elements and cannot be written in place");
    for (int k = 0; k < c->n_in; k++)
        if (c->in[k] && bp_tensors_meet(c->in[k], t) && !(same_place(c->in[k], t) && (c->op->flags & BP_OP_INPLACE)))
            return bp_op_fail(c, BP_EINVAL, "input %d and the output share memory; copy one of them first", k + 1);
    return BP_OK;
}

static bp_status make_outputs(bp_call *c)
{
    for (int i = 0; i < c->n_out; i++) {
        if (c->given[i]) continue;
        if (c->op->flags & BP_OP_VIEW)
            BP_TRY(bp_tensor_over(c->ctx, &c->meta[i], c->in[0]->storage, &c->out[i]));
        else
            BP_TRY(bp_tensor_like(c->ctx, &c->meta[i], &c->out[i]));
    }
    return BP_OK;
}

static bp_status pass(bp_call *c, int n_args, const bp_arg *args, bool *owned)
{
    BP_TRY(check_inputs(c));
    BP_TRY(complete_args(c, n_args, args));
    BP_TRY(prepare_inputs(c, owned));
    BP_TRY(c->op->infer(c));
    for (int i = 0; i < c->n_out; i++)
        if (c->given[i]) BP_TRY(check_given(c, i));
    for (bp_listener *l = c->ctx->listeners; l; l = l->next)
        if (l->before) BP_TRY(l->before(l->ud, c));
    BP_TRY(make_outputs(c));
    if (c->op->run) {
        unsigned mode = bp_float_enter();
        bp_status status = c->op->run(c);
        bp_float_leave(mode);
        BP_TRY(status);
    }
    for (int i = 0; i < c->n_out; i++)
        if (c->given[i]) bp_tensor_touched(c->out[i]);
    for (int i = 0; i < c->n_in; i++)
        if (c->in[i] && (input_of(c->op, i)->flags & (BP_IN_MUTATED | BP_IN_STREAM))) bp_tensor_touched(c->in[i]);
    for (bp_listener *l = c->ctx->listeners; l; l = l->next)
        if (l->after) BP_TRY(l->after(l->ud, c));
    return BP_OK;
}

bp_status bp_apply(bp_ctx *ctx, const bp_op *op, int n_in, bp_tensor *const *in, int n_args, const bp_arg *args, bp_tensor **out)
{
    bp_tensor *small[INLINE_INPUTS];
    bool small_owned[INLINE_INPUTS];
    bp_call c;
    c.ctx = ctx;
    c.op = op;
    c.n_out = op->n_out;
    /* room for a stream that was left out at the end */
    int room = n_in + 1, declared = 0;
    while (op->inputs[declared].name) declared++;
    if (room < declared) room = declared;
    bool heap = room > INLINE_INPUTS;
    size_t bytes = (size_t)room * (sizeof *c.in + sizeof(bool));
    c.in = heap ? (bp_tensor **)bp_mem_new(ctx, bytes) : small;
    if (!c.in) return BP_ENOMEM;
    bool *owned = heap ? (bool *)(c.in + room) : small_owned;
    for (int i = 0; i < room; i++) {
        c.in[i] = i < n_in ? in[i] : NULL;
        owned[i] = false;
    }
    c.n_in = n_in > declared ? n_in : declared;
    for (int i = 0; i < c.n_out; i++) {
        c.out[i] = out[i];
        c.given[i] = out[i] != NULL;
    }
    bp_status status = pass(&c, n_args, args, owned);
    for (int i = 0; i < c.n_out; i++) {
        if (c.given[i]) continue;
        if (status == BP_OK)
            out[i] = c.out[i];
        else
            bp_tensor_release(c.out[i]);
    }
    for (int i = 0; i < room; i++)
        if (owned[i]) bp_tensor_release(c.in[i]);
    if (heap) bp_mem_free(ctx, c.in, bytes);
    return status;
}

bp_status bp_apply1(bp_ctx *ctx, const bp_op *op, bp_tensor *a, bp_tensor **out) { return bp_apply(ctx, op, 1, &a, 0, NULL, out); }

bp_status bp_apply2(bp_ctx *ctx, const bp_op *op, bp_tensor *a, bp_tensor *b, bp_tensor **out)
{
    bp_tensor *in[2] = { a, b };
    return bp_apply(ctx, op, 2, in, 0, NULL, out);
}
