/*
 * Cutting an IPv4 packet into fragments (RFC 791 section 3.2), those of a fragment included; and one of IPv6, as only its
 * sender may (RFC 8200 section 4.5).
 */
#ifndef ADIT_CUT_H
#define ADIT_CUT_H

#include <stdbool.h>

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "tun/packet.h"

#define CUT_IPV6_MORE 8u /* bytes of the header that each fragment over IPv6 has besides */

/* One packet being cut. Filled by cut_begin, advanced by cut_next; the packet must stay in place. */
struct cut {
    const uint8_t *packet;
    uint32_t len, header_len;
    uint32_t room;     /* most bytes of one fragment */
    uint32_t at;       /* payload bytes that are out */
    uint8_t later[60]; /* the header of all but the first: with the options that are copied */
    uint32_t later_len;
    bool ipv6;
    uint32_t next_at, id; /* of that alone */
};

/*
 * Checksums must be complete (after segment_next). room: bytes that each fragment may have at most.
 * Errors: TRUNCATED, SYNTAX (no sound IPv4 packet, or a fragment of one that can't be), MISMATCH (it has DF), RANGE (no room for 8 bytes behind the header).
 */
MUST_USE enum err cut_begin(struct cut *c, struct span packet, uint32_t room);
/*
 * The same of an IPv6 packet. behind: where the part begins that is cut; what stands before it is for the way, and in each
 * fragment. id: no other packet's between these addresses of late. Errors: SYNTAX (no sound IPv6 packet with that in it),
 * RANGE.
 */
MUST_USE enum err cut_begin_ipv6(struct cut *c, struct span packet, const struct ip_insertion *behind, uint32_t room,
                                 uint32_t id);
uint32_t cut_size(const struct cut *c); /* bytes of the next fragment; 0: all are out */
/* Writes the next one at out (cut_size bytes), its header checksum included, and advances. */
void cut_next(struct cut *c, uint8_t *out);

#endif
