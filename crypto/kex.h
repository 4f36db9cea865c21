/*
 * Key exchange, shaped as a KEM so that later methods fit: the initiator offers, the responder answers the offer with
 * its own value and the secret, the initiator finishes. Public values have their wire form (RFC 7296 section 3.4; ECP
 * without the leading 04, RFC 5903 section 7; curve25519 RFC 8031). Peers' values are checked as RFC 6989 and RFC 8031
 * demand: range 1 < y < p - 1, on the curve, not all-zero secret.
 */
#ifndef ADIT_KEX_H
#define ADIT_KEX_H

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "crypto/algorithm.h"
#include "crypto/random.h"
#include "crypto/secret.h"

#define KEX_PUBLIC_MAX 512
#define KEX_SECRET_MAX 1024 /* of an 8192-bit group, the largest that IKEv2 knows */

struct kex; /* one side's private value: secret memory */

struct kex_public {
    uint16_t len;
    uint8_t b[KEX_PUBLIC_MAX];
};
struct kex_secret {
    uint16_t len;
    uint8_t b[KEX_SECRET_MAX];
};

/* Errors: UNSUPPORTED (group), NOMEM, CRYPTO. */
MUST_USE enum err kex_offer(uint16_t group, const struct random_source *rnd, struct kex **out, struct kex_public *pub);
/* Errors: UNSUPPORTED, RANGE (length is not the group's), AUTH (value is invalid or non-contributory), CRYPTO. */
MUST_USE enum err kex_respond(uint16_t group, const struct random_source *rnd, struct span peer, struct kex_public *pub,
                              struct kex_secret *secret);
MUST_USE enum err kex_finish(struct kex *k, struct span peer, struct kex_secret *secret);
void kex_free(struct kex *k); /* wipes; NULL is fine */

#endif
