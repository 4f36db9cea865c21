/* Proposals on the wire and the choice among them (RFC 7296 sections 2.7 and 3.3). */
#ifndef ADIT_IKE_PROPOSAL_H
#define ADIT_IKE_PROPOSAL_H

#include "ike/payload.h"
#include "policy/proposal.h"

/* What was chosen: one transform of each type that the proposal has (id 0 of type 0: none of that type). */
struct choice {
    uint8_t number;   /* of the peer's proposal */
    uint8_t protocol; /* enum protocol_id */
    uint64_t spi;     /* the peer's: 8 bytes for IKE (rekey), 4 for ESP and AH */
    uint8_t spi_len;
    struct transform encr, prf, integ, ke, esn;
};

/* Writes an SA payload offering `p` with our SPI in each (spi_len 0, 4 or 8), numbered from 1. */
void proposal_put_offer(struct ike_builder *b, const struct proposals *p, uint64_t spi, uint8_t spi_len);
/* Writes an SA payload that answers with the choice, under the initiator's number and our SPI. */
void proposal_put_answer(struct ike_builder *b, const struct choice *c, uint64_t spi, uint8_t spi_len);

/*
 * Responder: the first of our proposals that a proposal of the peer satisfies, our order of preference within each
 * type; unknown transforms and attributes are skipped, unknown transform types spoil their proposal. prefer_ke: a group
 * to take if both sides have it (what the peer's KE payload holds), KE_NONE for none.
 * with_ke false: KE transforms are not looked at (IKE_AUTH's Child SA has none: section 1.2).
 * Errors: MISMATCH (why gets "offered …; configured …"), SYNTAX (numbering, lengths, SPI size).
 */
MUST_USE enum err proposal_choose(struct span sa, const struct proposals *ours, uint16_t prefer_ke, bool with_ke,
                                  struct choice *out, char *why, size_t why_size);
/*
 * Initiator: reads the answer and checks that it is within what we offered: one proposal, our number, exactly one
 * transform of each type. Errors: MISMATCH, SYNTAX.
 */
MUST_USE enum err proposal_accept(struct span sa, const struct proposals *offered, bool with_ke, struct choice *out);

/* The choice as one proposal, for status; and its suite. Errors of suite: UNSUPPORTED, MISMATCH. */
void choice_proposal(const struct choice *c, struct proposal *out);
MUST_USE enum err choice_suite(const struct choice *c, struct suite *out);

#endif
