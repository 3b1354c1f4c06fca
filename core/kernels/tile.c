/* tile.c - the micro-kernel: acc[rows][vecs] += row(i)[off[p]] * B[p], one broadcast per row and one load per vector of B in each step.
 *
 * A full tile is 6 rows x 2 vectors where there are 16 vector registers (12 accumulators, 2 of B, 1 or 2 temporaries) and 6 x 4 where
 * there are 32. Twelve independent chains hide the latency of a multiply-add twice over, and 6 + 2 loads feed 12 of them. Lower and
 * narrower tiles are the same code with smaller constants; products of one to three rows take a wider panel to have chains enough, and
 * results one vector wide take eight rows, as many as there are general registers for. */
#include "tile.h"
#include "transpose.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* A statement for each accumulator, acc[i][v]. */
#define EACH_ACC(statement)                                                                                                                \
    _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)                                                                                 \
        _Pragma("GCC unroll 8") for (int v = 0; v < vecs; v++) statement

/* The first n of a few elements, n <= TILE_COLS_MAX, in blocks of powers of two: a call of memcpy would cost more than the tile. */
INLINE void copy_few(real *to, const real *from, int64_t n)
{
    int64_t i = 0;
    for (; i + KLANES <= n; i += KLANES) {
        vec_store(to + i, vec_load(from + i));
        __asm__("" : "+r"(i)); /* or else the loop becomes that call */
    }
#if KLANES > 8
    if (n & 8) __builtin_memcpy(to + i, from + i, 8 * sizeof(real)), i += 8;
#endif
#if KLANES > 4
    if (n & 4) __builtin_memcpy(to + i, from + i, 4 * sizeof(real)), i += 4;
#endif
#if KLANES > 2
    if (n & 2) __builtin_memcpy(to + i, from + i, 2 * sizeof(real)), i += 2;
#endif
    if (n & 1) to[i] = from[i];
}

/* Adds what C holds and the bias, applies the activation, stores. Rows that are narrower than the panel pass through a block of memory; but
 * where they lie one after the other and nothing is added to, what a row stores beyond its end belongs to those that come after it. */
INLINE void finish(const int rows, const int vecs, const tile_panel *t, vec acc[TILE_TALL][TILE_VECS_MAX], real *const *out)
{
    real block[TILE_TALL * TILE_COLS_MAX], *edge[TILE_TALL];
    real *const *c = out;
    const bool narrow = t->cols < vecs * KLANES;
    int first = 0; /* of the rows in the block */
    if (narrow) {
        if (!t->load && out[rows - 1] - out[0] == (rows - 1) * t->cols)
            while ((rows - first) * t->cols >= vecs * KLANES) first++;
        for (int i = 0; i < rows; i++) edge[i] = i < first ? out[i] : block + i * vecs * KLANES;
        c = edge;
        if (t->load) {
            memset(block, 0, (size_t)(rows * vecs) * sizeof(vec));
            for (int i = 0; i < rows; i++) copy_few(edge[i], out[i], t->cols);
        }
    }
    if (t->load) EACH_ACC(acc[i][v] = vec_load(c[i] + v * KLANES) + acc[i][v]);
    if (t->bias) EACH_ACC(acc[i][v] += vec_load(t->bias + v * KLANES));
    if (t->act == BP_ACT_RELU) EACH_ACC(acc[i][v] = vec_keep(~(vec_i)(acc[i][v] <= (vec){ 0 }), acc[i][v])); /* lets NaN through */
    EACH_ACC(vec_store(c[i] + v * KLANES, acc[i][v]));
    if (narrow)
        for (int i = first; i < rows; i++) copy_few(out[i], edge[i], t->cols);
}

/* strip: the rows lie side by side, a step every TILE_ROWS elements, so that one address and no offset is needed. */
INLINE void tile(const int rows, const int vecs, const bool strip, const tile_panel *t, const real *const *row, real *const *out)
{
    vec acc[TILE_TALL][TILE_VECS_MAX];
    const real *a[TILE_TALL];
    EACH_ACC(acc[i][v] = (vec){ 0 });
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++) a[i] = row[i];
    const real *b = t->b;
    const int64_t b_row = t->b_row;
    const int64_t *off = t->off, *end = off + t->k;
    const real *first = a[0], *const last = first + TILE_ROWS * t->k;
    for (; strip ? first < last : off < end; first += TILE_ROWS, off++, b += b_row) {
        const int64_t o = strip ? 0 : *off;
        vec line[TILE_VECS_MAX];
#pragma GCC unroll 8
        for (int v = 0; v < vecs; v++) line[v] = vec_load(b + v * KLANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            const vec x = vec_set(strip ? first[i] : a[i][o]);
#pragma GCC unroll 8
            for (int v = 0; v < vecs; v++) acc[i][v] += x * line[v];
        }
    }
    finish(rows, vecs, t, acc, out);
}

typedef void tile_fn(const tile_panel *t, const real *const *row, real *const *out);

#define TILE(rows, vecs)                                                                                                                   \
    static void tile_##rows##x##vecs(const tile_panel *t, const real *const *row, real *const *out) { tile(rows, vecs, 0, t, row, out); }
/* clang-format off */
TILE(1, 1) TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1) TILE(7, 1) TILE(8, 1)
TILE(1, 2) TILE(2, 2) TILE(3, 2) TILE(4, 2) TILE(5, 2) TILE(6, 2)
TILE(1, 4) TILE(2, 4) TILE(3, 4)
TILE(1, 8)
#if TILE_VECS == 4
TILE(4, 4) TILE(5, 4) TILE(6, 4)
#endif
    /* clang-format on */

    /* By log2 of the width, then rows - 1. */
    static tile_fn *const tiles[4][TILE_TALL] = {
        { tile_1x1, tile_2x1, tile_3x1, tile_4x1, tile_5x1, tile_6x1, tile_7x1, tile_8x1 },
        { tile_1x2, tile_2x2, tile_3x2, tile_4x2, tile_5x2, tile_6x2 },
#if TILE_VECS == 4
        { tile_1x4, tile_2x4, tile_3x4, tile_4x4, tile_5x4, tile_6x4 },
#else
        { tile_1x4, tile_2x4, tile_3x4 },
#endif
        { tile_1x8 },
    };

/* Full tiles whose rows of A lie in a strip. */
/* clang-format off */
#define STRIP(rows, vecs)                                                                                                                  \
    static void strip_##rows##x##vecs(const tile_panel *t, const real *const *row, real *const *out) { tile(rows, vecs, 1, t, row, out); }
#define STRIPS(vecs)                                                                                                                       \
    STRIP(1, vecs) STRIP(2, vecs) STRIP(3, vecs) STRIP(4, vecs) STRIP(5, vecs) STRIP(6, vecs)                                              \
    static tile_fn *const strips[TILE_ROWS] = { strip_1x##vecs, strip_2x##vecs, strip_3x##vecs,                                            \
                                                strip_4x##vecs, strip_5x##vecs, strip_6x##vecs };
#if TILE_VECS == 4
STRIPS(4)
#else
STRIPS(2)
#endif
/* clang-format on */

static void send_for(const tile_panel *t, int64_t from, int64_t until)
{
    for (int64_t i = from; i < until; i++)
        for (int64_t at = 0; at < t->ahead_size; at += 64) __builtin_prefetch(t->ahead + i * t->ahead_row + at, 0, 2);
}

void K(tile_run)(const tile_panel *panel)
{
    const tile_panel *t = panel;
    tile_panel padded;
    real bias[TILE_COLS_MAX];
    if (t->bias && t->cols < t->vecs * KLANES) {
        memset(bias, 0, (size_t)t->vecs * sizeof(vec));
        memcpy(bias, t->bias, (size_t)t->cols * sizeof(real));
        padded = *panel;
        padded.bias = bias;
        t = &padded;
    }
    const int64_t *const a_at = t->a_at, *const c_at = t->c_at, a_row = t->a_row, c_row = t->c_row;
    const real *a = t->a;
    real *c = t->c;
    const int width = t->vecs == 8 ? 3 : t->vecs / 2;
    tile_fn *const *const of_rows = t->strips && t->vecs == TILE_VECS ? strips : tiles[width];
    int64_t most = t->strips ? TILE_ROWS : TILE_TALL;
    while (!of_rows[most - 1]) most--;

    const tile_heights h = tile_heights_of(t->m, most);
    for (int64_t q = 0, i = 0; q < h.count; q++) {
        const int64_t rows = h.height + (q < h.taller);
        if (t->ahead) send_for(t, q * t->pieces / h.count, (q + 1) * t->pieces / h.count);
        const real *row[TILE_TALL];
        real *out[TILE_TALL];
        if (t->strips)
            for (int64_t r = 0; r < rows; r++, c += c_row) {
                row[r] = a + q * TILE_ROWS * t->k + r;
                out[r] = c;
            }
        else if (a_at || c_at)
            for (int64_t r = 0; r < rows; r++) {
                row[r] = t->a + (a_at ? a_at[i + r] : (i + r) * a_row);
                out[r] = t->c + (c_at ? c_at[i + r] : (i + r) * c_row);
            }
        else
            for (int64_t r = 0; r < rows; r++, a += a_row, c += c_row) {
                __asm__("" : "+r"(a), "+r"(c)); /* one by one: these few addresses cost less than vectors of them */
                row[r] = a;
                out[r] = c;
            }
        of_rows[rows - 1](t, row, out);
        i += rows;
    }
}

int K(tile_vecs)(int64_t m, int64_t cols)
{
    const int64_t need = (cols + KLANES - 1) / KLANES;
    const int most = m == 1 ? TILE_VECS_MAX : m <= 3 ? 4 : TILE_VECS;
    int vecs = 1;
    while (2 * vecs <= need && 2 * vecs <= most) vecs *= 2;
    return vecs;
}

/* Columns that are contiguous along p: blocks of KLANES x KLANES are turned over in registers. */
static void pack_columns(real *dst, int64_t width, const real *b, int64_t b_col, int64_t k, int64_t cols)
{
    for (int64_t j = 0; j < cols; j += KLANES) {
        const int64_t left = cols - j;
        int64_t p = 0;
        for (; p + KLANES <= k; p += KLANES) {
            vec r[KLANES];
#pragma GCC unroll 16
            for (int i = 0; i < KLANES; i++) r[i] = i < left ? vec_load(b + (j + i) * b_col + p) : (vec){ 0 };
            vec_transpose(r);
#pragma GCC unroll 16
            for (int i = 0; i < KLANES; i++) vec_store(dst + (p + i) * width + j, r[i]);
        }
        for (; p < k; p++)
            for (int64_t i = 0; i < KLANES && i < left; i++) dst[p * width + j + i] = b[(j + i) * b_col + p];
    }
}

/* Rows narrower than the panel: whole vectors, of which the last reads on into the next row while there is one, and keeps its own. */
static void pack_edge(real *dst, int64_t width, const real *b, int64_t b_row, int64_t k, int64_t cols)
{
    const int64_t whole = cols / KLANES * KLANES, end = (k - 1) * b_row + cols;
    vec_i own;
    for (int l = 0; l < KLANES; l++) own[l] = whole + l < cols ? -1 : 0;
    for (int64_t p = 0; p < k; p++, dst += width) {
        const real *const row = b + p * b_row;
        int64_t j = 0;
        for (; j < whole; j += KLANES) vec_store(dst + j, vec_load(row + j));
        if (p * b_row + whole + KLANES <= end)
            vec_store(dst + j, vec_keep(own, vec_load(row + j)));
        else
            for (; j < whole + KLANES; j++) dst[j] = j < cols ? row[j] : 0;
        for (j = whole + KLANES; j < width; j += KLANES) vec_store(dst + j, (vec){ 0 });
    }
}

void K(tile_pack)(real *dst, int vecs, const real *b, int64_t b_row, int64_t b_col, int64_t k, int64_t cols)
{
    const int64_t width = (int64_t)vecs * KLANES;
    if (cols == width && b_col == 1) {
        for (int64_t p = 0; p < k; p++)
            for (int64_t j = 0; j < width; j += KLANES) vec_store(dst + p * width + j, vec_load(b + p * b_row + j));
        return;
    }
    if (b_col == 1 && b_row >= cols) {
        pack_edge(dst, width, b, b_row, k, cols);
        return;
    }
    if (cols < width) memset(dst, 0, (size_t)(k * width) * sizeof(real));
    if (b_row == 1)
        pack_columns(dst, width, b, b_col, k, cols);
    else
        for (int64_t p = 0; p < k; p++)
            for (int64_t j = 0; j < cols; j++) dst[p * width + j] = b[p * b_row + j * b_col];
}

/* One strip from rows that are contiguous along p: blocks are turned over in registers and stored one step of p after the other. A store
 * reaches beyond its six elements, where the next one writes again; the last of a block do not. */
static int64_t copy_strip(real *dst, const real *a, int64_t a_row, int64_t height, int64_t k)
{
    enum { GROUPS = (TILE_ROWS + KLANES - 1) / KLANES };
    int64_t p = 0;
    for (; p + KLANES <= k; p += KLANES) {
        vec r[GROUPS][KLANES];
#pragma GCC unroll 16
        for (int i = 0; i < GROUPS * KLANES; i++)
            r[i / KLANES][i % KLANES] = i < TILE_ROWS && i < height ? vec_load(a + i * a_row + p) : (vec){ 0 };
#pragma GCC unroll 3
        for (int g = 0; g < GROUPS; g++) vec_transpose(r[g]);
#pragma GCC unroll 16
        for (int q = 0; q < KLANES; q++) {
            real step[GROUPS * KLANES], *const to = dst + (p + q) * TILE_ROWS;
            const bool exact = (KLANES - q) * TILE_ROWS < GROUPS * KLANES;
#pragma GCC unroll 3
            for (int g = 0; g < GROUPS; g++) vec_store((exact ? step : to) + g * KLANES, r[g][q]);
            if (exact) memcpy(to, step, TILE_ROWS * sizeof(real));
        }
    }
    return p;
}

void K(tile_copy)(real *dst, int64_t pitch, const real *a, int64_t a_row, int64_t a_col, int64_t rows, int64_t k)
{
    const tile_heights h = tile_heights_of(rows, TILE_ROWS);
    for (int64_t q = 0; q < h.count; q++, dst += pitch) {
        const int64_t height = h.height + (q < h.taller);
        int64_t p = 0;
        if (a_col == 1)
            p = copy_strip(dst, a, a_row, height, k);
        else if (height == TILE_ROWS && a_row == 1)
            for (; p < k; p++) memcpy(dst + p * TILE_ROWS, a + p * a_col, TILE_ROWS * sizeof(real));
        for (; p < k; p++)
            for (int64_t r = 0; r < height; r++) dst[p * TILE_ROWS + r] = a[r * a_row + p * a_col];
        a += height * a_row;
    }
}
