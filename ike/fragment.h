/*
 * IKE fragmentation (RFC 7383): a message too long for one IP datagram is sent as several SKF messages, each protected by
 * itself, and the peer's are put together again. IP fragments get lost in many networks; these do not.
 *
 * A flight is what one message became: whole IKE messages one behind the other, each as long as its header says. Most
 * flights are a single SK message. What is sent, kept and sent again is always a flight.
 */
#ifndef ADIT_FRAGMENT_H
#define ADIT_FRAGMENT_H

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/ip.h"
#include "ike/payload.h"

/*
 * The longest IP datagram that carries a fragment. IPv6 passes 1280 bytes everywhere (RFC 8200 section 5), and section
 * 2.5.1 recommends it there. For IPv4 it recommends 576, what every host must take in; but there is hardly a path left
 * with a smaller MTU than IPv6 needs, and each fragment more is one more that can be lost: so the same for both.
 */
#define FRAGMENT_DATAGRAM 1280
/* Fragments of one message, ours and the peer's: 64 of 1280 bytes hold the longest message there can be. */
#define FRAGMENTS_MAX 64
/*
 * An incomplete message of the peer is forgotten after this, as a half-open SA is. Section 2.6 recommends what an
 * initiator waits before it gives up, and allows less.
 */
#define FRAGMENTS_LIFE (30 * NS_PER_S)

/* -- sending -- */

struct fragment_sealer {
    const struct suite *suite;
    struct keyed *key;
    size_t max;                                           /* of one message, in bytes; SIZE_MAX: never fragment */
    void (*iv)(void *ctx, uint8_t out[TRANSFORM_IV_MAX]); /* a fresh one for each fragment */
    void *ctx;
};

/* How long an IKE message may be so that its IP datagram on this path is no longer than that. */
size_t fragment_room(const struct path *path, unsigned datagram);
/*
 * Seals the message that b holds, opened with ike_begin_sk and complete but for ike_finish_sk, into a flight that
 * replaces what `flight` held. Errors: FULL (it takes more than FRAGMENTS_MAX), CRYPTO, NOMEM.
 */
MUST_USE enum err fragment_seal(struct ike_builder *b, const struct fragment_sealer *f, struct buf *flight);
/* Takes the next message off the front of a flight; empty at its end. */
struct span flight_next(struct span *flight);

/* -- receiving -- */

struct fragments; /* of one message of the peer, as far as they have come */

/*
 * Whether this fragment, not authenticated yet, is one to be taken (section 2.6): numbers in range and not more than
 * FRAGMENTS_MAX of them, of the message and no fewer than known so far, and not there already. set: NULL before the
 * first.
 */
bool fragment_wanted(const struct fragments *set, const struct ike_message *m);
/*
 * Keeps an authentic, wanted fragment, whose content is text. A larger total than known so far starts all over: the
 * sender tries with smaller fragments. Errors: RANGE (all together longer than a message), NOMEM; the set stays as it is.
 */
MUST_USE enum err fragment_keep(struct fragments **set, const struct ike_message *m, struct span text, ns_t now);
/*
 * When all are there: writes the content of the whole message to out (IKE_MESSAGE_MAX bytes), makes m the message as if
 * it had come whole, opened and not yet parsed inside, and frees the set. False: some are missing.
 */
bool fragments_join(struct fragments **set, uint8_t *out, struct ike_message *m, struct span *text);
bool fragments_expired(const struct fragments *set, ns_t now); /* false for NULL */
void fragments_free(struct fragments **set);

#endif
