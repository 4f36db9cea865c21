/*
 * A pair of ESP SAs and the packets between them, for the tests of sealing and opening. In a header, so that each test
 * program has its own; include after cmocka.
 */
#ifndef ADIT_TEST_ESP_WIRE_H
#define ADIT_TEST_ESP_WIRE_H

#include <stdlib.h>
#include <string.h>

#include "crypto/secret.h"
#include "esp/esp.h"

#define SPI 0x12345678u
#define HEAD 64 /* before an inner packet */
#define ROOM 2048
#define BATCH TRANSFORM_BATCH

static const struct {
    const char *encr, *integ;
} suites[] = {
    {"aes128gcm16", NULL},         {"aes256gcm16", NULL},    {"chacha20poly1305", NULL},
    {"aes128", "sha256"},          {"aes256", "sha256"},     {"aes256", "sha384"},
    {"aes256", "sha512"},          {"null", "sha256"},       {"aes128", "sha512"},
    {"aes192gcm12", NULL},         {"aes128gcm8", NULL},     {"aes256ccm16", NULL},
    {"aes192ccm8", NULL},          {"aes128ccm8", NULL},     {"aes128ctr", "sha256"},
    {"aes256ctr", "sha512"},       {"aes256", "sha1"},       {"aes192", "aesxcbc"},
    {"aes128ctr", "aescmac"},      {"null", "aesxcbc"},      {"aes128gmac", NULL},
    {"aes256gmac", NULL},          {"aes256gcm16iiv", NULL}, {"aes128ccm8iiv", NULL},
    {"chacha20poly1305iiv", NULL},
};
#define SUITES (sizeof suites / sizeof suites[0])
enum { GCM128, GCM256, CHACHA, CBC128_SHA256, CBC256_SHA256, CBC256_SHA384, CBC256_SHA512, NULL_SHA256 };

static inline unsigned suite_index(const char *encr, const char *integ)
{
    for (unsigned i = 0; i < SUITES; i++)
        if (strcmp(suites[i].encr, encr) == 0 &&
            strcmp(suites[i].integ ? suites[i].integ : "", integ ? integ : "") == 0)
            return i;
    fail_msg("%s and %s are none of the suites above", encr, integ ? integ : "nothing");
    return 0;
}

static inline struct suite suite_at(unsigned i)
{
    const struct algorithm *encr = algorithm_by_keyword(suites[i].encr, strlen(suites[i].encr));
    const struct algorithm *integ = NULL;
    if (suites[i].integ)
        integ = algorithm_by_keyword(suites[i].integ, strlen(suites[i].integ));
    struct suite s;
    assert_non_null(encr);
    assert_int_equal(suite_of(&encr->t, integ ? &integ->t : NULL, &s), OK);
    return s;
}

/* Keys as in the vectors below: 00 01 02 … with salt a0 a1 a2 a3, and 80 81 82 … for integrity. */
static uint8_t encr_key[64], integ_key[64];

static inline void selector_of(struct selectors *s, const char *text)
{
    assert_int_equal(selectors_parse(text, s, NULL, 0), OK);
}

/* Parameters of the inbound half of a tunnel: 10.1/16 and 2001:db8:1::/48 there, 10.2/16 and 2001:db8:2::/48 here. */
static inline struct sa_params params_of(unsigned suite)
{
    struct sa_params p = {.dir = SA_IN, .spi = SPI, .suite = suite_at(suite), .engine = "auto", .replay_window = 1024};
    unsigned key = p.suite.encr_key_len - p.suite.salt_len;
    for (unsigned i = 0; i < sizeof encr_key; i++) {
        encr_key[i] = (uint8_t)(i < key ? i : 0xa0 + i - key);
        integ_key[i] = (uint8_t)(0x80 + i);
    }
    p.key = span_of(encr_key, p.suite.encr_key_len);
    p.integ_key = span_of(integ_key, p.suite.integ_key_len);
    selector_of(&p.local, "10.2.0.0/16, 2001:db8:2::/48");
    selector_of(&p.remote, "10.1.0.0/16, 2001:db8:1::/48");
    assert_int_equal(ip_parse("192.0.2.1", &p.path.remote.ip), OK);
    assert_int_equal(ip_parse("192.0.2.2", &p.path.local.ip), OK);
    return p;
}

static inline struct sa *sa_of(struct sa_params p, enum sa_dir dir)
{
    struct sa *sa;
    if (dir != p.dir) {
        struct selectors local = p.local;
        p.local = p.remote;
        p.remote = local;
        p.dir = dir;
    }
    assert_int_equal(sa_new(&sa, &p, 1), OK);
    return sa;
}

/* Packets on the way from one SA to the other. */
struct wire {
    struct esp_packet v[BATCH];
    uint8_t inner[BATCH][ROOM]; /* as they were before sealing */
    uint32_t inner_len[BATCH];
    uint8_t sent[BATCH][HEAD + ROOM], got[BATCH][HEAD + ROOM];
};

static struct wire w;

static inline uint32_t ipv4(uint8_t *p, uint32_t len, const char *src, const char *dst)
{
    struct ip a, b;
    assert_int_equal(ip_parse(src, &a), OK);
    assert_int_equal(ip_parse(dst, &b), OK);
    for (uint32_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 7 + len);
    uint8_t header[20] = {0x45, 0, (uint8_t)(len >> 8), (uint8_t)len, 0, 1, 0, 0, 64, 17};
    memcpy(header + 12, a.b, 4);
    memcpy(header + 16, b.b, 4);
    memcpy(p, header, 20);
    if (len >= 24)
        put_be16(p + 20, 1234), put_be16(p + 22, 53);
    return len;
}

static inline uint32_t ipv6(uint8_t *p, uint32_t len, const char *src, const char *dst)
{
    struct ip a, b;
    assert_int_equal(ip_parse(src, &a), OK);
    assert_int_equal(ip_parse(dst, &b), OK);
    for (uint32_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 5 + len);
    put_be32(p, 6u << 28);
    put_be16(p + 4, (uint16_t)(len - 40));
    p[6] = 17;
    p[7] = 64;
    memcpy(p + 8, a.b, 16);
    memcpy(p + 24, b.b, 16);
    return len;
}

/* Packet i of w becomes the inner packet that stands in w.inner[i], at a place from which it can be sealed. */
static inline void load(unsigned i, uint32_t len, uint8_t next_header)
{
    memcpy(w.sent[i] + HEAD, w.inner[i], len);
    w.inner_len[i] = len;
    w.v[i] = (struct esp_packet){.data = w.sent[i] + HEAD, .len = len, .next_header = next_header};
}

static inline void load_ipv4(unsigned i, uint32_t len)
{
    load(i, ipv4(w.inner[i], len, "10.1.0.5", "10.2.0.7"), NEXT_HEADER_IPV4);
}

static inline unsigned seal_all(struct sa *sa, unsigned n)
{
    unsigned sealed, events;
    assert_int_equal(esp_seal(sa, w.v, n, 5, &sealed, &events), OK);
    return sealed;
}

static inline unsigned open_all(struct sa *sa, unsigned n)
{
    unsigned events;
    for (unsigned i = 0; i < n; i++)
        w.v[i].dst = w.got[i];
    return esp_open(sa, w.v, n, 6, &events);
}

static inline void expect_delivered(unsigned i)
{
    assert_int_equal(w.v[i].verdict, OK);
    assert_ptr_equal(w.v[i].data, w.got[i]);
    assert_int_equal(w.v[i].len, w.inner_len[i]);
    assert_memory_equal(w.v[i].data, w.inner[i], w.inner_len[i]);
}

static inline void expect_drop(unsigned i, enum stat_id counter)
{
    assert_int_not_equal(w.v[i].verdict, OK);
    assert_string_equal(stat_name(w.v[i].drop), stat_name(counter));
}

/* A packet with any text (payload, padding and trailer) and any number, authentic all the same. */
static inline void craft(unsigned i, const struct sa_params *p, uint32_t seq, const uint8_t *text, uint32_t len)
{
    struct keyed *k;
    const struct suite *s = &p->suite;
    assert_int_equal(keyed_new(&k, s, TRANSFORM_SEAL, "auto", p->key, p->integ_key), OK);
    uint8_t *at = w.sent[i];
    memset(at, 0x33, 8u + s->iv_len);
    put_be32(at, p->spi);
    put_be32(at + 4, seq);
    uint8_t *body = at + 8 + s->iv_len;
    memcpy(body, text, len);
    uint8_t implicit[COUNTER_IV];
    put_be64(implicit, seq);
    struct transform_op op = {.aad = at,
                              .aad_len = 8,
                              .iv = s->implicit_iv ? implicit : at + 8,
                              .src = body,
                              .dst = body,
                              .icv = body + len,
                              .len = len};
    assert_int_equal(keyed_seal(k, &op, 1), OK);
    keyed_free(k);
    w.v[i] = (struct esp_packet){.data = at, .len = 8u + s->iv_len + len + s->icv_len};
}

/* The same with a 28-byte inner packet and the trailer given. */
static inline void craft_trailer(unsigned i, const struct sa_params *p, uint32_t seq, const char *trailer, uint32_t len)
{
    uint8_t text[300];
    w.inner_len[i] = ipv4(w.inner[i], 28, "10.1.0.5", "10.2.0.7");
    memcpy(text, w.inner[i], 28);
    memcpy(text + 28, trailer, len);
    craft(i, p, seq, text, 28 + len);
}

static inline uint32_t unhex(const char *hex, uint8_t *out)
{
    uint32_t n = 0;
    for (; hex[0]; hex += 2) {
        char byte[3] = {hex[0], hex[1], 0};
        out[n++] = (uint8_t)strtoul(byte, NULL, 16);
    }
    return n;
}

static inline int start_crypto(void **state)
{
    (void)state;
    return crypto_init() == OK ? 0 : -1;
}

#endif
