/*
 * Random configurations, one after the other, at moments drawn by chance: reloads are prepared, called off and put in
 * force by slices, with messages, commands and rekeys in between. Afterwards nobody may look at the old configuration,
 * whom it doesn't concern has kept its SAs, and both ends agree in the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])
#define POLICIES 4
#define PEERS 3
#define RELOADS 6
#ifndef SEEDS /* thousands have been tried */
#define SEEDS 240
#endif

/* A configuration of one node; freed once the next one is in force altogether. */
struct world {
    struct config config;
    struct peer peers[PEERS], *peer_list[PEERS];
    struct policy policies[POLICIES], *policy_list[POLICIES];
};

struct end {
    struct world *now, *next;
    struct ike_change *change;  /* being prepared, or called off */
    bool calling_off, settling; /* how far that is */
    uint64_t kept[SIM_SAS];     /* Child SAs that the reload is no concern of */
    unsigned kept_count;
};

struct trial {
    struct sim *s;
    struct end end[2];
    bool gentle; /* nobody but reloads, of A alone, takes anything down */
    uint64_t command;
};

/* What SAs of a policy that has gone are of, in the model of the data plane. */
static struct policy gone;

static void policy_make(const struct world *w, struct policy *p, const struct sim_node *n, unsigned number,
                        unsigned kind)
{
    char net[2][40];
    *p = n->policies[0];
    snprintf(p->name, sizeof p->name, "net%u", number);
    for (unsigned k = 0; k < 2; k++)
        snprintf(net[k], sizeof net[k], "10.%u.%u.0/24", k + 1, number);
    sim_selectors(&p->local, net[n->index]);
    sim_selectors(&p->remote, net[1 - n->index]);
    p->peer = w->peer_list[0];
    p->lifetime += kind * 60 * NS_PER_S;
}

/* The other end, perhaps another one with other settings, and two who never answer. */
static void peers_make(struct world *w, const struct sim_node *n, unsigned kind, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        struct peer *p = &w->peers[i];
        *p = n->peers[0];
        w->peer_list[i] = p;
        if (i) {
            snprintf(p->name, sizeof p->name, "nobody%u", i);
            p->endpoints[0].at.ip.b[3] = (uint8_t)(100 + i);
            p->remote_id.b[0] = (uint8_t)('k' + i);
        } else {
            p->dpd += kind * NS_PER_S;
            if (n->index && kind & 2) {
                p->endpoint_any = true;
                p->endpoint_count = 0;
                p->start = START_NO;
            }
        }
    }
    if (count > 1 && kind & 1) { /* in another order */
        struct peer *first = w->peer_list[0];
        w->peer_list[0] = w->peer_list[count - 1];
        w->peer_list[count - 1] = first;
    }
    for (unsigned i = 0; i < count; i++)
        w->peer_list[i]->number = i;
    w->config.peer_count = count;
}

/* rich: with all that both ends have at the end of a trial. */
static struct world *world_make(struct trial *t, unsigned k, bool rich)
{
    struct sim *s = t->s;
    const struct sim_node *n = &s->node[k];
    struct world *w = calloc(1, sizeof *w);
    bool none = !rich && !t->gentle && sim_rand(s, 8) == 0;
    w->config.host = n->config.host;
    w->config.peers = w->peer_list;
    w->config.policies = w->policy_list;
    peers_make(w, n, t->gentle || sim_rand(s, 3) ? 0 : sim_rand(s, 4), none ? 0 : 1 + sim_rand(s, PEERS));
    for (unsigned i = 0; i < POLICIES && !none; i++) {
        struct policy *p = &w->policies[i];
        if (!rich && sim_rand(s, 4) == 0)
            continue;
        policy_make(w, p, n, i, !rich && sim_rand(s, 4) == 0);
        p->peer = &w->peers[0];
        unsigned at = sim_rand(s, ++w->config.policy_count);
        w->policy_list[w->config.policy_count - 1] = w->policy_list[at];
        w->policy_list[at] = p;
    }
    for (unsigned i = 1; i < w->config.peer_count; i++)
        w->peers[i].start = sim_rand(s, 2) ? START_YES : START_NO;
    return w;
}

/* -- a reload, as the daemon does it -- */

static void begin(struct trial *t, unsigned k, bool rich)
{
    struct end *end = &t->end[k];
    end->next = world_make(t, k, rich);
    assert_int_equal(ike_change_new(&end->change, &end->now->config, &end->next->config), OK);
}

/* Who sends for a policy that goes on, of a peer that does. */
static void note_kept(struct trial *t, unsigned k)
{
    struct end *end = &t->end[k];
    struct sim_node *n = &t->s->node[k];
    end->kept_count = 0;
    for (unsigned i = 0; i < n->top; i++) {
        const struct sim_sa *sa = &n->sas[i];
        const struct child *c = sa->used && sa->sending ? child_find(n->e, sa->id) : NULL;
        const struct policy *old = c ? child_policy(c) : NULL, *p;
        if (!old || (p = config_policy(&end->next->config, old->name)) == NULL || !policy_equal(old, p) ||
            !peer_equal(old->peer, p->peer))
            continue;
        assert_int_equal(old->version, p->version);
        end->kept[end->kept_count++] = sa->id;
    }
}

/* The model of the data plane knows policies by their place in memory. */
static void point_anew(struct sim_node *n)
{
    for (unsigned i = 0; i < n->top; i++) {
        struct sim_sa *sa = &n->sas[i];
        const struct child *c = sa->used ? child_find(n->e, sa->id) : NULL;
        sa->policy = c && child_policy(c) ? child_policy(c) : &gone;
    }
}

static void in_force(struct trial *t, unsigned k)
{
    struct end *end = &t->end[k];
    note_kept(t, k);
    ike_reload(t->s->node[k].e, end->change, t->s->now);
    point_anew(&t->s->node[k]);
    end->change = NULL;
    end->settling = true;
}

static void check_kept(const struct trial *t, unsigned k)
{
    struct sim *s = t->s;
    const struct end *end = &t->end[k];
    for (unsigned i = 0; t->gentle && i < end->kept_count; i++) {
        const struct child *c = child_find(s->node[k].e, end->kept[i]);
        assert_sim(c && c->state == CHILD_LIVE && c->sending);
    }
}

/* All of it is over: each SA has a policy of the new configuration, or is on its way out. */
static void settled(struct trial *t, unsigned k)
{
    struct sim *s = t->s;
    struct end *end = &t->end[k];
    struct sim_node *n = &s->node[k];
    end->settling = false;
    free(end->now);
    end->now = end->next;
    end->next = NULL;
    for (unsigned i = 0; i < n->top; i++) {
        const struct sim_sa *sa = &n->sas[i];
        assert_sim(sa->policy != &gone || !sa->used || !sa->sending);
        if (sa->used && sa->policy != &gone)
            assert_ptr_equal(config_policy(&end->now->config, sa->policy->name), sa->policy);
    }
    check_kept(t, k);
    ike_start(n->e, s->now);
}

static void over(struct end *end)
{
    ike_change_free(end->change);
    free(end->next);
    end->change = NULL;
    end->next = NULL;
    end->calling_off = false;
}

/* A slice of it. */
static void go_on(struct trial *t, unsigned k)
{
    struct end *end = &t->end[k];
    struct sim_node *n = &t->s->node[k];
    bool ready = false;
    if (end->settling) {
        bool all = ike_reload_some(n->e, 1, t->s->now);
        point_anew(n);
        if (all)
            settled(t, k);
    } else if (end->calling_off) {
        if (ike_change_undo(end->change, 1))
            over(end);
    } else if (end->change) {
        assert_int_equal(ike_change_prepare(end->change, n->e, 1, &ready), OK);
        end->calling_off = sim_rand(t->s, 40) == 0;
        if (ready && !end->calling_off)
            in_force(t, k);
    }
}

static bool reloading(const struct end *end)
{
    return end->change || end->settling;
}

/* -- what else happens meanwhile -- */

static const struct config *config_of(const struct end *end)
{
    return end->settling ? &end->next->config : &end->now->config;
}

static void look(struct sim_node *n, const struct peer *peer)
{
    struct endpoint candidates[PEER_CANDIDATES];
    struct ike_walk *walk;
    struct ike_sa_info sa;
    struct ike_child_info child;
    unsigned current;
    ns_t when;
    (void)ike_last_error(n->e, peer, &when);
    (void)ike_candidates(n->e, peer, candidates, &current);
    assert_int_equal(ike_walk_new(n->e, &walk), OK);
    ike_walk_peer(walk, peer);
    while (ike_walk_sa(walk, &sa))
        while (ike_walk_child(walk, &child))
            assert_true(!child.policy || child.policy->name[0]);
    ike_walk_free(walk);
}

static void disturb(struct trial *t, unsigned k)
{
    struct sim *s = t->s;
    struct sim_node *n = &s->node[k];
    const struct config *c = config_of(&t->end[k]);
    unsigned what = sim_rand(s, t->gentle ? 3 : 8);
    if (!c->peer_count || !c->policy_count)
        return;
    const struct peer *peer = c->peers[sim_rand(s, c->peer_count)];
    const struct policy *p = c->policies[sim_rand(s, c->policy_count)];
    if (what == 0)
        look(n, peer);
    else if (what == 1)
        ike_acquire(n->e, p, NULL, s->now);
    else if (what == 2)
        ike_up(n->e, p->peer, sim_rand(s, 2) ? p : NULL, ++t->command, s->now);
    else if (what == 3)
        ike_rekey(n->e, p->peer, p, ++t->command, s->now);
    else if (what == 4)
        ike_rekey(n->e, p->peer, NULL, ++t->command, s->now);
    else if (what == 5 && sim_rand(s, 3) == 0)
        ike_down(n->e, p->peer, sim_rand(s, 2) ? p : NULL, ++t->command, s->now);
    else if (what == 6 && n->top)
        ike_child_soft(n->e, n->sas[sim_rand(s, n->top)].id, s->now);
    else if (what == 7)
        ike_up(n->e, peer, NULL, ++t->command, s->now);
}

static void pass_time(struct trial *t)
{
    struct sim *s = t->s;
    unsigned most = sim_rand(s, 6) ? 4 : sim_rand(s, 4) ? 60 : 4000;
    sim_for(s, sim_rand(s, most) * NS_PER_MS);
}

/* -- a trial -- */

static bool all_there(struct sim *s)
{
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < s->node[k].e->config->policy_count; i++)
            if (!child_live(s->node[k].e, s->node[k].e->config->policies[i]))
                return false;
    return sim_agree(s);
}

static void settle_all(struct trial *t)
{
    while (reloading(&t->end[0]) || reloading(&t->end[1]))
        for (unsigned k = 0; k < 2; k++)
            go_on(t, k);
}

/* Both have all policies again, and bring them up. */
static void come_together(struct trial *t)
{
    struct sim *s = t->s;
    for (unsigned k = 0; k < 2; k++)
        do { /* some are called off */
            begin(t, k, true);
            settle_all(t);
        } while (t->end[k].now->config.policy_count != POLICIES ||
                 t->end[k].now->policies[0].lifetime != A->policies[0].lifetime);
    sim_for(s, 60 * NS_PER_S); /* what was refused lately waits for its turn */
    for (unsigned k = 0; k < 2; k++)
        ike_up(s->node[k].e, &t->end[k].now->peers[0], NULL, ++t->command, s->now);
    assert_sim(sim_run(s, s->now + 400 * NS_PER_S, all_there));
    sim_for(s, 200 * NS_PER_S);
    assert_sim(all_there(s) && !A->e->commands && !B->e->commands && !A->e->change && !B->e->change);
}

static void trial_start(struct trial *t, uint64_t seed)
{
    *t = (struct trial){.s = sim_new(seed), .gentle = seed % 3 == 0};
    struct sim *s = t->s;
    s->jitter = 5 * NS_PER_MS;
    s->loss = t->gentle ? 0 : sim_rand(s, 2) * 5;
    s->duplicate = s->reorder = t->gentle ? 0 : 5;
    s->traffic = 100 * NS_PER_MS;
    for (unsigned k = 0; k < 2; k++) {
        struct sim_node *n = &s->node[k];
        n->peers[0].start = k == 0 || (!t->gentle && sim_rand(s, 2)) ? START_YES : START_NO;
        struct world *w = t->end[k].now = world_make(t, k, t->gentle);
        n->config.peers = w->peer_list;
        n->config.policies = w->policy_list;
        n->config.peer_count = w->config.peer_count;
        n->config.policy_count = w->config.policy_count;
        w->config = n->config;
    }
    sim_start_engines(s, NULL);
    for (unsigned k = 0; k < 2; k++)
        ike_start(s->node[k].e, s->now);
    if (t->gentle)
        sim_for(s, 5 * NS_PER_S);
}

static void trial_end(struct trial *t)
{
    struct sim *s = t->s;
    s->traffic = 0;
    for (unsigned k = 0; k < 2; k++)
        ike_shutdown(s->node[k].e, s->now);
    assert_sim(sim_run(s, s->now + 400 * NS_PER_S, sim_empty));
    sim_free(s);
    for (unsigned k = 0; k < 2; k++)
        free(t->end[k].now);
}

static void try(uint64_t seed)
{
    struct trial t;
    trial_start(&t, seed);
    for (unsigned n = 0; n < RELOADS; n++) {
        unsigned k = t.gentle ? 0 : sim_rand(t.s, 2);
        pass_time(&t);
        if (!reloading(&t.end[k]))
            begin(&t, k, false);
        while (reloading(&t.end[k])) {
            go_on(&t, k);
            if (sim_rand(t.s, 3) == 0)
                disturb(&t, t.gentle ? 0 : sim_rand(t.s, 2));
            if (sim_rand(t.s, 3) == 0)
                pass_time(&t);
        }
    }
    come_together(&t);
    trial_end(&t);
}

static void reloads_by_slices_amid_everything(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        try(seed);
}

/* Or else what lingers of the first would carry what the second is for. */
static void a_policy_that_comes_back_is_another_version(void **state)
{
    (void)state;
    struct trial t = {.s = sim_new(1), .gentle = true};
    struct world *w[3];
    struct ike_change *change;
    for (unsigned i = 0; i < 3; i++)
        w[i] = world_make(&t, 0, true);
    w[1]->config.policy_count = 0;
    for (unsigned i = 1; i < 3; i++) {
        assert_int_equal(ike_change_new(&change, &w[i - 1]->config, &w[i]->config), OK);
        ike_change_free(change);
    }
    assert_int_not_equal(w[2]->policies[0].version, w[0]->policies[0].version);
    for (unsigned i = 0; i < 3; i++)
        free(w[i]);
    sim_free(t.s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_policy_that_comes_back_is_another_version),
        cmocka_unit_test(reloads_by_slices_amid_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
