/* test_optimizers.c - one step of every optimizer against its equations, element by element in f64; the counter; clipping by norm. */
#include "layers.h"

static const plain none = { 0 };

static plain one(double value, bp_dtype dtype)
{
    plain p = { .v = same(1, value), .ndim = 0, .dtype = dtype };
    return p;
}

/* The same shape, values that no square could not have. */
static plain positive(plain like)
{
    int64_t n = 1;
    for (int i = 0; i < like.ndim; i++) n *= like.shape[i];
    double *v = numbers(n);
    for (int64_t i = 0; i < n; i++) v[i] = fabs(v[i]) + 1.0 / 64;
    like.v = v;
    return like;
}

static const int64_t lengths[] = { 1, 0, 5, 77, 50000 };
enum { LENGTHS = sizeof lengths / sizeof *lengths };

static void try_sgd(bp_ctx *ctx, int64_t n, int step, double momentum, double dampening, bool nesterov, double decay)
{
    const double lr = 0.05;
    plain w = RANDOM(n), g = RANDOM(n), u = RANDOM(n);
    double *new_w = zeros(n), *new_u = zeros(n);
    for (int64_t i = 0; i < n; i++) {
        double d = g.v[i] + decay * w.v[i];
        if (momentum != 0) {
            new_u[i] = step == 1 ? d : momentum * u.v[i] + (1 - dampening) * d;
            d = nesterov ? d + momentum * new_u[i] : new_u[i];
        }
        new_w[i] = w.v[i] - lr * d;
    }
    trial t = { .op = "sgd_step",
                .n_in = 5,
                .in = { w, g, momentum != 0 ? u : none, one(lr, BP_F64), one(step, BP_I64) },
                .n_args = 4,
                .args = { bp_float(momentum), bp_float(dampening), bp_int(nesterov), bp_float(decay) },
                .after = { new_w, NULL, momentum != 0 ? new_u : NULL } };
    judge(ctx, &t);
    free_numbers();
}

static void test_sgd(bp_ctx *ctx)
{
    for (int k = 0; k < LENGTHS; k++)
        for (int step = 1; step < 3; step++) {
            try_sgd(ctx, lengths[k], step, 0, 0, false, 0);
            try_sgd(ctx, lengths[k], step, 0, 0, false, 0.125);
            try_sgd(ctx, lengths[k], step, 0.9, 0, false, 0.125);
            try_sgd(ctx, lengths[k], step, 0.9, 0.3, false, 0);
            try_sgd(ctx, lengths[k], step, 0.9, 0, true, 0.125);
        }
    trial t = { .op = "sgd_step", .n_in = 5, .in = { RANDOM(3), RANDOM(4), none, one(0.1, BP_F64), one(1, BP_I64) } };
    refuse(ctx, &t, "sgd_step|'g'|[4]|'w'|[3]");
    t.in[1] = RANDOM(3);
    t.in[2] = RANDOM(3);
    refuse(ctx, &t, "velocity|momentum|leave it out");
    t.n_args = 1;
    t.args[0] = bp_float(0.9);
    t.in[2] = none;
    refuse(ctx, &t, "velocity|missing|zeros");
    t.n_args = 3;
    t.args[0] = bp_float(0);
    t.args[1] = bp_float(0);
    t.args[2] = bp_int(1);
    refuse(ctx, &t, "nesterov|momentum");
    t.n_args = 0;
    t.in[3] = one(0.1, BP_F32);
    refuse(ctx, &t, "'lr'|f32|f64");
    t.in[3] = one(0.1, BP_F64);
    t.in[4] = one(1, BP_I32);
    refuse(ctx, &t, "'step'|i32|i64");
    free_numbers();
}

static void try_adam(bp_ctx *ctx, int64_t n, int step, double beta1, double beta2, double decay, bool decoupled, bool amsgrad)
{
    const double lr = 0.05, eps = 1e-3;
    plain w = RANDOM(n), g = RANDOM(n), m = RANDOM(n), v = positive(w), vmax = positive(w);
    double *new_w = zeros(n), *new_m = zeros(n), *new_v = zeros(n), *new_vmax = zeros(n);
    for (int64_t i = 0; i < n; i++) {
        const double d = g.v[i] + (decoupled ? 0 : decay * w.v[i]), kept = w.v[i] * (decoupled ? 1 - lr * decay : 1);
        new_m[i] = beta1 * m.v[i] + (1 - beta1) * d;
        new_v[i] = beta2 * v.v[i] + (1 - beta2) * d * d;
        new_vmax[i] = fmax(vmax.v[i], new_v[i]);
        const double second = amsgrad ? new_vmax[i] : new_v[i];
        new_w[i] = kept - lr / (1 - pow(beta1, step)) * new_m[i] / (sqrt(second) / sqrt(1 - pow(beta2, step)) + eps);
    }
    trial t = { .op = "adam_step",
                .n_in = 7,
                .in = { w, g, m, v, amsgrad ? vmax : none, one(lr, BP_F64), one(step, BP_I64) },
                .n_args = 5,
                .args = { bp_float(beta1), bp_float(beta2), bp_float(eps), bp_float(decay), bp_int(decoupled) },
                .after = { new_w, NULL, new_m, new_v, amsgrad ? new_vmax : NULL } };
    judge(ctx, &t);
    free_numbers();
}

static void test_adam(bp_ctx *ctx)
{
    for (int k = 0; k < LENGTHS; k++)
        for (int step = 1; step < 2000; step = step * 40 + 3) {
            try_adam(ctx, lengths[k], step, 0.9, 0.999, 0, false, false);
            try_adam(ctx, lengths[k], step, 0.9, 0.99, 0.125, false, false);
            try_adam(ctx, lengths[k], step, 0, 0.5, 0.125, true, false);
            try_adam(ctx, lengths[k], step, 0.9, 0.999, 0.125, true, true);
        }
    trial t = { .op = "adam_step",
                .n_in = 7,
                .in = { RANDOM(3), RANDOM(3), RANDOM(3), RANDOM(2), none, one(0.1, BP_F64), one(1, BP_I64) } };
    refuse(ctx, &t, "adam_step|'v'|[2]|[3]");
    t.in[3] = RANDOM(3);
    t.in[6] = one(0, BP_I64);
    refuse(ctx, &t, "'step'|0|increment");
    t.in[6] = one(1, BP_I64);
    t.n_args = 1;
    t.args[0] = bp_float(1);
    refuse(ctx, &t, "beta1|1");
    free_numbers();
}

static void try_rmsprop(bp_ctx *ctx, int64_t n, double momentum, double decay, bool centred, bool inside)
{
    const double lr = 0.05, rho = 0.75, eps = 1e-2;
    plain w = RANDOM(n), g = RANDOM(n), v = positive(w), buffer = RANDOM(n), average = RANDOM(n);
    double *new_w = zeros(n), *new_v = zeros(n), *new_buffer = zeros(n), *new_average = zeros(n);
    for (int64_t i = 0; i < n; i++) {
        const double d = g.v[i] + decay * w.v[i];
        ((double *)v.v)[i] += centred ? 2 : 0; /* a spread that is not negative */
        new_v[i] = rho * v.v[i] + (1 - rho) * d * d;
        new_average[i] = rho * average.v[i] + (1 - rho) * d;
        const double spread = new_v[i] - (centred ? new_average[i] * new_average[i] : 0);
        const double update = inside ? d / sqrt(spread + eps) : d / (sqrt(spread) + eps);
        new_buffer[i] = momentum * buffer.v[i] + update;
        new_w[i] = w.v[i] - lr * (momentum != 0 ? new_buffer[i] : update);
    }
    trial t = { .op = "rmsprop_step",
                .n_in = 6,
                .in = { w, g, v, momentum != 0 ? buffer : none, centred ? average : none, one(lr, BP_F64) },
                .n_args = 5,
                .args = { bp_float(rho), bp_float(eps), bp_float(momentum), bp_float(decay), bp_int(inside) },
                .after = { new_w, NULL, new_v, momentum != 0 ? new_buffer : NULL, centred ? new_average : NULL } };
    judge(ctx, &t);
    free_numbers();
}

static void test_rmsprop(bp_ctx *ctx)
{
    for (int k = 0; k < LENGTHS; k++)
        for (int centred = 0; centred < 2; centred++)
            for (int inside = 0; inside < 2; inside++) {
                try_rmsprop(ctx, lengths[k], 0, 0, centred != 0, inside != 0);
                try_rmsprop(ctx, lengths[k], 0.5, 0.125, centred != 0, inside != 0);
            }
    /* a mean of squares that rounding left below the square of the mean divides by eps, not by the root of a negative number */
    plain w = RANDOM(1), g = { .v = same(1, 1), .ndim = 1, .shape = { 1 } }, v = g, average = g;
    double *new_w = same(1, w.v[0] - 0.5 / 0.25);
    v.v = same(1, 0.5);
    trial t = { .op = "rmsprop_step",
                .n_in = 6,
                .in = { w, g, v, none, average, one(0.5, BP_F64) },
                .n_args = 2,
                .args = { bp_float(0.9), bp_float(0.25) },
                .after = { new_w } };
    judge(ctx, &t);
    t = (trial){ .op = "rmsprop_step", .n_in = 6, .in = { RANDOM(2), RANDOM(2), RANDOM(2), RANDOM(2), none, one(0.1, BP_F64) } };
    refuse(ctx, &t, "rmsprop_step|'buf'|momentum");
    plain whole = { .v = same(2, 1), .ndim = 1, .shape = { 2 }, .dtype = BP_I32 };
    t = (trial){ .op = "rmsprop_step", .n_in = 6, .in = { whole, RANDOM(2), RANDOM(2), none, none, one(0.1, BP_F64) } };
    refuse(ctx, &t, "'w'|i32|f32");
    free_numbers();
}

static void test_increment(bp_ctx *ctx)
{
    trial t = { .op = "increment", .n_in = 1, .in = { one(41, BP_I64) }, .after = { same(1, 42) } };
    judge(ctx, &t);
    t = (trial){ .op = "increment", .n_in = 1, .in = { one(41, BP_F32) } };
    refuse(ctx, &t, "increment|f32|i64");
    free_numbers();
}

static void test_clip_norm(bp_ctx *ctx)
{
    plain a = RANDOM(40000), b = RANDOM(3, 5), c = RANDOM(0, 2);
    double squares = 0;
    for (int i = 0; i < 40000; i++) squares += a.v[i] * a.v[i];
    for (int i = 0; i < 15; i++) squares += b.v[i] * b.v[i];
    const double norm = sqrt(squares);
    for (int clips = 0; clips < 2; clips++) {
        const double greatest = clips ? norm / 3 : norm * 3, factor = clips ? greatest / (norm + 1e-6) : 1;
        double *new_a = copied(40000, a.v), *new_b = copied(15, b.v);
        for (int i = 0; i < 40000; i++) new_a[i] *= factor;
        for (int i = 0; i < 15; i++) new_b[i] *= factor;
        trial t = { .op = "clip_norm",
                    .n_in = 3,
                    .in = { a, b, c },
                    .n_args = 1,
                    .args = { bp_float(greatest) },
                    .out = { same(1, norm) },
                    .after = { new_a, new_b } };
        judge(ctx, &t);
    }
    double *bad = copied(15, b.v);
    bad[3] = NAN;
    b.v = bad;
    trial t = {
        .op = "clip_norm", .n_in = 1, .in = { b }, .n_args = 1, .args = { bp_float(0.1) }, .out = { same(1, NAN) }, .after = { bad }
    };
    judge(ctx, &t);
    t = (trial){ .op = "clip_norm", .n_in = 1, .in = { b } };
    refuse(ctx, &t, "max_norm|missing");
    free_numbers();
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    test_sgd(ctx);
    test_adam(ctx);
    test_rmsprop(ctx);
    test_increment(ctx);
    test_clip_norm(ctx);
    close_counting(ctx, &c);
    return report();
}
