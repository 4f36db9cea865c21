/* Several Child SAs on one IKE SA, which traffic they are for, and how many there may be (RFC 7296 sections 1.3, 2.9). */
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

static struct sim *connected(uint64_t seed)
{
    struct sim *s = sim_new(seed);
    three_policies(s);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 5 * NS_PER_S);
    assert_true(sim_command(A, 1)->ok && sim_agree(s));
    return s;
}

static void all_policies_share_one_ike_sa(void **state)
{
    (void)state;
    struct sim *s = connected(1);
    assert_int_equal(sim_ike_sas(A, IKE_ESTABLISHED), 1);
    assert_int_equal(sim_children(A), 3);
    for (unsigned i = 0; i < 3; i++)
        assert_true(sim_sending(A, &A->policies[i]) && sim_sending(B, &B->policies[i]));
    ike_down(A->e, &A->peers[0], &A->policies[1], 5, s->now);
    sim_for(s, 10 * NS_PER_S);
    assert_true(sim_command(A, 5)->ok);
    assert_null(sim_sending(A, &A->policies[1]));
    assert_null(sim_sending(B, &B->policies[1]));
    assert_int_equal(sim_children(A), 2);
    assert_int_equal(sim_children(B), 2);
    assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 1);
    close_all(s);
}

static void more_than_enough_are_refused(void **state)
{
    (void)state;
    struct sim *s = connected(2);
    struct ike_sa *sa = A->e->sas;
    for (unsigned i = 0; i < 40; i++) {
        struct task *t = task_new(TASK_CHILD_NEW);
        t->policy = &A->policies[0];
        t->anew = true;
        task_queue(sa, t, false);
        sim_for(s, NS_PER_S);
        for (struct child *c = sa->children; c; c = c->next)
            if (child_policy(c) == &A->policies[0]) /* so that the next one is wanted as well */
                c->state = CHILD_DOOMED;
    }
    assert_in_range(sim_children(B), 16, 20);
    assert_non_null(sim_find(A, IKE_EVENT_FAILED, "NO_ADDITIONAL_SAS"));
    assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 1);
    close_all(s);
}

/* The request that is out is answered with an error, as it would come from the peer. */
static void answer_error(struct ike_sa *sa, uint16_t type)
{
    struct ike_message m = {.h.exchange = EXCHANGE_CREATE_CHILD_SA, .notify = {{.type = type}}, .notifies = 1};
    timer_cancel(&sa->e->timers, &sa->retransmit);
    msgid_done(&sa->tx);
    create_response(sa, &m);
    engine_leave(sa->e);
}

static void up_again(struct sim *s, uint64_t command, const struct flow *packet)
{
    ike_down(A->e, &A->peers[0], &A->policies[1], command, s->now);
    sim_for(s, 10 * NS_PER_S);
    s->cut = true;
    ike_up(A->e, &A->peers[0], &A->policies[1], command + 1, s->now);
    if (packet)
        selectors_of_packet(run_policy(A->e->sas->run, &A->policies[1]), packet);
    while (!(A->e->sas->current && A->e->sas->current->sent))
        sim_for(s, NS_PER_MS);
}

/* What a peer refuses with SINGLE_PAIR_REQUIRED is asked for once more: for the packet's hosts, else the first pair. */
static void single_pair_is_asked_for(void **state)
{
    (void)state;
    struct flow packet = {.src = {.family = 4, .b = {10, 3, 0, 7}},
                          .dst = {.family = 4, .b = {10, 4, 0, 9}},
                          .src_port = 4000,
                          .dst_port = 80,
                          .proto = 6,
                          .ports_known = true};
    for (unsigned known = 0; known < 2; known++) {
        struct sim *s = connected(3 + known);
        struct selectors want;
        sim_selectors(&A->policies[1].local, "10.3.0.0/24,10.7.0.0/24");
        sim_selectors(&B->policies[1].remote, "10.3.0.0/24,10.7.0.0/24");
        up_again(s, 10, known ? &packet : NULL);
        assert_int_equal(A->e->sas->current->local.n, 2);
        answer_error(A->e->sas, NOTIFY_SINGLE_PAIR_REQUIRED);
        assert_non_null(A->e->sas->current);
        assert_true(A->e->sas->current->single);
        sim_selectors(&want, known ? "10.3.0.7" : "10.3.0.0/24");
        assert_true(selectors_equal(&A->e->sas->current->local, &want));
        while (!A->e->sas->current->sent)
            sim_for(s, NS_PER_MS);
        answer_error(A->e->sas, NOTIFY_SINGLE_PAIR_REQUIRED); /* and again: then it is enough */
        sim_for(s, 10 * NS_PER_MS);
        assert_false(sim_command(A, 11)->ok);
        s->cut = false;
        B->e->sas->rx.expected++; /* the peer "answered" two requests it has not seen */
        B->e->sas->rx.expected++;
        close_all(s);
    }
}

/* A peer that can't make Child SAs any more, neither new nor by rekey, gets a new IKE SA. */
static void refused_rekeys_bring_a_new_ike_sa(void **state)
{
    (void)state;
    for (unsigned child = 0; child < 2; child++) {
        struct sim *s = connected(6 + child);
        struct ike_sa *sa = A->e->sas;
        uint64_t first = sa->spi_i;
        s->traffic = 5 * NS_PER_MS;
        s->cut = true;
        ike_rekey(A->e, &A->peers[0], child ? &A->policies[0] : NULL, 5, s->now);
        while (!(sa->current && sa->current->sent))
            sim_for(s, NS_PER_MS);
        s->cut = false;
        B->e->sas->rx.expected++;
        struct ike_message m = {.notify = {{.type = NOTIFY_NO_ADDITIONAL_SAS}}, .notifies = 1};
        timer_cancel(&sa->e->timers, &sa->retransmit);
        msgid_done(&sa->tx);
        if (child)
            create_response(sa, &m);
        else
            rekey_response(sa, &m);
        engine_leave(A->e);
        sim_for(s, 20 * NS_PER_S);
        assert_true(A->e->sas->spi_i != first);
        assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 1);
        assert_int_equal(sim_children(B), 3);
        assert_true(sim_agree(s));
        close_all(s);
    }
}

/* The packet that asked for it stands first in the offer, and the responder keeps to it (section 2.9). */
static void the_packet_comes_first(void **state)
{
    (void)state;
    struct sim *s = sim_new(8);
    struct selectors want;
    struct flow packet = {.src = {.family = 4, .b = {10, 1, 0, 7}},
                          .dst = {.family = 4, .b = {10, 2, 0, 200}},
                          .src_port = 4000,
                          .dst_port = 80,
                          .proto = 6,
                          .ports_known = true};
    three_policies(s);
    A->config.policy_count = 1;
    A->peers[0].start = START_ON_DEMAND;
    sim_selectors(&B->policies[0].local, "10.2.0.0/25"); /* the first that matches, but not the packet */
    sim_selectors(&B->policies[1].local, "10.2.0.128/25");
    sim_selectors(&B->policies[0].remote, "10.1.0.0/24");
    sim_selectors(&B->policies[1].remote, "10.1.0.0/24");
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    ike_acquire(A->e, &A->policies[0], &packet, s->now);
    while (!sim_count(A, IKE_EVENT_CHILD_UP))
        sim_for(s, NS_PER_MS);
    sim_selectors(&want, "10.2.0.128/25");
    assert_true(selectors_equal(&sim_sending(A, NULL)->remote, &want));
    assert_non_null(sim_find(A, IKE_EVENT_NOTICE, "would take more of it"));
    assert_false(run_policy(A->e->runs[0], &A->policies[0])->packet); /* answered */
    close_all(s);
}

static void nothing_more_is_said_where_nothing_is_left_out(void **state)
{
    (void)state;
    struct sim *s = connected(9);
    assert_null(sim_find(A, IKE_EVENT_NOTICE, "would take more of it"));
    close_all(s);
}

static void packets_without_ports_ask_for_their_protocol(void **state)
{
    (void)state;
    struct sim *s = connected(10);
    struct policy_run *p = run_policy(A->e->runs[0], &A->policies[0]);
    struct selectors want;
    struct flow ping = {.src = {.family = 4, .b = {10, 1, 0, 7}},
                        .dst = {.family = 4, .b = {10, 2, 0, 9}},
                        .src_port = 8 << 8,
                        .dst_port = 8 << 8,
                        .proto = 1,
                        .ports_known = true};
    selectors_of_packet(p, &ping);
    sim_selectors(&want, "10.1.0.7[icmp]");
    assert_true(p->packet && selector_equal(&p->packet_local, &want.v[0]));
    ping.dst.b[1] = 99; /* not this policy's */
    selectors_of_packet(p, &ping);
    assert_false(p->packet);
    close_all(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_policies_share_one_ike_sa),
        cmocka_unit_test(more_than_enough_are_refused),
        cmocka_unit_test(single_pair_is_asked_for),
        cmocka_unit_test(refused_rekeys_bring_a_new_ike_sa),
        cmocka_unit_test(the_packet_comes_first),
        cmocka_unit_test(nothing_more_is_said_where_nothing_is_left_out),
        cmocka_unit_test(packets_without_ports_ask_for_their_protocol),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
