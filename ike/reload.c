/* Another configuration under running SAs: equal peers and policies are re-pointed, the others' SAs are deleted. */
#include <stdlib.h>
#include <string.h>

#include "ike/internal.h"

#define REPORTS_MOST 32 /* of one change: thousands of lines would take longer than all else */

/* What a change comes to, found before it is made. */
struct ike_change {
    const struct config *from, *to;
    struct owned_policies all; /* of the new one */
    const struct peer **same;  /* by the place of the new ones: the same peer as it was; NULL: there was none */
    struct run **runs;         /* room for those of the new configuration */
    struct hash policies;      /* those that go on, by the address of the old one */
    struct went_on {
        struct hash_link by_old;
        const struct policy *new;
    } * pairs;
};

static uint64_t policy_key(const struct policy *p)
{
    return (uint64_t)(uintptr_t)p;
}

static void compare(struct ike_change *c)
{
    for (unsigned i = 0; i < c->to->peer_count; i++) {
        const struct peer *old = config_peer(c->from, c->to->peers[i]->name);
        c->same[i] = old && peer_equal(old, c->to->peers[i]) ? old : NULL;
    }
    for (unsigned i = 0; i < c->from->policy_count; i++) {
        const struct policy *old = c->from->policies[i], *p = config_policy(c->to, old->name);
        c->pairs[i].new = p;
        if (p && policy_equal(p, old))
            hash_add(&c->policies, &c->pairs[i].by_old, policy_key(old));
    }
}

enum err ike_change_new(struct ike_change **out, const struct config *from, const struct config *to)
{
    struct ike_change *c = calloc(1, sizeof *c);
    if (!c)
        return ERR_NOMEM;
    c->from = from;
    c->to = to;
    c->same = calloc(to->peer_count + 1, sizeof *c->same);
    c->runs = calloc(to->peer_count + 1, sizeof(struct run *));
    c->pairs = calloc(from->policy_count + 1, sizeof *c->pairs);
    if (!c->same || !c->runs || !c->pairs || policies_sort(to, &c->all) != OK) {
        ike_change_free(c);
        return ERR_NOMEM;
    }
    compare(c);
    *out = c;
    return OK;
}

void ike_change_free(struct ike_change *c)
{
    if (!c)
        return;
    hash_free(&c->policies);
    free(c->pairs);
    free(c->runs);
    free(c->same);
    free(c->all.v);
    free(c);
}

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

static void move_children(struct ike_sa *sa, const struct ike_change *change)
{
    for (struct child *c = sa->children, *next; c && sa->state != SA_DEAD; c = next) {
        next = c->next;
        const struct policy *p = mapped(change, c->policy);
        if (!p && c->state != CHILD_DELETING) {
            child_report(c, IKE_EVENT_CHILD_DOWN, "down: its policy was changed or removed");
            child_delete(c, true);
        }
        c->policy = p;
    }
}

/* Its peer is gone or another one now. */
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
        c->policy = NULL;
    if (sa->current) {
        sa->current->policy = sa->current->terms.policy = NULL;
        sa->current->collision.sa = NULL;
    }
    if (sa->pending)
        sa->pending->terms.policy = NULL;
    for (struct task *t = sa->queue; t; t = t->next)
        t->policy = NULL;
}

/* Mostly each of its policies goes on as it is, and nothing else is there. */
static bool same_policies(const struct run *r, const struct ike_change *change, const struct owned_policy *mine,
                          unsigned n)
{
    if (n != r->policy_count)
        return false;
    for (unsigned i = 0; i < n; i++)
        if (mapped(change, r->policies[i].policy) != mine[i].policy)
            return false;
    return true;
}

/* The old run of an unchanged peer takes over the new pointers; what was held or asked for stays so. */
static enum err adopt(struct run *r, const struct peer *peer, const struct ike_change *change)
{
    struct policy_run *old = r->policies;
    unsigned n = r->policy_count, now;
    const struct owned_policy *mine = policies_of(&change->all, peer, &now);
    r->peer = peer;
    if (same_policies(r, change, mine, now)) {
        for (unsigned i = 0; i < n; i++)
            old[i].policy = mine[i].policy;
        return OK;
    }
    enum err err = run_policies(r, &change->all);
    if (err != OK) {
        r->policies = old;
        r->policy_count = 0;
        return err;
    }
    for (unsigned i = 0; i < n; i++) {
        const struct policy *p = mapped(change, old[i].policy);
        struct policy_run *to = p ? run_policy(r, p) : NULL;
        if (to) {
            *to = old[i];
            to->policy = p;
        }
    }
    free(old);
    return OK;
}

static void move_commands(struct ike_engine *e, const struct ike_change *change)
{
    for (struct command *c = e->commands; c; c = c->next)
        if (c->policy && !mapped(change, c->policy))
            c->vanished = true;
        else
            c->policy = mapped(change, c->policy);
}

static void switch_runs(struct ike_engine *e, const struct ike_change *change)
{
    for (unsigned i = 0; i < e->run_count; i++)
        if (!e->runs[i]->kept)
            commands_orphan(e, e->runs[i]);
    for (struct ike_sa *sa = e->sas, *next; sa; sa = next) {
        next = sa->next;
        if (sa->run && !sa->run->kept)
            abandon(sa);
    }
    move_commands(e, change);
    child_groups_move(e, change, mapped);
    for (struct ike_sa *sa = e->sas, *next; sa; sa = next) {
        next = sa->next;
        if (!sa->run)
            continue;
        move_tasks(sa, change);
        move_children(sa, change);
        if (sa_connecting(sa) && sa->current && !sa->current->policy)
            abandon(sa); /* it was for a policy that is gone; ike_start starts anew */
    }
    commands_orphan(e, NULL);
}

static void free_runs(struct ike_engine *e)
{
    for (unsigned i = 0; i < e->run_count; i++)
        if (!e->runs[i]->kept)
            run_free(e->runs[i]);
    free(e->runs);
}

/* The runs of the new configuration. A peer for which there is no memory stays unknown until the next one. */
static unsigned collect_runs(struct ike_engine *e, const struct ike_change *change)
{
    unsigned n = 0;
    for (unsigned i = 0; i < change->to->peer_count; i++) {
        struct run *r = change->same[i] ? run_of(e, change->same[i]) : NULL;
        if (r)
            r->kept = true;
        if (r || run_new(e, &change->all, change->to->peers[i], &r) == OK)
            change->runs[n++] = r;
    }
    return n;
}

/* All peers are there as before, in the same order: so they are found as before. */
static bool same_runs(const struct ike_engine *e, const struct ike_change *change, unsigned n)
{
    return n == e->run_count && memcmp(e->runs, change->runs, n * sizeof *e->runs) == 0;
}

static void adopt_runs(struct ike_change *change, unsigned n)
{
    for (unsigned i = 0, k = 0; i < change->to->peer_count && k < n; i++) {
        struct run *r = change->runs[k];
        const struct peer *peer = change->to->peers[i];
        if (r->peer != (r->kept ? change->same[i] : peer)) /* there was no memory for a run of this one */
            continue;
        k++;
        if (r->kept && adopt(r, peer, change) != OK)
            r->policy_count = 0;
        r->kept = false;
    }
}

/* What it brings about, each by itself a message or a line, comes with the next ticks, and not all at once. */
static void calmly(struct ike_engine *e)
{
    e->unhurried = true;
    e->reports_left = REPORTS_MOST;
}

static void as_ever(struct ike_engine *e)
{
    e->unhurried = false;
    if (e->reports_left < 0)
        report(e, IKE_EVENT_NOTICE, e->run_count ? e->runs[0]->peer : NULL, NULL, NULL,
               "%d more lines of this kind, about other peers, are left out", -e->reports_left);
}

void ike_reload(struct ike_engine *e, struct ike_change *change, ns_t now)
{
    e->now = now;
    calmly(e);
    unsigned n = collect_runs(e, change);
    bool same = same_runs(e, change, n);
    if (!same)
        choose_unload(e);
    switch_runs(e, change);
    free_runs(e);
    adopt_runs(change, n);
    e->runs = change->runs;
    change->runs = NULL;
    e->run_count = n;
    e->config = change->to;
    if (!same)
        choose_load(e);
    commands_resume(e);
    as_ever(e);
    engine_leave(e);
    ike_change_free(change);
}
