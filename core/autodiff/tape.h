/* tape.h - what was applied, so that backward can walk back.
 *
 * A tensor that a gradient may flow through has a var. A leaf's var holds where its gradient gathers; any other var knows the node (the
 * applied op) that made it. A node owns references to its inputs and outputs as the gradient will need them: a tensor whose value the row
 * lists in `needs` is kept whole, any other is kept as a husk (shape and var, no storage), so that memory goes as soon as nobody needs it.
 * References run from results to what they were made of only, so dropping the last result frees the whole history. */
#ifndef BP_TAPE_H
#define BP_TAPE_H

#include "../ops/op.h"

typedef struct bp_node bp_node;

typedef struct bp_var {
    bp_ctx *ctx;
    int refs;
    bool leaf;
    bool grad_shared; /* grad may be somebody else's tensor as well (create_graph): never written in place */
    bool grad_zero;   /* grad counts as zero: the next gradient may overwrite it instead of adding */
    uint64_t zeroed;  /* the capture in which it was declared zero without being filled; 0: its memory does hold zeros */
    uint64_t zero_at; /* how many replays there had been when it was declared zero: a later one may have written it */
    bool listed;      /* among those declared zero in the open capture, which hold a reference */
    struct bp_var *next_zeroed;
    bp_tensor *grad; /* of a leaf, or of a result that retains it; NULL: none yet */
    bool retain;     /* a result whose gradient is wanted as well */
    bp_node *node;   /* who made it; NULL for a leaf */
    int slot;        /* which output of the node */
} bp_var;

/* What bp_tensor_on_grad asked for, in a list of the node. */
typedef struct bp_grad_hook {
    struct bp_grad_hook *next;
    int slot; /* which output */
    bp_grad_fn *fn;
    void *ud;
    void (*release)(void *ud);
} bp_grad_hook;

struct bp_node {
    bp_ctx *ctx;
    int refs;
    uint64_t serial; /* order of birth: an order of dependence as well */
    const bp_op *op;
    bp_arg args[BP_MAX_ARGS];
    int n_in, n_out;
    bp_tensor **in;              /* [n_in], NULL where left out */
    bp_tensor *out[BP_MAX_OUT];  /* without var: a node does not own its own result's history */
    uint64_t *version;           /* [n_in + n_out] of the storages kept */
    bool used;                   /* a backward went through and let go of the values */
    bp_tensor *dout[BP_MAX_OUT]; /* gathered while a backward runs */
    bool queued;
    char *where;         /* path of the layer it ran in, under keep_where; NULL: not noted */
    bp_grad_hook *hooks; /* in the order in which they were asked for */
    bp_node *next;       /* in the list of nodes being freed */
};

/* Whether the gradient counts as zero; declares that it does, or does not. */
static inline bool bp_grad_is_zero(const bp_var *v) { return v->grad_zero && (v->zeroed || v->zero_at == v->ctx->replays); }
static inline void bp_grad_declare(bp_var *v, bool zero)
{
    v->grad_zero = zero;
    v->zero_at = v->ctx->replays;
}

bp_var *bp_var_retain(bp_var *v);
void bp_var_release(void *v);
void bp_node_release(bp_node *n);
/* The var of a leaf, made on demand. */
bp_status bp_var_of(bp_tensor *t, bp_var **out);
/* A node lets go of everything it kept. */
void bp_node_clear(bp_node *n);
void bp_node_unhook(bp_node *n);

bp_status bp_tape_open(bp_ctx *ctx);
void bp_tape_close(bp_ctx *ctx);

/* At the end of a capture: gradients that were declared zero in it and not written since are filled with zeros, as part of it. Without
 * `fill` (the capture is given up) they are only forgotten. */
bp_status bp_settle_zeroed(bp_ctx *ctx, bool fill);
/* Fills with zeros the gradient of a leaf that counts as zero (an optimizer is about to read it). */
bp_status bp_settle_grad(bp_tensor *t);

#endif
