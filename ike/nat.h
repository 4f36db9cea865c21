/* NAT detection (RFC 7296 section 2.23) and cookies (section 2.6): hashes over a first message's addresses. */
#ifndef ADIT_NAT_H
#define ADIT_NAT_H

#include "core/base/cursor.h"
#include "core/base/ip.h"
#include "ike/payload.h"

#define NAT_HASH_LEN 20
/* SHA1(SPIi | SPIr | IP | port) */
void nat_hash(uint64_t spi_i, uint64_t spi_r, const struct endpoint *e, uint8_t out[NAT_HASH_LEN]);

/*
 * What the peer's notifies say, given the addresses we see. *supported: any NAT_DETECTION notify was there.
 * *remote: no SOURCE hash fits path->remote (the peer is behind a NAT, or says so); *local: the DESTINATION hash does
 * not fit path->local (we are).
 */
void nat_detect(const struct ike_message *m, const struct path *path, bool *supported, bool *local, bool *remote);

/* Stateless cookies: a version byte and a hash over nonce, address, SPI and a secret that rotates. */
#define COOKIE_LEN 33
struct cookie_jar {
    uint8_t secret[2][32]; /* current and previous */
    uint8_t version;
    uint64_t rotated; /* ns_t */
};
struct random_source;
void cookie_init(struct cookie_jar *j, const struct random_source *rnd, uint64_t now);
void cookie_make(struct cookie_jar *j, const struct random_source *rnd, uint64_t now, uint64_t spi_i,
                 const struct endpoint *remote, struct span nonce, uint8_t out[COOKIE_LEN]);
/* Constant-time; false for any length but COOKIE_LEN, and for what was made two rotations ago. */
bool cookie_valid(struct cookie_jar *j, const struct random_source *rnd, uint64_t now, uint64_t spi_i,
                  const struct endpoint *remote, struct span nonce, struct span cookie);

#endif
