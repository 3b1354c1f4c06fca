/* test_grad.c - checks the gradient of every op in the table, in f64, over the cases of its row.
 *
 * For outputs y_k and random weights u_k let s = sum_k <u_k, y_k>. The gradient of s that backward gives is compared with a fourth-order
 * central difference of s in every element of every differentiable input. Ops whose gradients are themselves made of differentiable ops are
 * checked a second time: s2 = <w, ds/dx> is differentiated again. A row without cases that does not say NO_GRADIENT fails. */
#include "cases.h"
#include "check.h"

#include <math.h>

enum { OUTS = BP_MAX_OUT };

/* Runs the op afresh on the inputs. A random state among them is restored first, so that every run draws the same. */
static bp_status forward(bp_ctx *ctx, const bp_op *op, case_inputs *in, const bp_arg *args, const int64_t *rng, bp_tensor **out)
{
    for (int i = 0; i < OUTS; i++) out[i] = NULL;
    const bp_input *d = op->inputs;
    for (int i = 0; i < in->n && d->name; i++, d += !(d->flags & BP_IN_VARIADIC))
        if (in->t[i] && (d->flags & BP_IN_STREAM)) BP_TRY(bp_tensor_write(in->t[i], BP_I64, rng, 2));
    int n_args = 0;
    for (const bp_option *o = op->options; o && o->name; o++) n_args++;
    return bp_apply(ctx, op, in->n, in->t, n_args, args, out);
}

static void release_all(bp_tensor **t, int n)
{
    for (int i = 0; i < n; i++) bp_tensor_release(t[i]);
}

static double weight(int k, int64_t i) { return sin(1.0 + 0.7 * (double)k + 1.3 * (double)i) + 0.2; }

/* The weights of output k as a tensor of its shape. */
static bp_tensor *weights_like(bp_ctx *ctx, bp_tensor *t, int k)
{
    int64_t n = bp_count(t);
    bp_tensor *w;
    if (bp_tensor_new(ctx, BP_F64, t->m.ndim, t->m.shape, &w) != BP_OK) return NULL;
    double *p = (double *)(void *)bp_data(w);
    for (int64_t i = 0; i < n; i++) p[i] = weight(k, i);
    return w;
}

/* s = sum over float outputs of <u_k, y_k>, as a tensor with history. */
static bp_status weigh(bp_ctx *ctx, int n, bp_tensor **out, int first, bp_tensor **s)
{
    *s = NULL;
    for (int k = 0; k < n; k++) {
        if (!out[k] || out[k]->m.dtype != BP_F64) continue;
        bp_tensor *w = weights_like(ctx, out[k], first + k), *product = NULL, *total = NULL, *sum = NULL;
        BP_TRY(bp_apply2(ctx, &bp__op_mul, out[k], w, &product));
        BP_TRY(bp_apply1(ctx, &bp__op_sum, product, &total));
        if (*s) {
            BP_TRY(bp_apply2(ctx, &bp__op_add, *s, total, &sum));
            bp_tensor_release(*s);
            bp_tensor_release(total);
        } else
            sum = total;
        *s = sum;
        bp_tensor_release(w);
        bp_tensor_release(product);
    }
    return BP_OK;
}

/* The value to be differentiated: order 1 is s, order 2 is the weighed gradient of s. grads (if wanted) receives its gradient. */
static bp_status value(bp_ctx *ctx, const bp_op *op, case_inputs *in, const bp_arg *args, const int64_t *rng, int order, double *v,
                       bp_tensor **grads)
{
    bp_tensor *out[OUTS], *s = NULL, *wrt[CASE_MAX_INPUTS], *g[CASE_MAX_INPUTS] = { NULL };
    int n = 0;
    for (int i = 0; i < in->n; i++)
        if (in->differentiable[i]) {
            BP_TRY(bp_tensor_set_requires_grad(in->t[i], true));
            wrt[n++] = in->t[i];
        }
    BP_TRY(forward(ctx, op, in, args, rng, out));
    bp_status status = weigh(ctx, op->n_out - op->n_kept, out, 0, &s);
    release_all(out, op->n_out);
    BP_TRY(status);
    if (order == 2) {
        bp_backward_options options = { true, true };
        status = bp_gradients(s, NULL, n, wrt, &options, g);
        bp_tensor_release(s);
        s = NULL;
        BP_TRY(status);
        status = weigh(ctx, n, g, 7, &s);
        release_all(g, n);
        BP_TRY(status);
    }
    *v = 0;
    if (s) BP_TRY(bp_tensor_read(s, BP_F64, v, 1));
    if (grads) {
        for (int i = 0; i < n; i++) grads[i] = NULL;
        if (s && bp_tensor_requires_grad(s)) status = bp_gradients(s, NULL, n, wrt, NULL, grads);
    }
    bp_tensor_release(s);
    return status;
}

static double *element(bp_tensor *t, int64_t i)
{
    int64_t at = 0;
    for (int d = t->m.ndim - 1; d >= 0; d--) {
        at += i % t->m.shape[d] * t->m.stride[d];
        i /= t->m.shape[d];
    }
    return (double *)(void *)bp_data(t) + at;
}

/* Worst |analytic - numeric| / max(1, |numeric|), or -1 after a failure. */
static double worst_error(bp_ctx *ctx, const bp_op *op, const bp_case *c, int order)
{
    case_inputs in;
    bp_arg args[BP_MAX_ARGS];
    bp_tensor *grads[CASE_MAX_INPUTS] = { NULL };
    double worst = 0, v;
    int64_t rng[2] = { 12345, 5 };
    if (!case_args(op, c->options, args) || !case_make(ctx, op, c, BP_F64, 11, &in)) return -1;
    if (value(ctx, op, &in, args, rng, order, &v, grads) != BP_OK) {
        case_free(&in);
        return -1;
    }
    int n = 0;
    for (int i = 0; i < in.n && worst >= 0; i++) {
        if (!in.differentiable[i]) continue;
        bp_tensor *g = grads[n++];
        int64_t count = bp_count(in.t[i]);
        for (int64_t e = 0; e < count && worst >= 0; e++) {
            double *x = element(in.t[i], e), x0 = *x, h = 1e-3 * (fabs(x0) > 1 ? fabs(x0) : 1), f[4];
            static const double at[4] = { -2, -1, 1, 2 };
            for (int k = 0; k < 4; k++) {
                *x = x0 + at[k] * h * (order == 1 && !(op->flags & BP_OP_KINKED) ? 1 : 0.1);
                if (value(ctx, op, &in, args, rng, order, &f[k], NULL) != BP_OK) worst = -1;
            }
            *x = x0;
            if (worst < 0) break;
            double step = h * (order == 1 && !(op->flags & BP_OP_KINKED) ? 1 : 0.1);
            double numeric = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step);
            double analytic = g ? *element(g, e) : 0;
            double error = fabs(analytic - numeric) / (fabs(numeric) > 1 ? fabs(numeric) : 1);
            if (!(error <= worst)) worst = error == error ? error : 1e300;
        }
    }
    release_all(grads, n);
    case_free(&in);
    return worst;
}

static void check_op(bp_ctx *ctx, const bp_op *op)
{
    if (op->flags & BP_OP_NO_GRADIENT) return;
    CHECK(op->gradient && op->cases && op->cases->inputs, "%s: a differentiable op needs a gradient and cases", op->name);
    if (!op->gradient || !op->cases) return;
    bool twice = true;
    for (const bp_case *c = op->cases; c->inputs; c++) {
        double tolerance = c->tolerance > 0 ? c->tolerance : 1e-6;
        double error = worst_error(ctx, op, c, 1);
        CHECK(error >= 0 && error <= tolerance, "%s (%s | %s): gradient off by %g; %s", op->name, c->inputs, c->options ? c->options : "",
              error, error < 0 ? bp_message(ctx) : "");
        if (!twice) continue;
        error = worst_error(ctx, op, c, 2);
        if (error < 0 && strstr(bp_message(ctx), "has no gradient")) {
            printf("note: %s has no second derivative: %s\n", op->name, bp_message(ctx));
            twice = false;
            continue;
        }
        CHECK(error >= 0 && error <= 20 * tolerance, "%s (%s | %s): second derivative off by %g; %s", op->name, c->inputs,
              c->options ? c->options : "", error, error < 0 ? bp_message(ctx) : "");
    }
}

/* The checker must notice a wrong gradient. A copy of each row is given a gradient that is its own times 1.01, or with one sign turned. */
static const bp_op *genuine;
static double spoil;

static void spoilt(bp_grad *g)
{
    genuine->gradient(g);
    for (int i = 0; i < g->n_in; i++)
        if (g->status == BP_OK && g->din[i]) g->din[i] = G2(g, mul, g->din[i], bp_g_number(g, g->din[i], spoil));
}

static void check_checker(bp_ctx *ctx, const bp_op *op)
{
    if ((op->flags & BP_OP_NO_GRADIENT) || !op->gradient || !op->cases) return;
    bp_op mutant = *op;
    mutant.gradient = spoilt;
    genuine = op;
    static const double factors[2] = { -1, 1.01 };
    for (int k = 0; k < 2; k++) {
        double worst = 0;
        spoil = factors[k];
        for (const bp_case *c = op->cases; c->inputs; c++) {
            double error = worst_error(ctx, &mutant, c, 1);
            if (error > worst) worst = error;
        }
        CHECK(worst > 1e-4, "%s: a gradient times %g passes its cases; they prove nothing", op->name, spoil);
    }
}

int main(int argc, char **argv)
{
    counting count = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&count);
    for (int i = 0; bp_op_at(i); i++) {
        if (argc > 1 && strcmp(argv[1], bp_op_at(i)->name) != 0) continue;
        check_op(ctx, bp_op_at(i));
        check_checker(ctx, bp_op_at(i));
    }
    close_counting(ctx, &count);
    return report();
}
