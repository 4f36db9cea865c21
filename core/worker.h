/*
 * A worker: one thread that carries packets between its TUN queue and its sockets (DESIGN: The way of a packet).
 * It owns a loop, a flow cache, a coalescer and a block of counters; it reads the shared SPD snapshot and SAD; it talks
 * to the control thread by one ring each way and never calls the IKE engine.
 *
 * The same code runs on a loop in memory, without a thread: worker_new, then turns of that loop.
 */
#ifndef ADIT_WORKER_H
#define ADIT_WORKER_H

#include <stdatomic.h>

#include "core/audit.h"
#include "core/base/epoch.h"
#include "core/base/loop.h"
#include "core/base/ring.h"
#include "core/base/stat.h"
#include "core/tap.h"
#include "esp/sad.h"
#include "policy/spd.h"

#define WORKER_SOCKETS 48 /* six for each of eight addresses: two ports, with DF besides, and ESP and AH */

/* Records in the ring from worker to control: `a` span of ring_push is one struct of these, `b` the payload. */
enum worker_message {
    WORKER_IKE,   /* struct worker_datagram, then the IKE message without marker */
    WORKER_EVENT, /* struct worker_event */
    WORKER_AUDIT, /* struct audit_event */
    WORKER_FLOW,  /* struct flow_record */
};
struct worker_datagram {
    struct path path;
};
enum worker_event_kind {
    WORKER_ACQUIRE, /* policy_id, packet: it wanted an SA (raised at most once a second for each policy) */
    WORKER_SOFT,    /* child: ask for a rekey */
    WORKER_HARD,    /* child: stopped */
    WORKER_LONG,    /* child: a long datagram has left on its outbound SA (sa.news_over) */
    WORKER_MOVED,   /* child: authentic ESP came from `from`, which is not its peer's address */
};
struct worker_event {
    enum worker_event_kind kind;
    uint32_t policy_id;
    uint64_t child;
    struct endpoint from;
    struct flow packet;
};

/* What all workers share; owned by the daemon. */
struct worker_shared {
    struct epoch *epoch;
    struct sad *sad;
    struct spd *_Atomic spd; /* current snapshot; replaced whole, the old one retired through the epoch */
    struct taps taps;
    atomic_bool no_audit;        /* discarded packets are only counted */
    _Atomic unsigned mtu;        /* of the TUN: what fits the tunnel, with TFC padding too */
    _Atomic unsigned mss4, mss6; /* TCP MSS to clamp SYNs to, from the TUN's MTU; 0: off */
};

enum worker_socket_kind { SOCKET_UDP, SOCKET_ESP, SOCKET_AH }; /* the last two raw: IP protocols 50 and 51 */

struct worker_socket {
    int fd;
    enum worker_socket_kind kind;
    struct endpoint local; /* as bound; port tells: nat-port or another NAT-T port carries the marker. Raw: port 0 */
    bool marker;           /* IKE messages on this socket have the non-ESP marker, ESP comes as it is */
    bool df;               /* for sending with DF, or whole, from that address and port; nothing comes in here */
};

struct worker_params {
    unsigned index; /* 0-based: reader number of the epoch, worker bits of SPIs are index + 1 */
    struct worker_shared *shared;
    struct loop *loop; /* NULL: made by worker_new with `io` (and freed by worker_free) */
    enum loop_kind io;
    int tun_fd;
    bool uso; /* the TUN takes UDP superpackets */
    struct worker_socket sockets[WORKER_SOCKETS];
    unsigned socket_count;
    ns_t (*now)(void *ctx); /* NULL: clock_now */
    void *now_ctx;
    int wake_fd; /* eventfd to write to when the ring gets its first record; -1: none */
};

struct worker;

/* why: one line about the loop engine that runs. Errors: as loop_new; NOMEM. */
MUST_USE enum err worker_new(struct worker **out, const struct worker_params *p, char *why, size_t why_size);
void worker_free(struct worker *w); /* stopped */

MUST_USE enum err worker_start(struct worker *w); /* its thread; signals blocked. Errors: SYSTEM */
void worker_stop(struct worker *w);               /* asks, and joins */
/* Any thread: an SA or an SPD was published, packets may wait for it. A loop of the caller's finds them at its next turn. */
void worker_call(struct worker *w);

/* Its thread ended by itself, with a line in the log; wake_fd was written. Packets no longer flow: end the daemon. */
bool worker_failed(const struct worker *w);

/* The thread has ended: what it knows of flows goes to the ring, as far as there is room. */
void worker_flows_end(struct worker *w);

struct ring *worker_ring(struct worker *w); /* the control thread consumes it */
const struct stat_block *worker_stats(const struct worker *w);
const char *worker_loop_name(const struct worker *w); /* "io_uring" … */

/* Hooks of a loop made by the caller (worker_params.loop): to be filled in before the loop is made. */
struct loop_hooks worker_hooks(struct worker **w);

#endif
