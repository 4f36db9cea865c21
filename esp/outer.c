#include "esp/outer.h"

#define IPV4_DF 0x4000u

static bool is_ipv4(const uint8_t *packet)
{
    return packet[0] >> 4 == 4;
}

/* IPv6's traffic class lies across two bytes. */
static uint8_t tos_of(const uint8_t *packet)
{
    return is_ipv4(packet) ? packet[1] : (uint8_t)(get_be16(packet) >> 4);
}

/* Whether routers may not fragment it: an IPv6 packet is never fragmented on its way (RFC 8200 section 5). */
static bool df_of(const uint8_t *packet)
{
    return !is_ipv4(packet) || (get_be16(packet + 6) & IPV4_DF) != 0;
}

static struct outer by_rule(const struct sa *sa, uint8_t tos, bool df)
{
    const struct outer_rule *rule = &sa->params.outer;
    return (struct outer){.tos = (uint8_t)(rule->dscp[tos >> 2] << 2 | (rule->ecn ? tos & OUTER_ECN : 0)),
                          .df = rule->df == DF_COPY ? df : rule->df == DF_SET,
                          .flow = sa->flow};
}

struct outer outer_of(const struct sa *sa, const uint8_t *inner)
{
    uint8_t tos = tos_of(inner);
    bool df = df_of(inner);
    if (sa->params.mode == MODE_TRANSPORT)
        return (struct outer){.tos = tos,
                              .df = df,
                              .ttl = inner[is_ipv4(inner) ? 8 : 7],
                              .flow = is_ipv4(inner) ? 0 : get_be32(inner) & OUTER_FLOW_MAX};
    return by_rule(sa, tos, df);
}

struct outer outer_of_dummy(const struct sa *sa)
{
    return sa->params.mode == MODE_TRANSPORT ? (struct outer){.tos = 0} : by_rule(sa, 0, false);
}

/* -- congestion -- */

enum { NOT_ECT, ECT1, ECT0, CE, FIELD = 3, ODD = 4, DROP = 8 };

/* RFC 6040 figure 4: by the inner and then the outer field. ODD marks what it calls currently unused. */
static const uint8_t decapsulated[4][4] = {
    [NOT_ECT] = {[NOT_ECT] = NOT_ECT, [ECT0] = NOT_ECT | ODD, [ECT1] = NOT_ECT | ODD, [CE] = DROP},
    [ECT0] = {[NOT_ECT] = ECT0, [ECT0] = ECT0, [ECT1] = ECT1, [CE] = CE},
    [ECT1] = {[NOT_ECT] = ECT1, [ECT0] = ECT1 | ODD, [ECT1] = ECT1, [CE] = CE},
    [CE] = {[NOT_ECT] = CE, [ECT0] = CE, [ECT1] = CE | ODD, [CE] = CE},
};

/* Turns bits of the ECN field; IPv4's checksum is updated for it (RFC 1624 section 3, equation 3). */
static void turn_ecn(uint8_t *packet, uint8_t bits)
{
    uint16_t old = get_be16(packet), new = (uint16_t)(old ^ (is_ipv4(packet) ? bits : bits << 4));
    put_be16(packet, new);
    if (!is_ipv4(packet))
        return;
    uint32_t sum = (uint32_t)(uint16_t)~get_be16(packet + 10) + (uint16_t)~old + new;
    sum = (sum & 0xffff) + (sum >> 16);
    put_be16(packet + 10, (uint16_t) ~(sum + (sum >> 16)));
}

enum outer_ecn outer_ecn_in(uint8_t tos, uint8_t *inner)
{
    uint8_t before = tos_of(inner) & OUTER_ECN, after = decapsulated[before][tos & OUTER_ECN];
    if (after & DROP)
        return OUTER_ECN_DROP;
    if ((after & FIELD) != before)
        turn_ecn(inner, (after & FIELD) ^ before);
    return after & ODD ? OUTER_ECN_ODD : OUTER_ECN_USUAL;
}

/* -- the header -- */

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
