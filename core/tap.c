#include "core/tap.h"

#include <stdlib.h>
#include <string.h>

#include "core/worker_impl.h"
#include "esp/outer.h"
#include "tun/offload.h"

#define PROTOCOL_UDP 17
#define UDP_HEADER 8

enum err tap_new(struct tap **out, const char *peer, enum tap_side side, unsigned workers)
{
    struct tap *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NOMEM;
    strncpy(t->peer, peer, sizeof t->peer - 1);
    t->side = side;
    for (unsigned i = 0; i < workers; i++) {
        enum err e = ring_new(&t->workers[i].ring, TAP_RING);
        if (e != OK) {
            tap_free(t);
            return e;
        }
    }
    *out = t;
    return OK;
}

void tap_free(struct tap *t)
{
    if (!t)
        return;
    for (unsigned i = 0; i < SAD_WORKERS; i++)
        ring_free(t->workers[i].ring);
    free(t);
}

static void copy(struct worker *w, struct tap *t, const struct tap_packet *p, struct span bytes)
{
    unsigned i = w->p.index;
    stat_add_shared(&t->workers[i].seen, 1);
    if (!t->workers[i].ring || ring_push(t->workers[i].ring, 0, span_of(p, sizeof *p), bytes) != OK)
        stat_add_shared(&t->workers[i].lost, 1);
    w->ring_filled = true;
}

/*
 * Dummies are nothing on the plain side, padding is not part of a packet. In transport mode what is sealed has no IP
 * header; what is delivered has one again.
 */
static void copy_plain(struct worker *w, struct tap *t, const struct batch *b, struct tap_packet *p, unsigned first,
                       unsigned n)
{
    bool whole = p->in || b->sa->params.mode == MODE_TUNNEL;
    for (unsigned i = first; i < first + n; i++) {
        const struct esp_packet *v = &b->v[i];
        if (v->tfc && v->len == v->tfc)
            continue;
        p->protocol = whole ? 0 : v->next_header;
        copy(w, t, p, span_of(v->data, v->len - v->tfc));
    }
}

static void copy_wire(struct worker *w, struct tap *t, const struct batch *b, struct tap_packet *p, unsigned first,
                      unsigned n)
{
    for (unsigned i = first; i < first + n; i++) {
        const struct esp_packet *v = &b->v[i];
        uint32_t head = p->in ? v->head : b->head[i]; /* of raw sockets: the IP header is there */
        p->udp = head == 0;
        p->protocol = p->udp ? PROTOCOL_UDP : 0;
        p->tos = v->outer.tos;
        copy(w, t, p, span_of(v->data - head, v->len + head));
    }
}

static struct tap_packet describe(const struct batch *b)
{
    struct path path = sa_path(b->sa);
    struct tap_packet p;
    memset(&p, 0, sizeof p);
    p.wall = clock_wall();
    p.in = b->sa->params.dir == SA_IN;
    p.from = p.in ? b->from : path.local;
    p.to = p.in ? path.local : path.remote;
    p.spi = b->sa->params.spi;
    p.policy_id = b->sa->params.policy_id;
    return p;
}

void tap_batch(struct worker *w, const struct batch *b, enum tap_side side, unsigned first, unsigned n)
{
    const struct spd *spd = atomic_load_explicit(&w->p.shared->spd, memory_order_acquire);
    const struct spd_entry *entry = spd_find(spd, b->sa->params.policy_id);
    if (!entry || !entry->policy->peer)
        return;
    for (unsigned i = 0; i < TAPS; i++) {
        struct tap *t = atomic_load_explicit(&w->p.shared->taps.v[i], memory_order_acquire);
        if (!t || t->side != side || strcmp(t->peer, entry->policy->peer->name) != 0)
            continue;
        struct tap_packet p = describe(b);
        (side == TAP_PLAIN ? copy_plain : copy_wire)(w, t, b, &p, first, n);
    }
}

/* IPv6 wants a sum, and a wrong one would be told as the packet's fault (RFC 8200 section 8.1). */
static uint16_t udp_sum(const struct tap_packet *p, const uint8_t header[UDP_HEADER], struct span bytes)
{
    unsigned len = ip_len(p->from.ip.family);
    uint64_t sum = checksum_add(0, p->from.ip.b, len);
    sum = checksum_add(sum, p->to.ip.b, len);
    sum = checksum_add(sum, header, UDP_HEADER);
    uint16_t folded =
        (uint16_t)~checksum_fold(checksum_add(sum, bytes.data, bytes.len) + PROTOCOL_UDP + UDP_HEADER + bytes.len);
    return folded ? folded : 0xffff;
}

size_t tap_headers(const struct tap_packet *p, struct span bytes, uint8_t out[TAP_HEADERS])
{
    struct outer outer = {.tos = p->tos};
    size_t udp = p->udp ? UDP_HEADER : 0;
    uint8_t header[UDP_HEADER] = {0};
    struct writer w = writer_of(out, TAP_HEADERS);
    if (p->protocol == 0)
        return 0;
    if (outer_put(&w, &outer, &p->from.ip, &p->to.ip, p->protocol, udp + bytes.len, 0) != OK)
        return 0;
    if (p->udp) {
        put_be16(header, p->from.port);
        put_be16(header + 2, p->to.port);
        put_be16(header + 4, (uint16_t)(udp + bytes.len));
        put_be16(header + 6, udp_sum(p, header, bytes));
        write_bytes(&w, header, sizeof header);
    }
    return writer_len(&w);
}
