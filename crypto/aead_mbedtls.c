/* Every suite by mbedTLS: not fast, but portable C; what the other backends lack falls to it. */
#include <mbedtls/aes.h>
#include <mbedtls/ccm.h>
#include <mbedtls/chachapoly.h>
#include <mbedtls/gcm.h>

#include "crypto/mac.h"
#include "crypto/prf.h"
#include "crypto/secret.h"
#include "crypto/transform.h"

#define GMAC_ROOM (64 * 1024 + 32) /* the longest IP packet, with what ESP puts before it */

struct state {
    union {
        mbedtls_gcm_context gcm;
        mbedtls_ccm_context ccm;
        mbedtls_chachapoly_context chachapoly;
        mbedtls_aes_context aes;
    };
    struct mac *mac; /* of suites with one */
    uint8_t salt[TRANSFORM_SALT];
};

static bool mbed_has(const struct suite *s)
{
    return s->icv_len != 0;
}

static int key_cipher(struct state *st, const struct suite *s, enum transform_dir dir, struct span key)
{
    switch (s->mode) {
    case CIPHER_GCM:
    case CIPHER_GMAC:
        mbedtls_gcm_init(&st->gcm);
        return mbedtls_gcm_setkey(&st->gcm, MBEDTLS_CIPHER_ID_AES, key.data, s->encr.key_bits);
    case CIPHER_CCM:
        mbedtls_ccm_init(&st->ccm);
        return mbedtls_ccm_setkey(&st->ccm, MBEDTLS_CIPHER_ID_AES, key.data, s->encr.key_bits);
    case CIPHER_CHACHA20_POLY1305:
        mbedtls_chachapoly_init(&st->chachapoly);
        return mbedtls_chachapoly_setkey(&st->chachapoly, key.data);
    case CIPHER_CBC:
        mbedtls_aes_init(&st->aes);
        return dir == TRANSFORM_SEAL ? mbedtls_aes_setkey_enc(&st->aes, key.data, s->encr.key_bits)
                                     : mbedtls_aes_setkey_dec(&st->aes, key.data, s->encr.key_bits);
    case CIPHER_CTR: /* both ways the same */
        mbedtls_aes_init(&st->aes);
        return mbedtls_aes_setkey_enc(&st->aes, key.data, s->encr.key_bits);
    default:
        return 0;
    }
}

static void free_cipher(struct state *st, const struct suite *s)
{
    switch (s->mode) {
    case CIPHER_GCM:
    case CIPHER_GMAC:
        mbedtls_gcm_free(&st->gcm);
        break;
    case CIPHER_CCM:
        mbedtls_ccm_free(&st->ccm);
        break;
    case CIPHER_CHACHA20_POLY1305:
        mbedtls_chachapoly_free(&st->chachapoly);
        break;
    case CIPHER_CBC:
    case CIPHER_CTR:
        mbedtls_aes_free(&st->aes);
        break;
    default:
        break;
    }
}

static void mbed_unkey(void *state, const struct suite *s)
{
    struct state *st = state;
    free_cipher(st, s);
    mac_free(st->mac);
    secret_free(st);
}

static enum err mbed_key(void **state, const struct suite *s, enum transform_dir dir, struct span key,
                         struct span integ_key)
{
    struct state *st = secret_alloc(sizeof *st);
    if (!st)
        return ERR_NOMEM;
    transform_salt(s, key, st->salt);
    enum err e = key_cipher(st, s, dir, key) == 0 ? OK : ERR_CRYPTO;
    if (e == OK && !s->aead)
        e = mac_new(&st->mac, s->mac, integ_key);
    if (e != OK) {
        mbed_unkey(st, s);
        return e;
    }
    *state = st;
    return OK;
}

/*
 * RFC 4543 section 3.3: all of the packet is associated data. The library takes that in one piece only, which a packet
 * with an extended sequence number isn't: so it is put together here.
 */
static int gmac_run(struct state *st, const struct suite *s, const uint8_t *nonce, size_t nonce_len,
                    const struct transform_op *op, uint8_t *tag)
{
    uint8_t room[GMAC_ROOM];
    struct span all = span_of(op->aad, (size_t)op->aad_len + COUNTER_IV + op->len);
    if (op->aad + op->aad_len != op->iv || op->iv + COUNTER_IV != op->src) {
        struct writer w = writer_of(room, sizeof room);
        write_span(&w, span_of(op->aad, op->aad_len));
        write_span(&w, span_of(op->iv, COUNTER_IV));
        write_span(&w, span_of(op->src, op->len));
        if (w.failed)
            return -1;
        all = span_of(room, writer_len(&w));
    }
    return mbedtls_gcm_crypt_and_tag(&st->gcm, MBEDTLS_GCM_ENCRYPT, 0, nonce, nonce_len, all.data, all.len, NULL, NULL,
                                     s->icv_len, tag);
}

static void copy_text(const struct transform_op *op)
{
    if (op->len && op->dst != op->src)
        memcpy(op->dst, op->src, op->len);
}

static int aead_seal(struct state *st, const struct suite *s, struct transform_op *op)
{
    const size_t nonce_len = (size_t)s->salt_len + COUNTER_IV;
    uint8_t nonce[TRANSFORM_SALT + COUNTER_IV];
    transform_nonce(s, st->salt, op, nonce);
    switch (s->mode) {
    case CIPHER_GCM:
        return mbedtls_gcm_crypt_and_tag(&st->gcm, MBEDTLS_GCM_ENCRYPT, op->len, nonce, nonce_len, op->aad, op->aad_len,
                                         op->src, op->dst, s->icv_len, op->icv);
    case CIPHER_GMAC:
        copy_text(op);
        return gmac_run(st, s, nonce, nonce_len, op, op->icv);
    case CIPHER_CCM:
        return mbedtls_ccm_encrypt_and_tag(&st->ccm, op->len, nonce, nonce_len, op->aad, op->aad_len, op->src, op->dst,
                                           op->icv, s->icv_len);
    default:
        return mbedtls_chachapoly_encrypt_and_tag(&st->chachapoly, op->len, nonce, op->aad, op->aad_len, op->src,
                                                  op->dst, op->icv);
    }
}

static int aead_open(struct state *st, const struct suite *s, struct transform_op *op)
{
    const size_t nonce_len = (size_t)s->salt_len + COUNTER_IV;
    uint8_t nonce[TRANSFORM_SALT + COUNTER_IV], tag[TRANSFORM_ICV_MAX];
    transform_nonce(s, st->salt, op, nonce);
    switch (s->mode) {
    case CIPHER_GCM:
        return mbedtls_gcm_auth_decrypt(&st->gcm, op->len, nonce, nonce_len, op->aad, op->aad_len, op->icv, s->icv_len,
                                        op->src, op->dst);
    case CIPHER_GMAC:
        if (gmac_run(st, s, nonce, nonce_len, op, tag) != 0 || !secret_equal(tag, op->icv, s->icv_len))
            return -1;
        copy_text(op);
        return 0;
    case CIPHER_CCM:
        return mbedtls_ccm_auth_decrypt(&st->ccm, op->len, nonce, nonce_len, op->aad, op->aad_len, op->src, op->dst,
                                        op->icv, s->icv_len);
    default:
        return mbedtls_chachapoly_auth_decrypt(&st->chachapoly, op->len, nonce, op->aad, op->aad_len, op->icv, op->src,
                                               op->dst);
    }
}

/* The MAC over aad, IV, ciphertext and tail (RFC 4303 section 3.3.2.1). */
static enum err mac_of(struct state *st, const struct suite *s, const struct transform_op *op, const uint8_t *text,
                       uint8_t *mac)
{
    const struct span parts[] = {
        {op->aad, op->aad_len}, {op->iv, s->iv_len}, {text, op->len}, {op->tail, op->tail_len}};
    TRY(mac_again(st->mac));
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        TRY(mac_add(st->mac, parts[i]));
    return mac_finish(st->mac, mac);
}

/* RFC 3686 section 4: nonce, IV, and a block counter that begins at 1. */
static int ctr_run(struct state *st, const struct suite *s, const struct transform_op *op)
{
    uint8_t counter[16] = {0}, stream[16];
    size_t used = 0;
    transform_nonce(s, st->salt, op, counter);
    counter[15] = 1;
    int failed = mbedtls_aes_crypt_ctr(&st->aes, op->len, &used, counter, stream, op->src, op->dst);
    secret_wipe(stream, sizeof stream);
    return failed;
}

static int cipher_run(struct state *st, const struct suite *s, int mode, const struct transform_op *op)
{
    if (s->mode == CIPHER_NULL) {
        copy_text(op);
        return 0;
    }
    if (s->mode == CIPHER_CTR)
        return ctr_run(st, s, op);
    uint8_t iv[16]; /* the library chains through it */
    memcpy(iv, op->iv, sizeof iv);
    return mbedtls_aes_crypt_cbc(&st->aes, mode, op->len, iv, op->src, op->dst);
}

static int mac_seal(struct state *st, const struct suite *s, struct transform_op *op)
{
    uint8_t mac[PRF_MAX];
    if (cipher_run(st, s, MBEDTLS_AES_ENCRYPT, op) != 0 || mac_of(st, s, op, op->dst, mac) != OK)
        return -1;
    memcpy(op->icv, mac, s->icv_len);
    return 0;
}

static bool mac_open(struct state *st, const struct suite *s, struct transform_op *op)
{
    uint8_t mac[PRF_MAX];
    return mac_of(st, s, op, op->src, mac) == OK && secret_equal(mac, op->icv, s->icv_len) &&
           cipher_run(st, s, MBEDTLS_AES_DECRYPT, op) == 0;
}

static enum err mbed_seal(void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if ((s->aead ? aead_seal : mac_seal)(state, s, &ops[i]) != 0)
            return ERR_CRYPTO;
    return OK;
}

static void mbed_open(void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        ops[i].ok = s->aead ? aead_open(state, s, &ops[i]) == 0 : mac_open(state, s, &ops[i]);
}

const struct backend backend_mbedtls = {
    .name = "mbedtls",
    .ccm_aad_any = true,
    .has = mbed_has,
    .key = mbed_key,
    .unkey = mbed_unkey,
    .seal = mbed_seal,
    .open = mbed_open,
};
