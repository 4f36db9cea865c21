/* The SPD as workers see it: snapshots of a configuration's policies, and of each client's part of those that are shared. */
#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/dataplane_impl.h"

/*
 * When many clients come at once, SPDs are made anew after a pause of that much for each entry, some times what the
 * making takes; one of more than so many entries is made in another thread, which is looked after that often. A client's
 * first packets out may be lost to that, but nobody's handshake waits.
 */
#define RENEWAL_PAUSE (20 * NS_PER_US)
#define RENEWAL_AT_ONCE 256
#define RENEWAL_LOOK (4 * NS_PER_MS)
#define RENEWAL_SLICE (NS_PER_MS / 2) /* of a turn, for what only the control thread can do of it */
#define IDLE_AT_ONCE 250              /* instances that go in one turn */

struct policy_slot *slot_find(const struct dataplane *d, const char *name)
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

void renewal_fire(struct timer *t, void *ctx, ns_t now)
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
void instance_release(struct dataplane *d, struct instance *i)
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
enum err instance_get(struct dataplane *d, const struct ike_child *c, uint32_t base, ns_t now, struct instance **out)
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

const struct spd_entry *entry_in_force(const struct dataplane *d, uint32_t id)
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

const struct policy_stats *dataplane_policy_stats(const struct dataplane *d, const char *name)
{
    const struct policy_slot *s = slot_find(d, name);
    return s ? s->stats : NULL;
}
