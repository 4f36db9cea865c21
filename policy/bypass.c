#include "policy/bypass.h"

#include <stdlib.h>

#include "policy/overlap.h"

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

/* -- the map -- */

struct bypass_map {
    const struct config *config;
    struct overlaps others; /* remote ranges of what does not bypass: of policy a the selector b */
    unsigned *found;        /* room for the numbers of all of those */
};

enum err bypass_map_new(struct bypass_map **out, const struct config *c)
{
    struct bypass_map *m = calloc(1, sizeof *m);
    enum err e = m ? OK : ERR_NOMEM;
    for (unsigned i = 0; e == OK && i < c->policy_count; i++)
        for (unsigned k = 0; e == OK && c->policies[i]->action != ACTION_BYPASS && k < c->policies[i]->remote.n; k++)
            e = overlaps_add(&m->others, &c->policies[i]->remote.v[k].range, i, k);
    if (e == OK) {
        m->config = c;
        overlaps_sort(&m->others);
        m->found = calloc(m->others.n + 1, sizeof *m->found);
        e = m->found ? OK : ERR_NOMEM;
    }
    if (e != OK) {
        bypass_map_free(m);
        return e;
    }
    *out = m;
    return OK;
}

void bypass_map_free(struct bypass_map *m)
{
    if (!m)
        return;
    overlaps_free(&m->others);
    free(m->found);
    free(m);
}

/* One selector of the bypass at that place. */
struct question {
    struct bypass_map *map;
    unsigned at;
    const struct policy *bypass;
    const struct selector *s;
    unsigned n;                       /* found so far, for ranges_of */
    const struct overlap_item *first; /* the first in order, for bypass_conflict … */
    struct ip_range where;            /* … and where it is in the way */
};

static const struct policy *owner(const struct bypass_map *m, const struct overlap_item *item)
{
    return m->config->policies[item->a];
}

/* -- what can be kept out -- */

static bool note_cut(void *ctx, const struct overlap_item *item)
{
    struct question *q = ctx;
    if (needs_tun(owner(q->map, item), item->a < q->at, q->bypass, q->s))
        q->map->found[q->n++] = (unsigned)(item - q->map->others.v);
    return false;
}

static enum err ranges_of(struct bypass_map *m, unsigned at, const struct selector *s, struct ip_ranges *out)
{
    unsigned first = out->n;
    struct question q = {.map = m, .at = at, .bypass = m->config->policies[at], .s = s};
    if (s->proto != 0)
        return OK;
    TRY(ranges_add(out, &s->range));
    (void)overlaps_each(&m->others, &s->range, note_cut, &q);
    for (unsigned i = 0; i < q.n; i++)
        TRY(ranges_cut(out, first, &m->others.v[m->found[i]].range));
    return OK;
}

enum err bypass_ranges(struct bypass_map *m, struct ip_ranges *out)
{
    const struct config *c = m->config;
    *out = (struct ip_ranges){0};
    for (unsigned i = 0; i < c->policy_count; i++) {
        const struct policy *p = c->policies[i];
        for (unsigned k = 0; p->action == ACTION_BYPASS && k < p->remote.n; k++)
            TRY(ranges_of(m, i, &p->remote.v[k], out));
    }
    return OK;
}

/* -- what can't be kept out -- */

static bool is_protected(void *ctx, const struct overlap_item *item)
{
    return owner(ctx, item)->action == ACTION_PROTECT;
}

/* Only what is protected gets a route to the TUN. */
static bool routed(struct bypass_map *m, const struct ip_range *range)
{
    return overlaps_each(&m->others, range, is_protected, m);
}

/* Is it, in the places where they meet, in the way of this selector of the bypass? */
static bool conflicts(const struct question *q, const struct overlap_item *item, struct ip_range *where)
{
    const struct policy *other = owner(q->map, item);
    bool earlier = item->a < q->at;
    if (!needs_tun(other, earlier, q->bypass, q->s) || !range_intersect(&q->s->range, &item->range, where))
        return false;
    /* What comes first and takes all of the packets leaves none to bypass. */
    bool first = earlier && sources_within(q->bypass, other, q->s->range.first.family);
    return !(first && other->remote.v[item->b].proto == 0) && routed(q->map, where);
}

static bool note_conflict(void *ctx, const struct overlap_item *item)
{
    struct question *q = ctx;
    struct ip_range where;
    bool before = !q->first || item->a < q->first->a || (item->a == q->first->a && item->b < q->first->b);
    if (before && conflicts(q, item, &where)) {
        q->first = item;
        q->where = where;
    }
    return false;
}

const struct policy *bypass_conflict(struct bypass_map *m, unsigned i, struct ip_range *where)
{
    const struct policy *p = m->config->policies[i];
    for (unsigned k = 0; p->action == ACTION_BYPASS && k < p->remote.n; k++) {
        struct question q = {.map = m, .at = i, .bypass = p, .s = &p->remote.v[k]};
        (void)overlaps_each(&m->others, &p->remote.v[k].range, note_conflict, &q);
        if (q.first) {
            *where = q.where;
            return owner(m, q.first);
        }
    }
    return NULL;
}
