/* SA payloads: offers, the choice among them, answers (RFC 7296 sections 2.7 and 3.3). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "crypto/secret.h"
#include "ike/proposal.h"

/* -- an SA payload's body, written byte by byte: what the builder would never write -- */

struct sa {
    uint8_t b[8192];
    size_t len, proposal_at, transform_at;
};

static void raw(struct sa *s, const void *bytes, size_t n)
{
    memcpy(s->b + s->len, bytes, n);
    s->len += n;
}

static void proposal(struct sa *s, uint8_t number, uint8_t protocol, const void *spi, uint8_t spi_len)
{
    uint8_t head[8] = {0, 0, 0, 0, number, protocol, spi_len, 0};
    if (s->len)
        s->b[s->proposal_at] = 2;
    s->proposal_at = s->len;
    raw(s, head, sizeof head);
    raw(s, spi, spi_len);
    put_be16(s->b + s->proposal_at + 2, (uint16_t)(s->len - s->proposal_at));
}

/* Attributes as they are; NULL for none. */
static void transform(struct sa *s, uint8_t type, uint16_t id, const void *attributes, size_t n)
{
    uint8_t head[8] = {0, 0, 0, (uint8_t)(8 + n), type, 0, 0, 0};
    put_be16(head + 6, id);
    if (s->b[s->proposal_at + 7]++)
        s->b[s->transform_at] = 3;
    s->transform_at = s->len;
    raw(s, head, sizeof head);
    raw(s, attributes ? attributes : "", n);
    put_be16(s->b + s->proposal_at + 2, (uint16_t)(s->len - s->proposal_at));
}

#define PLAIN(s, type, id) transform(s, type, id, NULL, 0)

static void aes(struct sa *s, uint16_t id, uint16_t bits)
{
    uint8_t attribute[4] = {0x80, 14};
    put_be16(attribute + 2, bits);
    transform(s, TRANSFORM_ENCR, id, attribute, 4);
}

#define ESP_SPI "\xc0\xff\xee\x01"

/* The usual IKE offer of one proposal: AES-GCM 256, SHA2-256, curve25519. */
static struct sa ike_offer(void)
{
    struct sa s = {.len = 0};
    proposal(&s, 1, PROTOCOL_IKE, "", 0);
    aes(&s, ENCR_AES_GCM_16, 256);
    PLAIN(&s, TRANSFORM_PRF, PRF_HMAC_SHA2_256);
    PLAIN(&s, TRANSFORM_KE, KE_CURVE25519);
    return s;
}

static struct sa esp_offer(void)
{
    struct sa s = {.len = 0};
    proposal(&s, 1, PROTOCOL_ESP, ESP_SPI, 4);
    aes(&s, ENCR_AES_GCM_16, 256);
    PLAIN(&s, TRANSFORM_ESN, ESN_NO);
    return s;
}

static struct proposals configured(const char *text, enum protocol_id protocol)
{
    struct proposals p;
    char why[200] = "";
    if (proposals_parse(text, protocol, &p, why, sizeof why) != OK)
        fail_msg("%s: %s", text, why);
    return p;
}

static enum err choose(const struct sa *s, const char *ours, enum protocol_id protocol, struct choice *c)
{
    struct proposals p = configured(ours, protocol);
    char why[200];
    return proposal_choose(span_of(s->b, s->len), &p, KE_NONE, true, c, why, sizeof why);
}

#define IKE_GCM "aes256gcm16-prfsha256-x25519"

/* -- offers -- */

static void offer_has_the_wire_form_of_the_rfc(void **state)
{
    (void)state;
    static const uint8_t want[] = {
        2, 0, 0, 44, 1, 3, 4, 3,  0xc0, 0xff, 0xee, 0x01, /* proposal 1, ESP, SPI, three transforms */
        3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14,   1,    0,    /* AES-GCM, Key Length 256 as type and value */
        3, 0, 0, 12, 1, 0, 0, 20, 0x80, 14,   0,    128,  /* AES-GCM, 128 */
        0, 0, 0, 8,  5, 0, 0, 0,                          /* no extended sequence numbers */
        0, 0, 0, 28, 2, 3, 4, 2,  0xc0, 0xff, 0xee, 0x01, /* proposal 2 */
        3, 0, 0, 8,  1, 0, 0, 28,                         /* ChaCha20-Poly1305 has no Key Length */
        0, 0, 0, 8,  5, 0, 0, 1,
    };
    struct proposals p = configured("aes256gcm16-aes128gcm16-noesn, chacha20poly1305-esn", PROTOCOL_ESP);
    uint8_t out[200];
    struct ike_header h = {.exchange = EXCHANGE_AUTH};
    struct ike_builder b;
    size_t len;
    ike_begin(&b, out, sizeof out, &h);
    proposal_put_offer(&b, &p, 0xc0ffee01, 4);
    assert_int_equal(ike_finish(&b, &len), OK);
    assert_int_equal(len, IKE_HEADER_LEN + 4 + sizeof want);
    assert_memory_equal(out + IKE_HEADER_LEN + 4, want, sizeof want);
}

static void an_offer_of_ah_has_no_cipher(void **state)
{
    (void)state;
    static const uint8_t want[] = {
        0, 0, 0, 44, 1, 2, 4, 4,  0xc0, 0xff, 0xee, 0x01, /* AH is protocol 2 (RFC 7296 section 3.3.1) */
        3, 0, 0, 8,  3, 0, 0, 9,                          /* AUTH_AES_128_GMAC, no Key Length (RFC 4543 section 5.3) */
        3, 0, 0, 8,  3, 0, 0, 12,                         /* AUTH_HMAC_SHA2_256_128 */
        3, 0, 0, 8,  5, 0, 0, 1,  0,    0,    0,    8,    5, 0, 0, 0,
    };
    struct proposals p = configured("aes128gmac-sha256", PROTOCOL_AH);
    uint8_t out[200];
    struct ike_header h = {.exchange = EXCHANGE_AUTH};
    struct ike_builder b;
    size_t len;
    ike_begin(&b, out, sizeof out, &h);
    proposal_put_offer(&b, &p, 0xc0ffee01, 4);
    assert_int_equal(ike_finish(&b, &len), OK);
    assert_int_equal(len, IKE_HEADER_LEN + 4 + sizeof want);
    assert_memory_equal(out + IKE_HEADER_LEN + 4, want, sizeof want);
}

static void ah_needs_integrity_and_nothing_else(void **state)
{
    (void)state;
    struct choice c;
    struct suite suite;
    struct sa s = {.len = 0};
    char why[200] = "";
    proposal(&s, 1, PROTOCOL_AH, ESP_SPI, 4);
    PLAIN(&s, TRANSFORM_INTEG, INTEG_HMAC_SHA2_512_256);
    PLAIN(&s, TRANSFORM_INTEG, INTEG_AES_256_GMAC);
    PLAIN(&s, TRANSFORM_ESN, ESN_YES);
    assert_int_equal(choose(&s, "aes256gmac-sha512-esn", PROTOCOL_AH, &c), OK);
    assert_int_equal(c.protocol, PROTOCOL_AH);
    assert_int_equal(c.integ.id, INTEG_AES_256_GMAC); /* ours decide */
    assert_int_equal(c.spi, 0xc0ffee01);
    assert_int_equal(choice_suite(&c, &suite), OK);
    assert_int_equal(suite.encr.id, ENCR_NONE);
    assert_int_equal(choose(&s, "sha256", PROTOCOL_AH, &c), ERR_MISMATCH);
    /* The same for the answer to an offer, and two algorithms are no choice. */
    struct proposals ours = configured("sha512-aes256gmac-esn", PROTOCOL_AH);
    assert_int_equal(proposal_accept(span_of(s.b, s.len), &ours, true, &c), ERR_MISMATCH);

    PLAIN(&s, TRANSFORM_ENCR, ENCR_NULL); /* a type that AH hasn't spoils the proposal */
    assert_int_equal(choose(&s, "sha512-esn", PROTOCOL_AH, &c), ERR_MISMATCH);

    struct sa bare = {.len = 0};
    proposal(&bare, 1, PROTOCOL_AH, ESP_SPI, 4);
    PLAIN(&bare, TRANSFORM_ESN, ESN_NO);
    assert_int_equal(choose(&bare, "sha512", PROTOCOL_AH, &c), ERR_MISMATCH);
    ours = configured("sha512", PROTOCOL_AH);
    assert_int_equal(proposal_accept(span_of(bare.b, bare.len), &ours, true, &c), ERR_MISMATCH);
    PLAIN(&bare, TRANSFORM_INTEG, INTEG_NONE);
    assert_int_equal(choose(&bare, "sha512", PROTOCOL_AH, &c), ERR_MISMATCH);
    assert_int_equal(proposal_accept(span_of(bare.b, bare.len), &ours, true, &c), ERR_MISMATCH);

    struct sa sized = {.len = 0};
    proposal(&sized, 1, PROTOCOL_AH, ESP_SPI, 4);
    transform(&sized, TRANSFORM_INTEG, INTEG_AES_128_GMAC, "\x80\x0e\x00\x80", 4);
    PLAIN(&sized, TRANSFORM_ESN, ESN_NO);
    assert_int_equal(choose(&sized, "aes128gmac", PROTOCOL_AH, &c), ERR_MISMATCH);

    /* Who offers ESP where AH is configured hears of both. */
    struct sa esp = esp_offer();
    assert_int_equal(proposal_choose(span_of(esp.b, esp.len), &ours, KE_NONE, true, &c, why, sizeof why), ERR_MISMATCH);
    assert_string_equal(why, "offered ESP aes256gcm16-noesn; configured AH sha512-esn-noesn");
    assert_int_equal(choose(&s, "null-sha512", PROTOCOL_ESP, &c), ERR_MISMATCH);
}

static struct span written(const struct proposals *offer, const struct choice *answer, uint64_t spi, uint8_t spi_len,
                           uint8_t *out, size_t cap)
{
    struct ike_header h = {.exchange = EXCHANGE_AUTH};
    struct ike_builder b;
    size_t len;
    ike_begin(&b, out, cap, &h);
    if (offer)
        proposal_put_offer(&b, offer, spi, spi_len);
    else
        proposal_put_answer(&b, answer, spi, spi_len);
    assert_int_equal(ike_finish(&b, &len), OK);
    return span_of(out + IKE_HEADER_LEN + 4, len - IKE_HEADER_LEN - 4);
}

static void negotiate(const char *initiator, const char *responder, enum protocol_id protocol, const char *want)
{
    uint8_t spi_len = protocol == PROTOCOL_ESP ? 4 : 8;
    struct proposals a = configured(initiator, protocol), b = configured(responder, protocol);
    struct choice chosen, accepted;
    struct proposal shown;
    uint8_t out[4096];
    char why[300], text[200];
    struct span offer = written(&a, NULL, 0x1234567, spi_len, out, sizeof out);
    enum err e = proposal_choose(offer, &b, KE_NONE, true, &chosen, why, sizeof why);
    if (!want) {
        assert_int_equal(e, ERR_MISMATCH);
        return;
    }
    assert_int_equal(e, OK);
    assert_true(chosen.spi == 0x1234567);
    struct span answer = written(NULL, &chosen, 0x7654321, spi_len, out, sizeof out);
    assert_int_equal(proposal_accept(answer, &a, true, &accepted), OK);
    assert_true(accepted.spi == 0x7654321);
    choice_proposal(&accepted, &shown);
    assert_string_equal(proposal_format(&shown, text, sizeof text), want);
    choice_proposal(&chosen, &shown);
    assert_string_equal(proposal_format(&shown, text, sizeof text), want);
}

static void both_sides_agree_on_the_responders_preference(void **state)
{
    (void)state;
    negotiate(IKE_GCM, IKE_GCM, PROTOCOL_IKE, "aes256gcm16-prfsha256-x25519");
    negotiate("aes128gcm16-aes256gcm16-prfsha256-prfsha512-x25519-ecp256",
              "aes256gcm16-aes128gcm16-prfsha512-prfsha256-ecp256-x25519", PROTOCOL_IKE,
              "aes256gcm16-prfsha512-ecp256");
    negotiate("aes128-sha256-modp2048, aes256gcm16-prfsha256-x25519",
              "aes256gcm16-prfsha256-x25519, aes128-sha256-modp2048", PROTOCOL_IKE, "aes256gcm16-prfsha256-x25519");
    negotiate("aes256gcm16-prfsha256-x25519, aes128-sha256-modp2048", "aes128-sha256-modp2048", PROTOCOL_IKE,
              "aes128-prfsha256-sha256-modp2048");
    negotiate("aes256gcm16-prfsha256-x25519", "aes128gcm16-prfsha256-x25519", PROTOCOL_IKE, NULL);
    negotiate("aes256gcm16-prfsha256-x25519", "aes256gcm16-prfsha256-ecp256", PROTOCOL_IKE, NULL);
    negotiate("aes256gcm16-prfsha256-x25519", "default", PROTOCOL_IKE, "aes256gcm16-prfsha256-x25519");
}

static void esp_agrees_on_sequence_numbers_and_pfs(void **state)
{
    (void)state;
    negotiate("aes256gcm16", "aes256gcm16", PROTOCOL_ESP, "aes256gcm16-esn");
    negotiate("aes256gcm16-noesn", "aes256gcm16", PROTOCOL_ESP, "aes256gcm16-noesn");
    negotiate("aes256gcm16-esn", "aes256gcm16-noesn", PROTOCOL_ESP, NULL);
    negotiate("aes256gcm16-x25519", "aes256gcm16-x25519", PROTOCOL_ESP, "aes256gcm16-x25519-esn");
    negotiate("aes256gcm16-x25519", "aes256gcm16", PROTOCOL_ESP, NULL); /* the peer insists on PFS */
    negotiate("aes256gcm16", "aes256gcm16-x25519", PROTOCOL_ESP, NULL); /* we do */
    negotiate("aes128-sha256", "aes128-sha256", PROTOCOL_ESP, "aes128-sha256-esn");
}

static void none_beside_key_exchange_methods_makes_pfs_optional(void **state)
{
    (void)state;
    struct proposals optional = configured("aes256gcm16-x25519", PROTOCOL_ESP), without = optional;
    struct choice c;
    uint8_t out[400];
    char why[200];
    optional.v[0].t[optional.v[0].n++] = (struct transform){.type = TRANSFORM_KE, .id = KE_NONE};
    without = configured("aes256gcm16", PROTOCOL_ESP);
    struct span offer = written(&optional, NULL, 0x12345, 4, out, sizeof out);
    assert_int_equal(proposal_choose(offer, &without, KE_NONE, true, &c, why, sizeof why), OK);
    assert_int_equal(c.ke.type, TRANSFORM_KE); /* it was listed, so it is answered (section 2.7): by NONE */
    assert_int_equal(c.ke.id, KE_NONE);
    assert_int_equal(proposal_choose(offer, &optional, KE_NONE, true, &c, why, sizeof why), OK);
    assert_int_equal(c.ke.id, KE_CURVE25519);
    offer = written(&without, NULL, 0x12345, 4, out, sizeof out);
    assert_int_equal(proposal_choose(offer, &optional, KE_NONE, true, &c, why, sizeof why), OK);
    assert_int_equal(c.ke.type, 0);
    /* The responder may leave NONE out of its answer as well. */
    struct choice accepted;
    struct span answer = written(NULL, &c, 0x12345, 4, out, sizeof out);
    assert_int_equal(proposal_accept(answer, &optional, true, &accepted), OK);
    assert_int_equal(accepted.ke.type, 0);
}

static void key_exchange_is_not_looked_at_in_ike_auth(void **state)
{
    (void)state;
    struct proposals ours = configured("aes256gcm16-x25519", PROTOCOL_ESP);
    struct sa s = esp_offer();
    struct choice c;
    char why[200];
    assert_int_equal(proposal_choose(span_of(s.b, s.len), &ours, 0, true, &c, why, sizeof why), ERR_MISMATCH);
    assert_int_equal(proposal_choose(span_of(s.b, s.len), &ours, 0, false, &c, why, sizeof why), OK);
    assert_int_equal(c.ke.type, 0);
    assert_int_equal(proposal_accept(span_of(s.b, s.len), &ours, true, &c), ERR_MISMATCH);
    assert_int_equal(proposal_accept(span_of(s.b, s.len), &ours, false, &c), OK);
    PLAIN(&s, TRANSFORM_KE, KE_ECP_384);
    assert_int_equal(proposal_choose(span_of(s.b, s.len), &ours, 0, false, &c, why, sizeof why), OK);
    assert_int_equal(proposal_accept(span_of(s.b, s.len), &ours, false, &c), OK);
    assert_int_equal(c.ke.type, 0);
}

static void group_of_the_peers_key_exchange_payload_is_preferred(void **state)
{
    (void)state;
    struct proposals ours = configured("aes256gcm16-prfsha256-x25519-ecp256-modp2048", PROTOCOL_IKE);
    struct sa s = ike_offer();
    struct choice c;
    char why[200];
    PLAIN(&s, TRANSFORM_KE, KE_MODP_2048);
    PLAIN(&s, TRANSFORM_KE, KE_ECP_384);
    static const struct {
        uint16_t prefer, want;
    } cases[] = {
        {KE_NONE, KE_CURVE25519},    {KE_MODP_2048, KE_MODP_2048}, {KE_ECP_256, KE_CURVE25519}, /* not offered */
        {KE_ECP_384, KE_CURVE25519},                                                            /* not ours */
        {9999, KE_CURVE25519},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(proposal_choose(span_of(s.b, s.len), &ours, cases[i].prefer, true, &c, why, sizeof why), OK);
        assert_int_equal(c.ke.id, cases[i].want);
    }
}

/* -- what the peer may send (conformance 1 to 5, 15, 17) -- */

static void unknown_transforms_and_attributes_are_skipped(void **state)
{
    (void)state;
    struct sa s = {.len = 0};
    struct choice c;
    proposal(&s, 1, PROTOCOL_IKE, "", 0);
    aes(&s, 9999, 256);                                                                    /* an unknown cipher */
    transform(&s, TRANSFORM_ENCR, ENCR_AES_GCM_16, "\x80\x0e\x01\x00\x80\x63\x00\x01", 8); /* an unknown attribute */
    transform(&s, TRANSFORM_ENCR, ENCR_AES_GCM_16, "\x00\x63\x00\x05hello", 9);            /* an unknown long one */
    PLAIN(&s, TRANSFORM_PRF, 777);
    PLAIN(&s, TRANSFORM_PRF, PRF_HMAC_SHA2_256);
    PLAIN(&s, TRANSFORM_KE, 65535);
    PLAIN(&s, TRANSFORM_KE, KE_CURVE25519);
    assert_int_equal(choose(&s, IKE_GCM, PROTOCOL_IKE, &c), ERR_MISMATCH); /* no usable cipher so far */
    aes(&s, ENCR_AES_GCM_16, 256);
    assert_int_equal(choose(&s, IKE_GCM, PROTOCOL_IKE, &c), OK);
    assert_int_equal(c.encr.id, ENCR_AES_GCM_16);
    assert_int_equal(c.encr.key_bits, 256);
}

static void unknown_transform_type_spoils_its_proposal_alone(void **state)
{
    (void)state;
    static const uint8_t types[] = {0, 6, 7, 99, 241, 255};
    for (size_t i = 0; i < sizeof types; i++) {
        struct sa s = ike_offer();
        struct choice c;
        PLAIN(&s, types[i], 1);
        assert_int_equal(choose(&s, IKE_GCM, PROTOCOL_IKE, &c), ERR_MISMATCH);
        proposal(&s, 2, PROTOCOL_IKE, "", 0);
        aes(&s, ENCR_AES_GCM_16, 256);
        PLAIN(&s, TRANSFORM_PRF, PRF_HMAC_SHA2_256);
        PLAIN(&s, TRANSFORM_KE, KE_CURVE25519);
        assert_int_equal(choose(&s, IKE_GCM, PROTOCOL_IKE, &c), OK);
        assert_int_equal(c.number, 2);
    }
}

static void key_length_must_be_there_for_aes_and_nowhere_else(void **state)
{
    (void)state;
    static const uint8_t bits[] = {0x80, 14, 1, 0}, zero[] = {0x80, 14, 0, 0};
    static const struct {
        uint8_t type;
        uint16_t id;
        const uint8_t *attributes;
        size_t n;
    } wrong[] = {
        {TRANSFORM_ENCR, ENCR_AES_GCM_16, NULL, 0},                                                /* none */
        {TRANSFORM_ENCR, ENCR_AES_GCM_16, zero, 4},                                                /* zero */
        {TRANSFORM_ENCR, ENCR_AES_GCM_16, (const uint8_t *)"\x00\x0e\x00\x02\x01\x00", 6},         /* long form */
        {TRANSFORM_ENCR, ENCR_AES_GCM_16, (const uint8_t *)"\x80\x0e\x01\x00\x80\x0e\x01\x00", 8}, /* twice */
        {TRANSFORM_ENCR, ENCR_AES_GCM_16, (const uint8_t *)"\x80\x0e\x00\xff", 4},                 /* 255 bits */
        {TRANSFORM_PRF, PRF_HMAC_SHA2_256, bits, 4},
        {TRANSFORM_PRF, PRF_HMAC_SHA2_256, zero, 4},
        {TRANSFORM_KE, KE_CURVE25519, bits, 4},
        {TRANSFORM_ENCR, ENCR_CHACHA20_POLY1305, bits, 4},
        {TRANSFORM_ENCR, ENCR_CHACHA20_POLY1305, zero, 4},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct sa s = {.len = 0};
        struct choice c;
        proposal(&s, 1, PROTOCOL_IKE, "", 0);
        if (wrong[i].type != TRANSFORM_ENCR)
            aes(&s, ENCR_AES_GCM_16, 256);
        if (wrong[i].type != TRANSFORM_PRF)
            PLAIN(&s, TRANSFORM_PRF, PRF_HMAC_SHA2_256);
        if (wrong[i].type != TRANSFORM_KE)
            PLAIN(&s, TRANSFORM_KE, KE_CURVE25519);
        transform(&s, wrong[i].type, wrong[i].id, wrong[i].attributes, wrong[i].n);
        assert_int_equal(choose(&s, IKE_GCM ", chacha20poly1305-prfsha256-x25519", PROTOCOL_IKE, &c), ERR_MISMATCH);
    }
}

static void missing_mandatory_type_makes_a_proposal_unacceptable(void **state)
{
    (void)state;
    struct sa s;
    struct choice c;
    for (unsigned without = 0; without < 4; without++) {
        memset(&s, 0, sizeof s);
        proposal(&s, 1, PROTOCOL_IKE, "", 0);
        if (without != 0)
            aes(&s, ENCR_AES_CBC, 128);
        if (without != 1)
            PLAIN(&s, TRANSFORM_PRF, PRF_HMAC_SHA2_256);
        if (without != 2)
            PLAIN(&s, TRANSFORM_INTEG, INTEG_HMAC_SHA2_256_128);
        if (without != 3)
            PLAIN(&s, TRANSFORM_KE, KE_CURVE25519);
        assert_int_equal(choose(&s, "aes128-sha256-x25519", PROTOCOL_IKE, &c), ERR_MISMATCH);
    }
    memset(&s, 0, sizeof s);
    proposal(&s, 1, PROTOCOL_ESP, ESP_SPI, 4); /* without ESN (section 3.3.3) */
    aes(&s, ENCR_AES_GCM_16, 256);
    assert_int_equal(choose(&s, "aes256gcm16", PROTOCOL_ESP, &c), ERR_MISMATCH);
    memset(&s, 0, sizeof s);
    proposal(&s, 1, PROTOCOL_ESP, ESP_SPI, 4); /* no transform at all (CVE-2016-5391) */
    assert_int_equal(choose(&s, "aes256gcm16", PROTOCOL_ESP, &c), ERR_MISMATCH);
    assert_int_equal(proposal_accept(span_of(s.b, s.len), &(struct proposals){.n = 0}, true, &c), ERR_MISMATCH);
}

static void integrity_none_is_fine_beside_an_aead_and_nowhere_else(void **state)
{
    (void)state;
    struct sa s = ike_offer();
    struct choice c;
    PLAIN(&s, TRANSFORM_INTEG, INTEG_NONE);
    assert_int_equal(choose(&s, IKE_GCM, PROTOCOL_IKE, &c), OK);
    assert_int_equal(c.integ.type, TRANSFORM_INTEG);
    assert_int_equal(c.integ.id, INTEG_NONE);
    struct suite suite;
    assert_int_equal(choice_suite(&c, &suite), OK);
    uint8_t out[200];
    struct span answer = written(NULL, &c, 0, 0, out, sizeof out);
    struct proposals ours = configured(IKE_GCM, PROTOCOL_IKE);
    assert_int_equal(proposal_accept(answer, &ours, true, &c), OK);

    s = ike_offer(); /* an AEAD with integrity of its own is no AEAD of ours */
    PLAIN(&s, TRANSFORM_INTEG, INTEG_HMAC_SHA2_256_128);
    assert_int_equal(choose(&s, IKE_GCM, PROTOCOL_IKE, &c), ERR_MISMATCH);

    for (unsigned named = 0; named < 2; named++) { /* AES-CBC without integrity, said or unsaid */
        memset(&s, 0, sizeof s);
        proposal(&s, 1, PROTOCOL_IKE, "", 0);
        aes(&s, ENCR_AES_CBC, 128);
        PLAIN(&s, TRANSFORM_PRF, PRF_HMAC_SHA2_256);
        PLAIN(&s, TRANSFORM_KE, KE_CURVE25519);
        if (named)
            PLAIN(&s, TRANSFORM_INTEG, INTEG_NONE);
        assert_int_equal(choose(&s, "aes128-sha256-x25519", PROTOCOL_IKE, &c), ERR_MISMATCH);
    }
}

/* Whatever is configured: neither what hides nothing nor what takes its nonces from ESP (RFC 4543, 8750 section 7). */
static void ciphers_of_esp_alone_are_refused_for_ike(void **state)
{
    (void)state;
    static const struct transform only[] = {{TRANSFORM_ENCR, ENCR_NULL_AUTH_AES_GMAC, 128},
                                            {TRANSFORM_ENCR, ENCR_AES_CCM_8_IIV, 128},
                                            {TRANSFORM_ENCR, ENCR_AES_GCM_16_IIV, 256},
                                            {TRANSFORM_ENCR, ENCR_CHACHA20_POLY1305_IIV, 0}};
    for (size_t k = 0; k < sizeof only / sizeof *only; k++) {
        struct proposals ours = configured(IKE_GCM, PROTOCOL_IKE);
        struct choice c;
        char why[200];
        uint8_t out[300];
        for (unsigned i = 0; i < ours.v[0].n; i++)
            if (ours.v[0].t[i].type == TRANSFORM_ENCR)
                ours.v[0].t[i] = only[k];
        struct span offer = written(&ours, NULL, 0, 0, out, sizeof out);
        assert_int_equal(proposal_choose(offer, &ours, 0, true, &c, why, sizeof why), ERR_MISMATCH);
        assert_int_equal(proposal_accept(offer, &ours, true, &c), ERR_MISMATCH);
    }
}

/* Even a configuration that lists them (none that parses does) can't make them happen. */
static void null_encryption_and_missing_integrity_are_refused_for_ike(void **state)
{
    (void)state;
    struct proposals ours = configured("aes128-sha256-x25519", PROTOCOL_IKE);
    struct proposal *p = &ours.v[0];
    struct choice c;
    char why[200];
    for (unsigned i = 0; i < p->n; i++)
        if (p->t[i].type == TRANSFORM_ENCR)
            p->t[i] = (struct transform){.type = TRANSFORM_ENCR, .id = ENCR_NULL};
    uint8_t out[300];
    struct span offer = written(&ours, NULL, 0, 0, out, sizeof out);
    assert_int_equal(proposal_choose(offer, &ours, 0, true, &c, why, sizeof why), ERR_MISMATCH);
    assert_int_equal(proposal_accept(offer, &ours, true, &c), ERR_MISMATCH);

    ours = configured("aes128-sha256-x25519", PROTOCOL_IKE);
    for (unsigned i = 0; i < p->n; i++)
        if (p->t[i].type == TRANSFORM_INTEG)
            p->t[i].id = INTEG_NONE;
    offer = written(&ours, NULL, 0, 0, out, sizeof out);
    assert_int_equal(proposal_choose(offer, &ours, 0, true, &c, why, sizeof why), ERR_MISMATCH);
    assert_int_equal(proposal_accept(offer, &ours, true, &c), ERR_MISMATCH);

    ours = configured(IKE_GCM, PROTOCOL_IKE);
    for (unsigned i = 0; i < p->n; i++)
        if (p->t[i].type == TRANSFORM_KE)
            p->t[i].id = KE_NONE;
    offer = written(&ours, NULL, 0, 0, out, sizeof out);
    assert_int_equal(proposal_choose(offer, &ours, 0, true, &c, why, sizeof why), ERR_MISMATCH);
}

static void proposals_must_be_numbered_from_one_by_one(void **state)
{
    (void)state;
    static const uint8_t numbers[][3] = {{0, 1, 2}, {2, 3, 4}, {1, 1, 1}, {1, 3, 4}, {1, 2, 2}, {1, 0, 1}, {255, 0, 1}};
    struct choice c;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        struct sa s = {.len = 0};
        for (unsigned k = 0; k < 3; k++) {
            proposal(&s, numbers[i][k], PROTOCOL_ESP, ESP_SPI, 4);
            aes(&s, ENCR_AES_GCM_16, 256);
            PLAIN(&s, TRANSFORM_ESN, ESN_NO);
        }
        assert_int_equal(choose(&s, "aes256gcm16", PROTOCOL_ESP, &c), ERR_SYNTAX);
    }
    struct sa s = {.len = 0}; /* more than a number can count */
    for (unsigned k = 1; k <= 256; k++) {
        proposal(&s, (uint8_t)k, PROTOCOL_ESP, ESP_SPI, 4);
        PLAIN(&s, TRANSFORM_ESN, ESN_NO);
        if (k >= 255)
            assert_int_equal(choose(&s, "aes256gcm16", PROTOCOL_ESP, &c), k == 255 ? ERR_MISMATCH : ERR_SYNTAX);
    }
}

static void spi_has_its_protocols_size_and_is_not_reserved(void **state)
{
    (void)state;
    static const struct {
        uint8_t protocol, len;
        const char *spi;
        enum err want;
    } cases[] = {
        {PROTOCOL_ESP, 4, "\0\0\1\0", OK},
        {PROTOCOL_ESP, 4, "\0\0\0\377", ERR_SYNTAX},
        {PROTOCOL_ESP, 4, "\0\0\0\0", ERR_SYNTAX},
        {PROTOCOL_ESP, 0, "", ERR_SYNTAX},
        {PROTOCOL_ESP, 3, "\1\2\3", ERR_SYNTAX},
        {PROTOCOL_ESP, 8, "\1\2\3\4\5\6\7\10", ERR_SYNTAX},
        {PROTOCOL_IKE, 8, "\1\2\3\4\5\6\7\10", OK},
        {PROTOCOL_IKE, 8, "\0\0\0\0\0\0\0\0", ERR_SYNTAX},
        {PROTOCOL_IKE, 0, "", OK},
        {PROTOCOL_IKE, 4, "\1\2\3\4", ERR_SYNTAX},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct sa s = {.len = 0};
        struct choice c;
        proposal(&s, 1, cases[i].protocol, cases[i].spi, cases[i].len);
        aes(&s, ENCR_AES_GCM_16, 256);
        if (cases[i].protocol == PROTOCOL_IKE) {
            PLAIN(&s, TRANSFORM_PRF, PRF_HMAC_SHA2_256);
            PLAIN(&s, TRANSFORM_KE, KE_CURVE25519);
        } else {
            PLAIN(&s, TRANSFORM_ESN, ESN_NO);
        }
        const char *ours = cases[i].protocol == PROTOCOL_IKE ? IKE_GCM : "aes256gcm16";
        assert_int_equal(choose(&s, ours, cases[i].protocol, &c), cases[i].want);
        if (cases[i].want == OK)
            assert_int_equal(c.spi_len, cases[i].len);
    }
}

static void proposal_of_another_or_unknown_protocol_is_passed_over(void **state)
{
    (void)state;
    struct sa s = {.len = 0};
    struct choice c;
    proposal(&s, 1, 77, "\1\2\3\4\5\6\7\10\11\12", 10);
    aes(&s, ENCR_AES_GCM_16, 256);
    PLAIN(&s, 77, 77);
    proposal(&s, 2, PROTOCOL_AH, ESP_SPI, 4);
    PLAIN(&s, TRANSFORM_INTEG, INTEG_HMAC_SHA2_256_128);
    PLAIN(&s, TRANSFORM_ESN, ESN_NO);
    assert_int_equal(choose(&s, "aes256gcm16", PROTOCOL_ESP, &c), ERR_MISMATCH);
    proposal(&s, 3, PROTOCOL_ESP, ESP_SPI, 4);
    aes(&s, ENCR_AES_GCM_16, 256);
    PLAIN(&s, TRANSFORM_ESN, ESN_YES);
    assert_int_equal(choose(&s, "aes256gcm16", PROTOCOL_ESP, &c), OK);
    assert_int_equal(c.number, 3);
    assert_int_equal(c.protocol, PROTOCOL_ESP);
    assert_true(c.spi == 0xc0ffee01);
    assert_int_equal(c.esn.id, ESN_YES);
}

static void lies_about_lengths_and_counts_are_malformed(void **state)
{
    (void)state;
    struct sa good = esp_offer();
    struct choice c;
    proposal(&good, 2, PROTOCOL_ESP, ESP_SPI, 4);
    aes(&good, ENCR_AES_GCM_16, 256);
    PLAIN(&good, TRANSFORM_ESN, ESN_NO);
    assert_int_equal(choose(&good, "aes256gcm16", PROTOCOL_ESP, &c), OK);
    /* last substructure, length, SPI size and count of proposals; last substructure, length of transforms, attribute */
    static const uint8_t places[] = {0, 3, 6, 7, 12, 15, 24, 27, 32, 35, 39};
    for (size_t i = 0; i < sizeof places; i++) {
        for (unsigned v = 0; v < 256; v++) {
            struct sa s = good;
            s.b[places[i]] = (uint8_t)v;
            if (v == good.b[places[i]])
                continue;
            assert_int_equal(choose(&s, "aes256gcm16", PROTOCOL_ESP, &c), ERR_SYNTAX);
        }
    }
    for (size_t len = 0; len < good.len; len++) {
        struct sa s = good;
        s.len = len;
        assert_int_equal(choose(&s, "aes256gcm16", PROTOCOL_ESP, &c), ERR_SYNTAX);
    }
    struct sa s = good; /* an attribute that runs out of its transform */
    put_be16(s.b + 20, 99);
    put_be16(s.b + 22, 1);
    assert_int_equal(choose(&s, "aes256gcm16", PROTOCOL_ESP, &c), ERR_SYNTAX);
}

static void reserved_octets_are_ignored(void **state)
{
    (void)state;
    struct sa s = esp_offer();
    struct choice c;
    static const uint8_t places[] = {1, 13, 17, 25, 29};
    for (size_t i = 0; i < sizeof places; i++)
        s.b[places[i]] = 0xff;
    assert_int_equal(choose(&s, "aes256gcm16", PROTOCOL_ESP, &c), OK);
}

static void mismatch_is_told_in_words_and_cut_to_size(void **state)
{
    (void)state;
    struct sa s = {.len = 0};
    struct choice c;
    char why[200];
    proposal(&s, 1, PROTOCOL_IKE, "", 0);
    aes(&s, ENCR_AES_CBC, 128);
    PLAIN(&s, TRANSFORM_PRF, PRF_HMAC_SHA2_256);
    PLAIN(&s, TRANSFORM_INTEG, INTEG_HMAC_SHA2_256_128);
    PLAIN(&s, TRANSFORM_KE, KE_MODP_2048);
    struct proposals ours = configured(IKE_GCM, PROTOCOL_IKE);
    assert_int_equal(proposal_choose(span_of(s.b, s.len), &ours, 0, true, &c, why, sizeof why), ERR_MISMATCH);
    assert_string_equal(why, "offered aes128-prfsha256-sha256-modp2048; configured aes256gcm16-prfsha256-x25519");
    for (size_t size = 0; size < sizeof why; size++) {
        memset(why, 0x7e, sizeof why);
        assert_int_equal(proposal_choose(span_of(s.b, s.len), &ours, 0, true, &c, why, size), ERR_MISMATCH);
        assert_true(size == 0 || memchr(why, 0, size));
        assert_int_equal(why[size], 0x7e);
    }
    for (unsigned i = 0; i < 200; i++) /* an endless offer does not push our half out of the line */
        PLAIN(&s, TRANSFORM_KE, (uint16_t)(1000 + i));
    assert_int_equal(proposal_choose(span_of(s.b, s.len), &ours, 0, true, &c, why, sizeof why), ERR_MISMATCH);
    assert_non_null(strstr(why, "; configured aes256gcm16-prfsha256-x25519"));
}

/* -- answers -- */

static void answer_must_be_within_the_offer(void **state)
{
    (void)state;
    struct proposals offered =
        configured("aes256gcm16-aes128gcm16-prfsha256-x25519-ecp256, aes128-sha256-modp2048", PROTOCOL_IKE);
    struct choice c;
    struct sa s = ike_offer();
    assert_int_equal(proposal_accept(span_of(s.b, s.len), &offered, true, &c), OK);

    static const struct {
        uint8_t number, encr, prf, ke;
        uint16_t bits;
    } wrong[] = {
        {0, ENCR_AES_GCM_16, PRF_HMAC_SHA2_256, KE_CURVE25519, 256}, /* no such proposal */
        {3, ENCR_AES_GCM_16, PRF_HMAC_SHA2_256, KE_CURVE25519, 256},
        {2, ENCR_AES_GCM_16, PRF_HMAC_SHA2_256, KE_CURVE25519, 256}, /* of the other proposal */
        {1, ENCR_AES_GCM_16, PRF_HMAC_SHA2_256, KE_CURVE25519, 192}, /* key length */
        {1, ENCR_AES_CBC, PRF_HMAC_SHA2_256, KE_CURVE25519, 256},
        {1, ENCR_AES_GCM_16, PRF_HMAC_SHA2_512, KE_CURVE25519, 256},
        {1, ENCR_AES_GCM_16, PRF_HMAC_SHA2_256, KE_MODP_2048, 256},
        {1, ENCR_AES_GCM_16, PRF_HMAC_SHA2_256, KE_NONE, 256},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        memset(&s, 0, sizeof s);
        proposal(&s, wrong[i].number, PROTOCOL_IKE, "", 0);
        aes(&s, wrong[i].encr, wrong[i].bits);
        PLAIN(&s, TRANSFORM_PRF, wrong[i].prf);
        PLAIN(&s, TRANSFORM_KE, wrong[i].ke);
        assert_int_equal(proposal_accept(span_of(s.b, s.len), &offered, true, &c), ERR_MISMATCH);
    }
}

static void answer_has_one_transform_of_each_type(void **state)
{
    (void)state;
    struct proposals offered = configured("aes256gcm16-aes128gcm16-prfsha256-x25519-ecp256", PROTOCOL_IKE);
    struct choice c;
    struct sa s = ike_offer();
    aes(&s, ENCR_AES_GCM_16, 128); /* a second cipher */
    assert_int_equal(proposal_accept(span_of(s.b, s.len), &offered, true, &c), ERR_MISMATCH);
    s = ike_offer();
    PLAIN(&s, TRANSFORM_KE, KE_CURVE25519); /* the same again */
    assert_int_equal(proposal_accept(span_of(s.b, s.len), &offered, true, &c), ERR_MISMATCH);
    s = ike_offer();
    PLAIN(&s, 6, 1); /* a type that nobody offered */
    assert_int_equal(proposal_accept(span_of(s.b, s.len), &offered, true, &c), ERR_MISMATCH);
    for (unsigned without = 0; without < 3; without++) {
        memset(&s, 0, sizeof s);
        proposal(&s, 1, PROTOCOL_IKE, "", 0);
        if (without != 0)
            aes(&s, ENCR_AES_GCM_16, 256);
        if (without != 1)
            PLAIN(&s, TRANSFORM_PRF, PRF_HMAC_SHA2_256);
        if (without != 2)
            PLAIN(&s, TRANSFORM_KE, KE_CURVE25519);
        assert_int_equal(proposal_accept(span_of(s.b, s.len), &offered, true, &c), ERR_MISMATCH);
    }
    s = ike_offer(); /* two proposals are no answer */
    proposal(&s, 2, PROTOCOL_IKE, "", 0);
    aes(&s, ENCR_AES_GCM_16, 256);
    assert_int_equal(proposal_accept(span_of(s.b, s.len), &offered, true, &c), ERR_SYNTAX);
}

static int start_crypto(void **state)
{
    (void)state;
    return crypto_init() == OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_offer_of_ah_has_no_cipher),
        cmocka_unit_test(ah_needs_integrity_and_nothing_else),
        cmocka_unit_test(offer_has_the_wire_form_of_the_rfc),
        cmocka_unit_test(both_sides_agree_on_the_responders_preference),
        cmocka_unit_test(esp_agrees_on_sequence_numbers_and_pfs),
        cmocka_unit_test(none_beside_key_exchange_methods_makes_pfs_optional),
        cmocka_unit_test(key_exchange_is_not_looked_at_in_ike_auth),
        cmocka_unit_test(group_of_the_peers_key_exchange_payload_is_preferred),
        cmocka_unit_test(unknown_transforms_and_attributes_are_skipped),
        cmocka_unit_test(unknown_transform_type_spoils_its_proposal_alone),
        cmocka_unit_test(key_length_must_be_there_for_aes_and_nowhere_else),
        cmocka_unit_test(missing_mandatory_type_makes_a_proposal_unacceptable),
        cmocka_unit_test(integrity_none_is_fine_beside_an_aead_and_nowhere_else),
        cmocka_unit_test(null_encryption_and_missing_integrity_are_refused_for_ike),
        cmocka_unit_test(ciphers_of_esp_alone_are_refused_for_ike),
        cmocka_unit_test(proposals_must_be_numbered_from_one_by_one),
        cmocka_unit_test(spi_has_its_protocols_size_and_is_not_reserved),
        cmocka_unit_test(proposal_of_another_or_unknown_protocol_is_passed_over),
        cmocka_unit_test(lies_about_lengths_and_counts_are_malformed),
        cmocka_unit_test(reserved_octets_are_ignored),
        cmocka_unit_test(mismatch_is_told_in_words_and_cut_to_size),
        cmocka_unit_test(answer_must_be_within_the_offer),
        cmocka_unit_test(answer_has_one_transform_of_each_type),
    };
    return cmocka_run_group_tests(tests, start_crypto, NULL);
}
