/* group_norm.c - group normalisation (Wu and He, "Group normalization", 2018): the channels of a sample are cut into groups, and each group
 * is normalised over its channels and all pixels. One group is layer normalisation over a whole image, as many groups as channels are
 * instance normalisation.
 *
 * The last dimension holds the channels. One sample is one chunk of work. Its channels' means and squared distances come from the kernels
 * of batch_norm; the channels of a group are joined in order by Chan, Golub and LeVeque's formula in f64. */
#include "../base/memory.h"
#include "../base/pool.h"
#include "element.h"
#include "normalise.h"
#include "product.h"

#include <math.h>
#include <string.h>

enum { X, SCALE, SHIFT };
enum { GROUPS, EPS };
enum { G_DY, G_X, G_SCALE, G_MEAN, G_INV };

typedef struct job {
    const bp_kernels *kernels;
    bp_dtype dtype;
    int64_t n, pixels, c, groups, size; /* x is [n][pixels][c] */
    double eps;
    const char *x, *dy, *scale, *shift;    /* scale, shift NULL: 1, 0 */
    char *y, *mean, *inv;                  /* y or dx; [n][groups] */
    char *scratch;                         /* per worker: two f64 sums and four coefficients of every channel, the kernel's own */
    size_t sums, coefficients, per_worker; /* bytes */
    double *dscale, *dshift;               /* [n][c] */
} job;

static double get(const job *j, const char *array, int64_t i) { return bp_element(j->dtype, array, i); }

static bp_status start(bp_call *call, job *j, const bp_tensor *x, bool gradient)
{
    memset(j, 0, sizeof *j);
    j->dtype = x->m.dtype;
    j->c = x->m.shape[x->m.ndim - 1];
    j->n = x->m.shape[0];
    j->pixels = j->n * j->c > 0 ? bp_count(x) / (j->n * j->c) : 0;
    j->groups = call->args[GROUPS].as.i;
    j->eps = call->args[EPS].as.f;
    j->size = (int64_t)bp_dtype_size(j->dtype);
    j->kernels = bp_kernels_of(call->ctx, j->dtype);
    j->x = bp_data(x);
    j->sums = bp__lines((size_t)j->c * sizeof(double));
    j->coefficients = bp__lines((size_t)(j->c * j->size));
    j->per_worker = 2 * j->sums + 4 * j->coefficients + bp__lines(j->kernels->batch_norm_scratch(j->c > 0 ? j->c : 1));
    const size_t workers = j->per_worker * (size_t)bp_threads(call->ctx);
    const size_t kept = gradient ? 2 * (size_t)(j->n * j->c) * sizeof(double) : 0;
    j->scratch = (char *)bp__scratch(call->ctx, workers + kept + 64);
    if (!j->scratch) return BP_ENOMEM;
    j->dscale = (double *)(void *)(j->scratch + workers);
    j->dshift = j->dscale + j->n * j->c;
    return BP_OK;
}

typedef struct room {
    double *first, *second;
    char *coefficient[4], *scratch;
} room;

static room room_of(const job *j, int worker)
{
    char *p = j->scratch + j->per_worker * (size_t)worker;
    room r = { .first = (double *)(void *)p, .second = (double *)(void *)(p + j->sums) };
    for (int i = 0; i < 4; i++) r.coefficient[i] = p + 2 * j->sums + (size_t)i * j->coefficients;
    r.scratch = p + 2 * j->sums + 4 * j->coefficients;
    return r;
}

static void forward_chunk(void *arg, int64_t sample, int worker)
{
    const job *j = (const job *)arg;
    const room r = room_of(j, worker);
    const int64_t at = sample * j->pixels * j->c * j->size, width = j->c / j->groups;
    j->kernels->batch_norm_stats(j->pixels, j->c, j->x + at, r.first, r.second, r.scratch);
    for (int64_t k = 0; k < j->groups; k++) {
        const double here = (double)j->pixels;
        double mean = 0, squares = 0, before = 0;
        for (int64_t i = k * width; i < (k + 1) * width; i++, before += here) {
            const double away = r.first[i] - mean;
            mean += away * here / (before + here);
            squares += r.second[i] + away * away * before * here / (before + here);
        }
        const double inv = 1 / sqrt(squares / before + j->eps);
        bp_element_set(j->dtype, j->mean, sample * j->groups + k, mean);
        bp_element_set(j->dtype, j->inv, sample * j->groups + k, inv);
        for (int64_t i = k * width; i < (k + 1) * width; i++) {
            bp_element_set(j->dtype, r.coefficient[0], i, mean);
            bp_element_set(j->dtype, r.coefficient[1], i, inv * (j->scale ? get(j, j->scale, i) : 1));
            bp_element_set(j->dtype, r.coefficient[2], i, j->shift ? get(j, j->shift, i) : 0);
        }
    }
    j->kernels->batch_norm_apply(j->pixels, j->c, j->x + at, r.coefficient[0], r.coefficient[1], r.coefficient[2], NULL, BP_ACT_NONE,
                                 j->y + at);
}

/* With n = (x - mean) * inv and g = dy * scale:  dx = inv * (g - mean(g) - n * mean(g * n)), the means over the group. */
static void gradient_chunk(void *arg, int64_t sample, int worker)
{
    const job *j = (const job *)arg;
    const room r = room_of(j, worker);
    const int64_t at = sample * j->pixels * j->c * j->size, width = j->c / j->groups;
    const double count = (double)(width * j->pixels);
    for (int64_t i = 0; i < j->c; i++) bp_element_set(j->dtype, r.coefficient[0], i, get(j, j->mean, sample * j->groups + i / width));
    j->kernels->batch_norm_sums(j->pixels, j->c, j->dy + at, j->x + at, r.coefficient[0], NULL, NULL, r.first, r.second, r.scratch);
    for (int64_t k = 0; k < j->groups; k++) {
        const double inv = get(j, j->inv, sample * j->groups + k);
        double sum = 0, dot = 0;
        for (int64_t i = k * width; i < (k + 1) * width; i++) {
            const double scale = j->scale ? get(j, j->scale, i) : 1;
            sum += scale * r.first[i];
            dot += scale * r.second[i];
            j->dshift[sample * j->c + i] = r.first[i];
            j->dscale[sample * j->c + i] = r.second[i] * inv;
            bp_element_set(j->dtype, r.coefficient[1], i, inv * scale);
        }
        for (int64_t i = k * width; i < (k + 1) * width; i++) {
            bp_element_set(j->dtype, r.coefficient[2], i, inv * sum / count);
            bp_element_set(j->dtype, r.coefficient[3], i, inv * inv * inv * dot / count);
        }
    }
    j->kernels->channel_grad(j->pixels, j->c, j->dy + at, j->x + at, r.coefficient[0], r.coefficient[1], r.coefficient[2], r.coefficient[3],
                             j->y + at);
}

/* ---- forward ---- */

static bp_status check(bp_call *call, int first, int last)
{
    const bp_meta *x = &call->in[0]->m;
    char text[200];
    if (x->ndim < 2)
        return bp_op_fail(call, BP_EINVAL, "the input has shape %s; [batch]...[channels] is expected",
                          bp_shape_text(x->ndim, x->shape, text));
    const int64_t c = x->shape[x->ndim - 1], groups = call->args[GROUPS].as.i;
    if (c % groups != 0)
        return bp_op_fail(call, BP_EINVAL, "the input has shape %s: its %lld channels cannot be cut into %lld equal groups",
                          bp_shape_text(x->ndim, x->shape, text), (long long)c, (long long)groups);
    for (int i = first; i <= last; i++)
        if (call->in[i]) BP_TRY(bp_need_shape(call, i, 1, &c));
    return BP_OK;
}

static bp_status group_norm_infer(bp_call *call)
{
    const bp_meta *x = &call->in[X]->m;
    BP_TRY(check(call, SCALE, SHIFT));
    const int64_t statistics[2] = { x->shape[0], call->args[GROUPS].as.i };
    bp_out(call, 0, x->dtype, x->ndim, x->shape);
    bp_out(call, 1, x->dtype, 2, statistics);
    bp_out(call, 2, x->dtype, 2, statistics);
    return BP_OK;
}

static const char *data_of(const bp_tensor *t) { return t ? (const char *)bp_data(t) : NULL; }

static bp_status group_norm_run(bp_call *call)
{
    job j;
    BP_TRY(start(call, &j, call->in[X], false));
    j.scale = data_of(call->in[SCALE]);
    j.shift = data_of(call->in[SHIFT]);
    j.y = bp_data(call->out[0]);
    j.mean = bp_data(call->out[1]);
    j.inv = bp_data(call->out[2]);
    if (j.pixels * j.c > 0) {
        bp_parallel(call->ctx, j.n, forward_chunk, &j);
    } else {
        memset(j.mean, 0, (size_t)(bp_count(call->out[1]) * j.size)); /* nothing to take a mean of */
        memset(j.inv, 0, (size_t)(bp_count(call->out[2]) * j.size));
    }
    return BP_OK;
}

/* ---- gradient ---- */

static bp_status group_norm_grad_infer(bp_call *call)
{
    const bp_meta *dy = &call->in[G_DY]->m;
    BP_TRY(check(call, G_SCALE, G_SCALE));
    BP_TRY(bp_need_shape(call, G_X, dy->ndim, dy->shape));
    const int64_t statistics[2] = { dy->shape[0], call->args[GROUPS].as.i };
    BP_TRY(bp_need_shape(call, G_MEAN, 2, statistics));
    BP_TRY(bp_need_shape(call, G_INV, 2, statistics));
    bp_out(call, 0, dy->dtype, dy->ndim, dy->shape);
    bp_out(call, 1, dy->dtype, 1, &dy->shape[dy->ndim - 1]);
    bp_out(call, 2, dy->dtype, 1, &dy->shape[dy->ndim - 1]);
    return BP_OK;
}

static bp_status group_norm_grad_run(bp_call *call)
{
    job j;
    BP_TRY(start(call, &j, call->in[G_X], true));
    j.dy = bp_data(call->in[G_DY]);
    j.scale = data_of(call->in[G_SCALE]);
    j.mean = bp_data(call->in[G_MEAN]);
    j.inv = bp_data(call->in[G_INV]);
    j.y = bp_data(call->out[0]);
    const bool some = j.pixels * j.c > 0;
    if (some) bp_parallel(call->ctx, j.n, gradient_chunk, &j);
    for (int64_t i = 0; i < j.c; i++) {
        double scale = 0, shift = 0;
        for (int64_t s = 0; some && s < j.n; s++) scale += j.dscale[s * j.c + i], shift += j.dshift[s * j.c + i];
        bp_element_set(j.dtype, bp_data(call->out[1]), i, scale);
        bp_element_set(j.dtype, bp_data(call->out[2]), i, shift);
    }
    return BP_OK;
}

static void group_norm_gradient(bp_grad *g)
{
    const bp_meta *x = &g->in[X]->m;
    if (g->ctx->grad_enabled || g->dout[1] || g->dout[2]) {
        const int64_t n = x->shape[0], c = x->shape[x->ndim - 1], groups = g->args[GROUPS].as.i;
        const int64_t pixels = n * c > 0 ? bp_count(g->in[X]) / (n * c) : 0;
        const bp_normalised by = { .ndim = 4,
                                   .work = { n, pixels, groups, c / groups },
                                   .channel = { 1, 1, groups, c / groups },
                                   .n_over = 2,
                                   .over = { 1, 3 },
                                   .center = true,
                                   .eps = g->args[EPS].as.f };
        bp__normalise_gradient(g, &by);
        return;
    }
    bp_tensor *in[5] = { g->dout[0], g->in[X], g->in[SCALE], g->out[1], g->out[2] }, *grads[3];
    bp_g_all(g, &bp__op_group_norm_grad, 2, g->args, 5, in, grads);
    for (int i = X; i <= SHIFT; i++)
        if (g->in[i] && g->want[i]) bp_grad_set(g, i, grads[i]);
}

/* ---- rows ---- */

static const bp_option options[] = {
    { .name = "groups",
      .kind = BP_OPT_INT,
      .min = 1,
      .max = 0x1p31,
      .required = true,
      .help = "number of groups; must divide the channels" },
    { .name = "eps", .kind = BP_OPT_FLOAT, .def = 1e-5, .min = 0, .max = 1e300, .help = "added to the variance" },
    { 0 },
};

const bp_op bp__op_group_norm = {
    .name = "group_norm",
    .group = "layers",
    .summary = "normalises groups of channels of every sample",
    .detail = "y = (x - mean) / sqrt(var + eps) * scale + shift, with mean and biased variance over all pixels and the channels of a\n"
              "group, sample by sample. Wu and He, Group normalization, 2018.",
    .inputs =
        (const bp_input[]){
            { "x", 0, "[batch]..[c] values" },
            { "scale", BP_IN_OPTIONAL, "[c], 1 when left out" },
            { "shift", BP_IN_OPTIONAL, "[c], 0 when left out" },
            { 0 },
        },
    .options = options,
    .n_out = 3,
    .outputs = "y: like x; mean: [batch][groups]; inv_std: [batch][groups], 1 / sqrt(var + eps)",
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 1 << X | 1 << SCALE,
    .needs_out = 1 << 1 | 1 << 2,
    .infer = group_norm_infer,
    .run = group_norm_run,
    .gradient = group_norm_gradient,
    .cases =
        (const bp_case[]){
            { "3x4 4 4", "groups=2", 0, 0, 0 },
            { "2x3x2x6' 6 6", "groups=3", 0, 0, 0 },
            { "2x5x4", "groups=1", 0, 0, 0 },
            { "2x3x3 3 -", "groups=3 eps=0.1", 0, 0, 0 },
            { "1x40x36 - 36", "groups=4", 0, 0, 0 },
            { "0x3x4 4 4", "groups=2", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_group_norm_grad = {
    .name = "group_norm_grad",
    .group = "layers",
    .summary = "gradient of group_norm in two passes over a sample",
    .detail = "n = (x - mean) * inv_std;  g = dy * scale;  dx = inv_std * (g - mean(g) - n * mean(g * n));  dscale = sum(dy * n);\n"
              "dshift = sum(dy)\n"
              "Not differentiable itself: where a gradient of a gradient is wanted, it is spelled out in simpler ops instead.",
    .inputs =
        (const bp_input[]){
            { "dy", 0, "[batch]..[c] gradient of y" },
            { "x", 0, "[batch]..[c]" },
            { "scale", BP_IN_OPTIONAL, "[c]" },
            { "mean", 0, "[batch][groups]" },
            { "inv_std", 0, "[batch][groups]" },
            { 0 },
        },
    .options = options,
    .n_out = 3,
    .outputs = "dx: like dy; dscale: [c]; dshift: [c]",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .infer = group_norm_grad_infer,
    .run = group_norm_grad_run,
    .cases =
        (const bp_case[]){
            { "3x4 3x4 4 3x2 3x2", "groups=2", 0.5, 2, 0 },
            { "2x5x6' 2x5x6 - 2x3 2x3", "groups=3", 0.5, 2, 0 },
            { 0 },
        },
};
