/* Reading the flow out of a packet, for the selectors (RFC 4301 section 4.4.1.1). */
#include "policy/selector.h"

#define IPV6_HEADER 40
#define EXTENSION_HEADERS_MAX 8

enum next_header {
    NEXT_HOP_BY_HOP = 0,
    NEXT_ICMP = 1,
    NEXT_TCP = 6,
    NEXT_UDP = 17,
    NEXT_DCCP = 33,
    NEXT_ROUTING = 43,
    NEXT_FRAGMENT = 44,
    NEXT_ICMPV6 = 58,
    NEXT_DESTINATION = 60,
    NEXT_SCTP = 132,
    NEXT_MOBILITY = 135,
    NEXT_UDPLITE = 136
};

/* The transport header begins at r. */
static enum err read_ports(struct reader r, struct flow *f)
{
    switch (f->proto) {
    case NEXT_TCP:
    case NEXT_UDP:
    case NEXT_DCCP:
    case NEXT_SCTP:
    case NEXT_UDPLITE:
        f->src_port = read_u16(&r);
        f->dst_port = read_u16(&r);
        break;
    case NEXT_ICMP:
    case NEXT_ICMPV6:
        f->src_port = f->dst_port = read_u16(&r);
        break;
    case NEXT_MOBILITY: /* RFC 6275 section 6.1.1: the type is the third byte */
        read_u16(&r);
        f->src_port = f->dst_port = (uint16_t)(read_u8(&r) << 8);
        break;
    default:
        return OK;
    }
    f->ports_known = !r.failed;
    return r.failed ? ERR_TRUNCATED : OK;
}

/* Confines the reader, which stands behind `done` bytes, to what the packet says it has. */
static void confine(struct reader *r, uint32_t packet_len, size_t done)
{
    size_t left = packet_len - done;
    if (packet_len != 0 && reader_left(r) > left)
        *r = read_sub(r, left);
}

static enum err flow_ipv4(struct reader r, struct flow *f)
{
    unsigned header_len = (read_u8(&r) & 15u) * 4;
    f->dscp_ecn = read_u8(&r);
    f->packet_len = read_u16(&r);
    f->fragment_id = read_u16(&r);
    unsigned bits = read_u16(&r), offset = bits & 0x1fff;
    f->fragment = (bits & 0x3fff) != 0;
    f->fragment_offset = (uint16_t)(offset * 8);
    read_u8(&r); /* TTL */
    f->proto = read_u8(&r);
    read_u16(&r); /* checksum */
    struct span src = read_span(&r, 4), dst = read_span(&r, 4);
    if (r.failed)
        return ERR_TRUNCATED;
    if (header_len < 20 || (f->packet_len != 0 && f->packet_len < header_len))
        return ERR_SYNTAX;
    f->src = ip_from_bytes(4, src.data);
    f->dst = ip_from_bytes(4, dst.data);
    f->header_len = (uint16_t)header_len;
    read_span(&r, header_len - 20);
    if (r.failed)
        return ERR_TRUNCATED;
    confine(&r, f->packet_len, header_len);
    return offset == 0 ? read_ports(r, f) : OK;
}

/*
 * Walks from the extension header `next`, which has `before` bytes in front, to the transport header; *later: of a fragment
 * that is not the first, so there is none.
 */
static enum err walk_extensions(struct reader *r, uint8_t next, size_t before, struct flow *f, bool *later)
{
    size_t all = before + reader_left(r);
    for (unsigned i = 0; i <= EXTENSION_HEADERS_MAX && !*later; i++) {
        f->proto = next;
        f->header_len = (uint16_t)(all - reader_left(r));
        if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_FRAGMENT && next != NEXT_DESTINATION)
            return OK;
        bool is_fragment = next == NEXT_FRAGMENT;
        next = read_u8(r);
        size_t len = read_u8(r);
        if (is_fragment) {
            unsigned field = read_u16(r);
            f->fragment_id = read_u32(r);
            f->fragment_offset = field & 0xfff8;
            f->fragment = field & 0xfff9; /* else it is the whole of its packet (RFC 6946) */
            *later = f->fragment_offset != 0;
        }
        read_span(r, is_fragment ? 0 : 6 + len * 8);
        if (r->failed)
            return ERR_TRUNCATED;
    }
    if (!*later)
        return ERR_SYNTAX;
    f->proto = next;
    f->header_len = (uint16_t)(all - reader_left(r));
    return OK;
}

static enum err flow_ipv6(struct reader r, struct flow *f)
{
    bool later = false;
    f->dscp_ecn = (uint8_t)(read_u32(&r) >> 20);
    unsigned payload = read_u16(&r);
    uint8_t next = read_u8(&r);
    read_u8(&r); /* hop limit */
    struct span src = read_span(&r, 16), dst = read_span(&r, 16);
    if (r.failed)
        return ERR_TRUNCATED;
    f->src = ip_from_bytes(6, src.data);
    f->dst = ip_from_bytes(6, dst.data);
    f->packet_len = payload ? payload + IPV6_HEADER : 0; /* RFC 2675 section 3: jumbograms say 0 */
    confine(&r, f->packet_len, IPV6_HEADER);
    TRY(walk_extensions(&r, next, IPV6_HEADER, f, &later));
    return later ? OK : read_ports(r, f);
}

enum err flow_of(struct span packet, struct flow *out)
{
    struct flow f = {0};
    struct reader r = reader_of(packet);
    if (packet.len == 0)
        return ERR_TRUNCATED;
    switch (packet.data[0] >> 4) {
    case 4:
        TRY(flow_ipv4(r, &f));
        break;
    case 6:
        TRY(flow_ipv6(r, &f));
        break;
    default:
        return ERR_SYNTAX;
    }
    *out = f;
    return OK;
}

enum err flow_of_payload(const struct ip *src, const struct ip *dst, uint8_t next_header, struct span payload,
                         struct flow *out)
{
    struct flow f = {.src = *src, .dst = *dst, .proto = next_header};
    struct reader r = reader_of(payload);
    bool later = false;
    if (src->family == 6)
        TRY(walk_extensions(&r, next_header, 0, &f, &later));
    if (!later)
        TRY(read_ports(r, &f));
    *out = f;
    return OK;
}

/* -- ICMP errors -- */

#define ICMP_HEADER 8

enum icmp_type {
    ECHO_REPLY = 0,
    UNREACHABLE = 3,
    SOURCE_QUENCH = 4,
    ECHO = 8,
    TIME_EXCEEDED = 11,
    PARAMETER_PROBLEM = 12,
    ECHO6 = 128,
    ECHO6_REPLY = 129
};

/* RFC 792; RFC 4443 section 2.1. A redirect is between neighbours: no business of a tunnel. */
static bool is_error(const struct flow *f)
{
    unsigned type = f->src_port >> 8;
    if (!f->ports_known || f->fragment)
        return false;
    if (f->proto == NEXT_ICMPV6)
        return type > 0 && type < 128;
    return f->proto == NEXT_ICMP &&
           (type == UNREACHABLE || type == SOURCE_QUENCH || type == TIME_EXCEEDED || type == PARAMETER_PROBLEM);
}

/* Type and code of the message that one of them would be answered with. */
static uint16_t icmp_answer(uint16_t type_code)
{
    switch (type_code >> 8) {
    case ECHO:
        return ECHO_REPLY << 8;
    case ECHO_REPLY:
        return ECHO << 8;
    case ECHO6:
        return ECHO6_REPLY << 8;
    case ECHO6_REPLY:
        return ECHO6 << 8;
    default:
        return type_code;
    }
}

enum err flow_of_quoted(struct span packet, const struct flow *f, struct flow *out)
{
    struct reader r = reader_of(packet);
    struct flow q;
    if (!is_error(f))
        return ERR_NOTFOUND;
    confine(&r, f->packet_len, 0);
    read_span(&r, (size_t)f->header_len + ICMP_HEADER);
    struct span quote = read_rest(&r);
    if (r.failed)
        return ERR_TRUNCATED;
    TRY(flow_of(quote, &q));
    if (q.src.family != f->src.family)
        return ERR_SYNTAX;
    *out = q;
    out->src = q.dst;
    out->dst = q.src;
    out->src_port = q.dst_port;
    out->dst_port = q.src_port;
    if (q.proto == NEXT_ICMP || q.proto == NEXT_ICMPV6)
        out->src_port = out->dst_port = icmp_answer(q.src_port);
    return OK;
}
