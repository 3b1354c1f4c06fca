/* recurrent.c - simple, GRU and LSTM layers over a whole sequence.
 *
 *     forward   z = x w + b for a block of steps at once; then, step after step, p = h u + b_u and the cell:
 *               simple   h' = act(z + p)
 *               GRU      r = s(z_r + p_r)   q = s(z_z + p_z)   n = tanh(z_h + r p_h)   h' = q h + (1 - q) n        (reset_after)
 *               LSTM     i, f, o = s(z + p)   g = tanh(z + p)   c' = f c + i g   h' = o tanh(c')
 *     backward  the same steps the other way round: dz from dh, then dh = dz u^T of the step before.
 *
 * A call runs all steps of its samples, so threads never wait for each other. The samples of a call are sorted by length: those that still
 * run are the first ones. Their states lie side by side. w and u are packed into panels once for all calls; a panel stays in the
 * first-level cache while the rows pass by, and z of a block of steps in the second level, where the product with u is added to it. What
 * only the gradient reads lies step by step, so that the rows of a step are one stream to the prefetcher. A sample's numbers depend neither
 * on which others it shares a call with nor on how steps are cut into blocks. */
#include "tile.h"
#include "vmath.h"

#include <string.h>

static int64_t padded(int64_t n) { return (n + KLANES - 1) / KLANES * KLANES; }
/* Distance of two rows of a buffer of that width: room for a whole vector beyond it, and no power of two. */
static int64_t pitch(int64_t n) { return padded(n) + 2 * KLANES; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- packed matrices ---- */

/* A matrix [k][n], and how many rows at most are multiplied by it at a time. */
typedef struct packing {
    int64_t k, n, pass, rows;
} packing;

enum { BLOCK_ROWS = 128, BLOCK_SIZE = 1 << 16 }; /* most rows of z in a block, and most elements unless one step has more */

static int64_t block_steps(const bp_recurrent *s)
{
    const int64_t rows = smaller(BLOCK_ROWS, BLOCK_SIZE / (s->gates * s->units)), steps = smaller(rows / s->samples, s->steps);
    return steps < 1 ? 1 : steps;
}
static packing of_w(const bp_recurrent *s)
{
    return (packing){ s->in, s->gates * s->units, tile_k_pass(s->in), block_steps(s) * s->samples };
}
/* Backward u is multiplied transposed. */
static packing of_u(const bp_recurrent *s, bool backward)
{
    const int64_t all = s->gates * s->units, k = backward ? all : s->units;
    return (packing){ k, backward ? s->units : all, tile_k_pass(k), s->samples };
}
static int64_t size_of(const packing *p) { return (p->k + 1) * padded(p->n); }

size_t K(recurrent_packed)(const bp_recurrent *s, bool backward)
{
    const packing u = of_u(s, backward), w = of_w(s);
    return (size_t)(size_of(&u) + (backward ? 0 : size_of(&w))) * sizeof(real);
}

/* Passes over k one after the other, each all its panels; behind them the bias, padded. Element [i][j] is at from[i * row + j * col].
 * Packs panel `number` of every pass, and the bias with the first; returns how many panels there are. */
static int64_t pack(const packing *p, real *to, const real *from, int64_t row, int64_t col, const real *bias, int64_t number)
{
    const int64_t wide = padded(p->n);
    int64_t panel = 0, width;
    for (int64_t j = 0; j < p->n; j += width, panel++) {
        const int vecs = K(tile_vecs)(p->rows, p->n - j);
        width = (int64_t)vecs * KLANES;
        if (panel != number) continue;
        for (int64_t first = 0; first < p->k; first += p->pass) {
            const int64_t k = smaller(p->pass, p->k - first);
            K(tile_pack)(to + first * wide + j * k, vecs, from + first * row + j * col, row, col, k, smaller(width, p->n - j));
        }
    }
    if (number != 0) return panel;
    memset(to + p->k * wide, 0, (size_t)wide * sizeof(real));
    if (bias) memcpy(to + p->k * wide, bias, (size_t)p->n * sizeof(real));
    return panel;
}

int64_t K(recurrent_pack)(const bp_recurrent *s, bool backward, void *packed, int64_t part)
{
    const packing u = of_u(s, backward), w = of_w(s);
    const int64_t all = s->gates * s->units;
    if (backward) return pack(&u, (real *)packed, (const real *)s->u, 1, all, NULL, part);
    const int64_t before = pack(&u, (real *)packed, (const real *)s->u, all, 1, (const real *)s->b_u, part);
    return before + pack(&w, (real *)packed + size_of(&u), (const real *)s->w, all, 1, (const real *)s->b, part - before);
}

/* The rows that t describes, times the matrix, plus the bias; added to what C holds if t says so. */
static void multiply(const packing *p, const real *packed, bool bias, tile_panel t)
{
    const int64_t wide = padded(p->n);
    const bool load = t.load;
    const real *const a = t.a;
    real *const c = t.c;
    int64_t off[TILE_K_MAX], first = 0;
    for (int64_t i = 0; i < p->pass; i++) off[i] = i;
    t.off = off;
    do {
        t.k = smaller(p->pass, p->k - first);
        t.a = a + first;
        t.load = load || first > 0;
        for (int64_t j = 0; j < p->n; j += t.cols) {
            t.vecs = K(tile_vecs)(p->rows, p->n - j);
            t.cols = t.b_row = (int64_t)t.vecs * KLANES;
            t.b = packed + first * wide + j * t.k;
            t.c = c + j;
            t.bias = bias && first + t.k == p->k ? packed + p->k * wide + j : NULL;
            K(tile_run)(&t);
        }
        first += p->pass;
    } while (first < p->k);
}

/* ---- the samples of a call ---- */

typedef struct rows {
    int64_t n;                            /* samples */
    int64_t sample[BP_RECURRENT_SAMPLES]; /* their numbers, the longest first */
    int64_t length[BP_RECURRENT_SAMPLES]; /* their steps */
    real *h, *c;                          /* states: rows of pitch(units) */
    real *p;                              /* product, or dz: rows of pitch(gates * units) */
    real *z;                              /* of a block of steps, one step after the other: rows of the same kind */
    int64_t h_row, p_row;
} rows;

size_t K(recurrent_scratch)(const bp_recurrent *s, bool backward)
{
    const int64_t steps = 1 + (backward ? 0 : block_steps(s));
    return (size_t)(s->samples * (2 * pitch(s->units) + steps * pitch(s->gates * s->units)) + 2 * KLANES) * sizeof(real);
}

static int64_t length_of(const bp_recurrent *s, int64_t sample) { return s->lengths ? s->lengths[sample] : s->steps; }

/* Sorts the samples and sets their states to first_h and first_c. */
static void gather(rows *r, const bp_recurrent *s, int64_t n0, int64_t n1, const void *first_h, const void *first_c, void *scratch)
{
    r->n = n1 - n0;
    for (int64_t i = 0; i < r->n; i++) {
        const int64_t sample = n0 + i, length = length_of(s, sample);
        int64_t k = i;
        for (; k > 0 && r->length[k - 1] < length; k--) r->sample[k] = r->sample[k - 1], r->length[k] = r->length[k - 1];
        r->sample[k] = sample, r->length[k] = length;
    }
    r->h_row = pitch(s->units);
    r->p_row = pitch(s->gates * s->units);
    r->h = (real *)scratch;
    r->c = r->h + s->samples * r->h_row;
    r->p = r->c + s->samples * r->h_row;
    r->z = r->p + s->samples * r->p_row;
    memset(scratch, 0, (size_t)(r->z - r->h) * sizeof(real));
    const size_t size = (size_t)s->units * sizeof(real);
    for (int64_t i = 0; i < r->n; i++) {
        if (first_h) memcpy(r->h + i * r->h_row, (const real *)first_h + r->sample[i] * s->units, size);
        if (first_c) memcpy(r->c + i * r->h_row, (const real *)first_c + r->sample[i] * s->units, size);
    }
}

static void scatter(const rows *r, const bp_recurrent *s, void *last_h, void *last_c)
{
    const size_t size = (size_t)s->units * sizeof(real);
    for (int64_t i = 0; i < r->n; i++) {
        if (last_h) memcpy((real *)last_h + r->sample[i] * s->units, r->h + i * r->h_row, size);
        if (last_c) memcpy((real *)last_c + r->sample[i] * s->units, r->c + i * r->h_row, size);
    }
}

/* How many samples have a step number `step`. */
static int64_t running(const rows *r, int64_t step)
{
    int64_t m = r->n;
    while (m > 0 && r->length[m - 1] <= step) m--;
    return m;
}

/* Where the step of a row lies among all [batch][steps]. */
static int64_t place(const rows *r, const bp_recurrent *s, int64_t row, int64_t step)
{
    return r->sample[row] * s->steps + (s->reverse ? r->length[row] - 1 - step : step);
}

/* Where it lies in what only the gradient reads, [steps][batch] in the order of walking: the rows of a step side by side. */
static int64_t slot(const rows *r, const bp_recurrent *s, int64_t row, int64_t step) { return step * s->batch + r->sample[row]; }

/* What follows the last step of a sample is zero in every array of the sequence. */
static void clear_rest(const rows *r, const bp_recurrent *s, bool by_step, void *array, int64_t width)
{
    if (!array || !s->lengths) return;
    for (int64_t i = 0; i < r->n; i++)
        for (int64_t step = r->length[i]; step < s->steps; step++)
            memset((real *)array + (by_step ? slot(r, s, i, step) : r->sample[i] * s->steps + step) * width, 0,
                   (size_t)width * sizeof(real));
}

/* z of the steps from..until-1. */
static void input_product(const rows *r, const bp_recurrent *s, const real *packed, int64_t from, int64_t until)
{
    const packing w = of_w(s);
    int64_t a_at[BLOCK_ROWS + BP_RECURRENT_SAMPLES], c_at[BLOCK_ROWS + BP_RECURRENT_SAMPLES], m = 0;
    for (int64_t i = 0; i < r->n; i++)
        for (int64_t step = from; step < smaller(until, r->length[i]); step++, m++) {
            a_at[m] = place(r, s, i, step) * s->in;
            c_at[m] = ((step - from) * s->samples + i) * r->p_row;
        }
    multiply(&w, packed, s->b != NULL, (tile_panel){ .m = m, .a = (const real *)s->x, .a_at = a_at, .c = r->z, .c_at = c_at });
}

/* ---- cells: one row of n elements, n for each gate. A tail of a row goes through the same arithmetic as a whole vector. ---- */

static inline vec load(const real *p, int64_t left) { return left >= KLANES ? vec_load(p) : vec_load_some(p, 1, (int)left); }
static inline void store(real *p, int64_t left, vec v)
{
    if (left >= KLANES)
        vec_store(p, v);
    else
        vec_store_some(p, 1, (int)left, v);
}

/* Quotients share a division, the slowest instruction there is: 1 / a and 1 / b from 1 / ab. */
typedef struct ratio {
    vec top, bottom;
} ratio;
static inline ratio sigmoid(vec x)
{
    ratio r;
    vec_sigmoid_ratio(x, &r.top, &r.bottom);
    return r;
}
static inline ratio tangent(vec x)
{
    ratio r;
    vec_tanh_ratio(x, &r.top, &r.bottom);
    return r;
}
static inline void divide2(ratio a, ratio b, vec *x, vec *y)
{
    const vec both = 1 / (a.bottom * b.bottom);
    *x = a.top * (both * b.bottom), *y = b.top * (both * a.bottom);
}
static inline void divide3(ratio a, ratio b, ratio c, vec *x, vec *y, vec *z)
{
    const vec ab = a.bottom * b.bottom, all = 1 / (ab * c.bottom), both = all * c.bottom;
    *x = a.top * (both * b.bottom), *y = b.top * (both * a.bottom), *z = c.top * (all * ab);
}

/* sum: z + p */
static void lstm(int64_t n, const real *sum, real *z, real *h, real *c, real *kept, real *before, real *y)
{
    for (int64_t j = 0; j < n; j += KLANES) {
        const int64_t left = n - j;
        vec i, f, g;
        divide3(sigmoid(vec_load(sum + j)), sigmoid(vec_load(sum + n + j)), tangent(vec_load(sum + 2 * n + j)), &i, &f, &g);
        const vec cell = f * vec_load(c + j) + i * g;
        store(z + j, left, i);
        store(z + n + j, left, f);
        store(z + 2 * n + j, left, g);
        store(kept + j, left, cell);
        vec_store(c + j, cell);
    }
    for (int64_t j = 0; j < n; j += KLANES) { /* apart from the first half, on whose results it would wait */
        const int64_t left = n - j;
        vec o, t;
        divide2(sigmoid(vec_load(sum + 3 * n + j)), tangent(vec_load(c + j)), &o, &t);
        const vec out = o * t;
        store(before + j, left, vec_load(h + j));
        store(z + 3 * n + j, left, o);
        store(y + j, left, out);
        vec_store(h + j, out);
    }
}

/* c_before: of the step before, NULL: zeros */
static void lstm_back(int64_t n, const real *dy, const real *z, const real *kept, const real *c_before, const real *dh, real *dc, real *d,
                      real *dz)
{
    for (int64_t j = 0; j < n; j += KLANES) {
        const int64_t left = n - j;
        const vec i = load(z + j, left), f = load(z + n + j, left), g = load(z + 2 * n + j, left), o = load(z + 3 * n + j, left);
        const vec t = vec_tanh(load(kept + j, left)), old = c_before ? load(c_before + j, left) : (vec){ 0 };
        const vec all = dy ? vec_load(dh + j) + load(dy + j, left) : vec_load(dh + j);
        const vec cell = vec_load(dc + j) + all * o * (1 - t * t);
        const vec di = cell * g * i * (1 - i), df = cell * old * f * (1 - f), dg = cell * i * (1 - g * g), output = all * t * o * (1 - o);
        vec_store(dc + j, cell * f);
        store(d + j, left, di);
        store(d + n + j, left, df);
        store(d + 2 * n + j, left, dg);
        store(d + 3 * n + j, left, output);
        store(dz + j, left, di);
        store(dz + n + j, left, df);
        store(dz + 2 * n + j, left, dg);
        store(dz + 3 * n + j, left, output);
    }
}

static void gru(int64_t n, const real *in, const real *p, real *z, real *h, real *kept, real *before, real *y)
{
    for (int64_t j = 0; j < n; j += KLANES) {
        const int64_t left = n - j;
        vec q, r;
        divide2(sigmoid(vec_load(in + j) + vec_load(p + j)), sigmoid(vec_load(in + n + j) + vec_load(p + n + j)), &q, &r);
        const vec own = vec_load(p + 2 * n + j), new = vec_tanh(vec_load(in + 2 * n + j) + r * own);
        const vec old = vec_load(h + j), out = new + q *(old - new);
        store(before + j, left, old);
        store(z + j, left, q);
        store(z + n + j, left, r);
        store(z + 2 * n + j, left, new);
        store(kept + j, left, own);
        store(y + j, left, out);
        vec_store(h + j, out);
    }
}

/* dh is left as the part of the gradient that does not pass through u. */
static void gru_back(int64_t n, const real *dy, const real *z, const real *kept, const real *before, real *dh, real *d, real *dz,
                     real *dz_u)
{
    for (int64_t j = 0; j < n; j += KLANES) {
        const int64_t left = n - j;
        const vec q = load(z + j, left), r = load(z + n + j, left), new = load(z + 2 * n + j, left);
        const vec all = dy ? vec_load(dh + j) + load(dy + j, left) : vec_load(dh + j);
        const vec dq = all * (load(before + j, left) - new) * q * (1 - q), dnew = all * (1 - q) * (1 - new *new);
        const vec dr = dnew * load(kept + j, left) * r * (1 - r), own = dnew * r;
        vec_store(dh + j, all * q);
        store(d + j, left, dq);
        store(d + n + j, left, dr);
        store(d + 2 * n + j, left, own);
        store(dz + j, left, dq);
        store(dz + n + j, left, dr);
        store(dz + 2 * n + j, left, dnew);
        store(dz_u + j, left, dq);
        store(dz_u + n + j, left, dr);
        store(dz_u + 2 * n + j, left, own);
    }
}

static void simple(bool relu, int64_t n, const real *sums, real *y, real *h, real *before)
{
    for (int64_t j = 0; j < n; j += KLANES) {
        const int64_t left = n - j;
        const vec sum = vec_load(sums + j), out = relu ? vec_keep(~(vec_i)(sum <= (vec){ 0 }), sum) : vec_tanh(sum);
        store(before + j, left, vec_load(h + j));
        store(y + j, left, out);
        vec_store(h + j, out);
    }
}

static void simple_back(bool relu, int64_t n, const real *dy, const real *y, const real *dh, real *d, real *dz)
{
    for (int64_t j = 0; j < n; j += KLANES) {
        const int64_t left = n - j;
        const vec out = load(y + j, left), all = dy ? vec_load(dh + j) + load(dy + j, left) : vec_load(dh + j);
        const vec sum = relu ? vec_keep(out > (vec){ 0 }, all) : all * (1 - out * out);
        store(d + j, left, sum);
        store(dz + j, left, sum);
    }
}

/* ---- whole sequences ---- */

void K(recurrent_forward)(const bp_recurrent *s, const void *packed, int64_t n0, int64_t n1, void *scratch)
{
    const int64_t n = s->units, all = s->gates * n, block = block_steps(s);
    real *const y = (real *)s->y, *const z = (real *)s->z, *const kept = (real *)s->kept, *const before = (real *)s->before;
    const packing u = of_u(s, false);
    const real *const packed_u = (const real *)packed, *const packed_w = packed_u + size_of(&u);
    const bool apart = s->cell == BP_CELL_GRU; /* p is not just added to z */
    rows r;
    gather(&r, s, n0, n1, s->h0, s->c0, scratch);
    for (int64_t step = 0; step < s->steps; step++) {
        const int64_t m = running(&r, step), in_block = step % block;
        if (m == 0) break;
        if (in_block == 0) input_product(&r, s, packed_w, step, smaller(step + block, s->steps));
        real *const sums = r.z + in_block * s->samples * r.p_row;
        multiply(&u, packed_u, s->b_u != NULL,
                 (tile_panel){ .m = m, .a = r.h, .a_row = r.h_row, .c = apart ? r.p : sums, .c_row = r.p_row, .load = !apart });
        for (int64_t i = 0; i < m; i++) {
            const int64_t at = place(&r, s, i, step), in = slot(&r, s, i, step);
            real *const h = r.h + i * r.h_row, *const sum = sums + i * r.p_row;
            if (s->cell == BP_CELL_LSTM)
                lstm(n, sum, z + in * all, h, r.c + i * r.h_row, kept + in * n, before + at * n, y + at * n);
            else if (apart)
                gru(n, sum, r.p + i * r.p_row, z + in * all, h, kept + in * n, before + in * n, y + at * n);
            else
                simple(s->cell == BP_CELL_RELU, n, sum, y + at * n, h, before + at * n);
        }
    }
    clear_rest(&r, s, false, s->y, n);
    clear_rest(&r, s, apart, s->before, n);
    clear_rest(&r, s, true, s->kept, n);
    if (s->z != s->y) clear_rest(&r, s, true, s->z, all);
    scatter(&r, s, s->h_n, s->c_n);
}

void K(recurrent_backward)(const bp_recurrent *s, const void *packed, int64_t n0, int64_t n1, void *scratch)
{
    const int64_t n = s->units, all = s->gates * n;
    const real *const dy = (const real *)s->dy, *const y = (const real *)s->y, *const z = (const real *)s->z;
    const real *const kept = (const real *)s->kept, *const before = (const real *)s->before, *const c0 = (const real *)s->c0;
    real *const dz = (real *)s->dz, *const dz_u = (real *)s->dz_u;
    const packing u = of_u(s, true);
    rows r;
    gather(&r, s, n0, n1, s->dh_n, s->dc_n, scratch);
    for (int64_t step = r.n ? r.length[0] - 1 : -1; step >= 0; step--) {
        const int64_t m = running(&r, step);
        for (int64_t i = 0; i < m; i++) {
            const int64_t at = place(&r, s, i, step), in = slot(&r, s, i, step);
            const real *const dy_at = dy ? dy + at * n : NULL;
            real *const dh = r.h + i * r.h_row, *const d = r.p + i * r.p_row;
            if (s->cell == BP_CELL_LSTM) {
                const real *const old = step > 0 ? kept + slot(&r, s, i, step - 1) * n : c0 ? c0 + r.sample[i] * n : NULL;
                lstm_back(n, dy_at, z + in * all, kept + in * n, old, dh, r.c + i * r.h_row, d, dz + at * all);
            } else if (s->cell == BP_CELL_GRU)
                gru_back(n, dy_at, z + in * all, kept + in * n, before + in * n, dh, d, dz + at * all, dz_u + in * all);
            else
                simple_back(s->cell == BP_CELL_RELU, n, dy_at, y + at * n, dh, d, dz + at * n);
        }
        multiply(&u, (const real *)packed, false,
                 (tile_panel){ .m = m, .a = r.p, .a_row = r.p_row, .c = r.h, .c_row = r.h_row, .load = s->cell == BP_CELL_GRU });
    }
    clear_rest(&r, s, false, s->dz, all);
    clear_rest(&r, s, true, s->dz_u, all);
    scatter(&r, s, s->dh0, s->dc0);
}
