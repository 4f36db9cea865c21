/*
 * The vectors of project Wycheproof, every applicable one through every engine. They aren't part of this repository:
 * ADIT_TESTDATA or ../shared/testdata is where they are looked for; without them the RFCs' vectors stand alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "crypto/kex.h"
#include "crypto/prf.h"
#include "crypto/secret.h"
#include "crypto/sig.h"
#include "test/unit/crypto_vector.h"

static const char *folder;

/* Runs a check on each test of a file; it says whether the test applied. Says how many did. */
static void each_test(const char *file, bool (*check)(const json_t *group, const json_t *test))
{
    char path[512];
    json_error_t error;
    size_t i, j, all = 0, applied = 0;
    json_t *group, *test;

    snprintf(path, sizeof path, "%s/wycheproof/%s_test.json", folder, file);
    json_t *root = json_load_file(path, 0, &error);
    if (!root)
        fail_msg("%s: %s", path, error.text);
    json_array_foreach(json_object_get(root, "testGroups"), i, group)
    {
        json_array_foreach(json_object_get(group, "tests"), j, test)
        {
            all++;
            applied += check(group, test);
        }
    }
    assert_int_equal(all, json_integer_value(json_object_get(root, "numberOfTests")));
    assert_true(applied > all / 40);
    print_message("           %s: %zu of %zu apply\n", file, applied, all);
    json_decref(root);
}

static struct span field(const json_t *test, const char *name)
{
    return hex(json_string_value(json_object_get(test, name)));
}

static unsigned number(const json_t *group, const char *name)
{
    return (unsigned)json_integer_value(json_object_get(group, name));
}

static bool is(const json_t *test, const char *result)
{
    return strcmp(json_string_value(json_object_get(test, "result")), result) == 0;
}

static void wrong(const json_t *test, const char *who)
{
    fail_msg("test %u (%s): %s", number(test, "tcId"), json_string_value(json_object_get(test, "comment")), who);
}

/* A valid vector is sealed and opened alike by every engine, an invalid one opened by none. */
static void through_engines(const json_t *test, const struct packet_vector *v)
{
    const char *engine;
    for (unsigned i = 0; (engine = engine_name(i)) != NULL; i++)
        if (engine_has(engine, &v->suite) &&
            (vector_opens(engine, v) != is(test, "valid") || (is(test, "valid") && !vector_seals(engine, v))))
            wrong(test, engine);
}

/* -- AEADs -- */

/* Their nonce is our salt, of so many bytes, and IV. */
static void check_aead(const char *keyword, size_t salt, const json_t *test)
{
    uint8_t key[36];
    struct span k = field(test, "key"), nonce = field(test, "iv"), aad = field(test, "aad"), msg = field(test, "msg"),
                ct = field(test, "ct"), tag = field(test, "tag");
    memcpy(key, k.data, k.len);
    memcpy(key + k.len, nonce.data, salt);
    const struct packet_vector v = {
        .suite = suite_by_name(keyword, NULL),
        .key = span_of(key, k.len + salt),
        .iv = span_of(nonce.data + salt, 8),
        .aad = aad,
        .plain = msg,
        .cipher = ct,
        .icv = tag,
    };
    through_engines(test, &v);
    const struct span all[] = {k, nonce, aad, msg, ct, tag};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        span_free(all[i]);
}

static bool check_gcm(const json_t *group, const json_t *test)
{
    char keyword[16];
    if (number(group, "ivSize") != 96 || number(group, "tagSize") != 128)
        return false;
    snprintf(keyword, sizeof keyword, "aes%ugcm16", number(group, "keySize"));
    check_aead(keyword, 4, test);
    return true;
}

static bool check_ccm(const json_t *group, const json_t *test)
{
    char keyword[16];
    const unsigned tag = number(group, "tagSize");
    if (number(group, "ivSize") != 88 || (tag != 64 && tag != 128))
        return false;
    snprintf(keyword, sizeof keyword, "aes%uccm%u", number(group, "keySize"), tag / 8);
    check_aead(keyword, 3, test);
    return true;
}

static bool check_chacha(const json_t *group, const json_t *test)
{
    if (number(group, "ivSize") != 96)
        return false;
    check_aead("chacha20poly1305", 4, test);
    return true;
}

static void aes_gcm(void **state)
{
    (void)state;
    each_test("aes_gcm", check_gcm);
}

static void aes_ccm(void **state)
{
    (void)state;
    each_test("aes_ccm", check_ccm);
}

static void chacha20_poly1305(void **state)
{
    (void)state;
    each_test("chacha20_poly1305", check_chacha);
}

/* -- AES-CBC: the padding is theirs (PKCS #5), so only valid vectors say something about us -- */

static bool check_cbc(const json_t *group, const json_t *test)
{
    static const uint8_t integ_key[32];
    uint8_t icv[TRANSFORM_ICV_MAX], padded[1024];
    char keyword[8];
    if (!is(test, "valid"))
        return false;
    snprintf(keyword, sizeof keyword, "aes%u", number(group, "keySize"));
    struct span msg = field(test, "msg");
    struct packet_vector v = {
        .suite = suite_by_name(keyword, "sha256"),
        .key = field(test, "key"),
        .integ_key = span_of(integ_key, sizeof integ_key),
        .iv = field(test, "iv"),
        .cipher = field(test, "ct"),
    };
    assert_true(v.cipher.len <= sizeof padded && v.cipher.len > msg.len);
    memset(padded, (int)(v.cipher.len - msg.len), v.cipher.len);
    if (msg.len)
        memcpy(padded, msg.data, msg.len);
    v.plain = span_of(padded, v.cipher.len);
    const struct span parts[] = {v.iv, v.cipher};
    reference_icv(&v.suite, v.integ_key, parts, 2, icv);
    v.icv = span_of(icv, v.suite.icv_len);
    through_engines(test, &v);
    span_free(msg);
    span_free(v.key);
    span_free(v.iv);
    span_free(v.cipher);
    return true;
}

static void aes_cbc(void **state)
{
    (void)state;
    each_test("aes_cbc_pkcs5", check_cbc);
}

/* -- MACs: all through prf, those with a key and tag of IPsec through the engines as well -- */

static bool check_hmac(const json_t *group, const json_t *test, uint16_t id, const char *integ)
{
    uint8_t out[PRF_MAX];
    struct span key = field(test, "key"), msg = field(test, "msg"), tag = field(test, "tag");
    assert_int_equal(prf(id, key, &msg, 1, out), OK);
    if ((memcmp(out, tag.data, tag.len) == 0) != is(test, "valid"))
        wrong(test, "prf");
    const struct packet_vector v = {
        .suite = suite_by_name("null", integ), .integ_key = key, .plain = msg, .cipher = msg, .icv = tag};
    /* A packet has at least a header: nothing at all is never authenticated. */
    if (msg.len && key.len == v.suite.integ_key_len && number(group, "tagSize") == v.suite.icv_len * 8u)
        through_engines(test, &v);
    span_free(key);
    span_free(msg);
    span_free(tag);
    return true;
}

static bool check_hmac_256(const json_t *group, const json_t *test)
{
    return check_hmac(group, test, PRF_HMAC_SHA2_256, "sha256");
}

static bool check_hmac_384(const json_t *group, const json_t *test)
{
    return check_hmac(group, test, PRF_HMAC_SHA2_384, "sha384");
}

static bool check_hmac_512(const json_t *group, const json_t *test)
{
    return check_hmac(group, test, PRF_HMAC_SHA2_512, "sha512");
}

/* 80 bits is none of ours, nor are keys of other lengths than AES-128's for AES-CMAC: its PRF takes those otherwise. */
static bool check_hmac_1(const json_t *group, const json_t *test)
{
    return check_hmac(group, test, PRF_HMAC_SHA1, "sha1");
}

static bool check_cmac(const json_t *group, const json_t *test)
{
    return number(group, "keySize") == 128 && check_hmac(group, test, PRF_AES128_CMAC, "aescmac");
}

static void aes_cmac(void **state)
{
    (void)state;
    each_test("aes_cmac", check_cmac);
}

static void hmac(void **state)
{
    (void)state;
    each_test("hmac_sha1", check_hmac_1);
    each_test("hmac_sha256", check_hmac_256);
    each_test("hmac_sha384", check_hmac_384);
    each_test("hmac_sha512", check_hmac_512);
}

/* -- key exchange -- */

/* Our side has the vector's private value. */
static enum err agree(uint16_t group, struct span private, struct span peer, struct kex_secret *secret)
{
    struct scripted script = {private.data, private.len};
    const struct random_source rnd = scripted_source(&script);
    struct kex_public pub;
    return kex_respond(group, &rnd, peer, &pub, secret);
}

static bool is_zero(struct span s)
{
    for (size_t i = 0; i < s.len; i++)
        if (s.data[i])
            return false;
    return true;
}

/* "acceptable" ones are points of the twist and such, which RFC 7748 takes; secrets of zeroes it lets us refuse. */
static bool check_x25519(const json_t *group, const json_t *test)
{
    (void)group;
    struct kex_secret secret;
    struct span private = field(test, "private"), peer = field(test, "public"), shared = field(test, "shared");
    const enum err e = agree(KE_CURVE25519, private, peer, &secret);
    if (is_zero(shared) ? e != ERR_AUTH : e != OK || !span_equal(span_of(secret.b, secret.len), shared))
        wrong(test, "x25519");
    span_free(private);
    span_free(peer);
    span_free(shared);
    return true;
}

static void x25519(void **state)
{
    (void)state;
    each_test("x25519", check_x25519);
}

/* Theirs are 04 | x | y or compressed; ours lack the 04, and none is compressed (RFC 5903 section 7). */
static bool check_ecp(uint16_t group, const json_t *test)
{
    const size_t public_len = algorithm_find(TRANSFORM_KE, group, 0)->out_len;
    uint8_t scalar[66] = {0};
    struct kex_secret secret;
    struct span private = field(test, "private"), point = field(test, "public"), shared = field(test, "shared");
    const bool applies = point.len == public_len + 1 && point.data[0] == 4;
    if (applies) {
        struct span d = private; /* a signed DER integer: padded to our length, or with a zero too many */
        while (d.len > public_len / 2 && d.data[0] == 0)
            d = span_of(d.data + 1, d.len - 1);
        memcpy(scalar + public_len / 2 - d.len, d.data, d.len);
        const enum err e = agree(group, span_of(scalar, public_len / 2), span_of(point.data + 1, public_len), &secret);
        if (is(test, "valid") ? e != OK || !span_equal(span_of(secret.b, secret.len), shared) : e != ERR_AUTH)
            wrong(test, "ecp");
    }
    span_free(private);
    span_free(point);
    span_free(shared);
    return applies;
}

static bool check_ecp256(const json_t *group, const json_t *test)
{
    (void)group;
    return check_ecp(KE_ECP_256, test);
}

static bool check_ecp384(const json_t *group, const json_t *test)
{
    (void)group;
    return check_ecp(KE_ECP_384, test);
}

static bool check_ecp521(const json_t *group, const json_t *test)
{
    (void)group;
    return check_ecp(KE_ECP_521, test);
}

static void ecp(void **state)
{
    (void)state;
    each_test("ecdh_secp256r1_ecpoint", check_ecp256);
    each_test("ecdh_secp384r1_ecpoint", check_ecp384);
    each_test("ecdh_secp521r1_ecpoint", check_ecp521);
}

/* -- signatures, as the data of an AUTH payload -- */

/* The last arc of a SHA-2 hash's object identifier; 0 if it is not one of ours. */
static unsigned arc_of(const json_t *group, const char *name)
{
    static const char *const names[] = {"", "SHA-256", "SHA-384", "SHA-512"};
    for (unsigned arc = 1; arc < 4; arc++)
        if (strcmp(json_string_value(json_object_get(group, name)), names[arc]) == 0)
            return arc;
    return 0;
}

static bool vouches(const json_t *group, const json_t *test, uint8_t method, struct span algorithm)
{
    char why[200];
    struct public_key *key = NULL;
    struct buf data = {0};
    const uint8_t len = (uint8_t)algorithm.len;
    struct span spki = field(group, "publicKeyDer"), msg = field(test, "msg"), sig = field(test, "sig");
    if (public_key_parse(spki, &key, why, sizeof why) != OK)
        fail_msg("%s", why);
    if (method == SIG_METHOD_DIGITAL)
        assert_true(buf_append(&data, span_of(&len, 1)) == OK && buf_append(&data, algorithm) == OK);
    assert_int_equal(buf_append(&data, sig), OK);
    const bool good = sig_auth_check(key, SIG_HASHES, method, buf_span(&data), msg) == OK;
    public_key_free(key);
    buf_free(&data);
    span_free(spki);
    span_free(msg);
    span_free(sig);
    return good;
}

/* "acceptable": PKCS#1 without the NULL of its parameters, which we don't take. */
static bool check_digital(const json_t *group, const json_t *test, struct span algorithm)
{
    if (vouches(group, test, SIG_METHOD_DIGITAL, algorithm) != is(test, "valid"))
        wrong(test, "method 14");
    return true;
}

static bool check_ecdsa(const json_t *group, const json_t *test)
{
    struct span algorithm = hex("300a06082a8648ce3d040300");
    uint8_t der[12];
    memcpy(der, algorithm.data, sizeof der);
    span_free(algorithm);
    der[11] = (uint8_t)(1 + arc_of(group, "sha")); /* ecdsa-with-SHA256 is 2 */
    return check_digital(group, test, span_of(der, sizeof der));
}

/* r | s, as the methods of RFC 4754 have it. */
static bool check_p1363(const json_t *group, const json_t *test)
{
    if (vouches(group, test, (uint8_t)(SIG_METHOD_ECDSA_256 - 1 + arc_of(group, "sha")), span_of(NULL, 0)) !=
        is(test, "valid"))
        wrong(test, "method 9 to 11");
    return true;
}

static bool check_ed25519(const json_t *group, const json_t *test)
{
    static const uint8_t der[] = {0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70};
    return check_digital(group, test, span_of(der, sizeof der));
}

static bool check_pkcs1(const json_t *group, const json_t *test)
{
    uint8_t der[] = {0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0, 0x05, 0x00};
    der[12] = (uint8_t)(10 + arc_of(group, "sha")); /* sha256WithRSAEncryption is 11 */
    /* Method 1 takes any SHA-2, of which some of the invalid ones have another than the group says. */
    if (is(test, "valid") && !vouches(group, test, SIG_METHOD_RSA, span_of(NULL, 0)))
        wrong(test, "method 1");
    return check_digital(group, test, span_of(der, sizeof der));
}

/* All are valid or not with their own parameters; of those we take only the ones that everybody sends. */
static bool check_pss(const json_t *group, const json_t *test)
{
    uint8_t der[PSS_ALGORITHM];
    const unsigned hash = arc_of(group, "sha"), mask = arc_of(group, "mgfSha"), salt = number(group, "sLen");
    if (!hash || !mask)
        return false;
    pss_algorithm(hash, mask, salt, der);
    const bool taken = hash == mask && salt <= 16 * (hash + 1);
    if (vouches(group, test, SIG_METHOD_DIGITAL, span_of(der, sizeof der)) != (taken && is(test, "valid")))
        wrong(test, "RSA-PSS");
    return true;
}

static void ecdsa(void **state)
{
    (void)state;
    each_test("ecdsa_secp256r1_sha256", check_ecdsa);
    each_test("ecdsa_secp256r1_sha512", check_ecdsa);
    each_test("ecdsa_secp384r1_sha256", check_ecdsa);
    each_test("ecdsa_secp384r1_sha384", check_ecdsa);
    each_test("ecdsa_secp521r1_sha512", check_ecdsa);
    each_test("ecdsa_secp256r1_sha256_p1363", check_p1363);
    each_test("ecdsa_secp384r1_sha384_p1363", check_p1363);
    each_test("ecdsa_secp521r1_sha512_p1363", check_p1363);
}

static void ed25519(void **state)
{
    (void)state;
    each_test("ed25519", check_ed25519);
}

static void rsa(void **state)
{
    (void)state;
    each_test("rsa_signature_2048_sha256", check_pkcs1);
    each_test("rsa_signature_3072_sha256", check_pkcs1);
    each_test("rsa_signature_4096_sha512", check_pkcs1);
    each_test("rsa_pss_2048_sha256_mgf1_32", check_pss);
    each_test("rsa_pss_3072_sha256_mgf1_32", check_pss);
    each_test("rsa_pss_4096_sha384_mgf1_48", check_pss);
    each_test("rsa_pss_4096_sha512_mgf1_64", check_pss);
    each_test("rsa_pss_misc", check_pss);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aes_gcm), cmocka_unit_test(aes_ccm), cmocka_unit_test(chacha20_poly1305),
        cmocka_unit_test(aes_cbc), cmocka_unit_test(hmac),    cmocka_unit_test(aes_cmac),
        cmocka_unit_test(x25519),  cmocka_unit_test(ecp),     cmocka_unit_test(ecdsa),
        cmocka_unit_test(ed25519), cmocka_unit_test(rsa),
    };
    folder = getenv("ADIT_TESTDATA");
    if (!folder)
        folder = "../shared/testdata";
    char path[512];
    snprintf(path, sizeof path, "%s/wycheproof", folder);
    if (access(path, R_OK) != 0) {
        printf("no %s: only our own vectors (test_vectors, test_kex, test_sig) were used\n", path);
        return 0;
    }
    if (crypto_init() != OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
