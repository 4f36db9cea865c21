#include <stdlib.h>

#include "ike/internal.h"

#define REFUSED_WAIT (5 * NS_PER_S)     /* before a refused exchange is tried again, plus as much again at random */
#define REFUSED_LEAST (100 * NS_PER_MS) /* the same, when a hard limit is near */

struct task *task_new(enum task_kind kind)
{
    struct task *t = calloc(1, sizeof *t);
    if (t)
        t->kind = kind;
    return t;
}

void task_reset(struct ike_engine *e, struct task *t)
{
    kex_free(t->kex);
    t->kex = NULL;
    if (t->spi)
        e->env.spi_release(e->env.ctx, t->spi);
    t->spi = 0;
}

void task_free(struct ike_engine *e, struct task *t)
{
    if (!t)
        return;
    task_reset(e, t);
    free(t);
}

static void insert(struct ike_sa *sa, struct task *t, bool first)
{
    struct task **p = &sa->queue;
    while (*p && !first)
        p = &(*p)->next;
    t->next = *p;
    *p = t;
}

void task_queue(struct ike_sa *sa, struct task *t, bool first)
{
    insert(sa, t, first);
    if (sa->e->unhurried)
        timer_set(&sa->e->timers, &sa->wake, sa->e->now);
    else
        task_next(sa);
}

static bool task_is(const struct task *t, enum task_kind kind, uint64_t child, const struct policy *policy)
{
    return t->kind == kind && (!child || t->child == child) && (!policy || t->policy == policy);
}

bool task_waits(const struct ike_sa *sa, enum task_kind kind, uint64_t child, const struct policy *policy)
{
    if (sa->current && task_is(sa->current, kind, child, policy))
        return true;
    for (const struct task *t = sa->queue; t; t = t->next)
        if (task_is(t, kind, child, policy))
            return true;
    return false;
}

/* Which tasks an SA's state allows. */
static bool runnable(const struct ike_sa *sa, const struct task *t)
{
    if (t->not_before > sa->e->now)
        return false;
    /* A Child SA of the peer's that is being answered must not change its IKE SA meanwhile (section 2.25.2), and may be the
     * one that is wanted. */
    if ((t->kind == TASK_IKE_REKEY || t->kind == TASK_CHILD_NEW) && sa->pending)
        return false;
    switch (sa->state) {
    case SA_UP: /* while a rekey is undecided or being answered, the Child SAs are about to move */
        return !(sa->undecided_of || (sa->pending && sa->pending->ike)) || t->kind == TASK_IKE_DELETE;
    case SA_REPLACED:
    case SA_DELETING:
        return t->kind == TASK_IKE_DELETE;
    default:
        return false;
    }
}

static void start(struct ike_sa *sa)
{
    switch (sa->current->kind) {
    case TASK_CHILD_NEW:
    case TASK_CHILD_REKEY:
        create_start(sa);
        break;
    case TASK_IKE_REKEY:
        rekey_start(sa);
        break;
    case TASK_CHILD_DELETE:
    case TASK_IKE_DELETE:
    case TASK_LIVENESS:
        informational_start(sa);
        break;
    case TASK_PROBE:
        probe_start(sa);
        break;
    case TASK_UPDATE:
    case TASK_ANNOUNCE:
    case TASK_ROUTABLE:
        mobike_start(sa);
        break;
    case TASK_CONNECT:
        break;
    }
}

void task_next(struct ike_sa *sa)
{
    ns_t wake = NS_NEVER;
    if (sa->current || sa->state == SA_DEAD)
        return;
    for (struct task **p = &sa->queue; *p; p = &(*p)->next) {
        struct task *t = *p;
        if (runnable(sa, t)) {
            *p = t->next;
            t->next = NULL;
            sa->current = t;
            start(sa);
            return;
        }
        if (t->not_before > sa->e->now && t->not_before < wake)
            wake = t->not_before;
    }
    if (wake != NS_NEVER)
        timer_set(&sa->e->timers, &sa->wake, wake);
}

/* It becomes the Delete of what it disowns: that must not depend on memory for another task. */
static void turn_into_delete(struct task *t)
{
    kex_free(t->kex);
    *t = (struct task){.kind = TASK_CHILD_DELETE, .spi = t->spi, .protocol = t->offered.v[0].protocol};
}

void task_done(struct ike_sa *sa)
{
    struct task *t = sa->current;
    if (!t) /* the SA is dead, and its task went with it */
        return;
    sa->current = NULL;
    if (t->disowned) {
        turn_into_delete(t);
        insert(sa, t, false);
    } else {
        task_free(sa->e, t);
    }
    reauth_continue(sa);
    task_next(sa);
}

/* How long a refused task rests: a rekey comes back several times before the hard limit of what it replaces. */
static ns_t refused_wait(const struct ike_sa *sa, const struct task *t)
{
    struct ike_engine *e = sa->e;
    const struct child *c = t->kind == TASK_CHILD_REKEY ? child_find(e, t->child) : NULL;
    ns_t end = c ? c->hard_at : t->kind == TASK_IKE_REKEY ? sa->hard_at : 0;
    ns_t wait = REFUSED_WAIT + random_below(e, REFUSED_WAIT);
    if (end <= e->now)
        return wait;
    ns_t soon = (end - e->now) / 4;
    soon = soon < REFUSED_LEAST ? REFUSED_LEAST : soon;
    return soon < wait ? soon : wait;
}

void task_later(struct ike_sa *sa)
{
    struct ike_engine *e = sa->e;
    struct task *t = sa->current;
    sa->current = NULL;
    if (!t->refused_since)
        t->refused_since = e->now ? e->now : 1;
    if (e->now - t->refused_since > REFUSED_MAX) { /* the ends disagree about the state (section 2.25) */
        task_free(e, t);
        report(e, IKE_EVENT_NOTICE, sa_peer(sa), NULL, &sa->path,
               "%s has answered TEMPORARY_FAILURE for minutes: the IKE SA is made anew", sa_peer_name(sa));
        sa_delete(sa, true);
        return;
    }
    task_reset(e, t);
    t->retries = 0;
    t->collision = (struct collision){0};
    t->not_before = e->now + refused_wait(sa, t);
    insert(sa, t, false);
    task_next(sa);
}

void tasks_drop(struct ike_sa *sa, uint64_t child)
{
    for (struct task **p = &sa->queue; *p;) {
        struct task *t = *p;
        if (t->child == child && (t->kind == TASK_CHILD_REKEY || t->kind == TASK_CHILD_DELETE)) {
            *p = t->next;
            task_free(sa->e, t);
        } else {
            p = &t->next;
        }
    }
}
