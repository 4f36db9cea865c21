/* Where Child SAs are found: by the engine's number, and those of one policy together. */
#include <stdlib.h>

#include "ike/internal.h"

static uint64_t policy_key(const struct policy *policy)
{
    return (uint64_t)(uintptr_t)policy;
}

static struct child_group *group_of(const struct ike_engine *e, const struct policy *policy)
{
    struct hash_link *l = policy ? hash_find(&e->child_groups, policy_key(policy)) : NULL;
    return l ? CONTAINER_OF(l, struct child_group, link) : NULL;
}

static uint64_t part_key(const struct child *c)
{
    uint8_t bytes[IDENTITY_FOLDED];
    return siphash(c->sa->e->table.key, span_of(bytes, identity_fold(&c->sa->remote_id, bytes)));
}

/* Of a shared policy: whether one takes over from the other. */
static bool same_part(const struct child *a, const struct child *b)
{
    return a->group == b->group && identity_equal(&a->sa->remote_id, &b->sa->remote_id) &&
           selectors_equal(&a->local, &b->local) && selectors_equal(&a->remote, &b->remote);
}

/* The newest of the same part, and then the one before it. */
static struct child *part_from(struct hash_link *l, const struct child *c)
{
    while (l && !same_part(CONTAINER_OF(l, struct child, by_part), c))
        l = hash_next(l);
    return l ? CONTAINER_OF(l, struct child, by_part) : NULL;
}

/* The newest for the same traffic, and then the one before it. */
static struct child *same_traffic(const struct child *c)
{
    if (c->by_part.at)
        return part_from(hash_find(&c->sa->e->child_parts, c->by_part.key), c);
    return c->group->first;
}

static struct child *same_traffic_next(const struct child *one, const struct child *c)
{
    return c->by_part.at ? part_from(hash_next(&one->by_part), c) : one->group_next;
}

const struct policy *child_policy(const struct child *c)
{
    return c->group ? c->group->policy : NULL;
}

const struct policy *child_named(const struct child *c)
{
    return c->group && c->group->was ? c->group->was : child_policy(c);
}

bool child_enlist(struct ike_engine *e, struct child *c, const struct policy *policy)
{
    struct child_group *g = group_of(e, policy);
    if (!g) {
        g = calloc(1, sizeof *g);
        if (!g)
            return false;
        g->policy = policy;
        hash_add(&e->child_groups, &g->link, policy_key(g->policy));
    }
    c->group = g;
    c->group_at = &g->first;
    c->group_next = g->first;
    if (c->group_next)
        c->group_next->group_at = &c->group_next;
    g->first = c;
    hash_add(&e->children, &c->by_id, c->id);
    if (policy_shared(policy))
        hash_add(&e->child_parts, &c->by_part, part_key(c));
    return true;
}

void child_orphan(struct ike_engine *e, struct child *c)
{
    struct child_group *g = c->group;
    hash_remove(&e->child_parts, &c->by_part);
    if (!g)
        return;
    c->group = NULL;
    *c->group_at = c->group_next;
    if (c->group_next)
        c->group_next->group_at = c->group_at;
    if (g->sender == c)
        g->sender = NULL;
    if (g->first)
        return;
    hash_remove(&e->child_groups, &g->link);
    free(g);
}

void child_unlist(struct ike_engine *e, struct child *c)
{
    hash_remove(&e->children, &c->by_id);
    child_orphan(e, c);
}

void child_takes_traffic(struct child *c)
{
    struct child_group *g = c->group;
    if (c->by_part.at) {
        for (struct child *o = same_traffic(c); o; o = same_traffic_next(o, c))
            o->sending = false;
    } else if (g) {
        if (g->sender)
            g->sender->sending = false;
        g->sender = c;
    }
    c->sending = c->activated = true;
}

struct child *child_successor(const struct child *c)
{
    for (struct child *o = child_policy(c) ? same_traffic(c) : NULL; o; o = same_traffic_next(o, c))
        if (o != c && o->state == CHILD_LIVE && o->installed)
            return o;
    return NULL;
}

struct child *child_find(const struct ike_engine *e, uint64_t id)
{
    struct hash_link *l = hash_find(&e->children, id);
    return l ? CONTAINER_OF(l, struct child, by_id) : NULL;
}

struct child *child_live(const struct ike_engine *e, const struct policy *policy)
{
    const struct child_group *g = group_of(e, policy);
    for (struct child *c = g ? g->first : NULL; c; c = c->group_next)
        if (c->state == CHILD_LIVE && c->installed)
            return c;
    return NULL;
}

void child_group_move(struct ike_engine *e, const struct policy *from, const struct policy *to)
{
    struct child_group *g = group_of(e, from);
    if (!g)
        return;
    hash_remove(&e->child_groups, &g->link);
    g->policy = to;
    g->was = to ? NULL : from;
    if (to)
        hash_add(&e->child_groups, &g->link, policy_key(to));
}
