/* memory.c - counted allocation, and a cache of freed tensor blocks.
 *
 * A training step makes and drops the same few sizes over and over; handing large blocks back to the system each time costs a page fault
 * per 4 kB. So freed blocks wait in lists by size class (four classes an octave, waste below a fifth) until the cache holds CACHE_BYTES.
 * Large blocks begin on a boundary of HUGE_PAGE and ask for pages of that size: fewer faults at first touch, fewer misses of the
 * address translation after it. */
#include "memory.h"

#include "pool.h"

#include <string.h>
#include <sys/mman.h>

enum { ALIGN = 64, CLASSES = 160, CACHE_BYTES = 24 << 20, HUGE_PAGE = 2 << 20, HUGE_BLOCK = 16 << 20 };

/* A free block's own memory holds the link. */
typedef struct bp_free_block {
    struct bp_free_block *next;
} bp_free_block;

struct bp_cache {
    bp_free_block *list[CLASSES];
    size_t bytes;
};

static void *raw_new(bp_ctx *ctx, size_t n)
{
    if (ctx->limit && (n > ctx->limit || ctx->used > ctx->limit - n)) return NULL;
    ctx->calls++;
    void *p = ctx->alloc(ctx->alloc_ud, NULL, 0, n);
    if (!p) return NULL;
    ctx->used += n;
    if (ctx->used > ctx->peak) ctx->peak = ctx->used;
    return p;
}

static void block_return(bp_ctx *ctx, void *block, size_t bytes);

static void out_of_memory(bp_ctx *ctx, size_t n)
{
    if (ctx->limit)
        bp_fail(ctx, BP_ENOMEM, "out of memory: %zu more bytes wanted, %zu in use, limit %zu; use smaller batches or raise the limit", n,
                ctx->used, ctx->limit);
    else
        bp_fail(ctx, BP_ENOMEM, "out of memory: %zu more bytes wanted, %zu in use; use smaller batches or free tensors", n, ctx->used);
}

void *bp_mem_new(bp_ctx *ctx, size_t n)
{
    if (n == 0) n = 1;
    void *p = raw_new(ctx, n);
    if (!p && ctx->cache && ctx->cache->bytes) {
        bp_block_flush(ctx);
        p = raw_new(ctx, n);
    }
    if (!p && ctx->reclaim) {
        ctx->reclaim(ctx->reclaim_ud);
        if (ctx->cache) bp_block_flush(ctx);
        p = raw_new(ctx, n);
    }
    if (!p) out_of_memory(ctx, n);
    return p;
}

void *bp_mem_zeroed(bp_ctx *ctx, size_t n)
{
    void *p = bp_mem_new(ctx, n);
    if (p) memset(p, 0, n ? n : 1);
    return p;
}

void *bp_mem_resize(bp_ctx *ctx, void *ptr, size_t old, size_t n)
{
    void *p = bp_mem_new(ctx, n);
    if (!p) return NULL;
    if (ptr) {
        memcpy(p, ptr, old < n ? old : n);
        bp_mem_free(ctx, ptr, old);
    }
    return p;
}

void bp_mem_free(bp_ctx *ctx, void *ptr, size_t n)
{
    if (!ptr) return;
    if (n == 0) n = 1;
    ctx->used -= n;
    ctx->alloc(ctx->alloc_ud, ptr, n, 0);
}

char *bp_mem_string(bp_ctx *ctx, const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = (char *)bp_mem_new(ctx, n);
    if (copy) memcpy(copy, s, n);
    return copy;
}

bp_status bp_mem_grow(bp_ctx *ctx, void *array, size_t size, int64_t *cap, int64_t want)
{
    if (want <= *cap) return BP_OK;
    int64_t wider = *cap < 8 ? 8 : *cap + *cap / 2;
    if (wider < want) wider = want;
    void *old, *p;
    memcpy(&old, array, sizeof old);
    if (!(p = bp_mem_resize(ctx, old, (size_t)*cap * size, (size_t)wider * size))) return BP_ENOMEM;
    memcpy(array, &p, sizeof p);
    *cap = wider;
    return BP_OK;
}

bp_status bp_cache_open(bp_ctx *ctx)
{
    ctx->cache = (struct bp_cache *)bp_mem_zeroed(ctx, sizeof *ctx->cache);
    return ctx->cache ? BP_OK : BP_ENOMEM;
}

void bp_cache_close(bp_ctx *ctx)
{
    if (!ctx->cache) return;
    for (int i = 0; i < 2; i++)
        if (ctx->scratch[i]) block_return(ctx, ctx->scratch[i], ctx->scratch_bytes[i]);
    bp_block_flush(ctx);
    bp_mem_free(ctx, ctx->cache, sizeof *ctx->cache);
    ctx->cache = NULL;
}

/* Class c holds blocks of exactly class_bytes(c): 64 * 2^(c/4) * (1 + (c%4)/4). */
static size_t class_bytes(int c)
{
    size_t base = (size_t)ALIGN << (c / 4);
    return base + base / 4 * (size_t)(c % 4);
}

static int class_of(size_t n)
{
    int c = 0;
    if (n > ALIGN) {
        int octave = 63 - __builtin_clzll((unsigned long long)(n - 1) / ALIGN);
        c = octave * 4;
    }
    while (c < CLASSES && class_bytes(c) < n) c++;
    return c;
}

static size_t align_of(size_t bytes) { return bytes >= HUGE_BLOCK ? HUGE_PAGE : ALIGN; }
/* What the allocator is asked for: room to align, and for the address that it gave, in the word before the aligned block. */
static size_t raw_bytes(size_t bytes) { return bytes + align_of(bytes) + sizeof(void *); }

static void want_huge_pages(void *block, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    if (bytes >= HUGE_BLOCK) (void)madvise(block, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE); /* a wish: nothing depends on it */
#else
    (void)block, (void)bytes;
#endif
}

void *bp_block_new(bp_ctx *ctx, size_t n, size_t *block_bytes)
{
    int c = class_of(n ? n : 1);
    if (c >= CLASSES || class_bytes(c) > SIZE_MAX / 2) {
        out_of_memory(ctx, n);
        return NULL;
    }
    size_t bytes = class_bytes(c);
    *block_bytes = bytes;
    bp_free_block *b = ctx->cache->list[c];
    if (b) {
        ctx->cache->list[c] = b->next;
        ctx->cache->bytes -= bytes;
        return b;
    }
    char *raw = (char *)bp_mem_new(ctx, raw_bytes(bytes));
    if (!raw) return NULL;
    const uintptr_t align = align_of(bytes);
    char *p = (char *)(((uintptr_t)raw + sizeof(void *) + align - 1) & ~(align - 1));
    memcpy(p - sizeof(void *), &raw, sizeof raw);
    want_huge_pages(p, bytes);
    return p;
}

static void block_return(bp_ctx *ctx, void *block, size_t bytes)
{
    char *raw;
    memcpy(&raw, (char *)block - sizeof(void *), sizeof raw);
    bp_mem_free(ctx, raw, raw_bytes(bytes));
}

void bp_block_free(bp_ctx *ctx, void *block, size_t block_bytes)
{
    if (!block) return;
    if (ctx->cache->bytes + block_bytes <= CACHE_BYTES) {
        bp_free_block *b = (bp_free_block *)block;
        int c = class_of(block_bytes);
        b->next = ctx->cache->list[c];
        ctx->cache->list[c] = b;
        ctx->cache->bytes += block_bytes;
        return;
    }
    block_return(ctx, block, block_bytes);
}

void bp_block_flush(bp_ctx *ctx)
{
    for (int c = 0; c < CLASSES; c++)
        for (bp_free_block *b = ctx->cache->list[c], *next; b; b = next) {
            next = b->next;
            block_return(ctx, b, class_bytes(c));
        }
    memset(ctx->cache, 0, sizeof *ctx->cache);
}

size_t bp_block_cached(const bp_ctx *ctx) { return ctx->cache->bytes; }

static void *grown(bp_ctx *ctx, int i, size_t n)
{
    if (n > ctx->scratch_bytes[i]) {
        size_t bytes;
        void *p = bp_block_new(ctx, n, &bytes);
        if (!p) return NULL;
        if (ctx->scratch[i]) block_return(ctx, ctx->scratch[i], ctx->scratch_bytes[i]);
        ctx->scratch[i] = p;
        ctx->scratch_bytes[i] = bytes;
    }
    return ctx->scratch[i];
}

void *bp__scratch(bp_ctx *ctx, size_t n) { return grown(ctx, 0, n); }
void *bp__scratch_beside(bp_ctx *ctx, size_t n) { return grown(ctx, 1, n); }
