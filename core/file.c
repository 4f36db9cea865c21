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

enum err file_mode(const char *path, unsigned mode)
{
    return chmod(path, mode) ? ERR_SYSTEM : OK;
}
