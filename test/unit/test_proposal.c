/* Proposals as configured (policy/proposal.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "policy/proposal.h"
#include "policy/spelling.h"

static void check(const char *text, enum protocol_id protocol, const char *expected)
{
    struct proposals p;
    char why[200] = "", out[1000];
    if (proposals_parse(text, protocol, &p, why, sizeof(why)) != OK)
        fail_msg("%s: %s", text, why);
    for (unsigned i = 0; i < p.n; i++)
        assert_int_equal(p.v[i].protocol, protocol);
    assert_string_equal(proposals_format(&p, out, sizeof(out)), expected);
}

static void refuse(const char *text, enum protocol_id protocol, const char *expected)
{
    struct proposals p = {.n = 7};
    char why[200] = "";
    assert_int_equal(proposals_parse(text, protocol, &p, why, sizeof(why)), ERR_SYNTAX);
    assert_string_equal(why, expected);
    assert_int_equal(p.n, 7); /* untouched */
}

static void ike_proposals_are_completed(void **state)
{
    (void)state;
    check("aes256gcm16-prfsha384-x25519", PROTOCOL_IKE, "aes256gcm16-prfsha384-x25519");
    check("aes256gcm16-x25519", PROTOCOL_IKE, "aes256gcm16-x25519-prfsha256");
    check("aes256-sha512-sha256-modp2048", PROTOCOL_IKE, "aes256-sha512-sha256-modp2048-prfsha512-prfsha256");
    check("aes256-sha384-prfsha256-ecp256", PROTOCOL_IKE, "aes256-sha384-prfsha256-ecp256");
    check("aes256gcm16-sha512-x25519", PROTOCOL_IKE, "aes256gcm16-x25519-prfsha512"); /* strongSwan's habit */
    check(" aes128-sha256-x25519 , aes128gcm16-curve25519 ", PROTOCOL_IKE,
          "aes128-sha256-x25519-prfsha256, aes128gcm16-x25519-prfsha256");
    check("aes128ctr-aesxcbc-aescmac-sha1-modp2048", PROTOCOL_IKE,
          "aes128ctr-aesxcbc-aescmac-sha1-modp2048-prfaesxcbc-prfaescmac-prfsha1");
    check("aes192ccm64-aes256gcm12-prfaesxcbc-x25519", PROTOCOL_IKE, "aes192ccm8-aes256gcm12-prfaesxcbc-x25519");
    check("aes128-aes128-sha256-sha2_256-x25519", PROTOCOL_IKE, "aes128-sha256-x25519-prfsha256");
}

static void esp_proposals_are_completed(void **state)
{
    (void)state;
    check("aes256gcm16", PROTOCOL_ESP, "aes256gcm16-esn-noesn");
    check("aes256gcm16-noesn", PROTOCOL_ESP, "aes256gcm16-noesn");
    check("aes128-sha256-x25519-esn", PROTOCOL_ESP, "aes128-sha256-x25519-esn");
    check("null-sha256", PROTOCOL_ESP, "null-sha256-esn-noesn");
}

static void ah_proposals_have_integrity_alone(void **state)
{
    (void)state;
    struct proposals p;
    char why[200];
    check("sha256", PROTOCOL_AH, "sha256-esn-noesn");
    check("sha384-sha1-aesxcbc-aescmac-noesn", PROTOCOL_AH, "sha384-sha1-aesxcbc-aescmac-noesn");
    check("sha2_512-x25519-esn", PROTOCOL_AH, "sha512-x25519-esn");
    check("default", PROTOCOL_AH, "sha512-sha256-sha384-esn-noesn");
    check("aes128gmac-aes192gmac-aes256gmac", PROTOCOL_AH, "aes128gmac-aes192gmac-aes256gmac-esn-noesn");
    /* Transforms of their own, without a length of key (RFC 4543 sections 5.3 and 9). */
    assert_int_equal(proposals_parse("aes128gmac-aes192gmac-aes256gmac", PROTOCOL_AH, &p, why, sizeof(why)), OK);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(p.v[0].t[i].type, TRANSFORM_INTEG);
        assert_int_equal(p.v[0].t[i].id, 9 + i);
        assert_int_equal(p.v[0].t[i].key_bits, 0);
    }
    refuse("aes128gcm16", PROTOCOL_AH, "found 'aes128gcm16', which AH proposals don't have");
    refuse("aes128-sha256", PROTOCOL_AH, "found 'aes128', which AH proposals don't have");
    refuse("null-sha256", PROTOCOL_AH, "found 'null', which AH proposals don't have");
    refuse("sha256-prfsha256", PROTOCOL_AH, "found 'prfsha256', which AH proposals don't have");
    refuse("x25519-esn", PROTOCOL_AH, "found no integrity algorithm, expected one such as 'sha256'");
    refuse("", PROTOCOL_AH, "found an empty keyword, expected for example 'sha256'");
    refuse("sha265", PROTOCOL_AH, "found 'sha265', expected an AH algorithm, perhaps 'sha256'");
    refuse("aes12gmac", PROTOCOL_AH, "found 'aes12gmac', expected an AH algorithm, perhaps 'aes192gmac'");
}

static void defaults_are_as_documented(void **state)
{
    (void)state;
    check("default", PROTOCOL_IKE,
          "aes256gcm16-aes128gcm16-chacha20poly1305-prfsha512-prfsha384-prfsha256-x25519-ecp256-ecp384-ecp521-modp4096-"
          "modp3072-modp2048, aes256-aes128-sha512-sha384-sha256-prfsha512-prfsha384-prfsha256-x25519-ecp256-ecp384-"
          "ecp521-modp4096-modp3072-modp2048");
    check("default", PROTOCOL_ESP,
          "aes256gcm16-aes128gcm16-chacha20poly1305-esn-noesn, aes256-aes128-sha512-sha256-sha384-esn-noesn");
    check("aes128-sha256, default", PROTOCOL_ESP,
          "aes128-sha256-esn-noesn, aes256gcm16-aes128gcm16-chacha20poly1305-esn-noesn, "
          "aes256-aes128-sha512-sha256-sha384-esn-noesn");
}

static void what_must_not_be_is_refused(void **state)
{
    (void)state;
    refuse("null-sha256-x25519", PROTOCOL_IKE, "found 'null', expected a cipher: IKE is always encrypted");
    refuse("aes128gmac-x25519", PROTOCOL_IKE, "found 'aes128gmac', expected a cipher: IKE is always encrypted");
    refuse("aes256gcm16iiv-x25519", PROTOCOL_IKE,
           "found 'aes256gcm16iiv', expected a cipher with IVs of its own: this one is for ESP only");
    refuse("aes128gmac-sha256", PROTOCOL_ESP,
           "found an integrity algorithm beside an AEAD cipher, expected the cipher alone");
    refuse("aes128-x25519", PROTOCOL_IKE,
           "found a cipher without integrity, expected an algorithm such as 'sha256' beside it");
    refuse("aes128", PROTOCOL_ESP,
           "found a cipher without integrity, expected an algorithm such as 'sha256' beside it");
    refuse("aes128-aes128gcm16-sha256-x25519", PROTOCOL_IKE,
           "found AEAD and other ciphers in one proposal, expected a comma between two proposals");
    refuse("aes128-aes128gcm16-sha256", PROTOCOL_ESP,
           "found AEAD and other ciphers in one proposal, expected a comma between two proposals");
    refuse("aes128gcm16-sha256", PROTOCOL_ESP,
           "found an integrity algorithm beside an AEAD cipher, expected the cipher alone");
    refuse("aes256gcm16", PROTOCOL_IKE, "found no key exchange method, expected one such as 'x25519'");
    refuse("sha256-x25519", PROTOCOL_IKE, "found no cipher, expected one such as 'aes256gcm16'");
    refuse("aes256gcm16-x25519-esn", PROTOCOL_IKE, "found 'esn', which IKE proposals don't have");
    refuse("aes256gcm16-prfsha256", PROTOCOL_ESP, "found 'prfsha256', which ESP proposals don't have");
}

static void misspelt_keywords_get_a_hint(void **state)
{
    (void)state;
    refuse("aes265gcm16-x25519", PROTOCOL_IKE, "found 'aes265gcm16', expected an IKE algorithm, perhaps 'aes256gcm16'");
    refuse("3des-sha256-x25519", PROTOCOL_IKE, "found '3des', expected an IKE algorithm");
    refuse("aes128-sha256-modp2084", PROTOCOL_ESP, "found 'modp2084', expected an ESP algorithm, perhaps 'modp2048'");
    refuse("", PROTOCOL_ESP, "found an empty keyword, expected for example 'aes256gcm16'");
    refuse("aes128gcm16,", PROTOCOL_ESP, "found an empty keyword, expected for example 'aes256gcm16'");
    refuse("aes128gcm16--esn", PROTOCOL_ESP, "found an empty keyword, expected for example 'aes256gcm16'");
    refuse(
        "null-sha256,null-sha256,null-sha256,null-sha256,null-sha256,null-sha256,null-sha256,null-sha256,null-sha256",
        PROTOCOL_ESP, "found more than 8 proposals");
}

static void equality_counts_the_order(void **state)
{
    (void)state;
    struct proposals a, b;
    char why[200];
    assert_int_equal(proposals_parse("aes128-aes256-sha256", PROTOCOL_ESP, &a, why, sizeof(why)), OK);
    assert_int_equal(proposals_parse("aes256-aes128-sha256", PROTOCOL_ESP, &b, why, sizeof(why)), OK);
    assert_true(proposals_equal(&a, &a));
    assert_false(proposals_equal(&a, &b));
    assert_true(proposal_has(&a.v[0], TRANSFORM_INTEG));
    assert_false(proposal_has(&a.v[0], TRANSFORM_KE));
}

static void distances_count_edits(void **state)
{
    (void)state;
    assert_int_equal(edit_distance("local", 5, "local", 5), 0);
    assert_int_equal(edit_distance("loacl", 5, "local", 5), 1); /* neighbours swapped */
    assert_int_equal(edit_distance("lcal", 4, "local", 5), 1);
    assert_int_equal(edit_distance("", 0, "abc", 3), 3);
    assert_int_equal(edit_distance("kitten", 6, "sitting", 7), 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ike_proposals_are_completed),  cmocka_unit_test(esp_proposals_are_completed),
        cmocka_unit_test(defaults_are_as_documented),   cmocka_unit_test(what_must_not_be_is_refused),
        cmocka_unit_test(misspelt_keywords_get_a_hint), cmocka_unit_test(equality_counts_the_order),
        cmocka_unit_test(distances_count_edits),        cmocka_unit_test(ah_proposals_have_integrity_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
