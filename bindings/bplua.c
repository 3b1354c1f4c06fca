/* bplua.c - the command: the options of lua 5.4 with the same meaning, subcommands, and bp within reach of every script. */
#include "bplua.h"

#include "embedded.h"
#include "repl.h"
#include "run.h"
#include "textonly.h"

#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A subcommand is a Lua module that returns a function of the words after it. It returns an exit status (nil: 0), or nil and a message.
 * `bplua NAME` means a file of that name if there is one; `bplua --NAME` never does. */
static const struct subcommand {
    const char *name, *module;
} subcommands[] = {
    { "help", "bp.cli.help" },
    { "inspect", "bp.cli.inspect" },
    { "list", "bp.cli.list" },
};

enum { EXIT_INTERRUPTED = 130 }; /* 128 + SIGINT, as shells count */

typedef struct command {
    char **argv;
    int argc;
    int script;                         /* index of the script's name in argv; argc: none */
    bool interactive, version, execute; /* -i, -v, -e */
    bool ignore_environment;            /* -E */
    bool forced;                        /* "--" came before the script */
    bool resume;                        /* --resume */
    const struct subcommand *subcommand;
} command;

static const struct subcommand *find_subcommand(const char *name)
{
    for (size_t i = 0; i < sizeof subcommands / sizeof *subcommands; i++)
        if (strcmp(name, subcommands[i].name) == 0) return &subcommands[i];
    return NULL;
}

/* Reads the options. Returns NULL, or the word that cannot be understood. */
static const char *parse(command *c)
{
    int i = 1;
    for (; i < c->argc && c->argv[i][0] == '-'; i++) {
        const char *word = c->argv[i];
        switch (word[1]) {
        case '\0': c->script = i; return NULL;
        case '-':
            if (word[2] == '\0') {
                c->forced = true;
                c->script = i + 1;
                return NULL;
            }
            if (strcmp(word, "--resume") == 0) {
                c->resume = true;
                continue;
            }
            c->subcommand = find_subcommand(word + 2);
            c->script = i;
            return c->subcommand ? NULL : word;
        case 'E': c->ignore_environment = true; break;
        case 'W': break;
        case 'i': c->interactive = true; break;
        case 'v': c->version = true; break;
        case 'e': c->execute = true; /* fallthrough */
        case 'l':
            if (word[2] != '\0') continue;
            if (++i >= c->argc || c->argv[i][0] == '-') return word;
            continue;
        default: return word;
        }
        if (word[2] != '\0') return word;
    }
    c->script = i;
    if (i < c->argc && !strpbrk(c->argv[i], "./") && access(c->argv[i], F_OK) != 0) c->subcommand = find_subcommand(c->argv[i]);
    return NULL;
}

static void complain_usage(const char *word)
{
    fprintf(stderr,
            (word[1] == 'e' || word[1] == 'l') && word[2] == '\0' ? "bplua: '%s' needs argument\n" : "bplua: unrecognized option '%s'\n",
            word);
    fputs("usage: bplua [--resume] [-e code] [-l module] [-i] [-v] [-W] [-E] [--] [script [arguments]]\n"
          "       bplua help, for all of it\n",
          stderr);
}

/* ---- where the Lua files are ---- */

static bool try_folder(lua_State *L, const char *folder)
{
    bool found = access(lua_pushfstring(L, "%s/bp/init.lua", folder), R_OK) == 0;
    if (found) bplua__search_folder(L, folder);
    return found;
}

/* Beside the binary; two folders up if it is build/variant/bplua; where `make install` puts them; else the modules compiled in. */
static void find_lua_files(lua_State *L)
{
    char exe[4096];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    bool found = false;
    if (n > 0) {
        exe[n] = '\0';
        char *slash = strrchr(exe, '/');
        *slash = '\0';
        found = try_folder(L, lua_pushfstring(L, "%s/lua", exe)) || try_folder(L, lua_pushfstring(L, "%s/../share/lua/5.4", exe));
        char *variant = strrchr(exe, '/');
        if (!found && variant && variant - exe >= 6 && strncmp(variant - 6, "/build", 6) == 0) {
            variant[-6] = '\0';
            found = try_folder(L, lua_pushfstring(L, "%s/lua", exe));
        }
    }
    bplua_install_searcher(L, !found);
    lua_settop(L, 0); /* the names tried */
}

/* ---- what is run ---- */

static const char *push_version(lua_State *L)
{
    bp_ctx *ctx;
    if (bp_open(NULL, &ctx) != BP_OK) return lua_pushfstring(L, "bplua %s (%s)", BP_VERSION, LUA_RELEASE);
    const char *text = lua_pushfstring(L, "bplua %s (%s, kernels %s, %d threads)", BP_VERSION, LUA_RELEASE, bp_isa(ctx), bp_threads(ctx));
    bp_close(ctx);
    return text;
}

/* arg[0] is the script (or this program), arg[1] its first argument; what came before it has negative indices. */
static void set_arg(lua_State *L, const command *c)
{
    int zero = c->script < c->argc ? c->script : 0;
    lua_createtable(L, c->argc - zero, zero + 1);
    for (int i = 0; i < c->argc; i++) {
        lua_pushstring(L, c->argv[i]);
        lua_rawseti(L, -2, i - zero);
    }
    lua_setglobal(L, "arg");
}

static int run_chunk(lua_State *L, int status) { return run_report(L, status == LUA_OK ? run_call(L, 0, 0) : status); }

static int run_file(lua_State *L, const char *name) { return run_chunk(L, bplua__load_file(L, name, "t")); }

static int run_string(lua_State *L, const char *text, const char *name)
{
    return run_chunk(L, luaL_loadbufferx(L, text, strlen(text), name, "t"));
}

/* LUA_INIT_5_4, else LUA_INIT: code, or @file. */
static int run_init(lua_State *L)
{
    const char *name = "=LUA_INIT_" LUA_VERSION_MAJOR "_" LUA_VERSION_MINOR, *init = getenv(name + 1);
    if (!init) {
        name = "=LUA_INIT";
        init = getenv(name + 1);
    }
    if (!init) return LUA_OK;
    return init[0] == '@' ? run_file(L, init + 1) : run_string(L, init, name);
}

/* -l global=module, or -l module; as in lua, a suffix after '-' is no part of the global's name. */
static int require_module(lua_State *L, const char *word)
{
    const char *equals = strchr(word, '='), *module = equals ? equals + 1 : word;
    size_t length = equals ? (size_t)(equals - word) : strcspn(word, "-");
    const char *global = lua_pushlstring(L, word, length);
    lua_getglobal(L, "require");
    lua_pushstring(L, module);
    int status = run_call(L, 1, 1);
    if (status == LUA_OK) lua_setglobal(L, global);
    run_report(L, status);
    lua_pop(L, 1);
    return status;
}

/* -e, -l and -W, in the order they were given. */
static int run_options(lua_State *L, const command *c)
{
    int end = c->script < c->argc ? c->script : c->argc;
    for (int i = 1; i < end; i++) {
        char kind = c->argv[i][1];
        if (kind == 'W') lua_warning(L, "@on", 0);
        if (kind != 'e' && kind != 'l') continue;
        const char *value = c->argv[i][2] ? c->argv[i] + 2 : c->argv[++i];
        int status = kind == 'e' ? run_string(L, value, "=(command line)") : require_module(L, value);
        if (status != LUA_OK) return status;
    }
    return LUA_OK;
}

/* Pushes arg[1], arg[2], ... as the script left them there. */
static int push_arguments(lua_State *L)
{
    if (lua_getglobal(L, "arg") != LUA_TTABLE) return luaL_error(L, "'arg' is not a table");
    int n = (int)luaL_len(L, -1);
    luaL_checkstack(L, n + 3, "too many arguments to script");
    for (int i = 1; i <= n; i++) lua_rawgeti(L, -i, i);
    lua_remove(L, -n - 1);
    return n;
}

static int run_script(lua_State *L, const command *c)
{
    const char *name = c->argv[c->script];
    int status = bplua__load_file(L, strcmp(name, "-") == 0 && !c->forced ? NULL : name, "t");
    if (status == LUA_OK) status = run_call(L, push_arguments(L), LUA_MULTRET);
    return run_report(L, status);
}

static int run_subcommand(lua_State *L, const command *c, int *exit_status)
{
    lua_settop(L, 0);
    lua_getglobal(L, "require");
    lua_pushstring(L, c->subcommand->module);
    int status = run_call(L, 1, 1);
    if (status == LUA_OK) status = run_call(L, push_arguments(L), 2);
    if (status != LUA_OK) return run_report(L, status);
    *exit_status = lua_isstring(L, 2) ? EXIT_FAILURE : (int)luaL_optinteger(L, 1, EXIT_SUCCESS);
    if (lua_isstring(L, 2)) run_complain(lua_tostring(L, 2));
    return LUA_OK;
}

/* Everything, in protected mode. Returns the exit status. */
static int run_command(lua_State *L)
{
    command *c = (command *)lua_touserdata(L, 1);
    int exit_status = EXIT_FAILURE;
    const char *bad = parse(c);
    luaL_checkversion(L);
    if (bad) {
        complain_usage(bad);
        lua_pushinteger(L, exit_status);
        return 1;
    }
    if (c->version) {
        puts(push_version(L));
        fflush(stdout);
    }
    if (c->ignore_environment) {
        lua_pushboolean(L, 1);
        lua_setfield(L, LUA_REGISTRYINDEX, "LUA_NOENV");
    }
    luaL_openlibs(L);
    bplua_text_only(L);
    run_open_training(L, c->resume);
    find_lua_files(L);
    set_arg(L, c);

    int status = c->ignore_environment ? LUA_OK : run_init(L);
    if (status == LUA_OK) status = run_options(L, c);
    if (status == LUA_OK) {
        bool has_script = c->script < c->argc, idle = !has_script && !c->execute && !c->version;
        exit_status = EXIT_SUCCESS;
        if (c->subcommand)
            status = run_subcommand(L, c, &exit_status);
        else if (has_script)
            status = run_script(L, c);
        if (status == LUA_OK && (c->interactive || (idle && isatty(STDIN_FILENO))))
            repl_run(L, push_version(L));
        else if (status == LUA_OK && idle)
            status = run_file(L, NULL);
    }
    if (status != LUA_OK) exit_status = run_was_interrupted() ? EXIT_INTERRUPTED : EXIT_FAILURE;
    lua_pushinteger(L, exit_status);
    return 1;
}

int main(int argc, char **argv)
{
    command c;
    memset(&c, 0, sizeof c);
    c.argc = c.script = argc;
    c.argv = argv;
    run_set_name(argc > 0 && argv[0][0] ? argv[0] : "bplua");
    lua_State *L = luaL_newstate();
    if (!L) {
        run_complain("cannot create state: not enough memory");
        return EXIT_FAILURE;
    }
    lua_pushcfunction(L, run_command);
    lua_pushlightuserdata(L, &c);
    int exit_status = EXIT_FAILURE;
    if (run_report(L, lua_pcall(L, 1, 1, 0)) == LUA_OK) exit_status = (int)lua_tointeger(L, -1);
    lua_close(L);
    return exit_status;
}
