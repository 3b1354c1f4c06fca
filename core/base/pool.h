/* pool.h - the context's threads. Work is cut into chunks by shape alone; which thread takes a chunk does not show in the result. */
#ifndef BP_POOL_H
#define BP_POOL_H

#include "context.h"

/* Runs fn(arg, chunk, worker) for chunk = 0..chunks-1, spread over the pool, and returns when all are done. 0 <= worker < bp_threads(ctx)
 * tells scratch areas apart. fn must not apply ops, allocate or fail. Nested calls run inline. */
typedef void bp_chunk_fn(void *arg, int64_t chunk, int worker);
void bp_parallel(bp_ctx *ctx, int64_t chunks, bp_chunk_fn *fn, void *arg);
/* The same, where every thread begins at the last chunk of its share and goes back. A job that walks through more than the caches hold, the
 * same memory at every replay, changes direction from one to the next: what was met last is still there and is met first. */
void bp_parallel_from(bp_ctx *ctx, bool backwards, int64_t chunks, bp_chunk_fn *fn, void *arg);

/* Number of equal chunks for n elements when one chunk should cover about `grain` of them: a function of n and grain alone. */
static inline int64_t bp_chunks(int64_t n, int64_t grain) { return n <= grain ? (n > 0) : (n + grain - 1) / grain; }

bp_status bp_pool_open(bp_ctx *ctx, int threads);
void bp_pool_close(bp_ctx *ctx);
/* Cores this process may use: affinity mask and cgroup quota. */
int bp_pool_cores(void);

#endif
