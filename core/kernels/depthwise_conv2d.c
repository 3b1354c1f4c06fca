/* depthwise_conv2d.c - every channel convolved by itself, NHWC; weights [kh][kw][c][m], result channel c*m + q from input channel c.
 *
 * With m = 1 (what nets are made of) channels are the vectors. A row of results is a sum over taps of a row of the source times a vector of
 * weights, so that forward and input gradient are one loop: position t of a row reads column t*step + first of the tap's source row. In the
 * input gradient a row is cut into as many interleaved rows as the stride has columns, each with taps of its own. Eight positions are kept
 * in registers over all taps. The sum of an element runs over rows of taps, then columns. m > 1 goes through plain loops.
 *
 * The weight gradient keeps the sums of up to nine taps in registers along a row; per row the positions that all taps can see come first,
 * then those at the edges. */
#include "vmath.h"

#include <string.h>

enum { BLOCK = 8, GROUP = 9 };

/* x and w of the tap; position t reads column t*step + first of x. In the weight gradient w is written. */
typedef struct tap {
    const real *x;
    real *w;
    int64_t first;
} tap;

typedef struct row {
    int64_t count, step, columns, channels;
    int64_t low, high; /* positions that see all taps */
    int64_t taps;
    tap *tap;
    const real *bias;
    bp_act act;
    real *y;
    int64_t y_step;
    const real *ahead; /* the source row that the next row begins to need, or NULL */
} row;

static inline vec load_lanes(const real *p, int lanes) { return lanes == KLANES ? vec_load(p) : vec_load_some(p, 1, lanes); }
static inline void store_lanes(real *p, int lanes, vec v)
{
    if (lanes == KLANES)
        vec_store(p, v);
    else
        vec_store_some(p, 1, lanes, v);
}

static int64_t ceil_div(int64_t a, int64_t b) { return a >= 0 ? (a + b - 1) / b : -(-a / b); }
static int64_t floor_div(int64_t a, int64_t b) { return -ceil_div(-a, b); }

static void find_inside(row *r)
{
    r->low = 0, r->high = r->count;
    for (int64_t k = 0; k < r->taps; k++) {
        const int64_t low = ceil_div(-r->tap[k].first, r->step), high = floor_div(r->columns - 1 - r->tap[k].first, r->step) + 1;
        r->low = low > r->low ? low : r->low;
        r->high = high < r->high ? high : r->high;
    }
    if (r->high < r->low) r->low = r->high = r->count;
}

static inline bool sees(const row *r, const tap *p, int64_t t)
{
    const int64_t column = t * r->step + p->first;
    return column >= 0 && column < r->columns;
}

/* ---- forward and input gradient, m = 1 ---- */

static inline vec finish(const row *r, vec v) { return r->act == BP_ACT_RELU ? vec_keep(~(v <= 0), v) : v; }

/* `width` positions from t on, all of which see all taps; `lanes` channels from c on. */
static inline __attribute__((always_inline)) void inner(const row *r, int64_t t, int64_t c, int lanes, int width)
{
    vec sum[BLOCK];
    const int64_t next = r->step * r->channels;
    const vec start = r->bias ? load_lanes(r->bias + c, lanes) : vec_set(0);
    for (int j = 0; j < width; j++) sum[j] = start;
    for (int64_t k = 0; k < r->taps; k++) {
        const tap *p = r->tap + k;
        const vec w = load_lanes(p->w + c, lanes);
        const real *x = p->x + (t * r->step + p->first) * r->channels + c;
        for (int j = 0; j < width; j++) sum[j] += load_lanes(x + j * next, lanes) * w;
    }
    for (int j = 0; j < width; j++) store_lanes(r->y + (t + j) * r->y_step + c, lanes, finish(r, sum[j]));
}

/* The same, eight positions of whole vectors, where three taps each read neighbouring columns: ten loads serve 24 products. Positions go
 * with the columns of the taps, up or down, so that each sum has the order of inner. */
static inline void inner3(const row *r, int64_t t, int64_t c)
{
    const int64_t step = r->tap[1].first > r->tap[0].first ? r->channels : -r->channels;
    const int64_t begin = step > 0 ? t : t + 7, y_step = step > 0 ? r->y_step : -r->y_step;
    const vec start = r->bias ? vec_load(r->bias + c) : vec_set(0);
    vec s0 = start, s1 = start, s2 = start, s3 = start, s4 = start, s5 = start, s6 = start, s7 = start, v;
    for (const tap *p = r->tap; p < r->tap + r->taps; p += 3) {
        const vec a = vec_load(p[0].w + c), b = vec_load(p[1].w + c), d = vec_load(p[2].w + c);
        const real *x = p->x + (begin + p->first) * r->channels + c;
        v = vec_load(x), s0 += v * a;
        v = vec_load(x + step), s0 += v * b, s1 += v * a;
        x += 2 * step;
#define COLUMN(u0, u1, u2, at) v = vec_load(x + (at)*step), u0 += v * d, u1 += v * b, u2 += v * a
        COLUMN(s0, s1, s2, 0);
        COLUMN(s1, s2, s3, 1);
        COLUMN(s2, s3, s4, 2);
        COLUMN(s3, s4, s5, 3);
        COLUMN(s4, s5, s6, 4);
        COLUMN(s5, s6, s7, 5);
#undef COLUMN
        v = vec_load(x + 6 * step), s6 += v * d, s7 += v * b;
        v = vec_load(x + 7 * step), s7 += v * d;
    }
    real *y = r->y + begin * r->y_step + c;
    const vec sum[BLOCK] = { s0, s1, s2, s3, s4, s5, s6, s7 };
    for (int j = 0; j < BLOCK; j++) vec_store(y + j * y_step, finish(r, sum[j]));
}

/* Channels in whole vectors, the last of which overlaps the one before: it stores the same again. */
#define EACH_VECTOR(statement)                                      \
    if (r->channels < KLANES) {                                     \
        const int64_t c = 0;                                        \
        const int lanes = (int)r->channels;                         \
        statement;                                                  \
    } else                                                          \
        for (int64_t c = 0; c < r->channels; c += KLANES) {         \
            enum { lanes = KLANES };                                \
            if (c + KLANES > r->channels) c = r->channels - KLANES; \
            statement;                                              \
        }

/* Pixels are visited a few at a time over all channels, which the hardware does not foresee: what the next row will read is asked for here.
 */
static void prefetch(const real *ahead, int64_t elements)
{
    const char *p = (const char *)ahead;
    const int64_t bytes = elements * (int64_t)sizeof(real);
    for (int64_t i = 0; ahead && i < bytes; i += 64) __builtin_prefetch(p + i);
}

/* A position that does not see all taps, as a row of one whose taps are those seen. */
static void edge(const row *whole, int64_t t)
{
    row one = *whole, *const r = &one;
    one.tap = whole->tap + whole->taps;
    one.taps = 0;
    for (int64_t k = 0; k < whole->taps; k++)
        if (sees(whole, whole->tap + k, t)) one.tap[one.taps++] = whole->tap[k];
    EACH_VECTOR(inner(r, t, c, lanes, 1))
}

static bool in_threes(const row *r)
{
    if (r->step != 1 || r->taps == 0 || r->taps % 3 || r->channels < KLANES) return false;
    const int64_t by = r->tap[1].first - r->tap[0].first;
    for (int64_t k = 0; k < r->taps; k += 3)
        if ((by != 1 && by != -1) || r->tap[k + 1].first - r->tap[k].first != by || r->tap[k + 2].first - r->tap[k + 1].first != by ||
            r->tap[k].x != r->tap[k + 1].x || r->tap[k].x != r->tap[k + 2].x)
            return false;
    return true;
}

/* Blocks of positions that see all taps; the last overlaps the one before. */
static void run_row(const row *r)
{
    const int64_t inside = r->high - r->low;
    const bool threes = in_threes(r);
    if (inside >= 8)
        for (int64_t t = r->low; t < r->high; t += 8) {
            if (r->ahead) prefetch(r->ahead + t * r->step * r->channels, 8 * r->step * r->channels);
            if (t + 8 > r->high) t = r->high - 8;
            if (threes) {
                for (int64_t c = 0; c + KLANES < r->channels; c += KLANES) inner3(r, t, c);
                inner3(r, t, r->channels - KLANES);
            } else {
                EACH_VECTOR(inner(r, t, c, lanes, 8))
            }
        }
    else if (inside >= 4)
        for (int64_t t = r->low; t < r->high; t += 4) {
            if (t + 4 > r->high) t = r->high - 4;
            EACH_VECTOR(inner(r, t, c, lanes, 4))
        }
    else
        for (int64_t t = r->low; t < r->high; t++) {
            EACH_VECTOR(inner(r, t, c, lanes, 1))
        }
    for (int64_t t = 0; t < r->low; t++) edge(r, t);
    for (int64_t t = r->high; t < r->count; t++) edge(r, t);
}

size_t K(depthwise_scratch)(const bp_conv_shape *s) { return (size_t)(2 * s->kh * s->kw) * sizeof(tap); }

/* The taps by which row i of the result meets image n. */
static int64_t forward_taps(const bp_conv_shape *s, const real *x, const real *w, int64_t n, int64_t i, tap *taps)
{
    int64_t count = 0;
    for (int64_t a = 0; a < s->kh; a++) {
        const int64_t h = i * s->sh - s->ph + a * s->dh;
        if (h < 0 || h >= s->h) continue;
        for (int64_t b = 0; b < s->kw; b++)
            taps[count++] = (tap){ x + (n * s->h + h) * s->w * s->c, (real *)w + (a * s->kw + b) * s->oc, b * s->dw - s->pw };
    }
    return count;
}

/* m > 1: one pixel of the result. */
static void many_forward(const row *r, int64_t t, int64_t m)
{
    real *y = r->y + t * r->y_step;
    for (int64_t o = 0; o < r->channels * m; o++) y[o] = r->bias ? r->bias[o] : 0;
    for (int64_t k = 0; k < r->taps; k++) {
        const tap *p = r->tap + k;
        if (!sees(r, p, t)) continue;
        const real *x = p->x + (t * r->step + p->first) * r->channels;
        for (int64_t c = 0; c < r->channels; c++)
            for (int64_t q = 0; q < m; q++) y[c * m + q] += x[c] * p->w[c * m + q];
    }
    if (r->act == BP_ACT_RELU)
        for (int64_t o = 0; o < r->channels * m; o++) y[o] = y[o] <= 0 ? 0 : y[o];
}

void K(depthwise_forward)(const bp_conv_shape *s, const void *x, const void *w, const void *bias, bp_act act, void *y, int64_t r0,
                          int64_t r1, void *scratch)
{
    const int64_t m = s->oc / s->c;
    row r = {
        .count = s->ow, .step = s->sw, .columns = s->w, .channels = s->c, .tap = (tap *)scratch, .bias = (const real *)bias, .act = act
    };
    r.y_step = s->oc;
    for (int64_t at = r0; at < r1; at++) {
        r.taps = forward_taps(s, (const real *)x, (const real *)w, at / s->oh, at % s->oh, r.tap);
        r.y = (real *)y + at * s->ow * s->oc;
        if (m > 1) {
            for (int64_t t = 0; t < r.count; t++) many_forward(&r, t, m);
            continue;
        }
        find_inside(&r);
        const int64_t next = (at % s->oh + 1) * s->sh - s->ph + (s->kh - 1) * s->dh;
        r.ahead = next < s->h ? (const real *)x + (at / s->oh * s->h + next) * s->w * s->c : NULL;
        run_row(&r);
    }
}

/* m > 1: one pixel of dx; the source has m channels for each of ours. */
static void many_grad_input(const row *r, int64_t t, int64_t m)
{
    real *dx = r->y + t * r->y_step;
    memset(dx, 0, (size_t)r->channels * sizeof *dx);
    for (int64_t k = 0; k < r->taps; k++) {
        const tap *p = r->tap + k;
        if (!sees(r, p, t)) continue;
        const real *dy = p->x + (t * r->step + p->first) * r->channels * m;
        for (int64_t c = 0; c < r->channels; c++)
            for (int64_t q = 0; q < m; q++) dx[c] += dy[c * m + q] * p->w[c * m + q];
    }
}

void K(depthwise_grad_input)(const bp_conv_shape *s, const void *dy, const void *w, void *dx, int64_t r0, int64_t r1, void *scratch)
{
    const int64_t m = s->oc / s->c;
    row r = { .step = 1, .columns = s->ow, .channels = s->c, .tap = (tap *)scratch, .y_step = s->sw * s->c };
    for (int64_t at = r0; at < r1; at++)
        for (int64_t phase = 0; phase < s->sw && phase < s->w; phase++) {
            r.taps = 0;
            for (int64_t a = 0; a < s->kh; a++) {
                const int64_t i = at % s->h + s->ph - a * s->dh;
                if (i < 0 || i % s->sh || i / s->sh >= s->oh) continue;
                for (int64_t b = 0; b < s->kw; b++) {
                    const int64_t j = phase + s->pw - b * s->dw;
                    if (j % s->sw) continue;
                    r.tap[r.taps++] = (tap){ (const real *)dy + (at / s->h * s->oh + i / s->sh) * s->ow * s->oc,
                                             (real *)w + (a * s->kw + b) * s->oc, j / s->sw };
                }
            }
            r.count = (s->w - phase + s->sw - 1) / s->sw;
            r.y = (real *)dx + (at * s->w + phase) * s->c;
            if (m > 1) {
                for (int64_t t = 0; t < r.count; t++) many_grad_input(&r, t, m);
                continue;
            }
            find_inside(&r);
            const int64_t next = (at % s->h + 1 + s->ph) / s->sh;
            r.ahead = next < s->oh ? (const real *)dy + (at / s->h * s->oh + next) * s->ow * s->oc : NULL;
            run_row(&r);
        }
}

/* ---- weight gradient ---- */

/* Adds to `taps` sums (at most GROUP) what one row of dy (r->y) gives; `lanes` channels from c on. */
static inline __attribute__((always_inline)) void sums(const row *r, const tap *p, int taps, int64_t c, int lanes)
{
    vec sum[GROUP];
    const real *dy = r->y + c;
    const int64_t next = r->step * r->channels;
    const real *x[GROUP];
    for (int k = 0; k < taps; k++) {
        sum[k] = load_lanes(p[k].w + c, lanes);
        x[k] = p[k].x + p[k].first * r->channels + c;
    }
    for (int64_t t = r->low; t < r->high; t++) {
        const vec d = load_lanes(dy + t * r->channels, lanes);
        for (int k = 0; k < taps; k++) sum[k] += load_lanes(x[k] + t * next, lanes) * d;
    }
    for (int64_t t = 0; t < r->count; t++) {
        if (t == r->low) t = r->high;
        if (t >= r->count) break;
        const vec d = load_lanes(dy + t * r->channels, lanes);
        for (int k = 0; k < taps; k++)
            if (sees(r, p + k, t)) sum[k] += load_lanes(x[k] + t * next, lanes) * d;
    }
    for (int k = 0; k < taps; k++) store_lanes(p[k].w + c, lanes, sum[k]);
}

static void sum_row(const row *r)
{
    const int64_t whole = r->channels / KLANES * KLANES;
    for (int64_t k = 0; k < r->taps;) {
        const tap *p = r->tap + k;
        int64_t taps = r->taps - k;
        if (taps > GROUP) taps = GROUP;
        for (int64_t c = 0; c < whole; c += KLANES) switch (taps) {
#define TAPS(n) \
    case n: sums(r, p, n, c, KLANES); break;
                TAPS(1) TAPS(2) TAPS(3) TAPS(4) TAPS(5) TAPS(6) TAPS(7) TAPS(8) TAPS(9)
#undef TAPS
            }
        if (whole < r->channels) sums(r, p, (int)taps, whole, (int)(r->channels - whole));
        k += taps;
    }
}

static void many_grad_weight(const row *r, int64_t m)
{
    for (int64_t t = 0; t < r->count; t++)
        for (int64_t k = 0; k < r->taps; k++) {
            const tap *p = r->tap + k;
            if (!sees(r, p, t)) continue;
            const real *x = p->x + (t * r->step + p->first) * r->channels, *dy = r->y + t * r->channels * m;
            for (int64_t c = 0; c < r->channels; c++)
                for (int64_t q = 0; q < m; q++) p->w[c * m + q] += x[c] * dy[c * m + q];
        }
}

void K(depthwise_grad_weight)(const bp_conv_shape *s, const void *x, const void *dy, void *dw, int64_t n0, int64_t n1, void *scratch)
{
    const int64_t m = s->oc / s->c;
    row r = { .count = s->ow, .step = s->sw, .columns = s->w, .channels = s->c, .tap = (tap *)scratch };
    for (int64_t at = n0 * s->oh; at < n1 * s->oh; at++) {
        r.taps = forward_taps(s, (const real *)x, (const real *)dw, at / s->oh, at % s->oh, r.tap);
        r.y = (real *)dy + at * s->ow * s->oc;
        find_inside(&r);
        if (at + 1 < n1 * s->oh) {
            const int64_t next = (at % s->oh + 1) * s->sh - s->ph + (s->kh - 1) * s->dh;
            prefetch((const real *)dy + (at + 1) * s->ow * s->oc, s->ow * s->oc);
            if (next < s->h) prefetch((const real *)x + (at / s->oh * s->h + next) * s->w * s->c, s->w * s->c);
        }
        if (m > 1)
            many_grad_weight(&r, m);
        else
            sum_row(&r);
    }
}
