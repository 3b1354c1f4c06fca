/* convert.c - tensors from Lua values and bytes, and back: tensor{...}, item, totable, from_bytes, to_bytes. */
#include "lbp.h"

#include <string.h>

/* ---- one element ---- */

void lbp_push_element(lua_State *L, bp_dtype dtype, const void *p)
{
    switch (dtype) {
    case BP_F32: lua_pushnumber(L, (double)*(const float *)p); break;
    case BP_F64: lua_pushnumber(L, *(const double *)p); break;
    case BP_I32: lua_pushinteger(L, *(const int32_t *)p); break;
    case BP_I64: lua_pushinteger(L, *(const int64_t *)p); break;
    case BP_U8: lua_pushinteger(L, *(const uint8_t *)p); break;
    default: lua_pushboolean(L, *(const uint8_t *)p); break;
    }
}

static void check_range(lua_State *L, int idx, bp_dtype dtype, int64_t v, int64_t min, int64_t max, const char *what)
{
    if (v < min || v > max)
        lbp_error(L, "%s is %s; %s holds %I to %I", what, lbp_describe(L, idx), bp_dtype_name(dtype), (lua_Integer)min, (lua_Integer)max);
}

void lbp_read_element(lua_State *L, int idx, bp_dtype dtype, void *p, const char *what)
{
    int64_t v = 0;
    bool truth = lua_type(L, idx) == LUA_TBOOLEAN;
    if (!truth && lua_type(L, idx) != LUA_TNUMBER) lbp_error(L, "%s is %s; a number is expected", what, lbp_describe(L, idx));
    double number = truth ? lua_toboolean(L, idx) : lua_tonumber(L, idx);
    if (truth)
        v = lua_toboolean(L, idx);
    else if (!bp_is_float(dtype) && dtype != BP_BOOL && !lbp_towhole(L, idx, &v))
        lbp_error(L, "%s is %s; %s holds whole numbers", what, lbp_describe(L, idx), bp_dtype_name(dtype));
    switch (dtype) {
    case BP_F32: *(float *)p = (float)number; break;
    case BP_F64: *(double *)p = number; break;
    case BP_I64: *(int64_t *)p = v; break;
    case BP_I32:
        check_range(L, idx, dtype, v, INT32_MIN, INT32_MAX, what);
        *(int32_t *)p = (int32_t)v;
        break;
    case BP_U8:
        check_range(L, idx, dtype, v, 0, UINT8_MAX, what);
        *(uint8_t *)p = (uint8_t)v;
        break;
    default: *(uint8_t *)p = number != 0; break;
    }
}

/* ---- from nested tables ---- */

typedef struct builder {
    lua_State *L;
    const char *what;
    bp_dtype dtype;
    int ndim;
    int64_t shape[BP_MAX_DIMS], at[BP_MAX_DIMS];
    char *to;
    size_t size;
} builder;

/* "entry [2][1] of tensor" */
static const char *place(const builder *b, int depth)
{
    lua_State *L = b->L;
    lua_pushstring(L, depth ? "entry " : "the value");
    for (int i = 0; i < depth; i++) {
        lua_pushfstring(L, "[%I]", (lua_Integer)b->at[i] + 1);
        lua_concat(L, 2);
    }
    return lua_pushfstring(L, "%s: %s", b->what, lua_tostring(L, -1));
}

/* The shape is that of the first entries all the way down; the first scalar decides between bool and numbers. */
static void measure(builder *b, int idx, int dtype)
{
    lua_State *L = b->L;
    int top = lua_gettop(L);
    lua_pushvalue(L, idx);
    bool empty = false;
    b->ndim = 0;
    while (lua_type(L, -1) == LUA_TTABLE && !empty) {
        if (b->ndim == BP_MAX_DIMS)
            lbp_error(L, "%s: tables are nested deeper than %d; a tensor has at most %d dimensions", b->what, BP_MAX_DIMS, BP_MAX_DIMS);
        lua_Unsigned n = lua_rawlen(L, -1);
        b->shape[b->ndim++] = (int64_t)n;
        empty = n == 0;
        lua_rawgeti(L, -1, 1);
        lua_remove(L, -2);
    }
    b->dtype = dtype >= 0 ? (bp_dtype)dtype : lua_type(L, -1) == LUA_TBOOLEAN ? BP_BOOL : BP_F32;
    lua_settop(L, top);
}

/* Writes the value on top, at that depth; leaves the stack as it was. */
static void build(builder *b, int depth)
{
    lua_State *L = b->L;
    if (depth == b->ndim) {
        int type = lua_type(L, -1);
        if (lbp_testbox(L, -1)) lbp_error(L, "%s is a tensor; join tensors with stack or concat", place(b, depth));
        if (type != LUA_TNUMBER && type != LUA_TBOOLEAN) {
            const char *got = type == LUA_TTABLE ? "a table, where others hold values" : lbp_describe(L, -1);
            lbp_error(L, "%s is %s; a number is expected", place(b, depth), got);
        }
        int64_t whole;
        if (type == LUA_TNUMBER && !bp_is_float(b->dtype) && b->dtype != BP_BOOL && !lbp_towhole(L, -1, &whole)) {
            const char *got = lbp_describe(L, -1);
            lbp_error(L, "%s is %s; %s holds whole numbers", place(b, depth), got, bp_dtype_name(b->dtype));
        }
        lbp_read_element(L, -1, b->dtype, b->to, b->what);
        b->to += b->size;
        return;
    }
    if (lua_type(L, -1) != LUA_TTABLE) {
        const char *got = lbp_describe(L, -1);
        lbp_error(L, "%s is %s, but its neighbours are tables of %I entries", place(b, depth), got, (lua_Integer)b->shape[depth]);
    }
    lua_Unsigned n = lua_rawlen(L, -1);
    if ((int64_t)n != b->shape[depth])
        lbp_error(L, "%s has %I entries, but the first of its kind has %I; all rows must be of one length", place(b, depth), (lua_Integer)n,
                  (lua_Integer)b->shape[depth]);
    for (int64_t i = 0; i < (int64_t)n; i++) {
        b->at[depth] = i;
        lua_rawgeti(L, -1, i + 1);
        build(b, depth + 1);
        lua_pop(L, 1);
    }
}

void lbp_pushvalue(lua_State *L, int idx, int dtype, const char *what)
{
    builder b;
    idx = lua_absindex(L, idx);
    luaL_checkstack(L, BP_MAX_DIMS + 16, NULL);
    memset(&b, 0, sizeof b);
    b.L = L;
    b.what = what;
    measure(&b, idx, dtype);
    lbp_state *s = lbp_enter(L);
    lbp_box *box = lbp_newbox(L, s);
    bp_tensor *t = NULL;
    bool paused = bp_pause_capture(s->ctx, true); /* values of the program are constants to a capture */
    bp_status status = bp_tensor_new(s->ctx, b.dtype, b.ndim, b.shape, &t);
    bp_pause_capture(s->ctx, paused);
    lbp_check(L, status);
    lbp_fill(box, t);
    b.to = bp_data(t);
    b.size = bp_dtype_size(b.dtype);
    lua_pushvalue(L, idx);
    build(&b, 0);
    lua_pop(L, 1);
}

/*** core.tensor(value, {dtype =, requires_grad = false}) -> tensor
 * From a number, a boolean or nested tables of them, all rows of a depth being of one length. dtype: f32 for numbers, bool for booleans. */
static int new_tensor(lua_State *L)
{
    static const char *const names[] = { "dtype", "requires_grad", NULL };
    lua_settop(L, 2);
    lbp_options(L, 2, "tensor", names);
    int dtype = lbp_option_dtype(L, 2, "tensor", "dtype", -1);
    bool wants_grad = lbp_option_boolean(L, 2, "tensor", "requires_grad", false);
    if (lua_isnil(L, 1)) lbp_typeerror(L, 1, "tensor", "a number or a table of numbers");
    if (lbp_testbox(L, 1)) lbp_error(L, "tensor: argument 1 is a tensor already; t:clone() copies it, t:to(dtype) converts it");
    lbp_pushvalue(L, 1, dtype, "tensor");
    if (wants_grad) lbp_set_requires_grad(L, 3, true);
    return 1;
}

/* ---- back to Lua ---- */

static void check_readable(lua_State *L, bp_tensor *t)
{
    if (!t->storage) lbp_error(L, "the value of this tensor was not kept");
    lbp_check(L, bp_tensor_readable(t));
}

/*** t:item() -> number | boolean
 * The value of a tensor of one element: an integer for integer dtypes, a boolean for bool. Errors: more elements; the value belongs to a
 * step being captured. */
static int item(lua_State *L)
{
    bp_tensor *t = lbp_checktensor(L, 1);
    char shape[200];
    if (bp_count(t) != 1)
        lbp_error(L, "item: a tensor of shape %s has %I values; index one of them, or use totable()",
                  bp_shape_text(t->m.ndim, t->m.shape, shape), (lua_Integer)bp_count(t));
    check_readable(L, t);
    lbp_push_element(L, t->m.dtype, bp_data(t));
    return 1;
}

static void push_nested(lua_State *L, const bp_tensor *t, int dim, const char *p)
{
    if (dim == t->m.ndim) {
        lbp_push_element(L, t->m.dtype, p);
        return;
    }
    int64_t n = t->m.shape[dim], by = t->m.stride[dim] * (int64_t)bp_dtype_size(t->m.dtype);
    if (n > INT32_MAX) lbp_error(L, "totable: %I entries do not fit in a table", (lua_Integer)n);
    lua_createtable(L, (int)n, 0);
    for (int64_t i = 0; i < n; i++) {
        push_nested(L, t, dim + 1, p + i * by);
        lua_rawseti(L, -2, i + 1);
    }
}

/*** t:totable() -> table
 * Its values in nested tables; one value when it has no dimensions. */
static int totable(lua_State *L)
{
    lua_settop(L, 1);
    luaL_checkstack(L, BP_MAX_DIMS + 8, NULL);
    bp_tensor *t = lbp_hold(L, 1);
    check_readable(L, t);
    push_nested(L, t, 0, bp_count(t) ? bp_data(t) : NULL);
    return 1;
}

/* ---- bytes: row-major, in the machine's order ---- */

/*** core.from_bytes(bytes, dtype = "u8", shape = nil) -> tensor
 * From a string of elements, row-major, in the machine's byte order. shape: one dimension that takes them all. */
static int from_bytes(lua_State *L)
{
    size_t n;
    int64_t shape[BP_MAX_DIMS];
    int ndim = 1;
    char text[200];
    if (lua_type(L, 1) != LUA_TSTRING) lbp_typeerror(L, 1, "from_bytes", "a string");
    const char *bytes = lua_tolstring(L, 1, &n);
    bp_dtype dtype = (bp_dtype)lbp_checkdtype(L, 2, "from_bytes", BP_U8);
    size_t size = bp_dtype_size(dtype);
    shape[0] = (int64_t)(n / size);
    if (!lua_isnoneornil(L, 3)) ndim = lbp_checkshape(L, 3, "from_bytes", shape);
    int64_t count = bp_shape_count(ndim, shape);
    if (count < 0 || n % size || (uint64_t)count != n / size)
        lbp_error(L, "from_bytes: %I bytes for a tensor %s %s, which takes %I", (lua_Integer)n, bp_dtype_name(dtype),
                  bp_shape_text(ndim, shape, text), (lua_Integer)count * (lua_Integer)size);
    lbp_state *s = lbp_enter(L);
    lbp_box *box = lbp_newbox(L, s);
    bp_tensor *t = NULL;
    bool paused = bp_pause_capture(s->ctx, true);
    bp_status status = bp_tensor_new(s->ctx, dtype, ndim, shape, &t);
    bp_pause_capture(s->ctx, paused);
    lbp_check(L, status);
    if (dtype == BP_BOOL)
        for (size_t i = 0; i < n; i++) bp_data(t)[i] = bytes[i] != 0;
    else if (n)
        memcpy(bp_data(t), bytes, n);
    lbp_fill(box, t);
    return 1;
}

/*** t:to_bytes() -> string
 * Its elements, row-major, in the machine's byte order. */
static int to_bytes(lua_State *L)
{
    lua_settop(L, 1);
    bp_tensor *t = lbp_hold(L, 1);
    check_readable(L, t);
    size_t n = (size_t)bp_count(t) * bp_dtype_size(t->m.dtype);
    luaL_Buffer b;
    char *to = luaL_buffinitsize(L, &b, n);
    lbp_check(L, bp_tensor_read(t, t->m.dtype, to, bp_count(t)));
    luaL_pushresultsize(&b, n);
    return 1;
}

void lbp_open_convert(lua_State *L, lbp_state *s)
{
    static const luaL_Reg functions[] = {
        { "tensor", new_tensor }, { "from_bytes", from_bytes }, { "to_bytes", to_bytes }, { NULL, NULL }
    };
    static const luaL_Reg methods[] = { { "item", item }, { "totable", totable }, { "to_bytes", to_bytes }, { NULL, NULL } };
    (void)s;
    luaL_setfuncs(L, functions, 0);
    lua_getfield(L, -1, "methods");
    luaL_setfuncs(L, methods, 0);
    lua_pop(L, 1);
}
