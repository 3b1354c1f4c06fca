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
 * products of one position e of the 36 over tiles t, channels c and features o are a matrix product, for the micro-kernel of tile.h:
 *
 *     forward, input gradient    M[e][t][o] = sum over c of V[e][t][c] * U[e][c][o]      V = B^T x B, U = G w G^T
 *     weight gradient            S[e][c][o] = sum over t of V[e][t][c] * D[e][t][o]      D = H dy H^T
 *
 * The input gradient is the forward one over dy with the weights turned by 180 degrees and transposed. Tiles at the edge read zeros beside
 * the image and keep only results inside. They are taken in blocks whose V stays in the second-level cache; M exists for one panel of
 * columns at a time. An element is the same chain of operations in whatever block its tile lies.
 *
 * The points a = 11/16, b = 3/2 keep the matrices near 1 and are exact in binary, as are their squares. Rounding is then about twice that
 * of the plain sum (tests/c/test_winograd.c measures it); a = 1, b = 2, found in many texts, has twice that again and worse outliers. */
#include "carve.h"
#include "tile.h"
#include "vmath.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum { POINTS = 6, CELLS = POINTS * POINTS, OUT = 4, TAPS = 3, APART = 16 };

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

/* ---- both axes. Pixels are read through pointers (to zeros where a tile looks beyond the image), `at` being the channel. ---- */

INLINE vec load_lanes(const real *p, int lanes) { return lanes == KLANES ? vec_load(p) : vec_load_some(p, 1, lanes); }
INLINE void store_lanes(real *p, int lanes, vec v)
{
    if (lanes == KLANES)
        vec_store(p, v);
    else
        vec_store_some(p, 1, lanes, v);
}

/* axis() along the columns of in[n][n] to half[POINTS][n], then along its rows to to[POINTS][POINTS], `cell` apart. */
#define TRANSFORM(n, axis)                                                          \
    vec half[POINTS][n];                                                            \
    _Pragma("GCC unroll 1") for (int j = 0; j < n; j++)                             \
    {                                                                               \
        vec d[n], r[POINTS];                                                        \
        _Pragma("GCC unroll 6") for (int i = 0; i < n; i++) d[i] = READ(i, j);      \
        axis(d, r);                                                                 \
        _Pragma("GCC unroll 6") for (int i = 0; i < POINTS; i++) half[i][j] = r[i]; \
    }                                                                               \
    _Pragma("GCC unroll 1") for (int i = 0; i < POINTS; i++, to += POINTS * cell)   \
    {                                                                               \
        vec r[POINTS];                                                              \
        axis(half[i], r);                                                           \
        _Pragma("GCC unroll 6") for (int j = 0; j < POINTS; j++) vec_store(to + j * cell, r[j]); \
    }

#define READ(i, j) load_lanes(pixel[(i) * POINTS + (j)] + at, lanes)
INLINE void input_tile(const int lanes, const real *const *pixel, int64_t at, real *to, int64_t cell){ TRANSFORM(POINTS, input_axis) }
#undef READ
#define READ(i, j) load_lanes(pixel[(i)*OUT + (j)] + at, lanes)
INLINE void gradient_tile(const int lanes, const real *const *pixel, int64_t at, real *to, int64_t cell)
{
    TRANSFORM(OUT, gradient_axis)
}
#undef READ
/* Taps `tap` apart; turned: the last one first. */
#define READ(i, j) load_lanes(w + (turned ? 8 - ((i) * TAPS + (j)) : (i) * TAPS + (j)) * tap, lanes)
INLINE void weight_tile(const int lanes, const real *w, int64_t tap, bool turned, real *to, int64_t cell) { TRANSFORM(TAPS, weight_axis) }
#undef READ

/* ---- what forward and input gradient differ in ---- */

typedef struct plan {
    int64_t h, w, c;    /* source */
    int64_t oh, ow, oc; /* result */
    int64_t ph, pw;     /* zeros before the source; negative: rows never read */
    int64_t rows, cols; /* of tiles */
} plan;

static plan plan_of(const bp_conv_shape *s, bool gradient)
{
    plan p = gradient ? (plan){ .h = s->oh, .w = s->ow, .c = s->oc, .oh = s->h, .ow = s->w, .oc = s->c, .ph = 2 - s->ph, .pw = 2 - s->pw }
                      : (plan){ .h = s->h, .w = s->w, .c = s->c, .oh = s->oh, .ow = s->ow, .oc = s->oc, .ph = s->ph, .pw = s->pw };
    p.rows = (p.oh + OUT - 1) / OUT;
    p.cols = (p.ow + OUT - 1) / OUT;
    return p;
}

static int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }

/* Channels in whole vectors. */
static int64_t whole(int64_t channels) { return (channels + KLANES - 1) / KLANES * KLANES; }

/* Tiles of a block, in whole tiles of the micro-kernel: V takes some 192 kB, or more where that leaves too few rows to a panel of U. */
static int64_t block_of(int64_t channels)
{
    const int64_t fit = (int64_t)(192 * 1024 / sizeof(real)) / (CELLS * whole(channels)) / TILE_ROWS * TILE_ROWS;
    return fit < 2 * TILE_ROWS ? 2 * TILE_ROWS : fit > 8 * TILE_ROWS ? 8 * TILE_ROWS : fit;
}

/* From one cell of U, V, M or D to the next: a little more than there is in it, so that cells do not meet in the same sets of the cache. */
static int64_t cell_size(int64_t rows, int64_t width) { return rows * width + APART; }
/* Where the panel of U begins whose first column is j; those before it hold whole vectors, at least one each. */
static int64_t panel_at(int64_t rows, int64_t j) { return CELLS * (rows * j + j / KLANES * APART); }

/* Where the n x n pixels from row i and column j of an image lie. */
INLINE void find_pixels(const int n, const real *x, int64_t h, int64_t w, int64_t c, int64_t i, int64_t j, const real *zeros,
                        const real **at)
{
    if (i >= 0 && j >= 0 && i + n <= h && j + n <= w) {
        const real *line = x + (i * w + j) * c;
        for (int a = 0; a < n; a++, line += w * c)
            for (int b = 0; b < n; b++) *at++ = line + b * c;
        return;
    }
    for (int a = 0; a < n; a++)
        for (int b = 0; b < n; b++) {
            const bool inside = i + a >= 0 && i + a < h && j + b >= 0 && j + b < w;
            *at++ = inside ? x + ((i + a) * w + j + b) * c : zeros;
        }
}

/* V of the tiles t0..t1-1: row t - t0 of each cell, rows whole(c) apart. */
static void input_block(const plan *p, const real *x, const real *zeros, real *v, int64_t cell, int64_t t0, int64_t t1)
{
    const int64_t tiles = p->rows * p->cols, width = whole(p->c);
    for (int64_t t = t0; t < t1; t++, v += width) {
        const int64_t n = t / tiles, i = t % tiles / p->cols, j = t % p->cols;
        const real *pixel[CELLS];
        find_pixels(POINTS, x + n * p->h * p->w * p->c, p->h, p->w, p->c, i * OUT - p->ph, j * OUT - p->pw, zeros, pixel);
        if (p->c < KLANES) {
            input_tile((int)p->c, pixel, 0, v, cell);
            continue;
        }
        for (int64_t at = 0; at < p->c; at += KLANES) {
            if (at + KLANES > p->c) at = p->c - KLANES; /* overlaps the one before, with the same values */
            input_tile(KLANES, pixel, at, v + at, cell);
        }
    }
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
    real *zeros, *v, *m;
} product_room;

static size_t product_scratch(const plan *p, void *scratch, product_room *r)
{
    carve at = { (char *)scratch, 0 };
    const int64_t block = block_of(p->c);
    r->zeros = (real *)take(&at, whole(p->c), sizeof(real));
    r->v = (real *)take(&at, CELLS * cell_size(block, whole(p->c)), sizeof(real));
    r->m = (real *)take(&at, CELLS * cell_size(block, TILE_VECS * KLANES), sizeof(real));
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

static void multiply_block(const plan *p, const product_room *r, const int64_t *off, const real *u, int vecs, int64_t tiles)
{
    const int64_t width = (int64_t)vecs * KLANES, pass = tile_k_pass(p->c), v_width = whole(p->c);
    const int64_t v_cell = cell_size(tiles, v_width), m_cell = cell_size(tiles, width), u_cell = cell_size(p->c, width);
    for (int e = 0; e < CELLS; e++)
        for (int64_t k = 0; k < p->c; k += pass) {
            const tile_panel panel = {
                .m = tiles,
                .k = p->c - k < pass ? p->c - k : pass,
                .cols = width,
                .a = r->v + e * v_cell + k,
                .a_row = v_width,
                .off = off,
                .b = u + e * u_cell + k * width,
                .b_row = width,
                .vecs = vecs,
                .c = r->m + e * m_cell,
                .c_row = width,
                .load = k > 0,
            };
            K(tile_run)(&panel);
        }
}

static void run(const plan *p, const real *x, const real *u, const real *bias, bp_act act, real *y, int64_t t0, int64_t t1, int64_t j0,
                int64_t j1, void *scratch)
{
    product_room r;
    product_scratch(p, scratch, &r);
    memset(r.zeros, 0, (size_t)p->c * sizeof(real));
    int64_t off[TILE_K_MAX];
    for (int64_t k = 0; k < TILE_K_MAX; k++) off[k] = k;
    const int64_t block = block_of(p->c);
    for (int64_t t = t0; t < t1; t += block) {
        const int64_t tiles = t1 - t < block ? t1 - t : block;
        input_block(p, x, r.zeros, r.v, cell_size(tiles, whole(p->c)), t, t + tiles);
        for (int64_t j = j0; j < j1;) {
            const int vecs = K(tile_vecs)(TILE_ROWS, j1 - j);
            const int64_t width = (int64_t)vecs * KLANES, cols = j1 - j < width ? j1 - j : width;
            multiply_block(p, &r, off, u + panel_at(p->c, j - j0), vecs, tiles);
            output_block(p, r.m, cell_size(tiles, width), vecs, bias, act, y, j, cols, t, t + tiles);
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
    real *zeros, *v, *d, *s;
} sum_room;

static size_t sum_scratch(const plan *p, void *scratch, sum_room *r)
{
    carve at = { (char *)scratch, 0 };
    const int64_t block = block_of(p->c);
    r->zeros = (real *)take(&at, whole(p->c > p->oc ? p->c : p->oc), sizeof(real));
    r->v = (real *)take(&at, CELLS * cell_size(block, whole(p->c)), sizeof(real));
    r->d = (real *)take(&at, CELLS * cell_size(block, whole(p->oc)), sizeof(real));
    r->s = (real *)take(&at, CELLS * p->c * whole(p->oc), sizeof(real));
    return at.used;
}

/* D of the tiles t0..t1-1, panel after panel of (t1 - t0) x width. */
static void gradient_block(const plan *p, const real *dy, const real *zeros, real *d, int64_t cell, int64_t t0, int64_t t1)
{
    const int64_t tiles = p->rows * p->cols;
    for (int64_t t = t0; t < t1; t++) {
        const int64_t n = t / tiles, i = t % tiles / p->cols, j = t % p->cols;
        const real *pixel[OUT * OUT];
        find_pixels(OUT, dy + n * p->oh * p->ow * p->oc, p->oh, p->ow, p->oc, i * OUT, j * OUT, zeros, pixel);
        for (int64_t o = 0; o < p->oc;) {
            const int vecs = K(tile_vecs)(p->c, p->oc - o);
            const int64_t width = (int64_t)vecs * KLANES;
            real *const to = d + o * (t1 - t0) + (t - t0) * width;
            for (int v = 0; v < vecs; v++) {
                const int64_t at = o + v * KLANES;
                if (p->oc - at >= KLANES)
                    gradient_tile(KLANES, pixel, at, to + v * KLANES, cell);
                else
                    gradient_tile((int)(p->oc - at), pixel, at, to + v * KLANES, cell);
            }
            o += width;
        }
    }
}

static void sum_block(const plan *p, const sum_room *r, const int64_t *off, int64_t tiles, bool first)
{
    const int64_t v_cell = cell_size(tiles, whole(p->c)), d_cell = cell_size(tiles, whole(p->oc)), s_row = whole(p->oc);
    for (int e = 0; e < CELLS; e++)
        for (int64_t o = 0; o < p->oc;) {
            const int vecs = K(tile_vecs)(p->c, p->oc - o);
            const int64_t width = (int64_t)vecs * KLANES;
            const tile_panel panel = {
                .m = p->c,
                .k = tiles,
                .cols = width,
                .a = r->v + e * v_cell,
                .a_row = 1,
                .off = off,
                .b = r->d + e * d_cell + o * tiles,
                .b_row = width,
                .vecs = vecs,
                .c = r->s + e * p->c * s_row + o,
                .c_row = s_row,
                .load = !first,
            };
            K(tile_run)(&panel);
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
    memset(r.zeros, 0, (size_t)whole(p.c > p.oc ? p.c : p.oc) * sizeof(real));
    const int64_t block = block_of(p.c), v_width = whole(p.c), s_row = whole(p.oc), cell = p.c * s_row;
    int64_t off[8 * TILE_ROWS];
    for (int64_t t = 0; t < block; t++) off[t] = t * v_width;
    if (t1 <= t0) memset(r.s, 0, (size_t)(CELLS * cell) * sizeof(real));
    for (int64_t t = t0; t < t1; t += block) {
        const int64_t tiles = t1 - t < block ? t1 - t : block;
        input_block(&p, (const real *)x, r.zeros, r.v, cell_size(tiles, v_width), t, t + tiles);
        gradient_block(&p, (const real *)dy, r.zeros, r.d, cell_size(tiles, s_row), t, t + tiles);
        sum_block(&p, &r, off, tiles, t == t0);
    }
    for (int64_t c = 0; c < p.c; c++)
        for (int64_t o = 0; o < p.oc; o += KLANES) {
            const int lanes = p.oc - o < KLANES ? (int)(p.oc - o) : KLANES;
            const real *const from = r.s + c * s_row + o;
            real *const to = (real *)dw + c * p.oc + o;
            if (lanes == KLANES)
                sum_tile(KLANES, from, cell, to, p.c * p.oc);
            else
                sum_tile(lanes, from, cell, to, p.c * p.oc);
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
