/* Cutting an IPv4 packet into fragments (RFC 791 section 3.2), those of a fragment included. */
#ifndef ADIT_CUT_H
#define ADIT_CUT_H

#include <stdbool.h>

#include "core/base/cursor.h"
#include "core/base/err.h"

/* One packet being cut. Filled by cut_begin, advanced by cut_next; the packet must stay in place. */
struct cut {
    const uint8_t *packet;
    uint32_t len, header_len;
    uint32_t room;     /* most bytes of one fragment */
    uint32_t at;       /* payload bytes that are out */
    uint8_t later[60]; /* the header of all but the first: with the options that are copied */
    uint32_t later_len;
};

/*
 * Checksums must be complete (after segment_next). room: bytes that each fragment may have at most.
 * Errors: TRUNCATED, SYNTAX (no sound IPv4 packet), MISMATCH (it has DF), RANGE (no room for 8 bytes behind the header).
 */
MUST_USE enum err cut_begin(struct cut *c, struct span packet, uint32_t room);
uint32_t cut_size(const struct cut *c); /* bytes of the next fragment; 0: all are out */
/* Writes the next one at out (cut_size bytes), its header checksum included, and advances. */
void cut_next(struct cut *c, uint8_t *out);

#endif
