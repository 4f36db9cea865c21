/*
 * ICMP errors that the network sends us about datagrams of ours: what they claim, and of which datagram they quote
 * enough to tell whose it was. Nothing in them is authentic (RFC 4301 section 6.1).
 */
#ifndef ADIT_ERRORS_H
#define ADIT_ERRORS_H

#include <stdbool.h>

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "core/base/ip.h"

struct icmp_error {
    struct ip from;                /* who says so, or whom somebody wants to have said it; errors_parse leaves it out */
    bool too_big;                  /* fragmentation needed, packet too big; else the destination is unreachable */
    uint32_t mtu;                  /* too_big: what would pass; 0: it does not say (RFC 1191 section 5) */
    uint8_t proto;                 /* of the quoted datagram: 17, 50 or 51 */
    struct endpoint local, remote; /* from where to where it went; ports of UDP */
    bool esp;                      /* an SPI is quoted */
    uint32_t spi;
};

/*
 * A non-blocking raw socket that receives those errors of that family alone: the kernel filters by type. It takes
 * CAP_NET_RAW. Errors: PERM, SYSTEM.
 */
MUST_USE enum err errors_open(uint8_t family, int *fd);
/* The next one. Errors: NOTFOUND (none is there now); SYNTAX, TRUNCATED, UNSUPPORTED (taken, and of no use). */
MUST_USE enum err errors_read(int fd, uint8_t family, struct icmp_error *out);

/*
 * The same from bytes: an ICMP message, of IPv4 with the IP header before it, as raw sockets give them. Checksums have
 * been checked. Errors: as errors_read.
 */
MUST_USE enum err errors_parse(struct span message, uint8_t family, struct icmp_error *out);

#endif
