/* loss.c - cross-entropies, from logits and per example. Means, sums and weights are left to the caller's ops. */
#include "../base/memory.h"
#include "../base/pool.h"
#include "element.h"
#include "op.h"
#include "product.h"

#include <string.h>

enum { LOGITS, TARGETS };   /* inputs */
enum { SMOOTHING, IGNORE }; /* options of cross_entropy */

/* Rows of the last dimension, cut into chunks of about a grain; scratch of `per_row` elements per row of a chunk for every worker. */
typedef struct job {
    const bp_kernels *kernels;
    bp_dtype dtype;
    int64_t rows, n, chunk, size;
    const char *x, *t, *dloss; /* logits, targets, gradient of the loss */
    const int64_t *label;      /* [rows] counted from 0; -1: ignored */
    char *out;
    double smoothing, pos_weight;
    char *scratch;
    size_t scratch_bytes;
} job;

static int64_t rows_in(const job *j, int64_t chunk) { return (chunk + 1) * j->chunk < j->rows ? j->chunk : j->rows - chunk * j->chunk; }
static char *scratch_of(const job *j, int worker) { return j->scratch + (size_t)worker * j->scratch_bytes; }

/* `extra` bytes of scratch that all share come first and are returned. */
static bp_status start(bp_call *call, job *j, int64_t rows, int64_t n, int64_t per_row, size_t extra, void **shared)
{
    memset(j, 0, sizeof *j);
    j->dtype = call->out[0]->m.dtype;
    j->kernels = bp_kernels_of(call->ctx, j->dtype);
    j->size = (int64_t)bp_dtype_size(j->dtype);
    j->rows = rows;
    j->n = n;
    j->chunk = n > 0 && n < BP_MEMORY_GRAIN / 4 ? BP_MEMORY_GRAIN / 4 / n : 1;
    if (j->chunk > rows) j->chunk = rows > 0 ? rows : 1;
    j->x = bp_data(call->in[LOGITS]);
    j->out = bp_data(call->out[0]);
    j->scratch_bytes = bp__lines((size_t)(j->chunk * per_row * j->size));
    char *p = (char *)bp__scratch(call->ctx, bp__lines(extra) + j->scratch_bytes * (size_t)bp_threads(call->ctx) + 64);
    if (!p) return BP_ENOMEM;
    *shared = p;
    j->scratch = p + bp__lines(extra);
    return BP_OK;
}

static void over_rows(bp_ctx *ctx, job *j, bp_chunk_fn *fn) { bp_parallel(ctx, bp_chunks(j->rows, j->chunk), fn, j); }

/* ---- cross_entropy: labels ---- */

/* labels has the shape of logits without its last dimension. */
static bp_status check_labels(bp_call *call)
{
    const bp_meta *x = &call->in[LOGITS]->m, *t = &call->in[TARGETS]->m;
    char tx[200], tt[200];
    if (x->ndim > 0 && x->shape[x->ndim - 1] > 0 && bp_shape_equal(t->ndim, t->shape, x->ndim - 1, x->shape)) return BP_OK;
    return bp_op_fail(
        call, BP_EINVAL,
        "logits are %s and labels %s; logits [..][classes] need labels [..], one class number each; drop a last dimension of 1 "
        "with squeeze, or use soft_cross_entropy for rows of probabilities",
        bp_shape_text(x->ndim, x->shape, tx), bp_shape_text(t->ndim, t->shape, tt));
}

static int64_t classes_of(const bp_call *call) { return call->in[LOGITS]->m.shape[call->in[LOGITS]->m.ndim - 1]; }

/* Labels counted from 0 in label[rows]; ignored ones become -1. */
static bp_status read_labels(bp_call *call, int64_t *label)
{
    const bp_tensor *t = call->in[TARGETS];
    const int64_t base = call->ctx->base, classes = classes_of(call), ignore = call->args[IGNORE].as.i;
    bp_integer_values(t, label);
    for (int64_t i = 0, rows = bp_count(t); i < rows; i++) {
        if (label[i] == ignore)
            label[i] = -1;
        else if (label[i] >= base && label[i] - base < classes)
            label[i] -= base;
        else
            return bp_op_fail(call, BP_EINVAL,
                              "label %lld in row %lld lies outside %lld..%lld: logits for %lld classes; labels count from %lld, so %s",
                              (long long)label[i], (long long)(i + base), (long long)base, (long long)(classes - 1 + base),
                              (long long)classes, (long long)base,
                              label[i] >= base ? "the last layer needs one output per class"
                              : base           ? "add 1 to labels counted from 0"
                                               : "a negative label names no class");
    }
    return BP_OK;
}

static bp_status cross_entropy_infer(bp_call *call)
{
    const bp_meta *x = &call->in[LOGITS]->m;
    BP_TRY(check_labels(call));
    bp_out(call, 0, x->dtype, x->ndim - 1, x->shape);
    return BP_OK;
}

/* The kernels take runs of rows that count: the first ignored row at or after i. */
static int64_t next_ignored(const job *j, int64_t i, int64_t last)
{
    while (i < last && j->label[i] >= 0) i++;
    return i;
}

/* With smoothing s the loss is (1-s) * (lse - x[label]) + s * (lse - mean(x)), and lse - mean(x) = -mean(log_softmax(x)). */
static void cross_entropy_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const bp_kernels *k = j->kernels;
    const int64_t first = chunk * j->chunk, rows = rows_in(j, chunk), last = first + rows, row = j->n * j->size;
    char *const loss = j->out + first * j->size;
    for (int64_t i = first, end; i < last; i = end + 1) {
        end = next_ignored(j, i, last);
        if (end > i) k->cross_entropy(end - i, j->n, j->x + i * row, j->label + i, j->out + i * j->size);
        if (end < last) bp_element_set(j->dtype, j->out, end, 0);
    }
    if (j->smoothing == 0) return;
    char *logs = scratch_of(j, worker), *sums = logs + rows * row;
    k->log_softmax(rows, j->n, j->x + first * row, logs);
    k->reduce_sum(rows, j->n, 1, 1, logs, sums);
    k->unary[BP_UNARY_scale](rows, loss, 1, loss, 1, 1 - j->smoothing);
    k->axpy(rows, -j->smoothing / (double)j->n, sums, loss);
    for (int64_t i = first; i < last; i++)
        if (j->label[i] < 0) bp_element_set(j->dtype, j->out, i, 0);
}

static bp_status cross_entropy_run(bp_call *call)
{
    const double smoothing = call->args[SMOOTHING].as.f;
    const int64_t rows = bp_count(call->in[TARGETS]), n = classes_of(call);
    job j;
    void *labels;
    BP_TRY(start(call, &j, rows, n, smoothing > 0 ? n + 1 : 0, (size_t)rows * sizeof(int64_t), &labels));
    BP_TRY(read_labels(call, (int64_t *)labels));
    j.label = (const int64_t *)labels;
    j.smoothing = smoothing;
    over_rows(call->ctx, &j, cross_entropy_chunk);
    return BP_OK;
}

static void cross_entropy_gradient(bp_grad *g)
{
    bp_grad_set(g, LOGITS, bp_g(g, &bp__op_cross_entropy_grad, 2, g->args, 3, g->in[LOGITS], g->in[TARGETS], g->dout[0]));
}

/* ---- cross_entropy_grad ---- */

enum { DLOSS = 2 };

static bp_status cross_entropy_grad_infer(bp_call *call)
{
    const bp_meta *x = &call->in[LOGITS]->m;
    BP_TRY(check_labels(call));
    BP_TRY(bp_need_shape(call, DLOSS, x->ndim - 1, x->shape));
    return bp_infer_same(call);
}

/* dx = dloss * (softmax(x) - (1-s) * onehot - s/n); the kernel leaves out s. */
static void cross_entropy_grad_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    const bp_kernels *k = j->kernels;
    const int64_t first = chunk * j->chunk, last = first + rows_in(j, chunk), row = j->n * j->size;
    for (int64_t i = first, end; i < last; i = end + 1) {
        end = next_ignored(j, i, last);
        if (end > i) k->cross_entropy_grad(end - i, j->n, j->x + i * row, j->label + i, j->dloss + i * j->size, j->out + i * row);
        if (end < last) memset(j->out + end * row, 0, (size_t)row);
    }
    for (int64_t i = first; i < last && j->smoothing > 0; i++) {
        if (j->label[i] < 0) continue;
        const double s = j->smoothing * bp_element(j->dtype, j->dloss, i);
        char *dx = j->out + i * row;
        double share;
        bp_element_set(j->dtype, &share, 0, -s / (double)j->n);
        k->binary[BP_BINARY_add](j->n, dx, 1, &share, 0, dx, 1, 0);
        bp_element_set(j->dtype, dx, j->label[i], bp_element(j->dtype, dx, j->label[i]) + s);
    }
}

static bp_status cross_entropy_grad_run(bp_call *call)
{
    const int64_t rows = bp_count(call->in[TARGETS]);
    job j;
    void *labels;
    BP_TRY(start(call, &j, rows, classes_of(call), 0, (size_t)rows * sizeof(int64_t), &labels));
    BP_TRY(read_labels(call, (int64_t *)labels));
    j.label = (const int64_t *)labels;
    j.dloss = bp_data(call->in[DLOSS]);
    j.smoothing = call->args[SMOOTHING].as.f;
    over_rows(call->ctx, &j, cross_entropy_grad_chunk);
    return BP_OK;
}

static bp_tensor *with_last_axis(bp_grad *g, bp_tensor *t)
{
    if (!t) return NULL;
    bp_arg axis = bp_int(t->m.ndim);
    return bp_g(g, &bp__op_unsqueeze, 1, &axis, 1, t);
}

static bp_tensor *sum_last(bp_grad *g, bp_tensor *t, bool keep)
{
    const int64_t last = -1;
    bp_arg args[2] = { bp_list(1, &last), bp_int(keep) };
    return bp_g(g, &bp__op_sum, 2, args, 1, t);
}

/* dx_i = dloss_i * (p_i - target_i), so with the gradient e of dx: d(dloss) = sum(e * (p - target)), d(logits) = dloss * p * (e - sum(e *
 * p)). Ignored rows give nothing. */
static void cross_entropy_grad_gradient(bp_grad *g)
{
    bp_tensor *x = g->in[LOGITS], *labels = g->in[TARGETS], *dloss = g->in[DLOSS], *e = g->dout[0];
    if (g->want[DLOSS]) {
        bp_arg ones[3] = { bp_list(dloss->m.ndim, dloss->m.shape), bp_float(1), bp_int(dloss->m.dtype) };
        bp_tensor *residual = bp_g(g, &bp__op_cross_entropy_grad, 2, g->args, 3, x, labels, bp_g(g, &bp__op_full, 3, ones, 0));
        bp_grad_set(g, DLOSS, sum_last(g, G2(g, mul, e, residual), false));
    }
    if (g->want[LOGITS]) {
        bp_arg i64 = bp_int(BP_I64);
        bp_tensor *number = bp_g(g, &bp__op_cast, 1, &i64, 1, labels);
        bp_tensor *counts = number ? G2(g, ne, number, bp_g_number(g, number, (double)g->args[IGNORE].as.i)) : NULL;
        bp_tensor *weight = with_last_axis(g, G3(g, where, counts, dloss, bp_g_number(g, dloss, 0)));
        bp_grad_set(g, LOGITS, G2(g, softmax_grad, G2(g, mul, e, weight), G1(g, softmax, x)));
    }
}

/* ---- soft_cross_entropy: rows of probabilities ---- */

static bp_status check_targets(bp_call *call)
{
    const bp_meta *x = &call->in[LOGITS]->m, *t = &call->in[TARGETS]->m;
    char tx[200], tt[200];
    if (bp_shape_equal(t->ndim, t->shape, x->ndim, x->shape)) return BP_OK;
    return bp_op_fail(call, BP_EINVAL,
                      "logits are %s and targets %s; they must have the same shape; reshape one of them (nothing is broadcast here, "
                      "because that hides mistakes)",
                      bp_shape_text(x->ndim, x->shape, tx), bp_shape_text(t->ndim, t->shape, tt));
}

static bp_status soft_cross_entropy_infer(bp_call *call)
{
    const bp_meta *x = &call->in[LOGITS]->m;
    BP_TRY(check_targets(call));
    if (x->ndim == 0) return bp_op_fail(call, BP_EINVAL, "logits are a single number; [..][classes] is expected");
    bp_out(call, 0, x->dtype, x->ndim - 1, x->shape);
    return BP_OK;
}

static void soft_cross_entropy_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const bp_kernels *k = j->kernels;
    const int64_t first = chunk * j->chunk, rows = rows_in(j, chunk), count = rows * j->n;
    char *logs = scratch_of(j, worker), *loss = j->out + first * j->size;
    k->log_softmax(rows, j->n, j->x + first * j->n * j->size, logs);
    k->binary[BP_BINARY_mul](count, logs, 1, j->t + first * j->n * j->size, 1, logs, 1, 0);
    k->reduce_sum(rows, j->n, 1, 1, logs, loss);
    k->unary[BP_UNARY_neg](rows, loss, 1, loss, 1, 0);
}

static bp_status soft_cross_entropy_run(bp_call *call)
{
    const int64_t n = classes_of(call);
    job j;
    void *shared;
    BP_TRY(start(call, &j, bp_count(call->out[0]), n, n, 0, &shared));
    j.t = bp_data(call->in[TARGETS]);
    over_rows(call->ctx, &j, soft_cross_entropy_chunk);
    return BP_OK;
}

/* dlogits = dloss * (softmax(x) * sum(t) - t);  dtargets = -dloss * log_softmax(x) */
static void soft_cross_entropy_gradient(bp_grad *g)
{
    bp_tensor *x = g->in[LOGITS], *t = g->in[TARGETS], *dloss = with_last_axis(g, g->dout[0]);
    if (g->want[LOGITS]) bp_grad_set(g, LOGITS, G2(g, mul, dloss, G2(g, sub, G2(g, mul, G1(g, softmax, x), sum_last(g, t, true)), t)));
    if (g->want[TARGETS]) bp_grad_set(g, TARGETS, G1(g, neg, G2(g, mul, dloss, G1(g, log_softmax, x))));
}

/* ---- binary_cross_entropy ---- */

static bp_status binary_infer(bp_call *call)
{
    BP_TRY(check_targets(call));
    return bp_infer_same(call);
}

/* (1-t)*x + (1 + (w-1)*t) * softplus(-x), as x - t*x + s + (w-1)*t*s with s = softplus(-x): never the exponential of a large number. */
static void binary_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const bp_kernels *k = j->kernels;
    const int64_t first = chunk * j->chunk * j->size, n = rows_in(j, chunk);
    const char *x = j->x + first, *t = j->t + first;
    char *y = j->out + first, *s = scratch_of(j, worker), *product = s + n * j->size;
    k->unary[BP_UNARY_neg](n, x, 1, s, 1, 0);
    k->unary[BP_UNARY_softplus](n, s, 1, s, 1, 0);
    k->binary[BP_BINARY_mul](n, t, 1, x, 1, product, 1, 0);
    k->binary[BP_BINARY_sub](n, x, 1, product, 1, y, 1, 0);
    k->binary[BP_BINARY_add](n, y, 1, s, 1, y, 1, 0);
    if (j->pos_weight == 1) return;
    k->binary[BP_BINARY_mul](n, t, 1, s, 1, product, 1, 0);
    k->axpy(n, j->pos_weight - 1, product, y);
}

static bp_status binary_run(bp_call *call)
{
    job j;
    void *shared;
    BP_TRY(start(call, &j, bp_count(call->out[0]), 1, 2, 0, &shared)); /* every element a row of its own */
    j.t = bp_data(call->in[TARGETS]);
    j.pos_weight = call->args[0].as.f;
    over_rows(call->ctx, &j, binary_chunk);
    return BP_OK;
}

/* dx = dloss * ((1 + (w-1)*t) * sigmoid(x) - w*t);  dt = dloss * ((w-1) * softplus(-x) - x) */
static void binary_gradient(bp_grad *g)
{
    bp_tensor *x = g->in[LOGITS], *t = g->in[TARGETS], *dloss = g->dout[0];
    const double w = g->args[0].as.f;
    if (g->want[LOGITS]) {
        bp_tensor *p = G1(g, sigmoid, x), *one = t;
        if (w != 1) {
            p = G2(g, mul, p, G2(g, add, G2(g, mul, t, bp_g_number(g, t, w - 1)), bp_g_number(g, t, 1)));
            one = G2(g, mul, t, bp_g_number(g, t, w));
        }
        bp_grad_set(g, LOGITS, G2(g, mul, dloss, G2(g, sub, p, one)));
    }
    if (g->want[TARGETS]) {
        bp_tensor *d = G1(g, neg, x);
        if (w != 1) d = G2(g, add, d, G2(g, mul, G1(g, softplus, d), bp_g_number(g, d, w - 1)));
        bp_grad_set(g, TARGETS, G2(g, mul, dloss, d));
    }
}

/* ---- rows ---- */

static const bp_option label_options[] = {
    { .name = "label_smoothing",
      .kind = BP_OPT_FLOAT,
      .def = 0,
      .min = 0,
      .max = 1,
      .help = "share of the target that is spread evenly over all classes (Szegedy et al., 2016)" },
    { .name = "ignore",
      .kind = BP_OPT_INT,
      .def = -100,
      .min = 1,
      .max = 0,
      .help = "rows with this label give loss 0 and no gradient; divide by the number of the others yourself" },
    { 0 },
};

const bp_op bp__op_cross_entropy = {
    .name = "cross_entropy",
    .group = "losses",
    .summary = "cross-entropy of class labels against logits, one loss per row",
    .detail =
        "loss = log(sum over j of exp(x[j])) - x[label]\n"
        "Takes logits: the softmax is part of the loss, so the last layer has no activation. With label smoothing s the target is (1-s) "
        "for the "
        "label plus s / classes for every class. What PyTorch calls cross_entropy and Keras sparse_categorical_crossentropy (from_logits "
        "= true).",
    .inputs =
        (const bp_input[]){
            { "logits", 0, "[..][classes]" },
            { "labels", BP_IN_INDEX, "[..] class numbers" },
            { 0 },
        },
    .options = label_options,
    .n_out = 1,
    .outputs = "loss: [..]",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << LOGITS | 1 << TARGETS,
    .infer = cross_entropy_infer,
    .run = cross_entropy_run,
    .gradient = cross_entropy_gradient,
    .cases =
        (const bp_case[]){
            { "4x5 i64:4<5", "", 0, 0, 0 },
            { "1x1 i64:1<1", "", 0, 0, 0 },
            { "3 i64:s<3", "", 0, 0, 0 },
            { "2x3x4' i64:2x3<4", "label_smoothing=0.1", 0, 0, 0 },
            { "6x3 u8:6<3", "ignore=1 label_smoothing=0.2", 0, 0, 0 },
            { "0x3 i64:0<3", "", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_cross_entropy_grad = {
    .name = "cross_entropy_grad",
    .group = "losses",
    .summary = "gradient of cross_entropy with respect to its logits",
    .detail = "dx = dloss * (softmax(x) - target)",
    .inputs =
        (const bp_input[]){
            { "logits", 0, "[..][classes]" },
            { "labels", BP_IN_INDEX, "[..] class numbers" },
            { "dloss", 0, "[..]" },
            { 0 },
        },
    .options = label_options,
    .n_out = 1,
    .outputs = "dx: [..][classes]",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << LOGITS | 1 << TARGETS | 1 << DLOSS,
    .infer = cross_entropy_grad_infer,
    .run = cross_entropy_grad_run,
    .gradient = cross_entropy_grad_gradient,
    .cases =
        (const bp_case[]){
            { "4x5 i64:4<5 4", "", 0, 0, 0 },
            { "1x1 i64:1<1 1", "", 0, 0, 0 },
            { "2x3x4' i64:2x3<4 2x3", "label_smoothing=0.1", 0, 0, 0 },
            { "6x3 u8:6<3 6", "ignore=1 label_smoothing=0.2", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_soft_cross_entropy = {
    .name = "soft_cross_entropy",
    .group = "losses",
    .summary = "cross-entropy of rows of probabilities against logits, one loss per row",
    .detail =
        "loss = -sum over j of target[j] * log_softmax(x)[j]\n"
        "Targets are one-hot rows, or any probabilities (they need not sum to 1). Keras' categorical_crossentropy (from_logits = true).",
    .inputs =
        (const bp_input[]){
            { "logits", 0, "[..][classes]" },
            { "targets", 0, "[..][classes] probabilities" },
            { 0 },
        },
    .n_out = 1,
    .outputs = "loss: [..]",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << LOGITS | 1 << TARGETS,
    .infer = soft_cross_entropy_infer,
    .run = soft_cross_entropy_run,
    .gradient = soft_cross_entropy_gradient,
    .cases =
        (const bp_case[]){
            { "4x5 4x5", "", 0, 0, 0 },
            { "1x1 1x1", "", 0, 0, 0 },
            { "2x3x4' 2x3x4", "", 0, 0, 0 },
            { "3 3'", "", 0, 0, 0 },
            { "0x3 0x3", "", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_binary_cross_entropy = {
    .name = "binary_cross_entropy",
    .group = "losses",
    .summary = "cross-entropy of yes-or-no targets against logits, one loss per element",
    .detail =
        "loss = (1 - t) * x + (1 + (pos_weight - 1) * t) * log(1 + exp(-x)), which is -t * log(p) - (1 - t) * log(1 - p) with p = "
        "sigmoid(x) for "
        "pos_weight 1\nTakes logits: the sigmoid is part of the loss, and large logits of either sign lose no digits. Logits and targets "
        "must have the "
        "same shape.",
    .inputs =
        (const bp_input[]){
            { "logits", 0, "[..]" },
            { "targets", 0, "[..] 0, 1 or a probability between" },
            { 0 },
        },
    .options =
        (const bp_option[]){
            { .name = "pos_weight",
              .kind = BP_OPT_FLOAT,
              .def = 1,
              .min = 0,
              .max = 1e300,
              .help = "weight of the positive targets: above 1 where they are rare" },
            { 0 },
        },
    .n_out = 1,
    .outputs = "loss: [..]",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << LOGITS | 1 << TARGETS,
    .infer = binary_infer,
    .run = binary_run,
    .gradient = binary_gradient,
    .cases =
        (const bp_case[]){
            { "4x3 4x3", "", 0, 0, 0 },
            { "1 1", "", 0, 0, 0 },
            { "s s", "pos_weight=3", 0, 0, 0 },
            { "2x3x4' 2x3x4", "pos_weight=0.5", 0, 0, 0 },
            { "0 0", "", 0, 0, 0 },
            { 0 },
        },
};
