/*
 * The engine on io_uring: multishot receives into rings of provided buffers, and everything sent in a turn submitted
 * by the same system call that waits. The ring is made disabled and enabled by the thread that takes the first turn,
 * which is the only one that may use it from then on.
 */
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/base/loop.h"
#include "core/base/loop_msg.h"
#include "core/base/loop_raw.h"

#define OP_READ_MULTISHOT 49 /* IORING_OP_READ_MULTISHOT, which kernel headers before 6.7 don't have */

#define SQ_ENTRIES 256
#define CQ_ENTRIES 4096
#define SENDS 1024 /* sends in flight: bounds also what waits for a full socket, in no order */
#define WRITES 128 /* gathered TUN writes in flight */
#define RX_UDP 64  /* buffers of all sockets together */
#define RX_TUN 32
#define RX_LEAST 8                        /* of each, whatever comes */
#define RX_HOT (512 * 1024)               /* the kernel is given buffers for so much: they stay in the cache */
#define TUN_MEMORY (4 * LOOP_RX_SIZE)     /* for TUN queues that are read after a poll */
#define BATCH_BYTES (256 * 1024)          /* what one callback hands over at most, for the same reason */
#define CANCEL_PATIENCE (500 * NS_PER_MS) /* loop_free waits so long for what is in flight */

_Static_assert(RX_UDP <= LOOP_BATCH && RX_TUN <= LOOP_BATCH, "what is received in a turn fits one vector");
_Static_assert(sizeof(struct io_uring_recvmsg_out) + MSG_RX_NAME + MSG_RX_CONTROL + 65535 <= LOOP_RX_SIZE,
               "a provided buffer holds a whole coalesced datagram");

enum op_type { OP_SEND, OP_WRITE, OP_RX, OP_WATCH };

/* What a completion's user data points to; the first member of each kind. NULL: nobody cares. */
struct op {
    enum op_type type;
};

struct send_op {
    struct op op;
    struct send_op *next_free;
    struct loop_io *io;
    struct loop_tx tx;
    struct msghdr hdr;
    struct iovec iov;
    struct msg_route route;
};

struct write_op {
    struct op op;
    struct write_op *next_free;
    struct loop_io *io;
    struct loop_slot *slot;
    unsigned n;
    struct iovec iov[LOOP_IOV_MAX];
};

/*
 * The kernel fills provided buffers in the order in which it got them, so it walks through all that it has. It has as
 * many as RX_HOT bytes of what comes at the moment need, and the others are spare: all of them for small datagrams, few
 * for superpackets.
 */
struct rx_ring {
    struct io_uring_buf_ring *entries;
    uint8_t *memory;
    unsigned count;
    unsigned typical; /* bytes in one buffer, a moving average */
    unsigned given;   /* buffers that are not spare */
    uint16_t spare[LOOP_BATCH];
};

struct loop_io {
    struct op op; /* of its receive or poll */
    struct loop_io *next;
    int fd;
    enum loop_io_kind kind;
    struct loop_io_handler handler;
    bool inet6, gso, armed, closed;
    bool served; /* had buffers in the last turn: the others are armed first, that they get some too */
    struct raw_socket raw;
    bool native; /* multishot receive and writes through the ring; otherwise (raw sockets always) read after a poll */
    bool proven; /* a multishot receive has given something */
    bool readable;
    unsigned faults;
    ns_t retry_at;     /* not armed before */
    unsigned inflight; /* operations whose last completion is outstanding */
    unsigned rx_count;
    struct loop_rx rx[LOOP_BATCH];
    uint16_t rx_buffer[LOOP_BATCH];
};

struct loop_watch {
    struct op op;
    struct loop_watch *next;
    int fd;
    uint32_t events, fired;
    bool armed, dead, broken;
    void (*fn)(void *ctx, uint32_t events);
    void *ctx;
};

struct uring_loop {
    struct loop base;
    struct io_uring ring;
    bool ring_made, enabled, in_turn, ending, some_dead;
    bool read_multishot;
    bool tun_gone; /* somebody deleted the device: no turn can do any good */
    bool unarmed;  /* some io or watch wants arming */
    ns_t retry_at;
    unsigned inflight;
    struct loop_io *ios;
    struct loop_watch *watches;
    struct rx_ring rx[2]; /* by enum loop_io_kind (LOOP_TUN, LOOP_UDP), which is also the group id */
    struct msghdr rx_hdr; /* the layout that multishot recvmsg uses in its buffers */
    uint8_t *tun_memory;
    struct raw_reader *raw; /* once there is a raw socket */
    struct send_op *sends, *free_sends;
    struct write_op *writes, *free_writes;
};

static struct uring_loop *self(struct loop *l)
{
    return (struct uring_loop *)l; /* base is the first member */
}

static void complete(struct uring_loop *u, const struct io_uring_cqe *cqe);

/* -- submission -- */

static struct io_uring_sqe *get_sqe(struct uring_loop *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (sqe)
        return sqe;
    (void)io_uring_submit(&u->ring);
    return io_uring_get_sqe(&u->ring);
}

/* Ties an entry to its operation, counted until its last completion. */
static void start(struct uring_loop *u, struct io_uring_sqe *sqe, struct loop_io *io, struct op *op)
{
    io_uring_sqe_set_data(sqe, op);
    u->inflight++;
    if (io)
        io->inflight++;
}

static void finish(struct uring_loop *u, struct loop_io *io)
{
    u->inflight--;
    if (io && --io->inflight == 0 && io->closed)
        u->some_dead = true;
}

/* Takes the next completion before acting on it: a failure handler may send, and that may take more of them. */
static bool complete_next(struct uring_loop *u, bool sends_only)
{
    struct io_uring_cqe *cqe;
    if (!io_uring_cq_ready(&u->ring) || io_uring_peek_cqe(&u->ring, &cqe) != 0)
        return false;
    struct io_uring_cqe done = *cqe;
    const struct op *op = io_uring_cqe_get_data(&done);
    if (sends_only && op && op->type != OP_SEND && op->type != OP_WRITE)
        return false;
    io_uring_cqe_seen(&u->ring, cqe);
    complete(u, &done);
    return true;
}

/*
 * Submits what is queued and takes the completions of sends up to the first receive. Sends run inside of the
 * submission, so this gives back their slots and records.
 */
static void submit_and_reap(struct uring_loop *u)
{
    if (!u->enabled || io_uring_submit(&u->ring) < 0)
        return;
    while (complete_next(u, true))
        ;
}

static void tell_failure(const struct uring_loop *u, const struct loop_io *io, const struct loop_failure *f)
{
    if (io->handler.failed && !io->closed && !u->ending)
        io->handler.failed(io->handler.ctx, f);
}

/* -- sending -- */

static struct send_op *take_send(struct uring_loop *u)
{
    if (!u->free_sends)
        submit_and_reap(u);
    struct send_op *s = u->free_sends;
    if (s)
        u->free_sends = s->next_free;
    return s;
}

static void give_send(struct uring_loop *u, struct send_op *s)
{
    s->next_free = u->free_sends;
    u->free_sends = s;
}

static void send_message(struct uring_loop *u, struct loop_io *io, const struct loop_tx *tx)
{
    struct send_op *s = take_send(u);
    struct io_uring_sqe *sqe = s ? get_sqe(u) : NULL;
    if (!sqe) {
        if (s)
            give_send(u, s);
        struct loop_failure f = msg_failure(tx, ENOBUFS);
        tell_failure(u, io, &f);
        return;
    }
    s->io = io;
    s->tx = *tx;
    msg_route(&s->route, tx, io->inet6);
    msg_header(&s->hdr, &s->iov, &s->route, tx, tx->len, msg_segmented(tx));
    loop_slot_ref(tx->slot);
    io_uring_prep_sendmsg(sqe, io->fd, &s->hdr, MSG_NOSIGNAL);
    start(u, sqe, io, &s->op);
}

static void send_singly(struct uring_loop *u, struct loop_io *io, const struct loop_tx *tx)
{
    struct loop_tx one = *tx;
    one.segment = 0;
    for (uint32_t done = 0; done < tx->len; done += one.len) {
        one.data = tx->data + done;
        one.len = tx->len - done < tx->segment ? tx->len - done : tx->segment;
        send_message(u, io, &one);
    }
}

static void uring_send(struct loop *l, struct loop_io *io, const struct loop_tx *tx)
{
    struct uring_loop *u = self(l);
    if (msg_segmented(tx) && !io->gso)
        send_singly(u, io, tx);
    else
        send_message(u, io, tx);
}

static void send_done(struct uring_loop *u, struct send_op *s, int res)
{
    struct loop_io *io = s->io;
    struct loop_tx tx = s->tx;
    give_send(u, s);
    if (res == -EIO && msg_segmented(&tx) && !io->closed && !u->ending) {
        io->gso = false; /* no checksum offload on the way out */
        send_singly(u, io, &tx);
    } else if (msg_too_long(-res) && msg_segmented(&tx) && !io->closed && !u->ending) {
        send_singly(u, io, &tx); /* one by one the kernel fragments them */
    } else if (res < 0) {
        struct loop_failure f = msg_failure(&tx, -res);
        if (!io->closed)
            msg_drain_errors(io->fd);
        tell_failure(u, io, &f);
    }
    loop_slot_put(&u->base, tx.slot);
    finish(u, io);
}

/* -- writing -- */

static void write_failed(const struct uring_loop *u, const struct loop_io *io, const struct iovec *iov, unsigned n,
                         int error)
{
    struct loop_failure f = msg_write_failure(iov, n, error);
    tell_failure(u, io, &f);
}

static struct write_op *take_write(struct uring_loop *u)
{
    if (!u->free_writes)
        submit_and_reap(u);
    struct write_op *w = u->free_writes;
    if (w)
        u->free_writes = w->next_free;
    return w;
}

static void give_write(struct uring_loop *u, struct write_op *w)
{
    w->next_free = u->free_writes;
    u->free_writes = w;
}

static void uring_write(struct loop *l, struct loop_io *io, struct loop_slot *slot, const struct iovec *iov, unsigned n)
{
    struct uring_loop *u = self(l);
    if (!io->native) {
        int error = msg_write_packet(io->fd, iov, n);
        if (error)
            write_failed(u, io, iov, n, error);
        return;
    }
    struct write_op *w = n <= LOOP_IOV_MAX ? take_write(u) : NULL;
    struct io_uring_sqe *sqe = w ? get_sqe(u) : NULL;
    if (!sqe) {
        if (w)
            give_write(u, w);
        write_failed(u, io, iov, n, n <= LOOP_IOV_MAX ? ENOBUFS : EINVAL);
        return;
    }
    w->io = io;
    w->slot = slot;
    w->n = n;
    memcpy(w->iov, iov, n * sizeof *iov);
    loop_slot_ref(slot);
    if (n == 1)
        io_uring_prep_write(sqe, io->fd, iov->iov_base, (unsigned)iov->iov_len, 0);
    else
        io_uring_prep_writev(sqe, io->fd, w->iov, n, 0);
    start(u, sqe, io, &w->op);
}

static void write_done(struct uring_loop *u, struct write_op *w, int res)
{
    struct loop_io *io = w->io;
    struct loop_slot *slot = w->slot;
    if (res < 0)
        write_failed(u, io, w->iov, w->n, -res);
    give_write(u, w);
    loop_slot_put(&u->base, slot);
    finish(u, io);
}

/* -- receiving -- */

static void rx_add(struct rx_ring *r, uint16_t buffer, unsigned at)
{
    io_uring_buf_ring_add(r->entries, r->memory + (size_t)buffer * LOOP_RX_SIZE, LOOP_RX_SIZE, buffer,
                          io_uring_buf_ring_mask(r->count), (int)at);
}

static unsigned rx_wanted(const struct rx_ring *r)
{
    unsigned n = RX_HOT / (r->typical + 1);
    return n < RX_LEAST ? RX_LEAST : n < r->count ? n : r->count;
}

static void rx_give_back(struct rx_ring *r, const uint16_t *buffers, unsigned n)
{
    unsigned wanted = rx_wanted(r), added = 0;
    for (unsigned i = 0; i < n; i++) {
        if (r->given > wanted)
            r->spare[r->count - r->given--] = buffers[i];
        else
            rx_add(r, buffers[i], added++);
    }
    while (r->given < wanted)
        rx_add(r, r->spare[r->count - ++r->given], added++);
    io_uring_buf_ring_advance(r->entries, (int)added);
}

/* False when the buffer holds no message. */
static bool rx_message(const struct uring_loop *u, struct loop_rx *rx)
{
    struct msghdr layout = u->rx_hdr;
    struct io_uring_recvmsg_out *o = io_uring_recvmsg_validate(rx->data, (int)rx->len, &layout);
    if (!o)
        return false;
    struct msghdr hdr = {
        .msg_name = io_uring_recvmsg_name(o),
        .msg_namelen = o->namelen,
        .msg_control = (uint8_t *)io_uring_recvmsg_name(o) + MSG_RX_NAME,
        .msg_controllen = o->controllen,
        .msg_flags = (int)o->flags,
    };
    uint32_t len = io_uring_recvmsg_payload_length(o, (int)rx->len, &layout);
    rx->data = io_uring_recvmsg_payload(o, &layout);
    rx->len = len;
    msg_received(&hdr, rx);
    return true;
}

static void rx_take(struct uring_loop *u, struct loop_io *io, unsigned len, uint16_t buffer)
{
    struct rx_ring *r = &u->rx[io->kind];
    struct loop_rx rx = {.data = r->memory + (size_t)buffer * LOOP_RX_SIZE, .len = len};
    if (io->closed || u->ending || (io->kind == LOOP_UDP && !rx_message(u, &rx))) {
        rx_give_back(r, &buffer, 1);
        return;
    }
    r->typical = (r->typical * 15 + len) / 16;
    io->faults = 0;
    io->proven = true;
    io->rx[io->rx_count] = rx;
    io->rx_buffer[io->rx_count] = buffer;
    io->rx_count++;
}

static void rx_fault(struct uring_loop *u, struct loop_io *io, int error)
{
    if (error == ENOBUFS || error == ECANCELED || io->closed)
        return; /* out of buffers: armed again when they are back */
    if (io->kind == LOOP_TUN && error == EBADFD && (io->proven || !io->native)) {
        u->tun_gone = true;
        return;
    }
    if (io->kind == LOOP_TUN && !io->proven && io->native && (error == EINVAL || error == EBADFD || error == EAGAIN)) {
        io->native = false; /* this descriptor can't be read by multishot */
        return;
    }
    if (io->kind != LOOP_TUN)
        msg_drain_errors(io->fd);
    if (++io->faults <= MSG_FAULTS_MAX)
        return;
    io->retry_at = clock_now() + MSG_FAULT_PAUSE;
    if (io->retry_at < u->retry_at)
        u->retry_at = io->retry_at;
}

static void rx_done(struct uring_loop *u, struct loop_io *io, int res, uint32_t flags)
{
    if (!io->native) {
        io->readable = res >= 0;
        if (res < 0)
            rx_fault(u, io, -res);
    } else if (res > 0 && (flags & IORING_CQE_F_BUFFER)) {
        rx_take(u, io, (unsigned)res, (uint16_t)(flags >> IORING_CQE_BUFFER_SHIFT));
    } else if (res <= 0) {
        rx_fault(u, io, res ? -res : EPIPE);
    }
    if (!(flags & IORING_CQE_F_MORE)) {
        io->armed = false;
        u->unarmed = true;
        finish(u, io);
    }
}

/* Hands over what came, in pieces that fit the cache, and starts sending what comes of each. */
static void deliver(struct uring_loop *u, struct loop_io *io)
{
    unsigned count = io->rx_count;
    for (unsigned from = 0, to; from < count; from = to) {
        uint32_t bytes = 0;
        for (to = from; to < count && (to == from || bytes + io->rx[to].len <= BATCH_BYTES); to++)
            bytes += io->rx[to].len;
        if (!io->closed)
            io->handler.received(io->handler.ctx, io->rx + from, to - from);
        rx_give_back(&u->rx[io->kind], io->rx_buffer + from, to - from);
        if (to < count)
            submit_and_reap(u);
    }
    io->rx_count = 0;
}

/* What said that it is readable: packets are read as the other engine does it. */
static void read_after_poll(struct uring_loop *u, struct loop_io *io)
{
    int error;
    io->readable = false;
    unsigned n = io->kind == LOOP_RAW ? raw_read(u->raw, &io->raw, io->rx, &error)
                                      : msg_read_packets(io->fd, u->tun_memory, TUN_MEMORY, io->rx, LOOP_BATCH, &error);
    if (n) {
        io->faults = 0;
        io->handler.received(io->handler.ctx, io->rx, n);
    } else if (error) {
        rx_fault(u, io, error);
    }
}

/* -- completions -- */

static void watch_done(struct uring_loop *u, struct loop_watch *w, int res)
{
    w->armed = false;
    u->unarmed = true;
    finish(u, NULL);
    if (w->dead) {
        u->some_dead = true;
        return;
    }
    w->broken = res < 0;
    w->fired = res < 0 ? (uint32_t)POLLERR : (uint32_t)res;
}

static void complete(struct uring_loop *u, const struct io_uring_cqe *cqe)
{
    struct op *op = io_uring_cqe_get_data(cqe);
    if (!op)
        return;
    switch (op->type) {
    case OP_SEND:
        send_done(u, (struct send_op *)op, cqe->res);
        break;
    case OP_WRITE:
        write_done(u, (struct write_op *)op, cqe->res);
        break;
    case OP_RX:
        rx_done(u, (struct loop_io *)op, cqe->res, cqe->flags);
        break;
    case OP_WATCH:
        watch_done(u, (struct loop_watch *)op, cqe->res);
        break;
    }
}

/* Those that are there now; what comes meanwhile waits for the next turn. */
static void complete_ready(struct uring_loop *u)
{
    for (unsigned n = io_uring_cq_ready(&u->ring); n && complete_next(u, false); n--)
        ;
}

/* -- turns -- */

static bool arm_io(struct uring_loop *u, struct loop_io *io)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    if (!sqe)
        return false;
    if (!io->native) {
        io_uring_prep_poll_add(sqe, io->fd, POLLIN);
    } else if (io->kind == LOOP_TUN) {
        io_uring_prep_rw(OP_READ_MULTISHOT, sqe, io->fd, NULL, 0, (uint64_t)-1);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = LOOP_TUN;
    } else {
        io_uring_prep_recvmsg_multishot(sqe, io->fd, &u->rx_hdr, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = LOOP_UDP;
    }
    start(u, sqe, io, &io->op);
    io->armed = true;
    return true;
}

static bool arm_watch(struct uring_loop *u, struct loop_watch *w)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    if (!sqe)
        return false;
    io_uring_prep_poll_add(sqe, w->fd, w->events);
    start(u, sqe, NULL, &w->op);
    w->armed = true;
    return true;
}

static void arm_ios(struct uring_loop *u, bool served)
{
    for (struct loop_io *io = u->ios; io; io = io->next) {
        if (io->armed || io->closed || io->served != served)
            continue;
        if (io->faults > MSG_FAULTS_MAX && clock_now() < io->retry_at)
            u->retry_at = io->retry_at < u->retry_at ? io->retry_at : u->retry_at;
        else if (!arm_io(u, io))
            u->unarmed = true;
    }
}

/*
 * Only right before the submission of a turn: no descriptor can be closed in between. Polls are armed anew each time,
 * which makes them level-triggered.
 */
static void arm(struct uring_loop *u)
{
    if (u->retry_at != NS_NEVER && clock_now() >= u->retry_at) {
        u->retry_at = NS_NEVER;
        u->unarmed = true;
    }
    if (!u->unarmed)
        return;
    u->unarmed = false;
    arm_ios(u, false);
    arm_ios(u, true);
    for (struct loop_watch *w = u->watches; w; w = w->next) {
        if (!w->armed && !w->dead && !w->broken && !arm_watch(u, w))
            u->unarmed = true;
    }
}

/* Submits and waits in one system call; 0 or a negative errno that matters. */
static int enter(struct uring_loop *u, ns_t deadline)
{
    const struct loop_hooks *hooks = &u->base.hooks;
    if (u->retry_at < deadline)
        deadline = u->retry_at;
    ns_t now = deadline == NS_NEVER ? 0 : clock_now();
    ns_t left = deadline == NS_NEVER ? NS_NEVER : deadline > now ? deadline - now : 0;
    int result;
    if (left == 0 || io_uring_cq_ready(&u->ring)) {
        result = io_uring_submit_and_get_events(&u->ring);
    } else {
        struct io_uring_cqe *cqe;
        struct __kernel_timespec ts = {.tv_sec = (int64_t)(left / NS_PER_S), .tv_nsec = (int64_t)(left % NS_PER_S)};
        if (hooks->sleep)
            hooks->sleep(hooks->ctx);
        result = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, left == NS_NEVER ? NULL : &ts, NULL);
        if (hooks->wake)
            hooks->wake(hooks->ctx);
    }
    /* Time is up, a signal came, or the kernel wants completions taken first: all well. */
    bool well = result >= 0 || result == -ETIME || result == -EINTR || result == -EBUSY || result == -EAGAIN;
    return well ? 0 : result;
}

static void reap(struct uring_loop *u)
{
    if (u->in_turn || !u->some_dead)
        return;
    u->some_dead = false;
    for (struct loop_io **at = &u->ios; *at;) {
        struct loop_io *io = *at;
        if (u->ending || (io->closed && io->inflight == 0)) {
            *at = io->next;
            free(io);
        } else {
            at = &io->next;
        }
    }
    for (struct loop_watch **at = &u->watches; *at;) {
        struct loop_watch *w = *at;
        if (u->ending || (w->dead && !w->armed)) {
            *at = w->next;
            free(w);
        } else {
            at = &w->next;
        }
    }
}

static void run_callbacks(struct uring_loop *u)
{
    for (struct loop_io *io = u->ios; io; io = io->next) {
        io->served = io->rx_count > 0;
        if (io->rx_count)
            deliver(u, io);
        if (io->readable && !io->closed)
            read_after_poll(u, io);
    }
    for (struct loop_watch *w = u->watches; w; w = w->next) {
        uint32_t events = w->fired;
        w->fired = 0;
        if (events && !w->dead)
            w->fn(w->ctx, events);
    }
    if (u->base.hooks.turn_end)
        u->base.hooks.turn_end(u->base.hooks.ctx);
}

static enum err uring_turn(struct loop *l, ns_t deadline)
{
    struct uring_loop *u = self(l);
    if (!u->enabled) {
        int error = io_uring_register((unsigned)u->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
        if (error < 0) {
            errno = -error;
            return ERR_SYSTEM;
        }
        u->enabled = true;
    }
    u->in_turn = true;
    arm(u);
    int error = enter(u, deadline);
    complete_ready(u);
    run_callbacks(u);
    u->in_turn = false;
    reap(u);
    errno = error ? -error : EBADFD;
    return error || u->tun_gone ? ERR_SYSTEM : OK;
}

/* -- opening and closing -- */

static enum err uring_io_open(struct loop *l, int fd, enum loop_io_kind kind, const struct loop_io_handler *h,
                              struct loop_io **out)
{
    struct uring_loop *u = self(l);
    if (kind == LOOP_RAW && !u->raw)
        TRY(raw_reader_new(&u->raw));
    struct loop_io *io = calloc(1, sizeof *io);
    if (!io)
        return ERR_NOMEM;
    *io = (struct loop_io){.op = {OP_RX}, .next = u->ios, .fd = fd, .kind = kind, .handler = *h, .gso = true};
    io->inet6 = kind != LOOP_TUN && msg_inet6(fd);
    io->native = kind == LOOP_UDP || (kind == LOOP_TUN && u->read_multishot);
    if (kind == LOOP_RAW)
        io->raw = raw_socket_of(fd);
    u->ios = io;
    u->unarmed = true;
    *out = io;
    return OK;
}

static void uring_io_close(struct loop *l, struct loop_io *io)
{
    struct uring_loop *u = self(l);
    io->closed = true;
    u->some_dead = true;
    if (io->inflight) {
        /* What is queued goes out first; the rest is cancelled while the descriptor is still open. */
        struct io_uring_sqe *sqe = get_sqe(u);
        if (sqe) {
            io_uring_prep_cancel_fd(sqe, io->fd, IORING_ASYNC_CANCEL_ALL);
            io_uring_sqe_set_data(sqe, NULL);
        }
        submit_and_reap(u);
    }
    reap(u);
}

static enum err uring_watch(struct loop *l, int fd, uint32_t events, void (*fn)(void *, uint32_t), void *ctx,
                            struct loop_watch **out)
{
    struct uring_loop *u = self(l);
    struct loop_watch *w = calloc(1, sizeof *w);
    if (!w)
        return ERR_NOMEM;
    *w = (struct loop_watch){.op = {OP_WATCH}, .next = u->watches, .fd = fd, .events = events, .fn = fn, .ctx = ctx};
    u->watches = w;
    u->unarmed = true;
    *out = w;
    return OK;
}

static void uring_unwatch(struct loop *l, struct loop_watch *w)
{
    struct uring_loop *u = self(l);
    w->dead = true;
    u->some_dead = true;
    if (w->armed) {
        struct io_uring_sqe *sqe = get_sqe(u);
        if (sqe) {
            io_uring_prep_cancel(sqe, w, 0);
            io_uring_sqe_set_data(sqe, NULL);
        }
        submit_and_reap(u);
    }
    reap(u);
}

/*
 * Waits until the kernel has let go of everything. In another thread than the one that took the turns this is refused,
 * and the kernel does it by itself soon after the ring is closed.
 */
static void cancel_all(struct uring_loop *u)
{
    struct io_uring_sqe *sqe = get_sqe(u);
    if (!sqe)
        return;
    io_uring_prep_cancel64(sqe, 0, IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL);
    io_uring_sqe_set_data(sqe, NULL);
    ns_t until = clock_now() + CANCEL_PATIENCE;
    while (u->inflight && clock_now() < until) {
        struct io_uring_cqe *cqe;
        struct __kernel_timespec ts = {.tv_nsec = (int64_t)(10 * NS_PER_MS)};
        int result = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
        if (result < 0 && result != -ETIME && result != -EINTR && result != -EBUSY && result != -EAGAIN)
            return;
        complete_ready(u);
    }
}

static size_t entries_size(const struct rx_ring *r)
{
    return r->count * sizeof(struct io_uring_buf);
}

static void uring_free(struct loop *l)
{
    struct uring_loop *u = self(l);
    u->ending = true;
    if (u->enabled && u->inflight)
        cancel_all(u);
    if (u->ring_made)
        io_uring_queue_exit(&u->ring);
    u->some_dead = true;
    reap(u);
    for (unsigned i = 0; i < 2; i++) {
        msg_unmap(u->rx[i].memory, (size_t)u->rx[i].count * LOOP_RX_SIZE);
        msg_unmap(u->rx[i].entries, entries_size(&u->rx[i]));
    }
    msg_unmap(u->tun_memory, TUN_MEMORY);
    raw_reader_free(u->raw);
    free(u->sends);
    free(u->writes);
    loop_fini(l);
    free(u);
}

static const struct loop_ops uring_ops = {
    .name = "io_uring",
    .free = uring_free,
    .turn = uring_turn,
    .io_open = uring_io_open,
    .io_close = uring_io_close,
    .send = uring_send,
    .write = uring_write,
    .watch = uring_watch,
    .unwatch = uring_unwatch,
};

/* -- set-up -- */

/*
 * Fuller flags first. Both need Linux 6.0, which is also where multishot recvmsg begins; below that the other engine is
 * as fast.
 */
static const struct rung {
    unsigned flags;
    const char *name;
} rungs[] = {
    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL, "deferred task work"},
    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_SUBMIT_ALL, "cooperative task work"},
};

/* A small ring of this kind carries out a no-op: 0, or a negative errno. Also asks for multishot reads. */
static int try_rung(const struct rung *rung, bool *read_multishot)
{
    struct io_uring ring;
    struct io_uring_params params = {.flags = rung->flags};
    int result = io_uring_queue_init_params(4, &ring, &params);
    if (result < 0)
        return result;
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
    io_uring_prep_nop(sqe);
    struct __kernel_timespec patience = {.tv_sec = 1};
    result = io_uring_submit_and_wait_timeout(&ring, &cqe, 1, &patience, NULL);
    if (result >= 0)
        result = cqe->res;
    struct io_uring_probe *probe = io_uring_get_probe_ring(&ring);
    *read_multishot =
        probe && probe->last_op >= OP_READ_MULTISHOT && io_uring_opcode_supported(probe, OP_READ_MULTISHOT);
    if (probe)
        io_uring_free_probe(probe);
    io_uring_queue_exit(&ring);
    return result;
}

/* Multishot reads of a TUN queue stall on 6.7, the first kernel that has them. */
static bool kernel_is_6_7(void)
{
    struct utsname name;
    return uname(&name) == 0 && strncmp(name.release, "6.7.", 4) == 0;
}

static int make_rx(struct uring_loop *u, struct rx_ring *r, unsigned group, unsigned count)
{
    r->count = count;
    r->entries = msg_map(entries_size(r));
    r->memory = msg_map((size_t)count * LOOP_RX_SIZE);
    if (!r->entries || !r->memory)
        return -ENOMEM;
    struct io_uring_buf_reg reg = {
        .ring_addr = (uint64_t)(uintptr_t)r->entries, .ring_entries = count, .bgid = (uint16_t)group};
    int result = io_uring_register_buf_ring(&u->ring, &reg, 0);
    if (result < 0)
        return result;
    io_uring_buf_ring_init(r->entries);
    for (uint16_t i = 0; i < count; i++)
        r->spare[i] = (uint16_t)(count - 1 - i);
    rx_give_back(r, NULL, 0);
    return 0;
}

static int make_records(struct uring_loop *u)
{
    u->sends = calloc(SENDS, sizeof *u->sends);
    u->writes = calloc(WRITES, sizeof *u->writes);
    u->tun_memory = msg_map(TUN_MEMORY);
    if (!u->sends || !u->writes || !u->tun_memory)
        return -ENOMEM;
    for (unsigned i = 0; i < SENDS; i++) {
        u->sends[i].op.type = OP_SEND;
        give_send(u, &u->sends[i]);
    }
    for (unsigned i = 0; i < WRITES; i++) {
        u->writes[i].op.type = OP_WRITE;
        give_write(u, &u->writes[i]);
    }
    u->rx_hdr = (struct msghdr){.msg_namelen = MSG_RX_NAME, .msg_controllen = MSG_RX_CONTROL};
    return 0;
}

static int make_ring(struct uring_loop *u, const struct rung *rung)
{
    struct io_uring_params params = {.flags = rung->flags | IORING_SETUP_R_DISABLED | IORING_SETUP_CQSIZE,
                                     .cq_entries = CQ_ENTRIES};
    int result = io_uring_queue_init_params(SQ_ENTRIES, &u->ring, &params);
    if (result < 0)
        return result;
    u->ring_made = true;
    if ((result = make_rx(u, &u->rx[LOOP_TUN], LOOP_TUN, RX_TUN)) < 0)
        return result;
    return make_rx(u, &u->rx[LOOP_UDP], LOOP_UDP, RX_UDP);
}

static enum err make_loop(const struct loop_hooks *hooks, const struct rung *rung, bool read_multishot, int *error,
                          struct loop **out)
{
    struct uring_loop *u = calloc(1, sizeof *u);
    if (!u)
        return ERR_NOMEM;
    enum err result = loop_init(&u->base, &uring_ops, hooks);
    if (result != OK) {
        free(u);
        return result;
    }
    u->retry_at = NS_NEVER;
    u->read_multishot = read_multishot && !kernel_is_6_7();
    *error = make_ring(u, rung);
    if (*error == 0)
        *error = make_records(u);
    if (*error < 0) {
        uring_free(&u->base);
        return *error == -ENOMEM ? ERR_NOMEM : ERR_UNSUPPORTED;
    }
    *out = &u->base;
    return OK;
}

enum err loop_uring_new(const struct loop_hooks *hooks, struct loop **out, char *why, size_t why_size)
{
    int error = 0;
    for (unsigned i = 0; i < sizeof rungs / sizeof *rungs; i++) {
        bool read_multishot = false;
        error = try_rung(&rungs[i], &read_multishot);
        if (error < 0)
            continue;
        enum err result = make_loop(hooks, &rungs[i], read_multishot, &error, out);
        if (result == OK) {
            (void)snprintf(why, why_size, "io_uring with %s, TUN %s", rungs[i].name,
                           self(*out)->read_multishot ? "in multishot reads" : "read after poll");
            return OK;
        }
    }
    (void)snprintf(why, why_size, "io_uring can't be used: %s%s", strerror(-error),
                   error == -EPERM || error == -ENOSYS ? " (refused by a seccomp profile or kernel.io_uring_disabled)"
                   : error == -EINVAL                  ? " (Linux before 6.0)"
                                                       : "");
    return ERR_UNSUPPORTED;
}
