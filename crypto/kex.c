#include "crypto/kex.h"

#include <mbedtls/bignum.h>
#include <mbedtls/dhm.h>
#include <mbedtls/ecp.h>
#include <sodium.h>

#define X25519_LEN 32
#define COORD_MAX 66 /* ECP-521 */
#define PRIVATE_MAX 66
#define MODP_PRIVATE 64 /* bits: more than twice the strength of the largest group here (RFC 3526 section 8) */
#define TRIES 128       /* of drawing a scalar below the order; each succeeds with at least 1/2 */

_Static_assert(crypto_scalarmult_BYTES == X25519_LEN && crypto_scalarmult_SCALARBYTES == X25519_LEN, "RFC 7748");

struct kex {
    uint16_t group;
    uint16_t len;
    uint8_t b[PRIVATE_MAX]; /* the private value */
};

/* What a group can do. Values have the lengths of the group; peers' are of the right length already. */
struct method {
    enum err (*draw)(uint16_t group, const struct random_source *rnd, struct kex *k);
    enum err (*publish)(const struct kex *k, struct kex_public *pub);
    enum err (*agree)(const struct kex *k, struct span peer, struct kex_secret *secret);
};

/* Side channels are blinded from the system's source: a seeded one gives the private value and nothing else. */
static int blinding(void *ctx, unsigned char *p, size_t n)
{
    (void)ctx;
    random_bytes(p, n);
    return 0;
}

static uint16_t public_len(uint16_t group)
{
    return algorithm_find(TRANSFORM_KE, group, 0)->out_len;
}

/* -- curve25519 (RFC 8031, RFC 7748) -- */

static enum err x25519_draw(uint16_t group, const struct random_source *rnd, struct kex *k)
{
    (void)group;
    k->len = X25519_LEN;
    random_fill(rnd, k->b, X25519_LEN);
    return OK;
}

static enum err x25519_publish(const struct kex *k, struct kex_public *pub)
{
    pub->len = X25519_LEN;
    return crypto_scalarmult_base(pub->b, k->b) == 0 ? OK : ERR_CRYPTO;
}

static enum err x25519_agree(const struct kex *k, struct span peer, struct kex_secret *secret)
{
    secret->len = X25519_LEN;
    /* RFC 8031 section 2.3 sends us to RFC 7748 section 6.1: an all-zero secret must be refused. */
    if (crypto_scalarmult(secret->b, k->b, peer.data) != 0 || sodium_is_zero(secret->b, X25519_LEN))
        return ERR_AUTH;
    return OK;
}

static const struct method x25519 = {x25519_draw, x25519_publish, x25519_agree};

/* -- ECP groups (RFC 5903) -- */

static mbedtls_ecp_group_id curve_of(uint16_t group)
{
    switch (group) {
    case KE_ECP_256:
        return MBEDTLS_ECP_DP_SECP256R1;
    case KE_ECP_384:
        return MBEDTLS_ECP_DP_SECP384R1;
    case KE_ECP_521:
        return MBEDTLS_ECP_DP_SECP521R1;
    default:
        return MBEDTLS_ECP_DP_NONE;
    }
}

/* A scalar in 1..n-1, each as likely: drawn until it fits, the bits above the order's (ECP-521: 7) cleared. */
static enum err ecp_draw(uint16_t group, const struct random_source *rnd, struct kex *k)
{
    mbedtls_ecp_group grp;
    mbedtls_mpi d;
    enum err e = ERR_CRYPTO;

    mbedtls_ecp_group_init(&grp);
    mbedtls_mpi_init(&d);
    k->len = public_len(group) / 2;
    if (mbedtls_ecp_group_load(&grp, curve_of(group)) == 0) {
        for (int i = 0; i < TRIES && e != OK; i++) {
            random_fill(rnd, k->b, k->len);
            if (group == KE_ECP_521)
                k->b[0] &= 1;
            if (mbedtls_mpi_read_binary(&d, k->b, k->len) == 0 && mbedtls_ecp_check_privkey(&grp, &d) == 0)
                e = OK;
        }
    }
    mbedtls_mpi_free(&d);
    mbedtls_ecp_group_free(&grp);
    return e;
}

/* k times the peer's point, or the generator without one; point gets 04 | x | y. */
static enum err ecp_multiply(const struct kex *k, const struct span *peer, uint8_t point[1 + 2 * COORD_MAX])
{
    mbedtls_ecp_group grp;
    mbedtls_ecp_point base, result;
    mbedtls_mpi d;
    enum err e = ERR_CRYPTO;
    const size_t size = 1 + 2 * (size_t)k->len;
    size_t written = 0;

    mbedtls_ecp_group_init(&grp);
    mbedtls_ecp_point_init(&base);
    mbedtls_ecp_point_init(&result);
    mbedtls_mpi_init(&d);
    if (mbedtls_ecp_group_load(&grp, curve_of(k->group)) != 0 || mbedtls_mpi_read_binary(&d, k->b, k->len) != 0)
        goto done;
    if (peer) {
        point[0] = 4; /* uncompressed; left out on the wire (RFC 5903 section 7) */
        memcpy(point + 1, peer->data, peer->len);
        e = ERR_AUTH; /* RFC 6989 section 2.3: on the curve, coordinates below p */
        if (mbedtls_ecp_point_read_binary(&grp, &base, point, size) != 0 || mbedtls_ecp_check_pubkey(&grp, &base) != 0)
            goto done;
        e = ERR_CRYPTO;
    } else if (mbedtls_ecp_copy(&base, &grp.G) != 0) {
        goto done;
    }
    if (mbedtls_ecp_mul(&grp, &result, &d, &base, blinding, NULL) == 0 &&
        mbedtls_ecp_point_write_binary(&grp, &result, MBEDTLS_ECP_PF_UNCOMPRESSED, &written, point, size) == 0 &&
        written == size)
        e = OK;
done:
    mbedtls_mpi_free(&d);
    mbedtls_ecp_point_free(&result);
    mbedtls_ecp_point_free(&base);
    mbedtls_ecp_group_free(&grp);
    return e;
}

static enum err ecp_publish(const struct kex *k, struct kex_public *pub)
{
    uint8_t point[1 + 2 * COORD_MAX];
    TRY(ecp_multiply(k, NULL, point));
    pub->len = public_len(k->group);
    memcpy(pub->b, point + 1, pub->len);
    return OK;
}

/* The secret is the x coordinate alone, at its full length (RFC 5903 section 7). */
static enum err ecp_agree(const struct kex *k, struct span peer, struct kex_secret *secret)
{
    uint8_t point[1 + 2 * COORD_MAX];
    enum err e = ecp_multiply(k, &peer, point);
    if (e == OK) {
        secret->len = k->len;
        memcpy(secret->b, point + 1, k->len);
    }
    secret_wipe(point, sizeof point);
    return e;
}

static const struct method ecp = {ecp_draw, ecp_publish, ecp_agree};

/* -- MODP groups (RFC 3526), generator 2 -- */

static const uint8_t prime_2048[] = MBEDTLS_DHM_RFC3526_MODP_2048_P_BIN;
static const uint8_t prime_3072[] = MBEDTLS_DHM_RFC3526_MODP_3072_P_BIN;
static const uint8_t prime_4096[] = MBEDTLS_DHM_RFC3526_MODP_4096_P_BIN;

static struct span prime_of(uint16_t group)
{
    switch (group) {
    case KE_MODP_2048:
        return span_of(prime_2048, sizeof prime_2048);
    case KE_MODP_3072:
        return span_of(prime_3072, sizeof prime_3072);
    default:
        return span_of(prime_4096, sizeof prime_4096);
    }
}

static enum err modp_draw(uint16_t group, const struct random_source *rnd, struct kex *k)
{
    (void)group;
    k->len = MODP_PRIVATE;
    random_fill(rnd, k->b, k->len);
    k->b[0] |= 0x80; /* a fixed length of the exponent, and never 0 */
    return OK;
}

/*
 * base^x mod p at the group's length, left-padded (RFC 7296 section 2.14). AUTH unless 1 < base < p - 1 (RFC 6989
 * section 2.1). x is used once, or for one peer only, so that timing has nothing to collect: base isn't blinded.
 */
static enum err modp_power(const struct kex *k, struct span base, uint8_t *out)
{
    mbedtls_mpi p, limit, b, x, result;
    enum err e = ERR_CRYPTO;
    const struct span prime = prime_of(k->group);

    mbedtls_mpi_init(&p);
    mbedtls_mpi_init(&limit);
    mbedtls_mpi_init(&b);
    mbedtls_mpi_init(&x);
    mbedtls_mpi_init(&result);
    if (mbedtls_mpi_read_binary(&p, prime.data, prime.len) != 0 || mbedtls_mpi_sub_int(&limit, &p, 1) != 0 ||
        mbedtls_mpi_read_binary(&b, base.data, base.len) != 0 || mbedtls_mpi_read_binary(&x, k->b, k->len) != 0)
        goto done;
    if (mbedtls_mpi_cmp_int(&b, 1) <= 0 || mbedtls_mpi_cmp_mpi(&b, &limit) >= 0) {
        e = ERR_AUTH;
        goto done;
    }
    if (mbedtls_mpi_exp_mod(&result, &b, &x, &p, NULL) == 0 && mbedtls_mpi_write_binary(&result, out, prime.len) == 0)
        e = OK;
done:
    mbedtls_mpi_free(&result);
    mbedtls_mpi_free(&x);
    mbedtls_mpi_free(&b);
    mbedtls_mpi_free(&limit);
    mbedtls_mpi_free(&p);
    return e;
}

static enum err modp_publish(const struct kex *k, struct kex_public *pub)
{
    static const uint8_t generator = 2;
    pub->len = public_len(k->group);
    return modp_power(k, span_of(&generator, 1), pub->b);
}

static enum err modp_agree(const struct kex *k, struct span peer, struct kex_secret *secret)
{
    secret->len = public_len(k->group);
    return modp_power(k, peer, secret->b);
}

static const struct method modp = {modp_draw, modp_publish, modp_agree};

/* -- the interface -- */

static const struct method *method_of(uint16_t group)
{
    switch (group) {
    case KE_CURVE25519:
        return &x25519;
    case KE_ECP_256:
    case KE_ECP_384:
    case KE_ECP_521:
        return &ecp;
    case KE_MODP_2048:
    case KE_MODP_3072:
    case KE_MODP_4096:
        return &modp;
    default:
        return NULL;
    }
}

enum err kex_offer(uint16_t group, const struct random_source *rnd, struct kex **out, struct kex_public *pub)
{
    const struct method *m = method_of(group);
    if (!m)
        return ERR_UNSUPPORTED;
    struct kex *k = secret_alloc(sizeof *k);
    if (!k)
        return ERR_NOMEM;
    k->group = group;
    enum err e = m->draw(group, rnd, k);
    if (e == OK)
        e = m->publish(k, pub);
    if (e != OK) {
        kex_free(k);
        return e;
    }
    *out = k;
    return OK;
}

enum err kex_finish(struct kex *k, struct span peer, struct kex_secret *secret)
{
    if (peer.len != public_len(k->group))
        return ERR_RANGE;
    enum err e = method_of(k->group)->agree(k, peer, secret);
    if (e != OK)
        secret_wipe(secret, sizeof *secret);
    return e;
}

enum err kex_respond(uint16_t group, const struct random_source *rnd, struct span peer, struct kex_public *pub,
                     struct kex_secret *secret)
{
    struct kex *k = NULL;
    const struct method *m = method_of(group);
    if (!m)
        return ERR_UNSUPPORTED;
    if (peer.len != public_len(group))
        return ERR_RANGE; /* before any costly step */
    TRY(kex_offer(group, rnd, &k, pub));
    enum err e = kex_finish(k, peer, secret);
    kex_free(k);
    return e;
}

void kex_free(struct kex *k)
{
    secret_free(k);
}
