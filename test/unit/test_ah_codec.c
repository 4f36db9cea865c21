/* AH (RFC 4302): packets of an independent program, what may change on the way and what may not, and its entries. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "core/base/clock.h"
#include "crypto/library.h"
#include "esp/ah.h"
#include "test/unit/esp_wire.h"
#include "test/vectors/ah.h"

#define PACKET 512

static uint32_t bytes_of(const char *hex, uint8_t *out)
{
    uint32_t n = (uint32_t)strlen(hex) / 2;
    for (uint32_t i = 0; i < n; i++) {
        unsigned byte;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (uint8_t)byte;
    }
    return n;
}

static struct sa_params ah_params(const char *integ, bool esn, bool transport)
{
    struct sa_params p = params_of(NULL_SHA256);
    struct proposals proposals;
    char why[200];
    assert_int_equal(proposals_parse(integ, PROTOCOL_AH, &proposals, why, sizeof why), OK);
    assert_int_equal(suite_of_integ(&proposals.v[0].t[0], &p.suite), OK);
    p.proto = PROTOCOL_AH;
    p.esn = esn;
    p.mode = transport ? MODE_TRANSPORT : MODE_TUNNEL;
    for (unsigned i = 0; i < sizeof encr_key; i++)
        encr_key[i] = (uint8_t)(i < (unsigned)(p.suite.encr_key_len - p.suite.salt_len)
                                    ? i
                                    : 0xa0 + i - (p.suite.encr_key_len - p.suite.salt_len));
    p.key = span_of(encr_key, p.suite.encr_key_len);
    p.integ_key = span_of(integ_key, p.suite.integ_key_len);
    return p;
}

/* Of a vector: in transport mode the ends are those that its headers name. */
static struct sa_params vector_params(const struct ah_vector *v)
{
    struct sa_params p = ah_params(v->integ, v->esn, v->transport);
    bool ipv6 = v->sent[0] == '6';
    if (v->transport) {
        assert_int_equal(ip_parse(ipv6 ? "2001:db8:1::5" : "10.1.0.5", &p.path.remote.ip), OK);
        assert_int_equal(ip_parse(ipv6 ? "2001:db8:2::7" : "10.2.0.7", &p.path.local.ip), OK);
    }
    return p;
}

static struct esp_packet opened(struct sa *sa, const uint8_t *packet, uint32_t len, uint32_t head, uint8_t **dst)
{
    static uint8_t copy[4 * PACKET];
    unsigned events;
    memcpy(copy, packet, len);
    *dst = malloc(len + AH_SCRATCH);
    struct esp_packet p = {.data = copy + head, .len = len - head, .head = (uint16_t)head, .dst = *dst};
    unsigned good = esp_open(sa, &p, 1, 2, &events);
    assert_int_equal(good, p.verdict == OK);
    assert_memory_equal(copy, packet, len); /* what was received may be looked at by others */
    return p;
}

static enum err verdict_of(struct sa *sa, const uint8_t *packet, uint32_t len, uint32_t head)
{
    uint8_t *dst;
    struct esp_packet p = opened(sa, packet, len, head, &dst);
    free(dst);
    return p.verdict;
}

/* Seals what stands behind AH again, with the headers that stand before it. */
static struct esp_packet sealed(struct sa *sa, const uint8_t *packet, uint32_t len, uint32_t head, uint8_t **room)
{
    uint8_t family = packet[0] >> 4;
    uint32_t more = ah_len(&sa->params.suite, family);
    unsigned n, events;
    *room = malloc(len + (sa->params.esn ? AH_SCRATCH : 0));
    memset(*room, 0xee, len);
    memcpy(*room, packet, head);
    memcpy(*room + head + more, packet + head + more, len - head - more);
    struct esp_packet p = {.data = *room + head + more,
                           .len = len - head - more,
                           .next_header = packet[head],
                           .family = family,
                           .head = (uint16_t)head};
    assert_int_equal(esp_seal(sa, &p, 1, 2, &n, &events), OK);
    assert_int_equal(n, 1);
    return p;
}

static void packets_of_an_independent_program(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ah_vectors / sizeof ah_vectors[0]; i++) {
        const struct ah_vector *v = &ah_vectors[i];
        struct sa_params params = vector_params(v);
        for (unsigned e = 0; engine_name(e); e++) {
            uint8_t sent[PACKET], arrived[PACKET], *room;
            uint32_t len = bytes_of(v->sent, sent), more;
            params.engine = engine_name(e);
            if (!engine_has(params.engine, &params.suite))
                continue;
            assert_int_equal(bytes_of(v->arrived, arrived), len);
            struct sa *out = sa_of(params, SA_OUT), *in = sa_of(params, SA_IN);
            more = ah_len(&params.suite, sent[0] >> 4);
            out->seq = v->seq - 1;
            struct esp_packet p = sealed(out, sent, len, v->head, &room);
            assert_int_equal(p.len, len - v->head);
            if (memcmp(p.data - v->head, sent, len) != 0)
                fail_msg("%s: sealed to something else by %s", v->name, params.engine);
            free(room);

            in->replay.top = v->seq & ~UINT64_C(0xffffffff);
            p = opened(in, arrived, len, v->head, &room);
            if (p.verdict != OK)
                fail_msg("%s: %s by %s", v->name, err_text(p.verdict), params.engine);
            assert_int_equal(p.len, len - more - v->head);
            assert_memory_equal(p.data, arrived + v->head + more, p.len);
            assert_int_equal(p.next_header, arrived[v->head]);
            free(room);
            sa_free(out);
            sa_free(in);
        }
    }
}

/* Three times 2,048 bytes of destination options, which routers must leave alone, in front of AH. */
static uint32_t headers_of_many_options(uint8_t *p)
{
    uint32_t at = 40;
    for (unsigned i = 0; i < 3; i++) {
        memset(p + at, 0x66, 2048);
        p[at] = i < 2 ? 60 : AH_PROTOCOL;
        p[at + 1] = 255;
        for (uint32_t k = at + 2; k < at + 2048; k += 2u + p[k + 1]) {
            p[k] = 0x1e;
            p[k + 1] = k + 256 < at + 2048 ? 254 : 252;
        }
        at += 2048;
    }
    return at;
}

/* As long as they may be in what others send. The ICV is that of Python's hmac module. */
static void headers_of_any_length_may_stand_in_front(void **state)
{
    static uint8_t packet[7000], dst[7000];
    static const uint8_t udp[] = {0x04, 0xd2, 0, 53, 0, 8, 0, 0};
    (void)state;
    struct sa_params params = ah_params("sha256", false, true);
    assert_int_equal(ip_parse("2001:db8:1::5", &params.path.remote.ip), OK);
    assert_int_equal(ip_parse("2001:db8:2::7", &params.path.local.ip), OK);
    for (unsigned e = 0; engine_name(e); e++) {
        params.engine = engine_name(e);
        if (!engine_has(params.engine, &params.suite))
            continue;
        struct sa *in = sa_of(params, SA_IN);
        memset(packet, 0, sizeof packet);
        uint32_t head = headers_of_many_options(packet), len = 32 + sizeof udp;
        uint8_t *ah = packet + head;
        put_be32(packet, UINT32_C(6) << 28);
        put_be16(packet + 4, (uint16_t)(head - 40 + len));
        packet[6] = 60;
        packet[7] = 64;
        memcpy(packet + 8, params.path.remote.ip.b, 16);
        memcpy(packet + 24, params.path.local.ip.b, 16);
        put_be32(ah, 17u << 24 | 6 << 16);
        put_be32(ah + 4, SPI);
        put_be32(ah + 8, 9);
        (void)bytes_of("2a22a7d0eb1bd3609c7bb498fe3b13ec", ah + 12);
        memcpy(ah + 32, udp, sizeof udp);
        for (unsigned whole = 0; whole < 2; whole++) { /* first with a bit that is another one */
            unsigned events;
            packet[3000] = whole ? 0x66 : 0x67;
            packet[7] = whole ? 7 : 64; /* that may change on the way */
            struct esp_packet p = {.data = ah, .len = len, .head = (uint16_t)head, .dst = dst};
            assert_int_equal(esp_open(in, &p, 1, 2, &events), whole);
            assert_int_equal(p.verdict, whole ? OK : ERR_AUTH);
        }
        sa_free(in);
    }
}

/* The longest IP packet is longer than engines take that count in 16 bits: it fails, and nobody else with it. */
static void the_longest_packet_harms_no_other(void **state)
{
    static uint8_t longest[65535 + AH_SCRATCH], dst[3][65535 + AH_SCRATCH];
    static const char *const integs[] = {"sha256", "sha384", "sha512", "aesxcbc", "aescmac", "aes128gmac"};
    (void)state;
    for (unsigned e = 0; engine_name(e); e++)
        for (unsigned k = 0; k < 2 * sizeof integs / sizeof *integs; k++) {
            struct sa_params params = ah_params(integs[k / 2], k & 1, true);
            params.engine = engine_name(e);
            if (!engine_has(params.engine, &params.suite))
                continue;
            selector_of(&params.remote, "192.0.2.1");
            selector_of(&params.local, "192.0.2.2");
            struct sa *in = sa_of(params, SA_IN), *out = sa_of(params, SA_OUT);
            uint32_t more = ah_len(&params.suite, 4), len = 20 + more + 8;
            uint8_t packet[PACKET] = {0}, *room[2];
            struct esp_packet v[3];
            ipv4(packet, 20, "192.0.2.1", "192.0.2.2");
            put_be16(packet + 2, (uint16_t)len);
            packet[9] = AH_PROTOCOL;
            packet[20] = 17;
            for (unsigned i = 0; i < 2; i++) {
                v[2 * i] = sealed(out, packet, len, 20, &room[i]);
                v[2 * i].head = 20;
            }
            memset(longest, 0, sizeof longest);
            memcpy(longest, packet, 20);
            put_be16(longest + 2, 65535);
            memcpy(longest + 20, v[0].data, more);
            put_be32(longest + 28, 3);
            v[1] = (struct esp_packet){.data = longest + 20, .len = 65535 - 20, .head = 20};
            for (unsigned i = 0; i < 3; i++)
                v[i].dst = dst[i];
            unsigned events;
            assert_int_equal(esp_open(in, v, 3, 2, &events), 2);
            assert_int_equal(v[1].drop, STAT_DROP_IN_AUTH);
            assert_true(v[0].verdict == OK && v[2].verdict == OK);
            free(room[0]);
            free(room[1]);
            sa_free(in);
            sa_free(out);
        }
}

static const struct ah_vector *vector(const char *name)
{
    for (size_t i = 0; i < sizeof ah_vectors / sizeof ah_vectors[0]; i++)
        if (strcmp(ah_vectors[i].name, name) == 0)
            return &ah_vectors[i];
    fail_msg("no vector %s", name);
    return NULL;
}

/*
 * Conformance 45, for each bit of a packet: what stands behind the headers is covered, and so is what of them doesn't change
 * on the way. mutable: those bytes of the headers that may, as masks.
 */
static void each_bit(const char *name, const uint8_t *mutable, size_t n)
{
    const struct ah_vector *v = vector(name);
    struct sa_params params = vector_params(v);
    uint8_t packet[PACKET];
    uint32_t len = bytes_of(v->arrived, packet);
    for (uint32_t i = 0; i < len; i++)
        for (unsigned bit = 0; bit < 8; bit++) {
            struct sa *in = sa_of(params, SA_IN);
            bool may = i < n && mutable[i] & 1u << bit;
            in->replay.top = v->seq & ~UINT64_C(0xffffffff);
            packet[i] ^= (uint8_t)(1u << bit);
            enum err e = verdict_of(in, packet, len, v->head);
            packet[i] ^= (uint8_t)(1u << bit);
            if ((e == OK) != may)
                fail_msg("%s: byte %u bit %u: %s", name, i, bit, err_text(e));
            if (e != OK)
                assert_int_equal(in->replay.top, v->seq & ~UINT64_C(0xffffffff)); /* the window doesn't move */
            sa_free(in);
        }
}

static void what_changes_on_the_way_may_and_nothing_else(void **state)
{
    (void)state;
    /* TOS, DF and the reserved flag, TTL, checksum; a flag or an offset that makes it a fragment is section 3.4.1's. */
    static const uint8_t v4[20] = {[1] = 0xff, [6] = 0xc0, [8] = 0xff, [10] = 0xff, [11] = 0xff};
    /* Traffic class, flow label, hop limit. */
    static const uint8_t v6[40] = {[0] = 0x0f, [1] = 0xff, [2] = 0xff, [3] = 0xff, [7] = 0xff};
    uint8_t options[56] = {[1] = 0xff, [6] = 0xc0, [8] = 0xff, [10] = 0xff, [11] = 0xff};
    uint8_t extended[104] = {[0] = 0x0f, [1] = 0xff, [2] = 0xff, [3] = 0xff, [7] = 0xff};
    each_bit("sha256, 4in4", v4, sizeof v4);
    each_bit("aes128gmac, 4in4", v4, sizeof v4);
    each_bit("sha256, 6in6", v6, sizeof v6);
    memset(extended + 44, 0xff, 4); /* the data of the option that says so */
    each_bit("IPv6 extension headers", extended, sizeof extended);
    /* Of options that are zeroed whole type and length matter only in as far as they lead to the next one. */
    memset(options + 38, 0xff, 6);
    memset(options + 46, 0xff, 5);
    options[53] = 0xff;
    const struct ah_vector *v = vector("IPv4 options");
    uint8_t packet[PACKET];
    uint32_t len = bytes_of(v->arrived, packet);
    for (uint32_t i = 0; i < v->head; i++) {
        if (i >= 36 && !options[i])
            continue;
        struct sa *in = sa_of(vector_params(v), SA_IN);
        packet[i] ^= options[i] ? options[i] : 0x01;
        assert_int_equal(verdict_of(in, packet, len, v->head) == OK, options[i] != 0);
        packet[i] ^= options[i] ? options[i] : 0x01;
        sa_free(in);
    }
}

/* One AH packet 4in4 that opens, for the tests below. */
static uint32_t usual(struct sa_params *params, uint8_t *packet)
{
    const struct ah_vector *v = vector("sha256, 4in4");
    *params = ah_params(v->integ, v->esn, false);
    return bytes_of(v->arrived, packet);
}

static void lengths_that_lie_are_refused(void **state)
{
    (void)state;
    struct sa_params params;
    uint8_t packet[PACKET] = {0};
    uint32_t len = usual(&params, packet);
    struct sa *in = sa_of(params, SA_IN);
    for (uint32_t cut = 1; cut <= len - 20; cut++) /* fewer bytes than the header says, down to none of AH */
        assert_int_equal(verdict_of(in, packet, len - cut, 20), ERR_SYNTAX);
    for (uint32_t shorter = 20; shorter < 20 + 28; shorter++) { /* a whole packet, but with less than its ICV */
        put_be16(packet + 2, (uint16_t)shorter);
        assert_int_equal(verdict_of(in, packet, shorter, 20), ERR_SYNTAX);
    }
    put_be16(packet + 2, (uint16_t)len);
    for (unsigned payload_len = 0; payload_len < 256; payload_len++) {
        packet[21] = (uint8_t)payload_len;
        assert_int_equal(verdict_of(in, packet, len, 20), payload_len == 5 ? OK : ERR_SYNTAX);
        if (payload_len == 5) {
            sa_free(in);
            in = sa_of(params, SA_IN);
        }
    }
    packet[21] = 5;
    assert_int_equal(verdict_of(in, packet, len, 0), ERR_SYNTAX);
    assert_int_equal(verdict_of(in, packet, len, 16), ERR_SYNTAX);
    assert_int_equal(verdict_of(in, packet, len, 20), OK);
    sa_free(in);
}

static void fragments_are_refused(void **state)
{
    (void)state;
    struct sa_params params;
    uint8_t packet[PACKET];
    uint32_t len = usual(&params, packet);
    struct sa *in = sa_of(params, SA_IN);
    packet[6] |= 0x20;
    assert_int_equal(verdict_of(in, packet, len, 20), ERR_SYNTAX);
    packet[6] = 0;
    packet[7] = 1;
    assert_int_equal(verdict_of(in, packet, len, 20), ERR_SYNTAX);
    packet[7] = 0;
    assert_int_equal(verdict_of(in, packet, len, 20), OK);
    sa_free(in);
}

/* The window is ESP's: a second copy, and one that is too old; with ESN the number's high half is part of the ICV. */
static void replays_are_refused_and_high_halves_inferred(void **state)
{
    (void)state;
    for (unsigned esn = 0; esn < 2; esn++) {
        struct sa_params params;
        uint8_t packet[PACKET], *room;
        uint32_t len = usual(&params, packet);
        params.esn = esn;
        params.replay_window = 64;
        struct sa *in = sa_of(params, SA_IN), *out = sa_of(params, SA_OUT);
        uint64_t numbers[] = {1,
                              3,
                              2,
                              100,
                              37,
                              40,
                              UINT32_MAX - 1,
                              UINT32_MAX,
                              UINT64_C(1) << 32,
                              (UINT64_C(1) << 32) + 5,
                              UINT32_MAX - 3};
        for (unsigned i = 0; i < (esn ? 11 : 8); i++) {
            out->seq = numbers[i] - 1;
            struct esp_packet p = sealed(out, packet, len, 20, &room);
            assert_int_equal(get_be32(p.data + 8), (uint32_t)numbers[i]);
            if (i == 6 && esn) /* as far as the window sees */
                in->replay.top = UINT32_MAX - 10;
            assert_int_equal(verdict_of(in, p.data - 20, p.len + 20, 20), OK);
            assert_int_equal(verdict_of(in, p.data - 20, p.len + 20, 20), ERR_REPLAY);
            free(room);
        }
        out->seq = esn ? UINT32_MAX - 100 : UINT32_MAX - 65;
        struct esp_packet old = sealed(out, packet, len, 20, &room);
        /* With ESN a number left of the window is taken for one of the next 2^32: another ICV. */
        assert_int_equal(verdict_of(in, old.data - 20, old.len + 20, 20), esn ? ERR_AUTH : ERR_REPLAY);
        free(room);
        sa_free(in);
        sa_free(out);
    }
}

static void limits_hold_as_for_esp(void **state)
{
    (void)state;
    struct sa_params params;
    uint8_t packet[PACKET], *room;
    unsigned sealed_n, events;
    uint32_t len = usual(&params, packet);
    params.hard_packets = 3;
    params.soft_packets = 2;
    struct sa *out = sa_of(params, SA_OUT);
    for (unsigned i = 0; i < 3; i++) {
        struct esp_packet p = sealed(out, packet, len, 20, &room);
        assert_int_equal(get_be32(p.data + 8), i + 1);
        free(room);
    }
    struct esp_packet p = {.data = packet + 48, .len = 40, .next_header = 4, .family = 4, .head = 20};
    assert_int_equal(esp_seal(out, &p, 1, 3, &sealed_n, &events), ERR_EXPIRED);
    assert_int_equal(atomic_load(&out->packets), 3);
    sa_free(out);
}

/* A batch of packets of all lengths: each has its own number, and one that was changed fails alone. */
static void a_batch_goes_through(void **state)
{
    (void)state;
    for (unsigned transport = 0; transport < 2; transport++) {
        struct sa_params params = ah_params(transport ? "aes128gmac" : "sha512", true, transport);
        struct sa *in = sa_of(params, SA_IN), *out = sa_of(params, SA_OUT);
        static uint8_t room[TRANSFORM_BATCH][PACKET], dst[TRANSFORM_BATCH][PACKET], before[TRANSFORM_BATCH][PACKET];
        struct esp_packet v[TRANSFORM_BATCH];
        unsigned n, events;
        uint32_t more = ah_len(&params.suite, 4);
        for (unsigned i = 0; i < TRANSFORM_BATCH; i++) {
            uint32_t len = 28 + i * 3;
            uint8_t *payload = room[i] + 20 + more;
            ipv4(before[i], len, "10.1.0.5", "10.2.0.7");
            ipv4(room[i], 20, "192.0.2.1", "192.0.2.2");
            put_be16(room[i] + 2, (uint16_t)(20 + more + len));
            room[i][9] = AH_PROTOCOL;
            assert_true(ah_covers(room[i], 20));
            memcpy(payload, before[i], len);
            v[i] = (struct esp_packet){.data = payload, .len = len, .next_header = 4, .family = 4, .head = 20};
        }
        assert_int_equal(esp_seal(out, v, TRANSFORM_BATCH, 2, &n, &events), OK);
        for (unsigned i = 0; i < TRANSFORM_BATCH; i++) {
            assert_ptr_equal(v[i].data, room[i] + 20);
            assert_int_equal(v[i].len, sa_sealed_len(out, 4, 28 + i * 3));
            assert_int_equal(sa_inner_max(out, 4, v[i].len), 28 + i * 3);
            v[i] = (struct esp_packet){.data = v[i].data, .len = v[i].len, .head = 20, .dst = dst[i]};
        }
        v[5].data[v[5].len - 1] ^= 1;
        assert_int_equal(esp_open(in, v, TRANSFORM_BATCH, 2, &events), transport ? 0 : TRANSFORM_BATCH - 1);
        for (unsigned i = 0; i < TRANSFORM_BATCH; i++) { /* in transport mode no SA here is for IP in IP */
            assert_int_equal(v[i].verdict, i == 5 ? ERR_AUTH : transport ? ERR_MISMATCH : OK);
            if (v[i].verdict != OK)
                continue;
            assert_int_equal(v[i].len, 28 + i * 3);
            assert_true(v[i].data - v[i].head >= dst[i]);
            assert_memory_equal(v[i].data, before[i], v[i].len);
        }
        sa_free(in);
        sa_free(out);
    }
}

static void what_is_inside_has_to_be_the_sa_s(void **state)
{
    (void)state;
    static const char *const sources[] = {"10.1.0.5", "10.9.0.5"};
    for (unsigned transport = 0; transport < 2; transport++)
        for (unsigned k = 0; k < 2; k++) {
            struct sa_params params = ah_params("sha256", false, transport);
            if (transport) /* the addresses are those of the path: what the header says is for who restores it */
                assert_int_equal(
                    ip_parse(sources[k], &params.path.remote.ip) | ip_parse("10.2.0.7", &params.path.local.ip), OK);
            struct sa *in = sa_of(params, SA_IN), *out = sa_of(params, SA_OUT);
            uint8_t packet[PACKET] = {0}, *room;
            uint32_t more = ah_len(&params.suite, 4), at = 20 + more, len = at + (transport ? 20 : 40);
            ipv4(packet, 20, transport ? sources[k] : "192.0.2.1", transport ? "10.2.0.7" : "192.0.2.2");
            put_be16(packet + 2, (uint16_t)len);
            packet[9] = AH_PROTOCOL;
            packet[20] = transport ? 17 : 4;
            if (!transport)
                ipv4(packet + at, 40, sources[k], "10.2.0.7");
            struct esp_packet p = sealed(out, packet, len, 20, &room);
            assert_int_equal(verdict_of(in, p.data - 20, p.len + 20, 20), k ? ERR_MISMATCH : OK);
            free(room);
            if (transport) {
                sa_free(in);
                sa_free(out);
                continue;
            }
            packet[20] = 59;
            p = sealed(out, packet, len, 20, &room);
            assert_int_equal(verdict_of(in, p.data - 20, p.len + 20, 20), ERR_NOTFOUND);
            free(room);
            packet[20] = 41; /* what it says isn't what it is */
            p = sealed(out, packet, len, 20, &room);
            assert_int_equal(verdict_of(in, p.data - 20, p.len + 20, 20), ERR_SYNTAX);
            free(room);
            sa_free(in);
            sa_free(out);
        }
}

/* Conformance 47: what may stand before AH, and can be covered. Those with AH behind are among the vectors. */
static void headers_that_it_can_not_cover_are_known(void **state)
{
    (void)state;
    static const char v6[] = "20010db800010000000000000000000520010db8000200000000000000000007";
    static const struct {
        bool fine;
        const char *first, *rest;
    } rows[] = {
        {true, "4500001c0000000040330000", "0102030405060708"},
        {true, "460000200000000040330000", "010203040506070894040000"},
        {false, "460000200000000040330000", "010203040506070894090000"}, /* an option is too long */
        {false, "460000200000000040330000", "010203040506070894010000"}, /* or too short */
        {false, "460000200000000040330000", "010203040506070801010194"}, /* or has no length */
        {false, "460000200000000040330000", "0102030405060708"},         /* IHL says more */
        {false, "450000200000000040330000", "010203040506070894040000"}, /* or less */
        {false, "0500001c0000000040330000", "0102030405060708"},
        {false, "45", ""},
        {true, "6000000000103340", v6},
        {true, "6000000000100040", "3300010400000000"},
        {true, "6000000000103c40", "3300010400000000"},
        {true, "6000000000180040", "3c000104000000003300010400000000"},
        {true, "6000000000183c40", "2b000104000000003300000000000000"},
        {false, "6000000000102b40", "3300020100000000"}, /* still on its way, and not of type 0 */
        {false, "6000000000102b40", "3300000100000000"}, /* to an address that isn't there */
        {false, "6000000000102c40", "3300000100000000"}, /* a fragment */
        {false, "6000000000100040", "3300010500000000"}, /* an option beyond its header */
        {false, "6000000000100040", "3300000000000001"}, /* or without a length */
        {false, "6000000000080040", "3301010400000000"}, /* a header beyond what there is */
        {false, "6000000000080040", "3300"},
        {false, "6000000000081140", "3300010400000000"}, /* none that AH stands behind */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t headers[PACKET], before[PACKET];
        uint32_t head = bytes_of(rows[i].first, headers);
        if (headers[0] >> 4 == 6 && rows[i].rest != v6)
            head += bytes_of(v6, headers + head);
        head += bytes_of(rows[i].rest, headers + head);
        memcpy(before, headers, head);
        if (ah_covers(headers, head) != rows[i].fine)
            fail_msg("row %zu", i);
        assert_memory_equal(headers, before, head);
    }
    uint8_t much[AH_HEAD_MAX + 8] = {0x60, [6] = 0, [40] = 51, [41] = AH_HEAD_MAX / 8 - 5};
    assert_false(ah_covers(much, AH_HEAD_MAX + 8));
}

static void suites_of_esp_are_none_of_ah(void **state)
{
    (void)state;
    struct sa *sa;
    struct sa_params p = params_of(NULL_SHA256), ah = ah_params("sha256", false, false);
    p.proto = PROTOCOL_AH;
    assert_int_equal(sa_new(&sa, &p, 1), ERR_MISMATCH);
    ah.proto = PROTOCOL_ESP;
    assert_int_equal(sa_new(&sa, &ah, 1), ERR_MISMATCH);
    ah.proto = PROTOCOL_AH;
    ah.dir = SA_IN;
    ah.esn = true;
    ah.replay_window = 0;
    assert_int_equal(sa_new(&sa, &ah, 1), ERR_RANGE);
}

static int start(void **state)
{
    (void)state;
    return crypto_init() == OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packets_of_an_independent_program),
        cmocka_unit_test(headers_of_any_length_may_stand_in_front),
        cmocka_unit_test(the_longest_packet_harms_no_other),
        cmocka_unit_test(what_changes_on_the_way_may_and_nothing_else),
        cmocka_unit_test(lengths_that_lie_are_refused),
        cmocka_unit_test(fragments_are_refused),
        cmocka_unit_test(replays_are_refused_and_high_halves_inferred),
        cmocka_unit_test(limits_hold_as_for_esp),
        cmocka_unit_test(a_batch_goes_through),
        cmocka_unit_test(what_is_inside_has_to_be_the_sa_s),
        cmocka_unit_test(headers_that_it_can_not_cover_are_known),
        cmocka_unit_test(suites_of_esp_are_none_of_ah),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
