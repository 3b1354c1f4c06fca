/* random.c - random tensors and dropout. A draw is a function of the state's (key, step) and of the position (base/random.h): the state's
 * step goes up by one per draw, and the shape of a draw does not matter to the next. */
#include "elementwise.h"

#include "../base/random.h"

#include <math.h>

#define STATE_INPUT                                                                                                \
    {                                                                                                              \
        "state", BP_IN_STREAM | BP_IN_OPTIONAL, "i64[2] {key, step}, advanced by one; left out: the context's own" \
    }
static const bp_input state_input[] = { STATE_INPUT, { 0 } };

#define SHAPE_OPTION                                                                                                                     \
    {                                                                                                                                    \
        .name = "shape", .kind = BP_OPT_INTS, .min = 0, .max = 0x1p62, .required = true, .help = "of the result; {} for a single number" \
    }
#define DTYPE_OPTION(default_)                                                                              \
    {                                                                                                       \
        .name = "dtype", .kind = BP_OPT_DTYPE, .def = default_, .min = 1, .max = 0, .help = "of the result" \
    }

static bp_status shape_infer(bp_call *call, bp_dtype dtype)
{
    const bp_arg *shape = &call->args[0];
    if (bp_shape_count(shape->count, shape->as.list) < 0) {
        char text[200];
        return bp_op_fail(call, BP_EINVAL, "shape %s has more elements than can be addressed",
                          bp_shape_text(shape->count, shape->as.list, text));
    }
    bp_out(call, 0, dtype, shape->count, shape->as.list);
    return BP_OK;
}

/* ---- uniform and normal ---- */

typedef struct draw {
    const bp_kernels *kernels;
    bool normal;
    uint64_t key, step;
    int64_t n;
    size_t size;
    double scale, shift; /* y = shift + scale * draw */
    char *y;
    bp_dtype dtype;
} draw;

static void draw_chunk(void *arg, int64_t number, int worker)
{
    const draw *d = (const draw *)arg;
    const int64_t first = number * BP_ELEMENT_GRAIN, n = d->n - first < BP_ELEMENT_GRAIN ? d->n - first : BP_ELEMENT_GRAIN;
    char *y = d->y + (size_t)first * d->size;
    const float shift = (float)d->shift;
    (void)worker;
    (d->normal ? d->kernels->random_normal : d->kernels->random_uniform)(n, d->key, d->step, (uint64_t)first, y);
    if (d->scale != 1) d->kernels->unary[BP_UNARY_scale](n, y, 1, y, 1, d->scale);
    if (d->shift != 0) d->kernels->binary[BP_BINARY_add](n, y, 1, d->dtype == BP_F32 ? (const void *)&shift : &d->shift, 0, y, 1, 0);
}

static bp_status draw_float(bp_call *call, bool normal, double scale, double shift)
{
    const bp_tensor *y = call->out[0];
    draw d = { .kernels = bp_kernels_of(call->ctx, y->m.dtype),
               .normal = normal,
               .n = bp_count(y),
               .size = bp_dtype_size(y->m.dtype),
               .scale = scale,
               .shift = shift,
               .y = bp_data(y),
               .dtype = y->m.dtype };
    bp_draw(call->in[0], &d.key, &d.step);
    bp_parallel(call->ctx, bp_chunks(d.n, BP_ELEMENT_GRAIN), draw_chunk, &d);
    return BP_OK;
}

static bp_status float_infer(bp_call *call)
{
    const bp_dtype dtype = (bp_dtype)call->args[3].as.i;
    if (!bp_is_float(dtype))
        return bp_op_fail(call, BP_EINVAL, "dtype is %s; f32 or f64 is expected (random_integers draws whole numbers)",
                          bp_dtype_name(dtype));
    return shape_infer(call, dtype);
}

static bp_status random_uniform_infer(bp_call *call)
{
    const double low = call->args[1].as.f, high = call->args[2].as.f;
    if (!(low <= high) || !isfinite(high - low))
        return bp_op_fail(call, BP_EINVAL, "low is %g and high is %g; low must not exceed high", low, high);
    return float_infer(call);
}
static bp_status random_uniform_run(bp_call *call)
{
    return draw_float(call, false, call->args[2].as.f - call->args[1].as.f, call->args[1].as.f);
}
static bp_status random_normal_run(bp_call *call) { return draw_float(call, true, call->args[2].as.f, call->args[1].as.f); }

const bp_op bp__op_random_uniform = {
    .name = "random_uniform",
    .group = "random",
    .summary = "numbers spread evenly between two bounds",
    .detail = "y = low + (high - low) u with u in [0, 1) of 24 random bits, in f64 of 32. Rounding may make y equal to high.",
    .inputs = state_input,
    .options = (const bp_option[]){ SHAPE_OPTION,
                                    { .name = "low", .kind = BP_OPT_FLOAT, .def = 0, .min = 1, .max = 0, .help = "the least value" },
                                    { .name = "high",
                                      .kind = BP_OPT_FLOAT,
                                      .def = 1,
                                      .min = 1,
                                      .max = 0,
                                      .help = "what values stay below" },
                                    DTYPE_OPTION(BP_F32),
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: shape",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .stream = BP_STREAM_INIT,
    .infer = random_uniform_infer,
    .run = random_uniform_run,
    .cases = (const bp_case[]){ { "rng", "shape=2,3", 0, 0, 0 },
                                { "rng", "shape=7 low=-1 high=3", 0, 0, 0 },
                                { "rng", "shape=0,2", 0, 0, 0 },
                                { 0 } },
};

const bp_op bp__op_random_normal = {
    .name = "random_normal",
    .group = "random",
    .summary = "numbers from a normal distribution",
    .detail = "y = mean + std z, z by the method of Box and Muller; |z| < 6.8.",
    .inputs = state_input,
    .options = (const bp_option
                    []){ SHAPE_OPTION,
                         { .name = "mean", .kind = BP_OPT_FLOAT, .def = 0, .min = -1e300, .max = 1e300, .help = "of the distribution" },
                         { .name = "std", .kind = BP_OPT_FLOAT, .def = 1, .min = 0, .max = 1e300, .help = "its standard deviation" },
                         DTYPE_OPTION(BP_F32),
                         { 0 } },
    .n_out = 1,
    .outputs = "y: shape",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .stream = BP_STREAM_INIT,
    .infer = float_infer,
    .run = random_normal_run,
    .cases = (const bp_case[]){ { "rng", "shape=2,3", 0, 0, 0 },
                                { "rng", "shape=7 mean=2 std=0.5", 0, 0, 0 },
                                { "rng", "shape=0,2", 0, 0, 0 },
                                { 0 } },
};

/* ---- integers ---- */

/* 64 random bits for position i: two words of a block of its own. */
static uint64_t bits_at(uint64_t key, uint64_t step, uint64_t i)
{
    uint32_t w[4];
    bp_philox(key, step, i, w);
    return (uint64_t)w[0] << 32 | w[1];
}
/* 0..span-1, each with a chance that is off by at most span / 2^64: the upper half of bits * span (Lemire, 2019). span 0 stands for 2^64.
 */
static uint64_t below(uint64_t bits, uint64_t span) { return span ? (uint64_t)(((unsigned __int128)bits * span) >> 64) : bits; }

typedef struct integers {
    uint64_t key, step, span;
    int64_t low, n;
    bp_dtype dtype;
    char *y;
} integers;

static void integers_chunk(void *arg, int64_t number, int worker)
{
    const integers *d = (const integers *)arg;
    const int64_t first = number * BP_ELEMENT_GRAIN, end = d->n - first < BP_ELEMENT_GRAIN ? d->n : first + BP_ELEMENT_GRAIN;
    (void)worker;
    for (int64_t i = first; i < end; i++) {
        const int64_t v = (int64_t)((uint64_t)d->low + below(bits_at(d->key, d->step, (uint64_t)i), d->span));
        if (d->dtype == BP_I64)
            ((int64_t *)(void *)d->y)[i] = v;
        else if (d->dtype == BP_I32)
            ((int32_t *)(void *)d->y)[i] = (int32_t)v;
        else
            ((uint8_t *)d->y)[i] = (uint8_t)v;
    }
}

static bp_status random_integers_infer(bp_call *call)
{
    const int64_t low = call->args[1].as.i, high = call->args[2].as.i;
    const bp_dtype dtype = (bp_dtype)call->args[3].as.i;
    if (bp_is_float(dtype))
        return bp_op_fail(call, BP_EINVAL, "dtype is %s; an integer dtype is expected (random_uniform draws floats)", bp_dtype_name(dtype));
    if (low > high)
        return bp_op_fail(call, BP_EINVAL, "low is %lld and high is %lld; low must not exceed high", (long long)low, (long long)high);
    const int64_t least = dtype == BP_I64 ? INT64_MIN : dtype == BP_I32 ? INT32_MIN : 0;
    const int64_t most = dtype == BP_I64 ? INT64_MAX : dtype == BP_I32 ? INT32_MAX : dtype == BP_U8 ? UINT8_MAX : 1;
    if (low < least || high > most)
        return bp_op_fail(call, BP_EINVAL, "%lld to %lld do not fit into %s, which holds %lld to %lld", (long long)low, (long long)high,
                          bp_dtype_name(dtype), (long long)least, (long long)most);
    return shape_infer(call, dtype);
}

static bp_status random_integers_run(bp_call *call)
{
    const bp_tensor *y = call->out[0];
    integers d = { .span = (uint64_t)call->args[2].as.i - (uint64_t)call->args[1].as.i + 1,
                   .low = call->args[1].as.i,
                   .n = bp_count(y),
                   .dtype = y->m.dtype,
                   .y = bp_data(y) };
    bp_draw(call->in[0], &d.key, &d.step);
    bp_parallel(call->ctx, bp_chunks(d.n, BP_ELEMENT_GRAIN), integers_chunk, &d);
    return BP_OK;
}

const bp_op bp__op_random_integers = {
    .name = "random_integers",
    .group = "random",
    .summary = "whole numbers, each as likely as the other",
    .detail = "low <= y <= high, both ends included.",
    .inputs = state_input,
    .options = (const bp_option[]){ SHAPE_OPTION,
                                    { .name = "low", .kind = BP_OPT_INT, .min = 1, .max = 0, .required = true, .help = "the least value" },
                                    { .name = "high",
                                      .kind = BP_OPT_INT,
                                      .min = 1,
                                      .max = 0,
                                      .required = true,
                                      .help = "the greatest value" },
                                    DTYPE_OPTION(BP_I64),
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: shape",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .stream = BP_STREAM_INIT,
    .infer = random_integers_infer,
    .run = random_integers_run,
    .cases = (const bp_case[]){ { "rng", "shape=2,3 low=1 high=6", 0, 0, 0 },
                                { "rng", "shape=7 low=-3 high=3 dtype=i32", 0, 0, 0 },
                                { "rng", "shape=0 low=0 high=0", 0, 0, 0 },
                                { 0 } },
};

static bp_status random_permutation_infer(bp_call *call)
{
    bp_out(call, 0, BP_I64, 1, &call->args[0].as.i);
    return BP_OK;
}

/* Fisher and Yates: the last place takes one of all, the one before it one of the rest, and so on. Place i takes words 2i and 2i + 1 of the
 * draw. */
static bp_status random_permutation_run(bp_call *call)
{
    enum { PLACES = 256 }; /* whose words are made at a time */
    const int64_t n = bp_count(call->out[0]);
    int64_t *y = (int64_t *)(void *)bp_data(call->out[0]);
    const bp_kernels *kernels = bp_kernels_of(call->ctx, BP_F32);
    uint64_t key, step;
    uint32_t w[2 * PLACES];
    bp_draw(call->in[0], &key, &step);
    for (int64_t i = 0; i < n; i++) y[i] = i + call->ctx->base;
    for (int64_t end = n, first; end > 0; end = first) {
        first = (end - 1) / PLACES * PLACES;
        kernels->random_words(2 * PLACES, key, step, 2 * (uint64_t)first, w);
        for (int64_t i = end - 1; i >= first; i--) {
            const uint32_t *mine = w + 2 * (i - first);
            const int64_t k = (int64_t)below((uint64_t)mine[0] << 32 | mine[1], (uint64_t)i + 1), last = y[i];
            y[i] = y[k];
            y[k] = last;
        }
    }
    return BP_OK;
}

const bp_op bp__op_random_permutation = {
    .name = "random_permutation",
    .group = "random",
    .summary = "the positions of n things in random order",
    .detail = "Every order is equally likely (Fisher and Yates).",
    .inputs = state_input,
    .options = (const bp_option[]){ { .name = "n", .kind = BP_OPT_INT, .min = 0, .max = 0x1p40, .required = true, .help = "how many" },
                                    { 0 } },
    .n_out = 1,
    .outputs = "y: i64[n] positions",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .stream = BP_STREAM_SHUFFLE,
    .infer = random_permutation_infer,
    .run = random_permutation_run,
    .cases = (const bp_case[]){ { "rng", "n=5", 0, 0, 0 }, { "rng", "n=1", 0, 0, 0 }, { "rng", "n=0", 0, 0, 0 }, { 0 } },
};

/* ---- dropout ---- */

static bp_status dropout_infer(bp_call *call)
{
    const bp_tensor *used = call->in[2];
    if (used && (used->m.dtype != BP_I64 || used->m.ndim != 1 || used->m.shape[0] != 2 || !bp_tensor_is_contiguous(used)))
        return bp_op_fail(call, BP_EINVAL, "'used' must be i64[2], the second result of another dropout");
    const int64_t two = 2;
    bp_out(call, 1, BP_I64, 1, &two);
    return bp_infer_same(call);
}

typedef struct dropping {
    const bp_kernels *kernels;
    uint64_t key, step;
    int64_t n;
    size_t size;
    double p;
    const char *x;
    char *y;
} dropping;

static void dropout_chunk(void *arg, int64_t number, int worker)
{
    const dropping *d = (const dropping *)arg;
    const int64_t first = number * BP_ELEMENT_GRAIN, n = d->n - first < BP_ELEMENT_GRAIN ? d->n - first : BP_ELEMENT_GRAIN;
    const size_t at = (size_t)first * d->size;
    (void)worker;
    d->kernels->dropout(n, d->key, d->step, (uint64_t)first, d->p, d->x + at, d->y + at);
}

static bp_status dropout_run(bp_call *call)
{
    const bp_tensor *x = call->in[0];
    int64_t *used = (int64_t *)(void *)bp_data(call->out[1]);
    dropping d = { .kernels = bp_kernels_of(call->ctx, x->m.dtype),
                   .n = bp_count(x),
                   .size = bp_dtype_size(x->m.dtype),
                   .p = call->args[0].as.f,
                   .x = bp_data(x),
                   .y = bp_data(call->out[0]) };
    if (call->in[2]) {
        const int64_t *again = (const int64_t *)(const void *)bp_data(call->in[2]);
        d.key = (uint64_t)again[0], d.step = (uint64_t)again[1];
    } else
        bp_draw(call->in[1], &d.key, &d.step);
    used[0] = (int64_t)d.key, used[1] = (int64_t)d.step;
    bp_parallel(call->ctx, bp_chunks(d.n, BP_ELEMENT_GRAIN), dropout_chunk, &d);
    return BP_OK;
}

/* The same elements are dropped from dy: the mask is made again from what was used. */
static void dropout_gradient(bp_grad *g)
{
    if (g->dout[0]) bp_grad_set(g, 0, bp_g(g, &bp__op_dropout, 1, g->args, 3, g->dout[0], (bp_tensor *)NULL, g->out[1]));
}

#define CHANCE_OPTION                                                                                                          \
    {                                                                                                                          \
        .name = "p", .kind = BP_OPT_FLOAT, .def = 0.5, .min = 0, .max = 1, .help = "chance of an element to be dropped"        \
    }

const bp_op bp__op_dropout = {
    .name = "dropout",
    .group = "random",
    .summary = "sets a random part of the elements to zero and scales the others up",
    .detail = "y = x / (1 - p) with probability 1 - p, else 0, so that the mean stays. No mask is kept: the second result says which draw\n"
              "was used; given back as `used` it drops the same elements. The chance is taken to the nearest 1/65536.\n"
              "Srivastava and others, \"Dropout: a simple way to prevent neural networks from overfitting\", JMLR 2014.",
    .inputs = (const bp_input[]){ { "x", 0, "values of any shape" },
                                  STATE_INPUT,
                                  { "used", BP_IN_RAW | BP_IN_OPTIONAL,
                                    "i64[2] {key, step} of an earlier draw to repeat; the state then stays as it is" },
                                  { 0 } },
    .options = (const bp_option[]){ CHANCE_OPTION, { 0 } },
    .n_out = 2,
    .outputs = "y: like x; used: i64[2] {key, step} of the draw",
    .flags = 0,
    .promote = BP_PROMOTE_FLOAT,
    .needs_out = 2,
    .over = { 1 },
    .stream = BP_STREAM_DROPOUT,
    .infer = dropout_infer,
    .run = dropout_run,
    .gradient = dropout_gradient,
    .cases = (const bp_case[]){ { "2x3 rng", "p=0.5", 0, 0, 0 },
                                { "1 rng", "p=0", 0, 0, 0 },
                                { "4x5' rng", "p=0.25", 0, 0, 0 },
                                { "s rng", "p=1", 0, 0, 0 },
                                { "0x3 rng", "p=0.5", 0, 0, 0 },
                                { 0 } },
};

/* ---- relu and dropout together ---- */

static bp_status relu_dropout_grad_infer(bp_call *call)
{
    BP_TRY(bp_need_shape(call, 0, call->in[1]->m.ndim, call->in[1]->m.shape));
    return bp_infer_same(call);
}

static bp_status relu_dropout_grad_run(bp_call *call)
{
    const double p = call->args[0].as.f;
    bp__run_binary(call, BP_BINARY_relu_dropout_grad, p < 1 ? 1 / (1 - p) : 0);
    return BP_OK;
}

static void relu_dropout_grad_gradient(bp_grad *g) { bp_grad_set(g, 0, bp_g(g, g->op, 1, g->args, 2, g->dout[0], g->in[1])); }

const bp_op bp__op_relu_dropout_grad = {
    .name = "relu_dropout_grad",
    .group = "random",
    .summary = "gradient of dropout(relu(x)), from its result alone",
    .detail = "dx = dy / (1 - p) where y > 0, else 0.\n"
              "The result is zero wherever relu or dropout made it so: no draw need be repeated.",
    .inputs = (const bp_input[]){ { "dy", 0, "gradient of the result" }, { "y", 0, "the result" }, { 0 } },
    .options = (const bp_option[]){ CHANCE_OPTION, { 0 } },
    .n_out = 1,
    .outputs = "dx: like dy",
    .flags = BP_OP_STRIDED | BP_OP_INTERNAL | BP_OP_KINKED,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 2,
    .over = { 3 },
    .infer = relu_dropout_grad_infer,
    .run = relu_dropout_grad_run,
    .gradient = relu_dropout_grad_gradient,
    .cases = (const bp_case[]){ { "2x3 2x3", "p=0.5", 0, 0, 0 },
                                { "1 1", "p=0", 0, 0, 0 },
                                { "3x1x4' 3x1x4'", "p=0.25", 0, 0, 0 },
                                { "2 2", "p=1", 0, 0, 0 },
                                { 0 } },
};
