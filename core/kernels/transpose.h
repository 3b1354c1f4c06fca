/* transpose.h - a square block of KLANES x KLANES numbers turned over in registers. */
#ifndef BP_TRANSPOSE_H
#define BP_TRANSPOSE_H

#include "vmath.h"

/* Transposes KLANES vectors in log2(KLANES) rounds. Each exchanges one bit (s) of the row number with the same bit of the lane number:
 * of the rows i and i + s, the first keeps its lanes without the bit and takes those of the second, which does the reverse. */
#define FIRST(j, s) ((j) & (s) ? KLANES + (j) - (s) : (j))
#define SECOND(j, s) ((j) & (s) ? KLANES + (j) : (j) + (s))
#define EXCHANGE(r, s)                                                                                                                     \
    _Pragma("GCC unroll 16") for (int i = 0; i < KLANES; i++)                                                                              \
        if (!(i & (s))) {                                                                                                                  \
            const vec first = (r)[i], second = (r)[i + (s)];                                                                               \
            (r)[i] = __builtin_shuffle(first, second, LANES(FIRST, s));                                                                    \
            (r)[i + (s)] = __builtin_shuffle(first, second, LANES(SECOND, s));                                                             \
        }

static inline __attribute__((always_inline)) void vec_transpose(vec r[KLANES])
{
    EXCHANGE(r, 1)
#if KLANES >= 4
    EXCHANGE(r, 2)
#endif
#if KLANES >= 8
    EXCHANGE(r, 4)
#endif
#if KLANES >= 16
    EXCHANGE(r, 8)
#endif
}

#endif
