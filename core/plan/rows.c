/* rows.c - tables of which a step uses a few rows.
 *
 * The gradient of an embedding is zero but for the rows whose ids the batch holds. Eagerly all of it is cleared, and all of the table is
 * updated. A plan keeps a list of the rows instead, from one replay to the next:
 *
 *     block[a..b] = embedding_grad(dy, ids)
 *         becomes block[a..b] = embedding_grad(dy, ids, rows), which clears the rows of the last list only;
 *     sgd_step(w, block), without momentum and decay,
 *         becomes sgd_step(w[..a], block[..a]), sgd_step(w[a..b], block[a..b], rows) and sgd_step(w[b..], block[b..]).
 *
 * The second of these leaves rows without a gradient as they are, which is what the whole update does with them, to the bit.
 *
 * The list holds as long as nobody else writes into the block. Within the plan that is looked up here; outside of it the version of the
 * block's storage tells, and whoever takes the address of its memory ends it. Then the list says that nothing is known, and everything is
 * done as it would be eagerly, once. */
#include "../base/memory.h"
#include "rewrite.h"

#include <string.h>

enum { GRAD_IDS = 1, GRAD_ROWS, GRAD_OUT };                 /* of embedding_grad */
enum { SGD_W, SGD_G, SGD_VELOCITY, SGD_NOW = 5, SGD_ROWS }; /* of sgd_step */
enum { SGD_DECAY = 3 };

static int64_t end(const bp_meta *m) { return m->offset + count(m); }

/* ---- who writes ---- */

/* An argument may be the block in some replay. */
static bool writes(bp_plan *p, const bp_step *s, const bp_spot *target)
{
    const bp_spot *spots = spots_of(p, s);
    if (s->dropped || s->op->flags & BP_OP_VIEW) return false;
    const bp_input *d = s->op->inputs;
    for (int i = 0; i < s->n_in + s->n_out; i++) {
        const bool written = i >= s->n_in || (d->flags & (BP_IN_MUTATED | BP_IN_STREAM));
        if (i < s->n_in && d->name && !(d->flags & BP_IN_VARIADIC)) d++;
        if (!written || spots[i].place < 0) continue;
        if (p->places[spots[i].place].kind == BP_PLACE_INPUT || bp_plan_touches(&spots[i], target)) return true;
    }
    return false;
}

static bool written_by_others(bp_plan *p, const bp_step *own, const bp_spot *target)
{
    for (const bp_step *s = p->steps; s < p->steps + p->n_steps; s++)
        if (s != own && writes(p, s, target)) return true;
    return false;
}

/* ---- the list ---- */

/* A place for the list, and its look. */
static bp_status make_list(bp_plan *p, int64_t grad, int64_t most, bp_spot *list)
{
    BP_TRY(bp_mem_grow(p->ctx, &p->places, sizeof *p->places, &p->cap_places, p->n_places + 1));
    BP_TRY(bp_mem_grow(p->ctx, &p->tables, sizeof *p->tables, &p->cap_tables, p->n_tables + 1));
    bp_place *place = &p->places[p->n_places];
    memset(place, 0, sizeof *place);
    place->kind = BP_PLACE_EXTERNAL;
    place->bytes = (size_t)(1 + most) * sizeof(int64_t);
    BP_TRY(bp_storage_new(p->ctx, place->bytes, &place->storage));
    bp_storage_keep(place->storage, 1);
    place->storage_id = place->storage->id;
    *(int64_t *)place->storage->data = -1;
    memset(list, 0, sizeof *list);
    list->place = p->n_places++;
    list->meta.dtype = BP_I64;
    list->meta.ndim = 1;
    list->meta.shape[0] = 1 + most;
    list->meta.stride[0] = 1;
    p->tables[p->n_tables++] = (bp_table){ .grad = grad, .list = list->place };
    return BP_OK;
}

static int64_t *list_of(const bp_plan *p, const bp_table *t) { return (int64_t *)p->places[t->list].storage->data; }

void bp_plan_check_tables(bp_plan *p)
{
    for (int64_t i = 0; i < p->n_tables; i++) {
        const bp_storage *s = p->places[p->tables[i].grad].storage;
        if (s->version != p->tables[i].version || s->lent) *list_of(p, &p->tables[i]) = -1;
    }
}

void bp_plan_settle_tables(bp_plan *p)
{
    for (int64_t i = 0; i < p->n_tables; i++) p->tables[i].version = p->places[p->tables[i].grad].storage->version;
}

/* ---- the update ---- */

/* Whether this step updates a table whose gradient lies there and leaves rows without one as they are. */
static bool updates(bp_plan *p, const bp_step *s, const bp_spot *grad)
{
    if (s->op != &bp__op_sgd_step || s->dropped || s->args[SGD_DECAY].as.f != 0) return false;
    const bp_spot *in = spots_of(p, s), *w = &in[SGD_W], *g = &in[SGD_G];
    if (in[SGD_VELOCITY].place >= 0 || in[SGD_NOW].place >= 0 || in[SGD_ROWS].place >= 0) return false;
    return g->place == grad->place && g->meta.dtype == grad->meta.dtype && contiguous(&g->meta) && contiguous(&w->meta) &&
           g->meta.offset <= grad->meta.offset && end(&grad->meta) <= end(&g->meta);
}

static void cut(bp_spot *s, int64_t first, int ndim, const int64_t *shape)
{
    s->meta.offset += first;
    s->meta.ndim = ndim;
    memcpy(s->meta.shape, shape, (size_t)ndim * sizeof *shape);
    bp_shape_strides(ndim, shape, s->meta.stride);
}

/* A copy of step k behind it, for one part of its elements; list NULL: none. An empty part is dropped. */
static void part(bp_plan *p, int64_t k, int64_t number, int64_t first, int ndim, const int64_t *shape, const bp_spot *list)
{
    bp_step *s = &p->steps[k + number];
    *s = p->steps[k];
    s->spot = p->n_spots;
    bp_spot *in = &p->spots[p->n_spots];
    p->n_spots += s->n_in;
    memcpy(in, spots_of(p, &p->steps[k]), (size_t)s->n_in * sizeof *in);
    cut(&in[SGD_W], first, ndim, shape);
    cut(&in[SGD_G], first, ndim, shape);
    if (list) in[SGD_ROWS] = *list;
    s->dropped = bp_shape_count(ndim, shape) == 0;
}

static bp_status split(bp_plan *p, int64_t k, const bp_spot *grad, const bp_spot *list)
{
    BP_TRY(bp_mem_grow(p->ctx, &p->steps, sizeof *p->steps, &p->cap_steps, p->n_steps + 3));
    BP_TRY(bp_mem_grow(p->ctx, &p->spots, sizeof *p->spots, &p->cap_spots, p->n_spots + 3 * p->steps[k].n_in));
    memmove(&p->steps[k + 4], &p->steps[k + 1], (size_t)(p->n_steps - k - 1) * sizeof *p->steps);
    p->n_steps += 3;
    const bp_meta whole = spots_of(p, &p->steps[k])[SGD_G].meta;
    const int64_t first = grad->meta.offset - whole.offset, past = end(&grad->meta) - whole.offset, rest = count(&whole) - past;
    part(p, k, 1, 0, 1, &first, NULL);
    part(p, k, 2, first, grad->meta.ndim, grad->meta.shape, list);
    part(p, k, 3, past, 1, &rest, NULL);
    p->steps[k].dropped = true;
    return BP_OK;
}

bp_status bp_plan_note_tables(bp_plan *p)
{
    for (int64_t k = 0; k < p->n_steps; k++) {
        const bp_step *s = &p->steps[k];
        if (s->op != &bp__op_embedding_grad || s->dropped || s->constant) continue;
        const bp_spot grad = spots_of(p, s)[GRAD_OUT];
        const bp_place *at = &p->places[grad.place];
        if (at->kind != BP_PLACE_EXTERNAL || at->storage->block == 0 || spots_of(p, s)[GRAD_ROWS].place >= 0) continue;
        if (count(&grad.meta) == 0 || written_by_others(p, s, &grad)) continue;
        const int64_t ids = count(&spots_of(p, s)[GRAD_IDS].meta), vocab = grad.meta.shape[0];
        bp_spot list;
        BP_TRY(make_list(p, grad.place, ids < vocab ? ids : vocab, &list));
        spots_of(p, s)[GRAD_ROWS] = list;
        for (int64_t i = k + 1; i < p->n_steps; i++)
            if (updates(p, &p->steps[i], &grad)) {
                BP_TRY(split(p, i, &grad, &list));
                break;
            }
    }
    return BP_OK;
}
