/* repl.h - the prompt of the bplua command. */
#ifndef BPLUA_REPL_H
#define BPLUA_REPL_H

#include <lua.h>

/* Reads, runs and prints until the end of input. Empties the stack. banner is the first line shown at a terminal. */
void repl_run(lua_State *L, const char *banner);

#endif
