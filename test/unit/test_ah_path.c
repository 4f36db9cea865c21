/* AH on its way through whole tunnels in memory (RFC 4302). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"
#include "tun/raw.h"

static struct rig rig;
static uint8_t frame[66000], payload[66000], taken[66000];

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

static void up(const char *extra)
{
    rig_setup(&rig, 5, extra);
    rig_up(&rig);
    rig_run(&rig, 100 * NS_PER_MS);
    rig.wire_count = 0;
    rig.keep_wire = true;
}

/* What that host's TUN got, without the virtio_net_hdr; 0: nothing. */
static size_t take(unsigned host)
{
    size_t n = memory_tun_take(rig.net, rig.host[host].tun, taken, sizeof taken);
    return n ? n - TUN_HDR_LEN : 0;
}

static void udp_goes_both_ways(void)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned from = i & 1;
        rig_send_udp(&rig, from, i & 2, (const uint8_t *)RIG_MARKER, sizeof RIG_MARKER);
        rig_run(&rig, 3 * NS_PER_MS);
        size_t n = take(!from);
        assert_true(n > sizeof RIG_MARKER);
        assert_memory_equal(taken + TUN_HDR_LEN + n - sizeof RIG_MARKER, RIG_MARKER, sizeof RIG_MARKER);
    }
}

static void packets_go_both_ways_as_protocol_51(void **state)
{
    (void)state;
    up("ah = sha256\n");
    udp_goes_both_ways();
    assert_int_equal(rig.wire_count, 8);
    uint16_t last = 0;
    for (unsigned i = 0; i < 8; i++) {
        const uint8_t *p = rig.wire[i].data;
        assert_int_equal(p[0], 0x45);
        assert_int_equal(p[9], 51);
        assert_int_equal(p[20], i & 2 ? 41 : 4);
        assert_int_equal(get_be32(p + 28), i / 2 + 1);
        if (i & 1)
            continue;
        assert_true(get_be16(p + 4) != last && get_be16(p + 4) != 0);
        last = get_be16(p + 4);
    }
    assert_int_equal(rig.marker_seen, 8); /* it hides nothing */
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_PACKETS), 4);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 4);
}

static void every_algorithm_carries_a_superpacket(void **state)
{
    static const char *const lines[] = {"ah = sha1-noesn\n",     "ah = sha256-esn\n",      "ah = sha384\n",
                                        "ah = sha512\n",         "ah = aesxcbc\n",         "ah = aescmac-noesn\n",
                                        "ah = aes128gmac-esn\n", "ah = aes192gmac-noesn\n"};
    for (unsigned i = 0; i < sizeof lines / sizeof lines[0]; i++) {
        up(lines[i]);
        struct packet_spec s = packet_spec_tcp(false);
        size_t sent = 60000;
        for (size_t k = 0; k < sent; k++)
            payload[k] = (uint8_t)(k * 31 + k / 256);
        size_t n = packet_build_gso(&s, payload, sent, 1300, frame);
        rig_inject(&rig, 0, frame, n);
        rig_run(&rig, 20 * NS_PER_MS);
        size_t got = 0, len;
        while ((len = take(1)) != 0) {
            const uint8_t *p = taken + TUN_HDR_LEN;
            size_t head = 20 + (p[32] >> 4) * 4;
            assert_true(len > head && got + len - head <= sent);
            assert_memory_equal(p + head, payload + got, len - head);
            got += len - head;
        }
        assert_int_equal(got, sent);
        assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), (sent + 1299) / 1300);
        if (i + 1 < sizeof lines / sizeof lines[0])
            teardown(state);
    }
}

/* Sends the kept packet again, changed at one byte; what becomes of it, as a counter of host 1. */
static void again(unsigned at, uint8_t bits, enum stat_id counter)
{
    uint64_t before = rig_stat(&rig, 1, counter);
    uint8_t copy[2048];
    memcpy(copy, rig.wire[0].data, rig.wire[0].len);
    copy[at] ^= bits;
    memory_send(rig.net, &rig.wire[0].from, &rig.wire[0].to, copy, rig.wire[0].len);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 1, counter), before + 1);
}

/* Conformance 45 end to end: the first copy never arrived, and routers have decremented the TTL of the second. */
static bool lost;
static bool lose_one(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data, size_t len)
{
    (void)ctx;
    if (to->port == 0 && !lost) {
        lost = true;
        rig.wire[0].from = *from;
        rig.wire[0].to = *to;
        rig.wire[0].len = len;
        memcpy(rig.wire[0].data, data, len);
        return false;
    }
    return true;
}

static void a_changed_ttl_passes_and_a_changed_address_fails(void **state)
{
    (void)state;
    up("ah = sha512\n");
    lost = false;
    memory_net_tap(rig.net, lose_one, NULL);
    rig_send_udp(&rig, 0, false, (const uint8_t *)RIG_MARKER, sizeof RIG_MARKER);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_true(lost);
    again(12, 0x01, STAT_DROP_IN_AUTH); /* the source address */
    again(5, 0x02, STAT_DROP_IN_AUTH);  /* the Identification */
    again(24, 0x40, STAT_DROP_IN_SPI);  /* the SPI's worker */
    again(100, 0x80, STAT_DROP_IN_AUTH);
    again(21, 0x01, STAT_DROP_IN_MALFORMED); /* the length of AH */
    again(8, 0x07, STAT_IN_PACKETS);         /* the TTL */
    again(8, 0x03, STAT_DROP_IN_REPLAY);
    assert_true(take(1) > 0);
}

static void congestion_on_the_way_is_told(void **state)
{
    (void)state;
    up("ah = sha256\n");
    lost = false;
    memory_net_tap(rig.net, lose_one, NULL);
    struct packet_spec s = packet_spec_udp(false);
    s.tos = 2; /* ECT(0) */
    memset(frame, 0, TUN_HDR_LEN);
    rig_inject(&rig, 0, frame, TUN_HDR_LEN + packet_build(&s, payload, 100, frame + TUN_HDR_LEN));
    rig_run(&rig, 3 * NS_PER_MS);
    again(1, 0x01, STAT_IN_PACKETS);
    assert_true(take(1) > 0);
    assert_int_equal(taken[TUN_HDR_LEN + 1], 3); /* CE inside */
}

/* Each socket takes what is its own: ESP of an AH SPI, or AH of an SA of ESP, is for nobody. */
static void a_spi_counts_for_its_own_protocol(void **state)
{
    (void)state;
    up("ah = sha256\n");
    rig_send_udp(&rig, 0, false, (const uint8_t *)RIG_MARKER, sizeof RIG_MARKER);
    rig_run(&rig, 3 * NS_PER_MS);
    uint8_t esp[100] = {0};
    struct endpoint from = {rig.host[0].at.ip, 4500}, to = {rig.host[1].at.ip, 4500};
    memcpy(esp, rig.wire[0].data + 24, 4);
    uint64_t before = rig_stat(&rig, 1, STAT_DROP_IN_SPI);
    memory_send(rig.net, &from, &to, esp, sizeof esp);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_SPI), before + 1);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 1);
}

/* -- transport mode -- */

/* From host 0 itself, with so many bytes of options or extension headers; returns the length of the packet in `frame`. */
static size_t send_between_hosts(const uint8_t *more, size_t n, uint8_t first)
{
    struct packet_spec s = packet_spec_udp(rig.layout.ipv6);
    uint8_t *p = frame + TUN_HDR_LEN;
    size_t header = rig.layout.ipv6 ? 40 : 20;
    s.from = rig.host[0].at.ip.b;
    s.to = rig.host[1].at.ip.b;
    s.id = 0; /* as Linux leaves it for who fragments */
    memset(frame, 0, TUN_HDR_LEN);
    size_t len = packet_build(&s, (const uint8_t *)RIG_MARKER, sizeof RIG_MARKER, p);
    memmove(p + header + n, p + header, len - header);
    memcpy(p + header, more, n);
    len += n;
    if (rig.layout.ipv6) {
        put_be16(p + 4, (uint16_t)(len - 40));
        p[6] = n ? first : p[6];
    } else {
        p[0] = (uint8_t)(0x40 | (20 + n) / 4);
        put_be16(p + 2, (uint16_t)len);
        put_be16(p + 10, 0);
        put_be16(p + 10, (uint16_t)~packet_naive_sum(0, p, 20 + n));
    }
    rig.wire_count = 0;
    rig_inject(&rig, 0, frame, TUN_HDR_LEN + len);
    rig_run(&rig, 3 * NS_PER_MS);
    return len;
}

/* What arrived is what was sent; but for the Identification of IPv4, which is ours then, and its checksum. */
static void expect_same(size_t len)
{
    uint8_t *sent = frame + TUN_HDR_LEN, *got = taken + TUN_HDR_LEN;
    assert_int_equal(take(1), len);
    if (!rig.layout.ipv6) {
        size_t header = (got[0] & 15u) * 4;
        assert_int_equal(packet_naive_sum(0, got, header), 0xffff);
        assert_true(get_be16(got + 4) != 0);
        memcpy(sent + 4, got + 4, 2);
        memcpy(sent + 10, got + 10, 2);
    }
    assert_memory_equal(got, sent, len);
}

/* Conformance 47, for AH: what is for the way stays in front of it and is covered as far as it can't change. */
static void transport_mode_keeps_headers_on_their_side(void **state)
{
    static const uint8_t ways[] = {60, 0, 0x3e, 4, 1, 2, 3, 4, 43, 0, 1, 4, 0, 0, 0, 0, 17, 0, 253, 0, 0, 0, 0, 0},
                         end[] = {17, 0, 0x1e, 4, 0xaa, 0xaa, 0xaa, 0xaa},
                         options[] = {7, 7, 4, 0, 0, 0, 0, 1, 0x94, 4, 0, 0}; /* record route, router alert */
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        rig_setup_as(&rig, 30 + ipv6, "mode = transport-only\nah = sha384\n",
                     &(struct rig_layout){.ipv6 = ipv6, .hosts = true});
        rig_up(&rig);
        rig.keep_wire = true;
        size_t header = ipv6 ? 40 : 20, more = ipv6 ? 40 : 36; /* 12 and 24 bytes of ICV */
        expect_same(send_between_hosts((const uint8_t *)"", 0, 0));
        assert_int_equal(rig.wire[0].data[ipv6 ? 6 : 9], 51);
        assert_int_equal(rig.wire[0].data[header], 17);
        assert_int_equal(rig.wire[0].len, header + more + 8 + sizeof RIG_MARKER);
        if (ipv6) {
            expect_same(send_between_hosts(ways, sizeof ways, 0));
            assert_int_equal(rig.wire[0].data[header + 16], 51);
            assert_int_equal(rig.wire[0].data[header + 24], 17);
            again(header + 5, 0xff, STAT_DROP_IN_REPLAY); /* an option that may change */
            expect_same(send_between_hosts(end, sizeof end, 60));
            assert_int_equal(rig.wire[0].data[header], 60);
            assert_int_equal(rig.wire[0].data[header + more], 17);
            rig_teardown(&rig);
        } else {
            expect_same(send_between_hosts(options, sizeof options, 0));
            assert_int_equal(rig.wire[0].data[header + sizeof options], 17);
            assert_memory_equal(rig.wire[0].data + 20, options, sizeof options);
            static const uint8_t broken[] = {7, 9, 4, 0};
            send_between_hosts(broken, sizeof broken, 0); /* an option beyond its header */
            assert_int_equal(take(1), 0);
            assert_int_equal(rig.wire_count, 0);
            rig_teardown(&rig);
        }
    }
    rig_setup_as(&rig, 33, "mode = transport-only\nah = aes256gmac\n", &(struct rig_layout){.hosts = true});
    rig_up(&rig);
    rig.keep_wire = true;
    lost = false;
    memory_net_tap(rig.net, lose_one, NULL);
    size_t len = send_between_hosts((const uint8_t *)"", 0, 0);
    again(15, 0x04, STAT_DROP_IN_AUTH); /* the source address */
    again(8, 0x01, STAT_IN_PACKETS);
    frame[TUN_HDR_LEN + 8] ^= 0x01;
    expect_same(len);
}

static void rekeys_lose_nothing(void **state)
{
    (void)state;
    up("ah = sha256-x25519\n");
    for (unsigned i = 0; i < 3; i++) {
        struct rig_host *h = &rig.host[i & 1];
        ike_rekey(h->engine, h->config->peers[0], h->config->policies[0], 7 + i, rig.now);
        for (unsigned k = 0; k < 20; k++) {
            rig.wire_count = 0;
            udp_goes_both_ways();
        }
        rig_run(&rig, 6 * NS_PER_S);
    }
    assert_int_equal(rig.host[0].rekeyed, 3);
    udp_goes_both_ways();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(packets_go_both_ways_as_protocol_51, teardown),
        cmocka_unit_test_teardown(every_algorithm_carries_a_superpacket, teardown),
        cmocka_unit_test_teardown(a_changed_ttl_passes_and_a_changed_address_fails, teardown),
        cmocka_unit_test_teardown(congestion_on_the_way_is_told, teardown),
        cmocka_unit_test_teardown(a_spi_counts_for_its_own_protocol, teardown),
        cmocka_unit_test_teardown(transport_mode_keeps_headers_on_their_side, teardown),
        cmocka_unit_test_teardown(rekeys_lose_nothing, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
