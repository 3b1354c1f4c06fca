/* capture.c - core.capture(fn): fn runs once while a plan notes it; later calls with the same key replay the plan.
 *
 * Arguments may be tensors, plain values, and tables of these; a table with a metatable (a net, a data set) counts as one value by
 * identity. Results may be tensors and tables of tensors; a replay gives them back in the same arrangement, and other values as they were
 * the first time. */
#include "capture.h"

#include "../core/plan/plan.h"

#include <string.h>

#define CAPTURED "bp.Captured"
static const char captured_tag = 0;
enum { UV_ARRANGEMENT = 1, UV_ANCHORS = 2 /* the arguments that the key names by address */, UV_OWNER = 3 }; /* of an entry */
enum { UV_FUNCTION = 1, UV_ENTRIES = 2 /* the list that keeps the entries */, UV_HOOKS = 3 };                /* of a captured function */

/* ---- the list of plans ---- */

static void release_plan(lbp_guard *g)
{
    bp_plan_release((bp_plan *)g->as.pointer);
    g->as.pointer = NULL;
}

bp_plan *lbp_plan_of(const lbp_entry *e) { return e->owner->guard ? (bp_plan *)e->owner->guard->as.pointer : NULL; }

bool lbp_usable(const lbp_entry *e, const lbp_state *s)
{
    return lbp_plan_of(e) && e->generation == s->generation && !bp_plan_is_stale(lbp_plan_of(e));
}

static bool matches(const lbp_entry *e, const lbp_key *k) { return e->size == k->size && memcmp(e->key, k->bytes, k->size) == 0; }

/* The place of the key's plan, or -1. */
static int find_entry(lbp_captured *c, const lbp_key *k)
{
    for (int i = 0, at = c->latest; i < c->n; i++, at = at + 1 < c->n ? at + 1 : 0) {
        if (matches(c->entries[at], k) && lbp_usable(c->entries[at], c->state)) return c->latest = at;
    }
    return -1;
}

/* Takes what can no longer be replayed off the list. */
static void drop_stale(lua_State *L, lbp_captured *c)
{
    int n = 0;
    lua_getiuservalue(L, 1, UV_ENTRIES);
    for (int i = 0; i < c->n; i++) {
        if (!lbp_usable(c->entries[i], c->state)) {
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
    c->dropped++;
    lua_pop(L, 1);
}

/* Names the first argument that differs from the latest plan's. */
static void too_many_plans(lua_State *L, const lbp_captured *c, const lbp_key *k, int first) __attribute__((noreturn));
static void too_many_plans(lua_State *L, const lbp_captured *c, const lbp_key *k, int first)
{
    const lbp_entry *e = c->entries[c->n - 1];
    int from = 1, from_before = 1, which = 0;
    for (; which < k->n_arguments && which < e->n_arguments; which++) {
        int n = k->ends[which] - from, n_before = e->ends[which] - from_before;
        if (n != n_before || memcmp(k->bytes + from, e->key + from_before, (size_t)n) != 0) break;
        from = k->ends[which];
        from_before = e->ends[which];
    }
    if (which == k->n_arguments || which == e->n_arguments)
        lbp_error(L, "capture: %d plans were made, which is the limit, because the number of arguments or a mode keeps changing",
                  LBP_MAX_PLANS);
    lbp_error(L,
              "capture: %d plans were made, which is the limit, because argument %d keeps changing (it is now %s); "
              "pass a number that changes as a tensor, and batches of few different shapes",
              LBP_MAX_PLANS, which + 1, lbp_describe(L, first + which));
}

/* ---- the first call ---- */

static void abandon(lbp_guard *g) { bp_plan_abandon(g->state->ctx); }

/* Whether the key of these arguments says no more than the looks of so many tensors, and the modes. */
static bool is_plain(lua_State *L, const lbp_key *k, int first, int last)
{
    if (k->n_tensors != last - first + 1) return false;
    for (int i = first; i <= last; i++) {
        const lbp_box *box = lbp_testbox(L, i);
        if (!box || !box->tensor || box->tensor->var || !bp_tensor_is_contiguous(box->tensor)) return false;
    }
    return true;
}

static lbp_entry *push_entry(lua_State *L, lbp_state *s, const lbp_key *k, int first, int last)
{
    lbp_entry *e = (lbp_entry *)lua_newuserdatauv(L, sizeof *e + k->size, 3);
    memset(e, 0, sizeof *e);
    e->generation = s->generation;
    e->size = k->size;
    e->n_in = k->n_tensors;
    e->n_arguments = k->n_arguments;
    e->plain = is_plain(L, k, first, last);
    memcpy(e->ends, k->ends, sizeof e->ends);
    memcpy(e->key, k->bytes, k->size);
    lbp_new_guard(L, s, release_plan);
    e->owner = (lbp_held *)lua_touserdata(L, -1);
    lua_setiuservalue(L, -2, UV_OWNER);
    lua_createtable(L, last - first + 1, 0);
    for (int i = first; i <= last; i++)
        if (!lbp_testbox(L, i)) {
            lua_pushvalue(L, i);
            lua_rawseti(L, -2, i - first + 1);
        }
    lua_setiuservalue(L, -2, UV_ANCHORS);
    return e;
}

/* The key once more, for its boxes: garbage may have been collected since it was read. */
static void read_again(lua_State *L, const lbp_state *s, const lbp_entry *e, int first, int last, lbp_key *k)
{
    lbp_read_key(L, s, first, last, k);
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

/* What a function returned: boxes for its tensors from stack index `first` on, their arrangement below. */
typedef struct outcome {
    int n, first, arrangement;
    lbp_box *results[LBP_MAX_TENSORS]; /* what it returned itself */
} outcome;

/* Takes the values above `base`. */
static void gather(lua_State *L, lbp_state *s, int base, outcome *o)
{
    luaL_checkstack(L, LBP_MAX_TENSORS + 16, NULL);
    o->n = lbp_push_arrangement(L, base + 1, lua_gettop(L) - base, o->results);
    o->arrangement = lua_gettop(L);
    o->first = o->arrangement + 1;
    for (int i = 0; i < o->n; i++) lbp_newbox(L, s);
    for (int i = 0; i < o->n; i++) {
        lua_rawgeti(L, o->arrangement - 1, i + 1);
        o->results[i] = lbp_testbox(L, -1);
        lua_pop(L, 1);
        if (!o->results[i]->tensor) lbp_error(L, "capture: a result was freed while the call ended");
    }
}

/* Fills the boxes. The results of a replay have no history, so neither have these. */
static bp_status keep_results(lua_State *L, const outcome *o)
{
    bp_status status = BP_OK;
    for (int i = 0; i < o->n && status == BP_OK; i++) {
        bp_tensor *plain = NULL;
        status = bp_tensor_detach(o->results[i]->tensor, &plain);
        lbp_fill(lbp_testbox(L, o->first + i), plain);
    }
    return status;
}

static bp_status end(lua_State *L, lbp_state *s, lbp_entry *e, const outcome *o)
{
    bp_tensor *out[LBP_MAX_TENSORS];
    for (int i = 0; i < o->n; i++) out[i] = bp_tensor_retain(o->results[i]->tensor);
    bp_plan *plan;
    bp_status status = bp_plan_end(s->ctx, o->n, out, &plan);
    e->owner->guard->as.pointer = plan;
    if (status == BP_OK) status = keep_results(L, o);
    for (int i = 0; i < o->n; i++) bp_tensor_release(out[i]);
    return status;
}

static void call_function(lua_State *L, int first, int last)
{
    luaL_checkstack(L, last + LBP_MAX_TENSORS + 16, "too many arguments");
    lua_getiuservalue(L, 1, UV_FUNCTION);
    for (int i = first; i <= last; i++) lua_pushvalue(L, i);
    lua_call(L, last - first + 1, LUA_MULTRET);
}

/* Runs the function on the arguments first..last, noting it. */
static lbp_entry *record(lua_State *L, lbp_captured *c, int first, int last, outcome *o)
{
    lbp_state *s = c->state;
    lbp_key k;
    if (c->n == LBP_MAX_PLANS) drop_stale(L, c);
    lbp_disguise_arguments(L, s, first, last);
    lbp_read_key(L, s, first, last, &k);
    if (k.trouble) lbp_error(L, "capture: %s", k.trouble);
    if (c->n == LBP_MAX_PLANS) too_many_plans(L, c, &k, first);
    lbp_entry *e = push_entry(L, s, &k, first, last);
    int at = lua_gettop(L);
    lua_getiuservalue(L, 1, UV_ENTRIES);
    lbp_guard *g = lbp_guarded(L, s, abandon);
    read_again(L, s, e, first, last, &k);
    lbp_check(L, begin(s, &k));

    int base = lua_gettop(L);
    call_function(L, first, last);
    e->single = lua_gettop(L) == base + 1 && lbp_testbox(L, base + 1);
    lua_pushvalue(L, at);
    lua_rawseti(L, at + 1, c->n + 1);
    gather(L, s, base, o);
    e->n_out = o->n;
    lua_pushvalue(L, o->arrangement);
    lua_setiuservalue(L, at, UV_ARRANGEMENT);
    bp_status status = end(L, s, e, o);
    lbp_unguard(g);
    lbp_check(L, status);
    c->latest = c->n;
    c->entries[c->n++] = e;
    return e;
}

/* Runs the function itself on the arguments first..last: they share memory that it writes, which a replay does not follow. */
static void run_plainly(lua_State *L, lbp_captured *c, int first, int last, outcome *o)
{
    int base = lua_gettop(L);
    call_function(L, first, last);
    gather(L, c->state, base, o);
    lbp_check(L, keep_results(L, o));
}

/* ---- later calls ---- */

/* With `into` the results go there, else to out. *shares: nothing was run, see run_plainly. */
static bp_status run(lbp_entry *e, const lbp_key *k, bp_tensor **out, bool into, bool *shares)
{
    bp_tensor *in[LBP_MAX_TENSORS];
    bp_plan *plan = lbp_plan_of(e);
    for (int i = 0; i < e->n_in; i++) in[i] = bp_tensor_retain(k->boxes[i]->tensor);
    const bp_status status = into ? bp_plan_run_into(plan, e->n_in, in, e->n_out, out) : bp_plan_run(plan, e->n_in, in, out);
    *shares = status == BP_EINVAL && bp_plan_shares(plan, e->n_in, in);
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

/* The stack has room for LUA_MINSTACK values more than it was called with. */
enum { ROOM_AHEAD = 8 };

/* Pushes the entry and the arrangement of its results. */
static int push_arrangement_of(lua_State *L, int which)
{
    lua_getiuservalue(L, 1, UV_ENTRIES);
    lua_rawgeti(L, -1, which + 1);
    lua_getiuservalue(L, -1, UV_ARRANGEMENT);
    return lua_gettop(L);
}

/* k was read a moment ago; making boxes may collect garbage, and a finalizer may free a tensor that k speaks of, or call c and so drop the
 * entry. */
static int replay(lua_State *L, lbp_captured *c, int which, int last, lbp_key *k)
{
    lbp_state *s = c->state;
    lbp_entry *e = c->entries[which];
    const int n_out = e->n_out, arrangement = e->single ? 0 : push_arrangement_of(L, which), first = lua_gettop(L) + 1;
    const uint64_t dropped = c->dropped;
    uint64_t born[LBP_MAX_TENSORS];
    lbp_box *results[LBP_MAX_TENSORS];
    bp_tensor *out[LBP_MAX_TENSORS];
    bool shares;
    if (n_out > ROOM_AHEAD) luaL_checkstack(L, n_out + 16, NULL);
    for (int i = 0; i < k->n_tensors; i++) born[i] = k->boxes[i]->born;
    for (int i = 0; i < n_out; i++) results[i] = lbp_newbox(L, s);
    if (c->dropped != dropped || !lbp_usable(e, s)) lbp_error(L, "capture: the plan grew old while the call was being prepared");
    if (!as_before(k, born)) read_again(L, s, e, 2, last, k);
    const bp_status status = run(e, k, out, false, &shares);
    if (status != BP_OK && shares) {
        outcome o;
        run_plainly(L, c, 2, last, &o);
        return lbp_push_arranged(L, o.arrangement, o.first);
    }
    lbp_check(L, status);
    for (int i = 0; i < n_out; i++) lbp_fill(results[i], out[i]);
    return arrangement ? lbp_push_arranged(L, arrangement, first) : 1;
}

lbp_captured *lbp_check_captured(lua_State *L, const char *method)
{
    lbp_captured *c = (lbp_captured *)lua_touserdata(L, 1);
    if (!c || lua_rawlen(L, 1) != sizeof *c || c->tag != &captured_tag)
        lbp_error(L, "%s: called without its captured function, on %s; a method is called with ':', as in captured:%s(...)", method,
                  lbp_describe(L, 1), method);
    return c;
}

static void run_hooks(lua_State *L, const lbp_captured *c)
{
    lua_getiuservalue(L, 1, UV_HOOKS);
    for (int i = 1; i <= c->n_hooks; i++) {
        lua_rawgeti(L, -1, i);
        lua_call(L, 0, 0);
    }
    lua_pop(L, 1);
}

/* Whether the key of the arguments first..last would be e's, without making it; then their boxes are in k. */
static bool matches_plainly(lua_State *L, const lbp_entry *e, const lbp_state *s, int first, int last, lbp_key *k)
{
    if (!e->plain || e->n_in != last - first + 1 || e->key[0] != lbp_modes(s) || !lbp_usable(e, s)) return false;
    const bp_meta *look = lbp_plan_of(e)->input_meta;
    for (int i = 0; i < e->n_in; i++) {
        lbp_box *box = lbp_testbox(L, first + i);
        const bp_tensor *t = box ? box->tensor : NULL;
        if (!t || t->var || !bp_tensor_fits(t, &look[i])) return false;
        k->boxes[i] = box;
    }
    k->n_tensors = e->n_in;
    return true;
}

/* The place of the plan for the arguments first..last, -1: there is none yet. */
static int prepare(lua_State *L, lbp_captured *c, int first, int last, lbp_key *k)
{
    lbp_state *s = c->state;
    if (!s->ctx || s->reclaiming) lbp_enter(L); /* raises */
    if (s->ctx->capture_id) lbp_error(L, "capture: a captured function is called inside another capture; call the plain function there");
    if (c->n_hooks) run_hooks(L, c);
    if (c->n && matches_plainly(L, c->entries[c->latest], s, first, last, k)) return c->latest;
    lbp_read_key(L, s, first, last, k);
    if (k->trouble) lbp_error(L, "capture: %s", k->trouble);
    return find_entry(c, k);
}

static int call_captured(lua_State *L)
{
    lbp_captured *c = lbp_check_captured(L, "__call");
    const int last = lua_gettop(L);
    lbp_key k;
    const int which = prepare(L, c, 2, last, &k);
    if (which >= 0) return replay(L, c, which, last, &k);
    outcome o;
    record(L, c, 2, last, &o);
    return lbp_push_arranged(L, o.arrangement, o.first);
}

/* ---- results into tensors of the caller ---- */

enum { OUT = 2, FIRST = 3 /* places of into's arguments on the stack */ };

/* The tensors of `out` (borrowed), in the order of the plan's results; arrangement 0: there is one. */
static void read_out(lua_State *L, const bp_plan *p, int arrangement, bp_tensor **out)
{
    const bp_meta *looks[LBP_MAX_TENSORS];
    if (!arrangement) {
        const lbp_box *box = lbp_testbox(L, OUT);
        bp_tensor *t = box ? box->tensor : NULL;
        if (t && !t->var && bp_tensor_fits(t, &p->outputs[0].meta)) {
            out[0] = t;
            return;
        }
    }
    for (int i = 0; i < p->n_outputs; i++) looks[i] = &p->outputs[i].meta;
    lbp_match_arranged(L, arrangement, OUT, looks, out);
}

/* Copies what was not replayed. */
static void store(lua_State *L, const lbp_captured *c, const lbp_entry *e, const outcome *o)
{
    bp_tensor *results[LBP_MAX_TENSORS], *out[LBP_MAX_TENSORS];
    if (o->n != e->n_out) lbp_error(L, "into: the function returned %d tensors, and %d when it was recorded", o->n, e->n_out);
    read_out(L, lbp_plan_of(e), e->single ? 0 : o->arrangement, out);
    for (int i = 0; i < o->n; i++) results[i] = lbp_testbox(L, o->first + i)->tensor;
    lbp_check(L, bp_plan_store(c->state->ctx, o->n, results, out));
    for (int i = 0; i < o->n; i++) lbp_free_box(L, o->first + i);
}

static void replay_into(lua_State *L, lbp_captured *c, int which, int last, const lbp_key *k)
{
    lbp_entry *e = c->entries[which];
    bp_tensor *out[LBP_MAX_TENSORS];
    bool shares;
    read_out(L, lbp_plan_of(e), e->single ? 0 : push_arrangement_of(L, which), out);
    const int n_out = e->n_out;
    for (int i = 0; i < n_out; i++) bp_tensor_retain(out[i]);
    const bp_status status = run(e, k, out, true, &shares);
    for (int i = 0; i < n_out; i++) bp_tensor_release(out[i]);
    if (status == BP_OK) return;
    if (!shares) lbp_raise(L, status);
    outcome o;
    push_arrangement_of(L, which); /* keeps the entry */
    run_plainly(L, c, FIRST, last, &o);
    if (!lbp_usable(e, c->state)) lbp_error(L, "into: the plan grew old during the call");
    store(L, c, e, &o);
}

/*** captured:into(out, ...) -> out
 * Calls captured(...) and leaves its result in the tensor `out`, of the same shape and dtype and without gaps; where there are several, in
 * the tensors of a table arranged as they are (those of `return a, b` in {a, b}). A replay makes nothing new, neither memory nor garbage
 * for the collector: for loops that must not pause. `out` may be one of the arguments, or something that the function reads: it is written
 * when all is computed. */
static int into(lua_State *L)
{
    lbp_captured *c = lbp_check_captured(L, "into");
    const int last = lua_gettop(L), type = lua_type(L, OUT);
    lbp_key k;
    if (type != LUA_TUSERDATA && type != LUA_TTABLE) lbp_typeerror(L, OUT, "into", "a tensor, or a table of tensors, for the results");
    const int which = prepare(L, c, FIRST, last, &k);
    if (which >= 0)
        replay_into(L, c, which, last, &k);
    else {
        outcome o;
        store(L, c, record(L, c, FIRST, last, &o), &o);
    }
    lua_settop(L, OUT);
    return 1;
}

/* ---- the captured function as a value ---- */

/*** captured:before(hook)
 * Has hook() called before every call from now on: what has to happen in Lua each time. */
static int before(lua_State *L)
{
    lbp_captured *c = lbp_check_captured(L, "before");
    lbp_check_callable(L, 2, "before");
    lua_getiuservalue(L, 1, UV_HOOKS);
    lua_pushvalue(L, 2);
    lua_rawseti(L, -2, c->n_hooks + 1);
    c->n_hooks++;
    return 0;
}

static int describe(lua_State *L)
{
    lua_pushfstring(L, "[%s: %d plans]", CAPTURED, lbp_check_captured(L, "__tostring")->n);
    return 1;
}

/*** core.replayable(t, ...) -> boolean
 * Whether a captured function could take rows of these tensors without copying them whole at every call: none is a view with gaps. */
static int replayable(lua_State *L)
{
    const int n = lua_gettop(L);
    bool yes = true;
    for (int i = 1; i <= n && yes; i++) yes = bp_tensor_is_contiguous(lbp_checktensor(L, i));
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
    lbp_captured *c = (lbp_captured *)lua_newuserdatauv(L, sizeof *c, 3);
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
    lua_pushcfunction(L, lbp_captured_plans);
    lua_setfield(L, -2, "plans");
    lua_pushcfunction(L, lbp_captured_time);
    lua_setfield(L, -2, "time");
    lua_pushcfunction(L, before);
    lua_setfield(L, -2, "before");
    lua_pushcfunction(L, into);
    lua_setfield(L, -2, "into");
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_pushcfunction(L, capture);
    lua_setfield(L, -2, "capture");
    lua_pushcfunction(L, replayable);
    lua_setfield(L, -2, "replayable");
    lua_pushcfunction(L, renew_captures);
    lua_setfield(L, -2, "renew_captures");
}
