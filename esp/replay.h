/*
 * The anti-replay window (RFC 4303 section 3.4.3 and appendix A): a ring of bits over 64-bit sequence numbers; without
 * ESN the upper half is 0 and numbers past 2^32 - 1 don't exist.
 */
#ifndef ADIT_REPLAY_H
#define ADIT_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/err.h"

#define REPLAY_MIN 32
#define REPLAY_MAX 65536

struct replay {
    uint64_t top;  /* highest sequence number authenticated; 0: none */
    uint32_t size; /* packets, a multiple of 64; 0: no protection */
    uint32_t mask; /* words of the ring - 1: the ring is a power of two and has a spare word */
    uint64_t *bits;
};

/* The size that a window has of which so much was asked. */
static inline uint32_t replay_rounded(uint32_t size)
{
    return (size + 63) & ~63u;
}
/*
 * size is rounded up to a multiple of 64. 0: no replay protection (only without ESN), every number passes, 0 too
 * (section 3.4.3: no check at all, since a sender that knows may let its counter cycle). Errors: RANGE, NOMEM.
 */
MUST_USE enum err replay_init(struct replay *r, uint32_t size);
void replay_fini(struct replay *r);
/* What r knows, into `to`, new and of another size: numbers that were left of r's window count as seen. */
void replay_carry(struct replay *to, const struct replay *r);

/*
 * The 64-bit number that a received low half means (appendix A2.2), given the window. 0, which every check refuses, for
 * one that would lie before the first number or after 2^64 - 1.
 */
uint64_t replay_infer(const struct replay *r, uint32_t low, bool esn);
/* Before the integrity check: false if too old, seen, or 0. Changes nothing. */
bool replay_check(const struct replay *r, uint64_t seq);
/* After it: the same check again (two equal numbers may be in one batch), then marks. False: discard. */
bool replay_commit(struct replay *r, uint64_t seq);

#endif
