/* row_norm.c - layer normalisation (Ba, Kiros and Hinton, "Layer normalization", 2016) and RMS normalisation (Zhang and Sennrich, "Root
 * mean square layer normalization", 2019): every sample by the statistics of its own last dimensions.
 *
 * Rows are cut into blocks by shape. The gradients of scale and shift are summed within a block in the element's type, and the blocks are
 * joined in order in f64. */
#include "../base/memory.h"
#include "../base/pool.h"
#include "element.h"
#include "normalise.h"
#include "product.h"

#include <string.h>

enum { X, SCALE, SHIFT };            /* inputs; RMS has no shift */
enum { DIMS, EPS };                  /* options */
enum { G_DY, G_X, G_SCALE, G_MEAN }; /* inputs of the gradients; RMS has inv in the place of mean */

typedef struct job {
    const bp_kernels *kernels;
    int64_t rows, c, block, size; /* rows in all, elements of a row, rows of a block, bytes of an element */
    bool center;
    double eps;
    const char *x, *dy, *scale, *shift;
    char *y, *mean, *inv;
    char *dscale, *dshift; /* [blocks][c] */
} job;

static bool centers(const bp_op *op) { return op == &bp__op_layer_norm || op == &bp__op_layer_norm_grad; }

/* Elements of a row: the product of the last `dims` sizes. */
static int64_t row_size(const bp_meta *x, int64_t dims)
{
    int64_t c = 1;
    for (int64_t d = x->ndim - dims; d < x->ndim; d++) c *= x->shape[d];
    return c;
}

static size_t row_bytes(const job *j) { return bp__lines((size_t)(j->c * j->size)); }

/* Scratch: an array for a scale or a shift that is left out, and `sums` rows of sums per block. */
static bp_status start(bp_call *call, job *j, const bp_tensor *x, const bp_tensor *scale, const bp_tensor *shift, int64_t sums)
{
    j->size = (int64_t)bp_dtype_size(x->m.dtype);
    j->c = row_size(&x->m, call->args[DIMS].as.i);
    j->rows = j->c > 0 ? bp_count(x) / j->c : 0;
    j->block = BP_MEMORY_GRAIN / (j->c > 0 ? j->c : 1) + 1;
    j->kernels = bp_kernels_of(call->ctx, x->m.dtype);
    j->center = centers(call->op);
    j->eps = call->args[EPS].as.f;
    const int64_t blocks = bp_chunks(j->rows, j->block);
    char *p = (char *)bp__scratch(call->ctx, row_bytes(j) * 2 + row_bytes(j) * (size_t)(sums * blocks) + 64);
    if (!p) return BP_ENOMEM;
    for (int64_t i = 0; !scale && i < j->c; i++) bp_element_set(x->m.dtype, p, i, 1);
    if (!shift) memset(p + row_bytes(j), 0, row_bytes(j));
    j->scale = scale ? bp_data(scale) : p;
    j->shift = shift ? bp_data(shift) : p + row_bytes(j);
    j->dscale = p + 2 * row_bytes(j);
    j->dshift = j->dscale + row_bytes(j) * (size_t)blocks;
    return BP_OK;
}

static int64_t rows_in(const job *j, int64_t block) { return (block + 1) * j->block < j->rows ? j->block : j->rows - block * j->block; }

static void forward_chunk(void *arg, int64_t block, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    const int64_t first = block * j->block, at = first * j->c * j->size;
    j->kernels->row_norm(rows_in(j, block), j->c, j->center, j->eps, j->x + at, j->scale, j->shift, j->y + at,
                         j->center ? j->mean + first * j->size : NULL, j->inv + first * j->size);
}

static void gradient_chunk(void *arg, int64_t block, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    const int64_t first = block * j->block, at = first * j->c * j->size;
    char *dscale = j->dscale + row_bytes(j) * (size_t)block, *dshift = j->dshift + row_bytes(j) * (size_t)block;
    memset(dscale, 0, row_bytes(j));
    memset(dshift, 0, row_bytes(j));
    j->kernels->row_norm_grad(rows_in(j, block), j->c, j->center, j->dy + at, j->x + at, j->scale,
                              j->center ? j->mean + first * j->size : NULL, j->inv + first * j->size, j->y + at, dscale, dshift);
}

/* ---- forward ---- */

static bp_status check_dims(bp_call *call, const bp_tensor *t)
{
    const int64_t dims = call->args[DIMS].as.i;
    if (t->m.ndim >= dims) return BP_OK;
    char text[200];
    return bp_op_fail(call, BP_EINVAL,
                      "the input has shape %s; %lld dimensions are to be normalised together, so it needs at least as many",
                      bp_shape_text(t->m.ndim, t->m.shape, text), (long long)dims);
}

static bp_status norm_infer(bp_call *call)
{
    const bp_meta *x = &call->in[X]->m;
    const int dims = (int)call->args[DIMS].as.i;
    BP_TRY(check_dims(call, call->in[X]));
    for (int i = SCALE; i < call->n_in; i++)
        if (call->in[i]) BP_TRY(bp_need_shape(call, i, dims, x->shape + x->ndim - dims));
    bp_out(call, 0, x->dtype, x->ndim, x->shape);
    for (int i = 1; i < call->op->n_out; i++) bp_out(call, i, x->dtype, x->ndim - dims, x->shape);
    return BP_OK;
}

static bp_status norm_run(bp_call *call)
{
    job j;
    BP_TRY(start(call, &j, call->in[X], call->in[SCALE], call->n_in > SHIFT ? call->in[SHIFT] : NULL, 0));
    j.x = bp_data(call->in[X]);
    j.y = bp_data(call->out[0]);
    j.mean = bp_data(call->out[1]);
    j.inv = bp_data(call->out[call->n_out - 1]);
    bp_parallel(call->ctx, bp_chunks(j.rows, j.block), forward_chunk, &j);
    return BP_OK;
}

/* ---- gradient ---- */

static bp_status norm_grad_infer(bp_call *call)
{
    const bp_meta *dy = &call->in[G_DY]->m;
    const int dims = (int)call->args[DIMS].as.i;
    BP_TRY(check_dims(call, call->in[G_DY]));
    const int64_t *last = dy->shape + dy->ndim - dims;
    BP_TRY(bp_need_shape(call, G_X, dy->ndim, dy->shape));
    if (call->in[G_SCALE]) BP_TRY(bp_need_shape(call, G_SCALE, dims, last));
    for (int i = G_MEAN; i < call->n_in; i++) BP_TRY(bp_need_shape(call, i, dy->ndim - dims, dy->shape));
    bp_out(call, 0, dy->dtype, dy->ndim, dy->shape);
    for (int i = 1; i < call->op->n_out; i++) bp_out(call, i, dy->dtype, dims, last);
    return BP_OK;
}

/* Adds up what the blocks found. */
static void join(const job *j, bp_dtype dtype, const char *sums, bp_tensor *to)
{
    const int64_t blocks = bp_chunks(j->rows, j->block);
    for (int64_t i = 0; i < j->c; i++) {
        double sum = 0;
        for (int64_t b = 0; b < blocks; b++) sum += bp_element(dtype, sums + row_bytes(j) * (size_t)b, i);
        bp_element_set(dtype, bp_data(to), i, sum);
    }
}

static bp_status norm_grad_run(bp_call *call)
{
    const bp_dtype dtype = call->out[0]->m.dtype;
    job j;
    BP_TRY(start(call, &j, call->in[G_X], call->in[G_SCALE], NULL, 2));
    j.dy = bp_data(call->in[G_DY]);
    j.x = bp_data(call->in[G_X]);
    j.mean = bp_data(call->in[G_MEAN]);
    j.inv = bp_data(call->in[call->n_in - 1]);
    j.y = bp_data(call->out[0]);
    bp_parallel(call->ctx, bp_chunks(j.rows, j.block), gradient_chunk, &j);
    join(&j, dtype, j.dscale, call->out[1]);
    if (j.center) join(&j, dtype, j.dshift, call->out[2]);
    return BP_OK;
}

static void norm_gradient(bp_grad *g)
{
    const bool center = centers(g->op);
    const bp_meta *x = &g->in[X]->m;
    if (g->ctx->grad_enabled || g->dout[1] || (center && g->dout[2])) {
        const int64_t c = row_size(x, g->args[DIMS].as.i), rows = c > 0 ? bp_count(g->in[X]) / c : 0;
        const bp_normalised n = {
            .ndim = 2, .work = { rows, c }, .channel = { 1, c }, .n_over = 1, .over = { 1 }, .center = center, .eps = g->args[EPS].as.f
        };
        bp__normalise_gradient(g, &n);
        return;
    }
    bp_tensor *in[5] = { g->dout[0], g->in[X], g->in[SCALE], g->out[1], g->out[2] }, *grads[3];
    bp_g_all(g, center ? &bp__op_layer_norm_grad : &bp__op_rms_norm_grad, 2, g->args, center ? 5 : 4, in, grads);
    for (int i = X; i < (center ? 3 : 2); i++)
        if (g->in[i] && g->want[i]) bp_grad_set(g, i, grads[i]);
}

/* ---- rows ---- */

static const bp_option options[] = {
    { .name = "dims",
      .kind = BP_OPT_INT,
      .def = 1,
      .min = 1,
      .max = BP_MAX_DIMS,
      .help = "how many of the last dimensions are normalised together" },
    { .name = "eps", .kind = BP_OPT_FLOAT, .def = 1e-5, .min = 0, .max = 1e300, .help = "added to the mean square" },
    { 0 },
};

const bp_op bp__op_layer_norm = {
    .name = "layer_norm",
    .group = "layers",
    .summary = "normalises every sample over its last dimensions",
    .detail = "y = (x - mean) / sqrt(var + eps) * scale + shift, with mean and biased variance of the last `dims` dimensions of each\n"
              "sample. Ba, Kiros and Hinton, Layer normalization, 2016.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[..][c] values" },
            { "scale", BP_IN_OPTIONAL, "[c], 1 when left out; as many dimensions as are normalised" },
            { "shift", BP_IN_OPTIONAL, "[c], 0 when left out" },
            { 0 },
        },
    .options = options,
    .n_out = 3,
    .outputs = "y: like x; mean: [..]; inv_std: [..], 1 / sqrt(var + eps)",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << X | 1 << SCALE,
    .needs_out = 1 << 1 | 1 << 2,
    .infer = norm_infer,
    .run = norm_run,
    .gradient = norm_gradient,
    .cases =
        (const bp_case[]){
            { "4x3 3 3", "", 0, 0, 0 },
            { "2x3x4' 4 4", "", 0, 0, 0 },
            { "2x3x4 3x4 3x4", "dims=2", 0, 0, 0 },
            { "5", "", 0, 0, 0 },
            { "3x40 40 -", "eps=0.1", 0, 0, 0 },
            { "2x5 - 5", "", 0, 0, 0 },
            { "0x3 3 3", "", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_rms_norm = {
    .name = "rms_norm",
    .group = "layers",
    .summary = "divides every sample by the root mean square of its last dimensions",
    .detail = "y = x / sqrt(mean(x^2) + eps) * scale, the mean over the last `dims` dimensions of each sample.\n"
              "Zhang and Sennrich, Root mean square layer normalization, 2019.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[..][c] values" },
            { "scale", BP_IN_OPTIONAL, "[c], 1 when left out; as many dimensions as are normalised" },
            { 0 },
        },
    .options = options,
    .n_out = 2,
    .outputs = "y: like x; inv_rms: [..], 1 / sqrt(mean(x^2) + eps)",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << X | 1 << SCALE,
    .needs_out = 1 << 1,
    .infer = norm_infer,
    .run = norm_run,
    .gradient = norm_gradient,
    .cases =
        (const bp_case[]){
            { "4x3 3", "", 0, 0, 0 },
            { "2x3x4' 4", "", 0, 0, 0 },
            { "2x3x4 3x4", "dims=2", 0, 0, 0 },
            { "5", "", 0, 0, 0 },
            { "3x40 40", "eps=0.1", 0, 0, 0 },
            { "0x3 3", "", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_layer_norm_grad = {
    .name = "layer_norm_grad",
    .group = "layers",
    .summary = "gradient of layer_norm in one pass",
    .detail = "n = (x - mean) * inv_std;  g = dy * scale;  dx = inv_std * (g - mean(g) - n * mean(g * n));  dscale = sum(dy * n);\n"
              "dshift = sum(dy)\n"
              "Not differentiable itself: where a gradient of a gradient is wanted, layer_norm's gradient is spelled out in simpler ops.",
    .inputs =
        (const bp_input[]){
            { "dy", 0, "[..][c] gradient of y" },
            { "x", 0, "[..][c]" },
            { "scale", BP_IN_OPTIONAL, "[c]" },
            { "mean", 0, "[..]" },
            { "inv_std", 0, "[..]" },
            { 0 },
        },
    .options = options,
    .n_out = 3,
    .outputs = "dx: [..][c]; dscale: [c]; dshift: [c]",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .infer = norm_grad_infer,
    .run = norm_grad_run,
    .cases =
        (const bp_case[]){
            { "4x3 4x3 3 4 4", "", 0.5, 2, 0 },
            { "2x3x4' 2x3x4 3x4 2 2", "dims=2", 0.5, 2, 0 },
            { "3x20 3x20 - 3 3", "", 0.5, 2, 0 },
            { 0 },
        },
};

const bp_op bp__op_rms_norm_grad = {
    .name = "rms_norm_grad",
    .group = "layers",
    .summary = "gradient of rms_norm in one pass",
    .detail = "n = x * inv_rms;  g = dy * scale;  dx = inv_rms * (g - n * mean(g * n));  dscale = sum(dy * n)\n"
              "Not differentiable itself: where a gradient of a gradient is wanted, rms_norm's gradient is spelled out in simpler ops.",
    .inputs =
        (const bp_input[]){
            { "dy", 0, "[..][c] gradient of y" },
            { "x", 0, "[..][c]" },
            { "scale", BP_IN_OPTIONAL, "[c]" },
            { "inv_rms", 0, "[..]" },
            { 0 },
        },
    .options = options,
    .n_out = 2,
    .outputs = "dx: [..][c]; dscale: [c]",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .infer = norm_grad_infer,
    .run = norm_grad_run,
    .cases =
        (const bp_case[]){
            { "4x3 4x3 3 4", "", 0.5, 2, 0 },
            { "2x3x4' 2x3x4 3x4 2", "dims=2", 0.5, 2, 0 },
            { "3x20 3x20 - 3", "", 0.5, 2, 0 },
            { 0 },
        },
};
