/* test_memory.c - a host whose memory runs out: the nth allocation fails, for every n, once or from then on, while a script builds, trains,
 * saves, loads and predicts. Every time the script either succeeds or ends with a Lua error, the numbers it computed are right, and closing
 * the state gives every byte back.
 *
 *     test_memory              a sample that covers every n in turn: see stride()
 *     test_memory all          every n (make test-long)
 *
 * Allocations of the library (tensors, plans, files) and of Lua (tables, strings, closures) are counted apart, since the former are few
 * and each deserves its test, and the latter many. */
#include "bplua.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char
    script[] = "local bp = require 'bp'\n"
               "local nn, optim = bp.nn, bp.optim\n"
               "bp.seed(7)\n"
               "local net = nn.sequential{\n"
               "  nn.conv2d{2, 3, activation = 'relu', padding = 'same', l2 = 1e-3}, nn.max_pool2d(2), nn.batch_norm(), nn.flatten(),\n"
               "  nn.dense{3, activation = 'tanh'}, nn.dropout(0.25), nn.dense(2) }\n"
               "local x, y = bp.randn(6, 4, 4, 1), bp.randint(1, 2, 6)\n"
               "net:compile{ optimizer = optim.adam{lr = 0.01}, loss = 'sparse_categorical_crossentropy', metrics = {'accuracy'} }\n"
               "net:fit{ x, y, epochs = 2, batch_size = 3, verbose = 0 }\n"
               "local before = net:predict(x)\n"
               "local saved, message = net:save(path)\n"
               "if not saved then error(message, 0) end\n"
               "local loaded, why = bp.load(path)\n"
               "if not loaded then error(why, 0) end\n"
               "result = loaded:predict(x):sum():item()\n"
               "assert(loaded:predict(x):eq(before):all():item(), 'wrong numbers')\n";

/* ---- an allocator that fails ---- */

typedef struct heap {
    size_t live, blocks;
    long long calls;   /* that wanted memory */
    long long fail_at; /* the call that gets none; 0: never */
    bool persistent;   /* so do all after it */
} heap;

static void *heap_alloc(void *ud, void *ptr, size_t osize, size_t nsize)
{
    heap *h = (heap *)ud;
    if (!ptr) osize = 0; /* Lua states the kind of object there */
    if (nsize == 0) {
        if (ptr) h->blocks--;
        h->live -= osize;
        free(ptr);
        return NULL;
    }
    if (nsize > osize) { /* shrinking never fails, as Lua demands */
        h->calls++;
        if (h->fail_at && (h->persistent ? h->calls >= h->fail_at : h->calls == h->fail_at)) return NULL;
    }
    void *p = realloc(ptr, nsize);
    if (!p) abort(); /* the machine's own memory is not what is tested */
    if (!ptr) h->blocks++;
    h->live += nsize - osize;
    return p;
}

/* ---- one run ---- */

typedef struct run {
    heap lua, core;
    bool survived; /* the script went through */
    double result;
    const char *wrong; /* what must not have happened, or NULL */
    char message[300];
} run;

static char path[64] = "/tmp/bplua-memory-XXXXXX";

static int protected_part(lua_State *L)
{
    run *r = (run *)lua_touserdata(L, 1);
    luaL_openlibs(L);
    bp_config config = BP_CONFIG_INIT;
    config.alloc = heap_alloc;
    config.alloc_ud = &r->core;
    config.threads = 1;
    if (bplua_open(L, &config) != LUA_OK) return lua_error(L);
    lua_pop(L, 1);
    lua_pushstring(L, path);
    lua_setglobal(L, "path");
    if (luaL_loadbufferx(L, script, sizeof script - 1, "=script", "t") != LUA_OK) return lua_error(L);
    lua_call(L, 0, 0);
    lua_getglobal(L, "result");
    r->result = lua_tonumber(L, -1);
    return 0;
}

/* What memory that runs out may end with. */
static bool is_about_memory(const char *message) { return strstr(message, "memory") != NULL; }

static void try_once(run *r)
{
    lua_State *L = lua_newstate(heap_alloc, &r->lua);
    if (L) {
        lua_pushcfunction(L, protected_part); /* a light function and userdata: need no memory */
        lua_pushlightuserdata(L, r);
        int status = lua_pcall(L, 1, 0, 0);
        r->survived = status == LUA_OK;
        if (!r->survived) {
            const char *message = lua_tostring(L, -1);
            snprintf(r->message, sizeof r->message, "%s", message ? message : "(no message)");
            if (status != LUA_ERRMEM && !is_about_memory(r->message)) r->wrong = "another error than one of memory";
        }
        lua_close(L);
    }
    if (r->lua.live || r->lua.blocks) r->wrong = "memory of Lua is left behind";
    if (r->core.live || r->core.blocks) r->wrong = "memory of the library is left behind";
}

/* ---- all runs ---- */

static int passed, failed;
static double expected;

static void check(const run *r, const char *which, long long n, bool persistent)
{
    const char *wrong = r->wrong;
    bool spent = (which[0] == 'L' ? r->lua.calls : r->core.calls) >= n; /* the allocation that fails was asked for */
    if (r->survived && r->result != expected) wrong = "the script went through with another result";
    if (r->survived && persistent && spent && which[0] != 'L') wrong = "the script went through without memory";
    if (!wrong) {
        passed++;
        return;
    }
    failed++;
    if (failed <= 10) printf("%s allocation %lld%s fails: %s: %s\n", which, n, persistent ? " and all after it" : "", wrong, r->message);
}

/* How many n of each kind a sample has; the same code compiled as C++ needs no more than a trial. */
#ifdef __cplusplus
enum { SAMPLE = 20 };
#else
enum { SAMPLE = 100 };
#endif

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Every n of both kinds that `first` and `step` select. */
static void fail_each(const char *which, long long total, long long first, long long step)
{
    for (long long n = first; n <= total; n += step)
        for (int persistent = 0; persistent < 2; persistent++) {
            run r = { { 0, 0, 0, 0, false }, { 0, 0, 0, 0, false }, false, 0, NULL, "" };
            heap *h = which[0] == 'L' ? &r.lua : &r.core;
            h->fail_at = n;
            h->persistent = persistent;
            try_once(&r);
            check(&r, which, n, persistent);
        }
}

/* Steps so that about `count` values of n are tried. A sample begins at a place that moves with the day, so that a machine which tests
 * daily has tried every n after so many days as the step is long; BP_MEMORY_FIRST=k begins at k instead, which repeats what was reported.
 */
static long long stride(long long total, long long count, long long *first)
{
    long long step = total / count + 1;
    const char *begin = getenv("BP_MEMORY_FIRST");
    *first = 1 + (begin ? atoll(begin) - 1 : (long long)(time(NULL) / 86400)) % step;
    return step;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    bool all = argc > 1 && strcmp(argv[1], "all") == 0;
    int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    run r = { { 0, 0, 0, 0, false }, { 0, 0, 0, 0, false }, false, 0, NULL, "" };
    double start = seconds();
    try_once(&r);
    if (!r.survived || r.wrong) {
        printf("with all the memory there is: %s %s\n0 passed, 1 failed\n", r.wrong ? r.wrong : "", r.message);
        return 1;
    }
    expected = r.result;
    printf("the script allocates %lld times in the library and %lld times in Lua, %.3f s\n", r.core.calls, r.lua.calls, seconds() - start);
    long long first = 1, step = all ? 1 : stride(r.core.calls, SAMPLE, &first);
    printf("library: every allocation %lld + k * %lld\n", first, step);
    fail_each("library", r.core.calls, first, step);
    first = 1;
    step = all ? 1 : stride(r.lua.calls, SAMPLE, &first);
    printf("Lua: every allocation %lld + k * %lld\n", first, step);
    fail_each("Lua", r.lua.calls, first, step);
    printf("%.1f s\n", seconds() - start);
    unlink(path);
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
