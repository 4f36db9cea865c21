/* Child SAs of AH as the engines negotiate them (RFC 7296 sections 2.23, 3.3, 3.11; RFC 4302). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ike/internal.h"
#include "test/unit/impostor.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])

static void ah(struct sim_node *n, unsigned policy, const char *proposals)
{
    sim_proposals(&n->policies[policy].esp, PROTOCOL_AH, proposals);
    n->peers[0].ah = true;
}

static bool raw_sockets(void *ctx)
{
    (void)ctx;
    return true;
}

static void start_engines(struct sim *s)
{
    sim_start_engines(s, NULL);
    A->e->env.raw = B->e->env.raw = raw_sockets;
}

static void start(struct sim *s)
{
    start_engines(s);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 5 * NS_PER_S);
}

static void close_all(struct sim *s)
{
    s->traffic = 0;
    s->loss = s->duplicate = s->reorder = 0;
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    assert_sim(sim_run(s, s->now + 100 * NS_PER_S, sim_empty));
    sim_free(s);
}

static void count_ah(void *ctx, const struct ike_child_info *info)
{
    *(unsigned *)ctx += info->protocol == PROTOCOL_AH;
}

static unsigned ah_children(const struct sim_node *n)
{
    unsigned found = 0;
    ike_each_child(n->e, count_ah, &found);
    return found;
}

/* A Child SA of AH at both ends, which goes by IP itself between their addresses. */
static void assert_ah(struct sim *s)
{
    assert_sim(sim_both(s) && sim_agree(s));
    for (unsigned k = 0; k < 2; k++) {
        struct sim_node *n = &s->node[k];
        const struct sim_sa *sa = sim_sending(n, NULL);
        assert_int_equal(sa->protocol, PROTOCOL_AH);
        assert_int_equal(sa->path.transport, PATH_RAW);
        assert_int_equal(sa->path.local.port | sa->path.remote.port, 0);
        assert_true(ip_equal(&sa->path.remote.ip, &s->node[!k].ip));
        assert_true(ah_children(n) > 0);
    }
}

static void nats_seen(void *ctx, const struct ike_sa_info *info)
{
    *(unsigned *)ctx += info->nat_local + info->nat_remote;
}

static unsigned nats(const struct sim_node *n)
{
    unsigned found = 0;
    ike_each_sa(n->e, nats_seen, &found);
    return found;
}

static void both_ends_agree_and_rekey(void **state)
{
    (void)state;
    static const char *const suites[] = {"default", "sha1-esn", "aes256gmac-noesn", "aesxcbc-x25519", "aescmac-sha384"};
    static const char *const chosen[] = {"AH sha512, esn", "AH sha1, esn", "AH aes256gmac", "AH aesxcbc, esn",
                                         "AH aescmac, esn"};
    for (unsigned i = 0; i < 5; i++) {
        struct sim *s = sim_new(10 + i);
        ah(A, 0, suites[i]);
        ah(B, 0, suites[i]);
        s->traffic = 50 * NS_PER_MS;
        start(s);
        assert_ah(s);
        assert_sim(sim_find(A, IKE_EVENT_CHILD_UP, chosen[i]));
        for (unsigned by = 0; by < 2; by++) {
            ike_rekey(s->node[by].e, &s->node[by].peers[0], &s->node[by].policies[0], 5 + by, s->now);
            sim_for(s, 10 * NS_PER_S);
            assert_sim(sim_command(&s->node[by], 5 + by)->ok);
            assert_ah(s);
            assert_int_equal(ah_children(A), 1); /* the old one was deleted, by its protocol */
        }
        ike_rekey(B->e, &B->peers[0], NULL, 9, s->now);
        sim_for(s, 10 * NS_PER_S);
        assert_sim(sim_command(B, 9)->ok);
        ike_rekey(A->e, &A->peers[0], &A->policies[0], 10, s->now);
        sim_for(s, 10 * NS_PER_S);
        assert_ah(s);
        assert_int_equal(s->esp_lost, 0);
        close_all(s);
    }
}

static void rekeys_of_both_at_once_settle(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 8; seed++) {
        struct sim *s = sim_new(20 + seed);
        ah(A, 0, "sha256");
        ah(B, 0, "sha256");
        start(s);
        s->loss = s->duplicate = s->reorder = 10;
        for (unsigned round = 0; round < 3; round++) {
            ike_rekey(A->e, &A->peers[0], &A->policies[0], 20 + round, s->now);
            ike_rekey(B->e, &B->peers[0], &B->policies[0], 20 + round, s->now);
            sim_for(s, 100 * NS_PER_S);
        }
        assert_ah(s);
        assert_int_equal(ah_children(A), 1);
        assert_int_equal(ah_children(B), 1);
        close_all(s);
    }
}

/* A second policy at both ends; the one of that number is for AH, the other for ESP. */
static void two_policies(struct sim *s, unsigned which)
{
    for (unsigned k = 0; k < 2; k++) {
        struct sim_node *n = &s->node[k];
        n->policies[1] = n->policies[0];
        n->policy_list[1] = &n->policies[1];
        n->config.policy_count = 2;
        snprintf(n->policies[1].name, sizeof n->policies[1].name, "second");
        sim_selectors(&n->policies[1].local, k ? "10.8.0.0/16" : "10.7.0.0/16");
        sim_selectors(&n->policies[1].remote, k ? "10.7.0.0/16" : "10.8.0.0/16");
        ah(n, which, "sha256");
    }
}

/* RFC 4302 section 2.4: AH and ESP need not share their SPIs, so a Delete counts for its own protocol alone. */
static void both_protocols_live_side_by_side(void **state)
{
    (void)state;
    struct sim *s = sim_new(30);
    two_policies(s, 1);
    start(s);
    assert_sim(sim_children(A) == 2 && sim_agree(s));
    assert_int_equal(sim_sending(A, &A->policies[0])->protocol, PROTOCOL_ESP);
    assert_int_equal(sim_sending(A, &A->policies[1])->protocol, PROTOCOL_AH);
    assert_int_equal(nats(A) + nats(B), 0); /* AH needs the truth, whatever ESP would like */
    struct ike_sa *sa = B->e->sas;
    struct child *ah_child = sa->children->protocol == PROTOCOL_AH ? sa->children : sa->children->next;
    assert_null(child_by_spi(sa, PROTOCOL_ESP, ah_child->spi_out));
    assert_ptr_equal(child_by_spi(sa, PROTOCOL_AH, ah_child->spi_out), ah_child);

    ike_down(A->e, &A->peers[0], &A->policies[1], 2, s->now);
    sim_for(s, 5 * NS_PER_S);
    assert_int_equal(ah_children(A) + ah_children(B), 0);
    assert_sim(sim_sending(A, &A->policies[0]) && sim_sending(B, &B->policies[0]));
    close_all(s);
}

/* A Delete of ESP with the SPI of an AH SA means nothing; the one of AH is answered with its pair (RFC 7296 section 1.4.1). */
static void deletes_name_their_protocol(void **state)
{
    (void)state;
    struct sim *s = sim_new(35);
    ah(A, 0, "sha256");
    ah(B, 0, "sha256");
    start(s);
    assert_ah(s);
    uint32_t ours = sim_sending(B, NULL)->spi_out, theirs = sim_sending(B, NULL)->spi_in;
    struct impostor *c = impostor_start(s, 0);
    uint8_t chain[] = {0, 0, 0, 12, PROTOCOL_ESP, 4, 0, 1, 0, 0, 0, 0};
    put_be32(chain + 8, ours);
    for (unsigned i = 0; i < 2; i++) {
        chain[4] = i ? PROTOCOL_AH : PROTOCOL_ESP;
        impostor_send(c, EXCHANGE_INFORMATIONAL, 0, 2 + i, PAYLOAD_DELETE, span_of(chain, sizeof chain), 0, 0);
        assert_int_equal(c->n, 1 + i);
        assert_int_equal(c->seen[i].m.dels, i);
        assert_int_equal(sim_children(B), 1 - i);
    }
    assert_int_equal(c->seen[1].m.del[0].protocol, PROTOCOL_AH);
    assert_int_equal(c->seen[1].m.del[0].n, 1);
    assert_int_equal(c->seen[1].m.del[0].spi[0], theirs);
    impostor_end(c);
    sim_free(s);
}

static void only_ah_hears_the_truth_about_nats(void **state)
{
    (void)state;
    for (unsigned with = 0; with < 2; with++) {
        struct sim *s = sim_new(40 + with);
        if (with) {
            ah(A, 0, "sha256");
            ah(B, 0, "sha256");
        }
        start(s);
        assert_sim(sim_up(s));
        assert_int_equal(nats(A), !with);
        assert_int_equal(nats(B), !with);
        close_all(s);
    }
}

static void ah_and_esp_have_nothing_in_common(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct sim *s = sim_new(50 + k);
        ah(&s->node[k], 0, "sha256");
        start(s);
        assert_int_equal(sim_children(A) + sim_children(B), 0);
        assert_false(sim_command(A, 1)->ok);
        if (k == 1) { /* whoever encapsulates always (encap = auto) says that there is a NAT */
            assert_sim(sim_find(B, IKE_EVENT_FAILED, "or it says so to have ESP encapsulated"));
            assert_sim(sim_find(A, IKE_EVENT_FAILED, "NO_PROPOSAL_CHOSEN: it accepts none of our ESP proposals"));
        }
        close_all(s);
    }
    struct sim *s = sim_new(52);
    ah(A, 0, "sha256");
    B->peers[0].ah = true; /* another policy of it is for AH */
    start(s);
    assert_sim(sim_find(A, IKE_EVENT_FAILED, "it accepts none of our AH proposals"));
    assert_sim(sim_find(B, IKE_EVENT_FAILED, "no ESP proposal in common"));
    assert_sim(sim_find(B, IKE_EVENT_FAILED, "offered AH sha256-esn-noesn; configured ESP "));
    close_all(s);
}

static void a_nat_is_the_end_of_it(void **state)
{
    (void)state;
    struct sim *s = sim_new(60);
    ah(A, 0, "sha256");
    ah(B, 0, "sha256");
    A->nat_ip = (struct ip){.family = 4, .b = {192, 0, 2, 1}};
    B->peers[0].endpoint_any = true;
    B->peers[0].endpoint_count = 0;
    B->peers[0].start = START_NO;
    start(s);
    assert_int_equal(sim_children(A) + sim_children(B), 0);
    assert_false(sim_command(A, 1)->ok);
    assert_sim(sim_find(A, IKE_EVENT_FAILED, "is for AH, which can't pass a NAT, and there is one before us"));
    assert_sim(strstr(ike_last_error(A->e, &A->peers[0], &(ns_t){0}), "can't pass a NAT"));
    close_all(s);
}

/* Without raw sockets there is no way to send it. */
static void without_raw_sockets_there_is_none(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct sim *s = sim_new(64 + k);
        ah(A, 0, "sha256");
        ah(B, 0, "sha256");
        start_engines(s);
        s->node[k].e->env.raw = NULL;
        ike_up(A->e, &A->peers[0], NULL, 1, s->now);
        sim_for(s, 5 * NS_PER_S);
        assert_int_equal(sim_children(A) + sim_children(B), 0);
        assert_sim(sim_find(A, IKE_EVENT_FAILED, k ? "or it says so" : "which needs CAP_NET_RAW here"));
        close_all(s);
    }
}

/* The policies of ESP don't suffer from one of AH behind a NAT. */
static void a_nat_stops_nothing_else(void **state)
{
    (void)state;
    struct sim *s = sim_new(61);
    two_policies(s, 0);
    A->nat_ip = (struct ip){.family = 4, .b = {192, 0, 2, 1}};
    B->peers[0].endpoint_any = true;
    B->peers[0].endpoint_count = 0;
    B->peers[0].start = START_NO;
    start(s);
    sim_for(s, 60 * NS_PER_S);
    assert_int_equal(ah_children(A) + ah_children(B), 0);
    assert_sim(sim_sending(A, &A->policies[1]) && sim_sending(B, &B->policies[1]));
    assert_sim(sim_find(A, IKE_EVENT_FAILED, "policy \"net\" is for AH"));
    close_all(s);
}

/* An update of addresses (RFC 4555) brings a NAT: ESP would go on, AH can't. */
static void a_nat_that_comes_later_ends_it(void **state)
{
    (void)state;
    struct sim *s = sim_new(62);
    ah(A, 0, "sha256");
    ah(B, 0, "sha256");
    A->more[0] = (struct ip){.family = 4, .b = {10, 0, 1, 1}};
    A->peers[0].mobike = B->peers[0].mobike = B->peers[0].endpoint_any = true;
    start_engines(s);
    sim_addresses(s, 0);
    sim_addresses(s, 1);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    sim_for(s, 5 * NS_PER_S);
    assert_ah(s);
    A->ip = A->more[0]; /* without a NAT it goes on from there */
    A->more[0].family = 0;
    sim_addresses(s, 0);
    sim_for(s, 10 * NS_PER_S);
    assert_ah(s);
    A->nat_ip = (struct ip){.family = 4, .b = {192, 0, 2, 1}};
    A->ip = (struct ip){.family = 4, .b = {10, 9, 9, 9}};
    sim_addresses(s, 0);
    sim_for(s, 10 * NS_PER_S);
    assert_int_equal(ah_children(A) + ah_children(B), 0);
    assert_sim(sim_find(B, IKE_EVENT_CHILD_DOWN, "can't pass a NAT"));
    close_all(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_ends_agree_and_rekey),
        cmocka_unit_test(rekeys_of_both_at_once_settle),
        cmocka_unit_test(both_protocols_live_side_by_side),
        cmocka_unit_test(deletes_name_their_protocol),
        cmocka_unit_test(only_ah_hears_the_truth_about_nats),
        cmocka_unit_test(ah_and_esp_have_nothing_in_common),
        cmocka_unit_test(a_nat_is_the_end_of_it),
        cmocka_unit_test(without_raw_sockets_there_is_none),
        cmocka_unit_test(a_nat_stops_nothing_else),
        cmocka_unit_test(a_nat_that_comes_later_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
