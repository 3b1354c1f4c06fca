/* lbp.h - what the files of the binding share: the state's context, boxed tensors, errors, arguments.
 *
 * Three rules keep every error path whole (lua_error jumps):
 *   1. A C resource is owned by a userdata before the next call that may raise. A function parses its arguments and makes its empty boxes
 *      first, then works in core, then fills the boxes.
 *   2. Any call that allocates in Lua may collect garbage and so run somebody's finalizer, which may free a tensor. A tensor pointer taken
 *      from a box, and the box of a value that Lua code can reach, are good until the next such call; lbp_hold keeps the tensor longer.
 *   3. Core is never jumped through: what it calls back (bp_ctx.reclaim) does not raise. */
#ifndef LBP_H
#define LBP_H

#include "../core/base/context.h"
#include "../core/ops/op.h"
#include "../core/tensor/tensor.h"

#include <lauxlib.h>
#include <lua.h>

#define LBP_TENSOR "bp.Tensor"

/* ---- the state ---------------------------------------------------------------------------------------------------- */

/* A thing of core that Lua owns: in a list, so that the context closes after all of them in whatever order Lua finalizes (owned.c). */
typedef struct lbp_owned {
    struct lbp_owned *prev, *next;
    void (*release)(struct lbp_owned *self); /* gives up the C resource; may be called twice */
} lbp_owned;

typedef struct lbp_state lbp_state;
typedef struct lbp_slab lbp_slab;

/* What a tensor of Lua is. The userdata holds the address of its box. */
typedef struct lbp_box {
    lbp_owned link;
    bp_tensor *tensor; /* NULL: not yet filled, or freed */
    uint64_t born;
    bool persistent; /* survives scopes */
    bool spared;     /* survives the scope that ends now: it is among the results */
    bool frozen;     /* its requires_grad was once withdrawn */
} lbp_box;

struct lbp_state {
    bp_ctx *ctx;     /* NULL once closed */
    lua_State *main; /* the main thread: alive as long as the state */
    lbp_owned boxes; /* list heads; newest first */
    lbp_owned others;
    lbp_owned *spare;        /* cells not in use */
    lbp_slab *slabs;         /* all cells */
    lbp_box dead;            /* the box of a tensor that was finalized and brought back to life by another finalizer */
    uint64_t born;           /* numbers boxes in order of birth */
    uint64_t generation;     /* raised when plans made before may no longer say the same (a parameter was frozen) */
    lua_State *calling;      /* the thread that runs a backward, for its hooks */
    int metatable;           /* of tensors: its number in the registry */
    int freed_metatable;     /* of those freed by hand: the same without __gc */
    int persist;             /* > 0: new boxes survive scopes */
    bool reclaiming;         /* finalizers run in the middle of a core call: no op may be applied */
    size_t collect_at;       /* live bytes at which the next collection is due */
    uint64_t collect_born;   /* number of the box at which it is due as well */
    uint64_t collected_born; /* number at the last one */
    char where[512];         /* the layer path that ctx->where points at: names joined by '/' */
    int where_lost;          /* pushes that found no room in it */
};

/* The state of L, opened on first use; raises when it cannot be. */
lbp_state *lbp_state_of(lua_State *L);
/* The same, for a function about to apply ops or change tensors: refuses while memory is being reclaimed. */
lbp_state *lbp_enter(lua_State *L);
/* Its context. Raises as lbp_state_of does. */
bp_ctx *lbp_context(lua_State *L);
void lbp_list_init(lbp_owned *head);
/* Puts something at the head of a list; takes it off again (harmless when it is on none); takes off and releases all. */
void lbp_own(lbp_owned *head, lbp_owned *o);
void lbp_disown(lbp_owned *o);
void lbp_release_all(lbp_owned *head);
/* Room for an lbp_box or lbp_guard, zeroed; valid until given back. Taking may collect garbage, may raise. */
void *lbp_take_cell(lua_State *L, lbp_state *s);
void lbp_give_cell(lbp_state *s, lbp_owned *o);
void lbp_free_cells(lbp_state *s);

/* ---- boxed tensors ------------------------------------------------------------------------------------------------ */

/* Its address is the mark by which the userdata is told from others without a table lookup. */
extern const char lbp_box_tag;

/* Pushes an empty box. May collect garbage, may raise. Filling takes over one reference and never raises. */
lbp_box *lbp_newbox(lua_State *L, lbp_state *s);
void lbp_fill(lbp_box *box, bp_tensor *t);
/* Gives the tensor up at once; later use raises. */
void lbp_empty(lbp_box *box);
/* The same for the value at idx, and its box, too: nothing is left to finalize, so Lua need not call anything when it collects the value.
 * False when it is no tensor. */
bool lbp_free_box(lua_State *L, int idx);
/* The finalizer of tensors. */
int lbp_collect_box(lua_State *L);

/* Pushes a tensor, taking over one reference, also when it raises for lack of memory. */
void lbp_pushtensor(lua_State *L, bp_tensor *t);
/* The box at idx, or NULL when there is something else. Freeing the value gives the box to the next tensor made: see `born`. */
lbp_box *lbp_testbox(lua_State *L, int idx);
/* The tensor at idx (borrowed), or NULL when it is no tensor. Raises when it was freed. */
bp_tensor *lbp_totensor(lua_State *L, int idx);
/* The tensor at argument idx (borrowed); raises an argument error otherwise. */
bp_tensor *lbp_checktensor(lua_State *L, int idx);
/* Pushes a box that holds the tensor at idx too: keeps it alive for as long as the pushed value is on the stack. */
bp_tensor *lbp_hold(lua_State *L, int idx);
/* Pushes a tensor made from a number, a boolean or nested tables at idx. dtype -1: f32 for numbers, bool for booleans. */
void lbp_pushvalue(lua_State *L, int idx, int dtype, const char *what);

/* Metamethods and methods of tensors that live in files of their own. */
int lbp_tensor_index(lua_State *L);    /* index.c: upvalue 1 holds the methods */
int lbp_tensor_newindex(lua_State *L); /* index.c */
int lbp_tensor_slide(lua_State *L);    /* index.c: core.slide */
int lbp_tensor_tostring(lua_State *L); /* print.c */
/* Writes the value at idx (number, boolean, tensor, table) into a tensor, converted and broadcast. */
void lbp_assign(lua_State *L, lbp_state *s, int target, int value);
/* autograd.c: pushes t.grad; sets requires_grad and grad. */
void lbp_push_grad(lua_State *L, int idx);
void lbp_set_grad(lua_State *L, int idx, int value);
void lbp_set_requires_grad(lua_State *L, int idx, bool wanted);
/* Pushes the element at that address as a Lua value; reads a Lua number or boolean into one (raises when it does not fit). */
void lbp_push_element(lua_State *L, bp_dtype dtype, const void *p);
void lbp_read_element(lua_State *L, int idx, bp_dtype dtype, void *p, const char *what);

/* ---- errors ------------------------------------------------------------------------------------------------------- */

/* Pushes "file:line: " of the first stack level outside the library's own Lua files, or "". */
void lbp_where(lua_State *L);
/* core.library: files below the folder of the calling chunk belong to the library. */
int lbp_library(lua_State *L);
/* Raises a message of ours blaming that line. */
int lbp_error(lua_State *L, const char *format, ...) __attribute__((noreturn));
/* Raises the context's message blaming that line. */
int lbp_raise(lua_State *L, bp_status status) __attribute__((noreturn));
/* BP_OK: 0. Misuse, exhaustion and stopping raise. The world failing pushes nil, message, code ("eio") and returns 3. */
int lbp_result(lua_State *L, bp_status status);
/* Like lbp_raise when status is not BP_OK. */
static inline void lbp_check(lua_State *L, bp_status status)
{
    if (status != BP_OK) lbp_raise(L, status);
}
/* "who: bad argument #arg (expected ..., got ...)"; adds the hint about ':' where it fits. */
int lbp_typeerror(lua_State *L, int arg, const char *who, const char *expected) __attribute__((noreturn));
/* What a value is, for messages: "number 1.5", "string 'abc'", "bp.Tensor f32 [2x3]", "nil". Pushes the text and returns it. */
const char *lbp_describe(lua_State *L, int idx);
/* The name among n nearest to `word` (spelling), or NULL when none is near. next(ud, i) gives name i. */
const char *lbp_nearest(const char *word, int n, const char *(*name)(const void *ud, int i), const void *ud);

/* ---- arguments ---------------------------------------------------------------------------------------------------- */

/* Whole number at idx (also 3.0); false if it is none. */
bool lbp_towhole(lua_State *L, int idx, int64_t *v);
/* A dtype's name at idx, or `def` (a bp_dtype or -1) for nil and none. */
int lbp_checkdtype(lua_State *L, int idx, const char *who, int def);
/* A shape at idx: a list of sizes or one size. Returns the number of dimensions. */
int lbp_checkshape(lua_State *L, int idx, const char *who, int64_t *shape);

/* An option table at idx (nil and none count as empty). `names` ends with NULL; other keys raise, naming the nearest. Returns whether there
 * is a table. The getters read one field of it and raise "who: option 'name': expected ..., got ...". */
bool lbp_options(lua_State *L, int idx, const char *who, const char *const *names);
int64_t lbp_option_whole(lua_State *L, int idx, const char *who, const char *name, int64_t def, int64_t min, int64_t max);
double lbp_option_number(lua_State *L, int idx, const char *who, const char *name, double def, double min, double max);
bool lbp_option_boolean(lua_State *L, int idx, const char *who, const char *name, bool def);
/* NULL when it is not there; valid while the table is. `n` may be NULL. */
const char *lbp_option_string(lua_State *L, int idx, const char *who, const char *name, size_t *n);
int lbp_option_dtype(lua_State *L, int idx, const char *who, const char *name, int def);
/* NULL when it is not there; borrowed from the table. */
bp_tensor *lbp_option_tensor(lua_State *L, int idx, const char *who, const char *name);

/* ---- positions: from 1 in Lua, from 0 in core; negative ones count from the end in both --------------------------- */

/* Raises for 0. */
int64_t lbp_position(lua_State *L, int64_t v, const char *who, const char *what);

/* ---- regions ------------------------------------------------------------------------------------------------------ */

/* Something to be undone. undo must not raise; it runs once. */
typedef struct lbp_guard {
    lbp_owned link;
    lbp_state *state;
    void (*undo)(struct lbp_guard *g);
    union {
        bool flag;
        uint64_t number;
        void *pointer;
    } as;
} lbp_guard;
typedef struct lbp_held {
    lbp_state *state;
    lbp_guard *guard;
} lbp_held;
/* Undone when the calling C function returns or an error passes: pushes a to-be-closed value. The pointer is valid until then. */
lbp_guard *lbp_guarded(lua_State *L, lbp_state *s, void (*undo)(lbp_guard *g));
/* Undone when the value that is pushed is collected, at the latest when the state closes. That value is an lbp_held, whose guard is NULL
 * from then on. */
lbp_guard *lbp_new_guard(lua_State *L, lbp_state *s, void (*undo)(lbp_guard *g));
/* Runs the undo now instead of at the end. */
void lbp_unguard(lbp_guard *g);
/* Raises an argument error unless the value at idx can be called. */
void lbp_check_callable(lua_State *L, int idx, const char *who);
/* Calls the function at stack index 1 with the arguments 2..n and leaves its results on top; returns their number. A function that runs
 * user code under a guard cannot yield: the guarded state is the context's, not the coroutine's. */
int lbp_call_guarded(lua_State *L, int n);

/* ---- ops ---------------------------------------------------------------------------------------------------------- */

/* Reads the options of an op from the values first..last of the stack (see options.c). args has BP_MAX_ARGS places. */
void lbp_op_options(lua_State *L, const bp_op *op, int first, int last, bp_arg *args);
/* Applies an op of one input and one output to the tensor at idx and pushes the result. */
void lbp_apply_push(lua_State *L, lbp_state *s, const bp_op *op, int idx, int n_args, const bp_arg *args);
/* Pushes core.ops' function for an op; in_place: its name_() form. */
void lbp_push_op(lua_State *L, lbp_state *s, const bp_op *op, bool in_place);

/* ---- the parts of bp.core: each adds its functions to the table on top of the stack, called once per opening --------
 * Parts written elsewhere (files, images, ...) add a row here and define void lbp_open_NAME(lua_State *L, lbp_state *s). */
#define LBP_PARTS(X) \
    X(tensor)        \
    X(convert)       \
    X(ops)           \
    X(optable)       \
    X(autograd)      \
    X(capture)       \
    X(watch)         \
    X(scope)         \
    X(random)        \
    X(settings)      \
    X(io)            \
    X(json)
#define X(part) void lbp_open_##part(lua_State *L, lbp_state *s);
LBP_PARTS(X)
#undef X

#endif
