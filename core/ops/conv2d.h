/* conv2d.h - the options of conv2d that the ops with a convolution in them share, and its geometry. */
#ifndef BP_CONV2D_H
#define BP_CONV2D_H

#include "conv_sides.h"
#include "convolution.h"

enum { BP_CONV2D_ALGORITHM = BP_CONV_MORE, BP_CONV2D_MORE };

/* clang-format off */
#define BP_CONV2D_OPTIONS(...)                                                                                            \
    BP_CONV_OPTIONS(__VA_ARGS__),                                                                                         \
    { .name = "algorithm", .kind = BP_OPT_CHOICE, .def = BP_CONV_AUTO, .min = 0, .max = 2, .choices = bp_conv_algorithms, \
      .help = "\"direct\": the sum as written; \"winograd\": a quarter of the multiplications, for 3x3 kernels with stride " \
              "and dilation 1; \"auto\": what is faster for these shapes, direct in f64" }
/* clang-format on */

/* The convolution that a call of conv2d, or of an op with the same first inputs and options, asks for; everything but c->out. */
bp_status bp__conv2d_of(bp_call *call, bp_convolution *c);
/* The same for conv2d_grad_input. */
bp_status bp__conv2d_grad_input_of(bp_call *call, bp_convolution *c);

#endif
