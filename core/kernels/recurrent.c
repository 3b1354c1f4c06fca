/* recurrent.c - simple, GRU and LSTM layers over a whole sequence.
 *
 *     forward   z = x w + b for all steps at once; then, step after step, p = h u + b_u and the cell:
 *               simple   h' = act(z + p)
 *               GRU      r = s(z_r + p_r)   q = s(z_z + p_z)   n = tanh(z_h + r p_h)   h' = q h + (1 - q) n        (reset_after)
 *               LSTM     i, f, o = s(z + p)   g = tanh(z + p)   c' = f c + i g   h' = o tanh(c')
 *     backward  the same steps the other way round: dz from dh, then dh = dz u^T of the step before.
 *
 * A call runs all steps of its samples, so threads never wait for each other. The samples of a call are sorted by length: those that still
 * run are the first ones. Their states lie side by side; p (a few rows) stays in the first-level cache between product and cell. u is
 * packed into panels once for all calls. A sample's numbers do not depend on which others it shares a call with. */
#include "tile.h"
#include "vmath.h"

#include <string.h>

static int64_t padded(int64_t n) { return (n + KLANES - 1) / KLANES * KLANES; }
/* Distance of two rows of a buffer of that width: room for a whole vector beyond it, and no power of two. */
static int64_t pitch(int64_t n) { return padded(n) + 2 * KLANES; }
static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* The recurrent product c[m][n] = a[m][k] * u: forward k = units, backward k = gates * units. */
typedef struct step_shape {
    int64_t k, n, pass;
} step_shape;
static step_shape shape_of(const bp_recurrent *s, bool backward)
{
    const int64_t all = s->gates * s->units;
    const int64_t k = backward ? all : s->units;
    return (step_shape){ k, backward ? s->units : all, tile_k_pass(k) };
}

size_t K(recurrent_packed)(const bp_recurrent *s, bool backward)
{
    const step_shape p = shape_of(s, backward);
    return (size_t)((p.k + 1) * padded(p.n)) * sizeof(real);
}

/* Passes over k one after the other, each all its panels; behind them b_u, padded. */
void K(recurrent_pack)(const bp_recurrent *s, bool backward, void *packed)
{
    const step_shape p = shape_of(s, backward);
    const int64_t all = s->gates * s->units, wide = padded(p.n);
    const real *const u = (const real *)s->u;
    real *to = (real *)packed;
    for (int64_t first = 0; first < p.k; first += p.pass) {
        const int64_t k = smaller(p.pass, p.k - first);
        for (int64_t j = 0; j < p.n;) {
            const int vecs = K(tile_vecs)(s->samples, p.n - j);
            const int64_t width = (int64_t)vecs * KLANES, cols = smaller(width, p.n - j);
            if (backward)
                K(tile_pack)(to, vecs, u + j * all + first, 1, all, k, cols);
            else
                K(tile_pack)(to, vecs, u + first * all + j, all, 1, k, cols);
            to += k * width;
            j += width;
        }
    }
    memset(to, 0, (size_t)wide * sizeof(real));
    if (s->b_u && !backward) memcpy(to, s->b_u, (size_t)p.n * sizeof(real));
}

/* c = a * u (+ b_u), or added to what c holds. */
static void product(const bp_recurrent *s, bool backward, const real *packed, int64_t m, const real *a, int64_t a_row, real *c,
                    int64_t c_row, bool add)
{
    const step_shape p = shape_of(s, backward);
    const int64_t wide = padded(p.n);
    int64_t off[TILE_K_MAX];
    for (int64_t i = 0; i < p.pass; i++) off[i] = i;
    for (int64_t first = 0; first < p.k; first += p.pass) {
        const int64_t k = smaller(p.pass, p.k - first);
        const bool last = first + k == p.k;
        for (int64_t j = 0; j < p.n;) {
            const int vecs = K(tile_vecs)(s->samples, p.n - j);
            const int64_t width = (int64_t)vecs * KLANES;
            const tile_panel t = {
                .m = m,
                .k = k,
                .cols = width,
                .a = a + first,
                .a_row = a_row,
                .off = off,
                .b = packed + first * wide + j * k,
                .b_row = width,
                .vecs = vecs,
                .c = c + j,
                .c_row = c_row,
                .bias = s->b_u && !backward && last ? packed + p.k * wide + j : NULL,
                .load = add || first > 0,
            };
            K(tile_run)(&t);
            j += width;
        }
    }
}

/* ---- the samples of a call ---- */

typedef struct rows {
    int64_t n;                            /* samples */
    int64_t sample[BP_RECURRENT_SAMPLES]; /* their numbers, the longest first */
    int64_t length[BP_RECURRENT_SAMPLES]; /* their steps */
    real *h, *c, *p;                      /* states and product: rows of pitch(units) and pitch(gates * units) */
    int64_t h_row, p_row;
    char *rest; /* scratch of gemm */
} rows;

static size_t rows_bytes(const bp_recurrent *s)
{
    return (size_t)(s->samples * (2 * pitch(s->units) + pitch(s->gates * s->units)) + 2 * KLANES) * sizeof(real);
}

static bp_gemm input_product(const bp_recurrent *s, int64_t m, int64_t at)
{
    const int64_t all = s->gates * s->units;
    return (bp_gemm){ .m = m,
                      .n = all,
                      .k = s->in,
                      .a = (const real *)s->x + at * s->in,
                      .a_row = s->in,
                      .a_col = 1,
                      .b = s->w,
                      .b_row = all,
                      .b_col = 1,
                      .c = (real *)s->z + at * all,
                      .c_row = all,
                      .bias = s->b };
}

size_t K(recurrent_scratch)(const bp_recurrent *s, bool backward)
{
    const bp_gemm g = input_product(s, s->samples * s->steps, 0);
    return ((rows_bytes(s) + 63) & ~(size_t)63) + (backward ? 0 : K(gemm_scratch)(&g));
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
    r->rest = (char *)scratch + ((rows_bytes(s) + 63) & ~(size_t)63);
    memset(scratch, 0, rows_bytes(s));
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

/* What follows the last step of a sample is zero in every array of the sequence. */
static void clear_rest(const rows *r, const bp_recurrent *s, void *array, int64_t width)
{
    if (!array || !s->lengths) return;
    for (int64_t i = 0; i < r->n; i++)
        memset((real *)array + (r->sample[i] * s->steps + r->length[i]) * width, 0,
               (size_t)((s->steps - r->length[i]) * width) * sizeof(real));
}

/* ---- cells: one row. A tail of a row goes through the same arithmetic as a whole vector. ---- */

static inline vec load(const real *p, int64_t left) { return left >= KLANES ? vec_load(p) : vec_load_some(p, 1, (int)left); }
static inline void store(real *p, int64_t left, vec v)
{
    if (left >= KLANES)
        vec_store(p, v);
    else
        vec_store_some(p, 1, (int)left, v);
}

static void lstm(int64_t n, const real *p, real *z, real *h, real *c, real *kept, real *before, real *y)
{
    for (int64_t j = 0; j < n; j += KLANES) {
        const int64_t left = n - j;
        const vec i = vec_sigmoid(load(z + j, left) + vec_load(p + j)), f = vec_sigmoid(load(z + n + j, left) + vec_load(p + n + j));
        const vec g = vec_tanh(load(z + 2 * n + j, left) + vec_load(p + 2 * n + j));
        const vec o = vec_sigmoid(load(z + 3 * n + j, left) + vec_load(p + 3 * n + j));
        const vec cell = f * vec_load(c + j) + i * g, out = o * vec_tanh(cell);
        store(before + j, left, vec_load(h + j));
        store(z + j, left, i);
        store(z + n + j, left, f);
        store(z + 2 * n + j, left, g);
        store(z + 3 * n + j, left, o);
        store(kept + j, left, cell);
        store(y + j, left, out);
        vec_store(c + j, cell);
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

static void gru(int64_t n, const real *p, real *z, real *h, real *kept, real *before, real *y)
{
    for (int64_t j = 0; j < n; j += KLANES) {
        const int64_t left = n - j;
        const vec q = vec_sigmoid(load(z + j, left) + vec_load(p + j)), r = vec_sigmoid(load(z + n + j, left) + vec_load(p + n + j));
        const vec own = vec_load(p + 2 * n + j), new = vec_tanh(load(z + 2 * n + j, left) + r * own);
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

static void simple(bool relu, int64_t n, const real *p, real *y, real *h, real *before)
{
    for (int64_t j = 0; j < n; j += KLANES) {
        const int64_t left = n - j;
        const vec sum = load(y + j, left) + vec_load(p + j), out = relu ? vec_keep(~(vec_i)(sum <= (vec){ 0 }), sum) : vec_tanh(sum);
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
    const int64_t n = s->units, all = s->gates * n;
    real *const y = (real *)s->y, *const z = (real *)s->z, *const kept = (real *)s->kept, *const before = (real *)s->before;
    rows r;
    gather(&r, s, n0, n1, s->h0, s->c0, scratch);
    for (int64_t i = 0; i < r.n; i++) { /* samples one by one where they end early, else all together */
        const bp_gemm g = s->lengths ? input_product(s, r.length[i], r.sample[i] * s->steps)
                                     : input_product(s, r.n * s->steps, n0 * s->steps);
        if (g.m > 0) K(gemm)(&g, r.rest);
        if (!s->lengths) break;
    }
    for (int64_t step = 0; step < s->steps; step++) {
        const int64_t m = running(&r, step);
        if (m == 0) break;
        product(s, false, (const real *)packed, m, r.h, r.h_row, r.p, r.p_row, false);
        for (int64_t i = 0; i < m; i++) {
            const int64_t at = place(&r, s, i, step);
            real *const h = r.h + i * r.h_row, *const p = r.p + i * r.p_row;
            if (s->cell == BP_CELL_LSTM)
                lstm(n, p, z + at * all, h, r.c + i * r.h_row, kept + at * n, before + at * n, y + at * n);
            else if (s->cell == BP_CELL_GRU)
                gru(n, p, z + at * all, h, kept + at * n, before + at * n, y + at * n);
            else
                simple(s->cell == BP_CELL_RELU, n, p, y + at * n, h, before + at * n);
        }
    }
    clear_rest(&r, s, s->y, n);
    clear_rest(&r, s, s->before, n);
    clear_rest(&r, s, s->kept, n);
    if (s->z != s->y) clear_rest(&r, s, s->z, all);
    scatter(&r, s, s->h_n, s->c_n);
}

void K(recurrent_backward)(const bp_recurrent *s, const void *packed, int64_t n0, int64_t n1, void *scratch)
{
    const int64_t n = s->units, all = s->gates * n;
    const real *const dy = (const real *)s->dy, *const y = (const real *)s->y, *const z = (const real *)s->z;
    const real *const kept = (const real *)s->kept, *const before = (const real *)s->before, *const c0 = (const real *)s->c0;
    real *const dz = (real *)s->dz, *const dz_u = (real *)s->dz_u;
    rows r;
    gather(&r, s, n0, n1, s->dh_n, s->dc_n, scratch);
    for (int64_t step = r.n ? r.length[0] - 1 : -1; step >= 0; step--) {
        const int64_t m = running(&r, step);
        for (int64_t i = 0; i < m; i++) {
            const int64_t at = place(&r, s, i, step);
            const real *const dy_at = dy ? dy + at * n : NULL;
            real *const dh = r.h + i * r.h_row, *const d = r.p + i * r.p_row;
            if (s->cell == BP_CELL_LSTM) {
                const real *const old = step > 0 ? kept + place(&r, s, i, step - 1) * n : c0 ? c0 + r.sample[i] * n : NULL;
                lstm_back(n, dy_at, z + at * all, kept + at * n, old, dh, r.c + i * r.h_row, d, dz + at * all);
            } else if (s->cell == BP_CELL_GRU)
                gru_back(n, dy_at, z + at * all, kept + at * n, before + at * n, dh, d, dz + at * all, dz_u + at * all);
            else
                simple_back(s->cell == BP_CELL_RELU, n, dy_at, y + at * n, dh, d, dz + at * n);
        }
        product(s, true, (const real *)packed, m, r.p, r.p_row, r.h, r.h_row, s->cell == BP_CELL_GRU);
    }
    clear_rest(&r, s, s->dz, all);
    clear_rest(&r, s, s->dz_u, all);
    scatter(&r, s, s->dh0, s->dc0);
}
