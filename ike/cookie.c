/* Stateless cookies: Cookie = <VersionIDofSecret> | prf(<secret>, Ni | IPi | SPIi), after RFC 7296 section 2.6. */
#include "core/base/clock.h"
#include "crypto/prf.h"
#include "crypto/random.h"
#include "crypto/secret.h"
#include "ike/nat.h"

/* A cookie lives for one to two of these: long enough for a retry, too short for collecting them to be worth much. */
#define COOKIE_ROTATION (60 * NS_PER_S)

void cookie_init(struct cookie_jar *j, const struct random_source *rnd, uint64_t now)
{
    random_fill(rnd, j->secret, sizeof j->secret);
    j->version = 0;
    j->rotated = now;
}

static void rotate(struct cookie_jar *j, const struct random_source *rnd, uint64_t now)
{
    memcpy(j->secret[1], j->secret[0], sizeof j->secret[1]);
    random_fill(rnd, j->secret[0], sizeof j->secret[0]);
    j->version++;
    j->rotated = now;
}

/* Nobody may have asked for a cookie for hours: then both secrets are too old. */
static void rotate_due(struct cookie_jar *j, const struct random_source *rnd, uint64_t now)
{
    uint64_t idle = now - j->rotated;
    if (idle >= COOKIE_ROTATION)
        rotate(j, rnd, now);
    if (idle >= 2 * COOKIE_ROTATION)
        rotate(j, rnd, now);
}

/* Only the address is bound, not the port: a NAT may map the retry to another one. */
static enum err mac(const uint8_t secret[32], uint64_t spi_i, const struct endpoint *remote, struct span nonce,
                    uint8_t out[32])
{
    uint8_t spi[8];
    put_be64(spi, spi_i);
    struct span parts[] = {nonce, span_of(remote->ip.b, ip_len(remote->ip.family)), span_of(spi, sizeof spi)};
    return prf(PRF_HMAC_SHA2_256, span_of(secret, 32), parts, 3, out);
}

void cookie_make(struct cookie_jar *j, const struct random_source *rnd, uint64_t now, uint64_t spi_i,
                 const struct endpoint *remote, struct span nonce, uint8_t out[COOKIE_LEN])
{
    rotate_due(j, rnd, now);
    out[0] = j->version;
    if (mac(j->secret[0], spi_i, remote, nonce, out + 1) != OK)
        random_fill(rnd, out + 1, COOKIE_LEN - 1); /* a cookie that nobody can use, rather than one that is known */
}

bool cookie_valid(struct cookie_jar *j, const struct random_source *rnd, uint64_t now, uint64_t spi_i,
                  const struct endpoint *remote, struct span nonce, struct span cookie)
{
    uint8_t want[COOKIE_LEN - 1];
    rotate_due(j, rnd, now);
    if (cookie.len != COOKIE_LEN)
        return false;
    uint8_t age = (uint8_t)(j->version - cookie.data[0]); /* the version wraps */
    if (age > 1 || mac(j->secret[age], spi_i, remote, nonce, want) != OK)
        return false;
    return secret_equal(want, cookie.data + 1, sizeof want);
}
