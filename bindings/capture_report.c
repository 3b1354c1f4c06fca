/* capture_report.c - what the plans of a captured function consist of, and how long their ops take. */
#include "capture.h"

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
int lbp_captured_plans(lua_State *L)
{
    lbp_captured *c = lbp_check_captured(L, "plans");
    lbp_enter(L); /* raises once the state closes */
    lua_newtable(L);
    int n = 0;
    for (int i = 0; i < c->n; i++) {
        if (!lbp_usable(c->entries[i], c->state)) continue;
        bp_plan_info info = bp_plan_describe(lbp_plan_of(c->entries[i]));
        lua_createtable(L, 0, 5);
        set_integer(L, "ops", info.ops);
        set_integer(L, "recorded", info.recorded);
        set_integer(L, "arena_bytes", (lua_Integer)info.arena_bytes);
        set_integer(L, "temporary_bytes", (lua_Integer)info.temporary_bytes);
        lua_createtable(L, info.ops, 0);
        for (int k = 0; k < info.ops; k++) {
            lua_pushstring(L, bp_op_name(bp_plan_op(lbp_plan_of(c->entries[i]), k)));
            lua_rawseti(L, -2, k + 1);
        }
        lua_setfield(L, -2, "names");
        push_steps(L, lbp_plan_of(c->entries[i]), info.ops);
        lua_setfield(L, -2, "steps");
        lua_rawseti(L, -2, ++n);
    }
    return 1;
}

/*** captured:time(on)
 * Has every plan time its ops from now on, or stops that; see the `steps` of plans(). */
int lbp_captured_time(lua_State *L)
{
    lbp_captured *c = lbp_check_captured(L, "time");
    const bool on = lua_toboolean(L, 2);
    for (int i = 0; i < c->n; i++)
        if (lbp_usable(c->entries[i], c->state)) lbp_check(L, bp_plan_profile(lbp_plan_of(c->entries[i]), on));
    return 0;
}
