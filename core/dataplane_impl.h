/* What the files of the data plane's control half share: snapshot.c (policies), dataplane.c (SAs). */
#ifndef ADIT_DATAPLANE_IMPL_H
#define ADIT_DATAPLANE_IMPL_H

#include "core/base/hash.h"
#include "core/dataplane.h"
#include "core/spd_maker.h"
#include "crypto/siphash.h"

#define CHILD_BUCKETS 4096
#define LIST_AT_ONCE 16 /* of what there may be thousands, between two looks at the clock */
#define STATS_PAGE 1024 /* policies whose counters are allocated together */

struct policy_slot {
    char name[sizeof((struct policy *)0)->name]; /* empty: the number of an instance */
    uint32_t id;
    struct instance *instances; /* of the policy, newest first: it stands before the others in the SPD */
    struct instance *instance;  /* whose number it is */
    struct policy_stats *stats; /* of a name; an instance counts for its policy */
    struct policy_slot *next;   /* of the free ones */
    struct hash_link by_name;   /* if it has one */
};

/*
 * One client's part of a policy that several share: an SPD entry and an outbound SA of its own, for what its Child SA
 * was narrowed to. Lives as long as a Child SA of it, and then until no SPD names it.
 */
struct instance {
    struct instance *next, **at; /* of its policy's */
    struct hash_link by_owner;
    uint32_t id, base; /* its own number, and that of the policy it is a part of … */
    uint32_t version;  /* … and which version of that */
    struct identity owner;
    struct selectors local, remote;
    unsigned children;
    uint32_t listed; /* in that one of the SPDs that were prepared */
    bool idle;       /* stands in the list of those that may go */
    struct instance *idle_next;
};

/* The entries of an SPD while they are put together. */
struct entries {
    const struct config *config;
    struct spd_entry *v;
    unsigned n, room;
    unsigned at;           /* the next policy … */
    struct instance *part; /* … and the next of those who have a part of it, once it has begun */
    bool begun;
};

struct child {
    struct child *next;        /* of its bucket */
    struct instance *instance; /* NULL unless the policy is shared */
    struct dataplane *owner;
    struct timer linger;
    uint64_t id;
    uint32_t policy_id, spi_in, spi_out;
    bool removed;     /* only lingers */
    struct sa *in;    /* published: the SAD owns it */
    struct sa *out;   /* ours; NULL once removed */
    bool sending;     /* out is the one that its policy uses */
    struct path path; /* as last moved */
    struct path_user sizes;
    uint64_t packets, bytes; /* of the outbound SA, once it is gone */
    ns_t last_out;           /* likewise */
    const char *crypto;
};

struct dataplane {
    struct dataplane_params p;
    struct path_mtus *sizes;     /* NULL: no concern */
    const struct config *config; /* in force */
    struct timer renewal;        /* of the SPD: instances have come or gone */
    ns_t renewed;                /* when that was done last */
    struct spd_maker *maker;     /* at it; NULL: none is */
    bool reloading;              /* an SPD of another configuration is made, or waits for that: so do renewals */
    struct entries listing;      /* for that */
    uint32_t prepared;           /* SPDs, numbered */
    struct instance *idle;       /* instances that had no Child SA lately */
    bool overtaken;              /* more instances have come or gone since it began */
    struct hash owners;          /* instances by policy and identity */
    uint8_t key[SIPHASH_KEY];    /* of that */
    unsigned instance_count;
    struct policy_slot **slots; /* by id */
    struct policy_slot *free_slots;
    struct policy_stats *stats[SAD_POLICIES / STATS_PAGE];
    uint32_t stats_count;
    uint32_t slot_count, slot_cap;
    struct hash by_name;
    struct child *children[CHILD_BUCKETS];
    unsigned next_worker;
};

/* -- snapshot.c -- */
struct policy_slot *slot_find(const struct dataplane *d, const char *name); /* NULL: never was one of that name */
/* The entry of that number in the SPD in force, or NULL. */
const struct spd_entry *entry_in_force(const struct dataplane *d, uint32_t id);
/* The instance of a Child SA of a shared policy of that number: that of the one it follows, or a new one. */
MUST_USE enum err instance_get(struct dataplane *d, const struct ike_child *c, uint32_t base, ns_t now,
                               struct instance **out);
void instance_release(struct dataplane *d, struct instance *i); /* by one of its Child SAs */
void renewal_fire(struct timer *t, void *ctx, ns_t now);

#endif
