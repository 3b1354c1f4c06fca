/* test_tables.c - IDX and CSV, plain and gzip'd. */
#include "../../core/bp_io.h"
#include "../../core/io/gzip.h"
#include "../../core/tensor/tensor.h"
#include "disk.h"

#include <math.h>

/* A gzip member of n bytes: header, raw deflate data (a zlib stream without its two first and four last bytes), checksum, length. */
static size_t gzip(bp_ctx *ctx, const void *data, size_t n, char *out)
{
    bp_buffer b = bp_buffer_new(ctx);
    if (bp_deflate(ctx, data, n, &b) != BP_OK) exit(2);
    memcpy(out, "\x1f\x8b\x08\0\0\0\0\0\0\x03", 10);
    size_t m = b.size - 6;
    memcpy(out + 10, b.data + 2, m);
    uint32_t crc = bp_crc32(0, data, n), length = (uint32_t)n;
    memcpy(out + 10 + m, &crc, 4);
    memcpy(out + 14 + m, &length, 4);
    bp_buffer_free(&b);
    return m + 18;
}

/* ---- IDX ---------------------------------------------------------------------------------------------------------- */

static bp_status load_idx(bp_ctx *ctx, const char *path)
{
    bp_tensor *t;
    BP_TRY(bp_idx_load(ctx, path, &t));
    bp_tensor_release(t);
    return BP_OK;
}

static void idx_dtypes(bp_ctx *ctx, disk *d)
{
    static const struct {
        unsigned char code, bytes[16];
        size_t size;
        bp_dtype becomes;
        double values[2];
    } cases[] = {
        { 0x08, { 0, 255 }, 1, BP_U8, { 0, 255 } },
        { 0x09, { 0x80, 0x7f }, 1, BP_I32, { -128, 127 } },
        { 0x0b, { 0x80, 0x00, 0x00, 0x02 }, 2, BP_I32, { -32768, 2 } },
        { 0x0c, { 0x80, 0, 0, 0, 0, 0, 1, 0 }, 4, BP_I32, { -2147483648.0, 256 } },
        { 0x0d, { 0x3f, 0x80, 0, 0, 0xc0, 0x20, 0, 0 }, 4, BP_F32, { 1, -2.5 } },
        { 0x0e, { 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xc0, 4, 0, 0, 0, 0, 0, 0 }, 8, BP_F64, { 1, -2.5 } },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char file[64] = { 0, 0, cases[i].code, 2, 0, 0, 0, 1, 0, 0, 0, 2 };
        memcpy(file + 12, cases[i].bytes, 16);
        disk_set(d, "idx", file, 12 + 2 * cases[i].size);
        bp_tensor *t;
        double got[2] = { 0, 0 };
        CHECK(bp_idx_load(ctx, "idx", &t) == BP_OK, "code %02x: %s", cases[i].code, bp_message(ctx));
        if (!t) continue;
        CHECK(t->m.dtype == cases[i].becomes && t->m.ndim == 2 && t->m.shape[0] == 1 && bp_tensor_read(t, BP_F64, got, 2) == BP_OK &&
                  got[0] == cases[i].values[0] && got[1] == cases[i].values[1],
              "code %02x: %g %g", cases[i].code, got[0], got[1]);
        bp_tensor_release(t);
    }
}

static void idx_damage(bp_ctx *ctx, counting *c, disk *d)
{
    static const unsigned char file[] = { 0, 0, 0x0b, 2, 0, 0, 0, 2, 0, 0, 0, 3, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6 };
    static const struct {
        unsigned char bytes[28];
        size_t n;
        const char *says;
    } cases[] = {
        { { 1, 0, 8, 1, 0, 0, 0, 0 }, 8, "not an IDX file: begins with 01 00 08 01" },
        { { 0, 0, 7, 1, 0, 0, 0, 0 }, 8, "not an IDX file" },
        { { 0, 0, 8, 0 }, 4, "0 dimensions" },
        { { 0, 0, 8, 9, 0, 0, 0, 0 }, 8, "9 dimensions" },
        { { 0, 0, 8, 1, 0, 0, 0, 1, 5, 6 }, 10, "more bytes follow" },
        { { 0, 0, 8, 1, 0xff, 0xff, 0xff, 0xff, 5 }, 9, "truncated" },
        { { 0, 0, 8, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff },
          20,
          "more elements than can be addressed" },
        { { 0, 0, 8, 3, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff }, 16, "more elements than can be addressed" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        try_damaged(ctx, d, load_idx, cases[i].bytes, cases[i].n, "idx case", i, false);
        CHECK(strstr(bp_message(ctx), cases[i].says), "%s; expected to say %s", bp_message(ctx), cases[i].says);
    }
    char packed[400];
    size_t n = gzip(ctx, file, sizeof file, packed);
    try_truncations(ctx, d, load_idx, (const char *)file, sizeof file);
    try_flips(ctx, d, load_idx, (const char *)file, sizeof file);
    try_truncations(ctx, d, load_idx, packed, n);
    size_t unnoticed = try_flips(ctx, d, load_idx, packed, n);
    CHECK(unnoticed < 8 * 10, "%zu flips in the gzip file went unnoticed; only its header's time and flags may", unnoticed);
    disk_set(d, "idx", packed, n);
    try_allocations(ctx, c, d, load_idx, "idx");
    try_reads(ctx, d, load_idx, "idx");

    /* two members one after the other are one file */
    size_t first = gzip(ctx, file, 10, packed);
    size_t both = first + gzip(ctx, file + 10, sizeof file - 10, packed + first);
    disk_set(d, "idx", packed, both);
    CHECK(load_idx(ctx, "idx") == BP_OK, "%s", bp_message(ctx));

    /* a header that promises a terabyte is not believed */
    static const unsigned char bomb[] = { 0, 0, 8, 2, 0, 0x10, 0, 0, 0, 0x10, 0, 0, 1 };
    size_t peak;
    bp_memory_reset_peak(ctx);
    peak = bp_memory_peak(ctx);
    try_damaged(ctx, d, load_idx, packed, gzip(ctx, bomb, sizeof bomb, packed), "bomb", 0, false);
    CHECK(bp_memory_peak(ctx) < peak + (1 << 20), "%zu bytes for a file of a hundred", bp_memory_peak(ctx) - peak);
}

/* ---- CSV ---------------------------------------------------------------------------------------------------------- */

static bp_status load_csv(bp_ctx *ctx, const char *path)
{
    bp_csv *csv;
    BP_TRY(bp_csv_load(ctx, path, NULL, &csv));
    bp_csv_free(csv);
    return BP_OK;
}

/* The table as text: "name(kind): value value ...; ..." */
static void show(const bp_csv *csv, char *out, size_t size)
{
    size_t n = (size_t)snprintf(out, size, "%lld rows", (long long)csv->rows);
    for (int64_t i = 0; i < csv->n_columns; i++) {
        const bp_csv_column *c = &csv->columns[i];
        double v[16];
        if (bp_tensor_read(c->values, BP_F64, v, csv->rows) != BP_OK) exit(2);
        n += (size_t)snprintf(out + n, size - n, "; %s:", c->name);
        for (int64_t r = 0; r < csv->rows; r++) {
            if (c->kind == BP_CSV_CLASS)
                n += (size_t)snprintf(out + n, size - n, " <%s>", c->classes[(int64_t)v[r]]);
            else
                n += (size_t)snprintf(out + n, size - n, " %g", v[r]);
        }
    }
}

static const struct {
    const char *text, *shows;
} good[] = {
    { "a,b\n1,2\n3,4\n", "2 rows; a: 1 3; b: 2 4" },
    { "1,2\n3,4", "2 rows; 1: 1 3; 2: 2 4" },
    { "\xef\xbb\xbf\"a\";b\r\n1;x\r\n\r\n2;y\r\n", "2 rows; a: 1 2; b: <x> <y>" },
    { "a\tb\rx\t-1.5e2\ry\t+.5\r", "2 rows; a: <x> <y>; b: -150 0.5" },
    { "a,b\n\"x, \"\"y\"\"\nz\",1\nu,2\n", "2 rows; a: <x, \"y\"\nz> <u>; b: 1 2" },
    { "\"q\"\"q\",b\n1,2\n", "1 rows; q\"q: 1; b: 2" },
    { "a,b\n \"x,1\n", "1 rows; a: < \"x>; b: 1" },
    { "c\n10\n9\n", "2 rows; c: 10 9" },
    { "a,b\n,\n", NULL },
    { "x,y\n\"1\", 2 \n", "1 rows; x: 1; y: 2" },
    { "v,w\n123456789012345678901234567890,1e-30\n", "1 rows; v: 1.23457e+29; w: 1e-30" },
};

static const struct {
    const char *text;
    size_t n;
    const char *says;
} bad[] = {
    { "", 0, "empty" },
    { "\n\n\n", 0, "empty" },
    { "a,b\n", 0, "has no rows of data" },
    { "a,b\n1,2\n3\n", 0, "damaged:3:1: found a row of 1 cells; expected 2" },
    { "a,b\n1,2\n\n3,4,5\n", 0, "damaged:4:3: found a row of more than 2 cells" },
    { "a,b\n1,2\n3,x\n", 0, "damaged:3:2: column \"b\": found \"x\"; expected a number" },
    { "a;b\n1;2\n3;1,5\n", 0, "decimal = \",\"" },
    { "a,b\n1,2\n3,\n", 0, "damaged:3:2: column \"b\": found \"\"; expected a value" },
    { "a,b\n\"1,2\n3,4\n", 0, "damaged:2:1: the quote opened here" },
    { "a,b\n\"1\"x,2\n", 0, "damaged:2:1: found 'x' after the closing quote" },
    { "a,b,a\n1,2,3\n", 0, "two columns are called \"a\"" },
    { "a,b\n1,\0\n", 8, "found byte 0x00" },
    { "a,b\n1,\xe9\n", 0, "damaged:2: offset 6: found byte 0xe9; expected UTF-8" },
    { "\xff\xfe"
      "a\0,\0b\0\n\0",
      10, "UTF-16" },
    { "a,b\n1,1e39\n", 0, "too large for f32" },
    { "a,b\n1,1e400\n", 0, "column \"b\": found \"1e400\"" },
    { "a,b\n1,2\n2,nan\n", 0, "expected a number" },
};

static void csv_cases(bp_ctx *ctx, disk *d)
{
    char shown[2000];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        bp_csv *csv = NULL;
        disk_set(d, "csv", good[i].text, strlen(good[i].text));
        bp_status status = bp_csv_load(ctx, "csv", NULL, &csv);
        if (!good[i].shows) {
            CHECK(status == BP_EFORMAT, "%s", good[i].text);
            continue;
        }
        CHECK(status == BP_OK, "%s: %s", good[i].text, bp_message(ctx));
        if (!csv) continue;
        show(csv, shown, sizeof shown);
        CHECK(strcmp(shown, good[i].shows) == 0, "%s gives %s; expected %s", good[i].text, shown, good[i].shows);
        bp_csv_free(csv);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        try_damaged(ctx, d, load_csv, bad[i].text, bad[i].n ? bad[i].n : strlen(bad[i].text), "csv case", i, false);
        CHECK(strstr(bp_message(ctx), bad[i].says), "%s; expected to say %s", bp_message(ctx), bad[i].says);
    }
}

static void csv_with(bp_ctx *ctx, disk *d, const char *text, const bp_csv_options *o, const char *expected)
{
    char shown[2000];
    bp_csv *csv = NULL;
    disk_set(d, "csv", text, strlen(text));
    bp_status status = bp_csv_load(ctx, "csv", o, &csv);
    if (csv) show(csv, shown, sizeof shown);
    CHECK(strstr(csv ? shown : bp_message(ctx), expected), "%s gives %s; expected %s (%s)", text, csv ? shown : bp_message(ctx), expected,
          bp_status_name(status));
    bp_csv_free(csv);
}

static void csv_options(bp_ctx *ctx, disk *d)
{
    const bp_csv_options defaults = BP_CSV_OPTIONS_INIT;
    bp_csv_options o = defaults;
    o.header = 0;
    csv_with(ctx, d, "a,b\nc,d\n", &o, "2 rows; 1: <a> <c>; 2: <b> <d>");
    o.header = 1;
    csv_with(ctx, d, "1,2\n3,4\n", &o, "1 rows; 1: 3; 2: 4");
    o = defaults;
    o.missing = BP_CSV_MISSING_NAN;
    o.na = "NA";
    csv_with(ctx, d, "a,b,c\nNA,,\n2,x,\n", &o, "2 rows; a: nan 2; b: <> <x>; c: nan nan");
    o.missing = BP_CSV_MISSING_SKIP;
    csv_with(ctx, d, "a,b\nNA,x\n2,y\n,z\n4,NA\n5,u\n,\n", &o, "2 rows; a: 2 5; b: <y> <u>");
    csv_with(ctx, d, "a,b\nNA,x\n,y\n", &o, "each lacks a value");
    o = defaults;
    o.decimal = ',';
    csv_with(ctx, d, "a;b\n1,5;12345678901234567890,25\n", &o, "1 rows; a: 1.5; b: 1.23457e+19");
    o = defaults;
    o.separator = '|';
    csv_with(ctx, d, "a|b\n1,5|2\n", &o, "a: <1,5>; b: 2");
    o = defaults;
    o.dtype = BP_F64;
    csv_with(ctx, d, "a\n1e300\n", &o, "a: 1e+300");
    const bp_csv_column_kind kinds[] = { { "b", BP_CSV_CLASS }, { "c", BP_CSV_SKIP } };
    o = defaults;
    o.n_kinds = 2;
    o.kinds = kinds;
    csv_with(ctx, d, "a,b,c\n1,10,?\n2,9,?\n3,10,\n", &o, "3 rows; a: 1 2 3; b: <10> <9> <10>");
    csv_with(ctx, d, "a,x,y\n1,10,?\n", &o, "has no column \"b\"; its 3 columns are \"a\", \"x\", \"y\"");

    /* classes are sorted: as numbers where all are, else by bytes */
    bp_csv *csv = NULL;
    static const char text[] = "a,b,c\n1,10,\n2,9,\n";
    disk_set(d, "csv", text, strlen(text));
    CHECK(bp_csv_load(ctx, "csv", &o, &csv) == BP_OK && csv->n_columns == 2, "%s", bp_message(ctx));
    CHECK(csv && strcmp(csv->columns[1].classes[0], "9") == 0 && strcmp(csv->columns[1].classes[1], "10") == 0, "9 before 10");
    bp_csv_free(csv);
}

/* Against strtod under the C locale, digits of every length. */
static void csv_numbers(bp_ctx *ctx, disk *d)
{
    bp_csv_options o = BP_CSV_OPTIONS_INIT;
    uint64_t state = 3, wrong = 0;
    o.dtype = BP_F64;
    for (int i = 0; i < 2000; i++) {
        char text[100], digits[24];
        double v = 0;
        bp_csv *csv = NULL;
        state = state * 6364136223846793005u + 1442695040888963407u;
        snprintf(digits, sizeof digits, "%llu", (unsigned long long)(state >> (i % 60)));
        snprintf(text, sizeof text, "%s.%se%d\n", digits, digits, i % 61 - 30);
        disk_set(d, "csv", text, strlen(text));
        if (bp_csv_load(ctx, "csv", &o, &csv) != BP_OK || bp_tensor_read(csv->columns[0].values, BP_F64, &v, 1) != BP_OK) exit(2);
        bp_csv_free(csv);
        wrong += v != strtod(text, NULL);
    }
    CHECK(wrong == 0, "%llu of 2000 numbers were read wrong", (unsigned long long)wrong);
}

static void csv_damage(bp_ctx *ctx, counting *c, disk *d)
{
    static const char text[] = "id,\"na\"\"me\",v\n1,\"x\r\ny\",2.5\n2,z,NA\n3,\"z\",4\n";
    char packed[400];
    size_t n = gzip(ctx, text, strlen(text), packed);
    try_flips(ctx, d, load_csv, text, strlen(text));
    for (size_t k = 0; k < strlen(text); k++) try_damaged(ctx, d, load_csv, text, k, "cut at", k, true);
    try_truncations(ctx, d, load_csv, packed, n);
    static const char small[] = "a,b\nx,1\ny,2\n\"z\"\"\",3\n";
    disk_set(d, "csv", small, strlen(small));
    try_allocations(ctx, c, d, load_csv, "csv");
    try_reads(ctx, d, load_csv, "csv");

    /* a gzip bomb: 64 MB of nothing in 64 kB */
    size_t big = (size_t)64 << 20;
    char *zeros = (char *)malloc(big), *bomb = (char *)malloc(1 << 20);
    memset(zeros, '1', big);
    n = gzip(ctx, zeros, big, bomb);
    bp_block_flush(ctx);
    bp_memory_reset_peak(ctx);
    size_t peak = bp_memory_peak(ctx);
    try_damaged(ctx, d, load_csv, bomb, n, "bomb", n, false);
    CHECK(bp_memory_peak(ctx) - peak < (size_t)48 << 20, "%zu bytes for a file of %zu", bp_memory_peak(ctx) - peak, n);
    CHECK(strstr(bp_message(ctx), "inflates to more than"), "%s", bp_message(ctx));
    free(zeros);
    free(bomb);
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    disk d;
    memset(&d, 0, sizeof d);
    bp_files table = disk_table(&d);
    bp_ctx *ctx = open_on_disk(&c, &table);
    idx_dtypes(ctx, &d);
    idx_damage(ctx, &c, &d);
    csv_cases(ctx, &d);
    csv_options(ctx, &d);
    csv_numbers(ctx, &d);
    csv_damage(ctx, &c, &d);
    close_counting(ctx, &c);
    disk_free(&d);
    return report();
}
