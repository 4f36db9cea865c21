/*
 * Message IDs, windows and retransmission of one IKE SA (RFC 7296 sections 2.1 to 2.3). A single request of ours waits
 * for its answer, whatever window the peer announces. Of the peer's requests, up to a window of them may be under way.
 *
 * They are served strictly by number: one that comes early is held until its turn. The peer numbered them in the order
 * in which it wanted them, and served otherwise a Delete could overtake the rekey before it; in turn, every handler may
 * count on there being one request at a time, as with a window of one. Section 2.3 wishes for more speed after a loss;
 * what is lost costs a retransmission, and no round trip of those behind it.
 */
#ifndef ADIT_MSGID_H
#define ADIT_MSGID_H

#include "core/base/buf.h"
#include "core/base/clock.h"
#include "core/base/ip.h"
#include "crypto/random.h"
#include "ike/payload.h"
#include "policy/pad.h"

#define RETRANSMIT_FIRST (1 * NS_PER_S)
#define RETRANSMIT_TRIES 5       /* after the first sending: 1 + 2 + 4 + 8 + 16 + 32 s until the peer counts as gone */
#define HELD_MAX IKE_MESSAGE_MAX /* bytes of all held requests together */
#define SILENCE_TRIES 3          /* after 1 + 2 + 4 s a person is told that nobody answers */
#define RETRANSMIT_TRIES_LIST 3  /* 1 + 2 + 4 + 8 s until the next address of a peer is tried */

/* Our requests. */
struct msgid_out {
    uint32_t next;     /* of the request to come */
    bool pending;      /* a request waits for its answer, under the number next - 1 */
    unsigned tries;    /* how often it was sent again */
    struct buf flight; /* that request */
};

/* A request of the peer that is authentic and opened, and came before its turn. */
struct held_request {
    struct held_request *next;
    struct ike_header h;
    struct path path;
    uint8_t first;   /* type of the first payload inside */
    enum err err;    /* SYNTAX: what was around the text is malformed */
    struct buf text; /* what SK held */
};

/* The peer's requests. */
struct msgid_in {
    uint32_t expected;         /* of the request to be served next */
    unsigned window;           /* 1..WINDOW_MAX, what the peer was told; only ever grows */
    bool busy;                 /* that request is being worked on */
    struct path path;          /* where it came from: the answer goes there (section 2.11) */
    struct buf *ring;          /* our last answers, by number modulo the window; NULL while that is 1 … */
    struct buf last;           /* … and this is the one */
    struct held_request *held; /* by number */
    size_t held_bytes;
};

enum msgid_verdict {
    MSGID_FRESH,   /* inside the window and new: authenticate, then serve or hold */
    MSGID_REPEAT,  /* answered: once authenticated, the kept answer is due */
    MSGID_BUSY,    /* the one being worked on, or one that is held, again */
    MSGID_OUTSIDE, /* anything else: never acknowledged (section 2.3) */
};
enum msgid_verdict msgid_judge(struct msgid_in *in, uint32_t id);

/* The expected request is being served from here on. */
void msgid_accept(struct msgid_in *in, const struct path *path);
/* Where the answer to that request is kept: written before msgid_answer, there for as long as REPEAT is the verdict. */
struct buf *msgid_flight(struct msgid_in *in, uint32_t id);
/* The expected request is answered. */
void msgid_answer(struct msgid_in *in);
/* Allows the peer more requests at once, up to WINDOW_MAX. Errors: NOMEM. */
MUST_USE enum err msgid_widen(struct msgid_in *in, unsigned window);

/* Holds a fresh request whose turn has not come. Errors: FULL (more than HELD_MAX), NOMEM. */
MUST_USE enum err msgid_hold(struct msgid_in *in, const struct ike_message *m, const struct path *path, enum err err,
                             struct span text);
/* Whether the turn of a held request has come; msgid_take hands it over (held_free), or NULL. */
bool msgid_due(const struct msgid_in *in);
struct held_request *msgid_take(struct msgid_in *in);
void held_free(struct held_request *r);

/* out->flight is the next request: takes its number, and waits for the answer. */
void msgid_request(struct msgid_out *out);
/* Whether a response with this number is the awaited one. */
bool msgid_awaited(const struct msgid_out *out, uint32_t id);
/* The exchange is over: retransmission stops, the request is wiped. */
void msgid_done(struct msgid_out *out);

/* How long to wait for an answer after the tries'th retransmission: exponential, with 10 % jitter. */
ns_t msgid_wait(unsigned tries, const struct random_source *rnd);

void msgid_free(struct msgid_in *in, struct msgid_out *out);

#endif
