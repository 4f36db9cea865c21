/* Peers in the world: several addresses, names that change, both ends calling at once, several IKE SAs of one identity. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "ike/internal.h"
#include "test/unit/reload.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])
#define UP(n, c) ike_up((n)->e, &(n)->peers[0], NULL, (c), s->now)

static void close_all(struct sim *s)
{
    for (unsigned k = 0; k < s->nodes; k++)
        ike_shutdown(s->node[k].e, s->now);
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
    reload(A->e, &none, s->now);
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

/* -- one identity twice -- */

static struct sim *up_with(uint64_t seed, enum unique_mode unique)
{
    struct sim *s = sim_new(seed);
    B->peers[0].unique = unique;
    sim_start_engines(s, NULL);
    UP(A, 1);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    sim_for(s, 5 * NS_PER_S);
    return s;
}

/* A knows that it has an SA, so that its second call is without INITIAL_CONTACT. */
static void call_again(struct sim *s)
{
    sa_init_start(A->e->runs[0], &A->policies[0], NULL);
    sim_for(s, 2 * NS_PER_S);
}

static void two_live_side_by_side_by_default(void **state)
{
    (void)state;
    struct sim *s = up_with(20, UNIQUE_NO);
    call_again(s);
    assert_int_equal(sim_ike_sas(A, IKE_ESTABLISHED), 2);
    assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 2);
    assert_sim(sim_agree(s));
    close_all(s);
}

static void a_new_one_replaces_the_old_one(void **state)
{
    (void)state;
    for (unsigned seed = 21; seed < 31; seed++) {
        struct sim *s = up_with(seed, UNIQUE_REPLACE);
        uint32_t before = sim_sending(B, NULL)->spi_out;
        s->traffic = 2 * NS_PER_MS; /* all along: it moves to the new one before the old one goes */
        s->jitter = 10 * NS_PER_MS;
        call_again(s);
        sim_for(s, 20 * NS_PER_S);
        assert_sim(sim_up(s));
        assert_int_not_equal(sim_sending(B, NULL)->spi_out, before);
        assert_non_null(sim_find(B, IKE_EVENT_NOTICE, "unique = replace"));
        assert_int_equal(s->esp_lost, 0);
        s->traffic = 0;
        close_all(s);
    }
}

static void both_calling_at_once_is_no_replacement(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 40; seed++) {
        struct sim *s = sim_new(400 + seed);
        A->peers[0].unique = B->peers[0].unique = seed % 2 ? UNIQUE_REPLACE : UNIQUE_KEEP;
        A->peers[0].start = B->peers[0].start = START_YES;
        s->jitter = 20 * NS_PER_MS;
        sim_start_engines(s, NULL);
        ike_start(A->e, s->now);
        sim_for(s, sim_rand(s, 50) * NS_PER_MS);
        ike_start(B->e, s->now);
        sim_for(s, 10 * NS_PER_S);
        assert_sim(sim_run(s, s->now + 120 * NS_PER_S, sim_up));
        close_all(s);
    }
}

/* A second device at 10.0.0.3 with A's identity, key and networks. */
static void add_twin(struct sim *s)
{
    struct sim_node *n = &s->node[2];
    s->nodes = 3;
    n->sim = s;
    n->index = 2;
    n->next_spi = 0x400000;
    n->ip = at(3).ip;
    n->config = A->config;
    n->peers[0] = A->peers[0];
    n->policies[0] = A->policies[0];
    n->policies[0].peer = n->peer_list[0] = &n->peers[0];
    n->policy_list[0] = &n->policies[0];
    n->config.peers = n->peer_list;
    n->config.policies = n->policy_list;
    B->peers[0].endpoint_any = true;
    B->peers[0].endpoint_count = 0;
}

static enum sim_fate lose_the_first_host(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)ctx;
    return p->from == 0 || p->dst.ip.b[3] == 1 ? SIM_DROP : SIM_DELIVER;
}

/* INITIAL_CONTACT or not: the one that lives stays, and one that is dead makes room. */
static void keep_refuses_until_the_old_one_is_dead(void **state)
{
    (void)state;
    struct sim *s = sim_new(23);
    struct sim_node *twin = &s->node[2];
    A->peers[0].start = START_NO;
    B->peers[0].unique = UNIQUE_KEEP;
    add_twin(s);
    twin->peers[0].start = START_YES;
    sim_start_engines(s, NULL);
    UP(A, 1);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    ike_start(twin->e, s->now);
    sim_for(s, 30 * NS_PER_S);
    assert_sim(sim_up(s));
    assert_int_equal(sim_ike_sas(twin, IKE_ESTABLISHED), 0);
    assert_non_null(strstr(last_error(twin), "AUTHENTICATION_FAILED"));
    assert_non_null(sim_find(B, IKE_EVENT_FAILED, "connected already"));
    s->hook = lose_the_first_host;
    sim_for(s, 240 * NS_PER_S);
    assert_int_equal(sim_ike_sas(twin, IKE_ESTABLISHED), 1);
    assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 1);
    close_all(s);
}

/* -- several clients of one peer -- */

static bool two_clients(struct sim *s)
{
    return sim_children(B) == 2 && sim_sending(A, NULL) && sim_sending(&s->node[2], NULL);
}

static unsigned sending(const struct sim_node *n)
{
    unsigned count = 0;
    for (unsigned i = 0; i < n->top; i++)
        count += n->sas[i].used && n->sas[i].sending;
    return count;
}

/* Each keeps its traffic while the other connects, is rekeyed and goes. */
static void two_clients_of_one_peer_leave_each_other_alone(void **state)
{
    (void)state;
    struct sim *s = sim_new(30);
    struct sim_node *twin = &s->node[2];
    add_twin(s);
    B->peers[0].remote_id_any = true;
    B->peers[0].remote_id = (struct identity){0};
    assert_int_equal(identity_parse("c.example", &twin->peers[0].local_id), OK);
    sim_selectors(&A->policies[0].local, "10.1.0.1/32");
    sim_selectors(&twin->policies[0].local, "10.1.0.2/32");
    sim_start_engines(s, NULL);
    s->traffic = 50 * NS_PER_MS;
    UP(A, 1);
    UP(twin, 2);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, two_clients));
    assert_int_equal(sending(B), 2);
    ike_rekey(A->e, &A->peers[0], &A->policies[0], 3, s->now);
    sim_for(s, 3 * NS_PER_S);
    ike_rekey(twin->e, &twin->peers[0], &twin->policies[0], 4, s->now);
    sim_for(s, 3 * NS_PER_S);
    assert_sim(sim_command(A, 3)->ok && sim_command(twin, 4)->ok && two_clients(s));
    assert_int_equal(sending(B), 2);
    assert_int_equal(s->esp_lost, 0);
    s->traffic = 0;
    ike_down(twin->e, &twin->peers[0], NULL, 5, s->now);
    sim_for(s, 3 * NS_PER_S);
    assert_int_equal(sending(B), 1);
    assert_sim(sim_up(s));
    close_all(s);
}

/* -- who fits nobody -- */

static void a_refusal_says_what_each_peer_would_have_wanted(void **state)
{
    (void)state;
    struct sim *s = sim_new(24);
    struct peer *other = &B->peers[1];
    *other = B->peers[0];
    snprintf(other->name, sizeof other->name, "carol");
    other->endpoints[0].at = at(55);
    other->endpoints[1].at = at(56);
    other->endpoint_count = 2;
    assert_int_equal(identity_parse("carol.example", &other->remote_id), OK);
    assert_int_equal(identity_parse("x.example", &B->peers[0].remote_id), OK);
    B->config.peer_count = 2;
    sim_start_engines(s, NULL);
    UP(A, 1);
    sim_for(s, 5 * NS_PER_S);
    const struct sim_event *e = sim_find(B, IKE_EVENT_FAILED, "fits no peer");
    assert_non_null(e);
    assert_non_null(strstr(e->text, "a.example at 10.0.0.1"));
    assert_non_null(strstr(e->text, "alice has the id x.example"));
    assert_non_null(strstr(e->text, "carol is at 10.0.0.55 or 10.0.0.56 and has the id carol.example"));
    close_all(s);
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
        cmocka_unit_test(two_live_side_by_side_by_default),
        cmocka_unit_test(a_new_one_replaces_the_old_one),
        cmocka_unit_test(both_calling_at_once_is_no_replacement),
        cmocka_unit_test(keep_refuses_until_the_old_one_is_dead),
        cmocka_unit_test(two_clients_of_one_peer_leave_each_other_alone),
        cmocka_unit_test(a_refusal_says_what_each_peer_would_have_wanted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
