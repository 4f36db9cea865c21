#include "policy/bypass.h"

#include <stdlib.h>

/* -- lists of ranges -- */

void ip_ranges_free(struct ip_ranges *r)
{
    free(r->v);
    *r = (struct ip_ranges){0};
}

static enum err ranges_add(struct ip_ranges *r, const struct ip_range *range)
{
    if (r->n == r->cap) {
        unsigned cap = r->cap ? r->cap * 2 : 8;
        struct ip_range *v = realloc(r->v, cap * sizeof *v);
        if (!v)
            return ERR_NOMEM;
        r->v = v;
        r->cap = cap;
    }
    r->v[r->n++] = *range;
    return OK;
}

/* Takes `cut` out of all ranges from the i-th on. */
static enum err ranges_cut(struct ip_ranges *r, unsigned i, const struct ip_range *cut)
{
    while (i < r->n) {
        struct ip_range left[2];
        unsigned n = range_subtract(&r->v[i], cut, left);
        if (n == 0) {
            r->v[i] = r->v[--r->n];
            continue;
        }
        r->v[i++] = left[0];
        if (n == 2)
            TRY(ranges_add(r, &left[1])); /* looked at once more, and found to lie outside the cut */
    }
    return OK;
}

/* -- who takes what -- */

/* Does `by` take, with any protocol, all the sources of that family that `of` takes? */
static bool sources_within(const struct policy *of, const struct policy *by, uint8_t family)
{
    for (unsigned i = 0; i < of->local.n; i++) {
        const struct ip_range *range = &of->local.v[i].range;
        bool found = range->first.family != family;
        for (unsigned j = 0; j < by->local.n && !found; j++)
            found = by->local.v[j].proto == 0 && range_within(range, &by->local.v[j].range);
        if (!found)
            return false;
    }
    return true;
}

/*
 * Must the destinations of both `bypass` (by this selector of its) and `other` go to the TUN? Not if `other` comes
 * later and gets none of the packets to them.
 */
static bool needs_tun(const struct policy *other, bool earlier, const struct policy *bypass, const struct selector *s)
{
    if (other->action == ACTION_BYPASS)
        return false;
    return earlier || s->proto != 0 || !sources_within(other, bypass, s->range.first.family);
}

static enum err ranges_of(const struct config *c, unsigned at, const struct selector *s, struct ip_ranges *out)
{
    unsigned first = out->n;
    if (s->proto != 0)
        return OK;
    TRY(ranges_add(out, &s->range));
    for (unsigned i = 0; i < c->policy_count; i++) {
        const struct policy *other = c->policies[i];
        if (!needs_tun(other, i < at, c->policies[at], s))
            continue;
        for (unsigned k = 0; k < other->remote.n; k++)
            TRY(ranges_cut(out, first, &other->remote.v[k].range));
    }
    return OK;
}

enum err bypass_ranges(const struct config *c, struct ip_ranges *out)
{
    *out = (struct ip_ranges){0};
    for (unsigned i = 0; i < c->policy_count; i++) {
        const struct policy *p = c->policies[i];
        for (unsigned k = 0; p->action == ACTION_BYPASS && k < p->remote.n; k++)
            TRY(ranges_of(c, i, &p->remote.v[k], out));
    }
    return OK;
}

/* -- what can't be kept out -- */

/* Only what is protected gets a route to the TUN. */
static bool routed(const struct config *c, const struct ip_range *range)
{
    struct ip_range both;
    for (unsigned i = 0; i < c->policy_count; i++)
        for (unsigned k = 0; c->policies[i]->action == ACTION_PROTECT && k < c->policies[i]->remote.n; k++)
            if (range_intersect(range, &c->policies[i]->remote.v[k].range, &both))
                return true;
    return false;
}

/* Is `other`, in the places where they meet, in the way of this selector of the bypass? */
static bool conflict(const struct config *c, const struct policy *other, bool earlier, const struct policy *bypass,
                     const struct selector *s, struct ip_range *where)
{
    if (!needs_tun(other, earlier, bypass, s))
        return false;
    /* What comes first and takes all of the packets leaves none to bypass. */
    bool first = earlier && sources_within(bypass, other, s->range.first.family);
    for (unsigned k = 0; k < other->remote.n; k++) {
        const struct selector *o = &other->remote.v[k];
        if (!(first && o->proto == 0) && range_intersect(&s->range, &o->range, where) && routed(c, where))
            return true;
    }
    return false;
}

const struct policy *bypass_conflict(const struct config *c, unsigned i, struct ip_range *where)
{
    const struct policy *p = c->policies[i];
    for (unsigned k = 0; p->action == ACTION_BYPASS && k < p->remote.n; k++)
        for (unsigned j = 0; j < c->policy_count; j++)
            if (conflict(c, c->policies[j], j < i, p, &p->remote.v[k], where))
                return c->policies[j];
    return NULL;
}
