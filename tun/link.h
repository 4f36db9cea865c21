/* The link that a datagram would leave by. */
#ifndef ADIT_LINK_H
#define ADIT_LINK_H

#include "core/base/err.h"
#include "core/base/ip.h"

/*
 * The MTU of the link that holds this address of ours: what the host can send at most, whatever ICMP has made the kernel
 * believe of the path. Errors: NOTFOUND (no link has it, or the loopback one, which no datagram leaves by), SYSTEM.
 */
MUST_USE enum err link_mtu(const struct ip *local, unsigned *mtu);

#endif
