/* image.c - one image resampled through an affine map.
 *
 * Row i and column j of the result lie v = i - (h-1)/2 and u = j - (w-1)/2 from the centre; their colour is read at
 *     column m[0]*u + m[1]*v + m[2] + (w-1)/2,   row m[3]*u + m[4]*v + m[5] + (h-1)/2
 * of the source. Coordinates are worked out in f64 in every build, so that all builds read the same pixels. */
#include "kernel.h"

#define INLINE static inline __attribute__((always_inline))

/* Far enough outside that all pixels there look alike, near enough to be an integer. */
#define FAR 1e15

/* floor, without a call that may be resolved for another instruction set; |x| <= FAR. */
INLINE int64_t floor_of(double x)
{
    const int64_t i = (int64_t)x;
    return i - ((double)i > x);
}

/* The index along one dimension that stands for position i, or -1 for the constant. */
INLINE int64_t inside(int64_t i, int64_t size, bp_fill fill)
{
    if (i >= 0 && i < size) return i;
    if (fill == BP_FILL_CONSTANT) return -1;
    if (fill == BP_FILL_NEAREST) return i < 0 ? 0 : size - 1;
    /* mirrored at the outer edges of the first and last pixel: period 2*size */
    i %= 2 * size;
    if (i < 0) i += 2 * size;
    return i < size ? i : 2 * size - 1 - i;
}

INLINE double clamped(double x) { return x > FAR ? FAR : x < -FAR ? -FAR : x; }

INLINE void store_real(real *y, int64_t at, double value) { y[at] = (real)value; }

/* Rounded to the nearest, halves up; what a byte cannot hold is its least or greatest. */
INLINE void store_byte(uint8_t *y, int64_t at, double value)
{
    y[at] = (uint8_t)(value >= 254.5 ? 255 : value > 0 ? (int)(value + 0.5) : 0);
}

/* What a pixel of the result is read from: the first elements of `count` pixels of the source (-1: the constant), and their weights. */
typedef struct taps {
    int64_t at[4];
    double weight[4];
    int count;
} taps;

INLINE int64_t tap_at(const bp_affine *s, int64_t i, int64_t j)
{
    const int64_t h = inside(i, s->h, s->fill), w = inside(j, s->w, s->fill);
    return h < 0 || w < 0 ? -1 : (h * s->w + w) * s->c;
}

INLINE void find_taps(const bp_affine *s, double column, double row, taps *t)
{
    if (!s->bilinear) {
        t->count = 1;
        t->at[0] = tap_at(s, floor_of(row + 0.5), floor_of(column + 0.5));
        t->weight[0] = 1;
        return;
    }
    const int64_t i = floor_of(row), j = floor_of(column);
    const double down = row - (double)i, right = column - (double)j;
    t->count = 4;
    t->weight[0] = (1 - down) * (1 - right), t->weight[1] = (1 - down) * right;
    t->weight[2] = down * (1 - right), t->weight[3] = down * right;
    if (i >= 0 && j >= 0 && i + 1 < s->h && j + 1 < s->w) {
        t->at[0] = (i * s->w + j) * s->c, t->at[1] = t->at[0] + s->c;
        t->at[2] = t->at[0] + s->w * s->c, t->at[3] = t->at[2] + s->c;
    } else {
        t->at[0] = tap_at(s, i, j), t->at[1] = tap_at(s, i, j + 1);
        t->at[2] = tap_at(s, i + 1, j), t->at[3] = tap_at(s, i + 1, j + 1);
    }
}

/* A map that is no number reads the constant everywhere. */
INLINE void find_source(const bp_affine *s, int64_t i, int64_t j, taps *t)
{
    const double u = (double)j - 0.5 * (double)(s->w - 1), v = (double)i - 0.5 * (double)(s->h - 1);
    const double column = clamped(s->m[0] * u + s->m[1] * v + s->m[2] + 0.5 * (double)(s->w - 1));
    const double row = clamped(s->m[3] * u + s->m[4] * v + s->m[5] + 0.5 * (double)(s->h - 1));
    if (column == column && row == row) {
        find_taps(s, column, row, t);
    } else {
        t->count = 1;
        t->at[0] = -1;
        t->weight[0] = 1;
    }
}

#define SAMPLE(type, store)                                                                                               \
    const type *x = (const type *)xv;                                                                                     \
    type *y = (type *)yv + i0 * s->w * s->c;                                                                              \
    for (int64_t i = i0; i < i1; i++)                                                                                     \
        for (int64_t j = 0; j < s->w; j++, y += s->c) {                                                                   \
            taps t;                                                                                                       \
            find_source(s, i, j, &t);                                                                                     \
            for (int64_t c = 0; c < s->c; c++) {                                                                          \
                double sum = 0;                                                                                           \
                for (int k = 0; k < t.count; k++) sum += t.weight[k] * (t.at[k] < 0 ? s->value : (double)x[t.at[k] + c]); \
                store(y, c, sum);                                                                                         \
            }                                                                                                             \
        }

void K(image_affine)(const bp_affine *s, const void *xv, void *yv, int64_t i0, int64_t i1) { SAMPLE(real, store_real) }

void K(image_affine_u8)(const bp_affine *s, const void *xv, void *yv, int64_t i0, int64_t i1) { SAMPLE(uint8_t, store_byte) }
