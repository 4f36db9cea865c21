/*
 * What the files of the worker share: worker.c (life, events); outbound.c, frame.c, whole.c and wire.c (TUN to wire);
 * inbound.c and deliver.c (wire to TUN).
 */
#ifndef ADIT_WORKER_IMPL_H
#define ADIT_WORKER_IMPL_H

#include <pthread.h>

#include "core/cover.h"
#include "core/flow_log.h"
#include "core/hold.h"
#include "core/worker.h"
#include "esp/esp.h"
#include "tun/offload.h"
#include "tun/reassembly.h"

#define ICMP_BURST 100   /* errors that may go to the TUN at once (RFC 4443 section 2.4 (f)) … */
#define ICMP_PER_S 1000  /* … and in the long run */
#define ACQUIRE_SLOTS 64 /* policies whose last acquire is remembered; collisions only send one more */

/* Packets of one SA on their way through seal or open, all in one slot. */
struct batch {
    struct sa *sa;
    struct loop_slot *slot;
    uint32_t used; /* bytes of the slot */
    unsigned n;
    struct esp_packet v[TRANSFORM_BATCH];
    uint16_t head[TRANSFORM_BATCH]; /* bytes of the IP header before each packet: of ESP that goes by a raw socket, */
                                    /* or of what has come in transport mode */
    struct path path;               /* outbound: the SA's, as the headers were written for it */
    struct endpoint from;           /* inbound: who sent them */
    const struct worker_socket *socket; /* inbound: where they came in */
};

struct bound_socket { /* one loop_io and its way back to the worker */
    struct worker *worker;
    struct loop_io *io;
    struct worker_socket s;
};

struct worker {
    struct worker_params p;
    struct loop *loop;
    bool own_loop, started;
    atomic_bool stop, failed;
    atomic_bool called; /* since it was looked at last */
    pthread_t thread;
    int call_fd; /* the control thread has something to look at: the end, or a new SA */
    struct loop_watch *call_watch;
    struct loop_hooks hooks;
    struct worker *self; /* what the hooks of a loop of our own point to */

    struct ring *ring;
    bool ring_filled; /* records were pushed in this turn: wake the control thread at its end */
    struct flow_cache *flows;
    struct coalescer *coalescer;
    struct hold *hold;
    struct hold *early;               /* ESP that has come before its SA, by SPI */
    struct fragment_table *fragments; /* what first fragments from the TUN showed */
    struct reassembly *reassembly;    /* those for SAs in transport mode, by policy */
    unsigned icmp_tokens;             /* errors that may be sent to it now, */
    ns_t icmp_at;                     /* as of then */
    struct loop_io *tun;
    struct bound_socket sockets[WORKER_SOCKETS];
    struct flow_log *flow_log;
    struct cover cover;
    struct audit audit;
    uint16_t identification; /* of the last IPv4 header in front of AH */
    struct batch out, in;
    struct {
        uint32_t policy_id;
        ns_t at;
    } acquired[ACQUIRE_SLOTS];
    struct stat_block stats;
};

static inline ns_t worker_now(const struct worker *w)
{
    return w->p.now(w->p.now_ctx);
}
static inline void worker_count(struct worker *w, enum stat_id s, uint64_t n)
{
    stat_add(&w->stats, s, n);
}

/* Drops that a policy has, or an SA too; policy and sa may be NULL. */
static inline void worker_drop(struct worker *w, enum stat_id s, uint64_t n, struct policy_stats *policy, struct sa *sa)
{
    worker_count(w, s, n);
    if (n && policy)
        stat_add_shared(&policy->drops.n[s - STAT_DROP_FIRST], n);
    if (n && sa)
        stat_add_shared(&sa->drops.n[s - STAT_DROP_FIRST], n);
}
static inline void worker_sa_drop(struct worker *w, enum stat_id s, uint64_t n, struct sa *sa)
{
    worker_drop(w, s, n, sa->params.stats, sa);
}

/* Push one record for the control thread. False: the ring is full, which is counted under `full`. */
bool worker_push(struct worker *w, enum worker_message type, struct span a, struct span b, enum stat_id full);
bool worker_event(struct worker *w, const struct worker_event *e);
/* Turns what esp_seal and esp_open report into events. */
void worker_limits(struct worker *w, struct sa *sa, unsigned events);

/* loop_io_handler.received of the TUN and of the sockets; ctx: struct worker, struct bound_socket. */
void outbound_received(void *ctx, struct loop_rx *rx, unsigned n);
void inbound_received(void *ctx, struct loop_rx *rx, unsigned n);
void inbound_raw(void *ctx, struct loop_rx *rx, unsigned n); /* of raw sockets: whole IP packets */
/* The MSS that a SYN of this SA may announce; 0: whatever it does. */
uint16_t frame_mss(const struct worker *w, const struct sa *sa, bool ipv6);
/* frame.c: a batch of that SA that has room for so many bytes more, or NULL when all buffers are in flight. */
struct batch *frame_batch(struct worker *w, struct sa *sa, uint32_t bytes);
/*
 * Room in the outbound batch for one more inner packet of that size, and for its padding: data, len and tfc of p; its
 * outer and next_header are there; of AH head and family, too. frame_add takes what was written there. False: all buffers are in flight.
 */
bool frame_room(struct worker *w, struct sa *sa, uint32_t size, struct esp_packet *p);
void frame_add(struct worker *w, const struct esp_packet *p, uint32_t size);
/* oversize.c: a packet of which a segment is longer than `max`. True: it goes all the same; else it has been seen to. */
bool frame_oversize(struct worker *w, struct sa *sa, struct segments *s, uint32_t max);
/* Puts a packet, or the segments of one, into the batch of its SA, which is flushed as it fills up. */
void frame_packet(struct worker *w, struct sa *sa, struct segments *s);
/* What packets are padded to at most: no more than the tunnel has room for, or the path as far as it is known. */
uint32_t frame_largest(const struct worker *w, const struct sa *sa);
/* A packet with nothing inside, of that inner length (RFC 4303 section 2.6). False: all buffers are in flight. */
bool frame_dummy(struct worker *w, struct sa *sa, uint32_t len);
/* reinject.c: sends a packet, or the segments of one, past the TUN in the clear. False: some are dropped. */
bool reinject(struct worker *w, struct segments *s, const struct ip *to, struct policy_stats *stats);
/* wire.c: seals and sends what the outbound batch holds. */
void wire_flush(struct worker *w);
/* The kernel gives IPv4 an Identification of its own for a 0. AH covers it, so there it is ours: never 0, and another. */
uint16_t frame_identification(struct worker *w);
/*
 * pieces.c: sends a sealed packet of a raw socket as fragments of at most `max` bytes. protocol: ESP or AH. False: it can't
 * be cut (DF), or all buffers are in flight; nothing has been sent.
 */
bool pieces_send(struct worker *w, struct loop_io *io, const struct loop_tx *whole, uint8_t protocol, uint32_t max);
/* The same of a UDP datagram over IPv6, which leaves by a raw socket then. */
bool pieces_send_udp(struct worker *w, struct loop_io *raw, const struct loop_tx *datagram, const struct path *path,
                     const struct outer *outer, uint32_t max);
/* transport.c: the same for an SA in transport mode. mss: SYNs are to be clamped to that; 0: they are not. */
void frame_transport(struct worker *w, struct sa *sa, struct segments *s, const struct outer *outer, uint16_t mss);
/*
 * whole.c: a packet that may be a fragment, for an SA in transport mode: the datagram goes when all of it is there. expire:
 * at the end of a turn. dropped: what reassembly tells of fragments; ctx: struct worker.
 */
void frame_fragment(struct worker *w, struct sa *sa, struct segments *s);
void fragments_expire(struct worker *w);
void fragments_dropped(void *ctx, uint32_t policy_id, unsigned fragments);
/* Inbound: the bytes of header that a packet is to get back. head: of the one before ESP, 0 if it came in UDP. */
uint32_t transport_head(uint8_t family, uint32_t head);
/* What there is of the header of the next packet of the batch goes before its place in the slot. */
void transport_keep(struct batch *b, const uint8_t *esp, uint8_t *dst, uint32_t head);
/* A packet that was opened gets its header back. False: it is to be dropped, for what its `drop` says. */
bool transport_restore(struct batch *b, unsigned i);
/* deliver.c: what esp_open found good in the inbound batch goes to the TUN, the rest is counted. */
void deliver(struct worker *w, struct batch *b);

/* At the end of a turn: sends what was held for an SA that is there now, drops what has waited too long. */
void outbound_held(struct worker *w);
void inbound_held(struct worker *w); /* the same for what came in early */

/* cover.c: at the end of a turn, the dummies that are due. */
void cover_send(struct worker *w);

/*
 * audit.c. wanted: whether a packet dropped for that reason is to be reported; if not, it has been counted. push: of an
 * event that was wanted; held and wall are filled in. sa: both, of a packet on an SA; packet: the inner one as far as it
 * can be seen, else empty; from: where it came from, of an inbound one. turn: what was held back, when it is time.
 */
bool audit_wanted(struct worker *w, enum stat_id reason);
void audit_push(struct worker *w, struct audit_event *e);
void audit_sa(struct worker *w, enum stat_id reason, const struct sa *sa, const struct esp_packet *p,
              const struct endpoint *from, struct span packet);
void audit_turn(struct worker *w);

/* What the policy's packets go out on; NULL: nothing that was made for the policy as it is now. */
static inline struct sa *worker_sa_out(const struct worker *w, const struct spd_entry *entry)
{
    struct sa *sa = sad_find_out(w->p.shared->sad, entry->id, w->p.index);
    return sa && sa->params.version == entry->policy->version ? sa : NULL;
}

/* tap.c: shows n packets of a batch to who captures them. */
void tap_batch(struct worker *w, const struct batch *b, enum tap_side side, unsigned first, unsigned n);
static inline bool tapped(const struct worker *w)
{
    return atomic_load_explicit(&w->p.shared->taps.count, memory_order_relaxed) != 0;
}

/* flows.c: what a packet adds to its flow, for policies with a flow log; sa: that it came or goes on, or NULL. */
void flows_note(struct worker *w, const struct spd_entry *entry, const struct sa *sa, const struct flow *f,
                enum flow_fate fate, uint64_t packets, uint64_t bytes);
void flows_turn(struct worker *w);

#endif
