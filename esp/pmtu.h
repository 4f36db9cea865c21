/*
 * The path MTU to a peer, found by probing (RFC 8899): a state machine of one path, in bytes of whole IP datagrams.
 * It knows no network: it says which size is to be probed when, and is told what became of that.
 *
 * It begins with the MTU of the route as if that had been proved, where section 5.2 begins with BASE_PLPMTU: until the
 * first probe is over nothing is known that speaks for less, the datagrams of a tunnel may be fragmented, and most paths
 * are what their first link is. Nothing is probed before something long has been sent: three
 * quarters of `base` and more, so that a path below that is noticed too.
 */
#ifndef ADIT_PMTU_H
#define ADIT_PMTU_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/clock.h"

#define PMTU_MIN4 576  /* RFC 1122 section 3.3.2: what every host takes in; fragmented or not */
#define PMTU_MIN6 1280 /* RFC 8200 section 5 */
/* Taken for granted until it fails. IPv4: section 5.1.2 recommends it, IPv6 needs 1280 less a header of encapsulation. */
#define PMTU_BASE4 1200
#define PMTU_MAX 65535
#define PMTU_STEP 8                   /* the search ends when it is known as exactly as that */
#define PMTU_PROBES 3                 /* lost in a row until a size counts as too big: MAX_PROBES */
#define PMTU_CONFIRM (30 * NS_PER_S)  /* CONFIRMATION_TIMER, while long datagrams leave */
#define PMTU_RAISE (600 * NS_PER_S)   /* PMTU_RAISE_TIMER, and the age at which ICMP is no longer believed */
#define PMTU_PATIENCE (90 * NS_PER_S) /* the outcome of a probe is told before, or never */
#define PMTU_BUSY (200 * NS_PER_MS)   /* after a probe that could not be sent: others go first */

enum pmtu_phase {
    PMTU_UNKNOWN,  /* nothing long has been sent yet, or not for a long time */
    PMTU_SEARCH,   /* between what passes and what does not */
    PMTU_COMPLETE, /* found */
};

struct pmtu {
    uint16_t min, base, max;
    uint16_t size;    /* in force: longer datagrams are not to be sent */
    uint16_t low;     /* passes, or is taken for granted */
    uint16_t high;    /* the most that may pass */
    uint16_t spent;   /* asking for as much as that proves no more than `low`: probes come in blocks */
    uint16_t claimed; /* by ICMP, not looked into yet; 0: nothing */
    uint16_t probing; /* under way; 0: none */
    uint16_t lost;    /* this size has been, … */
    uint16_t tries;   /* … so often in a row */
    bool top;         /* the search begins with the largest */
    bool doubted;     /* ICMP, or silence, says that `size` does not pass */
    bool in_use;      /* something long has left since that was looked at last */
    bool claims_only; /* no probe can be sent to this peer */
    enum pmtu_phase phase;
    ns_t deaf_until; /* doubts have been unfounded: no more of them before that */
    ns_t sent_at;
    ns_t next;     /* when the next probe is due at the earliest */
    ns_t raise_at; /* when larger ones are tried again; NS_NEVER: all is well */
};

/* max: the MTU of the route's link. */
void pmtu_init(struct pmtu *p, bool ipv6, unsigned max);
/* The link is another one. */
void pmtu_limit(struct pmtu *p, unsigned max, ns_t now);

/* Something long has left. */
void pmtu_used(struct pmtu *p, ns_t now);
/* It leaves, and nothing comes back: perhaps long datagrams are lost. */
void pmtu_doubt(struct pmtu *p, ns_t now);
/*
 * ICMP says that no more than `mtu` passes (0: not how much). A hint: the size in force is probed, and believed before
 * ICMP. Without probes it is taken, within bounds, for PMTU_RAISE. Values below the minimum count as that.
 */
void pmtu_claim(struct pmtu *p, unsigned mtu, ns_t now);
/* Probes can't be sent to this peer, or can (again). */
void pmtu_only_claims(struct pmtu *p, bool only);

/* The size to be probed now; 0: none. pmtu_sent: that was done; pmtu_busy: it could not be done now. */
unsigned pmtu_due(struct pmtu *p, ns_t now);
void pmtu_sent(struct pmtu *p, unsigned size, ns_t now);
void pmtu_busy(struct pmtu *p, ns_t now);
/* What became of it. size: what was really sent, which may be a little less than what was due. */
void pmtu_result(struct pmtu *p, unsigned size, bool through, ns_t now);
/* When pmtu_due is worth asking again; NS_NEVER: not before something happens. */
ns_t pmtu_deadline(const struct pmtu *p);

#endif
