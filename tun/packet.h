/*
 * What the files behind offload.h share: offsets of IP and transport headers, and the look at a packet's IP header.
 * (RFC 791, 8200, 9293, 768; virtio 1.2 section 5.1.6 for the header before each packet.)
 */
#ifndef ADIT_TUN_PACKET_H
#define ADIT_TUN_PACKET_H

#include <linux/virtio_net.h>
#include <stdbool.h>

#include "core/base/cursor.h"
#include "core/base/err.h"

#ifndef VIRTIO_NET_HDR_GSO_UDP_L4
#define VIRTIO_NET_HDR_GSO_UDP_L4 5 /* not in Linux headers before 6.2 */
#endif

enum ip_protocol {
    PROTO_HOPOPT = 0,
    PROTO_TCP = 6,
    PROTO_UDP = 17,
    PROTO_DCCP = 33,
    PROTO_ROUTING = 43,
    PROTO_FRAGMENT = 44,
    PROTO_AH = 51,
    PROTO_ICMPV6 = 58,
    PROTO_DSTOPTS = 60,
    PROTO_UDPLITE = 136,
};

/* Offsets of fields, in bytes, and the length of the fixed header. */
enum ipv4_offset {
    IPV4_TOS = 1,
    IPV4_LENGTH = 2,
    IPV4_ID = 4,
    IPV4_FRAGMENT = 6,
    IPV4_TTL = 8,
    IPV4_PROTOCOL = 9,
    IPV4_CHECKSUM = 10,
    IPV4_SOURCE = 12,
    IPV4_HEADER = 20,
};
enum ipv6_offset { IPV6_LENGTH = 4, IPV6_NEXT = 6, IPV6_HOP_LIMIT = 7, IPV6_SOURCE = 8, IPV6_HEADER = 40 };
enum tcp_offset {
    TCP_SEQ = 4,
    TCP_ACK = 8,
    TCP_DATA = 12,
    TCP_FLAGS = 13,
    TCP_WINDOW = 14,
    TCP_CHECKSUM = 16,
    TCP_URGENT = 18,
    TCP_HEADER = 20,
};
enum udp_offset { UDP_LENGTH = 4, UDP_CHECKSUM = 6, UDP_HEADER = 8 };
enum icmpv6_offset { ICMPV6_CHECKSUM = 2 };

enum ipv4_fragment_bits { IPV4_DF = 0x4000, IPV4_MF = 0x2000, IPV4_FRAGMENT_OFFSET = 0x1fff };
enum tcp_flag { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACKED = 16, TCP_URG = 32, TCP_CWR = 128 };

/* What the fixed IP header says. */
struct ip_view {
    bool ipv6;
    bool fragment;       /* IPv4: more fragments follow or the offset is not 0 */
    uint8_t protocol;    /* IPv6: the first next header */
    uint16_t header_len; /* IPv4 with its options; IPv6: 40 */
    uint32_t len;        /* of the packet, by its own account: never more than there are bytes */
};

/* Errors: TRUNCATED, SYNTAX (no IP, header length or total length wrong). */
MUST_USE enum err ip_view_parse(struct ip_view *v, struct span packet);

/*
 * Walks IPv6 extension headers to the transport header (RFC 8200 section 4.1). packet: of v->len bytes.
 * Errors: SYNTAX (chain runs out of the packet), UNSUPPORTED (a fragment: what follows may be no header at all).
 */
MUST_USE enum err ip_view_transport(const struct ip_view *v, const uint8_t *packet, uint8_t *protocol,
                                    uint32_t *offset);

/* A place behind the IP header: where a header begins, and where the one before says what it is. */
struct ip_insertion {
    uint32_t offset, next_at;
};

/*
 * Where the header of that protocol begins: behind the IPv4 header, or behind IPv6 extension headers that stand before
 * ESP and AH (RFC 4303 section 3.1.1): hop-by-hop, routing, destination options, the fragment header of what is no
 * fragment. Errors: SYNTAX (chain runs out of the packet), NOTFOUND.
 */
MUST_USE enum err ip_view_find(const struct ip_view *v, const uint8_t *packet, uint8_t protocol,
                               struct ip_insertion *out);

/*
 * Where ESP or AH goes in transport mode (RFC 4303 section 3.1.1, RFC 4302 section 3.1.1): behind the IPv4 header with
 * its options, or behind the IPv6 extension headers that are for the way: hop-by-hop and routing headers, with the
 * destination options before a routing header, and the fragment header of what is no fragment. Destination options that
 * are for the destination alone come behind. Errors: SYNTAX, UNSUPPORTED (a fragment: whole datagrams only, RFC 4303
 * section 3.3.4).
 */
MUST_USE enum err ip_view_insertion(const struct ip_view *v, const uint8_t *packet, struct ip_insertion *out);

/* The sum of source and destination address, the first part of the pseudo-header. */
uint64_t pseudo_addresses(const uint8_t *packet, bool ipv6);

#endif
