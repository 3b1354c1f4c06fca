/* pool.c - threads that spin briefly for the next job, then park.
 *
 * A job is a function over chunk numbers. Workers and the caller take chunks from one shared counter; the caller returns when every chunk
 * is done and every worker has left the job. A worker that finds nothing for SPINS rounds parks on a condition variable; the caller signals
 * only when someone is parked. After fork() the child has no workers: it starts its own on first use. */
#define _GNU_SOURCE
#include "pool.h"

#include "float_mode.h"
#include "memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

enum { MAX_THREADS = 256, SPINS = 4000 };

typedef struct worker {
    struct bp_pool *pool;
    int index;
    pthread_t id;
} worker;

struct bp_pool {
    int threads; /* the caller included */
    int started; /* workers that run */
    pid_t owner; /* process that started them */
    worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    int parked;
    bool busy; /* a job is running: nested calls go inline */

    bp_chunk_fn *fn;
    void *arg;
    int64_t chunks;
    atomic_bool quit;
    _Alignas(64) atomic_llong next;      /* first chunk not taken yet */
    _Alignas(64) atomic_uint generation; /* odd while a job is open */
    _Alignas(64) atomic_int inside;      /* workers that may still touch the job */
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_chunks(struct bp_pool *p, int index)
{
    for (;;) {
        int64_t c = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (c >= p->chunks) return;
        p->fn(p->arg, c, index);
    }
}

/* Waits until the generation is not `seen`. */
static void wait_for_change(struct bp_pool *p, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&p->generation, memory_order_acquire) != seen) return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    p->parked++;
    while (atomic_load(&p->generation) == seen && !atomic_load(&p->quit)) pthread_cond_wait(&p->wake, &p->lock);
    p->parked--;
    pthread_mutex_unlock(&p->lock);
}

/* A worker counts itself inside before it looks whether the job is still open, and the caller closes the job before it looks who is inside:
 * one of the two sees the other. */
static void *worker_main(void *arg)
{
    worker *w = (worker *)arg;
    struct bp_pool *p = w->pool;
    unsigned seen = 0;
    bp_float_enter();
    for (;;) {
        wait_for_change(p, seen);
        if (atomic_load(&p->quit)) return NULL;
        seen = atomic_load(&p->generation);
        if (!(seen & 1)) continue;
        atomic_fetch_add(&p->inside, 1);
        if (atomic_load(&p->generation) == seen) take_chunks(p, w->index);
        atomic_fetch_sub(&p->inside, 1);
    }
}

static void start_workers(struct bp_pool *p)
{
    if (p->owner != getpid()) { /* a fork left us without workers, and with a lock that one of them may have held */
        p->started = p->parked = 0;
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->wake, NULL);
        atomic_store(&p->generation, 0);
        atomic_store(&p->inside, 0);
        p->owner = getpid();
    }
    while (p->started < p->threads - 1) {
        worker *w = &p->workers[p->started];
        w->pool = p;
        w->index = p->started + 1;
        if (pthread_create(&w->id, NULL, worker_main, w) != 0) break; /* fewer hands, same result */
        p->started++;
    }
}

void bp_parallel(bp_ctx *ctx, int64_t chunks, bp_chunk_fn *fn, void *arg)
{
    struct bp_pool *p = ctx->pool;
    if (chunks <= 1 || p->threads == 1 || p->busy) {
        for (int64_t c = 0; c < chunks; c++) fn(arg, c, 0);
        return;
    }
    if (p->started < p->threads - 1 || p->owner != getpid()) start_workers(p);
    p->busy = true;
    p->fn = fn;
    p->arg = arg;
    p->chunks = chunks;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->generation, 1);
    if (p->parked) pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    take_chunks(p, 0);
    atomic_fetch_add(&p->generation, 1);
    for (int spins = 0; atomic_load(&p->inside) != 0; spins++) {
        if (spins > SPINS)
            sched_yield();
        else
            relax();
    }
    p->busy = false;
}

static void stop_workers(struct bp_pool *p)
{
    if (p->started && p->owner == getpid()) {
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->quit, true);
        atomic_fetch_add(&p->generation, 2);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
        for (int i = 0; i < p->started; i++) pthread_join(p->workers[i].id, NULL);
        atomic_store(&p->quit, false);
        atomic_store(&p->generation, 0);
    }
    p->started = 0;
}

bp_status bp_pool_open(bp_ctx *ctx, int threads)
{
    struct bp_pool *p = (struct bp_pool *)bp_mem_zeroed(ctx, sizeof *p);
    if (!p) return BP_ENOMEM;
    ctx->pool = p;
    p->owner = getpid();
    p->threads = 1;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    return bp_set_threads(ctx, threads);
}

void bp_pool_close(bp_ctx *ctx)
{
    struct bp_pool *p = ctx->pool;
    if (!p) return;
    stop_workers(p);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    if (p->workers) bp_mem_free(ctx, p->workers, sizeof(worker) * (size_t)p->threads);
    bp_mem_free(ctx, p, sizeof *p);
    ctx->pool = NULL;
}

int bp_threads(const bp_ctx *ctx) { return ctx->pool->threads; }

bp_status bp_set_threads(bp_ctx *ctx, int threads)
{
    struct bp_pool *p = ctx->pool;
    if (threads < 1 || threads > MAX_THREADS)
        return bp_fail(ctx, BP_EINVAL, "threads: %d; a number from 1 to %d is expected", threads, MAX_THREADS);
    if (threads == p->threads && p->workers) return BP_OK;
    worker *workers = (worker *)bp_mem_zeroed(ctx, sizeof(worker) * (size_t)threads);
    if (!workers) return BP_ENOMEM;
    stop_workers(p);
    if (p->workers) bp_mem_free(ctx, p->workers, sizeof(worker) * (size_t)p->threads);
    p->workers = workers;
    p->threads = threads;
    return BP_OK;
}

/* Quota of the cgroup in whole cores (v2 "max 100000" or "200000 100000"); 0: none. */
static int cgroup_cores(void)
{
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!f) return 0;
    long long quota = 0, period = 0;
    int n = fscanf(f, "%lld %lld", &quota, &period);
    fclose(f);
    return n == 2 && quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int bp_pool_cores(void)
{
    cpu_set_t set;
    int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int quota = cgroup_cores();
    if (quota && quota < cores) cores = quota;
    return cores < 1 ? 1 : cores > MAX_THREADS ? MAX_THREADS : cores;
}
