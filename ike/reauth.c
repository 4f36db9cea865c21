/*
 * Reauthentication (RFC 7296 section 2.8.3, RFC 4478), make before break: a new IKE SA is set up by IKE_SA_INIT and
 * IKE_AUTH, gets the Child SAs that the old one has, and only then is the old one deleted. Both carry traffic meanwhile.
 */
#include "ike/internal.h"

#define REAUTH_FLOOR \
    (10 * NS_PER_S) /* a peer's AUTH_LIFETIME brings no new exchange before this (RFC 4478 section 5) */
#define REAUTH_AGAIN (30 * NS_PER_S) /* after an attempt that came to nothing, plus as much again at random */

void reauth_plan(struct ike_sa *sa, const struct ike_message *m)
{
    struct ike_engine *e = sa->e;
    ns_t life = sa->run->peer->reauth;
    if (life) { /* the responder leaves it to the initiator first: it has been told (RFC 4478 section 2) */
        sa->reauth_at = e->now + (sa->caller ? life - random_below(e, life / 10 + 1) : life + life / 20);
        sa->reauth_end = e->now + life + life / 10;
    }
    sa_arm(sa);
    reauth_hint(sa, m);
}

void reauth_put_lifetime(const struct ike_sa *sa, struct ike_builder *b)
{
    uint8_t seconds[4];
    if (!sa->run->peer->reauth)
        return;
    put_be32(seconds, (uint32_t)(sa->run->peer->reauth / NS_PER_S));
    ike_put_notify(b, PROTOCOL_NONE, span_of(NULL, 0), NOTIFY_AUTH_LIFETIME, span_of(seconds, sizeof seconds));
}

void reauth_hint(struct ike_sa *sa, const struct ike_message *m)
{
    struct ike_engine *e = sa->e;
    const struct ike_notify *n = ike_find_notify(m, NOTIFY_AUTH_LIFETIME);
    if (!n || n->data.len != 4 || !sa->caller || sa->state != SA_UP)
        return;
    ns_t life = get_be32(n->data.data) * NS_PER_S;
    ns_t at = e->now + life - life / 10 - random_below(e, life / 10 + 1), floor = sa->established + REAUTH_FLOOR;
    at = at < floor ? floor : at;
    if (!sa->reauth_at || at < sa->reauth_at)
        sa->reauth_at = at;
    sa_arm(sa);
}

/* Something that ends in a new IKE SA with this peer is under way. */
static bool under_way(const struct ike_sa *sa)
{
    for (const struct ike_sa *o = sa->run->sas; o; o = o->run_next)
        if (o != sa && (o->renews == sa || sa_connecting(o)))
            return true;
    return false;
}

bool reauth_begin(struct ike_sa *sa)
{
    struct run *run = sa->run;
    const struct policy *first = NULL;
    if (!run || run->held || sa->e->stopping || under_way(sa) || !run->candidate_count)
        return false;
    if (run->peer->endpoint_any) /* they call us; and `renews` is looked for with no such peer, when an SA goes */
        return false;
    for (const struct child *c = sa->children; c; c = c->next)
        if (c->state == CHILD_LIVE && child_policy(c))
            first = child_policy(c);
    if (!first && run->policy_count)
        first = run->policies[0].policy;
    if (first)
        sa_init_start(run, first, sa);
    return first;
}

/* Everything of one SA is on the other as well, for certain at both ends. */
static bool covers(const struct ike_sa *o, const struct ike_sa *sa)
{
    for (const struct child *c = sa->children; c; c = c->next)
        if (c->state == CHILD_LIVE && !child_on(o, child_policy(c)))
            return false;
    return o->state == SA_UP && !o->unproven && !o->undecided_of && !o->redundant && !o->yields_to && !o->renews;
}

bool reauth_merge(struct ike_sa *sa)
{
    bool settled = sa->run && sa->state == SA_UP && !sa->unproven && !sa->undecided_of && !sa->yields_to;
    if (!settled || sa->run->peer->endpoint_any)
        return false;
    for (struct ike_sa *o = sa->run->sas; o; o = o->run_next) {
        if (o == sa || o->spi_i < sa->spi_i || !sa_same_peer(o, sa) || !covers(o, sa) || under_way(sa))
            continue;
        report(sa->e, IKE_EVENT_NOTICE, sa_peer(sa), NULL, &sa->path,
               "there are two IKE SAs with %s, and one is enough: this one is deleted instead of renewed",
               sa_peer_name(sa));
        sa->yields_to = o;
        sa_leave(sa);
        return true;
    }
    return false;
}

void reauth_due(struct ike_sa *sa)
{
    if (reauth_merge(sa))
        return;
    sa->reauth_at = sa->e->now + REAUTH_AGAIN + random_below(sa->e, REAUTH_AGAIN);
    if (!sa->run || (!sa->caller && sa->run->peer->start == START_NO))
        sa->reauth_at = 0; /* nobody here calls: it ends at reauth_end */
    else
        (void)reauth_begin(sa);
}

/* A policy that the old SA carries, the new one does not yet, and whose negotiation has not just failed. */
static const struct policy *left_behind(const struct ike_sa *sa)
{
    for (const struct child *c = sa->renews->children; c; c = c->next) {
        const struct policy_run *p = child_policy(c) ? run_policy(sa->run, child_policy(c)) : NULL;
        if (c->state == CHILD_LIVE && p && p->not_before <= sa->e->now && !child_on(sa, child_policy(c)))
            return child_policy(c);
    }
    return NULL;
}

void reauth_continue(struct ike_sa *sa)
{
    struct ike_sa *old = sa->renews;
    if (!old || sa->state != SA_UP || sa->redundant || sa->yields_to || !sa->run ||
        task_waits(sa, TASK_CHILD_NEW, 0, NULL))
        return;
    const struct policy *policy = left_behind(sa);
    struct task *t = policy ? task_new(TASK_CHILD_NEW) : NULL;
    if (t) {
        t->policy = policy;
        t->anew = true;
        task_queue(sa, t, false);
        return;
    }
    sa->renews = NULL;
    old->yields_to = sa;
    report(sa->e, IKE_EVENT_NOTICE, sa_peer(sa), NULL, &sa->path, "%s is authenticated anew: the old IKE SA is deleted",
           sa_peer_name(sa));
    sa_leave(old);
}

void reauth_inherit(struct ike_sa *old, struct ike_sa *sa)
{
    sa->caller = old->caller;
    sa->reauth_at = old->reauth_at;
    sa->reauth_end = old->reauth_end;
    sa->renews = old->renews;
    old->renews = NULL;
    sa->yields_to = old->yields_to;
    sa->leave_at = old->leave_at;
    sa->successor = sa->leave_at != 0;
    /* Towards clients of any address, of whom there may be thousands, nothing is ever renewed from here. */
    for (struct ike_sa *o = sa->run && !sa->run->peer->endpoint_any ? sa->run->sas : NULL; o; o = o->run_next) {
        if (o->renews == old)
            o->renews = sa;
        if (o->yields_to == old)
            o->yields_to = sa;
    }
    sa_arm(sa);
}
