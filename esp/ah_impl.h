/* What esp/seal.c and esp/open.c leave to AH. */
#ifndef ADIT_AH_IMPL_H
#define ADIT_AH_IMPL_H

#include "esp/ah.h"
#include "esp/esp.h"
#include "esp/outer.h"

/*
 * Seals n packets as one batch; their sequence numbers are used up whatever happens. Errors: CRYPTO (also for headers that
 * ah_covers would have refused).
 */
MUST_USE enum err ah_seal(struct sa *sa, struct esp_packet *v, unsigned n);

/* Whether a received packet's lengths are right for this SA, and it is no fragment. */
bool ah_sound(const struct sa *sa, const struct esp_packet *p);
/* Copies it to dst and says what the ICV is computed over. False: headers that don't stand before AH. */
bool ah_prepare(const struct sa *sa, struct esp_packet *p, uint64_t seq, struct transform_op *op);

/* Of an authentic packet, within dst: what AH carries, and the protocol of that. */
uint8_t *ah_payload(const struct sa *sa, const struct esp_packet *p, uint32_t *len, uint8_t *next);

#endif
