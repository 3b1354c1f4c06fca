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

/* What a pixel of the result is the sum of: `count` pixels of the source (their first elements) by weight, and a share of the constant. */
typedef struct taps {
    int count;
    int64_t at[4];
    double weight[4], constant;
} taps;

/* A weight of zero reads nothing, so that a NaN next door stays there. */
INLINE void add_tap(const bp_affine *s, taps *t, int64_t i, int64_t j, double weight)
{
    const int64_t h = inside(i, s->h, s->fill), w = inside(j, s->w, s->fill);
    if (weight == 0) return;
    if (h < 0 || w < 0) {
        t->constant += weight * s->value;
    } else {
        t->at[t->count] = (h * s->w + w) * s->c;
        t->weight[t->count++] = weight;
    }
}

/* A map that is no number reads the constant everywhere. */
INLINE void find_taps(const bp_affine *s, int64_t i, int64_t j, taps *t)
{
    const double u = (double)j - 0.5 * (double)(s->w - 1), v = (double)i - 0.5 * (double)(s->h - 1);
    const double column = clamped(s->m[0] * u + s->m[1] * v + s->m[2] + 0.5 * (double)(s->w - 1));
    const double row = clamped(s->m[3] * u + s->m[4] * v + s->m[5] + 0.5 * (double)(s->h - 1));
    t->count = 0;
    t->constant = 0;
    if (column != column || row != row) {
        t->constant = s->value;
    } else if (s->bilinear) {
        const int64_t top = floor_of(row), left = floor_of(column);
        const double down = row - (double)top, right = column - (double)left;
        add_tap(s, t, top, left, (1 - down) * (1 - right));
        add_tap(s, t, top, left + 1, (1 - down) * right);
        add_tap(s, t, top + 1, left, down * (1 - right));
        add_tap(s, t, top + 1, left + 1, down * right);
    } else {
        add_tap(s, t, floor_of(row + 0.5), floor_of(column + 0.5), 1);
    }
}

#define SAMPLE(type, store)                                                                    \
    const type *x = (const type *)xv;                                                          \
    type *y = (type *)yv + i0 * s->w * s->c;                                                   \
    for (int64_t i = i0; i < i1; i++)                                                          \
        for (int64_t j = 0; j < s->w; j++, y += s->c) {                                        \
            taps t;                                                                            \
            find_taps(s, i, j, &t);                                                            \
            for (int64_t c = 0; c < s->c; c++) {                                               \
                double sum = t.constant;                                                       \
                for (int k = 0; k < t.count; k++) sum += t.weight[k] * (double)x[t.at[k] + c]; \
                store(y, c, sum);                                                              \
            }                                                                                  \
        }

void K(image_affine)(const bp_affine *s, const void *xv, void *yv, int64_t i0, int64_t i1) { SAMPLE(real, store_real) }

void K(image_affine_u8)(const bp_affine *s, const void *xv, void *yv, int64_t i0, int64_t i1) { SAMPLE(uint8_t, store_byte) }
