#include "crypto/trust.h"

#include <mbedtls/sha1.h>
#include <stdlib.h>

#include "crypto/dn.h"
#include "crypto/pem.h"
#include "crypto/x509.h"

enum err trust_new(struct trust **out)
{
    struct trust *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NOMEM;
    atomic_init(&t->owners, 1);
    *out = t;
    return OK;
}

struct trust *trust_ref(struct trust *t)
{
    atomic_fetch_add_explicit(&t->owners, 1, memory_order_relaxed);
    return t;
}

void trust_free(struct trust *t)
{
    if (!t || atomic_fetch_sub_explicit(&t->owners, 1, memory_order_acq_rel) != 1)
        return;
    for (unsigned i = 0; i < t->ca_count; i++)
        buf_free(&t->ca[i].der);
    for (unsigned i = 0; i < t->crl_count; i++)
        buf_free(&t->crl[i].der);
    free(t);
}

struct addition {
    struct trust *trust;
    struct text why;
};

static enum err refuse(struct addition *a, const struct x509 *c, const char *what)
{
    x509_name(c, &a->why);
    text_add(&a->why, " %s", what);
    return ERR_UNSUPPORTED;
}

/* What must hold of a CA whatever it signs (RFC 5280 section 4.2.1.9, section 6.1.4 (k) to (n)). */
static enum err judge_ca(struct addition *a, const struct x509 *c)
{
    struct public_key *key;
    if (!c->ca)
        return refuse(a, c, "is not that of a CA: expected basicConstraints with CA:TRUE");
    if (c->has_key_usage && !(c->key_usage & X509_KEY_CERT_SIGN))
        return refuse(a, c, "may not sign certificates: expected keyUsage with keyCertSign");
    if (c->unknown_critical.data) {
        refuse(a, c, "has the unknown critical extension ");
        oid_format(c->unknown_critical, &a->why);
        return ERR_UNSUPPORTED;
    }
    TRY(x509_key(c, &key, &a->why));
    public_key_free(key);
    return OK;
}

static enum err add_ca(void *ctx, struct span der)
{
    struct addition *a = ctx;
    struct trust *t = a->trust;
    struct x509 c = {0};
    struct buf copy = {0};
    for (unsigned i = 0; i < t->ca_count; i++)
        if (span_equal(buf_span(&t->ca[i].der), der))
            return OK;
    if (t->ca_count == TRUST_CA_MAX) {
        text_add(&a->why, "more than %d CAs", TRUST_CA_MAX);
        return ERR_FULL;
    }
    TRY(buf_set(&copy, der));
    enum err e = x509_parse(buf_span(&copy), &c, &a->why);
    if (e == OK)
        e = judge_ca(a, &c);
    struct trust_ca *ca = &t->ca[t->ca_count];
    if (e == OK && mbedtls_sha1_ret(c.spki.data, c.spki.len, ca->hint) != 0)
        e = ERR_CRYPTO;
    if (e == OK) {
        ca->der = copy;
        ca->subject = c.subject;
        t->ca_count++;
    } else {
        buf_free(&copy);
    }
    x509_free(&c);
    return e;
}

static enum err add_crl(void *ctx, struct span der)
{
    struct addition *a = ctx;
    struct trust *t = a->trust;
    struct trust_crl *slot = &t->crl[t->crl_count];
    struct buf copy = {0};
    if (t->crl_count == TRUST_CRL_MAX || der.len > CRL_DER_MAX) {
        text_add(&a->why, "more than %d CRLs, or one of more than %u bytes", TRUST_CRL_MAX, CRL_DER_MAX);
        return ERR_FULL;
    }
    TRY(buf_set(&copy, der));
    enum err e = crl_parse(buf_span(&copy), &slot->crl, &a->why);
    if (e != OK) {
        buf_free(&copy);
        return e;
    }
    slot->der = copy;
    t->crl_count++;
    return OK;
}

static enum err add(struct trust *t, struct span text, const char *label, pem_fn *fn, char *why, size_t why_size)
{
    struct addition a = {t, text_of(why, why_size)};
    unsigned count = 0;
    enum err e = pem_each(text, label, fn, &a, &count);
    if (e == OK && count == 0) {
        text_add(&a.why, "nothing found in it: expected PEM with a block BEGIN %s, or DER", label);
        return ERR_SYNTAX;
    }
    if (e != OK && why_size && !why[0])
        text_add(&a.why, "%s", e == ERR_SYNTAX ? "a PEM block in it is malformed" : err_text(e));
    return e;
}

enum err trust_add_ca(struct trust *t, struct span text, char *why, size_t why_size)
{
    return add(t, text, "CERTIFICATE", add_ca, why, why_size);
}

enum err trust_add_crl(struct trust *t, struct span text, char *why, size_t why_size)
{
    return add(t, text, "X509 CRL", add_crl, why, why_size);
}

static bool has_ca(const struct trust *t, struct span der)
{
    for (unsigned i = 0; i < t->ca_count; i++)
        if (span_equal(buf_span(&t->ca[i].der), der))
            return true;
    return false;
}

static bool has_crl(const struct trust *t, struct span der)
{
    for (unsigned i = 0; i < t->crl_count; i++)
        if (span_equal(buf_span(&t->crl[i].der), der))
            return true;
    return false;
}

static bool within(const struct trust *a, const struct trust *b)
{
    for (unsigned i = 0; i < a->ca_count; i++)
        if (!has_ca(b, buf_span(&a->ca[i].der)))
            return false;
    for (unsigned i = 0; i < a->crl_count; i++)
        if (!has_crl(b, buf_span(&a->crl[i].der)))
            return false;
    return true;
}

bool trust_equal(const struct trust *a, const struct trust *b)
{
    return within(a, b) && within(b, a);
}

unsigned trust_crl_count(const struct trust *t)
{
    return t->crl_count;
}

unsigned trust_count(const struct trust *t)
{
    return t->ca_count;
}

void trust_hint(const struct trust *t, unsigned i, uint8_t out[CERT_HINT])
{
    memcpy(out, t->ca[i].hint, CERT_HINT);
}
