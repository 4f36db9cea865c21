#include "crypto/algorithm.h"

#include <stdio.h>
#include <string.h>

/* A counter mode: a salt of so many bytes follows the key; the IV has 8, on the wire or not (RFC 8750). */
#define COUNTER(how, key_bits, salt, iv) \
    .mode = how, .counter_iv = true, .key_len = (key_bits) / 8 + (salt), .salt_len = salt, .block = 1, iv
#define EXPLICIT .iv_len = COUNTER_IV
#define IMPLICIT .implicit_iv = true
#define AES(num, bits, name) .t = {TRANSFORM_ENCR, num, bits}, .keyword = "aes" #bits name, .aes = true
#define AEAD(icv) .aead = true, .icv_len = icv
#define CBC(bits)                                                                                         \
    {                                                                                                     \
        AES(ENCR_AES_CBC, bits, ""), .mode = CIPHER_CBC, .key_len = (bits) / 8, .iv_len = 16, .block = 16 \
    }
/* RFC 3686: confidentiality alone; what it calls the nonce is the salt. */
#define CTR(bits)                                                              \
    {                                                                          \
        AES(ENCR_AES_CTR, bits, "ctr"), COUNTER(CIPHER_CTR, bits, 4, EXPLICIT) \
    }
/* RFC 4106 */
#define GCM(bits, icv)                                                                               \
    {                                                                                                \
        AES(ENCR_AES_GCM_##icv, bits, "gcm" #icv), COUNTER(CIPHER_GCM, bits, 4, EXPLICIT), AEAD(icv) \
    }
#define GCM_IIV(bits)                                                                                \
    {                                                                                                \
        AES(ENCR_AES_GCM_16_IIV, bits, "gcm16iiv"), COUNTER(CIPHER_GCM, bits, 4, IMPLICIT), AEAD(16) \
    }
/* RFC 4543 section 3: an AEAD that hides nothing. */
#define GMAC(bits)                                                                                    \
    {                                                                                                 \
        AES(ENCR_NULL_AUTH_AES_GMAC, bits, "gmac"), COUNTER(CIPHER_GMAC, bits, 4, EXPLICIT), AEAD(16) \
    }
/* RFC 4309: the salt has 3 bytes. */
#define CCM(bits, icv)                                                                               \
    {                                                                                                \
        AES(ENCR_AES_CCM_##icv, bits, "ccm" #icv), COUNTER(CIPHER_CCM, bits, 3, EXPLICIT), AEAD(icv) \
    }
#define CCM_IIV(bits)                                                                             \
    {                                                                                             \
        AES(ENCR_AES_CCM_8_IIV, bits, "ccm8iiv"), COUNTER(CIPHER_CCM, bits, 3, IMPLICIT), AEAD(8) \
    }
/* RFC 7634: one length of key. */
#define CHACHA(num, name, iv)                                                                                   \
    {                                                                                                           \
        .t = {TRANSFORM_ENCR, num, 0}, .keyword = name, COUNTER(CIPHER_CHACHA20_POLY1305, 256, 4, iv), AEAD(16) \
    }
#define KEYS(row, ...) row(256, __VA_ARGS__), row(192, __VA_ARGS__), row(128, __VA_ARGS__)
/* RFC 4868 section 2.3: the key is as long as the hash, the ICV half of it. */
#define HMAC(num, name, bytes, hmac)                                                                           \
    {                                                                                                          \
        .t = {TRANSFORM_INTEG, num, 0}, .keyword = name, .key_len = bytes, .icv_len = (bytes) / 2, .prf = hmac \
    }
#define AES_MAC(num, name, whole)                                                                                \
    {                                                                                                            \
        .t = {TRANSFORM_INTEG, num, 0}, .keyword = name, .aes = true, .key_len = 16, .icv_len = 12, .prf = whole \
    }
/* RFC 4543 section 4: a MAC with an IV, and a transform for each length of key. */
#define GMAC_AH(bits)                                                                                   \
    {                                                                                                   \
        .t = {TRANSFORM_INTEG, INTEG_AES_##bits##_GMAC, 0}, .keyword = "aes" #bits "gmac", .aes = true, \
        COUNTER(CIPHER_GMAC, bits, 4, EXPLICIT), AEAD(16)                                               \
    }
#define PRF(num, name, bytes)                                                             \
    {                                                                                     \
        .t = {TRANSFORM_PRF, num, 0}, .keyword = name, .key_len = bytes, .out_len = bytes \
    }
#define AES_PRF(num, name)                                                                       \
    {                                                                                            \
        .t = {TRANSFORM_PRF, num, 0}, .keyword = name, .aes = true, .key_len = 16, .out_len = 16 \
    }
#define KE(num, name, bytes)                                           \
    {                                                                  \
        .t = {TRANSFORM_KE, num, 0}, .keyword = name, .out_len = bytes \
    }
#define ESN(num, name)                                \
    {                                                 \
        .t = {TRANSFORM_ESN, num, 0}, .keyword = name \
    }

static const struct algorithm table[] = {
    KEYS(GCM, 16),
    CHACHA(ENCR_CHACHA20_POLY1305, "chacha20poly1305", EXPLICIT),
    KEYS(GCM, 12),
    KEYS(GCM, 8),
    KEYS(CCM, 16),
    KEYS(CCM, 8),
    GCM_IIV(256),
    GCM_IIV(192),
    GCM_IIV(128),
    CHACHA(ENCR_CHACHA20_POLY1305_IIV, "chacha20poly1305iiv", IMPLICIT),
    CCM_IIV(256),
    CCM_IIV(192),
    CCM_IIV(128),
    CBC(256),
    CBC(192),
    CBC(128),
    CTR(256),
    CTR(192),
    CTR(128),
    GMAC(256),
    GMAC(192),
    GMAC(128),
    {.t = {TRANSFORM_ENCR, ENCR_NULL, 0}, .keyword = "null", .block = 1}, /* RFC 2410 */
    HMAC(INTEG_HMAC_SHA2_256_128, "sha256", 32, PRF_HMAC_SHA2_256),
    HMAC(INTEG_HMAC_SHA2_384_192, "sha384", 48, PRF_HMAC_SHA2_384),
    HMAC(INTEG_HMAC_SHA2_512_256, "sha512", 64, PRF_HMAC_SHA2_512),
    AES_MAC(INTEG_AES_XCBC_96, "aesxcbc", PRF_AES128_XCBC), /* RFC 3566 */
    AES_MAC(INTEG_AES_CMAC_96, "aescmac", PRF_AES128_CMAC), /* RFC 4494 */
    /* RFC 2404; RFC 8221 section 6: for old peers; never offered unless it is configured */
    {.t = {TRANSFORM_INTEG, INTEG_HMAC_SHA1_96, 0},
     .keyword = "sha1",
     .key_len = 20,
     .icv_len = 12,
     .prf = PRF_HMAC_SHA1},
    GMAC_AH(256),
    GMAC_AH(192),
    GMAC_AH(128),
    PRF(PRF_HMAC_SHA2_256, "prfsha256", 32),
    PRF(PRF_HMAC_SHA2_384, "prfsha384", 48),
    PRF(PRF_HMAC_SHA2_512, "prfsha512", 64),
    AES_PRF(PRF_AES128_XCBC, "prfaesxcbc"), /* RFC 4434 */
    AES_PRF(PRF_AES128_CMAC, "prfaescmac"), /* RFC 4615 */
    PRF(PRF_HMAC_SHA1, "prfsha1", 20),      /* RFC 8247: for old peers; never offered unless it is configured */
    KE(KE_CURVE25519, "x25519", 32),
    KE(KE_ECP_256, "ecp256", 64),
    KE(KE_ECP_384, "ecp384", 96),
    KE(KE_ECP_521, "ecp521", 132),
    KE(KE_MODP_2048, "modp2048", 256),
    KE(KE_MODP_3072, "modp3072", 384),
    KE(KE_MODP_4096, "modp4096", 512),
    ESN(ESN_YES, "esn"),
    ESN(ESN_NO, "noesn"),
};

static const struct {
    const char *alias, *keyword;
} aliases[] = {
    {"aes", "aes128"},
    {"aes128cbc", "aes128"},
    {"aes192cbc", "aes192"},
    {"aes256cbc", "aes256"},
    {"aes128gcm64", "aes128gcm8"},
    {"aes192gcm64", "aes192gcm8"},
    {"aes256gcm64", "aes256gcm8"},
    {"aes128gcm96", "aes128gcm12"},
    {"aes192gcm96", "aes192gcm12"},
    {"aes256gcm96", "aes256gcm12"},
    {"aes128gcm128", "aes128gcm16"},
    {"aes192gcm128", "aes192gcm16"},
    {"aes256gcm128", "aes256gcm16"},
    {"aes128gcm", "aes128gcm16"},
    {"aes192gcm", "aes192gcm16"},
    {"aes256gcm", "aes256gcm16"},
    {"aes128ccm64", "aes128ccm8"},
    {"aes192ccm64", "aes192ccm8"},
    {"aes256ccm64", "aes256ccm8"},
    {"aes128ccm128", "aes128ccm16"},
    {"aes192ccm128", "aes192ccm16"},
    {"aes256ccm128", "aes256ccm16"},
    {"aes128ccm", "aes128ccm16"},
    {"aes192ccm", "aes192ccm16"},
    {"aes256ccm", "aes256ccm16"},
    {"sha", "sha1"},
    {"sha2_256", "sha256"},
    {"sha2_384", "sha384"},
    {"sha2_512", "sha512"},
    {"prfsha2_256", "prfsha256"},
    {"prfsha2_384", "prfsha384"},
    {"prfsha2_512", "prfsha512"},
    {"curve25519", "x25519"},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

const struct algorithm *algorithm_find(uint8_t type, uint16_t id, uint16_t key_bits)
{
    for (size_t i = 0; i < COUNT(table); i++) {
        const struct transform *t = &table[i].t;
        if (t->type == type && t->id == id && (t->key_bits == 0 || t->key_bits == key_bits))
            return &table[i];
    }
    return NULL;
}

static bool same(const char *word, const char *text, size_t len)
{
    return strlen(word) == len && memcmp(word, text, len) == 0;
}

const struct algorithm *algorithm_by_keyword(const char *keyword, size_t len)
{
    for (size_t i = 0; i < COUNT(aliases); i++)
        if (same(aliases[i].alias, keyword, len)) {
            keyword = aliases[i].keyword;
            len = strlen(keyword);
            break;
        }
    for (size_t i = 0; i < COUNT(table); i++)
        if (same(table[i].keyword, keyword, len))
            return &table[i];
    return NULL;
}

const struct algorithm *algorithm_namesake(const struct algorithm *a, uint8_t type)
{
    for (size_t i = 0; i < COUNT(table); i++)
        if (table[i].t.type == type && strcmp(table[i].keyword, a->keyword) == 0)
            return &table[i];
    return NULL;
}

const struct algorithm *algorithm_at(unsigned i)
{
    return i < COUNT(table) ? &table[i] : NULL;
}

bool algorithm_encrypts_ike(const struct algorithm *a)
{
    return a->t.type == TRANSFORM_ENCR && a->mode != CIPHER_NULL && a->mode != CIPHER_GMAC && !a->implicit_iv;
}

const char *transform_text(const struct transform *t, char *text, size_t size)
{
    static const char *const type_names[] = {"type0", "encr", "prf", "integ", "ke", "esn"};

    const struct algorithm *a = algorithm_find(t->type, t->id, t->key_bits);
    if (a)
        snprintf(text, size, "%s", a->keyword);
    else if (t->type == TRANSFORM_KE && t->id == KE_NONE)
        snprintf(text, size, "modpnone"); /* strongSwan's word for "no key exchange" */
    else if (t->type < COUNT(type_names))
        snprintf(text, size, t->key_bits ? "%s:%u/%u" : "%s:%u", type_names[t->type], t->id, t->key_bits);
    else
        snprintf(text, size, "type%u:%u", t->type, t->id);
    return text;
}
