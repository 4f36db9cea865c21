/*
 * Proposals as configured: ordered sets of acceptable transforms (RFC 7296 section 3.3). "aes256gcm16-aes128gcm16-
 * prfsha384-prfsha256-x25519-ecp256" is one proposal; commas separate several. Keywords are strongSwan's. "default"
 * stands for the built-in list.
 */
#ifndef ADIT_PROPOSAL_H
#define ADIT_PROPOSAL_H

#include "core/base/err.h"
#include "crypto/algorithm.h"

#define PROPOSAL_TRANSFORMS 32
#define PROPOSALS_MAX 8

enum protocol_id { PROTOCOL_NONE = 0, PROTOCOL_IKE = 1, PROTOCOL_AH = 2, PROTOCOL_ESP = 3 };

const char *protocol_text(uint8_t protocol); /* "IKE", "AH", "ESP" */

struct proposal {
    uint8_t protocol; /* enum protocol_id */
    uint8_t n;
    struct transform t[PROPOSAL_TRANSFORMS]; /* in order of preference within each type */
};

struct proposals {
    uint8_t n;
    struct proposal v[PROPOSALS_MAX];
};

/*
 * Parses a list for IKE, ESP or AH and completes it as users expect: IKE without a PRF gets those of its integrity (or
 * SHA2-256 for AEADs); ESP and AH without esn/noesn get both, in the order yes, no; their KE transform is the PFS group.
 * AH has integrity alone, with AES-GMAC by the transforms that are for AH (RFC 4543 section 9).
 * Refuses what must not be (ENCR_NULL for IKE, a cipher without integrity, a mix of AEAD and non-AEAD in one proposal,
 * IKE without a KE method).
 * Errors: SYNTAX with one line in why: what was found, what was expected, with the nearest keyword.
 */
MUST_USE enum err proposals_parse(const char *text, enum protocol_id protocol, struct proposals *out, char *why,
                                  size_t why_size);

/* The built-in lists, as in README. ESP and AH: without KE transforms (a rekey adds {IKE's group, NONE}). */
void proposals_default(enum protocol_id protocol, struct proposals *out);

/* "aes256gcm16-prfsha384-x25519, …"; returns text. */
const char *proposal_format(const struct proposal *p, char *text, size_t size);
const char *proposals_format(const struct proposals *p, char *text, size_t size);

bool proposals_equal(const struct proposals *a, const struct proposals *b); /* the order counts */
bool proposal_has(const struct proposal *p, uint8_t type);                  /* any transform of that type */

#endif
