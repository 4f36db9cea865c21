/*
 * What a key is inside crypto/. Both halves are kept encoded and never change: each operation reads them into a context
 * of its own, since mbedTLS writes to its contexts even when it verifies (tables of a curve, blinding values). So keys
 * need no lock, operations with one key run side by side, and private numbers stand in ordinary memory only meanwhile.
 */
#ifndef ADIT_SIG_INTERNAL_H
#define ADIT_SIG_INTERNAL_H

#include <stdatomic.h>

#include "crypto/sig.h"

#define RSA_BITS_MIN 2048
#define RSA_BITS_MAX 8192 /* longer numbers mbedTLS does not take */
#define CURVE_BYTES_MAX 66
#define ED25519_BYTES 32 /* a seed or a public key */

struct public_key {
    atomic_uint refs;
    enum key_kind kind;
    unsigned bits;
    size_t spki_len;
    uint8_t spki[]; /* DER SubjectPublicKeyInfo; of ECDSA and Ed25519 keys the point is its end */
};

struct private_key {
    atomic_uint refs;
    struct public_key *public;
    size_t len;
    uint8_t secret[]; /* RSA: DER RSAPrivateKey; ECDSA: the scalar; Ed25519: seed | public key */
};

struct curve {
    enum key_kind kind;
    int group; /* mbedTLS's number */
    size_t bytes;
    const char *name;
};
const struct curve *curve_of_kind(enum key_kind kind); /* NULL unless ECDSA */

/* The point of an ECDSA (04 | x | y) or Ed25519 key. */
struct span public_key_point(const struct public_key *k);

/* A struct random_source as mbedTLS calls one. */
int sig_random(void *source, unsigned char *p, size_t n);

#endif
