/* test_reduce.c - reductions, running sums and softmax against plain loops over any set of dimensions; sizes that are cut into blocks; the
 * same bits for any number of threads; the accuracy of long sums. */
#include "ops.h"

/* Visits x element by element: at(element) is the element of the result that it belongs to. */
static int64_t result_at(dims shape, const bool *over, int64_t i)
{
    int64_t at = 0, step = 1;
    for (int k = shape.n - 1; k >= 0; k--) {
        if (!over[k]) at += i % shape.at[k] * step, step *= shape.at[k];
        i /= shape.at[k];
    }
    return at;
}

typedef enum kind { SUM, MEAN, PROD, MAX, MIN, ANY, ALL } kind;
static const char *const names[] = { "sum", "mean", "prod", "max", "min", "any", "all" };
static const double begins[] = { 0, 0, 1, -INFINITY, INFINITY, 0, 1 };

static double step(kind k, double a, double x)
{
    switch (k) {
    case PROD: return a * x;
    case MAX: return x > a ? x : a;
    case MIN: return x < a ? x : a;
    case ANY: return a != 0 || x != 0;
    case ALL: return a != 0 && x != 0;
    default: return a + x;
    }
}

static bp_dtype gives(kind k, bp_dtype dtype)
{
    if (k == ANY || k == ALL) return BP_BOOL;
    if (bp_is_float(dtype) || k == MAX || k == MIN) return dtype;
    return k == MEAN ? BP_F32 : BP_I64;
}

static void check_reduction(kind k, bp_tensor *x, dims shape, dims axes, bool keepdims)
{
    bool over[BP_MAX_DIMS];
    dims out = S0;
    for (int i = 0; i < shape.n; i++) over[i] = axes.n == 0;
    for (int i = 0; i < axes.n; i++) over[axes.at[i] < 0 ? axes.at[i] + shape.n : axes.at[i]] = true;
    for (int i = 0; i < shape.n; i++)
        if (!over[i] || keepdims) out.at[out.n++] = over[i] ? 1 : shape.at[i];
    const int64_t n = count_of(shape), m = count_of(out);
    double *v = values(x), *want = (double *)malloc((size_t)m * sizeof *want + 1);
    for (int64_t i = 0; i < m; i++) want[i] = begins[k];
    for (int64_t i = 0; i < n; i++) {
        double *at = &want[result_at(shape, over, i)];
        *at = step(k, *at, v[i]);
    }
    if (k == MEAN)
        for (int64_t i = 0; i < m; i++) want[i] /= (double)n / (double)m;
    bp_tensor *y = apply(names[k], TENSORS(x), ARGS(list_of(axes), bp_int(keepdims)));
    char what[100];
    snprintf(what, sizeof what, "%s of %s", names[k], bp_dtype_name(bp_tensor_dtype(x)));
    CHECK(shape_is(y, out), "%s: shape", what);
    CHECK(bp_tensor_dtype(y) == gives(k, bp_tensor_dtype(x)), "%s gives %s", what, bp_dtype_name(bp_tensor_dtype(y)));
    /* the terms of a sum are as large as 2 and cancel: what is lost grows with their number */
    check_values(what, y, m, want, bp_tensor_dtype(y) != BP_F32 ? 1e-12 : k == SUM ? 4e-6 + 2e-10 * (double)n : 4e-6);
    free(v);
    free(want);
}

static void test_shapes(void)
{
    static const bp_dtype dtypes[] = { BP_F32, BP_F64, BP_I32, BP_I64, BP_U8, BP_BOOL };
    for (int k = 0; k < 7; k++) {
        for (int d = 0; d < 6; d++)
            for (int keepdims = 0; keepdims < 2; keepdims++) {
                const dims s = SHAPE(3, 2, 5, 2);
                for (int mask = 0; mask < 16; mask++) { /* every set of dimensions; the empty one means all */
                    dims axes = S0;
                    for (int i = 3; i >= 0; i--)
                        if (mask >> i & 1) axes.at[axes.n++] = i % 2 ? i : i - 4;
                    check_reduction((kind)k, tensor(dtypes[d], s), s, axes, keepdims);
                    if (mask % 3 == 1) check_reduction((kind)k, gappy(dtypes[d], s), s, axes, keepdims);
                }
                check_reduction((kind)k, tensor(dtypes[d], S0), S0, S0, keepdims);
                check_reduction((kind)k, tensor(dtypes[d], SHAPE(4, 1)), SHAPE(4, 1), SHAPE(1), keepdims);
                check_reduction((kind)k, tensor(dtypes[d], SHAPE(0, 3)), SHAPE(0, 3), SHAPE(1), keepdims);
                if (k != MAX && k != MIN && k != MEAN)
                    check_reduction((kind)k, tensor(dtypes[d], SHAPE(0, 3)), SHAPE(0, 3), SHAPE(0), keepdims);
            }
        sweep();
    }
    bp_tensor *empty = tensor(BP_F32, SHAPE(0, 3));
    check_refused("max", BP_EINVAL, "[0x3]|no elements", TENSORS(empty), ARGS(list_of(SHAPE(0))));
    check_refused("sum", BP_EINVAL, "dimension|twice", TENSORS(empty), ARGS(list_of(SHAPE(1, -1))));
    check_refused("sum", BP_EINVAL, "dimension 2", TENSORS(empty), ARGS(list_of(SHAPE(2))));
    check_refused("argmax", BP_EINVAL, "axis", TENSORS(empty), NO_ARGS);
    check_refused("argmax", BP_EINVAL, "[0x3]", TENSORS(empty), ARGS(bp_int(0)));
    check_refused("sum_to", BP_EINVAL, "[0x3]|[2]", TENSORS(empty), ARGS(list_of(SHAPE(2))));
    CHECK_VALUES("mean of nothing", apply("mean", TENSORS(empty), ARGS(list_of(SHAPE(0)))), NAN, NAN, NAN);
    bp_tensor *odd = VALUES(BP_F32, 1, NAN, 3);
    CHECK_VALUES("max with NaN", apply("max", TENSORS(odd), NO_ARGS), NAN);
    CHECK_VALUES("min with NaN", apply("min", TENSORS(odd), NO_ARGS), NAN);
    CHECK_VALUES("argmax with NaN", apply("argmax", TENSORS(odd), ARGS(bp_int(0))), 1);
    sweep();
}

/* Shapes that are cut into blocks of rows, pieces of columns, groups of slabs. */
static void test_large(void)
{
    static const struct {
        dims shape, axes;
    } cases[] = {
        { { 1, { 300001 } }, { 0, { 0 } } },
        { { 2, { 3, 90001 } }, { 1, { 1 } } },
        { { 2, { 90001, 3 } }, { 1, { 0 } } },
        { { 2, { 301, 1003 } }, { 1, { 0 } } },
        { { 2, { 1003, 301 } }, { 1, { 1 } } },
        { { 2, { 40, 4000 } }, { 1, { 0 } } },
        { { 3, { 2, 70000, 2 } }, { 1, { 1 } } },
        { { 3, { 2, 70000, 2 } }, { 2, { 0, 2 } } },
        { { 4, { 8, 21, 21, 19 } }, { 3, { 0, 1, 2 } } },
        { { 3, { 50000, 2, 2 } }, { 1, { 1 } } },
    };
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        static const bp_dtype dtypes[] = { BP_F32, BP_F64, BP_U8 };
        for (int d = 0; d < 3; d++) {
            bp_tensor *x = tensor(dtypes[d], cases[c].shape);
            for (int k = 0; k < 7; k++)
                if (k != PROD) check_reduction((kind)k, x, cases[c].shape, cases[c].axes, false);
            check_threads("sum", TENSORS(x), ARGS(list_of(cases[c].axes)));
            check_threads("max", TENSORS(x), ARGS(list_of(cases[c].axes)));
        }
        sweep();
    }
    /* a million times 0.1, along both directions: the error of adding one by one would be near 1 */
    bp_tensor *tenth = apply("full", NO_TENSORS, ARGS(list_of(SHAPE(1000000)), bp_float(0.1)));
    double exact = 1000000 * (double)0.1f;
    check_values("long sum", apply("sum", TENSORS(tenth), NO_ARGS), 1, &exact, 1e-6);
    bp_tensor *columns = apply("full", NO_TENSORS, ARGS(list_of(SHAPE(100000, 2)), bp_float(0.1)));
    double both[2] = { 100000 * (double)0.1f, 100000 * (double)0.1f };
    check_values("long columns", apply("sum", TENSORS(columns), ARGS(list_of(SHAPE(0)))), 2, both, 1e-5);
    sweep();
}

/* The same order of terms in every table: sums have the same bits whatever the instruction set. */
static void test_tables(void)
{
    static const char *const isas[] = { "avx2", "avx512" };
    const bp_kernels *plain = bp_kernels_f32("baseline");
    static float x[5001], a[5000], b[5000];
    for (int i = 0; i < 5001; i++) x[i] = (float)noise(i);
    for (int k = 0; k < 2; k++) {
        const bp_kernels *fast = bp_kernels_f32(isas[k]);
        if (!fast) continue;
        for (int64_t inner = 1; inner <= 50; inner += 7) {
            const int64_t r = 5000 / inner;
            plain->reduce_sum(1, r, inner, inner, x, a);
            fast->reduce_sum(1, r, inner, inner, x, b);
            CHECK(memcmp(a, b, (size_t)inner * sizeof *a) == 0, "%s: sum of [%d][%d] has other bits than baseline", isas[k], (int)r,
                  (int)inner);
            CHECK(plain->dot(r, x, x + 1) == fast->dot(r, x, x + 1), "%s: dot of %d has other bits than baseline", isas[k], (int)r);
        }
    }
}

static void test_along(void)
{
    static const bp_dtype dtypes[] = { BP_F32, BP_F64, BP_I32, BP_I64, BP_U8, BP_BOOL };
    const dims shapes[] = { SHAPE(4, 7, 3), SHAPE(2, 5, 70) };
    for (int s = 0; s < 2; s++)
        for (int d = 0; d < 6; d++)
            for (int axis = 0; axis < 3; axis++) {
                const dims shape = shapes[s];
                bp_tensor *x = d % 2 ? gappy(dtypes[d], shape) : tensor(dtypes[d], shape);
                bool over[3] = { axis == 0, axis == 1, axis == 2 };
                const int64_t n = count_of(shape), m = n / shape.at[axis];
                double *v = values(x), best[2][400], at[2][400], sums[400] = { 0 },
                       *running = (double *)malloc((size_t)n * sizeof *running);
                for (int64_t i = 0; i < m; i++) best[0][i] = -INFINITY, best[1][i] = INFINITY;
                int64_t inner = 1;
                for (int i = axis + 1; i < 3; i++) inner *= shape.at[i];
                for (int64_t i = 0; i < n; i++) {
                    const int64_t r = result_at(shape, over, i), position = i / inner % shape.at[axis];
                    if (v[i] > best[0][r]) best[0][r] = v[i], at[0][r] = (double)position;
                    if (v[i] < best[1][r]) best[1][r] = v[i], at[1][r] = (double)position;
                    running[i] = sums[r] += v[i];
                }
                check_values("argmax", apply("argmax", TENSORS(x), ARGS(bp_int(axis))), m, at[0], 0);
                check_values("argmin", apply("argmin", TENSORS(x), ARGS(bp_int(axis - 3), bp_int(1))), m, at[1], 0);
                check_values("cumsum", apply("cumsum", TENSORS(x), ARGS(bp_int(axis))), n, running, d == 0 ? 1e-6 : 1e-13);
                if (bp_is_float(dtypes[d])) { /* softmax by its definition */
                    double total[400] = { 0 }, *want = (double *)malloc((size_t)n * sizeof *want),
                           *logs = (double *)malloc((size_t)n * sizeof *logs);
                    for (int64_t i = 0; i < n; i++) total[result_at(shape, over, i)] += exp(v[i]);
                    for (int64_t i = 0; i < n; i++) {
                        want[i] = exp(v[i]) / total[result_at(shape, over, i)];
                        logs[i] = log(want[i]);
                    }
                    check_values("softmax", apply("softmax", TENSORS(x), ARGS(bp_int(axis))), n, want, d == 0 ? 1e-6 : 1e-13);
                    check_values("log_softmax", apply("log_softmax", TENSORS(x), ARGS(bp_int(axis))), n, logs, d == 0 ? 2e-6 : 1e-13);
                    free(want);
                    free(logs);
                }
                free(v);
                free(running);
            }
    sweep();
    CHECK_VALUES("softmax far out", apply("softmax", TENSORS(VALUES(BP_F32, 1000, -1000, 1000)), NO_ARGS), 0.5, 0, 0.5);
    bp_tensor *big = tensor(BP_F32, SHAPE(60, 50, 40));
    check_threads("softmax", TENSORS(big), ARGS(bp_int(1)));
    check_threads("cumsum", TENSORS(big), ARGS(bp_int(0)));
    check_threads("argmax", TENSORS(big), ARGS(bp_int(1)));
    CHECK_VALUES("sum_to", apply("sum_to", TENSORS(VALUES(BP_F32, 1, 2, 3)), ARGS(list_of(SHAPE(1)))), 6);
    bp_tensor *x = from_values(BP_F32, SHAPE(2, 2, 2), NUMBERS(1, 2, 3, 4, 5, 6, 7, 8).v);
    CHECK_VALUES("sum_to", apply("sum_to", TENSORS(x), ARGS(list_of(SHAPE(2, 1)))), 14, 22);
    sweep();
}

int main(void)
{
    counting memory = { 0, 0, 0, 0 };
    ctx = open_counting(&memory);
    test_shapes();
    test_large();
    test_tables();
    test_along();
    close_counting(ctx, &memory);
    return report();
}
