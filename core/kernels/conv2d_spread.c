/* conv2d_spread.c - the input gradient of a convolution, from the pixels of dy outwards.
 *
 * The gather of conv2d.c leaves lanes empty where the channels fill no vector, and meets many zeros beside small images. Turned round, what
 * a pixel of dy gives to all taps and channels is a row of a product without waste, which is then added to the pixels of dx that it
 * belongs to:
 *
 *     P[i][j][a][(b, c)] = sum over features o of dy[i][j][o] * w[a][b][c][o]
 *     dx[i*sh - ph + a*dh][j*sw - pw + b*dw][c] += P[i][j][a][(b, c)]
 *
 * With dilation 1 a row of taps lies side by side in dx as it does in P, so that (b, c) is one run of numbers. Runs are added in whole
 * vectors, the last one with zeros in the lanes that are not its own, to rows of dx with room beside them. Some rows of dy are taken at a
 * time, with all rows of taps or one after the other, so that P stays in the first-level cache; rows of dx come and go as in a ring.
 *
 * The rows of taps go by from the last to the first: then an element meets the rows of dy in their order, whatever part of dy a call sees.
 * Runs of neighbours overlap, and one would have to wait for the other: so each pixel is added at all rows of taps before the next or, with
 * one row of taps, first the pixels whose number is a multiple of `apart`, then those after them, and so on. */
#include "conv2d_spread.h"

#include "carve.h"
#include "tile.h"
#include "vmath.h"

#include <string.h>

typedef struct spread {
    int64_t left, line;     /* columns before the image; numbers in a row with the room beside it, whole vectors */
    int64_t lines;          /* rows of dx in hand; of few channels all */
    int64_t run, runs;      /* numbers side by side, of how many such groups a row of taps consists */
    int64_t taps;           /* rows of them at a time */
    int64_t columns, p_row; /* of P: used, and in whole vectors */
    int64_t block, apart;   /* rows of dy at a time; pixels of dy whose runs do not touch */
    int64_t *off;
    real *b, *p, *ring;
} spread;

static int64_t vectors(int64_t n) { return (n + KLANES - 1) / KLANES; }

static size_t spread_of(const bp_conv_shape *s, void *scratch, spread *r)
{
    carve at = { (char *)scratch, 0 };
    const int64_t end = (s->ow - 1) * s->sw - s->pw + (s->kw - 1) * s->dw + 1;
    r->left = s->pw > 0 ? s->pw : 0;
    r->line = vectors((r->left + (end > s->w ? end : s->w)) * s->c) * KLANES;
    r->run = s->dw == 1 ? s->kw * s->c : s->c;
    r->runs = s->dw == 1 ? 1 : s->kw;
    r->taps = conv_spread_taps(s);
    r->columns = r->taps * s->kw * s->c;
    r->p_row = vectors(r->columns) * KLANES;
    r->block = s->ow > 0 && s->ow < SPREAD_PIXELS ? SPREAD_PIXELS / s->ow : 1;
    r->lines = (r->block - 1) * s->sh + (s->kh - 1) * s->dh + 1;
    if (r->taps > 1 && r->lines < s->h) r->lines = s->h;
    r->apart = r->taps > 1 ? 1 : ((r->runs - 1) * s->dw * s->c + vectors(r->run) * KLANES - 1) / (s->sw * s->c) + 1;
    r->off = (int64_t *)take(&at, tile_k_pass(s->oc), sizeof(int64_t));
    r->b = (real *)take(&at, s->kh / r->taps * s->oc * r->p_row, sizeof(real));
    r->p = (real *)take(&at, r->block * s->ow * r->p_row + KLANES, sizeof(real));
    r->ring = (real *)take(&at, r->lines * r->line + KLANES, sizeof(real));
    return at.used;
}

size_t K(conv2d_spread_scratch)(const bp_conv_shape *s)
{
    spread r;
    return spread_of(s, NULL, &r);
}

static void pack_taps(const bp_conv_shape *s, const spread *r, const real *w)
{
    for (int64_t a = 0; a < s->kh / r->taps; a++)
        for (int64_t j = 0; j < r->columns;) {
            const int vecs = K(tile_vecs)(SPREAD_PIXELS, r->columns - j);
            const int64_t width = (int64_t)vecs * KLANES, left = r->columns - j;
            const real *const from = w + (a * r->columns + j) * s->oc;
            K(tile_pack)(r->b + (a * r->p_row + j) * s->oc, vecs, from, 1, s->oc, s->oc, left < width ? left : width);
            j += width;
        }
}

/* P of `pixels` pixels of dy. */
static void give(const bp_conv_shape *s, const spread *r, const real *b, const real *dy, int64_t pixels)
{
    const int64_t pass = tile_k_pass(s->oc);
    for (int64_t j = 0; j < r->columns;) {
        const int vecs = K(tile_vecs)(SPREAD_PIXELS, r->columns - j);
        const int64_t width = (int64_t)vecs * KLANES;
        for (int64_t k = 0; k < s->oc; k += pass) {
            const tile_panel panel = {
                .m = pixels,
                .k = s->oc - k < pass ? s->oc - k : pass,
                .cols = width,
                .a = dy + k,
                .a_row = s->oc,
                .off = r->off,
                .b = b + j * s->oc + k * width,
                .b_row = width,
                .vecs = vecs,
                .c = r->p + j,
                .c_row = r->p_row,
                .load = k > 0,
            };
            K(tile_run)(&panel);
        }
        j += width;
    }
}

/* Adds what `rows` rows of dy from row i on give by the rows of taps from `a` on that P holds. */
static void add_rows(const bp_conv_shape *s, const spread *r, int64_t i, int64_t rows, int64_t a)
{
    const int64_t step = s->dw * s->c, whole = (r->run - 1) / KLANES * KLANES; /* vectors before the last one */
    vec_i own;
    for (int l = 0; l < KLANES; l++) own[l] = whole + l < r->run ? -1 : 0;
    const int64_t top = i * s->sh - s->ph + a * s->dh, lines = r->lines;
    const int64_t at = (top % lines + lines) % lines; /* top is the row of dx, at that of the ring */
    const int64_t h = s->h, dh = s->dh, ow = s->ow, group = s->kw * s->c, line = r->line, taps = r->taps, runs = r->runs, apart = r->apart;
    for (int64_t first = 0; first < apart && first < ow; first++)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t j = first; j < ow; j += apart) {
                const real *p = r->p + (row * ow + j) * r->p_row;
                real *const column = r->ring + (r->left - s->pw + j * s->sw) * s->c;
                for (int64_t t = 0, below = row * s->sh; t < taps; t++, below += dh, p += group) {
                    if (top + below < 0 || top + below >= h) continue;
                    real *to = column + (at + below < lines ? at + below : at + below - lines) * line;
                    const real *from = p;
                    for (int64_t q = 0; q < runs; q++, to += step, from += s->c) {
                        for (int64_t v = 0; v < whole; v += KLANES) vec_store(to + v, vec_load(to + v) + vec_load(from + v));
                        vec_store(to + whole, vec_load(to + whole) + vec_keep(own, vec_load(from + whole)));
                    }
                }
            }
}

/* Rows from..to-1 of one image, of which those from `clear` on have met nothing. */
static void finish_rows(const bp_conv_shape *s, const spread *r, int64_t from, int64_t to, int64_t clear, real *dx)
{
    const int64_t line = s->w * s->c;
    for (int64_t h = from; h < to; h++)
        if (h < clear)
            memcpy(dx + h * line, r->ring + h % r->lines * r->line + r->left * s->c, (size_t)line * sizeof(real));
        else
            memset(dx + h * line, 0, (size_t)line * sizeof(real));
}

static int64_t bound(int64_t h, int64_t most) { return h < 0 ? 0 : h > most ? most : h; }

static void one_image(const bp_conv_shape *s, const spread *r, const real *dy, real *dx)
{
    int64_t done = 0, clear = 0; /* rows of dx before them are finished, are finished or in hand */
    for (int64_t i = 0; i < s->oh; i += r->block) {
        const int64_t rows = s->oh - i < r->block ? s->oh - i : r->block;
        const int64_t first = bound(i * s->sh - s->ph, s->h), reach = (rows - 1) * s->sh + (s->kh - 1) * s->dh + 1;
        finish_rows(s, r, done, first, clear, dx);
        done = first;
        if (clear < done) clear = done;
        for (const int64_t end = bound(i * s->sh - s->ph + reach, s->h); clear < end; clear++)
            for (int64_t v = 0; v < r->line; v += KLANES) vec_store(r->ring + clear % r->lines * r->line + v, (vec){ 0 });
        for (int64_t a = s->kh - r->taps; a >= 0; a -= r->taps) {
            int64_t low = i, high = i + rows; /* those with a tap inside */
            while (low < high && low * s->sh - s->ph + (a + r->taps - 1) * s->dh < 0) low++;
            while (low < high && (high - 1) * s->sh - s->ph + a * s->dh >= s->h) high--;
            if (low == high) continue;
            give(s, r, r->b + a / r->taps * r->p_row * s->oc, dy + low * s->ow * s->oc, (high - low) * s->ow);
            add_rows(s, r, low, high - low, a);
        }
    }
    finish_rows(s, r, done, s->h, clear, dx);
}

void K(conv2d_spread_grad_input)(const bp_conv_shape *s, const real *dy, const real *w, real *dx, int64_t n0, int64_t n1, void *scratch)
{
    spread r;
    spread_of(s, scratch, &r);
    for (int64_t k = 0; k < tile_k_pass(s->oc); k++) r.off[k] = k;
    pack_taps(s, &r, w);
    for (int64_t n = n0; n < n1; n++) one_image(s, &r, dy + n * s->oh * s->ow * s->oc, dx + n * s->h * s->w * s->c);
}
