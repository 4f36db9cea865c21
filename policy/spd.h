/*
 * The security policy database as packets see it (RFC 4301 section 4.4.1): an immutable, ordered table made from the
 * configured policies and handed to the workers whole; first match wins, what matches nothing is discarded. Lookups
 * by a worker go through a flow cache of its own first. Making a table allocates; looking up does not.
 */
#ifndef ADIT_SPD_H
#define ADIT_SPD_H

#include "core/base/stat.h"
#include "policy/pad.h"

#define SPD_NONE UINT32_MAX /* no policy matches: discard */

struct spd;

/* One entry; id is the policy's stable number for the life of the daemon (names its outbound SA in the SAD). */
struct spd_entry {
    const struct policy *policy; /* must outlive the table */
    const struct selectors *local,
        *remote; /* likewise; NULL: the policy's own, else the part of it that this stands for */
    uint32_t id;
    uint32_t base;              /* number of the policy itself, which is never given to another one */
    struct policy_stats *stats; /* the policy's, which outlive the table; NULL: nothing is counted */
    bool overlapped; /* out, by spd_new: an earlier entry may match some of the same traffic (may err towards yes) */
};

/*
 * Errors: NOMEM. The entries are copied, in order. Takes about a microsecond for each pair of a local and a remote
 * selector, and 100 bytes (IPv6: 150). Ids are meant to be dense: they index an array.
 */
MUST_USE enum err spd_new(struct spd **out, const struct spd_entry *entries, unsigned n);
void spd_free(struct spd *s);
unsigned spd_count(const struct spd *s);
size_t spd_size(const struct spd *s); /* bytes */
const struct spd_entry *spd_at(const struct spd *s, unsigned i);

/* The entry of that id, or NULL. */
const struct spd_entry *spd_find(const struct spd *s, uint32_t id);

/* Entry i of those whose policies have dummies, in their order; NULL behind the last one. */
const struct spd_entry *spd_dummies(const struct spd *s, unsigned i);

/* The first entry whose selectors match an outbound (inbound) flow, or NULL: a tree's depth, see classifier.h. */
const struct spd_entry *spd_lookup_out(const struct spd *s, const struct flow *f);
const struct spd_entry *spd_lookup_in(const struct spd *s, const struct flow *f);

/* A worker's cache of outbound decisions: fixed size, one probe, emptied by itself when used with another table. */
struct flow_cache;
MUST_USE enum err flow_cache_new(struct flow_cache **out);
void flow_cache_free(struct flow_cache *c);
const struct spd_entry *flow_cache_lookup(struct flow_cache *c, const struct spd *s, const struct flow *f);

#endif
