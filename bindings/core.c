/* core.c - opens bp.core: one context per Lua state, kept in its registry, and the table of functions.
 *
 * The opener may run again in one state (test runners reset package.loaded): it then builds a new table of functions over the same context.
 * The context closes in the finalizer of the state's userdata. Lua promises no order among finalizers once objects are resurrected or made
 * by other finalizers, so that finalizer first empties every box and resource still alive; they find themselves empty when their own turn
 * comes. */
#include "lbp.h"

#include "../core/base/memory.h"
#include "embedded.h"

#include <string.h>

static const char state_key = 0;

/* ---- the context ---- */

/* Called by core when memory runs out: drops what garbage holds. It runs inside an op, so finalizers may free tensors but apply nothing. */
static void reclaim(void *ud)
{
    lbp_state *s = (lbp_state *)ud;
    if (s->reclaiming) return;
    s->reclaiming = true;
    lua_gc(s->main, LUA_GCCOLLECT);
    s->reclaiming = false;
}

/* The host's configuration if it left one, completed with what a Lua state brings: its allocator, positions from 1. */
static void configure(lua_State *L, bp_config *config)
{
    static const bp_config defaults = BP_CONFIG_INIT;
    *config = defaults;
    if (lua_getfield(L, LUA_REGISTRYINDEX, BPLUA_CONFIG_KEY) == LUA_TUSERDATA) {
        size_t n = lua_rawlen(L, -1);
        memcpy(config, lua_touserdata(L, -1), n < sizeof *config ? n : sizeof *config);
        config->struct_size = sizeof *config;
    }
    lua_pop(L, 1);
    if (!config->alloc) config->alloc = lua_getallocf(L, &config->alloc_ud);
    config->index_base = 1;
}

static int close_state(lua_State *L)
{
    lbp_state *s = (lbp_state *)lua_touserdata(L, 1);
    if (!s->ctx) return 0;
    bp_ctx *ctx = s->ctx;
    lbp_release_all(&s->others);
    lbp_release_all(&s->boxes);
    lbp_free_cells(s);
    ctx->reclaim = NULL;
    s->ctx = NULL;
    bp_close(ctx);
    return 0;
}

static lbp_state *open_state(lua_State *L)
{
    bp_config config;
    luaL_checkstack(L, 8, NULL);
    configure(L, &config);
    lbp_state *s = (lbp_state *)lua_newuserdatauv(L, sizeof *s, 0);
    memset(s, 0, sizeof *s);
    lbp_list_init(&s->boxes);
    lbp_list_init(&s->others);
    if (luaL_newmetatable(L, "bp.State")) {
        lua_pushcfunction(L, close_state);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    s->main = lua_tothread(L, -1);
    lua_pop(L, 1);
    bp_status status = bp_open(&config, &s->ctx);
    if (status == BP_EINVAL)
        luaL_error(L, "bp: the context cannot be opened: unknown instruction set '%s'", config.isa ? config.isa : "in BP_ISA");
    if (status != BP_OK)
        luaL_error(L, "bp: the context cannot be opened: %s", status == BP_ENOMEM ? "out of memory" : bp_status_name(status));
    s->ctx->reclaim = reclaim;
    s->ctx->reclaim_ud = s;
    s->ctx->where = s->where;
    lua_rawsetp(L, LUA_REGISTRYINDEX, &state_key);
    return s;
}

lbp_state *lbp_state_of(lua_State *L)
{
    lua_rawgetp(L, LUA_REGISTRYINDEX, &state_key);
    lbp_state *s = (lbp_state *)lua_touserdata(L, -1);
    lua_pop(L, 1);
    if (!s) s = open_state(L);
    if (!s->ctx) luaL_error(L, "bp: used after this Lua state began to close");
    return s;
}

lbp_state *lbp_enter(lua_State *L)
{
    lbp_state *s = lbp_state_of(L);
    if (s->reclaiming) lbp_error(L, "bp: no tensor can be computed in a finalizer that runs because memory ran out");
    return s;
}

bp_ctx *lbp_context(lua_State *L) { return lbp_state_of(L)->ctx; }

/* ---- the module ---- */

int luaopen_bp_core(lua_State *L)
{
    luaL_checkversion(L);
    lbp_state *s = lbp_state_of(L);
    lua_newtable(L);
#define X(part) lbp_open_##part(L, s);
    LBP_PARTS(X)
#undef X
    return 1;
}

bp_ctx *bplua_context(lua_State *L) { return lbp_context(L); }
