/* conv2d_across.c - convolutions of many images with few features or channels: a lane for each image.
 *
 * Lanes along features are empty where those fill no vector. Of KLANES images the same number of each makes one vector, whatever the
 * channels, features, taps, strides or zeros beside the image are. Rows of the source are turned over as they are needed, [pixel][channel]
 * [image], into a ring with zeros beside them; then
 *
 *     forward, input gradient    y[i][j][f] = sum over taps (a,b), channels c of  source[row(i, a)][column(j, b)][c] * w[a][b][c][f]
 *     weight gradient            dw[a][b][c][f] = sum over i, j of  source[row(i, a)][column(j, b)][c] * dy[i][j][f]
 *
 * are the same sums for every lane. The first is a tile of some pixels by some features: a vector of each pixel and a broadcast weight in
 * each step; taps that lie outside for all its pixels are left out. The second is a tile of some (tap, channel) by some features, over some
 * rows of dy at a time; its sums are vectors, added up across their lanes when a call ends. A row of the result is turned back. */
#include "carve.h"
#include "conv2d_planar.h"
#include "conv2d_spread.h"
#include "tile.h"
#include "transpose.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

enum {
    MOST = 6,   /* features of a tile */
    SIDE = 8,   /* most pixels, or steps, of a tile */
    CHAINS = 8, /* sums at a time that hide the latency of one */
    DY_BYTES = 24 * 1024,
    SOURCE_BYTES = 512 * 1024, /* of the ring */
    SUMS_BYTES = 128 * 1024,   /* a quarter of a second-level cache */
};

typedef struct across {
    int64_t channels, h, w;                                   /* of the source */
    int64_t features, oh, ow;                                 /* of the result */
    int64_t kh, kw, row_steps;                                /* row_steps: (tap, channel) in a row of taps */
    int64_t row0, row_step, row_tap, col0, col_step, col_tap; /* result i meets, by tap a, source row0 + i*row_step + a*row_tap */
    int64_t left, line;                                       /* columns of zeros before the image; numbers in a row of the ring */
    int64_t lines, block;                                     /* rows of the ring; of dy at a time */
    int64_t have;                                             /* rows of the source before this one are, or were, in the ring */
    int64_t *off;                                             /* [row_steps] where in a row a step lies, from tap 0, channel 0 */
    int64_t *low, *high;                                      /* [ow] taps low..high-1 of a row lie inside; none: kw, 0 */
    const real **tap_rows;                                    /* [kh] */
    real *ring, *row, *packed; /* a row of the result, or `block` of dy; weights [group of features][tap][channel][feature] */
    vec *sums;                 /* [tap][channel][feature] */
} across;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t up(int64_t a, int64_t b) { return (a + b - 1) / b; }

static across across_of(const bp_conv_shape *s, bool gradient, bool sums)
{
    across p = { .kh = s->kh, .kw = s->kw };
    if (gradient) {
        p.channels = s->oc, p.h = s->oh, p.w = s->ow, p.features = s->c, p.oh = s->h, p.ow = s->w;
        p.row0 = s->ph, p.row_step = 1, p.row_tap = -s->dh, p.col0 = s->pw, p.col_step = 1, p.col_tap = -s->dw;
    } else {
        p.channels = s->c, p.h = s->h, p.w = s->w, p.features = s->oc, p.oh = s->oh, p.ow = s->ow;
        p.row0 = -s->ph, p.row_step = s->sh, p.row_tap = s->dh, p.col0 = -s->pw, p.col_step = s->sw, p.col_tap = s->dw;
    }
    const int64_t far = (p.kw - 1) * p.col_tap, end = p.col0 + (p.ow - 1) * p.col_step;
    p.left = most(0, -(p.col0 + least(far, 0)));
    p.line = (p.left + most(p.w, end + most(far, 0) + 1)) * p.channels * KLANES;
    p.row_steps = p.kw * p.channels;
    p.block = sums ? most(1, least(p.oh, DY_BYTES / (int64_t)sizeof(vec) / most(p.ow * p.features, 1))) : 1;
    p.lines = (p.block - 1) * p.row_step + (s->kh - 1) * s->dh + 1;
    return p;
}

static size_t across_scratch(across *p, bool sums, void *scratch)
{
    carve at = { (char *)scratch, 0 };
    const int64_t weights = p->kh * p->row_steps * p->features;
    p->off = (int64_t *)take(&at, p->row_steps, sizeof(int64_t));
    p->low = (int64_t *)take(&at, p->ow, sizeof(int64_t));
    p->high = (int64_t *)take(&at, p->ow, sizeof(int64_t));
    p->tap_rows = (const real **)take(&at, p->kh, sizeof(real *));
    p->ring = (real *)take(&at, p->lines * p->line, sizeof(real));
    p->row = (real *)take(&at, p->block * p->ow * p->features, sizeof(vec));
    p->packed = (real *)take(&at, sums ? 0 : weights, sizeof(real));
    p->sums = (vec *)take(&at, sums ? weights : 0, sizeof(vec));
    return at.used;
}

/* ---- when ---- */

/* The time of a row of the result of one image, in multiply-adds of a vector. */
static double cost(const bp_conv_shape *s, const across *p, double taps)
{
    const double numbers = (double)(p->w * p->channels * p->row_step + p->ow * p->features);
    const double waste = (double)(up(s->n, KLANES) * KLANES) / (double)s->n;
    return waste * (taps * (double)(p->channels * p->features) / 0.8 + 10 * numbers) / KLANES;
}

/* Tiles of conv2d.c run at three fifths of the peak where they are one vector wide, else at four fifths. */
static double direct_cost(const across *p)
{
    const int64_t vectors = up(p->features, KLANES), narrow = TILE_VECS == 2 ? vectors % 2 : vectors == 1;
    return (double)(p->ow * p->kh * p->row_steps) * ((double)(vectors - narrow) / 0.8 + (double)narrow / 0.6);
}

bool K(conv2d_across_pays)(const bp_conv_shape *s, bool gradient, bool sums)
{
    const across p = across_of(s, gradient, sums);
    if (KLANES < 4 || s->n < 2 * KLANES || p.oh < 1 || p.ow < 1 || p.channels < 1 || p.features < 1) return false;
    if ((gradient && (s->sh > 1 || s->sw > 1)) || p.lines * p.line * (int64_t)sizeof(real) > SOURCE_BYTES) return false;
    if (sums && p.kh * p.row_steps * p.features * (int64_t)sizeof(vec) > SUMS_BYTES) return false;
    if (!gradient && !sums && p.kh * p.row_steps > BP_PASS_MAX) return false;
    const double own = cost(s, &p, (double)(p.kh * p.kw) * (double)(gradient ? least(s->ow + 1, s->w) : s->ow));
    const bool planar = sums ? K(conv2d_planar_sums)(s) : K(conv2d_planar_gathers)(s, gradient);
    const double other = planar            ? K(conv2d_planar_cost)(s, gradient)
                         : !gradient       ? direct_cost(&p)
                         : conv_spreads(s) ? conv_spread_cost(s)
                                           : conv_gather_cost(s);
    return own < 0.9 * other;
}

size_t K(conv2d_across_scratch)(const bp_conv_shape *s)
{
    size_t all = 0;
    for (int kind = 0; kind < 3; kind++) {
        across p = across_of(s, kind == 1, kind == 2);
        const size_t need = across_scratch(&p, kind == 2, NULL);
        if (need > all) all = need;
    }
    return all;
}

/* ---- images to lanes and back ---- */

/* `count` numbers of each image, `image` apart; the lanes of those that are not there become zero. */
static void to_lanes(real *to, const real *from, int64_t image, int64_t images, int64_t count)
{
    const int64_t whole = count < KLANES ? count : count / KLANES * KLANES, last = count - KLANES;
    K(tile_pack)(to, 1, from, 1, image, whole, images);
    if (whole < count) K(tile_pack)(to + last * KLANES, 1, from + last, 1, image, KLANES, images);
}

static void from_lanes(real *to, int64_t image, int64_t images, const real *from, int64_t count)
{
    for (int64_t p = 0; p < count && count < KLANES; p++)
        for (int64_t n = 0; n < images; n++) to[n * image + p] = from[p * KLANES + n];
    for (int64_t p = 0; p < count && count >= KLANES; p += KLANES) {
        if (p + KLANES > count) p = count - KLANES;
        vec r[KLANES];
#pragma GCC unroll 16
        for (int i = 0; i < KLANES; i++) r[i] = vec_load(from + (p + i) * KLANES);
        vec_transpose(r);
#pragma GCC unroll 16
        for (int i = 0; i < KLANES; i++)
            if (i < images) vec_store(to + i * image + p, r[i]);
    }
}

static real *line_of(const across *p, int64_t row) { return p->ring + row % p->lines * p->line; }

/* What rows i..i+rows-1 of the result see of the source. */
static void bring(across *p, const real *from, int64_t images, int64_t i, int64_t rows)
{
    const int64_t far = (p->kh - 1) * p->row_tap, at = p->row0 + i * p->row_step;
    const int64_t end = least(p->h, at + (rows - 1) * p->row_step + most(far, 0) + 1), width = p->w * p->channels;
    for (int64_t row = most(p->have, at + least(far, 0)); row < end; row++)
        to_lanes(line_of(p, row) + p->left * p->channels * KLANES, from + row * width, p->h * width, images, width);
    p->have = most(p->have, end);
}

static void prepare(across *p)
{
    memset(p->ring, 0, (size_t)(p->lines * p->line) * sizeof(real));
    for (int64_t b = 0, step = 0; b < p->kw; b++)
        for (int64_t c = 0; c < p->channels; c++) p->off[step++] = (b * p->col_tap * p->channels + c) * KLANES;
    for (int64_t j = 0; j < p->ow; j++) {
        const int64_t at = p->col0 + j * p->col_step;
        int64_t low = 0, high = p->kw;
        while (low < high && (at + low * p->col_tap < 0 || at + low * p->col_tap >= p->w)) low++;
        while (low < high && (at + (high - 1) * p->col_tap < 0 || at + (high - 1) * p->col_tap >= p->w)) high--;
        p->low[j] = low;
        p->high[j] = low < high ? high : 0;
    }
}

/* Part q of `parts` of n, as equal as possible: where it begins. */
static int64_t begin_of(int64_t n, int64_t parts, int64_t q) { return n / parts * q + least(q, n % parts); }

/* ---- forward and input gradient ---- */

typedef struct gather_tile {
    const real *const *rows; /* of the source, for each row of taps: where tap 0, channel 0 of the first pixel lies */
    int64_t taps;            /* rows of them */
    int64_t column, step;    /* of the first pixel; from a pixel to the next */
    const int64_t *off;
    int64_t steps;
    const real *w;
    int64_t w_row;
    const real *bias;
    bp_act act;
    real *out;
    int64_t out_step;
} gather_tile;

INLINE void gather(const int f, const int pixels, const gather_tile *t)
{
    vec acc[SIDE][MOST];
#pragma GCC unroll 8
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 8
        for (int i = 0; i < f; i++) acc[p][i] = (vec){ 0 };
    const int64_t step = t->step;
    for (int64_t a = 0; a < t->taps; a++) {
        const real *const at = t->rows[a] + t->column, *w = t->w + a * t->w_row;
        for (const int64_t *off = t->off, *const end = off + t->steps; off < end; off++, w += f) {
            const real *const from = at + *off;
            vec x[SIDE];
#pragma GCC unroll 8
            for (int p = 0; p < pixels; p++) x[p] = vec_load(from + p * step);
#pragma GCC unroll 8
            for (int i = 0; i < f; i++) {
                const vec weight = vec_set(w[i]);
#pragma GCC unroll 8
                for (int p = 0; p < pixels; p++) acc[p][i] += weight * x[p];
            }
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < f; i++) {
        const vec bias = vec_set(t->bias ? t->bias[i] : 0);
#pragma GCC unroll 8
        for (int p = 0; p < pixels; p++) {
            vec v = acc[p][i];
            if (t->bias) v += bias;
            if (t->act == BP_ACT_RELU) v = vec_keep(~(vec_i)(v <= (vec){ 0 }), v); /* lets NaN through */
            vec_store(t->out + p * t->out_step + i * KLANES, v);
        }
    }
}

/* ---- weight gradient ---- */

typedef struct sum_tile {
    const across *p;
    int64_t i, i0, i1;    /* the first row in p->row; those to add up */
    int64_t tap, step, f; /* row of taps, the first step in it and the first feature */
} sum_tile;

INLINE void sum(const int f, const int steps, const sum_tile *t)
{
    const across *const p = t->p;
    vec acc[SIDE][MOST], *const sums = p->sums + (t->tap * p->row_steps + t->step) * p->features + t->f;
    int64_t off[SIDE];
#pragma GCC unroll 8
    for (int k = 0; k < steps; k++) {
        off[k] = p->off[t->step + k];
#pragma GCC unroll 8
        for (int i = 0; i < f; i++) acc[k][i] = sums[k * p->features + i];
    }
    const int64_t x_step = p->col_step * p->channels * KLANES, dy_step = p->features * KLANES, first = (p->left + p->col0) * p->channels;
    for (int64_t i = t->i0; i < t->i1; i++) {
        const real *x = line_of(p, p->row0 + i * p->row_step + t->tap * p->row_tap) + first * KLANES;
        const real *dy = p->row + (i - t->i) * p->ow * dy_step + t->f * KLANES, *const end = dy + p->ow * dy_step;
        for (; dy < end; dy += dy_step, x += x_step) {
            vec d[MOST];
#pragma GCC unroll 8
            for (int n = 0; n < f; n++) d[n] = vec_load(dy + n * KLANES);
#pragma GCC unroll 8
            for (int k = 0; k < steps; k++) {
                const vec one = vec_load(x + off[k]);
#pragma GCC unroll 8
                for (int n = 0; n < f; n++) acc[k][n] += d[n] * one;
            }
        }
    }
#pragma GCC unroll 8
    for (int k = 0; k < steps; k++)
#pragma GCC unroll 8
        for (int i = 0; i < f; i++) sums[k * p->features + i] = acc[k][i];
}

/* ---- tiles: features by pixels or steps ---- */

typedef void gather_fn(const gather_tile *t);
typedef void sum_fn(const sum_tile *t);

#define TILE(f, side)                                                            \
    static void gather_##f##x##side(const gather_tile *t) { gather(f, side, t); } \
    static void sum_##f##x##side(const sum_tile *t) { sum(f, side, t); }
#define SIDES_2(of, f) of(f, 1) of(f, 2)
#define SIDES_3(of, f) SIDES_2(of, f) of(f, 3)
#define SIDES_4(of, f) SIDES_3(of, f) of(f, 4)
#define SIDES_6(of, f) SIDES_4(of, f) of(f, 5) of(f, 6)
#define SIDES_8(of, f) SIDES_6(of, f) of(f, 7) of(f, 8)
/* clang-format off */
#if TILE_ACC == 24
#define ROWS(of, begin, end) \
    begin SIDES_8(of, 1) end begin SIDES_8(of, 2) end begin SIDES_8(of, 3) end \
    begin SIDES_6(of, 4) end begin SIDES_4(of, 5) end begin SIDES_4(of, 6) end
static const int most_side[MOST] = { 8, 8, 8, 6, 4, 4 };
#else
#define ROWS(of, begin, end) \
    begin SIDES_8(of, 1) end begin SIDES_6(of, 2) end begin SIDES_4(of, 3) end \
    begin SIDES_3(of, 4) end begin SIDES_2(of, 5) end begin SIDES_2(of, 6) end
static const int most_side[MOST] = { 8, 6, 4, 3, 2, 2 };
#endif
#define NOTHING
ROWS(TILE, NOTHING, NOTHING)
#define GATHER(f, side) gather_##f##x##side,
#define SUM(f, side) sum_##f##x##side,
#define BEGIN {
#define END },
static gather_fn *const gathers[MOST][SIDE] = { ROWS(GATHER, BEGIN, END) };
static sum_fn *const summers[MOST][SIDE] = { ROWS(SUM, BEGIN, END) };
/* clang-format on */

/* How many groups of features: those whose tiles over `side` pixels or steps take the least time, a tile taking at least as long as the
 * latency of one step. */
static int64_t groups_of(int64_t features, int64_t side)
{
    int64_t best = 0, best_time = 0;
    for (int64_t groups = up(features, MOST); groups <= features; groups++) {
        int64_t time = 0;
        for (int64_t g = 0; g < groups; g++) {
            const int64_t f = begin_of(features, groups, g + 1) - begin_of(features, groups, g), tiles = up(side, most_side[f - 1]);
            for (int64_t q = 0; q < tiles; q++) time += 2 + most(CHAINS, f * (begin_of(side, tiles, q + 1) - begin_of(side, tiles, q)));
        }
        if (best == 0 || time < best_time) best = groups, best_time = time;
    }
    return best;
}

static void pack_weights(const across *p, const real *w, bool gradient, int64_t groups)
{
    const int64_t taps = p->kh * p->kw, step_row = gradient ? 1 : p->features, column = gradient ? p->channels : 1;
    real *to = p->packed;
    for (int64_t g = 0; g < groups; g++)
        for (int64_t tap = 0; tap < taps; tap++)
            for (int64_t c = 0; c < p->channels; c++)
                for (int64_t f = begin_of(p->features, groups, g); f < begin_of(p->features, groups, g + 1); f++)
                    *to++ = w[tap * p->channels * p->features + c * step_row + f * column];
}

static void gather_row(const across *p, int64_t i, int64_t groups, const real *bias, bp_act act)
{
    const int64_t at = p->row0 + i * p->row_step, pixel = p->channels * KLANES;
    int64_t a0 = 0, a1 = p->kh;
    while (a0 < a1 && (at + a0 * p->row_tap < 0 || at + a0 * p->row_tap >= p->h)) a0++;
    while (a0 < a1 && (at + (a1 - 1) * p->row_tap < 0 || at + (a1 - 1) * p->row_tap >= p->h)) a1--;
    for (int64_t a = a0; a < a1; a++) p->tap_rows[a - a0] = line_of(p, at + a * p->row_tap);
    for (int64_t g = 0; g < groups; g++) {
        const int64_t f0 = begin_of(p->features, groups, g), f = begin_of(p->features, groups, g + 1) - f0;
        const int64_t tiles = up(p->ow, most_side[f - 1]);
        for (int64_t q = 0; q < tiles; q++) {
            const int64_t j = begin_of(p->ow, tiles, q), end = begin_of(p->ow, tiles, q + 1);
            int64_t low = p->low[j], high = p->high[j];
            for (int64_t k = j + 1; k < end; k++) low = least(low, p->low[k]), high = most(high, p->high[k]);
            const gather_tile t = {
                .rows = p->tap_rows,
                .taps = a1 - a0,
                .column = (p->left + p->col0 + j * p->col_step) * pixel,
                .step = p->col_step * pixel,
                .off = p->off + low * p->channels,
                .steps = most(high - low, 0) * p->channels,
                .w = p->packed + f0 * p->kh * p->row_steps + (a0 * p->kw + low) * p->channels * f,
                .w_row = p->row_steps * f,
                .bias = bias ? bias + f0 : NULL,
                .act = act,
                .out = p->row + (j * p->features + f0) * KLANES,
                .out_step = p->features * KLANES,
            };
            gathers[f - 1][end - j - 1](&t);
        }
    }
}

void K(conv2d_across_gather)(const bp_conv_shape *s, bool gradient, const void *from_, const void *w, const void *bias, bp_act act,
                             void *to_, int64_t images, int64_t to_image, int64_t r0, int64_t r1, void *scratch)
{
    const real *from = (const real *)from_;
    real *to = (real *)to_;
    across p = across_of(s, gradient, false);
    across_scratch(&p, false, scratch);
    prepare(&p);
    const int64_t groups = groups_of(p.features, p.ow), x_image = p.h * p.w * p.channels, row = p.ow * p.features;
    pack_weights(&p, (const real *)w, gradient, groups);
    for (int64_t n = 0; n < images; n += KLANES) {
        const int64_t some = least(images - n, KLANES);
        p.have = 0;
        for (int64_t i = r0; i < r1; i++) {
            bring(&p, from + n * x_image, some, i, 1);
            gather_row(&p, i, groups, (const real *)bias, act);
            from_lanes(to + n * to_image + (i - r0) * row, to_image, some, p.row, row);
        }
    }
}

/* Adds what the rows i..i+rows-1 of dy give. */
static void sum_rows(const across *p, int64_t i, int64_t rows, int64_t groups)
{
    for (int64_t a = 0; a < p->kh; a++) {
        const int64_t at = p->row0 + a * p->row_tap;
        sum_tile t = { .p = p, .i = i, .i0 = i, .i1 = i + rows, .tap = a };
        while (t.i0 < t.i1 && at + t.i0 * p->row_step < 0) t.i0++;
        while (t.i0 < t.i1 && at + (t.i1 - 1) * p->row_step >= p->h) t.i1--;
        for (int64_t g = 0; g < groups && t.i0 < t.i1; g++) {
            t.f = begin_of(p->features, groups, g);
            const int64_t f = begin_of(p->features, groups, g + 1) - t.f, tiles = up(p->row_steps, most_side[f - 1]);
            for (int64_t q = 0; q < tiles; q++) {
                t.step = begin_of(p->row_steps, tiles, q);
                summers[f - 1][begin_of(p->row_steps, tiles, q + 1) - t.step - 1](&t);
            }
        }
    }
}

void K(conv2d_across_sum)(const bp_conv_shape *s, const void *x_, const void *dy_, void *dw, int64_t images, void *scratch)
{
    const real *x = (const real *)x_, *dy = (const real *)dy_;
    across p = across_of(s, false, true);
    across_scratch(&p, true, scratch);
    prepare(&p);
    const int64_t count = p.kh * p.row_steps * p.features, row = p.ow * p.features, groups = groups_of(p.features, p.row_steps);
    memset(p.sums, 0, (size_t)count * sizeof(vec));
    for (int64_t n = 0; n < images; n += KLANES) {
        const int64_t some = least(images - n, KLANES);
        p.have = 0;
        for (int64_t i = 0; i < p.oh; i += p.block) {
            const int64_t rows = least(p.oh - i, p.block);
            bring(&p, x + n * p.h * p.w * p.channels, some, i, rows);
            to_lanes(p.row, dy + (n * p.oh + i) * row, p.oh * row, some, rows * row);
            sum_rows(&p, i, rows, groups);
        }
    }
    for (int64_t k = 0; k < count; k++) ((real *)dw)[k] += vec_across_sum(p.sums[k])[0];
}
