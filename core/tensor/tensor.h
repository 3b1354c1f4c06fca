/* tensor.h - a tensor is a view (dtype, shape, strides, offset) of reference-counted storage.
 *
 * Storage is known by a serial number that is never used twice, so that a plan may speak of it after it is gone. A storage's version counts
 * the writes into it after its birth; the tape compares it to notice that a saved value was overwritten. */
#ifndef BP_TENSOR_H
#define BP_TENSOR_H

#include "shape.h"

typedef struct bp_storage {
    bp_ctx *ctx;
    int refs;
    uint64_t id; /* serial of birth */
    uint64_t version;
    bool lent;              /* the host has its address: it may write without a version telling */
    bool constant;          /* a number of the program (2 in x * 2): nobody writes it */
    uint64_t born, written; /* the capture during which it was born or last written; 0: none */
    int kept;               /* by so many plans, which read or write it where it lies */
    void *data;
    size_t bytes; /* asked for */
    size_t block; /* what bp_block_free wants back; 0: memory is not ours */
    void *owner;  /* with block 0: who keeps the memory alive */
    void (*release_owner)(void *owner);
} bp_storage;

struct bp_var; /* autodiff/var.h */

struct bp_tensor {
    bp_ctx *ctx;
    int refs;
    bp_meta m;
    bp_storage *storage; /* NULL: a husk, whose value was not kept (see autodiff/tape.h) */
    struct bp_var *var;  /* NULL: no gradient is wanted through it */
};

bp_status bp_storage_new(bp_ctx *ctx, size_t bytes, bp_storage **out);
/* Storage over memory of someone else (a map, a host's buffer); release_owner may be NULL. */
bp_status bp_storage_wrap(bp_ctx *ctx, void *data, size_t bytes, void *owner, void (*release_owner)(void *), bp_storage **out);
bp_storage *bp_storage_retain(bp_storage *s);
void bp_storage_release(bp_storage *s);

/* A tensor of that look over that storage (retained), without history. */
bp_status bp_tensor_over(bp_ctx *ctx, const bp_meta *meta, bp_storage *storage, bp_tensor **out);
/* A new tensor, memory not set. */
bp_status bp_tensor_like(bp_ctx *ctx, const bp_meta *meta, bp_tensor **out);
/* A view of the same elements, without history. */
bp_status bp_tensor_alias(bp_tensor *t, bp_tensor **out);
/* The same elements under storage of another name: a plan takes it for memory of its own. */
bp_status bp_tensor_disguise(bp_tensor *t, bp_tensor **out);
/* Points t at another place that looks the same (moving parameters into one block); its elements must have been copied before. */
void bp_tensor_rebind(bp_tensor *t, bp_storage *storage, int64_t offset);

/* What bp_dtype_size looks up, for code that runs at every replayed op. */
extern const unsigned char bp__dtype_bytes[];

static inline char *bp_data(const bp_tensor *t) { return (char *)t->storage->data + (size_t)t->m.offset * bp__dtype_bytes[t->m.dtype]; }
static inline int64_t bp_count(const bp_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->m.ndim; i++) n *= t->m.shape[i];
    return n;
}
static inline bool bp_is_float(bp_dtype d) { return d == BP_F32 || d == BP_F64; }
/* Whether t has that dtype and shape, and no gaps. */
static inline bool bp_tensor_fits(const bp_tensor *t, const bp_meta *m)
{
    int64_t s = 1;
    bool gaps = false;
    if (t->m.dtype != m->dtype || t->m.ndim != m->ndim) return false;
    for (int i = m->ndim - 1; i >= 0; i--) {
        const int64_t n = t->m.shape[i];
        if (n != m->shape[i]) return false;
        gaps |= n != 1 && t->m.stride[i] != s;
        s *= n;
    }
    return !gaps || s == 0;
}
/* Called after anything wrote into t. */
void bp_tensor_touched(bp_tensor *t);
/* A write into the storage, which whoever disguised it has to notice, too. */
void bp_storage_touched(bp_storage *s);
/* A plan keeps it (1), or no longer does (-1). */
void bp_storage_keep(bp_storage *s, int by);

/* From the first byte that a tensor looks at to one past the last; empty without elements. Storages may lie over the same memory (a
 * disguise, a host's buffer wrapped twice), so addresses tell what is shared. */
typedef struct bp_range {
    uintptr_t lo, hi;
} bp_range;
static inline bp_range bp_tensor_range(const bp_tensor *t)
{
    uintptr_t at = (uintptr_t)bp_data(t), size = bp__dtype_bytes[t->m.dtype];
    int64_t last = 0;
    for (int i = 0; i < t->m.ndim; i++) {
        if (t->m.shape[i] == 0) return (bp_range){ 0, 0 };
        last += (t->m.shape[i] - 1) * t->m.stride[i];
    }
    return (bp_range){ at, at + (uintptr_t)(last + 1) * size };
}
static inline bp_range bp_storage_range(const bp_storage *s) { return (bp_range){ (uintptr_t)s->data, (uintptr_t)s->data + s->bytes }; }
static inline bool bp_ranges_meet(bp_range a, bp_range b) { return a.lo < b.hi && b.lo < a.hi; }
/* Whether two tensors may have bytes in common. Blocks of our own lie apart. */
static inline bool bp_tensors_meet(const bp_tensor *a, const bp_tensor *b)
{
    if (a->storage != b->storage && a->storage->block && b->storage->block) return false;
    return bp_ranges_meet(bp_tensor_range(a), bp_tensor_range(b));
}
/* BP_ESTATE when a capture is open and a replay would compute this value anew. */
bp_status bp_tensor_readable(bp_tensor *t);

/* Strided copy with conversion between any two dtypes; shapes are equal. Float to integer truncates; anything to bool is != 0. */
void bp_tensor_convert(const bp_tensor *src, bp_tensor *dst);
/* The same for n elements, ss and ds apart. */
void bp_convert_run(bp_dtype from, bp_dtype to, int64_t n, const void *src, int64_t ss, void *dst, int64_t ds);

#endif
