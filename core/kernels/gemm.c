/* gemm.c - C[m][n] (+)= A[m][k] * B[k][n] (+ bias) (then relu), any strides for A and B.
 *
 *     for each pass over k (at most TILE_K_MAX long)
 *         for each block of rows (all of them, or ROW_BLOCK where A is copied)
 *             for each panel of columns: all tiles of that panel
 *
 * A panel of B (k x 16 on AVX2) stays in the first-level cache while the rows pass by; A comes from the second level, six rows at a time.
 * Operands are read where they lie unless copying repays itself:
 *   B is copied to a packed panel if its columns are not contiguous (dX = dY * W^T), at the right edge, and where its rows are so far apart
 *   that the panel would not stay in the cache, if rows enough will meet it;
 *   A is copied to strips of six rows, k after k, one stream instead of six (or of one per k where A is transposed, dW = X^T * dY), if
 *   panels enough will meet it.
 * Where a product is computed in parts, those beside each other would copy the same of A, those below each other the same of B: the caller
 * may have that copied once for all of them, and then panels of all parts count.
 * With k = 1 nothing is added up: each row of C is the row of B times a number (dX of a single output, dW of a single sample).
 * A result of one column is computed as one row, B^T * A^T, so that its elements lie side by side in vectors.
 * A single row meets every element of B once, which no copy repays: vectors of B go straight from memory into the sums. Where those fit in
 * registers they stay there; a longer row of sums lies in the first-level cache and takes four rows of B at a time, each read from end to
 * end, as memory likes it best.
 * What is packed comes from far away, and multiplications would wait for it: while the panels of a group are multiplied, the memory that
 * will be packed after them is sent for.
 * None of this touches the order of the sum. */
#include "tile.h"
#include "vmath.h"

#define ROW_BLOCK (32 * TILE_ROWS) /* rows of A copied at a time: with TILE_K_MAX floats each, 240 kB */
#define GROUP TILE_COLS_MAX        /* columns of B packed at a time: 80 kB; of AVX-512, 160 kB */
#define ROW_WIDE 2048              /* sums of one row that stay in the first-level cache */
#define NEAR (16 * 1024)           /* bytes that an operand of one tile may be scattered over */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t magnitude(int64_t x) { return x < 0 ? -x : x; }

static bool may_copy_a(const bp_gemm *g) { return g->m > TILE_ROWS && g->n >= 8 * TILE_VECS * KLANES; }

static bool copies_a(const bp_gemm *g)
{
    const int64_t k = tile_k_pass(g->k), reach = g->a_col == 1 ? TILE_ROWS * k : k * magnitude(g->a_col);
    return may_copy_a(g) && reach * (int64_t)sizeof(real) > NEAR / 4;
}

static bool copies_b(const bp_gemm *g)
{
    if (g->b_col != 1) return true;
    return g->m > 3 * TILE_ROWS && tile_k_pass(g->k) * magnitude(g->b_row) * (int64_t)sizeof(real) > NEAR;
}

static bool is_column(const bp_gemm *g) { return g->n == 1 && g->c_row == 1; }

/* A column that needs no panels: rows of A are contiguous, or the elements of its columns are. */
static bool is_easy_column(const bp_gemm *g) { return is_column(g) && (g->a_col == 1 || (g->a_row == 1 && !g->bias)); }

static bool is_row(const bp_gemm *g) { return g->m == 1 && (g->b_col == 1 || g->n == 1); }

/* The same product as one row; bias must then be added to each column alike. */
static bp_gemm turned(const bp_gemm *g)
{
    bp_gemm t = *g;
    t.m = 1, t.n = g->m;
    t.a = g->b, t.a_row = g->b_col, t.a_col = g->b_row;
    t.b = g->a, t.b_row = g->a_col, t.b_col = g->a_row;
    return t;
}

/* Enough for every part of the problem, so that a caller may ask once and cut as it likes. */
size_t K(gemm_scratch)(const bp_gemm *whole)
{
    if (is_row(whole) || is_easy_column(whole)) return 0;
    const bp_gemm row = turned(whole), *g = is_column(whole) ? &row : whole;
    const int64_t k = g->k < TILE_K_MAX ? g->k : TILE_K_MAX;
    const int64_t widest = g->n > g->m ? g->n : g->m; /* a part may be a column, which is turned */
    const int64_t cols = widest < TILE_COLS_MAX ? (widest + KLANES - 1) / KLANES * KLANES : TILE_COLS_MAX;
    return (size_t)((may_copy_a(g) ? tile_copy_size(ROW_BLOCK, k) : 0) + k * cols) * sizeof(real);
}

/* Packs steps p..p+steps-1 of k of the panels that cover cols columns from b on, one panel after the other, for products of m rows. */
static void pack_steps(const bp_gemm *g, int64_t m, real *dst, const real *b, int64_t k, int64_t p, int64_t steps, int64_t cols)
{
    for (int64_t j = 0; j < cols;) {
        const int vecs = K(tile_vecs)(m, cols - j);
        const int64_t width = (int64_t)vecs * KLANES, here = cols - j < width ? cols - j : width;
        K(tile_pack)(dst + j * k + p * width, vecs, b + p * g->b_row + j * g->b_col, g->b_row, g->b_col, steps, here);
        j += width;
    }
}

/* All of k. Where the rows of B are contiguous a few of them are finished for all panels before the next: a row of several cache lines
 * costs little more than one line of it. */
static void pack_group(const bp_gemm *g, real *dst, const real *b, int64_t k, int64_t cols)
{
    const int64_t some = g->b_col == 1 ? 32 : k;
    for (int64_t p = 0; p < k; p += some) pack_steps(g, g->m, dst, b, k, p, smaller(some, k - p), cols);
}

/* Sends, while t runs, for what pack_group reads of a block of B, its share of `all` columns from `first` to `end`. */
static void look_ahead(tile_panel *t, const bp_gemm *g, const real *b, int64_t k, int64_t cols, int64_t first, int64_t end, int64_t all)
{
    const bool across = g->b_col == 1;
    if (!across && g->b_row != 1) return;
    const int64_t pieces = across ? k : cols, begin = pieces * first / all;
    t->ahead_row = (across ? g->b_row : g->b_col) * (int64_t)sizeof(real);
    t->ahead_size = (across ? cols : k) * (int64_t)sizeof(real);
    t->ahead = (const char *)b + begin * t->ahead_row;
    t->pieces = pieces * end / all - begin;
}

/* The same for the group that is packed after that of the columns from..until-1 in the pass at p. */
static void look_beyond(tile_panel *t, const bp_gemm *g, int64_t p, int64_t pass, int64_t from, int64_t until, int64_t first, int64_t end)
{
    const real *const b = (const real *)g->b;
    const int64_t next = p + pass, k = g->k - p < pass ? g->k - p : pass;
    if (until < g->n)
        look_ahead(t, g, b + p * g->b_row + until * g->b_col, k, smaller(GROUP, g->n - until), first - from, end - from, until - from);
    else if (next < g->k)
        look_ahead(t, g, b + next * g->b_row, smaller(pass, g->k - next), smaller(GROUP, g->n), first - from, end - from, until - from);
    else if (g->beside)
        look_ahead(t, g, b + g->n * g->b_col, smaller(pass, g->k), smaller(GROUP, g->beside), first - from, end - from, until - from);
}

static bool is_outer(const bp_gemm *g) { return g->k == 1 && g->b_col == 1 && !g->bias && g->act == BP_ACT_NONE && !g->accumulate; }

/* ---- copies that parts of a product share: one pass after the other, the strips or panels of each ---- */

static int64_t whole_vectors(int64_t cols) { return (cols + KLANES - 1) / KLANES * KLANES; }

size_t K(gemm_copy_size)(const bp_gemm *whole, bool right)
{
    if (is_outer(whole) || is_row(whole) || is_column(whole)) return 0;
    if (right) return copies_b(whole) ? (size_t)(whole_vectors(whole->n) * whole->k) * sizeof(real) : 0;
    return copies_a(whole) ? (size_t)tile_copy_size(whole->m, whole->k) * sizeof(real) : 0;
}

void K(gemm_copy)(const bp_gemm *g, bool right, void *copy, int64_t first, int64_t count)
{
    const int64_t pass = tile_k_pass(g->k), end = first + count;
    while (first < end) {
        const int64_t at = first % pass, p = first - at, k = smaller(pass, g->k - p), steps = smaller(end, p + k) - first;
        real *const to = (real *)copy + (right ? whole_vectors(g->n) * p : tile_copy_size(g->m, p));
        const real *const a = (const real *)g->a + first * g->a_col;
        if (right) pack_steps(g, TILE_ROWS, to, (const real *)g->b + p * g->b_row, k, at, steps, g->n);
        for (int64_t i = 0; !right && i < g->m; i += ROW_BLOCK) {
            real *const strips = to + i * k + at * TILE_ROWS;
            K(tile_copy)(strips, TILE_ROWS * k, a + i * g->a_row, g->a_row, g->a_col, smaller(ROW_BLOCK, g->m - i), steps);
        }
        first += steps;
    }
}

/* ---- special shapes ---- */

/* The 0 is what a sum begins with: it turns a product of -0 into 0, as in a tile. */
static void outer(const bp_gemm *g)
{
    const real *const b = (const real *)g->b;
    for (int64_t i = 0; i < g->m; i++) {
        const real x = ((const real *)g->a)[i * g->a_row];
        const vec all = vec_set(x);
        real *const c = (real *)g->c + i * g->c_row;
        for (int64_t j = 0; j < g->n - KLANES; j += KLANES) vec_store(c + j, all * vec_load(b + j) + (vec){ 0 });
        const int64_t last = g->n - KLANES; /* a whole vector, that may cover a part of the one before */
        if (last >= 0) vec_store(c + last, all * vec_load(b + last) + (vec){ 0 });
        for (int64_t j = 0; last < 0 && j < g->n; j++) c[j] = x * b[j] + 0;
    }
}

/* a * b + c rounded as a tile rounds it. Said outright, because a compiler that turns the loop around it into multiplications side by side
 * and additions one after the other would round twice. */
static inline real multiply_add(real a, real b, real c)
{
#if defined(__FP_FAST_FMAF)
    return VMATH_DOUBLE ? (real)__builtin_fma((double)a, (double)b, (double)c) : (real)__builtin_fmaf((float)a, (float)b, (float)c);
#else
    return a * b + c;
#endif
}

/* Where a sum of one pass goes: on top of what C holds, then bias and activation, as in a tile. */
#define FINISH(sum, old, bias_at)                                                                                                          \
    if (load) sum = (old) + sum;                                                                                                           \
    if (bias) sum += (bias_at)

/* vecs vectors of C from column j on, p0 <= p < p1. */
static inline __attribute__((always_inline)) void row_piece(const bp_gemm *g, const int vecs, int64_t j, int64_t p0, int64_t p1)
{
    const real *const a = (const real *)g->a, *b = (const real *)g->b + p0 * g->b_row + j;
    const real *const bias = g->bias && p1 == g->k ? (const real *)g->bias + j : NULL;
    const bool load = g->accumulate || p0 > 0, relu = g->act == BP_ACT_RELU && p1 == g->k;
    real *const c = (real *)g->c + j;
    vec acc[TILE_VECS_MAX];
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) acc[v] = (vec){ 0 };
    for (int64_t p = p0; p < p1; p++, b += g->b_row) {
        const vec x = vec_set(a[p * g->a_col]);
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) acc[v] += x * vec_load(b + v * KLANES);
    }
#pragma GCC unroll 8
    for (int v = 0; v < vecs; v++) {
        FINISH(acc[v], vec_load(c + v * KLANES), vec_load(bias + v * KLANES));
        if (relu) acc[v] = vec_keep(~(vec_i)(acc[v] <= (vec){ 0 }), acc[v]);
        vec_store(c + v * KLANES, acc[v]);
    }
}

/* The same for as many vectors as there are, at most ROW_WIDE elements. */
static void row_wide(const bp_gemm *g, int64_t cols, int64_t j, int64_t p0, int64_t p1)
{
    const real *const a = (const real *)g->a, *b = (const real *)g->b + p0 * g->b_row + j;
    const real *const bias = g->bias && p1 == g->k ? (const real *)g->bias + j : NULL;
    const bool load = g->accumulate || p0 > 0, relu = g->act == BP_ACT_RELU && p1 == g->k;
    real *const c = (real *)g->c + j, sums[ROW_WIDE];
    for (int64_t v = 0; v < cols; v += KLANES) vec_store(sums + v, (vec){ 0 });
    int64_t p = p0;
    for (; p + 4 <= p1; p += 4, b += 4 * g->b_row) {
        vec x[4];
        for (int i = 0; i < 4; i++) x[i] = vec_set(a[(p + i) * g->a_col]);
        for (int64_t v = 0; v < cols; v += KLANES) {
            vec sum = vec_load(sums + v);
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) sum += x[i] * vec_load(b + i * g->b_row + v);
            vec_store(sums + v, sum);
        }
    }
    for (; p < p1; p++, b += g->b_row) {
        const vec x = vec_set(a[p * g->a_col]);
        for (int64_t v = 0; v < cols; v += KLANES) vec_store(sums + v, vec_load(sums + v) + x * vec_load(b + v));
    }
    for (int64_t v = 0; v < cols; v += KLANES) {
        vec sum = vec_load(sums + v);
        FINISH(sum, vec_load(c + v), vec_load(bias + v));
        if (relu) sum = vec_keep(~(vec_i)(sum <= (vec){ 0 }), sum);
        vec_store(c + v, sum);
    }
}

/* The same where fewer columns are left than a vector has lanes. Whole vectors as long as they end inside B: what the lanes beyond hold
 * belongs to other elements and is dropped. */
static void row_edge(const bp_gemm *g, int64_t j, int64_t p0, int64_t p1)
{
    const real *const a = (const real *)g->a, *b = (const real *)g->b + p0 * g->b_row + j;
    const bool load = g->accumulate || p0 > 0, last = p1 == g->k;
    const real *const bias = g->bias && last ? (const real *)g->bias + j : NULL;
    real *const c = (real *)g->c + j;
    real sums[KLANES] = { 0 };
    const int64_t lanes = g->n - j;
    int64_t p = p0;
    if (lanes > 1) {
        const int64_t room = (g->k - 1) * g->b_row + g->n - KLANES - j; /* where the last whole vector may begin */
        vec sum = { 0 };
        for (; p < p1 && p * g->b_row <= room; p++, b += g->b_row) sum += vec_set(a[p * g->a_col]) * vec_load(b);
        vec_store(sums, sum);
    }
    for (int64_t l = 0; l < lanes; l++) {
        real sum = sums[l];
        const real *at = b + l;
        for (int64_t q = p; q < p1; q++, at += g->b_row) sum = multiply_add(a[q * g->a_col], *at, sum);
        FINISH(sum, c[l], bias[l]);
        c[l] = last && g->act == BP_ACT_RELU && sum <= 0 ? 0 : sum;
    }
}

static void one_row(const bp_gemm *g)
{
    const int64_t pass = tile_k_pass(g->k);
    int64_t p0 = 0;
    do {
        const int64_t p1 = g->k - p0 < pass ? g->k : p0 + pass;
        int64_t j = 0;
        while (g->n - j >= 16 * KLANES) {
            const int64_t cols = g->n - j < ROW_WIDE ? (g->n - j) / KLANES * KLANES : ROW_WIDE;
            row_wide(g, cols, j, p0, p1);
            j += cols;
        }
        for (; j + 8 * KLANES <= g->n; j += 8 * KLANES) row_piece(g, 8, j, p0, p1);
        if (j + 4 * KLANES <= g->n) row_piece(g, 4, j, p0, p1), j += 4 * KLANES;
        if (j + 2 * KLANES <= g->n) row_piece(g, 2, j, p0, p1), j += 2 * KLANES;
        if (j + KLANES <= g->n) row_piece(g, 1, j, p0, p1), j += KLANES;
        if (j < g->n) row_edge(g, j, p0, p1);
        p0 = p1;
    } while (p0 < g->k);
}

/* bias_step 0: one element of bias for all columns, repeated TILE_COLS_MAX times. */
static void multiply(const bp_gemm *g, int64_t bias_step, void *scratch)
{
    const bool copy = !g->a_copy && copies_a(g), strips = copy || g->a_copy, pack = !g->b_copy && copies_b(g);
    const int64_t pass = tile_k_pass(g->k), row_block = strips ? ROW_BLOCK : g->m, panel_rows = g->b_copy ? TILE_ROWS : g->m;
    real *const a_copy = (real *)scratch, *const b_copy = a_copy + (copy ? tile_copy_size(ROW_BLOCK, pass) : 0);

    int64_t off[TILE_K_MAX];
    const int64_t step = strips ? TILE_ROWS : g->a_col;
    for (int64_t p = 0, at = 0; p < pass; p++, at += step) off[p] = at;

    int64_t p = 0;
    do {
        const int64_t k = g->k - p < pass ? g->k - p : pass;
        const bool last = p + k == g->k;
        for (int64_t i = 0; i < g->m; i += row_block) {
            const int64_t rows = g->m - i < row_block ? g->m - i : row_block;
            const real *a = (const real *)g->a + i * g->a_row + p * g->a_col;
            if (copy) {
                K(tile_copy)(a_copy, TILE_ROWS * k, a, g->a_row, g->a_col, rows, k);
                a = a_copy;
            }
            if (g->a_copy) a = (const real *)g->a_copy + tile_copy_size(g->m, p) + i * k;
            for (int64_t j = 0; j < g->n;) {
                const int vecs = K(tile_vecs)(panel_rows, g->n - j);
                const int64_t width = (int64_t)vecs * KLANES, cols = g->n - j < width ? g->n - j : width, in_group = j % GROUP;
                const real *b = (const real *)g->b + p * g->b_row + j * g->b_col;
                const bool packed = pack || g->b_copy || cols < width;
                const real *panel = b_copy + in_group * k;
                if (pack && in_group == 0)
                    pack_group(g, b_copy, b, k, g->n - j < GROUP ? g->n - j : GROUP);
                else if (g->b_copy)
                    panel = (const real *)g->b_copy + whole_vectors(g->n) * p + j * k;
                else if (!pack && packed)
                    K(tile_pack)(b_copy + in_group * k, vecs, b, g->b_row, g->b_col, k, cols);
                tile_panel t = {
                    .m = rows,
                    .k = k,
                    .cols = cols,
                    .a = a,
                    .a_row = g->a_row,
                    .strips = strips,
                    .off = off,
                    .b = packed ? panel : b,
                    .b_row = packed ? width : g->b_row,
                    .vecs = vecs,
                    .c = (real *)g->c + i * g->c_row + j,
                    .c_row = g->c_row,
                    .bias = g->bias && last ? (const real *)g->bias + j * bias_step : NULL,
                    .act = last ? g->act : BP_ACT_NONE,
                    .load = g->accumulate || p > 0,
                };
                if (pack && i + rows == g->m) look_beyond(&t, g, p, pass, j - in_group, smaller(g->n, j - in_group + GROUP), j, j + cols);
                K(tile_run)(&t);
                j += width;
            }
        }
        p += pass;
    } while (p < g->k);
}

void K(gemm)(const bp_gemm *g, void *scratch)
{
    if (is_outer(g)) {
        outer(g);
        return;
    }
    if (is_row(g)) {
        one_row(g);
        return;
    }
    if (!is_column(g)) {
        multiply(g, 1, scratch);
        return;
    }
    if (g->a_col == 1) {
        K(gemm_column)(g);
        return;
    }
    bp_gemm row = turned(g);
    if (is_easy_column(g)) {
        one_row(&row);
        return;
    }
    real bias[TILE_COLS_MAX];
    if (g->bias) {
        for (int j = 0; j < TILE_COLS_MAX; j++) bias[j] = *(const real *)g->bias;
        row.bias = bias;
    }
    multiply(&row, 0, scratch);
}
