/* Which configured peer a message is for, found by its sender's address and by identities, not by asking each peer. */
#include <stdio.h>

#include "ike/internal.h"

/* -- keys of the two tables; strangers choose what is looked up -- */

/* Of peers at one address, or at any. */
static uint64_t address_key(const struct ike_engine *e, bool any, const struct ip *ip)
{
    uint8_t bytes[2 + sizeof ip->b] = {any, any ? 0 : ip->family};
    if (!any)
        memcpy(bytes + 2, ip->b, sizeof ip->b);
    return siphash(e->table.key, span_of(bytes, sizeof bytes));
}

static uint64_t name_key(const struct ike_engine *e, const struct identity *id)
{
    uint8_t bytes[IDENTITY_FOLDED];
    return siphash(e->table.key, span_of(bytes, identity_fold(id, bytes)));
}

/* -- filling them -- */

static bool same_place(const struct peer *a, const struct peer *b)
{
    return a->endpoint_any == b->endpoint_any && (a->endpoint_any || ip_equal(&a->endpoint.ip, &b->endpoint.ip));
}

/* For all that is said before IKE_AUTH these two are the same. */
static bool alike(const struct peer *a, const struct peer *b)
{
    return same_place(a, b) && proposals_equal(&a->ike, &b->ike) && a->fragmentation == b->fragmentation &&
           a->childless == b->childless && !a->ppk.len == !b->ppk.len && a->auth.remote == b->auth.remote &&
           !a->auth.public_key == !b->auth.public_key && a->auth.trust == b->auth.trust;
}

/*
 * One of those that are alike stands for all: thousands of peers with %any cost a message of a stranger no more than one
 * does.
 */
static void add_address(struct ike_engine *e, struct run *r)
{
    const struct peer *p = r->peer;
    uint64_t key = address_key(e, p->endpoint_any, &p->endpoint.ip);
    for (struct hash_link *l = hash_find(&e->run_addresses, key); l; l = hash_next(l)) {
        const struct peer *other = CONTAINER_OF(l, struct run, by_address)->peer;
        if (alike(other, p)) {
            hash_remove(&e->run_addresses, l);
            break;
        }
    }
    hash_add(&e->run_addresses, &r->by_address, key);
}

void choose_unload(struct ike_engine *e)
{
    for (unsigned i = 0; i < e->run_count; i++) {
        hash_remove(&e->run_addresses, &e->runs[i]->by_address);
        hash_remove(&e->run_names, &e->runs[i]->by_id);
        hash_remove(&e->run_keys, &e->runs[i]->by_key);
    }
    hash_free(&e->run_addresses);
    hash_free(&e->run_names);
    hash_free(&e->run_keys);
}

/* A raw key without a configured id goes by its fingerprint as well (DESIGN: Identities). */
static void add_key(struct ike_engine *e, struct run *r)
{
    struct identity id = {.type = ID_KEY_ID, .len = KEY_FINGERPRINT};
    if (!r->peer->remote_id_any || !r->peer->auth.public_key)
        return;
    memcpy(id.b, r->peer->auth.fingerprint, KEY_FINGERPRINT);
    hash_add(&e->run_keys, &r->by_key, name_key(e, &id));
}

/* What is added last is found first: backwards, so that peers are found in the configuration's order. */
void choose_load(struct ike_engine *e)
{
    for (unsigned i = e->run_count; i-- > 0;) {
        struct run *r = e->runs[i];
        const struct peer *p = r->peer;
        add_address(e, r);
        add_key(e, r);
        hash_add(&e->run_names, &r->by_id,
                 p->remote_id_any ? address_key(e, p->endpoint_any, &p->endpoint.ip) : name_key(e, &p->remote_id));
    }
}

/* -- asking them -- */

struct strangers strangers_at(const struct ike_engine *e, const struct ip *from)
{
    return (struct strangers){.e = e, .from = *from};
}

struct run *stranger_next(struct strangers *s)
{
    for (;;) {
        s->at = s->at ? hash_next(s->at) : NULL;
        while (!s->at && s->lists < 2) {
            s->at = hash_find(&s->e->run_addresses, address_key(s->e, s->lists == 1, &s->from));
            s->lists++;
        }
        if (!s->at)
            return NULL;
        struct run *r = CONTAINER_OF(s->at, struct run, by_address);
        if (r->peer->endpoint_any || ip_equal(&r->peer->endpoint.ip, &s->from))
            return r;
    }
}

bool choose_proposal(struct ike_engine *e, const struct path *path, const struct ike_message *m, struct choice *out,
                     struct run **who, char *why, size_t why_size)
{
    struct strangers all = strangers_at(e, &path->remote.ip);
    *who = NULL;
    for (struct run *r; (r = stranger_next(&all)) != NULL;) {
        enum err err = proposal_choose(m->sa, &r->peer->ike, m->ke_group, true, out, why, why_size);
        if (err == OK && out->spi_len == 0) /* the header has the SPIs (section 3.3.1) */
            return true;
        if (err != ERR_MISMATCH)
            snprintf(why, why_size, "its proposals are malformed");
        *who = r;
    }
    return false;
}

struct candidates candidates_of(const struct ike_sa *sa, const struct identity *idi)
{
    const struct ike_engine *e = sa->e;
    const struct ip *from = &sa->path.remote.ip;
    return (struct candidates){
        .e = e, .name = name_key(e, idi), .here = address_key(e, false, from), .any = address_key(e, true, from)};
}

/* The lists one after the other. Those of peers that name nobody are not for who was named. */
static struct hash_link *next_list(struct candidates *c)
{
    switch (c->list++) {
    case 0:
        return hash_find(&c->e->run_names, c->name);
    case 1:
        return hash_find(&c->e->run_keys, c->name);
    case 2:
        return c->enough ? NULL : hash_find(&c->e->run_names, c->here);
    default:
        return c->enough ? NULL : hash_find(&c->e->run_names, c->any);
    }
}

struct run *candidate_next(struct candidates *c)
{
    c->at = c->at ? hash_next(c->at) : NULL;
    while (!c->at && c->list < 4)
        c->at = next_list(c);
    if (!c->at)
        return NULL;
    return c->list == 2 ? CONTAINER_OF(c->at, struct run, by_key) : CONTAINER_OF(c->at, struct run, by_id);
}
