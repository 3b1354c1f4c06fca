/* fuzz.c - libFuzzer's entrance to every reader of files: make fuzz. $BP_FUZZ names the format.
 *
 * A reader may refuse an input, in words; it must not crash, leak, hang, or take memory out of proportion (libFuzzer looks
 * for leaks and slow inputs, the context's limit bounds memory). */
#include "../../core/base/files.h"
#include "../../core/bp_io.h"
#include "../../core/io/json.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static bp_ctx *ctx;
static bool (*reader)(const uint8_t *data, size_t n);

/* ---- a disk with one file ---- */

static struct {
    const uint8_t *data;
    size_t n, at;
} file;

static int open_read(void *ud, const char *path)
{
    (void)ud, (void)path;
    file.at = 0;
    return 3;
}
static ptrdiff_t read_bytes(void *ud, int fd, void *buf, size_t n)
{
    (void)ud, (void)fd;
    if (n > file.n - file.at) n = file.n - file.at;
    if (n) memcpy(buf, file.data + file.at, n);
    file.at += n;
    return (ptrdiff_t)n;
}
static int64_t size_of(void *ud, int fd)
{
    (void)ud, (void)fd;
    return (int64_t)file.n;
}
static int close_file(void *ud, int fd)
{
    (void)ud, (void)fd;
    return 0;
}
static const bp_files files = { .open_read = open_read, .read = read_bytes, .size = size_of, .close = close_file };

/* ---- readers: whether the input was accepted ---- */

static bool safetensors(const uint8_t *data, size_t n)
{
    bp_weights *w;
    if (bp_weights_load_memory(ctx, "fuzz", data, n, &w) != BP_OK) return false;
    bp_weights_free(w);
    return true;
}

static bool idx(const uint8_t *data, size_t n)
{
    bp_tensor *t;
    (void)data, (void)n;
    if (bp_idx_load(ctx, "fuzz.idx", &t) != BP_OK) return false;
    bp_tensor_release(t);
    return true;
}

static bool csv(const uint8_t *data, size_t n)
{
    static const bp_csv_options tolerant = { 0, ',', 1, BP_CSV_MISSING_SKIP, "?", BP_F64, 0, NULL, BP_CSV_CLASS };
    bool accepted = false;
    (void)data, (void)n;
    for (int i = 0; i < 2; i++) {
        bp_csv *table;
        if (bp_csv_load(ctx, "fuzz.csv", i ? &tolerant : NULL, &table) != BP_OK) continue;
        bp_csv_free(table);
        accepted = true;
    }
    return accepted;
}

/* What gzip hides is taken for a table and for an IDX file. */
static bool gzip(const uint8_t *data, size_t n)
{
    const bool table = csv(data, n);
    return idx(data, n) || table;
}

static void walk(const bp_json *v)
{
    size_t n;
    switch (bp_json_kind_of(v)) {
    case BP_JSON_ARRAY:
        for (int64_t i = 0; i < bp_json_count(v); i++) walk(bp_json_at(v, i));
        break;
    case BP_JSON_OBJECT:
        for (void *i = bp_json_first(v); i; i = bp_json_next(v, i)) {
            if (!bp_json_key(i)) abort();
            walk(bp_json_value(i));
        }
        break;
    case BP_JSON_STRING:
        if (bp_json_string(v, &n)[n] != 0) abort();
        break;
    default: break;
    }
}

static bool json(const uint8_t *data, size_t n)
{
    bp_json *root;
    if (bp_json_parse(ctx, "fuzz", (const char *)data, n, 100000, &root) != BP_OK) return false;
    walk(root);
    bp_json_free(root);
    return true;
}

static bool image(const uint8_t *data, size_t n)
{
    bp_tensor *t;
    bool accepted = false;
    for (int i = 0; i < 2; i++) {
        if (bp_image_load_memory(ctx, "fuzz", data, n, i ? 3 : 0, i ? 5 : 0, i ? 7 : 0, &t) != BP_OK) continue;
        bp_tensor_release(t);
        accepted = true;
    }
    return accepted;
}

static const struct {
    const char *name;
    bool (*reader)(const uint8_t *data, size_t n);
} formats[] = { { "safetensors", safetensors },
                { "idx", idx },
                { "csv", csv },
                { "gzip", gzip },
                { "json", json },
                { "png", image },
                { "jpeg", image },
                { "bmp", image } };

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = getenv("BP_FUZZ");
    bp_config config = BP_CONFIG_INIT;
    (void)argc, (void)argv;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (name && strcmp(name, formats[i].name) == 0) reader = formats[i].reader;
    if (!reader) {
        fprintf(stderr, "fuzz: set BP_FUZZ to a format: safetensors idx csv gzip json png jpeg bmp\n");
        exit(2);
    }
    config.threads = 1;
    config.memory_limit = (size_t)512 << 20;
    config.files = &files;
    if (bp_open(&config, &ctx) != BP_OK) abort();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    file.data = data;
    file.n = n;
    if (!reader(data, n) && !*bp_message(ctx)) {
        fprintf(stderr, "fuzz: refused without a word\n");
        abort();
    }
    return 0;
}
