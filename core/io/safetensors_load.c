/* safetensors_load.c - reading weights. The whole header is checked before anything but itself is allocated. */
#define _GNU_SOURCE /* memmem */
#include "bytes.h"
#include "gzip.h"
#include "json.h"
#include "safetensors.h"

#include "../tensor/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a stored dtype becomes. Stored and own size differ where it widens. */
typedef struct stored_dtype {
    const char *name;
    size_t size;
    bp_dtype dtype;
} stored_dtype;

static const stored_dtype stored_dtypes[] = {
    { "F32", 4, BP_F32 }, { "F64", 8, BP_F64 },  { "I32", 4, BP_I32 }, { "I64", 8, BP_I64 }, { "U8", 1, BP_U8 },   { "BOOL", 1, BP_BOOL },
    { "F16", 2, BP_F32 }, { "BF16", 2, BP_F32 }, { "I8", 1, BP_I32 },  { "I16", 2, BP_I32 }, { "U16", 2, BP_I32 }, { "U32", 4, BP_I64 },
};
enum { N_STORED = sizeof stored_dtypes / sizeof *stored_dtypes };

typedef struct entry {
    const char *name; /* in the JSON tree */
    const stored_dtype *dtype;
    int ndim;
    int64_t shape[BP_MAX_DIMS], begin, end;
} entry;

typedef struct loader {
    bp_ctx *ctx;
    const char *where;
    bp_reader file; /* fd -1: the bytes come from memory */
    const char *memory;
    int64_t size, offset;
    char *header;
    int64_t header_size;
    bp_json *json;
    entry *entries;
    int64_t n;
    const char *crc; /* value of BP_ST_CRC_KEY, or NULL */
    size_t crc_size;
} loader;

static bp_status take(loader *l, void *buf, size_t n)
{
    if (l->memory)
        memcpy(buf, l->memory + l->offset, n);
    else
        BP_TRY(bp_reader_read(&l->file, buf, n));
    l->offset += (int64_t)n;
    return BP_OK;
}

/* ---- header ------------------------------------------------------------------------------------------------------- */

static bp_status read_header(loader *l)
{
    unsigned char raw[8];
    uint64_t n = 0;
    if (l->size < 8)
        return bp_fail(l->ctx, BP_EFORMAT, "%s: not a safetensors file: has %lld bytes, and the header's length alone takes 8", l->where,
                       (long long)l->size);
    BP_TRY(take(l, raw, 8));
    for (int i = 7; i >= 0; i--) n = n << 8 | raw[i];
    if (n > BP_ST_MAX_HEADER)
        return bp_fail(l->ctx, BP_EFORMAT, "%s: not a safetensors file: offset 0 gives the header %llu bytes; at most %d are allowed",
                       l->where, (unsigned long long)n, BP_ST_MAX_HEADER);
    if (n < 2 || (int64_t)n > l->size - 8)
        return bp_fail(l->ctx, BP_EFORMAT,
                       "%s: truncated or no safetensors file: offset 0 gives the header %llu bytes, of which %lld follow", l->where,
                       (unsigned long long)n, (long long)(l->size - 8));
    char first;
    BP_TRY(take(l, &first, 1));
    if (first != '{')
        return bp_fail(l->ctx, BP_EFORMAT, "%s: not a safetensors file: found byte 0x%02x at offset 8; expected '{'", l->where,
                       (unsigned)(unsigned char)first);
    l->header_size = (int64_t)n;
    l->header = (char *)bp_mem_new(l->ctx, (size_t)n);
    if (!l->header) return BP_ENOMEM;
    l->header[0] = first;
    return take(l, l->header + 1, (size_t)n - 1);
}

/* A whole number >= 0, or -1. */
static int64_t whole(const bp_json *v) { return v && bp_json_kind_of(v) == BP_JSON_INT && bp_json_int(v) >= 0 ? bp_json_int(v) : -1; }

static bp_status entry_fail(const loader *l, const char *name, const char *what)
{
    return bp_fail(l->ctx, BP_EFORMAT, "%s: header at offset 8: tensor \"%.100s\": %s", l->where, name, what);
}

static bp_status read_dtype(loader *l, const bp_json *v, entry *e)
{
    size_t length = 0;
    const char *name = v && bp_json_kind_of(v) == BP_JSON_STRING ? bp_json_string(v, &length) : NULL;
    if (!name) return entry_fail(l, e->name, "has no \"dtype\"; expected a name such as \"F32\"");
    for (int i = 0; i < N_STORED; i++)
        if (strcmp(stored_dtypes[i].name, name) == 0) {
            e->dtype = &stored_dtypes[i];
            return BP_OK;
        }
    return bp_fail(
        l->ctx, BP_EFORMAT,
        "%s: header at offset 8: tensor \"%.100s\": dtype \"%.40s\" is not supported; convert it to one of F32 F64 F16 BF16 I64 I32 I16 "
        "I8 U32 U16 U8 BOOL",
        l->where, e->name, name);
}

static bp_status read_entry(loader *l, const bp_json *v, entry *e)
{
    if (bp_json_kind_of(v) != BP_JSON_OBJECT) return entry_fail(l, e->name, "is not an object; expected dtype, shape and data_offsets");
    BP_TRY(read_dtype(l, bp_json_get(v, "dtype"), e));
    const bp_json *shape = bp_json_get(v, "shape"), *span = bp_json_get(v, "data_offsets");
    if (!shape || bp_json_kind_of(shape) != BP_JSON_ARRAY) return entry_fail(l, e->name, "has no \"shape\"; expected a list of sizes");
    if (bp_json_count(shape) > BP_MAX_DIMS)
        return bp_fail(l->ctx, BP_EFORMAT, "%s: header at offset 8: tensor \"%.100s\": %lld dimensions; at most %d are supported", l->where,
                       e->name, (long long)bp_json_count(shape), BP_MAX_DIMS);
    e->ndim = (int)bp_json_count(shape);
    int64_t bytes = (int64_t)e->dtype->size;
    for (int i = 0; i < e->ndim; i++) {
        e->shape[i] = whole(bp_json_at(shape, i));
        if (e->shape[i] < 0) return entry_fail(l, e->name, "\"shape\" holds something else than whole numbers from 0");
        /* the size in our dtype must fit as well, which factor 8 covers */
        if (__builtin_mul_overflow(bytes, e->shape[i], &bytes) || bytes > INT64_MAX / 16)
            return entry_fail(l, e->name, "\"shape\" has more elements than can be addressed");
    }
    if (bp_shape_count(e->ndim, e->shape) < 0) return entry_fail(l, e->name, "\"shape\" has more elements than can be addressed");
    if (!span || bp_json_kind_of(span) != BP_JSON_ARRAY || bp_json_count(span) != 2 || (e->begin = whole(bp_json_at(span, 0))) < 0 ||
        (e->end = whole(bp_json_at(span, 1))) < e->begin)
        return entry_fail(l, e->name, "\"data_offsets\" is not a pair [begin, end] of whole numbers, begin <= end");
    if (e->end - e->begin != bytes)
        return bp_fail(l->ctx, BP_EFORMAT,
                       "%s: header at offset 8: tensor \"%.100s\": data_offsets span %lld bytes; shape and dtype %s need %lld", l->where,
                       e->name, (long long)(e->end - e->begin), e->dtype->name, (long long)bytes);
    return BP_OK;
}

static int by_place(const void *a, const void *b)
{
    const entry *x = (const entry *)a, *y = (const entry *)b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end != y->end ? (x->end < y->end ? -1 : 1) : strcmp(x->name, y->name);
}

static bp_status check_places(loader *l)
{
    int64_t at = 0, data = 8 + l->header_size;
    if (l->n) qsort(l->entries, (size_t)l->n, sizeof *l->entries, by_place);
    for (int64_t i = 0; i < l->n; at = l->entries[i++].end)
        if (l->entries[i].begin != at)
            return bp_fail(l->ctx, BP_EFORMAT,
                           "%s: tensor \"%.100s\" begins at file offset %lld; expected %lld: data must follow without %s", l->where,
                           l->entries[i].name, (long long)(data + l->entries[i].begin), (long long)(data + at),
                           l->entries[i].begin > at ? "holes" : "overlap");
    if (at == l->size - data) return BP_OK;
    /* `at` may be anything up to INT64_MAX here: compare, do not add */
    return bp_fail(l->ctx, BP_EFORMAT, "%s: %s: %lld bytes of data follow offset %lld; the tensors need %lld", l->where,
                   at > l->size - data ? "truncated" : "bytes that belong to no tensor", (long long)(l->size - data), (long long)data,
                   (long long)at);
}

/* Whether a name is ours but for one bit: then it is ours, damaged. */
static bool is_damaged_key(const char *name)
{
    int bits = 0;
    if (strlen(name) != strlen(BP_ST_CRC_KEY)) return false;
    for (const char *p = name, *q = BP_ST_CRC_KEY; *p; p++, q++) bits += __builtin_popcount((unsigned char)(*p ^ *q));
    return bits == 1;
}

static bp_status check_metadata(loader *l, const bp_json *meta)
{
    if (bp_json_kind_of(meta) != BP_JSON_OBJECT)
        return bp_fail(l->ctx, BP_EFORMAT, "%s: header at offset 8: \"__metadata__\" is not an object; expected strings by name", l->where);
    for (void *i = bp_json_first(meta); i; i = bp_json_next(meta, i)) {
        const bp_json *v = bp_json_value(i);
        size_t n = 0;
        if (bp_json_kind_of(v) != BP_JSON_STRING || strlen(bp_json_string(v, &n)) != n)
            return bp_fail(l->ctx, BP_EFORMAT,
                           "%s: header at offset 8: metadata \"%.100s\" is not a string (without zero bytes), as it must be", l->where,
                           bp_json_key(i));
        if (strcmp(bp_json_key(i), BP_ST_CRC_KEY) == 0) l->crc = bp_json_string(v, &l->crc_size);
        if (is_damaged_key(bp_json_key(i)))
            return bp_fail(l->ctx, BP_EFORMAT, "%s: header at offset 8: damaged: metadata \"%s\" where \"" BP_ST_CRC_KEY "\" is expected",
                           l->where, bp_json_key(i));
    }
    return BP_OK;
}

static bp_status parse_header(loader *l)
{
    char where[512];
    snprintf(where, sizeof where, "%s: header at offset 8", l->where);
    /* a tensor takes some ten values, so this is room for two hundred thousand tensors */
    BP_TRY(bp_json_parse(l->ctx, where, l->header, (size_t)l->header_size, 1 << 21, &l->json));
    l->entries = (entry *)bp_mem_zeroed(l->ctx, (size_t)bp_json_count(l->json) * sizeof *l->entries);
    if (!l->entries) return BP_ENOMEM;
    for (void *i = bp_json_first(l->json); i; i = bp_json_next(l->json, i)) {
        if (strcmp(bp_json_key(i), "__metadata__") == 0) {
            BP_TRY(check_metadata(l, bp_json_value(i)));
            continue;
        }
        entry *e = &l->entries[l->n++];
        e->name = bp_json_key(i);
        BP_TRY(read_entry(l, bp_json_value(i), e));
    }
    return check_places(l);
}

/* ---- checksums ---------------------------------------------------------------------------------------------------- */

/* Whether the digits at `written` are those of a CRC; lower case, as we write them. */
static bool matches(const char *written, uint32_t crc)
{
    char text[BP_ST_CRC_DIGITS + 1];
    snprintf(text, sizeof text, "%08x", (unsigned)crc);
    return memcmp(written, text, BP_ST_CRC_DIGITS) == 0;
}

#define REWRITTEN "damaged; if another program rewrote the file, let it drop the metadata entry " BP_ST_CRC_KEY

static bp_status check_header_crc(loader *l)
{
    static const char key[] = "\"" BP_ST_CRC_KEY "\":\"";
    if (!l->crc) return BP_OK;
    if (l->crc_size != (size_t)(1 + l->n) * BP_ST_CRC_DIGITS)
        return bp_fail(l->ctx, BP_EFORMAT, "%s: header at offset 8: %zu digits of checksums for %lld tensors: %s", l->where, l->crc_size,
                       (long long)l->n, REWRITTEN);
    char *found = (char *)memmem(l->header, (size_t)l->header_size, key, sizeof key - 1);
    uint32_t crc = 0;
    if (found) {
        memset(found + sizeof key - 1, '0', BP_ST_CRC_DIGITS);
        crc = bp_crc32(0, l->header, (size_t)l->header_size);
    }
    if (matches(l->crc, crc)) return BP_OK;
    return bp_fail(l->ctx, BP_EFORMAT, "%s: header at offset 8: CRC-32 is %08x; %.8s is written: %s", l->where, (unsigned)crc, l->crc,
                   REWRITTEN);
}

/* ---- data --------------------------------------------------------------------------------------------------------- */

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023, bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000 | fraction << 13;
    } else if (exponent > 0) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else { /* zero or subnormal: fraction * 2^-24 is exact */
        float f = (float)fraction * 0x1p-24f;
        memcpy(&bits, &f, sizeof bits);
        bits |= sign;
    }
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static void widen(const char *name, const void *from, int64_t n, void *to)
{
    const uint16_t *u16 = (const uint16_t *)from;
    if (strcmp(name, "F16") == 0) {
        for (int64_t i = 0; i < n; i++) ((float *)to)[i] = half_to_float(u16[i]);
    } else if (strcmp(name, "BF16") == 0) {
        for (int64_t i = 0; i < n; i++) ((uint32_t *)to)[i] = (uint32_t)u16[i] << 16;
    } else if (strcmp(name, "I8") == 0) {
        for (int64_t i = 0; i < n; i++) ((int32_t *)to)[i] = ((const int8_t *)from)[i];
    } else if (strcmp(name, "I16") == 0) {
        for (int64_t i = 0; i < n; i++) ((int32_t *)to)[i] = ((const int16_t *)from)[i];
    } else if (strcmp(name, "U16") == 0) {
        for (int64_t i = 0; i < n; i++) ((int32_t *)to)[i] = u16[i];
    } else {
        for (int64_t i = 0; i < n; i++) ((int64_t *)to)[i] = ((const uint32_t *)from)[i];
    }
}

static bp_status read_tensor(loader *l, const entry *e, int64_t index, bp_tensor **out)
{
    _Alignas(8) char chunk[16384];
    size_t own = bp_dtype_size(e->dtype->dtype), stored = e->dtype->size;
    int64_t start = l->offset, left = (e->end - e->begin) / (int64_t)stored;
    BP_TRY(bp_tensor_new(l->ctx, e->dtype->dtype, e->ndim, e->shape, out));
    char *to = bp_data(*out);
    uint32_t crc = 0;
    while (left > 0) {
        /* what keeps its size goes straight to its place */
        int64_t n = own == stored ? left : (int64_t)(sizeof chunk / stored);
        if (n > left) n = left;
        char *raw = own == stored ? to : chunk;
        BP_TRY(take(l, raw, (size_t)n * stored));
        if (l->crc) crc = bp_crc32(crc, raw, (size_t)n * stored);
        if (BP_HOST_BIG_ENDIAN) bp_swap_bytes(raw, stored, n);
        if (own != stored) widen(e->dtype->name, raw, n, to);
        to += (size_t)n * own;
        left -= n;
    }
    const char *written = l->crc ? l->crc + (1 + index) * BP_ST_CRC_DIGITS : NULL;
    if (written && !matches(written, crc))
        return bp_fail(l->ctx, BP_EFORMAT, "%s: tensor \"%.100s\" at offset %lld: CRC-32 of its bytes is %08x; %.8s is written: %s",
                       l->where, e->name, (long long)start, (unsigned)crc, written, REWRITTEN);
    if (e->dtype->dtype == BP_BOOL)
        for (int64_t i = 0; i < e->end - e->begin; i++)
            if ((unsigned char)bp_data(*out)[i] > 1)
                return bp_fail(l->ctx, BP_EFORMAT, "%s: tensor \"%.100s\" at offset %lld: found byte 0x%02x in a BOOL; expected 0 or 1",
                               l->where, e->name, (long long)(start + i), (unsigned)(unsigned char)bp_data(*out)[i]);
    return BP_OK;
}

static bp_status fill(loader *l, bp_weights *w)
{
    const bp_json *meta = bp_json_get(l->json, "__metadata__");
    int64_t n_texts = meta ? bp_json_count(meta) - (l->crc != NULL) : 0; /* the checksums are not handed out */
    w->tensors = (bp_named_tensor *)bp_mem_zeroed(l->ctx, (size_t)l->n * sizeof *w->tensors);
    if (!w->tensors) return BP_ENOMEM;
    w->n_tensors = l->n;
    w->texts = (bp_named_text *)bp_mem_zeroed(l->ctx, (size_t)n_texts * sizeof *w->texts);
    if (!w->texts) return BP_ENOMEM;
    w->n_texts = n_texts;
    int64_t k = 0;
    for (void *i = meta ? bp_json_first(meta) : NULL; i; i = bp_json_next(meta, i)) {
        size_t n;
        if (strcmp(bp_json_key(i), BP_ST_CRC_KEY) == 0) continue;
        if (!(w->texts[k].name = bp_mem_string(l->ctx, bp_json_key(i)))) return BP_ENOMEM;
        if (!(w->texts[k].text = bp_mem_string(l->ctx, bp_json_string(bp_json_value(i), &n)))) return BP_ENOMEM;
        k++;
    }
    for (k = 0; k < l->n; k++) {
        if (!(w->tensors[k].name = bp_mem_string(l->ctx, l->entries[k].name))) return BP_ENOMEM;
        BP_TRY(read_tensor(l, &l->entries[k], k, &w->tensors[k].tensor));
    }
    return BP_OK;
}

static bp_status load(loader *l, bp_weights **out)
{
    *out = NULL;
    bp_weights *w = (bp_weights *)bp_mem_zeroed(l->ctx, sizeof *w);
    if (!w) return BP_ENOMEM;
    w->ctx = l->ctx;
    bp_status status = read_header(l);
    if (status == BP_OK) status = parse_header(l);
    if (status == BP_OK) status = check_header_crc(l);
    if (status == BP_OK) status = fill(l, w);
    if (l->json) bp_mem_free(l->ctx, l->entries, (size_t)bp_json_count(l->json) * sizeof *l->entries);
    if (l->json) bp_json_free(l->json);
    bp_mem_free(l->ctx, l->header, (size_t)l->header_size);
    if (status == BP_OK)
        *out = w;
    else
        bp_weights_free(w);
    return status;
}

bp_status bp_weights_load(bp_ctx *ctx, const char *path, bp_weights **weights)
{
    loader l;
    memset(&l, 0, sizeof l);
    l.ctx = ctx;
    l.where = path;
    *weights = NULL;
    BP_TRY(bp_reader_open(ctx, path, &l.file));
    l.size = l.file.size;
    bp_status status = load(&l, weights);
    bp_reader_close(&l.file);
    return status;
}

bp_status bp_weights_load_memory(bp_ctx *ctx, const char *where, const void *data, size_t n, bp_weights **weights)
{
    loader l;
    memset(&l, 0, sizeof l);
    l.ctx = ctx;
    l.where = where;
    l.memory = (const char *)data;
    l.size = (int64_t)n;
    return load(&l, weights);
}

void bp_weights_free(bp_weights *w)
{
    if (!w) return;
    for (int64_t i = 0; i < w->n_tensors; i++) {
        bp_tensor_release(w->tensors[i].tensor);
        if (w->tensors[i].name) bp_mem_free(w->ctx, (char *)w->tensors[i].name, strlen(w->tensors[i].name) + 1);
    }
    for (int64_t i = 0; i < w->n_texts; i++) {
        if (w->texts[i].name) bp_mem_free(w->ctx, (char *)w->texts[i].name, strlen(w->texts[i].name) + 1);
        if (w->texts[i].text) bp_mem_free(w->ctx, (char *)w->texts[i].text, strlen(w->texts[i].text) + 1);
    }
    bp_mem_free(w->ctx, w->tensors, (size_t)w->n_tensors * sizeof *w->tensors);
    bp_mem_free(w->ctx, w->texts, (size_t)w->n_texts * sizeof *w->texts);
    bp_mem_free(w->ctx, w, sizeof *w);
}

bp_tensor *bp_weights_tensor(const bp_weights *w, const char *name)
{
    for (int64_t i = 0; i < w->n_tensors; i++)
        if (strcmp(w->tensors[i].name, name) == 0) return w->tensors[i].tensor;
    return NULL;
}

const char *bp_weights_text(const bp_weights *w, const char *name)
{
    for (int64_t i = 0; i < w->n_texts; i++)
        if (strcmp(w->texts[i].name, name) == 0) return w->texts[i].text;
    return NULL;
}
