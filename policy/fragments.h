/*
 * Stateful fragment checking (RFC 4301 section 7.3): fragments but the first show no ports, so where ports decide, they
 * go where the first one of their packet went. What the first ones showed is remembered, bounded in number and time.
 */
#ifndef ADIT_FRAGMENTS_H
#define ADIT_FRAGMENTS_H

#include "core/base/clock.h"
#include "policy/selector.h"

struct fragment_table;

/* Room for 4 * sets packets, each set being found by its fragments' identification. sets > 0. Errors: NOMEM. */
MUST_USE enum err fragment_table_new(struct fragment_table **out, unsigned sets);
void fragment_table_free(struct fragment_table *t);

/* A first fragment (or one whose ports are known by now) has been let through. */
void fragment_table_note(struct fragment_table *t, const struct flow *f, ns_t now);
/*
 * Fills in the ports of a later fragment from what its first one showed. False: nothing is known of that one, or it
 * would be put where the first one's transport header is (RFC 1858 section 3, RFC 3128).
 */
bool fragment_table_fill(const struct fragment_table *t, struct flow *f, ns_t now);

/* A fragment whose ports can't be seen, of a protocol that has some. */
static inline bool fragment_later(const struct flow *f)
{
    return f->fragment && f->fragment_offset != 0;
}

#endif
