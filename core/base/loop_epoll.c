/* The engine on epoll, recvmmsg and sendmmsg: for kernels and containers without io_uring. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "core/base/loop.h"
#include "core/base/loop_msg.h"
#include "core/base/loop_raw.h"

#define EVENTS 64
#define RX_MESSAGES 16                /* messages of one recvmmsg */
#define TUN_MEMORY (4 * LOOP_RX_SIZE) /* about what the second-level cache holds */
#define QUEUE 256                     /* sends of one socket that wait */
#define TX_MESSAGES 64                /* messages of one sendmmsg */
#define FLUSH_BYTES (256 * 1024)      /* sent at once when so much waits: it is still in the cache */
#define RX_MEMORY ((size_t)RX_MESSAGES * LOOP_RX_SIZE)

/* What an epoll event points to. */
struct source {
    struct source *next;
    bool is_watch, dead; /* dead: freed when the turn is over, events that point to it may still come up */
    bool muted;          /* out of the epoll set after too many faults */
    int fd;
};

struct queued {
    struct loop_tx tx; /* what is left of it */
    bool singly;       /* its segments are too long for one send of them all */
    struct msg_route route;
};

struct loop_io {
    struct source source;
    enum loop_io_kind kind;
    struct loop_io_handler handler;
    bool inet6, gso, blocked; /* blocked: waiting for EPOLLOUT */
    unsigned faults;
    uint32_t head, count, bytes;
    struct raw_socket raw;
    struct queued *queue; /* sockets: ring of QUEUE entries */
};

struct loop_watch {
    struct source source;
    void (*fn)(void *ctx, uint32_t events);
    void *ctx;
};

struct epoll_loop {
    struct loop base;
    int epfd;
    bool no_pwait2, in_turn, some_dead;
    bool tun_gone; /* somebody deleted the device: no turn can do any good */
    ns_t retry_at; /* when muted ios are tried again; NS_NEVER: none */
    struct source *sources;
    uint8_t *rx_memory, *tun_memory;
    struct raw_reader *raw; /* once there is a raw socket */
    struct loop_rx rx[LOOP_BATCH];
    struct mmsghdr rx_msg[RX_MESSAGES];
    struct iovec rx_iov[RX_MESSAGES];
    uint8_t rx_name[RX_MESSAGES][MSG_RX_NAME];
    _Alignas(struct cmsghdr) uint8_t rx_control[RX_MESSAGES][MSG_RX_CONTROL];
    struct mmsghdr tx_msg[TX_MESSAGES];
    struct iovec tx_iov[TX_MESSAGES];
};

_Static_assert(RX_MESSAGES <= LOOP_BATCH, "one recvmmsg fills one vector");

static struct epoll_loop *self(struct loop *l)
{
    return (struct epoll_loop *)l; /* base is the first member */
}

/* -- the set of descriptors -- */

static int interest(struct epoll_loop *e, struct source *s, int operation, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = s};
    return epoll_ctl(e->epfd, operation, s->fd, &ev);
}

static enum err source_add(struct epoll_loop *e, struct source *s, uint32_t events)
{
    if (interest(e, s, EPOLL_CTL_ADD, events) != 0)
        return errno == ENOMEM || errno == ENOSPC ? ERR_NOMEM : ERR_SYSTEM;
    s->next = e->sources;
    e->sources = s;
    return OK;
}

static void source_free(struct source *s)
{
    if (!s->is_watch)
        free(((struct loop_io *)s)->queue);
    free(s);
}

static void reap(struct epoll_loop *e)
{
    if (e->in_turn || !e->some_dead)
        return;
    e->some_dead = false;
    for (struct source **at = &e->sources; *at;) {
        struct source *s = *at;
        if (s->dead) {
            *at = s->next;
            source_free(s);
        } else {
            at = &s->next;
        }
    }
}

static void source_drop(struct epoll_loop *e, struct source *s)
{
    if (!s->muted)
        (void)interest(e, s, EPOLL_CTL_DEL, 0);
    s->dead = true;
    e->some_dead = true;
    reap(e);
}

/* A descriptor that only gives errors polls as ready for ever; look at it again later. */
static void fault(struct epoll_loop *e, struct loop_io *io)
{
    if (++io->faults <= MSG_FAULTS_MAX || io->source.muted)
        return;
    (void)interest(e, &io->source, EPOLL_CTL_DEL, 0);
    io->source.muted = true;
    e->retry_at = clock_now() + MSG_FAULT_PAUSE;
}

static void retry_muted(struct epoll_loop *e)
{
    if (e->retry_at == NS_NEVER || clock_now() < e->retry_at)
        return;
    e->retry_at = NS_NEVER;
    for (struct source *s = e->sources; s; s = s->next) {
        if (!s->muted || s->dead)
            continue;
        struct loop_io *io = (struct loop_io *)s; /* watches are never muted */
        if (interest(e, s, EPOLL_CTL_ADD, EPOLLIN | (io->blocked ? EPOLLOUT : 0)) == 0)
            s->muted = false;
        else
            e->retry_at = clock_now() + MSG_FAULT_PAUSE;
    }
}

/* -- sending -- */

static void tell_failure(const struct loop_io *io, const struct loop_failure *f)
{
    if (io->handler.failed && !io->source.dead)
        io->handler.failed(io->handler.ctx, f);
}

static void block(struct epoll_loop *e, struct loop_io *io, bool blocked)
{
    io->blocked = blocked;
    if (!io->source.muted)
        (void)interest(e, &io->source, EPOLL_CTL_MOD, EPOLLIN | (blocked ? EPOLLOUT : 0));
}

/* The first `len` bytes of the oldest send are done with. */
static void consume(struct epoll_loop *e, struct loop_io *io, uint32_t len)
{
    struct queued *q = &io->queue[io->head];
    io->bytes -= len;
    q->tx.data += len;
    q->tx.len -= len;
    if (q->tx.len)
        return;
    loop_slot_put(&e->base, q->tx.slot);
    io->head = (io->head + 1) % QUEUE;
    io->count--;
}

/* Headers for what waits, oldest first; datagram by datagram where the socket refuses segmentation. */
static unsigned gather(struct epoll_loop *e, struct loop_io *io)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < io->count && n < TX_MESSAGES; i++) {
        struct queued *q = &io->queue[(io->head + i) % QUEUE];
        struct loop_tx tx = q->tx;
        bool whole = (io->gso && !q->singly) || !msg_segmented(&tx);
        do {
            uint32_t len = whole || tx.segment > tx.len ? tx.len : tx.segment;
            msg_header(&e->tx_msg[n].msg_hdr, &e->tx_iov[n], &q->route, &tx, len, whole && msg_segmented(&tx));
            n++;
            tx.data += len;
            tx.len -= len;
        } while (tx.len && n < TX_MESSAGES);
    }
    return n;
}

/* The oldest send was refused. */
static void refused(struct epoll_loop *e, struct loop_io *io, int error)
{
    struct queued *q = &io->queue[io->head];
    if (error == EINTR)
        return;
    if (error == EAGAIN || error == EWOULDBLOCK) {
        block(e, io, true);
        return;
    }
    if (error == EIO && io->gso && msg_segmented(&q->tx)) {
        io->gso = false; /* no checksum offload on the way out */
        return;
    }
    if (msg_too_long(error) && !q->singly && msg_segmented(&q->tx)) {
        q->singly = true; /* one by one the kernel fragments them */
        return;
    }
    struct loop_failure f = msg_failure(&q->tx, error);
    consume(e, io, q->tx.len);
    msg_drain_errors(io->source.fd);
    tell_failure(io, &f);
}

static void flush(struct epoll_loop *e, struct loop_io *io)
{
    while (io->count && !io->blocked) {
        unsigned n = gather(e, io);
        int sent = sendmmsg(io->source.fd, e->tx_msg, n, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0)
            refused(e, io, errno);
        for (int i = 0; i < sent; i++)
            consume(e, io, (uint32_t)e->tx_iov[i].iov_len);
    }
}

static void epoll_send(struct loop *l, struct loop_io *io, const struct loop_tx *tx)
{
    struct epoll_loop *e = self(l);
    if (io->count == QUEUE)
        flush(e, io);
    if (io->count == QUEUE || tx->len == 0) {
        struct loop_failure f = msg_failure(tx, tx->len ? ENOBUFS : EINVAL);
        tell_failure(io, &f);
        return;
    }
    struct queued *q = &io->queue[(io->head + io->count) % QUEUE];
    q->tx = *tx;
    q->singly = false;
    msg_route(&q->route, tx, io->inet6);
    loop_slot_ref(tx->slot);
    io->count++;
    io->bytes += tx->len;
    if (io->bytes >= FLUSH_BYTES)
        flush(e, io);
}

/* Written at once: a TUN queue never waits, and the packet is still in the cache. */
static void epoll_write(struct loop *l, struct loop_io *io, struct loop_slot *slot, const struct iovec *iov, unsigned n)
{
    (void)l;
    (void)slot;
    int error = msg_write_packet(io->source.fd, iov, n);
    if (!error)
        return;
    struct loop_failure f = msg_write_failure(iov, n, error);
    tell_failure(io, &f);
}

/* -- receiving -- */

static unsigned receive_udp(struct epoll_loop *e, struct loop_io *io, int *error)
{
    for (unsigned i = 0; i < RX_MESSAGES; i++) {
        e->rx_msg[i].msg_hdr.msg_namelen = MSG_RX_NAME;
        e->rx_msg[i].msg_hdr.msg_controllen = MSG_RX_CONTROL;
    }
    *error = 0;
    int n = recvmmsg(io->source.fd, e->rx_msg, RX_MESSAGES, MSG_DONTWAIT, NULL);
    if (n < 0) {
        *error = errno == EAGAIN || errno == EINTR ? 0 : errno;
        return 0;
    }
    for (int i = 0; i < n; i++) {
        e->rx[i].data = e->rx_iov[i].iov_base;
        e->rx[i].len = e->rx_msg[i].msg_len;
        msg_received(&e->rx_msg[i].msg_hdr, &e->rx[i]);
    }
    return (unsigned)n;
}

/* One vector a turn: what is left makes the next turn return at once, and nobody else waits for long. */
static void receive(struct epoll_loop *e, struct loop_io *io)
{
    int error;
    unsigned n = io->kind == LOOP_TUN
                     ? msg_read_packets(io->source.fd, e->tun_memory, TUN_MEMORY, e->rx, LOOP_BATCH, &error)
                 : io->kind == LOOP_RAW ? raw_read(e->raw, &io->raw, e->rx, &error)
                                        : receive_udp(e, io, &error);
    if (n) {
        io->faults = 0;
        io->handler.received(io->handler.ctx, e->rx, n);
    } else if (error == EBADFD && io->kind == LOOP_TUN) {
        e->tun_gone = true;
    } else if (error) {
        fault(e, io);
    }
}

static void io_event(struct epoll_loop *e, struct loop_io *io, uint32_t events)
{
    if ((events & EPOLLERR) && io->kind != LOOP_TUN)
        msg_drain_errors(io->source.fd);
    if (io->blocked && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        block(e, io, false);
        flush(e, io);
    }
    if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
        receive(e, io);
}

/* -- turns -- */

static int wait_until(struct epoll_loop *e, struct epoll_event *events, ns_t left)
{
    struct timespec ts = {.tv_sec = (time_t)(left / NS_PER_S), .tv_nsec = (long)(left % NS_PER_S)};
    if (!e->no_pwait2) {
        int n = epoll_pwait2(e->epfd, events, EVENTS, left == NS_NEVER ? NULL : &ts, NULL);
        if (n >= 0 || (errno != ENOSYS && errno != EPERM))
            return n;
        e->no_pwait2 = true; /* before Linux 5.11, or a system call filter that doesn't know it */
    }
    ns_t ms = left / NS_PER_MS + (left % NS_PER_MS != 0);
    return epoll_wait(e->epfd, events, EVENTS, left == NS_NEVER ? -1 : ms > INT_MAX ? INT_MAX : (int)ms);
}

static int wait_events(struct epoll_loop *e, struct epoll_event *events, ns_t deadline)
{
    if (e->retry_at < deadline)
        deadline = e->retry_at;
    ns_t now = deadline == NS_NEVER ? 0 : clock_now();
    ns_t left = deadline == NS_NEVER ? NS_NEVER : deadline > now ? deadline - now : 0;
    if (left && e->base.hooks.sleep)
        e->base.hooks.sleep(e->base.hooks.ctx);
    int n = wait_until(e, events, left);
    int error = errno;
    if (left && e->base.hooks.wake)
        e->base.hooks.wake(e->base.hooks.ctx);
    errno = error;
    return n;
}

static void dispatch(struct epoll_loop *e, const struct epoll_event *ev)
{
    struct source *s = ev->data.ptr;
    if (s->dead || s->muted)
        return;
    if (s->is_watch) {
        struct loop_watch *w = (struct loop_watch *)s;
        w->fn(w->ctx, ev->events);
    } else {
        io_event(e, (struct loop_io *)s, ev->events);
    }
}

static enum err epoll_turn(struct loop *l, ns_t deadline)
{
    struct epoll_loop *e = self(l);
    struct epoll_event events[EVENTS];
    e->in_turn = true;
    for (struct source *s = e->sources; s; s = s->next) {
        if (!s->is_watch && !s->dead)
            flush(e, (struct loop_io *)s);
    }
    retry_muted(e);
    int n = wait_events(e, events, deadline);
    enum err result = n < 0 && errno != EINTR ? ERR_SYSTEM : OK;
    for (int i = 0; i < n; i++)
        dispatch(e, &events[i]);
    if (l->hooks.turn_end)
        l->hooks.turn_end(l->hooks.ctx);
    e->in_turn = false;
    reap(e);
    if (e->tun_gone) {
        errno = EBADFD;
        return ERR_SYSTEM;
    }
    return result;
}

/* -- opening and closing -- */

static enum err epoll_io_open(struct loop *l, int fd, enum loop_io_kind kind, const struct loop_io_handler *h,
                              struct loop_io **out)
{
    struct epoll_loop *e = self(l);
    struct loop_io *io = calloc(1, sizeof *io);
    if (!io)
        return ERR_NOMEM;
    *io = (struct loop_io){.source = {.fd = fd}, .kind = kind, .handler = *h, .gso = true};
    enum err result = OK;
    if (kind != LOOP_TUN) {
        io->inet6 = msg_inet6(fd);
        io->queue = calloc(QUEUE, sizeof *io->queue);
        result = io->queue ? OK : ERR_NOMEM;
    }
    if (kind == LOOP_RAW) {
        io->raw = raw_socket_of(fd);
        result = result == OK && !e->raw ? raw_reader_new(&e->raw) : result;
    }
    if (result == OK)
        result = source_add(e, &io->source, EPOLLIN);
    if (result != OK) {
        source_free(&io->source);
        return result;
    }
    *out = io;
    return OK;
}

static void epoll_io_close(struct loop *l, struct loop_io *io)
{
    struct epoll_loop *e = self(l);
    flush(e, io);
    while (io->count)
        consume(e, io, io->queue[io->head].tx.len);
    source_drop(e, &io->source);
}

static enum err epoll_watch(struct loop *l, int fd, uint32_t events, void (*fn)(void *, uint32_t), void *ctx,
                            struct loop_watch **out)
{
    struct loop_watch *w = calloc(1, sizeof *w);
    if (!w)
        return ERR_NOMEM;
    *w = (struct loop_watch){.source = {.fd = fd, .is_watch = true}, .fn = fn, .ctx = ctx};
    enum err result = source_add(self(l), &w->source, events);
    if (result != OK) {
        free(w);
        return result;
    }
    *out = w;
    return OK;
}

static void epoll_unwatch(struct loop *l, struct loop_watch *w)
{
    source_drop(self(l), &w->source);
}

static void epoll_free(struct loop *l)
{
    struct epoll_loop *e = self(l);
    while (e->sources) {
        struct source *s = e->sources;
        e->sources = s->next;
        source_free(s);
    }
    if (e->epfd >= 0)
        (void)close(e->epfd);
    msg_unmap(e->rx_memory, RX_MEMORY);
    msg_unmap(e->tun_memory, TUN_MEMORY);
    raw_reader_free(e->raw);
    loop_fini(l);
    free(e);
}

static const struct loop_ops epoll_ops = {
    .name = "epoll",
    .free = epoll_free,
    .turn = epoll_turn,
    .io_open = epoll_io_open,
    .io_close = epoll_io_close,
    .send = epoll_send,
    .write = epoll_write,
    .watch = epoll_watch,
    .unwatch = epoll_unwatch,
};

enum err loop_epoll_new(const struct loop_hooks *hooks, struct loop **out)
{
    struct epoll_loop *e = calloc(1, sizeof *e);
    if (!e)
        return ERR_NOMEM;
    enum err result = loop_init(&e->base, &epoll_ops, hooks);
    if (result != OK) {
        free(e);
        return result;
    }
    e->retry_at = NS_NEVER;
    e->epfd = epoll_create1(EPOLL_CLOEXEC);
    e->rx_memory = msg_map(RX_MEMORY);
    e->tun_memory = msg_map(TUN_MEMORY);
    if (e->epfd < 0 || !e->rx_memory || !e->tun_memory) {
        result = e->epfd < 0 ? ERR_SYSTEM : ERR_NOMEM;
        epoll_free(&e->base);
        return result;
    }
    for (unsigned i = 0; i < RX_MESSAGES; i++) {
        e->rx_iov[i] = (struct iovec){.iov_base = e->rx_memory + (size_t)i * LOOP_RX_SIZE, .iov_len = LOOP_RX_SIZE};
        e->rx_msg[i].msg_hdr = (struct msghdr){
            .msg_name = e->rx_name[i],
            .msg_iov = &e->rx_iov[i],
            .msg_iovlen = 1,
            .msg_control = e->rx_control[i],
        };
    }
    *out = &e->base;
    return OK;
}
