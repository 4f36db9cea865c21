#include "core/host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/firewall.h"
#include "core/mtu.h"
#include "core/routes.h"
#include "policy/bypass.h"
#include "tun/device.h"
#include "tun/netlink.h"
#include "tun/raw.h"
#include "tun/udp.h"
#include "tun/watch.h"

#define TXQUEUELEN 2000 /* packets; the default of 500 drops in bursts of superpackets */

#define SOCKETS (WORKER_SOCKETS * SAD_WORKERS)

struct socket_slot {
    unsigned worker;
    struct worker_socket s;
};

struct host_state {
    struct netlink *netlink;
    struct tun *tun;
    struct routes *routes;
    struct firewall *firewall;
    struct netlink_prefix addresses[CONFIG_ADDRESSES];
    unsigned address_count;
    struct socket_slot sockets[SOCKETS];
    unsigned socket_count, workers, mtu;
    bool ttl;          /* the UDP sockets tell TTLs */
    bool found_closed; /* by what a crash had left */
    bool raw;          /* the sockets for protocols 50 and 51 are there */
    char raw_why[256]; /* or why not */
    char why[256];
};

static enum err netlink_failed(struct host_state *h, enum err e, const char *what, const struct netlink_prefix *p)
{
    char text[PREFIX_TEXT] = "";
    if (p)
        prefix_format(&(struct prefix){p->ip, p->bits}, text);
    snprintf(h->why, sizeof h->why, "%s%s%s: %s", what, p ? " " : "", text, netlink_why(h->netlink));
    return e;
}

/* -- addresses -- */

static void address_remove(struct host_state *h, unsigned i)
{
    if (netlink_address_del(h->netlink, tun_ifindex(h->tun), &h->addresses[i]) != OK)
        log_line(LOG_WARN, "core", "an address could not be taken back: %s", netlink_why(h->netlink));
    routes_lost(h->routes); /* the last address of an IP version takes all routes to its device along */
    h->addresses[i] = h->addresses[--h->address_count];
}

static bool address_listed(const struct config *c, const struct netlink_prefix *p)
{
    for (unsigned i = 0; i < c->host.addresses; i++)
        if (netlink_prefix_equal(&(struct netlink_prefix){c->host.address[i].ip, c->host.address[i].bits}, p))
            return true;
    return false;
}

static enum err addresses_install(struct host_state *h, const struct config *c)
{
    for (unsigned i = 0; i < c->host.addresses; i++) {
        struct netlink_prefix p = {c->host.address[i].ip, c->host.address[i].bits};
        bool have = false;
        for (unsigned k = 0; k < h->address_count && !have; k++)
            have = netlink_prefix_equal(&h->addresses[k], &p);
        if (have || h->address_count == CONFIG_ADDRESSES)
            continue;
        enum err e = netlink_address_add(h->netlink, tun_ifindex(h->tun), &p);
        if (e != OK)
            return netlink_failed(h, e, "address", &p);
        h->addresses[h->address_count++] = p;
    }
    return OK;
}

/* Those that a configuration wanted which did not come into force. */
static void addresses_trim(struct host_state *h, const struct config *c)
{
    for (unsigned i = h->address_count; i-- > 0;)
        if (!address_listed(c, &h->addresses[i]))
            address_remove(h, i);
}

/* -- sockets -- */

static enum err socket_open(struct host_state *h, unsigned worker, const struct ip *ip, uint16_t port)
{
    if (h->socket_count == SOCKETS)
        return ERR_FULL;
    struct udp_options o = {.local = {*ip, port}, .reuseport = h->workers > 1, .mark = true, .gro = true};
    struct socket_slot *slot = &h->sockets[h->socket_count];
    TRY(udp_open(&o, &slot->s.fd, h->why, sizeof h->why));
    /* Port 500 alone carries IKE without the marker (RFC 3948 section 2.2); any other port is a NAT-T port. */
    slot->s.local = o.local;
    slot->s.kind = SOCKET_UDP;
    slot->s.marker = port != 500;
    slot->worker = worker;
    h->socket_count++;
    return OK;
}

static bool wants_df(const struct config *c)
{
    for (unsigned i = 0; i < c->policy_count; i++)
        if (c->policies[i]->outer.df != DF_CLEAR)
            return true;
    return false;
}

/*
 * What leaves with DF, or over IPv6 whole, needs sockets of its own, one for each worker, beside the group at `first`.
 * Without them traffic passes as well, without DF.
 */
static void socket_df(struct host_state *h, const struct config *c, unsigned first, const struct ip *ip, uint16_t port)
{
    struct udp_options o = {.local = {*ip, port}, .mark = true};
    int held[2 * SAD_WORKERS];
    unsigned n = 0;
    for (; n < h->workers; n++)
        held[n] = h->sockets[first + n].s.fd;
    for (unsigned w = 0; w < h->workers && h->socket_count < SOCKETS; w++) {
        struct socket_slot *slot = &h->sockets[h->socket_count];
        *slot = (struct socket_slot){.worker = w, .s = {.local = o.local, .marker = true, .df = true}};
        if (udp_open_df(&o, held, n, &slot->s.fd, h->why, sizeof h->why) != OK) {
            log_line(wants_df(c) ? LOG_WARN : LOG_INFO, "core", "'df' is without effect on port %u over IPv%u: %s",
                     port, ip->family, h->why);
            return;
        }
        held[n++] = slot->s.fd;
        h->socket_count++;
    }
}

/* A group of sockets, one for each worker, in the workers' order: the steering filter counts on it. */
static enum err socket_group(struct host_state *h, const struct config *c, const struct ip *ip, uint16_t port)
{
    unsigned first = h->socket_count;
    for (unsigned w = 0; w < h->workers; w++)
        TRY(socket_open(h, w, ip, port));
    if (h->workers > 1) {
        enum err e = udp_steer(h->sockets[first].s.fd, h->workers);
        if (e != OK) {
            snprintf(h->why, sizeof h->why, "steering of port %u: %s", port, strerror(errno));
            return e;
        }
    }
    if (port != IKE_PORT)
        socket_df(h, c, first, ip, port);
    return OK;
}

static enum err raw_socket(struct host_state *h, unsigned worker, enum worker_socket_kind kind, const struct ip *ip)
{
    if (h->socket_count == sizeof h->sockets / sizeof h->sockets[0])
        return ERR_FULL;
    struct raw_options o = {.local = *ip, .protocol = kind == SOCKET_AH ? RAW_AH : RAW_ESP, .mark = true};
    int fd;
    TRY(raw_open(&o, &fd, h->why, sizeof h->why));
    h->sockets[h->socket_count++] =
        (struct socket_slot){.worker = worker, .s = {.fd = fd, .kind = kind, .local = {.ip = *ip}}};
    return h->workers > 1 ? raw_steer(fd, &o, worker, h->workers) : OK;
}

static void sockets_close(struct host_state *h, unsigned from)
{
    while (h->socket_count > from)
        close(h->sockets[--h->socket_count].s.fd);
}

/* One for each worker at each address that there is UDP at: what is sent leaves by one of them too. */
static enum err raw_sockets(struct host_state *h, enum worker_socket_kind kind)
{
    unsigned udp = h->socket_count, before = udp;
    for (unsigned i = 0; i < udp; i++) {
        const struct ip *ip = &h->sockets[i].s.local.ip;
        bool done = h->sockets[i].worker != 0;
        for (unsigned k = 0; k < i && !done; k++)
            done = ip_equal(&h->sockets[k].s.local.ip, ip);
        enum err e = OK;
        for (unsigned w = 0; w < h->workers && !done && e == OK; w++)
            e = raw_socket(h, w, kind, ip);
        if (e != OK) {
            sockets_close(h, before);
            return e;
        }
    }
    return OK;
}

/* What policy lets pass in the clear may come to the TUN all the same. */
static bool bypass_needs_raw(const struct config *c)
{
    struct bypass_map *m;
    struct ip_range where;
    bool found = false;
    if (!c->host.routes || bypass_map_new(&m, c) != OK)
        return false;
    for (unsigned i = 0; i < c->policy_count && !found; i++)
        found = c->policies[i]->fail_open || bypass_conflict(m, i, &where);
    bypass_map_free(m);
    return found;
}

/* A host that may not have raw sockets still has UDP, which is what peers use as a rule. */
static void raw_open_all(struct host_state *h, const struct config *c)
{
    bool wanted = false;
    unsigned before = h->socket_count;
    h->raw = raw_sockets(h, SOCKET_ESP) == OK && raw_sockets(h, SOCKET_AH) == OK;
    if (h->raw)
        return;
    sockets_close(h, before);
    snprintf(h->raw_why, sizeof h->raw_why, "%s", h->why);
    for (unsigned i = 0; i < c->peer_count; i++)
        wanted = wanted || c->peers[i]->encap == ENCAP_RAW || c->peers[i]->ah;
    log_line(wanted ? LOG_WARN : LOG_INFO, "core",
             "raw ESP and AH (protocols 50 and 51) can neither be received nor sent: %s", h->raw_why);
    if (bypass_needs_raw(c))
        log_line(LOG_WARN, "core",
                 "nor can packets leave in the clear that policies let bypass where no route can say so");
    h->why[0] = 0;
}

static enum err socket_ports(struct host_state *h, const struct config *c, const struct ip *ip)
{
    if (c->host.port)
        TRY(socket_group(h, c, ip, c->host.port));
    if (c->host.nat_port && c->host.nat_port != c->host.port)
        TRY(socket_group(h, c, ip, c->host.nat_port));
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
    sockets_close(h, before);
    return OK;
}

/* -- all of it -- */

/* Before routes, which are what peers' packets come to need it for. */
static enum err firewall_up(struct host_state *h, const struct config *c)
{
    TRY(firewall_new(&h->firewall, tun_name(h->tun)));
    h->found_closed = netlink_left(h->netlink) || firewall_left(h->firewall);
    TRY(firewall_apply(h->firewall, c, h->why, sizeof h->why));
    netlink_keep_strict(h->netlink, firewall_missing(h->firewall) && firewall_strict_fits(c));
    return OK;
}

static enum err link_up(struct host_state *h, const struct config *c)
{
    h->mtu = c->host.mtu ? c->host.mtu : MTU_UNKNOWN;
    enum err e = netlink_link_up(h->netlink, tun_ifindex(h->tun), h->mtu, TXQUEUELEN);
    if (e != OK)
        return netlink_failed(h, e, "link", NULL);
    TRY(addresses_install(h, c));
    TRY(routes_new(&h->routes, h->netlink, tun_ifindex(h->tun)));
    bool over;
    TRY(routes_extend_begin(h->routes, c, h->why, sizeof h->why));
    TRY(routes_extend_some(h->routes, NS_NEVER, &over, h->why, sizeof h->why));
    routes_settle(h->routes, c);
    while (!routes_some(h->routes, NS_NEVER))
        continue;
    snprintf(h->why, sizeof h->why, "%s", routes_why(h->routes));
    return h->why[0] ? ERR_SYSTEM : OK;
}

static enum err host_steps(struct host_state *h, const struct config *c)
{
    enum err e = netlink_open(&h->netlink, c->host.tun);
    if (e != OK) {
        snprintf(h->why, sizeof h->why, "netlink: %s", err_text(e));
        return e;
    }
    TRY(tun_open(c->host.tun, h->workers, &h->tun, h->why, sizeof h->why));
    /* Sockets before routes: nothing shall disappear into a tunnel that then can't come up. */
    TRY(sockets_open(h, c));
    raw_open_all(h, c);
    TRY(firewall_up(h, c));
    TRY(link_up(h, c));
    netlink_sweep(h->netlink);
    firewall_note_others();
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
        host_down(h, HOST_AS_FOUND);
        return e;
    }
    *out = h;
    return OK;
}

void host_down(struct host_state *h, enum host_end end)
{
    if (!h)
        return;
    bool closed = end == HOST_CLOSED || (end == HOST_AS_FOUND && h->found_closed);
    if (closed)
        log_line(LOG_WARN, "core",
                 "what is protected stays closed until a daemon with this configuration has run again");
    if (h->netlink) {
        netlink_undo(h->netlink, closed);
        netlink_close(h->netlink);
    }
    if (h->firewall && !closed)
        firewall_remove(h->firewall);
    firewall_free(h->firewall);
    sockets_close(h, 0);
    tun_close(h->tun);
    routes_free(h->routes);
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

/* IKE is heard there. */
static bool listens(const struct socket_slot *s)
{
    return s->s.kind == SOCKET_UDP && !s->s.df;
}

void host_tell_ttl(struct host_state *h)
{
    for (unsigned i = 0; i < h->socket_count && !h->ttl; i++)
        if (listens(&h->sockets[i]) && udp_tell_ttl(h->sockets[i].s.fd, h->sockets[i].s.local.ip.family) != OK)
            log_line(LOG_WARN, "core", "transport mode in UDP: TTLs of packets can't be seen: %s", strerror(errno));
    h->ttl = true;
}

static int socket_at(const struct host_state *h, const struct path *path, bool df)
{
    int any = -1;
    for (unsigned i = 0; i < h->socket_count; i++) {
        const struct socket_slot *s = &h->sockets[i];
        if (s->worker != 0 || s->s.kind != SOCKET_UDP || s->s.df != df ||
            s->s.local.ip.family != path->remote.ip.family || s->s.local.port != path->local.port)
            continue;
        if (ip_equal(&s->s.local.ip, &path->local.ip))
            return s->s.fd;
        if (ip_is_any(&s->s.local.ip))
            any = s->s.fd;
    }
    return any;
}

int host_socket(const struct host_state *h, const struct path *path)
{
    return socket_at(h, path, false);
}

int host_socket_df(const struct host_state *h, const struct path *path)
{
    return ip_is_any(&path->local.ip) ? -1 : socket_at(h, path, true);
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
                      struct endpoint *local, unsigned *mtu)
{
    *mtu = 0;
    if (udp_route(remote, true, &local->ip, mtu) != OK)
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

bool host_local(const struct host_state *h, const struct config *c, const struct endpoint *to, struct endpoint *local,
                unsigned *mtu)
{
    *mtu = 0;
    if (!to->ip.family)
        return false;
    local->port = to->port != IKE_PORT || c->host.port != IKE_PORT ? c->host.nat_port : c->host.port;
    return source_of(h, c, to, local, mtu);
}

bool host_source(const struct host_state *h, const struct config *c, const struct ip *remote, struct ip *local)
{
    struct endpoint to = {.ip = *remote}, from = {.port = c->host.nat_port};
    unsigned mtu;
    bool ok = source_of(h, c, &to, &from, &mtu);
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

enum err host_filter(struct host_state *h, const struct config *c, char *why, size_t why_size)
{
    return firewall_apply(h->firewall, c, why, why_size);
}

bool host_filter_keep(struct host_state *h)
{
    return firewall_keep(h->firewall);
}

int host_filter_log(const struct host_state *h)
{
    return firewall_log_fd(h->firewall);
}

uint64_t host_filter_dropped(struct host_state *h, bool out)
{
    return firewall_dropped(h->firewall, out);
}

void host_rules_keep(struct host_state *h)
{
    unsigned gone = netlink_rules_keep(h->netlink, h->addresses, h->address_count);
    if (gone)
        log_line(LOG_WARN, "core", "another program has removed %u of the routing rules that lead into the tunnel: %s",
                 gone, gone == 1 ? "it is there again" : "they are there again");
}

unsigned host_news(const struct host_state *h, int fd)
{
    return watch_read(fd, h->netlink, tun_ifindex(h->tun));
}

/* The kernel takes addresses and routes along with a link that is set down, and routes with an address. */
void host_restore(struct host_state *h, unsigned news)
{
    if (news & WATCH_DOWN)
        log_line(LOG_WARN, "core", "another program has set %s down: it is set up again", tun_name(h->tun));
    if (netlink_link_up(h->netlink, tun_ifindex(h->tun), h->mtu, TXQUEUELEN) != OK)
        log_line(LOG_WARN, "core", "%s can't be set up: %s", tun_name(h->tun), netlink_why(h->netlink));
    for (unsigned i = 0; i < h->address_count; i++)
        if (netlink_address_add(h->netlink, tun_ifindex(h->tun), &h->addresses[i]) != OK)
            log_line(LOG_WARN, "core", "an address could not be put back: %s", netlink_why(h->netlink));
    if (news & WATCH_TAKEN)
        log_line(LOG_WARN, "core", "routes into the tunnel were removed: they are put back");
    if (netlink_loosen(h->netlink))
        log_line(LOG_WARN, "core",
                 "a strict reverse-path filter has come up: it is loose now, or the tunnel gets nothing");
    routes_lost(h->routes);
    routes_again(h->routes);
}

enum err host_extend_begin(struct host_state *h, const struct config *c, char *why, size_t why_size)
{
    h->why[0] = 0;
    enum err e = addresses_install(h, c);
    if (e == OK)
        return routes_extend_begin(h->routes, c, why, why_size);
    snprintf(why, why_size, "%s", h->why);
    return e;
}

enum err host_extend_some(struct host_state *h, ns_t until, bool *over, char *why, size_t why_size)
{
    return routes_extend_some(h->routes, until, over, why, why_size);
}

void host_settle(struct host_state *h, const struct config *c)
{
    addresses_trim(h, c);
    if (!firewall_is_of(h->firewall, c) && firewall_apply(h->firewall, c, h->why, sizeof h->why) != OK)
        log_line(LOG_WARN, "core", "%s", h->why);
    routes_settle(h->routes, c);
}

void host_reroute(struct host_state *h)
{
    routes_again(h->routes);
}

bool host_settle_some(struct host_state *h, ns_t until)
{
    return routes_some(h->routes, until);
}

void host_set_mtu(struct host_state *h, unsigned mtu)
{
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

const char *host_firewall(const struct host_state *h)
{
    return firewall_name(h->firewall);
}

bool host_uso(const struct host_state *h)
{
    return tun_has_uso(h->tun);
}

unsigned host_socket_count(const struct host_state *h)
{
    unsigned n = 0;
    for (unsigned i = 0; i < h->socket_count; i++)
        n += h->sockets[i].worker == 0 && listens(&h->sockets[i]);
    return n;
}

const struct endpoint *host_socket_at(const struct host_state *h, unsigned i)
{
    for (unsigned k = 0; k < h->socket_count; k++)
        if (h->sockets[k].worker == 0 && listens(&h->sockets[k]) && i-- == 0)
            return &h->sockets[k].s.local;
    return NULL;
}

bool host_raw(const struct host_state *h, const char **why)
{
    *why = h->raw_why;
    return h->raw;
}

unsigned host_route_count(const struct host_state *h)
{
    return routes_count(h->routes);
}

void host_route_at(const struct host_state *h, unsigned i, struct prefix *out)
{
    routes_at(h->routes, i, out);
}
