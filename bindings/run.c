#include "run.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char *program = NULL;
static lua_State *running = NULL; /* for the signal handler, which can be handed nothing */
static volatile sig_atomic_t interrupted = 0;
static volatile sig_atomic_t held = 0, pending = 0; /* see run_open_training */

static void stop(lua_State *L, lua_Debug *ar)
{
    (void)ar;
    lua_sethook(L, NULL, 0, 0);
    luaL_error(L, "interrupted!");
}

/* lua_sethook is the one function of Lua that a handler may call: the error is raised at the next instruction. */
static void on_interrupt(int signum)
{
    if (held && !pending) {
        pending = signum;
        return;
    }
    if (held) { /* the second one: it takes effect when this handler returns */
        signal(signum, SIG_DFL);
        raise(signum);
        return;
    }
    signal(signum, SIG_DFL);
    interrupted = 1;
    lua_sethook(running, stop, LUA_MASKCALL | LUA_MASKRET | LUA_MASKLINE | LUA_MASKCOUNT, 1);
}

/* ---- the flag that a training looks at ---- */

static struct sigaction old_term;

/* hold(on): whether signals only set the flag; what it was before. */
static int hold(lua_State *L)
{
    bool on = lua_toboolean(L, 1), was = held != 0;
    if (on && !was) {
        struct sigaction act;
        memset(&act, 0, sizeof act);
        act.sa_handler = on_interrupt;
        act.sa_flags = SA_RESTART;
        sigemptyset(&act.sa_mask);
        pending = 0;
        held = 1;
        sigaction(SIGTERM, &act, &old_term);
    } else if (!on && was) {
        sigaction(SIGTERM, &old_term, NULL);
        held = 0;
        int signum = pending;
        pending = 0;
        if (signum) raise(signum); /* it came too late for the training to see it */
    }
    lua_pushboolean(L, was);
    return 1;
}

/* pending(): the number of the signal that came, or nil. */
static int is_pending(lua_State *L)
{
    if (!pending) return 0;
    lua_pushinteger(L, pending);
    return 1;
}

static int forget(lua_State *L)
{
    (void)L;
    pending = 0;
    return 0;
}

/* interactive(): whether somebody sits at the prompt. */
static int is_interactive(lua_State *L)
{
    lua_pushboolean(L, program == NULL);
    return 1;
}

static int open_training(lua_State *L)
{
    static const luaL_Reg functions[] = {
        { "hold", hold }, { "pending", is_pending }, { "forget", forget }, { "interactive", is_interactive }, { NULL, NULL }
    };
    luaL_newlib(L, functions);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_setfield(L, -2, "resume");
    return 1;
}

void run_open_training(lua_State *L, bool resume)
{
    luaL_getsubtable(L, LUA_REGISTRYINDEX, LUA_PRELOAD_TABLE);
    lua_pushboolean(L, resume);
    lua_pushcclosure(L, open_training, 1);
    lua_setfield(L, -2, "bp.cli.training");
    lua_pop(L, 1);
}

/* ---- calls ---- */

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
