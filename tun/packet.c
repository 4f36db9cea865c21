#include "tun/packet.h"

#include "tun/offload.h"

static enum err view_ipv4(struct ip_view *v, struct span p)
{
    if (p.len < IPV4_HEADER)
        return ERR_TRUNCATED;
    uint16_t header = (uint16_t)((p.data[0] & 15) * 4);
    uint16_t total = get_be16(p.data + IPV4_LENGTH);
    if (header < IPV4_HEADER || total < header || total > p.len)
        return ERR_SYNTAX;
    *v = (struct ip_view){
        .fragment = get_be16(p.data + IPV4_FRAGMENT) & (IPV4_MF | IPV4_FRAGMENT_OFFSET),
        .protocol = p.data[IPV4_PROTOCOL],
        .header_len = header,
        .len = total,
    };
    return OK;
}

static enum err view_ipv6(struct ip_view *v, struct span p)
{
    if (p.len < IPV6_HEADER)
        return ERR_TRUNCATED;
    uint32_t total = IPV6_HEADER + (uint32_t)get_be16(p.data + IPV6_LENGTH);
    if (total > p.len)
        return ERR_SYNTAX;
    *v = (struct ip_view){.ipv6 = true, .protocol = p.data[IPV6_NEXT], .header_len = IPV6_HEADER, .len = total};
    return OK;
}

enum err ip_view_parse(struct ip_view *v, struct span packet)
{
    if (packet.len == 0)
        return ERR_TRUNCATED;
    switch (packet.data[0] >> 4) {
    case 4:
        return view_ipv4(v, packet);
    case 6:
        return view_ipv6(v, packet);
    default:
        return ERR_SYNTAX;
    }
}

enum err ip_view_transport(const struct ip_view *v, const uint8_t *packet, uint8_t *protocol, uint32_t *offset)
{
    uint8_t next = v->protocol;
    uint32_t at = v->header_len;

    while (v->ipv6 && (next == PROTO_HOPOPT || next == PROTO_ROUTING || next == PROTO_DSTOPTS || next == PROTO_AH ||
                       next == PROTO_FRAGMENT)) {
        if (next == PROTO_FRAGMENT)
            return ERR_UNSUPPORTED;
        if (at + 8 > v->len)
            return ERR_SYNTAX;
        /* AH counts 4-byte units less 2 (RFC 4302 section 2.2), the others 8-byte units less 1. */
        uint32_t len = next == PROTO_AH ? (packet[at + 1] + 2u) * 4 : (packet[at + 1] + 1u) * 8;
        next = packet[at];
        at += len;
    }
    if (at > v->len)
        return ERR_SYNTAX;
    *protocol = next;
    *offset = at;
    return OK;
}

enum err ip_view_find(const struct ip_view *v, const uint8_t *packet, uint8_t protocol, uint32_t *offset)
{
    uint8_t next = v->protocol;
    uint32_t at = v->header_len;

    while (v->ipv6 && next != protocol && (next == PROTO_HOPOPT || next == PROTO_ROUTING || next == PROTO_DSTOPTS)) {
        if (at + 8 > v->len)
            return ERR_SYNTAX;
        next = packet[at];
        at += (packet[at + 1] + 1u) * 8;
    }
    if (at > v->len)
        return ERR_SYNTAX;
    *offset = at;
    return next == protocol ? OK : ERR_NOTFOUND;
}

uint64_t pseudo_addresses(const uint8_t *packet, bool ipv6)
{
    return ipv6 ? checksum_add(0, packet + IPV6_SOURCE, 32) : checksum_add(0, packet + IPV4_SOURCE, 8);
}
