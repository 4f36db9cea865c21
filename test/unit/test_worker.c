/* Whole tunnels over TUN and wire in memory: two engines, two data planes, two workers, virtual time. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

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

/* Takes one packet at a host and compares its UDP payload. */
static void expect_udp(unsigned host, bool ipv6, const uint8_t *data, size_t len)
{
    size_t n = memory_tun_take(rig.net, rig.host[host].tun, taken, sizeof taken);
    size_t headers = TUN_HDR_LEN + (ipv6 ? 40 : 20) + 8;
    assert_int_equal(n, headers + len);
    assert_memory_equal(taken + headers, data, len);
}

static void test_packets_of_every_size_pass_both_ways(void **state)
{
    (void)state;
    rig_setup(&rig, 1, "");
    rig_up(&rig);
    uint64_t random = 1;
    for (size_t len = 0; len <= 1372; len += len < 64 ? 1 : 109) {
        for (unsigned i = 0; i < 4; i++) {
            packet_fill(&random, payload, len);
            rig_send_udp(&rig, i & 1, i >> 1, payload, len);
            rig_run(&rig, 3 * NS_PER_MS);
            expect_udp(!(i & 1), i >> 1, payload, len);
        }
    }
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_PACKETS), rig_stat(&rig, 1, STAT_IN_PACKETS));
    assert_int_equal(rig_stat(&rig, 1, STAT_OUT_PACKETS), rig_stat(&rig, 0, STAT_IN_PACKETS));
}

/* Takes all TCP frames at a host; appends their payload to `got` and checks that no header is left uncut. */
static size_t take_tcp(unsigned host, uint8_t *got, size_t at, unsigned *frames)
{
    size_t n;
    while ((n = memory_tun_take(rig.net, rig.host[host].tun, taken, sizeof taken))) {
        const uint8_t *ip = taken + TUN_HDR_LEN;
        size_t headers = (ip[0] >> 4 == 6 ? 40 : 20) + 32;
        assert_true(n >= TUN_HDR_LEN + headers);
        memcpy(got + at, ip + headers, n - TUN_HDR_LEN - headers);
        at += n - TUN_HDR_LEN - headers;
        ++*frames;
    }
    return at;
}

static void superpackets(const char *extra, bool ipv6)
{
    static uint8_t sent[400000], got[400000];
    rig_setup(&rig, 2, extra);
    rig_up(&rig);
    uint64_t random = 2;
    struct packet_spec s = packet_spec_tcp(ipv6);
    size_t total = 0, arrived = 0;
    unsigned frames = 0;
    for (unsigned i = 0; i < 6; i++) {
        size_t len = 60000 - i * 1111;
        packet_fill(&random, sent + total, len);
        size_t n = packet_build_gso(&s, sent + total, len, 1340, frame);
        rig_inject(&rig, 0, frame, n);
        s.seq += (uint32_t)len;
        total += len;
        rig_run(&rig, 3 * NS_PER_MS);
        arrived = take_tcp(1, got, arrived, &frames);
    }
    assert_int_equal(arrived, total);
    assert_memory_equal(got, sent, total);
    assert_true(rig_stat(&rig, 0, STAT_TX_DATAGRAMS) > 200);
    assert_true(rig_stat(&rig, 0, STAT_TX_CALLS) < 20);
    assert_true(frames < 30); /* they were merged again */
}

static void test_superpackets_are_cut_sealed_and_merged_again(void **state)
{
    (void)state;
    superpackets("esp = aes128gcm16\n", false);
}

static void test_superpackets_over_ipv6_inside(void **state)
{
    (void)state;
    superpackets("esp = chacha20poly1305\n", true);
}

static void test_superpackets_with_cbc_and_mac(void **state)
{
    (void)state;
    superpackets("esp = aes128-sha256\n", false);
}

/* One of each: ICVs of 8 and 12 bytes, no IV on the wire, counter modes with a MAC, nothing hidden; with and without ESN. */
static void test_superpackets_with_every_layout(void **state)
{
    (void)state;
    static const char *const esp[] = {
        "aes128gcm8-esn",       "aes192gcm12",       "aes256ccm16-esn",     "aes128ccm8-noesn", "aes128ctr-aesxcbc-esn",
        "aes256-aescmac",       "aes192-sha1-esn",   "null-aesxcbc",        "aes256gmac-esn",   "aes128gmac-noesn",
        "aes256gcm16iiv-noesn", "aes128ccm8iiv-esn", "chacha20poly1305iiv",
    };
    for (size_t i = 0; i < sizeof esp / sizeof esp[0]; i++) {
        char extra[64];
        snprintf(extra, sizeof extra, "esp = %s\n", esp[i]);
        superpackets(extra, i & 1);
        if (i + 1 < sizeof esp / sizeof esp[0])
            rig_teardown(&rig);
    }
}

static void test_plaintext_is_never_on_the_wire(void **state)
{
    (void)state;
    rig_setup(&rig, 3, "");
    size_t len = strlen(RIG_MARKER);
    rig_send_udp(&rig, 0, false, (const uint8_t *)RIG_MARKER, len); /* before there is any SA */
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_SA), 1);
    rig_up(&rig);
    for (unsigned i = 0; i < 20; i++)
        rig_send_udp(&rig, 0, false, (const uint8_t *)RIG_MARKER, len);
    rig_run(&rig, 5 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 20);
    assert_int_equal(rig.marker_seen, 0);
}

static void test_what_policy_does_not_cover_is_dropped_and_counted(void **state)
{
    (void)state;
    rig_setup(&rig, 4, "[policy no]\naction = discard\nlocal = 10.2.0.0/24\nremote = 10.1.0.0/24\n");
    rig_up(&rig);
    struct packet_spec s = packet_spec_udp(false);
    memset(frame, 0, sizeof frame);
    size_t n = packet_build(&s, payload, 100, frame + TUN_HDR_LEN);
    packet_mirror(frame + TUN_HDR_LEN); /* from 10.2 to 10.1: the discard policy at host 0 */
    rig_inject(&rig, 0, frame, TUN_HDR_LEN + n);
    rig_run(&rig, NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_DISCARD), 1);
    frame[TUN_HDR_LEN + 16] = 11; /* to 11.1.0.1: no policy at all */
    rig_inject(&rig, 0, frame, TUN_HDR_LEN + n);
    rig_run(&rig, NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_POLICY), 1);
    rig_inject(&rig, 0, (const uint8_t[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x45, 0}, 12);
    rig_run(&rig, NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_MALFORMED), 1);
    assert_int_equal(rig.esp_seen, 0);
}

static void test_traffic_acquires_an_sa_once_a_second(void **state)
{
    (void)state;
    rig_setup(&rig, 5, "");
    struct rig_host *h = &rig.host[0];
    for (unsigned i = 0; i < 10; i++)
        rig_send_udp(&rig, 0, false, payload, 10);
    memory_run(rig.net, memory_now(rig.net) + NS_PER_MS);
    uint32_t type;
    struct span record;
    unsigned events = 0;
    while (ring_peek(worker_ring(h->worker), &type, &record)) {
        events += type == WORKER_EVENT;
        ring_pop(worker_ring(h->worker));
    }
    assert_int_equal(events, 1);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_SA), 10);
}

static void wire_in(const uint8_t *data, size_t len)
{
    struct endpoint from = rig.host[0].at, to = rig.host[1].at;
    from.port = to.port = 4500;
    memory_send(rig.net, &from, &to, data, len);
    rig_run(&rig, 3 * NS_PER_MS);
}

/* A capture of ESP that nothing else receives. */
static struct {
    unsigned n;
    size_t len[4];
    uint8_t data[4][2048];
} caught;

static bool catch_esp(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data,
                      size_t len)
{
    (void)ctx;
    (void)from;
    if (to->port != 4500 || len <= 8 || get_be32(data) == 0 || caught.n == 4)
        return true;
    memcpy(caught.data[caught.n], data, len);
    caught.len[caught.n++] = len;
    return false;
}

static void note_port(void *ctx, const struct ike_sa_info *info)
{
    *(uint16_t *)ctx = info->path.remote.port;
}

/* What host 1 thinks where host 0 is, after packet i of those caught came from that port. */
static uint16_t port_after(unsigned i, uint16_t port)
{
    struct endpoint from = rig.host[0].at, to = rig.host[1].at;
    from.port = port;
    to.port = 4500;
    memory_send(rig.net, &from, &to, caught.data[i], caught.len[i]);
    rig_run(&rig, 5 * NS_PER_MS);
    ike_each_sa(rig.host[1].engine, note_port, &port);
    return port;
}

static void test_only_the_newest_esp_tells_where_the_peer_is(void **state)
{
    (void)state;
    rig_setup(&rig, 9, "");
    rig_up(&rig);
    caught.n = 0;
    memory_net_tap(rig.net, catch_esp, NULL);
    for (unsigned i = 0; i < 3; i++) {
        rig_send_udp(&rig, 0, false, (const uint8_t *)"x", 1);
        rig_run(&rig, 3 * NS_PER_MS);
    }
    memory_net_tap(rig.net, NULL, NULL);
    assert_int_equal(caught.n, 3);
    assert_int_equal(port_after(1, 7001), 7001);
    uint64_t in = rig_stat(&rig, 1, STAT_IN_PACKETS);
    assert_int_equal(port_after(0, 7002), 7001); /* authentic and welcome, but overtaken */
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), in + 1);
    assert_int_equal(port_after(1, 7003), 7001); /* a replay */
    caught.data[2][caught.len[2] - 1] ^= 1;
    assert_int_equal(port_after(2, 7004), 7001); /* a forgery */
    caught.data[2][caught.len[2] - 1] ^= 1;
    assert_int_equal(port_after(2, 7005), 7005);
}

static void test_what_comes_unasked_is_dropped_and_counted(void **state)
{
    (void)state;
    rig_setup(&rig, 6, "");
    rig_up(&rig);
    uint8_t junk[64] = {0x12, 0x34, 0x56, 0x78};
    wire_in(junk, sizeof junk);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_SPI), 1);
    wire_in((const uint8_t[]){0xff}, 1);
    assert_int_equal(rig_stat(&rig, 1, STAT_KEEPALIVES_IN), 1);
    wire_in((const uint8_t[]){1, 2, 3}, 3);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_RUNT), 1);

    rig.keep_wire = true;
    rig_send_udp(&rig, 0, false, payload, 200);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(rig.wire_count, 1);
    rig.keep_wire = false;
    wire_in(rig.wire[0].data, rig.wire[0].len);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_REPLAY), 1);
    rig.wire[0].data[7]++; /* another sequence number: what was sealed no longer fits */
    wire_in(rig.wire[0].data, rig.wire[0].len);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_AUTH), 1);
    wire_in(rig.wire[0].data, 12);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_RUNT), 2);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 1);
}

/* Numbered datagrams through loss, duplication and reordering: none twice, none changed. */
static void test_a_bad_wire_neither_doubles_nor_alters(void **state)
{
    (void)state;
    rig_setup(&rig, 7, "");
    rig_up(&rig);
    memory_net_faults(rig.net,
                      &(struct memory_faults){.loss = 100, .duplicate = 100, .reorder = 200, .delay = NS_PER_MS});
    uint8_t seen[2000] = {0};
    unsigned arrived = 0;
    for (uint32_t i = 0; i < 2000; i++) {
        uint8_t number[40] = {0};
        put_be32(number, i);
        rig_send_udp(&rig, 0, i & 1, number, sizeof number);
        if (i % 50 == 49)
            rig_run(&rig, 5 * NS_PER_MS);
        size_t n;
        while ((n = memory_tun_take(rig.net, rig.host[1].tun, taken, sizeof taken))) {
            /* Equal neighbours may have been merged: every 40 bytes behind the headers are one datagram's. */
            size_t headers = TUN_HDR_LEN + (taken[TUN_HDR_LEN] >> 4 == 6 ? 48 : 28);
            for (size_t at = headers; at < n; at += 40) {
                uint32_t k = get_be32(taken + at);
                assert_true(k < 2000);
                assert_int_equal(seen[k]++, 0);
                arrived++;
            }
        }
    }
    assert_in_range(arrived, 1500, 1950);
}

/* Rekeys of Child and IKE SA by both sides under traffic, on a wire that reorders: every datagram arrives. */
static void test_rekeying_under_traffic_loses_nothing(void **state)
{
    (void)state;
    rig_setup(&rig, 8, "");
    rig_up(&rig);
    memory_net_faults(rig.net, &(struct memory_faults){.reorder = 300, .delay = 20 * NS_PER_MS});
    for (unsigned i = 0; i < 4000; i++) {
        struct rig_host *h = &rig.host[i / 500 % 2];
        if (i % 500 == 100)
            ike_rekey(h->engine, h->config->peers[0], i / 500 % 4 < 2 ? h->config->policies[0] : NULL, 100 + i,
                      rig.now);
        rig_send_udp(&rig, i & 1, false, payload, 64);
        rig_run(&rig, NS_PER_MS);
    }
    rig_run(&rig, NS_PER_S);
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_PACKETS), 2000);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 2000);
    assert_int_equal(rig_stat(&rig, 0, STAT_IN_PACKETS), 2000);
    assert_true(rig.host[0].rekeyed >= 4);
}

/*
 * What host 1 lets out by its one policy, host 0 must not let in where an earlier policy of its own has another say (RFC
 * 4301 section 5.2).
 */
static void test_an_earlier_policy_holds_inbound_too(void **state)
{
    (void)state;
    rig_setup(&rig, 9, "");
    struct rig_host *h = &rig.host[0];
    rig_up(&rig);
    struct policy no = {.action = ACTION_DISCARD};
    assert_int_equal(selectors_parse("10.1.0.0/24", &no.local, NULL, 0), OK);
    assert_int_equal(selectors_parse("10.2.0.0/30", &no.remote, NULL, 0), OK);
    const struct spd *now = atomic_load(&h->shared.spd);
    struct spd_entry entries[2] = {{.policy = &no, .id = 7}, *spd_at(now, 0)};
    struct spd *stricter;
    assert_int_equal(spd_new(&stricter, entries, 2), OK);
    rig_send_udp(&rig, 1, false, payload, 100);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_IN_PACKETS), 1);

    struct spd *before = atomic_exchange(&h->shared.spd, stricter);
    rig_send_udp(&rig, 1, false, payload, 100); /* from 10.2.0.1 */
    rig_send_udp(&rig, 1, true, payload, 100);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_IN_SELECTOR), 1);
    assert_int_equal(rig_stat(&rig, 0, STAT_IN_PACKETS), 2);
    spd_free(atomic_exchange(&h->shared.spd, before));
}

static enum err broken_turn(struct loop *l, ns_t deadline)
{
    (void)l;
    (void)deadline;
    errno = EBADFD;
    return ERR_SYSTEM;
}

static void test_a_worker_that_cannot_go_on_says_so(void **state)
{
    (void)state;
    rig_setup(&rig, 10, "");
    struct rig_host *h = &rig.host[0];
    const struct loop_ops *ops = h->loop->ops;
    struct loop_ops broken = *ops;
    broken.turn = broken_turn;
    h->loop->ops = &broken;
    assert_false(worker_failed(h->worker));
    assert_int_equal(worker_start(h->worker), OK);
    for (unsigned i = 0; i < 6000 && !worker_failed(h->worker); i++)
        usleep(10000);
    assert_true(worker_failed(h->worker));
    worker_stop(h->worker);
    h->loop->ops = ops;
}

static void note_child(void *ctx, const struct ike_child_info *c)
{
    *(struct ike_child_info *)ctx = *c;
}

/* A second Child SA of the same policy takes the traffic and ends: the first goes on where it was, also in number. */
static void test_traffic_goes_on_over_the_child_sa_that_is_left(void **state)
{
    (void)state;
    static const uint8_t key[64];
    rig_setup(&rig, 9, "");
    rig_up(&rig);
    struct dataplane *d = rig.host[0].dataplane;
    struct ike_child_info first;
    ike_each_child(rig.host[0].engine, note_child, &first);
    struct ike_child second = {.id = first.id + 1000, .policy = first.policy, .spi_out = 0x1000, .suite = first.suite};
    second.key_in = second.key_out = span_of(key, first.suite.encr_key_len);
    second.integ_in = second.integ_out = span_of(key, first.suite.integ_key_len);
    second.local = first.local;
    second.remote = first.remote;
    assert_int_equal(dataplane_reserve(d, &second.spi_in), OK);
    for (unsigned i = 0; i < 3; i++) {
        rig_send_udp(&rig, 0, false, payload, 100);
        rig_run(&rig, 3 * NS_PER_MS);
        if (i == 0)
            assert_int_equal(dataplane_install(d, &second, "auto", true, rig.now), OK);
        if (i == 1) {
            dataplane_activate(d, first.id); /* as the engine does before it removes the one in use */
            dataplane_remove(d, second.id, true, rig.now);
        }
    }
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_SA), 0);
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_PACKETS), 3);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 2); /* the second one is not known there */
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_REPLAY), 0);
}

#define RIG_TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(test_packets_of_every_size_pass_both_ways),
        RIG_TEST(test_superpackets_are_cut_sealed_and_merged_again),
        RIG_TEST(test_superpackets_over_ipv6_inside),
        RIG_TEST(test_superpackets_with_cbc_and_mac),
        RIG_TEST(test_superpackets_with_every_layout),
        RIG_TEST(test_plaintext_is_never_on_the_wire),
        RIG_TEST(test_what_policy_does_not_cover_is_dropped_and_counted),
        RIG_TEST(test_traffic_acquires_an_sa_once_a_second),
        RIG_TEST(test_only_the_newest_esp_tells_where_the_peer_is),
        RIG_TEST(test_what_comes_unasked_is_dropped_and_counted),
        RIG_TEST(test_a_bad_wire_neither_doubles_nor_alters),
        RIG_TEST(test_rekeying_under_traffic_loses_nothing),
        RIG_TEST(test_traffic_goes_on_over_the_child_sa_that_is_left),
        RIG_TEST(test_an_earlier_policy_holds_inbound_too),
        RIG_TEST(test_a_worker_that_cannot_go_on_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
