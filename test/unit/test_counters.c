/* What is counted of each policy and of each SA. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"

static struct rig rig;

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

static void send_udp(uint8_t net)
{
    rig_inject_udp(&rig, net);
    rig_run(&rig, 2 * NS_PER_MS);
}

static const struct policy_stats *stats(unsigned host, const char *policy)
{
    return dataplane_policy_stats(rig.host[host].dataplane, policy);
}

static uint64_t policy_drops(unsigned host, const char *policy, enum stat_id s)
{
    return atomic_load(&stats(host, policy)->drops.n[s - STAT_DROP_FIRST]);
}

static void each_policy_counts_its_own(void **state)
{
    (void)state;
    rig_setup(&rig, 1, "hold = 0\n[policy no]\naction = discard\nlocal = 10.1.0.0/24\nremote = 10.3.0.0/24\n");
    assert_null(stats(0, "none"));
    send_udp(2);
    assert_int_equal(policy_drops(0, "other", STAT_DROP_OUT_NO_SA), 1);
    rig_up(&rig);
    for (unsigned i = 0; i < 5; i++)
        send_udp(2);
    for (unsigned i = 0; i < 3; i++)
        send_udp(3);
    assert_int_equal(atomic_load(&stats(0, "other")->out_packets), 5);
    assert_int_equal(atomic_load(&stats(0, "other")->out_bytes), 5 * 128);
    assert_int_equal(atomic_load(&stats(1, "other")->in_packets), 5);
    assert_int_equal(atomic_load(&stats(1, "other")->in_bytes), 5 * 128);
    assert_int_equal(atomic_load(&stats(1, "other")->out_packets), 0);
    assert_int_equal(policy_drops(0, "no", STAT_DROP_OUT_DISCARD), 3);
    assert_int_equal(policy_drops(0, "other", STAT_DROP_OUT_DISCARD), 0);
    assert_int_equal(atomic_load(&stats(0, "no")->out_packets), 0);
}

static void padding_is_not_traffic(void **state)
{
    (void)state;
    rig_setup(&rig, 2, "tfc = mtu\ndummies = 100\n");
    rig_up(&rig);
    send_udp(2);
    rig_run(&rig, NS_PER_S);
    assert_true(rig_stat(&rig, 0, STAT_OUT_DUMMIES) > 50);
    assert_int_equal(atomic_load(&stats(0, "other")->out_packets), 1);
    assert_int_equal(atomic_load(&stats(0, "other")->out_bytes), 128);
    assert_int_equal(atomic_load(&stats(1, "other")->in_packets), 1);
}

static void note_child(void *ctx, const struct ike_child_info *info)
{
    *(uint64_t *)ctx = info->id;
}

static void what_an_sa_drops_counts_with_it_and_its_policy(void **state)
{
    (void)state;
    rig_setup(&rig, 3, "");
    rig_up(&rig);
    rig.keep_wire = true;
    send_udp(2);
    assert_int_equal(rig.wire_count, 1);
    struct endpoint from = rig.wire[0].from, to = rig.wire[0].to;
    memory_send(rig.net, &from, &to, rig.wire[0].data, rig.wire[0].len);
    memory_send(rig.net, &from, &to, rig.wire[0].data, rig.wire[0].len);
    rig.wire[0].data[7] += 5; /* another number */
    memory_send(rig.net, &from, &to, rig.wire[0].data, rig.wire[0].len);
    rig_run(&rig, 5 * NS_PER_MS);
    uint64_t id = 0;
    struct child_counters n;
    ike_each_child(rig.host[1].engine, note_child, &id);
    assert_int_equal(dataplane_counters(rig.host[1].dataplane, id, &n), OK);
    assert_int_equal(atomic_load(&n.in_drops->n[STAT_DROP_IN_REPLAY - STAT_DROP_FIRST]), 2);
    assert_int_equal(atomic_load(&n.in_drops->n[STAT_DROP_IN_AUTH - STAT_DROP_FIRST]), 1);
    assert_int_equal(policy_drops(1, "other", STAT_DROP_IN_REPLAY), 2);
    assert_int_equal(policy_drops(1, "other", STAT_DROP_IN_AUTH), 1);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_REPLAY), 2);
}

/* The framing stage of transport mode drops what it can't carry. */
static void what_an_sa_can_not_carry_counts_with_it_and_its_policy(void **state)
{
    uint8_t frame[TUN_HDR_LEN + 64] = {0}, *p = frame + TUN_HDR_LEN;
    (void)state;
    rig_setup_as(&rig, 4, "mode = transport-only\n", &(struct rig_layout){.hosts = true});
    rig_up(&rig);
    struct packet_spec s = packet_spec_udp(false);
    s.from = rig.host[0].at.ip.b;
    s.to = rig.host[1].at.ip.b;
    size_t n = packet_build(&s, frame, 8, p);
    p[0] = 0x46;
    memmove(p + 24, p + 20, n - 20);
    memset(p + 20, 1, 4);
    put_be16(p + 2, (uint16_t)(n + 4));
    put_be16(p + 10, 0);
    put_be16(p + 10, (uint16_t)~packet_naive_sum(0, p, 24));
    rig_inject(&rig, 0, frame, TUN_HDR_LEN + n + 4);
    rig_run(&rig, 2 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_TRANSPORT), 1);
    assert_int_equal(policy_drops(0, "other", STAT_DROP_OUT_TRANSPORT), 1);
    assert_int_equal(atomic_load(&rig_out_sa(&rig, 0)->drops.n[STAT_DROP_OUT_TRANSPORT - STAT_DROP_FIRST]), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(what_an_sa_can_not_carry_counts_with_it_and_its_policy, teardown),
        cmocka_unit_test_teardown(each_policy_counts_its_own, teardown),
        cmocka_unit_test_teardown(padding_is_not_traffic, teardown),
        cmocka_unit_test_teardown(what_an_sa_drops_counts_with_it_and_its_policy, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
