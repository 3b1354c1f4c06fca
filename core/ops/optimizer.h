/* optimizer.h - what the optimizers' ops share: inputs, their checks, and the cutting of parameters into chunks. */
#ifndef BP_OPTIMIZER_H
#define BP_OPTIMIZER_H

#include "../base/pool.h"
#include "op.h"
#include "product.h"

enum { W, G }; /* the first two inputs of every step */

/* BP_EINVAL unless gradient and states first_state..last_state look like the parameter, lr is one f64 number and step (or -1: none) one i64
 * number. */
bp_status bp__step_check(bp_call *call, int first_state, int last_state, int lr, int step);
/* BP_EINVAL unless state i is there exactly when it is wanted; `why` says when that is. */
bp_status bp__step_state(bp_call *call, int i, bool wanted, const char *why);
/* A negative learning rate: this step is to leave everything as it is. */
bool bp__step_idle(const bp_call *call, int lr);

/* Input i, which may be left out, is one f64 number that stands for an option and may change from step to step. */
bp_status bp__step_moving(bp_call *call, int i);
double bp__step_moved(const bp_call *call, int i, int option);

enum { BP_STEP_ARRAYS = 5 };
typedef struct bp_step_job {
    const bp_kernels *kernels;
    const bp_arg *args;
    int64_t n, size;
    char *array[BP_STEP_ARRAYS];        /* parameter, gradient, states; NULL where left out */
    double lr, bias1, bias2, factor[2]; /* bias: 1 - beta^step; factor: what else an optimizer works out once for all */
    int64_t step;
} bp_step_job;

/* Inputs 0..arrays-1 are the arrays. */
bp_step_job bp__step_job(bp_call *call, int arrays, int lr);
bp_status bp__step_run(bp_call *call, bp_step_job *j, bp_chunk_fn *chunk);

static inline double bp__step_number(const bp_tensor *t) { return *(const double *)(const void *)bp_data(t); }
static inline int64_t bp__step_count(const bp_tensor *t) { return *(const int64_t *)(const void *)bp_data(t); }

/* The piece of array i that a chunk works on, and its length. */
static inline void *piece(const bp_step_job *j, int i, int64_t chunk)
{
    return j->array[i] ? j->array[i] + chunk * BP_MEMORY_GRAIN * j->size : NULL;
}
static inline int64_t length(const bp_step_job *j, int64_t chunk)
{
    return j->n - chunk * BP_MEMORY_GRAIN < BP_MEMORY_GRAIN ? j->n - chunk * BP_MEMORY_GRAIN : BP_MEMORY_GRAIN;
}

#define W_INPUT                                            \
    {                                                      \
        "w", BP_IN_MUTATED, "parameters, updated in place" \
    }
#define G_INPUT                  \
    {                            \
        "g", 0, "their gradient" \
    }
#define LR_INPUT                                                             \
    {                                                                        \
        "lr", BP_IN_RAW, "learning rate: one f64 number, read at every step; a negative one leaves all as it is" \
    }
#define STEP_INPUT                                                                       \
    {                                                                                    \
        "step", BP_IN_RAW, "number of this step, from 1: one i64 number (see increment)" \
    }
#define MOVING_INPUT(option)                                                                                       \
    {                                                                                                              \
        option "_now", BP_IN_OPTIONAL | BP_IN_RAW, "one f64 number, read at every step in place of the option " option \
    }
#define WEIGHT_DECAY_OPTION(text)                                                                    \
    {                                                                                                \
        .name = "weight_decay", .kind = BP_OPT_FLOAT, .def = 0, .min = 0, .max = 1e300, .help = text \
    }
#define L2_TEXT "adds weight_decay * w to the gradient (PyTorch's meaning; Keras' l2 adds twice its factor)"
#define EPS_OPTION(text)                                                                       \
    {                                                                                          \
        .name = "eps", .kind = BP_OPT_FLOAT, .def = 1e-8, .min = 0, .max = 1e300, .help = text \
    }

#endif
