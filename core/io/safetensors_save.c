/* safetensors_save.c - writing weights, to a file or to memory. */
#include "bytes.h"
#include "gzip.h"
#include "json.h"
#include "safetensors.h"

#include "../tensor/tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct saver {
    bp_ctx *ctx;
    int64_t n_tensors, n_texts;
    bp_named_tensor *tensors; /* sorted copies of the lists given */
    bp_named_text *texts;
    bp_buffer header;
    size_t crc_at; /* where the digits of the header's own checksum stand in it */
    bp_writer file;
    bp_buffer *memory; /* instead of the file, where not NULL */
} saver;

static const char *stored_name(bp_dtype dtype)
{
    static const char *const names[] = {
#define X(code, name, type, st) st,
        BP_DTYPE_MAP(X)
#undef X
    };
    return names[dtype];
}

/* Large elements first, so that each tensor is aligned to its elements when the file is mapped. */
static int by_size_and_name(const void *a, const void *b)
{
    const bp_named_tensor *x = (const bp_named_tensor *)a, *y = (const bp_named_tensor *)b;
    size_t sx = bp_dtype_size(x->tensor->m.dtype), sy = bp_dtype_size(y->tensor->m.dtype);
    return sx != sy ? (sx > sy ? -1 : 1) : strcmp(x->name, y->name);
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static bp_status check_utf8(saver *s, const char *what, const char *text)
{
    size_t n = strlen(text), bad = bp_utf8_check(text, n);
    if (bad == n) return BP_OK;
    return bp_fail(s->ctx, BP_EINVAL, "save: %s \"%.60s\": byte %zu is not UTF-8; encode it, for example in base64", what, text, bad + 1);
}

/* Names are valid and differ; the tensors can be read now. */
static bp_status check(saver *s)
{
    const char **names = (const char **)bp_mem_new(s->ctx, (size_t)(s->n_tensors + 1) * sizeof *names);
    if (!names) return BP_ENOMEM;
    bp_status status = BP_OK;
    for (int64_t i = 0; i < s->n_tensors && status == BP_OK; i++) {
        names[i] = s->tensors[i].name;
        if (strcmp(names[i], "__metadata__") == 0)
            status = bp_fail(s->ctx, BP_EINVAL, "save: a tensor cannot be called \"__metadata__\"; the format keeps that name for itself");
        if (status == BP_OK) status = check_utf8(s, "tensor name", names[i]);
        if (status == BP_OK && !s->tensors[i].tensor->storage)
            status = bp_fail(s->ctx, BP_ESTATE, "save: the value of tensor \"%.100s\" was not kept", names[i]);
        if (status == BP_OK) status = bp_tensor_readable(s->tensors[i].tensor);
    }
    if (status == BP_OK) qsort(names, (size_t)s->n_tensors, sizeof *names, by_name);
    for (int64_t i = 1; i < s->n_tensors && status == BP_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0) status = bp_fail(s->ctx, BP_EINVAL, "save: two tensors are called \"%.100s\"", names[i]);
    bp_mem_free(s->ctx, names, (size_t)(s->n_tensors + 1) * sizeof *names);
    for (int64_t i = 0; i < s->n_texts && status == BP_OK; i++) {
        status = check_utf8(s, "metadata name", s->texts[i].name);
        if (status == BP_OK) status = check_utf8(s, "metadata text", s->texts[i].text);
        if (status == BP_OK && strcmp(s->texts[i].name, BP_ST_CRC_KEY) == 0)
            status = bp_fail(s->ctx, BP_EINVAL, "save: metadata \"" BP_ST_CRC_KEY "\" is written by itself; leave it out");
        if (status == BP_OK && i > 0 && strcmp(s->texts[i - 1].name, s->texts[i].name) == 0)
            status = bp_fail(s->ctx, BP_EINVAL, "save: two metadata entries are called \"%.100s\"", s->texts[i].name);
    }
    return status;
}

/* Hands the tensor's bytes, little-endian and row-major, to `to` in pieces. */
static bp_status with_bytes(bp_tensor *t, bp_status (*to)(void *ud, const void *bytes, size_t n), void *ud)
{
    bp_tensor *copy = NULL;
    size_t size = bp_dtype_size(t->m.dtype), n = (size_t)bp_count(t) * size;
    if (!bp_tensor_is_contiguous(t) || (BP_HOST_BIG_ENDIAN && size > 1)) {
        BP_TRY(bp_tensor_like(t->ctx, &t->m, &copy));
        bp_tensor_convert(t, copy);
        if (BP_HOST_BIG_ENDIAN) bp_swap_bytes(bp_data(copy), size, bp_count(t));
    }
    bp_status status = to(ud, bp_data(copy ? copy : t), n);
    bp_tensor_release(copy);
    return status;
}

static bp_status add_crc(void *ud, const void *bytes, size_t n)
{
    *(uint32_t *)ud = bp_crc32(0, bytes, n);
    return BP_OK;
}

static bp_status put(void *ud, const void *bytes, size_t n)
{
    saver *s = (saver *)ud;
    if (!s->memory) return bp_writer_write(&s->file, bytes, n);
    bp_buffer_add(s->memory, bytes, n);
    return s->memory->status;
}

static void add_pair(bp_buffer *h, const char *name, const char *text)
{
    bp_json_put_string(h, name, strlen(name));
    bp_buffer_text(h, ":");
    bp_json_put_string(h, text, strlen(text));
    bp_buffer_text(h, ",");
}

static bp_status add_checksums(saver *s)
{
    bp_buffer *h = &s->header;
    bp_buffer_text(h, "\"" BP_ST_CRC_KEY "\":\"");
    s->crc_at = h->size;
    bp_buffer_text(h, "00000000");
    for (int64_t i = 0; i < s->n_tensors; i++) {
        char text[BP_ST_CRC_DIGITS + 1];
        uint32_t crc;
        BP_TRY(with_bytes(s->tensors[i].tensor, add_crc, &crc));
        snprintf(text, sizeof text, "%08x", (unsigned)crc);
        bp_buffer_text(h, text);
    }
    bp_buffer_text(h, "\"");
    return BP_OK;
}

static bp_status build_header(saver *s)
{
    bp_buffer *h = &s->header;
    int64_t at = 0;
    bp_buffer_text(h, "{\"__metadata__\":{");
    for (int64_t i = 0; i < s->n_texts; i++) add_pair(h, s->texts[i].name, s->texts[i].text);
    BP_TRY(add_checksums(s));
    bp_buffer_text(h, "}");
    for (int64_t i = 0; i < s->n_tensors; i++) {
        const bp_tensor *t = s->tensors[i].tensor;
        bp_buffer_text(h, ",");
        bp_json_put_string(h, s->tensors[i].name, strlen(s->tensors[i].name));
        bp_buffer_text(h, ":{\"dtype\":\"");
        bp_buffer_text(h, stored_name(t->m.dtype));
        bp_buffer_text(h, "\",\"shape\":[");
        for (int k = 0; k < t->m.ndim; k++) {
            if (k) bp_buffer_text(h, ",");
            bp_json_put_int(h, t->m.shape[k]);
        }
        bp_buffer_text(h, "],\"data_offsets\":[");
        bp_json_put_int(h, at);
        bp_buffer_text(h, ",");
        bp_json_put_int(h, at += bp_count(t) * (int64_t)bp_dtype_size(t->m.dtype));
        bp_buffer_text(h, "]}");
    }
    bp_buffer_text(h, "}");
    bp_buffer_add(h, "        ", (8 - h->size % 8) % 8);
    if (h->status != BP_OK) return h->status;
    if (h->size > BP_ST_MAX_HEADER)
        return bp_fail(s->ctx, BP_ELIMIT, "save: names and metadata take %zu bytes; the format allows %d", h->size, BP_ST_MAX_HEADER);
    char text[BP_ST_CRC_DIGITS + 1];
    snprintf(text, sizeof text, "%08x", (unsigned)bp_crc32(0, h->data, h->size));
    memcpy(h->data + s->crc_at, text, BP_ST_CRC_DIGITS);
    return BP_OK;
}

static bp_status write_all(saver *s)
{
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)((uint64_t)s->header.size >> (8 * i));
    BP_TRY(put(s, length, sizeof length));
    BP_TRY(put(s, s->header.data, s->header.size));
    for (int64_t i = 0; i < s->n_tensors; i++) BP_TRY(with_bytes(s->tensors[i].tensor, put, s));
    return BP_OK;
}

/* path NULL: into memory. */
static bp_status save(bp_ctx *ctx, const char *path, bp_buffer *memory, int64_t n_tensors, const bp_named_tensor *tensors, int64_t n_texts,
                      const bp_named_text *texts)
{
    saver s;
    memset(&s, 0, sizeof s);
    s.ctx = ctx;
    s.n_tensors = n_tensors;
    s.n_texts = n_texts;
    s.memory = memory;
    s.header = bp_buffer_new(ctx);
    size_t tensor_bytes = (size_t)n_tensors * sizeof *tensors, text_bytes = (size_t)n_texts * sizeof *texts;
    s.tensors = (bp_named_tensor *)bp_mem_new(ctx, tensor_bytes);
    s.texts = s.tensors ? (bp_named_text *)bp_mem_new(ctx, text_bytes) : NULL;
    bp_status status = s.texts ? BP_OK : BP_ENOMEM;
    if (status == BP_OK) {
        if (n_tensors) memcpy(s.tensors, tensors, tensor_bytes);
        if (n_texts) memcpy(s.texts, texts, text_bytes);
        qsort(s.tensors, (size_t)n_tensors, sizeof *tensors, by_size_and_name);
        qsort(s.texts, (size_t)n_texts, sizeof *texts, by_name);
        status = check(&s);
    }
    if (status == BP_OK) status = build_header(&s);
    if (status == BP_OK && path) status = bp_writer_open(ctx, path, &s.file);
    if (status == BP_OK) {
        status = write_all(&s);
        if (path && status == BP_OK) status = bp_writer_commit(&s.file);
        if (path) bp_writer_abandon(&s.file);
    }
    bp_buffer_free(&s.header);
    bp_mem_free(ctx, s.texts, text_bytes);
    bp_mem_free(ctx, s.tensors, tensor_bytes);
    return status;
}

bp_status bp_weights_save(bp_ctx *ctx, const char *path, int64_t n_tensors, const bp_named_tensor *tensors, int64_t n_texts,
                          const bp_named_text *texts)
{
    return save(ctx, path, NULL, n_tensors, tensors, n_texts, texts);
}

bp_status bp_weights_save_memory(bp_ctx *ctx, int64_t n_tensors, const bp_named_tensor *tensors, int64_t n_texts,
                                 const bp_named_text *texts, char **data, size_t *n)
{
    bp_buffer b = bp_buffer_new(ctx);
    bp_status status = save(ctx, NULL, &b, n_tensors, tensors, n_texts, texts);
    if (status == BP_OK) status = bp_buffer_take(&b, data, n);
    bp_buffer_free(&b);
    return status;
}

void bp_bytes_free(bp_ctx *ctx, void *data, size_t n) { bp_mem_free(ctx, data, n); }
