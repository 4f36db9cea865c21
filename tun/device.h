/*
 * The TUN device: opened with a virtio_net_hdr before each packet, and with as much offload as the kernel takes
 * (checksum, TSO4/6, USO4/6). The device goes away with its last descriptor.
 */
#ifndef ADIT_DEVICE_H
#define ADIT_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/err.h"

#define TUN_QUEUES_MAX 16
#define TUN_HDR_LEN 10 /* struct virtio_net_hdr, host byte order */

struct tun;

/*
 * Creates device `name` with that many queues (1 opens it without IFF_MULTI_QUEUE). A name that is busy for a moment
 * (a ring of a process that just ended still holds it) is tried again for up to 2 s.
 * Errors: PERM, EXISTS, NOTFOUND (no /dev/net/tun), SYSTEM; why gets a line for the log.
 */
MUST_USE enum err tun_open(const char *name, unsigned queues, struct tun **out, char *why, size_t why_size);
void tun_close(struct tun *t); /* NULL is fine */

int tun_fd(const struct tun *t, unsigned queue); /* non-blocking */
int tun_ifindex(const struct tun *t);
const char *tun_name(const struct tun *t);
bool tun_has_uso(const struct tun *t); /* the kernel takes UDP superpackets */

#endif
