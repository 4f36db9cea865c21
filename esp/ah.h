/*
 * AH by batches (RFC 4302): the same entries as ESP's, esp_seal and esp_open, with SAs of PROTOCOL_AH. What differs is what
 * stands around a packet: AH covers the IP headers in front of it, so they have to be there, whole, before it is sealed
 * and when it is opened. Tunnel and transport mode differ only in whose headers they are.
 */
#ifndef ADIT_AH_H
#define ADIT_AH_H

#include "core/base/cursor.h"
#include "crypto/transform.h"

#define AH_PROTOCOL 51
#define AH_FIXED 12      /* before the IV of AES-GMAC, or the ICV */
#define AH_HEAD_MAX 256u /* bytes of IP headers in front of AH that we seal; real ones have a tenth of that */
#define AH_SCRATCH 4u /* writable bytes behind a packet: the high half of its sequence number stands there a moment */

/* Bytes of the header with its ICV and padding (section 2.6): it is a multiple of 4 behind IPv4, of 8 behind IPv6. */
static inline uint32_t ah_len(const struct suite *s, uint8_t family)
{
    uint32_t align = family == 6 ? 8 : 4;
    return (AH_FIXED + s->iv_len + s->icv_len + align - 1) & ~(align - 1);
}

/* The largest payload that it leaves of `room` bytes (path MTU less the IP headers in front); 0: none. */
static inline uint32_t ah_payload_max(const struct suite *s, uint8_t family, uint32_t room)
{
    uint32_t len = ah_len(s, family);
    return room > len ? room - len : 0;
}

/*
 * Makes of IP headers what the ICV is computed over (section 3.3.3.1, appendix A): what may change on the way is 0, what
 * changes as foreseen is as it will arrive. `head` bytes, of which all belong to headers that may stand before AH.
 * *next_at: where the Next Header is that says 51. False: no such headers, or options that can't be told apart.
 */
bool ah_freeze(uint8_t *headers, uint32_t head, uint32_t *next_at);

/* Whether ah_freeze will do with them, so that a packet with these headers in front can be sealed. Changes nothing. */
bool ah_covers(const uint8_t *headers, uint32_t head);

#endif
