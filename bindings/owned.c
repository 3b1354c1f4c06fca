/* owned.c - what Lua owns of core, in lists, so that the context can close after all of it.
 *
 * A userdata does not hold its resource itself but points at a cell that does. For Lua may free a userdata whose finalizer did not run:
 * calling it needs memory, and when there is none the finalizer is skipped. Its cell then stays on the list, valid, and gives up the
 * resource when the state closes. Cells go with the context, so whoever follows a userdata to its cell asks first whether that is still
 * open. */
#include "lbp.h"

#include "../core/base/memory.h"

#include <string.h>

enum { SLAB = 126 };

/* ---- lists ---- */

void lbp_list_init(lbp_owned *head) { head->prev = head->next = head; }

void lbp_own(lbp_owned *head, lbp_owned *o)
{
    o->next = head->next;
    o->prev = head;
    head->next->prev = o;
    head->next = o;
}

void lbp_disown(lbp_owned *o)
{
    if (!o->prev) return;
    o->prev->next = o->next;
    o->next->prev = o->prev;
    o->prev = o->next = NULL;
}

void lbp_release_all(lbp_owned *head)
{
    while (head->next != head) {
        lbp_owned *o = head->next;
        lbp_disown(o);
        o->release(o);
    }
}

/* ---- cells ---- */

typedef union cell {
    lbp_owned link;
    lbp_box box;
    lbp_guard guard;
} cell;

/* Cells are made many at a time, and outside of Lua's heap: there they would count as in use, and Lua would let as much garbage gather. */
struct lbp_slab {
    lbp_slab *next;
    cell cells[SLAB];
};

/* Running out of memory on the way may collect garbage, and so give cells back. */
static void add_slab(lua_State *L, lbp_state *s)
{
    lbp_slab *slab = (lbp_slab *)bp_mem_new(s->ctx, sizeof *slab);
    if (!slab) lbp_raise(L, BP_ENOMEM);
    slab->next = s->slabs;
    s->slabs = slab;
    for (int i = 0; i < SLAB; i++) {
        slab->cells[i].link.prev = NULL;
        slab->cells[i].link.next = s->spare;
        s->spare = &slab->cells[i].link;
    }
}

void *lbp_take_cell(lua_State *L, lbp_state *s)
{
    if (!s->spare) add_slab(L, s);
    lbp_owned *o = s->spare;
    s->spare = o->next;
    memset(o, 0, sizeof(cell));
    return o;
}

void lbp_free_cells(lbp_state *s)
{
    while (s->slabs) {
        lbp_slab *slab = s->slabs;
        s->slabs = slab->next;
        bp_mem_free(s->ctx, slab, sizeof *slab);
    }
}

void lbp_give_cell(lbp_state *s, lbp_owned *o)
{
    lbp_disown(o);
    o->next = s->spare;
    s->spare = o;
}

/* ---- regions ---- */

#define GUARD "bp.Guard"

static void release_guard(lbp_owned *o) { lbp_unguard((lbp_guard *)o); }

static int close_guard(lua_State *L)
{
    lbp_held *held = (lbp_held *)luaL_testudata(L, 1, GUARD);
    lbp_guard *g = held ? held->guard : NULL;
    if (!g) return 0;
    held->guard = NULL;
    if (!held->state->ctx) return 0;
    lbp_unguard(g);
    lbp_give_cell(held->state, &g->link);
    return 0;
}

void lbp_unguard(lbp_guard *g)
{
    void (*undo)(lbp_guard *) = g->undo;
    g->undo = NULL;
    lbp_disown(&g->link);
    if (undo) undo(g);
}

lbp_guard *lbp_new_guard(lua_State *L, lbp_state *s, void (*undo)(lbp_guard *g))
{
    luaL_checkstack(L, 6, NULL);
    lbp_held *held = (lbp_held *)lua_newuserdatauv(L, sizeof *held, 0);
    held->state = s;
    held->guard = NULL;
    if (luaL_newmetatable(L, GUARD)) {
        lua_pushcfunction(L, close_guard);
        lua_pushvalue(L, -1);
        lua_setfield(L, -3, "__gc");
        lua_setfield(L, -2, "__close");
    }
    lua_setmetatable(L, -2);
    lbp_guard *g = (lbp_guard *)lbp_take_cell(L, s);
    g->link.release = release_guard;
    g->state = s;
    g->undo = undo;
    lbp_own(&s->others, &g->link);
    held->guard = g;
    return g;
}

lbp_guard *lbp_guarded(lua_State *L, lbp_state *s, void (*undo)(lbp_guard *g))
{
    lbp_guard *g = lbp_new_guard(L, s, NULL);
    lua_toclose(L, -1);
    g->undo = undo;
    return g;
}
