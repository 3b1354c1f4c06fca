/* image_resize.c - u8 pictures to another size, one axis after the other.
 *
 * Along an axis, output pixel i covers the source around s = (i + 1/2) * from/to - 1/2 with a triangle of half-width max(1, from/to): plain
 * linear interpolation where the picture grows; where it shrinks, a weighted mean over all that falls into the pixel. Weights add up to 1.
 */
#include "image.h"

#include "../base/memory.h"
#include "../tensor/tensor.h"

#include <math.h>

/* Weights of output pixel i: w[0..n-1] over the source pixels first..first+n-1. `w` has room for `taps`. */
static int64_t triangle(int64_t i, int64_t from, int64_t to, int64_t taps, float *w, int64_t *first)
{
    double step = (double)from / (double)to, width = step > 1 ? step : 1, centre = ((double)i + 0.5) * step, total = 0;
    int64_t low = (int64_t)floor(centre - width), high = (int64_t)ceil(centre + width), n = 0;
    if (low < 0) low = 0;
    if (high > from) high = from;
    *first = low;
    for (int64_t k = low; k < high && n < taps; k++) {
        double distance = fabs((double)k + 0.5 - centre) / width;
        w[n++] = distance < 1 ? (float)(1 - distance) : 0.0f;
        total += (double)w[n - 1];
    }
    for (int64_t k = 0; k < n; k++) w[k] = (float)((double)w[k] / total);
    return n;
}

static int64_t taps_for(int64_t from, int64_t to) { return from > to ? 2 * (from / to + 2) + 1 : 5; }

/* rows [h][from][c] of bytes to [h][to][c] floats */
static void across(const unsigned char *x, int64_t h, int64_t from, int64_t to, int64_t c, int64_t taps, float *w, float *y)
{
    for (int64_t i = 0; i < to; i++) {
        int64_t first, n = triangle(i, from, to, taps, w, &first);
        for (int64_t row = 0; row < h; row++)
            for (int64_t ch = 0; ch < c; ch++) {
                const unsigned char *p = x + (row * from + first) * c + ch;
                float sum = 0;
                for (int64_t k = 0; k < n; k++) sum += w[k] * (float)p[k * c];
                y[(row * to + i) * c + ch] = sum;
            }
    }
}

/* floats [from][n] to bytes [to][n], rounded to nearest */
static void down(const float *x, int64_t from, int64_t to, int64_t n, int64_t taps, float *w, unsigned char *y)
{
    for (int64_t i = 0; i < to; i++) {
        int64_t first, count = triangle(i, from, to, taps, w, &first);
        for (int64_t j = 0; j < n; j++) {
            const float *p = x + first * n + j;
            float sum = 0.5f;
            for (int64_t k = 0; k < count; k++) sum += w[k] * p[k * n];
            y[i * n + j] = sum >= 255 ? 255 : (unsigned char)sum;
        }
    }
}

bp_status bp_image_resize(bp_tensor *image, int64_t height, int64_t width, bp_tensor **out)
{
    bp_ctx *ctx = image->ctx;
    char text[200];
    *out = NULL;
    if (image->m.ndim != 3 || image->m.dtype != BP_U8 || bp_count(image) == 0)
        return bp_fail(ctx, BP_EINVAL, "image: found %s %s to resize; expected u8 [height][width][channels], none of them 0",
                       bp_dtype_name(image->m.dtype), bp_shape_text(image->m.ndim, image->m.shape, text));
    if (height < 1 || width < 1 || height > BP_IMAGE_MAX_SIDE || width > BP_IMAGE_MAX_SIDE)
        return bp_fail(ctx, BP_EINVAL, "image: cannot be resized to %lld x %lld; expected sides of 1 to %d", (long long)height,
                       (long long)width, BP_IMAGE_MAX_SIDE);
    BP_TRY(bp_tensor_readable(image));
    int64_t h = image->m.shape[0], w = image->m.shape[1], c = image->m.shape[2], shape[3] = { height, width, c };
    int64_t taps = taps_for(h, height) > taps_for(w, width) ? taps_for(h, height) : taps_for(w, width);
    size_t bytes = ((size_t)(h * width * c) + (size_t)taps) * sizeof(float);
    bp_tensor *flat;
    BP_TRY(bp_tensor_like(ctx, &image->m, &flat));
    bp_tensor_convert(image, flat);
    float *work = (float *)bp_mem_new(ctx, bytes);
    bp_status status = work ? bp_tensor_new(ctx, BP_U8, 3, shape, out) : BP_ENOMEM;
    if (status == BP_OK) {
        float *weights = work + h * width * c;
        across((const unsigned char *)bp_data(flat), h, w, width, c, taps, weights, work);
        down(work, h, height, width * c, taps, weights, (unsigned char *)bp_data(*out));
    }
    bp_mem_free(ctx, work, bytes);
    bp_tensor_release(flat);
    return status;
}
