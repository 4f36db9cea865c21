#include "crypto/x509.h"

#include <mbedtls/oid.h>
#include <mbedtls/platform.h>
#include <mbedtls/x509_crt.h>
#include <stdlib.h>
#include <time.h>

#include "crypto/der.h"
#include "crypto/dn.h"

#define NAME_SHOWN 160 /* characters of a subject within a reason */

/* -- text -- */

static void add_dn(struct span name, struct text *t)
{
    char text[NAME_SHOWN];
    text_add(t, "%s", dn_format(name, text, sizeof text));
}

void x509_name(const struct x509 *c, struct text *t)
{
    struct dn_walk w = dn_walk_of(c->subject);
    if (reader_left(&w.rdns) > 0) {
        text_add(t, "the certificate of ");
        add_dn(c->subject, t);
    } else {
        text_add(t, "the certificate with serial number ");
        text_hex(t, c->serial.len <= 20 ? c->serial : span_of(c->serial.data, 20));
    }
}

const char *x509_time_text(int64_t at, char text[X509_TIME_TEXT])
{
    time_t t = (time_t)at;
    struct tm tm;
    if (!gmtime_r(&t, &tm) || !strftime(text, X509_TIME_TEXT, "%Y-%m-%d %H:%M UTC", &tm))
        memcpy(text, "?", 2);
    return text;
}

/* -- time -- */

/* Days since 1970 of a date of the Gregorian calendar. */
static int64_t days_of(int64_t year, int64_t month, int64_t day)
{
    /* Years that begin in March have their leap day last, so the months before it have fixed lengths. */
    year -= month <= 2;
    month = (month + 9) % 12;
    int64_t leap_days = year / 4 - year / 100 + year / 400;
    return 365 * year + leap_days + (153 * month + 2) / 5 + day - 1 - 719468;
}

static int64_t seconds_of(const mbedtls_x509_time *t)
{
    return ((days_of(t->year, t->mon, t->day) * 24 + t->hour) * 60 + t->min) * 60 + t->sec;
}

int64_t x509_read_time(struct reader *r)
{
    struct span whole = der_read_whole(r);
    /* Theirs takes a pointer that it could write through, but does not. */
    unsigned char *at = (unsigned char *)(uintptr_t)whole.data;
    mbedtls_x509_time t = {0};
    if (!whole.data || mbedtls_x509_get_time(&at, at + whole.len, &t) != 0 || at != whole.data + whole.len) {
        r->failed = true;
        return 0;
    }
    return seconds_of(&t);
}

/* -- signatures -- */

bool x509_is_der(struct span der)
{
    struct reader r = reader_of(der);
    struct reader content = der_enter(&r, DER_SEQUENCE);
    return reader_done(&r) && !content.failed;
}

enum err x509_signed_parse(struct span der, struct x509_signed *out)
{
    struct reader whole = reader_of(der), r = der_enter(&whole, DER_SEQUENCE);
    out->tbs = der_read_whole(&r);
    out->algorithm = der_read_whole(&r);
    struct reader bits = der_enter(&r, DER_BIT_STRING);
    uint8_t unused = read_u8(&bits);
    out->signature = read_rest(&bits);
    return bits.failed || unused || !reader_done(&r) || !reader_done(&whole) ? ERR_SYNTAX : OK;
}

static void add_algorithm(struct span algorithm, struct text *why)
{
    static const uint8_t ed25519[] = {0x2b, 0x65, 0x70}; /* RFC 8410 section 3 */
    struct reader r = reader_of(algorithm), a = der_enter(&r, DER_SEQUENCE), oid = der_enter(&a, DER_OID);
    struct span number = read_rest(&oid);
    if (span_equal(number, span_of(ed25519, sizeof ed25519)))
        text_add(why, "Ed25519");
    else
        oid_format(number, why);
}

static bool hash_strong(mbedtls_md_type_t md)
{
    return md == MBEDTLS_MD_SHA256 || md == MBEDTLS_MD_SHA384 || md == MBEDTLS_MD_SHA512;
}

static enum err verify(const struct x509_signed *s, const struct x509 *issuer, mbedtls_md_type_t md,
                       mbedtls_pk_type_t kind, const void *options, struct text *why)
{
    uint8_t hash[MBEDTLS_MD_MAX_SIZE];
    const mbedtls_md_info_t *info = mbedtls_md_info_from_type(md);
    if (!hash_strong(md) || !info) {
        text_add(why, "is signed with %s, expected SHA-256, SHA-384 or SHA-512",
                 info ? mbedtls_md_get_name(info) : "an unknown hash");
        return ERR_UNSUPPORTED;
    }
    if (mbedtls_pk_can_do(&issuer->crt->pk, kind) && mbedtls_md(info, s->tbs.data, s->tbs.len, hash) == 0 &&
        mbedtls_pk_verify_ext(kind, options, &issuer->crt->pk, md, hash, mbedtls_md_get_size(info), s->signature.data,
                              s->signature.len) == 0)
        return OK;
    text_add(why, "is not signed by the key of ");
    add_dn(issuer->subject, why);
    return ERR_AUTH;
}

enum err x509_signed_by(const struct x509_signed *s, const struct x509 *issuer, struct text *why)
{
    mbedtls_x509_buf oid = {0}, parameters = {0};
    mbedtls_md_type_t md = MBEDTLS_MD_NONE;
    mbedtls_pk_type_t kind = MBEDTLS_PK_NONE;
    void *options = NULL;
    unsigned char *at = (unsigned char *)(uintptr_t)s->algorithm.data;
    int ret = mbedtls_x509_get_alg(&at, at + s->algorithm.len, &oid, &parameters);
    if (ret == 0)
        ret = mbedtls_x509_get_sig_alg(&oid, &parameters, &md, &kind, &options);
    if (ret == MBEDTLS_ERR_X509_ALLOC_FAILED)
        return ERR_NOMEM;
    if (ret != 0) {
        text_add(why, "is signed with ");
        add_algorithm(s->algorithm, why);
        text_add(why, ", expected RSA or ECDSA with SHA-2");
        return ERR_UNSUPPORTED;
    }
    enum err e = verify(s, issuer, md, kind, options, why);
    mbedtls_free(options);
    return e;
}

enum err x509_key(const struct x509 *c, struct public_key **out, struct text *why)
{
    char reason[200];
    enum err e = public_key_parse(c->spki, out, reason, sizeof reason);
    if (e != OK) {
        x509_name(c, why);
        text_add(why, " has a key that can't be used: %s", reason);
    }
    return e;
}

/* -- names -- */

bool x509_self_issued(const struct x509 *c)
{
    return dn_equal(c->subject, c->issuer);
}

struct reader x509_names_of(struct span general_names)
{
    struct reader whole = reader_of(general_names), names = der_enter(&whole, DER_SEQUENCE);
    names.failed |= !reader_done(&whole);
    return names;
}

bool x509_next_name(struct reader *names, uint8_t *tag, struct span *content)
{
    if (reader_left(names) == 0)
        return false;
    struct reader name = der_enter_any(names, tag);
    *content = read_rest(&name);
    return !names->failed;
}

/* -- parsing -- */

/* Theirs knows few extensions; which of the others matter is decided in take_extensions. */
static int accept_extension(void *ctx, const mbedtls_x509_crt *crt, const mbedtls_x509_buf *oid, int critical,
                            const unsigned char *p, const unsigned char *end)
{
    (void)ctx, (void)crt, (void)oid, (void)critical, (void)p, (void)end;
    return 0;
}

/*
 * Where the value of an extension is kept; NULL: nowhere. *known: we act on it, so it may be critical. Policies count as
 * such, for any policy will do (RFC 5280 section 6.1.1 (c) to (e)).
 */
static struct span *extension_slot(struct x509 *c, struct span oid, bool *known)
{
    *known = false;
    if (oid.len != 3 || oid.data[0] != 0x55 || oid.data[1] != 0x1d) /* id-ce */
        return NULL;
    *known = true;
    switch (oid.data[2]) {
    case 14:
        return &c->subject_key;
    case 17:
        return &c->alt_names;
    case 30:
        return &c->constraints;
    case 37:
        return &c->ext_key_usage;
    case 15: /* keyUsage, basicConstraints, certificatePolicies */
    case 19:
    case 32:
        return NULL;
    default:
        *known = false;
        return NULL;
    }
}

static enum err take_extensions(struct x509 *c, struct span extensions)
{
    struct reader whole = reader_of(extensions), list = der_enter(&whole, DER_SEQUENCE);
    while (reader_left(&list) > 0) {
        struct reader e = der_enter(&list, DER_SEQUENCE), oid = der_enter(&e, DER_OID);
        struct span number = read_rest(&oid);
        bool critical = der_read_default_false(&e), known;
        struct reader value = der_enter(&e, DER_OCTET_STRING);
        if (!reader_done(&e) || value.failed)
            return ERR_SYNTAX;
        struct span *slot = extension_slot(c, number, &known);
        if (slot && slot->data) /* section 4.2: never twice */
            return ERR_SYNTAX;
        if (slot)
            *slot = read_rest(&value);
        if (critical && !known && !c->unknown_critical.data)
            c->unknown_critical = number;
    }
    return reader_done(&list) && reader_done(&whole) ? OK : ERR_SYNTAX;
}

/* The DER of an OCTET STRING within subjectKeyIdentifier. */
static enum err unwrap_subject_key(struct x509 *c)
{
    if (!c->subject_key.data)
        return OK;
    struct reader r = reader_of(c->subject_key), key = der_enter(&r, DER_OCTET_STRING);
    c->subject_key = read_rest(&key);
    return reader_done(&r) && !key.failed ? OK : ERR_SYNTAX;
}

static enum err take_apart(struct span der, struct x509 *c)
{
    const mbedtls_x509_crt *crt = c->crt;
    TRY(x509_signed_parse(der, &c->sign));
    c->subject = span_of(crt->subject_raw.p, crt->subject_raw.len);
    c->issuer = span_of(crt->issuer_raw.p, crt->issuer_raw.len);
    c->serial = span_of(crt->serial.p, crt->serial.len);
    c->spki = span_of(crt->pk_raw.p, crt->pk_raw.len);
    c->not_before = seconds_of(&crt->valid_from);
    c->not_after = seconds_of(&crt->valid_to);
    c->ca = crt->ca_istrue;
    c->path_len = crt->max_pathlen - 1; /* theirs counts from 1, and 0 is any */
    c->has_key_usage = crt->ext_types & MBEDTLS_OID_X509_EXT_KEY_USAGE;
    c->key_usage = crt->key_usage;
    if (crt->v3_ext.p)
        TRY(take_extensions(c, span_of(crt->v3_ext.p, crt->v3_ext.len)));
    return unwrap_subject_key(c);
}

/* Why theirs did not take it: the algorithms are looked up once more, to be named. */
static enum err explain(struct span der, int ret, struct text *why)
{
    struct x509_signed s = {0};
    bool malformed = x509_signed_parse(der, &s) != OK;
    struct reader whole = reader_of(s.tbs), r = der_enter(&whole, DER_SEQUENCE);
    if (der_next_is(&r, DER_CONTEXT + 0))
        der_read_whole(&r);
    der_read_whole(&r); /* serialNumber, signature */
    der_read_whole(&r);
    struct x509 c = {.issuer = der_read_whole(&r)};
    der_read_whole(&r);
    c.subject = der_read_whole(&r);
    struct reader key = der_enter(&r, DER_SEQUENCE);
    struct span algorithm = der_read_whole(&key);
    int high = -(-ret & 0xff80); /* their codes add a detail in the low bits */
    if (!malformed && !key.failed && high == MBEDTLS_ERR_X509_UNKNOWN_SIG_ALG) {
        x509_name(&c, why);
        text_add(why, " is signed with ");
        add_algorithm(s.algorithm, why);
        text_add(why, ", expected RSA or ECDSA with SHA-2");
        return ERR_UNSUPPORTED;
    }
    if (!malformed && !key.failed &&
        (high == MBEDTLS_ERR_PK_UNKNOWN_PK_ALG || high == MBEDTLS_ERR_PK_UNKNOWN_NAMED_CURVE)) {
        x509_name(&c, why);
        text_add(why, " has a key of the kind ");
        add_algorithm(algorithm, why);
        text_add(why, ", expected RSA or ECDSA with P-256, P-384 or P-521");
        return ERR_UNSUPPORTED;
    }
    text_add(why, "a certificate is malformed (mbedTLS error -0x%04x)", -ret);
    return ERR_SYNTAX;
}

enum err x509_parse(struct span der, struct x509 *out, struct text *why)
{
    struct x509 c = {.crt = malloc(sizeof *c.crt)};
    if (!c.crt)
        return ERR_NOMEM;
    mbedtls_x509_crt_init(c.crt);
    /* Without a copy: the spans of *out are views of der itself. */
    int ret = mbedtls_x509_crt_parse_der_with_ext_cb(c.crt, der.data, der.len, 0, accept_extension, NULL);
    enum err e = OK;
    if (ret == MBEDTLS_ERR_X509_ALLOC_FAILED) {
        e = ERR_NOMEM;
    } else if (ret != 0) {
        e = explain(der, ret, why);
    } else if (take_apart(der, &c) != OK) {
        e = ERR_SYNTAX;
        text_add(why, "a certificate is malformed");
    }
    if (e == OK)
        *out = c;
    else
        x509_free(&c);
    return e;
}

void x509_free(struct x509 *c)
{
    if (c->crt)
        mbedtls_x509_crt_free(c->crt);
    free(c->crt);
    *c = (struct x509){0};
}
