/* profile.c - where the time of a replay goes, op by op, by the context's clock. */
#include "../base/memory.h"
#include "plan.h"

static size_t bytes_of(const bp_plan *p) { return (size_t)p->cap_runs * sizeof *p->seconds; }

bp_status bp_plan_profile(bp_plan *p, bool on)
{
    p->timed = 0;
    bp_mem_free(p->ctx, p->seconds, bytes_of(p));
    p->seconds = NULL;
    if (!on) return BP_OK;
    p->seconds = (double *)bp_mem_zeroed(p->ctx, bytes_of(p));
    return p->seconds ? BP_OK : BP_ENOMEM;
}

bp_plan_timing bp_plan_timed(const bp_plan *p, int index)
{
    const bool known = index >= 0 && index < p->n_runs;
    return (bp_plan_timing){ .where = known ? p->runs[index].where : NULL,
                             .replays = p->timed,
                             .seconds = known && p->seconds ? p->seconds[index] : 0 };
}
