/* The small certificate authority (crypto/issue.h): what it issues is verified, and what would be wrong it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "crypto/cert.h"
#include "crypto/dn.h"
#include "crypto/issue.h"
#include "crypto/secret.h"
#include "policy/pad.h"

#define NOW INT64_C(2538907200) /* 2050-06-15 12:00 UTC */
#define DAY INT64_C(86400)
#define WHY 600

struct made {
    struct buf key, cert;
};

static struct issuer issuer_of(const struct made *m)
{
    return (struct issuer){buf_span(&m->cert), buf_span(&m->key)};
}

static void made_free(struct made *m)
{
    buf_free(&m->key);
    buf_free(&m->cert);
}

/* Says what is to be issued; the subject's DER stands in `subject`. */
static struct issue request(const char *dn, int64_t since, int64_t until, uint8_t subject[256])
{
    struct writer w = writer_of(subject, 256);
    assert_int_equal(dn_encode(dn, &w), OK);
    return (struct issue){.subject = span_of(subject, writer_len(&w)), .not_before = since, .not_after = until};
}

static enum err make(struct made *m, struct issue *what, enum issue_key kind, const struct made *by, char *why)
{
    why[0] = '\0';
    *m = (struct made){0};
    assert_int_equal(issue_key_new(kind, &m->key), OK);
    struct issuer issuer = by ? issuer_of(by) : (struct issuer){0};
    return issue_certificate(what, buf_span(&m->key), by ? &issuer : NULL, &m->cert, why, WHY);
}

static struct made make_ca(const char *dn, enum issue_key kind)
{
    uint8_t subject[256];
    char why[WHY];
    struct made m;
    struct issue what = request(dn, NOW - DAY, NOW + 3650 * DAY, subject);
    if (make(&m, &what, kind, NULL, why) != OK)
        fail_msg("%s", why);
    return m;
}

static enum err verify(const struct made *ca, const struct chain *c, int64_t now, char *why)
{
    struct trust *t;
    struct public_key *key = NULL;
    assert_int_equal(trust_new(&t), OK);
    assert_int_equal(trust_add_ca(t, buf_span(&ca->cert), why, WHY), OK);
    enum err e = cert_verify(t, c, now, &key, why, WHY);
    public_key_free(key);
    trust_free(t);
    return e;
}

static void add_name(struct issue *what, struct identity *id, const char *text)
{
    assert_int_equal(identity_parse(text, id), OK);
    what->names[what->name_count++] = (struct issue_name){id->type, span_of(id->b, id->len)};
}

static void check_kind(enum issue_key kind, enum key_kind expected)
{
    static const char *const names[] = {"gate.example", "me@gate.example", "192.0.2.1", "2001:db8::1"};
    uint8_t subject[256];
    char why[WHY] = "";
    struct identity id[4];
    struct made ca = make_ca("C=CH, O=Example, O=Again, CN=CA", kind), m;
    struct issue what = request("O=Example, CN=gate.example", NOW, NOW + 30 * DAY, subject);
    for (unsigned i = 0; i < 4; i++)
        add_name(&what, &id[i], names[i]);
    assert_int_equal(make(&m, &what, kind, &ca, why), OK);

    struct chain c = {0};
    struct private_key *key;
    struct public_key *leaf;
    assert_int_equal(chain_add(&c, buf_span(&m.cert), why, sizeof why), OK);
    assert_int_equal(verify(&ca, &c, NOW, why), OK);
    assert_int_equal(verify(&ca, &c, NOW + 30 * DAY, why), OK);
    assert_int_equal(verify(&ca, &c, NOW + 31 * DAY, why), ERR_AUTH);
    assert_int_equal(verify(&ca, &c, NOW - 1, why), ERR_AUTH);
    for (unsigned i = 0; i < 4; i++)
        assert_true(cert_has_identity(&c, id[i].type, span_of(id[i].b, id[i].len)));
    assert_true(cert_has_identity(&c, ID_DER_DN, what.subject));

    assert_int_equal(private_key_parse(buf_span(&m.key), &key, why, sizeof why), OK);
    assert_int_equal(chain_key(&c, &leaf, why, sizeof why), OK);
    assert_int_equal(public_key_kind(leaf), expected);
    assert_true(public_key_equal(private_key_public(key), leaf));
    private_key_free(key);
    public_key_free(leaf);
    chain_free(&c);
    made_free(&m);
    made_free(&ca);
}

static void every_kind_of_key_issues(void **state)
{
    (void)state;
    check_kind(ISSUE_ECDSA_256, KEY_ECDSA_256);
    check_kind(ISSUE_ECDSA_384, KEY_ECDSA_384);
    check_kind(ISSUE_RSA_3072, KEY_RSA);
}

static void nothing_outlives_its_ca(void **state)
{
    (void)state;
    uint8_t subject[256];
    char why[WHY];
    struct made ca = make_ca("CN=CA", ISSUE_ECDSA_256), m;
    struct issue what = request("CN=leaf", NOW - 2 * DAY, NOW + 9999 * DAY, subject);
    assert_int_equal(make(&m, &what, ISSUE_ECDSA_256, &ca, why), OK);
    assert_int_equal(what.not_before, NOW - DAY);
    assert_int_equal(what.not_after, NOW + 3650 * DAY);
    made_free(&m);
    what = request("CN=leaf", NOW + 3651 * DAY, NOW + 9999 * DAY, subject);
    assert_int_equal(make(&m, &what, ISSUE_ECDSA_256, &ca, why), ERR_EXPIRED);
    assert_string_equal(why, "the CA's certificate has expired");
    made_free(&m);
    made_free(&ca);
}

static void wrong_issuers_are_refused(void **state)
{
    (void)state;
    uint8_t subject[256];
    char why[WHY];
    struct made ca = make_ca("CN=CA", ISSUE_ECDSA_256), other = make_ca("CN=CA", ISSUE_ECDSA_256), leaf, m;
    struct issue what = request("CN=leaf", NOW, NOW + DAY, subject);
    assert_int_equal(make(&leaf, &what, ISSUE_ECDSA_256, &ca, why), OK);
    assert_int_equal(make(&m, &what, ISSUE_ECDSA_256, &leaf, why), ERR_UNSUPPORTED);
    assert_non_null(strstr(why, "is not that of a CA"));
    made_free(&m);
    struct made mixed = {.key = other.key, .cert = ca.cert};
    assert_int_equal(make(&m, &what, ISSUE_ECDSA_256, &mixed, why), ERR_MISMATCH);
    assert_non_null(strstr(why, "is not that of its certificate"));
    made_free(&m);
    mixed.key = ca.cert;
    assert_int_equal(make(&m, &what, ISSUE_ECDSA_256, &mixed, why), ERR_SYNTAX);
    assert_non_null(strstr(why, "the CA's private key can't be read"));
    made_free(&m);
    mixed = (struct made){.key = ca.key, .cert = ca.key};
    assert_int_equal(make(&m, &what, ISSUE_ECDSA_256, &mixed, why), ERR_SYNTAX);
    assert_non_null(strstr(why, "no certificate found"));
    made_free(&m);
    made_free(&leaf);
    made_free(&other);
    made_free(&ca);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_key_issues),
        cmocka_unit_test(nothing_outlives_its_ca),
        cmocka_unit_test(wrong_issuers_are_refused),
    };
    if (crypto_init() != OK)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
