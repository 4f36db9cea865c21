/*
 * How many attempts of ours may be under way at once. A gateway with thousands of peers would otherwise send to all of
 * them at its start, faster than it can handle the answers and than one peer that they share lets strangers come in.
 * What a person or traffic asks for does not wait, and an attempt that was not answered at once holds nobody up.
 */
#include "ike/internal.h"

#define ATTEMPTS_AT_ONCE 96 /* below what makes a peer demand cookies: 100 half-open SAs, if it is one of ours */

bool pace_admits(struct run *r)
{
    struct ike_engine *e = r->e;
    if (e->fresh < ATTEMPTS_AT_ONCE)
        return true;
    if (!r->waiting_at) {
        r->waiting_at = e->waiting_end ? e->waiting_end : &e->waiting;
        *r->waiting_at = r;
        e->waiting_end = &r->waiting_next;
    }
    return false;
}

void pace_forget(struct run *r)
{
    struct ike_engine *e = r->e;
    if (!r->waiting_at)
        return;
    *r->waiting_at = r->waiting_next;
    if (r->waiting_next)
        r->waiting_next->waiting_at = r->waiting_at;
    else
        e->waiting_end = r->waiting_at;
    r->waiting_next = NULL;
    r->waiting_at = NULL;
}

void pace_begin(struct ike_sa *sa)
{
    sa->fresh = true;
    sa->e->fresh++;
}

void pace_end(struct ike_sa *sa)
{
    if (!sa->fresh)
        return;
    sa->fresh = false;
    sa->e->fresh--;
}

void pace_resume(struct ike_engine *e)
{
    while (e->waiting && e->fresh < ATTEMPTS_AT_ONCE) {
        struct run *r = e->waiting;
        pace_forget(r);
        run_kick(r);
    }
}
