/* idx.c - the IDX format of the MNIST family (yann.lecun.com/exdb/mnist): two zero bytes, a dtype, the number of dimensions, their sizes as
 * 32-bit numbers, then the elements in row-major order; all numbers big-endian. */
#include "bytes.h"
#include "gzip.h"

#include "../bp_io.h"
#include "../tensor/tensor.h"

#include <string.h>

typedef struct idx_dtype {
    unsigned char code;
    unsigned char size;
    bp_dtype dtype;
} idx_dtype;

static const idx_dtype idx_dtypes[] = {
    { 0x08, 1, BP_U8 }, { 0x09, 1, BP_I32 }, { 0x0b, 2, BP_I32 }, { 0x0c, 4, BP_I32 }, { 0x0d, 4, BP_F32 }, { 0x0e, 8, BP_F64 },
};

static bp_status read_shape(bp_ctx *ctx, const char *path, bp_source *s, const idx_dtype **dtype, int *ndim, int64_t *shape)
{
    unsigned char magic[4], size[4];
    BP_TRY(bp_source_read(s, magic, sizeof magic));
    *dtype = NULL;
    for (size_t i = 0; i < sizeof idx_dtypes / sizeof *idx_dtypes; i++)
        if (idx_dtypes[i].code == magic[2]) *dtype = &idx_dtypes[i];
    if (magic[0] || magic[1] || !*dtype)
        return bp_fail(ctx, BP_EFORMAT,
                       "%s: not an IDX file: begins with %02x %02x %02x %02x; expected 00 00, a dtype of 08 09 0b 0c 0d 0e", path, magic[0],
                       magic[1], magic[2], magic[3]);
    *ndim = magic[3];
    if (*ndim < 1 || *ndim > BP_MAX_DIMS)
        return bp_fail(ctx, BP_EFORMAT, "%s: offset 3 says %d dimensions; expected 1 to %d", path, *ndim, BP_MAX_DIMS);
    int64_t bytes = (*dtype)->size;
    for (int i = 0; i < *ndim; i++) {
        BP_TRY(bp_source_read(s, size, sizeof size));
        shape[i] = (int64_t)size[0] << 24 | size[1] << 16 | size[2] << 8 | size[3];
        if (__builtin_mul_overflow(bytes, shape[i], &bytes)) bytes = INT64_MAX;
    }
    char text[200];
    if (bp_shape_count(*ndim, shape) < 0)
        return bp_fail(ctx, BP_EFORMAT, "%s: offset 4 says %s, which is more elements than can be addressed", path,
                       bp_shape_text(*ndim, shape, text));
    if (bytes > bp_source_bound(s))
        return bp_fail(ctx, BP_EFORMAT,
                       "%s: truncated: the header promises %s elements, %lld bytes, after %s %lld; no more than %lld can follow", path,
                       bp_shape_text(*ndim, shape, text), (long long)bytes, bp_source_unit(s), (long long)bp_source_offset(s),
                       (long long)bp_source_bound(s));
    return BP_OK;
}

/* Narrow integers become i32 from the back, so that they can stay in the place they were read to. */
static void widen(char *data, int size, int64_t n)
{
    for (int64_t i = n - 1; i >= 0; i--) {
        int16_t narrow = ((const int8_t *)data)[i * size];
        if (size == 2) memcpy(&narrow, data + 2 * i, 2);
        int32_t wide = narrow;
        memcpy(data + 4 * i, &wide, 4);
    }
}

static bp_status load(bp_ctx *ctx, const char *path, bp_source *s, bp_tensor **out)
{
    const idx_dtype *stored;
    int ndim = 0;
    int64_t shape[BP_MAX_DIMS];
    BP_TRY(read_shape(ctx, path, s, &stored, &ndim, shape));
    BP_TRY(bp_tensor_new(ctx, stored->dtype, ndim, shape, out));
    int64_t n = bp_count(*out);
    BP_TRY(bp_source_read(s, bp_data(*out), (size_t)n * stored->size));
    BP_TRY(bp_source_end(s));
    if (!BP_HOST_BIG_ENDIAN && stored->size > 1) bp_swap_bytes(bp_data(*out), stored->size, n);
    if (stored->size < bp_dtype_size(stored->dtype)) widen(bp_data(*out), stored->size, n);
    return BP_OK;
}

bp_status bp_idx_load(bp_ctx *ctx, const char *path, bp_tensor **out)
{
    bp_source *s;
    *out = NULL;
    BP_TRY(bp_source_open(ctx, path, &s));
    bp_status status = load(ctx, path, s, out);
    bp_source_close(s);
    if (status != BP_OK) {
        bp_tensor_release(*out);
        *out = NULL;
    }
    return status;
}
