/* winograd.c - 3x3 convolutions of stride 1 with a quarter of the multiplications: F(4x4, 3x3).
 *
 * Toom and Cook: a product of polynomials is their values at points, multiplied point by point, and interpolated. Turned over (Winograd
 * 1980; Lavin and Gray 2016), with the six points 0, a, -a, b, -b and infinity, per axis:
 *
 *     y[4] = A^T ((G w[3]) * (B^T x[6]))        dw[3] = C^T ((H dy[4]) * (B^T x[6]))
 *
 *     B^T rows are the coefficients of prod over l != j of (t - p_l), the last one of prod over all l; A and C hold powers of the points,
 *     H too; G holds powers divided by N_j = prod over l != j of (p_j - p_l). What H should be divided by is left to C, which meets a sum
 *     over all tiles only once.
 *
 * In two dimensions that is done along columns, then along rows: a tile of 4x4 results costs 36 products per pair of channels, not 144. The
 * products of one position e of the 36 over tiles t, channels c and features o are a matrix product:
 *
 *     forward, input gradient    M[e][t][o] = sum over c of V[e][t][c] * U[e][c][o]      V = B^T x B, U = G w G^T
 *     weight gradient            S[e][c][o] = sum over t of V[e][t][c] * D[e][t][o]      D = H dy H^T
 *
 * The input gradient is the forward one over dy with the weights turned by 180 degrees and transposed. Tiles at the edge read zeros beside
 * the image and keep only results inside. They are taken in blocks whose V stays in the second-level cache; M exists for one panel of
 * columns and so few tiles at a time that it stays in the first-level cache. While products run, the pixels of the next block are sent for.
 * An element is the same chain of operations in whatever block its tile lies.
 *
 * The points a = 11/16, b = 3/2 keep the matrices near 1 and are exact in binary, as are their squares. Rounding is then about twice that
 * of the plain sum (tests/c/test_winograd.c measures it); a = 1, b = 2, found in many texts, has twice that again and worse outliers. */
#include "carve.h"
#include "vmath.h"
#include "winograd_products.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { OUT = 4, TAPS = 3, APART = 16, STRIP = 8 };

#define A ((real)0.6875)
#define B ((real)1.5)
#define A2 ((real)(0.6875 * 0.6875))
#define B2 ((real)(1.5 * 1.5))
#define A2B2 ((real)(0.6875 * 0.6875 * 1.5 * 1.5))
#define A2_B2 ((real)(0.6875 * 0.6875 + 1.5 * 1.5))
/* 1 / N_j */
#define N0 ((real)(1 / (0.6875 * 0.6875 * 1.5 * 1.5)))
#define NA ((real)(1 / (2 * 0.6875 * 0.6875 * (0.6875 * 0.6875 - 1.5 * 1.5))))
#define NB ((real)(1 / (2 * 1.5 * 1.5 * (1.5 * 1.5 - 0.6875 * 0.6875))))

/* ---- one axis ---- */

/* B^T */
INLINE void input_axis(const vec d[POINTS], vec r[POINTS])
{
    const vec even_a = d[4] - B2 * d[2], odd_a = d[3] - B2 * d[1], even_b = d[4] - A2 * d[2], odd_b = d[3] - A2 * d[1];
    r[0] = (d[4] + A2B2 * d[0]) - A2_B2 * d[2];
    r[1] = even_a + A * odd_a;
    r[2] = even_a - A * odd_a;
    r[3] = even_b + B * odd_b;
    r[4] = even_b - B * odd_b;
    r[5] = (d[5] + A2B2 * d[1]) - A2_B2 * d[3];
}

/* A^T */
INLINE void output_axis(const vec m[POINTS], vec r[OUT])
{
    const vec sum_a = m[1] + m[2], minus_a = m[1] - m[2], sum_b = m[3] + m[4], minus_b = m[3] - m[4];
    r[0] = m[0] + sum_a + sum_b;
    r[1] = A * minus_a + B * minus_b;
    r[2] = A2 * sum_a + B2 * sum_b;
    r[3] = (m[5] + A2 * A * minus_a) + B2 * B * minus_b;
}

/* G */
INLINE void weight_axis(const vec w[TAPS], vec r[POINTS])
{
    const vec even_a = NA * (w[0] + A2 * w[2]), odd_a = (NA * A) * w[1], even_b = NB * (w[0] + B2 * w[2]), odd_b = (NB * B) * w[1];
    r[0] = N0 * w[0];
    r[1] = even_a + odd_a;
    r[2] = even_a - odd_a;
    r[3] = even_b + odd_b;
    r[4] = even_b - odd_b;
    r[5] = w[2];
}

/* H */
INLINE void gradient_axis(const vec g[OUT], vec r[POINTS])
{
    const vec even_a = g[0] + A2 * g[2], odd_a = g[1] + A2 * g[3], even_b = g[0] + B2 * g[2], odd_b = g[1] + B2 * g[3];
    r[0] = g[0];
    r[1] = even_a + A * odd_a;
    r[2] = even_a - A * odd_a;
    r[3] = even_b + B * odd_b;
    r[4] = even_b - B * odd_b;
    r[5] = g[3];
}

/* C^T */
INLINE void sum_axis(const vec m[POINTS], vec r[TAPS])
{
    const vec sum_a = NA * (m[1] + m[2]), minus_a = (NA * A) * (m[1] - m[2]), sum_b = NB * (m[3] + m[4]),
              minus_b = (NB * B) * (m[3] - m[4]);
    r[0] = N0 * m[0] + sum_a + sum_b;
    r[1] = minus_a + minus_b;
    r[2] = (m[5] + A2 * sum_a) + B2 * sum_b;
}

/* ---- both axes ---- */

INLINE vec load_lanes(const real *p, int lanes) { return lanes == KLANES ? vec_load(p) : vec_load_some(p, 1, lanes); }
INLINE void store_lanes(real *p, int lanes, vec v)
{
    if (lanes == KLANES)
        vec_store(p, v);
    else
        vec_store_some(p, 1, lanes, v);
}

/* Transforms of tiles side by side: first the pixels of each column, which neighbours share, then for each tile its rows. `row` are the n
 * rows of pixels of one vector of channels from the first tile's first column on, NULL for zeros; columns before `from` or from `until` on
 * are zeros too. A tile's cells are `cell` apart, tiles are `apart`. */
INLINE void transform_strip(const int n, const int lanes, const real *const *row, int64_t pixel, int64_t tiles, int64_t from, int64_t until,
                            real *to, int64_t cell, int64_t apart)
{
    vec half[POINTS][STRIP * OUT + POINTS - OUT];
    const int64_t columns = tiles * OUT + n - OUT;
    for (int64_t j = 0; j < columns; j++) {
        vec d[POINTS], r[POINTS];
        const bool inside = j >= from && j < until;
#pragma GCC unroll 6
        for (int i = 0; i < n; i++) d[i] = inside && row[i] ? load_lanes(row[i] + j * pixel, lanes) : (vec){ 0 };
        if (n == POINTS)
            input_axis(d, r);
        else
            gradient_axis(d, r);
#pragma GCC unroll 6
        for (int i = 0; i < POINTS; i++) half[i][j] = r[i];
    }
    for (int64_t t = 0; t < tiles; t++, to += apart)
#pragma GCC unroll 1
        for (int i = 0; i < POINTS; i++) {
            vec r[POINTS];
            if (n == POINTS)
                input_axis(half[i] + t * OUT, r);
            else
                gradient_axis(half[i] + t * OUT, r);
#pragma GCC unroll 6
            for (int j = 0; j < POINTS; j++) vec_store(to + (i * POINTS + j) * cell, r[j]);
        }
}

/* Taps `tap` apart; turned: the last one first. */
INLINE void weight_tile(const int lanes, const real *w, int64_t tap, bool turned, real *to, int64_t cell)
{
    vec half[POINTS][TAPS];
#pragma GCC unroll 3
    for (int j = 0; j < TAPS; j++) {
        vec d[TAPS], r[POINTS];
#pragma GCC unroll 3
        for (int i = 0; i < TAPS; i++) d[i] = load_lanes(w + (turned ? 8 - (i * TAPS + j) : i * TAPS + j) * tap, lanes);
        weight_axis(d, r);
#pragma GCC unroll 6
        for (int i = 0; i < POINTS; i++) half[i][j] = r[i];
    }
#pragma GCC unroll 1
    for (int i = 0; i < POINTS; i++, to += POINTS * cell) {
        vec r[POINTS];
        weight_axis(half[i], r);
#pragma GCC unroll 6
        for (int j = 0; j < POINTS; j++) vec_store(to + j * cell, r[j]);
    }
}

/* ---- what forward and input gradient differ in ---- */

typedef struct plan {
    int64_t n, h, w, c; /* source */
    int64_t oh, ow, oc; /* result */
    int64_t ph, pw;     /* zeros before the source; negative: rows never read */
    int64_t rows, cols; /* of tiles */
} plan;

static plan plan_of(const bp_conv_shape *s, bool gradient)
{
    plan p = { .n = s->n, .h = s->h, .w = s->w, .c = s->c, .oh = s->oh, .ow = s->ow, .oc = s->oc, .ph = s->ph, .pw = s->pw };
    if (gradient)
        p = (plan){ s->n, .h = s->oh, .w = s->ow, .c = s->oc, .oh = s->h, .ow = s->w, .oc = s->c, .ph = 2 - s->ph, .pw = 2 - s->pw };
    p.rows = (p.oh + OUT - 1) / OUT;
    p.cols = (p.ow + OUT - 1) / OUT;
    return p;
}

static int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Channels in whole vectors. */
static int64_t whole(int64_t channels) { return (channels + KLANES - 1) / KLANES * KLANES; }

/* Tiles of a block: V, or V and D, stay in the second-level cache beside U or S. */
static int64_t tiles_within(int64_t bytes, int64_t channels)
{
    const int64_t fit = bytes / (int64_t)sizeof(real) / (CELLS * whole(channels)) / TILE_ROWS * TILE_ROWS;
    return smaller(greater(fit, 2 * TILE_ROWS), 8 * TILE_ROWS);
}
static int64_t block_of(const plan *p) { return tiles_within(KLANES > 8 ? 192 << 10 : 64 << 10, p->c); }
static int64_t sum_block_of(const plan *p) { return tiles_within(KLANES > 8 ? 384 << 10 : 96 << 10, p->c + p->oc); }

/* Tiles of a block that a panel of U is multiplied with at a time: M stays in the first-level cache, if it can. */
static int64_t part_of(int64_t block, int vecs)
{
    const int64_t fit = (int64_t)(28 * 1024 / sizeof(real)) / (CELLS * vecs * KLANES) / TILE_ROWS * TILE_ROWS;
    return fit < 2 * TILE_ROWS ? block : smaller(fit, block);
}

/* From one cell of U, V, M or D to the next: a little more than there is in it, so that cells do not meet in the same sets of the cache. */
static int64_t cell_size(int64_t rows, int64_t width) { return rows * width + APART; }
/* Where the panel of U begins whose first column is j; those before it hold whole vectors, at least one each. */
static int64_t panel_at(int64_t rows, int64_t j) { return CELLS * (rows * j + j / KLANES * APART); }

/* V (n 6) or D (n 4) of the tiles t0..t1-1: row t - t0 of each cell, rows whole(c) apart. The first tile of an image begins ph rows and pw
 * columns before it. */
INLINE void transform_block(const int n, const plan *p, const real *x, int64_t h, int64_t w, int64_t c, int64_t ph, int64_t pw, real *v,
                            int64_t cell, int64_t t0, int64_t t1)
{
    for (int64_t t = t0, tiles; t < t1; t += tiles, v += tiles * whole(c)) {
        const int64_t line = t / p->cols, j = t % p->cols, i = line % p->rows;
        const int64_t first = j * OUT - pw;
        tiles = smaller(smaller(p->cols - j, t1 - t), STRIP);
        for (int64_t at = 0; at < c; at += KLANES) {
            if (c >= KLANES && at + KLANES > c) at = c - KLANES; /* overlaps the one before, with the same values */
            const real *row[POINTS];
            for (int a = 0; a < n; a++) {
                const int64_t y = i * OUT - ph + a;
                row[a] = y >= 0 && y < h ? x + ((line / p->rows * h + y) * w + first) * c + at : NULL;
            }
            if (c >= KLANES)
                transform_strip(n, KLANES, row, c, tiles, -first, w - first, v + at, cell, whole(c));
            else
                transform_strip(n, (int)c, row, c, tiles, -first, w - first, v, cell, whole(c));
        }
    }
}

/* ---- what the next block will want: rows of pixels, sent for a little at a time while products run ---- */

/* The pixels of the tiles t0..t1-1 that tiles above them do not have, for the arguments of transform_block. */
static void add_errands(errands *list, const int n, const plan *p, const real *x, int64_t h, int64_t w, int64_t c, int64_t ph, int64_t pw,
                        int64_t t0, int64_t t1)
{
    for (int64_t t = t0, tiles; t < t1; t += tiles) {
        const int64_t line = t / p->cols, j = t % p->cols, i = line % p->rows;
        tiles = smaller(p->cols - j, t1 - t);
        const int64_t from = greater(j * OUT - pw, 0), until = smaller((j + tiles - 1) * OUT + n - pw, w);
        const int64_t top = greater(i * OUT - ph + (i > 0 ? n - OUT : 0), 0), bottom = smaller(i * OUT + n - ph, h);
        for (int64_t y = top; y < bottom && from < until && list->count < ERRANDS; y++) {
            list->row[list->count] = (const char *)(x + ((line / p->rows * h + y) * w + from) * c);
            list->size[list->count] = (until - from) * c * (int64_t)sizeof(real);
            list->bytes += list->size[list->count++];
        }
    }
}

/* ---- pixels of either side ---- */

static void input_block(const plan *p, const real *x, real *v, int64_t cell, int64_t t0, int64_t t1)
{
    transform_block(POINTS, p, x, p->h, p->w, p->c, p->ph, p->pw, v, cell, t0, t1);
}
/* Begins a list. */
static void input_errands(errands *list, const plan *p, const real *x, int64_t t0, int64_t t1)
{
    list->count = list->next = list->done = list->bytes = 0;
    add_errands(list, POINTS, p, x, p->h, p->w, p->c, p->ph, p->pw, t0, t1);
}

/* Of what the plan calls the result: dy, for its transform; y, to be written. */
static void gradient_block(const plan *p, const real *dy, real *d, int64_t cell, int64_t t0, int64_t t1)
{
    transform_block(OUT, p, dy, p->oh, p->ow, p->oc, 0, 0, d, cell, t0, t1);
}
static void output_errands(errands *list, const plan *p, const real *y, int64_t t0, int64_t t1)
{
    add_errands(list, OUT, p, y, p->oh, p->ow, p->oc, 0, 0, t0, t1);
}

/* ---- weights ---- */

size_t K(winograd_weights_size)(const bp_conv_shape *s)
{
    const int64_t panels = (greater(s->c, s->oc) + KLANES - 1) / KLANES;
    return (size_t)(CELLS * (greater(s->c * whole(s->oc), s->oc * whole(s->c)) + panels * APART)) * sizeof(real);
}

/* U: for each panel of the columns j0..j1-1, cell after cell of k x width, in the order they are read. Steps k0..k1-1 of all panels; k0 is
 * a multiple of KLANES. */
void K(winograd_weights)(const bp_conv_shape *s, bool gradient, const void *w_, void *u_, int64_t k0, int64_t k1, int64_t j0, int64_t j1,
                         void *scratch)
{
    const plan p = plan_of(s, gradient);
    const real *const w = (const real *)w_;
    const int64_t tap = s->c * s->oc;
    for (int64_t j = j0; j < j1;) {
        const int vecs = K(tile_vecs)(TILE_ROWS, j1 - j);
        const int64_t width = (int64_t)vecs * KLANES, cols = j1 - j < width ? j1 - j : width;
        const int64_t cell = cell_size(p.c, width);
        real *const u = (real *)u_ + panel_at(p.c, j - j0);
        if (!gradient)
            for (int64_t k = k0; k < k1; k++)
                for (int64_t o = 0; o < cols; o += KLANES) {
                    const int lanes = cols - o < KLANES ? (int)(cols - o) : KLANES;
                    const real *from = w + k * s->oc + j + o;
                    if (lanes == KLANES)
                        weight_tile(KLANES, from, tap, false, u + k * width + o, cell);
                    else
                        weight_tile(lanes, from, tap, false, u + k * width + o, cell);
                }
        else
            for (int64_t k = k0; k < k1; k += KLANES) { /* a column here is a channel; its features lie side by side: turned over after */
                real *const room = (real *)scratch;
                const int lanes = k1 - k < KLANES ? (int)(k1 - k) : KLANES;
                for (int64_t c = 0; c < cols; c++) {
                    const real *from = w + (j + c) * s->oc + k;
                    if (lanes == KLANES)
                        weight_tile(KLANES, from, tap, true, room + c * KLANES, width * KLANES);
                    else
                        weight_tile(lanes, from, tap, true, room + c * KLANES, width * KLANES);
                }
                for (int e = 0; e < CELLS; e++)
                    K(tile_pack)(u + e * cell + k * width, vecs, room + e * width * KLANES, 1, KLANES, lanes, cols);
            }
        j += width;
    }
}

/* ---- forward and input gradient ---- */

typedef struct product_room {
    real *v, *m;
} product_room;

static size_t product_scratch(const plan *p, void *scratch, product_room *r)
{
    carve at = { (char *)scratch, 0 };
    const int64_t block = block_of(p);
    int64_t most = 0; /* of a cell of M */
    for (int vecs = 1; vecs <= TILE_VECS; vecs *= 2) most = greater(most, cell_size(part_of(block, vecs), vecs * KLANES));
    r->v = (real *)take(&at, CELLS * cell_size(block, whole(p->c)), sizeof(real));
    r->m = (real *)take(&at, CELLS * most, sizeof(real));
    return at.used;
}

/* One vector of features of one tile: A^T M A, bias, activation, and those of the 4x4 results that are inside. */
INLINE void output_tile(const int lanes, const real *m, int64_t cell, vec bias, bp_act act, real *y, int64_t line, int64_t oc, int64_t rows,
                        int64_t cols)
{
    vec half[OUT][POINTS];
#pragma GCC unroll 1
    for (int j = 0; j < POINTS; j++) {
        vec d[POINTS], r[OUT];
#pragma GCC unroll 6
        for (int i = 0; i < POINTS; i++) d[i] = vec_load(m + (i * POINTS + j) * cell);
        output_axis(d, r);
#pragma GCC unroll 6
        for (int i = 0; i < OUT; i++) half[i][j] = r[i];
    }
    for (int64_t i = 0; i < rows; i++, y += line) {
        vec r[OUT];
        output_axis(half[i], r);
#pragma GCC unroll 6
        for (int j = 0; j < OUT; j++) {
            r[j] += bias;
            if (act == BP_ACT_RELU) r[j] = vec_keep(~(vec_i)(r[j] <= (vec){ 0 }), r[j]); /* lets NaN through */
            if (j < cols) store_lanes(y + j * oc, lanes, r[j]);
        }
    }
}

/* The columns j..j+cols-1 of all results of the tiles t0..t1-1, from M. */
static void output_block(const plan *p, const real *m, int64_t cell, int vecs, const real *bias, bp_act act, real *y, int64_t j,
                         int64_t cols, int64_t t0, int64_t t1)
{
    const int64_t tiles = p->rows * p->cols, line = p->ow * p->oc;
    for (int64_t o = 0; o < cols; o += KLANES) {
        const int lanes = cols - o < KLANES ? (int)(cols - o) : KLANES;
        const vec b = bias ? load_lanes(bias + j + o, lanes) : (vec){ 0 };
        for (int64_t t = t0; t < t1; t++) {
            const int64_t n = t / tiles, row = t % tiles / p->cols * OUT, col = t % p->cols * OUT;
            const int64_t rows = p->oh - row < OUT ? p->oh - row : OUT, columns = p->ow - col < OUT ? p->ow - col : OUT;
            const real *const from = m + (t - t0) * vecs * KLANES + o;
            real *const to = y + (n * p->oh + row) * line + col * p->oc + j + o;
            if (lanes == KLANES)
                output_tile(KLANES, from, cell, b, act, to, line, p->oc, rows, columns);
            else
                output_tile(lanes, from, cell, b, act, to, line, p->oc, rows, columns);
        }
    }
}

static void run(const plan *p, const real *x, const real *u, const real *bias, bp_act act, real *y, int64_t t0, int64_t t1, int64_t j0,
                int64_t j1, void *scratch)
{
    product_room r;
    product_scratch(p, scratch, &r);
    const int64_t block = block_of(p), v_width = whole(p->c), all = p->n * p->rows * p->cols;
    for (int64_t t = t0; t < t1; t += block) {
        const int64_t tiles = smaller(t1 - t, block), end = t + tiles, v_cell = cell_size(tiles, v_width);
        input_block(p, x, r.v, v_cell, t, end);
        errands soon;
        input_errands(&soon, p, x, end, smaller(end + block, all));
        output_errands(&soon, p, y, end, smaller(end + block, t1));
        for (int64_t j = j0; j < j1;) {
            const int vecs = K(tile_vecs)(TILE_ROWS, j1 - j);
            const int64_t width = (int64_t)vecs * KLANES, cols = smaller(j1 - j, width), part = part_of(block, vecs);
            for (int64_t s = 0; s < tiles; s += part) {
                const int64_t few = smaller(tiles - s, part), m_cell = cell_size(few, width);
                const products all_cells = {
                    .rows = few,
                    .steps = p->c,
                    .a = r.v + s * v_width,
                    .a_cell = v_cell,
                    .a_row = v_width,
                    .a_step = 1,
                    .b = u + panel_at(p->c, j - j0),
                    .b_cell = cell_size(p->c, width),
                    .b_row = width,
                    .c = r.m,
                    .c_cell = m_cell,
                    .soon = &soon,
                    .soon_each = soon.bytes * cols / (j1 - j0) * few / tiles / CELLS + LINE,
                };
                K(winograd_products)(vecs, &all_cells);
                output_block(p, r.m, m_cell, vecs, bias, act, y, j, cols, t + s, t + s + few);
            }
            j += width;
        }
    }
}

void K(winograd_forward)(const bp_conv_shape *s, const void *x, const void *u, const void *bias, bp_act act, void *y, int64_t t0,
                         int64_t t1, int64_t j0, int64_t j1, void *scratch)
{
    const plan p = plan_of(s, false);
    run(&p, (const real *)x, (const real *)u, (const real *)bias, act, (real *)y, t0, t1, j0, j1, scratch);
}

void K(winograd_grad_input)(const bp_conv_shape *s, const void *dy, const void *u, void *dx, int64_t t0, int64_t t1, int64_t j0, int64_t j1,
                            void *scratch)
{
    const plan p = plan_of(s, true);
    run(&p, (const real *)dy, (const real *)u, NULL, BP_ACT_NONE, (real *)dx, t0, t1, j0, j1, scratch);
}

/* ---- weight gradient ---- */

typedef struct sum_room {
    real *v, *d, *s;
} sum_room;

static size_t sum_scratch(const plan *p, void *scratch, sum_room *r)
{
    carve at = { (char *)scratch, 0 };
    const int64_t block = sum_block_of(p);
    r->v = (real *)take(&at, CELLS * cell_size(block, whole(p->c)), sizeof(real));
    r->d = (real *)take(&at, CELLS * cell_size(block, whole(p->oc)), sizeof(real));
    r->s = (real *)take(&at, panel_at(p->c, whole(p->oc)), sizeof(real));
    return at.used;
}

/* S: for each panel of features, cell after cell of c x width. */
static void sum_block(const plan *p, const sum_room *r, int64_t tiles, bool first, errands *soon)
{
    const int64_t v_width = whole(p->c), d_width = whole(p->oc);
    for (int64_t o = 0; o < p->oc;) {
        const int vecs = K(tile_vecs)(TILE_ROWS, p->oc - o);
        const int64_t width = (int64_t)vecs * KLANES;
        const products all = {
            .rows = p->c,
            .steps = tiles,
            .turned = true,
            .a = r->v,
            .a_cell = cell_size(tiles, v_width),
            .a_row = 1,
            .a_step = v_width,
            .b = r->d + o,
            .b_cell = cell_size(tiles, d_width),
            .b_row = d_width,
            .c = r->s + panel_at(p->c, o),
            .c_cell = cell_size(p->c, width),
            .add = !first,
            .soon = soon,
            .soon_each = soon->bytes * smaller(width, p->oc) / p->oc / CELLS + LINE,
        };
        K(winograd_products)(vecs, &all);
        o += width;
    }
}

/* dw = C^T S C */
INLINE void sum_tile(const int lanes, const real *s, int64_t cell, real *dw, int64_t tap)
{
    vec half[TAPS][POINTS];
#pragma GCC unroll 1
    for (int j = 0; j < POINTS; j++) {
        vec d[POINTS], r[TAPS];
#pragma GCC unroll 6
        for (int i = 0; i < POINTS; i++) d[i] = vec_load(s + (i * POINTS + j) * cell);
        sum_axis(d, r);
#pragma GCC unroll 6
        for (int i = 0; i < TAPS; i++) half[i][j] = r[i];
    }
#pragma GCC unroll 1
    for (int i = 0; i < TAPS; i++) {
        vec r[TAPS];
        sum_axis(half[i], r);
#pragma GCC unroll 6
        for (int j = 0; j < TAPS; j++) store_lanes(dw + (i * TAPS + j) * tap, lanes, r[j]);
    }
}

void K(winograd_grad_weight)(const bp_conv_shape *s, const void *x, const void *dy, void *dw, int64_t t0, int64_t t1, void *scratch)
{
    const plan p = plan_of(s, false);
    sum_room r;
    sum_scratch(&p, scratch, &r);
    const int64_t block = sum_block_of(&p), all = p.n * p.rows * p.cols;
    if (t1 <= t0) memset(r.s, 0, (size_t)panel_at(p.c, whole(p.oc)) * sizeof(real));
    for (int64_t t = t0; t < t1; t += block) {
        const int64_t tiles = smaller(t1 - t, block), end = t + tiles;
        input_block(&p, (const real *)x, r.v, cell_size(tiles, whole(p.c)), t, end);
        gradient_block(&p, (const real *)dy, r.d, cell_size(tiles, whole(p.oc)), t, end);
        errands soon;
        input_errands(&soon, &p, (const real *)x, end, smaller(end + block, all));
        output_errands(&soon, &p, (const real *)dy, end, smaller(end + block, all));
        sum_block(&p, &r, tiles, t == t0, &soon);
    }
    for (int64_t j = 0; j < p.oc;) {
        const int64_t width = (int64_t)K(tile_vecs)(TILE_ROWS, p.oc - j) * KLANES, cell = cell_size(p.c, width);
        for (int64_t c = 0; c < p.c; c++)
            for (int64_t o = 0; o < width && j + o < p.oc; o += KLANES) {
                const int lanes = (int)smaller(p.oc - j - o, KLANES);
                const real *const from = r.s + panel_at(p.c, j) + c * width + o;
                real *const to = (real *)dw + c * p.oc + j + o;
                if (lanes == KLANES)
                    sum_tile(KLANES, from, cell, to, p.c * p.oc);
                else
                    sum_tile(lanes, from, cell, to, p.c * p.oc);
            }
        j += width;
    }
}

size_t K(winograd_scratch)(const bp_conv_shape *s)
{
    const plan forward = plan_of(s, false), gradient = plan_of(s, true);
    product_room r;
    sum_room q;
    size_t most = product_scratch(&forward, NULL, &r);
    const size_t others[] = { product_scratch(&gradient, NULL, &r), sum_scratch(&forward, NULL, &q),
                              (size_t)(CELLS * TILE_VECS_MAX * KLANES * KLANES) * sizeof(real) };
    for (int i = 0; i < 3; i++)
        if (others[i] > most) most = others[i];
    return most;
}
