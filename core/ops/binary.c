/* binary.c - arithmetic on two tensors that broadcast against each other. */
#include "elementwise.h"

/* ---- gradients, summed back to each operand's shape ---- */

static void give(bp_grad *g, int i, bp_tensor *t) { bp_grad_set(g, i, bp_g_unbroadcast(g, t, g->in[i])); }

static void add_gradient(bp_grad *g)
{
    if (g->want[0]) give(g, 0, g->dout[0]);
    if (g->want[1]) give(g, 1, g->dout[0]);
}
static void sub_gradient(bp_grad *g)
{
    if (g->want[0]) give(g, 0, g->dout[0]);
    if (g->want[1]) give(g, 1, G1(g, neg, g->dout[0]));
}
static void mul_gradient(bp_grad *g)
{
    if (g->want[0]) give(g, 0, G2(g, mul, g->dout[0], g->in[1]));
    if (g->want[1]) give(g, 1, G2(g, mul, g->dout[0], g->in[0]));
}
/* da = dy / b, db = -dy a / b^2 */
static void div_gradient(bp_grad *g)
{
    bp_tensor *da = G2(g, div, g->dout[0], g->in[1]);
    if (g->want[0]) give(g, 0, da);
    if (g->want[1]) give(g, 1, G1(g, neg, G2(g, mul, da, G2(g, div, g->in[0], g->in[1]))));
}
/* da = dy b a^(b-1), db = dy a^b log(a), taken as 0 where a = 0 */
static void pow_gradient(bp_grad *g)
{
    bp_tensor *a = g->in[0], *b = g->in[1];
    if (g->want[0]) give(g, 0, G2(g, mul, g->dout[0], G2(g, mul, b, G2(g, pow, a, bp__g_plus(g, b, -1)))));
    if (!g->want[1]) return;
    bp_tensor *zero = G2(g, eq, a, bp_g_number(g, a, 0)), *log_a = G1(g, log, G3(g, where, zero, bp_g_number(g, a, 1), a));
    give(g, 1, G2(g, mul, g->dout[0], G2(g, mul, G2(g, pow, a, b), log_a)));
}
/* da = dy, db = -dy floor(a/b) */
static void mod_gradient(bp_grad *g)
{
    if (g->want[0]) give(g, 0, g->dout[0]);
    if (g->want[1]) give(g, 1, G1(g, neg, G2(g, mul, g->dout[0], G1(g, floor, G2(g, div, g->in[0], g->in[1])))));
}
/* The winner takes dy; equal ones take half each. */
static void extreme(bp_grad *g, bp_tensor *first_wins)
{
    bp_tensor *half = bp__g_times(g, g->dout[0], 0.5), *none = bp_g_number(g, g->dout[0], 0), *even = G2(g, eq, g->in[0], g->in[1]);
    if (g->want[0]) give(g, 0, G3(g, where, even, half, G3(g, where, first_wins, g->dout[0], none)));
    if (g->want[1]) give(g, 1, G3(g, where, even, half, G3(g, where, first_wins, none, g->dout[0])));
}
static void maximum_gradient(bp_grad *g) { extreme(g, G2(g, gt, g->in[0], g->in[1])); }
static void minimum_gradient(bp_grad *g) { extreme(g, G2(g, lt, g->in[0], g->in[1])); }

/* ---- running ---- */

#define INTEGER_BINARY(name, value)                                 \
    BP_INTEGER_LOOP2(name##_i32, int32_t, uint32_t, int32_t, value) \
    BP_INTEGER_LOOP2(name##_i64, int64_t, uint64_t, int64_t, value)
INTEGER_BINARY(add, (U)a + (U)b)
INTEGER_BINARY(sub, (U)a - (U)b)
INTEGER_BINARY(mul, (U)a *(U)b)
INTEGER_BINARY(maximum, a > b ? a : b)
INTEGER_BINARY(minimum, a < b ? a : b)
/* The sign of b; b == -1 apart, because the least integer cannot be divided by it. */
INTEGER_BINARY(mod, b == -1 ? 0 : a % b != 0 && ((a ^ b) < 0) ? a % b + b : a % b)

#define RUN_ANY(name)                                                                                    \
    static bp_status name##_run(bp_call *call)                                                           \
    {                                                                                                    \
        const bp_dtype dtype = call->in[0]->m.dtype;                                                     \
        if (bp_is_float(dtype))                                                                          \
            bp__run_binary(call, BP_BINARY_##name, 0);                                                   \
        else                                                                                             \
            bp__elementwise(call->out[0], 2, call->in, dtype == BP_I32 ? name##_i32 : name##_i64, NULL); \
        return BP_OK;                                                                                    \
    }
RUN_ANY(add)
RUN_ANY(sub)
RUN_ANY(mul)
RUN_ANY(maximum)
RUN_ANY(minimum)

static bp_status div_run(bp_call *call)
{
    bp__run_binary(call, BP_BINARY_div, 0);
    return BP_OK;
}

/* Some powers are one instruction when the exponent is one number for all. */
static bp_status pow_run(bp_call *call)
{
    static const struct {
        double exponent;
        bp_unary_id kernel;
    } easy[] = {
        { 1, BP_UNARY_copy }, { 2, BP_UNARY_square }, { 0.5, BP_UNARY_sqrt }, { -1, BP_UNARY_reciprocal }, { -0.5, BP_UNARY_rsqrt }
    };
    const bp_tensor *b = call->in[1];
    if (bp_count(b) == 1) {
        const void *data = bp_data(b);
        const double exponent = b->m.dtype == BP_F32 ? (double)*(const float *)data : *(const double *)data;
        for (size_t i = 0; i < sizeof easy / sizeof *easy; i++)
            if (exponent == easy[i].exponent) {
                bp__run_unary(call, easy[i].kernel, 0);
                return BP_OK;
            }
    }
    bp__run_binary(call, BP_BINARY_pow, 0);
    return BP_OK;
}

static void find_zero_i32(int64_t n, char *const *p, const int64_t *s, const void *arg)
{
    bool *found = *(bool *const *)arg;
    for (int64_t i = 0; i < n; i++)
        if (((const int32_t *)(const void *)p[0])[i * s[0]] == 0) __atomic_store_n(found, true, __ATOMIC_RELAXED);
}
static void find_zero_i64(int64_t n, char *const *p, const int64_t *s, const void *arg)
{
    bool *found = *(bool *const *)arg;
    for (int64_t i = 0; i < n; i++)
        if (((const int64_t *)(const void *)p[0])[i * s[0]] == 0) __atomic_store_n(found, true, __ATOMIC_RELAXED);
}

static bp_status mod_run(bp_call *call)
{
    const bp_dtype dtype = call->in[0]->m.dtype;
    if (bp_is_float(dtype)) {
        bp__run_binary(call, BP_BINARY_mod, 0);
        return BP_OK;
    }
    bool zero = false, *found = &zero;
    bp__elementwise(call->in[1], 0, NULL, dtype == BP_I32 ? find_zero_i32 : find_zero_i64, &found);
    if (zero && bp_count(call->out[0]) > 0)
        return bp_op_fail(call, BP_EINVAL, "'b' holds a zero, and integers have no remainder modulo 0; cast to f32 if NaN will do");
    bp__elementwise(call->out[0], 2, call->in, dtype == BP_I32 ? mod_i32 : mod_i64, NULL);
    return BP_OK;
}

/* ---- rows ---- */

static const bp_input a_b[] = { { "a", 0, "values" }, { "b", 0, "values; shapes broadcast as in NumPy" }, { 0 } };
static const bp_case anywhere[] = {
    { "2x3 2x3", "", 0, 0, 0 },  { "1 1", "", 0, 0, 0 },       { "2x3 s", "", 0, 0, 0 },
    { "s 2x3", "", 0, 0, 0 },    { "4x1x3 2x1", "", 0, 0, 0 }, { "2x3' 2x3'", "", 0, 0, 0 },
    { "5x4 5x1'", "", 0, 0, 0 }, { "0x3 3", "", 0, 0, 0 },     { 0 },
};
static const bp_case away_from_zero[] = {
    { "2x3 2x3", "", 0.4, 2, 0 },  { "1 1", "", 0.4, 2, 0 },       { "2x3 s", "", 0.4, 2, 0 },
    { "s 2x3", "", 0.4, 2, 0 },    { "4x1x3 2x1", "", 0.4, 2, 0 }, { "2x3' 2x3'", "", 0.4, 2, 0 },
    { "5x4 5x1'", "", 0.4, 2, 0 }, { "0x3 3", "", 0.4, 2, 0 },     { 0 },
};

#define ROW(NAME, SUMMARY, DETAIL, FLAGS, PROMOTE, NEEDS_IN, CASES)      \
    const bp_op bp__op_##NAME = {                                        \
        .name = #NAME,                                                   \
        .group = "elementwise",                                          \
        .summary = SUMMARY,                                              \
        .detail = DETAIL,                                                \
        .inputs = a_b,                                                   \
        .n_out = 1,                                                      \
        .outputs = "y: the broadcast shape",                             \
        .flags = BP_OP_STRIDED | BP_OP_INPLACE | BP_OP_METHOD | (FLAGS), \
        .promote = PROMOTE,                                              \
        .needs_in = NEEDS_IN,                                            \
        .over = { 3 },                                                   \
        .infer = bp_infer_broadcast,                                     \
        .run = NAME##_run,                                               \
        .gradient = NAME##_gradient,                                     \
        .cases = CASES,                                                  \
    };
ROW(add, "the sum of two tensors, element by element", "y = a + b. Integers wrap around.", 0, BP_PROMOTE_COMMON, 0, anywhere)
ROW(sub, "the difference of two tensors, element by element", "y = a - b. Integers wrap around.", 0, BP_PROMOTE_COMMON, 0, anywhere)
ROW(mul, "the product of two tensors, element by element", "y = a b. Integers wrap around. For the matrix product see matmul.", 0,
    BP_PROMOTE_COMMON, 3, anywhere)
ROW(div, "the quotient of two tensors, element by element", "y = a / b, always in floats; x/0 is infinite, 0/0 is NaN.", 0,
    BP_PROMOTE_FLOAT, 3, away_from_zero)
ROW(pow, "one tensor to the power of another, element by element",
    "y = a^b, always in floats; NaN for a < 0 unless b is a whole number. da = dy b a^(b-1), db = dy a^b log(a), 0 where a = 0.", 0,
    BP_PROMOTE_FLOAT, 3, away_from_zero)
ROW(mod, "the remainder of a division, element by element",
    "y = a - b floor(a / b): its sign is that of b, as Lua's % has it. For integers b = 0 is an error, for floats NaN.\n"
    "da = dy, db = -dy floor(a / b).",
    BP_OP_KINKED, BP_PROMOTE_COMMON, 3, away_from_zero)
ROW(maximum, "the greater of two elements", "y = max(a, b); NaN in either wins. The greater one takes the gradient, equal ones half each.",
    BP_OP_KINKED, BP_PROMOTE_COMMON, 3, anywhere)
ROW(minimum, "the lesser of two elements", "y = min(a, b); NaN in either wins. The lesser one takes the gradient, equal ones half each.",
    BP_OP_KINKED, BP_PROMOTE_COMMON, 3, anywhere)
