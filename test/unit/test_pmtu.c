/* Path MTU discovery by probing, in virtual time: a path of a certain MTU, and loss, around the state machine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "esp/pmtu.h"
#include "test/unit/packets.h"

struct world {
    struct pmtu p;
    unsigned path;  /* what passes */
    unsigned block; /* probes are as long as a multiple of that; 0: any */
    unsigned loss;  /* percent, of anything */
    bool traffic;   /* long datagrams leave */
    bool icmp;      /* routers say why they drop */
    unsigned probes, lost;
    uint64_t random;
    ns_t now;
};

#define LOST (1050 * NS_PER_MS) /* the first retransmission of IKE */
#define RTT (20 * NS_PER_MS)

static struct world world(bool ipv6, unsigned link, unsigned path)
{
    struct world w = {.path = path, .traffic = true, .random = link * 65536ull + path, .now = NS_PER_S};
    pmtu_init(&w.p, ipv6, link);
    return w;
}

static void probe(struct world *w, unsigned size)
{
    unsigned sent = w->block ? size - size % w->block : size;
    bool through = sent <= w->path && packet_random(&w->random) % 100 >= w->loss;
    pmtu_sent(&w->p, size, w->now);
    w->probes++;
    w->lost += !through;
    assert_int_equal(pmtu_due(&w->p, w->now), 0); /* one at a time */
    if (!through && sent > w->path && w->icmp)
        pmtu_claim(&w->p, w->path, w->now + RTT);
    w->now += through ? RTT : LOST;
    pmtu_result(&w->p, sent, through, w->now);
}

static void run(struct world *w, ns_t how_long)
{
    ns_t until = w->now + how_long;
    while (w->now < until) {
        if (w->traffic)
            pmtu_used(&w->p, w->now);
        unsigned size = pmtu_due(&w->p, w->now);
        if (size) {
            probe(w, size);
            continue;
        }
        ns_t next = pmtu_deadline(&w->p), step = w->now + NS_PER_S;
        assert_true(next > w->now); /* it never turns on the spot */
        w->now = next < step ? next : step;
    }
}

/* Never more than passes, and hardly less. */
static void assert_found(const struct world *w)
{
    if (w->p.phase != PMTU_COMPLETE || w->p.size > w->path || w->p.size + PMTU_STEP + w->block < w->path)
        fail_msg("path %u: found %u, in phase %d, by %u probes", w->path, w->p.size, w->p.phase, w->probes);
}

static void a_path_like_its_link_takes_one_probe(void **state)
{
    (void)state;
    static const unsigned links[] = {1280, 1400, 1500, 9000, 65535};
    for (unsigned i = 0; i < 5; i++)
        for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
            struct world w = world(ipv6, links[i], links[i]);
            assert_int_equal(w.p.size, links[i]);
            run(&w, 5 * NS_PER_S);
            assert_int_equal(w.p.size, links[i]);
            assert_int_equal(w.probes, 1);
            assert_int_equal(w.lost, 0);
        }
}

static void nothing_is_probed_before_something_long_leaves(void **state)
{
    (void)state;
    struct world w = world(false, 1500, 1500);
    w.traffic = false;
    run(&w, 3600 * NS_PER_S);
    assert_int_equal(w.probes, 0);
    assert_int_equal(pmtu_deadline(&w.p), NS_NEVER);
}

static void every_smaller_path_is_found(void **state)
{
    (void)state;
    unsigned most = 0;
    for (unsigned path = 1200; path <= 1500; path++) {
        struct world w = world(false, 1500, path);
        run(&w, 60 * NS_PER_S);
        assert_found(&w);
        most = w.lost > most ? w.lost : most;
    }
    print_message("at most %u probes lost in a search below 1500\n", most);
    for (unsigned path = 1280; path <= 9000; path += 97) {
        struct world w = world(true, 9000, path);
        run(&w, 120 * NS_PER_S);
        assert_found(&w);
    }
}

static void common_sizes_are_found_exactly(void **state)
{
    (void)state;
    static const unsigned paths[] = {1280, 1400, 1420, 1440, 1460, 1480, 1492};
    for (unsigned i = 0; i < 7; i++) {
        struct world w = world(true, 1500, paths[i]);
        run(&w, 60 * NS_PER_S);
        assert_true(w.p.size <= paths[i] && paths[i] - w.p.size < PMTU_STEP);
    }
}

static void probes_in_blocks_end_as_well(void **state)
{
    (void)state;
    for (unsigned path = 1280; path <= 1500; path += 11) {
        struct world w = world(false, 1500, path);
        w.block = 16;
        run(&w, 120 * NS_PER_S);
        assert_found(&w);
    }
}

/* While the search lasts, what is in force passes: only the first probes, of the size in force, are about traffic. */
static void until_found_the_base_is_in_force(void **state)
{
    (void)state;
    struct world w = world(true, 1500, 1300);
    run(&w, PMTU_PROBES * LOST + NS_PER_MS);
    assert_true(w.p.size <= 1300);
    assert_int_equal(w.p.size, PMTU_MIN6);
}

static void a_path_that_shrinks_is_noticed_by_the_confirmation(void **state)
{
    (void)state;
    struct world w = world(false, 1500, 1500);
    run(&w, 5 * NS_PER_S);
    w.path = 1280;
    run(&w, PMTU_CONFIRM + PMTU_PROBES * LOST);
    assert_true(w.p.size <= 1280);
    run(&w, 60 * NS_PER_S);
    assert_found(&w);
}

static void silence_makes_it_quick(void **state)
{
    (void)state;
    struct world w = world(false, 1500, 1500);
    run(&w, 5 * NS_PER_S);
    w.path = 1280;
    pmtu_doubt(&w.p, w.now);
    run(&w, LOST);
    assert_int_equal(w.p.size, PMTU_BASE4);
    run(&w, 60 * NS_PER_S);
    assert_found(&w);
    /* Below the base as well. */
    w.path = 600;
    pmtu_doubt(&w.p, w.now);
    run(&w, LOST);
    pmtu_doubt(&w.p, w.now);
    run(&w, 90 * NS_PER_S);
    assert_found(&w);
}

static void unfounded_doubts_cost_one_probe_each_half_minute(void **state)
{
    (void)state;
    struct world w = world(false, 1500, 1500);
    run(&w, 5 * NS_PER_S);
    unsigned before = w.probes;
    for (unsigned i = 0; i < 600; i++) {
        pmtu_doubt(&w.p, w.now);
        pmtu_claim(&w.p, 576, w.now);
        run(&w, NS_PER_S);
    }
    assert_in_range(w.probes - before, 1, 45);
    assert_int_equal(w.p.size, 1500);
}

static void icmp_is_believed_when_a_probe_says_the_same(void **state)
{
    (void)state;
    struct world w = world(false, 1500, 1500);
    run(&w, 5 * NS_PER_S);
    w.path = 1437;
    w.icmp = true;
    pmtu_claim(&w.p, 1437, w.now);
    assert_int_equal(w.p.size, 1500);
    run(&w, LOST + NS_PER_MS);
    assert_int_equal(w.p.size, 1437);
    unsigned lost = w.lost;
    run(&w, 20 * NS_PER_S);
    assert_int_equal(w.p.size, 1437);
    assert_int_equal(w.lost, lost);
}

static void a_forged_icmp_changes_nothing(void **state)
{
    (void)state;
    static const unsigned claims[] = {0, 1, 68, 576, 1280, 1499, 1500, 70000};
    for (unsigned i = 0; i < 8; i++) {
        struct world w = world(false, 1500, 1500);
        run(&w, 5 * NS_PER_S);
        pmtu_claim(&w.p, claims[i], w.now);
        run(&w, 5 * NS_PER_S);
        assert_int_equal(w.p.size, 1500);
        assert_int_equal(w.p.phase, PMTU_COMPLETE);
    }
}

static void without_probes_icmp_is_taken_within_bounds_and_ages(void **state)
{
    (void)state;
    struct world w = world(true, 1500, 1500);
    pmtu_only_claims(&w.p, true);
    pmtu_claim(&w.p, 1400, w.now);
    assert_int_equal(w.p.size, 1400);
    pmtu_claim(&w.p, 1450, w.now); /* a router never says it has grown */
    assert_int_equal(w.p.size, 1400);
    pmtu_claim(&w.p, 100, w.now);
    assert_int_equal(w.p.size, PMTU_MIN6);
    run(&w, PMTU_RAISE - NS_PER_S);
    assert_int_equal(w.p.size, PMTU_MIN6);
    run(&w, 2 * NS_PER_S);
    assert_int_equal(w.p.size, 1500);
    assert_int_equal(w.probes, 0);
}

static void a_path_that_grows_is_noticed_after_ten_minutes(void **state)
{
    (void)state;
    struct world w = world(false, 1500, 1300);
    run(&w, 60 * NS_PER_S);
    assert_found(&w);
    w.path = 1500;
    run(&w, PMTU_RAISE / 2);
    assert_true(w.p.size <= 1300);
    run(&w, PMTU_RAISE / 2);
    assert_int_equal(w.p.size, 1500);
}

static void idle_paths_are_left_alone(void **state)
{
    (void)state;
    struct world w = world(false, 1500, 1300);
    run(&w, 60 * NS_PER_S);
    w.traffic = false;
    run(&w, 2 * PMTU_RAISE);
    unsigned before = w.probes;
    run(&w, 10 * PMTU_RAISE);
    assert_int_equal(w.probes, before);
    w.traffic = true;
    w.path = 1500;
    run(&w, 5 * NS_PER_S);
    assert_int_equal(w.p.size, 1500);
}

static void random_loss_does_no_harm_for_long(void **state)
{
    (void)state;
    struct world w = world(false, 1500, 1500);
    w.loss = 5;
    unsigned below = 0;
    for (unsigned i = 0; i < 10000; i++) {
        run(&w, NS_PER_S);
        below += w.p.size < 1400;
    }
    assert_true(below < 200);
}

static void a_probe_whose_outcome_is_never_told_is_forgotten(void **state)
{
    (void)state;
    struct world w = world(false, 1500, 1500);
    pmtu_used(&w.p, w.now);
    assert_int_equal(pmtu_due(&w.p, w.now), 1500);
    pmtu_sent(&w.p, 1500, w.now);
    assert_int_equal(pmtu_due(&w.p, w.now + PMTU_PATIENCE - 1), 0);
    assert_int_equal(pmtu_due(&w.p, w.now + PMTU_PATIENCE), 1500);
    pmtu_busy(&w.p, w.now + PMTU_PATIENCE);
    assert_int_equal(pmtu_due(&w.p, w.now + PMTU_PATIENCE), 0);
    assert_int_equal(pmtu_due(&w.p, w.now + PMTU_PATIENCE + PMTU_BUSY), 1500);
    pmtu_result(&w.p, 1500, false, w.now); /* nothing is under way */
    assert_int_equal(w.p.tries, 0);
}

static void another_link_is_another_search(void **state)
{
    (void)state;
    struct world w = world(false, 1500, 1500);
    run(&w, 5 * NS_PER_S);
    pmtu_limit(&w.p, 1400, w.now);
    assert_int_equal(w.p.size, 1400);
    pmtu_limit(&w.p, 9000, w.now);
    assert_int_equal(w.p.size, 1400);
    w.path = 9000;
    run(&w, 5 * NS_PER_S);
    assert_int_equal(w.p.size, 9000);
    pmtu_limit(&w.p, 300, w.now);
    assert_int_equal(w.p.size, PMTU_MIN4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_path_like_its_link_takes_one_probe),
        cmocka_unit_test(nothing_is_probed_before_something_long_leaves),
        cmocka_unit_test(every_smaller_path_is_found),
        cmocka_unit_test(common_sizes_are_found_exactly),
        cmocka_unit_test(probes_in_blocks_end_as_well),
        cmocka_unit_test(until_found_the_base_is_in_force),
        cmocka_unit_test(a_path_that_shrinks_is_noticed_by_the_confirmation),
        cmocka_unit_test(silence_makes_it_quick),
        cmocka_unit_test(unfounded_doubts_cost_one_probe_each_half_minute),
        cmocka_unit_test(icmp_is_believed_when_a_probe_says_the_same),
        cmocka_unit_test(a_forged_icmp_changes_nothing),
        cmocka_unit_test(without_probes_icmp_is_taken_within_bounds_and_ages),
        cmocka_unit_test(a_path_that_grows_is_noticed_after_ten_minutes),
        cmocka_unit_test(idle_paths_are_left_alone),
        cmocka_unit_test(random_loss_does_no_harm_for_long),
        cmocka_unit_test(a_probe_whose_outcome_is_never_told_is_forgotten),
        cmocka_unit_test(another_link_is_another_search),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
