/* kernels.h - the table of inner loops.
 *
 * A kernel sees raw pointers, counts and strides: no tensor, no context, no allocation, no thread. The ops cut work into chunks by shape
 * alone and call a kernel per chunk; scratch comes from the caller. Every kernel source is compiled once per instruction set for f32
 * (KREAL float, KLANES 4, 8 or 16) and once for f64 (KREAL double); each build is one const bp_kernels. A context picks a table per
 * dtype when it opens.
 *
 * Rules that keep "same bits for any number of threads": an element of a result depends on its operands and on the order of the
 * reduced dimension only, never on where a chunk begins; a tail is computed with the same operations as a full vector.
 *
 * Adding a kernel: a row in kernels.def and a function K(name) in one source file here. */
#ifndef BP_KERNELS_H
#define BP_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Activations that a producer may apply to its result before storing it. */
typedef enum bp_act { BP_ACT_NONE, BP_ACT_RELU } bp_act;

/* One 2-d convolution, NHWC. Weights are [kh][kw][c][oc]. Tap (a,b) of output pixel (i,j) reads input row i*sh - ph + a*dh and column
 * j*sw - pw + b*dw; what lies outside the image is zero. ph and pw are the zeros before the first row and column. */
typedef struct bp_conv_shape {
    int64_t n, h, w, c; /* input  [n][h][w][c]    */
    int64_t oh, ow, oc; /* output [n][oh][ow][oc] */
    int64_t kh, kw, sh, sw, dh, dw, ph, pw;
} bp_conv_shape;

/* One 2-d pooling, NHWC; fields read as above. */
typedef struct bp_pool_shape {
    int64_t n, h, w, c, oh, ow, kh, kw, sh, sw, ph, pw;
} bp_pool_shape;

/* One image [h][w][c] resampled to the same size. The pixel at column u and row v of the result, counted from the image's centre, is read
 * at column m[0]*u + m[1]*v + m[2] and row m[3]*u + m[4]*v + m[5], counted from the centre too. */
typedef enum bp_fill { BP_FILL_CONSTANT, BP_FILL_REFLECT, BP_FILL_NEAREST } bp_fill;
typedef struct bp_affine {
    int64_t h, w, c;
    double m[6];
    bool bilinear; /* else the nearest pixel */
    bp_fill fill;  /* what lies outside: `value`; the image mirrored at its edges; the edge pixel */
    double value;
} bp_affine;

/* A sum over k is taken in passes, each added to what those before gave. Their length depends on k alone, because it decides the order of
 * the sum: equal ones but for the last, none longer than BP_PASS_MAX. */
#define BP_PASS_MAX 320
static inline int64_t bp_pass(int64_t k)
{
    const int64_t passes = (k + BP_PASS_MAX - 1) / BP_PASS_MAX;
    return passes > 1 ? (k + passes - 1) / passes : k;
}

/* A matrix product C[m][n] (+)= A[m][k] * B[k][n]: any strides for A and B (in elements), rows of C contiguous. */
typedef struct bp_gemm {
    int64_t m, n, k;
    const void *a;
    int64_t a_row, a_col; /* A[i][p] at a[i*a_row + p*a_col] */
    const void *b;
    int64_t b_row, b_col; /* B[p][j] at b[p*b_row + j*b_col] */
    void *c;
    int64_t c_row;
    const void *bias; /* [n] added to each row, or NULL */
    bp_act act;       /* applied last */
    bool accumulate;  /* add to what C holds */
    /* Of a part of a product: gemm_copy's copies of all its rows of A and all its columns of B. NULL: none. */
    const void *a_copy, *b_copy;
    int64_t beside; /* columns of B behind these that are likely to be multiplied next; 0: not known */
} bp_gemm;

/* Attention of one head. Row i of an operand begins i * its row further; the elements of a row lie side by side. Gradients lie as what they
 * belong to: dq as q, dk as k, dv_ as v, dy as y. */
typedef struct bp_attention {
    int64_t tq, tk, keys; /* queries, keys, and how many of those count */
    int64_t d, dv;        /* elements of a query and a key, and of a value */
    int64_t q_row, k_row, v_row, y_row;
    const void *q, *k, *v, *dy;
    void *y, *lse; /* [tq][dv], [tq]; lse is read by the gradient */
    void *dq, *dk, *dv_;
    bool causal; /* query i sees the keys 0..i only */
    double scale;
    double p; /* chance of a weight to be dropped; weight (i, j) takes position first + i * tk + j of the draw (key, step) */
    uint64_t key, step, first;
} bp_attention;

/* A recurrent layer run over a whole sequence, and the way back. Gates stand side by side: z, r, h of a GRU, i, f, c, o of an LSTM (Keras'
 * order). Sample b takes its first lengths[b] steps only (all of them where lengths is NULL), from the last of these to the first if
 * `reverse`. Pointers that a cell has no use for are NULL. */
typedef enum bp_cell { BP_CELL_TANH, BP_CELL_RELU, BP_CELL_GRU, BP_CELL_LSTM } bp_cell;
#define BP_RECURRENT_SAMPLES 64 /* most of one call */
typedef struct bp_recurrent {
    bp_cell cell;
    int64_t batch, steps, in, units;
    int64_t gates;   /* per unit: 1, 3 or 4 */
    int64_t samples; /* that one call works on, at most */
    bool reverse;
    const int64_t *lengths;
    const void *u;                /* [units][gates * units], as recurrent_pack reads it */
    const void *x, *w, *b, *b_u;  /* forward: [batch][steps][in], [in][gates * units], [gates * units] twice, or NULL */
    const void *h0, *c0;          /* [batch][units], NULL: zeros */
    void *y, *h_n, *c_n;          /* [batch][steps][units], [batch][units] twice */
    void *z;                      /* [steps][batch][gates * units]: the gates; of a simple cell y itself */
    void *kept;                   /* [steps][batch][units]: LSTM c, GRU h u + b_u of the gate h */
    void *before;                 /* [batch][steps][units], GRU [steps][batch][units]: the state that a step began with */
    const void *dy, *dh_n, *dc_n; /* backward: NULL is zero */
    void *dz, *dz_u;              /* gradient of x w + b, and of h u + b_u where that is another one: GRU, [steps][batch] */
    void *dh0, *dc0;
} bp_recurrent;

/* Elementwise kernels: y[i*sy] = f(x[i*sx], p), or f(a[i*sa], b[i*sb], p), for i in 0..n-1. Strides may be 0; y may be x, a or b itself
 * (same address and stride). p is the row's one parameter (a slope, an exponent), 0 where it has none. */
typedef void bp_unary_fn(int64_t n, const void *x, int64_t sx, void *y, int64_t sy, double p);
typedef void bp_binary_fn(int64_t n, const void *a, int64_t sa, const void *b, int64_t sb, void *y, int64_t sy, double p);
typedef void bp_compare_fn(int64_t n, const void *a, int64_t sa, const void *b, int64_t sb, uint8_t *y, int64_t sy);

/* The lists live in elementwise.def; these numbers never leave the process. */
#define BP_UNARY(name, ...) BP_UNARY_##name,
#define BP_BINARY(name, ...)
#define BP_COMPARE(name, ...)
typedef enum bp_unary_id {
#include "elementwise.def"
    BP_UNARY_COUNT
} bp_unary_id;
#undef BP_UNARY
#undef BP_BINARY
#define BP_UNARY(name, ...)
#define BP_BINARY(name, ...) BP_BINARY_##name,
typedef enum bp_binary_id {
#include "elementwise.def"
    BP_BINARY_COUNT
} bp_binary_id;
#undef BP_BINARY
#undef BP_COMPARE
#define BP_BINARY(name, ...)
#define BP_COMPARE(name, ...) BP_COMPARE_##name,
typedef enum bp_compare_id {
#include "elementwise.def"
    BP_COMPARE_COUNT
} bp_compare_id;
#undef BP_UNARY
#undef BP_BINARY
#undef BP_COMPARE

typedef struct bp_kernels {
    const char *isa;
    int lanes; /* elements of a vector */
    bp_unary_fn *unary[BP_UNARY_COUNT];
    bp_binary_fn *binary[BP_BINARY_COUNT];
    bp_compare_fn *compare[BP_COMPARE_COUNT];
#define BP_KERNEL(result, name, parameters) result(*name) parameters;
#include "kernels.def"
#undef BP_KERNEL
} bp_kernels;

/* The table for f32 of the named instruction set, NULL if this build or this machine lacks it; NULL name: the best there is. */
const bp_kernels *bp_kernels_f32(const char *isa);
/* The table for f64. */
const bp_kernels *bp_kernels_f64(void);

#endif
