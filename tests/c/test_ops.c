/* test_ops.c - elementwise ops, comparisons and creation against plain loops: strides, broadcasting, empty tensors, promotion of dtypes,
 * special values, and what is refused; products of few rows. */
#include "ops.h"

/* ---- functions of one element ---- */

static double d_neg(double x) { return -x; }
static double d_sign(double x) { return x > 0 ? 1 : x < 0 ? -1 : x; }
static double d_square(double x) { return x * x; }
static double d_rsqrt(double x) { return 1 / sqrt(x); }
static double d_reciprocal(double x) { return 1 / x; }
static double d_relu(double x) { return x > 0 ? x : 0; }
static double d_leaky(double x) { return x > 0 ? x : 0.2 * x; }
static double d_elu(double x) { return x > 0 ? x : 1.5 * expm1(x); }
static double d_gelu(double x) { return x * 0.5 * (1 + erf(x / sqrt(2))); }
static double d_gelu_tanh(double x) { return 0.5 * x * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (x + 0.044715 * x * x * x))); }
static double d_sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double d_silu(double x) { return x * d_sigmoid(x); }
static double d_softplus(double x) { return log(1 + exp(x)); }
static double d_clamp(double x) { return x < -0.5 ? -0.5 : x > 1.25 ? 1.25 : x; }

static const struct unary {
    const char *name;
    double (*f)(double);
    bool keeps_integers, positive;
    args with;
} unaries[] = {
    { "neg", d_neg, true, false, { 0, { { 0, 0, { 0 } } } } },
    { "abs", fabs, true, false, { 0, { { 0, 0, { 0 } } } } },
    { "sign", d_sign, true, false, { 0, { { 0, 0, { 0 } } } } },
    { "square", d_square, true, false, { 0, { { 0, 0, { 0 } } } } },
    { "floor", floor, true, false, { 0, { { 0, 0, { 0 } } } } },
    { "ceil", ceil, true, false, { 0, { { 0, 0, { 0 } } } } },
    { "round", rint, true, false, { 0, { { 0, 0, { 0 } } } } },
    { "sqrt", sqrt, false, true, { 0, { { 0, 0, { 0 } } } } },
    { "rsqrt", d_rsqrt, false, true, { 0, { { 0, 0, { 0 } } } } },
    { "reciprocal", d_reciprocal, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "exp", exp, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "expm1", expm1, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "log", log, false, true, { 0, { { 0, 0, { 0 } } } } },
    { "log1p", log1p, false, true, { 0, { { 0, 0, { 0 } } } } },
    { "sin", sin, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "cos", cos, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "erf", erf, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "tanh", tanh, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "relu", d_relu, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "leaky_relu", d_leaky, false, false, { 1, { { 1, 1, { .f = 0.2 } } } } },
    { "elu", d_elu, false, false, { 1, { { 1, 1, { .f = 1.5 } } } } },
    { "gelu", d_gelu, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "gelu", d_gelu_tanh, false, false, { 1, { { 1, 1, { .i = 1 } } } } },
    { "sigmoid", d_sigmoid, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "silu", d_silu, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "softplus", d_softplus, false, false, { 0, { { 0, 0, { 0 } } } } },
    { "clamp", d_clamp, true, false, { 2, { { 1, 1, { .f = -0.5 } }, { 1, 1, { .f = 1.25 } } } } },
};

static void check_unary(const struct unary *u, bp_tensor *x)
{
    const bp_dtype dtype = bp_tensor_dtype(x), wanted = bp_is_float(dtype)   ? dtype
                                                        : !u->keeps_integers ? BP_F32
                                                        : dtype == BP_I64    ? BP_I64
                                                                             : BP_I32;
    if (u->positive)
        x = apply("add",
                  TENSORS(apply("abs", TENSORS(x), NO_ARGS), apply("full", NO_TENSORS, ARGS(list_of(S0), bp_float(1), bp_int(dtype)))),
                  NO_ARGS);
    bp_tensor *y = apply(u->name, TENSORS(x), u->with);
    double *want = values(x);
    const int64_t n = bp_tensor_count(x);
    /* bounds of clamp lie between whole numbers: the whole numbers inside are 0 and 1 */
    for (int64_t i = 0; i < n; i++)
        want[i] = wanted == BP_I32 || wanted == BP_I64 ? (u->f == d_clamp ? fmin(fmax(want[i], 0), 1) : u->f(want[i])) : u->f(want[i]);
    CHECK(bp_tensor_dtype(y) == wanted, "%s of %s gives %s", u->name, bp_dtype_name(dtype), bp_dtype_name(bp_tensor_dtype(y)));
    check_values(u->name, y, n, want, wanted == BP_F32 ? 2e-6 : 1e-14);
    free(want);
}

static void test_unary(void)
{
    static const bp_dtype dtypes[] = { BP_F32, BP_F64, BP_I32, BP_I64, BP_U8, BP_BOOL };
    for (size_t k = 0; k < sizeof unaries / sizeof *unaries; k++) {
        for (int d = 0; d < 6; d++) {
            check_unary(&unaries[k], tensor(dtypes[d], SHAPE(3, 37)));
            check_unary(&unaries[k], gappy(dtypes[d], SHAPE(4, 3, 5)));
            check_unary(&unaries[k], tensor(dtypes[d], S0));
            check_unary(&unaries[k], tensor(dtypes[d], SHAPE(0, 3)));
            check_unary(&unaries[k], apply("expand", TENSORS(gappy(dtypes[d], SHAPE(2, 1, 3))), ARGS(list_of(SHAPE(2, 4, 3)))));
        }
        check_unary(&unaries[k], tensor(BP_F32, SHAPE(70001)));
        check_unary(&unaries[k], gappy(BP_F32, SHAPE(131, 257)));
        sweep();
    }
    bp_tensor *big = tensor(BP_F32, SHAPE(100003));
    check_threads("tanh", TENSORS(big), NO_ARGS);
    check_threads("exp", TENSORS(gappy(BP_F32, SHAPE(301, 203))), NO_ARGS);
    CHECK_VALUES("round half", apply("round", TENSORS(VALUES(BP_F32, 0.5, 1.5, 2.5, -0.5, -1.5)), NO_ARGS), 0, 2, 2, 0, -2);
    bp_tensor *odd = VALUES(BP_F32, NAN, INFINITY, -INFINITY, 0);
    CHECK_VALUES("relu", apply("relu", TENSORS(odd), NO_ARGS), NAN, INFINITY, 0, 0);
    CHECK_VALUES("exp", apply("exp", TENSORS(odd), NO_ARGS), NAN, INFINITY, 0, 1);
    CHECK_VALUES("log", apply("log", TENSORS(odd), NO_ARGS), NAN, INFINITY, NAN, -INFINITY);
    CHECK_VALUES("tanh", apply("tanh", TENSORS(odd), NO_ARGS), NAN, 1, -1, 0);
    CHECK_VALUES("sigmoid", apply("sigmoid", TENSORS(odd), NO_ARGS), NAN, 1, 0, 0.5);
    CHECK_VALUES("softplus", apply("softplus", TENSORS(VALUES(BP_F32, NAN, INFINITY, -INFINITY)), NO_ARGS), NAN, INFINITY, 0);
    CHECK_VALUES("sign", apply("sign", TENSORS(odd), NO_ARGS), NAN, 1, -1, 0);
    CHECK_VALUES("clamp", apply("clamp", TENSORS(odd), ARGS(bp_float(-1), bp_float(1))), NAN, 1, -1, 0);
    CHECK_VALUES("isfinite", apply("isfinite", TENSORS(odd), NO_ARGS), 0, 0, 0, 1);
    check_refused("clamp", BP_EINVAL, "min is 2|max is 1", TENSORS(odd), ARGS(bp_float(2), bp_float(1)));
    sweep();
}

/* ---- functions of two ---- */

static double d_add(double a, double b) { return a + b; }
static double d_sub(double a, double b) { return a - b; }
static double d_mul(double a, double b) { return a * b; }
static double d_div(double a, double b) { return a / b; }
static double d_mod(double a, double b) { return a - b * floor(a / b); }
static double d_max(double a, double b) { return a > b ? a : b; }
static double d_min(double a, double b) { return a < b ? a : b; }
static double d_eq(double a, double b) { return a == b; }
static double d_ne(double a, double b) { return a != b; }
static double d_lt(double a, double b) { return a < b; }
static double d_le(double a, double b) { return a <= b; }
static double d_gt(double a, double b) { return a > b; }
static double d_ge(double a, double b) { return a >= b; }
static double d_and(double a, double b) { return a != 0 && b != 0; }
static double d_or(double a, double b) { return a != 0 || b != 0; }

typedef enum result { COMMON, FLOAT, TRUTH } result;
static const struct binary {
    const char *name;
    double (*f)(double, double);
    result gives;
    bool no_zero; /* as b */
} binaries[] = {
    { "add", d_add, COMMON, false },     { "sub", d_sub, COMMON, false },        { "mul", d_mul, COMMON, false },
    { "div", d_div, FLOAT, true },       { "mod", d_mod, COMMON, true },         { "maximum", d_max, COMMON, false },
    { "minimum", d_min, COMMON, false }, { "eq", d_eq, TRUTH, false },           { "ne", d_ne, TRUTH, false },
    { "lt", d_lt, TRUTH, false },        { "le", d_le, TRUTH, false },           { "gt", d_gt, TRUTH, false },
    { "ge", d_ge, TRUTH, false },        { "logical_and", d_and, TRUTH, false }, { "logical_or", d_or, TRUTH, false },
};

static bp_dtype common(bp_dtype a, bp_dtype b)
{
    if (a == BP_F64 || b == BP_F64) return BP_F64;
    if (a == BP_F32 || b == BP_F32) return BP_F32;
    return a == BP_I64 || b == BP_I64 ? BP_I64 : BP_I32;
}

/* Element number i of a tensor with these values and shape, broadcast to `to`. */
static double broadcast_at(const double *v, bp_tensor *t, dims to, int64_t i)
{
    int64_t at = 0, step = 1;
    const int missing = to.n - bp_tensor_ndim(t);
    for (int k = to.n - 1; k >= missing; k--) {
        const int64_t size = bp_tensor_shape(t)[k - missing];
        at += size == 1 ? 0 : i % to.at[k] * step;
        step *= size;
        i /= to.at[k];
    }
    return v[at];
}

static void check_binary(const struct binary *op, bp_tensor *a, bp_tensor *b, dims shape)
{
    if (op->no_zero) b = apply("where", TENSORS(apply("eq", TENSORS(b, tensor(BP_U8, S0)), NO_ARGS), tensor(BP_U8, S0), b), NO_ARGS);
    if (op->no_zero)
        b = apply(
            "where",
            TENSORS(apply("logical_not", TENSORS(b), NO_ARGS), apply("full", NO_TENSORS, ARGS(list_of(S0), bp_float(3), bp_int(BP_U8))), b),
            NO_ARGS);
    bp_tensor *y = apply(op->name, TENSORS(a, b), NO_ARGS);
    bp_dtype wanted = common(bp_tensor_dtype(a), bp_tensor_dtype(b));
    if (op->gives == FLOAT && !bp_is_float(wanted)) wanted = BP_F32;
    if (op->gives == TRUTH) wanted = BP_BOOL;
    const int64_t n = count_of(shape);
    double *va = values(a), *vb = values(b), *want = (double *)malloc((size_t)n * sizeof *want + 1);
    for (int64_t i = 0; i < n; i++) want[i] = op->f(broadcast_at(va, a, shape, i), broadcast_at(vb, b, shape, i));
    CHECK(shape_is(y, shape), "%s: shape", op->name);
    CHECK(bp_tensor_dtype(y) == wanted, "%s of %s and %s gives %s", op->name, bp_dtype_name(bp_tensor_dtype(a)),
          bp_dtype_name(bp_tensor_dtype(b)), bp_dtype_name(bp_tensor_dtype(y)));
    check_values(op->name, y, n, want, wanted == BP_F32 ? 1e-6 : 1e-14);
    free(va);
    free(vb);
    free(want);
}

static void test_binary(void)
{
    static const bp_dtype dtypes[] = { BP_F32, BP_F64, BP_I32, BP_I64, BP_U8, BP_BOOL };
    for (size_t k = 0; k < sizeof binaries / sizeof *binaries; k++) {
        const struct binary *op = &binaries[k];
        for (int a = 0; a < 6; a++)
            for (int b = 0; b < 6; b++) {
                check_binary(op, tensor(dtypes[a], SHAPE(3, 7)), gappy(dtypes[b], SHAPE(3, 7)), SHAPE(3, 7));
                check_binary(op, tensor(dtypes[a], SHAPE(2, 3, 1)), tensor(dtypes[b], SHAPE(4)), SHAPE(2, 3, 4));
            }
        sweep();
        check_binary(op, tensor(BP_F32, SHAPE(5, 19)), tensor(BP_F32, S0), SHAPE(5, 19));
        check_binary(op, tensor(BP_F32, S0), tensor(BP_F32, SHAPE(5, 19)), SHAPE(5, 19));
        check_binary(op, tensor(BP_F32, SHAPE(5, 19)), tensor(BP_F32, SHAPE(19)), SHAPE(5, 19));
        check_binary(op, tensor(BP_F32, SHAPE(5, 19)), tensor(BP_F32, SHAPE(5, 1)), SHAPE(5, 19));
        check_binary(op, tensor(BP_F32, SHAPE(5, 1)), tensor(BP_F32, SHAPE(1, 19)), SHAPE(5, 19));
        check_binary(op, gappy(BP_F32, SHAPE(4, 1, 3, 1)), gappy(BP_F32, SHAPE(2, 1, 5)), SHAPE(4, 2, 3, 5));
        check_binary(op, tensor(BP_F32, SHAPE(0, 3)), tensor(BP_F32, SHAPE(3)), SHAPE(0, 3));
        check_binary(op, tensor(BP_F32, SHAPE(300, 301)), tensor(BP_F32, SHAPE(301)), SHAPE(300, 301));
        check_binary(op, tensor(BP_F32, SHAPE(20000, 3)), tensor(BP_F32, SHAPE(3)), SHAPE(20000, 3));
        sweep();
    }
    check_threads("add", TENSORS(tensor(BP_F32, SHAPE(30000, 5)), tensor(BP_F32, SHAPE(5))), NO_ARGS);
    bp_tensor *odd = VALUES(BP_F32, NAN, 1, NAN, 2), *two = VALUES(BP_F32, 1, NAN, NAN, 3);
    CHECK_VALUES("maximum", apply("maximum", TENSORS(odd, two), NO_ARGS), NAN, NAN, NAN, 3);
    CHECK_VALUES("minimum", apply("minimum", TENSORS(odd, two), NO_ARGS), NAN, NAN, NAN, 2);
    CHECK_VALUES("mod", apply("mod", TENSORS(VALUES(BP_I32, 7, -7, 7, -7, INT32_MIN), VALUES(BP_I32, 3, 3, -3, -3, -1)), NO_ARGS), 1, 2, -2,
                 -1, 0);
    CHECK_VALUES("mod", apply("mod", TENSORS(VALUES(BP_F64, 7.5, -7.5, 1), VALUES(BP_F64, 2, 2, 0)), NO_ARGS), 1.5, 0.5, NAN);
    CHECK_VALUES("add wraps", apply("add", TENSORS(VALUES(BP_I32, INT32_MAX), VALUES(BP_I32, 1)), NO_ARGS), INT32_MIN);
    bp_tensor *base = VALUES(BP_F64, 2, 3, 0.25);
    static const double exponents[] = { 1, 2, 0.5, -1, -0.5, 3, 0 };
    for (int k = 0; k < 7; k++) { /* the exponent as one number, and as a tensor */
        double want[3] = { pow(2, exponents[k]), pow(3, exponents[k]), pow(0.25, exponents[k]) },
               same[3] = { exponents[k], exponents[k], exponents[k] };
        check_values("pow", apply("pow", TENSORS(base, from_values(BP_F64, S0, same)), NO_ARGS), 3, want, 1e-15);
        check_values("pow", apply("pow", TENSORS(base, from_values(BP_F64, SHAPE(3), same)), NO_ARGS), 3, want, 1e-15);
    }
    bp_tensor *c = VALUES(BP_BOOL, 1, 0, 1, 0);
    CHECK_VALUES("where", apply("where", TENSORS(c, VALUES(BP_I64, 1, 2, 3, 4), VALUES(BP_I64, -1, -2, -3, -4)), NO_ARGS), 1, -2, 3, -4);
    CHECK_VALUES("where", apply("where", TENSORS(c, VALUES(BP_F32, 1.5), VALUES(BP_I32, 1, 2, 3, 4)), NO_ARGS), 1.5, 2, 1.5, 4);
    check_refused("where", BP_EINVAL, "condition|f32|bool", TENSORS(odd, odd, odd), NO_ARGS);
    check_refused("add", BP_EINVAL, "[3x7]|[3x6]|7 meets 6", TENSORS(tensor(BP_F32, SHAPE(3, 7)), tensor(BP_F32, SHAPE(3, 6))), NO_ARGS);
    check_refused("mod", BP_EINVAL, "zero", TENSORS(VALUES(BP_I32, 1, 2), VALUES(BP_I32, 1, 0)), NO_ARGS);
    sweep();
}

/* In place: over the first input, whatever its strides; refused where it could not hold the result. */
static void test_in_place(void)
{
    bp_tensor *x = gappy(BP_F32, SHAPE(4, 3)), *b = tensor(BP_F32, SHAPE(3)), *in[2] = { x, b }, *out = x;
    double *was = values(x), *add = values(b);
    for (int i = 0; i < 12; i++) was[i] = (double)(float)(was[i] + add[i % 3]);
    CHECK(bp_apply(ctx, bp_op_find("add"), 2, in, 0, NULL, &out) == BP_OK, "%s", bp_message(ctx));
    check_values("add in place", x, 12, was, 1e-7);
    free(was);
    free(add);
    in[0] = b, in[1] = x, out = b;
    CHECK(bp_apply(ctx, bp_op_find("add"), 2, in, 0, NULL, &out) == BP_EINVAL, "a larger result was written into [3]");
    sweep();
}

/* ---- gradients where functions have a kink ---- */

/* d(sum of y)/d(in[i]) */
static void check_gradient(const char *name, tensors in, args with, int i, numbers want)
{
    bp_tensor *grad = NULL, *wrt = in.t[i];
    bp_tensor_set_requires_grad(wrt, true);
    bp_tensor *y = apply("sum", TENSORS(apply(name, in, with)), NO_ARGS);
    if (bp_gradients(y, NULL, 1, &wrt, NULL, &grad) != BP_OK || !grad) {
        CHECK(false, "%s: %s", name, bp_message(ctx));
        return;
    }
    check_numbers(name, keep(grad), want);
    bp_tensor_set_requires_grad(wrt, false);
}

static void test_kinks(void)
{
    bp_tensor *x = VALUES(BP_F64, -1, 0, 2), *a = VALUES(BP_F64, 1, 5, 3), *b = VALUES(BP_F64, 4, 5, 1);
    check_gradient("relu", TENSORS(x), NO_ARGS, 0, NUMBERS(0, 0, 1));
    check_gradient("leaky_relu", TENSORS(x), ARGS(bp_float(0.25)), 0, NUMBERS(0.25, 0.25, 1));
    check_gradient("abs", TENSORS(x), NO_ARGS, 0, NUMBERS(-1, 0, 1));
    check_gradient("clamp", TENSORS(x), ARGS(bp_float(0), bp_float(1)), 0, NUMBERS(0, 1, 0));
    check_gradient("maximum", TENSORS(a, b), NO_ARGS, 0, NUMBERS(0, 0.5, 1));
    check_gradient("maximum", TENSORS(a, b), NO_ARGS, 1, NUMBERS(1, 0.5, 0));
    check_gradient("minimum", TENSORS(a, b), NO_ARGS, 0, NUMBERS(1, 0.5, 0));
    check_gradient("max", TENSORS(VALUES(BP_F64, 3, 1, 3, 2)), NO_ARGS, 0, NUMBERS(0.5, 0, 0.5, 0));
    check_gradient("prod", TENSORS(VALUES(BP_F64, 2, 3, 4)), NO_ARGS, 0, NUMBERS(12, 8, 6));
    check_gradient("prod", TENSORS(VALUES(BP_F64, 2, 0, 4)), NO_ARGS, 0, NUMBERS(0, 8, 0));
    check_gradient("prod", TENSORS(VALUES(BP_F64, 0, 0, 4)), NO_ARGS, 0, NUMBERS(0, 0, 0));
    check_gradient("pow", TENSORS(VALUES(BP_F64, 0, 2), VALUES(BP_F64, 2)), NO_ARGS, 0, NUMBERS(0, 4));
    check_gradient("pow", TENSORS(VALUES(BP_F64, 0, 1), VALUES(BP_F64, 2, 3)), NO_ARGS, 1, NUMBERS(0, 0));
    check_gradient("where", TENSORS(VALUES(BP_BOOL, 1, 0, 1), apply("log", TENSORS(x), NO_ARGS), a), NO_ARGS, 2, NUMBERS(0, 1, 0));
    sweep();
}

/* ---- creation, casting ---- */

static void test_create(void)
{
    CHECK_VALUES("full", apply("full", NO_TENSORS, ARGS(list_of(SHAPE(2, 2)), bp_float(1.5))), 1.5, 1.5, 1.5, 1.5);
    CHECK_VALUES("full", apply("full", NO_TENSORS, ARGS(list_of(SHAPE(2)), bp_float(-7), bp_int(BP_I64))), -7, -7);
    CHECK_VALUES("arange", apply("arange", NO_TENSORS, ARGS(bp_float(1), bp_float(2), bp_float(0.25))), 1, 1.25, 1.5, 1.75);
    CHECK_VALUES("arange", apply("arange", NO_TENSORS, ARGS(bp_float(3), bp_float(-1), bp_float(-2), bp_int(BP_I32))), 3, 1);
    CHECK_VALUES("eye", apply("eye", NO_TENSORS, ARGS(bp_int(2), bp_int(3), bp_int(BP_U8))), 1, 0, 0, 0, 1, 0);
    CHECK(bp_tensor_count(apply("arange", NO_TENSORS, ARGS(bp_float(3), bp_float(1)))) == 0, "arange backwards is not empty");
    check_refused("full", BP_EINVAL, "300|u8", NO_TENSORS, ARGS(list_of(SHAPE(2)), bp_float(300), bp_int(BP_U8)));
    check_refused("full", BP_EINVAL, "1.5|i32", NO_TENSORS, ARGS(list_of(SHAPE(2)), bp_float(1.5), bp_int(BP_I32)));
    check_refused("full", BP_EINVAL, "more elements", NO_TENSORS, ARGS(list_of(SHAPE((int64_t)1 << 40, (int64_t)1 << 40)), bp_float(0)));
    check_refused("full", BP_EINVAL, "shape|-2", NO_TENSORS, ARGS(list_of(SHAPE(-2))));
    check_refused("arange", BP_EINVAL, "step 0", NO_TENSORS, ARGS(bp_float(0), bp_float(3), bp_float(0)));
    check_refused("arange", BP_EINVAL, "more than", NO_TENSORS, ARGS(bp_float(0), bp_float(1e300), bp_float(1e-3)));
    check_refused("arange", BP_EINVAL, "last element|u8", NO_TENSORS, ARGS(bp_float(0), bp_float(300), bp_float(1), bp_int(BP_U8)));

    CHECK_VALUES("cast", apply("cast", TENSORS(VALUES(BP_F32, 1.9, -1.9, 1e20, NAN)), ARGS(bp_int(BP_I32))), 1, -1, INT32_MAX, 0);
    CHECK_VALUES("cast", apply("cast", TENSORS(VALUES(BP_F64, 300, -5, 7.9)), ARGS(bp_int(BP_U8))), 255, 0, 7);
    CHECK_VALUES("cast", apply("cast", TENSORS(VALUES(BP_F64, 0.25, 0, -3)), ARGS(bp_int(BP_BOOL))), 1, 0, 1);
    static const bp_dtype dtypes[] = { BP_F32, BP_F64, BP_I32, BP_I64, BP_U8, BP_BOOL };
    for (int a = 0; a < 6; a++)
        for (int b = 0; b < 6; b++) {
            bp_tensor *x = gappy(dtypes[a], SHAPE(3, 4, 2)), *y = apply("cast", TENSORS(x), ARGS(bp_int(dtypes[b])));
            double *v = values(x);
            for (int i = 0; i < 24; i++) {
                if (dtypes[b] == BP_BOOL)
                    v[i] = v[i] != 0;
                else if (!bp_is_float(dtypes[b]))
                    v[i] = trunc(v[i]);
                else if (dtypes[b] == BP_F32)
                    v[i] = (double)(float)v[i];
                if (dtypes[b] == BP_U8 && v[i] < 0) v[i] = bp_is_float(dtypes[a]) ? 0 : v[i] + 256;
            }
            check_values("cast", y, 24, v, 0);
            free(v);
        }
    bp_tensor *x = tensor(BP_U8, SHAPE(50001)), *gaps = gappy(BP_I64, SHAPE(3, 5)), *to = gappy(BP_I64, SHAPE(3, 5));
    double *v = values(x);
    check_values("u8 to f32", apply("cast", TENSORS(x), ARGS(bp_int(BP_F32))), 50001, v, 0);
    free(v);
    v = values(gaps);
    bp_tensor *tight = apply("contiguous", TENSORS(gaps), NO_ARGS);
    CHECK(bp_tensor_is_contiguous(tight), "contiguous is not");
    check_values("contiguous", tight, 15, v, 0);
    CHECK(bp_apply(ctx, bp_op_find("copy"), 1, &gaps, 0, NULL, &to) == BP_OK, "%s", bp_message(ctx));
    check_values("copy into a view", to, 15, v, 0);
    free(v);
    sweep();
}

/* ---- products of few rows ---- */

/* Rows alone have the bits that they have among others, with any number of threads. */
static void test_rows(void)
{
    static const int64_t sizes[][2] = { { 9000, 128 }, { 700, 1000 }, { 1000, 5003 }, { 30000, 10 }, { 330, 2100 }, { 9000, 1 } };
    static const int64_t few[] = { 1, 2, 6 };
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (size_t f = 0; f < sizeof few / sizeof *few; f++) {
            const int64_t k = sizes[s][0], n = sizes[s][1], m = few[f];
            const args act = ARGS(bp_int((int64_t)f % 2));
            bp_tensor *x = tensor(BP_F32, SHAPE(7, k)), *w = tensor(BP_F32, SHAPE(k, n)), *b = tensor(BP_F32, SHAPE(n));
            bp_tensor *rows = apply("slice", TENSORS(x), ARGS(bp_int(0), bp_int(0), bp_int(m)));
            bp_tensor *all = apply("linear", TENSORS(x, w, b), act), *some = apply("linear", TENSORS(rows, w, b), act);
            CHECK(memcmp(bp_tensor_data(all), bp_tensor_data(some), (size_t)(m * n) * sizeof(float)) == 0,
                  "linear %lld x %lld: bits of %lld rows", (long long)k, (long long)n, (long long)m);
            check_threads("linear", TENSORS(rows, w, b), act);
            check_threads("matmul", TENSORS(rows, w), NO_ARGS);
            sweep();
        }
}

int main(void)
{
    counting memory = { 0, 0, 0, 0 };
    ctx = open_counting(&memory);
    test_unary();
    test_binary();
    test_in_place();
    test_kinks();
    test_create();
    test_rows();
    close_counting(ctx, &memory);
    return report();
}
