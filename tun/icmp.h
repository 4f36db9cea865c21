/* ICMP errors that a packet from the TUN is answered with (RFC 792, 1191, 4443): a router's, as bytes. */
#ifndef ADIT_ICMP_H
#define ADIT_ICMP_H

#include "core/base/cursor.h"

#define ICMP_ERROR4_MAX 576  /* bytes of such a packet: RFC 1812 section 4.3.2.3 */
#define ICMP_ERROR6_MAX 1280 /* RFC 4443 section 2.4 (c) */

/*
 * The packet that tells the sender of `packet`, an IPv4 packet with DF or an IPv6 one, the largest size that would pass:
 * destination unreachable, fragmentation needed, with the next hop's MTU (RFC 1191 section 4), or Packet Too Big
 * (RFC 4443 section 3.2). It comes from the packet's destination: the address that the sender has a way to, and that
 * nothing on the host takes for one of its own.
 *
 * out: ICMP_ERROR6_MAX bytes. Returns its length; 0: no error may be sent about this one (RFC 1122 section 3.2.2,
 * RFC 4443 section 2.4 (e): ICMP errors, fragments but the first, addresses of many or of none).
 */
size_t icmp_too_big(struct span packet, uint32_t mtu, uint8_t out[ICMP_ERROR6_MAX]);

#endif
