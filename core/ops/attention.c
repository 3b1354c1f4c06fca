/* attention.c - scaled dot-product attention over several heads, and its gradient.
 *
 * Heads lie side by side in the last dimension, [batch][time][heads * size], as a product of x with a weight matrix gives them: nothing is
 * transposed or copied. A chunk of work is a block of queries of one head; in the gradient, which sums over queries, all of one head. */
#include "../base/memory.h"
#include "../base/pool.h"
#include "op.h"
#include "product.h"

#include <math.h>
#include <string.h>

enum { Q, KEY, V, LENGTHS, STATE, USED };               /* inputs */
enum { Y, LSE, DRAWN };                                 /* outputs */
enum { G_DY, G_Q, G_K, G_V, G_LSE, G_USED, G_LENGTHS }; /* inputs of the gradient */
enum { HEADS, CAUSAL, SCALE, P };                       /* options */

typedef struct job {
    const bp_kernels *kernels;
    bp_attention one; /* of batch 0, head 0; `keys` is set for each */
    int64_t heads, blocks, block, size;
    const int64_t *lengths;
    char *scratch;
    size_t scratch_bytes;
} job;

/* ---- shapes ---- */

static bp_status check(bp_call *call, int q, int k, int v, int lengths)
{
    const bp_meta *mq = &call->in[q]->m, *mk = &call->in[k]->m, *mv = &call->in[v]->m;
    const int64_t heads = call->args[HEADS].as.i;
    char text[3][200];
    BP_TRY(bp_need_ndim(call, q, 3, "[batch][queries][heads * size]"));
    BP_TRY(bp_need_ndim(call, k, 3, "[batch][keys][heads * size]"));
    BP_TRY(bp_need_ndim(call, v, 3, "[batch][keys][heads * size of a value]"));
    const bp_meta *m[3] = { mq, mk, mv };
    for (int i = 0; i < 3; i++) {
        bp_shape_text(3, m[i]->shape, text[i]);
        if (m[i]->shape[2] % heads != 0)
            return bp_op_fail(call, BP_EINVAL, "'%s' has shape %s: a last size of %lld cannot be cut into %lld heads of equal size",
                              call->op->inputs[i == 0   ? q
                                               : i == 1 ? k
                                                        : v]
                                  .name,
                              text[i], (long long)m[i]->shape[2], (long long)heads);
    }
    if (mq->shape[0] != mk->shape[0] || mq->shape[2] != mk->shape[2])
        return bp_op_fail(call, BP_EINVAL, "q has shape %s and k has shape %s; the batch and the last size must be the same", text[0],
                          text[1]);
    if (mk->shape[0] != mv->shape[0] || mk->shape[1] != mv->shape[1])
        return bp_op_fail(call, BP_EINVAL, "k has shape %s and v has shape %s; batch and time must be the same", text[1], text[2]);
    if (!call->in[lengths]) return BP_OK;
    const bp_meta *l = &call->in[lengths]->m;
    if (bp_is_float(l->dtype) || l->dtype == BP_BOOL || l->ndim != 1 || l->shape[0] != mk->shape[0]) {
        bp_shape_text(l->ndim, l->shape, text[2]);
        return bp_op_fail(call, BP_EINVAL,
                          "'lengths' is %s %s; expected whole numbers [%lld], the keys that count in each row of the batch",
                          bp_dtype_name(l->dtype), text[2], (long long)mk->shape[0]);
    }
    return BP_OK;
}

static bp_status read_lengths(bp_call *call, const bp_tensor *lengths, int64_t keys, int64_t *to)
{
    if (!lengths) return BP_OK;
    bp_integer_values(lengths, to);
    for (int64_t i = 0; i < lengths->m.shape[0]; i++)
        if (to[i] < 0 || to[i] > keys)
            return bp_op_fail(call, BP_EINVAL, "'lengths' is %lld in row %lld; there are %lld keys, so 0 to %lld is expected",
                              (long long)to[i], (long long)(i + call->ctx->base), (long long)keys, (long long)keys);
    return BP_OK;
}

/* What forward and gradient have in common; q, k, v are places among the inputs. */
static bp_status start(bp_call *call, job *j, int q, int k, int v, int lengths, bool gradient)
{
    const bp_meta *mq = &call->in[q]->m, *mk = &call->in[k]->m, *mv = &call->in[v]->m;
    memset(j, 0, sizeof *j);
    j->kernels = bp_kernels_of(call->ctx, mq->dtype);
    j->size = (int64_t)bp_dtype_size(mq->dtype);
    j->heads = call->args[HEADS].as.i;
    const double scale = call->args[SCALE].as.f;
    const int64_t d = mq->shape[2] / j->heads;
    j->one = (bp_attention){ .tq = mq->shape[1],
                             .tk = mk->shape[1],
                             .keys = mk->shape[1],
                             .d = d,
                             .dv = mv->shape[2] / j->heads,
                             .q_row = mq->shape[2],
                             .k_row = mk->shape[2],
                             .v_row = mv->shape[2],
                             .y_row = mv->shape[2],
                             .q = bp_data(call->in[q]),
                             .k = bp_data(call->in[k]),
                             .v = bp_data(call->in[v]),
                             .causal = call->args[CAUSAL].as.i != 0,
                             .scale = scale > 0 ? scale
                                      : d > 0   ? 1 / sqrt((double)d)
                                                : 1,
                             .p = call->args[P].as.f };
    j->block = gradient ? j->one.tq : j->kernels->attention_block(&j->one);
    j->blocks = bp_chunks(j->one.tq, j->block);
    j->scratch_bytes = bp__lines(j->kernels->attention_scratch(&j->one, gradient));
    const size_t kept = bp__lines((size_t)mk->shape[0] * sizeof(int64_t));
    char *p = (char *)bp__scratch(call->ctx, kept + j->scratch_bytes * (size_t)bp_threads(call->ctx) + 64);
    if (!p) return BP_ENOMEM;
    j->lengths = call->in[lengths] ? (int64_t *)(void *)p : NULL;
    j->scratch = p + kept;
    return read_lengths(call, call->in[lengths], j->one.tk, (int64_t *)(void *)p);
}

static void *moved(const void *p, int64_t elements, int64_t size) { return p ? (char *)(uintptr_t)p + elements * size : NULL; }

/* One head of one sample. */
static bp_attention cut_out(const job *j, int64_t which)
{
    bp_attention s = j->one;
    const int64_t sample = which / j->heads, head = which % j->heads;
    const int64_t q = sample * s.tq * s.q_row + head * s.d, k = sample * s.tk * s.k_row + head * s.d;
    const int64_t v = sample * s.tk * s.v_row + head * s.dv, y = sample * s.tq * s.y_row + head * s.dv;
    s.q = moved(s.q, q, j->size), s.dq = moved(s.dq, q, j->size);
    s.k = moved(s.k, k, j->size), s.dk = moved(s.dk, k, j->size);
    s.v = moved(s.v, v, j->size), s.dv_ = moved(s.dv_, v, j->size);
    s.y = moved(s.y, y, j->size), s.dy = moved(s.dy, y, j->size);
    s.lse = moved(s.lse, which * s.tq, j->size);
    s.first = (uint64_t)(which * s.tq * s.tk);
    if (j->lengths) s.keys = j->lengths[sample];
    return s;
}

static void forward_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const bp_attention s = cut_out(j, chunk / j->blocks);
    const int64_t first = chunk % j->blocks * j->block, last = first + j->block < s.tq ? first + j->block : s.tq;
    j->kernels->attention(&s, first, last, j->scratch + j->scratch_bytes * (size_t)worker);
}

static void gradient_chunk(void *arg, int64_t which, int worker)
{
    const job *j = (const job *)arg;
    const bp_attention s = cut_out(j, which);
    j->kernels->attention_grad(&s, j->scratch + j->scratch_bytes * (size_t)worker);
}

/* ---- forward ---- */

static bp_status check_used(bp_call *call, const bp_tensor *used)
{
    if (used && (used->m.dtype != BP_I64 || used->m.ndim != 1 || used->m.shape[0] != 2 || !bp_tensor_is_contiguous(used)))
        return bp_op_fail(call, BP_EINVAL, "'used' must be i64[2], the third result of another attention");
    return BP_OK;
}

static bp_status attention_infer(bp_call *call)
{
    BP_TRY(check(call, Q, KEY, V, LENGTHS));
    BP_TRY(check_used(call, call->in[USED]));
    const bp_meta *q = &call->in[Q]->m;
    const int64_t y[3] = { q->shape[0], q->shape[1], call->in[V]->m.shape[2] },
                  lse[3] = { q->shape[0], call->args[HEADS].as.i, q->shape[1] }, two = 2;
    bp_out(call, Y, q->dtype, 3, y);
    bp_out(call, LSE, q->dtype, 3, lse);
    bp_out(call, DRAWN, BP_I64, 1, &two);
    return BP_OK;
}

static bp_status attention_run(bp_call *call)
{
    job j;
    BP_TRY(start(call, &j, Q, KEY, V, LENGTHS, false));
    j.one.y = bp_data(call->out[Y]);
    j.one.lse = bp_data(call->out[LSE]);
    int64_t *drawn = (int64_t *)(void *)bp_data(call->out[DRAWN]);
    if (call->in[USED]) {
        memcpy(drawn, bp_data(call->in[USED]), 2 * sizeof *drawn);
    } else if (j.one.p > 0) {
        bp_draw(call->in[STATE], &j.one.key, &j.one.step);
        drawn[0] = (int64_t)j.one.key, drawn[1] = (int64_t)j.one.step;
    } else {
        drawn[0] = drawn[1] = 0;
    }
    j.one.key = (uint64_t)drawn[0], j.one.step = (uint64_t)drawn[1];
    if (bp_count(call->out[Y]) > 0) bp_parallel(call->ctx, call->in[Q]->m.shape[0] * j.heads * j.blocks, forward_chunk, &j);
    return BP_OK;
}

/* ---- gradient ---- */

static bp_status attention_grad_infer(bp_call *call)
{
    const bp_meta *q = &call->in[G_Q]->m;
    BP_TRY(check(call, G_Q, G_K, G_V, G_LENGTHS));
    BP_TRY(check_used(call, call->in[G_USED]));
    const int64_t y[3] = { q->shape[0], q->shape[1], call->in[G_V]->m.shape[2] },
                  lse[3] = { q->shape[0], call->args[HEADS].as.i, q->shape[1] };
    BP_TRY(bp_need_shape(call, G_DY, 3, y));
    BP_TRY(bp_need_shape(call, G_LSE, 3, lse));
    for (int i = 0; i < 3; i++) bp_out(call, i, q->dtype, 3, call->in[G_Q + i]->m.shape);
    return BP_OK;
}

static bp_status attention_grad_run(bp_call *call)
{
    job j;
    BP_TRY(start(call, &j, G_Q, G_K, G_V, G_LENGTHS, true));
    const int64_t *used = (const int64_t *)(const void *)bp_data(call->in[G_USED]);
    j.one.key = (uint64_t)used[0], j.one.step = (uint64_t)used[1];
    j.one.dy = bp_data(call->in[G_DY]);
    j.one.lse = bp_data(call->in[G_LSE]);
    j.one.dq = bp_data(call->out[0]);
    j.one.dk = bp_data(call->out[1]);
    j.one.dv_ = bp_data(call->out[2]);
    bp_parallel(call->ctx, call->in[G_Q]->m.shape[0] * j.heads, gradient_chunk, &j);
    return BP_OK;
}

/* ---- the gradient in simple ops, where it is to be differentiated again or the lse was used ---- */

static bp_tensor *shaped(bp_grad *g, bp_tensor *t, int ndim, const int64_t *shape)
{
    bp_arg to = bp_list(ndim, shape);
    return bp_g(g, &bp__op_reshape, 1, &to, 1, t);
}

static bp_tensor *permuted(bp_grad *g, bp_tensor *t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    const int64_t axes[4] = { a, b, c, d };
    bp_arg order = bp_list(4, axes);
    return bp_g(g, &bp__op_permute, 1, &order, 1, t);
}

/* [batch][time][heads * size] -> [batch][heads][time][size], and back */
static bp_tensor *split(bp_grad *g, bp_tensor *t)
{
    if (!t) return NULL;
    const int64_t heads = g->args[HEADS].as.i, shape[4] = { t->m.shape[0], t->m.shape[1], heads, t->m.shape[2] / heads };
    return permuted(g, shaped(g, t, 4, shape), 0, 2, 1, 3);
}
static bp_tensor *joined(bp_grad *g, bp_tensor *t, const bp_tensor *like)
{
    return shaped(g, permuted(g, t, 0, 2, 1, 3), 3, like->m.shape);
}
static bp_tensor *turned(bp_grad *g, bp_tensor *t) { return permuted(g, t, 0, 1, 3, 2); }

static bp_tensor *count_up(bp_grad *g, int64_t n, int ndim, const int64_t *shape)
{
    bp_arg args[4] = { bp_float(0), bp_float((double)n), bp_float(1), bp_int(BP_I64) };
    return shaped(g, bp_g(g, &bp__op_arange, 4, args, 0), ndim, shape);
}

/* Which keys a query sees: bool, [batch or 1][1][queries or 1][keys]; NULL: all. */
static bp_tensor *seen(bp_grad *g)
{
    const int64_t tq = g->in[Q]->m.shape[1], tk = g->in[KEY]->m.shape[1];
    const int64_t along[4] = { 1, 1, 1, tk }, down[4] = { 1, 1, tq, 1 };
    const bool causal = g->args[CAUSAL].as.i != 0;
    bp_tensor *lengths = g->in[LENGTHS], *mask = NULL;
    if (!causal && !lengths) return NULL;
    bp_tensor *key = count_up(g, tk, 4, along);
    if (causal) mask = G2(g, le, key, count_up(g, tq, 4, down));
    if (!lengths) return mask;
    const int64_t each[4] = { lengths->m.shape[0], 1, 1, 1 };
    bp_tensor *inside = G2(g, lt, key, shaped(g, lengths, 4, each));
    return mask ? G2(g, logical_and, mask, inside) : inside;
}

static void composed_gradient(bp_grad *g)
{
    const double size = (double)(g->in[Q]->m.shape[2] / g->args[HEADS].as.i), given = g->args[SCALE].as.f, p = g->args[P].as.f;
    if (bp_count(g->in[Q]) == 0 || bp_count(g->in[V]) == 0) return;
    bp_tensor *q = split(g, g->in[Q]), *k = split(g, g->in[KEY]), *v = split(g, g->in[V]), *dy = split(g, g->dout[Y]);
    bp_tensor *scale = bp_g_number(g, g->in[Q], given > 0 ? given : 1 / sqrt(size)), *mask = seen(g), *keep = NULL;
    bp_arg last = bp_int(-1), to = bp_int(g->in[Q]->m.dtype), drop = bp_float(p);
    bp_tensor *s = G2(g, mul, G2(g, matmul, q, turned(g, k)), scale);
    if (mask) {
        keep = bp_g(g, &bp__op_cast, 1, &to, 1, mask);
        s = G3(g, where, mask, s, bp_g_number(g, g->in[Q], -1e30));
    }
    bp_tensor *weights = bp_g(g, &bp__op_softmax, 1, &last, 1, s), *d = NULL;
    if (keep) weights = G2(g, mul, weights, keep); /* a query that sees nothing */
    if (dy) {
        bp_tensor *dropped = p > 0 ? bp_g_out(g, 0, &bp__op_dropout, 1, &drop, 3, weights, (bp_tensor *)NULL, g->out[DRAWN]) : weights;
        if (g->want[V]) bp_grad_set(g, V, joined(g, G2(g, matmul, turned(g, dropped), dy), g->in[V]));
        d = G2(g, matmul, dy, turned(g, v));
        if (p > 0) d = bp_g_out(g, 0, &bp__op_dropout, 1, &drop, 3, d, (bp_tensor *)NULL, g->out[DRAWN]);
        d = bp_g(g, &bp__op_softmax_grad, 1, &last, 2, d, weights);
    }
    if (g->dout[LSE]) {
        const bp_meta *m = &g->dout[LSE]->m;
        const int64_t shape[4] = { m->shape[0], m->shape[1], m->shape[2], 1 };
        bp_tensor *more = G2(g, mul, weights, shaped(g, g->dout[LSE], 4, shape));
        d = d ? G2(g, add, d, more) : more;
    }
    d = G2(g, mul, d, scale);
    if (g->want[Q]) bp_grad_set(g, Q, joined(g, G2(g, matmul, d, k), g->in[Q]));
    if (g->want[KEY]) bp_grad_set(g, KEY, joined(g, G2(g, matmul, turned(g, d), q), g->in[KEY]));
}

static void attention_gradient(bp_grad *g)
{
    if (g->ctx->grad_enabled || g->dout[LSE]) {
        composed_gradient(g);
        return;
    }
    bp_tensor *in[7] = { g->dout[Y], g->in[Q], g->in[KEY], g->in[V], g->out[LSE], g->out[DRAWN], g->in[LENGTHS] }, *grads[3];
    bp_g_all(g, &bp__op_attention_grad, 4, g->args, 7, in, grads);
    for (int i = 0; i < 3; i++)
        if (g->want[i]) bp_grad_set(g, i, grads[i]);
}

/* ---- rows ---- */

#define LENGTHS_INPUT                                                                                                        \
    {                                                                                                                        \
        "lengths", BP_IN_RAW | BP_IN_OPTIONAL, "[batch] whole numbers: only so many keys count in each row; all when left out" \
    }

static const bp_option options[] = {
    { .name = "heads", .kind = BP_OPT_INT, .def = 1, .min = 1, .max = 0x1p20, .help = "how many lie side by side in the last dimension" },
    { .name = "causal", .kind = BP_OPT_BOOL, .def = 0, .min = 1, .max = 0, .help = "query i sees the keys up to i only" },
    { .name = "scale", .kind = BP_OPT_FLOAT, .def = 0, .min = 0, .max = 1e30, .help = "of the products; 0: 1 / sqrt(size of a head)" },
    { .name = "p", .kind = BP_OPT_FLOAT, .def = 0, .min = 0, .max = 1, .help = "chance of a weight to be dropped" },
    { 0 },
};

const bp_op bp__op_attention = {
    .name = "attention",
    .group = "layers",
    .summary = "scaled dot-product attention over several heads",
    .detail = "For each head  y = drop(softmax(scale * q k^T)) v, the softmax along the keys that a query sees. Heads lie side by side in\n"
              "the last dimension; the weights are never stored, only the logarithm of their sum. A query that sees no key gives 0.\n"
              "Vaswani and others, Attention is all you need, 2017; Dao and others, FlashAttention, 2022.",
    .inputs = (const bp_input[]){ { "q", 0, "[batch][queries][heads * size]" },
                                  { "k", 0, "[batch][keys][heads * size]" },
                                  { "v", 0, "[batch][keys][heads * size of a value]" },
                                  LENGTHS_INPUT,
                                  { "state", BP_IN_STREAM | BP_IN_OPTIONAL,
                                    "i64[2] {key, step}, advanced by one where weights are dropped; left out: the context's own" },
                                  { "used", BP_IN_RAW | BP_IN_OPTIONAL,
                                    "i64[2] {key, step} of an earlier draw to repeat; the state then stays as it is" },
                                  { 0 } },
    .options = options,
    .n_out = 3,
    .outputs = "y: [batch][queries][heads * size of a value]; lse: [batch][heads][queries], log of the sum of exp(scale * q k); "
               "used: i64[2] {key, step} of the draw",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << Q | 1 << KEY | 1 << V | 1 << LENGTHS,
    .needs_out = 1 << LSE | 1 << DRAWN,
    .stream = BP_STREAM_DROPOUT,
    .infer = attention_infer,
    .run = attention_run,
    .gradient = attention_gradient,
    .cases = (const bp_case[]){ { "2x3x4 2x3x4 2x3x4 - rng", "heads=2", 0, 0, 0 },
                                { "2x3x4 2x5x4 2x5x6 - rng", "heads=2 scale=0.7", 0, 0, 0 },
                                { "1x9x2 1x9x2 1x9x2 - rng", "causal=1", 0, 0, 0 },
                                { "3x2x4' 3x4x4' 3x4x2' i64:3<5 rng", "heads=2", 0, 0, 0 },
                                { "2x4x3 2x4x3 2x4x3 i32:2<5 rng", "heads=3 causal=1", 0, 0, 0 },
                                { "2x3x4 2x3x4 2x3x4 - rng", "heads=2 p=0.4", 0, 0, 0 },
                                { "2x4x2 2x4x2 2x4x2 i64:2<5 rng", "causal=1 p=0.3", 0, 0, 0 },
                                { "0x3x4 0x3x4 0x3x4 - rng", "heads=2", 0, 0, 0 },
                                { 0 } },
};

const bp_op bp__op_attention_grad = {
    .name = "attention_grad",
    .group = "layers",
    .summary = "gradient of attention: makes the weights again from lse",
    .detail = "w = exp(scale * q k^T - lse);  dv = drop(w)^T dy;  d = drop(dy v^T);  ds = scale * w * (d - sum(w * d));  dq = ds k;\n"
              "dk = ds^T q\n"
              "Not differentiable itself: where a gradient of a gradient is wanted, it is spelled out in simpler ops instead.",
    .inputs = (const bp_input[]){ { "dy", 0, "gradient of y" },
                                  { "q", 0, "[batch][queries][heads * size]" },
                                  { "k", 0, "[batch][keys][heads * size]" },
                                  { "v", 0, "[batch][keys][heads * size of a value]" },
                                  { "lse", 0, "[batch][heads][queries]" },
                                  { "used", BP_IN_RAW, "i64[2] {key, step} of the draw" },
                                  LENGTHS_INPUT,
                                  { 0 } },
    .options = options,
    .n_out = 3,
    .outputs = "dq, dk, dv: like q, k, v",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .infer = attention_grad_infer,
    .run = attention_grad_run,
    .cases = (const bp_case[]){ { "2x3x4 2x3x4 2x3x4 2x3x4 2x2x3 rng", "heads=2", 0, 0, 0 },
                                { "2x3x2 2x3x2 2x3x2 2x3x2 2x1x3 rng i64:2<4", "causal=1 p=0.5", 0, 0, 0 },
                                { 0 } },
};
