/* What is under way while an SA is being closed: nothing comes up on it any more, and the peer keeps nothing of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "ike/internal.h"
#include "test/unit/reload.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])

static struct sim *two_policies(uint64_t seed)
{
    struct sim *s = sim_new(seed);
    sim_two_policies(s);
    return s;
}

/* The first policy is up at both ends. */
static struct sim *connected(uint64_t seed)
{
    struct sim *s = two_policies(seed);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], &A->policies[0], 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_both));
    sim_for(s, NS_PER_S);
    return s;
}

static enum sim_fate hold_answers(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)ctx;
    return p->from == 1 ? SIM_HOLD : SIM_DELIVER;
}

/* B's answer arrives after all. */
static void let_through(struct sim *s)
{
    assert_non_null(sim_held(s, 0));
    s->hook = NULL;
    while (sim_held(s, 0))
        sim_release(s, sim_held(s, 0));
}

/* The same configuration, but for its peer, whose SAs are to be deleted. */
struct other_config {
    struct config config;
    struct peer peer, *peers[1];
    struct policy policies[2], *policy_list[2];
};

static void change_peer(struct sim *s, struct other_config *to)
{
    *to = (struct other_config){.config = A->config, .peer = A->peers[0]};
    to->peer.dpd += NS_PER_S;
    to->peers[0] = &to->peer;
    for (unsigned i = 0; i < 2; i++) {
        to->policies[i] = A->policies[i];
        to->policies[i].peer = &to->peer;
        to->policy_list[i] = &to->policies[i];
    }
    to->config.peers = to->peers;
    to->config.policies = to->policy_list;
    reload(A->e, &to->config, s->now);
}

/* The peer has made the successor by then, which is closed with what it succeeds. */
static void successor_in_the_making_is_closed_too(void **state)
{
    (void)state;
    for (unsigned how = 0; how < 3; how++) {
        struct sim *s = connected(1 + how);
        struct other_config changed;
        s->hook = hold_answers;
        ike_rekey(A->e, &A->peers[0], NULL, 5, s->now);
        sim_for(s, 100 * NS_PER_MS);
        assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 1);
        if (how == 0)
            ike_down(A->e, &A->peers[0], NULL, 6, s->now);
        else if (how == 1)
            change_peer(s, &changed);
        else
            ike_shutdown(A->e, s->now);
        let_through(s);
        sim_for(s, 20 * NS_PER_S);
        assert_sim(how || (sim_command(A, 6) && sim_command(A, 6)->ok));
        assert_sim(sim_empty(s));
        sim_free(s);
    }
}

/* Taken down and wanted again at once: what was under way on the old IKE SA counts for nothing. */
static void child_sa_in_the_making_is_none_of_the_next(void **state)
{
    (void)state;
    struct sim *s = connected(2);
    s->hook = hold_answers;
    ike_up(A->e, &A->peers[0], &A->policies[1], 5, s->now);
    sim_for(s, 100 * NS_PER_MS);
    ike_down(A->e, &A->peers[0], NULL, 6, s->now);
    ike_up(A->e, &A->peers[0], &A->policies[1], 7, s->now);
    let_through(s);
    sim_for(s, 10 * NS_PER_S);
    assert_sim(sim_command(A, 5) && !sim_command(A, 5)->ok);
    assert_sim(sim_command(A, 7) && sim_command(A, 7)->ok);
    assert_sim(sim_sending(A, &A->policies[1]) && sim_agree(s));
    assert_sim(sim_ike_sas(A, IKE_ESTABLISHED) == 1 && sim_ike_sas(B, IKE_ESTABLISHED) == 1);
    sim_free(s);
}

/* One policy taken down while it is about to come up; and perhaps wanted again before that is over. */
static void policy_taken_down_stays_down(void **state)
{
    (void)state;
    for (unsigned soon = 0; soon < 2; soon++) {
        struct sim *s = connected(10 + soon);
        s->hook = hold_answers;
        ike_up(A->e, &A->peers[0], &A->policies[1], 5, s->now);
        sim_for(s, 100 * NS_PER_MS);
        ike_down(A->e, &A->peers[0], &A->policies[1], 6, s->now);
        if (soon)
            ike_up(A->e, &A->peers[0], &A->policies[1], 7, s->now);
        let_through(s);
        sim_for(s, 10 * NS_PER_S);
        assert_sim(sim_command(A, 5) && !sim_command(A, 5)->ok && sim_command(A, 6) && sim_command(A, 6)->ok);
        if (!soon) {
            assert_sim(!sim_sending(A, &A->policies[1]) && !sim_sending(B, &B->policies[1]));
            assert_sim(sim_children(A) == 1 && sim_children(B) == 1 && sim_agree(s));
            ike_up(A->e, &A->peers[0], &A->policies[1], 7, s->now);
            sim_for(s, 10 * NS_PER_S);
        }
        assert_sim(sim_command(A, 7) && sim_command(A, 7)->ok);
        assert_sim(sim_sending(B, &B->policies[1]) && sim_children(B) == 2 && sim_agree(s));
        sim_free(s);
    }
}

static void policy_taken_down_while_it_is_rekeyed(void **state)
{
    (void)state;
    struct sim *s = connected(4);
    s->hook = hold_answers;
    ike_rekey(A->e, &A->peers[0], &A->policies[0], 5, s->now);
    sim_for(s, 100 * NS_PER_MS);
    ike_down(A->e, &A->peers[0], &A->policies[0], 6, s->now);
    let_through(s);
    sim_for(s, 10 * NS_PER_S);
    assert_sim(sim_command(A, 6) && sim_command(A, 6)->ok);
    assert_sim(sim_children(A) == 0 && sim_children(B) == 0);
    sim_free(s);
}

static void policy_taken_down_during_ike_auth(void **state)
{
    (void)state;
    struct sim *s = two_policies(5);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], &A->policies[0], 1, s->now);
    while (!sim_ike_sas(B, IKE_ESTABLISHED))
        sim_for(s, NS_PER_MS);
    ike_down(A->e, &A->peers[0], &A->policies[0], 2, s->now);
    sim_for(s, 10 * NS_PER_S);
    assert_sim(sim_command(A, 1) && !sim_command(A, 1)->ok);
    assert_sim(sim_command(A, 2) && sim_command(A, 2)->ok);
    assert_sim(sim_children(A) == 0 && sim_children(B) == 0);
    sim_free(s);
}

static enum sim_fate hold_all(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)p;
    (void)ctx;
    return SIM_HOLD;
}

/* The n'th of what is held from that node, oldest first, arrives; so does no other. */
static void pass(struct sim *s, unsigned from, unsigned n)
{
    struct sim_packet *p = NULL;
    for (unsigned i = 0; (p = sim_held(s, i)) != NULL; i++)
        if (p->from == from && n-- == 0)
            break;
    assert_non_null(p);
    sim_release(s, p);
    sim_for(s, 30 * NS_PER_MS);
}

/* The peer deletes what it has just made, and its Delete is here before the answer that tells of it. */
static void delete_comes_before_what_it_deletes(void **state)
{
    (void)state;
    for (unsigned rekey = 0; rekey < 2; rekey++) {
        struct sim *s = connected(20 + rekey);
        const struct policy *policy = &A->policies[!rekey];
        s->hook = hold_answers;
        if (rekey)
            ike_rekey(A->e, &A->peers[0], policy, 5, s->now);
        else
            ike_up(A->e, &A->peers[0], policy, 5, s->now);
        sim_for(s, 100 * NS_PER_MS);
        assert_true(sim_sending(B, NULL));
        ike_child_hard(B->e, 2, s->now);
        pass(s, 1, 1);
        let_through(s);
        sim_for(s, NS_PER_S);
        assert_sim(sim_agree(s) && sim_children(A) == sim_children(B));
        ike_up(A->e, &A->peers[0], policy, 6, s->now);
        sim_for(s, 5 * NS_PER_S);
        assert_sim(sim_sending(A, policy) && sim_agree(s) && sim_children(A) == sim_children(B));
        sim_free(s);
    }
}

/*
 * Both ends rekey the IKE SA, and the peer leaves the configuration before it is decided whose new one stays. The peer's
 * is deleted and forgotten first; then our own rekey is refused.
 */
static void peer_removed_during_a_collision(void **state)
{
    (void)state;
    struct sim *s = connected(6);
    struct other_config changed;
    s->hook = hold_all;
    ike_rekey(A->e, &A->peers[0], NULL, 5, s->now);
    ike_rekey(B->e, &B->peers[0], NULL, 6, s->now);
    sim_for(s, 30 * NS_PER_MS);
    pass(s, 1, 0); /* B's request: now there are two */
    assert_int_equal(sim_ike_sas(A, IKE_ESTABLISHED) + sim_ike_sas(A, IKE_REKEYING), 2);
    change_peer(s, &changed);
    assert_int_equal(sim_ike_sas(A, IKE_DELETING), 2);
    pass(s, 0, 1); /* A's answer: B deletes the old one */
    pass(s, 0, 1); /* A's Delete of the new one, and the answer to it */
    pass(s, 1, 1);
    assert_int_equal(sim_ike_sas(A, IKE_DELETING), 1);
    pass(s, 0, 0); /* A's rekey of what B deletes */
    pass(s, 1, 1);
    s->hook = NULL;
    sim_for(s, 100 * NS_PER_S);
    assert_sim(sim_empty(s));
    sim_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(successor_in_the_making_is_closed_too),
        cmocka_unit_test(child_sa_in_the_making_is_none_of_the_next),
        cmocka_unit_test(policy_taken_down_stays_down),
        cmocka_unit_test(policy_taken_down_while_it_is_rekeyed),
        cmocka_unit_test(policy_taken_down_during_ike_auth),
        cmocka_unit_test(delete_comes_before_what_it_deletes),
        cmocka_unit_test(peer_removed_during_a_collision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
