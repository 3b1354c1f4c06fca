/* pool2d.h - the geometry of poolings, for ops with one in them. */
#ifndef BP_POOL2D_H
#define BP_POOL2D_H

#include "window.h"

/* clang-format off */
#define BP_POOL_SIZE_OPTION(prefix)                                                                                                  \
    { .name = prefix "size", .kind = BP_OPT_INTS, .def = 2, .min = 1, .max = 65536, .length = 2, .help = "size of a window: rows, columns" }
#define BP_POOL_STRIDE_OPTION(prefix)                                                                                              \
    { .name = prefix "stride", .kind = BP_OPT_INTS, .def = 0, .min = 0, .max = 65536, .length = 2,                                 \
      .help = "step from one window to the next: rows, columns; 0: the size of the window, so that windows touch and do not overlap" }
/* clang-format on */

/* The whole geometry from the shape of x [n][h][w][c] and the options size, stride and padding. Fails where no window fits. */
bp_status bp__pool_geometry(bp_call *call, const bp_arg options[3], const int64_t x[4], bp_pool_shape *s);
/* Fails where a window has more taps than the byte that names the winner can tell apart. */
bp_status bp__pool_check_taps(bp_call *call, const bp_pool_shape *s);

#endif
