#include "policy/spd.h"

#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "policy/classifier.h"

enum { IPV4, IPV6, FAMILIES };

struct spd {
    ns_t made; /* with the table's address: tells it from every other, also from one that had its memory before */
    unsigned n;
    struct spd_entry *entries;
    uint32_t *by_id; /* place in entries + 1; 0: none */
    uint32_t ids;
    uint32_t *dummies; /* places in entries of those that have them */
    unsigned dummy_count;
    struct classifier *classifiers[FAMILIES];
};

/* -- making -- */

static enum err index_ids(struct spd *s)
{
    for (unsigned i = 0; i < s->n; i++)
        s->ids = s->entries[i].id >= s->ids ? s->entries[i].id + 1 : s->ids;
    s->by_id = calloc((size_t)s->ids + 1, sizeof(*s->by_id));
    if (!s->by_id)
        return ERR_NOMEM;
    for (unsigned i = 0; i < s->n; i++)
        s->by_id[s->entries[i].id] = i + 1;
    return OK;
}

static enum err index_dummies(struct spd *s)
{
    unsigned n = 0;
    for (unsigned i = 0; i < s->n; i++)
        n += s->entries[i].policy->dummies != 0;
    if (n == 0)
        return OK;
    s->dummies = calloc(n, sizeof(*s->dummies));
    if (!s->dummies)
        return ERR_NOMEM;
    for (unsigned i = 0; i < s->n; i++)
        if (s->entries[i].policy->dummies)
            s->dummies[s->dummy_count++] = i;
    return OK;
}

static enum err compile(struct spd *s, unsigned family, struct regions *regions)
{
    const uint8_t version = family == IPV4 ? 4 : 6;
    for (unsigned i = 0; i < s->n; i++)
        TRY(regions_add(regions, s->entries[i].local, s->entries[i].remote, i, version));
    TRY(classifier_new(&s->classifiers[family], region_axes(version), regions));
    for (size_t i = 0; i < regions->n; i++) {
        const struct region *r = &regions->v[i];
        struct spd_entry *e = &s->entries[r->entry];
        e->overlapped = e->overlapped || classifier_meets(s->classifiers[family], r, r->entry);
    }
    return OK;
}

static enum err fill(struct spd *s, const struct spd_entry *entries, unsigned n)
{
    s->entries = calloc((size_t)n + 1, sizeof(*s->entries));
    if (!s->entries)
        return ERR_NOMEM;
    for (s->n = 0; s->n < n; s->n++) {
        struct spd_entry *e = &s->entries[s->n];
        *e = entries[s->n];
        e->local = e->local ? e->local : &e->policy->local;
        e->remote = e->remote ? e->remote : &e->policy->remote;
        e->overlapped = false;
    }
    TRY(index_ids(s));
    TRY(index_dummies(s));
    for (unsigned family = IPV4; family < FAMILIES; family++) {
        struct regions regions = {0};
        enum err e = compile(s, family, &regions);
        regions_free(&regions);
        TRY(e);
    }
    return OK;
}

enum err spd_new(struct spd **out, const struct spd_entry *entries, unsigned n)
{
    struct spd *s = calloc(1, sizeof(*s));
    if (!s || fill(s, entries, n) != OK) {
        spd_free(s);
        return ERR_NOMEM;
    }
    s->made = clock_now();
    *out = s;
    return OK;
}

void spd_free(struct spd *s)
{
    if (!s)
        return;
    free(s->entries);
    free(s->by_id);
    free(s->dummies);
    for (unsigned family = IPV4; family < FAMILIES; family++)
        classifier_free(s->classifiers[family]);
    free(s);
}

unsigned spd_count(const struct spd *s)
{
    return s->n;
}

size_t spd_size(const struct spd *s)
{
    size_t size =
        sizeof(*s) + s->n * sizeof(*s->entries) + s->ids * sizeof(*s->by_id) + s->dummy_count * sizeof(*s->dummies);
    for (unsigned family = IPV4; family < FAMILIES; family++)
        size += classifier_size(s->classifiers[family]);
    return size;
}

const struct spd_entry *spd_at(const struct spd *s, unsigned i)
{
    return i < s->n ? &s->entries[i] : NULL;
}

const struct spd_entry *spd_find(const struct spd *s, uint32_t id)
{
    return id < s->ids && s->by_id[id] ? &s->entries[s->by_id[id] - 1] : NULL;
}

const struct spd_entry *spd_dummies(const struct spd *s, unsigned i)
{
    return i < s->dummy_count ? &s->entries[s->dummies[i]] : NULL;
}

/* -- looking up -- */

struct question {
    const struct spd *s;
    const struct flow *f;
    bool out;
};

static bool confirm(const void *ctx, uint32_t entry)
{
    const struct question *q = ctx;
    const struct spd_entry *e = &q->s->entries[entry];
    return (q->out ? selectors_match_out : selectors_match_in)(e->local, e->remote, q->f);
}

static const struct spd_entry *lookup(const struct spd *s, const struct flow *f, bool out)
{
    const struct question q = {s, f, out};
    uint32_t x[REGION_AXES];
    if (ip_len(f->src.family) == 0 || f->src.family != f->dst.family)
        return NULL;
    region_point(f, out, x);
    uint32_t entry = classifier_find(s->classifiers[f->src.family == 4 ? IPV4 : IPV6], x, confirm, &q);
    return entry == CLASSIFIER_NONE ? NULL : &s->entries[entry];
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

/* Multiply and fold. Collisions cost a lookup in the table, nothing more, so the hash needs no secret. */
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
