#include "crypto/cert.h"

#include "crypto/dn.h"
#include "crypto/pem.h"
#include "crypto/x509.h"

/* -- chains -- */

struct addition {
    struct chain *chain;
    struct text why;
};

static enum err add(void *ctx, struct span der)
{
    struct addition *a = ctx;
    struct chain *c = a->chain;
    if (!x509_is_der(der)) {
        text_add(&a->why, "a certificate is not DER");
        return ERR_SYNTAX;
    }
    if (der.len > CERT_DER_MAX) {
        text_add(&a->why, "a certificate of %zu bytes, expected at most %d", der.len, CERT_DER_MAX);
        return ERR_FULL;
    }
    if (c->n == CERT_CHAIN_MAX) {
        text_add(&a->why, "more than %d certificates", CERT_CHAIN_MAX);
        return ERR_FULL;
    }
    TRY(buf_set(&c->der[c->n], der));
    c->n++;
    return OK;
}

enum err chain_add(struct chain *c, struct span text, char *why, size_t why_size)
{
    struct addition a = {c, text_of(why, why_size)};
    unsigned count = 0;
    enum err e = pem_each(text, "CERTIFICATE", add, &a, &count);
    if (e == OK && count == 0) {
        text_add(&a.why, "no certificate found: expected PEM with a block BEGIN CERTIFICATE, or DER");
        return ERR_SYNTAX;
    }
    if (e != OK && why_size && !why[0])
        text_add(&a.why, "%s", e == ERR_SYNTAX ? "a PEM block in it is malformed" : err_text(e));
    return e;
}

void chain_free(struct chain *c)
{
    for (unsigned i = 0; i < c->n; i++)
        buf_free(&c->der[i]);
    c->n = 0;
}

static enum err parse_leaf(const struct chain *c, struct x509 *leaf, struct text *why)
{
    if (c->n == 0) {
        text_add(why, "there is no certificate");
        return ERR_SYNTAX;
    }
    return x509_parse(buf_span(&c->der[0]), leaf, why);
}

enum err chain_key(const struct chain *c, struct public_key **out, char *why, size_t why_size)
{
    struct text t = text_of(why, why_size);
    struct x509 leaf = {0};
    enum err e = parse_leaf(c, &leaf, &t);
    if (e == OK)
        e = x509_key(&leaf, out, &t);
    x509_free(&leaf);
    return e;
}

enum err chain_subject(const struct chain *c, struct span *name)
{
    char ignored[8];
    struct text t = text_of(ignored, sizeof ignored);
    struct x509 leaf = {0};
    TRY(parse_leaf(c, &leaf, &t));
    struct dn_walk w = dn_walk_of(leaf.subject);
    enum err e = reader_left(&w.rdns) > 0 ? OK : ERR_NOTFOUND;
    if (e == OK)
        *name = leaf.subject; /* a view into the chain, not into the leaf */
    x509_free(&leaf);
    return e;
}

/* -- identities -- */

enum { ID_IPV4 = 1, ID_FQDN = 2, ID_RFC822 = 3, ID_IPV6 = 5, ID_DER_DN = 9, ID_KEY_ID = 11 }; /* RFC 7296 section 3.5 */

/* RFC 4945 section 3.1: an identity is looked for among the names of its own kind. */
static bool has_alt_name(const struct x509 *leaf, uint8_t tag, struct span value, bool exact)
{
    struct reader names = x509_names_of(leaf->alt_names);
    struct span name;
    uint8_t found;
    while (x509_next_name(&names, &found, &name))
        if (found == tag && (exact ? span_equal(name, value) : equal_ignoring_case(name, value)))
            return true;
    return false;
}

static bool has_identity(const struct x509 *leaf, uint8_t id_type, struct span value)
{
    switch (id_type) {
    case ID_IPV4:
        return value.len == 4 && has_alt_name(leaf, X509_IP, value, true);
    case ID_IPV6:
        return value.len == 16 && has_alt_name(leaf, X509_IP, value, true);
    case ID_FQDN:
        return has_alt_name(leaf, X509_DNS, value, false);
    case ID_RFC822:
        return has_alt_name(leaf, X509_MAIL, value, false);
    case ID_DER_DN:
        return dn_equal(leaf->subject, value);
    case ID_KEY_ID:
        return span_equal(leaf->subject_key, value);
    default:
        return false;
    }
}

bool cert_has_identity(const struct chain *c, uint8_t id_type, struct span value)
{
    char ignored[8];
    struct text t = text_of(ignored, sizeof ignored);
    struct x509 leaf = {0};
    bool has = value.len > 0 && parse_leaf(c, &leaf, &t) == OK && has_identity(&leaf, id_type, value);
    x509_free(&leaf);
    return has;
}
