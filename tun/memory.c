#include "tun/memory.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/cursor.h"
#include "tun/offload.h"
#include "tun/packet.h"
#include "tun/raw.h"
#include "tun/reassembly.h"

/* Virtual descriptors: beyond any real one. */
#define FD_UDP 0x10000000
#define FD_TUN 0x20000000
#define FD_RAW 0x30000000

#define QUEUE_MAX 8192 /* items that wait at one socket or TUN; more are dropped, as a full socket buffer does */
#define GRO_MAX 64     /* datagrams that the kernel merges at most */
#define DATAGRAM_MAX 65507
#define DATAGRAM_MAX6 65527
#define FAILURES_MAX 64
#define REORDER_DELAY (200 * NS_PER_US) /* least lateness of a datagram that is overtaken */

/* A datagram on the wire or waiting at a socket, or a frame waiting at a TUN. */
struct item {
    struct item *next;
    ns_t at;
    struct endpoint from, to;
    uint8_t protocol; /* of a raw socket's packet; 0: UDP, and data is without headers */
    struct memory_header header;
    uint32_t spi_at; /* where its SPI stands, if it has one */
    uint32_t len;
    uint8_t data[];
};

struct queue {
    struct item *head, **tail;
    unsigned count;
};

struct port {
    struct endpoint local; /* sockets */
    uint8_t protocol;      /* raw */
    struct loop_io *io;    /* that reads it, or NULL */
    struct queue in, out;  /* out: TUN only */
};

struct ports {
    struct port **list;
    unsigned count;
};

struct memory_loop;

struct memory_net {
    uint64_t seed;
    uint16_t next_id; /* of IPv4 packets that say none */
    ns_t now;
    struct memory_faults faults;
    bool (*tap)(void *, const struct endpoint *, const struct endpoint *, const uint8_t *, size_t);
    void *tap_ctx;
    struct ip nat_inner, nat_outer; /* no family: there is no NAT */
    void (*router)(void *, const struct endpoint *, const struct endpoint *, struct memory_header *);
    void *router_ctx;
    struct item *wire, *wire_last; /* by time of arrival */
    struct reassembly *fragments;  /* as the hosts' kernels put IP packets together before a raw socket gets them */
    struct ports udp, raw, tun;
    struct memory_loop *loops;
};

struct loop_io {
    struct loop_io *next;
    struct memory_loop *loop;
    enum loop_io_kind kind;
    struct port *port;
    struct loop_io_handler handler;
    bool closed;
};

struct loop_watch {
    struct loop_watch *next;
    int fd;
    uint32_t events;
    void (*fn)(void *, uint32_t);
    void *ctx;
    bool closed;
};

struct failure {
    struct loop_io *io;
    struct loop_failure what;
};

struct memory_loop {
    struct loop base; /* first: the engine's functions get a pointer to it */
    struct memory_net *net;
    struct memory_loop *next;
    struct loop_io *ios;
    struct loop_watch *watches;
    struct failure failures[FAILURES_MAX];
    unsigned failure_count;
    bool turning;
};

/* -- queues -- */

static struct item *item_room(size_t len)
{
    struct item *it = calloc(1, sizeof *it + len);
    if (it)
        it->len = (uint32_t)len;
    return it;
}

static struct item *item_new(const uint8_t *data, size_t len)
{
    struct item *it = item_room(len);
    if (it && len)
        memcpy(it->data, data, len);
    return it;
}

static void queue_init(struct queue *q)
{
    *q = (struct queue){.tail = &q->head};
}

static void queue_push(struct queue *q, struct item *it)
{
    if (q->count == QUEUE_MAX) {
        free(it);
        return;
    }
    it->next = NULL;
    *q->tail = it;
    q->tail = &it->next;
    q->count++;
}

static struct item *queue_pop(struct queue *q)
{
    struct item *it = q->head;
    if (!it)
        return NULL;
    q->head = it->next;
    if (!q->head)
        q->tail = &q->head;
    q->count--;
    return it;
}

static void queue_clear(struct queue *q)
{
    for (struct item *it = queue_pop(q); it; it = queue_pop(q))
        free(it);
}

static int port_add(struct ports *p, const struct endpoint *local)
{
    struct port **list = realloc(p->list, (p->count + 1) * sizeof(struct port *));
    if (!list)
        return -1;
    p->list = list;
    struct port *port = calloc(1, sizeof *port);
    if (!port)
        return -1;
    if (local)
        port->local = *local;
    queue_init(&port->in);
    queue_init(&port->out);
    list[p->count] = port;
    return (int)p->count++;
}

static struct port *port_of(const struct ports *p, int fd, int base)
{
    return fd >= base && (unsigned)(fd - base) < p->count ? p->list[fd - base] : NULL;
}

static void ports_free(struct ports *p)
{
    for (unsigned i = 0; i < p->count; i++) {
        queue_clear(&p->list[i]->in);
        queue_clear(&p->list[i]->out);
        free(p->list[i]);
    }
    free(p->list);
}

/* -- the wire -- */

/* SplitMix64: small, and the same on every machine. */
static uint32_t random_u32(struct memory_net *n)
{
    uint64_t z = n->seed += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)(z >> 32);
}

static bool happens(struct memory_net *n, unsigned per_mille)
{
    return per_mille && random_u32(n) % 1000 < per_mille;
}

static void wire_insert(struct memory_net *n, struct item *it)
{
    /* Most datagrams arrive after all others that are under way. */
    struct item **at = n->wire && n->wire_last->at <= it->at ? &n->wire_last->next : &n->wire;
    while (*at && (*at)->at <= it->at)
        at = &(*at)->next;
    it->next = *at;
    *at = it;
    if (!it->next)
        n->wire_last = it;
}

static void put_ipv4_checksum(uint8_t *packet)
{
    put_be16(packet + IPV4_CHECKSUM, 0);
    put_be16(packet + IPV4_CHECKSUM, (uint16_t)~checksum_fold(checksum_add(0, packet, (packet[0] & 15u) * 4)));
}

/* A raw socket's packet has its header with it. */
static void put_tos(uint8_t *packet, uint8_t tos)
{
    if (packet[0] >> 4 == 6) {
        put_be16(packet, (uint16_t)((get_be16(packet) & 0xf00f) | tos << 4));
        return;
    }
    packet[IPV4_TOS] = tos;
    put_ipv4_checksum(packet);
}

static void translate(const struct memory_net *n, struct item *it)
{
    if (!n->nat_inner.family || it->protocol)
        return;
    if (ip_equal(&it->from.ip, &n->nat_inner))
        it->from.ip = n->nat_outer;
    if (ip_equal(&it->to.ip, &n->nat_outer))
        it->to.ip = n->nat_inner;
}

static void wire_put(struct memory_net *n, const struct item *header, const uint8_t *data, size_t len)
{
    struct item *it = item_new(data, len);
    if (!it)
        return;
    it->from = header->from;
    it->to = header->to;
    it->header = header->header;
    it->protocol = header->protocol;
    it->spi_at = header->spi_at;
    translate(n, it);
    if (it->protocol)
        put_tos(it->data, it->header.tos);
    it->at = n->now + n->faults.delay;
    if (happens(n, n->faults.reorder))
        it->at += REORDER_DELAY + n->faults.delay / 2 + random_u32(n) % REORDER_DELAY;
    wire_insert(n, it);
}

static void wire_send(struct memory_net *n, const struct item *sent, const uint8_t *data, size_t len)
{
    struct item item = *sent;
    if (n->tap && !n->tap(n->tap_ctx, &item.from, &item.to, data, len))
        return;
    if (n->router)
        n->router(n->router_ctx, &item.from, &item.to, &item.header);
    if (happens(n, n->faults.loss))
        return;
    wire_put(n, &item, data, len);
    if (happens(n, n->faults.duplicate))
        wire_put(n, &item, data, len);
}

/* Which socket of a group: as the filters of udp_steer and raw_steer decide. */
static unsigned steer(const struct item *it, unsigned group)
{
    unsigned worker = it->len >= it->spi_at + 4 ? it->data[it->spi_at] >> 4 : 0;
    return worker >= 1 && worker <= group ? worker - 1 : 0;
}

static bool port_takes(const struct port *p, const struct item *it, bool any)
{
    if (p->local.port != it->to.port || p->local.ip.family != it->to.ip.family || p->protocol != it->protocol)
        return false;
    return any ? ip_is_any(&p->local.ip) : ip_equal(&p->local.ip, &it->to.ip);
}

static struct port *find_socket(const struct memory_net *n, const struct item *it)
{
    const struct ports *ports = it->protocol ? &n->raw : &n->udp;
    for (int any = 0; any < 2; any++) {
        unsigned group = 0, seen = 0;
        for (unsigned i = 0; i < ports->count; i++)
            group += port_takes(ports->list[i], it, any);
        unsigned wanted = group ? steer(it, group) : 0;
        for (unsigned i = 0; i < ports->count && group; i++)
            if (port_takes(ports->list[i], it, any) && seen++ == wanted)
                return ports->list[i];
    }
    return NULL;
}

/* What the kernel makes of an IP packet that a raw socket sends (raw(7)); false: it refuses it. */
static bool raw_item(struct memory_net *n, uint8_t *packet, size_t len, struct item *header)
{
    static const uint8_t protocols[] = {RAW_ESP, RAW_AH};
    struct ip_view v;
    struct ip_insertion in = {0};
    if (len && packet[0] >> 4 == 4 && len >= IPV4_HEADER && len <= UINT16_MAX) {
        put_be16(packet + IPV4_LENGTH, (uint16_t)len);
        if (!get_be16(packet + IPV4_ID))
            put_be16(packet + IPV4_ID, ++n->next_id);
        put_ipv4_checksum(packet);
    }
    if (ip_view_parse(&v, span_of(packet, len)) != OK || v.len != len)
        return false;
    unsigned addresses = v.ipv6 ? IPV6_SOURCE : IPV4_SOURCE, bytes = v.ipv6 ? 16 : 4;
    *header = (struct item){.header = {.tos = v.ipv6 ? (uint8_t)(get_be16(packet) >> 4) : packet[IPV4_TOS],
                                       .flow = v.ipv6 ? get_be32(packet) & LOOP_FLOW_LABEL : 0,
                                       .df = !v.ipv6 && (get_be16(packet + IPV4_FRAGMENT) & IPV4_DF)},
                            .from = {.ip = ip_from_bytes(v.ipv6 ? 6 : 4, packet + addresses)},
                            .to = {.ip = ip_from_bytes(v.ipv6 ? 6 : 4, packet + addresses + bytes)}};
    for (unsigned i = 0; i < sizeof protocols && !header->protocol; i++)
        if (ip_view_find(&v, packet, protocols[i], &in) == OK)
            header->protocol = protocols[i];
    if (!header->protocol) { /* nobody listens to others here, but they are on the wire */
        header->protocol = packet[v.ipv6 ? IPV6_NEXT : IPV4_PROTOCOL];
        in.offset = v.header_len;
    }
    header->spi_at = in.offset + (header->protocol == RAW_AH ? 4 : 0);
    return true;
}

/* A UDP datagram over IPv6 that a raw socket has sent is one like any other, if its checksum is right. */
static void take_udp(struct item *it)
{
    uint32_t head = IPV6_HEADER + UDP_HEADER;
    const uint8_t *udp = it->data + IPV6_HEADER;
    if (it->data[0] >> 4 != 6 || it->len < head || get_be16(udp + UDP_LENGTH) != it->len - IPV6_HEADER ||
        checksum_fold(checksum_add(pseudo_addresses(it->data, true) + PROTO_UDP + it->len - IPV6_HEADER, udp,
                                   it->len - IPV6_HEADER)) != 0xffff)
        return;
    it->from.port = get_be16(udp);
    it->to.port = get_be16(udp + 2);
    it->protocol = 0;
    it->len -= head;
    memmove(it->data, it->data + head, it->len);
}

/* What is left of an IP packet at the host it was for: fragments wait for the rest of their datagram. NULL: nothing yet. */
static struct item *put_together(struct memory_net *n, struct item *it)
{
    struct span whole;
    enum reassembly_result r =
        it->protocol ? reassembly_add(n->fragments, span_of(it->data, it->len), 0, n->now, &whole) : REASSEMBLY_NONE;
    if (r == REASSEMBLY_NONE)
        return it;
    free(it);
    if (r != REASSEMBLY_WHOLE)
        return NULL;
    struct item header, *all = item_new(whole.data + TUN_HDR_LEN, whole.len - TUN_HDR_LEN);
    if (all && raw_item(n, all->data, all->len, &header)) {
        all->from = header.from;
        all->to = header.to;
        all->header = header.header;
        all->protocol = header.protocol;
        all->spi_at = header.spi_at;
        if (all->protocol == PROTO_UDP)
            take_udp(all);
        return all;
    }
    free(all);
    return NULL;
}

/* Moves what has arrived by now from the wire to the sockets. */
static void wire_arrive(struct memory_net *n)
{
    while (n->wire && n->wire->at <= n->now) {
        struct item *it = n->wire;
        n->wire = it->next;
        it = put_together(n, it);
        struct port *p = it ? find_socket(n, it) : NULL;
        if (p)
            queue_push(&p->in, it);
        else
            free(it);
    }
}

/* -- receiving -- */

static bool joins(const struct item *first, const struct item *it)
{
    return it->len <= first->len && it->len > 0 && it->header.tos == first->header.tos &&
           it->header.ttl == first->header.ttl && endpoint_equal(&it->from, &first->from) &&
           ip_equal(&it->to.ip, &first->to.ip);
}

/* How many datagrams at the head of the queue the kernel's UDP_GRO would hand over as one, and their bytes. */
static unsigned gro_run(const struct queue *q, uint32_t *total)
{
    const struct item *first = q->head, *it = first;
    unsigned n = 1;
    *total = first->len;
    for (; it->next && n < GRO_MAX && it->len == first->len && joins(first, it->next); n++) {
        it = it->next;
        if (*total + it->len > DATAGRAM_MAX)
            break;
        *total += it->len;
    }
    return n;
}

/* Takes one item, or a run of datagrams, out of the queue into memory of its own. False: out of memory. */
static bool take_rx(struct queue *q, enum loop_io_kind kind, struct loop_rx *rx)
{
    uint32_t total = q->head->len, at = 0;
    unsigned n = kind == LOOP_UDP ? gro_run(q, &total) : 1;
    uint8_t *data = malloc(total ? total : 1);
    if (!data)
        return false;
    *rx = (struct loop_rx){
        .data = data,
        .len = total,
        .segment = n > 1 ? (uint16_t)q->head->len : 0,
        .tos = q->head->header.tos,
        .ttl = q->head->header.ttl,
        .flow = q->head->header.flow,
        .cut = q->head->header.cut,
        .from = q->head->from,
        .to = q->head->to.ip,
    };
    while (n--) {
        struct item *it = queue_pop(q);
        memcpy(data + at, it->data, it->len);
        at += it->len;
        free(it);
    }
    return true;
}

static void deliver(struct loop_io *io)
{
    struct loop_rx rx[LOOP_BATCH];
    while (!io->closed && io->port->in.count) {
        unsigned n = 0;
        while (n < LOOP_BATCH && io->port->in.count && take_rx(&io->port->in, io->kind, &rx[n]))
            n++;
        if (n == 0)
            return;
        uint8_t *owned[LOOP_BATCH];
        for (unsigned i = 0; i < n; i++)
            owned[i] = rx[i].data;
        io->handler.received(io->handler.ctx, rx, n);
        for (unsigned i = 0; i < n; i++)
            free(owned[i]);
    }
}

/* -- the engine -- */

static void fail(struct loop_io *io, int error, const struct loop_tx *tx)
{
    struct memory_loop *l = io->loop;
    bool segmented = tx->segment && tx->segment < tx->len;
    if (l->failure_count == FAILURES_MAX)
        return;
    l->failures[l->failure_count++] = (struct failure){
        .io = io,
        .what =
            {
                .error = error,
                .datagrams = segmented ? (tx->len + tx->segment - 1) / tx->segment : 1,
                .size = segmented ? tx->segment : tx->len,
                .to = tx->to,
            },
    };
}

static bool within_slot(const struct loop_slot *slot, const uint8_t *data, size_t len)
{
    return slot && slot->refs && data >= slot->data && len <= LOOP_SLOT_SIZE &&
           data + len <= slot->data + LOOP_SLOT_SIZE;
}

static void raw_send(struct loop_io *io, const struct loop_tx *tx)
{
    struct item header;
    uint8_t *packet = tx->slot->data + (tx->data - tx->slot->data);
    if (tx->segment || !raw_item(io->loop->net, packet, tx->len, &header))
        fail(io, EINVAL, tx);
    else
        wire_send(io->loop->net, &header, packet, tx->len);
}

static void memory_engine_send(struct loop *base, struct loop_io *io, const struct loop_tx *tx)
{
    (void)base;
    struct memory_net *n = io->loop->net;
    uint32_t size = tx->segment && tx->segment < tx->len ? tx->segment : tx->len;

    if (!within_slot(tx->slot, tx->data, tx->len)) {
        fail(io, EFAULT, tx);
        return;
    }
    if (io->kind == LOOP_RAW) {
        raw_send(io, tx);
        return;
    }
    if (size < tx->len && (tx->len > LOOP_SEND_MAX || (tx->len + size - 1) / size > LOOP_SEGMENTS)) {
        fail(io, EINVAL, tx);
        return;
    }
    if (size > (tx->to.ip.family == 6 ? DATAGRAM_MAX6 : DATAGRAM_MAX)) {
        fail(io, EMSGSIZE, tx);
        return;
    }
    struct item header = {.from = {tx->from.family ? tx->from : io->port->local.ip, io->port->local.port},
                          .to = tx->to,
                          .header = {.tos = tx->tos, .ttl = tx->ttl, .df = tx->df}};
    for (uint32_t at = 0; at < tx->len; at += size)
        wire_send(n, &header, tx->data + at, tx->len - at < size ? tx->len - at : size);
}

static void memory_engine_write(struct loop *base, struct loop_io *io, struct loop_slot *slot, const struct iovec *iov,
                                unsigned n)
{
    (void)base;
    size_t len = 0;
    bool good = n > 0 && n <= LOOP_IOV_MAX;
    for (unsigned i = 0; i < n && good; i++) {
        good = within_slot(slot, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    struct item *it = good ? item_room(len) : NULL;
    if (!it) {
        fail(io, EFAULT, &(struct loop_tx){.len = (uint32_t)len});
        return;
    }
    uint8_t *at = it->data;
    for (unsigned i = 0; i < n; at += iov[i++].iov_len)
        memcpy(at, iov[i].iov_base, iov[i].iov_len);
    queue_push(&io->port->out, it);
}

static enum err memory_engine_io_open(struct loop *base, int fd, enum loop_io_kind kind,
                                      const struct loop_io_handler *h, struct loop_io **out)
{
    struct memory_loop *l = (struct memory_loop *)base;
    struct port *p = kind == LOOP_UDP   ? port_of(&l->net->udp, fd, FD_UDP)
                     : kind == LOOP_RAW ? port_of(&l->net->raw, fd, FD_RAW)
                                        : port_of(&l->net->tun, fd, FD_TUN);
    if (!p || p->io) {
        errno = p ? EBUSY : EBADF;
        return ERR_SYSTEM;
    }
    struct loop_io *io = calloc(1, sizeof *io);
    if (!io)
        return ERR_NOMEM;
    *io = (struct loop_io){.next = l->ios, .loop = l, .kind = kind, .port = p, .handler = *h};
    l->ios = io;
    p->io = io;
    *out = io;
    return OK;
}

/* What was closed in a callback is freed when nobody walks the lists. */
static void reap(struct memory_loop *l)
{
    for (struct loop_io **at = &l->ios; *at;) {
        struct loop_io *io = *at;
        if (!io->closed) {
            at = &io->next;
            continue;
        }
        *at = io->next;
        free(io);
    }
    for (struct loop_watch **at = &l->watches; *at;) {
        struct loop_watch *w = *at;
        if (!w->closed) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        free(w);
    }
}

static void memory_engine_io_close(struct loop *base, struct loop_io *io)
{
    struct memory_loop *l = (struct memory_loop *)base;
    io->closed = true;
    io->port->io = NULL;
    for (unsigned i = 0; i < l->failure_count; i++)
        if (l->failures[i].io == io)
            l->failures[i].io = NULL;
    if (!l->turning)
        reap(l);
}

static enum err memory_engine_watch(struct loop *base, int fd, uint32_t events, void (*fn)(void *, uint32_t), void *ctx,
                                    struct loop_watch **out)
{
    struct memory_loop *l = (struct memory_loop *)base;
    struct loop_watch *w = calloc(1, sizeof *w);
    if (!w)
        return ERR_NOMEM;
    *w = (struct loop_watch){.next = l->watches, .fd = fd, .events = events, .fn = fn, .ctx = ctx};
    l->watches = w;
    *out = w;
    return OK;
}

static void memory_engine_unwatch(struct loop *base, struct loop_watch *w)
{
    struct memory_loop *l = (struct memory_loop *)base;
    w->closed = true;
    if (!l->turning)
        reap(l);
}

/* Watched descriptors are real ones; POLLIN and friends have the values of EPOLLIN and friends. */
static uint32_t ready(const struct loop_watch *w)
{
    struct pollfd p = {.fd = w->fd, .events = (short)w->events};
    return !w->closed && poll(&p, 1, 0) == 1 ? (uint32_t)(unsigned short)p.revents : 0;
}

static bool has_work(const struct memory_loop *l)
{
    for (const struct loop_io *io = l->ios; io; io = io->next)
        if (io->port->in.count)
            return true;
    for (const struct loop_watch *w = l->watches; w; w = w->next)
        if (ready(w))
            return true;
    return l->failure_count > 0;
}

static void report_failures(struct memory_loop *l)
{
    unsigned n = l->failure_count;
    struct failure now[FAILURES_MAX];
    memcpy(now, l->failures, n * sizeof *now);
    l->failure_count = 0;
    for (unsigned i = 0; i < n; i++)
        if (now[i].io && !now[i].io->closed && now[i].io->handler.failed)
            now[i].io->handler.failed(now[i].io->handler.ctx, &now[i].what);
}

static void hook(void (*fn)(void *), void *ctx)
{
    if (fn)
        fn(ctx);
}

static enum err memory_engine_turn(struct loop *base, ns_t deadline)
{
    (void)deadline; /* time is the network's: memory_run */
    struct memory_loop *l = (struct memory_loop *)base;

    wire_arrive(l->net);
    hook(base->hooks.sleep, base->hooks.ctx);
    hook(base->hooks.wake, base->hooks.ctx);
    l->turning = true;
    report_failures(l);
    for (struct loop_watch *w = l->watches; w; w = w->next) {
        uint32_t events = ready(w);
        if (events)
            w->fn(w->ctx, events);
    }
    for (struct loop_io *io = l->ios; io; io = io->next)
        deliver(io);
    hook(base->hooks.turn_end, base->hooks.ctx);
    l->turning = false;
    reap(l);
    return OK;
}

static void memory_engine_free(struct loop *base)
{
    struct memory_loop *l = (struct memory_loop *)base;
    for (struct memory_loop **at = &l->net->loops; *at; at = &(*at)->next)
        if (*at == l) {
            *at = l->next;
            break;
        }
    for (struct loop_io *io = l->ios; io; io = io->next) {
        if (!io->closed)
            io->port->io = NULL;
        io->closed = true;
    }
    for (struct loop_watch *w = l->watches; w; w = w->next)
        w->closed = true;
    reap(l);
    loop_fini(base);
    free(l);
}

static const struct loop_ops memory_ops = {
    .name = "memory",
    .free = memory_engine_free,
    .turn = memory_engine_turn,
    .io_open = memory_engine_io_open,
    .io_close = memory_engine_io_close,
    .send = memory_engine_send,
    .write = memory_engine_write,
    .watch = memory_engine_watch,
    .unwatch = memory_engine_unwatch,
};

/* -- the network -- */

/* A kernel's counter, which nobody asks for. */
static void fragments_lost(void *ctx, uint32_t tag, unsigned fragments)
{
    (void)ctx;
    (void)tag;
    (void)fragments;
}

enum err memory_net_new(struct memory_net **out, uint64_t seed)
{
    struct memory_net *n = calloc(1, sizeof *n);
    if (!n)
        return ERR_NOMEM;
    if (reassembly_new(&n->fragments, fragments_lost, NULL) != OK) {
        free(n);
        return ERR_NOMEM;
    }
    n->seed = seed;
    *out = n;
    return OK;
}

void memory_net_free(struct memory_net *n)
{
    if (!n)
        return;
    while (n->wire) {
        struct item *it = n->wire;
        n->wire = it->next;
        free(it);
    }
    ports_free(&n->udp);
    ports_free(&n->raw);
    ports_free(&n->tun);
    reassembly_free(n->fragments);
    free(n);
}

void memory_net_faults(struct memory_net *n, const struct memory_faults *f)
{
    n->faults = *f;
}

void memory_net_nat(struct memory_net *n, const struct ip *inner, const struct ip *outer)
{
    n->nat_inner = *inner;
    n->nat_outer = *outer;
}

ns_t memory_now(const struct memory_net *n)
{
    return n->now;
}

void memory_net_tap(struct memory_net *n,
                    bool (*tap)(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data,
                                size_t len),
                    void *ctx)
{
    n->tap = tap;
    n->tap_ctx = ctx;
}

void memory_net_router(struct memory_net *n,
                       void (*router)(void *ctx, const struct endpoint *from, const struct endpoint *to,
                                      struct memory_header *header),
                       void *ctx)
{
    n->router = router;
    n->router_ctx = ctx;
}

enum err memory_loop_new(struct memory_net *n, const struct loop_hooks *hooks, struct loop **out)
{
    struct memory_loop *l = calloc(1, sizeof *l);
    if (!l)
        return ERR_NOMEM;
    enum err e = loop_init(&l->base, &memory_ops, hooks);
    if (e != OK) {
        free(l);
        return e;
    }
    l->net = n;
    l->next = n->loops;
    n->loops = l;
    *out = &l->base;
    return OK;
}

int memory_udp(struct memory_net *n, const struct endpoint *local)
{
    int index = port_add(&n->udp, local);
    return index < 0 ? -1 : FD_UDP + index;
}

int memory_raw(struct memory_net *n, const struct ip *local, uint8_t protocol)
{
    struct endpoint at = {.ip = *local};
    int index = port_add(&n->raw, &at);
    if (index < 0)
        return -1;
    n->raw.list[index]->protocol = protocol;
    return FD_RAW + index;
}

int memory_tun(struct memory_net *n)
{
    int index = port_add(&n->tun, NULL);
    return index < 0 ? -1 : FD_TUN + index;
}

enum err memory_tun_inject(struct memory_net *n, int tun, const uint8_t *frame, size_t len)
{
    struct port *p = port_of(&n->tun, tun, FD_TUN);
    if (!p)
        return ERR_NOTFOUND;
    if (len == 0 || len > LOOP_RX_SIZE)
        return ERR_RANGE;
    if (p->in.count == QUEUE_MAX)
        return ERR_FULL;
    struct item *it = item_new(frame, len);
    if (!it)
        return ERR_NOMEM;
    queue_push(&p->in, it);
    return OK;
}

size_t memory_tun_take(struct memory_net *n, int tun, uint8_t *frame, size_t cap)
{
    struct port *p = port_of(&n->tun, tun, FD_TUN);
    struct item *it = p ? queue_pop(&p->out) : NULL;
    if (!it)
        return 0;
    size_t len = it->len < cap ? it->len : cap;
    memcpy(frame, it->data, len);
    free(it);
    return len;
}

void memory_send(struct memory_net *n, const struct endpoint *from, const struct endpoint *to, const uint8_t *data,
                 size_t len)
{
    struct item header = {.from = *from, .to = *to};
    struct item *packet = from->port == 0 && to->port == 0 ? item_new(data, len) : NULL;
    if (packet && raw_item(n, packet->data, len, &header))
        wire_send(n, &header, packet->data, len);
    else if (!packet && len <= DATAGRAM_MAX)
        wire_send(n, &header, data, len);
    free(packet);
}

void memory_run(struct memory_net *n, ns_t until)
{
    bool first = true;
    for (;;) {
        bool worked = false;
        wire_arrive(n);
        for (struct memory_loop *l = n->loops; l; l = l->next)
            if (first || has_work(l))
                worked = memory_engine_turn(&l->base, n->now) == OK;
        first = false;
        if (worked)
            continue;
        if (!n->wire || n->wire->at > until)
            break;
        n->now = n->wire->at > n->now ? n->wire->at : n->now;
    }
    if (until != NS_NEVER && until > n->now)
        n->now = until;
}
