/*
 * Packet encryption with integrity, by batches: the one interface for ESP and for the SK payload of IKE. A suite is an
 * AEAD (RFC 5116 as in RFC 4106, 7634, 5282) or a cipher with a MAC over what it made (RFC 4303 section 3.3.2). Each is
 * run by one of several backends (ipsec-mb, libsodium, mbedTLS), chosen per suite.
 *
 * A keyed transform is used by one thread at a time. It holds keys: allocated and wiped through crypto/secret.h.
 */
#ifndef ADIT_TRANSFORM_H
#define ADIT_TRANSFORM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "crypto/algorithm.h"

#define TRANSFORM_BATCH 64 /* most operations of one call */
#define TRANSFORM_IV_MAX 16
#define TRANSFORM_ICV_MAX 32
#define TRANSFORM_MAC_MAX 65534 /* bytes that a MAC suite's MAC covers: ipsec-mb refuses a batch with more in it */
#define TRANSFORM_CCM_AAD_MAX \
    46 /* what every engine takes, and three times what ESP has; more: some (struct backend) */

/* What a suite means for a packet's layout: [aad][iv][text ... padded to block][icv]. */
struct suite {
    struct transform encr, integ; /* integ.id 0 with an AEAD */
    enum cipher_mode mode;
    bool aead, counter_iv, implicit_iv;
    bool aes;              /* cipher or MAC is made of it */
    uint16_t encr_key_len; /* cipher key with salt */
    uint16_t integ_key_len;
    uint16_t salt_len, iv_len, block, icv_len;
    uint16_t mac; /* the PRF whose output, cut to icv_len, is the ICV; 0 with an AEAD */
};

/* Errors: UNSUPPORTED; MISMATCH (a cipher without integrity, an AEAD with one: RFC 4303 section 3.2.3 forbids them). */
MUST_USE enum err suite_of(const struct transform *encr, const struct transform *integ, struct suite *out);
/*
 * A suite without a cipher, for AH: what is its text to a cipher is only read by the MAC. encr.id is ENCR_NONE. The key of
 * AES-GMAC, which is an AEAD to the engines, is encr_key_len long; all others have integ_key_len. Errors: UNSUPPORTED.
 */
MUST_USE enum err suite_of_integ(const struct transform *integ, struct suite *out);
/* "aes256gcm16", "aes128-sha256", of AH "sha256" … into text; returns it. */
const char *suite_text(const struct suite *s, char *text, size_t size);

/*
 * One packet. Where the IV is implicit, iv has the COUNTER_IV bytes that it would have, from anywhere. For MAC suites aad, iv and ciphertext must be contiguous in memory, as they are in ESP and SK.
 * `tail` are bytes that the MAC covers after the ciphertext but that aren't in the packet (the high half of an extended
 * sequence number, RFC 4303 section 2.2.1); AEADs get it inside aad instead and leave tail_len 0.
 * AES-GMAC leaves the text as it is and takes IV and text for associated data, too (RFC 4543 section 3.3).
 *   seal: reads iv and src, writes dst (len bytes) and icv (suite's icv_len). src may equal dst, otherwise no overlap.
 *   open: reads iv, src and icv; writes dst; sets ok. dst is undefined when !ok, and the caller must not look at it.
 * The ICV is compared in constant time. For MAC suites nothing is decrypted before the ICV was found right.
 * Bytes beyond icv are not touched, but with a tail the ICV must directly follow the ciphertext, and the tail may stand
 * there for a moment, in open as well: what was received is put back.
 */
struct transform_op {
    const uint8_t *aad;
    const uint8_t *iv;
    const uint8_t *src;
    uint8_t *dst;
    uint8_t *icv;
    uint32_t len; /* bytes of text, a multiple of suite.block */
    uint16_t aad_len;
    uint8_t tail_len; /* 0 or 4 */
    uint8_t tail[4];
    bool ok; /* out */
};

enum transform_dir { TRANSFORM_SEAL, TRANSFORM_OPEN };

struct keyed; /* a suite with its keys and its backend */

/*
 * engine: "auto", "ipsec-mb", "sodium", "mbedtls"; NULL: one that takes any aad, as IKE messages have it. key: encr_key_len bytes (cipher key, then salt);
 * integ_key: integ_key_len bytes, empty for AEADs. Keys are copied.
 * Errors: RANGE (key lengths), UNSUPPORTED (that engine lacks the suite), NOMEM, CRYPTO.
 */
MUST_USE enum err keyed_new(struct keyed **out, const struct suite *s, enum transform_dir dir, const char *engine,
                            struct span key, struct span integ_key);
void keyed_free(struct keyed *k); /* wipes; NULL is fine */
const char *keyed_engine(const struct keyed *k);

/*
 * Runs n operations (1..TRANSFORM_BATCH). seal fails as a whole: RANGE (n, a len that isn't whole blocks, a tail with
 * an AEAD, aad too long for that engine's AES-CCM, more than TRANSFORM_MAC_MAX for a MAC, a key for opening), CRYPTO.
 * open reports each op's ok; such a len or aad fails that op alone.
 */
MUST_USE enum err keyed_seal(struct keyed *k, struct transform_op *ops, unsigned n);
void keyed_open(struct keyed *k, struct transform_op *ops, unsigned n);

/* The backends on this machine: i from 0, NULL past the end; and whether one can run a suite. */
const char *engine_name(unsigned i);
bool engine_has(const char *engine, const struct suite *s);
/* The engine "auto" means for this suite here: a fixed ranking by measurement (`adit bench`). NULL: none can. */
const char *engine_for(const struct suite *s);

/* Looks at the CPU once; crypto_init calls it, before any thread. Errors: CRYPTO. */
MUST_USE enum err engines_start(void);

/* For the files that hold a backend. */

#define TRANSFORM_SALT 4 /* room for any suite's */

/* The salt, which stands behind the cipher's key. */
static inline void transform_salt(const struct suite *s, struct span key, uint8_t salt[TRANSFORM_SALT])
{
    if (s->salt_len)
        memcpy(salt, key.data + key.len - s->salt_len, s->salt_len);
}

/*
 * The nonce of a counter mode: salt, then the IV of the packet (RFC 4106 section 4, RFC 7634 section 2). All of the
 * salt's room is copied, as that is one instruction; the IV takes back what is too much.
 */
static inline void transform_nonce(const struct suite *s, const uint8_t salt[TRANSFORM_SALT],
                                   const struct transform_op *op, uint8_t nonce[TRANSFORM_SALT + COUNTER_IV])
{
    memcpy(nonce, salt, TRANSFORM_SALT);
    memcpy(nonce + s->salt_len, op->iv, COUNTER_IV);
}

struct backend {
    const char *name;
    bool ccm_aad_any;                   /* AES-CCM takes an aad of any length, not only of TRANSFORM_CCM_AAD_MAX */
    enum err (*start)(void);            /* from engines_start; NULL when there is nothing to do */
    bool (*has)(const struct suite *s); /* here: the suite is known and the CPU can do it */
    enum err (*key)(void **state, const struct suite *s, enum transform_dir dir, struct span key,
                    struct span integ_key);
    void (*unkey)(void *state, const struct suite *s);
    enum err (*seal)(void *state, const struct suite *s, struct transform_op *ops, unsigned n);
    void (*open)(void *state, const struct suite *s, struct transform_op *ops, unsigned n);
};
extern const struct backend backend_sodium, backend_mbedtls;
extern const struct backend *const backend_ipsec_mb; /* NULL where it was not built in */

#endif
