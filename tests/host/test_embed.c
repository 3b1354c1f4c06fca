/* test_embed.c - a host program: trains a net in a script, calls it, and closes with nothing left behind. Compiled as C and as C++; sees
 * bplua.h only, and no Lua file on disk. */
#include "bplua.h"

#include <locale.h>
#include <lualib.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int passed, failed;

#define CHECK(condition, ...)                                       \
    do {                                                            \
        if (condition) {                                            \
            passed++;                                               \
        } else {                                                    \
            failed++;                                               \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);  \
            printf(__VA_ARGS__);                                    \
            printf("\n");                                           \
        }                                                           \
    } while (0)

/* ---- the host's own allocator ---- */

typedef struct heap {
    size_t live, blocks;
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
    void *p = realloc(ptr, nsize);
    if (!p) return NULL;
    if (!ptr) h->blocks++;
    h->live += nsize - osize;
    return p;
}

/* ---- a host with a script ---- */

/* A state without any Lua file in reach. */
static lua_State *new_state(heap *h)
{
    lua_State *L = h ? lua_newstate(heap_alloc, h) : luaL_newstate();
    if (!L) abort();
    luaL_openlibs(L);
    lua_getglobal(L, "package");
    lua_pushliteral(L, "/nonexistent/?.lua");
    lua_setfield(L, -2, "path");
    lua_pushliteral(L, "/nonexistent/?.so");
    lua_setfield(L, -2, "cpath");
    lua_pop(L, 1);
    return L;
}

static bool open_bp(lua_State *L, const bp_config *config)
{
    int status = bplua_open(L, config);
    if (status != LUA_OK) printf("bplua_open: %s\n", lua_tostring(L, -1));
    lua_pop(L, 1);
    return status == LUA_OK;
}

static bool run(lua_State *L, const char *script)
{
    int status = luaL_loadbufferx(L, script, strlen(script), "=script", "t");
    if (status == LUA_OK) status = lua_pcall(L, 0, 0, 0);
    if (status != LUA_OK) {
        printf("script: %s\n", lua_tostring(L, -1));
        lua_pop(L, 1);
    }
    return status == LUA_OK;
}

/* y = 2a - 3b + 0.5, learned from 64 points. */
static const char training[] = "local bp = require 'bp'\n"
                               "local nn, optim = bp.nn, bp.optim\n"
                               "bp.seed(7)\n"
                               "local x = bp.randn(64, 2)\n"
                               "local y = x:matmul(bp.tensor{{2}, {-3}}) + 0.5\n"
                               "model = nn.sequential{ nn.dense{8, activation = 'tanh'}, nn.dense(1) }\n"
                               "model:compile{ optimizer = optim.adam{lr = 0.05}, loss = 'mse' }\n"
                               "local history = model:fit{ x, y, epochs = 150, batch_size = 16, verbose = 0 }\n"
                               "function predict(t) return model:predict(t) end\n"
                               "function forward(t) return model(t) end\n";

static const float points[3][2] = { { 0, 0 }, { 1, 0 }, { 0.5f, -0.5f } };

/* Calls a global function of the script with the points. */
static bool call_net(lua_State *L, const char *function, float out[3])
{
    const int64_t shape[2] = { 3, 2 };
    bp_tensor *x = NULL;
    if (bp_tensor_new(bplua_context(L), BP_F32, 2, shape, &x) != BP_OK) return false;
    bool ok = bp_tensor_write(x, BP_F32, points, 6) == BP_OK;
    lua_getglobal(L, function);
    bplua_pushtensor(L, x);
    bp_tensor_release(x); /* Lua holds a reference of its own */
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        printf("%s: %s\n", function, lua_tostring(L, -1));
        lua_pop(L, 1);
        return false;
    }
    bp_tensor *y = bplua_totensor(L, -1);
    ok = ok && bp_tensor_count(y) == 3 && bp_tensor_read(y, BP_F32, out, 3) == BP_OK;
    lua_pop(L, 1);
    return ok;
}

static bool near_truth(const float y[3])
{
    for (int i = 0; i < 3; i++)
        if (!(fabsf(y[i] - (2 * points[i][0] - 3 * points[i][1] + 0.5f)) < 0.2f)) return false;
    return true;
}

static void test_training(void)
{
    heap h = { 0, 0 };
    lua_State *L = new_state(&h);
    bp_config config = BP_CONFIG_INIT;
    config.alloc = heap_alloc;
    config.alloc_ud = &h;
    config.threads = 2;
    CHECK(open_bp(L, &config), "opening");
    CHECK(run(L, training), "training");
    float y[3] = { 0, 0, 0 }, z[3] = { 0, 0, 0 };
    CHECK(call_net(L, "predict", y) && near_truth(y), "predicted %g %g %g", (double)y[0], (double)y[1], (double)y[2]);
    CHECK(call_net(L, "forward", z) && memcmp(y, z, sizeof y) == 0, "predict and a call give the same bits");
    CHECK(bp_threads(bplua_context(L)) == 2, "the configuration was used");
    CHECK(h.live >= bp_memory_used(bplua_context(L)), "the host's allocator serves the context");
    lua_close(L);
    CHECK(h.live == 0 && h.blocks == 0, "%zu bytes in %zu blocks left", h.live, h.blocks);
}

static void test_two_states(void)
{
    lua_State *a = new_state(NULL), *b = new_state(NULL);
    float ya[3], yb[3];
    CHECK(open_bp(a, NULL) && open_bp(b, NULL), "opening both");
    CHECK(bplua_context(a) != bplua_context(b), "a context each");
    CHECK(run(a, training) && run(b, training), "training both");
    CHECK(call_net(a, "predict", ya) && call_net(b, "predict", yb) && memcmp(ya, yb, sizeof ya) == 0, "same seed, same bits");
    lua_close(a);
    CHECK(call_net(b, "predict", yb) && memcmp(ya, yb, sizeof ya) == 0, "one state outlives the other");
    lua_close(b);
}

static void *train_in_thread(void *result)
{
    lua_State *L = new_state(NULL);
    bool ok = open_bp(L, NULL) && run(L, training) && call_net(L, "predict", (float *)result);
    lua_close(L);
    return ok ? result : NULL;
}

static void test_threads(void)
{
    float y[2][3];
    pthread_t threads[2];
    void *done[2] = { NULL, NULL };
    for (int i = 0; i < 2; i++)
        if (pthread_create(&threads[i], NULL, train_in_thread, y[i]) != 0) abort();
    for (int i = 0; i < 2; i++) pthread_join(threads[i], &done[i]);
    CHECK(done[0] && done[1] && memcmp(y[0], y[1], sizeof y[0]) == 0, "two states train at once");
}

static void test_misuse(void)
{
    bp_config config = BP_CONFIG_INIT;
    lua_State *L = new_state(NULL);
    config.isa = "abacus";
    CHECK(bplua_open(L, &config) != LUA_OK && strstr(lua_tostring(L, -1), "abacus"), "an unknown instruction set is named");
    lua_settop(L, 0);
    config.isa = NULL;
    config.memory_limit = (size_t)1 << 20;
    CHECK(open_bp(L, &config), "opening after a failure");
    CHECK(open_bp(L, NULL), "opening twice is harmless");
    CHECK(bplua_open(L, &config) != LUA_OK && strstr(lua_tostring(L, -1), "already open"), "a second configuration is refused");
    lua_settop(L, 0);
    CHECK(run(L, "local bp = require 'bp'\n"
                 "local ok, message = pcall(bp.zeros, 1024, 1024)\n"
                 "assert(not ok and message:find 'memory', message)\n"
                 "assert(bp.zeros(4):sum():item() == 0)"),
          "the memory limit holds, and the state is usable afterwards");
    lua_close(L);

    L = luaL_newstate();
    CHECK(bplua_open(L, NULL) != LUA_OK && strstr(lua_tostring(L, -1), "package"), "a state without libraries is told what is missing");
    lua_close(L);
}

static void test_preload_and_text_only(void)
{
    lua_State *L = new_state(NULL);
    luaL_requiref(L, "bp", luaopen_bp, 0);
    CHECK(lua_istable(L, -1), "luaL_requiref");
    lua_close(L);

    L = new_state(NULL);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_bp);
    lua_setfield(L, -2, "bp");
    bplua_text_only(L);
    CHECK(run(L, "local bp = require 'bp'\n"
                 "assert(require 'bp' == bp and package.loaded.bp == bp)\n"
                 "assert(debug.getinfo(require 'bp.options'.parse or next, 'S').source:find '^[@=]')\n"
                 "assert(_G.bp == nil)\n"
                 "local f, message = load(string.dump(function() end))\n"
                 "assert(not f and message:find 'binary chunk')"),
          "package.preload, and no bytecode");
    lua_close(L);
}

int main(void)
{
    /* What the library may neither touch nor print is looked at before and after. */
    struct sigaction before[32], after;
    for (int s = 1; s < 32; s++) sigaction(s, NULL, &before[s]);
    char locale[256];
    snprintf(locale, sizeof locale, "%s", setlocale(LC_ALL, NULL));
    char report[] = "/tmp/bplua-embed-XXXXXX";
    int silent = mkstemp(report), out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    unlink(report);
    dup2(silent, STDOUT_FILENO);
    dup2(silent, STDERR_FILENO);

    test_training();
    test_two_states();
    test_threads();
    test_misuse();
    test_preload_and_text_only();

    fflush(stdout);
    off_t printed = lseek(silent, 0, SEEK_END);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    if (printed > 0) {
        char text[4096];
        ssize_t n = pread(silent, text, sizeof text, 0);
        printf("%.*s", (int)n, text);
    }
    CHECK(printed == 0, "printed %lld bytes", (long long)printed);
    CHECK(strcmp(locale, setlocale(LC_ALL, NULL)) == 0, "the locale became %s", setlocale(LC_ALL, NULL));
    for (int s = 1; s < 32; s++) {
        sigaction(s, NULL, &after);
        CHECK(after.sa_handler == before[s].sa_handler, "signal %d", s);
    }
    printf("%d passed, %d failed\n", passed, failed);
    return failed > 0;
}
