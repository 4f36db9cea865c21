/*
 * One thread's input and output: a table of operations with two engines for real descriptors (io_uring and epoll) and
 * one in memory (tun/memory.c) on which whole tunnels run in virtual time. The unit of work is a vector: everything
 * that arrived since the last turn comes in one call, everything sent in a turn leaves in one system call or few.
 *
 * Buffers. What is received lives in the loop's buffers and is valid only until the callback returns. What is sent lives
 * in a slot: taken with loop_slot_get, filled, named in each send or write, given back with loop_slot_put. The loop
 * holds a reference of its own for each operation until the kernel has completed it, so a buffer handed to the kernel
 * is never touched before its completion. No function here blocks but loop_turn.
 */
#ifndef ADIT_LOOP_H
#define ADIT_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "core/base/clock.h"
#include "core/base/err.h"
#include "core/base/ip.h"

#define LOOP_SLOT_SIZE (96 * 1024) /* a 64 KiB superpacket cut and sealed, or a received 64 KiB opened */
#define LOOP_SLOTS 96              /* slots of one loop */
#define LOOP_BATCH 64              /* most items that one callback hands over */
#define LOOP_RX_SIZE (65536 + 512) /* whole GRO datagram or TUN superpacket, with headers */
#define LOOP_HEAD_MAX 8232       /* IPv6 header, and hop-by-hop, routing and twice destination options of 2,048 bytes */
#define LOOP_SEGMENTS 63         /* most datagrams of one segmented send: kernels before 6.9 refuse 64 */
#define LOOP_SEND_MAX 65000      /* most bytes of one segmented send */
#define LOOP_FLOW_LABEL 0xfffffu /* its bits in an IPv6 header's first word; the traffic class stands before it */
#define LOOP_IOV_MAX 72          /* most pieces of one TUN write */

struct loop;
struct loop_io;    /* a packet descriptor: a TUN queue, or a UDP or raw socket */
struct loop_watch; /* any other descriptor whose readiness is watched */

struct loop_slot {
    uint8_t *data; /* LOOP_SLOT_SIZE bytes */
    uint32_t refs; /* the loop's business */
    uint32_t index;
};

enum loop_io_kind {
    LOOP_TUN, /* read and write; each item is one packet behind its virtio_net_hdr */
    LOOP_UDP, /* recvmsg and sendmsg with addresses, segmentation and coalescing */
    /*
     * A raw IP socket (tun/raw.h): each item is one whole IP packet with its header, both ways, one by one. The kernel
     * fills in an IPv4 header's length and checksum, and its Identification if that is 0; it sends none that is longer
     * than the device's MTU (EMSGSIZE). What the IPv6 header of a received packet said is put together again, with extension
     * headers (but for a fragment header) up to LOOP_HEAD_MAX.
     */
    LOOP_RAW,
};

struct loop_rx {
    uint8_t *data; /* may be changed by the receiver */
    uint32_t len;
    uint16_t segment;     /* UDP: size of each coalesced datagram but the last; 0: a single one */
    uint8_t tos;          /* UDP, raw: outer TOS or traffic class; 0 where the socket does not tell */
    uint8_t ttl;          /* UDP: TTL or hop limit; 0 likewise */
    bool cut;             /* UDP, raw: some of it, or of what the socket told about it, is missing: of no use */
    uint32_t flow;        /* UDP, raw, of IPv6: the flow label; 0: none, or the socket does not tell */
    struct endpoint from; /* UDP, raw: sender; raw: port 0 */
    struct ip to;         /* UDP, raw: address it was sent to; family 0 where unknown */
};

struct loop_tx {
    struct loop_slot *slot;
    const uint8_t *data; /* within the slot */
    uint32_t len;
    uint16_t segment; /* 0 or >= len: one datagram; otherwise the size of each but the last (at most LOOP_SEGMENTS) */
    uint8_t tos;      /* UDP */
    uint8_t ttl;      /* UDP: TTL or hop limit; 0: the host's default */
    bool df;          /* UDP: not to be fragmented; in memory, for the kernel the socket decides */
    struct endpoint to;
    struct ip from; /* source address; family 0: the kernel's choice. Raw: for the way there, the header has its own */
};

/* Why a send failed after it was queued. */
struct loop_failure {
    int error; /* errno: EMSGSIZE and EINVAL (segment over the path MTU), ENETUNREACH, EPERM … */
    uint32_t datagrams;
    uint32_t size; /* bytes of the largest datagram, without IP and UDP headers */
    struct endpoint to;
};

struct loop_io_handler {
    void *ctx;
    void (*received)(void *ctx, struct loop_rx *rx, unsigned n); /* 1 <= n <= LOOP_BATCH */
    void (*failed)(void *ctx, const struct loop_failure *f);     /* may be NULL; may run within a send or write */
};

struct loop_hooks {
    void *ctx;
    void (*turn_end)(void *ctx); /* all callbacks of this turn have run, nothing was sent out yet: flush batches here */
    void (*sleep)(void *ctx);    /* about to wait in the kernel; the loop holds no pointer of yours */
    void (*wake)(void *ctx);     /* back from waiting, before any callback */
};

struct loop_ops {
    const char *name; /* "io_uring", "epoll", "memory" */
    void (*free)(struct loop *l);
    enum err (*turn)(struct loop *l, ns_t deadline);
    enum err (*io_open)(struct loop *l, int fd, enum loop_io_kind kind, const struct loop_io_handler *h,
                        struct loop_io **out);
    void (*io_close)(struct loop *l, struct loop_io *io);
    void (*send)(struct loop *l, struct loop_io *io, const struct loop_tx *tx);
    void (*write)(struct loop *l, struct loop_io *io, struct loop_slot *slot, const struct iovec *iov, unsigned n);
    enum err (*watch)(struct loop *l, int fd, uint32_t events, void (*fn)(void *, uint32_t), void *ctx,
                      struct loop_watch **out);
    void (*unwatch)(struct loop *l, struct loop_watch *w);
};

/* What every engine's struct loop begins with; the slot pool is shared code (loop.c). */
struct loop {
    const struct loop_ops *ops;
    struct loop_hooks hooks;
    struct loop_slot slots[LOOP_SLOTS];
    uint32_t free_list[LOOP_SLOTS]; /* last in, first out: the cache-warm one is used next */
    uint32_t free_count;
    uint8_t *slot_memory;
};

/*
 * An engine on this machine. kind: what the configuration asked for. AUTO probes io_uring (set-up with full flags, then
 * fewer, then a no-op) and falls back to epoll; URING fails where it can't run. why gets one line, fit for the log,
 * saying which engine runs and the reason.
 * Errors: UNSUPPORTED (io_uring was forced and is refused), NOMEM, SYSTEM.
 */
enum loop_kind { LOOP_AUTO, LOOP_URING, LOOP_EPOLL };
MUST_USE enum err loop_new(enum loop_kind kind, const struct loop_hooks *hooks, struct loop **out, char *why,
                           size_t why_size);
MUST_USE enum err loop_uring_new(const struct loop_hooks *hooks, struct loop **out, char *why, size_t why_size);
MUST_USE enum err loop_epoll_new(const struct loop_hooks *hooks, struct loop **out);

/* For the engines: set up and tear down the common part. */
MUST_USE enum err loop_init(struct loop *l, const struct loop_ops *ops, const struct loop_hooks *hooks);
void loop_fini(struct loop *l);

/* NULL when all are in flight: count a drop. The caller holds one reference. */
struct loop_slot *loop_slot_get(struct loop *l);
void loop_slot_put(struct loop *l, struct loop_slot *s);
static inline void loop_slot_ref(struct loop_slot *s)
{
    s->refs++;
}

/*
 * Cancels what is in flight, waits for it, closes no descriptor (they belong to who opened them). A loop may be made in
 * one thread and run in another. Freed by the thread that ran it, its descriptors can be reopened at once; freed by
 * another after that thread has ended, the kernel lets go of them a moment later.
 */
static inline void loop_free(struct loop *l)
{
    if (l)
        l->ops->free(l);
}

/*
 * Sends what is queued, waits until something happens or the deadline (NS_NEVER: none), runs callbacks, then turn_end.
 * Errors: SYSTEM, with errno; EBADFD is for good: the TUN device has been deleted.
 */
MUST_USE static inline enum err loop_turn(struct loop *l, ns_t deadline)
{
    return l->ops->turn(l, deadline);
}

/* The descriptor must be non-blocking and outlive the io. Errors: NOMEM, SYSTEM, FULL. */
MUST_USE static inline enum err loop_io_open(struct loop *l, int fd, enum loop_io_kind kind,
                                             const struct loop_io_handler *h, struct loop_io **out)
{
    return l->ops->io_open(l, fd, kind, h, out);
}
static inline void loop_io_close(struct loop *l, struct loop_io *io)
{
    l->ops->io_close(l, io);
}

/*
 * Queue a send. Where the kernel refuses segmentation on this socket (EIO), the engine stops using it there and sends
 * the datagrams one by one, as it does with one send whose segments exceed what the kernel has learned of the path MTU
 * (EMSGSIZE or EINVAL): by themselves they are fragmented. Other errors go to the handler's failed().
 */
static inline void loop_send(struct loop *l, struct loop_io *io, const struct loop_tx *tx)
{
    l->ops->send(l, io, tx);
}

/* Queue a TUN write of one packet gathered from n pieces, all of them within slot; iov itself is copied. */
static inline void loop_write(struct loop *l, struct loop_io *io, struct loop_slot *slot, const struct iovec *iov,
                              unsigned n)
{
    l->ops->write(l, io, slot, iov, n);
}

/* events: EPOLLIN and friends, level-triggered. Errors: NOMEM, SYSTEM. */
MUST_USE static inline enum err loop_watch_add(struct loop *l, int fd, uint32_t events,
                                               void (*fn)(void *ctx, uint32_t events), void *ctx,
                                               struct loop_watch **out)
{
    return l->ops->watch(l, fd, events, fn, ctx, out);
}
static inline void loop_watch_del(struct loop *l, struct loop_watch *w)
{
    l->ops->unwatch(l, w);
}

#endif
