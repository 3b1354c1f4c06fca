/* pool.c - threads that spin briefly for the next job, then park.
 *
 * A job is a function over chunk numbers. Every hand (the workers and the caller) begins with a share of its own, neighbouring chunks, the
 * same ones whenever a job of as many chunks runs; whoever is done helps the others, from the far end of their shares. So what a chunk
 * works on, weights above all, is met again by the core that has it in its cache. No result depends on it.
 *
 * The caller returns when every chunk is done and every worker has left the job. A worker that finds nothing for SPINS rounds parks on a
 * condition variable; the caller signals only when someone is parked. After fork() the child has no workers: it starts its own on first
 * use. */
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

/* Of one hand; the caller's is the first. A cache line each. */
typedef struct hand {
    atomic_ullong share; /* chunks not taken yet: first << 32 | end */
    atomic_int inside;   /* 1: may still touch the job */
    int index;
    struct bp_pool *pool;
    pthread_t id;
    char rest[64 - sizeof(atomic_ullong) - 2 * sizeof(int) - sizeof(void *) - sizeof(pthread_t)];
} hand;

struct bp_pool {
    int threads; /* the caller included */
    int started; /* workers that run */
    pid_t owner; /* process that started them */
    hand *hands; /* [threads] */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool busy; /* a job is running: nested calls go inline */

    atomic_bool quit;
    atomic_int parked;
    char apart[64];
    atomic_uint generation; /* odd while a job is open; in one line with the job */
    int shares;
    bool backwards;
    bp_chunk_fn *fn;
    void *arg;
    char apart_too[64];
};

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A chunk from the last end of a share or its first one; -1: none is left. */
static int64_t take(atomic_ullong *share, bool last)
{
    unsigned long long seen = atomic_load_explicit(share, memory_order_relaxed);
    for (;;) {
        const uint32_t first = (uint32_t)(seen >> 32), end = (uint32_t)seen;
        if (first >= end) return -1;
        const unsigned long long left = last ? seen - 1 : seen + (1ULL << 32);
        if (atomic_compare_exchange_weak_explicit(share, &seen, left, memory_order_relaxed, memory_order_relaxed))
            return last ? end - 1 : first;
    }
}

static void take_chunks(struct bp_pool *p, int index)
{
    for (int k = 0; k < p->shares; k++) {
        atomic_ullong *share = &p->hands[(index + k) % p->shares].share;
        for (int64_t c; (c = take(share, p->backwards != (k > 0))) >= 0;) p->fn(p->arg, c, index);
    }
}

static void deal_out(struct bp_pool *p, int64_t chunks)
{
    p->shares = chunks <= p->started ? (int)chunks : p->started + 1;
    for (int k = 0; k < p->shares; k++) {
        const unsigned long long first = (unsigned long long)(chunks * k / p->shares),
                                 end = (unsigned long long)(chunks * (k + 1) / p->shares);
        atomic_store_explicit(&p->hands[k].share, first << 32 | end, memory_order_relaxed);
    }
}

/* Waits until the generation is not `seen`. A worker counts itself parked before it looks a last time, and the caller changes the
 * generation before it looks who is parked: one of the two sees the other. */
static void wait_for_change(struct bp_pool *p, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&p->generation, memory_order_acquire) != seen) return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->parked, 1);
    while (atomic_load(&p->generation) == seen && !atomic_load(&p->quit)) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->parked, 1);
    pthread_mutex_unlock(&p->lock);
}

static void change_generation(struct bp_pool *p)
{
    atomic_fetch_add(&p->generation, 1);
    if (!atomic_load(&p->parked)) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

/* A worker says that it is inside before it looks whether the job is still open, and the caller closes the job before it looks who is
 * inside: one of the two sees the other. */
static void *worker_main(void *arg)
{
    hand *h = (hand *)arg;
    struct bp_pool *p = h->pool;
    unsigned seen = 0;
    bp_float_enter();
    for (;;) {
        wait_for_change(p, seen);
        if (atomic_load(&p->quit)) return NULL;
        seen = atomic_load(&p->generation);
        if (!(seen & 1)) continue;
        atomic_store(&h->inside, 1);
        if (atomic_load(&p->generation) == seen) take_chunks(p, h->index);
        atomic_store_explicit(&h->inside, 0, memory_order_release);
    }
}

static void start_workers(struct bp_pool *p)
{
    if (p->owner != getpid()) { /* a fork left us without workers, and with a lock that one of them may have held */
        p->started = 0;
        atomic_store(&p->parked, 0);
        pthread_mutex_init(&p->lock, NULL);
        pthread_cond_init(&p->wake, NULL);
        atomic_store(&p->generation, 0);
        for (int k = 0; k < p->threads; k++) atomic_store(&p->hands[k].inside, 0);
        p->owner = getpid();
    }
    while (p->started < p->threads - 1) {
        hand *h = &p->hands[p->started + 1];
        h->pool = p;
        h->index = p->started + 1;
        if (pthread_create(&h->id, NULL, worker_main, h) != 0) break; /* fewer hands, same result */
        p->started++;
    }
}

void bp_parallel_from(bp_ctx *ctx, bool backwards, int64_t chunks, bp_chunk_fn *fn, void *arg)
{
    struct bp_pool *p = ctx->pool;
    if (chunks <= 1 || p->threads == 1 || p->busy || chunks > UINT32_MAX) {
        for (int64_t c = 0; c < chunks; c++) fn(arg, backwards ? chunks - 1 - c : c, 0);
        return;
    }
    if (p->started < p->threads - 1 || p->owner != getpid()) start_workers(p);
    p->busy = true;
    p->fn = fn;
    p->arg = arg;
    p->backwards = backwards;
    deal_out(p, chunks);
    change_generation(p);
    take_chunks(p, 0);
    atomic_fetch_add(&p->generation, 1);
    for (int k = 1, spins = 0; k <= p->started;) {
        if (!atomic_load(&p->hands[k].inside))
            k++;
        else if (spins++ > SPINS)
            sched_yield();
        else
            relax();
    }
    p->busy = false;
}

void bp_parallel(bp_ctx *ctx, int64_t chunks, bp_chunk_fn *fn, void *arg) { bp_parallel_from(ctx, false, chunks, fn, arg); }

static void stop_workers(struct bp_pool *p)
{
    if (p->started && p->owner == getpid()) {
        pthread_mutex_lock(&p->lock);
        atomic_store(&p->quit, true);
        atomic_fetch_add(&p->generation, 2);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
        for (int i = 0; i < p->started; i++) pthread_join(p->hands[i + 1].id, NULL);
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
    if (p->owner == getpid()) { /* else a fork left us with workers that will never let go of them */
        pthread_mutex_destroy(&p->lock);
        pthread_cond_destroy(&p->wake);
    }
    if (p->hands) bp_mem_free(ctx, p->hands, sizeof *p->hands * (size_t)p->threads);
    bp_mem_free(ctx, p, sizeof *p);
    ctx->pool = NULL;
}

int bp_threads(const bp_ctx *ctx) { return ctx->pool->threads; }

bp_status bp_set_threads(bp_ctx *ctx, int threads)
{
    struct bp_pool *p = ctx->pool;
    if (threads < 1 || threads > MAX_THREADS)
        return bp_fail(ctx, BP_EINVAL, "threads: %d; a number from 1 to %d is expected", threads, MAX_THREADS);
    if (threads == p->threads && p->hands) return BP_OK;
    hand *hands = (hand *)bp_mem_zeroed(ctx, sizeof *hands * (size_t)threads);
    if (!hands) return BP_ENOMEM;
    stop_workers(p);
    if (p->hands) bp_mem_free(ctx, p->hands, sizeof *p->hands * (size_t)p->threads);
    p->hands = hands;
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
