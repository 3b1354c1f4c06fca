/* optimizer_average.c - what goes with any optimizer: averages of the weights, and gradients gathered over several batches. */
#include "optimizer.h"

#include <math.h>

/* ---- average_step ---- */

enum { AVERAGE, WEIGHTS, AVERAGE_LR, AVERAGE_STEP };

static bp_status average_infer(bp_call *call) { return bp__step_check(call, 2, 1, AVERAGE_LR, AVERAGE_STEP); }

static void average_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const bp_step_job *j = (const bp_step_job *)arg;
    j->kernels->average(length(j, chunk), piece(j, AVERAGE, chunk), piece(j, WEIGHTS, chunk), j->factor[0]);
}

static bp_status average_run(bp_call *call)
{
    if (bp__step_idle(call, AVERAGE_LR)) return BP_OK;
    bp_step_job j = bp__step_job(call, 2, AVERAGE_LR);
    j.factor[0] = bp__step_count(call->in[AVERAGE_STEP]) == 1 ? 0 : j.args[0].as.f;
    return bp__step_run(call, &j, average_chunk);
}

const bp_op bp__op_average_step = {
    .name = "average_step",
    .group = "optimizers",
    .summary = "exponential moving average of parameters: avg = decay * avg + (1 - decay) * w, after the update of a step",
    .detail = "In step 1 the average is w itself, as in Keras (use_ema) and PyTorch (AveragedModel with an exponential average).",
    .inputs = (const bp_input[]){ { "avg", BP_IN_MUTATED, "the average, updated in place" }, { "w", 0, "parameters" }, LR_INPUT,
        STEP_INPUT, { 0 } },
    .options = (const bp_option[]){ { .name = "decay", .kind = BP_OPT_FLOAT, .min = 0, .max = 1, .required = true,
        .help = "share that is kept" },
                                    { 0 } },
    .outputs = "none",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = average_infer,
    .run = average_run,
};

/* ---- accumulate_step ---- */

enum { GRADIENT, SUM, RATE, BATCHES, NOW };

static bp_status accumulate_infer(bp_call *call)
{
    const bp_tensor *now = call->in[NOW];
    if (now->m.dtype != BP_F64 || bp_count(now) != 1)
        return bp_op_fail(call, BP_EINVAL, "'now' is %s; a single f64 number is expected", bp_dtype_name(now->m.dtype));
    return bp__step_check(call, SUM, SUM, RATE, BATCHES);
}

static void accumulate_chunk(void *arg, int64_t chunk, int worker)
{
    (void)worker;
    const bp_step_job *j = (const bp_step_job *)arg;
    j->kernels->accumulate(length(j, chunk), piece(j, GRADIENT, chunk), piece(j, SUM, chunk), j->factor[0]);
}

static bp_status accumulate_run(bp_call *call)
{
    const int64_t every = call->args[0].as.i, batches = bp__step_count(call->in[BATCHES]);
    bp_step_job j = bp__step_job(call, 2, RATE);
    const bool due = batches % every == 0;
    j.factor[0] = due ? 1 / (double)every : 0;
    *(double *)(void *)bp_data(call->in[NOW]) = due ? j.lr : -1;
    return bp__step_run(call, &j, accumulate_chunk);
}

const bp_op bp__op_accumulate_step = {
    .name = "accumulate_step",
    .group = "optimizers",
    .summary = "gathers gradients over several batches: their mean comes out in every k-th, with the learning rate that lets "
        "a step happen",
    .detail = "batches mod every > 0: sum = sum + g, now = -1, at which a step leaves everything as it is\n"
              "batches mod every = 0: g = (sum + g) / every, sum = 0, now = lr",
    .inputs = (const bp_input[]){ { "g", BP_IN_MUTATED, "gradient of this batch, the mean of all when a step is due" },
                                  { "sum", BP_IN_MUTATED, "state, zeros at first" },
                                  LR_INPUT,
                                  { "batches", BP_IN_RAW, "number of this batch, from 1: one i64 number" },
                                  { "now", BP_IN_MUTATED, "one f64 number: the learning rate for the step, or -1" },
                                  { 0 } },
    .options = (const bp_option[]){ { .name = "every", .kind = BP_OPT_INT, .min = 1, .max = 0x1p62, .required = true,
        .help = "batches of a step" },
                                    { 0 } },
    .outputs = "none",
    .flags = BP_OP_NO_GRADIENT,
    .promote = BP_PROMOTE_NONE,
    .infer = accumulate_infer,
    .run = accumulate_run,
};
