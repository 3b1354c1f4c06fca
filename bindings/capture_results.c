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

/* ---- tensors of the caller for the results ---- */

/* Where in the caller's value: the keys on the way down, as stack indices. */
typedef struct path {
    const struct path *above;
    int key;
} path;

typedef struct matcher {
    lua_State *L;
    const bp_meta *const *looks;
    bp_tensor **tensors;
} matcher;

static void add_path(lua_State *L, luaL_Buffer *b, const path *p)
{
    if (!p) {
        luaL_addstring(b, "out");
        return;
    }
    add_path(L, b, p->above);
    if (lua_type(L, p->key) == LUA_TSTRING)
        lua_pushfstring(L, ".%s", lua_tostring(L, p->key));
    else
        lua_pushfstring(L, "[%s]", luaL_tolstring(L, p->key, NULL)), lua_remove(L, -2);
    luaL_addvalue(b);
}

static void mismatch(matcher *m, int idx, const path *p, const bp_meta *look) __attribute__((noreturn));
static void mismatch(matcher *m, int idx, const path *p, const bp_meta *look)
{
    lua_State *L = m->L;
    luaL_Buffer b;
    char shape[200];
    const char *what = lbp_describe(L, idx);
    luaL_buffinit(L, &b);
    add_path(L, &b, p);
    luaL_pushresult(&b);
    const char *where = lua_tostring(L, -1);
    if (!look) lbp_error(L, "into: %s is %s; a table arranged as the results is expected", where, what);
    const char *dtype = bp_dtype_name(look->dtype), *want = bp_shape_text(look->ndim, look->shape, shape);
    const lbp_box *box = lbp_testbox(L, idx);
    const bp_tensor *t = box ? box->tensor : NULL;
    if (box && !t) lbp_error(L, "into: %s was freed; a tensor %s %s is expected", where, dtype, want);
    if (!t || t->m.dtype != look->dtype || !bp_shape_equal(t->m.ndim, t->m.shape, look->ndim, look->shape))
        lbp_error(L, "into: %s is %s; the result there is %s %s, so make it with bp.zeros of that shape and dtype", where, what, dtype,
                  want);
    if (t->var)
        lbp_error(L, "into: %s requires a gradient or has a history, which a replay cannot give it; pass %s:detach()", where, where);
    lbp_error(L, "into: %s is a view with gaps; pass a tensor of its own, made with %s:contiguous(), and copy that into the view", where,
              where);
}

static void need_table(matcher *m, int value, const path *p)
{
    luaL_checkstack(m->L, 16, NULL);
    if (lua_type(m->L, value) != LUA_TTABLE) mismatch(m, value, p, NULL);
}

static void match(matcher *m, int idx, int value, const path *p)
{
    lua_State *L = m->L;
    const int number = idx ? marked(L, idx) : 0;
    if (number >= 0) {
        const bp_meta *look = m->looks[number];
        const lbp_box *box = lbp_testbox(L, value);
        bp_tensor *t = box ? box->tensor : NULL;
        if (!t || t->var || !bp_tensor_fits(t, look)) mismatch(m, value, p, look);
        m->tensors[number] = t;
    } else if (is_plain_table(L, idx)) {
        need_table(m, value, p);
        lua_pushnil(L);
        while (lua_next(L, idx)) {
            lua_pushvalue(L, -2);
            lua_rawget(L, value);
            const int got = lua_gettop(L);
            match(m, got - 1, got, &(path){ p, got - 2 });
            lua_pop(L, 2);
        }
    }
}

void lbp_match_arranged(lua_State *L, int arrangement, int value, const bp_meta *const *looks, bp_tensor **tensors)
{
    matcher m = { L, looks, tensors };
    if (!arrangement) {
        match(&m, 0, value, NULL);
        return;
    }
    lua_getfield(L, arrangement, "n");
    const int n = (int)lua_tointeger(L, -1), key = lua_gettop(L);
    if (n != 1) need_table(&m, value, NULL);
    for (int i = 1; i <= n; i++) {
        lua_pushinteger(L, i);
        lua_replace(L, key);
        lua_rawgeti(L, arrangement, i);
        if (n != 1) lua_rawgeti(L, value, i);
        match(&m, key + 1, n == 1 ? value : key + 2, n == 1 ? NULL : &(path){ NULL, key });
        lua_settop(L, key);
    }
    lua_pop(L, 1);
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
