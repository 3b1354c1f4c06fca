/* bp.h - the public face of libbp: tensors, ops, gradients, plans and files in plain C.
 *
 * libbp knows nothing of Lua. It never prints, exits, aborts, sets a signal, a locale or a thread's floating-point state
 * that outlives a call. All state hangs on a bp_ctx; one context belongs to one thread at a time.
 *
 *     bp_ctx *bp;
 *     if (bp_open(NULL, &bp) != BP_OK) return 1;
 *     int64_t shape[] = { 2, 3 };
 *     bp_tensor *x = NULL, *y = NULL;
 *     if (bp_tensor_new(bp, BP_F32, 2, shape, &x) || bp_apply1(bp, bp_op_find("relu"), x, &y))
 *         fprintf(stderr, "%s\n", bp_message(bp));
 *     bp_tensor_release(x); bp_tensor_release(y);
 *     bp_close(bp);
 *
 * Every function that can fail returns a bp_status and leaves a message in the context. Positions and axes count from 0
 * here; Lua counts from 1 and converts at its border. Objects are reference counted: what a function hands out through a
 * pointer-to-pointer is owned by the caller, who releases it. */
#ifndef BP_H
#define BP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The one place where the version is written; the build reads it from here. */
#define BP_VERSION_MAJOR 0
#define BP_VERSION_MINOR 1
#define BP_VERSION_PATCH 0
#define BP_VERSION "0.1.0"

#define BP_MAX_DIMS 8

/* ---- status ------------------------------------------------------------------------------------------------------- */

/* One row per status: code, name, what it means. EINVAL, ESTATE and ENOMEM are misuse or exhaustion (Lua raises them);
 * EIO, EFORMAT and ELIMIT are the world failing (Lua returns nil, message, code). */
#define BP_STATUS_MAP(X)                                                                                               \
    X(BP_OK, "ok", "success")                                                                                          \
    X(BP_ENOMEM, "enomem", "out of memory")                                                                            \
    X(BP_EINVAL, "einval", "wrong argument: type, dtype, shape, option or range")                                      \
    X(BP_ESTATE, "estate", "right argument at the wrong time: freed, changed in place, inside a capture")              \
    X(BP_EIO, "eio", "the operating system refused to open, read, write or rename")                                    \
    X(BP_EFORMAT, "eformat", "a file is not what it claims to be")                                                     \
    X(BP_ELIMIT, "elimit", "a file asks for more than the limits allow")                                               \
    X(BP_ESTOP, "estop", "stopped on request, or by a callback")

typedef enum bp_status {
#define X(code, name, text) code,
    BP_STATUS_MAP(X)
#undef X
        BP_STATUS_COUNT
} bp_status;

/* The short lower-case name of a status, e.g. "eformat". */
const char *bp_status_name(bp_status status);

/* ---- context ------------------------------------------------------------------------------------------------------ */

typedef struct bp_ctx bp_ctx;

/* An allocator in Lua's shape: allocate (ptr NULL), resize, or free (nsize 0, returns NULL). osize is the size that was
 * asked for; for a new block it is 0. It may fail by returning NULL, except when shrinking or freeing. */
typedef void *(*bp_alloc_fn)(void *ud, void *ptr, size_t osize, size_t nsize);

/* Called for each entry of a folder, "." and ".." excepted; a result other than 0 ends the listing, which returns it. */
typedef int bp_list_fn(void *ud, const char *name, bool is_folder);

/* File operations, in the shape of POSIX: each returns what its namesake returns and leaves errno. `open_temp` makes a new file next to
 * `path` and writes its name into `name`; `sync_folder` makes a rename of `path` durable; `list` goes through a folder in any order.
 * Where open_read, open_temp, unlink, list or make_folder is NULL, what needs it is refused with ENOSYS. */
typedef struct bp_files {
    void *ud;
    int (*open_read)(void *ud, const char *path);
    int (*open_temp)(void *ud, const char *path, char *name, size_t name_size);
    ptrdiff_t (*read)(void *ud, int fd, void *buf, size_t n);
    ptrdiff_t (*write)(void *ud, int fd, const void *buf, size_t n);
    int64_t (*size)(void *ud, int fd);
    int (*sync)(void *ud, int fd);
    int (*close)(void *ud, int fd);
    int (*rename)(void *ud, const char *from, const char *to);
    int (*unlink)(void *ud, const char *path);
    int (*sync_folder)(void *ud, const char *path);
    int (*list)(void *ud, const char *path, bp_list_fn *each, void *each_ud);
    int (*make_folder)(void *ud, const char *path);
} bp_files;

/* How to open a context. Start from BP_CONFIG_INIT; zero fields take their defaults. */
typedef struct bp_config {
    size_t struct_size; /* sizeof(bp_config): lets later versions add fields */
    bp_alloc_fn alloc;  /* default: realloc and free */
    void *alloc_ud;
    const bp_files *files;     /* default: POSIX; must outlive the context */
    double (*clock)(void *ud); /* monotonic seconds; default: clock_gettime(CLOCK_MONOTONIC) */
    void *clock_ud;
    size_t memory_limit; /* bytes; 0: none */
    int threads;         /* 0: as many as this process may use */
    uint64_t seed;       /* of the random streams; 0 is a seed like any other */
    int index_base;      /* positions held in tensors (labels, indices, argmax) count from 0 or 1 */
    const char *isa;     /* "baseline", "avx2", "avx512"; NULL: $BP_ISA, else the best this machine runs */
} bp_config;

#define BP_CONFIG_INIT { sizeof(bp_config), NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, NULL }

/* Opens a context. config may be NULL for all defaults. BP_ENOMEM or BP_EINVAL (unknown isa) leave *ctx NULL. */
bp_status bp_open(const bp_config *config, bp_ctx **ctx);
/* Closes a context and everything it still holds itself. Tensors and plans must have been released before. */
void bp_close(bp_ctx *ctx);

/* The message of the last failure in this context: where, what was found, what was expected, how to mend it. */
const char *bp_message(const bp_ctx *ctx);

/* Bytes now allocated through the context, and the highest they have been. */
size_t bp_memory_used(const bp_ctx *ctx);
size_t bp_memory_peak(const bp_ctx *ctx);
/* Starts the peak anew from what is used now. */
void bp_memory_reset_peak(bp_ctx *ctx);
/* Number of allocator calls that asked for memory since the context was opened. */
uint64_t bp_memory_calls(const bp_ctx *ctx);

/* Number of threads that work on one op (the caller's included), and its change. 1 <= threads <= 256. Results do not depend on it. */
int bp_threads(const bp_ctx *ctx);
bp_status bp_set_threads(bp_ctx *ctx, int threads);
/* The instruction set whose kernels this context uses: "baseline", "avx2" or "avx512". */
const char *bp_isa(const bp_ctx *ctx);
/* Restarts every random stream from a seed. */
void bp_seed(bp_ctx *ctx, uint64_t seed);

/* Whether ops are noted for backward (default true), and whether layers are in training mode (default false). Both return the old value. */
bool bp_set_grad_enabled(bp_ctx *ctx, bool enabled);
bool bp_grad_enabled(const bp_ctx *ctx);
bool bp_set_training(bp_ctx *ctx, bool training);
bool bp_training(const bp_ctx *ctx);

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

/* One row per dtype: code, name in Lua and in messages, C type, name in safetensors. */
#define BP_DTYPE_MAP(X)                                                                                                \
    X(BP_F32, "f32", float, "F32")                                                                                     \
    X(BP_F64, "f64", double, "F64")                                                                                    \
    X(BP_I32, "i32", int32_t, "I32")                                                                                   \
    X(BP_I64, "i64", int64_t, "I64")                                                                                   \
    X(BP_U8, "u8", uint8_t, "U8")                                                                                      \
    X(BP_BOOL, "bool", uint8_t, "BOOL")

typedef enum bp_dtype {
#define X(code, name, type, st) code,
    BP_DTYPE_MAP(X)
#undef X
        BP_DTYPE_COUNT
} bp_dtype;

/* The name of a dtype ("f32"), its size in bytes, and the dtype of a name (false if there is none). */
const char *bp_dtype_name(bp_dtype dtype);
size_t bp_dtype_size(bp_dtype dtype);
bool bp_dtype_find(const char *name, bp_dtype *dtype);

typedef struct bp_tensor bp_tensor;

/* A new tensor, row-major, its elements not yet set. shape[i] >= 0. BP_EINVAL on a negative size or an overflow. */
bp_status bp_tensor_new(bp_ctx *ctx, bp_dtype dtype, int ndim, const int64_t *shape, bp_tensor **out);
/* A 0-d tensor of the dtype holding value (converted). */
bp_status bp_tensor_scalar(bp_ctx *ctx, bp_dtype dtype, double value, bp_tensor **out);
/* One more and one fewer reference; release accepts NULL. */
bp_tensor *bp_tensor_retain(bp_tensor *t);
void bp_tensor_release(bp_tensor *t);

/* What a tensor looks like; the shape is borrowed and has bp_tensor_ndim entries. */
bp_ctx *bp_tensor_ctx(const bp_tensor *t);
bp_dtype bp_tensor_dtype(const bp_tensor *t);
int bp_tensor_ndim(const bp_tensor *t);
const int64_t *bp_tensor_shape(const bp_tensor *t);
/* Strides count elements, not bytes. */
const int64_t *bp_tensor_strides(const bp_tensor *t);
/* Number of elements: the product of the shape, 1 for 0-d. */
int64_t bp_tensor_count(const bp_tensor *t);
bool bp_tensor_is_contiguous(const bp_tensor *t);
/* Address of the first element. The host may read and write through it while no other call runs; writing bypasses the
 * checks of autodiff, so do it on tensors that take part in no pending backward. */
void *bp_tensor_data(bp_tensor *t);

/* Copies all elements, row-major, converting to dtype, out of or into a tensor whatever its strides. `n` must equal the count.
 * BP_ESTATE when a capture is open and the value is one that a replay would compute anew. */
bp_status bp_tensor_read(bp_tensor *t, bp_dtype dtype, void *dst, int64_t n);
bp_status bp_tensor_write(bp_tensor *t, bp_dtype dtype, const void *src, int64_t n);

/* ---- ops ---------------------------------------------------------------------------------------------------------- */

typedef struct bp_op bp_op;

/* The value of one option of an op. `set` 0 takes the option's default. Lists hold up to BP_MAX_DIMS whole numbers. */
typedef struct bp_arg {
    int32_t set, count;
    union {
        int64_t i;
        double f;
        int64_t list[BP_MAX_DIMS];
    } as;
} bp_arg;

static inline bp_arg bp_int(int64_t i)
{
    bp_arg a = { 1, 1, { 0 } };
    a.as.i = i;
    return a;
}
static inline bp_arg bp_float(double f)
{
    bp_arg a = { 1, 1, { 0 } };
    a.as.f = f;
    return a;
}
static inline bp_arg bp_list(int count, const int64_t *v)
{
    bp_arg a = { 1, 0, { 0 } };
    a.count = count;
    for (int k = 0; k < count && k < BP_MAX_DIMS; k++) a.as.list[k] = v[k];
    return a;
}
static inline bp_arg bp_default(void)
{
    bp_arg a = { 0, 0, { 0 } };
    return a;
}

/* The op of that name, or NULL. */
const bp_op *bp_op_find(const char *name);
/* All ops, in the order of the table; bp_op_at(n) is NULL past the end. */
const bp_op *bp_op_at(int index);
const char *bp_op_name(const bp_op *op);

/* The one door: applies an op. in[0..n_in-1] are its inputs in the row's order (NULL where an optional one is left out), args its
 * options in the row's order (n_args may be fewer; the rest take their defaults). out[i] is NULL on entry to get a new tensor, or a
 * tensor of the right shape and dtype to be overwritten. On failure no output is changed or handed out. */
bp_status bp_apply(bp_ctx *ctx, const bp_op *op, int n_in, bp_tensor *const *in, int n_args, const bp_arg *args, bp_tensor **out);
/* The same for one input and no options, and for two. *out NULL on entry. */
bp_status bp_apply1(bp_ctx *ctx, const bp_op *op, bp_tensor *a, bp_tensor **out);
bp_status bp_apply2(bp_ctx *ctx, const bp_op *op, bp_tensor *a, bp_tensor *b, bp_tensor **out);

/* ---- gradients ---------------------------------------------------------------------------------------------------- */

/* Marks a floating-point tensor as one whose gradient is wanted. BP_EINVAL for other dtypes; BP_ESTATE to unmark the result of an op. */
bp_status bp_tensor_set_requires_grad(bp_tensor *t, bool wanted);
bool bp_tensor_requires_grad(const bp_tensor *t);
/* The gradient gathered so far, borrowed, or NULL. */
bp_tensor *bp_tensor_grad(bp_tensor *t);
/* Makes `grad` (same shape and dtype) the place where backward gathers; NULL drops it. It counts as zero until then. */
bp_status bp_tensor_set_grad(bp_tensor *t, bp_tensor *grad);
/* The gathered gradient counts as zero from here on; the next backward overwrites it. */
bp_status bp_tensor_zero_grad(bp_tensor *t);
/* Keeps the gradient of a result (not a leaf) as well when backward passes it. */
bp_status bp_tensor_retain_grad(bp_tensor *t);
/* Has fn(ud, grad, &replacement) called by every backward that passes t, the result of an op, once its gradient is whole. What fn puts into
 * *replacement (NULL before; a reference handed over, of the look of grad) goes further back instead of grad. fn must not start a backward.
 * release(ud), if not NULL, is called when the history is given up or used up. On failure ud stays the caller's. */
typedef bp_status bp_grad_fn(void *ud, bp_tensor *grad, bp_tensor **replacement);
bp_status bp_tensor_on_grad(bp_tensor *t, bp_grad_fn *fn, void *ud, void (*release)(void *ud));
/* The same values with no history, sharing storage. */
bp_status bp_tensor_detach(bp_tensor *t, bp_tensor **out);

typedef struct bp_backward_options {
    bool retain_graph; /* keep the history for another backward */
    bool create_graph; /* note the gradient's own computation (implies retain_graph) */
} bp_backward_options;

/* Adds d(t)/d(leaf), weighted by seed (NULL: t must have one element; 1), to the grad of every leaf that t depends on.
 * BP_ESTATE when t has no history, its history was already used up, or a saved value was changed in place since. */
bp_status bp_backward(bp_tensor *t, bp_tensor *seed, const bp_backward_options *options);
/* Gradients of t for the given tensors, without touching any grad: grads[i] is new, or NULL where t does not depend on wrt[i]. */
bp_status bp_gradients(bp_tensor *t, bp_tensor *seed, int n, bp_tensor *const *wrt, const bp_backward_options *options, bp_tensor **grads);

/* Moves tensors of one dtype (parameters) into one block and their gradients into another: *data and *grad are 1-d tensors over the blocks,
 * and every tensor and its grad become views of them, each starting on a 64-byte boundary with zeros in the gaps. So an optimizer is one
 * pass. Values and gathered gradients are kept; plans captured before become stale. BP_EINVAL for mixed dtypes, a tensor given twice, or
 * one that is no leaf. */
bp_status bp_flatten(bp_ctx *ctx, int n, bp_tensor *const *tensors, bp_tensor **data, bp_tensor **grad);
/* Brings a block of gradients up to date before an optimizer reads it: a gradient that was set since, or begun anew, moves back to its
 * place; one that counts as zero is zero, and so is the place of a tensor that requires none. *reached: how many of the tensors have had
 * a gradient since it last counted as zero. */
bp_status bp_gather_grads(int n, bp_tensor *const *tensors, bp_tensor *grad, int *reached);

/* ---- plans -------------------------------------------------------------------------------------------------------- */

typedef struct bp_plan bp_plan;

/* Opens a capture: from now on the plan notes every op of this context. inputs are the tensors that a replay will replace; each has memory
 * of its own. */
bp_status bp_plan_begin(bp_ctx *ctx, int n_inputs, bp_tensor *const *inputs);
/* Closes the capture; outputs are what a replay hands back. */
bp_status bp_plan_end(bp_ctx *ctx, int n_outputs, bp_tensor *const *outputs, bp_plan **plan);
/* Drops an open capture. */
void bp_plan_abandon(bp_ctx *ctx);
/* Replays: inputs must have the shapes and dtypes of the capture, and where they have gaps its strides. out[i] receives a tensor owned by
 * the caller; as long as the caller holds it, later replays leave it alone. BP_EINVAL for what bp_plan_shares finds. */
bp_status bp_plan_run(bp_plan *plan, int n_inputs, bp_tensor *const *inputs, bp_tensor **out);
/* Replays and writes the results into tensors of the caller, without allocating: out[i] has the shape and dtype of output i, no gaps, no
 * history, and no memory in common with another one. The results are as those of bp_plan_run, copied into out when all is computed; so out
 * may be an argument, or memory that the plan keeps. Where it is neither, the results are computed in it. BP_EINVAL when a result that is
 * itself memory of an argument or of the plan's would be overwritten before it is copied. */
bp_status bp_plan_run_into(bp_plan *plan, int n_inputs, bp_tensor *const *inputs, int n_outputs, bp_tensor *const *out);
/* Whether a replay could give something else than the function that was captured, because it writes to memory that one of these arguments
 * shares with another or with what the plan keeps (a parameter). What was captured cannot know of that; run the ops themselves. */
bool bp_plan_shares(const bp_plan *plan, int n_inputs, bp_tensor *const *inputs);
void bp_plan_release(bp_plan *plan);

/* Whether parameters were moved to other memory since the capture, so that it must be captured anew. */
bool bp_plan_is_stale(const bp_plan *plan);

/* What a plan consists of. */
typedef struct bp_plan_info {
    int ops;                /* applied at each replay */
    int recorded;           /* noted during the capture, views included */
    size_t arena_bytes;     /* temporaries of one replay after lifetimes were laid out */
    size_t temporary_bytes; /* the same without sharing */
} bp_plan_info;
bp_plan_info bp_plan_describe(const bp_plan *plan);
/* The op that a replay applies as number `index`, from 0; NULL past the end. */
const bp_op *bp_plan_op(const bp_plan *plan, int index);
/* From now on (or no longer) the replays are timed op by op; the counts begin at 0. */
bp_status bp_plan_profile(bp_plan *plan, bool on);
typedef struct bp_plan_timing {
    const char *where; /* path of the layer that applied the op, owned by the plan; NULL: none */
    int64_t replays;   /* timed so far */
    double seconds;    /* of all of them */
} bp_plan_timing;
/* Of op number `index`. */
bp_plan_timing bp_plan_timed(const bp_plan *plan, int index);

/* While paused nothing is noted, and what is made counts as older than the capture (parameters built on first use). Returns the old value.
 */
bool bp_pause_capture(bp_ctx *ctx, bool paused);

#ifdef __cplusplus
}
#endif
#endif
