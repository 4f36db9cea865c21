/*
 * Signatures as IKEv2 uses them (RFC 7296 section 3.8, RFC 4754, RFC 7427, RFC 8420): keys from files or base64, and
 * the data of an AUTH payload made and checked. RSA below 2048 bits or above 8192 (mbedTLS's longest), curves other
 * than P-256, P-384, P-521 and Ed25519, and SHA-1 are refused everywhere.
 *
 * Keys are immutable once made, counted by their references, and may be used from several threads at once. Private ones
 * live in secret memory.
 */
#ifndef ADIT_SIG_H
#define ADIT_SIG_H

#include "core/base/buf.h"
#include "core/base/cursor.h"
#include "core/base/err.h"
#include "crypto/key.h"
#include "crypto/random.h"

enum key_kind { KEY_RSA = 1, KEY_ECDSA_256, KEY_ECDSA_384, KEY_ECDSA_521, KEY_ED25519 };

/* Hash algorithms by their IANA numbers (RFC 7427 section 7, RFC 8420 section 2); a set of them is bits 1 << number. */
enum sig_hash { SIG_SHA2_256 = 2, SIG_SHA2_384 = 3, SIG_SHA2_512 = 4, SIG_IDENTITY = 5 };
#define SIG_HASH_BIT(hash) (1u << (hash))
#define SIG_HASHES \
    (SIG_HASH_BIT(SIG_SHA2_256) | SIG_HASH_BIT(SIG_SHA2_384) | SIG_HASH_BIT(SIG_SHA2_512) | SIG_HASH_BIT(SIG_IDENTITY))

/* Authentication methods of AUTH payloads (RFC 7296 section 3.8 and IANA). */
enum sig_method {
    SIG_METHOD_RSA = 1, /* PKCS#1 v1.5; with SHA2-256 by us, with any SHA-2 by the peer */
    SIG_METHOD_ECDSA_256 = 9,
    SIG_METHOD_ECDSA_384 = 10,
    SIG_METHOD_ECDSA_521 = 11,
    SIG_METHOD_DIGITAL = 14, /* RFC 7427: the algorithm stands before the signature */
};

#define KEY_SPKI_MAX 1100 /* DER SubjectPublicKeyInfo of the longest key taken, RSA of 8192 bits */
#define KEY_FINGERPRINT 32

struct public_key;
struct private_key;

/*
 * text: a PEM file with one private key (PKCS#8, SEC1 or PKCS#1, not encrypted), or the base64 line of `adit genkey`.
 * Errors: SYNTAX, UNSUPPORTED (kind, size, encrypted), NOMEM, CRYPTO; why says what was found and expected.
 */
MUST_USE enum err private_key_parse(struct span text, struct private_key **out, char *why, size_t why_size);
const struct public_key *private_key_public(const struct private_key *k); /* k's own; lives as long as k */
struct private_key *private_key_ref(struct private_key *k);               /* one more owner; returns k */
void private_key_free(struct private_key *k);                             /* the last owner's wipes; NULL is fine */

/* text: base64 of an Ed25519 key's 32 bytes, a PEM public key, or a DER SubjectPublicKeyInfo. Errors: as above. */
MUST_USE enum err public_key_parse(struct span text, struct public_key **out, char *why, size_t why_size);
struct public_key *public_key_ref(struct public_key *k);
void public_key_free(struct public_key *k); /* NULL is fine */

enum key_kind public_key_kind(const struct public_key *k);
unsigned public_key_bits(const struct public_key *k);
struct span public_key_spki(const struct public_key *k); /* its canonical DER; the key's own memory */
bool public_key_equal(const struct public_key *a, const struct public_key *b);
/* SHA-256 of the SubjectPublicKeyInfo: the KEY_ID of who has no other name. */
void public_key_fingerprint(const struct public_key *k, uint8_t out[KEY_FINGERPRINT]);
/* "RSA 3072", "ECDSA P-256", "Ed25519" into text; returns it. */
const char *public_key_text(const struct public_key *k, char *text, size_t size);
/* The base64 line of an Ed25519 key, as public_key_parse reads it; false: the key is of another kind. */
bool public_key_line(const struct public_key *k, char text[KEY_TEXT]);
/* The PEM file of a public key, as swanctl loads it. Errors: NOMEM. */
MUST_USE enum err public_key_pem(const struct public_key *k, struct buf *out);

/*
 * AUTH data by which the holder of k vouches for octets (RFC 7296 section 2.15). hashes: the peer's
 * SIGNATURE_HASH_ALGORITHMS as bits; 0: it sent none, so it gets methods 1 and 9 to 11. RSA with method 14 is PSS.
 * Errors: UNSUPPORTED (nothing the peer would take), NOMEM, CRYPTO.
 */
MUST_USE enum err sig_auth_make(const struct private_key *k, unsigned hashes, const struct random_source *rnd,
                                struct span octets, uint8_t *method, struct buf *data);
/*
 * hashes: what we announced. Errors: AUTH (wrong signature), UNSUPPORTED (the method or algorithm is not the key's, not
 * announced, or too weak), SYNTAX (the data is malformed).
 */
MUST_USE enum err sig_auth_check(const struct public_key *k, unsigned hashes, uint8_t method, struct span data,
                                 struct span octets);
/* "ECDSA P-256 with SHA2-256" (of method 14 without the curve), "method 3" …: what AUTH data says of itself. */
const char *sig_auth_text(uint8_t method, struct span data, char *text, size_t size);

#endif
