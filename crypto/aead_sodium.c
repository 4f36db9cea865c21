/* AES-256-GCM (where the CPU has it) and ChaCha20-Poly1305 by libsodium. */
#include <sodium.h>

#include "crypto/secret.h"
#include "crypto/transform.h"

#define NONCE_LEN 12

struct state {
    crypto_aead_aes256gcm_state gcm; /* expanded key; aligned to 16 */
    uint8_t key[crypto_aead_chacha20poly1305_ietf_KEYBYTES];
    uint8_t salt[4];
};

static bool sodium_has(const struct suite *s)
{
    switch (s->encr.id) {
    case ENCR_AES_GCM_16: /* the library has no shorter key */
        return s->encr.key_bits == 256 && crypto_aead_aes256gcm_is_available();
    case ENCR_CHACHA20_POLY1305:
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
    if (s->encr.id == ENCR_AES_GCM_16)
        crypto_aead_aes256gcm_beforenm(&st->gcm, key.data);
    else
        memcpy(st->key, key.data, sizeof st->key);
    memcpy(st->salt, key.data + key.len - sizeof st->salt, sizeof st->salt);
    *state = st;
    return OK;
}

static void sodium_unkey(void *state, const struct suite *s)
{
    (void)s;
    secret_free(state);
}

/* RFC 4106 section 4, RFC 7634 section 2: salt, then the IV of the packet. */
static void nonce_of(const struct state *st, const struct transform_op *op, uint8_t nonce[NONCE_LEN])
{
    memcpy(nonce, st->salt, 4);
    memcpy(nonce + 4, op->iv, 8);
}

static enum err sodium_seal(void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    const struct state *st = state;
    for (unsigned i = 0; i < n; i++) {
        struct transform_op *op = &ops[i];
        uint8_t nonce[NONCE_LEN];
        nonce_of(st, op, nonce);
        int failed = s->encr.id == ENCR_AES_GCM_16
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
        nonce_of(st, op, nonce);
        int failed = s->encr.id == ENCR_AES_GCM_16
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
