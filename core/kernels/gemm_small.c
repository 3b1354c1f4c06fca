/* gemm_small.c - products that want no panels: of one column, of k = 1 under a mask, and small ones. As everywhere, each element is one
 * chain of multiply-adds in the order of p, pass by pass, then bias and activation: to the bits of gemm.c's general way. */
#include "tile.h"
#include "transpose.h"

#define INLINE static inline __attribute__((always_inline))
#define MOST_WORK (1 << 16) /* multiply-adds of a small product */
#define MOST_K 128          /* of one, which is one pass */

/* a * b + c rounded as a vector's lane rounds it */
INLINE real multiply_add(real a, real b, real c)
{
#if defined(__FP_FAST_FMAF)
    return VMATH_DOUBLE ? (real)__builtin_fma((double)a, (double)b, (double)c) : (real)__builtin_fmaf((float)a, (float)b, (float)c);
#else
    return a * b + c;
#endif
}

/* ---- one column, rows of A contiguous: KLANES rows are the lanes of a sum, and blocks of them are turned over to meet it ---- */

INLINE void load_block(vec r[KLANES], const real *a, int64_t a_row)
{
#pragma GCC unroll 16
    for (int l = 0; l < KLANES; l++) r[l] = vec_load(a + l * a_row);
    vec_transpose(r);
}

/* What the steps p0..p1-1 add up to, for some groups of KLANES rows: one chain after the other would wait for itself. */
INLINE void column_pass(const bp_gemm *g, const int groups, const real *a, int64_t p0, int64_t p1, vec *acc)
{
    const int64_t a_row = g->a_row, b_row = g->b_row;
    const real *b = (const real *)g->b + p0 * b_row;
    vec r[KLANES];
    int64_t p = p0;
#pragma GCC unroll 4
    for (int s = 0; s < groups; s++) acc[s] = (vec){ 0 };
    for (; p + KLANES <= p1; p += KLANES, b += KLANES * b_row)
#pragma GCC unroll 4
        for (int s = 0; s < groups; s++) {
            load_block(r, a + s * KLANES * a_row + p, a_row);
#pragma GCC unroll 16
            for (int q = 0; q < KLANES; q++) acc[s] += r[q] * vec_set(b[q * b_row]);
        }
    if (p == p1) return;
    const int left = (int)(p1 - p);
    for (int s = 0; s < groups; s++, a += KLANES * a_row) {
        if (p1 >= KLANES) /* a whole block that ends with the last step */
            load_block(r, a + p1 - KLANES, a_row);
        for (int q = 0; q < left; q++) {
            vec x;
            if (p1 >= KLANES)
                x = r[KLANES - left + q];
            else
                for (int l = 0; l < KLANES; l++) x[l] = a[l * a_row + p + q];
            acc[s] += x * vec_set(b[q * b_row]);
        }
    }
}

/* `groups` times KLANES rows from row i on, of which the first `done` are stored already. */
INLINE void column_rows(const bp_gemm *g, const int groups, int64_t i, int done)
{
    const real *const a = (const real *)g->a + i * g->a_row;
    real *const c = (real *)g->c + i;
    const int64_t pass = tile_k_pass(g->k);
    vec sum[4], acc[4];
    int64_t p = 0;
    do {
        const int64_t p1 = g->k - p < pass ? g->k : p + pass;
        column_pass(g, groups, a, p, p1, acc);
#pragma GCC unroll 4
        for (int s = 0; s < groups; s++) sum[s] = p > 0 ? sum[s] + acc[s] : g->accumulate ? vec_load(c + s * KLANES) + acc[s] : acc[s];
        p = p1;
    } while (p < g->k);
#pragma GCC unroll 4
    for (int s = 0; s < groups; s++) {
        if (g->bias) sum[s] += vec_set(*(const real *)g->bias);
        if (g->act == BP_ACT_RELU) sum[s] = vec_keep(~(vec_i)(sum[s] <= (vec){ 0 }), sum[s]);
        if (done == 0)
            vec_store(c + s * KLANES, sum[s]);
        else
            for (int l = done; l < KLANES; l++) c[l] = sum[s][l];
    }
}

static void column_row(const bp_gemm *g, int64_t i)
{
    const real *const a = (const real *)g->a + i * g->a_row, *const b = (const real *)g->b;
    real *const c = (real *)g->c + i, sum = 0;
    const int64_t pass = tile_k_pass(g->k);
    int64_t p = 0;
    do {
        const int64_t p1 = g->k - p < pass ? g->k : p + pass;
        real acc = 0;
        for (int64_t q = p; q < p1; q++) acc = multiply_add(a[q], b[q * g->b_row], acc);
        sum = p > 0 ? sum + acc : g->accumulate ? *c + acc : acc;
        p = p1;
    } while (p < g->k);
    if (g->bias) sum += *(const real *)g->bias;
    *c = g->act == BP_ACT_RELU && sum <= 0 ? 0 : sum;
}

void K(gemm_column)(const bp_gemm *g)
{
    int64_t i = 0;
    for (; i + 4 * KLANES <= g->m; i += 4 * KLANES) column_rows(g, 4, i, 0);
    for (; i + KLANES <= g->m; i += KLANES) column_rows(g, 1, i, 0);
    if (i < g->m && g->m >= KLANES)
        column_rows(g, 1, g->m - KLANES, (int)(i - (g->m - KLANES)));
    else
        for (; i < g->m; i++) column_row(g, i);
}

/* ---- k = 1, and a relu undone: each row of C is the row of B times a number, where y > 0 ---- */

/* The columns from j on, which are no whole vector. */
static __attribute__((noinline)) void outer_edge(const bp_gemm *g, const real *y, real scale, int64_t j)
{
    for (int64_t i = 0; i < g->m; i++)
        for (int64_t at = j; at < g->n; at++) {
            const real x = ((const real *)g->a)[i * g->a_row], sum = multiply_add(x, ((const real *)g->b)[at], 0);
            ((real *)g->c)[i * g->c_row + at] = y[i * g->c_row + at] > 0 ? sum * scale : 0;
        }
}

void K(gemm_outer_masked)(const bp_gemm *g, const void *y_, double scale)
{
    const real *a = (const real *)g->a, *y = (const real *)y_, *const b = (const real *)g->b;
    const vec by = vec_set((real)scale);
    const int64_t whole = g->n - g->n % KLANES, a_row = g->a_row, c_row = g->c_row, m = g->m;
    real *c = (real *)g->c;
    if (whole < g->n) outer_edge(g, y, (real)scale, whole);
    for (int64_t i = 0; i < m; i++, a += a_row, y += c_row, c += c_row) {
        const vec x = vec_set(*a);
        for (int64_t j = 0; j < whole; j += KLANES) {
            const vec sum = x * vec_load(b + j) + (vec){ 0 }; /* 0 is what a sum begins with: it turns -0 into 0 */
            vec_store(c + j, vec_keep(vec_load(y + j) > (vec){ 0 }, sum * by));
        }
    }
}

/* ---- small: tiles as in tile.c, straight from where the operands lie. The last columns are computed with some before them again, which
 * saves copies at the edge. ---- */

INLINE void piece(const bp_gemm *g, const int rows, const int vecs, int64_t i, int64_t j)
{
    const real *a[TILE_ROWS], *b = (const real *)g->b + j, *const bias = g->bias ? (const real *)g->bias + j : NULL;
    const int64_t a_col = g->a_col, end = g->k * a_col, b_row = g->b_row, c_row = g->c_row;
    const bool relu = g->act == BP_ACT_RELU;
    real *c = (real *)g->c + i * c_row + j;
    vec acc[TILE_ROWS][TILE_VECS];
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) a[r] = (const real *)g->a + (i + r) * g->a_row;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) acc[r][v] = (vec){ 0 };
    for (int64_t o = 0; o != end; o += a_col, b += b_row) {
        vec line[TILE_VECS];
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) line[v] = vec_load(b + v * KLANES);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            const vec x = vec_set(a[r][o]);
#pragma GCC unroll 8
            for (int v = 0; v < vecs; v++) acc[r][v] += x * line[v];
        }
    }
#pragma GCC unroll 8
    for (int v = 0; v < vecs && bias; v++)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) acc[r][v] += vec_load(bias + v * KLANES);
#pragma GCC unroll 8
    for (int r = 0; r < rows && relu; r++)
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) acc[r][v] = vec_keep(~(vec_i)(acc[r][v] <= (vec){ 0 }), acc[r][v]);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++, c += c_row)
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) vec_store(c + v * KLANES, acc[r][v]);
}

INLINE void rows_of(const bp_gemm *g, const int rows, int64_t i)
{
    const int64_t width = TILE_VECS * KLANES;
    int64_t j = 0;
    for (; j + width <= g->n; j += width) piece(g, rows, TILE_VECS, i, j);
    for (; j < g->n; j += KLANES) piece(g, rows, 1, i, j + KLANES <= g->n ? j : g->n - KLANES);
}

static void rows_6(const bp_gemm *g, int64_t i) { rows_of(g, 6, i); }
static void rows_5(const bp_gemm *g, int64_t i) { rows_of(g, 5, i); }
static void rows_4(const bp_gemm *g, int64_t i) { rows_of(g, 4, i); }
static void rows_3(const bp_gemm *g, int64_t i) { rows_of(g, 3, i); }

bool K(gemm_small)(const bp_gemm *g)
{
    if (g->b_col != 1 || g->accumulate || g->n < KLANES || g->m < 3 || g->k < 1 || g->k > MOST_K || g->a_col == 0) return false;
    if (g->n > MOST_WORK / KLANES || g->m > MOST_WORK || g->m * g->n > MOST_WORK / g->k) return false;
    int64_t i = 0, left = g->m;
    for (; left > 10 || left == 6; left -= 6, i += 6) rows_6(g, i);
    for (; left == 10 || left == 5; left -= 5, i += 5) rows_5(g, i);
    for (; left == 8 || left == 4; left -= 4, i += 4) rows_4(g, i);
    if (left == 9) rows_5(g, i), rows_4(g, i + 5);
    if (left == 7) rows_4(g, i), rows_3(g, i + 4);
    if (left == 3) rows_3(g, i);
    return true;
}
