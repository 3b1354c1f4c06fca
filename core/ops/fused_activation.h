/* fused_activation.h - the option of ops that apply an activation while the result is still in registers. */
#ifndef BP_FUSED_ACTIVATION_H
#define BP_FUSED_ACTIVATION_H

#include "op.h"

static const char *const bp_fused_activations[] = { "none", "relu", NULL }; /* in the order of bp_act */

/* clang-format off */
#define BP_FUSED_ACTIVATION_OPTION                                                                                        \
    { .name = "activation", .kind = BP_OPT_CHOICE, .def = BP_ACT_NONE, .min = 0, .max = 1, .choices = bp_fused_activations, \
      .help = "applied to the result before it is stored; other activations are ops of their own" }
/* clang-format on */

#endif
