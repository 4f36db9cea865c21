#include "policy/spd.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"

/*
 * A row rejects quickly what its policy can't match: the span of all its local and of all its remote ranges of one
 * family, by the 64 leading bits of the address (all 32 of IPv4). What passes is held against the selectors themselves.
 * Rows of one family lie together, in the order of the policies.
 */
struct row {
    uint64_t local_first, local_last, remote_first, remote_last;
    uint32_t entry;
    uint8_t proto; /* the only one that can match; 0: several or any */
};

struct rows {
    struct row *v;
    unsigned n;
};

struct spd {
    ns_t made; /* with the table's address: tells it from every other, also from one that had its memory before */
    unsigned n;
    struct spd_entry *entries;
    uint32_t *by_id; /* place in entries + 1; 0: none */
    uint32_t ids;
    struct rows rows[2]; /* IPv4, IPv6 */
};

static uint64_t leading_bits(const struct ip *ip)
{
    return ip->family == 4 ? get_be32(ip->b) : get_be64(ip->b);
}

/* -- making -- */

/* Span and protocol of a list's selectors of one family. False: it has none. */
static bool bound(const struct selectors *list, uint8_t family, uint64_t *first, uint64_t *last, uint8_t *proto)
{
    bool found = false;
    for (unsigned i = 0; i < list->n; i++) {
        const struct selector *s = &list->v[i];
        if (s->range.first.family != family)
            continue;
        uint64_t low = leading_bits(&s->range.first), high = leading_bits(&s->range.last);
        *first = !found || low < *first ? low : *first;
        *last = !found || high > *last ? high : *last;
        *proto = !found || *proto == s->proto ? s->proto : 0;
        found = true;
    }
    return found;
}

static void add_row(struct rows *rows, const struct spd_entry *e, uint32_t entry, uint8_t family)
{
    struct row r = {.entry = entry};
    uint8_t local, remote;
    if (!bound(e->local, family, &r.local_first, &r.local_last, &local) ||
        !bound(e->remote, family, &r.remote_first, &r.remote_last, &remote))
        return;
    r.proto = local ? local : remote;
    rows->v[rows->n++] = r;
}

static bool rows_overlap(const struct row *a, const struct row *b)
{
    return a->local_first <= b->local_last && b->local_first <= a->local_last && a->remote_first <= b->remote_last &&
           b->remote_first <= a->remote_last && (!a->proto || !b->proto || a->proto == b->proto);
}

static void mark_overlapped(struct spd *s, const struct rows *rows)
{
    for (unsigned i = 0; i < rows->n; i++)
        for (unsigned k = 0; k < i && !s->entries[rows->v[i].entry].overlapped; k++)
            s->entries[rows->v[i].entry].overlapped = rows_overlap(&rows->v[k], &rows->v[i]);
}

static enum err allocate(struct spd *s, const struct spd_entry *entries, unsigned n)
{
    size_t count = n ? n : 1;
    for (unsigned i = 0; i < n; i++)
        s->ids = entries[i].id >= s->ids ? entries[i].id + 1 : s->ids;
    s->by_id = calloc(s->ids ? s->ids : 1, sizeof(*s->by_id));
    if (!s->by_id)
        return ERR_NOMEM;
    s->entries = calloc(count, sizeof(*s->entries));
    s->rows[0].v = calloc(count, sizeof(struct row));
    s->rows[1].v = calloc(count, sizeof(struct row));
    return s->entries && s->rows[0].v && s->rows[1].v ? OK : ERR_NOMEM;
}

enum err spd_new(struct spd **out, const struct spd_entry *entries, unsigned n)
{
    struct spd *s = calloc(1, sizeof(*s));
    if (!s || allocate(s, entries, n) != OK) {
        spd_free(s);
        return ERR_NOMEM;
    }
    s->made = clock_now();
    s->n = n;
    for (unsigned i = 0; i < n; i++) {
        struct spd_entry *e = &s->entries[i];
        *e = entries[i];
        e->local = e->local ? e->local : &e->policy->local;
        e->remote = e->remote ? e->remote : &e->policy->remote;
        e->overlapped = false;
        s->by_id[e->id] = i + 1;
        add_row(&s->rows[0], e, i, 4);
        add_row(&s->rows[1], e, i, 6);
    }
    mark_overlapped(s, &s->rows[0]);
    mark_overlapped(s, &s->rows[1]);
    *out = s;
    return OK;
}

void spd_free(struct spd *s)
{
    if (!s)
        return;
    free(s->entries);
    free(s->by_id);
    free(s->rows[0].v);
    free(s->rows[1].v);
    free(s);
}

unsigned spd_count(const struct spd *s)
{
    return s->n;
}

const struct spd_entry *spd_at(const struct spd *s, unsigned i)
{
    return i < s->n ? &s->entries[i] : NULL;
}

const struct spd_entry *spd_find(const struct spd *s, uint32_t id)
{
    return id < s->ids && s->by_id[id] ? &s->entries[s->by_id[id] - 1] : NULL;
}

/* -- looking up -- */

static const struct spd_entry *lookup(const struct spd *s, const struct flow *f, bool out)
{
    const struct rows *rows = &s->rows[f->src.family == 6];
    uint64_t src = leading_bits(&f->src), dst = leading_bits(&f->dst);
    uint64_t local = out ? src : dst, remote = out ? dst : src;
    for (unsigned i = 0; i < rows->n; i++) {
        const struct row *r = &rows->v[i];
        if (local < r->local_first || local > r->local_last || remote < r->remote_first || remote > r->remote_last ||
            (r->proto && r->proto != f->proto))
            continue;
        const struct spd_entry *e = &s->entries[r->entry];
        if (out ? selectors_match_out(e->local, e->remote, f) : selectors_match_in(e->local, e->remote, f))
            return e;
    }
    return NULL;
}

const struct spd_entry *spd_lookup_out(const struct spd *s, const struct flow *f)
{
    return lookup(s, f, true);
}

const struct spd_entry *spd_lookup_in(const struct spd *s, const struct flow *f)
{
    return lookup(s, f, false);
}

/* -- the flow cache -- */

#define CACHE_SLOTS 4096 /* a power of two */

/* What the selectors look at, and nothing else: one slot serves all packets of a connection. */
struct key {
    uint8_t src[16], dst[16];
    uint16_t src_port, dst_port;
    uint8_t proto, family, ports_known, used;
};

struct slot {
    struct key key;
    uint32_t entry; /* or SPD_NONE: that nothing matches is remembered too */
};

struct flow_cache {
    const struct spd *table;
    ns_t made;
    struct slot slots[CACHE_SLOTS];
};

enum err flow_cache_new(struct flow_cache **out)
{
    struct flow_cache *c = calloc(1, sizeof(*c));
    if (!c)
        return ERR_NOMEM;
    *out = c;
    return OK;
}

void flow_cache_free(struct flow_cache *c)
{
    free(c);
}

static struct key key_of(const struct flow *f)
{
    struct key k = {.src_port = f->src_port,
                    .dst_port = f->dst_port,
                    .proto = f->proto,
                    .family = f->src.family,
                    .ports_known = f->ports_known,
                    .used = 1};
    memcpy(k.src, f->src.b, sizeof(k.src));
    memcpy(k.dst, f->dst.b, sizeof(k.dst));
    return k;
}

/* Multiply and fold. Collisions cost a walk of the table, nothing more, so the hash needs no secret. */
static unsigned hash(const struct key *k)
{
    const uint64_t odd = UINT64_C(0x9e3779b97f4a7c15); /* 2^64 divided by the golden ratio */
    uint64_t word[sizeof(*k) / sizeof(uint64_t)], h = 0;
    _Static_assert(sizeof(*k) % sizeof(uint64_t) == 0, "a key is whole words without padding");
    memcpy(word, k, sizeof(word));
    for (size_t i = 0; i < sizeof(word) / sizeof(word[0]); i++) {
        h = (h ^ word[i]) * odd;
        h ^= h >> 32;
    }
    return (unsigned)(h & (CACHE_SLOTS - 1));
}

const struct spd_entry *flow_cache_lookup(struct flow_cache *c, const struct spd *s, const struct flow *f)
{
    if (c->table != s || c->made != s->made) {
        memset(c->slots, 0, sizeof(c->slots));
        c->table = s;
        c->made = s->made;
    }
    struct key k = key_of(f);
    struct slot *slot = &c->slots[hash(&k)];
    if (memcmp(&slot->key, &k, sizeof(k)) != 0) {
        const struct spd_entry *e = lookup(s, f, true);
        slot->key = k;
        slot->entry = e ? (uint32_t)(e - s->entries) : SPD_NONE;
    }
    return slot->entry == SPD_NONE ? NULL : &s->entries[slot->entry];
}
