/* What is framed is sealed as a batch and sent, with segmentation where lengths allow it. */
#include "core/worker_impl.h"
#include "tun/packet.h"
#include "tun/raw.h"

/* Whether a socket sends by that path; it may do so from any address. port: 0 of a raw one. */
static bool fits(const struct worker_socket *s, enum worker_socket_kind kind, const struct path *path, uint16_t port)
{
    return s->kind == kind && s->local.ip.family == path->remote.ip.family && s->local.port == port &&
           (ip_is_any(&s->local.ip) || ip_equal(&s->local.ip, &path->local.ip));
}

/* df: the socket that sends so, where there is one for this address and we know which source it shall name. */
static struct loop_io *socket_for(struct worker *w, const struct batch *b, bool df)
{
    const struct path *path = &b->path;
    enum worker_socket_kind kind = path->transport != PATH_RAW          ? SOCKET_UDP
                                   : b->sa->params.proto == PROTOCOL_AH ? SOCKET_AH
                                                                        : SOCKET_ESP;
    struct loop_io *found = NULL;
    df = df && !ip_is_any(&path->local.ip);
    for (unsigned i = 0; i < w->p.socket_count; i++) {
        const struct worker_socket *s = &w->sockets[i].s;
        if (!fits(s, kind, path, path->local.port))
            continue;
        if (s->df == df)
            return w->sockets[i].io;
        if (!s->df)
            found = w->sockets[i].io;
    }
    return found;
}

/* A raw socket that sends from the address of a UDP path, or NULL. */
static struct loop_io *raw_beside(struct worker *w, const struct path *path)
{
    for (unsigned i = 0; i < w->p.socket_count && !ip_is_any(&path->local.ip); i++)
        if (fits(&w->sockets[i].s, SOCKET_ESP, path, 0))
            return w->sockets[i].io;
    return NULL;
}

/* How many of the n sealed packets from i on are one send, and its bytes. alone: just the first. */
static unsigned run_of(const struct batch *b, unsigned i, unsigned n, bool alone, uint32_t *bytes)
{
    uint32_t size = b->v[i].len, total = size;
    unsigned k = i + 1;
    while (!b->head[i] && !alone && k < n && k - i < LOOP_SEGMENTS && b->v[k - 1].len == size && b->v[k].len <= size &&
           total + b->v[k].len <= LOOP_SEND_MAX && outer_alike(&b->v[k].outer, &b->v[i].outer))
        total += b->v[k++].len;
    *bytes = b->head[i] + total;
    return k - i;
}

/* What may go in fragments, and has to: from a raw socket, or over IPv6. */
static bool too_long(const struct batch *b, unsigned i)
{
    uint32_t max = atomic_load_explicit(&b->sa->datagram_max, memory_order_relaxed);
    bool udp6 = !b->head[i] && b->path.remote.ip.family == 6;
    uint32_t head = udp6 ? OUTER_IPV6 + UDP_HEADER : b->head[i];
    return max && head && head + b->v[i].len > max && !b->v[i].outer.df;
}

/* Sends a packet that is too long. False: it has not been sent, and the kernel is to do what it can. */
static bool pieces(struct worker *w, struct loop_io *io, const struct batch *b, unsigned i, const struct loop_tx *tx)
{
    uint32_t max = atomic_load_explicit(&b->sa->datagram_max, memory_order_relaxed);
    if (b->head[i])
        return pieces_send(w, io, tx, b->sa->params.proto == PROTOCOL_AH ? RAW_AH : RAW_ESP, max);
    struct loop_io *raw = raw_beside(w, &b->path);
    return raw && pieces_send_udp(w, raw, tx, &b->path, &b->v[i].outer, max);
}

/*
 * Sends sealed packets that lie one behind the other. A run for one segmented send is as many as have the first one's
 * length, and one shorter that ends it, all with the same outer header. Raw sockets take them one by one.
 */
static void send_sealed(struct worker *w, struct batch *b, unsigned n)
{
    uint32_t whole = atomic_load_explicit(&b->sa->whole_max, memory_order_relaxed);
    for (unsigned i = 0, run; i < n; i += run) {
        const struct outer *outer = &b->v[i].outer;
        bool df = outer->df || b->v[i].len <= whole;
        struct loop_io *io = socket_for(w, b, df);
        if (!io) {
            worker_sa_drop(w, STAT_DROP_OUT_SEND, n - i, b->sa);
            return;
        }
        uint32_t bytes;
        bool over = too_long(b, i);
        run = run_of(b, i, n, over, &bytes);
        struct loop_tx tx = {
            .slot = b->slot,
            .data = b->v[i].data - b->head[i],
            .len = bytes,
            .segment = run > 1 ? (uint16_t)b->v[i].len : 0,
            .tos = outer->tos,
            .ttl = outer->ttl == OUTER_TTL ? 0 : outer->ttl,
            .df = df,
            .to = b->path.remote,
            .from = b->path.local.ip,
        };
        if (over && pieces(w, io, b, i, &tx))
            continue;
        loop_send(w->loop, io, &tx);
        worker_count(w, STAT_TX_CALLS, 1);
        worker_count(w, STAT_TX_DATAGRAMS, run);
    }
}

/* What packets carry, before they are sealed: inner bytes, padding, and packets that are nothing but padding. */
struct load {
    uint64_t bytes, tfc, dummies;
};

static struct load load_of(const struct esp_packet *v, unsigned n)
{
    struct load l = {0};
    for (unsigned i = 0; i < n; i++) {
        l.bytes += v[i].len - v[i].tfc;
        l.tfc += v[i].tfc;
        l.dummies += v[i].tfc && v[i].tfc == v[i].len;
    }
    return l;
}

/* all: of the whole batch. */
static void account(struct worker *w, const struct batch *b, unsigned sealed, const struct load *all)
{
    struct load rest = load_of(b->v + sealed, b->n - sealed);
    uint64_t dummies = all->dummies - rest.dummies;
    worker_count(w, STAT_OUT_PACKETS, sealed - dummies);
    worker_count(w, STAT_OUT_BYTES, all->bytes - rest.bytes);
    worker_count(w, STAT_OUT_TFC_BYTES, all->tfc - rest.tfc);
    worker_count(w, STAT_OUT_DUMMIES, dummies);
    struct policy_stats *stats = b->sa->params.stats;
    if (stats && sealed > dummies) {
        stat_add_shared(&stats->out_packets, sealed - dummies);
        stat_add_shared(&stats->out_bytes, all->bytes - rest.bytes);
    }
}

/*
 * What the hard limits left over, of sequence numbers above all (RFC 4303 section 3.3.3). In transport mode a packet has
 * lost its IP header by now, and what is left could be taken for another one.
 */
static void expired(struct worker *w, struct batch *b, unsigned sealed)
{
    bool whole = b->sa->params.mode == MODE_TUNNEL;
    worker_sa_drop(w, STAT_DROP_OUT_EXPIRED, b->n - sealed, b->sa);
    for (unsigned i = sealed; i < b->n; i++) {
        struct esp_packet *p = &b->v[i];
        p->seq = b->sa->seq;
        if (!b->head[i]) /* of UDP the kernel makes the label */
            p->outer.flow = 0;
        audit_sa(w, STAT_DROP_OUT_EXPIRED, b->sa, p, NULL, span_of(p->data, whole ? p->len : 0));
    }
}

/* A batch is of one superpacket or few: the first of them is as long as any. */
static void note_length(struct worker *w, struct sa *sa, uint32_t len)
{
    if (len <= atomic_load_explicit(&sa->news_over, memory_order_relaxed))
        return;
    if (worker_event(w, &(struct worker_event){.kind = WORKER_LONG, .child = sa->params.child}))
        atomic_store_explicit(&sa->news_over, UINT32_MAX, memory_order_relaxed);
}

void wire_flush(struct worker *w)
{
    struct batch *b = &w->out;
    if (!b->slot)
        return;
    if (b->n) {
        unsigned sealed = 0, events = SA_EVENT_NONE;
        struct load all = load_of(b->v, b->n);
        bool tap = tapped(w);
        if (tap)
            tap_batch(w, b, TAP_PLAIN, 0, b->n);
        pthread_spin_lock(&b->sa->lock);
        enum err e = esp_seal(b->sa, b->v, b->n, worker_now(w), &sealed, &events);
        pthread_spin_unlock(&b->sa->lock);
        worker_limits(w, b->sa, events);
        if (e == OK) {
            account(w, b, sealed, &all);
            if (tap)
                tap_batch(w, b, TAP_WIRE, 0, sealed);
            note_length(w, b->sa, b->v[0].len);
            send_sealed(w, b, sealed);
            expired(w, b, sealed);
        } else if (e == ERR_EXPIRED) {
            expired(w, b, 0);
        } else {
            worker_sa_drop(w, STAT_DROP_OUT_CRYPTO, b->n, b->sa);
        }
    }
    loop_slot_put(w->loop, b->slot);
    b->slot = NULL;
    b->sa = NULL;
    b->n = 0;
}
