/* test_safetensors.c - weights come back as they were saved, and no file can make the reader crash, leak or guess. */
#include "../../core/bp_io.h"
#include "../../core/tensor/tensor.h"
#include "disk.h"

#include <math.h>

static bp_tensor *numbered(bp_ctx *ctx, bp_dtype dtype, int ndim, const int64_t *shape)
{
    bp_tensor *t = NULL;
    if (bp_tensor_new(ctx, dtype, ndim, shape, &t) != BP_OK) exit(2);
    double values[64];
    for (int64_t i = 0; i < bp_count(t); i++) values[i] = dtype == BP_BOOL ? (double)(i % 2) : (double)i * 1.5 + 1;
    if (bp_tensor_write(t, BP_F64, values, bp_count(t)) != BP_OK) exit(2);
    return t;
}

static bool same(bp_tensor *a, bp_tensor *b)
{
    double x[64], y[64];
    if (!b || a->m.dtype != b->m.dtype || !bp_shape_equal(a->m.ndim, a->m.shape, b->m.ndim, b->m.shape)) return false;
    if (bp_tensor_read(a, BP_F64, x, bp_count(a)) != BP_OK || bp_tensor_read(b, BP_F64, y, bp_count(b)) != BP_OK) return false;
    return memcmp(x, y, (size_t)bp_count(a) * sizeof *x) == 0;
}

enum { N = 8 };
static const char *const names[N] = { "f32", "f64", "i32", "i64", "u8", "bool", "scalar \"0-d\"\n", "leer \xc3\xa4" };
static const bp_named_text texts[] = { { "format", "pt" }, { "bplua.model", "{\"layers\":[1,\"two\"]}" }, { "empty", "" } };

static void make(bp_ctx *ctx, bp_named_tensor *list)
{
    static const int64_t shape[] = { 2, 3, 2 }, none[] = { 3, 0 };
    for (int i = 0; i < 6; i++) list[i] = (bp_named_tensor){ names[i], numbered(ctx, (bp_dtype)i, 3, shape) };
    list[6] = (bp_named_tensor){ names[6], numbered(ctx, BP_F32, 0, NULL) };
    list[7] = (bp_named_tensor){ names[7], numbered(ctx, BP_F64, 2, none) };
}

static void release(bp_named_tensor *list)
{
    for (int i = 0; i < N; i++) bp_tensor_release(list[i].tensor);
}

static bp_status load(bp_ctx *ctx, const char *path)
{
    bp_weights *w;
    BP_TRY(bp_weights_load(ctx, path, &w));
    bp_weights_free(w);
    return BP_OK;
}

static void round_trip(bp_ctx *ctx, disk *d)
{
    bp_named_tensor list[N], reversed[N];
    bp_weights *w = NULL;
    char *data, *again;
    size_t n, m;
    make(ctx, list);
    for (int i = 0; i < N; i++) reversed[i] = list[N - 1 - i];
    CHECK(bp_weights_save(ctx, "w", N, list, 3, texts) == BP_OK, "%s", bp_message(ctx));
    CHECK(bp_weights_load(ctx, "w", &w) == BP_OK, "%s", bp_message(ctx));
    CHECK(w && w->n_tensors == N && w->n_texts == 3, "%lld tensors", w ? (long long)w->n_tensors : 0LL);
    for (int i = 0; w && i < N; i++) CHECK(same(list[i].tensor, bp_weights_tensor(w, names[i])), "%s", names[i]);
    for (int i = 0; w && i < 3; i++) CHECK(strcmp(bp_weights_text(w, texts[i].name), texts[i].text) == 0, "%s", texts[i].name);
    CHECK(!bp_weights_tensor(w, "other") && !bp_weights_text(w, "other"), "names that are not there");
    bp_weights_free(w);

    CHECK(bp_weights_save_memory(ctx, N, reversed, 3, texts, &data, &n) == BP_OK, "%s", bp_message(ctx));
    int file = disk_find(d, "w");
    CHECK(n == d->files[file].n && memcmp(data, d->files[file].data, n) == 0, "the order given does not show in the bytes");
    uint64_t header = 0;
    memcpy(&header, data, 8);
    CHECK((8 + header) % 8 == 0, "data begins at %llu", (unsigned long long)header + 8);
    CHECK(bp_weights_load_memory(ctx, "memory", data, n, &w) == BP_OK && same(list[1].tensor, bp_weights_tensor(w, "f64")), "%s",
          bp_message(ctx));
    bp_weights_free(w);
    bp_bytes_free(ctx, data, n);

    /* nothing at all */
    CHECK(bp_weights_save_memory(ctx, 0, NULL, 0, NULL, &data, &n) == BP_OK && bp_weights_load_memory(ctx, "memory", data, n, &w) == BP_OK,
          "%s", bp_message(ctx));
    bp_weights_free(w);
    bp_bytes_free(ctx, data, n);

    /* a transposed view is saved as what it shows */
    bp_tensor *view = NULL, *t = list[0].tensor;
    bp_meta m3 = t->m;
    m3.shape[0] = t->m.shape[2], m3.shape[2] = t->m.shape[0];
    m3.stride[0] = t->m.stride[2], m3.stride[2] = t->m.stride[0];
    CHECK(bp_tensor_over(ctx, &m3, t->storage, &view) == BP_OK, "%s", bp_message(ctx));
    bp_named_tensor one = { "view", view };
    CHECK(bp_weights_save_memory(ctx, 1, &one, 0, NULL, &again, &m) == BP_OK &&
              bp_weights_load_memory(ctx, "memory", again, m, &w) == BP_OK,
          "%s", bp_message(ctx));
    CHECK(same(view, w->tensors[0].tensor), "a view");
    bp_weights_free(w);
    bp_bytes_free(ctx, again, m);
    bp_tensor_release(view);
    release(list);
}

static void misuse(bp_ctx *ctx)
{
    bp_named_tensor list[N];
    make(ctx, list);
    struct {
        const char *a, *b, *text_name, *text, *says;
    } cases[] = {
        { "x", "x", "k", "v", "two tensors are called \"x\"" },   { "__metadata__", "x", "k", "v", "__metadata__" },
        { "\xff", "x", "k", "v", "byte 1 is not UTF-8" },         { "x", "y", "k", "\xc0\xaf", "metadata text" },
        { "x", "y", "bplua.crc32", "v", "is written by itself" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bp_named_tensor two[2] = { { cases[i].a, list[0].tensor }, { cases[i].b, list[1].tensor } };
        bp_named_text text = { cases[i].text_name, cases[i].text };
        CHECK(bp_weights_save(ctx, "misuse", 2, two, 1, &text) == BP_EINVAL && strstr(bp_message(ctx), cases[i].says), "%s",
              bp_message(ctx));
    }
    release(list);
}

/* ---- files made by hand ------------------------------------------------------------------------------------------- */

/* header, then n bytes of data, into out; returns the size. */
static size_t assemble(char *out, const char *header, const void *data, size_t n)
{
    uint64_t length = strlen(header);
    memcpy(out, &length, 8);
    memcpy(out + 8, header, length);
    if (n) memcpy(out + 8 + length, data, n);
    return 8 + length + n;
}

static void widening(bp_ctx *ctx)
{
    static const struct {
        const char *dtype;
        bp_dtype becomes;
        unsigned char bytes[8];
        size_t size;
        double values[2];
    } cases[] = {
        { "F16", BP_F32, { 0x00, 0x3c, 0x01, 0x80 }, 2, { 1.0, -0x1p-24 } },
        { "F16", BP_F32, { 0xff, 0x7b, 0x00, 0xfc }, 2, { 65504.0, -INFINITY } },
        { "BF16", BP_F32, { 0x80, 0x3f, 0x49, 0xc0 }, 2, { 1.0, -3.140625 } },
        { "I8", BP_I32, { 0x80, 0x7f }, 1, { -128, 127 } },
        { "I16", BP_I32, { 0x00, 0x80, 0xff, 0x7f }, 2, { -32768, 32767 } },
        { "U16", BP_I32, { 0xff, 0xff, 1, 0 }, 2, { 65535, 1 } },
        { "U32", BP_I64, { 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0 }, 4, { 4294967295.0, 1 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char header[200], file[300];
        double got[2] = { 0, 0 };
        bp_weights *w = NULL;
        snprintf(header, sizeof header, "{\"x\":{\"dtype\":\"%s\",\"shape\":[2],\"data_offsets\":[0,%d]}}", cases[i].dtype,
                 (int)cases[i].size * 2);
        size_t n = assemble(file, header, cases[i].bytes, cases[i].size * 2);
        CHECK(bp_weights_load_memory(ctx, "m", file, n, &w) == BP_OK, "%s: %s", cases[i].dtype, bp_message(ctx));
        if (!w) continue;
        CHECK(w->tensors[0].tensor->m.dtype == cases[i].becomes && bp_tensor_read(w->tensors[0].tensor, BP_F64, got, 2) == BP_OK &&
                  memcmp(got, cases[i].values, sizeof got) == 0,
              "%s: %g %g", cases[i].dtype, got[0], got[1]);
        bp_weights_free(w);
    }
}

#define X(shape, offsets) "{\"x\":{\"dtype\":\"F32\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

/* Headers over 8 bytes of data, and what the refusal must say. */
static const struct {
    const char *header, *says;
} hostile[] = {
    { "[]", "expected '{'" },
    { " {}", "expected '{'" },
    { "{}", "belong to no tensor" },
    { "{\"x\":1}", "tensor \"x\": is not an object" },
    { "{\"x\":{}}", "has no \"dtype\"" },
    { "{\"x\":{\"dtype\":\"F8_E4M3\",\"shape\":[8],\"data_offsets\":[0,8]}}", "dtype \"F8_E4M3\" is not supported" },
    { "{\"x\":{\"dtype\":\"U64\",\"shape\":[1],\"data_offsets\":[0,8]}}", "dtype \"U64\" is not supported" },
    { "{\"x\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}}", "has no \"dtype\"" },
    { "{\"x\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", "has no \"shape\"" },
    { X("[-2]", "[0,8]"), "something else than whole numbers" },
    { X("[2.0]", "[0,8]"), "something else than whole numbers" },
    { X("[\"2\"]", "[0,8]"), "something else than whole numbers" },
    { X("[1,1,1,1,1,1,1,1,2]", "[0,8]"), "9 dimensions" },
    { X("[4611686018427387904,4]", "[0,8]"), "more elements than can be addressed" },
    { X("[9223372036854775807]", "[0,8]"), "more elements than can be addressed" },
    { X("[0,4611686018427387904,4]", "[0,0]"), "more elements than can be addressed" },
    { X("[2]", "[0]"), "is not a pair" },
    { X("[2]", "[8,0]"), "is not a pair" },
    { X("[2]", "[-8,0]"), "is not a pair" },
    { X("[2]", "[0,9223372036854775808]"), "not valid JSON" },
    { X("[2]", "[0,4]"), "span 4 bytes; shape and dtype F32 need 8" },
    { X("[1]", "[4,8]"), "without holes" },
    { X("[1]", "[0,4]"), "belong to no tensor" },
    { X("[4]", "[0,16]"), "truncated" },
    { X("[3]", "[4,16]"), "without holes" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"y\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
      "overlap" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
      "duplicate" },
    { "{\"__metadata__\":[],\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "is not an object" },
    { "{\"__metadata__\":{\"k\":1},\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "metadata \"k\" is not a string" },
    { "{\"__metadata__\":{\"k\":\"a\\u0000b\"},\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
      "metadata \"k\" is not a string" },
    { "{\"\xff\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", "not valid JSON" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}} x", "not valid JSON" },
    { "{\"x\":{\"dtype\":\"BOOL\",\"shape\":[8],\"data_offsets\":[0,8]}}", "found byte 0x07 in a BOOL" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"__metadata__\":{\"bplua.crc32\":\"0000000000000000\"}}",
      "CRC-32" },
    { "{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},\"__metadata__\":{\"bplua.crc32\":\"00\"}}",
      "2 digits of checksums" },
};

static void hostile_headers(bp_ctx *ctx, disk *d)
{
    static const unsigned char data[8] = { 0, 1, 0, 1, 0, 1, 7, 0 };
    char file[1000];
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        size_t n = assemble(file, hostile[i].header, data, 8);
        try_damaged(ctx, d, load, file, n, "hostile header", i, false);
        CHECK(strstr(bp_message(ctx), hostile[i].says), "header %zu: %s; expected it to say: %s", i, bp_message(ctx), hostile[i].says);
        CHECK(strstr(bp_message(ctx), "offset"), "header %zu: says no offset: %s", i, bp_message(ctx));
    }
    /* lengths that lie */
    static const uint64_t lengths[] = { 0, 1, 3, 100000001, (uint64_t)1 << 63, UINT64_MAX };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        memcpy(file, &lengths[i], 8);
        memcpy(file + 8, "{}", 2);
        size_t before = bp_memory_peak(ctx);
        try_damaged(ctx, d, load, file, 10, "length", i, false);
        CHECK(bp_memory_peak(ctx) < before + 100000, "a length that lies costs memory");
    }
}

/* A hundred thousand brackets, and a header of very many small values: refused before jansson builds a tree of them. */
static void floods(bp_ctx *ctx, disk *d)
{
    size_t n = 5000000;
    char *text = (char *)malloc(n + 1), *file = (char *)malloc(n + 16);
    memset(text, '[', 100000);
    memcpy(text, "{\"x\":", 5);
    text[100000] = '\0';
    try_damaged(ctx, d, load, file, assemble(file, text, NULL, 0), "brackets", 0, false);
    CHECK(strstr(bp_message(ctx), "nested more than 64 deep"), "%s", bp_message(ctx));
    for (size_t i = 0; i < n; i += 2) memcpy(text + i, "1,", 2);
    memcpy(text, "{\"x\":[", 6);
    text[n] = '\0';
    try_damaged(ctx, d, load, file, assemble(file, text, NULL, 0), "values", 0, false);
    CHECK(strstr(bp_message(ctx), "values"), "%s", bp_message(ctx));
    free(text);
    free(file);
}

static bp_status save_over(bp_ctx *ctx, const char *path)
{
    bp_named_tensor list[N];
    bp_status status = BP_OK;
    static const int64_t shape[] = { 2, 2 };
    memset(list, 0, sizeof list);
    for (int i = 0; i < N && status == BP_OK; i++) {
        list[i].name = names[i];
        status = bp_tensor_new(ctx, BP_F32, 2, shape, &list[i].tensor);
        if (status == BP_OK) memset(bp_data(list[i].tensor), 0, 16);
    }
    if (status == BP_OK) {
        int64_t s = list[0].tensor->m.stride[0]; /* one is not contiguous */
        list[0].tensor->m.stride[0] = list[0].tensor->m.stride[1];
        list[0].tensor->m.stride[1] = s;
        status = bp_weights_save(ctx, path, N, list, 3, texts);
    }
    release(list);
    return status;
}

/* A save refused by the disk at any point leaves the old weights loadable and nothing else. */
static void failing_saves(bp_ctx *ctx, disk *d, const char *data, size_t n)
{
    int files = -1;
    for (long long k = 1;; k++) {
        disk_set(d, "kept", data, n);
        if (files < 0) files = disk_files(d);
        d->calls = d->renamed = 0;
        d->fail_at = k;
        bp_status status = save_over(ctx, "kept");
        d->fail_at = 0;
        if (d->calls < k) {
            CHECK(status == BP_OK, "%s", bp_message(ctx));
            break;
        }
        int i = disk_find(d, "kept");
        CHECK(status == BP_EIO && strncmp(bp_message(ctx), "kept", 4) == 0, "operation %lld: %s", k, bp_message(ctx));
        CHECK(i >= 0 && (d->renamed || (d->files[i].n == n && memcmp(d->files[i].data, data, n) == 0)),
              "operation %lld: the old file is gone", k);
        CHECK(load(ctx, "kept") == BP_OK, "operation %lld: %s", k, bp_message(ctx));
        CHECK(disk_files(d) == files && disk_open_fds(d) == 0, "operation %lld: %d files, %d open", k, disk_files(d), disk_open_fds(d));
    }
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    disk d;
    memset(&d, 0, sizeof d);
    bp_files table = disk_table(&d);
    bp_ctx *ctx = open_on_disk(&c, &table);
    round_trip(ctx, &d);
    misuse(ctx);
    widening(ctx);
    hostile_headers(ctx, &d);
    floods(ctx, &d);

    int file = disk_find(&d, "w");
    size_t n = d.files[file].n;
    char *data = (char *)malloc(n);
    memcpy(data, d.files[file].data, n);
    try_truncations(ctx, &d, load, data, n);
    size_t unnoticed = try_flips(ctx, &d, load, data, n);
    CHECK(unnoticed == 0, "%zu of %zu flipped bits went unnoticed", unnoticed, 8 * n);
    try_allocations(ctx, &c, &d, load, "w");
    try_allocations(ctx, &c, &d, save_over, "other");
    try_reads(ctx, &d, load, "w");
    failing_saves(ctx, &d, data, n);
    free(data);
    close_counting(ctx, &c);
    disk_free(&d);
    return report();
}
