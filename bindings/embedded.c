/* embedded.c - opens bp in a host's Lua state from the modules compiled in. */
#include "embedded.h"

#include "textonly.h"

#include <string.h>

#define SEARCHER_KEY "bp.searcher"

static const bplua_module *find_module(const char *name)
{
    size_t lo = 0, hi = bplua_module_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int order = strcmp(name, bplua_modules[mid].name);
        if (order == 0) return &bplua_modules[mid];
        if (order < 0)
            hi = mid;
        else
            lo = mid + 1;
    }
    return NULL;
}

/* Pushes the module's chunk and where it came from. */
static void load_module(lua_State *L, const bplua_module *m)
{
    const char *where = lua_pushfstring(L, "@[bplua]/%s", m->path);
    if (luaL_loadbufferx(L, (const char *)m->data, m->size, where, "t") != LUA_OK) lua_error(L);
    lua_insert(L, -2);
}

static int search(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    const bplua_module *m = find_module(name);
    if (!m) {
        lua_pushfstring(L, "no module '%s' compiled in", name);
        return 1;
    }
    load_module(L, m);
    return 2;
}

void bplua_install_searcher(lua_State *L, bool before_files)
{
    if (lua_getfield(L, LUA_REGISTRYINDEX, SEARCHER_KEY) != LUA_TNIL) {
        lua_pop(L, 1);
        return;
    }
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushcfunction(L, luaopen_bp_core);
    lua_setfield(L, -2, "bp.core");

    /* searchers[1] looks into package.preload, which stays first. */
    lua_pushcfunction(L, search);
    bplua__insert_searcher(L, before_files ? 2 : LUA_MAXINTEGER);
    lua_pushboolean(L, 1);
    lua_setfield(L, LUA_REGISTRYINDEX, SEARCHER_KEY);
    lua_pop(L, 2);
}

/* Loads the module without `require`, so that this function may itself stand in package.preload. */
int luaopen_bp(lua_State *L)
{
    luaL_checkstack(L, 8, NULL);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
    if (lua_getfield(L, -1, "bp") == LUA_TTABLE) return 1;
    const bplua_module *m = find_module("bp");
    if (!m) return luaL_error(L, "bp: this library was built without its Lua part");
    bplua_install_searcher(L, true);
    load_module(L, m);
    lua_pushliteral(L, "bp");
    lua_insert(L, -2);
    lua_call(L, 2, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -4, "bp");
    return 1;
}

/* Argument: light userdata, the configuration or NULL. */
static int open_configured(lua_State *L)
{
    const bp_config *config = (const bp_config *)lua_touserdata(L, 1);
    if (config) {
        luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_LOADED_TABLE);
        if (lua_getfield(L, -1, "bp.core") != LUA_TNIL)
            return luaL_error(L, "bplua_open: bp is already open in this state; pass the configuration the first time");
        /* struct_size bytes are the caller's; bp_open judges them. */
        memcpy(lua_newuserdatauv(L, config->struct_size, 0), config, config->struct_size);
        lua_setfield(L, LUA_REGISTRYINDEX, BPLUA_CONFIG_KEY);
    }
    return luaopen_bp(L);
}

int bplua_open(lua_State *L, const bp_config *config)
{
    lua_pushcfunction(L, open_configured);
    lua_pushlightuserdata(L, (void *)config);
    return lua_pcall(L, 1, 1, 0);
}
