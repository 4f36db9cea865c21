#include <assert.h>
#include <string.h>

#include "esp/ah_impl.h"
#include "esp/limit.h"

#define AAD_ESN 12 /* as in seal.c: SPI, high half, low half */

#define IPV4_HEADER 20
#define IPV6_HEADER 40

/* One batch on its way: the packets that passed the screening, at[k] being the place of the k-th of them in v. */
struct batch {
    struct transform_op ops[TRANSFORM_BATCH];
    uint64_t seq[TRANSFORM_BATCH];
    uint8_t aad[TRANSFORM_BATCH][AAD_ESN];
    uint8_t iv[TRANSFORM_BATCH][COUNTER_IV]; /* implicit ones (RFC 8750) */
    uint8_t at[TRANSFORM_BATCH];
    unsigned n, authentic;
    uint64_t packets, bytes; /* the SA's counters, with what this batch delivers */
    ns_t now;
};

static bool drop(struct esp_packet *p, enum err why, enum stat_id counter)
{
    p->verdict = why;
    p->drop = counter;
    return false;
}

/* Length and sequence number, before any cryptography: replays cost nothing (RFC 4303 section 3.4.3). */
static bool screen(const struct sa *sa, struct esp_packet *p, uint64_t *seq)
{
    const struct suite *s = &sa->params.suite;
    bool ah = sa->params.proto == PROTOCOL_AH;
    uint32_t fixed = esp_headroom(s) + s->icv_len, align = esp_align(s);
    if (ah && !ah_sound(sa, p))
        return drop(p, ERR_SYNTAX, STAT_DROP_IN_MALFORMED);
    if (!ah && (p->len < fixed + align || ((p->len - fixed) & (align - 1)) != 0))
        return drop(p, ERR_TRUNCATED, STAT_DROP_IN_RUNT);
    *seq = p->seq = replay_infer(&sa->replay, get_be32(p->data + (ah ? 8 : 4)), sa->params.esn);
    if (!replay_check(&sa->replay, *seq))
        return drop(p, ERR_REPLAY, STAT_DROP_IN_REPLAY);
    return true;
}

static bool prepare(const struct sa *sa, struct esp_packet *p, uint64_t seq, struct transform_op *op,
                    uint8_t aad[AAD_ESN], uint8_t iv[COUNTER_IV])
{
    const struct suite *s = &sa->params.suite;
    if (sa->params.proto == PROTOCOL_AH)
        return ah_prepare(sa, p, seq, op) || drop(p, ERR_SYNTAX, STAT_DROP_IN_MALFORMED);
    uint32_t head = esp_headroom(s);
    op->aad = p->data;
    op->aad_len = 8;
    op->iv = s->implicit_iv ? iv : p->data + 8;
    if (s->implicit_iv)
        put_be64(iv, seq);
    op->src = p->data + head;
    op->dst = p->dst;
    op->len = p->len - head - s->icv_len;
    op->icv = p->data + p->len - s->icv_len;
    op->tail_len = 0;
    op->ok = false;
    if (!sa->params.esn)
        return true;
    uint32_t high = (uint32_t)(seq >> 32);
    if (s->aead) {
        memcpy(aad, p->data, 4);
        put_be32(aad + 4, high);
        put_be32(aad + 8, (uint32_t)seq);
        op->aad = aad;
        op->aad_len = AAD_ESN;
    } else {
        put_be32(op->tail, high);
        op->tail_len = sizeof op->tail;
    }
    return true;
}

/* -- selectors -- */

static bool below(const uint64_t a[2], const uint64_t b[2])
{
    return a[0] < b[0] || (a[0] == b[0] && a[1] < b[1]);
}

static bool within(const struct inner_range *r, const uint64_t a[2])
{
    return !below(a, r->first) && !below(r->last, a);
}

static void number_of(uint8_t family, const uint8_t *bytes, uint64_t out[2])
{
    out[0] = family == 4 ? 0 : get_be64(bytes);
    out[1] = family == 4 ? get_be32(bytes) : get_be64(bytes + 8);
}

/* The range of a list that contains an address, as numbers. False: none. */
static bool range_around(const struct selectors *list, const struct ip *ip, struct inner_range *out)
{
    for (unsigned i = 0; i < list->n; i++) {
        const struct ip_range *r = &list->v[i].range;
        if (range_contains(r, ip)) {
            number_of(ip->family, r->first.b, out->first);
            number_of(ip->family, r->last.b, out->last);
            return true;
        }
    }
    return false;
}

/*
 * Where addresses alone decide. The ranges that the last packet fell into are tried first: site-to-site traffic stays in
 * one pair of them.
 */
static bool addresses_selected(struct sa *sa, const uint8_t *addresses, uint8_t family)
{
    if (sa->seen_family == family) {
        uint64_t src[2], dst[2];
        number_of(family, addresses, src);
        number_of(family, addresses + ip_len(family), dst);
        if (within(&sa->seen_src, src) && within(&sa->seen_dst, dst))
            return true;
    }
    struct ip src = ip_from_bytes(family, addresses), dst = ip_from_bytes(family, addresses + ip_len(family));
    struct inner_range from, to;
    if (!range_around(&sa->params.remote, &src, &from) || !range_around(&sa->params.local, &dst, &to))
        return false;
    sa->seen_src = from;
    sa->seen_dst = to;
    sa->seen_family = family;
    return true;
}

static bool matches(const struct sa *sa, const struct flow *f)
{
    return selectors_match_in(&sa->params.local, &sa->params.remote, f);
}

/* An ICMP error from elsewhere, a router, that is about traffic of this SA (RFC 4301 section 6.2). */
static bool quote_selected(const struct sa *sa, struct span packet, const struct flow *f)
{
    struct flow quoted;
    return flow_of_quoted(packet, f, &quoted) == OK && matches(sa, &quoted);
}

/* RFC 4301 section 5.2 step 4 by the packet's flow. Errors: MISMATCH, STATE (a fragment that would need the ports of its
 * first one: section 7.3). */
static enum err flow_selected(const struct sa *sa, struct span packet, struct flow *f, ns_t now)
{
    bool later = fragment_later(f), ok = matches(sa, f);
    if (!ok && later && sa->fragments && fragment_table_fill(sa->fragments, f, now))
        ok = matches(sa, f);
    else if (ok && f->fragment && !later && sa->fragments)
        fragment_table_note(sa->fragments, f, now);
    if (ok || quote_selected(sa, packet, f))
        return OK;
    return later && sa->fragments && !f->ports_known ? ERR_STATE : ERR_MISMATCH;
}

/* Tunnel mode: an inner packet whose header was found sound. Errors: SYNTAX (no flow to be seen); as flow_selected. */
static enum err tunnel_selected(struct sa *sa, struct span inner, uint8_t family, ns_t now)
{
    struct flow f;
    if (sa->address_only && addresses_selected(sa, inner.data + (family == 4 ? 12 : 8), family))
        return OK;
    return flow_of(inner, &f) == OK ? flow_selected(sa, inner, &f, now) : ERR_SYNTAX;
}

/* Transport mode: with the addresses that the header has had on the path. Errors: as tunnel_selected. */
static enum err transport_selected(const struct sa *sa, struct span payload, uint8_t next_header, ns_t now)
{
    struct path path = sa_path(sa);
    struct flow f;
    if (ip_len(path.remote.ip.family) == 0)
        return ERR_MISMATCH;
    if (flow_of_payload(&path.remote.ip, &path.local.ip, next_header, payload, &f) != OK)
        return ERR_SYNTAX;
    return flow_selected(sa, payload, &f, now);
}

/* -- what was decrypted -- */

/* RFC 4303 section 3.4.4.1: pad bytes are 1, 2, 3 … */
static bool padding_ok(const uint8_t *pad, unsigned n)
{
    unsigned wrong = 0;
    for (unsigned i = 0; i < n; i++)
        wrong |= pad[i] ^ (i + 1);
    return wrong == 0;
}

/* The length of the IP packet at the beginning of p, TFC padding behind it not counted; 0: it is none. */
static uint32_t inner_len(const uint8_t *p, uint32_t len, uint8_t family)
{
    if (len < IPV4_HEADER || p[0] >> 4 != family)
        return 0;
    if (family == 4) {
        uint32_t header = (p[0] & 15u) * 4, total = get_be16(p + 2);
        return header >= IPV4_HEADER && total >= header && total <= len ? total : 0;
    }
    if (len < IPV6_HEADER)
        return 0;
    uint32_t total = IPV6_HEADER + get_be16(p + 4);
    return total <= len ? total : 0;
}

/* What was carried, and checks of it: text within dst. */
static bool carried(struct sa *sa, struct esp_packet *p, uint8_t *text, uint32_t len, uint8_t next, ns_t now)
{
    if (next == NEXT_HEADER_NONE) /* section 2.6: a dummy has nothing inside */
        return drop(p, ERR_NOTFOUND, STAT_DROP_IN_DUMMY);
    enum err e;
    p->data = text; /* also of one that is dropped: the inner packet is there to be told */
    p->next_header = next;
    if (sa->params.mode == MODE_TUNNEL) {
        uint8_t family = next == NEXT_HEADER_IPV4 ? 4 : next == NEXT_HEADER_IPV6 ? 6 : 0;
        len = family ? inner_len(text, len, family) : 0;
        if (len == 0)
            return drop(p, ERR_SYNTAX, STAT_DROP_IN_MALFORMED);
        p->len = len;
        e = tunnel_selected(sa, span_of(text, len), family, now);
    } else {
        e = transport_selected(sa, span_of(text, len), next, now);
    }
    if (e != OK)
        return drop(p, e,
                    e == ERR_MISMATCH ? STAT_DROP_IN_SELECTOR
                    : e == ERR_STATE  ? STAT_DROP_IN_FRAGMENT
                                      : STAT_DROP_IN_MALFORMED);
    p->len = len;
    return true;
}

/* Takes the trailer off (RFC 4303 section 3.4.4.1) and checks what is left. */
static bool unwrap(struct sa *sa, struct esp_packet *p, uint32_t text_len, ns_t now)
{
    uint8_t *text = p->dst, next;
    uint32_t len;
    if (sa->params.proto == PROTOCOL_AH) {
        text = ah_payload(sa, p, &len, &next);
        return carried(sa, p, text, len, next, now);
    }
    len = text_len - 2;
    uint32_t pad = text[text_len - 2];
    next = text[text_len - 1];
    if (pad > len || !padding_ok(text + len - pad, pad))
        return drop(p, ERR_SYNTAX, STAT_DROP_IN_PADDING);
    return carried(sa, p, text, len - pad, next, now);
}

/* What the cryptography said about one packet, and all checks after it. */
static bool finish(struct sa *sa, struct esp_packet *p, struct batch *b, unsigned k)
{
    if (!b->ops[k].ok)
        return drop(p, ERR_AUTH, STAT_DROP_IN_AUTH);
    b->authentic++;
    if (!replay_commit(&sa->replay, b->seq[k]))
        return drop(p, ERR_REPLAY, STAT_DROP_IN_REPLAY);
    if (!unwrap(sa, p, b->ops[k].len, b->now))
        return false;
    if (b->packets >= sa->packet_hard || p->len > sa->byte_hard - b->bytes) {
        sa->packet_hard = b->packets; /* over for good, as in seal.c */
        return drop(p, ERR_EXPIRED, STAT_DROP_IN_EXPIRED);
    }
    b->packets++;
    b->bytes += p->len;
    p->verdict = OK;
    return true;
}

static void account(struct sa *sa, const struct batch *b, ns_t now)
{
    atomic_store_explicit(&sa->packets, b->packets, memory_order_relaxed);
    atomic_store_explicit(&sa->bytes, b->bytes, memory_order_relaxed);
    atomic_store_explicit(&sa->last_used, now, memory_order_relaxed);
    if (!atomic_load_explicit(&sa->in_use, memory_order_relaxed))
        atomic_store_explicit(&sa->in_use, true, memory_order_relaxed);
}

unsigned esp_open(struct sa *sa, struct esp_packet *v, unsigned n, ns_t now, unsigned *events)
{
    assert(n <= TRANSFORM_BATCH);
    struct batch b;
    b.n = b.authentic = 0;
    b.now = now;
    b.packets = atomic_load_explicit(&sa->packets, memory_order_relaxed);
    b.bytes = atomic_load_explicit(&sa->bytes, memory_order_relaxed);
    bool expired = b.packets >= sa->packet_hard || b.bytes >= sa->byte_hard;
    for (unsigned i = 0; i < n; i++) {
        if (expired) {
            (void)drop(&v[i], ERR_EXPIRED, STAT_DROP_IN_EXPIRED);
        } else if (screen(sa, &v[i], &b.seq[b.n]) &&
                   prepare(sa, &v[i], b.seq[b.n], &b.ops[b.n], b.aad[b.n], b.iv[b.n])) {
            b.at[b.n++] = (uint8_t)i;
        }
    }
    unsigned good = 0;
    if (b.n > 0)
        keyed_open(sa->keyed, b.ops, b.n);
    for (unsigned k = 0; k < b.n; k++)
        good += finish(sa, &v[b.at[k]], &b, k);
    if (b.authentic > 0)
        account(sa, &b, now);
    *events = limit_passed(sa, b.packets, b.bytes, now);
    return good;
}
