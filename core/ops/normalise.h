/* normalise.h - what layer, RMS and group normalisation share: their gradient spelled out in simple ops. */
#ifndef BP_NORMALISE_H
#define BP_NORMALISE_H

#include "op.h"

/* x seen as `work` [ndim], normalised over the dimensions `over`; the arrays of scale and shift seen as `channel`. */
typedef struct bp_normalised {
    int ndim;
    int64_t work[4], channel[4];
    int n_over;
    int64_t over[2];
    bool center; /* the mean is taken off; output 1 is it. Else output 1 is 1 / root mean square. */
    double eps;
} bp_normalised;

/* Sets the gradients of x, scale and shift (inputs 0, 1, 2) from those of y, mean and inv (outputs 0, 1, 2; y and inv without a centre). */
void bp__normalise_gradient(bp_grad *g, const bp_normalised *n);

#endif
