/* Notices from the kernel that links, addresses or routes of this network namespace have changed. */
#ifndef ADIT_WATCH_H
#define ADIT_WATCH_H

#include <stdbool.h>

#include "core/base/err.h"

/* A non-blocking descriptor that is readable when there are notices. Errors: SYSTEM. */
MUST_USE enum err watch_open(int *fd);
/*
 * Takes what is there, at most a few hundred notices at a time. True if any of it may matter: routes of our own are no
 * news, and notices that were lost may have been anything.
 */
bool watch_read(int fd);

#endif
