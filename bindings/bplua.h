/* bplua.h - bp inside a host program, in C or C++.
 *
 *     #include <bplua.h>
 *
 *     lua_State *L = luaL_newstate();
 *     luaL_openlibs(L);
 *     if (bplua_open(L, NULL) != LUA_OK) fprintf(stderr, "%s\n", lua_tostring(L, -1));
 *     lua_pop(L, 1);
 *     if (luaL_dofile(L, "train.lua")) ...            -- the script says: local bp = require "bp"
 *
 * Link with libbplua.a and a Lua 5.4. No Lua file is needed on disk: the Lua part of bp is compiled in. The Lua state needs the
 * libraries base, package, string, table and math; scripts may want more. Each state has a context of its own, kept in its registry
 * and closed with the state, so states in different threads do not disturb each other. The library prints nothing, ends nothing, and
 * leaves signals, locale and environment alone. */
#ifndef BPLUA_H
#define BPLUA_H

#include "bp.h"

#ifdef __cplusplus
extern "C" {
#endif

#include <lauxlib.h>
#include <lua.h>

#define BPLUA_VERSION BP_VERSION

/* Marks what a shared object built from the bindings exports: everything else in it is hidden. */
#define BPLUA_EXPORT __attribute__((visibility("default")))

/* Makes `require "bp"` work in this state and leaves the module on the stack, or an error message. Returns LUA_OK or Lua's error code;
 * never raises. config says how the state's context is opened (NULL: all defaults); it is copied, but what it points at must outlive the
 * state. Opening again with NULL gives the same module; with a config it is an error, since the context exists. */
int bplua_open(lua_State *L, const bp_config *config);

/* The same with all defaults, for luaL_requiref and package.preload. Raises on failure. */
int luaopen_bp(lua_State *L);

/* Takes the loading of bytecode away from scripts: load, loadfile, dofile and require accept source text only. Hand-made bytecode can
 * crash any Lua, so a host that runs other people's scripts wants this; the bplua command always does it. Call it after the libraries
 * base and package are open. May raise on lack of memory. */
void bplua_text_only(lua_State *L);

/* The context of this state, opened on first use. Raises when it cannot be opened. It belongs to the state: do not close it. */
bp_ctx *bplua_context(lua_State *L);

/* The tensor at that stack index, borrowed (retain it to keep it longer than the Lua value); raises an argument error on anything else. */
bp_tensor *bplua_totensor(lua_State *L, int index);

/* Pushes a tensor of this state's context. The Lua value takes a reference of its own: the caller's remains the caller's. */
void bplua_pushtensor(lua_State *L, bp_tensor *tensor);

#ifdef __cplusplus
}
#endif
#endif
