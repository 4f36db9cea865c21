#include "core/dataplane.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "core/base/log.h"
#include "core/spd_maker.h"
#include "crypto/random.h"
#include "crypto/siphash.h"

#define CHILD_BUCKETS 4096
/* How long the inbound SA of a deleted pair still receives: what the peer sent before it heard of the deletion. */
#define LINGER (5 * NS_PER_S)

/*
 * When many clients come at once, SPDs are made anew after a pause of that much for each entry, some times what the
 * making takes; one of more than so many entries is made in another thread, which is looked after that often. A client's
 * first packets out may be lost to that, but nobody's handshake waits.
 */
#define RENEWAL_PAUSE (20 * NS_PER_US)
#define RENEWAL_AT_ONCE 256
#define RENEWAL_LOOK (4 * NS_PER_MS)
#define RENEWAL_SLICE (NS_PER_MS / 2) /* of a turn, for what only the control thread can do of it */

#define LIST_AT_ONCE 16  /* between two looks at the clock */
#define IDLE_AT_ONCE 250 /* instances that go in one turn */

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

static void renewal_fire(struct timer *t, void *ctx, ns_t now);
static void instance_release(struct dataplane *d, struct instance *i);

enum err dataplane_new(struct dataplane **out, const struct dataplane_params *p)
{
    struct dataplane *d = calloc(1, sizeof *d);
    if (!d)
        return ERR_NOMEM;
    d->p = *p;
    random_bytes(d->key, sizeof d->key);
    enum err e = p->sizes ? path_mtus_new(&d->sizes, p->sizes) : OK;
    if (e == OK)
        e = timer_add(d->p.timers, &d->renewal, renewal_fire);
    if (e != OK) {
        path_mtus_free(d->sizes);
        free(d);
        return e;
    }
    *out = d;
    return OK;
}

static void child_free(struct dataplane *d, struct child *c)
{
    sa_free(c->out); /* never published, or the workers have ended: nobody else knows it */
    timer_drop(d->p.timers, &c->linger);
    path_mtu_leave(d->sizes, &c->sizes);
    if (c->instance)
        instance_release(d, c->instance);
    free(c);
}

void dataplane_free(struct dataplane *d)
{
    if (!d)
        return;
    d->config = NULL;
    dataplane_prepare_drop(d);
    timer_drop(d->p.timers, &d->renewal);
    for (unsigned i = 0; i < CHILD_BUCKETS; i++)
        for (struct child *c = d->children[i], *next; c; c = next) {
            next = c->next;
            child_free(d, c);
        }
    for (uint32_t i = 0; i < d->slot_count; i++) {
        free(d->slots[i]->instance);
        free(d->slots[i]);
    }
    for (unsigned i = 0; i < SAD_POLICIES / STATS_PAGE; i++)
        free(d->stats[i]);
    free(d->slots);
    path_mtus_free(d->sizes);
    hash_free(&d->owners);
    hash_free(&d->by_name);
    struct spd *spd = atomic_exchange(&d->p.shared->spd, NULL);
    if (spd)
        spd_free(spd);
    free(d);
}

/* -- policies -- */

static struct policy_slot *slot_find(const struct dataplane *d, const char *name)
{
    for (struct hash_link *l = hash_find(&d->by_name, hash_text(name)); l; l = hash_next(l)) {
        struct policy_slot *s = CONTAINER_OF(l, struct policy_slot, by_name);
        if (strcmp(s->name, name) == 0)
            return s;
    }
    return NULL;
}

/* Another number, at the end of the list. */
static enum err slot_new(struct dataplane *d, struct policy_slot **out)
{
    if (d->slot_count == SAD_POLICIES)
        return ERR_FULL;
    if (d->slot_count == d->slot_cap) {
        uint32_t cap = d->slot_cap ? d->slot_cap * 2 : 16;
        struct policy_slot **slots = realloc(d->slots, cap * sizeof(struct policy_slot *));
        if (!slots)
            return ERR_NOMEM;
        d->slots = slots;
        d->slot_cap = cap;
    }
    struct policy_slot *s = calloc(1, sizeof *s);
    if (!s)
        return ERR_NOMEM;
    s->id = d->slot_count;
    d->slots[d->slot_count++] = s;
    *out = s;
    return OK;
}

/*
 * Room for one more policy's counters. They come in pages which the allocator takes straight from the kernel, so that
 * those of policies without traffic cost addresses, not memory.
 */
static enum err stats_reserve(struct dataplane *d)
{
    struct policy_stats **page = &d->stats[d->stats_count / STATS_PAGE];
    if (!*page)
        *page = calloc(STATS_PAGE, sizeof **page);
    return *page ? OK : ERR_NOMEM;
}

static enum err slot_get(struct dataplane *d, const char *name, uint32_t *id)
{
    struct policy_slot *s = slot_find(d, name);
    if (!s) {
        TRY(stats_reserve(d));
        TRY(slot_new(d, &s));
        s->stats = &d->stats[d->stats_count / STATS_PAGE][d->stats_count % STATS_PAGE];
        d->stats_count++;
        memcpy(s->name, name, strnlen(name, sizeof s->name - 1));
        hash_add(&d->by_name, &s->by_name, hash_text(s->name));
    }
    *id = s->id;
    return OK;
}

static bool listed(const struct dataplane *d, const struct instance *i)
{
    return i->listed == d->prepared;
}

static enum err put_entry(struct entries *l, const struct spd_entry *entry)
{
    if (l->n == l->room) {
        unsigned room = l->room + l->room / 4 + 16;
        struct spd_entry *v = realloc(l->v, room * sizeof *v);
        if (!v)
            return ERR_NOMEM;
        l->v = v;
        l->room = room;
    }
    l->v[l->n++] = *entry;
    return OK;
}

/*
 * The next entry: a policy, behind whoever has a part of it; those who are gone, or have it as it was before, are left
 * out.
 */
static enum err list_next(struct dataplane *d, struct entries *l)
{
    const struct policy *p = l->config->policies[l->at];
    uint32_t id = 0;
    TRY(slot_get(d, p->name, &id));
    struct spd_entry entry = {.policy = p, .id = id, .base = id, .stats = d->slots[id]->stats};
    struct instance *i = l->begun ? l->part : policy_shared(p) ? d->slots[id]->instances : NULL;
    l->begun = i;
    if (!i) {
        l->at++;
        return put_entry(l, &entry);
    }
    l->part = i->next;
    if (!i->children || i->version != p->version)
        return OK;
    entry.id = i->id;
    entry.local = &i->local;
    entry.remote = &i->remote;
    i->listed = d->prepared;
    return put_entry(l, &entry);
}

static enum err list_begin(struct dataplane *d, const struct config *c, struct entries *l)
{
    unsigned room = c->policy_count + d->instance_count + 1;
    *l = (struct entries){.config = c, .v = calloc(room, sizeof *l->v), .room = room};
    d->prepared++;
    return l->v ? OK : ERR_NOMEM;
}

/* What the SPD of a configuration is made of; to be freed. */
static enum err list_all(struct dataplane *d, const struct config *c, struct entries *l)
{
    TRY(list_begin(d, c, l));
    enum err e = OK;
    while (l->at < c->policy_count && e == OK)
        e = list_next(d, l);
    if (e != OK)
        free(l->v);
    return e;
}

enum err dataplane_prepare(struct dataplane *d, const struct config *c, struct spd **out)
{
    struct entries l;
    dataplane_prepare_drop(d);
    TRY(list_all(d, c, &l));
    enum err e = spd_new(out, l.v, l.n);
    free(l.v);
    return e;
}

static unsigned entries(const struct dataplane *d)
{
    return d->config->policy_count + d->instance_count;
}

enum err dataplane_prepare_begin(struct dataplane *d, const struct config *c)
{
    dataplane_prepare_drop(d);
    d->reloading = true;
    enum err e = list_begin(d, c, &d->listing);
    if (e != OK)
        dataplane_prepare_drop(d);
    return e;
}

enum err dataplane_prepare_some(struct dataplane *d, ns_t until, bool *over)
{
    struct entries *l = &d->listing;
    enum err e = OK;
    unsigned n = 0;
    while (l->at < l->config->policy_count && e == OK && (++n % LIST_AT_ONCE || clock_now() < until))
        e = list_next(d, l);
    *over = l->at == l->config->policy_count;
    if (e == OK && *over) {
        e = spd_maker_new(&d->maker, l->v, l->n);
        *l = (struct entries){0};
    }
    if (e != OK)
        dataplane_prepare_drop(d);
    return e;
}

bool dataplane_prepare_done(const struct dataplane *d)
{
    return spd_maker_done(d->maker);
}

enum err dataplane_prepare_end(struct dataplane *d, struct spd **out)
{
    struct spd_maker *m = d->maker;
    d->maker = NULL;
    enum err e = spd_maker_end(m, out);
    if (e != OK)
        dataplane_prepare_drop(d);
    return e;
}

static void instance_free(struct dataplane *d, struct instance *i)
{
    struct policy_slot *slot = d->slots[i->id];
    hash_remove(&d->owners, &i->by_owner);
    *i->at = i->next;
    if (i->next)
        i->next->at = i->at;
    d->instance_count--;
    slot->instance = NULL;
    slot->next = d->free_slots;
    d->free_slots = slot;
    free(i);
}

void dataplane_commit(struct dataplane *d, const struct config *c, struct spd *spd)
{
    d->config = c;
    d->reloading = false; /* until now: a renewal would have been of the other configuration, and of other instances */
    struct spd *old = atomic_exchange(&d->p.shared->spd, spd);
    if (old) {
        epoch_wait(d->p.shared->epoch);
        spd_free(old);
    }
    struct instance **at = &d->idle;
    unsigned n = 0;
    for (struct instance *i;
         (i = *at) != NULL && n++ < IDLE_AT_ONCE;) { /* nobody looks at the old snapshot's any more */
        if (!i->children && listed(d, i)) {
            at = &i->idle_next;
            continue;
        }
        *at = i->idle_next;
        i->idle = false;
        if (!i->children)
            instance_free(d, i);
    }
    if (*at && !timer_is_set(&d->renewal)) /* there are more: with the next one */
        timer_set(d->p.timers, &d->renewal, clock_now() + RENEWAL_LOOK);
}

/* -- instances -- */

/* The SPD with the instances as they are now. */
static enum err renew(struct dataplane *d, ns_t now)
{
    struct spd *spd;
    TRY(dataplane_prepare(d, d->config, &spd));
    dataplane_commit(d, d->config, spd);
    d->renewed = now;
    return OK;
}

static enum err renewal_begin(struct dataplane *d)
{
    d->overtaken = false;
    return list_begin(d, d->config, &d->listing);
}

static enum err renewal_end(struct dataplane *d, ns_t now)
{
    struct spd *spd;
    enum err e = spd_maker_end(d->maker, &spd);
    d->maker = NULL;
    if (e != OK)
        return e;
    dataplane_commit(d, d->config, spd);
    d->renewed = now;
    if (d->overtaken)
        timer_set(d->p.timers, &d->renewal, now + entries(d) * RENEWAL_PAUSE);
    return OK;
}

/* What is being made is of a configuration, or of instances, that may go now. */
void dataplane_prepare_drop(struct dataplane *d)
{
    struct spd *spd;
    if (!d->maker && !d->listing.v && !d->reloading)
        return;
    if (d->maker && spd_maker_end(d->maker, &spd) == OK)
        spd_free(spd);
    free(d->listing.v);
    d->listing = (struct entries){0};
    d->maker = NULL;
    d->reloading = false;
    if (d->config) /* in vain, if another SPD is put in force now */
        timer_set(d->p.timers, &d->renewal, d->renewed + entries(d) * RENEWAL_PAUSE);
}

static enum err renewal_step(struct dataplane *d, ns_t now)
{
    if (d->maker)
        return spd_maker_done(d->maker) ? renewal_end(d, now) : OK;
    bool over;
    if (d->listing.v)
        return dataplane_prepare_some(d, clock_now() + RENEWAL_SLICE, &over);
    return entries(d) <= RENEWAL_AT_ONCE ? renew(d, now) : renewal_begin(d);
}

static void renewal_fire(struct timer *t, void *ctx, ns_t now)
{
    struct dataplane *d = CONTAINER_OF(t, struct dataplane, renewal);
    (void)ctx;
    enum err e = d->reloading ? OK : renewal_step(d, now); /* what a reload needs comes first */
    if (e != OK) {
        log_line(LOG_WARN, "core", "no new SPD: clients that have come or gone wait for the next attempt: %s",
                 err_text(e));
        timer_set(d->p.timers, &d->renewal, now + NS_PER_S);
    } else if (d->maker || d->listing.v || d->reloading) {
        timer_set(d->p.timers, &d->renewal, now + (d->maker || d->reloading ? RENEWAL_LOOK : 0));
    }
}

/* At once when there is time for that, else soon. Errors: NOMEM; then it was not done, and is not going to be. */
static enum err renew_soon(struct dataplane *d, ns_t now)
{
    ns_t pause = entries(d) * RENEWAL_PAUSE;
    d->overtaken = true;
    if (timer_is_set(&d->renewal))
        return OK;
    if (!d->reloading && entries(d) <= RENEWAL_AT_ONCE && (!d->renewed || now - d->renewed >= pause))
        return renew(d, now);
    timer_set(d->p.timers, &d->renewal, d->renewed + pause);
    return OK;
}

static bool overlap(const struct selectors *a, const struct selectors *b)
{
    struct selector common;
    for (unsigned i = 0; i < a->n; i++)
        for (unsigned k = 0; k < b->n; k++)
            if (selector_intersect(&a->v[i], &b->v[k], &common))
                return true;
    return false;
}

static bool taken(const struct instance *i, const struct instance *new)
{
    return i->base == new->base && i->children && !identity_equal(&i->owner, &new->owner) &&
           overlap(&i->local, &new->local) && overlap(&i->remote, &new->remote);
}

/* A client of the policy, some of whose traffic a new one takes: the newest one, of several; NULL: none. */
static const struct instance *find_overlap(const struct dataplane *d, const struct instance *new)
{
    const struct selector *to = &new->remote.v[0];
    const struct instance *i = d->slots[new->base]->instances;
    if (new->remote.n == 1 && ip_equal(&to->range.first, &to->range.last)) {
        /* One address alone, as clients mostly have: looked up instead of compared with all that others have. */
        struct flow f = {.src = new->local.v[0].range.first, .dst = to->range.first, .proto = to->proto};
        const struct spd_entry *e = spd_lookup_out(atomic_load(&d->p.shared->spd), &f);
        i = e ? d->slots[e->id]->instance : NULL;
        return i && taken(i, new) ? i : NULL;
    }
    while (i && !taken(i, new))
        i = i->next;
    return i;
}

static void tell_overlap(const struct dataplane *d, const struct instance *new, const char *policy)
{
    char a[IDENTITY_TEXT], b[IDENTITY_TEXT], text[200];
    const struct instance *i = find_overlap(d, new);
    if (i)
        log_line(LOG_WARN, "core", "policy %s: %s has %s, which overlaps what %s has: traffic goes to the newer one",
                 policy, identity_format(&new->owner, a, sizeof a), selectors_format(&new->remote, text, sizeof text),
                 identity_format(&i->owner, b, sizeof b));
}

static void instance_idle(struct dataplane *d, struct instance *i)
{
    if (i->idle)
        return;
    i->idle = true;
    i->idle_next = d->idle;
    d->idle = i;
}

/* Not at once: a reload may have a snapshot in hand that was made with this one in it. */
static void instance_release(struct dataplane *d, struct instance *i)
{
    if (--i->children != 0 || !d->config)
        return;
    instance_idle(d, i);
    d->overtaken = true;
    if (!timer_is_set(&d->renewal))
        timer_set(d->p.timers, &d->renewal, d->renewed + entries(d) * RENEWAL_PAUSE);
}

static uint64_t owner_key(const struct dataplane *d, uint32_t base, const struct identity *owner)
{
    uint8_t bytes[sizeof base + IDENTITY_FOLDED];
    memcpy(bytes, &base, sizeof base);
    return siphash(d->key, span_of(bytes, sizeof base + identity_fold(owner, bytes + sizeof base)));
}

static struct instance *instance_find(const struct dataplane *d, const struct ike_child *c, uint32_t base)
{
    for (struct hash_link *l = hash_find(&d->owners, owner_key(d, base, c->remote_id)); l; l = hash_next(l)) {
        struct instance *i = CONTAINER_OF(l, struct instance, by_owner);
        if (i->base == base && i->version == c->policy->version && identity_equal(&i->owner, c->remote_id) &&
            selectors_equal(&i->local, &c->local) && selectors_equal(&i->remote, &c->remote))
            return i;
    }
    return NULL;
}

/* One of that policy, with a number of its own; not in the SPD yet. */
static enum err instance_new(struct dataplane *d, const struct ike_child *c, uint32_t base, struct instance **out)
{
    struct instance *i = malloc(sizeof *i), **first = &d->slots[base]->instances;
    struct policy_slot *slot = d->free_slots;
    enum err e = i ? OK : ERR_NOMEM;
    if (e == OK && slot)
        d->free_slots = slot->next;
    else if (e == OK)
        e = slot_new(d, &slot);
    if (e != OK) {
        free(i);
        return e;
    }
    slot->instance = i;
    *i = (struct instance){.id = slot->id,
                           .base = base,
                           .version = c->policy->version,
                           .owner = *c->remote_id,
                           .local = c->local,
                           .remote = c->remote,
                           .next = *first,
                           .at = first};
    if (i->next)
        i->next->at = &i->next;
    *first = i;
    hash_add(&d->owners, &i->by_owner, owner_key(d, base, &i->owner));
    d->instance_count++;
    *out = i;
    return OK;
}

/* The instance of a Child SA: that of the one it follows, or a new one. */
static enum err instance_get(struct dataplane *d, const struct ike_child *c, uint32_t base, ns_t now,
                             struct instance **out)
{
    struct instance *i = instance_find(d, c, base);
    if (i && (i->children || listed(d, i))) {
        i->children++;
        *out = i;
        return OK;
    }
    if (!i) {
        TRY(instance_new(d, c, base, &i));
        tell_overlap(d, i, c->policy->name);
    }
    i->children = 1;
    enum err e = renew_soon(d, now);
    if (e == OK) {
        *out = i;
        return OK;
    }
    i->children = 0; /* freed when the next SPD is there; the one in force may name it */
    instance_idle(d, i);
    return e;
}

static const struct spd_entry *entry_in_force(const struct dataplane *d, uint32_t id)
{
    const struct spd *spd = atomic_load(&d->p.shared->spd);
    return spd ? spd_find(spd, id) : NULL;
}

const struct policy *dataplane_policy(const struct dataplane *d, uint32_t id)
{
    const struct instance *i = id < d->slot_count ? d->slots[id]->instance : NULL;
    const struct spd_entry *e = entry_in_force(d, i ? i->base : id);
    return e ? e->policy : NULL;
}

/* -- SAs -- */

static struct child **child_bucket(struct dataplane *d, uint64_t id)
{
    return &d->children[id % CHILD_BUCKETS];
}

static struct child *child_find(const struct dataplane *d, uint64_t id)
{
    struct child *c = d->children[id % CHILD_BUCKETS];
    while (c && c->id != id)
        c = c->next;
    return c;
}

enum err dataplane_reserve(struct dataplane *d, uint32_t *spi)
{
    unsigned worker = d->next_worker;
    d->next_worker = (worker + 1) % d->p.workers;
    return sad_reserve(d->p.shared->sad, worker, spi);
}

void dataplane_release(struct dataplane *d, uint32_t spi)
{
    sad_release(d->p.shared->sad, spi);
}

/* The crypto library's own copy of a name: SAs outlive the configuration that named their engine. */
static const char *engine_static(const char *name)
{
    for (unsigned i = 0; engine_name(i); i++)
        if (strcmp(engine_name(i), name) == 0)
            return engine_name(i);
    return "auto";
}

/* Hard limits stand 10 % behind the soft ones (DESIGN: The ini file). */
static uint64_t hard_limit(uint64_t soft)
{
    uint64_t tenth = soft / 10 ? soft / 10 : 1;
    return !soft ? 0 : soft > UINT64_MAX - tenth ? UINT64_MAX : soft + tenth;
}

static struct sa_params child_params(const struct ike_child *c, enum sa_dir dir, uint32_t policy_id, const char *engine)
{
    const struct policy *p = c->policy;
    return (struct sa_params){
        .dir = dir,
        .spi = dir == SA_IN ? c->spi_in : c->spi_out,
        .policy_id = policy_id,
        .version = p->version,
        .child = c->id,
        .proto = c->protocol,
        .suite = c->suite,
        .engine = engine_static(engine),
        .key = dir == SA_IN ? c->key_in : c->key_out,
        .integ_key = dir == SA_IN ? c->integ_in : c->integ_out,
        .esn = c->esn,
        .replay_window = p->replay_window,
        .mode = c->mode,
        .tfc = dir == SA_OUT && c->tfc && c->mode == MODE_TUNNEL ? p->tfc : (struct tfc){0},
        .path = c->path,
        .local = c->local,
        .remote = c->remote,
        .outer = p->outer,
        .mss = p->mss,
        .fragment_before =
            p->fragment_before && c->mode == MODE_TUNNEL, /* of datagrams, transport carries whole ones */
        .seen_local = c->seen_local,
        .seen_remote = c->seen_remote,
        .soft_bytes = p->bytes,
        .hard_bytes = hard_limit(p->bytes),
        .soft_packets = p->packets,
        .hard_packets = hard_limit(p->packets),
    };
}

/* Another configuration is in force: its policy is another one there, and it will be removed soon. */
static bool outdated(const struct dataplane *d, const struct child *c)
{
    const struct spd_entry *e = entry_in_force(d, c->policy_id);
    return e && e->policy->version != c->out->params.version;
}

/*
 * Its policy's outbound traffic moves to this child. The one that had it keeps its SA, for it may have to take the
 * traffic back: the same SA, so that its sequence numbers go on and no nonce comes twice.
 */
static enum err child_send(struct dataplane *d, struct child *c)
{
    struct sad *sad = d->p.shared->sad;
    if (outdated(d, c))
        return ERR_STATE;
    struct sa *old = sad_find_out(sad, c->policy_id, 0);
    struct child *replaced = old ? child_find(d, old->params.child) : NULL;
    TRY(sad_publish_out(sad, c->out));
    if (replaced)
        replaced->sending = false;
    c->sending = true;
    return OK;
}

/* The outbound SA ends; what it counted is remembered. */
static void child_out_end(struct dataplane *d, struct child *c)
{
    c->packets = atomic_load(&c->out->packets);
    c->bytes = atomic_load(&c->out->bytes);
    c->last_out = atomic_load(&c->out->last_used);
    sad_retire_out(d->p.shared->sad, c->out);
    c->out = c->sizes.out = NULL;
    c->sending = false;
}

static void linger_over(struct timer *t, void *ctx, ns_t now)
{
    (void)ctx;
    (void)now;
    struct child *c = CONTAINER_OF(t, struct child, linger);
    struct dataplane *d = c->owner;
    sad_remove_in(d->p.shared->sad, c->spi_in);
    struct child **at = child_bucket(d, c->id);
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    child_free(d, c);
}

static enum err child_new(struct dataplane *d, const struct ike_child *ic, const char *engine, ns_t now,
                          struct child **out)
{
    struct policy_slot *slot = slot_find(d, ic->policy->name);
    if (!slot)
        return ERR_NOTFOUND;
    struct child *c = calloc(1, sizeof *c);
    if (!c)
        return ERR_NOMEM;
    *c = (struct child){.owner = d,
                        .id = ic->id,
                        .policy_id = slot->id,
                        .spi_in = ic->spi_in,
                        .spi_out = ic->spi_out,
                        .path = ic->path};
    enum err e = timer_add(d->p.timers, &c->linger, linger_over);
    if (e != OK) {
        free(c);
        return e;
    }
    if (policy_shared(ic->policy)) {
        e = instance_get(d, ic, slot->id, now, &c->instance);
        if (e != OK) {
            child_free(d, c);
            return e;
        }
        c->policy_id = c->instance->id;
    }
    struct sa_params in = child_params(ic, SA_IN, c->policy_id, engine);
    struct sa_params outp = child_params(ic, SA_OUT, c->policy_id, engine);
    in.stats = outp.stats = slot->stats;
    e = sad_prepare_out(d->p.shared->sad, c->policy_id); /* an activation later on can't say that it failed */
    if (e == OK)
        e = sa_new(&c->in, &in, now);
    if (e == OK)
        e = sa_new(&c->out, &outp, now);
    if (e != OK) {
        if (c->in)
            sa_free(c->in);
        child_free(d, c);
        return e;
    }
    c->crypto = keyed_engine(c->out->keyed);
    *out = c;
    return OK;
}

enum err dataplane_install(struct dataplane *d, const struct ike_child *ic, const char *engine, bool sending, ns_t now)
{
    struct child *c;
    TRY(child_new(d, ic, engine, now, &c));
    enum err e = sad_publish_in(d->p.shared->sad, c->in);
    if (e != OK) {
        sa_free(c->in);
        child_free(d, c);
        return e;
    }
    if (sending)
        e = child_send(d, c);
    if (e != OK) {
        sad_remove_in(d->p.shared->sad, c->spi_in);
        child_free(d, c);
        return e;
    }
    c->sizes = (struct path_user){.child = c->id,
                                  .spi_out = c->spi_out,
                                  .in = c->in,
                                  .out = c->out,
                                  .mode = ic->policy->peer->pmtu,
                                  .icmp = ic->policy->icmp};
    if (d->sizes)
        path_mtu_join(d->sizes, &c->sizes, &c->path);
    struct child **bucket = child_bucket(d, c->id);
    c->next = *bucket;
    *bucket = c;
    return OK;
}

void dataplane_activate(struct dataplane *d, uint64_t child)
{
    struct child *c = child_find(d, child);
    if (!c || c->removed || c->sending || outdated(d, c))
        return;
    enum err e = child_send(d, c);
    if (e != OK)
        log_line(LOG_ERROR, "core", "outbound SA %08x could not be put in force: %s", c->spi_out, err_text(e));
}

void dataplane_remove(struct dataplane *d, uint64_t child, bool linger, ns_t now)
{
    struct child *c = child_find(d, child);
    if (!c || c->removed)
        return;
    c->removed = true;
    child_out_end(d, c);
    if (linger)
        timer_set(d->p.timers, &c->linger, now + LINGER);
    else
        linger_over(&c->linger, NULL, now);
}

bool dataplane_resize(struct dataplane *d, unsigned *at, ns_t until)
{
    for (; *at < CHILD_BUCKETS; ++*at) {
        if (*at % LIST_AT_ONCE == 0 && *at && clock_now() >= until)
            return false;
        for (struct child *c = d->children[*at]; c; c = c->next) {
            const struct policy *p = dataplane_policy(d, c->policy_id);
            enum err e = p ? sa_resize(c->in, p->replay_window) : OK;
            if (e != OK)
                log_line(LOG_WARN, "core", "inbound SA %08x keeps its replay window: %s", c->spi_in, err_text(e));
        }
    }
    return true;
}

void dataplane_move(struct dataplane *d, uint64_t child, const struct path *path)
{
    struct child *c = child_find(d, child);
    if (!c)
        return;
    c->path = *path;
    if (d->sizes)
        path_mtu_move(d->sizes, &c->sizes, path);
    sa_move(c->in, path);
    /* The next change of address is news again. */
    atomic_store(&c->in->moved_raised, false);
    if (c->out)
        sa_move(c->out, path);
}

void dataplane_long(struct dataplane *d, uint64_t child, ns_t now)
{
    struct child *c = child_find(d, child);
    if (c)
        path_mtu_used(&c->sizes, now);
}

void dataplane_probed(struct dataplane *d, uint64_t child, unsigned bytes, bool through, ns_t now)
{
    struct child *c = child_find(d, child);
    if (c)
        path_mtu_probed(&c->sizes, bytes, through, now);
}

bool dataplane_told(struct dataplane *d, const struct icmp_error *e, ns_t now)
{
    return d->sizes && path_mtu_told(d->sizes, e, now);
}

void dataplane_traffic(const struct dataplane *d, uint64_t child, ns_t *in, ns_t *out)
{
    const struct child *c = child_find(d, child);
    *in = c ? atomic_load(&c->in->last_used) : 0;
    *out = !c ? 0 : c->out ? atomic_load(&c->out->last_used) : c->last_out;
}

const struct policy_stats *dataplane_policy_stats(const struct dataplane *d, const char *name)
{
    const struct policy_slot *s = slot_find(d, name);
    return s ? s->stats : NULL;
}

enum err dataplane_counters(const struct dataplane *d, uint64_t child, struct child_counters *out)
{
    const struct child *c = child_find(d, child);
    if (!c)
        return ERR_NOTFOUND;
    *out = (struct child_counters){
        .in_packets = atomic_load(&c->in->packets),
        .in_bytes = atomic_load(&c->in->bytes),
        .last_in = atomic_load(&c->in->last_used),
        .out_packets = c->out ? atomic_load(&c->out->packets) : c->packets,
        .out_bytes = c->out ? atomic_load(&c->out->bytes) : c->bytes,
        .last_out = c->out ? atomic_load(&c->out->last_used) : c->last_out,
        .sending = c->sending,
        .path = c->path,
        .crypto = c->crypto,
        .in_drops = &c->in->drops,
        .out_drops = c->out ? &c->out->drops : NULL,
        .path_mtu_probed = path_mtu_complete(&c->sizes),
        .inner_max = c->out ? atomic_load(&c->out->inner_max) : 0,
    };
    out->path_mtu = path_mtu_size(&c->sizes, &out->link_mtu);
    return OK;
}
