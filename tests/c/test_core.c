/* test_core.c - context, memory, tensors, tape and plan. */
#include "../../core/autodiff/tape.h"
#include "../../core/base/memory.h"
#include "../../core/base/pool.h"
#include "../../core/plan/plan.h"
#include "check.h"

#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

static bp_tensor *tensor(bp_ctx *ctx, int ndim, const int64_t *shape, const double *v)
{
    bp_tensor *t = NULL;
    if (bp_tensor_new(ctx, BP_F32, ndim, shape, &t) != BP_OK) return NULL;
    if (v) bp_tensor_write(t, BP_F64, v, bp_tensor_count(t));
    return t;
}

static double at(bp_tensor *t, int64_t i)
{
    double v[64] = { 0 };
    if (bp_tensor_read(t, BP_F64, v, bp_tensor_count(t)) != BP_OK) return -12345;
    return v[i];
}

#define OK(call) CHECK((call) == BP_OK, "%s", bp_message(ctx))

/* ---- memory and threads ---- */

static void test_blocks(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    size_t base = bp_memory_used(ctx), block;
    for (size_t n = 1; n < 3000000; n = n * 3 / 2 + 1) {
        char *p = (char *)bp_block_new(ctx, n, &block);
        CHECK(p && block >= n && block <= 64 + n + n / 4 && ((uintptr_t)p & 63) == 0, "block of %zu: %zu bytes at %p", n, block, (void *)p);
        memset(p, 1, n);
        bp_block_free(ctx, p, block);
    }
    bp_block_flush(ctx);
    CHECK(bp_memory_used(ctx) == base, "%zu bytes more than before", bp_memory_used(ctx) - base);
    uint64_t calls = bp_memory_calls(ctx);
    for (int i = 0; i < 100; i++) {
        void *p = bp_block_new(ctx, 100000, &block);
        bp_block_free(ctx, p, block);
    }
    CHECK(bp_memory_calls(ctx) <= calls + 1, "a freed block is not used again");
    close_counting(ctx, &c);

    bp_config config = BP_CONFIG_INIT;
    config.memory_limit = 1 << 20;
    OK(bp_open(&config, &ctx));
    int64_t big = 1 << 20, small = 1000;
    bp_tensor *t = NULL;
    CHECK(bp_tensor_new(ctx, BP_F32, 1, &big, &t) == BP_ENOMEM, "a tensor over the limit");
    CHECK(strstr(bp_message(ctx), "limit"), "%s", bp_message(ctx));
    OK(bp_tensor_new(ctx, BP_F32, 1, &small, &t));
    bp_tensor_release(t);
    bp_close(ctx);
}

static void count_up(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    atomic_fetch_add(&((atomic_int *)arg)[chunk], 1);
}

static void test_pool(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    static atomic_int seen[1000];
    for (int threads = 1; threads <= 5; threads++) {
        OK(bp_set_threads(ctx, threads));
        for (int round = 0; round < 200; round++) {
            for (int i = 0; i < 1000; i++) atomic_store(&seen[i], 0);
            bp_parallel(ctx, round * 5, count_up, seen);
            int wrong = 0;
            for (int i = 0; i < 1000; i++) wrong += atomic_load(&seen[i]) != (i < round * 5);
            CHECK(wrong == 0, "%d threads, %d chunks: %d chunks not run once", threads, round * 5, wrong);
        }
    }
    CHECK(bp_set_threads(ctx, 0) == BP_EINVAL && bp_set_threads(ctx, 1000) == BP_EINVAL, "impossible thread counts");
    pid_t child = fork();
    if (child == 0) { /* the workers are gone here; the pool must start its own */
        alarm(10);
        for (int i = 0; i < 1000; i++) atomic_store(&seen[i], 0);
        bp_parallel(ctx, 1000, count_up, seen);
        int wrong = 0;
        for (int i = 0; i < 1000; i++) wrong += atomic_load(&seen[i]) != 1;
        _exit(wrong != 0);
    }
    int status = -1;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "work in a forked child");
    usleep(50000); /* the workers are parked by now */
    child = fork();
    if (child == 0) { /* nobody is left that the pool could wait for */
        alarm(10);
        bp_close(ctx);
        _exit(0);
    }
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a context closed in a forked child");
    close_counting(ctx, &c);
}

/* ---- tensors ---- */

static void test_tensors(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    int64_t shape[2] = { 2, 3 }, bad[2] = { 2, -1 }, huge[8];
    for (int i = 0; i < 8; i++) huge[i] = 1 << 20;
    bp_tensor *t = NULL;
    CHECK(bp_tensor_new(ctx, BP_F32, 2, bad, &t) == BP_EINVAL && !t, "a negative size");
    CHECK(bp_tensor_new(ctx, BP_F32, 8, huge, &t) == BP_EINVAL && !t, "an overflowing shape");
    CHECK(bp_tensor_new(ctx, BP_F32, 9, huge, &t) == BP_EINVAL && !t, "nine dimensions");
    static const bp_dtype dtypes[] = { BP_F32, BP_F64, BP_I32, BP_I64, BP_U8, BP_BOOL };
    static const double in[6] = { 0, 1, 2.75, -3.5, 300, 1e30 };
    static const double want[6][6] = { { 0, 1, 2.75, -3.5, 300, 1e30 }, { 0, 1, 2.75, -3.5, 300, 1e30 },
                                       { 0, 1, 2, -3, 300, INT32_MAX }, { 0, 1, 2, -3, 300, 9223372036854775807.0 },
                                       { 0, 1, 2, 0, 255, 255 },        { 0, 1, 1, 1, 1, 1 } };
    for (int d = 0; d < 6; d++) {
        OK(bp_tensor_new(ctx, dtypes[d], 2, shape, &t));
        OK(bp_tensor_write(t, BP_F64, in, 6));
        for (int i = 0; i < 6; i++)
            CHECK(at(t, i) == want[d][i] || (d == 0 && i == 5), "%g as %s is %g", in[i], bp_dtype_name(dtypes[d]), at(t, i));
        bp_tensor_release(t);
    }
    OK(bp_tensor_new(ctx, BP_F32, 2, shape, &t));
    CHECK(bp_tensor_write(t, BP_F64, in, 5) == BP_EINVAL, "a buffer of the wrong length");
    bp_tensor_release(t);
    close_counting(ctx, &c);
}

/* ---- tape ---- */

static void test_tape(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    int64_t two = 2;
    double v[2] = { 3, -2 };
    bp_tensor *x = tensor(ctx, 1, &two, v), *y = NULL, *s = NULL;
    OK(bp_tensor_set_requires_grad(x, true));
    /* s = sum(x*x), ds = 2x; gathered twice: 4x */
    OK(bp_apply2(ctx, bp_op_find("mul"), x, x, &y));
    OK(bp_apply1(ctx, bp_op_find("sum"), y, &s));
    CHECK(bp_backward(y, NULL, NULL) == BP_EINVAL, "backward from two numbers");
    bp_backward_options keep = { true, false };
    OK(bp_backward(s, NULL, &keep));
    OK(bp_backward(s, NULL, NULL));
    CHECK(at(bp_tensor_grad(x), 0) == 12 && at(bp_tensor_grad(x), 1) == -8, "gathered gradient %g %g", at(bp_tensor_grad(x), 0),
          at(bp_tensor_grad(x), 1));
    CHECK(bp_backward(s, NULL, NULL) == BP_ESTATE && strstr(bp_message(ctx), "used up"), "%s", bp_message(ctx));
    bp_tensor_release(s);
    bp_tensor_release(y);
    s = y = NULL;
    /* zero_grad makes the next gradient the only one */
    OK(bp_tensor_zero_grad(x));
    CHECK(at(bp_tensor_grad(x), 0) == 0, "a zeroed gradient reads as zero");
    OK(bp_apply1(ctx, bp_op_find("sum"), x, &s));
    OK(bp_backward(s, NULL, NULL));
    CHECK(at(bp_tensor_grad(x), 0) == 1, "gradient after zero_grad");
    bp_tensor_release(s);
    s = NULL;
    /* a kept value changed in place is noticed */
    OK(bp_apply2(ctx, bp_op_find("mul"), x, x, &y));
    OK(bp_apply1(ctx, bp_op_find("sum"), y, &s));
    OK(bp_tensor_write(x, BP_F64, v, 2));
    CHECK(bp_backward(s, NULL, NULL) == BP_ESTATE && strstr(bp_message(ctx), "changed in place"), "%s", bp_message(ctx));
    bp_tensor_release(s);
    s = NULL;
    /* a leaf cannot be changed in place while the tape looks */
    bp_tensor *in[2] = { x, x }, *out = x;
    CHECK(bp_apply(ctx, bp_op_find("add"), 2, in, 0, NULL, &out) == BP_ESTATE, "in place on a leaf");
    bp_tensor_release(y);
    /* a chain of many steps is freed without deep recursion */
    bp_tensor *chain = NULL;
    OK(bp_apply1(ctx, bp_op_find("neg"), x, &chain));
    for (int i = 0; i < 200000; i++) {
        bp_tensor *next = NULL;
        if (bp_apply1(ctx, bp_op_find("neg"), chain, &next) != BP_OK) break;
        bp_tensor_release(chain);
        chain = next;
    }
    OK(bp_apply1(ctx, bp_op_find("sum"), chain, &s));
    OK(bp_tensor_zero_grad(x));
    OK(bp_backward(s, NULL, NULL));
    CHECK(at(bp_tensor_grad(x), 0) == -1, "gradient through 200,001 negations: %g", at(bp_tensor_grad(x), 0));
    bp_tensor_release(s);
    bp_tensor_release(chain);
    bp_tensor_release(x);
    close_counting(ctx, &c);
}

/* ---- plan: w -= lr * d/dw mean((x*w - y)^2), eager against replayed ---- */

typedef struct net {
    bp_ctx *ctx;
    bp_tensor *w, *x, *y, *loss;
} net;

static bp_status train_step(net *n)
{
    bp_tensor *p = NULL, *d = NULL, *q = NULL, *lr = NULL, *g = NULL, *w = n->w;
    BP_TRY(bp_tensor_zero_grad(n->w));
    BP_TRY(bp_apply2(n->ctx, bp_op_find("mul"), n->x, n->w, &p));
    BP_TRY(bp_apply2(n->ctx, bp_op_find("sub"), p, n->y, &d));
    BP_TRY(bp_apply1(n->ctx, bp_op_find("square"), d, &q));
    n->loss = NULL;
    BP_TRY(bp_apply1(n->ctx, bp_op_find("mean"), q, &n->loss));
    BP_TRY(bp_backward(n->loss, NULL, NULL));
    bool grad = bp_set_grad_enabled(n->ctx, false), paused = bp_pause_capture(n->ctx, true);
    BP_TRY(bp_tensor_scalar(n->ctx, BP_F32, 0.1, &lr));
    bp_pause_capture(n->ctx, paused);
    BP_TRY(bp_apply2(n->ctx, bp_op_find("mul"), bp_tensor_grad(n->w), lr, &g));
    bp_tensor *in[2] = { n->w, g };
    BP_TRY(bp_apply(n->ctx, bp_op_find("sub"), 2, in, 0, NULL, &w));
    bp_set_grad_enabled(n->ctx, grad);
    bp_tensor_release(p);
    bp_tensor_release(d);
    bp_tensor_release(q);
    bp_tensor_release(lr);
    bp_tensor_release(g);
    return BP_OK;
}

static void run_plan(bool captured, float *w_out, float *losses)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    int64_t shape[2] = { 4, 3 };
    static const double w0[12] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 };
    net n = { ctx, tensor(ctx, 2, shape, w0), NULL, NULL, NULL };
    OK(bp_tensor_set_requires_grad(n.w, true));
    bp_plan *plan = NULL;
    uint64_t calls = 0;
    for (int step = 0; step < 20; step++) {
        double v[12], u[12];
        for (int i = 0; i < 12; i++) v[i] = 0.1 * ((i * 7 + step * 3) % 11) - 0.4, u[i] = 0.2 * ((i + step) % 5);
        n.x = tensor(ctx, 2, shape, v);
        n.y = tensor(ctx, 2, shape, u);
        bp_tensor *args[2] = { n.x, n.y };
        if (captured && plan) {
            uint64_t before = bp_memory_calls(ctx);
            OK(bp_plan_run(plan, 2, args, &n.loss));
            calls = bp_memory_calls(ctx) - before;
        } else if (captured) {
            OK(bp_plan_begin(ctx, 2, args));
            OK(train_step(&n));
            float f;
            CHECK(bp_tensor_read(n.loss, BP_F32, &f, 1) == BP_ESTATE, "reading a traced value");
            CHECK(bp_tensor_read(n.x, BP_F32, &f, 12) == BP_ESTATE, "reading an argument");
            CHECK(bp_plan_begin(ctx, 0, NULL) == BP_ESTATE, "a capture inside a capture");
            OK(bp_plan_end(ctx, 1, &n.loss, &plan));
        } else
            OK(train_step(&n));
        OK(bp_tensor_read(n.loss, BP_F32, &losses[step], 1));
        bp_tensor_release(n.loss);
        bp_tensor_release(n.x);
        bp_tensor_release(n.y);
    }
    OK(bp_tensor_read(n.w, BP_F32, w_out, 12));
    if (captured) {
        bp_plan_info info = bp_plan_describe(plan);
        CHECK(info.ops > 0 && info.ops <= info.recorded && info.arena_bytes <= info.temporary_bytes, "%d of %d ops, %zu of %zu bytes",
              info.ops, info.recorded, info.arena_bytes, info.temporary_bytes);
        CHECK(calls == 0, "a replay whose last result was released asked for memory %llu times", (unsigned long long)calls);
        bp_plan_release(plan);
    }
    bp_tensor_release(n.w);
    close_counting(ctx, &c);
}

static void test_plan(void)
{
    float w[2][12], losses[2][20];
    run_plan(false, w[0], losses[0]);
    run_plan(true, w[1], losses[1]);
    CHECK(memcmp(w[0], w[1], sizeof w[0]) == 0, "weights: eager %g, captured %g", (double)w[0][0], (double)w[1][0]);
    CHECK(memcmp(losses[0], losses[1], sizeof losses[0]) == 0, "losses: eager %g, captured %g", (double)losses[0][19],
          (double)losses[1][19]);
    CHECK(losses[0][19] < losses[0][0], "the loss falls");
}

/* What a replay handed out stays as it is while somebody holds it. */
static void test_outputs(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    int64_t two = 2;
    double v[2] = { 1, 2 };
    bp_tensor *x = tensor(ctx, 1, &two, v), *y = NULL, *held[5] = { NULL };
    bp_plan *plan;
    OK(bp_plan_begin(ctx, 1, &x));
    OK(bp_apply1(ctx, bp_op_find("square"), x, &y));
    OK(bp_plan_end(ctx, 1, &y, &plan));
    for (int i = 0; i < 5; i++) {
        v[0] = i;
        OK(bp_tensor_write(x, BP_F64, v, 2));
        OK(bp_plan_run(plan, 1, &x, &held[i]));
    }
    for (int i = 0; i < 5; i++) {
        CHECK(at(held[i], 0) == i * i, "result %d became %g", i, at(held[i], 0));
        bp_tensor_release(held[i]);
    }
    /* what nobody holds is handed out again; a view of it counts as holding, and what it was made into does not come back */
    bp_tensor *one = NULL, *again = NULL, *view = NULL, *next = NULL;
    OK(bp_plan_run(plan, 1, &x, &one));
    bp_tensor *first = one;
    bp_tensor_release(one);
    OK(bp_plan_run(plan, 1, &x, &again));
    CHECK(again == first, "a released result is not used again");
    OK(bp_apply1(ctx, bp_op_find("squeeze"), again, &view));
    bp_tensor_release(again);
    v[0] = 7;
    OK(bp_tensor_write(x, BP_F64, v, 2));
    OK(bp_plan_run(plan, 1, &x, &next));
    CHECK(at(view, 0) == 16 && at(next, 0) == 49, "a view of a result became %g, the next result is %g", at(view, 0), at(next, 0));
    bp_tensor_release(view);
    OK(bp_tensor_set_requires_grad(next, true));
    bp_tensor_release(next);
    OK(bp_plan_run(plan, 1, &x, &next));
    CHECK(!bp_tensor_requires_grad(next) && at(next, 0) == 49, "a result that was made to require a gradient came back");
    bp_tensor_release(next);

    int64_t three = 3;
    bp_tensor *wrong = tensor(ctx, 1, &three, NULL), *none = NULL;
    CHECK(bp_plan_run(plan, 1, &wrong, &none) == BP_EINVAL && !none, "a replay with another shape");
    bp_tensor_release(wrong);
    bp_tensor_release(x);
    bp_tensor_release(y);
    bp_plan_release(plan);
    close_counting(ctx, &c);
}

static void test_flatten(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    int64_t two = 2, three = 3;
    double v[3] = { 1, 2, 3 };
    bp_tensor *p[2] = { tensor(ctx, 1, &two, v), tensor(ctx, 1, &three, v) }, *data, *grad, *s = NULL;
    OK(bp_tensor_set_requires_grad(p[1], true));
    OK(bp_apply1(ctx, bp_op_find("sum"), p[1], &s));
    OK(bp_backward(s, NULL, NULL));
    OK(bp_flatten(ctx, 2, p, &data, &grad));
    CHECK(bp_tensor_count(data) == 32 && at(data, 16) == 1 && at(data, 18) == 3 && at(data, 2) == 0, "values in the block");
    CHECK(at(grad, 16) == 1 && at(grad, 0) == 0, "gradients in the block");
    CHECK(at(p[1], 2) == 3 && at(bp_tensor_grad(p[1]), 2) == 1, "the tensors see the blocks");

    int reached;
    OK(bp_gather_grads(2, p, grad, &reached));
    CHECK(reached == 1, "%d gradients, all gathered before the block was made", reached);
    bp_tensor *mine = tensor(ctx, 1, &two, v);
    OK(bp_tensor_set_grad(p[0], mine));
    OK(bp_tensor_zero_grad(p[1]));
    CHECK(at(grad, 0) == 0, "a gradient that was set is elsewhere");
    OK(bp_gather_grads(2, p, grad, &reached));
    CHECK(reached == 1 && at(grad, 0) == 1 && at(grad, 1) == 2 && at(grad, 16) == 0, "it moves into the block");
    CHECK(bp_tensor_grad(p[0]) != mine && at(bp_tensor_grad(p[0]), 1) == 2, "and stays there");
    OK(bp_tensor_set_requires_grad(p[0], false));
    OK(bp_gather_grads(2, p, grad, &reached));
    CHECK(reached == 0 && at(grad, 0) == 0, "a frozen tensor's gradient is zero");
    CHECK(bp_gather_grads(1, &data, mine, &reached) == BP_EINVAL, "a tensor that does not lie in the block");
    bp_tensor_release(mine);

    bp_tensor *twice[2] = { p[0], p[0] }, *d2, *g2;
    CHECK(bp_flatten(ctx, 2, twice, &d2, &g2) == BP_EINVAL, "a tensor given twice");
    bp_tensor_release(s);
    bp_tensor_release(p[0]);
    bp_tensor_release(p[1]);
    bp_tensor_release(data);
    bp_tensor_release(grad);
    close_counting(ctx, &c);
}

/* Every allocation of a small training run refused once: an error each time, nothing left behind. */
static void test_refused_memory(void)
{
    for (long long n = 1;; n++) {
        counting c = { 0, 0, 0, 0 };
        bp_config config = BP_CONFIG_INIT;
        bp_ctx *ctx = NULL;
        config.alloc = counting_alloc;
        config.alloc_ud = &c;
        c.fail_at = n;
        bp_status status = bp_open(&config, &ctx);
        if (status == BP_OK) {
            int64_t shape[2] = { 4, 3 };
            net m = { ctx, tensor(ctx, 2, shape, NULL), tensor(ctx, 2, shape, NULL), tensor(ctx, 2, shape, NULL), NULL };
            if (m.w && m.x && m.y) {
                bp_set_threads(ctx, 1);
                memset(bp_data(m.w), 0, 48);
                memset(bp_data(m.x), 0, 48);
                memset(bp_data(m.y), 0, 48);
                bp_tensor *total = NULL, *sum = NULL, *args[2] = { m.x, m.y };
                bp_plan *plan = NULL;
                status = bp_tensor_set_requires_grad(m.w, true);
                if (status == BP_OK) status = bp_plan_begin(ctx, 2, args);
                if (status == BP_OK) status = bp_apply2(ctx, bp_op_find("mul"), m.x, m.w, &total);
                if (status == BP_OK) status = bp_apply1(ctx, bp_op_find("sum"), total, &sum);
                if (status == BP_OK) status = bp_backward(sum, NULL, NULL);
                if (status == BP_OK)
                    status = bp_plan_end(ctx, 1, &sum, &plan);
                else
                    bp_plan_abandon(ctx);
                bp_tensor_release(sum);
                bp_tensor_release(total);
                sum = NULL;
                if (status == BP_OK) status = bp_plan_run(plan, 2, args, &sum);
                bp_tensor_release(sum);
                bp_plan_release(plan);
            } else
                status = BP_ENOMEM;
            bp_tensor_release(m.w);
            bp_tensor_release(m.x);
            bp_tensor_release(m.y);
            bp_close(ctx);
        }
        CHECK(c.live == 0, "refusal %lld left %zu bytes", n, c.live);
        CHECK(status == BP_OK || status == BP_ENOMEM, "refusal %lld gave %s", n, bp_status_name(status));
        if (c.calls < n) break;
    }
}

int main(void)
{
    test_blocks();
    test_pool();
    test_tensors();
    test_tape();
    test_plan();
    test_outputs();
    test_flatten();
    test_refused_memory();
    return report();
}
