/* image.c - pictures to and from tensors. The only file that sees stb_image, whose declarations of functions that are left out make gcc
 * complain at the file's end, after any `diagnostic pop`. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "image.h"

#include "../base/files.h"
#include "../base/memory.h"
#include "../tensor/tensor.h"

#include <limits.h>
#include <string.h>

/* ---- stb_image, fenced: three decoders, no stdio, memory from the context and no more of it than a picture of this size can need ---- */

/* stb hands its allocator nothing to find the context by; so the running call leaves it here, one for each thread. */
typedef struct decoder {
    bp_ctx *ctx;
    size_t room;  /* bytes that may still be allocated */
    bool refused; /* by the context, not by `room` */
} decoder;
static _Thread_local decoder *running;

enum { BLOCK_HEAD = 16 }; /* the size of a block stands in front of it */

/* Zeroed, so that a damaged file never shows what memory held before. */
static void *stb_new(size_t n)
{
    if (n > running->room) return NULL;
    char *p = (char *)bp_mem_zeroed(running->ctx, n + BLOCK_HEAD);
    running->refused = running->refused || !p;
    if (!p) return NULL;
    running->room -= n;
    memcpy(p, &n, sizeof n);
    return p + BLOCK_HEAD;
}

static void stb_free(void *block)
{
    size_t n;
    if (!block) return;
    char *p = (char *)block - BLOCK_HEAD;
    memcpy(&n, p, sizeof n);
    running->room += n;
    bp_mem_free(running->ctx, p, n + BLOCK_HEAD);
}

static void *stb_resize(void *block, size_t old, size_t n)
{
    char *p = (char *)stb_new(n);
    if (p && block) {
        memcpy(p, block, old < n ? old : n);
        stb_free(block);
    }
    return p;
}

#define STBI_MALLOC(n) stb_new(n)
#define STBI_FREE(p) stb_free(p)
#define STBI_REALLOC_SIZED(p, old, n) stb_resize(p, old, n)
#define STBI_ASSERT(x) ((void)0)
#define STBI_NO_STDIO
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_MAX_DIMENSIONS BP_IMAGE_MAX_SIDE
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wc++-compat"
#pragma GCC diagnostic ignored "-Wpragmas"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
#pragma GCC diagnostic ignored "-Wundef"
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

/* ---- decoding ----------------------------------------------------------------------------------------------------- */

static bp_status decode(bp_ctx *ctx, const char *where, const unsigned char *data, size_t n, int channels, const bp_image_info *info,
                        bp_tensor **out)
{
    /* The decoders keep at most some four copies of the picture at 16 bits and 4 channels; what is packed in a PNG is as large as the file.
     */
    decoder d = { ctx, (size_t)(info->width * info->height) * 32 + n + (1 << 20), false }, *outer = running;
    int width, height, found;
    running = &d;
    unsigned char *pixels = stbi_load_from_memory(data, (int)n, &width, &height, &found, channels);
    bp_status status = BP_OK;
    if (!pixels && d.refused)
        status = BP_ENOMEM;
    else if (!pixels)
        status = bp_fail(ctx, BP_EFORMAT, "%s: damaged picture of %lld x %lld pixels: %s", where, (long long)info->width,
                         (long long)info->height, stbi_failure_reason());
    else if (width != info->width || height != info->height)
        status = bp_fail(ctx, BP_EFORMAT, "%s: damaged picture: %d x %d pixels; its header says %lld x %lld", where, width, height,
                         (long long)info->width, (long long)info->height);
    if (status == BP_OK) {
        int64_t shape[3] = { height, width, channels ? channels : found };
        status = bp_tensor_new(ctx, BP_U8, 3, shape, out);
        if (status == BP_OK) memcpy(bp_data(*out), pixels, (size_t)bp_count(*out));
    }
    stb_free(pixels);
    running = outer;
    return status;
}

/* Exif's eight orientations: a mirroring of the columns, one of the rows, and a swap of both axes, of which the swap comes last. The
 * upright picture's pixel (y, x) is the stored one's (y', x'). */
static bp_status set_upright(bp_ctx *ctx, int orientation, bp_tensor **image)
{
    if (orientation == 1) return BP_OK;
    static const unsigned char mirror_x[9] = { 0, 0, 1, 1, 0, 0, 0, 1, 1 }, mirror_y[9] = { 0, 0, 0, 1, 1, 0, 1, 1, 0 };
    bool swap = orientation >= 5;
    const int64_t *s = (*image)->m.shape;
    int64_t h = s[0], w = s[1], c = s[2], shape[3] = { swap ? w : h, swap ? h : w, c };
    bp_tensor *turned;
    BP_TRY(bp_tensor_new(ctx, BP_U8, 3, shape, &turned));
    const char *from = bp_data(*image);
    char *to = bp_data(turned);
    for (int64_t y = 0; y < shape[0]; y++)
        for (int64_t x = 0; x < shape[1]; x++, to += c) {
            int64_t row = swap ? x : y, column = swap ? y : x;
            if (mirror_y[orientation]) row = h - 1 - row;
            if (mirror_x[orientation]) column = w - 1 - column;
            memcpy(to, from + (row * w + column) * c, (size_t)c);
        }
    bp_tensor_release(*image);
    *image = turned;
    return BP_OK;
}

bp_status bp_image_load_memory(bp_ctx *ctx, const char *where, const void *data, size_t n, int channels, int64_t height, int64_t width,
                               bp_tensor **out)
{
    bp_image_info info;
    bp_tensor *image = NULL;
    *out = NULL;
    if (channels != 0 && channels != 1 && channels != 3 && channels != 4)
        return bp_fail(ctx, BP_EINVAL, "image: %d channels; expected 1 (grey), 3, 4 (with alpha) or 0 for what the file has", channels);
    if ((height == 0) != (width == 0)) return bp_fail(ctx, BP_EINVAL, "image: height and width are given both or not at all");
    if (n > INT_MAX) return bp_fail(ctx, BP_ELIMIT, "%s: has %zu bytes; pictures of up to 2 GB are read", where, n);
    BP_TRY(bp_image_check(ctx, where, (const unsigned char *)data, n, &info));
    bp_status status = decode(ctx, where, (const unsigned char *)data, n, channels, &info, &image);
    if (status == BP_OK) status = set_upright(ctx, info.orientation, &image);
    if (status == BP_OK && height && (height != image->m.shape[0] || width != image->m.shape[1])) {
        bp_tensor *whole = image;
        image = NULL;
        status = bp_image_resize(whole, height, width, &image);
        bp_tensor_release(whole);
    }
    if (status == BP_OK)
        *out = image;
    else
        bp_tensor_release(image);
    return status;
}

bp_status bp_image_load(bp_ctx *ctx, const char *path, int channels, int64_t height, int64_t width, bp_tensor **out)
{
    char *data;
    size_t n;
    *out = NULL;
    BP_TRY(bp_file_read(ctx, path, INT_MAX, &data, &n));
    bp_status status = bp_image_load_memory(ctx, path, data, n, channels, height, width, out);
    bp_mem_free(ctx, data, n + 1);
    return status;
}

/* ---- encoding ----------------------------------------------------------------------------------------------------- */

static bp_status encode(bp_tensor *t, bp_buffer *out)
{
    bp_ctx *ctx = t->ctx;
    char text[200];
    int64_t channels = t->m.ndim == 3 ? t->m.shape[2] : 1;
    if (t->m.dtype != BP_U8 || (t->m.ndim != 2 && t->m.ndim != 3) || channels < 1 || channels > 4)
        return bp_fail(ctx, BP_EINVAL, "image: found %s %s; expected u8 [height][width][1 to 4 channels] or [height][width]",
                       bp_dtype_name(t->m.dtype), bp_shape_text(t->m.ndim, t->m.shape, text));
    if (t->m.shape[0] < 1 || t->m.shape[1] < 1 || t->m.shape[0] > INT32_MAX || t->m.shape[1] > INT32_MAX / 4)
        return bp_fail(ctx, BP_EINVAL, "image: a picture of %s cannot be written", bp_shape_text(t->m.ndim, t->m.shape, text));
    if (!t->storage) return bp_fail(ctx, BP_ESTATE, "image: the tensor's value was not kept");
    BP_TRY(bp_tensor_readable(t));
    bp_tensor *copy;
    BP_TRY(bp_tensor_like(ctx, &t->m, &copy));
    bp_tensor_convert(t, copy);
    bp_status status = bp_png_encode(ctx, (const unsigned char *)bp_data(copy), t->m.shape[0], t->m.shape[1], (int)channels,
                                     t->m.shape[1] * channels, out);
    bp_tensor_release(copy);
    return status;
}

bp_status bp_image_save(bp_tensor *image, const char *path)
{
    bp_buffer b = bp_buffer_new(image->ctx);
    bp_status status = encode(image, &b);
    if (status == BP_OK) status = bp_file_write(image->ctx, path, b.data, b.size);
    bp_buffer_free(&b);
    return status;
}

bp_status bp_image_save_memory(bp_tensor *image, char **data, size_t *n)
{
    bp_buffer b = bp_buffer_new(image->ctx);
    bp_status status = encode(image, &b);
    if (status == BP_OK) status = bp_buffer_take(&b, data, n);
    bp_buffer_free(&b);
    return status;
}
