/* image_check.c - is this a whole picture? Structure and checksums of PNG (W3C PNG, 2nd edition) and BMP. */
#include "gzip.h"
#include "image.h"

#include <string.h>

bp_status bp_image_check_size(bp_ctx *ctx, const char *where, int64_t width, int64_t height)
{
    if (width < 1 || height < 1)
        return bp_fail(ctx, BP_EFORMAT, "%s: picture of %lld x %lld pixels; expected at least 1 x 1", where, (long long)width,
                       (long long)height);
    if (width <= BP_IMAGE_MAX_SIDE && height <= BP_IMAGE_MAX_SIDE && width * height <= BP_IMAGE_MAX_PIXELS) return BP_OK;
    return bp_fail(ctx, BP_ELIMIT, "%s: picture of %lld x %lld pixels; at most %d a side and %lld in all are read", where, (long long)width,
                   (long long)height, BP_IMAGE_MAX_SIDE, (long long)BP_IMAGE_MAX_PIXELS);
}

bp_status bp_image_check_bytes(bp_ctx *ctx, const char *where, const bp_image_info *info, uint64_t bytes, uint64_t least)
{
    if (bytes >= least) return BP_OK;
    return bp_fail(ctx, BP_EFORMAT, "%s: damaged: %lld x %lld pixels in %llu bytes; no fewer than %llu could hold them", where,
                   (long long)info->width, (long long)info->height, (unsigned long long)bytes, (unsigned long long)least);
}

static uint32_t be32(const unsigned char *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }
static uint32_t le32(const unsigned char *p) { return (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0]; }
static uint32_t le16(const unsigned char *p) { return (uint32_t)p[1] << 8 | p[0]; }

/* ---- PNG ---------------------------------------------------------------------------------------------------------- */

static const unsigned char png_signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };

static bp_status png_header(bp_ctx *ctx, const char *where, const unsigned char *p, bp_image_info *info)
{
    /* bit set k: depth k is allowed for that colour type */
    static const uint32_t depths[7] = { 1 << 1 | 1 << 2 | 1 << 4 | 1 << 8 | 1 << 16,
                                        0,
                                        1 << 8 | 1 << 16,
                                        1 << 1 | 1 << 2 | 1 << 4 | 1 << 8,
                                        1 << 8 | 1 << 16,
                                        0,
                                        1 << 8 | 1 << 16 };
    unsigned depth = p[8], colour = p[9];
    info->width = be32(p);
    info->height = be32(p + 4);
    if (colour > 6 || depth > 16 || !(depths[colour] >> depth & 1))
        return bp_fail(ctx, BP_EFORMAT, "%s: PNG header at offset 16: bit depth %u with colour type %u does not exist", where, depth,
                       colour);
    if (p[10] || p[11] || p[12] > 1)
        return bp_fail(ctx, BP_EFORMAT, "%s: PNG header at offset 26: compression %u, filter %u, interlace %u; expected 0, 0 and 0 or 1",
                       where, p[10], p[11], p[12]);
    return bp_image_check_size(ctx, where, info->width, info->height);
}

/* Chunks: length, type, data, CRC-32 of type and data. IHDR first, IEND last; an unknown one whose name begins with a capital is critical.
 */
static bp_status check_png(bp_ctx *ctx, const char *where, const unsigned char *data, size_t n, bp_image_info *info)
{
    bool palette = false;
    uint64_t pixels = 0; /* bytes of deflated data */
    size_t at = sizeof png_signature;
    info->format = BP_IMAGE_PNG;
    for (;;) {
        if (n - at < 12) return bp_fail(ctx, BP_EFORMAT, "%s: truncated PNG: ends at offset %zu; expected a chunk, IEND at last", where, n);
        const unsigned char *chunk = data + at, *type = chunk + 4;
        uint32_t length = be32(chunk);
        if (length > n - at - 12)
            return bp_fail(ctx, BP_EFORMAT, "%s: truncated PNG: the chunk at offset %zu has %u bytes; %zu follow", where, at,
                           (unsigned)length, n - at - 12);
        uint32_t crc = bp_crc32(0, type, (size_t)length + 4), written = be32(type + 4 + length);
        if (crc != written)
            return bp_fail(ctx, BP_EFORMAT, "%s: damaged PNG: the chunk at offset %zu has CRC-32 %08x; %08x is written", where, at,
                           (unsigned)crc, (unsigned)written);
        bool header = memcmp(type, "IHDR", 4) == 0;
        if (header != (at == sizeof png_signature) || (header && length != 13))
            return bp_fail(ctx, BP_EFORMAT, "%s: PNG chunk at offset %zu: expected one IHDR of 13 bytes, at offset 8", where, at);
        if (header) BP_TRY(png_header(ctx, where, type + 4, info));
        if (memcmp(type, "IEND", 4) == 0) break;
        if (memcmp(type, "PLTE", 4) == 0) {
            if (length == 0 || length % 3 || length > 768 || palette || pixels)
                return bp_fail(ctx, BP_EFORMAT,
                               "%s: PNG palette at offset %zu: %u bytes; expected one palette of 1 to 256 colours before the pixels", where,
                               at, (unsigned)length);
            palette = true;
        } else if (memcmp(type, "IDAT", 4) == 0) {
            pixels += length;
        } else if (!header && !(type[0] & 0x20)) {
            return bp_fail(ctx, BP_EFORMAT, "%s: PNG chunk at offset %zu: unknown critical chunk %02x%02x%02x%02x", where, at, type[0],
                           type[1], type[2], type[3]);
        }
        at += (size_t)length + 12;
    }
    if (!pixels) return bp_fail(ctx, BP_EFORMAT, "%s: PNG without pixels: no IDAT chunk before offset %zu", where, at);
    if (data[25] == 3 && !palette) return bp_fail(ctx, BP_EFORMAT, "%s: PNG with colour type 3 (offset 25) but no palette", where);
    static const unsigned char samples[7] = { 1, 0, 3, 1, 2, 0, 4 };
    uint64_t row = ((uint64_t)info->width * samples[data[25]] * data[24] + 7) / 8;
    return bp_image_check_bytes(ctx, where, info, pixels, row * (uint64_t)info->height / 1032); /* deflate's highest ratio */
}

/* ---- BMP ---------------------------------------------------------------------------------------------------------- */

static bp_status check_bmp(bp_ctx *ctx, const char *where, const unsigned char *data, size_t n, bp_image_info *info)
{
    info->format = BP_IMAGE_BMP;
    uint32_t header = n >= 26 ? le32(data + 14) : 0, place = n >= 26 ? le32(data + 10) : 0;
    if (header != 12 && header != 40 && header != 56 && header != 108 && header != 124)
        return bp_fail(ctx, BP_EFORMAT,
                       "%s: not a BMP file that can be read: header of %u bytes at offset 14; expected 12, 40, 56, 108 or 124", where,
                       (unsigned)header);
    if (n < 14 + (size_t)header) return bp_fail(ctx, BP_EFORMAT, "%s: truncated BMP: ends at offset %zu, within its header", where, n);
    bool old = header == 12;
    int64_t width = old ? (int64_t)le16(data + 18) : (int32_t)le32(data + 18);
    int64_t height = old ? (int64_t)le16(data + 20) : (int32_t)le32(data + 22);
    uint32_t bits = le16(data + (old ? 24 : 28)), compression = old ? 0 : le32(data + 30);
    if (height < 0) height = -height; /* rows from the top */
    BP_TRY(bp_image_check_size(ctx, where, width, height));
    if (bits != 1 && bits != 4 && bits != 8 && bits != 16 && bits != 24 && bits != 32)
        return bp_fail(ctx, BP_EFORMAT, "%s: BMP with %u bits a pixel at offset %d; expected 1, 4, 8, 16, 24 or 32", where, (unsigned)bits,
                       old ? 24 : 28);
    if (compression != 0 && !(compression == 3 && (bits == 16 || bits == 32)))
        return bp_fail(ctx, BP_EFORMAT, "%s: BMP with compression %u at offset 30; only uncompressed ones are read: save it as PNG", where,
                       (unsigned)compression);
    uint64_t bytes = ((uint64_t)width * bits + 31) / 32 * 4 * (uint64_t)height;
    if (place < 14 + header || place > n || n - place < bytes)
        return bp_fail(ctx, BP_EFORMAT, "%s: truncated BMP: pixels need %llu bytes from offset %u; the file has %zu in all", where,
                       (unsigned long long)bytes, (unsigned)place, n);
    info->width = width;
    info->height = height;
    return BP_OK;
}

/* ---- which? ------------------------------------------------------------------------------------------------------- */

bp_status bp_image_check(bp_ctx *ctx, const char *where, const unsigned char *data, size_t n, bp_image_info *info)
{
    *info = (bp_image_info){ BP_IMAGE_PNG, 0, 0, 1 };
    if (n == 0) return bp_fail(ctx, BP_EFORMAT, "%s: empty file; expected a PNG, JPEG or BMP picture", where);
    if (n >= 8 && memcmp(data, png_signature, 8) == 0) return check_png(ctx, where, data, n, info);
    if (n >= 3 && data[0] == 0xff && data[1] == 0xd8 && data[2] == 0xff) return bp_jpeg_check(ctx, where, data, n, info);
    if (n >= 2 && data[0] == 'B' && data[1] == 'M') return check_bmp(ctx, where, data, n, info);
    return bp_fail(ctx, BP_EFORMAT, "%s: not a picture that can be read: begins with %02x %02x %02x; expected PNG, JPEG or BMP", where,
                   data[0], n > 1 ? data[1] : 0, n > 2 ? data[2] : 0);
}
