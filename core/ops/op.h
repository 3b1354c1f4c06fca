/* op.h - what one op declares. Everything else about an op is derived from its row: the Lua function and its option errors, what the tape
 * and the plan do with it, the gradient check, the manual's section, the name in saved files.
 *
 * Adding an op: a file (or a place in its family's file) that defines `const bp_op bp__op_NAME`, and the row OP(NAME) in ops.def. */
#ifndef BP_OP_H
#define BP_OP_H

#include "../kernels/kernels.h"
#include "../tensor/tensor.h"

#define BP_MAX_OUT 6
#define BP_MAX_ARGS 12

/* ---- inputs ---- */
enum {
    BP_IN_OPTIONAL = 1, /* may be left out (NULL) */
    BP_IN_VARIADIC = 2, /* the last one: one or more tensors */
    BP_IN_INDEX = 4,    /* holds positions or labels: integers counted from ctx->base; never promoted */
    BP_IN_STREAM = 8,   /* random state i64[2] {key, step}: filled from the row's stream when left out; advanced by the op */
    BP_IN_RAW = 16,     /* taken as it is: neither promoted nor made contiguous */
    BP_IN_MUTATED = 32, /* written by the op */
};
typedef struct bp_input {
    const char *name;
    unsigned flags;
    const char *help; /* shape and meaning: "[batch][in] values" */
} bp_input;

/* ---- options ---- */
typedef enum bp_option_kind {
    BP_OPT_INT, /* whole number */
    BP_OPT_FLOAT,
    BP_OPT_BOOL,
    BP_OPT_CHOICE,  /* one of choices[]; as.i is its index */
    BP_OPT_DTYPE,   /* as.i is a bp_dtype; -1: not given */
    BP_OPT_AXIS,    /* a dimension: from 1 in Lua, from 0 here; negative counts from the end in both */
    BP_OPT_AXES,    /* list of dimensions; empty: all */
    BP_OPT_INDEX,   /* a position along a dimension, as BP_OPT_AXIS */
    BP_OPT_INDICES, /* list of positions */
    BP_OPT_INTS,    /* list of whole numbers */
} bp_option_kind;
typedef struct bp_option {
    const char *name;
    bp_option_kind kind;
    double def;      /* default (index for a choice, each element for a list of fixed length) */
    double min, max; /* inclusive; min > max: any */
    int length;      /* lists: exact length, a single number standing for all; 0: any length up to BP_MAX_DIMS */
    bool required;
    const char *const *choices; /* NULL-terminated */
    const char *help;
} bp_option;
#define BP_ANY_RANGE 1, 0 /* min > max */

/* ---- how the door prepares inputs (index, stream and raw inputs excepted) ---- */
typedef enum bp_promote {
    BP_PROMOTE_FLOAT,  /* to the widest float among them; integers alone become f32 */
    BP_PROMOTE_COMMON, /* to a common dtype: float wins; u8 and bool become i32 among themselves; i64 over i32 */
    BP_PROMOTE_NONE,
} bp_promote;

enum {
    BP_OP_VIEW = 1,        /* out[0] shares the storage of in[0]; infer gives strides and offset, run is NULL */
    BP_OP_NO_GRADIENT = 2, /* not differentiable by nature (comparisons, indices, random draws, updates) */
    BP_OP_KINKED = 4,      /* the gradient check keeps away from kinks: see bp_case.low */
    BP_OP_STRIDED = 8,     /* run takes any strides; else the door makes inputs contiguous first */
    BP_OP_INPLACE = 16,    /* may write over in[0]: Lua gets name_() as well */
    BP_OP_METHOD = 32,     /* Lua gets t:name() */
    BP_OP_INTERNAL = 64,   /* helper of another op's gradient: in bp.ops, not advertised */
};

/* ---- a call passing the door ---- */
typedef struct bp_call {
    bp_ctx *ctx;
    const bp_op *op;
    int n_in, n_out;
    bp_tensor **in; /* after promotion; NULL where an optional one is left out */
    bp_tensor *out[BP_MAX_OUT];
    bp_arg args[BP_MAX_ARGS]; /* complete: defaults filled in, ranges checked */
    bp_meta meta[BP_MAX_OUT]; /* set by infer */
    bool given[BP_MAX_OUT];   /* the caller gave the output */
} bp_call;

/* ---- a gradient being worked out ---- */
typedef struct bp_grad {
    bp_ctx *ctx;
    const bp_op *op;
    int n_in, n_out;
    bp_tensor **in;              /* inputs of the forward call; husks (shape only) where the row does not list them in `needs` */
    bp_tensor *out[BP_MAX_OUT];  /* the same for its outputs */
    bp_tensor *dout[BP_MAX_OUT]; /* gradient of each output, NULL where none arrived */
    bp_tensor **din;             /* to be filled through bp_grad_set; may stay NULL: zero */
    const bool *want;            /* whose gradient is asked for */
    const bp_arg *args;
    bp_status status;  /* first failure; later steps do nothing */
    bp_tensor **temps; /* everything made on the way, released at the end */
    int64_t n_temps, cap_temps;
} bp_grad;

/* ---- cases: how an op may be checked, read by tests/c and by the manual ---- */
typedef struct bp_case {
    /* Inputs, separated by spaces: a shape "2x3" ("s": 0-d), "2x3'" a non-contiguous view of that shape, "i64:4<5" integers 0..4 of shape
     * [4], "bool:2x3", "u8:2x3<255", "f32:...", "-" left out, "rng" a random state. */
    const char *inputs;
    const char *options; /* "axis=1 keepdims=1 size=2,2" */
    double low, high;    /* range of float inputs; both 0: standard normal, and for BP_OP_KINKED at least 0.1 away from 0 */
    double tolerance;    /* 0: 1e-6 */
} bp_case;

struct bp_op {
    const char *name;
    const char *group;        /* chapter of the manual */
    const char *summary;      /* one line */
    const char *detail;       /* equation, shapes, source; may be NULL */
    const bp_input *inputs;   /* ends with a NULL name */
    const bp_option *options; /* ends with a NULL name; NULL: none */
    int n_out;
    int n_kept;          /* so many of them, the last ones, are kept for the gradient and have none of their own */
    const char *outputs; /* shapes and meanings, one line */
    unsigned flags;
    bp_promote promote;
    unsigned needs_in, needs_out; /* bit i: the gradient reads the values of in[i], out[i]; (BP_NEEDS_ALL for variadic) */
    unsigned over[BP_MAX_OUT];    /* bit i of over[k]: out[k] may be written over in[i], element on element; INPLACE says so of the first */
    int stream;                   /* bp_stream_id of a BP_IN_STREAM input */
    bp_status (*infer)(bp_call *call);
    bp_status (*run)(bp_call *call);
    void (*gradient)(bp_grad *g);
    const bp_case *cases; /* ends with NULL inputs */
};
#define BP_NEEDS_ALL 0xffffffffu

#define OP(name) extern const bp_op bp__op_##name;
#include "ops.def"
#undef OP

/* ---- for infer and run ---- */

/* A failure inside an op: prefixes the op's name (and the running layer's path). */
bp_status bp_op_fail(bp_call *call, bp_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Output i looks like that, row-major. */
void bp_out(bp_call *call, int i, bp_dtype dtype, int ndim, const int64_t *shape);
/* Common infer functions: one output like in[0]; the broadcast of all inputs. */
bp_status bp_infer_same(bp_call *call);
bp_status bp_infer_broadcast(bp_call *call);
/* BP_EINVAL unless in[i] has that many dimensions; `shape` says what is expected, e.g. "[batch][in]". */
bp_status bp_need_ndim(bp_call *call, int i, int ndim, const char *shape);
/* BP_EINVAL unless in[i] has exactly this shape. */
bp_status bp_need_shape(bp_call *call, int i, int ndim, const int64_t *shape);
/* The kernels for a float dtype. */
static inline const bp_kernels *bp_kernels_of(const bp_ctx *ctx, bp_dtype dtype) { return ctx->kernels[dtype == BP_F64]; }
/* The values of an integer tensor as they stand (any integer dtype, any strides), into dst[count]. */
void bp_integer_values(const bp_tensor *t, int64_t *dst);
/* Integer tensor with positions (any integer dtype, any strides) -> zero-based int64 in dst[count]; BP_EINVAL naming row and value when one
 * lies outside 0..limit-1. `what` names the values: "label", "index". */
bp_status bp_read_indices(bp_call *call, const bp_tensor *t, const char *what, int64_t limit, int64_t *dst);
/* Key and step of a random state, whose step is then advanced. */
void bp_draw(bp_tensor *state, uint64_t *key, uint64_t *step);
bp_status bp__streams_open(bp_ctx *ctx, uint64_t seed);
void bp__streams_close(bp_ctx *ctx);
/* The context's tensor i64[2] for a stream (borrowed). */
bp_status bp_stream_state(bp_ctx *ctx, int stream, bp_tensor **state);

/* ---- for gradients: each returns a tensor owned by g (borrowed by the caller), or NULL after a failure; NULL in, NULL out ---- */

/* Applies an op with n_in inputs given as trailing bp_tensor * arguments. */
bp_tensor *bp_g(bp_grad *g, const bp_op *op, int n_args, const bp_arg *args, int n_in, ...);
#define G1(g, name, a) bp_g(g, &bp__op_##name, 0, NULL, 1, (a))
#define G2(g, name, a, b) bp_g(g, &bp__op_##name, 0, NULL, 2, (a), (b))
#define G3(g, name, a, b, c) bp_g(g, &bp__op_##name, 0, NULL, 3, (a), (b), (c))
/* Output number `which` of an op with several outputs. */
bp_tensor *bp_g_out(bp_grad *g, int which, const bp_op *op, int n_args, const bp_arg *args, int n_in, ...);
/* All outputs of an op with several: outs[i] is NULL after a failure. */
void bp_g_all(bp_grad *g, const bp_op *op, int n_args, const bp_arg *args, int n_in, bp_tensor *const *in, bp_tensor **outs);
/* A 0-d constant of the dtype of `like`. */
bp_tensor *bp_g_number(bp_grad *g, bp_tensor *like, double value);
/* Sums t down to the shape of `like`, undoing a broadcast. */
bp_tensor *bp_g_unbroadcast(bp_grad *g, bp_tensor *t, bp_tensor *like);
/* d(loss)/d(in[i]) is t. */
void bp_grad_set(bp_grad *g, int i, bp_tensor *t);

#endif
