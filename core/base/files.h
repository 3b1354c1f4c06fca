/* files.h - reading and writing through the context's file table. A file that is written is either the old one or the whole new one. */
#ifndef BP_FILES_H
#define BP_FILES_H

#include "context.h"

extern const bp_files bp_files_posix;

/* Reads a whole file. BP_EIO with path and reason; BP_ELIMIT when it is larger than `limit` bytes (0: no limit).
 * Free with bp_mem_free(ctx, *data, *size + 1); one zero byte follows the data. */
bp_status bp_file_read(bp_ctx *ctx, const char *path, size_t limit, char **data, size_t *size);

/* An open file for reading, at most one per object. */
typedef struct bp_reader {
    bp_ctx *ctx;
    const char *path; /* borrowed, for messages */
    int fd;
    int64_t size, offset;
} bp_reader;
bp_status bp_reader_open(bp_ctx *ctx, const char *path, bp_reader *r);
/* Exactly n bytes or BP_EIO / BP_EFORMAT ("truncated"), naming path and offset. */
bp_status bp_reader_read(bp_reader *r, void *buf, size_t n);
/* Harmless when closed already, or never opened and fd is -1. */
void bp_reader_close(bp_reader *r);

/* A file being written: temp file in the same folder, then fsync, rename, fsync of the folder. It keeps the mode of the file it replaces; a
 * symbolic link is itself replaced. */
typedef struct bp_writer {
    bp_ctx *ctx;
    const char *path; /* borrowed */
    int fd;
    char temp[4096];
} bp_writer;
bp_status bp_writer_open(bp_ctx *ctx, const char *path, bp_writer *w);
bp_status bp_writer_write(bp_writer *w, const void *buf, size_t n);
/* Makes it durable and visible under its name. On failure the old file is intact and the temp file gone, except where the very last step
 * fails, the fsync of the folder: then the whole new file is in place but a power cut may bring the old one back; the message says so. */
bp_status bp_writer_commit(bp_writer *w);
/* Drops it; harmless after commit. */
void bp_writer_abandon(bp_writer *w);

/* Writes n bytes to path, atomically and durably. */
bp_status bp_file_write(bp_ctx *ctx, const char *path, const void *data, size_t n);

/* The entries of a folder, sorted by bytes. */
typedef struct bp_entry {
    char *name;
    bool is_folder;
} bp_entry;
typedef struct bp_listing {
    bp_entry *entries;
    int64_t count, cap;
    bp_ctx *ctx;
} bp_listing;
bp_status bp_folder_list(bp_ctx *ctx, const char *path, bp_listing *listing);
void bp_listing_free(bp_listing *listing);
/* Makes a folder and those above it that are missing; one that is there already is fine. */
bp_status bp_folder_make(bp_ctx *ctx, const char *path);
/* Removes a file. */
bp_status bp_file_remove(bp_ctx *ctx, const char *path);
/* Gives a file another name, in the same or another folder of the file system, and replaces what had that name. */
bp_status bp_file_rename(bp_ctx *ctx, const char *from, const char *to);

#endif
