/* product.c - how a matrix product is cut: into tiles of rows and columns, or into parts of k where the result is too small for that. */
#include "product.h"

#include "../base/memory.h"
#include "../base/pool.h"
#include "../base/whole.h"
#include "op.h"

enum {
    MOST_TILES = 32, /* per product */
    FEW_TILES = 8,   /* so many may be small; more of them would cost in copies of operands what they gain in balance */
    MOST_PARTS = 16, /* of a long reduction */
    ROW_STEP = 12,   /* tiles begin at multiples of these, so that the kernel's own tiles stay whole */
    COLUMN_STEP = 64,
    FEWEST_ROWS = 96, /* each tile packs its own panels of B, which that many rows repay */
    SHORTEST_PART = 512,
    FEW_ROWS = 6,           /* that wait for memory more than they compute */
    WIDEST_OF_FEW = 2048,   /* several rows meet B in panels, pieces of its rows again: long rows gain nothing */
    COPY_WORK = 16,         /* times BP_WORK_GRAIN: from here on copies for all tiles repay the wait for them */
    MOST_COPIED = 1 << 24,  /* bytes of an operand that is copied once for all tiles */
    COPY_DEPTH = 64,        /* of k, that a thread copies at a time */
    MASKED_BYTES = 1 << 17, /* of C: rows that stay in a cache until they are masked */
    LONG_PIECE = 4096,      /* of a row of B: such pieces are read as fast as whole rows, and more of them keep threads busy to the end */
};

typedef struct job {
    const bp_kernels *kernels;
    const bp_product *product;
    int64_t batch, group;  /* products in all, and per chunk */
    int64_t rows, columns; /* of a tile */
    int64_t row_tiles, column_tiles;
    int64_t depth, parts; /* k of a part */
    int64_t size;         /* bytes of an element */
    char *partial;        /* [parts][m][n], with parts > 1 */
    int64_t masked_rows;  /* of a tile at a time */
    char *copy[2];        /* of A and of B, one tile after the other; NULL: each tile makes its own or reads in place */
    int64_t copy_pieces;  /* of k */
    char *scratch;
    size_t scratch_bytes, masked_bytes; /* per worker: all, and the masked rows at its beginning */
} job;

/* In multiply-adds. Few rows wait for B to come from memory, about as long as eight would take to compute. */
static double work_of(int64_t m, int64_t n, int64_t k) { return (double)(m < 8 ? 8 : m) * (double)n * (double)k; }

/* Halves the tile until there are enough or they are small. Columns first: a panel of B is then packed only once. */
static void cut_tiles(job *j, int64_t m, int64_t n, int64_t k)
{
    j->rows = m;
    j->columns = n;
    for (;;) {
        int64_t tiles = divide_up(m, j->rows) * divide_up(n, j->columns);
        const double work = work_of(j->rows, j->columns, k);
        if (tiles >= MOST_TILES || work <= (tiles >= FEW_TILES ? 8.0 : 2.0) * BP_WORK_GRAIN) break;
        bool by_column = j->columns >= 2 * COLUMN_STEP && (j->columns >= j->rows || j->rows < 2 * FEWEST_ROWS);
        if (by_column)
            j->columns = round_up(divide_up(j->columns, 2), COLUMN_STEP);
        else if (j->rows >= 2 * FEWEST_ROWS)
            j->rows = round_up(divide_up(j->rows, 2), ROW_STEP);
        else
            break;
    }
    j->row_tiles = divide_up(m, j->rows);
    j->column_tiles = divide_up(n, j->columns);
}

/* A result of few tiles with a long k is computed as a sum of parts. */
static void cut_depth(job *j, const bp_gemm *g)
{
    double work = (double)g->m * (double)g->n * (double)g->k;
    bool few = j->row_tiles * j->column_tiles < 4 && work >= 4.0 * BP_WORK_GRAIN && (double)g->k >= 4.0 * (double)(g->m + g->n);
    j->parts = 1;
    j->depth = g->k;
    if (!few || j->batch > 1 || g->bias || g->act != BP_ACT_NONE || g->accumulate) return;
    int64_t parts = smaller(smaller(MOST_PARTS, (int64_t)(work / BP_WORK_GRAIN)), g->k / SHORTEST_PART);
    if (parts < 2) return;
    j->depth = divide_up(g->k, parts);
    j->parts = divide_up(g->k, j->depth);
    j->rows = g->m;
    j->columns = g->n;
    j->row_tiles = j->column_tiles = 1;
}

/* The product of batch index `at`, cut down to one tile and one part. */
static bp_gemm cut_out(const job *j, int64_t at, int64_t row, int64_t column, int64_t part)
{
    const bp_product *p = j->product;
    bp_gemm g = p->one;
    int64_t a = 0, b = 0, left = at;
    for (int d = p->ndim - 1; d >= 0; d--) {
        a += left % p->shape[d] * p->a_stride[d];
        b += left % p->shape[d] * p->b_stride[d];
        left /= p->shape[d];
    }
    int64_t i = row * j->rows, c = column * j->columns, k = part * j->depth;
    a += i * g.a_row + k * g.a_col;
    b += c * g.b_col + k * g.b_row;
    g.a = (const char *)g.a + a * j->size;
    g.b = (const char *)g.b + b * j->size;
    if (j->parts > 1) {
        g.c = j->partial + part * g.m * g.n * j->size;
        g.c_row = g.n;
    } else {
        g.c = (char *)g.c + (at * g.m * g.c_row + i * g.c_row + c) * j->size;
    }
    if (g.bias) g.bias = (const char *)g.bias + c * j->size;
    if (j->copy[0]) g.a_copy = j->copy[0] + i * g.k * j->size;
    if (j->copy[1]) g.b_copy = j->copy[1] + c * g.k * j->size;
    g.m = smaller(j->rows, g.m - i);
    g.beside = g.n - c - smaller(j->columns, g.n - c);
    g.n = smaller(j->columns, g.n - c);
    g.k = smaller(j->depth, g.k - k);
    return g;
}

/* The tile goes to scratch, some rows at a time, and from there through the mask to where it belongs. */
static void run_masked(const job *j, bp_gemm g, char *scratch)
{
    const bp_relu_mask *mask = j->product->mask;
    char *const out = (char *)j->product->one.c;
    const int64_t at = ((const char *)g.c - out) / j->size, rows = g.m, row = g.c_row;
    g.c = scratch;
    g.c_row = g.n;
    for (int64_t i = 0; i < rows; i += g.m, g.a = (const char *)g.a + g.m * g.a_row * j->size) {
        g.m = smaller(j->masked_rows, rows - i);
        j->kernels->gemm(&g, scratch + j->masked_bytes);
        if (g.n == row)
            bp__undo_relu(mask, scratch, at + i * row, g.m * row, out);
        else
            for (int64_t r = 0; r < g.m; r++) bp__undo_relu(mask, scratch + r * g.n * j->size, at + (i + r) * row, g.n, out);
    }
}

static void run_chunk(void *arg, int64_t chunk, int worker)
{
    const job *j = (const job *)arg;
    char *scratch = j->scratch + (size_t)worker * j->scratch_bytes;
    int64_t part = chunk % j->parts, rest = chunk / j->parts;
    int64_t column = rest % j->column_tiles;
    rest /= j->column_tiles;
    int64_t row = rest % j->row_tiles, first = rest / j->row_tiles * j->group;
    for (int64_t at = first; at < smaller(first + j->group, j->batch); at++) {
        bp_gemm g = cut_out(j, at, row, column, part);
        if (j->masked_rows)
            run_masked(j, g, scratch);
        else
            j->kernels->gemm(&g, scratch);
    }
}

/* ---- copies for all tiles ---- */

static void copy_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    const int64_t first = chunk % j->copy_pieces * COPY_DEPTH, tile = chunk / j->copy_pieces, of_a = j->copy[0] ? j->row_tiles : 0;
    const bool right = tile >= of_a;
    const bp_gemm g = right ? cut_out(j, 0, 0, tile - of_a, 0) : cut_out(j, 0, tile, 0, 0);
    j->kernels->gemm_copy(&g, right, (void *)(uintptr_t)(right ? g.b_copy : g.a_copy), first, smaller(COPY_DEPTH, g.k - first));
}

/* Bytes of the copies that repay themselves: what tiles beside each other would copy of A, and tiles below each other of B. */
static void size_copies(const job *j, size_t bytes[2])
{
    const bp_gemm *g = &j->product->one;
    const bool pays = j->batch == 1 && j->parts == 1 && (double)g->m * (double)g->n * (double)g->k >= COPY_WORK * BP_WORK_GRAIN;
    bytes[0] = pays && j->column_tiles > 1 && !j->product->mask ? j->kernels->gemm_copy_size(g, false) : 0;
    bytes[1] = pays && j->row_tiles > 1 ? j->kernels->gemm_copy_size(g, true) : 0;
    for (int i = 0; i < 2; i++) bytes[i] = bytes[i] > MOST_COPIED ? 0 : bp__lines(bytes[i]);
}

/* ---- few rows ---- */

/* B is met once, and how fast it comes from memory is all that counts: whole rows of it one after the other, not pieces of all its rows. So
 * k is cut where the kernel's passes end, and the sums of the passes are added in order, which gives the bits of the product in one. */
typedef struct rows_job {
    const bp_kernels *kernels;
    const bp_gemm *g;
    int64_t size, pass, passes, each; /* passes per chunk */
    int64_t columns, tiles;           /* columns per chunk; tiles of so many */
    char *sums;                       /* [passes][m][n] */
    char *scratch;
    size_t scratch_bytes; /* per worker */
} rows_job;

static void rows_chunk(void *arg, int64_t chunk, int worker)
{
    const rows_job *j = (const rows_job *)arg;
    const int64_t first = chunk / j->tiles * j->each, column = chunk % j->tiles * j->columns;
    for (int64_t q = first; q < smaller(first + j->each, j->passes); q++) {
        bp_gemm g = *j->g;
        const int64_t p = q * j->pass;
        g.n = smaller(j->columns, g.n - column);
        g.a = (const char *)g.a + p * g.a_col * j->size;
        g.b = (const char *)g.b + (p * g.b_row + column) * j->size;
        g.k = smaller(j->pass, g.k - p);
        g.c = j->sums + (q * g.m * j->g->n + column) * j->size;
        g.c_row = j->g->n;
        g.bias = NULL;
        g.act = BP_ACT_NONE;
        j->kernels->gemm(&g, j->scratch + (size_t)worker * j->scratch_bytes);
    }
}

/* Some columns of the result: one row of ones times the sums. */
static void add_passes(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    static const float one = 1;
    static const double one_f64 = 1;
    const rows_job *j = (const rows_job *)arg;
    const int64_t column = chunk * BP_MEMORY_GRAIN, m = j->g->m, n = j->g->n;
    for (int64_t i = 0; i < m; i++) {
        bp_gemm sum = *j->g;
        sum.m = 1;
        sum.n = smaller(BP_MEMORY_GRAIN, n - column);
        sum.k = j->passes;
        sum.a = j->size == sizeof one_f64 ? (const void *)&one_f64 : &one;
        sum.a_col = 0;
        sum.b = j->sums + (i * n + column) * j->size;
        sum.b_row = m * n;
        sum.c = (char *)sum.c + (i * sum.c_row + column) * j->size;
        if (sum.bias) sum.bias = (const char *)sum.bias + column * j->size;
        j->kernels->gemm(&sum, NULL);
    }
}

static bool is_few_rows(const bp_product *p)
{
    const bp_gemm *g = &p->one;
    if (g->m > FEW_ROWS || (g->m > 1 && g->n > WIDEST_OF_FEW)) return false;
    return p->ndim == 0 && g->b_col == 1 && g->n > 1 && !g->accumulate && g->k > BP_PASS_MAX && g->k <= BP_PASS_MAX * BP_PASS_MAX;
}

static bp_status few_rows(bp_ctx *ctx, const bp_product *product)
{
    const bp_gemm *g = &product->one;
    const int64_t size = (int64_t)bp_dtype_size(product->dtype), pass = bp_pass(g->k), passes = divide_up(g->k, pass);
    rows_job j = { .kernels = bp_kernels_of(ctx, product->dtype), .g = g, .size = size, .pass = pass, .passes = passes };
    j.each = divide_up(passes, MOST_TILES);
    const int64_t tiles = smaller(divide_up(MOST_TILES, passes), g->n / LONG_PIECE);
    j.columns = round_up(divide_up(g->n, greater(divide_up(FEW_TILES, passes), tiles)), 2 * COLUMN_STEP);
    j.tiles = divide_up(g->n, j.columns);
    j.scratch_bytes = bp__lines(j.kernels->gemm_scratch(g));
    const size_t scratch = j.scratch_bytes * (size_t)bp_threads(ctx);
    j.scratch = (char *)bp__scratch(ctx, scratch + (size_t)(passes * g->m * g->n * size));
    if (!j.scratch) return BP_ENOMEM;
    j.sums = j.scratch + scratch;
    bp_parallel_from(ctx, ctx->replays & 1, divide_up(passes, j.each) * j.tiles, rows_chunk, &j);
    bp_parallel(ctx, bp_chunks(g->n, BP_MEMORY_GRAIN), add_passes, &j);
    return BP_OK;
}

/* The sum of the parts, masked. */
static void masked_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const job *j = (const job *)arg;
    const int64_t first = chunk * BP_MEMORY_GRAIN, n = j->product->one.m * j->product->one.n;
    bp__undo_relu(j->product->mask, j->partial + first * j->size, first, smaller(BP_MEMORY_GRAIN, n - first), j->product->one.c);
}

/* One multiplication an element: the mask costs less in it than a pass of its own. */
static bool masks_at_once(const bp_product *p)
{
    const bp_gemm *g = &p->one;
    return p->ndim == 0 && g->k == 1 && g->b_col == 1 && !g->bias && !g->accumulate && work_of(g->m, g->n, 1) <= 2.0 * BP_WORK_GRAIN;
}

bool bp__product_mask_pays(const bp_product *product)
{
    const bp_gemm *g = &product->one;
    if (masks_at_once(product)) return true;
    return product->dtype == BP_F32 && g->m > FEW_ROWS && (double)g->m * (double)g->n * sizeof(float) > 4.0 * MASKED_BYTES;
}

/* As one tile, by the caller alone. */
static bp_status at_once(bp_ctx *ctx, const bp_product *product)
{
    const bp_gemm *g = &product->one;
    const bp_kernels *kernels = bp_kernels_of(ctx, product->dtype);
    if (g->m > 1 && kernels->gemm_small(g)) return BP_OK;
    const size_t bytes = kernels->gemm_scratch(g);
    void *scratch = bytes ? bp__scratch(ctx, bytes) : NULL;
    if (bytes && !scratch) return BP_ENOMEM;
    kernels->gemm(g, scratch);
    return BP_OK;
}

bp_status bp__product(bp_ctx *ctx, const bp_product *product)
{
    const bp_gemm *g = &product->one;
    if (g->m == 0 || g->n == 0) {
        bp__parallel_summing(ctx, product->sum, 1, NULL, NULL);
        return BP_OK;
    }
    if (!product->mask && product->ndim == 0 && work_of(g->m, g->n, g->k) <= 2.0 * BP_WORK_GRAIN) { /* as cut_tiles would say */
        BP_TRY(at_once(ctx, product));
        bp__parallel_summing(ctx, product->sum, 1, NULL, NULL);
        return BP_OK;
    }
    if (product->mask && masks_at_once(product)) {
        bp_kernels_of(ctx, product->dtype)->gemm_outer_masked(g, product->mask->y, product->mask->scale);
        return BP_OK;
    }
    if (!product->mask && is_few_rows(product)) {
        BP_TRY(few_rows(ctx, product));
        bp__parallel_summing(ctx, product->sum, MOST_TILES, NULL, NULL);
        return BP_OK;
    }
    job j = {
        .kernels = bp_kernels_of(ctx, product->dtype), .product = product, .batch = 1, .size = (int64_t)bp_dtype_size(product->dtype)
    };
    for (int d = 0; d < product->ndim; d++) j.batch *= product->shape[d];
    if (j.batch == 0) return BP_OK;

    cut_tiles(&j, g->m, g->n, g->k);
    cut_depth(&j, g);
    double tile = (double)j.rows * (double)j.columns * (double)(j.depth > 0 ? j.depth : 1);
    j.group = tile >= BP_WORK_GRAIN ? 1 : smaller(j.batch, (int64_t)(BP_WORK_GRAIN / tile));

    bp_gemm first = cut_out(&j, 0, 0, 0, 0); /* no other tile is larger */
    if (product->mask && j.parts == 1) {
        first.m = j.masked_rows = smaller(first.m, greater(MASKED_BYTES / (first.n * j.size) / ROW_STEP * ROW_STEP, FEWEST_ROWS));
        j.masked_bytes = bp__lines((size_t)(first.m * first.n * j.size));
    }
    j.scratch_bytes = j.masked_bytes + bp__lines(j.kernels->gemm_scratch(&first));
    const size_t partial = j.parts > 1 ? (size_t)(j.parts * g->m * g->n * j.size) : 0, own = j.scratch_bytes * (size_t)bp_threads(ctx);
    size_t copies[2];
    size_copies(&j, copies);
    j.scratch = (char *)bp__scratch(ctx, own + partial + copies[0] + copies[1] + 64);
    if (!j.scratch) return BP_ENOMEM;
    j.partial = j.scratch + own;
    if (copies[0]) j.copy[0] = j.scratch + own;
    if (copies[1]) j.copy[1] = j.scratch + own + copies[0];
    j.copy_pieces = divide_up(g->k, COPY_DEPTH);
    bp_parallel(ctx, ((copies[0] ? j.row_tiles : 0) + (copies[1] ? j.column_tiles : 0)) * j.copy_pieces, copy_chunk, &j);

    bp__parallel_summing(ctx, product->sum, divide_up(j.batch, j.group) * j.row_tiles * j.column_tiles * j.parts, run_chunk, &j);
    if (j.parts == 1) return BP_OK;
    bp__sum_parts(ctx, product->dtype, j.parts, g->m * g->n, j.partial, product->mask ? j.partial : g->c);
    if (product->mask) bp_parallel(ctx, bp_chunks(g->m * g->n, BP_MEMORY_GRAIN), masked_chunk, &j);
    return BP_OK;
}

/* ---- sums of parts ---- */

typedef struct sum_job {
    bp_binary_fn *add;
    bp_unary_fn *copy;
    int64_t count, n, size;
    const char *parts;
    char *dst;
} sum_job;

static void sum_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const sum_job *s = (const sum_job *)arg;
    int64_t first = chunk * BP_MEMORY_GRAIN, n = smaller(BP_MEMORY_GRAIN, s->n - first);
    char *dst = s->dst + first * s->size;
    const char *part = s->parts + first * s->size;
    s->copy(n, part, 1, dst, 1, 0);
    for (int64_t p = 1; p < s->count; p++) s->add(n, dst, 1, part + p * s->n * s->size, 1, dst, 1, 0);
}

void bp__sum_parts(bp_ctx *ctx, bp_dtype dtype, int64_t count, int64_t n, const void *parts, void *dst)
{
    const bp_kernels *k = bp_kernels_of(ctx, dtype);
    sum_job s = { k->binary[BP_BINARY_add],      k->unary[BP_UNARY_copy], count,      n,
                  (int64_t)bp_dtype_size(dtype), (const char *)parts,     (char *)dst };
    bp_parallel(ctx, bp_chunks(n, BP_MEMORY_GRAIN), sum_chunk, &s);
}
