/* batch_norm.h - what batch_norm.c and batch_norm_fused.c share. The fused ops have one input and one option more, at the end; the
 * functions that run an op serve both. */
#ifndef BP_BATCH_NORM_H
#define BP_BATCH_NORM_H

#include "fused_activation.h"

enum { X, SCALE, SHIFT, MEAN, VAR, ADDEND }; /* inputs of both forms; the last of the fused ones alone */
enum { Y, BATCH_MEAN, BATCH_INV };           /* outputs of the training form */
enum { DECAY, EPS };                         /* options of the training form; the fused one has an activation after them */
enum { G_DY, G_X, G_SCALE, G_MEAN, G_INV, G_SHIFT, G_ADDEND = G_SHIFT, G_Y };
enum { G_RELU };

/* BP_EINVAL unless x has rows and channels, and the arrays per channel among inputs first..last have as many. */
bp_status bp__batch_norm_channels(bp_call *call, int first, int last);
bp_status bp__batch_norm_infer(bp_call *call);
bp_status bp__batch_norm_run(bp_call *call);
bp_status bp__batch_norm_inference_infer(bp_call *call);
bp_status bp__batch_norm_inference_run(bp_call *call);
bp_status bp__batch_norm_fused_grad_run(bp_call *call);

#define EPS_OPTION                                                                       \
    {                                                                                    \
        .name = "eps", .kind = BP_OPT_FLOAT, .def = 1e-5, .min = 0, .max = 1e300,        \
        .help = "added to the variance, so that a constant channel divides by something" \
    }

#define DECAY_OPTION                                                                       \
    {                                                                                      \
        .name = "decay", .kind = BP_OPT_FLOAT, .def = 0.9, .min = 0, .max = 1,              \
        .help = "share of the old running statistics that is kept"                         \
    }
#define TRAINING_INPUTS                                                                          \
    { "x", 0, "[..][c] values" },                                                                \
    { "scale", BP_IN_OPTIONAL, "[c], 1 when left out" },                                         \
    { "shift", BP_IN_OPTIONAL, "[c], 0 when left out" },                                         \
    { "running_mean", BP_IN_OPTIONAL | BP_IN_MUTATED, "[c], updated in place" },                 \
    { "running_var", BP_IN_OPTIONAL | BP_IN_MUTATED, "[c], updated in place" }
#define INFERENCE_INPUTS                                                                         \
    { "x", 0, "[..][c] values" },                                                                \
    { "scale", BP_IN_OPTIONAL, "[c], 1 when left out" },                                         \
    { "shift", BP_IN_OPTIONAL, "[c], 0 when left out" },                                         \
    { "mean", 0, "[c]" },                                                                        \
    { "var", 0, "[c], not negative" }
#define ADDEND_INPUT                                                                             \
    { "addend", BP_IN_OPTIONAL, "like x, added to what was normalised" }

#endif
