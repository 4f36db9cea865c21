/*
 * One step after the other fails: the life of a link between two engines is lived again and again, and each time the
 * next allocation, job, SPI, installation or message can't be had. Nothing may crash, leak or stay stuck: once things
 * work again both ends agree by themselves, and after a shutdown no SA and no SPI is left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ike/internal.h"
#include "test/unit/credential.h"
#include "test/unit/fault.h"
#include "test/unit/reload.h"
#include "test/unit/sim.h"
#include "test/vectors/auth.h"

#define A (&s->node[0])
#define B (&s->node[1])

enum link { PLAIN, CERTIFIED, MOBILE }; /* CERTIFIED: by certificates, whose messages come in fragments */

static struct sim *link_new(uint64_t seed, enum link link)
{
    bool certified = link == CERTIFIED;
    static const char *const key[2] = {VECTOR_A_P256_KEY, VECTOR_B_P256_KEY};
    static const char *const cert[2] = {VECTOR_A_P256_CRT, VECTOR_B_P256_CRT};
    struct sim *s = sim_new(seed);
    for (unsigned k = 0; k < 2; k++) {
        s->node[k].peers[0].start = START_YES;
        s->node[k].peers[0].dpd = 5 * NS_PER_S;
        s->node[k].peers[0].mobike = link == MOBILE;
        if (!certified)
            continue;
        own_cert(&s->node[k].peers[0], key[k], cert[k]);
        wants_ca(&s->node[k].peers[0], VECTOR_ROOT_CRT);
    }
    sim_start_engines(s, certified ? &(struct ike_limits){.datagram = 400} : NULL);
    fault_worlds((struct ike_engine *[]){A->e, B->e}, 2);
    for (unsigned k = 0; k < 2 && link == MOBILE; k++)
        sim_addresses(s, k);
    s->traffic = 100 * NS_PER_MS;
    return s;
}

static void link_free(struct sim *s)
{
    for (unsigned k = 0; k < 2; k++)
        forget(&s->node[k].peers[0]);
    sim_free(s);
}

/* -- lives: armed from the beginning to the end -- */

static void start(struct sim *s)
{
    ike_start(A->e, s->now);
    sim_for(s, NS_PER_S);
    ike_start(B->e, s->now);
    sim_for(s, 3 * NS_PER_S);
}

static void rekey(struct sim *s, unsigned by, bool child, uint64_t command)
{
    struct sim_node *n = &s->node[by];
    ike_rekey(n->e, &n->peers[0], child ? &n->policies[0] : NULL, command, s->now);
}

static void life_with_rekeys(struct sim *s)
{
    start(s);
    for (unsigned i = 0; i < 4; i++) {
        rekey(s, i % 2, i < 2, 10 + i);
        sim_for(s, 2 * NS_PER_S);
    }
}

static void life_certified(struct sim *s)
{
    start(s);
    rekey(s, 0, true, 10);
    sim_for(s, 2 * NS_PER_S);
}

/* The IKE SA is authenticated anew. */
static void life_with_reauthentication(struct sim *s)
{
    A->peers[0].reauth = 50 * NS_PER_S;
    start(s);
    sim_for(s, 55 * NS_PER_S);
}

/* The initiator of the IKE SA gets another address, and then the first one again (RFC 4555 section 3.5). */
static void life_moving(struct sim *s)
{
    struct ip home = A->ip;
    start(s);
    for (unsigned i = 0; i < 2; i++) {
        A->ip = i ? home : (struct ip){.family = 4, .b = {10, 0, 1, 1}};
        sim_addresses(s, 0);
        sim_for(s, 3 * NS_PER_S);
    }
}

/* Both ends at once, so that the steps of collisions fail as well. */
static void life_with_collisions(struct sim *s)
{
    start(s);
    for (unsigned i = 0; i < 4; i++) {
        rekey(s, 0, i < 2, 10 + i);
        sim_for(s, i % 2 ? 15 * NS_PER_MS : 0);
        rekey(s, 1, i % 2 == 0, 20 + i);
        sim_for(s, 2 * NS_PER_S);
    }
}

static void life_with_deletes(struct sim *s)
{
    start(s);
    ike_down(A->e, &A->peers[0], &A->policies[0], 10, s->now);
    sim_for(s, NS_PER_S);
    ike_up(A->e, &A->peers[0], &A->policies[0], 11, s->now);
    sim_for(s, 2 * NS_PER_S);
    ike_down(B->e, &B->peers[0], NULL, 20, s->now);
    sim_for(s, NS_PER_S);
    ike_up(B->e, &B->peers[0], NULL, 21, s->now);
    sim_for(s, 2 * NS_PER_S);
}

static void life_with_soft_limits(struct sim *s)
{
    start(s);
    for (uint64_t id = 1; id < 4; id++) {
        ike_child_soft(A->e, id, s->now);
        sim_for(s, NS_PER_S);
    }
    for (uint64_t id = 1; id < 8; id++)
        ike_child_hard(B->e, id, s->now);
    sim_for(s, 3 * NS_PER_S);
}

/* The daemon's own copies of one and the same configuration, and one with another lifetime of the policy. */
struct copy {
    struct config config;
    struct peer peer, *peers[1];
    struct policy policy, *policies[1];
};
static struct copy copies[3];

static void load_copy(struct sim *s, struct copy *c, ns_t lifetime)
{
    *c = (struct copy){.config = A->config, .peer = A->peers[0], .policy = A->policies[0]};
    c->policy.peer = &c->peer;
    c->policy.lifetime = lifetime;
    c->peers[0] = &c->peer;
    c->policies[0] = &c->policy;
    c->config.peers = c->peers;
    c->config.policies = c->policies;
    if (reload(A->e, &c->config, s->now) != OK)
        return;
    ike_start(A->e, s->now);
    sim_for(s, 2 * NS_PER_S);
}

static void life_with_reloads(struct sim *s)
{
    start(s);
    load_copy(s, &copies[0], A->policies[0].lifetime);
    load_copy(s, &copies[1], 1800 * NS_PER_S);
}

/* -- and what must hold afterwards -- */

static bool fail_here(struct sim *s, const char *what)
{
    print_message("%s: %s %u fails%s: %s\n", __func__, fault_name[fault.kind], fault.first,
                  fault.lasting ? ", and all that follow" : "", what);
    sim_dump(s);
    return false;
}

static bool commands_over(struct sim *s)
{
    sim_for(s, 200 * NS_PER_S); /* each ends within three minutes */
    for (uint64_t c = 10; c < 24; c++)
        for (unsigned k = 0; k < 2; k++)
            (void)sim_command(&s->node[k], c); /* aborts when one ends twice */
    return !A->e->commands && !B->e->commands;
}

/* One IKE SA, and the same Child SAs at both ends: two, if both have asked for one at the same time. */
static bool agreed(struct sim *s)
{
    for (unsigned k = 0; k < 2; k++)
        if (sim_ike_sas(&s->node[k], IKE_ESTABLISHED) != 1 || sim_ike_sas(&s->node[k], IKE_DELETING))
            return false;
    return sim_both(s) && sim_agree(s) && sim_children(A) == sim_children(B) && sim_children(A) <= 2;
}

/* Traffic of both ends arrives, all of it. */
static bool passes(struct sim *s)
{
    unsigned sent = s->esp_sent, got = s->esp_received, lost = s->esp_lost;
    sim_for(s, 10 * NS_PER_S);
    return s->esp_sent - sent >= 198 && s->esp_lost == lost && s->esp_received - got >= s->esp_sent - sent - 4;
}

static bool comes_back(struct sim *s)
{
    if (A->e->config != &A->config) /* a peer for which a reload had no memory stays unknown until the next one */
        load_copy(s, &copies[2], A->policies[0].lifetime);
    for (unsigned k = 0; k < 2; k++) {
        /* A command that fails says so, and is for who gave it to repeat: what was taken down is not up by itself. */
        struct sim_node *n = &s->node[k];
        struct run *r = n->e->runs ? n->e->runs[0] : NULL;
        if (r && (r->held || (r->policy_count && r->policies[0].held)))
            ike_up(n->e, r->peer, NULL, 23, s->now);
    }
    if (!sim_run(s, s->now + 400 * NS_PER_S, agreed))
        return fail_here(s, "the ends don't agree again");
    if (!commands_over(s))
        return fail_here(s, "a command never ended");
    if (!sim_run(s, s->now + 5 * NS_PER_S, agreed) || !passes(s))
        return fail_here(s, "traffic does not pass for good");
    return true;
}

static bool ends(struct sim *s)
{
    s->traffic = 0;
    ike_shutdown(A->e, s->now);
    ike_shutdown(B->e, s->now);
    return sim_run(s, s->now + 400 * NS_PER_S, sim_empty) || fail_here(s, "something is left after the shutdown");
}

/* Lives with the n'th call failing. Returns false when there was no such call any more. */
static bool live(void (*life)(struct sim *), enum fault_kind kind, unsigned n, bool lasting)
{
    struct sim *s = link_new(1000 + n, life == life_certified ? CERTIFIED : life == life_moving ? MOBILE : PLAIN);
    fault_arm(kind, n, lasting);
    life(s);
    fault.armed = false;
    bool happened = fault.calls > n, well = comes_back(s) && ends(s);
    link_free(s);
    assert_true(well);
    return happened;
}

static void each(void (*life)(struct sim *), enum fault_kind kind)
{
    for (unsigned lasting = 0; lasting < 2; lasting++) {
        unsigned n = 0;
        while (live(life, kind, n, lasting))
            n++;
        print_message("%u failing one by one%s: %s\n", n, lasting ? ", with all that follow" : "", fault_name[kind]);
        assert_true(n > 2);
    }
}

static void allocations_fail(void **state)
{
    (void)state;
    each(life_with_rekeys, FAULT_ALLOCATION);
}
static void allocations_fail_with_certificates(void **state)
{
    (void)state;
    each(life_certified, FAULT_ALLOCATION);
    each(life_certified, FAULT_JOB_REFUSED);
    each(life_certified, FAULT_JOB_FAILED);
    each(life_certified, FAULT_MESSAGE);
}
static void allocations_fail_while_reauthenticating(void **state)
{
    (void)state;
    each(life_with_reauthentication, FAULT_ALLOCATION);
    each(life_with_reauthentication, FAULT_INSTALL);
    each(life_with_reauthentication, FAULT_MESSAGE);
}
static void allocations_fail_while_moving(void **state)
{
    (void)state;
    each(life_moving, FAULT_ALLOCATION);
    each(life_moving, FAULT_MESSAGE);
}
static void allocations_fail_in_collisions(void **state)
{
    (void)state;
    each(life_with_collisions, FAULT_ALLOCATION);
}
static void allocations_fail_while_deleting(void **state)
{
    (void)state;
    each(life_with_deletes, FAULT_ALLOCATION);
}
static void allocations_fail_at_limits(void **state)
{
    (void)state;
    each(life_with_soft_limits, FAULT_ALLOCATION);
}
static void allocations_fail_while_reloading(void **state)
{
    (void)state;
    each(life_with_reloads, FAULT_ALLOCATION);
}
/* The shutdown itself is short of everything: the peer may have to find out by itself, but nothing is left here. */
static void shutdown_fails(void **state)
{
    (void)state;
    static const enum fault_kind kinds[] = {FAULT_ALLOCATION, FAULT_MESSAGE};
    for (unsigned k = 0; k < 2; k++)
        for (unsigned n = 0, calls = 1; n <= calls; n++) {
            struct sim *s = link_new(8 + n, PLAIN);
            start(s);
            fault_arm(kinds[k], n, true);
            ike_shutdown(A->e, s->now);
            sim_for(s, 5 * NS_PER_S);
            fault.armed = false;
            calls = fault.calls;
            assert_true(ends(s));
            link_free(s);
        }
}

static void engine_cannot_be_made(void **state)
{
    (void)state;
    struct sim *s = link_new(9, PLAIN);
    for (unsigned n = 0;; n++) {
        struct ike_engine *e = NULL;
        fault_arm(FAULT_ALLOCATION, n, false);
        enum err err = ike_new(&e, &A->env, &A->config, NULL);
        fault.armed = false;
        if (err == OK) {
            assert_true(n > 4 && fault.calls == n);
            ike_free(e);
            break;
        }
        assert_int_equal(err, ERR_NOMEM);
        assert_null(e);
    }
    link_free(s);
}

static void jobs_are_refused(void **state)
{
    (void)state;
    each(life_with_rekeys, FAULT_JOB_REFUSED);
    each(life_with_collisions, FAULT_JOB_REFUSED);
}
static void jobs_fail(void **state)
{
    (void)state;
    each(life_with_rekeys, FAULT_JOB_FAILED);
    each(life_with_collisions, FAULT_JOB_FAILED);
}
/* A responder's key exchange that fails for want of memory is not the peer's fault: the IKE SA stays. */
static void a_shortage_is_not_blamed_on_the_peer(void **state)
{
    (void)state;
    for (unsigned child = 0; child < 2; child++) {
        struct sim *s = link_new(7, PLAIN);
        start(s);
        rekey(s, 0, child, 10);
        fault_arm(FAULT_JOB_FAILED, 1, false); /* of the offer, the response and the end */
        sim_for(s, NS_PER_S);
        fault.armed = false;
        assert_int_equal(fault.calls, 2);
        assert_int_equal(sim_count(A, IKE_EVENT_IKE_DOWN) + sim_count(B, IKE_EVENT_IKE_DOWN), 0);
        assert_true(sim_run(s, s->now + 30 * NS_PER_S, agreed));
        sim_for(s, 20 * NS_PER_S);
        assert_true(sim_command(A, 10)->ok); /* tried again after TEMPORARY_FAILURE */
        assert_true(ends(s));
        link_free(s);
    }
}
/* A rekey that the peer refuses for a moment is tried again before the hard limit, however near that is. */
static void a_refused_rekey_beats_the_hard_limit(void **state)
{
    (void)state;
    struct sim *s = link_new(11, PLAIN);
    A->policies[0].lifetime = 8 * NS_PER_S;
    start(s);
    fault_arm(FAULT_JOB_FAILED, 1, false); /* of the offer, the response and the end */
    sim_for(s, 6 * NS_PER_S);
    fault.armed = false;
    assert_true(fault.calls > 3);
    assert_int_equal(sim_count(A, IKE_EVENT_CHILD_REKEYED), 1);
    assert_int_equal(sim_count(A, IKE_EVENT_CHILD_DOWN), 0);
    assert_true(ends(s));
    link_free(s);
}
static void spis_run_out(void **state)
{
    (void)state;
    each(life_with_rekeys, FAULT_RESERVE);
}
static void installations_fail(void **state)
{
    (void)state;
    each(life_with_rekeys, FAULT_INSTALL);
    each(life_with_collisions, FAULT_INSTALL);
}
static void messages_cannot_be_made(void **state)
{
    (void)state;
    each(life_with_rekeys, FAULT_MESSAGE);
    each(life_with_collisions, FAULT_MESSAGE);
    each(life_with_deletes, FAULT_MESSAGE);
}
static void keys_cannot_be_made(void **state)
{
    (void)state;
    each(life_with_rekeys, FAULT_KEYS);
    each(life_with_rekeys, FAULT_PRF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_fail),
        cmocka_unit_test(allocations_fail_with_certificates),
        cmocka_unit_test(allocations_fail_while_reauthenticating),
        cmocka_unit_test(allocations_fail_while_moving),
        cmocka_unit_test(allocations_fail_in_collisions),
        cmocka_unit_test(allocations_fail_while_deleting),
        cmocka_unit_test(allocations_fail_at_limits),
        cmocka_unit_test(allocations_fail_while_reloading),
        cmocka_unit_test(shutdown_fails),
        cmocka_unit_test(engine_cannot_be_made),
        cmocka_unit_test(jobs_are_refused),
        cmocka_unit_test(jobs_fail),
        cmocka_unit_test(a_shortage_is_not_blamed_on_the_peer),
        cmocka_unit_test(a_refused_rekey_beats_the_hard_limit),
        cmocka_unit_test(spis_run_out),
        cmocka_unit_test(installations_fail),
        cmocka_unit_test(messages_cannot_be_made),
        cmocka_unit_test(keys_cannot_be_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
