/* tensor.c - the metatable of tensors: operators, life and death, and the methods that are no ops. */
#include "lbp.h"

#include <string.h>

/* ---- life and death ---- */

static int close_tensor(lua_State *L)
{
    lbp_free_box(L, 1);
    return 0;
}

/*** t:free()
 * Gives the memory back at once, unless a view, a history or a plan still needs it. Using t afterwards is an error; freeing again is not. A
 * local t <close> frees at the end of its block. */
static int free_tensor(lua_State *L)
{
    if (!lbp_free_box(L, 1)) lbp_typeerror(L, 1, "free", "a tensor");
    return 0;
}

/*** t:is_freed() -> boolean
 * Whether t was freed by hand, by <close> or by a scope. */
static int is_freed(lua_State *L)
{
    lbp_box *box = lbp_testbox(L, 1);
    if (!box) lbp_typeerror(L, 1, "is_freed", "a tensor");
    lua_pushboolean(L, !box->tensor);
    return 1;
}

/* ---- operators ---- */

static int call_op(lua_State *L, const bp_op *op, int n)
{
    lua_settop(L, n);
    lbp_push_op(L, lbp_enter(L), op, false);
    lua_insert(L, 1);
    lua_call(L, n, 1);
    return 1;
}

/* Lua hands a unary operator its operand twice. */
static int negate(lua_State *L) { return call_op(L, &bp__op_neg, 1); }

static int equal(lua_State *L)
{
    lbp_box *a = lbp_testbox(L, 1), *b = lbp_testbox(L, 2);
    lua_pushboolean(L, a && b && a->tensor && a->tensor == b->tensor);
    return 1;
}

static double single(lua_State *L, int idx)
{
    if (lua_type(L, idx) == LUA_TNUMBER) return lua_tonumber(L, idx);
    bp_tensor *t = lbp_totensor(L, idx);
    char shape[200];
    double v;
    if (!t) lbp_error(L, "a tensor is compared with %s; only tensors of one element and numbers have an order", lbp_describe(L, idx));
    if (bp_count(t) != 1)
        lbp_error(L, "'<' and '<=' give one truth value, but a tensor here has shape %s; compare element by element with a:lt(b), a:le(b)",
                  bp_shape_text(t->m.ndim, t->m.shape, shape));
    lbp_check(L, bp_tensor_read(t, BP_F64, &v, 1));
    return v;
}

static int less(lua_State *L)
{
    lua_pushboolean(L, single(L, 1) < single(L, 2));
    return 1;
}

static int less_or_equal(lua_State *L)
{
    lua_pushboolean(L, single(L, 1) <= single(L, 2));
    return 1;
}

static int length(lua_State *L)
{
    bp_tensor *t = lbp_checktensor(L, 1);
    if (t->m.ndim == 0) lbp_error(L, "a tensor with no dimensions has no length; its value is t:item()");
    lua_pushinteger(L, t->m.shape[0]);
    return 1;
}

static int concatenate(lua_State *L)
{
    luaL_tolstring(L, 1, NULL);
    luaL_tolstring(L, 2, NULL);
    lua_concat(L, 2);
    return 1;
}

/* ---- methods ---- */

static int dimension(lua_State *L, const bp_tensor *t, int idx, const char *who)
{
    int64_t v;
    if (!lbp_towhole(L, idx, &v)) lbp_typeerror(L, idx, who, "a dimension");
    int64_t axis = v > 0 ? v - 1 : v + t->m.ndim;
    if (v == 0 || axis < 0 || axis >= t->m.ndim)
        lbp_error(L, "%s: dimension %I of a tensor with %d; dimensions count from 1, from the end with -1", who, (lua_Integer)v, t->m.ndim);
    return (int)axis;
}

static int push_sizes(lua_State *L, const char *who, const int64_t *sizes)
{
    bp_tensor *t = lbp_checktensor(L, 1);
    if (!lua_isnoneornil(L, 2)) {
        lua_pushinteger(L, sizes[dimension(L, t, 2, who)]);
        return 1;
    }
    int64_t list[BP_MAX_DIMS];
    int n = t->m.ndim;
    memcpy(list, sizes, sizeof list);
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_pushinteger(L, list[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/*** t:shape(dimension = nil) -> table | integer
 * The sizes of all dimensions, or of one (-1: the last). */
/*** t:size(dimension = nil) -> table | integer
 * The same as t:shape. */
static int get_shape(lua_State *L) { return push_sizes(L, "shape", lbp_checktensor(L, 1)->m.shape); }
/*** t:stride(dimension = nil) -> table | integer
 * How many elements apart neighbours along each dimension, or one, are in memory. */
static int get_strides(lua_State *L) { return push_sizes(L, "stride", lbp_checktensor(L, 1)->m.stride); }

/*** t:dim() -> integer
 * The number of dimensions. */
static int get_ndim(lua_State *L)
{
    lua_pushinteger(L, lbp_checktensor(L, 1)->m.ndim);
    return 1;
}

/*** t:numel() -> integer
 * The number of elements. */
static int get_count(lua_State *L)
{
    lua_pushinteger(L, bp_count(lbp_checktensor(L, 1)));
    return 1;
}

/*** t:is_contiguous() -> boolean
 * Whether the elements lie in row-major order without gaps. */
static int get_contiguous(lua_State *L)
{
    lua_pushboolean(L, bp_tensor_is_contiguous(lbp_checktensor(L, 1)));
    return 1;
}

/*** t:shares_memory(other) -> boolean
 * Whether both are views of one piece of memory. */
static int shares_memory(lua_State *L)
{
    lua_pushboolean(L, lbp_checktensor(L, 1)->storage == lbp_checktensor(L, 2)->storage);
    return 1;
}

/*** t:to(dtype) -> tensor
 * Converted; t itself when it has that dtype already. */
static int to_dtype(lua_State *L)
{
    bp_tensor *t = lbp_checktensor(L, 1);
    if (lua_isnoneornil(L, 2)) lbp_typeerror(L, 2, "to", "a dtype such as \"f32\"");
    bp_arg dtype = bp_int(lbp_checkdtype(L, 2, "to", -1));
    if (dtype.as.i == t->m.dtype)
        lua_settop(L, 1);
    else
        lbp_apply_push(L, lbp_enter(L), &bp__op_cast, 1, 1, &dtype);
    return 1;
}

static int permuted(lua_State *L, int a, int b)
{
    bp_tensor *t = lbp_checktensor(L, 1);
    int64_t axes[BP_MAX_DIMS];
    for (int i = 0; i < t->m.ndim; i++) axes[i] = i == a ? b : i == b ? a : i;
    bp_arg arg = bp_list(t->m.ndim, axes);
    lbp_apply_push(L, lbp_enter(L), &bp__op_permute, 1, 1, &arg);
    return 1;
}

/*** t:transpose(i, j) -> tensor
 * A view with two dimensions exchanged. */
static int transpose(lua_State *L)
{
    bp_tensor *t = lbp_checktensor(L, 1);
    int a = dimension(L, t, 2, "transpose"), b = dimension(L, t, 3, "transpose");
    return permuted(L, a, b);
}

/*** t:t() -> tensor
 * A view of a matrix with rows and columns exchanged. */
static int transpose_matrix(lua_State *L)
{
    bp_tensor *t = lbp_checktensor(L, 1);
    char shape[200];
    if (t->m.ndim != 2)
        lbp_error(L, "t: a tensor of shape %s is no matrix; transpose(i, j) or permute turn other shapes",
                  bp_shape_text(t->m.ndim, t->m.shape, shape));
    return permuted(L, 0, 1);
}

/*** t:clone() -> tensor
 * A copy in memory of its own; gradients flow through it. */
static int clone(lua_State *L) { return call_op(L, &bp__op_copy, 1); }

static int assign(lua_State *L, const char *who)
{
    lbp_checktensor(L, 1);
    if (lua_isnoneornil(L, 2)) lbp_typeerror(L, 2, who, "a value");
    lua_settop(L, 2);
    lbp_assign(L, lbp_enter(L), 1, 2);
    lua_settop(L, 1);
    return 1;
}

/*** t:fill_(value) -> t
 * Sets every element to a number. */
static int fill(lua_State *L) { return assign(L, "fill_"); }
/*** t:copy_(value) -> t
 * Takes over the values of a tensor or table, converted and broadcast. */
static int copy_from(lua_State *L) { return assign(L, "copy_"); }

/*** bp.is_tensor(value) -> boolean
 * Whether it is a tensor, be it freed. */
static int is_tensor(lua_State *L)
{
    lua_pushboolean(L, lbp_testbox(L, 1) != NULL);
    return 1;
}

static const luaL_Reg methods[] = {
    { "shape", get_shape },
    { "size", get_shape },
    { "stride", get_strides },
    { "dim", get_ndim },
    { "numel", get_count },
    { "is_contiguous", get_contiguous },
    { "shares_memory", shares_memory },
    { "to", to_dtype },
    { "transpose", transpose },
    { "t", transpose_matrix },
    { "clone", clone },
    { "fill_", fill },
    { "copy_", copy_from },
    { "free", free_tensor },
    { "is_freed", is_freed },
    { NULL, NULL },
};

static const luaL_Reg metamethods[] = {
    { "__gc", lbp_collect_box },
    { "__close", close_tensor },
    { "__unm", negate },
    { "__eq", equal },
    { "__lt", less },
    { "__le", less_or_equal },
    { "__len", length },
    { "__concat", concatenate },
    { "__tostring", lbp_tensor_tostring },
    { NULL, NULL },
};

/* The fields of the table at `from`, but one, go into the table on top. */
static void copy_fields(lua_State *L, int from, const char *but)
{
    for (lua_pushnil(L); lua_next(L, from);) {
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -4);
    }
    lua_pushnil(L);
    lua_setfield(L, -2, but);
}

/* Takes the table off the top and gives its number in the registry; `known` unless 0. */
static int number_of(lua_State *L, int known)
{
    if (!known) return luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pop(L, 1);
    return known;
}

/* Makes core.methods and the metatables (the same tables at every opening, so that older tensors follow). */
void lbp_open_tensor(lua_State *L, lbp_state *s)
{
    static const struct {
        const char *event;
        const bp_op *op;
    } arithmetic[] = { { "__add", &bp__op_add }, { "__sub", &bp__op_sub }, { "__mul", &bp__op_mul },
                       { "__div", &bp__op_div }, { "__pow", &bp__op_pow }, { "__mod", &bp__op_mod } };
    lua_newtable(L);
    luaL_setfuncs(L, methods, 0);
    luaL_newmetatable(L, LBP_TENSOR);
    luaL_setfuncs(L, metamethods, 0);
    for (size_t i = 0; i < sizeof arithmetic / sizeof *arithmetic; i++) {
        lbp_push_op(L, s, arithmetic[i].op, false);
        lua_setfield(L, -2, arithmetic[i].event);
    }
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, lbp_tensor_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pushvalue(L, -2);
    lua_setfield(L, -2, "__methods"); /* for completion at the prompt, and for messages */
    lua_pushcfunction(L, lbp_tensor_newindex);
    lua_setfield(L, -2, "__newindex");
    luaL_newmetatable(L, LBP_TENSOR " (freed)");
    copy_fields(L, lua_gettop(L) - 1, "__gc");
    s->freed_metatable = number_of(L, s->freed_metatable);
    s->metatable = number_of(L, s->metatable);
    lua_setfield(L, -2, "methods");
    lua_pushcfunction(L, is_tensor);
    lua_setfield(L, -2, "is_tensor");
    lua_pushcfunction(L, lbp_tensor_slide);
    lua_setfield(L, -2, "slide");
}
