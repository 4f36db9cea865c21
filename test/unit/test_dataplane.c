/* Child SAs and policies as the workers see them: install, rekey, removal, counters; and the MTU that suites leave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/dataplane.h"
#include "core/mtu.h"
#include "crypto/secret.h"

struct rig {
    struct worker_shared shared;
    struct timer_heap timers;
    struct dataplane *d;
    struct peer peer;
    struct policy policies[2];
    struct policy *list[2];
    struct config config;
    uint8_t key[64];
};

static void put_text(char *out, const char *text)
{
    memcpy(out, text, strlen(text) + 1);
}

static void policy_make(struct rig *r, unsigned i, const char *name, const char *remote)
{
    struct policy *p = &r->policies[i];
    *p =
        (struct policy){.action = ACTION_PROTECT, .peer = &r->peer, .replay_window = 1024, .bytes = 1000, .packets = 7};
    put_text(p->name, name);
    assert_int_equal(selectors_parse("10.1.0.0/24", &p->local, NULL, 0), OK);
    assert_int_equal(selectors_parse(remote, &p->remote, NULL, 0), OK);
    r->list[i] = p;
}

static int setup(void **state)
{
    struct rig *r = test_calloc(1, sizeof *r);
    assert_int_equal(crypto_init(), OK);
    assert_int_equal(epoch_new(&r->shared.epoch, 1), OK);
    assert_int_equal(sad_new(&r->shared.sad, r->shared.epoch, &random_system), OK);
    timer_heap_init(&r->timers, NULL);
    struct dataplane_params p = {.shared = &r->shared, .workers = 2, .timers = &r->timers};
    assert_int_equal(dataplane_new(&r->d, &p), OK);
    policy_make(r, 0, "first", "10.2.0.0/24");
    policy_make(r, 1, "second", "10.3.0.0/24");
    r->config = (struct config){.policies = r->list, .policy_count = 2};
    struct spd *spd;
    assert_int_equal(dataplane_prepare(r->d, &r->config, &spd), OK);
    dataplane_commit(r->d, &r->config, spd);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    dataplane_free(r->d);
    sad_free(r->shared.sad);
    epoch_free(r->shared.epoch);
    timer_heap_free(&r->timers);
    test_free(r);
    return 0;
}

static struct ike_child child_make(struct rig *r, uint64_t id, unsigned policy)
{
    const struct transform gcm = {TRANSFORM_ENCR, ENCR_AES_GCM_16, 128}, none = {TRANSFORM_INTEG, INTEG_NONE, 0};
    struct ike_child c = {
        .id = id, .peer = &r->peer, .policy = &r->policies[policy], .spi_out = 0x1000u + (uint32_t)id};
    assert_int_equal(suite_of(&gcm, &none, &c.suite), OK);
    assert_int_equal(dataplane_reserve(r->d, &c.spi_in), OK);
    c.key_in = span_of(r->key, c.suite.encr_key_len);
    c.key_out = span_of(r->key + 20, c.suite.encr_key_len);
    c.local = r->policies[policy].local;
    c.remote = r->policies[policy].remote;
    assert_int_equal(ip_parse("192.0.2.1", &c.path.local.ip), OK);
    assert_int_equal(ip_parse("192.0.2.2", &c.path.remote.ip), OK);
    return c;
}

static struct sa *out_of(struct rig *r, uint32_t policy)
{
    return sad_find_out(r->shared.sad, policy, 0);
}

static void test_install_publishes_both_directions_with_the_limits_of_the_policy(void **state)
{
    struct rig *r = *state;
    struct ike_child c = child_make(r, 1, 1);
    assert_int_equal(dataplane_install(r->d, &c, "auto", true, 1), OK);
    struct sa *in = sad_find_in(r->shared.sad, c.spi_in), *out = out_of(r, 1);
    assert_non_null(in);
    assert_non_null(out);
    assert_null(out_of(r, 0));
    assert_int_equal(out->params.spi, c.spi_out);
    assert_int_equal(out->params.soft_bytes, 1000);
    assert_int_equal(out->params.hard_bytes, 1100);
    assert_int_equal(out->params.soft_packets, 7);
    assert_int_equal(out->params.hard_packets, 8);
    assert_int_equal(in->params.child, 1);
}

static void test_inbound_spis_are_spread_over_the_workers(void **state)
{
    struct rig *r = *state;
    uint32_t a, b, c;
    assert_int_equal(dataplane_reserve(r->d, &a), OK);
    assert_int_equal(dataplane_reserve(r->d, &b), OK);
    assert_int_equal(dataplane_reserve(r->d, &c), OK);
    assert_int_equal(a >> 28, 1);
    assert_int_equal(b >> 28, 2);
    assert_int_equal(c >> 28, 1);
}

static void test_responder_of_a_rekey_sends_on_the_old_sa_until_activated(void **state)
{
    struct rig *r = *state;
    struct ike_child old = child_make(r, 1, 0), new = child_make(r, 2, 0);
    assert_int_equal(dataplane_install(r->d, &old, "auto", true, 1), OK);
    assert_int_equal(dataplane_install(r->d, &new, "auto", false, 2), OK);
    assert_int_equal(out_of(r, 0)->params.child, 1);
    assert_non_null(sad_find_in(r->shared.sad, new.spi_in));
    dataplane_activate(r->d, 2);
    assert_int_equal(out_of(r, 0)->params.child, 2);
}

/* Two live Child SAs of one policy: when the one that has the traffic goes, the other takes it back. */
static void test_traffic_returns_to_the_sa_that_is_left(void **state)
{
    struct rig *r = *state;
    struct ike_child a = child_make(r, 1, 0), b = child_make(r, 2, 0);
    struct child_counters n;
    assert_int_equal(dataplane_install(r->d, &a, "auto", true, 1), OK);
    struct sa *first = out_of(r, 0);
    assert_int_equal(dataplane_install(r->d, &b, "auto", true, 2), OK);
    struct path moved = a.path;
    moved.remote.port = 4444;
    dataplane_move(r->d, 1, &moved); /* reaches the SA that waits, too */
    dataplane_activate(r->d, 1);
    dataplane_remove(r->d, 2, true, 3);
    epoch_wait(r->shared.epoch);
    assert_non_null(out_of(r, 0));
    assert_ptr_equal(out_of(r, 0), first); /* the same object, so its sequence numbers go on */
    assert_int_equal(sa_path(first).remote.port, 4444);
    assert_int_equal(dataplane_counters(r->d, 1, &n), OK);
    assert_true(n.sending);
    dataplane_activate(r->d, 2); /* too late */
    assert_ptr_equal(out_of(r, 0), first);
}

static void test_replaced_outbound_sa_keeps_its_counters(void **state)
{
    struct rig *r = *state;
    struct ike_child old = child_make(r, 1, 0), new = child_make(r, 2, 0);
    struct child_counters n;
    assert_int_equal(dataplane_install(r->d, &old, "auto", true, 1), OK);
    atomic_store(&out_of(r, 0)->packets, 5);
    atomic_store(&out_of(r, 0)->last_used, 99);
    assert_int_equal(dataplane_install(r->d, &new, "auto", true, 2), OK);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(dataplane_counters(r->d, 1, &n), OK);
        assert_int_equal(n.out_packets, 5);
        assert_int_equal(n.last_out, 99);
        assert_false(n.sending);
        ns_t in, out;
        dataplane_traffic(r->d, 1, &in, &out);
        assert_int_equal(out, 99);
        dataplane_remove(r->d, 1, true, 3); /* must not touch its successor */
        assert_int_equal(out_of(r, 0)->params.child, 2);
        epoch_wait(r->shared.epoch); /* its SA is freed, while the child lingers */
    }
}

static void test_removed_child_lingers_inbound_for_five_seconds(void **state)
{
    struct rig *r = *state;
    struct ike_child c = child_make(r, 1, 0);
    assert_int_equal(dataplane_install(r->d, &c, "auto", true, 1), OK);
    dataplane_remove(r->d, 1, true, NS_PER_S);
    assert_null(out_of(r, 0));
    assert_non_null(sad_find_in(r->shared.sad, c.spi_in));
    timer_run(&r->timers, 6 * NS_PER_S - 1);
    assert_non_null(sad_find_in(r->shared.sad, c.spi_in));
    timer_run(&r->timers, 6 * NS_PER_S);
    assert_null(sad_find_in(r->shared.sad, c.spi_in));
    struct child_counters n;
    assert_int_equal(dataplane_counters(r->d, 1, &n), ERR_NOTFOUND);
}

static void test_child_removed_before_it_was_activated(void **state)
{
    struct rig *r = *state;
    struct ike_child c = child_make(r, 1, 0);
    assert_int_equal(dataplane_install(r->d, &c, "auto", false, 1), OK);
    dataplane_remove(r->d, 1, false, 2);
    dataplane_activate(r->d, 1);
    assert_null(out_of(r, 0));
    assert_null(sad_find_in(r->shared.sad, c.spi_in));
}

static void test_move_changes_both_directions_and_makes_the_next_move_news(void **state)
{
    struct rig *r = *state;
    struct ike_child c = child_make(r, 1, 0);
    assert_int_equal(dataplane_install(r->d, &c, "auto", true, 1), OK);
    struct sa *in = sad_find_in(r->shared.sad, c.spi_in);
    atomic_store(&in->moved_raised, true);
    struct path path = c.path;
    path.remote.port = 4444;
    dataplane_move(r->d, 1, &path);
    assert_int_equal(sa_path(in).remote.port, 4444);
    assert_int_equal(sa_path(out_of(r, 0)).remote.port, 4444);
    assert_false(atomic_load(&in->moved_raised));
}

static void test_failing_install_leaves_nothing(void **state)
{
    struct rig *r = *state;
    struct ike_child c = child_make(r, 1, 0);
    c.key_out.len = 3;
    assert_int_not_equal(dataplane_install(r->d, &c, "auto", true, 1), OK);
    assert_null(sad_find_in(r->shared.sad, c.spi_in));
    assert_null(out_of(r, 0));
    c.key_out.len = c.suite.encr_key_len;
    assert_int_equal(dataplane_install(r->d, &c, "auto", true, 1), OK);
}

static void test_policies_keep_their_numbers_over_a_reload(void **state)
{
    struct rig *r = *state;
    struct policy added = r->policies[0];
    put_text(added.name, "added");
    struct policy *list[] = {&added, &r->policies[1]};
    struct config next = {.policies = list, .policy_count = 2};
    struct spd *spd;
    assert_int_equal(dataplane_prepare(r->d, &next, &spd), OK);
    assert_ptr_equal(dataplane_policy(r->d, 0), &r->policies[0]); /* nothing is changed yet */
    dataplane_commit(r->d, &next, spd);
    assert_null(dataplane_policy(r->d, 0));
    assert_ptr_equal(dataplane_policy(r->d, 1), &r->policies[1]);
    assert_ptr_equal(dataplane_policy(r->d, 2), &added);
    assert_null(dataplane_policy(r->d, SPD_NONE));
    assert_int_equal(spd_at(atomic_load(&r->shared.spd), 0)->id, 2);
}

/* A reload that says another replay window: the SAs stay, with all that they have seen, and get it. */
static void test_a_reload_resizes_the_windows_of_running_sas(void **state)
{
    struct rig *r = *state;
    struct ike_child first = child_make(r, 1, 0), second = child_make(r, 2, 1);
    assert_int_equal(dataplane_install(r->d, &first, "auto", true, 1), OK);
    assert_int_equal(dataplane_install(r->d, &second, "auto", true, 1), OK);
    struct sa *a = sad_find_in(r->shared.sad, first.spi_in), *b = sad_find_in(r->shared.sad, second.spi_in);
    assert_true(replay_commit(&a->replay, 7));
    struct policy wider = r->policies[0];
    wider.replay_window = 65536;
    struct policy *list[] = {&wider, &r->policies[1]};
    struct config next = {.policies = list, .policy_count = 2};
    struct spd *spd;
    assert_int_equal(dataplane_prepare(r->d, &next, &spd), OK);
    dataplane_commit(r->d, &next, spd);
    unsigned at = 0;
    assert_true(dataplane_resize(r->d, &at, NS_NEVER));
    assert_ptr_equal(sad_find_in(r->shared.sad, first.spi_in), a);
    assert_int_equal(a->replay.size, 65536);
    assert_false(replay_check(&a->replay, 7));
    assert_true(replay_check(&a->replay, 8));
    assert_int_equal(b->replay.size, 1024);
}

/* What is under way for a policy as it was takes no traffic from what is made for it as it is now. */
static void test_an_sa_for_another_version_gets_no_traffic(void **state)
{
    struct rig *r = *state;
    struct ike_child before = child_make(r, 1, 0), waiting = child_make(r, 2, 0), late = child_make(r, 3, 0);
    assert_int_equal(dataplane_install(r->d, &before, "auto", true, 1), OK);
    assert_int_equal(dataplane_install(r->d, &waiting, "auto", false, 1), OK);
    struct policy now = r->policies[0];
    now.version++;
    struct policy *list[] = {&now, &r->policies[1]};
    struct config next = {.policies = list, .policy_count = 2};
    struct spd *spd;
    assert_int_equal(dataplane_prepare(r->d, &next, &spd), OK);
    dataplane_commit(r->d, &next, spd);
    struct ike_child after = child_make(r, 4, 0);
    after.policy = &now;
    assert_int_equal(dataplane_install(r->d, &after, "auto", true, 2), OK);
    struct sa *out = out_of(r, 0);
    assert_int_equal(out->params.child, 4);
    dataplane_activate(r->d, 2);
    assert_int_equal(dataplane_install(r->d, &late, "auto", true, 2), ERR_STATE);
    assert_ptr_equal(out_of(r, 0), out);
    dataplane_remove(r->d, 1, false, 3);
    dataplane_remove(r->d, 2, false, 3);
    assert_ptr_equal(out_of(r, 0), out);
}

/* -- one policy, several clients -- */

static struct identity ids[3];

/* A client of the first policy, with that part of its remote side. */
static struct ike_child client_make(struct rig *r, uint64_t id, const char *name, const char *remote)
{
    struct ike_child c = child_make(r, id, 0);
    struct identity *who = &ids[id % 3];
    assert_int_equal(identity_parse(name, who), OK);
    c.remote_id = who;
    assert_int_equal(selectors_parse(remote, &c.remote, NULL, 0), OK);
    return c;
}

/* Whose outbound SA takes a packet to that address; 0: nobody's. */
static uint64_t child_for(struct rig *r, const char *to)
{
    struct flow f = {.proto = 17, .src_port = 1, .dst_port = 2, .ports_known = true};
    assert_int_equal(ip_parse("10.1.0.9", &f.src), OK);
    assert_int_equal(ip_parse(to, &f.dst), OK);
    const struct spd_entry *e = spd_lookup_out(atomic_load(&r->shared.spd), &f);
    struct sa *sa = e ? out_of(r, e->id) : NULL;
    return sa ? sa->params.child : 0;
}

static void install(struct rig *r, const struct ike_child *c)
{
    assert_int_equal(dataplane_install(r->d, c, "auto", true, (ns_t)c->id * NS_PER_S), OK);
}

static void test_each_client_of_a_shared_policy_has_its_own_traffic(void **state)
{
    struct rig *r = *state;
    r->peer.endpoint_any = true;
    r->peer.start = START_NO;
    struct ike_child a = client_make(r, 1, "a@x", "10.2.0.1/32"), b = client_make(r, 2, "b@x", "10.2.0.2/32");
    install(r, &a);
    install(r, &b);
    assert_int_equal(child_for(r, "10.2.0.1"), 1);
    assert_int_equal(child_for(r, "10.2.0.2"), 2);
    assert_int_equal(child_for(r, "10.2.0.3"), 0);
    struct ike_child again = client_make(r, 4, "a@x", "10.2.0.1/32"); /* a rekey */
    uint32_t numbers = spd_count(atomic_load(&r->shared.spd));
    install(r, &again);
    assert_int_equal(child_for(r, "10.2.0.1"), 4);
    assert_int_equal(child_for(r, "10.2.0.2"), 2);
    assert_int_equal(spd_count(atomic_load(&r->shared.spd)), numbers);
    dataplane_remove(r->d, 1, false, 9 * NS_PER_S);
    timer_run(&r->timers, 9 * NS_PER_S);
    assert_int_equal(child_for(r, "10.2.0.1"), 4);
    assert_ptr_equal(dataplane_policy(r->d, sad_find_in(r->shared.sad, b.spi_in)->params.policy_id), &r->policies[0]);
    dataplane_remove(r->d, 4, false, 10 * NS_PER_S);
    timer_run(&r->timers, 10 * NS_PER_S);
    assert_int_equal(child_for(r, "10.2.0.1"), 0);
    assert_int_equal(spd_count(atomic_load(&r->shared.spd)), numbers - 1);
}

/* A storm of clients does not make an SPD for each. */
static void test_clients_that_come_at_once_share_a_renewal(void **state)
{
    struct rig *r = *state;
    r->peer.remote_id_any = true;
    r->peer.start = START_NO;
    struct ike_child a = client_make(r, 1, "a@x", "10.2.0.1/32"), b = client_make(r, 2, "b@x", "10.2.0.2/32");
    struct ike_child c = client_make(r, 3, "c@x", "10.2.0.3/32");
    assert_int_equal(dataplane_install(r->d, &a, "auto", true, NS_PER_S), OK);
    struct spd *first = atomic_load(&r->shared.spd);
    assert_int_equal(child_for(r, "10.2.0.1"), 1);
    assert_int_equal(dataplane_install(r->d, &b, "auto", true, NS_PER_S + 1), OK);
    assert_int_equal(dataplane_install(r->d, &c, "auto", true, NS_PER_S + 2), OK);
    assert_ptr_equal(atomic_load(&r->shared.spd), first);
    timer_run(&r->timers, NS_PER_S + NS_PER_MS);
    assert_int_equal(child_for(r, "10.2.0.1"), 1);
    assert_int_equal(child_for(r, "10.2.0.2"), 2);
    assert_int_equal(child_for(r, "10.2.0.3"), 3);
}

#define MANY 600 /* more than an SPD is made of at once */

static void install_many(struct rig *r, uint64_t first)
{
    char name[16], remote[32];
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "c%u@x", i);
        snprintf(remote, sizeof remote, "10.2.%u.%u/32", i / 200, i % 200);
        struct ike_child c = client_make(r, first + i, name, remote);
        assert_int_equal(dataplane_install(r->d, &c, "auto", true, NS_PER_S + i), OK);
    }
}

/* Time goes on until that client has its traffic, or is the one that has it. */
static void await_child(struct rig *r, const char *to, uint64_t child)
{
    for (unsigned i = 0; i < 10000 && child_for(r, to) != child; i++) {
        usleep(1000);
        timer_run(&r->timers, NS_PER_S + i * 10 * NS_PER_MS);
    }
    assert_int_equal(child_for(r, to), child);
}

static void await_entries(struct rig *r, unsigned n)
{
    for (unsigned i = 0; i < 10000 && spd_count(atomic_load(&r->shared.spd)) != n; i++) {
        usleep(1000);
        timer_run(&r->timers, 300 * NS_PER_S + i * 10 * NS_PER_MS);
    }
    assert_int_equal(spd_count(atomic_load(&r->shared.spd)), n);
}

static void test_thousands_of_clients_are_put_in_force_by_and_by(void **state)
{
    struct rig *r = *state;
    r->peer.remote_id_any = true;
    r->peer.start = START_NO;
    install_many(r, 1);
    await_child(r, "10.2.0.0", 1);
    await_child(r, "10.2.2.199", MANY);
    for (unsigned i = 2; i <= MANY; i++)
        dataplane_remove(r->d, i, false, 300 * NS_PER_S);
    await_entries(r, 3);
    assert_int_equal(child_for(r, "10.2.0.0"), 1);
}

/* The policies change, and clients leave, while an SPD of them is being made. */
static void test_a_reload_overtakes_an_spd_in_the_making(void **state)
{
    struct rig *r = *state;
    r->peer.remote_id_any = true;
    r->peer.start = START_NO;
    struct policy copies[2] = {r->policies[0], r->policies[1]};
    struct policy *list[] = {&copies[0], &copies[1]};
    struct config next = {.policies = list, .policy_count = 2};
    struct spd *spd;
    install_many(r, 1);
    timer_run(&r->timers, 200 * NS_PER_S); /* now it is begun */
    assert_int_equal(dataplane_prepare(r->d, &next, &spd), OK);
    for (unsigned i = 2; i <= MANY; i++)
        dataplane_remove(r->d, i, false, 201 * NS_PER_S);
    dataplane_commit(r->d, &next, spd);
    memset(r->policies, 0xee, sizeof r->policies);
    assert_int_equal(child_for(r, "10.2.0.0"), 1);
    assert_int_equal(child_for(r, "10.2.0.1"), 0);
    timer_run(&r->timers, 300 * NS_PER_S);
    await_entries(r, 3);
    assert_int_equal(child_for(r, "10.2.0.0"), 1);
}

/* By slices that are over at once: with a policy or two, one is enough. */
static void begin(struct rig *r, const struct config *next)
{
    bool over = false;
    assert_int_equal(dataplane_prepare_begin(r->d, next), OK);
    while (!over)
        assert_int_equal(dataplane_prepare_some(r->d, 0, &over), OK);
}

/* Compiling the other configuration takes its time: who comes and goes meanwhile is in the SPD soon after. */
static void test_clients_come_and_go_while_a_reload_is_compiled(void **state)
{
    struct rig *r = *state;
    r->peer.endpoint_any = true;
    r->peer.start = START_NO;
    struct policy copies[2] = {r->policies[0], r->policies[1]};
    struct policy *list[] = {&copies[0], &copies[1]};
    struct config next = {.policies = list, .policy_count = 2};
    struct spd *spd;
    struct ike_child a = client_make(r, 1, "a@x", "10.2.0.1/32"), b = client_make(r, 2, "b@x", "10.2.0.2/32"),
                     c = client_make(r, 3, "c@x", "10.2.0.3/32"), d = client_make(r, 4, "d@x", "10.2.0.4/32"),
                     e = client_make(r, 5, "e@x", "10.2.0.5/32"), f = client_make(r, 6, "f@x", "10.2.0.6/32");
    install(r, &a);
    install(r, &b);
    begin(r, &next);
    install(r, &c);
    dataplane_remove(r->d, 2, false, 3 * NS_PER_S);
    while (!dataplane_prepare_done(r->d))
        sched_yield();
    timer_run(&r->timers, 10 * NS_PER_S); /* a renewal that is due waits */
    assert_int_equal(child_for(r, "10.2.0.1"), 1);
    assert_int_equal(dataplane_prepare_end(r->d, &spd), OK);
    install(r, &e); /* the engine and the firewall are made ready meanwhile */
    dataplane_remove(r->d, 1, false, 11 * NS_PER_S);
    timer_run(&r->timers, 11 * NS_PER_S);
    install(r, &f);
    dataplane_commit(r->d, &next, spd);
    memset(r->policies, 0xee, sizeof r->policies);
    assert_int_equal(child_for(r, "10.2.0.1"), 0); /* its number is not another's yet */
    assert_int_equal(child_for(r, "10.2.0.2"), 0);
    timer_run(&r->timers, 20 * NS_PER_S);
    timer_run(&r->timers, 21 * NS_PER_S);
    assert_int_equal(child_for(r, "10.2.0.3"), 3);
    assert_int_equal(child_for(r, "10.2.0.5"), 5);
    assert_int_equal(child_for(r, "10.2.0.6"), 6);
    /* One that comes to nothing leaves the other in force, and clients go on. */
    d.policy = &copies[0];
    begin(r, &next);
    install(r, &d);
    assert_int_equal(dataplane_prepare_end(r->d, &spd), OK);
    dataplane_prepare_drop(r->d);
    spd_free(spd);
    timer_run(&r->timers, 30 * NS_PER_S);
    timer_run(&r->timers, 31 * NS_PER_S);
    assert_int_equal(child_for(r, "10.2.0.4"), 4);
}

static void test_of_clients_that_overlap_the_newest_wins_while_it_lives(void **state)
{
    struct rig *r = *state;
    r->peer.remote_id_any = true;
    r->peer.start = START_NO;
    struct ike_child a = client_make(r, 1, "a@x", "10.2.0.0/24"), b = client_make(r, 2, "b@x", "10.2.0.128/25");
    install(r, &a);
    install(r, &b);
    assert_int_equal(child_for(r, "10.2.0.1"), 1);
    assert_int_equal(child_for(r, "10.2.0.200"), 2);
    dataplane_remove(r->d, 2, true, 3 * NS_PER_S); /* its number goes when it no longer lingers */
    timer_run(&r->timers, 9 * NS_PER_S);
    timer_run(&r->timers, 10 * NS_PER_S);
    assert_int_equal(child_for(r, "10.2.0.200"), 1);
}

static void test_clients_outlive_a_reload_and_their_numbers_are_used_again(void **state)
{
    struct rig *r = *state;
    r->peer.endpoint_any = true;
    r->peer.start = START_NO;
    struct ike_child a = client_make(r, 1, "a@x", "10.2.0.1/32"), b = client_make(r, 2, "b@x", "10.2.0.2/32");
    struct policy copies[2] = {r->policies[0], r->policies[1]};
    struct policy *list[] = {&copies[0], &copies[1]};
    struct config next = {.policies = list, .policy_count = 2};
    struct spd *spd;
    install(r, &a);
    install(r, &b);
    uint32_t id = sad_find_in(r->shared.sad, b.spi_in)->params.policy_id;
    assert_int_equal(dataplane_prepare(r->d, &next, &spd), OK);
    dataplane_remove(r->d, 2, false, 3 * NS_PER_S); /* between the two, as a reload does it */
    dataplane_commit(r->d, &next, spd);
    assert_int_equal(child_for(r, "10.2.0.1"), 1);
    assert_int_equal(child_for(r, "10.2.0.2"), 0);
    timer_run(&r->timers, 3 * NS_PER_S);
    assert_null(spd_find(atomic_load(&r->shared.spd), id));
    struct ike_child c = client_make(r, 4, "c@x", "10.2.0.3/32");
    c.policy = &copies[0];
    install(r, &c);
    assert_int_equal(sad_find_in(r->shared.sad, c.spi_in)->params.policy_id, id);
    next.policy_count = 0; /* the policy goes, and whoever had a part of it */
    assert_int_equal(dataplane_prepare(r->d, &next, &spd), OK);
    dataplane_commit(r->d, &next, spd);
    assert_int_equal(child_for(r, "10.2.0.1"), 0);
    assert_null(dataplane_policy(r->d, id));
}

static void test_mtu_is_that_of_the_worst_suite(void **state)
{
    struct proposals one, two;
    char why[128];
    (void)state;
    assert_int_equal(proposals_parse("aes128gcm16", PROTOCOL_ESP, &one, why, sizeof why), OK);
    assert_int_equal(proposals_parse("aes128gcm16,aes256-sha512", PROTOCOL_ESP, &two, why, sizeof why), OK);
    /* 1500 - 20 - 8: 8 ESP, 8 IV, 16 ICV, 2 trailer leave 1438, cut to a multiple of 4 with the trailer */
    assert_int_equal(mtu_inner(&one, 1472), 1438);
    /* 8 ESP, 16 IV, 32 ICV leave 1416, cut to 1408 by the block of 16, less the trailer */
    assert_int_equal(mtu_inner(&two, 1472), 1406);
    struct proposals ah;
    assert_int_equal(proposals_parse("sha1-sha384, sha256", PROTOCOL_AH, &ah, NULL, 0), OK);
    assert_int_equal(mtu_inner(&ah, 1480), 1440); /* 12 and 24, and 4 of padding behind IPv6 */
    assert_int_equal(mtu_inner(&(struct proposals){0}, 1472), 0);
}

int main(void)
{
#define RIG(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        RIG(test_install_publishes_both_directions_with_the_limits_of_the_policy),
        RIG(test_inbound_spis_are_spread_over_the_workers),
        RIG(test_responder_of_a_rekey_sends_on_the_old_sa_until_activated),
        RIG(test_traffic_returns_to_the_sa_that_is_left),
        RIG(test_replaced_outbound_sa_keeps_its_counters),
        RIG(test_removed_child_lingers_inbound_for_five_seconds),
        RIG(test_child_removed_before_it_was_activated),
        RIG(test_move_changes_both_directions_and_makes_the_next_move_news),
        RIG(test_failing_install_leaves_nothing),
        RIG(test_policies_keep_their_numbers_over_a_reload),
        RIG(test_a_reload_resizes_the_windows_of_running_sas),
        RIG(test_an_sa_for_another_version_gets_no_traffic),
        RIG(test_each_client_of_a_shared_policy_has_its_own_traffic),
        RIG(test_clients_that_come_at_once_share_a_renewal),
        RIG(test_thousands_of_clients_are_put_in_force_by_and_by),
        RIG(test_a_reload_overtakes_an_spd_in_the_making),
        RIG(test_clients_come_and_go_while_a_reload_is_compiled),
        RIG(test_of_clients_that_overlap_the_newest_wins_while_it_lives),
        RIG(test_clients_outlive_a_reload_and_their_numbers_are_used_again),
        cmocka_unit_test(test_mtu_is_that_of_the_worst_suite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
