/* raise.c - errors at the Lua edge: who is blamed, what is said.
 *
 * The line blamed is the first one outside the library's own Lua files, so that a user reads a line of theirs. The library's files are
 * those below the folders that called core.library(), and the ones compiled in. */
#include "lbp.h"

#include <stdarg.h>
#include <string.h>

static const char library_key = 0; /* registry: set of "@folder/" prefixes */
#define COMPILED_IN "@[bplua]/"

/*** core.library()
 * Says that the calling chunk's folder holds the library: errors blame the first line outside of it. */
int lbp_library(lua_State *L)
{
    lua_Debug ar;
    if (!lua_getstack(L, 1, &ar) || !lua_getinfo(L, "S", &ar)) return 0;
    const char *slash = strrchr(ar.source, '/');
    if (ar.source[0] != '@' || !slash) return 0;
    if (lua_rawgetp(L, LUA_REGISTRYINDEX, &library_key) != LUA_TTABLE) {
        lua_newtable(L);
        lua_pushvalue(L, -1);
        lua_rawsetp(L, LUA_REGISTRYINDEX, &library_key);
    }
    lua_pushlstring(L, ar.source, (size_t)(slash - ar.source) + 1);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    return 0;
}

static bool starts_with(const char *s, const char *prefix) { return strncmp(s, prefix, strlen(prefix)) == 0; }

static bool is_library(lua_State *L, const char *source)
{
    bool found = starts_with(source, COMPILED_IN);
    if (found || lua_rawgetp(L, LUA_REGISTRYINDEX, &library_key) != LUA_TTABLE) {
        if (!found) lua_pop(L, 1);
        return found;
    }
    lua_pushnil(L);
    while (!found && lua_next(L, -2)) {
        found = starts_with(source, lua_tostring(L, -2));
        lua_pop(L, 1);
        if (found) lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return found;
}

void lbp_where(lua_State *L)
{
    lua_Debug ar;
    int first = 0;
    luaL_checkstack(L, 6, NULL);
    for (int level = 1; lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        if (ar.currentline <= 0) continue;
        if (!first) first = level;
        if (!is_library(L, ar.source)) {
            lua_pushfstring(L, "%s:%d: ", ar.short_src, ar.currentline);
            return;
        }
    }
    luaL_where(L, first);
}

/* The message is on top. */
static int blame(lua_State *L) __attribute__((noreturn));
static int blame(lua_State *L)
{
    lbp_where(L);
    lua_insert(L, -2);
    lua_concat(L, 2);
    lua_error(L);
    __builtin_unreachable();
}

int lbp_error(lua_State *L, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    lua_pushvfstring(L, format, ap);
    va_end(ap);
    blame(L);
}

int lbp_raise(lua_State *L, bp_status status)
{
    (void)status;
    lua_pushstring(L, bp_message(lbp_context(L)));
    blame(L);
}

int lbp_result(lua_State *L, bp_status status)
{
    switch (status) {
    case BP_OK: return 0;
    case BP_EIO:
    case BP_EFORMAT:
    case BP_ELIMIT:
        lua_pushnil(L);
        lua_pushstring(L, bp_message(lbp_context(L)));
        lua_pushstring(L, bp_status_name(status));
        return 3;
    default: return lbp_raise(L, status);
    }
}

const char *lbp_describe(lua_State *L, int idx)
{
    idx = lua_absindex(L, idx);
    lbp_box *box = lbp_testbox(L, idx);
    char shape[200];
    size_t n;
    if (box && box->tensor) {
        const bp_tensor *t = box->tensor;
        return lua_pushfstring(L, "a tensor %s %s", bp_dtype_name(t->m.dtype), bp_shape_text(t->m.ndim, t->m.shape, shape));
    }
    if (box) return lua_pushliteral(L, "a freed tensor");
    switch (lua_type(L, idx)) {
    case LUA_TNONE: return lua_pushliteral(L, "nothing");
    case LUA_TNIL: return lua_pushliteral(L, "nil");
    case LUA_TNUMBER:
        if (lua_isinteger(L, idx)) return lua_pushfstring(L, "%I", lua_tointeger(L, idx));
        return lua_pushfstring(L, "%f", lua_tonumber(L, idx));
    case LUA_TBOOLEAN: return lua_pushstring(L, lua_toboolean(L, idx) ? "true" : "false");
    case LUA_TSTRING: {
        const char *s = lua_tolstring(L, idx, &n);
        return n <= 40 ? lua_pushfstring(L, "'%s'", s) : lua_pushfstring(L, "a string of %d bytes", (int)n);
    }
    default: {
        const char *name = luaL_typename(L, idx);
        if (luaL_getmetafield(L, idx, "__name") == LUA_TSTRING) name = lua_tostring(L, -1);
        return lua_pushfstring(L, "a %s", name);
    }
    }
}

/* Pushes the name that the function on top has in the table below it, or nil. */
static void push_name_in_table(lua_State *L)
{
    lua_pushnil(L);
    while (lua_next(L, -3)) {
        bool same = lua_rawequal(L, -1, -3) && lua_type(L, -2) == LUA_TSTRING;
        lua_pop(L, 1);
        if (same) return;
    }
    lua_pushnil(L);
}

/* The name of the running function: among the methods of tensors (*method), or the functions of bp.core; else as it was called. *colon:
 * with ':'. */
static const char *running_name(lua_State *L, bool *method, bool *colon)
{
    lua_Debug ar;
    *method = *colon = false;
    luaL_checkstack(L, 12, NULL);
    if (!lua_getstack(L, 0, &ar) || !lua_getinfo(L, "nf", &ar)) return "?";
    *colon = strcmp(ar.namewhat, "method") == 0;
    int function = lua_gettop(L);
    lua_rawgeti(L, LUA_REGISTRYINDEX, lbp_state_of(L)->metatable);
    lua_getfield(L, -1, "__methods");
    lua_pushvalue(L, function);
    push_name_in_table(L);
    *method = !lua_isnil(L, -1);
    if (*method) return lua_tostring(L, -1);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, "bp.core") == LUA_TTABLE) {
        lua_pushvalue(L, function);
        push_name_in_table(L);
        if (!lua_isnil(L, -1)) return lua_tostring(L, -1);
    }
    return ar.name ? ar.name : "?";
}

int lbp_typeerror(lua_State *L, int arg, const char *who, const char *expected)
{
    bool method, colon;
    const char *got = lbp_describe(L, arg), *name = running_name(L, &method, &colon);
    if (method && arg == 1)
        lbp_error(L, "%s: called without its tensor, on %s; a method is called with ':', as in t:%s(...)", name, got, name);
    lbp_error(L, "%s: argument %d is %s; %s is expected", who ? who : name, arg - colon, got, expected);
}

/* Number of edits (insert, drop, change, swap of neighbours) that turn a into b; both cut at MAX_WORD. */
enum { MAX_WORD = 40 };
static int distance(const char *a, const char *b)
{
    int rows[3][MAX_WORD + 1];
    int *before = rows[0], *last = rows[1], *now = rows[2];
    int na = (int)strnlen(a, MAX_WORD), nb = (int)strnlen(b, MAX_WORD);
    for (int j = 0; j <= nb; j++) last[j] = j;
    for (int i = 1; i <= na; i++) {
        now[0] = i;
        for (int j = 1; j <= nb; j++) {
            int best = last[j - 1] + (a[i - 1] != b[j - 1]);
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < best) best = before[j - 2] + 1;
            now[j] = best;
        }
        int *spare = before;
        before = last, last = now, now = spare;
    }
    return last[nb];
}

const char *lbp_nearest(const char *word, int n, const char *(*name)(const void *ud, int i), const void *ud)
{
    const char *nearest = NULL;
    int least = (int)strnlen(word, MAX_WORD) / 3 + 2; /* farther than this is no slip of the finger */
    for (int i = 0; i < n; i++) {
        const char *candidate = name(ud, i);
        size_t nw = strlen(word), nc = strlen(candidate);
        int d = distance(word, candidate);
        if (nw >= 3 && nc > nw && strncmp(word, candidate, nw) == 0 && d > 1) d = 1; /* cut short */
        if (d < least) least = d, nearest = candidate;
    }
    return nearest;
}
