/* Traffic selector narrowing (RFC 7296 section 2.9). */
#ifndef ADIT_NARROW_H
#define ADIT_NARROW_H

#include "policy/pad.h"
#include "policy/selector.h"

/*
 * Responder: what of the peer's offer our policy allows. tsi is the peer's side (our remote), tsr ours (our local). A
 * first selector with a single address and port in an offer of several is the packet that triggered it and is kept if
 * allowed. Results are disjoint where the offers were. Errors: MISMATCH (empty on one side: TS_UNACCEPTABLE).
 */
MUST_USE enum err narrow_offer(const struct selectors *tsi, const struct selectors *tsr, const struct policy *policy,
                               struct selectors *local, struct selectors *remote);
bool narrow_covers(const struct selector *s, const struct selectors *list); /* one of the list holds all of s */
/* Whether the policy allows the whole of the initiator's first choice, the first selector of each side. */
bool narrow_first(const struct selectors *tsi, const struct selectors *tsr, const struct policy *policy);
/* Initiator: the answer must lie within what we offered. Errors: MISMATCH (wider, or empty). */
MUST_USE enum err narrow_check(const struct selectors *answer, const struct selectors *offered);

#endif
