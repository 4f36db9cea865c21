/*
 * Wire to TUN, in one thread and without a queue: coalesced datagrams are split, told apart (keepalive, IKE, ESP), runs
 * of one SA are opened as a batch into a slot, and deliver.c hands the inner packets to the TUN. ESP comes from raw
 * sockets as well, AH from those alone, behind its IP header; whichever way we send on an SA, we take what comes on either.
 */
#include "core/worker_impl.h"
#include "esp/ah.h"
#include "tun/packet.h"
#include "tun/raw.h"

#define EARLY_LEN 9216u /* of a datagram: jumbo frames */
#define EARLY_MAX 256u  /* of one SA */
#define AH_SPI 4        /* where it stands in AH (RFC 4302 section 2) */
#define PACKET_MIN 8    /* of a raw socket: SPI and sequence number of ESP, or AH up to its SPI */
#define MARKER_LEN 4    /* the non-ESP marker: four zero bytes where an SPI would be (RFC 3948 section 2.2) */

/*
 * Authentic and newest packets from another address than the SA's: the peer's NAT mapping may have changed. Without UDP
 * there is none.
 */
static void note_sender(struct worker *w, const struct batch *b)
{
    struct path path = sa_path(b->sa);
    if (path.transport != PATH_UDP || b->socket->kind != SOCKET_UDP || endpoint_equal(&path.remote, &b->from) ||
        atomic_exchange(&b->sa->moved_raised, true))
        return;
    if (!worker_event(w, &(struct worker_event){.kind = WORKER_MOVED, .child = b->sa->params.child, .from = b->from}))
        atomic_store(&b->sa->moved_raised, false);
}

static void flush(struct worker *w)
{
    struct batch *b = &w->in;
    if (!b->slot)
        return;
    if (b->n) {
        unsigned events = SA_EVENT_NONE;
        if (tapped(w))
            tap_batch(w, b, TAP_WIRE, 0, b->n);
        pthread_spin_lock(&b->sa->lock);
        uint64_t newest = b->sa->replay.top;
        unsigned good = esp_open(b->sa, b->v, b->n, worker_now(w), &events);
        bool fresh = b->sa->replay.top > newest || !b->sa->replay.size;
        pthread_spin_unlock(&b->sa->lock);
        worker_limits(w, b->sa, events);
        deliver(w, b);
        /* What was overtaken on its way tells where the peer was, not where it is (RFC 7296 section 2.23). */
        if (good && fresh)
            note_sender(w, b);
    }
    loop_slot_put(w->loop, b->slot);
    b->slot = NULL;
    b->sa = NULL;
    b->n = 0;
}

/*
 * A peer that answers us may send on the new SA at once (RFC 7296 section 1.2), and what it sends may be here before its
 * answer has been looked at. Nothing says as yet that it is authentic: it waits, bounded in number, bytes and time, only
 * for an SPI that was handed out, which no stranger knows.
 */
struct early {
    struct endpoint from;
    uint8_t tos, ttl;
    uint32_t flow;
    unsigned socket; /* which of the worker's */
};

static void unknown_spi(struct worker *w, const struct bound_socket *s, const struct loop_rx *rx, struct span packet)
{
    bool ah = s->s.kind == SOCKET_AH;
    size_t spi = ah ? AH_SPI : 0, seq = spi + 4;
    worker_count(w, STAT_DROP_IN_SPI, 1);
    if (audit_wanted(w, STAT_DROP_IN_SPI))
        audit_push(w, &(struct audit_event){.reason = STAT_DROP_IN_SPI,
                                            .ah = ah,
                                            .spi = get_be32(packet.data + spi),
                                            .seq = packet.len >= seq + 4 ? get_be32(packet.data + seq) : 0,
                                            .policy_id = SPD_NONE,
                                            .from = rx->from,
                                            .flow = rx->flow,
                                            .to = {.ip = rx->to, .port = s->s.local.port}});
}

/* False: there is no such SA, nor will there be one. */
static bool keep_early(struct worker *w, const struct bound_socket *s, const struct loop_rx *rx, uint32_t spi,
                       struct span packet)
{
    struct early e = {
        .from = rx->from, .tos = rx->tos, .ttl = rx->ttl, .flow = rx->flow, .socket = (unsigned)(s - w->sockets)};
    uint8_t record[sizeof e + EARLY_LEN];
    bool fits = packet.len <= EARLY_LEN && sad_expects_in(w->p.shared->sad, spi);
    if (fits) {
        memcpy(record, &e, sizeof e);
        memcpy(record + sizeof e, packet.data, packet.len);
    }
    const struct hold_item item = {.policy_id = spi, .packets = 1, .raw = span_of(record, sizeof e + packet.len)};
    return fits && hold_put(w->early, &item, EARLY_MAX, worker_now(w)) == OK;
}

_Static_assert(COALESCE_HEADROOM + 2 * LOOP_HEAD_MAX + UINT16_MAX + 64 <= LOOP_SLOT_SIZE,
               "any packet fits an empty slot");

/* What stands before a packet in its slot: a frame's header and, in transport mode, the IP header that it gets back. */
static uint32_t lead(const struct sa *sa, const struct loop_rx *rx, uint32_t head)
{
    bool transport = sa->params.mode == MODE_TRANSPORT;
    return COALESCE_HEADROOM + (transport ? (transport_head(rx->from.ip.family, head) + 15) / 16 * 16 : 0);
}

static uint32_t room_for(const struct sa *sa, const struct loop_rx *rx, uint32_t len, uint32_t head)
{
    uint32_t whole = sa->params.proto == PROTOCOL_AH ? head + len + AH_SCRATCH : len; /* as esp_open wants it */
    return lead(sa, rx, head) + (whole + 15) / 16 * 16;
}

/* An empty batch for that SA; false: all buffers are in flight, which is counted. */
static bool begin(struct worker *w, const struct bound_socket *s, const struct loop_rx *rx, struct sa *sa)
{
    struct batch *b = &w->in;
    b->slot = loop_slot_get(w->loop);
    if (!b->slot) {
        worker_sa_drop(w, STAT_DROP_IN_NO_BUFFER, 1, sa);
        return false;
    }
    b->sa = sa;
    b->used = 0;
    b->from = rx->from;
    b->socket = &s->s;
    return true;
}

/*
 * Puts one ESP or AH packet into the batch of its SA; another SA, another sender or a full slot flushes the one before. head:
 * bytes of its IP header right before it.
 */
static void take_esp(struct worker *w, struct bound_socket *s, const struct loop_rx *rx, uint8_t *data, uint32_t len,
                     uint32_t head)
{
    struct batch *b = &w->in;
    bool ah = s->s.kind == SOCKET_AH;
    uint32_t spi = get_be32(data + (ah ? AH_SPI : 0));
    if (b->n && (b->sa->params.spi != spi || b->n == TRANSFORM_BATCH ||
                 b->used + room_for(b->sa, rx, len, head) > LOOP_SLOT_SIZE || b->socket != &s->s ||
                 !endpoint_equal(&b->from, &rx->from)))
        flush(w);
    if (!b->n) {
        struct sa *sa = sad_find_in(w->p.shared->sad, spi);
        if (!sa) {
            if (!keep_early(w, s, rx, spi, span_of(data - head, head + len)))
                unknown_spi(w, s, rx, span_of(data, len));
            return;
        }
        if ((sa->params.proto == PROTOCOL_AH) != ah) { /* one space of SPIs, but it has come as something else */
            unknown_spi(w, s, rx, span_of(data, len));
            return;
        }
        if (!begin(w, s, rx, sa))
            return;
    }
    uint8_t *dst = b->slot->data + b->used + lead(b->sa, rx, head);
    if (b->sa->params.mode == MODE_TRANSPORT)
        transport_keep(b, data, dst, head);
    b->used += room_for(b->sa, rx, len, head);
    b->v[b->n++] = (struct esp_packet){.data = data,
                                       .len = len,
                                       .dst = dst,
                                       .head = (uint16_t)head,
                                       .outer = {.tos = rx->tos, .ttl = rx->ttl, .flow = rx->flow}};
}

static void take_ike(struct worker *w, const struct bound_socket *s, const struct loop_rx *rx, struct span message)
{
    struct worker_datagram d;
    memset(&d, 0, sizeof d);
    d.path = (struct path){
        .local = {.ip = rx->to, .port = s->s.local.port},
        .remote = rx->from,
        .transport = PATH_UDP,
        .marker = s->s.marker,
    };
    (void)worker_push(w, WORKER_IKE, span_of(&d, sizeof d), message, STAT_DROP_IKE_RING);
}

/* Tells datagrams apart as RFC 3948 section 2 does; a socket without the marker carries IKE alone. */
static void take_datagram(struct worker *w, struct bound_socket *s, const struct loop_rx *rx, uint8_t *data,
                          uint32_t len)
{
    if (!s->s.marker) {
        take_ike(w, s, rx, span_of(data, len));
    } else if (len == 1 && data[0] == 0xff) {
        worker_count(w, STAT_KEEPALIVES_IN, 1);
    } else if (len < MARKER_LEN) {
        worker_count(w, STAT_DROP_IN_RUNT, 1);
    } else if (get_be32(data) == 0) {
        take_ike(w, s, rx, span_of(data + MARKER_LEN, len - MARKER_LEN));
    } else {
        take_esp(w, s, rx, data, len, 0);
    }
}

/* One IP packet of protocol 50 or 51. */
static void take_packet(struct worker *w, struct bound_socket *s, const struct loop_rx *rx)
{
    struct ip_view v;
    struct ip_insertion in;
    bool ah = s->s.kind == SOCKET_AH;
    if (rx->cut) {
        worker_count(w, STAT_DROP_IN_CUT, 1);
        return;
    }
    if (ip_view_parse(&v, span_of(rx->data, rx->len)) != OK ||
        ip_view_find(&v, rx->data, ah ? RAW_AH : RAW_ESP, &in) != OK || in.offset > LOOP_HEAD_MAX ||
        v.len < in.offset + PACKET_MIN) {
        worker_count(w, STAT_DROP_IN_RUNT, 1);
        return;
    }
    take_esp(w, s, rx, rx->data + in.offset, v.len - in.offset, in.offset);
}

void inbound_received(void *ctx, struct loop_rx *rx, unsigned n)
{
    struct bound_socket *s = ctx;
    struct worker *w = s->worker;
    uint64_t datagrams = 0;
    for (unsigned i = 0; i < n; i++) {
        if (rx[i].cut) {
            worker_count(w, STAT_DROP_IN_CUT, 1);
            continue;
        }
        uint32_t size = rx[i].segment && rx[i].segment < rx[i].len ? rx[i].segment : rx[i].len;
        uint32_t at = 0;
        do {
            uint32_t left = rx[i].len - at;
            take_datagram(w, s, &rx[i], rx[i].data + at, left < size ? left : size);
            at += size;
            datagrams++;
        } while (at < rx[i].len);
    }
    /* The batch points into the received buffers, which are ours only until we return. */
    flush(w);
    worker_count(w, STAT_RX_CALLS, n);
    worker_count(w, STAT_RX_DATAGRAMS, datagrams);
}

void inbound_raw(void *ctx, struct loop_rx *rx, unsigned n)
{
    struct bound_socket *s = ctx;
    struct worker *w = s->worker;
    for (unsigned i = 0; i < n; i++)
        take_packet(w, s, &rx[i]);
    flush(w);
    worker_count(w, STAT_RX_CALLS, n);
    worker_count(w, STAT_RX_DATAGRAMS, n);
}

static bool has_sa(void *ctx, uint32_t spi)
{
    const struct worker *w = ctx;
    return sad_find_in(w->p.shared->sad, spi);
}

static void early_too_long(void *ctx, uint32_t spi, unsigned packets)
{
    (void)spi;
    worker_count(ctx, STAT_DROP_IN_SPI, packets);
}

void inbound_held(struct worker *w)
{
    struct span raw;
    if (hold_deadline(w->early) == NS_NEVER)
        return;
    hold_expire(w->early, worker_now(w), early_too_long, w);
    while (hold_take(w->early, has_sa, w, &raw)) {
        uint8_t packet[EARLY_LEN];
        struct early e;
        memcpy(&e, raw.data, sizeof e);
        uint32_t len = (uint32_t)(raw.len - sizeof e);
        memcpy(packet, raw.data + sizeof e, len);
        struct loop_rx rx = {.data = packet, .len = len, .tos = e.tos, .ttl = e.ttl, .flow = e.flow, .from = e.from};
        struct bound_socket *s = &w->sockets[e.socket];
        if (s->s.kind == SOCKET_UDP)
            take_esp(w, s, &rx, packet, len, 0);
        else
            take_packet(w, s, &rx);
        flush(w); /* the batch points into what is ours only here */
    }
}
