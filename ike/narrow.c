#include "ike/narrow.h"

/* Adds v unless it is covered already; what v covers goes. When full, the rest is narrowed away, which is legal. */
static void add(struct selectors *list, const struct selector *v)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < list->n; i++)
        if (selector_within(v, &list->v[i]))
            return;
    for (unsigned i = 0; i < list->n; i++)
        if (!selector_within(&list->v[i], v))
            list->v[kept++] = list->v[i];
    list->n = (uint8_t)kept;
    if (list->n < SELECTORS_MAX)
        list->v[list->n++] = *v;
}

/*
 * Every offered selector cut to every allowed one, in the order of the offer, so that the first choice (the packet that
 * triggered the request) is in before anything can be full.
 */
static void intersect(const struct selectors *offered, const struct selectors *allowed, struct selectors *out)
{
    out->n = 0;
    for (unsigned i = 0; i < offered->n; i++) {
        for (unsigned k = 0; k < allowed->n; k++) {
            struct selector both;
            if (selector_intersect(&offered->v[i], &allowed->v[k], &both))
                add(out, &both);
        }
    }
}

/* Some packet can match both: one family, and protocols that agree. */
static bool pair(const struct selector *a, const struct selector *b)
{
    return a->range.first.family == b->range.first.family && (a->proto == b->proto || a->proto == 0 || b->proto == 0);
}

/* Drops from list what has no counterpart on the other side: an IPv6 range when the other side is all IPv4. */
static void drop_unpaired(struct selectors *list, const struct selectors *other)
{
    unsigned kept = 0;
    for (unsigned i = 0; i < list->n; i++) {
        bool paired = false;
        for (unsigned k = 0; k < other->n && !paired; k++)
            paired = pair(&list->v[i], &other->v[k]);
        if (paired)
            list->v[kept++] = list->v[i];
    }
    list->n = (uint8_t)kept;
}

enum err narrow_offer(const struct selectors *tsi, const struct selectors *tsr, const struct policy *policy,
                      struct selectors *local, struct selectors *remote)
{
    struct selectors l, r;
    intersect(tsr, &policy->local, &l);
    intersect(tsi, &policy->remote, &r);
    drop_unpaired(&l, &r);
    drop_unpaired(&r, &l);
    if (l.n == 0 || r.n == 0)
        return ERR_MISMATCH;
    *local = l;
    *remote = r;
    return OK;
}

bool narrow_covers(const struct selector *s, const struct selectors *list)
{
    for (unsigned i = 0; i < list->n; i++)
        if (selector_within(s, &list->v[i]))
            return true;
    return false;
}

bool narrow_first(const struct selectors *tsi, const struct selectors *tsr, const struct policy *policy)
{
    return tsi->n && tsr->n && narrow_covers(&tsi->v[0], &policy->remote) && narrow_covers(&tsr->v[0], &policy->local);
}

enum err narrow_check(const struct selectors *answer, const struct selectors *offered)
{
    for (unsigned i = 0; i < answer->n; i++)
        if (!narrow_covers(&answer->v[i], offered))
            return ERR_MISMATCH;
    return answer->n == 0 ? ERR_MISMATCH : OK;
}
