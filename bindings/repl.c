/* repl.c - the prompt: values of expressions are printed without being asked for, a trailing ';' mutes, `_` holds the last one,
 * ?name shows help, unfinished input goes on in the next line, Ctrl-C returns to the prompt. */
#include "repl.h"

#include "edit.h"
#include "run.h"

#include <lauxlib.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CHUNK_NAME "=stdin"

static const char *prompt(lua_State *L, bool first)
{
    lua_getglobal(L, first ? "_PROMPT" : "_PROMPT2");
    const char *text = luaL_tolstring(L, -1, NULL);
    if (lua_isnil(L, -2)) text = first ? "> " : ">> ";
    lua_remove(L, -2);
    return text; /* its string stays on the stack */
}

static edit_result read_line(lua_State *L, bool first)
{
    edit_result result = edit_read(L, prompt(L, first));
    lua_remove(L, result == EDIT_LINE ? -2 : -1);
    return result;
}

/* Whether the message on top says that the text ended too early. */
static bool is_incomplete(lua_State *L, int status)
{
    static const char mark[] = "<eof>";
    size_t size;
    const char *message = lua_tolstring(L, -1, &size);
    return status == LUA_ERRSYNTAX && message && size >= sizeof mark - 1 && strcmp(message + size - (sizeof mark - 1), mark) == 0;
}

/* Loads the text at index 1, first as an expression, then as statements; *unfinished: one of them could still go on. */
static int load_text(lua_State *L, bool *unfinished)
{
    lua_pushfstring(L, "return %s", lua_tostring(L, 1));
    size_t size;
    const char *text = lua_tolstring(L, -1, &size);
    int status = luaL_loadbufferx(L, text, size, CHUNK_NAME, "t");
    lua_remove(L, -2);
    *unfinished = is_incomplete(L, status);
    if (status == LUA_OK) return status;
    lua_pop(L, 1);
    text = lua_tolstring(L, 1, &size);
    status = luaL_loadbufferx(L, text, size, CHUNK_NAME, "t");
    *unfinished = *unfinished || is_incomplete(L, status);
    return status;
}

/* Reads lines until they make a chunk: leaves the text and the chunk on an empty stack, or the text and a message. */
static edit_result read_chunk(lua_State *L, int *status)
{
    lua_settop(L, 0);
    edit_result result = read_line(L, true);
    while (result == EDIT_LINE && lua_tostring(L, 1)[0] != '?') {
        bool unfinished;
        *status = load_text(L, &unfinished);
        if (*status == LUA_OK || !unfinished) break;
        result = read_line(L, false);
        if (result == EDIT_END) return EDIT_LINE; /* the message says what is missing */
        if (result == EDIT_LINE) {
            lua_remove(L, 2);
            lua_pushliteral(L, "\n");
            lua_insert(L, 2);
            lua_concat(L, 3);
        }
    }
    return result;
}

static bool is_muted(const char *text)
{
    size_t n = strlen(text);
    while (n > 0 && strchr(" \t\r\n", text[n - 1])) n--;
    return n > 0 && text[n - 1] == ';';
}

/* Keeps and shows the values above the text at index 1. */
static void show_results(lua_State *L)
{
    int n = lua_gettop(L) - 1;
    if (n == 0) return;
    lua_pushvalue(L, 2);
    lua_setglobal(L, "_");
    if (is_muted(lua_tostring(L, 1))) return;
    luaL_checkstack(L, LUA_MINSTACK, "too many results to print");
    lua_getglobal(L, "print");
    lua_insert(L, 2);
    if (run_call(L, n, 0) != LUA_OK) run_complain(lua_pushfstring(L, "error calling 'print': %s", lua_tostring(L, -1)));
}

/* help(name): what bp knows of the name. */
static int describe(lua_State *L)
{
    static const char
        about[] = "An expression is printed; a trailing ; mutes it. _ is the last value. TAB completes names, and file names in strings.\n"
                  "Unfinished input goes on in the next line; Ctrl-C gives it up. ?name shows help: ?bp.nn.dense. Ctrl-D leaves.";
    if (lua_tostring(L, 1)[0] == '\0') {
        lua_pushstring(L, about);
        return 1;
    }
    lua_getglobal(L, "require");
    lua_pushliteral(L, "bp");
    lua_call(L, 1, 1);
    if (lua_getfield(L, -1, "help") == LUA_TNIL) {
        lua_pushliteral(L, "no help is compiled in");
        return 1;
    }
    lua_pushvalue(L, 1);
    lua_call(L, 1, 2);
    if (lua_isnil(L, -2)) /* nil, message */
        lua_remove(L, -2);
    else
        lua_pop(L, 1);
    return 1;
}

static void show_help(lua_State *L)
{
    const char *name = lua_tostring(L, 1) + 1;
    name += strspn(name, " \t");
    size_t n = strlen(name);
    while (n > 0 && strchr(" \t()", name[n - 1])) n--;
    lua_pushcfunction(L, describe);
    lua_pushlstring(L, name, n);
    if (run_report(L, run_call(L, 1, 1)) == LUA_OK && lua_isstring(L, -1)) puts(lua_tostring(L, -1));
}

/* Only here is bp a global: at the prompt nobody wants to type the require. */
static int set_bp(lua_State *L)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "bp");
    lua_call(L, 1, 1);
    lua_setglobal(L, "bp");
    return 0;
}

void repl_run(lua_State *L, const char *banner)
{
    bool somebody = edit_open(L);
    if (somebody) puts(banner);
    run_set_name(NULL);
    lua_settop(L, 0);
    lua_pushcfunction(L, set_bp);
    bool loaded = run_report(L, run_call(L, 0, 0)) == LUA_OK;
    if (somebody && loaded) fputs("The global bp is loaded at this prompt (in scripts: local bp = require \"bp\"). ", stdout);
    if (somebody) puts("TAB completes, ?name shows help, Ctrl-D leaves.");
    int status = LUA_OK;
    edit_result result;
    while ((result = read_chunk(L, &status)) != EDIT_END) {
        if (result == EDIT_INTERRUPTED) continue;
        if (lua_tostring(L, 1)[0] == '?')
            show_help(L);
        else if (run_report(L, status == LUA_OK ? run_call(L, 0, LUA_MULTRET) : status) == LUA_OK)
            show_results(L);
        fflush(stdout);
    }
    lua_settop(L, 0);
}
