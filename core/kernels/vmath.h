/* vmath.h - elementary functions on whole vectors, for the kernels.
 *
 * For KREAL float each function is branch-free arithmetic on all lanes, so that an element's value does not depend on its place in the
 * vector. Polynomials are minimax fits (Lawson's iteration, coefficients rounded to float one after the other). For KREAL double every
 * function is a loop over libm: the oracle. Worst error in float found by tests/c/test_vmath.c against libm in double, in ulp of the
 * result, over the whole range of finite results including denormal ones:
 *
 *     exp 1.1   expm1 2   log 1   log1p 2   sin, cos 0.51   tanh 3   sigmoid 2.5   softplus 2.5   erf 1.5   sqrt 0.5   1/sqrt 1.5
 *
 * normal_cdf inherits the error of x / sqrt(2) in its left tail: relative 1.5e-7 * (4 + x*x). Infinities and NaN go through as
 * in libm; the sign of zero is kept by the odd functions tanh and erf only. */
#ifndef BP_VMATH_H
#define BP_VMATH_H

#include "kernel.h"

#include <math.h>

#define VMATH_IS_DOUBLE_float 0
#define VMATH_IS_DOUBLE_double 1
#define VMATH_DOUBLE KPASTE(VMATH_IS_DOUBLE, KREAL)

/* Whole numbers of the element's width: what comparing two vectors gives (all ones or zero), and the bits of a vector. */
#if VMATH_DOUBLE
typedef int64_t lane_int;
typedef uint64_t lane_bits;
#define LANE_SIGN INT64_MIN
#else
typedef int32_t lane_int;
typedef uint32_t lane_bits;
#define LANE_SIGN INT32_MIN
#endif
typedef lane_int vec_i __attribute__((vector_size(KLANES * sizeof(KREAL))));
/* The same without a sign, for arithmetic on bits that may wrap around. */
typedef lane_bits vec_n __attribute__((vector_size(KLANES * sizeof(KREAL))));

#define VEC_INF ((real)INFINITY)

/* mask ? a : b, lane by lane */
static inline vec vec_select(vec_i mask, vec a, vec b) { return (vec)((mask & (vec_i)a) | (~mask & (vec_i)b)); }
/* mask ? a : 0 */
static inline vec vec_keep(vec_i mask, vec a) { return (vec)(mask & (vec_i)a); }
static inline vec vec_abs(vec x) { return (vec)((vec_i)x & ~LANE_SIGN); }
/* |a| with the sign of b, for a >= 0 */
static inline vec vec_with_sign(vec a, vec b) { return (vec)((vec_i)a | ((vec_i)b & LANE_SIGN)); }
/* The greater and the lesser; NaN in either wins. */
static inline vec vec_max(vec a, vec b) { return vec_select((a > b) | (a != a), a, b); }
static inline vec vec_min(vec a, vec b) { return vec_select((a < b) | (a != a), a, b); }

/* f(0, s), f(1, s), ... for the lanes of a vector: which lanes a shuffle takes. */
#define LANES_2(f, s, j) f((j), s), f((j) + 1, s)
#define LANES_4(f, s, j) LANES_2(f, s, j), LANES_2(f, s, (j) + 2)
#define LANES_8(f, s, j) LANES_4(f, s, j), LANES_4(f, s, (j) + 4)
#define LANES_16(f, s, j) LANES_8(f, s, j), LANES_8(f, s, (j) + 8)
#define LANES(f, s) (vec_i) { KPASTE(LANES, KLANES)(f, s, 0) }

/* Sum or greatest of the lanes, in every lane: each round combines the lanes whose numbers differ in one bit, the highest first. */
#define PARTNER(j, bit) ((j) ^ (bit))
#define VEC_ACROSS(name, of_vectors)                                                         \
    static inline vec vec_round_##name(vec a, vec_i partner)                                 \
    {                                                                                        \
        const vec b = __builtin_shuffle(a, partner);                                         \
        return of_vectors;                                                                   \
    }                                                                                        \
    static inline vec vec_across_##name(vec a)                                               \
    {                                                                                        \
        if (KLANES > 8) a = vec_round_##name(a, LANES(PARTNER, 8));                          \
        if (KLANES > 4) a = vec_round_##name(a, LANES(PARTNER, 4));                          \
        if (KLANES > 2) a = vec_round_##name(a, LANES(PARTNER, 2));                          \
        return vec_round_##name(a, LANES(PARTNER, 1));                                       \
    }
VEC_ACROSS(sum, a + b)
VEC_ACROSS(max, vec_max(a, b))

/* y[l] = expression of x[l], through double: what has no vector code of its own. */
#define VEC_EACH(name, expression)         \
    static inline vec vec_##name(vec v)    \
    {                                      \
        for (int l = 0; l < KLANES; l++) { \
            const double x = (double)v[l]; \
            v[l] = (real)(expression);     \
        }                                  \
        return v;                          \
    }
/* The same in the element's own type, for what is one instruction there. */
#define VEC_EACH_REAL(name, in_float, in_double)                                                                                \
    static inline vec vec_##name(vec v)                                                                                         \
    {                                                                                                                           \
        vec y = v;                                                                                                              \
        for (int l = 0; l < KLANES; l++) y[l] = (real)(VMATH_DOUBLE ? in_double((double)v[l]) : (double)in_float((float)v[l])); \
        return y;                                                                                                               \
    }
VEC_EACH_REAL(sqrt, sqrtf, sqrt)
VEC_EACH_REAL(floor, floorf, floor)
VEC_EACH_REAL(ceil, ceilf, ceil)
VEC_EACH_REAL(round, rintf, rint)
VEC_EACH(sin, sin(x))
VEC_EACH(cos, cos(x))

static inline vec vec_pow(vec a, vec b)
{
    for (int l = 0; l < KLANES; l++) a[l] = (real)pow((double)a[l], (double)b[l]);
    return a;
}

#if VMATH_DOUBLE

VEC_EACH(exp, exp(x))
VEC_EACH(exp_below, exp(x))
VEC_EACH(expm1, expm1(x))
VEC_EACH(log, log(x))
VEC_EACH(log1p, log1p(x))
VEC_EACH(tanh, tanh(x))
VEC_EACH(sigmoid, x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)))
VEC_EACH(softplus, x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)))
VEC_EACH(erf, erf(x))
VEC_EACH(erfc, erfc(x))
VEC_EACH(normal_cdf, 0.5 * erfc(x * -0.70710678118654752440))
VEC_EACH(sin_turns, sin(x * 6.28318530717958647692))
VEC_EACH(cos_turns, cos(x * 6.28318530717958647692))
static inline void vec_sincos_turns(vec u, vec *s, vec *c) { *s = vec_sin_turns(u), *c = vec_cos_turns(u); }
static inline void vec_tanh_ratio(vec x, vec *top, vec *bottom) { *top = vec_tanh(x), *bottom = vec_set(1); }
static inline void vec_sigmoid_ratio(vec x, vec *top, vec *bottom) { *top = vec_sigmoid(x), *bottom = vec_set(1); }

#else

/* ln 2 = LN2_HIGH + LN2_LOW; n * LN2_HIGH is exact for the exponents n of a float. */
#define LN2_HIGH 0x1.62e4p-1f
#define LN2_LOW 0x1.7f7d1cp-20f

/* x = n ln 2 + r with |r| <= ln(2) / 2. Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits. */
static inline vec vec_exp_split(vec x, vec_i *n)
{
    const vec big = vec_set(0x1.8p23f);
    const vec shifted = x * 0x1.715476p+0f + big, whole = shifted - big;
    *n = (vec_i)((vec_n)shifted - (vec_n)big);
    return (x - whole * LN2_HIGH) - whole * LN2_LOW;
}
/* exp(r) - 1 = r + r^2 P(r) */
static inline vec vec_expm1_core(vec r)
{
    vec p = vec_set(1.393929007e-3f);
    p = p * r + 8.366560563e-3f;
    p = p * r + 4.166641831e-2f;
    p = p * r + 1.666654348e-1f;
    p = p * r + 0.5f;
    return r + r * r * p;
}
static inline vec vec_exp2i(vec_i n) { return (vec)(((vec_n)n + 127) << 23); } /* -126 <= n <= 127 */

/* For x <= 89. */
static inline vec vec_exp_low(vec x)
{
    vec_i n;
    x = vec_select(x < -104.0f, vec_set(-104.0f), x); /* below: 0 */
    const vec q = vec_expm1_core(vec_exp_split(x, &n));
    const vec_i half = n >> 1; /* 2^n in two factors reaches denormal results and infinity */
    return (1.0f + q) * vec_exp2i(half) * vec_exp2i(n - half);
}
static inline vec vec_exp(vec x) { return vec_exp_low(vec_select(x > 89.0f, vec_set(89.0f), x)); } /* above: infinity */

/* For x <= 0 or a little above, as the terms of a softmax are: 0 below -87, so that one factor reaches. */
static inline vec vec_exp_below(vec x)
{
    vec_i n;
    const vec q = vec_expm1_core(vec_exp_split(x, &n));
    return vec_keep(~(vec_i)(x < -87.0f), (1.0f + q) * vec_exp2i(n));
}

static inline vec vec_expm1(vec x)
{
    vec_i n;
    x = vec_select(x < -20.0f, vec_set(-20.0f), x); /* below: -1 */
    x = vec_select(x > 89.0f, vec_set(89.0f), x);
    const vec q = vec_expm1_core(vec_exp_split(x, &n));
    const vec s = vec_exp2i(n - 1); /* 2^n q + (2^n - 1), halved so that n = 128 fits */
    return 2.0f * (s * q + (s - 0.5f));
}

static inline vec vec_log(vec x)
{
    const vec_i tiny = x < 0x1p-126f;
    const vec scaled = vec_select(tiny, x * 0x1p23f, x);
    /* scaled = 2^n (1 + f) with sqrt(1/2) <= 1 + f < sqrt(2) */
    const vec_n bits = (vec_n)scaled;
    const vec_i n = (vec_i)(bits - 0x3f3504f3) >> 23;
    const vec f = (vec)(bits - ((vec_n)n << 23)) - 1.0f;
    const vec e = __builtin_convertvector(n - (tiny & 23), vec);
    vec p = vec_set(-7.861663401e-2f);
    p = p * f + 1.288294196e-1f;
    p = p * f - 1.312850416e-1f;
    p = p * f + 1.418094784e-1f;
    p = p * f - 1.662455797e-1f;
    p = p * f + 2.000230104e-1f;
    p = p * f - 2.500081062e-1f;
    p = p * f + 3.333331645e-1f;
    const vec ff = f * f; /* log(1 + f) = f - f^2/2 + f^3 P(f), summed from the small end */
    vec y = ((f * ff * p + e * LN2_LOW) - 0.5f * ff) + f;
    y = y + e * LN2_HIGH;
    y = vec_select(x == VEC_INF, x, y);
    return vec_select(x > 0.0f, y, vec_select(x == 0.0f, vec_set(-VEC_INF), vec_set(NAN)));
}

/* log(u) and what rounding u = 1 + x lost */
static inline vec vec_log1p(vec x)
{
    const vec u = 1.0f + x, lost = (x - (u - 1.0f)) / u;
    return vec_log(u) + vec_keep((u > 0.0f) & (u < VEC_INF), lost);
}

/* tanh |x| = (exp(2|x|) - 1) / (exp(2|x|) + 1) */
static inline void vec_tanh_ratio(vec x, vec *top, vec *bottom)
{
    vec_i n;
    const vec a = vec_abs(x), q = vec_expm1_core(vec_exp_split(2.0f * vec_select(a > 9.25f, vec_set(9.25f), a), &n));
    const vec s = vec_exp2i(n), e = s * q + (s - 1.0f); /* as vec_expm1, of what is neither below 0 nor above 18.5 */
    *top = vec_with_sign(e, x);
    *bottom = e + 2.0f;
}

/* With e = exp(-|x|): 1 / (1 + e), or e / (1 + e) for x < 0. */
static inline void vec_sigmoid_ratio(vec x, vec *top, vec *bottom)
{
    const vec e = vec_exp_low(-vec_abs(x));
    *top = vec_select(x < 0.0f, e, vec_set(1.0f));
    *bottom = 1.0f + e;
}

static inline vec vec_tanh(vec x)
{
    vec top, bottom;
    vec_tanh_ratio(x, &top, &bottom);
    return top / bottom;
}
static inline vec vec_sigmoid(vec x)
{
    vec top, bottom;
    vec_sigmoid_ratio(x, &top, &bottom);
    return top / bottom;
}

/* log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)) */
static inline vec vec_softplus(vec x) { return vec_select(x > 0.0f, x, vec_set(0.0f)) + vec_log1p(vec_exp(-vec_abs(x))); }

/* erfc(a) = t exp(-a^2 + P(t)), t = 2 / (2 + a), for a >= 0. The exponent is held in two floats: a = h + l with h^2 exact. */
static inline vec vec_erfc_positive(vec a)
{
    a = vec_select(a > 12.0f, vec_set(12.0f), a); /* beyond: 0 */
    const vec t = 2.0f / (2.0f + a), z = t - 0.5f;
    vec p = vec_set(1.488491446e-1f);
    p = p * z - 3.255255148e-2f;
    p = p * z - 2.618256211e-1f;
    p = p * z + 1.089206040e-1f;
    p = p * z + 2.792103291e-1f;
    p = p * z - 1.576500237e-1f;
    p = p * z - 3.750572503e-1f;
    p = p * z + 1.893656999e-1f;
    p = p * z + 1.345285416f;
    p = p * z - 6.717940569e-1f;
    const vec h = (vec)((vec_i)a & ~0xfff), high = -(h * h), low = p - (a - h) * (a + h);
    const vec s = high + low, lost = low - (s - high), y = vec_exp(s) * t;
    return y + y * lost;
}
/* erf(x) = x + x P(x^2) */
static inline vec vec_erf_small(vec x)
{
    const vec z = x * x;
    vec p = vec_set(7.806903159e-5f);
    p = p * z - 7.997853099e-4f;
    p = p * z + 5.187162198e-3f;
    p = p * z - 2.685334720e-2f;
    p = p * z + 1.128357872e-1f;
    p = p * z - 3.761262596e-1f;
    p = p * z + 1.283791661e-1f;
    return x + x * p;
}
static inline vec vec_erf(vec x)
{
    const vec a = vec_abs(x);
    return vec_select(a < 1.0f, vec_erf_small(x), vec_with_sign(1.0f - vec_erfc_positive(a), x));
}
static inline vec vec_erfc(vec x)
{
    const vec y = vec_erfc_positive(vec_abs(x));
    return vec_select(x < 0.0f, 2.0f - y, y);
}

/* Phi(x), the normal distribution function */
static inline vec vec_normal_cdf(vec x)
{
    const vec y = 0.5f * vec_erfc_positive(vec_abs(x) * 0.707106781f);
    return vec_select(x < 0.0f, y, 1.0f - y);
}

/* sine and cosine of 2 pi u for 0 <= u <= 1: u = k/4 + r, |r| <= 1/8 */
static inline void vec_sincos_turns(vec u, vec *sine, vec *cosine)
{
    const vec_i k = __builtin_convertvector(4.0f * u + 0.5f, vec_i);
    const vec r = u - 0.25f * __builtin_convertvector(k, vec), z = r * r;
    vec p = vec_set(-7.523544312e1f), q = vec_set(5.862105179e1f);
    p = p * z + 8.158901978e1f;
    p = p * z - 4.134164429e1f;
    p = p * z + 2.831852734e-1f;
    q = q * z - 8.542452240e1f;
    q = q * z + 6.493914795e1f;
    q = q * z - 1.973920822e1f;
    const vec s = 6.0f * r + r * p, c = 1.0f + z * q;
    const vec_i odd = -(k & 1);
    *sine = (vec)((vec_n)vec_select(odd, c, s) ^ ((vec_n)(k & 2) << 30));
    *cosine = (vec)((vec_n)vec_select(odd, s, c) ^ ((vec_n)((k + 1) & 2) << 30));
}

#endif

/* The density of the normal distribution. */
static inline vec vec_normal_density(vec x) { return (real)0.39894228040143267794 * vec_exp((real)-0.5 * x * x); }

/* k lanes from p, p + s, ...; the others 1. A tail goes through the same arithmetic as a whole vector. */
static inline vec vec_load_some(const real *p, int64_t s, int k)
{
    vec v = vec_set(1);
    for (int l = 0; l < k; l++) v[l] = p[l * s];
    return v;
}
static inline void vec_store_some(real *p, int64_t s, int k, vec v)
{
    for (int l = 0; l < k; l++) p[l * s] = v[l];
}

#endif
