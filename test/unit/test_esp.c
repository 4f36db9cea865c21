/* ESP by batches: sealing and its limits, round trips, packets of other implementations (RFC 4303, 4106, 7634, 3602). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "test/unit/esp_wire.h"
#include "test/vectors/esp.h"

/* -- round trips -- */

static void round_trip(struct sa *out, struct sa *in, unsigned n, uint32_t first_len, bool v6)
{
    for (unsigned i = 0; i < n; i++) {
        uint32_t len = first_len + i % 5;
        if (v6)
            load(i, ipv6(w.inner[i], len, "2001:db8:1::5", "2001:db8:2::7"), NEXT_HEADER_IPV6);
        else
            load_ipv4(i, len);
    }
    assert_int_equal(seal_all(out, n), n);
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(w.v[i].len, esp_sealed_len(&out->params.suite, w.inner_len[i]));
        assert_ptr_equal(w.v[i].data, w.sent[i] + HEAD - esp_headroom(&out->params.suite));
        assert_int_equal(get_be32(w.v[i].data), SPI);
        if (out->params.suite.mode != CIPHER_NULL && out->params.suite.mode != CIPHER_GMAC)
            assert_memory_not_equal(w.v[i].data + esp_headroom(&out->params.suite), w.inner[i], 16);
    }
    assert_int_equal(open_all(in, n), n);
    for (unsigned i = 0; i < n; i++) {
        expect_delivered(i);
        assert_int_equal(w.v[i].next_header, v6 ? NEXT_HEADER_IPV6 : NEXT_HEADER_IPV4);
    }
}

static void every_suite_and_size_and_batch_comes_back(void **state)
{
    (void)state;
    static const uint32_t lens[] = {20, 21, 28, 40, 63, 64, 100, 576, 1024, 1400, 1496};
    static const unsigned batches[] = {1, 2, 3, 8, 15, 16, 17, 63, 64};
    for (unsigned k = 0; k < SUITES * 2; k++) {
        struct sa_params p = params_of(k / 2);
        p.esn = k & 1;
        struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
        for (unsigned l = 0; l < sizeof lens / sizeof lens[0]; l++)
            for (unsigned b = 0; b < sizeof batches / sizeof batches[0]; b++) {
                round_trip(out, in, batches[b], lens[l], false);
                round_trip(out, in, batches[b], lens[l] < 40 ? 40 : lens[l], true);
            }
        uint64_t packets = 2 * sizeof lens / sizeof lens[0] * (1 + 2 + 3 + 8 + 15 + 16 + 17 + 63 + 64);
        assert_int_equal(out->seq, packets);
        assert_int_equal(out->packets, packets);
        assert_int_equal(in->packets, packets);
        assert_int_equal(in->bytes, out->bytes);
        assert_int_equal(out->last_used, 5);
        assert_int_equal(in->last_used, 6);
        assert_true(in->in_use);
        sa_free(out);
        sa_free(in);
    }
}

static void sealing_writes_nothing_outside_the_packet(void **state)
{
    (void)state;
    for (unsigned k = 0; k < SUITES; k++) {
        struct sa *out = sa_of(params_of(k), SA_OUT);
        for (uint32_t len = 20; len < 60; len++) {
            memset(w.sent[0], 0xee, sizeof w.sent[0]);
            load_ipv4(0, len);
            assert_int_equal(seal_all(out, 1), 1);
            for (uint8_t *p = w.sent[0]; p < w.sent[0] + sizeof w.sent[0]; p++)
                if (p < w.v[0].data || p >= w.v[0].data + w.v[0].len)
                    assert_int_equal(*p, 0xee);
        }
        sa_free(out);
    }
}

static void lengths_agree_with_the_room_they_need(void **state)
{
    (void)state;
    for (unsigned k = 0; k < SUITES; k++) {
        struct suite s = suite_at(k);
        for (uint32_t room = 0; room < 1600; room++) {
            uint32_t max = esp_inner_max(&s, room);
            assert_true(max == 0 || esp_sealed_len(&s, max) <= room);
            assert_true(esp_sealed_len(&s, max + 1) > room);
        }
        assert_int_equal((esp_sealed_len(&s, 100) - s.icv_len - esp_headroom(&s)) % 4, 0); /* RFC 4303 section 2.4 */
    }
}

static void transport_mode_carries_the_payload_and_its_protocol(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    p.mode = MODE_TRANSPORT;
    selector_of(&p.local, "192.0.2.2[udp/53]");
    selector_of(&p.remote, "192.0.2.1");
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    static const uint8_t udp[12] = {0x04, 0xd2, 0, 53, 0, 12, 0, 0, 'a', 'b', 'c', 'd'};
    for (unsigned i = 0; i < 3; i++) {
        memcpy(w.inner[i], udp, sizeof udp);
        w.inner[i][3] = i == 1 ? 54 : 53;
        load(i, sizeof udp, i == 2 ? 6 : 17);
    }
    assert_int_equal(seal_all(out, 3), 3);
    assert_int_equal(open_all(in, 3), 1);
    expect_delivered(0);
    assert_int_equal(w.v[0].next_header, 17);
    expect_drop(1, STAT_DROP_IN_SELECTOR); /* another port */
    expect_drop(2, STAT_DROP_IN_SELECTOR); /* another protocol */

    struct path moved = p.path;
    assert_int_equal(ip_parse("192.0.2.99", &moved.remote.ip), OK);
    sa_move(in, &moved);
    load(0, sizeof udp, 17);
    assert_int_equal(seal_all(out, 1), 1);
    assert_int_equal(open_all(in, 1), 0);
    expect_drop(0, STAT_DROP_IN_SELECTOR);
    sa_free(out);
    sa_free(in);
}

/* Over IPv6, to port 53 of ours alone. */
static struct sa_params transport_to_dns(void)
{
    struct sa_params p = params_of(GCM256);
    p.mode = MODE_TRANSPORT;
    assert_int_equal(ip_parse("2001:db8:1::1", &p.path.remote.ip), OK);
    assert_int_equal(ip_parse("2001:db8:2::1", &p.path.local.ip), OK);
    selector_of(&p.local, "2001:db8:2::1[udp/53]");
    selector_of(&p.remote, "2001:db8:1::1");
    return p;
}

static void transport_mode_over_ipv6_is_checked_likewise(void **state)
{
    (void)state;
    struct sa_params p = transport_to_dns();
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    /* UDP; then UDP behind destination options; then a port that isn't allowed there */
    static const uint8_t payload[16] = {17, 0, 1, 4, 0, 0, 0, 0, 0x04, 0xd2, 0, 53, 0, 8, 0, 0};
    memcpy(w.inner[0], payload + 8, 8);
    memcpy(w.inner[1], payload, 16);
    memcpy(w.inner[2], payload, 16);
    w.inner[2][11] = 54;
    load(0, 8, 17);
    load(1, 16, 60);
    load(2, 16, 60);
    assert_int_equal(seal_all(out, 3), 3);
    assert_int_equal(open_all(in, 3), 2);
    expect_delivered(0);
    expect_delivered(1);
    assert_int_equal(w.v[1].next_header, 60);
    expect_drop(2, STAT_DROP_IN_SELECTOR);

    sa_move(in, &(struct path){0}); /* no path, no addresses to be right */
    load(0, 8, 17);
    assert_int_equal(seal_all(out, 1), 1);
    assert_int_equal(open_all(in, 1), 0);
    expect_drop(0, STAT_DROP_IN_SELECTOR);
    sa_free(out);
    sa_free(in);
}

/* Extension headers of so many bytes, the last of them around a whole packet (RFC 6946), and UDP. Returns their length. */
static uint32_t load_behind_headers(unsigned i, uint32_t options, bool atomic, uint16_t port)
{
    uint8_t *p = w.inner[i];
    uint32_t at = options;
    memset(p, 0, options + 8);
    p[0] = atomic ? 44 : 17;
    p[1] = (uint8_t)(options / 8 - 1);
    for (uint32_t k = 2; k < options; k += 2u + p[k + 1]) { /* PadN */
        p[k] = 1;
        p[k + 1] = (uint8_t)(options - k - 2 > 255 ? options - k - 2 == 256 ? 200 : 255 : options - k - 2);
    }
    if (atomic) {
        put_be32(p + at, 17u << 24);
        put_be32(p + at + 4, 7);
        at += 8;
    }
    put_be16(p + at, 1234);
    put_be16(p + at + 2, port);
    put_be32(p + at + 4, 8u << 16);
    load(i, at + 8, 60);
    return at + 8;
}

/* RFC 8200 lets destination options have 2,048 bytes: there is no length from which on they hide the ports. */
static void transport_mode_looks_behind_all_extension_headers(void **state)
{
    (void)state;
    struct sa_params p = transport_to_dns();
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    for (uint32_t options = 8; options <= 1800; options += 8)
        for (unsigned atomic = 0; atomic < 2; atomic++) {
            (void)load_behind_headers(0, options, atomic, 53);
            uint32_t len = load_behind_headers(1, options, atomic, 54);
            (void)load_behind_headers(2, options, atomic, 53);
            w.v[2].len = len - 5; /* no whole port */
            assert_int_equal(seal_all(out, 3), 3);
            assert_int_equal(open_all(in, 3), 1);
            expect_delivered(0);
            expect_drop(1, STAT_DROP_IN_SELECTOR);
            expect_drop(2, STAT_DROP_IN_MALFORMED);
        }
    sa_free(out);
    sa_free(in);
}

/* RFC 4301 section 6.2: a router's word about a packet that this SA could have answered. */
static void transport_mode_lets_errors_through_by_what_they_quote(void **state)
{
    (void)state;
    struct sa_params p = transport_to_dns();
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    for (unsigned i = 0; i < 3; i++) {
        uint8_t *e = w.inner[i], *quote = e + 16; /* destination options, ICMPv6, an IPv6 header, UDP */
        static const uint8_t head[] = {58, 0, 1, 4, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0x60, 0, 0, 0, 0, 8, 17, 64};
        memcpy(e, head, sizeof head);
        e[8] = i == 2 ? 129 : 1; /* an echo reply quotes nothing */
        memcpy(quote + 8, p.path.local.ip.b, 16);
        memcpy(quote + 24, p.path.remote.ip.b, 16);
        put_be16(quote + 40, i == 1 ? 54 : 53);
        put_be16(quote + 42, 1234);
        put_be32(quote + 44, 8u << 16);
        load(i, 16 + 48, 60);
    }
    assert_int_equal(seal_all(out, 3), 3);
    assert_int_equal(open_all(in, 3), 1);
    expect_delivered(0);
    expect_drop(1, STAT_DROP_IN_SELECTOR);
    expect_drop(2, STAT_DROP_IN_SELECTOR);
    sa_free(out);
    sa_free(in);
}

/* -- known packets -- */

static void rfc_7634_appendix_a_opens(void **state)
{
    (void)state;
    struct sa_params p = params_of(CHACHA);
    uint8_t key[36];
    for (unsigned i = 0; i < 36; i++)
        key[i] = (uint8_t)(0x80 + i);
    p.key = span_of(key, 36);
    p.spi = 0x01020304;
    selector_of(&p.remote, "198.51.100.0/24");
    selector_of(&p.local, "192.0.2.0/24");
    w.inner_len[0] =
        unhex("45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec100007362708090a0b0c0d0e0f10111213"
              "1415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637",
              w.inner[0]);
    static const char packet[] =
        "010203040000000510111213141516172403942"
        "8b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c614ee8099d52844eb61aa95df"
        "ab4c02f72aa71e7c4c4f64c9befe2facc638e8f3cbec163fac469b502773f6fb94e664da9165b82829f641e0"
        "76aaa8266b7fb0f7b11b369907e1ad43";
    struct sa *in = sa_of(p, SA_IN);
    w.v[0] = (struct esp_packet){.data = w.sent[0], .len = unhex(packet, w.sent[0])};
    assert_int_equal(open_all(in, 1), 1);
    expect_delivered(0);
    sa_free(in);

    /* Our IV is the sequence number, so only what the AAD (number 5 there) doesn't touch can be sealed to the same. */
    p.esn = true;
    struct sa *out = sa_of(p, SA_OUT);
    out->seq = UINT64_C(0x1011121314151616);
    uint8_t want[200];
    uint32_t len = unhex(packet, want);
    load(0, w.inner_len[0], NEXT_HEADER_IPV4);
    assert_int_equal(seal_all(out, 1), 1);
    assert_int_equal(w.v[0].len, len);
    assert_memory_equal(w.v[0].data + 8, want + 8, len - 8 - 16);
    sa_free(out);
}

/*
 * Made with Python's cryptography (AESGCM, ChaCha20Poly1305, Cipher/CBC and hmac), the first and the fourth checked with
 * Scapy's SecurityAssociation. key = 00 … 1f, salt = a0a1a2a3, HMAC-SHA2-256 key = 80 … 9f, CBC IV = c0 … cf,
 * SPI 12345678; counter modes: IV = the 64-bit sequence number, AAD = SPI, number (with ESN: SPI, high, low).
 */
static const char inner_hex[] =
    "4500003000014000401100000a0100050a02000704d210e1001c0000404142434445464748494a4b4c4d4e4f50515253";
static const struct {
    unsigned suite;
    bool esn;
    uint64_t seq;
    const char *packet;
} known[] = {
    {GCM256, false, 7,
     "12345678000000070000000000000007357b3c0c56e3bbd5294e9a643dba169c08763991933c38953834617af5a50d86"
     "b642761c51837cccfb63c4e31c6b00f5a448c5a50ee3a9277dfbc03c3d8c3d3d3a2e1acf"},
    {GCM256, true, UINT64_C(3) << 32 | 9,
     "1234567800000009000000030000000971f96113b9ef034eb3508918ac05d926217cdbe606d3f2ce8b8571026831d58d"
     "81e882534d9e3f6347b40e33e282f6c855292e1f76973bc657a9905354c0a11c7c20b424"},
    {CHACHA, true, UINT64_C(1) << 32,
     "12345678000000000000000100000000f8c57f50a33c7a506350f8c0df322578ac2f5ce7cb0b38427bb70b920c57652c"
     "1a93f7bff7ff8d764cdf197f4565220c907750510756758fed9c4a5721ceb7f0f0c95d90"},
    {CBC256_SHA256, false, 7,
     "1234567800000007c0c1c2c3c4c5c6c7c8c9cacbcccdcecf107fd1b4bce75e02c82112eca62706f33c51dddb768b5295"
     "1a3f45250e412290e83a696b74bb1c43551aa70f07ebcf3e2edb21425c7c80bee8b2e183de8366acf680b8fd706a38f0"
     "9687ed4658cada54"},
    {CBC256_SHA256, true, UINT64_C(1) << 32 | 2,
     "1234567800000002c0c1c2c3c4c5c6c7c8c9cacbcccdcecf107fd1b4bce75e02c82112eca62706f33c51dddb768b5295"
     "1a3f45250e412290e83a696b74bb1c43551aa70f07ebcf3e2edb21425c7c80bee8b2e183de8366acc99e1193bc7e48a2"
     "2a6491981d0dbe7d"},
    {NULL_SHA256, false, 7,
     "12345678000000074500003000014000401100000a0100050a02000704d210e1001c0000404142434445464748494a4b"
     "4c4d4e4f50515253010202042cf2463400f8a331d458adb4bd0629bd"},
    {NULL_SHA256, true, UINT64_C(1) << 32 | 2,
     "12345678000000024500003000014000401100000a0100050a02000704d210e1001c0000404142434445464748494a4b"
     "4c4d4e4f50515253010202049779af7f07c5d8c95bc0df21b0016350"},
};

static void seals_and_opens_exactly(unsigned suite, bool esn, uint64_t seq, const char *packet)
{
    struct sa_params p = params_of(suite);
    p.esn = esn;
    struct sa *out = sa_of(p, SA_OUT), *in = sa_of(p, SA_IN);
    uint8_t want[200];
    uint32_t len = unhex(packet, want), iv_len = p.suite.iv_len;
    w.inner_len[0] = unhex(inner_hex, w.inner[0]);

    out->seq = seq - 1;
    if (out->iv_pool) {
        out->iv_left = iv_len;
        memcpy(out->iv_pool + SA_IV_POOL - iv_len, want + 8, iv_len);
    }
    load(0, w.inner_len[0], NEXT_HEADER_IPV4);
    assert_int_equal(seal_all(out, 1), 1);
    assert_int_equal(w.v[0].len, len);
    assert_memory_equal(w.v[0].data, want, len);

    in->replay.top = seq > 5 ? seq - 5 : 0;
    w.v[0] = (struct esp_packet){.data = want, .len = len};
    assert_int_equal(open_all(in, 1), 1);
    expect_delivered(0);
    sa_free(out);
    sa_free(in);
}

static void packets_of_other_implementations_seal_and_open_exactly(void **state)
{
    (void)state;
    for (unsigned i = 0; i < sizeof known / sizeof known[0]; i++)
        seals_and_opens_exactly(known[i].suite, known[i].esn, known[i].seq, known[i].packet);
    for (unsigned i = 0; i < sizeof esp_vectors / sizeof esp_vectors[0]; i++) {
        const struct esp_vector *v = &esp_vectors[i];
        seals_and_opens_exactly(suite_index(v->encr, v->integ), v->esn, v->seq, v->packet);
    }
}

/* -- numbers, IVs, limits of the sender -- */

static void first_number_is_one(void **state)
{
    (void)state;
    struct sa *out = sa_of(params_of(GCM256), SA_OUT);
    for (unsigned i = 0; i < 3; i++)
        load_ipv4(i, 60);
    assert_int_equal(seal_all(out, 3), 3);
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(get_be32(w.v[i].data + 4), i + 1);
    sa_free(out);
}

static void numbers_are_used_up_when_the_engine_fails(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    struct sa *out = sa_of(p, SA_OUT);
    struct keyed *good = out->keyed;
    assert_int_equal(keyed_new(&out->keyed, &p.suite, TRANSFORM_OPEN, "auto", p.key, p.integ_key), OK);
    unsigned sealed, events;
    for (unsigned i = 0; i < 3; i++)
        load_ipv4(i, 60);
    assert_int_equal(esp_seal(out, w.v, 3, 1, &sealed, &events), ERR_CRYPTO); /* a key for opening can't seal */
    assert_int_equal(sealed, 0);
    for (unsigned i = 0; i < 3; i++) {
        expect_drop(i, STAT_DROP_OUT_CRYPTO);
        assert_ptr_equal(w.v[i].data, w.sent[i] + HEAD);
        assert_int_equal(w.v[i].len, 60);
    }
    assert_int_equal(out->packets, 0);
    assert_int_equal(out->bytes, 0);
    keyed_free(out->keyed);
    out->keyed = good;
    load_ipv4(0, 60);
    assert_int_equal(seal_all(out, 1), 1);
    assert_int_equal(get_be64(w.v[0].data + 8), 4);
    sa_free(out);
}

static void no_nonce_is_ever_used_twice(void **state)
{
    (void)state;
    for (unsigned k = 0; k < 2; k++) {
        struct sa_params p = params_of(k ? CHACHA : GCM256);
        p.esn = true;
        struct sa *out = sa_of(p, SA_OUT);
        out->seq = UINT32_MAX - 10000; /* across the wrap of the low half */
        uint64_t last = out->seq;
        for (unsigned total = 0; total < 20000;) {
            unsigned n = 1 + total * 7 % BATCH;
            for (unsigned i = 0; i < n; i++)
                load_ipv4(i, 40);
            assert_int_equal(seal_all(out, n), n);
            for (unsigned i = 0; i < n; i++) {
                uint64_t iv = get_be64(w.v[i].data + 8);
                assert_true(iv > last); /* strictly rising, so all differ */
                last = iv;
            }
            total += n;
        }
        assert_true(last > UINT32_MAX);
        sa_free(out);
    }
}

static int compare_iv(const void *a, const void *b)
{
    return memcmp(a, b, 16);
}

static void cbc_ivs_differ_and_do_not_count(void **state)
{
    (void)state;
    enum { N = 64 * 100 };
    uint8_t(*iv)[16] = calloc(N, 16);
    struct sa *out = sa_of(params_of(CBC256_SHA256), SA_OUT);
    unsigned bits = 0;
    for (unsigned total = 0; total < N; total += BATCH) {
        for (unsigned i = 0; i < BATCH; i++)
            load_ipv4(i, 40);
        assert_int_equal(seal_all(out, BATCH), BATCH);
        for (unsigned i = 0; i < BATCH; i++)
            memcpy(iv[total + i], w.v[i].data + 8, 16);
    }
    for (unsigned i = 0; i < N; i++)
        for (unsigned k = 0; k < 16; k++)
            bits += (unsigned)__builtin_popcount(iv[i][k]);
    assert_in_range(bits, N * 64 - N * 2, N * 64 + N * 2); /* half of all bits, within many deviations */
    qsort(iv, N, 16, compare_iv);
    for (unsigned i = 1; i < N; i++)
        assert_memory_not_equal(iv[i - 1], iv[i], 16);
    free(iv);
    sa_free(out);
}

/* Seals one packet a call and returns the events. */
static unsigned seal_one(struct sa *sa, enum err want)
{
    unsigned sealed, events;
    load_ipv4(0, 100);
    assert_int_equal(esp_seal(sa, w.v, 1, 1, &sealed, &events), want);
    assert_int_equal(sealed, want == OK ? 1 : 0);
    return events;
}

static void sender_without_esn_stops_at_the_last_number(void **state)
{
    (void)state;
    struct sa *out = sa_of(params_of(GCM256), SA_OUT);
    out->seq = UINT32_MAX - 3;
    unsigned sealed, events;
    for (unsigned i = 0; i < 8; i++)
        load_ipv4(i, 100);
    assert_int_equal(esp_seal(out, w.v, 8, 1, &sealed, &events), OK);
    assert_int_equal(sealed, 3);
    assert_int_equal(events, SA_EVENT_SOFT | SA_EVENT_HARD);
    assert_int_equal(get_be32(w.v[2].data + 4), UINT32_MAX);
    for (unsigned i = 3; i < 8; i++) {
        expect_drop(i, STAT_DROP_OUT_EXPIRED);
        assert_ptr_equal(w.v[i].data, w.sent[i] + HEAD);
        assert_memory_equal(w.v[i].data, w.inner[i], 100);
    }
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(seal_one(out, ERR_EXPIRED), SA_EVENT_NONE);
    assert_int_equal(out->seq, UINT32_MAX);
    sa_free(out);
}

static void sender_with_esn_crosses_2_32_and_stops_at_2_64(void **state)
{
    (void)state;
    struct sa_params p = params_of(GCM256);
    p.esn = true;
    struct sa *out = sa_of(p, SA_OUT);
    out->seq = UINT32_MAX;
    assert_int_equal(seal_one(out, OK), SA_EVENT_NONE);
    assert_int_equal(get_be32(w.v[0].data + 4), 0);
    out->seq = UINT64_MAX - 1;
    assert_int_equal(seal_one(out, OK), SA_EVENT_SOFT | SA_EVENT_HARD);
    assert_int_equal(get_be32(w.v[0].data + 4), UINT32_MAX);
    assert_int_equal(seal_one(out, ERR_EXPIRED), SA_EVENT_NONE);
    assert_true(out->seq == UINT64_MAX);
    sa_free(out);
}

static void rekey_is_asked_for_once_and_well_before_the_last_number(void **state)
{
    (void)state;
    struct sa *out = sa_of(params_of(GCM256), SA_OUT);
    assert_true(out->seq_soft < UINT32_MAX - (1u << 28));
    out->seq = out->seq_soft - 2;
    assert_int_equal(seal_one(out, OK), SA_EVENT_NONE);
    assert_int_equal(seal_one(out, OK), SA_EVENT_SOFT);
    assert_int_equal(seal_one(out, OK), SA_EVENT_NONE);
    sa_free(out);
}

static void packet_limits_count_in_both_directions(void **state)
{
    (void)state;
    struct sa_params p = params_of(CHACHA);
    p.soft_packets = 3;
    p.hard_packets = 5;
    struct sa *out = sa_of(p, SA_OUT), *in;
    for (unsigned i = 1; i <= 7; i++) {
        unsigned want = i == 3 ? SA_EVENT_SOFT : i == 5 ? SA_EVENT_HARD : SA_EVENT_NONE;
        assert_int_equal(seal_one(out, i <= 5 ? OK : ERR_EXPIRED), want);
    }
    assert_int_equal(out->packets, 5);
    sa_free(out);

    in = sa_of(p, SA_IN);
    p.soft_packets = p.hard_packets = 0;
    out = sa_of(p, SA_OUT);
    for (unsigned i = 1; i <= 7; i++) {
        unsigned events, want = i == 3 ? SA_EVENT_SOFT : i == 5 ? SA_EVENT_HARD : SA_EVENT_NONE;
        assert_int_equal(seal_one(out, OK), SA_EVENT_NONE);
        w.v[0].dst = w.got[0];
        assert_int_equal(esp_open(in, w.v, 1, 1, &events), i <= 5);
        assert_int_equal(events, want);
        if (i > 5)
            expect_drop(0, STAT_DROP_IN_EXPIRED);
    }
    sa_free(in);

    p.hard_packets = 5;
    in = sa_of(p, SA_IN); /* the same limit in the middle of a batch */
    for (unsigned i = 0; i < 8; i++)
        load_ipv4(i, 60);
    assert_int_equal(seal_all(out, 8), 8);
    assert_int_equal(open_all(in, 8), 5);
    for (unsigned i = 5; i < 8; i++)
        expect_drop(i, STAT_DROP_IN_EXPIRED);
    sa_free(out);
    sa_free(in);
}

static void byte_limits_end_an_sa_for_good(void **state)
{
    (void)state;
    struct sa_params p = params_of(CBC128_SHA256);
    p.soft_bytes = 250;
    p.hard_bytes = 420;
    struct sa *out = sa_of(p, SA_OUT);
    assert_int_equal(seal_one(out, OK), SA_EVENT_NONE);
    assert_int_equal(seal_one(out, OK), SA_EVENT_NONE);
    assert_int_equal(seal_one(out, OK), SA_EVENT_SOFT);
    assert_int_equal(seal_one(out, OK), SA_EVENT_NONE);
    assert_int_equal(seal_one(out, ERR_EXPIRED), SA_EVENT_HARD); /* 500 would pass 420 */
    unsigned sealed, events;
    load_ipv4(0, 20); /* 420 would not, but it is over */
    assert_int_equal(esp_seal(out, w.v, 1, 1, &sealed, &events), ERR_EXPIRED);
    assert_int_equal(out->bytes, 400);
    sa_free(out);

    struct sa *in = sa_of(p, SA_IN);
    p.soft_bytes = p.hard_bytes = 0;
    out = sa_of(p, SA_OUT);
    for (unsigned i = 0; i < 6; i++)
        load_ipv4(i, 100);
    assert_int_equal(seal_all(out, 6), 6);
    for (unsigned i = 0; i < 6; i++)
        w.v[i].dst = w.got[i];
    assert_int_equal(esp_open(in, w.v, 6, 1, &events), 4);
    assert_int_equal(events, SA_EVENT_SOFT | SA_EVENT_HARD);
    expect_drop(4, STAT_DROP_IN_EXPIRED);
    expect_drop(5, STAT_DROP_IN_EXPIRED);
    sa_free(out);
    sa_free(in);
}

static void suites_of_128_bit_blocks_have_a_byte_limit_of_their_own(void **state)
{
    (void)state;
    static const unsigned limited[] = {GCM256, CBC256_SHA256};
    for (unsigned i = 0; i < 2; i++) {
        struct sa_params p = params_of(limited[i]);
        p.esn = true;
        struct sa *out = sa_of(p, SA_OUT);
        out->bytes = out->byte_soft - 100;
        assert_true(out->byte_soft <= UINT64_C(1) << 40);
        assert_int_equal(seal_one(out, OK), SA_EVENT_SOFT);
        out->bytes = out->byte_hard - 99;
        assert_int_equal(seal_one(out, ERR_EXPIRED), SA_EVENT_HARD);
        sa_free(out);
    }
}

/* -- what sa_new refuses -- */

static enum err try_params(const struct sa_params *p)
{
    struct sa *sa = NULL;
    enum err e = sa_new(&sa, p, 1);
    sa_free(sa);
    return e;
}

static void unsafe_parameters_are_refused(void **state)
{
    (void)state;
    struct sa_params good = params_of(NULL_SHA256), p = good;
    assert_int_equal(try_params(&p), OK);
    p.suite.integ.id = INTEG_NONE; /* ESP with neither, or encryption alone: RFC 4301 section 4.2 */
    p.suite.icv_len = p.suite.integ_key_len = 0;
    assert_int_equal(try_params(&p), ERR_MISMATCH);
    p = params_of(CBC256_SHA256);
    p.suite.integ.id = INTEG_NONE;
    assert_int_equal(try_params(&p), ERR_MISMATCH);
    p = params_of(GCM256);
    for (p.spi = 0; p.spi < 256; p.spi += 51) /* reserved, and 0 is never sent */
        assert_int_equal(try_params(&p), ERR_RANGE);
    p.spi = 256;
    assert_int_equal(try_params(&p), OK);
    p.key.len--;
    assert_int_equal(try_params(&p), ERR_RANGE);
    p = params_of(GCM256);
    p.replay_window = 0; /* RFC 4303 section 3.4.3 leaves that to the receiver … */
    assert_int_equal(try_params(&p), OK);
    p.esn = true; /* … but there is no high half without a window */
    assert_int_equal(try_params(&p), ERR_RANGE);
    p.replay_window = 31;
    assert_int_equal(try_params(&p), ERR_RANGE);
    p.replay_window = 65537;
    assert_int_equal(try_params(&p), ERR_RANGE);
    p = params_of(GCM256);
    p.remote.n = 0;
    assert_int_equal(try_params(&p), ERR_MISMATCH);
}

static void key_spans_are_not_kept(void **state)
{
    (void)state;
    struct sa *sa = sa_of(params_of(CBC256_SHA256), SA_IN);
    assert_null(sa->params.key.data);
    assert_null(sa->params.integ_key.data);
    sa_free(sa);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_suite_and_size_and_batch_comes_back),
        cmocka_unit_test(sealing_writes_nothing_outside_the_packet),
        cmocka_unit_test(lengths_agree_with_the_room_they_need),
        cmocka_unit_test(transport_mode_carries_the_payload_and_its_protocol),
        cmocka_unit_test(transport_mode_over_ipv6_is_checked_likewise),
        cmocka_unit_test(transport_mode_looks_behind_all_extension_headers),
        cmocka_unit_test(transport_mode_lets_errors_through_by_what_they_quote),
        cmocka_unit_test(rfc_7634_appendix_a_opens),
        cmocka_unit_test(packets_of_other_implementations_seal_and_open_exactly),
        cmocka_unit_test(first_number_is_one),
        cmocka_unit_test(numbers_are_used_up_when_the_engine_fails),
        cmocka_unit_test(no_nonce_is_ever_used_twice),
        cmocka_unit_test(cbc_ivs_differ_and_do_not_count),
        cmocka_unit_test(sender_without_esn_stops_at_the_last_number),
        cmocka_unit_test(sender_with_esn_crosses_2_32_and_stops_at_2_64),
        cmocka_unit_test(rekey_is_asked_for_once_and_well_before_the_last_number),
        cmocka_unit_test(packet_limits_count_in_both_directions),
        cmocka_unit_test(byte_limits_end_an_sa_for_good),
        cmocka_unit_test(suites_of_128_bit_blocks_have_a_byte_limit_of_their_own),
        cmocka_unit_test(unsafe_parameters_are_refused),
        cmocka_unit_test(key_spans_are_not_kept),
    };
    return cmocka_run_group_tests_name("esp", tests, start_crypto, NULL);
}
