/* capture.c - core.capture(fn): fn runs once while a plan notes it; later calls with the same key replay the plan.
 *
 * Arguments may be tensors, plain values, and tables of these; a table with a metatable (a net, a data set) counts as one value by
 * identity. Results may be tensors and tables of tensors; a replay gives them back in the same arrangement, and other values as they were
 * the first time. */
#include "capture.h"

#include <string.h>

enum { MAX_PLANS = 64 };
#define CAPTURED "bp.Captured"

/* One plan and how to give back its results. */
typedef struct entry {
    lbp_held *owner; /* of the plan */
    uint64_t generation;
    int n_in, n_out, n_arguments;
    bool single;                 /* the result is one tensor and nothing else: no arrangement is looked at */
    int ends[LBP_MAX_ARGUMENTS]; /* of each argument in the key */
    size_t size;
    char key[];
} entry;
enum { UV_ARRANGEMENT = 1, UV_ANCHORS = 2 /* the arguments that the key names by address */, UV_OWNER = 3 };

typedef struct captured {
    const void *tag; /* &captured_tag: told from other userdata without a table lookup */
    lbp_state *state;
    int n, latest, n_hooks;
    entry *entries[MAX_PLANS];
} captured;
enum { UV_FUNCTION = 1, UV_ENTRIES = 2 /* the list that keeps the entries */, UV_HOOKS = 3 };
static const char captured_tag = 0;

/* ---- the list of plans ---- */

static void release_plan(lbp_guard *g)
{
    bp_plan_release((bp_plan *)g->as.pointer);
    g->as.pointer = NULL;
}

static bp_plan *plan_of(const entry *e) { return e->owner->guard ? (bp_plan *)e->owner->guard->as.pointer : NULL; }

static bool usable(const entry *e, const lbp_state *s)
{
    return plan_of(e) && e->generation == s->generation && !bp_plan_is_stale(plan_of(e));
}

static bool matches(const entry *e, const lbp_key *k) { return e->size == k->size && memcmp(e->key, k->bytes, k->size) == 0; }

/* The place of the key's plan, or -1. */
static int find_entry(captured *c, const lbp_key *k)
{
    for (int i = 0, at = c->latest; i < c->n; i++, at = at + 1 < c->n ? at + 1 : 0) {
        if (matches(c->entries[at], k) && usable(c->entries[at], c->state)) return c->latest = at;
    }
    return -1;
}

/* Takes what can no longer be replayed off the list. */
static void drop_stale(lua_State *L, captured *c)
{
    int n = 0;
    lua_getiuservalue(L, 1, UV_ENTRIES);
    for (int i = 0; i < c->n; i++) {
        if (!usable(c->entries[i], c->state)) {
            if (c->entries[i]->owner->guard) lbp_unguard(c->entries[i]->owner->guard);
            continue;
        }
        lua_rawgeti(L, -1, i + 1);
        lua_rawseti(L, -2, n + 1);
        c->entries[n++] = c->entries[i];
    }
    for (int i = n; i < c->n; i++) {
        lua_pushnil(L);
        lua_rawseti(L, -2, i + 1);
    }
    c->n = n;
    c->latest = 0;
    lua_pop(L, 1);
}

/* Names the first argument that differs from the latest plan's. */
static void too_many_plans(lua_State *L, const captured *c, const lbp_key *k) __attribute__((noreturn));
static void too_many_plans(lua_State *L, const captured *c, const lbp_key *k)
{
    const entry *e = c->entries[c->n - 1];
    int from = 1, from_before = 1, which = 0;
    for (; which < k->n_arguments && which < e->n_arguments; which++) {
        int n = k->ends[which] - from, n_before = e->ends[which] - from_before;
        if (n != n_before || memcmp(k->bytes + from, e->key + from_before, (size_t)n) != 0) break;
        from = k->ends[which];
        from_before = e->ends[which];
    }
    if (which == k->n_arguments || which == e->n_arguments)
        lbp_error(L, "capture: %d plans were made, which is the limit, because the number of arguments or a mode keeps changing",
                  MAX_PLANS);
    lbp_error(L,
              "capture: %d plans were made, which is the limit, because argument %d keeps changing (it is now %s); "
              "pass a number that changes as a tensor, and batches of few different shapes",
              MAX_PLANS, which + 1, lbp_describe(L, 2 + which));
}

/* ---- the first call ---- */

static void abandon(lbp_guard *g) { bp_plan_abandon(g->state->ctx); }

static entry *push_entry(lua_State *L, lbp_state *s, const lbp_key *k, int last)
{
    entry *e = (entry *)lua_newuserdatauv(L, sizeof *e + k->size, 3);
    memset(e, 0, sizeof *e);
    e->generation = s->generation;
    e->size = k->size;
    e->n_in = k->n_tensors;
    e->n_arguments = k->n_arguments;
    memcpy(e->ends, k->ends, sizeof e->ends);
    memcpy(e->key, k->bytes, k->size);
    lbp_new_guard(L, s, release_plan);
    e->owner = (lbp_held *)lua_touserdata(L, -1);
    lua_setiuservalue(L, -2, UV_OWNER);
    lua_createtable(L, last, 0);
    for (int i = 2; i <= last; i++)
        if (!lbp_testbox(L, i)) {
            lua_pushvalue(L, i);
            lua_rawseti(L, -2, i);
        }
    lua_setiuservalue(L, -2, UV_ANCHORS);
    return e;
}

/* The key once more, for its boxes: garbage may have been collected since it was read. */
static void read_again(lua_State *L, const lbp_state *s, const entry *e, int last, lbp_key *k)
{
    lbp_read_key(L, s, 2, last, k);
    if (k->trouble || !matches(e, k)) lbp_error(L, "capture: the arguments changed while the call was being prepared");
}

static bp_status begin(lbp_state *s, const lbp_key *k)
{
    bp_tensor *in[LBP_MAX_TENSORS];
    for (int i = 0; i < k->n_tensors; i++) in[i] = bp_tensor_retain(k->boxes[i]->tensor);
    bp_status status = bp_plan_begin(s->ctx, k->n_tensors, in);
    for (int i = 0; i < k->n_tensors; i++) bp_tensor_release(in[i]);
    return status;
}

/* Ends the capture and fills the boxes from stack index `first` on. The results of a replay have no history, so neither have these. */
static bp_status end(lua_State *L, lbp_state *s, entry *e, lbp_box **results, int first)
{
    bp_tensor *out[LBP_MAX_TENSORS];
    for (int i = 0; i < e->n_out; i++) out[i] = bp_tensor_retain(results[i]->tensor);
    bp_plan *plan;
    bp_status status = bp_plan_end(s->ctx, e->n_out, out, &plan);
    e->owner->guard->as.pointer = plan;
    for (int i = 0; i < e->n_out; i++) {
        bp_tensor *plain = NULL;
        if (status == BP_OK) status = bp_tensor_detach(out[i], &plain);
        lbp_fill(lbp_testbox(L, first + i), plain);
        bp_tensor_release(out[i]);
    }
    return status;
}

/* Runs the function on the arguments 2..last, noting it. */
static int record(lua_State *L, captured *c, int last)
{
    lbp_state *s = c->state;
    lbp_key k;
    lbp_box *results[LBP_MAX_TENSORS];
    if (c->n == MAX_PLANS) drop_stale(L, c);
    lbp_copy_arguments(L, s, 2, last);
    lbp_read_key(L, s, 2, last, &k);
    if (k.trouble) lbp_error(L, "capture: %s", k.trouble);
    if (c->n == MAX_PLANS) too_many_plans(L, c, &k);
    entry *e = push_entry(L, s, &k, last);
    int at = lua_gettop(L), list = at + 1;
    lua_getiuservalue(L, 1, UV_ENTRIES);
    lbp_guard *g = lbp_guarded(L, s, abandon);
    read_again(L, s, e, last, &k);
    lbp_check(L, begin(s, &k));

    int base = lua_gettop(L);
    luaL_checkstack(L, last + LBP_MAX_TENSORS + 16, "too many arguments");
    lua_getiuservalue(L, 1, UV_FUNCTION);
    for (int i = 2; i <= last; i++) lua_pushvalue(L, i);
    lua_call(L, last - 1, LUA_MULTRET);

    luaL_checkstack(L, LBP_MAX_TENSORS + 16, NULL);
    e->single = lua_gettop(L) == base + 1 && lbp_testbox(L, base + 1);
    e->n_out = lbp_push_arrangement(L, base + 1, lua_gettop(L) - base, results);
    lua_setiuservalue(L, at, UV_ARRANGEMENT);
    int alive = lua_gettop(L), first = alive + 1;
    for (int i = 0; i < e->n_out; i++) lbp_newbox(L, s);
    lua_pushvalue(L, at);
    lua_rawseti(L, list, c->n + 1);
    for (int i = 0; i < e->n_out; i++) {
        lua_rawgeti(L, alive, i + 1);
        results[i] = lbp_testbox(L, -1);
        lua_pop(L, 1);
        if (!results[i]->tensor) lbp_error(L, "capture: a result was freed while the call ended");
    }
    bp_status status = end(L, s, e, results, first);
    lbp_unguard(g);
    lbp_check(L, status);
    c->latest = c->n;
    c->entries[c->n++] = e;
    lua_getiuservalue(L, at, UV_ARRANGEMENT);
    return lbp_push_arranged(L, lua_gettop(L), first);
}

/* ---- later calls ---- */

static bp_status run(lbp_state *s, entry *e, const lbp_key *k, bp_tensor **out)
{
    bp_tensor *in[LBP_MAX_TENSORS];
    bp_status status = BP_OK;
    for (int i = 0; i < e->n_in; i++) in[i] = bp_tensor_retain(k->boxes[i]->tensor);
    for (int i = 0; i < e->n_in && status == BP_OK; i++) {
        bp_tensor *copy = NULL;
        bool needed = !bp_tensor_is_contiguous(in[i]);
        for (int j = 0; j < i && !needed; j++) needed = in[j]->storage == in[i]->storage;
        if (!needed) continue;
        status = bp_apply1(s->ctx, &bp__op_copy, in[i], &copy);
        bp_tensor_release(in[i]);
        in[i] = copy;
    }
    if (status == BP_OK) status = bp_plan_run(plan_of(e), e->n_in, in, out);
    for (int i = 0; i < e->n_in; i++) bp_tensor_release(in[i]);
    return status;
}

/* Whether the key's boxes are those born under these numbers, and full. */
static bool as_before(const lbp_key *k, const uint64_t *born)
{
    for (int i = 0; i < k->n_tensors; i++)
        if (k->boxes[i]->born != born[i] || !k->boxes[i]->tensor) return false;
    return true;
}

/* k was read a moment ago; making boxes may collect garbage, and a finalizer may free a tensor that k speaks of. */
static int replay(lua_State *L, captured *c, int which, int last, lbp_key *k)
{
    lbp_state *s = c->state;
    entry *e = c->entries[which];
    uint64_t born[LBP_MAX_TENSORS];
    lbp_box *results[LBP_MAX_TENSORS];
    bp_tensor *out[LBP_MAX_TENSORS];
    luaL_checkstack(L, e->n_out + 16, NULL);
    lua_getiuservalue(L, 1, UV_ENTRIES); /* keeps the entry */
    lua_rawgeti(L, -1, which + 1);
    if (!e->single) lua_getiuservalue(L, -1, UV_ARRANGEMENT);
    int arrangement = lua_gettop(L), first = arrangement + 1;
    for (int i = 0; i < k->n_tensors; i++) born[i] = k->boxes[i]->born;
    for (int i = 0; i < e->n_out; i++) results[i] = lbp_newbox(L, s);
    if (!as_before(k, born)) read_again(L, s, e, last, k);
    if (!usable(e, s)) lbp_error(L, "capture: the plan grew old while the call was being prepared");
    lbp_check(L, run(s, e, k, out));
    for (int i = 0; i < e->n_out; i++) lbp_fill(results[i], out[i]);
    return e->single ? 1 : lbp_push_arranged(L, arrangement, first);
}

static captured *check_captured(lua_State *L)
{
    captured *c = (captured *)lua_touserdata(L, 1);
    if (!c || lua_rawlen(L, 1) != sizeof *c || c->tag != &captured_tag) lbp_typeerror(L, 1, "capture", "a captured function");
    return c;
}

static void run_hooks(lua_State *L, const captured *c)
{
    lua_getiuservalue(L, 1, UV_HOOKS);
    for (int i = 1; i <= c->n_hooks; i++) {
        lua_rawgeti(L, -1, i);
        lua_call(L, 0, 0);
    }
    lua_pop(L, 1);
}

static int call_captured(lua_State *L)
{
    captured *c = check_captured(L);
    lbp_state *s = c->state;
    int last = lua_gettop(L);
    lbp_key k;
    if (!s->ctx || s->reclaiming) lbp_enter(L); /* raises */
    if (s->ctx->capture_id) lbp_error(L, "capture: a captured function is called inside another capture; call the plain function there");
    luaL_checkstack(L, 4 * LBP_DEEPEST + 16, NULL);
    if (c->n_hooks) run_hooks(L, c);
    lbp_read_key(L, s, 2, last, &k);
    if (k.trouble) lbp_error(L, "capture: %s", k.trouble);
    int which = find_entry(c, &k);
    return which >= 0 ? replay(L, c, which, last, &k) : record(L, c, last);
}

/* ---- the captured function as a value ---- */

static void set_integer(lua_State *L, const char *name, lua_Integer v)
{
    lua_pushinteger(L, v);
    lua_setfield(L, -2, name);
}

/* The ops of a replay in order, at the top: {name =, where =, replays =, seconds =}. */
static void push_steps(lua_State *L, const bp_plan *p, int ops)
{
    lua_createtable(L, ops, 0);
    for (int k = 0; k < ops; k++) {
        const bp_plan_timing t = bp_plan_timed(p, k);
        lua_createtable(L, 0, 4);
        lua_pushstring(L, bp_op_name(bp_plan_op(p, k)));
        lua_setfield(L, -2, "name");
        lua_pushstring(L, t.where ? t.where : "");
        lua_setfield(L, -2, "where");
        set_integer(L, "replays", t.replays);
        lua_pushnumber(L, t.seconds);
        lua_setfield(L, -2, "seconds");
        lua_rawseti(L, -2, k + 1);
    }
}

/*** captured:plans() -> list of {ops =, recorded =, arena_bytes =, temporary_bytes =, names =, steps =}
 * One for each kind of arguments met: how many ops a replay runs, how many were noted, the memory of its temporaries, what they would
 * take unshared, the names of the ops in order, and with captured:time(true) what each of them took. */
static int plans(lua_State *L)
{
    captured *c = check_captured(L);
    lbp_enter(L); /* raises once the state closes */
    lua_newtable(L);
    int n = 0;
    for (int i = 0; i < c->n; i++) {
        if (!usable(c->entries[i], c->state)) continue;
        bp_plan_info info = bp_plan_describe(plan_of(c->entries[i]));
        lua_createtable(L, 0, 5);
        set_integer(L, "ops", info.ops);
        set_integer(L, "recorded", info.recorded);
        set_integer(L, "arena_bytes", (lua_Integer)info.arena_bytes);
        set_integer(L, "temporary_bytes", (lua_Integer)info.temporary_bytes);
        lua_createtable(L, info.ops, 0);
        for (int k = 0; k < info.ops; k++) {
            lua_pushstring(L, bp_op_name(bp_plan_op(plan_of(c->entries[i]), k)));
            lua_rawseti(L, -2, k + 1);
        }
        lua_setfield(L, -2, "names");
        push_steps(L, plan_of(c->entries[i]), info.ops);
        lua_setfield(L, -2, "steps");
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

/*** captured:time(on)
 * Has every plan time its ops from now on, or stops that; see the `steps` of plans(). */
static int set_timing(lua_State *L)
{
    captured *c = check_captured(L);
    const bool on = lua_toboolean(L, 2);
    for (int i = 0; i < c->n; i++)
        if (usable(c->entries[i], c->state)) lbp_check(L, bp_plan_profile(plan_of(c->entries[i]), on));
    return 0;
}

/*** captured:before(hook)
 * Has hook() called before every call from now on: what has to happen in Lua each time. */
static int before(lua_State *L)
{
    captured *c = check_captured(L);
    lbp_check_callable(L, 2, "before");
    lua_getiuservalue(L, 1, UV_HOOKS);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, c->n_hooks + 1);
    c->n_hooks++;
    return 0;
}

static int describe(lua_State *L)
{
    lua_pushfstring(L, "[%s: %d plans]", CAPTURED, check_captured(L)->n);
    return 1;
}

/*** core.replayable(t, ...) -> boolean
 * Whether a captured function could take these tensors as its arguments without copying them at every call: none is a view with gaps, no
 * two share memory. */
static int replayable(lua_State *L)
{
    const int n = lua_gettop(L);
    bool yes = true;
    for (int i = 1; i <= n && yes; i++) {
        const bp_tensor *t = lbp_checktensor(L, i);
        yes = bp_tensor_is_contiguous(t);
        for (int k = 1; k < i && yes; k++) yes = lbp_checktensor(L, k)->storage != t->storage;
    }
    lua_pushboolean(L, yes);
    return 1;
}

/*** core.renew_captures()
 * Has every captured function recorded anew at its next call: something that a recording ran in Lua (a hook) is no longer the same. */
static int renew_captures(lua_State *L)
{
    lbp_state *s = lbp_enter(L);
    if (s->ctx->capture_id) lbp_error(L, "renew_captures: called inside a captured function");
    s->generation++;
    return 0;
}

/*** core.capture(fn) -> captured
 * A function that runs fn the first time and notes what it computes; later calls with arguments of the same shapes, dtypes and plain values
 * replay that without Lua. See bp.capture. */
static int capture(lua_State *L)
{
    lbp_check_callable(L, 1, "capture");
    lbp_state *s = lbp_state_of(L);
    captured *c = (captured *)lua_newuserdatauv(L, sizeof *c, 3);
    memset(c, 0, sizeof *c);
    c->tag = &captured_tag;
    c->state = s;
    lua_pushvalue(L, 1);
    lua_setiuservalue(L, -2, UV_FUNCTION);
    lua_newtable(L);
    lua_setiuservalue(L, -2, UV_ENTRIES);
    lua_newtable(L);
    lua_setiuservalue(L, -2, UV_HOOKS);
    luaL_setmetatable(L, CAPTURED);
    return 1;
}

void lbp_open_capture(lua_State *L, lbp_state *s)
{
    static const luaL_Reg metamethods[] = { { "__call", call_captured }, { "__tostring", describe }, { NULL, NULL } };
    (void)s;
    luaL_newmetatable(L, CAPTURED);
    luaL_setfuncs(L, metamethods, 0);
    lua_newtable(L);
    lua_pushcfunction(L, plans);
    lua_setfield(L, -2, "plans");
    lua_pushcfunction(L, set_timing);
    lua_setfield(L, -2, "time");
    lua_pushcfunction(L, before);
    lua_setfield(L, -2, "before");
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_pushcfunction(L, capture);
    lua_setfield(L, -2, "capture");
    lua_pushcfunction(L, replayable);
    lua_setfield(L, -2, "replayable");
    lua_pushcfunction(L, renew_captures);
    lua_setfield(L, -2, "renew_captures");
}
