/* IKE SAs without a first Child SA (RFC 6023). */
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

static struct sim *started(uint64_t seed, enum childless_mode a, enum childless_mode b)
{
    struct sim *s = sim_new(seed);
    A->peers[0].childless = a;
    B->peers[0].childless = b;
    sim_start_engines(s, NULL);
    ike_up(A->e, &A->peers[0], NULL, 1, s->now);
    return s;
}

static void forced_the_child_comes_by_an_exchange_of_its_own(void **state)
{
    (void)state;
    struct sim *s = started(1, CHILDLESS_FORCE, CHILDLESS_ALLOW);
    while (!sim_count(B, IKE_EVENT_IKE_UP))
        sim_for(s, NS_PER_MS);
    assert_int_equal(sim_children(A) + sim_children(B), 0);
    sim_for(s, 5 * NS_PER_S);
    assert_true(sim_command(A, 1)->ok && sim_up(s));
    assert_true(A->e->sas->childless && B->e->sas->childless);
    assert_int_equal(sim_count(A, IKE_EVENT_CHILD_UP), 1);
    close_all(s);
}

static void allowed_it_is_not_asked_for(void **state)
{
    (void)state;
    struct sim *s = started(2, CHILDLESS_ALLOW, CHILDLESS_ALLOW);
    sim_for(s, 5 * NS_PER_S);
    assert_true(sim_up(s));
    assert_false(A->e->sas->childless || B->e->sas->childless);
    assert_true(B->e->sas->childless_announced);
    close_all(s);
}

static void refused_by_who_never_allows_it(void **state)
{
    (void)state;
    struct sim *s = started(3, CHILDLESS_FORCE, CHILDLESS_NEVER);
    sim_for(s, 10 * NS_PER_S);
    assert_false(sim_command(A, 1)->ok);
    assert_non_null(sim_find(A, IKE_EVENT_FAILED, "sets up no IKE SA without a Child SA"));
    assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 0);
    close_all(s);
}

/* An initiator that asks for it all the same: INVALID_SYNTAX, and no SA (section 3). */
static void unannounced_it_is_refused(void **state)
{
    (void)state;
    struct sim *s = started(4, CHILDLESS_ALLOW, CHILDLESS_NEVER);
    while (!A->e->sas->spi_r)
        sim_for(s, NS_PER_MS);
    assert_int_equal(A->e->sas->state, SA_CONNECTING);
    A->e->sas->childless = true;
    sim_for(s, 5 * NS_PER_S);
    assert_false(sim_command(A, 1)->ok);
    assert_non_null(sim_find(A, IKE_EVENT_FAILED, "INVALID_SYNTAX"));
    assert_int_equal(sim_ike_sas(B, IKE_ESTABLISHED), 0);
    close_all(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forced_the_child_comes_by_an_exchange_of_its_own),
        cmocka_unit_test(allowed_it_is_not_asked_for),
        cmocka_unit_test(refused_by_who_never_allows_it),
        cmocka_unit_test(unannounced_it_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
