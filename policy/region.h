/*
 * What a policy matches, as boxes in a space of 32-bit numbers, and packets as points in it. One box for each pair of a
 * local and a remote selector that some packet can match together, and a point lies in one of a policy's boxes exactly
 * when selectors_match_out or _in say that the policy matches (selector.h).
 *
 * Axes: protocol, local port, remote port, then the words of the local address, then those of the remote one. On the
 * port axes two numbers stand behind the ports: one for ports that can't be seen, which OPAQUE means and ANY includes,
 * and one for the receiver's side of protocols that are held against the sender's selector only.
 */
#ifndef ADIT_REGION_H
#define ADIT_REGION_H

#include "policy/selector.h"

#define REGION_AXES 11 /* of IPv6; IPv4 has 5 */

static inline unsigned region_axes(uint8_t family)
{
    return family == 4 ? 5 : REGION_AXES;
}

struct region {
    uint32_t first[REGION_AXES], last[REGION_AXES]; /* both included */
    uint32_t entry;                                 /* who it is of: the lower one wins */
    bool exact; /* false: more than the policy matches (an IPv6 range that is no prefix), to be looked at closer */
};

/* A growing list, to be freed by regions_free (also after an error). Zeroed: empty. */
struct regions {
    struct region *v;
    size_t n, cap;
};

/* Adds the boxes of one family. Errors: NOMEM. */
MUST_USE enum err regions_add(struct regions *out, const struct selectors *local, const struct selectors *remote,
                              uint32_t entry, uint8_t family);
void regions_free(struct regions *r);

/* The point of a packet that leaves (out) or arrives; fills the axes of its family. */
void region_point(const struct flow *f, bool out, uint32_t x[REGION_AXES]);

#endif
