/*
 * A network in memory behind the loop's interface: TUN queues, UDP and raw sockets that are numbers, a wire between hosts
 * with addresses, delay, loss, duplication and reordering, in virtual time and from a seeded source. One memory_net
 * holds any number of loops (hosts); everything runs in the calling thread.
 */
#ifndef ADIT_MEMORY_H
#define ADIT_MEMORY_H

#include "core/base/loop.h"

struct memory_net;

struct memory_faults {
    unsigned loss, duplicate, reorder; /* per mille of datagrams */
    ns_t delay;                        /* one way */
};

MUST_USE enum err memory_net_new(struct memory_net **out, uint64_t seed);
void memory_net_free(struct memory_net *n); /* after its loops */
void memory_net_faults(struct memory_net *n, const struct memory_faults *f);
ns_t memory_now(const struct memory_net *n);
/*
 * Sees every datagram on the wire (a capture); returning false drops it. NULL: none. Of raw sockets whole IP packets, and
 * both ports are 0.
 */
void memory_net_tap(struct memory_net *n,
                    bool (*tap)(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data,
                                size_t len),
                    void *ctx);

/* What the outer header of a datagram says; the address family tells which kind of header it is. */
struct memory_header {
    uint8_t tos, ttl; /* ttl: 0: the host's default; of UDP */
    bool df;
    uint32_t flow; /* of raw sockets over IPv6: the flow label */
    bool cut;      /* what arrives of it is not all, as its host's kernel says */
};
/* A router on the way: sees each datagram that the tap let pass, and may change what stands in its header. NULL: none. */
void memory_net_router(struct memory_net *n,
                       void (*router)(void *ctx, const struct endpoint *from, const struct endpoint *to,
                                      struct memory_header *header),
                       void *ctx);

/*
 * UDP from `inner` seems to come from `outer`, and what is sent there arrives at `inner`, all ports the same: a NAT that
 * maps one to one. One for each network; the tap sees what is behind it.
 */
void memory_net_nat(struct memory_net *n, const struct ip *inner, const struct ip *outer);

/* A loop of this network. Its loop_turn never waits: it delivers what is due, then moves time forward on memory_run. */
MUST_USE enum err memory_loop_new(struct memory_net *n, const struct loop_hooks *hooks, struct loop **out);

/* Virtual descriptors for loop_io_open of a memory loop. */
int memory_udp(struct memory_net *n, const struct endpoint *local);
int memory_raw(struct memory_net *n, const struct ip *local, uint8_t protocol);
int memory_tun(struct memory_net *n);

/* The host's side of a TUN: inject a frame (virtio_net_hdr first), and look at what the daemon wrote. */
MUST_USE enum err memory_tun_inject(struct memory_net *n, int tun, const uint8_t *frame, size_t len);
/* The oldest frame written by the daemon, or 0; copies at most cap bytes and removes it. */
size_t memory_tun_take(struct memory_net *n, int tun, uint8_t *frame, size_t cap);

/* Sends a datagram from outside any loop, as the control thread does; with both ports 0 it is an IP packet. */
void memory_send(struct memory_net *n, const struct endpoint *from, const struct endpoint *to, const uint8_t *data,
                 size_t len);

/* Turns all loops until nothing is due, then moves virtual time to the next delivery or to `until`, and so on. */
void memory_run(struct memory_net *n, ns_t until);

#endif
