/*
 * What is too long for the path, and what shows no ports of its own, through whole tunnels in memory: ICMP errors to the
 * inside, fragments before and after encapsulation, MSS; fragments and ICMP errors where selectors name ports.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "ike/internal.h"
#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/icmp.h"
#include "tun/offload.h"

static struct rig rig;
static uint8_t frame[66000], payload[66000], taken[66000];

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

/* A tunnel whose path carries inner packets of that size. */
static void tunnel(const char *extra, unsigned inner_max)
{
    rig_setup(&rig, 5, extra);
    rig_up(&rig);
    atomic_store(&rig_out_sa(&rig, 0)->inner_max, inner_max);
}

static void inject(unsigned host, size_t len)
{
    assert_int_equal(memory_tun_inject(rig.net, rig.host[host].tun, frame, TUN_HDR_LEN + len), OK);
    rig_run(&rig, 5 * NS_PER_MS);
}

static size_t take(unsigned host)
{
    size_t n = memory_tun_take(rig.net, rig.host[host].tun, taken, sizeof taken);
    return n ? n - TUN_HDR_LEN : 0;
}

static size_t udp_packet(const struct packet_spec *s, size_t len)
{
    uint64_t random = len;
    memset(frame, 0, TUN_HDR_LEN);
    packet_fill(&random, payload, len);
    return packet_build(s, payload, len, frame + TUN_HDR_LEN);
}

static void send_udp(bool ipv6, uint16_t fragment, size_t len)
{
    struct packet_spec s = packet_spec_udp(ipv6);
    s.fragment = fragment;
    inject(0, udp_packet(&s, len));
}

static void with_df_the_sender_is_told_the_size(void **state)
{
    (void)state;
    uint8_t want[ICMP_ERROR6_MAX];
    tunnel("", 1300);
    send_udp(false, 0x4000, 1300 - 28);
    assert_int_equal(take(1), 1300);
    send_udp(false, 0x4000, 1300 - 28 + 1);
    assert_int_equal(take(1), 0);
    size_t n = icmp_too_big(span_of(frame + TUN_HDR_LEN, 1301), 1300, want);
    assert_int_equal(take(0), n);
    assert_memory_equal(taken + TUN_HDR_LEN, want, n);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_TOO_BIG), 1);
    assert_int_equal(rig_stat(&rig, 0, STAT_ICMP_TOLD), 1);
}

static void ipv6_is_told_packet_too_big_and_never_less_than_1280(void **state)
{
    (void)state;
    tunnel("", 1300);
    send_udp(true, 0, 1301 - 48);
    assert_int_equal(take(1), 0);
    assert_int_equal(take(0), 1280);
    assert_int_equal(taken[TUN_HDR_LEN + 40], 2);
    assert_int_equal(get_be32(taken + TUN_HDR_LEN + 44), 1300);
    atomic_store(&rig_out_sa(&rig, 0)->inner_max, 1200);
    send_udp(true, 0, 1280 - 48); /* nobody has to send less */
    assert_int_equal(take(1), 1280);
    send_udp(true, 0, 1281 - 48);
    assert_int_equal(take(1), 0);
    assert_int_equal(take(0), 1280);
    assert_int_equal(get_be32(taken + TUN_HDR_LEN + 44), 1280);
}

static void one_error_tells_about_a_whole_superpacket(void **state)
{
    (void)state;
    struct packet_spec s = packet_spec_tcp(false);
    uint64_t random = 3;
    tunnel("", 1300);
    packet_fill(&random, payload, 20000);
    inject(0, packet_build_gso(&s, payload, 20000, 1340, frame) - TUN_HDR_LEN);
    assert_int_equal(take(1), 0);
    assert_int_equal(take(0), 576);
    const uint8_t *quote = taken + TUN_HDR_LEN + 28;
    assert_int_equal(get_be16(quote + 2), 1340 + 52); /* its first segment */
    assert_int_equal(get_be32(quote + 24), s.seq);
    assert_int_equal(take(0), 0);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_TOO_BIG), 15);
    inject(0, packet_build_gso(&s, payload, 20000, 1248, frame) - TUN_HDR_LEN);
    assert_int_not_equal(take(1), 0);
}

static void errors_have_a_limit(void **state)
{
    (void)state;
    tunnel("", 1300);
    struct packet_spec s = packet_spec_udp(false);
    s.fragment = 0x4000;
    size_t len = udp_packet(&s, 1400), told = 0;
    for (unsigned i = 0; i < 1000; i++)
        assert_int_equal(memory_tun_inject(rig.net, rig.host[0].tun, frame, TUN_HDR_LEN + len), OK);
    rig_run(&rig, 5 * NS_PER_MS);
    while (take(0))
        told++;
    assert_in_range(told, 100, 110);
    assert_int_equal(rig_stat(&rig, 0, STAT_ICMP_TOLD) + rig_stat(&rig, 0, STAT_ICMP_LIMITED), 1000);
}

static void without_df_the_datagram_is_left_to_be_fragmented(void **state)
{
    (void)state;
    tunnel("", 1300);
    send_udp(false, 0, 1400 - 28);
    assert_int_equal(take(1), 1400);
    assert_int_equal(take(0), 0);
}

static void fragmented_before_each_piece_is_a_packet_that_fits(void **state)
{
    (void)state;
    tunnel("fragment = before\n", 1300);
    uint64_t before = rig.esp_seen;
    send_udp(false, 0, 3000 - 28);
    assert_int_equal(rig.esp_seen - before, 3);
    size_t at = 0, n;
    for (unsigned i = 0; i < 3; i++) {
        n = take(1);
        assert_in_range(n, 21, 1300);
        const uint8_t *p = taken + TUN_HDR_LEN;
        assert_int_equal((get_be16(p + 6) & 0x1fff) * 8u, at);
        assert_memory_equal(p + 20, frame + TUN_HDR_LEN + 20 + at, n - 20);
        at += n - 20;
    }
    assert_int_equal(at, 2980);
    assert_int_equal(take(1), 0);
    assert_int_equal(take(0), 0);
}

/* A SYN that announces an MSS of 1460. Returns its MSS at the other end. */
static unsigned mss_of_syn(unsigned from, bool ipv6)
{
    struct packet_spec s = packet_spec_tcp(ipv6);
    static const uint8_t option[4] = {2, 4, 0x05, 0xb4};
    s.flags = 2;
    memcpy(s.options, option, 4);
    s.options_len = 4;
    memset(frame, 0, TUN_HDR_LEN);
    size_t len = packet_build(&s, payload, 0, frame + TUN_HDR_LEN);
    uint8_t *p = frame + TUN_HDR_LEN, swap[16];
    size_t at = ipv6 ? 8 : 12, half = ipv6 ? 16 : 4;
    if (from == 1) {
        memcpy(swap, p + at, half);
        memcpy(p + at, p + at + half, half);
        memcpy(p + at + half, swap, half);
    }
    inject(from, len);
    assert_int_equal(take(1 - from), len);
    assert_true(packet_sound(taken + TUN_HDR_LEN, len));
    return get_be16(taken + TUN_HDR_LEN + len - 2);
}

static void syns_announce_what_the_path_carries(void **state)
{
    (void)state;
    tunnel("", 1300);
    assert_int_equal(mss_of_syn(0, false), 1260);
    assert_int_equal(mss_of_syn(0, true), 1240);
    atomic_store(&rig.host[0].shared.mss4, 1200);
    assert_int_equal(mss_of_syn(0, false), 1200);
}

static void mss_may_be_a_number_or_none_of_our_business(void **state)
{
    (void)state;
    tunnel("mss = 1111\n", 1300);
    assert_int_equal(mss_of_syn(0, false), 1111);
    assert_int_equal(mss_of_syn(1, true), 1111);
    rig_teardown(&rig);
    tunnel("mss = no\n", 1300);
    assert_int_equal(mss_of_syn(0, false), 1460);
}

/* -- the path MTU -- */

/*
 * A sender behind host 0 that sends each 50 ms, and believes ICMP. Answers of the other side come as long as something
 * arrives there. Returns the time until `size` or less has arrived and gone on arriving, or fails.
 */
static ns_t time_to_heal(unsigned size, ns_t patience)
{
    struct packet_spec s = packet_spec_udp(false);
    s.fragment = 0x4000;
    ns_t begin = rig.now, good = 0;
    unsigned inner = 1400;
    while (rig.now - begin < patience) {
        inject(0, udp_packet(&s, inner - 28));
        rig_run(&rig, 45 * NS_PER_MS);
        if (take(1)) {
            good = good ? good : rig.now;
            rig_send_udp(&rig, 1, false, payload, 40); /* the answer */
            rig_run(&rig, 3 * NS_PER_MS);
            if (rig.now - good > 5 * NS_PER_S)
                return good - begin;
        } else {
            good = 0;
        }
        while (take(0))
            if (taken[TUN_HDR_LEN + 9] == 1)
                inner = get_be16(taken + TUN_HDR_LEN + 26);
    }
    fail_msg("nothing of %u bytes or less arrives", size);
    return 0;
}

static unsigned inner_max(void)
{
    return atomic_load(&rig_out_sa(&rig, 0)->inner_max);
}

static void a_path_smaller_than_its_link_heals(void **state)
{
    (void)state;
    rig_setup(&rig, 7, "");
    rig.path_mtu = 1400;
    rig_up(&rig);
    unsigned link = inner_max();
    assert_in_range(link, 1400, 1460);
    ns_t stall = time_to_heal(1400, 20 * NS_PER_S);
    print_message("nothing passed for %.1f s\n", (double)stall / NS_PER_S);
    assert_true(stall < 5 * NS_PER_S);
    rig_run(&rig, 20 * NS_PER_S);
    assert_int_equal(inner_max(), link - 100); /* to the byte: a common size */
    /* A rekey is the same path. */
    unsigned probes = rig.probes;
    struct sa *before = rig_out_sa(&rig, 0);
    ike_rekey(rig.host[0].engine, rig.host[0].config->peers[0], rig.host[0].config->policies[0], 9, rig.now);
    rig_run(&rig, 2 * NS_PER_S);
    assert_ptr_not_equal(before, rig_out_sa(&rig, 0));
    assert_int_equal(inner_max(), link - 100);
    assert_int_equal(rig.probes, probes);
}

static void a_path_that_shrinks_under_traffic_heals(void **state)
{
    (void)state;
    rig_setup(&rig, 8, "");
    rig_up(&rig);
    assert_true(time_to_heal(1400, 10 * NS_PER_S) < NS_PER_S);
    rig.path_mtu = 1280;
    ns_t stall = time_to_heal(1280, 20 * NS_PER_S);
    print_message("nothing passed for %.1f s\n", (double)stall / NS_PER_S);
    assert_true(stall < 6 * NS_PER_S);
    rig.path_mtu = 0;
    for (unsigned i = 0; i < 700 && inner_max() < 1400; i++) {
        rig_send_udp(&rig, 0, false, payload, 1100);
        rig_send_udp(&rig, 1, false, payload, 40);
        rig_run(&rig, NS_PER_S);
        while (take(0) || take(1))
            continue;
    }
    assert_in_range(inner_max(), 1400, 1460); /* within ten minutes and something */
}

static void a_quiet_tunnel_sends_no_probes(void **state)
{
    (void)state;
    rig_setup(&rig, 9, "");
    rig.path_mtu = 1300;
    rig_up(&rig);
    for (unsigned i = 0; i < 100; i++) {
        rig_send_udp(&rig, 0, false, payload, 200);
        rig_run(&rig, NS_PER_S);
        while (take(1))
            continue;
    }
    assert_int_equal(rig.probes, 0);
}

static struct icmp_error too_big(unsigned mtu)
{
    struct path path = sa_path(rig_out_sa(&rig, 0));
    return (struct icmp_error){.too_big = true,
                               .mtu = mtu,
                               .proto = 17,
                               .local = path.local,
                               .remote = path.remote,
                               .esp = true,
                               .spi = rig_out_sa(&rig, 0)->params.spi};
}

static bool told(const struct icmp_error *e)
{
    return dataplane_told(rig.host[0].dataplane, e, rig.now);
}

static void icmp_makes_it_be_looked_at(void **state)
{
    (void)state;
    rig_setup(&rig, 10, "");
    rig_up(&rig);
    unsigned link = inner_max();
    struct icmp_error e = too_big(1300);
    assert_true(told(&e));
    rig_run(&rig, 3 * NS_PER_S);
    assert_int_equal(inner_max(), link); /* forged: the probe says so */
    assert_int_equal(rig.probes, 1);
    rig_run(&rig, 60 * NS_PER_S);
    rig.path_mtu = 1300;
    assert_true(told(&e));
    rig_run(&rig, 2 * NS_PER_S);
    assert_int_equal(inner_max(), link - 200);
}

static void icmp_about_nothing_of_ours_is_ignored(void **state)
{
    (void)state;
    rig_setup(&rig, 11, "");
    rig_up(&rig);
    for (unsigned wrong = 0; wrong < 6; wrong++) {
        struct icmp_error e = too_big(1300);
        e.spi += wrong == 0;
        e.remote.port += wrong == 1;
        e.remote.ip.b[3] += wrong == 2;
        e.local.ip.b[3] += wrong == 3;
        e.proto = wrong == 4 ? 50 : 17;
        e.too_big = wrong != 5; /* unreachable is not listened to by default */
        assert_false(told(&e));
    }
    rig_run(&rig, 5 * NS_PER_S);
    assert_int_equal(rig.probes, 0);
    struct icmp_error short_quote = too_big(1300);
    short_quote.esp = false;
    assert_true(told(&short_quote));
}

static void icmp_is_handled_as_configured(void **state)
{
    (void)state;
    rig_setup(&rig, 12, "icmp = no\n");
    rig_up(&rig);
    struct icmp_error e = too_big(1300);
    assert_false(told(&e));
    rig_teardown(&rig);

    rig_setup(&rig, 12, "icmp = unreachable\ndpd = no\n");
    rig_up(&rig);
    e = too_big(1300);
    assert_false(told(&e));
    e.too_big = false;
    rig_run(&rig, 5 * NS_PER_S);
    ns_t before = rig.now;
    assert_true(told(&e));
    rig_run(&rig, NS_PER_S);
    assert_true(rig.host[0].engine->sas->last_in > before); /* it was asked, and lives */
    rig_teardown(&rig);

    rig_setup(&rig, 12, "pmtu = icmp\n");
    rig_up(&rig);
    unsigned link = inner_max();
    e = too_big(1200);
    e.esp = false; /* no SPI in it: nothing that a stranger would not know */
    assert_false(told(&e));
    assert_int_equal(inner_max(), link);
    e = too_big(1300);
    assert_true(told(&e));
    rig_run(&rig, 100 * NS_PER_MS);
    assert_int_equal(inner_max(), link - 200);
    assert_int_equal(rig.probes, 0);
    rig_run(&rig, 610 * NS_PER_S);
    assert_int_equal(inner_max(), link); /* it has aged */
    rig_teardown(&rig);

    rig_setup(&rig, 12, "pmtu = no\n");
    rig.path_mtu = 1300;
    rig_up(&rig);
    e = too_big(1300);
    assert_false(told(&e));
    for (unsigned i = 0; i < 20; i++) {
        rig_send_udp(&rig, 0, false, payload, 1350);
        rig_run(&rig, NS_PER_S);
    }
    assert_int_equal(rig.probes, 0);
    assert_int_equal(inner_max(), link);
}

/* -- what shows no ports -- */

static void ports_tunnel(void)
{
    rig_setup_ports(&rig, 6, "", "[udp/5201]");
    rig_up(&rig);
}

/* A fragment of the packet `id`; the first one shows the port. */
static void send_fragment(uint16_t id, uint16_t dport, uint16_t fragment)
{
    struct packet_spec s = packet_spec_udp(false);
    s.id = id;
    s.dport = dport;
    s.fragment = fragment;
    inject(0, udp_packet(&s, 400));
}

static void later_fragments_go_where_their_first_one_went(void **state)
{
    (void)state;
    ports_tunnel();
    send_fragment(1, 5201, 0x2000 | 51); /* its first one is not there yet */
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_FRAGMENT), 1);
    send_fragment(1, 5201, 0x2000);
    assert_int_equal(take(1), 428);
    send_fragment(1, 5201, 0x2000 | 51);
    assert_int_equal(take(1), 428);
    send_fragment(2, 5201, 51); /* of another packet */
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_FRAGMENT), 2);
    send_fragment(3, 53, 0x2000); /* a port that is not the SA's */
    send_fragment(3, 53, 51);
    assert_int_equal(take(1), 0);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_POLICY), 2);
    rig_run(&rig, 31 * NS_PER_S);
    send_fragment(1, 5201, 51); /* too late */
    assert_int_equal(take(1), 0);
}

/* The sender lets everything out: what the receiver makes of it is its own decision. */
static void the_receiver_checks_fragments_by_itself(void **state)
{
    (void)state;
    ports_tunnel();
    struct sa *sa = rig_out_sa(&rig, 0), *in = sad_find_in(rig.host[1].shared.sad, sa->params.spi);
    assert_non_null(in);
    send_fragment(1, 5201, 0x2000);
    assert_int_equal(take(1), 428);
    fragment_table_free(in->fragments);
    assert_int_equal(fragment_table_new(&in->fragments, 8), OK);
    send_fragment(1, 5201, 51);
    assert_int_equal(take(1), 0);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_FRAGMENT), 1);
    send_fragment(1, 5201, 0x2000);
    send_fragment(1, 5201, 51);
    assert_int_equal(take(1), 428);
    assert_int_equal(take(1), 428);
}

/* An ICMP error of a router about a UDP packet of the tunnel's, or about another one. */
static void send_error(unsigned from, const uint8_t router[4], uint16_t port)
{
    struct packet_spec s = packet_spec_udp(false), error = packet_spec_udp(false);
    uint8_t quote[100], head[8];
    if (from == 1)
        s.dport = port;
    else
        s.sport = port;
    size_t n = packet_build(&s, payload, 20, quote);
    if (from == 0) { /* what came from the second host could not be delivered */
        memcpy(head, quote + 12, 4);
        memcpy(quote + 12, quote + 16, 4);
        memcpy(quote + 16, head, 4);
    }
    memset(frame, 0, TUN_HDR_LEN);
    size_t len = packet_build(&error, quote, n, frame + TUN_HDR_LEN);
    uint8_t *p = frame + TUN_HDR_LEN;
    static const uint8_t unreachable[8] = {3, 1};
    memcpy(p + 20, unreachable, 8);
    memcpy(p + 12, router, 4);
    memcpy(p + 16, quote + 12, 4);
    p[9] = 1;
    put_be16(p + 10, 0);
    put_be16(p + 10, (uint16_t)~packet_naive_sum(0, p, 20));
    inject(from, len);
}

static void errors_of_routers_go_with_what_they_are_about(void **state)
{
    (void)state;
    static const uint8_t router[4] = {172, 16, 0, 1}, inside[4] = {10, 2, 0, 77};
    ports_tunnel();
    send_error(1, router, 5201);
    assert_int_equal(rig_stat(&rig, 1, STAT_OUT_ICMP_QUOTED), 1);
    assert_int_equal(take(0), 20 + 8 + 48);
    assert_memory_equal(taken + TUN_HDR_LEN + 12, router, 4);
    send_error(1, inside, 5201);
    assert_int_equal(take(0), 20 + 8 + 48);
    send_error(1, router, 53); /* about what the SA does not carry */
    assert_int_equal(take(0), 0);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_OUT_NO_POLICY), 1);
}

static void the_receiver_checks_what_errors_quote(void **state)
{
    (void)state;
    static const uint8_t router[4] = {172, 16, 0, 1};
    ports_tunnel();
    /* The second host's own policy is made wider, as one that misbehaves has it. */
    struct sa *sa = rig_out_sa(&rig, 1);
    sa->params.local.v[0].port_first = 0;
    sa->params.local.v[0].port_last = UINT16_MAX;
    struct spd *wide, *spd = atomic_load(&rig.host[1].shared.spd);
    struct spd_entry e = *spd_find(spd, 0);
    e.local = &sa->params.local;
    assert_int_equal(spd_new(&wide, &e, 1), OK);
    atomic_store(&rig.host[1].shared.spd, wide);
    send_error(1, router, 53);
    assert_int_equal(rig_stat(&rig, 1, STAT_OUT_ICMP_QUOTED), 1);
    assert_int_equal(take(0), 0);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_IN_SELECTOR), 1);
    send_error(1, router, 5201);
    assert_int_equal(take(0), 20 + 8 + 48);
    atomic_store(&rig.host[1].shared.spd, spd);
    spd_free(wide);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(with_df_the_sender_is_told_the_size, teardown),
        cmocka_unit_test_teardown(ipv6_is_told_packet_too_big_and_never_less_than_1280, teardown),
        cmocka_unit_test_teardown(one_error_tells_about_a_whole_superpacket, teardown),
        cmocka_unit_test_teardown(errors_have_a_limit, teardown),
        cmocka_unit_test_teardown(without_df_the_datagram_is_left_to_be_fragmented, teardown),
        cmocka_unit_test_teardown(fragmented_before_each_piece_is_a_packet_that_fits, teardown),
        cmocka_unit_test_teardown(syns_announce_what_the_path_carries, teardown),
        cmocka_unit_test_teardown(mss_may_be_a_number_or_none_of_our_business, teardown),
        cmocka_unit_test_teardown(a_path_smaller_than_its_link_heals, teardown),
        cmocka_unit_test_teardown(a_path_that_shrinks_under_traffic_heals, teardown),
        cmocka_unit_test_teardown(a_quiet_tunnel_sends_no_probes, teardown),
        cmocka_unit_test_teardown(icmp_makes_it_be_looked_at, teardown),
        cmocka_unit_test_teardown(icmp_about_nothing_of_ours_is_ignored, teardown),
        cmocka_unit_test_teardown(icmp_is_handled_as_configured, teardown),
        cmocka_unit_test_teardown(later_fragments_go_where_their_first_one_went, teardown),
        cmocka_unit_test_teardown(the_receiver_checks_fragments_by_itself, teardown),
        cmocka_unit_test_teardown(errors_of_routers_go_with_what_they_are_about, teardown),
        cmocka_unit_test_teardown(the_receiver_checks_what_errors_quote, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
