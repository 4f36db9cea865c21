/*
 * A hub and its clients while memory is short: tables that can't grow, peers that wait for their turn, cookies under
 * load. All come up in the end, and nothing stays when they have gone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/secret.h"
#include "ike/internal.h"
#include "test/unit/crowd.h"
#include "test/unit/fault.h"

#define CLIENTS 120 /* more than may be under way at once */

static struct crowd *crowd_short_of(enum fault_kind kind, unsigned every)
{
    const struct ike_limits limits = {.half_open = 30, .cookie_threshold = 4};
    struct crowd *c = crowd_new(CLIENTS, "", "", &limits);
    fault_worlds((struct ike_engine *[]){c->end[0].e, c->end[1].e}, 2);
    fault_arm_every(kind, every);
    ike_start(c->end[CROWD_CLIENTS].e, c->now);
    crowd_run(c, c->now + 20 * NS_PER_S);
    fault.armed = false;
    assert_true(fault.calls > every);
    return c;
}

/* Some Child SA of a client may have gone for want of memory where the other end had none either: a while for that. */
static void all_come_up(struct crowd *c)
{
    crowd_run(c, c->now + 600 * NS_PER_S);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ike_count(c->end[i].e).child_sas, CLIENTS);
        assert_int_equal(ike_count(c->end[i].e).half_open, 0);
        assert_int_equal(c->end[i].e->table.by_source.count, 0);
        assert_int_equal(c->end[i].e->fresh, 0);
        assert_null(c->end[i].e->waiting);
    }
}

static void all_go(struct crowd *c)
{
    for (unsigned i = 0; i < 2; i++)
        ike_shutdown(c->end[i].e, c->now);
    crowd_run(c, c->now + 100 * NS_PER_S);
    for (unsigned i = 0; i < 2; i++) {
        const struct ike_engine *e = c->end[i].e;
        assert_true(ike_idle(e));
        assert_int_equal(e->children.count + e->child_groups.count, 0);
        assert_int_equal(e->table.by_spi.count + e->table.by_first.count + e->table.by_peer.count, 0);
        assert_int_equal(c->end[i].installed, c->end[i].removed);
    }
    crowd_free(c);
}

static void each_so_many_fails(enum fault_kind kind)
{
    static const unsigned every[] = {2, 3, 7, 20, 101};
    for (unsigned i = 0; i < sizeof every / sizeof *every; i++) {
        struct crowd *c = crowd_short_of(kind, every[i]);
        all_come_up(c);
        all_go(c);
    }
}

static void allocations_fail(void **state)
{
    (void)state;
    each_so_many_fails(FAULT_ALLOCATION);
}
static void jobs_fail(void **state)
{
    (void)state;
    each_so_many_fails(FAULT_JOB_REFUSED);
    each_so_many_fails(FAULT_JOB_FAILED);
}
static void messages_and_keys_cannot_be_made(void **state)
{
    (void)state;
    each_so_many_fails(FAULT_MESSAGE);
    each_so_many_fails(FAULT_PRF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(allocations_fail),
        cmocka_unit_test(jobs_fail),
        cmocka_unit_test(messages_and_keys_cannot_be_made),
    };
    return crypto_init() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
