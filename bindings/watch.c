/* watch.c - where a NaN or an infinity is born, for Lua. */
#include "lbp.h"

#include "../core/plan/watch.h"

#include <math.h>

static void close_watch(lbp_guard *g)
{
    if (g->as.pointer) bp_watch_close((bp_watch *)g->as.pointer);
}

static void set_text(lua_State *L, const char *name, const char *text)
{
    lua_pushstring(L, text);
    lua_setfield(L, -2, name);
}

static void set_number(lua_State *L, const char *name, double v)
{
    lua_pushnumber(L, v);
    lua_setfield(L, -2, name);
}

static void set_whole(lua_State *L, const char *name, lua_Integer v)
{
    lua_pushinteger(L, v);
    lua_setfield(L, -2, name);
}

static void push_watched(lua_State *L, const bp_watched *w)
{
    lua_createtable(L, 0, 8);
    set_text(L, "name", w->name);
    set_text(L, "dtype", bp_dtype_name(w->meta.dtype));
    lua_createtable(L, w->meta.ndim, 0);
    for (int i = 0; i < w->meta.ndim; i++) {
        lua_pushinteger(L, w->meta.shape[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "shape");
    if (w->min <= w->max) {
        set_number(L, "min", w->min);
        set_number(L, "max", w->max);
    }
    set_whole(L, "nans", w->nans);
    set_whole(L, "infinities", w->infinities);
    if (w->first >= 0) set_whole(L, "first", w->first + 1);
}

static void push_birth(lua_State *L, const bp_birth *b)
{
    lua_createtable(L, 0, 5);
    set_text(L, "op", b->op->name);
    set_text(L, "where", b->where);
    if (b->gradient_of) set_text(L, "gradient_of", b->gradient_of->name);
    push_watched(L, &b->out);
    lua_setfield(L, -2, "result");
    lua_createtable(L, b->n_in, 0);
    for (int i = 0; i < b->n_in; i++) {
        push_watched(L, &b->in[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "inputs");
}

/*** core.watch(fn, ...) -> births
 * Calls fn(...) eagerly, and lists the ops whose results were not finite though all that they read was: {op =, where = layer's path,
 * gradient_of = the op whose gradient it was part of, result =, inputs =}, results and inputs as {name =, dtype =, shape =, min =, max =,
 * nans =, infinities =, first =}. At most eight. */
static int watch(lua_State *L)
{
    lbp_check_callable(L, 1, "watch");
    lbp_state *s = lbp_enter(L);
    int n = lua_gettop(L);
    bp_watch *w = (bp_watch *)lua_newuserdatauv(L, sizeof *w, 0);
    lua_insert(L, 1);
    lbp_guard *g = lbp_guarded(L, s, close_watch);
    int guard = lua_gettop(L);
    bp_watch_open(s->ctx, w);
    g->as.pointer = w;
    luaL_checkstack(L, n + 8, "too many arguments");
    for (int i = 2; i <= n + 1; i++) lua_pushvalue(L, i);
    lua_call(L, n - 1, 0);
    lua_settop(L, guard);
    bp_watch_close(w);
    g->as.pointer = NULL;
    lua_createtable(L, w->n, 0);
    for (int i = 0; i < w->n; i++) {
        push_birth(L, &w->births[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/*** core.look(t) -> {min =, max =, nans =, infinities =, first =, ...}
 * What a tensor holds: least and greatest of its finite elements, how many are not finite, the position of the first of those. */
static int look(lua_State *L)
{
    bp_watched seen;
    if (!lbp_totensor(L, 1)) lbp_typeerror(L, 1, "look", "a tensor");
    lbp_check(L, bp_watch_look(lbp_hold(L, 1), "", &seen));
    push_watched(L, &seen);
    return 1;
}

void lbp_open_watch(lua_State *L, lbp_state *s)
{
    static const luaL_Reg functions[] = { { "watch", watch }, { "look", look }, { NULL, NULL } };
    (void)s;
    luaL_setfuncs(L, functions, 0);
}
