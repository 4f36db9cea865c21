/* A small certificate authority: keys, its own certificate, those of gateways (RFC 5280, RFC 4945 section 5.1). */
#ifndef ADIT_ISSUE_H
#define ADIT_ISSUE_H

#include "core/base/buf.h"
#include "core/base/cursor.h"
#include "core/base/err.h"

enum issue_key { ISSUE_ECDSA_256, ISSUE_ECDSA_384, ISSUE_RSA_3072 };

/* A new private key as PEM (SEC1, PKCS#1), which private_key_parse reads. Errors: NOMEM, CRYPTO. */
MUST_USE enum err issue_key_new(enum issue_key kind, struct buf *pem);

#define ISSUE_NAMES_MAX 32

struct issue {
    struct span subject; /* a DER Name, one attribute to an RDN */
    /* Names by the type of their ID payload (RFC 7296 section 3.5): IPv4, FQDN, RFC822 and IPv6 addresses. */
    struct issue_name {
        uint8_t id_type;
        struct span value;
    } names[ISSUE_NAMES_MAX];
    unsigned name_count;
    int64_t not_before, not_after; /* seconds since 1970 */
};

/* PEM of a CA's certificate (the first one in it counts) and private key. */
struct issuer {
    struct span cert, key;
};

/*
 * The PEM certificate of key (PEM) by this issuer; NULL: of a CA, by itself. What would outlive the issuer's certificate, or begin
 * before it, is narrowed to it, in *what too. Nothing is issued that cert_verify would refuse. Errors: SYNTAX, UNSUPPORTED,
 * MISMATCH (the issuer's key is not its certificate's), EXPIRED, AUTH (such as its name constraints), NOMEM, CRYPTO.
 */
MUST_USE enum err issue_certificate(struct issue *what, struct span key, const struct issuer *issuer, struct buf *pem,
                                    char *why, size_t why_size);

#endif
