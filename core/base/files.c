/* files.c - see files.h. Interrupted calls are repeated and short ones continued here, whatever the table. */
#include "files.h"

#include "memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The most that is asked of one call; larger requests are cut by the kernel anyway. */
#define PIECE ((size_t)1 << 30)

/* What a function that the table lacks returns. */
static int refused(void)
{
    errno = ENOSYS;
    return -1;
}

/* ---- reading ------------------------------------------------------------------------------------------------------ */

bp_status bp_reader_open(bp_ctx *ctx, const char *path, bp_reader *r)
{
    const bp_files *f = ctx->files;
    *r = (bp_reader){ ctx, path, -1, 0, 0 };
    do r->fd = f->open_read ? f->open_read(f->ud, path) : refused();
    while (r->fd < 0 && errno == EINTR);
    if (r->fd < 0) return bp_fail(ctx, BP_EIO, "%s: cannot be opened for reading: %s", path, strerror(errno));
    r->size = f->size(f->ud, r->fd);
    if (r->size >= 0) return BP_OK;
    bp_fail(ctx, BP_EIO, "%s: its size cannot be read: %s", path, strerror(errno));
    bp_reader_close(r);
    return BP_EIO;
}

bp_status bp_reader_read(bp_reader *r, void *buf, size_t n)
{
    const bp_files *f = r->ctx->files;
    char *p = (char *)buf;
    while (n > 0) {
        ptrdiff_t got = f->read(f->ud, r->fd, p, n < PIECE ? n : PIECE);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return bp_fail(r->ctx, BP_EIO, "%s: reading failed at offset %lld: %s", r->path, (long long)r->offset, strerror(errno));
        if (got == 0)
            return bp_fail(r->ctx, BP_EFORMAT, "%s: truncated: ends at offset %lld, where %zu more bytes were expected", r->path,
                           (long long)r->offset, n);
        p += got;
        n -= (size_t)got;
        r->offset += got;
    }
    return BP_OK;
}

void bp_reader_close(bp_reader *r)
{
    if (r->fd >= 0) r->ctx->files->close(r->ctx->files->ud, r->fd);
    r->fd = -1;
}

bp_status bp_file_read(bp_ctx *ctx, const char *path, size_t limit, char **data, size_t *size)
{
    bp_reader r;
    BP_TRY(bp_reader_open(ctx, path, &r));
    size_t n = (size_t)r.size;
    bp_status status = BP_OK;
    char *text = NULL;
    if (limit && n > limit)
        status = bp_fail(ctx, BP_ELIMIT, "%s: has %zu bytes; at most %zu are read at once", path, n, limit);
    else if (!(text = (char *)bp_mem_new(ctx, n + 1)))
        status = BP_ENOMEM;
    else
        status = bp_reader_read(&r, text, n);
    bp_reader_close(&r);
    if (status != BP_OK) {
        bp_mem_free(ctx, text, n + 1);
        return status;
    }
    text[n] = '\0';
    *data = text;
    *size = n;
    return BP_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------------------ */

bp_status bp_writer_open(bp_ctx *ctx, const char *path, bp_writer *w)
{
    const bp_files *f = ctx->files;
    w->ctx = ctx;
    w->path = path;
    do w->fd = f->open_temp ? f->open_temp(f->ud, path, w->temp, sizeof w->temp) : refused();
    while (w->fd < 0 && errno == EINTR);
    if (w->fd < 0) return bp_fail(ctx, BP_EIO, "%s: cannot be written: %s", path, strerror(errno));
    return BP_OK;
}

/* Closes and removes the temp file. The reason of the failure that led here is in `why` and goes into the message. */
static bp_status writer_fail(bp_writer *w, const char *what, int why)
{
    bp_writer_abandon(w);
    return bp_fail(w->ctx, BP_EIO, "%s: %s: %s; what was there before is intact", w->path, what, strerror(why));
}

bp_status bp_writer_write(bp_writer *w, const void *buf, size_t n)
{
    const bp_files *f = w->ctx->files;
    const char *p = (const char *)buf;
    while (n > 0) {
        ptrdiff_t put = f->write(f->ud, w->fd, p, n < PIECE ? n : PIECE);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return writer_fail(w, "writing failed", put < 0 ? errno : ENOSPC);
        p += put;
        n -= (size_t)put;
    }
    return BP_OK;
}

bp_status bp_writer_commit(bp_writer *w)
{
    const bp_files *f = w->ctx->files;
    int result;
    do result = f->sync(f->ud, w->fd);
    while (result != 0 && errno == EINTR);
    if (result != 0) return writer_fail(w, "syncing failed", errno);
    result = f->close(f->ud, w->fd);
    w->fd = -1; /* closed even where close reports an error, which here would be one of a write that the sync had vouched for */
    if (result == 0 || errno == EINTR) result = f->rename(f->ud, w->temp, w->path);
    if (result != 0) {
        int why = errno;
        f->unlink(f->ud, w->temp);
        return writer_fail(w, "renaming the finished file failed", why);
    }
    do result = f->sync_folder(f->ud, w->path);
    while (result != 0 && errno == EINTR);
    if (result != 0)
        return bp_fail(w->ctx, BP_EIO,
                       "%s: is written whole, but its folder could not be synced: %s; after a power cut the old file may be back", w->path,
                       strerror(errno));
    return BP_OK;
}

void bp_writer_abandon(bp_writer *w)
{
    if (w->fd < 0) return;
    const bp_files *f = w->ctx->files;
    f->close(f->ud, w->fd);
    w->fd = -1;
    f->unlink(f->ud, w->temp);
}

bp_status bp_file_write(bp_ctx *ctx, const char *path, const void *data, size_t n)
{
    bp_writer w;
    BP_TRY(bp_writer_open(ctx, path, &w));
    BP_TRY(bp_writer_write(&w, data, n));
    return bp_writer_commit(&w);
}

/* ---- folders ------------------------------------------------------------------------------------------------------ */

static int add_entry(void *ud, const char *name, bool is_folder)
{
    bp_listing *l = (bp_listing *)ud;
    if (bp_mem_grow(l->ctx, &l->entries, sizeof *l->entries, &l->cap, l->count + 1) != BP_OK) return BP_ENOMEM;
    char *copy = bp_mem_string(l->ctx, name);
    if (!copy) return BP_ENOMEM;
    l->entries[l->count++] = (bp_entry){ copy, is_folder };
    return 0;
}

static int by_name(const void *a, const void *b) { return strcmp(((const bp_entry *)a)->name, ((const bp_entry *)b)->name); }

bp_status bp_folder_list(bp_ctx *ctx, const char *path, bp_listing *listing)
{
    const bp_files *f = ctx->files;
    *listing = (bp_listing){ NULL, 0, 0, ctx };
    int result = f->list ? f->list(f->ud, path, add_entry, listing) : refused();
    if (result == 0) {
        if (listing->count) qsort(listing->entries, (size_t)listing->count, sizeof *listing->entries, by_name);
        return BP_OK;
    }
    int why = errno;
    bp_listing_free(listing);
    return result == BP_ENOMEM ? BP_ENOMEM : bp_fail(ctx, BP_EIO, "%s: cannot be listed: %s", path, strerror(why));
}

void bp_listing_free(bp_listing *l)
{
    for (int64_t i = 0; i < l->count; i++) bp_mem_free(l->ctx, l->entries[i].name, strlen(l->entries[i].name) + 1);
    bp_mem_free(l->ctx, l->entries, (size_t)l->cap * sizeof *l->entries);
    *l = (bp_listing){ NULL, 0, 0, l->ctx };
}

static int make_folder(bp_ctx *ctx, const char *path)
{
    return ctx->files->make_folder ? ctx->files->make_folder(ctx->files->ud, path) : refused();
}

bp_status bp_folder_make(bp_ctx *ctx, const char *path)
{
    if (make_folder(ctx, path) == 0 || errno == EEXIST) return BP_OK;
    const char *slash = strrchr(path, '/');
    while (slash > path && slash[-1] == '/') slash--;
    if (errno != ENOENT || !slash || slash == path) return bp_fail(ctx, BP_EIO, "%s: cannot be made: %s", path, strerror(errno));
    char *above = bp_mem_string(ctx, path);
    if (!above) return BP_ENOMEM;
    above[slash - path] = '\0';
    bp_status status = bp_folder_make(ctx, above);
    bp_mem_free(ctx, above, strlen(path) + 1);
    BP_TRY(status);
    if (make_folder(ctx, path) == 0 || errno == EEXIST) return BP_OK;
    return bp_fail(ctx, BP_EIO, "%s: cannot be made: %s", path, strerror(errno));
}

bp_status bp_file_remove(bp_ctx *ctx, const char *path)
{
    if ((ctx->files->unlink ? ctx->files->unlink(ctx->files->ud, path) : refused()) == 0) return BP_OK;
    return bp_fail(ctx, BP_EIO, "%s: cannot be removed: %s", path, strerror(errno));
}

bp_status bp_file_rename(bp_ctx *ctx, const char *from, const char *to)
{
    const bp_files *f = ctx->files;
    if ((f->rename ? f->rename(f->ud, from, to) : refused()) != 0)
        return bp_fail(ctx, BP_EIO, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
    int result;
    do result = f->sync_folder(f->ud, to);
    while (result != 0 && errno == EINTR);
    if (result == 0) return BP_OK;
    return bp_fail(ctx, BP_EIO, "%s: is renamed to %s, but the folder could not be synced: %s", from, to, strerror(errno));
}
