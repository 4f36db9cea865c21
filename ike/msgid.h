/*
 * Message IDs and retransmission of one IKE SA (RFC 7296 sections 2.1 to 2.3), both directions with a window of one: a
 * single request of ours waits for its answer, and a single answer of ours is kept for the peer's retransmissions.
 */
#ifndef ADIT_MSGID_H
#define ADIT_MSGID_H

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/ip.h"
#include "crypto/random.h"

#define RETRANSMIT_FIRST (1 * NS_PER_S)
#define RETRANSMIT_TRIES 5 /* after the first sending: 1 + 2 + 4 + 8 + 16 + 32 s until the peer counts as gone */

/* Our requests. */
struct msgid_out {
    uint32_t next;  /* of the request to come */
    bool pending;   /* a request waits for its answer, under the number next - 1 */
    unsigned tries; /* how often it was sent again */
    struct buf request;
};

/* The peer's requests. */
struct msgid_in {
    uint32_t expected; /* of the request to come */
    bool busy;         /* that request arrived and is being worked on */
    struct path path;  /* where it came from: the answer goes there (section 2.11) */
    struct buf request, response;
};

enum msgid_verdict {
    MSGID_FRESH,   /* the next request: authenticate, then handle */
    MSGID_REPEAT,  /* the last one again, bit for bit: the kept answer is due */
    MSGID_BUSY,    /* the one being worked on, again */
    MSGID_OUTSIDE, /* anything else: never acknowledged (section 2.3) */
};
enum msgid_verdict msgid_judge(const struct msgid_in *in, uint32_t id, struct span message);

/* Takes note of an authenticated fresh request. Errors: NOMEM. */
MUST_USE enum err msgid_accept(struct msgid_in *in, struct span message, const struct path *path);
/* Keeps the answer to it. Errors: NOMEM. */
MUST_USE enum err msgid_answer(struct msgid_in *in, struct span response);

/* Keeps a request for retransmission and takes its number. Errors: NOMEM. */
MUST_USE enum err msgid_request(struct msgid_out *out, struct span request);
/* Whether a response with this number is the awaited one. */
bool msgid_awaited(const struct msgid_out *out, uint32_t id);
/* The exchange is over: retransmission stops, the request is wiped. */
void msgid_done(struct msgid_out *out);

/* How long to wait for an answer after the tries'th retransmission: exponential, with 10 % jitter. */
ns_t msgid_wait(unsigned tries, const struct random_source *rnd);

void msgid_free(struct msgid_in *in, struct msgid_out *out);

#endif
