/* check.h - the few lines that every C test shares: counting, one plain total, and a context that must end with nothing allocated. */
#ifndef CHECK_H
#define CHECK_H

#include "../../core/bp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int passed, failed;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (condition) passed++;                                                                                       \
        else {                                                                                                         \
            failed++;                                                                                                  \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                                     \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
        }                                                                                                              \
    } while (0)

/* An allocator that counts live bytes and can refuse the nth request. */
typedef struct counting {
    size_t live;
    long long calls, fail_at; /* fail_at 0: never; lasting: all from fail_at on */
    int lasting;
} counting;

static inline void *counting_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    counting *c = (counting *)ud;
    if (nsize == 0) {
        if (ptr) c->live -= osize;
        free(ptr);
        return NULL;
    }
    c->calls++;
    if (c->fail_at && (c->lasting ? c->calls >= c->fail_at : c->calls == c->fail_at)) return NULL;
    void *p = realloc(ptr, nsize);
    if (p) c->live += nsize - (ptr ? osize : 0);
    return p;
}

static inline bp_ctx *open_counting(counting *c)
{
    bp_config config = BP_CONFIG_INIT;
    bp_ctx *ctx = NULL;
    config.alloc = counting_alloc;
    config.alloc_ud = c;
    config.seed = 7;
    if (bp_open(&config, &ctx) != BP_OK) {
        printf("bp_open failed\n");
        exit(2);
    }
    return ctx;
}

static inline void close_counting(bp_ctx *ctx, counting *c)
{
    bp_close(ctx);
    CHECK(c->live == 0, "%zu bytes are still allocated after bp_close", c->live);
}

static inline int report(void)
{
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}

#endif
