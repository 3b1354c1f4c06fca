/* posix.c - the file table of the operating system. */
#include "files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Only regular files are read: their size is known before the first byte, and opening never waits for somebody to write. */
static int posix_open_read(void *ud, const char *path)
{
    (void)ud;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return -1;
    struct stat st;
    if (fstat(fd, &st) == 0) {
        if (S_ISREG(st.st_mode)) return fd;
        errno = S_ISDIR(st.st_mode) ? EISDIR : ENOTSUP;
    }
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* The new file is ".name.<process>-<time>.tmp" beside path, so that the rename stays within one file system. It takes the mode of the file
 * it will replace, else what the umask allows. Devices, pipes and folders are not replaced. */
static int posix_open_temp(void *ud, const char *path, char *name, size_t name_size)
{
    (void)ud;
    struct stat old;
    bool replaces = stat(path, &old) == 0;
    if (replaces && !S_ISREG(old.st_mode)) {
        errno = S_ISDIR(old.st_mode) ? EISDIR : ENOTSUP;
        return -1;
    }
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path + 1) : 0;
    if (path[folder] == '\0') {
        errno = EISDIR;
        return -1;
    }
    for (int attempt = 0; attempt < 100; attempt++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        int n = snprintf(name, name_size, "%.*s.%.200s.%ld-%lx%02x.tmp", folder, path, path + folder, (long)getpid(),
                         (unsigned long)now.tv_nsec, (unsigned)attempt);
        if (n < 0 || (size_t)n >= name_size) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0) {
            /* A file system without modes may refuse this; the bytes matter more. */
            if (replaces && fchmod(fd, old.st_mode & 07777) != 0) errno = 0;
            return fd;
        }
        if (errno != EEXIST) return -1;
    }
    return -1;
}

static ptrdiff_t posix_read(void *ud, int fd, void *buf, size_t n)
{
    (void)ud;
    return read(fd, buf, n);
}

static ptrdiff_t posix_write(void *ud, int fd, const void *buf, size_t n)
{
    (void)ud;
    return write(fd, buf, n);
}

static int64_t posix_size(void *ud, int fd)
{
    (void)ud;
    struct stat st;
    return fstat(fd, &st) == 0 ? (int64_t)st.st_size : -1;
}

static int posix_sync(void *ud, int fd)
{
    (void)ud;
    return fsync(fd);
}

static int posix_close(void *ud, int fd)
{
    (void)ud;
    return close(fd);
}

static int posix_rename(void *ud, const char *from, const char *to)
{
    (void)ud;
    return rename(from, to);
}

static int posix_unlink(void *ud, const char *path)
{
    (void)ud;
    return unlink(path);
}

static int posix_sync_folder(void *ud, const char *path)
{
    (void)ud;
    char folder[4096] = ".";
    const char *slash = strrchr(path, '/');
    if (slash) {
        size_t n = slash == path ? 1 : (size_t)(slash - path);
        if (n >= sizeof folder) {
            errno = ENAMETOOLONG;
            return -1;
        }
        memcpy(folder, path, n);
        folder[n] = '\0';
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return errno == EACCES ? 0 : -1; /* a folder that may be written but not listed: nothing more can be done */
    int result = fsync(fd), why = errno;
    close(fd);
    if (result != 0 && (why == EINVAL || why == ENOTSUP || why == EROFS)) return 0; /* file systems that do not sync folders */
    errno = why;
    return result;
}

/* Links are followed; one that leads nowhere counts as a file, and opening it tells why. */
static int posix_list(void *ud, const char *path, bp_list_fn *each, void *each_ud)
{
    (void)ud;
    DIR *dir = opendir(path);
    if (!dir) return -1;
    int result = 0;
    struct dirent *entry;
    while (result == 0 && (errno = 0, entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        bool folder = entry->d_type == DT_DIR;
        struct stat st;
        if (entry->d_type == DT_LNK || entry->d_type == DT_UNKNOWN)
            folder = fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && S_ISDIR(st.st_mode);
        result = each(each_ud, entry->d_name, folder);
    }
    int why = errno;
    if (result == 0 && why != 0) result = -1;
    closedir(dir);
    errno = why;
    return result;
}

static int posix_make_folder(void *ud, const char *path)
{
    (void)ud;
    return mkdir(path, 0777);
}

const bp_files bp_files_posix = {
    .open_read = posix_open_read,
    .open_temp = posix_open_temp,
    .read = posix_read,
    .write = posix_write,
    .size = posix_size,
    .sync = posix_sync,
    .close = posix_close,
    .rename = posix_rename,
    .unlink = posix_unlink,
    .sync_folder = posix_sync_folder,
    .list = posix_list,
    .make_folder = posix_make_folder,
};
