/* test_fused.c - what a plan puts in the place of several ops gives their bits: batch normalisation with an addend and relu, and its
 * gradient. */
#include "ops.h"

/* Elements of random bits in shape, some of them infinite or NaN if `odd`. */
static bp_tensor *some(bp_dtype dtype, dims d, int64_t seed, bool odd)
{
    const int64_t n = count_of(d);
    double *v = (double *)malloc((size_t)n * sizeof *v + 1);
    if (!v) exit(2);
    for (int64_t i = 0; i < n; i++) v[i] = odd && i % 97 == seed % 97 ? (double)(i % 2 ? NAN : INFINITY) : noise(i * 7 + seed);
    bp_tensor *t = from_values(dtype, d, v);
    free(v);
    return t;
}

static void same_elements(const char *what, bp_tensor *a, bp_tensor *b, const char *shape)
{
    const int64_t n = bp_tensor_count(a);
    double *x = values(a), *y = values(b);
    int64_t bad = bp_tensor_count(b) == n ? -1 : 0;
    for (int64_t i = n - 1; i >= 0 && bad < 0; i--)
        if (memcmp(&x[i], &y[i], sizeof *x) != 0 && !(x[i] != x[i] && y[i] != y[i])) bad = i;
    CHECK(bad < 0, "%s of %s: element %lld is %.17g one after the other and %.17g fused", what, shape, (long long)bad, x[bad], y[bad]);
    free(x);
    free(y);
}

enum { SCALED = 1, SHIFTED = 2, ADDED = 4, RELU = 8, RUNNING = 16, ODD = 32, MORE = 64, ALL = 128 };

static bp_tensor *followed(bp_tensor *t, bp_tensor *addend, int how)
{
    if (addend) t = apply("add", TENSORS(t, addend), NO_ARGS);
    return how & RELU ? apply("relu", TENSORS(t), NO_ARGS) : t;
}

static void compare(bp_dtype dtype, dims d, int how)
{
    const dims c = SHAPE(d.at[d.n - 1]);
    const bp_arg act = bp_int(how & RELU ? 1 : 0), eps = bp_float(1e-3), decay = bp_float(0.8);
    const bool odd = how & ODD;
    char shape[200];
    snprintf(shape, sizeof shape, "%s [%lld][..][%lld], %d", bp_dtype_name(dtype), (long long)d.at[0], (long long)c.at[0], how);
    bp_tensor *x = some(dtype, d, 1, odd), *addend = how & ADDED ? some(dtype, d, 2, odd) : NULL;
    bp_tensor *scale = how & SCALED ? some(dtype, c, 3, false) : NULL, *shift = how & SHIFTED ? some(dtype, c, 4, false) : NULL;
    bp_tensor *mean[2] = { NULL }, *var[2] = { NULL };
    for (int i = 0; i < 2; i++) mean[i] = some(dtype, c, 5, false), var[i] = apply("abs", TENSORS(some(dtype, c, 6, false)), NO_ARGS);

    const tensors plain = TENSORS(x, scale, shift, mean[0], var[0]), fused = TENSORS(x, scale, shift, mean[0], var[0], addend);
    same_elements("batch_norm_inference_fused", followed(apply("batch_norm_inference", plain, ARGS(eps)), addend, how),
                  apply("batch_norm_inference_fused", fused, ARGS(eps, act)), shape);

    bp_tensor *one[BP_MAX_OUT] = { NULL }, *two[BP_MAX_OUT] = { NULL };
    const bool running = how & RUNNING;
    bp_tensor *in[2][6] = { { x, scale, shift, running ? mean[0] : NULL, running ? var[0] : NULL },
                            { x, scale, shift, running ? mean[1] : NULL, running ? var[1] : NULL, addend } };
    const bp_arg options[3] = { decay, eps, act };
    if (bp_apply(ctx, bp_op_find("batch_norm"), 5, in[0], 2, options, one) != BP_OK ||
        bp_apply(ctx, bp_op_find("batch_norm_fused"), 6, in[1], 3, options, two) != BP_OK) {
        printf("%s: %s\n", shape, bp_message(ctx));
        exit(2);
    }
    for (int i = 0; i < 3; i++) keep(one[i]), keep(two[i]);
    bp_tensor *y = followed(one[0], addend, how);
    same_elements("batch_norm_fused", y, two[0], shape);
    for (int i = 1; i < 3; i++) same_elements("statistics of batch_norm_fused", one[i], two[i], shape);
    same_elements("running mean", mean[0], mean[1], shape);
    same_elements("running variance", var[0], var[1], shape);
    if (!(how & RELU)) return;

    static const char *const names[] = { "dx", "dscale", "dshift" };
    bp_tensor *dy = some(dtype, d, 8, odd), *more = how & MORE ? some(dtype, d, 9, false) : NULL;
    bp_tensor *dz = apply("relu_grad", TENSORS(more ? apply("add", TENSORS(dy, more), NO_ARGS) : dy, y), NO_ARGS);
    for (int i = 0; i < 3; i++) {
        bp_tensor *want = apply_out(i, "batch_norm_grad", TENSORS(dz, x, scale, one[1], one[2]), NO_ARGS);
        const tensors known = TENSORS(dy, x, scale, one[1], one[2], more, y);
        same_elements(names[i], want, apply_out(i, "batch_norm_fused_grad", known, NO_ARGS), shape);
        if (i == 0) same_elements("dz", dz, apply_out(3, "batch_norm_fused_grad", known, NO_ARGS), shape);
        if (addend || more) continue;
        same_elements(names[i], want, apply_out(i, "batch_norm_grad", TENSORS(dy, x, scale, one[1], one[2], shift), ARGS(act)), shape);
    }
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    ctx = open_counting(&c);
    const dims shapes[] = { SHAPE(2, 1),     SHAPE(5, 3),          SHAPE(700, 1),   SHAPE(4, 9, 9, 7), SHAPE(17, 15, 15, 24),
                            SHAPE(3, 300),   SHAPE(2, 31, 30, 64), SHAPE(1, 5, 33), SHAPE(6000, 16),   SHAPE(2, 3, 5, 2, 100),
                            SHAPE(130, 129), SHAPE(1, 2, 63) };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int how = 0; how < ALL; how++) {
            if (count_of(shapes[i]) > 10000 && how % 5 != (int)i % 5) continue; /* a part of the ways for large ones */
            compare(how % 2 ? BP_F32 : BP_F64, shapes[i], how);
            compare(how % 2 ? BP_F64 : BP_F32, shapes[i], how);
            sweep();
        }
    compare(BP_F32, SHAPE(0, 3), SCALED | ADDED | RELU | RUNNING);
    sweep();
    close_counting(ctx, &c);
    return report();
}
