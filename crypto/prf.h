/* Pseudo-random functions and hashes of IKEv2 (RFC 7296 sections 2.13 and 2.14; RFC 4868, 4434, 4615). */
#ifndef ADIT_PRF_H
#define ADIT_PRF_H

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "crypto/algorithm.h"

#define PRF_MAX 64 /* longest output */

/* prf(key, parts[0] | parts[1] | ...) into out (out_len of the algorithm). Errors: UNSUPPORTED, NOMEM, CRYPTO. */
MUST_USE enum err prf(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out);
/* prf+(key, seed parts) of section 2.13, out_len bytes; at most 255 rounds. Errors: RANGE, UNSUPPORTED, NOMEM, CRYPTO. */
MUST_USE enum err prf_plus(uint16_t id, struct span key, const struct span *parts, unsigned n, uint8_t *out,
                           size_t out_len);
unsigned prf_len(uint16_t id); /* output and preferred key length; 0 if unknown */

/* SHA-1 for NAT detection only (section 2.23 fixes it). */
void sha1(struct span data, uint8_t out[20]);

#endif
