#include "tun/reassembly.h"

#include <stdlib.h>
#include <string.h>

#include "tun/device.h"
#include "tun/offload.h"
#include "tun/packet.h"

#define UNIT 8u /* the fragment offset counts these */
#define UNITS 8192u
#define FRAGMENT_HEADER 8u
#define HEADER_MAX 256u /* of the headers before the fragments' payload */
#define LEAD (TUN_HDR_LEN + HEADER_MAX)

/* What one fragment says. */
struct piece {
    const uint8_t *packet;
    bool ipv6, more;
    uint32_t header_len; /* what every fragment has in front; IPv6: without the fragment header */
    uint32_t next_at;    /* IPv6: where the whole datagram says what follows … */
    uint8_t next;        /* … and what that is */
    const uint8_t *payload;
    uint32_t offset, len; /* of the payload */
    uint32_t id;
};

/* One that is being put together, or spoiled and kept only so that the rest of it is known. */
struct datagram {
    bool used, spoiled;
    bool ipv6;
    uint8_t protocol; /* IPv6 does without: the first fragment says it (RFC 8200 section 4.5) */
    uint8_t addresses[32];
    uint32_t id, tag;
    ns_t at;
    unsigned fragments;
    uint32_t header_len; /* of the first fragment; 0: it is not there */
    uint32_t total;      /* payload bytes; 0: the last fragment is not there */
    uint32_t end;        /* of what is there */
    uint32_t units;      /* there */
    uint64_t have[UNITS / 64];
    uint8_t bytes[LEAD + UNITS * UNIT]; /* the header ends, and the payload begins, at LEAD */
};

struct reassembly {
    void (*dropped)(void *ctx, uint32_t tag, unsigned fragments);
    void *ctx;
    unsigned used;
    struct datagram v[REASSEMBLY_MAX];
};

enum err reassembly_new(struct reassembly **out, void (*dropped)(void *ctx, uint32_t tag, unsigned fragments),
                        void *ctx)
{
    struct reassembly *r = calloc(1, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    r->dropped = dropped;
    r->ctx = ctx;
    *out = r;
    return OK;
}

void reassembly_free(struct reassembly *r)
{
    free(r);
}

/* -- fragments -- */

static bool parse_ipv4(const struct ip_view *v, struct piece *p)
{
    uint16_t field = get_be16(p->packet + IPV4_FRAGMENT);
    p->more = field & IPV4_MF;
    p->offset = (field & IPV4_FRAGMENT_OFFSET) * UNIT;
    p->header_len = v->header_len;
    p->payload = p->packet + v->header_len;
    p->len = v->len - v->header_len;
    p->id = get_be16(p->packet + IPV4_ID);
    return v->fragment;
}

/* False: it has no fragment header, or one that says nothing. */
static bool parse_ipv6(const struct ip_view *v, struct piece *p)
{
    struct ip_insertion in;
    if (ip_view_find(v, p->packet, PROTO_FRAGMENT, &in) != OK || v->len < in.offset + FRAGMENT_HEADER)
        return false;
    const uint8_t *h = p->packet + in.offset;
    uint16_t field = get_be16(h + 2);
    p->more = field & 1;
    p->offset = field & 0xfff8u;
    p->header_len = in.offset;
    p->next_at = in.next_at;
    p->next = h[0];
    p->payload = h + FRAGMENT_HEADER;
    p->len = v->len - in.offset - FRAGMENT_HEADER;
    p->id = get_be32(h + 4);
    return p->more || p->offset;
}

/* All but the last are of whole units, and the whole is no longer than its length field can say. */
static bool sound(const struct piece *p)
{
    uint32_t before = p->ipv6 ? p->header_len - IPV6_HEADER : p->header_len;
    return p->len && p->header_len <= HEADER_MAX && !(p->more && p->len % UNIT) &&
           before + p->offset + p->len <= UINT16_MAX;
}

/* -- datagrams -- */

static void let_go(struct reassembly *r, struct datagram *d)
{
    if (d->fragments)
        r->dropped(r->ctx, d->tag, d->fragments);
    d->used = false;
    r->used--;
}

static const uint8_t *addresses_of(const struct piece *p, unsigned *len)
{
    *len = p->ipv6 ? 32 : 8;
    return p->packet + (p->ipv6 ? IPV6_SOURCE : IPV4_SOURCE);
}

static bool belongs(const struct datagram *d, const struct piece *p, uint32_t tag)
{
    unsigned len;
    const uint8_t *addresses = addresses_of(p, &len);
    return d->used && d->id == p->id && d->tag == tag && d->ipv6 == p->ipv6 &&
           (p->ipv6 || d->protocol == p->packet[IPV4_PROTOCOL]) && memcmp(d->addresses, addresses, len) == 0;
}

/* The datagram of that fragment; if it is the first one to arrive, a new one. */
static struct datagram *datagram_of(struct reassembly *r, const struct piece *p, uint32_t tag, ns_t now)
{
    struct datagram *at = &r->v[0];
    unsigned len;
    for (unsigned i = 0; i < REASSEMBLY_MAX; i++) {
        struct datagram *d = &r->v[i];
        if (belongs(d, p, tag))
            return d;
        if (at->used && (!d->used || d->at < at->at))
            at = d;
    }
    if (at->used)
        let_go(r, at);
    memset(at, 0, offsetof(struct datagram, bytes));
    at->used = true;
    r->used++;
    at->ipv6 = p->ipv6;
    at->protocol = p->ipv6 ? 0 : p->packet[IPV4_PROTOCOL];
    const uint8_t *addresses = addresses_of(p, &len);
    memcpy(at->addresses, addresses, len);
    at->id = p->id;
    at->tag = tag;
    at->at = now;
    return at;
}

static bool has(const struct datagram *d, uint32_t unit)
{
    return d->have[unit / 64] >> unit % 64 & 1;
}

enum place { PLACE_FREE, PLACE_SAME, PLACE_TAKEN };

/* What is there already where a fragment goes: nothing, the same, or something that it overlaps or contradicts. */
static enum place place_of(const struct datagram *d, const struct piece *p)
{
    uint32_t end = p->offset + p->len, units = (p->len + UNIT - 1) / UNIT, there = 0;
    for (uint32_t i = 0; i < units; i++)
        there += has(d, p->offset / UNIT + i);
    if (there == units && (p->more || end == d->total) && memcmp(d->bytes + LEAD + p->offset, p->payload, p->len) == 0)
        return PLACE_SAME;
    if (there || (!p->more && (d->total || d->end > end)) || (p->more && d->total && end >= d->total))
        return PLACE_TAKEN;
    return PLACE_FREE;
}

static void put(struct datagram *d, const struct piece *p)
{
    uint32_t end = p->offset + p->len, units = (p->len + UNIT - 1) / UNIT;
    memcpy(d->bytes + LEAD + p->offset, p->payload, p->len);
    for (uint32_t i = p->offset / UNIT; i < p->offset / UNIT + units; i++)
        d->have[i / 64] |= UINT64_C(1) << i % 64;
    d->units += units;
    d->fragments++;
    d->end = end > d->end ? end : d->end;
    if (!p->more)
        d->total = end;
    if (p->offset)
        return;
    uint8_t *header = d->bytes + LEAD - p->header_len;
    d->header_len = p->header_len;
    memcpy(header, p->packet, p->header_len);
    if (p->ipv6)
        header[p->next_at] = p->next;
}

/* All of it is there. False: it would be longer than an IP packet can be. */
static bool finish(struct datagram *d, struct span *out)
{
    uint8_t *header = d->bytes + LEAD - d->header_len, *frame = header - TUN_HDR_LEN;
    uint32_t len = d->header_len + d->total;
    if (len - (d->ipv6 ? IPV6_HEADER : 0) > UINT16_MAX)
        return false;
    if (d->ipv6) {
        put_be16(header + IPV6_LENGTH, (uint16_t)(len - IPV6_HEADER));
    } else {
        put_be16(header + IPV4_LENGTH, (uint16_t)len);
        put_be16(header + IPV4_FRAGMENT, 0);
        put_be16(header + IPV4_CHECKSUM, 0);
        put_be16(header + IPV4_CHECKSUM, (uint16_t)~checksum_fold(checksum_add(0, header, d->header_len)));
    }
    memset(frame, 0, TUN_HDR_LEN);
    *out = span_of(frame, TUN_HDR_LEN + len);
    return true;
}

/* What was taken of it comes to nothing; it stays, so that what is still to come is known. */
static enum reassembly_result spoil(struct reassembly *r, struct datagram *d)
{
    r->dropped(r->ctx, d->tag, d->fragments + 1);
    d->fragments = 0;
    d->spoiled = true;
    return REASSEMBLY_DROPPED;
}

enum reassembly_result reassembly_add(struct reassembly *r, struct span packet, uint32_t tag, ns_t now,
                                      struct span *out)
{
    struct ip_view v;
    struct piece p = {.packet = packet.data};
    if (ip_view_parse(&v, packet) != OK)
        return REASSEMBLY_NONE;
    p.ipv6 = v.ipv6;
    if (!(v.ipv6 ? parse_ipv6(&v, &p) : parse_ipv4(&v, &p)))
        return REASSEMBLY_NONE;
    reassembly_expire(r, now);
    if (!sound(&p)) {
        r->dropped(r->ctx, tag, 1);
        return REASSEMBLY_DROPPED;
    }
    struct datagram *d = datagram_of(r, &p, tag, now);
    enum place place = d->spoiled ? PLACE_TAKEN : place_of(d, &p);
    if (place == PLACE_SAME)
        return REASSEMBLY_WAITS;
    if (place == PLACE_TAKEN)
        return spoil(r, d);
    put(d, &p);
    if (!d->total || d->units < (d->total + UNIT - 1) / UNIT)
        return REASSEMBLY_WAITS;
    bool whole = finish(d, out);
    if (whole)
        d->fragments = 0;
    let_go(r, d);
    return whole ? REASSEMBLY_WHOLE : REASSEMBLY_DROPPED;
}

void reassembly_expire(struct reassembly *r, ns_t now)
{
    for (unsigned i = 0; i < REASSEMBLY_MAX && r->used; i++)
        if (r->v[i].used && now - r->v[i].at >= REASSEMBLY_TIME)
            let_go(r, &r->v[i]);
}

ns_t reassembly_deadline(const struct reassembly *r)
{
    ns_t least = NS_NEVER;
    for (unsigned i = 0; i < REASSEMBLY_MAX && r->used; i++)
        if (r->v[i].used && r->v[i].at + REASSEMBLY_TIME < least)
            least = r->v[i].at + REASSEMBLY_TIME;
    return least;
}
