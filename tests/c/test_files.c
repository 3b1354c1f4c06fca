/* test_files.c - a file that is written is the old one or the whole new one, whatever fails; nothing is left behind. */
#define _GNU_SOURCE
#include "disk.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static const char old_text[] = "the old content", new_text[] = "what is new";

static bool holds(disk *d, const char *name, const char *text)
{
    int i = disk_find(d, name);
    return i >= 0 && d->files[i].n == strlen(text) && memcmp(d->files[i].data, text, strlen(text)) == 0;
}

/* Every operation of a save refused once, and lastingly. */
static void failing_saves(bp_ctx *ctx, disk *d)
{
    for (d->lasting = 0; d->lasting <= 1; d->lasting++)
        for (long long n = 1;; n++) {
            disk_set(d, "file", old_text, strlen(old_text));
            d->renamed = d->calls = 0;
            d->fail_at = n;
            d->error = ENOSPC;
            bp_status status = bp_file_write(ctx, "file", new_text, strlen(new_text));
            d->fail_at = 0;
            if (d->calls < n) {
                CHECK(status == BP_OK && holds(d, "file", new_text), "save without failure: %s", bp_message(ctx));
                break;
            }
            CHECK(status == BP_EIO && strstr(bp_message(ctx), "file: ") && strstr(bp_message(ctx), strerror(ENOSPC)), "operation %lld: %s",
                  n, bp_message(ctx));
            CHECK(holds(d, "file", d->renamed ? new_text : old_text), "operation %lld: neither old nor new", n);
            CHECK(disk_files(d) == 1 && disk_open_fds(d) == 0, "operation %lld: %d files, %d open", n, disk_files(d), disk_open_fds(d));
        }
}

static void order_and_interruptions(bp_ctx *ctx, disk *d)
{
    d->trickle = true;
    d->calls = 0;
    CHECK(bp_file_write(ctx, "file", new_text, strlen(new_text)) == BP_OK, "%s", bp_message(ctx));
    CHECK(holds(d, "file", new_text), "written byte by byte, interrupted at every second");
    CHECK(d->synced < d->renamed && d->renamed < d->folder_synced, "order: sync %lld, rename %lld, sync of the folder %lld", d->synced,
          d->renamed, d->folder_synced);
    char *data;
    size_t n;
    CHECK(bp_file_read(ctx, "file", 0, &data, &n) == BP_OK && n == strlen(new_text) && strcmp(data, new_text) == 0, "%s", bp_message(ctx));
    bp_mem_free(ctx, data, n + 1);
    d->trickle = false;
    CHECK(bp_file_read(ctx, "file", 4, &data, &n) == BP_ELIMIT, "%s", bp_message(ctx));
    CHECK(bp_file_read(ctx, "nothing", 0, &data, &n) == BP_EIO && strstr(bp_message(ctx), "nothing: "), "%s", bp_message(ctx));
}

static bp_status load_text(bp_ctx *ctx, const char *path)
{
    char *data;
    size_t n;
    BP_TRY(bp_file_read(ctx, path, 0, &data, &n));
    bp_mem_free(ctx, data, n + 1);
    return BP_OK;
}

static bp_status list(bp_ctx *ctx, const char *path)
{
    bp_listing l;
    BP_TRY(bp_folder_list(ctx, path, &l));
    bp_listing_free(&l);
    return BP_OK;
}

/* A write that is given up leaves nothing either. */
static void abandoned(bp_ctx *ctx, disk *d)
{
    bp_writer w;
    disk_set(d, "file", old_text, strlen(old_text));
    CHECK(bp_writer_open(ctx, "file", &w) == BP_OK && bp_writer_write(&w, "half", 4) == BP_OK, "%s", bp_message(ctx));
    bp_writer_abandon(&w);
    bp_writer_abandon(&w);
    CHECK(holds(d, "file", old_text) && disk_files(d) == 1 && disk_open_fds(d) == 0, "%d files", disk_files(d));
}

/* ---- the real file system ----------------------------------------------------------------------------------------- */

static int entries(const char *folder)
{
    int n = 0;
    DIR *dir = opendir(folder);
    while (dir && readdir(dir)) n++;
    if (dir) closedir(dir);
    return n - 2;
}

/* A host that hands out no right to write or list. */
static void bare_table(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_files none;
    bp_listing l;
    memset(&none, 0, sizeof none);
    bp_ctx *ctx = open_on_disk(&c, &none);
    CHECK(load_text(ctx, "x") == BP_EIO && strstr(bp_message(ctx), strerror(ENOSYS)), "%s", bp_message(ctx));
    CHECK(bp_file_write(ctx, "x", "x", 1) == BP_EIO && bp_folder_list(ctx, "x", &l) == BP_EIO && bp_folder_make(ctx, "x") == BP_EIO &&
              bp_file_remove(ctx, "x") == BP_EIO,
          "%s", bp_message(ctx));
    close_counting(ctx, &c);
}

static void on_posix(void)
{
    counting c = { 0, 0, 0, 0 };
    bp_ctx *ctx = open_counting(&c);
    char folder[] = "/tmp/bp_test_XXXXXX", path[64], other[64];
    struct stat st;
    char *data;
    size_t n;
    if (!mkdtemp(folder)) exit(2);
    snprintf(path, sizeof path, "%s/file", folder);
    snprintf(other, sizeof other, "%s/link", folder);
    CHECK(bp_file_write(ctx, path, old_text, strlen(old_text)) == BP_OK, "%s", bp_message(ctx));
    CHECK(chmod(path, 0640) == 0 && bp_file_write(ctx, path, new_text, strlen(new_text)) == BP_OK, "%s", bp_message(ctx));
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0640, "the mode of the old file is kept: %o", (unsigned)st.st_mode);
    CHECK(bp_file_read(ctx, path, 0, &data, &n) == BP_OK && strcmp(data, new_text) == 0, "%s", bp_message(ctx));
    bp_mem_free(ctx, data, n + 1);
    CHECK(entries(folder) == 1, "%d entries", entries(folder));

    CHECK(bp_file_write(ctx, folder, "x", 1) == BP_EIO && strstr(bp_message(ctx), "Is a directory"), "%s", bp_message(ctx));
    CHECK(bp_file_write(ctx, "/dev/null", "x", 1) == BP_EIO, "a device is not replaced: %s", bp_message(ctx));
    CHECK(stat("/dev/null", &st) == 0 && S_ISCHR(st.st_mode), "/dev/null is still a device");
    CHECK(bp_file_write(ctx, "/nowhere/at/all", "x", 1) == BP_EIO && strstr(bp_message(ctx), "No such file"), "%s", bp_message(ctx));
    CHECK(load_text(ctx, folder) == BP_EIO && strstr(bp_message(ctx), "Is a directory"), "%s", bp_message(ctx));
    CHECK(load_text(ctx, "/dev/zero") == BP_EIO, "%s", bp_message(ctx));
    CHECK(symlink(other, other) == 0 && load_text(ctx, other) == BP_EIO, "a link to itself: %s", bp_message(ctx));

    bp_listing l;
    CHECK(bp_folder_list(ctx, folder, &l) == BP_OK && l.count == 2 && strcmp(l.entries[0].name, "file") == 0 && !l.entries[0].is_folder,
          "%s", bp_message(ctx));
    bp_listing_free(&l);
    CHECK(bp_folder_list(ctx, path, &l) == BP_EIO && strstr(bp_message(ctx), path), "%s", bp_message(ctx));
    CHECK(bp_folder_list(ctx, "/tmp", &l) == BP_OK, "%s", bp_message(ctx));
    bool found = false;
    for (int64_t i = 0; i < l.count; i++) found = found || (strcmp(l.entries[i].name, folder + 5) == 0 && l.entries[i].is_folder);
    CHECK(found, "a folder is listed as one");
    bp_listing_free(&l);

    char deep[80];
    snprintf(deep, sizeof deep, "%s/a//b/c/", folder);
    CHECK(bp_folder_make(ctx, deep) == BP_OK && stat(deep, &st) == 0 && S_ISDIR(st.st_mode), "%s", bp_message(ctx));
    CHECK(bp_folder_make(ctx, deep) == BP_OK, "it is there already: %s", bp_message(ctx));
    snprintf(deep, sizeof deep, "%s/file/b", folder);
    CHECK(bp_folder_make(ctx, deep) == BP_EIO && strstr(bp_message(ctx), "Not a directory"), "%s", bp_message(ctx));
    for (const char *part = "/a/b/c"; *part; part = strlen(part) == 6 ? "/a/b" : strlen(part) == 4 ? "/a" : "") {
        snprintf(deep, sizeof deep, "%s%s", folder, part);
        CHECK(rmdir(deep) == 0, "%s", deep);
    }

    CHECK(bp_file_remove(ctx, path) == BP_OK && bp_file_remove(ctx, path) == BP_EIO, "%s", bp_message(ctx));
    unlink(other);
    rmdir(folder);
    close_counting(ctx, &c);
}

int main(void)
{
    counting c = { 0, 0, 0, 0 };
    disk d;
    memset(&d, 0, sizeof d);
    bp_files table = disk_table(&d);
    bp_ctx *ctx = open_on_disk(&c, &table);
    failing_saves(ctx, &d);
    d.lasting = 0;
    order_and_interruptions(ctx, &d);
    abandoned(ctx, &d);
    try_reads(ctx, &d, load_text, "file");
    try_allocations(ctx, &c, &d, load_text, "file");
    try_allocations(ctx, &c, &d, list, ".");
    close_counting(ctx, &c);
    disk_free(&d);
    bare_table();
    on_posix();
    return report();
}
