#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum err file_folder(const char *path, unsigned mode)
{
    return mkdir(path, mode) && errno != EEXIST ? ERR_SYSTEM : OK;
}

enum err file_parent(const char *path, unsigned mode)
{
    char folder[256];
    const char *slash = strrchr(path, '/');
    size_t len = slash ? (size_t)(slash - path) : 0;
    if (len == 0)
        return OK;
    if (len >= sizeof folder) {
        errno = ENAMETOOLONG;
        return ERR_SYSTEM;
    }
    memcpy(folder, path, len);
    folder[len] = 0;
    return file_folder(folder, mode);
}

enum err file_append(const char *folder, const char *name, int *fd)
{
    char path[512];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path) {
        errno = ENAMETOOLONG;
        return ERR_SYSTEM;
    }
    int f = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (f < 0)
        return ERR_SYSTEM;
    /* The mode above counts only for a new file. */
    if (fchmod(f, 0600)) {
        close(f);
        return ERR_SYSTEM;
    }
    *fd = f;
    return OK;
}

bool file_is_socket(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

bool file_readable_by_others(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (st.st_mode & (S_IRGRP | S_IROTH));
}

static enum err read_all(int fd, size_t max, bool secret, struct buf *out)
{
    if (secret && file_readable_by_others(fd))
        return ERR_PERM;
    TRY(buf_reserve(out, max + 1));
    out->len = 0;
    for (ssize_t n; (n = read(fd, out->data + out->len, max + 1 - out->len)) != 0;) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ERR_SYSTEM;
        out->len += (size_t)n;
        if (out->len > max) {
            errno = EFBIG;
            return ERR_SYSTEM;
        }
    }
    return OK;
}

enum err file_read(const char *path, size_t max, bool secret, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return ERR_SYSTEM;
    enum err e = read_all(fd, max, secret, out);
    int error = errno;
    close(fd);
    errno = error;
    return e;
}

static bool write_all(int fd, struct span content)
{
    for (size_t at = 0; at < content.len;) {
        ssize_t n = write(fd, content.data + at, content.len - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

enum err file_create(const char *path, unsigned mode, struct span content)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (fd < 0)
        return ERR_SYSTEM;
    bool written = write_all(fd, content);
    int error = errno;
    if (close(fd) && written) {
        written = false;
        error = errno;
    }
    if (!written)
        unlink(path);
    errno = error;
    return written ? OK : ERR_SYSTEM;
}

enum err file_mode(const char *path, unsigned mode)
{
    return chmod(path, mode) ? ERR_SYSTEM : OK;
}
