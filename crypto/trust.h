/* What a trust is inside crypto/: DER and views into it, so that many threads may read it (see x509.h). */
#ifndef ADIT_TRUST_H
#define ADIT_TRUST_H

#include <stdatomic.h>

#include "crypto/cert.h"
#include "crypto/crl.h"

#define TRUST_CA_MAX 256
#define TRUST_CRL_MAX 64

struct trust {
    atomic_uint owners;
    unsigned ca_count, crl_count;
    struct trust_ca {
        struct buf der;
        struct span subject; /* a view into der, as are those of the CRL */
        uint8_t hint[CERT_HINT];
    } ca[TRUST_CA_MAX];
    struct trust_crl {
        struct buf der;
        struct crl crl;
    } crl[TRUST_CRL_MAX];
};

#endif
