/* winograd_products.h - the matrix products of all 36 positions of Winograd's tiles, with what the next block will want sent for meanwhile.
 *
 *     C[e][i] = C[e][i]? + sum over k of A[e][i][k] * B[e][k]        e < 36, i < rows, k < steps
 *
 * The micro-kernel of tile.h for short sums: operands lie at fixed distances, so that no position costs a call. An element is one chain of
 * multiply-adds in the order of k, wherever its row lies. */
#ifndef BP_WINOGRAD_PRODUCTS_H
#define BP_WINOGRAD_PRODUCTS_H

#include "tile.h"

enum { POINTS = 6, CELLS = POINTS * POINTS, ERRANDS = 256, LINE = 64 };

/* Rows of pixels, sent for a little at a time. Those that do not fit into the list are not. */
typedef struct errands {
    int64_t count, next, done; /* rows before `next` have been sent for, and `done` bytes of that one */
    int64_t bytes;             /* of all */
    const char *row[ERRANDS];
    int64_t size[ERRANDS];
} errands;

typedef struct products {
    int64_t rows, steps;
    bool turned;   /* A lies k after k: a_row is 1. If not, a_step is 1 and b_row vecs * KLANES. */
    const real *a; /* A[e][i][k] = a[e * a_cell + i * a_row + k * a_step] */
    int64_t a_cell, a_row, a_step;
    const real *b; /* B[e][k] = `vecs` vectors at b + e * b_cell + k * b_row */
    int64_t b_cell, b_row;
    real *c; /* C[e][i] = `vecs` vectors at c + e * c_cell + i * vecs * KLANES */
    int64_t c_cell;
    bool add; /* to what C holds */
    errands *soon;
    int64_t soon_each; /* bytes to send for at each position */
} products;

/* vecs as K(tile_vecs) gives for products of many rows. */
void K(winograd_products)(int vecs, const products *p);

#endif
