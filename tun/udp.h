/* UDP sockets of the daemon: bound, marked, with coalescing on receive, large buffers and path MTU errors. */
#ifndef ADIT_UDP_H
#define ADIT_UDP_H

#include <stdbool.h>

#include "core/base/err.h"
#include "core/base/ip.h"

/*
 * The mark on every packet the daemon itself sends, and the number of its routing table; see netlink.h. ("ADIT")
 */
#define TUN_FWMARK 0x41444954u

struct udp_options {
    struct endpoint local; /* ip family says IPv4 or IPv6; the any address with port is fine */
    bool reuseport;        /* part of a group: one socket for each worker */
    bool mark;             /* SO_MARK with TUN_FWMARK (needs CAP_NET_ADMIN) */
    bool gro;
};

/*
 * Non-blocking socket with UDP_GRO, PKTINFO and TOS reporting, IPV6_V6ONLY, 7 MB buffers. A port busy for a moment
 * after an earlier process ended is tried again for up to 2 s.
 *
 * Path MTU discovery is off: IKE and ESP share the socket, and a datagram over the path's MTU is fragmented rather than
 * lost in silence where ICMP is filtered. Over IPv4 routers do that, so that what ICMP, which anybody can forge, has made
 * the kernel believe of the path doesn't count (IP_PMTUDISC_OMIT); over IPv6 only this host can, by what it believes
 * (IPV6_PMTUDISC_DONT). A segmented send (UDP_SEGMENT) fails with EMSGSIZE or EINVAL when a segment exceeds that, or the
 * link; the loop engines send it one by one then.
 * Errors: EXISTS (address in use), PERM, SYSTEM; why gets a line for the log.
 */
MUST_USE enum err udp_open(const struct udp_options *o, int *fd, char *why, size_t why_size);

/* From now on the loops are told the TTL or hop limit of what such a socket receives. Errors: SYSTEM. */
MUST_USE enum err udp_tell_ttl(int fd, uint8_t family);

/*
 * One more socket for an address and port that we hold already, to send with DF from it, or over IPv6 just whole. The
 * kernel has that choice for a socket and not for a datagram; here it is IP_PMTUDISC_PROBE: what it has learned about the
 * path doesn't count, nor is anything longer than the link fragmented, but refused with EMSGSIZE.
 *
 * held: the n sockets that are bound there, those of earlier calls included. All of the options but reuseport count.
 * What comes in still comes in at the held sockets: this one is connected to the discard port of the loopback address,
 * so it would only take what that sends. For the same reason each send has to name its source address. No other program
 * can bind the port, as before.
 * Errors: as udp_open.
 */
MUST_USE enum err udp_open_df(const struct udp_options *o, const int *held, unsigned n, int *fd, char *why,
                              size_t why_size);

/*
 * Steers a reuse-port group by the SPI's worker bits (esp/sad.h: SPI >> 28 is the worker's index + 1): a classic BPF
 * filter on the first word of the payload; IKE messages (zero marker) and everything else go to socket 0 of the group.
 */
MUST_USE enum err udp_steer(int fd, unsigned workers);

/* One datagram outside of any loop (the control thread's IKE messages): source address from path, mark as opened.
 * With path->marker the four zero bytes are put before it. Errors: SYSTEM (errno). */
MUST_USE enum err udp_send(int fd, const struct path *path, const uint8_t *data, size_t len);

/*
 * The same, but the datagram leaves whole or not at all, whatever the kernel has learned of the path: fd is of udp_open_df
 * (df), or else is told for that moment, so that nobody should send by it meanwhile whose datagrams may be fragmented.
 * Errors: SYSTEM (EMSGSIZE: too long).
 */
MUST_USE enum err udp_send_whole(int fd, bool df, const struct path *path, const uint8_t *data, size_t len);

/* The MTU of the route to this address and the source address the kernel would use. Errors: SYSTEM. */
MUST_USE enum err udp_route(const struct endpoint *to, bool mark, struct ip *source, unsigned *mtu);

#endif
