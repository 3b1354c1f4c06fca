/* core.c - opens bp.core: one context per Lua state, kept in its registry, and the table of functions.
 *
 * The opener may run again in one state (test runners reset package.loaded): it then builds a new table of functions over the same context.
 * The context closes in the finalizer of the state's userdata. Lua promises no order among finalizers once objects are resurrected or made by other
 * finalizers, so that finalizer first empties every box and resource still alive; they find themselves empty when their own turn comes. */
#include "lbp.h"

#include "../core/base/memory.h"
#include "embedded.h"

#include <string.h>

static const char state_key = 0;

/* ---- lists of owned things ---- */

static void list_init(lbp_owned *head) { head->prev = head->next = head; }

static void list_add(lbp_owned *head, lbp_owned *o)
{
    o->next = head->next;
    o->prev = head;
    head->next->prev = o;
    head->next = o;
}

void lbp_own(lbp_state *s, lbp_owned *o) { list_add(&s->others, o); }

void lbp_disown(lbp_owned *o)
{
    if (!o->next) return;
    o->prev->next = o->next;
    o->next->prev = o->prev;
    o->prev = o->next = NULL;
}

static void release_all(lbp_owned *head)
{
    while (head->next != head) {
        lbp_owned *o = head->next;
        lbp_disown(o);
        o->release(o);
    }
}

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
    release_all(&s->others);
    release_all(&s->boxes);
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
    list_init(&s->boxes);
    list_init(&s->others);
    if (luaL_newmetatable(L, "bp.State")) {
        lua_pushcfunction(L, close_state);
        lua_setfield(L, -2, "__gc");
    }
    lua_setmetatable(L, -2);
    lua_rawgeti(L, LUA_REGISTRYINDEX, LUA_RIDX_MAINTHREAD);
    s->main = lua_tothread(L, -1);
    lua_pop(L, 1);
    bp_status status = bp_open(&config, &s->ctx);
    if (status == BP_EINVAL) luaL_error(L, "bp: the context cannot be opened: unknown instruction set '%s'", config.isa ? config.isa : "in BP_ISA");
    if (status != BP_OK) luaL_error(L, "bp: the context cannot be opened: %s", bp_status_name(status));
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

/* ---- regions ---- */

static void end_guard(lbp_owned *o)
{
    lbp_unguard((lbp_guard *)o);
}

static int close_guard(lua_State *L)
{
    lbp_unguard((lbp_guard *)lua_touserdata(L, 1));
    return 0;
}

void lbp_unguard(lbp_guard *g)
{
    void (*undo)(lbp_guard *) = g->undo;
    g->undo = NULL;
    lbp_disown(&g->link);
    if (undo) undo(g);
}

lbp_guard *lbp_guarded(lua_State *L, lbp_state *s, void (*undo)(lbp_guard *g))
{
    luaL_checkstack(L, 6, NULL);
    lbp_guard *g = (lbp_guard *)lua_newuserdatauv(L, sizeof *g, 0);
    memset(g, 0, sizeof *g);
    g->link.release = end_guard;
    g->state = s;
    if (luaL_newmetatable(L, "bp.Guard")) {
        lua_pushcfunction(L, close_guard);
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, "__gc");
        lua_setfield(L, -2, "__close");
    }
    lua_setmetatable(L, -2);
    lua_toclose(L, -1);
    lbp_own(s, &g->link);
    g->undo = undo;
    return g;
}

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
