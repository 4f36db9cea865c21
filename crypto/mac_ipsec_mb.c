/*
 * Ciphers with a MAC by intel-ipsec-mb. AES-CBC and HMAC are sequential within a packet, so they are run for many packets
 * at once, a lane each.
 */
#include <intel-ipsec-mb.h>

#include "crypto/ipsec_mb.h"
#include "crypto/secret.h"

/*
 * SHA-1 and SHA-256 for few packets: sixteen lanes of AVX-512 take as long for one packet as for sixteen, the CPU's own
 * instructions for these hashes a fifth of that. From FEW packets on the lanes win.
 */
#define FEW 8

#define NONCE_ROOM (TRANSFORM_SALT + COUNTER_IV)

struct mac_keys {
    IMB_HASH_ALG hash;
    union {
        struct { /* inner and outer state after the key's block (RFC 2104) */
            uint8_t ipad[IMB_SHA512_DIGEST_SIZE_IN_BYTES] __attribute__((aligned(16)));
            uint8_t opad[IMB_SHA512_DIGEST_SIZE_IN_BYTES] __attribute__((aligned(16)));
        } hmac;
        struct { /* AES-XCBC's three keys; AES-CMAC's key and what the last block is xored with */
            uint8_t k1[MB_AES_KEY] __attribute__((aligned(16)));
            uint8_t k2[16] __attribute__((aligned(16)));
            uint8_t k3[16] __attribute__((aligned(16)));
        } aes;
    };
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
static void hmac_key(struct mac_keys *out, uint16_t prf, struct span key)
{
    const IMB_MGR *f = mb_functions();
    hash_one_block_t hash;
    size_t block = IMB_SHA_512_BLOCK_SIZE;
    switch (prf) {
    case PRF_HMAC_SHA1:
        out->hash = IMB_AUTH_HMAC_SHA_1;
        hash = f->sha1_one_block;
        block = IMB_SHA1_BLOCK_SIZE;
        break;
    case PRF_HMAC_SHA2_256:
        out->hash = IMB_AUTH_HMAC_SHA_256;
        hash = f->sha256_one_block;
        block = IMB_SHA_256_BLOCK_SIZE;
        break;
    case PRF_HMAC_SHA2_384:
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
    hash(inner, out->hmac.ipad);
    hash(outer, out->hmac.opad);
    secret_wipe(inner, sizeof inner);
    secret_wipe(outer, sizeof outer);
}

static void integ_key_of(struct mac_keys *out, uint16_t prf, struct span key)
{
    const IMB_MGR *f = mb_functions();
    uint8_t unused[MB_AES_KEY] __attribute__((aligned(16)));
    switch (prf) {
    case PRF_AES128_XCBC:
        out->hash = IMB_AUTH_AES_XCBC;
        IMB_AES_XCBC_KEYEXP(f, key.data, out->aes.k1, out->aes.k2, out->aes.k3);
        break;
    case PRF_AES128_CMAC:
        out->hash = IMB_AUTH_AES_CMAC;
        mb_aes_key(128, key.data, out->aes.k1, unused);
        IMB_AES_CMAC_SUBKEY_GEN_128(f, out->aes.k1, out->aes.k2, out->aes.k3);
        secret_wipe(unused, sizeof unused);
        break;
    default:
        hmac_key(out, prf, key);
        break;
    }
}

enum err mb_mac_key(void **state, const struct suite *s, struct span key, struct span integ_key)
{
    struct mac_keys *k = secret_alloc(sizeof *k);
    if (!k)
        return ERR_NOMEM;
    transform_salt(s, key, k->salt);
    if (s->mode != CIPHER_NULL)
        mb_aes_key(s->encr.key_bits, key.data, k->enc, k->dec);
    integ_key_of(k, s->mac, integ_key);
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

static void mac_keys_of(const struct mac_keys *k, IMB_JOB *job)
{
    switch (k->hash) {
    case IMB_AUTH_AES_XCBC:
        job->u.XCBC._k1_expanded = (const uint32_t *)(const void *)k->aes.k1;
        job->u.XCBC._k2 = k->aes.k2;
        job->u.XCBC._k3 = k->aes.k3;
        break;
    case IMB_AUTH_AES_CMAC:
        job->u.CMAC._key_expanded = k->aes.k1;
        job->u.CMAC._skey1 = k->aes.k2;
        job->u.CMAC._skey2 = k->aes.k3;
        break;
    default:
        job->u.HMAC._hashed_auth_key_xor_ipad = k->hmac.ipad;
        job->u.HMAC._hashed_auth_key_xor_opad = k->hmac.opad;
        break;
    }
}

/* Bursts, which skip the library's queue, are for HMAC only. */
static bool mac_jobs(IMB_MGR *m, const struct mac_keys *k, IMB_JOB *jobs, unsigned n)
{
    if (k->hash == IMB_AUTH_AES_XCBC || k->hash == IMB_AUTH_AES_CMAC)
        return mb_run(m, jobs, n);
    return IMB_SUBMIT_HASH_BURST(m, jobs, n, k->hash) == n;
}

/*
 * The MACs of all ops whose `ok` is set, over aad, IV, ciphertext and tail (RFC 4303 section 3.3.2.1). The library
 * takes only contiguous bytes, so the tail stands in for the first bytes of the ICV while it runs.
 */
static bool mac_run(IMB_MGR *m, const struct mac_keys *k, const struct suite *s, const struct transform_op *ops,
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
        jobs[used] = (IMB_JOB){
            .cipher_mode = IMB_CIPHER_NULL,
            .cipher_direction = IMB_DIR_ENCRYPT,
            .chain_order = IMB_ORDER_CIPHER_HASH,
            .hash_alg = k->hash,
            .src = op->aad,
            .msg_len_to_hash_in_bytes = (uint64_t)op->aad_len + s->iv_len + op->len + op->tail_len,
            .auth_tag_output = mac[i],
            .auth_tag_output_len_in_bytes = s->icv_len,
        };
        mac_keys_of(k, &jobs[used++]);
    }
    bool done = used == 0 || mac_jobs(m, k, jobs, used);
    for (unsigned i = 0; i < n; i++)
        if (ops[i].ok && ops[i].tail_len)
            memcpy(ops[i].icv, kept[i], ops[i].tail_len);
    return done;
}

static IMB_MGR *mac_manager(const struct mac_keys *k, unsigned n)
{
    return mb_manager(mb_few_differs() && n < FEW &&
                      (k->hash == IMB_AUTH_HMAC_SHA_256 || k->hash == IMB_AUTH_HMAC_SHA_1));
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
    if (!mac_run(m, k, s, ops, n, mac))
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

    bool done = m && mac_run(m, k, s, ops, n, mac);
    for (unsigned i = 0; i < n; i++)
        ops[i].ok = done && ops[i].ok && secret_equal(mac[i], ops[i].icv, s->icv_len);

    if (s->mode == CIPHER_NULL)
        null_run(ops, n);
    else if (done && !cipher_run(m, k, s, ops, n, false))
        for (unsigned i = 0; i < n; i++)
            ops[i].ok = false;
}
