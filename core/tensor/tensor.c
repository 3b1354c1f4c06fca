/* tensor.c - storage and the views on it. */
#include "tensor.h"

#include "../base/memory.h"

#include <string.h>

const char *bp_dtype_name(bp_dtype dtype)
{
    static const char *const names[] = {
#define X(code, name, type, st) name,
        BP_DTYPE_MAP(X)
#undef X
    };
    return (unsigned)dtype < BP_DTYPE_COUNT ? names[dtype] : "unknown";
}

const unsigned char bp__dtype_bytes[] = {
#define X(code, name, type, st) sizeof(type),
    BP_DTYPE_MAP(X)
#undef X
};

size_t bp_dtype_size(bp_dtype dtype) { return bp__dtype_bytes[dtype]; }

bool bp_dtype_find(const char *name, bp_dtype *dtype)
{
    for (int i = 0; i < BP_DTYPE_COUNT; i++)
        if (strcmp(name, bp_dtype_name((bp_dtype)i)) == 0) {
            *dtype = (bp_dtype)i;
            return true;
        }
    return false;
}

/* ---- storage ---- */

static bp_status storage_head(bp_ctx *ctx, bp_storage **out)
{
    bp_storage *s = (bp_storage *)bp_mem_zeroed(ctx, sizeof *s);
    if (!s) return BP_ENOMEM;
    s->ctx = ctx;
    s->refs = 1;
    s->id = ctx->serial++;
    s->born = ctx->paused ? 0 : ctx->capture_id;
    *out = s;
    return BP_OK;
}

bp_status bp_storage_new(bp_ctx *ctx, size_t bytes, bp_storage **out)
{
    size_t block;
    void *data = bp_block_new(ctx, bytes, &block);
    if (!data) return BP_ENOMEM;
    if (storage_head(ctx, out) != BP_OK) {
        bp_block_free(ctx, data, block);
        return BP_ENOMEM;
    }
    (*out)->data = data;
    (*out)->bytes = bytes;
    (*out)->block = block;
    return BP_OK;
}

bp_status bp_storage_wrap(bp_ctx *ctx, void *data, size_t bytes, void *owner, void (*release_owner)(void *), bp_storage **out)
{
    BP_TRY(storage_head(ctx, out));
    (*out)->data = data;
    (*out)->bytes = bytes;
    (*out)->owner = owner;
    (*out)->release_owner = release_owner;
    return BP_OK;
}

bp_storage *bp_storage_retain(bp_storage *s)
{
    s->refs++;
    return s;
}

void bp_storage_release(bp_storage *s)
{
    if (!s || --s->refs > 0) return;
    if (s->block)
        bp_block_free(s->ctx, s->data, s->block);
    else if (s->release_owner)
        s->release_owner(s->owner);
    bp_mem_free(s->ctx, s, sizeof *s);
}

/* ---- tensors ---- */

bp_status bp_tensor_over(bp_ctx *ctx, const bp_meta *meta, bp_storage *storage, bp_tensor **out)
{
    bp_tensor *t = (bp_tensor *)bp_mem_new(ctx, sizeof *t);
    if (!t) return BP_ENOMEM;
    t->ctx = ctx;
    t->refs = 1;
    t->m = *meta;
    t->storage = storage ? bp_storage_retain(storage) : NULL;
    t->var = NULL;
    *out = t;
    return BP_OK;
}

bp_status bp_tensor_like(bp_ctx *ctx, const bp_meta *meta, bp_tensor **out)
{
    bp_meta m;
    bp_storage *s;
    int64_t count = bp_shape_count(meta->ndim, meta->shape);
    if (count < 0) {
        char text[200];
        return bp_fail(ctx, BP_EINVAL, "tensor: %s has more elements than can be addressed", bp_shape_text(meta->ndim, meta->shape, text));
    }
    bp_meta_set(&m, meta->dtype, meta->ndim, meta->shape);
    BP_TRY(bp_storage_new(ctx, (size_t)count * bp_dtype_size(m.dtype), &s));
    bp_status status = bp_tensor_over(ctx, &m, s, out);
    bp_storage_release(s);
    return status;
}

bp_status bp_tensor_alias(bp_tensor *t, bp_tensor **out) { return bp_tensor_over(t->ctx, &t->m, t->storage, out); }

bp_status bp_tensor_new(bp_ctx *ctx, bp_dtype dtype, int ndim, const int64_t *shape, bp_tensor **out)
{
    if ((unsigned)dtype >= BP_DTYPE_COUNT) return bp_fail(ctx, BP_EINVAL, "tensor: unknown dtype %d", (int)dtype);
    if (ndim < 0 || ndim > BP_MAX_DIMS) return bp_fail(ctx, BP_EINVAL, "tensor: %d dimensions; 0 to %d are expected", ndim, BP_MAX_DIMS);
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 0)
            return bp_fail(ctx, BP_EINVAL, "tensor: size %lld in dimension %d; sizes are 0 or more", (long long)shape[i], i + ctx->base);
    bp_meta m;
    bp_meta_set(&m, dtype, ndim, shape);
    return bp_tensor_like(ctx, &m, out);
}

bp_status bp_tensor_scalar(bp_ctx *ctx, bp_dtype dtype, double value, bp_tensor **out)
{
    BP_TRY(bp_tensor_new(ctx, dtype, 0, NULL, out));
    void *p = (*out)->storage->data;
    switch (dtype) {
    case BP_F32: *(float *)p = (float)value; break;
    case BP_F64: *(double *)p = value; break;
    case BP_I32: *(int32_t *)p = (int32_t)value; break;
    case BP_I64: *(int64_t *)p = (int64_t)value; break;
    case BP_U8: *(uint8_t *)p = (uint8_t)value; break;
    default: *(uint8_t *)p = value != 0; break;
    }
    return BP_OK;
}

bp_tensor *bp_tensor_retain(bp_tensor *t)
{
    t->refs++;
    return t;
}

void bp_tensor_release(bp_tensor *t)
{
    if (!t || --t->refs > 0) return;
    if (t->var) t->ctx->var_release(t->var);
    bp_storage_release(t->storage);
    bp_mem_free(t->ctx, t, sizeof *t);
}

static void release_storage(void *storage) { bp_storage_release((bp_storage *)storage); }

bp_status bp_tensor_disguise(bp_tensor *t, bp_tensor **out)
{
    bp_storage *s;
    BP_TRY(bp_storage_wrap(t->ctx, t->storage->data, t->storage->bytes, t->storage, release_storage, &s));
    bp_storage_retain(t->storage);
    bp_status status = bp_tensor_over(t->ctx, &t->m, s, out);
    bp_storage_release(s);
    return status;
}

void bp_tensor_rebind(bp_tensor *t, bp_storage *storage, int64_t offset)
{
    bp_storage_retain(storage);
    bp_storage_release(t->storage);
    t->storage = storage;
    t->ctx->moved++;
    t->m.offset = offset;
    bp_shape_strides(t->m.ndim, t->m.shape, t->m.stride);
}

bp_ctx *bp_tensor_ctx(const bp_tensor *t) { return t->ctx; }
bp_dtype bp_tensor_dtype(const bp_tensor *t) { return t->m.dtype; }
int bp_tensor_ndim(const bp_tensor *t) { return t->m.ndim; }
const int64_t *bp_tensor_shape(const bp_tensor *t) { return t->m.shape; }
const int64_t *bp_tensor_strides(const bp_tensor *t) { return t->m.stride; }
int64_t bp_tensor_count(const bp_tensor *t) { return bp_count(t); }
void *bp_tensor_data(bp_tensor *t)
{
    t->storage->lent = true;
    return bp_data(t);
}

bool bp_tensor_is_contiguous(const bp_tensor *t)
{
    int64_t s = 1;
    bool gaps = false;
    for (int i = t->m.ndim - 1; i >= 0; i--) {
        gaps |= t->m.shape[i] != 1 && t->m.stride[i] != s;
        s *= t->m.shape[i];
    }
    return !gaps || s == 0;
}

/* What is disguised as s, or NULL. */
static bp_storage *below(const bp_storage *s) { return s->release_owner == release_storage ? (bp_storage *)s->owner : NULL; }

void bp_storage_touched(bp_storage *s)
{
    for (; s; s = below(s)) s->version++;
}

void bp_storage_keep(bp_storage *s, int by)
{
    for (; s; s = below(s)) s->kept += by;
}

void bp_tensor_touched(bp_tensor *t)
{
    bp_storage_touched(t->storage);
    t->storage->written = t->ctx->paused ? 0 : t->ctx->capture_id;
}

bp_status bp_tensor_readable(bp_tensor *t)
{
    uint64_t id = t->ctx->capture_id;
    if (id && (t->storage->born == id || t->storage->written == id))
        return bp_fail(t->ctx, BP_ESTATE,
                       "this value belongs to a step being captured: a replay computes it anew, so it cannot be read here; "
                       "return the tensor from the captured function and read it outside");
    return BP_OK;
}

/* ---- copying with conversion ---- */

typedef void convert_fn(int64_t n, const void *src, int64_t ss, void *dst, int64_t ds);

#define TO_SAME(T, x) (T)(x)
#define TO_TRUTH(T, x) (T)((x) != 0)
/* Out of range a C cast of a float to an integer is undefined: saturate, and NaN becomes 0. */
#define SATURATE(name, T, lo, hi)                                                                                      \
    static inline T name(double x) { return !(x == x) ? 0 : x <= (double)(lo) ? (lo) : x >= (double)(hi) ? (hi) : (T)x; }
SATURATE(to_i32, int32_t, INT32_MIN, INT32_MAX)
SATURATE(to_i64, int64_t, INT64_MIN, INT64_MAX)
SATURATE(to_u8, uint8_t, 0, UINT8_MAX)
#define FLOAT_TO_I32(T, x) to_i32((double)(x))
#define FLOAT_TO_I64(T, x) to_i64((double)(x))
#define FLOAT_TO_U8(T, x) to_u8((double)(x))

#define CONVERT(name, S, D, f)                                                                                         \
    static void name(int64_t n, const void *src, int64_t ss, void *dst, int64_t ds)                                    \
    {                                                                                                                  \
        const S *s = (const S *)src;                                                                                   \
        D *d = (D *)dst;                                                                                               \
        if (ss == 1 && ds == 1)                                                                                        \
            for (int64_t i = 0; i < n; i++) d[i] = f(D, s[i]);                                                         \
        else                                                                                                           \
            for (int64_t i = 0; i < n; i++) d[i * ds] = f(D, s[i * ss]);                                               \
    }
#define CONVERT_FROM(S, name, I32, I64, U8)                                                                            \
    CONVERT(name##_f32, S, float, TO_SAME)                                                                             \
    CONVERT(name##_f64, S, double, TO_SAME)                                                                            \
    CONVERT(name##_i32, S, int32_t, I32)                                                                               \
    CONVERT(name##_i64, S, int64_t, I64)                                                                               \
    CONVERT(name##_u8, S, uint8_t, U8)                                                                                 \
    CONVERT(name##_bool, S, uint8_t, TO_TRUTH)
CONVERT_FROM(float, f32, FLOAT_TO_I32, FLOAT_TO_I64, FLOAT_TO_U8)
CONVERT_FROM(double, f64, FLOAT_TO_I32, FLOAT_TO_I64, FLOAT_TO_U8)
CONVERT_FROM(int32_t, i32, TO_SAME, TO_SAME, TO_SAME)
CONVERT_FROM(int64_t, i64, TO_SAME, TO_SAME, TO_SAME)
CONVERT_FROM(uint8_t, u8, TO_SAME, TO_SAME, TO_SAME)

#define ROW(name) { name##_f32, name##_f64, name##_i32, name##_i64, name##_u8, name##_bool }
static convert_fn *const converters[BP_DTYPE_COUNT][BP_DTYPE_COUNT] = { ROW(f32), ROW(f64), ROW(i32), ROW(i64), ROW(u8), ROW(u8) };

void bp_convert_run(bp_dtype from, bp_dtype to, int64_t n, const void *src, int64_t ss, void *dst, int64_t ds)
{
    converters[from][to](n, src, ss, dst, ds);
}

void bp_tensor_convert(const bp_tensor *src, bp_tensor *dst)
{
    if (bp_count(dst) == 0) return;
    convert_fn *f = converters[src->m.dtype][dst->m.dtype];
    const int64_t *strides[2] = { src->m.stride, dst->m.stride };
    size_t ss = bp_dtype_size(src->m.dtype), ds = bp_dtype_size(dst->m.dtype);
    const char *s = bp_data(src);
    char *d = bp_data(dst);
    bp_walk w;
    bp_walk_init(&w, dst->m.ndim, dst->m.shape, 2, strides);
    for (int64_t run = 0; run < w.outer; run++) {
        int64_t at[2];
        bp_walk_at(&w, run, at);
        f(w.inner, s + at[0] * (int64_t)ss, w.inner_stride[0], d + at[1] * (int64_t)ds, w.inner_stride[1]);
    }
}

/* A row-major tensor over a host's buffer, on the stack. */
static bp_status host_view(bp_tensor *t, bp_dtype dtype, void *data, int64_t n, bp_storage *s, bp_tensor *view)
{
    if (!t->storage) return bp_fail(t->ctx, BP_ESTATE, "tensor: its value was not kept");
    if (n != bp_count(t))
        return bp_fail(t->ctx, BP_EINVAL, "tensor: a buffer of %lld elements for a tensor of %lld", (long long)n, (long long)bp_count(t));
    memset(s, 0, sizeof *s);
    memset(view, 0, sizeof *view);
    s->data = data;
    view->storage = s;
    bp_meta_set(&view->m, dtype, t->m.ndim, t->m.shape);
    return BP_OK;
}

bp_status bp_tensor_read(bp_tensor *t, bp_dtype dtype, void *dst, int64_t n)
{
    bp_storage s;
    bp_tensor view;
    BP_TRY(host_view(t, dtype, dst, n, &s, &view));
    BP_TRY(bp_tensor_readable(t));
    bp_tensor_convert(t, &view);
    return BP_OK;
}

bp_status bp_tensor_write(bp_tensor *t, bp_dtype dtype, const void *src, int64_t n)
{
    bp_storage s;
    bp_tensor view;
    BP_TRY(host_view(t, dtype, (void *)(uintptr_t)src, n, &s, &view));
    bp_tensor_convert(&view, t);
    bp_tensor_touched(t);
    return BP_OK;
}
