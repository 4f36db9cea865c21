#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "test/unit/sim.h"

#define A (&s->node[0])
#define B (&s->node[1])
#define UP(n, c) ike_up((n)->e, &(n)->peers[0], NULL, (c), s->now)

static void connects(void **state)
{
    (void)state;
    struct sim *s = sim_new(1);
    sim_start_engines(s, NULL);
    UP(A, 7);
    bool up = sim_run(s, s->now + 5 * NS_PER_S, sim_up);
    if (!up)
        sim_dump(s);
    assert_true(up);
    assert_true(sim_command(A, 7)->ok);
    assert_non_null(sim_find(A, IKE_EVENT_IKE_UP, "b.example"));
    assert_non_null(sim_find(B, IKE_EVENT_IKE_UP, "a.example"));
    sim_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(connects)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
