/* edit.h - reads the lines of the prompt: with history and completion from libedit at a terminal, plainly otherwise.
 * The terminal belongs to the process, so this is the one part of the command with state outside Lua. */
#ifndef BPLUA_EDIT_H
#define BPLUA_EDIT_H

#include <lua.h>
#include <stdbool.h>

typedef enum edit_result { EDIT_LINE, EDIT_END, EDIT_INTERRUPTED } edit_result;

/* Starts line editing if stdin is a terminal, and reads the history. Returns whether there is somebody to prompt. */
bool edit_open(lua_State *L);

/* Reads one line and pushes it without its newline (EDIT_LINE only). No prompt is shown unless stdin is a terminal.
 * Ctrl-C gives the line up. */
edit_result edit_read(lua_State *L, const char *prompt);

#endif
