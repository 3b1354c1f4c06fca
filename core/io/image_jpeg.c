/* image_jpeg.c - walks over the markers of a JPEG (ITU-T T.81, annex B) and reads the orientation from its Exif segment. */
#include "image.h"

#include <string.h>

/* A progressive file may contain one scan after the other, each of which costs a pass over the whole picture. */
enum { MAX_SCANS = 200 };

typedef struct walker {
    bp_ctx *ctx;
    const char *where;
    const unsigned char *data;
    size_t n, at; /* at: the segment's marker */
    bp_image_info *info;
    const unsigned char *components; /* three bytes for each: identifier, sampling factors, quantization table */
    int n_components, scans;
    bool progressive;
    unsigned huffman[2], quantizers; /* bit k: table k is defined; huffman[0] for DC, [1] for AC */
} walker;

static bp_status damaged(const walker *w, const char *what)
{
    return bp_fail(w->ctx, BP_EFORMAT, "%s: damaged JPEG: segment ff%02x at offset %zu: %s", w->where, w->data[w->at + 1], w->at, what);
}

static unsigned be16(const unsigned char *p) { return (unsigned)p[0] << 8 | p[1]; }

/* p, n: what follows the segment's length. */
static bp_status frame(walker *w, const unsigned char *p, size_t n)
{
    if (w->n_components) return damaged(w, "a second frame header");
    if (n < 6 || n != 6 + 3 * (size_t)p[5]) return damaged(w, "the frame header has another length than its components need");
    if (p[0] != 8) return damaged(w, "the samples have not 8 bits; save the picture as PNG");
    if (p[5] != 1 && p[5] != 3 && p[5] != 4) return damaged(w, "expected 1, 3 or 4 colour components");
    for (int i = 0; i < p[5]; i++) {
        const unsigned char *c = p + 6 + 3 * i;
        if (c[1] >> 4 < 1 || c[1] >> 4 > 4 || (c[1] & 15) < 1 || (c[1] & 15) > 4 || c[2] > 3)
            return damaged(w, "sampling factors must be 1 to 4, quantization tables 0 to 3");
    }
    w->components = p + 6;
    w->n_components = p[5];
    w->progressive = w->data[w->at + 1] == 0xc2;
    w->info->height = be16(p + 1);
    w->info->width = be16(p + 3);
    return bp_image_check_size(w->ctx, w->where, w->info->width, w->info->height);
}

/* Each table: class and number, how many codes there are of each length from 1 to 16, then the symbols. Decoders have room for 256 symbols.
 */
static bp_status huffman_tables(walker *w, const unsigned char *p, size_t n)
{
    while (n > 0) {
        size_t symbols = 0, codes = 0; /* codes: how many nodes of this depth of the tree are taken */
        if (n < 17) return damaged(w, "a Huffman table is cut short");
        if (p[0] >> 4 > 1 || (p[0] & 15) > 3) return damaged(w, "Huffman tables have class 0 or 1 and number 0 to 3");
        for (int k = 1; k <= 16; k++) {
            symbols += p[k];
            codes = codes * 2 + p[k];
            if (codes > (size_t)1 << k) return damaged(w, "a Huffman table gives out more codes than there are");
        }
        if (symbols > 256) return damaged(w, "a Huffman table has more than 256 symbols");
        if (n < 17 + symbols) return damaged(w, "a Huffman table is cut short");
        w->huffman[p[0] >> 4] |= 1u << (p[0] & 15);
        p += 17 + symbols;
        n -= 17 + symbols;
    }
    return BP_OK;
}

static bp_status quantizer_tables(walker *w, const unsigned char *p, size_t n)
{
    while (n > 0) {
        size_t size = p[0] >> 4 ? 129 : 65;
        if (p[0] >> 4 > 1 || (p[0] & 15) > 3 || n < size) return damaged(w, "a quantization table is cut short or has an unknown kind");
        w->quantizers |= 1u << (p[0] & 15);
        p += size;
        n -= size;
    }
    return BP_OK;
}

/* Every table that a scan speaks of must have been defined. p: number of components; for each its identifier and two table numbers; first
 * and last coefficient; bit positions. */
static bp_status scan_header(walker *w, const unsigned char *p, size_t n)
{
    if (n < 1 || p[0] < 1 || p[0] > w->n_components || n != 4 + 2 * (size_t)p[0]) return damaged(w, "the scan header has a wrong length");
    const unsigned char *range = p + 1 + 2 * p[0];
    bool dc = !w->progressive || (range[0] == 0 && range[2] >> 4 == 0), ac = !w->progressive || range[0] > 0;
    for (int i = 0; i < p[0]; i++) {
        const unsigned char *c = p + 1 + 2 * i;
        int k = 0;
        while (k < w->n_components && w->components[3 * k] != c[0]) k++;
        if (k == w->n_components) return damaged(w, "the scan has a component that the frame does not have");
        if (c[1] >> 4 > 3 || (c[1] & 15) > 3 || (dc && !(w->huffman[0] >> (c[1] >> 4) & 1)) ||
            (ac && !(w->huffman[1] >> (c[1] & 15) & 1)) || !(w->quantizers >> w->components[3 * k + 2] & 1))
            return damaged(w, "the scan uses a Huffman or quantization table that was not defined");
    }
    return BP_OK;
}

/* After the header come the coded pixels, in which ff is followed by 00 or a restart marker. Moves on to the next real marker. */
static bp_status scan(walker *w, const unsigned char *p, size_t n)
{
    if (!w->n_components) return damaged(w, "pixels before the frame header");
    BP_TRY(scan_header(w, p, n));
    if (++w->scans > MAX_SCANS)
        return bp_fail(w->ctx, BP_ELIMIT, "%s: JPEG with more than %d scans, at offset %zu; save the picture anew", w->where, MAX_SCANS,
                       w->at);
    size_t at = (size_t)(p - w->data) + n;
    for (;; at++) {
        const unsigned char *ff = at < w->n ? (const unsigned char *)memchr(w->data + at, 0xff, w->n - at) : NULL;
        if (!ff || ff + 1 == w->data + w->n)
            return bp_fail(w->ctx, BP_EFORMAT, "%s: truncated JPEG: ends at offset %zu within the pixels; expected the marker ffd9",
                           w->where, w->n);
        at = (size_t)(ff - w->data);
        unsigned char next = ff[1];
        if (next == 0 || (next >= 0xd0 && next <= 0xd7)) {
            at++;
        } else if (next != 0xff) {
            w->at = at;
            return BP_OK;
        }
    }
}

/* Exif is a small TIFF file: byte order, offset of a list of 12-byte entries {tag, type, count, value}. 0x0112 is the orientation. What is
 * not understood is left alone: it does not concern the pixels. */
static void exif(walker *w, const unsigned char *p, size_t n)
{
    if (n < 14 || memcmp(p, "Exif\0\0", 6) != 0) return;
    p += 6, n -= 6;
    bool little = p[0] == 'I';
#define U16(q) (little ? (unsigned)(q)[1] << 8 | (q)[0] : be16(q))
    size_t at = little ? (size_t)p[7] << 24 | (size_t)p[6] << 16 | U16(p + 4) : (size_t)be16(p + 4) << 16 | be16(p + 6);
    if (at > n || n - at < 2) return;
    size_t count = U16(p + at);
    for (at += 2; count > 0 && n - at >= 12; count--, at += 12)
        if (U16(p + at) == 0x0112) {
            unsigned turn = U16(p + at + 8);
            if (turn >= 1 && turn <= 8) w->info->orientation = (int)turn;
            return;
        }
#undef U16
}

bp_status bp_jpeg_check(bp_ctx *ctx, const char *where, const unsigned char *data, size_t n, bp_image_info *info)
{
    walker w = { ctx, where, data, n, 2, info, NULL, 0, 0, false, { 0, 0 }, 0 };
    info->format = BP_IMAGE_JPEG;
    for (;;) {
        if (n - w.at < 2) return bp_fail(ctx, BP_EFORMAT, "%s: truncated JPEG: ends at offset %zu; expected the marker ffd9", where, n);
        if (data[w.at] != 0xff)
            return bp_fail(ctx, BP_EFORMAT, "%s: damaged JPEG: found byte %02x at offset %zu; expected a marker, ff..", where, data[w.at],
                           w.at);
        unsigned char kind = data[w.at + 1];
        if (kind == 0xff) { /* fill bytes may precede a marker */
            w.at++;
            continue;
        }
        if (kind == 0xd9) break;
        if (kind == 0 || kind == 1 || (kind >= 0xd0 && kind <= 0xd8)) return damaged(&w, "a marker that cannot stand here");
        if (n - w.at < 4 || be16(data + w.at + 2) < 2 || be16(data + w.at + 2) > n - w.at - 2)
            return bp_fail(ctx, BP_EFORMAT, "%s: truncated JPEG: the segment at offset %zu does not fit into the %zu bytes of the file",
                           where, w.at, n);
        const unsigned char *p = data + w.at + 4;
        size_t length = be16(data + w.at + 2) - 2u;
        if (kind == 0xda) {
            BP_TRY(scan(&w, p, length));
            continue;
        }
        if (kind == 0xc0 || kind == 0xc1 || kind == 0xc2)
            BP_TRY(frame(&w, p, length));
        else if (kind == 0xc4)
            BP_TRY(huffman_tables(&w, p, length));
        else if (kind == 0xdb)
            BP_TRY(quantizer_tables(&w, p, length));
        else if (kind >= 0xc3 && kind <= 0xcf && kind != 0xc8)
            return damaged(&w, "lossless, hierarchical or arithmetic coding is not supported; save the picture as PNG");
        else if (kind == 0xe1)
            exif(&w, p, length);
        else if (kind == 0xdd && length != 2)
            return damaged(&w, "the restart interval takes 2 bytes");
        w.at += length + 4;
    }
    /* A block takes a bit at least, and whatever the sampling factors there is a block for every 128 pixels. */
    if (w.scans) return bp_image_check_bytes(ctx, where, info, n, (uint64_t)(info->width * info->height) / (128 * 8));
    return bp_fail(ctx, BP_EFORMAT, "%s: JPEG without pixels: the end comes at offset %zu", where, w.at);
}
