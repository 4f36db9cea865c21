/*
 * Message authentication codes, whole: what PRFs and the integrity of packets are made of. HMAC (RFC 2104), AES-XCBC (RFC
 * 3566, 4434) and AES-CMAC (RFC 4615), each known by the number of its PRF.
 */
#ifndef ADIT_MAC_H
#define ADIT_MAC_H

#include "core/base/cursor.h"
#include "core/base/err.h"
#include "crypto/algorithm.h"

struct mac; /* with its key, in secret memory */

/* The key is of any length and copied. Ready for a first message. Errors: UNSUPPORTED, NOMEM, CRYPTO. */
MUST_USE enum err mac_new(struct mac **out, uint16_t prf, struct span key);
void mac_free(struct mac *m); /* wipes; NULL is fine */

/* Another message under the same key; whatever was added before is forgotten. Errors: CRYPTO. */
MUST_USE enum err mac_again(struct mac *m);
MUST_USE enum err mac_add(struct mac *m, struct span part);
/* Writes out_len bytes of the PRF. */
MUST_USE enum err mac_finish(struct mac *m, uint8_t *out);

#endif
