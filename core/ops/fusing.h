/* fusing.h - what a plan asks before it puts one op in the place of two: whether it is likely faster, by shape alone. Of the calls only op,
 * options and the looks of their inputs are known; there are no values, and no outputs. */
#ifndef BP_FUSING_H
#define BP_FUSING_H

#include "op.h"

/* A call of conv2d_max_pool2d or conv2d_avg_pool2d. */
bool bp__conv2d_pool_pays(bp_call *call);
/* Calls of conv2d_grad_input, depthwise_conv2d_grad_input and matmul, each with the gradient of a relu after it. */
bool bp__conv2d_mask_pays(bp_call *call);
bool bp__depthwise_mask_pays(bp_call *call);
bool bp__matmul_mask_pays(bp_call *call);

#endif
