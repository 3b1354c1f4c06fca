/* options.c - the options of an op as a Lua caller gives them:
 *
 *   x:sum(1, true)                   values in the order of the op's row; nil takes the default
 *   x:reshape(2, 3)                  a list of any length takes the numbers that follow each other
 *   x:permute{2, 1}                  or stands in a table
 *   x:sum{axes = 1, keepdims = true} names
 *   x:sum{1, keepdims = true}        both: the list part of the table are values in the row's order
 *   x:sum(1, {keepdims = true})      both: the table of names comes last
 *
 * Here, and only here, dimensions and positions that count from 1 become those of core, that count from 0. */
#include "lbp.h"

#include <string.h>

typedef struct reader {
    lua_State *L;
    const bp_op *op;
    int count; /* options in the row */
    bp_arg *args;
} reader;

static const char *option_name(const void *ud, int i) { return ((const bp_option *)ud)[i].name; }

static bool is_list(const bp_option *o) { return o->kind == BP_OPT_AXES || o->kind == BP_OPT_INDICES || o->kind == BP_OPT_INTS; }

static bool counts_from_one(const bp_option *o)
{
    return o->kind == BP_OPT_AXIS || o->kind == BP_OPT_AXES || o->kind == BP_OPT_INDEX || o->kind == BP_OPT_INDICES;
}

/* ---- messages ---- */

/* Pushes "a, b, c". */
static const char *push_names(lua_State *L, int n, const char *(*name)(const void *ud, int i), const void *ud)
{
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    for (int i = 0; i < n; i++) {
        if (i) luaL_addstring(&b, ", ");
        luaL_addstring(&b, name(ud, i));
    }
    luaL_pushresult(&b);
    return lua_tostring(L, -1);
}

static void wrong_kind(const reader *r, const bp_option *o, int idx, const char *expected) __attribute__((noreturn));
static void wrong_kind(const reader *r, const bp_option *o, int idx, const char *expected)
{
    lbp_error(r->L, "%s: option '%s' is %s; %s is expected: %s", r->op->name, o->name, lbp_describe(r->L, idx), expected, o->help);
}

static const char *choice_at(const void *ud, int i) { return ((const char *const *)ud)[i]; }

static int choice(const reader *r, const bp_option *o, int idx)
{
    lua_State *L = r->L;
    int n = 0;
    while (o->choices[n]) n++;
    const char *word = lua_type(L, idx) == LUA_TSTRING ? lua_tostring(L, idx) : NULL;
    for (int i = 0; i < n && word; i++)
        if (strcmp(word, o->choices[i]) == 0) return i;
    const char *near = word ? lbp_nearest(word, n, choice_at, o->choices) : NULL;
    const char *got = lbp_describe(L, idx), *list = push_names(L, n, choice_at, o->choices);
    if (near) lbp_error(L, "%s: option '%s' is %s (did you mean '%s'?); one of %s is expected", r->op->name, o->name, got, near, list);
    lbp_error(L, "%s: option '%s' is %s; one of %s is expected", r->op->name, o->name, got, list);
}

static void unknown_option(const reader *r, const char *word) __attribute__((noreturn));
static void unknown_option(const reader *r, const char *word)
{
    lua_State *L = r->L;
    if (r->count == 0) lbp_error(L, "%s: unknown option '%s'; it has no options", r->op->name, word);
    const char *near = lbp_nearest(word, r->count, option_name, r->op->options);
    const char *list = push_names(L, r->count, option_name, r->op->options);
    if (near) lbp_error(L, "%s: unknown option '%s' (did you mean '%s'?); the options are %s", r->op->name, word, near, list);
    lbp_error(L, "%s: unknown option '%s'; the options are %s", r->op->name, word, list);
}

static void too_many(const reader *r, int idx) __attribute__((noreturn));
static void too_many(const reader *r, int idx)
{
    lua_State *L = r->L;
    const char *got = lbp_describe(L, idx);
    if (r->count == 0) lbp_error(L, "%s: %s is one argument too many; it has no options", r->op->name, got);
    lbp_error(L, "%s: %s is one argument too many; its options are %s", r->op->name, got,
              push_names(L, r->count, option_name, r->op->options));
}

/* ---- values ---- */

static int64_t whole(const reader *r, const bp_option *o, int idx, const char *expected)
{
    int64_t v;
    if (!lbp_towhole(r->L, idx, &v)) wrong_kind(r, o, idx, expected);
    if (!counts_from_one(o)) return v;
    if (v == 0) lbp_error(r->L, "%s: option '%s' is 0; it counts from 1, and from the end with -1, -2, ...", r->op->name, o->name);
    return v > 0 ? v - 1 : v;
}

static const char *list_expected(const bp_option *o)
{
    return o->kind == BP_OPT_AXES ? "a dimension or a list of dimensions" : "a whole number or a list of them";
}

static void list(const reader *r, const bp_option *o, int idx, bp_arg *a)
{
    lua_State *L = r->L;
    const char *expected = list_expected(o);
    if (lua_type(L, idx) != LUA_TTABLE) {
        a->as.list[0] = whole(r, o, idx, expected);
        a->count = 1;
        return;
    }
    lua_Unsigned n = lua_rawlen(L, idx);
    if (n > BP_MAX_DIMS)
        lbp_error(L, "%s: option '%s' is a list of %I; at most %d are possible", r->op->name, o->name, (lua_Integer)n, BP_MAX_DIMS);
    for (int i = 0; i < (int)n; i++) {
        lua_rawgeti(L, idx, i + 1);
        a->as.list[i] = whole(r, o, lua_gettop(L), expected);
        lua_pop(L, 1);
    }
    a->count = (int)n;
}

static void set_value(const reader *r, int which, int idx)
{
    lua_State *L = r->L;
    const bp_option *o = &r->op->options[which];
    bp_arg *a = &r->args[which];
    if (a->set) lbp_error(L, "%s: option '%s' is given twice", r->op->name, o->name);
    a->set = a->count = 1;
    switch (o->kind) {
    case BP_OPT_INT: a->as.i = whole(r, o, idx, "a whole number"); break;
    case BP_OPT_AXIS: a->as.i = whole(r, o, idx, "a dimension"); break;
    case BP_OPT_INDEX: a->as.i = whole(r, o, idx, "a position"); break;
    case BP_OPT_FLOAT:
        if (lua_type(L, idx) != LUA_TNUMBER) wrong_kind(r, o, idx, "a number");
        a->as.f = lua_tonumber(L, idx);
        break;
    case BP_OPT_BOOL:
        if (lua_type(L, idx) != LUA_TBOOLEAN) wrong_kind(r, o, idx, "true or false");
        a->as.i = lua_toboolean(L, idx);
        break;
    case BP_OPT_CHOICE: a->as.i = choice(r, o, idx); break;
    case BP_OPT_DTYPE: a->as.i = lbp_checkdtype(L, idx, r->op->name, -1); break;
    case BP_OPT_AXES:
    case BP_OPT_INDICES:
    case BP_OPT_INTS: list(r, o, idx, a); break;
    }
}

/* Whether a table is more than a list of numbers: it holds names, or a list of its own. */
static bool has_parts(lua_State *L, int idx)
{
    bool nested = lua_rawgeti(L, idx, 1) == LUA_TTABLE;
    lua_pop(L, 1);
    if (nested) return true;
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING) {
            lua_pop(L, 1);
            return true;
        }
    }
    return false;
}

/* Whether a table is empty where a list of some length is wanted: it stands for no options, then. */
static bool is_nothing(lua_State *L, const bp_option *o, int idx) { return o->length > 0 && lua_rawlen(L, idx) == 0; }

static int read_positional(const reader *r, int k, int first, int last);

/* The table at idx: its list part from option k on, then its names. Tensors in the list part are inputs, read by the caller. */
static void read_named(const reader *r, int k, int idx)
{
    lua_State *L = r->L;
    int top = lua_gettop(L);
    lua_Unsigned n = lua_rawlen(L, idx);
    for (lua_Unsigned i = 1; i <= n && i <= BP_MAX_DIMS + BP_MAX_ARGS; i++) {
        luaL_checkstack(L, 8, NULL);
        lua_rawgeti(L, idx, (lua_Integer)i);
        if (lbp_testbox(L, -1)) lua_pop(L, 1);
    }
    read_positional(r, k, top + 1, lua_gettop(L));
    lua_settop(L, top);
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        if (lua_type(L, -2) == LUA_TSTRING) {
            const char *word = lua_tostring(L, -2);
            int which = 0;
            while (which < r->count && strcmp(word, r->op->options[which].name) != 0) which++;
            if (which == r->count) unknown_option(r, word);
            set_value(r, which, lua_gettop(L));
        }
        lua_pop(L, 1);
    }
}

/* Values first..last of the stack for the options from k on; a table of names may end them. */
static int read_positional(const reader *r, int k, int first, int last)
{
    lua_State *L = r->L;
    for (int i = first; i <= last; i++) {
        const bp_option *o = k < r->count ? &r->op->options[k] : NULL;
        int type = lua_type(L, i);
        if (type == LUA_TNIL)
            k++;
        else if (type == LUA_TTABLE && i == last && (!(o && is_list(o)) || has_parts(L, i) || is_nothing(L, o, i))) {
            read_named(r, k, i);
        } else if (!o)
            too_many(r, i);
        else if (type == LUA_TNUMBER && is_list(o) && o->length == 0) {
            bp_arg *a = &r->args[k++];
            a->set = 1;
            for (; i <= last && lua_type(L, i) == LUA_TNUMBER; i++) {
                if (a->count == BP_MAX_DIMS) lbp_error(L, "%s: option '%s' has more than %d numbers", r->op->name, o->name, BP_MAX_DIMS);
                a->as.list[a->count++] = whole(r, o, i, list_expected(o));
            }
            i--;
        } else
            set_value(r, k++, i);
    }
    return k;
}

void lbp_op_options(lua_State *L, const bp_op *op, int first, int last, bp_arg *args)
{
    reader r = { L, op, 0, args };
    while (op->options && op->options[r.count].name) r.count++;
    memset(args, 0, sizeof *args * (size_t)r.count);
    if (first <= last) read_positional(&r, 0, first, last);
}
