/* pool2d.c - 2-d pooling, NHWC.
 *
 *     max     y[i][j][c] = max over taps (a,b) inside the image of x[i*sh - ph + a][j*sw - pw + b][c];  argmax = a*kw + b of the first
 *             greatest. NaN wins, as it does in every reduction here.
 *     average y[i][j][c] = sum over the same taps / (kh*kw, or the number of taps inside)
 *
 * Channels are the vectors. The maximum keeps value and tap in registers over all taps; its last vector overlaps the one before, which
 * is harmless since it stores the same again. A pixel of fewer channels than lanes is computed as a whole vector too: the lanes beyond
 * belong to the next pixel, which stores them again; only the last pixels of a call keep to their channels.
 * The gradients add into a cleared image, output pixels in order; where windows lie side by side each element of dx is written once
 * instead, with dy or zero. */
#include "vmath.h"

#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* The taps of output position t that fall inside. */
typedef struct window {
    int64_t low, high; /* taps low..high-1 */
    int64_t at;        /* input position of tap 0, perhaps negative */
} window;

static window window_of(int64_t t, int64_t stride, int64_t before, int64_t taps, int64_t size)
{
    window w = { 0, taps, t * stride - before };
    if (w.at < 0) w.low = -w.at < taps ? -w.at : taps;
    if (w.at + taps > size) w.high = size - w.at;
    if (w.high < w.low) w.high = w.low;
    return w;
}

static inline vec load_lanes(const real *p, int lanes) { return lanes == KLANES ? vec_load(p) : vec_load_some(p, 1, lanes); }
static inline void store_lanes(real *p, int lanes, vec v)
{
    if (lanes == KLANES)
        vec_store(p, v);
    else
        vec_store_some(p, 1, lanes, v);
}

/* Lanes to bytes and back. GCC 12 takes conversions of eight bytes apart one by one, so they are spelt as shuffles of bytes. */
typedef uint8_t vec_b __attribute__((vector_size(KLANES)));
#if KLANES == 8
typedef uint8_t vec_c __attribute__((vector_size(32)));
typedef uint64_t vec_w __attribute__((vector_size(32)));
#define FOUR(x) x, x, x, x
#endif

static inline vec_b narrow(vec_i v)
{
#if KLANES == 8
    const vec_c low = __builtin_shuffle((vec_c)v, (vec_c){ 0, 4, 8, 12, 16, 20, 24, 28 });
    vec_b b;
    memcpy(&b, &low, KLANES);
    return b;
#else
    return __builtin_convertvector(v, vec_b);
#endif
}

static inline vec_i widen(const uint8_t *p)
{
#if KLANES == 8
    uint64_t all;
    memcpy(&all, p, sizeof all);
    const vec_c each = { FOUR(0), FOUR(1), FOUR(2), FOUR(3), FOUR(20), FOUR(21), FOUR(22), FOUR(23) };
    return (vec_i)__builtin_shuffle((vec_c)(vec_w){ FOUR(all) }, each) & 255;
#else
    vec_b b;
    memcpy(&b, p, KLANES);
    return __builtin_convertvector(b, vec_i);
#endif
}

/* `lanes` channels of one output pixel. x is where the first of them would be at tap (0,0). */
static void max_lanes(const bp_pool_shape *s, const window *row, const window *col, int lanes, const real *x, real *y, uint8_t *argmax)
{
    vec best = load_lanes(x + (row->low * s->w + col->low) * s->c, lanes);
    vec_i tap = (lane_int)(row->low * s->kw + col->low) + (vec_i){ 0 };
    for (int64_t a = row->low; a < row->high; a++)
        for (int64_t b = col->low; b < col->high; b++) {
            const vec v = load_lanes(x + (a * s->w + b) * s->c, lanes);
            const vec_i take = (v > best) | (v != v);
            best = vec_select(take, v, best);
            tap = (tap & ~take) | (take & ((lane_int)(a * s->kw + b) + (vec_i){ 0 }));
        }
    store_lanes(y, lanes, best);
    if (!argmax) return;
    const vec_b taps = narrow(tap);
    if (lanes == KLANES)
        memcpy(argmax, &taps, KLANES);
    else
        memcpy(argmax, &taps, (size_t)lanes);
}

/* The window of a pixel of the result that begins at row.at, col.at, all its channels; x and y are of one image. */
static void max_pixel(const bp_pool_shape *s, const window *row, const window *col, const real *x, const real *x_end, real *y,
                      const real *y_end, uint8_t *argmax)
{
    if (row->low == row->high || col->low == col->high) {
        for (int64_t c = 0; c < s->c; c++) y[c] = -VEC_INF;
        if (argmax) memset(argmax, 0, (size_t)s->c);
        return;
    }
    const int64_t from = (row->at * s->w + col->at) * s->c;
    if (s->c < KLANES) {
        const int64_t last = from + ((row->high - 1) * s->w + col->high - 1) * s->c;
        const bool room = last + KLANES <= x_end - x && KLANES <= y_end - y;
        max_lanes(s, row, col, room ? KLANES : (int)s->c, x + from, y, argmax);
        return;
    }
    for (int64_t c = 0; c < s->c; c += KLANES) {
        if (c + KLANES > s->c) c = s->c - KLANES;
        max_lanes(s, row, col, KLANES, x + from + c, y + c, argmax ? argmax + c : NULL);
    }
}

/* `count` windows inside the image, side by side in the result: whole vectors. */
INLINE void max_inside(const int64_t kh, const int64_t kw, const bp_pool_shape *s, int64_t count, const real *x, real *y, uint8_t *argmax)
{
    const int64_t line = s->w * s->c, pixel = s->c, step = s->sw * pixel;
    for (int64_t j = 0; j < count; j++, x += step, y += pixel, argmax += argmax ? pixel : 0)
        for (int64_t c = 0; c < pixel; c += KLANES) {
            if (c > 0 && c + KLANES > pixel) c = pixel - KLANES;
            vec best = vec_load(x + c);
            vec_i tap = { 0 };
            for (int64_t a = 0; a < kh; a++)
                for (int64_t b = a == 0; b < kw; b++) {
                    const vec v = vec_load(x + a * line + b * pixel + c);
                    const vec_i take = (v > best) | (v != v);
                    best = vec_select(take, v, best);
                    tap = (tap & ~take) | (take & ((lane_int)(a * kw + b) + (vec_i){ 0 }));
                }
            vec_store(y + c, best);
            if (!argmax) continue;
            const vec_b taps = narrow(tap);
            memcpy(argmax + c, &taps, KLANES);
        }
}

static void max_windows(const bp_pool_shape *s, int64_t count, const real *x, real *y, uint8_t *argmax)
{
    if (s->kh == 2 && s->kw == 2)
        max_inside(2, 2, s, count, x, y, argmax);
    else if (s->kh == 3 && s->kw == 3)
        max_inside(3, 3, s, count, x, y, argmax);
    else
        max_inside(s->kh, s->kw, s, count, x, y, argmax);
}

void K(max_pool2d)(const bp_pool_shape *s, const void *x_, void *y_, uint8_t *argmax, int64_t n0, int64_t n1)
{
    const int64_t image = s->h * s->w * s->c, row_size = s->ow * s->c;
    const real *const x_end = (const real *)x_ + n1 * image;
    real *const y_end = (real *)y_ + n1 * s->oh * row_size;
    int64_t j0 = s->pw > 0 ? (s->pw + s->sw - 1) / s->sw : 0, j1 = s->w + s->pw < s->kw ? 0 : (s->w + s->pw - s->kw) / s->sw + 1;
    if (j1 > s->ow) j1 = s->ow; /* windows j0..j1-1 of a row are inside */
    if (j0 > j1) j0 = j1;
    for (int64_t n = n0; n < n1; n++)
        for (int64_t i = 0; i < s->oh; i++) {
            const window row = window_of(i, s->sh, s->ph, s->kh, s->h);
            const real *const x = (const real *)x_ + n * image;
            real *const y = (real *)y_ + (n * s->oh + i) * row_size;
            uint8_t *const arg = argmax ? argmax + (n * s->oh + i) * row_size : NULL;
            int64_t first = row.low == 0 && row.high == s->kh ? j0 : 0, end = row.low == 0 && row.high == s->kh ? j1 : 0;
            const real *const from = x + (row.at * s->w + first * s->sw - s->pw) * s->c;
            /* pixels narrower than a vector: those whose vectors reach beyond the last image are taken by themselves */
            const int64_t last = ((s->kh - 1) * s->w + s->kw - 1) * s->c + KLANES;
            while (s->c < KLANES && end > first &&
                   (from + (end - 1 - first) * s->sw * s->c + last > x_end || y + (end - 1) * s->c + KLANES > y_end))
                end--;
            for (int64_t j = 0; j < s->ow; j++) {
                if (j == first && end > first) {
                    max_windows(s, end - first, from, y + j * s->c, arg ? arg + j * s->c : NULL);
                    j = end;
                    if (j == s->ow) break;
                }
                const window col = window_of(j, s->sw, s->pw, s->kw, s->w);
                max_pixel(s, &row, &col, x, x_end, y + j * s->c, y_end, arg ? arg + j * s->c : NULL);
            }
        }
}

/* Windows side by side from the first pixel on, at least KLANES channels: every element of an image is written once, a line of windows at a
 * time, with dy where its tap won and zero elsewhere. The last vector of a pixel overlaps the one before. */
static void max_grad_apart(const bp_pool_shape *s, const real *dy, const uint8_t *argmax, real *dx)
{
    const int64_t line = s->w * s->c, done = s->ow * s->kw < s->w ? s->ow * s->kw * s->c : line;
    for (int64_t i = 0; i < s->oh; i++) {
        const int64_t top = i * s->kh, rows = s->h - top < s->kh ? s->h - top : s->kh;
        for (int64_t j = 0; j < s->ow; j++) {
            const int64_t from = (i * s->ow + j) * s->c, left = j * s->kw, columns = s->w - left < s->kw ? s->w - left : s->kw;
            for (int64_t c = 0; c < s->c; c += KLANES) {
                if (c + KLANES > s->c) c = s->c - KLANES;
                const vec g = vec_load(dy + from + c);
                const vec_i winner = widen(argmax + from + c);
                for (int64_t a = 0; a < rows; a++)
                    for (int64_t b = 0; b < columns; b++)
                        vec_store(dx + (top + a) * line + (left + b) * s->c + c, vec_keep(winner == (lane_int)(a * s->kw + b), g));
            }
        }
        for (int64_t a = 0; a < rows && done < line; a++) memset(dx + (top + a) * line + done, 0, (size_t)(line - done) * sizeof(real));
    }
    const int64_t below = s->oh * s->kh;
    if (below < s->h) memset(dx + below * line, 0, (size_t)((s->h - below) * line) * sizeof(real));
}

/* The same of fewer channels, row after row of dx: what a vector stores beyond its pixel belongs to pixels that are stored later. dy_end
 * and dx_end: of the images of this call. */
INLINE void max_grad_narrow(const int64_t kw, const bp_pool_shape *s, const real *dy, const real *dy_end, const uint8_t *argmax, real *dx,
                            const real *dx_end)
{
    const int64_t pixel = s->c, line = s->w * pixel, windows = s->ow < s->w / kw ? s->ow : s->w / kw; /* those not cut off */
    for (int64_t row = 0; row < s->oh * s->kh && row < s->h; row++) {
        const int64_t i = row / s->kh, first = row % s->kh * kw;
        const real *g = dy + i * s->ow * pixel;
        const uint8_t *winner = argmax + i * s->ow * pixel;
        real *to = dx + row * line, *const end = to + line;
        int64_t j = 0;
        for (; j < windows && to + kw * pixel + KLANES <= dx_end && g + KLANES <= dy_end; j++, g += pixel, winner += pixel) {
            const vec value = vec_load(g);
            const vec_i taps = widen(winner);
            for (int64_t b = 0; b < kw; b++, to += pixel) vec_store(to, vec_keep(taps == (lane_int)(first + b), value));
        }
        for (; j < s->ow; j++, g += pixel, winner += pixel)
            for (int64_t b = 0; b < kw && to < end; b++, to += pixel)
                for (int64_t c = 0; c < pixel; c++) to[c] = winner[c] == first + b ? g[c] : 0;
        memset(to, 0, (size_t)(end - to) * sizeof(real));
    }
    const int64_t below = s->oh * s->kh;
    if (below < s->h) memset(dx + below * line, 0, (size_t)((s->h - below) * line) * sizeof(real));
}

void K(max_pool2d_grad)(const bp_pool_shape *s, const void *dy_, const uint8_t *argmax, void *dx_, int64_t n0, int64_t n1)
{
    if (s->sh == s->kh && s->sw == s->kw && s->ph == 0 && s->pw == 0) {
        const int64_t from = s->oh * s->ow * s->c, to = s->h * s->w * s->c;
        for (int64_t n = n0; n < n1; n++) {
            const real *const dy = (const real *)dy_ + n * from;
            real *const dx = (real *)dx_ + n * to;
            if (s->c >= KLANES)
                max_grad_apart(s, dy, argmax + n * from, dx);
            else if (s->kw == 2)
                max_grad_narrow(2, s, dy, (const real *)dy_ + n1 * from, argmax + n * from, dx, (real *)dx_ + n1 * to);
            else
                max_grad_narrow(s->kw, s, dy, (const real *)dy_ + n1 * from, argmax + n * from, dx, (real *)dx_ + n1 * to);
        }
        return;
    }
    int64_t tap_at[256]; /* where a tap lies, from tap 0 */
    for (int64_t tap = 0; tap < s->kh * s->kw && tap < 256; tap++) tap_at[tap] = (tap / s->kw * s->w + tap % s->kw) * s->c;

    const int64_t image = s->h * s->w * s->c;
    memset((real *)dx_ + n0 * image, 0, (size_t)((n1 - n0) * image) * sizeof(real));
    for (int64_t n = n0; n < n1; n++)
        for (int64_t i = 0; i < s->oh; i++) {
            const window row = window_of(i, s->sh, s->ph, s->kh, s->h);
            for (int64_t j = 0; j < s->ow; j++) {
                const window col = window_of(j, s->sw, s->pw, s->kw, s->w);
                if (row.low == row.high || col.low == col.high) continue;
                const int64_t at = ((n * s->oh + i) * s->ow + j) * s->c;
                real *to = (real *)dx_ + ((n * s->h + row.at) * s->w + col.at) * s->c;
                for (int64_t c = 0; c < s->c; c++) to[tap_at[argmax[at + c]] + c] += ((const real *)dy_)[at + c];
            }
        }
}

uint8_t K(greatest_byte)(int64_t n, const uint8_t *x)
{
    uint8_t greatest = 0;
    for (int64_t i = 0; i < n; i++) greatest = x[i] > greatest ? x[i] : greatest;
    return greatest;
}

/* What the sum of a window is divided by. */
static real divisor(const bp_pool_shape *s, const window *row, const window *col, bool count_padding)
{
    const int64_t inside = (row->high - row->low) * (col->high - col->low);
    return (real)(count_padding ? s->kh * s->kw : inside > 0 ? inside : 1);
}

void K(avg_pool2d)(const bp_pool_shape *s, const void *x, void *y, bool count_padding, int64_t n0, int64_t n1)
{
    for (int64_t n = n0; n < n1; n++)
        for (int64_t i = 0; i < s->oh; i++) {
            const window row = window_of(i, s->sh, s->ph, s->kh, s->h);
            for (int64_t j = 0; j < s->ow; j++) {
                const window col = window_of(j, s->sw, s->pw, s->kw, s->w);
                real *restrict to = (real *)y + ((n * s->oh + i) * s->ow + j) * s->c;
                memset(to, 0, (size_t)s->c * sizeof(real));
                for (int64_t a = row.low; a < row.high; a++)
                    for (int64_t b = col.low; b < col.high; b++) {
                        const real *restrict from = (const real *)x + ((n * s->h + row.at + a) * s->w + col.at + b) * s->c;
                        for (int64_t c = 0; c < s->c; c++) to[c] += from[c];
                    }
                const real by = divisor(s, &row, &col, count_padding);
                for (int64_t c = 0; c < s->c; c++) to[c] /= by;
            }
        }
}

/* Windows that reach every element of an image; with a stride of their size, each once. */
static bool tiled(const bp_pool_shape *s)
{
    return s->sh == s->kh && s->sw == s->kw && s->oh * s->sh - s->ph >= s->h && s->ow * s->sw - s->pw >= s->w;
}

void K(avg_pool2d_grad)(const bp_pool_shape *s, const void *dy, void *dx, bool count_padding, int64_t n0, int64_t n1)
{
    const int64_t image = s->h * s->w * s->c, whole = s->c / KLANES * KLANES;
    const bool once = tiled(s);
    if (!once) memset((real *)dx + n0 * image, 0, (size_t)((n1 - n0) * image) * sizeof(real));
    for (int64_t n = n0; n < n1; n++)
        for (int64_t i = 0; i < s->oh; i++) {
            const window row = window_of(i, s->sh, s->ph, s->kh, s->h);
            for (int64_t j = 0; j < s->ow; j++) {
                const window col = window_of(j, s->sw, s->pw, s->kw, s->w);
                const real *from = (const real *)dy + ((n * s->oh + i) * s->ow + j) * s->c;
                real *const to = (real *)dx + ((n * s->h + row.at) * s->w + col.at) * s->c;
                const real by = divisor(s, &row, &col, count_padding);
                for (int64_t c = 0; c < whole; c += KLANES) {
                    const vec share = vec_load(from + c) / by;
                    for (int64_t a = row.low; a < row.high; a++)
                        for (int64_t b = col.low; b < col.high; b++) {
                            real *at = to + (a * s->w + b) * s->c + c;
                            vec_store(at, once ? share : vec_load(at) + share);
                        }
                }
                if (whole == s->c) continue;
                real shares[KLANES];
                for (int64_t c = whole; c < s->c; c++) shares[c - whole] = from[c] / by;
                for (int64_t a = row.low; a < row.high; a++)
                    for (int64_t b = col.low; b < col.high; b++) {
                        real *at = to + (a * s->w + b) * s->c + whole;
                        for (int64_t c = 0; c < s->c - whole; c++) at[c] = once ? shares[c] : at[c] + shares[c];
                    }
            }
        }
}
