/* embedded.h - the Lua part of bp, compiled in. embed.lua writes the table; embedded.c finds modules in it. */
#ifndef BPLUA_EMBEDDED_H
#define BPLUA_EMBEDDED_H

#include "bplua.h"
#include <stdbool.h>
#include <stddef.h>

/* One Lua module: its name for require, its file's path below lua/, and the bytes of the file. */
typedef struct bplua_module {
    const char *name, *path;
    const unsigned char *data;
    size_t size;
} bplua_module;

/* Sorted by name, as strcmp orders. */
extern const bplua_module bplua_modules[];
extern const size_t bplua_module_count;

/* The opener of the C part, in core.c; the one name that bp/core.so exports. */
BPLUA_EXPORT int luaopen_bp_core(lua_State *L);

/* Where core.c looks for the configuration to open a state's context with: a full userdata in the registry, to be handed to bp_open as
 * it is. Absent: defaults. */
#define BPLUA_CONFIG_KEY "bp.config"

/* Adds a searcher for the compiled-in modules to package.searchers and the C part to package.preload. before_files: the compiled-in
 * modules win over files on package.path; else they are what is left when no file is found. Does nothing the second time. */
void bplua_install_searcher(lua_State *L, bool before_files);

#endif
