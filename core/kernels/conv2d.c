/* conv2d.c - 2-d convolution, NHWC, and both its gradients, each as a product whose left matrix is never written down.
 *
 *     forward        y[i][j][:]  = sum over taps (a,b), channels c of    x[i*sh - ph + a*dh][j*sw - pw + b*dw][c] * w[a][b][c][:]
 *     input gradient dx[i][j][:] = sum over taps (a,b), features o of  dy[(i + ph - a*dh) / sh][(j + pw - b*dw) / sw][o] * w[a][b][:][o]
 *     weight gradient dw[a][b][c][:] += sum over output pixels (i,j) of x[i*sh - ph + a*dh][j*sw - pw + b*dw][c] * dy[i][j][:]
 *
 * The tile of tile.h takes a pointer per row and an offset per step of the sum. In the first two a row is a pixel of the result and
 * the offsets walk taps, then channels, of the source; in the third a row is a (tap, channel) and the offsets walk the pixels.
 *
 * The first two are one algorithm ("gather") over an affine map per axis from (result index, tap) to source index. The input gradient
 * with stride s falls into s phases per axis: results i with the same remainder meet the same taps, exactly where the division comes
 * out even, and every tap belongs to one phase. Within a phase
 *   - columns beyond the image are made real by copying the image with zeros beside it, if any are needed;
 *   - rows beyond the image are left out: rows of the result that meet the same taps form a part, and its sum begins and ends there;
 *   - weights are packed once per call into panels (transposed for the input gradient).
 * Where it takes less time, an input gradient goes the other way round: conv2d_spread.c. Results of few features with stride 1 have their
 * vectors along the pixels: conv2d_planar.c.
 * Small images are taken several at a time, so that a panel of weights meets about GROUP_PIXELS rows. */
#include "carve.h"
#include "conv2d_planar.h"
#include "conv2d_spread.h"
#include "tile.h"

#include <string.h>

#define GROUP_PIXELS 192

/* ---- the image with zeros beside it ---- */

typedef struct frame {
    int64_t h, w, c;      /* as the caller has it */
    int64_t left, full_w; /* columns of zeros before; columns with all zeros */
} frame;

static bool framed(const frame *f) { return f->full_w != f->w; }
static int64_t frame_size(const frame *f) { return f->h * f->full_w * f->c; }

/* The images as they will be read: where they lie, or copied into room with their zeros. */
static const real *enframe(const frame *f, const real *x, int64_t images, real *room)
{
    if (!framed(f)) return x;
    const size_t line = (size_t)(f->w * f->c) * sizeof(real), full = (size_t)(f->full_w * f->c) * sizeof(real);
    const size_t left = (size_t)(f->left * f->c) * sizeof(real);
    char *to = (char *)room;
    for (int64_t i = 0; i < images * f->h; i++, to += full, x += f->w * f->c) {
        memset(to, 0, left);
        memcpy(to + left, x, line);
        memset(to + left + line, 0, full - left - line);
    }
    return room;
}

/* ---- gather: forward and input gradient ---- */

/* One axis of one phase: result out0 + t*out_step meets, by its tap tap0 + q*tap_step, source src0 + t*src_step + q*src_tap. */
typedef struct axis {
    int64_t count, out0, out_step;
    int64_t taps, tap0, tap_step;
    int64_t src0, src_step, src_tap;
} axis;

static axis forward_axis(int64_t out, int64_t taps, int64_t stride, int64_t dilation, int64_t before)
{
    return (axis){ out, 0, 1, taps, 0, 1, -before, stride, dilation };
}

static axis gradient_axis(int64_t phase, int64_t size, int64_t taps, int64_t stride, int64_t dilation, int64_t before)
{
    axis x = { .count = phase < size ? (size - phase - 1) / stride + 1 : 0, .out0 = phase, .out_step = stride, .src_step = 1 };
    int64_t period = 1; /* of the taps that divide evenly */
    while (period * dilation % stride) period++;
    while (x.tap0 < period && (phase + before - x.tap0 * dilation) % stride) x.tap0++;
    x.tap_step = period;
    x.taps = x.tap0 < period && x.tap0 < taps ? (taps - x.tap0 - 1) / period + 1 : 0;
    x.src0 = x.taps ? (phase + before - x.tap0 * dilation) / stride : 0;
    x.src_tap = -period * dilation / stride;
    return x;
}

/* The q in [*low, *high), of 0..count-1, with 0 <= first + q*step < size. */
static void inside(int64_t first, int64_t step, int64_t count, int64_t size, int64_t *low, int64_t *high)
{
    int64_t q = 0;
    while (q < count && (first + q * step < 0 || first + q * step >= size)) q++;
    *low = q;
    while (q < count && first + q * step >= 0 && first + q * step < size) q++;
    *high = q;
}

/* Widens the frame until it holds every column that the axis reads. */
static void widen(frame *f, const axis *x)
{
    if (!x->count || !x->taps) return;
    const int64_t far = (x->taps - 1) * x->src_tap, end = x->src0 + (x->count - 1) * x->src_step;
    const int64_t least = x->src0 + (far < 0 ? far : 0), most = end + (far > 0 ? far : 0);
    const int64_t right = f->full_w - f->left > most + 1 ? f->full_w - f->left : most + 1;
    if (-least > f->left) f->left = -least;
    f->full_w = f->left + right;
}

/* What forward and input gradient differ in. */
typedef struct gather {
    const bp_conv_shape *s;
    bool gradient;
    int64_t channels, features; /* of the source, of the result */
    int64_t out_h, out_w;       /* of the result */
    int64_t row_phases, col_phases;
    frame f;
    int64_t group; /* most images at a time */
} gather;

static axis row_axis(const gather *g, int64_t phase)
{
    const bp_conv_shape *s = g->s;
    return g->gradient ? gradient_axis(phase, s->h, s->kh, s->sh, s->dh, s->ph) : forward_axis(s->oh, s->kh, s->sh, s->dh, s->ph);
}

static axis col_axis(const gather *g, int64_t phase)
{
    const bp_conv_shape *s = g->s;
    return g->gradient ? gradient_axis(phase, s->w, s->kw, s->sw, s->dw, s->pw) : forward_axis(s->ow, s->kw, s->sw, s->dw, s->pw);
}

static gather gather_of(const bp_conv_shape *s, bool gradient)
{
    gather g = { .s = s, .gradient = gradient, .row_phases = 1, .col_phases = 1 };
    if (gradient) {
        g.channels = s->oc, g.features = s->c, g.out_h = s->h, g.out_w = s->w;
        g.row_phases = s->sh, g.col_phases = s->sw;
        g.f = (frame){ s->oh, s->ow, s->oc, 0, s->ow };
    } else {
        g.channels = s->c, g.features = s->oc, g.out_h = s->oh, g.out_w = s->ow;
        g.f = (frame){ s->h, s->w, s->c, 0, s->w };
    }
    for (int64_t phase = 0; phase < g.col_phases; phase++) {
        const axis x = col_axis(&g, phase);
        widen(&g.f, &x);
    }
    const int64_t pixels = g.out_h * g.out_w;
    g.group = pixels > 0 && pixels < GROUP_PIXELS ? GROUP_PIXELS / pixels : 1;
    if (g.group > s->n) g.group = s->n > 0 ? s->n : 1;
    return g;
}

typedef struct gather_room {
    int64_t *a_at, *c_at; /* per pixel of the result of one group: where its row begins in source and result */
    int64_t *off;         /* per step of the sum of one phase */
    real *b;              /* the packed weights of one phase, panel after panel */
    real *images;         /* framed */
} gather_room;

static size_t gather_scratch(const gather *g, void *scratch, gather_room *r)
{
    carve s = { (char *)scratch, 0 };
    const int64_t pixels = g->group * g->out_h * g->out_w, k = g->s->kh * g->s->kw * g->channels;
    r->a_at = (int64_t *)take(&s, pixels, sizeof(int64_t));
    r->c_at = (int64_t *)take(&s, pixels, sizeof(int64_t));
    r->off = (int64_t *)take(&s, k, sizeof(int64_t));
    r->b = (real *)take(&s, k * ((g->features + KLANES - 1) / KLANES * KLANES), sizeof(real));
    r->images = (real *)take(&s, framed(&g->f) ? g->group * frame_size(&g->f) : 0, sizeof(real));
    return s.used;
}

typedef struct phase {
    const gather *g;
    axis row, col;
    int64_t k, m; /* steps of the sum, rows of a whole group */
    gather_room r;
} phase;

/* Rows t0..t1-1 of the result meet the taps low..high-1 of the row axis. */
typedef struct part {
    int64_t t0, t1, low, high;
} part;

static part part_from(const phase *h, int64_t t0)
{
    const axis *row = &h->row;
    part p = { .t0 = t0, .t1 = t0 + 1 };
    inside(row->src0 + t0 * row->src_step, row->src_tap, row->taps, h->g->f.h, &p.low, &p.high);
    for (; p.t1 < row->count; p.t1++) {
        int64_t low, high;
        inside(row->src0 + p.t1 * row->src_step, row->src_tap, row->taps, h->g->f.h, &low, &high);
        if (low != p.low || high != p.high) break;
    }
    return p;
}

/* The offsets and weights of all taps of a phase. */
static void pack_taps(const phase *h, const real *w)
{
    const gather *g = h->g;
    const bp_conv_shape *s = g->s;
    const axis *row = &h->row, *col = &h->col;
    const int64_t b_row = g->gradient ? 1 : s->oc, b_col = g->gradient ? s->oc : 1;
    int64_t *off = h->r.off;
    for (int64_t qr = 0; qr < row->taps; qr++)
        for (int64_t qc = 0; qc < col->taps; qc++)
            for (int64_t ch = 0; ch < g->channels; ch++) *off++ = (qr * row->src_tap * g->f.full_w + qc * col->src_tap) * g->channels + ch;
    for (int64_t j = 0; j < g->features;) {
        const int vecs = K(tile_vecs)(h->m, g->features - j);
        const int64_t width = (int64_t)vecs * KLANES, cols = g->features - j < width ? g->features - j : width;
        real *b = h->r.b + j * h->k;
        for (int64_t qr = 0; qr < row->taps; qr++)
            for (int64_t qc = 0; qc < col->taps; qc++, b += g->channels * width) {
                const int64_t tap = (row->tap0 + qr * row->tap_step) * s->kw + col->tap0 + qc * col->tap_step;
                K(tile_pack)(b, vecs, w + tap * s->c * s->oc + j * b_col, b_row, b_col, g->channels, cols);
            }
        j += width;
    }
}

/* Where rows begin, part by part and within it image by image. */
static void place_rows(const phase *h, int64_t images)
{
    const gather *g = h->g;
    const axis *row = &h->row, *col = &h->col;
    int64_t *a_at = h->r.a_at, *c_at = h->r.c_at;
    for (part p = { 0 }; p.t1 < row->count;) {
        p = part_from(h, p.t1);
        for (int64_t n = 0; n < images; n++)
            for (int64_t t = p.t0; t < p.t1; t++) {
                const int64_t a = n * frame_size(&g->f) + (row->src0 + t * row->src_step) * g->f.full_w * g->channels;
                const int64_t c = ((n * g->out_h + row->out0 + t * row->out_step) * g->out_w + col->out0) * g->features;
                for (int64_t u = 0; u < col->count; u++) {
                    *a_at++ = a + (g->f.left + col->src0 + u * col->src_step) * g->channels;
                    *c_at++ = c + u * col->out_step * g->features;
                }
            }
    }
}

/* One pass (from step `pass` on) of one panel over the rows of every part: a part takes those of its steps that lie in the pass. */
static void run_parts(const phase *h, const tile_panel *panel, int64_t pass, int64_t images)
{
    const int64_t steps = h->col.taps * h->g->channels; /* per row of taps */
    int64_t at = 0;
    for (part p = { 0 }; p.t1 < h->row.count;) {
        p = part_from(h, p.t1);
        const int64_t low = p.low * steps > pass ? p.low * steps : pass;
        const int64_t high = p.high * steps < pass + panel->k ? p.high * steps : pass + panel->k;
        tile_panel now = *panel;
        now.k = high > low ? high - low : 0;
        now.off = h->r.off + low;
        now.b = panel->b + low * panel->b_row;
        now.m = images * (p.t1 - p.t0) * h->col.count;
        now.a_at = h->r.a_at + at;
        now.c_at = h->r.c_at + at;
        K(tile_run)(&now);
        at += now.m;
    }
}

/* All panels of a few images, x as framed. */
static void run_images(const phase *h, const real *x, const real *bias, bp_act act, real *y, int64_t images)
{
    const int64_t features = h->g->features, pass = tile_k_pass(h->k);
    for (int64_t j = 0; j < features;) {
        const int vecs = K(tile_vecs)(h->m, features - j);
        const int64_t width = (int64_t)vecs * KLANES;
        int64_t k = 0;
        do {
            const bool last = k + pass >= h->k;
            const tile_panel panel = {
                .k = last ? h->k - k : pass,
                .cols = features - j < width ? features - j : width,
                .a = x,
                .b = h->r.b + j * h->k,
                .b_row = width,
                .vecs = vecs,
                .c = y + j,
                .bias = bias && last ? bias + j : NULL,
                .act = last ? act : BP_ACT_NONE,
                .load = k > 0,
            };
            run_parts(h, &panel, k, images);
            k += pass;
        } while (k < h->k);
        j += width;
    }
}

static void run_gather(const gather *g, const real *x, const real *w, const real *bias, bp_act act, real *y, int64_t count, void *scratch)
{
    const int64_t x_size = g->f.h * g->f.w * g->channels, y_size = g->out_h * g->out_w * g->features;
    phase h = { .g = g };
    gather_scratch(g, scratch, &h.r);
    for (int64_t i = 0; i < g->row_phases * g->col_phases; i++) {
        h.row = row_axis(g, i / g->col_phases);
        h.col = col_axis(g, i % g->col_phases);
        h.k = h.row.taps * h.col.taps * g->channels;
        h.m = g->group * h.row.count * h.col.count;
        pack_taps(&h, w);
        for (int64_t n = 0; n < count; n += g->group) {
            const int64_t images = count - n < g->group ? count - n : g->group;
            const real *from = enframe(&g->f, x + n * x_size, images, h.r.images);
            if (n == 0 || images < g->group) place_rows(&h, images);
            run_images(&h, from, bias, act, y + n * y_size, images);
        }
    }
}

void K(conv2d_forward)(const bp_conv_shape *s, const void *x, const void *w, const void *bias, bp_act act, void *y, int64_t n0, int64_t n1,
                       void *scratch)
{
    if (K(conv2d_planar_gathers)(s, false)) {
        K(conv2d_planar_gather)(s, false, (const real *)x, (const real *)w, (const real *)bias, act, (real *)y, n0, n1, scratch);
        return;
    }
    const gather g = gather_of(s, false);
    run_gather(&g, (const real *)x + n0 * s->h * s->w * s->c, (const real *)w, (const real *)bias, act,
               (real *)y + n0 * s->oh * s->ow * s->oc, n1 - n0, scratch);
}

void K(conv2d_grad_input)(const bp_conv_shape *s, const void *dy, const void *w, void *dx, int64_t n0, int64_t n1, void *scratch)
{
    if (K(conv2d_planar_gathers)(s, true)) {
        K(conv2d_planar_gather)(s, true, (const real *)dy, (const real *)w, NULL, BP_ACT_NONE, (real *)dx, n0, n1, scratch);
        return;
    }
    if (conv_spreads(s)) {
        K(conv2d_spread_grad_input)(s, (const real *)dy, (const real *)w, (real *)dx, n0, n1, scratch);
        return;
    }
    const gather g = gather_of(s, true);
    run_gather(&g, (const real *)dy + n0 * s->oh * s->ow * s->oc, (const real *)w, NULL, BP_ACT_NONE, (real *)dx + n0 * s->h * s->w * s->c,
               n1 - n0, scratch);
}

/* ---- weight gradient ---- */

static int64_t whole(int64_t features) { return (features + KLANES - 1) / KLANES * KLANES; }

typedef struct weight_room {
    int64_t *a_at; /* per (tap, channel) */
    int64_t *off;  /* per pixel of one output image */
    real *b;       /* a packed panel of dy */
    real *image;   /* framed */
    real *sums;    /* dw in rows of whole vectors, where its own are not */
} weight_room;

static frame weight_frame(const bp_conv_shape *s)
{
    frame f = { s->h, s->w, s->c, s->pw, s->pw + s->w };
    const int64_t right = (s->ow - 1) * s->sw + (s->kw - 1) * s->dw + 1;
    if (right > f.full_w) f.full_w = right;
    return f;
}

static size_t weight_scratch(const bp_conv_shape *s, void *scratch, weight_room *r)
{
    carve at = { (char *)scratch, 0 };
    const frame f = weight_frame(s);
    const int64_t rows = s->kh * s->kw * s->c, pixels = s->oh * s->ow;
    const int64_t longest = pixels < TILE_K_MAX ? pixels : TILE_K_MAX; /* of passes: those of a piece may be longer than of the whole */
    r->a_at = (int64_t *)take(&at, rows, sizeof(int64_t));
    r->off = (int64_t *)take(&at, pixels, sizeof(int64_t));
    r->b = (real *)take(&at, longest * K(tile_vecs)(rows, s->oc) * KLANES, sizeof(real));
    r->image = (real *)take(&at, framed(&f) ? frame_size(&f) : 0, sizeof(real));
    r->sums = (real *)take(&at, s->oc % KLANES ? rows * whole(s->oc) : 0, sizeof(real));
    return at.used;
}

/* Rows of n numbers, from_row and to_row apart. */
static void copy_rows(real *to, int64_t to_row, const real *from, int64_t from_row, int64_t rows, int64_t n)
{
    for (int64_t i = 0; i < rows; i++) memcpy(to + i * to_row, from + i * from_row, (size_t)n * sizeof(real));
}

/* One panel of one pass over the pixels, for all taps. Rows of taps that are inside the image for the same rows of pixels go together. */
static void run_taps(const bp_conv_shape *s, const tile_panel *panel, int64_t pass)
{
    for (int64_t a = 0, next; a < s->kh; a = next) {
        int64_t low, high, low2, high2;
        inside(a * s->dh - s->ph, s->sh, s->oh, s->h, &low, &high);
        for (next = a + 1; next < s->kh; next++) {
            inside(next * s->dh - s->ph, s->sh, s->oh, s->h, &low2, &high2);
            if (low2 != low || high2 != high) break;
        }
        low = low * s->ow > pass ? low * s->ow : pass;
        high = high * s->ow < pass + panel->k ? high * s->ow : pass + panel->k;
        if (high <= low) continue;
        const int64_t first = a * s->kw * s->c;
        tile_panel now = *panel;
        now.k = high - low;
        now.off = panel->off + low;
        now.b = panel->b + (low - pass) * panel->b_row;
        now.m = (next - a) * s->kw * s->c;
        now.a_at = panel->a_at + first;
        now.c = panel->c + first * panel->c_row;
        K(tile_run)(&now);
    }
}

void K(conv2d_grad_weight)(const bp_conv_shape *s, const void *x, const void *dy, void *dw, int64_t n0, int64_t n1, int64_t j0, int64_t j1,
                           void *scratch)
{
    if (K(conv2d_planar_sums)(s)) {
        K(conv2d_planar_sum)(s, (const real *)x, (const real *)dy, (real *)dw, n0, n1, scratch);
        return;
    }
    weight_room r;
    weight_scratch(s, scratch, &r);
    const frame f = weight_frame(s);
    const int64_t rows = s->kh * s->kw * s->c, pixels = s->oh * s->ow, pass = tile_k_pass(pixels);

    for (int64_t a = 0, m = 0; a < s->kh; a++)
        for (int64_t b = 0; b < s->kw; b++)
            for (int64_t c = 0; c < s->c; c++) r.a_at[m++] = ((a * s->dh - s->ph) * f.full_w + b * s->dw) * s->c + c;
    for (int64_t i = 0, p = 0; i < s->oh; i++)
        for (int64_t j = 0; j < s->ow; j++) r.off[p++] = (i * s->sh * f.full_w + j * s->sw) * s->c;

    const int64_t features = j1 - j0, sums_row = features % KLANES ? whole(features) : s->oc;
    const bool padded = features % KLANES != 0;
    real *const own = (real *)dw + j0, *const sums = padded ? r.sums : own;
    if (padded) {
        memset(sums, 0, (size_t)(rows * sums_row) * sizeof(real));
        copy_rows(sums, sums_row, own, s->oc, rows, features);
    }
    for (int64_t n = n0; n < n1; n++) {
        const real *from = enframe(&f, (const real *)x + n * s->h * s->w * s->c, 1, r.image);
        for (int64_t p = 0; p < pixels; p += pass)
            for (int64_t j = j0; j < j1;) {
                const int vecs = K(tile_vecs)(rows, j1 - j);
                const int64_t width = (int64_t)vecs * KLANES, cols = j1 - j < width ? j1 - j : width;
                const int64_t k = pixels - p < pass ? pixels - p : pass;
                const real *b = (const real *)dy + (n * pixels + p) * s->oc + j;
                const bool pack = cols < width || rows > 2 * TILE_ROWS;
                if (pack) K(tile_pack)(r.b, vecs, b, s->oc, 1, k, cols);
                const tile_panel panel = {
                    .k = k,
                    .cols = width,
                    .a = from,
                    .a_at = r.a_at,
                    .off = r.off,
                    .b = pack ? r.b : b,
                    .b_row = pack ? width : s->oc,
                    .vecs = vecs,
                    .c = sums + j - j0,
                    .c_row = sums_row,
                    .load = true,
                };
                run_taps(s, &panel, p);
                j += width;
            }
    }
    if (padded) copy_rows(own, s->oc, sums, sums_row, rows, features);
}

/* Enough for some rows of the images as well, taken as an image of their own. */
size_t K(conv2d_scratch)(const bp_conv_shape *s)
{
    const gather forward = gather_of(s, false), gradient = gather_of(s, true);
    gather_room g;
    weight_room w;
    const size_t sizes[] = { gather_scratch(&forward, NULL, &g),
                             conv_spreads(s) ? K(conv2d_spread_scratch)(s) : gather_scratch(&gradient, NULL, &g),
                             weight_scratch(s, NULL, &w), K(conv2d_planar_scratch)(s) };
    size_t most = sizes[0];
    for (int i = 1; i < 4; i++)
        if (sizes[i] > most) most = sizes[i];
    return most;
}
