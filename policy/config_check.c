/* What only the whole configuration shows. */
#include <stdlib.h>

#include "policy/classifier.h"
#include "policy/config_internal.h"

/* -- policies -- */

/* Could a packet match both sides? */
static bool compatible(const struct selector *local, const struct selector *remote)
{
    return local->range.first.family == remote->range.first.family &&
           (local->proto == 0 || remote->proto == 0 || local->proto == remote->proto);
}

static void check_pairs(struct loading *l, const struct policy *p)
{
    for (unsigned i = 0; i < p->local.n; i++)
        for (unsigned j = 0; j < p->remote.n; j++)
            if (compatible(&p->local.v[i], &p->remote.v[j]))
                return;
    if (p->local.n && p->remote.n)
        complain(l, p->line,
                 "found 'local' and 'remote' of '%s' that no packet can match together, expected one family "
                 "and protocol on both sides",
                 p->name);
}

static bool all_within(const struct selectors *inner, const struct selectors *outer)
{
    for (unsigned i = 0; i < inner->n; i++) {
        bool covered = false;
        for (unsigned j = 0; j < outer->n && !covered; j++)
            covered = selector_within(&inner->v[i], &outer->v[j]);
        if (!covered)
            return false;
    }
    return inner->n > 0;
}

/* Policies that others may cover; ctx of `covers_all`. */
struct shadowing {
    const struct policy *const *all;
    const struct policy *inner;
};

static bool covers_all(const void *ctx, uint32_t outer)
{
    const struct shadowing *s = ctx;
    return all_within(&s->inner->remote, &s->all[outer]->remote) && all_within(&s->inner->local, &s->all[outer]->local);
}

/* What covers a policy covers each of its boxes: so the first one leads to it. `told` has who has had one before. */
static enum err check_shadows_of(struct loading *l, uint8_t family, bool *told)
{
    const struct config *c = l->config;
    struct regions regions = {0};
    struct classifier *boxes = NULL;
    enum err e = OK;
    for (unsigned i = 0; i < c->policy_count && e == OK; i++)
        e = regions_add(&regions, &c->policies[i]->local, &c->policies[i]->remote, i, family);
    if (e == OK)
        e = classifier_new(&boxes, region_axes(family), &regions);
    for (size_t i = 0; i < regions.n && e == OK; i++) {
        const struct region *r = &regions.v[i];
        const struct policy *p = c->policies[r->entry];
        const struct shadowing s = {(const struct policy *const *)c->policies, p};
        if (told[r->entry])
            continue;
        told[r->entry] = true;
        uint32_t first = classifier_covering(boxes, r, r->entry, covers_all, &s);
        if (first != CLASSIFIER_NONE)
            warn(l, p->line, "policy '%s' never matches: '%s' on line %u comes first and covers it", p->name,
                 c->policies[first]->name, c->policies[first]->line);
    }
    classifier_free(boxes);
    regions_free(&regions);
    return e;
}

/* Without memory for it the warnings are left out: what can't be loaded for that will be told elsewhere. */
static void check_shadows(struct loading *l)
{
    bool *told = calloc(l->config->policy_count + 1, sizeof(*told));
    if (told && check_shadows_of(l, 4, told) == OK)
        (void)check_shadows_of(l, 6, told);
    free(told);
}

static void check_ah(struct loading *l, const struct policy *p)
{
    if (p->action != ACTION_PROTECT || !p->peer || policy_protocol(p) != PROTOCOL_AH)
        return;
    if (p->tfc.n || p->dummies)
        complain(l, p->line, "found 'ah' and '%s' in '%s', expected one of them: AH hides nothing",
                 p->tfc.n ? "tfc" : "dummies", p->name);
    if (p->peer->encap == ENCAP_UDP)
        complain(l, p->line,
                 "found 'ah' in '%s' and encap = udp in its peer '%s', expected 'esp': AH doesn't go in UDP", p->name,
                 p->peer->name);
}

static void check_policies(struct loading *l)
{
    const struct config *c = l->config;
    for (unsigned i = 0; i < c->policy_count; i++) {
        const struct policy *p = c->policies[i];
        check_pairs(l, p);
        check_ah(l, p);
        if (p->fail_open)
            warn(l, p->line, "policy '%s' has fail-open: what it protects leaves in the clear while there is no SA",
                 p->name);
        const struct policy *last = config_policy(c, p->name);
        if (last != p)
            complain(l, last->line,
                     "found a second policy of the name '%s', expected another name: the first is on line %u", p->name,
                     p->line);
    }
    check_shadows(l);
}

/* -- peers and host -- */

static void check_peers(struct loading *l)
{
    const struct config *c = l->config;
    bool *used = calloc(c->peer_count + 1, sizeof *used);
    for (unsigned i = 0; i < c->policy_count && used; i++)
        if (c->policies[i]->peer)
            used[c->policies[i]->peer->number] = true;
    for (unsigned i = 0; i < c->peer_count && used; i++) {
        if (!used[i])
            warn(l, c->peers[i]->line, "peer '%s' has neither 'local' and 'remote' nor a [policy] that names it",
                 c->peers[i]->name);
    }
    free(used);
}

static bool covers(const struct selectors *list, const struct ip_range *range)
{
    for (unsigned i = 0; i < list->n; i++)
        if (range_within(range, &list->v[i].range))
            return true;
    return false;
}

static void check_addresses(struct loading *l)
{
    const struct config *c = l->config;
    for (unsigned i = 0; i < c->host.addresses; i++) {
        char text[PREFIX_TEXT];
        struct ip_range range = prefix_range(&c->host.address[i]);
        bool covered = false;
        for (unsigned j = 0; j < c->policy_count && !covered; j++)
            covered = covers(&c->policies[j]->local, &range) || covers(&c->policies[j]->remote, &range);
        if (!covered)
            warn(l, c->host.address_line, "no policy covers the network of address %s: its packets are discarded",
                 prefix_format(&c->host.address[i], text));
    }
}

void config_check(struct loading *l)
{
    if (l->errors == 0 && l->config->peer_count == 0 && l->config->policy_count == 0)
        warn(l, 0, "the file has neither a peer nor a policy: every packet is discarded");
    if (l->inline_secret && l->exposed)
        warn(l, l->inline_secret,
             "this file holds a secret and can be read by others than its owner: chmod 600 it, or "
             "use file:PATH");
    check_policies(l);
    check_peers(l);
    check_addresses(l);
}
