/* Soft and hard limits of SAs, and that a rekey is asked for in time at any rate (RFC 4301 section 4.4.2.1). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"

#include "test/unit/esp_wire.h" /* last: its globals have short names */

#define SIZE 1000u /* of each inner packet */

static struct sa *limited(enum sa_dir dir, uint64_t bytes, uint64_t packets)
{
    struct sa_params p = params_of(CHACHA);
    p.soft_bytes = bytes;
    p.hard_bytes = bytes + bytes / 10;
    p.soft_packets = packets;
    p.hard_packets = packets + packets / 10;
    return sa_of(p, dir);
}

/* Seals packets, one each `every` nanoseconds, until a rekey is asked for: how many it took. */
static unsigned sealed_until_soft(struct sa *sa, ns_t *now, ns_t every)
{
    for (unsigned n = 1;; n++) {
        unsigned sealed, events;
        load_ipv4(0, SIZE);
        *now += every;
        assert_int_equal(esp_seal(sa, w.v, 1, *now, &sealed, &events), OK);
        assert_false(events & SA_EVENT_HARD);
        if (events & SA_EVENT_SOFT)
            return n;
    }
}

static void slow_traffic_uses_all_of_the_soft_limit(void **state)
{
    (void)state;
    ns_t now = 7;
    struct sa *sa = limited(SA_OUT, 10000 * SIZE, 0);
    assert_int_equal(sealed_until_soft(sa, &now, 10 * NS_PER_MS), 10000); /* the hard one 10 s later */
    sa_free(sa);
    sa = limited(SA_OUT, 0, 1000);
    assert_int_equal(sealed_until_soft(sa, &now, 2 * NS_PER_S), 1000); /* pauses longer than a rate is measured over */
    sa_free(sa);
}

static void fast_traffic_asks_for_a_rekey_earlier(void **state)
{
    (void)state;
    ns_t now = 7;
    for (unsigned by_packets = 0; by_packets < 2; by_packets++) {
        /* 1,000 packets from soft to hard are over in a tenth of a second, 3 s are 30,000 packets. */
        struct sa *sa = limited(SA_OUT, by_packets ? 0 : 100000 * SIZE, by_packets ? 100000 : 0);
        unsigned n = sealed_until_soft(sa, &now, 100 * NS_PER_US);
        assert_in_range(n, 79000, 81000); /* 110,000 less 30,000 */
        sa_free(sa);
    }
}

static void not_before_an_eighth_of_the_soft_limit(void **state)
{
    (void)state;
    ns_t now = 7;
    /* Over in 100 ms and more than 250 ms away, with a millisecond of it to see the rate. */
    struct sa *sa = limited(SA_OUT, 80000 * SIZE, 0);
    assert_in_range(sealed_until_soft(sa, &now, NS_PER_US), 10000, 12000);
    sa_free(sa);
    sa = limited(SA_OUT, 80000 * SIZE, 0); /* 880 ms: it begins to be near at half of it */
    assert_in_range(sealed_until_soft(sa, &now, 10 * NS_PER_US), 40000, 41000);
    sa_free(sa);
}

static void a_burst_after_a_pause_is_seen(void **state)
{
    (void)state;
    ns_t now = 7;
    struct sa *sa = limited(SA_OUT, 10000 * SIZE, 0);
    unsigned sealed, events;
    for (unsigned i = 0; i < 6000; i++) {
        load_ipv4(0, SIZE);
        assert_int_equal(esp_seal(sa, w.v, 1, now += NS_PER_S, &sealed, &events), OK);
        assert_int_equal(events, SA_EVENT_NONE);
    }
    assert_in_range(sealed_until_soft(sa, &now, 10 * NS_PER_US), 2, 200);
    sa_free(sa);
}

static void each_limit_is_told_once_and_the_receiver_counts_too(void **state)
{
    (void)state;
    struct sa *out = limited(SA_OUT, 0, 0), *in = limited(SA_IN, 1000 * SIZE, 0);
    unsigned soft = 0, hard = 0, first = 0, sealed, events;
    ns_t now = 7;
    for (unsigned i = 1; i <= 1200; i++) {
        load_ipv4(0, SIZE);
        now += 100 * NS_PER_US;
        assert_int_equal(esp_seal(out, w.v, 1, now, &sealed, &events), OK);
        w.v[0].dst = w.got[0];
        assert_int_equal(esp_open(in, w.v, 1, now, &events), i <= 1100);
        soft += events & SA_EVENT_SOFT ? 1 : 0;
        hard += events & SA_EVENT_HARD ? 1 : 0;
        if (soft && !first)
            first = i;
        assert_int_equal(hard, i >= 1100);
    }
    assert_int_equal(soft, 1);
    assert_in_range(first, 125, 150);
    sa_free(out);
    sa_free(in);
}

static struct rig rig;

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

/* A tunnel at 60 MB/s in each of the directions given, with SAs that end after 1.1 MB: a rekey each 10 to 20 ms. */
static void under_load(const char *extra, unsigned directions)
{
    static uint8_t frame[66000], payload[60000], taken[66000];
    rig_setup(&rig, 3, extra);
    rig_up(&rig);
    struct packet_spec s = packet_spec_tcp(false);
    for (unsigned i = 0; i < 400; i++) {
        for (unsigned from = 0; from < directions; from++) {
            size_t n = packet_build_gso(&s, payload, sizeof payload, 1340, frame);
            if (from == 1)
                packet_mirror(frame + TUN_HDR_LEN);
            rig_inject(&rig, from, frame, n);
        }
        s.seq += sizeof payload;
        rig_run(&rig, NS_PER_MS);
        for (unsigned k = 0; k < 2; k++)
            while (memory_tun_take(rig.net, rig.host[k].tun, taken, sizeof taken))
                ;
    }
    rig_run(&rig, NS_PER_S);
    for (unsigned from = 0; from < directions; from++) {
        assert_int_equal(rig_stat(&rig, from, STAT_OUT_PACKETS), 400 * ((sizeof payload + 1339) / 1340));
        assert_int_equal(rig_stat(&rig, !from, STAT_IN_PACKETS), rig_stat(&rig, from, STAT_OUT_PACKETS));
        assert_int_equal(rig_stat(&rig, from, STAT_DROP_OUT_EXPIRED), 0);
        assert_int_equal(rig_stat(&rig, !from, STAT_DROP_IN_EXPIRED), 0);
        assert_int_equal(rig_stat(&rig, from, STAT_DROP_OUT_NO_SA), 0);
    }
    assert_in_range(rig.host[0].rekeyed + rig.host[1].rekeyed, 40, 400);
}

static void no_packet_is_lost_to_a_small_byte_limit(void **state)
{
    (void)state;
    under_load("bytes = 1M\n", 1);
}

static void nor_to_one_of_packets_with_traffic_both_ways(void **state)
{
    (void)state;
    under_load("packets = 800\nesp = aes128gcm16\n", 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slow_traffic_uses_all_of_the_soft_limit),
        cmocka_unit_test(fast_traffic_asks_for_a_rekey_earlier),
        cmocka_unit_test(not_before_an_eighth_of_the_soft_limit),
        cmocka_unit_test(a_burst_after_a_pause_is_seen),
        cmocka_unit_test(each_limit_is_told_once_and_the_receiver_counts_too),
        cmocka_unit_test_teardown(no_packet_is_lost_to_a_small_byte_limit, teardown),
        cmocka_unit_test_teardown(nor_to_one_of_packets_with_traffic_both_ways, teardown),
    };
    return cmocka_run_group_tests_name("limit", tests, start_crypto, NULL);
}
