/* gzip.c - see gzip.h. zlib allocates through the context. */
#include "gzip.h"

#include <limits.h>
#include <string.h>
#include <zlib.h>

/* Deflate cannot expand more than this: 258 bytes of content per 2 bits. */
#define DEFLATE_RATIO 1032
#define CHUNK 65536

struct bp_source {
    bp_reader file;
    int64_t offset;          /* in the content */
    bool inflates, finished; /* finished: the last member of the gzip file has ended */
    z_stream z;
    unsigned char in[CHUNK];
};

/* The size of a block stands in front of it, since zlib does not tell it when freeing. */
static void *z_alloc(void *ud, uInt items, uInt size)
{
    size_t n = (size_t)items * size + 16;
    char *p = (char *)bp_mem_new((bp_ctx *)ud, n);
    if (!p) return NULL;
    memcpy(p, &n, sizeof n);
    return p + 16;
}

static void z_free(void *ud, void *block)
{
    size_t n;
    char *p = (char *)block - 16;
    memcpy(&n, p, sizeof n);
    bp_mem_free((bp_ctx *)ud, p, n);
}

static bp_status fill(bp_source *s)
{
    int64_t left = s->file.size - s->file.offset;
    size_t n = left < CHUNK ? (size_t)left : CHUNK;
    BP_TRY(bp_reader_read(&s->file, s->in, n));
    s->z.next_in = s->in;
    s->z.avail_in = (uInt)n;
    return BP_OK;
}

bp_status bp_source_open(bp_ctx *ctx, const char *path, bp_source **out)
{
    bp_source *s = (bp_source *)bp_mem_zeroed(ctx, sizeof *s);
    *out = NULL;
    if (!s) return BP_ENOMEM;
    s->z.zalloc = z_alloc;
    s->z.zfree = z_free;
    s->z.opaque = ctx;
    bp_status status = bp_reader_open(ctx, path, &s->file);
    if (status == BP_OK) status = fill(s);
    if (status == BP_OK && s->z.avail_in >= 2 && s->in[0] == 0x1f && s->in[1] == 0x8b) {
        /* 16 + 15: gzip framing with its checksum, the largest window */
        if (inflateInit2(&s->z, 16 + 15) == Z_OK)
            s->inflates = true;
        else
            status = bp_fail(ctx, BP_ENOMEM, "%s: no memory to inflate it", path);
    }
    if (status == BP_OK)
        *out = s;
    else
        bp_source_close(s);
    return status;
}

void bp_source_close(bp_source *s)
{
    if (!s) return;
    if (s->inflates) inflateEnd(&s->z);
    bp_reader_close(&s->file);
    bp_mem_free(s->file.ctx, s, sizeof *s);
}

/* Inflates into n bytes or fewer. A gzip file may consist of several members one after the other. */
static bp_status inflate_some(bp_source *s, unsigned char *buf, size_t n, size_t *got)
{
    *got = 0;
    while (*got < n && !s->finished) {
        if (s->z.avail_in == 0) {
            if (s->file.offset == s->file.size)
                return bp_fail(s->file.ctx, BP_EFORMAT, "%s: truncated: the compressed data ends at offset %lld in the middle of a stream",
                               s->file.path, (long long)s->file.offset);
            BP_TRY(fill(s));
        }
        size_t room = n - *got < INT_MAX ? n - *got : INT_MAX;
        s->z.next_out = buf + *got;
        s->z.avail_out = (uInt)room;
        int result = inflate(&s->z, Z_NO_FLUSH);
        *got += room - s->z.avail_out;
        long long at = (long long)(s->file.offset - s->z.avail_in);
        if (result == Z_STREAM_END) {
            if (s->z.avail_in == 0 && s->file.offset < s->file.size) BP_TRY(fill(s));
            if (s->z.avail_in == 0)
                s->finished = true;
            else if (inflateReset(&s->z) != Z_OK)
                return bp_fail(s->file.ctx, BP_EFORMAT, "%s: damaged at offset %lld: the next gzip member cannot begin", s->file.path, at);
        } else if (result == Z_MEM_ERROR) {
            return BP_ENOMEM; /* the message is bp_mem_new's */
        } else if (result != Z_OK && result != Z_BUF_ERROR) {
            return bp_fail(s->file.ctx, BP_EFORMAT, "%s: damaged: gzip data at offset %lld: %s; fetch or write the file anew", s->file.path,
                           at, s->z.msg ? s->z.msg : "not a gzip stream");
        }
    }
    return BP_OK;
}

bp_status bp_source_some(bp_source *s, void *buf, size_t n, size_t *got)
{
    bp_status status = BP_OK;
    if (s->inflates) {
        status = inflate_some(s, (unsigned char *)buf, n, got);
    } else {
        size_t early = s->z.avail_in < n ? s->z.avail_in : n;
        int64_t left = s->file.size - s->file.offset;
        size_t late = (int64_t)(n - early) < left ? n - early : (size_t)left;
        memcpy(buf, s->z.next_in, early);
        s->z.next_in += early;
        s->z.avail_in -= (uInt)early;
        status = bp_reader_read(&s->file, (char *)buf + early, late);
        *got = early + late;
    }
    s->offset += (int64_t)*got;
    return status;
}

bp_status bp_source_read(bp_source *s, void *buf, size_t n)
{
    size_t got;
    BP_TRY(bp_source_some(s, buf, n, &got));
    if (got == n) return BP_OK;
    return bp_fail(s->file.ctx, BP_EFORMAT, "%s: truncated: ends at %s %lld, where %zu more bytes were expected", s->file.path,
                   bp_source_unit(s), (long long)s->offset, n - got);
}

bp_status bp_source_end(bp_source *s)
{
    char one;
    size_t got;
    int64_t at = s->offset;
    BP_TRY(bp_source_some(s, &one, 1, &got));
    if (got == 0) return BP_OK;
    return bp_fail(s->file.ctx, BP_EFORMAT, "%s: should end at %s %lld, but more bytes follow", s->file.path, bp_source_unit(s),
                   (long long)at);
}

int64_t bp_source_offset(const bp_source *s) { return s->offset; }

int64_t bp_source_bound(const bp_source *s)
{
    int64_t left = s->file.size - s->file.offset + s->z.avail_in;
    if (!s->inflates) return left;
    /* what lies in zlib's window at this moment comes on top */
    return left > INT64_MAX / DEFLATE_RATIO - CHUNK ? INT64_MAX : (left + CHUNK) * DEFLATE_RATIO;
}

int64_t bp_source_size(const bp_source *s) { return s->file.size; }

const char *bp_source_unit(const bp_source *s) { return s->inflates ? "inflated offset" : "offset"; }

bp_status bp_source_rest(bp_source *s, size_t limit, bp_buffer *out)
{
    int64_t bound = bp_source_bound(s);
    if (!s->inflates && (uint64_t)bound > limit)
        return bp_fail(s->file.ctx, BP_ELIMIT, "%s: has %lld bytes; at most %zu are read at once", s->file.path, (long long)s->file.size,
                       limit);
    size_t got, step = s->inflates ? (size_t)1 << 20 : (size_t)bound;
    do {
        char *at = bp_buffer_extend(out, step + 1);
        if (!at) return BP_ENOMEM;
        BP_TRY(bp_source_some(s, at, step, &got));
        out->size -= step + 1 - got;
        if (out->size > limit)
            return bp_fail(s->file.ctx, BP_ELIMIT, "%s: inflates to more than %zu bytes, of which no more are read at once", s->file.path,
                           limit);
    } while (got == step && s->inflates);
    out->data[out->size] = '\0';
    return BP_OK;
}

uint32_t bp_crc32(uint32_t crc, const void *data, size_t n) { return (uint32_t)crc32_z(crc, (const unsigned char *)data, n); }

bp_status bp_deflate(bp_ctx *ctx, const void *data, size_t n, bp_buffer *out)
{
    z_stream z;
    memset(&z, 0, sizeof z);
    z.zalloc = z_alloc;
    z.zfree = z_free;
    z.opaque = ctx;
    if (deflateInit(&z, Z_DEFAULT_COMPRESSION) != Z_OK) return bp_fail(ctx, BP_ENOMEM, "no memory to compress %zu bytes", n);
    const unsigned char *from = (const unsigned char *)data;
    int result = Z_OK;
    while (result == Z_OK) {
        uInt piece = n < INT_MAX ? (uInt)n : INT_MAX;
        unsigned char *room = (unsigned char *)bp_buffer_extend(out, CHUNK);
        if (!room) break;
        z.next_in = (Bytef *)from;
        z.avail_in = piece;
        z.next_out = room;
        z.avail_out = CHUNK;
        result = deflate(&z, piece == n ? Z_FINISH : Z_NO_FLUSH);
        from += piece - z.avail_in;
        n -= piece - z.avail_in;
        out->size -= z.avail_out;
    }
    deflateEnd(&z);
    return out->status;
}
