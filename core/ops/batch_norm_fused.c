/* batch_norm_fused.c - a normalisation, an addition and relu that follow each other, in the passes of batch_norm alone. A plan puts these
 * ops in the place of those (plan/rewrite_norm.c); the bits are the same. */
#include "batch_norm.h"

static bp_status check_addend(bp_call *call)
{
    const bp_meta *x = &call->in[X]->m;
    return call->in[ADDEND] ? bp_need_shape(call, ADDEND, x->ndim, x->shape) : BP_OK;
}

static bp_status fused_infer(bp_call *call)
{
    BP_TRY(bp__batch_norm_infer(call));
    return check_addend(call);
}

static bp_status inference_fused_infer(bp_call *call)
{
    BP_TRY(bp__batch_norm_inference_infer(call));
    return check_addend(call);
}

static bp_status fused_grad_infer(bp_call *call)
{
    const bp_meta *dy = &call->in[G_DY]->m;
    BP_TRY(bp__batch_norm_channels(call, G_SCALE, G_INV));
    for (int i = G_X; i <= G_Y; i++)
        if (call->in[i] && (i == G_X || i >= G_ADDEND)) BP_TRY(bp_need_shape(call, i, dy->ndim, dy->shape));
    for (int i = 0; i < 4; i++)
        if (i == 0 || i == 3)
            bp_out(call, i, dy->dtype, dy->ndim, dy->shape);
        else
            bp_out(call, i, dy->dtype, 1, &dy->shape[dy->ndim - 1]);
    return BP_OK;
}

const bp_op bp__op_batch_norm_fused = {
    .name = "batch_norm_fused",
    .group = "layers",
    .summary = "batch_norm, an addend and an activation in one pass: what a plan makes of them",
    .detail = "y = activation(batch_norm(x) + addend), to the bits of the ops it stands for. It is met in plans alone,\n"
              "after gradients were taken, and is not differentiable itself.",
    .inputs = (const bp_input[]){ TRAINING_INPUTS, ADDEND_INPUT, { 0 } },
    .options = (const bp_option[]){ DECAY_OPTION, EPS_OPTION, BP_FUSED_ACTIVATION_OPTION, { 0 } },
    .n_out = 3,
    .outputs = "y: [..][c]; mean: [c]; inv_std: [c], 1 / sqrt(var + eps)",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .over = { 1 << X | 1 << ADDEND },
    .infer = fused_infer,
    .run = bp__batch_norm_run,
    .cases =
        (const bp_case[]){
            { "4x3 3 3", "activation=relu", 0, 0, 0 },
            { "4x3 3 3 - - 4x3", "", 0, 0, 0 },
            { "2x3x2x4' 4 4 4 4 2x3x2x4'", "activation=relu eps=0.1", 0.5, 2, 0 },
            { "0x3 3 3 - - 0x3", "activation=relu", 0, 0, 0 },
            { 0 },
        },
};

const bp_op bp__op_batch_norm_inference_fused = {
    .name = "batch_norm_inference_fused",
    .group = "layers",
    .summary = "batch_norm_inference, an addend and an activation in one pass: what a plan makes of them",
    .detail = "y = activation(batch_norm_inference(x) + addend), to the bits of the ops it stands for; see batch_norm_fused.",
    .inputs = (const bp_input[]){ INFERENCE_INPUTS, ADDEND_INPUT, { 0 } },
    .options = (const bp_option[]){ EPS_OPTION, BP_FUSED_ACTIVATION_OPTION, { 0 } },
    .n_out = 1,
    .outputs = "y: [..][c]",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .over = { 1 << X | 1 << ADDEND },
    .infer = inference_fused_infer,
    .run = bp__batch_norm_inference_run,
    .cases =
        (const bp_case[]){
            { "4x3 3 3 3 3", "activation=relu", 0.5, 2, 0 },
            { "2x3x4' - - 4' 4 2x3x4'", "activation=relu", 0.5, 2, 0 },
            { "1x1 1 1 1 1 1x1", "", 0.5, 2, 0 },
            { 0 },
        },
};

const bp_op bp__op_batch_norm_fused_grad = {
    .name = "batch_norm_fused_grad",
    .group = "layers",
    .summary = "gradient of batch_norm_fused with relu, where the gradient before the normalisation is read by others too",
    .detail = "dz = dy (+ more) where y > 0, else 0, which is the addend's gradient; dx, dscale and dshift are batch_norm's for dz.\n"
              "It is met in plans alone, in place of add, relu_grad and batch_norm_grad.",
    .inputs =
        (const bp_input[]){
            { "dy", 0, "[..][c] gradient of y" },
            { "x", 0, "[..][c]" },
            { "scale", BP_IN_OPTIONAL, "[c]" },
            { "mean", 0, "[c] of the batch" },
            { "inv_std", 0, "[c] of the batch" },
            { "more", BP_IN_OPTIONAL, "[..][c] added to dy" },
            { "y", 0, "[..][c] the result" },
            { 0 },
        },
    .n_out = 4,
    .outputs = "dx: [..][c]; dscale: [c]; dshift: [c]; dz: [..][c]",
    .flags = BP_OP_NO_GRADIENT | BP_OP_INTERNAL,
    .promote = BP_PROMOTE_FLOAT,
    .over = { 1 << G_X, 0, 0, 1 << G_DY | 1 << G_ADDEND | 1 << G_Y },
    .infer = fused_grad_infer,
    .run = bp__batch_norm_fused_grad_run,
    .cases =
        (const bp_case[]){
            { "4x3 4x3 3 3 3 4x3 4x3", "", 0, 0, 0 },
            { "1x1 1x1 - 1 1 - 1x1", "", 0.5, 2, 0 },
            { "2x3x4' 2x3x4 4 4 4 2x3x4 2x3x4'", "", 0, 0, 0 },
            { "0x3 0x3 3 3 3 - 0x3", "", 0.5, 2, 0 },
            { 0 },
        },
};
