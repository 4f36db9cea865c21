/* Traffic flow confidentiality: what an observer sees of lengths and times (RFC 4303 sections 2.6, 2.7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/cover.h"
#include "esp/tfc.h"
#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"

static struct rig rig;
static uint8_t frame[66000], payload[66000], taken[66000];

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

static void sizes_are_the_first_that_fits_and_never_above_the_mtu(void **state)
{
    (void)state;
    const struct tfc none = {0}, t = {3, {256, 512, 1500}}, full = {1, {TFC_FULL}};
    assert_int_equal(tfc_padded(&none, 99, 1400), 99);
    assert_int_equal(tfc_padded(&t, 20, 1400), 256);
    assert_int_equal(tfc_padded(&t, 256, 1400), 256);
    assert_int_equal(tfc_padded(&t, 257, 1400), 512);
    assert_int_equal(tfc_padded(&t, 513, 1400), 1400);
    assert_int_equal(tfc_padded(&t, 1401, 1400), 1401);
    assert_int_equal(tfc_padded(&t, 1501, 9000), 1501);
    assert_int_equal(tfc_padded(&full, 20, 1400), 1400);
    assert_int_equal(tfc_padded(&full, 1401, 1400), 1401);
    assert_int_equal(tfc_padded(&full, 20, 0), 20); /* no MTU is known */
}

static void dummies_have_lengths_that_packets_have(void **state)
{
    (void)state;
    const struct tfc none = {0}, t = {3, {256, 512, 1500}};
    unsigned seen[3] = {0}, small = 0, large = 0;
    uint64_t random = 1;
    for (unsigned i = 0; i < 3000; i++) {
        uint64_t r = (uint64_t)packet_random(&random) << 32 | packet_random(&random);
        uint32_t len = tfc_dummy(&t, r, 1400);
        assert_true(len == 256 || len == 512 || len == 1400);
        seen[len == 256 ? 0 : len == 512 ? 1 : 2]++;
        len = tfc_dummy(&none, r, 1400);
        assert_in_range(len, TFC_DUMMY_MIN, 1400);
        small += len < 400;
        large += len > 1000;
    }
    assert_true(seen[0] > 700 && seen[1] > 700 && seen[2] > 700 && small > 500 && large > 500);
    assert_int_equal(tfc_dummy(&none, 7, 0), TFC_DUMMY_MIN);
}

static void dummies_keep_their_rate_at_times_nobody_foretells(void **state)
{
    (void)state;
    struct cover a, b;
    cover_init(&a);
    cover_init(&b);
    unsigned same = 0;
    for (uint64_t n = 0; n < 1000; n++) {
        ns_t part = NS_PER_S / 20, due = cover_due(&a, 5, 20, n);
        assert_true(due >= n * part && due < (n + 1) * part);
        same += due / NS_PER_MS == cover_due(&b, 5, 20, n) / NS_PER_MS;
        same += due / NS_PER_MS == cover_due(&a, 6, 20, n) / NS_PER_MS;
    }
    assert_true(same < 120);
}

static void send_udp(unsigned from, bool ipv6, size_t len)
{
    struct packet_spec s = packet_spec_udp(ipv6);
    uint64_t random = len;
    packet_fill(&random, payload, len);
    memset(frame, 0, TUN_HDR_LEN);
    size_t n = packet_build(&s, payload, len, frame + TUN_HDR_LEN);
    assert_int_equal(memory_tun_inject(rig.net, rig.host[from].tun, frame, TUN_HDR_LEN + n), OK);
    rig_run(&rig, 3 * NS_PER_MS);
}

static void expect_udp(bool ipv6, size_t len)
{
    size_t n = memory_tun_take(rig.net, rig.host[1].tun, taken, sizeof taken);
    size_t headers = TUN_HDR_LEN + (ipv6 ? 40 : 20) + 8;
    assert_int_equal(n, headers + len);
    assert_memory_equal(taken + headers, payload, len);
}

/* How many different lengths there are on the wire, of all ESP that was kept. */
static unsigned wire_lengths(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < rig.wire_count; i++) {
        bool seen = false;
        for (unsigned k = 0; k < i && !seen; k++)
            seen = rig.wire[k].len == rig.wire[i].len;
        n += !seen;
    }
    return n;
}

static void padded_packets_of_all_sizes_look_alike(void **state)
{
    (void)state;
    static const char *const esp[] = {"aes128gcm16", "aes128-sha256", "chacha20poly1305", "null-sha256"};
    for (unsigned k = 0; k < 4; k++) {
        char extra[80];
        snprintf(extra, sizeof extra, "esp = %s\ntfc = mtu\n", esp[k]);
        rig_setup(&rig, 20 + k, extra);
        rig_up(&rig);
        rig.keep_wire = true;
        uint64_t bytes = 0;
        for (size_t len = 0; len <= 1340; len += 67) {
            send_udp(0, len & 1, len);
            expect_udp(len & 1, len);
            bytes += len + 8 + (len & 1 ? 40 : 20);
        }
        assert_int_equal(rig.wire_count, 21);
        assert_int_equal(wire_lengths(), 1);
        assert_true(rig.wire[0].len > RIG_MTU);
        assert_int_equal(rig_stat(&rig, 0, STAT_OUT_BYTES), bytes);
        assert_int_equal(rig_stat(&rig, 0, STAT_OUT_TFC_BYTES), 21 * RIG_MTU - bytes);
        assert_int_equal(rig_stat(&rig, 1, STAT_IN_BYTES), bytes);
        if (k < 3)
            rig_teardown(&rig);
    }
}

static void buckets_are_all_that_is_seen(void **state)
{
    (void)state;
    rig_setup(&rig, 30, "tfc = 256, 512, 1024\n");
    rig_up(&rig);
    rig.keep_wire = true;
    for (size_t len = 0; len <= 990; len += 33) {
        send_udp(0, false, len);
        expect_udp(false, len);
    }
    assert_int_equal(rig.wire_count, 31);
    assert_int_equal(wire_lengths(), 3);
    send_udp(0, false, 1300); /* larger than all: as it is */
    expect_udp(false, 1300);
}

/* The last segment is as long as the others, so the whole of it is one segmented send. */
static void padded_superpackets_are_segmented_sends(void **state)
{
    (void)state;
    rig_setup(&rig, 31, "tfc = mtu\n");
    rig_up(&rig);
    rig.keep_wire = true;
    struct packet_spec s = packet_spec_tcp(false);
    uint64_t random = 3, calls = rig_stat(&rig, 0, STAT_TX_CALLS);
    packet_fill(&random, payload, 40000);
    size_t n = packet_build_gso(&s, payload, 40000, 1340, frame), got = 0;
    assert_int_equal(memory_tun_inject(rig.net, rig.host[0].tun, frame, n), OK);
    rig_run(&rig, 3 * NS_PER_MS);
    while ((n = memory_tun_take(rig.net, rig.host[1].tun, taken, sizeof taken))) {
        assert_memory_equal(taken + TUN_HDR_LEN + 52, payload + got, n - TUN_HDR_LEN - 52);
        got += n - TUN_HDR_LEN - 52;
    }
    assert_int_equal(got, 40000);
    assert_int_equal(wire_lengths(), 1);
    assert_int_equal(rig_stat(&rig, 0, STAT_TX_CALLS), calls + 1);
}

static void padding_is_zero_and_nothing_stale(void **state)
{
    (void)state;
    rig_setup(&rig, 32, "esp = null-sha256\n");
    rig_up(&rig);
    memset(payload, 0, sizeof payload);
    struct packet_spec s = packet_spec_udp(false);
    for (unsigned i = 0; i < 100; i++) { /* leaves its traces in every slot */
        memcpy(payload + 700, "somebody else's", 15);
        memset(frame, 0, TUN_HDR_LEN);
        size_t n = packet_build(&s, payload, 1300, frame + TUN_HDR_LEN);
        assert_int_equal(memory_tun_inject(rig.net, rig.host[0].tun, frame, TUN_HDR_LEN + n), OK);
        rig_run(&rig, NS_PER_MS);
    }
    struct policy *p = (struct policy *)rig.host[0].config->policies[0];
    p->tfc = (struct tfc){1, {TFC_FULL}};
    ike_rekey(rig.host[0].engine, rig.host[0].config->peers[0], p, 2, rig.now);
    rig_run(&rig, 5 * NS_PER_S);
    rig.keep_wire = true;
    send_udp(0, false, 10);
    assert_int_equal(rig.wire_count, 1);
    assert_true(rig.wire[0].len > RIG_MTU);
    assert_null(memmem(rig.wire[0].data, rig.wire[0].len, "somebody", 8));
}

static void dummies_come_at_their_rate_and_end_with_the_sa(void **state)
{
    (void)state;
    rig_setup(&rig, 33, "tfc = 600\ndummies = 50\n");
    rig_run(&rig, 2 * NS_PER_S);
    assert_int_equal(rig.esp_seen, 0); /* never without an SA */
    rig_up(&rig);
    uint64_t before = rig_stat(&rig, 0, STAT_OUT_DUMMIES), in = rig_stat(&rig, 1, STAT_DROP_IN_DUMMY);
    rig.keep_wire = true;
    rig_run(&rig, 10 * NS_PER_S);
    assert_in_range(rig_stat(&rig, 0, STAT_OUT_DUMMIES) - before, 490, 510);
    assert_in_range(rig_stat(&rig, 1, STAT_DROP_IN_DUMMY) - in, 490, 510);
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_PACKETS), 0);
    assert_int_equal(memory_tun_take(rig.net, rig.host[1].tun, taken, sizeof taken), 0);
    send_udp(0, false, 100);
    expect_udp(false, 100);
    assert_int_equal(wire_lengths(), 1);
    ike_down(rig.host[0].engine, rig.host[0].config->peers[0], NULL, 3, rig.now);
    rig_run(&rig, NS_PER_S);
    before = rig_stat(&rig, 0, STAT_OUT_DUMMIES);
    rig_run(&rig, 2 * NS_PER_S);
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_DUMMIES), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_the_first_that_fits_and_never_above_the_mtu),
        cmocka_unit_test(dummies_have_lengths_that_packets_have),
        cmocka_unit_test(dummies_keep_their_rate_at_times_nobody_foretells),
        cmocka_unit_test_teardown(padded_packets_of_all_sizes_look_alike, teardown),
        cmocka_unit_test_teardown(buckets_are_all_that_is_seen, teardown),
        cmocka_unit_test_teardown(padded_superpackets_are_segmented_sends, teardown),
        cmocka_unit_test_teardown(padding_is_zero_and_nothing_stale, teardown),
        cmocka_unit_test_teardown(dummies_come_at_their_rate_and_end_with_the_sa, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
