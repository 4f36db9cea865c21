/*
 * The addresses by which a peer is known: those of its endpoint list, and those its names have at the moment. An attempt
 * goes to one of them, the next attempt to the next; names are looked up again before each attempt but the first.
 */
#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"

#define LOOKUP_PATIENCE \
    (10 * NS_PER_S)                  /* an attempt waits that long for names; an answer that comes later counts, too */
#define LOOKUP_AGAIN (30 * NS_PER_S) /* what nobody's attempt asks for: at most that often */
#define DOUBT_AGAIN NS_PER_S         /* strangers make us walk all peers at most that often */

static void restart(struct run *r)
{
    r->candidate = 0;
    r->stale = peer_has_names(r->peer);
}

void candidates_init(struct run *r)
{
    r->candidate_count = peer_addresses(r->peer, r->candidates);
    restart(r);
}

/* Its answer is not waited for any longer. */
static void lookup_over(struct run *r)
{
    hash_remove(&r->e->lookups, &r->by_lookup);
    r->lookup = 0;
}

void candidates_free(struct run *r)
{
    lookup_over(r);
}

/* Asks for the names, unless an answer is due. */
static void look_up(struct run *r)
{
    struct ike_engine *e = r->e;
    if (r->lookup || !e->env.resolve)
        return;
    r->looked_up = e->now;
    r->lookup = ++e->next_lookup;
    hash_add(&e->lookups, &r->by_lookup, r->lookup);
    enum err err = e->env.resolve(e->env.ctx, r->lookup, r->peer);
    if (err != OK) {
        lookup_over(r);
        snprintf(r->lookup_why, sizeof r->lookup_why, "its names could not be looked up: %s", err_text(err));
    }
    timer_set(&e->timers, &r->patience, e->now + (err == OK ? LOOKUP_PATIENCE : LOOKUP_AGAIN));
}

void patience_fire(struct timer *t, void *ctx, ns_t now)
{
    struct run *r = CONTAINER_OF(t, struct run, patience);
    (void)ctx;
    (void)now;
    if (!r->lookup && !r->candidate_count)
        look_up(r); /* whoever only waits for the peer needs its address as well */
    run_kick(r);
}

bool candidates_wait(struct run *r)
{
    if (r->stale)
        look_up(r);
    return r->lookup && r->e->now < r->looked_up + LOOKUP_PATIENCE;
}

void candidates_next(struct run *r)
{
    r->candidate++;
    r->more = r->candidate < r->candidate_count;
    if (!r->more)
        r->candidate = 0;
    r->stale = peer_has_names(r->peer);
}

void candidates_restart(struct run *r)
{
    restart(r);
}

void candidates_prefer(struct run *r, const struct ip *ip)
{
    for (unsigned i = 0; i < r->candidate_count; i++)
        if (ip_equal(&r->candidates[i].ip, ip)) {
            r->candidate = i;
            return;
        }
}

bool candidates_have(const struct run *r, const struct ip *ip)
{
    for (unsigned i = 0; i < r->candidate_count; i++)
        if (ip_equal(&r->candidates[i].ip, ip))
            return true;
    return false;
}

void candidates_doubt(struct ike_engine *e)
{
    if (e->doubted && e->now - e->doubted < DOUBT_AGAIN)
        return;
    e->doubted = e->now;
    for (unsigned i = 0; i < e->run_count; i++) {
        struct run *r = e->runs[i];
        if (peer_has_names(r->peer) && e->now - r->looked_up >= LOOKUP_AGAIN)
            look_up(r);
    }
}

void candidates_start(struct run *r)
{
    if (r->stale && !r->looked_up)
        look_up(r);
}

/* Attempts go on behind the address of the last one; names are handed out in changing order. */
static void replace(struct run *r, const struct endpoint *v, unsigned n)
{
    struct endpoint next = r->candidates[r->candidate];
    bool begun = r->candidate != 0;
    r->candidate_count = n < PEER_CANDIDATES ? n : PEER_CANDIDATES;
    memcpy(r->candidates, v, r->candidate_count * sizeof *v);
    r->candidate = 0;
    for (unsigned i = 0; begun && i < r->candidate_count; i++)
        if (endpoint_equal(&r->candidates[i], &next))
            r->candidate = i;
    choose_moved(r);
}

void ike_resolved(struct ike_engine *e, uint64_t lookup, const struct endpoint *v, unsigned n, const char *why,
                  ns_t now)
{
    struct hash_link *l = hash_find(&e->lookups, lookup);
    e->now = now;
    if (!l) /* the configuration was changed meanwhile */
        return;
    struct run *r = CONTAINER_OF(l, struct run, by_lookup);
    lookup_over(r);
    r->stale = false;
    snprintf(r->lookup_why, sizeof r->lookup_why, "%s", why);
    if (n) /* else what it had before is as good a guess as any */
        replace(r, v, n);
    if (r->candidate_count)
        timer_cancel(&e->timers, &r->patience);
    else
        timer_set(&e->timers, &r->patience, now + LOOKUP_AGAIN);
    if (why[0])
        run_note(r, why, false);
    run_kick(r);
    engine_leave(e);
}

unsigned ike_candidates(const struct ike_engine *e, const struct peer *peer, struct endpoint *out, unsigned *current)
{
    const struct run *r = run_of(e, peer);
    if (!r)
        return 0;
    memcpy(out, r->candidates, r->candidate_count * sizeof *out);
    *current = r->candidate;
    return r->candidate_count;
}
