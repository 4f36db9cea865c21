/*
 * The algorithms that IKEv2 can negotiate and we can run: one table row each, with its IANA number, the keyword of
 * proposal strings (strongSwan's spelling) and the sizes every other room needs. (IANA "IKEv2 Parameters"; RFC 7296
 * section 3.3.2, RFC 8247, RFC 8221.)
 */
#ifndef ADIT_ALGORITHM_H
#define ADIT_ALGORITHM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/err.h"

enum transform_type { TRANSFORM_ENCR = 1, TRANSFORM_PRF = 2, TRANSFORM_INTEG = 3, TRANSFORM_KE = 4, TRANSFORM_ESN = 5 };

enum encr_id {
    ENCR_NONE = 0,
    ENCR_NULL = 11,
    ENCR_AES_CBC = 12,
    ENCR_AES_CTR = 13,
    ENCR_AES_CCM_8 = 14,
    ENCR_AES_CCM_16 = 16,
    ENCR_AES_GCM_8 = 18,
    ENCR_AES_GCM_12 = 19,
    ENCR_AES_GCM_16 = 20,
    ENCR_NULL_AUTH_AES_GMAC = 21,
    ENCR_CHACHA20_POLY1305 = 28,
    ENCR_AES_CCM_8_IIV = 29,
    ENCR_AES_GCM_16_IIV = 30,
    ENCR_CHACHA20_POLY1305_IIV = 31,
};
enum prf_id {
    PRF_HMAC_SHA1 = 2,
    PRF_AES128_XCBC = 4,
    PRF_HMAC_SHA2_256 = 5,
    PRF_HMAC_SHA2_384 = 6,
    PRF_HMAC_SHA2_512 = 7,
    PRF_AES128_CMAC = 8,
};
enum integ_id {
    INTEG_NONE = 0,
    INTEG_HMAC_SHA1_96 = 2,
    INTEG_AES_XCBC_96 = 5,
    INTEG_AES_CMAC_96 = 8,
    INTEG_AES_128_GMAC = 9, /* of AH alone (RFC 4543 section 5.3) */
    INTEG_AES_192_GMAC = 10,
    INTEG_AES_256_GMAC = 11,
    INTEG_HMAC_SHA2_256_128 = 12,
    INTEG_HMAC_SHA2_384_192 = 13,
    INTEG_HMAC_SHA2_512_256 = 14,
};
enum ke_id {
    KE_NONE = 0,
    KE_MODP_2048 = 14,
    KE_MODP_3072 = 15,
    KE_MODP_4096 = 16,
    KE_ECP_256 = 19,
    KE_ECP_384 = 20,
    KE_ECP_521 = 21,
    KE_CURVE25519 = 31,
};
enum esn_id { ESN_NO = 0, ESN_YES = 1 };

/* One negotiated or offered algorithm. key_bits only for ciphers of variable key length (AES), else 0. */
struct transform {
    uint8_t type; /* enum transform_type, or a number we don't know */
    uint16_t id;
    uint16_t key_bits;
};

/* How a cipher works, whatever its number, key length and ICV: what the backends go by. */
enum cipher_mode { CIPHER_NULL, CIPHER_CBC, CIPHER_CTR, CIPHER_GCM, CIPHER_GMAC, CIPHER_CCM, CIPHER_CHACHA20_POLY1305 };

#define COUNTER_IV 8 /* bytes of the IV that follows the salt in the nonce of a counter mode */

struct algorithm {
    struct transform t;
    const char *keyword;   /* "aes256gcm16", "sha256", "prfsha256", "x25519", "esn" … */
    enum cipher_mode mode; /* ENCR, and AES-GMAC as INTEG, which has all that a cipher's row has */
    bool aead;             /* ENCR: authenticates by itself */
    bool counter_iv;       /* ENCR: the IV is a counter that must not repeat (RFC 4106, 7634), not random */
    bool implicit_iv;      /* ENCR: that counter is the sequence number, and not sent again (RFC 8750) */
    bool aes;              /* ENCR, INTEG, PRF: made of AES; its blocks of 128 bits limit what one key may do */
    uint16_t key_len;      /* bytes of key material, the salt of counter modes included */
    uint16_t salt_len;     /* ENCR: trailing bytes of the key material that are the nonce's salt */
    uint16_t iv_len;       /* ENCR: bytes of explicit IV in the packet */
    uint16_t block;        /* ENCR: plaintext with trailer is a multiple of it; ESP pads to at least 4 (RFC 4303 2.4) */
    uint16_t icv_len;      /* INTEG, or ENCR if aead */
    uint16_t prf;          /* INTEG: the PRF that makes the same MAC, whole */
    uint16_t out_len;      /* PRF: output and preferred key length; KE: length of the public value on the wire */
};

/* NULL if we can't run it. key_bits is compared only for algorithms with a variable key length. */
const struct algorithm *algorithm_find(uint8_t type, uint16_t id, uint16_t key_bits);
/* By keyword or alias ("aes128cbc" = aes128, "curve25519" = x25519, "sha2_256" = sha256 …). NULL if none. */
const struct algorithm *algorithm_by_keyword(const char *keyword, size_t len);
/*
 * The algorithm of another type that goes by the same keyword: AES-GMAC is a cipher for ESP and a MAC for AH (RFC 4543
 * section 9). NULL if none.
 */
const struct algorithm *algorithm_namesake(const struct algorithm *a, uint8_t type);
/* Row i of the table, NULL past its end: for tables and spelling hints. */
const struct algorithm *algorithm_at(unsigned i);
/*
 * May this cipher protect an IKE SA? Not if it hides nothing, nor if its nonces come from ESP's sequence numbers (RFC 8750
 * section 7). False for what is no cipher.
 */
bool algorithm_encrypts_ike(const struct algorithm *a);
/* The keyword, or "encr:99" style text (16 bytes of buffer at least) for one we don't know. */
const char *transform_text(const struct transform *t, char *text, size_t size);

#endif
