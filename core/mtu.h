/* The MTU of the TUN device (DESIGN: decision 7): path MTU less the worst overhead among the configured suites. */
#ifndef ADIT_MTU_H
#define ADIT_MTU_H

#include "core/base/clock.h"
#include "core/base/ip.h"
#include "policy/config.h"

#define MTU_UNKNOWN 1400 /* when no peer's address is known */
#define MTU_MIN4 576
#define MTU_MIN6 1280 /* RFC 8200 section 5: links that carry IPv6 */

/* The largest inner packet that every suite of these proposals fits into `room` bytes for ESP; 0: no suite. */
unsigned mtu_inner(const struct proposals *esp, unsigned room);
/* What the MTU of a route leaves for ESP to that address, in UDP or (raw) right behind IP; 0 if it isn't known. */
unsigned mtu_room(const struct endpoint *to, unsigned mtu, bool raw);

/*
 * What there is room for to each peer, and the MTU that follows. There may be thousands of peers and policies, and
 * others wait: so it is found in slices. Zeroed: of no configuration.
 */
struct mtu_survey {
    uint16_t *rooms; /* by the peers' numbers; 0: not known */
    unsigned peers;
    bool under_way;
    unsigned at;    /* next policy */
    unsigned least; /* of those before; 0: none is known */
    bool ipv6;      /* anything on the inside of those is IPv6 */
};
/* Another configuration: nothing is known of its peers. Without memory that stays so, and the MTU as it is. */
void mtu_reset(struct mtu_survey *s, const struct config *c);
void mtu_free(struct mtu_survey *s);
void mtu_note(struct mtu_survey *s, const struct peer *p, unsigned room);
/* Begins to find the MTU. */
void mtu_begin(struct mtu_survey *s);
/* Goes on with that until then, if it was begun. True: it is not under way any more; *mtu is set if it was until now. */
bool mtu_some(struct mtu_survey *s, const struct config *c, ns_t until, unsigned *mtu);

#endif
