/* Cutting a superpacket of the TUN device into the packets that the sender's own stack would have made. */
#include "tun/offload.h"
#include "tun/packet.h"

#include <string.h>

/* One packet whose transport checksum the kernel left to the device. */
static enum err check_csum(const struct segments *s)
{
    if (s->csum_start < s->transport || (uint32_t)s->csum_start + s->csum_offset + 2 > s->len)
        return ERR_SYNTAX;
    return OK;
}

/* What every segment's transport checksum has in common: the pseudo-header without its length, and unchanged fields. */
static uint64_t common_transport(const struct segments *s, uint8_t protocol)
{
    const uint8_t *t = s->packet + s->transport;
    uint64_t sum;

    if (s->transport > IPV6_HEADER && s->ipv6)
        /* A routing header makes the pseudo-header's destination another one (RFC 8200 section 8.1). The kernel left
         * the right sum, with the length of the whole, in the checksum field: take it, less that length. */
        sum = get_be16(t + s->csum_offset) + (uint64_t)(uint16_t) ~(s->len - s->transport);
    else
        sum = pseudo_addresses(s->packet, s->ipv6) + protocol;

    sum += (uint64_t)get_be16(t) + get_be16(t + 2);
    if (protocol == PROTO_UDP)
        return sum;
    sum = checksum_add(sum, t + TCP_ACK, 4) + get_be16(t + TCP_WINDOW);
    return checksum_add(sum, t + TCP_URGENT, s->header_len - s->transport - TCP_URGENT);
}

/* The IPv4 header's sum without the fields that differ between segments. */
static uint64_t common_ip(const struct segments *s)
{
    uint64_t sum = checksum_add(0, s->packet, 2);
    sum = checksum_add(sum, s->packet + IPV4_FRAGMENT, IPV4_CHECKSUM - IPV4_FRAGMENT);
    return checksum_add(sum, s->packet + IPV4_SOURCE, s->transport - (size_t)IPV4_SOURCE);
}

/* The transport protocol that a GSO type is about, and where its checksum is; false: the type fits no such packet. */
static bool gso_protocol(const struct segments *s, uint8_t *protocol, uint16_t *csum_offset)
{
    bool tcp = s->gso == (s->ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4);
    *protocol = tcp ? PROTO_TCP : PROTO_UDP;
    *csum_offset = tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    return tcp || s->gso == VIRTIO_NET_HDR_GSO_UDP_L4;
}

static enum err plan_gso(struct segments *s, const struct ip_view *ip, uint16_t gso_size)
{
    uint8_t wanted, protocol;
    uint16_t csum_offset;
    uint32_t transport;

    if (s->gso != VIRTIO_NET_HDR_GSO_TCPV4 && s->gso != VIRTIO_NET_HDR_GSO_TCPV6 && s->gso != VIRTIO_NET_HDR_GSO_UDP_L4)
        return ERR_UNSUPPORTED;
    if (!s->csum || gso_size == 0 || ip->fragment || !gso_protocol(s, &wanted, &csum_offset))
        return ERR_SYNTAX;
    if (ip_view_transport(ip, s->packet, &protocol, &transport) != OK)
        return ERR_SYNTAX;
    if (protocol != wanted || s->csum_offset != csum_offset || s->csum_start != transport)
        return ERR_SYNTAX;

    uint32_t header = UDP_HEADER;
    if (protocol == PROTO_TCP) {
        if (transport + TCP_HEADER > s->len)
            return ERR_SYNTAX;
        header = (uint32_t)(s->packet[transport + TCP_DATA] >> 4) * 4;
        if (header < TCP_HEADER)
            return ERR_SYNTAX;
    }
    if (transport + header > s->len)
        return ERR_SYNTAX;

    uint32_t payload = s->len - transport - header;
    s->transport = (uint16_t)transport;
    s->header_len = transport + header;
    s->segment_len = gso_size;
    s->count = payload > gso_size ? (payload + gso_size - 1) / gso_size : 1;
    s->transport_sum = common_transport(s, protocol);
    s->ip_sum = s->ipv6 ? 0 : common_ip(s);
    return OK;
}

enum err segment_begin(struct segments *s, struct span frame)
{
    struct virtio_net_hdr h;
    struct ip_view ip;

    _Static_assert(sizeof h == TUN_HDR_LEN, "the header that TUNSETVNETHDRSZ asks for");
    if (frame.len < TUN_HDR_LEN)
        return ERR_TRUNCATED;
    memcpy(&h, frame.data, sizeof h);
    const uint8_t *packet = frame.data + TUN_HDR_LEN;
    TRY(ip_view_parse(&ip, (struct span){packet, frame.len - TUN_HDR_LEN}));

    struct segments plan = {
        .packet = packet,
        .len = ip.len,
        .count = 1,
        .transport = ip.header_len,
        .gso = h.gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN,
        .csum = h.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .ipv6 = ip.ipv6,
    };
    if (plan.csum) {
        plan.csum_start = h.csum_start;
        plan.csum_offset = h.csum_offset;
        TRY(check_csum(&plan));
        plan.transport = plan.csum_start;
    }
    if (plan.gso != VIRTIO_NET_HDR_GSO_NONE)
        TRY(plan_gso(&plan, &ip, h.gso_size));
    *s = plan;
    return OK;
}

uint32_t segment_size(const struct segments *s, uint32_t index)
{
    if (s->header_len == 0)
        return s->len;
    if (index + 1 < s->count)
        return s->header_len + s->segment_len;
    return s->len - index * s->segment_len;
}

/* Zero on the wire means "no checksum" in UDP (RFC 768), so that sum is written as its other form. */
static uint16_t csum_value(uint64_t sum, uint16_t csum_offset)
{
    uint16_t value = (uint16_t)~checksum_fold(sum);
    return value == 0 && csum_offset == UDP_CHECKSUM ? 0xffff : value;
}

static void write_whole(const struct segments *s, uint8_t *out)
{
    if (!s->csum) {
        memcpy(out, s->packet, s->len);
        return;
    }
    /* The field holds the pseudo-header's sum, which thus becomes part of the sum of all. */
    memcpy(out, s->packet, s->csum_start);
    uint64_t sum = checksum_copy(0, out + s->csum_start, s->packet + s->csum_start, s->len - s->csum_start);
    put_be16(out + s->csum_start + s->csum_offset, csum_value(sum, s->csum_offset));
}

static void write_ip(const struct segments *s, uint8_t *out, uint32_t index, uint32_t len)
{
    if (s->ipv6) {
        put_be16(out + IPV6_LENGTH, (uint16_t)(len - IPV6_HEADER));
        return;
    }
    uint16_t id = (uint16_t)(get_be16(s->packet + IPV4_ID) + index);
    put_be16(out + IPV4_LENGTH, (uint16_t)len);
    put_be16(out + IPV4_ID, id);
    put_be16(out + IPV4_CHECKSUM, (uint16_t)~checksum_fold(s->ip_sum + len + id));
}

/* Both: sum holds what is common, the payload, and the pseudo-header's length. */
static void write_tcp(const struct segments *s, uint8_t *t, uint32_t index, uint64_t sum)
{
    const uint8_t *head = s->packet + s->transport;
    uint32_t seq = get_be32(head + TCP_SEQ) + index * s->segment_len;
    uint8_t flags = head[TCP_FLAGS];

    if (index + 1 < s->count)
        flags &= (uint8_t) ~(TCP_FIN | TCP_PSH);
    if (index > 0)
        flags &= (uint8_t)~TCP_CWR; /* said once (RFC 3168 section 6.1.2) */
    put_be32(t + TCP_SEQ, seq);
    t[TCP_FLAGS] = flags;
    sum += (uint64_t)(seq >> 16) + (seq & 0xffff) + get_be16(t + TCP_DATA);
    put_be16(t + TCP_CHECKSUM, csum_value(sum, TCP_CHECKSUM));
}

static void write_udp(uint8_t *t, uint32_t len, uint64_t sum)
{
    put_be16(t + UDP_LENGTH, (uint16_t)len);
    put_be16(t + UDP_CHECKSUM, csum_value(sum + len, UDP_CHECKSUM));
}

void segment_next(struct segments *s, uint8_t *out)
{
    uint32_t index = s->next++;
    if (s->header_len == 0) {
        write_whole(s, out);
        return;
    }
    uint32_t len = segment_size(s, index);
    const uint8_t *payload = s->packet + s->header_len + (size_t)index * s->segment_len;
    uint32_t transport_len = len - s->transport;

    memcpy(out, s->packet, s->header_len);
    uint64_t sum = s->transport_sum + transport_len;
    sum = checksum_copy(sum, out + s->header_len, payload, len - s->header_len);
    write_ip(s, out, index, len);
    if (s->gso == VIRTIO_NET_HDR_GSO_UDP_L4)
        write_udp(out + s->transport, transport_len, sum);
    else
        write_tcp(s, out + s->transport, index, sum);
}
