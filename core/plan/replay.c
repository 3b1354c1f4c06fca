/* replay.c - making a plan ready, and running it: a loop over calls, with nothing allocated and no Lua in sight. */
#include "../base/float_mode.h"
#include "../base/memory.h"
#include "rewrite.h"

#include <string.h>

/* An argument's place is a storage without memory of its own; each replay points it at the caller's. */
static bp_status make_storages(bp_plan *p)
{
    BP_TRY(bp_storage_new(p->ctx, p->arena_bytes, &p->arena));
    for (int64_t i = 0; i < p->n_places; i++) {
        bp_place *place = &p->places[i];
        if (place->kind == BP_PLACE_INPUT)
            BP_TRY(bp_storage_wrap(p->ctx, NULL, place->bytes, NULL, NULL, &place->storage));
        else if (place->kind == BP_PLACE_TEMP && (place->output || (place->constant && place->live)))
            BP_TRY(bp_storage_new(p->ctx, place->bytes, &place->storage));
    }
    return BP_OK;
}

static void make_tensor(bp_plan *p, const bp_spot *spot, bp_tensor *t)
{
    bp_place *place = &p->places[spot->place];
    memset(t, 0, sizeof *t);
    t->ctx = p->ctx;
    t->refs = 1;
    t->m = spot->meta;
    t->storage = place->storage ? place->storage : p->arena;
    if (!place->storage) t->m.offset += (int64_t)(place->offset / bp_dtype_size(spot->meta.dtype));
}

static bp_status note_written(bp_plan *p)
{
    p->written = (int64_t *)bp_mem_new(p->ctx, (size_t)p->n_places * sizeof *p->written);
    if (!p->written) return BP_ENOMEM;
    for (int64_t i = 0; i < p->n_places; i++)
        if (p->places[i].written && p->places[i].kind != BP_PLACE_TEMP) p->written[p->n_written++] = i;
    return BP_OK;
}

/* Of outputs at one place none is computed elsewhere. */
static void prepare_results(bp_plan *p)
{
    for (int i = 0; i < p->n_outputs; i++) {
        const bp_spot *spot = &p->outputs[i];
        const bp_place *place = &p->places[spot->place];
        make_tensor(p, spot, &p->into[i].result);
        bool whole = place->kind == BP_PLACE_TEMP && spot->meta.offset == 0 && contiguous(&spot->meta) &&
                     (size_t)count(&spot->meta) * bp_dtype_size(spot->meta.dtype) == place->bytes;
        for (int k = 0; k < p->n_outputs; k++) whole &= k == i || p->outputs[k].place != spot->place;
        p->into[i].whole = whole;
    }
}

/* Constant steps run now, and leave the list of runs. */
static bp_status compute_constants(bp_plan *p)
{
    int64_t kept = 0, k = 0;
    unsigned mode = bp_float_enter();
    bp_status status = BP_OK;
    for (int64_t step = 0; step < p->n_steps; step++) {
        if (!p->steps[step].live) continue;
        bp_ready *r = &p->runs[k++];
        if (p->steps[step].constant && status == BP_OK) status = r->call.op->run(&r->call);
        if (!p->steps[step].constant) p->runs[kept++] = *r;
    }
    bp_float_leave(mode);
    p->n_runs = kept;
    return status;
}

bp_status bp_plan_prepare(bp_plan *p)
{
    BP_TRY(make_storages(p));
    BP_TRY(note_written(p));
    for (int64_t k = 0; k < p->n_steps; k++)
        if (p->steps[k].live) {
            p->n_runs++;
            p->n_tensors += p->steps[k].n_in + p->steps[k].n_out;
        }
    p->cap_runs = p->n_runs;
    p->tensors = (bp_tensor *)bp_mem_zeroed(p->ctx, (size_t)p->n_tensors * sizeof *p->tensors);
    p->slots = (bp_tensor **)bp_mem_zeroed(p->ctx, (size_t)p->n_tensors * sizeof *p->slots);
    p->runs = (bp_ready *)bp_mem_zeroed(p->ctx, (size_t)p->n_runs * sizeof *p->runs);
    if (!p->tensors || !p->slots || !p->runs) return BP_ENOMEM;
    bp_tensor *t = p->tensors;
    bp_tensor **slot = p->slots;
    bp_ready *r = p->runs;
    for (int64_t k = 0; k < p->n_steps; k++) {
        const bp_step *s = &p->steps[k];
        if (!s->live) continue;
        r->where = s->where;
        bp_call *c = &r->call;
        c->ctx = p->ctx;
        c->op = s->op;
        c->n_in = s->n_in;
        c->n_out = s->n_out;
        c->in = slot;
        memcpy(c->args, s->args, sizeof c->args);
        for (int i = 0; i < s->n_in + s->n_out; i++) {
            const bp_spot *spot = &p->spots[s->spot + i];
            bp_tensor *made = NULL;
            if (spot->place >= 0) {
                make_tensor(p, spot, t);
                made = t++;
            }
            if (i < s->n_in)
                *slot++ = made;
            else {
                c->out[i - s->n_in] = made;
                c->meta[i - s->n_in] = spot->meta;
            }
        }
        r++;
    }
    prepare_results(p);
    return compute_constants(p);
}

/* Without gaps, strides of sizes 1 and 0 mean nothing. */
static bool fits(const bp_tensor *t, const bp_meta *m)
{
    if (t->m.dtype != m->dtype || t->m.ndim != m->ndim) return false;
    bool alike = true;
    for (int i = 0; i < m->ndim; i++) {
        if (t->m.shape[i] != m->shape[i]) return false;
        alike &= t->m.stride[i] == m->stride[i];
    }
    return alike || (bp_tensor_is_contiguous(t) && contiguous(m));
}

static bp_status misfit(bp_plan *p, int i, const bp_tensor *t)
{
    const bp_meta *m = &p->input_meta[i];
    char have[200], want[200];
    const bool shapes = t->m.dtype == m->dtype && bp_shape_equal(t->m.ndim, t->m.shape, m->ndim, m->shape);
    return bp_fail(p->ctx, BP_EINVAL, "replay: argument %d is %s %s%s; the plan was made for %s %s%s", i + 1, bp_dtype_name(t->m.dtype),
                   bp_shape_text(t->m.ndim, t->m.shape, have), shapes ? " with other strides" : "", bp_dtype_name(m->dtype),
                   bp_shape_text(m->ndim, m->shape, want), contiguous(m) ? " without gaps" : "");
}

bp_status bp_plan_bind(bp_plan *p, int n_inputs, bp_tensor *const *inputs)
{
    bp_ctx *ctx = p->ctx;
    if (n_inputs != p->n_inputs) return bp_fail(ctx, BP_EINVAL, "replay: %d arguments; %d are expected", n_inputs, p->n_inputs);
    if (bp_plan_is_stale(p)) return bp_fail(ctx, BP_ESTATE, "replay: parameters were moved since the capture; capture again");
    if (ctx->capture_id && !ctx->paused)
        return bp_fail(ctx, BP_ESTATE, "replay: another capture is open, which would not note it; apply the ops themselves");
    for (int i = 0; i < n_inputs; i++) {
        if (!fits(inputs[i], &p->input_meta[i])) return misfit(p, i, inputs[i]);
        p->places[i].storage->data = bp_data(inputs[i]);
    }
    if (bp_plan_shares(p, n_inputs, inputs))
        return bp_fail(ctx, BP_EINVAL,
                       "replay: an argument shares memory that the plan writes with another one, or with what the plan "
                       "keeps; pass a copy, or apply the ops themselves");
    return BP_OK;
}

static void drop_head(bp_plan *p, int i)
{
    if (!p->heads[i]) return;
    p->places[p->outputs[i].place].heads--;
    bp_tensor_release(p->heads[i]);
    p->heads[i] = NULL;
}

/* Whoever still holds what the last replay handed out keeps it: this replay gets fresh memory. A head that nobody else holds, and that is
 * as it was made, can be handed out again. */
bp_status bp_plan_renew(bp_plan *p, bool into)
{
    for (int i = 0; i < p->n_outputs; i++) {
        const bp_tensor *t = p->heads[i];
        if (t && (t->refs > 1 || t->var || t->storage != p->places[p->outputs[i].place].storage)) drop_head(p, i);
    }
    for (int i = 0; i < p->n_outputs; i++) {
        bp_place *place = &p->places[p->outputs[i].place];
        if (place->kind != BP_PLACE_TEMP || place->storage->refs == 1 + place->heads || (into && p->into[i].direct)) continue;
        bp_storage *fresh;
        BP_TRY(bp_storage_new(p->ctx, place->bytes, &fresh));
        for (int k = 0; k < p->n_outputs; k++)
            if (p->outputs[k].place == p->outputs[i].place) drop_head(p, k);
        for (int64_t k = 0; k < p->n_tensors; k++)
            if (p->tensors[k].storage == place->storage) p->tensors[k].storage = fresh;
        for (int k = 0; k < p->n_outputs; k++)
            if (p->into[k].result.storage == place->storage) p->into[k].result.storage = fresh;
        bp_storage_release(place->storage);
        place->storage = fresh;
    }
    return BP_OK;
}

/* Output i for the caller, who owns one reference. */
static bp_status hand_out(bp_plan *p, int i, bp_tensor *const *inputs, bp_tensor **out)
{
    const bp_spot *spot = &p->outputs[i];
    bp_place *place = &p->places[spot->place];
    if (place->kind == BP_PLACE_INPUT) {
        bp_meta m = spot->meta;
        m.offset += inputs[place->input]->m.offset;
        return bp_tensor_over(p->ctx, &m, inputs[place->input]->storage, out);
    }
    if (p->heads[i]) {
        *out = bp_tensor_retain(p->heads[i]);
        return BP_OK;
    }
    BP_TRY(bp_tensor_over(p->ctx, &spot->meta, place->storage, out));
    if (place->kind == BP_PLACE_TEMP) {
        p->heads[i] = bp_tensor_retain(*out);
        place->heads++;
    }
    return BP_OK;
}

bool bp_plan_is_stale(const bp_plan *p) { return p->moved != p->ctx->moved; }

bp_status bp_plan_steps(bp_plan *p, bp_tensor *const *inputs)
{
    bp_ctx *ctx = p->ctx;
    if (p->n_tables) bp_plan_check_tables(p);
    const char *where = ctx->where;
    unsigned mode = bp_float_enter();
    ctx->replays++;
    bp_status status = BP_OK;
    for (int64_t k = 0; k < p->n_runs && status == BP_OK; k++) {
        ctx->where = p->runs[k].where;
        const double start = p->seconds ? bp_now(ctx) : 0;
        status = p->runs[k].call.op->run(&p->runs[k].call);
        if (p->seconds) p->seconds[k] += bp_now(ctx) - start;
    }
    p->timed += p->seconds != NULL;
    bp_float_leave(mode);
    ctx->where = where;
    for (int64_t i = 0; i < p->n_written; i++) {
        bp_place *place = &p->places[p->written[i]];
        bp_storage_touched(place->kind == BP_PLACE_INPUT ? inputs[place->input]->storage : place->storage);
    }
    if (p->n_tables) bp_plan_settle_tables(p);
    return status;
}

bp_status bp_plan_run(bp_plan *p, int n_inputs, bp_tensor *const *inputs, bp_tensor **out)
{
    BP_TRY(bp_plan_bind(p, n_inputs, inputs));
    BP_TRY(bp_plan_renew(p, false));
    BP_TRY(bp_plan_steps(p, inputs));
    for (int i = 0; i < p->n_outputs; i++) {
        bp_status status = hand_out(p, i, inputs, &out[i]);
        if (status == BP_OK) continue;
        while (i-- > 0) {
            bp_tensor_release(out[i]);
            out[i] = NULL;
        }
        return status;
    }
    return BP_OK;
}

void bp_plan_free(bp_plan *p)
{
    bp_ctx *ctx = p->ctx;
    for (int i = 0; i < p->n_outputs && p->heads; i++) drop_head(p, i);
    for (int64_t i = 0; i < p->n_places; i++) {
        if (p->places[i].kind == BP_PLACE_EXTERNAL && p->places[i].storage) bp_storage_keep(p->places[i].storage, -1);
        bp_storage_release(p->places[i].storage);
    }
    bp_storage_release(p->arena);
    for (int64_t i = 0; i < p->n_names; i++) bp_mem_free(ctx, p->names[i], strlen(p->names[i]) + 1);
#define FREE(array, n) bp_mem_free(ctx, p->array, (size_t)(n) * sizeof *p->array)
    FREE(names, p->cap_names);
    FREE(places, p->cap_places);
    FREE(hash, p->n_hash);
    FREE(spots, p->cap_spots);
    FREE(steps, p->cap_steps);
    FREE(input_meta, p->n_inputs);
    FREE(input_storage, p->n_inputs);
    FREE(outputs, p->n_outputs);
    FREE(heads, p->n_outputs);
    FREE(into, p->n_outputs);
    FREE(written, p->n_places);
    FREE(tables, p->cap_tables);
    FREE(tensors, p->n_tensors);
    FREE(slots, p->n_tensors);
    FREE(runs, p->cap_runs);
    FREE(seconds, p->cap_runs);
#undef FREE
    bp_mem_free(ctx, p, sizeof *p);
}

void bp_plan_release(bp_plan *p)
{
    if (p) bp_plan_free(p);
}

const bp_op *bp_plan_op(const bp_plan *p, int index) { return index >= 0 && index < p->n_runs ? p->runs[index].call.op : NULL; }

bp_plan_info bp_plan_describe(const bp_plan *p)
{
    bp_plan_info info = { (int)p->n_runs, (int)p->n_steps, p->arena_bytes, p->temporary_bytes };
    return info;
}
