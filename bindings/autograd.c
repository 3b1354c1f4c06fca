/* autograd.c - gradients from Lua: backward, grad, requires_grad, gradients, no_grad, and the modes of the context. */
#include "lbp.h"

#include "../core/autodiff/tape.h"
#include "../core/base/memory.h"

/* ---- backward ---- */

static const char *const backward_names[] = { "grad", "retain_graph", "create_graph", NULL };

/* The options at idx, in t:backward{...} and gradients(y, xs, {...}). Leaves the seed tensor, or nil, on the stack. */
static bp_backward_options read_options(lua_State *L, int idx, const char *who)
{
    lbp_options(L, idx, who, backward_names);
    bp_backward_options o = { lbp_option_boolean(L, idx, who, "retain_graph", false),
                              lbp_option_boolean(L, idx, who, "create_graph", false) };
    lbp_option_tensor(L, idx, who, "grad");
    if (lua_type(L, idx) == LUA_TTABLE)
        lua_getfield(L, idx, "grad");
    else
        lua_pushnil(L);
    return o;
}

/*** t:backward{grad =, retain_graph = false, create_graph = false}
 * Adds the gradient of t to the grad of every leaf that t depends on. grad weighs the elements of t (same shape and dtype; default 1, for a
 * t of one element). retain_graph keeps the history for another backward; create_graph notes the gradient's own computation, for gradients
 * of gradients. t:backward(grad, {...}) is the same. Errors: t has no history, or a used one; a value it needs was changed in place. */
static int backward(lua_State *L)
{
    lbp_state *s = lbp_enter(L);
    lua_settop(L, 3);
    bp_tensor *t = lbp_checktensor(L, 1), *seed = lbp_totensor(L, 2);
    bp_backward_options o = read_options(L, seed || lua_isnil(L, 2) ? 3 : 2, "backward");
    if (!seed) seed = lbp_totensor(L, -1);
    bp_tensor_retain(t);
    if (seed) bp_tensor_retain(seed);
    s->calling = L;
    bp_status status = bp_backward(t, seed, &o);
    bp_tensor_release(seed);
    bp_tensor_release(t);
    lbp_check(L, status);
    return 0;
}

/*** core.gradients(y, xs, {grad =, retain_graph = false, create_graph = false}) -> list
 * The gradients of y for a list of tensors, false where y does not depend on one, without touching any grad. For one tensor instead of a
 * list its gradient, or nil. Options as for t:backward. */
static int gradients(lua_State *L)
{
    lbp_state *s = lbp_enter(L);
    lua_settop(L, 3);
    lbp_checktensor(L, 1);
    bool one = lbp_testbox(L, 2) != NULL;
    if (!one && lua_type(L, 2) != LUA_TTABLE) lbp_typeerror(L, 2, "gradients", "a tensor or a list of tensors");
    bp_backward_options o = read_options(L, 3, "gradients");
    int n = one ? 1 : (int)lua_rawlen(L, 2), first = lua_gettop(L) + 1;
    luaL_checkstack(L, 2 * n + 8, "too many tensors");
    for (int i = 0; i < n; i++) {
        if (one)
            lua_pushvalue(L, 2);
        else
            lua_rawgeti(L, 2, i + 1);
        if (!lbp_totensor(L, -1)) lbp_error(L, "gradients: entry %d of the list is %s; a tensor is expected", i + 1, lbp_describe(L, -1));
    }
    bp_tensor **wrt = (bp_tensor **)lua_newuserdatauv(L, (2 * (size_t)n + 1) * sizeof *wrt, 0), **found = wrt + n;
    for (int i = 0; i < n; i++) lbp_newbox(L, s);
    for (int i = -1; i < n; i++) lbp_checktensor(L, i < 0 ? 1 : first + i); /* raises if one was freed meanwhile */
    bp_tensor *seed = lbp_totensor(L, 4), *t = bp_tensor_retain(lbp_checktensor(L, 1));
    if (seed) bp_tensor_retain(seed);
    for (int i = 0; i < n; i++) wrt[i] = bp_tensor_retain(lbp_testbox(L, first + i)->tensor);
    s->calling = L;
    bp_status status = bp_gradients(t, seed, n, wrt, &o, found);
    for (int i = 0; i < n; i++) bp_tensor_release(wrt[i]);
    bp_tensor_release(seed);
    bp_tensor_release(t);
    lbp_check(L, status);
    int boxes = first + n + 1;
    for (int i = 0; i < n; i++)
        if (found[i]) lbp_fill(lbp_testbox(L, boxes + i), found[i]);
    if (one) {
        if (!lbp_testbox(L, boxes)->tensor) lua_pushnil(L);
        return 1;
    }
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        if (lbp_testbox(L, boxes + i)->tensor)
            lua_pushvalue(L, boxes + i);
        else
            lua_pushboolean(L, 0);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* ---- on a tensor ---- */

void lbp_push_grad(lua_State *L, int idx)
{
    bp_tensor *t = lbp_checktensor(L, idx);
    if (!bp_tensor_grad(t)) {
        lua_pushnil(L);
        return;
    }
    lbp_box *box = lbp_newbox(L, lbp_enter(L));
    t = bp_tensor_retain(lbp_checktensor(L, idx));
    bp_status status = bp_settle_grad(t);
    bp_tensor *grad = bp_tensor_grad(t);
    if (grad) {
        lbp_fill(box, bp_tensor_retain(grad));
        t->var->grad_zero = false; /* whoever has it may change it */
    }
    bp_tensor_release(t);
    lbp_check(L, status);
}

void lbp_set_grad(lua_State *L, int idx, int value)
{
    lbp_enter(L);
    bp_tensor *t = lbp_checktensor(L, idx), *grad = lbp_totensor(L, value);
    if (!grad && !lua_isnil(L, value)) lbp_error(L, "grad is set to %s; a tensor or nil is expected", lbp_describe(L, value));
    bp_tensor_retain(t);
    bp_status status = bp_tensor_set_grad(t, grad);
    bp_tensor_release(t);
    lbp_check(L, status);
}

/* Plans hold what was trained when they were made. A tensor whose gradient is withdrawn, or wanted again, makes them old. */
void lbp_set_requires_grad(lua_State *L, int idx, bool wanted)
{
    lbp_state *s = lbp_enter(L);
    bp_tensor *t = lbp_checktensor(L, idx);
    lbp_box *box = lbp_testbox(L, idx);
    bool before = bp_tensor_requires_grad(t);
    lbp_check(L, bp_tensor_set_requires_grad(t, wanted));
    if (before == wanted || s->ctx->capture_id) return;
    if (before || box->frozen) s->generation++;
    box->frozen = before;
}

/*** t:requires_grad_(wanted = true) -> t
 * Says whether a gradient is wanted for t, an f32 or f64 tensor that is no result of an op; t.requires_grad tells, and sets it as well.
 * Plans captured before a parameter is frozen or thawed are made anew. */
static int requires_grad(lua_State *L)
{
    lbp_checktensor(L, 1);
    if (!lua_isnoneornil(L, 2) && lua_type(L, 2) != LUA_TBOOLEAN) lbp_typeerror(L, 2, "requires_grad_", "true or false");
    lbp_set_requires_grad(L, 1, lua_isnoneornil(L, 2) || lua_toboolean(L, 2));
    lua_settop(L, 1);
    return 1;
}

/*** t:retain_grad() -> t
 * Makes backward keep the gradient of t, the result of an op, in t.grad. */
static int retain_grad(lua_State *L)
{
    lbp_check(L, bp_tensor_retain_grad(lbp_checktensor(L, 1)));
    lua_settop(L, 1);
    return 1;
}

/* ---- hooks on gradients ---- */

typedef struct hook {
    lbp_state *state;
    int fn; /* the function's place in the registry */
    bp_tensor *grad, *replacement;
} hook;

static void release_hook(void *ud)
{
    hook *h = (hook *)ud;
    luaL_unref(h->state->main, LUA_REGISTRYINDEX, h->fn);
    bp_mem_free(h->state->ctx, h, sizeof *h);
}

/* fn(grad), in a protected call. */
static int run_hook(lua_State *L)
{
    hook *h = (hook *)lua_touserdata(L, 1);
    lua_rawgeti(L, LUA_REGISTRYINDEX, h->fn);
    lbp_box *box = lbp_newbox(L, h->state);
    lbp_fill(box, bp_tensor_retain(h->grad));
    lua_call(L, 1, 1);
    bp_tensor *t = lbp_totensor(L, -1);
    if (!t && !lua_isnil(L, -1)) lbp_error(L, "on_grad: the function returned %s; a gradient or nothing is expected", lbp_describe(L, -1));
    h->replacement = t ? bp_tensor_retain(t) : NULL;
    return 0;
}

static bp_status call_hook(void *ud, bp_tensor *grad, bp_tensor **replacement)
{
    hook *h = (hook *)ud;
    lua_State *L = h->state->calling;
    if (!lua_checkstack(L, 8)) return bp_fail(grad->ctx, BP_ENOMEM, "on_grad: out of memory");
    h->grad = grad;
    h->replacement = NULL;
    lua_pushcfunction(L, run_hook);
    lua_pushlightuserdata(L, h);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) {
        const char *text = lua_tostring(L, -1);
        bp_status status = bp_fail(grad->ctx, BP_ESTATE, "backward: a function given to on_grad or on_backward failed: %s",
                                   text ? text : "an error that is no string");
        lua_pop(L, 1);
        return status;
    }
    *replacement = h->replacement;
    return BP_OK;
}

/*** t:on_grad(fn) -> t
 * Has fn(gradient) called by the backward that passes t, the result of an op, once the gradient of t is whole. A tensor that fn returns
 * goes further back in its place; what t:retain_grad() and core.gradients give is the gradient as it arrived. Inside a captured function fn
 * runs at the recording alone: what it computes with tensors is repeated by every replay, the rest of it is not. fn must not hold t itself,
 * which would keep both alive, and must not call backward. */
static int on_grad(lua_State *L)
{
    lbp_state *s = lbp_enter(L);
    lbp_checktensor(L, 1);
    lbp_check_callable(L, 2, "on_grad");
    lua_settop(L, 2);
    int fn = luaL_ref(L, LUA_REGISTRYINDEX);
    hook *h = (hook *)bp_mem_zeroed(s->ctx, sizeof *h);
    bp_status status = BP_ENOMEM;
    if (h) {
        h->state = s;
        h->fn = fn;
        status = bp_tensor_on_grad(lbp_testbox(L, 1)->tensor, call_hook, h, release_hook);
    }
    if (status != BP_OK) {
        luaL_unref(L, LUA_REGISTRYINDEX, fn);
        if (h) bp_mem_free(s->ctx, h, sizeof *h);
        lbp_raise(L, status);
    }
    return 1;
}

/*** t:zero_grad() -> t
 * The gathered gradient counts as zero from here on. */
static int zero_grad(lua_State *L)
{
    lbp_enter(L);
    bp_tensor *t = bp_tensor_retain(lbp_checktensor(L, 1));
    bp_status status = bp_tensor_zero_grad(t);
    bp_tensor_release(t);
    lbp_check(L, status);
    lua_settop(L, 1);
    return 1;
}

/* Does the same to every tensor of the list at argument 1. */
static int for_each(lua_State *L, const char *who, bp_status (*fn)(bp_tensor *))
{
    lbp_enter(L);
    if (lua_type(L, 1) != LUA_TTABLE) lbp_typeerror(L, 1, who, "a list of tensors");
    int n = (int)lua_rawlen(L, 1);
    for (int i = 1; i <= n; i++) {
        lua_rawgeti(L, 1, i);
        bp_tensor *t = lbp_totensor(L, -1);
        if (!t) lbp_error(L, "%s: entry %d of the list is %s; a tensor is expected", who, i, lbp_describe(L, -1));
        bp_tensor_retain(t);
        bp_status status = fn(t);
        bp_tensor_release(t);
        lbp_check(L, status);
        lua_pop(L, 1);
    }
    return 0;
}

/*** core.zero_grads(list)
 * t:zero_grad() for every tensor of a list. */
static int zero_grads(lua_State *L) { return for_each(L, "zero_grads", bp_tensor_zero_grad); }

/*** core.gather_grads(list, grad) -> count
 * Brings the block of gradients that core.flatten made for these tensors up to date, before an optimizer reads it: gradients that were set
 * since move into it, those that count as zero are zero, also those of tensors that require none. Returns how many of the tensors had a
 * gradient since it last counted as zero. */
static int gather_grads(lua_State *L)
{
    lbp_enter(L);
    if (lua_type(L, 1) != LUA_TTABLE) lbp_typeerror(L, 1, "gather_grads", "a list of tensors");
    lua_settop(L, 2);
    int n = (int)lua_rawlen(L, 1), reached;
    bp_tensor **list = (bp_tensor **)lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *list, 0);
    lbp_hold(L, 2);
    for (int i = 0; i < n; i++) {
        lua_rawgeti(L, 1, i + 1);
        if (!(list[i] = lbp_totensor(L, -1)))
            lbp_error(L, "gather_grads: entry %d of the list is %s; a tensor is expected", i + 1, lbp_describe(L, -1));
        lua_pop(L, 1);
    }
    bp_tensor *grad = lbp_checktensor(L, 2);
    for (int i = 0; i < n; i++) bp_tensor_retain(list[i]);
    bp_status status = bp_gather_grads(n, list, grad, &reached);
    for (int i = 0; i < n; i++) bp_tensor_release(list[i]);
    lbp_check(L, status);
    lua_pushinteger(L, reached);
    return 1;
}

/*** t:detach() -> tensor
 * The same values in the same memory, without history. */
static int detach(lua_State *L)
{
    lbp_checktensor(L, 1);
    lbp_box *box = lbp_newbox(L, lbp_state_of(L));
    bp_tensor *out;
    lbp_check(L, bp_tensor_detach(lbp_checktensor(L, 1), &out));
    lbp_fill(box, out);
    return 1;
}

/*** core.flatten(list) -> {data =, grad =, offsets =}
 * Moves leaves of one dtype into one block, and their gradients into another, so that an optimizer is one pass; they become views of them.
 * data and grad are 1-d; tensor i begins at offsets[i] (from 1), on a 64-byte boundary; the gaps hold zeros. */
static int flatten(lua_State *L)
{
    lbp_state *s = lbp_enter(L);
    if (lua_type(L, 1) != LUA_TTABLE) lbp_typeerror(L, 1, "flatten", "a list of tensors");
    lua_settop(L, 1);
    int n = (int)lua_rawlen(L, 1);
    luaL_checkstack(L, n + 8, "too many tensors");
    lbp_box *data = lbp_newbox(L, s), *grad = lbp_newbox(L, s);
    lua_createtable(L, 0, 3);
    lua_pushvalue(L, 2);
    lua_setfield(L, 4, "data");
    lua_pushvalue(L, 3);
    lua_setfield(L, 4, "grad");
    lua_createtable(L, n, 0);
    bp_tensor **list = (bp_tensor **)lua_newuserdatauv(L, ((size_t)n + 1) * sizeof *list, 0);
    for (int i = 0; i < n; i++) {
        lua_rawgeti(L, 1, i + 1);
        if (!(list[i] = lbp_totensor(L, -1)))
            lbp_error(L, "flatten: entry %d of the list is %s; a tensor is expected", i + 1, lbp_describe(L, -1));
    }
    bp_tensor *d, *g;
    for (int i = 0; i < n; i++) bp_tensor_retain(list[i]);
    bp_status status = bp_flatten(s->ctx, n, list, &d, &g);
    for (int i = 0; i < n; i++) {
        lua_pushinteger(L, (lua_Integer)list[i]->m.offset + 1);
        lua_rawseti(L, 5, i + 1);
        bp_tensor_release(list[i]);
    }
    lbp_check(L, status);
    lbp_fill(data, d);
    lbp_fill(grad, g);
    lua_settop(L, 5);
    lua_setfield(L, 4, "offsets");
    return 1;
}

/* ---- modes ---- */

static void restore_grad_mode(lbp_guard *g) { bp_set_grad_enabled(g->state->ctx, g->as.flag); }

static int with_grad_mode(lua_State *L, bool enabled, const char *who)
{
    lbp_check_callable(L, 1, who);
    lbp_state *s = lbp_state_of(L);
    int n = lua_gettop(L);
    lbp_guard *g = lbp_guarded(L, s, restore_grad_mode);
    g->as.flag = bp_grad_enabled(s->ctx);
    bp_set_grad_enabled(s->ctx, enabled);
    return lbp_call_guarded(L, n);
}

/*** bp.no_grad(fn, ...) -> fn's results
 * Calls fn(...) without noting anything for backward. fn cannot yield. */
static int no_grad(lua_State *L) { return with_grad_mode(L, false, "no_grad"); }
/*** bp.enable_grad(fn, ...) -> fn's results
 * Calls fn(...) noting for backward again, inside bp.no_grad. */
static int enable_grad(lua_State *L) { return with_grad_mode(L, true, "enable_grad"); }

static int mode(lua_State *L, const char *who, bool (*get)(const bp_ctx *), bool (*set)(bp_ctx *, bool))
{
    bp_ctx *ctx = lbp_context(L);
    if (!lua_isnoneornil(L, 1) && lua_type(L, 1) != LUA_TBOOLEAN) lbp_typeerror(L, 1, who, "true or false");
    lua_pushboolean(L, lua_isnoneornil(L, 1) ? get(ctx) : set(ctx, lua_toboolean(L, 1)));
    return 1;
}

/*** core.grad_enabled(enabled = nil) -> boolean
 * Whether ops are noted for backward; with an argument, sets it and returns what it was. */
static int grad_enabled(lua_State *L) { return mode(L, "grad_enabled", bp_grad_enabled, bp_set_grad_enabled); }
/*** core.training(on = nil) -> boolean
 * Whether the context is in training mode; with an argument, sets it and returns what it was. */
static int training(lua_State *L) { return mode(L, "training", bp_training, bp_set_training); }

void lbp_open_autograd(lua_State *L, lbp_state *s)
{
    static const luaL_Reg functions[] = { { "gradients", gradients },       { "flatten", flatten },   { "zero_grads", zero_grads },
                                          { "gather_grads", gather_grads }, { "no_grad", no_grad },   { "enable_grad", enable_grad },
                                          { "grad_enabled", grad_enabled }, { "training", training }, { NULL, NULL } };
    static const luaL_Reg methods[] = { { "backward", backward },
                                        { "requires_grad_", requires_grad },
                                        { "retain_grad", retain_grad },
                                        { "zero_grad", zero_grad },
                                        { "detach", detach },
                                        { "on_grad", on_grad },
                                        { NULL, NULL } };
    (void)s;
    luaL_setfuncs(L, functions, 0);
    lua_getfield(L, -1, "methods");
    luaL_setfuncs(L, methods, 0);
    lua_pop(L, 1);
}
