/*
 * The outer IP header (RFC 4301 section 5.1.2): the fields that are chosen for it, what its ECN field means for the inner
 * one at the other end (RFC 6040), and the header itself where we write it and not the kernel (raw sockets, AH). It never
 * has options or extension headers: none is copied outward, and we have none of our own.
 *
 * The inner header is not touched on the way out. Its TTL or hop limit is decremented by who forwards (section 5.1.2.1,
 * note 2), and that is the kernel: before a packet gets to the TUN, after one comes out of it.
 */
#ifndef ADIT_OUTER_H
#define ADIT_OUTER_H

#include "core/base/cursor.h"
#include "core/base/ip.h"
#include "esp/sa.h"

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

/*
 * The outer header of a packet that an outbound SA carries. `inner` begins with a whole IPv4 or IPv6 header. Tunnel mode:
 * by the SA's rule, the TTL is the host's default, and the flow label is the SA's own: one copied from the inner header,
 * or made of the inner flow, would tell the path which flows there are, and the replay window wants the packets of an SA
 * to take one way (section 5.1.2.2, note 8: copied or configured; RFC 6437 section 3). Transport mode: it is the packet's
 * own header, and all that can change on the way stays as it is.
 */
struct outer outer_of(const struct sa *sa, const uint8_t *inner);
/* The one of a dummy, which has nothing inside: that of an ordinary packet, so that it looks like one from outside. */
struct outer outer_of_dummy(const struct sa *sa);

/* Packets that may go out in one segmented send: of the other fields a UDP socket says nothing. */
static inline bool outer_alike(const struct outer *a, const struct outer *b)
{
    return a->tos == b->tos && a->df == b->df && a->ttl == b->ttl;
}

#define OUTER_ECN 3 /* the ECN field of a tos; with 0, Not-ECT, nothing is to be done */

/*
 * Tunnel mode, on the way in: what the outer tos says about congestion goes into the inner header, whose checksum is put
 * right (RFC 6040 section 4.2, figure 4). ODD: no tunnel makes that outer field of that inner one; it is delivered all
 * the same. DROP: the path tells of congestion, and the packet's sender would not understand it.
 */
enum outer_ecn { OUTER_ECN_USUAL, OUTER_ECN_ODD, OUTER_ECN_DROP };
enum outer_ecn outer_ecn_in(uint8_t tos, uint8_t *inner);

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
