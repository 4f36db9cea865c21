/*
 * Another configuration under running SAs. What it comes to is found, and what it needs is made, beforehand; to put it in
 * force takes no time, however many peers there are, for tables change places. Then run after run goes over to it, SA
 * after SA is deleted that has no place in it, and the runs of peers that have left go last. Nobody meets a run half way:
 * who looks for it by the new configuration has it go over first, and before that it is all of the old one.
 */
#include <limits.h>
#include <stdlib.h>

#include "ike/internal.h"

#define REPORTS_MOST 32     /* of one change: thousands of lines would take longer than all else */
#define CHILDREN_AT_ONCE 16 /* of one SA, which may have thousands */

struct ike_change {
    const struct config *from, *to;
    struct owned_policies all; /* of the new one */
    const struct peer **same;  /* by the place of the new ones: the same peer as it was; NULL: there was none */
    struct hash policies;      /* those that go on, by the address of the old one */
    struct went_on {
        struct hash_link by_old;
        const struct policy *new;
    } * pairs;
    struct ike_engine *e; /* that it was prepared for; NULL: not yet */
    uint64_t number;
    struct run **runs;       /* of the new configuration; once in force, of the old one */
    unsigned count;          /* of them, as far as they are made */
    unsigned listed;         /* of them, the last first, are in the new roll */
    unsigned settled, freed; /* in force: so many of them have gone over, or are to go and have gone */
    int reports_left;
};

static uint64_t policy_key(const struct policy *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* -- comparing -- */

static void compare(struct ike_change *c, struct config *to)
{
    to->generation = c->from->generation + 1;
    for (unsigned i = 0; i < to->peer_count; i++) {
        const struct peer *old = config_peer(c->from, to->peers[i]->name);
        c->same[i] = old && peer_equal(old, to->peers[i]) ? old : NULL;
    }
    for (unsigned i = 0; i < to->policy_count; i++) {
        struct policy *p = to->policies[i];
        const struct policy *old = config_policy(c->from, p->name);
        bool same = old && policy_equal(p, old) && (!p->peer || c->same[p->peer->number]);
        p->version = same ? old->version : to->generation;
        c->pairs[i].new = p;
        if (same)
            hash_add(&c->policies, &c->pairs[i].by_old, policy_key(old));
    }
}

enum err ike_change_new(struct ike_change **out, const struct config *from, struct config *to)
{
    struct ike_change *c = calloc(1, sizeof *c);
    if (!c)
        return ERR_NOMEM;
    c->from = from;
    c->to = to;
    c->same = calloc(to->peer_count + 1, sizeof *c->same);
    c->runs = calloc(to->peer_count + 1, sizeof(struct run *));
    c->pairs = calloc(to->policy_count + 1, sizeof *c->pairs);
    if (!c->same || !c->runs || !c->pairs || policies_sort(to, &c->all) != OK) {
        ike_change_free(c);
        return ERR_NOMEM;
    }
    compare(c, to);
    *out = c;
    return OK;
}

static void change_end(struct ike_change *c)
{
    hash_free(&c->policies);
    free(c->pairs);
    free(c->runs);
    free(c->same);
    free(c->all.v);
    free(c);
}

/* -- preparing -- */

/* Goes on in the configuration that is being prepared, or in force. */
static bool stays(const struct run *r, const struct ike_change *c)
{
    return r->stays == c->number;
}

static void unprepare_run(struct ike_change *c)
{
    struct run *r = c->runs[--c->count];
    if (!c->same[c->count]) {
        run_free(r);
        return;
    }
    choose_remove(r, !c->e->roll);
    free(r->next.policies);
    r->next = (struct heir){0};
}

bool ike_change_undo(struct ike_change *c, unsigned n)
{
    for (; n && c->count; n--)
        unprepare_run(c);
    if (c->e && !c->count)
        choose_end(c->e, !c->e->roll);
    return !c->count;
}

void ike_change_free(struct ike_change *c)
{
    if (!c)
        return;
    (void)ike_change_undo(c, UINT_MAX);
    change_end(c);
}

static enum err prepare_run(struct ike_change *c)
{
    const struct peer *peer = c->to->peers[c->count], *old = c->same[c->count];
    struct run *r;
    if (old) {
        r = c->e->runs[old->number];
        TRY(run_policies(&c->all, peer, &r->next.policies, &r->next.policy_count));
        r->next.peer = peer;
    } else {
        TRY(run_new(c->e, &c->all, peer, &r));
    }
    r->stays = c->number;
    c->runs[c->count++] = r;
    return OK;
}

enum err ike_change_prepare(struct ike_change *c, struct ike_engine *e, unsigned n, bool *over)
{
    if (!c->e)
        c->number = ++e->changes;
    c->e = e;
    for (; n && c->count < c->to->peer_count; n--)
        TRY(prepare_run(c));
    for (; n && c->listed < c->count; n--) {
        unsigned i = c->count - 1 - c->listed++;
        TRY(choose_add(c->runs[i], !e->roll, c->to->peers[i]));
    }
    *over = c->listed == c->to->peer_count;
    return OK;
}

/* -- going over -- */

/* The same policy in the new configuration, or NULL if it changed or went. */
static const struct policy *mapped(const struct ike_change *c, const struct policy *old)
{
    const struct hash_link *l = old ? hash_find(&c->policies, policy_key(old)) : NULL;
    return l ? CONTAINER_OF(l, struct went_on, by_old)->new : NULL;
}

static void move_tasks(struct ike_sa *sa, const struct ike_change *change)
{
    for (struct task **p = &sa->queue; *p;) {
        struct task *t = *p;
        const struct policy *policy = mapped(change, t->policy);
        if (t->policy && !policy) {
            *p = t->next;
            task_free(sa->e, t);
            continue;
        }
        t->policy = policy;
        p = &t->next;
    }
    if (sa->current) {
        sa->current->policy = mapped(change, sa->current->policy);
        sa->current->terms.policy = mapped(change, sa->current->terms.policy);
    }
    if (sa->pending)
        sa->pending->terms.policy = mapped(change, sa->pending->terms.policy);
}

/* What was held or asked for stays so, and so do the Child SAs. Mostly the policies are in the same order as before. */
static void move_policies(struct run *r, const struct ike_change *change)
{
    struct heir *next = &r->next;
    for (unsigned i = 0, at = 0; i < r->policy_count; i++) {
        const struct policy_run *old = &r->policies[i];
        const struct policy *p = mapped(change, old->policy);
        child_group_move(r->e, old->policy, p);
        if (!p)
            continue;
        while (next->policies[at].policy != p)
            at = (at + 1) % next->policy_count;
        next->policies[at] = *old;
        next->policies[at].policy = p;
    }
    free(r->policies);
    r->peer = next->peer;
    r->policies = next->policies;
    r->policy_count = next->policy_count;
    *next = (struct heir){0};
}

/* Its peer is gone or another one now, or the policy that it was to be made for. */
static void abandon(struct ike_sa *sa)
{
    if (sa->state == SA_UP || sa->state == SA_REPLACED) {
        report(sa->e, IKE_EVENT_NOTICE, sa_peer(sa), NULL, &sa->path,
               "%s was changed or removed in the configuration: its SAs are deleted", sa_peer_name(sa));
        sa_delete(sa, false);
    } else if (sa->state == SA_AUTH_SENT) {
        auth_call_off(sa);
    } else if (sa->state != SA_DELETING) {
        sa_kill(sa);
    }
    sa_unrelate(sa);
    sa_unlist(sa);
    sa->run = NULL; /* who has the same peer can't be found any more: nothing may refer to it, nor it to them */
    sa->undecided_of = sa->renews = sa->yields_to = NULL;
    sa->restart = false;
    for (struct child *c = sa->children; c; c = c->next)
        child_orphan(sa->e, c);
    if (sa->current) {
        sa->current->policy = sa->current->terms.policy = NULL;
        sa->current->collision.sa = NULL;
    }
    if (sa->pending)
        sa->pending->terms.policy = NULL;
    for (struct task *t = sa->queue; t; t = t->next)
        t->policy = NULL;
}

bool run_leaves(const struct run *r)
{
    return r->e->change && !stays(r, r->e->change);
}

void run_settle(struct run *r)
{
    const struct ike_change *change = r->e->change;
    if (!change || !r->next.policies || !stays(r, change))
        return;
    move_policies(r, change);
    for (struct ike_sa *sa = r->sas, *next; sa; sa = next) {
        next = sa->run_next;
        move_tasks(sa, change);
        if (sa_connecting(sa) && sa->current && !sa->current->policy)
            abandon(sa); /* it was for a policy that is gone; ike_start starts anew */
    }
}

/* Of policies that have gone. False: there are more. */
static bool delete_children(struct ike_sa *sa)
{
    unsigned n = 0;
    for (struct child *c = sa->children, *next; c && sa->state != SA_DEAD; c = next) {
        next = c->next;
        if (!c->group || c->group->policy)
            continue;
        if (n++ == CHILDREN_AT_ONCE)
            return false;
        if (c->state != CHILD_DELETING)
            child_report(c, IKE_EVENT_CHILD_DOWN, "down: its policy was changed or removed");
        child_delete(c, true);
        child_orphan(sa->e, c);
    }
    return true;
}

static void next_sa(struct ike_engine *e)
{
    struct ike_sa *sa = e->changing;
    bool over = true;
    if (sa->run && run_leaves(sa->run))
        abandon(sa);
    else
        over = delete_children(sa);
    if (over && e->changing == sa) /* else it has died, and sa.c has looked after that */
        e->changing = sa->next;
}

static void next_run(struct ike_change *c)
{
    struct run *r = c->runs[c->settled++];
    if (!stays(r, c))
        return;
    run_settle(r);
    choose_remove(r, !c->e->roll);
}

static void free_run(struct ike_change *c)
{
    struct run *r = c->runs[c->freed++];
    if (!stays(r, c))
        run_free(r);
}

/* What it brings about, each by itself a message or a line, comes with the next ticks, and not all at once. */
static void calmly(struct ike_engine *e)
{
    e->unhurried = true;
    e->reports_left = e->change->reports_left;
}

static void as_ever(struct ike_engine *e)
{
    e->unhurried = false;
    e->change->reports_left = e->reports_left;
}

void reload_drop(struct ike_engine *e)
{
    struct ike_change *c = e->change;
    if (!c)
        return;
    while (c->freed < c->count)
        free_run(c);
    e->change = NULL;
    change_end(c);
}

static void finish(struct ike_engine *e)
{
    struct ike_change *c = e->change;
    e->change = NULL;
    choose_end(e, !e->roll);
    if (c->reports_left < 0)
        report(e, IKE_EVENT_NOTICE, e->run_count ? e->runs[0]->peer : NULL, NULL, NULL,
               "%d more lines of this kind, about other peers, are left out", -c->reports_left);
    change_end(c);
}

bool ike_reload_some(struct ike_engine *e, unsigned n, ns_t now)
{
    struct ike_change *c = e->change;
    if (!c)
        return true;
    e->now = now;
    calmly(e);
    for (; n && c->settled < c->count; n--) {
        next_run(c);
        e->changing = c->settled == c->count ? e->sas : NULL;
    }
    for (; n && e->changing; n--)
        next_sa(e);
    for (; n && !e->changing && c->freed < c->count; n--)
        free_run(c);
    as_ever(e);
    if (c->freed == c->count)
        finish(e);
    engine_leave(e);
    return !e->change;
}

void ike_reload(struct ike_engine *e, struct ike_change *change, ns_t now)
{
    struct run **runs = e->runs;
    unsigned count = e->run_count;
    e->now = now;
    e->change = change;
    e->config = change->to;
    e->roll = !e->roll;
    e->runs = change->runs;
    e->run_count = change->count;
    change->runs = runs;
    change->count = count;
    change->reports_left = REPORTS_MOST;
    calmly(e);
    commands_move(e, mapped);
    commands_resume(e);
    as_ever(e);
    engine_leave(e);
}
