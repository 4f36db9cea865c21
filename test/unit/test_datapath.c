/*
 * What RFC 4301 and 4303 demand of the data plane, shown on whole tunnels: engine, data plane and worker over a TUN and a
 * wire in memory. Peers misbehave with the right keys, too: packets are sealed with those of a running SA.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "esp/esp.h"
#include "test/unit/packets.h"
#include "test/unit/rig.h"
#include "tun/offload.h"

static struct rig rig;
static uint8_t taken[66000];
static const uint8_t payload[1400] = "what is inside";

static int teardown(void **state)
{
    (void)state;
    rig_teardown(&rig);
    return 0;
}

/* Where the packets of that outbound SA arrive. */
static struct sa *in_sa(unsigned host)
{
    struct sa *sa = sad_find_in(rig.host[host].shared.sad, rig_out_sa(&rig, !host)->params.spi);
    assert_non_null(sa);
    return sa;
}

/* An inner packet from the first host's network to the second's. */
static uint32_t inner_packet(uint8_t *out, bool ipv6, uint32_t len)
{
    struct packet_spec s = packet_spec_udp(ipv6);
    return (uint32_t)packet_build(&s, payload, len - (ipv6 ? 48 : 28), out);
}

static void wire_in(const uint8_t *data, size_t len)
{
    struct endpoint from = rig.host[0].at, to = rig.host[1].at;
    from.port = to.port = 4500;
    memory_send(rig.net, &from, &to, data, len);
}

/*
 * A packet of host 0's SA with any plaintext, padding and trailer included; its number is the SA's next. For suites with
 * AAD of 8 bytes and an IV that counts.
 */
static void wire_in_sealed(const uint8_t *text, uint32_t len)
{
    struct sa *sa = rig_out_sa(&rig, 0);
    uint8_t packet[2048];
    uint64_t seq = ++sa->seq;
    assert_true(sa->params.suite.aead && !sa->params.esn && sa->params.suite.iv_len == 8);
    put_be32(packet, sa->params.spi);
    put_be32(packet + 4, (uint32_t)seq);
    put_be64(packet + 8, seq);
    memcpy(packet + 16, text, len);
    struct transform_op op = {.aad = packet,
                              .aad_len = 8,
                              .iv = packet + 8,
                              .src = packet + 16,
                              .dst = packet + 16,
                              .icv = packet + 16 + len,
                              .len = len};
    assert_int_equal(keyed_seal(sa->keyed, &op, 1), OK);
    wire_in(packet, 16 + len + sa->params.suite.icv_len);
}

/* The same with a right trailer behind an inner packet, or what is taken for one. */
static void wire_in_inner(const uint8_t *inner, uint32_t len, uint8_t next_header)
{
    uint8_t text[2048], pad = 0;
    memcpy(text, inner, len);
    while ((len + 2) % 4) {
        text[len++] = ++pad;
    }
    text[len++] = pad;
    text[len++] = next_header;
    wire_in_sealed(text, len);
}

/* Totals at a host once all is still: how often something was dropped, and packets delivered. */
static void expect_totals(unsigned host, enum stat_id drop, uint64_t dropped, uint64_t delivered)
{
    rig_run(&rig, 5 * NS_PER_MS);
    uint64_t got = rig_stat(&rig, host, drop), in = rig_stat(&rig, host, STAT_IN_PACKETS);
    if (got != dropped || in != delivered)
        fail_msg("host %u: %s %llu of %llu, delivered %llu of %llu", host, stat_name(drop), (unsigned long long)got,
                 (unsigned long long)dropped, (unsigned long long)in, (unsigned long long)delivered);
}

/* The next packet at a host's TUN; its length, 0 for none. */
static size_t take(unsigned host)
{
    size_t n = memory_tun_take(rig.net, rig.host[host].tun, taken, sizeof taken);
    memmove(taken, taken + TUN_HDR_LEN, n ? n - TUN_HDR_LEN : 0);
    return n ? n - TUN_HDR_LEN : 0;
}

/* -- the SPD -- */

/* A UDP packet from behind host 0 to any IPv4 address. */
static void send_to(const char *address)
{
    uint8_t frame[200] = {0};
    struct ip to;
    uint32_t len = inner_packet(frame + TUN_HDR_LEN, false, 60);
    assert_int_equal(ip_parse(address, &to), OK);
    memcpy(frame + TUN_HDR_LEN + 16, to.b, 4);
    rig_inject(&rig, 0, frame, TUN_HDR_LEN + len);
    rig_run(&rig, 3 * NS_PER_MS);
}

static void policy_of(struct policy *p, const char *local, const char *remote)
{
    *p = (struct policy){.action = ACTION_DISCARD};
    assert_int_equal(selectors_parse(local, &p->local, NULL, 0), OK);
    assert_int_equal(selectors_parse(remote, &p->remote, NULL, 0), OK);
}

static void order_decides_where_policies_overlap_or_touch(void **state)
{
    (void)state;
    rig_setup(&rig, 1, "");
    rig_up(&rig);
    struct rig_host *h = &rig.host[0];
    struct spd *mine, *configured = atomic_load(&h->shared.spd);
    struct policy before, beside, behind;
    policy_of(&before, "10.0.0.0/8", "10.2.0.128/25"); /* takes half of the tunnel's */
    policy_of(&beside, "10.1.0.0/24", "10.2.1.0/24");  /* begins where it ends */
    policy_of(&behind, "0.0.0.0/0", "10.0.0.0/14");    /* contains it, but comes later */
    const struct spd_entry entries[] = {{.policy = &before, .id = 7},
                                        *spd_at(configured, 0),
                                        {.policy = &beside, .id = 8},
                                        {.policy = &behind, .id = 9}};
    assert_int_equal(spd_new(&mine, entries, 4), OK);
    atomic_store(&h->shared.spd, mine);
    static const struct {
        const char *to;
        bool passes, matches;
    } cases[] = {
        {"10.2.0.0", true, true},      {"10.2.0.127", true, true}, {"10.2.0.128", false, true},
        {"10.2.0.255", false, true},   {"10.2.1.0", false, true},  {"10.3.0.1", false, true},
        {"10.1.255.255", false, true}, {"10.4.0.0", false, false}, {"11.0.0.1", false, false},
    };
    uint64_t passed = 0, discarded = 0, none = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        send_to(cases[i].to);
        passed += cases[i].passes;
        discarded += !cases[i].passes && cases[i].matches;
        none += !cases[i].matches;
        assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_DISCARD), discarded);
        assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_POLICY), none);
        assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), passed);
    }
    atomic_store(&h->shared.spd, configured);
    rig_run(&rig, NS_PER_MS);
    spd_free(mine);
}

/* A frame of host 0 with that protocol and the bytes behind the header. */
static void send_protocol(uint8_t protocol, uint16_t fragment, const uint8_t *bytes, size_t len)
{
    uint8_t frame[200] = {0}, *ip = frame + TUN_HDR_LEN;
    inner_packet(ip, false, 60);
    put_be16(ip + 6, fragment);
    ip[9] = protocol;
    put_be16(ip + 10, 0);
    put_be16(ip + 10, (uint16_t)~packet_naive_sum(0, ip, 20));
    memcpy(ip + 20, bytes, len);
    rig_inject(&rig, 0, frame, TUN_HDR_LEN + 60);
    rig_run(&rig, NS_PER_MS);
}

/* Whether the SPD of host 0, made of one discard policy, matches such a packet. */
static void expect_match(const char *suffix, bool want, uint8_t protocol, uint16_t fragment, const uint8_t *bytes)
{
    struct rig_host *h = &rig.host[0];
    char local[64];
    struct policy p;
    struct spd *mine, *configured = atomic_load(&h->shared.spd);
    snprintf(local, sizeof local, "10.1.0.0/24%s", suffix);
    policy_of(&p, local, "10.2.0.0/24");
    assert_int_equal(spd_new(&mine, &(struct spd_entry){.policy = &p, .id = 7}, 1), OK);
    atomic_store(&h->shared.spd, mine);
    uint64_t before = rig_stat(&rig, 0, STAT_DROP_OUT_DISCARD);
    send_protocol(protocol, fragment, bytes, 4);
    atomic_store(&h->shared.spd, configured);
    rig_run(&rig, NS_PER_MS);
    spd_free(mine);
    if (rig_stat(&rig, 0, STAT_DROP_OUT_DISCARD) - before != want)
        fail_msg("%s, protocol %u, fragment %#x: not as wanted", suffix, protocol, fragment);
}

#define NOT_FIRST 100 /* a fragment's offset, in units of 8 bytes */

static void any_takes_what_opaque_leaves_out(void **state)
{
    (void)state;
    rig_setup(&rig, 2, "");
    static const uint8_t ports[4] = {0, 53, 0, 53};
    expect_match("", true, 17, 0, ports);
    expect_match("", true, 17, NOT_FIRST, ports);
    expect_match("[udp]", true, 17, 0, ports);
    expect_match("[udp]", true, 17, NOT_FIRST, ports); /* ANY includes OPAQUE */
    expect_match("[udp/53]", true, 17, 0, ports);
    expect_match("[udp/53]", false, 17, NOT_FIRST, ports); /* what looks like a port there is payload */
    expect_match("[udp/opaque]", false, 17, 0, ports);
    expect_match("[udp/opaque]", true, 17, NOT_FIRST, ports);
    expect_match("[tcp]", false, 17, 0, ports);
}

static void icmp_is_chosen_by_type_and_code(void **state)
{
    (void)state;
    rig_setup(&rig, 3, "");
    static const uint8_t echo[4] = {8, 0}, reply[4] = {0, 0}, unreachable[4] = {3, 3}, too_big[4] = {3, 4};
    expect_match("[icmp]", true, 1, 0, echo);
    expect_match("[icmp/8]", true, 1, 0, echo);
    expect_match("[icmp/8]", false, 1, 0, reply);
    expect_match("[icmp/3]", true, 1, 0, unreachable);
    expect_match("[icmp/3(4)]", false, 1, 0, unreachable);
    expect_match("[icmp/3(4)]", true, 1, 0, too_big);
    expect_match("[icmp/3(0-3)]", false, 1, 0, too_big);
    expect_match("[icmp/8]", false, 17, 0, echo);
}

static void policies_come_go_and_come_again_under_traffic(void **state)
{
    (void)state;
    static const char *const more = "[policy no]\naction = discard\nlocal = 10.1.0.0/24\nremote = 10.3.0.0/24\n";
    rig_setup(&rig, 4, "");
    rig_up(&rig);
    struct sa *sa = rig_out_sa(&rig, 0);
    uint64_t discarded = 0, none = 0;
    for (unsigned i = 0; i < 6; i++) {
        rig_reload(&rig, 0, i & 1 ? more : "");
        send_to("10.3.0.1");
        discarded += i & 1;
        none += !(i & 1);
        rig_send_udp(&rig, 0, i & 2, payload, 100);
        rig_send_udp(&rig, 1, i & 2, payload, 100);
        expect_totals(1, STAT_DROP_IN_SPI, 0, i + 1);
        expect_totals(0, STAT_DROP_IN_SPI, 0, i + 1);
        assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_DISCARD), discarded);
        assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_POLICY), none);
        assert_ptr_equal(rig_out_sa(&rig, 0), sa); /* whom it doesn't concern */
    }
    assert_int_equal(rig.host[0].down, 0);

    rig_reload(&rig, 0, "lifetime = 2h\n");     /* the tunnel's own policy goes and another comes */
    rig_send_udp(&rig, 1, false, payload, 100); /* on the SA of the one before, which is not deleted yet */
    rig_run(&rig, 50 * NS_PER_MS);
    assert_int_equal(rig.host[0].down, 1);
    assert_int_equal(rig.host[1].down, 1);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_IN_SELECTOR), 1);
    rig_send_udp(&rig, 0, false, payload, 100);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_SA) + rig_stat(&rig, 0, STAT_OUT_HELD), 1);
    rig.host[0].up = rig.host[1].up = 0;
    rig_up(&rig);
    uint64_t in = rig_stat(&rig, 1, STAT_IN_PACKETS);
    rig_send_udp(&rig, 0, false, payload, 100);
    expect_totals(1, STAT_DROP_IN_SPI, 0, in + 1);
}

/*
 * From the moment of the switch on no packet takes an SA that was made for the policy as it was before, though that has
 * yet to be deleted; one of a policy that is the same goes on.
 */
static void an_sa_of_another_version_carries_nothing(void **state)
{
    (void)state;
    rig_setup(&rig, 5, "");
    rig_up(&rig);
    struct config *old = rig_switch(&rig, 0, "");
    rig_send_udp(&rig, 0, false, payload, 100);
    expect_totals(1, STAT_DROP_IN_SPI, 0, 1);
    rig_settle(&rig, 0, old);

    old = rig_switch(&rig, 0, "lifetime = 2h\n");
    assert_non_null(rig_out_sa(&rig, 0));
    rig_send_udp(&rig, 0, false, payload, 100);
    rig_run(&rig, 3 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_NO_SA) + rig_stat(&rig, 0, STAT_OUT_HELD), 1);
    expect_totals(1, STAT_DROP_IN_SPI, 0, 1);
    rig_settle(&rig, 0, old);
    assert_null(sad_find_out(rig.host[0].shared.sad, 0, 0));
}

static unsigned ike_seen, ike_sealed;
static bool count_ike(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data,
                      size_t len)
{
    (void)ctx;
    (void)from;
    ike_seen += to->port == 4500 && len > 32 && get_be32(data) == 0;
    ike_sealed += to->port == 4500 && len > 32 && get_be32(data) != 0;
    return true;
}

/* Section 5.2: a policy for all addresses, those of the ends included, leaves IKE alone in both directions. */
static void ike_passes_beside_a_policy_that_covers_it(void **state)
{
    (void)state;
    static const char *const all = "[policy all]\npeer = other\nlocal = 0.0.0.0/0\nremote = 0.0.0.0/0\n";
    rig_setup(&rig, 24, all);
    rig_up(&rig);
    rig_run(&rig, NS_PER_S);
    assert_int_equal(rig.host[0].up, 2);
    ike_seen = ike_sealed = 0;
    memory_net_tap(rig.net, count_ike, NULL);
    for (unsigned i = 0; i < 4; i++) {
        struct rig_host *h = &rig.host[i & 1];
        ike_rekey(h->engine, h->config->peers[0], i & 2 ? h->config->policies[1] : NULL, i + 1, rig.now);
        rig_run(&rig, NS_PER_S);
    }
    assert_true(ike_seen >= 16);
    assert_int_equal(ike_sealed, 0);
    assert_int_equal(rig.host[0].rekeyed, 2);
    assert_int_equal(take(0) + take(1), 0);
    send_to("192.0.2.2"); /* any other traffic between the ends is protected */
    assert_int_equal(ike_sealed, 1);
    expect_totals(1, STAT_DROP_IN_SELECTOR, 0, 1);
}

/* -- SAs -- */

static void what_the_peer_may_not_send_stays_out(void **state)
{
    (void)state;
    rig_setup(&rig, 5, "esp = aes256gcm16-noesn\n");
    rig_up(&rig);
    static const struct {
        unsigned at;
        uint8_t byte;
        bool ipv6, passes;
    } cases[] = {
        {13, 1, false, true},  {13, 9, false, false}, /* from 10.9.0.x */
        {17, 2, false, true},  {17, 1, false, false}, /* to 10.1.0.1: back where it comes from */
        {18, 1, false, false},                        /* to 10.2.1.1 */
        {11, 1, true, true},   {11, 3, true, false},  /* from fd00:3:: */
        {27, 2, true, true},   {27, 3, true, false},
    };
    uint64_t passed = 0, dropped = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t inner[100];
        uint32_t len = inner_packet(inner, cases[i].ipv6, 80);
        inner[cases[i].at] = cases[i].byte;
        wire_in_inner(inner, len, cases[i].ipv6 ? 41 : 4);
        passed += cases[i].passes;
        dropped += !cases[i].passes;
        expect_totals(1, STAT_DROP_IN_SELECTOR, dropped, passed);
    }
}

static void parallel_sas_all_deliver(void **state)
{
    (void)state;
    static uint8_t key[64] = {1, 2, 3};
    rig_setup(&rig, 6, "");
    rig_up(&rig);
    const struct suite *suite = &rig_out_sa(&rig, 0)->params.suite;
    uint64_t first = rig_out_sa(&rig, 0)->params.child;
    struct ike_child c[2];
    for (unsigned i = 2; i-- > 0;) { /* the receiver first: it says where to send */
        struct rig_host *h = &rig.host[i];
        c[i] = (struct ike_child){.id = 1000,
                                  .peer = h->config->peers[0],
                                  .policy = h->config->policies[0],
                                  .suite = *suite,
                                  .local = h->config->policies[0]->local,
                                  .remote = h->config->policies[0]->remote,
                                  .path = sa_path(rig_out_sa(&rig, i))};
        c[i].key_in = c[i].key_out = span_of(key, suite->encr_key_len);
        c[i].spi_out = i ? 0x1000 : c[1].spi_in;
        assert_int_equal(dataplane_reserve(h->dataplane, &c[i].spi_in), OK);
        assert_int_equal(dataplane_install(h->dataplane, &c[i], "auto", i == 0, rig.now), OK);
    }
    for (unsigned i = 0; i < 20; i++) { /* a packet of each in turn */
        dataplane_activate(rig.host[0].dataplane, i & 1 ? 1000 : first);
        assert_true((rig_out_sa(&rig, 0)->params.spi == c[1].spi_in) == (i & 1));
        rig_send_udp(&rig, 0, i & 2, payload, 100);
        expect_totals(1, STAT_DROP_IN_SPI, 0, i + 1);
    }
}

static void lifetimes_by_time_lose_nothing(void **state)
{
    (void)state;
    rig_setup(&rig, 7, "lifetime = 20s\n");
    rig_up(&rig);
    for (unsigned i = 0; i < 700; i++) {
        rig_send_udp(&rig, i & 1, false, payload, 64);
        rig_run(&rig, 100 * NS_PER_MS);
    }
    assert_int_equal(rig_stat(&rig, 0, STAT_IN_PACKETS), 350);
    assert_int_equal(rig_stat(&rig, 1, STAT_IN_PACKETS), 350);
    assert_in_range(rig.host[0].rekeyed, 3, 5);
}

/* Soft and no answer: the SA ends at its hard limit, and nothing is sealed with it afterwards. */
static bool no_ike(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data, size_t len)
{
    (void)ctx;
    (void)from;
    return to->port == 4500 && len > 4 && get_be32(data) != 0;
}

static void a_lifetime_ends_hard_without_a_rekey(void **state)
{
    (void)state;
    rig_setup(&rig, 8, "lifetime = 20s\n");
    rig_up(&rig);
    memory_net_tap(rig.net, no_ike, NULL);
    rig_run(&rig, 21 * NS_PER_S);
    rig_send_udp(&rig, 0, false, payload, 64);
    expect_totals(1, STAT_DROP_IN_SPI, 0, 1);
    rig_run(&rig, 2 * NS_PER_S);
    assert_null(sad_find_out(rig.host[0].shared.sad, 0, 0));
    uint64_t sealed = rig_stat(&rig, 0, STAT_OUT_PACKETS);
    rig_send_udp(&rig, 0, false, payload, 64);
    rig_run(&rig, 5 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 0, STAT_OUT_PACKETS), sealed);
}

/* -- tunnels -- */

static void tunnels_of_every_combination(void **state)
{
    (void)state;
    for (unsigned outer = 0; outer < 2; outer++) {
        if (outer) {
            rig_teardown(&rig);
            rig_setup_ipv6(&rig, 9, "");
        } else {
            rig_setup(&rig, 9, "");
        }
        rig.keep_wire = true;
        rig_up(&rig);
        for (unsigned i = 0; i < 40; i++) {
            bool ipv6 = i & 1, back = i & 2;
            size_t len = i * 33;
            rig_send_udp(&rig, back, ipv6, payload, len);
            rig_run(&rig, 3 * NS_PER_MS);
            assert_int_equal(take(!back), len + (ipv6 ? 48 : 28));
            assert_true(packet_sound(taken, len + (ipv6 ? 48 : 28)));
            assert_int_equal(taken[0] >> 4, ipv6 ? 6 : 4);
            assert_memory_equal(taken + (ipv6 ? 48 : 28), payload, len);
            assert_int_equal(rig.wire[i].to.ip.family, outer ? 6 : 4);
        }
    }
}

/* We are a host to what is inside, so TTLs stay; what changes it, the kernel, forwards before or after us (5.1.2.1). */
static void inner_headers_come_out_as_they_went_in(void **state)
{
    (void)state;
    rig_setup(&rig, 10, "");
    rig_up(&rig);
    for (unsigned i = 0; i < 24; i++) {
        struct packet_spec s = i & 1 ? packet_spec_udp(i & 2) : packet_spec_tcp(i & 2);
        uint8_t frame[1600] = {0};
        s.ttl = (uint8_t)(i < 8 ? 1 : i < 16 ? 64 : 255);
        s.tos = (uint8_t)(i << 2); /* ECN is another matter */
        s.id = (uint16_t)(i * 2000);
        size_t len = packet_build(&s, payload, 50 + i * 40, frame + TUN_HDR_LEN);
        rig_inject(&rig, 0, frame, TUN_HDR_LEN + len);
        rig_run(&rig, 3 * NS_PER_MS);
        assert_int_equal(take(1), len);
        assert_memory_equal(taken, frame + TUN_HDR_LEN, len);
    }
}

static void checksums_are_right_after_every_change(void **state)
{
    (void)state;
    static uint8_t big[60000], frame[66000];
    rig_setup(&rig, 11, "");
    rig_up(&rig);
    for (unsigned i = 0; i < 2; i++)
        atomic_store(&rig.host[i].shared.mss4, 1200), atomic_store(&rig.host[i].shared.mss6, 1180);
    for (unsigned i = 0; i < 4; i++) {
        struct packet_spec s = packet_spec_tcp(i & 1);
        memset(frame, 0, TUN_HDR_LEN);
        size_t len;
        if (i & 2) { /* segments, each with a length, ID and sum of its own */
            len = packet_build_gso(&s, big, sizeof big, 1000, frame);
        } else { /* a SYN whose MSS is clamped */
            s.flags = 2;
            s.options_len = 4;
            memcpy(s.options, (const uint8_t[]){2, 4, 0x05, 0xb4}, 4);
            len = TUN_HDR_LEN + packet_build(&s, payload, 0, frame + TUN_HDR_LEN);
        }
        rig_inject(&rig, 0, frame, len);
        rig_run(&rig, 5 * NS_PER_MS);
        unsigned found = 0;
        for (size_t n; (n = take(1)); found++) {
            size_t header = i & 1 ? 40 : 20;
            if (i & 2) { /* merged again: only the header's own sum is complete */
                assert_true(i & 1 || packet_naive_sum(0, taken, 20) == 0xffff);
            } else {
                assert_true(packet_sound(taken, n));
                assert_int_equal(get_be16(taken + header + 22), i & 1 ? 1180 : 1200);
            }
        }
        assert_true(found);
    }
}

/* -- numbers -- */

static void numbers_begin_with_one_and_replays_are_refused(void **state)
{
    (void)state;
    rig_setup(&rig, 12, "esp = aes128gcm16-noesn\nreplay-window = 64\n");
    rig_up(&rig);
    rig.keep_wire = true;
    for (unsigned i = 0; i < 64; i++)
        rig_send_udp(&rig, 0, false, payload, 20 + i);
    expect_totals(1, STAT_DROP_IN_REPLAY, 0, 64);
    rig.keep_wire = false;
    assert_int_equal(rig.wire_count, 64);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(get_be32(rig.wire[i].data + 4), i + 1);
    for (unsigned i = 0; i < 64; i++)
        wire_in(rig.wire[i].data, rig.wire[i].len);
    expect_totals(1, STAT_DROP_IN_REPLAY, 64, 64);
    rig_send_udp(&rig, 0, false, payload, 20);
    expect_totals(1, STAT_DROP_IN_REPLAY, 64, 65);
}

/* In one receive, as GRO gives them. */
static void of_eight_duplicates_one_is_delivered(void **state)
{
    (void)state;
    rig_setup(&rig, 13, "");
    rig_up(&rig);
    uint8_t copy[200];
    struct sa *sa = rig_out_sa(&rig, 0);
    struct esp_packet p = {.data = copy + 64, .len = inner_packet(copy + 64, false, 60), .next_header = 4};
    unsigned sealed, events;
    assert_int_equal(esp_seal(sa, &p, 1, rig.now, &sealed, &events), OK);
    uint64_t calls = rig_stat(&rig, 1, STAT_RX_CALLS);
    for (unsigned i = 0; i < 8; i++)
        wire_in(p.data, p.len);
    expect_totals(1, STAT_DROP_IN_REPLAY, 7, 1);
    assert_int_equal(rig_stat(&rig, 1, STAT_RX_CALLS), calls + 1);
}

static void forgeries_never_move_the_window(void **state)
{
    (void)state;
    rig_setup(&rig, 14, "");
    rig_up(&rig);
    rig.keep_wire = true;
    rig_send_udp(&rig, 0, false, payload, 50);
    expect_totals(1, STAT_DROP_IN_AUTH, 0, 1);
    rig.keep_wire = false;
    uint64_t top = in_sa(1)->replay.top, failed = 0;
    for (unsigned bit = 32; bit < rig.wire[0].len * 8; bit += 7) {
        if (bit / 8 < 8) /* far ahead by its number, which is authentic no more */
            rig.wire[0].data[4] |= 0x70;
        rig.wire[0].data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        wire_in(rig.wire[0].data, rig.wire[0].len);
        rig.wire[0].data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        failed++;
    }
    expect_totals(1, STAT_DROP_IN_AUTH, failed, 1);
    assert_int_equal(in_sa(1)->replay.top, top);
    rig_send_udp(&rig, 0, false, payload, 50);
    expect_totals(1, STAT_DROP_IN_AUTH, failed, 2);
}

/* Both ways across the wrap, with packets doubled and late: each arrives once. */
static void esn_goes_on_across_2_32_on_a_bad_wire(void **state)
{
    (void)state;
    static const char *const extras[] = {"esp = aes128-sha256-esn\nreplay-window = 128\n",
                                         "esp = aes256gcm16iiv-esn\nencap = raw\nreplay-window = 128\n",
                                         "ah = sha256-esn\nreplay-window = 128\n"};
    for (size_t k = 0; k < sizeof extras / sizeof extras[0]; k++) {
        if (k)
            rig_teardown(&rig);
        rig_setup(&rig, 15, extras[k]);
        rig_up(&rig);
        for (unsigned i = 0; i < 2; i++)
            in_sa(!i)->replay.top = rig_out_sa(&rig, i)->seq = UINT32_MAX - 150;
        memory_net_faults(rig.net, &(struct memory_faults){.duplicate = 300, .reorder = 300, .delay = NS_PER_MS});
        for (unsigned i = 0; i < 600; i++) {
            rig_send_udp(&rig, i & 1, i & 2, payload, 64);
            rig_run(&rig, NS_PER_MS);
        }
        rig_run(&rig, NS_PER_S);
        for (unsigned i = 0; i < 2; i++) {
            assert_int_equal(rig_stat(&rig, i, STAT_IN_PACKETS), 300);
            assert_true(rig_stat(&rig, i, STAT_DROP_IN_REPLAY) > 30);
            assert_true(in_sa(i)->replay.top == UINT32_MAX + UINT64_C(150));
        }
        assert_int_equal(rig.host[0].rekeyed + rig.host[1].rekeyed, 0);
    }
}

static void without_esn_the_last_numbers_bring_a_rekey(void **state)
{
    (void)state;
    rig_setup(&rig, 16, "esp = chacha20poly1305-noesn\n");
    rig_up(&rig);
    struct sa *sa = rig_out_sa(&rig, 0);
    sa->seq = sa->seq_soft - 5;
    in_sa(1)->replay.top = sa->seq;
    for (unsigned i = 0; i < 100; i++) {
        rig_send_udp(&rig, 0, false, payload, 64);
        rig_run(&rig, NS_PER_MS);
    }
    expect_totals(1, STAT_DROP_IN_REPLAY, 0, 100);
    assert_int_equal(rig.host[0].rekeyed, 1);
    assert_in_range(rig_out_sa(&rig, 0)->seq, 80, 95);
}

/* All packets of the wire go to rig.wire, but none of IKE arrives. */
static uint64_t highest, packets_seen;
static bool note_numbers(void *ctx, const struct endpoint *from, const struct endpoint *to, const uint8_t *data,
                         size_t len)
{
    if (!no_ike(ctx, from, to, data, len))
        return false;
    packets_seen++;
    assert_true(get_be32(data + 4) > highest);
    highest = get_be32(data + 4);
    return true;
}

static void without_esn_and_without_a_rekey_nothing_wraps(void **state)
{
    (void)state;
    rig_setup(&rig, 17, "esp = aes256gcm16-noesn\n");
    rig_up(&rig);
    highest = packets_seen = 0;
    memory_net_tap(rig.net, note_numbers, NULL);
    rig_out_sa(&rig, 0)->seq = UINT32_MAX - 3;
    in_sa(1)->replay.top = UINT32_MAX - 3;
    for (unsigned i = 0; i < 10; i++)
        rig_send_udp(&rig, 0, i & 1, payload, 64);
    expect_totals(1, STAT_DROP_IN_REPLAY, 0, 3);
    assert_int_equal(packets_seen, 3);
    assert_int_equal(highest, UINT32_MAX);
    assert_int_equal(rig_stat(&rig, 0, STAT_DROP_OUT_EXPIRED), 7);
    rig_send_udp(&rig, 0, false, payload, 64); /* its Child SA has ended by now */
    rig_run(&rig, 5 * NS_PER_MS);
    assert_int_equal(packets_seen, 3);
    assert_int_equal(rig.host[0].down, 1);
}

/* -- packets -- */

static void runts_are_dropped_and_counted(void **state)
{
    (void)state;
    rig_setup(&rig, 18, "esp = aes128gcm16\n");
    rig_up(&rig);
    uint8_t packet[64] = {0};
    put_be32(packet, rig_out_sa(&rig, 0)->params.spi);
    uint64_t runts = 0;
    for (uint32_t len = 2; len < 8 + 8 + 4 + 16; len++) { /* 0 and 1: nothing, and a keepalive of another kind */
        wire_in(packet, len);
        runts++;
    }
    expect_totals(1, STAT_DROP_IN_RUNT, runts, 0);
    wire_in(packet, 36); /* long enough: now the ICV decides */
    rig_run(&rig, 5 * NS_PER_MS);
    assert_int_equal(rig_stat(&rig, 1, STAT_DROP_IN_RUNT), runts);
}

static void truncated_icvs_are_refused(void **state)
{
    (void)state;
    static const char *const esp[] = {"esp = null-sha256-noesn\n", "esp = aes128gcm16-noesn\n"};
    for (unsigned k = 0; k < 2; k++) {
        if (k)
            rig_teardown(&rig);
        rig_setup(&rig, 19, esp[k]);
        rig_up(&rig);
        rig.keep_wire = true;
        rig_send_udp(&rig, 0, false, payload, 60);
        expect_totals(1, STAT_DROP_IN_AUTH, 0, 1);
        rig.keep_wire = false;
        put_be32(rig.wire[0].data + 4, 77); /* no replay */
        for (unsigned cut = 4; cut <= 16; cut += 4)
            wire_in(rig.wire[0].data, rig.wire[0].len - cut);
        expect_totals(1, STAT_DROP_IN_AUTH, 4, 1);
    }
}

static void padding_is_checked(void **state)
{
    (void)state;
    rig_setup(&rig, 20, "esp = aes256gcm16-noesn\n");
    rig_up(&rig);
    static const struct {
        uint8_t trailer[8];
        unsigned len;
        bool passes;
    } cases[] = {
        {{1, 2, 2, 4}, 4, true},
        {{2, 1, 2, 4}, 4, false},
        {{0, 0, 2, 4}, 4, false},
        {{1, 2, 3, 4, 5, 6, 6, 4}, 8, true},
        {{1, 2, 3, 4, 5, 7, 6, 4}, 8, false},
        {{1, 2, 61, 4}, 4, false}, /* longer than the payload */
        {{1, 2, 255, 4}, 4, false},
    };
    uint64_t passed = 0, dropped = 0;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t text[100];
        uint32_t len = inner_packet(text, false, 56);
        memcpy(text + len, cases[i].trailer, cases[i].len);
        wire_in_sealed(text, len + cases[i].len);
        passed += cases[i].passes;
        dropped += !cases[i].passes;
        expect_totals(1, STAT_DROP_IN_PADDING, dropped, passed);
    }
}

static void dummies_are_discarded_and_move_the_window(void **state)
{
    (void)state;
    rig_setup(&rig, 21, "esp = aes256gcm16-noesn\n");
    rig_up(&rig);
    wire_in_inner(payload, 0, 59);
    wire_in_inner(payload, 100, 59);
    wire_in_inner(payload, 1001, 59);
    expect_totals(1, STAT_DROP_IN_DUMMY, 3, 0);
    assert_int_equal(in_sa(1)->replay.top, 3);
    assert_int_equal(take(1), 0);
    rig_send_udp(&rig, 0, false, payload, 60);
    expect_totals(1, STAT_DROP_IN_DUMMY, 3, 1);
}

static void padding_for_confidentiality_is_cut_off(void **state)
{
    (void)state;
    rig_setup(&rig, 22, "esp = aes256gcm16-noesn\n");
    rig_up(&rig);
    for (unsigned i = 0; i < 20; i++) {
        uint8_t text[1500], inner[200];
        bool ipv6 = i & 1;
        uint32_t len = inner_packet(inner, ipv6, 60 + i);
        memset(text, (int)i * 13, sizeof text); /* whatever it may be */
        memcpy(text, inner, len);
        wire_in_inner(text, len + i * 60, ipv6 ? 41 : 4);
        expect_totals(1, STAT_DROP_IN_MALFORMED, 0, i + 1);
        assert_int_equal(take(1), len);
        assert_memory_equal(taken, inner, len);
    }
}

static void reserved_spis_are_nobodys(void **state)
{
    (void)state;
    rig_setup(&rig, 23, "");
    rig_up(&rig);
    uint8_t packet[100] = {0};
    for (uint32_t spi = 1; spi < 256; spi++) {
        put_be32(packet, spi);
        wire_in(packet, sizeof packet);
    }
    expect_totals(1, STAT_DROP_IN_SPI, 255, 0);
    put_be32(packet, 0); /* the marker: not ESP at all */
    wire_in(packet, sizeof packet);
    expect_totals(1, STAT_DROP_IN_SPI, 255, 0);
    rig.keep_wire = true;
    for (unsigned i = 0; i < 10; i++) {
        ike_rekey(rig.host[i & 1].engine, rig.host[i & 1].config->peers[0], rig.host[i & 1].config->policies[0], i,
                  rig.now);
        rig_run(&rig, 20 * NS_PER_MS);
        rig_send_udp(&rig, 0, false, payload, 60);
        rig_send_udp(&rig, 1, false, payload, 60);
        rig_run(&rig, 5 * NS_PER_MS);
    }
    assert_int_equal(rig.wire_count, 20);
    for (unsigned i = 0; i < 20; i++)
        assert_true(get_be32(rig.wire[i].data) >= 256);
}

#define RIG_TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RIG_TEST(order_decides_where_policies_overlap_or_touch),
        RIG_TEST(any_takes_what_opaque_leaves_out),
        RIG_TEST(icmp_is_chosen_by_type_and_code),
        RIG_TEST(policies_come_go_and_come_again_under_traffic),
        RIG_TEST(an_sa_of_another_version_carries_nothing),
        RIG_TEST(ike_passes_beside_a_policy_that_covers_it),
        RIG_TEST(what_the_peer_may_not_send_stays_out),
        RIG_TEST(parallel_sas_all_deliver),
        RIG_TEST(lifetimes_by_time_lose_nothing),
        RIG_TEST(a_lifetime_ends_hard_without_a_rekey),
        RIG_TEST(tunnels_of_every_combination),
        RIG_TEST(inner_headers_come_out_as_they_went_in),
        RIG_TEST(checksums_are_right_after_every_change),
        RIG_TEST(numbers_begin_with_one_and_replays_are_refused),
        RIG_TEST(of_eight_duplicates_one_is_delivered),
        RIG_TEST(forgeries_never_move_the_window),
        RIG_TEST(esn_goes_on_across_2_32_on_a_bad_wire),
        RIG_TEST(without_esn_the_last_numbers_bring_a_rekey),
        RIG_TEST(without_esn_and_without_a_rekey_nothing_wraps),
        RIG_TEST(runts_are_dropped_and_counted),
        RIG_TEST(truncated_icvs_are_refused),
        RIG_TEST(padding_is_checked),
        RIG_TEST(dummies_are_discarded_and_move_the_window),
        RIG_TEST(padding_for_confidentiality_is_cut_off),
        RIG_TEST(reserved_spis_are_nobodys),
    };
    return cmocka_run_group_tests_name("datapath", tests, NULL, NULL);
}
