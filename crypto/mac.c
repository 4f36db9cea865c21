/* By mbedTLS, which has HMAC and AES-CMAC. Of AES-XCBC it has the AES. */
#include "crypto/mac.h"

#include <mbedtls/aes.h>
#include <mbedtls/cmac.h>
#include <mbedtls/md.h>

#include "crypto/secret.h"

#define AES_BLOCK 16
#define AES_BITS 128

struct xcbc {
    mbedtls_aes_context k1;
    uint8_t k2[AES_BLOCK], k3[AES_BLOCK];
    uint8_t chain[AES_BLOCK];
    uint8_t last[AES_BLOCK]; /* kept back: the last block, whole or not, is treated otherwise */
    unsigned last_len;
};

struct mac {
    uint16_t prf;
    union {
        mbedtls_md_context_t hmac;
        mbedtls_cipher_context_t cmac;
        struct xcbc xcbc;
    };
};

static const mbedtls_md_info_t *hash_of(uint16_t prf)
{
    switch (prf) {
    case PRF_HMAC_SHA1:
        return mbedtls_md_info_from_type(MBEDTLS_MD_SHA1);
    case PRF_HMAC_SHA2_256:
        return mbedtls_md_info_from_type(MBEDTLS_MD_SHA256);
    case PRF_HMAC_SHA2_384:
        return mbedtls_md_info_from_type(MBEDTLS_MD_SHA384);
    case PRF_HMAC_SHA2_512:
        return mbedtls_md_info_from_type(MBEDTLS_MD_SHA512);
    default:
        return NULL;
    }
}

/* -- AES-XCBC (RFC 3566 section 4) -- */

static int xcbc_encrypt(struct xcbc *x, uint8_t block[AES_BLOCK])
{
    return mbedtls_aes_crypt_ecb(&x->k1, MBEDTLS_AES_ENCRYPT, block, block);
}

/* Three keys out of one: a block of 01, of 02 and of 03 bytes, each encrypted with it. */
static int xcbc_start(struct xcbc *x, const uint8_t key[AES_BLOCK])
{
    uint8_t k1[AES_BLOCK];
    memset(k1, 1, sizeof k1);
    memset(x->k2, 2, sizeof x->k2);
    memset(x->k3, 3, sizeof x->k3);
    mbedtls_aes_init(&x->k1);
    int failed = mbedtls_aes_setkey_enc(&x->k1, key, AES_BITS);
    failed |= xcbc_encrypt(x, x->k2) | xcbc_encrypt(x, x->k3) | xcbc_encrypt(x, k1);
    if (!failed)
        failed = mbedtls_aes_setkey_enc(&x->k1, k1, AES_BITS);
    secret_wipe(k1, sizeof k1);
    return failed;
}

static void xor_block(uint8_t to[AES_BLOCK], const uint8_t with[AES_BLOCK])
{
    for (unsigned i = 0; i < AES_BLOCK; i++)
        to[i] ^= with[i];
}

static int xcbc_add(struct xcbc *x, struct span part)
{
    int failed = 0;
    while (part.len > 0 && !failed) {
        if (x->last_len == AES_BLOCK) { /* more follows, so this was not the last one */
            xor_block(x->chain, x->last);
            failed = xcbc_encrypt(x, x->chain);
            x->last_len = 0;
        }
        size_t room = AES_BLOCK - x->last_len, take = part.len < room ? part.len : room;
        memcpy(x->last + x->last_len, part.data, take);
        x->last_len += (unsigned)take;
        part = span_of(part.data + take, part.len - take);
    }
    return failed;
}

static int xcbc_finish(struct xcbc *x, uint8_t *out)
{
    const bool whole = x->last_len == AES_BLOCK;
    if (!whole) { /* obligatory padding: one bit, then zeroes */
        memset(x->last + x->last_len, 0, AES_BLOCK - x->last_len);
        x->last[x->last_len] = 0x80;
    }
    xor_block(x->chain, x->last);
    xor_block(x->chain, whole ? x->k2 : x->k3);
    int failed = xcbc_encrypt(x, x->chain);
    memcpy(out, x->chain, AES_BLOCK);
    return failed;
}

/* -- all of them -- */

/*
 * AES takes keys of 16 bytes; others are made so: AES-XCBC's by zeroes, if too short, all else by the MAC itself under a
 * key of zeroes (RFC 4434 section 2, RFC 4615 section 3).
 */
static enum err aes_key(uint16_t prf, struct span key, uint8_t out[AES_BLOCK])
{
    static const uint8_t zero[AES_BLOCK];
    struct mac *m;
    memset(out, 0, AES_BLOCK);
    if (key.len == AES_BLOCK || (prf == PRF_AES128_XCBC && key.len < AES_BLOCK)) {
        if (key.len)
            memcpy(out, key.data, key.len);
        return OK;
    }
    TRY(mac_new(&m, prf, span_of(zero, sizeof zero)));
    enum err e = mac_add(m, key);
    if (e == OK)
        e = mac_finish(m, out);
    mac_free(m);
    return e;
}

static int start(struct mac *m, struct span key)
{
    uint8_t key16[AES_BLOCK];
    int failed;
    if (hash_of(m->prf)) {
        mbedtls_md_init(&m->hmac);
        failed = mbedtls_md_setup(&m->hmac, hash_of(m->prf), 1);
        return failed ? failed : mbedtls_md_hmac_starts(&m->hmac, key.data, key.len);
    }
    failed = aes_key(m->prf, key, key16) != OK;
    if (m->prf == PRF_AES128_XCBC) {
        failed |= xcbc_start(&m->xcbc, key16);
    } else {
        mbedtls_cipher_init(&m->cmac);
        failed |= mbedtls_cipher_setup(&m->cmac, mbedtls_cipher_info_from_type(MBEDTLS_CIPHER_AES_128_ECB));
        if (!failed)
            failed = mbedtls_cipher_cmac_starts(&m->cmac, key16, AES_BITS);
    }
    secret_wipe(key16, sizeof key16);
    return failed;
}

enum err mac_new(struct mac **out, uint16_t prf, struct span key)
{
    if (!hash_of(prf) && prf != PRF_AES128_XCBC && prf != PRF_AES128_CMAC)
        return ERR_UNSUPPORTED;
    struct mac *m = secret_alloc(sizeof *m);
    if (!m)
        return ERR_NOMEM;
    m->prf = prf;
    if (start(m, key) != 0) {
        mac_free(m);
        return ERR_CRYPTO;
    }
    *out = m;
    return OK;
}

void mac_free(struct mac *m)
{
    if (!m)
        return;
    if (hash_of(m->prf))
        mbedtls_md_free(&m->hmac);
    else if (m->prf == PRF_AES128_XCBC)
        mbedtls_aes_free(&m->xcbc.k1);
    else
        mbedtls_cipher_free(&m->cmac);
    secret_free(m);
}

enum err mac_again(struct mac *m)
{
    int failed = 0;
    if (hash_of(m->prf)) {
        failed = mbedtls_md_hmac_reset(&m->hmac);
    } else if (m->prf == PRF_AES128_XCBC) {
        memset(m->xcbc.chain, 0, sizeof m->xcbc.chain);
        m->xcbc.last_len = 0;
    } else {
        failed = mbedtls_cipher_cmac_reset(&m->cmac);
    }
    return failed ? ERR_CRYPTO : OK;
}

enum err mac_add(struct mac *m, struct span part)
{
    int failed;
    if (part.len == 0)
        return OK;
    if (hash_of(m->prf))
        failed = mbedtls_md_hmac_update(&m->hmac, part.data, part.len);
    else if (m->prf == PRF_AES128_XCBC)
        failed = xcbc_add(&m->xcbc, part);
    else
        failed = mbedtls_cipher_cmac_update(&m->cmac, part.data, part.len);
    return failed ? ERR_CRYPTO : OK;
}

enum err mac_finish(struct mac *m, uint8_t *out)
{
    int failed;
    if (hash_of(m->prf))
        failed = mbedtls_md_hmac_finish(&m->hmac, out);
    else if (m->prf == PRF_AES128_XCBC)
        failed = xcbc_finish(&m->xcbc, out);
    else
        failed = mbedtls_cipher_cmac_finish(&m->cmac, out);
    return failed ? ERR_CRYPTO : OK;
}
