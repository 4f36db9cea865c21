/*
 * What the engine decides, as the workers see it: Child SAs become pairs of ESP SAs in the SAD, configured policies
 * become SPD snapshots (DESIGN: SAs between the engine and the workers). Control thread only.
 */
#ifndef ADIT_DATAPLANE_H
#define ADIT_DATAPLANE_H

#include "core/base/timer.h"
#include "core/pathmtu.h"
#include "core/worker.h"
#include "ike/engine.h"

struct dataplane;

struct dataplane_params {
    struct worker_shared *shared;     /* epoch and sad are there; spd is set by dataplane_commit */
    unsigned workers;                 /* inbound SPIs are spread over them */
    struct timer_heap *timers;        /* for SAs that linger */
    const struct path_mtu_env *sizes; /* copied; NULL: path MTUs are no concern */
};

/* Errors: NOMEM. */
MUST_USE enum err dataplane_new(struct dataplane **out, const struct dataplane_params *p);
void dataplane_free(struct dataplane *d); /* workers have ended; frees the SPD snapshot, not the SAD */

/* -- policies -- */
/*
 * The snapshot that a configuration makes; every policy name keeps its number for the daemon's life.
 * Errors: NOMEM, FULL (more names than the SAD has numbers for). Nothing is changed yet.
 */
MUST_USE enum err dataplane_prepare(struct dataplane *d, const struct config *c, struct spd **out);
/*
 * The same, mostly in a thread of its own: begun, gone on with until then, or until it is over and the thread has begun,
 * looked after, and ended before anything else is prepared. The config must stay meanwhile. Who comes until it is put in
 * force is in the next one, soon after. On errors nothing of it is left; an SPD that is not put in force is the caller's
 * to free, after dataplane_prepare_drop.
 */
MUST_USE enum err dataplane_prepare_begin(struct dataplane *d, const struct config *c);
MUST_USE enum err dataplane_prepare_some(struct dataplane *d, ns_t until, bool *over);
void dataplane_prepare_drop(struct dataplane *d);
bool dataplane_prepare_done(const struct dataplane *d);
MUST_USE enum err dataplane_prepare_end(struct dataplane *d, struct spd **out);
/*
 * Puts it in force, waits until no worker looks at the old one, and frees that. The config must outlive it. SAs that were
 * made for another version of their policy carry nothing from then on, in neither direction.
 */
void dataplane_commit(struct dataplane *d, const struct config *c, struct spd *spd);
/*
 * Gives the inbound SAs the replay windows that the configuration in force says, without losing what they have seen: goes
 * on from *at, 0 at first, until then. True: that was all.
 */
bool dataplane_resize(struct dataplane *d, unsigned *at, ns_t until);
/* The current policy of that number, or NULL. */
const struct policy *dataplane_policy(const struct dataplane *d, uint32_t id);

/* What the policy of that name has carried and dropped since the start; NULL if there never was one. */
const struct policy_stats *dataplane_policy_stats(const struct dataplane *d, const char *name);

/* -- SAs: see struct ike_env -- */
MUST_USE enum err dataplane_reserve(struct dataplane *d, uint32_t *spi);
void dataplane_release(struct dataplane *d, uint32_t spi);
/*
 * A Child SA of a shared policy (policy_shared) gets an SPD entry of its own before that of its policy, made of what it
 * was narrowed to, as long as it or a successor of the same identity and selectors is there. So whose SA a packet takes
 * is decided where its policy is, and remembered in the flow cache; the newest of two that overlap stands first.
 *
 * engine: crypto engine of the configuration.
 */
MUST_USE enum err dataplane_install(struct dataplane *d, const struct ike_child *c, const char *engine, bool sending,
                                    ns_t now);
void dataplane_activate(struct dataplane *d, uint64_t child);
void dataplane_remove(struct dataplane *d, uint64_t child, bool linger, ns_t now);
void dataplane_move(struct dataplane *d, uint64_t child, const struct path *path);
/* What concerns its path MTU: see core/pathmtu.h. */
void dataplane_long(struct dataplane *d, uint64_t child, ns_t now); /* WORKER_LONG */
void dataplane_probed(struct dataplane *d, uint64_t child, unsigned bytes, bool through, ns_t now);
bool dataplane_told(struct dataplane *d, const struct icmp_error *e, ns_t now);
void dataplane_traffic(const struct dataplane *d, uint64_t child, ns_t *in, ns_t *out);

struct child_counters {
    uint64_t in_packets, in_bytes, out_packets, out_bytes;
    ns_t last_in, last_out; /* 0: never */
    bool sending;           /* outbound traffic of its policy uses it */
    struct path path;
    const char *crypto;          /* engine that runs it */
    unsigned path_mtu, link_mtu; /* bytes of datagrams; 0: not known */
    bool path_mtu_probed;
    unsigned inner_max;                            /* the largest inner packet that fits the path; 0: not known */
    const struct drop_stats *in_drops, *out_drops; /* until anything else is called here; NULL: it is gone */
};
/* Errors: NOTFOUND. */
MUST_USE enum err dataplane_counters(const struct dataplane *d, uint64_t child, struct child_counters *out);

#endif
