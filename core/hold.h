/*
 * Packets that wait for an SA, so that the one that asked for a tunnel is not lost: copies of what was read from the
 * TUN device, in the order in which they came. In the other direction, ESP that came before its SA: there the SPI stands
 * for the policy. Two areas for each worker, of fixed size, made once; nothing is allocated for a packet, and what finds
 * no room, or no SA within HOLD_TIME, is dropped.
 */
#ifndef ADIT_HOLD_H
#define ADIT_HOLD_H

#include "core/base/clock.h"
#include "core/base/cursor.h"

#define HOLD_TIME (5 * NS_PER_S)
#define HOLD_BYTES (512u * 1024)
#define HOLD_RECORDS 1024u
#define HOLD_FRAGMENTS 128u /* of one datagram: 64 KiB in pieces of an MTU of 576 */

struct hold;

MUST_USE enum err hold_new(struct hold **out); /* Errors: NOMEM */
void hold_free(struct hold *h);                /* NULL is fine */

struct hold_item {
    uint32_t policy_id;
    unsigned packets;  /* how many it will become on the wire (a merged one stands for several) */
    uint64_t datagram; /* of which it is a fragment; 0: none */
    struct span raw;
};

/*
 * Keeps a copy. limit: the most packets of one policy, but a merged one is kept also when it alone is more, and the
 * fragments of a datagram, whose loss would be that of the others, count as one. Errors: FULL.
 */
MUST_USE enum err hold_put(struct hold *h, const struct hold_item *item, unsigned limit, ns_t now);
/*
 * Takes out the oldest record whose policy is ready. raw points into the area: used before the next call of anything
 * here. False: there is none.
 */
bool hold_take(struct hold *h, bool (*ready)(void *ctx, uint32_t policy_id), void *ctx, struct span *raw);
/* Drops what has waited too long, and tells of each record: how many packets it stood for. */
void hold_expire(struct hold *h, ns_t now, void (*dropped)(void *ctx, uint32_t policy_id, unsigned packets), void *ctx);
/* When the next record will be too old; NS_NEVER if nothing is held. */
ns_t hold_deadline(const struct hold *h);

#endif
