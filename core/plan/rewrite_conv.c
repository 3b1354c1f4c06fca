/* rewrite_conv.c - a convolution hands its result to the only op that reads it while it is in a cache, and never stores it, with the same
 * bits:
 *     t = conv2d(x);  y = relu(t)                   becomes     y = conv2d(x, activation relu)            (depthwise_conv2d, linear alike)
 *     y = conv2d(x);  p, argmax = max_pool2d(y)     becomes     p, argmax = conv2d_max_pool2d(x)          (avg_pool2d alike)
 *     t = conv2d_grad_input(dy, w);  u = relu_grad(t, y)     becomes     u = conv2d_grad_input(dy, w, y)
 * when nobody else reads t, or the first y. The last is done to depthwise convolutions and products, too, and to relu_dropout_grad. Shapes
 * alone say whether that pays. */
#include "../ops/fusing.h"
#include "rewrite.h"

#include <string.h>

enum { CONV_IN = 3, CONV_ACT = 3, CONV_ARGS = 5, POOL_ARGS = 3 }; /* those of the fused op are those of both */

/* Asks about a call of which only the looks of its inputs are known. */
static bool pays(bp_plan *p, const bp_step *s, bool (*ask)(bp_call *call))
{
    bp_tensor husks[CONV_IN], *in[CONV_IN] = { NULL };
    bp_call call = { .ctx = p->ctx, .op = s->op, .n_in = s->n_in, .n_out = s->n_out, .in = in };
    memset(husks, 0, sizeof husks);
    memcpy(call.args, s->args, sizeof call.args);
    for (int i = 0; i < s->n_in; i++) {
        const bp_spot *spot = &spots_of(p, s)[i];
        husks[i].m = spot->meta;
        if (spot->place >= 0) in[i] = &husks[i];
    }
    return ask(&call);
}

/* Whether `late` writes where `early` reads: one op of both would still read what it has begun to write. */
static bool writes_operand(bp_plan *p, const bp_step *early, const bp_step *late)
{
    for (int i = 0; i < early->n_in; i++)
        for (int k = late->n_in; k < late->n_in + late->n_out; k++)
            if (bp_plan_touches(&spots_of(p, early)[i], &spots_of(p, late)[k])) return true;
    return false;
}

/* The step whose first result `late` alone reads, as its input 0, all of it, and which may run in its place with late's results. */
static bp_step *only_before(bp_plan *p, const bp_step *late, const int64_t *uses, const int64_t *writes)
{
    const bp_spot *read = &spots_of(p, late)[0];
    if (!settled(p, read->place, writes) || p->places[read->place].output) return NULL;
    bp_step *early = sole_maker(p, read->place, late, uses);
    if (!early || early->constant) return NULL;
    const bp_spot *made = &spots_of(p, early)[early->n_in];
    if (made->place != read->place || made->meta.offset != read->meta.offset || made->meta.dtype != read->meta.dtype) return NULL;
    if (!contiguous(&made->meta) || !contiguous(&read->meta) || count(&made->meta) != count(&read->meta)) return NULL;
    return bp__can_wait(p, early, late) && !writes_operand(p, early, late) ? early : NULL;
}

/* Whether a result is the product of two matrices, whose sums may be cut otherwise where an activation or a bias follows. */
static bool multiplies(bp_plan *p, const bp_step *s)
{
    const bp_meta *w = &spots_of(p, s)[1].meta;
    return s->op == &bp__op_linear || (s->op == &bp__op_conv2d && w->shape[0] == 1 && w->shape[1] == 1);
}

static void take_in_activation(bp_plan *p, bp_step *relu, const int64_t *uses, const int64_t *writes)
{
    static const struct {
        const bp_op *op;
        int activation; /* place of the option */
    } ways[] = { { &bp__op_conv2d, CONV_ACT }, { &bp__op_depthwise_conv2d, CONV_ACT }, { &bp__op_linear, 0 } };
    const bp_spot made = spots_of(p, relu)[1];
    bp_step *early = only_before(p, relu, uses, writes);
    if (!early || !contiguous(&made.meta)) return;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (early->op != ways[i].op || early->args[ways[i].activation].as.i != BP_ACT_NONE) continue;
        if (multiplies(p, early) && (early->n_in < 3 || spots_of(p, early)[2].place < 0)) return;
        bp_spot *out = &spots_of(p, early)[early->n_in];
        out->place = made.place;
        out->meta.offset = made.meta.offset;
        bp_step fused = *early;
        fused.args[ways[i].activation] = bp_int(BP_ACT_RELU);
        early->dropped = true;
        *relu = fused;
        return;
    }
}

static bp_status take_in_pooling(bp_plan *p, bp_step *pool, const int64_t *uses, const int64_t *writes)
{
    bp_step *conv = only_before(p, pool, uses, writes);
    if (!conv || conv->op != &bp__op_conv2d || !same_look(&spots_of(p, pool)[0], &spots_of(p, conv)[conv->n_in])) return BP_OK;
    for (int i = 0; i < pool->n_out; i++)
        if (!contiguous(&spots_of(p, pool)[pool->n_in + i].meta)) return BP_OK;
    bp_step fused = *conv;
    fused.op = pool->op == &bp__op_max_pool2d ? &bp__op_conv2d_max_pool2d : &bp__op_conv2d_avg_pool2d;
    fused.n_out = pool->n_out;
    memcpy(fused.args + CONV_ARGS, pool->args, POOL_ARGS * sizeof *fused.args);
    if (!pays(p, &fused, bp__conv2d_pool_pays)) return BP_OK;
    fused.n_out = conv->n_out;
    BP_TRY(bp__widen(p, &fused, CONV_IN, pool->n_out));
    for (int i = 0; i < pool->n_out; i++) spots_of(p, &fused)[CONV_IN + i] = spots_of(p, pool)[pool->n_in + i];
    conv->dropped = true;
    *pool = fused;
    return BP_OK;
}

static bp_status take_in_relu(bp_plan *p, bp_step *relu, const int64_t *uses, const int64_t *writes)
{
    static const struct {
        const bp_op *op, *fused;
        int chance; /* place of the option p */
        bool (*pays)(bp_call *call);
    } ways[] = { { &bp__op_conv2d_grad_input, &bp__op_conv2d_grad_input, CONV_ARGS, bp__conv2d_mask_pays },
                 { &bp__op_depthwise_conv2d_grad_input, &bp__op_depthwise_conv2d_grad_input, CONV_ARGS - 1, bp__depthwise_mask_pays },
                 { &bp__op_matmul, &bp__op_matmul_relu_grad, 0, bp__matmul_mask_pays } };
    enum { T, Y, U, MASKED_IN = 3 };
    const bp_spot *late = spots_of(p, relu);
    const double chance = relu->op == &bp__op_relu_dropout_grad ? relu->args[0].as.f : 0;
    bp_step *early = only_before(p, relu, uses, writes);
    if (!early || early->n_out != 1 || (relu->op == &bp__op_relu_dropout_grad && chance == 0)) return BP_OK;
    const bp_meta made = spots_of(p, early)[early->n_in].meta;
    if (early->n_in > 2 && spots_of(p, early)[2].place >= 0) return BP_OK;
    for (int i = Y; i <= U; i++)
        if (late[i].place < 0 || !contiguous(&late[i].meta) || late[i].meta.dtype != made.dtype || count(&late[i].meta) != count(&made))
            return BP_OK;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        if (early->op != ways[i].op || !pays(p, early, ways[i].pays)) continue;
        bp_step fused = *early;
        fused.op = ways[i].fused;
        fused.args[ways[i].chance] = bp_float(chance);
        BP_TRY(bp__widen(p, &fused, MASKED_IN, 1));
        for (int k = Y; k <= U; k++) { /* seen in the shape of the gradient */
            bp_spot *to = &spots_of(p, &fused)[k + 1], from = spots_of(p, relu)[k];
            *to = from;
            to->meta = made;
            to->meta.offset = from.meta.offset;
        }
        early->dropped = true;
        *relu = fused;
        return BP_OK;
    }
    return BP_OK;
}

bp_status bp__rewrite_convolutions(bp_plan *p, const int64_t *uses, const int64_t *writes)
{
    for (int64_t k = 0; k < p->n_steps; k++) {
        bp_step *s = &p->steps[k];
        if (s->constant || s->dropped) continue;
        if (s->op == &bp__op_relu) take_in_activation(p, s, uses, writes);
        if (s->op == &bp__op_max_pool2d || s->op == &bp__op_avg_pool2d) BP_TRY(take_in_pooling(p, s, uses, writes));
        if (s->op == &bp__op_relu_grad || s->op == &bp__op_relu_dropout_grad) BP_TRY(take_in_relu(p, s, uses, writes));
    }
    return BP_OK;
}
