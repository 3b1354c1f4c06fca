/* rewrite.c - what a plan may do otherwise than it was noted, with the same bits.
 *
 * A result that is only copied to where it belongs (the gradient of a parameter into the gradient block) is computed there:
 *     t = conv2d_grad_weight(...);  copy(t) -> block[a..b]     becomes     block[a..b] = conv2d_grad_weight(...)
 * when nobody else reads t and nothing touches block[a..b] in between. */
#include "../base/memory.h"
#include "plan.h"

#include <string.h>

static bool contiguous(const bp_meta *m)
{
    int64_t s = 1;
    for (int i = m->ndim - 1; i >= 0; i--) {
        if (m->shape[i] != 1 && m->stride[i] != s) return false;
        s *= m->shape[i];
    }
    return true;
}

static int64_t count(const bp_meta *m) { return bp_shape_count(m->ndim, m->shape); }

/* Both looks are without gaps: compare their spans in bytes. */
static bool touches(const bp_spot *a, const bp_spot *b)
{
    if (a->place < 0 || a->place != b->place) return false;
    if (!contiguous(&a->meta) || !contiguous(&b->meta)) return true;
    int64_t sa = (int64_t)bp_dtype_size(a->meta.dtype), sb = (int64_t)bp_dtype_size(b->meta.dtype);
    return a->meta.offset * sa < (b->meta.offset + count(&b->meta)) * sb && b->meta.offset * sb < (a->meta.offset + count(&a->meta)) * sa;
}

static bp_spot *spots_of(bp_plan *p, const bp_step *s) { return &p->spots[s->spot]; }

/* The one step that makes place `t`, when it is made once, whole, and read by `reader` alone (views in between read nothing). */
static bp_step *sole_maker(bp_plan *p, int64_t t, const bp_step *reader, const int64_t *uses)
{
    if (uses[t] != 2) return NULL; /* made once, read once */
    for (bp_step *s = (bp_step *)(uintptr_t)reader - 1; s >= p->steps; s--) {
        if (s->op->flags & BP_OP_VIEW || s->dropped) continue;
        for (int i = 0; i < s->n_out; i++)
            if (spots_of(p, s)[s->n_in + i].place == t) return s;
    }
    return NULL;
}

static bool safe_between(bp_plan *p, const bp_step *from, const bp_step *to, const bp_spot *target)
{
    for (const bp_step *s = from; s < to; s++) {
        if (s->op->flags & BP_OP_VIEW || s->dropped) continue;
        for (int i = 0; i < s->n_in + s->n_out; i++)
            if (touches(&spots_of(p, s)[i], target)) return false;
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
    if (!maker) return;
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

bp_status bp_plan_rewrite(bp_plan *p)
{
    size_t bytes = (size_t)(p->n_places + 1) * sizeof(int64_t);
    int64_t *uses = (int64_t *)bp_mem_zeroed(p->ctx, bytes);
    if (!uses) return BP_ENOMEM;
    for (int64_t k = 0; k < p->n_steps; k++) {
        bp_step *s = &p->steps[k];
        if (s->op->flags & BP_OP_VIEW) continue;
        for (int i = 0; i < s->n_in + s->n_out; i++)
            if (spots_of(p, s)[i].place >= 0) uses[spots_of(p, s)[i].place]++;
    }
    for (int64_t k = 0; k < p->n_steps; k++)
        if (p->steps[k].op == &bp__op_copy) compute_in_place_of_copy(p, &p->steps[k], uses);
    bp_mem_free(p->ctx, uses, bytes);
    return BP_OK;
}
