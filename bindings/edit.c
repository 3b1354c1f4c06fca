#include "edit.h"

#include <lauxlib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool at_terminal = false;
static volatile sig_atomic_t interrupted = 0;

static void on_interrupt(int signum)
{
    (void)signum;
    interrupted = 1;
}

#ifdef BPLUA_EDIT /* ---- libedit ---- */

#include <dirent.h>
#include <editline/readline.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>

#define HISTORY_LINES 2000

static lua_State *completing = NULL; /* libedit's callbacks are handed nothing */
static char history_path[4096];      /* "": none */

/* Completion leaves names and file names whole; bp.cli.complete knows where each begins. */
static char word_breaks[] = " \t\n\"'`()[]{}<>=+*%^#,;~|&";

/* folder(path): the names in it, those of folders with a slash behind; nothing if it cannot be read. */
static int list_folder(lua_State *L)
{
    const char *path = luaL_checkstring(L, 1);
    DIR *dir = opendir(path);
    if (!dir) return 0;
    lua_newtable(L);
    lua_Integer n = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        struct stat st;
        char full[4096];
        int length = snprintf(full, sizeof full, "%s/%s", path, entry->d_name);
        bool folder = length > 0 && (size_t)length < sizeof full && stat(full, &st) == 0 && S_ISDIR(st.st_mode);
        lua_pushfstring(L, folder ? "%s/" : "%s", entry->d_name);
        lua_seti(L, -2, ++n);
    }
    closedir(dir);
    return 1;
}

/* complete(line up to the cursor, where the word begins): a list of words to stand there. */
static int candidates(lua_State *L)
{
    lua_getglobal(L, "require");
    lua_pushliteral(L, "bp.cli.complete");
    lua_call(L, 1, 1);
    lua_insert(L, 1);
    lua_pushglobaltable(L);
    lua_pushcfunction(L, list_folder);
    lua_call(L, 4, 1);
    luaL_checktype(L, 1, LUA_TTABLE);
    return 1;
}

/* The list on top of the stack, one word at a time, each to be freed by libedit. */
static char *next_candidate(const char *text, int state)
{
    static lua_Integer next;
    (void)text;
    next = state ? next + 1 : 1;
    lua_geti(completing, -1, next);
    const char *word = lua_tostring(completing, -1);
    char *copy = word ? strdup(word) : NULL;
    lua_pop(completing, 1);
    return copy;
}

static char **complete(const char *text, int start, int end)
{
    lua_State *L = completing;
    rl_attempted_completion_over = 1; /* no file names where names are meant */
    lua_pushcfunction(L, candidates);
    lua_pushlstring(L, rl_line_buffer, (size_t)end);
    lua_pushinteger(L, start + 1);
    char **matches = NULL;
    if (lua_pcall(L, 2, 1, 0) == LUA_OK) matches = rl_completion_matches(text, next_candidate);
    lua_pop(L, 1);
    return matches;
}

static void make_folders(char *path)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
}

/* $XDG_STATE_HOME/bplua/history; a relative XDG_STATE_HOME counts as unset, as its specification says. */
static void find_history(void)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (state && state[0] == '/')
        n = snprintf(history_path, sizeof history_path, "%s/bplua/history", state);
    else if (home && home[0] == '/')
        n = snprintf(history_path, sizeof history_path, "%s/.local/state/bplua/history", home);
    if (n < 0 || (size_t)n >= sizeof history_path)
        history_path[0] = '\0';
    else
        make_folders(history_path);
}

/* The file holds one line of input per line. It is cut to the newest lines when it has grown to twice as many. */
static void read_history_file(void)
{
    FILE *file = history_path[0] ? fopen(history_path, "r") : NULL;
    if (!file) return;
    char *line = NULL;
    size_t room = 0;
    int lines = 0;
    for (ssize_t n; (n = getline(&line, &room, file)) > 0; lines++) {
        line[n - (line[n - 1] == '\n')] = '\0';
        add_history(line);
    }
    free(line);
    fclose(file);
    if (lines <= 2 * HISTORY_LINES || !(file = fopen(history_path, "w"))) return;
    for (int i = 0; i < history_length; i++) fprintf(file, "%s\n", history_get(history_base + i)->line);
    fclose(file);
}

/* Written at once, so that nothing is lost however the program ends, and several prompts can share the file. */
static void remember(const char *line)
{
    if (line[strspn(line, " \t")] == '\0') return;
    HIST_ENTRY *last = history_length > 0 ? history_get(history_base + history_length - 1) : NULL;
    if (last && strcmp(last->line, line) == 0) return;
    add_history(line);
    int fd = history_path[0] ? open(history_path, O_CREAT | O_WRONLY | O_APPEND, 0600) : -1;
    if (fd >= 0) {
        dprintf(fd, "%s\n", line);
        close(fd);
    }
}

static void start_editing(lua_State *L)
{
    completing = L;
    setlocale(LC_CTYPE, ""); /* so that libedit knows the width of what is typed */
    rl_readline_name = "bplua";
    rl_completer_word_break_characters = word_breaks;
    rl_attempted_completion_function = complete;
    rl_completion_append_character = '\0';
    rl_initialize();
    stifle_history(HISTORY_LINES);
    find_history();
    read_history_file();
}

static edit_result read_edited(lua_State *L, const char *prompt)
{
    char *line = readline(prompt);
    if (!line) return EDIT_END;
    remember(line);
    lua_pushstring(L, line);
    free(line);
    return EDIT_LINE;
}

#else

static void start_editing(lua_State *L) { (void)L; }

static edit_result read_edited(lua_State *L, const char *prompt);

#endif

static edit_result read_plain(lua_State *L, const char *prompt)
{
    if (at_terminal) {
        fputs(prompt, stdout);
        fflush(stdout);
    }
    luaL_Buffer line;
    luaL_buffinit(L, &line);
    int c;
    while ((c = getchar()) != EOF && c != '\n') luaL_addchar(&line, (char)c);
    luaL_pushresult(&line);
    if (c == '\n' || (!interrupted && lua_rawlen(L, -1) > 0)) return EDIT_LINE;
    clearerr(stdin);
    lua_pop(L, 1);
    return EDIT_END;
}

#ifndef BPLUA_EDIT
static edit_result read_edited(lua_State *L, const char *prompt) { return read_plain(L, prompt); }
#endif

bool edit_open(lua_State *L)
{
    at_terminal = isatty(STDIN_FILENO);
    if (at_terminal) start_editing(L);
    return at_terminal;
}

edit_result edit_read(lua_State *L, const char *prompt)
{
    if (!at_terminal) return read_plain(L, prompt);
    /* Without SA_RESTART, so that the read below us is given up. */
    struct sigaction act, old;
    memset(&act, 0, sizeof act);
    act.sa_handler = on_interrupt;
    sigemptyset(&act.sa_mask);
    interrupted = 0;
    sigaction(SIGINT, &act, &old);
    edit_result result = read_edited(L, prompt);
    sigaction(SIGINT, &old, NULL);
    if (result == EDIT_END && interrupted) result = EDIT_INTERRUPTED;
    if (result != EDIT_LINE) putchar('\n');
    return result;
}
