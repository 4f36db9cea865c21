/* Copies of packets that rules of nftables tell of (their `log group`). */
#ifndef ADIT_NFLOG_H
#define ADIT_NFLOG_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

#define NFLOG_PACKET 256 /* bytes of each one: headers */

/* A non-blocking descriptor, and the group, of those that nobody listens to, that it is for. Errors: PERM, SYSTEM, FULL. */
MUST_USE enum err nflog_open(int *fd, uint16_t *group);
/* The beginning of the next one, from its IP header on. Errors: NOTFOUND (none is there). */
MUST_USE enum err nflog_read(int fd, uint8_t packet[NFLOG_PACKET], size_t *len);

#endif
