/* random.c - the seed and the random streams. */
#include "lbp.h"

#include <string.h>

/* In the order of bp_stream_id. */
static const char *const streams[BP_STREAM_COUNT] = { "init", "shuffle", "dropout", "augment", "search", "noise" };

static const char *stream_at(const void *ud, int i)
{
    (void)ud;
    return streams[i];
}

/*** core.seed(n)
 * Restarts every random stream from a whole number. */
static int seed(lua_State *L)
{
    int64_t v;
    if (!lbp_towhole(L, 1, &v)) lbp_typeerror(L, 1, "seed", "a whole number");
    bp_seed(lbp_context(L), (uint64_t)v);
    return 0;
}

/*** core.stream(name) -> tensor
 * The state of a random stream, i64 [2] {key, step}, which random ops take as their last input: "init", "shuffle", "dropout", "augment",
 * "search", "noise". Writing a saved state back continues the stream from there. */
static int stream(lua_State *L)
{
    lbp_state *s = lbp_state_of(L);
    if (lua_type(L, 1) != LUA_TSTRING) lbp_typeerror(L, 1, "stream", "the name of a random stream");
    const char *name = lua_tostring(L, 1);
    int which = 0;
    while (which < BP_STREAM_COUNT && strcmp(name, streams[which]) != 0) which++;
    if (which == BP_STREAM_COUNT) {
        const char *near = lbp_nearest(name, BP_STREAM_COUNT, stream_at, NULL);
        lbp_error(L, "stream: unknown random stream '%s'%s%s%s; they are init, shuffle, dropout, augment, search, noise", name,
                  near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "");
    }
    lbp_box *box = lbp_newbox(L, s);
    box->persistent = true;
    lbp_fill(box, bp_tensor_retain(s->ctx->streams[which]));
    return 1;
}

void lbp_open_random(lua_State *L, lbp_state *s)
{
    static const luaL_Reg functions[] = { { "seed", seed }, { "stream", stream }, { NULL, NULL } };
    (void)s;
    luaL_setfuncs(L, functions, 0);
}
