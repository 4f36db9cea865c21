/* Peers in the world: several addresses, names that change, both ends calling at once, several IKE SAs of one identity. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])
#define UP(n, c) ike_up((n)->e, &(n)->peers[0], NULL, (c), s->now)

#define assert_sim(condition)      \
    do {                           \
        bool sim_ok = (condition); \
        if (!sim_ok)               \
            sim_dump(s);           \
        assert_true(sim_ok);       \
    } while (0)

static void close_all(struct sim *s)
{
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    assert_sim(sim_run(s, s->now + 100 * NS_PER_S, sim_empty));
    sim_free(s);
}

static struct endpoint at(uint8_t last)
{
    return (struct endpoint){{.family = 4, .b = {10, 0, 0, last}}, 500};
}

static const char *last_error(struct sim_node *n)
{
    ns_t when;
    return ike_last_error(n->e, &n->peers[0], &when);
}

/* -- several addresses -- */

static void the_next_address_is_tried_within_seconds(void **state)
{
    (void)state;
    struct sim *s = sim_new(1);
    struct peer *bob = &A->peers[0];
    bob->endpoint_count = 3;
    bob->endpoints[0].at = at(77);
    bob->endpoints[1].at = at(78);
    bob->endpoints[2].at = at(2);
    sim_start_engines(s, NULL);
    UP(A, 1);
    assert_sim(sim_run(s, s->now + 45 * NS_PER_S, sim_up));
    assert_true(sim_command(A, 1)->ok); /* one command for all of them */
    assert_non_null(sim_find(A, IKE_EVENT_FAILED, "10.0.0.77"));
    assert_non_null(sim_find(A, IKE_EVENT_FAILED, "10.0.0.78"));
    assert_string_equal(last_error(A), "");
    close_all(s);
}

/* Every message to an address that was tried, in turn. */
struct order {
    uint8_t seen[64];
    unsigned n;
};

static enum sim_fate lose_and_note(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct order *o = ctx;
    (void)s;
    uint8_t to = p->dst.ip.b[3];
    if (p->from == 0 && o->n < sizeof o->seen && (!o->n || o->seen[o->n - 1] != to))
        o->seen[o->n++] = to;
    return SIM_DROP;
}

static void the_list_goes_round_with_back_off_after_each_round(void **state)
{
    (void)state;
    struct sim *s = sim_new(2);
    struct order o = {0};
    struct peer *bob = &A->peers[0];
    bob->start = START_YES;
    bob->endpoint_count = 2;
    bob->endpoints[0].at = at(2);
    bob->endpoints[1].at = at(78);
    s->hook = lose_and_note;
    s->hook_ctx = &o;
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    sim_for(s, 500 * NS_PER_S);
    /* A round is 2 * 15 s, a second between the two, and 1 to 80 s behind it: seven or eight of them. */
    assert_in_range(o.n, 12, 20);
    for (unsigned i = 0; i < o.n; i++)
        assert_int_equal(o.seen[i], i % 2 ? 78 : 2);
    s->hook = NULL;
    assert_sim(sim_run(s, s->now + 120 * NS_PER_S, sim_up));
    close_all(s);
}

static void a_responder_knows_a_peer_by_any_of_its_addresses(void **state)
{
    (void)state;
    struct sim *s = sim_new(3);
    struct peer *alice = &B->peers[0];
    alice->endpoint_count = 2;
    alice->endpoints[0].at = at(99);
    alice->endpoints[1].at = at(1);
    sim_start_engines(s, NULL);
    UP(A, 1);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    close_all(s);
}

/* -- names -- */

static void name(struct peer *p, const char *host)
{
    p->endpoints[0] = (struct peer_endpoint){.at.port = 500};
    snprintf(p->endpoints[0].host, sizeof p->endpoints[0].host, "%s", host);
    p->endpoint_count = 1;
}

static void answer(struct sim *s, struct sim_node *n, uint8_t last, const char *why)
{
    struct endpoint e = at(last);
    uint64_t lookup = n->lookup;
    assert_int_not_equal(lookup, 0);
    n->lookup = 0;
    ike_resolved(n->e, lookup, &e, last ? 1 : 0, why, s->now);
}

static void an_attempt_waits_for_its_name(void **state)
{
    (void)state;
    struct sim *s = sim_new(4);
    name(&A->peers[0], "b.example");
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 3 * NS_PER_S);
    assert_int_equal(s->ike_sent, 0);
    answer(s, A, 2, "");
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    assert_int_equal(A->lookups, 1);
    close_all(s);
}

static void a_name_without_an_address_is_asked_for_again(void **state)
{
    (void)state;
    struct sim *s = sim_new(5);
    name(&A->peers[0], "b.example");
    A->peers[0].start = START_YES;
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    answer(s, A, 0, "b.example has no address: it is unknown");
    assert_non_null(strstr(last_error(A), "b.example has no address: it is unknown"));
    assert_non_null(sim_find(A, IKE_EVENT_FAILED, "no address to connect to"));
    sim_for(s, 3 * NS_PER_S);
    assert_int_equal(A->lookups, 2);
    answer(s, A, 2, "");
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    assert_string_equal(last_error(A), "");
    close_all(s);
}

static void nobody_waits_for_a_name_server_that_is_silent(void **state)
{
    (void)state;
    struct sim *s = sim_new(6);
    struct peer *bob = &A->peers[0];
    name(bob, "b.example");
    bob->endpoint_count = 2;
    bob->endpoints[1].at = at(2);
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 9 * NS_PER_S);
    assert_int_equal(s->ike_sent, 0);
    assert_sim(sim_run(s, s->now + 3 * NS_PER_S, sim_up)); /* by the address beside the name */
    answer(s, A, 2, "");                                   /* late, and no harm */
    assert_int_equal(A->lookups, 1);
    close_all(s);
}

/* The peer moves, and its name with it: the dead SA is noticed, the name asked for again, the tunnel comes back. */
static void a_tunnel_follows_its_name(void **state)
{
    (void)state;
    struct sim *s = sim_new(7);
    name(&A->peers[0], "b.example");
    A->peers[0].start = START_YES;
    sim_start_engines(s, NULL);
    ike_start(A->e, s->now);
    answer(s, A, 2, "");
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    s->traffic = NS_PER_S;
    s->cut = true;
    ns_t end = s->now + 200 * NS_PER_S;
    while (s->now < end && !A->lookup)
        sim_for(s, NS_PER_S);
    s->cut = false;
    B->ip.b[3] = 22;
    answer(s, A, 22, "");
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_both));
    sim_for(s, 2 * NS_PER_S);
    assert_int_equal(sim_sending(A, NULL)->path.remote.ip.b[3], 22);
    s->traffic = 0;
    close_all(s);
}

/* Who only answers knows the other end by its name as well; a call from elsewhere makes it look again. */
static void a_responder_looks_again_when_a_stranger_calls(void **state)
{
    (void)state;
    struct sim *s = sim_new(8);
    name(&B->peers[0], "a.example");
    A->peers[0].start = START_YES;
    sim_start_engines(s, NULL);
    ike_start(B->e, s->now);
    answer(s, B, 99, ""); /* where it was yesterday */
    sim_for(s, 40 * NS_PER_S);
    ike_start(A->e, s->now);
    sim_for(s, NS_PER_S);
    assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 0);
    assert_int_equal(B->lookups, 2);
    answer(s, B, 1, "");
    assert_sim(sim_run(s, s->now + 90 * NS_PER_S, sim_up));
    close_all(s);
}

static void an_answer_for_a_peer_that_is_gone_is_ignored(void **state)
{
    (void)state;
    struct sim *s = sim_new(9);
    struct config none = A->config;
    name(&A->peers[0], "b.example");
    sim_start_engines(s, NULL);
    UP(A, 1);
    none.peer_count = none.policy_count = 0;
    ike_reload(A->e, &none, s->now);
    answer(s, A, 2, "");
    close_all(s);
}

/* -- both ends at once -- */

static void both_ends_start_at_once_under_loss(void **state)
{
    (void)state;
    for (unsigned seed = 100; seed < 300; seed++) {
        struct sim *s = sim_new(seed);
        s->loss = seed % 4 * 10;
        s->duplicate = seed % 3 * 5;
        s->reorder = seed % 5 * 5;
        s->jitter = 20 * NS_PER_MS;
        A->peers[0].start = B->peers[0].start = START_YES;
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        sim_for(s, sim_rand(s, 50) * NS_PER_MS);
        ike_start(B->e, s->now);
        sim_for(s, 240 * NS_PER_S); /* however it went, the dust has settled */
        s->loss = s->duplicate = s->reorder = 0;
        assert_sim(sim_run(s, s->now + 240 * NS_PER_S, sim_up));
        close_all(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_next_address_is_tried_within_seconds),
        cmocka_unit_test(the_list_goes_round_with_back_off_after_each_round),
        cmocka_unit_test(a_responder_knows_a_peer_by_any_of_its_addresses),
        cmocka_unit_test(an_attempt_waits_for_its_name),
        cmocka_unit_test(a_name_without_an_address_is_asked_for_again),
        cmocka_unit_test(nobody_waits_for_a_name_server_that_is_silent),
        cmocka_unit_test(a_tunnel_follows_its_name),
        cmocka_unit_test(a_responder_looks_again_when_a_stranger_calls),
        cmocka_unit_test(an_answer_for_a_peer_that_is_gone_is_ignored),
        cmocka_unit_test(both_ends_start_at_once_under_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
