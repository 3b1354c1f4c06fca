/* scope.c - regions: scope frees the tensors made in it, pause makes lasting ones, and the calling of a function under a guard.
 *
 * Boxes stand in the state's list newest first, numbered by birth, so what a scope made is the head of that list down to the number at
 * which it began. What the function returns is spared this once: an enclosing scope may still free it. */
#include "lbp.h"

void lbp_check_callable(lua_State *L, int idx, const char *who)
{
    if (lua_type(L, idx) == LUA_TFUNCTION) return;
    if (luaL_getmetafield(L, idx, "__call") == LUA_TNIL) lbp_typeerror(L, idx, who, "a function");
    lua_pop(L, 1);
}

int lbp_call_guarded(lua_State *L, int n)
{
    int base = lua_gettop(L);
    luaL_checkstack(L, n + 8, "too many arguments");
    for (int i = 1; i <= n; i++) lua_pushvalue(L, i);
    lua_call(L, n - 1, LUA_MULTRET);
    return lua_gettop(L) - base;
}

/* ---- scope ---- */

static void free_since(lbp_guard *g)
{
    lbp_owned *head = &g->state->boxes;
    for (lbp_owned *o = head->next, *next; o != head; o = next) {
        next = o->next;
        lbp_box *box = (lbp_box *)o;
        if (box->born <= g->as.number) break;
        if (box->spared)
            box->spared = false;
        else if (!box->persistent)
            lbp_empty(box);
    }
}

/* Spares every tensor in the value at idx, through tables; `seen` is the stack index of the set of tables visited, 0: none yet. */
static void spare(lua_State *L, int idx, int seen, int depth)
{
    enum { DEEPEST = 100 };
    lbp_box *box = lbp_testbox(L, idx);
    if (box) box->spared = true;
    if (lua_type(L, idx) != LUA_TTABLE || depth > DEEPEST) return;
    luaL_checkstack(L, 8, NULL);
    lua_pushvalue(L, idx);
    if (lua_rawget(L, seen) != LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    lua_pop(L, 1);
    lua_pushvalue(L, idx);
    lua_pushboolean(L, 1);
    lua_rawset(L, seen);
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        spare(L, lua_gettop(L), seen, depth + 1);
        lua_pop(L, 1);
    }
}

/*** bp.scope(fn, ...) -> fn's results
 * Calls fn(...) and then frees every tensor that was made in it and is not among its results, also when an error passes. Results are looked
 * for in tables, too. Scopes nest: what an inner one returns belongs to the outer one. fn cannot yield. */
static int scope(lua_State *L)
{
    lbp_check_callable(L, 1, "scope");
    lbp_state *s = lbp_state_of(L);
    int n = lua_gettop(L);
    lbp_guard *g = lbp_guarded(L, s, free_since);
    g->as.number = s->born;
    int results = lbp_call_guarded(L, n), first = lua_gettop(L) - results + 1;
    lua_newtable(L);
    for (int i = 0; i < results; i++) spare(L, first + i, first + results, 0);
    lua_pop(L, 1);
    return results;
}

/*** bp.keep(t, ...) -> t, ...
 * Makes tensors survive every scope around; they live as long as something refers to them. */
static int keep(lua_State *L)
{
    int n = lua_gettop(L);
    for (int i = 1; i <= n; i++) {
        lbp_box *box = lbp_testbox(L, i);
        if (!box) lbp_typeerror(L, i, "keep", "a tensor");
        box->persistent = true;
    }
    return n;
}

/* ---- pause ---- */

static void resume(lbp_guard *g)
{
    g->state->persist--;
    bp_pause_capture(g->state->ctx, g->as.flag);
}

/*** core.pause(fn, ...) -> fn's results
 * Calls fn(...) so that the tensors made in it survive scopes, and count as older than an open capture: for parameters built at first use.
 */
static int pause_for(lua_State *L)
{
    lbp_check_callable(L, 1, "pause");
    lbp_state *s = lbp_enter(L);
    int n = lua_gettop(L);
    lbp_guard *g = lbp_guarded(L, s, resume);
    g->as.flag = bp_pause_capture(s->ctx, true);
    s->persist++;
    return lbp_call_guarded(L, n);
}

void lbp_open_scope(lua_State *L, lbp_state *s)
{
    static const luaL_Reg functions[] = { { "scope", scope }, { "keep", keep }, { "pause", pause_for }, { NULL, NULL } };
    (void)s;
    luaL_setfuncs(L, functions, 0);
}
