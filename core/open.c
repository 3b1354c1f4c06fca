/* open.c - puts a context together: base, random streams, tape, kernels. The only file in core/ that knows every floor of the house. */
#include "autodiff/tape.h"
#include "base/memory.h"
#include "ops/op.h"

#include <stdlib.h>

void bp_close(bp_ctx *ctx)
{
    if (!ctx) return;
    bp_plan_abandon(ctx);
    bp__streams_close(ctx);
    bp_tape_close(ctx);
    bp__base_close(ctx);
}

static bp_status furnish(bp_ctx *ctx, const bp_config *config)
{
    const char *isa = config && config->isa ? config->isa : getenv("BP_ISA");
    if (isa && !*isa) isa = NULL;
    ctx->kernels[0] = bp_kernels_f32(isa);
    ctx->kernels[1] = bp_kernels_f64();
    if (!ctx->kernels[0]) return BP_EINVAL;
    BP_TRY(bp_tape_open(ctx));
    return bp__streams_open(ctx, config ? config->seed : 0);
}

bp_status bp_open(const bp_config *config, bp_ctx **out)
{
    bp_ctx *ctx;
    *out = NULL;
    BP_TRY(bp__base_open(config, &ctx));
    bp_status status = furnish(ctx, config);
    if (status != BP_OK) {
        bp_close(ctx);
        return status;
    }
    *out = ctx;
    return BP_OK;
}

const char *bp_isa(const bp_ctx *ctx) { return ctx->kernels[0]->isa; }
