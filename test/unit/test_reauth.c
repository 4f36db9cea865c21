/* Reauthentication: a new IKE SA takes the place of the old one without a gap (RFC 7296 section 2.8.3, RFC 4478). */
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

static void close_all(struct sim *s)
{
    s->traffic = 0;
    s->loss = s->duplicate = 0;
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    bool empty = sim_run(s, s->now + 100 * NS_PER_S, sim_empty);
    if (!empty)
        sim_dump(s);
    assert_true(empty);
    sim_free(s);
}

/* Three policies each, which mirror each other. */
static void three_policies(struct sim *s)
{
    static const char *const nets[2][3] = {{"10.1.0.0/24", "10.3.0.0/24", "10.5.0.0/24"},
                                           {"10.2.0.0/24", "10.4.0.0/24", "10.6.0.0/24"}};
    for (unsigned k = 0; k < 2; k++) {
        struct sim_node *n = &s->node[k];
        for (unsigned i = 0; i < 3; i++) {
            n->policies[i] = n->policies[0];
            snprintf(n->policies[i].name, sizeof n->policies[i].name, "net%u", i);
            sim_selectors(&n->policies[i].local, nets[k][i]);
            sim_selectors(&n->policies[i].remote, nets[1 - k][i]);
        }
        n->config.policy_count = 3;
    }
}

static struct sim *connected(uint64_t seed, ns_t a, ns_t b, bool three)
{
    struct sim *s = sim_new(seed);
    if (three)
        three_policies(s);
    A->peers[0].reauth = a;
    B->peers[0].reauth = b;
    A->peers[0].start = START_YES;
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    sim_for(s, 8 * NS_PER_S);
    assert_true(sim_both(s) && sim_agree(s));
    s->traffic = 5 * NS_PER_MS;
    return s;
}

/* One IKE SA at each end, all its Child SAs, and nothing ever fell into a gap. */
static void assert_whole(struct sim *s, unsigned children)
{
    bool good = sim_ike_sas(A, IKE_ESTABLISHED) == 1 && sim_ike_sas(B, IKE_ESTABLISHED) == 1 &&
                sim_children(A) == children && sim_children(B) == children && sim_agree(s) && !s->esp_lost;
    if (!good)
        sim_dump(s);
    assert_true(good);
    assert_int_equal(sim_count(A, IKE_EVENT_IKE_DOWN) + sim_count(B, IKE_EVENT_IKE_DOWN), 0);
    assert_int_equal(sim_count(A, IKE_EVENT_CHILD_DOWN) + sim_count(B, IKE_EVENT_CHILD_DOWN), 0);
}

static void new_before_old_goes(void **state)
{
    (void)state;
    struct sim *s = connected(1, 600 * NS_PER_S, 0, false);
    uint64_t first = A->e->sas->spi_i;
    sim_for(s, 530 * NS_PER_S); /* 10 % of jitter */
    assert_true(A->e->sas->spi_i == first);
    sim_for(s, 75 * NS_PER_S);
    assert_true(A->e->sas->spi_i != first);
    assert_non_null(sim_find(A, IKE_EVENT_NOTICE, "authenticated anew"));
    assert_whole(s, 1);
    s->traffic = NS_PER_S;
    sim_for(s, 3000 * NS_PER_S);
    assert_whole(s, 1);
    assert_true(sim_count(A, IKE_EVENT_IKE_UP) >= 6);
    close_all(s);
}

static void all_child_sas_come_over(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 20; seed++) {
        struct sim *s = connected(seed, 60 * NS_PER_S, 0, true);
        s->jitter = 5 * NS_PER_MS;
        sim_for(s, 70 * NS_PER_S);
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_UP), 2);
        assert_whole(s, 3);
        for (unsigned i = 0; i < 3; i++)
            assert_true(sim_sending(A, &A->policies[i]) && sim_sending(B, &B->policies[i]));
        close_all(s);
    }
}

/* What is on its way on the old SA when the new one is there still finds it. */
static void old_sa_outlives_its_traffic(void **state)
{
    (void)state;
    for (uint64_t seed = 20; seed < 30; seed++) {
        struct sim *s = connected(seed, 60 * NS_PER_S, 0, true);
        A->abrupt = B->abrupt = true;
        s->jitter = 20 * NS_PER_MS;
        s->traffic = NS_PER_MS;
        sim_for(s, 66 * NS_PER_S);
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_UP), 2);
        assert_whole(s, 3);
        close_all(s);
    }
}

static void loss_delays_it_and_loses_no_packet(void **state)
{
    (void)state;
    for (uint64_t seed = 30; seed < 45; seed++) {
        struct sim *s = connected(seed, 60 * NS_PER_S, 0, true);
        s->loss = 15;
        s->duplicate = 10;
        s->jitter = 5 * NS_PER_MS;
        s->traffic = 50 * NS_PER_MS;
        sim_for(s, 66 * NS_PER_S);
        s->loss = 0;
        sim_for(s, 40 * NS_PER_S);
        assert_true(sim_count(A, IKE_EVENT_IKE_UP) >= 2);
        assert_int_equal(sim_count(A, IKE_EVENT_CHILD_DOWN), 0);
        close_all(s);
    }
}

/* The responder sends AUTH_LIFETIME; the initiator, without any such setting, keeps to it. */
static void responder_asks_the_initiator_for_it(void **state)
{
    (void)state;
    struct sim *s = connected(50, 0, 600 * NS_PER_S, false);
    uint64_t first = A->e->sas->spi_i;
    assert_true(A->e->sas->reauth_at > s->now && A->e->sas->reauth_at < s->now + 545 * NS_PER_S);
    sim_for(s, 545 * NS_PER_S);
    assert_true(A->e->sas->spi_i != first);
    assert_true(A->e->sas->initiator);
    assert_whole(s, 1);
    close_all(s);
}

/* The initiator does not: then the responder calls, or, where it never does, ends the SA. */
static void responder_sees_to_it_where_the_initiator_does_not(void **state)
{
    (void)state;
    for (unsigned calls = 0; calls < 2; calls++) {
        struct sim *s = connected(51 + calls, 0, 600 * NS_PER_S, false);
        B->peers[0].start = calls ? START_ON_DEMAND : START_NO;
        A->e->sas->reauth_at = 0;
        sa_arm(A->e->sas);
        s->traffic = NS_PER_S;
        sim_for(s, 670 * NS_PER_S);
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_UP), 2);
        if (calls) {
            assert_false(A->e->sas->initiator);
            assert_whole(s, 1);
        } else {
            assert_non_null(sim_find(B, IKE_EVENT_NOTICE, "end of its life"));
        }
        close_all(s);
    }
}

static void the_limit_goes_over_to_a_rekeyed_sa(void **state)
{
    (void)state;
    struct sim *s = connected(53, 600 * NS_PER_S, 0, false);
    ns_t at = A->e->sas->reauth_at;
    ike_rekey(B->e, &B->peers[0], NULL, 5, s->now);
    sim_for(s, 5 * NS_PER_S);
    assert_true(sim_command(B, 5)->ok);
    assert_true(A->e->sas_last->reauth_at == at && A->e->sas_last->caller);
    assert_false(A->e->sas_last->initiator);
    sim_for(s, 600 * NS_PER_S);
    assert_int_equal(sim_count(A, IKE_EVENT_IKE_UP), 2);
    assert_whole(s, 1);
    close_all(s);
}

/* While the peer can't be reached the old SA stays; it is tried again until the end of the old one's time. */
static enum sim_fate no_first_messages(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)ctx;
    return !p->keepalive && p->data[18] == EXCHANGE_SA_INIT ? SIM_DROP : SIM_DELIVER;
}

static void failed_attempts_leave_the_old_one(void **state)
{
    (void)state;
    struct sim *s = connected(54, 3600 * NS_PER_S, 0, false);
    uint64_t first = A->e->sas->spi_i;
    s->traffic = NS_PER_S;
    s->hook = no_first_messages;
    sim_for(s, 3800 * NS_PER_S);
    assert_true(A->e->sas->spi_i == first && sim_both(s));
    assert_non_null(sim_find(A, IKE_EVENT_FAILED, "does not answer IKE_SA_INIT"));
    s->hook = NULL;
    sim_for(s, 120 * NS_PER_S);
    assert_true(A->e->sas->spi_i != first);
    assert_whole(s, 1);
    close_all(s);
}

/* Attempts that failed make a policy wait; the old SA does not go without its Child SAs for that. */
static void no_policy_is_left_behind_after_failures(void **state)
{
    (void)state;
    struct sim *s = connected(55, 12 * 3600 * NS_PER_S, 0, true);
    s->traffic = NS_PER_S;
    s->hook = no_first_messages;
    sim_for(s, 12 * 3600 * NS_PER_S); /* the last tenth of it */
    s->hook = NULL;
    for (unsigned ups = sim_count(A, IKE_EVENT_IKE_UP); sim_count(A, IKE_EVENT_IKE_UP) == ups;)
        sim_for(s, 10 * NS_PER_MS);
    sim_for(s, 3 * NS_PER_S);
    assert_whole(s, 3);
    close_all(s);
}

static void both_ends_at_once(void **state)
{
    (void)state;
    for (uint64_t seed = 60; seed < 80; seed++) {
        struct sim *s = connected(seed, 3600 * NS_PER_S, 3600 * NS_PER_S, true);
        s->jitter = 5 * NS_PER_MS;
        assert_true(reauth_begin(A->e->sas));
        sim_for(s, sim_rand(s, 60) * NS_PER_MS);
        (void)reauth_begin(B->e->sas);
        sim_for(s, 20 * NS_PER_S);
        s->traffic = NS_PER_S;
        sim_for(s, 100 * NS_PER_S);
        bool good = sim_ike_sas(A, IKE_ESTABLISHED) >= 1 && sim_agree(s) && !s->esp_lost;
        for (unsigned i = 0; i < 3; i++)
            good = good && sim_sending(A, &A->policies[i]) && sim_sending(B, &B->policies[i]);
        if (!good)
            sim_dump(s);
        assert_true(good);
        assert_int_equal(sim_count(A, IKE_EVENT_CHILD_DOWN) + sim_count(B, IKE_EVENT_CHILD_DOWN), 0);
        close_all(s);
    }
}

/* A hostile AUTH_LIFETIME of nothing brings an exchange every now and then, not without end. */
static void a_lifetime_of_nothing_is_bounded(void **state)
{
    (void)state;
    struct sim *s = connected(90, 0, 0, false);
    struct ike_message m = {.notify = {{.type = NOTIFY_AUTH_LIFETIME, .data = span_of("\0\0\0\0", 4)}}, .notifies = 1};
    for (unsigned i = 0; i < 100; i++) {
        reauth_hint(A->e->sas_last, &m);
        sim_for(s, NS_PER_S);
    }
    assert_in_range(sim_count(A, IKE_EVENT_IKE_UP), 5, 12);
    assert_int_equal(s->esp_lost, 0);
    close_all(s);
}

static unsigned up_count(struct sim_node *n)
{
    return sim_ike_sas(n, IKE_ESTABLISHED) + sim_ike_sas(n, IKE_REKEYING);
}

/* The peer closes the new SA at once: the old one takes its place again, and is rekeyed and renewed when that is due. */
static void the_old_one_stays_if_the_new_one_goes(void **state)
{
    (void)state;
    for (unsigned rekey = 0; rekey < 2; rekey++) {
        struct sim *s = sim_new(91 + rekey);
        A->peers[0].reauth = 1000 * NS_PER_S;
        A->peers[0].rekey = rekey ? 1200 * NS_PER_S : 0;
        A->peers[0].start = START_YES;
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        sim_for(s, 2 * NS_PER_S);
        struct ike_sa *old = A->e->sas;
        s->traffic = 100 * NS_PER_MS;
        while (!old->leave_at)
            sim_for(s, 50 * NS_PER_MS);
        B->e->now = s->now;
        sa_delete(B->e->sas_last, false);
        sim_for(s, NS_PER_S);
        assert_true(A->e->sas == old && A->e->sas_last == old && !old->yields_to && !old->leave_at);
        assert_true(sim_both(s) && sim_agree(s) && !s->esp_lost);
        if (rekey) /* nothing else that could save it */
            old->reauth_at = old->reauth_end = 0;
        sa_arm(old);
        sim_for(s, rekey ? 350 * NS_PER_S : 65 * NS_PER_S);
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_REKEYED), rekey);
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_UP), rekey ? 2 : 3);
        assert_null(sim_find(A, IKE_EVENT_NOTICE, "end of its life"));
        assert_true(sim_both(s) && sim_agree(s) && !s->esp_lost);
        close_all(s);
    }
}

/* The peer rekeys the old SA in the seconds before that is deleted: what comes of it goes as well, without a word. */
static void the_old_one_may_be_rekeyed_while_it_leaves(void **state)
{
    (void)state;
    for (uint64_t seed = 95; seed < 99; seed++) {
        struct sim *s = connected(seed, 60 * NS_PER_S, 0, true);
        struct ike_sa *old = A->e->sas;
        while (!old->leave_at)
            sim_for(s, 5 * NS_PER_MS);
        B->e->now = s->now;
        assert_true(sa_rekey(B->e->sas));
        sim_for(s, 10 * NS_PER_S);
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_REKEYED), 1);
        assert_sim(sim_ike_sas(A, IKE_ESTABLISHED) == 1 && sim_children(A) == 3 && sim_agree(s) && !s->esp_lost);
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_DOWN), 0);
        close_all(s);
    }
}

/* Both ends have called, too far apart to notice. Each end's SAs are renewed by it, one way or the other. */
static void two_that_each_renews_become_one(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++) {
        bool rekey = seed % 2, three = seed % 3 == 2;
        struct sim *s = connected(300 + seed, rekey ? 0 : 60 * NS_PER_S, rekey ? 0 : 60 * NS_PER_S, three);
        s->jitter = 5 * NS_PER_MS;
        for (unsigned k = 0; rekey && k < 2; k++) {
            s->node[k].peers[0].rekey = (50 + 20 * k) * NS_PER_S; /* for the second SA, and all after it */
            sa_rekey(s->node[k].e->sas);
        }
        sim_for(s, NS_PER_S);
        struct run *run = B->e->runs[0];
        for (unsigned i = 0; i < run->policy_count; i++)
            run->policies[i].once = true;
        B->e->now = s->now;
        sa_init_start(run, run->policies[0].policy, NULL);
        sim_for(s, 10 * NS_PER_S);
        assert_in_range(up_count(A), 2, 2);
        for (unsigned i = 1; i < run->policy_count; i++) { /* and all that the other has */
            struct task *t = task_new(TASK_CHILD_NEW);
            t->policy = run->policies[i].policy;
            t->anew = true;
            B->e->now = s->now;
            task_queue(B->e->sas_last, t, false);
            sim_for(s, NS_PER_S);
        }
        assert_in_range(up_count(B), 2, 2);
        sim_for(s, 400 * NS_PER_S);
        assert_whole(s, three ? 3 : 1);
        close_all(s);
    }
}

/* Two IKE SAs that carry different policies are no doubles. */
static void two_that_share_the_work_stay_two(void **state)
{
    (void)state;
    struct sim *s = connected(400, 60 * NS_PER_S, 60 * NS_PER_S, true);
    struct run *run = B->e->runs[0];
    B->e->now = s->now;
    sa_init_start(run, run->policies[0].policy, NULL);
    sim_for(s, 10 * NS_PER_S);
    sim_for(s, 400 * NS_PER_S);
    assert_true(sim_agree(s) && !s->esp_lost);
    for (unsigned i = 0; i < 3; i++)
        assert_true(sim_sending(A, &A->policies[i]) && sim_sending(B, &B->policies[i]));
    close_all(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_before_old_goes),
        cmocka_unit_test(all_child_sas_come_over),
        cmocka_unit_test(old_sa_outlives_its_traffic),
        cmocka_unit_test(loss_delays_it_and_loses_no_packet),
        cmocka_unit_test(responder_asks_the_initiator_for_it),
        cmocka_unit_test(responder_sees_to_it_where_the_initiator_does_not),
        cmocka_unit_test(the_limit_goes_over_to_a_rekeyed_sa),
        cmocka_unit_test(failed_attempts_leave_the_old_one),
        cmocka_unit_test(no_policy_is_left_behind_after_failures),
        cmocka_unit_test(both_ends_at_once),
        cmocka_unit_test(two_that_each_renews_become_one),
        cmocka_unit_test(two_that_share_the_work_stay_two),
        cmocka_unit_test(a_lifetime_of_nothing_is_bounded),
        cmocka_unit_test(the_old_one_stays_if_the_new_one_goes),
        cmocka_unit_test(the_old_one_may_be_rekeyed_while_it_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
