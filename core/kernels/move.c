/* move.c - small loops that other ops share. */
#include "vmath.h"

void K(from_u8)(int64_t n, const uint8_t *x, void *y_)
{
    real *y = (real *)y_;
    for (int64_t i = 0; i < n; i++) y[i] = (real)x[i];
}

void K(axpy)(int64_t n, double alpha, const void *x_, void *y_)
{
    const real *x = (const real *)x_;
    real *y = (real *)y_;
    const vec a = vec_set((real)alpha);
    int64_t i = 0;
    for (; i + KLANES <= n; i += KLANES) vec_store(y + i, vec_load(y + i) + a * vec_load(x + i));
    if (i < n) {
        const int k = (int)(n - i);
        vec_store_some(y + i, 1, k, vec_load_some(y + i, 1, k) + a * vec_load_some(x + i, 1, k));
    }
}

double K(dot)(int64_t n, const void *x_, const void *y_)
{
    enum { WIDE = 16 }; /* running sums, the same number for every instruction set; term i goes to number i % WIDE */
    const real *x = (const real *)x_, *y = (const real *)y_;
    double sum[WIDE] = { 0 };
    int64_t i = 0;
    for (; i + WIDE <= n; i += WIDE)
        for (int l = 0; l < WIDE; l++) sum[l] += (double)x[i + l] * (double)y[i + l];
    for (int l = 0; i < n; l++, i++) sum[l] += (double)x[i] * (double)y[i];
    for (int half = WIDE / 2; half > 0; half /= 2)
        for (int l = 0; l < half; l++) sum[l] += sum[l + half];
    return sum[0];
}
