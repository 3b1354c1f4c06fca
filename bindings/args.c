/* args.c - reading arguments and option tables. */
#include "lbp.h"

#include <string.h>

bool lbp_towhole(lua_State *L, int idx, int64_t *v)
{
    int whole;
    if (lua_type(L, idx) != LUA_TNUMBER) return false;
    *v = lua_tointegerx(L, idx, &whole);
    return whole;
}

int64_t lbp_position(lua_State *L, int64_t v, const char *who, const char *what)
{
    if (v == 0) lbp_error(L, "%s: %s 0; positions count from 1, and from the end with -1, -2, ...", who, what);
    return v > 0 ? v - 1 : v;
}

static const char *dtype_at(const void *ud, int i)
{
    (void)ud;
    return bp_dtype_name((bp_dtype)i);
}

int lbp_checkdtype(lua_State *L, int idx, const char *who, int def)
{
    bp_dtype dtype;
    if (lua_isnoneornil(L, idx)) return def;
    if (lua_type(L, idx) != LUA_TSTRING)
        lbp_error(L, "%s: dtype is %s; one of f32, f64, i32, i64, u8, bool is expected", who, lbp_describe(L, idx));
    const char *name = lua_tostring(L, idx);
    if (bp_dtype_find(name, &dtype)) return (int)dtype;
    const char *near = lbp_nearest(name, BP_DTYPE_COUNT, dtype_at, NULL);
    lbp_error(L, "%s: unknown dtype '%s'%s%s%s; one of f32, f64, i32, i64, u8, bool is expected", who, name, near ? " (did you mean '" : "",
              near ? near : "", near ? "'?)" : "");
}

static void check_size(lua_State *L, int idx, const char *who, int64_t *size)
{
    if (!lbp_towhole(L, idx, size)) lbp_error(L, "%s: a size is %s; sizes are whole numbers", who, lbp_describe(L, idx));
    if (*size < 0) lbp_error(L, "%s: a size is %I; sizes are 0 or more", who, (lua_Integer)*size);
}

int lbp_checkshape(lua_State *L, int idx, const char *who, int64_t *shape)
{
    if (lua_type(L, idx) == LUA_TNUMBER) {
        check_size(L, idx, who, shape);
        return 1;
    }
    if (lua_type(L, idx) != LUA_TTABLE)
        lbp_error(L, "%s: the shape is %s; a list of sizes such as {2, 3} is expected", who, lbp_describe(L, idx));
    lua_Unsigned n = lua_rawlen(L, idx);
    if (n > BP_MAX_DIMS) lbp_error(L, "%s: a shape of %d dimensions; at most %d are possible", who, (int)n, BP_MAX_DIMS);
    for (int i = 0; i < (int)n; i++) {
        lua_rawgeti(L, idx, i + 1);
        check_size(L, -1, who, &shape[i]);
        lua_pop(L, 1);
    }
    return (int)n;
}

/* ---- option tables ---- */

static const char *name_at(const void *ud, int i) { return ((const char *const *)ud)[i]; }

static void unknown_option(lua_State *L, const char *who, const char *const *names) __attribute__((noreturn));
static void unknown_option(lua_State *L, const char *who, const char *const *names)
{
    luaL_Buffer b;
    int n = 0;
    while (names[n]) n++;
    if (lua_type(L, -1) != LUA_TSTRING)
        lbp_error(L, "%s: option table has an entry at %s; options are given by name", who, lbp_describe(L, -1));
    const char *word = lua_tostring(L, -1), *near = lbp_nearest(word, n, name_at, names);
    luaL_buffinit(L, &b);
    for (int i = 0; i < n; i++) {
        if (i) luaL_addstring(&b, ", ");
        luaL_addstring(&b, names[i]);
    }
    luaL_pushresult(&b);
    if (near) lbp_error(L, "%s: unknown option '%s' (did you mean '%s'?); the options are %s", who, word, near, lua_tostring(L, -1));
    lbp_error(L, "%s: unknown option '%s'; the options are %s", who, word, lua_tostring(L, -1));
}

bool lbp_options(lua_State *L, int idx, const char *who, const char *const *names)
{
    if (lua_isnoneornil(L, idx)) return false;
    idx = lua_absindex(L, idx);
    if (lua_type(L, idx) != LUA_TTABLE)
        lbp_error(L, "%s: options are %s; a table such as {%s = ...} is expected", who, lbp_describe(L, idx), names[0]);
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        lua_pop(L, 1);
        bool known = false;
        if (lua_type(L, -1) == LUA_TSTRING)
            for (const char *const *name = names; *name && !known; name++) known = strcmp(lua_tostring(L, -1), *name) == 0;
        if (!known) unknown_option(L, who, names);
    }
    return true;
}

/* Pushes the field; LUA_TNIL for no table as well. */
static int field(lua_State *L, int idx, const char *name)
{
    if (lua_type(L, idx) != LUA_TTABLE) {
        lua_pushnil(L);
        return LUA_TNIL;
    }
    lua_pushstring(L, name);
    return lua_rawget(L, lua_absindex(L, idx - (idx < 0)));
}

static void wrong_kind(lua_State *L, const char *who, const char *name, const char *expected) __attribute__((noreturn));
static void wrong_kind(lua_State *L, const char *who, const char *name, const char *expected)
{
    lbp_error(L, "%s: option '%s' is %s; %s is expected", who, name, lbp_describe(L, -1), expected);
}

int64_t lbp_option_whole(lua_State *L, int idx, const char *who, const char *name, int64_t def, int64_t min, int64_t max)
{
    int64_t v = def;
    if (field(L, idx, name) != LUA_TNIL && !lbp_towhole(L, -1, &v)) wrong_kind(L, who, name, "a whole number");
    if (v != def && (v < min || v > max))
        lbp_error(L, "%s: option '%s' is %I; %I to %I is expected", who, name, (lua_Integer)v, (lua_Integer)min, (lua_Integer)max);
    lua_pop(L, 1);
    return v;
}

double lbp_option_number(lua_State *L, int idx, const char *who, const char *name, double def, double min, double max)
{
    if (field(L, idx, name) == LUA_TNIL) {
        lua_pop(L, 1);
        return def;
    }
    if (lua_type(L, -1) != LUA_TNUMBER) wrong_kind(L, who, name, "a number");
    double v = lua_tonumber(L, -1);
    if (min <= max && !(v >= min && v <= max)) lbp_error(L, "%s: option '%s' is %f; %f to %f is expected", who, name, v, min, max);
    lua_pop(L, 1);
    return v;
}

bool lbp_option_boolean(lua_State *L, int idx, const char *who, const char *name, bool def)
{
    bool v = def;
    if (field(L, idx, name) != LUA_TNIL) {
        if (lua_type(L, -1) != LUA_TBOOLEAN) wrong_kind(L, who, name, "true or false");
        v = lua_toboolean(L, -1);
    }
    lua_pop(L, 1);
    return v;
}

const char *lbp_option_string(lua_State *L, int idx, const char *who, const char *name, size_t *n)
{
    const char *v = NULL;
    if (field(L, idx, name) != LUA_TNIL) {
        if (lua_type(L, -1) != LUA_TSTRING) wrong_kind(L, who, name, "a string");
        v = lua_tolstring(L, -1, n);
    }
    lua_pop(L, 1);
    return v;
}

int lbp_option_dtype(lua_State *L, int idx, const char *who, const char *name, int def)
{
    field(L, idx, name);
    int v = lbp_checkdtype(L, -1, who, def);
    lua_pop(L, 1);
    return v;
}

bp_tensor *lbp_option_tensor(lua_State *L, int idx, const char *who, const char *name)
{
    bp_tensor *t = NULL;
    if (field(L, idx, name) != LUA_TNIL && !(t = lbp_totensor(L, -1))) wrong_kind(L, who, name, "a tensor");
    lua_pop(L, 1);
    return t;
}
