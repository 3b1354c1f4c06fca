/* settings.c - what else bp.core tells and sets: threads, memory, clock, the path of the running layer, errors for library code. */
#include "lbp.h"

#include "../core/base/memory.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* ---- the context ---- */

/*** core.threads(n = nil) -> n
 * How many threads work on one op; with an argument (1 to 256), sets it. Results do not depend on it. */
static int threads(lua_State *L)
{
    bp_ctx *ctx = lbp_context(L);
    int64_t n;
    if (!lua_isnoneornil(L, 1)) {
        if (!lbp_towhole(L, 1, &n)) lbp_typeerror(L, 1, "threads", "a whole number");
        if (n < 1 || n > 256) lbp_error(L, "threads: %I threads; 1 to 256 is expected", (lua_Integer)n);
        lbp_check(L, bp_set_threads(ctx, (int)n));
    }
    lua_pushinteger(L, bp_threads(ctx));
    return 1;
}

/*** bp.isa() -> "baseline" | "avx2" | "avx512"
 * The instruction set whose kernels are used. BP_ISA in the environment chooses another. */
static int isa(lua_State *L)
{
    lua_pushstring(L, bp_isa(lbp_context(L)));
    return 1;
}

static void set_integer(lua_State *L, const char *name, lua_Integer v)
{
    lua_pushinteger(L, v);
    lua_setfield(L, -2, name);
}

/*** bp.memory() -> {used =, cached =, peak =, limit =, calls =, tensors =}
 * Bytes that tensors, histories and plans take now, those of them that are free to be reused, the most there have been, the limit (nil:
 * none); allocator calls so far; tensors alive in Lua. */
static int memory(lua_State *L)
{
    lbp_state *s = lbp_state_of(L);
    lua_Integer tensors = 0;
    for (lbp_owned *o = s->boxes.next; o != &s->boxes; o = o->next) tensors += ((lbp_box *)o)->tensor != NULL;
    lua_createtable(L, 0, 6);
    set_integer(L, "used", (lua_Integer)bp_memory_used(s->ctx));
    set_integer(L, "cached", (lua_Integer)bp_block_cached(s->ctx));
    set_integer(L, "peak", (lua_Integer)bp_memory_peak(s->ctx));
    set_integer(L, "calls", (lua_Integer)bp_memory_calls(s->ctx));
    set_integer(L, "tensors", tensors);
    if (s->ctx->limit) set_integer(L, "limit", (lua_Integer)s->ctx->limit);
    return 1;
}

/*** core.used() -> integer
 * memory().used alone, without counting tensors. */
static int used(lua_State *L)
{
    lua_pushinteger(L, (lua_Integer)bp_memory_used(lbp_context(L)));
    return 1;
}

/*** core.reset_peak()
 * Starts the peak of bp.memory() anew from what is used now. */
static int reset_peak(lua_State *L)
{
    bp_memory_reset_peak(lbp_context(L));
    return 0;
}

/*** core.clock() -> seconds
 * Of the context's clock, which never runs backwards. */
static int now(lua_State *L)
{
    lua_pushnumber(L, bp_now(lbp_context(L)));
    return 1;
}

/*** core.capturing() -> boolean
 * Whether a capture is open and not paused. */
static int capturing(lua_State *L)
{
    const bp_ctx *ctx = lbp_context(L);
    lua_pushboolean(L, ctx->capture_id != 0 && !ctx->paused);
    return 1;
}

/* ---- the path of the running layer ---- */

/*** core.where_push(name) -> closable
 * local _ <close> = core.where_push("conv2d_1"): until the block is left, errors begin with the path of all such names. */
static int where_push(lua_State *L)
{
    lbp_state *s = (lbp_state *)lua_touserdata(L, lua_upvalueindex(1));
    size_t n, used = strlen(s->where);
    if (lua_type(L, 1) != LUA_TSTRING) lbp_typeerror(L, 1, "where_push", "a name");
    const char *name = lua_tolstring(L, 1, &n);
    if (s->where_lost || used + n + 2 > sizeof s->where || memchr(name, '/', n))
        s->where_lost++;
    else {
        if (used) s->where[used++] = '/';
        memcpy(s->where + used, name, n + 1);
    }
    lua_pushvalue(L, lua_upvalueindex(2));
    return 1;
}

static int where_pop(lua_State *L)
{
    lbp_state *s = (lbp_state *)lua_touserdata(L, lua_upvalueindex(1));
    if (s->where_lost)
        s->where_lost--;
    else {
        char *slash = strrchr(s->where, '/');
        *(slash ? slash : s->where) = '\0';
    }
    return 0;
}

/*** core.where() -> path
 * Of the layer that runs, "" outside of any. */
static int where(lua_State *L)
{
    lua_pushstring(L, lbp_state_of(L)->where);
    return 1;
}

/* where_push returns the same closable value each time, so that a layer's call makes no garbage. */
static void add_where(lua_State *L, lbp_state *s)
{
    lua_pushlightuserdata(L, s);
    lua_newuserdatauv(L, 0, 0);
    lua_newtable(L);
    lua_pushlightuserdata(L, s);
    lua_pushcclosure(L, where_pop, 1);
    lua_setfield(L, -2, "__close");
    lua_setmetatable(L, -2);
    lua_pushcclosure(L, where_push, 2);
    lua_setfield(L, -2, "where_push");
}

/* ---- for library code ---- */

/*** core.error(message)
 * Raises it, blaming the first line outside the library; the path of the running layer comes before it. */
static int raise_error(lua_State *L)
{
    const lbp_state *s = lbp_state_of(L);
    const char *message = luaL_tolstring(L, 1, NULL);
    lbp_error(L, "%s%s%s", s->where, s->where[0] ? ": " : "", message);
}

/*** core.isatty(fd) -> boolean
 * Whether the file descriptor is a terminal. */
static int is_terminal(lua_State *L)
{
    lua_pushboolean(L, isatty((int)luaL_checkinteger(L, 1)));
    return 1;
}

/*** core.columns(fd) -> integer | nil
 * The width of the terminal. */
static int columns(lua_State *L)
{
    struct winsize w;
    if (ioctl((int)luaL_checkinteger(L, 1), TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
        lua_pushinteger(L, w.ws_col);
    else
        lua_pushnil(L);
    return 1;
}

void lbp_open_settings(lua_State *L, lbp_state *s)
{
    static const luaL_Reg functions[] = { { "threads", threads },
                                          { "isa", isa },
                                          { "memory", memory },
                                          { "used", used },
                                          { "reset_peak", reset_peak },
                                          { "clock", now },
                                          { "capturing", capturing },
                                          { "where", where },
                                          { "error", raise_error },
                                          { "library", lbp_library },
                                          { "isatty", is_terminal },
                                          { "columns", columns },
                                          { NULL, NULL } };
    luaL_setfuncs(L, functions, 0);
    add_where(L, s);
    lua_pushstring(L, BP_VERSION);
    lua_setfield(L, -2, "version");
}
