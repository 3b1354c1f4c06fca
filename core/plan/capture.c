/* capture.c - noting a step while it runs for the first time. */
#include "../autodiff/tape.h"
#include "../base/memory.h"
#include "plan.h"

#include <string.h>

/* ---- places ---- */

static uint64_t mix(uint64_t id) { return id * 0x9E3779B97F4A7C15u; }

static bp_status rehash(bp_plan *p)
{
    int64_t n = p->n_hash ? p->n_hash * 2 : 64;
    int64_t *hash = (int64_t *)bp_mem_zeroed(p->ctx, (size_t)n * sizeof *hash);
    if (!hash) return BP_ENOMEM;
    for (int64_t i = 0; i < p->n_places; i++) {
        if (p->places[i].kind == BP_PLACE_INPUT) continue;
        uint64_t at = mix(p->places[i].storage_id) >> 32;
        while (hash[at & (uint64_t)(n - 1)]) at++;
        hash[at & (uint64_t)(n - 1)] = i + 1;
    }
    bp_mem_free(p->ctx, p->hash, (size_t)p->n_hash * sizeof *hash);
    p->hash = hash;
    p->n_hash = n;
    return BP_OK;
}

/* First and one past the last element that a look touches, relative to its storage. */
static void span(const bp_meta *m, int64_t *lo, int64_t *hi)
{
    *lo = m->offset;
    *hi = m->offset + 1;
    for (int i = 0; i < m->ndim; i++) {
        if (m->shape[i] == 0) {
            *hi = *lo;
            return;
        }
        *hi += (m->shape[i] - 1) * m->stride[i];
    }
}

/* The argument whose memory t looks at, or -1. */
static int input_of(const bp_plan *p, const bp_tensor *t)
{
    int64_t lo, hi, ilo, ihi;
    for (int i = 0; i < p->n_inputs; i++) {
        if (p->input_storage[i] != t->storage->id || p->input_meta[i].dtype != t->m.dtype) continue;
        span(&t->m, &lo, &hi);
        span(&p->input_meta[i], &ilo, &ihi);
        if (lo >= ilo && hi <= ihi) return i;
    }
    return -1;
}

static bp_status place_of(bp_plan *p, const bp_tensor *t, int64_t *place, int64_t *shift)
{
    int input = input_of(p, t);
    *shift = 0;
    if (input >= 0) { /* the first n_inputs places are the arguments */
        *place = input;
        *shift = p->input_meta[input].offset;
        return BP_OK;
    }
    uint64_t id = t->storage->id, at = mix(id) >> 32;
    if (p->n_hash)
        for (; p->hash[at & (uint64_t)(p->n_hash - 1)]; at++) {
            int64_t i = p->hash[at & (uint64_t)(p->n_hash - 1)] - 1;
            if (p->places[i].storage_id == id) {
                *place = i;
                return BP_OK;
            }
        }
    BP_TRY(bp_mem_grow(p->ctx, &p->places, sizeof *p->places, &p->cap_places, p->n_places + 1));
    if (2 * (p->n_places + 1) > p->n_hash) BP_TRY(rehash(p));
    bp_place *new_place = &p->places[p->n_places];
    memset(new_place, 0, sizeof *new_place);
    new_place->kind = t->storage->born == p->id ? BP_PLACE_TEMP : BP_PLACE_EXTERNAL;
    new_place->storage_id = id;
    new_place->bytes = t->storage->bytes;
    if (new_place->kind == BP_PLACE_EXTERNAL) {
        new_place->storage = bp_storage_retain(t->storage);
        bp_storage_keep(t->storage, 1);
    }
    at = mix(id) >> 32;
    while (p->hash[at & (uint64_t)(p->n_hash - 1)]) at++;
    p->hash[at & (uint64_t)(p->n_hash - 1)] = p->n_places + 1;
    *place = p->n_places++;
    return BP_OK;
}

static bp_status spot_of(bp_plan *p, const bp_tensor *t, bp_spot *spot)
{
    int64_t shift;
    spot->place = -1;
    if (!t) return BP_OK;
    spot->meta = t->m;
    BP_TRY(place_of(p, t, &spot->place, &shift));
    spot->meta.offset -= shift;
    return BP_OK;
}

/* ---- steps ---- */

static bp_status name_of(bp_plan *p, const char *where, const char **out)
{
    *out = NULL;
    if (!where || !*where) return BP_OK;
    if (p->n_names && strcmp(p->names[p->n_names - 1], where) == 0) {
        *out = p->names[p->n_names - 1];
        return BP_OK;
    }
    BP_TRY(bp_mem_grow(p->ctx, &p->names, sizeof *p->names, &p->cap_names, p->n_names + 1));
    char *copy = bp_mem_string(p->ctx, where);
    if (!copy) return BP_ENOMEM;
    p->names[p->n_names++] = copy;
    *out = copy;
    return BP_OK;
}

static bp_status note(void *ud, bp_call *c)
{
    bp_plan *p = (bp_plan *)ud;
    if (c->ctx->paused) return BP_OK;
    int n = c->n_in + c->n_out;
    BP_TRY(bp_mem_grow(p->ctx, &p->steps, sizeof *p->steps, &p->cap_steps, p->n_steps + 1));
    BP_TRY(bp_mem_grow(p->ctx, &p->spots, sizeof *p->spots, &p->cap_spots, p->n_spots + n));
    bp_step *s = &p->steps[p->n_steps];
    memset(s, 0, sizeof *s);
    s->op = c->op;
    s->n_in = c->n_in;
    s->n_out = c->n_out;
    s->spot = p->n_spots;
    memcpy(s->args, c->args, sizeof s->args);
    BP_TRY(name_of(p, c->ctx->where, &s->where));
    for (int i = 0; i < c->n_in; i++) BP_TRY(spot_of(p, c->in[i], &p->spots[s->spot + i]));
    for (int i = 0; i < c->n_out; i++) BP_TRY(spot_of(p, c->out[i], &p->spots[s->spot + c->n_in + i]));
    p->n_spots += n;
    p->n_steps++;
    return BP_OK;
}

/* ---- opening and closing ---- */

bp_status bp_plan_begin(bp_ctx *ctx, int n_inputs, bp_tensor *const *inputs)
{
    if (ctx->capture_id) return bp_fail(ctx, BP_ESTATE, "capture: another capture is open; a captured function cannot capture");
    for (int i = 0; i < n_inputs; i++) {
        if (inputs[i]->var)
            return bp_fail(ctx, BP_EINVAL,
                           "capture: argument %d requires a gradient, which cannot flow out of a captured function; "
                           "detach it, or make it a leaf that the function refers to",
                           i + 1);
        for (int k = 0; k < i; k++)
            if (inputs[k]->storage == inputs[i]->storage)
                return bp_fail(ctx, BP_EINVAL, "capture: arguments %d and %d share memory; pass a copy of one", k + 1, i + 1);
    }
    bp_plan *p = (bp_plan *)bp_mem_zeroed(ctx, sizeof *p);
    if (!p) return BP_ENOMEM;
    p->ctx = ctx;
    p->n_inputs = n_inputs;
    p->moved = ctx->moved;
    size_t n = (size_t)n_inputs;
    p->input_meta = (bp_meta *)bp_mem_zeroed(ctx, n * sizeof *p->input_meta);
    p->input_storage = (uint64_t *)bp_mem_zeroed(ctx, n * sizeof *p->input_storage);
    if (!p->input_meta || !p->input_storage || bp_mem_grow(ctx, &p->places, sizeof *p->places, &p->cap_places, n_inputs) != BP_OK) {
        bp_plan_free(p);
        return BP_ENOMEM;
    }
    for (int i = 0; i < n_inputs; i++) {
        p->input_meta[i] = inputs[i]->m;
        p->input_storage[i] = inputs[i]->storage->id;
        inputs[i]->storage->written = ctx->serial; /* its value is the replay's: reading it now would freeze it */
        bp_place *place = &p->places[p->n_places++];
        memset(place, 0, sizeof *place);
        place->kind = BP_PLACE_INPUT;
        place->input = i;
        place->storage_id = inputs[i]->storage->id;
        const bp_range range = bp_tensor_range(inputs[i]);
        place->bytes = range.hi - range.lo;
    }
    p->id = ctx->capture_id = ctx->serial++;
    ctx->paused = false;
    ctx->capture = p;
    p->listener.after = note;
    p->listener.ud = p;
    bp_listen(ctx, &p->listener);
    return BP_OK;
}

static bp_plan *close_capture(bp_ctx *ctx)
{
    bp_plan *p = (bp_plan *)ctx->capture;
    if (!p) return NULL;
    bp_unlisten(ctx, &p->listener);
    ctx->capture = NULL;
    ctx->capture_id = 0;
    ctx->paused = false;
    return p;
}

void bp_plan_abandon(bp_ctx *ctx)
{
    bp_settle_zeroed(ctx, false);
    bp_plan *p = close_capture(ctx);
    if (p) bp_plan_free(p);
}

static bp_status finish(bp_plan *p, int n_outputs, bp_tensor *const *outputs)
{
    p->outputs = (bp_spot *)bp_mem_zeroed(p->ctx, (size_t)n_outputs * sizeof *p->outputs);
    p->heads = (bp_tensor **)bp_mem_zeroed(p->ctx, (size_t)n_outputs * sizeof *p->heads);
    p->into = (bp_into *)bp_mem_zeroed(p->ctx, (size_t)n_outputs * sizeof *p->into);
    p->n_outputs = n_outputs; /* what bp_plan_free takes their sizes from */
    if (!p->outputs || !p->heads || !p->into) return BP_ENOMEM;
    for (int i = 0; i < n_outputs; i++) {
        BP_TRY(spot_of(p, outputs[i], &p->outputs[i]));
        bp_place *place = &p->places[p->outputs[i].place];
        if (place->kind == BP_PLACE_TEMP) place->output = true;
    }
    BP_TRY(bp_plan_rewrite(p));
    BP_TRY(bp_plan_layout(p));
    return bp_plan_prepare(p);
}

bp_status bp_plan_end(bp_ctx *ctx, int n_outputs, bp_tensor *const *outputs, bp_plan **plan)
{
    *plan = NULL;
    if (!ctx->capture) return bp_fail(ctx, BP_ESTATE, "capture: none is open");
    bp_plan *p = (bp_plan *)ctx->capture;
    /* still open while spots are looked up: a storage's birth is compared with the capture's number */
    bp_status status = bp_settle_zeroed(ctx, true);
    if (status == BP_OK) status = finish(p, n_outputs, outputs);
    close_capture(ctx);
    if (status != BP_OK)
        bp_plan_free(p);
    else
        *plan = p;
    return status;
}
