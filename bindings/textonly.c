/* textonly.c - load, loadfile, dofile and require that refuse bytecode. They behave like Lua's own otherwise (manual, 6.1 and 6.3). */
#include "textonly.h"

#include "bplua.h"

#include <string.h>

int bplua__load_file(lua_State *L, const char *name, const char *mode)
{
    int status = luaL_loadfilex(L, name, mode);
    if (status == LUA_ERRSYNTAX && strncmp(lua_tostring(L, -1), "attempt to load", 15) == 0) {
        /* Lua names no file here. */
        lua_pushfstring(L, "%s: %s", name ? name : "stdin", lua_tostring(L, -1));
        lua_remove(L, -2);
    }
    return status;
}

/* A mode of the caller's, without its "b". The empty mode refuses everything, with Lua's message. */
static const char *text_mode(lua_State *L, int index) { return strchr(luaL_optstring(L, index, "t"), 't') ? "t" : ""; }

/* The results of load and loadfile: the function, with the value at index env as its environment if env is not 0; or nil and a message. */
static int loaded(lua_State *L, int status, int env)
{
    if (status != LUA_OK) {
        luaL_pushfail(L);
        lua_insert(L, -2);
        return 2;
    }
    if (env) {
        lua_pushvalue(L, env);
        if (!lua_setupvalue(L, -2, 1)) lua_pop(L, 1);
    }
    return 1;
}

/* The piece that lua_load reads stays at this index, out of the collector's reach, until the next one replaces it. */
#define PIECE 5

static const char *next_piece(lua_State *L, void *ud, size_t *size)
{
    (void)ud;
    luaL_checkstack(L, 2, "too many nested functions");
    lua_pushvalue(L, 1);
    lua_call(L, 0, 1);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        *size = 0;
        return NULL;
    }
    if (!lua_isstring(L, -1)) luaL_error(L, "reader function must return a string");
    lua_replace(L, PIECE);
    return lua_tolstring(L, PIECE, size);
}

/* load(chunk, name, mode, env) */
static int text_load(lua_State *L)
{
    size_t size;
    const char *text = lua_tolstring(L, 1, &size), *mode = text_mode(L, 3);
    int env = lua_isnone(L, 4) ? 0 : 4;
    if (text) return loaded(L, luaL_loadbufferx(L, text, size, luaL_optstring(L, 2, text), mode), env);
    const char *name = luaL_optstring(L, 2, "=(load)");
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_settop(L, PIECE);
    return loaded(L, lua_load(L, next_piece, NULL, name, mode), env);
}

/* loadfile(name, mode, env) */
static int text_loadfile(lua_State *L)
{
    const char *name = luaL_optstring(L, 1, NULL), *mode = text_mode(L, 2);
    int env = lua_isnone(L, 3) ? 0 : 3;
    return loaded(L, bplua__load_file(L, name, mode), env);
}

static int results_of_file(lua_State *L, int status, lua_KContext context)
{
    (void)status, (void)context;
    return lua_gettop(L) - 1;
}

/* dofile(name) */
static int text_dofile(lua_State *L)
{
    const char *name = luaL_optstring(L, 1, NULL);
    lua_settop(L, 1);
    if (bplua__load_file(L, name, "t") != LUA_OK) return lua_error(L);
    lua_callk(L, 0, LUA_MULTRET, 0, results_of_file);
    return results_of_file(L, 0, 0);
}

/* Where `name` lies on a path: (name, path) on top of the stack give a file name, or nil and where it was sought. */
static bool find_file(lua_State *L)
{
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_insert(L, -3);
    lua_call(L, 2, 2);
    return !lua_isnil(L, -2);
}

/* What a searcher returns for the file named at index 2. */
static int load_found(lua_State *L)
{
    lua_settop(L, 2);
    const char *file = lua_tostring(L, 2);
    if (bplua__load_file(L, file, "t") != LUA_OK)
        return luaL_error(L, "error loading module '%s' from file '%s':\n\t%s", lua_tostring(L, 1), file, lua_tostring(L, -1));
    lua_insert(L, 2);
    return 2;
}

/* The searcher for Lua files. Upvalues: package.searchpath, package. */
static int search_path(lua_State *L)
{
    luaL_checkstring(L, 1);
    lua_settop(L, 1);
    lua_pushvalue(L, 1);
    if (lua_getfield(L, lua_upvalueindex(2), "path") != LUA_TSTRING) return luaL_error(L, "'package.path' must be a string");
    return find_file(L) ? load_found(L) : 1;
}

/* The searcher for bp's own files. Upvalues: package.searchpath, their path. */
static int search_folder(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    if (strncmp(name, "bp", 2) != 0 || (name[2] != '\0' && name[2] != '.')) return 0;
    lua_settop(L, 1);
    lua_pushvalue(L, 1);
    lua_pushvalue(L, lua_upvalueindex(2));
    return find_file(L) ? load_found(L) : 1;
}

void bplua__insert_searcher(lua_State *L, lua_Integer position)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, "package") != LUA_TTABLE || lua_getfield(L, -1, "searchers") != LUA_TTABLE)
        luaL_error(L, "bp: package.searchers is missing; open the library 'package' first");
    lua_Integer n = luaL_len(L, -1);
    for (lua_Integer i = n; i >= position; i--) {
        lua_geti(L, -1, i);
        lua_seti(L, -2, i + 1);
    }
    lua_pushvalue(L, -4);
    lua_seti(L, -2, position <= n ? position : n + 1);
    lua_pop(L, 4);
}

void bplua__search_folder(lua_State *L, const char *folder)
{
    lua_getglobal(L, "package");
    lua_getfield(L, -1, "searchpath");
    lua_pushfstring(L, "%s/?.lua;%s/?/init.lua", folder, folder);
    lua_pushcclosure(L, search_folder, 2);
    bplua__insert_searcher(L, 2);
    lua_pop(L, 1);
}

void bplua_text_only(lua_State *L)
{
    static const luaL_Reg functions[] = { { "load", text_load }, { "loadfile", text_loadfile }, { "dofile", text_dofile }, { NULL, NULL } };
    luaL_checkstack(L, 6, NULL);
    lua_pushglobaltable(L);
    luaL_setfuncs(L, functions, 0);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, "package") == LUA_TTABLE && lua_getfield(L, -1, "searchers") == LUA_TTABLE) {
        lua_getfield(L, -2, "searchpath");
        lua_pushvalue(L, -3);
        lua_pushcclosure(L, search_path, 2);
        lua_seti(L, -2, 2);
        lua_pop(L, 1);
    }
    lua_pop(L, 3);
}
