/*
 * The fast backend: intel-ipsec-mb. AES-GCM runs packet by packet through functions that touch nothing but the key and
 * the packet. AES-CBC and HMAC are sequential within a packet, so they are run for many packets at once, a lane each.
 * The library's managers that do it (and ChaCha20-Poly1305's jobs) are big, 200 kB, and busy while they run: a thread
 * that uses such a suite has its own, not each SA.
 */
#include <intel-ipsec-mb.h>
#include <pthread.h>
#include <sys/mman.h>

#include "crypto/secret.h"
#include "crypto/transform.h"

#define NONCE_LEN 12
#define WIDE (IMB_FEATURE_AVX512_SKX | IMB_FEATURE_SHANI)
#define NEEDED (IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ) /* without them the library emulates, slowly */

/*
 * SHA-256 for few packets: sixteen lanes of AVX-512 take as long for one packet as for sixteen, the CPU's own SHA-256
 * instructions a fifth of that. From FEW packets on the lanes win.
 */
#define FEW 8

/* Set by mb_start before any thread, only read afterwards. */
static const IMB_MGR *functions; /* those that fit this CPU; NULL: unusable here */
static bool few_differs;         /* there are both such lanes and such instructions */

/* The thread's own managers, wiped and freed at its end. */
static pthread_key_t many_key, few_key;

struct mac_keys {
    IMB_HASH_ALG hash;
    uint8_t ipad[IMB_SHA512_DIGEST_SIZE_IN_BYTES] __attribute__((aligned(16))); /* inner and outer state after the */
    uint8_t opad[IMB_SHA512_DIGEST_SIZE_IN_BYTES] __attribute__((aligned(16))); /* key's block (RFC 2104) */
    uint8_t enc[15 * 16] __attribute__((aligned(16)));
    uint8_t dec[15 * 16] __attribute__((aligned(16)));
};

struct state {
    union {
        struct gcm_key_data gcm;
        uint8_t chacha[32];
        struct mac_keys mac;
    };
    aes_gcm_enc_dec_t gcm_run;
    uint8_t salt[TRANSFORM_SALT];
};

/* -- managers -- */

static void manager_free(void *m)
{
    const size_t size = imb_get_mb_mgr_size();
    secret_wipe(m, size);
    munmap(m, size);
}

/*
 * Its lanes hold states of hashes that began with a key, so it isn't dumped; unlike keys (crypto/secret.h) it outlives
 * a fork, for a child that makes keys of its own.
 */
static IMB_MGR *manager_new(bool few)
{
    const size_t size = imb_get_mb_mgr_size();
    void *room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room == MAP_FAILED)
        return NULL;
    (void)madvise(room, size, MADV_DONTDUMP);
    IMB_MGR *m = imb_set_pointers_mb_mgr(room, 0, 1);
    if (m && few)
        init_mb_mgr_avx2(m);
    else if (m)
        init_mb_mgr_auto(m, NULL);
    if (!m || imb_get_errno(m) != 0) {
        manager_free(room);
        return NULL;
    }
    return m;
}

static IMB_MGR *manager_of_thread(bool few)
{
    const pthread_key_t key = few ? few_key : many_key;
    IMB_MGR *m = pthread_getspecific(key);
    if (!m) {
        m = manager_new(few);
        if (m && pthread_setspecific(key, m) != 0) {
            manager_free(m);
            m = NULL;
        }
    }
    return m;
}

static enum err mb_start(void)
{
    if (functions)
        return OK;
    IMB_MGR *m = manager_new(false);
    if (!m)
        return OK; /* the other backends do without */
    if ((m->features & NEEDED) != NEEDED) {
        manager_free(m);
        return OK;
    }
    if (pthread_key_create(&many_key, manager_free) != 0 || pthread_key_create(&few_key, manager_free) != 0) {
        manager_free(m);
        return ERR_CRYPTO;
    }
    few_differs = (m->features & WIDE) == WIDE;
    functions = m;
    return OK;
}

/* -- keys -- */

static bool mb_has(const struct suite *s)
{
    return functions && s->encr.id != ENCR_NONE;
}

static aes_gcm_enc_dec_t gcm_function(uint16_t key_bits, enum transform_dir dir)
{
    const bool seal = dir == TRANSFORM_SEAL;
    switch (key_bits) {
    case 128:
        return seal ? functions->gcm128_enc : functions->gcm128_dec;
    case 192:
        return seal ? functions->gcm192_enc : functions->gcm192_dec;
    default:
        return seal ? functions->gcm256_enc : functions->gcm256_dec;
    }
}

static void gcm_key(struct gcm_key_data *out, uint16_t key_bits, const uint8_t *key)
{
    switch (key_bits) {
    case 128:
        IMB_AES128_GCM_PRE(functions, key, out);
        break;
    case 192:
        IMB_AES192_GCM_PRE(functions, key, out);
        break;
    default:
        IMB_AES256_GCM_PRE(functions, key, out);
        break;
    }
}

static void cbc_key(struct mac_keys *out, uint16_t key_bits, const uint8_t *key)
{
    switch (key_bits) {
    case 128:
        IMB_AES_KEYEXP_128(functions, key, out->enc, out->dec);
        break;
    case 192:
        IMB_AES_KEYEXP_192(functions, key, out->enc, out->dec);
        break;
    default:
        IMB_AES_KEYEXP_256(functions, key, out->enc, out->dec);
        break;
    }
}

/* HMAC's first blocks are the key xored with 36 36 … and 5c 5c … (RFC 2104); our keys never exceed a block. */
static void hmac_key(struct mac_keys *out, uint16_t integ, struct span key)
{
    hash_one_block_t hash;
    size_t block = IMB_SHA_512_BLOCK_SIZE;
    switch (integ) {
    case INTEG_HMAC_SHA2_256_128:
        out->hash = IMB_AUTH_HMAC_SHA_256;
        hash = functions->sha256_one_block;
        block = IMB_SHA_256_BLOCK_SIZE;
        break;
    case INTEG_HMAC_SHA2_384_192:
        out->hash = IMB_AUTH_HMAC_SHA_384;
        hash = functions->sha384_one_block;
        break;
    default:
        out->hash = IMB_AUTH_HMAC_SHA_512;
        hash = functions->sha512_one_block;
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

static enum err mb_key(void **state, const struct suite *s, enum transform_dir dir, struct span key,
                       struct span integ_key)
{
    struct state *st = secret_alloc(sizeof *st);
    if (!st)
        return ERR_NOMEM;
    transform_salt(s, key, st->salt);
    switch (s->mode) {
    case CIPHER_GCM:
        gcm_key(&st->gcm, s->encr.key_bits, key.data);
        st->gcm_run = gcm_function(s->encr.key_bits, dir);
        break;
    case CIPHER_CHACHA20_POLY1305:
        memcpy(st->chacha, key.data, sizeof st->chacha);
        break;
    case CIPHER_CBC:
        cbc_key(&st->mac, s->encr.key_bits, key.data);
        hmac_key(&st->mac, s->integ.id, integ_key);
        break;
    default:
        hmac_key(&st->mac, s->integ.id, integ_key);
        break;
    }
    *state = st;
    return OK;
}

static void mb_unkey(void *state, const struct suite *s)
{
    (void)s;
    secret_free(state);
}

/* -- AEADs -- */

/* One packet in the direction of the key; tag is what was computed over it. */
static bool gcm_run(const struct state *st, const struct suite *s, const struct transform_op *op, uint8_t *tag)
{
    struct gcm_context_data ctx;
    uint8_t nonce[NONCE_LEN];
    transform_nonce(s, st->salt, op, nonce);
    st->gcm_run(&st->gcm, &ctx, op->dst, op->src, op->len, nonce, op->aad, op->aad_len, tag, s->icv_len);
    return true;
}

/* As a job, which takes two thirds of the time of the library's init, update and finalize functions. */
static bool chacha_run(IMB_MGR *m, const struct state *st, const struct suite *s, const struct transform_op *op,
                       bool seal, uint8_t *tag)
{
    uint8_t nonce[NONCE_LEN];
    transform_nonce(s, st->salt, op, nonce);
    IMB_JOB *job = IMB_GET_NEXT_JOB(m);
    *job = (IMB_JOB){
        .cipher_mode = IMB_CIPHER_CHACHA20_POLY1305,
        .hash_alg = IMB_AUTH_CHACHA20_POLY1305,
        .cipher_direction = seal ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT,
        .chain_order = seal ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER,
        .enc_keys = st->chacha,
        .dec_keys = st->chacha,
        .key_len_in_bytes = sizeof st->chacha,
        .src = op->src,
        .dst = op->dst,
        .iv = nonce,
        .iv_len_in_bytes = sizeof nonce,
        .msg_len_to_cipher_in_bytes = op->len,
        .msg_len_to_hash_in_bytes = op->len,
        .auth_tag_output = tag,
        .auth_tag_output_len_in_bytes = s->icv_len,
        .u.CHACHA20_POLY1305.aad = op->aad,
        .u.CHACHA20_POLY1305.aad_len_in_bytes = op->aad_len,
    };
    job = IMB_SUBMIT_JOB(m); /* such a job needs no others: it is done at once */
    return job && job->status == IMB_STATUS_COMPLETED;
}

static enum err aead_seal(struct state *st, const struct suite *s, struct transform_op *ops, unsigned n)
{
    IMB_MGR *m = st->gcm_run ? NULL : manager_of_thread(false);
    for (unsigned i = 0; i < n; i++)
        if (!(st->gcm_run ? gcm_run(st, s, &ops[i], ops[i].icv) : m && chacha_run(m, st, s, &ops[i], true, ops[i].icv)))
            return ERR_CRYPTO;
    return OK;
}

static void aead_open(struct state *st, const struct suite *s, struct transform_op *ops, unsigned n)
{
    IMB_MGR *m = st->gcm_run ? NULL : manager_of_thread(false);
    for (unsigned i = 0; i < n; i++) {
        struct transform_op *op = &ops[i];
        uint8_t tag[TRANSFORM_ICV_MAX];
        op->ok = (st->gcm_run ? gcm_run(st, s, op, tag) : m && chacha_run(m, st, s, op, false, tag)) &&
                 secret_equal(tag, op->icv, s->icv_len);
    }
}

/* -- ciphers with a MAC -- */

static bool contiguous(const struct suite *s, const struct transform_op *op, const uint8_t *text)
{
    return op->aad + op->aad_len == op->iv && op->iv + s->iv_len == text &&
           (op->tail_len == 0 || text + op->len == op->icv);
}

/* Ciphers all ops of a batch whose `ok` is set. */
static bool cbc_run(IMB_MGR *m, const struct state *st, const struct suite *s, const struct transform_op *ops,
                    unsigned n, bool seal)
{
    IMB_JOB jobs[TRANSFORM_BATCH];
    unsigned used = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct transform_op *op = &ops[i];
        if (!op->ok || op->len == 0)
            continue;
        jobs[used++] = (IMB_JOB){
            .enc_keys = st->mac.enc,
            .dec_keys = st->mac.dec,
            .key_len_in_bytes = s->encr.key_bits / 8u,
            .src = op->src,
            .dst = op->dst,
            .iv = op->iv,
            .iv_len_in_bytes = 16,
            .msg_len_to_cipher_in_bytes = op->len,
        };
    }
    return used == 0 || IMB_SUBMIT_CIPHER_BURST(m, jobs, used, IMB_CIPHER_CBC, seal ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT,
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
static bool hmac_run(IMB_MGR *m, const struct state *st, const struct suite *s, const struct transform_op *ops,
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
            .u.HMAC._hashed_auth_key_xor_ipad = st->mac.ipad,
            .u.HMAC._hashed_auth_key_xor_opad = st->mac.opad,
        };
    }
    bool done = used == 0 || IMB_SUBMIT_HASH_BURST(m, jobs, used, st->mac.hash) == used;
    for (unsigned i = 0; i < n; i++)
        if (ops[i].ok && ops[i].tail_len)
            memcpy(ops[i].icv, kept[i], ops[i].tail_len);
    return done;
}

static IMB_MGR *mac_manager(const struct state *st, unsigned n)
{
    return manager_of_thread(few_differs && n < FEW && st->mac.hash == IMB_AUTH_HMAC_SHA_256);
}

static enum err mac_seal(struct state *st, const struct suite *s, struct transform_op *ops, unsigned n)
{
    uint8_t mac[TRANSFORM_BATCH][TRANSFORM_ICV_MAX];
    IMB_MGR *m = mac_manager(st, n);
    if (!m)
        return ERR_CRYPTO;
    for (unsigned i = 0; i < n; i++) {
        if (!contiguous(s, &ops[i], ops[i].dst))
            return ERR_CRYPTO;
        ops[i].ok = true;
    }
    if (s->mode == CIPHER_NULL)
        null_run(ops, n);
    else if (!cbc_run(m, st, s, ops, n, true))
        return ERR_CRYPTO;
    if (!hmac_run(m, st, s, ops, n, mac))
        return ERR_CRYPTO;
    for (unsigned i = 0; i < n; i++)
        memcpy(ops[i].icv, mac[i], s->icv_len);
    return OK;
}

static void mac_open(struct state *st, const struct suite *s, struct transform_op *ops, unsigned n)
{
    uint8_t mac[TRANSFORM_BATCH][TRANSFORM_ICV_MAX];
    IMB_MGR *m = mac_manager(st, n);
    for (unsigned i = 0; i < n; i++)
        ops[i].ok = m && contiguous(s, &ops[i], ops[i].src);

    bool done = m && hmac_run(m, st, s, ops, n, mac);
    for (unsigned i = 0; i < n; i++)
        ops[i].ok = done && ops[i].ok && secret_equal(mac[i], ops[i].icv, s->icv_len);

    if (s->mode == CIPHER_NULL)
        null_run(ops, n);
    else if (done && !cbc_run(m, st, s, ops, n, false))
        for (unsigned i = 0; i < n; i++)
            ops[i].ok = false;
}

/* -- the backend -- */

static enum err mb_seal(void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    return s->aead ? aead_seal(state, s, ops, n) : mac_seal(state, s, ops, n);
}

static void mb_open(void *state, const struct suite *s, struct transform_op *ops, unsigned n)
{
    if (s->aead)
        aead_open(state, s, ops, n);
    else
        mac_open(state, s, ops, n);
}

static const struct backend ipsec_mb = {
    .name = "ipsec-mb",
    .start = mb_start,
    .has = mb_has,
    .key = mb_key,
    .unkey = mb_unkey,
    .seal = mb_seal,
    .open = mb_open,
};
const struct backend *const backend_ipsec_mb = &ipsec_mb;
