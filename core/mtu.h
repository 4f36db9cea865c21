/* The MTU of the TUN device (DESIGN: decision 7): path MTU less the worst overhead among the configured suites. */
#ifndef ADIT_MTU_H
#define ADIT_MTU_H

#include "ike/engine.h"
#include "policy/config.h"

#define MTU_UNKNOWN 1400 /* when no peer's address is known */
#define MTU_MIN4 576
#define MTU_MIN6 1280 /* RFC 8200 section 5: links that carry IPv6 */

/* The largest inner packet that every suite of these proposals fits into `room` bytes of UDP payload; 0: no suite. */
unsigned mtu_inner(const struct proposals *esp, unsigned room);
/* Whether anything configured is IPv6 on the inside. */
bool mtu_inner_ipv6(const struct config *c);
/* For a whole configuration; asks the kernel for the route to each peer. e: knows what names stand for; may be NULL. */
unsigned mtu_for(const struct config *c, const struct ike_engine *e);

#endif
