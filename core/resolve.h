/*
 * Names of endpoints to addresses, off the control thread. getaddrinfo has no deadline and can't be called back, so it
 * runs in threads that nobody waits for: at most RESOLVE_THREADS of them, and what is asked beyond that queues. They end
 * with the process, or when their lookup does, whichever comes first.
 */
#ifndef ADIT_RESOLVE_H
#define ADIT_RESOLVE_H

#include "policy/pad.h"

#define RESOLVE_THREADS 4
#define RESOLVE_QUEUE 4096 /* asked and not yet handed out */
#define RESOLVE_WHY 320

struct resolver;

/* The addresses of one list of endpoints, in its order; doubles are left out, and what exceeds the bound. */
struct resolved {
    uint64_t id;
    struct endpoint v[PEER_CANDIDATES];
    unsigned n;
    char why[RESOLVE_WHY]; /* the first name that has no address, and the reason; empty: all have one */
};

/* Errors: NOMEM, SYSTEM. */
MUST_USE enum err resolver_new(struct resolver **out);
void resolver_free(struct resolver *r); /* what is under way is forgotten; NULL is fine */

/* Readable (EPOLLIN) when resolver_next may have something. */
int resolver_fd(const struct resolver *r);
/* Looks up the names of a list, which is copied. Errors: NOMEM, FULL, SYSTEM (no thread). */
MUST_USE enum err resolver_ask(struct resolver *r, uint64_t id, const struct peer_endpoint *v, unsigned n);
/* The next answer; each question gets exactly one, in any order. False: none yet. */
bool resolver_next(struct resolver *r, struct resolved *out);

#endif
