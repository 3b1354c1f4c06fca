/* plan.h - a captured step.
 *
 * During a capture the plan listens at the door and notes each call: the op, its options, and for each tensor a `spot`: which place its
 * memory is and how it looks at it. A place is one storage, of one of three kinds: EXTERNAL  it existed before the capture (parameters,
 * optimizer state, random counters): kept alive, used where it is; INPUT     an argument of the captured function: each replay brings its
 * own; TEMP      born during the capture: gets room in the arena for its lifetime, or storage of its own when it is handed out. Nothing
 * here speaks of memory addresses until replay. */
#ifndef BP_PLAN_H
#define BP_PLAN_H

#include "../ops/op.h"

typedef enum bp_place_kind { BP_PLACE_EXTERNAL, BP_PLACE_INPUT, BP_PLACE_TEMP } bp_place_kind;

typedef struct bp_place {
    bp_place_kind kind;
    uint64_t storage_id;
    size_t bytes;
    int input;    /* INPUT: number of the argument */
    bool output;  /* TEMP that is handed out */
    bool written; /* by some step */
    bool live;
    bool constant;       /* TEMP that holds the same in every replay: computed when the plan is made ready */
    int64_t first, last; /* TEMP: steps that define and last use it */
    size_t offset;       /* TEMP in the arena */
    int64_t over;        /* TEMP in the arena: the place that it is written over; -1: none, it has room of its own */
    bp_storage *storage; /* where it is during a replay */
    int heads;           /* how many of the plan's heads look at it */
} bp_place;

typedef struct bp_spot {
    int64_t place; /* -1: left out */
    bp_meta meta;  /* offset counts from the start of the place */
} bp_spot;

typedef struct bp_step {
    const bp_op *op;
    const char *where; /* path of the layer, owned by the plan; NULL: none */
    int n_in, n_out;
    int64_t spot; /* first of its n_in + n_out spots */
    bp_arg args[BP_MAX_ARGS];
    bool live;
    bool dropped;  /* made superfluous by a rewriting */
    bool constant; /* runs once, when the plan is made ready */
} bp_step;

/* The gradient of a table, of which replays fill a few rows: see rows.c. */
typedef struct bp_table {
    int64_t grad, list; /* places */
    uint64_t version;   /* of grad's storage after the last replay */
} bp_table;

/* A step made ready: tensors that look at the right memory. */
typedef struct bp_ready {
    const char *where;
    bp_call call;
} bp_ready;

/* A result on its way into a tensor of the caller: see into.c. */
typedef struct bp_into {
    bp_tensor result; /* where the plan has it */
    bool whole;       /* it is a TEMP, all of it, and nobody else's: it can be computed where the caller wants it */
    bool direct;      /* it is, in this replay */
    void *other;      /* memory of the caller's, or that of its place meanwhile */
} bp_into;

struct bp_plan {
    bp_ctx *ctx;
    uint64_t id, moved; /* number of the capture; ctx->moved at that time */

    bp_place *places;
    int64_t n_places, cap_places;
    int64_t *hash; /* open addressing: storage id -> place + 1, for EXTERNAL and TEMP */
    int64_t n_hash;
    bp_spot *spots;
    int64_t n_spots, cap_spots;
    bp_step *steps;
    int64_t n_steps, cap_steps;
    char **names;
    int64_t n_names, cap_names;

    int n_inputs;
    bp_meta *input_meta;
    uint64_t *input_storage;
    int n_outputs;
    bp_spot *outputs;
    bp_tensor **heads; /* one per output: what the last replay handed out, when it is a TEMP, so that it can be handed out again */
    bp_into *into;     /* one per output */
    int64_t *written;  /* places outside the arena that a replay writes: their versions rise */
    int64_t n_written;
    bp_table *tables;
    int64_t n_tables, cap_tables;

    bp_storage *arena;
    size_t arena_bytes, temporary_bytes;
    bp_tensor *tensors; /* one per spot of a live step */
    bp_tensor **slots;  /* the calls' in[] point in here */
    int64_t n_tensors;
    bp_ready *runs;
    int64_t n_runs, cap_runs;
    double *seconds; /* per run, summed over `timed` replays; NULL: not profiled */
    int64_t timed;
    bp_listener listener;
};

bp_status bp_plan_rewrite(bp_plan *plan);     /* rewrite.c: shorter ways to the same bits */
bp_status bp_plan_note_tables(bp_plan *plan); /* rows.c: part of rewriting; before a replay, and after it */
void bp_plan_check_tables(bp_plan *plan);
void bp_plan_settle_tables(bp_plan *plan);
bp_status bp_plan_layout(bp_plan *plan);  /* layout.c: which steps live, where temporaries lie */
bp_status bp_plan_prepare(bp_plan *plan); /* replay.c: calls with tensors, ready to run */
void bp_plan_free(bp_plan *plan);

/* replay.c: the parts of a replay. Arguments are checked and bound; outputs that the caller still holds get fresh memory (those that are
 * direct need none); the steps run. */
bp_status bp_plan_bind(bp_plan *plan, int n_inputs, bp_tensor *const *inputs);
bp_status bp_plan_renew(bp_plan *plan, bool into);
bp_status bp_plan_steps(bp_plan *plan, bp_tensor *const *inputs);

/* into.c: copies what was computed outside of a replay (when a call is recorded) into tensors of the caller, under the rules of
 * bp_plan_run_into. */
bp_status bp_plan_store(bp_ctx *ctx, int n, bp_tensor *const *results, bp_tensor *const *out);

#endif
