/*
 * AEADs by intel-ipsec-mb. AES-GCM runs packet by packet through functions that touch nothing but the key and the packet;
 * AES-CCM, whose MAC is sequential within a packet, for many packets at once.
 */
#include <intel-ipsec-mb.h>

#include "crypto/ipsec_mb.h"
#include "crypto/secret.h"

#define NONCE_ROOM (TRANSFORM_SALT + COUNTER_IV)

struct gcm_functions {
    aes_gcm_enc_dec_t gcm; /* in the direction of the key */
    aes_gmac_init_t gmac_init;
    aes_gmac_update_t gmac_update;
    aes_gmac_finalize_t gmac_finalize;
};

struct state {
    union {
        struct gcm_key_data gcm;
        uint8_t chacha[32];
        struct {
            uint8_t enc[MB_AES_KEY] __attribute__((aligned(16)));
            uint8_t dec[MB_AES_KEY] __attribute__((aligned(16))); /* the library makes both */
        } aes;
    };
    struct gcm_functions run; /* with gcm */
    uint8_t salt[TRANSFORM_SALT];
};

/* -- keys -- */

bool mb_aead_has(const struct suite *s)
{
    return s->mode != CIPHER_CCM || s->encr.key_bits != 192; /* its one gap */
}

#define GCM_FUNCTIONS(f, bits, seal)                                                                            \
    (struct gcm_functions)                                                                                      \
    {                                                                                                           \
        (seal) ? (f)->gcm##bits##_enc : (f)->gcm##bits##_dec, (f)->gmac##bits##_init, (f)->gmac##bits##_update, \
            (f)->gmac##bits##_finalize                                                                          \
    }

static void gcm_key(struct state *st, uint16_t key_bits, bool seal, const uint8_t *key)
{
    const IMB_MGR *f = mb_functions();
    switch (key_bits) {
    case 128:
        IMB_AES128_GCM_PRE(f, key, &st->gcm);
        st->run = GCM_FUNCTIONS(f, 128, seal);
        break;
    case 192:
        IMB_AES192_GCM_PRE(f, key, &st->gcm);
        st->run = GCM_FUNCTIONS(f, 192, seal);
        break;
    default:
        IMB_AES256_GCM_PRE(f, key, &st->gcm);
        st->run = GCM_FUNCTIONS(f, 256, seal);
        break;
    }
}

enum err mb_aead_key(void **state, const struct suite *s, enum transform_dir dir, struct span key)
{
    struct state *st = secret_alloc(sizeof *st);
    if (!st)
        return ERR_NOMEM;
    transform_salt(s, key, st->salt);
    switch (s->mode) {
    case CIPHER_GCM:
    case CIPHER_GMAC:
        gcm_key(st, s->encr.key_bits, dir == TRANSFORM_SEAL, key.data);
        break;
    case CIPHER_CCM:
        mb_aes_key(s->encr.key_bits, key.data, st->aes.enc, st->aes.dec);
        break;
    default:
        memcpy(st->chacha, key.data, sizeof st->chacha);
        break;
    }
    *state = st;
    return OK;
}

/* -- packets -- */

/* Where the tags of a batch go: into the packets that are sealed, beside those that are opened. */
struct tags {
    bool seal;
    uint8_t opened[TRANSFORM_BATCH][TRANSFORM_ICV_MAX];
};

static uint8_t *tag_of(struct tags *t, const struct transform_op *ops, unsigned i)
{
    return t->seal ? ops[i].icv : t->opened[i];
}

static bool gcm_run(const struct state *st, const struct suite *s, const struct transform_op *ops, unsigned n,
                    struct tags *tags)
{
    for (unsigned i = 0; i < n; i++) {
        const struct transform_op *op = &ops[i];
        struct gcm_context_data ctx;
        uint8_t nonce[NONCE_ROOM];
        transform_nonce(s, st->salt, op, nonce);
        st->run.gcm(&st->gcm, &ctx, op->dst, op->src, op->len, nonce, op->aad, op->aad_len, tag_of(tags, ops, i),
                    s->icv_len);
    }
    return true;
}

/* RFC 4543 section 3.3: all of the packet is associated data. In three parts, as a long sequence number is elsewhere. */
static bool gmac_run(const struct state *st, const struct suite *s, const struct transform_op *ops, unsigned n,
                     struct tags *tags)
{
    for (unsigned i = 0; i < n; i++) {
        const struct transform_op *op = &ops[i];
        struct gcm_context_data ctx;
        uint8_t nonce[NONCE_ROOM];
        transform_nonce(s, st->salt, op, nonce);
        st->run.gmac_init(&st->gcm, &ctx, nonce, sizeof nonce);
        st->run.gmac_update(&st->gcm, &ctx, op->aad, op->aad_len);
        st->run.gmac_update(&st->gcm, &ctx, op->iv, COUNTER_IV);
        st->run.gmac_update(&st->gcm, &ctx, op->src, op->len);
        st->run.gmac_finalize(&st->gcm, &ctx, tag_of(tags, ops, i), s->icv_len);
        if (op->len && op->dst != op->src)
            memcpy(op->dst, op->src, op->len);
    }
    return true;
}

/* As jobs, which take two thirds of the time of the library's init, update and finalize functions. */
static bool chacha_run(const struct state *st, const struct suite *s, const struct transform_op *ops, unsigned n,
                       struct tags *tags)
{
    IMB_MGR *m = mb_manager(false);
    for (unsigned i = 0; m && i < n; i++) {
        const struct transform_op *op = &ops[i];
        uint8_t nonce[NONCE_ROOM];
        transform_nonce(s, st->salt, op, nonce);
        const IMB_JOB job = {
            .cipher_mode = IMB_CIPHER_CHACHA20_POLY1305,
            .hash_alg = IMB_AUTH_CHACHA20_POLY1305,
            .cipher_direction = tags->seal ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT,
            .chain_order = tags->seal ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER,
            .enc_keys = st->chacha,
            .dec_keys = st->chacha,
            .key_len_in_bytes = sizeof st->chacha,
            .src = op->src,
            .dst = op->dst,
            .iv = nonce,
            .iv_len_in_bytes = sizeof nonce,
            .msg_len_to_cipher_in_bytes = op->len,
            .msg_len_to_hash_in_bytes = op->len,
            .auth_tag_output = tag_of(tags, ops, i),
            .auth_tag_output_len_in_bytes = s->icv_len,
            .u.CHACHA20_POLY1305.aad = op->aad,
            .u.CHACHA20_POLY1305.aad_len_in_bytes = op->aad_len,
        };
        if (!mb_run(m, &job, 1))
            return false;
    }
    return m != NULL;
}

/* The MAC is of the plain text, hence the order. */
static bool ccm_run(const struct state *st, const struct suite *s, const struct transform_op *ops, unsigned n,
                    struct tags *tags)
{
    IMB_MGR *m = mb_manager(false);
    IMB_JOB jobs[TRANSFORM_BATCH];
    uint8_t nonce[TRANSFORM_BATCH][NONCE_ROOM];
    for (unsigned i = 0; i < n; i++) {
        const struct transform_op *op = &ops[i];
        transform_nonce(s, st->salt, op, nonce[i]);
        jobs[i] = (IMB_JOB){
            .cipher_mode = IMB_CIPHER_CCM,
            .hash_alg = IMB_AUTH_AES_CCM,
            .cipher_direction = tags->seal ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT,
            .chain_order = tags->seal ? IMB_ORDER_HASH_CIPHER : IMB_ORDER_CIPHER_HASH,
            .enc_keys = st->aes.enc,
            .dec_keys = st->aes.dec,
            .key_len_in_bytes = s->encr.key_bits / 8u,
            .src = op->src,
            .dst = op->dst,
            .iv = nonce[i],
            .iv_len_in_bytes = s->salt_len + COUNTER_IV,
            .msg_len_to_cipher_in_bytes = op->len,
            .msg_len_to_hash_in_bytes = op->len,
            .auth_tag_output = tag_of(tags, ops, i),
            .auth_tag_output_len_in_bytes = s->icv_len,
            .u.CCM.aad = op->aad,
            .u.CCM.aad_len_in_bytes = op->aad_len,
        };
    }
    return m && mb_run(m, jobs, n);
}

static bool aead_run(const struct state *st, const struct suite *s, const struct transform_op *ops, unsigned n,
                     struct tags *tags)
{
    switch (s->mode) {
    case CIPHER_GCM:
        return gcm_run(st, s, ops, n, tags);
    case CIPHER_GMAC:
        return gmac_run(st, s, ops, n, tags);
    case CIPHER_CCM:
        return ccm_run(st, s, ops, n, tags);
    default:
        return chacha_run(st, s, ops, n, tags);
    }
}

enum err mb_aead_seal(const void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    struct tags tags;
    tags.seal = true;
    return aead_run(state, s, ops, n, &tags) ? OK : ERR_CRYPTO;
}

void mb_aead_open(const void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    struct tags tags;
    tags.seal = false;
    const bool done = aead_run(state, s, ops, n, &tags);
    for (unsigned i = 0; i < n; i++)
        ops[i].ok = done && secret_equal(tags.opened[i], ops[i].icv, s->icv_len);
}
