/* tile.h - the one micro-kernel behind gemm.c and conv2d.c, and the panels it reads.
 *
 *     C[i][j] = act( C[i][j]? + sum over p of A[i][p] * B[p][j] + bias[j]? )        i < m, p < k, j < cols
 *
 * A is read through a table of offsets: A[i][p] = row(i)[off[p]]. For a matrix off[p] is p times a stride, for a convolution it walks the
 * taps and channels of a pixel, for a weight gradient the pixels of an image; the loop is the same. B is a panel of lanes * KLANES columns
 * with vectors along j; its rows are b_row apart and are read whole, so a panel at the edge of a matrix must be a packed (zero-padded)
 * copy.
 *
 * Every element of C is one chain of multiply-adds in the order of p. How rows are grouped into tiles and columns into panels changes
 * which elements are computed side by side, never that chain: results do not depend on where a caller cut the rows or the columns. */
#ifndef BP_TILE_H
#define BP_TILE_H

#include "kernel.h"

/* Accumulators live in registers: 12 of 16, or 24 of 32. */
#if defined(__AVX512F__) || defined(__aarch64__)
#define TILE_ACC 24
#else
#define TILE_ACC 12
#endif
#define TILE_ROWS 6                      /* most rows of a tile, and of a strip of A */
#define TILE_TALL 8                      /* most rows of a tile one vector wide */
#define TILE_VECS (TILE_ACC / TILE_ROWS) /* vectors per row of a full tile */
#define TILE_VECS_MAX 8                  /* widest panel, for products of a single row */
#define TILE_COLS_MAX (TILE_VECS_MAX * KLANES)
/* Longest k of one pass: a panel of B stays in the first-level cache next to the rows of A. */
#define TILE_K_MAX BP_PASS_MAX

typedef struct tile_panel {
    int64_t m, k, cols;
    const real *a; /* row(i) = a + (a_at ? a_at[i] : i * a_row) */
    const int64_t *a_at;
    int64_t a_row;
    const int64_t *off; /* [k] */
    const real *b;
    int64_t b_row;
    int vecs; /* width of the panel in vectors: 1, 2, 4 or 8; cols <= vecs * KLANES */
    real *c;  /* row i of C begins at c + (c_at ? c_at[i] : i * c_row) */
    const int64_t *c_at;
    int64_t c_row;
    const real *bias; /* [cols] or NULL */
    bp_act act;
    bool load;   /* add to what C holds */
    bool strips; /* a is what tile_copy made; neither a_at nor c_at */
    /* What will be read next, sent for in the course of the panel: `pieces` of ahead_size bytes, ahead_row bytes apart. */
    const char *ahead;
    int64_t ahead_row, ahead_size, pieces;
} tile_panel;

/* Computes all rows of one panel. k may be 0. */
void K(tile_run)(const tile_panel *t);

/* The panel width (in vectors) for the columns still to do of a product with m rows. */
int K(tile_vecs)(int64_t m, int64_t cols);

/* dst[k][vecs * KLANES] = B[p][j] from b[p * b_row + j * b_col], columns from cols on zero. */
void K(tile_pack)(real *dst, int vecs, const real *b, int64_t b_row, int64_t b_col, int64_t k, int64_t cols);

/* How rows are grouped into tiles of at most `most`: the first `taller` of them have one row more than the others. As equal in height as
 * possible, for a remainder of one row would run at a third of the speed. */
typedef struct tile_heights {
    int64_t count, height, taller;
} tile_heights;
static inline tile_heights tile_heights_of(int64_t rows, int64_t most)
{
    const int64_t count = (rows + most - 1) / most, height = count ? rows / count : 0;
    return (tile_heights){ count, height, rows - count * height };
}

/* Copies rows of A to strips, one for each tile of at most TILE_ROWS, k after k, TILE_ROWS elements each. A tile reads its strip as one
 * stream; where a panel is narrower than a full tile, through off[p] = TILE_ROWS * p. A strip begins `pitch` elements after the one before:
 * TILE_ROWS times the k of all, of which k here may be a piece. */
static inline int64_t tile_copy_size(int64_t rows, int64_t k) { return (rows + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS * k; }
void K(tile_copy)(real *dst, int64_t pitch, const real *a, int64_t a_row, int64_t a_col, int64_t rows, int64_t k);

static inline int64_t tile_k_pass(int64_t k) { return bp_pass(k); }

#endif
