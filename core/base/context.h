/* context.h - what hangs on a bp_ctx: allocator, file table, clock, pool, kernels, listeners, the last message. */
#ifndef BP_CONTEXT_H
#define BP_CONTEXT_H

#include "../bp.h"

#include <stdarg.h>

struct bp_pool;
struct bp_cache;
struct bp_call;
struct bp_tensor;
struct bp_kernels;

/* Random streams by purpose, so that drawing more of one kind does not shift another. */
typedef enum bp_stream_id {
    BP_STREAM_INIT,
    BP_STREAM_SHUFFLE,
    BP_STREAM_DROPOUT,
    BP_STREAM_AUGMENT,
    BP_STREAM_SEARCH,
    BP_STREAM_NOISE,
    BP_STREAM_COUNT
} bp_stream_id;

/* Whoever wants to see what passes the door: tape, plan, profiler, NaN guard. `before` may refuse a call (inputs checked, nothing run
 * yet); `after` sees the outputs. Either may be NULL. They run in the order of attachment. */
typedef struct bp_listener {
    bp_status (*before)(void *ud, struct bp_call *call);
    bp_status (*after)(void *ud, struct bp_call *call);
    void *ud;
    struct bp_listener *next;
} bp_listener;

struct bp_ctx {
    bp_alloc_fn alloc;
    void *alloc_ud;
    size_t used, peak, limit;
    uint64_t calls;            /* allocator calls that asked for memory */
    struct bp_cache *cache;    /* freed tensor blocks kept for reuse */
    void (*reclaim)(void *ud); /* asked to free what it can before an allocation is given up (the binding collects garbage) */
    void *reclaim_ud;

    const bp_files *files;
    double (*clock)(void *ud);
    void *clock_ud;

    struct bp_pool *pool;
    const struct bp_kernels *kernels[2]; /* for f32 and f64 */
    void *scratch[2];                    /* grown on demand, kept: see bp__scratch and bp__scratch_beside */
    size_t scratch_bytes[2];

    bp_listener *listeners;
    bool grad_enabled, training;
    uint64_t serial;                /* numbers storages and tape nodes in order of birth */
    uint64_t capture_id;            /* number of the open capture, 0: none; storages remember in which they were born and written */
    uint64_t moved;                 /* counts parameters moved to other memory: plans made before are stale */
    uint64_t replays;               /* counts runs of plans, which write gradients without the tape's knowledge */
    bool paused;                    /* nothing is noted, and what is made counts as older than the capture */
    void *capture;                  /* the open capture, owned by plan/ */
    void (*var_release)(void *var); /* set by autodiff/, so that tensor/ need not know it */
    void *tape, *dying, *zeroed;    /* autodiff's own: the listener, nodes being freed, gradients declared zero in the open capture */
    bool freeing;
    bool in_grad_hook;                          /* a bp_grad_fn runs: no other backward may begin */
    struct bp_tensor *streams[BP_STREAM_COUNT]; /* i64[2] {key, step} */

    int base;                /* positions held in tensors count from this: 0 in C, 1 in a Lua state */
    volatile int stop;       /* set from a signal or another thread: long loops give up with BP_ESTOP */
    const char *where;       /* path of the layer now running, for messages; borrowed */
    bool keep_where;         /* the tape notes the path with every op, and backward runs under it: while somebody looks for a NaN */
    const void *gradient_of; /* the op whose gradient is being computed, under keep_where; NULL: none */
    char message[1024];
};

/* The part of bp_open and bp_close that base/ knows; plan/open.c adds the rest. */
bp_status bp__base_open(const bp_config *config, bp_ctx **ctx);
void bp__base_close(bp_ctx *ctx);

/* Sets the message and returns the status. The text says where, what was found, what was expected, how to mend it. */
bp_status bp_fail(bp_ctx *ctx, bp_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
bp_status bp_fail_v(bp_ctx *ctx, bp_status status, const char *format, va_list ap);

void bp_listen(bp_ctx *ctx, bp_listener *listener);
void bp_unlisten(bp_ctx *ctx, bp_listener *listener);

/* Monotonic seconds from the injected clock. */
double bp_now(bp_ctx *ctx);
/* A stop was asked for: BP_ESTOP once, and the flag is cleared; else BP_OK. */
bp_status bp_check_stop(bp_ctx *ctx);

#define BP_TRY(expression)                                                                                             \
    do {                                                                                                               \
        bp_status bp_try_status = (expression);                                                                        \
        if (bp_try_status != BP_OK) return bp_try_status;                                                              \
    } while (0)

#endif
