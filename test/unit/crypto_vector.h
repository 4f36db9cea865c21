/* What the tests of the crypto room share: hexadecimal text, scripted private values, one packet through one engine. */
#ifndef ADIT_TEST_CRYPTO_VECTOR_H
#define ADIT_TEST_CRYPTO_VECTOR_H

#include "core/base/cursor.h"
#include "crypto/random.h"
#include "crypto/transform.h"

/* Bytes of hexadecimal text, for the caller to free; {NULL, 0} for "". Aborts on anything else. */
struct span hex(const char *text);
void span_free(struct span s);

/* A source that gives these bytes, then zeroes. */
struct scripted {
    const uint8_t *at;
    size_t left;
};
struct random_source scripted_source(struct scripted *s);

/* What a known-answer test of packet encryption states. nonce: with the salt, for AEADs. */
struct packet_vector {
    struct suite suite;
    struct span key; /* with the salt, for AEADs */
    struct span integ_key;
    struct span iv, aad, plain, cipher, icv;
};

/* aes128gcm16, or aes256-sha256. Fails the test if there is no such suite. */
struct suite suite_by_name(const char *encr, const char *integ);
/* The i-th of all ciphers, MACs (of ESP) …; NULL past the end. */
const struct algorithm *algorithm_of_type(uint8_t type, unsigned i);
/* Row i of all suites that we have, those of AH included; false past the end. */
bool suite_at(unsigned i, struct suite *out);

/* Whether the engine makes exactly this cipher text and ICV; whether it opens it to exactly this text. */
bool vector_seals(const char *engine, const struct packet_vector *v);
bool vector_opens(const char *engine, const struct packet_vector *v);

/* The ICV of a MAC suite by prf(), which shares no code with the engines but mbedTLS's hashes. */
void reference_icv(const struct suite *s, struct span integ_key, const struct span *parts, unsigned n, uint8_t *icv);

/* RFC 7427 appendix A.4.3 with these hashes (last arc: 1 SHA2-256, 2 SHA2-384, 3 SHA2-512) and bytes of salt. */
#define PSS_ALGORITHM 72
void pss_algorithm(unsigned hash, unsigned mask, unsigned salt, uint8_t out[PSS_ALGORITHM]);

#endif
