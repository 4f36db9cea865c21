/*
 * Another configuration that comes step by step, while messages, commands, packets and a status go on: whatever moment
 * it is, nobody meets a peer half way, nothing of the old one is looked at once it is gone (a sanitizer sees that), and
 * both ends agree in the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ike/internal.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])

/* A configuration of A that can be freed when it is none any more. */
struct world {
    struct config config;
    struct peer peer[2], *peers[2];
    struct policy policy[3], *policies[3];
};

enum {
    OTHER_PEER = 1,   /* its SAs are to be deleted */
    OTHER_NAME = 2,   /* likewise: another peer, and the first one is gone */
    OTHER_POLICY = 4, /* likewise those of the first policy */
    ONE_POLICY = 8,   /* the second one is gone */
    ORDER = 16,       /* they change places, and so do the peers */
    NO_PEER = 32,
    WINDOW = 64, /* what changes in place */
    ALL = 127,
};

static struct world *world_new(const struct sim_node *n, unsigned how)
{
    struct world *w = calloc(1, sizeof *w);
    unsigned swap = how & ORDER ? 1 : 0;
    w->config.host = n->config.host;
    w->config.peers = w->peers;
    w->config.policies = w->policies;
    if (how & NO_PEER)
        return w;
    for (unsigned i = 0; i < 2; i++) {
        w->peer[i] = n->peers[0];
        w->peer[i].number = i ^ swap;
        w->peers[i ^ swap] = &w->peer[i];
    }
    snprintf(w->peer[1].name, sizeof w->peer[1].name, "someone else");
    w->peer[1].start = START_NO;
    assert_int_equal(identity_parse("else.test", &w->peer[1].remote_id), OK);
    w->peer[0].dpd += how & OTHER_PEER ? NS_PER_S : 0;
    if (how & OTHER_NAME)
        snprintf(w->peer[0].name, sizeof w->peer[0].name, "renamed");
    w->config.peer_count = 2;
    w->config.policy_count = how & ONE_POLICY ? 1 : 2;
    for (unsigned i = 0; i < w->config.policy_count; i++) {
        w->policy[i] = n->policies[i];
        w->policy[i].peer = &w->peer[0];
        w->policy[i].replay_window = how & WINDOW ? 4096 : 1024;
        w->policies[how & ONE_POLICY ? 0 : i ^ swap] = &w->policy[i];
    }
    w->policy[0].lifetime += how & OTHER_POLICY ? NS_PER_S : 0;
    return w;
}

static void world_free(struct world *w)
{
    if (w)
        memset(w, 0xaa, sizeof *w);
    free(w);
}

static struct sim *two_policies(uint64_t seed)
{
    struct sim *s = sim_new(seed);
    sim_two_policies(s);
    for (unsigned k = 0; k < 2; k++)
        s->node[k].peers[0].start = START_YES;
    return s;
}

/* What anybody may ask for at any time, by the configuration in force. */
static void ask(struct sim *s, const struct config *c, struct ike_walk *walk)
{
    const struct peer *peer = c->peer_count ? c->peers[sim_rand(s, c->peer_count)] : NULL;
    const struct policy *policy = c->policy_count ? c->policies[sim_rand(s, c->policy_count)] : NULL;
    struct ike_sa_info sa;
    struct ike_child_info child;
    struct endpoint at[PEER_CANDIDATES];
    unsigned current;
    if (!policy)
        return;
    switch (sim_rand(s, 8)) {
    case 0:
        ike_acquire(A->e, policy, NULL, s->now);
        break;
    case 1:
        ike_rekey(A->e, policy->peer, policy, 0, s->now);
        break;
    case 2:
        ike_rekey(A->e, policy->peer, NULL, 0, s->now);
        break;
    case 3:
        ike_up(A->e, policy->peer, NULL, 0, s->now);
        break;
    case 4:
        ike_down(A->e, policy->peer, policy, 0, s->now);
        break;
    case 5:
        ike_walk_peer(walk, peer);
        break;
    case 6:
        assert_non_null(ike_last_error(A->e, peer, NULL));
        assert_int_equal(ike_candidates(A->e, peer, at, &current), 1);
        break;
    default:
        break;
    }
    while (sim_rand(s, 2) && ike_walk_sa(walk, &sa))
        if (ike_walk_child(walk, &child) && child.policy)
            assert_true(strlen(child.policy->name) < sizeof child.policy->name);
}

static enum sim_fate hold_some(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)ctx;
    return !p->esp && sim_rand(s, 4) == 0 ? SIM_HOLD : SIM_DELIVER;
}

static void some_time(struct sim *s)
{
    static const ns_t times[] = {0, 0, NS_PER_MS, 4 * NS_PER_MS, 20 * NS_PER_MS, 3 * NS_PER_S, 40 * NS_PER_S};
    sim_for(s, times[sim_rand(s, sizeof times / sizeof *times)]);
    while (sim_held(s, 0) && sim_rand(s, 2))
        sim_release(s, sim_held(s, 0));
}

/* False: it was prepared and came to nothing. */
static bool switch_slowly(struct sim *s, const struct config *from, struct world *to, struct ike_walk *walk)
{
    struct ike_change *change;
    bool over = false;
    unsigned stop = sim_rand(s, 12);
    assert_int_equal(ike_change_new(&change, from, &to->config), OK);
    for (unsigned i = 0; !over && i != stop; i++) {
        assert_int_equal(ike_change_prepare(change, A->e, 1, &over), OK);
        ask(s, from, walk);
        some_time(s);
    }
    if (!over || sim_rand(s, 8) == 0) {
        while (!ike_change_undo(change, 1))
            ask(s, from, walk);
        ike_change_free(change);
        return false;
    }
    ike_reload(A->e, change, s->now);
    for (over = false; !over;) {
        ask(s, &to->config, walk);
        some_time(s);
        over = ike_reload_some(A->e, 1, s->now);
    }
    return true;
}

static void switch_at_once(struct sim *s, const struct config *from, struct world *to)
{
    struct ike_change *change;
    bool over;
    assert_int_equal(ike_change_new(&change, from, &to->config), OK);
    assert_int_equal(ike_change_prepare(change, A->e, 100, &over), OK);
    assert_true(over);
    ike_reload(A->e, change, s->now);
    while (!ike_reload_some(A->e, 100, s->now))
        continue;
}

static void another_configuration_comes_step_by_step_at_any_moment(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 150; seed++) {
        struct sim *s = two_policies(seed);
        struct world *in_force = NULL;
        const struct config *config = &A->config;
        struct ike_walk *walk;
        s->loss = seed % 3 ? 0 : 5;
        s->hook = seed % 2 ? hold_some : NULL;
        sim_start_engines(s, NULL);
        assert_int_equal(ike_walk_new(A->e, &walk), OK);
        ike_start(A->e, s->now);
        for (unsigned i = 0; i < 12; i++) {
            some_time(s);
            struct world *next = world_new(A, sim_rand(s, ALL + 1) & sim_rand(s, ALL + 1) & sim_rand(s, ALL + 1));
            if (!switch_slowly(s, config, next, walk)) {
                world_free(next);
                continue;
            }
            world_free(in_force);
            in_force = next;
            config = &next->config;
            if (sim_rand(s, 2)) /* else the next one comes at once */
                ike_start(A->e, s->now);
        }
        struct world *last = world_new(A, 0);
        switch_at_once(s, config, last);
        world_free(in_force);
        ike_walk_free(walk);
        s->hook = NULL;
        s->loss = 0;
        while (sim_held(s, 0))
            sim_release(s, sim_held(s, 0));
        ike_start(A->e, s->now);
        sim_for(s, 400 * NS_PER_S); /* whatever it was, it is over */
        ike_up(A->e, &last->peer[0], NULL, 7, s->now);
        sim_for(s, 180 * NS_PER_S);
        if (!sim_command(A, 7)->ok || !sim_agree(s))
            fprintf(stderr, "seed %u\n", (unsigned)seed);
        assert_sim(sim_command(A, 7)->ok && sim_agree(s));
        for (unsigned i = 0; i < 2; i++) {
            const struct child *c = child_live(A->e, &last->policy[i]);
            assert_sim(c && c->sending && child_policy(c) == &last->policy[i]);
        }
        sim_free(s);
        world_free(last);
    }
}

static bool all_up(struct sim *s)
{
    return sim_children(A) == 2 && sim_children(B) == 2;
}

/* Both policies are up; then the change is in force, and nothing of what follows from it has happened yet. */
static struct sim *switched(struct world **w, unsigned how)
{
    struct sim *s = two_policies(3);
    struct ike_change *change;
    bool over;
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    assert_sim(sim_run(s, s->now + 10 * NS_PER_S, all_up));
    sim_for(s, NS_PER_S);
    *w = world_new(A, how);
    assert_int_equal(ike_change_new(&change, &A->config, &(*w)->config), OK);
    assert_int_equal(ike_change_prepare(change, A->e, 100, &over), OK);
    assert_true(over);
    ike_reload(A->e, change, s->now);
    return s;
}

static void end(struct sim *s, struct world *w)
{
    sim_free(s);
    world_free(w);
}

/* All at one moment, however long the rest takes: what is asked for by the old one is not there any more. */
static void the_switch_is_at_one_moment(void **state)
{
    (void)state;
    struct world *w;
    struct sim *s = switched(&w, OTHER_NAME);
    assert_ptr_equal(run_of(A->e, &w->peer[0])->peer, &w->peer[0]);
    assert_null(run_of(A->e, &A->peers[0]));
    ike_up(A->e, &A->peers[0], NULL, 4, s->now);
    assert_sim(!sim_command(A, 4)->ok);
    ike_acquire(A->e, &A->policies[0], NULL, s->now); /* a packet that a worker saw before */
    struct strangers at = strangers_at(A->e, &B->ip);
    for (struct run *r; (r = stranger_next(&at)) != NULL;)
        assert_true(r->peer == &w->peer[0] || r->peer == &w->peer[1]);
    assert_int_equal(sim_children(A), 2); /* its SAs are still to go … */
    assert_int_equal(A->job_count, 0);
    while (!ike_reload_some(A->e, 1, s->now))
        continue;
    memset(A->peers, 0xaa, sizeof A->peers);
    memset(A->policies, 0xaa, sizeof A->policies);
    ike_start(A->e, s->now);
    sim_for(s, 60 * NS_PER_S); /* … and the new peer's come */
    assert_sim(all_up(s) && sim_agree(s));
    assert_int_equal(sim_count(A, IKE_EVENT_IKE_UP), 2);
    end(s, w);
}

/* Who asks for a peer by the new configuration has it go over first, with all that it has. */
static void who_asks_for_a_peer_meets_it_whole(void **state)
{
    (void)state;
    struct world *w;
    struct sim *s = switched(&w, WINDOW | ORDER);
    const struct run *r = run_of(A->e, &w->peer[0]);
    assert_ptr_equal(r->peer, &w->peer[0]);
    for (unsigned i = 0; i < 2; i++) {
        const struct child *c = child_live(A->e, &w->policy[i]);
        assert_true(c && c->sending && child_policy(c) == &w->policy[i]);
        assert_ptr_equal(r->policies[1 - i].policy, &w->policy[i]);
    }
    while (!ike_reload_some(A->e, 1, s->now))
        continue;
    end(s, w);
}

/* Its SAs wait for the peer's answer when nobody knows their policies any more. */
static void what_is_deleted_has_no_policy(void **state)
{
    (void)state;
    static const unsigned hows[] = {OTHER_PEER, OTHER_POLICY};
    for (unsigned i = 0; i < 2; i++) {
        struct world *w;
        struct sim *s = switched(&w, hows[i]);
        while (!ike_reload_some(A->e, 1, s->now))
            continue;
        unsigned gone = 0;
        for (const struct child *c = A->e->sas->children; c; c = c->next)
            gone += !child_named(c);
        assert_int_equal(gone, i ? 1 : 2);
        assert_non_null(sim_find(A, i ? IKE_EVENT_CHILD_DOWN : IKE_EVENT_NOTICE, "was changed or removed"));
        end(s, w);
    }
}

/* It is only there still to be forgotten: no timer of its brings anything up, whatever step comes when. */
static void a_peer_that_leaves_is_not_called_again(void **state)
{
    (void)state;
    for (unsigned wait = 0; wait < 3; wait++) {
        struct world *w;
        struct sim *s = switched(&w, NO_PEER);
        struct run *r = A->e->sas->run;
        bool over = false;
        s->cut = true;
        for (unsigned step = 0; !over; step++) {
            if (step == wait) {
                run_later(r, 0);
                sim_for(s, NS_PER_S);
            }
            over = ike_reload_some(A->e, 1, s->now);
        }
        memset(A->peers, 0xaa, sizeof A->peers);
        memset(A->policies, 0xaa, sizeof A->policies);
        sim_for(s, 300 * NS_PER_S);
        assert_true(ike_idle(A->e));
        end(s, w);
    }
}

/* The peer rekeys, deletes and closes what has yet to go over, or to go. */
static void the_peer_speaks_before_their_turn(void **state)
{
    (void)state;
    static const unsigned hows[] = {0, OTHER_PEER, OTHER_POLICY, ONE_POLICY, NO_PEER, ORDER | WINDOW};
    for (unsigned i = 0; i < sizeof hows / sizeof *hows; i++)
        for (unsigned what = 0; what < 4; what++) {
            struct world *w;
            struct sim *s = switched(&w, hows[i]);
            if (what == 0)
                ike_rekey(B->e, &B->peers[0], &B->policies[0], 0, s->now);
            else if (what == 1)
                ike_rekey(B->e, &B->peers[0], NULL, 0, s->now);
            else if (what == 2)
                ike_down(B->e, &B->peers[0], &B->policies[0], 0, s->now);
            else
                ike_child_hard(A->e, A->e->sas->children->id, s->now);
            sim_for(s, NS_PER_S);
            do
                sim_for(s, NS_PER_MS);
            while (!ike_reload_some(A->e, 1, s->now));
            memset(A->peers, 0xaa, sizeof A->peers);
            memset(A->policies, 0xaa, sizeof A->policies);
            ike_start(A->e, s->now);
            sim_for(s, 100 * NS_PER_S);
            assert_sim(sim_agree(s));
            if (w->config.policy_count) {
                ike_up(A->e, &w->peer[0], NULL, 9, s->now);
                sim_for(s, 100 * NS_PER_S);
                assert_sim(sim_command(A, 9)->ok && sim_agree(s));
            } else {
                assert_int_equal(sim_children(A), 0);
            }
            end(s, w);
        }
}

/* What ends in the midst of it is freed whole. */
static void the_engine_ends_amid_a_change(void **state)
{
    (void)state;
    for (unsigned steps = 0; steps < 8; steps++)
        for (unsigned deleted = 0; deleted < 2; deleted++) {
            struct world *w;
            struct sim *s = switched(&w, steps % 2 ? OTHER_NAME | ONE_POLICY : OTHER_POLICY);
            for (unsigned i = 0; i < steps; i++)
                (void)ike_reload_some(A->e, 1, s->now);
            if (deleted) {
                ike_shutdown(A->e, s->now);
                sim_for(s, 5 * NS_PER_S);
                assert_sim(ike_idle(A->e));
            }
            end(s, w);
        }
}

/* A command that waits goes over with its peer; one whose policy goes is told so at once. */
static void commands_go_over_or_end(void **state)
{
    (void)state;
    struct world *w;
    struct sim *s = two_policies(5);
    struct ike_change *change;
    bool over;
    sim_start_engines(s, NULL);
    s->cut = true;
    ike_up(A->e, &A->peers[0], &A->policies[0], 1, s->now);
    ike_up(A->e, &A->peers[0], &A->policies[1], 2, s->now);
    w = world_new(A, ONE_POLICY);
    assert_int_equal(ike_change_new(&change, &A->config, &w->config), OK);
    assert_int_equal(ike_change_prepare(change, A->e, 100, &over), OK);
    ike_reload(A->e, change, s->now);
    assert_sim(sim_command(A, 2) && !sim_command(A, 2)->ok && !sim_command(A, 1));
    while (!ike_reload_some(A->e, 1, s->now))
        continue;
    memset(A->peers, 0xaa, sizeof A->peers);
    memset(A->policies, 0xaa, sizeof A->policies);
    s->cut = false;
    ike_start(A->e, s->now);
    sim_for(s, 60 * NS_PER_S);
    assert_sim(sim_command(A, 1) && sim_command(A, 1)->ok);
    end(s, w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_switch_is_at_one_moment),
        cmocka_unit_test(who_asks_for_a_peer_meets_it_whole),
        cmocka_unit_test(what_is_deleted_has_no_policy),
        cmocka_unit_test(a_peer_that_leaves_is_not_called_again),
        cmocka_unit_test(the_peer_speaks_before_their_turn),
        cmocka_unit_test(the_engine_ends_amid_a_change),
        cmocka_unit_test(commands_go_over_or_end),
        cmocka_unit_test(another_configuration_comes_step_by_step_at_any_moment),
    };
    return crypto_init() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
