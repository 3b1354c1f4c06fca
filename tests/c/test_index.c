/* test_index.c - views, joining, indexing and sorting against plain loops; what shares memory and what does not; what is refused. */
#include "ops.h"

/* Elements 0, 1, 2, ... so that a value says where it came from. */
static bp_tensor *counted(bp_dtype dtype, dims d)
{
    const int64_t n = count_of(d);
    double *v = (double *)malloc((size_t)n * sizeof *v + 1);
    for (int64_t i = 0; i < n; i++) v[i] = (double)i;
    bp_tensor *t = from_values(dtype, d, v);
    free(v);
    return t;
}

static void test_views(void)
{
    bp_tensor *x = counted(BP_F32, SHAPE(2, 3)), *y;
    y = apply("reshape", TENSORS(x), ARGS(list_of(SHAPE(3, -1))));
    CHECK(shape_is(y, SHAPE(3, 2)) && bp_tensor_data(y) == bp_tensor_data(x), "reshape is a view of the same memory");
    CHECK_VALUES("reshape", y, 0, 1, 2, 3, 4, 5);
    bp_tensor *t = apply("permute", TENSORS(x), NO_ARGS);
    CHECK(shape_is(t, SHAPE(3, 2)) && bp_tensor_data(t) == bp_tensor_data(x), "permute is a view");
    CHECK_VALUES("permute", t, 0, 3, 1, 4, 2, 5);
    y = apply("reshape", TENSORS(t), ARGS(list_of(SHAPE(6))));
    CHECK_VALUES("reshape of a permuted tensor", y, 0, 3, 1, 4, 2, 5);
    bp_tensor *cube = counted(BP_I32, SHAPE(2, 3, 4));
    y = apply("permute", TENSORS(cube), ARGS(list_of(SHAPE(2, 0, 1))));
    CHECK(shape_is(y, SHAPE(4, 2, 3)), "permute: shape");
    double *v = values(y);
    for (int i = 0; i < 24; i++) CHECK(v[i] == (i / 3 % 2) * 12 + (i % 3) * 4 + i / 6, "permute: element %d is %g", i, v[i]);
    free(v);
    CHECK_VALUES("slice", apply("slice", TENSORS(x), ARGS(bp_int(1), bp_int(1))), 1, 2, 4, 5);
    CHECK_VALUES("slice with a step", apply("slice", TENSORS(counted(BP_U8, SHAPE(7))), ARGS(bp_int(0), bp_int(1), bp_int(6), bp_int(2))),
                 1, 3, 5);
    CHECK_VALUES("slice from the end", apply("slice", TENSORS(counted(BP_U8, SHAPE(7))), ARGS(bp_int(0), bp_int(-3), bp_int(-2))), 4, 5);
    CHECK(bp_tensor_count(apply("slice", TENSORS(x), ARGS(bp_int(1), bp_int(3), bp_int(3)))) == 0, "an empty slice");
    CHECK_VALUES("select", apply("select", TENSORS(x), ARGS(bp_int(1), bp_int(-1))), 2, 5);
    CHECK_VALUES("select twice",
                 apply("select", TENSORS(apply("select", TENSORS(cube), ARGS(bp_int(1), bp_int(2)))), ARGS(bp_int(0), bp_int(1))), 20, 21,
                 22, 23);
    y = apply("expand", TENSORS(apply("unsqueeze", TENSORS(x), ARGS(bp_int(1)))), ARGS(list_of(SHAPE(2, 2, 3))));
    CHECK_VALUES("expand", y, 0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5);
    CHECK(bp_tensor_data(y) == bp_tensor_data(x), "expand is a view");
    y = apply("unsqueeze", TENSORS(x), ARGS(bp_int(-1)));
    CHECK(shape_is(y, SHAPE(2, 3, 1)) && bp_tensor_is_contiguous(y), "unsqueeze at the end");
    CHECK(shape_is(apply("squeeze", TENSORS(apply("unsqueeze", TENSORS(y), ARGS(bp_int(0)))), NO_ARGS), SHAPE(2, 3)), "squeeze all");
    CHECK(shape_is(apply("squeeze", TENSORS(counted(BP_F32, SHAPE(1, 2, 1))), ARGS(list_of(SHAPE(-1)))), SHAPE(1, 2)), "squeeze one");
    /* writing through a view writes into its base */
    bp_tensor *row = apply("select", TENSORS(x), ARGS(bp_int(0), bp_int(0))), *ten = VALUES(BP_F32, 10, 11, 12);
    CHECK(bp_apply(ctx, bp_op_find("copy"), 1, &ten, 0, NULL, &row) == BP_OK, "%s", bp_message(ctx));
    CHECK_VALUES("written through a view", x, 10, 11, 12, 3, 4, 5);

    check_refused("reshape", BP_EINVAL, "[2x3]|6 elements|[4x-1]", TENSORS(x), ARGS(list_of(SHAPE(4, -1))));
    check_refused("reshape", BP_EINVAL, "two places", TENSORS(x), ARGS(list_of(SHAPE(-1, -1))));
    check_refused("reshape", BP_EINVAL, "[7]", TENSORS(x), ARGS(list_of(SHAPE(7))));
    check_refused("permute", BP_EINVAL, "1 entries|2 dimensions", TENSORS(x), ARGS(list_of(SHAPE(0))));
    check_refused("permute", BP_EINVAL, "twice", TENSORS(x), ARGS(list_of(SHAPE(1, 1))));
    check_refused("slice", BP_EINVAL, "[2x3]|dimension 1", TENSORS(x), ARGS(bp_int(1), bp_int(2), bp_int(5)));
    check_refused("slice", BP_EINVAL, "start must not exceed", TENSORS(x), ARGS(bp_int(1), bp_int(2), bp_int(1)));
    check_refused("slice", BP_EINVAL, "step|0", TENSORS(x), ARGS(bp_int(1), bp_int(0), bp_int(1), bp_int(0)));
    check_refused("select", BP_EINVAL, "index 3|3 elements", TENSORS(x), ARGS(bp_int(1), bp_int(3)));
    check_refused("select", BP_EINVAL, "dimension 2|with 2", TENSORS(x), ARGS(bp_int(2), bp_int(0)));
    check_refused("expand", BP_EINVAL, "[2x3]|[2x4]", TENSORS(x), ARGS(list_of(SHAPE(2, 4))));
    check_refused("squeeze", BP_EINVAL, "dimension 1|[2x3]", TENSORS(x), ARGS(list_of(SHAPE(1))));
    check_refused("unsqueeze", BP_EINVAL, "8 dimensions", TENSORS(counted(BP_F32, SHAPE(1, 1, 1, 1, 1, 1, 1, 1))), ARGS(bp_int(0)));
    sweep();
}

/* Shapes of several chunks, which begin anywhere between the positions taken. */
static void test_slice_grad(void)
{
    static const struct {
        int64_t shape[3], axis, start, step, size;
    } cases[] = { { { 3, 50, 700 }, 1, 1, 2, 103 }, { { 4, 300, 90 }, 1, 0, 1, 300 },    { { 900, 7, 11 }, 0, 5, 3, 2705 },
                  { { 40, 30, 77 }, 2, 2, 2, 157 }, { { 2, 3, 40000 }, 0, 1, 70, 75 },   { { 200, 1, 300 }, 1, 8, 9, 9 },
                  { { 5, 0, 6 }, 1, 0, 1, 4 },      { { 1, 1, 1 }, 2, 70000, 1, 70001 }, { { 0, 2, 3 }, 2, 0, 2, 6 } };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++)
        for (int f32 = 0; f32 < 2; f32++) {
            const int64_t *n = cases[k].shape, axis = cases[k].axis, size = cases[k].size;
            bp_tensor *dy = tensor(f32 ? BP_F32 : BP_F64, SHAPE(n[0], n[1], n[2]));
            int64_t wide[3] = { n[0], n[1], n[2] };
            wide[axis] = size;
            double *from = values(dy), *want = (double *)calloc((size_t)(wide[0] * wide[1] * wide[2]) + 1, sizeof *want);
            if (!want) exit(2);
            int64_t at[3];
            for (at[0] = 0; at[0] < n[0]; at[0]++)
                for (at[1] = 0; at[1] < n[1]; at[1]++)
                    for (at[2] = 0; at[2] < n[2]; at[2]++) {
                        int64_t to[3] = { at[0], at[1], at[2] };
                        to[axis] = cases[k].start + at[axis] * cases[k].step;
                        want[(to[0] * wide[1] + to[1]) * wide[2] + to[2]] = from[(at[0] * n[1] + at[1]) * n[2] + at[2]];
                    }
            const args how = ARGS(bp_int(axis), bp_int(cases[k].start), bp_int(cases[k].step), bp_int(size));
            check_values("slice_grad", apply("slice_grad", TENSORS(dy), how), wide[0] * wide[1] * wide[2], want, 0);
            check_threads("slice_grad", TENSORS(dy), how);
            free(from);
            free(want);
            sweep();
        }
}

static void test_join(void)
{
    bp_tensor *a = counted(BP_F32, SHAPE(2, 2)), *b = apply("permute", TENSORS(counted(BP_F32, SHAPE(3, 2))), NO_ARGS);
    CHECK_VALUES("concat", apply("concat", TENSORS(a, b), ARGS(bp_int(1))), 0, 1, 0, 2, 4, 2, 3, 1, 3, 5);
    CHECK_VALUES("concat rows", apply("concat", TENSORS(a, counted(BP_F32, SHAPE(0, 2)), a), NO_ARGS), 0, 1, 2, 3, 0, 1, 2, 3);
    CHECK_VALUES("stack", apply("stack", TENSORS(a, a), ARGS(bp_int(-1))), 0, 0, 1, 1, 2, 2, 3, 3);
    CHECK_VALUES("stack numbers", apply("stack", TENSORS(counted(BP_I64, S0), counted(BP_I64, S0)), NO_ARGS), 0, 0);
    CHECK_VALUES("flip", apply("flip", TENSORS(a), ARGS(list_of(SHAPE(0)))), 2, 3, 0, 1);
    CHECK_VALUES("flip all", apply("flip", TENSORS(b), NO_ARGS), 5, 3, 1, 4, 2, 0);
    CHECK_VALUES("slice_grad", apply("slice_grad", TENSORS(VALUES(BP_F32, 7, 8)), ARGS(bp_int(0), bp_int(1), bp_int(2), bp_int(5))), 0, 7,
                 0, 8, 0);
    bp_tensor *big = tensor(BP_F32, SHAPE(100, 700));
    check_threads("concat", TENSORS(big, big), ARGS(bp_int(1)));
    check_threads("flip", TENSORS(big), NO_ARGS);
    check_refused("concat", BP_EINVAL, "tensor 2|[2x3]|[2x2]|dimension 0", TENSORS(a, b), NO_ARGS);
    check_refused("concat", BP_EINVAL, "tensor 2|i64|f32", TENSORS(a, counted(BP_I64, SHAPE(2, 2))), NO_ARGS);
    check_refused("stack", BP_EINVAL, "tensor 2|[2x3]|[2x2]", TENSORS(a, b), NO_ARGS);
    check_refused("slice_grad", BP_EINVAL, "2 positions|size of 3", TENSORS(VALUES(BP_F32, 7, 8)),
                  ARGS(bp_int(0), bp_int(2), bp_int(1), bp_int(3)));
    sweep();
}

static void test_choose(void)
{
    bp_tensor *x = counted(BP_F32, SHAPE(4, 3)), *at = VALUES(BP_I64, 3, 0, 3);
    CHECK_VALUES("take rows", apply("take", TENSORS(x, at), NO_ARGS), 9, 10, 11, 0, 1, 2, 9, 10, 11);
    bp_tensor *y = apply("take", TENSORS(x, from_values(BP_U8, SHAPE(2, 1), NUMBERS(2, 0).v)), ARGS(bp_int(1)));
    CHECK(shape_is(y, SHAPE(4, 2, 1)), "take: shape");
    CHECK_VALUES("take columns", y, 2, 0, 5, 3, 8, 6, 11, 9);
    CHECK_VALUES("take bytes", apply("take", TENSORS(counted(BP_U8, SHAPE(3, 3)), VALUES(BP_I32, 2)), NO_ARGS), 6, 7, 8);
    CHECK_VALUES("take_grad", apply("take_grad", TENSORS(counted(BP_F64, SHAPE(3, 2)), at), ARGS(bp_int(0), bp_int(4))), 2, 3, 0, 0, 0, 0,
                 4, 6);
    CHECK_VALUES("gather", apply("gather", TENSORS(x, from_values(BP_I64, SHAPE(1, 3), NUMBERS(3, 0, 2).v)), NO_ARGS), 9, 1, 8);
    CHECK_VALUES(
        "gather along rows",
        apply("gather", TENSORS(counted(BP_I32, SHAPE(2, 3)), from_values(BP_I64, SHAPE(2, 2), NUMBERS(2, 2, 0, 1).v)), ARGS(bp_int(1))), 2,
        2, 3, 4);
    CHECK_VALUES("gather_grad",
                 apply("gather_grad", TENSORS(counted(BP_F32, SHAPE(2, 2)), from_values(BP_I64, SHAPE(2, 2), NUMBERS(2, 2, 0, 1).v)),
                       ARGS(bp_int(1), bp_int(3))),
                 0, 0, 1, 2, 3, 0);
    CHECK_VALUES("one_hot", apply("one_hot", TENSORS(VALUES(BP_U8, 1, 0)), ARGS(bp_int(3), bp_int(BP_I64))), 0, 1, 0, 1, 0, 0);
    bp_tensor *mask = apply("gt", TENSORS(x, VALUES(BP_F32, 8.5)), NO_ARGS);
    CHECK_VALUES("masked_select", apply("masked_select", TENSORS(x, mask), NO_ARGS), 9, 10, 11);
    CHECK_VALUES("masked_select of a view",
                 apply("masked_select", TENSORS(apply("permute", TENSORS(x), NO_ARGS), apply("permute", TENSORS(mask), NO_ARGS)), NO_ARGS),
                 9, 10, 11);
    bp_tensor *table = tensor(BP_F32, SHAPE(50, 300)),
              *many = apply("random_integers", (tensors){ 1, { NULL } }, ARGS(list_of(SHAPE(2000)), bp_int(0), bp_int(49)));
    check_threads("take", TENSORS(table, many), NO_ARGS);
    check_threads("take_grad", TENSORS(apply("take", TENSORS(table, many), NO_ARGS), many), ARGS(bp_int(0), bp_int(50)));

    check_refused("take", BP_EINVAL, "index 4|row 1|0..3", TENSORS(x, VALUES(BP_I64, 0, 4)), NO_ARGS);
    check_refused("take", BP_EINVAL, "index -1", TENSORS(x, VALUES(BP_I64, -1)), NO_ARGS);
    check_refused("take", BP_EINVAL, "bool|masked_select", TENSORS(x, mask), NO_ARGS);
    check_refused("take", BP_EINVAL, "index|f32", TENSORS(x, x), NO_ARGS);
    check_refused("gather", BP_EINVAL, "[4x3]|[3]", TENSORS(x, at), NO_ARGS);
    check_refused("one_hot", BP_EINVAL, "label 3|row 0", TENSORS(VALUES(BP_I64, 3)), ARGS(bp_int(3)));
    check_refused("masked_select", BP_EINVAL, "f32|bool", TENSORS(x, x), NO_ARGS);
    check_refused("masked_select", BP_EINVAL, "[3]|[4x3]", TENSORS(x, VALUES(BP_BOOL, 1, 0, 1)), NO_ARGS);
    sweep();
}

/* Sorted, a permutation of the input, equal ones in their order. */
static void check_sort(bp_tensor *x, int64_t n, bool descending)
{
    const args with = ARGS(bp_int(0), bp_int(descending));
    bp_tensor *y = apply("sort", TENSORS(x), with), *index = kept[n_kept - 1], *alone = apply("argsort", TENSORS(x), with);
    double *from = values(x), *v = values(y), *at = values(index);
    int wrong = 0;
    for (int64_t i = 0; i < n; i++) wrong += !same_number(v[i], from[(int64_t)at[i]], 0);
    for (int64_t i = 1; i < n; i++) {
        const double a = descending ? v[i] : v[i - 1], b = descending ? v[i - 1] : v[i]; /* a comes before b when ascending */
        wrong += !(a <= b || b != b) || ((a == b || (a != a && b != b)) && at[i - 1] >= at[i]);
    }
    CHECK(wrong == 0, "sort of %lld %s%s: %d pairs are wrong", (long long)n, bp_dtype_name(bp_tensor_dtype(x)),
          descending ? " descending" : "", wrong);
    check_values("argsort", alone, n, at, 0);
    free(from);
    free(v);
    free(at);
}

static void test_sort(void)
{
    static const bp_dtype dtypes[] = { BP_F32, BP_F64, BP_I32, BP_I64, BP_U8, BP_BOOL };
    for (int d = 0; d < 6; d++)
        for (int n = 0; n < 120; n += n < 20 ? 1 : 33)
            for (int descending = 0; descending < 2; descending++) check_sort(tensor(dtypes[d], SHAPE(n)), n, descending);
    bp_tensor *odd = VALUES(BP_F32, 0, NAN, -INFINITY, -0.0, INFINITY, NAN, -1);
    check_sort(odd, 7, false);
    check_sort(odd, 7, true);
    CHECK_VALUES("sort", apply("sort", TENSORS(odd), NO_ARGS), -INFINITY, -1, 0, -0.0, INFINITY, NAN, NAN);
    CHECK_VALUES("argsort", apply("argsort", TENSORS(odd), NO_ARGS), 2, 6, 0, 3, 4, 1, 5);
    bp_tensor *m = from_values(BP_I32, SHAPE(3, 2), NUMBERS(3, 1, 2, 2, 1, 3).v);
    CHECK_VALUES("sort columns", apply("sort", TENSORS(m), ARGS(bp_int(0))), 1, 1, 2, 2, 3, 3);
    CHECK_VALUES("sort rows", apply("sort", TENSORS(m), ARGS(bp_int(1), bp_int(1))), 3, 1, 2, 2, 3, 1);
    check_sort(tensor(BP_F32, SHAPE(20000)), 20000, false);
    check_threads("sort", TENSORS(tensor(BP_F32, SHAPE(500, 90))), NO_ARGS);
    sweep();
}

int main(void)
{
    counting memory = { 0, 0, 0, 0 };
    ctx = open_counting(&memory);
    test_views();
    test_join();
    test_slice_grad();
    test_choose();
    test_sort();
    close_counting(ctx, &memory);
    return report();
}
