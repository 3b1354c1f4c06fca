/* cases.h - makes the inputs and options that an op row's cases describe (core/ops/op.h, bp_case). */
#ifndef CASES_H
#define CASES_H

#include "../../core/ops/op.h"

enum { CASE_MAX_INPUTS = 8 };

typedef struct case_inputs {
    int n;
    bp_tensor *t[CASE_MAX_INPUTS];
    bool differentiable[CASE_MAX_INPUTS];
} case_inputs;

/* Float inputs are of dtype `real`. Returns false and prints what is wrong with the case. */
bool case_make(bp_ctx *ctx, const bp_op *op, const bp_case *c, bp_dtype real, uint64_t seed, case_inputs *out);
void case_free(case_inputs *in);
/* Fills args[BP_MAX_ARGS] from "name=value name=a,b". */
bool case_args(const bp_op *op, const char *text, bp_arg *args);

#endif
