/*
 * Ciphers with a MAC by intel-ipsec-mb. AES-CBC and HMAC are sequential within a packet, so they are run for many packets
 * at once, a lane each.
 */
#include <intel-ipsec-mb.h>

#include "crypto/ipsec_mb.h"
#include "crypto/secret.h"

/*
 * SHA-256 for few packets: sixteen lanes of AVX-512 take as long for one packet as for sixteen, the CPU's own SHA-256
 * instructions a fifth of that. From FEW packets on the lanes win.
 */
#define FEW 8

#define NONCE_ROOM (TRANSFORM_SALT + COUNTER_IV)

struct mac_keys {
    IMB_HASH_ALG hash;
    uint8_t ipad[IMB_SHA512_DIGEST_SIZE_IN_BYTES] __attribute__((aligned(16))); /* inner and outer state after the */
    uint8_t opad[IMB_SHA512_DIGEST_SIZE_IN_BYTES] __attribute__((aligned(16))); /* key's block (RFC 2104) */
    uint8_t enc[MB_AES_KEY] __attribute__((aligned(16)));
    uint8_t dec[MB_AES_KEY] __attribute__((aligned(16)));
    uint8_t salt[TRANSFORM_SALT];
};

/* -- keys -- */

bool mb_mac_has(const struct suite *s)
{
    return s->mode == CIPHER_CBC || s->mode == CIPHER_CTR || s->mode == CIPHER_NULL;
}

/* HMAC's first blocks are the key xored with 36 36 … and 5c 5c … (RFC 2104); our keys never exceed a block. */
static void hmac_key(struct mac_keys *out, uint16_t integ, struct span key)
{
    const IMB_MGR *f = mb_functions();
    hash_one_block_t hash;
    size_t block = IMB_SHA_512_BLOCK_SIZE;
    switch (integ) {
    case INTEG_HMAC_SHA2_256_128:
        out->hash = IMB_AUTH_HMAC_SHA_256;
        hash = f->sha256_one_block;
        block = IMB_SHA_256_BLOCK_SIZE;
        break;
    case INTEG_HMAC_SHA2_384_192:
        out->hash = IMB_AUTH_HMAC_SHA_384;
        hash = f->sha384_one_block;
        break;
    default:
        out->hash = IMB_AUTH_HMAC_SHA_512;
        hash = f->sha512_one_block;
        break;
    }
    uint8_t inner[IMB_SHA_512_BLOCK_SIZE], outer[IMB_SHA_512_BLOCK_SIZE];
    for (size_t i = 0; i < block; i++) {
        uint8_t k = i < key.len ? key.data[i] : 0;
        inner[i] = k ^ 0x36;
        outer[i] = k ^ 0x5c;
    }
    hash(inner, out->ipad);
    hash(outer, out->opad);
    secret_wipe(inner, sizeof inner);
    secret_wipe(outer, sizeof outer);
}

enum err mb_mac_key(void **state, const struct suite *s, struct span key, struct span integ_key)
{
    struct mac_keys *k = secret_alloc(sizeof *k);
    if (!k)
        return ERR_NOMEM;
    transform_salt(s, key, k->salt);
    if (s->mode != CIPHER_NULL)
        mb_aes_key(s->encr.key_bits, key.data, k->enc, k->dec);
    hmac_key(k, s->integ.id, integ_key);
    *state = k;
    return OK;
}

/* -- packets -- */

static bool contiguous(const struct suite *s, const struct transform_op *op, const uint8_t *text)
{
    return op->aad + op->aad_len == op->iv && op->iv + s->iv_len == text &&
           (op->tail_len == 0 || text + op->len == op->icv);
}

/* Ciphers all ops of a batch whose `ok` is set. */
static bool cipher_run(IMB_MGR *m, const struct mac_keys *k, const struct suite *s, const struct transform_op *ops,
                       unsigned n, bool seal)
{
    IMB_JOB jobs[TRANSFORM_BATCH];
    uint8_t nonce[TRANSFORM_BATCH][NONCE_ROOM];
    const bool ctr = s->mode == CIPHER_CTR;
    unsigned used = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct transform_op *op = &ops[i];
        if (!op->ok || op->len == 0)
            continue;
        if (ctr) /* to which the library adds a block counter that begins at 1, as RFC 3686 section 4 does */
            transform_nonce(s, k->salt, op, nonce[i]);
        jobs[used++] = (IMB_JOB){
            .enc_keys = k->enc,
            .dec_keys = k->dec,
            .key_len_in_bytes = s->encr.key_bits / 8u,
            .src = op->src,
            .dst = op->dst,
            .iv = ctr ? nonce[i] : op->iv,
            .iv_len_in_bytes = ctr ? NONCE_ROOM : s->iv_len,
            .msg_len_to_cipher_in_bytes = op->len,
        };
    }
    return used == 0 || IMB_SUBMIT_CIPHER_BURST(m, jobs, used, ctr ? IMB_CIPHER_CNTR : IMB_CIPHER_CBC,
                                                seal ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT,
                                                (IMB_KEY_SIZE_BYTES)(s->encr.key_bits / 8)) == used;
}

static void null_run(const struct transform_op *ops, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (ops[i].ok && ops[i].len && ops[i].dst != ops[i].src)
            memcpy(ops[i].dst, ops[i].src, ops[i].len);
}

/*
 * The MACs of all ops whose `ok` is set, over aad, IV, ciphertext and tail (RFC 4303 section 3.3.2.1). The library
 * takes only contiguous bytes, so the tail stands in for the first bytes of the ICV while it runs.
 */
static bool hmac_run(IMB_MGR *m, const struct mac_keys *k, const struct suite *s, const struct transform_op *ops,
                     unsigned n, uint8_t mac[][TRANSFORM_ICV_MAX])
{
    IMB_JOB jobs[TRANSFORM_BATCH];
    uint8_t kept[TRANSFORM_BATCH][sizeof ops->tail];
    unsigned used = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct transform_op *op = &ops[i];
        if (!op->ok)
            continue;
        if (op->tail_len) {
            memcpy(kept[i], op->icv, op->tail_len);
            memcpy(op->icv, op->tail, op->tail_len);
        }
        jobs[used++] = (IMB_JOB){
            .src = op->aad,
            .msg_len_to_hash_in_bytes = (uint64_t)op->aad_len + s->iv_len + op->len + op->tail_len,
            .auth_tag_output = mac[i],
            .auth_tag_output_len_in_bytes = s->icv_len,
            .u.HMAC._hashed_auth_key_xor_ipad = k->ipad,
            .u.HMAC._hashed_auth_key_xor_opad = k->opad,
        };
    }
    bool done = used == 0 || IMB_SUBMIT_HASH_BURST(m, jobs, used, k->hash) == used;
    for (unsigned i = 0; i < n; i++)
        if (ops[i].ok && ops[i].tail_len)
            memcpy(ops[i].icv, kept[i], ops[i].tail_len);
    return done;
}

static IMB_MGR *mac_manager(const struct mac_keys *k, unsigned n)
{
    return mb_manager(mb_few_differs() && n < FEW && k->hash == IMB_AUTH_HMAC_SHA_256);
}

enum err mb_mac_seal(const void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    const struct mac_keys *k = state;
    uint8_t mac[TRANSFORM_BATCH][TRANSFORM_ICV_MAX];
    IMB_MGR *m = mac_manager(k, n);
    if (!m)
        return ERR_CRYPTO;
    for (unsigned i = 0; i < n; i++) {
        if (!contiguous(s, &ops[i], ops[i].dst))
            return ERR_CRYPTO;
        ops[i].ok = true;
    }
    if (s->mode == CIPHER_NULL)
        null_run(ops, n);
    else if (!cipher_run(m, k, s, ops, n, true))
        return ERR_CRYPTO;
    if (!hmac_run(m, k, s, ops, n, mac))
        return ERR_CRYPTO;
    for (unsigned i = 0; i < n; i++)
        memcpy(ops[i].icv, mac[i], s->icv_len);
    return OK;
}

void mb_mac_open(const void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    const struct mac_keys *k = state;
    uint8_t mac[TRANSFORM_BATCH][TRANSFORM_ICV_MAX];
    IMB_MGR *m = mac_manager(k, n);
    for (unsigned i = 0; i < n; i++)
        ops[i].ok = m && contiguous(s, &ops[i], ops[i].src);

    bool done = m && hmac_run(m, k, s, ops, n, mac);
    for (unsigned i = 0; i < n; i++)
        ops[i].ok = done && ops[i].ok && secret_equal(mac[i], ops[i].icv, s->icv_len);

    if (s->mode == CIPHER_NULL)
        null_run(ops, n);
    else if (done && !cipher_run(m, k, s, ops, n, false))
        for (unsigned i = 0; i < n; i++)
            ops[i].ok = false;
}
