/* test_embedding.c - the gradient of a table against plain sums, the list of its rows that hold something, and updates by that list. */
#include "../../core/plan/plan.h"
#include "ops.h"

#define OK(call) CHECK((call) == BP_OK, "%s", bp_message(ctx))

static unsigned long long state = 7;
static int64_t draw(int64_t n) { return (int64_t)((state = state * 6364136223846793005u + 1442695040888963407u) >> 33) % n; }

static bp_tensor *ids_of(dims d, int64_t vocab)
{
    bp_tensor *t = tensor(BP_I64, d);
    const int64_t n = count_of(d);
    double *v = (double *)malloc((size_t)n * sizeof *v + 1);
    for (int64_t i = 0; i < n; i++) v[i] = (double)(draw(vocab) + ctx->base);
    if (bp_tensor_write(t, BP_F64, v, n) != BP_OK) exit(2);
    free(v);
    return t;
}

static bp_tensor *full(bp_dtype dtype, dims d, double value)
{
    return apply("full", NO_TENSORS, ARGS(list_of(d), bp_float(value), bp_int(dtype)));
}

static bool same_bits(bp_tensor *a, bp_tensor *b)
{
    return memcmp(bp_tensor_data(a), bp_tensor_data(b), (size_t)bp_tensor_count(a) * bp_dtype_size(bp_tensor_dtype(a))) == 0;
}

/* ---- sums ---- */

/* dy as it lies, with gaps, and one row for all steps of a sample. */
static void try_sums(bp_dtype dtype, int64_t batch, int64_t time, int64_t dim, int64_t vocab, int64_t padding)
{
    bp_tensor *const ids = ids_of(SHAPE(batch, time), vocab);
    bp_tensor *const lying[3] = { tensor(dtype, SHAPE(batch, time, dim)), gappy(dtype, SHAPE(batch, time, dim)),
                                  apply("expand", TENSORS(tensor(dtype, SHAPE(batch, 1, dim))), ARGS(list_of(SHAPE(batch, time, dim)))) };
    const bp_arg pad = padding >= 0 ? bp_int(padding) : bp_default();
    double *const at = values(ids), *want = (double *)malloc((size_t)(vocab * dim) * sizeof *want + 1);
    for (int k = 0; k < 3; k++) {
        double *const dy = values(lying[k]);
        for (int64_t i = 0; i < vocab * dim; i++) want[i] = 0;
        for (int64_t i = 0; i < batch * time; i++)
            for (int64_t j = 0; j < dim && (int64_t)at[i] - ctx->base != padding; j++) {
                double *const sum = &want[((int64_t)at[i] - ctx->base) * dim + j];
                *sum = dtype == BP_F32 ? (double)((float)*sum + (float)dy[i * dim + j]) : *sum + dy[i * dim + j];
            }
        bp_tensor *const dw = apply("embedding_grad", TENSORS(lying[k], ids), ARGS(pad, bp_int(vocab)));
        check_values("embedding_grad", dw, vocab * dim, want, 0);
        check_threads("embedding_grad", TENSORS(lying[k], ids), ARGS(pad, bp_int(vocab)));
        free(dy);
    }
    free(at);
    free(want);
    sweep();
}

/* ---- the list ---- */

/* The same memory for one batch after the other: every time what a fresh gradient holds, and a list of the rows that hold it. */
static void try_list(bp_dtype dtype, int64_t count, int64_t dim, int64_t vocab)
{
    bp_tensor *dw = full(dtype, SHAPE(vocab, dim), 5), *const rows = full(BP_I64, SHAPE(1 + vocab), -1);
    bp_tensor *const w = tensor(dtype, SHAPE(vocab, dim)), *const u = apply("copy", TENSORS(w), NO_ARGS);
    bp_tensor *const step = VALUES(BP_I64, 1), *none = NULL;
    const double rates[] = { 0.5, 0.25, 0, -1, (double)INFINITY, (double)NAN };
    for (int round = 0; round < 12; round++) {
        const int64_t kinds = round % 3 == 1 ? vocab : 1 + draw(vocab);
        bp_tensor *const dy = tensor(dtype, SHAPE(count, dim)), *const ids = ids_of(SHAPE(count), kinds);
        if (round == 7) ((int64_t *)bp_tensor_data(rows))[0] = -1;
        bp_tensor *const fresh = apply("embedding_grad", TENSORS(dy, ids), ARGS(bp_default(), bp_int(vocab)));
        bp_tensor *const in[3] = { dy, ids, rows };
        const bp_arg with[2] = { bp_default(), bp_int(vocab) };
        OK(bp_apply(ctx, &bp__op_embedding_grad, 3, in, 2, with, &dw));
        CHECK(same_bits(dw, fresh), "round %d: the gradient differs from a fresh one", round);
        const int64_t *const list = (const int64_t *)bp_tensor_data(rows);
        double *const held = values(fresh);
        for (int64_t r = 0; r < vocab; r++) {
            int64_t named = 0;
            bool some = false;
            for (int64_t i = 1; i <= list[0]; i++) named += list[i] == r;
            for (int64_t j = 0; j < dim; j++) some |= held[r * dim + j] != 0;
            CHECK(named <= 1 && (named == 1 || !some), "round %d: row %lld is named %lld times", round, (long long)r, (long long)named);
        }
        free(held);
        bp_tensor *const rate = values_of(BP_F64, (numbers){ 1, { rates[round < 8 ? round % 4 : round % 6] } });
        bp_tensor *const all[7] = { w, fresh, none, rate, step, none, none }, *const some[7] = { u, dw, none, rate, step, none, rows };
        OK(bp_apply(ctx, &bp__op_sgd_step, 7, all, 0, NULL, NULL));
        OK(bp_apply(ctx, &bp__op_sgd_step, 7, some, 0, NULL, NULL));
        CHECK(same_bits(w, u), "round %d: an update by rows differs from the whole", round);
    }
    sweep();
}

static void misuse(void)
{
    bp_tensor *const dy = tensor(BP_F32, SHAPE(3, 2)), *const ids = ids_of(SHAPE(3), 9), *const rows = full(BP_I64, SHAPE(4), -1);
    const args with = ARGS(bp_default(), bp_int(9));
    check_refused("embedding_grad", BP_EINVAL, "'rows' is|i64 [3]|[4]", TENSORS(dy, ids, full(BP_I64, SHAPE(3), -1)), with);
    check_refused("embedding_grad", BP_EINVAL, "'rows' is|f32", TENSORS(dy, ids, full(BP_F32, SHAPE(4), -1)), with);
    check_refused("embedding_grad", BP_EINVAL, "dw is not given", TENSORS(dy, ids, rows), with);

    bp_tensor *dw = full(BP_F32, SHAPE(9, 2), 0), *const in[3] = { dy, ids, rows };
    int64_t *const list = (int64_t *)bp_tensor_data(rows);
    list[0] = 4;
    CHECK(bp_apply(ctx, &bp__op_embedding_grad, 3, in, 2, with.a, &dw) == BP_EINVAL && strstr(bp_message(ctx), "more than it names"),
          "a list longer than its memory: %s", bp_message(ctx));
    list[0] = 1, list[1] = 9;
    CHECK(bp_apply(ctx, &bp__op_embedding_grad, 3, in, 2, with.a, &dw) == BP_EINVAL && strstr(bp_message(ctx), "names row 9 of 9"),
          "a row that is none: %s", bp_message(ctx));

    bp_tensor *const w = full(BP_F32, SHAPE(9, 2), 0), *const rate = VALUES(BP_F64, 0.1), *const step = VALUES(BP_I64, 1);
    check_refused("sgd_step", BP_EINVAL, "names row 9 of 9", TENSORS(w, dw, NULL, rate, step, NULL, rows), NO_ARGS);
    check_refused("sgd_step", BP_EINVAL, "'rows' is given with momentum or weight_decay", TENSORS(w, dw, NULL, rate, step, NULL, rows),
                  ARGS(bp_default(), bp_default(), bp_default(), bp_float(0.5)));
    check_refused("sgd_step", BP_EINVAL, "'rows' is f32|i64", TENSORS(w, dw, NULL, rate, step, NULL, dy), NO_ARGS);
    list[0] = 4;
    check_refused("sgd_step", BP_EINVAL, "more than it names", TENSORS(w, dw, NULL, rate, step, NULL, rows), NO_ARGS);
    bp_tensor *const flat = full(BP_F32, SHAPE(18), 0);
    check_refused("sgd_step", BP_EINVAL, "'w'|[rows][..]", TENSORS(flat, flat, NULL, rate, step, NULL, rows), NO_ARGS);
    sweep();
}

/* ---- in a plan ---- */

/* A step that fills a gradient of the host's, and between two steps somebody who writes there: by an op, or through the address. */
static void test_plan(void)
{
    enum { VOCAB = 50, DIM = 3, COUNT = 4 };
    bp_tensor *const held = full(BP_F32, SHAPE(VOCAB, DIM), 0), *block = held, *const dy = tensor(BP_F32, SHAPE(COUNT, DIM));
    bp_plan *plan;
    bp_tensor *ids = ids_of(SHAPE(COUNT), VOCAB), *made = NULL;
    OK(bp_plan_begin(ctx, 1, &ids));
    const bp_arg with[2] = { bp_default(), bp_int(VOCAB) };
    bp_tensor *const in[2] = { dy, ids };
    OK(bp_apply(ctx, &bp__op_embedding_grad, 2, in, 2, with, &made));
    OK(bp_apply(ctx, &bp__op_copy, 1, &made, 0, NULL, &block));
    bp_tensor_release(made);
    OK(bp_plan_end(ctx, 0, NULL, &plan));
    CHECK(plan->n_tables == 1 && bp_plan_describe(plan).ops == 1, "the plan keeps %lld lists and runs %d steps", (long long)plan->n_tables,
          bp_plan_describe(plan).ops);
    float *address = NULL;
    for (int round = 0; round < 8; round++) {
        bp_tensor *next = ids_of(SHAPE(COUNT), VOCAB);
        if (round == 4) {
            bp_tensor *const ones = full(BP_F32, SHAPE(VOCAB, DIM), 1);
            OK(bp_apply(ctx, &bp__op_copy, 1, &ones, 0, NULL, &block));
        }
        if (round == 5) address = (float *)bp_tensor_data(held);
        for (int i = 0; address && i < VOCAB * DIM; i++) address[i] = (float)(round + i); /* as late as it likes */
        OK(bp_plan_run(plan, 1, &next, NULL));
        const int64_t known = *(const int64_t *)plan->places[plan->tables[0].list].storage->data;
        CHECK(known >= 1 && known <= COUNT, "round %d: %lld rows", round, (long long)known);
        bp_tensor *const fresh = apply("embedding_grad", TENSORS(dy, next), ARGS(with[0], with[1]));
        double *const want = values(fresh);
        check_values("a replayed gradient", held, VOCAB * DIM, want, 0);
        free(want);
    }
    bp_plan_release(plan);
    sweep();
}

int main(void)
{
    counting memory = { 0, 0, 0, 0 };
    ctx = open_counting(&memory);
    const int64_t sizes[][4] = { { 1, 1, 1, 1 }, { 2, 3, 2, 4 },   { 3, 0, 5, 4 },    { 0, 3, 5, 4 },
                                 { 2, 2, 0, 3 }, { 5, 7, 33, 11 }, { 4, 90, 130, 60 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int f64 = 0; f64 < 2; f64++)
            for (int64_t padding = -1; padding < 1; padding++)
                try_sums(f64 ? BP_F64 : BP_F32, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], padding);
    for (int f64 = 0; f64 < 2; f64++) {
        try_list(f64 ? BP_F64 : BP_F32, 5, 3, 40);
        try_list(f64 ? BP_F64 : BP_F32, 60, 70, 400);
        try_list(f64 ? BP_F64 : BP_F32, 9, 17, 7);
        try_list(f64 ? BP_F64 : BP_F32, 0, 4, 6);
    }
    misuse();
    test_plan();
    close_counting(ctx, &memory);
    return report();
}
