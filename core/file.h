/* The few things that the daemon does with files and folders. */
#ifndef ADIT_FILE_H
#define ADIT_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/buf.h"
#include "core/base/cursor.h"
#include "core/base/err.h"

/* Makes the folder unless it is there. Errors: SYSTEM (errno). */
MUST_USE enum err file_folder(const char *path, unsigned mode);
/* Makes the folder that this file stands in. Errors: SYSTEM (errno). */
MUST_USE enum err file_parent(const char *path, unsigned mode);
/* Opens folder/name to append to it, mode 0600 also if it was there, no symbolic link. Errors: SYSTEM (errno). */
MUST_USE enum err file_append(const char *folder, const char *name, int *fd);
/* Whether this is a socket's name. */
bool file_is_socket(const char *path);
/* Whether others than the owner may read what this descriptor writes to. */
bool file_readable_by_others(int fd);
/* A whole file of at most so many bytes. Errors: SYSTEM (errno), PERM (a secret one that others may read), NOMEM. */
MUST_USE enum err file_read(const char *path, size_t max, bool secret, struct buf *out);
/* A new file; one that is there stays as it is. Errors: SYSTEM (errno). */
MUST_USE enum err file_create(const char *path, unsigned mode, struct span content);
MUST_USE enum err file_mode(const char *path, unsigned mode);

#endif
