#include <stdlib.h>
#include <string.h>

#include "core/base/log.h"
#include "core/dataplane_impl.h"
#include "crypto/random.h"

/* How long the inbound SA of a deleted pair still receives: what the peer sent before it heard of the deletion. */
#define LINGER (5 * NS_PER_S)

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
