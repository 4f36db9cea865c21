/* Which traffic a Child SA is for, and in which mode (RFC 7296 sections 1.3.1, 2.9 and 2.23.1). */
#include "ike/internal.h"

/* -- transport mode -- */

/*
 * Transport mode is for the two hosts themselves: every selector of this side has one address, the same, and that is
 * `seen`, the one that IKE's packets have here. Where a NAT stands in between, it is put in their place (section 2.23.1).
 */
static bool host_alone(struct selectors *s, bool nat, const struct ip *seen)
{
    if (s->n == 0 || seen->family == 0)
        return false;
    struct ip host = nat ? s->v[0].range.first : *seen;
    if (host.family != seen->family)
        return false;
    for (unsigned i = 0; i < s->n; i++) {
        if (!ip_equal(&s->v[i].range.first, &host) || !ip_equal(&s->v[i].range.last, &host))
            return false;
        s->v[i].range = (struct ip_range){*seen, *seen};
    }
    return true;
}

/* The addresses that the peer has named, before others are put in their place. */
static void note_seen(const struct selectors *local, const struct selectors *remote, struct child_terms *out)
{
    out->seen_local = local->n ? local->v[0].range.first : (struct ip){0};
    out->seen_remote = remote->n ? remote->v[0].range.first : (struct ip){0};
}

/* What of the list is for this host; false: nothing. */
static bool cut_to_host(struct selectors *s, const struct ip *host)
{
    struct selector only = {.range = {*host, *host}, .port_last = UINT16_MAX};
    unsigned kept = 0;
    for (unsigned i = 0; i < s->n; i++) {
        struct selector both;
        if (s->v[i].range.first.family == host->family && selector_intersect(&s->v[i], &only, &both))
            s->v[kept++] = both;
    }
    s->n = (uint8_t)kept;
    return kept > 0;
}

/* Whether transport mode can be offered; then only for the addresses that IKE runs between. */
static bool offer_transport(const struct ike_sa *sa, struct task *t)
{
    struct selectors local = t->local, remote = t->remote;
    if (!sa->e->env.transport_mode || t->policy->mode != MODE_TRANSPORT || !cut_to_host(&local, &sa->path.local.ip) ||
        !cut_to_host(&remote, &sa->path.remote.ip))
        return false;
    t->local = local;
    t->remote = remote;
    return true;
}

bool selectors_outdated(const struct ike_sa *sa, const struct child *c, bool remapped)
{
    if (c->mode != MODE_TRANSPORT || !child_policy(c))
        return false;
    struct selectors local = child_policy(c)->local, remote = child_policy(c)->remote;
    bool moved = !ip_equal(&c->local.v[0].range.first, &sa->path.local.ip) ||
                 !ip_equal(&c->remote.v[0].range.first, &sa->path.remote.ip);
    return (moved || remapped) && cut_to_host(&local, &sa->path.local.ip) && cut_to_host(&remote, &sa->path.remote.ip);
}

/* -- initiator -- */

static bool holds_other(const struct selectors *list, const struct selector *s)
{
    return list->n > 1 || !selector_equal(&list->v[0], s);
}

static void put_front(struct selectors *list, const struct selector *s)
{
    memmove(&list->v[1], &list->v[0], list->n * sizeof list->v[0]);
    list->v[0] = *s;
    list->n++;
}

/* The packet that asked for the SA comes first: the peer must not narrow it away (section 2.9). */
static void offer_packet(const struct policy_run *r, struct task *t)
{
    if (t->local.n >= SELECTORS_MAX || t->remote.n >= SELECTORS_MAX || !narrow_covers(&r->packet_local, &t->local) ||
        !narrow_covers(&r->packet_remote, &t->remote))
        return;
    if (holds_other(&t->local, &r->packet_local))
        put_front(&t->local, &r->packet_local);
    if (holds_other(&t->remote, &r->packet_remote))
        put_front(&t->remote, &r->packet_remote);
}

static void offer_policy(const struct ike_sa *sa, struct task *t)
{
    t->local = t->policy->local;
    t->remote = t->policy->remote;
    t->transport = offer_transport(sa, t);
}

void selectors_offer(const struct ike_sa *sa, struct task *t)
{
    const struct policy_run *r = run_policy(sa->run, t->policy);
    if (t->single) /* selectors_single has chosen them */
        return;
    offer_policy(sa, t);
    if (r && r->packet && t->kind != TASK_CHILD_REKEY)
        offer_packet(r, t);
}

static void pair_of(const struct selectors *from, const struct selector *packet, struct selectors *to)
{
    struct selector whole = {.range = packet ? packet->range : from->v[0].range, .port_last = UINT16_MAX};
    for (unsigned i = 0; i < from->n; i++) {
        struct selector both;
        if (whole.range.first.family != from->v[i].range.first.family ||
            !selector_intersect(&from->v[i], &whole, &both))
            continue;
        to->v[0] = both;
        to->n = 1;
        return;
    }
}

bool selectors_single(const struct ike_sa *sa, struct task *t)
{
    const struct policy_run *r = run_policy(sa->run, t->policy);
    const struct child *old = t->kind == TASK_CHILD_REKEY ? child_find(sa->e, t->child) : NULL;
    struct selectors local = t->local, remote = t->remote;
    bool packet = r && r->packet && narrow_covers(&r->packet_local, &t->policy->local) &&
                  narrow_covers(&r->packet_remote, &t->policy->remote);
    if (t->single)
        return false;
    t->single = true;
    offer_policy(sa, t);
    pair_of(old ? &old->local : &t->policy->local, packet ? &r->packet_local : NULL, &t->local);
    pair_of(old ? &old->remote : &t->policy->remote, packet ? &r->packet_remote : NULL, &t->remote);
    return !selectors_equal(&local, &t->local) || !selectors_equal(&remote, &t->remote);
}

bool selectors_accept(const struct ike_sa *sa, const struct ike_message *m, const struct task *t, bool transport,
                      struct child_terms *out)
{
    out->local = m->tsi.v;
    out->remote = m->tsr.v;
    note_seen(&m->tsi.v, &m->tsr.v, out);
    if (transport && (!host_alone(&out->local, sa->nat_local, &sa->path.local.ip) ||
                      !host_alone(&out->remote, sa->nat_remote, &sa->path.remote.ip)))
        return false;
    return narrow_check(&out->local, &t->local) == OK && narrow_check(&out->remote, &t->remote) == OK;
}

/* The whole of a packet's side within what the policy says of it: protocols without two ports keep the policy's. */
static bool packet_side(const struct selectors *policy, const struct ip *ip, const struct flow *f, uint16_t port,
                        struct selector *out)
{
    bool ports =
        f->ports_known && (f->proto == 6 || f->proto == 17 || f->proto == 33 || f->proto == 132 || f->proto == 136);
    struct selector s = {.range = {*ip, *ip}, .proto = f->proto, .port_last = UINT16_MAX};
    if (ports)
        s.port_first = s.port_last = port;
    for (unsigned i = 0; i < policy->n; i++)
        if (policy->v[i].range.first.family == ip->family && selector_intersect(&s, &policy->v[i], out))
            return true;
    return false;
}

void selectors_of_packet(struct policy_run *p, const struct flow *packet)
{
    p->packet = packet_side(&p->policy->local, &packet->src, packet, packet->src_port, &p->packet_local) &&
                packet_side(&p->policy->remote, &packet->dst, packet, packet->dst_port, &p->packet_remote);
}

/* -- responder -- */

static bool may_match(const struct policy *p, const struct policy *only, bool transport)
{
    return (!only || p == only) && (transport || !p->transport_only);
}

/* In the order of the SPD, but a policy that allows the initiator's first choice goes before those that don't. */
static const struct policy *lookup(const struct ike_sa *sa, const struct selectors *tsi, const struct selectors *tsr,
                                   const struct policy *only, bool transport, struct child_terms *out)
{
    const struct run *run = sa->run;
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < run->policy_count; i++) {
            const struct policy *p = run->policies[i].policy;
            if (may_match(p, only, transport) && (pass || narrow_first(tsi, tsr, p)) &&
                narrow_offer(tsi, tsr, p, &out->local, &out->remote) == OK)
                return p;
        }
    return NULL;
}

/* Whether another policy would take a part of the offer that this one leaves out. */
static bool more_possible(const struct ike_sa *sa, const struct ike_message *m, const struct policy *chosen,
                          const struct child_terms *got)
{
    const struct run *run = sa->run;
    for (unsigned i = 0; i < run->policy_count; i++) {
        struct selectors local, remote;
        const struct policy *p = run->policies[i].policy;
        if (p != chosen && may_match(p, NULL, false) && narrow_offer(&m->tsi.v, &m->tsr.v, p, &local, &remote) == OK &&
            (narrow_check(&local, &got->local) != OK || narrow_check(&remote, &got->remote) != OK))
            return true;
    }
    return false;
}

const struct policy *selectors_match(const struct ike_sa *sa, const struct ike_message *m, const struct policy *only,
                                     struct child_terms *out)
{
    struct selectors tsi = m->tsi.v, tsr = m->tsr.v;
    const struct policy *p = NULL;
    out->mode = MODE_TUNNEL;
    out->more = false;
    if (sa->e->env.transport_mode && ike_find_notify(m, NOTIFY_USE_TRANSPORT_MODE) &&
        host_alone(&tsi, sa->nat_remote, &sa->path.remote.ip) && host_alone(&tsr, sa->nat_local, &sa->path.local.ip))
        p = lookup(sa, &tsi, &tsr, only, true, out);
    if (p && p->mode == MODE_TRANSPORT) {
        out->mode = MODE_TRANSPORT;
        note_seen(&m->tsr.v, &m->tsi.v, out);
        return p;
    }
    p = lookup(sa, &m->tsi.v, &m->tsr.v, only, false, out); /* declined: as it came, in tunnel mode */
    out->more = p && !only && more_possible(sa, m, p, out);
    return p;
}
