/*
 * ESP by batches (RFC 4303): sealing inner packets in place, opening received packets into new memory. A batch is
 * 1..TRANSFORM_BATCH packets of one SA. The caller holds sa->lock. Nothing here allocates, logs, or waits.
 */
#ifndef ADIT_ESP_H
#define ADIT_ESP_H

#include "core/base/stat.h"
#include "esp/outer.h"
#include "esp/sa.h"

#define NEXT_HEADER_IPV4 4
#define NEXT_HEADER_IPV6 41
#define NEXT_HEADER_NONE 59

/*
 * An SA of PROTOCOL_AH goes the same ways (RFC 4302); see below for what is different.
 *
 * seal: in: data/len are the inner packet, with esp_headroom() bytes free before it and esp_sealed_len() bytes from
 *       there on writable. next_header says what it is. out: data/len are the ESP packet, SPI to ICV.
 * open: in: data/len are the ESP packet from the SPI on (may be overwritten), dst is where the inner packet shall be
 *       written (room for len bytes). out: verdict; if it is OK data/len are the inner packet (within dst), next_header
 *       its kind, with TFC padding still behind len cut off by the inner length; in tunnel mode also if it is outside the
 *       selectors (STAT_DROP_IN_SELECTOR), so that it can be told.
 * AH, seal: in front of data are ah_len() free bytes, and before those `head` bytes of IP headers of `family`, which say
 *       what the packet will be: protocol 51, its whole length, an Identification that isn't 0. Behind it AH_SCRATCH bytes
 *       are writable. out: data/len are the packet from AH on, with the headers as they were in front.
 *     open: in: data/len are the packet from AH on, behind `head` bytes of IP headers; dst has room for head, len, and
 *       AH_SCRATCH. out: data is somewhere in dst, with head free bytes in front.
 */
struct esp_packet {
    uint8_t *data;
    uint8_t *dst;
    uint32_t len;
    uint8_t next_header;
    uint8_t family;     /* AH, seal: of the headers */
    uint16_t head;      /* AH: their bytes */
    uint64_t seq;       /* open: out, also of most that are dropped: its number, 0 if that could not be told */
    uint16_t tfc;       /* seal: how many bytes of len are TFC padding */
    struct outer outer; /* the header around it, of no concern to seal and open; received: only tos and ttl are known */
    enum err verdict;   /* OK, or why it is dropped … */
    enum stat_id drop;  /* … and the counter for it, set only then */
};

enum sa_event { SA_EVENT_NONE = 0, SA_EVENT_SOFT = 1, SA_EVENT_HARD = 2 };

/*
 * Seals all n packets, or as many as the hard limit leaves (*sealed; of the rest only verdict and drop are set).
 * events: what passed now, each of the two once in an SA's life. sa->last_used and the counters follow.
 * Sequence numbers and IVs are used up even when the crypto engine fails (a number is never used twice).
 * Errors: EXPIRED (none could be sealed: the SA is at its hard limit), CRYPTO.
 */
MUST_USE enum err esp_seal(struct sa *sa, struct esp_packet *v, unsigned n, ns_t now, unsigned *sealed,
                           unsigned *events);

/*
 * Opens n packets that all carry this SA's SPI: runt check, replay pre-check, ICV and decryption as one batch, replay
 * commit, padding check (1, 2, 3 …), inner IP header sanity, selector check (RFC 4301 section 5.2 step 4).
 * Transport mode: the addresses checked are those of the SA's path; what is inside is not looked into further.
 * Returns how many are OK; each packet's verdict and drop say the rest. Identical time for all authentication failures.
 */
unsigned esp_open(struct sa *sa, struct esp_packet *v, unsigned n, ns_t now, unsigned *events);

#endif
