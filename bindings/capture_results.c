/* capture_results.c - how a captured function's results are put together again.
 *
 * An arrangement is a list of values, `n` its length, in which each tensor is replaced by a mark: a light userdata that points at its
 * number in `marks`. Tables without a metatable are copied, each time anew; any other value is given back as it is. */
#include "capture.h"

static const char marks[LBP_MAX_TENSORS] = { 0 };

/* The number of the tensor that the value at idx stands for, or -1. */
static int marked(lua_State *L, int idx)
{
    uintptr_t p = lua_islightuserdata(L, idx) ? (uintptr_t)lua_touserdata(L, idx) : 0;
    return p >= (uintptr_t)marks && p < (uintptr_t)(marks + LBP_MAX_TENSORS) ? (int)(p - (uintptr_t)marks) : -1;
}

static bool is_plain_table(lua_State *L, int idx)
{
    if (lua_type(L, idx) != LUA_TTABLE) return false;
    if (!lua_getmetatable(L, idx)) return true;
    lua_pop(L, 1);
    return false;
}

typedef struct arranger {
    lua_State *L;
    lbp_box **boxes;
    int n, alive; /* stack index of the list that keeps the boxes */
} arranger;

static void push_arrangement(arranger *a, int idx, int depth)
{
    lua_State *L = a->L;
    lbp_box *box = lbp_testbox(L, idx);
    luaL_checkstack(L, 8, NULL);
    if (box) {
        if (!box->tensor) lbp_error(L, "capture: the function returns a tensor that was freed");
        if (a->n == LBP_MAX_TENSORS) lbp_error(L, "capture: the function returns more than %d tensors", LBP_MAX_TENSORS);
        a->boxes[a->n] = box;
        lua_pushvalue(L, idx);
        lua_rawseti(L, a->alive, a->n + 1);
        lua_pushlightuserdata(L, (void *)(uintptr_t)&marks[a->n++]);
    } else if (is_plain_table(L, idx)) {
        if (depth == LBP_DEEPEST) lbp_error(L, "capture: the function returns tables nested deeper than %d", LBP_DEEPEST);
        lua_newtable(L);
        int copy = lua_gettop(L);
        lua_pushnil(L);
        while (lua_next(L, idx)) {
            lua_pushvalue(L, copy + 1);
            push_arrangement(a, copy + 2, depth + 1);
            lua_rawset(L, copy);
            lua_pop(L, 1);
        }
    } else
        lua_pushvalue(L, idx);
}

int lbp_push_arrangement(lua_State *L, int first, int n, lbp_box **boxes)
{
    lua_newtable(L);
    arranger a = { L, boxes, 0, lua_gettop(L) };
    lua_createtable(L, n, 1);
    for (int i = 0; i < n; i++) {
        push_arrangement(&a, first + i, 0);
        lua_rawseti(L, a.alive + 1, i + 1);
    }
    lua_pushinteger(L, n);
    lua_setfield(L, a.alive + 1, "n");
    return a.n;
}

static void push_arranged(lua_State *L, int idx, int first)
{
    luaL_checkstack(L, 8, NULL);
    int number = marked(L, idx);
    if (number >= 0)
        lua_pushvalue(L, first + number);
    else if (is_plain_table(L, idx)) {
        lua_newtable(L);
        int copy = lua_gettop(L);
        lua_pushnil(L);
        while (lua_next(L, idx)) {
            lua_pushvalue(L, copy + 1);
            push_arranged(L, copy + 2, first);
            lua_rawset(L, copy);
            lua_pop(L, 1);
        }
    } else
        lua_pushvalue(L, idx);
}

int lbp_push_arranged(lua_State *L, int idx, int first)
{
    lua_getfield(L, idx, "n");
    int n = (int)lua_tointeger(L, -1);
    luaL_checkstack(L, n + 8, "too many results");
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, idx, i);
        push_arranged(L, lua_gettop(L), first);
        lua_remove(L, -2);
    }
    return n;
}
