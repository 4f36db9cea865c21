/*
 * Merging packets of one flow into superpackets for the TUN device, in the manner of the kernel's GRO: only what a
 * device that segments again would turn back into the same packets.
 */
#include "tun/offload.h"
#include "tun/packet.h"

#include <stdlib.h>
#include <string.h>

#define MERGED_MAX 65535           /* IP length of a superpacket */
#define UDP_MERGED_MAX 64          /* datagrams in one: what the kernel's own UDP GRO keeps to */
#define MERGED_PIECES LOOP_IOV_MAX /* packets in one superpacket */
#define TCP_NEVER_MERGE (TCP_FIN | TCP_SYN | TCP_RST | TCP_URG | TCP_CWR)

_Static_assert(UDP_MERGED_MAX <= MERGED_PIECES, "one piece for each datagram");

/* How a packet stands to the runs being gathered. */
enum standing {
    FOREIGN,   /* neither TCP nor UDP: overtakes nothing that matters */
    PORTLESS,  /* of a TCP or UDP flow perhaps, but which one can't be seen (fragments, options, extension headers) */
    OF_A_FLOW, /* of a flow, and to be passed on as it is */
    MERGEABLE,
};

/* A packet and where its parts are. Ports stand right behind the addresses: there are no options. */
struct item {
    uint8_t *packet;
    uint32_t len;
    uint32_t payload;    /* bytes behind the headers */
    uint16_t transport;  /* 20 or 40 */
    uint16_t header_len; /* IP and transport */
    bool ipv6, udp;
};

/* A run of packets to be written as one. */
struct flow {
    struct item first; /* its headers speak for all */
    uint32_t next_seq; /* TCP */
    uint32_t len;      /* IP length of the whole */
    uint16_t pieces;   /* packets gathered; 0: unused */
    bool closed;       /* nothing may follow: a short packet or PSH ended it */
    bool push;
    struct iovec iov[MERGED_PIECES];
};

struct coalescer {
    bool uso;
    struct loop *loop;
    struct loop_io *io;
    struct loop_slot *slot;
    unsigned writes;
    unsigned last;  /* the flow that the previous packet joined: most packets come in runs */
    unsigned evict; /* the flow that goes next when all are taken */
    struct flow flows[COALESCE_FLOWS];
};

enum err coalescer_new(struct coalescer **out, bool uso)
{
    struct coalescer *c = calloc(1, sizeof *c);
    if (!c)
        return ERR_NOMEM;
    c->uso = uso;
    *out = c;
    return OK;
}

void coalescer_free(struct coalescer *c)
{
    free(c);
}

void coalesce_begin(struct coalescer *c, struct loop *loop, struct loop_io *io, struct loop_slot *slot)
{
    c->loop = loop;
    c->io = io;
    c->slot = slot;
    c->writes = 0;
}

/* -- looking at a packet -- */

static bool checksum_holds(const struct item *it, uint8_t protocol)
{
    uint32_t len = it->len - it->transport;
    uint64_t sum = pseudo_addresses(it->packet, it->ipv6) + protocol + len;
    return checksum_fold(checksum_add(sum, it->packet + it->transport, len)) == 0xffff;
}

static enum standing look_tcp(struct item *it)
{
    const uint8_t *t = it->packet + it->transport;
    uint32_t room = it->len - it->transport;
    if (room < TCP_HEADER)
        return PORTLESS;
    uint32_t header = (uint32_t)(t[TCP_DATA] >> 4) * 4;
    if (header < TCP_HEADER || header >= room || t[TCP_FLAGS] & TCP_NEVER_MERGE || !(t[TCP_FLAGS] & TCP_ACKED))
        return OF_A_FLOW;
    it->header_len = (uint16_t)(it->transport + header);
    it->payload = room - header;
    return checksum_holds(it, PROTO_TCP) ? MERGEABLE : OF_A_FLOW;
}

static enum standing look_udp(const struct coalescer *c, struct item *it)
{
    const uint8_t *t = it->packet + it->transport;
    uint32_t room = it->len - it->transport;
    if (room < UDP_HEADER)
        return PORTLESS;
    /* A datagram without checksum would gain one, so it stays alone. */
    if (!c->uso || room == UDP_HEADER || get_be16(t + UDP_LENGTH) != room || get_be16(t + UDP_CHECKSUM) == 0)
        return OF_A_FLOW;
    it->header_len = (uint16_t)(it->transport + UDP_HEADER);
    it->payload = room - UDP_HEADER;
    return checksum_holds(it, PROTO_UDP) ? MERGEABLE : OF_A_FLOW;
}

static enum standing look_ipv4(const struct coalescer *c, struct item *it)
{
    const uint8_t *p = it->packet;
    if (it->len < IPV4_HEADER)
        return FOREIGN;
    if (p[IPV4_PROTOCOL] != PROTO_TCP && p[IPV4_PROTOCOL] != PROTO_UDP)
        return FOREIGN;
    if (p[0] != 0x45 || get_be16(p + IPV4_FRAGMENT) & (IPV4_MF | IPV4_FRAGMENT_OFFSET))
        return PORTLESS;
    it->transport = IPV4_HEADER;
    it->udp = p[IPV4_PROTOCOL] == PROTO_UDP;
    enum standing found = it->udp ? look_udp(c, it) : look_tcp(it);
    /* A merged packet gets a new header checksum, so a wrong one must not come this far. */
    bool sound = get_be16(p + IPV4_LENGTH) == it->len && checksum_fold(checksum_add(0, p, IPV4_HEADER)) == 0xffff;
    return found == MERGEABLE && !sound ? OF_A_FLOW : found;
}

static enum standing look_ipv6(const struct coalescer *c, struct item *it)
{
    const uint8_t *p = it->packet;
    if (it->len < IPV6_HEADER)
        return FOREIGN;
    it->transport = IPV6_HEADER;
    it->ipv6 = true;
    switch (p[IPV6_NEXT]) {
    case PROTO_TCP:
    case PROTO_UDP:
        break;
    case PROTO_HOPOPT:
    case PROTO_ROUTING:
    case PROTO_FRAGMENT:
    case PROTO_AH:
    case PROTO_DSTOPTS:
        return PORTLESS;
    default:
        return FOREIGN;
    }
    it->udp = p[IPV6_NEXT] == PROTO_UDP;
    enum standing found = it->udp ? look_udp(c, it) : look_tcp(it);
    return found == MERGEABLE && IPV6_HEADER + (uint32_t)get_be16(p + IPV6_LENGTH) != it->len ? OF_A_FLOW : found;
}

static enum standing look(const struct coalescer *c, struct item *it)
{
    if (it->len == 0)
        return FOREIGN;
    switch (it->packet[0] >> 4) {
    case 4:
        return look_ipv4(c, it);
    case 6:
        return look_ipv6(c, it);
    default:
        return FOREIGN;
    }
}

/* -- comparing -- */

static bool same_addresses(const struct item *a, const struct item *b)
{
    if (a->ipv6 != b->ipv6)
        return false;
    return a->ipv6 ? memcmp(a->packet + IPV6_SOURCE, b->packet + IPV6_SOURCE, 32) == 0
                   : memcmp(a->packet + IPV4_SOURCE, b->packet + IPV4_SOURCE, 8) == 0;
}

static bool same_flow(const struct item *a, const struct item *b)
{
    return a->udp == b->udp && same_addresses(a, b) &&
           memcmp(a->packet + a->transport, b->packet + b->transport, 4) == 0;
}

/* The header fields of the network layer that every packet cut from a superpacket has in common. */
static bool same_ip(const struct flow *f, const struct item *it)
{
    const uint8_t *a = f->first.packet, *b = it->packet;
    if (it->ipv6) /* version, traffic class, flow label */
        return get_be32(a) == get_be32(b) && a[IPV6_HOP_LIMIT] == b[IPV6_HOP_LIMIT];

    uint16_t fragment = get_be16(a + IPV4_FRAGMENT);
    if (a[IPV4_TOS] != b[IPV4_TOS] || a[IPV4_TTL] != b[IPV4_TTL] || fragment != get_be16(b + IPV4_FRAGMENT))
        return false;
    /* The Identification means something only where fragments are possible (RFC 6864 section 4.1). */
    return fragment & IPV4_DF || get_be16(b + IPV4_ID) == (uint16_t)(get_be16(a + IPV4_ID) + f->pieces);
}

static bool same_tcp(const struct flow *f, const struct item *it)
{
    const uint8_t *a = f->first.packet + f->first.transport, *b = it->packet + it->transport;
    if (get_be32(b + TCP_SEQ) != f->next_seq || get_be32(a + TCP_ACK) != get_be32(b + TCP_ACK))
        return false;
    if (a[TCP_DATA] != b[TCP_DATA] || (a[TCP_FLAGS] ^ b[TCP_FLAGS]) & ~TCP_PSH)
        return false;
    return get_be16(a + TCP_WINDOW) == get_be16(b + TCP_WINDOW) &&
           memcmp(a + TCP_URGENT, b + TCP_URGENT, f->first.header_len - f->first.transport - (size_t)TCP_URGENT) == 0;
}

static bool may_join(const struct flow *f, const struct item *it)
{
    if (f->closed || it->payload > f->first.payload || f->len + it->payload > MERGED_MAX)
        return false;
    if (f->pieces == (it->udp ? UDP_MERGED_MAX : MERGED_PIECES))
        return false;
    return same_ip(f, it) && (it->udp || same_tcp(f, it));
}

/* -- writing -- */

/* Puts the first packet's headers right for the whole run and describes it in the virtio_net_hdr. */
static void finish_headers(struct flow *f, struct virtio_net_hdr *h)
{
    const struct item *first = &f->first;
    uint8_t *p = first->packet, *t = p + first->transport;
    uint32_t len = f->len - first->transport;
    uint16_t csum_offset = first->udp ? UDP_CHECKSUM : TCP_CHECKSUM;

    if (first->ipv6) {
        put_be16(p + IPV6_LENGTH, (uint16_t)len);
    } else {
        put_be16(p + IPV4_LENGTH, (uint16_t)f->len);
        put_be16(p + IPV4_CHECKSUM, 0);
        put_be16(p + IPV4_CHECKSUM, (uint16_t)~checksum_fold(checksum_add(0, p, IPV4_HEADER)));
    }
    if (first->udp)
        put_be16(t + UDP_LENGTH, (uint16_t)len);
    else if (f->push)
        t[TCP_FLAGS] |= TCP_PSH;
    uint64_t pseudo = pseudo_addresses(p, first->ipv6) + (first->udp ? PROTO_UDP : PROTO_TCP) + len;
    put_be16(t + csum_offset, checksum_fold(pseudo));

    *h = (struct virtio_net_hdr){
        .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = first->udp    ? VIRTIO_NET_HDR_GSO_UDP_L4
                    : first->ipv6 ? VIRTIO_NET_HDR_GSO_TCPV6
                                  : VIRTIO_NET_HDR_GSO_TCPV4,
        .hdr_len = first->header_len,
        .gso_size = (uint16_t)first->payload,
        .csum_start = first->transport,
        .csum_offset = csum_offset,
    };
}

static void write_packet(struct coalescer *c, const struct virtio_net_hdr *h, struct iovec *iov, unsigned n)
{
    uint8_t *start = (uint8_t *)iov[0].iov_base - TUN_HDR_LEN;
    memcpy(start, h, TUN_HDR_LEN);
    iov[0].iov_base = start;
    iov[0].iov_len += TUN_HDR_LEN;
    loop_write(c->loop, c->io, c->slot, iov, n);
    c->writes++;
}

static void write_verbatim(struct coalescer *c, const struct item *it)
{
    static const struct virtio_net_hdr none; /* GSO_NONE, and the checksum is there */
    struct iovec iov = {it->packet, it->len};
    write_packet(c, &none, &iov, 1);
}

static void flow_write(struct coalescer *c, struct flow *f)
{
    if (f->pieces == 1) {
        write_verbatim(c, &f->first);
    } else {
        struct virtio_net_hdr h;
        finish_headers(f, &h);
        write_packet(c, &h, f->iov, f->pieces);
    }
    f->pieces = 0;
}

/* -- gathering -- */

static void flow_start(struct flow *f, const struct item *it)
{
    const uint8_t *t = it->packet + it->transport;
    f->first = *it;
    f->len = it->len;
    f->pieces = 1;
    f->push = !it->udp && t[TCP_FLAGS] & TCP_PSH;
    f->closed = f->push;
    f->next_seq = it->udp ? 0 : get_be32(t + TCP_SEQ) + it->payload;
    f->iov[0] = (struct iovec){it->packet, it->len};
}

static void flow_join(struct flow *f, const struct item *it)
{
    f->push = !it->udp && it->packet[it->transport + TCP_FLAGS] & TCP_PSH;
    f->closed = f->push || it->payload < f->first.payload;
    f->next_seq += it->payload;
    f->len += it->payload;
    f->iov[f->pieces++] = (struct iovec){it->packet + it->header_len, it->payload};
}

/* The run that this packet's flow has, or NULL. */
static struct flow *find_flow(struct coalescer *c, const struct item *it)
{
    struct flow *f = &c->flows[c->last];
    if (f->pieces && same_flow(&f->first, it))
        return f;
    for (unsigned i = 0; i < COALESCE_FLOWS; i++) {
        f = &c->flows[i];
        if (f->pieces && same_flow(&f->first, it)) {
            c->last = i;
            return f;
        }
    }
    return NULL;
}

/* A place for a new run: a free one, or in turn that of a run which then goes out. */
static struct flow *take_flow(struct coalescer *c)
{
    for (unsigned i = 0; i < COALESCE_FLOWS; i++)
        if (!c->flows[i].pieces) {
            c->last = i;
            return &c->flows[i];
        }
    c->last = c->evict;
    c->evict = (c->evict + 1) % COALESCE_FLOWS;
    flow_write(c, &c->flows[c->last]);
    return &c->flows[c->last];
}

static void add_mergeable(struct coalescer *c, const struct item *it)
{
    struct flow *f = find_flow(c, it);
    if (f && may_join(f, it)) {
        flow_join(f, it);
        return;
    }
    if (f)
        flow_write(c, f);
    else
        f = take_flow(c);
    flow_start(f, it);
}

/* What stays alone: first goes what its flow has gathered, so that it overtakes nothing of its own. */
static void add_single(struct coalescer *c, const struct item *it, enum standing standing)
{
    if (standing == OF_A_FLOW) {
        struct flow *f = find_flow(c, it);
        if (f)
            flow_write(c, f);
    }
    if (standing == PORTLESS)
        for (unsigned i = 0; i < COALESCE_FLOWS; i++)
            if (c->flows[i].pieces && same_addresses(&c->flows[i].first, it))
                flow_write(c, &c->flows[i]);
    write_verbatim(c, it);
}

void coalesce_add(struct coalescer *c, uint8_t *packet, uint32_t len)
{
    struct item it = {.packet = packet, .len = len};
    enum standing standing = look(c, &it);

    if (standing == MERGEABLE)
        add_mergeable(c, &it);
    else
        add_single(c, &it, standing);
}

unsigned coalesce_flush(struct coalescer *c)
{
    for (unsigned i = 0; i < COALESCE_FLOWS; i++)
        if (c->flows[i].pieces)
            flow_write(c, &c->flows[i]);
    return c->writes;
}
