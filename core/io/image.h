/* image.h - what the files on pictures share. */
#ifndef BP_IMAGE_H
#define BP_IMAGE_H

#include "../base/buffer.h"
#include "../bp_io.h"

typedef enum bp_image_format { BP_IMAGE_PNG, BP_IMAGE_JPEG, BP_IMAGE_BMP } bp_image_format;

typedef struct bp_image_info {
    bp_image_format format;
    int64_t width, height;
    int orientation; /* Exif: 1 to 8, 1 as stored */
} bp_image_info;

/* image_check.c: walks over the structure of a file without decoding it. What passes is complete (PNG: chunks, checksums, end; JPEG:
 * markers, tables, end; BMP: header, size) and within the size limits, so that the decoder is never shown what it is known to trip over. */
bp_status bp_image_check(bp_ctx *ctx, const char *where, const unsigned char *data, size_t n, bp_image_info *info);
/* image_jpeg.c: the part for JPEG; data begins with ff d8. */
bp_status bp_jpeg_check(bp_ctx *ctx, const char *where, const unsigned char *data, size_t n, bp_image_info *info);
/* BP_EFORMAT for an empty picture, BP_ELIMIT for one that is too large. */
bp_status bp_image_check_size(bp_ctx *ctx, const char *where, int64_t width, int64_t height);

/* BP_EFORMAT when the coded pixels have fewer bytes than the best case of their coding takes: so memory follows the size of the file. */
bp_status bp_image_check_bytes(bp_ctx *ctx, const char *where, const bp_image_info *info, uint64_t bytes, uint64_t least);

/* image_png.c: appends a PNG file of rows of width * channels bytes, `stride` bytes apart. */
bp_status bp_png_encode(bp_ctx *ctx, const unsigned char *pixels, int64_t height, int64_t width, int channels, int64_t stride,
                        bp_buffer *out);

#endif
