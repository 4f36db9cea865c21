/*
 * The pieces of what `adit status` shows, as JSON (core/status.c), and the answer made of them (core/listing.c). Each is
 * a new reference, and made at a cost that does not depend on how many peers, policies or SAs there are.
 */
#ifndef ADIT_STATUS_H
#define ADIT_STATUS_H

#include "core/daemon.h"

struct status_view {
    const struct daemon *d;
    ns_t now;
};

/* Numbers and texts that are there once, at the front and at the end of the whole object. */
void status_head(const struct status_view *s, json_t *out);
void status_tail(const struct status_view *s, json_t *out);

/* What stands in arrays; "routes", "ike_sas", "state" and "children" are left to core/listing.c. */
json_t *status_host(const struct daemon *d);
json_t *status_route(const struct daemon *d, unsigned i);
json_t *status_peer(const struct status_view *s, const struct peer *p);
json_t *status_ike(const struct status_view *s, const struct ike_sa_info *info);
json_t *status_child(const struct status_view *s, const struct ike_child_info *info);
json_t *status_policy(const struct status_view *s, const struct policy *p);

#endif
