#include "policy/fragments.h"

#include <stdlib.h>

#define WAYS 4
#define LIFE (30 * NS_PER_S) /* Linux's time for reassembly; RFC 8200 section 4.5 allows a minute */
#define TCP 6
#define TCP_HEADER 20

struct entry {
    ns_t until; /* 0: free */
    struct ip src, dst;
    uint32_t id;
    uint8_t proto;
    uint16_t src_port, dst_port;
};

struct fragment_table {
    unsigned count;
    struct entry sets[][WAYS];
};

enum err fragment_table_new(struct fragment_table **out, unsigned sets)
{
    struct fragment_table *t = calloc(1, sizeof *t + sets * sizeof t->sets[0]);
    if (!t)
        return ERR_NOMEM;
    t->count = sets;
    *out = t;
    return OK;
}

void fragment_table_free(struct fragment_table *t)
{
    free(t);
}

/* Whoever fills one set on purpose only loses his own fragments: identifications are a host's choice. */
static unsigned set_of(const struct fragment_table *t, const struct flow *f)
{
    unsigned n = ip_len(f->src.family), h = f->fragment_id ^ f->fragment_id >> 16;
    for (unsigned i = n - 4; i < n; i++)
        h = h * 31 + f->src.b[i] + 7u * f->dst.b[i];
    return h % t->count;
}

/* IPv6 does without the protocol (RFC 8200 section 4.5): later fragments name the header that the first one begins with. */
static bool same(const struct entry *e, const struct flow *f)
{
    return e->id == f->fragment_id && (e->proto == f->proto || f->src.family == 6) && ip_equal(&e->src, &f->src) &&
           ip_equal(&e->dst, &f->dst);
}

void fragment_table_note(struct fragment_table *t, const struct flow *f, ns_t now)
{
    struct entry *set = t->sets[set_of(t, f)], *at = &set[0];
    for (unsigned i = 0; i < WAYS; i++) {
        if (set[i].until > now && same(&set[i], f)) {
            at = &set[i];
            break;
        }
        if (set[i].until < at->until)
            at = &set[i];
    }
    *at = (struct entry){.until = now + LIFE,
                         .src = f->src,
                         .dst = f->dst,
                         .id = f->fragment_id,
                         .proto = f->proto,
                         .src_port = f->src_port,
                         .dst_port = f->dst_port};
}

bool fragment_table_fill(const struct fragment_table *t, struct flow *f, ns_t now)
{
    const struct entry *set = t->sets[set_of(t, f)];
    for (unsigned i = 0; i < WAYS; i++)
        if (set[i].until > now && same(&set[i], f)) {
            if (set[i].proto == TCP && f->fragment_offset < TCP_HEADER)
                return false;
            f->proto = set[i].proto;
            f->src_port = set[i].src_port;
            f->dst_port = set[i].dst_port;
            f->ports_known = true;
            return true;
        }
    return false;
}
