#include "core/firewall.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/audit.h"
#include "core/base/log.h"
#include "tun/nflog.h"
#include "tun/nft.h"
#include "tun/udp.h"

#define TABLE_PREFIX "adit-"    /* and the name of the device */
#define RULES_MAX 8192          /* of a table: those of one chain are walked */
#define OTHERS 16               /* tables of others that the log tells of */
#define FEW 4                   /* pairs that are rules of their own rather than sets */
#define GROUPS 64               /* sets of one run of policies */
#define COVER_LOOKS 10000000ull /* at whether a policy covers a peer; beyond that it is taken for granted */
#define PROTO_ICMP 1
#define PROTO_UDP 17
#define PROTO_FRAGMENT 44
#define PROTO_ESP 50
#define PROTO_AH 51
#define PROTO_ICMPV6 58
#define PROTO_MH 135
#define ICMP_HEADER 8

struct firewall {
    char tun[16], table[NFT_TABLE_TEXT];
    struct nft_batch in_force;
    const struct config *of;     /* whose it is: to be compared only, it may be gone */
    atomic_bool wanted, on;      /* status looks at them meanwhile */
    _Atomic uint64_t dropped[2]; /* in, out: counted by tables that were replaced */
    bool told, lost;
    int log_fd;         /* -1: none */
    uint16_t log_group; /* 0: none */
};

/* Where what is dropped goes, in and out: a counter and a chain each. */
static const char *const denied[] = {"denied-in", "denied-out"};

#define SET_NAME 16

struct ranges {
    struct nft_range *v;
    size_t n;
};

/* What one pair of selectors of a policy matches, and what becomes of it in the clear. */
struct box {
    const struct selector *local, *remote;
    bool drop;
};

/* The chain that is being written: one for each direction and IP version. */
struct rules {
    struct nft_batch *b;
    const struct config *c;
    bool out;
    uint8_t family;
    const struct firewall *f;
    char chain[8];
    struct box *v;
    size_t n, cap;
    const struct ranges *remote; /* of all that is dropped: the callers' condition */
    char remote_name[SET_NAME];
    unsigned count, sets; /* of the table */
    enum err failed;
};

/* -- what a policy says of the clear -- */

static bool drops(const struct policy *p, const struct host *h, bool out)
{
    if (p->action != ACTION_PROTECT)
        return p->action == ACTION_DISCARD;
    /* Who sees to routes himself may send by others what a policy could protect. */
    return !p->fail_open && (!out || h->routes);
}

static bool any_port(const struct selector *s)
{
    return s->port_first == 0 && s->port_last == UINT16_MAX;
}

static bool opaque(const struct selector *s)
{
    return s->port_first > s->port_last;
}

static bool whole(const struct ip_range *r)
{
    struct prefix p;
    return range_prefix(r, &p) == OK && p.bits == 0;
}

static uint8_t protocol(const struct box *x)
{
    return x->local->proto ? x->local->proto : x->remote->proto;
}

/* Addresses alone say it. */
static bool plain(const struct box *x)
{
    return !protocol(x) && any_port(x->local) && any_port(x->remote) && !(x->drop && whole(&x->remote->range));
}

static void box_add(struct rules *w, const struct selector *l, const struct selector *r, bool drop)
{
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 64;
        struct box *v = realloc(w->v, cap * sizeof *v);
        if (!v) {
            w->failed = ERR_NOMEM;
            return;
        }
        w->v = v;
        w->cap = cap;
    }
    w->v[w->n++] = (struct box){l, r, drop};
}

/* What leaves to all addresses has taken the way that routes say, and nothing here could say it better. */
static void boxes_of(struct rules *w, const struct policy *p)
{
    bool drop = drops(p, &w->c->host, w->out);
    for (unsigned i = 0; i < p->local.n; i++)
        for (unsigned k = 0; k < p->remote.n; k++) {
            const struct selector *l = &p->local.v[i], *r = &p->remote.v[k];
            if (l->range.first.family == w->family && r->range.first.family == w->family &&
                (!l->proto || !r->proto || l->proto == r->proto) && !(w->out && drop && whole(&r->range)))
                box_add(w, l, r, drop);
        }
}

/* In the order of the SPD; what passes behind the last that is dropped needs no saying. */
static void collect(struct rules *w)
{
    w->n = 0;
    for (unsigned i = 0; i < w->c->policy_count && w->failed == OK; i++)
        boxes_of(w, w->c->policies[i]);
    while (w->n && !w->v[w->n - 1].drop)
        w->n--;
}

/* -- conditions -- */

/* What is read there lies between these two. */
static void between(struct rules *w, const void *first, const void *last, size_t len)
{
    if (memcmp(first, last, len) == 0) {
        nft_compare(w->b, NFT_EQUAL, first, len);
        return;
    }
    nft_compare(w->b, NFT_AT_LEAST, first, len);
    nft_compare(w->b, NFT_AT_MOST, last, len);
}

static void address_field(struct rules *w, bool local)
{
    bool source = local == w->out;
    if (w->family == 4)
        nft_field(w->b, NFT_NETWORK, source ? 12 : 16, 4);
    else
        nft_field(w->b, NFT_NETWORK, source ? 8 : 24, 16);
}

static void address_in(struct rules *w, bool local, const struct ip *first, const struct ip *last)
{
    const struct ip_range range = {*first, *last};
    if (whole(&range))
        return;
    address_field(w, local);
    between(w, first->b, last->b, ip_len(w->family));
}

static void field_between(struct rules *w, unsigned offset, unsigned len, uint16_t first, uint16_t last)
{
    uint8_t from[2] = {(uint8_t)(first >> 8), (uint8_t)first}, to[2] = {(uint8_t)(last >> 8), (uint8_t)last};
    nft_field(w->b, NFT_TRANSPORT, offset, len);
    between(w, from, to, len);
}

/* One side's ports, at that offset of the transport header; ICMP has type and code there, which selectors hold alike. */
static void ports_in(struct rules *w, const struct selector *s, uint8_t proto, unsigned offset)
{
    if (any_port(s))
        return;
    if (opaque(s))
        nft_later_fragment(w->b, w->family);
    else if (proto == PROTO_MH)
        field_between(w, 2, 1, s->port_first, s->port_last); /* its type alone, which is the upper byte */
    else
        field_between(w, offset, 2, s->port_first, s->port_last);
}

static void box_conditions(struct rules *w, const struct box *x)
{
    const struct selector *from = w->out ? x->local : x->remote, *to = w->out ? x->remote : x->local;
    uint8_t proto = protocol(x);
    address_in(w, false, &x->remote->range.first, &x->remote->range.last);
    address_in(w, true, &x->local->range.first, &x->local->range.last);
    if (proto)
        nft_fact_byte(w->b, NFT_IS_PROTOCOL, proto);
    ports_in(w, from, proto, 0);
    if (!proto || !selector_sender_only(proto))
        ports_in(w, to, proto, 2);
}

/* -- rules -- */

static void rule(struct rules *w, const char *chain)
{
    if (++w->count > RULES_MAX)
        w->failed = ERR_FULL;
    nft_rule(w->b, chain);
}

/* One that looks at addresses. That all of a chain are of one IP version is said for who lists them. */
static void family_rule(struct rules *w, const char *chain)
{
    rule(w, chain);
    nft_fact_byte(w->b, NFT_IS_FAMILY, w->family);
}

static void verdict(struct rules *w, bool drop)
{
    if (drop)
        nft_count(w->b, NULL);
    nft_verdict(w->b, drop ? NFT_DO_JUMP : NFT_DO_RETURN, drop ? denied[w->out] : NULL);
}

static void box_rule(struct rules *w, const struct box *x)
{
    family_rule(w, w->chain);
    box_conditions(w, x);
    if (x->drop && whole(&x->remote->range)) {
        nft_way_back(w->b, w->f->tun);
        verdict(w, true);
        family_rule(w, w->chain);
        box_conditions(w, x);
        nft_way_back(w->b, NULL); /* the tunnel is not there */
    }
    verdict(w, x->drop);
}

/* -- sets -- */

static const struct ip_range *side(const struct box *x, bool local)
{
    return local ? &x->local->range : &x->remote->range;
}

static int compare_ranges(const struct ip_range *a, const struct ip_range *b)
{
    int c = ip_compare(&a->first, &b->first);
    return c ? c : ip_compare(&a->last, &b->last);
}

static int by_local(const void *a, const void *b)
{
    return compare_ranges(side(a, true), side(b, true));
}

static int by_remote(const void *a, const void *b)
{
    return compare_ranges(side(a, false), side(b, false));
}

static int by_first(const void *a, const void *b)
{
    const struct nft_range *x = a, *y = b;
    return ip_compare(&x->first, &y->first);
}

/* Does b begin behind a's last address and the one after? */
static bool apart(const struct nft_range *a, const struct nft_range *b)
{
    struct ip next = a->last;
    if (ip_compare(&b->first, &a->last) <= 0)
        return false;
    for (unsigned i = ip_len(next.family); i-- > 0;)
        if (++next.b[i])
            break;
    return !ip_equal(&next, &b->first);
}

/* One side of boxes (dropped: of those alone), in order and without overlaps; to be freed. */
static void merge(struct rules *w, const struct box *v, size_t n, bool local, bool dropped, struct ranges *out)
{
    *out = (struct ranges){.v = calloc(n, sizeof *out->v)};
    if (!out->v) {
        w->failed = ERR_NOMEM;
        return;
    }
    size_t all = 0;
    for (size_t i = 0; i < n; i++)
        if (v[i].drop || !dropped)
            out->v[all++] = (struct nft_range){side(&v[i], local)->first, side(&v[i], local)->last};
    qsort(out->v, all, sizeof *out->v, by_first);
    for (size_t i = 0; i < all; i++) {
        struct nft_range *last = out->n ? &out->v[out->n - 1] : NULL;
        if (!last || apart(last, &out->v[i]))
            out->v[out->n++] = out->v[i];
        else if (ip_compare(&out->v[i].last, &last->last) > 0)
            last->last = out->v[i].last;
    }
}

static bool same_ranges(const struct ranges *a, const struct ranges *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!ip_equal(&a->v[i].first, &b->v[i].first) || !ip_equal(&a->v[i].last, &b->v[i].last))
            return false;
    return true;
}

/* Sets are written before the rule that looks into them; of one range there is none. */
static void ranges_set(struct rules *w, const struct ranges *r, char name[SET_NAME])
{
    if (w->remote && same_ranges(r, w->remote)) {
        memcpy(name, w->remote_name, SET_NAME);
        return;
    }
    snprintf(name, SET_NAME, "addresses%u", w->sets);
    if (r->n < 2)
        return;
    w->sets++;
    nft_set(w->b, name, w->family, r->v, r->n);
}

static void in_ranges(struct rules *w, bool local, const struct ranges *r, const char *name)
{
    if (r->n < 2) {
        address_in(w, local, &r->v[0].first, &r->v[0].last);
        return;
    }
    address_field(w, local);
    nft_in_set(w->b, name);
}

/* All pairs of the local and the remote addresses of these. */
static void product_rule(struct rules *w, const struct box *v, size_t n)
{
    struct ranges local, remote = {0};
    char local_name[SET_NAME], remote_name[SET_NAME];
    merge(w, v, n, true, false, &local);
    if (w->failed == OK)
        merge(w, v, n, false, false, &remote);
    if (w->failed == OK) {
        ranges_set(w, &local, local_name);
        ranges_set(w, &remote, remote_name);
        family_rule(w, w->chain);
        in_ranges(w, false, &remote, remote_name);
        in_ranges(w, true, &local, local_name);
        verdict(w, v[0].drop);
    }
    free(local.v);
    free(remote.v);
}

/* How many of these, sorted by that side, have its first one's range there. */
static size_t group(const struct box *v, size_t n, bool local)
{
    size_t k = 1;
    while (k < n && compare_ranges(side(&v[0], local), side(&v[k], local)) == 0)
        k++;
    return k;
}

/* One rule for each range of one side; false: it has too many, and nothing was written. */
static bool grouped(struct rules *w, struct box *v, size_t n, bool local)
{
    size_t groups = 0;
    qsort(v, n, sizeof *v, local ? by_local : by_remote);
    for (size_t i = 0; i < n && groups <= GROUPS; i += group(v + i, n - i, local))
        groups++;
    if (groups > GROUPS)
        return false;
    for (size_t i = 0, k; i < n && w->failed == OK; i += k) {
        k = group(v + i, n - i, local);
        product_rule(w, v + i, k);
    }
    return true;
}

/* Policies of one verdict, which the SPD's order does not part: those of addresses alone share sets. */
static void run_rules(struct rules *w, struct box *v, size_t n)
{
    size_t pairs = 0;
    for (size_t i = 0; i < n && w->failed == OK; i++) {
        if (plain(&v[i]))
            v[pairs++] = v[i];
        else
            box_rule(w, &v[i]);
    }
    if (pairs > FEW && (grouped(w, v, pairs, true) || grouped(w, v, pairs, false)))
        return;
    if (pairs > FEW && v[0].drop) {
        product_rule(w, v, pairs);
        return;
    }
    for (size_t i = 0; i < pairs && w->failed == OK; i++)
        box_rule(w, &v[i]);
}

/* Who shall ask the chain, and about what: those alone who could be dropped there. */
static void callers_rules(struct rules *w, const char *const callers[2])
{
    snprintf(w->chain, sizeof w->chain, "%s%u", w->out ? "out" : "in", w->family);
    nft_chain(w->b, w->chain);
    for (unsigned i = 0; i < 2; i++) {
        family_rule(w, callers[i]);
        in_ranges(w, false, w->remote, w->remote_name);
        nft_verdict(w->b, NFT_DO_JUMP, w->chain);
    }
}

/* A chain with what the SPD says of one direction and IP version. */
static void spd_chain(struct rules *w, const char *const callers[2])
{
    struct ranges remote;
    collect(w);
    if (w->n == 0 || w->failed != OK)
        return;
    merge(w, w->v, w->n, false, true, &remote);
    if (w->failed == OK) {
        w->remote = NULL;
        ranges_set(w, &remote, w->remote_name);
        w->remote = &remote;
        callers_rules(w, callers);
    }
    for (size_t i = 0, k; i < w->n && w->failed == OK; i = k) {
        for (k = i + 1; k < w->n && w->v[k].drop == w->v[i].drop;)
            k++;
        run_rules(w, w->v + i, k - i);
    }
    w->remote = NULL;
    free(remote.v);
}

/* -- what passes whatever policies say -- */

static void accept_rule(struct rules *w)
{
    nft_verdict(w->b, NFT_DO_ACCEPT, NULL);
}

static void interface_passes(struct rules *w, const char *chain, enum nft_fact fact, const char *name)
{
    rule(w, chain);
    nft_fact_interface(w->b, fact, name);
    accept_rule(w);
}

static void protocol_between(struct rules *w, uint8_t first, uint8_t last)
{
    for (unsigned p = first; p <= last; p++) {
        rule(w, "input");
        nft_fact_byte(w->b, NFT_IS_PROTOCOL, (uint8_t)p);
        accept_rule(w);
    }
}

/* Of an ICMP error: which ones, and the protocol of what they quote, at that offset behind the ICMP header. */
static void icmp_error_begin(struct rules *w, uint8_t family, uint8_t first, uint8_t last, unsigned protocol_at)
{
    rule(w, "input");
    nft_fact_byte(w->b, NFT_IS_PROTOCOL, family == 4 ? PROTO_ICMP : PROTO_ICMPV6);
    nft_field(w->b, NFT_TRANSPORT, 0, 1);
    between(w, &first, &last, 1);
    nft_field(w->b, NFT_TRANSPORT, ICMP_HEADER + protocol_at, 1);
}

static void quotes_from_port(struct rules *w, unsigned at, uint16_t port)
{
    const uint8_t udp = PROTO_UDP, ours[2] = {(uint8_t)(port >> 8), (uint8_t)port};
    nft_compare(w->b, NFT_EQUAL, &udp, 1);
    nft_field(w->b, NFT_TRANSPORT, ICMP_HEADER + at, 2);
    nft_compare(w->b, NFT_EQUAL, ours, 2);
}

static void quotes_esp_or_ah(struct rules *w)
{
    const uint8_t protocols[2] = {PROTO_ESP, PROTO_AH};
    between(w, &protocols[0], &protocols[1], 1);
}

/* RFC 4301 section 6.1.1 leaves these to whoever knows the SA: the kernel, and we, look at what they quote. */
static void icmp_errors_pass(struct rules *w, uint8_t family, uint8_t first, uint8_t last, uint16_t port)
{
    const uint8_t plain_header = 0x45; /* IPv4 without options: we send none */
    icmp_error_begin(w, family, first, last, family == 4 ? 9 : 6);
    if (port) {
        quotes_from_port(w, family == 4 ? 20 : 40, port);
        if (family == 4) {
            nft_field(w->b, NFT_TRANSPORT, ICMP_HEADER, 1);
            nft_compare(w->b, NFT_EQUAL, &plain_header, 1);
        }
    } else {
        quotes_esp_or_ah(w);
    }
    accept_rule(w);
}

static void quotes_fragment_of(struct rules *w, uint8_t first, uint8_t last)
{
    const uint8_t fragment = PROTO_FRAGMENT;
    icmp_error_begin(w, 6, first, last, 6);
    nft_compare(w->b, NFT_EQUAL, &fragment, 1);
    nft_field(w->b, NFT_TRANSPORT, ICMP_HEADER + 40, 1);
}

/*
 * The same about what this host has sent in fragments (IPv6: routers cut up nothing, they say Packet Too Big). A later
 * fragment (offset, in units of 8 above three other bits) shows no port.
 */
static void icmp_errors_about_fragments_pass(struct rules *w, uint8_t first, uint8_t last, const uint16_t ports[2])
{
    const uint8_t udp = PROTO_UDP, first_bits[2] = {0, 7}, later[2] = {0, 8};
    for (unsigned i = 0; i < 2; i++) {
        if (!ports[i])
            continue;
        quotes_fragment_of(w, first, last);
        quotes_from_port(w, 40 + 8, ports[i]);
        nft_field(w->b, NFT_TRANSPORT, ICMP_HEADER + 40 + 2, 2);
        nft_compare(w->b, NFT_AT_MOST, first_bits, 2);
        accept_rule(w);
    }
    quotes_fragment_of(w, first, last);
    nft_compare(w->b, NFT_EQUAL, &udp, 1);
    nft_field(w->b, NFT_TRANSPORT, ICMP_HEADER + 40 + 2, 2);
    nft_compare(w->b, NFT_AT_LEAST, later, 2);
    accept_rule(w);
    quotes_fragment_of(w, first, last);
    quotes_esp_or_ah(w);
    accept_rule(w);
}

static void neighbours_pass(struct rules *w, const char *chain)
{
    const uint8_t first = 133, last = 137; /* RFC 4861: router solicitation to redirect */
    rule(w, chain);
    nft_fact_byte(w->b, NFT_IS_PROTOCOL, PROTO_ICMPV6);
    nft_field(w->b, NFT_TRANSPORT, 0, 1);
    between(w, &first, &last, 1);
    accept_rule(w);
}

/* IPv6 is asked before fragments are put together; without the first one, which shows its port, the others are waste. */
static void later_fragments_pass(struct rules *w)
{
    static const uint8_t protocols[] = {PROTO_UDP, PROTO_AH};
    for (size_t i = 0; i < sizeof protocols; i++) {
        rule(w, "input");
        nft_fact_byte(w->b, NFT_IS_FAMILY, 6);
        nft_ipv6_fragment_of(w->b, protocols[i]);
        nft_later_fragment(w->b, 6);
        accept_rule(w);
    }
}

static void ours_pass(struct rules *w)
{
    const uint16_t ports[] = {w->c->host.nat_port, w->c->host.port, 0};
    interface_passes(w, "input", NFT_IS_IN, w->f->tun);
    interface_passes(w, "input", NFT_IS_IN, "lo");
    for (unsigned i = 0; i < 2; i++) {
        const uint8_t port[2] = {(uint8_t)(ports[i] >> 8), (uint8_t)ports[i]};
        if (!ports[i])
            continue;
        rule(w, "input");
        nft_fact_byte(w->b, NFT_IS_PROTOCOL, PROTO_UDP);
        nft_field(w->b, NFT_TRANSPORT, 2, 2);
        nft_compare(w->b, NFT_EQUAL, port, 2);
        accept_rule(w);
    }
    later_fragments_pass(w);
    protocol_between(w, PROTO_ESP, PROTO_AH);
    for (unsigned i = 0; i < 3; i++) {
        if (i < 2 && !ports[i])
            continue;
        icmp_errors_pass(w, 4, 3, 3, ports[i]);   /* destination unreachable */
        icmp_errors_pass(w, 4, 11, 12, ports[i]); /* time exceeded, parameter problem */
        icmp_errors_pass(w, 6, 1, 4, ports[i]);
    }
    icmp_errors_about_fragments_pass(w, 1, 4, ports);
    neighbours_pass(w, "input");
    interface_passes(w, "forward", NFT_IS_IN, w->f->tun);
    interface_passes(w, "forward", NFT_IS_OUT, w->f->tun);
    rule(w, "output");
    nft_fact_mark(w->b, TUN_FWMARK);
    accept_rule(w);
    interface_passes(w, "output", NFT_IS_OUT, w->f->tun);
    interface_passes(w, "output", NFT_IS_OUT, "lo");
    neighbours_pass(w, "output");
}

/* The audit log wants to see some of what arrives; what others would have sent is no secret to who runs this host. */
static void denied_chain(struct rules *w, const char *name)
{
    nft_counter(w->b, name);
    nft_chain(w->b, name);
    if (name == denied[false] && w->f->log_group) {
        rule(w, name);
        nft_limit(w->b, 1, AUDIT_BURST);
        nft_log(w->b, w->f->log_group);
        nft_verdict(w->b, NFT_DO_CONTINUE, NULL);
    }
    rule(w, name);
    nft_count(w->b, name);
    nft_verdict(w->b, NFT_DO_DROP, NULL);
}

static enum err write_table(const struct firewall *f, const struct config *c, struct nft_batch *b)
{
    static const char *const in[] = {"input", "forward"}, *const out[] = {"output", "forward"};
    struct rules w = {.b = b, .c = c, .f = f};
    nft_begin(b, f->table);
    nft_base_chain(b, "input", NFT_INPUT);
    nft_base_chain(b, "forward", NFT_FORWARD);
    nft_base_chain(b, "output", NFT_OUTPUT);
    denied_chain(&w, denied[false]);
    denied_chain(&w, denied[true]);
    ours_pass(&w);
    for (unsigned i = 0; i < 4 && w.failed == OK; i++) {
        w.out = i >= 2;
        w.family = i % 2 ? 6 : 4;
        spd_chain(&w, w.out ? out : in);
    }
    free(w.v);
    return w.failed;
}

/* -- the handle -- */

enum err firewall_new(struct firewall **out, const char *tun)
{
    struct firewall *f = calloc(1, sizeof *f);
    if (!f)
        return ERR_NOMEM;
    snprintf(f->tun, sizeof f->tun, "%s", tun);
    snprintf(f->table, sizeof f->table, TABLE_PREFIX "%s", tun);
    if (nflog_open(&f->log_fd, &f->log_group) != OK) {
        f->log_fd = -1;
        f->log_group = 0;
    }
    *out = f;
    return OK;
}

void firewall_free(struct firewall *f)
{
    if (!f)
        return;
    if (f->log_fd >= 0)
        (void)close(f->log_fd);
    nft_free(&f->in_force);
    free(f);
}

bool firewall_is_of(const struct firewall *f, const struct config *c)
{
    return f->of == c;
}

/* Before the table goes, or when somebody asks. */
static void take_counts(struct firewall *f)
{
    for (unsigned out = 0; f->on && out < 2; out++)
        atomic_fetch_add(&f->dropped[out], nft_counted(f->table, denied[out]));
}

void firewall_remove(struct firewall *f)
{
    take_counts(f);
    nft_remove(f->table);
    nft_free(&f->in_force);
    f->on = false;
}

bool firewall_left(const struct firewall *f)
{
    return nft_there(f->table);
}

void firewall_note_others(void)
{
    char names[OTHERS][NFT_TABLE_TEXT];
    for (unsigned n = nft_orphans(TABLE_PREFIX, names, OTHERS); n--;)
        log_line(LOG_WARN, "core",
                 "firewall: table inet %s is that of a daemon that has crashed: what it protects stays closed until "
                 "it runs again; if it never will: nft delete table inet %s",
                 names[n], names[n]);
}

uint64_t firewall_dropped(struct firewall *f, bool out)
{
    take_counts(f);
    return atomic_exchange(&f->dropped[out], 0);
}

static bool same(const struct buf *a, const struct buf *b)
{
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static enum err apply(struct firewall *f, const struct config *c, char *why, size_t why_size)
{
    struct nft_batch b;
    enum err e = write_table(f, c, &b);
    if (e == ERR_FULL)
        snprintf(why, why_size, "the policies would take more than %u rules", RULES_MAX);
    else
        snprintf(why, why_size, "%s", err_text(e));
    if (e == OK && f->on && same(&b.out, &f->in_force.out) && !nft_gone(f->table)) {
        nft_free(&b);
        return OK;
    }
    if (e == OK) {
        take_counts(f);
        e = nft_commit(&b, why, why_size);
    }
    if (e != OK) {
        nft_free(&b);
        return e;
    }
    nft_free(&f->in_force);
    f->in_force = b;
    return OK;
}

enum err firewall_apply(struct firewall *f, const struct config *c, char *why, size_t why_size)
{
    char reason[160];
    f->wanted = c->host.firewall;
    if (!f->wanted) {
        firewall_remove(f);
        f->of = c;
        return OK;
    }
    enum err e = apply(f, c, reason, sizeof reason);
    if (e == ERR_UNSUPPORTED && !f->on && f->log_group) { /* the kernel may just have no log for rules */
        f->log_group = 0;
        e = apply(f, c, reason, sizeof reason);
    }
    if (e == OK && !f->on)
        log_line(LOG_INFO, "core", "firewall: nftables (table inet %s)", f->table);
    if (e == OK || !f->on)
        f->of = c;
    if (e == OK) {
        f->on = true;
    } else if (f->on) {
        snprintf(why, why_size, "firewall: %s", reason);
        return e;
    } else if (!f->told) {
        log_line(LOG_WARN, "core",
                 "firewall: %s (%s): what arrives in the clear though a policy protects it is dropped by a "
                 "strict reverse-path filter only (IPv4, rp_filter = 1)%s",
                 e == ERR_FULL ? "nftables can't hold these policies" : "no nftables here", reason,
                 firewall_strict_fits(c) ? "" : ", which has to be loose for these policies");
        f->told = true;
    }
    return OK;
}

bool firewall_keep(struct firewall *f)
{
    char why[160];
    if (!f->on || !nft_gone(f->table)) {
        f->lost = false;
        return false;
    }
    if (nft_commit(&f->in_force, why, sizeof why) == OK)
        log_line(LOG_WARN, "core", "firewall: another program has removed table inet %s: it is there again", f->table);
    else if (!f->lost)
        log_line(LOG_ERROR, "core", "firewall: another program has removed table inet %s, and it can't be put back: %s",
                 f->table, why);
    f->lost = true;
    return true;
}

int firewall_log_fd(const struct firewall *f)
{
    return f->log_fd;
}

bool firewall_missing(const struct firewall *f)
{
    return f->wanted && !f->on;
}

const char *firewall_name(const struct firewall *f)
{
    return f->on ? "nftables" : f->wanted ? "rp_filter" : "no";
}

/* -- what stands in -- */

static bool covers(const struct config *c, const struct ip *ip)
{
    for (unsigned i = 0; i < c->policy_count; i++)
        for (unsigned k = 0; c->policies[i]->action == ACTION_PROTECT && k < c->policies[i]->remote.n; k++)
            if (range_contains(&c->policies[i]->remote.v[k].range, ip))
                return true;
    return false;
}

bool firewall_strict_fits(const struct config *c)
{
    if ((uint64_t)c->peer_count * c->policy_count > COVER_LOOKS)
        return false;
    for (unsigned i = 0; i < c->policy_count; i++)
        if (c->policies[i]->action == ACTION_BYPASS || c->policies[i]->fail_open)
            return false;
    for (unsigned i = 0; i < c->peer_count; i++) {
        const struct peer *p = c->peers[i];
        struct endpoint at[PEER_ENDPOINTS];
        if (p->endpoint_any || peer_has_names(p))
            return false;
        for (unsigned k = 0, n = peer_addresses(p, at); k < n; k++)
            if (covers(c, &at[k].ip))
                return false;
    }
    return true;
}
