/* window.h - where the windows of convolutions and poolings lie. */
#ifndef BP_WINDOW_H
#define BP_WINDOW_H

#include "op.h"

typedef enum bp_padding { BP_PADDING_VALID, BP_PADDING_SAME } bp_padding;
static const char *const bp_paddings[] = { "valid", "same", NULL }; /* in the order of bp_padding */

/* clang-format off */
#define BP_PADDING_OPTION                                                                                              \
    { .name = "padding", .kind = BP_OPT_CHOICE, .def = BP_PADDING_VALID, .min = 0, .max = 1, .choices = bp_paddings,   \
      .help = "\"valid\": only windows that lie wholly inside; \"same\": as many windows as ceil(size / stride), "     \
              "what is missing added evenly at both ends, the odd one after" }
/* clang-format on */

/* Number of windows along one dimension, -1 where "valid" leaves no room for one; *before: what "same" adds before the first element.
 * TensorFlow's rule. */
static inline int64_t bp_windows(int64_t size, int64_t kernel, int64_t stride, int64_t dilation, bp_padding padding, int64_t *before)
{
    int64_t span = (kernel - 1) * dilation + 1;
    *before = 0;
    if (padding == BP_PADDING_VALID) return size < span ? -1 : (size - span) / stride + 1;
    int64_t n = size / stride + (size % stride != 0);
    int64_t missing = n > 0 ? (n - 1) * stride + span - size : 0;
    if (missing > 0) *before = missing / 2;
    return n;
}

/* bp_out and bp_need_shape for tensors of four dimensions. */
static inline void bp_out4(bp_call *call, int i, bp_dtype dtype, int64_t n, int64_t h, int64_t w, int64_t c)
{
    const int64_t shape[4] = { n, h, w, c };
    bp_out(call, i, dtype, 4, shape);
}
static inline bp_status bp_need_shape4(bp_call *call, int i, int64_t n, int64_t h, int64_t w, int64_t c)
{
    const int64_t shape[4] = { n, h, w, c };
    return bp_need_shape(call, i, 4, shape);
}

#endif
