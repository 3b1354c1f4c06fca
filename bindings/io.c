/* io.c - files for Lua: weights, IDX, CSV, pictures, folders. A file that is missing, damaged or foreign gives nil, message, code. */
#include "lbp.h"

#include "../core/base/files.h"
#include "../core/base/memory.h"
#include "../core/bp_io.h"
#include "../core/io/gzip.h"

#include <string.h>

static const char *check_path(lua_State *L, int arg, const char *who)
{
    size_t n;
    if (lua_type(L, arg) != LUA_TSTRING) lbp_typeerror(L, arg, who, "a path");
    const char *path = lua_tolstring(L, arg, &n);
    if (n == 0 || strlen(path) != n)
        lbp_error(L, "%s: the path is %s; a name without zero bytes is expected", who, n ? "cut by a zero byte" : "empty");
    return path;
}

static int done(lua_State *L, bp_status status)
{
    if (status != BP_OK) return lbp_result(L, status);
    lua_pushboolean(L, true);
    return 1;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

static void free_weights(lbp_guard *g) { bp_weights_free((bp_weights *)g->as.pointer); }

static int push_weights(lua_State *L, lbp_state *s, const bp_weights *w)
{
    lua_createtable(L, 0, (int)w->n_tensors);
    for (int64_t i = 0; i < w->n_tensors; i++) {
        lua_pushstring(L, w->tensors[i].name);
        lbp_box *box = lbp_newbox(L, s); /* before the reference is taken: it may raise */
        lbp_fill(box, bp_tensor_retain(w->tensors[i].tensor));
        lua_rawset(L, -3);
    }
    lua_createtable(L, 0, (int)w->n_texts);
    for (int64_t i = 0; i < w->n_texts; i++) {
        lua_pushstring(L, w->texts[i].name);
        lua_pushstring(L, w->texts[i].text);
        lua_rawset(L, -3);
    }
    return 2;
}

/* safetensors_load(path): tensors by name, metadata by name. */
static int safetensors_load(lua_State *L)
{
    lbp_state *s = lbp_state_of(L);
    const char *path = check_path(L, 1, "load");
    lbp_guard *g = lbp_guarded(L, s, free_weights);
    bp_weights *w;
    bp_status status = bp_weights_load(s->ctx, path, &w);
    if (status != BP_OK) return lbp_result(L, status);
    g->as.pointer = w;
    return push_weights(L, s, w);
}

/* What is being saved: references of our own, since memory that runs out in the middle may make Lua finalize anything. */
typedef struct saved {
    lua_Integer n_tensors, n_texts;
    bp_named_tensor *tensors;
    bp_named_text *texts;
} saved;

static void release_saved(lbp_guard *g)
{
    saved *s = (saved *)g->as.pointer;
    for (lua_Integer i = 0; s && i < s->n_tensors; i++) bp_tensor_release(s->tensors[i].tensor);
}

/* Pushes a copy of the table at idx, so that nobody else can change it; returns the number of its entries. */
static lua_Integer snapshot(lua_State *L, int idx, const char *what, bool tensors)
{
    lua_Integer n = 0;
    lua_newtable(L);
    if (lua_isnoneornil(L, idx) && !tensors) return 0;
    if (lua_type(L, idx) != LUA_TTABLE) lbp_error(L, "save: the %s are %s; a table by name is expected", what, lbp_describe(L, idx));
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            lbp_error(L, "save: an entry of the %s is called %s; names are strings", what, lbp_describe(L, -2));
        const char *name = lua_tostring(L, -2);
        if (strlen(name) != lua_rawlen(L, -2)) lbp_error(L, "save: a name among the %s holds a zero byte", what);
        if (tensors && !lbp_totensor(L, -1)) lbp_error(L, "save: '%s' is %s; a tensor is expected", name, lbp_describe(L, -1));
        if (!tensors && (lua_type(L, -1) != LUA_TSTRING || strlen(lua_tostring(L, -1)) != lua_rawlen(L, -1)))
            lbp_error(L, "save: metadata '%s' is %s; a string without zero bytes is expected", name, lbp_describe(L, -1));
        lua_pushvalue(L, -2);
        lua_insert(L, -2);
        lua_rawset(L, -4);
        n++;
    }
    return n;
}

/* safetensors_save(path, tensors by name [, strings by name]): true. */
static int safetensors_save(lua_State *L)
{
    lbp_state *s = lbp_state_of(L);
    const char *path = check_path(L, 1, "save");
    lua_settop(L, 3);
    lua_Integer n_tensors = snapshot(L, 2, "tensors", true), n_texts = snapshot(L, 3, "metadata", false);
    size_t bytes = sizeof(saved) + (size_t)n_tensors * sizeof(bp_named_tensor) + (size_t)n_texts * sizeof(bp_named_text);
    saved *all = (saved *)lua_newuserdatauv(L, bytes, 0);
    memset(all, 0, sizeof *all);
    all->tensors = (bp_named_tensor *)(void *)(all + 1);
    all->texts = (bp_named_text *)(void *)(all->tensors + n_tensors);
    lbp_guard *g = lbp_guarded(L, s, release_saved);
    g->as.pointer = all;
    for (lua_pushnil(L); lua_next(L, 4); lua_pop(L, 1)) {
        bp_tensor *t = lbp_totensor(L, -1);
        all->tensors[all->n_tensors++] = (bp_named_tensor){ lua_tostring(L, -2), bp_tensor_retain(t) };
    }
    for (lua_pushnil(L); lua_next(L, 5); lua_pop(L, 1))
        all->texts[all->n_texts++] = (bp_named_text){ lua_tostring(L, -2), lua_tostring(L, -1) };
    return done(L, bp_weights_save(s->ctx, path, all->n_tensors, all->tensors, all->n_texts, all->texts));
}

/* ---- IDX ---------------------------------------------------------------------------------------------------------- */

/* idx_load(path): a tensor. */
static int idx_load(lua_State *L)
{
    lbp_state *s = lbp_state_of(L);
    const char *path = check_path(L, 1, "idx");
    lbp_box *box = lbp_newbox(L, s);
    bp_tensor *t;
    bp_status status = bp_idx_load(s->ctx, path, &t);
    if (status != BP_OK) return lbp_result(L, status);
    lbp_fill(box, t);
    return 1;
}

/* ---- CSV ---------------------------------------------------------------------------------------------------------- */

static const char *const csv_names[] = { "separator", "decimal", "header", "missing", "na", "dtype", "kinds", "others", NULL };
static const char *const csv_kinds[] = { "auto", "number", "class", "skip", NULL };
static const char *const csv_missing[] = { "error", "nan", "skip", NULL };

static int choice(lua_State *L, const char *text, const char *option, const char *const *choices)
{
    for (int i = 0; choices[i]; i++)
        if (strcmp(text, choices[i]) == 0) return i;
    lbp_error(L, "csv: option '%s' is '%s'; %s, %s, %s%s%s is expected", option, text, choices[0], choices[1], choices[2],
              choices[3] ? ", " : "", choices[3] ? choices[3] : "");
}

static char one_char(lua_State *L, const char *option)
{
    size_t n;
    const char *text = lbp_option_string(L, 2, "csv", option, &n);
    if (!text) return 0;
    if (n != 1 || *text == '"' || *text == '\n' || *text == '\r' || *text == '\0')
        lbp_error(L, "csv: option '%s' is '%s'; one character is expected, no quote or line end", option, text);
    return *text;
}

static void read_csv_options(lua_State *L, bp_csv_options *o)
{
    static const bp_csv_options defaults = BP_CSV_OPTIONS_INIT;
    const char *text;
    *o = defaults;
    if (!lbp_options(L, 2, "csv", csv_names)) return;
    o->separator = one_char(L, "separator");
    o->decimal = one_char(L, "decimal");
    if (lua_getfield(L, 2, "header") != LUA_TNIL) o->header = lbp_option_boolean(L, 2, "csv", "header", false);
    if ((text = lbp_option_string(L, 2, "csv", "missing", NULL))) o->missing = (bp_csv_missing)choice(L, text, "missing", csv_missing);
    o->na = lbp_option_string(L, 2, "csv", "na", NULL);
    int dtype = lbp_option_dtype(L, 2, "csv", "dtype", BP_F32);
    if (dtype != BP_F32 && dtype != BP_F64)
        lbp_error(L, "csv: option 'dtype' is '%s'; f32 or f64 is expected", bp_dtype_name((bp_dtype)dtype));
    o->dtype = (bp_dtype)dtype;
    if ((text = lbp_option_string(L, 2, "csv", "others", NULL))) o->others = (bp_csv_kind)choice(L, text, "others", csv_kinds);
    if (lua_getfield(L, 2, "kinds") == LUA_TNIL) return;
    if (lua_type(L, -1) != LUA_TTABLE) lbp_error(L, "csv: option 'kinds' is %s; a table by column is expected", lbp_describe(L, -1));
    int kinds = lua_gettop(L);
    lua_Integer n = 0;
    for (lua_pushnil(L); lua_next(L, kinds); lua_pop(L, 1)) n++;
    bp_csv_column_kind *list = (bp_csv_column_kind *)lua_newuserdatauv(L, (size_t)n * sizeof *list, 0);
    for (lua_pushnil(L); o->n_kinds < n && lua_next(L, kinds); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING || lua_type(L, -1) != LUA_TSTRING)
            lbp_error(L, "csv: option 'kinds' holds a kind by name of column");
        list[o->n_kinds].name = lua_tostring(L, -2);
        list[o->n_kinds++].kind = (bp_csv_kind)choice(L, lua_tostring(L, -1), "kinds", csv_kinds);
    }
    o->kinds = list;
}

static void push_column(lua_State *L, lbp_state *s, const bp_csv_column *c)
{
    lua_createtable(L, 0, 4);
    lua_pushstring(L, c->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, csv_kinds[c->kind]);
    lua_setfield(L, -2, "kind");
    lbp_box *box = lbp_newbox(L, s); /* before the reference is taken: it may raise */
    lbp_fill(box, bp_tensor_retain(c->values));
    lua_setfield(L, -2, "values");
    if (c->kind != BP_CSV_CLASS) return;
    lua_createtable(L, (int)c->n_classes, 0);
    for (int64_t k = 0; k < c->n_classes; k++) {
        lua_pushstring(L, c->classes[k]);
        lua_rawseti(L, -2, k + 1);
    }
    lua_setfield(L, -2, "classes");
}

static void free_csv(lbp_guard *g) { bp_csv_free((bp_csv *)g->as.pointer); }

/* csv_load(path [, options]): {rows, skipped, columns = {{name, kind = "number" or "class", values [, classes]}}}. Options: see csv_names.
 */
static int csv_load(lua_State *L)
{
    lbp_state *s = lbp_state_of(L);
    const char *path = check_path(L, 1, "csv");
    bp_csv_options options;
    lua_settop(L, 2);
    read_csv_options(L, &options);
    lbp_guard *g = lbp_guarded(L, s, free_csv);
    bp_csv *csv;
    bp_status status = bp_csv_load(s->ctx, path, &options, &csv);
    if (status != BP_OK) return lbp_result(L, status);
    g->as.pointer = csv;
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, csv->rows);
    lua_setfield(L, -2, "rows");
    lua_pushinteger(L, csv->skipped);
    lua_setfield(L, -2, "skipped");
    lua_createtable(L, (int)csv->n_columns, 0);
    for (int64_t i = 0; i < csv->n_columns; i++) {
        push_column(L, s, &csv->columns[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "columns");
    return 1;
}

/* ---- pictures ----------------------------------------------------------------------------------------------------- */

static void read_size(lua_State *L, int idx, const char *who, int64_t size[2])
{
    if (lua_getfield(L, idx, "size") != LUA_TNIL) {
        bool good = lua_type(L, -1) == LUA_TTABLE && lua_rawlen(L, -1) == 2;
        for (int i = 0; i < 2 && good; i++) {
            lua_rawgeti(L, -1, i + 1);
            good = lbp_towhole(L, -1, &size[i]) && size[i] >= 1 && size[i] <= BP_IMAGE_MAX_SIDE;
            lua_pop(L, 1);
        }
        if (!good)
            lbp_error(L, "%s: option 'size' is %s; {height, width} is expected, each from 1 to %d", who, lbp_describe(L, -1),
                      BP_IMAGE_MAX_SIDE);
    }
    lua_pop(L, 1);
}

/* image_load(path [, {channels = 0, 1, 3 or 4, size = {height, width}}]): a tensor u8 [height][width][channels]. */
static int image_load(lua_State *L)
{
    static const char *const names[] = { "channels", "size", NULL };
    lbp_state *s = lbp_state_of(L);
    const char *path = check_path(L, 1, "image");
    int64_t size[2] = { 0, 0 }, channels = 0;
    if (lbp_options(L, 2, "image", names)) {
        channels = lbp_option_whole(L, 2, "image", "channels", 0, 0, 4);
        read_size(L, 2, "image", size);
    }
    lbp_box *box = lbp_newbox(L, s);
    bp_tensor *t;
    bp_status status = bp_image_load(s->ctx, path, (int)channels, size[0], size[1], &t);
    if (status != BP_OK) return lbp_result(L, status);
    lbp_fill(box, t);
    return 1;
}

/* image_save(path, tensor u8 [height][width][channels] or [height][width]): true. */
static int image_save(lua_State *L)
{
    const char *path = check_path(L, 1, "image");
    if (!lbp_totensor(L, 2)) lbp_typeerror(L, 2, "image", "a tensor u8 [height][width][channels]");
    return done(L, bp_image_save(lbp_hold(L, 2), path));
}

/* image_resize(tensor u8 [h][w][c], height, width): another. */
static int image_resize(lua_State *L)
{
    lbp_state *s = lbp_enter(L);
    int64_t height, width;
    if (!lbp_totensor(L, 1)) lbp_typeerror(L, 1, "image_resize", "a tensor u8 [height][width][channels]");
    if (!lbp_towhole(L, 2, &height)) lbp_typeerror(L, 2, "image_resize", "a height");
    if (!lbp_towhole(L, 3, &width)) lbp_typeerror(L, 3, "image_resize", "a width");
    lbp_box *box = lbp_newbox(L, s);
    bp_tensor *t, *image = lbp_hold(L, 1);
    lbp_check(L, bp_image_resize(image, height, width, &t));
    lbp_fill(box, t);
    lua_pop(L, 1);
    return 1;
}

/* ---- files and folders -------------------------------------------------------------------------------------------- */

typedef struct text_block {
    bp_ctx *ctx;
    char *data;
    size_t n;
} text_block;

static void free_text(lbp_guard *g)
{
    text_block *t = (text_block *)g->as.pointer;
    if (t) bp_mem_free(t->ctx, t->data, t->n + 1);
}

/* read_file(path): its bytes. */
static int read_file(lua_State *L)
{
    lbp_state *s = lbp_state_of(L);
    const char *path = check_path(L, 1, "read_file");
    text_block *t = (text_block *)lua_newuserdatauv(L, sizeof *t, 0);
    *t = (text_block){ s->ctx, NULL, 0 };
    lbp_guarded(L, s, free_text)->as.pointer = t;
    bp_status status = bp_file_read(s->ctx, path, 0, &t->data, &t->n);
    if (status != BP_OK) return lbp_result(L, status);
    lua_pushlstring(L, t->data, t->n);
    return 1;
}

/* write_file(path, text): true; the file is the old one or the whole new one. */
static int write_file(lua_State *L)
{
    bp_ctx *ctx = lbp_context(L);
    const char *path = check_path(L, 1, "write_file");
    size_t n;
    if (lua_type(L, 2) != LUA_TSTRING) lbp_typeerror(L, 2, "write_file", "a string");
    const char *text = lua_tolstring(L, 2, &n);
    return done(L, bp_file_write(ctx, path, text, n));
}

static int remove_file(lua_State *L) { return done(L, bp_file_remove(lbp_context(L), check_path(L, 1, "remove_file"))); }

/* rename_file(from, to): true; what was called `to` is replaced in one step. Both names lie in one file system. */
static int rename_file(lua_State *L)
{
    return done(L, bp_file_rename(lbp_context(L), check_path(L, 1, "rename_file"), check_path(L, 2, "rename_file")));
}

/* crc32(text): a whole number. */
static int crc32_of(lua_State *L)
{
    size_t n;
    if (lua_type(L, 1) != LUA_TSTRING) lbp_typeerror(L, 1, "crc32", "a string");
    const char *text = lua_tolstring(L, 1, &n);
    lua_pushinteger(L, (lua_Integer)bp_crc32(0, text, n));
    return 1;
}

/* make_folder(path): true; makes those above it too. */
static int make_folder(lua_State *L) { return done(L, bp_folder_make(lbp_context(L), check_path(L, 1, "make_folder"))); }

static void free_listing(lbp_guard *g)
{
    if (g->as.pointer) bp_listing_free((bp_listing *)g->as.pointer);
}

/* list_folder(path): the names in it, sorted, and a set of those that are folders. */
static int list_folder(lua_State *L)
{
    lbp_state *s = lbp_state_of(L);
    const char *path = check_path(L, 1, "list_folder");
    bp_listing *l = (bp_listing *)lua_newuserdatauv(L, sizeof *l, 0);
    lbp_guard *g = lbp_guarded(L, s, free_listing);
    bp_status status = bp_folder_list(s->ctx, path, l);
    if (status != BP_OK) return lbp_result(L, status);
    g->as.pointer = l;
    lua_createtable(L, (int)l->count, 0);
    lua_newtable(L);
    for (int64_t i = 0; i < l->count; i++) {
        lua_pushstring(L, l->entries[i].name);
        lua_pushvalue(L, -1);
        lua_rawseti(L, -4, i + 1);
        lua_pushboolean(L, true);
        if (l->entries[i].is_folder)
            lua_rawset(L, -3);
        else
            lua_pop(L, 2);
    }
    return 2;
}

void lbp_open_io(lua_State *L, lbp_state *s)
{
    static const luaL_Reg functions[] = {
        { "safetensors_load", safetensors_load },
        { "safetensors_save", safetensors_save },
        { "idx_load", idx_load },
        { "csv_load", csv_load },
        { "image_load", image_load },
        { "image_save", image_save },
        { "image_resize", image_resize },
        { "read_file", read_file },
        { "write_file", write_file },
        { "remove_file", remove_file },
        { "rename_file", rename_file },
        { "crc32", crc32_of },
        { "make_folder", make_folder },
        { "list_folder", list_folder },
        { NULL, NULL },
    };
    (void)s;
    luaL_setfuncs(L, functions, 0);
}
