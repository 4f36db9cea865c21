#include "core/audit.h"

#include "core/worker_impl.h"

#define REFILL NS_PER_S

static bool take(struct worker *w, unsigned i, ns_t now)
{
    struct audit *a = &w->audit;
    unsigned earned = 0;
    if (a->reasons[i].at == 0)
        earned = AUDIT_BURST;
    else if (now - a->reasons[i].at >= AUDIT_BURST * REFILL)
        earned = AUDIT_BURST;
    else
        earned = (unsigned)((now - a->reasons[i].at) / REFILL);
    a->reasons[i].tokens = a->reasons[i].tokens + earned < AUDIT_BURST ? a->reasons[i].tokens + earned : AUDIT_BURST;
    if (earned)
        a->reasons[i].at = now;
    if (a->reasons[i].tokens == 0)
        return false;
    a->reasons[i].tokens--;
    return true;
}

static void hold_back(struct worker *w, unsigned i, ns_t now)
{
    struct audit *a = &w->audit;
    a->reasons[i].held += a->reasons[i].held != UINT32_MAX;
    if (a->next == NS_NEVER)
        a->next = now + AUDIT_QUIET;
}

bool audit_wanted(struct worker *w, enum stat_id reason)
{
    unsigned i = reason - STAT_DROP_FIRST;
    if (atomic_load_explicit(&w->p.shared->no_audit, memory_order_relaxed))
        return false;
    ns_t now = worker_now(w);
    if (take(w, i, now))
        return true;
    hold_back(w, i, now);
    return false;
}

void audit_push(struct worker *w, struct audit_event *e)
{
    unsigned i = e->reason - STAT_DROP_FIRST;
    e->held = w->audit.reasons[i].held;
    e->wall = clock_wall();
    if (worker_push(w, WORKER_AUDIT, span_of(e, sizeof *e), span_of(NULL, 0), STAT_DROP_EVENT_RING))
        w->audit.reasons[i].held = 0;
    else if (!e->summary)
        hold_back(w, i, worker_now(w));
}

void audit_sa(struct worker *w, enum stat_id reason, const struct sa *sa, const struct esp_packet *p,
              const struct endpoint *from, struct span packet)
{
    if (!audit_wanted(w, reason))
        return;
    struct path path = sa_path(sa);
    bool in = sa->params.dir == SA_IN;
    struct audit_event e;
    memset(&e, 0, sizeof e);
    e.reason = reason;
    e.ah = sa->params.proto == PROTOCOL_AH;
    e.spi = sa->params.spi;
    e.seq = p->seq;
    e.flow = p->outer.flow;
    e.policy_id = sa->params.policy_id;
    e.from = in ? *from : path.local;
    e.to = in ? path.local : path.remote;
    if (packet.len && flow_of(packet, &e.inner) != OK)
        e.inner.src.family = 0;
    audit_push(w, &e);
}

void audit_turn(struct worker *w)
{
    struct audit *a = &w->audit;
    if (a->next == NS_NEVER || worker_now(w) < a->next)
        return;
    a->next = NS_NEVER;
    for (unsigned i = 0; i < STAT_DROPS; i++) {
        if (!a->reasons[i].held)
            continue;
        struct audit_event e;
        memset(&e, 0, sizeof e);
        e.reason = (enum stat_id)(STAT_DROP_FIRST + i);
        e.summary = true;
        e.policy_id = SPD_NONE;
        audit_push(w, &e);
        if (a->reasons[i].held)
            a->next = worker_now(w) + AUDIT_QUIET;
    }
}
