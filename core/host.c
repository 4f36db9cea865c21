#include "core/host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/mtu.h"
#include "policy/bypass.h"
#include "tun/device.h"
#include "tun/netlink.h"
#include "tun/udp.h"

#define TXQUEUELEN 2000    /* packets; the default of 500 drops in bursts of superpackets */
#define RANGE_PREFIXES 256 /* most prefixes of one selector's range */

struct route {
    struct netlink_prefix to;
    struct ip src; /* family 0: the kernel's choice */
};

struct routes {
    struct route *v;
    unsigned n, cap;
};

/* What a configuration wants of our routing table. */
struct wanted {
    struct routes tun, throws;
};

struct socket_slot {
    unsigned worker;
    struct worker_socket s;
};

struct host_state {
    struct netlink *netlink;
    struct tun *tun;
    struct routes routes, throws;
    struct netlink_prefix addresses[CONFIG_ADDRESSES];
    unsigned address_count;
    struct socket_slot sockets[WORKER_SOCKETS * SAD_WORKERS];
    unsigned socket_count, workers, mtu;
    bool rules4, rules6, default4, default6; /* which rules are there */
    char why[256];
};

static bool prefix_same(const struct netlink_prefix *a, const struct netlink_prefix *b)
{
    return a->bits == b->bits && ip_equal(&a->ip, &b->ip);
}

/* -- routes -- */

static struct route *routes_find(const struct routes *r, const struct netlink_prefix *to)
{
    for (unsigned i = 0; i < r->n; i++)
        if (prefix_same(&r->v[i].to, to))
            return &r->v[i];
    return NULL;
}

static enum err routes_add(struct routes *r, const struct route *route)
{
    if (routes_find(r, &route->to))
        return OK;
    if (r->n == r->cap) {
        unsigned cap = r->cap ? r->cap * 2 : 16;
        struct route *v = realloc(r->v, cap * sizeof *v);
        if (!v)
            return ERR_NOMEM;
        r->v = v;
        r->cap = cap;
    }
    r->v[r->n++] = *route;
    return OK;
}

static void routes_free(struct routes *r)
{
    free(r->v);
    *r = (struct routes){0};
}

/*
 * The address that the host's own packets into a policy shall have: one of the TUN's, else any of the host's that the
 * policy covers. A policy that covers everything says nothing about it.
 */
static struct ip route_source(struct host_state *h, const struct config *c, const struct policy *p, uint8_t family)
{
    struct ip src = {0};
    for (unsigned i = 0; i < p->local.n; i++) {
        const struct ip_range *r = &p->local.v[i].range;
        if (r->first.family != family)
            continue;
        for (unsigned a = 0; a < c->host.addresses; a++)
            if (range_contains(r, &c->host.address[a].ip))
                return c->host.address[a].ip;
        struct prefix whole;
        if (range_prefix(r, &whole) == OK && whole.bits == 0)
            continue;
        if (netlink_local_address(h->netlink, &r->first, &r->last, &src) == OK)
            return src;
    }
    return (struct ip){0};
}

static enum err routes_of_policy(struct host_state *h, const struct config *c, const struct policy *p,
                                 struct routes *out)
{
    for (unsigned i = 0; i < p->remote.n; i++) {
        const struct ip_range *r = &p->remote.v[i].range;
        struct prefix v[RANGE_PREFIXES];
        unsigned n;
        enum err e = range_prefixes(r, v, RANGE_PREFIXES, &n);
        if (e != OK) {
            char text[RANGE_TEXT];
            snprintf(h->why, sizeof h->why, "policy %s: routes for %s: %s", p->name, range_format(r, text),
                     err_text(e));
            return e;
        }
        struct ip src = route_source(h, c, p, r->first.family);
        for (unsigned k = 0; k < n; k++) {
            struct route route = {{v[k].ip, v[k].bits}, src};
            TRY(routes_add(out, &route));
        }
    }
    return OK;
}

/* Adds the throw routes for one range that bypasses, as far as this route to the TUN leads there. */
static enum err throws_within(const struct ip_range *clear, const struct ip_range *to, struct routes *out)
{
    struct ip_range both;
    struct prefix v[RANGE_PREFIXES];
    unsigned n;
    if (!range_intersect(clear, to, &both))
        return OK;
    TRY(range_prefixes(&both, v, RANGE_PREFIXES, &n));
    for (unsigned i = 0; i < n; i++)
        TRY(routes_add(out, &(struct route){.to = {v[i].ip, v[i].bits}}));
    return OK;
}

/*
 * What bypasses comes out of the routes to the TUN: such a route goes if all of it does, since it would win over a
 * shorter throw route, and gets throw routes beneath it otherwise.
 */
static enum err routes_bypass(const struct ip_ranges *clear, struct wanted *w)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < w->tun.n; i++) {
        struct route route = w->tun.v[i];
        struct ip_range to = prefix_range(&(struct prefix){route.to.ip, route.to.bits});
        bool whole = false;
        for (unsigned k = 0; k < clear->n && !whole; k++)
            whole = range_within(&to, &clear->v[k]);
        if (whole)
            continue;
        w->tun.v[kept++] = route;
        for (unsigned k = 0; k < clear->n; k++)
            TRY(throws_within(&clear->v[k], &to, &w->throws));
    }
    w->tun.n = kept;
    return OK;
}

static enum err wanted_of(struct host_state *h, const struct config *c, struct wanted *out)
{
    if (!c->host.routes)
        return OK;
    for (unsigned i = 0; i < c->policy_count; i++)
        if (c->policies[i]->action == ACTION_PROTECT)
            TRY(routes_of_policy(h, c, c->policies[i], &out->tun));
    struct ip_ranges clear;
    enum err e = bypass_ranges(c, &clear);
    if (e == OK)
        e = routes_bypass(&clear, out);
    ip_ranges_free(&clear);
    return e;
}

static void wanted_free(struct wanted *w)
{
    routes_free(&w->tun);
    routes_free(&w->throws);
}

static enum err netlink_failed(struct host_state *h, enum err e, const char *what, const struct netlink_prefix *p)
{
    char text[PREFIX_TEXT] = "";
    if (p)
        prefix_format(&(struct prefix){p->ip, p->bits}, text);
    snprintf(h->why, sizeof h->why, "%s%s%s: %s", what, p ? " " : "", text, netlink_why(h->netlink));
    return e;
}

/* The rules that lead to our table, for the IP versions that these routes have. */
static enum err rules_for(struct host_state *h, const struct routes *r)
{
    bool want[2] = {false, false}, deflt[2] = {false, false};
    for (unsigned i = 0; i < r->n; i++) {
        bool six = r->v[i].to.ip.family == 6;
        want[six] = true;
        deflt[six] = deflt[six] || r->v[i].to.bits == 0;
    }
    bool *have[2] = {&h->rules4, &h->rules6}, *have_default[2] = {&h->default4, &h->default6};
    for (int six = 0; six < 2; six++) {
        if (!want[six] || (*have[six] && (*have_default[six] || !deflt[six])))
            continue;
        enum err e = netlink_rules_add(h->netlink, six ? 6 : 4, deflt[six]);
        if (e != OK)
            return netlink_failed(h, e, six ? "routing rules for IPv6" : "routing rules for IPv4", NULL);
        *have[six] = true;
        *have_default[six] = *have_default[six] || deflt[six];
    }
    return OK;
}

/* Adds to the host those of `want` that h does not have yet, all or none, and sets the others' source address. */
static enum err routes_install(struct host_state *h, const struct routes *want)
{
    int ifindex = tun_ifindex(h->tun);
    unsigned before = h->routes.n;
    enum err e = OK;
    for (unsigned i = 0; i < want->n && e == OK; i++) {
        struct route *have = routes_find(&h->routes, &want->v[i].to);
        if (have && ip_equal(&have->src, &want->v[i].src))
            continue;
        e = netlink_route_add(h->netlink, ifindex, &want->v[i].to, &want->v[i].src);
        if (e != OK)
            netlink_failed(h, e, "route", &want->v[i].to);
        else if (have)
            have->src = want->v[i].src;
        else
            e = routes_add(&h->routes, &want->v[i]);
    }
    if (e == OK)
        e = rules_for(h, want);
    while (e != OK && h->routes.n > before) {
        h->routes.n--;
        enum err undo = netlink_route_del(h->netlink, ifindex, &h->routes.v[h->routes.n].to);
        if (undo != OK)
            log_line(LOG_WARN, "core", "a route could not be taken back: %s", netlink_why(h->netlink));
    }
    return e;
}

/* Adds those throw routes of `want` that h does not have yet. Stops at the first failure. */
static enum err throws_install(struct host_state *h, const struct routes *want)
{
    for (unsigned i = 0; i < want->n; i++) {
        if (routes_find(&h->throws, &want->v[i].to))
            continue;
        enum err e = netlink_throw_add(h->netlink, &want->v[i].to);
        if (e != OK)
            return netlink_failed(h, e, "throw route", &want->v[i].to);
        TRY(routes_add(&h->throws, &want->v[i]));
    }
    return OK;
}

/* -- addresses -- */

static enum err addresses_install(struct host_state *h, const struct config *c)
{
    for (unsigned i = 0; i < c->host.addresses; i++) {
        struct netlink_prefix p = {c->host.address[i].ip, c->host.address[i].bits};
        bool have = false;
        for (unsigned k = 0; k < h->address_count && !have; k++)
            have = prefix_same(&h->addresses[k], &p);
        if (have || h->address_count == CONFIG_ADDRESSES)
            continue;
        enum err e = netlink_address_add(h->netlink, tun_ifindex(h->tun), &p);
        if (e != OK)
            return netlink_failed(h, e, "address", &p);
        h->addresses[h->address_count++] = p;
    }
    return OK;
}

/* -- sockets -- */

static enum err socket_open(struct host_state *h, unsigned worker, const struct ip *ip, uint16_t port)
{
    if (h->socket_count == sizeof h->sockets / sizeof h->sockets[0])
        return ERR_FULL;
    struct udp_options o = {.local = {*ip, port}, .reuseport = h->workers > 1, .mark = true, .gro = true};
    struct socket_slot *slot = &h->sockets[h->socket_count];
    TRY(udp_open(&o, &slot->s.fd, h->why, sizeof h->why));
    /* Port 500 alone carries IKE without the marker (RFC 3948 section 2.2); any other port is a NAT-T port. */
    slot->s.local = o.local;
    slot->s.marker = port != 500;
    slot->worker = worker;
    h->socket_count++;
    return OK;
}

/* A group of sockets, one for each worker, in the workers' order: the steering filter counts on it. */
static enum err socket_group(struct host_state *h, const struct ip *ip, uint16_t port)
{
    unsigned first = h->socket_count;
    for (unsigned w = 0; w < h->workers; w++)
        TRY(socket_open(h, w, ip, port));
    if (h->workers > 1) {
        enum err e = udp_steer(h->sockets[first].s.fd, h->workers);
        if (e != OK)
            snprintf(h->why, sizeof h->why, "steering of port %u: %s", port, strerror(errno));
        return e;
    }
    return OK;
}

static enum err socket_ports(struct host_state *h, const struct config *c, const struct ip *ip)
{
    if (c->host.port)
        TRY(socket_group(h, ip, c->host.port));
    if (c->host.nat_port && c->host.nat_port != c->host.port)
        TRY(socket_group(h, ip, c->host.nat_port));
    return OK;
}

static enum err sockets_open(struct host_state *h, const struct config *c)
{
    for (unsigned i = 0; i < c->host.listens; i++)
        TRY(socket_ports(h, c, &c->host.listen[i]));
    if (c->host.listens)
        return OK;
    const struct ip any4 = {.family = 4}, any6 = {.family = 6};
    TRY(socket_ports(h, c, &any4));
    unsigned before = h->socket_count;
    enum err e = socket_ports(h, c, &any6);
    if (e != ERR_SYSTEM)
        return e;
    /* A host without IPv6 is no reason not to start. */
    log_line(LOG_INFO, "core", "no IPv6 here (%s): IPv4 only", h->why);
    while (h->socket_count > before)
        close(h->sockets[--h->socket_count].s.fd);
    return OK;
}

/* -- all of it -- */

static enum err link_up(struct host_state *h, const struct config *c)
{
    h->mtu = c->host.mtu ? c->host.mtu : mtu_for(c, NULL);
    enum err e = netlink_link_up(h->netlink, tun_ifindex(h->tun), h->mtu, TXQUEUELEN);
    if (e != OK)
        return netlink_failed(h, e, "link", NULL);
    TRY(addresses_install(h, c));
    struct wanted want = {0};
    e = wanted_of(h, c, &want);
    if (e == OK)
        e = routes_install(h, &want.tun);
    if (e == OK)
        e = throws_install(h, &want.throws);
    wanted_free(&want);
    return e;
}

static enum err host_steps(struct host_state *h, const struct config *c)
{
    enum err e = netlink_open(&h->netlink);
    if (e != OK) {
        snprintf(h->why, sizeof h->why, "netlink: %s", err_text(e));
        return e;
    }
    TRY(tun_open(c->host.tun, h->workers, &h->tun, h->why, sizeof h->why));
    /* Sockets before routes: nothing shall disappear into a tunnel that then can't come up. */
    TRY(sockets_open(h, c));
    TRY(link_up(h, c));
    netlink_sweep(h->netlink);
    return OK;
}

enum err host_up(struct host_state **out, const struct config *c, unsigned workers, char *why, size_t why_size)
{
    struct host_state *h = calloc(1, sizeof *h);
    if (!h) {
        snprintf(why, why_size, "%s", err_text(ERR_NOMEM));
        return ERR_NOMEM;
    }
    h->workers = workers;
    enum err e = host_steps(h, c);
    if (e != OK) {
        snprintf(why, why_size, "%s", h->why[0] ? h->why : err_text(e));
        host_down(h);
        return e;
    }
    *out = h;
    return OK;
}

void host_down(struct host_state *h)
{
    if (!h)
        return;
    if (h->netlink) {
        netlink_undo(h->netlink);
        netlink_close(h->netlink);
    }
    for (unsigned i = 0; i < h->socket_count; i++)
        close(h->sockets[i].s.fd);
    tun_close(h->tun);
    routes_free(&h->routes);
    routes_free(&h->throws);
    free(h);
}

void host_worker(const struct host_state *h, unsigned i, struct worker_params *p)
{
    p->tun_fd = tun_fd(h->tun, i);
    p->uso = tun_has_uso(h->tun);
    p->socket_count = 0;
    for (unsigned k = 0; k < h->socket_count && p->socket_count < WORKER_SOCKETS; k++)
        if (h->sockets[k].worker == i)
            p->sockets[p->socket_count++] = h->sockets[k].s;
}

int host_socket(const struct host_state *h, const struct path *path)
{
    int any = -1;
    for (unsigned i = 0; i < h->socket_count; i++) {
        const struct socket_slot *s = &h->sockets[i];
        if (s->worker != 0 || s->s.local.ip.family != path->remote.ip.family || s->s.local.port != path->local.port)
            continue;
        if (ip_equal(&s->s.local.ip, &path->local.ip))
            return s->s.fd;
        if (ip_is_any(&s->s.local.ip))
            any = s->s.fd;
    }
    return any;
}

static bool listens_at(const struct config *c, const struct ip *ip)
{
    for (unsigned i = 0; i < c->host.listens; i++)
        if (ip_equal(&c->host.listen[i], ip))
            return true;
    return c->host.listens == 0;
}

/* What the routes say, unless the sockets are bound to other addresses. */
static bool source_of(const struct host_state *h, const struct config *c, const struct endpoint *remote,
                      struct endpoint *local)
{
    unsigned mtu;
    if (udp_route(remote, true, &local->ip, &mtu) != OK)
        return false;
    if (c->host.listens && listens_at(c, &local->ip))
        return true;
    for (unsigned i = 0; i < c->host.listens; i++)
        if (c->host.listen[i].family == local->ip.family) {
            local->ip = c->host.listen[i];
            break;
        }
    struct path path = {.local = *local, .remote = *remote};
    return host_socket(h, &path) >= 0;
}

bool host_local(const struct host_state *h, const struct config *c, const struct endpoint *to, struct endpoint *local)
{
    if (!to->ip.family)
        return false;
    local->port = to->port != IKE_PORT || c->host.port != IKE_PORT ? c->host.nat_port : c->host.port;
    return source_of(h, c, to, local);
}

bool host_source(const struct host_state *h, const struct config *c, const struct ip *remote, struct ip *local)
{
    struct endpoint to = {.ip = *remote}, from = {.port = c->host.nat_port};
    bool ok = source_of(h, c, &to, &from);
    *local = from.ip;
    return ok;
}

enum err host_addresses(struct host_state *h, const struct config *c, struct ip *out, unsigned cap, unsigned *count)
{
    unsigned n;
    *count = 0;
    TRY(netlink_addresses(h->netlink, tun_ifindex(h->tun), out, cap, &n));
    for (unsigned i = 0; i < n; i++)
        if (listens_at(c, &out[i]))
            out[(*count)++] = out[i];
    return OK;
}

/* -- another configuration -- */

enum err host_extend(struct host_state *h, const struct config *c, char *why, size_t why_size)
{
    struct wanted want = {0};
    h->why[0] = 0;
    enum err e = addresses_install(h, c);
    if (e == OK)
        e = wanted_of(h, c, &want);
    if (e == OK)
        e = routes_install(h, &want.tun);
    wanted_free(&want);
    if (e != OK)
        snprintf(why, why_size, "%s", h->why[0] ? h->why : err_text(e));
    return e;
}

/* Takes those of `have` away that `want` does not have. */
static void routes_remove(struct host_state *h, struct routes *have, const struct routes *want)
{
    for (unsigned i = 0; i < have->n;) {
        const struct netlink_prefix to = have->v[i].to;
        if (routes_find(want, &to)) {
            i++;
            continue;
        }
        enum err e = have == &h->throws ? netlink_throw_del(h->netlink, &to)
                                        : netlink_route_del(h->netlink, tun_ifindex(h->tun), &to);
        if (e != OK)
            log_line(LOG_WARN, "core", "a route could not be taken away: %s", netlink_why(h->netlink));
        have->v[i] = have->v[--have->n];
    }
}

void host_reroute(struct host_state *h, const struct config *c)
{
    struct wanted want = {0};
    if (wanted_of(h, c, &want) == OK) {
        routes_remove(h, &h->throws, &want.throws);
        routes_remove(h, &h->routes, &want.tun);
        if (routes_install(h, &want.tun) != OK)
            log_line(LOG_WARN, "core", "not all routes to the tunnel are as they should be: %s", h->why);
        if (throws_install(h, &want.throws) != OK)
            log_line(LOG_WARN, "core", "what shall bypass the tunnel there is dropped: %s", h->why);
    }
    wanted_free(&want);
}

void host_settle(struct host_state *h, const struct config *c, const struct ike_engine *e)
{
    host_reroute(h, c);
    unsigned mtu = c->host.mtu ? c->host.mtu : mtu_for(c, e);
    if (mtu == h->mtu)
        return;
    if (netlink_set_mtu(h->netlink, tun_ifindex(h->tun), mtu) == OK)
        h->mtu = mtu;
    else
        log_line(LOG_WARN, "core", "MTU %u: %s", mtu, netlink_why(h->netlink));
}

/* -- status -- */

unsigned host_mtu(const struct host_state *h)
{
    return h->mtu;
}

const char *host_tun_name(const struct host_state *h)
{
    return tun_name(h->tun);
}

bool host_uso(const struct host_state *h)
{
    return tun_has_uso(h->tun);
}

unsigned host_socket_count(const struct host_state *h)
{
    unsigned n = 0;
    for (unsigned i = 0; i < h->socket_count; i++)
        n += h->sockets[i].worker == 0;
    return n;
}

const struct endpoint *host_socket_at(const struct host_state *h, unsigned i)
{
    for (unsigned k = 0; k < h->socket_count; k++)
        if (h->sockets[k].worker == 0 && i-- == 0)
            return &h->sockets[k].s.local;
    return NULL;
}

unsigned host_route_count(const struct host_state *h)
{
    return h->routes.n;
}

void host_route_at(const struct host_state *h, unsigned i, struct prefix *out)
{
    *out = (struct prefix){h->routes.v[i].to.ip, h->routes.v[i].to.bits};
}
