/* batch_norm.c - normalising every channel of a batch (Ioffe and Szegedy, "Batch Normalization", 2015).
 *
 * The last dimension holds the channels, all others count as rows. Rows are cut into blocks by shape; each block yields mean and sum of
 * squared distances, and the blocks are joined in order by Chan, Golub and LeVeque's formula ("Updating formulae and a pairwise algorithm
 * for computing sample variances", 1979), in f64. So nothing cancels where the mean is far from zero. */
#include "batch_norm.h"

#include "../base/memory.h"
#include "../base/pool.h"
#include "element.h"
#include "product.h"

#include <math.h>
#include <string.h>

static double get(const bp_tensor *t, int64_t i) { return bp_element(t->m.dtype, bp_data(t), i); }

/* ---- blocks of rows ---- */

typedef struct job {
    const bp_kernels *kernels;
    int64_t rows, c, block, size; /* rows in all, channels, rows of a block, bytes of an element */
    const char *x, *dy;
    const char *addend, *y; /* NULL: none */
    char *out, *dz;
    const void *mean;
    bp_act act;
    bool masked;            /* relu came after: the way back takes dy where the normalised value is positive */
    double *first, *second; /* [blocks][c]: mean and squares, or sum and dot */
    char *coefficients;     /* [4][c] of the dtype */
    char *scratch;
    size_t scratch_bytes;
} job;

/* Scratch: per block two sums of every channel, four coefficients of every channel, and room for each worker. */
static bp_status start(bp_call *call, job *j)
{
    const bp_tensor *x = call->in[X];
    bp_dtype dtype = x->m.dtype;
    memset(j, 0, sizeof *j);
    j->c = x->m.shape[x->m.ndim - 1];
    j->rows = bp_count(x) / (j->c > 0 ? j->c : 1);
    j->size = (int64_t)bp_dtype_size(dtype);
    j->block = BP_MEMORY_GRAIN / (j->c > 0 ? j->c : 1) + 1;
    j->kernels = bp_kernels_of(call->ctx, dtype);
    int64_t blocks = bp_chunks(j->rows, j->block);
    size_t sums = bp__lines((size_t)(blocks * j->c) * sizeof(double)), coefficients = bp__lines((size_t)(j->c * j->size));
    j->scratch_bytes = bp__lines(j->kernels->batch_norm_scratch(j->c > 0 ? j->c : 1));
    char *p = (char *)bp__scratch(call->ctx, 2 * sums + 4 * coefficients + j->scratch_bytes * (size_t)bp_threads(call->ctx) + 64);
    if (!p) return BP_ENOMEM;
    j->first = (double *)(void *)p;
    j->second = (double *)(void *)(p + sums);
    j->coefficients = p + 2 * sums;
    j->scratch = p + 2 * sums + 4 * coefficients;
    return BP_OK;
}

static char *coefficient(const job *j, int i) { return j->coefficients + (size_t)i * bp__lines((size_t)(j->c * j->size)); }
static const void *shift_if_masked(const job *j) { return j->masked ? coefficient(j, 3) : NULL; }
static int64_t rows_in(const job *j, int64_t block) { return (block + 1) * j->block < j->rows ? j->block : j->rows - block * j->block; }

/* The second pass goes back from where the first one ended: what that met last is still in a cache. */
static void over_blocks(bp_ctx *ctx, job *j, bool back, bp_chunk_fn *fn)
{
    if (j->c > 0) bp_parallel_from(ctx, back, bp_chunks(j->rows, j->block), fn, j);
}

static void stats_chunk(void *arg, int64_t block, int worker)
{
    const job *j = (const job *)arg;
    j->kernels->batch_norm_stats(rows_in(j, block), j->c, j->x + block * j->block * j->c * j->size, j->first + block * j->c,
                                 j->second + block * j->c, j->scratch + (size_t)worker * j->scratch_bytes);
}

static void apply_chunk(void *arg, int64_t block, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    int64_t at = block * j->block * j->c * j->size;
    j->kernels->batch_norm_apply(rows_in(j, block), j->c, j->x + at, j->mean, coefficient(j, 0), coefficient(j, 1),
                                 j->addend ? j->addend + at : NULL, j->act, j->out + at);
}

static void sums_chunk(void *arg, int64_t block, int worker)
{
    const job *j = (const job *)arg;
    int64_t at = block * j->block * j->c * j->size;
    double *sum = j->first + block * j->c, *dot = j->second + block * j->c;
    char *scratch = j->scratch + (size_t)worker * j->scratch_bytes;
    if (j->dz)
        j->kernels->batch_norm_block_sums(rows_in(j, block), j->c, j->dy + at, j->addend ? j->addend + at : NULL, j->y + at, j->x + at,
                                          j->mean, j->dz + at, sum, dot, scratch);
    else
        j->kernels->batch_norm_sums(rows_in(j, block), j->c, j->dy + at, j->x + at, j->mean, coefficient(j, 0), shift_if_masked(j), sum,
                                    dot, scratch);
}

static void grad_chunk(void *arg, int64_t block, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    int64_t at = block * j->block * j->c * j->size;
    j->kernels->batch_norm_grad(rows_in(j, block), j->c, (j->dz ? j->dz : j->dy) + at, j->x + at, j->mean, coefficient(j, 0),
                                shift_if_masked(j), coefficient(j, 1), coefficient(j, 2), j->out + at);
}

/* Joins what the blocks found into the mean and sum of squares of all rows, in first[0..c-1] and second[0..c-1]. */
static void join_stats(job *j)
{
    for (int64_t b = 1, blocks = bp_chunks(j->rows, j->block); b < blocks; b++) {
        const double before = (double)(b * j->block), here = (double)rows_in(j, b), share = here / (before + here);
        const double *mean = j->first + b * j->c, *squares = j->second + b * j->c;
        for (int64_t i = 0; i < j->c; i++) {
            double away = mean[i] - j->first[i];
            j->first[i] += away * share;
            j->second[i] += squares[i] + away * away * (before * share);
        }
    }
}

static void join_sums(job *j)
{
    for (int64_t b = 1, blocks = bp_chunks(j->rows, j->block); b < blocks; b++)
        for (int64_t i = 0; i < j->c; i++) {
            j->first[i] += j->first[b * j->c + i];
            j->second[i] += j->second[b * j->c + i];
        }
}

/* ---- training form ---- */

/* The arrays per channel among inputs first..last have c elements. */
bp_status bp__batch_norm_channels(bp_call *call, int first, int last)
{
    const bp_meta *x = &call->in[X]->m;
    if (x->ndim < 2) {
        char text[200];
        return bp_op_fail(call, BP_EINVAL, "'x' has shape %s; [batch][channels] or more dimensions are expected",
                          bp_shape_text(x->ndim, x->shape, text));
    }
    for (int i = first; i <= last; i++)
        if (call->in[i]) BP_TRY(bp_need_shape(call, i, 1, &x->shape[x->ndim - 1]));
    return BP_OK;
}

bp_status bp__batch_norm_infer(bp_call *call)
{
    const bp_meta *x = &call->in[X]->m;
    BP_TRY(bp__batch_norm_channels(call, SCALE, VAR));
    if (!call->in[MEAN] != !call->in[VAR])
        return bp_op_fail(call, BP_EINVAL, "running_mean and running_var go together; give both or neither");
    const int64_t *c = &x->shape[x->ndim - 1];
    if (bp_count(call->in[X]) == *c && *c > 0) {
        char text[200];
        return bp_op_fail(
            call, BP_EINVAL,
            "'x' has shape %s: one value per channel has no variance; train with at least two rows (drop a last batch of one), "
            "or evaluate with the running statistics",
            bp_shape_text(x->ndim, x->shape, text));
    }
    bp_out(call, Y, x->dtype, x->ndim, x->shape);
    bp_out(call, BATCH_MEAN, x->dtype, 1, c);
    bp_out(call, BATCH_INV, x->dtype, 1, c);
    return BP_OK;
}

static const char *data_of(const bp_tensor *t) { return t ? (const char *)bp_data(t) : NULL; }

/* What a fused form does after normalising; the others have neither input nor option. */
static void read_fused(const bp_call *call, int activation, job *j)
{
    if (call->n_in <= ADDEND) return;
    j->addend = data_of(call->in[ADDEND]);
    j->act = (bp_act)call->args[activation].as.i;
}

/* running = decay * running + (1 - decay) * batch */
static void update_running(bp_tensor *running, int64_t i, double decay, double batch)
{
    bp_element_set(running->m.dtype, bp_data(running), i, decay * get(running, i) + (1 - decay) * batch);
}

bp_status bp__batch_norm_run(bp_call *call)
{
    const double decay = call->args[DECAY].as.f, eps = call->args[EPS].as.f;
    const bp_dtype dtype = call->out[Y]->m.dtype;
    job j;
    BP_TRY(start(call, &j));
    j.x = bp_data(call->in[X]);
    j.out = bp_data(call->out[Y]);
    j.mean = bp_data(call->out[BATCH_MEAN]);
    read_fused(call, EPS + 1, &j);
    over_blocks(call->ctx, &j, false, stats_chunk);
    join_stats(&j);
    for (int64_t i = 0; i < j.c; i++) {
        /* no rows: a mean of 0 and a variance of 0, and the running statistics stay */
        const double mean = j.rows ? j.first[i] : 0, squares = j.rows ? j.second[i] : 0, variance = j.rows ? squares / (double)j.rows : 0;
        bp_element_set(dtype, bp_data(call->out[BATCH_MEAN]), i, mean);
        bp_element_set(dtype, bp_data(call->out[BATCH_INV]), i, 1 / sqrt(variance + eps));
        const double inv = get(call->out[BATCH_INV], i); /* as rounded: the gradient finds the same coefficient from it */
        bp_element_set(dtype, coefficient(&j, 0), i, inv * (call->in[SCALE] ? get(call->in[SCALE], i) : 1));
        bp_element_set(dtype, coefficient(&j, 1), i, call->in[SHIFT] ? get(call->in[SHIFT], i) : 0);
        if (j.rows && call->in[MEAN]) {
            update_running(call->in[MEAN], i, decay, mean);
            update_running(call->in[VAR], i, decay, squares / (double)(j.rows - 1));
        }
    }
    over_blocks(call->ctx, &j, true, apply_chunk);
    return BP_OK;
}

/* ---- gradient ---- */

static bp_status batch_norm_grad_infer(bp_call *call)
{
    const bp_meta *dy = &call->in[G_DY]->m;
    BP_TRY(bp__batch_norm_channels(call, G_SCALE, G_SHIFT));
    BP_TRY(bp_need_shape(call, G_X, dy->ndim, dy->shape));
    bp_out(call, 0, dy->dtype, dy->ndim, dy->shape);
    bp_out(call, 1, dy->dtype, 1, &dy->shape[dy->ndim - 1]);
    bp_out(call, 2, dy->dtype, 1, &dy->shape[dy->ndim - 1]);
    return BP_OK;
}

/* From sums over the rows to dscale, dshift and the coefficients of dx, and then dx. */
static void gradient_from(bp_call *call, job *j)
{
    const bp_dtype dtype = call->out[0]->m.dtype;
    over_blocks(call->ctx, j, false, sums_chunk);
    join_sums(j);
    for (int64_t i = 0; i < j->c; i++) {
        const double inv = get(call->in[G_INV], i), sum = j->rows ? j->first[i] : 0, dot = j->rows ? j->second[i] : 0;
        const double rows = j->rows ? (double)j->rows : 1;
        bp_element_set(dtype, bp_data(call->out[1]), i, dot * inv);
        bp_element_set(dtype, bp_data(call->out[2]), i, sum);
        bp_element_set(dtype, coefficient(j, 1), i, sum / rows);
        bp_element_set(dtype, coefficient(j, 2), i, inv * inv * dot / rows);
    }
    over_blocks(call->ctx, j, true, grad_chunk);
}

static bp_status start_gradient(bp_call *call, job *j)
{
    const bp_dtype dtype = call->out[0]->m.dtype;
    BP_TRY(start(call, j));
    j->dy = bp_data(call->in[G_DY]);
    j->x = bp_data(call->in[G_X]);
    j->mean = bp_data(call->in[G_MEAN]);
    j->out = bp_data(call->out[0]);
    for (int64_t i = 0; i < j->c; i++)
        bp_element_set(dtype, coefficient(j, 0), i, get(call->in[G_INV], i) * (call->in[G_SCALE] ? get(call->in[G_SCALE], i) : 1));
    return BP_OK;
}

static bp_status batch_norm_grad_run(bp_call *call)
{
    job j;
    BP_TRY(start_gradient(call, &j));
    j.masked = call->args[G_RELU].as.i == BP_ACT_RELU;
    for (int64_t i = 0; i < j.c && j.masked; i++)
        bp_element_set(call->out[0]->m.dtype, coefficient(&j, 3), i, call->in[G_SHIFT] ? get(call->in[G_SHIFT], i) : 0);
    gradient_from(call, &j);
    return BP_OK;
}

bp_status bp__batch_norm_fused_grad_run(bp_call *call)
{
    job j;
    BP_TRY(start_gradient(call, &j));
    j.addend = data_of(call->in[G_ADDEND]);
    j.y = bp_data(call->in[G_Y]);
    j.dz = bp_data(call->out[3]);
    gradient_from(call, &j);
    return BP_OK;
}

/* ---- gradients in ops ---- */

/* Mean or sum over all dimensions but the last; kept as size 1. */
static bp_tensor *over_rows(bp_grad *g, const bp_op *op, bp_tensor *t)
{
    if (!t) return NULL;
    bp_arg args[2] = { bp_default(), bp_int(1) };
    args[0].set = 1;
    for (int d = 0; d < t->m.ndim - 1; d++) args[0].as.list[args[0].count++] = d;
    return bp_g(g, op, 2, args, 1, t);
}

static bp_tensor *as_channels(bp_grad *g, bp_tensor *t)
{
    if (!t) return NULL;
    bp_arg shape = bp_list(1, &t->m.shape[t->m.ndim - 1]);
    return bp_g(g, &bp__op_reshape, 1, &shape, 1, t);
}

static bp_tensor *product3(bp_grad *g, bp_tensor *a, bp_tensor *b, bp_tensor *c) { return G2(g, mul, G2(g, mul, a, b), c); }

/* The same gradient spelled out, when it is to be differentiated again or the batch's own mean and inv_std were used. Everything is worked
 * out anew from x, so that the history of the gradient reaches x in every way it depends on it:
 *     d = x - mean(x)   inv = 1 / sqrt(mean(d^2) + eps)   n = d * inv
 *     dx = scale * inv * (dy - mean(dy) - n * mean(dy * n)) + dmean / rows - dinv * inv^3 * d / rows
 * An empty batch has no mean, and its gradients are zero. */
static void composed_gradient(bp_grad *g)
{
    bp_tensor *x = g->in[X], *dy = g->dout[Y], *scale = g->in[SCALE], *dmean = g->dout[BATCH_MEAN], *dinv = g->dout[BATCH_INV];
    if (bp_count(x) == 0) return;
    bp_tensor *d = G2(g, sub, x, over_rows(g, &bp__op_mean, x));
    bp_tensor *inv = G1(g, rsqrt, G2(g, add, over_rows(g, &bp__op_mean, G1(g, square, d)), bp_g_number(g, x, g->args[EPS].as.f)));
    bp_tensor *dx = NULL;
    if (dy) {
        bp_tensor *n = G2(g, mul, d, inv), *dn = G2(g, mul, dy, n);
        if (g->want[SCALE] && scale) bp_grad_set(g, SCALE, as_channels(g, over_rows(g, &bp__op_sum, dn)));
        if (g->want[SHIFT] && g->in[SHIFT]) bp_grad_set(g, SHIFT, as_channels(g, over_rows(g, &bp__op_sum, dy)));
        dx = G2(g, sub, G2(g, sub, dy, over_rows(g, &bp__op_mean, dy)), G2(g, mul, n, over_rows(g, &bp__op_mean, dn)));
        dx = G2(g, mul, dx, scale ? G2(g, mul, inv, scale) : inv);
    } else {
        dx = G2(g, mul, x, bp_g_number(g, x, 0));
    }
    bp_tensor *share = bp_g_number(g, x, (double)x->m.shape[x->m.ndim - 1] / (double)bp_count(x));
    if (dmean) dx = G2(g, add, dx, G2(g, mul, dmean, share));
    if (dinv) dx = G2(g, sub, dx, product3(g, d, product3(g, inv, inv, inv), G2(g, mul, dinv, share)));
    if (g->want[X]) bp_grad_set(g, X, dx);
}

static void batch_norm_gradient(bp_grad *g)
{
    bp_tensor *scale = g->in[SCALE];
    if (g->ctx->grad_enabled || g->dout[BATCH_MEAN] || g->dout[BATCH_INV]) {
        composed_gradient(g);
        return;
    }
    bp_tensor *in[5] = { g->dout[Y], g->in[X], scale, g->out[BATCH_MEAN], g->out[BATCH_INV] };
    bp_tensor *grads[3];
    bp_g_all(g, &bp__op_batch_norm_grad, 0, NULL, 5, in, grads);
    for (int i = X; i <= SHIFT; i++)
        if (g->in[i] && g->want[i]) bp_grad_set(g, i, grads[i]);
}

/* ---- inference form ---- */

bp_status bp__batch_norm_inference_infer(bp_call *call)
{
    BP_TRY(bp__batch_norm_channels(call, SCALE, VAR));
    return bp_infer_same(call);
}

bp_status bp__batch_norm_inference_run(bp_call *call)
{
    const double eps = call->args[0].as.f;
    const bp_dtype dtype = call->out[0]->m.dtype;
    job j;
    BP_TRY(start(call, &j));
    j.x = bp_data(call->in[X]);
    j.out = bp_data(call->out[0]);
    j.mean = bp_data(call->in[MEAN]);
    read_fused(call, 1, &j);
    for (int64_t i = 0; i < j.c; i++) {
        bp_element_set(dtype, coefficient(&j, 0), i, (call->in[SCALE] ? get(call->in[SCALE], i) : 1) / sqrt(get(call->in[VAR], i) + eps));
        bp_element_set(dtype, coefficient(&j, 1), i, call->in[SHIFT] ? get(call->in[SHIFT], i) : 0);
    }
    over_blocks(call->ctx, &j, true, apply_chunk);
    return BP_OK;
}

/* a = scale * inv:  dx = dy * a;  dscale = sum dy * d * inv;  dshift = sum dy;  dmean = -sum dy * a;  dvar = -sum dy * d * a * inv^2 / 2 */
static void inference_gradient(bp_grad *g)
{
    bp_tensor *dy = g->dout[0], *scale = g->in[SCALE];
    bp_tensor *inv = G1(g, rsqrt, G2(g, add, g->in[VAR], bp_g_number(g, g->in[VAR], g->args[0].as.f)));
    bp_tensor *a = scale ? G2(g, mul, inv, scale) : inv;
    if (g->want[X]) bp_grad_set(g, X, G2(g, mul, dy, a));
    if (g->want[SHIFT] && g->in[SHIFT]) bp_grad_set(g, SHIFT, as_channels(g, over_rows(g, &bp__op_sum, dy)));
    if (g->want[MEAN]) bp_grad_set(g, MEAN, G1(g, neg, G2(g, mul, as_channels(g, over_rows(g, &bp__op_sum, dy)), a)));
    if (!(g->want[SCALE] && scale) && !g->want[VAR]) return;
    bp_tensor *dot = as_channels(g, over_rows(g, &bp__op_sum, G2(g, mul, dy, G2(g, sub, g->in[X], g->in[MEAN]))));
    if (g->want[SCALE] && scale) bp_grad_set(g, SCALE, G2(g, mul, dot, inv));
    if (g->want[VAR]) bp_grad_set(g, VAR, G2(g, mul, G2(g, mul, dot, bp_g_number(g, inv, -0.5)), G2(g, mul, a, G1(g, square, inv))));
}

/* ---- rows ---- */

const bp_op bp__op_batch_norm = {
    .name = "batch_norm",
    .group = "layers",
    .summary = "normalises every channel by mean and variance of the batch, and keeps running statistics: the form for training",
    .detail =
        "y = (x - mean) / sqrt(var + eps) * scale + shift, with mean and var over all dimensions but the last (var divides by the number "
        "of rows)\n"
        "running = decay * running + (1 - decay) * batch, where the batch's variance divides by rows - 1, as in PyTorch (Keras divides "
        "by rows).\n"
        "`decay` is the weight of the old value: 0.9 here is PyTorch's momentum 0.1 and Keras' momentum 0.9. With a single row there is no "
        "variance, and that is an error. Ioffe and Szegedy, \"Batch Normalization\", 2015.",
    .inputs = (const bp_input[]){ TRAINING_INPUTS, { 0 } },
    .options = (const bp_option[]){ DECAY_OPTION, EPS_OPTION, { 0 } },
    .n_out = 3,
    .outputs = "y: [..][c]; mean: [c]; inv_std: [c], 1 / sqrt(var + eps)",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << X | 1 << SCALE,
    .needs_out = 1 << BATCH_MEAN | 1 << BATCH_INV,
    .over = { 1 << X },
    .infer = bp__batch_norm_infer,
    .run = bp__batch_norm_run,
    .gradient = batch_norm_gradient,
    .cases =
        (const bp_case[]){
            { "4x3 3 3", "", 0, 0, 0 },
            { "2x1 1 1", "", 0, 0, 0 },
            { "2x3x2x4' 4 4", "", 0, 0, 0 },
            { "5x2", "eps=0.1", 0, 0, 0 },
            { "6x3 3", "", 0, 0, 0 },
            { "0x3 3 3", "", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_batch_norm_inference = {
    .name = "batch_norm_inference",
    .group = "layers",
    .summary = "normalises every channel by given statistics: the form for evaluation",
    .detail = "y = (x - mean) / sqrt(var + eps) * scale + shift",
    .inputs = (const bp_input[]){ INFERENCE_INPUTS, { 0 } },
    .options = (const bp_option[]){ EPS_OPTION, { 0 } },
    .n_out = 1,
    .outputs = "y: [..][c]",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << X | 1 << SCALE | 1 << MEAN | 1 << VAR,
    .over = { 1 << X },
    .infer = bp__batch_norm_inference_infer,
    .run = bp__batch_norm_inference_run,
    .gradient = inference_gradient,
    .cases =
        (const bp_case[]){
            { "4x3 3 3 3 3", "", 0.5, 2, 0 },
            { "1x1 - - 1 1", "", 0.5, 2, 0 },
            { "2x3x4' 4 - 4' 4", "eps=0.1", 0.5, 2, 0 },
            { "0x3 3 3 3 3", "", 0.5, 2, 0 },
            { 0 },
        },
};

const bp_op bp__op_batch_norm_grad = {
    .name = "batch_norm_grad",
    .group = "layers",
    .summary = "gradient of batch_norm in two passes over the batch",
    .detail =
        "n = (x - mean) * inv_std;  dx = scale * inv_std * (dy - mean(dy) - n * mean(dy * n));  dscale = sum(dy * n);  dshift = sum(dy)\n"
        "Not differentiable itself: where a gradient of a gradient is wanted, batch_norm's gradient is spelled out in simpler ops instead.",
    .inputs =
        (const bp_input[]){
            { "dy", 0, "[..][c] gradient of y" },
            { "x", 0, "[..][c]" },
            { "scale", BP_IN_OPTIONAL, "[c]" },
            { "mean", 0, "[c] of the batch" },
            { "inv_std", 0, "[c] of the batch" },
            { "shift", BP_IN_OPTIONAL, "[c], read when there is an activation" },
            { 0 },
        },
    .options = (const bp_option[]){ { .name = "activation",
                                      .kind = BP_OPT_CHOICE,
                                      .def = BP_ACT_NONE,
                                      .min = 0,
                                      .max = 1,
                                      .choices = bp_fused_activations,
                                      .help = "relu: y was relu of what was normalised, and dy counts where that is positive" },
                                    { 0 } },
    .n_out = 3,
    .outputs = "dx: [..][c]; dscale: [c]; dshift: [c]",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .over = { 1 << G_DY | 1 << G_X },
    .infer = batch_norm_grad_infer,
    .run = batch_norm_grad_run,
    .cases =
        (const bp_case[]){
            { "4x3 4x3 3 3 3", "", 0.5, 2, 0 },
            { "1x1 1x1 - 1 1", "", 0.5, 2, 0 },
            { "2x3x4' 2x3x4 4 4 4", "", 0.5, 2, 0 },
            { "4x3 4x3 3 3 3 3", "activation=relu", 0, 0, 0 },
            { "0x3 0x3 3 3 3 -", "activation=relu", 0.5, 2, 0 },
            { 0 },
        },
};
