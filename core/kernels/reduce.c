/* reduce.c - sums, products, extremes and their places over the middle dimension of [outer][r][inner], rows of `inner` elements `row`
 * apart.
 *
 * The order in which an element's terms are combined depends on r and on whether they lie side by side, and is the same for every
 * instruction set:
 *   row == 1: fewer than WIDE terms one after the other; else WIDE running results, term i goes to number i % WIDE, and after BLOCK terms
 *             they are folded in halves and carried on in double.
 *   row > 1:  one running result per column, begun anew every ROWS rows and then added to the column's total.
 * So the error of a sum grows with BLOCK / WIDE or ROWS and not with r. */
#include "vmath.h"

enum { WIDE = 32, BLOCK = 64 * WIDE, ROWS = 256, VECS = WIDE / KLANES };
/* Vectors of columns at a time: whole rows where they are short, since halves of rows come from memory far slower. */
enum { TILE = KLANES < 8 ? 8 : 64 / KLANES, HALF = TILE / 2 };

/* One reduction: how two vectors and two numbers are combined, and what leaves the other unchanged. */
#define REDUCE(name, identity, of_vectors, of_numbers)                                                                                    \
    static inline vec combine_##name(vec a, vec b) { return of_vectors; }                                                                 \
    static inline real fold_##name(real a, real b) { return of_numbers; }                                                                 \
    static inline double carry_##name(double a, double b) { return of_numbers; }                                                          \
                                                                                                                                          \
    static double line_##name(int64_t r, const real *x)                                                                                   \
    {                                                                                                                                     \
        double total = (double)(identity);                                                                                                \
        if (r < WIDE) {                                                                                                                   \
            for (int64_t i = 0; i < r; i++) total = carry_##name(total, (double)x[i]);                                                    \
            return total;                                                                                                                 \
        }                                                                                                                                 \
        for (int64_t begin = 0; begin < r; begin += BLOCK) {                                                                              \
            const int64_t end = r - begin < BLOCK ? r : begin + BLOCK;                                                                    \
            vec run[VECS];                                                                                                                \
            for (int v = 0; v < VECS; v++) run[v] = vec_set(identity);                                                                    \
            int64_t i = begin;                                                                                                            \
            for (; i + WIDE <= end; i += WIDE)                                                                                            \
                for (int v = 0; v < VECS; v++) run[v] = combine_##name(run[v], vec_load(x + i + v * KLANES));                             \
            for (int v = 0; i < end; v++, i += KLANES) {                                                                                  \
                vec last = vec_set(identity);                                                                                             \
                for (int l = 0; l < KLANES && i + l < end; l++) last[l] = x[i + l];                                                       \
                run[v] = combine_##name(run[v], last);                                                                                    \
            }                                                                                                                             \
            for (int half = VECS / 2; half > 0; half /= 2)                                                                                \
                for (int v = 0; v < half; v++) run[v] = combine_##name(run[v], run[v + half]);                                            \
            real lane[KLANES];                                                                                                            \
            vec_store(lane, run[0]);                                                                                                      \
            for (int half = KLANES / 2; half > 0; half /= 2)                                                                              \
                for (int l = 0; l < half; l++) lane[l] = fold_##name(lane[l], lane[l + half]);                                            \
            total = carry_##name(total, (double)lane[0]);                                                                                 \
        }                                                                                                                                 \
        return total;                                                                                                                     \
    }                                                                                                                                     \
                                                                                                                                          \
    /* `vecs` whole vectors of columns beginning at x, or `lanes` columns when vecs is 0: whole vectors then too, as long as they end     \
     * before x + (r - 1) * row + lanes */                                                                                                \
    static inline __attribute__((always_inline)) void columns_##name(int64_t r, int64_t row, int vecs, int lanes, const real *x, real *y) \
    {                                                                                                                                     \
        const int count = vecs ? vecs : 1;                                                                                                \
        vec total[TILE], run[TILE];                                                                                                       \
        for (int v = 0; v < count; v++) total[v] = vec_set(identity);                                                                     \
        for (int64_t begin = 0; begin < r; begin += ROWS) {                                                                               \
            const int64_t end = r - begin < ROWS ? r : begin + ROWS;                                                                      \
            for (int v = 0; v < count; v++) run[v] = vec_set(identity);                                                                   \
            for (int64_t i = begin; i < end; i++)                                                                                         \
                for (int v = 0; v < count; v++) {                                                                                         \
                    const real *at = x + i * row + v * KLANES;                                                                            \
                    const bool whole = vecs || i * row + KLANES <= (r - 1) * row + lanes;                                                 \
                    run[v] = combine_##name(run[v], whole ? vec_load(at) : vec_load_some(at, 1, lanes));                                  \
                }                                                                                                                         \
            for (int v = 0; v < count; v++) total[v] = combine_##name(total[v], run[v]);                                                  \
        }                                                                                                                                 \
        for (int v = 0; v < count; v++) vec_store_some(y + v * KLANES, 1, vecs ? KLANES : lanes, total[v]);                               \
    }                                                                                                                                     \
                                                                                                                                          \
    void K(reduce_##name)(int64_t outer, int64_t r, int64_t inner, int64_t row, const void *x_, void *y_)                                 \
    {                                                                                                                                     \
        const real *x = (const real *)x_;                                                                                                 \
        real *y = (real *)y_;                                                                                                             \
        for (int64_t o = 0; o < outer; o++, x += r * row, y += inner) {                                                                   \
            if (row == 1) {                                                                                                               \
                y[0] = (real)line_##name(r, x);                                                                                           \
                continue;                                                                                                                 \
            }                                                                                                                             \
            int64_t j = 0;                                                                                                                \
            for (; j + TILE * KLANES <= inner; j += TILE * KLANES) columns_##name(r, row, TILE, 0, x + j, y + j);                         \
            for (; j + HALF * KLANES <= inner; j += HALF * KLANES) columns_##name(r, row, HALF, 0, x + j, y + j);                         \
            for (; j + KLANES <= inner; j += KLANES) columns_##name(r, row, 1, 0, x + j, y + j);                                          \
            if (j < inner) columns_##name(r, row, 0, (int)(inner - j), x + j, y + j);                                                     \
        }                                                                                                                                 \
    }

REDUCE(sum, (real)0, a + b, a + b)
REDUCE(prod, (real)1, a *b, a *b)
REDUCE(max, -VEC_INF, vec_max(a, b), a > b || a != a ? a : b)
REDUCE(min, VEC_INF, vec_min(a, b), a < b || a != a ? a : b)

/* Whether v takes the place of best: a greater one, or the first NaN. Equal ones do not, so the first stays. */
static inline bool beats(real v, real best, int sign) { return (sign > 0 ? v > best : v < best) || (v != v && best == best); }

void K(reduce_arg)(int sign, int64_t outer, int64_t r, int64_t inner, const void *x_, int64_t *y)
{
    const real *x = (const real *)x_;
    for (int64_t o = 0; o < outer; o++, x += r * inner, y += inner) {
        for (int64_t j = 0; j < inner; j++) y[j] = 0;
        for (int64_t i = 1; i < r; i++)
            for (int64_t j = 0; j < inner; j++)
                if (beats(x[i * inner + j], x[y[j] * inner + j], sign)) y[j] = i;
    }
}
