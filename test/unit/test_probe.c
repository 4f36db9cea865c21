/* Path MTU probes over IKE: sizes that pass and that don't, and everything else an SA does meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "ike/internal.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])

static struct sim *up(uint64_t seed, const char *ike)
{
    struct sim *s = sim_new(seed);
    for (unsigned i = 0; i < 2; i++)
        if (ike)
            sim_proposals(&s->node[i].peers[0].ike, PROTOCOL_IKE, ike);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    sim_for(s, 5 * NS_PER_S);
    return s;
}

static uint64_t child(struct sim *s, unsigned node)
{
    return sim_sending(&s->node[node], NULL)->id;
}

static void probe(struct sim *s, unsigned node, unsigned bytes)
{
    assert_int_equal(ike_probe(s->node[node].e, child(s, node), bytes, s->now), OK);
}

/* The longest IKE datagram that anybody has sent, and how many there were. */
struct seen {
    size_t longest;
    unsigned messages;
};

static enum sim_fate watch(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct seen *seen = ctx;
    (void)s;
    if (p->esp || p->keepalive)
        return SIM_DELIVER;
    size_t datagram = 28 + (p->marker ? 4 : 0) + p->len;
    seen->longest = datagram > seen->longest ? datagram : seen->longest;
    seen->messages++;
    return SIM_DELIVER;
}

static void what_passes_is_proved_by_two_messages(void **state)
{
    (void)state;
    static const unsigned sizes[] = {576, 1200, 1280, 1281, 1492, 1500, 4000, 9000, 65535};
    struct sim *s = up(1, NULL);
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned node = 0; node < 2; node++) {
            struct sim_node *n = &s->node[node];
            struct seen seen = {0};
            s->hook = watch;
            s->hook_ctx = &seen;
            probe(s, node, sizes[i]);
            sim_for(s, 500 * NS_PER_MS);
            assert_int_equal(n->probes, i + 1);
            assert_true(n->probe.through);
            assert_int_equal(n->probe.bytes, sizes[i]); /* an AEAD has no blocks */
            assert_int_equal(n->probe.child, child(s, node));
            assert_int_equal(seen.longest, sizes[i]);
            assert_int_equal(seen.messages, 2);
        }
    assert_sim(sim_agree(s));
    sim_free(s);
}

static void blocks_may_make_it_a_little_shorter(void **state)
{
    (void)state;
    struct sim *s = up(2, "aes128-sha256-x25519");
    for (unsigned bytes = 1400; bytes < 1440; bytes++) {
        struct seen seen = {0};
        s->hook = watch;
        s->hook_ctx = &seen;
        probe(s, 0, bytes);
        sim_for(s, 500 * NS_PER_MS);
        assert_true(A->probe.through);
        assert_in_range(A->probe.bytes, bytes - 15, bytes);
        assert_int_equal(seen.longest, A->probe.bytes);
    }
    sim_free(s);
}

/* What A has sent, first of all and after that. */
struct sent {
    uint8_t *first;
    size_t len;
    unsigned same, shorter; /* those that came after it */
    bool mute;              /* B's answers are lost */
};

static enum sim_fate compare(struct sim *s, struct sim_packet *p, void *ctx)
{
    struct sent *sent = ctx;
    (void)s;
    if (p->esp || p->keepalive)
        return SIM_DELIVER;
    if (p->from == 1)
        return sent->mute ? SIM_DROP : SIM_DELIVER;
    if (!sent->first) {
        sent->first = malloc(p->len);
        memcpy(sent->first, p->data, p->len);
        sent->len = p->len;
    } else {
        bool same = p->len == sent->len && memcmp(p->data, sent->first, p->len) == 0;
        sent->same += same;
        sent->shorter += p->len < 150;
        assert_true(same || p->len < 150);
    }
    return SIM_DELIVER;
}

/* Section 2.1: bit for bit, whichever of both was lost. */
static void what_is_sent_again_is_the_same(void **state)
{
    (void)state;
    struct sim *s = up(3, NULL);
    struct sent sent = {.mute = true};
    s->hook = compare;
    s->hook_ctx = &sent;
    probe(s, 0, 1500);
    sim_for(s, 900 * NS_PER_MS);
    assert_int_equal(A->probes, 0);
    assert_int_equal(sent.len, 1500 - 28 - 4);
    sim_for(s, 300 * NS_PER_MS);
    assert_int_equal(sent.same, 1);
    assert_int_equal(A->probes, 1); /* it might have been the second one that came through, in fragments */
    assert_false(A->probe.through);
    assert_int_equal(ike_probe(A->e, child(s, 0), 1400, s->now), ERR_STATE);
    sent.mute = false;
    sim_for(s, 3 * NS_PER_S);
    assert_int_equal(A->probes, 1);
    s->hook = NULL;
    assert_int_equal(ike_probe(A->e, child(s, 0), 1400, s->now), OK);
    sim_for(s, 120 * NS_PER_S);
    assert_sim(sim_agree(s));
    assert_int_equal(sim_count(A, IKE_EVENT_IKE_DOWN), 0);
    free(sent.first);
    sim_free(s);
}

static void what_does_not_pass_is_told_and_the_sa_goes_on(void **state)
{
    (void)state;
    for (unsigned firewall = 0; firewall < 2; firewall++) {
        struct sim *s = up(3, NULL);
        struct seen seen = {0};
        s->hook = watch;
        s->hook_ctx = &seen;
        A->path_mtu = 1400;
        A->no_fragments = firewall;
        probe(s, 0, 1500);
        sim_for(s, 900 * NS_PER_MS);
        assert_int_equal(A->probes, 0);
        sim_for(s, 600 * NS_PER_MS);
        assert_int_equal(A->probes, 1);
        assert_false(A->probe.through);
        assert_int_equal(A->probe.bytes, 1500);
        sim_for(s, 3 * NS_PER_S);
        if (firewall)
            assert_true(seen.longest < 200); /* in the end, without its padding */
        else
            assert_int_equal(seen.longest, 1500); /* in fragments */
        assert_int_equal(seen.messages, 2);
        probe(s, 0, 1400);
        sim_for(s, 500 * NS_PER_MS);
        assert_int_equal(A->probes, 2);
        assert_true(A->probe.through);
        probe(s, 0, 1500);
        sim_for(s, 1500 * NS_PER_MS);
        assert_int_equal(ike_probe(A->e, child(s, 0), 1400, s->now), OK); /* the next time it doesn't take longer */
        sim_for(s, 120 * NS_PER_S);
        assert_sim(sim_agree(s));
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_DOWN), 0);
        sim_free(s);
    }
}

static enum sim_fate elsewhere(struct sim *s, struct sim_packet *p, void *ctx)
{
    unsigned *count = ctx;
    *count += p->src.port && (!ip_equal(&p->src.ip, &A->ip) || !ip_equal(&p->dst.ip, &B->ip)) &&
              (!ip_equal(&p->src.ip, &B->ip) || !ip_equal(&p->dst.ip, &A->ip));
    return SIM_DELIVER;
}

/* The answer to what goes all ways at once may come by another first, and the SA would go there for nothing. */
static void what_does_not_pass_makes_nobody_look_for_another_path(void **state)
{
    (void)state;
    struct sim *s = sim_new(4);
    unsigned others = 0;
    for (unsigned i = 0; i < 2; i++) {
        s->node[i].peers[0].mobike = true;
        s->node[i].more[0] = (struct ip){.family = 4, .b = {10, 0, 7, (uint8_t)(i + 1)}};
    }
    sim_start_engines(s, NULL);
    sim_addresses(s, 0);
    sim_addresses(s, 1);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    sim_for(s, 5 * NS_PER_S);
    s->hook = elsewhere;
    s->hook_ctx = &others;
    A->path_mtu = 1400;
    A->no_fragments = true;
    for (unsigned i = 0; i < 2; i++) { /* the second time it is cut short at once */
        probe(s, 0, 1500);
        sim_for(s, 10 * NS_PER_S);
        assert_int_equal(A->probes, i + 1);
        assert_int_equal(others, 0);
    }
    s->loss = 100; /* nothing passes */
    probe(s, 0, 1500);
    sim_for(s, 30 * NS_PER_S);
    assert_true(others > 0);
    sim_free(s);
}

static void one_at_a_time_and_none_beside_another_exchange(void **state)
{
    (void)state;
    struct sim *s = up(4, NULL);
    probe(s, 0, 1500);
    assert_int_equal(ike_probe(A->e, child(s, 0), 1400, s->now), ERR_STATE);
    sim_for(s, 500 * NS_PER_MS);
    ike_rekey(A->e, &A->peers[0], NULL, 2, s->now);
    assert_int_equal(ike_probe(A->e, child(s, 0), 1400, s->now), ERR_STATE);
    sim_for(s, 5 * NS_PER_S);
    probe(s, 0, 1400);
    ike_rekey(A->e, &A->peers[0], &A->policies[0], 3, s->now); /* waits for its turn */
    sim_for(s, 5 * NS_PER_S);
    assert_int_equal(A->probes, 2);
    assert_true(sim_command(A, 3)->ok);
    assert_sim(sim_agree(s));
    sim_free(s);
}

static void peers_without_ike_fragmentation_are_probed_too(void **state)
{
    (void)state;
    struct sim *s = sim_new(5);
    B->peers[0].fragmentation = false;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_sim(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    A->path_mtu = 1400;
    for (unsigned bytes = 1400; bytes <= 1500; bytes += 100) {
        probe(s, 0, bytes);
        sim_for(s, 2 * NS_PER_S);
        assert_true(A->probe.through == (bytes == 1400));
    }
    assert_int_equal(ike_probe(A->e, 999, 1500, s->now), ERR_NOTFOUND);
    assert_sim(sim_agree(s));
    sim_free(s);
}

static void sizes_have_bounds(void **state)
{
    (void)state;
    struct sim *s = up(6, NULL);
    assert_int_equal(ike_probe(A->e, child(s, 0), 127, s->now), ERR_RANGE);
    assert_int_equal(ike_probe(A->e, child(s, 0), 65536, s->now), ERR_RANGE);
    probe(s, 0, 128);
    sim_for(s, 500 * NS_PER_MS);
    assert_true(A->probe.through);
    sim_free(s);
}

/* Probes at both ends on a bad network: each has an outcome, and nothing else suffers. */
static void probes_survive_a_bad_network(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 30; seed++) {
        struct sim *s = up(seed, NULL);
        unsigned asked[2] = {0};
        s->loss = s->duplicate = s->reorder = 10;
        A->path_mtu = 1400;
        for (unsigned i = 0; i < 60; i++) {
            for (unsigned k = 0; k < 2; k++) {
                struct sim_sa *sending = sim_sending(&s->node[k], NULL);
                unsigned bytes = 1300 + sim_rand(s, 200);
                if (sending && ike_probe(s->node[k].e, sending->id, bytes, s->now) == OK)
                    asked[k]++;
            }
            if (i % 20 == 10)
                ike_rekey(A->e, &A->peers[0], i % 40 == 10 ? &A->policies[0] : NULL, 100 + i, s->now);
            sim_for(s, NS_PER_S);
            if (A->probes && A->probe.bytes > 1400)
                assert_false(A->probe.through);
        }
        s->loss = s->duplicate = s->reorder = 0;
        sim_for(s, 60 * NS_PER_S);
        assert_true(asked[0] > 10 && asked[1] > 10);
        for (unsigned k = 0; k < 2; k++) /* but for one that was under way when its IKE SA was replaced */
            assert_in_range(s->node[k].probes, asked[k] - 1, asked[k]);
        assert_sim(sim_both(s) && sim_agree(s));
        sim_free(s);
    }
}

static void a_doubt_is_a_liveness_check_and_not_more(void **state)
{
    (void)state;
    struct sim *s = up(7, NULL);
    struct seen seen = {0};
    s->hook = watch;
    s->hook_ctx = &seen;
    for (unsigned i = 0; i < 100; i++)
        ike_child_doubtful(A->e, child(s, 0), s->now);
    sim_for(s, 500 * NS_PER_MS);
    assert_int_equal(seen.messages, 2);
    for (unsigned i = 0; i < 100; i++) /* it has just been heard of */
        ike_child_doubtful(A->e, child(s, 0), s->now);
    sim_for(s, 500 * NS_PER_MS);
    assert_int_equal(seen.messages, 2);
    ike_child_doubtful(A->e, 999, s->now);
    assert_sim(sim_agree(s));
    sim_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_passes_is_proved_by_two_messages),
        cmocka_unit_test(blocks_may_make_it_a_little_shorter),
        cmocka_unit_test(what_is_sent_again_is_the_same),
        cmocka_unit_test(what_does_not_pass_is_told_and_the_sa_goes_on),
        cmocka_unit_test(what_does_not_pass_makes_nobody_look_for_another_path),
        cmocka_unit_test(one_at_a_time_and_none_beside_another_exchange),
        cmocka_unit_test(peers_without_ike_fragmentation_are_probed_too),
        cmocka_unit_test(sizes_have_bounds),
        cmocka_unit_test(probes_survive_a_bad_network),
        cmocka_unit_test(a_doubt_is_a_liveness_check_and_not_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
