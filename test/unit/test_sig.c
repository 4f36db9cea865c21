/* Keys from files, and the data of AUTH payloads made and checked with them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "crypto/secret.h"
#include "crypto/sig.h"
#include "test/unit/crypto_vector.h"
#include "test/vectors/sig.h"

static const char octets_text[] = "the octets that the AUTH payload vouches for";
static const char *const every_key[] = {pem_rsa_pkcs8, pem_ecdsa_256_pkcs8, pem_ecdsa_384_pkcs8, pem_ecdsa_521_pkcs8,
                                        pem_ed25519_pkcs8};
#define EVERY_KEY (sizeof every_key / sizeof every_key[0])

static struct span text_span(const char *text)
{
    return span_of(text, strlen(text));
}

static struct span octets(void)
{
    return text_span(octets_text);
}

static struct private_key *private_of(const char *text)
{
    struct private_key *k = NULL;
    char why[200] = "";
    if (private_key_parse(text_span(text), &k, why, sizeof why) != OK)
        fail_msg("%s", why);
    return k;
}

static struct public_key *public_of(struct span text)
{
    struct public_key *k = NULL;
    char why[200] = "";
    if (public_key_parse(text, &k, why, sizeof why) != OK)
        fail_msg("%s", why);
    return k;
}

static void private_refused(const char *text, enum err expected, const char *word)
{
    struct private_key *k = NULL;
    char why[200] = "";
    assert_int_equal(private_key_parse(text_span(text), &k, why, sizeof why), expected);
    assert_null(k);
    if (!strstr(why, word))
        fail_msg("\"%s\" does not say \"%s\"", why, word);
}

static void public_refused(struct span text, enum err expected, const char *word)
{
    struct public_key *k = NULL;
    char why[200] = "";
    assert_int_equal(public_key_parse(text, &k, why, sizeof why), expected);
    assert_null(k);
    if (!strstr(why, word))
        fail_msg("\"%s\" does not say \"%s\"", why, word);
}

/* AUTH data of method 14: length, AlgorithmIdentifier, signature. */
static struct buf digital(struct span algorithm, struct span signature)
{
    const uint8_t len = (uint8_t)algorithm.len;
    struct buf b = {0};
    assert_int_equal(buf_append(&b, span_of(&len, 1)), OK);
    assert_int_equal(buf_append(&b, algorithm), OK);
    assert_int_equal(buf_append(&b, signature), OK);
    return b;
}

static enum err check_hex(const struct public_key *k, unsigned hashes, const char *algorithm, const char *signature,
                          const char *message)
{
    struct span a = hex(algorithm), s = hex(signature);
    struct buf data = digital(a, s);
    enum err e = sig_auth_check(k, hashes, SIG_METHOD_DIGITAL, buf_span(&data), text_span(message));
    buf_free(&data);
    span_free(a);
    span_free(s);
    return e;
}

/* -- keys -- */

static void keys_are_read_in_every_form(void **state)
{
    (void)state;
    static const struct {
        const char *text[3], *public, *name;
        enum key_kind kind;
        unsigned bits;
    } cases[] = {
        {{pem_rsa_pkcs8, pem_rsa_pkcs1}, pem_rsa_public, "RSA 2048", KEY_RSA, 2048},
        {{pem_ecdsa_256_pkcs8, pem_ecdsa_256_sec1}, pem_ecdsa_256_public, "ECDSA P-256", KEY_ECDSA_256, 256},
        {{pem_ecdsa_384_pkcs8, pem_ecdsa_384_sec1}, pem_ecdsa_384_public, "ECDSA P-384", KEY_ECDSA_384, 384},
        {{pem_ecdsa_521_pkcs8, pem_ecdsa_521_sec1}, pem_ecdsa_521_public, "ECDSA P-521", KEY_ECDSA_521, 521},
        {{pem_ed25519_pkcs8}, pem_ed25519_public, "Ed25519", KEY_ED25519, 256},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[32];
        struct buf pem = {0};
        struct public_key *public = public_of(text_span(cases[i].public));
        struct public_key *der = public_of(public_key_spki(public));
        assert_true(public_key_equal(public, der));
        assert_int_equal(public_key_kind(public), cases[i].kind);
        assert_int_equal(public_key_bits(public), cases[i].bits);
        assert_string_equal(public_key_text(public, name, sizeof name), cases[i].name);
        assert_int_equal(public_key_pem(public, &pem), OK);
        assert_true(span_equal(buf_span(&pem), text_span(cases[i].public)));
        for (size_t j = 0; cases[i].text[j]; j++) {
            struct private_key *k = private_of(cases[i].text[j]);
            assert_true(public_key_equal(private_key_public(k), public));
            private_key_free(k);
        }
        buf_free(&pem);
        public_key_free(der);
        public_key_free(public);
    }
}

static void ed25519_keys_are_lines_of_base64(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ed25519_vectors / sizeof ed25519_vectors[0]; i++) {
        char text[KEY_TEXT], got[KEY_TEXT], padded[KEY_TEXT + 8];
        struct span seed = hex(ed25519_vectors[i].seed), point = hex(ed25519_vectors[i].public);
        base64_encode(seed, text, sizeof text);
        snprintf(padded, sizeof padded, " \t%s\r\n\n", text);
        struct private_key *k = private_of(text), *same = private_of(padded);
        base64_encode(point, text, sizeof text);
        struct public_key *public = public_of(text_span(text));
        assert_true(public_key_equal(public, private_key_public(k)));
        assert_true(public_key_equal(public, private_key_public(same)));
        assert_true(public_key_line(public, got));
        assert_string_equal(got, text);
        private_key_free(k);
        private_key_free(same);
        public_key_free(public);
        span_free(seed);
        span_free(point);
    }
    struct private_key *k = private_of(pem_ed25519_version_2), *ec = private_of(pem_rfc6979);
    char line[KEY_TEXT];
    assert_true(public_key_line(private_key_public(k), line));
    assert_string_equal(line, "Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="); /* RFC 8410 section 10.1 */
    assert_false(public_key_line(private_key_public(ec), line));
    private_key_free(k);
    private_key_free(ec);
}

static void other_private_keys_are_refused(void **state)
{
    (void)state;
    private_refused("", ERR_SYNTAX, "expected");
    private_refused("no key", ERR_SYNTAX, "genkey");
    private_refused("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", ERR_SYNTAX, "expected"); /* 43 characters */
    private_refused(pem_rsa_public, ERR_SYNTAX, "no private key");
    private_refused(pem_encrypted_pkcs8, ERR_UNSUPPORTED, "encrypted");
    private_refused(pem_encrypted_sec1, ERR_UNSUPPORTED, "encrypted");
    private_refused(pem_rsa_1024, ERR_UNSUPPORTED, "1024");
    private_refused(pem_ed448, ERR_UNSUPPORTED, "Ed25519");
    private_refused(pem_secp256k1, ERR_UNSUPPORTED, "P-256");

    struct private_key *k = NULL;
    char why[200], *huge = calloc(1, 100000), *cut = strdup(pem_rsa_pkcs8);
    memset(huge, ' ', 99999);
    private_refused(huge, ERR_SYNTAX, "at most");
    assert_int_equal(private_key_parse(span_of("a\0b", 3), &k, why, sizeof why), ERR_SYNTAX);
    for (size_t len = strlen(cut); len > 200; len -= 97) { /* also within the last line */
        cut[len - 30] = 0;
        assert_int_equal(private_key_parse(text_span(cut), &k, why, sizeof why), ERR_SYNTAX);
    }
    free(cut);
    free(huge);
}

/*
 * One digit changed inside the base64: numbers that do not belong together, or no DER any more. Of an ECDSA key the
 * public half may be left out, so that a digit that hides it makes a key of the scalar alone.
 */
static void damaged_private_keys_are_refused(void **state)
{
    (void)state;
    static const char *const keys[] = {pem_rsa_pkcs8, pem_ecdsa_256_sec1, pem_ecdsa_521_pkcs8};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        unsigned refused = 0, tried = 0;
        struct private_key *right = private_of(keys[i]);
        char *text = strdup(keys[i]);
        char *begin = strstr(text, "PRIVATE KEY-----\n") + 17, *end = strstr(begin, "\n-----END");
        for (char *at = end - 6; at > begin + 80; at -= i == 0 ? 131 : 11) {
            const char was = *at;
            struct private_key *k = NULL;
            char why[200];
            if (was == '\n')
                continue;
            *at = was == 'A' ? 'B' : 'A';
            if (private_key_parse(text_span(text), &k, why, sizeof why) == OK && i == 0)
                assert_true(public_key_equal(private_key_public(k), private_key_public(right)));
            refused += !k;
            tried++;
            private_key_free(k);
            *at = was;
        }
        assert_true(refused > tried * 3 / 4);
        private_key_free(right);
        free(text);
    }
}

static void other_public_keys_are_refused(void **state)
{
    (void)state;
    char text[KEY_TEXT];
    uint8_t point[32] = {1}; /* the neutral element: any signature could be made for it */
    struct span explicit = hex(der_ecdsa_explicit);
    public_refused(span_of(NULL, 0), ERR_SYNTAX, "expected");
    public_refused(text_span("no key"), ERR_SYNTAX, "base64");
    public_refused(text_span(pem_rsa_pkcs8), ERR_SYNTAX, "no public key");
    public_refused(text_span(pem_rsa_1024_public), ERR_UNSUPPORTED, "1024");
    public_refused(text_span(pem_ed448_public), ERR_UNSUPPORTED, "Ed25519");
    public_refused(text_span(pem_secp256k1_public), ERR_UNSUPPORTED, "P-256");
    public_refused(text_span(pem_ecdsa_compressed), ERR_UNSUPPORTED, "compressed");
    public_refused(explicit, ERR_SYNTAX, "expected"); /* RFC 5480 section 2.1.1: named curves only */
    base64_encode(span_of(point, sizeof point), text, sizeof text);
    public_refused(text_span(text), ERR_SYNTAX, "Ed25519");
    memset(point, 0xff, sizeof point); /* a coordinate above p */
    base64_encode(span_of(point, sizeof point), text, sizeof text);
    public_refused(text_span(text), ERR_SYNTAX, "Ed25519");
    span_free(explicit);

    static const char *const keys[] = {pem_rsa_public, pem_ecdsa_384_public, pem_ed25519_public};
    for (size_t i = 0; i < 3; i++) {
        struct public_key *k = public_of(text_span(keys[i]));
        const struct span der = public_key_spki(k);
        uint8_t *longer = malloc(der.len + 1);
        memcpy(longer, der.data, der.len);
        longer[der.len] = 0;
        public_refused(span_of(longer, der.len + 1), i == 2 ? ERR_UNSUPPORTED : ERR_SYNTAX, "expected");
        for (size_t len = 1; len < der.len; len += 7) {
            struct public_key *none = NULL;
            char why[200];
            assert_int_not_equal(public_key_parse(span_of(longer, len), &none, why, sizeof why), OK);
        }
        if (i == 1) {
            memmove(longer + 2, longer + 1, der.len - 1); /* a length that is not the shortest form */
            longer[1] = 0x81;
            public_refused(span_of(longer, der.len + 1), ERR_SYNTAX, "named curve");
            memcpy(longer, der.data, der.len);
            longer[der.len - 1] ^= 1; /* not on the curve */
            public_refused(span_of(longer, der.len), ERR_SYNTAX, "expected");
        }
        free(longer);
        public_key_free(k);
    }
}

static void a_fingerprint_is_sha256_of_the_spki(void **state)
{
    (void)state;
    /* openssl pkey -pubout -outform DER | sha256sum */
    struct span expected = hex("d6b11e26d8f9c334cf02d80f5b1d3d7cfb022585ff3aa3391c276de55f4f9949");
    uint8_t got[KEY_FINGERPRINT];
    struct public_key *k = public_of(text_span(pem_ecdsa_256_public));
    public_key_fingerprint(k, got);
    assert_true(span_equal(expected, span_of(got, sizeof got)));
    public_key_free(k);
    span_free(expected);
}

static void keys_are_counted(void **state)
{
    (void)state;
    struct private_key *k = private_of(pem_ecdsa_256_pkcs8);
    struct public_key *p = public_of(text_span(pem_rsa_public));
    assert_ptr_equal(private_key_ref(k), k);
    assert_ptr_equal(public_key_ref(p), p);
    private_key_free(k);
    public_key_free(p);
    assert_int_equal(public_key_kind(private_key_public(k)), KEY_ECDSA_256); /* still there */
    assert_int_equal(public_key_bits(p), 2048);
    private_key_free(k);
    public_key_free(p);
    private_key_free(NULL);
    public_key_free(NULL);
}

/* -- signatures made by others -- */

static void signatures_of_openssl_are_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof signed_vectors / sizeof signed_vectors[0]; i++) {
        const struct signed_vector *v = &signed_vectors[i];
        struct private_key *k = private_of(v->key);
        const struct public_key *public = private_key_public(k);
        struct span algorithm = hex(v->algorithm), signature = hex(v->signature);
        struct buf data = digital(algorithm, signature);
        char text[64];
        print_message("           %s\n", v->text);
        assert_int_equal(check_hex(public, SIG_HASH_BIT(v->hash), v->algorithm, v->signature, SIGNED_BY_OPENSSL), OK);
        assert_int_equal(
            check_hex(public, SIG_HASHES & ~SIG_HASH_BIT(v->hash), v->algorithm, v->signature, SIGNED_BY_OPENSSL),
            ERR_UNSUPPORTED); /* RFC 7427 section 4: not announced */
        assert_int_equal(check_hex(public, SIG_HASHES, v->algorithm, v->signature, "what the peer signz"), ERR_AUTH);
        assert_string_equal(sig_auth_text(SIG_METHOD_DIGITAL, buf_span(&data), text, sizeof text), v->text);
        if (strncmp(v->text, "RSA with", 8) == 0)
            assert_int_equal(sig_auth_check(public, 0, SIG_METHOD_RSA, signature, text_span(SIGNED_BY_OPENSSL)), OK);
        buf_free(&data);
        span_free(algorithm);
        span_free(signature);
        private_key_free(k);
    }
}

static void signatures_of_rfc8032_are_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ed25519_vectors / sizeof ed25519_vectors[0]; i++) {
        char text[KEY_TEXT];
        uint8_t method;
        struct span seed = hex(ed25519_vectors[i].seed), message = hex(ed25519_vectors[i].message),
                    signature = hex(ed25519_vectors[i].signature), algorithm = hex("300506032b6570");
        struct buf made = {0}, expected = digital(algorithm, signature);
        base64_encode(seed, text, sizeof text);
        struct private_key *k = private_of(text);
        assert_int_equal(sig_auth_make(k, SIG_HASHES, &random_system, message, &method, &made), OK);
        assert_int_equal(method, SIG_METHOD_DIGITAL);
        assert_true(span_equal(buf_span(&made), buf_span(&expected)));
        assert_int_equal(sig_auth_check(private_key_public(k), SIG_HASHES, method, buf_span(&made), message), OK);
        buf_free(&made);
        buf_free(&expected);
        private_key_free(k);
        span_free(seed);
        span_free(message);
        span_free(signature);
        span_free(algorithm);
    }
}

static void signatures_of_rfc4754_are_right(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ecdsa_vectors / sizeof ecdsa_vectors[0]; i++) {
        const struct ecdsa_vector *v = &ecdsa_vectors[i];
        struct span head = hex(v->head), point = hex(v->public), signature = hex(v->signature);
        struct buf der = {0};
        assert_int_equal(buf_append(&der, head), OK);
        assert_int_equal(buf_append(&der, point), OK);
        struct public_key *k = public_of(buf_span(&der));
        for (uint8_t method = 0; method < SIG_METHOD_DIGITAL; method++)
            assert_int_equal(sig_auth_check(k, 0, method, signature, text_span("abc")),
                             method == v->method ? OK : ERR_UNSUPPORTED);
        assert_int_equal(sig_auth_check(k, 0, (uint8_t)v->method, signature, text_span("abd")), ERR_AUTH);
        public_key_free(k);
        buf_free(&der);
        span_free(head);
        span_free(point);
        span_free(signature);
    }
}

static void sha1_is_refused(void **state)
{
    (void)state;
    struct private_key *rsa = private_of(pem_rsa_pkcs8), *ec = private_of(pem_ecdsa_256_pkcs8);
    const struct public_key *public = private_key_public(rsa);
    const unsigned all = ~0u;
    struct span signature = hex(rsa_sha1_signature);
    /* RFC 7427 appendix A.1.1, A.4.1 (which means SHA-1), A.4.2 and A.3.1 */
    assert_int_equal(check_hex(public, all, "300d06092a864886f70d0101050500", rsa_sha1_signature, SIGNED_BY_OPENSSL),
                     ERR_UNSUPPORTED);
    assert_int_equal(check_hex(public, all, "300d06092a864886f70d01010a3000", pss_sha1_signature, SIGNED_BY_OPENSSL),
                     ERR_UNSUPPORTED);
    assert_int_equal(check_hex(public, all,
                               "303e06092a864886f70d01010a3031a00b300906052b0e03021a0500a118301606092a864886f70d0101083"
                               "00906052b0e03021a0500a203020114a303020101",
                               pss_sha1_signature, SIGNED_BY_OPENSSL),
                     ERR_UNSUPPORTED);
    assert_int_equal(
        check_hex(private_key_public(ec), all, "300906072a8648ce3d0401", ecdsa_sha1_signature, SIGNED_BY_OPENSSL),
        ERR_UNSUPPORTED);
    assert_int_equal(sig_auth_check(public, 0, SIG_METHOD_RSA, signature, text_span(SIGNED_BY_OPENSSL)),
                     ERR_UNSUPPORTED);
    assert_int_equal(sig_auth_check(public, 0, SIG_METHOD_RSA, signature, text_span("something else")), ERR_AUTH);
    span_free(signature);
    private_key_free(rsa);
    private_key_free(ec);
}

/* Every change of an AlgorithmIdentifier makes another one, which is not this signature's. */
static void algorithms_are_compared_strictly(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof signed_vectors / sizeof signed_vectors[0]; i++) {
        const struct signed_vector *v = &signed_vectors[i];
        struct private_key *k = private_of(v->key);
        struct span algorithm = hex(v->algorithm), signature = hex(v->signature);
        struct buf data = digital(algorithm, signature);
        for (size_t bit = 0; bit < 8 * (1 + algorithm.len); bit++) {
            data.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            assert_int_not_equal(sig_auth_check(private_key_public(k), SIG_HASHES, SIG_METHOD_DIGITAL, buf_span(&data),
                                                text_span(SIGNED_BY_OPENSSL)),
                                 OK);
            data.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        }
        buf_free(&data);
        span_free(algorithm);
        span_free(signature);
        private_key_free(k);
    }
}

static void parameters_that_are_not_plain_are_refused(void **state)
{
    (void)state;
    const struct signed_vector *pss = &signed_vectors[1], *ecdsa = &signed_vectors[2];
    struct private_key *k = private_of(pss->key), *ec = private_of(ecdsa->key);
    const struct public_key *public = private_key_public(k);
    uint8_t algorithm[PSS_ALGORITHM];
    const struct {
        unsigned hash, mask, salt;
    } cases[] = {{1, 2, 32}, {1, 1, 31}, {1, 1, 33}, {2, 2, 48}, {4, 4, 28}, {1, 1, 0}};
    struct span signature = hex(pss->signature);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pss_algorithm(cases[i].hash, cases[i].mask, cases[i].salt, algorithm);
        struct buf data = digital(span_of(algorithm, sizeof algorithm), signature);
        assert_int_not_equal(
            sig_auth_check(public, SIG_HASHES, SIG_METHOD_DIGITAL, buf_span(&data), text_span(SIGNED_BY_OPENSSL)), OK);
        buf_free(&data);
    }
    /* A right signature whose salt is longer than its hash. */
    assert_int_equal(
        check_hex(public, SIG_HASHES,
                  "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d01"
                  "0108300d06096086480165030402010500a203020121",
                  pss_salt33_signature, SIGNED_BY_OPENSSL),
        ERR_UNSUPPORTED);
    /* Without the trailer field, and without the NULLs as well: the same meaning (RFC 4055 section 2.1, 3.1). */
    static const char *const good[] = {
        "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d060960864801"
        "6503"
        "0402010500a203020120",
        "303d06092a864886f70d01010a3030a00d300b0609608648016503040201a11a301806092a864886f70d010108300b0609608648016503"
        "0402"
        "01a203020120",
    };
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(check_hex(public, SIG_HASHES, good[i], pss->signature, SIGNED_BY_OPENSSL), OK);
    /* ECDSA with NULL parameters, RSA and Ed25519 the wrong way round, no algorithm, no signature. */
    const struct public_key *curve = private_key_public(ec);
    assert_int_equal(check_hex(curve, SIG_HASHES, "300c06082a8648ce3d0403020500", ecdsa->signature, SIGNED_BY_OPENSSL),
                     ERR_UNSUPPORTED);
    assert_int_equal(
        check_hex(public, SIG_HASHES, "300b06092a864886f70d01010b", signed_vectors[0].signature, SIGNED_BY_OPENSSL),
        ERR_UNSUPPORTED);
    assert_int_equal(check_hex(public, SIG_HASHES, "", signed_vectors[0].signature, SIGNED_BY_OPENSSL), ERR_SYNTAX);
    assert_int_equal(check_hex(public, SIG_HASHES, signed_vectors[0].algorithm, "", SIGNED_BY_OPENSSL), ERR_SYNTAX);
    assert_int_equal(sig_auth_check(public, SIG_HASHES, SIG_METHOD_DIGITAL, span_of(NULL, 0), octets()), ERR_SYNTAX);
    span_free(signature);
    private_key_free(k);
    private_key_free(ec);
}

/* r and s in forms that a lax reader would take: DER of a signature is strict (X.690 section 8.3, 10). */
static void ecdsa_signatures_are_strict_der(void **state)
{
    (void)state;
    const struct signed_vector *v = &signed_vectors[2];
    struct private_key *k = private_of(v->key);
    struct span s = hex(v->signature), algorithm = hex(v->algorithm);
    uint8_t form[200];
    struct reader r = reader_of(s);
    (void)read_u16(&r);
    const struct span integers = read_rest(&r);
    static const struct {
        const char *head, *tail;
    } around[] = {{"3081LL", ""}, {"30LL", "00"}, {"31LL", ""}, {"3080", "0000"}, {"30LL", "020101"}, {"3082LLLL", ""}};
    for (size_t i = 0; i < sizeof around / sizeof around[0]; i++) {
        struct writer w = writer_of(form, sizeof form);
        for (const char *c = around[i].head; *c; c += 2) {
            char two[3] = {c[0], c[1], 0};
            write_u8(&w, c[0] == 'L' ? (uint8_t)integers.len : (uint8_t)strtoul(two, NULL, 16));
        }
        if (strstr(around[i].head, "LLLL"))
            form[2] = 0;
        write_span(&w, integers);
        struct span tail = hex(around[i].tail);
        write_span(&w, tail);
        struct buf data = digital(algorithm, span_of(form, writer_len(&w)));
        assert_int_equal(sig_auth_check(private_key_public(k), SIG_HASHES, SIG_METHOD_DIGITAL, buf_span(&data),
                                        text_span(SIGNED_BY_OPENSSL)),
                         ERR_SYNTAX);
        buf_free(&data);
        span_free(tail);
    }
    static const char *const values[] = {"3006020100020100",
                                         "3006020101020100",
                                         "3006020100020101",
                                         "3006020101020101",
                                         "300602018102010f",
                                         "300702020001020101",
                                         "30050200020101",
                                         "3000",
                                         "00"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        assert_int_not_equal(check_hex(private_key_public(k), SIG_HASHES, v->algorithm, values[i], SIGNED_BY_OPENSSL),
                             OK);
    span_free(s);
    span_free(algorithm);
    private_key_free(k);
}

/* The right r and s, but r lacks the zero before it that it needs, or has one that it does not need. */
static void ecdsa_numbers_are_in_their_one_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof signed_vectors / sizeof signed_vectors[0]; i++) {
        const struct signed_vector *v = &signed_vectors[i];
        if (strncmp(v->text, "ECDSA", 5) != 0 || v->key == pem_ecdsa_521_pkcs8)
            continue; /* a P-521 signature has another head */
        struct private_key *k = private_of(v->key);
        struct span s = hex(v->signature), algorithm = hex(v->algorithm);
        uint8_t form[200];
        struct reader in = reader_of(s);
        const uint8_t tag = read_u8(&in), len = read_u8(&in), integer = read_u8(&in);
        const struct span r = read_span(&in, read_u8(&in));
        const bool zero = r.data[0] == 0;
        struct writer w = writer_of(form, sizeof form);
        write_u8(&w, tag);
        write_u8(&w, (uint8_t)(zero ? len - 1 : len + 1));
        write_u8(&w, integer);
        write_u8(&w, (uint8_t)(zero ? r.len - 1 : r.len + 1));
        if (!zero)
            write_u8(&w, 0);
        write_span(&w, zero ? span_of(r.data + 1, r.len - 1) : r);
        write_span(&w, read_rest(&in));
        struct buf data = digital(algorithm, span_of(form, writer_len(&w)));
        assert_int_equal(sig_auth_check(private_key_public(k), SIG_HASHES, SIG_METHOD_DIGITAL, buf_span(&data),
                                        text_span(SIGNED_BY_OPENSSL)),
                         ERR_SYNTAX);
        buf_free(&data);
        span_free(s);
        span_free(algorithm);
        private_key_free(k);
    }
}

/* -- signatures of our own -- */

static void what_is_made_is_what_is_checked(void **state)
{
    (void)state;
    static const char *const texts[] = {"RSA-PSS with SHA2-%s", "ECDSA with SHA2-%s", "ECDSA with SHA2-%s",
                                        "ECDSA with SHA2-%s", "Ed25519"};
    static const struct {
        unsigned hashes;
        const char *hash[EVERY_KEY]; /* NULL: there is none */
    } cases[] = {
        {SIG_HASHES, {"256", "256", "384", "512", ""}},
        {SIG_HASH_BIT(SIG_SHA2_256), {"256", "256", "256", "256", NULL}},
        {SIG_HASH_BIT(SIG_SHA2_384), {"384", "384", "384", "384", NULL}},
        {SIG_HASH_BIT(SIG_SHA2_512), {"512", "512", "512", "512", NULL}},
        {SIG_HASH_BIT(SIG_IDENTITY), {NULL, NULL, NULL, NULL, ""}},
        {SIG_HASH_BIT(1), {NULL, NULL, NULL, NULL, NULL}}, /* SHA-1 alone */
    };
    for (size_t i = 0; i < EVERY_KEY; i++) {
        struct private_key *k = private_of(every_key[i]), *other = private_of(every_key[(i + 1) % EVERY_KEY]);
        for (size_t j = 0; j < sizeof cases / sizeof cases[0]; j++) {
            struct buf data = {0};
            uint8_t method = 0;
            char text[64], expected[64];
            const char *hash = cases[j].hash[i];
            assert_int_equal(sig_auth_make(k, cases[j].hashes, &random_system, octets(), &method, &data),
                             hash ? OK : ERR_UNSUPPORTED);
            if (!hash) {
                assert_int_equal(data.len, 0);
                continue;
            }
            assert_int_equal(method, SIG_METHOD_DIGITAL);
            snprintf(expected, sizeof expected, "%.*s%s", (int)strcspn(texts[i], "%"), texts[i], hash);
            assert_string_equal(sig_auth_text(method, buf_span(&data), text, sizeof text), expected);
            assert_int_equal(sig_auth_check(private_key_public(k), cases[j].hashes, method, buf_span(&data), octets()),
                             OK);
            assert_int_not_equal(
                sig_auth_check(private_key_public(other), SIG_HASHES, method, buf_span(&data), octets()), OK);
            buf_free(&data);
        }
        private_key_free(k);
        private_key_free(other);
    }
}

static void old_methods_serve_peers_without_rfc7427(void **state)
{
    (void)state;
    static const uint8_t methods[EVERY_KEY] = {1, 9, 10, 11, 0};
    static const size_t lengths[EVERY_KEY] = {256, 64, 96, 132, 0};
    static const char *const texts[EVERY_KEY] = {"RSA", "ECDSA P-256 with SHA2-256", "ECDSA P-384 with SHA2-384",
                                                 "ECDSA P-521 with SHA2-512", ""};
    char text[64];
    for (size_t i = 0; i < EVERY_KEY; i++) {
        struct private_key *k = private_of(every_key[i]);
        struct buf data = {0};
        uint8_t method = 0;
        assert_int_equal(sig_auth_make(k, 0, &random_system, octets(), &method, &data),
                         methods[i] ? OK : ERR_UNSUPPORTED);
        assert_int_equal(method, methods[i]);
        assert_int_equal(data.len, lengths[i]);
        if (method) {
            assert_int_equal(sig_auth_check(private_key_public(k), 0, method, buf_span(&data), octets()), OK);
            assert_string_equal(sig_auth_text(method, buf_span(&data), text, sizeof text), texts[i]);
        }
        buf_free(&data);
        private_key_free(k);
    }
    assert_string_equal(sig_auth_text(3, span_of(NULL, 0), text, sizeof text), "method 3");
    assert_string_equal(sig_auth_text(14, span_of(NULL, 0), text, sizeof text),
                        "a digital signature of unknown algorithm");
}

/* PKCS#1 v1.5 has no randomness, ECDSA none by RFC 6979, Ed25519 never had: the bytes are known. */
static void signatures_are_reproducible(void **state)
{
    (void)state;
    uint8_t method;
    struct buf data = {0};
    struct span rsa = hex(signed_vectors[0].signature), ec = hex(rfc6979_signature);
    struct private_key *k = private_of(pem_rsa_pkcs1);
    assert_int_equal(sig_auth_make(k, 0, &random_system, text_span(SIGNED_BY_OPENSSL), &method, &data), OK);
    assert_true(span_equal(buf_span(&data), rsa));
    private_key_free(k);
    k = private_of(pem_rfc6979);
    assert_int_equal(sig_auth_make(k, 0, &random_system, text_span("sample"), &method, &data), OK);
    assert_true(span_equal(buf_span(&data), ec));
    private_key_free(k);
    buf_free(&data);
    span_free(rsa);
    span_free(ec);
}

static void rsa_pss_is_written_as_rfc7427_says(void **state)
{
    (void)state;
    /* Appendix A.4.3 less its trailer field, whose default DER leaves out; each hash with a salt of its length. */
    struct private_key *k = private_of(pem_rsa_pkcs8);
    const struct {
        enum sig_hash hash;
        unsigned arc, salt;
    } cases[] = {{SIG_SHA2_256, 1, 32}, {SIG_SHA2_384, 2, 48}, {SIG_SHA2_512, 3, 64}};
    for (size_t i = 0; i < 3; i++) {
        uint8_t method, algorithm[PSS_ALGORITHM];
        struct buf data = {0}, again = {0};
        pss_algorithm(cases[i].arc, cases[i].arc, cases[i].salt, algorithm);
        algorithm[1] = (uint8_t)(algorithm[1] - 5);
        algorithm[14] = (uint8_t)(algorithm[14] - 5);
        assert_int_equal(sig_auth_make(k, SIG_HASH_BIT(cases[i].hash), &random_system, octets(), &method, &data), OK);
        assert_int_equal(sig_auth_make(k, SIG_HASH_BIT(cases[i].hash), &random_system, octets(), &method, &again), OK);
        assert_int_equal(data.len, 1 + PSS_ALGORITHM - 5 + 256);
        assert_int_equal(data.data[0], PSS_ALGORITHM - 5);
        assert_memory_equal(data.data + 1, algorithm, PSS_ALGORITHM - 5);
        assert_memory_not_equal(data.data + 100, again.data + 100, 100); /* salted */
        buf_free(&data);
        buf_free(&again);
    }
    private_key_free(k);
}

/* -- signatures that are not -- */

static void each_changed_bit_is_noticed(void **state)
{
    (void)state;
    static const size_t step[EVERY_KEY] = {1, 1, 3, 7, 1};
    for (size_t i = 0; i < EVERY_KEY; i++) {
        struct private_key *k = private_of(every_key[i]);
        for (unsigned hashes = 0; hashes <= SIG_HASHES; hashes += SIG_HASHES) {
            struct buf data = {0};
            uint8_t method;
            if (sig_auth_make(k, hashes, &random_system, octets(), &method, &data) != OK)
                continue; /* Ed25519 has no old method */
            /* Each by itself, or all of them over several bytes where one check takes milliseconds. */
            for (size_t bit = 0; bit < 8 * data.len; bit += step[i]) {
                data.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
                assert_int_not_equal(
                    sig_auth_check(private_key_public(k), SIG_HASHES, method, buf_span(&data), octets()), OK);
                data.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
            }
            buf_free(&data);
        }
        private_key_free(k);
    }
}

static void lengths_are_exact(void **state)
{
    (void)state;
    for (size_t i = 0; i < EVERY_KEY; i++) {
        struct private_key *k = private_of(every_key[i]);
        const struct public_key *public = private_key_public(k);
        for (unsigned hashes = 0; hashes <= SIG_HASHES; hashes += SIG_HASHES) {
            struct buf data = {0};
            uint8_t method;
            if (sig_auth_make(k, hashes, &random_system, octets(), &method, &data) != OK)
                continue;
            const size_t len = data.len, head = hashes ? 1u + data.data[0] : 0;
            for (size_t cut = 0; cut < len; cut += cut < len - 5 ? 5 : 1) {
                uint8_t *exact = malloc(cut ? cut : 1); /* AddressSanitizer sees a byte read beyond */
                memcpy(exact, data.data, cut);
                assert_int_not_equal(sig_auth_check(public, SIG_HASHES, method, span_of(exact, cut), octets()), OK);
                free(exact);
            }
            static const uint8_t more[2000];
            for (size_t extra = 1; extra <= sizeof more; extra *= 5) {
                assert_int_equal(buf_append(&data, span_of(more, extra)), OK);
                assert_int_not_equal(sig_auth_check(public, SIG_HASHES, method, buf_span(&data), octets()), OK);
                data.len = len;
            }
            memset(data.data + head, 0, len - head);
            assert_int_not_equal(sig_auth_check(public, SIG_HASHES, method, buf_span(&data), octets()), OK);
            memset(data.data + head, 0xff, len - head);
            assert_int_not_equal(sig_auth_check(public, SIG_HASHES, method, buf_span(&data), octets()), OK);
            buf_free(&data);
        }
        private_key_free(k);
    }
}

static void another_key_of_the_kind_does_not_vouch(void **state)
{
    (void)state;
    struct private_key *a = private_of(pem_rsa_pkcs8), *b = private_of(pem_rsa_other);
    for (unsigned hashes = 0; hashes <= SIG_HASHES; hashes += SIG_HASHES) {
        struct buf data = {0};
        uint8_t method;
        assert_int_equal(sig_auth_make(a, hashes, &random_system, octets(), &method, &data), OK);
        assert_int_equal(sig_auth_check(private_key_public(b), SIG_HASHES, method, buf_span(&data), octets()),
                         ERR_AUTH);
        buf_free(&data);
    }
    private_key_free(a);
    private_key_free(b);
}

/* -- threads -- */

static void *sign_and_check(void *arg)
{
    struct private_key *k = arg;
    for (int i = 0; i < 6; i++) {
        struct buf data = {0};
        uint8_t method;
        struct private_key *mine = private_key_ref(k);
        if (sig_auth_make(mine, SIG_HASHES, &random_system, octets(), &method, &data) != OK ||
            sig_auth_check(private_key_public(mine), SIG_HASHES, method, buf_span(&data), octets()) != OK)
            return NULL;
        buf_free(&data);
        private_key_free(mine);
    }
    return k;
}

static void threads_share_a_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < EVERY_KEY; i++) {
        struct private_key *k = private_of(every_key[i]);
        pthread_t threads[3];
        for (size_t t = 0; t < 3; t++)
            assert_int_equal(pthread_create(&threads[t], NULL, sign_and_check, k), 0);
        for (size_t t = 0; t < 3; t++) {
            void *got = NULL;
            assert_int_equal(pthread_join(threads[t], &got), 0);
            assert_ptr_equal(got, k);
        }
        private_key_free(k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_read_in_every_form),
        cmocka_unit_test(ed25519_keys_are_lines_of_base64),
        cmocka_unit_test(other_private_keys_are_refused),
        cmocka_unit_test(damaged_private_keys_are_refused),
        cmocka_unit_test(other_public_keys_are_refused),
        cmocka_unit_test(a_fingerprint_is_sha256_of_the_spki),
        cmocka_unit_test(keys_are_counted),
        cmocka_unit_test(signatures_of_openssl_are_right),
        cmocka_unit_test(signatures_of_rfc8032_are_right),
        cmocka_unit_test(signatures_of_rfc4754_are_right),
        cmocka_unit_test(sha1_is_refused),
        cmocka_unit_test(algorithms_are_compared_strictly),
        cmocka_unit_test(parameters_that_are_not_plain_are_refused),
        cmocka_unit_test(ecdsa_signatures_are_strict_der),
        cmocka_unit_test(ecdsa_numbers_are_in_their_one_form),
        cmocka_unit_test(what_is_made_is_what_is_checked),
        cmocka_unit_test(old_methods_serve_peers_without_rfc7427),
        cmocka_unit_test(signatures_are_reproducible),
        cmocka_unit_test(rsa_pss_is_written_as_rfc7427_says),
        cmocka_unit_test(each_changed_bit_is_noticed),
        cmocka_unit_test(lengths_are_exact),
        cmocka_unit_test(another_key_of_the_kind_does_not_vouch),
        cmocka_unit_test(threads_share_a_key),
    };
    if (crypto_init() != OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
