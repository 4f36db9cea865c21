#include "crypto/prf.h"

#include <mbedtls/md.h>

#include "crypto/secret.h"

static const mbedtls_md_info_t *hash_of(uint16_t id)
{
    switch (id) {
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

unsigned prf_len(uint16_t id)
{
    const struct algorithm *a = algorithm_find(TRANSFORM_PRF, id, 0);
    return a ? a->out_len : 0;
}

/* An HMAC context with its key: prf+ runs it once a round without hashing the key again. */
static enum err start(mbedtls_md_context_t *ctx, uint16_t id, struct span key)
{
    const mbedtls_md_info_t *info = hash_of(id);
    mbedtls_md_init(ctx);
    if (!info)
        return ERR_UNSUPPORTED;
    if (mbedtls_md_setup(ctx, info, 1) != 0 || mbedtls_md_hmac_starts(ctx, key.data, key.len) != 0)
        return ERR_CRYPTO;
    return OK;
}

static enum err add(mbedtls_md_context_t *ctx, const struct span *parts, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (parts[i].len && mbedtls_md_hmac_update(ctx, parts[i].data, parts[i].len) != 0)
            return ERR_CRYPTO;
    return OK;
}

static enum err prf_run(mbedtls_md_context_t *ctx, uint16_t id, struct span key, const struct span *parts, unsigned n,
                        uint8_t *out)
{
    TRY(start(ctx, id, key));
    TRY(add(ctx, parts, n));
    return mbedtls_md_hmac_finish(ctx, out) == 0 ? OK : ERR_CRYPTO;
}

enum err prf(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out)
{
    mbedtls_md_context_t ctx;
    enum err e = prf_run(&ctx, id, key, parts, n, out);
    mbedtls_md_free(&ctx);
    return e;
}

/* T1 = prf(K, S | 1), Tn = prf(K, Tn-1 | S | n) (RFC 7296 section 2.13). */
static enum err plus_run(mbedtls_md_context_t *ctx, const struct span *parts, unsigned n, unsigned hash_len,
                         uint8_t block[PRF_MAX], uint8_t *out, size_t out_len)
{
    for (unsigned round = 1; out_len; round++) {
        const uint8_t number = (uint8_t)round;
        const struct span previous = {block, round == 1 ? 0 : hash_len}, last = {&number, 1};
        if (mbedtls_md_hmac_reset(ctx) != 0)
            return ERR_CRYPTO;
        TRY(add(ctx, &previous, 1));
        TRY(add(ctx, parts, n));
        TRY(add(ctx, &last, 1));
        if (mbedtls_md_hmac_finish(ctx, block) != 0)
            return ERR_CRYPTO;
        size_t take = out_len < hash_len ? out_len : hash_len;
        memcpy(out, block, take);
        out += take;
        out_len -= take;
    }
    return OK;
}

enum err prf_plus(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out, size_t out_len)
{
    const unsigned hash_len = prf_len(id);
    if (!hash_len)
        return ERR_UNSUPPORTED;
    if (out_len > (size_t)255 * hash_len)
        return ERR_RANGE;

    mbedtls_md_context_t ctx;
    uint8_t block[PRF_MAX] = {0};
    enum err e = start(&ctx, id, key);
    if (e == OK)
        e = plus_run(&ctx, parts, n, hash_len, block, out, out_len);
    mbedtls_md_free(&ctx);
    secret_wipe(block, sizeof block);
    return e;
}

void sha1(struct span data, uint8_t out[20])
{
    /* Should the library fail, NAT detection's hash matches nothing: NAT is assumed, which always works. */
    if (mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA1), data.data, data.len, out) != 0)
        memset(out, 0, 20);
}
