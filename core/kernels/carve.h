/* carve.h - cutting scratch into arrays: the same sequence of takes measures (base NULL) and hands out. */
#ifndef BP_CARVE_H
#define BP_CARVE_H

#include <stddef.h>
#include <stdint.h>

typedef struct carve {
    char *base;
    size_t used;
} carve;

static inline void *take(carve *s, int64_t count, size_t size)
{
    void *at = s->base ? s->base + s->used : NULL;
    s->used += ((size_t)count * size + 63) / 64 * 64;
    return at;
}

#endif
