/* test_vmath.c - the error of the float kernels' elementary functions, in units in the last place, against libm in double; for every
 * instruction set of this machine, over floats of all magnitudes and both signs. And that a value does not depend on its place. */
#include "kernels/kernels.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int passed, failed;

static void check(bool ok, const char *isa, const char *what, double found, double allowed)
{
    ok ? passed++ : failed++;
    if (!ok) printf("FAILED %s %s: found %g, allowed %g\n", isa, what, found, allowed);
}

static double ref_rsqrt(double x) { return 1 / sqrt(x); }
static double ref_sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }
static double ref_softplus(double x) { return x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)); }

/* The bounds that vmath.h promises. */
static const struct {
    const char *name;
    bp_unary_id id;
    double (*ref)(double);
    double ulp;
} functions[] = {
    { "exp", BP_UNARY_exp, exp, 1.1 },
    { "expm1", BP_UNARY_expm1, expm1, 2.0 },
    { "log", BP_UNARY_log, log, 1.0 },
    { "log1p", BP_UNARY_log1p, log1p, 2.0 },
    { "sin", BP_UNARY_sin, sin, 0.51 },
    { "cos", BP_UNARY_cos, cos, 0.51 },
    { "tanh", BP_UNARY_tanh, tanh, 3.0 },
    { "sigmoid", BP_UNARY_sigmoid, ref_sigmoid, 2.5 },
    { "softplus", BP_UNARY_softplus, ref_softplus, 2.5 },
    { "erf", BP_UNARY_erf, erf, 1.5 },
    { "sqrt", BP_UNARY_sqrt, sqrt, 0.5 },
    { "rsqrt", BP_UNARY_rsqrt, ref_rsqrt, 1.5 },
};

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* Distance of two neighbouring floats at y. */
static double ulp_at(double y)
{
    int e;
    frexp(y, &e);
    return ldexp(1.0, (e < -125 ? -125 : e) - FLT_MANT_DIG);
}

/* Error in ulp; where the true result is infinite or NaN, or rounds to infinity, the kernel must say the same. */
static double ulp_error(float got, double want)
{
    if (isnan(want)) return isnan(got) ? 0 : INFINITY;
    if (fabs(want) >= (double)FLT_MAX) return isinf(got) || (fabs(want) < 3.41e38 && isfinite(got)) ? 0 : INFINITY;
    if (!isfinite(got)) return fabs(want) > 3.4028e38 ? 0 : INFINITY;
    return fabs((double)got - want) / ulp_at(want);
}

enum { BATCH = 4096, STEP = 5003 };

static void test_errors(const bp_kernels *k)
{
    static float x[BATCH], y[BATCH];
    for (size_t f = 0; f < sizeof functions / sizeof *functions; f++) {
        double worst = 0, where = 0;
        for (uint64_t bits = 0; bits < (uint64_t)1 << 32;) {
            int n = 0;
            for (; n < BATCH && bits < (uint64_t)1 << 32; n++, bits += STEP) x[n] = float_of((uint32_t)bits);
            k->unary[functions[f].id](n, x, 1, y, 1, 0);
            for (int i = 0; i < n; i++) {
                double e = ulp_error(y[i], functions[f].ref((double)x[i]));
                if (e > worst) worst = e, where = (double)x[i];
            }
        }
        char what[80];
        snprintf(what, sizeof what, "%s: ulp at %.9g", functions[f].name, where);
        check(worst <= functions[f].ulp, k->isa, what, worst, functions[f].ulp);
        printf("%-9s %-9s %.3f ulp at %.9g\n", k->isa, functions[f].name, worst, where);
    }
}

/* The exponential of a softmax: beside a 0, a number so far below that the sum is 1 has its exponential as its share. */
static void test_shares(const bp_kernels *k)
{
    double worst = 0;
    int wrong = 0;
    for (double at = -17.5; at > -200; at -= 1.0 / 512) {
        const float x[4] = { 0, (float)at, (float)at, 0 };
        float y[4];
        k->softmax(2, 2, x, y);
        const double e = at < -87 ? fabs((double)y[1]) : ulp_error(y[1], exp((double)x[1]));
        if (e > worst) worst = e;
        wrong += y[0] != 1 || y[1] != y[2] || y[3] != 1;
    }
    const float nan[2] = { 0, float_of(0x7fc00001) };
    float y[2];
    k->softmax(1, 2, nan, y);
    wrong += !isnan(y[0]) || !isnan(y[1]);
    check(worst <= 1.1, k->isa, "the exponential of a softmax", worst, 1.1);
    check(wrong == 0, k->isa, "shares beside 1, and NaN", wrong, 0);
}

/* The normal distribution function by way of gelu: see the head of vmath.h. */
static void test_gelu(const bp_kernels *k)
{
    double worst = 0, where = 0;
    for (double x = -12; x < 12; x += 1.0 / 4096) {
        float in = (float)x, got;
        k->unary[BP_UNARY_gelu](1, &in, 1, &got, 1, 0);
        double want = (double)in * 0.5 * erfc((double)in * -0.70710678118654752440),
               allowed = 1.5e-7 * (4 + (double)in * (double)in) * fabs(want) + 2e-45;
        double ratio = fabs((double)got - want) / allowed;
        if (ratio > worst) worst = ratio, where = (double)in;
    }
    printf("%-9s gelu      %.3f of its bound at %g\n", k->isa, worst, where);
    check(worst <= 1, k->isa, "gelu against its bound", worst, 1);
}

/* Every row of elementwise.def: a value at any place of any length, side by side or with gaps, has the bits it has alone. */
static void test_places(const bp_kernels *k)
{
    enum { N = 67 };
    float a[2 * N], b[2 * N], y[2 * N], alone[N];
    for (int i = 0; i < 2 * N; i++) a[i] = (float)sin(i * 1.7) * 3, b[i] = (float)cos(i * 2.3) * 2;
    int wrong = 0;
    for (int id = 0; id < BP_UNARY_COUNT; id++)
        for (int s = 1; s <= 2; s++) {
            for (int i = 0; i < N; i++) k->unary[id](1, a + i * s, 1, alone + i, 1, 0.3);
            for (int n = 0; n <= N; n++) {
                k->unary[id](n, a, s, y, 3 - s, 0.3);
                for (int i = 0; i < n; i++) wrong += memcmp(y + i * (3 - s), alone + i, sizeof *y) != 0;
            }
        }
    for (int id = 0; id < BP_BINARY_COUNT; id++)
        for (int sa = 0; sa <= 2; sa++)
            for (int sb = 0; sb <= 2; sb++) {
                for (int i = 0; i < N; i++) k->binary[id](1, a + i * sa, 1, b + i * sb, 1, alone + i, 1, 0.3);
                for (int n = 0; n <= N; n += 7) {
                    k->binary[id](n, a, sa, b, sb, y, 1, 0.3);
                    for (int i = 0; i < n; i++) wrong += memcmp(y + i, alone + i, sizeof *y) != 0;
                }
            }
    check(wrong == 0, k->isa, "values that depend on their place", wrong, 0);
}

int main(void)
{
    static const char *const isas[] = { "baseline", "avx2", "avx512" };
    for (int i = 0; i < 3; i++) {
        const bp_kernels *k = bp_kernels_f32(isas[i]);
        if (!k) {
            printf("%s: not on this machine\n", isas[i]);
            continue;
        }
        test_errors(k);
        test_shares(k);
        test_gelu(k);
        test_places(k);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
