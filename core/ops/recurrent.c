/* recurrent.c - simple, GRU and LSTM layers over a whole sequence, one op each way; the arithmetic is in kernels/recurrent.c.
 *
 * The ops hold what depends on the step before. What does not is left to other ops: the gradient's matrix products over all steps. */
#include "../base/memory.h"
#include "../base/pool.h"
#include "op.h"
#include "product.h"

enum { X, W, U, B }; /* the first inputs of each */
enum { REVERSE, ACTIVATION };
enum { LEAST_SAMPLES = 4, MOST_SAMPLES = 16 }; /* of a chunk */
enum { PACK_GRAIN = 1 << 17 };                 /* bytes of packed weights worth handing to a thread */

/* Where the inputs and outputs that not every cell has stand; -1: nowhere. */
typedef struct layout {
    int gates;
    int b_u, h0, c0, lengths; /* inputs */
    int c_n, z, kept, before; /* outputs, beside y = 0 and h_n = 1 */
    const bp_op *grad;
    int dz_u, dh0, dc0; /* outputs of grad, beside dz = 0 */
} layout;

/* ---- running ---- */

typedef struct job {
    const bp_kernels *kernels;
    const bp_recurrent *s;
    bool backward;
    void *packed;
    int64_t parts; /* of it that are worth a chunk */
    char *scratch;
    size_t scratch_bytes;
} job;

static void chunk(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    const bp_recurrent *s = j->s;
    const int64_t n0 = number * s->samples, n1 = n0 + s->samples < s->batch ? n0 + s->samples : s->batch;
    void *scratch = j->scratch + (size_t)worker * j->scratch_bytes;
    if (j->backward)
        j->kernels->recurrent_backward(s, j->packed, n0, n1, scratch);
    else
        j->kernels->recurrent_forward(s, j->packed, n0, n1, scratch);
}

static void pack_some(void *arg, int64_t number, int worker)
{
    const job *j = (const job *)arg;
    (void)worker;
    for (int64_t part = number * j->parts; part < (number + 1) * j->parts; part++)
        j->kernels->recurrent_pack(j->s, j->backward, j->packed, part);
}

static bp_status read_lengths(bp_call *call, const bp_tensor *lengths, const bp_recurrent *s, int64_t *to)
{
    bp_integer_values(lengths, to);
    for (int64_t i = 0; i < s->batch; i++)
        if (to[i] < 0 || to[i] > s->steps)
            return bp_op_fail(call, BP_EINVAL, "the length of sample %lld is %lld; 0 to %lld, the number of steps, is expected",
                              (long long)(i + call->ctx->base), (long long)to[i], (long long)s->steps);
    return BP_OK;
}

/* Every chunk reads all of u at every step, so there are few of them, equally many for every thread. Which samples share a chunk does not
 * show in their numbers: here, and only here, work may be cut by the number of threads. */
static int64_t samples_of_chunk(int64_t batch, int64_t threads)
{
    const int64_t chunks = threads * bp_chunks(batch, threads * MOST_SAMPLES), samples = (batch + chunks - 1) / chunks;
    return samples > LEAST_SAMPLES ? samples : batch < LEAST_SAMPLES ? batch : LEAST_SAMPLES;
}

static bp_status run(bp_call *call, bp_recurrent *s, bool backward, const bp_tensor *lengths)
{
    job j = { .kernels = bp_kernels_of(call->ctx, call->out[0]->m.dtype), .s = s, .backward = backward };
    if (s->batch == 0 || s->units == 0) return BP_OK;
    s->samples = samples_of_chunk(s->batch, bp_threads(call->ctx));
    const size_t numbers = lengths ? bp__lines((size_t)s->batch * sizeof(int64_t)) : 0;
    const size_t packed = bp__lines(j.kernels->recurrent_packed(s, backward));
    j.scratch_bytes = bp__lines(j.kernels->recurrent_scratch(s, backward));
    char *p = (char *)bp__scratch(call->ctx, numbers + packed + j.scratch_bytes * (size_t)bp_threads(call->ctx));
    if (!p) return BP_ENOMEM;
    if (lengths) {
        BP_TRY(read_lengths(call, lengths, s, (int64_t *)(void *)p));
        s->lengths = (const int64_t *)(const void *)p;
    }
    j.packed = p + numbers;
    j.scratch = p + numbers + packed;
    const int64_t parts = j.kernels->recurrent_pack(s, backward, j.packed, -1);
    j.parts = parts * PACK_GRAIN / (int64_t)packed + 1;
    bp_parallel(call->ctx, bp_chunks(parts, j.parts), pack_some, &j);
    bp_parallel(call->ctx, bp_chunks(s->batch, s->samples), chunk, &j);
    return BP_OK;
}

static const void *in(const bp_call *call, int i) { return i >= 0 && call->in[i] ? bp_data(call->in[i]) : NULL; }
static void *out(const bp_call *call, int i) { return i >= 0 ? bp_data(call->out[i]) : NULL; }

static bp_status forward_run(bp_call *call, const layout *l, bp_cell cell)
{
    const bp_meta *x = &call->in[X]->m;
    bp_recurrent s = {
        .cell = cell,
        .batch = x->shape[0],
        .steps = x->shape[1],
        .in = x->shape[2],
        .units = call->in[U]->m.shape[0],
        .gates = l->gates,
        .reverse = call->args[REVERSE].as.i != 0,
        .u = in(call, U),
        .x = in(call, X),
        .w = in(call, W),
        .b = in(call, B),
        .b_u = in(call, l->b_u),
        .h0 = in(call, l->h0),
        .c0 = in(call, l->c0),
        .y = out(call, 0),
        .h_n = out(call, 1),
        .c_n = out(call, l->c_n),
        .z = out(call, l->z),
        .kept = out(call, l->kept),
        .before = out(call, l->before),
    };
    return run(call, &s, false, call->in[l->lengths]);
}

/* ---- shapes ---- */

static bp_status check_lengths(bp_call *call, int i, const int64_t *batch)
{
    const bp_tensor *t = call->in[i];
    if (!t) return BP_OK;
    if (bp_is_float(t->m.dtype) || t->m.dtype == BP_BOOL)
        return bp_op_fail(call, BP_EINVAL, "'lengths' is %s; whole numbers (i64, i32 or u8) are expected: how many steps each sample has",
                          bp_dtype_name(t->m.dtype));
    return bp_need_shape(call, i, 1, batch);
}

static bp_status forward_infer(bp_call *call, const layout *l)
{
    const bp_meta *x = &call->in[X]->m, *w = &call->in[W]->m, *u = &call->in[U]->m;
    char tx[200], tw[200];
    BP_TRY(bp_need_ndim(call, X, 3, "[batch][time][in]"));
    BP_TRY(bp_need_ndim(call, W, 2, "[in][gates * units]"));
    BP_TRY(bp_need_ndim(call, U, 2, "[units][gates * units]"));
    const int64_t units = u->shape[0], all = l->gates * units;
    if (u->shape[1] != all)
        return bp_op_fail(call, BP_EINVAL, "'u' is %s; [units][%d * units] is expected: one block of columns for each of the %d gates",
                          bp_shape_text(u->ndim, u->shape, tx), l->gates, l->gates);
    if (w->shape[0] != x->shape[2] || w->shape[1] != all)
        return bp_op_fail(call, BP_EINVAL, "x is %s and w is %s; for %lld units w must be [%lld][%lld]",
                          bp_shape_text(x->ndim, x->shape, tx), bp_shape_text(w->ndim, w->shape, tw), (long long)units,
                          (long long)x->shape[2], (long long)all);
    const int64_t state[2] = { x->shape[0], units };
    if (call->in[B]) BP_TRY(bp_need_shape(call, B, 1, &all));
    if (l->b_u >= 0 && call->in[l->b_u]) BP_TRY(bp_need_shape(call, l->b_u, 1, &all));
    if (call->in[l->h0]) BP_TRY(bp_need_shape(call, l->h0, 2, state));
    if (l->c0 >= 0 && call->in[l->c0]) BP_TRY(bp_need_shape(call, l->c0, 2, state));
    BP_TRY(check_lengths(call, l->lengths, &x->shape[0]));
    const int64_t y[3] = { x->shape[0], x->shape[1], units };
    const int64_t z[3] = { x->shape[1], x->shape[0], all }, kept[3] = { x->shape[1], x->shape[0], units };
    bp_out(call, 0, x->dtype, 3, y);
    bp_out(call, 1, x->dtype, 2, state);
    if (l->c_n >= 0) bp_out(call, l->c_n, x->dtype, 2, state);
    if (l->z > 0) bp_out(call, l->z, x->dtype, 3, z);
    if (l->kept >= 0) bp_out(call, l->kept, x->dtype, 3, kept);
    bp_out(call, l->before, x->dtype, 3, l->dz_u > 0 ? kept : y);
    return BP_OK;
}

/* ---- gradients in ops ---- */

static bp_tensor *transposed(bp_grad *g, bp_tensor *t)
{
    const int64_t swapped[2] = { 1, 0 };
    bp_arg order = bp_list(2, swapped);
    return t ? bp_g(g, &bp__op_permute, 1, &order, 1, t) : NULL;
}
static bp_tensor *as_rows(bp_grad *g, bp_tensor *t)
{
    if (!t) return NULL;
    const int64_t shape[2] = { t->m.shape[0] * t->m.shape[1], t->m.shape[2] };
    bp_arg to = bp_list(2, shape);
    return bp_g(g, &bp__op_reshape, 1, &to, 1, t);
}
static bp_tensor *sum_of_rows(bp_grad *g, bp_tensor *t)
{
    const int64_t first = 0;
    bp_arg axis = bp_list(1, &first);
    return t ? bp_g(g, &bp__op_sum, 1, &axis, 1, t) : NULL;
}
static bool wanted(const bp_grad *g, int i) { return i >= 0 && i < g->n_in && g->in[i] && g->want[i]; }

/* d are the outputs of the cell's grad op:  dx = dz w^T;  dw = x^T dz;  db = sum dz;  du = before^T dz_u;  db_u = sum dz_u */
static void finish(bp_grad *g, const layout *l, bp_tensor **d)
{
    bp_tensor *const dz = as_rows(g, d[0]), *const dz_u = l->dz_u > 0 ? as_rows(g, d[l->dz_u]) : dz;
    if (wanted(g, X)) bp_grad_set(g, X, G2(g, matmul, d[0], transposed(g, g->in[W])));
    if (wanted(g, W)) bp_grad_set(g, W, G2(g, matmul, transposed(g, as_rows(g, g->in[X])), dz));
    if (wanted(g, U)) bp_grad_set(g, U, G2(g, matmul, transposed(g, as_rows(g, g->out[l->before])), dz_u));
    if (wanted(g, B)) bp_grad_set(g, B, sum_of_rows(g, dz));
    if (wanted(g, l->b_u)) bp_grad_set(g, l->b_u, sum_of_rows(g, dz_u));
    if (wanted(g, l->h0)) bp_grad_set(g, l->h0, d[l->dh0]);
    if (wanted(g, l->c0)) bp_grad_set(g, l->c0, d[l->dc0]);
}

static bool first_order(bp_grad *g)
{
    if (g->status != BP_OK || !g->ctx->grad_enabled) return g->status == BP_OK;
    g->status = bp_fail(g->ctx, BP_ESTATE,
                        "%s: its gradient has no gradient (create_graph); for a second derivative run the cell step by step: "
                        "nn.%s_cell, or fused = false in the layer",
                        g->op->name, g->op->name);
    return false;
}

static bp_tensor *lengths_of(const bp_grad *g, const layout *l) { return l->lengths < g->n_in ? g->in[l->lengths] : NULL; }

/* ---- rows: what they share ---- */

#define INPUTS(gates)                                                                                                       \
    { "x", 0, "[batch][time][in] the sequence" }, { "w", 0, "[in][" gates "units] weights of the input" },                  \
        { "u", 0, "[units][" gates "units] weights of the state" }, { "b", BP_IN_OPTIONAL, "[" gates "units] bias" }
#define H0_INPUT { "h0", BP_IN_OPTIONAL, "[batch][units] state before the first step; default zeros" }
#define LENGTHS_INPUT \
    { "lengths", BP_IN_OPTIONAL | BP_IN_RAW, "[batch] whole numbers: how many steps each sample has; default all" }
#define STEPS_TEXT                                                                                                   \
    "Steps beyond a sample's length leave its state as it is and give y = 0. The batch is divided among the threads, " \
    "each of which runs all steps of its samples. "
#define REVERSE_OPTION                                                                                \
    { .name = "reverse", .kind = BP_OPT_BOOL, .def = 0, .min = 0, .max = 1,                           \
      .help = "walk from the last step of each sample to its first; y stays aligned with x" }
#define IN_GRAD(name, text) { name, BP_IN_OPTIONAL, text }

/* What the grad ops take: [batch][time][units] and [batch][units] where given; the gates by_step, [time][batch]. */
static bp_status grad_infer(bp_call *call, int dy, int dh_n, int dc_n, int sequence, bool by_step, int u, int c0, int lengths)
{
    BP_TRY(bp_need_ndim(call, u, 2, "[units][gates * units]"));
    BP_TRY(bp_need_ndim(call, sequence, 3, by_step ? "[time][batch][..]" : "[batch][time][..]"));
    const bp_meta *z = &call->in[sequence]->m;
    const int64_t units = call->in[u]->m.shape[0], all = call->in[u]->m.shape[1];
    const int64_t batch = z->shape[by_step], steps = z->shape[!by_step];
    const int64_t y[3] = { batch, steps, units }, state[2] = { batch, units }, gates[3] = { z->shape[0], z->shape[1], all };
    const int64_t dz[3] = { batch, steps, all };
    BP_TRY(bp_need_shape(call, sequence, 3, gates));
    if (call->in[dy]) BP_TRY(bp_need_shape(call, dy, 3, y));
    if (call->in[dh_n]) BP_TRY(bp_need_shape(call, dh_n, 2, state));
    if (dc_n >= 0 && call->in[dc_n]) BP_TRY(bp_need_shape(call, dc_n, 2, state));
    if (c0 >= 0 && call->in[c0]) BP_TRY(bp_need_shape(call, c0, 2, state));
    BP_TRY(check_lengths(call, lengths, &batch));
    for (int i = 0; i < call->op->n_out; i++) bp_out(call, i, z->dtype, 2, state);
    bp_out(call, 0, z->dtype, 3, dz);
    return BP_OK;
}

/* The part of a backward pass that all cells fill in alike. */
static bp_recurrent backward_of(const bp_call *call, bp_cell cell, int gates, int sequence, bool by_step, int u)
{
    const bp_meta *z = &call->in[sequence]->m;
    return (bp_recurrent){ .cell = cell,
                           .batch = z->shape[by_step],
                           .steps = z->shape[!by_step],
                           .units = call->in[u]->m.shape[0],
                           .gates = gates,
                           .reverse = call->args[REVERSE].as.i != 0,
                           .u = in(call, u),
                           .z = (void *)(uintptr_t)in(call, sequence),
                           .dz = out(call, 0) };
}
static void *values(const bp_call *call, int i) { return (void *)(uintptr_t)in(call, i); }

/* ---- lstm ---- */

static const layout lstm_layout = { .gates = 4,
                                    .b_u = -1,
                                    .h0 = 4,
                                    .c0 = 5,
                                    .lengths = 6,
                                    .c_n = 2,
                                    .z = 3,
                                    .kept = 4,
                                    .before = 5,
                                    .grad = &bp__op_lstm_grad,
                                    .dz_u = -1,
                                    .dh0 = 1,
                                    .dc0 = 2 };
enum { LG_DY, LG_DH, LG_DC, LG_Z, LG_KEPT, LG_U, LG_C0, LG_LENGTHS };

static bp_status lstm_infer(bp_call *call) { return forward_infer(call, &lstm_layout); }
static bp_status lstm_run(bp_call *call) { return forward_run(call, &lstm_layout, BP_CELL_LSTM); }

static void lstm_gradient(bp_grad *g)
{
    const layout *l = &lstm_layout;
    bp_tensor *d[3],
        *from[8] = { g->dout[0], g->dout[1], g->dout[2], g->out[l->z], g->out[l->kept], g->in[U], g->in[l->c0], lengths_of(g, l) };
    if (!first_order(g)) return;
    bp_g_all(g, l->grad, 1, g->args, 8, from, d);
    finish(g, l, d);
}

static bp_status lstm_grad_infer(bp_call *call)
{
    BP_TRY(grad_infer(call, LG_DY, LG_DH, LG_DC, LG_Z, true, LG_U, LG_C0, LG_LENGTHS));
    const bp_meta *z = &call->in[LG_Z]->m;
    const int64_t y[3] = { z->shape[0], z->shape[1], call->in[LG_U]->m.shape[0] };
    return bp_need_shape(call, LG_KEPT, 3, y);
}

static bp_status lstm_grad_run(bp_call *call)
{
    bp_recurrent s = backward_of(call, BP_CELL_LSTM, 4, LG_Z, true, LG_U);
    s.dy = in(call, LG_DY), s.dh_n = in(call, LG_DH), s.dc_n = in(call, LG_DC);
    s.kept = values(call, LG_KEPT), s.c0 = in(call, LG_C0);
    s.dh0 = out(call, 1), s.dc0 = out(call, 2);
    return run(call, &s, true, call->in[LG_LENGTHS]);
}

const bp_op bp__op_lstm = {
    .name = "lstm",
    .group = "sequences",
    .summary = "long short-term memory over a whole sequence",
    .detail = "With z = x w + h u + b cut into four blocks of columns in the order i, f, c, o (Keras' and PyTorch's):\n"
              "i, f, o = sigmoid(z_i, z_f, z_o);  g = tanh(z_c);  c' = f * c + i * g;  h' = o * tanh(c')\n"
              "Hochreiter and Schmidhuber, \"Long short-term memory\", 1997; Gers et al., \"Learning to forget\", 2000.\n"
              STEPS_TEXT "Its gradient has no gradient: nn.lstm_cell, made of small ops, has.",
    .inputs = (const bp_input[]){ INPUTS("4 * "), H0_INPUT,
                                  { "c0", BP_IN_OPTIONAL, "[batch][units] cell before the first step; default zeros" },
                                  LENGTHS_INPUT, { 0 } },
    .options = (const bp_option[]){ REVERSE_OPTION, { 0 } },
    .n_out = 6,
    .n_kept = 3,
    .outputs = "y: [batch][time][units] the states; h_n, c_n: [batch][units] the last ones; kept for the gradient: gates and cells, "
               "[time][batch][..] in the order of walking, and the states before each step",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << X | 1 << W | 1 << U | 1 << 5 | 1 << 6,
    .needs_out = 7 << 3,
    .infer = lstm_infer,
    .run = lstm_run,
    .gradient = lstm_gradient,
    .cases = (const bp_case[]){ { "2x3x2 2x12 3x12 12 2x3 2x3 i64:2<4", "", 0, 0, 0 },
                                { "3x4x2 2x8 2x8 8 - - i64:3<5", "reverse=1", 0, 0, 0 },
                                { "2x3x2' 2x8' 2x8'", "", 0, 0, 0 },
                                { "1x1x1 1x4 1x4 4 1x1 1x1", "", 0, 0, 0 },
                                { "2x0x2 2x8 2x8 8 2x2 2x2", "", 0, 0, 0 },
                                { "0x3x2 2x8 2x8 8", "", 0, 0, 0 },
                                { 0 } },
};

const bp_op bp__op_lstm_grad = {
    .name = "lstm_grad",
    .group = "sequences",
    .summary = "gradient of lstm as far as it runs through time",
    .detail = "dz is the gradient of x w + h u + b; the gradients of x, w, u and b are products of it.",
    .inputs = (const bp_input[]){ IN_GRAD("dy", "[batch][time][units]"), IN_GRAD("dh_n", "[batch][units]"),
                                  IN_GRAD("dc_n", "[batch][units]"),
                                  { "gates", 0, "of lstm" }, { "cells", 0, "of lstm" }, { "u", 0, "[units][4 * units]" },
                                  { "c0", BP_IN_OPTIONAL, "[batch][units]" }, LENGTHS_INPUT, { 0 } },
    .options = (const bp_option[]){ REVERSE_OPTION, { 0 } },
    .n_out = 3,
    .outputs = "dz: [batch][time][4 * units]; dh0, dc0: [batch][units]",
    .flags = BP_OP_INTERNAL | BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_FLOAT,
    .infer = lstm_grad_infer,
    .run = lstm_grad_run,
};

/* ---- gru ---- */

static const layout gru_layout = { .gates = 3,
                                   .b_u = 4,
                                   .h0 = 5,
                                   .c0 = -1,
                                   .lengths = 6,
                                   .c_n = -1,
                                   .z = 2,
                                   .kept = 3,
                                   .before = 4,
                                   .grad = &bp__op_gru_grad,
                                   .dz_u = 1,
                                   .dh0 = 2,
                                   .dc0 = -1 };
enum { GG_DY, GG_DH, GG_Z, GG_KEPT, GG_BEFORE, GG_U, GG_LENGTHS };

static bp_status gru_infer(bp_call *call) { return forward_infer(call, &gru_layout); }
static bp_status gru_run(bp_call *call) { return forward_run(call, &gru_layout, BP_CELL_GRU); }

static void gru_gradient(bp_grad *g)
{
    const layout *l = &gru_layout;
    bp_tensor *d[3], *from[7] = { g->dout[0], g->dout[1], g->out[l->z], g->out[l->kept], g->out[l->before], g->in[U], lengths_of(g, l) };
    if (!first_order(g)) return;
    bp_g_all(g, l->grad, 1, g->args, 7, from, d);
    finish(g, l, d);
}

static bp_status gru_grad_infer(bp_call *call)
{
    BP_TRY(grad_infer(call, GG_DY, GG_DH, -1, GG_Z, true, GG_U, -1, GG_LENGTHS));
    const bp_meta *z = &call->in[GG_Z]->m;
    const int64_t y[3] = { z->shape[0], z->shape[1], call->in[GG_U]->m.shape[0] };
    BP_TRY(bp_need_shape(call, GG_KEPT, 3, y));
    BP_TRY(bp_need_shape(call, GG_BEFORE, 3, y));
    bp_out(call, 1, z->dtype, 3, z->shape);
    return BP_OK;
}

static bp_status gru_grad_run(bp_call *call)
{
    bp_recurrent s = backward_of(call, BP_CELL_GRU, 3, GG_Z, true, GG_U);
    s.dy = in(call, GG_DY), s.dh_n = in(call, GG_DH);
    s.kept = values(call, GG_KEPT), s.before = values(call, GG_BEFORE);
    s.dz_u = out(call, 1), s.dh0 = out(call, 2);
    return run(call, &s, true, call->in[GG_LENGTHS]);
}

const bp_op bp__op_gru = {
    .name = "gru",
    .group = "sequences",
    .summary = "gated recurrent unit over a whole sequence",
    .detail = "With a = x w + b and p = h u + b_u cut into three blocks of columns in the order z, r, h (Keras'; PyTorch's is r, z, n):\n"
              "z, r = sigmoid(a + p);  n = tanh(a_h + r * p_h);  h' = z * h + (1 - z) * n\n"
              "Cho et al., \"Learning phrase representations\", 2014, with the reset gate after the product (Keras' reset_after, PyTorch's "
              "only form).\n"
              STEPS_TEXT "Its gradient has no gradient: nn.gru_cell, made of small ops, has.",
    .inputs = (const bp_input[]){ INPUTS("3 * "), { "b_u", BP_IN_OPTIONAL, "[3 * units] bias of the state's product" },
                                  H0_INPUT, LENGTHS_INPUT, { 0 } },
    .options = (const bp_option[]){ REVERSE_OPTION, { 0 } },
    .n_out = 5,
    .n_kept = 3,
    .outputs = "y: [batch][time][units] the states; h_n: [batch][units] the last one; kept for the gradient: gates, p_h, states "
               "before each step, [time][batch][..] in the order of walking",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << X | 1 << W | 1 << U | 1 << 6,
    .needs_out = 7 << 2,
    .infer = gru_infer,
    .run = gru_run,
    .gradient = gru_gradient,
    .cases = (const bp_case[]){ { "2x3x2 2x9 3x9 9 9 2x3 i64:2<4", "", 0, 0, 0 },
                                { "3x4x2 2x6 2x6 6 6 - i64:3<5", "reverse=1", 0, 0, 0 },
                                { "2x3x2' 2x6' 2x6'", "", 0, 0, 0 },
                                { "1x1x1 1x3 1x3 3 3 1x1", "", 0, 0, 0 },
                                { "2x0x2 2x6 2x6 6 6 2x2", "", 0, 0, 0 },
                                { "0x3x2 2x6 2x6 6", "", 0, 0, 0 },
                                { 0 } },
};

const bp_op bp__op_gru_grad = {
    .name = "gru_grad",
    .group = "sequences",
    .summary = "gradient of gru as far as it runs through time",
    .detail = "dz is the gradient of x w + b, dz_u that of h u + b_u; the gradients of x, w, u and the biases are products of them.",
    .inputs = (const bp_input[]){ IN_GRAD("dy", "[batch][time][units]"), IN_GRAD("dh_n", "[batch][units]"), { "gates", 0, "of gru" },
                                  { "p_h", 0, "of gru" }, { "before", 0, "of gru" }, { "u", 0, "[units][3 * units]" },
                                  LENGTHS_INPUT, { 0 } },
    .options = (const bp_option[]){ REVERSE_OPTION, { 0 } },
    .n_out = 3,
    .outputs = "dz: [batch][time][3 * units]; dz_u: the same by [time][batch]; dh0: [batch][units]",
    .flags = BP_OP_INTERNAL | BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_FLOAT,
    .infer = gru_grad_infer,
    .run = gru_grad_run,
};

/* ---- rnn ---- */

static const layout rnn_layout = { .gates = 1,
                                   .b_u = -1,
                                   .h0 = 4,
                                   .c0 = -1,
                                   .lengths = 5,
                                   .c_n = -1,
                                   .z = 0,
                                   .kept = -1,
                                   .before = 2,
                                   .grad = &bp__op_rnn_grad,
                                   .dz_u = -1,
                                   .dh0 = 1,
                                   .dc0 = -1 };
enum { RG_DY, RG_DH, RG_Y, RG_U, RG_LENGTHS };
static const char *const activations[] = { "tanh", "relu", NULL }; /* in the order of bp_cell */

static bp_status rnn_infer(bp_call *call) { return forward_infer(call, &rnn_layout); }
static bp_status rnn_run(bp_call *call) { return forward_run(call, &rnn_layout, (bp_cell)call->args[ACTIVATION].as.i); }

static void rnn_gradient(bp_grad *g)
{
    const layout *l = &rnn_layout;
    bp_tensor *d[2], *from[5] = { g->dout[0], g->dout[1], g->out[0], g->in[U], lengths_of(g, l) };
    if (!first_order(g)) return;
    bp_g_all(g, l->grad, 2, g->args, 5, from, d);
    finish(g, l, d);
}

static bp_status rnn_grad_infer(bp_call *call) { return grad_infer(call, RG_DY, RG_DH, -1, RG_Y, false, RG_U, -1, RG_LENGTHS); }

static bp_status rnn_grad_run(bp_call *call)
{
    bp_recurrent s = backward_of(call, (bp_cell)call->args[ACTIVATION].as.i, 1, RG_Y, false, RG_U);
    s.dy = in(call, RG_DY), s.dh_n = in(call, RG_DH), s.y = values(call, RG_Y), s.dh0 = out(call, 1);
    return run(call, &s, true, call->in[RG_LENGTHS]);
}

#define ACTIVATION_OPTION                                                                                              \
    { .name = "activation", .kind = BP_OPT_CHOICE, .def = BP_CELL_TANH, .min = 0, .max = 1, .choices = activations,    \
      .help = "of the new state; others are had from nn.rnn_cell" }

const bp_op bp__op_rnn = {
    .name = "rnn",
    .group = "sequences",
    .summary = "simple recurrent layer over a whole sequence",
    .detail = "h' = activation(x w + h u + b)  (Elman, \"Finding structure in time\", 1990)\n"
              STEPS_TEXT "Its gradient has no gradient: nn.rnn_cell, made of small ops, has.",
    .inputs = (const bp_input[]){ INPUTS(""), H0_INPUT, LENGTHS_INPUT, { 0 } },
    .options = (const bp_option[]){ REVERSE_OPTION, ACTIVATION_OPTION, { 0 } },
    .n_out = 3,
    .n_kept = 1,
    .outputs = "y: [batch][time][units] the states; h_n: [batch][units] the last one; states before each step: kept for the gradient",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << X | 1 << W | 1 << U | 1 << 5,
    .needs_out = 1 | 1 << 2,
    .infer = rnn_infer,
    .run = rnn_run,
    .gradient = rnn_gradient,
    .cases = (const bp_case[]){ { "2x3x2 2x3 3x3 3 2x3 i64:2<4", "", 0, 0, 0 },
                                { "3x4x2 2x2 2x2 2 - i64:3<5", "reverse=1", 0, 0, 0 },
                                { "2x3x2' 2x2' 2x2'", "", 0, 0, 0 },
                                { "2x2x2 2x3 3x3 3 2x3", "activation=relu", 0.1, 1, 0 },
                                { "2x0x2 2x2 2x2 2 2x2", "", 0, 0, 0 },
                                { "0x3x2 2x2 2x2 2", "", 0, 0, 0 },
                                { 0 } },
};

const bp_op bp__op_rnn_grad = {
    .name = "rnn_grad",
    .group = "sequences",
    .summary = "gradient of rnn as far as it runs through time",
    .detail = "dz is the gradient of x w + h u + b; the gradients of x, w, u and b are products of it.",
    .inputs = (const bp_input[]){ IN_GRAD("dy", "[batch][time][units]"), IN_GRAD("dh_n", "[batch][units]"), { "y", 0, "of rnn" },
                                  { "u", 0, "[units][units]" }, LENGTHS_INPUT, { 0 } },
    .options = (const bp_option[]){ REVERSE_OPTION, ACTIVATION_OPTION, { 0 } },
    .n_out = 2,
    .outputs = "dz: [batch][time][units]; dh0: [batch][units]",
    .flags = BP_OP_INTERNAL | BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_FLOAT,
    .infer = rnn_grad_infer,
    .run = rnn_grad_run,
};
