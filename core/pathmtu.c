#include "core/pathmtu.h"

#include <stdlib.h>

#include "core/base/hash.h"
#include "core/base/log.h"
#include "crypto/random.h"
#include "crypto/siphash.h"
#include "esp/outer.h"

#define UDP_HEADER 8
#define UDP_PROTOCOL 17
#define IKE_PORT_PLAIN 500
/* After a long datagram has left: did anything come back, and does another one leave? */
#define LOOK (2 * NS_PER_S)
#define LINK_AGE (30 * NS_PER_S) /* of what is known about the link */

struct path_mtu {
    struct path_mtus *all;
    struct hash_link by_remote;
    struct path path;
    struct pmtu p;
    struct timer timer;
    struct path_user *users;
    unsigned shown; /* the size that the SAs have been told */
    ns_t long_at;   /* something long has left then, and not been looked at; 0: nothing has */
    ns_t linked_at;
};

struct path_mtus {
    struct path_mtu_env env;
    struct hash by_remote;
    uint8_t key[SIPHASH_KEY];
};

enum err path_mtus_new(struct path_mtus **out, const struct path_mtu_env *env)
{
    struct path_mtus *m = calloc(1, sizeof *m);
    if (!m)
        return ERR_NOMEM;
    m->env = *env;
    random_bytes(m->key, sizeof m->key);
    *out = m;
    return OK;
}

void path_mtus_free(struct path_mtus *m)
{
    if (!m)
        return;
    hash_free(&m->by_remote);
    free(m);
}

/* -- what follows for the SAs -- */

static unsigned headers(const struct path *path)
{
    return outer_len(path->remote.ip.family) + (path->transport == PATH_UDP ? UDP_HEADER : 0);
}

/* Peers may share a path and differ in `pmtu`: who is not to know better takes the link's MTU, all others what is known. */
static unsigned size_for(const struct path_mtu *w, const struct path_user *u)
{
    return u->mode == PMTU_NO ? w->p.max : w->p.size;
}

static unsigned inner_of(const struct path_mtu *w, const struct sa *sa, unsigned size)
{
    unsigned inner = sa_inner_max(sa, w->path.remote.ip.family, size - headers(&w->path));
    /* In transport mode the packet's own header is the outer one. */
    return sa->params.mode == MODE_TUNNEL ? inner : inner + outer_len(w->path.remote.ip.family);
}

/* What is long: so much that a path smaller than `base` would be noticed too. */
static unsigned long_from(const struct path_mtu *w)
{
    unsigned least = w->p.size < w->p.base ? w->p.size : w->p.base;
    return least / 4 * 3 - headers(&w->path);
}

static void tell_user(const struct path_mtu *w, struct path_user *u)
{
    bool own = w->path.remote.ip.family == 6 && w->path.transport == PATH_UDP && u->mode == PMTU_PROBE;
    unsigned size = size_for(w, u);
    if (u->out) {
        unsigned inner = inner_of(w, u->out, size);
        atomic_store_explicit(&u->out->inner_max, inner, memory_order_relaxed);
        atomic_store_explicit(&u->in->inner_max, inner, memory_order_relaxed);
        atomic_store_explicit(&u->out->datagram_max, size, memory_order_relaxed);
        atomic_store_explicit(&u->out->whole_max, own ? size - headers(&w->path) : 0, memory_order_relaxed);
    }
}

static void arm(const struct path_mtu *w, struct path_user *u)
{
    if (u->out && u->mode != PMTU_NO)
        atomic_store_explicit(&u->out->news_over, long_from(w), memory_order_relaxed);
}

static void settle(struct path_mtu *w)
{
    if (w->p.size != w->shown) {
        char to[ENDPOINT_TEXT];
        log_line(LOG_INFO, "core", "path MTU to %s: %u (was %u)", endpoint_format(&w->path.remote, to), w->p.size,
                 w->shown);
        w->shown = w->p.size;
        for (struct path_user *u = w->users; u; u = u->next)
            tell_user(w, u);
    }
    ns_t next = pmtu_deadline(&w->p), look = w->long_at ? w->long_at + LOOK : NS_NEVER;
    next = look < next ? look : next;
    if (next == NS_NEVER)
        timer_cancel(w->all->env.timers, &w->timer);
    else
        timer_set(w->all->env.timers, &w->timer, next);
}

/* -- time -- */

/* Long datagrams leave; whether anything has come back since tells whether they arrive, mostly. */
static void look(struct path_mtu *w, ns_t now)
{
    ns_t last_in = 0;
    for (struct path_user *u = w->users; u; u = u->next) {
        ns_t in = atomic_load_explicit(&u->in->last_used, memory_order_relaxed);
        last_in = in > last_in ? in : last_in;
        arm(w, u);
    }
    if (last_in < w->long_at)
        pmtu_doubt(&w->p, now);
    w->long_at = 0;
}

static void look_at_link(struct path_mtu *w, ns_t now)
{
    if (now - w->linked_at < LINK_AGE)
        return;
    unsigned link = w->all->env.link(w->all->env.ctx, &w->path);
    w->linked_at = now;
    if (link)
        pmtu_limit(&w->p, link, now);
}

static const struct path_user *prober(const struct path_mtu *w)
{
    const struct path_user *u = w->users;
    while (u && u->mode != PMTU_PROBE)
        u = u->next;
    return u;
}

static void probe(struct path_mtu *w, unsigned size, ns_t now)
{
    const struct path_user *u = prober(w);
    enum err e = w->all->env.probe(w->all->env.ctx, u->child, size);
    if (e == OK)
        pmtu_sent(&w->p, size, now);
    else if (e == ERR_UNSUPPORTED)
        pmtu_only_claims(&w->p, true);
    else
        pmtu_busy(&w->p, now);
}

static void fire(struct timer *t, void *ctx, ns_t now)
{
    struct path_mtu *w = CONTAINER_OF(t, struct path_mtu, timer);
    (void)ctx;
    if (w->long_at && now >= w->long_at + LOOK)
        look(w, now);
    look_at_link(w, now);
    unsigned size = pmtu_due(&w->p, now);
    if (size)
        probe(w, size, now);
    settle(w);
}

/* -- users -- */

static uint64_t key_of(const struct path_mtus *m, const struct ip *remote)
{
    return siphash(m->key, span_of(remote->b, ip_len(remote->family)));
}

static struct path_mtu *find(const struct path_mtus *m, const struct path *path)
{
    for (struct hash_link *l = hash_find(&m->by_remote, key_of(m, &path->remote.ip)); l; l = hash_next(l)) {
        struct path_mtu *w = CONTAINER_OF(l, struct path_mtu, by_remote);
        if (endpoint_equal(&w->path.remote, &path->remote) && ip_equal(&w->path.local.ip, &path->local.ip) &&
            w->path.transport == path->transport)
            return w;
    }
    return NULL;
}

static struct path_mtu *make(struct path_mtus *m, const struct path *path)
{
    unsigned link = m->env.link(m->env.ctx, path);
    struct path_mtu *w = link ? calloc(1, sizeof *w) : NULL;
    if (!w)
        return NULL;
    w->all = m;
    w->path = *path;
    if (timer_add(m->env.timers, &w->timer, fire) != OK) {
        free(w);
        return NULL;
    }
    pmtu_init(&w->p, path->remote.ip.family == 6, link);
    w->shown = w->p.size;
    hash_add(&m->by_remote, &w->by_remote, key_of(m, &path->remote.ip));
    return w;
}

void path_mtu_join(struct path_mtus *m, struct path_user *u, const struct path *path)
{
    struct path_mtu *w = find(m, path);
    if (!w)
        w = make(m, path);
    u->of = w;
    if (!w)
        return;
    u->next = w->users;
    u->at = &w->users;
    if (u->next)
        u->next->at = &u->next;
    w->users = u;
    pmtu_only_claims(&w->p, !prober(w));
    tell_user(w, u);
    arm(w, u);
    settle(w);
}

void path_mtu_leave(struct path_mtus *m, struct path_user *u)
{
    struct path_mtu *w = u->of;
    if (!w)
        return;
    *u->at = u->next;
    if (u->next)
        u->next->at = u->at;
    u->of = NULL;
    if (w->users) {
        pmtu_only_claims(&w->p, !prober(w));
        settle(w);
        return;
    }
    hash_remove(&m->by_remote, &w->by_remote);
    timer_drop(m->env.timers, &w->timer);
    free(w);
}

void path_mtu_move(struct path_mtus *m, struct path_user *u, const struct path *path)
{
    path_mtu_leave(m, u);
    path_mtu_join(m, u, path);
}

/* -- what comes in -- */

void path_mtu_used(struct path_user *u, ns_t now)
{
    struct path_mtu *w = u->of;
    if (!w)
        return;
    if (!w->long_at)
        w->long_at = now ? now : 1;
    pmtu_used(&w->p, now);
    settle(w);
}

void path_mtu_probed(struct path_user *u, unsigned bytes, bool through, ns_t now)
{
    if (!u->of)
        return;
    pmtu_result(&u->of->p, bytes, through, now);
    settle(u->of);
}

/* IKE of a path may go by port 500 where its ESP has 4500. */
static bool quotes(const struct path_mtu *w, const struct icmp_error *e)
{
    bool udp = e->proto == UDP_PROTOCOL;
    return ip_equal(&w->path.remote.ip, &e->remote.ip) && ip_equal(&w->path.local.ip, &e->local.ip) &&
           (udp ? e->remote.port == w->path.remote.port || e->remote.port == IKE_PORT_PLAIN
                : w->path.transport == PATH_RAW);
}

/* The child that it is about, of that path; the first one where no SPI says. NULL: none. */
static struct path_user *user_of(const struct path_mtu *w, const struct icmp_error *e)
{
    struct path_user *u = w->users;
    while (u && e->esp && u->spi_out != e->spi)
        u = u->next;
    return u;
}

bool path_mtu_told(struct path_mtus *m, const struct icmp_error *e, ns_t now)
{
    for (struct hash_link *l = hash_find(&m->by_remote, key_of(m, &e->remote.ip)); l; l = hash_next(l)) {
        struct path_mtu *w = CONTAINER_OF(l, struct path_mtu, by_remote);
        const struct path_user *u = quotes(w, e) ? user_of(w, e) : NULL;
        if (!u)
            continue;
        if (!(u->icmp & (e->too_big ? ICMP_TOO_BIG : ICMP_UNREACHABLE)) || (e->too_big && u->mode == PMTU_NO))
            return false;
        /* Where no probe asks, only who has seen our packets is believed: addresses and ports anybody can guess. */
        if (e->too_big && w->p.claims_only && !e->esp)
            return false;
        if (e->too_big)
            pmtu_claim(&w->p, e->mtu, now);
        else
            m->env.doubt(m->env.ctx, u->child);
        settle(w);
        return true;
    }
    return false;
}

unsigned path_mtu_size(const struct path_user *u, unsigned *link)
{
    *link = u->of ? u->of->p.max : 0;
    return u->of ? size_for(u->of, u) : 0;
}

bool path_mtu_complete(const struct path_user *u)
{
    return u->of && u->mode != PMTU_NO && u->of->p.phase == PMTU_COMPLETE && !u->of->p.claims_only;
}
