/*
 * The SPD for what never sees the TUN (RFC 4301 sections 5.1 and 5.2): packets that arrive in the clear though a policy
 * protects or discards them are dropped, and so are those that would leave like that, should routing ever be subverted.
 * Rules of nf_tables do it, in a table of ours that is replaced whole, and that survives a crash as the unreachable
 * routes do (DESIGN: decision 6).
 *
 * What passes: what a policy lets bypass, or one with fail-open protects; what no policy matches; loopback; IKE, ESP and
 * AH to and from this host, ICMP errors about them, and neighbour discovery, since a policy may cover the peer's own
 * address. A selector of all remote addresses stands for what is routed into the tunnel: beside it, the host's own
 * networks stay reachable, as its routes say.
 *
 * Where many policies have both many local and many remote addresses, any pair of them counts as protected: what no
 * policy matches between them is answered into the tunnel, and dropped there, anyhow.
 */
#ifndef ADIT_FIREWALL_H
#define ADIT_FIREWALL_H

#include "policy/config.h"

struct firewall;

/* tun: the name of the device. Errors: NOMEM. */
MUST_USE enum err firewall_new(struct firewall **out, const char *tun);
void firewall_free(struct firewall *f); /* leaves the rules; NULL is fine */

/*
 * Puts what c wants in force, whole or not at all; that it wants no firewall too. In any thread, one at a time. A kernel without nf_tables is no error
 * the first time: the log says what stands in. Errors: as nft_commit; FULL (more rules than anybody would walk); why
 * gets one line.
 */
MUST_USE enum err firewall_apply(struct firewall *f, const struct config *c, char *why, size_t why_size);
/* Was that one the last that was put in force? Only of one that is still there. */
bool firewall_is_of(const struct firewall *f, const struct config *c);
void firewall_remove(struct firewall *f);
bool firewall_left(const struct firewall *f); /* before anything is in force: a crash has left its table */
/*
 * Says in the log what daemons left that crashed, with other TUN devices: it stands for what they protect until they are
 * there again, and may drop what comes out of this one.
 */
void firewall_note_others(void);
/* Puts it back if another program has removed it (true: it had): who loads rules of his own often begins with none. */
bool firewall_keep(struct firewall *f);

/* How many packets it has dropped since it was asked last, of those that arrive or those that leave. In any thread. */
uint64_t firewall_dropped(struct firewall *f, bool out);
/* Where copies of some of those that arrive are read (tun/nflog.h), or -1: the kernel gives none. */
int firewall_log_fd(const struct firewall *f);
/* It was asked for and can't be had: the host's reverse-path filter is all there is. */
bool firewall_missing(const struct firewall *f);
const char *firewall_name(const struct firewall *f); /* for status: "nftables", "rp_filter", "no" */

/*
 * Would a strict reverse-path filter do no harm? It drops what arrives from where a route leads into the tunnel: the ESP
 * of a peer whose address a policy covers, or may cover, and answers to what was sent past the tunnel.
 */
bool firewall_strict_fits(const struct config *c);

#endif
