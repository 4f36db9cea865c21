/*
 * Reading raw IP sockets (LOOP_RAW), for the engines on real descriptors: what arrives leaves here as whole IP packets,
 * also where the kernel gives only what stands behind the header. Internal to core/base.
 */
#ifndef ADIT_LOOP_RAW_H
#define ADIT_LOOP_RAW_H

#include "core/base/loop.h"

struct raw_reader;

/* What of a socket its packets don't say. */
struct raw_socket {
    int fd;
    bool inet6;
    uint8_t protocol; /* of the packets that it gets */
};

MUST_USE enum err raw_reader_new(struct raw_reader **out);
void raw_reader_free(struct raw_reader *r); /* NULL is fine */

struct raw_socket raw_socket_of(int fd);

/*
 * Takes what has come, at most LOOP_BATCH packets, which stay where they are until the next call. Returns how many;
 * *error gets 0 or an errno.
 */
unsigned raw_read(struct raw_reader *r, const struct raw_socket *s, struct loop_rx *rx, int *error);

#endif
