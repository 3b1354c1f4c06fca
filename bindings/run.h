/* run.h - protected calls for the bplua command: traceback, report, interruption. Not part of the library. */
#ifndef BPLUA_RUN_H
#define BPLUA_RUN_H

#include <lua.h>
#include <stdbool.h>

/* Calls the function below its n_args arguments. Ctrl-C raises "interrupted!" inside it; a second one ends the process. On failure the
 * message, with a traceback, takes the place of the results. Returns Lua's status. */
int run_call(lua_State *L, int n_args, int n_results);

/* Prints and pops the message of a failed status, after the name the program was called by. Returns the status. */
int run_report(lua_State *L, int status);
/* A line on stderr in the same form. */
void run_complain(const char *message);
/* NULL: no name. */
void run_set_name(const char *name);

/* Lets `require "bp.cli.training"` find what a training needs to end well: while it holds the flag, SIGINT and SIGTERM only set it, and
 * a second one ends the process at once. Outside of that Ctrl-C raises an error, and SIGTERM does what it did. Its field `resume` says
 * whether trainings shall go on from their checkpoints. */
void run_open_training(lua_State *L, bool resume);

/* Whether a Ctrl-C ended the last run_call. */
bool run_was_interrupted(void);

#endif
