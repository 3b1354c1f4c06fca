/* attention.c - scaled dot-product attention of one head (Vaswani et al., "Attention is all you need", 2017), some queries at a time.
 *
 *     S = scale * Q K^T     P = softmax(S) along the keys     Y = drop(P) V
 *
 * Query i sees the keys 0..count(i)-1: the first `keys` of them, and none after i if causal. S and P of a block of queries lie in scratch,
 * [block][keys], small enough for the second-level cache; of P nothing is kept but lse_i = log(sum_j exp(S_ij)), from which the gradient
 * makes it again (Dao et al., "FlashAttention", 2022, without the running maximum: a row of keys is whole). With D = drop(dY V^T),
 *
 *     dV += drop(P)^T dY    dS = P * (D - sum_j P_ij D_ij)    dQ = scale * dS K    dK += scale * dS^T Q
 *
 * A query that sees no key gives 0. Blocks of queries are cut by shape alone; the products are those of gemm.c. */
#include "vmath.h"

#include <string.h>

enum {
    BLOCK = 32 * 1024, /* elements of S in a block: 128 kB of floats */
    FEWEST = 24,       /* queries of a block */
    MOST = 192,
    CAUSAL = 48, /* the most if causal: the triangle that is not looked at is cut away block by block */
};

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Elements from row to row of S: whole vectors, the last of which may stick out. */
static int64_t width(const bp_attention *s) { return (s->tk + KLANES - 1) / KLANES * KLANES; }

int64_t K(attention_block)(const bp_attention *s)
{
    const int64_t w = width(s) > 0 ? width(s) : 1, fit = BLOCK / w / 6 * 6, most = s->causal ? CAUSAL : MOST;
    return fit < FEWEST ? FEWEST : smaller(fit, most);
}

/* Keys that query i sees. */
static int64_t count_of(const bp_attention *s, int64_t i) { return s->causal ? smaller(s->keys, i + 1) : s->keys; }

static bp_gemm scores(const bp_attention *s, const void *a, int64_t a_row, const void *b, int64_t b_row, int64_t depth, int64_t i0,
                      int64_t rows, int64_t n, real *c)
{
    return (bp_gemm){ .m = rows,
                      .n = n,
                      .k = depth,
                      .a = (const real *)a + i0 * a_row,
                      .a_row = a_row,
                      .a_col = 1,
                      .b = b,
                      .b_row = 1,
                      .b_col = b_row,
                      .c = c,
                      .c_row = width(s) };
}

/* C[m][n] (+)= A[m][k] B[k][n], columns of A a_col apart */
static void multiply(int64_t m, int64_t n, int64_t k, const real *a, int64_t a_row, int64_t a_col, const void *b, int64_t b_row, real *c,
                     int64_t c_row, bool accumulate, void *scratch)
{
    const bp_gemm g = { .m = m,
                        .n = n,
                        .k = k,
                        .a = a,
                        .a_row = a_row,
                        .a_col = a_col,
                        .b = b,
                        .b_row = b_row,
                        .b_col = 1,
                        .c = c,
                        .c_row = c_row,
                        .accumulate = accumulate };
    K(gemm)(&g, scratch);
}

/* Scratch of the products: the largest that any of them may ask for. */
static size_t product_scratch(const bp_attention *s)
{
    const int64_t block = K(attention_block)(s), deep = s->d > s->dv ? s->d : s->dv;
    const int64_t m[3] = { block, block, s->tk }, n[3] = { s->tk, deep, deep }, k[3] = { deep, s->tk, block };
    size_t most = 0;
    for (int i = 0; i < 3; i++)
        for (int turned = 0; turned < 2; turned++) {
            const bp_gemm g = { .m = m[i],
                                .n = n[i],
                                .k = k[i],
                                .a_row = turned ? 1 : k[i],
                                .a_col = turned ? m[i] : 1,
                                .b_row = turned ? 1 : n[i],
                                .b_col = turned ? k[i] : 1,
                                .c_row = n[i] };
            const size_t bytes = K(gemm_scratch)(&g);
            if (bytes > most) most = bytes;
        }
    return (most + 63) / 64 * 64;
}

static size_t block_bytes(const bp_attention *s) { return ((size_t)(K(attention_block)(s) * width(s)) * sizeof(real) + 63) / 64 * 64; }

size_t K(attention_scratch)(const bp_attention *s, bool gradient)
{
    const int blocks = gradient ? 2 + (s->p > 0) : 1;
    return product_scratch(s) + (size_t)blocks * block_bytes(s);
}

/* x[from..to-1] = value, at most two vectors at the end of a row's keys, or the triangle beyond the diagonal */
static void fill(real *x, int64_t from, int64_t to, real value)
{
    for (int64_t j = from; j < to; j++) x[j] = value;
}

/* S -> exp(scale * (S - max S)) within the row's keys, 0 behind them up to `end` (whole vectors). Gives scale * max S and the sum. */
static void exponentials(real *x, int64_t count, int64_t end, real scale, real *top, real *sum)
{
    *top = 0, *sum = 1;
    if (count <= 0) {
        fill(x, 0, end, 0);
        return;
    }
    fill(x, count, end, -VEC_INF);
    vec most = vec_load(x), all = { 0 };
    const int64_t stop = (count + KLANES - 1) / KLANES * KLANES;
    for (int64_t j = KLANES; j < stop; j += KLANES) most = vec_max(vec_load(x + j), most);
    most = vec_across_max(most);
    for (int64_t j = 0; j < stop; j += KLANES) {
        const vec e = vec_exp_below((vec_load(x + j) - most) * scale);
        all += e;
        vec_store(x + j, e);
    }
    fill(x, stop, end, 0);
    *top = most[0] * scale;
    *sum = vec_across_sum(all)[0];
}

static void drop(const bp_attention *s, int64_t i, int64_t n, const real *x, real *y)
{
    K(dropout)(n, s->key, s->step, s->first + (uint64_t)(i * s->tk), s->p, x, y);
}

void K(attention)(const bp_attention *s, int64_t i0, int64_t i1, void *scratch)
{
    real *const weights = (real *)scratch;
    void *const room = (char *)scratch + block_bytes(s);
    const int64_t block = K(attention_block)(s), w = width(s);
    for (int64_t at = i0; at < i1; at += block) {
        const int64_t rows = smaller(block, i1 - at), n = count_of(s, at + rows - 1), end = (n + KLANES - 1) / KLANES * KLANES;
        real sum[MOST + KLANES], top[MOST + KLANES]; /* the last vector may stick out */
        if (n > 0) {
            const bp_gemm g = scores(s, s->q, s->q_row, s->k, s->k_row, s->d, at, rows, n, weights);
            K(gemm)(&g, room);
        }
        for (int64_t r = 0; r < rows; r++) {
            real *const x = weights + r * w;
            exponentials(x, count_of(s, at + r), end, (real)s->scale, top + r, sum + r);
            if (s->p > 0) drop(s, at + r, n, x, x);
        }
        for (int64_t r = 0; r < rows; r += KLANES) {
            const vec all = vec_load(sum + r);
            vec_store(top + r, vec_load(top + r) + vec_log(all));
            vec_store(sum + r, 1 / all);
        }
        memcpy((real *)s->lse + at, top, (size_t)rows * sizeof(real));
        real *const y = (real *)s->y + at * s->y_row;
        multiply(rows, s->dv, n, weights, w, 1, s->v, s->v_row, y, s->y_row, false, room);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t j = 0; j < s->dv; j++) y[r * s->y_row + j] *= sum[r];
    }
}

/* exp(scale * S - lse), 0 behind the row's keys */
static void weights_again(real *x, int64_t count, int64_t end, real scale, real lse)
{
    const int64_t stop = (count + KLANES - 1) / KLANES * KLANES;
    fill(x, count, stop, -VEC_INF);
    for (int64_t j = 0; j < stop; j += KLANES) vec_store(x + j, vec_exp_below(vec_load(x + j) * scale - lse));
    fill(x, stop, end, 0);
}

/* D -> scale * P * (D - sum P D) */
static void back_through_softmax(const real *weights, real *d, int64_t end, real scale)
{
    vec sum = { 0 };
    for (int64_t j = 0; j < end; j += KLANES) sum += vec_load(weights + j) * vec_load(d + j);
    const vec s = vec_across_sum(sum);
    for (int64_t j = 0; j < end; j += KLANES) vec_store(d + j, vec_load(weights + j) * (vec_load(d + j) - s) * scale);
}

void K(attention_grad)(const bp_attention *s, void *scratch)
{
    const int64_t block = K(attention_block)(s), w = width(s);
    real *const weights = (real *)scratch, *const d = (real *)(void *)((char *)scratch + block_bytes(s));
    real *const dropped = s->p > 0 ? (real *)(void *)((char *)scratch + 2 * block_bytes(s)) : weights;
    void *const room = (char *)scratch + (size_t)(s->p > 0 ? 3 : 2) * block_bytes(s);
    real *const dk = (real *)s->dk, *const dv = (real *)s->dv_;
    for (int64_t j = 0; j < s->tk; j++) {
        memset(dk + j * s->k_row, 0, (size_t)s->d * sizeof(real));
        memset(dv + j * s->v_row, 0, (size_t)s->dv * sizeof(real));
    }
    for (int64_t at = 0; at < s->tq; at += block) {
        const int64_t rows = smaller(block, s->tq - at), n = count_of(s, at + rows - 1), end = (n + KLANES - 1) / KLANES * KLANES;
        const real *const dy = (const real *)s->dy + at * s->y_row;
        bp_gemm g = scores(s, s->q, s->q_row, s->k, s->k_row, s->d, at, rows, n, weights);
        if (n > 0) K(gemm)(&g, room);
        for (int64_t r = 0; r < rows; r++) {
            real *const x = weights + r * w;
            weights_again(x, count_of(s, at + r), end, (real)s->scale, ((const real *)s->lse)[at + r]);
            if (s->p > 0) drop(s, at + r, n, x, dropped + r * w);
        }
        if (n > 0) {
            multiply(n, s->dv, rows, dropped, 1, w, dy, s->y_row, dv, s->v_row, true, room);
            g = scores(s, s->dy, s->y_row, s->v, s->v_row, s->dv, at, rows, n, d);
            K(gemm)(&g, room);
        }
        for (int64_t r = 0; r < rows; r++) {
            real *const x = d + r * w;
            if (s->p > 0) drop(s, at + r, n, x, x);
            fill(x, n, end, 0);
            back_through_softmax(weights + r * w, x, end, (real)s->scale);
        }
        multiply(rows, s->d, n, d, w, 1, s->k, s->k_row, (real *)s->dq + at * s->q_row, s->q_row, false, room);
        if (n > 0) multiply(n, s->d, rows, d, 1, w, (const real *)s->q + at * s->q_row, s->q_row, dk, s->k_row, true, room);
    }
}
