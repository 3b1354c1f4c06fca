/* conv2d_few.c - the input gradient of a convolution over fewer channels than a vector has lanes.
 *
 * The gather of conv2d.c would leave lanes empty there, and meets many zeros beside small images. Turned round, what a pixel of dy gives to
 * all taps and channels is a row of a product without waste, which is then added to the pixels of dx that it belongs to:
 *
 *     P[i][j][(a, b, c)] = sum over features o of dy[i][j][o] * w[a][b][c][o]
 *     dx[i*sh - ph + a*dh][j*sw - pw + b*dw][c] += P[i][j][(a, b, c)]
 *
 * With dilation 1 a row of taps lies side by side in dx as it does in P, so that (b, c) is one run of numbers. Runs are added in whole
 * vectors, the last one with zeros in the lanes that are not its own, to a copy of the image with room beside it. An element meets its
 * terms in the order of the pixels of dy, whatever part of dy a call sees. */
#include "conv2d_few.h"

#include "carve.h"
#include "tile.h"
#include "vmath.h"

#include <string.h>

enum { BLOCK_PIXELS = 48 }; /* of dy at a time: some rows of P, in the first-level cache */

typedef struct spread {
    int64_t left, full_w;   /* columns before the image, columns in all */
    int64_t run, runs;      /* numbers side by side, of how many such groups a row of taps consists */
    int64_t columns, p_row; /* of P: used, and in whole vectors */
    int64_t block;          /* rows of dy at a time */
    int64_t *off;
    real *b, *p, *image;
} spread;

static size_t spread_of(const bp_conv_shape *s, void *scratch, spread *r)
{
    carve at = { (char *)scratch, 0 };
    const int64_t end = (s->ow - 1) * s->sw - s->pw + (s->kw - 1) * s->dw + 1;
    r->left = s->pw > 0 ? s->pw : 0;
    r->full_w = r->left + (end > s->w ? end : s->w);
    r->run = s->dw == 1 ? s->kw * s->c : s->c;
    r->runs = s->dw == 1 ? 1 : s->kw;
    r->columns = s->kh * s->kw * s->c;
    r->p_row = (r->columns + KLANES - 1) / KLANES * KLANES;
    r->block = s->ow > 0 && s->ow < BLOCK_PIXELS ? BLOCK_PIXELS / s->ow : 1;
    r->off = (int64_t *)take(&at, tile_k_pass(s->oc), sizeof(int64_t));
    r->b = (real *)take(&at, s->oc * r->p_row, sizeof(real));
    r->p = (real *)take(&at, r->block * s->ow * r->p_row + KLANES, sizeof(real));
    r->image = (real *)take(&at, s->h * r->full_w * s->c + KLANES, sizeof(real));
    return at.used;
}

size_t K(conv2d_few_scratch)(const bp_conv_shape *s)
{
    spread r;
    return spread_of(s, NULL, &r);
}

/* P of `pixels` pixels of dy. */
static void give(const bp_conv_shape *s, const spread *r, const real *dy, int64_t pixels)
{
    const int64_t pass = tile_k_pass(s->oc);
    for (int64_t j = 0; j < r->columns;) {
        const int vecs = K(tile_vecs)(BLOCK_PIXELS, r->columns - j);
        const int64_t width = (int64_t)vecs * KLANES;
        for (int64_t k = 0; k < s->oc; k += pass) {
            const tile_panel panel = {
                .m = pixels,
                .k = s->oc - k < pass ? s->oc - k : pass,
                .cols = width,
                .a = dy + k,
                .a_row = s->oc,
                .off = r->off,
                .b = r->b + j * s->oc + k * width,
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

/* Adds what row i of dy gives. */
static void add_row(const bp_conv_shape *s, const spread *r, const real *p, int64_t i)
{
    const int64_t step = s->dw * s->c, whole = (r->run - 1) / KLANES * KLANES; /* vectors before the last one */
    vec_i own;
    for (int l = 0; l < KLANES; l++) own[l] = whole + l < r->run ? -1 : 0;
    for (int64_t j = 0; j < s->ow; j++, p += r->p_row)
        for (int64_t a = 0; a < s->kh; a++) {
            const int64_t row = i * s->sh - s->ph + a * s->dh;
            if (row < 0 || row >= s->h) continue;
            real *to = r->image + (row * r->full_w + r->left + j * s->sw - s->pw) * s->c;
            const real *from = p + a * s->kw * s->c;
            for (int64_t q = 0; q < r->runs; q++, to += step, from += s->c) {
                for (int64_t v = 0; v < whole; v += KLANES) vec_store(to + v, vec_load(to + v) + vec_load(from + v));
                vec_store(to + whole, vec_load(to + whole) + vec_keep(own, vec_load(from + whole)));
            }
        }
}

void K(conv2d_few_grad_input)(const bp_conv_shape *s, const real *dy, const real *w, real *dx, int64_t n0, int64_t n1, void *scratch)
{
    spread r;
    spread_of(s, scratch, &r);
    const int64_t line = s->w * s->c, full = r.full_w * s->c;
    for (int64_t k = 0; k < tile_k_pass(s->oc); k++) r.off[k] = k;
    for (int64_t j = 0; j < r.columns;) {
        const int vecs = K(tile_vecs)(BLOCK_PIXELS, r.columns - j);
        const int64_t width = (int64_t)vecs * KLANES, left = r.columns - j;
        K(tile_pack)(r.b + j * s->oc, vecs, w + j * s->oc, 1, s->oc, s->oc, left < width ? left : width);
        j += width;
    }
    for (int64_t n = n0; n < n1; n++) {
        memset(r.image, 0, (size_t)(s->h * full + KLANES) * sizeof(real));
        for (int64_t i = 0; i < s->oh; i += r.block) {
            const int64_t rows = s->oh - i < r.block ? s->oh - i : r.block;
            give(s, &r, dy + (n * s->oh + i) * s->ow * s->oc, rows * s->ow);
            for (int64_t k = 0; k < rows; k++) add_row(s, &r, r.p + k * s->ow * r.p_row, i + k);
        }
        for (int64_t h = 0; h < s->h; h++)
            memcpy(dx + (n * s->h + h) * line, r.image + h * full + r.left * s->c, (size_t)line * sizeof(real));
    }
}
