/* ESP as protocol 50, and transport mode either way, over whole daemons in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "esp/ah.h"
#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/cut.h"
#include "tun/offload.h"
#include "tun/reassembly.h"

static struct rig rig;
static uint8_t frame[70000], payload[66000], taken[70000];

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

static const uint8_t *address(unsigned host)
{
    return rig.host[host].at.ip.b;
}

/* Of the hosts themselves, where they protect just that. */
static void between_hosts(struct packet_spec *s, unsigned from)
{
    if (rig.layout.hosts) {
        s->from = address(from);
        s->to = address(!from);
    }
}

/* A packet into the TUN of a host; what stands in front of it stays. Returns its length. */
static size_t send_packet(unsigned from, struct packet_spec s, const uint8_t *data, size_t len)
{
    memset(frame, 0, TUN_HDR_LEN);
    between_hosts(&s, from);
    size_t n = packet_build(&s, data, len, frame + TUN_HDR_LEN);
    if (!rig.layout.hosts && from == 1)
        packet_mirror(frame + TUN_HDR_LEN);
    rig_inject(&rig, from, frame, TUN_HDR_LEN + n);
    return n;
}

static size_t take(unsigned host)
{
    return memory_tun_take(rig.net, rig.host[host].tun, taken, sizeof taken);
}

/* What was sent last is there, whole; fresh: but for a header that was made anew. */
static void expect_packet(unsigned host, size_t len, bool fresh)
{
    const uint8_t *sent = frame + TUN_HDR_LEN, *got = taken + TUN_HDR_LEN;
    size_t header = sent[0] >> 4 == 6 ? 40 : 20;
    assert_int_equal(take(host), TUN_HDR_LEN + len);
    assert_true(packet_sound(got, len));
    if (fresh) {
        assert_memory_equal(got + header - (header == 40 ? 32 : 8), sent + header - (header == 40 ? 32 : 8), 8);
        assert_memory_equal(got + header, sent + header, len - header);
        assert_int_equal(got[0] >> 4, sent[0] >> 4);
    } else {
        assert_memory_equal(got, sent, len);
    }
}

static struct sa *sa_of(unsigned host)
{
    const struct spd *spd = atomic_load(&rig.host[host].shared.spd);
    struct flow f = {.proto = 17, .ports_known = true, .src_port = 1, .dst_port = 2};
    f.src = rig.host[host].config->policies[0]->local.v[0].range.first;
    f.dst = rig.host[host].config->policies[0]->remote.v[0].range.first;
    struct sa *sa = sad_find_out(rig.host[host].shared.sad, spd_lookup_out(spd, &f)->id, 0);
    assert_non_null(sa);
    return sa;
}

static const struct path *path_of(unsigned host)
{
    static struct path path;
    path = sa_path(sa_of(host));
    return &path;
}

static void sizes_pass(bool fresh)
{
    uint64_t random = 1;
    for (size_t len = 0; len <= 1340; len += len < 40 ? 1 : 109)
        for (unsigned i = 0; i < 4; i++) {
            bool ipv6 = rig.layout.hosts ? rig.layout.ipv6 : i >> 1;
            packet_fill(&random, payload, len);
            size_t n = send_packet(i & 1, packet_spec_udp(ipv6), payload, len);
            rig_run(&rig, 3 * NS_PER_MS);
            expect_packet(!(i & 1), n, fresh);
        }
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_PACKETS), rig_stat(&rig, 1, STAT_IN_PACKETS));
    assert_int_equal(rig_stat(&rig, 1, STAT_OUT_PACKETS), rig_stat(&rig, 0, STAT_IN_PACKETS));
    assert_int_equal(rig_stat(&rig, 1, STAT_OUT_BYTES), rig_stat(&rig, 0, STAT_IN_BYTES));
}

/* TCP superpackets, cut, sealed and merged again. */
static void superpackets_pass(bool ipv6)
{
    static uint8_t sent[200000], got[200000];
    uint64_t random = 2;
    struct packet_spec s = packet_spec_tcp(ipv6);
    size_t total = 0, arrived = 0, n, headers = packet_headers(&s);
    unsigned frames = 0;
    between_hosts(&s, 0);
    for (unsigned i = 0; i < 3; i++) {
        size_t len = 60000 - i * 1111;
        packet_fill(&random, sent + total, len);
        rig_inject(&rig, 0, frame, packet_build_gso(&s, sent + total, len, 1320, frame));
        s.seq += (uint32_t)len;
        total += len;
        rig_run(&rig, 3 * NS_PER_MS);
        while ((n = take(1))) {
            assert_true(n >= TUN_HDR_LEN + headers);
            memcpy(got + arrived, taken + TUN_HDR_LEN + headers, n - TUN_HDR_LEN - headers);
            arrived += n - TUN_HDR_LEN - headers;
            frames++;
        }
    }
    assert_int_equal(arrived, total);
    assert_memory_equal(got, sent, total);
    assert_true(frames < 20);
}

/* -- raw ESP -- */

/* The first kept packet of the wire is protocol 50 from host 0 to host 1; returns where ESP begins. */
static unsigned assert_protocol_50(unsigned i)
{
    const uint8_t *p = rig.wire[i].data;
    bool ipv6 = rig.layout.ipv6;
    assert_int_equal(rig.wire[i].to.port, 0);
    assert_int_equal(p[0] >> 4, ipv6 ? 6 : 4);
    assert_memory_equal(p + (ipv6 ? 8 : 12), address(0), ipv6 ? 16 : 4);
    assert_memory_equal(p + (ipv6 ? 24 : 16), address(1), ipv6 ? 16 : 4);
    unsigned at = ipv6 ? 40 : (p[0] & 15) * 4u, next = ipv6 ? 6 : 9;
    while (ipv6 && (p[next] == 0 || p[next] == 43 || p[next] == 44 || p[next] == 60)) {
        unsigned len = p[next] == 44 ? 8 : (p[at + 1] + 1u) * 8;
        next = at;
        at += len;
    }
    assert_int_equal(p[next], 50);
    assert_true(get_be32(p + at) >= 256);
    return at;
}

static void raw_tunnels_of_every_kind(void **state)
{
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        rig_setup_as(&rig, 1, "encap = raw\n", &(struct rig_layout){.ipv6 = ipv6});
        rig_up(&rig);
        assert_int_equal(path_of(0)->transport, PATH_RAW);
        rig.keep_wire = true;
        send_packet(0, packet_spec_udp(false), (const uint8_t *)RIG_MARKER, strlen(RIG_MARKER));
        rig_run(&rig, 3 * NS_PER_MS);
        (void)take(1);
        assert_int_equal(rig.wire_count, 1);
        (void)assert_protocol_50(0);
        sizes_pass(false);
        superpackets_pass(false);
        superpackets_pass(true);
        assert_int_equal(rig.marker_seen, 0);
        if (!ipv6)
            rig_teardown(&rig);
    }
}

/* What is sent is kept back and goes another way: ESP is taken on either, and nothing moves. */
struct detour {
    struct endpoint from, to;
    size_t len;
    uint8_t data[2048];
};

static bool keep_back(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data,
                      size_t len)
{
    struct detour *d = ctx;
    if (to->port == 500 || len < 8 || (to->port == 4500 && get_be32(data) == 0))
        return true;
    assert_true(len <= sizeof d->data);
    d->from = *from;
    d->to = *to;
    d->len = len;
    memcpy(d->data, data, len);
    return false;
}

static void either_way_is_taken(void **state)
{
    (void)state;
    for (unsigned raw = 0; raw < 2; raw++) {
        struct detour d = {.len = 0};
        uint8_t other[2100] = {0};
        rig_setup(&rig, 3, raw ? "encap = raw\n" : "");
        rig_up(&rig);
        memory_net_tap(rig.net, keep_back, &d);
        struct path before = *path_of(1);
        size_t n = send_packet(0, packet_spec_udp(false), payload, 100);
        rig_run(&rig, 3 * NS_PER_MS);
        assert_int_equal(take(1), 0);
        memory_net_tap(rig.net, NULL, NULL);
        if (raw) {
            struct endpoint from = {d.from.ip, 4500}, to = {d.to.ip, 4500};
            memory_send(rig.net, &from, &to, d.data + 20, d.len - 20);
        } else {
            struct endpoint from = {.ip = d.from.ip}, to = {.ip = d.to.ip};
            other[0] = 0x45;
            other[8] = 64;
            other[9] = 50;
            memcpy(other + 12, d.from.ip.b, 4);
            memcpy(other + 16, d.to.ip.b, 4);
            memcpy(other + 20, d.data, d.len);
            memory_send(rig.net, &from, &to, other, d.len + 20);
        }
        rig_run(&rig, 3 * NS_PER_MS);
        expect_packet(1, n, false);
        rig_run(&rig, NS_PER_S);
        assert_true(path_equal(&before, path_of(1)));
        if (!raw)
            rig_teardown(&rig);
    }
}

static void runts_and_strangers_are_dropped(void **state)
{
    (void)state;
    rig_setup(&rig, 4, "encap = raw\n");
    rig_up(&rig);
    struct endpoint from = {.ip = rig.host[0].at.ip}, to = {.ip = rig.host[1].at.ip};
    uint8_t packet[64] = {0x45, [8] = 64, [9] = 50};
    memcpy(packet + 12, from.ip.b, 4);
    memcpy(packet + 16, to.ip.b, 4);
    for (size_t len = 20; len < 32; len++) {
        put_be16(packet + 2, (uint16_t)len);
        memory_send(rig.net, &from, &to, packet, len);
    }
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_RUNT), 8); /* no whole SPI and sequence number */
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_SPI), 4);
}

/* -- transport mode -- */

static void transport_of_every_kind(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        bool raw = i & 1, ipv6 = i >> 1;
        rig_setup_as(&rig, 10 + i, raw ? "mode = transport-only\nencap = raw\n" : "mode = transport-only\n",
                     &(struct rig_layout){.ipv6 = ipv6, .hosts = true});
        rig_up(&rig);
        assert_int_equal(path_of(0)->transport, raw ? PATH_RAW : PATH_UDP);
        rig.keep_wire = true;
        send_packet(0, packet_spec_udp(ipv6), (const uint8_t *)RIG_MARKER, strlen(RIG_MARKER));
        rig_run(&rig, 3 * NS_PER_MS);
        (void)take(1);
        assert_int_equal(rig.wire_count, 1);
        /* No inner header: a UDP header, the payload, two bytes and what GCM and alignment take. */
        size_t esp = 16 + (8 + strlen(RIG_MARKER) + 2 + 3) / 4 * 4 + 16;
        assert_int_equal(rig.wire[0].len, esp + (raw ? ipv6 ? 40u : 20u : 0));
        if (raw) {
            unsigned at = assert_protocol_50(0), kept = ipv6 ? 7 : 8; /* TTL or hop limit */
            assert_int_equal(at, ipv6 ? 40 : 20);
            assert_int_equal(rig.wire[0].data[kept], 64);
        }
        sizes_pass(!raw);
        superpackets_pass(ipv6);
        assert_int_equal(rig.marker_seen, 0);
        if (i < 3)
            rig_teardown(&rig);
    }
}

/* Inserts bytes behind the IP header of the packet in `frame` and says what they are; returns the packet's new length. */
static size_t insert(size_t len, const uint8_t *bytes, size_t n, uint8_t first)
{
    uint8_t *p = frame + TUN_HDR_LEN;
    bool ipv6 = p[0] >> 4 == 6;
    size_t header = ipv6 ? 40 : 20;
    memmove(p + header + n, p + header, len - header);
    memcpy(p + header, bytes, n);
    if (ipv6) {
        put_be16(p + 4, (uint16_t)(len + n - 40));
        p[6] = first;
    } else {
        p[0] = (uint8_t)(0x40 | (20 + n) / 4);
        put_be16(p + 2, (uint16_t)(len + n));
        put_be16(p + 10, 0);
        put_be16(p + 10, (uint16_t)~packet_naive_sum(0, p, 20 + n));
    }
    return len + n;
}

/* One UDP packet with these extension headers or options from host 0. Returns its length. */
static size_t send_inserted(const uint8_t *bytes, size_t n, uint8_t first)
{
    struct packet_spec s = packet_spec_udp(rig.layout.ipv6);
    memset(frame, 0, TUN_HDR_LEN);
    between_hosts(&s, 0);
    size_t len =
        insert(packet_build(&s, (const uint8_t *)RIG_MARKER, strlen(RIG_MARKER), frame + TUN_HDR_LEN), bytes, n, first);
    rig_inject(&rig, 0, frame, TUN_HDR_LEN + len);
    rig_run(&rig, 3 * NS_PER_MS);
    return len;
}

/* Hop-by-hop options, destination options, a routing header of no more segments, destination options, UDP. */
#define HOP_BY_HOP(next) next, 0, 1, 4, 0, 0, 0, 0
#define FOR_DESTINATION(next, mark) next, 0, 0x1e, 4, mark, mark, mark, mark
#define ROUTING(next) next, 0, 253, 0, 0, 0, 0, 0
#define ATOMIC_FRAGMENT(next) next, 0, 0, 0, 1, 2, 3, 4

/* RFC 4303 section 3.1.1: what is for the way stays before ESP, what is for the destination alone goes behind. */
static void extension_headers_stay_on_their_side(void **state)
{
    static const uint8_t hop[] = {HOP_BY_HOP(17)}, last[] = {FOR_DESTINATION(17, 0xaa)},
                         both[] = {HOP_BY_HOP(60), FOR_DESTINATION(17, 0xaa)},
                         all[] = {HOP_BY_HOP(60), FOR_DESTINATION(43, 0xbb), ROUTING(60), FOR_DESTINATION(17, 0xaa)};
    static const uint8_t atomic[] = {HOP_BY_HOP(44), ATOMIC_FRAGMENT(17)};
    static const uint8_t longest[800] = {17, 99, 0x1e, 253, [257] = 0x1e, 253, [512] = 0x1e, 253, [767] = 0x1e, 31};
    static const struct {
        const uint8_t *bytes;
        size_t n;
        uint8_t first;
        unsigned before; /* bytes of them before ESP */
    } cases[] = {{hop, sizeof hop, 0, 8},   {longest, sizeof longest, 60, 0}, {last, sizeof last, 60, 0},
                 {both, sizeof both, 0, 8}, {all, sizeof all, 0, 24},         {atomic, sizeof atomic, 0, 16}};
    (void)state;
    rig_setup_as(&rig, 20, "mode = transport-only\nencap = raw\n", &(struct rig_layout){.ipv6 = true, .hosts = true});
    rig_up(&rig);
    rig.keep_wire = true;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        rig.wire_count = 0;
        size_t len = send_inserted(cases[i].bytes, cases[i].n, cases[i].first);
        assert_int_equal(rig.wire_count, 1);
        assert_int_equal(assert_protocol_50(0), 40 + cases[i].before);
        assert_null(memmem(rig.wire[0].data, rig.wire[0].len, "\xaa\xaa\xaa\xaa", 4));
        assert_int_equal(take(1), TUN_HDR_LEN + len);
        assert_memory_equal(taken, frame, TUN_HDR_LEN + len);
    }
    assert_int_equal(rig.marker_seen, 0);
}

static void ipv4_options_stay_before_esp(void **state)
{
    static const uint8_t options[] = {7, 7, 4, 0, 0, 0, 0, 1}; /* record route, no operation */
    (void)state;
    rig_setup_as(&rig, 21, "mode = transport-only\nencap = raw\n", &(struct rig_layout){.hosts = true});
    rig_up(&rig);
    rig.keep_wire = true;
    size_t len = send_inserted(options, sizeof options, 0);
    assert_int_equal(rig.wire_count, 1);
    assert_int_equal(assert_protocol_50(0), 28);
    assert_memory_equal(rig.wire[0].data + 20, options, sizeof options);
    assert_int_equal(take(1), TUN_HDR_LEN + len);
    assert_memory_equal(taken, frame, TUN_HDR_LEN + len);
}

static void what_transport_mode_cannot_carry_is_counted(void **state)
{
    static const uint8_t hop[] = {HOP_BY_HOP(17)}, options[] = {1, 1, 1, 1};
    static const uint8_t atomic[] = {ATOMIC_FRAGMENT(17)};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        bool raw = i & 1, ipv6 = i >> 1;
        rig_setup_as(&rig, 22, raw ? "mode = transport-only\nencap = raw\n" : "mode = transport-only\n",
                     &(struct rig_layout){.ipv6 = ipv6, .hosts = true});
        rig_up(&rig);
        if (ipv6) {
            (void)send_inserted(hop, sizeof hop, 0);
            (void)send_inserted(atomic, sizeof atomic, 44);
        } else {
            (void)send_inserted(options, sizeof options, 0);
        }
        assert_int_equal(take(1) != 0, raw);
        assert_int_equal(take(1) != 0, raw && ipv6);
        assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_TRANSPORT), raw ? 0 : 1 + ipv6);
        if (i < 3)
            rig_teardown(&rig);
    }
}

/* Addresses on the wire are nobody's word: with others the packet is not taken for traffic of the SA. */
static void readdressed_packets_are_dropped(void **state)
{
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        struct detour d = {.len = 0};
        rig_setup_as(&rig, 23, "mode = transport-only\nencap = raw\n",
                     &(struct rig_layout){.ipv6 = ipv6, .hosts = true});
        rig_up(&rig);
        memory_net_tap(rig.net, keep_back, &d);
        send_packet(0, packet_spec_udp(ipv6), payload, 100);
        rig_run(&rig, 3 * NS_PER_MS);
        memory_net_tap(rig.net, NULL, NULL);
        d.data[ipv6 ? 23 : 15] ^= 0x40; /* the source */
        d.from.ip.b[ipv6 ? 15 : 3] ^= 0x40;
        memory_send(rig.net, &d.from, &d.to, d.data, d.len);
        rig_run(&rig, 3 * NS_PER_MS);
        assert_int_equal(take(1), 0);
        assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_SELECTOR), 1);
        if (!ipv6)
            rig_teardown(&rig);
    }
}

/* RFC 3948 section 3.1.2: each end sees the other under the address that it has there, and sums that are right. */
static void checksums_survive_a_nat(void **state)
{
    static const uint8_t outer[] = {203, 0, 113, 7};
    (void)state;
    rig_setup_as(&rig, 24, "mode = transport-only\nencap = raw\n", &(struct rig_layout){.hosts = true, .nat = true});
    rig_up(&rig);
    assert_int_equal(path_of(0)->transport, PATH_UDP); /* there is a NAT */
    for (unsigned i = 0; i < 8; i++) {
        struct packet_spec s = i & 1 ? packet_spec_udp(false) : packet_spec_tcp(false);
        bool back = i >> 1 & 1, none = i >= 4;
        s.from = back ? address(1) : address(0);
        s.to = back ? outer : address(1);
        memset(frame, 0, TUN_HDR_LEN);
        size_t len = packet_build(&s, payload, 100 + i, frame + TUN_HDR_LEN);
        if (none && s.udp) /* a UDP checksum of zero is none, and stays so */
            put_be16(frame + TUN_HDR_LEN + 26, 0);
        else if (none)
            frame[TUN_HDR_LEN + 36] ^= 0x55; /* a wrong one stays wrong */
        rig_inject(&rig, back, frame, TUN_HDR_LEN + len);
        rig_run(&rig, 3 * NS_PER_MS);
        assert_int_equal(take(!back), TUN_HDR_LEN + len);
        const uint8_t *got = taken + TUN_HDR_LEN;
        assert_memory_equal(got + 12, back ? address(1) : outer, 4);
        assert_memory_equal(got + 16, back ? address(0) : address(1), 4);
        assert_int_equal(packet_sound(got, len), !none);
        if (none && s.udp)
            assert_int_equal(get_be16(got + 26), 0);
        assert_memory_equal(got + packet_headers(&s), payload, 100 + i);
    }
}

/* Fragments would be no use to it: what the path has no room for is for routers to fragment, which DF = 0 lets them. */
static void transport_mode_never_cuts(void **state)
{
    (void)state;
    rig_setup_as(&rig, 26, "mode = transport-only\ndf = set\nfragment = before\n", &(struct rig_layout){.hosts = true});
    rig_up(&rig);
    atomic_store(&sa_of(0)->inner_max, 600);
    struct packet_spec s = packet_spec_udp(false);
    s.fragment = 0;
    size_t len = send_packet(0, s, payload, 1000);
    rig_run(&rig, 3 * NS_PER_MS);
    expect_packet(1, len, true);
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_PACKETS), 1);
    s.fragment = 0x4000;
    (void)send_packet(0, s, payload, 1000);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(take(1), 0);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_TOO_BIG), 1);
}

/* Between a move to the other IP version and the Child SA that follows, packets are of one and the path of another. */
static void a_path_of_another_family_carries_nothing(void **state)
{
    static const char *const ways[] = {"ah = sha384\n", "encap = raw\n", ""};
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        char extra[64];
        snprintf(extra, sizeof extra, "mode = transport-only\n%s", ways[i]);
        rig_setup_as(&rig, 27 + i, extra, &(struct rig_layout){.hosts = true});
        rig_up(&rig);
        struct path path = *path_of(0);
        path.local.ip = (struct ip){.family = 6, .b = {0x20, 1, 0x0d, 0xb8, [15] = 1}};
        path.remote.ip = (struct ip){.family = 6, .b = {0x20, 1, 0x0d, 0xb8, [15] = 2}};
        sa_move(sa_of(0), &path);
        (void)send_packet(0, packet_spec_udp(false), payload, 100);
        rig_run(&rig, 3 * NS_PER_MS);
        assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_TRANSPORT), 1);
        assert_int_equal(rig_stat(&rig, 0, STAT_OUT_PACKETS), 0);
        if (i < 2)
            rig_teardown(&rig);
    }
}

/* -- datagrams that the host has fragmented -- */

#define PIECES_MAX 64

/* One of host 0's, as its kernel cuts it up for the TUN; in `frame` it stands whole. */
struct pieces {
    size_t len;
    unsigned n;
    uint8_t b[PIECES_MAX][TUN_HDR_LEN + RIG_MTU];
    uint32_t size[PIECES_MAX];
};
static struct pieces pieces, others;

static void fragments_of(struct pieces *p, size_t len, uint16_t id)
{
    bool ipv6 = rig.layout.ipv6;
    struct packet_spec s = packet_spec_udp(ipv6);
    struct cut c;
    uint64_t random = id;
    s.id = id;
    s.fragment = 0;
    between_hosts(&s, 0);
    packet_fill(&random, payload, len);
    memset(frame, 0, TUN_HDR_LEN);
    p->len = packet_build(&s, payload, len, frame + TUN_HDR_LEN);
    struct span whole = span_of(frame + TUN_HDR_LEN, p->len);
    const struct ip_insertion at = {40, 6};
    assert_int_equal(ipv6 ? cut_begin_ipv6(&c, whole, &at, RIG_MTU, id) : cut_begin(&c, whole, RIG_MTU), OK);
    for (p->n = 0; (p->size[p->n] = cut_size(&c)) != 0; p->n++) {
        assert_true(p->n + 1 < PIECES_MAX);
        memset(p->b[p->n], 0, TUN_HDR_LEN);
        cut_next(&c, p->b[p->n] + TUN_HDR_LEN);
    }
}

static void inject(const struct pieces *p, unsigned i)
{
    rig_inject(&rig, 0, p->b[i], TUN_HDR_LEN + p->size[i]);
}

struct longest {
    size_t len;
    unsigned n;
};

static bool measure(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data, size_t len)
{
    struct longest *l = ctx;
    (void)from;
    if (to->port && !(len > 4 && get_be32(data))) /* IKE: long ones make it probe the path */
        return true;
    l->len = len > l->len ? len : l->len;
    l->n++;
    return true;
}

/* As ESP in UDP, as ESP and as AH, over both IP versions. */
static void setup_transport(unsigned kind, const char *more)
{
    static const char *const how[] = {"", "encap = raw\n", "ah = default\n"};
    char extra[256];
    (void)snprintf(extra, sizeof extra, "mode = transport-only\n%s%s", how[kind / 2], more);
    rig_setup_as(&rig, 30 + kind, extra, &(struct rig_layout){.ipv6 = kind & 1, .hosts = true});
    rig_up(&rig);
}

/* RFC 4303 section 3.1.1: sealed whole; and RFC 791, 8200: in whatever order they come. */
static void fragmented_datagrams_pass_whole(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 6; kind++) {
        setup_transport(kind, "");
        for (unsigned i = 0; i < 12; i++) {
            struct longest l = {0};
            fragments_of(&pieces, i == 0 ? 65000 : 1500 + i * 3000, (uint16_t)(i ? i : 0));
            memory_net_tap(rig.net, measure, &l);
            for (unsigned k = 0; k < pieces.n; k++)
                inject(&pieces, i & 1 ? pieces.n - 1 - k : k);
            rig_run(&rig, 3 * NS_PER_MS);
            memory_net_tap(rig.net, NULL, NULL);
            expect_packet(1, pieces.len, kind < 2 || i == 0); /* an Identification of 0 is made another one */
            assert_int_equal(rig_stat(&rig, 0, STAT_OUT_PACKETS), i + 1);
            assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), i + 1);
            if (kind == 0) { /* the kernel's part */
                assert_int_equal(l.n, 1);
                continue;
            }
            assert_true(l.n > 1 && l.n <= pieces.n + 1);
            assert_true(l.len <= 1500 && l.len > RIG_MTU);
        }
        assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_REASSEMBLY), 0);
        assert_int_equal(rig_stat(&rig, 0, STAT_OUT_BYTES), rig_stat(&rig, 1, STAT_IN_BYTES));
        if (kind < 5)
            rig_teardown(&rig);
    }
}

/* More fragments than packets are held: of what asked for the SA all have to wait for it. */
static void the_first_datagram_waits_whole_for_its_sa(void **state)
{
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        rig_setup_as(&rig, 28, "mode = transport-only\nstart = on-demand\nhold = 1\n",
                     &(struct rig_layout){.ipv6 = ipv6, .hosts = true});
        fragments_of(&pieces, 65000, 7);
        assert_true(pieces.n > 45);
        for (unsigned k = 0; k < pieces.n; k++)
            inject(&pieces, k);
        rig_run(&rig, 200 * NS_PER_MS);
        expect_packet(1, pieces.len, true);
        assert_int_equal(rig_stat(&rig, 0, STAT_OUT_HELD), pieces.n);
        assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_HOLD_FULL), 0);
        if (!ipv6)
            rig_teardown(&rig);
    }
}

/* The way takes less by now: so do the fragments. */
static void outer_fragments_fit_the_path(void **state)
{
    (void)state;
    for (unsigned kind = 1; kind < 6; kind++) {
        struct longest l = {0};
        setup_transport(kind, "");
        atomic_store(&sa_of(0)->datagram_max, 900);
        fragments_of(&pieces, 20000, 5);
        memory_net_tap(rig.net, measure, &l);
        for (unsigned k = 0; k < pieces.n; k++)
            inject(&pieces, k);
        rig_run(&rig, 3 * NS_PER_MS);
        memory_net_tap(rig.net, NULL, NULL);
        expect_packet(1, pieces.len, kind == 1);
        assert_true(l.len > 880 && l.len <= 900);
        if (kind < 5)
            rig_teardown(&rig);
    }
}

static void datagrams_may_be_mixed_with_others(void **state)
{
    (void)state;
    setup_transport(0, "");
    fragments_of(&others, 9000, 1);
    fragments_of(&pieces, 9000, 2);
    struct packet_spec s = packet_spec_udp(false);
    assert_int_equal(others.n, pieces.n);
    for (unsigned k = 0; k + 1 < pieces.n; k++) {
        inject(&others, k);
        inject(&pieces, k);
        size_t n = send_packet(0, s, payload, 100);
        rig_run(&rig, 3 * NS_PER_MS);
        expect_packet(1, n, true);
    }
    for (unsigned k = 0; k < 2; k++) {
        inject(k ? &pieces : &others, pieces.n - 1);
        fragments_of(k ? &pieces : &others, 9000, (uint16_t)(1 + k));
        rig_run(&rig, 3 * NS_PER_MS);
        expect_packet(1, pieces.len, true);
    }
    assert_int_equal(take(1), 0);
}

static void what_does_not_become_whole_is_dropped(void **state)
{
    (void)state;
    setup_transport(0, "");
    fragments_of(&pieces, 9000, 1);
    for (unsigned k = 0; k < pieces.n; k++)
        if (k != 2)
            inject(&pieces, k);
    rig_run(&rig, REASSEMBLY_TIME - NS_PER_S);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_REASSEMBLY), 0);
    rig_run(&rig, 2 * NS_PER_S);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_REASSEMBLY), pieces.n - 1);
    inject(&pieces, 2); /* too late */
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(take(1), 0);
    /* Overlaps (RFC 5722). */
    fragments_of(&pieces, 9000, 2);
    inject(&pieces, 0);
    pieces.b[1][TUN_HDR_LEN + 100] ^= 1;
    inject(&pieces, 1);
    pieces.b[1][TUN_HDR_LEN + 100] ^= 1;
    for (unsigned k = 1; k < pieces.n; k++)
        inject(&pieces, k);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(take(1), 0);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_REASSEMBLY), pieces.n - 1 + pieces.n + 1);
}

/*
 * An IP packet has 65535 bytes, of which AH covers all, but not more than TRANSFORM_MAC_MAX. GCM: SPI, sequence number and IV, the trailer, the tag, to a multiple of four, behind the
 * IP header (which IPv6's length leaves out) and in UDP behind that header.
 */
static void what_has_no_room_for_esp_is_dropped(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 6; kind++) {
        bool udp = kind < 2, ipv6 = kind & 1;
        size_t room = 65535 - (ipv6 ? 0u : 20u) - (udp ? 8u : 0u), most = (room - 16 - 16) / 4 * 4 - 2 - 8;
        setup_transport(kind, "");
        if (kind >= 4)
            most = TRANSFORM_MAC_MAX - AH_SCRATCH - (ipv6 ? 40u : 20u) - sa_headroom(sa_of(0), ipv6 ? 6 : 4) - 8;
        for (unsigned over = 0; over < 2; over++) {
            fragments_of(&pieces, most + over, (uint16_t)(1 + over));
            for (unsigned k = 0; k < pieces.n; k++)
                inject(&pieces, k);
            rig_run(&rig, 3 * NS_PER_MS);
            assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_TOO_BIG), over);
            if (!over)
                expect_packet(1, pieces.len, udp);
            assert_int_equal(take(1), 0);
        }
        if (kind < 5)
            rig_teardown(&rig);
    }
}

static void cut_off(void *ctx, const struct endpoint *from, const struct endpoint *to, struct memory_header *header)
{
    (void)ctx;
    (void)from;
    (void)to;
    header->cut = true;
}

/* Of a header that is known in part another one would be made, and of a datagram another end. */
static void what_the_kernel_tells_in_part_is_dropped(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 6; kind++) {
        setup_transport(kind, "");
        memory_net_router(rig.net, cut_off, NULL);
        (void)send_packet(0, packet_spec_udp(kind & 1), payload, 100);
        rig_run(&rig, 3 * NS_PER_MS);
        assert_int_equal(take(1), 0);
        assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_CUT), 1);
        if (kind < 5)
            rig_teardown(&rig);
    }
}

/* -- the hop limit in UDP -- */

/* A router: the lowest that may come to it is 2. */
static void note_ttl(void *ctx, const struct endpoint *from, const struct endpoint *to, struct memory_header *header)
{
    (void)from;
    (void)to;
    *(unsigned *)ctx = header->ttl;
    if (header->ttl)
        header->ttl--;
}

/* The packet's own header is the outer one, also where the kernel makes it; and what routers take off is gone. */
static void the_ttl_is_the_packets_own(void **state)
{
    static const uint8_t ttls[] = {64, 2, 7, 255, 64};
    (void)state;
    for (unsigned ipv6 = 0; ipv6 < 2; ipv6++) {
        unsigned seen = 99;
        setup_transport(ipv6, "");
        memory_net_router(rig.net, note_ttl, &seen);
        for (unsigned i = 0; i < sizeof ttls; i++) {
            struct packet_spec s = packet_spec_udp(ipv6);
            s.ttl = ttls[i];
            (void)send_packet(0, s, payload, 100);
            rig_run(&rig, 3 * NS_PER_MS);
            assert_int_equal(seen, ttls[i] == 64 ? 0 : ttls[i]); /* 0: the kernel's own, which is that */
            assert_true(take(1) > TUN_HDR_LEN + 40);
            assert_int_equal(taken[TUN_HDR_LEN + (ipv6 ? 7 : 8)], ttls[i] == 64 ? 64 : ttls[i] - 1);
        }
        if (!ipv6)
            rig_teardown(&rig);
    }
}

/* A superpacket's segments have one length, so in UDP they leave in few calls, in transport mode too. */
static void batches_stay_contiguous(void **state)
{
    (void)state;
    rig_setup_as(&rig, 25, "mode = transport-only\n", &(struct rig_layout){.hosts = true});
    rig_up(&rig);
    superpackets_pass(false);
    assert_true(rig_stat(&rig, 0, STAT_TX_DATAGRAMS) > 100);
    assert_true(rig_stat(&rig, 0, STAT_TX_CALLS) < 12);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, teardown)
    const struct CMUnitTest tests[] = {
        TEST(raw_tunnels_of_every_kind),
        TEST(either_way_is_taken),
        TEST(runts_and_strangers_are_dropped),
        TEST(transport_of_every_kind),
        TEST(extension_headers_stay_on_their_side),
        TEST(ipv4_options_stay_before_esp),
        TEST(what_transport_mode_cannot_carry_is_counted),
        TEST(readdressed_packets_are_dropped),
        TEST(checksums_survive_a_nat),
        TEST(transport_mode_never_cuts),
        TEST(a_path_of_another_family_carries_nothing),
        TEST(fragmented_datagrams_pass_whole),
        TEST(the_first_datagram_waits_whole_for_its_sa),
        TEST(outer_fragments_fit_the_path),
        TEST(datagrams_may_be_mixed_with_others),
        TEST(what_does_not_become_whole_is_dropped),
        TEST(what_has_no_room_for_esp_is_dropped),
        TEST(what_the_kernel_tells_in_part_is_dropped),
        TEST(the_ttl_is_the_packets_own),
        TEST(batches_stay_contiguous),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
