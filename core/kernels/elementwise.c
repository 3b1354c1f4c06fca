/* elementwise.c - one function per row of elementwise.def.
 *
 * Whole vectors where the operands lie side by side or are one number for all (stride 0: a vector of copies that is loaded again and
 * again). Everything else, tails included, is gathered into vectors that go through the same expression. */
#include "vmath.h"

#include <string.h>

typedef uint8_t vec_truth __attribute__((vector_size(KLANES)));

/* ---- expressions too long for a row ---- */

/* u = sqrt(2/pi) (x + 0.044715 x^3), Hendrycks and Gimpel, "Gaussian error linear units", 2016 */
static const real GELU_SCALE = (real)0.79788456080286535588, GELU_CUBE = (real)0.044715;
static inline vec vec_gelu_inner(vec x) { return GELU_SCALE * (x + GELU_CUBE * x * x * x); }

/* With s = sigmoid(2u): (x s)' = s + x s (1 - s) 2u' */
static inline vec vec_gelu_tanh_grad(vec dy, vec x)
{
    const vec s = vec_sigmoid(2 * vec_gelu_inner(x));
    return dy * (s + x * s * (1 - s) * (2 * GELU_SCALE * (1 + 3 * GELU_CUBE * x * x)));
}

static inline vec vec_silu_grad(vec dy, vec x)
{
    const vec s = vec_sigmoid(x);
    return dy * s * (1 + x * (1 - s));
}

/* With e = exp(x) and n = e (e + 2): tanh(log(1 + e)) = n / (n + 2), 1 - tanh^2 = 4 (n + 1) / (n + 2)^2, and e + 1 is the root of n + 1.
 * From 20 on both are 1 and 0 to the last bit of f64, while e^2 would overflow further out. */
static inline vec vec_mish(vec x)
{
    const vec e = vec_exp(vec_min(x, vec_set(20))), n = e * (e + 2);
    return x * (n / (n + 2));
}

static inline vec vec_mish_grad(vec dy, vec x)
{
    const vec e = vec_exp(vec_min(x, vec_set(20))), n = e * (e + 2), t = n / (n + 2);
    return dy * (t + x * (4 * (e + 1) * e / ((n + 2) * (n + 2))));
}

static inline vec vec_mod(vec a, vec b)
{
    for (int l = 0; l < KLANES; l++) {
        const double m = fmod((double)a[l], (double)b[l]);
        a[l] = (real)(m * (double)b[l] < 0 ? m + (double)b[l] : m);
    }
    return a;
}

/* ---- loops ---- */

/* Where to load vectors of an operand with stride 0 or 1 from: the operand itself, or `copies` of its one element. */
static inline const real *side_by_side(const real *p, int64_t s, int64_t n, real copies[KLANES])
{
    if (s || n == 0) return p;
    for (int l = 0; l < KLANES; l++) copies[l] = p[0];
    return copies;
}
static inline bool plain(int64_t s) { return s == 0 || s == 1; }
static inline int lanes_left(int64_t left) { return left < KLANES ? (int)left : KLANES; }

#define BP_UNARY(name, value)                                                                    \
    void K(unary_##name)(int64_t n, const void *x_, int64_t sx, void *y_, int64_t sy, double p_) \
    {                                                                                            \
        const vec p = vec_set((real)p_), one = vec_set(1);                                       \
        real *y = (real *)y_, copies[KLANES];                                                    \
        int64_t i = 0;                                                                           \
        if (plain(sx) && sy == 1) {                                                              \
            const real *from = side_by_side((const real *)x_, sx, n, copies);                    \
            for (; i + KLANES <= n; i += KLANES, from += sx * KLANES) {                          \
                const vec x = vec_load(from);                                                    \
                vec_store(y + i, value);                                                         \
            }                                                                                    \
        }                                                                                        \
        for (; i < n; i += KLANES) {                                                             \
            const int k = lanes_left(n - i);                                                     \
            const vec x = vec_load_some((const real *)x_ + i * sx, sx, k);                       \
            vec_store_some(y + i * sy, sy, k, value);                                            \
        }                                                                                        \
        (void)p, (void)one;                                                                      \
    }

/* The body of a loop over pairs: `whole` handles the vectors a and b at i, `part` the k lanes of a and b at i. */
#define PAIRS(y_is_plain, whole, part)                                                                                      \
    real copies_a[KLANES], copies_b[KLANES];                                                                                \
    int64_t i = 0;                                                                                                          \
    if (plain(sa) && plain(sb) && (y_is_plain)) {                                                                           \
        const real *from_a = side_by_side((const real *)a_, sa, n, copies_a);                                               \
        const real *from_b = side_by_side((const real *)b_, sb, n, copies_b);                                               \
        for (; i + KLANES <= n; i += KLANES, from_a += sa * KLANES, from_b += sb * KLANES) {                                \
            const vec a = vec_load(from_a), b = vec_load(from_b);                                                           \
            whole;                                                                                                          \
        }                                                                                                                   \
    }                                                                                                                       \
    for (; i < n; i += KLANES) {                                                                                            \
        const int k = lanes_left(n - i);                                                                                    \
        const vec a = vec_load_some((const real *)a_ + i * sa, sa, k), b = vec_load_some((const real *)b_ + i * sb, sb, k); \
        part;                                                                                                               \
    }

#define BP_BINARY(name, value)                                                                                                \
    void K(binary_##name)(int64_t n, const void *a_, int64_t sa, const void *b_, int64_t sb, void *y_, int64_t sy, double p_) \
    {                                                                                                                         \
        const vec p = vec_set((real)p_);                                                                                      \
        real *y = (real *)y_;                                                                                                 \
        PAIRS(sy == 1, vec_store(y + i, value), vec_store_some(y + i * sy, sy, k, value))                                     \
        (void)p;                                                                                                              \
    }

/* Comparing gives lanes of all ones or zero; a truth value is one byte, 1 or 0. */
#define BP_COMPARE(name, value)                                                                                       \
    void K(compare_##name)(int64_t n, const void *a_, int64_t sa, const void *b_, int64_t sb, uint8_t *y, int64_t sy) \
    {                                                                                                                 \
        PAIRS(                                                                                                        \
            sy == 1,                                                                                                  \
            {                                                                                                         \
                const vec_truth t = __builtin_convertvector((value)&1, vec_truth);                                    \
                memcpy(y + i, &t, sizeof t);                                                                          \
            },                                                                                                        \
            {                                                                                                         \
                const vec_i t = (value);                                                                              \
                for (int l = 0; l < k; l++) y[(i + l) * sy] = (uint8_t)(t[l] & 1);                                    \
            })                                                                                                        \
    }

#include "elementwise.def"
