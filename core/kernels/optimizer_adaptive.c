/* optimizer_adaptive.c - one pass of the less common optimizers over n parameters; as in optimizer.c, whose equations stand in the ops,
 * those of these in ops/optimizer_adaptive.c. */
#include "kernel.h"

#define INLINE static inline __attribute__((always_inline))

INLINE real root(real x) { return sizeof(real) == sizeof(float) ? (real)__builtin_sqrtf((float)x) : (real)__builtin_sqrt((double)x); }
INLINE real magnitude(real x) { return x < 0 ? -x : x; }
INLINE real sign(real x) { return x > 0 ? (real)1 : x < 0 ? (real)-1 : x; } /* of NaN: NaN */

#define ARRAY(type, name) type real *restrict const name = (type real *)name##_

void K(adagrad)(int64_t n, void *w_, const void *g_, void *sum_, double lr_, double eps_, double decay_, bool eps_inside)
{
    ARRAY(, w);
    ARRAY(const, g);
    ARRAY(, sum);
    const real lr = (real)lr_, eps = (real)eps_, decay = (real)decay_;
    if (eps_inside)
        for (int64_t i = 0; i < n; i++) {
            const real d = g[i] + decay * w[i];
            sum[i] += d * d;
            w[i] -= lr * d / root(sum[i] + eps);
        }
    else
        for (int64_t i = 0; i < n; i++) {
            const real d = g[i] + decay * w[i];
            sum[i] += d * d;
            w[i] -= lr * d / (root(sum[i]) + eps);
        }
}

void K(adadelta)(int64_t n, void *w_, const void *g_, void *v_, void *delta_, double lr_, double rho_, double eps_, double decay_)
{
    ARRAY(, w);
    ARRAY(const, g);
    ARRAY(, v);
    ARRAY(, delta);
    const real lr = (real)lr_, rho = (real)rho_, rest = (real)(1 - rho_), eps = (real)eps_, decay = (real)decay_;
    for (int64_t i = 0; i < n; i++) {
        const real d = g[i] + decay * w[i];
        v[i] = rho * v[i] + rest * d * d;
        const real u = root(delta[i] + eps) / root(v[i] + eps) * d;
        delta[i] = rho * delta[i] + rest * u * u;
        w[i] -= lr * u;
    }
}

void K(nadam)(int64_t n, void *w_, const void *g_, void *m_, void *v_, double step_g_, double step_m_, double beta1_, double beta2_,
              double correction_, double eps_, double l2_, double keep_)
{
    ARRAY(, w);
    ARRAY(const, g);
    ARRAY(, m);
    ARRAY(, v);
    const real step_g = (real)step_g_, step_m = (real)step_m_, rate1 = (real)(1 - beta1_), beta2 = (real)beta2_, rate2 = (real)(1 - beta2_);
    const real correction = (real)correction_, eps = (real)eps_, l2 = (real)l2_, keep = (real)keep_;
    for (int64_t i = 0; i < n; i++) {
        const real d = g[i] + l2 * w[i];
        m[i] += rate1 * (d - m[i]);
        v[i] = beta2 * v[i] + rate2 * d * d;
        w[i] = keep * w[i] - (step_g * d + step_m * m[i]) / (root(v[i]) * correction + eps);
    }
}

void K(adamax)(int64_t n, void *w_, const void *g_, void *m_, void *u_, double step_, double beta1_, double beta2_, double eps_,
               double decay_)
{
    ARRAY(, w);
    ARRAY(const, g);
    ARRAY(, m);
    ARRAY(, u);
    const real step = (real)step_, rate1 = (real)(1 - beta1_), beta2 = (real)beta2_, eps = (real)eps_, decay = (real)decay_;
    for (int64_t i = 0; i < n; i++) {
        const real d = g[i] + decay * w[i], old = beta2 * u[i], now = magnitude(d) + eps;
        m[i] += rate1 * (d - m[i]);
        u[i] = old > now ? old : now;
        w[i] -= step * m[i] / u[i];
    }
}

void K(rprop)(int64_t n, void *w_, const void *g_, void *previous_, void *size_, double shrink_, double grow_, double least_, double most_,
              double decay_)
{
    ARRAY(, w);
    ARRAY(const, g);
    ARRAY(, previous);
    ARRAY(, size);
    const real shrink = (real)shrink_, grow = (real)grow_, least = (real)least_, most = (real)most_, decay = (real)decay_;
    for (int64_t i = 0; i < n; i++) {
        const real d = g[i] + decay * w[i], turn = d * previous[i];
        real s = size[i] * (turn > 0 ? grow : turn < 0 ? shrink : (real)1);
        s = s < least ? least : s;
        s = s > most ? most : s;
        const real kept = turn < 0 ? (real)0 : d;
        size[i] = s;
        previous[i] = kept;
        w[i] -= sign(kept) * s;
    }
}

void K(lion)(int64_t n, void *w_, const void *g_, void *m_, double lr_, double beta1_, double beta2_, double keep_)
{
    ARRAY(, w);
    ARRAY(const, g);
    ARRAY(, m);
    const real lr = (real)lr_, beta1 = (real)beta1_, rate1 = (real)(1 - beta1_), beta2 = (real)beta2_, rate2 = (real)(1 - beta2_),
               keep = (real)keep_;
    for (int64_t i = 0; i < n; i++) {
        w[i] = keep * w[i] - lr * sign(beta1 * m[i] + rate1 * g[i]);
        m[i] = beta2 * m[i] + rate2 * g[i];
    }
}

void K(radam)(int64_t n, void *w_, const void *g_, void *m_, void *v_, double step_, double beta1_, double beta2_, double correction_,
              double eps_, double l2_, double keep_)
{
    ARRAY(, w);
    ARRAY(const, g);
    ARRAY(, m);
    ARRAY(, v);
    const real step = (real)step_, rate1 = (real)(1 - beta1_), beta2 = (real)beta2_, rate2 = (real)(1 - beta2_);
    const real correction = (real)correction_, eps = (real)eps_, l2 = (real)l2_, keep = (real)keep_;
    if (correction_ > 0)
        for (int64_t i = 0; i < n; i++) {
            const real d = g[i] + l2 * w[i];
            m[i] += rate1 * (d - m[i]);
            v[i] = beta2 * v[i] + rate2 * d * d;
            w[i] = keep * w[i] - step * m[i] * correction / (root(v[i]) + eps);
        }
    else
        for (int64_t i = 0; i < n; i++) {
            const real d = g[i] + l2 * w[i];
            m[i] += rate1 * (d - m[i]);
            v[i] = beta2 * v[i] + rate2 * d * d;
            w[i] = keep * w[i] - step * m[i];
        }
}

void K(average)(int64_t n, void *a_, const void *w_, double keep_)
{
    ARRAY(, a);
    ARRAY(const, w);
    const real keep = (real)keep_, rest = (real)(1 - keep_);
    for (int64_t i = 0; i < n; i++) a[i] = keep * a[i] + rest * w[i];
}

void K(accumulate)(int64_t n, void *g_, void *sum_, double share_)
{
    ARRAY(, g);
    ARRAY(, sum);
    const real share = (real)share_;
    if (share_ == 0)
        for (int64_t i = 0; i < n; i++) sum[i] += g[i];
    else
        for (int64_t i = 0; i < n; i++) {
            g[i] = (sum[i] + g[i]) * share;
            sum[i] = 0;
        }
}
