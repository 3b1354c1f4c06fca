/* optable.c - core.ops_table(): every row of the op table as a Lua table, for the manual, the help and the tests. Dimensions and positions
 * are told as Lua counts them. */
#include "lbp.h"

#include <math.h>

static const char *const kinds[] = { "int", "float", "bool", "choice", "dtype", "axis", "axes", "index", "indices", "ints" };

static void set_string(lua_State *L, const char *name, const char *v)
{
    if (!v) return;
    lua_pushstring(L, v);
    lua_setfield(L, -2, name);
}

static void set_flag(lua_State *L, const char *name, bool v)
{
    lua_pushboolean(L, v);
    lua_setfield(L, -2, name);
}

static void push_plain(lua_State *L, double v)
{
    lua_Integer i;
    if (lua_numbertointeger(v, &i) && (double)i == v)
        lua_pushinteger(L, i);
    else
        lua_pushnumber(L, v);
}

static void push_inputs(lua_State *L, const bp_op *op)
{
    lua_newtable(L);
    int n = 0;
    for (const bp_input *d = op->inputs; d->name; d++) {
        lua_newtable(L);
        set_string(L, "name", d->name);
        set_string(L, "help", d->help);
        set_flag(L, "optional", d->flags & (BP_IN_OPTIONAL | BP_IN_STREAM));
        set_flag(L, "variadic", d->flags & BP_IN_VARIADIC);
        set_flag(L, "index", d->flags & BP_IN_INDEX);
        set_flag(L, "stream", d->flags & BP_IN_STREAM);
        set_flag(L, "mutated", d->flags & BP_IN_MUTATED);
        lua_rawseti(L, -2, ++n);
    }
}

/* The default as it would be written in a call; nothing for a required option, or one whose absence has a meaning of its own. */
static void set_default(lua_State *L, const bp_option *o)
{
    if (o->required) return;
    switch (o->kind) {
    case BP_OPT_BOOL: lua_pushboolean(L, o->def != 0); break;
    case BP_OPT_CHOICE: lua_pushstring(L, o->choices[(int)o->def]); break;
    case BP_OPT_DTYPE:
        if (o->def < 0) return;
        lua_pushstring(L, bp_dtype_name((bp_dtype)(int)o->def));
        break;
    case BP_OPT_AXIS:
    case BP_OPT_INDEX:
        if (fabs(o->def) >= 1e15) return;
        push_plain(L, o->def < 0 ? o->def : o->def + 1);
        break;
    case BP_OPT_INT:
        if (fabs(o->def) >= 1e15) return;
        push_plain(L, o->def);
        break;
    case BP_OPT_FLOAT: push_plain(L, o->def); break;
    default:
        lua_createtable(L, o->length, 0);
        for (int i = 0; i < o->length; i++) {
            push_plain(L, o->def);
            lua_rawseti(L, -2, i + 1);
        }
        break;
    }
    lua_setfield(L, -2, "default");
}

static void push_options(lua_State *L, const bp_op *op)
{
    lua_newtable(L);
    int n = 0;
    for (const bp_option *o = op->options; o && o->name; o++) {
        lua_newtable(L);
        set_string(L, "name", o->name);
        set_string(L, "kind", kinds[o->kind]);
        set_string(L, "help", o->help);
        set_flag(L, "required", o->required);
        set_default(L, o);
        if (o->min <= o->max) {
            if (isfinite(o->min) && fabs(o->min) < 1e300) {
                push_plain(L, o->min);
                lua_setfield(L, -2, "min");
            }
            if (isfinite(o->max) && fabs(o->max) < 1e300) {
                push_plain(L, o->max);
                lua_setfield(L, -2, "max");
            }
        }
        if (o->length > 0) {
            lua_pushinteger(L, o->length);
            lua_setfield(L, -2, "length");
        }
        if (o->choices) {
            lua_newtable(L);
            for (int i = 0; o->choices[i]; i++) {
                lua_pushstring(L, o->choices[i]);
                lua_rawseti(L, -2, i + 1);
            }
            lua_setfield(L, -2, "choices");
        }
        lua_rawseti(L, -2, ++n);
    }
}

/*** core.ops_table() -> list
 * Every op: {name, group, summary, detail, inputs, options, outputs, n_out, method, inplace, internal, view, differentiable, cases}. */
static int ops_table(lua_State *L)
{
    const bp_op *op;
    lua_newtable(L);
    for (int i = 0; (op = bp_op_at(i)); i++) {
        lua_newtable(L);
        set_string(L, "name", op->name);
        set_string(L, "group", op->group);
        set_string(L, "summary", op->summary);
        set_string(L, "detail", op->detail);
        set_string(L, "outputs", op->outputs);
        push_inputs(L, op);
        lua_setfield(L, -2, "inputs");
        push_options(L, op);
        lua_setfield(L, -2, "options");
        lua_pushinteger(L, op->n_out);
        lua_setfield(L, -2, "n_out");
        set_flag(L, "method", op->flags & BP_OP_METHOD);
        set_flag(L, "inplace", op->flags & BP_OP_INPLACE);
        set_flag(L, "internal", op->flags & BP_OP_INTERNAL);
        set_flag(L, "view", op->flags & BP_OP_VIEW);
        set_flag(L, "differentiable", !(op->flags & BP_OP_NO_GRADIENT));
        int cases = 0;
        while (op->cases && op->cases[cases].inputs) cases++;
        lua_pushinteger(L, cases);
        lua_setfield(L, -2, "cases");
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

void lbp_open_optable(lua_State *L, lbp_state *s)
{
    (void)s;
    lua_pushcfunction(L, ops_table);
    lua_setfield(L, -2, "ops_table");
}
