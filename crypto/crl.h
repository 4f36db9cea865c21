/* Revocation lists (RFC 5280 section 5): complete ones, of the issuer itself. Views into the DER, as with struct x509. */
#ifndef ADIT_CRL_H
#define ADIT_CRL_H

#include "crypto/x509.h"

#define CRL_DER_MAX (4u << 20) /* bytes: some 100,000 revoked certificates */

struct crl {
    struct x509_signed sign;
    struct span issuer;               /* a DER Name */
    struct span revoked;              /* the entries, within their SEQUENCE */
    int64_t this_update, next_update; /* seconds since 1970 */
};

/* Errors: SYNTAX, UNSUPPORTED (delta or indirect, other critical extensions, no nextUpdate). */
MUST_USE enum err crl_parse(struct span der, struct crl *out, struct text *why);
bool crl_revokes(const struct crl *c, struct span serial);

#endif
