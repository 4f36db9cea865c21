/* A thousand clients of one hub: all come up, none disturbs another, and what one of them does costs the same as with few. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "crypto/secret.h"
#include "ike/internal.h"
#include "test/unit/crowd.h"
#include "test/unit/reload.h"

#define MANY 1000
#define HUB (&c->end[CROWD_HUB])
#define CLIENTS (&c->end[CROWD_CLIENTS])

static unsigned up_count(struct crowd_end *end)
{
    unsigned n = 0;
    for (const struct ike_sa *sa = end->e->sas; sa; sa = sa->next)
        n += sa->state == SA_UP;
    return n;
}

static void assert_all_up(struct crowd *c, unsigned n)
{
    for (unsigned i = 0; i < 2; i++) {
        if (up_count(&c->end[i]) != n)
            print_message("last failure: %s / %s\n", HUB->failure, CLIENTS->failure);
        assert_int_equal(up_count(&c->end[i]), n);
        assert_int_equal(ike_count(c->end[i].e).child_sas, n);
    }
    assert_int_equal(ike_count(HUB->e).half_open, 0);
    assert_int_equal(HUB->e->table.by_source.count, 0);
}

static void a_thousand_clients_come_up_and_go(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(MANY, "", "", NULL);
    assert_true(crowd_up(c, 10 * NS_PER_S));
    assert_all_up(c, MANY);
    assert_int_equal(CLIENTS->events[IKE_EVENT_FAILED] + HUB->events[IKE_EVENT_FAILED], 0);
    assert_int_equal(stat_get(&HUB->stats, STAT_DROP_IKE_LIMIT), 0); /* they came no faster than one source may */
    ike_shutdown(CLIENTS->e, c->now);
    crowd_run(c, c->now + NS_PER_S);
    for (unsigned i = 0; i < 2; i++) {
        assert_true(ike_idle(c->end[i].e));
        assert_int_equal(ike_count(c->end[i].e).child_sas, 0);
        assert_int_equal(c->end[i].e->child_groups.count, 0);
        assert_int_equal(c->end[i].e->table.by_first.count, 0);
        assert_int_equal(c->end[i].e->table.by_peer.count, 0);
        assert_int_equal(c->end[i].e->fresh, 0);
        assert_int_equal(c->end[i].installed, c->end[i].removed);
    }
    crowd_free(c);
}

/* However their beginnings are spread, idle SAs wake the process some times a second, and each is looked at each second. */
static void idle_ones_are_looked_at_together(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(MANY, "", "", NULL);
    assert_true(crowd_up(c, 10 * NS_PER_S));
    unsigned k = 0, wakes = 0;
    for (struct ike_sa *sa = HUB->e->sas; sa; sa = sa->next, k++) {
        HUB->e->now = c->now + k * NS_PER_MS;
        poll_later(sa);
    }
    ns_t last = 0, end = c->now + 10 * NS_PER_S;
    for (ns_t at; (at = ike_deadline(HUB->e)) <= end;) {
        wakes += at > last + NS_PER_MS; /* several ticks of one moment are one wake */
        last = at;
        ike_tick(HUB->e, at);
    }
    assert_in_range(wakes, 90, 110);
    for (struct ike_sa *sa = HUB->e->sas; sa; sa = sa->next)
        assert_in_range(sa->poll.at, end - NS_PER_S / 10, end + NS_PER_S);
    crowd_free(c);
}

/* What a walk over the hub's only peer finds from here on. */
static unsigned walked(struct ike_walk *w)
{
    struct ike_sa_info sa;
    struct ike_child_info child;
    unsigned n = 0;
    for (; ike_walk_sa(w, &sa); n++)
        while (ike_walk_child(w, &child))
            assert_int_equal(child.ike_spi_i, sa.spi_i);
    return n;
}

static void a_walk_goes_on_while_sas_come_and_go(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(20, "", "", NULL);
    struct ike_walk *w[3];
    struct ike_sa_info sa;
    assert_true(crowd_up(c, 10 * NS_PER_S));
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(ike_walk_new(HUB->e, &w[i]), OK);
        ike_walk_peer(w[i], HUB->config->peers[0]);
    }
    for (unsigned i = 0; i < 5; i++)
        assert_true(ike_walk_sa(w[0], &sa));
    assert_int_equal(walked(w[1]), 20);
    /* The one that the first stands at, the one whose Child SA it is about to show, and one that it has seen. */
    sa_kill(table_find(&HUB->e->table, sa.spi_r)->next);
    sa_kill(table_find(&HUB->e->table, sa.spi_r));
    sa_kill(HUB->e->sas);
    engine_leave(HUB->e);
    assert_false(ike_walk_child(w[0], &(struct ike_child_info){0}));
    /* A rekeyed one is seen in its successor, in front of which the old one may still be. */
    uint64_t rekeyed = CLIENTS->e->sas_last->spi_i;
    ike_rekey(CLIENTS->e, CLIENTS->e->sas_last->run->peer, NULL, 0, c->now);
    crowd_settle(c);
    unsigned n = 0;
    for (; ike_walk_sa(w[0], &sa); n++)
        assert_true(sa.spi_i != rekeyed || sa.state == IKE_DELETING);
    assert_in_range(n, 14, 15);
    ike_walk_free(w[1]);
    assert_in_range(walked(w[2]), 17, 18);
    ike_free(HUB->e); /* and the other two outlive it */
    HUB->e = NULL;
    assert_int_equal(walked(w[0]), 0);
    ike_walk_peer(w[2], HUB->config->peers[0]);
    assert_int_equal(walked(w[2]), 0);
    ike_walk_free(w[0]);
    ike_walk_free(w[2]);
    crowd_free(c);
}

static bool lose_some(struct crowd *c, unsigned from, struct span message)
{
    (void)from;
    (void)message;
    return c->sent % 7 == 3;
}

static void all_follow_an_address_and_nobody_waits_for_that(void **state)
{
    (void)state;
    const struct ip list[2] = {{.family = 4, .b = {192, 0, 2, 1}}, {.family = 4, .b = {192, 0, 2, 9}}};
    struct crowd *c = crowd_new(MANY, "", "", NULL);
    ike_addresses(CLIENTS->e, list, 1, c->now);
    assert_true(crowd_up(c, 10 * NS_PER_S));
    uint64_t before = c->sent;
    ike_addresses(CLIENTS->e, list, 2, c->now);
    assert_in_range(c->sent - before, 1, 100);
    assert_true(ike_deadline(CLIENTS->e) <= c->now);
    struct ike_sa *next = CLIENTS->e->roaming;
    assert_non_null(next);
    sa_kill_quietly(next); /* its turn would have come */
    assert_ptr_not_equal(CLIENTS->e->roaming, next);
    crowd_run(c, c->now + NS_PER_S);
    assert_null(CLIENTS->e->roaming);
    for (struct ike_sa *sa = CLIENTS->e->sas; sa; sa = sa->next)
        assert_true(sa->state != SA_UP || sa->mobike.told == CLIENTS->e->address_version);
    crowd_free(c);
}

static void with_loss_they_come_up_all_the_same(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(300, "", "", NULL);
    c->lose = lose_some;
    assert_true(crowd_up(c, 200 * NS_PER_S));
    c->lose = NULL;
    crowd_run(c, c->now + 100 * NS_PER_S);
    assert_all_up(c, 300);
    crowd_free(c);
}

/* Cookies are demanded, and more than one source may have are not let in at once: they wait and come again. */
static void limits_for_strangers_delay_and_lose_nobody(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(200, "", "", &(struct ike_limits){.half_open = 30, .cookie_threshold = 1});
    assert_true(crowd_up(c, 300 * NS_PER_S));
    assert_all_up(c, 200);
    assert_true(stat_get(&HUB->stats, STAT_DROP_IKE_LIMIT) > 0);
    crowd_free(c);
}

/* An attempt that gets no answer stands back after a second; otherwise the first 96 of these would hold up the rest. */
static bool lose_early(struct crowd *c, unsigned from, struct span message)
{
    (void)message;
    return from == CROWD_CLIENTS && c->now < 5 * NS_PER_S;
}

static void peers_that_do_not_answer_hold_nobody_up(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(300, "", "", NULL);
    c->lose = lose_early;
    ike_start(CLIENTS->e, c->now);
    crowd_settle(c);
    assert_int_equal(ike_count(CLIENTS->e).ike_sas, 96);
    crowd_run(c, c->now + 1200 * NS_PER_MS);
    assert_in_range(ike_count(CLIENTS->e).ike_sas, 190, 200);
    c->lose = NULL;
    crowd_run(c, c->now + 60 * NS_PER_S);
    assert_all_up(c, 300);
    crowd_free(c);
}

static void what_a_command_asks_for_does_not_wait(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(300, "", "", NULL);
    c->lose = lose_early;
    ike_start(CLIENTS->e, c->now);
    ike_up(CLIENTS->e, CLIENTS->config->peers[299], NULL, 1, c->now);
    assert_int_equal(ike_count(CLIENTS->e).ike_sas, 97);
    crowd_free(c);
}

/* With no room for its jobs the hub keeps nothing of those who come, and they come again. */
static void a_full_queue_costs_the_hub_no_memory(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(100, "", "", NULL);
    HUB->full = true;
    ike_start(CLIENTS->e, c->now);
    crowd_run(c, c->now + 2 * NS_PER_S);
    assert_true(HUB->inputs >= 100);
    assert_int_equal(ike_count(HUB->e).ike_sas, 0);
    assert_int_equal(ike_count(HUB->e).half_open, 0);
    HUB->full = false;
    crowd_run(c, c->now + 60 * NS_PER_S);
    assert_all_up(c, 100);
    crowd_free(c);
}

/* One client starts anew and says so: only its own old SA goes. */
static void initial_contact_of_one_leaves_the_others(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(50, "", "", NULL);
    assert_true(crowd_up(c, 10 * NS_PER_S));
    c->now += NS_PER_S;
    struct ike_sa *sa = run_of(CLIENTS->e, CLIENTS->config->peers[7])->sas;
    sa_kill(sa); /* it lost its memory: nobody is told */
    engine_leave(CLIENTS->e);
    ike_up(CLIENTS->e, CLIENTS->config->peers[7], NULL, 1, c->now);
    crowd_run(c, c->now + NS_PER_S);
    assert_int_equal(HUB->events[IKE_EVENT_IKE_DOWN], 1);
    assert_all_up(c, 50);
    crowd_free(c);
}

/* A client that connects while another's SA is being rekeyed by us is no collision. */
static void a_rekey_by_the_hub_is_no_matter_of_another_client(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(20, "", "", NULL);
    assert_true(crowd_up(c, 10 * NS_PER_S));
    unsigned down = 0;
    for (struct ike_sa *sa = HUB->e->sas, *next; sa && down < 20; sa = next, down++) {
        next = sa->next;
        assert_true(sa_rekey(sa));
    }
    ike_up(CLIENTS->e, CLIENTS->config->peers[3], NULL, 0, c->now);
    crowd_run(c, c->now + 5 * NS_PER_S);
    assert_int_equal(HUB->events[IKE_EVENT_IKE_REKEYED], 20);
    assert_all_up(c, 20);
    for (const struct ike_sa *sa = HUB->e->sas; sa; sa = sa->next) {
        struct ike_sa *same = table_same_peer(&HUB->e->table, sa);
        assert_ptr_equal(same, sa);
        assert_null(table_same_peer_next(same, sa));
    }
    crowd_free(c);
}

/* Nothing of the old configuration is pointed to: a sanitizer sees the rest. */
static void a_reload_keeps_all_and_drops_what_changed(void **state)
{
    (void)state;
    struct crowd *c = crowd_new(200, "", "", NULL), *other = crowd_new(150, "", "", NULL);
    assert_true(crowd_up(c, 10 * NS_PER_S));
    struct config *old = CLIENTS->config;
    uint64_t before = c->sent;
    assert_int_equal(reload(CLIENTS->e, other->end[CROWD_CLIENTS].config, c->now), OK);
    assert_int_equal(c->sent, before); /* the Deletes go out in ticks, some at a time */
    assert_in_range(CLIENTS->events[IKE_EVENT_NOTICE], 33, 33);
    CLIENTS->config = NULL;
    config_free(old);
    crowd_run(c, c->now + NS_PER_S);
    assert_all_up(c, 150);
    const struct config *now = other->end[CROWD_CLIENTS].config;
    for (unsigned i = 0; i < now->policy_count; i++)
        assert_ptr_equal(child_policy(child_live(CLIENTS->e, now->policies[i])), now->policies[i]);
    crowd_free(c);
    crowd_free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_clients_come_up_and_go),
        cmocka_unit_test(idle_ones_are_looked_at_together),
        cmocka_unit_test(a_walk_goes_on_while_sas_come_and_go),
        cmocka_unit_test(all_follow_an_address_and_nobody_waits_for_that),
        cmocka_unit_test(with_loss_they_come_up_all_the_same),
        cmocka_unit_test(limits_for_strangers_delay_and_lose_nobody),
        cmocka_unit_test(peers_that_do_not_answer_hold_nobody_up),
        cmocka_unit_test(what_a_command_asks_for_does_not_wait),
        cmocka_unit_test(a_full_queue_costs_the_hub_no_memory),
        cmocka_unit_test(initial_contact_of_one_leaves_the_others),
        cmocka_unit_test(a_rekey_by_the_hub_is_no_matter_of_another_client),
        cmocka_unit_test(a_reload_keeps_all_and_drops_what_changed),
    };
    return crypto_init() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
