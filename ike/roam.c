/*
 * Where an IKE SA runs: following the addresses of this host, choosing another pair of addresses when the one in use is
 * gone or silent (RFC 4555 sections 3.5, 3.6, 3.10 and 3.11), and starting anew where the peer has no MOBIKE.
 */
#include "ike/internal.h"

#define ROAM_AT_ONCE 32  /* SAs that follow the host, each with a request: thousands must not keep all others waiting */
#define SUSPECT_TRIES 2  /* retransmissions without an answer before other paths are tried */
#define PATIENT_TRIES 13 /* of a responder: five minutes (section 3.11), so that the initiator can find a way first */

static bool loopback(const struct ip *ip)
{
    static const uint8_t six[16] = {[15] = 1};
    return ip->family == 4 ? ip->b[0] == 127 : ip->family == 6 && !memcmp(ip->b, six, sizeof six);
}

static bool own_address(const struct ike_engine *e, const struct ip *ip)
{
    if (loopback(ip))
        return true;
    for (unsigned i = 0; i < e->address_count; i++)
        if (ip_equal(&e->addresses[i], ip))
            return true;
    return false;
}

/*
 * What we would send from to there; keep: what we do now. False: nothing leads there, or only a link that is down, whose
 * routes and addresses the kernel may keep.
 */
static bool source_to(const struct ike_engine *e, const struct ip *remote, const struct ip *keep, struct ip *out)
{
    if (e->env.source)
        return e->env.source(e->env.ctx, remote, out) && (own_address(e, out) || !e->address_version);
    *out = *keep;
    if (own_address(e, keep) && keep->family == remote->family)
        return true;
    for (unsigned i = 0; i < e->address_count; i++) {
        *out = e->addresses[i];
        if (out->family == remote->family)
            return true;
    }
    return false;
}

/* -- pairs of addresses -- */

struct pairs {
    struct path v[MOBIKE_PATHS]; /* all of one round */
    unsigned n;
};

static void add_pair(struct pairs *p, const struct ike_sa *sa, const struct ip *local, const struct endpoint *remote)
{
    struct path path = sa->path;
    path.local.ip = *local;
    path.remote = *remote;
    for (unsigned i = 0; i < p->n; i++)
        if (path_equal(&p->v[i], &path))
            return;
    if (p->n < MOBIKE_PATHS)
        p->v[p->n++] = path;
}

static uint16_t natt_port(const struct endpoint *configured)
{
    return configured->port != IKE_PORT ? configured->port : NATT_PORT;
}

#define MOBIKE_REMOTES (1 + PEER_CANDIDATES + MOBIKE_ADDRESSES)

/* Where the peer may be reached: where it is now, what is configured, and what it has announced. */
static unsigned remotes(const struct ike_sa *sa, struct endpoint out[MOBIKE_REMOTES])
{
    const struct endpoint *known = sa->run ? sa->run->candidates : NULL;
    unsigned n = 0, configured = known && sa->mobike.decides ? sa->run->candidate_count : 0;
    uint16_t port = configured ? natt_port(&known[0]) : NATT_PORT;
    out[n++] = sa->path.remote;
    for (unsigned i = 0; i < configured; i++)
        if (!ip_equal(&known[i].ip, &sa->path.remote.ip))
            out[n++] = (struct endpoint){known[i].ip, natt_port(&known[i])};
    for (unsigned i = 0; i < sa->mobike.peers; i++)
        if (!own_address(sa->e, &sa->mobike.peer[i]) && !ip_equal(&sa->mobike.peer[i], &sa->path.remote.ip))
            out[n++] = (struct endpoint){sa->mobike.peer[i], port};
    return n;
}

/* The pair in use first, then those that the routes suggest, then the rest. */
static void pairs_of(const struct ike_sa *sa, struct pairs *out)
{
    const struct ike_engine *e = sa->e;
    struct endpoint to[MOBIKE_REMOTES];
    struct ip local;
    unsigned n = remotes(sa, to);
    out->n = 0;
    add_pair(out, sa, &sa->path.local.ip, &sa->path.remote);
    for (unsigned i = 0; i < n; i++)
        if (source_to(e, &to[i].ip, &sa->path.local.ip, &local))
            add_pair(out, sa, &local, &to[i]);
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < e->address_count; k++)
            if (e->addresses[k].family == to[i].ip.family)
                add_pair(out, sa, &e->addresses[k], &to[i]);
}

/* -- moving -- */

/* What a rekey has left behind still has to be deleted, and that too where the peer is now. */
static void drag_along(const struct ike_sa *sa, const struct path *from)
{
    for (struct ike_sa *o = table_same_peer(&sa->e->table, sa); o; o = table_same_peer_next(o, sa)) {
        if ((o->state != SA_REPLACED && o->state != SA_DELETING) || !path_equal(&o->path, from))
            continue;
        o->path = sa->path;
        if (o->tx.pending)
            request_transmit(o);
    }
}

void mobike_move(struct ike_sa *sa, const struct path *to, bool children)
{
    struct path from = sa->path;
    char text[4][ENDPOINT_TEXT];
    if (path_equal(&from, to))
        return;
    sa->path = *to;
    sa->fragments_lost = false;
    report(sa->e, IKE_EVENT_IKE_MOVED, sa_peer(sa), NULL, to, "IKE SA with %s moved from %s - %s to %s - %s",
           sa_peer_name(sa), endpoint_format(&from.local, text[0]), endpoint_format(&from.remote, text[1]),
           endpoint_format(&to->local, text[2]), endpoint_format(&to->remote, text[3]));
    if (children)
        sa_move_children(sa);
    drag_along(sa, &from);
    if (!sa->tx.pending)
        return;
    sa->mobike.spread = true; /* what waits for an answer goes on from here (section 3.5) */
    sa->mobike.probed = false;
    sa->tx.tries = 0;
    request_transmit(sa);
}

static bool suspicious(const struct ike_sa *sa)
{
    /* That a long probe is lost says nothing of the path: first its short form has to be lost there, see probe.c. */
    unsigned enough = sa->current && sa->current->kind == TASK_PROBE ? SUSPECT_TRIES + 1 : SUSPECT_TRIES;
    /* A responder looks elsewhere only to tell where it is now (section 3.6). */
    return sa->mobike.on && sa->state == SA_UP && sa->tx.tries >= enough &&
           (sa->mobike.decides || (sa->current && sa->current->kind == TASK_ANNOUNCE));
}

unsigned mobike_paths(struct ike_sa *sa, struct path out[MOBIKE_PATHS])
{
    struct pairs pairs = {.v = {sa->path}, .n = 1};
    if (suspicious(sa))
        pairs_of(sa, &pairs);
    if (pairs.n > 1)
        sa->mobike.spread = sa->mobike.probed = true;
    memcpy(out, pairs.v, pairs.n * sizeof *out);
    return pairs.n;
}

unsigned mobike_patience(const struct ike_sa *sa)
{
    return sa->mobike.on && !sa->mobike.decides && sa->state == SA_UP ? PATIENT_TRIES : RETRANSMIT_TRIES;
}

void mobike_arrived(struct ike_sa *sa, const struct path *path)
{
    struct pairs pairs;
    if (!sa->mobike.probed || !sa->mobike.decides || sa->state != SA_UP)
        return;
    pairs_of(sa, &pairs);
    for (unsigned i = 1; i < pairs.n; i++)
        if (path_equal(&pairs.v[i], path)) {
            mobike_move(sa, path, true);
            mobike_update(sa);
            return;
        }
}

bool mobike_next_pair(struct ike_sa *sa)
{
    struct pairs pairs;
    pairs_of(sa, &pairs);
    if (sa->mobike.refused >= pairs.n)
        return false;
    mobike_move(sa, &pairs.v[sa->mobike.refused], true);
    mobike_update(sa);
    return true;
}

/* -- the addresses of this host -- */

/* Another pair of which our half exists; false: there is none. */
static bool other_pair(const struct ike_sa *sa, struct path *out)
{
    struct pairs pairs;
    pairs_of(sa, &pairs);
    for (unsigned i = 1; i < pairs.n; i++)
        if (own_address(sa->e, &pairs.v[i].local.ip)) {
            *out = pairs.v[i];
            return true;
        }
    return false;
}

/* The initiator without MOBIKE: the peer can't follow, so there is nothing to wait for. */
static void start_anew(struct ike_sa *sa, const struct ip *local)
{
    char from[IP_TEXT], to[IP_TEXT];
    struct run *run = sa->run;
    report(sa->e, IKE_EVENT_IKE_DOWN, sa_peer(sa), NULL, &sa->path,
           "IKE SA with %s can't move from %s to %s without MOBIKE: it is set up anew", sa_peer_name(sa),
           ip_format(&sa->path.local.ip, from), ip_format(local, to));
    commands_end(sa->e, COMMAND_REKEY, run, NULL, false, "our address has changed");
    sa_kill(sa);
    run_later(run, 0);
}

void mobike_tell(struct ike_sa *sa)
{
    unsigned version = sa->e->address_version;
    if (sa->mobike.on && sa->mobike.told != version && !(sa->current && sa->current->told == version))
        mobike_announce(sa);
}

/* An SA with MOBIKE, given what the routes say (can: `local` is what leads to the peer's address in use). */
static void follow_host(struct ike_sa *sa, bool can, const struct ip *local)
{
    struct path to = sa->path;
    bool stays = can && ip_equal(local, &sa->path.local.ip);
    /* A responder moves by itself only from an address that is no more (section 3.5). */
    if (stays || (!sa->mobike.decides && own_address(sa->e, &sa->path.local.ip))) {
        mobike_tell(sa);
        return;
    }
    to.local.ip = *local;
    if (!can && !other_pair(sa, &to))
        return; /* there is no way at all: the next change may bring one */
    mobike_move(sa, &to, can || sa->mobike.decides);
    if (sa->mobike.decides)
        mobike_update(sa);
    else
        mobike_announce(sa);
}

static void reconsider(struct ike_sa *sa)
{
    struct ike_engine *e = sa->e;
    struct ip local;
    bool gone = !own_address(e, &sa->path.local.ip);
    if (sa->state != SA_UP || !sa->run)
        return;
    if (!gone && (!sa->mobike.on || !sa->mobike.decides)) { /* a gateway has many of these: no look at the routes */
        mobike_tell(sa);
        return;
    }
    bool can = source_to(e, &sa->path.remote.ip, &sa->path.local.ip, &local);
    if (sa->mobike.on)
        follow_host(sa, can, &local);
    else if (can && sa->mobike.decides && !ip_equal(&local, &sa->path.local.ip))
        start_anew(sa, &local);
}

static bool same_addresses(const struct ike_engine *e, const struct ip *list, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (!own_address(e, &list[i]))
            return false;
    return n == e->address_count;
}

static void roam_some(struct ike_engine *e)
{
    for (unsigned i = 0; e->roaming && !e->stopping && i < ROAM_AT_ONCE; i++) {
        struct ike_sa *sa = e->roaming;
        e->roaming = sa->next; /* before it can go; sa.c looks after this one */
        reconsider(sa);
    }
    if (e->roaming && !e->stopping)
        timer_set(&e->timers, &e->roam, e->now);
}

void roam_fire(struct timer *t, void *ctx, ns_t now)
{
    (void)t;
    (void)now;
    roam_some(ctx);
}

void ike_addresses(struct ike_engine *e, const struct ip *list, unsigned n, ns_t now)
{
    e->now = now;
    n = n < IKE_ADDRESSES ? n : IKE_ADDRESSES;
    if (!same_addresses(e, list, n)) {
        memcpy(e->addresses, list, n * sizeof *list);
        e->address_count = n;
        e->address_version++;
    }
    e->roaming = e->sas;
    roam_some(e);
    engine_leave(e);
}
