/* compare.c - comparisons, truth values, and choosing by them. */
#include "elementwise.h"

/* ---- comparisons ---- */

static bp_status truth_infer(bp_call *call)
{
    BP_TRY(bp_infer_broadcast(call));
    call->meta[0].dtype = BP_BOOL;
    return BP_OK;
}

static const bp_input a_b[] = { { "a", 0, "values" }, { "b", 0, "values; shapes broadcast as in NumPy" }, { 0 } };

#define COMPARISON(NAME, C, SUMMARY)                                                                                                       \
    BP_INTEGER_LOOP2(NAME##_i32, int32_t, uint32_t, uint8_t, a C b)                                                                        \
    BP_INTEGER_LOOP2(NAME##_i64, int64_t, uint64_t, uint8_t, a C b)                                                                        \
    static bp_status NAME##_run(bp_call *call)                                                                                             \
    {                                                                                                                                      \
        const bp_dtype dtype = call->in[0]->m.dtype;                                                                                       \
        if (bp_is_float(dtype))                                                                                                            \
            bp__run_compare(call, BP_COMPARE_##NAME);                                                                                      \
        else                                                                                                                               \
            bp__elementwise(call->out[0], 2, call->in, dtype == BP_I32 ? NAME##_i32 : NAME##_i64, NULL);                                   \
        return BP_OK;                                                                                                                      \
    }                                                                                                                                      \
    const bp_op bp__op_##NAME = {                                                                                                          \
        .name = #NAME,                                                                                                                     \
        .group = "comparison",                                                                                                             \
        .summary = SUMMARY,                                                                                                                \
        .detail = "y = (a " #C " b)",                                                                                                      \
        .inputs = a_b,                                                                                                                     \
        .n_out = 1,                                                                                                                        \
        .outputs = "y: bool, the broadcast shape",                                                                                         \
        .flags = BP_OP_STRIDED | BP_OP_METHOD | BP_OP_NO_GRADIENT,                                                                         \
        .promote = BP_PROMOTE_COMMON,                                                                                                      \
        .infer = truth_infer,                                                                                                              \
        .run = NAME##_run,                                                                                                                 \
        .cases = (const bp_case[]){ { "2x3 2x3", "", 0, 0, 0 }, { "4x1x3 2x1", "", 0, 0, 0 }, { "i64:5<3 i64:5<3", "", 0, 0, 0 }, { 0 } }, \
    };
COMPARISON(eq, ==, "where two tensors are equal; NaN equals nothing")
COMPARISON(ne, !=, "where two tensors differ")
COMPARISON(lt, <, "where a is less than b")
COMPARISON(le, <=, "where a is at most b")
COMPARISON(gt, >, "where a is greater than b")
COMPARISON(ge, >=, "where a is at least b")

/* ---- truth values ---- */

/* Whether element i is not zero, in any dtype. */
static inline bool truth(const char *p, int64_t i, bp_dtype dtype)
{
    switch (dtype) {
    case BP_F32: return ((const float *)(const void *)p)[i] != 0;
    case BP_F64: return ((const double *)(const void *)p)[i] != 0;
    case BP_I32: return ((const int32_t *)(const void *)p)[i] != 0;
    case BP_I64: return ((const int64_t *)(const void *)p)[i] != 0;
    default: return ((const uint8_t *)p)[i] != 0;
    }
}

#define LOGICAL(name, value)                                                              \
    static void name##_loop(int64_t n, char *const *p, const int64_t *s, const void *arg) \
    {                                                                                     \
        bp_tensor *const *in = (bp_tensor *const *)arg;                                   \
        const bp_dtype da = in[0]->m.dtype, db = in[1]->m.dtype;                          \
        for (int64_t i = 0; i < n; i++) {                                                 \
            const bool a = truth(p[1], i * s[1], da), b = truth(p[2], i * s[2], db);      \
            p[0][i * s[0]] = (char)(value);                                               \
        }                                                                                 \
    }                                                                                     \
    static bp_status name##_run(bp_call *call)                                            \
    {                                                                                     \
        bp__elementwise(call->out[0], 2, call->in, name##_loop, call->in);                \
        return BP_OK;                                                                     \
    }
LOGICAL(logical_and, a &&b)
LOGICAL(logical_or, a || b)

static void logical_not_loop(int64_t n, char *const *p, const int64_t *s, const void *arg)
{
    const bp_dtype dtype = *(const bp_dtype *)arg;
    for (int64_t i = 0; i < n; i++) p[0][i * s[0]] = !truth(p[1], i * s[1], dtype);
}
static bp_status logical_not_run(bp_call *call)
{
    bp__elementwise(call->out[0], 1, call->in, logical_not_loop, &call->in[0]->m.dtype);
    return BP_OK;
}

static void finite_loop(int64_t n, char *const *p, const int64_t *s, const void *arg)
{
    const bp_dtype dtype = *(const bp_dtype *)arg;
    for (int64_t i = 0; i < n; i++) {
        if (dtype == BP_F32)
            p[0][i * s[0]] = __builtin_isfinite(((const float *)(const void *)p[1])[i * s[1]]) != 0;
        else
            p[0][i * s[0]] = dtype != BP_F64 || __builtin_isfinite(((const double *)(const void *)p[1])[i * s[1]]);
    }
}
static bp_status isfinite_run(bp_call *call)
{
    bp__elementwise(call->out[0], 1, call->in, finite_loop, &call->in[0]->m.dtype);
    return BP_OK;
}

static const bp_input truths[] = { { "a", 0, "truth values" }, { "b", 0, "truth values; shapes broadcast as in NumPy" }, { 0 } };
static const bp_input x_input[] = { { "x", 0, "values of any shape" }, { 0 } };
static const bp_case two_cases[] = {
    { "bool:2x3 bool:2x3", "", 0, 0, 0 },
    { "bool:4x1x3 bool:2x1", "", 0, 0, 0 },
    { "i64:5<2 2x5", "", 0, 0, 0 },
    { 0 },
};
static const bp_case one_case[] = {
    { "bool:2x3", "", 0, 0, 0 }, { "2x3'", "", 0, 0, 0 }, { "i32:5<2", "", 0, 0, 0 }, { "0x3", "", 0, 0, 0 }, { 0 }
};

#define TRUTH(NAME, SUMMARY, DETAIL, INPUTS, OUTPUTS, CASES)       \
    const bp_op bp__op_##NAME = {                                  \
        .name = #NAME,                                             \
        .group = "comparison",                                     \
        .summary = SUMMARY,                                        \
        .detail = DETAIL,                                          \
        .inputs = INPUTS,                                          \
        .n_out = 1,                                                \
        .outputs = OUTPUTS,                                        \
        .flags = BP_OP_STRIDED | BP_OP_METHOD | BP_OP_NO_GRADIENT, \
        .promote = BP_PROMOTE_NONE,                                \
        .infer = truth_infer,                                      \
        .run = NAME##_run,                                         \
        .cases = CASES,                                            \
    };
TRUTH(logical_and, "where both are true", "y = a and b; in other dtypes than bool, what is not 0 is true.", truths,
      "y: bool, the broadcast shape", two_cases)
TRUTH(logical_or, "where one of two is true", "y = a or b; in other dtypes than bool, what is not 0 is true.", truths,
      "y: bool, the broadcast shape", two_cases)
TRUTH(logical_not, "where it is false", "y = not x; in other dtypes than bool, what is not 0 is true.", x_input, "y: bool, like x",
      one_case)
TRUTH(isfinite, "where it is neither infinite nor NaN", "Integers are always finite.", x_input, "y: bool, like x", one_case)

/* ---- where ---- */

/* Elements are moved, not computed with: only their size matters. */
#define WHERE(T)                                                                        \
    static void where_##T(int64_t n, char *const *p, const int64_t *s, const void *arg) \
    {                                                                                   \
        T *y = (T *)(void *)p[0];                                                       \
        const uint8_t *c = (const uint8_t *)p[1];                                       \
        const T *a = (const T *)(const void *)p[2], *b = (const T *)(const void *)p[3]; \
        (void)arg;                                                                      \
        for (int64_t i = 0; i < n; i++) {                                               \
            const T va = a[i * s[2]], vb = b[i * s[3]];                                 \
            y[i * s[0]] = c[i * s[1]] ? va : vb;                                        \
        }                                                                               \
    }
WHERE(uint8_t)
WHERE(uint32_t)
WHERE(uint64_t)

static bp_status where_infer(bp_call *call)
{
    const bp_dtype c = call->in[0]->m.dtype;
    if (c != BP_BOOL && c != BP_U8)
        return bp_op_fail(call, BP_EINVAL, "'condition' is %s; bool is expected: compare first, for instance x:ne(0)", bp_dtype_name(c));
    BP_TRY(bp_infer_broadcast(call));
    call->meta[0].dtype = call->in[1]->m.dtype;
    return BP_OK;
}

static bp_status where_run(bp_call *call)
{
    const size_t size = bp_dtype_size(call->out[0]->m.dtype);
    bp__elementwise(call->out[0], 3, call->in, size == 1 ? where_uint8_t : size == 4 ? where_uint32_t : where_uint64_t, NULL);
    return BP_OK;
}

static void where_gradient(bp_grad *g)
{
    bp_tensor *none = bp_g_number(g, g->dout[0], 0);
    if (g->want[1]) bp_grad_set(g, 1, bp_g_unbroadcast(g, G3(g, where, g->in[0], g->dout[0], none), g->in[1]));
    if (g->want[2]) bp_grad_set(g, 2, bp_g_unbroadcast(g, G3(g, where, g->in[0], none, g->dout[0]), g->in[2]));
}

const bp_op bp__op_where = {
    .name = "where",
    .group = "comparison",
    .summary = "one of two elements, chosen by a condition",
    .detail = "y = a where condition is true, else b. The gradient goes to the one that was chosen.",
    .inputs = (const bp_input[]){ { "condition", BP_IN_RAW, "bool" },
                                  { "a", 0, "values where it is true" },
                                  { "b", 0, "values where it is false; all three broadcast" },
                                  { 0 } },
    .n_out = 1,
    .outputs = "y: the broadcast shape",
    .flags = BP_OP_STRIDED,
    .promote = BP_PROMOTE_COMMON,
    .needs_in = 1,
    .infer = where_infer,
    .run = where_run,
    .gradient = where_gradient,
    .cases = (const bp_case[]){ { "bool:2x3 2x3 2x3", "", 0, 0, 0 },
                                { "bool:1 1 1", "", 0, 0, 0 },
                                { "bool:2x1 s 3", "", 0, 0, 0 },
                                { "bool:4x3 4x3' 4x1'", "", 0, 0, 0 },
                                { "bool:3 2x1 1", "", 0, 0, 0 },
                                { "bool:0x2 2 s", "", 0, 0, 0 },
                                { 0 } },
};
