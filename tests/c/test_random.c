/* test_random.c - random ops: the words of Philox in every table, draws that do not depend on how they are cut, their distribution,
 * streams, dropout and its replay. */
#include "ops.h"

#include "../../core/base/random.h"

enum { N = 300 };

/* Uniform numbers and dropout masks say what words they were made of. */
static void test_words(const bp_kernels *k, const char *table, bool f64)
{
    static const uint64_t keys[] = { 0, 0x123456789abcdef0u, ~(uint64_t)0 };
    double got[N];
    float got_f32[N], ones[N], mask[N];
    for (int i = 0; i < N; i++) ones[i] = 1;
    for (int t = 0; t < 3; t++) {
        const uint64_t key = keys[t], step = (uint64_t)t << 33 | 5, first = t == 2 ? ((uint64_t)1 << 34) - 70 : 0;
        int wrong = 0;
        k->random_uniform(N, key, step, first, f64 ? (void *)got : got_f32);
        for (int i = 0; i < N; i++) {
            const uint32_t w = bp_philox_at(key, step, first + (uint64_t)i);
            wrong += f64 ? got[i] != (double)w * 0x1p-32 : got_f32[i] != (float)(w >> 8) * 0x1p-24f;
        }
        CHECK(wrong == 0, "%s: %d of %d words are not Philox's", table, wrong, N);
        if (f64) continue;
        k->dropout(N, key, step, first, 0.25, ones, mask);
        for (int i = wrong = 0; i < N; i++) {
            const uint64_t at = first + (uint64_t)i;
            const uint32_t w = bp_philox_at(key, step, at / 128 * 64 + at % 64), half = at % 128 < 64 ? w & 0xffff : w >> 16;
            wrong += mask[i] != (half >= 0x4000 ? (float)(1 / 0.75) : 0);
        }
        CHECK(wrong == 0, "%s: %d of %d elements are dropped wrongly", table, wrong, N);
    }
    uint32_t many[448];
    k->random_words(448, keys[1], 7, 128, many);
    for (int i = 0; i < 448; i++)
        CHECK(many[i] == bp_philox_at(keys[1], 7, 128 + (uint64_t)i), "%s: word %d is not Philox's", table, 128 + i);
    /* known answers of the reference implementation: counter 0, key 0 */
    uint32_t w[4];
    bp_philox(0, 0, 0, w);
    CHECK(w[0] == 0x6627e8d5u && w[1] == 0xe169c58du && w[2] == 0xbc57ac4cu && w[3] == 0x9b00dbd8u,
          "Philox4x32-10 of zeros: %08x %08x %08x %08x", w[0], w[1], w[2], w[3]);
}

/* Any cut of a draw gives the same bits. */
static void test_cuts(const bp_kernels *k, const char *table, size_t size)
{
    static double whole[N], part[N];
    for (int normal = 0; normal < 2; normal++) {
        void (*draw)(int64_t, uint64_t, uint64_t, uint64_t, void *) = normal ? k->random_normal : k->random_uniform;
        draw(N, 9, 4, 0, whole);
        for (int first = 0; first < N; first += 13)
            for (int n = 0; n <= N - first; n += 31) {
                draw(n, 9, 4, (uint64_t)first, part);
                CHECK(memcmp(part, (char *)whole + (size_t)first * size, (size_t)n * size) == 0, "%s: %s %d from %d on differ", table,
                      normal ? "normal" : "uniform", n, first);
            }
    }
}

static void moments(bp_tensor *t, double *mean, double *std, double *least, double *most)
{
    double *v = values(t), sum = 0, square = 0;
    const int64_t n = bp_tensor_count(t);
    *least = INFINITY, *most = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        sum += v[i], square += v[i] * v[i];
        *least = fmin(*least, v[i]), *most = fmax(*most, v[i]);
    }
    *mean = sum / (double)n;
    *std = sqrt(square / (double)n - *mean * *mean);
    free(v);
}

static void test_distributions(void)
{
    double mean, std, least, most;
    const bp_dtype dtypes[] = { BP_F32, BP_F64 };
    const dims many = SHAPE(1000, 200);
    for (int d = 0; d < 2; d++) { /* bounds are five standard errors */
        moments(apply("random_uniform", (tensors){ 1, { NULL } }, ARGS(list_of(many), bp_float(-1), bp_float(3), bp_int(dtypes[d]))), &mean,
                &std, &least, &most);
        CHECK(fabs(mean - 1) < 0.013 && fabs(std - sqrt(16.0 / 12)) < 0.01, "uniform: mean %g, std %g", mean, std);
        CHECK(least >= -1 && least < -0.999 && most <= 3 && most > 2.999, "uniform from %g to %g", least, most);
        bp_tensor *z = apply("random_normal", (tensors){ 1, { NULL } }, ARGS(list_of(many), bp_float(2), bp_float(0.5), bp_int(dtypes[d])));
        moments(z, &mean, &std, &least, &most);
        CHECK(fabs(mean - 2) < 0.0056 && fabs(std - 0.5) < 0.004, "normal: mean %g, std %g", mean, std);
        double *v = values(z), tail = 0, pairs = 0;
        for (int i = 0; i < 200000; i++) tail += fabs(v[i] - 2) > 0.5 * 1.959964;
        for (int i = 0; i < 200000; i += 2) pairs += (v[i] - 2) * (v[i + 1] - 2) * 4;
        CHECK(fabs(tail / 200000 - 0.05) < 0.0025, "normal: %g lie beyond 1.96 standard deviations", tail / 200000);
        CHECK(fabs(pairs / 100000) < 0.016, "normal: neighbours are correlated by %g", pairs / 100000);
        free(v);
    }
    bp_tensor *dice = apply("random_integers", (tensors){ 1, { NULL } }, ARGS(list_of(SHAPE(60000)), bp_int(-2), bp_int(3)));
    double *v = values(dice), seen[6] = { 0 }, chi = 0;
    for (int i = 0; i < 60000; i++) seen[(int)v[i] + 2]++;
    for (int i = 0; i < 6; i++) chi += (seen[i] - 10000) * (seen[i] - 10000) / 10000;
    CHECK(chi < 25, "integers: chi squared is %g with 5 degrees of freedom", chi);
    free(v);
    bp_tensor *wide = apply("random_integers", (tensors){ 1, { NULL } }, ARGS(list_of(SHAPE(100)), bp_int(INT64_MIN), bp_int(INT64_MAX)));
    moments(wide, &mean, &std, &least, &most);
    CHECK(least < -1e18 && most > 1e18, "integers of all sizes: from %g to %g", least, most);
    v = values(apply("random_permutation", (tensors){ 1, { NULL } }, ARGS(bp_int(1000))));
    bool there[1000] = { false };
    int in_place = 0, distinct = 0;
    for (int i = 0; i < 1000; i++) there[(int)v[i]] = true, in_place += v[i] == i;
    for (int i = 0; i < 1000; i++) distinct += there[i];
    CHECK(distinct == 1000 && in_place < 10, "permutation: %d distinct, %d in their place", distinct, in_place);
    free(v);
    sweep();
}

/* Fisher and Yates with one word at a time. */
static void test_permutation(void)
{
    enum { MOST = 5001 };
    static const int sizes[] = { 0, 1, 2, 3, 31, 255, 256, 257, 511, 513, 1000, MOST };
    static int64_t plain[MOST];
    for (size_t t = 0; t < sizeof sizes / sizeof *sizes; t++) {
        const int n = sizes[t];
        for (int i = 0; i < n; i++) plain[i] = i;
        for (int i = n - 1; i > 0; i--) {
            const uint64_t high = bp_philox_at(77, 5, 2 * (uint64_t)i), low = bp_philox_at(77, 5, 2 * (uint64_t)i + 1);
            const int64_t k = (int64_t)(((unsigned __int128)(high << 32 | low) * (uint64_t)(i + 1)) >> 64), last = plain[i];
            plain[i] = plain[k], plain[k] = last;
        }
        double *got = values(apply("random_permutation", TENSORS(VALUES(BP_I64, 77, 5)), ARGS(bp_int(n))));
        int wrong = 0;
        for (int i = 0; i < n; i++) wrong += got[i] != (double)plain[i];
        CHECK(wrong == 0, "permutation of %d: %d places are not those of the plain loop", n, wrong);
        free(got);
    }
    sweep();
}

static void test_streams(void)
{
    const dims shape = SHAPE(70000);
    const tensors own = { 1, { NULL } };
    bp_seed(ctx, 11);
    bp_tensor *a = apply("random_normal", own, ARGS(list_of(shape))), *b = apply("random_normal", own, ARGS(list_of(shape)));
    bp_seed(ctx, 11);
    bp_set_threads(ctx, 3);
    bp_tensor *again = apply("random_normal", own, ARGS(list_of(SHAPE(3)))), *second = apply("random_normal", own, ARGS(list_of(shape)));
    CHECK(memcmp(bp_tensor_data(a), bp_tensor_data(again), 12) == 0, "the same seed gives other numbers, or the shape matters");
    CHECK(memcmp(bp_tensor_data(b), bp_tensor_data(second), 280000) == 0,
          "the second draw depends on the size of the first, or on threads");
    CHECK(memcmp(bp_tensor_data(a), bp_tensor_data(b), 280000) != 0, "two draws are equal");
    bp_set_threads(ctx, 1);
    bp_tensor *state = VALUES(BP_I64, 77, 5), *x = apply("random_uniform", TENSORS(state), ARGS(list_of(SHAPE(4))));
    CHECK_VALUES("state after a draw", state, 77, 6);
    for (int i = 0; i < 4; i++)
        CHECK(((float *)bp_tensor_data(x))[i] == (float)(bp_philox_at(77, 5, (uint64_t)i) >> 8) * 0x1p-24f, "element %d of a draw", i);

    bp_tensor *ones = apply("full", NO_TENSORS, ARGS(list_of(SHAPE(100000)), bp_float(1)));
    bp_tensor *y = apply("dropout", TENSORS(ones, state), ARGS(bp_float(0.3)));
    bp_tensor *used = kept[n_kept - 1];
    double mean, std, least, most;
    moments(y, &mean, &std, &least, &most);
    CHECK(fabs(mean - 1) < 0.011 && least == 0 && most == (double)(float)(1 / 0.7), "dropout: mean %g, from %g to %g", mean, least, most);
    CHECK_VALUES("used", used, 77, 6);
    CHECK_VALUES("state after dropout", state, 77, 7);
    bp_tensor *replay = apply("dropout", TENSORS(ones, state, used), ARGS(bp_float(0.3)));
    CHECK(memcmp(bp_tensor_data(y), bp_tensor_data(replay), 400000) == 0, "a replayed dropout drops others");
    CHECK_VALUES("state after a replay", state, 77, 7);
    CHECK_VALUES("dropout of all", apply("dropout", TENSORS(VALUES(BP_F32, 1, 2), state), ARGS(bp_float(1))), 0, 0);
    CHECK_VALUES("dropout of none", apply("dropout", TENSORS(VALUES(BP_F32, 1, 2), state), ARGS(bp_float(0))), 1, 2);

    check_refused("dropout", BP_EINVAL, "p|1.5|0 to 1", TENSORS(ones), ARGS(bp_float(1.5)));
    check_refused("dropout", BP_EINVAL, "used|i64[2]", TENSORS(ones, state, ones), ARGS(bp_float(0.5)));
    check_refused("random_uniform", BP_EINVAL, "low is 2|high is 1", own, ARGS(list_of(shape), bp_float(2), bp_float(1)));
    check_refused("random_uniform", BP_EINVAL, "i32|random_integers", own, ARGS(list_of(shape), bp_float(0), bp_float(1), bp_int(BP_I32)));
    check_refused("random_normal", BP_EINVAL, "std|-1", own, ARGS(list_of(shape), bp_float(0), bp_float(-1)));
    check_refused("random_integers", BP_EINVAL, "300|u8", own, ARGS(list_of(shape), bp_int(0), bp_int(300), bp_int(BP_U8)));
    check_refused("random_integers", BP_EINVAL, "low is 3|high is 1", own, ARGS(list_of(shape), bp_int(3), bp_int(1)));
    check_refused("random_permutation", BP_EINVAL, "n|-1", own, ARGS(bp_int(-1)));
    sweep();
}

int main(void)
{
    counting memory = { 0, 0, 0, 0 };
    static const char *const isas[] = { "baseline", "avx2", "avx512" };
    for (int i = 0; i < 3; i++) {
        const bp_kernels *k = bp_kernels_f32(isas[i]);
        if (!k) continue;
        test_words(k, isas[i], false);
        test_cuts(k, isas[i], sizeof(float));
    }
    test_words(bp_kernels_f64(), "f64", true);
    test_cuts(bp_kernels_f64(), "f64", sizeof(double));
    ctx = open_counting(&memory);
    test_distributions();
    test_permutation();
    test_streams();
    close_counting(ctx, &memory);
    return report();
}
