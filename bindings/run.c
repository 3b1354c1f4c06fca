#include "run.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char *program = NULL;
static lua_State *running = NULL; /* for the signal handler, which can be handed nothing */
static volatile sig_atomic_t interrupted = 0;

static void stop(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    luaL_error(L, "interrupted!");
}

/* lua_sethook is the one function of Lua that a handler may call: the error is raised at the next instruction. */
static void on_interrupt(int signum)
{
    signal(signum, SIG_DFL);
    interrupted = 1;
    lua_sethook(running, stop, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

static int with_traceback(lua_State *L)
{
    const char *message = lua_tostring(L, 1);
    if (!message) {
        if (luaL_callmeta(L, 1, "__tostring") && lua_type(L, -1) == LUA_TSTRING) return 1;
        message = lua_pushfstring(L, "(error object is a %s value)", luaL_typename(L, 1));
    }
    luaL_traceback(L, L, message, 1);
    return 1;
}

int run_call(lua_State *L, int n_args, int n_results)
{
    int base = lua_gettop(L) - n_args;
    lua_pushcfunction(L, with_traceback);
    lua_insert(L, base);
    running = L;
    interrupted = 0;
    struct sigaction act, old;
    memset(&act, 0, sizeof act);
    act.sa_handler = on_interrupt;
    act.sa_flags = SA_RESTART;
    sigemptyset(&act.sa_mask);
    sigaction(SIGINT, &act, &old);
    int status = lua_pcall(L, n_args, n_results, base);
    sigaction(SIGINT, &old, NULL);
    if (interrupted) /* it may have come too late to be seen */
        lua_sethook(L, NULL, 0, 0);
    lua_remove(L, base);
    interrupted = interrupted && status != LUA_OK;
    return status;
}

bool run_was_interrupted(void) { return interrupted != 0; }

void run_set_name(const char *name) { program = name; }

void run_complain(const char *message)
{
    if (program) fprintf(stderr, "%s: ", program);
    fprintf(stderr, "%s\n", message);
    fflush(stderr);
}

int run_report(lua_State *L, int status)
{
    if (status != LUA_OK) {
        const char *message = lua_tostring(L, -1);
        run_complain(message ? message : "(error message is not a string)");
        lua_pop(L, 1);
    }
    return status;
}
