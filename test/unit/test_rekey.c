#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"
#include "test/unit/reload.h"
#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])

static struct sim *connected(uint64_t seed)
{
    struct sim *s = sim_new(seed);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    bool up = sim_run(s, s->now + 5 * NS_PER_S, sim_up);
    if (!up)
        sim_dump(s);
    assert_true(up);
    return s;
}

static void settle(struct sim *s)
{
    sim_for(s, 3 * NS_PER_S);
    s->traffic = s->traffic ? NS_PER_S : 0;
    sim_for(s, 200 * NS_PER_S);
    bool up = sim_up(s);
    if (!up || s->esp_lost)
        sim_dump(s);
    assert_true(up);
    assert_int_equal(s->esp_lost, 0);
}

static void close_all(struct sim *s)
{
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    bool empty = sim_run(s, s->now + 100 * NS_PER_S, sim_empty);
    if (!empty)
        sim_dump(s);
    assert_true(empty);
    sim_free(s);
}

static void rekey(struct sim *s, unsigned by, bool child, uint64_t command)
{
    struct sim_node *n = &s->node[by];
    ike_rekey(n->e, &n->peers[0], child ? &n->policies[0] : NULL, command, s->now);
}

static void child_rekeyed_by_either_end(void **state)
{
    (void)state;
    for (unsigned by = 0; by < 2; by++) {
        struct sim *s = connected(10 + by);
        s->traffic = 5 * NS_PER_MS;
        uint32_t before = sim_sending(A, NULL)->spi_out;
        rekey(s, by, true, 5);
        sim_for(s, 2 * NS_PER_S);
        assert_true(sim_command(&s->node[by], 5)->ok);
        settle(s);
        assert_int_not_equal(sim_sending(A, NULL)->spi_out, before);
        assert_int_equal(sim_count(A, IKE_EVENT_CHILD_REKEYED), 1);
        assert_int_equal(sim_count(B, IKE_EVENT_CHILD_REKEYED), 1);
        assert_int_equal(sim_count(A, IKE_EVENT_CHILD_DOWN), 0);
        assert_true(s->esp_received > 500);
        s->traffic = 0;
        close_all(s);
    }
}

static void ike_rekeyed_by_either_end(void **state)
{
    (void)state;
    for (unsigned by = 0; by < 2; by++) {
        struct sim *s = connected(20 + by);
        s->traffic = 5 * NS_PER_MS;
        uint32_t before = sim_sending(A, NULL)->spi_out;
        rekey(s, by, false, 5);
        sim_for(s, 2 * NS_PER_S);
        assert_true(sim_command(&s->node[by], 5)->ok);
        settle(s);
        assert_int_equal(sim_sending(A, NULL)->spi_out, before); /* Child SAs are inherited as they are */
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_REKEYED), 1);
        assert_int_equal(sim_count(B, IKE_EVENT_IKE_REKEYED), 1);
        assert_int_equal(sim_count(B, IKE_EVENT_IKE_DOWN), 0);
        /* and the new IKE SA works, from message 0 on */
        rekey(s, 1 - by, true, 6);
        sim_for(s, 2 * NS_PER_S);
        assert_true(sim_command(&s->node[1 - by], 6)->ok);
        settle(s);
        s->traffic = 0;
        close_all(s);
    }
}

static bool a_answers(struct sim *s)
{
    return A->e->sas->pending;
}

/* Some peers would answer our rekey of the IKE SA at once, and lose the answer to theirs. */
static void ike_rekey_waits_while_a_child_rekey_is_answered(void **state)
{
    (void)state;
    struct sim *s = connected(25);
    rekey(s, 1, true, 5);
    assert_true(sim_run(s, s->now + NS_PER_S, a_answers));
    rekey(s, 0, false, 6);
    assert_null(A->e->sas->current);
    assert_non_null(A->e->sas->queue);
    sim_for(s, 20 * NS_PER_S); /* it may meet the Delete of the old Child SA, and be refused once */
    assert_true(sim_command(B, 5) && sim_command(B, 5)->ok);
    assert_true(sim_command(A, 6) && sim_command(A, 6)->ok);
    settle(s);
    close_all(s);
}

/*
 * Our request leaves while the peer's for the same Child SA is being answered, or just before or after: whoever made the
 * redundant one deletes it, and nobody has to wait until the other end's patience is over (section 2.8.1).
 */
static void a_request_that_leaves_late_collides_as_well(void **state)
{
    (void)state;
    for (unsigned offset = 0; offset < 12; offset++)
        for (uint64_t seed = 300; seed < 310; seed++) {
            struct sim *s = connected(seed);
            s->delay = NS_PER_MS;
            rekey(s, 1, true, 6);
            sim_for(s, offset * NS_PER_MS);
            rekey(s, 0, true, 5);
            sim_for(s, 10 * NS_PER_S);
            bool up = sim_up(s);
            if (!up)
                sim_dump(s);
            assert_true(up);
            close_all(s);
        }
}

/* Both ends at once, in many timings; traffic never hits a moment without a receiver. */
static void both_at_once(bool first_child, bool second_child, unsigned loss)
{
    for (uint64_t seed = 100; seed < 140; seed++) {
        struct sim *s = connected(seed);
        s->traffic = 7 * NS_PER_MS;
        s->jitter = 5 * NS_PER_MS;
        s->loss = loss;
        s->duplicate = loss ? 10 : 0;
        rekey(s, 0, first_child, 5);
        sim_for(s, sim_rand(s, 40) * NS_PER_MS);
        rekey(s, 1, second_child, 6);
        sim_for(s, 5 * NS_PER_S);
        s->traffic = 100 * NS_PER_MS;
        sim_for(s, 60 * NS_PER_S);
        s->loss = 0;
        settle(s);
        if (!sim_command(A, 5) || !sim_command(B, 6))
            sim_dump(s);
        assert_non_null(sim_command(A, 5));
        assert_non_null(sim_command(B, 6));
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_DOWN), 0);
        assert_int_equal(sim_count(A, IKE_EVENT_CHILD_DOWN), 0);
        s->traffic = 0;
        close_all(s);
    }
}

static void child_rekeyed_by_both(void **state)
{
    (void)state;
    both_at_once(true, true, 0);
}
static void ike_rekeyed_by_both(void **state)
{
    (void)state;
    both_at_once(false, false, 0);
}
static void ike_and_child_at_once(void **state)
{
    (void)state;
    both_at_once(false, true, 0);
    both_at_once(true, false, 0);
}
static void child_rekeyed_by_both_with_loss(void **state)
{
    (void)state;
    both_at_once(true, true, 10);
}
static void ike_rekeyed_by_both_with_loss(void **state)
{
    (void)state;
    both_at_once(false, false, 10);
}
static void ike_and_child_at_once_with_loss(void **state)
{
    (void)state;
    both_at_once(false, true, 10);
}

/* A day of lifetimes, at both ends. */
static void lifetimes_rekey_by_themselves(void **state)
{
    (void)state;
    struct sim *s = connected(31);
    s->traffic = 10 * NS_PER_S;
    sim_for(s, 24 * 3600 * NS_PER_S);
    s->traffic = 0;
    settle(s);
    assert_true(sim_count(A, IKE_EVENT_CHILD_REKEYED) >= 23);
    assert_true(sim_count(A, IKE_EVENT_IKE_REKEYED) >= 5);
    assert_int_equal(sim_count(A, IKE_EVENT_CHILD_DOWN) + sim_count(B, IKE_EVENT_CHILD_DOWN), 0);
    assert_int_equal(sim_count(A, IKE_EVENT_IKE_DOWN) + sim_count(B, IKE_EVENT_IKE_DOWN), 0);
    close_all(s);
}

static void esp_groups(const char *a, const char *b, bool works)
{
    struct sim *s = sim_new(40);
    sim_proposals(&A->policies[0].esp, PROTOCOL_ESP, a);
    sim_proposals(&B->policies[0].esp, PROTOCOL_ESP, b);
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    assert_true(sim_run(s, s->now + 5 * NS_PER_S, sim_up));
    s->traffic = 5 * NS_PER_MS;
    rekey(s, 0, true, 5);
    sim_for(s, 2 * NS_PER_S);
    const struct sim_event *end = sim_command(A, 5);
    if (!end || end->ok != works)
        sim_dump(s);
    assert_non_null(end);
    assert_int_equal(end->ok, works);
    settle(s);
    s->traffic = 0;
    close_all(s);
}

static void child_rekey_negotiates_its_group(void **state)
{
    (void)state;
    esp_groups("aes128gcm16", "aes128gcm16", true);
    esp_groups("aes128gcm16-x25519", "aes128gcm16", true);
    esp_groups("aes128gcm16", "aes128gcm16-x25519", true);
    esp_groups("aes128gcm16-ecp256-x25519", "aes128gcm16-x25519", true); /* INVALID_KE_PAYLOAD */
    esp_groups("aes128gcm16-ecp256", "aes128gcm16-ecp384", false);
}

static void hard_limit_replaces_the_child(void **state)
{
    (void)state;
    struct sim *s = connected(41);
    A->peers[0].start = START_YES;
    ike_start(A->e, s->now);
    ike_child_hard(A->e, sim_sending(A, NULL)->id, s->now);
    assert_null(sim_sending(A, NULL)); /* at once */
    settle(s);
    close_all(s);
}

/* Both ends count the same packets, and both want another one then. */
static void hard_limits_of_both_ends_leave_one_child(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        struct sim *s = connected(140 + i);
        s->jitter = i % 2 ? 5 * NS_PER_MS : 40 * NS_PER_MS;
        for (unsigned k = 0; k < 2; k++) {
            s->node[k].peers[0].start = START_YES;
            ike_start(s->node[k].e, s->now);
        }
        uint64_t theirs = sim_sending(B, NULL)->id;
        ike_child_hard(A->e, sim_sending(A, NULL)->id, s->now);
        sim_for(s, sim_rand(s, 30) * NS_PER_MS);
        ike_child_hard(B->e, theirs, s->now);
        sim_for(s, NS_PER_S);
        s->traffic = NS_PER_MS;
        settle(s);
        close_all(s);
    }
}

static void soft_limit_rekeys_once(void **state)
{
    (void)state;
    struct sim *s = connected(42);
    uint64_t id = sim_sending(A, NULL)->id;
    for (unsigned i = 0; i < 5; i++)
        ike_child_soft(A->e, id, s->now);
    settle(s);
    assert_int_equal(sim_count(A, IKE_EVENT_CHILD_REKEYED), 1);
    close_all(s);
}

/* The peer has lost the newest Child SA, an older one of the policy is still there: the command is told. */
static void rekey_of_what_the_peer_forgot_ends(void **state)
{
    (void)state;
    struct sim *s = connected(43);
    child_drop(B->e->sas->children, false);
    ike_up(B->e, &B->peers[0], NULL, 4, s->now);
    sim_for(s, NS_PER_S);
    assert_int_equal(sim_children(A), 2);
    child_drop(B->e->sas->children, false);
    rekey(s, 0, true, 5);
    sim_for(s, 5 * NS_PER_S);
    assert_non_null(sim_command(A, 5));
    assert_false(sim_command(A, 5)->ok);
    close_all(s);
}

static void commands_end_within_three_minutes(void **state)
{
    (void)state;
    struct sim *s = connected(44);
    B->e->sas->undecided_of = B->e->sas; /* TEMPORARY_FAILURE, for ever */
    rekey(s, 0, true, 5);
    sim_for(s, 179 * NS_PER_S);
    assert_null(sim_command(A, 5));
    sim_for(s, 2 * NS_PER_S);
    assert_non_null(sim_command(A, 5));
    assert_false(sim_command(A, 5)->ok);
    B->e->sas->undecided_of = NULL;
    close_all(s);
}

/* What node 0 sends on the SA that the peer's rekey has made. */
static enum sim_fate lose_what_the_peer_made(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    const uint64_t *made = ctx;
    return p->from == 0 && !p->esp && !p->keepalive && get_be64(p->data + 8) == *made ? SIM_DROP : SIM_DELIVER;
}

static enum sim_fate hold_all(struct sim *s, struct sim_packet *p, void *ctx)
{
    (void)s;
    (void)p;
    (void)ctx;
    return SIM_HOLD;
}

/*
 * Both ends rekey the IKE SA, and the peer leaves node 0's configuration before it is decided which of them counts: the
 * old SA ends, and the peer goes on with the one that it has made.
 */
static void crossing_rekeys_of_a_peer_that_is_removed(void **state)
{
    (void)state;
    unsigned alone = 0;
    for (uint64_t seed = 50; seed < 56; seed++) {
        struct sim *s = connected(seed);
        struct config none = A->config;
        none.peer_count = none.policy_count = 0;
        s->hook = hold_all;
        rekey(s, 0, false, 0);
        rekey(s, 1, false, 0);
        sim_for(s, 50 * NS_PER_MS);
        sim_release(s, sim_held(s, sim_held(s, 0)->from != 1)); /* the peer's request */
        sim_for(s, 50 * NS_PER_MS);
        struct ike_sa *old = A->e->sas, *made = old->next;
        assert_ptr_equal(made->undecided_of, old);
        uint64_t spi = made->spi_r;
        s->hook = lose_what_the_peer_made;
        s->hook_ctx = &spi;
        reload(A->e, &none, s->now);
        while (sim_held(s, 0))
            sim_release(s, sim_held(s, 0));
        sim_for(s, 2 * NS_PER_S);
        alone += A->e->sas && A->e->sas->spi_r == spi;
        ike_down(B->e, &B->peers[0], &B->policies[0], 0, s->now); /* a Delete on whichever SA has won */
        sim_for(s, 2 * NS_PER_S);
        s->hook = NULL;
        close_all(s);
    }
    assert_int_not_equal(alone, 0);
}

/* What waited for the peer's rekey of the IKE SA goes on when that fails. */
static void failed_rekey_of_the_peer_holds_nothing_up(void **state)
{
    (void)state;
    struct sim *s = connected(45);
    rekey(s, 1, false, 4);
    while (!A->e->sas->pending)
        sim_for(s, NS_PER_MS);
    A->e->sas->pending->terms.choice.prf.id = 0;
    rekey(s, 0, true, 5);
    sim_for(s, 2 * NS_PER_S);
    assert_non_null(sim_command(A, 5));
    assert_true(sim_command(A, 5)->ok);
    sim_for(s, 30 * NS_PER_S);
    assert_true(sim_command(B, 4)->ok); /* TEMPORARY_FAILURE, then again */
    settle(s);
    close_all(s);
}

/* Limits that last hardly longer than a rekey takes are worth a line, and not one each time. */
static void limits_too_low_for_the_rate_are_told_once(void **state)
{
    (void)state;
    struct sim *s = connected(95);
    unsigned before = sim_count(A, IKE_EVENT_NOTICE);
    for (unsigned i = 0; i < 4; i++) {
        uint64_t id = sim_sending(A, NULL)->id;
        sim_for(s, i == 0 ? 10 * NS_PER_S : 100 * NS_PER_MS); /* the first one has lasted */
        ike_child_soft(A->e, id, s->now);
        sim_for(s, 100 * NS_PER_MS);
        assert_int_equal(sim_count(A, IKE_EVENT_CHILD_REKEYED), i + 1);
        assert_int_equal(sim_count(A, IKE_EVENT_NOTICE) - before, i > 0);
    }
    assert_non_null(sim_find(A, IKE_EVENT_NOTICE, "too soon"));
    settle(s);
    close_all(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_rekeyed_by_either_end),
        cmocka_unit_test(ike_rekeyed_by_either_end),
        cmocka_unit_test(ike_rekey_waits_while_a_child_rekey_is_answered),
        cmocka_unit_test(a_request_that_leaves_late_collides_as_well),
        cmocka_unit_test(child_rekeyed_by_both),
        cmocka_unit_test(ike_rekeyed_by_both),
        cmocka_unit_test(ike_and_child_at_once),
        cmocka_unit_test(child_rekeyed_by_both_with_loss),
        cmocka_unit_test(ike_rekeyed_by_both_with_loss),
        cmocka_unit_test(ike_and_child_at_once_with_loss),
        cmocka_unit_test(lifetimes_rekey_by_themselves),
        cmocka_unit_test(child_rekey_negotiates_its_group),
        cmocka_unit_test(hard_limit_replaces_the_child),
        cmocka_unit_test(hard_limits_of_both_ends_leave_one_child),
        cmocka_unit_test(soft_limit_rekeys_once),
        cmocka_unit_test(rekey_of_what_the_peer_forgot_ends),
        cmocka_unit_test(commands_end_within_three_minutes),
        cmocka_unit_test(failed_rekey_of_the_peer_holds_nothing_up),
        cmocka_unit_test(crossing_rekeys_of_a_peer_that_is_removed),
        cmocka_unit_test(limits_too_low_for_the_rate_are_told_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
