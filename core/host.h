/*
 * What a running daemon changes on its host and holds of it: the TUN device with addresses and routes, and the UDP
 * and raw sockets. All is undone by host_down (DESIGN: decisions 5 to 7). Control thread only.
 */
#ifndef ADIT_HOST_H
#define ADIT_HOST_H

#include "core/worker.h"
#include "ike/engine.h"
#include "policy/config.h"

struct host_state;

/*
 * Sets all of it up for that many workers, or nothing. Errors: as the rooms below give them; why gets one line that
 * says what failed and why.
 */
MUST_USE enum err host_up(struct host_state **out, const struct config *c, unsigned workers, char *why,
                          size_t why_size);
/* How it ends: what is protected may leave in the clear then, if the host has a route for it, or not. */
enum host_end {
    HOST_OPEN,    /* as somebody wanted */
    HOST_CLOSED,  /* by a failure: as after a crash, which nobody wants to open anything */
    HOST_AS_FOUND /* before it ran: closed if a crash had left it so */
};
void host_down(struct host_state *h, enum host_end end); /* workers have been freed; NULL is fine */

/* The TUN queue and the sockets of worker i. */
void host_worker(const struct host_state *h, unsigned i, struct worker_params *p);

/* Workers shall see the TTLs of what comes in UDP, which costs a little for each datagram. */
void host_tell_ttl(struct host_state *h);

/* The UDP socket that fits path->local, or -1. */
int host_socket(const struct host_state *h, const struct path *path);
/*
 * The one beside it that sends with DF, or whole, or -1: on port 500 nobody but the control thread sends; and a source has
 * to be named.
 */
int host_socket_df(const struct host_state *h, const struct path *path);
/* Where we would send to this endpoint from, and the route's MTU (0: no route). False if there is no way there. */
bool host_local(const struct host_state *h, const struct config *c, const struct endpoint *to, struct endpoint *local,
                unsigned *mtu);

/* The address that a packet to this one would leave from. False if there is no route, or no socket to send it with. */
bool host_source(const struct host_state *h, const struct config *c, const struct ip *remote, struct ip *local);
/* The addresses that this host can be reached at, of `listen` where that is set. Errors: FULL, NOMEM, SYSTEM. */
MUST_USE enum err host_addresses(struct host_state *h, const struct config *c, struct ip *out, unsigned cap,
                                 unsigned *count);

/*
 * A new configuration. host_filter puts its firewall in force, which takes the kernel its time where policies are many:
 * it may be called in another thread, while none of the others is. host_extend_begin adds its addresses, and
 * host_extend_some goes on with its routes until then, or until it is over (why, as above). host_settle follows, with the
 * configuration in force then, which is the one before if anything has failed: it takes away what that does not have,
 * and lets out of the tunnel what bypasses it; it only begins with that. What can't change at run time: config_fixed of
 * core/reload.c.
 */
MUST_USE enum err host_filter(struct host_state *h, const struct config *c, char *why, size_t why_size);
MUST_USE enum err host_extend_begin(struct host_state *h, const struct config *c, char *why, size_t why_size);
MUST_USE enum err host_extend_some(struct host_state *h, ns_t until, bool *over, char *why, size_t why_size);
void host_settle(struct host_state *h, const struct config *c);
/* Puts the firewall back where another program has removed it (true: it had); not while host_filter is called. */
bool host_filter_keep(struct host_state *h);
int host_filter_log(const struct host_state *h);              /* as firewall_log_fd */
uint64_t host_filter_dropped(struct host_state *h, bool out); /* packets since it was asked last */
/* Puts the routing rules back likewise: network managers tidy up those that they don't know. */
void host_rules_keep(struct host_state *h);
/*
 * What a notice of tun/watch.h means (its bits), and, where something is lost, putting link, addresses and routes back;
 * the latter only begin with that, as in host_settle.
 */
unsigned host_news(const struct host_state *h, int fd);
void host_restore(struct host_state *h, unsigned news);
/* Begins it again: addresses of this host have changed, and with them the source that a policy's packets shall have. */
void host_reroute(struct host_state *h);
/* Goes on with it until then. True: all is done. */
bool host_settle_some(struct host_state *h, ns_t until);
void host_set_mtu(struct host_state *h, unsigned mtu); /* of the TUN device */

/* -- what status shows -- */
unsigned host_mtu(const struct host_state *h);
const char *host_tun_name(const struct host_state *h);
const char *host_firewall(const struct host_state *h); /* what drops cleartext that should have been protected */
bool host_uso(const struct host_state *h);
unsigned host_socket_count(const struct host_state *h); /* UDP, of worker 0 */
/* Whether ESP can go without UDP: protocol 50, which takes CAP_NET_RAW. why: why not, else "". */
bool host_raw(const struct host_state *h, const char **why);
const struct endpoint *host_socket_at(const struct host_state *h, unsigned i);
unsigned host_route_count(const struct host_state *h);
void host_route_at(const struct host_state *h, unsigned i, struct prefix *out);

#endif
