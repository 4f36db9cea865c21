/* The few things that the daemon does with files and folders. */
#ifndef ADIT_FILE_H
#define ADIT_FILE_H

#include <stdbool.h>
#include <stddef.h>

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
MUST_USE enum err file_mode(const char *path, unsigned mode);

#endif
