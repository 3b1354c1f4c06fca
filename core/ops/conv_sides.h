/* conv_sides.h - what conv2d and depthwise_conv2d have in common: options, geometry, and gradients.
 *
 * Each is a bilinear form seen from three sides, so each side is the gradient of the others:
 *     y  = forward(x, w)    dx = grad_input(dy, w)    dw = grad_weight(x, dy)
 * and their gradients of any order are again these three. */
#ifndef BP_CONV_SIDES_H
#define BP_CONV_SIDES_H

#include "window.h"

/* Options by place. The forward side has its activation where the gradients have the size that they cannot see from their inputs; what
 * follows is the op's own. */
enum { BP_CONV_STRIDE, BP_CONV_PADDING, BP_CONV_DILATION, BP_CONV_OWN, BP_CONV_MORE };

/* clang-format off */
#define BP_CONV_OPTIONS(...)                                                                                              \
    { .name = "stride", .kind = BP_OPT_INTS, .def = 1, .min = 1, .max = 65536, .length = 2,                               \
      .help = "step from one window to the next: rows, columns" },                                                        \
    BP_PADDING_OPTION,                                                                                                    \
    { .name = "dilation", .kind = BP_OPT_INTS, .def = 1, .min = 1, .max = 65536, .length = 2,                             \
      .help = "distance between neighbouring taps of the kernel: rows, columns" },                                        \
    __VA_ARGS__ /* the option in place BP_CONV_OWN */
#define BP_SIZE_OPTION(text)                                                                                              \
    { .name = "size", .kind = BP_OPT_INTS, .min = 0, .max = 1e9, .length = 2, .required = true, .help = text }
/* clang-format on */

/* The whole geometry from the shape of x [n][h][w][c], that of w ([kh][kw][c][oc], depthwise [kh][kw][c][multiplier]), and the options.
 * Fails where no window fits. */
bp_status bp__conv_geometry(bp_call *call, const int64_t x[4], const int64_t w[4], bool depthwise, bp_conv_shape *s);

typedef struct bp_conv_sides {
    const bp_op *forward, *grad_input, *grad_weight;
    const bp_op *grad_weight_bias; /* both in one: db = sum of dy over all pixels */
    int options;                   /* that each of them has */
} bp_conv_sides;

/* The gradients of the three sides. */
void bp__conv_forward_gradient(bp_grad *g, const bp_conv_sides *sides);
void bp__conv_grad_input_gradient(bp_grad *g, const bp_conv_sides *sides);
void bp__conv_grad_weight_gradient(bp_grad *g, const bp_conv_sides *sides);

#endif
