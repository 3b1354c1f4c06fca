/* context.c - opening and closing a context, its settings, messages and listeners. */
#include "context.h"

#include "files.h"
#include "memory.h"
#include "pool.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void *default_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    (void)ud, (void)osize;
    if (nsize == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, nsize);
}

static double default_clock(void *ud)
{
    (void)ud;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *bp_status_name(bp_status status)
{
    static const char *const names[] = {
#define X(code, name, text) name,
        BP_STATUS_MAP(X)
#undef X
    };
    return (unsigned)status < BP_STATUS_COUNT ? names[status] : "unknown";
}

/* The parts above base/ that a context needs when it opens hang in here, so that base/ need not include them. */
bp_status bp__base_open(const bp_config *config, bp_ctx **out)
{
    static const bp_config defaults = BP_CONFIG_INIT;
    bp_config c = defaults;
    *out = NULL;
    if (config) memcpy(&c, config, config->struct_size < sizeof c ? config->struct_size : sizeof c);
    if (!c.alloc) c.alloc = default_alloc;
    bp_ctx *ctx = (bp_ctx *)c.alloc(c.alloc_ud, NULL, 0, sizeof *ctx);
    if (!ctx) return BP_ENOMEM;
    memset(ctx, 0, sizeof *ctx);
    ctx->alloc = c.alloc;
    ctx->alloc_ud = c.alloc_ud;
    ctx->used = ctx->peak = sizeof *ctx;
    ctx->limit = c.memory_limit;
    ctx->files = c.files ? c.files : &bp_files_posix;
    ctx->clock = c.clock ? c.clock : default_clock;
    ctx->clock_ud = c.clock_ud;
    ctx->base = c.index_base;
    ctx->grad_enabled = true;
    ctx->serial = 1;
    bp_status status = bp_cache_open(ctx);
    if (status == BP_OK) status = bp_pool_open(ctx, c.threads > 0 ? c.threads : bp_pool_cores());
    if (status != BP_OK) {
        bp__base_close(ctx);
        return status;
    }
    *out = ctx;
    return BP_OK;
}

void bp__base_close(bp_ctx *ctx)
{
    bp_pool_close(ctx);
    bp_cache_close(ctx);
    ctx->alloc(ctx->alloc_ud, ctx, sizeof *ctx, 0);
}

const char *bp_message(const bp_ctx *ctx) { return ctx->message; }
size_t bp_memory_used(const bp_ctx *ctx) { return ctx->used; }
size_t bp_memory_peak(const bp_ctx *ctx) { return ctx->peak; }
void bp_memory_reset_peak(bp_ctx *ctx) { ctx->peak = ctx->used; }
uint64_t bp_memory_calls(const bp_ctx *ctx) { return ctx->calls; }

bool bp_set_grad_enabled(bp_ctx *ctx, bool enabled)
{
    bool old = ctx->grad_enabled;
    ctx->grad_enabled = enabled;
    return old;
}

bool bp_grad_enabled(const bp_ctx *ctx) { return ctx->grad_enabled; }

bool bp_set_training(bp_ctx *ctx, bool training)
{
    bool old = ctx->training;
    ctx->training = training;
    return old;
}

bool bp_pause_capture(bp_ctx *ctx, bool paused)
{
    bool old = ctx->paused;
    ctx->paused = paused;
    return old;
}

bool bp_training(const bp_ctx *ctx) { return ctx->training; }

bp_status bp_fail_v(bp_ctx *ctx, bp_status status, const char *format, va_list ap)
{
    size_t used = 0;
    if (ctx->where && *ctx->where) {
        int n = snprintf(ctx->message, sizeof ctx->message, "%s: ", ctx->where);
        used = n < 0 ? 0 : (size_t)n < sizeof ctx->message ? (size_t)n : sizeof ctx->message - 1;
    }
    vsnprintf(ctx->message + used, sizeof ctx->message - used, format, ap);
    return status;
}

bp_status bp_fail(bp_ctx *ctx, bp_status status, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    bp_fail_v(ctx, status, format, ap);
    va_end(ap);
    return status;
}

void bp_listen(bp_ctx *ctx, bp_listener *listener)
{
    bp_listener **end = &ctx->listeners;
    while (*end) end = &(*end)->next;
    listener->next = NULL;
    *end = listener;
}

void bp_unlisten(bp_ctx *ctx, bp_listener *listener)
{
    for (bp_listener **p = &ctx->listeners; *p; p = &(*p)->next)
        if (*p == listener) {
            *p = listener->next;
            return;
        }
}

double bp_now(bp_ctx *ctx) { return ctx->clock(ctx->clock_ud); }

bp_status bp_check_stop(bp_ctx *ctx)
{
    if (!ctx->stop) return BP_OK;
    ctx->stop = 0;
    return bp_fail(ctx, BP_ESTOP, "stopped on request");
}
