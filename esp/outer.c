#include "esp/outer.h"

#define IPV4_DF 0x4000u

/* The checksum of an IPv4 header (RFC 791 section 3.1), its own field being 0. */
static uint16_t header_checksum(const uint8_t *header)
{
    uint32_t sum = 0;
    for (unsigned i = 0; i < OUTER_IPV4; i += 2)
        sum += get_be16(header + i);
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t) ~(sum + (sum >> 16));
}

static enum err put_ipv4(struct writer *w, const struct outer *o, const struct ip *from, const struct ip *to,
                         uint8_t protocol, size_t payload_len, uint16_t id)
{
    if (payload_len > UINT16_MAX - OUTER_IPV4)
        return ERR_RANGE;
    uint8_t *header = w->at;
    write_u8(w, 4 << 4 | OUTER_IPV4 / 4);
    write_u8(w, o->tos);
    write_u16(w, (uint16_t)(OUTER_IPV4 + payload_len));
    write_u16(w, id);
    write_u16(w, o->df ? IPV4_DF : 0);
    write_u8(w, o->ttl ? o->ttl : OUTER_TTL);
    write_u8(w, protocol);
    write_u16(w, 0);
    write_bytes(w, from->b, 4);
    write_bytes(w, to->b, 4);
    if (w->failed)
        return ERR_FULL;
    put_be16(header + 10, header_checksum(header));
    return OK;
}

static enum err put_ipv6(struct writer *w, const struct outer *o, const struct ip *from, const struct ip *to,
                         uint8_t protocol, size_t payload_len)
{
    if (payload_len > UINT16_MAX)
        return ERR_RANGE;
    write_u32(w, UINT32_C(6) << 28 | (uint32_t)o->tos << 20 | (o->flow & OUTER_FLOW_MAX));
    write_u16(w, (uint16_t)payload_len);
    write_u8(w, protocol);
    write_u8(w, o->ttl ? o->ttl : OUTER_TTL);
    write_bytes(w, from->b, 16);
    write_bytes(w, to->b, 16);
    return w->failed ? ERR_FULL : OK;
}

enum err outer_put(struct writer *w, const struct outer *o, const struct ip *from, const struct ip *to,
                   uint8_t protocol, size_t payload_len, uint16_t id)
{
    return to->family == 4 ? put_ipv4(w, o, from, to, protocol, payload_len, id)
                           : put_ipv6(w, o, from, to, protocol, payload_len);
}
