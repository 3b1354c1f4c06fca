/* into.c - a replay whose results go into tensors of the caller, and which arguments share memory that a replay writes.
 *
 * A result that is a whole temporary, for memory that nothing else of the replay lies in, is computed there: its place is pointed at that
 * memory meanwhile. Any other is computed where bp_plan_run would have it, and copied in the end. Copies must not run into each other: what
 * a later one reads is no memory that an earlier one writes. */
#include "rewrite.h"

#include <string.h>

static bp_status check_out(bp_ctx *ctx, int i, const bp_meta *m, const bp_tensor *t)
{
    char have[200], want[200];
    if (t && t->storage && t->ctx == ctx && !t->var && bp_tensor_fits(t, m)) return BP_OK;
    if (!t || !t->storage || t->ctx != ctx) return bp_fail(ctx, BP_EINVAL, "into: output %d has no memory in this context", i + 1);
    if (t->m.dtype != m->dtype || !bp_shape_equal(t->m.ndim, t->m.shape, m->ndim, m->shape))
        return bp_fail(ctx, BP_EINVAL, "into: output %d is %s %s; the result is %s %s, and is not converted", i + 1,
                       bp_dtype_name(t->m.dtype), bp_shape_text(t->m.ndim, t->m.shape, have), bp_dtype_name(m->dtype),
                       bp_shape_text(m->ndim, m->shape, want));
    if (t->var)
        return bp_fail(ctx, BP_EINVAL, "into: output %d requires a gradient or has a history, which a replay cannot give it; detach it",
                       i + 1);
    return bp_fail(ctx, BP_EINVAL, "into: output %d is a view with gaps; give a tensor of its own and copy that into the view", i + 1);
}

static bp_status check_apart(bp_ctx *ctx, int i, bp_tensor *const *out)
{
    for (int k = 0; k < i; k++)
        if (bp_tensors_meet(out[i], out[k]))
            return bp_fail(ctx, BP_EINVAL, "into: outputs %d and %d share memory; give each its own", k + 1, i + 1);
    return BP_OK;
}

/* That all n copies leave each other's sources alone. A result may lie where it is to go, or with a shift when it has no gaps. */
static bp_status check_copy(bp_ctx *ctx, int i, const bp_tensor *result, int n, bp_tensor *const *out)
{
    for (int k = 0; k < n; k++)
        if ((k != i || !bp_tensor_is_contiguous(result)) && bp_tensors_meet(result, out[k]))
            return bp_fail(ctx, BP_EINVAL,
                           "into: output %d lies in the memory of result %d, which is not computed but handed on; give a tensor "
                           "of its own",
                           k + 1, i + 1);
    return BP_OK;
}

static void copy(const bp_tensor *from, bp_tensor *to)
{
    if (bp_tensor_is_contiguous(from))
        memmove(bp_data(to), bp_data(from), (size_t)bp_count(to) * bp_dtype_size(to->m.dtype));
    else
        bp_tensor_convert(from, to);
}

bp_status bp_plan_store(bp_ctx *ctx, int n, bp_tensor *const *results, bp_tensor *const *out)
{
    for (int i = 0; i < n; i++) {
        BP_TRY(check_out(ctx, i, &results[i]->m, out[i]));
        BP_TRY(check_apart(ctx, i, out));
        BP_TRY(check_copy(ctx, i, results[i], n, out));
    }
    for (int i = 0; i < n; i++) {
        copy(results[i], out[i]);
        bp_tensor_touched(out[i]);
    }
    return BP_OK;
}

/* A block of our own that no plan keeps has nothing in common with what one keeps. */
static bool is_kept(const bp_plan *p, const bp_tensor *t, bool written)
{
    if (t->storage->block && !t->storage->kept) return false;
    const bp_range memory = bp_tensor_range(t);
    for (int64_t k = p->n_inputs; k < p->n_places; k++) {
        const bp_place *place = &p->places[k];
        if (place->kind == BP_PLACE_EXTERNAL && place->live && (place->written || !written) &&
            bp_ranges_meet(memory, bp_storage_range(place->storage)))
            return true;
    }
    return false;
}

/* Whether nothing else that the replay reads or writes lies where an output is to go. Own temporaries that somebody else can reach are
 * renewed. */
static bool is_free(const bp_plan *p, const bp_tensor *out, bp_tensor *const *inputs)
{
    for (int k = 0; k < p->n_inputs; k++)
        if (bp_tensors_meet(out, inputs[k])) return false;
    return !is_kept(p, out, false);
}

/* Points the places of direct results at the other memory, or back. */
static void exchange_memory(bp_plan *p)
{
    for (int i = 0; i < p->n_outputs; i++) {
        if (!p->into[i].direct) continue;
        void **const data = &p->into[i].result.storage->data, *const other = p->into[i].other;
        p->into[i].other = *data;
        *data = other;
    }
}

bp_status bp_plan_run_into(bp_plan *p, int n_inputs, bp_tensor *const *inputs, int n_outputs, bp_tensor *const *out)
{
    bp_ctx *ctx = p->ctx;
    if (n_outputs != p->n_outputs) return bp_fail(ctx, BP_EINVAL, "into: %d outputs; %d are expected", n_outputs, p->n_outputs);
    BP_TRY(bp_plan_bind(p, n_inputs, inputs));
    for (int i = 0; i < n_outputs; i++) {
        BP_TRY(check_out(ctx, i, &p->outputs[i].meta, out[i]));
        BP_TRY(check_apart(ctx, i, out));
        p->into[i].direct = p->into[i].whole && is_free(p, out[i], inputs);
    }
    for (int i = 0; i < n_outputs; i++)
        if (p->places[p->outputs[i].place].kind != BP_PLACE_TEMP) BP_TRY(check_copy(ctx, i, &p->into[i].result, n_outputs, out));
    BP_TRY(bp_plan_renew(p, true));
    for (int i = 0; i < n_outputs; i++) p->into[i].other = bp_data(out[i]); /* all before any place moves: it may be that of a result */
    exchange_memory(p);
    bp_status status = bp_plan_steps(p, inputs);
    exchange_memory(p);
    for (int i = 0; i < n_outputs && status == BP_OK; i++)
        if (!p->into[i].direct) copy(&p->into[i].result, out[i]);
    for (int i = 0; i < n_outputs; i++) bp_tensor_touched(out[i]);
    return status;
}

bool bp_plan_shares(const bp_plan *p, int n_inputs, bp_tensor *const *inputs)
{
    if (p->n_written == 0) return false;
    for (int i = 0; i < n_inputs; i++) {
        const bool written = p->places[i].written;
        if (is_kept(p, inputs[i], !written)) return true;
        for (int k = 0; k < n_inputs && written; k++)
            if (k != i && bp_tensors_meet(inputs[i], inputs[k])) return true;
    }
    return false;
}
