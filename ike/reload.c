/* Another configuration under running SAs: equal peers and policies are re-pointed, the others' SAs are deleted. */
#include <stdlib.h>

#include "ike/internal.h"

/* The same policy in the new configuration, or NULL if it changed or went. */
static const struct policy *mapped(const struct config *config, const struct policy *old)
{
    const struct policy *p = old ? config_policy(config, old->name) : NULL;
    return p && policy_equal(p, old) ? p : NULL;
}

static void move_tasks(struct ike_sa *sa, const struct config *config)
{
    for (struct task **p = &sa->queue; *p;) {
        struct task *t = *p;
        const struct policy *policy = mapped(config, t->policy);
        if (t->policy && !policy) {
            *p = t->next;
            task_free(sa->e, t);
            continue;
        }
        t->policy = policy;
        p = &t->next;
    }
    if (sa->current) {
        sa->current->policy = mapped(config, sa->current->policy);
        sa->current->terms.policy = mapped(config, sa->current->terms.policy);
    }
    if (sa->pending)
        sa->pending->terms.policy = mapped(config, sa->pending->terms.policy);
}

static void move_children(struct ike_sa *sa, const struct config *config)
{
    for (struct child *c = sa->children, *next; c && sa->state != SA_DEAD; c = next) {
        next = c->next;
        const struct policy *p = mapped(config, c->policy);
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
    } else if (sa->state != SA_DELETING) {
        sa_kill(sa);
    }
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

/* The old run of an unchanged peer takes over the new pointers; what was held or asked for stays so. */
static enum err adopt(struct run *r, const struct peer *peer, const struct config *config,
                      const struct owned_policies *all)
{
    struct policy_run *old = r->policies;
    unsigned n = r->policy_count;
    r->peer = peer;
    enum err err = run_policies(r, all);
    if (err != OK) {
        r->policies = old;
        r->policy_count = 0;
        return err;
    }
    for (unsigned i = 0; i < n; i++) {
        const struct policy *p = mapped(config, old[i].policy);
        struct policy_run *to = p ? run_policy(r, p) : NULL;
        if (to) {
            *to = old[i];
            to->policy = p;
        }
    }
    free(old);
    return OK;
}

static void move_commands(struct ike_engine *e, const struct config *config)
{
    for (struct command *c = e->commands; c; c = c->next)
        if (c->policy && !mapped(config, c->policy))
            c->vanished = true;
        else
            c->policy = mapped(config, c->policy);
}

static struct run *taken_over(struct ike_engine *e, const struct peer *peer)
{
    const struct peer *old = config_peer(e->config, peer->name);
    struct run *r = old && peer_equal(old, peer) ? run_of(e, old) : NULL;
    if (r)
        r->kept = true;
    return r;
}

static void switch_runs(struct ike_engine *e, const struct config *config)
{
    for (unsigned i = 0; i < e->run_count; i++)
        if (!e->runs[i]->kept)
            commands_orphan(e, e->runs[i]);
    for (struct ike_sa *sa = e->sas, *next; sa; sa = next) {
        next = sa->next;
        if (sa->run && !sa->run->kept)
            abandon(sa);
    }
    move_commands(e, config);
    child_groups_move(e, config, mapped);
    for (struct ike_sa *sa = e->sas, *next; sa; sa = next) {
        next = sa->next;
        if (!sa->run)
            continue;
        move_tasks(sa, config);
        move_children(sa, config);
        if (sa_connecting(sa) && sa->current && !sa->current->policy)
            sa_kill(sa); /* it was for a policy that is gone; ike_start starts anew */
    }
    commands_orphan(e, NULL);
}

/* The runs of the new configuration. A peer for which there is no memory stays unknown until the next reload. */
static unsigned collect_runs(struct ike_engine *e, const struct config *config, const struct owned_policies *all,
                             struct run **runs)
{
    unsigned n = 0;
    for (unsigned i = 0; i < config->peer_count; i++) {
        runs[n] = taken_over(e, config->peers[i]);
        if (runs[n] || run_new(e, all, config->peers[i], &runs[n]) == OK)
            n++;
    }
    return n;
}

void ike_reload(struct ike_engine *e, const struct config *config, ns_t now)
{
    e->now = now;
    struct owned_policies all;
    bool sorted = policies_sort(config, &all) == OK;
    struct run **runs = sorted ? calloc(config->peer_count + 1, sizeof(struct run *)) : NULL;
    unsigned n = runs ? collect_runs(e, config, &all, runs) : 0;
    choose_unload(e);
    switch_runs(e, config);
    for (unsigned i = 0; i < e->run_count; i++)
        if (!e->runs[i]->kept)
            run_free(e->runs[i]);
    for (unsigned i = 0; i < n; i++) {
        const struct peer *peer = config_peer(config, runs[i]->peer->name);
        runs[i]->kept = false;
        if (runs[i]->peer != peer && adopt(runs[i], peer, config, &all) != OK)
            runs[i]->policy_count = 0;
    }
    free(all.v);
    free(e->runs);
    e->runs = runs;
    e->run_count = n;
    e->config = config;
    choose_load(e);
    commands_resume(e);
    engine_leave(e);
}
