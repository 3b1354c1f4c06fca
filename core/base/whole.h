/* whole.h - whole numbers, for cutting work: none of them negative where something is divided. */
#ifndef BP_WHOLE_H
#define BP_WHOLE_H

#include <stdint.h>

static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t greater(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t step) { return divide_up(a, step) * step; }

#endif
