/* test_into.c - replays whose results go into tensors of the caller: the bits of a plain replay whatever memory they share, nothing
 * allocated, and what is refused; arguments that share memory which a plan writes. */
#include "check.h"

#define OK(expression) CHECK((expression) == BP_OK, "%s", bp_message(ctx))
#define REFUSED(expression, text)                                                                                      \
    CHECK((expression) == BP_EINVAL && strstr(bp_message(ctx), text), "\"%s\" is not about \"%s\"", bp_message(ctx), text)

enum { ROOM = 64, N = 6 };

static bp_ctx *ctx;

static bp_tensor *vector(bp_dtype dtype, int64_t n)
{
    bp_tensor *t = NULL;
    OK(bp_tensor_new(ctx, dtype, 1, &n, &t));
    return t;
}

static bp_tensor *view(bp_tensor *t, int64_t first, int64_t last, int64_t by)
{
    const bp_arg range[] = { bp_int(0), bp_int(first), bp_int(last), bp_int(by) };
    bp_tensor *v = NULL;
    OK(bp_apply(ctx, bp_op_find("slice"), 1, &t, 4, range, &v));
    return v;
}

static bp_tensor *apply2(const char *op, bp_tensor *a, bp_tensor *b)
{
    bp_tensor *out = NULL;
    OK(bp_apply2(ctx, bp_op_find(op), a, b, &out));
    return out;
}

static void set(bp_tensor *t, double from)
{
    double v[ROOM];
    for (int64_t i = 0; i < bp_tensor_count(t); i++) v[i] = from + (double)i;
    OK(bp_tensor_write(t, BP_F64, v, bp_tensor_count(t)));
}

static double at(bp_tensor *t, int i)
{
    double v[ROOM] = { 0 };
    OK(bp_tensor_read(t, BP_F64, v, bp_tensor_count(t)));
    return v[i];
}

static bool same(bp_tensor *a, const double *v)
{
    double own[ROOM];
    OK(bp_tensor_read(a, BP_F64, own, bp_tensor_count(a)));
    return memcmp(own, v, sizeof *own * (size_t)bp_tensor_count(a)) == 0;
}

/* sum = x + y;  product = x * w;  and, handed on, y. w is kept by the plan. */
static bp_plan *make_plan(bp_tensor *x, bp_tensor *y, bp_tensor *w)
{
    bp_plan *plan;
    bp_tensor *in[2] = { x, y };
    OK(bp_plan_begin(ctx, 2, in));
    bp_tensor *out[3] = { apply2("add", x, y), apply2("mul", x, w), y };
    OK(bp_plan_end(ctx, 3, out, &plan));
    bp_tensor_release(out[0]);
    bp_tensor_release(out[1]);
    return plan;
}

/* All that a replay reads and writes are windows of one piece of memory, anywhere. */
static void test_anywhere(bp_dtype dtype)
{
    bp_tensor *x = vector(dtype, N), *y = vector(dtype, N), *memory = vector(dtype, ROOM), *w = view(memory, 0, N, 1);
    bp_plan *plan = make_plan(x, y, w);
    bp_tensor *windows[ROOM - N];
    for (int i = 0; i < ROOM - N; i++) windows[i] = view(memory, i, i + N, 1);
    unsigned draw = 1;
    int done = 0, refused = 0;
    for (int round = 0; round < 3000; round++) {
        bp_tensor *pick[5];
        for (int i = 0; i < 5; i++) {
            draw = draw * 1103515245u + 12345u;
            pick[i] = windows[(draw >> 16) % (ROOM - N)];
        }
        set(memory, round % 7);
        bp_tensor *plain[3] = { NULL };
        OK(bp_plan_run(plan, 2, pick, plain));
        double want[3][ROOM];
        for (int i = 0; i < 3; i++) {
            OK(bp_tensor_read(plain[i], BP_F64, want[i], N));
            bp_tensor_release(plain[i]);
        }
        bp_status status = bp_plan_run_into(plan, 2, pick, 3, pick + 2);
        done += status == BP_OK;
        refused += status == BP_EINVAL;
        for (int i = 0; i < 3 && status == BP_OK; i++) CHECK(same(pick[2 + i], want[i]), "round %d, result %d", round, i);
    }
    CHECK(done > 500 && refused > 500 && done + refused == 3000, "%d done, %d refused", done, refused);
    for (int i = 0; i < ROOM - N; i++) bp_tensor_release(windows[i]);
    bp_plan_release(plan);
    bp_tensor_release(x);
    bp_tensor_release(y);
    bp_tensor_release(w);
    bp_tensor_release(memory);
}

static void test_nothing_allocated(counting *c)
{
    bp_tensor *x = vector(BP_F32, N), *y = vector(BP_F32, N), *w = vector(BP_F32, N);
    set(x, 1), set(y, 2), set(w, 3);
    bp_plan *plan = make_plan(x, y, w);
    bp_tensor *in[2] = { x, y }, *apart[3] = { vector(BP_F32, N), vector(BP_F32, N), vector(BP_F32, N) }, *over[3] = { x, w, apart[2] };
    for (int round = 0; round < 6; round++) {
        if (round == 2) c->fail_at = c->calls + 1, c->lasting = 1;
        OK(bp_plan_run_into(plan, 2, in, 3, apart));
        OK(bp_plan_run_into(plan, 2, in, 3, over));
    }
    c->fail_at = 0, c->lasting = 0;
    /* what a plain replay handed out stays; memory that it must have fresh may be refused, and the plan is as good as before */
    bp_tensor *held[3] = { NULL };
    OK(bp_plan_run(plan, 2, in, held));
    const double before = at(held[0], 1);
    OK(bp_plan_run_into(plan, 2, in, 3, apart));
    c->fail_at = c->calls + 1, c->lasting = 1;
    CHECK(bp_plan_run_into(plan, 2, in, 3, over) == BP_ENOMEM, "fresh memory was not needed");
    c->fail_at = 0, c->lasting = 0;
    CHECK(at(held[0], 1) == before, "a result that is held changed");
    OK(bp_plan_run_into(plan, 2, in, 3, over));
    CHECK(at(held[0], 1) == before, "a result that is held changed");
    for (int i = 0; i < 3; i++) {
        bp_tensor_release(held[i]);
        bp_tensor_release(apart[i]);
    }
    bp_plan_release(plan);
    bp_tensor_release(x);
    bp_tensor_release(y);
    bp_tensor_release(w);
}

/* Results of an earlier replay are tensors like any other: each may be where another result is to go. */
static void test_own_results(void)
{
    bp_tensor *x = vector(BP_F32, N), *y = vector(BP_F32, N), *w = vector(BP_F32, N), *fresh[2] = { vector(BP_F32, N), vector(BP_F32, N) };
    set(x, 1), set(y, 2), set(w, 5);
    bp_plan *plan = make_plan(x, y, w);
    bp_tensor *in[2] = { x, y }, *held[3] = { NULL };
    OK(bp_plan_run(plan, 2, in, held));
    bp_tensor *const out[][3] = {
        { held[1], held[0], fresh[0] }, { held[0], held[1], fresh[0] }, { fresh[0], held[0], fresh[1] }, { held[1], fresh[0], fresh[1] }
    };
    for (size_t i = 0; i < sizeof out / sizeof *out; i++) {
        set(held[0], -1), set(held[1], -1);
        OK(bp_plan_run_into(plan, 2, in, 3, out[i]));
        CHECK(at(out[i][0], 1) == 2 + 3, "case %d: the sum is %g", (int)i, at(out[i][0], 1));
        CHECK(at(out[i][1], 1) == 2 * 6, "case %d: the product is %g", (int)i, at(out[i][1], 1));
    }
    bp_tensor *all[] = { x, y, w, fresh[0], fresh[1], held[0], held[1], held[2] };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) bp_tensor_release(all[i]);
    bp_plan_release(plan);
}

static void test_refusals(void)
{
    bp_tensor *x = vector(BP_F32, N), *y = vector(BP_F32, N), *w = vector(BP_F32, N), *room = vector(BP_F32, ROOM);
    set(x, 1), set(y, 2), set(w, 3), set(room, 4);
    bp_plan *plan = make_plan(x, y, w);
    bp_tensor *in[2] = { x, y }, *a = vector(BP_F32, N), *b = vector(BP_F32, N), *f64 = vector(BP_F64, N), *longer = vector(BP_F32, N + 1);
    bp_tensor *gaps = view(room, 0, 2 * N, 2), *leaf = vector(BP_F32, N), *early = view(room, 20, 20 + N, 1),
              *late = view(room, 23, 23 + N, 1);
    OK(bp_tensor_set_requires_grad(leaf, true));
    REFUSED(bp_plan_run_into(plan, 2, in, 2, (bp_tensor *[]){ a, b }), "2 outputs; 3");
    const struct {
        bp_tensor *out[3];
        const char *text;
    } cases[] = {
        { { NULL, a, b }, "output 1 has no memory" },    { { a, f64, b }, "output 2 is f64" },
        { { a, b, longer }, "output 3 is f32 [7]" },     { { gaps, a, b }, "view with gaps" },
        { { a, leaf, b }, "requires a gradient" },       { { a, a, b }, "outputs 1 and 2 share memory" },
        { { early, a, late }, "outputs 1 and 3 share" }, { { y, a, b }, "output 1 lies in the memory of result 3" },
        { { a, y, b }, "output 2 lies in the memory" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) REFUSED(bp_plan_run_into(plan, 2, in, 3, cases[i].out), cases[i].text);
    OK(bp_plan_run_into(plan, 2, in, 3, (bp_tensor *[]){ a, b, y }));
    bp_tensor *inner = NULL;
    OK(bp_plan_begin(ctx, 1, &x));
    CHECK(bp_plan_run_into(plan, 2, in, 3, (bp_tensor *[]){ a, b, f64 }) == BP_ESTATE, "a replay inside a capture");
    CHECK(bp_plan_run(plan, 2, in, &inner) == BP_ESTATE && !inner, "a replay inside a capture");
    bp_plan_abandon(ctx);
    bp_tensor *all[] = { x, y, w, room, a, b, f64, longer, gaps, leaf, early, late };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) bp_tensor_release(all[i]);
    bp_plan_release(plan);
}

/* w += x;  x *= 2;  y + w */
static void test_shared_arguments(void)
{
    bp_tensor *memory = vector(BP_F32, ROOM), *x = view(memory, 0, N, 1), *y = vector(BP_F32, N), *w = vector(BP_F32, N), *out = NULL, *to;
    set(memory, 1), set(y, 2), set(w, 3);
    bp_plan *plan;
    bp_tensor *in[2] = { x, y };
    OK(bp_plan_begin(ctx, 2, in));
    to = w;
    OK(bp_apply(ctx, bp_op_find("add"), 2, (bp_tensor *[]){ w, x }, 0, NULL, &to));
    to = x;
    OK(bp_apply(ctx, bp_op_find("add"), 2, (bp_tensor *[]){ x, x }, 0, NULL, &to));
    out = apply2("add", y, w);
    OK(bp_plan_end(ctx, 1, &out, &plan));
    bp_tensor *beside = view(memory, N, 2 * N, 1), *across = view(memory, N - 1, 2 * N - 1, 1), *between = view(memory, 1, 1 + 2 * N, 2);
    const struct {
        bp_tensor *in[2];
        bool shares;
    } cases[] = { { { x, y }, false }, { { x, beside }, false }, { { x, across }, true }, { { x, x }, true },
                  { { w, y }, true },  { { x, w }, true },       { { beside, x }, false } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bp_tensor *got = NULL;
        CHECK(bp_plan_shares(plan, 2, cases[i].in) == cases[i].shares, "case %d", (int)i);
        const bp_status status = bp_plan_run(plan, 2, cases[i].in, &got);
        CHECK((status == BP_OK) == !cases[i].shares, "case %d: %s", (int)i, bp_message(ctx));
        bp_tensor_release(got);
    }
    /* views with gaps are arguments like any other; a plan takes the strides that it was made for */
    bp_plan *strided;
    bp_tensor *sum = NULL, *again = NULL;
    set(memory, 1);
    OK(bp_plan_begin(ctx, 1, &between));
    sum = apply2("mul", between, between);
    OK(bp_plan_end(ctx, 1, &sum, &strided));
    set(memory, 10);
    OK(bp_plan_run(strided, 1, &between, &again));
    CHECK(at(again, 2) == 15.0 * 15.0, "%g", at(again, 2));
    bp_tensor *none = NULL;
    REFUSED(bp_plan_run(strided, 1, &y, &none), "with other strides");
    bp_tensor *all[] = { memory, x, y, w, out, beside, across, between, sum, again };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) bp_tensor_release(all[i]);
    bp_plan_release(plan);
    bp_plan_release(strided);
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    ctx = open_counting(&c);
    bp_set_grad_enabled(ctx, false);
    test_anywhere(BP_F32);
    test_anywhere(BP_F64);
    test_anywhere(BP_I32);
    test_nothing_allocated(&c);
    test_own_results();
    test_refusals();
    test_shared_arguments();
    close_counting(ctx, &c);
    return report();
}
