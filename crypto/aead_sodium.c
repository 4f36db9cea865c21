/* AES-256-GCM (where the CPU has it) and ChaCha20-Poly1305 by libsodium. */
#include <sodium.h>

#include "crypto/secret.h"
#include "crypto/transform.h"

#define NONCE_LEN 12
#define ICV_LEN 16

struct state {
    crypto_aead_aes256gcm_state gcm; /* expanded key; aligned to 16 */
    uint8_t key[crypto_aead_chacha20poly1305_ietf_KEYBYTES];
    uint8_t salt[TRANSFORM_SALT];
};

static bool sodium_has(const struct suite *s)
{
    switch (s->mode) {
    case CIPHER_GCM: /* the library has no shorter key and checks no shorter ICV */
        return s->encr.key_bits == 256 && s->icv_len == ICV_LEN && crypto_aead_aes256gcm_is_available();
    case CIPHER_CHACHA20_POLY1305:
        return true;
    default:
        return false;
    }
}

static enum err sodium_key(void **state, const struct suite *s, enum transform_dir dir, struct span key,
                           struct span integ_key)
{
    (void)dir;
    (void)integ_key;
    struct state *st = secret_alloc(sizeof *st);
    if (!st)
        return ERR_NOMEM;
    if (s->mode == CIPHER_GCM)
        crypto_aead_aes256gcm_beforenm(&st->gcm, key.data);
    else
        memcpy(st->key, key.data, sizeof st->key);
    transform_salt(s, key, st->salt);
    *state = st;
    return OK;
}

static void sodium_unkey(void *state, const struct suite *s)
{
    (void)s;
    secret_free(state);
}

static enum err sodium_seal(void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    const struct state *st = state;
    for (unsigned i = 0; i < n; i++) {
        struct transform_op *op = &ops[i];
        uint8_t nonce[NONCE_LEN];
        transform_nonce(s, st->salt, op, nonce);
        int failed = s->mode == CIPHER_GCM
                         ? crypto_aead_aes256gcm_encrypt_detached_afternm(op->dst, op->icv, NULL, op->src, op->len,
                                                                          op->aad, op->aad_len, NULL, nonce, &st->gcm)
                         : crypto_aead_chacha20poly1305_ietf_encrypt_detached(
                               op->dst, op->icv, NULL, op->src, op->len, op->aad, op->aad_len, NULL, nonce, st->key);
        if (failed)
            return ERR_CRYPTO;
    }
    return OK;
}

static void sodium_open(void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    const struct state *st = state;
    for (unsigned i = 0; i < n; i++) {
        struct transform_op *op = &ops[i];
        uint8_t nonce[NONCE_LEN];
        transform_nonce(s, st->salt, op, nonce);
        int failed = s->mode == CIPHER_GCM
                         ? crypto_aead_aes256gcm_decrypt_detached_afternm(op->dst, NULL, op->src, op->len, op->icv,
                                                                          op->aad, op->aad_len, nonce, &st->gcm)
                         : crypto_aead_chacha20poly1305_ietf_decrypt_detached(op->dst, NULL, op->src, op->len, op->icv,
                                                                              op->aad, op->aad_len, nonce, st->key);
        op->ok = !failed;
    }
}

const struct backend backend_sodium = {
    .name = "sodium",
    .has = sodium_has,
    .key = sodium_key,
    .unkey = sodium_unkey,
    .seal = sodium_seal,
    .open = sodium_open,
};
