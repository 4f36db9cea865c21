/* Which configured peer a message is for, found by its sender's address and by identities, not by asking each peer. */
#include <stdio.h>
#include <stdlib.h>

#include "ike/internal.h"

/* One address of a peer, by which strangers there are found to be him, perhaps. */
struct place {
    struct hash_link by_address, by_id;
    struct run *run;
};

/* Where a peer stands in one of the rolls. */
struct listing {
    struct hash_link by_id, by_key;
    struct run *run;
    const struct peer *peer; /* in the configuration that the roll is of */
    unsigned place_count;
    struct place places[]; /* room for all the addresses it may have */
};

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
static void hide_alike(struct roll *roll, unsigned number, const struct listing *s, const struct ip *ip, uint64_t key)
{
    for (struct hash_link *l = hash_find(&roll->addresses, key); l; l = hash_next(l)) {
        const struct run *other = CONTAINER_OF(l, struct place, by_address)->run;
        const struct peer *peer = other->listed[number]->peer;
        bool here = !ip || candidates_have(other, ip);
        if (here && !peer_has_names(peer) && alike(peer, s->peer)) {
            hash_remove(&roll->addresses, l);
            return;
        }
    }
}

/* ip NULL: anywhere. */
static void place_add(struct run *r, unsigned number, const struct ip *ip)
{
    struct ike_engine *e = r->e;
    struct roll *roll = &e->rolls[number];
    struct listing *s = r->listed[number];
    struct place *p = &s->places[s->place_count++];
    uint64_t key = address_key(e, !ip, ip);
    p->run = r;
    if (!peer_has_names(s->peer))
        hide_alike(roll, number, s, ip, key);
    hash_add(&roll->addresses, &p->by_address, key);
    if (s->peer->remote_id_any)
        hash_add(&roll->open, &p->by_id, key);
}

static void places_add(struct run *r, unsigned roll)
{
    if (r->listed[roll]->peer->endpoint_any) {
        place_add(r, roll, NULL);
        return;
    }
    for (unsigned i = 0; i < r->candidate_count; i++) {
        unsigned earlier = 0;
        while (!ip_equal(&r->candidates[earlier].ip, &r->candidates[i].ip))
            earlier++;
        if (earlier == i)
            place_add(r, roll, &r->candidates[i].ip);
    }
}

static void places_remove(struct run *r, unsigned number)
{
    struct roll *roll = &r->e->rolls[number];
    struct listing *s = r->listed[number];
    for (unsigned i = 0; i < s->place_count; i++) {
        hash_remove(&roll->addresses, &s->places[i].by_address);
        hash_remove(&roll->open, &s->places[i].by_id);
    }
    s->place_count = 0;
}

void choose_moved(struct run *r)
{
    for (unsigned i = 0; i < 2; i++)
        if (r->listed[i]) {
            places_remove(r, i);
            places_add(r, i);
        }
}

/* A raw key without a configured id goes by its fingerprint as well (DESIGN: Identities). */
static void add_key(struct ike_engine *e, struct roll *roll, struct listing *s)
{
    struct identity id = {.type = ID_KEY_ID, .len = KEY_FINGERPRINT};
    if (!s->peer->remote_id_any || !s->peer->auth.public_key)
        return;
    memcpy(id.b, s->peer->auth.fingerprint, KEY_FINGERPRINT);
    hash_add(&roll->keys, &s->by_key, name_key(e, &id));
}

enum err choose_add(struct run *r, unsigned roll, const struct peer *peer)
{
    struct ike_engine *e = r->e;
    unsigned room = peer->endpoint_any ? 1 : peer_has_names(peer) ? PEER_CANDIDATES : r->candidate_count;
    struct listing *s = calloc(1, sizeof *s + room * sizeof s->places[0]);
    if (!s)
        return ERR_NOMEM;
    s->run = r;
    s->peer = peer;
    r->listed[roll] = s;
    places_add(r, roll);
    add_key(e, &e->rolls[roll], s);
    if (!peer->remote_id_any)
        hash_add(&e->rolls[roll].names, &s->by_id, name_key(e, &peer->remote_id));
    return OK;
}

void choose_remove(struct run *r, unsigned roll)
{
    struct roll *from = &r->e->rolls[roll];
    struct listing *s = r->listed[roll];
    if (!s)
        return;
    places_remove(r, roll);
    hash_remove(&from->names, &s->by_id);
    hash_remove(&from->keys, &s->by_key);
    free(s);
    r->listed[roll] = NULL;
}

void choose_end(struct ike_engine *e, unsigned roll)
{
    hash_free(&e->rolls[roll].addresses);
    hash_free(&e->rolls[roll].open);
    hash_free(&e->rolls[roll].names);
    hash_free(&e->rolls[roll].keys);
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
            s->at = hash_find(&s->e->rolls[s->e->roll].addresses, address_key(s->e, s->lists == 1, &s->from));
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
    const struct roll *roll = &c->e->rolls[c->e->roll];
    switch (++c->list) {
    case LIST_NAMES:
        return hash_find(&roll->names, c->name);
    case LIST_KEYS:
        return hash_find(&roll->keys, c->name);
    case LIST_HERE:
        return c->enough ? NULL : hash_find(&roll->open, c->here);
    default:
        return c->enough ? NULL : hash_find(&roll->open, c->any);
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
        return CONTAINER_OF(c->at, struct listing, by_id)->run;
    case LIST_KEYS:
        return CONTAINER_OF(c->at, struct listing, by_key)->run;
    default:
        return CONTAINER_OF(c->at, struct place, by_id)->run;
    }
}
