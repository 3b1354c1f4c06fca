/* layout.c - which steps are needed, how long each temporary lives, and where it lies in the arena.
 *
 * A step lives when it writes something that outlasts the replay (external memory, an argument, a random state) or something that a later
 * living step or the caller reads. Where an op can write over an input that nobody reads afterwards (op.over), it does: the line that is
 * written is in the cache already. Temporaries are placed greedily by size: largest first, each at the lowest offset that no other
 * temporary alive at the same time occupies (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020). */
#include "../base/memory.h"
#include "plan.h"

#include <string.h>

enum { ARENA_ALIGN = 64 };

typedef void visit_fn(bp_plan *p, bp_step *s, bp_place *place, bool writes, void *ud);

/* Visits each place that a step touches, saying whether it writes there. A view writes nothing and makes nothing. */
static void visit(bp_plan *p, bp_step *s, visit_fn *f, void *ud)
{
    const bp_input *d = s->op->inputs;
    for (int i = 0; i < s->n_in; i++) {
        const bp_spot *spot = &p->spots[s->spot + i];
        if (spot->place >= 0) f(p, s, &p->places[spot->place], d->flags & (BP_IN_MUTATED | BP_IN_STREAM), ud);
        if (d->name && !(d->flags & BP_IN_VARIADIC)) d++;
    }
    for (int i = 0; i < s->n_out; i++) f(p, s, &p->places[p->spots[s->spot + s->n_in + i].place], !(s->op->flags & BP_OP_VIEW), ud);
}

static void look_if_needed(bp_plan *p, bp_step *s, bp_place *place, bool writes, void *ud)
{
    (void)p, (void)ud;
    if (writes && (place->kind != BP_PLACE_TEMP || place->live)) s->live = true;
}

static void mark_live(bp_plan *p, bp_step *s, bp_place *place, bool writes, void *ud)
{
    (void)p, (void)s, (void)ud;
    place->live = true;
    if (writes) place->written = true;
}

static void mark_lifetime(bp_plan *p, bp_step *s, bp_place *place, bool writes, void *ud)
{
    (void)s, (void)writes, (void)p;
    int64_t at = *(int64_t *)ud;
    if (place->first < 0) place->first = at;
    place->last = at;
}

static void find_living(bp_plan *p)
{
    for (int i = 0; i < p->n_outputs; i++) p->places[p->outputs[i].place].live = true;
    for (int64_t k = p->n_steps - 1; k >= 0; k--) {
        bp_step *s = &p->steps[k];
        if (s->dropped) continue;
        visit(p, s, look_if_needed, NULL);
        if (s->live) visit(p, s, mark_live, NULL);
    }
    for (int64_t i = 0; i < p->n_places; i++) p->places[i].first = p->places[i].last = -1;
    for (int64_t k = 0; k < p->n_steps; k++) {
        if (p->steps[k].op->flags & BP_OP_VIEW) p->steps[k].live = false; /* its places are marked; it has nothing to run */
        if (p->steps[k].live && !p->steps[k].constant) visit(p, &p->steps[k], mark_lifetime, &k);
    }
}

/* ---- results that lie where an input did ---- */

static bool in_arena(const bp_place *place)
{
    return place->kind == BP_PLACE_TEMP && place->first >= 0 && !place->output && !place->constant;
}

/* The look is the whole place, row-major. */
static bool whole(const bp_plan *p, const bp_spot *spot)
{
    int64_t n = 1;
    for (int i = spot->meta.ndim - 1; i >= 0; i--) {
        if (spot->meta.shape[i] != 1 && spot->meta.stride[i] != n) return false;
        n *= spot->meta.shape[i];
    }
    return spot->meta.offset == 0 && (size_t)n * bp_dtype_size(spot->meta.dtype) == p->places[spot->place].bytes;
}

/* Whether the step reads in[i] in no other way, and nobody reads it later. */
static bool ends_here(const bp_plan *p, int64_t at, int i)
{
    const bp_step *s = &p->steps[at];
    const bp_spot *spots = &p->spots[s->spot];
    const int64_t place = spots[i].place;
    if (place < 0 || !in_arena(&p->places[place]) || p->places[place].last != at) return false;
    for (int k = 0; k < s->n_in + s->n_out; k++) {
        if (spots[k].place == place && (k >= s->n_in || !whole(p, &spots[k]))) return false;
        if (k >= s->n_in && p->places[spots[k].place].over == place) return false; /* taken */
    }
    return true;
}

static bp_place *lowest(bp_plan *p, bp_place *place)
{
    while (place->over >= 0) place = &p->places[place->over];
    return place;
}

static void lay_over(bp_plan *p, int64_t at, int output)
{
    const bp_step *s = &p->steps[at];
    const bp_spot *in = &p->spots[s->spot], *out = in + s->n_in + output;
    bp_place *made = &p->places[out->place];
    const unsigned over = s->op->over[output] | (output == 0 && s->op->flags & BP_OP_INPLACE ? 1u : 0u);
    if (!over || !in_arena(made) || made->first != at || !whole(p, out)) return;
    for (int i = 0; i < s->n_in; i++) {
        if (!(over >> i & 1) || !ends_here(p, at, i)) continue;
        const bp_place *below = &p->places[in[i].place];
        if (in[i].meta.dtype != out->meta.dtype || below->bytes != made->bytes) continue;
        made->over = in[i].place;
        lowest(p, made)->last = made->last;
        return;
    }
}

/* Places that lie on each other live as one: the lowest gets the room, from its birth to the end of the last. */
static void lay_results_over_operands(bp_plan *p)
{
    for (int64_t i = 0; i < p->n_places; i++) p->places[i].over = -1;
    for (int64_t at = 0; at < p->n_steps; at++) {
        const bp_step *s = &p->steps[at];
        for (int k = 0; k < s->n_out && s->live && !s->constant; k++) lay_over(p, at, k);
    }
}

/* ---- where the others lie ---- */

/* Sorts place numbers by size, largest first; equal sizes by birth. Insertion into a heap-free merge: plans have some hundred temporaries.
 */
static void sort_by_size(const bp_plan *p, int64_t *order, int64_t *tmp, int64_t n)
{
    if (n < 2) return;
    int64_t half = n / 2, a = 0, b = half, k = 0;
    sort_by_size(p, order, tmp, half);
    sort_by_size(p, order + half, tmp, n - half);
    while (a < half && b < n) tmp[k++] = p->places[order[b]].bytes > p->places[order[a]].bytes ? order[b++] : order[a++];
    while (a < half) tmp[k++] = order[a++];
    while (b < n) tmp[k++] = order[b++];
    memcpy(order, tmp, (size_t)n * sizeof *order);
}

static size_t aligned(size_t n) { return (n + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1); }

/* placed[0..n-1] are the temporaries that have an offset, sorted by it. */
static size_t lowest_gap(const bp_plan *p, const int64_t *placed, int64_t n, const bp_place *want)
{
    size_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        const bp_place *other = &p->places[placed[i]];
        if (other->last < want->first || other->first > want->last) continue;
        if (other->offset >= at + aligned(want->bytes)) break;
        if (other->offset + aligned(other->bytes) > at) at = other->offset + aligned(other->bytes);
    }
    return at;
}

bp_status bp_plan_layout(bp_plan *p)
{
    find_living(p);
    lay_results_over_operands(p);
    size_t bytes = 3 * (size_t)p->n_places * sizeof(int64_t);
    int64_t *order = (int64_t *)bp_mem_new(p->ctx, bytes), n = 0;
    if (!order) return BP_ENOMEM;
    for (int64_t i = 0; i < p->n_places; i++) {
        if (!in_arena(&p->places[i])) continue;
        p->temporary_bytes += aligned(p->places[i].bytes);
        if (p->places[i].over < 0) order[n++] = i;
    }
    int64_t *placed = order + p->n_places;
    sort_by_size(p, order, order + 2 * p->n_places, n);
    for (int64_t i = 0; i < n; i++) {
        bp_place *place = &p->places[order[i]];
        place->offset = lowest_gap(p, placed, i, place);
        int64_t k = i;
        while (k > 0 && p->places[placed[k - 1]].offset > place->offset) {
            placed[k] = placed[k - 1];
            k--;
        }
        placed[k] = order[i];
        if (place->offset + aligned(place->bytes) > p->arena_bytes) p->arena_bytes = place->offset + aligned(place->bytes);
    }
    for (int64_t i = 0; i < p->n_places; i++) p->places[i].offset = lowest(p, &p->places[i])->offset;
    bp_mem_free(p->ctx, order, bytes);
    return BP_OK;
}
