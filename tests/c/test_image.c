/* test_image.c - pictures come back; damaged, cut and hostile ones are refused before they reach the decoder, and never crash it. */
#include "../../core/bp_io.h"
#include "../../core/io/gzip.h"
#include "../../core/tensor/tensor.h"
#include "disk.h"

/* Another writer makes the JPEG and BMP files. */
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC push_options
#pragma GCC optimize("wrapv") /* it shifts into the sign bit */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wall"
#pragma GCC diagnostic ignored "-Wextra"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wc++-compat"
#pragma GCC diagnostic ignored "-Wdouble-promotion"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wundef"
#define STB_IMAGE_WRITE_STATIC
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop
#pragma GCC pop_options

typedef struct bytes {
    char data[20000];
    size_t n;
} bytes;

static void add(bytes *b, const void *data, size_t n)
{
    if (b->n + n > sizeof b->data) exit(2);
    memcpy(b->data + b->n, data, n);
    b->n += n;
}

static void collect(void *ud, void *data, int n) { add((bytes *)ud, data, (size_t)n); }

static void add32(bytes *b, uint32_t v)
{
    const unsigned char p[4] = { (unsigned char)(v >> 24), (unsigned char)(v >> 16), (unsigned char)(v >> 8), (unsigned char)v };
    add(b, p, 4);
}

static void chunk(bytes *b, const char *type, const void *data, size_t n)
{
    add32(b, (uint32_t)n);
    add(b, type, 4);
    add(b, data, n);
    add32(b, bp_crc32(bp_crc32(0, type, 4), data, n));
}

/* A PNG of the given kind, its rows (filter byte and samples) deflated; palette NULL: none. */
static bytes png(bp_ctx *ctx, uint32_t width, uint32_t height, int depth, int colour, int interlace, const void *rows, size_t n,
                 const char *palette)
{
    bytes b = { { 0 }, 0 };
    unsigned char header[13] = { (unsigned char)(width >> 24),
                                 (unsigned char)(width >> 16),
                                 (unsigned char)(width >> 8),
                                 (unsigned char)width,
                                 (unsigned char)(height >> 24),
                                 (unsigned char)(height >> 16),
                                 (unsigned char)(height >> 8),
                                 (unsigned char)height,
                                 (unsigned char)depth,
                                 (unsigned char)colour,
                                 0,
                                 0,
                                 (unsigned char)interlace };
    bp_buffer packed = bp_buffer_new(ctx);
    if (bp_deflate(ctx, rows, n, &packed) != BP_OK) exit(2);
    add(&b, "\x89PNG\r\n\x1a\n", 8);
    chunk(&b, "IHDR", header, 13);
    if (palette) chunk(&b, "PLTE", palette, 6);
    chunk(&b, "IDAT", packed.data, packed.size);
    chunk(&b, "IEND", "", 0);
    bp_buffer_free(&packed);
    return b;
}

static bp_status load(bp_ctx *ctx, const char *path)
{
    bp_tensor *t;
    BP_TRY(bp_image_load(ctx, path, 0, 0, 0, &t));
    bp_tensor_release(t);
    return BP_OK;
}

static bp_status load_small(bp_ctx *ctx, const char *path)
{
    bp_tensor *t;
    BP_TRY(bp_image_load(ctx, path, 3, 2, 2, &t));
    bp_tensor_release(t);
    return BP_OK;
}

/* A ramp of height x width x channels, smooth so that JPEG keeps it. */
static bp_tensor *ramp(bp_ctx *ctx, int64_t h, int64_t w, int64_t c)
{
    const int64_t shape[3] = { h, w, c };
    bp_tensor *t;
    if (bp_tensor_new(ctx, BP_U8, 3, shape, &t) != BP_OK) exit(2);
    unsigned char *p = (unsigned char *)bp_data(t);
    for (int64_t y = 0; y < h; y++)
        for (int64_t x = 0; x < w; x++)
            for (int64_t k = 0; k < c; k++) *p++ = (unsigned char)(20 + 10 * y + 3 * x + 40 * k);
    return t;
}

static bool shows(bp_tensor *t, int64_t h, int64_t w, int64_t c, const unsigned char *pixels, int tolerance)
{
    if (!t || t->m.shape[0] != h || t->m.shape[1] != w || t->m.shape[2] != c) return false;
    for (int64_t i = 0; i < h * w * c; i++)
        if (abs((int)((unsigned char *)bp_data(t))[i] - (int)pixels[i]) > tolerance) return false;
    return true;
}

static void round_trips(bp_ctx *ctx)
{
    for (int64_t c = 1; c <= 4; c++)
        for (int64_t w = 1; w <= 9; w += 4) {
            bp_tensor *t = ramp(ctx, 6, w, c), *back = NULL;
            char *data;
            size_t n;
            CHECK(bp_image_save_memory(t, &data, &n) == BP_OK &&
                      bp_image_load_memory(ctx, "m", data, n, c == 2 ? 0 : (int)c, 0, 0, &back) == BP_OK,
                  "%s", bp_message(ctx));
            CHECK(shows(back, 6, w, c, (unsigned char *)bp_data(t), 0), "%lld channels, width %lld", (long long)c, (long long)w);
            bp_bytes_free(ctx, data, n);
            bp_tensor_release(back);
            bp_tensor_release(t);
        }
}

static void png_kinds(bp_ctx *ctx)
{
    static const char palette[] = { 10, 20, 30, (char)200, (char)210, (char)220 };
    static const struct {
        int depth, colour, interlace;
        char rows[40];
        size_t n;
        int64_t channels;
        unsigned char pixels[12];
    } cases[] = {
        { 1, 0, 0, { 0, (char)0x80, 0, 0x40 }, 4, 1, { 255, 0, 0, 255 } },
        { 4, 0, 0, { 0, 0x3c, 0, 0x0f }, 4, 1, { 51, 204, 0, 255 } },
        { 16, 0, 0, { 0, 0x12, 0x34, 0x56, 0x78, 0, (char)0xff, (char)0xff, 0, 1 }, 10, 1, { 0x12, 0x56, 255, 0 } },
        { 8, 3, 0, { 0, 0, 1, 0, 1, 0 }, 6, 3, { 10, 20, 30, 200, 210, 220, 200, 210, 220, 10, 20, 30 } },
        { 8, 4, 0, { 0, 9, 8, 7, 6, 1, 5, 4, 1, 1 }, 10, 2, { 9, 8, 7, 6, 5, 4, 6, 5 } },
        { 8, 0, 1, { 0, 1, 0, 2, 0, 3, 4 }, 7, 1, { 1, 2, 3, 4 } }, /* interlaced: passes 1, 6 and 7 */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes b = png(ctx, 2, 2, cases[i].depth, cases[i].colour, cases[i].interlace, cases[i].rows, cases[i].n,
                      cases[i].colour == 3 ? palette : NULL);
        bp_tensor *t = NULL;
        CHECK(bp_image_load_memory(ctx, "png", b.data, b.n, 0, 0, 0, &t) == BP_OK, "kind %zu: %s", i, bp_message(ctx));
        CHECK(shows(t, 2, 2, cases[i].channels, cases[i].pixels, 0), "kind %zu", i);
        bp_tensor_release(t);
    }
}

/* Where the upright picture's corner pixels are taken from, for each orientation of Exif. */
static void orientations(bp_ctx *ctx)
{
    /* stored: 16 rows of 8, dark above left, brighter below and right */
    bp_tensor *t = ramp(ctx, 16, 8, 1), *plain = NULL, *turned;
    bytes jpeg = { { 0 }, 0 };
    unsigned char app1[] = { 0xff, 0xe1, 0,    34,   'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, 42, 0, 0, 0, 8,
                             0,    1,    0x01, 0x12, 0,   3,   0,   0,   0, 1, 0,   1,   0, 0,  0, 0, 0, 0 };
    stbi_write_jpg_to_func(collect, &jpeg, 8, 16, 1, bp_data(t), 95);
    CHECK(bp_image_load_memory(ctx, "jpeg", jpeg.data, jpeg.n, 1, 0, 0, &plain) == BP_OK, "%s", bp_message(ctx));
    CHECK(shows(plain, 16, 8, 1, (unsigned char *)bp_data(t), 4), "a JPEG comes back nearly as it was");
    const unsigned char *p = (const unsigned char *)bp_data(plain);
    const unsigned char top_left = p[0], top_right = p[7], bottom_left = p[15 * 8], bottom_right = p[15 * 8 + 7];
    /* upright corners top left, top right, bottom left for orientations 1 to 8 */
    const unsigned char corners[9][3] = { { 0 },
                                          { top_left, top_right, bottom_left },
                                          { top_right, top_left, bottom_right },
                                          { bottom_right, bottom_left, top_right },
                                          { bottom_left, bottom_right, top_left },
                                          { top_left, bottom_left, top_right },
                                          { bottom_left, top_left, bottom_right },
                                          { bottom_right, top_right, bottom_left },
                                          { top_right, bottom_right, top_left } };
    for (unsigned char orientation = 1; orientation <= 8; orientation++) {
        bytes b = { { 0 }, 0 };
        app1[29] = orientation;
        add(&b, jpeg.data, 2);
        add(&b, app1, sizeof app1);
        add(&b, jpeg.data + 2, jpeg.n - 2);
        turned = NULL;
        CHECK(bp_image_load_memory(ctx, "exif", b.data, b.n, 1, 0, 0, &turned) == BP_OK, "%s", bp_message(ctx));
        if (!turned) continue;
        int64_t h = turned->m.shape[0], w = turned->m.shape[1];
        const unsigned char *q = (const unsigned char *)bp_data(turned);
        CHECK(h == (orientation < 5 ? 16 : 8) && q[0] == corners[orientation][0] && q[w - 1] == corners[orientation][1] &&
                  q[(h - 1) * w] == corners[orientation][2],
              "orientation %d: %lld x %lld, corners %d %d %d", orientation, (long long)h, (long long)w, q[0], q[w - 1], q[(h - 1) * w]);
        bp_tensor_release(turned);
    }
    bp_tensor_release(plain);
    bp_tensor_release(t);
}

static void hostile(bp_ctx *ctx, disk *d)
{
    static const char row[] = { 0, 0, 0, 0, 0 };
    bytes b;
    struct {
        bytes file;
        const char *says;
    } cases[16];
    int n = 0;
#define CASE(made, text) (cases[n].file = (made), cases[n++].says = (text))
    CASE(png(ctx, 65500, 65500, 8, 0, 0, row, 2, NULL), "at most 32768 a side");
    CASE(png(ctx, 32768, 32768, 8, 0, 0, row, 2, NULL), "134217728 in all");
    CASE(png(ctx, 30000, 4000, 8, 0, 0, row, 2, NULL), "no fewer than 116279 could hold them");
    CASE(png(ctx, 0, 1, 8, 0, 0, row, 2, NULL), "expected at least 1 x 1");
    CASE(png(ctx, 2, 2, 8, 1, 0, row, 2, NULL), "colour type 1 does not exist");
    CASE(png(ctx, 2, 2, 3, 0, 0, row, 2, NULL), "bit depth 3");
    CASE(png(ctx, 2, 2, 8, 3, 0, row, 2, NULL), "no palette");
    CASE(png(ctx, 2, 2, 8, 0, 2, row, 2, NULL), "interlace 2");
    CASE(png(ctx, 2, 2, 8, 0, 0, row, 2, NULL), "damaged picture of 2 x 2 pixels"); /* too few pixels */
    b = png(ctx, 1, 1, 8, 0, 0, row, 2, NULL);
    b.data[b.n - 16 - 1] ^= 1;
    CASE(b, "damaged PNG: the chunk at offset 33 has CRC-32");
    b = png(ctx, 1, 1, 8, 0, 0, row, 2, NULL);
    memcpy(b.data + 33 + 4, "IDOT", 4);
    uint32_t crc = bp_crc32(0, b.data + 37, b.n - 12 - 4 - 37);
    b.n -= 16;
    add32(&b, crc);
    chunk(&b, "IEND", "", 0);
    CASE(b, "unknown critical chunk");
    bytes gif = { "GIF89a\1\0\1\0", 10 }, bmp = { "BM", 2 }, pickle = { "\x80\x04\x95", 3 };
    CASE(gif, "begins with 47 49 46; expected PNG, JPEG or BMP");
    CASE(bmp, "header of 0 bytes");
    CASE(pickle, "not a picture");
#undef CASE
    for (int i = 0; i < n; i++) {
        size_t peak;
        bp_block_flush(ctx);
        bp_memory_reset_peak(ctx);
        peak = bp_memory_peak(ctx);
        try_damaged(ctx, d, load, cases[i].file.data, cases[i].file.n, "hostile picture", (size_t)i, false);
        CHECK(strstr(bp_message(ctx), cases[i].says), "%s; expected to say %s", bp_message(ctx), cases[i].says);
        CHECK(bp_memory_peak(ctx) - peak < 300000, "%zu bytes for a file of %zu", bp_memory_peak(ctx) - peak, cases[i].file.n);
    }
}

/* JPEGs wrong in one segment. */
static void hostile_jpegs(bp_ctx *ctx, disk *d)
{
    bp_tensor *t = ramp(ctx, 8, 8, 1);
    bytes good = { { 0 }, 0 }, b;
    stbi_write_jpg_to_func(collect, &good, 8, 8, 1, bp_data(t), 50);
    bp_tensor_release(t);
    static const struct {
        unsigned char marker;
        int at, value; /* the byte at that distance from the marker, and what it becomes */
        const char *says;
    } cases[] = {
        { 0xc0, 4, 12, "have not 8 bits" },
        { 0xc0, 9, 2, "another length than its components" },
        { 0xc0, 1, 0xc3, "not supported; save the picture as PNG" },
        { 0xc0, 1, 0xc9, "not supported" },
        { 0xc0, 11, 0x55, "sampling factors must be 1 to 4" },
        { 0xc0, 6, 0, "expected at least 1 x 1" },
        { 0xc4, 4, 0x25, "class 0 or 1" },
        { 0xc4, 5, 3, "more codes than there are" },
        { 0xc4, 4, 0x03, "table that was not defined" },
        { 0xdb, 4, 0x07, "quantization table is cut short or has an unknown kind" },
        { 0xda, 4, 4, "wrong length" },
        { 0xda, 5, 77, "a component that the frame does not have" },
        { 0xda, 6, 0x33, "table that was not defined" },
        { 0xda, 1, 0xd0, "cannot stand here" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        b = good;
        size_t at = 2;
        while (at + 4 < b.n && (unsigned char)b.data[at + 1] != cases[i].marker)
            at += 2 + (size_t)((unsigned char)b.data[at + 2] << 8 | (unsigned char)b.data[at + 3]);
        b.data[at + (size_t)cases[i].at] = (char)cases[i].value;
        try_damaged(ctx, d, load, b.data, b.n, "hostile JPEG", i, false);
        CHECK(strstr(bp_message(ctx), cases[i].says), "%s; expected to say %s", bp_message(ctx), cases[i].says);
    }
    /* a Huffman table with 257 symbols writes past the decoder's tables in stb_image 2.27 */
    b.n = 0;
    unsigned char dht[] = { 0xff, 0xd8, 0xff, 0xc4, 1, 20, 0, 0, 0, 0, 0, 0, 0, 0, 128, 129, 0, 0, 0, 0, 0, 0, 0 };
    add(&b, dht, sizeof dht);
    memset(b.data + b.n, 7, 257);
    b.n += 257;
    add(&b, "\xff\xd9", 2);
    try_damaged(ctx, d, load, b.data, b.n, "257 symbols", 0, false);
    CHECK(strstr(bp_message(ctx), "more than 256 symbols"), "%s", bp_message(ctx));
}

static void resizing(bp_ctx *ctx)
{
    static const unsigned char four[] = { 0, 100, 100, 200 },
                               larger[] = { 0, 25, 75, 100, 25, 50, 100, 125, 75, 100, 150, 175, 100, 125, 175, 200 };
    static const unsigned char line[] = { 0, 0, 0, 240, 240, 240 };
    const int64_t two[3] = { 2, 2, 1 }, six[3] = { 1, 6, 1 };
    bp_tensor *t, *r;
    CHECK(bp_tensor_new(ctx, BP_U8, 3, two, &t) == BP_OK && bp_tensor_write(t, BP_U8, four, 4) == BP_OK, "%s", bp_message(ctx));
    CHECK(bp_image_resize(t, 4, 4, &r) == BP_OK && shows(r, 4, 4, 1, larger, 0), "2 x 2 to 4 x 4");
    bp_tensor_release(r);
    bp_tensor_release(t);
    CHECK(bp_tensor_new(ctx, BP_U8, 3, six, &t) == BP_OK && bp_tensor_write(t, BP_U8, line, 6) == BP_OK, "%s", bp_message(ctx));
    /* 6 to 2: a triangle of half-width 3 around 1.5 weighs the first four pixels as 2 : 3 : 2 : 1, so 240/8; the second is its mirror image
     */
    static const unsigned char shrunk[] = { 30, 210 };
    CHECK(bp_image_resize(t, 1, 2, &r) == BP_OK && shows(r, 1, 2, 1, shrunk, 0), "6 to 2: %d %d", ((unsigned char *)bp_data(r))[0],
          ((unsigned char *)bp_data(r))[1]);
    bp_tensor_release(r);
    bp_tensor_release(t);
    t = ramp(ctx, 37, 23, 3);
    memset(bp_data(t), 77, (size_t)bp_count(t));
    for (int64_t size = 1; size < 60; size += 7) {
        CHECK(bp_image_resize(t, size, 60 - size, &r) == BP_OK, "%s", bp_message(ctx));
        bool flat = true;
        for (int64_t i = 0; i < bp_count(r); i++) flat = flat && ((unsigned char *)bp_data(r))[i] == 77;
        CHECK(flat, "a picture of one colour keeps it at %lld", (long long)size);
        bp_tensor_release(r);
    }
    bp_tensor_release(t);
}

static void damage(bp_ctx *ctx, counting *c, disk *d)
{
    bp_tensor *t = ramp(ctx, 5, 7, 3);
    bytes jpeg = { { 0 }, 0 }, bmp = { { 0 }, 0 };
    char *data;
    size_t n;
    stbi_write_jpg_to_func(collect, &jpeg, 7, 5, 3, bp_data(t), 80);
    stbi_write_bmp_to_func(collect, &bmp, 7, 5, 3, bp_data(t));
    CHECK(bp_image_save_memory(t, &data, &n) == BP_OK, "%s", bp_message(ctx));
    bp_tensor *back = NULL;
    CHECK(bp_image_load_memory(ctx, "bmp", bmp.data, bmp.n, 3, 0, 0, &back) == BP_OK &&
              shows(back, 5, 7, 3, (unsigned char *)bp_data(t), 0),
          "%s", bp_message(ctx));
    bp_tensor_release(back);
    bp_tensor_release(t);
    try_truncations(ctx, d, load, data, n);
    try_truncations(ctx, d, load, jpeg.data, jpeg.n);
    try_truncations(ctx, d, load, bmp.data, bmp.n);
    size_t unnoticed = try_flips(ctx, d, load, data, n);
    CHECK(unnoticed == 0, "%zu of %zu flipped bits of a PNG went unnoticed", unnoticed, 8 * n);
    try_flips(ctx, d, load, jpeg.data, jpeg.n);
    try_flips(ctx, d, load, bmp.data, bmp.n);
    disk_set(d, "png", data, n);
    disk_set(d, "jpeg", jpeg.data, jpeg.n);
    try_allocations(ctx, c, d, load_small, "png");
    try_allocations(ctx, c, d, load_small, "jpeg");
    try_reads(ctx, d, load_small, "jpeg");
    bp_bytes_free(ctx, data, n);
}

static bp_status save(bp_ctx *ctx, const char *path)
{
    const int64_t shape[2] = { 4, 5 };
    bp_tensor *t;
    BP_TRY(bp_tensor_new(ctx, BP_U8, 2, shape, &t));
    memset(bp_data(t), 9, 20);
    bp_status status = bp_image_save(t, path);
    bp_tensor_release(t);
    return status;
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    static disk d;
    bp_files table = disk_table(&d);
    bp_ctx *ctx = open_on_disk(&c, &table);
    round_trips(ctx);
    png_kinds(ctx);
    orientations(ctx);
    hostile(ctx, &d);
    hostile_jpegs(ctx, &d);
    resizing(ctx);
    damage(ctx, &c, &d);
    try_allocations(ctx, &c, &d, save, "saved");
    close_counting(ctx, &c);
    disk_free(&d);
    return report();
}
