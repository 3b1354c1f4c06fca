/* gzip.h - files read in order, plain or gzip'd, and what else zlib does for us. gzip.c is the only file that sees zlib. */
#ifndef BP_GZIP_H
#define BP_GZIP_H

#include "../base/buffer.h"
#include "../base/files.h"

/* A file read from front to back; inflated on the way when it begins like a gzip file. */
typedef struct bp_source bp_source;

bp_status bp_source_open(bp_ctx *ctx, const char *path, bp_source **source);
void bp_source_close(bp_source *source);
/* Up to n bytes; *got is less only at the end. BP_EIO, or BP_EFORMAT where the compressed data is damaged or cut off. */
bp_status bp_source_some(bp_source *source, void *buf, size_t n, size_t *got);
/* Exactly n bytes; BP_EFORMAT ("truncated") when the content ends sooner. */
bp_status bp_source_read(bp_source *source, void *buf, size_t n);
/* BP_EFORMAT unless the content ends here. */
bp_status bp_source_end(bp_source *source);
/* Offset within the (inflated) content, and a bound on what can still follow: the file's size, times deflate's highest ratio where it is
 * compressed. Whoever is told a length by the content checks it against this before allocating. */
int64_t bp_source_offset(const bp_source *source);
int64_t bp_source_bound(const bp_source *source);
/* The size of the file itself. */
int64_t bp_source_size(const bp_source *source);
/* "offset" or "inflated offset", for messages. */
const char *bp_source_unit(const bp_source *source);
/* Everything that follows, a zero byte after it; BP_ELIMIT beyond `limit` bytes. */
bp_status bp_source_rest(bp_source *source, size_t limit, bp_buffer *out);

/* CRC-32 as in PNG and gzip; start with crc 0. */
uint32_t bp_crc32(uint32_t crc, const void *data, size_t n);

/* Appends data compressed as a zlib stream (RFC 1950). */
bp_status bp_deflate(bp_ctx *ctx, const void *data, size_t n, bp_buffer *out);

#endif
