/*
 * The outer IP header (RFC 4301 section 5.1.2): the fields that are chosen for it, and the header itself where we write
 * it and not the kernel (raw sockets, AH). It never has options or extension headers: none is copied outward, and we have
 * none of our own.
 */
#ifndef ADIT_OUTER_H
#define ADIT_OUTER_H

#include "core/base/cursor.h"
#include "core/base/ip.h"

#define OUTER_IPV4 20 /* bytes of the header */
#define OUTER_IPV6 40
#define OUTER_TTL 64            /* what stands there for ttl 0 (RFC 1700: the recommended default, and Linux's) */
#define OUTER_FLOW_MAX 0xfffffu /* a flow label has 20 bits */

struct outer {
    uint8_t tos;   /* DSCP and ECN: IPv4's TOS byte, IPv6's traffic class */
    uint8_t ttl;   /* or hop limit; 0: the default */
    bool df;       /* IPv4: don't fragment. IPv6: the sending host doesn't fragment either; no bit of the header */
    uint32_t flow; /* IPv6: the flow label, at most OUTER_FLOW_MAX */
};

static inline unsigned outer_len(uint8_t family)
{
    return family == 4 ? OUTER_IPV4 : OUTER_IPV6;
}

/*
 * Writes a whole header for payload_len bytes behind it; from and to are of one family. id: IPv4's Identification, which
 * must not be 0 where the bytes are part of an ICV: Linux fills in its own then (IPv6: not used).
 * Errors: RANGE (more bytes than the length field can say), FULL (no room).
 */
MUST_USE enum err outer_put(struct writer *w, const struct outer *o, const struct ip *from, const struct ip *to,
                            uint8_t protocol, size_t payload_len, uint16_t id);

#endif
