/* rewrite_norm.c - batch normalisation takes in what follows it, forward and back, with the same bits and fewer passes over memory.
 *
 * Forward, an addition and relu are done where the normalised value is in registers, at the place of the last of them:
 *     t = batch_norm(x);  s = t + r;  y = relu(s)     becomes     y = batch_norm_fused(x, r, relu)
 * when nobody else reads t or s; either of the two may be missing.
 *
 * Back, without an addend the mask of relu is found again from x, and with one dz is written on the way, since the addend takes it too:
 *     dz = relu_grad(dy, y);  dx.. = batch_norm_grad(dz, x)                becomes     dx.. = batch_norm_grad(dy, x, relu)
 *     dy = u + v;  dz = relu_grad(dy, y);  dx.. = batch_norm_grad(dz, x)   becomes     dx.., dz = batch_norm_fused_grad(u, v, y, x) */
#include "../ops/batch_norm.h"
#include "rewrite.h"

#include <string.h>

enum { FUSED_IN = ADDEND + 1, GRAD_IN = G_SHIFT + 1, FUSED_GRAD_IN = G_Y + 1, RELU_Y = 1 };

/* ---- forward ---- */

static bool is_norm(const bp_step *s) { return s->op == &bp__op_batch_norm || s->op == &bp__op_batch_norm_inference; }
static bool is_fused(const bp_step *s) { return s->op == &bp__op_batch_norm_fused || s->op == &bp__op_batch_norm_inference_fused; }
static bp_arg *activation_of(bp_step *s) { return &s->args[s->op == &bp__op_batch_norm_fused ? EPS + 1 : 1]; }

/* The normalisation whose result `late` alone reads, as its input i, and which may run in its place. */
static bp_step *norm_before(bp_plan *p, const bp_step *late, int i, const int64_t *uses, const int64_t *writes)
{
    const bp_spot *read = &spots_of(p, late)[i], *made = &spots_of(p, late)[late->n_in];
    if (!settled(p, read->place, writes) || p->places[read->place].output || !settled(p, made->place, writes)) return NULL;
    bp_step *norm = sole_maker(p, read->place, late, uses);
    if (!norm || norm->constant || !(is_norm(norm) || is_fused(norm)) || !same_look(read, &spots_of(p, norm)[norm->n_in])) return NULL;
    if (!contiguous(&made->meta) || !bp_shape_equal(made->meta.ndim, made->meta.shape, read->meta.ndim, read->meta.shape)) return NULL;
    return bp__can_wait(p, norm, late) ? norm : NULL;
}

/* Puts the normalisation where `late` is, with its result. */
static bp_status move_down(bp_plan *p, bp_step *norm, bp_step *late)
{
    bp_step moved = *norm;
    if (is_norm(norm)) {
        BP_TRY(bp__widen(p, &moved, FUSED_IN, norm->n_out));
        moved.op = norm->op == &bp__op_batch_norm ? &bp__op_batch_norm_fused : &bp__op_batch_norm_inference_fused;
        *activation_of(&moved) = bp_int(BP_ACT_NONE);
    }
    spots_of(p, &moved)[moved.n_in] = spots_of(p, late)[late->n_in];
    norm->dropped = true;
    *late = moved;
    return BP_OK;
}

static bp_status take_in_addition(bp_plan *p, bp_step *add, const int64_t *uses, const int64_t *writes)
{
    const bp_spot pair[2] = { spots_of(p, add)[0], spots_of(p, add)[1] };
    if (pair[0].place < 0 || pair[1].place < 0 || !contiguous(&pair[0].meta) || !contiguous(&pair[1].meta)) return BP_OK;
    if (!bp_shape_equal(pair[0].meta.ndim, pair[0].meta.shape, pair[1].meta.ndim, pair[1].meta.shape)) return BP_OK;
    bp_step *norm = NULL;
    int which = 0;
    for (int i = 0; i < 2; i++) { /* the later of two */
        bp_step *found = norm_before(p, add, i, uses, writes);
        if (found && is_norm(found) && found > norm) norm = found, which = i;
    }
    if (!norm) return BP_OK;
    BP_TRY(move_down(p, norm, add));
    spots_of(p, add)[ADDEND] = pair[1 - which];
    return BP_OK;
}

static bp_status take_in_relu(bp_plan *p, bp_step *relu, const int64_t *uses, const int64_t *writes)
{
    bp_step *norm = norm_before(p, relu, 0, uses, writes);
    if (!norm || (is_fused(norm) && activation_of(norm)->as.i != BP_ACT_NONE)) return BP_OK;
    BP_TRY(move_down(p, norm, relu));
    *activation_of(relu) = bp_int(BP_ACT_RELU);
    return BP_OK;
}

/* ---- back ---- */

static bool same_or_none(const bp_spot *a, const bp_spot *b)
{
    return a->place < 0 || b->place < 0 ? a->place == b->place : same_look(a, b);
}

/* The normalisation with relu that `grad` undoes, when mask = relu_grad(dy, its result) and all that it read is still there. */
static bp_step *forward_of(bp_plan *p, const bp_step *grad, const bp_step *mask, const int64_t *writes)
{
    const bp_spot *g = spots_of(p, grad);
    if (!settled(p, g[G_MEAN].place, writes) || !settled(p, g[G_INV].place, writes)) return NULL;
    bp_step *norm = maker_of(p, g[G_MEAN].place, mask);
    if (!norm || norm->op != &bp__op_batch_norm_fused || activation_of(norm)->as.i != BP_ACT_RELU) return NULL;
    const bp_spot *n = spots_of(p, norm), *results = n + norm->n_in, *y = &spots_of(p, mask)[RELU_Y];
    if (!same_look(&g[G_MEAN], &results[BATCH_MEAN]) || !same_look(&g[G_INV], &results[BATCH_INV])) return NULL;
    if (!same_look(&g[G_X], &n[X]) || !same_or_none(&g[G_SCALE], &n[SCALE])) return NULL;
    if (!settled(p, y->place, writes) || !same_look(y, &results[Y])) return NULL;
    for (int i = X; i <= SHIFT; i++)
        if (!bp__stays(p, norm, grad, n[i].place)) return NULL;
    return norm;
}

static bp_status mask_from_x(bp_plan *p, const bp_step *norm, bp_step *mask, bp_step *grad)
{
    if (!bp__stays(p, mask, grad, spots_of(p, mask)[0].place)) return BP_OK;
    BP_TRY(bp__widen(p, grad, GRAD_IN, grad->n_out));
    spots_of(p, grad)[G_DY] = spots_of(p, mask)[0];
    spots_of(p, grad)[G_SHIFT] = spots_of(p, norm)[SHIFT];
    grad->args[G_RELU] = bp_int(BP_ACT_RELU);
    mask->dropped = true;
    return BP_OK;
}

/* The addition that made dy for the mask alone, of two tensors that are still there. */
static bp_step *sum_before(bp_plan *p, const bp_step *mask, const int64_t *uses, const int64_t *writes)
{
    const bp_spot *dy = &spots_of(p, mask)[0];
    if (!settled(p, dy->place, writes) || p->places[dy->place].output) return NULL;
    bp_step *add = sole_maker(p, dy->place, mask, uses);
    if (!add || add->op != &bp__op_add || add->constant || !same_look(dy, &spots_of(p, add)[2])) return NULL;
    for (int i = 0; i < 2; i++) {
        const bp_spot *part = &spots_of(p, add)[i];
        if (part->place < 0 || !contiguous(&part->meta) || !bp__stays(p, add, mask, part->place)) return NULL;
        if (!bp_shape_equal(part->meta.ndim, part->meta.shape, dy->meta.ndim, dy->meta.shape)) return NULL;
    }
    return add;
}

static bp_status mask_on_the_way(bp_plan *p, bp_step *mask, bp_step *grad, const int64_t *uses, const int64_t *writes)
{
    for (int i = 0; i < grad->n_out; i++)
        if (!settled(p, spots_of(p, grad)[grad->n_in + i].place, writes)) return BP_OK;
    bp_step *add = sum_before(p, mask, uses, writes), fused = *grad;
    BP_TRY(bp__widen(p, &fused, FUSED_GRAD_IN, grad->n_out + 1));
    const bp_spot *sum = add ? spots_of(p, add) : NULL, *masked = spots_of(p, mask);
    bp_spot *in = spots_of(p, &fused);
    in[G_DY] = add ? sum[0] : masked[0];
    in[G_ADDEND].place = -1;
    if (add) in[G_ADDEND] = sum[1];
    in[G_Y] = masked[RELU_Y];
    in[FUSED_GRAD_IN + grad->n_out] = masked[mask->n_in];
    fused.op = &bp__op_batch_norm_fused_grad;
    grad->dropped = true;
    if (add) add->dropped = true;
    *mask = fused;
    return BP_OK;
}

static bp_status take_in_mask(bp_plan *p, bp_step *grad, const int64_t *uses, const int64_t *writes)
{
    const bp_spot *dz = &spots_of(p, grad)[G_DY];
    if (grad->constant || grad->args[G_RELU].as.i != BP_ACT_NONE || !settled(p, dz->place, writes)) return BP_OK;
    bp_step *mask = maker_of(p, dz->place, grad);
    if (!mask || mask->op != &bp__op_relu_grad || mask->constant || !same_look(dz, &spots_of(p, mask)[mask->n_in])) return BP_OK;
    if (!contiguous(&spots_of(p, mask)[0].meta)) return BP_OK;
    const bp_step *norm = forward_of(p, grad, mask, writes);
    if (!norm) return BP_OK;
    const bool alone = uses[dz->place] == 2 && !p->places[dz->place].output;
    if (alone && spots_of(p, norm)[ADDEND].place < 0) return mask_from_x(p, norm, mask, grad);
    return mask_on_the_way(p, mask, grad, uses, writes);
}

bp_status bp__rewrite_norms(bp_plan *p, const int64_t *uses, const int64_t *writes)
{
    static const struct {
        const bp_op *op;
        bp_status (*rewrite)(bp_plan *p, bp_step *s, const int64_t *uses, const int64_t *writes);
    } ways[] = { { &bp__op_add, take_in_addition }, { &bp__op_relu, take_in_relu }, { &bp__op_batch_norm_grad, take_in_mask } };
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        for (int64_t k = 0; k < p->n_steps; k++) {
            bp_step *s = &p->steps[k];
            if (s->op == ways[i].op && !s->constant && !s->dropped) BP_TRY(ways[i].rewrite(p, s, uses, writes));
        }
    return BP_OK;
}
