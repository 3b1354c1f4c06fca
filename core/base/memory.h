/* memory.h - every byte goes through the context's allocator and is counted. */
#ifndef BP_MEMORY_H
#define BP_MEMORY_H

#include "context.h"

/* NULL and a BP_ENOMEM message when the allocator or the limit refuses; n == 0 gives a block of one byte. */
void *bp_mem_new(bp_ctx *ctx, size_t n);
void *bp_mem_zeroed(bp_ctx *ctx, size_t n);
/* Resizes; the old block stays valid on failure. ptr may be NULL with old == 0. */
void *bp_mem_resize(bp_ctx *ctx, void *ptr, size_t old, size_t n);
void bp_mem_free(bp_ctx *ctx, void *ptr, size_t n);
/* A copy of a string; free it with bp_mem_free(ctx, s, strlen(s) + 1). */
char *bp_mem_string(bp_ctx *ctx, const char *s);

/* Blocks for tensor data: 64-byte aligned, reused by size class while the cache has room. *block_bytes receives what to hand back. */
void *bp_block_new(bp_ctx *ctx, size_t n, size_t *block_bytes);
void bp_block_free(bp_ctx *ctx, void *block, size_t block_bytes);
/* Gives the cached blocks back to the allocator. */
void bp_block_flush(bp_ctx *ctx);
/* Bytes in the cache: part of what bp_memory_used counts, but free to be reused. */
size_t bp_block_cached(const bp_ctx *ctx);

/* The cache and the scratch block; opened and closed with the context. */
bp_status bp_cache_open(bp_ctx *ctx);
void bp_cache_close(bp_ctx *ctx);

/* Grows *array (elements of `size` bytes, capacity *cap) so that it holds at least `want`. */
bp_status bp_mem_grow(bp_ctx *ctx, void *array, size_t size, int64_t *cap, int64_t want);

/* Scratch for the op that runs now: at least n bytes, 64-byte aligned, valid until the next call. NULL on failure. */
void *bp__scratch(bp_ctx *ctx, size_t n);
/* The same from a block of its own, for an op that has part of its work done by what takes scratch itself. */
void *bp__scratch_beside(bp_ctx *ctx, size_t n);

#endif
