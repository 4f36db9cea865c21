/*
 * The routes to the TUN, and the throw routes for what bypasses it, that a configuration wants of the host's routing
 * (DESIGN: decision 6): what is wanted, what is there, and the way from one to the other. Each route takes calls of the
 * kernel, and there may be tens of thousands, while peers wait for this thread: so that way is gone in slices. Control
 * thread only.
 */
#ifndef ADIT_ROUTES_H
#define ADIT_ROUTES_H

#include "core/base/clock.h"
#include "policy/config.h"
#include "tun/netlink.h"

struct routes;

/* Both must outlive it. Errors: NOMEM. */
MUST_USE enum err routes_new(struct routes **out, struct netlink *n, int ifindex);
void routes_free(struct routes *r); /* takes nothing back: netlink_undo does; NULL is fine */

/*
 * Adds the routes to the TUN that c wants and that are not there yet, all or none: they have to lead there before c is in
 * force. routes_extend_some goes on with it until then, and until it is over; routes_settle has to follow, whether c is
 * in force or not. Errors: as those of tun/netlink.h, NOMEM, FULL; why gets one line, and nothing is left to be done.
 */
MUST_USE enum err routes_extend_begin(struct routes *r, const struct config *c, char *why, size_t why_size);
MUST_USE enum err routes_extend_some(struct routes *r, ns_t until, bool *over, char *why, size_t why_size);

/*
 * c is in force, and has to stay until the next call: begins to make the routes what it wants. Throw routes that it
 * does not have are taken away at once, since what they let out of the tunnel is protected now. All else may wait:
 * routes that it no longer has lead to where its SPD discards.
 */
void routes_settle(struct routes *r, const struct config *c);
/* The same with that configuration once more: addresses of this host have changed, and with them routes' sources. */
void routes_again(struct routes *r);
/* They may be gone, by the kernel or another program: the next time all are added again. */
void routes_lost(struct routes *r);
/* Goes on with it until then. True: all is done. What fails is logged, and tried again the next time. */
bool routes_some(struct routes *r, ns_t until);
const char *routes_why(const struct routes *r); /* what failed first since that was begun; "": nothing */

unsigned routes_count(const struct routes *r); /* of those to the TUN */
void routes_at(const struct routes *r, unsigned i, struct prefix *out);

#endif
