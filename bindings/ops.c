/* ops.c - every row of the op table as a Lua function, a method and an in-place form.
 *
 * A call reads its inputs from the stack, then its options (options.c), then makes the boxes for its results; all of that may raise. From
 * there to the end of the op nothing does, so the references taken are given back on every path. */
#include "lbp.h"

#include <string.h>

typedef enum call_form { FORM_FUNCTION, FORM_METHOD, FORM_IN_PLACE } call_form;

enum { FEW = 12 };

/* The inputs of one call. slot[i] is the stack index of input i's box or number, 0 where it is left out. */
typedef struct inputs {
    int n, room;
    int *slot;
    bp_tensor **tensor;
    int few_slots[FEW];
    bp_tensor *few_tensors[FEW];
} inputs;

/* Room for n inputs; more than a few live in a userdata on the stack. */
static void make_room(lua_State *L, inputs *in, int n)
{
    if (n <= in->room) return;
    size_t each = sizeof(bp_tensor *) + sizeof(int);
    bp_tensor **tensor = (bp_tensor **)lua_newuserdatauv(L, each * (size_t)n, 0);
    int *slot = (int *)(tensor + n);
    memcpy(slot, in->slot, sizeof *slot * (size_t)in->n);
    in->tensor = tensor;
    in->slot = slot;
    in->room = n;
}

/* The tensors from arg on, or in the table at arg, are the variadic input. Returns the next argument. */
static int read_variadic(lua_State *L, const bp_op *op, const bp_input *d, int arg, int top, inputs *in)
{
    if (lua_type(L, arg) == LUA_TTABLE) {
        int n = 0;
        for (lua_rawgeti(L, arg, 1); lbp_testbox(L, -1); lua_rawgeti(L, arg, n + 1)) {
            n++;
            luaL_checkstack(L, 8, "too many tensors");
        }
        int first = lua_gettop(L) - n; /* what ended the list is on top */
        if (n == 0) lbp_error(L, "%s: the list '%s' holds no tensors; it is %s", op->name, d->name, d->help);
        bool more = lua_type(L, -1) != LUA_TNIL;
        if (more && lua_type(L, -1) != LUA_TNUMBER)
            lbp_error(L, "%s: entry %d of '%s' is %s; a tensor is expected", op->name, n + 1, d->name, lbp_describe(L, -1));
        make_room(L, in, in->n + n);
        for (int i = 0; i < n; i++) in->slot[in->n++] = first + i;
        /* what stands beside the tensors are options */
        if (more) return arg;
        lua_pushnil(L);
        while (lua_next(L, arg)) {
            lua_pop(L, 1);
            if (!lua_isinteger(L, -1)) {
                lua_pop(L, 1);
                return arg;
            }
        }
        return arg + 1;
    }
    int n = 0;
    while (arg + n <= top && lbp_testbox(L, arg + n)) n++;
    if (n == 0) lbp_error(L, "%s: input '%s' is %s; tensors, or a list of them, are expected", op->name, d->name, lbp_describe(L, arg));
    make_room(L, in, in->n + n);
    for (int i = 0; i < n; i++) in->slot[in->n++] = arg + i;
    return arg + n;
}

static void wrong_input(lua_State *L, const bp_op *op, const bp_input *d, int arg) __attribute__((noreturn));
static void wrong_input(lua_State *L, const bp_op *op, const bp_input *d, int arg)
{
    if (lua_isnoneornil(L, arg)) lbp_error(L, "%s: input '%s' is missing; it is %s", op->name, d->name, d->help);
    lbp_error(L, "%s: input '%s' is %s; a tensor or a number is expected: %s", op->name, d->name, lbp_describe(L, arg), d->help);
}

/* Reads the inputs from argument 1 on; returns the first argument that is none. */
static int read_inputs(lua_State *L, const bp_op *op, inputs *in)
{
    int arg = 1, top = lua_gettop(L);
    for (const bp_input *d = op->inputs; d->name; d++) {
        if (d->flags & BP_IN_VARIADIC) return read_variadic(L, op, d, arg, top, in);
        int type = arg <= top ? lua_type(L, arg) : LUA_TNONE;
        bool optional = d->flags & (BP_IN_OPTIONAL | BP_IN_STREAM);
        int slot = 0;
        if (lbp_testbox(L, arg))
            slot = arg++;
        else if (optional) {
            if (type == LUA_TNIL) arg++;
        } else if (type == LUA_TNUMBER || type == LUA_TBOOLEAN) {
            int64_t whole;
            if ((d->flags & BP_IN_INDEX) && !lbp_towhole(L, arg, &whole)) wrong_input(L, op, d, arg);
            slot = arg++;
        } else if (type == LUA_TTABLE && (d->flags & BP_IN_INDEX)) {
            lbp_pushvalue(L, arg, BP_I64, op->name);
            lua_replace(L, arg);
            slot = arg++;
        } else
            wrong_input(L, op, d, arg);
        in->slot[in->n++] = slot;
    }
    return arg;
}

static const bp_input *input_of(const bp_op *op, int i)
{
    const bp_input *d = op->inputs;
    while (i-- > 0 && !(d->flags & BP_IN_VARIADIC)) d++;
    return d;
}

/* The dtype that a plain number takes among the given inputs: that of the widest float; an integer one if all are integers and so is it. */
static bp_dtype number_dtype(lua_State *L, const bp_op *op, const inputs *in, int i)
{
    const bp_input *d = input_of(op, i);
    bool has_float = false, has_double = false, has_long = false, has_integer = false;
    int64_t v;
    if (lua_type(L, in->slot[i]) == LUA_TBOOLEAN) return BP_BOOL;
    if (d->flags & BP_IN_INDEX) return BP_I64;
    if (d->flags & BP_IN_RAW) return BP_F64;
    for (int k = 0; k < in->n; k++) {
        if (!in->tensor[k] || (input_of(op, k)->flags & (BP_IN_INDEX | BP_IN_STREAM | BP_IN_RAW))) continue;
        bp_dtype t = in->tensor[k]->m.dtype;
        has_float |= t == BP_F32 || t == BP_F64;
        has_double |= t == BP_F64;
        has_long |= t == BP_I64;
        has_integer |= t == BP_I32 || t == BP_I64 || t == BP_U8 || t == BP_BOOL;
    }
    if (has_float) return has_double ? BP_F64 : BP_F32;
    if (has_integer && lbp_towhole(L, in->slot[i], &v)) return has_long || v < INT32_MIN || v > INT32_MAX ? BP_I64 : BP_I32;
    return BP_F32;
}

/* Takes a reference to every input and makes tensors of the numbers. Does not raise. */
static bp_status take_inputs(lua_State *L, bp_ctx *ctx, const bp_op *op, inputs *in)
{
    bool numbers = false;
    for (int i = 0; i < in->n; i++) {
        lbp_box *box = in->slot[i] ? lbp_testbox(L, in->slot[i]) : NULL;
        in->tensor[i] = box ? bp_tensor_retain(box->tensor) : NULL;
        numbers |= in->slot[i] && !box;
    }
    if (!numbers) return BP_OK;
    bool paused = bp_pause_capture(ctx, true); /* a constant is no value that a replay computes */
    bp_status status = BP_OK;
    for (int i = 0; i < in->n && status == BP_OK; i++) {
        if (!in->slot[i] || lbp_testbox(L, in->slot[i])) continue;
        bool truth = lua_type(L, in->slot[i]) == LUA_TBOOLEAN;
        bp_dtype dtype = number_dtype(L, op, in, i);
        status = bp_tensor_scalar(ctx, dtype, truth ? lua_toboolean(L, in->slot[i]) : lua_tonumber(L, in->slot[i]), &in->tensor[i]);
        if (status == BP_OK) in->tensor[i]->storage->constant = true;
        if (status == BP_OK && dtype == BP_I64) *(int64_t *)(void *)bp_data(in->tensor[i]) = lua_tointeger(L, in->slot[i]);
    }
    bp_pause_capture(ctx, paused);
    return status;
}

static int call(lua_State *L, call_form form)
{
    const bp_op *op = (const bp_op *)lua_touserdata(L, lua_upvalueindex(1));
    lbp_state *s = (lbp_state *)lua_touserdata(L, lua_upvalueindex(2));
    if (!s->ctx || s->reclaiming) lbp_enter(L); /* raises */
    if (form != FORM_FUNCTION && !lbp_testbox(L, 1))
        lbp_error(L, "%s: called without its tensor, on %s; a method is called with ':', as in t:%s%s(...)", op->name, lbp_describe(L, 1),
                  op->name, form == FORM_IN_PLACE ? "_" : "");
    inputs in;
    in.n = 0;
    in.room = FEW;
    in.slot = in.few_slots;
    in.tensor = in.few_tensors;
    bp_arg args[BP_MAX_ARGS];
    int top = lua_gettop(L), n_args = 0;
    luaL_checkstack(L, BP_MAX_OUT + 16, NULL);
    int first = read_inputs(L, op, &in);
    lbp_op_options(L, op, first, top, args);
    while (op->options && op->options[n_args].name) n_args++;

    bp_tensor *out[BP_MAX_OUT] = { NULL };
    lbp_box *box[BP_MAX_OUT];
    for (int i = form == FORM_IN_PLACE; i < op->n_out; i++) box[i] = lbp_newbox(L, s);
    for (int i = 0; i < in.n; i++)
        if (in.slot[i]) lbp_totensor(L, in.slot[i]); /* raises if it was freed */

    bp_status status = take_inputs(L, s->ctx, op, &in);
    if (form == FORM_IN_PLACE) out[0] = in.tensor[0];
    if (status == BP_OK) status = bp_apply(s->ctx, op, in.n, in.tensor, n_args, args, out);
    for (int i = 0; i < in.n; i++) bp_tensor_release(in.tensor[i]);
    lbp_check(L, status);
    for (int i = form == FORM_IN_PLACE; i < op->n_out; i++) lbp_fill(box[i], out[i]);
    if (form != FORM_IN_PLACE) return op->n_out;
    lua_pushvalue(L, 1);
    return 1;
}

static int call_function(lua_State *L) { return call(L, FORM_FUNCTION); }
static int call_method(lua_State *L) { return call(L, FORM_METHOD); }
static int call_in_place(lua_State *L) { return call(L, FORM_IN_PLACE); }

static void push_form(lua_State *L, lbp_state *s, const bp_op *op, lua_CFunction form)
{
    lua_pushlightuserdata(L, (void *)(uintptr_t)op);
    lua_pushlightuserdata(L, s);
    lua_pushcclosure(L, form, 2);
}

void lbp_apply_push(lua_State *L, lbp_state *s, const bp_op *op, int idx, int n_args, const bp_arg *args)
{
    idx = lua_absindex(L, idx);
    lbp_box *box = lbp_newbox(L, s);
    bp_tensor *in = bp_tensor_retain(lbp_checktensor(L, idx)), *out = NULL;
    bp_status status = bp_apply(s->ctx, op, 1, &in, n_args, args, &out);
    bp_tensor_release(in);
    lbp_check(L, status);
    lbp_fill(box, out);
}

void lbp_push_op(lua_State *L, lbp_state *s, const bp_op *op, bool in_place)
{
    push_form(L, s, op, in_place ? call_in_place : call_function);
}

/* Fills core.ops, and core.methods where lbp_open_tensor left its own. */
void lbp_open_ops(lua_State *L, lbp_state *s)
{
    lua_newtable(L);
    lua_getfield(L, -2, "methods");
    const bp_op *op;
    for (int i = 0; (op = bp_op_at(i)); i++) {
        push_form(L, s, op, call_function);
        lua_setfield(L, -3, op->name);
        if (op->flags & BP_OP_METHOD) {
            push_form(L, s, op, call_method);
            lua_setfield(L, -2, op->name);
        }
        if (op->flags & BP_OP_INPLACE) {
            push_form(L, s, op, call_in_place);
            lua_pushfstring(L, "%s_", op->name);
            lua_pushvalue(L, -1);
            lua_pushvalue(L, -3);
            lua_settable(L, -6);
            lua_pushvalue(L, -2);
            lua_settable(L, -4);
            lua_pop(L, 1);
        }
    }
    lua_pop(L, 1);
    lua_setfield(L, -2, "ops");
}
