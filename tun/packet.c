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

/* A fragment header before the whole of a packet (RFC 6946). */
static bool atomic(const struct ip_view *v, const uint8_t *packet, uint32_t at)
{
    return at + 8 <= v->len && (get_be16(packet + at + 2) & 0xfff9) == 0;
}

enum err ip_view_transport(const struct ip_view *v, const uint8_t *packet, uint8_t *protocol, uint32_t *offset)
{
    uint8_t next = v->protocol;
    uint32_t at = v->header_len;

    while (v->ipv6 && (next == PROTO_HOPOPT || next == PROTO_ROUTING || next == PROTO_DSTOPTS || next == PROTO_AH ||
                       next == PROTO_FRAGMENT)) {
        if (at + 8 > v->len)
            return ERR_SYNTAX;
        if (next == PROTO_FRAGMENT && !atomic(v, packet, at))
            return ERR_UNSUPPORTED;
        /* AH counts 4-byte units less 2 (RFC 4302 section 2.2), others but the fragment header 8-byte units less 1. */
        uint32_t len = next == PROTO_FRAGMENT ? 8
                       : next == PROTO_AH     ? (packet[at + 1] + 2u) * 4
                                              : (packet[at + 1] + 1u) * 8;
        next = packet[at];
        at += len;
    }
    if (at > v->len)
        return ERR_SYNTAX;
    *protocol = next;
    *offset = at;
    return OK;
}

/* The extension header at `at` of the type `next` is passed over: `next_at` moves on. False: it runs out of the packet. */
static bool pass(const struct ip_view *v, const uint8_t *packet, uint8_t *next, struct ip_insertion *at)
{
    if (at->offset + 8 > v->len)
        return false;
    uint32_t len = *next == PROTO_FRAGMENT ? 8 : (packet[at->offset + 1] + 1u) * 8;
    *next = packet[at->offset];
    at->next_at = at->offset;
    at->offset += len;
    return at->offset <= v->len;
}

static struct ip_insertion behind_header(const struct ip_view *v)
{
    return (struct ip_insertion){.offset = v->header_len, .next_at = v->ipv6 ? IPV6_NEXT : IPV4_PROTOCOL};
}

enum err ip_view_find(const struct ip_view *v, const uint8_t *packet, uint8_t protocol, struct ip_insertion *out)
{
    uint8_t next = v->protocol;
    struct ip_insertion at = behind_header(v);
    while (v->ipv6 && next != protocol &&
           (next == PROTO_HOPOPT || next == PROTO_ROUTING || next == PROTO_DSTOPTS ||
            (next == PROTO_FRAGMENT && atomic(v, packet, at.offset))))
        if (!pass(v, packet, &next, &at))
            return ERR_SYNTAX;
    *out = at;
    return next == protocol ? OK : ERR_NOTFOUND;
}

enum err ip_view_insertion(const struct ip_view *v, const uint8_t *packet, struct ip_insertion *out)
{
    uint8_t next = v->protocol;
    struct ip_insertion at = behind_header(v);
    if (v->fragment)
        return ERR_UNSUPPORTED;
    *out = at;
    while (v->ipv6 &&
           (next == PROTO_HOPOPT || next == PROTO_ROUTING || next == PROTO_DSTOPTS || next == PROTO_FRAGMENT)) {
        bool final = next == PROTO_DSTOPTS; /* unless a header for the way follows */
        if (next == PROTO_FRAGMENT && !atomic(v, packet, at.offset))
            return at.offset + 8 <= v->len ? ERR_UNSUPPORTED : ERR_SYNTAX;
        if (!pass(v, packet, &next, &at))
            return ERR_SYNTAX;
        if (!final)
            *out = at;
    }
    return OK;
}

uint64_t pseudo_addresses(const uint8_t *packet, bool ipv6)
{
    return ipv6 ? checksum_add(0, packet + IPV6_SOURCE, 32) : checksum_add(0, packet + IPV4_SOURCE, 8);
}
