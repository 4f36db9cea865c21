/*
 * One certificate taken apart (RFC 5280 section 4), for the files of crypto/ that judge chains. All spans are views into
 * the DER that was parsed, which must outlive them. A struct x509 belongs to one thread: mbedTLS keeps tables within a
 * key that it verifies with, so what threads share is the DER.
 */
#ifndef ADIT_X509_H
#define ADIT_X509_H

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "core/base/escape.h"
#include "crypto/sig.h"

struct mbedtls_x509_crt;

/* What certificates and CRLs have in common: SEQUENCE { tbs, signatureAlgorithm, signature }. */
struct x509_signed {
    struct span tbs, algorithm; /* with their headers */
    struct span signature;
};

/* Bits of keyUsage as they stand in its first byte (section 4.2.1.3). */
enum {
    X509_DIGITAL_SIGNATURE = 0x80,
    X509_NON_REPUDIATION = 0x40,
    X509_KEY_CERT_SIGN = 0x04,
    X509_CRL_SIGN = 0x02,
};

struct x509 {
    struct mbedtls_x509_crt *crt; /* its public key */
    struct x509_signed sign;
    struct span subject, issuer; /* DER Names */
    struct span serial;          /* the bytes of the INTEGER */
    struct span spki;
    int64_t not_before, not_after; /* seconds since 1970, both still valid */
    bool ca;
    int path_len; /* -1: any */
    bool has_key_usage;
    unsigned key_usage;
    /* Extension values, as the OCTET STRING holds them; data NULL: there is none. */
    struct span alt_names, constraints, subject_key, ext_key_usage;
    struct span unknown_critical; /* the number of the first critical extension that we can't judge */
};

/* Errors: SYNTAX, UNSUPPORTED (key or signature of a kind that we don't take), NOMEM. */
MUST_USE enum err x509_parse(struct span der, struct x509 *out, struct text *why);
void x509_free(struct x509 *c); /* a zeroed one is fine */

/* Exactly one SEQUENCE and nothing after it. */
bool x509_is_der(struct span der);
MUST_USE enum err x509_signed_parse(struct span der, struct x509_signed *out);
/* Whether issuer's key signed it, with SHA-2. Errors: AUTH, UNSUPPORTED (the algorithm, or SHA-1), NOMEM. */
MUST_USE enum err x509_signed_by(const struct x509_signed *s, const struct x509 *issuer, struct text *why);
/* Its key, if crypto/sig.h takes such keys; the caller owns it. Errors: UNSUPPORTED, SYNTAX, NOMEM. */
MUST_USE enum err x509_key(const struct x509 *c, struct public_key **out, struct text *why);
bool x509_self_issued(const struct x509 *c);

/* A UTCTime or GeneralizedTime as seconds since 1970; fails the reader. */
int64_t x509_read_time(struct reader *r);
/* "2026-11-21 12:00 UTC" */
#define X509_TIME_TEXT 32
const char *x509_time_text(int64_t t, char text[X509_TIME_TEXT]);

/* Appends "the certificate of CN=x" or, when it has no subject, "the certificate with serial number 0x…". */
void x509_name(const struct x509 *c, struct text *t);

/*
 * Goes through a GeneralNames value: each name's tag (enum x509_name_tag) and content. False at the end or at a fault: then ask reader_done.
 */
struct reader x509_names_of(struct span general_names);
bool x509_next_name(struct reader *names, uint8_t *tag, struct span *content);
enum x509_name_tag {
    X509_MAIL = 0x81,
    X509_DNS = 0x82,
    X509_DIRECTORY = 0xa4, /* its content is the DER Name, directoryName being a CHOICE */
    X509_IP = 0x87,
};

#endif
