/* depthwise_conv2d.c - every channel convolved by itself, NHWC; weights [kh][kw][c][m], result channel c*m + q from input channel c.
 *
 * Channels are the vectors. A row of results is a sum over taps of rows of the source times vectors of weights, so that forward and input
 * gradient are one loop: position t of a row reads column t*step + first of each of its source rows, `first` depending on the column of
 * the tap. In the input gradient a row is cut into as many interleaved rows ("phases") as the stride has columns, each with taps of its
 * own. Eight positions stay in registers over all taps; where three taps read neighbouring columns, ten loads serve 24 products. The sum
 * of an element runs over rows of taps, then along the source row. A block at the edge looks whether a column is there before reading it.
 *
 * The weight gradient keeps the sums of up to nine taps in registers along a row; per row the positions that all taps see come first, then
 * those at the edges.
 *
 * With m > 1 rows of x pass through scratch, where every channel stands m times, so that each result channel has a source channel of its
 * own; dx is the sum of those. With fewer result channels than a vector has lanes all rows pass through scratch, where a vector may reach
 * beyond what it is for: into the next pixel, which is computed later. */
#include "carve.h"
#include "vmath.h"

#include <string.h>

enum { BLOCK = 8, GROUP = 9 };

#define INLINE static inline __attribute__((always_inline))

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }
static int64_t floor_div(int64_t a, int64_t b) { return -ceil_div(-a, b); }

/* ---- rows in scratch ---- */

/* to[i*m .. i*m + m-1] = x[i]; writes up to a vector beyond. */
static void repeat(const real *x, int64_t n, int64_t m, real *to)
{
    if (m == 1)
        memcpy(to, x, (size_t)n * sizeof(real));
    else
        for (int64_t i = 0; i < n; i++, to += m)
            for (int64_t q = 0; q < m; q += KLANES) vec_store(to + q, vec_set(x[i]));
}

/* The rows that one row of results can meet, each repeated once and kept until another takes its place. */
typedef struct window {
    const real *x; /* all rows, `columns` elements each */
    int64_t columns, m, slots;
    bool in_place;
    int64_t *held; /* per slot: the row it holds, or -1 */
    real *rows;    /* per slot: columns * m elements and a vector */
} window;

static int64_t slot_size(const window *v) { return v->columns * v->m + KLANES; }

static void take_window(carve *at, window *v)
{
    v->held = (int64_t *)take(at, v->in_place ? 0 : v->slots, sizeof *v->held);
    v->rows = (real *)take(at, v->in_place ? 0 : v->slots * slot_size(v), sizeof *v->rows);
}

static void open_window(window *v, const void *x)
{
    v->x = (const real *)x;
    for (int64_t i = 0; i < v->slots && !v->in_place; i++) v->held[i] = -1;
}

static const real *look(const window *v, int64_t number)
{
    const real *x = v->x + number * v->columns;
    if (v->in_place) return x;
    real *to = v->rows + number % v->slots * slot_size(v);
    if (v->held[number % v->slots] != number) repeat(x, v->columns, v->m, to);
    v->held[number % v->slots] = number;
    return to;
}

typedef struct tap {
    int64_t first, weight; /* the column that position 0 reads; where its vector begins in a row of weights */
} tap;

typedef struct line {
    const real *x, *w; /* a source row and the row of weights that meets it */
} line;

/* A tap in the weight gradient. */
typedef struct source {
    const real *x; /* what position 0 of the row meets */
    real *sum;     /* of this tap, whole vectors */
    int64_t first;
} source;

typedef struct room {
    tap *taps;       /* [kw] */
    line *lines;     /* [kh] */
    source *sources; /* [kh * kw] */
    window x, dy;
    real *w, *bias; /* copies with a vector behind; in the weight gradient w has the sums of each tap, whole vectors */
    real *row;      /* a row of results */
} room;

/* Elements of whole vectors that hold the result channels. */
static int64_t lanes_of(const bp_conv_shape *s) { return (s->oc + KLANES - 1) / KLANES * KLANES; }

static size_t carve_room(const bp_conv_shape *s, void *scratch, room *r)
{
    carve at = { (char *)scratch, 0 };
    const bool wide = s->oc >= KLANES;
    const int64_t m = s->oc / s->c, reach = (s->kh - 1) * s->dh, longest = s->w > s->ow ? s->w : s->ow;
    *r = (room){ .x = { .columns = s->w * s->c, .m = m, .slots = reach + 1, .in_place = wide && m == 1 },
                 .dy = { .columns = s->ow * s->oc, .m = 1, .slots = reach / s->sh + 1, .in_place = wide } };
    r->taps = (tap *)take(&at, s->kw, sizeof *r->taps);
    r->lines = (line *)take(&at, s->kh, sizeof *r->lines);
    r->sources = (source *)take(&at, s->kh * s->kw, sizeof *r->sources);
    take_window(&at, &r->x);
    take_window(&at, &r->dy);
    r->w = (real *)take(&at, s->kh * s->kw * lanes_of(s) + KLANES, sizeof(real));
    r->bias = (real *)take(&at, wide ? 0 : s->oc + KLANES, sizeof(real));
    r->row = (real *)take(&at, r->x.in_place ? 0 : longest * s->oc + KLANES, sizeof(real));
    return at.used;
}

size_t K(depthwise_scratch)(const bp_conv_shape *s)
{
    room r;
    return carve_room(s, NULL, &r);
}

/* ---- forward and input gradient ---- */

typedef struct row {
    int64_t count, step, columns, channels;
    int64_t n_taps, n_lines;
    const tap *taps; /* in the order of `first` */
    const line *lines;
    bool in_threes;    /* taps come in threes that read neighbouring columns */
    int64_t low, high; /* positions that see all taps */
    const real *bias;
    bp_act act;
    real *y;
    int64_t y_step;
    const real *ahead; /* the source row that the next row begins to need, or NULL */
    const real *after; /* where the next row goes, or NULL */
} row;

/* What follows from the taps. */
static void set_taps(row *r, const tap *taps, int64_t n)
{
    r->taps = taps;
    r->n_taps = n;
    r->low = 0, r->high = r->count;
    r->in_threes = r->step == 1 && n % 3 == 0;
    for (int64_t k = 0; k < n; k++) {
        const int64_t low = ceil_div(-taps[k].first, r->step), high = floor_div(r->columns - 1 - taps[k].first, r->step) + 1;
        r->low = low > r->low ? low : r->low;
        r->high = high < r->high ? high : r->high;
        if (k % 3 && taps[k].first != taps[k - 1].first + 1) r->in_threes = false;
    }
    if (r->high < r->low) r->low = r->high = r->count;
}

static bool is_there(const row *r, int64_t column) { return column >= 0 && column < r->columns; }

INLINE vec begin(const row *r, int64_t c) { return r->bias ? vec_load(r->bias + c) : (vec){ 0 }; }

INLINE void finish(const row *r, int64_t t, int64_t c, int width, const vec *sum)
{
    real *y = r->y + t * r->y_step + c;
    for (int j = 0; j < width; j++) vec_store(y + j * r->y_step, r->act == BP_ACT_RELU ? vec_keep(~(sum[j] <= 0), sum[j]) : sum[j]);
}

/* `width` positions from t on, a vector of channels from c on. */
INLINE void one_by_one(const row *r, int64_t t, int64_t c, const int width, const bool edge)
{
    vec sum[BLOCK];
    const int64_t next = r->step * r->channels;
    for (int j = 0; j < width; j++) sum[j] = begin(r, c);
    for (int64_t i = 0; i < r->n_lines; i++)
        for (int64_t k = 0; k < r->n_taps; k++) {
            const int64_t column = t * r->step + r->taps[k].first;
            const vec w = vec_load(r->lines[i].w + r->taps[k].weight + c);
            const real *x = r->lines[i].x + column * r->channels + c;
#pragma GCC unroll 8
            for (int j = 0; j < width; j++)
                if (!edge || is_there(r, column + j * r->step)) sum[j] += vec_load(x + j * next) * w;
        }
    finish(r, t, c, width, sum);
}

/* The same, taps three by three: column q of a block meets the last tap of position q - 2, the second of q - 1, the first of q. */
INLINE void three_by_three(const row *r, int64_t t, int64_t c, const int width, const bool edge)
{
    vec sum[BLOCK];
    for (int j = 0; j < width; j++) sum[j] = begin(r, c);
    for (int64_t i = 0; i < r->n_lines; i++)
        for (int64_t k = 0; k < r->n_taps; k += 3) {
            const tap *p = r->taps + k;
            const real *w = r->lines[i].w + c;
            const vec w0 = vec_load(w + p[0].weight), w1 = vec_load(w + p[1].weight), w2 = vec_load(w + p[2].weight);
            const int64_t column = t + p[0].first;
            const real *x = r->lines[i].x + column * r->channels + c;
#pragma GCC unroll 10
            for (int q = 0; q < width + 2; q++) {
                if (edge && !is_there(r, column + q)) continue;
                const vec v = vec_load(x + q * r->channels);
                if (q >= 2) sum[q - 2] += v * w2;
                if (q >= 1 && q <= width) sum[q - 1] += v * w1;
                if (q < width) sum[q] += v * w0;
            }
        }
    finish(r, t, c, width, sum);
}

/* All channels; the last vector overlaps the one before and stores the same again, or reaches beyond into scratch. */
#define BLOCKS(how, width, edge)                                                                               \
    static void how##_##width##_##edge(const row *r, int64_t t)                                                \
    {                                                                                                          \
        for (int64_t c = 0; c + KLANES < r->channels; c += KLANES) how(r, t, c, width, edge);                  \
        how(r, t, r->channels > KLANES ? r->channels - KLANES : 0, width, edge);                               \
    }
BLOCKS(one_by_one, 8, 0)
BLOCKS(one_by_one, 8, 1)
BLOCKS(one_by_one, 4, 0)
BLOCKS(one_by_one, 4, 1)
BLOCKS(one_by_one, 1, 1)
BLOCKS(three_by_three, 8, 0)
BLOCKS(three_by_three, 8, 1)
BLOCKS(three_by_three, 4, 0)
BLOCKS(three_by_three, 4, 1)

/* Pixels are visited a few at a time over all channels, which the hardware does not foresee: what the next row will read, and where it will
 * be written, is asked for here. */
static void prefetch(const real *ahead, int64_t elements)
{
    const char *p = (const char *)ahead;
    const int64_t bytes = elements * (int64_t)sizeof(real);
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i);
}

/* Blocks of positions; the last overlaps the one before. */
static void run_row(const row *r)
{
    typedef void block_fn(const row *, int64_t);
    static block_fn *const blocks[2][2][2] = { { { one_by_one_4_0, one_by_one_4_1 }, { one_by_one_8_0, one_by_one_8_1 } },
                                               { { three_by_three_4_0, three_by_three_4_1 }, { three_by_three_8_0, three_by_three_8_1 } } };
    if (r->count < 4) {
        for (int64_t t = 0; t < r->count; t++) one_by_one_1_1(r, t);
        return;
    }
    const int64_t width = r->count < BLOCK ? 4 : BLOCK;
    for (int64_t t = 0; t < r->count; t += width) {
        if (r->ahead) prefetch(r->ahead + t * r->step * r->channels, smaller(width * r->step, r->columns - t * r->step) * r->channels);
        if (r->after) prefetch(r->after + t * r->y_step, smaller(width, r->count - t) * r->channels);
        if (t + width > r->count) t = r->count - width;
        blocks[r->in_threes][width == BLOCK][t < r->low || t + width > r->high](r, t);
    }
}

/* src, or where vectors would reach beyond it a copy with a vector behind. */
static const real *with_room(const bp_conv_shape *s, const void *from, int64_t n, real *dst)
{
    const real *src = (const real *)from;
    if (!src || s->oc >= KLANES) return src;
    memcpy(dst, src, (size_t)n * sizeof(real));
    memset(dst + n, 0, KLANES * sizeof(real));
    return dst;
}

void K(depthwise_forward)(const bp_conv_shape *s, const void *x, const void *w, const void *bias, bp_act act, void *y, int64_t r0,
                          int64_t r1, void *scratch)
{
    room o;
    carve_room(s, scratch, &o);
    open_window(&o.x, x);
    row r = { .count = s->ow, .step = s->sw, .columns = s->w, .channels = s->oc, .lines = o.lines, .act = act, .y_step = s->oc };
    const int64_t w_row = s->kw * s->oc;
    const real *const weights = with_room(s, w, s->kh * w_row, o.w);
    r.bias = with_room(s, bias, s->oc, o.bias);
    for (int64_t b = 0; b < s->kw; b++) o.taps[b] = (tap){ b * s->dw - s->pw, b * s->oc };
    set_taps(&r, o.taps, s->kw);
    for (int64_t at = r0; at < r1; at++) {
        const int64_t n = at / s->oh, top = at % s->oh * s->sh - s->ph, next = top + s->sh + (s->kh - 1) * s->dh;
        real *const to = (real *)y + at * s->ow * s->oc;
        r.n_lines = 0;
        for (int64_t a = 0, h = top; a < s->kh; a++, h += s->dh)
            if (h >= 0 && h < s->h) o.lines[r.n_lines++] = (line){ look(&o.x, n * s->h + h), weights + a * w_row };
        r.ahead = o.x.in_place && next >= 0 && next < s->h ? o.x.x + (n * s->h + next) * o.x.columns : NULL;
        r.y = o.dy.in_place ? to : o.row;
        r.after = o.dy.in_place && at + 1 < r1 ? to + s->ow * s->oc : NULL;
        run_row(&r);
        if (!o.dy.in_place) memcpy(to, o.row, (size_t)(s->ow * s->oc) * sizeof(real));
    }
}

/* The taps that meet the columns phase, phase + sw, ... of dx, from the last to the first. */
static int64_t phase_taps(const bp_conv_shape *s, int64_t phase, tap *taps)
{
    int64_t n = 0;
    for (int64_t b = s->kw - 1; b >= 0; b--)
        if ((phase + s->pw - b * s->dw) % s->sw == 0) taps[n++] = (tap){ (phase + s->pw - b * s->dw) / s->sw, b * s->oc };
    return n;
}

/* dx of a pixel = the sums of the m channels that each of its channels has. */
static void put_row(const real *from, int64_t count, int64_t channels, int64_t m, real *to, int64_t step)
{
    for (int64_t t = 0; t < count; t++, to += step)
        for (int64_t c = 0; c < channels; c++, from += m) {
            real sum = from[0];
            for (int64_t q = 1; q < m; q++) sum += from[q];
            to[c] = sum;
        }
}

void K(depthwise_grad_input)(const bp_conv_shape *s, const void *dy, const void *w, void *dx, int64_t r0, int64_t r1, void *scratch)
{
    room o;
    carve_room(s, scratch, &o);
    open_window(&o.dy, dy);
    row r = { .step = 1, .columns = s->ow, .channels = s->oc, .lines = o.lines };
    const int64_t w_row = s->kw * s->oc, phases = smaller(s->sw, s->w);
    const real *const weights = with_room(s, w, s->kh * w_row, o.w);
    for (int64_t at = r0; at < r1; at++) {
        const int64_t n = at / s->h, h = at % s->h + s->ph, next = (h + 1) / s->sh;
        r.n_lines = 0;
        for (int64_t a = 0; a < s->kh; a++) {
            const int64_t i = h - a * s->dh;
            if (i >= 0 && i % s->sh == 0 && i / s->sh < s->oh)
                o.lines[r.n_lines++] = (line){ look(&o.dy, n * s->oh + i / s->sh), weights + a * w_row };
        }
        r.ahead = o.dy.in_place && next < s->oh ? o.dy.x + (n * s->oh + next) * o.dy.columns : NULL;
        for (int64_t phase = 0; phase < phases; phase++) {
            real *const to = (real *)dx + ((at - r0) * s->w + phase) * s->c;
            if (phases > 1 || at == r0) {
                r.count = (s->w - phase + s->sw - 1) / s->sw;
                set_taps(&r, o.taps, phase_taps(s, phase, o.taps));
            }
            r.y = o.x.in_place ? to : o.row;
            r.y_step = o.x.in_place ? s->sw * s->c : s->oc;
            run_row(&r);
            if (!o.x.in_place) put_row(o.row, r.count, s->c, s->oc / s->c, to, s->sw * s->c);
        }
    }
}

/* ---- weight gradient ---- */

/* Adds to `taps` sums (at most GROUP) what one row of dy gives, a vector of channels from c on, whose sums lie `at` from the first.
 * Meanwhile the same places of the rows that come next are asked for. */
INLINE void sums(const row *r, const source *p, const int taps, int64_t c, int64_t at, const real *dy_ahead)
{
    vec sum[GROUP];
    const real *x[GROUP];
    const real *const dy = r->y + c, *const x_ahead = r->ahead + c;
    const int64_t next = r->step * r->channels;
    for (int k = 0; k < taps; k++) {
        sum[k] = vec_load(p[k].sum + at);
        x[k] = p[k].x + c;
    }
    for (int64_t t = r->low; t < r->high; t++) {
        const vec d = vec_load(dy + t * r->channels);
        __builtin_prefetch(dy_ahead + c + t * r->channels);
        __builtin_prefetch(x_ahead + t * next);
#pragma GCC unroll 9
        for (int k = 0; k < taps; k++) sum[k] += vec_load(x[k] + t * next) * d;
    }
    for (int64_t t = r->low > 0 ? 0 : r->high; t < r->count; t = t + 1 == r->low ? r->high : t + 1) {
        const vec d = vec_load(dy + t * r->channels);
#pragma GCC unroll 9
        for (int k = 0; k < taps; k++)
            if (is_there(r, t * r->step + p[k].first)) sum[k] += vec_load(x[k] + t * next) * d;
    }
    for (int k = 0; k < taps; k++) vec_store(p[k].sum + at, sum[k]);
}

static void sum_row(const row *r, const source *all, int64_t count, const real *dy_ahead)
{
    for (int64_t k = 0; k < count; k += GROUP)
        for (int64_t at = 0; at < r->channels; at += KLANES) {
            const int64_t c = at + KLANES <= r->channels ? at : r->channels > KLANES ? r->channels - KLANES : 0;
            switch (smaller(count - k, GROUP)) {
#define TAPS(n) \
    case n: sums(r, all + k, n, c, at, dy_ahead); break;
                TAPS(1) TAPS(2) TAPS(3) TAPS(4) TAPS(5) TAPS(6) TAPS(7) TAPS(8) TAPS(9)
#undef TAPS
            }
        }
}

void K(depthwise_grad_weight)(const bp_conv_shape *s, const void *x, const void *dy, void *dw, int64_t r0, int64_t r1, void *scratch)
{
    room o;
    carve_room(s, scratch, &o);
    open_window(&o.x, x);
    open_window(&o.dy, dy);
    const int64_t lanes = lanes_of(s), taps = s->kh * s->kw;
    row r = { .count = s->ow, .step = s->sw, .columns = s->w, .channels = s->oc };
    memset(o.w, 0, (size_t)(taps * lanes) * sizeof(real));
    for (int64_t b = 0; b < s->kw; b++) o.taps[b] = (tap){ b * s->dw - s->pw, b * lanes };
    set_taps(&r, o.taps, s->kw);
    for (int64_t at = r0; at < r1; at++) {
        const int64_t n = at / s->oh, top = at % s->oh * s->sh - s->ph, next = top + s->sh + (s->kh - 1) * s->dh;
        int64_t count = 0;
        for (int64_t a = 0, h = top; a < s->kh; a++, h += s->dh) {
            if (h < 0 || h >= s->h) continue;
            const real *from = look(&o.x, n * s->h + h);
            for (int64_t b = 0; b < s->kw; b++)
                o.sources[count++] = (source){ from + o.taps[b].first * s->oc, o.w + a * s->kw * lanes + o.taps[b].weight,
                                               o.taps[b].first };
        }
        r.y = (real *)(uintptr_t)look(&o.dy, at);
        r.ahead = o.x.in_place && next >= 0 && next < s->h ? o.x.x + (n * s->h + next) * o.x.columns : r.y;
        sum_row(&r, o.sources, count, o.dy.in_place && at + 1 < r1 ? r.y + o.dy.columns : r.y);
    }
    for (int64_t k = 0; k < taps; k++)
        for (int64_t at = 0; at < s->oc; at += KLANES) {
            const int64_t c = at + KLANES <= s->oc || s->oc < KLANES ? at : s->oc - KLANES;
            memcpy((real *)dw + k * s->oc + c, o.w + k * lanes + at, (size_t)smaller(KLANES, s->oc) * sizeof(real));
        }
}
