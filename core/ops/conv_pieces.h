/* conv_pieces.h - a convolution whose result is read where it is made.
 *
 * Some images of y or dx, or some rows of one image, are computed into scratch of a worker, small enough for its second-level cache, and
 * handed to a reader: a pooling, the mask of a relu. What the reader makes of it is stored; y or dx itself never exists. An element of it
 * does not depend on how it is cut, so the bits are those of one op after the other. */
#ifndef BP_CONV_PIECES_H
#define BP_CONV_PIECES_H

#include "convolution.h"

/* It sees the rows in windows, `size` rows each and `stride` apart; a piece holds whole windows. */
typedef struct bp_conv_reader {
    int64_t windows, size, stride, before; /* rows that the first window has beyond the image; as in bp_pool_shape */
    /* A piece: the windows w0..w1-1 (all of them where there is more than one image) of so many images from `first` on; rows begins with
     * the first row of window w0 that lies in the image, and has `height` rows per image. */
    void (*read)(const struct bp_conv_reader *r, const void *rows, int64_t height, int64_t first, int64_t images, int64_t w0, int64_t w1);
} bp_conv_reader;

/* Whether it is likely faster than one after the other: the result is larger than what a cache keeps and can be cut well. */
bool bp__conv_pieces_pay(const bp_kernels *kernels, const bp_convolution *c, bp_conv_direction d, const bp_conv_reader *r);
/* Forward or gradient of the input; c->out is not looked at. Fails only for want of scratch. */
bp_status bp__conv_in_pieces(bp_ctx *ctx, const bp_convolution *c, bp_conv_direction d, const bp_conv_reader *r);

#endif
