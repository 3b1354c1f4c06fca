/* rewrite.h - how rewritings look through the steps of a plan. uses[t] is how often the steps that are left touch place t, writes[t] how
 * many steps write it. */
#ifndef BP_REWRITE_H
#define BP_REWRITE_H

#include "plan.h"

static inline bool contiguous(const bp_meta *m)
{
    int64_t s = 1;
    bool gaps = false;
    for (int i = m->ndim - 1; i >= 0; i--) {
        gaps |= m->shape[i] != 1 && m->stride[i] != s;
        s *= m->shape[i];
    }
    return !gaps || s == 0;
}

static inline int64_t count(const bp_meta *m) { return bp_shape_count(m->ndim, m->shape); }

/* Both look at the same elements of the same place. */
static inline bool same_look(const bp_spot *a, const bp_spot *b)
{
    return a->place == b->place && a->meta.offset == b->meta.offset && a->meta.dtype == b->meta.dtype && contiguous(&a->meta) &&
           contiguous(&b->meta) && bp_shape_equal(a->meta.ndim, a->meta.shape, b->meta.ndim, b->meta.shape);
}

static inline bp_spot *spots_of(bp_plan *p, const bp_step *s) { return &p->spots[s->spot]; }

/* The last step before `reader` that has a result at place t. */
static inline bp_step *maker_of(bp_plan *p, int64_t t, const bp_step *reader)
{
    for (bp_step *s = (bp_step *)(uintptr_t)reader - 1; s >= p->steps; s--) {
        if (s->op->flags & BP_OP_VIEW || s->dropped) continue;
        for (int i = 0; i < s->n_out; i++)
            if (spots_of(p, s)[s->n_in + i].place == t) return s;
    }
    return NULL;
}

/* The one step that makes place `t`, when it is made once, whole, and read by `reader` alone (views in between read nothing). */
static inline bp_step *sole_maker(bp_plan *p, int64_t t, const bp_step *reader, const int64_t *uses)
{
    return uses[t] == 2 ? maker_of(p, t, reader) : NULL; /* made once, read once */
}

/* A place that holds one value from its only writing on. */
static inline bool settled(const bp_plan *p, int64_t place, const int64_t *writes)
{
    return place >= 0 && p->places[place].kind == BP_PLACE_TEMP && writes[place] == 1;
}

/* The step runs: it is neither a look at something nor superfluous. */
static inline bool runs(const bp_step *s) { return !(s->op->flags & BP_OP_VIEW) && !s->dropped; }

/* rewrite.c: whether two looks may have elements in common. */
bool bp_plan_touches(const bp_spot *a, const bp_spot *b);
/* Nothing between the two steps writes there. */
bool bp__stays(bp_plan *p, const bp_step *from, const bp_step *to, int64_t place);
/* Nothing between the two steps touches what `early` writes, or writes what it reads: it may as well run in the place of `late`. */
bool bp__can_wait(bp_plan *p, const bp_step *early, const bp_step *late);
/* Room for n_in inputs and n_out results; what is new is left out. */
bp_status bp__widen(bp_plan *p, bp_step *s, int n_in, int n_out);

/* rewrite_norm.c: batch normalisation with what follows it. `uses` is to be counted again afterwards. */
bp_status bp__rewrite_norms(bp_plan *plan, const int64_t *uses, const int64_t *writes);
/* rewrite_conv.c: convolutions with what follows them, likewise. */
bp_status bp__rewrite_convolutions(bp_plan *plan, const int64_t *uses, const int64_t *writes);

#endif
