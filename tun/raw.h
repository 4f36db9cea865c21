/*
 * Raw IP sockets of the daemon, for ESP and AH without UDP (protocols 50 and 51): whole IP packets both ways, see
 * LOOP_RAW. As long as one is open, the host does not answer that protocol with ICMP "protocol unreachable".
 */
#ifndef ADIT_RAW_H
#define ADIT_RAW_H

#include <stdbool.h>

#include "core/base/err.h"
#include "core/base/ip.h"

#define RAW_ESP 50
#define RAW_AH 51

struct raw_options {
    struct ip local;  /* its family says IPv4 or IPv6; the any address is fine */
    uint8_t protocol; /* RAW_ESP, RAW_AH */
    bool mark;        /* SO_MARK with TUN_FWMARK, as the UDP sockets */
};

/*
 * Non-blocking, marked, with large buffers. Sent with the header that stands in the packet; received with what of
 * addresses, traffic class, hop limit, flow label and extension headers IPv6 keeps back. What ICMP
 * has made the kernel believe of the path doesn't count (IP_PMTUDISC_OMIT), or it would refuse what has DF, or is IPv6,
 * and is longer; what is longer than the device's MTU is refused.
 * Errors: PERM (CAP_NET_RAW is needed), EXISTS (no such address), SYSTEM; why gets a line for the log.
 */
MUST_USE enum err raw_open(const struct raw_options *o, int *fd, char *why, size_t why_size);

/*
 * Every raw socket of a protocol gets a copy of each packet. Where each worker has a socket of its own this leaves only
 * what is for that worker, by the SPI's worker bits (esp/sad.h: SPI >> 28 is the worker's index + 1); worker 0 also gets
 * what is nobody's. So an SA stays with its worker, as it does behind udp_steer, and what a worker sends needs no other.
 * Errors: SYSTEM.
 */
MUST_USE enum err raw_steer(int fd, const struct raw_options *o, unsigned worker, unsigned workers);

#endif
