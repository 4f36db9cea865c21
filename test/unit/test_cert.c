/* Certificates, their chains and lists (crypto/cert.h). Every refusal is held to the reason it gives. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "crypto/cert.h"
#include "crypto/key.h"
#include "crypto/secret.h"
#include "policy/pad.h"
#include "test/vectors/cert.h"

#define NOW INT64_C(2538907200) /* 2050-06-15 12:00 UTC: later than when the vectors were made */
#define WHY 600

static struct trust *trust_of(const char *cas, const char *crls)
{
    char why[WHY] = "";
    struct trust *t;
    assert_int_equal(trust_new(&t), OK);
    if (trust_add_ca(t, span_of(cas, strlen(cas)), why, sizeof why) != OK)
        fail_msg("%s", why);
    if (crls && trust_add_crl(t, span_of(crls, strlen(crls)), why, sizeof why) != OK)
        fail_msg("%s", why);
    return t;
}

static void add(struct chain *c, const char *pem)
{
    char why[WHY] = "";
    if (chain_add(c, span_of(pem, strlen(pem)), why, sizeof why) != OK)
        fail_msg("%s", why);
}

static enum err verify_at(const char *cas, const char *crls, const char *certs, int64_t now, char *why)
{
    struct trust *t = trust_of(cas, crls);
    struct chain c = {0};
    struct public_key *key = NULL;
    add(&c, certs);
    why[0] = '\0';
    enum err e = cert_verify(t, &c, now, &key, why, WHY);
    assert_true((e == OK) == (key != NULL));
    if (e == OK) {
        struct public_key *unverified;
        char ignored[WHY];
        assert_int_equal(chain_key(&c, &unverified, ignored, sizeof ignored), OK);
        assert_true(public_key_equal(key, unverified));
        public_key_free(unverified);
    }
    public_key_free(key);
    chain_free(&c);
    trust_free(t);
    return e;
}

static void good_with(const char *cas, const char *crls, const char *certs)
{
    char why[WHY];
    if (verify_at(cas, crls, certs, NOW, why) != OK)
        fail_msg("%s", why);
}

static void good(const char *cas, const char *certs)
{
    good_with(cas, NULL, certs);
}

static void refused_at(const char *cas, const char *crls, const char *certs, int64_t now, enum err expected,
                       const char *reason)
{
    char why[WHY];
    enum err e = verify_at(cas, crls, certs, now, why);
    if (e != expected || !strstr(why, reason))
        fail_msg("\"%s\" (%s), expected \"%s\" (%s)", why, err_text(e), reason, err_text(expected));
}

static void refused_with(const char *cas, const char *crls, const char *certs, const char *reason)
{
    refused_at(cas, crls, certs, NOW, ERR_AUTH, reason);
}

static void refused(const char *cas, const char *certs, const char *reason)
{
    refused_with(cas, NULL, certs, reason);
}

static void unsupported(const char *cas, const char *certs, const char *reason)
{
    refused_at(cas, NULL, certs, NOW, ERR_UNSUPPORTED, reason);
}

static void ca_refused(const char *ca, enum err expected, const char *reason)
{
    char why[WHY] = "";
    struct trust *t;
    assert_int_equal(trust_new(&t), OK);
    enum err e = trust_add_ca(t, span_of(ca, strlen(ca)), why, sizeof why);
    if (e != expected || !strstr(why, reason))
        fail_msg("\"%s\" (%s), expected \"%s\"", why, err_text(e), reason);
    assert_int_equal(trust_count(t), 0);
    trust_free(t);
}

/* -- paths -- */

static void chains_lead_to_a_trusted_ca(void **state)
{
    (void)state;
    good(PEM_ROOT, PEM_LEAF);
    good(PEM_ROOT, PEM_SUB_LEAF PEM_SUB);
    good(PEM_ROOT, PEM_SUB_LEAF PEM_SUB PEM_ROOT);
    good(PEM_OTHER PEM_ROOT, PEM_LEAF);
    good(PEM_ROOT, PEM_EMPTY_SUBJECT);
    good(PEM_P384_CA, PEM_P521_LEAF);
    good(PEM_ROOT, PEM_USAGE_NON_REPUDIATION);
    good(PEM_ROOT, PEM_NOT_CRITICAL);
}

static void intermediates_come_in_any_order_among_others(void **state)
{
    (void)state;
    good(PEM_ROOT, PEM_SUB_LEAF PEM_OTHER PEM_EXPIRED PEM_ED25519 PEM_SUB);
    good(PEM_ROOT, PEM_ROLLOVER_LEAF PEM_ROOT PEM_SUB PEM_ROLLOVER);
}

static void an_intermediate_can_be_pinned(void **state)
{
    (void)state;
    good(PEM_SUB, PEM_SUB_LEAF);
    refused(PEM_SUB, PEM_LEAF,
            "the certificate of C=CH, O=Test, CN=leaf.cn.example was issued by C=CH, O=Test, CN=Root, "
            "which is none of the CAs trusted here");
}

static void names_alone_make_no_path(void **state)
{
    (void)state;
    refused(PEM_SAME_NAME, PEM_LEAF, "is not signed by the key of C=CH, O=Test, CN=Root");
    good(PEM_SAME_NAME PEM_ROOT, PEM_LEAF);
    good(PEM_ROOT PEM_SAME_NAME, PEM_LEAF);
    refused(PEM_OTHER, PEM_LEAF, "none of the CAs trusted here");
    refused(PEM_ROOT, PEM_OTHER_LEAF, "none of the CAs trusted here");
    refused(PEM_ROOT, PEM_SUB_LEAF, "issued by O=Test, CN=Sub");
    refused(PEM_ROOT, PEM_PINNED_LEAF, "none of the CAs trusted here");
}

static void the_leaf_comes_first(void **state)
{
    (void)state;
    refused(PEM_ROOT, PEM_SUB PEM_SUB_LEAF, "may not sign: its keyUsage lacks digitalSignature");
}

static void the_best_path_gives_the_reason(void **state)
{
    (void)state;
    refused(PEM_SAME_NAME PEM_ROOT, PEM_EXPIRED, "expired 3 days ago");
    refused(PEM_ROOT PEM_SAME_NAME, PEM_EXPIRED, "expired 3 days ago");
}

static void circles_and_floods_end(void **state)
{
    (void)state;
    refused(PEM_ROOT, PEM_CIRCLE_LEAF PEM_CIRCLE_A PEM_CIRCLE_B, "none of the CAs trusted here");
    struct trust *same_name = trust_of(PEM_SAME_NAME, NULL), *both = trust_of(PEM_SAME_NAME PEM_ROOT, NULL);
    struct public_key *key = NULL;
    struct chain flood = {0};
    char why[WHY] = "";
    add(&flood, PEM_LEAF);
    for (unsigned i = 1; i < CERT_CHAIN_MAX; i++) {
        add(&flood, PEM_FLOOD);
        flood.der[i].data[flood.der[i].len - 1] ^= (uint8_t)i; /* no two are the same */
    }
    /* Nine certificates that could each stand above each other: 9! paths. */
    clock_t start = clock();
    assert_int_equal(cert_verify(same_name, &flood, NOW, &key, why, sizeof why), ERR_AUTH);
    assert_true(clock() - start < CLOCKS_PER_SEC);
    assert_non_null(strstr(why, "is not signed by the key of"));
    assert_int_equal(cert_verify(both, &flood, NOW, &key, why, sizeof why), OK);
    public_key_free(key);
    chain_free(&flood);
    trust_free(same_name);
    trust_free(both);
}

static clock_t time_of_revoked(unsigned copies)
{
    struct trust *t = trust_of(PEM_ROOT, PEM_CRL_LEAF);
    struct chain c = {0};
    add(&c, PEM_LEAF);
    for (unsigned i = 0; i < copies; i++)
        add(&c, PEM_ROOT);
    clock_t start = clock();
    for (unsigned i = 0; i < 20; i++) {
        struct public_key *key = NULL;
        char why[WHY] = "";
        assert_int_equal(cert_verify(t, &c, NOW, &key, why, sizeof why), ERR_AUTH);
        assert_non_null(strstr(why, "was revoked"));
    }
    clock_t took = clock() - start;
    chain_free(&c);
    trust_free(t);
    return took;
}

/* Anybody can send a certificate that was revoked, and copies of its CA: no path through them is tried. */
static void copies_of_a_ca_cost_nothing(void **state)
{
    (void)state;
    assert_true(time_of_revoked(CERT_CHAIN_MAX - 1) < 5 * time_of_revoked(0));
    good(PEM_ROOT, PEM_SUB_LEAF PEM_SUB PEM_SUB PEM_SUB_LEAF);
}

static void a_changed_byte_is_seen(void **state)
{
    (void)state;
    struct trust *t = trust_of(PEM_ROOT, NULL);
    struct chain c = {0};
    add(&c, PEM_LEAF);
    for (size_t i = 0; i < c.der[0].len; i++) {
        struct public_key *key = NULL;
        char why[WHY] = "";
        c.der[0].data[i] ^= 0x01;
        assert_int_not_equal(cert_verify(t, &c, NOW, &key, why, sizeof why), OK);
        assert_true(why[0] && !key);
        c.der[0].data[i] ^= 0x01;
    }
    chain_free(&c);
    trust_free(t);
}

/* -- what each certificate must be -- */

static void dates_are_held_against_the_given_time(void **state)
{
    (void)state;
    refused(PEM_ROOT, PEM_EXPIRED,
            "the certificate of CN=expired expired 3 days ago, on 2050-06-12 12:00 UTC; is the clock "
            "of this host right? It says 2050-06-15 12:00 UTC");
    refused_at(PEM_ROOT, NULL, PEM_EXPIRED, NOW - 3 * 86400 + 1, ERR_AUTH, "expired today");
    refused_at(PEM_ROOT, NULL, PEM_EXPIRED, NOW - 2 * 86400, ERR_AUTH, "expired 1 day ago");
    refused(PEM_ROOT, PEM_FUTURE,
            "the certificate of CN=future is not valid before 2060-01-02 03:04 UTC; is the clock");
    char why[WHY];
    assert_int_equal(verify_at(PEM_ROOT, NULL, PEM_EXPIRED, NOW - 3 * 86400, why), OK); /* its last second */
    assert_int_equal(verify_at(PEM_ROOT, NULL, PEM_LEAF, 946684800, why), OK);          /* 2000-01-01, its first */
    assert_int_equal(verify_at(PEM_ROOT, NULL, PEM_LEAF, 946684799, why), ERR_AUTH);
}

static void expired_cas_are_refused(void **state)
{
    (void)state;
    refused(PEM_ROOT, PEM_OLD_SUB_LEAF PEM_OLD_SUB, "the certificate of CN=Old Sub expired");
    refused(PEM_OLD_ROOT, PEM_OLD_ROOT_LEAF, "the certificate of CN=Old Root expired");
}

static void who_is_no_ca_issues_nothing(void **state)
{
    (void)state;
    refused(PEM_ROOT, PEM_NOT_CA_LEAF PEM_NOT_CA, "the certificate of CN=Not CA is not that of a CA");
    refused(PEM_ROOT, PEM_FALSE_CA_LEAF PEM_FALSE_CA, "the certificate of CN=False CA is not that of a CA");
    refused(PEM_ROOT, PEM_V1_LEAF PEM_V1_SUB, "the certificate of CN=V1 Sub is not that of a CA");
    refused(PEM_ROOT, PEM_NO_CERT_SIGN_LEAF PEM_NO_CERT_SIGN, "lacks keyCertSign");
}

static void path_lengths_are_kept(void **state)
{
    (void)state;
    refused(PEM_ROOT, PEM_DEEP_LEAF PEM_DEEP PEM_SUB, "the certificate of O=Test, CN=Sub allows 0 CAs below it, not 1");
    refused(PEM_SUB, PEM_DEEP_LEAF PEM_DEEP, "allows 0 CAs below it, not 1"); /* a trusted one's counts too */
}

static void usages_of_the_leaf_count(void **state)
{
    (void)state;
    refused(PEM_ROOT, PEM_USAGE_ENCIPHER, "lacks digitalSignature and nonRepudiation");
    refused(PEM_ROOT, PEM_EKU_CODE, "its extendedKeyUsage lacks ipsecIKE");
    good(PEM_ROOT, PEM_EKU_GOOD_0);
    good(PEM_ROOT, PEM_EKU_GOOD_1);
    good(PEM_ROOT, PEM_EKU_GOOD_2);
    good(PEM_ROOT, PEM_EKU_GOOD_3);
    good(PEM_ROOT, PEM_EKU_GOOD_4);
}

static void unknown_critical_extensions_refuse(void **state)
{
    (void)state;
    unsupported(PEM_ROOT, PEM_CRITICAL, "the certificate of CN=critical has the unknown critical extension 1.2.3.4.5");
    unsupported(PEM_ROOT, PEM_CRITICAL_SUB_LEAF PEM_CRITICAL_SUB, "CN=Critical Sub has the unknown critical extension");
    ca_refused(PEM_CRITICAL_CA, ERR_UNSUPPORTED, "unknown critical extension 1.2.3.4.5");
}

static void weak_algorithms_are_refused(void **state)
{
    (void)state;
    unsupported(PEM_ROOT, PEM_SHA1, "the certificate of CN=sha1 is signed with SHA1, expected SHA-256");
    unsupported(PEM_SHA1_ROOT, PEM_PSS_SHA1, "is signed with SHA1");
    unsupported(PEM_ROOT, PEM_RSA1024, "RSA of 1024 bits");
    unsupported(PEM_ROOT, PEM_RSA1024_SUB_LEAF PEM_RSA1024_SUB, "the certificate of CN=RSA1024 Sub has a key");
    ca_refused(PEM_RSA1024_CA, ERR_UNSUPPORTED, "RSA of 1024 bits");
    good(PEM_SHA1_ROOT, PEM_SHA1_ROOT_LEAF); /* nobody relies on a CA's signature of itself */
    good(PEM_SHA1_ROOT, PEM_PSS_LEAF);
}

static void other_keys_are_refused_in_words(void **state)
{
    (void)state;
    unsupported(PEM_ROOT, PEM_ED25519,
                "the certificate of CN=ed25519 has a key of the kind Ed25519, expected RSA or ECDSA");
    unsupported(PEM_ROOT, PEM_ED25519_SIGNED,
                "the certificate of CN=signed by ed25519 is signed with Ed25519, expected RSA");
    unsupported(PEM_ROOT, PEM_BRAINPOOL, "the certificate of CN=brainpool has a key");
    ca_refused(PEM_ED25519_CA, ERR_UNSUPPORTED, "Ed25519");
}

static void only_cas_can_be_trusted(void **state)
{
    (void)state;
    ca_refused(PEM_PINNED_LEAF, ERR_UNSUPPORTED,
               "the certificate of CN=pinned is not that of a CA: expected basicConstraints");
    ca_refused(PEM_V1_CA, ERR_UNSUPPORTED, "is not that of a CA");
    ca_refused(PEM_NO_CERT_SIGN_CA, ERR_UNSUPPORTED, "expected keyUsage with keyCertSign");
    ca_refused("nothing", ERR_SYNTAX, "expected PEM with a block BEGIN CERTIFICATE, or DER");
    ca_refused("", ERR_SYNTAX, "expected PEM");
    ca_refused("-----BEGIN CERTIFICATE-----\nAAAA\n", ERR_SYNTAX, "a PEM block in it is malformed");
    ca_refused("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", ERR_SYNTAX, "malformed");
    ca_refused("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", ERR_SYNTAX, "malformed");
}

static void malformed_leaves_are_refused(void **state)
{
    (void)state;
    refused_at(PEM_ROOT, NULL, PEM_SAN_MALFORMED, NOW, ERR_SYNTAX, "malformed");
    refused_at(PEM_ROOT, NULL, "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", NOW, ERR_SYNTAX,
               "a certificate is malformed");
    struct trust *t = trust_of(PEM_ROOT, NULL);
    struct chain c = {0};
    struct public_key *key = NULL;
    char why[WHY];
    assert_int_equal(cert_verify(t, &c, NOW, &key, why, sizeof why), ERR_SYNTAX);
    assert_string_equal(why, "there is no certificate");
    trust_free(t);
}

static void hostile_bytes_reach_no_terminal(void **state)
{
    (void)state;
    char why[WHY];
    assert_int_equal(verify_at(PEM_ROOT, NULL, PEM_CONTROL_IN_SUBJECT, NOW, why), ERR_AUTH);
    assert_non_null(strstr(why, "CN=\\x1b[31mred\\x07"));
    for (const char *c = why; *c; c++)
        assert_true(*c >= 0x20 && *c < 0x7f);
}

/* -- name constraints -- */

static void names_may_lie_within_constraints(void **state)
{
    (void)state;
    good(PEM_ROOT, PEM_NAMES_GOOD PEM_NAMES);
    good(PEM_ROOT, PEM_NAMES_NONE PEM_NAMES);
    good(PEM_ROOT, PEM_NAMES_SUB_GOOD PEM_NAMES_SUB PEM_NAMES);
    good(PEM_ROOT, PEM_URIS_WITHOUT PEM_URIS);
}

static void names_outside_of_constraints_are_refused(void **state)
{
    (void)state;
    static const char outside[] = "outside of what the name constraints of its CA permit";
    static const char excluded[] = "which the name constraints of its CA exclude";
    refused(PEM_ROOT, PEM_NAMES_DNS PEM_NAMES,
            "has the name other.example, which is outside of what the name constraints");
    refused(PEM_ROOT, PEM_NAMES_DNS_SUFFIX PEM_NAMES, outside);
    refused(PEM_ROOT, PEM_NAMES_DNS_EXCLUDED PEM_NAMES, excluded);
    refused(PEM_ROOT, PEM_NAMES_DNS_DOT PEM_NAMES, excluded);
    refused(PEM_ROOT, PEM_NAMES_MAIL PEM_NAMES, outside);
    refused(PEM_ROOT, PEM_NAMES_MAIL_BELOW PEM_NAMES, outside);
    refused(PEM_ROOT, PEM_NAMES_MAIL_BOX PEM_NAMES, outside);
    refused(PEM_ROOT, PEM_NAMES_MAIL_EXCLUDED PEM_NAMES, excluded);
    refused(PEM_ROOT, PEM_NAMES_MAIL_SUBJECT PEM_NAMES, "has the name x@other.example, which is outside");
    refused(PEM_ROOT, PEM_NAMES_IP PEM_NAMES, "has the name IP address 0xc0000301, which is outside");
    refused(PEM_ROOT, PEM_NAMES_IP_EXCLUDED PEM_NAMES, excluded);
    refused(PEM_ROOT, PEM_NAMES_IP6 PEM_NAMES, outside);
    refused(PEM_ROOT, PEM_NAMES_DN PEM_NAMES, "has the name C=CH, O=Other, CN=x, which is outside");
    refused(PEM_ROOT, PEM_NAMES_DN_PREFIX PEM_NAMES, outside);
    refused(PEM_ROOT, PEM_NAMES_DN_EXCLUDED PEM_NAMES, excluded);
    refused(PEM_ROOT, PEM_NAMES_DN_SAN PEM_NAMES, outside);
}

static void constraints_hold_for_all_below(void **state)
{
    (void)state;
    refused(PEM_ROOT, PEM_NAMES_SUB_BAD PEM_NAMES_SUB PEM_NAMES, "has the name other.example, which is outside");
    refused(PEM_ROOT, PEM_NAMES_STRAY_LEAF PEM_NAMES_STRAY PEM_NAMES, "the certificate of C=DE, CN=Stray has the name");
    refused(PEM_ROOT, PEM_SOFT_BAD PEM_SOFT, "outside"); /* critical or not */
    refused(PEM_NAMED_ROOT, PEM_NAMED_ROOT_BAD, "outside");
    refused(PEM_NAMES, PEM_NAMES_DNS, "outside"); /* pinned */
}

static void constraints_that_cannot_be_judged_refuse(void **state)
{
    (void)state;
    unsupported(PEM_ROOT, PEM_URIS_WITH PEM_URIS, "can't be held against the name constraints of its CA");
    unsupported(PEM_ROOT, PEM_NAMES_DNS_NUL PEM_NAMES,
                "has the name evil.example\\x00.good.example, which can't be held");
    unsupported(PEM_ROOT, PEM_NAMES_MAIL_NO_AT PEM_NAMES, "which can't be held");
    refused(PEM_ROOT, PEM_TWICE_LEAF PEM_TWICE, "; of what came with it, a certificate is malformed");
    refused_at(PEM_ROOT, NULL, PEM_MINIMUM_LEAF PEM_MINIMUM, NOW, ERR_SYNTAX, "can't be read");
}

/* -- revocation -- */

static void lists_are_consulted(void **state)
{
    (void)state;
    good_with(PEM_ROOT, PEM_CRL_EMPTY, PEM_LEAF);
    good_with(PEM_ROOT, PEM_CRL_OTHERS, PEM_LEAF);
    good_with(PEM_ROOT, PEM_CRL_OTHER_CA, PEM_LEAF); /* the serial number is another CA's */
    refused_with(PEM_ROOT, PEM_CRL_LEAF, PEM_LEAF,
                 "the certificate of C=CH, O=Test, CN=leaf.cn.example was revoked by its CA");
    refused_with(PEM_ROOT, PEM_CRL_SUB, PEM_SUB_LEAF PEM_SUB,
                 "the certificate of O=Test, CN=Sub was revoked by its CA");
    refused_with(PEM_ROOT, PEM_CRL_SUB_LEAF, PEM_SUB_LEAF PEM_SUB, "the certificate of CN=sub leaf was revoked");
}

static void the_latest_list_counts(void **state)
{
    (void)state;
    good_with(PEM_ROOT, PEM_CRL_LEAF PEM_CRL_NEWER, PEM_LEAF);
    refused_with(PEM_ROOT, PEM_CRL_LEAF PEM_CRL_EMPTY, PEM_LEAF, "was revoked");
    refused_with(PEM_ROOT, PEM_CRL_EMPTY PEM_CRL_LEAF, PEM_LEAF, "was revoked");
}

static void lists_out_of_date_refuse(void **state)
{
    (void)state;
    refused_with(PEM_ROOT, PEM_CRL_EXPIRED, PEM_LEAF,
                 "can't be checked: the CRL of C=CH, O=Test, CN=Root expired on 2020-01-01 00:00 UTC; is the clock");
    refused_with(PEM_ROOT, PEM_CRL_FUTURE, PEM_LEAF, "is not valid before 2060-01-01 00:00 UTC; is the clock");
}

static void lists_count_only_from_their_issuer(void **state)
{
    (void)state;
    refused_with(PEM_ROOT, PEM_CRL_FORGED, PEM_LEAF, "the CRL of C=CH, O=Test, CN=Root is not signed by the key of");
    good_with(PEM_ROOT, PEM_CRL_FORGED PEM_CRL_EMPTY, PEM_LEAF);
    refused_with(PEM_NO_CRL_SIGN, PEM_CRL_NO_CRL_SIGN, PEM_NO_CRL_SIGN_LEAF, "lacks cRLSign");
}

static void crl_refused(const char *crl, enum err expected, const char *reason)
{
    char why[WHY] = "";
    struct trust *t = trust_of(PEM_ROOT, NULL);
    enum err e = trust_add_crl(t, span_of(crl, strlen(crl)), why, sizeof why);
    if (e != expected || !strstr(why, reason))
        fail_msg("\"%s\" (%s), expected \"%s\"", why, err_text(e), reason);
    trust_free(t);
}

static void other_lists_are_refused(void **state)
{
    (void)state;
    crl_refused(PEM_CRL_DELTA, ERR_UNSUPPORTED, "2.5.29.27 (it is a delta CRL)");
    crl_refused(PEM_CRL_PARTIAL, ERR_UNSUPPORTED, "2.5.29.28 (it covers only part");
    crl_refused(PEM_CRL_INDIRECT, ERR_UNSUPPORTED, "2.5.29.29 (it is an indirect CRL)");
    crl_refused(PEM_ROOT, ERR_SYNTAX, "expected PEM with a block BEGIN X509 CRL");
    crl_refused("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n", ERR_SYNTAX, "the CRL is malformed");
}

/* -- identities -- */

static bool has(const char *pem, const char *text)
{
    struct chain c = {0};
    struct identity id;
    add(&c, pem);
    assert_int_equal(identity_parse(text, &id), OK);
    bool found = cert_has_identity(&c, id.type, span_of(id.b, id.len));
    chain_free(&c);
    return found;
}

static void a_leaf_has_its_names(void **state)
{
    (void)state;
    assert_true(has(PEM_LEAF, "gate.example"));
    assert_true(has(PEM_LEAF, "GATE.example"));
    assert_true(has(PEM_LEAF, "me@gate.example"));
    assert_true(has(PEM_LEAF, "192.0.2.1"));
    assert_true(has(PEM_LEAF, "2001:db8::1"));
    assert_true(has(PEM_LEAF, "C=CH, O=Test, CN=leaf.cn.example"));
    assert_true(has(PEM_LEAF, "C=ch, O=TEST, CN=LEAF.cn.example"));
    assert_true(has(PEM_LEAF, "keyid:0x000102030405060708090a0b0c0d0e0f10111213"));
}

static void a_leaf_has_no_other_names(void **state)
{
    (void)state;
    assert_false(has(PEM_LEAF, "leaf.cn.example")); /* never the common name */
    assert_false(has(PEM_CN_ONLY, "gate.example"));
    assert_false(has(PEM_LEAF, "a.wild.example")); /* never a wildcard */
    assert_false(has(PEM_LEAF, "gate.example.org"));
    assert_false(has(PEM_LEAF, "example"));
    assert_false(has(PEM_LEAF, "uri.example"));
    assert_false(has(PEM_LEAF, "192.0.2.2"));
    assert_true(has(PEM_LEAF, "192.0.2.65"));
    assert_false(has(PEM_LEAF, "192.0.2.97")); /* bytes are no letters */
    assert_false(has(PEM_LEAF, "CN=inner"));
    assert_false(has(PEM_LEAF, "C=CH, O=Test"));
    assert_false(has(PEM_LEAF, "O=Test, C=CH, CN=leaf.cn.example"));
    assert_false(has(PEM_LEAF, "C=CH, O=Test, CN=leaf.cn.example, CN=x"));
    assert_false(has(PEM_LEAF, "keyid:0x0001"));
    assert_false(has(PEM_CN_ONLY, "keyid:0x00"));
}

static void names_of_one_kind_are_not_of_another(void **state)
{
    (void)state;
    assert_false(has(PEM_IP_AS_DNS, "192.0.2.1"));
    assert_false(has(PEM_IP_AS_DNS, "me@gate.example"));
    assert_false(has(PEM_DNS_AS_MAIL, "gate.example"));
    assert_false(has(PEM_NUL_IN_NAME, "gate.example"));
    struct chain c = {0};
    add(&c, PEM_LEAF);
    assert_false(cert_has_identity(&c, ID_FQDN, span_of("", 0)));
    assert_false(cert_has_identity(&c, ID_DER_DN, span_of("", 0)));
    assert_false(cert_has_identity(&c, ID_IPV6, span_of("\xc0\x00\x02\x01", 4)));
    assert_false(cert_has_identity(&c, ID_DER_GN, span_of("gate.example", 12)));
    chain_free(&c);
    assert_false(cert_has_identity(&c, ID_FQDN, span_of("gate.example", 12)));
    add(&c, PEM_CN_ONLY);
    assert_false(cert_has_identity(&c, ID_KEY_ID, span_of("", 0)));
    chain_free(&c);
}

/* What ends too early, or says that it goes on further than it does, is nobody. */
static void a_truncated_subject_is_not_the_subject(void **state)
{
    (void)state;
    struct chain c = {0};
    struct span name;
    uint8_t copy[256];
    add(&c, PEM_LEAF);
    assert_int_equal(chain_subject(&c, &name), OK);
    assert_in_range(name.len, 3, 0x7f);
    memcpy(copy, name.data, name.len);
    for (size_t len = 0; len < name.len; len++) {
        assert_false(cert_has_identity(&c, ID_DER_DN, span_of(copy, len)));
        copy[1] = (uint8_t)(len > 2 ? len - 2 : 0); /* the same with a length that fits */
        assert_false(cert_has_identity(&c, ID_DER_DN, span_of(copy, len)));
        copy[1] = name.data[1];
    }
    copy[1]++;
    assert_false(cert_has_identity(&c, ID_DER_DN, span_of(copy, name.len)));
    chain_free(&c);
}

/* -- chains and trusts as such -- */

static void chains_have_bounds(void **state)
{
    (void)state;
    struct chain c = {0};
    char why[WHY] = "";
    static char huge[CERT_DER_MAX + 1] = "\x30\x82\x3f\xfd"; /* a SEQUENCE that fills it */
    assert_int_equal(chain_add(&c, span_of(huge, sizeof huge), why, sizeof why), ERR_FULL);
    assert_int_equal(chain_add(&c, span_of("x", 1), why, sizeof why), ERR_SYNTAX);
    assert_non_null(strstr(why, "no certificate found"));
    for (unsigned i = 0; i < CERT_CHAIN_MAX; i++)
        add(&c, PEM_LEAF);
    assert_int_equal(chain_add(&c, buf_span(&c.der[0]), why, sizeof why), ERR_FULL);
    assert_non_null(strstr(why, "more than 10 certificates"));
    chain_free(&c);
    assert_int_equal(c.n, 0);
}

static void a_chain_says_its_subject(void **state)
{
    (void)state;
    struct chain c = {0};
    struct span name;
    assert_int_equal(chain_subject(&c, &name), ERR_SYNTAX);
    add(&c, PEM_LEAF);
    assert_int_equal(chain_subject(&c, &name), OK);
    assert_true(cert_has_identity(&c, ID_DER_DN, name));
    chain_free(&c);
    add(&c, PEM_EMPTY_SUBJECT);
    assert_int_equal(chain_subject(&c, &name), ERR_NOTFOUND);
    chain_free(&c);
}

static void trusts_are_compared_as_sets(void **state)
{
    (void)state;
    struct trust *a = trust_of(PEM_ROOT PEM_OTHER PEM_ROOT, PEM_CRL_EMPTY), *b = trust_of(PEM_OTHER PEM_ROOT, NULL);
    char why[WHY];
    assert_int_equal(trust_count(a), 2);
    assert_false(trust_equal(a, b));
    assert_int_equal(trust_add_crl(b, span_of(PEM_CRL_EMPTY, sizeof PEM_CRL_EMPTY - 1), why, sizeof why), OK);
    assert_true(trust_equal(a, b));
    assert_ptr_equal(trust_ref(a), a);
    trust_free(a);
    assert_int_equal(trust_count(a), 2);
    trust_free(a);
    trust_free(b);
    trust_free(NULL);
}

static void hints_are_hashes_of_public_keys(void **state)
{
    (void)state;
    /* RFC 7296 section 3.7: SHA-1 of the SubjectPublicKeyInfo, here by Python. */
    static const uint8_t expected[CERT_HINT] = HINT_ROOT;
    struct trust *t = trust_of(PEM_ROOT, NULL);
    uint8_t hint[CERT_HINT];
    trust_hint(t, 0, hint);
    assert_memory_equal(hint, expected, sizeof hint);
    trust_free(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_lead_to_a_trusted_ca),
        cmocka_unit_test(intermediates_come_in_any_order_among_others),
        cmocka_unit_test(an_intermediate_can_be_pinned),
        cmocka_unit_test(names_alone_make_no_path),
        cmocka_unit_test(the_leaf_comes_first),
        cmocka_unit_test(the_best_path_gives_the_reason),
        cmocka_unit_test(circles_and_floods_end),
        cmocka_unit_test(copies_of_a_ca_cost_nothing),
        cmocka_unit_test(a_changed_byte_is_seen),
        cmocka_unit_test(dates_are_held_against_the_given_time),
        cmocka_unit_test(expired_cas_are_refused),
        cmocka_unit_test(who_is_no_ca_issues_nothing),
        cmocka_unit_test(path_lengths_are_kept),
        cmocka_unit_test(usages_of_the_leaf_count),
        cmocka_unit_test(unknown_critical_extensions_refuse),
        cmocka_unit_test(weak_algorithms_are_refused),
        cmocka_unit_test(other_keys_are_refused_in_words),
        cmocka_unit_test(only_cas_can_be_trusted),
        cmocka_unit_test(malformed_leaves_are_refused),
        cmocka_unit_test(hostile_bytes_reach_no_terminal),
        cmocka_unit_test(names_may_lie_within_constraints),
        cmocka_unit_test(names_outside_of_constraints_are_refused),
        cmocka_unit_test(constraints_hold_for_all_below),
        cmocka_unit_test(constraints_that_cannot_be_judged_refuse),
        cmocka_unit_test(lists_are_consulted),
        cmocka_unit_test(the_latest_list_counts),
        cmocka_unit_test(lists_out_of_date_refuse),
        cmocka_unit_test(lists_count_only_from_their_issuer),
        cmocka_unit_test(other_lists_are_refused),
        cmocka_unit_test(a_leaf_has_its_names),
        cmocka_unit_test(a_leaf_has_no_other_names),
        cmocka_unit_test(names_of_one_kind_are_not_of_another),
        cmocka_unit_test(a_truncated_subject_is_not_the_subject),
        cmocka_unit_test(chains_have_bounds),
        cmocka_unit_test(a_chain_says_its_subject),
        cmocka_unit_test(trusts_are_compared_as_sets),
        cmocka_unit_test(hints_are_hashes_of_public_keys),
    };
    if (crypto_init() != OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
