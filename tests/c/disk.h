/* disk.h - a disk in memory, behind a context's file table, that counts operations and can refuse any of them; and the trials that every
 * reader must stand: cut short, bits turned, memory or disk failing at the nth request. */
#ifndef DISK_H
#define DISK_H

#include "../../core/base/files.h"
#include "../../core/base/memory.h"
#include "check.h"

#include <errno.h>

enum { DISK_FILES = 16 };

typedef struct disk {
    struct {
        char name[200];
        char *data;
        size_t n;
        bool used;
    } files[DISK_FILES];
    struct {
        int file;
        size_t at;
        bool open;
    } fds[DISK_FILES];
    long long calls, fail_at; /* fail_at 0: never */
    int lasting, error;       /* the errno of a refusal */
    bool trickle;             /* one byte at a time, and every second call is interrupted */
    long long synced;         /* call number of the last fsync of a file, of the last rename, of the last fsync of the folder */
    long long renamed, folder_synced;
} disk;

static bool disk_refuses(disk *d)
{
    d->calls++;
    if (!d->fail_at || (d->lasting ? d->calls < d->fail_at : d->calls != d->fail_at)) return false;
    errno = d->error ? d->error : EIO;
    return true;
}

static int disk_find(disk *d, const char *name)
{
    for (int i = 0; i < DISK_FILES; i++)
        if (d->files[i].used && strcmp(d->files[i].name, name) == 0) return i;
    return -1;
}

static int disk_fd(disk *d, int file)
{
    for (int k = 0; k < DISK_FILES; k++)
        if (!d->fds[k].open) {
            d->fds[k].file = file;
            d->fds[k].at = 0;
            d->fds[k].open = true;
            return k;
        }
    errno = EMFILE;
    return -1;
}

static void disk_set(disk *d, const char *name, const void *data, size_t n)
{
    int i = disk_find(d, name);
    for (int k = 0; i < 0 && k < DISK_FILES; k++)
        if (!d->files[k].used) i = k;
    if (i < 0) exit(2);
    free(d->files[i].data);
    snprintf(d->files[i].name, sizeof d->files[i].name, "%s", name);
    d->files[i].data = (char *)malloc(n + 1);
    if (n) memcpy(d->files[i].data, data, n);
    d->files[i].n = n;
    d->files[i].used = true;
}

static int disk_open_read(void *ud, const char *path)
{
    disk *d = (disk *)ud;
    int i = disk_find(d, path);
    if (disk_refuses(d)) return -1;
    if (i >= 0) return disk_fd(d, i);
    errno = ENOENT;
    return -1;
}

static int disk_open_temp(void *ud, const char *path, char *name, size_t name_size)
{
    disk *d = (disk *)ud;
    if (disk_refuses(d)) return -1;
    snprintf(name, name_size, "%s.tmp", path);
    disk_set(d, name, "", 0);
    return disk_fd(d, disk_find(d, name));
}

/* Whether this call is to be interrupted. */
static bool disk_interrupts(disk *d)
{
    if (!d->trickle || d->calls % 2) return false;
    errno = EINTR;
    return true;
}

static ptrdiff_t disk_read(void *ud, int fd, void *buf, size_t n)
{
    disk *d = (disk *)ud;
    if (disk_refuses(d) || disk_interrupts(d)) return -1;
    size_t left = d->files[d->fds[fd].file].n - d->fds[fd].at;
    if (n > left) n = left;
    if (d->trickle && n > 1) n = 1;
    memcpy(buf, d->files[d->fds[fd].file].data + d->fds[fd].at, n);
    d->fds[fd].at += n;
    return (ptrdiff_t)n;
}

static ptrdiff_t disk_write(void *ud, int fd, const void *buf, size_t n)
{
    disk *d = (disk *)ud;
    if (disk_refuses(d) || disk_interrupts(d)) return -1;
    if (d->trickle && n > 1) n = 1;
    int i = d->fds[fd].file;
    d->files[i].data = (char *)realloc(d->files[i].data, d->files[i].n + n + 1);
    memcpy(d->files[i].data + d->files[i].n, buf, n);
    d->files[i].n += n;
    return (ptrdiff_t)n;
}

static int64_t disk_size(void *ud, int fd)
{
    disk *d = (disk *)ud;
    return disk_refuses(d) ? -1 : (int64_t)d->files[d->fds[fd].file].n;
}

static int disk_sync(void *ud, int fd)
{
    disk *d = (disk *)ud;
    (void)fd;
    if (disk_refuses(d) || disk_interrupts(d)) return -1;
    d->synced = d->calls;
    return 0;
}

/* A close that reports an error has closed all the same, as on Linux. */
static int disk_close(void *ud, int fd)
{
    disk *d = (disk *)ud;
    d->fds[fd].open = false;
    return disk_refuses(d) ? -1 : 0;
}

static int disk_unlink(void *ud, const char *path)
{
    disk *d = (disk *)ud;
    int i = disk_find(d, path);
    if (i < 0) return -1;
    free(d->files[i].data);
    d->files[i].data = NULL;
    d->files[i].used = false;
    return 0;
}

static int disk_rename(void *ud, const char *from, const char *to)
{
    disk *d = (disk *)ud;
    if (disk_refuses(d)) return -1;
    disk_unlink(d, to);
    snprintf(d->files[disk_find(d, from)].name, sizeof d->files[0].name, "%s", to);
    d->renamed = d->calls;
    return 0;
}

static int disk_sync_folder(void *ud, const char *path)
{
    disk *d = (disk *)ud;
    (void)path;
    if (disk_refuses(d) || disk_interrupts(d)) return -1;
    d->folder_synced = d->calls;
    return 0;
}

static int disk_list(void *ud, const char *path, bp_list_fn *each, void *each_ud)
{
    disk *d = (disk *)ud;
    (void)path;
    if (disk_refuses(d)) return -1;
    int result = 0;
    for (int i = 0; i < DISK_FILES && result == 0; i++)
        if (d->files[i].used) result = each(each_ud, d->files[i].name, false);
    return result;
}

/* There are no folders on this disk; making one succeeds. */
static int disk_make_folder(void *ud, const char *path)
{
    (void)path;
    return disk_refuses((disk *)ud) ? -1 : 0;
}

static inline bp_files disk_table(disk *d)
{
    bp_files f = { d,          disk_open_read, disk_open_temp, disk_read,        disk_write, disk_size,       disk_sync,
                   disk_close, disk_rename,    disk_unlink,    disk_sync_folder, disk_list,  disk_make_folder };
    return f;
}

static inline bp_ctx *open_on_disk(counting *c, bp_files *table)
{
    bp_config config = BP_CONFIG_INIT;
    bp_ctx *ctx = NULL;
    config.alloc = counting_alloc;
    config.alloc_ud = c;
    config.files = table;
    config.threads = 1;
    if (bp_open(&config, &ctx) != BP_OK) exit(2);
    return ctx;
}

static inline int disk_open_fds(const disk *d)
{
    int n = 0;
    for (int k = 0; k < DISK_FILES; k++) n += d->fds[k].open;
    return n;
}

static inline int disk_files(const disk *d)
{
    int n = 0;
    for (int k = 0; k < DISK_FILES; k++) n += d->files[k].used;
    return n;
}

static inline void disk_free(disk *d)
{
    for (int k = 0; k < DISK_FILES; k++) free(d->files[k].data);
}

/* ---- trials ------------------------------------------------------------------------------------------------------- */

/* Loads the file of that name and lets go of what came out. */
typedef bp_status load_fn(bp_ctx *ctx, const char *path);

static size_t live(bp_ctx *ctx)
{
    bp_block_flush(ctx);
    return bp_memory_used(ctx);
}

static bool is_refusal(bp_status s) { return s == BP_EFORMAT || s == BP_ELIMIT; }

/* One damaged file: refused (or, with may_load, taken), without a leak, the message naming it. Returns whether it was refused. */
static bool try_damaged(bp_ctx *ctx, disk *d, load_fn *load, const void *data, size_t n, const char *what, size_t where, bool may_load)
{
    size_t before = live(ctx);
    disk_set(d, "damaged", data, n);
    bp_status status = load(ctx, "damaged");
    CHECK(is_refusal(status) || (may_load && status == BP_OK), "%s %zu: %s: %s", what, where, bp_status_name(status), bp_message(ctx));
    if (status != BP_OK)
        CHECK(strncmp(bp_message(ctx), "damaged", 7) == 0, "%s %zu: message does not name the file: %s", what, where, bp_message(ctx));
    CHECK(live(ctx) == before && disk_open_fds(d) == 0, "%s %zu: %zu bytes leaked, %d files open", what, where, live(ctx) - before,
          disk_open_fds(d));
    return status != BP_OK;
}

/* Every proper beginning of the file is refused. */
static inline void try_truncations(bp_ctx *ctx, disk *d, load_fn *load, const char *data, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        char *exact = (char *)malloc(k + 1); /* of its own, so that a sanitizer sees a read past the end */
        memcpy(exact, data, k);
        try_damaged(ctx, d, load, exact, k, "truncated at", k, false);
        free(exact);
    }
}

/* Every single bit turned: never a crash or a leak. Returns how many went unnoticed. */
static inline size_t try_flips(bp_ctx *ctx, disk *d, load_fn *load, const char *data, size_t n)
{
    size_t unnoticed = 0;
    char *copy = (char *)malloc(n);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        memcpy(copy, data, n);
        copy[bit / 8] = (char)(copy[bit / 8] ^ (1 << bit % 8));
        unnoticed += !try_damaged(ctx, d, load, copy, n, "bit", bit, true);
    }
    free(copy);
    return unnoticed;
}

/* The nth allocation fails, for every n, once and lastingly: BP_ENOMEM, no leak, and the context works afterwards. */
static inline void try_allocations(bp_ctx *ctx, counting *c, disk *d, load_fn *load, const char *path)
{
    for (c->lasting = 0; c->lasting <= 1; c->lasting++)
        for (long long n = 1;; n++) {
            size_t before = live(ctx);
            c->calls = 0;
            c->fail_at = n;
            bp_status status = load(ctx, path);
            c->fail_at = 0;
            CHECK(status == BP_ENOMEM || status == BP_OK, "allocation %lld: %s: %s", n, bp_status_name(status), bp_message(ctx));
            CHECK(live(ctx) == before && disk_open_fds(d) == 0, "allocation %lld: %zu bytes leaked", n, live(ctx) - before);
            if (status == BP_OK && c->calls < n) break;
        }
    c->lasting = 0;
}

/* The nth operation on the disk fails, for every n: BP_EIO naming the file, nothing left open. Also works one byte at a time. */
static inline void try_reads(bp_ctx *ctx, disk *d, load_fn *load, const char *path)
{
    for (long long n = 1;; n++) {
        size_t before = live(ctx);
        d->calls = 0;
        d->fail_at = n;
        bp_status status = load(ctx, path);
        d->fail_at = 0;
        bool reached = d->calls >= n;
        CHECK(status == BP_OK || (reached && status == BP_EIO && strncmp(bp_message(ctx), path, strlen(path)) == 0),
              "operation %lld: %s: %s", n, bp_status_name(status), bp_message(ctx));
        CHECK(live(ctx) == before && disk_open_fds(d) == 0, "operation %lld: %d files open", n, disk_open_fds(d));
        if (!reached) break;
    }
    d->trickle = true;
    CHECK(load(ctx, path) == BP_OK, "byte by byte: %s", bp_message(ctx));
    d->trickle = false;
}

#endif
