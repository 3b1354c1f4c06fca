/* convolution.c - how a convolution is cut: into groups of images, into rows of images where those are few, into tiles for Winograd's
 * algorithm; a 1x1 kernel is a matrix product, and product.c cuts it. Shapes alone decide. An element of y and dx does not depend on the
 * cut; dw is a sum of parts, so the number of parts is fixed by the shape too. */
#include "convolution.h"

#include "../base/memory.h"
#include "../base/pool.h"
#include "../base/whole.h"
#include "conv_pieces.h"
#include "product.h"

#include <string.h>

enum {
    MOST_CHUNKS = 32,
    MOST_PARTS = 16,
    MOST_PART_BYTES = 1 << 26,
    FEW_IMAGES = 16,    /* as many are worth cutting by rows */
    FEWEST_PIXELS = 64, /* of a piece: each piece copies the weights into the order it wants */
    TILE_STEP = 6,      /* pieces in whole tiles of the micro-kernel */
    FEWEST_TILES = 18,  /* of a part of dw */
    FEW_PIXELS = 1024,  /* of all images, worth cutting dw by features if there are */
    MANY_WEIGHT_BYTES = 1 << 18,
    MOST_SUMS = 1 << 22, /* that each worker may hold for dw by Winograd: 16 MB */
};

typedef struct job {
    const bp_kernels *kernels;
    bp_conv_shape s;
    const char *x, *w, *dy, *bias;
    char *out;
    bp_act act;
    int64_t size;   /* bytes of an element */
    int64_t images; /* per chunk, with pieces == 1 */
    int64_t pieces; /* of one image */
    int64_t rows;   /* per piece: of y, of dx, of dy */
    int64_t tiles, tiles_each;
    int64_t columns; /* of the result, per chunk that transforms its own weights */
    char *u;         /* transformed weights */
    bool gradient, across;
    char *scratch;
    size_t scratch_bytes; /* per worker */
} job;

static job job_of(bp_ctx *ctx, const bp_convolution *c)
{
    return (job){ .kernels = bp_kernels_of(ctx, c->dtype),
                  .s = c->s,
                  .x = (const char *)c->x,
                  .w = (const char *)c->w,
                  .dy = (const char *)c->dy,
                  .bias = (const char *)c->bias,
                  .act = c->act,
                  .out = (char *)c->out,
                  .size = (int64_t)bp_dtype_size(c->dtype),
                  .pieces = 1 };
}

/* Scratch for every worker and `extra` bytes after it, which are returned. */
static char *take_scratch(bp_ctx *ctx, job *j, size_t each, size_t extra)
{
    j->scratch_bytes = bp__lines(each);
    const size_t all = j->scratch_bytes * (size_t)bp_threads(ctx);
    j->scratch = (char *)bp__scratch(ctx, all + extra + 64);
    return j->scratch ? j->scratch + all : NULL;
}

static void *scratch_of(const job *j, int worker) { return j->scratch + (size_t)worker * j->scratch_bytes; }

static double work_per_image(const bp_conv_shape *s)
{
    return (double)s->oh * (double)s->ow * (double)s->oc * (double)s->kh * (double)s->kw * (double)s->c + 1;
}

/* Whole images, at least a grain of work; or pieces of an image with `rows` rows of `width` pixels. */
static void cut_images(job *j, int64_t rows, int64_t width, int64_t most)
{
    const bp_conv_shape *s = &j->s;
    const double work = work_per_image(s);
    const int64_t grain = work >= BP_WORK_GRAIN ? 1 : (int64_t)(BP_WORK_GRAIN / work);
    j->images = greater(grain, divide_up(s->n, most));
    j->rows = rows;
    if (s->n > FEW_IMAGES || work < BP_WORK_GRAIN / 8.0) return;
    const int64_t by_work = (int64_t)(2 * work / BP_WORK_GRAIN), by_pixels = rows * width / FEWEST_PIXELS;
    const int64_t pieces = smaller(smaller(by_work < 2 ? 2 : by_work, by_pixels), smaller(rows, most / s->n));
    if (pieces < 2 || s->n * pieces <= divide_up(s->n, j->images)) return;
    j->images = 1;
    j->rows = divide_up(rows, pieces);
    j->pieces = divide_up(rows, j->rows);
}

bp_conv_shape bp__conv_rows(const bp_conv_shape *whole, bool gradient, int64_t r0, int64_t r1, int64_t *skip)
{
    bp_conv_shape s = *whole;
    s.n = 1;
    if (gradient) {
        const int64_t least = r0 + s.ph - (s.kh - 1) * s.dh, last = (r1 - 1 + s.ph) / s.sh;
        *skip = smaller(least > 0 ? divide_up(least, s.sh) : 0, s.oh);
        s.h = r1 - r0;
        s.oh = greater(smaller(last + 1, s.oh) - *skip, 0);
        s.ph += r0 - *skip * s.sh;
    } else {
        const int64_t first = r0 * s.sh - s.ph;
        *skip = first > 0 ? smaller(first, s.h) : 0;
        s.oh = r1 - r0;
        s.h -= *skip;
        s.ph = *skip - first;
    }
    return s;
}

static int64_t chunks_of(const job *j) { return j->pieces > 1 ? j->s.n * j->pieces : bp_chunks(j->s.n, j->images); }

/* ---- Winograd or not ---- */

static int64_t tiles_of(const bp_conv_shape *s, bp_conv_direction d)
{
    const int64_t h = d == BP_CONV_GRAD_INPUT ? s->h : s->oh, w = d == BP_CONV_GRAD_INPUT ? s->w : s->ow;
    return divide_up(h, 4) * divide_up(w, 4);
}

/* Compares the time of one image, in multiply-adds of the direct way. The small products run at four fifths of its speed; transforming a
 * channel of a tile takes as long as 300 multiply-adds, transforming the weights of a pair of channels as 250, here shared by eight images:
 * the number of images does not count, so that a result does not depend on the company it is computed in. */
bool bp__conv_by_winograd(const bp_kernels *kernels, const bp_convolution *c, bp_conv_direction d)
{
    const bp_conv_shape *s = &c->s;
    if (c->algorithm != BP_CONV_AUTO) return c->algorithm == BP_CONV_WINOGRAD;
    if (!bp__winograd_fits(s) || c->dtype != BP_F32 || s->c < 8 || s->oc < 8) return false;
    const double in = (double)s->c, out = (double)s->oc;
    const bool planar = d == BP_CONV_GRAD_WEIGHT ? kernels->conv2d_planar_sums(s)
                                                 : kernels->conv2d_planar_gathers(s, d == BP_CONV_GRAD_INPUT);
    if (planar && s->c < kernels->lanes && s->oc < kernels->lanes) return false; /* half of each vector would be empty on both sides */
    if (d == BP_CONV_GRAD_WEIGHT && (36 * in * out > MOST_SUMS || s->n * tiles_of(s, d) < 2 * FEWEST_TILES)) return false;
    const double winograd = (double)tiles_of(s, d) * (45 * in * out + 300 * (in + out)) + 250.0 / 8 * in * out;
    return winograd < 0.85 * work_per_image(s);
}

bool bp__conv_across(const bp_kernels *kernels, const bp_convolution *c, bp_conv_direction d)
{
    return c->dtype == BP_F32 && !bp__conv_is_product(&c->s) && !bp__conv_by_winograd(kernels, c, d) &&
           kernels->conv2d_across_pays(&c->s, d == BP_CONV_GRAD_INPUT, d == BP_CONV_GRAD_WEIGHT);
}

/* ---- 1x1 with stride 1: one product over all pixels ---- */

/* out[m][n] = a[m][k] b[k][n], the strides of a and b given */
static bp_status multiply(bp_ctx *ctx, const bp_convolution *c, bp_gemm one)
{
    one.c = c->out;
    one.c_row = one.n;
    const bp_product p = { .dtype = c->dtype, .one = one, .mask = c->mask, .sum = c->sum };
    return bp__product(ctx, &p);
}

static bp_status multiply_forward(bp_ctx *ctx, const bp_convolution *c)
{
    const int64_t pixels = c->s.n * c->s.h * c->s.w, in = c->s.c, out = c->s.oc;
    return multiply(ctx, c,
                    (bp_gemm){ .m = pixels,
                               .n = out,
                               .k = in,
                               .a = c->x,
                               .a_row = in,
                               .a_col = 1,
                               .b = c->w,
                               .b_row = out,
                               .b_col = 1,
                               .bias = c->bias,
                               .act = c->act });
}

static bp_status multiply_grad_input(bp_ctx *ctx, const bp_convolution *c)
{
    const int64_t pixels = c->s.n * c->s.h * c->s.w, in = c->s.c, out = c->s.oc;
    return multiply(ctx, c,
                    (bp_gemm){ .m = pixels, .n = in, .k = out, .a = c->dy, .a_row = out, .a_col = 1, .b = c->w, .b_row = 1, .b_col = out });
}

static bp_status multiply_grad_weight(bp_ctx *ctx, const bp_convolution *c)
{
    const int64_t pixels = c->s.n * c->s.h * c->s.w, in = c->s.c, out = c->s.oc;
    return multiply(ctx, c,
                    (bp_gemm){ .m = in, .n = out, .k = pixels, .a = c->x, .a_row = 1, .a_col = in, .b = c->dy, .b_row = out, .b_col = 1 });
}

/* ---- Winograd: weights once, then tiles; or of few tiles, all of them for a part of the columns, with the weights of those ---- */

enum { COLUMN_STEP = 32 };

static void transform_weights(const job *j, void *u, int64_t k0, int64_t k1, int64_t j0, int64_t j1, void *scratch)
{
    j->kernels->winograd_weights(&j->s, j->gradient, j->w, u, k0, k1, j0, j1, scratch);
}

static void run_winograd(const job *j, const void *u, int64_t t0, int64_t t1, int64_t j0, int64_t j1, void *scratch)
{
    if (j->gradient)
        j->kernels->winograd_grad_input(&j->s, j->dy, u, j->out, t0, t1, j0, j1, scratch);
    else
        j->kernels->winograd_forward(&j->s, j->x, u, j->bias, j->act, j->out, t0, t1, j0, j1, scratch);
}

/* Of the product: steps of its sums, columns of its result. */
static int64_t steps_of(const job *j) { return j->gradient ? j->s.oc : j->s.c; }
static int64_t columns_of(const job *j) { return j->gradient ? j->s.c : j->s.oc; }

static void weights_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const int64_t first = chunk * BP_CONV_WEIGHT_STEP;
    transform_weights(j, j->u, first, smaller(first + BP_CONV_WEIGHT_STEP, steps_of(j)), 0, columns_of(j), scratch_of(j, worker));
}

static void tiles_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const int64_t first = chunk * j->tiles_each;
    run_winograd(j, j->u, first, smaller(first + j->tiles_each, j->tiles), 0, columns_of(j), scratch_of(j, worker));
}

static void columns_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    char *const scratch = (char *)scratch_of(j, worker), *const u = scratch + bp__lines(j->kernels->winograd_scratch(&j->s));
    const int64_t first = chunk * j->columns, last = smaller(first + j->columns, columns_of(j));
    transform_weights(j, u, 0, steps_of(j), first, last, scratch);
    run_winograd(j, u, 0, j->tiles, first, last, scratch);
}

/* Weights that another core transformed come slowly from there, and without that the two halves need no waiting between them. Few tiles
 * are soon transformed again for other columns. */
static bp_status run_columns(bp_ctx *ctx, job *j)
{
    bp_conv_shape part = j->s;
    j->columns = COLUMN_STEP;
    *(j->gradient ? &part.c : &part.oc) = j->columns;
    if (!take_scratch(ctx, j, bp__lines(j->kernels->winograd_scratch(&j->s)) + j->kernels->winograd_weights_size(&part), 0))
        return BP_ENOMEM;
    bp_parallel(ctx, bp_chunks(columns_of(j), j->columns), columns_chunk, j);
    return BP_OK;
}

static bp_status run_tiles(bp_ctx *ctx, job *j, bp_conv_direction d)
{
    const bp_conv_shape *s = &j->s;
    j->gradient = d == BP_CONV_GRAD_INPUT;
    j->tiles = s->n * tiles_of(s, d);
    if (j->tiles <= BP_CONV_FEW_TILES) return run_columns(ctx, j);
    const int64_t grain = (int64_t)(BP_WORK_GRAIN / 2 / (36.0 * (double)s->c * (double)s->oc));
    j->tiles_each = greater(greater(grain / TILE_STEP, 1), divide_up(j->tiles, MOST_CHUNKS * TILE_STEP)) * TILE_STEP;
    j->u = take_scratch(ctx, j, j->kernels->winograd_scratch(s), j->kernels->winograd_weights_size(s));
    if (!j->u) return BP_ENOMEM;
    bp_parallel(ctx, divide_up(steps_of(j), BP_CONV_WEIGHT_STEP), weights_chunk, j);
    bp_parallel(ctx, bp_chunks(j->tiles, j->tiles_each), tiles_chunk, j);
    return BP_OK;
}

/* ---- a lane for each image: groups of as many, in bands of rows where those are few ---- */

enum { FEWEST_CHUNKS = 8 };

static void across_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const bp_conv_shape *s = &j->s;
    const int64_t x = s->h * s->w * s->c, y = s->oh * s->ow * s->oc, from = j->gradient ? y : x, to = j->gradient ? x : y;
    const int64_t height = j->gradient ? s->h : s->oh, n = chunk / j->pieces * j->images, r0 = chunk % j->pieces * j->rows;
    j->kernels->conv2d_across_gather(s, j->gradient, (j->gradient ? j->dy : j->x) + n * from * j->size, j->w, j->bias, j->act,
                                     j->out + (n * to + r0 * (to / height)) * j->size, smaller(j->images, s->n - n), to, r0,
                                     smaller(r0 + j->rows, height), scratch_of(j, worker));
}

int64_t bp__conv_across_images(const bp_kernels *kernels, const bp_conv_shape *s, int64_t most)
{
    const int64_t lanes = kernels->lanes;
    const double work = work_per_image(s) * (double)lanes;
    return lanes * greater(divide_up(divide_up(s->n, lanes), most), work < BP_WORK_GRAIN / 2 ? (int64_t)(BP_WORK_GRAIN / 2 / work) : 1);
}

static bp_status run_across(bp_ctx *ctx, job *j, bool gradient)
{
    const bp_conv_shape *s = &j->s;
    const int64_t height = gradient ? s->h : s->oh, reach = (s->kh - 1) * s->dh + 1;
    j->gradient = gradient;
    j->images = bp__conv_across_images(j->kernels, s, MOST_CHUNKS);
    const int64_t by_work = (int64_t)(work_per_image(s) * (double)j->images / BP_WORK_GRAIN);
    const int64_t bands = smaller(FEWEST_CHUNKS / bp_chunks(s->n, j->images), smaller(by_work, height / (2 * reach)));
    j->rows = divide_up(height, greater(bands, 1));
    j->pieces = divide_up(height, j->rows);
    if (!take_scratch(ctx, j, j->kernels->conv2d_across_scratch(s), 0)) return BP_ENOMEM;
    bp_parallel(ctx, bp_chunks(s->n, j->images) * j->pieces, across_chunk, j);
    return BP_OK;
}

/* ---- forward ---- */

static void forward_rows(const job *j, int64_t k, int64_t i0, int64_t i1, void *scratch)
{
    int64_t skip;
    const bp_conv_shape s = bp__conv_rows(&j->s, false, i0, i1, &skip);
    j->kernels->conv2d_forward(&s, j->x + (k * j->s.h + skip) * s.w * s.c * j->size, j->w, j->bias, j->act,
                               j->out + (k * j->s.oh + i0) * s.ow * s.oc * j->size, 0, 1, scratch);
}

static void forward_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    if (j->pieces == 1) {
        const int64_t first = chunk * j->images;
        j->kernels->conv2d_forward(&j->s, j->x, j->w, j->bias, j->act, j->out, first, smaller(first + j->images, j->s.n),
                                   scratch_of(j, worker));
    } else {
        const int64_t i0 = chunk % j->pieces * j->rows;
        forward_rows(j, chunk / j->pieces, i0, smaller(i0 + j->rows, j->s.oh), scratch_of(j, worker));
    }
}

bp_status bp__conv_forward(bp_ctx *ctx, const bp_convolution *c)
{
    job j = job_of(ctx, c);
    if (c->s.n * c->s.oh * c->s.ow == 0) return BP_OK;
    if (bp__conv_is_product(&c->s)) return multiply_forward(ctx, c);
    if (bp__conv_by_winograd(j.kernels, c, BP_CONV_FORWARD)) return run_tiles(ctx, &j, BP_CONV_FORWARD);
    if (bp__conv_across(j.kernels, c, BP_CONV_FORWARD)) return run_across(ctx, &j, false);
    cut_images(&j, c->s.oh, c->s.ow, MOST_CHUNKS);
    if (!take_scratch(ctx, &j, j.kernels->conv2d_scratch(&c->s), 0)) return BP_ENOMEM;
    bp_parallel(ctx, chunks_of(&j), forward_chunk, &j);
    return BP_OK;
}

/* ---- gradient with respect to the input ---- */

static void grad_input_rows(const job *j, int64_t k, int64_t h0, int64_t h1, void *scratch)
{
    int64_t skip;
    const bp_conv_shape s = bp__conv_rows(&j->s, true, h0, h1, &skip);
    j->kernels->conv2d_grad_input(&s, j->dy + (k * j->s.oh + skip) * s.ow * s.oc * j->size, j->w,
                                  j->out + (k * j->s.h + h0) * s.w * s.c * j->size, 0, 1, scratch);
}

static void grad_input_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    if (j->pieces == 1) {
        const int64_t first = chunk * j->images;
        j->kernels->conv2d_grad_input(&j->s, j->dy, j->w, j->out, first, smaller(first + j->images, j->s.n), scratch_of(j, worker));
    } else {
        const int64_t h0 = chunk % j->pieces * j->rows;
        grad_input_rows(j, chunk / j->pieces, h0, smaller(h0 + j->rows, j->s.h), scratch_of(j, worker));
    }
}

typedef struct masking {
    bp_conv_reader reader; /* first */
    const bp_convolution *c;
} masking;

static void undo_relu(const bp_conv_reader *r, const void *rows, int64_t height, int64_t first, int64_t images, int64_t w0, int64_t w1)
{
    (void)w1;
    const bp_convolution *c = ((const masking *)r)->c;
    const int64_t row = c->s.w * c->s.c;
    bp__undo_relu(c->mask, rows, (first * c->s.h + w0) * row, images * height * row, c->out);
}

static masking masking_of(const bp_convolution *c)
{
    return (masking){ .reader = { .windows = c->s.h, .size = 1, .stride = 1, .read = undo_relu }, .c = c };
}

bool bp__conv_mask_pays(const bp_kernels *kernels, const bp_convolution *c)
{
    if (bp__conv_is_product(&c->s)) {
        const bp_product p = { .dtype = c->dtype, .one = { .m = c->s.n * c->s.h * c->s.w, .n = c->s.c, .k = c->s.oc } };
        return bp__product_mask_pays(&p);
    }
    const masking m = masking_of(c);
    return bp__conv_pieces_pay(kernels, c, BP_CONV_GRAD_INPUT, &m.reader);
}

bp_status bp__conv_grad_input(bp_ctx *ctx, const bp_convolution *c)
{
    job j = job_of(ctx, c);
    if (c->s.n * c->s.h * c->s.w == 0) return BP_OK;
    if (bp__conv_is_product(&c->s)) return multiply_grad_input(ctx, c);
    if (c->mask) {
        const masking m = masking_of(c);
        return bp__conv_in_pieces(ctx, c, BP_CONV_GRAD_INPUT, &m.reader);
    }
    if (bp__conv_by_winograd(j.kernels, c, BP_CONV_GRAD_INPUT)) return run_tiles(ctx, &j, BP_CONV_GRAD_INPUT);
    if (bp__conv_across(j.kernels, c, BP_CONV_GRAD_INPUT)) return run_across(ctx, &j, true);
    cut_images(&j, c->s.h, c->s.w, MOST_CHUNKS);
    if (!take_scratch(ctx, &j, j.kernels->conv2d_scratch(&c->s), 0)) return BP_ENOMEM;
    bp_parallel(ctx, chunks_of(&j), grad_input_chunk, &j);
    return BP_OK;
}

/* ---- gradient with respect to the weights: a sum over all pixels of all images, taken in parts ---- */

static int64_t weights_of(const bp_conv_shape *s) { return s->kh * s->kw * s->c * s->oc; }

/* What output rows i0..i1-1 of image k add. */
static void grad_weight_rows(const job *j, int64_t k, int64_t i0, int64_t i1, void *part, void *scratch)
{
    int64_t skip;
    const bp_conv_shape s = bp__conv_rows(&j->s, false, i0, i1, &skip);
    j->kernels->conv2d_grad_weight(&s, j->x + (k * j->s.h + skip) * s.w * s.c * j->size, j->dy + (k * j->s.oh + i0) * s.ow * s.oc * j->size,
                                   part, 0, 1, 0, s.oc, scratch);
}

static void grad_weight_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const int64_t n = weights_of(&j->s);
    char *part = j->out + chunk * n * j->size;
    if (j->tiles_each) {
        const int64_t first = chunk * j->tiles_each;
        j->kernels->winograd_grad_weight(&j->s, j->x, j->dy, part, first, smaller(first + j->tiles_each, j->tiles), scratch_of(j, worker));
        return;
    }
    memset(part, 0, (size_t)(n * j->size));
    if (j->across) {
        const bp_conv_shape *s = &j->s;
        const int64_t first = chunk * j->images;
        j->kernels->conv2d_across_sum(s, j->x + first * s->h * s->w * s->c * j->size, j->dy + first * s->oh * s->ow * s->oc * j->size, part,
                                      smaller(j->images, s->n - first), scratch_of(j, worker));
    } else if (j->pieces == 1) {
        const int64_t first = chunk * j->images;
        j->kernels->conv2d_grad_weight(&j->s, j->x, j->dy, part, first, smaller(first + j->images, j->s.n), 0, j->s.oc,
                                       scratch_of(j, worker));
    } else {
        const int64_t i0 = chunk % j->pieces * j->rows;
        grad_weight_rows(j, chunk / j->pieces, i0, smaller(i0 + j->rows, j->s.oh), part, scratch_of(j, worker));
    }
}

/* All pixels for a part of the features. */
static void grad_weight_columns_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const int64_t first = chunk * j->columns, last = smaller(first + j->columns, j->s.oc), row = j->s.oc * j->size;
    char *const to = j->out + first * j->size;
    for (int64_t i = 0; i < j->s.kh * j->s.kw * j->s.c; i++) memset(to + i * row, 0, (size_t)((last - first) * j->size));
    j->kernels->conv2d_grad_weight(&j->s, j->x, j->dy, j->out, 0, j->s.n, first, last, scratch_of(j, worker));
}

/* Many weights and few pixels: parts of the sum would move more numbers than they multiply. */
static bool cuts_features(const job *j)
{
    const bp_conv_shape *s = &j->s;
    return s->oc >= 8 * j->kernels->lanes && s->n * s->oh * s->ow <= FEW_PIXELS && weights_of(s) * j->size >= MANY_WEIGHT_BYTES &&
           !j->kernels->conv2d_planar_sums(s);
}

bp_status bp__conv_grad_weight(bp_ctx *ctx, const bp_convolution *c)
{
    const bp_conv_shape *s = &c->s;
    job j = job_of(ctx, c);
    const int64_t n = weights_of(s), bytes = n * j.size, most = smaller(MOST_PARTS, 1 + MOST_PART_BYTES / bytes);
    int64_t parts = 1;
    size_t each = j.kernels->conv2d_scratch(s);
    if (s->n * s->oh * s->ow == 0) { /* the sum of nothing */
        memset(j.out, 0, (size_t)bytes);
        bp__parallel_summing(ctx, c->sum, 1, NULL, NULL);
        return BP_OK;
    }
    if (bp__conv_is_product(s)) return multiply_grad_weight(ctx, c);
    if (bp__conv_by_winograd(j.kernels, c, BP_CONV_GRAD_WEIGHT)) {
        j.tiles = s->n * tiles_of(s, BP_CONV_GRAD_WEIGHT);
        parts = greater(smaller(most, j.tiles / FEWEST_TILES), 1);
        j.tiles_each = divide_up(divide_up(j.tiles, parts), TILE_STEP) * TILE_STEP;
        parts = bp_chunks(j.tiles, j.tiles_each);
        each = j.kernels->winograd_scratch(s);
    } else if (bp__conv_across(j.kernels, c, BP_CONV_GRAD_WEIGHT)) {
        j.across = true;
        j.images = bp__conv_across_images(j.kernels, s, most);
        parts = bp_chunks(s->n, j.images);
        each = j.kernels->conv2d_across_scratch(s);
    } else if (cuts_features(&j)) {
        j.columns = 2 * j.kernels->lanes;
        if (!take_scratch(ctx, &j, each, 0)) return BP_ENOMEM;
        bp__parallel_summing(ctx, c->sum, bp_chunks(s->oc, j.columns), grad_weight_columns_chunk, &j);
        return BP_OK;
    } else {
        cut_images(&j, s->oh, s->ow, most);
        parts = chunks_of(&j);
    }
    char *room = take_scratch(ctx, &j, each, parts > 1 ? (size_t)(parts * bytes) : 0);
    if (!room) return BP_ENOMEM;
    if (parts > 1) j.out = room;
    bp__parallel_summing(ctx, c->sum, parts, grad_weight_chunk, &j);
    if (parts > 1) bp__sum_parts(ctx, c->dtype, parts, n, room, c->out);
    return BP_OK;
}
