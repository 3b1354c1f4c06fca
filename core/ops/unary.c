/* unary.c - functions of one element: arithmetic, powers, exponentials, rounding, clamp. */
#include "elementwise.h"

#include <math.h>

/* ---- gradients: dx = dy * f'(x), written with x or with y, whichever is cheaper ---- */

static void neg_gradient(bp_grad *g) { bp_grad_set(g, 0, G1(g, neg, g->dout[0])); }
static void abs_gradient(bp_grad *g) { bp_grad_set(g, 0, G2(g, mul, g->dout[0], G1(g, sign, g->in[0]))); }
static void square_gradient(bp_grad *g) { bp_grad_set(g, 0, G2(g, mul, bp__g_times(g, g->dout[0], 2), g->in[0])); }
static void sqrt_gradient(bp_grad *g) { bp_grad_set(g, 0, bp__g_times(g, G2(g, div, g->dout[0], g->out[0]), 0.5)); }
static void rsqrt_gradient(bp_grad *g)
{
    bp_tensor *cube = G2(g, mul, g->out[0], G1(g, square, g->out[0]));
    bp_grad_set(g, 0, bp__g_times(g, G2(g, mul, g->dout[0], cube), -0.5));
}
static void reciprocal_gradient(bp_grad *g) { bp_grad_set(g, 0, G1(g, neg, G2(g, mul, g->dout[0], G1(g, square, g->out[0])))); }
static void exp_gradient(bp_grad *g) { bp_grad_set(g, 0, G2(g, mul, g->dout[0], g->out[0])); }
static void expm1_gradient(bp_grad *g) { bp_grad_set(g, 0, G2(g, mul, g->dout[0], bp__g_plus(g, g->out[0], 1))); }
static void log_gradient(bp_grad *g) { bp_grad_set(g, 0, G2(g, div, g->dout[0], g->in[0])); }
static void log1p_gradient(bp_grad *g) { bp_grad_set(g, 0, G2(g, div, g->dout[0], bp__g_plus(g, g->in[0], 1))); }
static void sin_gradient(bp_grad *g) { bp_grad_set(g, 0, G2(g, mul, g->dout[0], G1(g, cos, g->in[0]))); }
static void cos_gradient(bp_grad *g) { bp_grad_set(g, 0, G1(g, neg, G2(g, mul, g->dout[0], G1(g, sin, g->in[0])))); }
static void erf_gradient(bp_grad *g) /* 2 / sqrt(pi) exp(-x^2) */
{
    bp_tensor *bell = G1(g, exp, G1(g, neg, G1(g, square, g->in[0])));
    bp_grad_set(g, 0, bp__g_times(g, G2(g, mul, g->dout[0], bell), M_2_SQRTPI));
}

/* ---- running ---- */

BP_INTEGER_UNARY(neg, 0 - (U)x)
BP_INTEGER_UNARY(abs, x < 0 ? 0 - (U)x : (U)x)
BP_INTEGER_UNARY(sign, (x > 0) - (x < 0))
BP_INTEGER_UNARY(square, (U)x *(U)x)
BP_INTEGER_UNARY(same, x)
#define floor_i32 same_i32
#define floor_i64 same_i64
#define ceil_i32 same_i32
#define ceil_i64 same_i64
#define round_i32 same_i32
#define round_i64 same_i64

#define RUN_FLOAT(name)                          \
    static bp_status name##_run(bp_call *call)   \
    {                                            \
        bp__run_unary(call, BP_UNARY_##name, 0); \
        return BP_OK;                            \
    }
#define RUN_ANY(name)                                                                                    \
    static bp_status name##_run(bp_call *call)                                                           \
    {                                                                                                    \
        const bp_dtype dtype = call->in[0]->m.dtype;                                                     \
        if (bp_is_float(dtype))                                                                          \
            bp__run_unary(call, BP_UNARY_##name, 0);                                                     \
        else                                                                                             \
            bp__elementwise(call->out[0], 1, call->in, dtype == BP_I32 ? name##_i32 : name##_i64, NULL); \
        return BP_OK;                                                                                    \
    }

/* ---- rows ---- */

static const bp_input x_input[] = { { "x", 0, "values of any shape" }, { 0 } };
static const bp_case anywhere[] = {
    { "2x3", "", 0, 0, 0 }, { "s", "", 0, 0, 0 }, { "1", "", 0, 0, 0 }, { "3x1x4'", "", 0, 0, 0 }, { "0x3", "", 0, 0, 0 }, { 0 },
};
static const bp_case positive[] = {
    { "2x3", "", 0.3, 3, 0 }, { "s", "", 0.3, 3, 0 }, { "1", "", 0.3, 3, 0 }, { "3x1x4'", "", 0.3, 3, 0 }, { "0x3", "", 0.3, 3, 0 }, { 0 },
};
enum { VALUE = BP_OP_STRIDED | BP_OP_INPLACE | BP_OP_METHOD };

#define ROW(NAME, SUMMARY, DETAIL, FLAGS, PROMOTE, NEEDS_IN, NEEDS_OUT, GRADIENT, CASES) \
    const bp_op bp__op_##NAME = {                                                        \
        .name = #NAME,                                                                   \
        .group = "elementwise",                                                          \
        .summary = SUMMARY,                                                              \
        .detail = DETAIL,                                                                \
        .inputs = x_input,                                                               \
        .n_out = 1,                                                                      \
        .outputs = "y: like x",                                                          \
        .flags = VALUE | (FLAGS),                                                        \
        .promote = PROMOTE,                                                              \
        .needs_in = NEEDS_IN,                                                            \
        .needs_out = NEEDS_OUT,                                                          \
        .infer = bp_infer_same,                                                          \
        .run = NAME##_run,                                                               \
        .gradient = GRADIENT,                                                            \
        .cases = CASES,                                                                  \
    };
/* A function of floats, whose gradient reads x or reads y; and one that integers keep their dtype through. */
#define READS_X(NAME, SUMMARY, DETAIL, CASES) \
    RUN_FLOAT(NAME)                           \
    ROW(NAME, SUMMARY, DETAIL, 0, BP_PROMOTE_FLOAT, 1, 0, NAME##_gradient, CASES)
#define READS_Y(NAME, SUMMARY, DETAIL, CASES) \
    RUN_FLOAT(NAME)                           \
    ROW(NAME, SUMMARY, DETAIL, 0, BP_PROMOTE_FLOAT, 0, 1, NAME##_gradient, CASES)
#define STEPS(NAME, SUMMARY, DETAIL) \
    RUN_ANY(NAME)                    \
    ROW(NAME, SUMMARY, DETAIL, BP_OP_NO_GRADIENT, BP_PROMOTE_COMMON, 0, 0, NULL, anywhere)

RUN_ANY(neg)
ROW(neg, "the opposite of every element", "y = -x", 0, BP_PROMOTE_COMMON, 0, 0, neg_gradient, anywhere)
RUN_ANY(abs)
ROW(abs, "the absolute value of every element", "y = |x|. The gradient at 0 is 0.", BP_OP_KINKED, BP_PROMOTE_COMMON, 1, 0, abs_gradient,
    anywhere)
RUN_ANY(square)
ROW(square, "every element times itself", "y = x * x", 0, BP_PROMOTE_COMMON, 1, 0, square_gradient, anywhere)

STEPS(sign, "the sign of every element",
      "y = 1 for x > 0, -1 for x < 0, else x (0 or NaN). Flat almost everywhere, so it passes no gradient.")
STEPS(floor, "every element rounded down", "The greatest whole number y <= x. Integers stay as they are. It passes no gradient.")
STEPS(ceil, "every element rounded up", "The least whole number y >= x. Integers stay as they are. It passes no gradient.")
STEPS(round, "every element rounded to the nearest whole number",
      "Halves go to the even neighbour: 0.5 to 0, 1.5 to 2. Integers stay as they are. It passes no gradient.")

READS_Y(sqrt, "the square root of every element", "y = sqrt(x); NaN for x < 0. dx = dy / (2 y)", positive)
READS_Y(rsqrt, "one over the square root of every element", "y = 1 / sqrt(x); infinite at 0. dx = -dy y^3 / 2", positive)
READS_Y(reciprocal, "one over every element", "y = 1 / x; infinite at 0. dx = -dy y^2", positive)
READS_Y(exp, "e to the power of every element", "y = exp(x); infinite in f32 from 88.73 on. dx = dy y", anywhere)
READS_Y(expm1, "exp(x) - 1, exact for small x", "y = exp(x) - 1. dx = dy (y + 1)", anywhere)
READS_X(log, "the natural logarithm of every element", "y = log(x); -infinite at 0, NaN below. dx = dy / x", positive)
READS_X(log1p, "log(1 + x), exact for small x", "y = log(1 + x); -infinite at -1, NaN below. dx = dy / (1 + x)", positive)
READS_X(sin, "the sine of every element", "y = sin(x), x in radians. dx = dy cos(x)", anywhere)
READS_X(cos, "the cosine of every element", "y = cos(x), x in radians. dx = -dy sin(x)", anywhere)
READS_X(erf, "the error function of every element",
        "y = 2/sqrt(pi) times the integral of exp(-t^2) for t from 0 to x. dx = dy 2/sqrt(pi) exp(-x^2)", anywhere)

/* ---- clamp ---- */

static const bp_option clamp_options[] = {
    { .name = "min", .kind = BP_OPT_FLOAT, .def = -INFINITY, .min = 1, .max = 0, .help = "what lies below becomes this" },
    { .name = "max", .kind = BP_OPT_FLOAT, .def = INFINITY, .min = 1, .max = 0, .help = "what lies above becomes this" },
    { 0 },
};

typedef struct clamp_bounds {
    bp_ctx *ctx;
    bp_dtype dtype;
    double min, max;
    int64_t lowest, highest; /* the whole numbers between them */
} clamp_bounds;

/* max(x, min), then min(that, max): two kernels over elements that are still in the cache. */
static void clamp_float(int64_t n, char *const *p, const int64_t *s, const void *arg)
{
    const clamp_bounds *b = (const clamp_bounds *)arg;
    const bp_kernels *k = bp_kernels_of(b->ctx, b->dtype);
    const float min = (float)b->min, max = (float)b->max;
    const bool f32 = b->dtype == BP_F32;
    k->binary[BP_BINARY_maximum](n, p[1], s[1], f32 ? (const void *)&min : &b->min, 0, p[0], s[0], 0);
    k->binary[BP_BINARY_minimum](n, p[0], s[0], f32 ? (const void *)&max : &b->max, 0, p[0], s[0], 0);
}

#define CLAMP_INTEGER(name, T, LEAST, MOST)                                                    \
    static void name(int64_t n, char *const *p, const int64_t *s, const void *arg)             \
    {                                                                                          \
        const clamp_bounds *b = (const clamp_bounds *)arg;                                     \
        const T min = (T)(b->lowest < LEAST ? LEAST : b->lowest > MOST ? MOST : b->lowest);    \
        const T max = (T)(b->highest < LEAST ? LEAST : b->highest > MOST ? MOST : b->highest); \
        for (int64_t i = 0; i < n; i++) {                                                      \
            const T x = ((const T *)(const void *)p[1])[i * s[1]];                             \
            ((T *)(void *)p[0])[i * s[0]] = x < min ? min : x > max ? max : x;                 \
        }                                                                                      \
    }
CLAMP_INTEGER(clamp_i32, int32_t, INT32_MIN, INT32_MAX)
CLAMP_INTEGER(clamp_i64, int64_t, INT64_MIN, INT64_MAX)

static int64_t to_whole(double v) { return v <= -0x1p63 ? INT64_MIN : v >= 0x1p63 ? INT64_MAX : (int64_t)v; }

static clamp_bounds bounds_of(const bp_call *call)
{
    const double min = call->args[0].as.f, max = call->args[1].as.f;
    return (clamp_bounds){ call->ctx, call->in[0]->m.dtype, min, max, to_whole(ceil(min)), to_whole(floor(max)) };
}

static bp_status clamp_infer(bp_call *call)
{
    if (!(call->args[0].as.f <= call->args[1].as.f))
        return bp_op_fail(call, BP_EINVAL, "min is %g and max is %g; min must not exceed max", call->args[0].as.f, call->args[1].as.f);
    return bp_infer_same(call);
}

static bp_status clamp_run(bp_call *call)
{
    const clamp_bounds b = bounds_of(call);
    const bp_dtype dtype = call->in[0]->m.dtype;
    bp__elementwise(call->out[0], 1, call->in, bp_is_float(dtype) ? clamp_float : dtype == BP_I32 ? clamp_i32 : clamp_i64, &b);
    return BP_OK;
}

static void clamp_gradient(bp_grad *g) { bp_grad_set(g, 0, bp_g(g, &bp__op_clamp_grad, 2, g->args, 2, g->dout[0], g->in[0])); }

const bp_op bp__op_clamp = {
    .name = "clamp",
    .group = "elementwise",
    .summary = "every element kept between two bounds",
    .detail = "y = min(max(x, min), max); NaN stays. dx = dy where min <= x <= max, else 0.",
    .inputs = x_input,
    .options = clamp_options,
    .n_out = 1,
    .outputs = "y: like x",
    .flags = VALUE | BP_OP_KINKED,
    .promote = BP_PROMOTE_COMMON,
    .needs_in = 1,
    .infer = clamp_infer,
    .run = clamp_run,
    .gradient = clamp_gradient,
    .cases = (const bp_case[]){ { "3x4", "min=-0.05 max=0.05", 0, 0, 0 },
                                { "1", "min=0.05", 0, 0, 0 },
                                { "2x1x3'", "max=-0.05", 0, 0, 0 },
                                { "5", "", 0, 0, 0 },
                                { "0", "min=0", 0, 0, 0 },
                                { 0 } },
};

#define CLAMP_GRAD(name, T)                                                                                        \
    static void name(int64_t n, char *const *p, const int64_t *s, const void *arg)                                 \
    {                                                                                                              \
        const clamp_bounds *b = (const clamp_bounds *)arg;                                                         \
        const T min = (T)b->min, max = (T)b->max;                                                                  \
        for (int64_t i = 0; i < n; i++) {                                                                          \
            const T dy = ((const T *)(const void *)p[1])[i * s[1]], x = ((const T *)(const void *)p[2])[i * s[2]]; \
            ((T *)(void *)p[0])[i * s[0]] = x < min || x > max ? 0 : dy;                                           \
        }                                                                                                          \
    }
CLAMP_GRAD(clamp_grad_f32, float)
CLAMP_GRAD(clamp_grad_f64, double)

static bp_status clamp_grad_infer(bp_call *call)
{
    BP_TRY(bp_need_shape(call, 0, call->in[1]->m.ndim, call->in[1]->m.shape));
    return clamp_infer(call);
}

static bp_status clamp_grad_run(bp_call *call)
{
    const clamp_bounds b = bounds_of(call);
    bp__elementwise(call->out[0], 2, call->in, call->in[0]->m.dtype == BP_F32 ? clamp_grad_f32 : clamp_grad_f64, &b);
    return BP_OK;
}

static void clamp_grad_gradient(bp_grad *g) { bp_grad_set(g, 0, bp_g(g, &bp__op_clamp_grad, 2, g->args, 2, g->dout[0], g->in[1])); }

const bp_op bp__op_clamp_grad = {
    .name = "clamp_grad",
    .group = "elementwise",
    .summary = "gradient of clamp",
    .detail = "dx = dy where min <= x <= max, else 0",
    .inputs = (const bp_input[]){ { "dy", 0, "gradient of clamp's result" }, { "x", 0, "what clamp was given" }, { 0 } },
    .options = clamp_options,
    .n_out = 1,
    .outputs = "dx: like x",
    .flags = BP_OP_STRIDED | BP_OP_INTERNAL | BP_OP_KINKED,
    .promote = BP_PROMOTE_FLOAT,
    .needs_in = 2,
    .infer = clamp_grad_infer,
    .run = clamp_grad_run,
    .gradient = clamp_grad_gradient,
    .cases = (const bp_case[]){ { "3x4 3x4", "min=-0.05 max=0.05", 0, 0, 0 },
                                { "1 1", "min=0.05", 0, 0, 0 },
                                { "2x1x3' 2x1x3'", "max=-0.05", 0, 0, 0 },
                                { 0 } },
};
