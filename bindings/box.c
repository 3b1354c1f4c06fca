/* box.c - the userdata "bp.Tensor": a box that owns one reference to a tensor, and how Lua's collector learns of its bytes.
 *
 * Lua sees a box of a hundred bytes where megabytes hang. So whenever a box is made, the bytes alive in the context (the cache of free
 * blocks not counted) are compared with `collect_at`; above it a full collection runs. After one, collect_at lies above what is alive by as
 * much as is alive, at least SLACK: garbage never outweighs what is in use, and the cost of collecting is spread over many bytes. While
 * less is alive than then, collect_at sinks slowly, so that one large phase does not leave room for as much garbage ever after.
 *
 * What is dead but has, or had, a finalizer goes only in the cycle after the one that finds it, and Lua counts it as alive till then: with
 * nothing but boxes coming and going each cycle begins later than the last, without end. So a full collection is due as well when boxes
 * have been made that take BOXES_SHARE times as much of Lua's heap as the rest of it, at least BOXES_SLACK: rarely enough that Lua's own
 * cycles do the work wherever they can. */
#include "lbp.h"

#include "../core/base/memory.h"
#include "bplua.h"

#include <string.h>

enum { SLACK = 16 << 20, SINK_SHIFT = 8, BOX_BYTES = 64, BOXES_SHARE = 2, BOXES_SLACK = 8 << 20 };

const char lbp_box_tag = 0;

static size_t due_after(size_t live) { return live + (live > SLACK ? live : SLACK); }

/* The number of the box at which a collection is due; `made` boxes may be left in the heap though they are dead. */
static uint64_t boxes_due(lua_State *L, const lbp_state *s, uint64_t made)
{
    const uint64_t heap = (uint64_t)lua_gc(L, LUA_GCCOUNT) << 10, dead = made * BOX_BYTES, rest = heap > dead ? heap - dead : 0;
    return s->born + (BOXES_SHARE * rest > BOXES_SLACK ? BOXES_SHARE * rest : BOXES_SLACK) / BOX_BYTES;
}

static void pace_collector(lua_State *L, lbp_state *s)
{
    size_t live = s->ctx->used - bp_block_cached(s->ctx);
    if (live < s->collect_at && s->born < s->collect_born) {
        size_t due = due_after(live);
        if (due < s->collect_at) s->collect_at -= (s->collect_at - due) >> SINK_SHIFT;
        return;
    }
    if (lua_gc(L, LUA_GCCOUNT) < 0) return; /* in a finalizer: Lua answers nothing, and the collection stays due */
    if (s->collect_at && lua_gc(L, LUA_GCISRUNNING)) lua_gc(L, LUA_GCCOLLECT);
    s->collect_at = due_after(s->ctx->used - bp_block_cached(s->ctx));
    s->collect_born = boxes_due(L, s, s->born - s->collected_born);
    s->collected_born = s->born;
}

static void release_box(lbp_owned *o)
{
    lbp_box *box = (lbp_box *)o;
    bp_tensor *t = box->tensor;
    box->tensor = NULL;
    bp_tensor_release(t);
}

/* What Lua sees of a tensor. */
typedef struct handle {
    const void *tag; /* &lbp_box_tag */
    lbp_state *state;
    lbp_box *box;
} handle;

static handle *test_handle(lua_State *L, int idx)
{
    handle *h = (handle *)lua_touserdata(L, idx);
    /* rawlen is 0 for light userdata */
    return h && lua_rawlen(L, idx) == sizeof *h && h->tag == &lbp_box_tag ? h : NULL;
}

lbp_box *lbp_newbox(lua_State *L, lbp_state *s)
{
    pace_collector(L, s);
    handle *h = (handle *)lua_newuserdatauv(L, sizeof *h, 0);
    h->tag = NULL; /* no tensor until it has its box */
    lbp_box *box = (lbp_box *)lbp_take_cell(L, s);
    h->state = s;
    h->box = box;
    h->tag = &lbp_box_tag;
    box->born = ++s->born;
    box->persistent = s->persist > 0;
    box->link.release = release_box;
    lbp_own(&s->boxes, &box->link);
    lua_rawgeti(L, LUA_REGISTRYINDEX, s->metatable);
    lua_setmetatable(L, -2);
    return box;
}

/* Gives up tensor and box; whether there were any. */
static bool retire(handle *h)
{
    lbp_state *s = h->state;
    lbp_box *box = h->box;
    if (box == &s->dead) return false;
    h->box = &s->dead;
    if (!s->ctx) return false;
    lbp_empty(box);
    lbp_give_cell(s, &box->link);
    return true;
}

int lbp_collect_box(lua_State *L)
{
    handle *h = test_handle(L, 1);
    if (h) retire(h);
    return 0;
}

bool lbp_free_box(lua_State *L, int idx)
{
    handle *h = test_handle(L, idx);
    if (!h) return false;
    idx = lua_absindex(L, idx);
    if (retire(h)) {
        lua_rawgeti(L, LUA_REGISTRYINDEX, h->state->freed_metatable);
        lua_setmetatable(L, idx);
    }
    return true;
}

void lbp_fill(lbp_box *box, bp_tensor *t)
{
    bp_tensor *old = box->tensor;
    box->tensor = t;
    bp_tensor_release(old);
}

void lbp_empty(lbp_box *box)
{
    lbp_disown(&box->link);
    release_box(&box->link);
}

lbp_box *lbp_testbox(lua_State *L, int idx)
{
    handle *h = test_handle(L, idx);
    if (!h) return NULL;
    return h->state->ctx ? h->box : &h->state->dead;
}

static void freed(lua_State *L) __attribute__((noreturn));
static void freed(lua_State *L)
{
    lbp_error(L, "this tensor was freed (by free(), <close> or bp.scope); return it from the scope, or keep it with bp.keep");
}

bp_tensor *lbp_totensor(lua_State *L, int idx)
{
    lbp_box *box = lbp_testbox(L, idx);
    if (!box) return NULL;
    if (!box->tensor) freed(L);
    return box->tensor;
}

bp_tensor *lbp_checktensor(lua_State *L, int idx)
{
    bp_tensor *t = lbp_totensor(L, idx);
    if (!t) lbp_typeerror(L, idx, NULL, "a tensor");
    return t;
}

static int newbox_protected(lua_State *L)
{
    lbp_newbox(L, (lbp_state *)lua_touserdata(L, 1));
    return 1;
}

void lbp_pushtensor(lua_State *L, bp_tensor *t)
{
    lua_pushcfunction(L, newbox_protected);
    lua_pushlightuserdata(L, lbp_state_of(L));
    if (lua_pcall(L, 1, 1, 0) != LUA_OK) {
        bp_tensor_release(t);
        lua_error(L);
    }
    lbp_fill(lbp_testbox(L, -1), t);
}

bp_tensor *lbp_hold(lua_State *L, int idx)
{
    idx = lua_absindex(L, idx);
    lbp_box *box = lbp_newbox(L, lbp_state_of(L));
    lbp_fill(box, bp_tensor_retain(lbp_checktensor(L, idx)));
    return box->tensor;
}

bp_tensor *bplua_totensor(lua_State *L, int index) { return lbp_checktensor(L, index); }

void bplua_pushtensor(lua_State *L, bp_tensor *tensor) { lbp_pushtensor(L, bp_tensor_retain(tensor)); }
