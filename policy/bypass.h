/*
 * What bypass policies ask of the host's routing. A packet for the wire must not be routed to the TUN in the first
 * place, and routes know destinations only: not protocols, not ports, not sources. So a destination can be kept out of
 * the TUN where every packet to it that another policy protects or discards is one that the bypass takes first.
 */
#ifndef ADIT_BYPASS_H
#define ADIT_BYPASS_H

#include "policy/config.h"

struct ip_ranges {
    struct ip_range *v;
    unsigned n, cap;
};

/* Who has which destinations, so that not each policy has to be held against each other one. */
struct bypass_map;
MUST_USE enum err bypass_map_new(struct bypass_map **out, const struct config *c); /* Errors: NOMEM */
void bypass_map_free(struct bypass_map *m);                                        /* NULL is fine */

/* The destinations that can be kept out, to be freed by ip_ranges_free (also after an error). Errors: NOMEM. */
MUST_USE enum err bypass_ranges(struct bypass_map *m, struct ip_ranges *out);
void ip_ranges_free(struct ip_ranges *r);

/*
 * The first policy because of which packets that the i-th one lets bypass are routed to the TUN all the same, to be sent
 * past it from there; `where` gets their destinations. NULL: there is none, or the i-th policy is no bypass.
 */
const struct policy *bypass_conflict(struct bypass_map *m, unsigned i, struct ip_range *where);

#endif
