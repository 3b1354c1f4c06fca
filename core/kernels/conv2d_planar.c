/* conv2d_planar.c - convolutions of stride 1 whose result has few features: vectors along the pixels instead.
 *
 * The tiles of conv2d.c have a lane for each feature; with 3 features 13 of 16 would be empty. Here each channel of the source becomes a
 * plane of its own, zeros beside it, rows F apart. One tap of one channel, seen from all pixels of the result, is then that plane shifted:
 *
 *     forward, input gradient    R[f][q] = sum over taps (a,b), channels c of  w[a][b][c][f] * plane[c][q + (a*dh)*F + b*dw]
 *     weight gradient            dw[a][b][c][f] = sum over q of  plane[c][q + (a*dh)*F + b*dw] * dy[f][q]
 *
 * with q = i*F + j running through the rows without a gap: the F - ow columns between two rows of the result are computed and dropped (in
 * the weight gradient dy is zero there). Some rows of the result are taken at a time, so that their planes stay in the second-level cache.
 *
 * The first is a tile of all features by some vectors of q, an element of R being one chain in the order of the taps, as in tile.h; R is
 * turned to pixels when it is stored. The second is a tile of all features by some taps, each of its sums a vector along q that is added
 * up across its lanes once per image. So nothing depends on how images are cut. */
#include "conv2d_planar.h"

#include "carve.h"
#include "conv2d_spread.h"
#include "tile.h"
#include "vmath.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    MOST = KLANES / 2 < 8 ? KLANES / 2 : 8, /* features */
    BEYOND = 8 * KLANES,                    /* how far a tile may reach beyond the last row */
};
#define PLANES_BYTES (256 * 1024)
#define SUMS_BYTES (2 << 20)

/* Beside f features in a tile: vectors of q, each in a register next to its f accumulators, and steps, next to f vectors of dy. */
#define REGISTERS (TILE_ACC == 24 ? 30 : 14)
#define AT_MOST_8(n) ((n) > 8 ? 8 : (n))
#define WIDE(f) AT_MOST_8(REGISTERS / ((f) + 1))
#define DEEP(f) AT_MOST_8((REGISTERS - (f)) / (f))

/* ---- geometry ---- */

typedef struct planar {
    int64_t channels, h, w;        /* of the source */
    int64_t features, oh, ow;      /* of the result */
    int64_t top, left;             /* row and column of the source that the first tap of the first pixel may reach, if the least */
    int64_t full;                  /* F, columns of a plane */
    int64_t rows, plane, q;        /* of the result at a time, elements of a plane and of R (or of a plane of dy) for as many */
    int64_t steps;                 /* taps times channels */
    int64_t *shift, *order;        /* [steps] where plane and tap of a step begin; the steps of one channel together */
    real *planes, *other, *packed; /* [channels][plane]; R[features][q] or dy[features][q]; weights [steps][features] */
    vec *sums;                     /* [steps][features] */
} planar;

static int64_t reach(const bp_conv_shape *s, bool rows) { return rows ? (s->kh - 1) * s->dh : (s->kw - 1) * s->dw; }

/* The gradient of the input is a convolution of dy with the weights turned round. */
static planar planar_of(const bp_conv_shape *s, bool gradient)
{
    planar p = gradient ? (planar){ .channels = s->oc, .h = s->oh, .w = s->ow, .features = s->c, .oh = s->h, .ow = s->w }
                        : (planar){ .channels = s->c, .h = s->h, .w = s->w, .features = s->oc, .oh = s->oh, .ow = s->ow };
    p.top = gradient ? s->ph - reach(s, true) : -s->ph;
    p.left = gradient ? s->pw - reach(s, false) : -s->pw;
    p.full = p.ow + reach(s, false);
    p.steps = s->kh * s->kw * p.channels;
    const int64_t fit = PLANES_BYTES / (int64_t)sizeof(real) / (p.channels * p.full) - reach(s, true);
    p.rows = fit < 4 ? 4 : fit;
    if (p.rows > p.oh) p.rows = p.oh;
    p.plane = (p.rows + reach(s, true)) * p.full;
    p.q = p.rows * p.full + BEYOND;
    return p;
}

static size_t planar_scratch(planar *p, bool sums, void *scratch)
{
    carve at = { (char *)scratch, 0 };
    p->shift = (int64_t *)take(&at, p->steps, sizeof(int64_t));
    p->order = (int64_t *)take(&at, sums ? p->steps : 0, sizeof(int64_t));
    p->planes = (real *)take(&at, p->channels * p->plane + BEYOND + p->full, sizeof(real));
    p->other = (real *)take(&at, p->features * p->q, sizeof(real));
    p->packed = (real *)take(&at, sums ? 0 : p->steps * p->features, sizeof(real));
    p->sums = (vec *)take(&at, sums ? p->steps * p->features + KLANES : 0, sizeof(vec));
    return at.used;
}

/* Times are in multiply-adds of a vector and for one row of the result, so that where an image is cut has no say. */

/* The tiles, and moving numbers between pixels and planes: few channels at once, many one by one and in short rows a number at a time. */
static double cost(const planar *p)
{
    const double tiles = (double)p->full / KLANES * (double)(p->steps * p->features);
    const double numbers = (double)(p->w * p->channels), rest = (double)(p->w % KLANES * p->channels);
    return tiles + 4.0 * (double)(p->ow * p->features) +
           (p->channels > MOST ? 2 * numbers + 14 * rest + 40.0 * (double)p->channels : 4 * numbers);
}

static bool fits(const planar *p, const bp_conv_shape *s)
{
    return s->sh == 1 && s->sw == 1 && p->features >= 1 && p->features <= MOST && p->channels > 0;
}

/* Those of conv2d.c, which run at three fifths of their speed when they are one vector wide. */
static double direct_cost(const planar *p) { return (double)(p->ow * p->steps) / 0.6; }

/* Results of so few features that lanes along them would be half empty, in rows of pixels long enough that the columns between them do not
 * eat up the gain. */
bool K(conv2d_planar_gathers)(const bp_conv_shape *s, bool gradient)
{
    const planar p = planar_of(s, gradient);
    const double other = !gradient ? direct_cost(&p) : conv_spreads(s) ? conv_spread_cost(s) : conv_gather_cost(s);
    return fits(&p, s) && cost(&p) < other;
}

double K(conv2d_planar_cost)(const bp_conv_shape *s, bool gradient)
{
    const planar p = planar_of(s, gradient);
    return cost(&p);
}

/* Adding up across lanes comes once per image. */
bool K(conv2d_planar_sums)(const bp_conv_shape *s)
{
    const planar p = planar_of(s, false);
    const double sums = (double)(p.steps * p.features);
    return fits(&p, s) && sums * sizeof(vec) <= SUMS_BYTES && cost(&p) + 8 * sums / (double)(p.oh + 1) < direct_cost(&p);
}

size_t K(conv2d_planar_scratch)(const bp_conv_shape *s)
{
    size_t most = 0;
    for (int kind = 0; kind < 3; kind++) {
        const bool sums = kind == 2, fits = sums ? K(conv2d_planar_sums)(s) : K(conv2d_planar_gathers)(s, kind == 1);
        planar p = planar_of(s, kind == 1);
        const size_t need = fits ? planar_scratch(&p, sums, NULL) : 0;
        if (need > most) most = need;
    }
    return most;
}

/* ---- pixels to planes and back ---- */

/* KLANES pixels of f features are f vectors. For each vector of the one side and each of the other: which of its lanes go where. */
typedef struct turn {
    vec_i from[MOST][MOST], own[MOST][MOST]; /* [vector of the result][vector of the source] */
} turn;

static void turn_of(int64_t f, bool to_pixels, turn *t)
{
    int64_t pixel = 0, feature = 0;
    memset(t, 0, sizeof *t);
    for (int64_t v = 0; v < f; v++)
        for (int64_t l = 0; l < KLANES; l++) {
            /* lane l of vector v of the pixels is this feature of this pixel */
            if (to_pixels) {
                t->from[v][feature][l] = (lane_int)pixel;
                t->own[v][feature][l] = -1;
            } else {
                t->from[feature][v][pixel] = (lane_int)l;
                t->own[feature][v][pixel] = -1;
            }
            if (++feature == f) feature = 0, pixel++;
        }
}

INLINE vec turned(const turn *t, int64_t f, int64_t r, const vec *v)
{
    vec_i all = (vec_i)__builtin_shuffle(v[0], t->from[r][0]) & t->own[r][0];
    for (int64_t k = 1; k < f; k++) all |= (vec_i)__builtin_shuffle(v[k], t->from[r][k]) & t->own[r][k];
    return (vec)all;
}

/* A row of pixels to one row of each plane, few channels. */
static void part_few(const turn *t, int64_t f, const real *from, int64_t pixels, real *to, int64_t plane)
{
    int64_t j = 0;
    for (; j + KLANES <= pixels; j += KLANES) {
        vec v[MOST];
        for (int64_t k = 0; k < f; k++) v[k] = vec_load(from + j * f + k * KLANES);
        for (int64_t r = 0; r < f; r++) vec_store(to + r * plane + j, turned(t, f, r, v));
    }
    if (j < pixels && pixels >= KLANES) { /* overlaps the one before, with the same values */
        part_few(t, f, from + (pixels - KLANES) * f, KLANES, to + pixels - KLANES, plane);
        return;
    }
    for (; j < pixels; j++)
        for (int64_t r = 0; r < f; r++) to[r * plane + j] = from[j * f + r];
}

/* The same for many: KLANES pixels at a time are turned over into `room` and laid out. */
static void part_many(int64_t channels, const real *from, int64_t pixels, real *to, int64_t plane)
{
    enum { AT_ONCE = 32 };
    real room[AT_ONCE * KLANES];
    for (int64_t j = 0; j < pixels; j += KLANES) {
        const int64_t cols = pixels - j < KLANES ? pixels - j : KLANES;
        for (int64_t c = 0; c < channels; c += AT_ONCE) {
            const int64_t some = channels - c < AT_ONCE ? channels - c : AT_ONCE;
            K(tile_pack)(room, 1, from + j * channels + c, 1, channels, some, cols);
            for (int64_t k = 0; k < some; k++)
                if (cols == KLANES)
                    vec_store(to + (c + k) * plane + j, vec_load(room + k * KLANES));
                else
                    memcpy(to + (c + k) * plane + j, room + k * KLANES, (size_t)cols * sizeof(real));
        }
    }
}

static void part(const turn *t, int64_t channels, const real *from, int64_t pixels, real *to, int64_t plane)
{
    if (channels == 1)
        memcpy(to, from, (size_t)pixels * sizeof(real));
    else if (channels <= MOST)
        part_few(t, channels, from, pixels, to, plane);
    else
        part_many(channels, from, pixels, to, plane);
}

/* Rows first..end-1 of the planes, row 0 being row i0 + top of the source x, which is one image. */
static void fill_planes(const planar *p, const turn *t, const real *x, int64_t i0, int64_t first, int64_t end)
{
    const int64_t before = p->left < 0 ? (-p->left < p->full ? -p->left : p->full) : 0, column = p->left > 0 ? p->left : 0;
    int64_t inside = p->w - column < p->full - before ? p->w - column : p->full - before;
    if (inside < 0) inside = 0;
    for (int64_t r = first; r < end; r++) {
        const int64_t row = i0 + p->top + r;
        real *const to = p->planes + r * p->full;
        const bool outside = row < 0 || row >= p->h;
        for (int64_t c = 0; c < p->channels; c++) {
            real *const line = to + c * p->plane;
            for (int64_t u = 0; u < (outside ? p->full : before); u++) line[u] = 0;
            for (int64_t u = outside ? p->full : before + inside; u < p->full; u++) line[u] = 0;
        }
        if (!outside && inside > 0) part(t, p->channels, x + (row * p->w + column) * p->channels, inside, to + before, p->plane);
    }
}

/* The planes that rows i..i+rows-1 of the result see. What the rows before them saw too is there already. */
static void next_planes(const planar *p, const bp_conv_shape *s, const turn *t, const real *x, int64_t i, int64_t rows)
{
    const int64_t kept = i > 0 ? reach(s, true) : 0;
    for (int64_t c = 0; c < p->channels && kept > 0; c++) {
        real *const plane = p->planes + c * p->plane;
        memmove(plane, plane + p->rows * p->full, (size_t)(kept * p->full) * sizeof(real));
    }
    fill_planes(p, t, x, i, kept, rows + reach(s, true));
}

/* Where the planes of each step begin; taps in the order of the weights, turned round for the gradient. Beyond the planes lie zeros. */
static void place_steps(const planar *p, const bp_conv_shape *s, bool gradient)
{
    int64_t *to = p->shift;
    memset(p->planes + p->channels * p->plane, 0, (size_t)(BEYOND + p->full) * sizeof(real));
    for (int64_t a = 0; a < s->kh; a++)
        for (int64_t b = 0; b < s->kw; b++)
            for (int64_t c = 0; c < p->channels; c++)
                *to++ = c * p->plane + (gradient ? s->kh - 1 - a : a) * s->dh * p->full + (gradient ? s->kw - 1 - b : b) * s->dw;
}

/* ---- forward and input gradient ---- */

/* R[f][q..] for WIDE(f) vectors of q. */
INLINE void gather_tile(const int f, const planar *p, const real *w, int64_t q, int64_t first, int64_t steps)
{
    enum { MAX = 8 };
    const int wide = WIDE(f);
    vec acc[MOST][MAX];
#pragma GCC unroll 8
    for (int i = 0; i < f; i++)
#pragma GCC unroll 8
        for (int v = 0; v < wide; v++) acc[i][v] = (vec){ 0 };
    const real *const from = p->planes + q;
    const int64_t *shift = p->shift + first, *const end = shift + steps;
    for (w += first * f; shift < end; shift++, w += f) {
        const real *const at = from + *shift;
        vec x[MAX];
#pragma GCC unroll 8
        for (int v = 0; v < wide; v++) x[v] = vec_load(at + v * KLANES);
#pragma GCC unroll 8
        for (int i = 0; i < f; i++) {
            const vec weight = vec_set(w[i]);
#pragma GCC unroll 8
            for (int v = 0; v < wide; v++) acc[i][v] += weight * x[v];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < f; i++)
#pragma GCC unroll 8
        for (int v = 0; v < wide; v++) {
            real *const to = p->other + i * p->q + q + v * KLANES;
            vec_store(to, first > 0 ? vec_load(to) + acc[i][v] : acc[i][v]);
        }
}

/* The first `count` of q, in passes over the steps as tile.h has them. */
INLINE void gather_block(const int f, const planar *p, const real *w, int64_t count)
{
    const int64_t pass = tile_k_pass(p->steps);
    for (int64_t q = 0; q < count; q += WIDE(f) * KLANES)
        for (int64_t first = 0; first < p->steps; first += pass)
            gather_tile(f, p, w, q, first, p->steps - first < pass ? p->steps - first : pass);
}

typedef void gather_fn(const planar *p, const real *w, int64_t count);
typedef void sum_fn(const planar *p, int64_t count);

/* One row of R to pixels, with bias and activation. */
static void join_row(const planar *p, const turn *t, const real *r, const real *bias, bp_act act, real *y)
{
    const int64_t f = p->features;
    for (int64_t j = 0; j < p->ow; j += KLANES) {
        const int64_t left = p->ow - j < KLANES ? p->ow - j : KLANES;
        real room[MOST * KLANES];
        real *const to = left == KLANES ? y + j * f : room;
        vec v[MOST] = { { 0 } };
        for (int64_t i = 0; i < f; i++) {
            v[i] = vec_load(r + i * p->q + j);
            if (bias) v[i] += vec_set(bias[i]);
            if (act == BP_ACT_RELU) v[i] = vec_keep(~(vec_i)(v[i] <= (vec){ 0 }), v[i]); /* lets NaN through */
        }
        for (int64_t k = 0; k < f; k++) vec_store(to + k * KLANES, f == 1 ? v[0] : turned(t, f, k, v));
        if (to == room) memcpy(y + j * f, room, (size_t)(left * f) * sizeof(real));
    }
}

/* ---- weight gradient ---- */

/* Adds to the sums of DEEP(f) steps, of which the last may stand there more than once. */
INLINE void sum_tile(const int f, const planar *p, const int64_t *order, int64_t steps, int64_t count)
{
    enum { MAX = 8 };
    const int wide = DEEP(f);
    vec acc[MOST][MAX];
    const real *x[MAX];
#pragma GCC unroll 8
    for (int k = 0; k < wide; k++) {
        const int64_t step = order[k < steps ? k : steps - 1];
        x[k] = p->planes + p->shift[step];
#pragma GCC unroll 8
        for (int i = 0; i < f; i++) acc[i][k] = p->sums[step * f + i];
    }
    for (int64_t q = 0; q < count; q += KLANES) {
        vec dy[MOST];
#pragma GCC unroll 8
        for (int i = 0; i < f; i++) dy[i] = vec_load(p->other + i * p->q + q);
#pragma GCC unroll 8
        for (int k = 0; k < wide; k++) {
            const vec one = vec_load(x[k] + q);
#pragma GCC unroll 8
            for (int i = 0; i < f; i++) acc[i][k] += dy[i] * one;
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < wide; k++)
        if (k < steps)
#pragma GCC unroll 8
            for (int i = 0; i < f; i++) p->sums[order[k] * f + i] = acc[i][k];
}

INLINE void sum_block(const int f, const planar *p, int64_t count)
{
    for (int64_t k = 0; k < p->steps; k += DEEP(f)) sum_tile(f, p, p->order + k, p->steps - k < DEEP(f) ? p->steps - k : DEEP(f), count);
}

#define FEATURES(f)                                                                                           \
    static void gather_##f(const planar *p, const real *w, int64_t count) { gather_block(f, p, w, count); } \
    static void sum_##f(const planar *p, int64_t count) { sum_block(f, p, count); }
/* clang-format off */
FEATURES(1)
#if KLANES >= 4
FEATURES(2)
#endif
#if KLANES >= 8
FEATURES(3) FEATURES(4)
#endif
#if KLANES >= 16
FEATURES(5) FEATURES(6) FEATURES(7) FEATURES(8)
#endif
static gather_fn *const gathers[MOST] = {
    gather_1,
#if KLANES >= 4
    gather_2,
#endif
#if KLANES >= 8
    gather_3, gather_4,
#endif
#if KLANES >= 16
    gather_5, gather_6, gather_7, gather_8,
#endif
};
static sum_fn *const summers[MOST] = {
    sum_1,
#if KLANES >= 4
    sum_2,
#endif
#if KLANES >= 8
    sum_3, sum_4,
#endif
#if KLANES >= 16
    sum_5, sum_6, sum_7, sum_8,
#endif
};
/* clang-format on */

/* v and its lanes `half` further on. */
INLINE vec fold(vec v, const int half)
{
    vec_i other;
#pragma GCC unroll 16
    for (int l = 0; l < KLANES; l++) other[l] = (lane_int)((l + half) % KLANES);
    return v + __builtin_shuffle(v, other);
}

/* dw[k] += the sum of the lanes of sums[k], as a tree. */
static void add_lanes(const vec *sums, int64_t count, real *dw)
{
    for (int64_t k = 0; k < count; k++) {
        vec v = sums[k];
#if KLANES >= 16
        v = fold(v, 8);
#endif
#if KLANES >= 8
        v = fold(v, 4);
#endif
#if KLANES >= 4
        v = fold(v, 2);
#endif
        dw[k] += fold(v, 1)[0];
    }
}

/* ---- whole images ---- */

void K(conv2d_planar_gather)(const bp_conv_shape *s, bool gradient, const real *from, const real *w, const real *bias, bp_act act, real *to,
                             int64_t n0, int64_t n1, void *scratch)
{
    planar p = planar_of(s, gradient);
    planar_scratch(&p, false, scratch);
    place_steps(&p, s, gradient);
    turn in, out;
    if (p.channels <= MOST) turn_of(p.channels, false, &in);
    turn_of(p.features, true, &out);
    if (gradient)
        for (int64_t step = 0; step < p.steps; step++)
            for (int64_t c = 0; c < s->c; c++) p.packed[step * s->c + c] = w[(step / s->oc * s->c + c) * s->oc + step % s->oc];
    const real *const weights = gradient ? p.packed : w;
    for (int64_t n = n0; n < n1; n++)
        for (int64_t i = 0; i < p.oh; i += p.rows) {
            const int64_t rows = p.oh - i < p.rows ? p.oh - i : p.rows;
            next_planes(&p, s, &in, from + n * p.h * p.w * p.channels, i, rows);
            gathers[p.features - 1](&p, weights, (rows - 1) * p.full + p.ow);
            for (int64_t r = 0; r < rows; r++)
                join_row(&p, &out, p.other + r * p.full, bias, act, to + ((n * p.oh + i + r) * p.ow) * p.features);
        }
}

void K(conv2d_planar_sum)(const bp_conv_shape *s, const real *x, const real *dy, real *dw, int64_t n0, int64_t n1, void *scratch)
{
    planar p = planar_of(s, false);
    planar_scratch(&p, true, scratch);
    place_steps(&p, s, false);
    for (int64_t c = 0, k = 0; c < p.channels; c++)
        for (int64_t step = c; step < p.steps; step += p.channels) p.order[k++] = step;
    turn in, few;
    if (p.channels <= MOST) turn_of(p.channels, false, &in);
    turn_of(p.features, false, &few);
    memset(p.other, 0, (size_t)(p.features * p.q) * sizeof(real)); /* and so remain the columns between the rows */
    for (int64_t n = n0; n < n1; n++) {
        memset(p.sums, 0, (size_t)(p.steps * p.features) * sizeof(vec));
        for (int64_t i = 0; i < p.oh; i += p.rows) {
            const int64_t rows = p.oh - i < p.rows ? p.oh - i : p.rows, count = (rows - 1) * p.full + p.ow;
            next_planes(&p, s, &in, x + n * p.h * p.w * p.channels, i, rows);
            for (int64_t r = 0; r < rows; r++)
                part(&few, p.features, dy + (n * p.oh + i + r) * p.ow * p.features, p.ow, p.other + r * p.full, p.q);
            for (int64_t f = 0; f < p.features; f++) memset(p.other + f * p.q + count, 0, (size_t)(p.q - count) * sizeof(real));
            summers[p.features - 1](&p, count);
        }
        add_lanes(p.sums, p.steps * p.features, dw);
    }
}
