/* Packets that wait for an SA: the area by itself, and whole tunnels on demand in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/hold.h"
#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"

static void count_dropped(void *ctx, uint32_t policy_id, unsigned packets)
{
    (void)policy_id;
    *(unsigned *)ctx += packets;
}

static unsigned expire(struct hold *h, ns_t now)
{
    unsigned dropped = 0;
    hold_expire(h, now, count_dropped, &dropped);
    return dropped;
}

static uint8_t bytes[65536];

static bool ready(void *ctx, uint32_t policy_id)
{
    return *(uint32_t *)ctx == policy_id;
}

static enum err put(struct hold *h, uint32_t policy, uint8_t fill, size_t len, ns_t now)
{
    memset(bytes, fill, len);
    return hold_put(h, &(struct hold_item){policy, 1, 0, span_of(bytes, len)}, 256, now);
}

/* Of 60 bytes, of a policy that may have 16 packets. */
static enum err put_one(struct hold *h, uint32_t policy, unsigned packets, uint64_t datagram)
{
    return hold_put(h, &(struct hold_item){policy, packets, datagram, span_of(bytes, 60)}, 16, 1);
}

static bool take(struct hold *h, uint32_t policy, uint8_t fill, size_t len)
{
    struct span raw;
    memset(bytes, fill, len);
    return hold_take(h, ready, &policy, &raw) && raw.len == len && memcmp(raw.data, bytes, len) == 0;
}

static void packets_leave_in_order_for_the_policy_that_is_ready(void **state)
{
    struct hold *h;
    (void)state;
    assert_int_equal(hold_new(&h), OK);
    assert_int_equal(hold_deadline(h), NS_NEVER);
    assert_int_equal(put(h, 1, 'a', 100, 1), OK);
    assert_int_equal(put(h, 2, 'b', 33, 2), OK);
    assert_int_equal(put(h, 1, 'c', 1500, 3), OK);
    assert_int_equal(hold_deadline(h), HOLD_TIME + 1);
    assert_true(take(h, 2, 'b', 33));
    assert_false(take(h, 2, 'b', 33));
    assert_true(take(h, 1, 'a', 100));
    assert_true(take(h, 1, 'c', 1500));
    assert_false(take(h, 1, 'c', 1500));
    assert_int_equal(expire(h, 10 * NS_PER_S), 0);
    assert_int_equal(hold_deadline(h), NS_NEVER);
    hold_free(h);
}

static void the_bounds_hold(void **state)
{
    struct hold *h;
    (void)state;
    assert_int_equal(hold_new(&h), OK);
    assert_int_equal(put_one(h, 1, 40, 0), OK); /* one merged packet, more than the limit */
    assert_int_equal(put_one(h, 1, 1, 0), ERR_FULL);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(put_one(h, 2, 1, 0), OK);
    assert_int_equal(put_one(h, 2, 1, 0), ERR_FULL);
    assert_int_equal(put_one(h, 3, 1, 0), OK); /* another policy's room is its own */
    assert_int_equal(expire(h, HOLD_TIME), 0);
    assert_int_equal(expire(h, HOLD_TIME + 1), 57);
    unsigned n = 0;
    while (put(h, n, 'x', 16, 2) == OK)
        n++;
    assert_int_equal(n, HOLD_RECORDS);
    assert_int_equal(expire(h, HOLD_TIME + 2), HOLD_RECORDS);
    for (n = 0; put(h, n, 'y', 65000, 3) == OK; n++)
        ;
    assert_int_equal(n, HOLD_BYTES / 65008);
    hold_free(h);
}

static void fragments_of_a_datagram_count_once(void **state)
{
    struct hold *h;
    (void)state;
    assert_int_equal(hold_new(&h), OK);
    for (uint64_t datagram = 1; datagram <= 16; datagram++)
        for (unsigned i = 0; i < 40; i++)
            assert_int_equal(put_one(h, 1, 1, datagram), OK);
    assert_int_equal(put_one(h, 1, 1, 17), ERR_FULL);
    assert_int_equal(put_one(h, 1, 1, 0), ERR_FULL);
    for (unsigned i = 40; i < HOLD_FRAGMENTS; i++)
        assert_int_equal(put_one(h, 1, 1, 3), OK);
    assert_int_equal(put_one(h, 1, 1, 3), ERR_FULL);
    assert_int_equal(put_one(h, 2, 16, 0), OK);
    assert_int_equal(put_one(h, 2, 1, 3), ERR_FULL); /* another policy's */
    assert_int_equal(expire(h, HOLD_TIME + 1), 16 * 40 + HOLD_FRAGMENTS - 40 + 16);
    hold_free(h);
}

static size_t size_of(unsigned i)
{
    return 1 + i * 7919u % 9000;
}

/* Records of changing size go round the area many times; what comes out is what went in. */
static void the_area_is_used_round_and_round(void **state)
{
    struct hold *h;
    unsigned in = 0, out = 0, full = 0;
    (void)state;
    assert_int_equal(hold_new(&h), OK);
    while (out < 5000) {
        if (put(h, 1, (uint8_t)in, size_of(in), in) == OK) {
            in++;
            continue;
        }
        full++;
        assert_true(take(h, 1, (uint8_t)out, size_of(out)));
        assert_int_equal(expire(h, in), 0);
        out++;
    }
    assert_true(full > 4000 && in - out > 50); /* it was filled well all the time */
    hold_free(h);
}

/* -- whole tunnels -- */

static struct rig rig;
static uint8_t frame[2048], taken[2048];

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

static void send_from(unsigned host, uint8_t fill)
{
    struct packet_spec s = packet_spec_udp(false);
    uint8_t payload[100];
    memset(payload, fill, sizeof payload);
    memset(frame, 0, TUN_HDR_LEN);
    size_t n = packet_build(&s, payload, sizeof payload, frame + TUN_HDR_LEN);
    if (host == 1) { /* the other way round: the sums stay what they are */
        uint8_t from[4], *ip = frame + TUN_HDR_LEN;
        memcpy(from, ip + 12, 4);
        memcpy(ip + 12, ip + 16, 4);
        memcpy(ip + 16, from, 4);
    }
    assert_int_equal(memory_tun_inject(rig.net, rig.host[host].tun, frame, TUN_HDR_LEN + n), OK);
}

static void send_one(uint8_t fill)
{
    send_from(0, fill);
}

static void the_first_packets_of_a_tunnel_on_demand_arrive(void **state)
{
    (void)state;
    rig_setup(&rig, 1, "start = on-demand\n");
    for (uint8_t i = 0; i < 16; i++)
        send_one(i);
    rig_run(&rig, 200 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_HELD), 16);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 16);
    int last = -1;
    size_t n;
    while ((n = memory_tun_take(rig.net, rig.host[1].tun, taken, sizeof taken))) { /* merged ones among them */
        assert_true(taken[n - 1] > last);
        last = taken[n - 1];
    }
    assert_int_equal(last, 15);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_SA), 0);
    send_one(77); /* and what comes later goes at once */
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 17);
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_HELD), 16);
}

/* Who answers sends on the new SA at once: that is here before its answer has been looked at. */
static void what_comes_before_its_sa_waits_for_it(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 30; seed++) {
        rig_setup(&rig, seed, "start = on-demand\n");
        for (uint8_t i = 0; i < 16; i++) {
            send_from(0, i);
            send_from(1, i);
        }
        rig_run(&rig, 8 * NS_PER_S);
        for (unsigned k = 0; k < 2; k++) {
            assert_int_equal(rig_stat(&rig, k, STAT_OUT_HELD), 16);
            assert_int_equal(rig_stat(&rig, k, STAT_IN_PACKETS), 16);
            assert_int_equal(rig_stat(&rig, k, STAT_DROP_IN_SPI), 0);
        }
        if (seed < 29)
            rig_teardown(&rig);
    }
}

static void what_is_more_than_hold_allows_is_counted(void **state)
{
    (void)state;
    rig_setup(&rig, 2, "start = on-demand\nhold = 2\n");
    for (uint8_t i = 0; i < 5; i++)
        send_one(i);
    rig_run(&rig, 200 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_HOLD_FULL), 3);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 2);
}

static void without_hold_they_are_dropped(void **state)
{
    (void)state;
    rig_setup(&rig, 3, "start = on-demand\nhold = 0\n");
    send_one(0);
    rig_run(&rig, 200 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_SA), 1);
    assert_int_equal(rig.host[0].up, 1);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 0);
}

static void what_waits_too_long_is_dropped(void **state)
{
    (void)state;
    rig_setup(&rig, 4, "start = on-demand\n");
    memory_net_faults(rig.net, &(struct memory_faults){.loss = 1000, .delay = NS_PER_MS});
    send_one(0);
    rig_run(&rig, HOLD_TIME - 10 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_HOLD_LATE), 0);
    rig_run(&rig, 20 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_HOLD_LATE), 1);
    memory_net_faults(rig.net, &(struct memory_faults){.delay = NS_PER_MS});
    rig_run(&rig, 10 * NS_PER_S);
    assert_int_equal(rig.host[0].up, 1);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 0);
}

#define RIG_TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_leave_in_order_for_the_policy_that_is_ready),
        cmocka_unit_test(the_bounds_hold),
        cmocka_unit_test(fragments_of_a_datagram_count_once),
        cmocka_unit_test(the_area_is_used_round_and_round),
        RIG_TEST(the_first_packets_of_a_tunnel_on_demand_arrive),
        RIG_TEST(what_comes_before_its_sa_waits_for_it),
        RIG_TEST(what_is_more_than_hold_allows_is_counted),
        RIG_TEST(without_hold_they_are_dropped),
        RIG_TEST(what_waits_too_long_is_dropped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
