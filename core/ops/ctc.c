/* ctc.c - connectionist temporal classification: the loss of a label sequence under frame by frame scores, summed over all alignments. The
 * sums are in kernels/ctc.c; here a batch is checked and cut into sequences. */
#include "../base/memory.h"
#include "../base/pool.h"
#include "element.h"
#include "op.h"
#include "product.h"

#include <math.h>
#include <string.h>

enum { LOGITS, LABELS, TIMES, LENGTHS, DLOSS }; /* inputs */
enum { BLANK, ZERO_INFINITY };                  /* options */

typedef struct job {
    bp_ctx *ctx;
    const bp_kernels *kernels;
    bp_dtype dtype;
    int64_t batch, time, classes, most, blank, size; /* most: width of labels */
    bool zero_infinity;
    const char *logits, *dloss;
    char *out;      /* [batch] losses, or [batch][time][classes] */
    int64_t *label; /* [batch][most] counted from 0 */
    int64_t *times, *lengths;
    char *scratch;
    size_t scratch_bytes;
} job;

/* ---- checking ---- */

static bp_status check_lengths(bp_call *call, int i)
{
    const bp_tensor *t = call->in[i];
    char text[200];
    if (!t) return BP_OK;
    if (bp_is_float(t->m.dtype) || t->m.ndim != 1 || t->m.shape[0] != call->in[LOGITS]->m.shape[0])
        return bp_op_fail(call, BP_EINVAL, "'%s' is %s %s; one whole number per sequence is expected: [%lld]", call->op->inputs[i].name,
                          bp_dtype_name(t->m.dtype), bp_shape_text(t->m.ndim, t->m.shape, text), (long long)call->in[LOGITS]->m.shape[0]);
    return BP_OK;
}

/* blank counted from 0 */
static bp_status find_blank(bp_call *call, int64_t *blank)
{
    const int64_t classes = call->in[LOGITS]->m.shape[2], base = call->ctx->base, given = call->args[BLANK].as.i;
    *blank = given < 0 ? given + classes : given;
    if (*blank >= 0 && *blank < classes) return BP_OK;
    return bp_op_fail(call, BP_EINVAL, "blank is %lld; logits for %lld classes: %lld..%lld, or negative from the end",
                      (long long)(given < 0 ? given : given + base), (long long)classes, (long long)base, (long long)(classes - 1 + base));
}

static bp_status check(bp_call *call)
{
    int64_t blank;
    char t[200], tl[200];
    BP_TRY(bp_need_ndim(call, LOGITS, 3, "[batch][time][classes]"));
    const bp_meta *x = &call->in[LOGITS]->m, *l = &call->in[LABELS]->m;
    if (l->ndim != 2 || l->shape[0] != x->shape[0])
        return bp_op_fail(call, BP_EINVAL,
                          "logits are %s and labels %s; labels [%lld][longest] are expected: a row of class numbers for each "
                          "sequence",
                          bp_shape_text(x->ndim, x->shape, t), bp_shape_text(l->ndim, l->shape, tl), (long long)x->shape[0]);
    BP_TRY(check_lengths(call, TIMES));
    BP_TRY(check_lengths(call, LENGTHS));
    return find_blank(call, &blank);
}

static bp_status ctc_infer(bp_call *call)
{
    BP_TRY(check(call));
    bp_out(call, 0, call->in[LOGITS]->m.dtype, 1, call->in[LOGITS]->m.shape);
    return BP_OK;
}

static bp_status ctc_grad_infer(bp_call *call)
{
    BP_TRY(check(call));
    BP_TRY(bp_need_shape(call, DLOSS, 1, call->in[LOGITS]->m.shape));
    return bp_infer_same(call);
}

static bp_status read_lengths(bp_call *call, int i, int64_t most, const char *axis, int64_t *dst)
{
    const int64_t n = call->in[LOGITS]->m.shape[0];
    if (!call->in[i]) return BP_OK;
    bp_integer_values(call->in[i], dst);
    for (int64_t b = 0; b < n; b++)
        if (dst[b] < 0 || dst[b] > most)
            return bp_op_fail(call, BP_EINVAL, "'%s' of sequence %lld is %lld; 0..%lld is expected, %s", call->op->inputs[i].name,
                              (long long)(b + call->ctx->base), (long long)dst[b], (long long)most, axis);
    return BP_OK;
}

/* Classes of sequence b counted from 0, and how many when label_lengths does not say: up to the first blank or number below the first
 * class. */
static bp_status read_label(bp_call *call, const job *j, int64_t b)
{
    const int64_t base = call->ctx->base;
    int64_t *label = j->label + b * j->most, n = call->in[LENGTHS] ? j->lengths[b] : j->most;
    for (int64_t k = 0; k < n; k++) {
        if (!call->in[LENGTHS] && (label[k] < base || label[k] - base == j->blank))
            n = k;
        else if (label[k] < base || label[k] - base >= j->classes || label[k] - base == j->blank)
            return bp_op_fail(call, BP_EINVAL,
                              "label %lld of sequence %lld is %lld; a class %lld..%lld other than the blank (%lld) is expected",
                              (long long)(k + base), (long long)(b + base), (long long)label[k], (long long)base,
                              (long long)(j->classes - 1 + base), (long long)(j->blank + base));
        else
            label[k] -= base;
    }
    j->lengths[b] = n;
    int64_t least = n;
    for (int64_t k = 1; k < n; k++) least += label[k] == label[k - 1];
    if (least <= j->times[b] || call->args[ZERO_INFINITY].as.i) return BP_OK;
    return bp_op_fail(call, BP_EINVAL,
                      "sequence %lld has %lld frames for %lld labels, which need at least %lld (a blank goes between two that "
                      "are equal); leave it out, or give zero_infinity = true to have such sequences count nothing",
                      (long long)(b + base), (long long)j->times[b], (long long)n, (long long)least);
}

static bp_status start(bp_call *call, job *j, bool gradient)
{
    const bp_meta *x = &call->in[LOGITS]->m;
    memset(j, 0, sizeof *j);
    j->ctx = call->ctx;
    j->dtype = x->dtype;
    j->kernels = bp_kernels_of(call->ctx, x->dtype);
    j->batch = x->shape[0];
    j->time = x->shape[1];
    j->classes = x->shape[2];
    j->most = call->in[LABELS]->m.shape[1];
    j->size = (int64_t)bp_dtype_size(x->dtype);
    j->logits = bp_data(call->in[LOGITS]);
    j->out = bp_data(call->out[0]);
    j->zero_infinity = call->args[ZERO_INFINITY].as.i != 0;
    BP_TRY(find_blank(call, &j->blank));
    j->scratch_bytes = bp__lines(j->kernels->ctc_scratch(j->time, j->classes, j->most, gradient));
    const size_t labels = bp__lines((size_t)(j->batch * (j->most + 2)) * sizeof(int64_t));
    char *p = (char *)bp__scratch(call->ctx, labels + j->scratch_bytes * (size_t)bp_threads(call->ctx) + 64);
    if (!p) return BP_ENOMEM;
    j->label = (int64_t *)(void *)p;
    j->times = j->label + j->batch * j->most;
    j->lengths = j->times + j->batch;
    j->scratch = p + labels;
    for (int64_t b = 0; b < j->batch; b++) j->times[b] = j->time;
    bp_integer_values(call->in[LABELS], j->label);
    BP_TRY(read_lengths(call, TIMES, j->time, "the frames there are", j->times));
    BP_TRY(read_lengths(call, LENGTHS, j->most, "the width of the labels", j->lengths));
    for (int64_t b = 0; b < j->batch; b++) BP_TRY(read_label(call, j, b));
    return BP_OK;
}

/* ---- ctc ---- */

static double one(const job *j, int64_t b, double dloss, void *dx, int worker)
{
    return j->kernels->ctc(j->times[b], j->classes, j->lengths[b], j->logits + b * j->time * j->classes * j->size, j->label + b * j->most,
                           j->blank, dloss, dx, j->scratch + (size_t)worker * j->scratch_bytes);
}

static void ctc_chunk(void *arg, int64_t b, int worker)
{
    const job *j = (const job *)arg;
    const double loss = one(j, b, 0, NULL, worker);
    bp_element_set(j->dtype, j->out, b, loss == (double)INFINITY && j->zero_infinity ? 0 : loss);
}

static bp_status ctc_run(bp_call *call)
{
    job j;
    BP_TRY(start(call, &j, false));
    bp_parallel(call->ctx, j.batch, ctc_chunk, &j);
    return BP_OK;
}

static void ctc_gradient(bp_grad *g)
{
    bp_grad_set(g, LOGITS,
                bp_g(g, &bp__op_ctc_grad, 2, g->args, 5, g->in[LOGITS], g->in[LABELS], g->in[TIMES], g->in[LENGTHS], g->dout[0]));
}

/* ---- ctc_grad ---- */

static void ctc_grad_chunk(void *arg, int64_t b, int worker)
{
    const job *j = (const job *)arg;
    const int64_t row = j->classes * j->size;
    char *const dx = j->out + b * j->time * row;
    const double loss = one(j, b, bp_element(j->dtype, j->dloss, b), dx, worker);
    const int64_t done = loss == (double)INFINITY ? 0 : j->times[b];
    memset(dx + done * row, 0, (size_t)((j->time - done) * row));
}

static bp_status ctc_grad_run(bp_call *call)
{
    job j;
    BP_TRY(start(call, &j, true));
    j.dloss = bp_data(call->in[DLOSS]);
    bp_parallel(call->ctx, j.batch, ctc_grad_chunk, &j);
    return BP_OK;
}

/* Linear in dloss; with respect to the logits it would need the sums over pairs of states. */
static void ctc_grad_gradient(bp_grad *g)
{
    bp_tensor *dloss = g->in[DLOSS];
    if (g->want[LOGITS]) {
        g->status = bp_fail(g->ctx, BP_ESTATE, "ctc_grad: has no gradient by the logits: the ctc loss can be differentiated once");
        return;
    }
    if (!g->want[DLOSS]) return;
    const int64_t last[2] = { 1, 2 };
    bp_arg ones[3] = { bp_list(1, dloss->m.shape), bp_float(1), bp_int(dloss->m.dtype) }, axes[2] = { bp_list(2, last), bp_int(0) };
    bp_tensor *each = bp_g(g, &bp__op_ctc_grad, 2, g->args, 5, g->in[LOGITS], g->in[LABELS], g->in[TIMES], g->in[LENGTHS],
                           bp_g(g, &bp__op_full, 3, ones, 0));
    bp_grad_set(g, DLOSS, bp_g(g, &bp__op_sum, 2, axes, 1, G2(g, mul, g->dout[0], each)));
}

/* ---- rows ---- */

#define CTC_INPUTS                                                                                                                   \
    { "logits", 0, "[batch][time][classes] scores of every frame; the softmax is part of the loss" },                                \
        { "labels", BP_IN_INDEX, "[batch][longest] class numbers without blanks; what lies beyond a label's length does not matter" }, \
        { "input_lengths", BP_IN_OPTIONAL | BP_IN_RAW, "[batch] frames of each sequence; all of them when left out" },               \
    {                                                                                                                                \
        "label_lengths", BP_IN_OPTIONAL | BP_IN_RAW,                                                                                 \
            "[batch] classes of each label; when left out a label ends before the first blank, or number below the first class"     \
    }

static const bp_option ctc_options[] = {
    { .name = "blank", .kind = BP_OPT_INDEX, .def = 0, .min = 1, .max = 0, .help = "class that stands for nothing; the first, "
        "or -1 for the last" },
    { .name = "zero_infinity",
      .kind = BP_OPT_BOOL,
      .def = 0,
      .min = 0,
      .max = 1,
      .help = "a sequence too short for its label gives loss 0 and no gradient instead of an error" },
    { 0 },
};

const bp_op bp__op_ctc = {
    .name = "ctc",
    .group = "losses",
    .summary = "connectionist temporal classification: the loss of a label sequence whose place in time is not known",
    .detail = "loss = -log of the sum, over all ways to write the label with repeated classes and blanks in the frames there "
        "are, of the product "
              "of the frames' probabilities.\n"
              "Graves et al., \"Connectionist temporal classification\", 2006. The sums run forward and backward in time on "
                  "logarithms. PyTorch's "
              "ctc_loss takes log probabilities [time][batch][classes] and divides each loss by the label's length under its "
                  "mean; Keras' divides "
              "nothing, and neither does this. Blank is the first class, as in both.",
    .inputs = (const bp_input[]){ CTC_INPUTS, { 0 } },
    .options = ctc_options,
    .n_out = 1,
    .outputs = "loss: [batch]",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << LOGITS | 1 << LABELS | 1 << TIMES | 1 << LENGTHS,
    .infer = ctc_infer,
    .run = ctc_run,
    .gradient = ctc_gradient,
    .cases =
        (const bp_case[]){
            { "2x5x4 i64:2x2<4", "", 0, 0, 0 },
            { "3x7x3' i32:3x3<3", "", 0, 0, 0 },
            { "2x6x4 i64:2x2<3 - i64:2<3", "blank=3", 0, 0, 0 },
            { "3x4x3 i64:3x2<2 i64:3<5 -", "blank=-1 zero_infinity=true", 0, 0, 0 },
            { "1x1x2 i64:1x0", "", 0, 0, 0 },
            { "0x3x2 i64:0x1", "", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_ctc_grad = {
    .name = "ctc_grad",
    .group = "losses",
    .summary = "gradient of ctc with respect to its logits",
    .detail = "dx = dloss * (softmax(x) - the probability that an alignment of the label passes each class in each frame)",
    .inputs = (const bp_input[]){ CTC_INPUTS, { "dloss", 0, "[batch]" }, { 0 } },
    .options = ctc_options,
    .n_out = 1,
    .outputs = "dx: [batch][time][classes]",
    .flags = BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << LOGITS | 1 << LABELS | 1 << TIMES | 1 << LENGTHS | 1 << DLOSS,
    .infer = ctc_grad_infer,
    .run = ctc_grad_run,
    .gradient = ctc_grad_gradient,
    .cases =
        (const bp_case[]){
            { "f32:2x5x4 i64:2x2<4 - - 2", "", 0, 0, 0 },
            { "f32:1x3x4' i64:1x1<4 - - 1", "blank=3", 0, 0, 0 },
            { "f32:3x4x3 i64:3x2<2 i64:3<5 - 3", "blank=-1 zero_infinity=true", 0, 0, 0 },
            { 0 },
        },
};
