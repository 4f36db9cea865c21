/*
 * Transport mode: packets between the two ends themselves lose their IP header on the way into ESP and get it back on the
 * way out (RFC 4303 section 3.1.1). As protocol 50 the header stays in front, with its options and with the extension
 * headers that are for the way; in UDP the kernel makes a new one of the same addresses.
 */
#include <string.h>

#include "core/worker_impl.h"
#include "esp/ah.h"
#include "esp/outer.h"
#include "tun/packet.h"
#include "tun/raw.h"

#define SLACK 64 /* before the first packet of a slot: in UDP, its IP header reaches back that far, at most */
_Static_assert(SLACK >= AH_SCRATCH, "what is kept free for the one is enough for the other");

/* -- outbound -- */

/* What all segments of a packet have in common. */
struct framing {
    struct ip_insertion in; /* where ESP goes */
    const struct outer *outer;
    uint16_t mss; /* for SYNs; 0: as they are */
};

/* Two spellings of a length field. */
static void put_length(uint8_t *header, bool ipv6, uint32_t len)
{
    put_be16(header + (ipv6 ? IPV6_LENGTH : IPV4_LENGTH), (uint16_t)(ipv6 ? len - IPV6_HEADER : len));
}

static void add(struct batch *b, const struct framing *f, uint8_t *payload, uint32_t len, uint8_t next_header,
                uint32_t head)
{
    b->head[b->n] = (uint16_t)head;
    b->v[b->n++] = (struct esp_packet){.data = payload,
                                       .len = len,
                                       .next_header = next_header,
                                       .family = b->path.remote.ip.family,
                                       .head = (uint16_t)head,
                                       .outer = *f->outer};
}

/* The header goes before the place of ESP's: the kernel puts the IPv4 checksum right. */
static void put_raw(struct worker *w, struct batch *b, struct segments *s, const struct framing *f, uint32_t size)
{
    const struct ip_insertion *in = &f->in;
    bool ah = b->sa->params.proto == PROTOCOL_AH;
    uint8_t family = s->ipv6 ? 6 : 4;
    uint32_t sealed_len = sa_sealed_len(b->sa, family, size - in->offset);
    uint8_t *at = b->slot->data + b->used, *packet = at + sa_headroom(b->sa, family);
    segment_next(s, packet);
    if (f->mss)
        clamp_mss(packet, size, f->mss);
    uint8_t next_header = packet[in->next_at];
    memmove(at, packet, in->offset);
    at[in->next_at] = ah ? RAW_AH : RAW_ESP;
    put_length(at, s->ipv6, in->offset + sealed_len);
    if (ah && !s->ipv6 &&
        !get_be16(at + IPV4_ID)) /* as Linux leaves it with DF, for itself to fill in: too late here */
        put_be16(at + IPV4_ID, frame_identification(w));
    add(b, f, packet + in->offset, size - in->offset, next_header, in->offset);
    b->used += in->offset + sealed_len + (ah ? AH_SCRATCH : 0);
}

/*
 * The payload goes where it is sealed, so that the batch is contiguous. That brings the header over the end of the packet
 * before, which is not sealed yet: what stands there is put back.
 */
static void put_udp(struct batch *b, struct segments *s, const struct framing *f, uint32_t size)
{
    const struct ip_insertion *in = &f->in;
    const struct suite *suite = &b->sa->params.suite;
    uint32_t headroom = esp_headroom(suite), over = in->offset > headroom ? in->offset - headroom : 0;
    uint8_t kept[SLACK];
    if (!b->n)
        b->used = SLACK;
    uint8_t *at = b->slot->data + b->used, *packet = at + headroom - in->offset;
    memcpy(kept, at - over, over);
    segment_next(s, packet);
    if (f->mss)
        clamp_mss(packet, size, f->mss);
    uint8_t next_header = packet[in->next_at];
    memcpy(at - over, kept, over);
    add(b, f, at + headroom, size - in->offset, next_header, 0);
    b->used += esp_sealed_len(suite, size - in->offset);
}

/* One segment. STAT_COUNT: done; else why it, and all that follow, are dropped. */
static enum stat_id frame_one(struct worker *w, struct sa *sa, struct segments *s, const struct framing *f)
{
    uint32_t size = segment_size(s, s->next), head = f->in.offset;
    uint32_t len = head + sa_sealed_len(sa, s->ipv6 ? 6 : 4, size - head);
    if (len - (s->ipv6 ? IPV6_HEADER : 0) > UINT16_MAX ||
        (sa->params.proto == PROTOCOL_AH && len + AH_SCRATCH > TRANSFORM_MAC_MAX))
        return STAT_DROP_OUT_TOO_BIG;
    struct batch *b = frame_batch(w, sa, SLACK + len);
    if (!b)
        return STAT_DROP_OUT_NO_BUFFER;
    if (b->path.remote.ip.family != (s->ipv6 ? 6 : 4)) /* the peer has moved, its packets have not */
        return STAT_DROP_OUT_TRANSPORT;
    if (b->path.transport == PATH_RAW)
        put_raw(w, b, s, f, size);
    else if (head != (s->ipv6 ? IPV6_HEADER : IPV4_HEADER))
        return STAT_DROP_OUT_TRANSPORT;
    else if (len + UDP_HEADER - (s->ipv6 ? IPV6_HEADER : 0) > UINT16_MAX)
        return STAT_DROP_OUT_TOO_BIG;
    else
        put_udp(b, s, f, size);
    return STAT_COUNT;
}

void frame_transport(struct worker *w, struct sa *sa, struct segments *s, const struct outer *outer, uint16_t mss)
{
    struct ip_view v;
    struct framing f = {.outer = outer, .mss = mss};
    enum stat_id drop = STAT_COUNT;
    if (ip_view_parse(&v, span_of(s->packet, s->len)) != OK || ip_view_insertion(&v, s->packet, &f.in) != OK ||
        f.in.offset > LOOP_HEAD_MAX || (sa->params.proto == PROTOCOL_AH && !ah_covers(s->packet, f.in.offset)))
        drop = STAT_DROP_OUT_TRANSPORT;
    while (drop == STAT_COUNT && segment_more(s))
        drop = frame_one(w, sa, s, &f);
    if (drop != STAT_COUNT)
        worker_sa_drop(w, drop, s->count - s->next, sa);
}

/* -- inbound -- */

uint32_t transport_head(uint8_t family, uint32_t head)
{
    return head ? head : outer_len(family);
}

void transport_keep(struct batch *b, const uint8_t *esp, uint8_t *dst, uint32_t head)
{
    if (head)
        memcpy(dst - head, esp - head, head);
    b->head[b->n] = (uint16_t)transport_head(b->from.ip.family, head);
}

/* Whether a header that came over the wire, where anybody may write, has the addresses of the SA. */
static bool addresses_hold(const uint8_t *header, const struct path *path)
{
    uint8_t family = header[0] >> 4;
    unsigned len = ip_len(family), at = family == 4 ? IPV4_SOURCE : IPV6_SOURCE;
    return family == path->remote.ip.family && memcmp(header + at, path->remote.ip.b, len) == 0 &&
           memcmp(header + at + len, path->local.ip.b, len) == 0;
}

/* The header that came, with what ESP or AH had taken the place of. */
static bool restore_header(uint8_t *header, uint32_t head, uint8_t protocol, const struct esp_packet *p)
{
    bool ipv6 = header[0] >> 4 == 6;
    struct ip_view v = {.ipv6 = ipv6,
                        .protocol = header[ipv6 ? IPV6_NEXT : IPV4_PROTOCOL],
                        .header_len = (uint16_t)(ipv6 ? IPV6_HEADER : head),
                        .len = head};
    struct ip_insertion in;
    if (ip_view_find(&v, header, protocol, &in) != OK || head + p->len - (ipv6 ? IPV6_HEADER : 0) > UINT16_MAX)
        return false;
    header[in.next_at] = p->next_header;
    put_length(header, ipv6, head + p->len);
    if (!ipv6) {
        put_be16(header + IPV4_CHECKSUM, 0);
        put_be16(header + IPV4_CHECKSUM, (uint16_t)~checksum_fold(checksum_add(0, header, head)));
    }
    return true;
}

/* A header of the SA's own addresses, with what came in the one of UDP. DF, so that packets of a flow need no Identifications that count up. */
static bool make_header(uint8_t *header, uint32_t head, const struct esp_packet *p, const struct path *path)
{
    struct writer w = writer_of(header, head);
    const struct outer outer = {.tos = p->outer.tos, .ttl = p->outer.ttl, .df = true};
    return head == outer_len(path->remote.ip.family) &&
           outer_put(&w, &outer, &path->remote.ip, &path->local.ip, p->next_header, p->len, 0) == OK;
}

static uint64_t add_address(uint64_t sum, const struct ip *ip)
{
    return checksum_add(sum, ip->b, ip_len(ip->family));
}

/* Where a protocol has a checksum that covers the addresses, or 0. */
static uint32_t checksum_at(uint8_t protocol)
{
    switch (protocol) {
    case PROTO_TCP:
        return TCP_CHECKSUM;
    case PROTO_UDP:
    case PROTO_UDPLITE:
    case PROTO_DCCP:
        return UDP_CHECKSUM;
    case PROTO_ICMPV6:
        return ICMPV6_CHECKSUM;
    default:
        return 0;
    }
}

/*
 * Behind a NAT the peer has summed other addresses than we see: the difference goes into the checksum, not its value, so
 * that one that was wrong stays so (RFC 3948 section 3.1.2, RFC 1624 equation 3). A UDP checksum of zero is none.
 */
static void repair_checksum(const struct sa *sa, const struct path *path, uint8_t *packet, uint32_t len)
{
    struct ip_view v;
    uint8_t protocol;
    uint32_t at;
    if (ip_view_parse(&v, span_of(packet, len)) != OK || ip_view_transport(&v, packet, &protocol, &at) != OK)
        return;
    uint32_t field = checksum_at(protocol);
    if (!field || at + field + 2 > v.len)
        return;
    uint8_t *checksum = packet + at + field;
    uint16_t before = get_be16(checksum);
    if (protocol == PROTO_UDP && before == 0)
        return;
    uint16_t theirs = checksum_fold(add_address(add_address(0, &sa->params.seen_local), &sa->params.seen_remote));
    uint64_t ours = add_address(add_address(0, &path->local.ip), &path->remote.ip);
    uint16_t after = (uint16_t)~checksum_fold((uint16_t)~before + (uint64_t)(uint16_t)~theirs + ours);
    put_be16(checksum, after == 0 && protocol != PROTO_TCP ? 0xffff : after);
}

static bool nat_between(const struct sa *sa, const struct path *path)
{
    const struct sa_params *p = &sa->params;
    return p->seen_local.family && p->seen_remote.family &&
           !(ip_equal(&p->seen_local, &path->local.ip) && ip_equal(&p->seen_remote, &path->remote.ip));
}

bool transport_restore(struct batch *b, unsigned i)
{
    struct path path = sa_path(b->sa);
    struct esp_packet *p = &b->v[i];
    uint32_t head = b->head[i];
    uint8_t *header = p->data - head;
    bool raw = b->socket->kind != SOCKET_UDP;
    uint8_t protocol = b->socket->kind == SOCKET_AH ? RAW_AH : RAW_ESP;
    if (p->data != p->dst) /* AH was opened in between */
        memmove(header, p->dst - head, head);
    if (raw && !addresses_hold(header, &path)) {
        p->drop = STAT_DROP_IN_SELECTOR;
        return false;
    }
    if (!(raw ? restore_header(header, head, protocol, p) : make_header(header, head, p, &path))) {
        p->drop = STAT_DROP_IN_MALFORMED;
        return false;
    }
    p->data = header;
    p->len += head;
    if (nat_between(b->sa, &path))
        repair_checksum(b->sa, &path, header, p->len);
    return true;
}
