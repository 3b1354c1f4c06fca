/* rewrite.c - what a plan may do otherwise than it was noted, with the same bits.
 *
 * What depends on numbers of the program alone (the seed 1 of a backward and the factors it meets first) is computed once, when the plan is
 * made ready.
 *
 * A result that is only copied to where it belongs (the gradient of a parameter into the gradient block) is computed there:
 *     t = conv2d_grad_weight(...);  copy(t) -> block[a..b]     becomes     block[a..b] = conv2d_grad_weight(...)
 * when nobody else reads t and nothing touches block[a..b] in between.
 *
 * A relu before a max pooling is undone on the small side of it: the winner of a window is what the pooling handed on, so
 *     t = max_pool2d_grad(dy, argmax);  u = relu_grad(t, y)     becomes     t = relu_grad(dy, pooled);  u = max_pool2d_grad(t, argmax)
 * where (pooled, argmax) = max_pool2d(y).
 *
 * Dropout after a relu is undone from its result, which is zero wherever either of them made it so:
 *     t = dropout(dy, used);  u = relu_grad(t, y)     becomes     u = relu_dropout_grad(dy, z)     where (z, used) = dropout(y).
 *
 * Batch normalisation takes in what follows it: rewrite_norm.c; convolutions do: rewrite_conv.c. */
#include "rewrite.h"

#include "../base/memory.h"

#include <string.h>

/* Both looks are without gaps: compare their spans in bytes. */
bool bp_plan_touches(const bp_spot *a, const bp_spot *b)
{
    if (a->place < 0 || a->place != b->place) return false;
    if (!contiguous(&a->meta) || !contiguous(&b->meta)) return true;
    int64_t sa = (int64_t)bp_dtype_size(a->meta.dtype), sb = (int64_t)bp_dtype_size(b->meta.dtype);
    return a->meta.offset * sa < (b->meta.offset + count(&b->meta)) * sb && b->meta.offset * sb < (a->meta.offset + count(&a->meta)) * sa;
}

/* ---- moving a step down, and giving it more operands ---- */

static bool writes_spot(const bp_step *s, int i)
{
    if (i >= s->n_in) return true;
    const bp_input *d = s->op->inputs;
    for (int k = 0; k < i && !(d->flags & BP_IN_VARIADIC); k++) d++;
    return d->flags & (BP_IN_MUTATED | BP_IN_STREAM);
}

bool bp__stays(bp_plan *p, const bp_step *from, const bp_step *to, int64_t place)
{
    if (place < 0) return true;
    for (const bp_step *s = from + 1; s < to; s++)
        for (int i = 0; runs(s) && i < s->n_in + s->n_out; i++)
            if (spots_of(p, s)[i].place == place && writes_spot(s, i)) return false;
    return true;
}

bool bp__can_wait(bp_plan *p, const bp_step *early, const bp_step *late)
{
    const bp_spot *own = spots_of(p, early);
    for (int k = 0; k < early->n_in + early->n_out; k++) {
        if (own[k].place < 0) continue;
        if (!bp__stays(p, early, late, own[k].place)) return false;
        if (!writes_spot(early, k)) continue;
        for (const bp_step *s = early + 1; s < late; s++)
            for (int i = 0; runs(s) && i < s->n_in + s->n_out; i++)
                if (spots_of(p, s)[i].place == own[k].place) return false;
    }
    return true;
}

bp_status bp__widen(bp_plan *p, bp_step *s, int n_in, int n_out)
{
    BP_TRY(bp_mem_grow(p->ctx, &p->spots, sizeof *p->spots, &p->cap_spots, p->n_spots + n_in + n_out));
    const bp_spot *from = spots_of(p, s), none = { .place = -1 };
    bp_spot *to = &p->spots[p->n_spots];
    for (int i = 0; i < n_in; i++) to[i] = i < s->n_in ? from[i] : none;
    for (int i = 0; i < n_out; i++) to[n_in + i] = i < s->n_out ? from[s->n_in + i] : none;
    s->spot = p->n_spots;
    s->n_in = n_in;
    s->n_out = n_out;
    p->n_spots += n_in + n_out;
    return BP_OK;
}

/* ---- results that are copied to where they belong ---- */

static bool safe_between(bp_plan *p, const bp_step *from, const bp_step *to, const bp_spot *target)
{
    for (const bp_step *s = from; s < to; s++) {
        if (s->op->flags & BP_OP_VIEW || s->dropped) continue;
        for (int i = 0; i < s->n_in + s->n_out; i++)
            if (bp_plan_touches(&spots_of(p, s)[i], target)) return false;
    }
    return true;
}

static void compute_in_place_of_copy(bp_plan *p, bp_step *copy, const int64_t *uses)
{
    bp_spot *from = &spots_of(p, copy)[0], *to = &spots_of(p, copy)[1];
    bp_place *t = &p->places[from->place];
    if (t->kind != BP_PLACE_TEMP || t->output || from->meta.offset != 0) return;
    if (p->places[to->place].kind == BP_PLACE_TEMP || !contiguous(&to->meta) || !contiguous(&from->meta)) return;
    bp_step *maker = sole_maker(p, from->place, copy, uses);
    if (!maker || maker->constant) return; /* a constant runs once, the copy at every replay */
    bp_spot *made = NULL;
    for (int i = 0; i < maker->n_out; i++) {
        bp_spot *s = &spots_of(p, maker)[maker->n_in + i];
        if (s->place == from->place) made = s;
    }
    if (made->meta.dtype != to->meta.dtype || count(&made->meta) != count(&to->meta) || !contiguous(&made->meta)) return;
    if (!safe_between(p, maker, copy, to)) return;
    made->place = to->place;
    made->meta.offset = to->meta.offset;
    copy->dropped = true;
}

/* ---- relu and max pooling ---- */

/* The max_pool2d that made this argmax from all of y, with the options of the gradient. */
static bp_step *pooling_of(bp_plan *p, const bp_step *grad, const bp_spot *y)
{
    enum { SIZE, STRIDE, PADDING };
    for (bp_step *s = (bp_step *)(uintptr_t)grad - 1; s >= p->steps; s--) {
        const bp_spot *spots = spots_of(p, s);
        if (s->op != &bp__op_max_pool2d || spots[2].place != spots_of(p, grad)[1].place) continue;
        const bp_arg *a = s->args, *b = grad->args;
        for (int i = 0; i < 2; i++)
            if (a[SIZE].as.list[i] != b[SIZE].as.list[i] || a[STRIDE].as.list[i] != b[STRIDE].as.list[i]) return NULL;
        return a[PADDING].as.i == b[PADDING].as.i && same_look(&spots[0], y) ? s : NULL;
    }
    return NULL;
}

static void mask_before_unpooling(bp_plan *p, bp_step *relu, const int64_t *uses, const int64_t *writes)
{
    bp_spot *const late = spots_of(p, relu); /* t, y, u */
    if (!settled(p, late[0].place, writes) || p->places[late[0].place].output || !contiguous(&late[2].meta)) return;
    bp_step *grad = sole_maker(p, late[0].place, relu, uses);
    if (!grad || grad->op != &bp__op_max_pool2d_grad) return;
    bp_spot *const early = spots_of(p, grad); /* dy, argmax, t */
    bp_step *pool = pooling_of(p, grad, &late[1]);
    if (!pool) return;
    const bp_spot argmax = early[1], pooled = spots_of(p, pool)[1];
    if (!settled(p, argmax.place, writes) || !settled(p, pooled.place, writes) || !settled(p, late[1].place, writes)) return;
    if (pooled.meta.dtype != early[0].meta.dtype || late[0].meta.offset != 0 || early[2].meta.offset != 0) return;

    bp_step before = *relu, after = *grad;
    before.spot = grad->spot, before.where = grad->where;
    after.spot = relu->spot, after.where = relu->where;
    early[1] = pooled;
    early[2].meta = pooled.meta;
    early[2].meta.offset = 0;
    late[0] = early[2];
    late[1] = argmax;
    p->places[early[2].place].bytes = p->places[pooled.place].bytes;
    *grad = before;
    *relu = after;
}

/* ---- relu and dropout ---- */

/* The dropout of all of y whose draw `again` repeats. */
static bp_step *dropout_of(bp_plan *p, const bp_step *again, const bp_spot *y)
{
    for (bp_step *s = (bp_step *)(uintptr_t)again - 1; s >= p->steps; s--) {
        if (s->op != &bp__op_dropout || s->dropped) continue;
        const bp_spot *spots = spots_of(p, s);
        if (spots[s->n_in + 1].place != spots_of(p, again)[2].place) continue;
        return s->args[0].as.f == again->args[0].as.f && same_look(&spots[0], y) ? s : NULL;
    }
    return NULL;
}

static void undo_dropout_by_result(bp_plan *p, bp_step *relu, const int64_t *uses, const int64_t *writes)
{
    bp_spot *const late = spots_of(p, relu); /* t, y, u */
    if (!settled(p, late[0].place, writes) || p->places[late[0].place].output || !settled(p, late[1].place, writes)) return;
    bp_step *again = sole_maker(p, late[0].place, relu, uses);
    if (!again || again->op != &bp__op_dropout || again->n_in < 3) return;
    const bp_spot *const early = spots_of(p, again); /* dy, state, used; t, used again */
    const int64_t repeated = early[again->n_in + 1].place;
    if (!settled(p, early[2].place, writes) || uses[repeated] != 1 || p->places[repeated].output) return;
    const bp_step *first = dropout_of(p, again, &late[1]);
    if (!first) return;
    const bp_spot z = spots_of(p, first)[first->n_in], dy = early[0];
    if (!settled(p, z.place, writes) || !settled(p, dy.place, writes) || z.meta.dtype != dy.meta.dtype) return;
    if (!same_look(&late[0], &early[again->n_in])) return;

    relu->op = &bp__op_relu_dropout_grad;
    relu->args[0] = again->args[0];
    late[0] = dy;
    late[1] = z;
    again->dropped = true;
}

/* ---- constants ---- */

static bool is_constant(const bp_plan *p, int64_t place)
{
    if (place < 0) return true;
    const bp_place *at = &p->places[place];
    return at->constant || (at->kind == BP_PLACE_EXTERNAL && at->storage->constant);
}

/* writes[t]: how many steps write place t. */
static void find_constants(bp_plan *p, const int64_t *writes)
{
    for (int64_t k = 0; k < p->n_steps; k++) {
        bp_step *s = &p->steps[k];
        const bp_spot *spots = spots_of(p, s);
        bool constant = !(s->op->flags & BP_OP_VIEW);
        int i = 0;
        for (const bp_input *d = s->op->inputs; d->name && i < s->n_in; i++, d += !(d->flags & BP_IN_VARIADIC))
            if (d->flags & (BP_IN_MUTATED | BP_IN_STREAM)) constant = false;
        for (i = 0; i < s->n_in && constant; i++) constant = is_constant(p, spots[i].place);
        for (i = s->n_in; i < s->n_in + s->n_out && constant; i++) {
            const bp_place *at = &p->places[spots[i].place];
            constant = at->kind == BP_PLACE_TEMP && !at->output && writes[spots[i].place] == 1;
        }
        if (!constant) continue;
        s->constant = true;
        for (i = s->n_in; i < s->n_in + s->n_out; i++) p->places[spots[i].place].constant = true;
    }
}

static void count_writes(bp_plan *p, int64_t *writes)
{
    for (int64_t k = 0; k < p->n_steps; k++) {
        bp_step *s = &p->steps[k];
        if (s->op->flags & BP_OP_VIEW) continue;
        int i = 0;
        for (const bp_input *d = s->op->inputs; d->name && i < s->n_in; i++, d += !(d->flags & BP_IN_VARIADIC))
            if ((d->flags & (BP_IN_MUTATED | BP_IN_STREAM)) && spots_of(p, s)[i].place >= 0) writes[spots_of(p, s)[i].place]++;
        for (i = s->n_in; i < s->n_in + s->n_out; i++) writes[spots_of(p, s)[i].place]++;
    }
}

static void count_uses(bp_plan *p, int64_t *uses)
{
    memset(uses, 0, (size_t)p->n_places * sizeof *uses);
    for (int64_t k = 0; k < p->n_steps; k++) {
        bp_step *s = &p->steps[k];
        if (s->op->flags & BP_OP_VIEW || s->dropped) continue;
        for (int i = 0; i < s->n_in + s->n_out; i++)
            if (spots_of(p, s)[i].place >= 0) uses[spots_of(p, s)[i].place]++;
    }
}

bp_status bp_plan_rewrite(bp_plan *p)
{
    size_t bytes = 2 * (size_t)(p->n_places + 1) * sizeof(int64_t);
    int64_t *uses = (int64_t *)bp_mem_zeroed(p->ctx, bytes), *writes = uses + p->n_places;
    if (!uses) return BP_ENOMEM;
    count_writes(p, writes);
    find_constants(p, writes);
    count_uses(p, uses);
    bp_status status = bp__rewrite_norms(p, uses, writes);
    count_uses(p, uses);
    for (int64_t k = 0; k < p->n_steps; k++)
        if (p->steps[k].op == &bp__op_relu_grad && !p->steps[k].dropped) mask_before_unpooling(p, &p->steps[k], uses, writes);
    count_uses(p, uses); /* a moved mask reads other places than before */
    for (int64_t k = 0; k < p->n_steps; k++)
        if (p->steps[k].op == &bp__op_relu_grad && !p->steps[k].dropped) undo_dropout_by_result(p, &p->steps[k], uses, writes);
    count_uses(p, uses); /* what only a gradient read is free now */
    if (status == BP_OK) status = bp__rewrite_convolutions(p, uses, writes);
    for (int64_t k = 0; k < p->n_steps; k++)
        if (p->steps[k].op == &bp__op_copy) compute_in_place_of_copy(p, &p->steps[k], uses);
    bp_mem_free(p->ctx, uses, bytes);
    return status == BP_OK ? bp_plan_note_tables(p) : status;
}
