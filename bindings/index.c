/* index.c - t[key] and t[key] = value.
 *
 *   t[2]                    the second slice along dimension 1, -1 the last
 *   t[{2, {1, 3}, {}}]      one entry per dimension: a position (the dimension goes), {first, last} or {first, last, step} both ends
 *                           included, {} all; dimensions not named are taken whole
 *   t[mask]                 the values where a bool tensor of the same shape holds, as one dimension
 *   t[positions]            an integer tensor: those slices along dimension 1
 *
 * Positions and ranges give views, so assigning through them writes into t. */
#include "lbp.h"

#include "../core/autodiff/tape.h"

#include <string.h>

typedef struct step {
    const bp_op *op;
    int n_args;
    bp_arg args[4];
} step;

typedef struct path {
    int n;
    step steps[BP_MAX_DIMS];
} path;

/* ---- reading a key ---- */

/* The position v of dimension number `dim` (from 0) of t, as 0..size-1. */
static int64_t position(lua_State *L, const bp_tensor *t, int dim, int64_t v)
{
    int64_t n = t->m.shape[dim], at = v > 0 ? v - 1 : v + n;
    char shape[200];
    if (v == 0 || at < 0 || at >= n)
        lbp_error(L, "index %I of dimension %d lies outside 1..%I (tensor %s %s); positions count from 1, from the end with -1",
                  (lua_Integer)v, dim + 1, (lua_Integer)n, bp_dtype_name(t->m.dtype), bp_shape_text(t->m.ndim, t->m.shape, shape));
    return at;
}

static int64_t range_entry(lua_State *L, int dim, int which)
{
    int64_t v;
    lua_rawgeti(L, -1, which);
    if (!lbp_towhole(L, -1, &v))
        lbp_error(L, "entry %d of the range for dimension %d is %s; a range is {first, last} or {first, last, step} of whole numbers",
                  which, dim + 1, lbp_describe(L, -1));
    lua_pop(L, 1);
    return v;
}

/* The range on top of the stack. False: all of the dimension. */
static bool read_range(lua_State *L, const bp_tensor *t, int dim, int axis, step *out)
{
    lua_Unsigned n = lua_rawlen(L, -1);
    if (n == 0) return false;
    if (n == 1 || n > 3)
        lbp_error(L,
                  "the range for dimension %d has %d entries; it is {first, last}, {first, last, step} or {} for all ({3, -1}: from 3 on)",
                  dim + 1, (int)n);
    int64_t first = range_entry(L, dim, 1), last = range_entry(L, dim, 2), by = n == 3 ? range_entry(L, dim, 3) : 1;
    int64_t size = t->m.shape[dim];
    if (by < 1)
        lbp_error(L, "the range for dimension %d has step %I; a step is 1 or more (flip turns a dimension round)", dim + 1,
                  (lua_Integer)by);
    int64_t start = first > 0 ? first - 1 : first + size, stop = last > 0 ? last : last + size + 1;
    if (last == 0) stop = 0;
    bool empty = stop == start && start >= 0 && start <= size && first != 0;
    if (!empty) {
        position(L, t, dim, first);
        position(L, t, dim, last);
        if (stop < start)
            lbp_error(L, "the range {%I, %I} for dimension %d runs backwards; flip turns a dimension round", (lua_Integer)first,
                      (lua_Integer)last, dim + 1);
    }
    out->op = &bp__op_slice;
    out->n_args = 4;
    out->args[0] = bp_int(axis);
    out->args[1] = bp_int(start);
    out->args[2] = bp_int(stop);
    out->args[3] = bp_int(by);
    return true;
}

static void add_select(lua_State *L, const bp_tensor *t, int dim, int axis, int64_t v, path *p)
{
    step *out = &p->steps[p->n++];
    out->op = &bp__op_select;
    out->n_args = 2;
    out->args[0] = bp_int(axis);
    out->args[1] = bp_int(position(L, t, dim, v));
}

/* The key at idx as a list of views to take of t. */
static void read_path(lua_State *L, const bp_tensor *t, int idx, path *p)
{
    int64_t v;
    char shape[200];
    p->n = 0;
    if (lbp_towhole(L, idx, &v)) {
        if (t->m.ndim == 0) lbp_error(L, "index %I into a tensor with no dimensions; its value is t:item()", (lua_Integer)v);
        add_select(L, t, 0, 0, v, p);
        return;
    }
    if (lua_type(L, idx) != LUA_TTABLE)
        lbp_error(L, "a tensor is indexed by a position, a table of positions and ranges, or a tensor, not by %s", lbp_describe(L, idx));
    int n = (int)lua_rawlen(L, idx), axis = 0;
    if (n > t->m.ndim)
        lbp_error(L, "%d indices for a tensor of %d dimensions %s", n, t->m.ndim, bp_shape_text(t->m.ndim, t->m.shape, shape));
    for (int dim = 0; dim < n; dim++) {
        lua_rawgeti(L, idx, dim + 1);
        if (lbp_towhole(L, -1, &v))
            add_select(L, t, dim, axis, v, p);
        else if (lua_type(L, -1) == LUA_TTABLE) {
            if (read_range(L, t, dim, axis, &p->steps[p->n])) p->n++;
            axis++;
        } else
            lbp_error(L, "the index for dimension %d is %s; a position, {first, last}, {first, last, step} or {} is expected", dim + 1,
                      lbp_describe(L, -1));
        lua_pop(L, 1);
    }
}

/* *t, a reference of ours, becomes the view. Does not raise. */
static bp_status follow(bp_ctx *ctx, const path *p, bp_tensor **t)
{
    bp_status status = BP_OK;
    for (int i = 0; i < p->n && status == BP_OK; i++) {
        bp_tensor *view = NULL;
        status = bp_apply(ctx, p->steps[i].op, 1, t, p->steps[i].n_args, p->steps[i].args, &view);
        bp_tensor_release(*t);
        *t = view;
    }
    return status;
}

/* ---- t[key] ---- */

typedef enum field { FIELD_DTYPE = 1, FIELD_NDIM, FIELD_GRAD, FIELD_REQUIRES_GRAD, FIELD_IS_LEAF } field;

static const struct {
    const char *name;
    field which;
} fields[] = { { "dtype", FIELD_DTYPE },
               { "ndim", FIELD_NDIM },
               { "grad", FIELD_GRAD },
               { "requires_grad", FIELD_REQUIRES_GRAD },
               { "is_leaf", FIELD_IS_LEAF } };
enum { FIELDS = sizeof fields / sizeof *fields };

static const char *field_name(const void *ud, int i)
{
    (void)ud;
    return fields[i].name;
}

static int push_field(lua_State *L, const char *name)
{
    field which = (field)0;
    for (int i = 0; i < FIELDS && !which; i++)
        if (strcmp(name, fields[i].name) == 0) which = fields[i].which;
    bp_tensor *t = which ? lbp_checktensor(L, 1) : NULL;
    switch (which) {
    case FIELD_DTYPE: lua_pushstring(L, bp_dtype_name(t->m.dtype)); break;
    case FIELD_NDIM: lua_pushinteger(L, t->m.ndim); break;
    case FIELD_GRAD: lbp_push_grad(L, 1); break;
    case FIELD_REQUIRES_GRAD: lua_pushboolean(L, bp_tensor_requires_grad(t)); break;
    case FIELD_IS_LEAF: lua_pushboolean(L, !t->var || t->var->leaf); break;
    default: lua_pushnil(L); break;
    }
    return 1;
}

/*** t[key] -> tensor
 * t[2] is the second slice along dimension 1, t[-1] the last; t[{2, {1, 3}, {}}] takes one entry per dimension: a position, {first, last}
 * or {first, last, step} with both ends included, or {} for all; dimensions not named are taken whole. These are views: they share t's
 * memory. t[mask] gives the values where a bool tensor of the same shape holds; t[positions] the slices at the positions in an integer
 * tensor. */
/*** t[key] = value
 * Writes a number, tensor or table, converted and broadcast, where t[key] is; key may be a bool mask. */
/*** t.dtype -> string
 * "f32", "f64", "i32", "i64", "u8" or "bool". */
/*** t.ndim -> integer
 * The number of dimensions. */
/*** t.grad -> tensor | nil
 * The gradient that backward gathered; can be set to a tensor of the same shape and dtype, or to nil. */
/*** t.requires_grad -> boolean
 * Whether a gradient flows through t; can be set on tensors that are no result of an op. */
/*** t.is_leaf -> boolean
 * Whether t is no result of an op, so that backward gathers in t.grad. */
int lbp_tensor_index(lua_State *L)
{
    if (lua_type(L, 2) == LUA_TSTRING) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
        return push_field(L, lua_tostring(L, 2));
    }
    lbp_state *s = lbp_enter(L);
    bp_tensor *t = lbp_checktensor(L, 1), *key = lbp_totensor(L, 2);
    if (key) {
        lua_settop(L, 2);
        lbp_push_op(L, s, key->m.dtype == BP_BOOL ? &bp__op_masked_select : &bp__op_take, false);
        lua_insert(L, 1);
        lua_call(L, 2, 1);
        return 1;
    }
    path p;
    read_path(L, t, 2, &p);
    lbp_box *box = lbp_newbox(L, s);
    t = bp_tensor_retain(lbp_checktensor(L, 1));
    bp_status status = follow(s->ctx, &p, &t);
    if (status == BP_OK) lbp_fill(box, t);
    lbp_check(L, status);
    return 1;
}

/*** core.slide(view, t, first, last)
 * Has view be t[{{first, last}}] from now on: an earlier view that nobody else looks at any more serves again. */
int lbp_tensor_slide(lua_State *L)
{
    lbp_state *s = lbp_enter(L);
    int64_t first, last;
    lbp_checktensor(L, 1);
    bp_tensor *t = lbp_checktensor(L, 2), *view = NULL;
    if (!lbp_towhole(L, 3, &first) || !lbp_towhole(L, 4, &last) || t->m.ndim == 0 || first < 1 || last < first || last > t->m.shape[0])
        lbp_error(L, "slide: the range from %s to %s; expected positions along dimension 1, in order", luaL_tolstring(L, 3, NULL),
                  luaL_tolstring(L, 4, NULL));
    const bp_arg args[] = { bp_int(0), bp_int(first - 1), bp_int(last), bp_int(1) };
    bp_tensor_retain(t);
    bp_status status = bp_apply(s->ctx, &bp__op_slice, 1, &t, 4, args, &view);
    bp_tensor_release(t);
    lbp_check(L, status);
    lbp_fill(lbp_testbox(L, 1), view);
    return 0;
}

/* ---- t[key] = value ---- */

static bp_arg shape_arg(const bp_tensor *t) { return bp_list(t->m.ndim, t->m.shape); }

/* *v, a reference of ours, becomes op(*v). */
static bp_status replace(bp_ctx *ctx, const bp_op *op, int n_args, const bp_arg *args, bp_tensor **v)
{
    bp_tensor *out = NULL;
    bp_status status = bp_apply(ctx, op, 1, v, n_args, args, &out);
    bp_tensor_release(*v);
    *v = out;
    return status;
}

/* Writes v (a reference of ours) into t. Does not raise. */
static bp_status write_into(bp_ctx *ctx, bp_tensor *t, bp_tensor *v)
{
    bp_status status = BP_OK;
    bp_arg dtype = bp_int(t->m.dtype), shape = shape_arg(t);
    if (v->m.dtype != t->m.dtype)
        status = replace(ctx, &bp__op_cast, 1, &dtype, &v);
    else if (v->storage == t->storage)
        status = replace(ctx, &bp__op_copy, 0, NULL, &v);
    if (status == BP_OK && !bp_shape_equal(v->m.ndim, v->m.shape, t->m.ndim, t->m.shape))
        status = replace(ctx, &bp__op_expand, 1, &shape, &v);
    if (status == BP_OK) status = bp_apply(ctx, &bp__op_copy, 1, &v, 0, NULL, &t);
    bp_tensor_release(v);
    return status;
}

/* Leaves at idx a tensor made of a number, a boolean or a table there. */
static void box_value(lua_State *L, lbp_state *s, int idx, bp_dtype dtype)
{
    if (lbp_testbox(L, idx)) return;
    if (lua_type(L, idx) == LUA_TNUMBER || lua_type(L, idx) == LUA_TBOOLEAN) {
        int64_t element = 0;
        lbp_read_element(L, idx, dtype, &element, "the value");
        lbp_box *box = lbp_newbox(L, s);
        bp_tensor *t;
        bool paused = bp_pause_capture(s->ctx, true);
        bp_status status = bp_tensor_new(s->ctx, dtype, 0, NULL, &t);
        bp_pause_capture(s->ctx, paused);
        lbp_check(L, status);
        memcpy(bp_data(t), &element, bp_dtype_size(dtype));
        lbp_fill(box, t);
    } else if (lua_type(L, idx) == LUA_TTABLE) {
        lbp_pushvalue(L, idx, dtype, "the value");
    } else
        lbp_error(L, "the value is %s; a number, a tensor or a table of numbers is expected", lbp_describe(L, idx));
    lua_replace(L, idx);
}

void lbp_assign(lua_State *L, lbp_state *s, int target, int value)
{
    box_value(L, s, value, lbp_checktensor(L, target)->m.dtype);
    bp_tensor *t = lbp_checktensor(L, target), *v = lbp_checktensor(L, value);
    bp_tensor_retain(t);
    bp_status status = write_into(s->ctx, t, bp_tensor_retain(v));
    bp_tensor_release(t);
    lbp_check(L, status);
}

static void assign_masked(lua_State *L, lbp_state *s)
{
    if (lbp_checktensor(L, 2)->m.dtype != BP_BOOL)
        lbp_error(L, "assignment through a tensor of %s; a bool mask is expected", bp_dtype_name(lbp_checktensor(L, 2)->m.dtype));
    bp_tensor *in[3] = { lbp_checktensor(L, 2), lbp_checktensor(L, 3), lbp_checktensor(L, 1) }, *out = NULL;
    for (int i = 0; i < 3; i++) bp_tensor_retain(in[i]);
    bp_status status = bp_apply(s->ctx, &bp__op_where, 3, in, 0, NULL, &out);
    if (status == BP_OK) status = write_into(s->ctx, in[2], out);
    for (int i = 0; i < 3; i++) bp_tensor_release(in[i]);
    lbp_check(L, status);
}

static void set_field(lua_State *L)
{
    const char *name = lua_tostring(L, 2);
    if (strcmp(name, "grad") == 0)
        lbp_set_grad(L, 1, 3);
    else if (strcmp(name, "requires_grad") == 0) {
        if (lua_type(L, 3) != LUA_TBOOLEAN) lbp_error(L, "requires_grad is set to %s; true or false is expected", lbp_describe(L, 3));
        lbp_set_requires_grad(L, 1, lua_toboolean(L, 3));
    } else {
        const char *near = lbp_nearest(name, FIELDS, field_name, NULL);
        lbp_error(L, "a tensor has no field '%s' to set%s%s%s; grad and requires_grad can be set", name, near ? " (did you mean '" : "",
                  near ? near : "", near ? "'?)" : "");
    }
}

int lbp_tensor_newindex(lua_State *L)
{
    lua_settop(L, 3);
    if (lua_type(L, 2) == LUA_TSTRING) {
        set_field(L);
        return 0;
    }
    lbp_state *s = lbp_enter(L);
    box_value(L, s, 3, lbp_checktensor(L, 1)->m.dtype);
    if (lbp_totensor(L, 2)) {
        assign_masked(L, s);
        return 0;
    }
    path p;
    read_path(L, lbp_checktensor(L, 1), 2, &p);
    bp_tensor *t = bp_tensor_retain(lbp_checktensor(L, 1)), *v = bp_tensor_retain(lbp_checktensor(L, 3));
    bp_status status = follow(s->ctx, &p, &t);
    if (status == BP_OK)
        status = write_into(s->ctx, t, v);
    else
        bp_tensor_release(v);
    bp_tensor_release(t);
    lbp_check(L, status);
    return 0;
}
