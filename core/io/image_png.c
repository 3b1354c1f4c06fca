/* image_png.c - writing PNG. Each row is filtered by the one of the five ways that leaves the smallest sum of absolute differences, as the
 * PNG specification advises (section 12.8), then all is deflated. */
#include "gzip.h"
#include "image.h"

#include <stdlib.h>
#include <string.h>

static void put32(unsigned char *p, uint32_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

static void chunk(bp_buffer *out, const char *type, const void *data, size_t n)
{
    unsigned char frame[8];
    put32(frame, (uint32_t)n);
    memcpy(frame + 4, type, 4);
    bp_buffer_add(out, frame, 8);
    bp_buffer_add(out, data, n);
    put32(frame, bp_crc32(bp_crc32(0, type, 4), data, n));
    bp_buffer_add(out, frame, 4);
}

static int paeth(int left, int up, int corner)
{
    int p = left + up - corner, a = abs(p - left), b = abs(p - up), c = abs(p - corner);
    return a <= b && a <= c ? left : b <= c ? up : corner;
}

/* One row under filter `kind` into out[0..n-1]; returns the sum of absolute differences. up NULL: the first row. */
static int64_t filter(int kind, const unsigned char *row, const unsigned char *up, size_t n, size_t channels, unsigned char *out)
{
    int64_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        int left = i >= channels ? row[i - channels] : 0, above = up ? up[i] : 0, corner = up && i >= channels ? up[i - channels] : 0;
        int guess = kind == 0 ? 0 : kind == 1 ? left : kind == 2 ? above : kind == 3 ? (left + above) / 2 : paeth(left, above, corner);
        out[i] = (unsigned char)(row[i] - guess);
        sum += abs((signed char)out[i]);
    }
    return sum;
}

bp_status bp_png_encode(bp_ctx *ctx, const unsigned char *pixels, int64_t height, int64_t width, int channels, int64_t stride,
                        bp_buffer *out)
{
    static const unsigned char colours[5] = { 0, 0, 4, 2, 6 };
    size_t n = (size_t)width * (size_t)channels;
    bp_buffer rows = bp_buffer_new(ctx), packed = bp_buffer_new(ctx);
    unsigned char *best = (unsigned char *)bp_mem_new(ctx, 2 * (n + 1)), *trial = best ? best + n + 1 : NULL;
    bp_status status = best ? BP_OK : BP_ENOMEM;
    for (int64_t y = 0; y < height && status == BP_OK; y++) {
        const unsigned char *row = pixels + y * stride;
        int64_t least = INT64_MAX;
        for (int kind = 0; kind < 5; kind++) {
            int64_t sum = filter(kind, row, y > 0 ? row - stride : NULL, n, (size_t)channels, trial + 1);
            if (sum >= least) continue;
            least = sum;
            trial[0] = (unsigned char)kind;
            memcpy(best, trial, n + 1);
        }
        bp_buffer_add(&rows, best, n + 1);
        status = rows.status;
    }
    bp_mem_free(ctx, best, 2 * (n + 1));
    if (status == BP_OK) status = bp_deflate(ctx, rows.data, rows.size, &packed);
    if (status == BP_OK) {
        unsigned char header[13] = { 0 };
        put32(header, (uint32_t)width);
        put32(header + 4, (uint32_t)height);
        header[8] = 8;
        header[9] = colours[channels];
        bp_buffer_add(out, "\x89PNG\r\n\x1a\n", 8);
        chunk(out, "IHDR", header, sizeof header);
        /* a chunk's length has 31 bits */
        for (size_t at = 0, piece; at < packed.size; at += piece) {
            piece = packed.size - at < (1u << 30) ? packed.size - at : 1u << 30;
            chunk(out, "IDAT", packed.data + at, piece);
        }
        chunk(out, "IEND", "", 0);
        status = out->status;
    }
    bp_buffer_free(&rows);
    bp_buffer_free(&packed);
    return status;
}
