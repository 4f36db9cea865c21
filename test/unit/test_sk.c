/* The SK payload: sealed, opened, and refused when anything was touched (RFC 7296 section 3.14, RFC 5282). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>

#include "crypto/prf.h"
#include "crypto/random.h"
#include "crypto/secret.h"
#include "ike/payload.h"

struct side { /* one direction of an IKE SA: the same keys to seal and to open */
    struct suite s;
    struct keyed *seal, *open;
};

static const struct {
    uint16_t encr, bits, integ;
} suites[] = {
    {ENCR_AES_GCM_16, 128, 0},
    {ENCR_AES_GCM_16, 256, 0},
    {ENCR_CHACHA20_POLY1305, 0, 0},
    {ENCR_AES_CBC, 128, INTEG_HMAC_SHA2_256_128},
    {ENCR_AES_CBC, 256, INTEG_HMAC_SHA2_384_192},
    {ENCR_AES_CBC, 256, INTEG_HMAC_SHA2_512_256},
    {ENCR_AES_CBC, 192, INTEG_HMAC_SHA2_256_128},
    {ENCR_AES_GCM_8, 192, 0},
    {ENCR_AES_GCM_12, 256, 0},
    {ENCR_AES_CTR, 128, INTEG_HMAC_SHA2_256_128},
    {ENCR_AES_CBC, 128, INTEG_HMAC_SHA1_96},
    {ENCR_AES_CBC, 128, INTEG_AES_XCBC_96},
    {ENCR_AES_CTR, 192, INTEG_AES_CMAC_96},
    {ENCR_AES_CCM_8, 128, 0},
    {ENCR_AES_CCM_16, 256, 0},
};
#define SUITES (sizeof suites / sizeof *suites)

static const uint8_t key[64] = {1, 2, 3, 4, 5, 6, 7}, integ_key[64] = {9, 8, 7, 6};

static struct suite suite_at(size_t i)
{
    struct suite s;
    struct transform encr = {TRANSFORM_ENCR, suites[i].encr, suites[i].bits};
    struct transform integ = {suites[i].integ ? TRANSFORM_INTEG : 0, suites[i].integ, 0};
    assert_int_equal(suite_of(&encr, &integ, &s), OK);
    return s;
}

static struct side side_on(size_t i, const char *engine)
{
    struct side d = {.s = suite_at(i)};
    struct span k = span_of(key, d.s.encr_key_len), ik = span_of(integ_key, d.s.integ_key_len);
    assert_int_equal(keyed_new(&d.seal, &d.s, TRANSFORM_SEAL, engine, k, ik), OK);
    assert_int_equal(keyed_new(&d.open, &d.s, TRANSFORM_OPEN, engine, k, ik), OK);
    return d;
}

static struct side side_of(size_t i)
{
    return side_on(i, NULL);
}

static void side_free(struct side *d)
{
    keyed_free(d->seal);
    keyed_free(d->open);
}

struct text {
    uint8_t b[4096];
    size_t len;
};

static const uint8_t iv[TRANSFORM_IV_MAX] = {0, 0, 0, 0, 0, 0, 0, 1, 0x55};
static const struct ike_header head = {.spi_i = 1, .spi_r = 2, .exchange = EXCHANGE_INFORMATIONAL, .message_id = 7};

/* A message with a Vendor ID of that many bytes inside SK, and a Delete. */
static struct text sealed(const struct side *d, size_t filler)
{
    static const uint8_t zero[2048];
    static const uint32_t spi = 0xabcdef01;
    struct text t;
    struct ike_builder b;
    ike_begin(&b, t.b, sizeof t.b, &head);
    ike_begin_sk(&b, &d->s, span_of(iv, d->s.iv_len));
    ike_put(&b, PAYLOAD_VENDOR, span_of(zero, filler));
    ike_put_delete(&b, PROTOCOL_ESP, &spi, 1);
    assert_int_equal(ike_finish_sk(&b, &d->s, d->seal, &t.len), OK);
    return t;
}

/* Parses and opens a copy that is exactly as long as the message. */
static enum err opened(const struct side *d, const struct text *t, struct ike_message *m)
{
    uint8_t *copy = malloc(t->len);
    assert_non_null(copy);
    memcpy(copy, t->b, t->len);
    struct span content = {NULL, 0};
    enum err e = ike_message_parse(span_of(copy, t->len), m);
    if (e == OK || e == ERR_CRITICAL)
        e = ike_open_sk(copy, m, &d->s, d->open, &content);
    if (e == OK)
        e = ike_inner_parse(m->sk_first, content, m);
    free(copy);
    return e;
}

static void every_engine_opens_in_place_what_it_sealed_at_every_alignment(void **state)
{
    (void)state;
    for (size_t n = 0; n < SUITES * 8; n++) {
        const char *engine = engine_name((unsigned)(n / SUITES));
        struct suite s = suite_at(n % SUITES);
        if (!engine || !engine_has(engine, &s))
            continue;
        struct side d = side_on(n % SUITES, engine);
        for (size_t filler = 0; filler < 70; filler++) {
            struct text t = sealed(&d, filler);
            struct ike_message m;
            assert_int_equal(opened(&d, &t, &m), OK);
            assert_true(m.opened);
            assert_int_equal(ike_message_legal(&m), OK);
            assert_int_equal(m.dels, 1);
            assert_int_equal(m.del[0].spi[0], 0xabcdef01);
            assert_int_equal(m.h.length, t.len);
        }
        side_free(&d);
    }
}

/* What stands before SK is associated data too, and there may be much of it: every suite of an IKE SA takes it. */
static void long_payloads_before_sk_are_legal(void **state)
{
    (void)state;
    static const uint8_t zero[1000];
    static const uint32_t spi = 0xabcdef01;
    for (size_t i = 0; i < SUITES; i++)
        for (size_t before = 0; before < sizeof zero; before += before < 40 ? 1 : 137) {
            struct side d = side_of(i);
            struct text t;
            struct ike_builder b;
            struct ike_message m;
            ike_begin(&b, t.b, sizeof t.b, &head);
            ike_put(&b, PAYLOAD_VENDOR, span_of(zero, before));
            ike_begin_sk(&b, &d.s, span_of(iv, d.s.iv_len));
            ike_put_delete(&b, PROTOCOL_ESP, &spi, 1);
            assert_int_equal(ike_finish_sk(&b, &d.s, d.seal, &t.len), OK);
            assert_int_equal(opened(&d, &t, &m), OK);
            assert_int_equal(m.dels, 1);
            t.b[t.len - 1] ^= 1;
            assert_int_equal(opened(&d, &t, &m), ERR_AUTH);
            side_free(&d);
        }
}

static void empty_content_is_a_legal_liveness_check(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUITES; i++) {
        struct side d = side_of(i);
        struct text t;
        struct ike_builder b;
        struct ike_message m;
        ike_begin(&b, t.b, sizeof t.b, &head);
        ike_begin_sk(&b, &d.s, span_of(iv, d.s.iv_len));
        assert_int_equal(ike_finish_sk(&b, &d.s, d.seal, &t.len), OK);
        assert_int_equal(t.b[IKE_HEADER_LEN], PAYLOAD_NONE);
        assert_int_equal(opened(&d, &t, &m), OK);
        assert_int_equal(m.seen, PAYLOAD_BIT(PAYLOAD_SK));
        assert_int_equal(ike_message_legal(&m), OK);
        side_free(&d);
    }
}

static void layout_is_header_iv_text_icv(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUITES; i++) {
        struct side d = side_of(i);
        struct text t = sealed(&d, 0);
        size_t inner = 4 + 12 + 1, block = d.s.block > 1 ? d.s.block : 1;
        size_t text = (inner + block - 1) / block * block;
        assert_int_equal(t.b[16], PAYLOAD_SK);
        assert_int_equal(t.b[IKE_HEADER_LEN], PAYLOAD_VENDOR);
        assert_int_equal(get_be16(t.b + IKE_HEADER_LEN + 2), t.len - IKE_HEADER_LEN);
        assert_int_equal(get_be32(t.b + 24), t.len);
        assert_memory_equal(t.b + IKE_HEADER_LEN + 4, iv, d.s.iv_len);
        assert_int_equal(t.len, IKE_HEADER_LEN + 4 + d.s.iv_len + text + d.s.icv_len);
        side_free(&d);
    }
}

/* The checksum of a MAC suite by hand: HMAC over everything from the header to the pad length. */
static void mac_covers_the_message_from_its_first_byte(void **state)
{
    (void)state;
    struct side d = side_of(3);
    struct text t = sealed(&d, 5);
    uint8_t tag[PRF_MAX];
    struct span covered = span_of(t.b, t.len - d.s.icv_len);
    assert_int_equal(prf(PRF_HMAC_SHA2_256, span_of(integ_key, 32), &covered, 1, tag), OK);
    assert_memory_equal(tag, t.b + t.len - d.s.icv_len, d.s.icv_len);
    side_free(&d);
}

static void any_flipped_bit_is_refused_before_anything_is_believed(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUITES; i++) {
        struct side d = side_of(i);
        struct text t = sealed(&d, 3);
        for (size_t bit = 0; bit < 8 * t.len; bit++) {
            struct text bad = t;
            struct ike_message m;
            bad.b[bit / 8] ^= (uint8_t)(1u << bit % 8);
            enum err e = opened(&d, &bad, &m);
            /* Type and lengths of payloads, and the message's own length, are where the parser stops it already. */
            bool framing = bit / 8 == 16 || (bit / 8 >= 24 && bit / 8 < 28) || bit / 8 == 30 || bit / 8 == 31;
            if (!framing)
                assert_int_equal(e, ERR_AUTH);
            else
                assert_true(e == ERR_AUTH || e == ERR_SYNTAX || e == ERR_TRUNCATED);
            if (e == ERR_SYNTAX)
                assert_false(m.opened);
        }
        side_free(&d);
    }
}

static void cut_messages_are_refused_even_with_lengths_that_fit(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUITES; i++) {
        struct side d = side_of(i);
        struct text t = sealed(&d, 3);
        for (size_t len = IKE_HEADER_LEN + 4; len < t.len; len++) {
            struct text bad = t;
            struct ike_message m;
            bad.len = len;
            put_be32(bad.b + 24, (uint32_t)len);
            put_be16(bad.b + IKE_HEADER_LEN + 2, (uint16_t)(len - IKE_HEADER_LEN));
            assert_int_equal(opened(&d, &bad, &m), ERR_AUTH);
        }
        side_free(&d);
    }
}

static void message_without_sk_or_for_another_key_is_refused(void **state)
{
    (void)state;
    struct side d = side_of(0), other = side_of(2);
    struct text t;
    struct ike_builder b;
    struct ike_message m;
    ike_begin(&b, t.b, sizeof t.b, &head);
    assert_int_equal(ike_finish(&b, &t.len), OK);
    assert_int_equal(opened(&d, &t, &m), ERR_AUTH);
    t = sealed(&d, 3);
    assert_int_equal(opened(&other, &t, &m), ERR_AUTH);
    side_free(&d);
    side_free(&other);
}

/* Seals a text as it is: padding and content that ike_finish_sk would never make. before: a payload outside SK. */
static struct text sealed_raw(const struct side *d, uint8_t first, const void *plain, size_t n, uint8_t before)
{
    struct text t;
    struct ike_builder b;
    ike_begin(&b, t.b, sizeof t.b, &head);
    if (before)
        ike_put(&b, before, span_of("\0\0\0\0", 4));
    ike_begin_sk(&b, &d->s, span_of(iv, d->s.iv_len));
    t.b[b.sk_at] = first;
    write_bytes(&b.w, plain, n);
    uint8_t *icv = write_room(&b.w, d->s.icv_len);
    write_patch_u16(&b.w, b.sk_at + 2, writer_len(&b.w) - b.sk_at);
    assert_int_equal(ike_finish(&b, &t.len), OK);
    uint8_t *body = t.b + b.sk_at + 4, *text = body + d->s.iv_len;
    struct transform_op op = {.aad = t.b, .aad_len = (uint16_t)(b.sk_at + 4), .iv = body, .src = text, .dst = text};
    op.icv = icv;
    op.len = (uint32_t)n;
    assert_int_equal(keyed_seal(d->seal, &op, 1), OK);
    return t;
}

static void padding_of_any_length_and_content_that_fits_is_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUITES; i++) {
        struct side d = side_of(i);
        for (unsigned n = 0; n < 256; n++) {
            uint8_t plain[256 + 256];
            size_t len = 16 * ((n + 1 + 15) / 16); /* no payload, or one of a few bytes, then n of padding */
            size_t payload = len - n - 1;
            memset(plain, 0xa5, sizeof plain);
            if (payload > 0 && payload < 4)
                continue;
            if (payload)
                memcpy(plain, (uint8_t[]){0, 0, 0, (uint8_t)payload}, 4);
            plain[len - 1] = (uint8_t)n;
            struct text t = sealed_raw(&d, payload ? PAYLOAD_VENDOR : PAYLOAD_NONE, plain, len, 0);
            struct ike_message m;
            assert_int_equal(opened(&d, &t, &m), OK);
        }
        side_free(&d);
    }
}

static void padding_longer_than_the_text_is_malformed(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUITES; i++) {
        struct side d = side_of(i);
        for (unsigned n = 16; n < 256; n++) {
            uint8_t plain[16] = {0};
            plain[15] = (uint8_t)n;
            struct text t = sealed_raw(&d, PAYLOAD_NONE, plain, 16, 0);
            struct ike_message m;
            assert_int_equal(opened(&d, &t, &m), ERR_SYNTAX);
        }
        side_free(&d);
    }
}

static void malformed_content_is_told_from_a_wrong_checksum(void **state)
{
    (void)state;
    struct side d = side_of(0);
    struct ike_message m;
    uint8_t plain[16] = {0, 0, 0, 99, [15] = 0}; /* a payload longer than what is there */
    struct text t = sealed_raw(&d, PAYLOAD_NOTIFY, plain, 16, 0);
    assert_int_equal(opened(&d, &t, &m), ERR_SYNTAX);
    memcpy(plain, "\0\200\0\17", 4); /* unknown and critical */
    t = sealed_raw(&d, 200, plain, 16, 0);
    assert_int_equal(opened(&d, &t, &m), ERR_CRITICAL);
    assert_int_equal(m.critical, 200);
    memcpy(plain, "\0\0\0\17", 4); /* unknown, not critical */
    t = sealed_raw(&d, 200, plain, 16, 0);
    assert_int_equal(opened(&d, &t, &m), OK);
    side_free(&d);
}

static void payloads_outside_sk_are_refused_once_the_message_is_authentic(void **state)
{
    (void)state;
    struct side d = side_of(0);
    struct ike_message m;
    static const uint8_t plain[16] = {0, 0, 0, 15};
    static const struct {
        uint8_t type;
        enum err want;
    } cases[] = {{PAYLOAD_NOTIFY, ERR_SYNTAX}, {PAYLOAD_DELETE, ERR_SYNTAX}, {PAYLOAD_VENDOR, OK}, {200, OK}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct text t = sealed_raw(&d, PAYLOAD_VENDOR, plain, 16, cases[i].type);
        assert_int_equal(opened(&d, &t, &m), cases[i].want);
        t.b[t.len - 1] ^= 1;
        assert_int_equal(opened(&d, &t, &m), ERR_AUTH);
    }
    /* An unknown critical payload in the open is believed only with a right checksum. */
    struct text t;
    struct ike_builder b;
    ike_begin(&b, t.b, sizeof t.b, &head);
    ike_put(&b, 200, span_of(NULL, 0));
    t.b[IKE_HEADER_LEN + 1] = 0x80;
    ike_begin_sk(&b, &d.s, span_of(iv, d.s.iv_len));
    assert_int_equal(ike_finish_sk(&b, &d.s, d.seal, &t.len), OK);
    assert_int_equal(opened(&d, &t, &m), ERR_CRITICAL);
    t.b[t.len - 1] ^= 1;
    assert_int_equal(opened(&d, &t, &m), ERR_AUTH);
    side_free(&d);
}

static void sealing_reports_full_at_every_smaller_size(void **state)
{
    (void)state;
    for (size_t i = 0; i < SUITES; i++) {
        struct side d = side_of(i);
        struct text whole = sealed(&d, 10), t;
        for (size_t cap = 0; cap < whole.len; cap++) {
            struct ike_builder b;
            static const uint32_t spi = 0xabcdef01;
            memset(t.b, 0xee, sizeof t.b);
            ike_begin(&b, t.b, cap, &head);
            ike_begin_sk(&b, &d.s, span_of(iv, d.s.iv_len));
            ike_put(&b, PAYLOAD_VENDOR, span_of(key, 10));
            ike_put_delete(&b, PROTOCOL_ESP, &spi, 1);
            assert_int_equal(ike_finish_sk(&b, &d.s, d.seal, &t.len), ERR_FULL);
            assert_int_equal(t.b[cap], 0xee);
        }
        side_free(&d);
    }
}

static void iv_of_another_length_than_the_suites_is_refused(void **state)
{
    (void)state;
    struct side d = side_of(0);
    struct text t;
    struct ike_builder b;
    ike_begin(&b, t.b, sizeof t.b, &head);
    ike_begin_sk(&b, &d.s, span_of(iv, d.s.iv_len + 1u));
    assert_int_equal(ike_finish_sk(&b, &d.s, d.seal, &t.len), ERR_FULL);
    side_free(&d);
}

static int start_crypto(void **state)
{
    (void)state;
    return crypto_init() == OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_engine_opens_in_place_what_it_sealed_at_every_alignment),
        cmocka_unit_test(long_payloads_before_sk_are_legal),
        cmocka_unit_test(empty_content_is_a_legal_liveness_check),
        cmocka_unit_test(layout_is_header_iv_text_icv),
        cmocka_unit_test(mac_covers_the_message_from_its_first_byte),
        cmocka_unit_test(any_flipped_bit_is_refused_before_anything_is_believed),
        cmocka_unit_test(cut_messages_are_refused_even_with_lengths_that_fit),
        cmocka_unit_test(message_without_sk_or_for_another_key_is_refused),
        cmocka_unit_test(padding_of_any_length_and_content_that_fits_is_accepted),
        cmocka_unit_test(padding_longer_than_the_text_is_malformed),
        cmocka_unit_test(malformed_content_is_told_from_a_wrong_checksum),
        cmocka_unit_test(payloads_outside_sk_are_refused_once_the_message_is_authentic),
        cmocka_unit_test(sealing_reports_full_at_every_smaller_size),
        cmocka_unit_test(iv_of_another_length_than_the_suites_is_refused),
    };
    return cmocka_run_group_tests(tests, start_crypto, NULL);
}
