#include "tun/cut.h"

#include "tun/offload.h"
#include "tun/packet.h"

#define UNIT 8u /* the fragment offset counts these */
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_COPIED 0x80

/* The options with their copied flag set, padded to whole words (RFC 791 section 3.1). False: they make no sense. */
static bool copy_options(struct cut *c)
{
    const uint8_t *p = c->packet;
    c->later_len = IPV4_HEADER;
    for (uint32_t at = IPV4_HEADER; at < c->header_len && p[at] != OPTION_END;) {
        uint32_t left = c->header_len - at;
        uint32_t len = p[at] == OPTION_NOP ? 1u : left < 2 ? 0u : (uint32_t)p[at + 1];
        if (len == 0 || len > left || (p[at] != OPTION_NOP && len < 2))
            return false;
        if (p[at] & OPTION_COPIED) {
            memcpy(c->later + c->later_len, p + at, len);
            c->later_len += len;
        }
        at += len;
    }
    while (c->later_len % 4)
        c->later[c->later_len++] = OPTION_END;
    c->later[0] = (uint8_t)(4 << 4 | c->later_len / 4);
    return true;
}

enum err cut_begin(struct cut *c, struct span packet, uint32_t room)
{
    struct ip_view ip;
    TRY(ip_view_parse(&ip, packet));
    if (ip.ipv6)
        return ERR_SYNTAX;
    uint16_t field = get_be16(packet.data + IPV4_FRAGMENT);
    if (field & IPV4_DF)
        return ERR_MISMATCH;
    /* Beyond what a datagram can be offsets would begin anew, and a piece would pass for the first one, with ports. */
    if ((field & IPV4_FRAGMENT_OFFSET) * UNIT + ip.len > UINT16_MAX)
        return ERR_SYNTAX;
    if (room < ip.header_len + UNIT)
        return ERR_RANGE;
    *c = (struct cut){.packet = packet.data, .len = ip.len, .header_len = ip.header_len, .room = room};
    memcpy(c->later, packet.data, IPV4_HEADER);
    return copy_options(c) ? OK : ERR_SYNTAX;
}

enum err cut_begin_ipv6(struct cut *c, struct span packet, const struct ip_insertion *behind, uint32_t room,
                        uint32_t id)
{
    struct ip_view ip;
    TRY(ip_view_parse(&ip, packet));
    if (!ip.ipv6 || behind->offset < IPV6_HEADER || behind->offset > ip.len || behind->next_at >= behind->offset)
        return ERR_SYNTAX;
    if (room < behind->offset + CUT_IPV6_MORE + UNIT)
        return ERR_RANGE;
    *c = (struct cut){.packet = packet.data,
                      .len = ip.len,
                      .header_len = behind->offset,
                      .room = room,
                      .ipv6 = true,
                      .next_at = behind->next_at,
                      .id = id};
    return OK;
}

/* Of a fragment. */
static uint32_t header_of(const struct cut *c)
{
    if (c->ipv6)
        return c->header_len + CUT_IPV6_MORE;
    return c->at == 0 ? c->header_len : c->later_len;
}

static uint32_t left_of(const struct cut *c)
{
    return c->len - c->header_len - c->at;
}

uint32_t cut_size(const struct cut *c)
{
    uint32_t header = header_of(c), left = left_of(c);
    if (left == 0)
        return 0;
    return header + (header + left <= c->room ? left : (c->room - header) / UNIT * UNIT);
}

static void put_ipv6(const struct cut *c, uint8_t *out, uint32_t size, bool more)
{
    uint8_t *fragment = out + c->header_len;
    memcpy(out, c->packet, c->header_len);
    put_be16(out + IPV6_LENGTH, (uint16_t)(size - IPV6_HEADER));
    out[c->next_at] = PROTO_FRAGMENT;
    fragment[0] = c->packet[c->next_at];
    fragment[1] = 0;
    put_be16(fragment + 2, (uint16_t)(c->at | more)); /* the offset is a multiple of 8, and stands above three bits */
    put_be32(fragment + 4, c->id);
}

static void put_ipv4(const struct cut *c, uint8_t *out, uint32_t size, bool left)
{
    uint32_t header = header_of(c);
    uint16_t was = get_be16(c->packet + IPV4_FRAGMENT);
    uint16_t offset = (uint16_t)((was & IPV4_FRAGMENT_OFFSET) + c->at / UNIT);
    bool more = left || (was & IPV4_MF);
    memcpy(out, c->at == 0 ? c->packet : c->later, header);
    put_be16(out + IPV4_LENGTH, (uint16_t)size);
    put_be16(out + IPV4_FRAGMENT, (uint16_t)(offset | (more ? IPV4_MF : 0)));
    put_be16(out + IPV4_CHECKSUM, 0);
    put_be16(out + IPV4_CHECKSUM, (uint16_t)~checksum_fold(checksum_add(0, out, header)));
}

void cut_next(struct cut *c, uint8_t *out)
{
    uint32_t size = cut_size(c), header = header_of(c), payload = size - header;
    bool left = payload < left_of(c);
    memcpy(out + header, c->packet + c->header_len + c->at, payload);
    if (c->ipv6)
        put_ipv6(c, out, size, left);
    else
        put_ipv4(c, out, size, left);
    c->at += payload;
}
