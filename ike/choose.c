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

/* For all that is said before IKE_AUTH these two, at one place, are the same. */
static bool alike(const struct peer *a, const struct peer *b)
{
    return a->endpoint_any == b->endpoint_any && proposals_equal(&a->ike, &b->ike) && a->encap == b->encap &&
           a->ah == b->ah && a->fragmentation == b->fragmentation && a->childless == b->childless &&
           !a->ppk.len == !b->ppk.len && a->auth.remote == b->auth.remote &&
           !a->auth.public_key == !b->auth.public_key && a->auth.trust == b->auth.trust;
}

/*
 * One of those that are alike stands for all: thousands of peers with %any cost a message of a stranger no more than one
 * does. Not one whose names may have another address tomorrow.
 */
static void hide_alike(struct ike_engine *e, const struct run *r, const struct ip *ip, uint64_t key)
{
    for (struct hash_link *l = hash_find(&e->run_addresses, key); l; l = hash_next(l)) {
        const struct run *other = CONTAINER_OF(l, struct place, by_address)->run;
        bool here = !ip || candidates_have(other, ip);
        if (here && !peer_has_names(other->peer) && alike(other->peer, r->peer)) {
            hash_remove(&e->run_addresses, l);
            return;
        }
    }
}

/* ip NULL: anywhere. */
static void place_add(struct run *r, const struct ip *ip)
{
    struct ike_engine *e = r->e;
    struct place *p = &r->places[r->place_count++];
    uint64_t key = address_key(e, !ip, ip);
    p->run = r;
    if (!peer_has_names(r->peer))
        hide_alike(e, r, ip, key);
    hash_add(&e->run_addresses, &p->by_address, key);
    if (r->peer->remote_id_any)
        hash_add(&e->run_open, &p->by_id, key);
}

void places_add(struct run *r)
{
    if (r->peer->endpoint_any) {
        place_add(r, NULL);
        return;
    }
    for (unsigned i = 0; i < r->candidate_count; i++) {
        unsigned earlier = 0;
        while (!ip_equal(&r->candidates[earlier].ip, &r->candidates[i].ip))
            earlier++;
        if (earlier == i)
            place_add(r, &r->candidates[i].ip);
    }
}

void places_remove(struct run *r)
{
    for (unsigned i = 0; i < r->place_count; i++) {
        hash_remove(&r->e->run_addresses, &r->places[i].by_address);
        hash_remove(&r->e->run_open, &r->places[i].by_id);
    }
    r->place_count = 0;
}

void choose_unload(struct ike_engine *e)
{
    for (unsigned i = 0; i < e->run_count; i++) {
        places_remove(e->runs[i]);
        hash_remove(&e->run_names, &e->runs[i]->by_id);
        hash_remove(&e->run_keys, &e->runs[i]->by_key);
    }
    hash_free(&e->run_addresses);
    hash_free(&e->run_open);
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
        places_add(r);
        add_key(e, r);
        if (!r->peer->remote_id_any)
            hash_add(&e->run_names, &r->by_id, name_key(e, &r->peer->remote_id));
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
        struct run *r = CONTAINER_OF(s->at, struct place, by_address)->run;
        if (r->peer->endpoint_any || candidates_have(r, &s->from))
            return r;
    }
}

/* Nothing in common with this peer: noted for it, and added to what is told about all of them. */
static void blame(struct run *run, const char *why, char *all, size_t size)
{
    char text[TEXT_MAX];
    size_t used = strlen(all);
    snprintf(text, sizeof text, "no IKE proposal in common: %s", why);
    run_note(run, text, false);
    snprintf(all + used, size - used, "%s%s: %s", used ? "; " : "", run->peer->name, why); /* what fits */
}

bool choose_proposal(struct ike_engine *e, const struct path *path, const struct ike_message *m, struct choice *out,
                     char *why, size_t why_size)
{
    char one[TEXT_MAX / 2];
    struct strangers all = strangers_at(e, &path->remote.ip);
    why[0] = 0;
    for (struct run *r; (r = stranger_next(&all)) != NULL;) {
        enum err err = proposal_choose(m->sa, &r->peer->ike, m->ke_group, true, out, one, sizeof one);
        if (err == OK && out->spi_len == 0) /* the header has the SPIs (section 3.3.1) */
            return true;
        if (err != ERR_MISMATCH)
            snprintf(one, sizeof one, "its proposals are malformed");
        blame(r, one, why, why_size);
    }
    return false;
}

struct claims claims_of(const struct ike_sa *sa, const struct identity *idi)
{
    const struct ike_engine *e = sa->e;
    const struct ip *from = &sa->path.remote.ip;
    return (struct claims){
        .e = e, .name = name_key(e, idi), .here = address_key(e, false, from), .any = address_key(e, true, from)};
}

#define LIST_NAMES 1 /* the lists, one after the other */
#define LIST_KEYS 2
#define LIST_HERE 3
#define LIST_ANYWHERE 4

/* Those of peers that name nobody are not for who was named. */
static struct hash_link *next_list(struct claims *c)
{
    switch (++c->list) {
    case LIST_NAMES:
        return hash_find(&c->e->run_names, c->name);
    case LIST_KEYS:
        return hash_find(&c->e->run_keys, c->name);
    case LIST_HERE:
        return c->enough ? NULL : hash_find(&c->e->run_open, c->here);
    default:
        return c->enough ? NULL : hash_find(&c->e->run_open, c->any);
    }
}

struct run *claim_next(struct claims *c)
{
    c->at = c->at ? hash_next(c->at) : NULL;
    while (!c->at && c->list < LIST_ANYWHERE)
        c->at = next_list(c);
    if (!c->at)
        return NULL;
    switch (c->list) {
    case LIST_NAMES:
        return CONTAINER_OF(c->at, struct run, by_id);
    case LIST_KEYS:
        return CONTAINER_OF(c->at, struct run, by_key);
    default:
        return CONTAINER_OF(c->at, struct place, by_id)->run;
    }
}
