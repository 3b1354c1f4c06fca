/* capture_arguments.c - what a captured function is given while it is recorded.
 *
 * Each tensor goes under storage of another name: so the function's own use of the same tensor (an upvalue), or of another argument that
 * lies in the same memory, is not taken for the argument, while all of them still write to that one memory. Plain tables are copied to
 * hold those instead. */
#include "capture.h"

#include <stdlib.h>

typedef struct copier {
    lua_State *L;
    lbp_state *s;
} copier;

static void disguise(copier *c, int idx)
{
    lua_State *L = c->L;
    if (lbp_totensor(L, idx)->var) return; /* it will be refused */
    lbp_box *box = lbp_newbox(L, c->s);
    bp_tensor *other = NULL;
    lbp_check(L, bp_tensor_disguise(lbp_totensor(L, idx), &other));
    lbp_fill(box, other);
    lua_replace(L, idx);
}

static void copy_value(copier *c, int idx, int depth);

/* The value of the key on top of the stack, in the table at idx. Takes the key off. */
static void copy_field(copier *c, int idx, int depth)
{
    lua_State *L = c->L;
    lua_pushvalue(L, -1);
    lua_rawget(L, idx);
    copy_value(c, lua_gettop(L), depth);
    lua_rawset(L, idx);
}

/* In the order of the key: the list, then the fields by name. */
static void copy_table(copier *c, int idx, int depth)
{
    lua_State *L = c->L;
    const char *names[LBP_MAX_FIELDS];
    int n = 0, copy = lua_gettop(L) + 1;
    const lua_Integer length = (lua_Integer)lua_rawlen(L, idx);
    lua_newtable(L);
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        if (lua_type(L, -2) == LUA_TSTRING && n < LBP_MAX_FIELDS) names[n++] = lua_tostring(L, -2);
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, copy);
    }
    for (lua_Integer i = 1; i <= length; i++) {
        lua_pushinteger(L, i);
        copy_field(c, copy, depth + 1);
    }
    qsort(names, (size_t)n, sizeof *names, lbp_by_text);
    for (int i = 0; i < n; i++) {
        lua_pushstring(L, names[i]);
        copy_field(c, copy, depth + 1);
    }
    lua_replace(L, idx);
}

/* Puts what stands in for the value at idx in its place. */
static void copy_value(copier *c, int idx, int depth)
{
    lua_State *L = c->L;
    luaL_checkstack(L, 16, "too many arguments");
    if (lbp_testbox(L, idx))
        disguise(c, idx);
    else if (lua_type(L, idx) == LUA_TTABLE && depth < LBP_DEEPEST) {
        if (lua_getmetatable(L, idx))
            lua_pop(L, 1);
        else
            copy_table(c, idx, depth);
    }
}

void lbp_disguise_arguments(lua_State *L, lbp_state *s, int first, int last)
{
    copier c = { L, s };
    for (int i = first; i <= last; i++) copy_value(&c, i, 0);
}
