/*
 * X.509 for IKEv2 (RFC 5280, RFC 4945): a chain of certificates is verified up to a pinned CA, with CRLs, and then says
 * which identities its leaf has and which key. Certificates are kept as DER; nothing here does I/O or asks for the time.
 * All objects are immutable once filled and may be read from several threads at once; a trust is counted by its owners.
 */
#ifndef ADIT_CERT_H
#define ADIT_CERT_H

#include "core/base/buf.h"
#include "core/base/cursor.h"
#include "core/base/err.h"
#include "crypto/sig.h"

#define CERT_CHAIN_MAX 10  /* certificates of one end, leaf included */
#define CERT_DER_MAX 16384 /* bytes of one certificate */
#define CERT_HINT 20       /* SHA-1 of a CA's SubjectPublicKeyInfo, as CERTREQ carries it (RFC 7296 section 3.7) */

/* -- what one end shows: the leaf first, then intermediates in any order -- */
struct chain {
    unsigned n;
    struct buf der[CERT_CHAIN_MAX];
};
/* A PEM file (all certificates in it) or one DER certificate, added. Errors: SYNTAX, FULL, NOMEM; why in words. */
MUST_USE enum err chain_add(struct chain *c, struct span text, char *why, size_t why_size);
void chain_free(struct chain *c);
/* The leaf's key, unverified: for matching our own certificate with our own key. Errors: as public_key_parse. */
MUST_USE enum err chain_key(const struct chain *c, struct public_key **out, char *why, size_t why_size);
/* The leaf's subject as DER Name, a view into the chain. Errors: SYNTAX (no chain, or empty subject: NOTFOUND). */
MUST_USE enum err chain_subject(const struct chain *c, struct span *name);

/* -- whom we believe: CAs and their CRLs -- */
struct trust;
MUST_USE enum err trust_new(struct trust **out); /* Errors: NOMEM */
struct trust *trust_ref(struct trust *t);        /* one more owner; returns t */
void trust_free(struct trust *t);                /* drops one; NULL is fine */
/* PEM (all in it) or DER. Errors: SYNTAX, UNSUPPORTED (not a CA, key too weak), FULL, NOMEM; why in words. */
MUST_USE enum err trust_add_ca(struct trust *t, struct span text, char *why, size_t why_size);
/* A CRL must be signed by one of the CAs, or by an intermediate met later; expired ones are kept and refused in use. */
MUST_USE enum err trust_add_crl(struct trust *t, struct span text, char *why, size_t why_size);
bool trust_equal(const struct trust *a, const struct trust *b);
unsigned trust_count(const struct trust *t); /* of CAs */
unsigned trust_crl_count(const struct trust *t);
void trust_hint(const struct trust *t, unsigned i, uint8_t out[CERT_HINT]); /* of the i'th CA */

/*
 * Whether the chain leads from its leaf to a CA of t: signatures (no SHA-1, no RSA below 2048 bits), dates at `now`
 * (seconds since 1970), CA bits and path lengths, key usage, name constraints (enforced, or the chain is refused),
 * unknown critical extensions, CRLs where t has one of the issuer. *key: the leaf's, owned by the caller.
 * Errors: AUTH with why in words ("the certificate of C=CH, CN=x expired 3 days ago; is this clock right?"),
 * UNSUPPORTED (such as an Ed25519 certificate), SYNTAX, NOMEM.
 */
MUST_USE enum err cert_verify(const struct trust *t, const struct chain *c, int64_t now, struct public_key **key,
                              char *why, size_t why_size);
/*
 * Whether the leaf carries this identity: subject for a DN (type 9), subjectAltName for IPv4 (1), FQDN (2), mail (3) and
 * IPv6 (5) addresses (RFC 4945 section 3.1), subjectKeyIdentifier for KEY_ID (11); value as in an ID payload. Never the
 * common name, never a name of another type, never a wildcard.
 */
bool cert_has_identity(const struct chain *c, uint8_t id_type, struct span value);

#endif
