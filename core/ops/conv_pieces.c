/* conv_pieces.c - cutting a convolution into pieces that stay in a cache, see conv_pieces.h. Shapes alone decide. */
#include "conv_pieces.h"

#include "../base/memory.h"
#include "../base/pool.h"
#include "../base/whole.h"
#include "product.h"

enum {
    PIECE_BYTES = 1 << 18, /* of the result: half of a second-level cache of 512 kB */
    MOST_CHUNKS = 32,
    FEW_IMAGES = 16,    /* as many are cut by rows where they can be */
    FEWEST_PIXELS = 64, /* of a piece: each copies the weights into the order it wants */
    PIECE_TILES = 24,   /* so many at least share a reading of the transformed weights */
    FEWEST_CHUNKS = 16, /* where nothing follows, the cut is finer */
    TILE = 4,           /* rows of a tile of Winograd's algorithm: it must lie where it lies in the whole image */
};

typedef struct job {
    const bp_kernels *kernels;
    const bp_convolution *c;
    const bp_conv_reader *reader;
    bool gradient, winograd, across;
    bool grouped;                  /* more images in a chunk than its work asks for */
    int64_t size;                  /* bytes of an element */
    int64_t rows, width, features; /* of an image of the result */
    int64_t images, each;          /* whole images: of a piece, of a chunk */
    int64_t bands, windows;        /* pieces of one image, windows of each; bands 1: whole images */
    char *u;                       /* transformed weights */
    char *scratch;
    size_t piece_bytes, scratch_bytes; /* scratch of a worker: a piece, and what the kernels want */
} job;

/* Rows of the result in which window w begins, and those from window w0 to the end of window w1 - 1. */
static int64_t first_row(const job *j, int64_t w) { return greater(w * j->reader->stride - j->reader->before, 0); }
static int64_t end_row(const job *j, int64_t w1)
{
    return greater(smaller((w1 - 1) * j->reader->stride - j->reader->before + j->reader->size, j->rows), 0);
}

/* So many windows that the next one begins with a tile. */
static int64_t window_step(const job *j)
{
    int64_t step = 1;
    while (j->winograd && step * j->reader->stride % TILE) step++;
    return step;
}

static bool can_be_cut(const job *j) { return j->reader->before == 0 && j->reader->size <= j->reader->stride; }

static int64_t bytes_of_rows(const job *j, int64_t rows) { return rows * j->width * j->features * j->size; }

/* Of a piece of images with a lane for each. */
static int64_t group_rows(const job *j) { return j->images * (j->windows < j->reader->windows ? j->windows * j->reader->stride : j->rows); }

static int64_t tiles_of(const job *j) { return divide_up(j->rows, TILE) * divide_up(j->width, TILE); } /* of an image */

static job cut(const bp_kernels *kernels, const bp_convolution *c, bp_conv_direction d, const bp_conv_reader *r)
{
    const bp_conv_shape *s = &c->s;
    job j = { .kernels = kernels, .c = c, .reader = r, .gradient = d == BP_CONV_GRAD_INPUT, .size = (int64_t)bp_dtype_size(c->dtype) };
    j.winograd = bp__conv_by_winograd(kernels, c, d);
    j.rows = j.gradient ? s->h : s->oh, j.width = j.gradient ? s->w : s->ow, j.features = j.gradient ? s->c : s->oc;
    const int64_t image = greater(bytes_of_rows(&j, j.rows), 1), step = window_step(&j);
    j.bands = 1;
    j.windows = r->windows;
    j.across = bp__conv_across(kernels, c, d);
    if (j.across) {
        j.images = kernels->lanes;
        j.each = bp__conv_across_images(kernels, s, MOST_CHUNKS);
        if (can_be_cut(&j)) j.windows = smaller(greater(PIECE_BYTES / greater(j.images * bytes_of_rows(&j, r->stride), 1), 1), r->windows);
        return j;
    }
    const double work = (double)s->oh * (double)s->ow * (double)s->oc * (double)(s->kh * s->kw * s->c) * (j.winograd ? 0.5 : 1) + 1;
    j.each = greater(divide_up(s->n, MOST_CHUNKS), work < BP_WORK_GRAIN ? (int64_t)(BP_WORK_GRAIN / work) : 1);
    const int64_t few = divide_up(PIECE_TILES, greater(tiles_of(&j), 1));
    j.grouped = j.winograd && few > j.each;
    if (j.grouped) j.each = few;
    j.images = greater(smaller(PIECE_BYTES / image, j.each), 1);
    if (!can_be_cut(&j) || (image <= PIECE_BYTES && s->n > FEW_IMAGES)) return j;
    int64_t fit = PIECE_BYTES / greater(bytes_of_rows(&j, r->stride), 1);
    if (s->n <= FEW_IMAGES) fit = smaller(fit, divide_up(r->windows * s->n, MOST_CHUNKS));
    fit = greater(fit, divide_up(j.winograd ? PIECE_TILES * TILE * TILE : FEWEST_PIXELS, r->stride * j.width));
    j.windows = smaller(round_up(greater(fit - step + 1, 1), step), r->windows);
    j.bands = divide_up(r->windows, j.windows);
    return j;
}

bool bp__conv_pieces_pay(const bp_kernels *kernels, const bp_convolution *c, bp_conv_direction d, const bp_conv_reader *r)
{
    if (c->dtype != BP_F32 || bp__conv_is_product(&c->s) || r->windows < 1) return false;
    const job j = cut(kernels, c, d, r);
    const int64_t image = bytes_of_rows(&j, j.rows);
    if (image * c->s.n <= 2 * PIECE_BYTES) return false;
    if (j.across) return bytes_of_rows(&j, group_rows(&j)) <= 2 * PIECE_BYTES;
    if (j.winograd && c->s.n * tiles_of(&j) <= BP_CONV_FEW_TILES) return false;
    if (j.bands == 1) return image <= PIECE_BYTES && c->s.n > FEW_IMAGES && (!j.grouped || divide_up(c->s.n, j.each) >= FEWEST_CHUNKS);
    return c->s.n * j.bands >= FEWEST_CHUNKS && bytes_of_rows(&j, j.windows * r->stride) <= 2 * PIECE_BYTES;
}

/* ---- one piece ---- */

static void run_piece(const job *j, int64_t first, int64_t images, int64_t w0, int64_t w1, int worker)
{
    const bp_convolution *c = j->c;
    const bp_kernels *k = j->kernels;
    const bool whole = j->bands == 1;
    const int64_t r0 = whole ? 0 : first_row(j, w0), r1 = whole ? j->rows : end_row(j, w1);
    char *const rows = j->scratch + (size_t)worker * j->scratch_bytes, *const scratch = rows + j->piece_bytes;
    int64_t skip;
    bp_conv_shape s = bp__conv_rows(&c->s, j->gradient, r0, r1, &skip);
    const bp_conv_shape *all = &c->s;
    s.n = whole ? all->n - first : 1; /* those after `images` are only looked ahead to */
    const int64_t tiles = images * divide_up(r1 - r0, TILE) * divide_up(j->width, TILE);
    if (j->gradient) {
        const char *dy = (const char *)c->dy + (first * all->oh + skip) * all->ow * all->oc * j->size;
        if (j->winograd)
            k->winograd_grad_input(&s, dy, j->u, rows, 0, tiles, 0, s.c, scratch);
        else
            k->conv2d_grad_input(&s, dy, c->w, rows, 0, images, scratch);
    } else {
        const char *x = (const char *)c->x + (first * all->h + skip) * all->w * all->c * j->size;
        if (j->winograd)
            k->winograd_forward(&s, x, j->u, c->bias, c->act, rows, 0, tiles, 0, s.oc, scratch);
        else
            k->conv2d_forward(&s, x, c->w, c->bias, c->act, rows, 0, images, scratch);
    }
    j->reader->read(j->reader, rows, r1 - r0, first, images, w0, w1);
}

/* A group of images with a lane for each, some windows at a time. */
static void run_group(const job *j, int64_t first, int64_t images, int worker)
{
    const bp_conv_shape *s = &j->c->s;
    char *const rows = j->scratch + (size_t)worker * j->scratch_bytes, *const scratch = rows + j->piece_bytes;
    const int64_t of_image = j->gradient ? s->oh * s->ow * s->oc : s->h * s->w * s->c, all = j->reader->windows;
    const char *const from = (const char *)(j->gradient ? j->c->dy : j->c->x) + first * of_image * j->size;
    for (int64_t w0 = 0; w0 < all; w0 += j->windows) {
        const int64_t w1 = smaller(w0 + j->windows, all), whole = w0 == 0 && w1 == all;
        const int64_t r0 = whole ? 0 : first_row(j, w0), r1 = whole ? j->rows : end_row(j, w1);
        j->kernels->conv2d_across_gather(s, j->gradient, from, j->c->w, j->gradient ? NULL : j->c->bias,
                                         j->gradient ? BP_ACT_NONE : j->c->act, rows, images, (r1 - r0) * j->width * j->features, r0, r1,
                                         scratch);
        if (whole)
            j->reader->read(j->reader, rows, r1 - r0, first, images, w0, w1);
        else
            for (int64_t n = 0; n < images; n++)
                j->reader->read(j->reader, rows + n * bytes_of_rows(j, r1 - r0), r1 - r0, first + n, 1, w0, w1);
    }
}

static void images_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const int64_t end = smaller((chunk + 1) * j->each, j->c->s.n);
    for (int64_t n = chunk * j->each; n < end; n += j->images)
        if (j->across)
            run_group(j, n, smaller(j->images, end - n), worker);
        else
            run_piece(j, n, smaller(j->images, end - n), 0, j->reader->windows, worker);
}

static void band_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const int64_t w0 = chunk % j->bands * j->windows;
    run_piece(j, chunk / j->bands, 1, w0, smaller(w0 + j->windows, j->reader->windows), worker);
}

static void weights_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    const bp_conv_shape *s = &j->c->s;
    const int64_t steps = j->gradient ? s->oc : s->c, columns = j->gradient ? s->c : s->oc, k0 = chunk * BP_CONV_WEIGHT_STEP;
    j->kernels->winograd_weights(s, j->gradient, j->c->w, j->u, k0, smaller(k0 + BP_CONV_WEIGHT_STEP, steps), 0, columns,
                                 j->scratch + (size_t)worker * j->scratch_bytes + j->piece_bytes);
}

bp_status bp__conv_in_pieces(bp_ctx *ctx, const bp_convolution *c, bp_conv_direction d, const bp_conv_reader *r)
{
    job j = cut(bp_kernels_of(ctx, c->dtype), c, d, r);
    if (c->s.n * j.rows * j.width == 0 || r->windows == 0) return BP_OK;
    const int64_t rows = j.across ? group_rows(&j) : j.bands == 1 ? j.images * j.rows : j.windows * r->stride;
    j.piece_bytes = bp__lines((size_t)bytes_of_rows(&j, rows));
    j.scratch_bytes = j.piece_bytes + bp__lines(j.winograd ? j.kernels->winograd_scratch(&c->s)
                                                : j.across ? j.kernels->conv2d_across_scratch(&c->s)
                                                           : j.kernels->conv2d_scratch(&c->s));
    const size_t all = j.scratch_bytes * (size_t)bp_threads(ctx);
    j.scratch = (char *)bp__scratch(ctx, all + (j.winograd ? j.kernels->winograd_weights_size(&c->s) : 0) + 64);
    if (!j.scratch) return BP_ENOMEM;
    j.u = j.scratch + all;
    if (j.winograd) bp_parallel(ctx, divide_up(j.gradient ? c->s.oc : c->s.c, BP_CONV_WEIGHT_STEP), weights_chunk, &j);
    if (j.bands == 1)
        bp_parallel(ctx, bp_chunks(c->s.n, j.each), images_chunk, &j);
    else
        bp_parallel(ctx, c->s.n * j.bands, band_chunk, &j);
    return BP_OK;
}
