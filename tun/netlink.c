#include "tun/netlink.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "core/base/hash.h"
#include "tun/rp_filter.h"
#include "tun/rtnl.h"
#include "tun/udp.h"

/*
 * Worse than what people give to routes by hand. The lower half says whose they are, and is the same at every start of
 * that daemon, so that it finds what a crash has left; an unreachable leftover does not win over a throw route.
 */
#define UNREACHABLE_METRIC 0xff000000u
#define THROW_METRIC 0xfe000000u
#define OWNERS 0x10000u

enum rule_preference { RULE_SEALED = 5188, RULE_SOURCE, RULE_SPECIFIC, RULE_MAIN, RULE_ALL };

enum change_kind { CHANGE_LINK, CHANGE_ADDRESS, CHANGE_UNREACHABLE, CHANGE_ROUTE, CHANGE_THROW, CHANGE_RULE };

struct change {
    enum change_kind kind;
    int ifindex;
    struct netlink_prefix prefix; /* CHANGE_RULE: the source, or family only */
    uint32_t preference;          /* CHANGE_RULE; CHANGE_UNREACHABLE, CHANGE_THROW: the metric */
};

struct entry {
    struct hash_link by_change;
    struct entry *before, *after; /* in the order in which they were made */
    struct change change;
};

struct netlink {
    struct rtnl rtnl;
    uint32_t owner; /* below OWNERS */
    struct rp_filter rp_filter;
    bool keep_strict;    /* reverse-path filters */
    bool loosens;        /* them: there are rules for IPv4 */
    struct hash changes; /* routes come by the ten thousand */
    struct entry *last;
};

/* -- what was changed -- */

bool netlink_prefix_equal(const struct netlink_prefix *a, const struct netlink_prefix *b)
{
    return a->bits == b->bits && ip_equal(&a->ip, &b->ip);
}

uint64_t netlink_prefix_key(const struct netlink_prefix *p)
{
    uint64_t half[2];
    memcpy(half, p->ip.b, sizeof half);
    return (half[0] * 31 + half[1]) * 31 + (uint64_t)p->bits * 8 + p->ip.family;
}

static uint64_t change_key(const struct change *c)
{
    return netlink_prefix_key(&c->prefix) * 31 + c->kind;
}

static struct entry *find_change(const struct netlink *n, const struct change *c)
{
    for (struct hash_link *l = hash_find(&n->changes, change_key(c)); l; l = hash_next(l)) {
        struct entry *have = CONTAINER_OF(l, struct entry, by_change);
        if (have->change.kind == c->kind && have->change.ifindex == c->ifindex &&
            have->change.preference == c->preference && netlink_prefix_equal(&have->change.prefix, &c->prefix))
            return have;
    }
    return NULL;
}

static enum err remember(struct netlink *n, const struct change *c)
{
    if (find_change(n, c))
        return OK;
    struct entry *new = calloc(1, sizeof *new);
    if (!new)
        return ERR_NOMEM;
    new->change = *c;
    new->before = n->last;
    if (n->last)
        n->last->after = new;
    n->last = new;
    hash_add(&n->changes, &new->by_change, change_key(c));
    return OK;
}

static void entry_free(struct netlink *n, struct entry *old)
{
    hash_remove(&n->changes, &old->by_change);
    if (old->before)
        old->before->after = old->after;
    if (old->after)
        old->after->before = old->before;
    else
        n->last = old->before;
    free(old);
}

static void forget(struct netlink *n, const struct change *c)
{
    struct entry *old = find_change(n, c);
    if (old)
        entry_free(n, old);
}

/* -- the handle -- */

/* FNV-1a, folded: with two names for the same number one daemon sweeps what the other's crash has left. */
static uint32_t owner_of(const char *name)
{
    uint32_t h = 2166136261u;
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 16777619u;
    return (h ^ h >> 16) % OWNERS;
}

enum err netlink_open(struct netlink **out, const char *owner)
{
    struct netlink *n = calloc(1, sizeof *n);
    if (!n)
        return ERR_NOMEM;
    n->owner = owner_of(owner);
    enum err e = rtnl_open(&n->rtnl);
    if (e != OK) {
        free(n);
        return e;
    }
    *out = n;
    return OK;
}

void netlink_close(struct netlink *n)
{
    if (!n)
        return;
    rtnl_close(&n->rtnl);
    while (n->last)
        entry_free(n, n->last);
    hash_free(&n->changes);
    free(n);
}

const char *netlink_why(const struct netlink *n)
{
    return n->rtnl.why;
}

/* -- link -- */

static int family_of(uint8_t family)
{
    return family == 6 ? AF_INET6 : AF_INET;
}

/* Without link-local addresses the kernel sends no router solicitations into the tunnel. Best effort. */
static void quieten_ipv6(struct netlink *n, int ifindex)
{
    struct ifinfomsg link = {.ifi_family = AF_UNSPEC, .ifi_index = ifindex};
    uint8_t mode = IN6_ADDR_GEN_MODE_NONE;
    struct rtnl_request q;

    rtnl_begin(&q, RTM_NEWLINK, 0, &link, sizeof link);
    size_t spec = rtnl_nest(&q, IFLA_AF_SPEC);
    size_t inet6 = rtnl_nest(&q, AF_INET6);
    rtnl_attr(&q, IFLA_INET6_ADDR_GEN_MODE, &mode, sizeof mode);
    rtnl_nest_end(&q, inet6);
    rtnl_nest_end(&q, spec);
    if (rtnl_call(&n->rtnl, &q) != OK)
        n->rtnl.why[0] = 0; /* a kernel without IPv6 */
}

enum err netlink_link_up(struct netlink *n, int ifindex, unsigned mtu, unsigned txqueuelen)
{
    struct ifinfomsg link = {.ifi_family = AF_UNSPEC, .ifi_index = ifindex, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct change c = {.kind = CHANGE_LINK, .ifindex = ifindex};
    struct rtnl_request q;

    quieten_ipv6(n, ifindex);
    TRY(remember(n, &c));
    rtnl_begin(&q, RTM_NEWLINK, 0, &link, sizeof link);
    rtnl_attr_u32(&q, IFLA_MTU, mtu);
    rtnl_attr_u32(&q, IFLA_TXQLEN, txqueuelen);
    enum err e = rtnl_call(&n->rtnl, &q);
    if (e != OK)
        forget(n, &c);
    return e;
}

static enum err link_down(struct netlink *n, int ifindex)
{
    struct ifinfomsg link = {.ifi_family = AF_UNSPEC, .ifi_index = ifindex, .ifi_change = IFF_UP};
    struct rtnl_request q;
    rtnl_begin(&q, RTM_NEWLINK, 0, &link, sizeof link);
    return rtnl_call(&n->rtnl, &q);
}

enum err netlink_set_mtu(struct netlink *n, int ifindex, unsigned mtu)
{
    struct ifinfomsg link = {.ifi_family = AF_UNSPEC, .ifi_index = ifindex};
    struct rtnl_request q;
    rtnl_begin(&q, RTM_NEWLINK, 0, &link, sizeof link);
    rtnl_attr_u32(&q, IFLA_MTU, mtu);
    return rtnl_call(&n->rtnl, &q);
}

/* -- addresses -- */

static enum err address_request(struct netlink *n, const struct change *c, uint16_t type, uint16_t flags)
{
    unsigned len = ip_len(c->prefix.ip.family);
    struct ifaddrmsg address = {
        .ifa_family = (uint8_t)family_of(c->prefix.ip.family),
        .ifa_prefixlen = c->prefix.bits,
        .ifa_index = (unsigned)c->ifindex,
    };
    struct rtnl_request q;
    rtnl_begin(&q, type, flags, &address, sizeof address);
    rtnl_attr(&q, IFA_LOCAL, c->prefix.ip.b, len);
    rtnl_attr(&q, IFA_ADDRESS, c->prefix.ip.b, len);
    if (c->prefix.ip.family == 6)
        rtnl_attr_u32(&q, IFA_FLAGS, IFA_F_NODAD); /* nobody else is on this link */
    return rtnl_call(&n->rtnl, &q);
}

/* IFA_ADDRESS is the other end on a point-to-point link; IFA_LOCAL, where there is one, is ours. */
static bool address_of(struct span message, struct ifaddrmsg *body, uint32_t unfit, struct ip *out)
{
    if (!rtnl_body(message, body, sizeof *body) ||
        (rtnl_find_u32(message, sizeof *body, IFA_FLAGS, body->ifa_flags) & unfit))
        return false;
    uint8_t family = body->ifa_family == AF_INET6 ? 6 : 4;
    struct span a = rtnl_find(message, sizeof *body, IFA_LOCAL);
    if (a.len == 0)
        a = rtnl_find(message, sizeof *body, IFA_ADDRESS);
    if (a.len != ip_len(family))
        return false;
    *out = ip_from_bytes(family, a.data);
    return true;
}

static enum err dump_addresses(struct netlink *n, struct buf *out)
{
    struct ifaddrmsg body = {.ifa_family = AF_UNSPEC};
    struct rtnl_request q;
    rtnl_begin(&q, RTM_GETADDR, 0, &body, sizeof body);
    return rtnl_dump(&n->rtnl, &q, out);
}

enum err netlink_sources(struct netlink *n, struct ip **out, unsigned *count)
{
    struct buf dump = {0};
    struct ifaddrmsg body;
    struct span all, message;
    unsigned most = 0, found = 0;
    *out = NULL;
    *count = 0;
    enum err e = dump_addresses(n, &dump);
    for (all = buf_span(&dump); e == OK && rtnl_next(&all, &message);)
        most++;
    struct ip *v = most ? calloc(most, sizeof *v) : NULL;
    if (most && !v)
        e = ERR_NOMEM;
    for (all = buf_span(&dump); e == OK && rtnl_next(&all, &message);)
        found += address_of(message, &body, IFA_F_TENTATIVE | IFA_F_DADFAILED, &v[found]);
    buf_free(&dump);
    if (e != OK) {
        free(v);
        return e == ERR_NOMEM ? e : ERR_SYSTEM;
    }
    *out = v;
    *count = found;
    return OK;
}

struct links { /* those that carry packets */
    unsigned index[1024], n;
};

static bool link_works(const struct links *l, unsigned index)
{
    for (unsigned i = 0; i < l->n; i++)
        if (l->index[i] == index)
            return true;
    return false;
}

static enum err working_links(struct netlink *n, int tun, struct links *out)
{
    struct ifinfomsg body = {.ifi_family = AF_UNSPEC};
    struct rtnl_request q;
    struct buf dump = {0};
    rtnl_begin(&q, RTM_GETLINK, 0, &body, sizeof body);
    enum err e = rtnl_dump(&n->rtnl, &q, &dump);
    struct span all = buf_span(&dump), message;
    out->n = 0;
    while (e == OK && rtnl_next(&all, &message)) {
        if (!rtnl_body(message, &body, sizeof body) || body.ifi_index == tun || !(body.ifi_flags & IFF_UP) ||
            !(body.ifi_flags & IFF_RUNNING))
            continue;
        if (out->n == sizeof out->index / sizeof *out->index)
            e = ERR_FULL;
        else
            out->index[out->n++] = (unsigned)body.ifi_index;
    }
    buf_free(&dump);
    return e;
}

static bool address_usable(struct span message, const struct links *links, struct ip *out)
{
    struct ifaddrmsg body;
    return address_of(message, &body, IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_DEPRECATED, out) &&
           body.ifa_scope == RT_SCOPE_UNIVERSE && link_works(links, body.ifa_index);
}

enum err netlink_addresses(struct netlink *n, int tun, struct ip *out, unsigned cap, unsigned *count)
{
    struct buf dump = {0};
    struct links links;
    *count = 0;
    TRY(working_links(n, tun, &links));
    enum err e = dump_addresses(n, &dump);
    struct span all = buf_span(&dump), message;
    while (e == OK && rtnl_next(&all, &message)) {
        struct ip ip;
        if (!address_usable(message, &links, &ip))
            continue;
        if (*count == cap)
            e = ERR_FULL;
        else
            out[(*count)++] = ip;
    }
    buf_free(&dump);
    return e;
}

/* -- routes -- */

static void route_begin(struct rtnl_request *q, const struct change *c, uint16_t type, uint16_t flags)
{
    bool to_tun = c->kind == CHANGE_ROUTE;
    struct rtmsg route = {
        .rtm_family = (uint8_t)family_of(c->prefix.ip.family),
        .rtm_dst_len = c->prefix.bits,
        .rtm_table = RT_TABLE_UNSPEC, /* the number is over 255: RTA_TABLE has it */
        .rtm_protocol = ROUTE_PROTOCOL,
        .rtm_scope = to_tun ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE,
        .rtm_type = to_tun                    ? RTN_UNICAST
                    : c->kind == CHANGE_THROW ? RTN_THROW
                                              : RTN_UNREACHABLE,
    };
    rtnl_begin(q, type, flags, &route, sizeof route);
    rtnl_attr(q, RTA_DST, c->prefix.ip.b, ip_len(c->prefix.ip.family));
    rtnl_attr_u32(q, RTA_TABLE, ROUTE_TABLE);
    if (to_tun)
        rtnl_attr_u32(q, RTA_OIF, (uint32_t)c->ifindex);
    else
        rtnl_attr_u32(q, RTA_PRIORITY, c->preference);
}

static struct change beneath(const struct netlink *n, const struct netlink_prefix *p)
{
    return (struct change){.kind = CHANGE_UNREACHABLE, .prefix = *p, .preference = UNREACHABLE_METRIC + n->owner};
}

static struct change thrown(const struct netlink *n, const struct netlink_prefix *p)
{
    return (struct change){.kind = CHANGE_THROW, .prefix = *p, .preference = THROW_METRIC + n->owner};
}

static enum err route_put(struct netlink *n, const struct change *c, const struct ip *src)
{
    struct rtnl_request q;
    TRY(remember(n, c));
    route_begin(&q, c, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
    if (src && src->family == c->prefix.ip.family)
        rtnl_attr(&q, RTA_PREFSRC, src->b, ip_len(src->family));
    enum err e = rtnl_call(&n->rtnl, &q);
    if (e != OK)
        forget(n, c);
    return e;
}

static enum err route_drop(struct netlink *n, const struct change *c)
{
    struct rtnl_request q;
    route_begin(&q, c, RTM_DELROUTE, 0);
    return rtnl_call(&n->rtnl, &q);
}

enum err netlink_route_add(struct netlink *n, int ifindex, const struct netlink_prefix *p, const struct ip *src)
{
    struct change below = beneath(n, p);
    struct change route = {.kind = CHANGE_ROUTE, .ifindex = ifindex, .prefix = *p};
    /* The unreachable one first: at no time is the prefix without either. */
    TRY(route_put(n, &below, NULL));
    return route_put(n, &route, src);
}

enum err netlink_route_open(struct netlink *n, const struct netlink_prefix *p)
{
    struct change below = beneath(n, p);
    forget(n, &below);
    enum err e = route_drop(n, &below);
    return e == ERR_NOTFOUND ? OK : e;
}

enum err netlink_route_del(struct netlink *n, int ifindex, const struct netlink_prefix *p)
{
    struct change below = beneath(n, p);
    struct change route = {.kind = CHANGE_ROUTE, .ifindex = ifindex, .prefix = *p};
    forget(n, &route);
    forget(n, &below);
    enum err first = route_drop(n, &route);
    enum err second = route_drop(n, &below);
    return first != OK ? first : second;
}

enum err netlink_throw_add(struct netlink *n, const struct netlink_prefix *p)
{
    struct change c = thrown(n, p);
    return route_put(n, &c, NULL);
}

enum err netlink_throw_del(struct netlink *n, const struct netlink_prefix *p)
{
    struct change c = thrown(n, p);
    forget(n, &c);
    return route_drop(n, &c);
}

/* -- rules -- */

static enum err rule_request(struct netlink *n, const struct change *c, uint16_t type, uint16_t flags)
{
    bool source = c->preference == RULE_SOURCE, sealed = c->preference == RULE_SEALED;
    bool ours = c->preference != RULE_MAIN && !sealed;
    struct fib_rule_hdr rule = {
        .family = (uint8_t)family_of(c->prefix.ip.family),
        .table = ours || sealed ? RT_TABLE_UNSPEC : RT_TABLE_MAIN,
        .action = sealed ? FR_ACT_GOTO : FR_ACT_TO_TBL,
        .flags = ours && !source ? FIB_RULE_INVERT : 0,
        .src_len = c->prefix.bits,
    };
    uint8_t protocol = ROUTE_PROTOCOL;
    struct rtnl_request q;

    rtnl_begin(&q, type, flags, &rule, sizeof rule);
    rtnl_attr_u32(&q, FRA_PRIORITY, c->preference);
    rtnl_attr(&q, FRA_PROTOCOL, &protocol, sizeof protocol);
    if (sealed)
        rtnl_attr_u32(&q, FRA_GOTO, RULE_ALL);
    else
        rtnl_attr_u32(&q, FRA_TABLE, ours ? ROUTE_TABLE : RT_TABLE_MAIN);
    if (source)
        rtnl_attr(&q, FRA_SRC, c->prefix.ip.b, ip_len(c->prefix.ip.family));
    if (sealed || (ours && !source)) {
        rtnl_attr_u32(&q, FRA_FWMARK, TUN_FWMARK);
        rtnl_attr_u32(&q, FRA_FWMASK, UINT32_MAX);
    }
    if (c->preference == RULE_SPECIFIC || c->preference == RULE_MAIN)
        rtnl_attr_u32(&q, FRA_SUPPRESS_PREFIXLEN, 0);
    return rtnl_call(&n->rtnl, &q);
}

static enum err rule_put(struct netlink *n, const struct change *c)
{
    TRY(remember(n, c));
    enum err e = rule_request(n, c, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL);
    if (e == ERR_EXISTS)
        return OK; /* left by a crash: adopted */
    if (e != OK)
        forget(n, c);
    return e;
}

static struct change main_rule(uint8_t family, uint32_t preference)
{
    return (struct change){.kind = CHANGE_RULE, .prefix.ip.family = family, .preference = preference};
}

enum err netlink_rules_add(struct netlink *n, uint8_t family, bool with_default)
{
    for (uint32_t preference = RULE_SPECIFIC; preference <= RULE_ALL; preference++) {
        struct change c = main_rule(family, preference);
        if (preference == RULE_ALL || with_default)
            TRY(rule_put(n, &c));
    }
    n->loosens = n->loosens || (family == 4 && !n->keep_strict);
    netlink_loosen(n);
    return OK;
}

bool netlink_loosens(const struct netlink *n)
{
    return n->loosens;
}

bool netlink_loosen(struct netlink *n)
{
    return n->loosens && rp_filter_loosen(&n->rp_filter);
}

/*
 * A policy may protect all addresses but for those of the networks that the host is on, which have routes of their own.
 * What comes from the TUN's address is not for them: nobody there could answer but in the clear.
 */
static struct change source_rule(const struct netlink_prefix *address)
{
    return (struct change){
        .kind = CHANGE_RULE,
        .prefix = {address->ip, (uint8_t)(ip_len(address->ip.family) * 8)},
        .preference = RULE_SOURCE,
    };
}

enum err netlink_address_add(struct netlink *n, int ifindex, const struct netlink_prefix *p)
{
    struct change c = {.kind = CHANGE_ADDRESS, .ifindex = ifindex, .prefix = *p};
    TRY(remember(n, &c));
    enum err e = address_request(n, &c, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE);
    if (e != OK) {
        forget(n, &c);
        return e;
    }
    struct change sealed = main_rule(p->ip.family, RULE_SEALED), rule = source_rule(p);
    TRY(rule_put(n, &sealed));
    return rule_put(n, &rule);
}

enum err netlink_address_del(struct netlink *n, int ifindex, const struct netlink_prefix *p)
{
    struct change c = {.kind = CHANGE_ADDRESS, .ifindex = ifindex, .prefix = *p};
    struct change rule = source_rule(p);
    forget(n, &c);
    forget(n, &rule);
    (void)rule_request(n, &rule, RTM_DELRULE, 0); /* without it nothing is lost but a rule that no packet meets */
    return address_request(n, &c, RTM_DELADDR, 0);
}

/* True: it was ours, and gone. */
static bool rule_again(struct netlink *n, const struct change *c)
{
    return find_change(n, c) && rule_request(n, c, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL) == OK;
}

unsigned netlink_rules_keep(struct netlink *n, const struct netlink_prefix *addresses, unsigned count)
{
    unsigned gone = 0;
    for (uint32_t preference = RULE_SEALED; preference <= RULE_ALL; preference++)
        for (uint8_t family = 4; family <= 6; family += 2) {
            struct change c = main_rule(family, preference);
            gone += rule_again(n, &c);
        }
    for (unsigned i = 0; i < count; i++) {
        struct change c = source_rule(&addresses[i]);
        gone += rule_again(n, &c);
    }
    return gone;
}

void netlink_keep_strict(struct netlink *n, bool keep)
{
    n->keep_strict = keep;
}

/* -- leftovers -- */

/* Reads a route of our table and protocol from a dump's message; the kind says which of the three it is. */
static bool route_of_ours(struct span message, struct change *c)
{
    struct rtmsg body;
    uint8_t none[16] = {0};
    if (!rtnl_body(message, &body, sizeof body) || body.rtm_protocol != ROUTE_PROTOCOL)
        return false;
    if (rtnl_find_u32(message, sizeof body, RTA_TABLE, body.rtm_table) != ROUTE_TABLE)
        return false;
    uint8_t family = body.rtm_family == AF_INET6 ? 6 : 4;
    struct span to = rtnl_find(message, sizeof body, RTA_DST);
    *c = (struct change){
        .kind = body.rtm_type == RTN_UNREACHABLE ? CHANGE_UNREACHABLE
                : body.rtm_type == RTN_THROW     ? CHANGE_THROW
                                                 : CHANGE_ROUTE,
        .prefix = {ip_from_bytes(family, to.len == ip_len(family) ? to.data : none), body.rtm_dst_len},
    };
    if (c->kind == CHANGE_ROUTE)
        c->ifindex = (int)rtnl_find_u32(message, sizeof body, RTA_OIF, 0);
    else
        c->preference = rtnl_find_u32(message, sizeof body, RTA_PRIORITY, 0);
    return true;
}

/* Left by one with our name: it is no other's, however it is called now. */
static bool leftover(const struct netlink *n, const struct change *c)
{
    return c->kind == CHANGE_ROUTE ? false : c->preference % OWNERS == n->owner;
}

/* What is looked for among the routes in our table that this handle did not add. */
enum look {
    FOR_OTHERS,  /* those of another daemon, which may be running, or have crashed and keep closed what it protected */
    FOR_OWN,     /* leftovers of ours */
    SWEEPING_OWN /* as FOR_OTHERS, and takes away leftovers of ours */
};

static bool look_at_routes(struct netlink *n, uint8_t family, enum look look)
{
    struct rtmsg body = {.rtm_family = (uint8_t)family_of(family)};
    struct rtnl_request q;
    struct buf dump = {0};
    bool found = false;

    rtnl_begin(&q, RTM_GETROUTE, 0, &body, sizeof body);
    if (rtnl_dump(&n->rtnl, &q, &dump) == OK) {
        struct span all = buf_span(&dump), message;
        struct change c;
        while (rtnl_next(&all, &message)) {
            if (!route_of_ours(message, &c) || find_change(n, &c))
                continue;
            bool gone = look == SWEEPING_OWN && leftover(n, &c) && rtnl_resend(&n->rtnl, message, RTM_DELROUTE) == OK;
            found |= look == FOR_OWN ? leftover(n, &c) : !gone;
        }
    }
    buf_free(&dump);
    return found;
}

bool netlink_left(struct netlink *n)
{
    return look_at_routes(n, 4, FOR_OWN) || look_at_routes(n, 6, FOR_OWN);
}

static bool rule_of_ours(struct span message, struct change *c)
{
    struct fib_rule_hdr body;
    if (!rtnl_body(message, &body, sizeof body))
        return false;
    struct span protocol = rtnl_find(message, sizeof body, FRA_PROTOCOL),
                from = rtnl_find(message, sizeof body, FRA_SRC);
    uint8_t family = body.family == AF_INET6 ? 6 : 4;
    *c = (struct change){
        .kind = CHANGE_RULE,
        .prefix.ip.family = family,
        .preference = rtnl_find_u32(message, sizeof body, FRA_PRIORITY, 0),
    };
    if (from.len == ip_len(family))
        c->prefix = (struct netlink_prefix){ip_from_bytes(family, from.data), body.src_len};
    return protocol.len == 1 && protocol.data[0] == ROUTE_PROTOCOL && c->preference >= RULE_SEALED &&
           c->preference <= RULE_ALL;
}

static void sweep_rules(struct netlink *n, uint8_t family)
{
    struct fib_rule_hdr body = {.family = (uint8_t)family_of(family)};
    struct rtnl_request q;
    struct buf dump = {0};

    rtnl_begin(&q, RTM_GETRULE, 0, &body, sizeof body);
    if (rtnl_dump(&n->rtnl, &q, &dump) == OK) {
        struct span all = buf_span(&dump), message;
        struct change c;
        while (rtnl_next(&all, &message))
            if (rule_of_ours(message, &c) && !find_change(n, &c) && rtnl_resend(&n->rtnl, message, RTM_DELRULE) != OK)
                break;
    }
    buf_free(&dump);
}

bool netlink_has(const struct netlink *n, struct span message)
{
    struct change c;
    struct nlmsghdr h;
    memcpy(&h, message.data, sizeof h);
    bool rule = h.nlmsg_type == RTM_NEWRULE || h.nlmsg_type == RTM_DELRULE;
    return (rule ? rule_of_ours(message, &c) : route_of_ours(message, &c)) && find_change(n, &c);
}

void netlink_sweep(struct netlink *n)
{
    for (uint8_t family = 4; family <= 6; family += 2)
        if (!look_at_routes(n, family, SWEEPING_OWN))
            sweep_rules(n, family);
}

/* -- undo -- */

static void undo_one(struct netlink *n, const struct change *c)
{
    enum err e = OK;
    switch (c->kind) {
    case CHANGE_LINK:
        e = link_down(n, c->ifindex);
        break;
    case CHANGE_ADDRESS:
        e = address_request(n, c, RTM_DELADDR, 0);
        break;
    case CHANGE_UNREACHABLE:
    case CHANGE_ROUTE:
    case CHANGE_THROW:
        e = route_drop(n, c);
        break;
    case CHANGE_RULE:
        e = rule_request(n, c, RTM_DELRULE, 0);
        break;
    }
    (void)e; /* what is gone already (a device taken away by hand takes its routes along) is what was wanted */
}

/* All daemons use these; what they lead to must be closed as long as any of them needs it. */
static bool shared(const struct change *c)
{
    return c->kind == CHANGE_RULE && c->preference != RULE_SOURCE;
}

/* What a crash leaves, and the next start adopts. */
static bool closes(const struct change *c)
{
    return c->kind == CHANGE_UNREACHABLE || c->kind == CHANGE_THROW || c->kind == CHANGE_RULE;
}

void netlink_undo(struct netlink *n, bool closed)
{
    n->loosens = false;
    rp_filter_restore(&n->rp_filter);
    for (struct entry *e = n->last, *before; e; e = before) {
        before = e->before;
        if (closed ? closes(&e->change) : shared(&e->change))
            continue;
        undo_one(n, &e->change);
        entry_free(n, e);
    }
    if (!n->last || closed)
        return;
    const bool others[2] = {look_at_routes(n, 4, FOR_OTHERS), look_at_routes(n, 6, FOR_OTHERS)};
    while (n->last) {
        if (!others[n->last->change.prefix.ip.family == 6])
            undo_one(n, &n->last->change);
        entry_free(n, n->last);
    }
}
