#include "core/routes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/hash.h"
#include "policy/bypass.h"
#include "policy/overlap.h"

#define RANGE_PREFIXES 256 /* most prefixes of one selector's range */

struct route {
    struct hash_link by_prefix;
    struct netlink_prefix to;
    struct ip src; /* family 0: the kernel's choice */
    bool lost;     /* perhaps it is not there any more */
    bool open;     /* to the TUN, and no unreachable one beneath: all policies for it have fail-open */
};

struct set {
    struct hash by_prefix;
    struct route **v;
    unsigned n, cap;
};

/* What a configuration wants of our routing table. */
struct want {
    const struct config *config;
    struct overlaps clear; /* what bypasses, as far as routes can say it */
    struct ip *sources;    /* addresses of this host */
    unsigned source_count;
    struct set tun, throws;
};

enum stage { IDLE, WANT, THROWS_OUT, ROUTES_OUT, ROUTES_IN, THROWS_IN };

struct routes {
    struct netlink *netlink;
    int ifindex;
    struct set tun, throws;
    bool rules[2], defaults[2]; /* which rules are there, for IPv4 and IPv6 */
    struct want wants[2];       /* of the configuration in force, and of the one that routes_extend is for */
    unsigned now;               /* which of them is in force */
    bool extending;             /* and the other one is not */
    unsigned extended;          /* items of that done: policies, then routes */
    unsigned before;            /* routes that were there when it was begun */
    enum stage stage;
    unsigned at; /* next item of the stage: of what goes, one more than its index */
    bool told;   /* of a failure in this stage */
    bool again;  /* from the start once it is through */
    char why[256];
};

static struct want *want_now(struct routes *r)
{
    return &r->wants[r->now];
}

static struct want *want_next(struct routes *r)
{
    return &r->wants[!r->now];
}

/* -- sets -- */

static struct route *set_find(const struct set *s, const struct netlink_prefix *to)
{
    for (struct hash_link *l = hash_find(&s->by_prefix, netlink_prefix_key(to)); l; l = hash_next(l)) {
        struct route *route = CONTAINER_OF(l, struct route, by_prefix);
        if (netlink_prefix_equal(&route->to, to))
            return route;
    }
    return NULL;
}

/* One of a prefix that is not there yet. */
static enum err set_add(struct set *s, const struct netlink_prefix *to, const struct ip *src)
{
    if (s->n == s->cap) {
        unsigned cap = s->cap ? s->cap * 2 : 16;
        struct route **v = realloc(s->v, cap * sizeof(struct route *));
        if (!v)
            return ERR_NOMEM;
        s->v = v;
        s->cap = cap;
    }
    struct route *route = calloc(1, sizeof *route);
    if (!route)
        return ERR_NOMEM;
    route->to = *to;
    route->src = *src;
    hash_add(&s->by_prefix, &route->by_prefix, netlink_prefix_key(to));
    s->v[s->n++] = route;
    return OK;
}

static void set_remove(struct set *s, unsigned i)
{
    hash_remove(&s->by_prefix, &s->v[i]->by_prefix);
    free(s->v[i]);
    s->v[i] = s->v[--s->n];
}

static void set_free(struct set *s)
{
    while (s->n)
        set_remove(s, s->n - 1);
    hash_free(&s->by_prefix);
    free(s->v);
    *s = (struct set){0};
}

/* -- what is wanted -- */

/*
 * The address that the host's own packets into a policy shall have: one of the TUN's, else any of the host's that the
 * policy covers. A policy that covers everything says nothing about it.
 */
static struct ip source_for(const struct want *w, const struct policy *p, uint8_t family)
{
    const struct host *host = &w->config->host;
    for (unsigned i = 0; i < p->local.n; i++) {
        const struct ip_range *r = &p->local.v[i].range;
        struct prefix whole;
        if (r->first.family != family)
            continue;
        for (unsigned a = 0; a < host->addresses; a++)
            if (range_contains(r, &host->address[a].ip))
                return host->address[a].ip;
        if (range_prefix(r, &whole) == OK && whole.bits == 0)
            continue;
        for (unsigned a = 0; a < w->source_count; a++)
            if (range_contains(r, &w->sources[a]))
                return w->sources[a];
    }
    return (struct ip){0};
}

/* Adds the throw routes for one range that bypasses, as far as the route to the TUN of that range leads there. */
static enum err want_throws(struct want *w, const struct ip_range *clear, const struct ip_range *to)
{
    static const struct ip none = {0};
    struct ip_range both;
    struct prefix v[RANGE_PREFIXES];
    unsigned n;
    if (!range_intersect(clear, to, &both))
        return OK;
    TRY(range_prefixes(&both, v, RANGE_PREFIXES, &n));
    for (unsigned i = 0; i < n; i++) {
        struct netlink_prefix p = {v[i].ip, v[i].bits};
        if (!set_find(&w->throws, &p))
            TRY(set_add(&w->throws, &p, &none));
    }
    return OK;
}

/* A route that is wanted to the TUN, and what bypasses of it. */
struct wanted {
    struct want *w;
    struct ip_range range;
    enum err err;
};

static bool covers(void *ctx, const struct overlap_item *clear)
{
    const struct wanted *to = ctx;
    return range_within(&to->range, &clear->range);
}

static bool add_throws(void *ctx, const struct overlap_item *clear)
{
    struct wanted *to = ctx;
    to->err = want_throws(to->w, &clear->range, &to->range);
    return to->err != OK;
}

/*
 * What bypasses comes out of the routes to the TUN: there is none if all of it does, since it would win over a shorter
 * throw route; else there are throw routes beneath it.
 */
static enum err want_route(struct want *w, const struct prefix *p, const struct ip *src, bool open)
{
    struct netlink_prefix to = {p->ip, p->bits};
    struct wanted wanted = {.w = w, .range = prefix_range(p)};
    struct route *have = set_find(&w->tun, &to);
    if (have) {
        have->open = have->open && open;
        return OK;
    }
    if (overlaps_each(&w->clear, &wanted.range, covers, &wanted))
        return OK;
    TRY(set_add(&w->tun, &to, src));
    w->tun.v[w->tun.n - 1]->open = open;
    (void)overlaps_each(&w->clear, &wanted.range, add_throws, &wanted);
    return wanted.err;
}

static enum err want_policy(struct routes *r, struct want *w, const struct policy *p)
{
    for (unsigned i = 0; p->action == ACTION_PROTECT && i < p->remote.n; i++) {
        const struct ip_range *range = &p->remote.v[i].range;
        struct prefix v[RANGE_PREFIXES];
        unsigned n = 0;
        enum err e = range_prefixes(range, v, RANGE_PREFIXES, &n);
        struct ip src = source_for(w, p, range->first.family);
        for (unsigned k = 0; k < n && e == OK; k++)
            e = want_route(w, &v[k], &src, p->fail_open);
        if (e != OK) {
            char text[RANGE_TEXT];
            snprintf(r->why, sizeof r->why, "policy %s: routes for %s: %s", p->name, range_format(range, text),
                     err_text(e));
            return e;
        }
    }
    return OK;
}

static unsigned want_policies(const struct want *w)
{
    return w->config->host.routes ? w->config->policy_count : 0;
}

static void want_forget(struct want *w)
{
    set_free(&w->tun);
    set_free(&w->throws);
    free(w->sources);
    w->sources = NULL;
    w->source_count = 0;
}

static void want_free(struct want *w)
{
    want_forget(w);
    overlaps_free(&w->clear);
}

static enum err find_clear(struct want *w, const struct config *c)
{
    struct bypass_map *m;
    struct ip_ranges clear = {0};
    TRY(bypass_map_new(&m, c));
    enum err e = bypass_ranges(m, &clear);
    for (unsigned i = 0; i < clear.n && e == OK; i++)
        e = overlaps_add(&w->clear, &clear.v[i], 0, 0);
    overlaps_sort(&w->clear);
    ip_ranges_free(&clear);
    bypass_map_free(m);
    return e;
}

static enum err want_of(struct want *w, const struct config *c)
{
    want_free(w);
    w->config = c;
    return c->host.routes ? find_clear(w, c) : OK;
}

/* -- making it so -- */

static enum err failed(struct routes *r, enum err e, const char *what, const struct netlink_prefix *p)
{
    char text[PREFIX_TEXT] = "";
    if (p)
        prefix_format(&(struct prefix){p->ip, p->bits}, text);
    snprintf(r->why, sizeof r->why, "%s%s%s: %s", what, p ? " " : "", text, netlink_why(r->netlink));
    return e;
}

/* The rules that lead to our table, for the IP versions that these routes have. */
static enum err rules_for(struct routes *r, const struct set *want)
{
    bool any[2] = {false, false}, all[2] = {false, false};
    for (unsigned i = 0; i < want->n; i++) {
        const struct netlink_prefix *to = &want->v[i]->to;
        any[to->ip.family == 6] = true;
        all[to->ip.family == 6] |= to->bits == 0;
    }
    for (int six = 0; six < 2; six++) {
        if (!any[six] || (r->rules[six] && (r->defaults[six] || !all[six])))
            continue;
        enum err e = netlink_rules_add(r->netlink, six ? 6 : 4, all[six]);
        if (e != OK)
            return failed(r, e, six ? "routing rules for IPv6" : "routing rules for IPv4", NULL);
        r->rules[six] = true;
        r->defaults[six] |= all[six];
    }
    return OK;
}

/* Adds one to the TUN, or gives it another source. */
static enum err route_in(struct routes *r, const struct route *want)
{
    struct route *have = set_find(&r->tun, &want->to);
    if (have && !have->lost && have->open == want->open && ip_equal(&have->src, &want->src))
        return OK;
    if (!have)
        TRY(set_add(&r->tun, &want->to, &want->src));
    enum err e = netlink_route_add(r->netlink, r->ifindex, &want->to, &want->src);
    if (e == OK && want->open)
        e = netlink_route_open(r->netlink, &want->to);
    if (e == OK) {
        struct route *now = have ? have : r->tun.v[r->tun.n - 1];
        now->src = want->src;
        now->open = want->open;
        now->lost = false;
    } else if (!have) {
        set_remove(&r->tun, r->tun.n - 1);
    }
    return e == OK ? OK : failed(r, e, "route", &want->to);
}

static enum err throw_in(struct routes *r, const struct route *want)
{
    struct route *have = set_find(&r->throws, &want->to);
    if (have && !have->lost)
        return OK;
    if (!have)
        TRY(set_add(&r->throws, &want->to, &want->src));
    enum err e = netlink_throw_add(r->netlink, &want->to);
    if (e == OK && have)
        have->lost = false;
    if (e != OK && !have)
        set_remove(&r->throws, r->throws.n - 1);
    return e == OK ? OK : failed(r, e, "throw route", &want->to);
}

/* What is gone already is what was wanted. */
static enum err route_out(struct routes *r, const struct netlink_prefix *to)
{
    enum err e = netlink_route_del(r->netlink, r->ifindex, to);
    return e == OK || e == ERR_NOTFOUND ? OK : failed(r, e, "route", to);
}

static enum err throw_out(struct routes *r, const struct netlink_prefix *to)
{
    enum err e = netlink_throw_del(r->netlink, to);
    return e == OK || e == ERR_NOTFOUND ? OK : failed(r, e, "throw route", to);
}

/* Takes the i-th away if it is no longer wanted. */
static enum err unless_wanted(struct routes *r, struct set *have, const struct set *want, unsigned i)
{
    const struct netlink_prefix to = have->v[i]->to;
    if (set_find(want, &to))
        return OK;
    set_remove(have, i);
    return have == &r->throws ? throw_out(r, &to) : route_out(r, &to);
}

/* -- before a configuration is in force -- */

static void take_back(struct routes *r, const struct netlink_prefix *to)
{
    if (route_out(r, to) != OK)
        log_line(LOG_WARN, "core", "not taken back: %s", r->why);
}

/* Adds one that is new; one that fails may be there by half. */
static enum err extend_route(struct routes *r, const struct route *want)
{
    if (set_find(&r->tun, &want->to))
        return OK;
    enum err e = route_in(r, want);
    if (e != OK) {
        char why[sizeof r->why];
        memcpy(why, r->why, sizeof why);
        take_back(r, &want->to);
        memcpy(r->why, why, sizeof why);
    }
    return e;
}

/* One item: what a policy wants, then each route, then the rules. */
static enum err extend(struct routes *r, bool *over)
{
    struct want *w = want_next(r);
    unsigned at = r->extended++, policies = want_policies(w);
    if (at < policies)
        return want_policy(r, w, w->config->policies[at]);
    if (at - policies < w->tun.n)
        return extend_route(r, w->tun.v[at - policies]);
    *over = true;
    return rules_for(r, &w->tun);
}

static enum err extend_failed(struct routes *r, enum err e, char *why, size_t why_size)
{
    snprintf(why, why_size, "%s", r->why[0] ? r->why : err_text(e));
    while (r->tun.n > r->before) {
        take_back(r, &r->tun.v[r->tun.n - 1]->to);
        set_remove(&r->tun, r->tun.n - 1);
    }
    r->extending = false;
    want_free(want_next(r));
    return e;
}

enum err routes_extend_begin(struct routes *r, const struct config *c, char *why, size_t why_size)
{
    struct want *w = want_next(r);
    r->why[0] = 0;
    r->extended = 0;
    r->before = r->tun.n;
    r->extending = true;
    enum err e = want_of(w, c);
    if (e == OK)
        e = netlink_sources(r->netlink, &w->sources, &w->source_count);
    return e == OK ? OK : extend_failed(r, e, why, why_size);
}

enum err routes_extend_some(struct routes *r, ns_t until, bool *over, char *why, size_t why_size)
{
    enum err e = OK;
    *over = false;
    do
        e = extend(r, over);
    while (e == OK && !*over && clock_now() < until);
    return e == OK ? OK : extend_failed(r, e, why, why_size);
}

/* -- in slices -- */

static void enter(struct routes *r, enum stage stage)
{
    r->stage = stage;
    r->told = false;
    r->at = stage == THROWS_OUT ? r->throws.n : stage == ROUTES_OUT ? r->tun.n : 0;
}

static void begin(struct routes *r)
{
    struct want *w = want_now(r);
    want_forget(w);
    r->again = false;
    r->why[0] = 0;
    enter(r, WANT);
    if (netlink_sources(r->netlink, &w->sources, &w->source_count) != OK)
        log_line(LOG_WARN, "core", "routes to the tunnel get no source, since this host's addresses are not known");
}

static void end(struct routes *r)
{
    enter(r, IDLE);
    want_forget(want_now(r));
    if (r->again)
        begin(r);
}

/* The first failure of a stage is told: mostly the others are like it. */
static void tell(struct routes *r, enum err e, const char *what)
{
    if (e == OK)
        return;
    if (!r->why[0])
        snprintf(r->why, sizeof r->why, "%s", err_text(e));
    if (!r->told)
        log_line(LOG_WARN, "core", "%s: %s", what, r->why);
    r->told = true;
}

static void step_want(struct routes *r)
{
    struct want *w = want_now(r);
    if (r->at >= want_policies(w)) {
        enter(r, THROWS_OUT);
        return;
    }
    enum err e = want_policy(r, w, w->config->policies[r->at++]);
    tell(r, e, "the routes to the tunnel stay as they are");
    if (e != OK)
        end(r);
}

static void routes_are_in(struct routes *r)
{
    tell(r, rules_for(r, &want_now(r)->tun), "not all routes to the tunnel are as they should be");
    enter(r, THROWS_IN);
}

/* One item. What shall be protected goes out of the clear first, what shall not goes there last. */
static void step(struct routes *r)
{
    struct want *w = want_now(r);
    switch (r->stage) {
    case IDLE:
        break;
    case WANT:
        step_want(r);
        break;
    case THROWS_OUT:
        if (r->at)
            tell(r, unless_wanted(r, &r->throws, &w->throws, --r->at), "not taken away");
        else
            enter(r, ROUTES_OUT);
        break;
    case ROUTES_OUT:
        if (r->at)
            tell(r, unless_wanted(r, &r->tun, &w->tun, --r->at), "not taken away");
        else
            enter(r, ROUTES_IN);
        break;
    case ROUTES_IN:
        if (r->at < w->tun.n)
            tell(r, route_in(r, w->tun.v[r->at++]), "not all routes to the tunnel are as they should be");
        else
            routes_are_in(r);
        break;
    case THROWS_IN:
        if (r->at < w->throws.n)
            tell(r, throw_in(r, w->throws.v[r->at++]),
                 "what shall bypass the tunnel there goes the long way, through the daemon");
        else
            end(r);
        break;
    }
}

void routes_settle(struct routes *r, const struct config *c)
{
    bool ready = r->extending && want_next(r)->config == c; /* it is known already what c wants */
    r->extending = false;
    if (ready) {
        want_free(want_now(r));
        r->now = !r->now;
        r->again = false;
        r->why[0] = 0;
        enter(r, THROWS_OUT);
    } else {
        want_free(want_next(r));
        tell(r, want_of(want_now(r), c), "what shall bypass the tunnel goes the long way, through the daemon");
        begin(r);
    }
    while (r->stage == WANT || r->stage == THROWS_OUT)
        step(r);
}

void routes_again(struct routes *r)
{
    if (r->stage == IDLE)
        begin(r);
    else
        r->again = true;
}

void routes_lost(struct routes *r)
{
    for (unsigned i = 0; i < r->tun.n; i++)
        r->tun.v[i]->lost = true;
    for (unsigned i = 0; i < r->throws.n; i++)
        r->throws.v[i]->lost = true;
}

bool routes_some(struct routes *r, ns_t until)
{
    if (r->extending) /* what comes is added to what is there: it is settled with that */
        return true;
    do
        step(r);
    while (r->stage != IDLE && clock_now() < until);
    return r->stage == IDLE;
}

const char *routes_why(const struct routes *r)
{
    return r->why;
}

/* -- the handle -- */

enum err routes_new(struct routes **out, struct netlink *n, int ifindex)
{
    struct routes *r = calloc(1, sizeof *r);
    if (!r)
        return ERR_NOMEM;
    r->netlink = n;
    r->ifindex = ifindex;
    *out = r;
    return OK;
}

void routes_free(struct routes *r)
{
    if (!r)
        return;
    want_free(&r->wants[0]);
    want_free(&r->wants[1]);
    set_free(&r->tun);
    set_free(&r->throws);
    free(r);
}

unsigned routes_count(const struct routes *r)
{
    return r->tun.n;
}

void routes_at(const struct routes *r, unsigned i, struct prefix *out)
{
    *out = (struct prefix){r->tun.v[i]->to.ip, r->tun.v[i]->to.bits};
}
