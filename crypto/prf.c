#include "crypto/prf.h"

#include <mbedtls/md.h>

#include "crypto/mac.h"
#include "crypto/secret.h"

unsigned prf_len(uint16_t id)
{
    const struct algorithm *a = algorithm_find(TRANSFORM_PRF, id, 0);
    return a ? a->out_len : 0;
}

static enum err add(struct mac *m, const struct span *parts, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        TRY(mac_add(m, parts[i]));
    return OK;
}

enum err prf(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out)
{
    struct mac *m;
    TRY(mac_new(&m, id, key));
    enum err e = add(m, parts, n);
    if (e == OK)
        e = mac_finish(m, out);
    mac_free(m);
    return e;
}

/* T1 = prf(K, S | 1), Tn = prf(K, Tn-1 | S | n) (RFC 7296 section 2.13). */
static enum err plus_run(struct mac *m, const struct span *parts, unsigned n, unsigned prf_out, uint8_t block[PRF_MAX],
                         uint8_t *out, size_t out_len)
{
    for (unsigned round = 1; out_len; round++) {
        const uint8_t number = (uint8_t)round;
        const struct span previous = {block, round == 1 ? 0 : prf_out}, last = {&number, 1};
        if (round > 1)
            TRY(mac_again(m));
        TRY(mac_add(m, previous));
        TRY(add(m, parts, n));
        TRY(mac_add(m, last));
        TRY(mac_finish(m, block));
        size_t take = out_len < prf_out ? out_len : prf_out;
        memcpy(out, block, take);
        out += take;
        out_len -= take;
    }
    return OK;
}

enum err prf_plus(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out, size_t out_len)
{
    const unsigned prf_out = prf_len(id);
    if (!prf_out)
        return ERR_UNSUPPORTED;
    if (out_len > (size_t)255 * prf_out)
        return ERR_RANGE;

    struct mac *m;
    uint8_t block[PRF_MAX] = {0};
    TRY(mac_new(&m, id, key));
    enum err e = plus_run(m, parts, n, prf_out, block, out, out_len);
    mac_free(m);
    secret_wipe(block, sizeof block);
    return e;
}

void sha1(struct span data, uint8_t out[20])
{
    /* Should the library fail, NAT detection's hash matches nothing: NAT is assumed, which always works. */
    if (mbedtls_md(mbedtls_md_info_from_type(MBEDTLS_MD_SHA1), data.data, data.len, out) != 0)
        memset(out, 0, 20);
}
