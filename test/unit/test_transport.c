/* Transport mode: who offers and accepts it, and addresses behind NATs (RFC 7296 sections 1.3.1, 2.23.1). */
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

/* Two hosts that protect what they send each other. */
static struct sim *hosts(uint64_t seed)
{
    struct sim *s = sim_new(seed);
    for (unsigned k = 0; k < 2; k++) {
        struct policy *p = &s->node[k].policies[0];
        sim_selectors(&p->local, k ? "10.0.0.2" : "10.0.0.1");
        sim_selectors(&p->remote, k ? "10.0.0.1" : "10.0.0.2");
        p->mode = MODE_TRANSPORT;
    }
    return s;
}

static void start(struct sim *s, bool a, bool b)
{
    sim_start_engines(s, NULL);
    A->e->env.transport_mode = a;
    B->e->env.transport_mode = b;
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 5 * NS_PER_S);
}

static void assert_modes(struct sim *s, enum policy_mode mode)
{
    if (!sim_both(s))
        sim_dump(s);
    assert_true(sim_both(s));
    assert_int_equal(sim_sending(A, NULL)->mode, mode);
    assert_int_equal(sim_sending(B, NULL)->mode, mode);
}

static void both_ends_agree_and_stay_so_over_rekeys(void **state)
{
    (void)state;
    struct sim *s = hosts(1);
    start(s, true, true);
    assert_modes(s, MODE_TRANSPORT);
    assert_true(sim_up(s));
    assert_non_null(sim_find(A, IKE_EVENT_CHILD_UP, ", transport"));
    for (unsigned by = 0; by < 2; by++) {
        ike_rekey(s->node[by].e, &s->node[by].peers[0], &s->node[by].policies[0], 5, s->now);
        sim_for(s, 10 * NS_PER_S);
        assert_true(sim_command(&s->node[by], 5)->ok);
        assert_modes(s, MODE_TRANSPORT);
    }
    close_all(s);
}

static void without_the_capability_it_is_neither_offered_nor_accepted(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct sim *s = hosts(2 + k);
        start(s, k == 0, k == 1);
        assert_modes(s, MODE_TUNNEL);
        assert_int_equal(sim_find(A, IKE_EVENT_NOTICE, "declines transport mode") != NULL, k == 0);
        close_all(s);
    }
}

/* Where no inner header says its length, padding behind it could not be told from it. */
static void padding_is_refused_with_transport_mode_and_only_there(void **state)
{
    (void)state;
    struct sim *s = hosts(30);
    A->policies[0].tfc = B->policies[0].tfc = (struct tfc){1, {512}};
    B->policies[0].mode = MODE_TUNNEL; /* A asks for transport mode, and has refused padding with it; B has not */
    start(s, true, true);
    assert_modes(s, MODE_TUNNEL);
    assert_true(sim_sending(A, NULL)->tfc);
    assert_false(sim_sending(B, NULL)->tfc);
    assert_null(sim_find(A, IKE_EVENT_NOTICE, "not padded"));
    assert_non_null(sim_find(B, IKE_EVENT_NOTICE, "not padded: the peer does not take it"));
    close_all(s);
    s = hosts(31);
    A->policies[0].tfc = (struct tfc){1, {512}};
    start(s, true, true);
    assert_modes(s, MODE_TRANSPORT);
    assert_non_null(sim_find(A, IKE_EVENT_NOTICE, "not padded: that is for tunnel mode only"));
    assert_null(sim_find(B, IKE_EVENT_NOTICE, "not padded"));
    assert_false(sim_sending(A, NULL)->tfc || sim_sending(B, NULL)->tfc);
    close_all(s);
    s = sim_new(32);
    start(s, true, true);
    for (unsigned k = 0; k < 2; k++) {
        assert_modes(s, MODE_TUNNEL);
        assert_true(sim_sending(A, NULL)->tfc && sim_sending(B, NULL)->tfc);
        ike_rekey(A->e, &A->peers[0], &A->policies[0], 5, s->now);
        sim_for(s, 10 * NS_PER_S);
    }
    close_all(s);
}

static void declined_it_becomes_a_tunnel_or_nothing(void **state)
{
    (void)state;
    for (unsigned only = 0; only < 2; only++) {
        struct sim *s = hosts(4 + only);
        B->policies[0].mode = MODE_TUNNEL;
        A->policies[0].transport_only = only;
        start(s, true, true);
        if (only) {
            assert_false(sim_command(A, 1)->ok);
            assert_non_null(sim_find(A, IKE_EVENT_FAILED, "allows no other"));
            assert_int_equal(sim_children(A) + sim_children(B), 0); /* deleted at the peer as well */
        } else {
            assert_modes(s, MODE_TUNNEL);
            assert_non_null(sim_find(A, IKE_EVENT_NOTICE, "runs in tunnel mode"));
        }
        assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 1);
        close_all(s);
    }
}

static void responder_of_transport_only_answers_no_tunnel(void **state)
{
    (void)state;
    struct sim *s = hosts(6);
    A->policies[0].mode = MODE_TUNNEL;
    B->policies[0].transport_only = true;
    start(s, true, true);
    assert_false(sim_command(A, 1)->ok);
    assert_non_null(sim_find(A, IKE_EVENT_FAILED, "TS_UNACCEPTABLE"));
    close_all(s);
}

static void a_policy_of_networks_is_cut_to_the_hosts(void **state)
{
    (void)state;
    struct sim *s = hosts(7);
    sim_selectors(&A->policies[0].local, "10.0.0.0/24[tcp],10.9.0.0/16");
    sim_selectors(&A->policies[0].remote, "0.0.0.0/0");
    sim_selectors(&B->policies[0].local, "0.0.0.0/0");
    sim_selectors(&B->policies[0].remote, "0.0.0.0/0");
    start(s, true, true);
    assert_modes(s, MODE_TRANSPORT);
    struct selectors want;
    sim_selectors(&want, "10.0.0.1[tcp]");
    assert_true(selectors_equal(&sim_sending(A, NULL)->local, &want));
    sim_selectors(&want, "10.0.0.2");
    assert_true(selectors_equal(&sim_sending(B, NULL)->local, &want));
    close_all(s);
}

static void networks_elsewhere_are_no_transport(void **state)
{
    (void)state;
    struct sim *s = hosts(8);
    sim_selectors(&A->policies[0].local, "10.1.0.0/24");
    sim_selectors(&B->policies[0].remote, "10.1.0.0/24");
    start(s, true, true);
    assert_modes(s, MODE_TUNNEL);
    close_all(s);
}

/* Each end sees the other's outer address, whatever the other calls itself (section 2.23.1). */
static void addresses_behind_a_nat_are_substituted(void **state)
{
    (void)state;
    struct sim *s = hosts(9);
    struct selectors want;
    A->nat_ip = (struct ip){.family = 4, .b = {203, 0, 113, 7}};
    A->nat_shift = 1000;
    B->peers[0].endpoint_any = true;
    sim_selectors(&B->policies[0].remote, "203.0.113.7");
    start(s, true, true);
    assert_modes(s, MODE_TRANSPORT);
    sim_selectors(&want, "203.0.113.7");
    assert_true(selectors_equal(&sim_sending(B, NULL)->remote, &want));
    sim_selectors(&want, "10.0.0.1");
    assert_true(selectors_equal(&sim_sending(A, NULL)->local, &want));
    close_all(s);
}

/* The policy names the address behind the NAT: the substituted one finds nothing, the original one a tunnel. */
static void substitution_is_undone_for_a_tunnel(void **state)
{
    (void)state;
    struct sim *s = hosts(10);
    A->nat_ip = (struct ip){.family = 4, .b = {203, 0, 113, 7}};
    A->nat_shift = 1000;
    B->peers[0].endpoint_any = true;
    start(s, true, true);
    assert_modes(s, MODE_TUNNEL);
    assert_true(selectors_equal(&sim_sending(B, NULL)->remote, &sim_sending(A, NULL)->local));
    close_all(s);
}

/* Exactly one address per side, and the one that IKE has here. */
static void more_addresses_than_one_are_no_transport(void **state)
{
    (void)state;
    static const struct {
        const char *tsi, *tsr;
        bool nat, transport;
    } cases[] = {
        {"10.0.0.1", "10.0.0.2", false, true},
        {"10.0.0.1[tcp/80],10.0.0.1", "10.0.0.2", false, true},
        {"10.0.0.0/24", "10.0.0.2", false, false},
        {"10.0.0.1,10.0.0.3", "10.0.0.2", false, false},
        {"192.168.1.5", "10.0.0.2", false, false},
        {"192.168.1.5", "10.0.0.2", true, true},
        {"192.168.1.5[udp],192.168.1.5[tcp]", "10.0.0.2", true, true},
        {"192.168.1.5,192.168.1.6", "10.0.0.2", true, false},
        {"192.168.1.0/24", "10.0.0.2", true, false},
        {"192.168.1.5", "10.0.0.9", true, false},
        {"2001:db8::1", "10.0.0.2", true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sim *s = hosts(11);
        struct ike_message m = {.notify = {{.type = NOTIFY_USE_TRANSPORT_MODE}}, .notifies = 1};
        struct child_terms out = {0};
        sim_selectors(&B->policies[0].local, "0.0.0.0/0");
        sim_selectors(&B->policies[0].remote, "0.0.0.0/0");
        start(s, true, true);
        struct ike_sa *sa = B->e->sas;
        sa->nat_local = false;
        sa->nat_remote = cases[i].nat;
        sim_selectors(&m.tsi.v, cases[i].tsi);
        sim_selectors(&m.tsr.v, cases[i].tsr);
        const struct policy *p = selectors_match(sa, &m, NULL, &out);
        if (p && (out.mode == MODE_TRANSPORT) != cases[i].transport)
            fail_msg("%s === %s", cases[i].tsi, cases[i].tsr);
        close_all(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_agree_and_stay_so_over_rekeys),
        cmocka_unit_test(without_the_capability_it_is_neither_offered_nor_accepted),
        cmocka_unit_test(padding_is_refused_with_transport_mode_and_only_there),
        cmocka_unit_test(declined_it_becomes_a_tunnel_or_nothing),
        cmocka_unit_test(responder_of_transport_only_answers_no_tunnel),
        cmocka_unit_test(a_policy_of_networks_is_cut_to_the_hosts),
        cmocka_unit_test(networks_elsewhere_are_no_transport),
        cmocka_unit_test(addresses_behind_a_nat_are_substituted),
        cmocka_unit_test(substitution_is_undone_for_a_tunnel),
        cmocka_unit_test(more_addresses_than_one_are_no_transport),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
