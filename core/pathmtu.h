/*
 * The path MTU to each peer as the data plane knows it: one state machine (esp/pmtu.h) for all Child SAs between two
 * addresses, so that a rekey loses nothing; what follows from it for each SA; and when somebody has to be asked.
 * Control thread only.
 */
#ifndef ADIT_PATHMTU_H
#define ADIT_PATHMTU_H

#include "core/base/timer.h"
#include "esp/pmtu.h"
#include "esp/sa.h"
#include "tun/errors.h"

struct path_mtus; /* all of them */
struct path_mtu;  /* of one path */

struct path_mtu_env {
    void *ctx;
    struct timer_heap *timers;
    /* The MTU of the link that leads there; 0: there is none, or it can't be known. */
    unsigned (*link)(void *ctx, const struct path *path);
    /* ike_probe, for the path of that child. From a timer only, so the engine may be called. */
    enum err (*probe)(void *ctx, uint64_t child, unsigned bytes);
    void (*doubt)(void *ctx, uint64_t child); /* ike_child_doubtful; likewise */
};

/* A Child SA on a path; embedded where that lives. What is set by whom joins stands first. */
struct path_user {
    uint64_t child;
    uint32_t spi_out;
    struct sa *in, *out; /* out: NULL once it is gone */
    enum pmtu_mode mode;
    uint8_t icmp; /* enum icmp_believed */
    struct path_mtu *of;
    struct path_user *next, **at;
};

MUST_USE enum err path_mtus_new(struct path_mtus **out, const struct path_mtu_env *env); /* Errors: NOMEM */
void path_mtus_free(struct path_mtus *m);                                                /* its users have left */

/* Without memory the child goes without: nothing is known of its path. */
void path_mtu_join(struct path_mtus *m, struct path_user *u, const struct path *path);
void path_mtu_leave(struct path_mtus *m, struct path_user *u); /* not there: nothing happens */
void path_mtu_move(struct path_mtus *m, struct path_user *u, const struct path *path);

/* A long datagram has left on its outbound SA (sa.news_over). */
void path_mtu_used(struct path_user *u, ns_t now);
void path_mtu_probed(struct path_user *u, unsigned bytes, bool through, ns_t now);
/* What a router says, or somebody in its name. False: about no SA of ours, or nothing that is listened to. */
bool path_mtu_told(struct path_mtus *m, const struct icmp_error *e, ns_t now);

/* The size in force and the MTU of the link, in bytes of datagrams; 0: not known. */
unsigned path_mtu_size(const struct path_user *u, unsigned *link);
bool path_mtu_complete(const struct path_user *u); /* it was found by probing */

#endif
