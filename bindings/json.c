/* json.c - JSON text and Lua values. null is a light userdata, json_null; whole numbers stay integers. */
#include "lbp.h"

#include "../core/io/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A metatable with this field set to "array" or "object" says what a table is. */
#define KIND_FIELD "__jsontype"

/* ---- reading ------------------------------------------------------------------------------------------------------ */

enum { MAX_VALUES = 1 << 24 };

static void push_json(lua_State *L, const bp_json *v)
{
    size_t n;
    const char *text;
    luaL_checkstack(L, 4, NULL);
    switch (bp_json_kind_of(v)) {
    case BP_JSON_NULL: lua_pushlightuserdata(L, NULL); break;
    case BP_JSON_BOOL: lua_pushboolean(L, bp_json_bool(v)); break;
    case BP_JSON_INT: lua_pushinteger(L, (lua_Integer)bp_json_int(v)); break;
    case BP_JSON_REAL: lua_pushnumber(L, bp_json_real(v)); break;
    case BP_JSON_STRING:
        text = bp_json_string(v, &n);
        lua_pushlstring(L, text, n);
        break;
    case BP_JSON_ARRAY:
        lua_createtable(L, (int)bp_json_count(v), 0);
        for (int64_t i = 0; i < bp_json_count(v); i++) {
            push_json(L, bp_json_at(v, i));
            lua_rawseti(L, -2, i + 1);
        }
        break;
    case BP_JSON_OBJECT:
        lua_createtable(L, 0, (int)bp_json_count(v));
        for (void *i = bp_json_first(v); i; i = bp_json_next(v, i)) {
            lua_pushstring(L, bp_json_key(i));
            push_json(L, bp_json_value(i));
            lua_rawset(L, -3);
        }
        break;
    }
}

static void free_json(lbp_guard *g)
{
    if (g->as.pointer) bp_json_free((bp_json *)g->as.pointer);
}

/* json_decode(text [, where]): the value; `where` begins the message of a failure. */
static int json_decode(lua_State *L)
{
    lbp_state *s = lbp_state_of(L);
    size_t n;
    if (lua_type(L, 1) != LUA_TSTRING) lbp_typeerror(L, 1, "json.decode", "a string");
    const char *text = lua_tolstring(L, 1, &n), *where = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "json";
    lbp_guard *g = lbp_guarded(L, s, free_json);
    bp_json *v;
    bp_status status = bp_json_parse(s->ctx, where, text, n, MAX_VALUES, &v);
    if (status != BP_OK) return lbp_result(L, status);
    g->as.pointer = v;
    push_json(L, v);
    return 1;
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

typedef struct encoder {
    bp_buffer out;
    bool empty_is_array;
    int indent; /* spaces for a level; 0: all on one line */
    int depth;
} encoder;

static void free_encoder(lbp_guard *g)
{
    if (g->as.pointer) bp_buffer_free(&((encoder *)g->as.pointer)->out);
}

static void new_line(encoder *e)
{
    if (!e->indent) return;
    bp_buffer_text(&e->out, "\n");
    for (int i = 0; i < e->depth * e->indent; i++) bp_buffer_text(&e->out, " ");
}

static void put(lua_State *L, encoder *e);

static void put_string(lua_State *L, encoder *e, int idx)
{
    size_t n, bad;
    const char *text = lua_tolstring(L, idx, &n);
    if ((bad = bp_utf8_check(text, n)) < n)
        lbp_error(L, "json.encode: byte %d of a string is not UTF-8; encode such bytes first, for example as numbers", (int)bad + 1);
    bp_json_put_string(&e->out, text, n);
}

static void put_array(lua_State *L, encoder *e, lua_Unsigned n)
{
    bp_buffer_text(&e->out, "[");
    e->depth++;
    for (lua_Unsigned i = 1; i <= n; i++) {
        if (i > 1) bp_buffer_text(&e->out, ",");
        new_line(e);
        lua_rawgeti(L, -1, (lua_Integer)i);
        put(L, e);
        lua_pop(L, 1);
    }
    e->depth--;
    if (n) new_line(e);
    bp_buffer_text(&e->out, "]");
}

/* Members in the order of their names' bytes, so that equal tables give equal text. */
static void put_object(lua_State *L, encoder *e, lua_Integer n)
{
    int table = lua_gettop(L);
    lua_createtable(L, (int)n, 0);
    lua_Integer k = 0;
    for (lua_pushnil(L); lua_next(L, table); lua_pop(L, 1)) {
        lua_pushvalue(L, -2);
        lua_rawseti(L, table + 1, ++k);
    }
    lua_getfield(L, LUA_REGISTRYINDEX, "bp.json.sort");
    lua_pushvalue(L, table + 1);
    lua_call(L, 1, 0);
    bp_buffer_text(&e->out, "{");
    e->depth++;
    for (lua_Integer i = 1; i <= k; i++) {
        if (i > 1) bp_buffer_text(&e->out, ",");
        new_line(e);
        lua_rawgeti(L, table + 1, i);
        put_string(L, e, -1);
        bp_buffer_text(&e->out, e->indent ? ": " : ":");
        lua_rawget(L, table);
        put(L, e);
        lua_pop(L, 1);
    }
    e->depth--;
    if (k) new_line(e);
    bp_buffer_text(&e->out, "}");
    lua_settop(L, table);
}

/* A list 1..n is an array, string keys alone make an object; anything else has no counterpart. */
static void put_table(lua_State *L, encoder *e)
{
    lua_Integer strings = 0, others = 0;
    luaL_checkstack(L, 8, NULL);
    if (e->depth >= BP_JSON_DEPTH)
        lbp_error(L, "json.encode: tables within each other more than %d deep; does one contain itself?", BP_JSON_DEPTH);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (lua_type(L, -2) == LUA_TSTRING)
            strings++;
        else if (lua_isinteger(L, -2))
            others++;
        else
            lbp_error(L, "json.encode: a table has the key %s; names or a list are expected", lbp_describe(L, -2));
    }
    bool array = e->empty_is_array, marked = false;
    if (luaL_getmetafield(L, -1, KIND_FIELD) != LUA_TNIL) {
        const char *kind = lua_tostring(L, -1);
        marked = kind != NULL;
        array = marked && strcmp(kind, "array") == 0;
        lua_pop(L, 1);
    }
    if (strings && (others || (marked && array)))
        lbp_error(L, "json.encode: a table with both a list and names (or names in an array); give the list a name of its own");
    lua_Unsigned n = lua_rawlen(L, -1);
    if ((lua_Integer)n != others)
        lbp_error(L, "json.encode: a list of %I entries has holes: entry %I follows none; fill them with json.null", others,
                  (lua_Integer)n + 1);
    if (others || (array && !strings))
        put_array(L, e, n);
    else
        put_object(L, e, strings);
}

static void put(lua_State *L, encoder *e)
{
    switch (lua_type(L, -1)) {
    case LUA_TBOOLEAN: bp_buffer_text(&e->out, lua_toboolean(L, -1) ? "true" : "false"); break;
    case LUA_TSTRING: put_string(L, e, -1); break;
    case LUA_TTABLE: put_table(L, e); break;
    case LUA_TNUMBER:
        if (lua_isinteger(L, -1))
            bp_json_put_int(&e->out, lua_tointeger(L, -1));
        else if (isfinite(lua_tonumber(L, -1)))
            bp_json_put_real(&e->out, lua_tonumber(L, -1));
        else
            lbp_error(L, "json.encode: the number %s has no JSON; leave it out or write json.null",
                      isnan(lua_tonumber(L, -1)) ? "nan" : "inf");
        break;
    default:
        if (!lua_islightuserdata(L, -1) || lua_touserdata(L, -1))
            lbp_error(
                L,
                "json.encode: found %s; nil stands for nothing, and only tables, strings, numbers, booleans and json.null can be written",
                lbp_describe(L, -1));
        bp_buffer_text(&e->out, "null");
    }
    lbp_check(L, e->out.status);
}

/* json_encode(value [, {empty = "object" or "array", indent = 0}]): text. */
static int json_encode(lua_State *L)
{
    static const char *const names[] = { "empty", "indent", NULL };
    lbp_state *s = lbp_state_of(L);
    luaL_checkany(L, 1);
    encoder *e = (encoder *)lua_newuserdatauv(L, sizeof *e, 0);
    memset(e, 0, sizeof *e);
    e->out = bp_buffer_new(s->ctx);
    if (lbp_options(L, 2, "json.encode", names)) {
        const char *empty = lbp_option_string(L, 2, "json.encode", "empty", NULL);
        if (empty && strcmp(empty, "array") != 0 && strcmp(empty, "object") != 0)
            lbp_error(L, "json.encode: option 'empty' is '%s'; \"object\" or \"array\" is expected", empty);
        e->empty_is_array = empty && strcmp(empty, "array") == 0;
        e->indent = (int)lbp_option_whole(L, 2, "json.encode", "indent", 0, 0, 16);
    }
    lbp_guarded(L, s, free_encoder)->as.pointer = e;
    lua_pushvalue(L, 1);
    put(L, e);
    lua_pushlstring(L, e->out.data, e->out.size);
    return 1;
}

/* sort(list of strings), by bytes whatever the locale: lua's own < asks strcoll. */
static int by_bytes(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }
static int sort_names(lua_State *L)
{
    lua_Integer n = (lua_Integer)lua_rawlen(L, 1);
    const char **names = (const char **)lua_newuserdatauv(L, (size_t)n * sizeof *names, 0);
    lua_createtable(L, 0, 0);
    for (lua_Integer i = 1; i <= n; i++) {
        lua_rawgeti(L, 1, i);
        names[i - 1] = lua_tostring(L, -1);
        if (strlen(names[i - 1]) != lua_rawlen(L, -1)) lbp_error(L, "json.encode: a name holds a zero byte, which JSON readers refuse");
        lua_rawseti(L, 3, i); /* keeps it alive while its place in the list is overwritten */
    }
    qsort(names, (size_t)n, sizeof *names, by_bytes);
    for (lua_Integer i = 1; i <= n; i++) {
        lua_pushstring(L, names[i - 1]);
        lua_rawseti(L, 1, i);
    }
    return 0;
}

void lbp_open_json(lua_State *L, lbp_state *s)
{
    static const luaL_Reg functions[] = { { "json_decode", json_decode }, { "json_encode", json_encode }, { NULL, NULL } };
    (void)s;
    luaL_setfuncs(L, functions, 0);
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "json_null");
    lua_pushcfunction(L, sort_names);
    lua_setfield(L, LUA_REGISTRYINDEX, "bp.json.sort");
}
