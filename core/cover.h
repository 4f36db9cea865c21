/*
 * Cover traffic: dummy packets (RFC 4303 section 2.6) of the policies that have `dummies`, while they have an SA. Each
 * second is cut into as many parts as there shall be dummies, with one at a random place in each: the rate is kept, and
 * the times can't be told beforehand. The first worker sends all of them.
 */
#ifndef ADIT_COVER_H
#define ADIT_COVER_H

#include "core/base/clock.h"
#include "crypto/siphash.h"

struct spd;

/* What a worker keeps: no table of SAs, since the place within each part follows from a key. */
struct cover {
    uint8_t key[SIPHASH_KEY];
    ns_t last;             /* what was due by then has been sent */
    ns_t next;             /* NS_NEVER: nothing to send until something changes */
    const struct spd *spd; /* that `next` was found with */
};

void cover_init(struct cover *c);

/* When dummy number n of a policy is due, at that many a second. */
ns_t cover_due(const struct cover *c, uint32_t policy_id, unsigned rate, uint64_t n);

#endif
