/* optimizer.c - one pass of an optimizer over n parameters: gradient and state are read once, parameter and state written once.
 *
 * The equations stand in ops/optimizer.c. Numbers that are the same for all elements are worked out in f64 and rounded once, as PyTorch
 * does. Options that change the equation are constants of an inlined body, so that no loop holds a branch. */
#include "kernel.h"
#include "vmath.h"

#define INLINE static inline __attribute__((always_inline))

/* Without errno, so that it becomes one instruction. */
INLINE real root(real x) { return sizeof(real) == sizeof(float) ? (real)__builtin_sqrtf((float)x) : (real)__builtin_sqrt((double)x); }

/* ---- sgd ---- */

INLINE void sgd_body(int64_t n, real *restrict w, const real *restrict g, real *restrict velocity, real lr, real momentum, real damped,
                     bool nesterov, real weight_decay, bool first)
{
    for (int64_t i = 0; i < n; i++) {
        real d = g[i] + weight_decay * w[i];
        if (velocity) {
            real u = first ? d : momentum * velocity[i] + damped * d;
            velocity[i] = u;
            d = nesterov ? d + momentum * u : u;
        }
        w[i] -= lr * d;
    }
}

void K(sgd)(int64_t n, void *w, const void *g, void *velocity, double lr, double momentum, double dampening, bool nesterov,
            double weight_decay, bool first)
{
    real *const p = (real *)w, *const u = (real *)velocity;
    const real *const d = (const real *)g;
    const real a = (real)lr, b = (real)momentum, c = (real)(1 - dampening), decay = (real)weight_decay;
    if (!u && decay == 0 && a - a == 0)
        for (int64_t i = 0; i < n; i++) p[i] = d[i] == 0 ? p[i] : p[i] - a * d[i]; /* no gradient: the parameter stays, to the bit */
    else if (!u)
        sgd_body(n, p, d, NULL, a, b, c, false, decay, false);
    else if (nesterov && first)
        sgd_body(n, p, d, u, a, b, c, true, decay, true);
    else if (nesterov)
        sgd_body(n, p, d, u, a, b, c, true, decay, false);
    else if (first)
        sgd_body(n, p, d, u, a, b, c, false, decay, true);
    else
        sgd_body(n, p, d, u, a, b, c, false, decay, false);
}

/* ---- adam ---- */

INLINE void adam_body(int64_t n, real *restrict w, const real *restrict g, real *restrict m, real *restrict v, real *restrict vmax,
                      real step, real rate1, real beta2, real rate2, real correction, real eps, real l2, real keep)
{
    for (int64_t i = 0; i < n; i++) {
        real d = g[i] + l2 * w[i];
        m[i] += rate1 * (d - m[i]);
        v[i] = beta2 * v[i] + rate2 * d * d;
        real second = v[i];
        if (vmax) {
            second = vmax[i] > second ? vmax[i] : second;
            vmax[i] = second;
        }
        w[i] = keep * w[i] - step * m[i] / (root(second) * correction + eps);
    }
}

enum { REST = 64 }; /* elements of a block that may be at rest */

static bool all_zero(const real *x)
{
    vec_i bits = { 0 };
    lane_int any = 0;
    for (int i = 0; i < REST; i += KLANES) bits |= (vec_i)vec_load(x + i);
    for (int l = 0; l < KLANES; l++) any |= bits[l];
    return any == 0;
}

/* A block without gradient and momentum: rows of an embedding that no batch has met, or not for long. */
static inline bool at_rest(const real *g, const real *m) { return g[0] == 0 && m[0] == 0 && all_zero(g) && all_zero(m); }

void K(adam)(int64_t n, void *w, const void *g, void *m, void *v, void *vmax, double lr, double beta1, double beta2, double eps,
             double weight_decay, bool decoupled, double bias1, double bias2)
{
    real *const p = (real *)w, *const first = (real *)m, *const second = (real *)v, *const most = (real *)vmax;
    const real *const d = (const real *)g;
    const real step = (real)(lr / bias1), rate1 = (real)(1 - beta1), b2 = (real)beta2, rate2 = (real)(1 - beta2), e = (real)eps;
    const real correction = (real)(1 / __builtin_sqrt(bias2));
    const real l2 = decoupled ? 0 : (real)weight_decay, keep = decoupled ? (real)(1 - lr * weight_decay) : 1;
    if (most) {
        adam_body(n, p, d, first, second, most, step, rate1, b2, rate2, correction, e, l2, keep);
        return;
    }
    /* With g = m = 0 the equations leave w and m as they are and shrink v, to the bit: nothing else need be read or written. */
    const bool rests = l2 == 0 && keep == 1 && step - step == 0 && e > 0;
    int64_t i = 0;
    while (i < n) {
        int64_t end = rests ? i : n;
        while (end < n && !(n - end >= REST && at_rest(d + end, first + end))) end += n - end < REST ? n - end : REST;
        if (end > i) adam_body(end - i, p + i, d + i, first + i, second + i, NULL, step, rate1, b2, rate2, correction, e, l2, keep);
        if (end < n) {
            if (!all_zero(second + end))
                for (int64_t k = end; k < end + REST; k++) second[k] *= b2;
            end += REST;
        }
        i = end;
    }
}

/* ---- rmsprop ---- */

INLINE void rmsprop_body(int64_t n, real *restrict w, const real *restrict g, real *restrict v, real *restrict buffer,
                         real *restrict average, real lr, real rho, real rate, real eps, real momentum, real weight_decay, bool eps_inside)
{
    for (int64_t i = 0; i < n; i++) {
        real d = g[i] + weight_decay * w[i];
        v[i] = rho * v[i] + rate * d * d;
        real spread = v[i];
        if (average) {
            average[i] += rate * (d - average[i]);
            spread -= average[i] * average[i];
            spread = spread < 0 ? 0 : spread; /* rounding; a NaN stays one */
        }
        real update = eps_inside ? d / root(spread + eps) : d / (root(spread) + eps);
        if (buffer) update = buffer[i] = momentum * buffer[i] + update;
        w[i] -= lr * update;
    }
}

void K(rmsprop)(int64_t n, void *w, const void *g, void *v, void *momentum_buf, void *grad_avg, double lr, double rho, double eps,
                double momentum, double weight_decay, bool eps_inside)
{
    real *const p = (real *)w, *const s = (real *)v, *const b = (real *)momentum_buf, *const a = (real *)grad_avg;
    const real *const d = (const real *)g;
    const real l = (real)lr, r = (real)rho, rate = (real)(1 - rho), e = (real)eps, m = (real)momentum, decay = (real)weight_decay;
#define CASE(buffer, average)                                                              \
    (eps_inside ? rmsprop_body(n, p, d, s, buffer, average, l, r, rate, e, m, decay, true) \
                : rmsprop_body(n, p, d, s, buffer, average, l, r, rate, e, m, decay, false))
    if (b && a)
        CASE(b, a);
    else if (b)
        CASE(b, NULL);
    else if (a)
        CASE(NULL, a);
    else
        CASE(NULL, NULL);
#undef CASE
}
