/* winograd_products.c - see winograd_products.h. */
#include "winograd_products.h"

#define INLINE static inline __attribute__((always_inline))

static void send_for(errands *list, int64_t bytes)
{
    while (bytes > 0 && list->next < list->count) {
        const char *const row = list->row[list->next];
        const int64_t end = list->size[list->next] < list->done + bytes ? list->size[list->next] : list->done + bytes;
        int64_t at = list->done;
        for (; at < end; at += LINE) __builtin_prefetch(row + at, 0, 2);
        bytes -= at - list->done;
        list->done = at;
        if (at >= list->size[list->next]) list->next++, list->done = 0;
    }
}

/* A few rows of one position: a chain of multiply-adds in the order of k for each element. */
INLINE void product(const int rows, const int vecs, const bool turned, const products *p, const real *a, const real *b, real *c)
{
    vec acc[TILE_ROWS][TILE_VECS];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) acc[i][v] = (vec){ 0 };
    const int64_t a_row = turned ? 1 : p->a_row, a_step = turned ? p->a_step : 1, b_row = turned ? p->b_row : vecs * KLANES;
    for (int64_t k = p->steps; k > 0; k--, a += a_step, b += b_row) {
        vec line[TILE_VECS];
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++) line[v] = vec_load(b + v * KLANES);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            const vec x = vec_set(a[i * a_row]);
#pragma GCC unroll 4
            for (int v = 0; v < vecs; v++) acc[i][v] += x * line[v];
        }
    }
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vecs; v++, c += KLANES) vec_store(c, p->add ? vec_load(c) + acc[i][v] : acc[i][v]);
}

/* Rows in groups as equal as possible. */
INLINE void multiply(const int vecs, const bool turned, const products *p)
{
    const int64_t groups = (p->rows + TILE_ROWS - 1) / TILE_ROWS, height = p->rows / groups, taller = p->rows - groups * height;
    for (int e = 0; e < CELLS; e++) {
        const real *a = p->a + e * p->a_cell, *const b = p->b + e * p->b_cell;
        real *c = p->c + e * p->c_cell;
        send_for(p->soon, p->soon_each);
        for (int64_t g = 0; g < groups; g++) {
            const int64_t rows = height + (g < taller);
            switch (rows) {
            case 1: product(1, vecs, turned, p, a, b, c); break;
            case 2: product(2, vecs, turned, p, a, b, c); break;
            case 3: product(3, vecs, turned, p, a, b, c); break;
            case 4: product(4, vecs, turned, p, a, b, c); break;
            case 5: product(5, vecs, turned, p, a, b, c); break;
            default: product(6, vecs, turned, p, a, b, c); break;
            }
            a += rows * p->a_row, c += rows * vecs * KLANES;
        }
    }
}

void K(winograd_products)(int vecs, const products *p)
{
    if (vecs == 1)
        p->turned ? multiply(1, true, p) : multiply(1, false, p);
    else if (vecs == 2)
        p->turned ? multiply(2, true, p) : multiply(2, false, p);
#if TILE_VECS > 2
    else
        p->turned ? multiply(4, true, p) : multiply(4, false, p);
#endif
}
