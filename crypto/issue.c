#include "crypto/issue.h"

#include <mbedtls/asn1write.h>
#include <mbedtls/oid.h>
#include <mbedtls/x509_crt.h>
#include <stdlib.h>
#include <time.h>

#include "crypto/cert.h"
#include "crypto/der.h"
#include "crypto/dn.h"
#include "crypto/pem.h"
#include "crypto/random.h"
#include "crypto/secret.h"
#include "crypto/x509.h"

#define KEY_PEM_MAX 8192
#define SERIAL_BYTES 16
#define EXTENSION_MAX 8192

static int rng(void *ctx, unsigned char *p, size_t n)
{
    (void)ctx;
    random_bytes(p, n);
    return 0;
}

/* -- keys -- */

static int generate(enum issue_key kind, mbedtls_pk_context *pk)
{
    bool rsa = kind == ISSUE_RSA_3072;
    int ret = mbedtls_pk_setup(pk, mbedtls_pk_info_from_type(rsa ? MBEDTLS_PK_RSA : MBEDTLS_PK_ECKEY));
    if (ret != 0)
        return ret;
    if (rsa)
        return mbedtls_rsa_gen_key(mbedtls_pk_rsa(*pk), rng, NULL, 3072, 65537);
    return mbedtls_ecp_gen_key(kind == ISSUE_ECDSA_384 ? MBEDTLS_ECP_DP_SECP384R1 : MBEDTLS_ECP_DP_SECP256R1,
                               mbedtls_pk_ec(*pk), rng, NULL);
}

enum err issue_key_new(enum issue_key kind, struct buf *pem)
{
    char text[KEY_PEM_MAX];
    mbedtls_pk_context pk;
    mbedtls_pk_init(&pk);
    enum err e = ERR_CRYPTO;
    if (generate(kind, &pk) == 0 && mbedtls_pk_write_key_pem(&pk, (unsigned char *)text, sizeof text) == 0)
        e = buf_set(pem, span_of(text, strlen(text)));
    mbedtls_pk_free(&pk);
    secret_wipe(text, sizeof text);
    return e;
}

/* Theirs wants a string. */
static enum err key_load(struct span pem, mbedtls_pk_context *pk)
{
    struct buf copy = {0};
    enum err e = buf_reserve(&copy, pem.len + 1);
    if (e == OK)
        e = buf_append(&copy, pem);
    if (e == OK)
        e = buf_append(&copy, span_of("", 1));
    if (e == OK && mbedtls_pk_parse_key(pk, copy.data, copy.len, NULL, 0) != 0)
        e = ERR_SYNTAX;
    buf_free(&copy);
    return e;
}

/* -- what a certificate says -- */

/* A name as theirs keeps it, the last attribute first. Errors: UNSUPPORTED (several attributes in one RDN), SYNTAX. */
static enum err take_name(struct span name, mbedtls_asn1_named_data **list)
{
    struct dn_walk w = dn_walk_of(name);
    struct dn_attribute a;
    while (dn_next(&w, &a)) {
        mbedtls_asn1_named_data *alone = NULL;
        if (!a.first)
            return ERR_UNSUPPORTED;
        if (!mbedtls_asn1_store_named_data(&alone, (const char *)a.oid.data, a.oid.len, a.value.data, a.value.len))
            return ERR_NOMEM;
        alone->val.tag = a.tag;
        alone->next = *list;
        *list = alone;
    }
    return dn_done(&w) ? OK : ERR_SYNTAX;
}

static enum err add_extension(mbedtls_x509write_cert *w, const char *oid, size_t oid_len, const struct writer *value)
{
    if (value->failed)
        return ERR_FULL;
    return mbedtls_x509write_crt_set_extension(w, oid, oid_len, 0, value->start, writer_len(value)) == 0 ? OK
                                                                                                         : ERR_NOMEM;
}

static uint8_t name_tag(uint8_t id_type)
{
    switch (id_type) {
    case 2:
        return X509_DNS;
    case 3:
        return X509_MAIL;
    default:
        return X509_IP;
    }
}

static enum err add_names(mbedtls_x509write_cert *w, const struct issue *what)
{
    uint8_t value[EXTENSION_MAX];
    struct writer out = writer_of(value, sizeof value);
    size_t len = 0;
    for (unsigned i = 0; i < what->name_count; i++)
        len += der_size(what->names[i].value.len);
    if (len == 0)
        return OK;
    der_write_head(&out, DER_SEQUENCE, len);
    for (unsigned i = 0; i < what->name_count; i++) {
        der_write_head(&out, name_tag(what->names[i].id_type), what->names[i].value.len);
        write_span(&out, what->names[i].value);
    }
    return add_extension(w, MBEDTLS_OID_SUBJECT_ALT_NAME, MBEDTLS_OID_SIZE(MBEDTLS_OID_SUBJECT_ALT_NAME), &out);
}

/* serverAuth and clientAuth: what other vendors look for, some in one role, some in the other. */
static enum err add_uses(mbedtls_x509write_cert *w)
{
    uint8_t value[32];
    struct writer out = writer_of(value, sizeof value);
    const size_t server = MBEDTLS_OID_SIZE(MBEDTLS_OID_SERVER_AUTH), client = MBEDTLS_OID_SIZE(MBEDTLS_OID_CLIENT_AUTH);
    der_write_head(&out, DER_SEQUENCE, der_size(server) + der_size(client));
    der_write_head(&out, DER_OID, server);
    write_bytes(&out, MBEDTLS_OID_SERVER_AUTH, server);
    der_write_head(&out, DER_OID, client);
    write_bytes(&out, MBEDTLS_OID_CLIENT_AUTH, client);
    return add_extension(w, MBEDTLS_OID_EXTENDED_KEY_USAGE, MBEDTLS_OID_SIZE(MBEDTLS_OID_EXTENDED_KEY_USAGE), &out);
}

/* The issuer's own identifier, however it was made (RFC 5280 section 4.2.1.1); theirs would always hash its key. */
static enum err add_issuer_key(mbedtls_x509write_cert *w, const struct x509 *issuer)
{
    uint8_t value[128];
    struct writer out = writer_of(value, sizeof value);
    if (!issuer || !issuer->subject_key.data)
        return mbedtls_x509write_crt_set_authority_key_identifier(w) == 0 ? OK : ERR_CRYPTO;
    if (issuer->subject_key.len > 64)
        return ERR_UNSUPPORTED;
    der_write_head(&out, DER_SEQUENCE, der_size(issuer->subject_key.len));
    der_write_head(&out, 0x80, issuer->subject_key.len);
    write_span(&out, issuer->subject_key);
    return add_extension(w, MBEDTLS_OID_AUTHORITY_KEY_IDENTIFIER,
                         MBEDTLS_OID_SIZE(MBEDTLS_OID_AUTHORITY_KEY_IDENTIFIER), &out);
}

static enum err add_extensions(mbedtls_x509write_cert *w, const struct issue *what, const struct x509 *issuer)
{
    const bool ca = !issuer;
    const unsigned usage =
        ca ? MBEDTLS_X509_KU_KEY_CERT_SIGN | MBEDTLS_X509_KU_CRL_SIGN : MBEDTLS_X509_KU_DIGITAL_SIGNATURE;
    if (mbedtls_x509write_crt_set_basic_constraints(w, ca, -1) != 0 ||
        mbedtls_x509write_crt_set_key_usage(w, usage) != 0 || mbedtls_x509write_crt_set_subject_key_identifier(w) != 0)
        return ERR_CRYPTO;
    TRY(add_issuer_key(w, issuer));
    TRY(add_names(w, what));
    return ca ? OK : add_uses(w);
}

/* 127 random bits, never negative and never zero (RFC 5280 section 4.1.2.2). */
static enum err set_serial(mbedtls_x509write_cert *w)
{
    uint8_t bytes[SERIAL_BYTES];
    mbedtls_mpi serial;
    random_bytes(bytes, sizeof bytes);
    bytes[0] = (uint8_t)((bytes[0] & 0x7f) | 0x40);
    mbedtls_mpi_init(&serial);
    bool set =
        mbedtls_mpi_read_binary(&serial, bytes, sizeof bytes) == 0 && mbedtls_x509write_crt_set_serial(w, &serial) == 0;
    mbedtls_mpi_free(&serial);
    return set ? OK : ERR_NOMEM;
}

static enum err set_dates(mbedtls_x509write_cert *w, const struct issue *what)
{
    char text[2][32];
    const int64_t at[2] = {what->not_before, what->not_after};
    for (int i = 0; i < 2; i++) {
        time_t t = (time_t)at[i];
        struct tm tm;
        if (at[i] < 0 || !gmtime_r(&t, &tm) || tm.tm_year > 9999 - 1900 ||
            !strftime(text[i], sizeof text[i], "%Y%m%d%H%M%S", &tm))
            return ERR_RANGE;
    }
    return mbedtls_x509write_crt_set_validity(w, text[0], text[1]) == 0 ? OK : ERR_RANGE;
}

/* -- issuing -- */

/* All of one call: the keys in use, and the certificate of the issuer, crt NULL when it issues its own. */
struct work {
    mbedtls_pk_context key, issuer_key;
    struct chain issuer_chain;
    struct x509 issuer;
    struct text why;
};

static enum err fail(struct work *k, enum err e, const char *why)
{
    text_add(&k->why, "%s", why);
    return e;
}

static enum err load_issuer(struct work *k, const struct issuer *issuer, struct issue *what, char *why, size_t why_size)
{
    TRY(chain_add(&k->issuer_chain, issuer->cert, why, why_size));
    TRY(x509_parse(buf_span(&k->issuer_chain.der[0]), &k->issuer, &k->why));
    if (key_load(issuer->key, &k->issuer_key) != OK)
        return fail(k, ERR_SYNTAX, "the CA's private key can't be read: expected PEM, not encrypted");
    if (mbedtls_pk_check_pair(&k->issuer.crt->pk, &k->issuer_key) != 0)
        return fail(k, ERR_MISMATCH, "the CA's private key is not that of its certificate");
    if (what->not_before < k->issuer.not_before)
        what->not_before = k->issuer.not_before;
    if (what->not_after > k->issuer.not_after)
        what->not_after = k->issuer.not_after;
    if (what->not_before >= what->not_after)
        return fail(k, ERR_EXPIRED, "the CA's certificate has expired");
    return OK;
}

static enum err fill(struct work *k, const struct issue *what, mbedtls_x509write_cert *w)
{
    const bool by_itself = !k->issuer.crt;
    mbedtls_pk_context *signer = by_itself ? &k->key : &k->issuer_key;
    mbedtls_x509write_crt_set_version(w, MBEDTLS_X509_CRT_VERSION_3);
    mbedtls_x509write_crt_set_subject_key(w, &k->key);
    mbedtls_x509write_crt_set_issuer_key(w, signer);
    mbedtls_x509write_crt_set_md_alg(w, mbedtls_pk_get_bitlen(signer) == 384 ? MBEDTLS_MD_SHA384 : MBEDTLS_MD_SHA256);
    TRY(take_name(what->subject, &w->subject));
    TRY(take_name(by_itself ? what->subject : k->issuer.subject, &w->issuer));
    TRY(set_serial(w));
    TRY(set_dates(w, what));
    return add_extensions(w, what, by_itself ? NULL : &k->issuer);
}

static enum err write_der(struct work *k, const struct issue *what, struct buf *der)
{
    uint8_t out[CERT_DER_MAX];
    mbedtls_x509write_cert w;
    mbedtls_x509write_crt_init(&w);
    enum err e = fill(k, what, &w);
    if (e == OK) {
        int len = mbedtls_x509write_crt_der(&w, out, sizeof out, rng, NULL); /* at the end of out */
        e = len > 0 ? buf_set(der, span_of(out + sizeof out - (size_t)len, (size_t)len)) : ERR_CRYPTO;
    }
    mbedtls_x509write_crt_free(&w);
    return e;
}

/* What we would refuse from others is not worth giving out. */
static enum err check(struct span der, const struct issue *what, const struct issuer *issuer, char *why,
                      size_t why_size)
{
    struct trust *t;
    struct chain c = {0};
    struct public_key *key = NULL;
    TRY(trust_new(&t));
    enum err e = trust_add_ca(t, issuer ? issuer->cert : der, why, why_size);
    if (e == OK && issuer)
        e = chain_add(&c, der, why, why_size);
    if (e == OK && issuer)
        e = cert_verify(t, &c, what->not_before, &key, why, why_size);
    public_key_free(key);
    chain_free(&c);
    trust_free(t);
    return e;
}

enum err issue_certificate(struct issue *what, struct span key, const struct issuer *issuer, struct buf *pem, char *why,
                           size_t why_size)
{
    struct work k = {.why = text_of(why, why_size)};
    struct buf der = {0};
    mbedtls_pk_init(&k.key);
    mbedtls_pk_init(&k.issuer_key);
    enum err e = key_load(key, &k.key);
    if (e == OK && issuer)
        e = load_issuer(&k, issuer, what, why, why_size);
    if (e == OK)
        e = write_der(&k, what, &der);
    if (e == OK)
        e = check(buf_span(&der), what, issuer, why, why_size);
    if (e == OK)
        e = pem_encode(buf_span(&der), "CERTIFICATE", pem);
    if (e != OK && why_size && !why[0])
        text_add(&k.why, "%s", err_text(e));
    buf_free(&der);
    x509_free(&k.issuer);
    chain_free(&k.issuer_chain);
    mbedtls_pk_free(&k.key);
    mbedtls_pk_free(&k.issuer_key);
    return e;
}
