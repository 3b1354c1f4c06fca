/* watch.h - finds where a NaN or an infinity is born: the first ops whose results hold one though nothing that they read does.
 *
 * Constants that are infinite on purpose (the mask of attention) are no births: ops that read no floating-point tensor are not looked at,
 * and what comes out of them is not finite already. */
#ifndef BP_WATCH_H
#define BP_WATCH_H

#include "../base/context.h"
#include "../ops/op.h"

enum { BP_WATCH_BIRTHS = 8, BP_WATCH_INPUTS = 6, BP_WATCH_NAME = 160 };

/* What one tensor held. min and max are over its finite elements. */
typedef struct bp_watched {
    char name[32];
    bp_meta meta;
    double min, max;
    int64_t nans, infinities, first; /* first: position of the first element that is not finite, row-major, from 0; -1: none */
} bp_watched;

typedef struct bp_birth {
    const bp_op *op;
    char where[BP_WATCH_NAME]; /* path of the layer, "" outside of any */
    const bp_op *gradient_of;  /* whose gradient was being computed, or NULL */
    bp_watched out, in[BP_WATCH_INPUTS];
    int n_in;
} bp_birth;

typedef struct bp_watch {
    bp_ctx *ctx;
    bp_listener listener;
    bool clean; /* whether all that the op at hand reads is finite, and any of it floating point */
    bp_watched before[BP_WATCH_INPUTS];
    int n_before;
    int n; /* births noted */
    bp_birth births[BP_WATCH_BIRTHS];
    bool kept;
} bp_watch;

/* From open to close every op that passes the door is looked at. The object must stay where it is. */
void bp_watch_open(bp_ctx *ctx, bp_watch *w);
void bp_watch_close(bp_watch *w);

/* What a tensor holds now. */
bp_status bp_watch_look(bp_tensor *t, const char *name, bp_watched *out);

#endif
