/* The outer header on its way through whole tunnels in memory: what goes out, what a router makes of it, what comes in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"

enum { NOT_ECT = 0, ECT1 = 1, ECT0 = 2, CE = 3 };

static struct rig rig;
static uint8_t frame[66000], payload[66000], taken[66000];

/* What the router saw, and what it does: every mark_every-th datagram gets that ECN field. 0: none. */
static struct {
    struct memory_header seen[256];
    unsigned count, mark_every;
    uint8_t mark;
} road;

static void on_road(void *ctx, const struct endpoint *from, const struct endpoint *to, struct memory_header *header)
{
    (void)ctx;
    (void)from;
    (void)to;
    assert_true(road.count < 256);
    road.seen[road.count++] = *header;
    if (road.mark_every && road.count % road.mark_every == 0)
        header->tos = (uint8_t)((header->tos & ~3u) | road.mark);
}

static void up(const char *extra)
{
    rig_setup(&rig, 7, extra);
    rig_up(&rig);
    rig_run(&rig, 100 * NS_PER_MS);
    memset(&road, 0, sizeof road);
    memory_net_router(rig.net, on_road, NULL);
}

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

static void inject_udp(const struct packet_spec *s, size_t len)
{
    memset(frame, 0, TUN_HDR_LEN);
    size_t n = packet_build(s, payload, len, frame + TUN_HDR_LEN);
    assert_int_equal(memory_tun_inject(rig.net, rig.host[0].tun, frame, TUN_HDR_LEN + n), OK);
}

/* One packet to host 1; the header that it had on the way. */
static struct memory_header carried(const struct packet_spec *s)
{
    road.count = 0;
    inject_udp(s, 100);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(road.count, 1);
    return road.seen[0];
}

/* What host 1 got, without the virtio_net_hdr; 0: nothing. */
static size_t take(void)
{
    size_t n = memory_tun_take(rig.net, rig.host[1].tun, taken, sizeof taken);
    assert_true(n == 0 || n > TUN_HDR_LEN);
    return n ? n - TUN_HDR_LEN : 0;
}

static uint8_t tos_of(const uint8_t *packet)
{
    return packet[0] >> 4 == 4 ? packet[1] : (uint8_t)(packet[0] << 4 | packet[1] >> 4);
}

/* The inner packet arrives as it went in, to the last bit: TTL, DSCP, flow label, checksum. */
static void expect_same(const struct packet_spec *s)
{
    uint8_t sent[300];
    size_t len = packet_build(s, payload, 100, sent);
    assert_int_equal(take(), len);
    assert_memory_equal(taken + TUN_HDR_LEN, sent, len);
}

static void test_dscp_is_copied(void **state)
{
    (void)state;
    up("");
    for (unsigned i = 0; i < 128; i++) {
        struct packet_spec s = packet_spec_udp(i & 1);
        s.tos = (uint8_t)(i / 2 << 2);
        assert_int_equal(carried(&s).tos, s.tos);
        expect_same(&s);
    }
}

static void test_dscp_is_mapped(void **state)
{
    (void)state;
    up("dscp = 46:34, 0:8\n");
    for (unsigned i = 0; i < 128; i++) {
        struct packet_spec s = packet_spec_udp(i & 1);
        unsigned dscp = i / 2, outer = dscp == 46 ? 34 : dscp == 0 ? 8 : dscp;
        s.tos = (uint8_t)(dscp << 2 | ECT0);
        assert_int_equal(carried(&s).tos, outer << 2 | ECT0);
        expect_same(&s);
    }
}

static void test_dscp_is_one_for_all(void **state)
{
    (void)state;
    up("dscp = 0\necn = no\n");
    for (unsigned tos = 0; tos < 256; tos++) {
        struct packet_spec s = packet_spec_udp(tos & 1);
        s.tos = (uint8_t)tos;
        assert_int_equal(carried(&s).tos, 0); /* the path can't tell one from another */
        expect_same(&s);
    }
}

static void test_ttl_stays_what_the_kernel_made_of_it(void **state)
{
    (void)state;
    up("");
    for (unsigned i = 0; i < 2; i++) {
        struct packet_spec s = packet_spec_udp(i);
        s.ttl = 1;
        carried(&s);
        expect_same(&s);
    }
}

static void df_of(const char *extra, bool without, bool with)
{
    up(extra);
    struct packet_spec s = packet_spec_udp(false);
    s.fragment = 0;
    assert_int_equal(carried(&s).df, without);
    s.fragment = 0x4000;
    assert_int_equal(carried(&s).df, with);
    s = packet_spec_udp(true);
    assert_int_equal(carried(&s).df, with);
}

static void test_df_is_clear_unless_asked_for(void **state)
{
    (void)state;
    df_of("", false, false);
}

static void test_df_is_copied(void **state)
{
    (void)state;
    df_of("df = copy\n", false, true);
}

static void test_df_is_set(void **state)
{
    (void)state;
    df_of("df = set\n", true, true);
}

/* RFC 6040 figure 4, through the whole of it: inner, outer as a router left it, what is delivered (-1: nothing). */
static void test_ecn_of_all_combinations(void **state)
{
    (void)state;
    static const struct {
        uint8_t inner, outer;
        int delivered;
        unsigned odd;
    } rows[] = {
        {NOT_ECT, NOT_ECT, NOT_ECT, 0}, {NOT_ECT, ECT0, NOT_ECT, 1}, {NOT_ECT, ECT1, NOT_ECT, 1}, {NOT_ECT, CE, -1, 0},
        {ECT0, NOT_ECT, ECT0, 0},       {ECT0, ECT0, ECT0, 0},       {ECT0, ECT1, ECT1, 0},       {ECT0, CE, CE, 0},
        {ECT1, NOT_ECT, ECT1, 0},       {ECT1, ECT0, ECT1, 1},       {ECT1, ECT1, ECT1, 0},       {ECT1, CE, CE, 0},
        {CE, NOT_ECT, CE, 0},           {CE, ECT0, CE, 0},           {CE, ECT1, CE, 1},           {CE, CE, CE, 0},
    };
    up("");
    road.mark_every = 1;
    for (unsigned i = 0; i < 32; i++) {
        struct packet_spec s = packet_spec_udp(i & 1);
        uint64_t odd = rig_stat(&rig, 1, STAT_IN_ECN_ODD), dropped = rig_stat(&rig, 1, STAT_DROP_IN_ECN);
        s.tos = 10 << 2 | rows[i / 2].inner;
        road.mark = rows[i / 2].outer;
        assert_int_equal(carried(&s).tos, s.tos);
        assert_int_equal(rig_stat(&rig, 1, STAT_IN_ECN_ODD) - odd, rows[i / 2].odd);
        assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_ECN) - dropped, rows[i / 2].delivered < 0);
        if (rows[i / 2].delivered >= 0) {
            s.tos = 10 << 2 | (uint8_t)rows[i / 2].delivered;
            expect_same(&s); /* with an IPv4 checksum that was computed from the beginning */
        }
        assert_int_equal(take(), 0);
    }
}

/* Some segments of a superpacket are marked: those that are merged again have one mark, and no byte is lost. */
static void test_marks_stay_with_their_segments(void **state)
{
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        uint64_t random = 3;
        size_t len = 1340 * 40, headers = (ipv6 ? 40 : 20) + 32, n, marked = 0, got = 0, at;
        struct packet_spec s = packet_spec_tcp(ipv6);
        s.tos = ECT0;
        packet_fill(&random, payload, len);
        up("pmtu = no\n"); /* probes would be counted too */
        road.mark_every = 4;
        road.mark = CE;
        n = packet_build_gso(&s, payload, len, 1340, frame);
        assert_int_equal(memory_tun_inject(rig.net, rig.host[0].tun, frame, n), OK);
        rig_run(&rig, 3 * NS_PER_MS);
        assert_int_equal(road.count, 40);
        while ((n = take())) {
            const uint8_t *packet = taken + TUN_HDR_LEN;
            uint8_t tos = tos_of(packet);
            at = get_be32(packet + headers - 28) - s.seq;
            assert_memory_equal(packet + headers, payload + at, n - headers);
            assert_true(tos == ECT0 || tos == CE);
            assert_int_equal(tos, (at / 1340 + 1) % 4 == 0 ? CE : ECT0);
            assert_true(ipv6 || packet_naive_sum(0, packet, 20) == 0xffff);
            marked += tos == CE ? n - headers : 0;
            got += n - headers;
        }
        assert_int_equal(got, len);
        assert_int_equal(marked, len / 4);
        if (!ipv6)
            rig_teardown(&rig);
    }
}

/* ESP that is there before its SA waits for it, with the mark that it came with. */
static void test_a_mark_on_what_comes_early_is_kept(void **state)
{
    (void)state;
    struct packet_spec s = packet_spec_udp(false);
    uint8_t sent[300];
    rig_setup(&rig, 7, "");
    rig_run(&rig, NS_PER_MS);
    ike_up(rig.host[0].engine, rig.host[0].config->peers[0], NULL, 1, rig.now);
    for (unsigned i = 0; i < 1000 && !rig.host[1].up; i++)
        rig_run(&rig, NS_PER_MS);
    assert_int_equal(rig.host[0].up, 0); /* the answer is under way */
    memset(&road, 0, sizeof road);
    road.mark_every = 1;
    road.mark = CE;
    memory_net_router(rig.net, on_road, NULL);
    s.tos = ECT0;
    memset(frame, 0, TUN_HDR_LEN);
    size_t len = packet_build(&s, payload, 100, frame + TUN_HDR_LEN), at = TUN_HDR_LEN + 12;
    memcpy(frame + at, ((const uint8_t[]){10, 2, 0, 1, 10, 1, 0, 1}), 8); /* back: no checksum changes */
    assert_int_equal(memory_tun_inject(rig.net, rig.host[1].tun, frame, TUN_HDR_LEN + len), OK);
    rig_run(&rig, 10 * NS_PER_MS);
    s.tos = CE;
    packet_build(&s, payload, 100, sent);
    memcpy(sent + 12, frame + at, 8);
    assert_int_equal(memory_tun_take(rig.net, rig.host[0].tun, taken, sizeof taken), TUN_HDR_LEN + len);
    assert_memory_equal(taken + TUN_HDR_LEN, sent, len);
}

/* One segmented send has one header: what differs in it goes in sends of its own. */
static void test_runs_end_where_the_header_changes(void **state)
{
    (void)state;
    up("df = copy\n");
    for (unsigned kind = 0; kind < 3; kind++) {
        uint64_t calls = rig_stat(&rig, 0, STAT_TX_CALLS);
        road.count = 0;
        for (unsigned i = 0; i < 8; i++) {
            struct packet_spec s = packet_spec_udp(false);
            s.tos = kind == 1 ? (uint8_t)(i / 2 << 2) : 0;
            s.fragment = kind == 2 && i % 4 < 2 ? 0 : 0x4000;
            inject_udp(&s, 100);
        }
        rig_run(&rig, 3 * NS_PER_MS);
        assert_int_equal(road.count, 8);
        assert_int_equal(rig_stat(&rig, 0, STAT_TX_CALLS) - calls, kind ? 4 : 1);
        for (unsigned i = 0; i < 8; i++) {
            assert_int_equal(road.seen[i].tos, kind == 1 ? i / 2 << 2 : 0);
            assert_int_equal(road.seen[i].df, kind == 2 ? i % 4 >= 2 : 1);
        }
        for (unsigned i = 0; i < 8; i++)
            if (!take())
                break;
    }
}

/* The path carries inner packets of that size whole. */
static void path_carries(uint32_t size)
{
    struct sa *sa = sad_find_out(rig.host[0].shared.sad, 0, 0);
    assert_non_null(sa);
    atomic_store(&sa->inner_max, size);
}

static unsigned with_df(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < road.count; i++)
        n += road.seen[i].df;
    return n;
}

/* What must not be fragmented behind us is in pieces before. */
static void test_with_df_set_long_packets_are_cut_up_before(void **state)
{
    (void)state;
    struct packet_spec s = packet_spec_udp(false);
    s.fragment = 0;
    up("df = set\n");
    path_carries(600);
    inject_udp(&s, 1000);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(road.count, 2);
    assert_int_equal(with_df(), 2);
    assert_in_range(take(), 21, 600);
    assert_in_range(take(), 21, 600);
}

/* IPv6 has to get its 1280 bytes through, though the path be narrower: in fragments, which DF would forbid. */
static void test_no_df_on_what_only_passes_in_fragments(void **state)
{
    (void)state;
    static const char *const rules[] = {"df = copy\n", "df = set\n"};
    struct packet_spec s = packet_spec_udp(true);
    for (unsigned i = 0; i < 2; i++) {
        up(rules[i]);
        path_carries(1000);
        inject_udp(&s, 1280 - 48);
        rig_run(&rig, 3 * NS_PER_MS);
        assert_int_equal(take(), 1280);
        assert_int_equal(with_df(), 0);
        inject_udp(&s, 1000 - 48);
        rig_run(&rig, 3 * NS_PER_MS);
        assert_int_equal(take(), 1000);
        assert_int_equal(with_df(), 1);
        if (i == 0)
            rig_teardown(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(test_dscp_is_copied, teardown),
        cmocka_unit_test_teardown(test_dscp_is_mapped, teardown),
        cmocka_unit_test_teardown(test_dscp_is_one_for_all, teardown),
        cmocka_unit_test_teardown(test_ttl_stays_what_the_kernel_made_of_it, teardown),
        cmocka_unit_test_teardown(test_df_is_clear_unless_asked_for, teardown),
        cmocka_unit_test_teardown(test_df_is_copied, teardown),
        cmocka_unit_test_teardown(test_df_is_set, teardown),
        cmocka_unit_test_teardown(test_ecn_of_all_combinations, teardown),
        cmocka_unit_test_teardown(test_marks_stay_with_their_segments, teardown),
        cmocka_unit_test_teardown(test_with_df_set_long_packets_are_cut_up_before, teardown),
        cmocka_unit_test_teardown(test_no_df_on_what_only_passes_in_fragments, teardown),
        cmocka_unit_test_teardown(test_a_mark_on_what_comes_early_is_kept, teardown),
        cmocka_unit_test_teardown(test_runs_end_where_the_header_changes, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
