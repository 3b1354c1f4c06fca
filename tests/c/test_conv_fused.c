/* test_conv_fused.c - a convolution whose result is pooled, or masked by a relu's result, piece by piece gives the bits of one op after the
 * other; so does a product, and so do the gradients of weights and bias in one. Random shapes, large and small, all algorithms. */
#include "ops.h"

static uint64_t state = 1;

/* 0..n-1 */
static int64_t draw(int64_t n)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((state >> 33) % (uint64_t)n);
}
#define ONE_OF(...) ((int64_t[]){ __VA_ARGS__ }[draw(COUNT(int64_t, __VA_ARGS__))])

static bp_arg pair(int64_t a, int64_t b)
{
    const int64_t list[2] = { a, b };
    return bp_list(2, list);
}

/* Some of them infinite or NaN if `odd`. */
static bp_tensor *some(bp_dtype dtype, dims d, bool odd)
{
    const int64_t n = count_of(d), seed = draw(100000);
    double *v = (double *)malloc((size_t)n * sizeof *v + 1);
    if (!v) exit(2);
    for (int64_t i = 0; i < n; i++) v[i] = odd && i % 997 == 13 ? (double)(i % 2 ? NAN : INFINITY) : noise(i * 7 + seed);
    bp_tensor *t = from_values(dtype, d, v);
    free(v);
    return t;
}

static dims shape_of(bp_tensor *t)
{
    dims d = { .n = bp_tensor_ndim(t) };
    memcpy(d.at, bp_tensor_shape(t), sizeof(int64_t) * (size_t)d.n);
    return d;
}

static void same_bits(const char *what, bp_tensor *a, bp_tensor *b, const char *shape)
{
    const int64_t n = bp_tensor_count(a);
    double *x = values(a), *y = values(b);
    int64_t bad = shape_is(b, shape_of(a)) ? -1 : 0;
    for (int64_t i = n - 1; i >= 0 && bad < 0; i--)
        if (memcmp(&x[i], &y[i], sizeof *x) != 0 && !(x[i] != x[i] && y[i] != y[i])) bad = i;
    CHECK(bad < 0, "%s of %s: element %lld is %.17g one after the other and %.17g in one", what, shape, (long long)bad,
          x[bad < 0 ? 0 : bad], y[bad < 0 ? 0 : bad]);
    free(x);
    free(y);
}

/* u = relu_grad(t, y), or with dropout */
static bp_tensor *undone(bp_tensor *t, bp_tensor *y, double p)
{
    return p > 0 ? apply("relu_dropout_grad", TENSORS(t, y), ARGS(bp_float(p))) : apply("relu_grad", TENSORS(t, y), NO_ARGS);
}

static void masked(const char *op, tensors in, args with, const char *shape)
{
    const double p = (double)draw(3) / 4;
    bp_tensor *t = apply(op, in, with), *y = some(bp_tensor_dtype(t), shape_of(t), true);
    args more = with;
    more.a[more.n++] = bp_float(p);
    in.t[in.n++] = y;
    same_bits(op, undone(t, y, p), apply(strcmp(op, "matmul") == 0 ? "matmul_relu_grad" : op, in, more), shape);
}

/* dw, and db as the sum over all pixels */
static void with_bias(const char *op, tensors in, args with, const char *shape)
{
    char both[64];
    snprintf(both, sizeof both, "%s_bias", op);
    same_bits(op, apply(op, in, with), apply_out(0, both, in, with), shape);
    same_bits("sum", apply("sum", TENSORS(in.t[1]), ARGS(bp_list(3, (const int64_t[]){ 0, 1, 2 }))), apply_out(1, both, in, with), shape);
}

typedef struct layer {
    int64_t n, h, w, c, oc, kh, kw, sh, sw, dh, dw, same, algorithm;
} layer;

static void convolution(bp_dtype dtype, const layer *l)
{
    const int64_t ph = ONE_OF(1, 2, 2, 2, 3), pw = ONE_OF(1, 2, 2, 3), sh = ONE_OF(0, 0, 0, 1, 2, 3), sw = ONE_OF(0, 0, 1, 2),
                  pool_same = draw(2);
    const bool odd = draw(4) == 0;
    char text[300];
    snprintf(text, sizeof text,
             "%s [%lld][%lld][%lld][%lld], %lldx%lldx%lld, stride %lld,%lld, dilation %lld,%lld, %s, algorithm %lld, "
             "pool %lldx%lld, %lld,%lld, %s",
             bp_dtype_name(dtype), (long long)l->n, (long long)l->h, (long long)l->w, (long long)l->c, (long long)l->kh, (long long)l->kw,
             (long long)l->oc, (long long)l->sh, (long long)l->sw, (long long)l->dh, (long long)l->dw, l->same ? "same" : "valid",
             (long long)l->algorithm, (long long)ph, (long long)pw, (long long)sh, (long long)sw, pool_same ? "same" : "valid");
    bp_tensor *x = some(dtype, SHAPE(l->n, l->h, l->w, l->c), odd), *w = some(dtype, SHAPE(l->kh, l->kw, l->c, l->oc), false);
    bp_tensor *b = draw(3) ? some(dtype, SHAPE(l->oc), false) : NULL;
    const bp_arg stride = pair(l->sh, l->sw), same = bp_int(l->same), dilation = pair(l->dh, l->dw), act = bp_int(draw(2));
    const bp_arg way = bp_int(l->algorithm), size = pair(ph, pw), step = pair(sh, sw), pool = bp_int(pool_same);
    bp_tensor *y = apply("conv2d", TENSORS(x, w, b), ARGS(stride, same, dilation, act, way));
    const dims d = shape_of(y);
    if (pool_same || (d.at[1] >= ph && d.at[2] >= pw)) {
        const args both = ARGS(stride, same, dilation, act, way, size, step, pool), alone = ARGS(size, step, pool);
        for (int i = 0; i < 2; i++)
            same_bits(i ? "argmax" : "conv2d_max_pool2d", apply_out(i, "max_pool2d", TENSORS(y), alone),
                      apply_out(i, "conv2d_max_pool2d", TENSORS(x, w, b), both), text);
        same_bits("conv2d_avg_pool2d", apply("avg_pool2d", TENSORS(y), alone), apply("conv2d_avg_pool2d", TENSORS(x, w, b), both), text);
    }
    masked("conv2d_grad_input", TENSORS(some(dtype, d, odd), w), ARGS(stride, same, dilation, pair(l->h, l->w), way), text);
    with_bias("conv2d_grad_weight", TENSORS(x, some(dtype, d, odd)), ARGS(stride, same, dilation, pair(l->kh, l->kw), way), text);
    bp_tensor *v = some(dtype, SHAPE(l->kh, l->kw, l->c, ONE_OF(1, 1, 2)), false);
    y = apply("depthwise_conv2d", TENSORS(x, v), ARGS(stride, same, dilation));
    masked("depthwise_conv2d_grad_input", TENSORS(some(dtype, shape_of(y), odd), v), ARGS(stride, same, dilation, pair(l->h, l->w)), text);
    with_bias("depthwise_conv2d_grad_weight", TENSORS(x, some(dtype, shape_of(y), odd)), ARGS(stride, same, dilation, pair(l->kh, l->kw)),
              text);
}

static layer random_layer(bool winograd)
{
    layer l = { .n = ONE_OF(1, 2, 3, 7, 17, 19, 40), .h = 1 + draw(30), .w = 1 + draw(30), .c = ONE_OF(1, 3, 8, 9, 16, 33) };
    l.oc = ONE_OF(1, 2, 6, 8, 16, 17, 32);
    l.kh = winograd ? 3 : ONE_OF(1, 2, 3, 3, 5), l.kw = winograd ? 3 : ONE_OF(1, 3, 3, 4);
    l.sh = winograd ? 1 : ONE_OF(1, 1, 1, 2, 3), l.sw = winograd ? 1 : ONE_OF(1, 1, 2);
    l.dh = winograd ? 1 : ONE_OF(1, 1, 2), l.dw = winograd ? 1 : ONE_OF(1, 1, 2);
    l.algorithm = winograd ? draw(2) * 2 : draw(2);
    l.same = draw(2) || l.h < 10 || l.w < 10;
    if (draw(12) == 0) l.n = 1 + draw(2), l.h = 70 + draw(30), l.w = 50 + draw(50); /* more than a piece */
    while (l.n * l.h * l.w * l.c * l.oc > 4000000 && l.n > 1) l.n = (l.n + 1) / 2;
    return l;
}

static void product(bp_dtype dtype)
{
    const int64_t m = ONE_OF(1, 2, 5, 33, 200, 1003), n = ONE_OF(1, 7, 64, 130, 300), k = ONE_OF(1, 3, 64, 500), batch = ONE_OF(1, 1, 1, 3);
    const bool turned = draw(2);
    char text[100];
    snprintf(text, sizeof text, "%s %lld x %lldx%lldx%lld", bp_dtype_name(dtype), (long long)batch, (long long)m, (long long)n,
             (long long)k);
    bp_tensor *a = some(dtype, batch > 1 ? SHAPE(batch, m, k) : SHAPE(m, k), false);
    bp_tensor *b = some(dtype, turned ? SHAPE(n, k) : SHAPE(k, n), false);
    if (turned) b = apply("permute", TENSORS(b), NO_ARGS);
    masked("matmul", TENSORS(a, b), NO_ARGS, text);
}

/* x = last(first(x, w, ...)): what is written lies where the first op reads. A capture gives what the ops do. */
static void over_operand(const char *first, tensors in, args with, const char *last, bp_tensor *y)
{
    bp_tensor *x = in.t[0], *before = apply("copy", TENSORS(x), NO_ARGS), *eager = NULL;
    bp_plan *plan = NULL;
    for (int captured = 0; captured < 2; captured++) {
        bp_status status = captured ? bp_plan_begin(ctx, 1, &x) : BP_OK;
        bp_tensor *t = apply(first, in, with), *operands[] = { t, y }, *out = x;
        if (status == BP_OK) status = bp_apply(ctx, bp_op_find(last), y ? 2 : 1, operands, 0, NULL, &out);
        if (captured && status == BP_OK) status = bp_plan_end(ctx, 0, NULL, &plan);
        CHECK(status == BP_OK, "%s", bp_message(ctx));
        if (!captured) eager = apply("copy", TENSORS(x), NO_ARGS);
        if (bp_apply1(ctx, bp_op_find("copy"), before, &x) != BP_OK) exit(2);
    }
    CHECK(bp_plan_run(plan, 1, &x, NULL) == BP_OK, "%s", bp_message(ctx));
    same_bits(first, eager, x, last);
    bp_plan_release(plan);
}

static void test_over_operands(void)
{
    bp_tensor *a = some(BP_F32, SHAPE(600, 512), false), *w = some(BP_F32, SHAPE(512, 512), false), *b = some(BP_F32, SHAPE(512), false);
    over_operand("linear", TENSORS(a, w, b), NO_ARGS, "relu", NULL);
    over_operand("matmul", TENSORS(a, w), NO_ARGS, "relu_grad", some(BP_F32, SHAPE(600, 512), false));
    bp_tensor *x = some(BP_F32, SHAPE(20, 30, 30, 16), false), *v = some(BP_F32, SHAPE(3, 3, 16, 16), false);
    over_operand("conv2d", TENSORS(x, v), ARGS(pair(1, 1), bp_int(1)), "relu", NULL);
    over_operand("conv2d_grad_input", TENSORS(x, v), ARGS(pair(1, 1), bp_int(1), pair(1, 1), pair(30, 30)), "relu_grad",
                 some(BP_F32, SHAPE(20, 30, 30, 16), false));
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    ctx = open_counting(&c);
    for (int i = 0; i < 400; i++) {
        const layer l = random_layer(i % 2);
        convolution(i % 5 ? BP_F32 : BP_F64, &l);
        sweep();
        product(i % 5 ? BP_F32 : BP_F64);
        sweep();
    }
    const layer empty = { 0, 5, 6, 3, 4, 3, 3, 1, 1, 1, 1, 1, 0 };
    convolution(BP_F32, &empty);
    with_bias("conv2d_grad_weight", TENSORS(some(BP_F32, SHAPE(2, 20, 20, 3), false), some(BP_F32, SHAPE(2, 20, 20, 600), false)),
              ARGS(pair(1, 1), bp_int(0), pair(1, 1), pair(1, 1)), "many features");
    bp_tensor *a = some(BP_F32, SHAPE(9, 40000), false), *b = some(BP_F32, SHAPE(40000, 11), false); /* a sum of parts */
    masked("matmul", TENSORS(a, b), NO_ARGS, "9x11x40000");
    sweep();
    test_over_operands();
    sweep();
    close_counting(ctx, &c);
    return report();
}
