/*
 * What the daemon changes on the host, by rtnetlink: link, addresses, routes, rules. Every change is remembered and
 * undone by netlink_undo, in reverse order. (DESIGN: decisions 5 and 6.)
 *
 * Routes of protected prefixes stand in a table of our own (ROUTE_TABLE). Rules, for each IP version:
 *   pref 5188: what has our mark goes on behind all of these, since it may come from an address of the TUN too
 *   pref 5189: what comes from an address of the TUN looks there, before all other networks of this host
 *   pref 5190: everything without our mark looks there, routes with a prefix length over 0 only
 *   pref 5191: the main table, prefix lengths over 0 only          (these two only if a default route is protected)
 *   pref 5192: everything without our mark looks there
 * Beneath each route to the TUN lies an unreachable route of worse metric with our own protocol number; it survives a
 * crash (fail closed), is adopted at the next start, and removed by netlink_undo. A throw route within a protected
 * prefix ends the lookup in the table: what goes there is routed by the host's other tables. It survives a crash too.
 */
#ifndef ADIT_NETLINK_H
#define ADIT_NETLINK_H

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "core/base/ip.h"

#define ROUTE_TABLE 5190u
#define ROUTE_PROTOCOL 90 /* rtm_protocol that marks what is ours */

struct netlink;

struct netlink_prefix {
    struct ip ip;
    uint8_t bits;
};

bool netlink_prefix_equal(const struct netlink_prefix *a, const struct netlink_prefix *b);
uint64_t netlink_prefix_key(const struct netlink_prefix *p); /* for core/base/hash.h */

/* owner: the name of the TUN, by which leftovers of a crash are known to be its own. */
MUST_USE enum err netlink_open(struct netlink **out, const char *owner);
void netlink_close(struct netlink *n); /* does not undo */

/* Errors of all: PERM, EXISTS, NOTFOUND, SYSTEM; netlink_why has the kernel's words for the last failure. */
MUST_USE enum err netlink_link_up(struct netlink *n, int ifindex, unsigned mtu, unsigned txqueuelen);
MUST_USE enum err netlink_set_mtu(struct netlink *n, int ifindex, unsigned mtu);
MUST_USE enum err netlink_address_add(struct netlink *n, int ifindex, const struct netlink_prefix *p);
MUST_USE enum err netlink_address_del(struct netlink *n, int ifindex, const struct netlink_prefix *p);
/* Adds the route to the TUN and the unreachable one beneath. src: preferred source, family 0 for none. */
MUST_USE enum err netlink_route_add(struct netlink *n, int ifindex, const struct netlink_prefix *p,
                                    const struct ip *src);
/* Takes the unreachable one away again: what has a route to the TUN is routed as ever without it (fail-open). */
MUST_USE enum err netlink_route_open(struct netlink *n, const struct netlink_prefix *p);
MUST_USE enum err netlink_route_del(struct netlink *n, int ifindex, const struct netlink_prefix *p);
/* Keeps a prefix within one that has a route to the TUN out of it; a route of the same prefix would come first. */
MUST_USE enum err netlink_throw_add(struct netlink *n, const struct netlink_prefix *p);
MUST_USE enum err netlink_throw_del(struct netlink *n, const struct netlink_prefix *p);
/*
 * The rules for one IP version (4 or 6); with_default: the three-rule form. Idempotent; adopts rules a crash left.
 * For IPv4, strict reverse-path filters become loose ones meanwhile, see rp_filter.h, unless netlink_keep_strict was
 * called before: no peer's address is behind a route to the TUN.
 */
MUST_USE enum err netlink_rules_add(struct netlink *n, uint8_t family, bool with_default);
/* Puts those rules back, and those of our addresses, that another program has removed. Returns how many. */
unsigned netlink_rules_keep(struct netlink *n, const struct netlink_prefix *addresses, unsigned count);
/* Whether what such a message is about, a route or a rule, was added here, and is to stay. */
bool netlink_has(const struct netlink *n, struct span message);
void netlink_keep_strict(struct netlink *n, bool keep);
bool netlink_loosens(const struct netlink *n); /* such rules are there, and filters are not to be strict */
/* Loosens what has become strict since, or has come up so. False: nothing, as a rule. */
bool netlink_loosen(struct netlink *n);
const char *netlink_why(const struct netlink *n);

/*
 * Removes leftovers of a crash of this owner: unreachable and throw routes that this handle did not add, and rules if no
 * other daemon has routes, or has left some. To be called when what is wanted has been added, so that it is adopted
 * without a gap. netlink_undo, too, leaves the rules to others if there are any.
 */
void netlink_sweep(struct netlink *n);
bool netlink_left(struct netlink *n);              /* there are such */
void netlink_undo(struct netlink *n, bool closed); /* closed: but for what a crash would leave */

/*
 * All addresses that packets of this host may have as their source, in the kernel's order; to be freed. *count is 0 and
 * *out NULL if there are none, or after an error. Errors: NOMEM, SYSTEM.
 */
MUST_USE enum err netlink_sources(struct netlink *n, struct ip **out, unsigned *count);

/*
 * The addresses that this host can be reached at: of global scope, on links that are up, without those of the TUN,
 * tentative and deprecated ones. Errors: FULL (more than cap), NOMEM, SYSTEM.
 */
MUST_USE enum err netlink_addresses(struct netlink *n, int tun, struct ip *out, unsigned cap, unsigned *count);

#endif
