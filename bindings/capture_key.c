/* capture_key.c - what tells one call of a captured function from another.
 *
 * A walk over the arguments that calls nothing of Lua's that might collect garbage: the boxes found stay where they are. That is why the
 * fields of a table are looked for by walking it again and not by name. */
#include "capture.h"

#include <stdlib.h>
#include <string.h>

typedef struct walk {
    lua_State *L;
    lbp_key *key;
} walk;

static void put(walk *w, const void *p, size_t n)
{
    lbp_key *k = w->key;
    if (k->size + n > LBP_MAX_KEY)
        k->trouble = "more than 4096 bytes of plain values are arguments; pass data as tensors";
    else {
        memcpy(k->bytes + k->size, p, n);
        k->size += n;
    }
}

static void put_char(walk *w, char c) { put(w, &c, 1); }

static void put_tensor(walk *w, lbp_box *box)
{
    lbp_key *k = w->key;
    const bp_tensor *t = box->tensor;
    if (!t)
        k->trouble = "a tensor among the arguments was freed";
    else if (k->n_tensors == LBP_MAX_TENSORS)
        k->trouble = "more than 64 tensors are arguments; stack them";
    else {
        char head[4] = { 'T', (char)t->m.dtype, (char)t->m.ndim, t->var != NULL };
        put(w, head, sizeof head);
        put(w, t->m.shape, sizeof *t->m.shape * (size_t)t->m.ndim);
        if (!bp_tensor_is_contiguous(t)) {
            put_char(w, 'V');
            put(w, t->m.stride, sizeof *t->m.stride * (size_t)t->m.ndim);
        }
        k->boxes[k->n_tensors++] = box;
    }
}

static void put_value(walk *w, int idx, int depth);

/* The field of the table at idx whose name stands at that address. */
static void put_field(walk *w, int idx, const char *name, int depth)
{
    lua_State *L = w->L;
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        if (lua_type(L, -2) == LUA_TSTRING && lua_tostring(L, -2) == name) {
            put(w, name, strlen(name) + 1);
            put_value(w, lua_gettop(L), depth);
            lua_pop(L, 2);
            return;
        }
        lua_pop(L, 1);
    }
}

int lbp_by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* List part, then the fields whose names are strings, sorted. */
static void put_table(walk *w, int idx, int depth)
{
    lua_State *L = w->L;
    lbp_key *k = w->key;
    const char *names[LBP_MAX_FIELDS];
    int n = 0;
    int64_t length = (int64_t)lua_rawlen(L, idx);
    if (depth == LBP_DEEPEST) {
        k->trouble = "tables among the arguments are nested deeper than 8";
        return;
    }
    luaL_checkstack(L, 8, NULL);
    put_char(w, '{');
    for (int64_t i = 1; i <= length && !k->trouble; i++) {
        lua_rawgeti(L, idx, i);
        put_value(w, lua_gettop(L), depth + 1);
        lua_pop(L, 1);
    }
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        lua_pop(L, 1);
        if (lua_type(L, -1) == LUA_TSTRING) {
            if (n < LBP_MAX_FIELDS)
                names[n++] = lua_tostring(L, -1);
            else
                k->trouble = "a table of more than 64 fields is an argument";
        } else if (!lua_isinteger(L, -1) || lua_tointeger(L, -1) < 1 || lua_tointeger(L, -1) > length)
            k->trouble = "a table among the arguments has a key that is neither a name nor a place in its list";
    }
    qsort(names, (size_t)n, sizeof *names, lbp_by_text);
    for (int i = 0; i < n && !k->trouble; i++) put_field(w, idx, names[i], depth + 1);
    put_char(w, '}');
}

static void put_number(walk *w, int idx)
{
    lua_State *L = w->L;
    bool whole = lua_isinteger(L, idx);
    lua_Integer i = lua_tointeger(L, idx);
    lua_Number f = lua_tonumber(L, idx);
    put_char(w, whole ? 'I' : 'F');
    if (whole)
        put(w, &i, sizeof i);
    else
        put(w, &f, sizeof f);
}

static void put_address(walk *w, int idx)
{
    const void *p = lua_topointer(w->L, idx);
    put_char(w, 'A');
    put(w, &p, sizeof p);
}

static void put_value(walk *w, int idx, int depth)
{
    lua_State *L = w->L;
    size_t n;
    if (w->key->trouble) return;
    switch (lua_type(L, idx)) {
    case LUA_TNIL: put_char(w, '0'); break;
    case LUA_TBOOLEAN: put_char(w, lua_toboolean(L, idx) ? 't' : 'f'); break;
    case LUA_TNUMBER: put_number(w, idx); break;
    case LUA_TSTRING: {
        const char *s = lua_tolstring(L, idx, &n);
        put_char(w, 'S');
        put(w, &n, sizeof n);
        put(w, s, n);
        break;
    }
    case LUA_TTABLE:
        if (lua_getmetatable(L, idx)) {
            lua_pop(L, 1);
            put_address(w, idx);
        } else
            put_table(w, idx, depth);
        break;
    case LUA_TUSERDATA: {
        lbp_box *box = lbp_testbox(L, idx);
        if (box)
            put_tensor(w, box);
        else
            put_address(w, idx);
        break;
    }
    default: put_address(w, idx); break;
    }
}

char lbp_modes(const lbp_state *s) { return (char)(s->ctx->grad_enabled + 2 * s->ctx->training); }

void lbp_read_key(lua_State *L, const lbp_state *s, int first, int last, lbp_key *key)
{
    walk w = { L, key };
    key->size = 0;
    key->n_tensors = 0;
    key->n_arguments = last - first + 1;
    key->trouble = key->n_arguments > LBP_MAX_ARGUMENTS ? "more than 32 arguments" : NULL;
    put_char(&w, lbp_modes(s));
    for (int i = first; i <= last && !key->trouble; i++) {
        put_value(&w, i, 0);
        key->ends[i - first] = (int)key->size;
    }
}
